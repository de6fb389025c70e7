"""What a channel's message says, before it is text or binary. Prices in ticks, sizes in lots, sides 0 bid and 1 ask.

`seq` is the sequence of the last command it tells of, `prev_seq` the `seq` of the message before it in its stream (a
snapshot has none: -1). A codec (`json_codec`, `binary_codec`) turns each into one frame or refuses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.messages.directory import MarketEntry

__all__ = ["AuctionState", "Codec", "Heads", "Levels", "MarketLine", "TickerState"]

Levels = list[tuple[int, int]]
"""(price, lots); 0 lots takes the level away."""
Heads = list[tuple[str, int, int, int, int]]
"""(channel, its number, number of the candle interval, market index, seq of its last message)."""


@dataclass(frozen=True, slots=True)
class TickerState:
    """L1. Prices and sizes None where there is none; notional in quote units."""

    last: tuple[int, int, int] | None  # price, lots, ts
    best_bid: tuple[int, int] | None
    best_ask: tuple[int, int] | None
    open: int | None
    high: int | None
    low: int | None
    size: int
    notional: int
    trades: int
    phase: int


@dataclass(frozen=True, slots=True)
class AuctionState:
    """Where an uncross would trade now. `price` None: the book is not crossed, or nothing is collected.

    `result`: the last uncross as (sequence, price or None, lots, imbalance), None before the first.
    """

    phase: int
    price: int | None
    paired: int
    imbalance: int
    result: tuple[int, int | None, int, int] | None


@dataclass(frozen=True, slots=True)
class MarketLine:
    """One market in `status`."""

    market: MarketEntry
    phase: int


class Codec(Protocol):
    """Each method gives one whole frame."""

    name: str

    def book(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, depth: int, bids: Levels, asks: Levels,
        checksum: int, *, replayed: bool = False,
    ) -> bytes: ...  # fmt: skip
    def orders(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, rows: list[tuple[int, int, int, int]],
        checksum: int, *, replayed: bool = False,
    ) -> bytes:  # fmt: skip
        """`rows`: (public number, side, price, lots)."""

    def trades(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, rows: np.ndarray, *, replayed: bool = False
    ) -> bytes:
        """`rows`: dtype feed.TRADE_ROW."""

    def ticker(self, channel: str, market: MarketEntry, seq: int, prev_seq: int, state: TickerState) -> bytes: ...
    def candles(
        self, channel: str, market: MarketEntry, seq: int, prev_seq: int, kind: int, rows: list[tuple[int, ...]]
    ) -> bytes:
        """`rows`: tuples of candles.Candles.last."""

    def auction(self, channel: str, market: MarketEntry, seq: int, prev_seq: int, state: AuctionState) -> bytes: ...
    def heads(self, seq: int, ts: int, heads: Heads) -> bytes: ...
