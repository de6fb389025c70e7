# Where the levels of a half are: see windows.pyx.

from engine.types cimport Half, State, int64_t, uint32_t

# The order in `slot` is about to join the half at a price outside its window.
cdef int widen(State* s, Half* half, uint32_t slot) except -1 nogil
cdef void close_window(Half* half) noexcept

# The layers above `bits`; the price is in the window.
cdef void set_above(Half* half, int64_t price) noexcept nogil
cdef void clear_above(Half* half, int64_t price) noexcept nogil
cdef int64_t far_above(Half* half, int64_t price) noexcept nogil
cdef int64_t far_below(Half* half, int64_t price) noexcept nogil
