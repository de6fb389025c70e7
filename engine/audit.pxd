from engine.types cimport State

cdef int audit(State* s) except -1
