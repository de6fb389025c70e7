# Refs of commands: see refs.pyx. Return values as in matching.pxd.

from engine.types cimport Name, Record, RefSlot, State, int64_t, uint8_t, uint32_t, uint64_t

cdef int reject_ref(State* s, int reason, uint32_t account, const Name* ref) except -1 nogil
cdef int duplicate_ref(State* s, uint32_t slot) except -1 nogil
cdef void content_digest(const Record* r, uint64_t* digest) noexcept nogil
cdef int judge_ref(State* s, const Record* r, const Name* ref, int64_t not_after, uint32_t account) except -1 nogil
cdef uint32_t own_ref(State* s, const Name* name, uint8_t status, int64_t not_after) except? 0xFFFFFFFF nogil
cdef int keep_ref(State* s, const Record* r, const Name* name, int64_t not_after) except -1 nogil
cdef const RefSlot* optional_ref(const Record* r) noexcept nogil
cdef int reject_definition(State* s, int reason, uint32_t account, const RefSlot* ref) except -1 nogil
cdef int add_ref_dues(State* s, uint32_t slot) except -1 nogil
cdef int forget_ref(State* s, uint32_t slot) except -1 nogil
