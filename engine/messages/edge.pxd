# The message heads and numbers of edge.py for C. tests/unit/engine/test_edge.py compares each with edge.py.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum MessageType:
    MESSAGE_ACK = 1
    MESSAGE_TOLD = 2
    MESSAGE_REFUSAL = 3

cdef enum EdgeCode:
    EDGE_NOT_SIGNED_IN = 1
    EDGE_FORBIDDEN = 2
    EDGE_BAD_FRAME = 3
    EDGE_TOO_MANY_COMMANDS = 4
    EDGE_UNKNOWN_OP = 5
    EDGE_MALFORMED = 6
    EDGE_UNKNOWN_MARKET = 7
    EDGE_BAD_PRICE = 8
    EDGE_BAD_SIZE = 9
    EDGE_BAD_DISPLAY = 10
    EDGE_BAD_STOP = 11
    EDGE_BUSY = 12
    EDGE_JOURNAL_FAILED = 13
    EDGE_CANCEL_ONLY = 14
    EDGE_RATE_LIMITED = 15
    EDGE_COLLAR = 16
    EDGE_PROTECTION = 17
    EDGE_EXPIRED_KEY = 18

cdef enum:
    OFFSET_NOT_GIVEN = 0xFFFF

cdef packed struct Ack:
    uint8_t type
    uint8_t slots
    uint16_t spare
    uint32_t rate_left
    uint64_t rid
    uint64_t sequence
    uint64_t chain
    int64_t t_in
    int64_t t_durable
    int64_t t_matched
    int64_t t_out

cdef packed struct Told:
    uint8_t type
    uint8_t slots
    uint8_t spare[6]

cdef packed struct Refusal:
    uint8_t type
    uint8_t slots
    uint16_t code
    uint32_t rate_left
    uint64_t rid
    uint32_t index
    uint16_t offset
    uint16_t pad
    int64_t t_out
