# L2 of one market: two sorted arrays of levels, the best at the end; windows on their best levels.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from marketdata.changes cimport Changes

cdef extern from "engine/arithmetic.h" nogil:
    ctypedef unsigned long long uint128 "uint128"
    uint128 mix_words(const uint64_t* words, int count)

cdef enum:
    TAG_LEVEL = 0xB2
    TAG_PUBLIC_ORDER = 0xB3

cdef struct Level:
    int64_t key        # price of a bid, minus price of an ask: the best level has the largest key
    int64_t size       # displayed lots
    int64_t whole      # what is hidden too
    int64_t orders

cdef struct Touch:
    int64_t key
    int64_t before     # displayed lots when the command first touched it
    int64_t number     # counts up within the command

cdef packed struct WindowRow:
    uint64_t sequence
    int64_t price
    int64_t size
    uint64_t checksum
    uint8_t side
    uint8_t spare[7]

cdef inline uint64_t level_mix(uint8_t side, int64_t price, int64_t size) noexcept nogil:
    cdef uint64_t[4] words
    words[0], words[1], words[2], words[3] = TAG_LEVEL, side, <uint64_t> price, <uint64_t> size
    return <uint64_t> mix_words(words, 4)

cdef inline uint64_t order_mix(uint64_t number, uint8_t side, int64_t price, int64_t size) noexcept nogil:
    cdef uint64_t[6] words
    words[0], words[1], words[2] = TAG_PUBLIC_ORDER, number, side
    words[3], words[4], words[5] = <uint64_t> price, <uint64_t> size, 0
    return <uint64_t> mix_words(words, 6)

cdef class Depth:
    cdef Level* levels[2]
    cdef Py_ssize_t counts[2]
    cdef Py_ssize_t capacities[2]
    cdef Touch* touched[2]
    cdef Py_ssize_t touched_counts[2]
    cdef Py_ssize_t touched_capacities[2]
    cdef bint is_touched
    cdef uint32_t market
    cdef list windows
    cdef uint64_t joins                       # public numbers given out
    cdef readonly int64_t reference           # what an uncross goes by; ABSENT: none
    cdef readonly uint64_t changed_sequence   # the last command that changed what is displayed
    cdef readonly uint64_t level_checksum
    cdef readonly uint64_t order_checksum

    # Changes a level by so many displayed lots, whole lots and orders; one without orders goes.
    cdef int add(self, uint8_t side, int64_t price, int64_t size, int64_t whole, int64_t orders, uint64_t sequence) except -1
    cdef Py_ssize_t find(self, uint8_t side, int64_t key) noexcept nogil
    cdef int touch(self, uint8_t side, int64_t key, int64_t before) except -1
    # The command is over: rows for what it changed.
    cdef int settle(self, uint64_t sequence, int64_t ts, Changes changes) except -1
    cdef int settle_side(self, uint8_t side, uint64_t sequence, int64_t ts, Changes changes) except -1

cdef class Window:
    cdef Level* seen[2]
    cdef Level* spare
    cdef Py_ssize_t counts[2]
    cdef Py_ssize_t capacity
    cdef WindowRow* rows
    cdef Py_ssize_t row_count
    cdef Py_ssize_t row_capacity
    cdef readonly Py_ssize_t limit
    cdef readonly uint64_t sequence
    cdef readonly uint64_t checksum

    cdef int note(self, uint8_t side, int64_t key, int64_t before, int64_t size, uint64_t sequence) except -1
    cdef int compare(self, Depth depth, uint64_t sequence) except -1
    cdef int reserve(self, Py_ssize_t count) except -1
