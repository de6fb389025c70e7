"""One stream for each key: what its readers have, and the messages that bring them up to now.

A stream begins with the first snapshot that is asked of it. From then on `update` gives the frames of what changed
since its last message, and `snapshot` the state that this last message left its readers with: a reader that joins gets
it behind the updates of the same flush and goes on with the next one.

    lossless   a message for each command that changed what the stream shows, whenever it is flushed: two processes
               that follow the same log send the same messages
    conflated  what differs from the last message, at most every interval
    latest     the whole state, at most every interval: any one may be left out

Invariants: the prev_seq of a message is the seq of the one before; a stream that nobody reads does not exist.
Worst case: the snapshot of a whole book, about 1 µs a level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from engine.messages.directory import MarketEntry
from marketdata.changes import LEVEL_ROW, ORDER_ROW
from marketdata.channels import CONFLATED, LATEST, LOSSLESS, ProtocolError, StreamKey
from marketdata.depth import Window
from marketdata.feed import TRADE_ROW
from marketdata.json_codec import status_frame
from marketdata.messages import AuctionState, Codec, Levels, MarketLine, TickerState
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from marketdata.trades import trade_rows

__all__ = ["Changed", "Stream", "make_stream"]

TRADES_PER_MESSAGE = 500
SNAPSHOT = -1
"""prev_seq of a message that stands alone."""


class Changed:
    """The changes since the last flush, by market and kind when asked for."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self._found: dict[tuple[int, int], np.ndarray] = {}
        self._trades: dict[int, np.ndarray] = {}

    def of(self, market: int, kind: int) -> np.ndarray:
        found = self._found.get((market, kind))
        if found is None:
            rows = self._rows
            found = self._found[market, kind] = rows[(rows["market"] == market) & (rows["kind"] == kind)]
        return found

    def trades(self, market: int) -> np.ndarray:
        found = self._trades.get(market)
        if found is None:
            found = self._trades[market] = trade_rows(self._rows[self._rows["market"] == market])
        return found


class Stream(ABC):
    """One key, shared by its readers."""

    def __init__(self, key: StreamKey, state: MarketState, codec: Codec, settings: MarketDataSettings) -> None:
        self.key = key
        self.state = state
        self.codec = codec
        self.settings = settings
        self.reader_count = 0
        self.seq = 0  # of the last message
        self.started = False
        self.sent_ms = 0.0

    @property
    def market(self) -> MarketEntry:
        return self.state.directory.markets[self.key.market]

    def is_due(self, now_ms: float) -> bool:
        """Whether a message may go out now; half a flush early counts as on time."""
        return now_ms - self.sent_ms >= self.key.interval_ms - self.settings.flush_interval_ms / 2

    def begin(self) -> None:
        """The state as it is now is what its readers are going to have."""
        self.started = True

    def end(self) -> None:  # noqa: B027
        """Nobody reads it any more."""

    def observe(self, changed: Changed) -> None:  # noqa: B027
        """What it must not miss between two messages."""

    @abstractmethod
    def update(self, changed: Changed) -> list[bytes]:
        """The frames of what changed since its last message. Called only when it is started and due."""

    @abstractmethod
    def snapshot(self) -> bytes:
        """The frame that puts a reader where the last message left the others."""


def split_by_sequence(rows: np.ndarray) -> list[np.ndarray]:
    """Rows in the order of the log, a part for each sequence."""
    return np.split(rows, np.flatnonzero(np.diff(rows["sequence"])) + 1) if len(rows) else []


