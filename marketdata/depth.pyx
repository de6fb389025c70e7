"""L2 of one market: displayed and whole lots by price, what an uncross would find, and windows on the best levels.

Owns two arrays of levels, sorted so that the best stands at the end: work near the touch moves few bytes. The levels
that a command touches are noted; when it is over, `settle` writes one row for each that shows another size than
before, and lets the attached windows look at what they show.

    checksum of a book = sum over its levels of mix(0xB2, side, price ticks, displayed lots)     mod 2^64
    checksum of orders = sum over them of mix(0xB3, public number, side, price ticks, displayed lots, 0)

`mix` is the low half of that of the state hash (docs/state-hash.md), so whoever has the orders of the core can form
both; a sum is kept up by each change alone, whatever the size of the book.

Invariants: keys strictly ascend; no level has zero orders; sizes are never negative; whole is never below displayed.
Never: allocates except by doubling; knows orders, names or decimals.
Worst case: a new level far from the touch moves every better level (32 bytes each): 100,000 levels, about 100 µs.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcpy, memmove

from marketdata.changes cimport LEVEL, Change, Changes

from engine.messages.codes import ABSENT

__all__ = ["WINDOW_ROW", "Depth", "Window"]

cdef int64_t NO_PRICE = ABSENT

WINDOW_ROW = np.dtype(
    [
        ("sequence", "<u8"), ("price", "<i8"), ("size", "<i8"), ("checksum", "<u8"), ("side", "u1"), ("spare", "V7"),
    ]
)
assert sizeof(WindowRow) == WINDOW_ROW.itemsize


cdef int _by_key(const void* left, const void* right) noexcept nogil:
    cdef const Touch* a = <const Touch*> left
    cdef const Touch* b = <const Touch*> right
    if a.key != b.key:
        return -1 if a.key > b.key else 1
    return (a.number > b.number) - (a.number < b.number)


cdef inline int64_t _price(uint8_t side, int64_t key) noexcept nogil:
    return -key if side else key


cdef class Depth:
    """Levels of one market. Side 0 is bid, 1 is ask; prices in ticks, sizes in lots."""

    def __cinit__(self, market=0):
        cdef int side
        for side in range(2):
            self.levels[side] = NULL
            self.touched[side] = NULL
            self.counts[side] = self.capacities[side] = 0
            self.touched_counts[side] = self.touched_capacities[side] = 0
        self.market = market
        self.is_touched = False
        self.windows = []
        self.joins = self.changed_sequence = self.level_checksum = self.order_checksum = 0
        self.reference = NO_PRICE

    def __dealloc__(self):
        cdef int side
        for side in range(2):
            free(self.levels[side])
            free(self.touched[side])

    cdef Py_ssize_t find(self, uint8_t side, int64_t key) noexcept nogil:
        """Index of the first level whose key is not below `key`."""
        cdef Py_ssize_t low = 0, high = self.counts[side], middle
        while low < high:
            middle = (low + high) >> 1
            if self.levels[side][middle].key < key:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int touch(self, uint8_t side, int64_t key, int64_t before) except -1:
        cdef Py_ssize_t count = self.touched_counts[side]
        cdef Py_ssize_t capacity
        cdef void* grown
        self.is_touched = True
        if count and self.touched[side][count - 1].key == key:
            return 0
        if count == self.touched_capacities[side]:
            capacity = max(32, self.touched_capacities[side] * 2)
            grown = realloc(self.touched[side], capacity * sizeof(Touch))
            if grown == NULL:
                raise MemoryError("touched prices")
            self.touched[side] = <Touch*> grown
            self.touched_capacities[side] = capacity
        self.touched[side][count].key = key
        self.touched[side][count].before = before
        self.touched[side][count].number = count
        self.touched_counts[side] = count + 1
        return 0

    cdef int add(self, uint8_t side, int64_t price, int64_t size, int64_t whole, int64_t orders, uint64_t sequence) except -1:
        cdef int64_t key = _price(side, price)
        cdef Py_ssize_t at = self.find(side, key), capacity
        cdef Level* level
        cdef void* grown
        if at == self.counts[side] or self.levels[side][at].key != key:
            if size < 0 or orders < 1:
                raise AssertionError(f"sequence={sequence} side={side} price={price}: change of a level that is not there")
            if self.counts[side] == self.capacities[side]:
                capacity = max(32, self.capacities[side] * 2)
                grown = realloc(self.levels[side], capacity * sizeof(Level))
                if grown == NULL:
                    raise MemoryError("levels")
                self.levels[side] = <Level*> grown
                self.capacities[side] = capacity
            self.touch(side, key, 0)
            level = self.levels[side] + at
            memmove(level + 1, level, (self.counts[side] - at) * sizeof(Level))
            level.key, level.size, level.whole, level.orders = key, size, whole, orders
            self.counts[side] += 1
            return 0
        level = self.levels[side] + at
        self.touch(side, key, level.size)
        level.size += size
        level.whole += whole
        level.orders += orders
        if level.size < 0 or level.whole < level.size or level.orders < 0 or (level.orders == 0 and level.whole != 0):
            raise AssertionError(
                f"sequence={sequence} side={side} price={price}: {level.size} of {level.whole} lots in {level.orders} orders"
            )
        if level.orders == 0:
            self.counts[side] -= 1
            memmove(level, level + 1, (self.counts[side] - at) * sizeof(Level))
        return 0

    # ---------------------------------------------------------------- the end of a command

    cdef int settle(self, uint64_t sequence, int64_t ts, Changes changes) except -1:
        self.settle_side(0, sequence, ts, changes)
        self.settle_side(1, sequence, ts, changes)
        self.is_touched = False
        if self.windows and self.changed_sequence == sequence:
            for window in self.windows:
                (<Window> window).compare(self, sequence)
        return 0

    cdef int settle_side(self, uint8_t side, uint64_t sequence, int64_t ts, Changes changes) except -1:
        cdef Touch* touched = self.touched[side]
        cdef Py_ssize_t i, at, count = self.touched_counts[side]
        cdef int64_t size
        cdef Change* row
        self.touched_counts[side] = 0
        if count > 1:
            qsort(touched, count, sizeof(Touch), _by_key)
        for i in range(count):
            if i and touched[i].key == touched[i - 1].key:
                continue
            at = self.find(side, touched[i].key)
            size = 0
            if at < self.counts[side] and self.levels[side][at].key == touched[i].key:
                size = self.levels[side][at].size
            if size == touched[i].before:
                continue
            if touched[i].before:
                self.level_checksum -= level_mix(side, _price(side, touched[i].key), touched[i].before)
            if size:
                self.level_checksum += level_mix(side, _price(side, touched[i].key), size)
            self.changed_sequence = sequence
            row = changes.push()
            row.sequence, row.ts, row.id = sequence, ts, 0
            row.price, row.size, row.extra = _price(side, touched[i].key), size, 0
            row.checksum, row.market, row.kind, row.side = self.level_checksum, self.market, LEVEL, side
        return 0

    # ---------------------------------------------------------------- reading

    def attach(self, Window window):
        """The window looks at the book after every command that changes it, until it is detached."""
        window.compare(self, self.changed_sequence)
        window.row_count = 0
        self.windows.append(window)

    def detach(self, Window window):
        """Ends `attach`."""
        self.windows.remove(window)

    def level_count(self, uint8_t side):
        """Number of levels of a side."""
        assert side < 2
        return self.counts[side]

    def order_count(self):
        """Number of orders in the book. Linear in its levels."""
        cdef Py_ssize_t at, total = 0
        cdef int side
        for side in range(2):
            for at in range(self.counts[side]):
                total += self.levels[side][at].orders
        return total

    def top(self, uint8_t side, Py_ssize_t limit=0):
        """The best `limit` levels (0: all), best first: a list of (price ticks, displayed lots)."""
        assert side < 2
        cdef Py_ssize_t at
        cdef Level* level
        cdef list found = []
        if limit <= 0:
            limit = self.counts[side]
        for at in range(self.counts[side] - 1, -1, -1):
            if len(found) == limit:
                break
            level = self.levels[side] + at
            if level.size:  # an iceberg between two slices shows nothing
                found.append((_price(side, level.key), level.size))
        return found

    def indicative(self):
        """What an uncross would find now: (price in ticks or None, lots, imbalance in lots: buy minus sell).

        The rule of the rulebook, section 4.10; one step for each stretch of ticks over which nobody joins or leaves.
        """
        cdef Level* bids = self.levels[0]
        cdef Level* asks = self.levels[1]
        cdef Py_ssize_t bid_count = self.counts[0], ask_count = self.counts[1], bid, ask
        cdef int64_t low, high, price, end, buys = 0, sells = 0, volume, surplus, distance, near
        cdef int64_t size = 0, least = 0, lowest = 0, highest = 0, nearest = -1, best = 0, chosen, imbalance
        cdef bint all_buy = False, all_sell = False
        if bid_count == 0 or ask_count == 0:
            return None, 0, 0
        low, high = -asks[ask_count - 1].key, bids[bid_count - 1].key
        if low > high:
            return None, 0, 0
        bid = self.find(0, low)  # the lowest bid that is not below the lowest ask
        for at in range(bid, bid_count):
            buys += bids[at].whole
        ask = ask_count - 1
        price = low
        while price <= high:
            if ask >= 0 and -asks[ask].key == price:
                sells += asks[ask].whole
                ask -= 1
            end = bids[bid].key  # the last price of this stretch: a bid ends with it, or an ask begins after it
            if ask >= 0 and -asks[ask].key - 1 < end:
                end = -asks[ask].key - 1
            volume = min(buys, sells)
            surplus = buys - sells if buys > sells else sells - buys
            if volume > size or (volume == size and surplus < least):
                size, least, lowest = volume, surplus, price
                all_buy = all_sell = True
                nearest = -1
            if volume == size and surplus == least:
                highest = end
                all_buy = all_buy and buys > sells
                all_sell = all_sell and buys < sells
                if self.reference != NO_PRICE:
                    near = min(max(self.reference, price), end)
                    distance = near - self.reference if near > self.reference else self.reference - near
                    if nearest < 0 or distance < nearest:
                        nearest, best = distance, near
            if end == bids[bid].key:
                buys -= bids[bid].whole
                bid += 1
            price = end + 1
        if all_buy:
            chosen = highest
        elif all_sell or self.reference == NO_PRICE:
            chosen = lowest
        else:
            chosen = best
        imbalance = 0
        for at in range(self.find(0, chosen), bid_count):
            imbalance += bids[at].whole
        for at in range(self.find(1, -chosen), ask_count):
            imbalance -= asks[at].whole
        return chosen, size, imbalance


cdef class Window:
    """The best `limit` levels a side (0: all) as its readers have them, and what changed since they were last taken."""

    def __cinit__(self, Py_ssize_t limit):
        cdef int side
        self.limit = limit
        for side in range(2):
            self.seen[side] = NULL
            self.counts[side] = 0
        self.spare = NULL
        self.rows = NULL
        self.capacity = self.row_count = self.row_capacity = 0
        self.sequence = self.checksum = 0

    def __dealloc__(self):
        free(self.seen[0])
        free(self.seen[1])
        free(self.spare)
        free(self.rows)

    cdef int reserve(self, Py_ssize_t count) except -1:
        cdef int side
        cdef Level* grown
        if count <= self.capacity:
            return 0
        count = max(16, count * 2)
        for side in range(2):
            grown = <Level*> realloc(self.seen[side], count * sizeof(Level))
            if grown == NULL:
                raise MemoryError("window")
            self.seen[side] = grown
        grown = <Level*> realloc(self.spare, count * sizeof(Level))
        if grown == NULL:
            raise MemoryError("window")
        self.spare = grown
        self.capacity = count
        return 0

    cdef int note(self, uint8_t side, int64_t key, int64_t before, int64_t size, uint64_t sequence) except -1:
        cdef Py_ssize_t capacity
        cdef void* grown
        cdef WindowRow* row
        if self.row_count == self.row_capacity:
            capacity = max(64, self.row_capacity * 2)
            grown = realloc(self.rows, capacity * sizeof(WindowRow))
            if grown == NULL:
                raise MemoryError("rows of a window")
            self.rows = <WindowRow*> grown
            self.row_capacity = capacity
        if before:
            self.checksum -= level_mix(side, _price(side, key), before)
        if size:
            self.checksum += level_mix(side, _price(side, key), size)
        row = self.rows + self.row_count
        self.row_count += 1
        row.sequence, row.price, row.size, row.checksum, row.side = sequence, _price(side, key), size, self.checksum, side
        self.sequence = sequence
        return 0

    cdef int compare(self, Depth depth, uint64_t sequence) except -1:
        """Notes how what it shows differs from the book, best levels first."""
        cdef uint8_t side
        cdef Py_ssize_t at, old, now, count, limit
        cdef Level* seen
        cdef Level* level
        cdef Level* swapped
        cdef bint same
        for side in range(2):
            limit = self.limit if self.limit else depth.counts[side]
            self.reserve(min(limit, depth.counts[side]))
            seen, count, old = self.seen[side], self.counts[side], 0
            now, same = 0, True
            at = depth.counts[side] - 1
            while now < limit and at >= 0:
                level = depth.levels[side] + at
                at -= 1
                if level.size == 0:
                    continue
                self.spare[now] = level[0]
                same = same and now < count and seen[now].key == level.key and seen[now].size == level.size
                now += 1
            if same and now == count:
                continue
            at = 0
            while old < count or at < now:
                if old == count or (at < now and self.spare[at].key > seen[old].key):
                    self.note(side, self.spare[at].key, 0, self.spare[at].size, sequence)
                    at += 1
                elif at == now or seen[old].key > self.spare[at].key:
                    self.note(side, seen[old].key, seen[old].size, 0, sequence)
                    old += 1
                else:
                    if seen[old].size != self.spare[at].size:
                        self.note(side, seen[old].key, seen[old].size, self.spare[at].size, sequence)
                    old += 1
                    at += 1
            swapped = self.seen[side]
            self.seen[side] = self.spare
            self.spare = swapped
            self.counts[side] = now
        return 0

    def look(self, Depth depth):
        """Takes the book as it is now; what differs from before waits for `take`."""
        self.compare(depth, depth.changed_sequence)

    def levels(self, uint8_t side):
        """What it shows, best first: a list of (price ticks, lots)."""
        assert side < 2
        cdef Py_ssize_t at
        return [(_price(side, self.seen[side][at].key), self.seen[side][at].size) for at in range(self.counts[side])]

    def take(self):
        """What changed since the last call, in order (dtype WINDOW_ROW)."""
        cdef Py_ssize_t size = self.row_count * sizeof(WindowRow)
        found = np.empty(self.row_count, WINDOW_ROW)
        cdef unsigned char[::1] raw
        if size:
            raw = found.view(np.uint8)
            memcpy(&raw[0], self.rows, size)
        self.row_count = 0
        return found
