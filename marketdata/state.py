"""What market data knows: books, names, tape and tickers as of one sequence, fed from the event log."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.messages.codes import Phase
from engine.messages.directory import Directory, MarketEntry
from marketdata.feed import Feed
from marketdata.ticker import Ticker
from marketdata.trades import Tape, by_market

__all__ = ["MarketState"]


class MarketState:
    """Rebuilt from the first event at each start; there is nothing to save."""

    def __init__(self, *, order_limit: int, tape_trades: int) -> None:
        self.feed = Feed(order_limit)
        self.directory = Directory()
        self.tape = Tape(tape_trades)
        self.tickers: dict[int, Ticker] = {}

    @property
    def sequence(self) -> int:
        """The last sequence whose events are in."""
        return self.feed.sequence

    def apply(self, slots: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Takes whole commands; their trades by market. Raises JournalCorrupt."""
        for start, stop in self.feed.apply(slots):
            self.directory.learn(slots[start:stop])
        groups = by_market(self.feed.take_trades())
        for index, rows in groups:
            self.tape.add(index, rows)
            ticker = self.tickers.get(index)
            if ticker is None:
                ticker = self.tickers[index] = Ticker()
            ticker.add(rows)
        return groups

    def phase(self, market: int) -> str:
        return Phase(self.feed.phases[market]).word

    def price(self, market: MarketEntry) -> dict[str, Any]:
        """The fields of the price channel."""
        depth = self.feed.depths[market.index]
        ticker = self.tickers.get(market.index)
        fields: dict[str, Any] = {"last": None, "last_size": None, "last_ts": None}
        if ticker is not None and ticker.last is not None:
            price, size, ts = ticker.last
            fields = {"last": market.price_text(price), "last_size": market.size_text(size), "last_ts": ts}
        for name, side in (("best_bid", 0), ("best_ask", 1)):
            top = depth.top(side, 1)
            fields[name] = [market.price_text(top[0][0]), market.size_text(top[0][1])] if top else None
        day = (ticker or Ticker()).day(self.feed.ts)
        for name, ticks in (("open_24h", day.open), ("high_24h", day.high), ("low_24h", day.low)):
            fields[name] = None if ticks is None else market.price_text(ticks)
        fields["volume_24h"] = market.size_text(day.size)
        fields["quote_volume_24h"] = market.quote.text(day.notional)
        fields["trades_24h"] = day.count
        fields["phase"] = self.phase(market.index)
        return fields
