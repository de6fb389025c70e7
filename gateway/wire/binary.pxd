# The protocol `byline.binary.v1`: command records checked where they came in, answers written without an object.
#
#   count_commands   whether a frame is whole records, and of how many
#   check            whether one record is what the JSON encoder could have made of a client's words
#   put_…            the messages of engine/messages/edge.py

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MESSAGE_MAX = 64 + 255 * 128  # bytes of the longest message

cdef struct Rights:
    bint may_trade
    bint may_cancel
    const uint32_t* accounts  # indices that the session acts for
    uint32_t account_count
    uint32_t market_count

# How many commands a frame holds; -1 if it is no whole number of them.
cdef Py_ssize_t count_commands(const uint8_t* payload, Py_ssize_t size) noexcept nogil

# 0, or an EdgeCode and at *offset the byte of the record where the fault stands. Looks at its `slots` slots alone.
cdef uint16_t check(const uint8_t* record, const Rights* rights, uint16_t* offset) noexcept nogil

# Whether a command only ever takes risk away (it keeps a reserve when the exchange is busy).
cdef bint takes_risk_away(uint8_t kind) noexcept nogil

cdef char* put_ack(char* p, uint64_t rid, uint64_t sequence, uint64_t chain, int64_t t_in, int64_t t_durable,
                   int64_t t_matched, int64_t t_out, uint32_t rate_left, const uint8_t* event) noexcept nogil
# `own`: the account that reads it, which sees its own side and its own legs alone; NIL: all of it.
cdef char* put_told(char* p, const uint8_t* event, uint32_t own) noexcept nogil
cdef char* put_refusal(char* p, uint64_t rid, uint16_t code, uint16_t offset, uint32_t index, int64_t t_out,
                       uint32_t rate_left) noexcept nogil
