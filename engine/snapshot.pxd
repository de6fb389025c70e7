from engine.types cimport State

cdef object write_state(State* s)
cdef int read_state(State* s, const unsigned char* data, size_t size) except -1
