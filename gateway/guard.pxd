# What a session may send, judged on the record: the same for JSON and binary commands.
#
#   Allowance    token buckets of one account and tier: requests that trade, and messages
#   Guard        one session's rights as C fields; `judge` before a record goes to the sequencer

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef uint64_t OUTLIVES  # in a place's session, before it is judged: it outlives the connection

cdef enum Refusal:
    # Above the sequencer's codes of `Taken`. None of these is journaled or executed.
    RATE_LIMITED = 16
    MARKET_NOT_PERMITTED = 17
    COLLAR = 18
    PROTECTED = 19
    EXPIRED_KEY = 20
    SESSION_NOT_PERMITTED = 21
    UNPRICED = 23  # no limit price, and the key has a collar
    IN_VAIN = 22  # a cancel, mass_cancel, kill or cancel_after, after too many that found nothing

cdef struct Bucket:
    int64_t each_ns  # a token comes back in this time; 0: no limit
    int64_t most_ns  # tokens in a full bucket × each_ns
    int64_t full_at  # when it is full again, ns of the gateway's clock

cdef class Allowance:
    cdef Bucket requests
    cdef Bucket messages
    cdef Bucket vain
    cdef Bucket poisons
    cdef readonly str tier

    # A request taken back: refused by the sequencer, or rewarded for a fill.
    cdef void give_back(self) noexcept nogil
    # What `judge` took for a command of this kind, taken back: it was not submitted, or it did cancel something.
    cdef void untake(self, uint8_t kind) noexcept nogil
    # Requests left now; -1: no limit.
    cdef int64_t left(self, int64_t now) noexcept nogil
    cdef int64_t wait_ns(self, bint is_vain, int64_t now) noexcept nogil
    cdef bint take_message_at(self, int64_t now) noexcept nogil


cdef class Protected:
    cdef public bint is_tripped

cdef class Guard:
    cdef readonly Allowance allowance
    cdef readonly Protected protection  # None: no protection is set
    cdef readonly uint64_t stamp  # of orders that end with the session; 0: they outlive it
    cdef readonly uint64_t keep_stamp  # of those that outlive it: the key's
    cdef readonly bint has_placed  # an order with `stamp` was let through
    cdef int64_t collar_ppm  # 0: none
    cdef int64_t expires_at  # ns; 0: never
    cdef uint8_t* markets  # by index: 1 permitted; NULL: all are
    cdef uint32_t market_count

    # 0, or a Refusal. May write a place's session. `reference`: the market's reference price, ABSENT if none; asked for
    # only if `collar_ppm`. `market` NIL: the record names none.
    cdef int judge(self, uint8_t* record, uint32_t market, int64_t reference, int64_t now) noexcept nogil
