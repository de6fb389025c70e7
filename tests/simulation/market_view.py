"""Market data in the world: production's books, streams and sessions follow the event log, and a client's book them.

Production: `MarketState`, `Publisher`, `Session` and the reader of the event log on one side, `LocalBook` of the client
library on the other, what goes between them as whole frames. Simulated here is only the hand that carries the frames:
it loses updates, cuts the link, and the process dies and begins again from the first event. What a client must do then
is what docs/protocol/market-data.md asks of it: subscribe anew.

Left out are the sockets of `marketdata/server.py`: its fan writes to descriptors from C, its pace is the machine's.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from byline.client.market_data import BookGap, LocalBook
from engine.core import Core
from engine.messages.errors import ExchangeError
from marketdata.publisher import Publisher
from marketdata.session import Session
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from persistence.event_log import EventLogReader
from tests.support.frames import messages_of

__all__ = ["MarketView"]

SETTINGS = MarketDataSettings(
    order_limit=8_192, read_slots=512, change_rows=8_192, requests_per_second=1_000_000, candles_kept=10,
    candles_sent=10,
)  # fmt: skip
DEATH, CUT, LOSS = 0.01, 0.02, 0.05
"""Chances: of a step that it is the process's last, or the link's; of an update that it does not arrive."""


class MarketView:
    """One process of market data with one reader of whole books."""

    def __init__(self, directory: Path, seed: int, markets: list[str]) -> None:
        self.random = random.Random(f"market-view-{seed}")
        self.markets = markets
        self.deaths = self.cuts = self.losses = self.gaps = 0
        self.fault = ""
        self._events = directory / "events"
        self._chances = (DEATH, CUT, LOSS)
        self.begin()

    def begin(self) -> None:
        """A new process, for it died or the machine did: it reads from the first event, and its reader has gone."""
        self._reader: EventLogReader | None = None
        self._state = MarketState(SETTINGS)
        self._publisher = Publisher(self._state, SETTINGS)
        self._connect()

    def _connect(self) -> None:
        """A reader that has nothing yet."""
        self._session = Session(self._publisher, SETTINGS)
        self.books = {f"book:{market}": LocalBook(market) for market in self.markets}
        self._missed: set[str] = set()
        """Channels of which an update was lost, and nothing has come since."""

    # ------------------------------------------------------------ a step

    def step(self, now_ms: float) -> bool:
        """What is there is read, one flush is sent. False: nothing more was there."""
        death, cut, _ = self._chances
        if self.random.random() < death:
            self.deaths += 1
            self.begin()
        elif self.random.random() < cut:
            self.cuts += 1
            self._publisher.drop(self._session)
            self._connect()
        has_read = self._read()
        for channel in self.books:
            if channel not in self._session.subscriptions:
                self._ask("subscribe", channel, depth=0, mode="lossless")  # refused until the market is listed
        for delivery in self._publisher.flush(now_ms):
            if self._session in delivery.sinks:
                for message in messages_of(delivery.data):
                    self._carry(message)
        return has_read

    def _read(self) -> bool:
        try:
            if self._reader is None:
                self._reader = EventLogReader(self._events)
                self._reader.seek(self._state.sequence)
            slots = self._reader.read(self.random.choice([16, 256, 512]))
            if not len(slots):
                return False
            self._publisher.apply(slots)
        except (OSError, ExchangeError) as error:
            self._reader = None  # it is being made anew
            if isinstance(error, ExchangeError) and not error.retry:
                self.fault = self.fault or f"market data ends: {error}"
            return False
        return True

    def _ask(self, kind: str, channel: str, **more: Any) -> None:
        self._session.receive(msgspec.json.encode({"type": kind, "channel": channel} | more), 0.0)

    # ------------------------------------------------------------ the client

    def _carry(self, message: dict[str, Any]) -> None:
        """To the client, or nowhere."""
        kind, channel = message["type"], message.get("channel", "")
        if kind == "update" and self.books[channel].ready and self.random.random() < self._chances[2]:
            self.losses += 1
            self._missed.add(channel)
        elif kind == "heads":
            for name, seq in message["heads"].items():
                self._take(name, lambda book, seq=seq: book.check_head(seq))
        else:
            self._take(channel, lambda book: book.apply(message))

    def _take(self, channel: str, take: Any) -> None:
        """F41: the first message behind a lost one shows that it is lost."""
        book = self.books[channel]
        try:
            take(book)
        except BookGap as gap:
            self.gaps += 1
            if channel not in self._missed:
                self.fault = self.fault or f"nothing was lost of {channel}, and yet: {gap}"
            self._ask("unsubscribe", channel)
        else:
            if channel in self._missed and book.ready:
                self.fault = self.fault or f"an update of {channel} was lost, and the next message did not show it"
        self._missed.discard(channel)

    # ------------------------------------------------------------ the end

    def differs(self, core: Core, now_ms: float) -> str:
        """What the client's books say otherwise than the core, once everything has come; empty: nothing."""
        self._chances = (0.0, 0.0, 0.0)
        while self.step(now_ms):
            now_ms += 1_000.0
        for _ in range(3):  # who was lost behind a gap subscribes, gets the snapshot, and a heartbeat
            now_ms += 1_000.0
            self.step(now_ms)
        if self.fault:
            return self.fault
        directory, real = self._state.directory, defaultdict[tuple[str, int], dict[str, int]](dict)
        for row in core.open_orders():
            if row["displayed"]:
                market = directory.markets[int(row["market"])]
                side = real[market.name, int(row["side"])]
                price = market.price_text(int(row["price"]))
                side[price] = side.get(price, 0) + int(row["displayed"])
        for book in self.books.values():
            entry = directory.market(book.market)
            if entry is None or not book.ready:
                return f"{book.market}: no book at the end, {len(core.open_orders())} orders are open"
            for side_number, levels in enumerate((book.bids, book.asks)):
                wanted = {price: entry.size_text(lots) for price, lots in real[book.market, side_number].items()}
                if dict(levels) != wanted:
                    return f"{book.market}, side {side_number}: {sorted(set(levels) ^ set(wanted.items()))}"
        return ""
