# Assets, markets, accounts: see listing.pyx. Return values as in matching.pxd.

from engine.types cimport Name, Record, State, uint8_t, uint32_t

cdef int do_asset(State* s, const Record* r) except -1 nogil
cdef int do_market(State* s, const Record* r) except -1 nogil
cdef int do_account(State* s, const Record* r) except -1 nogil

cdef int open_account(State* s, const Name* name, uint8_t overdraft) except? -1 nogil
cdef int write_done_asset(State* s, uint32_t index) except -1 nogil
cdef int write_done_market(State* s, uint32_t index) except -1 nogil
cdef int write_done_account(State* s, uint32_t index) except -1 nogil
