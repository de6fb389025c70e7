from engine.types cimport State, uint128

cdef int audit(State* s) except -1
# What the running sum of the state hash should be.
cdef uint128 whole_sum(State* s) noexcept nogil
