"""Open orders by id and by account, kept from published events.

Owns a pool of entries with a hash index and one list per account. An event says which order it touches but not that
order's side, unit of leaves or client id; this table does. It follows what was *released*: a reader never sees an
order here that a crash could undo. It grows by doubling (a pause of milliseconds at a million orders) and is bounded
by the order pool of the core. Of closed orders it remembers which had a budget, for the `duplicate` that may follow:
the last BUDGETS_REMEMBERED of this process; of older ones it asks whoever `look_back` named, and remembers the answer.

Whoever starts the gateway gives the orders of the recovered core to `restore`.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memcpy, memset

from engine.messages.records cimport (
    EV_ACCEPTED, EV_CANCELED, EV_PREVENTED, EV_REPLACED, EV_TRADE, EV_TRIGGERED, SLOT, Accepted, Canceled, EventHead,
    OpenOrder, Prevented, Replaced, Trade, Triggered,
)

from engine.messages.codes import ABSENT as _ABSENT, OrderStatus, OrderType, SelfTrade
from engine.messages.decode import BUDGETS_REMEMBERED
from engine.messages.layout import OPEN_ORDERS as _OPEN_ORDERS

cdef uint32_t NONE = 0xFFFFFFFF
cdef int64_t ABSENT = _ABSENT
cdef int DECREMENT = SelfTrade.DECREMENT
cdef int STOP = OrderType.STOP
cdef int STOP_LIMIT = OrderType.STOP_LIMIT
cdef int WAITING = OrderStatus.WAITING
cdef enum:
    FLAG_BUDGET = 2


cdef class OpenOrders:
    """Entries live in `pool`; positions, not pointers, link them."""

    def __cinit__(self, uint32_t room=4096):
        self.room = 0
        self.free = NONE
        self.pool = NULL
        self.buckets = NULL
        self.firsts = NULL
        self.account_room = 0
        self.budgets = {}
        self.asked = {}
        self.known_since = 0
        self.ask = None
        self.room = room // 2 if room >= 2 else 1
        self._grow()

    def __dealloc__(self):
        PyMem_Free(self.pool)
        PyMem_Free(self.buckets)
        PyMem_Free(self.firsts)

    def learn_events(self, const uint8_t[::1] slots not None):
        """Follow event slots (a whole number of 128-byte slots, whole commands)."""
        cdef Py_ssize_t at = 0
        if slots.shape[0] % SLOT:
            raise ValueError(f"{slots.shape[0]} bytes are no whole number of slots")
        while at < slots.shape[0]:
            self.apply(&slots[at])
            at += (<const EventHead*>&slots[at]).slots * SLOT

    def of_account(self, uint32_t account):
        """Its open orders, newest first: dicts of numbers, and `client_id`, named as the fields of `accepted`.

        `size` and `leaves` are quote units if `budget`; fields that were not given are codes.ABSENT. `status` is
        codes.OrderStatus.
        """
        cdef uint32_t at
        cdef OrderEntry* entry
        found = []
        if account < self.account_room:
            at = self.firsts[account]
            while at != NONE:
                entry = &self.pool[at]
                found.append(
                    {
                        "order_id": entry.order_id, "client_id": bytes(entry.client_id[:32]).rstrip(b"\0").decode("ascii"),
                        "market": entry.market, "side": entry.side, "type": entry.type, "tif": entry.tif,
                        "status": OrderStatus.WAITING if entry.waits else OrderStatus.OPEN, "price": entry.price,
                        "budget": bool(entry.budget), "size": entry.size, "leaves": entry.leaves,
                        "stop_price": entry.stop_price, "display_size": entry.display_size,
                        "expires_at": entry.expires_at,
                    }
                )
                at = entry.next
        return found

    def look_back(self, uint64_t since, ask not None):
        """Budget orders up to the sequence `since` may be unknown here: `ask(order_id)` tells whether one was. It raises nothing."""
        self.known_since = since
        self.ask = ask

    def is_in_quote(self, uint64_t order_id):
        """Whether what this order filled is told in quote units; also of one that is closed."""
        return self.in_quote(order_id)

    cdef OrderEntry* find(self, uint64_t order_id) noexcept nogil:
        cdef uint32_t at = self.buckets[_bucket(order_id, self.room)]
        while at != NONE:
            if self.pool[at].order_id == order_id:
                return &self.pool[at]
            at = self.pool[at].chain
        return NULL

    cdef bint in_quote(self, uint64_t order_id):
        if order_id in self.budgets:
            return True
        if order_id > self.known_since or self.ask is None:
            return False
        found = self.asked.get(order_id)
        if found is None:
            found = self.ask(order_id)
            if len(self.asked) == BUDGETS_REMEMBERED:
                del self.asked[next(iter(self.asked))]
            self.asked[order_id] = found
        return found

    cdef int apply(self, const uint8_t* slot) except -1:
        cdef uint8_t kind = (<const EventHead*>slot).kind
        cdef OrderEntry* entry
        cdef const Trade* trade
        cdef const Replaced* replaced
        cdef const Prevented* prevented
        if kind == EV_ACCEPTED:
            self._accept(<const Accepted*>slot)
        elif kind == EV_TRADE:
            trade = <const Trade*>slot
            if trade.maker_leaves == 0:
                self._remove(trade.maker_order_id)
            else:
                entry = self.find(trade.maker_order_id)
                if entry != NULL:
                    entry.leaves = trade.maker_leaves
            if trade.taker_leaves == 0:
                self._remove(trade.taker_order_id)
            else:
                entry = self.find(trade.taker_order_id)
                if entry != NULL:
                    entry.leaves = trade.taker_leaves
        elif kind == EV_CANCELED:
            self._remove((<const Canceled*>slot).order_id)
        elif kind == EV_REPLACED:
            replaced = <const Replaced*>slot
            entry = self.find(replaced.order_id)
            if entry != NULL:
                entry.price = replaced.price
                entry.size = replaced.size
                entry.leaves = replaced.leaves
                entry.stop_price = replaced.stop_price
                memcpy(entry.client_id, replaced.client_id, 32)
        elif kind == EV_PREVENTED:
            prevented = <const Prevented*>slot
            self._prevent(prevented.maker_order_id, prevented.maker_leaves, prevented)
            self._prevent(prevented.taker_order_id, prevented.taker_leaves, prevented)
        elif kind == EV_TRIGGERED:
            entry = self.find((<const Triggered*>slot).order_id)
            if entry != NULL:
                entry.waits = 0
        return 0

    cdef void _prevent(self, uint64_t order_id, int64_t leaves, const Prevented* e) noexcept nogil:
        cdef OrderEntry* entry = self.find(order_id)
        if entry != NULL:
            entry.leaves = leaves
            if e.mode == DECREMENT:  # never of a budget order
                entry.size -= e.size

    def restore(self, rows):
        """Begin with these open orders: an array of `layout.OPEN_ORDERS`, what a core's `open_orders` gives.

        Raises TypeError: it is of another type.
        """
        cdef const uint8_t[::1] raw
        cdef const OpenOrder* row
        cdef OrderEntry* entry
        cdef Py_ssize_t at
        if rows.dtype != _OPEN_ORDERS:
            raise TypeError(f"rows of {rows.dtype} are not open orders")
        if not len(rows):
            return
        raw = rows.view("u1")
        row = <const OpenOrder*>&raw[0]
        for at in range(raw.shape[0] // <Py_ssize_t>sizeof(OpenOrder)):
            entry = self._insert(row.order_id, row.account, row.flags & FLAG_BUDGET != 0)
            entry.price = row.price
            entry.size = row.size
            entry.leaves = row.leaves
            entry.market = row.market
            entry.side = row.side
            entry.type = row.type
            entry.tif = row.tif
            entry.stop_price = row.stop_price
            entry.display_size = row.display_size
            entry.expires_at = row.expires_at
            entry.waits = row.status == WAITING
            memcpy(entry.client_id, row.client_id, 32)
            row += 1

    cdef int adopt(self, const OrderEntry* other) except -1:
        cdef OrderEntry* entry = self._insert(other.order_id, other.account, other.budget)
        cdef OrderEntry links = entry[0]
        entry[0] = other[0]
        entry.next, entry.previous, entry.chain = links.next, links.previous, links.chain
        return 0

    cdef int _accept(self, const Accepted* accepted) except -1:
        cdef OrderEntry* entry = self._insert(
            accepted.order_id, accepted.head.account, accepted.flags & FLAG_BUDGET != 0
        )
        entry.price = accepted.price
        entry.size = accepted.size
        entry.leaves = accepted.size
        entry.market = accepted.head.market
        entry.side = accepted.side
        entry.type = accepted.type
        entry.tif = accepted.tif
        entry.stop_price = accepted.stop_price
        entry.display_size = accepted.display_size
        entry.expires_at = accepted.expires_at
        entry.waits = accepted.type == STOP or accepted.type == STOP_LIMIT
        memcpy(entry.client_id, accepted.client_id, 32)
        return 0

    cdef OrderEntry* _insert(self, uint64_t order_id, uint32_t account, bint budget) except NULL:
        """A new entry, in its bucket and first of its account's list; the caller fills in the rest."""
        cdef OrderEntry* entry
        cdef uint32_t at, bucket
        if self.free == NONE:
            self._grow()
        self._reach_account(account)
        if budget:
            self.budgets[order_id] = None
            if len(self.budgets) > BUDGETS_REMEMBERED:
                forgotten = next(iter(self.budgets))
                del self.budgets[forgotten]
                self.known_since = max(self.known_since, forgotten)
        at = self.free
        entry = &self.pool[at]
        self.free = entry.next
        entry.order_id = order_id
        entry.account = account
        entry.budget = budget
        bucket = _bucket(order_id, self.room)
        entry.chain = self.buckets[bucket]
        self.buckets[bucket] = at
        entry.previous = NONE
        entry.next = self.firsts[account]
        if entry.next != NONE:
            self.pool[entry.next].previous = at
        self.firsts[account] = at
        self.count += 1
        return entry

    cdef void _remove(self, uint64_t order_id) noexcept nogil:
        cdef uint32_t* link = &self.buckets[_bucket(order_id, self.room)]
        cdef OrderEntry* entry
        cdef uint32_t at
        while link[0] != NONE and self.pool[link[0]].order_id != order_id:
            link = &self.pool[link[0]].chain
        at = link[0]
        if at == NONE:
            return
        entry = &self.pool[at]
        link[0] = entry.chain
        if entry.next != NONE:
            self.pool[entry.next].previous = entry.previous
        if entry.previous != NONE:
            self.pool[entry.previous].next = entry.next
        else:
            self.firsts[entry.account] = entry.next
        entry.order_id = 0
        entry.next = self.free
        self.free = at
        self.count -= 1

    cdef int _grow(self) except -1:
        """Twice the room: a larger pool, and all entries hashed anew."""
        cdef uint32_t old = self.room if self.pool != NULL else 0
        cdef uint32_t room = self.room * 2
        cdef uint32_t at, bucket
        pool = <OrderEntry*>PyMem_Realloc(self.pool, room * sizeof(OrderEntry))
        if pool == NULL:
            raise MemoryError(f"no memory for {room} open orders")
        self.pool = pool
        buckets = <uint32_t*>PyMem_Realloc(self.buckets, room * sizeof(uint32_t))
        if buckets == NULL:
            raise MemoryError(f"no memory for {room} open orders")
        self.buckets = buckets
        memset(buckets, 0xFF, room * sizeof(uint32_t))
        self.room = room
        for at in range(old):
            if pool[at].order_id:
                bucket = _bucket(pool[at].order_id, room)
                pool[at].chain = buckets[bucket]
                buckets[bucket] = at
        for at in range(room - 1, old, -1):
            pool[at].order_id = 0
            pool[at].next = self.free
            self.free = at
        pool[old].order_id = 0
        pool[old].next = self.free
        self.free = old
        return 0

    cdef int _reach_account(self, uint32_t account) except -1:
        cdef uint32_t room
        if account < self.account_room:
            return 0
        room = self.account_room if self.account_room else 64
        while room <= account:
            room *= 2
        firsts = <uint32_t*>PyMem_Realloc(self.firsts, room * sizeof(uint32_t))
        if firsts == NULL:
            raise MemoryError(f"no memory for the orders of {room} accounts")
        memset(firsts + self.account_room, 0xFF, (room - self.account_room) * sizeof(uint32_t))
        self.firsts = firsts
        self.account_room = room
        return 0


cdef inline uint32_t _bucket(uint64_t order_id, uint32_t room) noexcept nogil:
    return <uint32_t>((order_id * <uint64_t>0x9E3779B97F4A7C15ULL) >> 32) % room
