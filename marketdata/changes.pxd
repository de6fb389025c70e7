# What changed, in the order of the log: one bounded ring of rows for all markets.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum ChangeKind:
    LEVEL = 1        # a price level as it is after the command
    ORDER = 2        # an order of the public book as it is after an event
    TRADE = 3
    PHASE = 4
    UNCROSSED = 5

cdef packed struct Change:
    uint64_t sequence
    int64_t ts
    uint64_t id          # ORDER: its public number; TRADE: trade id
    int64_t price        # ticks; UNCROSSED: ABSENT if nothing crossed
    int64_t size         # LEVEL, ORDER: displayed lots, 0 is gone; PHASE: the phase
    int64_t extra        # TRADE: notional; UNCROSSED: imbalance
    uint64_t checksum    # LEVEL: of all levels, ORDER: of all orders of the market, after this row
    uint32_t market
    uint8_t kind
    uint8_t side         # TRADE: the aggressor
    uint8_t spare[2]

cdef class Changes:
    cdef Change* rows
    cdef readonly uint64_t count      # rows ever written
    cdef readonly uint64_t capacity   # a power of two

    cdef inline Change* push(self) noexcept nogil:
        # The row to fill; the oldest is overwritten when the ring is full.
        self.count += 1
        return &self.rows[(self.count - 1) & (self.capacity - 1)]
