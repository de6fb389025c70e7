"""The public tape: the last trades of each market, bounded.

Trade ids count from 1 without a hole per market, so a reader notices a lost trade by itself.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from engine.messages.codes import Aggressor
from engine.messages.directory import MarketEntry

__all__ = ["Tape", "by_market", "trade_message"]

_AGGRESSOR_WORDS = tuple(member.word for member in sorted(Aggressor))


def by_market(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Groups rows (dtype feed.TRADE_ROW) by market index; each group keeps the order of the log."""
    if not len(rows):
        return []
    ordered = rows[np.argsort(rows["market"], kind="stable")]
    edges = np.flatnonzero(np.diff(ordered["market"])) + 1
    return [(int(group["market"][0]), group) for group in np.split(ordered, edges)]


def trade_message(market: MarketEntry, row: np.void) -> dict[str, Any]:
    """One trade as the wire shows it. `ts` is ns since 1970, UTC."""
    return {
        "trade_id": int(row["trade_id"]),
        "seq": int(row["sequence"]),
        "ts": int(row["ts"]),
        "price": market.price_text(int(row["price"])),
        "size": market.size_text(int(row["size"])),
        "aggressor": _AGGRESSOR_WORDS[row["aggressor"]],
    }


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

    def last(self, market: int, limit: int) -> list[np.void]:
        """The newest trades, oldest first."""
        return list(self._rows.get(market, ()))[-limit:]
