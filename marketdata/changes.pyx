"""The ring of changes: what lossless streams are made of, and what `replay` answers from.

    count - capacity ─────────────── count        row n lies at n mod capacity
    oldest kept            next to be written     sequences never fall along the ring

Every reader of the event log writes the same rows, whoever reads them, so two feeds and a feed that was started again
answer a replay alike. What fell out of the ring is gone: `horizon` says from where on it is whole.

Invariants: a row never changes once the next command has begun. Never: grows.
Worst case: finding a sequence, 20 steps; the rows of one market among those of all, linear in the rows asked for.
"""

import numpy as np

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

__all__ = ["CHANGE", "LEVEL_ROW", "ORDER_ROW", "PHASE_ROW", "TRADE_ROW_KIND", "UNCROSSED_ROW", "Changes"]

CHANGE = np.dtype(
    [
        ("sequence", "<u8"), ("ts", "<i8"), ("id", "<u8"), ("price", "<i8"), ("size", "<i8"), ("extra", "<i8"),
        ("checksum", "<u8"), ("market", "<u4"), ("kind", "u1"), ("side", "u1"), ("spare", "V2"),
    ]
)
LEVEL_ROW, ORDER_ROW, TRADE_ROW_KIND, PHASE_ROW, UNCROSSED_ROW = LEVEL, ORDER, TRADE, PHASE, UNCROSSED

assert sizeof(Change) == CHANGE.itemsize == 64


cdef class Changes:
    """`capacity` rows of 64 bytes, rounded up to a power of two."""

    def __cinit__(self, capacity):
        cdef uint64_t size = 1
        while size < <uint64_t> capacity:
            size <<= 1
        self.capacity = size
        self.count = 0
        self.rows = <Change*> calloc(size, sizeof(Change))
        if self.rows == NULL:
            raise MemoryError("ring of changes")

    def __dealloc__(self):
        free(self.rows)

    @property
    def oldest(self):
        """Number of the oldest row that is kept."""
        return self.count - self.capacity if self.count > self.capacity else 0

    @property
    def horizon(self):
        """Everything later than this sequence is kept. 0: everything."""
        return self.rows[self.oldest & (self.capacity - 1)].sequence if self.count > self.capacity else 0

    def after(self, uint64_t sequence):
        """Number of the first kept row later than a sequence."""
        cdef uint64_t low = self.oldest, high = self.count, middle
        while low < high:
            middle = (low + high) >> 1
            if self.rows[middle & (self.capacity - 1)].sequence <= sequence:
                low = middle + 1
            else:
                high = middle
        return low

    def take(self, uint64_t start, uint64_t stop):
        """A copy of rows start … stop - 1 (dtype CHANGE); rows that are no longer kept are left out."""
        cdef uint64_t first = max(start, <uint64_t> self.oldest), last = min(stop, self.count), at, run
        cdef uint64_t size = last - first if last > first else 0, done = 0
        found = np.empty(size, CHANGE)
        if size == 0:
            return found
        cdef unsigned char[::1] raw = found.view(np.uint8)
        while done < size:
            at = (first + done) & (self.capacity - 1)
            run = min(size - done, self.capacity - at)
            memcpy(&raw[done * sizeof(Change)], &self.rows[at], run * sizeof(Change))
            done += run
        return found
