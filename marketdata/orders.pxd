# L3: every open order by its id, in one open-addressing table.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum OrderState:
    INCOMING = 0    # being matched by the present command; not in depth
    RESTING = 1     # in depth with `shown` lots
    WAITING = 2     # a stop that has not triggered

cdef struct Order:
    uint64_t order_id   # 0: empty place
    int64_t price
    int64_t leaves
    int64_t shown       # lots in depth while resting
    int64_t display     # slice of an iceberg; 0: none
    uint64_t number     # in public: the how-manieth to join a queue of its market
    uint32_t market
    uint8_t side
    uint8_t state
    uint8_t rests       # 0: a market or stop order, which never rests
    uint8_t spare

cdef class Orders:
    cdef Order* table
    cdef uint64_t mask
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t limit

    # NULL: no such order. A pointer is good until the next insert or remove.
    cdef Order* find(self, uint64_t order_id) noexcept nogil
    cdef Order* insert(self, uint64_t order_id) except NULL
    cdef void remove(self, Order* order) noexcept nogil
    cdef int grow(self) except -1
