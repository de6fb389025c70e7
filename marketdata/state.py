"""What market data knows: books, names, tape, tickers and candles as of one sequence, fed from the event log."""

from __future__ import annotations

import numpy as np

from engine.messages.codes import ABSENT, Phase
from engine.messages.directory import Directory, MarketEntry
from marketdata.candles import Candles
from marketdata.changes import CHANGE, UNCROSSED_ROW
from marketdata.feed import Feed
from marketdata.messages import AuctionState, TickerState
from marketdata.settings import MarketDataSettings
from marketdata.stages import Stages
from marketdata.ticker import Ticker
from marketdata.trades import Tape, by_market

__all__ = ["MarketState"]

COLLECTING = (Phase.PREOPEN, Phase.AUCTION)


class MarketState:
    """Rebuilt from the first event at each start; there is nothing to save."""

    def __init__(self, settings: MarketDataSettings) -> None:
        self.feed = Feed(settings.order_limit, settings.change_rows)
        self.directory = Directory()
        self.tape = Tape(settings.tape_trades)
        self.tickers: dict[int, Ticker] = {}
        self.candles: dict[int, Candles] = {}
        self.uncrosses: dict[int, tuple[int, int | None, int, int]] = {}
        self.stages = Stages()
        self._settings = settings

    @property
    def sequence(self) -> int:
        """The last sequence whose events are in."""
        return self.feed.sequence

    def apply(self, slots: np.ndarray) -> np.ndarray:
        """Takes whole commands; what they changed (dtype CHANGE). Raises JournalCorrupt."""
        before = self.feed.changes.count
        for start, stop in self.feed.apply(slots):
            self.directory.learn(slots[start:stop])
        for index, rows in by_market(self.feed.take_trades()):
            self.tape.add(index, rows)
            if index not in self.tickers:
                self.tickers[index], self.candles[index] = Ticker(), Candles(self._settings.candles_kept)
            self.tickers[index].add(rows)
            self.candles[index].add(rows)
        changed = self.feed.changes.take(before, self.feed.changes.count)
        for row in changed[changed["kind"] == UNCROSSED_ROW]:
            price = int(row["price"])
            self.uncrosses[int(row["market"])] = (
                int(row["sequence"]), None if price == ABSENT else price, int(row["size"]), int(row["extra"]),
            )  # fmt: skip
        assert changed.dtype == CHANGE
        return changed

    def phase(self, market: int) -> int:
        """Its number; codes.Phase."""
        return self.feed.phases[market]

    def ticker(self, market: MarketEntry) -> TickerState:
        """L1 and the last 24 hours."""
        depth = self.feed.depths[market.index]
        ticker = self.tickers.get(market.index)
        day = (ticker or Ticker()).day(self.feed.ts)
        best = [next(iter(depth.top(side, 1)), None) for side in (0, 1)]
        return TickerState(
            None if ticker is None else ticker.last, best[0], best[1], day.open, day.high, day.low, day.size,
            day.notional, day.count, self.phase(market.index),
        )  # fmt: skip

    def auction(self, market: MarketEntry) -> AuctionState:
        """What an uncross would find now, while the market collects orders."""
        phase = self.phase(market.index)
        price, paired, imbalance = None, 0, 0
        if phase in COLLECTING:
            price, paired, imbalance = self.feed.depths[market.index].indicative()
        return AuctionState(phase, price, paired, imbalance, self.uncrosses.get(market.index))
