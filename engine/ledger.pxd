# Assets, markets, accounts and money commands. Return values as in matching.pxd.

from engine.types cimport AccountRecord, AssetRecord, MarketRecord, Name, PostRecord, Record, State, int64_t, uint8_t, uint32_t, uint64_t

cdef int do_asset(State* s, const Record* r) except -1 nogil
cdef int do_market(State* s, const Record* r) except -1 nogil
cdef int do_account(State* s, const Record* r) except -1 nogil
cdef int do_money(State* s, const Record* r) except -1 nogil
cdef int do_post(State* s, const Record* r) except -1 nogil
cdef int do_void(State* s, const Record* r) except -1 nogil
cdef int tick(State* s) except -1 nogil

cdef int open_account(State* s, const Name* name, uint8_t overdraft) except? -1 nogil
cdef int reject_ref(State* s, int reason, uint32_t account, const Name* ref) except -1 nogil
cdef int add_due(State* s, int64_t at, uint64_t sequence, uint32_t kind, uint32_t slot) except -1 nogil
cdef int add_ref_dues(State* s, uint32_t slot) except -1 nogil
cdef int64_t next_due(State* s) noexcept nogil

cdef int write_done_asset(State* s, uint32_t index) except -1 nogil
cdef int write_done_market(State* s, uint32_t index) except -1 nogil
cdef int write_done_account(State* s, uint32_t index) except -1 nogil
