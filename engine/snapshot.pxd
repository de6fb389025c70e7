# The state as bytes. `write_state` touches no Python object, no lock and no heap; `Stream` is engine/stream.h.

from engine.types cimport SortItem, State, uint64_t

cdef extern from "engine/stream.h" nogil:
    ctypedef struct Stream:
        const unsigned char* buffer
        size_t used
        int error  # errno of what went wrong first, or 0

    int stream_open(Stream* stream, int descriptor, uint64_t offset)
    void stream_put(Stream* stream, const void* data, size_t size)
    void stream_number(Stream* stream, uint64_t value)
    int stream_finish(Stream* stream)
    void stream_close(Stream* stream)
    void sort_by_key(SortItem* items, SortItem* spare, size_t count)

cdef void write_state(State* s, Stream* out) noexcept nogil
cdef int read_state(State* s, const unsigned char* data, size_t size) except -1
