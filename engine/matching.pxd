# Takers, from acceptance to rest or end. Every function returns 0, or -1 with an AssertionError that nobody catches.

from engine.types cimport Market, State, int32_t, int64_t, uint8_t, uint32_t, uint64_t

# What a taker is while it matches.
ctypedef struct Taker:
    uint64_t order_id
    Market* market
    int64_t price  # limit; unused by a market order
    int64_t size, leaves  # lots; of a budget order quote units
    int64_t held  # what it holds now, by itself
    int64_t taken  # what its acceptance took: less than `held` where a partner holds already
    int64_t first_price  # of its first trade, 0: none yet
    int64_t paid, released, received, fees  # of fills that are not booked yet: units of quote or base
    uint64_t session
    uint32_t market_index, account, id_slot, stp_key
    uint32_t base, quote  # slots of its balances
    uint32_t slot, terms  # its own, or NIL
    uint32_t partner  # slot of the order it was accepted with, or NIL
    uint32_t credit
    int32_t taker_ppm, maker_ppm, hold_ppm
    uint8_t side, type, tif, stp, flags
    bint budget
    bint priced  # it has a limit
    bint special  # it will have Terms

cdef uint32_t take_slot(State* s, Taker* t) except? 0xFFFFFFFF nogil
cdef int taker_of(State* s, uint32_t slot, Taker* t) except -1 nogil
cdef int take(State* s, Taker* t) except -1 nogil
cdef int proceed(State* s, Taker* t) except -1 nogil
