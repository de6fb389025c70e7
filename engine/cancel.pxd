# Ends of orders. Every function returns 0, or -1 with an AssertionError that nobody catches.

from engine.types cimport CancelRecord, ClientId, State, int64_t, uint8_t, uint16_t, uint32_t

cdef int cancel(State* s, const CancelRecord* r, uint16_t flags) except -1 nogil

# One order, for the rules in other files.
cdef int cancel_slot(State* s, uint32_t slot, uint8_t why) except -1 nogil
cdef int cancel_order(State* s, uint32_t slot, uint8_t why, int64_t other) except -1 nogil
cdef int reject_named(State* s, uint32_t account, const ClientId* client_id, uint16_t flags, int reason) except -1 nogil
