# Stops that wait, trigger and run: see stops.pyx. Return values as in matching.pxd.

from engine.matching cimport Taker
from engine.types cimport State, int64_t, uint32_t

cdef bint meets(int side, int64_t stop_price, int64_t price) noexcept nogil
cdef int wait(State* s, uint32_t slot) except -1 nogil
cdef int stop_waiting(State* s, uint32_t slot) except -1 nogil
cdef int move_stop(State* s, uint32_t slot, int64_t stop_price) except -1 nogil
cdef int run_stop(State* s, uint32_t slot, int64_t trigger_price) except -1 nogil
cdef int run_touched(State* s, Taker* t) except -1 nogil
cdef int run_met(State* s, uint32_t market) except -1 nogil
cdef int collect_waiting(State* s, uint32_t slot, size_t* count) except -1 nogil
