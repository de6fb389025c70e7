"""Last price and the rolling 24 hours of each market, by the journal's time.

The window is kept in buckets of one minute, so its early edge moves in steps of a minute. Sums are Python integers and
cannot overflow. At most 1,441 buckets a market, and only for minutes that traded.
Never: reads a clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

__all__ = ["Day", "Ticker"]

MINUTE_NS = 60_000_000_000
DAY_MINUTES = 24 * 60


@dataclass(slots=True)
class _Minute:
    minute: int
    open: int
    high: int
    low: int
    size: int
    notional: int
    count: int


@dataclass(frozen=True, slots=True)
class Day:
    """24 hours up to now. Prices in ticks, `size` in lots, `notional` in quote units; prices None without a trade."""

    open: int | None
    high: int | None
    low: int | None
    size: int
    notional: int
    count: int


def _wide_sum(values: np.ndarray) -> int:
    """The exact sum of non-negative int64s."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


class Ticker:
    """One market's. `last` is (price ticks, size lots, ts) or None. Sums run along; high and low are sought anew only
    when a minute leaves the window."""

    def __init__(self) -> None:
        self.last: tuple[int, int, int] | None = None
        self._minutes: deque[_Minute] = deque()
        self._size = self._notional = self._count = 0
        self._high = self._low = 0

    def add(self, rows: np.ndarray) -> None:
        """Trades of this market (dtype feed.TRADE_ROW), at least one, in the order of the log."""
        minutes = rows["ts"] // MINUTE_NS
        for group in np.split(rows, np.flatnonzero(np.diff(minutes)) + 1):
            self._add_minute(int(group["ts"][0]) // MINUTE_NS, group)
        final = rows[-1]
        self.last = (int(final["price"]), int(final["size"]), int(final["ts"]))
        self._expire(self.last[2])

    def day(self, now_ns: int) -> Day:
        """The window that ends at `now_ns`, the journal's time."""
        self._expire(now_ns)
        if not self._minutes:
            return Day(None, None, None, 0, 0, 0)
        return Day(self._minutes[0].open, self._high, self._low, self._size, self._notional, self._count)

    def _add_minute(self, minute: int, rows: np.ndarray) -> None:
        prices = rows["price"]
        high, low = int(prices.max()), int(prices.min())
        size, notional, count = _wide_sum(rows["size"]), _wide_sum(rows["notional"]), len(rows)
        if not self._minutes:
            self._high, self._low = high, low
        self._high, self._low = max(self._high, high), min(self._low, low)
        self._size += size
        self._notional += notional
        self._count += count
        if self._minutes and self._minutes[-1].minute == minute:
            bucket = self._minutes[-1]
            bucket.high, bucket.low = max(bucket.high, high), min(bucket.low, low)
            bucket.size += size
            bucket.notional += notional
            bucket.count += count
        else:
            self._minutes.append(_Minute(minute, int(prices[0]), high, low, size, notional, count))

    def _expire(self, now_ns: int) -> None:
        first = now_ns // MINUTE_NS - DAY_MINUTES
        if not self._minutes or self._minutes[0].minute >= first:
            return
        while self._minutes and self._minutes[0].minute < first:
            gone = self._minutes.popleft()
            self._size -= gone.size
            self._notional -= gone.notional
            self._count -= gone.count
        if self._minutes:
            self._high = max(bucket.high for bucket in self._minutes)
            self._low = min(bucket.low for bucket in self._minutes)
