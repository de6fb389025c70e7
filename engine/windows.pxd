# Where the levels of a half are: see windows.pyx.

from engine.types cimport Half, Market, State, int64_t

# An order is about to join the half at a price outside its window. Whoever calls it has asked `secure`, or just did.
cdef int widen(State* s, Market* market, int side, int64_t price) except -1 nogil
# Before a command changes anything: what an order needs that may join at that price later in it, or any order at any time.
# MemoryError: there is none, and nothing has changed.
cdef int secure(State* s, Market* market, int side, int64_t price) except -1 nogil
cdef int secure_all(State* s, Market* market) except -1 nogil
cdef void close_windows(Market* market) noexcept

# The layers above `bits`; the price is in the window.
cdef void set_above(Half* half, int64_t price) noexcept nogil
cdef void clear_above(Half* half, int64_t price) noexcept nogil
cdef int64_t far_above(Half* half, int64_t price) noexcept nogil
cdef int64_t far_below(Half* half, int64_t price) noexcept nogil
