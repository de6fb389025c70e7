# Many orders at once, and what an account may still do: see scopes.pyx. Return values as in matching.pxd.

from engine.types cimport (
    CancelAfterRecord, ClientId, MassCancelRecord, PoisonRecord, State, int64_t, uint8_t, uint32_t,
)

cdef int mass_cancel(State* s, const MassCancelRecord* r) except -1 nogil
cdef int do_kill(State* s, const CancelAfterRecord* r, uint8_t killed) except -1 nogil
cdef int do_cancel_after(State* s, const CancelAfterRecord* r) except -1 nogil
cdef int do_poison(State* s, const PoisonRecord* r) except -1 nogil

cdef int collect(State* s, uint32_t slot, size_t* count) except -1 nogil
cdef int cancel_account(State* s, uint32_t account, uint8_t why) except -1 nogil
cdef int cancel_market(State* s, uint32_t market, uint8_t why) except -1 nogil
cdef int set_timer(State* s, uint32_t account, int64_t at) except -1 nogil
cdef int add_poison(State* s, uint32_t account, const ClientId* client_id) except -1 nogil
