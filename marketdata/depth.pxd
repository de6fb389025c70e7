# L2 of one market: two sorted arrays of levels, the best at the end.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef struct Level:
    int64_t key        # price of a bid, minus price of an ask: the best level has the largest key
    int64_t size       # displayed lots
    int64_t orders

cdef class Depth:
    cdef Level* levels[2]
    cdef Py_ssize_t counts[2]
    cdef Py_ssize_t capacities[2]
    cdef int64_t* touched[2]
    cdef Py_ssize_t touched_counts[2]
    cdef Py_ssize_t touched_capacities[2]
    cdef bint tracking
    cdef readonly uint64_t changed_sequence

    # Changes a level by `size` lots and `orders` orders; an empty level goes. Raises AssertionError below zero.
    cdef int add(self, uint8_t side, int64_t price, int64_t size, int64_t orders, uint64_t sequence) except -1
    cdef Py_ssize_t find(self, uint8_t side, int64_t key) noexcept nogil
    cdef int touch(self, uint8_t side, int64_t price) except -1
