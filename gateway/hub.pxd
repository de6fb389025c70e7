# Connections, and the way from released commands to them.
#
#   Counters     plain counts since the start
#   Connection   what one session sends: frames gathered in its buffer, written once per read
#   Hub          by number and by account; turns released commands into acks and private events

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from picows.picows cimport WSTransport

from engine.messages.records cimport Rejected, Trade
from gateway.guard cimport Guard
from gateway.names cimport Names
from gateway.orders cimport OpenOrders
from gateway.sequencer cimport Pending, ReleaseSink, Sequencer
from gateway.stages cimport Stages
from gateway.wire.binary cimport Rights

cdef class Counters:
    cdef public uint64_t acks
    cdef public uint64_t bad_frames
    cdef public uint64_t closed_silent
    cdef public uint64_t closed_slow
    cdef public uint64_t commands_binary
    cdef public uint64_t commands_fast
    cdef public uint64_t commands_thorough
    cdef public uint64_t frames_in
    cdef public uint64_t private_events
    cdef public uint64_t refused_busy
    cdef public uint64_t refused_sessions
    cdef public uint64_t rejected_commands
    cdef public uint64_t sends
    cdef public uint64_t sessions
    cdef public uint64_t sessions_opened

cdef class Connection:
    cdef readonly uint64_t number  # its low 16 bits are its seat in the hub
    cdef readonly object session
    cdef WSTransport transport
    cdef char* buffer
    cdef Py_ssize_t size
    cdef Py_ssize_t room
    cdef Py_ssize_t burst  # bytes of one write that alone exceeded the bound, while they drain
    cdef readonly bint is_ending
    cdef bint is_dirty
    cdef bint is_clear  # see gateway.transport.write_frames
    cdef readonly bint is_binary  # its acks of records and its private events are slots
    cdef Py_ssize_t frame_at  # where the open binary frame begins in the buffer; -1: none is open
    cdef public int64_t rate_left  # commands that its key may still send; -1: without limit
    cdef uint32_t asks  # of its questions, those that wait
    cdef bint may_trade  # the fast path may take its orders
    cdef bint may_cancel
    cdef uint32_t account  # its default, NIL: none
    cdef uint32_t market  # the one last used, NIL: none
    cdef public Guard guard  # None: nothing is limited
    cdef public uint32_t stages_seat  # where its key's histograms of stages are
    cdef list accounts  # indices that it hears of
    cdef readonly uint64_t told_since  # every private event of a later sequence was told, or will be, in order
    cdef bint has_paid  # a request was taken for its last command that was not free
    cdef bint was_heard  # a frame came since somebody asked
    cdef public bint in_fragments  # a message has begun whose last frame has not come
    cdef bint holds  # a replay tells it of the past: what happens now is told by that too
    cdef uint64_t held_from  # after which that replay tells
    cdef set acked  # sequences whose first event it was told as an ack while it holds
    cdef uint32_t* owned  # the same indices; what its records are checked against
    cdef Rights rights

    cdef char* begin(self) except NULL
    cdef int end(self, char* end) except -1
    cdef int put(self, bytes payload) except -1
    cdef char* reserve(self, Py_ssize_t size) except NULL
    cdef int extend(self, char* end) except -1
    cdef int seal(self) except -1
    cdef int _grow(self, Py_ssize_t need) except -1

cdef class Hub(ReleaseSink):
    cdef readonly Sequencer sequencer
    cdef readonly Names names
    cdef readonly OpenOrders orders
    cdef readonly Counters counters
    cdef readonly Stages stages
    cdef list allowances  # by account index: None, or a list of those that its fills give requests back to
    cdef object decode
    cdef object answer
    cdef dict connections
    cdef list seats  # connections by seat, None where it is free
    cdef list free_seats
    cdef list listeners  # by account index: None or a list of connections
    cdef list dirty
    cdef object asks  # deque of (sequence, connection, Ask, its answer or None)
    cdef Py_ssize_t asks_max
    cdef uint32_t asks_per_connection_max
    cdef int64_t t_out
    cdef Py_ssize_t write_high
    cdef uint64_t numbers
    cdef uint32_t reads  # of this turn, not told yet
    cdef bint is_turning  # the end of this turn is asked for
    cdef object call_soon
    cdef object turn
    cdef public object on_fatal
    cdef public object look  # callable(Ask, session): what of an answer must be seen when it is asked, or None
    cdef readonly dict guarded  # orders under protection: gateway.protection.Protection by order id
    cdef public object receipts  # gateway.receipts.Receipts, or None: none are signed
    cdef public object state_hash  # callable: the core's, 16 bytes
    cdef public object collar_rule  # (market, reference in ticks, ppm) to the rule's text
    cdef public object rejections  # gateway.rejections.Rejections, told of each refused place

    # 0 if this record may go to the sequencer, else a Refusal. Stamps a place with its session. `market` of a place or
    # replace, NIL otherwise; `now` the time of the read.
    cdef int admit(self, Connection connection, uint8_t* record, uint32_t market, int64_t now) except -1
    cdef int end_of_read(self) except -1
    cdef int tell(self) except -1
    cdef int touch(self, Connection connection) except -1
    cdef Connection owner_of(self, uint64_t number)
    cdef int refuse(self, Connection connection, int why, bytes rid, uint32_t market, str side) except -1
    cdef object _order_market(self, const uint8_t* record)
    cdef uint32_t _market_of(self, Connection connection, const uint8_t* record) except? 0
    cdef int taken(self, Connection connection, uint8_t kind) except -1
    cdef int _count_fill(self, uint64_t order_id, int64_t leaves, const Trade* trade) except -1
    cdef int _reward(self, uint32_t account) except -1
    cdef int _learn_rejection(self, const Rejected* event) except -1
    cdef int refuse_record(self, Connection connection, uint16_t code, uint16_t offset, uint64_t rid, uint32_t index) except -1
    cdef int ack_record(self, Connection connection, const Pending* pending) except -1
    cdef int tell_account(self, uint32_t account, const uint8_t* slot, Connection but) except -1
    cdef int tell_market(self, const uint8_t* slot, Connection connection) except -1
    cdef int tell_slow(self, Connection connection, const Pending* pending, const uint8_t* slot, uint32_t slots) except -1
    cdef int answer_asks(self) except -1
    cdef int flush(self) except -1
