# Orders: from the command to the events. Every function returns 0, or -1 with an AssertionError that nobody catches.

from engine.types cimport CancelRecord, MassCancelRecord, PlaceRecord, ReplaceRecord, State, uint8_t, uint16_t, uint32_t

cdef int place(State* s, const PlaceRecord* r, uint16_t flags) except -1 nogil
cdef int cancel(State* s, const CancelRecord* r, uint16_t flags) except -1 nogil
cdef int replace(State* s, const ReplaceRecord* r, uint16_t flags) except -1 nogil
cdef int mass_cancel(State* s, const MassCancelRecord* r) except -1 nogil
cdef int cancel_account(State* s, uint32_t account, uint8_t why) except -1 nogil
