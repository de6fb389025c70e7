# Money commands: see transfers.pyx. Return values as in matching.pxd.

from engine.types cimport Record, State, uint32_t

cdef int do_money(State* s, const Record* r) except -1 nogil
cdef int do_post(State* s, const Record* r) except -1 nogil
cdef int do_void(State* s, const Record* r) except -1 nogil
cdef int expire(State* s, uint32_t slot) except -1 nogil