class BookStream(Stream):
    """L2. A lossless whole book is made of the ring's rows; everything else is what a window saw."""

    def begin(self) -> None:
        super().begin()
        self._depth = self.state.feed.depths[self.key.market]
        self._window = Window(self.key.parameter)
        self._is_whole = self.key.parameter == 0 and self.key.mode == LOSSLESS
        self.seq = self._depth.changed_sequence
        if self.key.mode == LOSSLESS and not self._is_whole:
            self._depth.attach(self._window)
        else:
            self._window.look(self._depth)
            self._window.take()

    def end(self) -> None:
        if self.started and self.key.mode == LOSSLESS and not self._is_whole:
            self._depth.detach(self._window)

    def update(self, changed: Changed) -> list[bytes]:
        if self._is_whole:
            return [self._told(rows) for rows in split_by_sequence(changed.of(self.key.market, LEVEL_ROW))]
        if self.key.mode == LOSSLESS:
            return [self._told(rows) for rows in split_by_sequence(self._window.take())]
        if self._depth.changed_sequence == self.seq:
            return []
        self._window.look(self._depth)
        rows = self._window.take()
        if not len(rows):
            return []  # deeper than it shows
        if self.key.mode == LATEST:
            self.seq = self._depth.changed_sequence
            return [self.snapshot()]
        return [self._told(rows)]

    def snapshot(self) -> bytes:
        whole = self._is_whole
        bids, asks = (self._depth.top(side) if whole else self._window.levels(side) for side in (0, 1))
        checksum = self._depth.level_checksum if whole else self._window.checksum
        return self.codec.book(
            self.key.channel, self.market, self.seq, SNAPSHOT, self.key.parameter, bids, asks, checksum
        )

    def _told(self, rows: np.ndarray) -> bytes:
        previous, self.seq = self.seq, int(rows["sequence"][-1])
        sides: tuple[Levels, Levels] = ([], [])
        for side, price, size in zip(rows["side"].tolist(), rows["price"].tolist(), rows["size"].tolist(), strict=True):
            sides[side].append((price, size))
        return self.codec.book(
            self.key.channel, self.market, self.seq, previous, self.key.parameter, *sides, int(rows["checksum"][-1])
        )


class OrdersStream(Stream):
    """L3: every order by its public number."""

    def begin(self) -> None:
        super().begin()
        feed = self.state.feed
        self._orders = feed.orders.public(self.key.market)
        self._checksum = feed.depths[self.key.market].order_checksum
        self.seq = feed.sequence

    def update(self, changed: Changed) -> list[bytes]:
        frames = []
        for rows in split_by_sequence(changed.of(self.key.market, ORDER_ROW)):
            previous, self.seq = self.seq, int(rows["sequence"][0])
            self._checksum = int(rows["checksum"][-1])
            told = order_lines(rows)
            for number, side, price, size in told:
                if size:
                    self._orders[number] = (side, price, size)
                else:
                    self._orders.pop(number, None)
            frames.append(self.codec.orders(self.key.channel, self.market, self.seq, previous, told, self._checksum))
        return frames

    def snapshot(self) -> bytes:
        rows = [(number, *order) for number, order in sorted(self._orders.items())]
        return self.codec.orders(self.key.channel, self.market, self.seq, SNAPSHOT, rows, self._checksum)


