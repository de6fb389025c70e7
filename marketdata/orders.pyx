"""L3: every open order of every market by its id.

One open-addressing table with linear probing; a removal shifts its followers back, so there are no tombstones and
look-ups stay short however long the process runs.

Invariants: at most 5/8 full; an id stands at or after its home place without a hole between.
Never: shrinks; keeps an order whose last event has been seen; knows prices of levels.
Worst case: doubling the table, about 25 ms for a million orders. Beyond `limit` orders: LocalFault.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from engine.messages.errors import LocalFault

__all__ = ["Orders"]


_STATE_WORDS = ("incoming", "resting", "waiting")


cdef inline uint64_t _home(uint64_t order_id) noexcept nogil:
    cdef uint64_t mixed = order_id * <uint64_t> 0x9E3779B97F4A7C15
    return mixed ^ (mixed >> 29)


cdef class Orders:
    """Open orders. `limit` bounds their number."""

    def __cinit__(self, Py_ssize_t limit):
        self.limit = limit
        self.count = 0
        self.mask = 1023
        self.table = <Order*> calloc(self.mask + 1, sizeof(Order))
        if self.table == NULL:
            raise MemoryError("order table")

    def __dealloc__(self):
        free(self.table)

    cdef Order* find(self, uint64_t order_id) noexcept nogil:
        cdef uint64_t at = _home(order_id) & self.mask
        while self.table[at].order_id != 0:
            if self.table[at].order_id == order_id:
                return self.table + at
            at = (at + 1) & self.mask
        return NULL

    cdef Order* insert(self, uint64_t order_id) except NULL:
        cdef uint64_t at
        if self.count >= self.limit:
            raise LocalFault(f"market data holds its limit of {self.limit} open orders; raise order_limit")
        if <uint64_t> self.count * 8 >= (self.mask + 1) * 5:
            self.grow()
        at = _home(order_id) & self.mask
        while self.table[at].order_id != 0:
            if self.table[at].order_id == order_id:
                raise AssertionError(f"order_id={order_id} accepted twice")
            at = (at + 1) & self.mask
        self.table[at].order_id = order_id
        self.count += 1
        return self.table + at

    cdef void remove(self, Order* order) noexcept nogil:
        cdef uint64_t hole = order - self.table
        cdef uint64_t at = hole, home
        while True:
            at = (at + 1) & self.mask
            if self.table[at].order_id == 0:
                break
            home = _home(self.table[at].order_id) & self.mask
            # The follower may fill the hole only if that does not put it before its home place.
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.table[hole] = self.table[at]
                hole = at
        self.table[hole].order_id = 0
        self.count -= 1

    cdef int grow(self) except -1:
        cdef uint64_t size = (self.mask + 1) * 2, i, at
        cdef Order* old = self.table
        cdef Order* table = <Order*> calloc(size, sizeof(Order))
        if table == NULL:
            raise MemoryError("order table")
        for i in range(self.mask + 1):
            if old[i].order_id == 0:
                continue
            at = _home(old[i].order_id) & (size - 1)
            while table[at].order_id != 0:
                at = (at + 1) & (size - 1)
            table[at] = old[i]
        self.table = table
        self.mask = size - 1
        free(old)
        return 0

    def get(self, uint64_t order_id):
        """(market, side, price, leaves, shown, state) of an open order, or None. Side 0 is bid; state is a word."""
        cdef Order* order = self.find(order_id)
        if order == NULL:
            return None
        return (order.market, order.side, order.price, order.leaves, order.shown, _STATE_WORDS[order.state])

    def resting(self, uint32_t market):
        """Ids of the orders of a market that rest, ascending. For checks: walks the whole table."""
        cdef uint64_t i
        cdef list found = [
            self.table[i].order_id
            for i in range(self.mask + 1)
            if self.table[i].order_id != 0 and self.table[i].market == market and self.table[i].state == RESTING
        ]
        found.sort()
        return found

    def public(self, uint32_t market):
        """The public book of a market, order by order: {public number: (side, price ticks, displayed lots)}.

        Walks the whole table: about 10 ms for each million places. Orders that show nothing are not in it.
        """
        cdef uint64_t i
        return {
            self.table[i].number: (self.table[i].side, self.table[i].price, self.table[i].shown)
            for i in range(self.mask + 1)
            if self.table[i].order_id != 0 and self.table[i].market == market and self.table[i].state == RESTING
            and self.table[i].shown > 0
        }

    def number(self, uint64_t order_id):
        """The public number that an open order has now, or None. It changes whenever the order joins a queue anew."""
        cdef Order* order = self.find(order_id)
        return order.number if order != NULL and order.state == RESTING else None
