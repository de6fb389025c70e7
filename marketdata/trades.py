"""The public tape: the last trades of each market, bounded.

Trade ids count from 1 without a hole per market, so a reader notices a lost trade by itself.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from marketdata.changes import TRADE_ROW_KIND
from marketdata.feed import TRADE_ROW

__all__ = ["Tape", "by_market", "trade_rows"]


def by_market(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Groups rows (dtype feed.TRADE_ROW) by market index; each group keeps the order of the log."""
    if not len(rows):
        return []
    ordered = rows[np.argsort(rows["market"], kind="stable")]
    edges = np.flatnonzero(np.diff(ordered["market"])) + 1
    return [(int(group["market"][0]), group) for group in np.split(ordered, edges)]


def trade_rows(changes: np.ndarray) -> np.ndarray:
    """The trades among rows of changes (dtype CHANGE), as TRADE_ROW."""
    rows = changes[changes["kind"] == TRADE_ROW_KIND]
    trades = np.zeros(len(rows), TRADE_ROW)
    for name, source in (
        ("sequence", "sequence"), ("ts", "ts"), ("trade_id", "id"), ("price", "price"), ("size", "size"),
        ("notional", "extra"), ("market", "market"), ("aggressor", "side"),
    ):  # fmt: skip
        trades[name] = rows[source]
    return trades


class Tape:
    """The last `limit` trades of each market."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: dict[int, deque[np.void]] = {}

    def add(self, market: int, rows: np.ndarray) -> None:
        tape = self._rows.get(market)
        if tape is None:
            tape = self._rows[market] = deque(maxlen=self._limit)
        tape.extend(rows[-self._limit :])

    def last(self, market: int, limit: int) -> np.ndarray:
        """The newest trades, oldest first (dtype feed.TRADE_ROW)."""
        kept = list(self._rows.get(market, ()))[-limit:]
        return np.array(kept, TRADE_ROW) if kept else np.empty(0, TRADE_ROW)
