# Open orders as the published events leave them: what acks, private events and `open_orders` need to know.
#
#   find(order_id)       the entry, or NULL; valid until the next apply
#   in_quote(order_id)   whether what it filled is told in quote units; also of an order that is closed
#   apply(slot)          follow one event
#   adopt(entry)         take over an entry of another table
#   first_of(account)    head of the account's list; `next` of the entry goes on

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.messages.records cimport Accepted, Prevented

cdef struct OrderEntry:
    uint64_t order_id  # 0: a free slot
    int64_t price
    int64_t size
    int64_t leaves
    int64_t stop_price  # ABSENT: none; likewise the next two
    int64_t display_size
    int64_t expires_at
    uint32_t account
    uint32_t market
    uint32_t next  # of the account's list, by position in the pool
    uint32_t previous
    uint32_t chain  # of the hash bucket
    uint8_t side
    uint8_t budget
    uint8_t type
    uint8_t tif
    uint8_t waits  # a stop that has not triggered
    char client_id[32]

cdef class OpenOrders:
    cdef OrderEntry* pool
    cdef uint32_t* buckets
    cdef uint32_t* firsts  # by account
    cdef uint32_t room
    cdef uint32_t account_room
    cdef uint32_t free
    cdef readonly uint32_t count
    cdef dict budgets  # ids of budget orders, open or closed, the oldest first
    cdef dict asked  # order id -> whether it had a budget, of older ones
    cdef uint64_t known_since  # of later orders all that had a budget are in `budgets`
    cdef object ask  # callable(order id) for the others, or None

    cdef OrderEntry* find(self, uint64_t order_id) noexcept nogil
    cdef bint in_quote(self, uint64_t order_id)
    cdef int apply(self, const uint8_t* slot) except -1
    cdef void _prevent(self, uint64_t order_id, int64_t leaves, const Prevented* e) noexcept nogil
    cdef int adopt(self, const OrderEntry* other) except -1
    cdef int _accept(self, const Accepted* accepted) except -1
    cdef OrderEntry* _insert(self, uint64_t order_id, uint32_t account, bint budget) except NULL
    cdef void _remove(self, uint64_t order_id) noexcept nogil
    cdef int _grow(self) except -1
    cdef int _reach_account(self, uint32_t account) except -1
