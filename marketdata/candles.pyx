"""Candles of one market, one second to one month, from its trades and the journal's time.

    1s 1m 5m 15m 1h 4h 1d      multiples since 1970, UTC        1w      from Monday 00:00 UTC      1M      calendar months

A candle holds the first and the last sequence that traded in it, so whoever has the trades can form it again. A span
without a trade has no candle. Sums are of 128 bits. A series keeps its last `retained` candles and is built anew from
the event log at each start, so two processes keep the same ones.

Invariants: open times strictly ascend; first ≤ last sequence; low ≤ open, close ≤ high. A trade whose time lies before
the last candle's counts into the last one. Never: reads a clock. Worst case: nine comparisons a trade.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

import numpy as np

from marketdata.feed import TRADE_ROW

__all__ = ["INTERVALS", "Candles"]

INTERVALS = ("1s", "1m", "5m", "15m", "1h", "4h", "1d", "1w", "1M")

cdef extern from *:
    """
    typedef unsigned __int128 byline_wide;
    """
    ctypedef unsigned long long byline_wide

cdef enum:
    KINDS = 9
    WEEK = 7
    MONTH = 8

cdef int64_t SECOND = 1_000_000_000
cdef int64_t DAY = 86_400 * SECOND
cdef int64_t[7] WIDTHS
WIDTHS[:] = [SECOND, 60 * SECOND, 300 * SECOND, 900 * SECOND, 3600 * SECOND, 14_400 * SECOND, DAY]

cdef struct Candle:
    int64_t begin       # ns since 1970
    int64_t end         # the first that is no longer in it
    int64_t open
    int64_t high
    int64_t low
    int64_t close
    uint64_t first_sequence
    uint64_t last_sequence
    uint64_t trades
    byline_wide size
    byline_wide notional

cdef packed struct TradeRow:
    uint64_t sequence
    int64_t ts
    uint64_t trade_id
    int64_t price
    int64_t size
    int64_t notional
    uint64_t rest

assert sizeof(TradeRow) == TRADE_ROW.itemsize


cdef int64_t _month_day(int64_t month) noexcept nogil:
    """Days from 1970 to the first of a month that is counted from March of year 0."""
    cdef int64_t year = month // 12, in_year = month - 12 * (month // 12)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * in_year + 2) // 5 - 719_468


cdef void _span(int kind, int64_t ts, int64_t* begin, int64_t* end) noexcept nogil:
    cdef int64_t day, month
    if kind < WEEK:
        begin[0] = ts - ts % WIDTHS[kind]
        end[0] = begin[0] + WIDTHS[kind]
        return
    day = ts // DAY
    if kind == WEEK:  # 1970-01-01 was a Thursday
        begin[0] = (day - (day + 3) % 7) * DAY
        end[0] = begin[0] + 7 * DAY
        return
    month = (day + 719_468) * 4800 // 146_097  # near enough, then exact
    while _month_day(month + 1) <= day:
        month += 1
    while _month_day(month) > day:
        month -= 1
    begin[0] = _month_day(month) * DAY
    end[0] = _month_day(month + 1) * DAY


cdef object _whole(byline_wide value):
    return (<object> <uint64_t> (value >> 64) << 64) | <uint64_t> value


cdef class Candles:
    """All series of one market. Times before 1970 are not known here."""

    cdef Candle* series[KINDS]
    cdef Py_ssize_t counts[KINDS]
    cdef Py_ssize_t capacities[KINDS]
    cdef readonly Py_ssize_t retained

    def __cinit__(self, Py_ssize_t retained):
        cdef int kind
        self.retained = retained
        for kind in range(KINDS):
            self.series[kind] = NULL
            self.counts[kind] = self.capacities[kind] = 0

    def __dealloc__(self):
        cdef int kind
        for kind in range(KINDS):
            free(self.series[kind])

    def add(self, rows):
        """Trades of this market (dtype feed.TRADE_ROW) in the order of the log."""
        if not len(rows):
            return
        cdef const unsigned char[::1] raw = np.ascontiguousarray(rows).view(np.uint8)
        cdef const TradeRow* trade = <const TradeRow*> &raw[0]
        cdef Py_ssize_t i, count = len(rows)
        cdef int kind
        for i in range(count):
            for kind in range(KINDS):
                self.take(kind, trade + i)

    cdef int take(self, int kind, const TradeRow* trade) except -1:
        cdef Candle* candle
        if self.counts[kind]:
            candle = self.series[kind] + self.counts[kind] - 1
            if trade.ts < candle.end:
                candle.high = max(candle.high, trade.price)
                candle.low = min(candle.low, trade.price)
                candle.close = trade.price
                candle.last_sequence = trade.sequence
                candle.trades += 1
                candle.size += <byline_wide> trade.size
                candle.notional += <byline_wide> trade.notional
                return 0
        candle = self.room(kind)
        _span(kind, trade.ts, &candle.begin, &candle.end)
        candle.open = candle.high = candle.low = candle.close = trade.price
        candle.first_sequence = candle.last_sequence = trade.sequence
        candle.trades = 1
        candle.size = <byline_wide> trade.size
        candle.notional = <byline_wide> trade.notional
        return 0

    cdef Candle* room(self, int kind) except NULL:
        cdef Py_ssize_t count = self.counts[kind], capacity
        cdef void* grown
        if count == 2 * self.retained:
            count = self.retained
            memmove(self.series[kind], self.series[kind] + self.retained, count * sizeof(Candle))
        elif count == self.capacities[kind]:
            capacity = min(max(16, count * 2), 2 * self.retained)
            grown = realloc(self.series[kind], capacity * sizeof(Candle))
            if grown == NULL:
                raise MemoryError("candles")
            self.series[kind] = <Candle*> grown
            self.capacities[kind] = capacity
        self.counts[kind] = count + 1
        return self.series[kind] + count

    def last(self, int kind, Py_ssize_t limit, int64_t before=0x7FFFFFFFFFFFFFFF):
        """The newest candles that open before a time, oldest first, as tuples

        (begin ns, end ns, open, high, low, close, lots, notional, trades, first sequence, last sequence).
        """
        assert 0 <= kind < KINDS
        cdef Py_ssize_t stop = self.counts[kind], first, at
        while stop > 0 and self.series[kind][stop - 1].begin >= before:
            stop -= 1
        first = max(0, stop - min(limit, self.retained), self.counts[kind] - self.retained)
        return [self.told(self.series[kind] + at) for at in range(first, stop)]

    def changed(self, int kind, uint64_t after_sequence):
        """The candles that traded later than a sequence, oldest first; tuples as of `last`."""
        assert 0 <= kind < KINDS
        cdef Py_ssize_t first = self.counts[kind], at
        while first > 0 and self.series[kind][first - 1].last_sequence > after_sequence:
            first -= 1
        return [self.told(self.series[kind] + at) for at in range(first, self.counts[kind])]

    cdef tuple told(self, Candle* c):
        return (
            c.begin, c.end, c.open, c.high, c.low, c.close, _whole(c.size), _whole(c.notional), c.trades,
            c.first_sequence, c.last_sequence,
        )
