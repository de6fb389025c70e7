"""L2 of one market: displayed lots and order counts by price.

Owns two arrays of levels, sorted so that the best stands at the end: work near the touch moves few bytes. Also
notes which prices were touched since the last flush, once a reader asks for it (`tracking`).

Invariants: keys strictly ascend; no level has zero orders; sizes are never negative.
Never: allocates except by doubling; knows orders, names or decimals.
Worst case: a new level far from the touch moves every better level (24 bytes each): 100,000 levels, about 100 µs.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memmove

__all__ = ["Depth"]


cdef int _ascending(const void* left, const void* right) noexcept nogil:
    cdef int64_t a = (<const int64_t*> left)[0]
    cdef int64_t b = (<const int64_t*> right)[0]
    return (a > b) - (a < b)


cdef Py_ssize_t _unique(int64_t* values, Py_ssize_t count) noexcept nogil:
    """Sorts and removes repeats in place; the new count."""
    cdef Py_ssize_t i, kept = 0
    qsort(values, count, sizeof(int64_t), _ascending)
    for i in range(count):
        if kept == 0 or values[kept - 1] != values[i]:
            values[kept] = values[i]
            kept += 1
    return kept


cdef class Depth:
    """Levels of one market. Side 0 is bid, 1 is ask; prices in ticks, sizes in lots."""

    def __cinit__(self):
        cdef int side
        for side in range(2):
            self.levels[side] = NULL
            self.touched[side] = NULL
            self.counts[side] = self.capacities[side] = 0
            self.touched_counts[side] = self.touched_capacities[side] = 0
        self.tracking = False
        self.changed_sequence = 0

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

    cdef int touch(self, uint8_t side, int64_t price) except -1:
        cdef Py_ssize_t count = self.touched_counts[side]
        cdef Py_ssize_t capacity
        cdef void* grown
        if count and self.touched[side][count - 1] == price:
            return 0
        if count == self.touched_capacities[side]:
            count = _unique(self.touched[side], count)
            self.touched_counts[side] = count
            if count * 2 >= self.touched_capacities[side]:
                capacity = max(64, self.touched_capacities[side] * 2)
                grown = realloc(self.touched[side], capacity * sizeof(int64_t))
                if grown == NULL:
                    raise MemoryError("touched prices")
                self.touched[side] = <int64_t*> grown
                self.touched_capacities[side] = capacity
        self.touched[side][count] = price
        self.touched_counts[side] = count + 1
        return 0

    cdef int add(self, uint8_t side, int64_t price, int64_t size, int64_t orders, uint64_t sequence) except -1:
        cdef int64_t key = -price if side else price
        cdef Py_ssize_t at = self.find(side, key), capacity
        cdef Level* level
        cdef void* grown
        self.changed_sequence = sequence
        if self.tracking:
            self.touch(side, price)
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
            level = self.levels[side] + at
            memmove(level + 1, level, (self.counts[side] - at) * sizeof(Level))
            level.key, level.size, level.orders = key, size, orders
            self.counts[side] += 1
            return 0
        level = self.levels[side] + at
        level.size += size
        level.orders += orders
        if level.size < 0 or level.orders < 0 or (level.orders == 0 and level.size != 0):
            raise AssertionError(
                f"sequence={sequence} side={side} price={price}: {level.size} lots in {level.orders} orders"
            )
        if level.orders == 0:
            self.counts[side] -= 1
            memmove(level, level + 1, (self.counts[side] - at) * sizeof(Level))
        return 0

    def track(self, bint on):
        """Begins, or ends, to note touched prices; what was noted before is forgotten."""
        self.tracking = on
        self.touched_counts[0] = self.touched_counts[1] = 0

    def level_count(self, uint8_t side):
        """Number of levels of a side."""
        assert side < 2
        return self.counts[side]

    def top(self, uint8_t side, Py_ssize_t limit=0):
        """The best `limit` levels (0: all), best first: a list of (price ticks, displayed lots)."""
        assert side < 2
        cdef Py_ssize_t count = self.counts[side], at
        cdef Level* level
        cdef list found = []
        if limit <= 0 or limit > count:
            limit = count
        for at in range(count - 1, count - 1 - limit, -1):
            level = self.levels[side] + at
            if level.size:  # an iceberg between two slices shows nothing
                found.append((-level.key if side else level.key, level.size))
        return found

    def size_at(self, uint8_t side, int64_t price):
        """Displayed lots at a price; 0 if there is no such level."""
        assert side < 2
        cdef int64_t key = -price if side else price
        cdef Py_ssize_t at = self.find(side, key)
        if at == self.counts[side] or self.levels[side][at].key != key:
            return 0
        return self.levels[side][at].size

    def take_touched(self, uint8_t side):
        """Prices touched since the last call with their present sizes, ascending: a list of (price, lots)."""
        assert side < 2
        cdef Py_ssize_t i, count = _unique(self.touched[side], self.touched_counts[side])
        cdef list found = [(self.touched[side][i], self.size_at(side, self.touched[side][i])) for i in range(count)]
        self.touched_counts[side] = 0
        return found
