# The auction: see auction.pyx.

from engine.types cimport Market, State, int64_t, uint32_t

ctypedef struct Finding:
    int64_t price  # ABSENT: the book is not crossed
    int64_t size, imbalance

cdef Finding find_price(State* s, Market* market) noexcept nogil
cdef int uncross(State* s, uint32_t market) except -1 nogil
