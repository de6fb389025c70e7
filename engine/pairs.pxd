# What only some orders have: see pairs.pyx. Return values as in matching.pxd.

from engine.matching cimport Taker
from engine.types cimport PlaceRecord, State, int64_t, uint8_t, uint32_t

cdef uint32_t open_terms(State* s, uint32_t slot, const PlaceRecord* r, uint32_t partner) except? 0xFFFFFFFF nogil
cdef uint32_t find_partner(State* s, const PlaceRecord* r) noexcept nogil
cdef uint32_t part(State* s, uint32_t slot) noexcept nogil
cdef int count_slices(State* s, uint32_t slot, int64_t size) except -1 nogil
cdef int show_slice(State* s, uint32_t slot, int64_t leaves) except -1 nogil
cdef int refresh(State* s, uint32_t slot) except -1 nogil
cdef int refreshed_event(State* s, uint32_t slot) except -1 nogil
cdef int after_fill(State* s, Taker* t, uint32_t slot, int64_t maker_held, int64_t taker_held) except -1 nogil
cdef bint rounds_fill(State* s, Taker* t, uint32_t slot, int64_t* need, uint32_t* matches) noexcept nogil
cdef int end_order(State* s, uint32_t slot, uint8_t status, int64_t filled) except -1 nogil
