from engine.types cimport PlaceRecord, State, uint16_t, uint32_t

cdef int place(State* s, const PlaceRecord* r, uint16_t flags) except -1 nogil
cdef int duplicate_order(State* s, uint32_t id_slot) except -1 nogil