def order_lines(rows: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(number, side, price, lots) of the orders that one command touched, as they are after it."""
    last = {
        number: (number, side, price, size)
        for number, side, price, size in zip(
            rows["id"].tolist(), rows["side"].tolist(), rows["price"].tolist(), rows["size"].tolist(), strict=True
        )
    }
    return list(last.values())


class TradesStream(Stream):
    """The tape. Lossless and conflated tell every trade; `latest` only the last ones."""

    def begin(self) -> None:
        super().begin()
        self._waiting: list[np.ndarray] = []
        self.seq = self.state.sequence

    def observe(self, changed: Changed) -> None:
        rows = changed.trades(self.key.market)
        if len(rows) and self.started:
            self._waiting.append(rows)

    def update(self, changed: Changed) -> list[bytes]:
        if not self._waiting:
            return []
        rows = np.concatenate(self._waiting)
        self._waiting.clear()
        if self.key.mode == LATEST:
            self.seq = int(rows["sequence"][-1])
            return [self.snapshot()]
        frames = []
        for start in range(0, len(rows), TRADES_PER_MESSAGE):
            part = rows[start : start + TRADES_PER_MESSAGE]
            previous, self.seq = self.seq, int(part["sequence"][-1])
            frames.append(self.codec.trades(self.key.channel, self.market, self.seq, previous, part))
        return frames

    def snapshot(self) -> bytes:
        tape = self.state.tape.last(self.key.market, self.settings.tape_trades)
        if self._waiting:  # the readers of a conflated stream do not have these yet
            tape = tape[tape["trade_id"] < self._waiting[0]["trade_id"][0]]
        assert tape.dtype == TRADE_ROW
        return self.codec.trades(self.key.channel, self.market, self.seq, SNAPSHOT, tape)


class TickerStream(Stream):
    """L1 and the last 24 hours, whole in each message."""

    def begin(self) -> None:
        super().begin()
        self._sent: TickerState = self.state.ticker(self.market)
        self.seq = self.state.sequence

    def update(self, changed: Changed) -> list[bytes]:
        now = self.state.ticker(self.market)
        if now == self._sent:
            return []
        previous, self.seq, self._sent = self.seq, self.state.sequence, now
        return [self._frame(SNAPSHOT if self.key.mode == LATEST else previous)]

    def snapshot(self) -> bytes:
        return self._frame(SNAPSHOT)

    def _frame(self, previous: int) -> bytes:
        return self.codec.ticker(self.key.channel, self.market, self.seq, previous, self._sent)


class CandlesStream(Stream):
    """The candles that traded since the last message; a snapshot has the last ones."""

    def begin(self) -> None:
        super().begin()
        self.seq = self.state.sequence
        self._sent = self._rows()

    def _rows(self) -> list[tuple[int, ...]]:
        candles = self.state.candles.get(self.key.market)
        return [] if candles is None else candles.last(self.key.parameter, self.settings.candles_sent)

    def update(self, changed: Changed) -> list[bytes]:
        candles = self.state.candles.get(self.key.market)
        rows = [] if candles is None else candles.changed(self.key.parameter, self.seq)
        if not rows:
            return []
        previous, self.seq, self._sent = self.seq, rows[-1][10], self._rows()
        return [self._frame(SNAPSHOT if self.key.mode == LATEST else previous, rows)]

    def snapshot(self) -> bytes:
        return self._frame(SNAPSHOT, self._sent)

    def _frame(self, previous: int, rows: list[tuple[int, ...]]) -> bytes:
        return self.codec.candles(self.key.channel, self.market, self.seq, previous, self.key.parameter, rows)


class AuctionStream(Stream):
    """Where an uncross would trade now, and what the last one found."""

    def begin(self) -> None:
        super().begin()
        self._sent: AuctionState = self.state.auction(self.market)
        self.seq = self.state.sequence

    def update(self, changed: Changed) -> list[bytes]:
        now = self.state.auction(self.market)
        if now == self._sent:
            return []
        previous, self.seq, self._sent = self.seq, self.state.sequence, now
        return [self._frame(SNAPSHOT if self.key.mode == LATEST else previous)]

    def snapshot(self) -> bytes:
        return self._frame(SNAPSHOT)

    def _frame(self, previous: int) -> bytes:
        return self.codec.auction(self.key.channel, self.market, self.seq, previous, self._sent)


class StatusStream(Stream):
    """All markets with their phases; told anew when one is listed or changes its phase."""

    def begin(self) -> None:
        super().begin()
        self._told = self._lines()
        self.seq = self.state.sequence

    def _lines(self) -> list[MarketLine]:
        return [MarketLine(market, self.state.phase(market.index)) for market in self.state.directory.markets]

    def update(self, changed: Changed) -> list[bytes]:
        now = self._lines()
        if [(line.market.index, line.phase) for line in now] == [
            (line.market.index, line.phase) for line in self._told
        ]:
            return []
        previous, self.seq, self._told = self.seq, self.state.sequence, now
        if self.key.mode == LATEST:
            return [self.snapshot()]
        return [status_frame("update", self.seq, previous, self.state.feed.ts, now)]

    def snapshot(self) -> bytes:
        return status_frame("snapshot", self.seq, SNAPSHOT, self.state.feed.ts, self._told)


class LatencyStream(Stream):
    """How long the stages of this process take, venue-wide: see stages."""

    def begin(self) -> None:
        super().begin()
        self.seq = self.state.sequence

    def update(self, changed: Changed) -> list[bytes]:
        previous, self.seq = self.seq, self.state.sequence
        return [self.state.stages.frame("update", self.seq, SNAPSHOT if self.key.mode == LATEST else previous)]

    def snapshot(self) -> bytes:
        return self.state.stages.frame("snapshot", self.seq, SNAPSHOT)


_STREAMS: dict[str, type[Stream]] = {
    "book": BookStream, "orders": OrdersStream, "trades": TradesStream, "ticker": TickerStream,
    "candles": CandlesStream, "auction": AuctionStream, "status": StatusStream,
    "latency": LatencyStream,
}  # fmt: skip


def make_stream(key: StreamKey, state: MarketState, codec: Codec, settings: MarketDataSettings) -> Stream:
    """A stream that has not begun. Raises ProtocolError where the market is too large for it."""
    assert key.mode in (LOSSLESS, CONFLATED, LATEST)
    if key.kind == "book" and key.parameter == 0:
        depth = state.feed.depths[key.market]
        if max(depth.level_count(0), depth.level_count(1)) > settings.whole_book_levels_max:
            raise ProtocolError(
                "too_large", f"depth: this book has over {settings.whole_book_levels_max} levels a side"
            )
    if key.kind == "orders" and state.feed.depths[key.market].order_count() > settings.whole_book_orders_max:
        raise ProtocolError("too_large", f"channel: this book has over {settings.whole_book_orders_max} orders")
    return _STREAMS[key.kind](key, state, codec, settings)
