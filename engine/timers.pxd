# What happens by time: see timers.pyx. Return values as in matching.pxd.

from engine.types cimport Limits, State, int64_t, uint32_t, uint64_t

cdef enum:
    FIRST_DUES = 1024  # entries at which those that are no longer due are dropped for the first time

cdef int tick(State* s) except -1 nogil
cdef uint64_t due_entries(const Limits* limits) noexcept nogil
cdef int add_due(State* s, int64_t at, uint64_t sequence, uint32_t kind, uint32_t slot) except -1 nogil
cdef int64_t next_due(State* s) noexcept nogil
cdef void leave_parked(State* s, uint32_t slot) noexcept nogil
cdef int unpark(State* s, uint32_t market) except -1 nogil
cdef Py_ssize_t tick_bound(State* s, int64_t time) noexcept nogil
