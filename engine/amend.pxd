# replace: see amend.pyx. Return values as in matching.pxd.

from engine.types cimport ReplaceRecord, State, uint16_t

cdef int replace(State* s, const ReplaceRecord* r, uint16_t flags) except -1 nogil
