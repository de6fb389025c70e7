# Records in, events out: see apply.pyx.

from engine.types cimport Event, Record, State, int64_t, uint32_t

# What core.h calls them: why a record or a call is refused.
cdef extern from "engine/core.h" nogil:
    int BYLINE_NO_ROOM, BYLINE_NOT_NEXT, BYLINE_BAD_RECORD, BYLINE_BROKEN, BYLINE_NO_MEMORY, BYLINE_BAD_CALL, BYLINE_IN_USE

# Why the record cannot be taken now, with `slots` from its head to the end and room for `event_slots`; 0 if it can.
cdef int refusal(State* s, const Record* r, int64_t slots, int64_t event_slots) noexcept nogil
cdef bint overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) noexcept nogil
# One record, which nothing refuses; `capacity` is at least its bound, `tag` that of the client id at words 5 … 8.
cdef int apply_one(State* s, const Record* r, Event* out, Py_ssize_t capacity, uint32_t tag) except -1 nogil
# Records from `at[0]` on, as many as can be taken; `at` and `used` say how far it came, also where it raises.
cdef int apply_all(
    State* s, const Record* records, Py_ssize_t* at, Py_ssize_t end, Event* out, Py_ssize_t capacity, Py_ssize_t* used
) except -1 nogil
# After either: 0 if it did not raise, else BYLINE_NO_MEMORY (the last record changed nothing) or BYLINE_BROKEN.
cdef int leave(State* s) noexcept nogil
