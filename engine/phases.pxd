# What a market does with orders at the moment: see phases.pyx. Return values as in matching.pxd.

from engine.types cimport Record, State, uint32_t

cdef int do_phase(State* s, const Record* r) except -1 nogil
cdef int do_uncross(State* s, const Record* r) except -1 nogil
cdef int pause(State* s, uint32_t market) except -1 nogil
cdef int pause_due(State* s, uint32_t market) except -1 nogil
