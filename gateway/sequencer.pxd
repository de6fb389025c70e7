# The total order of commands, and the only user of engine.core.
#
#   submit     a record gets its time and sequence, goes to the journal, to the core, its events to the event log
#   publish    everything submitted so far may be written to disk
#   release    hands what is safe to tell, in order, to the ReleaseSink
#   advance    ticks that are due while nobody sends anything

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.core cimport Core
from engine.messages.ports cimport ClockPort, EventLogPort, JournalPort

cdef enum:
    RID_BYTES = 40

cdef enum Taken:
    TAKEN = 0
    BUSY = 1  # nothing happened: not journaled, not executed
    FAILED = 2  # the journal stopped for good: nothing happened
    CLOSED = 3  # only cancels are taken now: nothing happened

cdef enum Form:
    TEXT = 0  # the request id as it stands in the answer's JSON
    RECORD = 1  # eight bytes

cdef struct Pending:
    uint64_t sequence
    uint64_t chain
    uint64_t owner  # of the request: a connection number; 0: nobody waits
    int64_t t_in  # ns since 1970, when the request was read
    int64_t t_matched  # when the core had applied it
    int64_t t_durable  # when it was surely on disk; 0: not known when it was told
    uint8_t* events  # in the arena, or on the heap if `on_heap`
    uint64_t arena_end  # slots of the arena taken up to and with these
    uint32_t event_slots
    uint8_t on_heap
    uint8_t form  # of the answer
    uint8_t rid_size
    char rid[40]

cdef class ReleaseSink:
    # A released command: tell it. Called in sequence, once each, from release() alone.
    cdef int released(self, const Pending* pending) except -1

cdef class Sequencer:
    cdef Core core
    cdef object clock
    cdef object clock_owner
    cdef ClockPort* clock_port  # NULL: a clock of Python alone
    cdef object journal_owner  # keeps the ports alive
    cdef object event_log_owner
    cdef JournalPort* journal
    cdef EventLogPort* event_log
    cdef ReleaseSink sink
    cdef readonly bint durable_acks
    cdef public bint cancel_only
    cdef public object on_definition
    cdef int64_t last_ts
    cdef readonly uint64_t sequence
    cdef readonly uint64_t chain
    cdef readonly uint64_t released_sequence
    cdef readonly uint64_t refused_busy
    cdef readonly uint64_t ticks
    cdef Pending* ring
    cdef uint64_t ring_mask
    cdef uint64_t head
    cdef uint64_t tail
    cdef uint8_t* scratch
    cdef Py_ssize_t scratch_slots
    cdef uint8_t* arena
    cdef uint64_t arena_slots
    cdef uint64_t arena_head  # slots ever taken
    cdef uint64_t arena_tail
    cdef uint32_t journal_reserve

    cpdef object order_market(self, uint32_t account, object order_id, bytes client_id)
    cdef int64_t reference_price(self, uint32_t market) noexcept nogil
    cdef int submit(self, uint8_t* record, uint32_t slots, uint64_t owner, const char* rid, Py_ssize_t rid_size,
                    uint8_t form, int64_t t_in, bint reserved) except -1
    cdef int _apply(self, uint8_t* record, uint32_t slots, uint64_t owner, const char* rid, Py_ssize_t rid_size,
                    uint8_t form, int64_t t_in) except -1
    cdef int _tick(self, int64_t now) except -1
    cdef int _room(self, uint32_t slots, bint reserved) noexcept nogil
    cdef int64_t read_clock(self) except? -1
    cdef int64_t _now(self) except? -1
    cdef int _stretch(self, Py_ssize_t slots) noexcept nogil
    cdef uint8_t* _keep(self, uint32_t slots, Pending* entry) except NULL
    cdef void publish(self) noexcept nogil
    cdef uint64_t safe(self) noexcept nogil
    cdef int release(self) except -1
