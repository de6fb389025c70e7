# The only door to the engine. One Core is used by one thread at a time.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from engine.types cimport State

cdef class Core:
    cdef State* state
    cdef object _limits
    cdef uint8_t* _buffer  # events of `apply`
    cdef Py_ssize_t _buffer_slots

    # As of the last applied command; readable without the GIL.
    cdef readonly uint64_t sequence
    cdef readonly int64_t time  # largest ts so far, ns
    cdef readonly uint64_t batch  # cuts so far
    cdef readonly int64_t next_due  # when the next tick has work, ns; 2^63 - 1: never

    # Applies one record (head slot and extensions) and writes its events. Returns the slots written. -1: an assertion
    # (broken invariant, wrong sequence: the core must stop), or BufferError if `out_slots` is below slots_bound, in
    # which case nothing has changed.
    cdef Py_ssize_t apply_record(self, const uint8_t* record, uint8_t* out, Py_ssize_t out_slots) except -1 nogil
    # The most event slots that this record can make in the present state.
    cdef Py_ssize_t slots_bound(self, const uint8_t* record) noexcept nogil
    cdef int _start(self, object limits, bint risk) except -1
    cdef void _publish(self) noexcept nogil
    cdef object _slots(self, Py_ssize_t bound, const uint8_t* record)
