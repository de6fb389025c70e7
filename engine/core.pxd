# The door to the engine, from Python and from Cython. One Core is used by one thread at a time.

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t

from engine.snapshot cimport Stream
from engine.timers cimport next_due
from engine.types cimport State

# The C door, as engine/core.h says it.
cdef extern from "engine/core.h" nogil:
    const char* BYLINE_CORE_CAPSULE
    int BYLINE_CORE_VERSION
    ctypedef struct BylineRecord:
        pass
    ctypedef struct BylineEvent:
        pass

ctypedef int64_t (*door_apply_t)(void*, const BylineRecord*, BylineEvent*, int64_t) noexcept nogil
ctypedef int64_t (*door_apply_batch_t)(
    void*, const BylineRecord*, int64_t*, int64_t, BylineEvent*, int64_t
) noexcept nogil
ctypedef int64_t (*door_bound_t)(void*, const BylineRecord*) noexcept nogil
ctypedef uint64_t (*door_sequence_t)(void*) noexcept nogil
ctypedef void (*door_state_hash_t)(void*, uint8_t*) noexcept nogil

cdef extern from "engine/core.h" nogil:
    ctypedef struct BylineCorePort:
        uint32_t version, slot_bytes
        void* context
        door_apply_t apply
        door_apply_batch_t apply_batch
        door_bound_t bound
        door_sequence_t sequence
        door_state_hash_t state_hash

cdef class Core:
    cdef State* state
    cdef object _limits
    cdef object _known_dtype  # of the records or slots that came last
    cdef uint8_t* _buffer  # events of `apply`
    cdef Py_ssize_t _buffer_slots
    cdef BylineCorePort port_struct

    # As of the last applied command; readable without the GIL.
    cdef readonly uint64_t sequence
    cdef readonly int64_t time  # largest ts so far, ns
    cdef readonly uint64_t batch  # cuts so far
    cdef readonly int64_t next_due  # when the next tick has work, ns; 2^63 - 1: never

    # Applies one record (head slot and extensions) and writes its events. Returns the slots written. -1: BufferError if
    # `out_slots` is below slots_bound, ValueError if it is not the next one, MemoryError, RuntimeError: nothing has changed;
    # AssertionError: an invariant broke, and whatever comes later is refused with one.
    cdef Py_ssize_t apply_record(self, const uint8_t* record, uint8_t* out, Py_ssize_t out_slots) except -1 nogil
    # The most event slots that this record can make in the present state.
    cdef Py_ssize_t slots_bound(self, const uint8_t* record) noexcept nogil
    # What bands of that market are measured from now, in ticks: the last trade, a phase's, the listing's. ABSENT: none.
    cdef int64_t reference_price(self, uint32_t market) noexcept nogil
    # A snapshot in two steps, for a caller that forks in between: `settle` first, then `write_snapshot`, which only reads the
    # state and puts the bytes of `snapshot` but its SHA-256 (stream_finish does). The second is safe in a forked child.
    cdef void settle(self) noexcept nogil
    cdef void write_snapshot(self, Stream* out) noexcept nogil
    # Large pages again where a child split them. On a thread of its own, beside the core's; it rests often, so it takes
    # about 2 ms for each 16 MB.
    cdef void collapse(self) noexcept nogil
    cdef int _start(self, object limits, bint risk) except -1
    cdef object _slots(self, Py_ssize_t bound, const uint8_t* record)
    cdef State* _free(self) except NULL
    cdef int _require_slots(self, object data) except -1


cdef inline void publish(Core core) noexcept nogil:
    # What others read of the state, as it is now.
    core.sequence = core.state.sequence
    core.time = core.state.time
    core.batch = core.state.batch
    if core.state.due_count or core.next_due != INT64_MAX:
        core.next_due = next_due(core.state)
