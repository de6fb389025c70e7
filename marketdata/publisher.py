"""Streams, and what each flush sends to whom. Sans-I/O: the server writes the bytes.

A stream is one (channel, depth). At a flush every changed stream builds its message once, as a complete websocket frame
(a server's frames are not masked, so the same bytes do for all). Readers with the same live streams form a *profile*,
whose frames are joined once, and each reader gets them in one write.

    flush():  changed streams ──▶ frames ──▶ joined per profile ──▶ (session, bytes)
              pending streams ──▶ snapshot frame, built once per stream and flush ──▶ appended for that session

Invariants: a book update's prev_seq is the seq of the message before it in its stream; snapshot and updates share the
sequence of the event log, and a snapshot's seq is that of the last change of that book. Trades reach every live trades
subscription, slow or not; book and price updates stop while a reader is slow and start again with a snapshot.
Never: writes, waits, or keeps anything per reader but its sets of streams.
Worst case: the snapshot of a whole book, about 1 µs a level.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import numpy as np

from engine.messages.directory import MarketEntry
from marketdata.session import ProtocolError, Session
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from marketdata.trades import trade_message

__all__ = ["ALIASES", "CHECKSUM_LEVELS", "DEPTHS", "Publisher", "Stream", "checksum", "text_frame"]

ALIASES = {"book": "orderbook", "ticker": "price"}
KINDS = ("orderbook", "trades", "price")
DEPTHS = (0, 1, 5, 10, 25, 50, 100, 500)
"""Depths a book can be asked for, in levels a side; 0 is the whole book. Few, so that streams are shared."""
CHECKSUM_LEVELS = 10
TRADES_PER_MESSAGE = 500
_ENCODER = msgspec.json.Encoder()

Levels = list[list[str]]


def text_frame(payload: bytes) -> bytes:
    """A complete unmasked text frame."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def checksum(bids: Levels, asks: Levels) -> int:
    """CRC-32 of the best ten levels a side, bids first, as `price:size` joined by `|`, in the wire's own text."""
    best = [*bids[:CHECKSUM_LEVELS], *asks[:CHECKSUM_LEVELS]]
    return zlib.crc32("|".join(f"{price}:{size}" for price, size in best).encode("ascii"))


class Stream:
    """One channel at one depth, shared by its readers."""

    __slots__ = ("channel", "depth", "kind", "market", "reader_count", "sent", "seq", "started", "update_count")

    def __init__(self, kind: str, market: MarketEntry | None, depth: int = 0) -> None:
        self.kind = kind
        self.market = market
        self.depth = depth
        self.channel = kind if market is None else f"{kind}:{market.name}"
        self.reader_count = 0
        self.seq = 0  # of the last message
        self.started = False
        self.sent: Any = None  # book with a depth: the levels readers have; price: the last fields
        self.update_count = 0

    @property
    def conflated(self) -> bool:
        """Whether a slow reader is given the latest state in place of every message."""
        return self.kind != "trades"


class Publisher:
    """All streams and sessions. One thread."""

    def __init__(self, state: MarketState, settings: MarketDataSettings) -> None:
        self.state = state
        self.sessions: set[Session] = set()
        self.message_count = 0
        self._settings = settings
        self._streams: dict[tuple[str, int, int], Stream] = {}
        self._trades: dict[int, list[np.ndarray]] = {}

    # ---------------------------------------------------------------- subscriptions

    def stream(self, channel: str, depth: int | None) -> Stream:
        """The stream a request names. Raises ProtocolError."""
        kind, colon, name = channel.partition(":")
        kind = ALIASES.get(kind, kind)
        if kind == "status" and not colon:
            market, index = None, -1
        elif kind not in KINDS or not colon:
            raise ProtocolError(
                "unknown_channel", "channel: must be orderbook:MARKET, trades:MARKET, price:MARKET or status"
            )
        else:
            market = self.state.directory.market(name)
            if market is None:
                raise ProtocolError("unknown_market", f"channel: no market is named {name[:64]!r}")
            index = market.index
        if kind != "orderbook":
            if depth is not None:
                raise ProtocolError("bad_depth", "depth: only orderbook has one")
            depth = 0
        elif depth is None:
            depth = self._settings.depth_default
        elif depth not in DEPTHS:
            raise ProtocolError("bad_depth", f"depth: must be one of {', '.join(map(str, DEPTHS))} (0: the whole book)")
        known = self._streams.get((kind, index, depth))
        if known is not None:
            return known
        if kind == "orderbook" and depth == 0:
            book = self.state.feed.depths[index]
            if max(book.level_count(0), book.level_count(1)) > self._settings.whole_book_levels_max:
                raise ProtocolError(
                    "too_large", f"depth: this book has over {self._settings.whole_book_levels_max} levels a side"
                )
        return Stream(kind, market, depth)

    def join(self, session: Session, stream: Stream) -> None:
        """The session's next flush brings the snapshot."""
        if stream.reader_count == 0:
            self._streams[self._key(stream)] = stream
        stream.reader_count += 1
        session.pending.add(stream)
        self.sessions.add(session)

    def leave(self, session: Session, stream: Stream) -> None:
        session.live.discard(stream)
        session.pending.discard(stream)
        stream.reader_count -= 1
        if stream.reader_count == 0:
            del self._streams[self._key(stream)]
            if stream.kind == "orderbook" and stream.depth == 0 and stream.market is not None:
                self.state.feed.depths[stream.market.index].track(False)

    def drop(self, session: Session) -> None:
        """The connection is gone."""
        for stream in session.live | session.pending:
            self.leave(session, stream)
        self.sessions.discard(session)

    @staticmethod
    def _key(stream: Stream) -> tuple[str, int, int]:
        return (stream.kind, -1 if stream.market is None else stream.market.index, stream.depth)

    # ---------------------------------------------------------------- flushing

    def apply(self, slots: np.ndarray) -> None:
        """Takes whole commands; their trades wait for the flush. Raises JournalCorrupt."""
        for index, rows in self.state.apply(slots):
            self._trades.setdefault(index, []).append(rows)

    def set_slow(self, session: Session) -> bytes:
        """Its book and price subscriptions wait for the latest state; the frame that tells it so."""
        session.slow = True
        parked = {stream for stream in session.live if stream.conflated}
        session.live -= parked
        session.pending |= parked
        return text_frame(_ENCODER.encode({"type": "slow", "conflated": True, "seq": self.state.sequence}))

    def set_recovered(self, session: Session) -> bytes:
        session.slow = False
        return text_frame(_ENCODER.encode({"type": "slow", "conflated": False, "seq": self.state.sequence}))

    def flush(self) -> list[tuple[Session, bytes]]:
        """What each session is to get now, whole frames. Pending streams of sessions that are not slow turn live."""
        frames: dict[Stream, bytes] = {}
        for stream in list(self._streams.values()):
            frame = self._update(stream)
            if frame:
                frames[stream] = frame
        self._trades.clear()
        joined: dict[frozenset[Stream], bytes] = {}
        snapshots: dict[Stream, bytes] = {}
        plan: list[tuple[Session, bytes]] = []
        for session in self.sessions:
            profile = frozenset(session.live)
            data = joined.get(profile)
            if data is None:
                data = joined[profile] = b"".join(frame for stream, frame in frames.items() if stream in profile)
            if session.pending:
                data += self._start(session, snapshots)
            if data:
                plan.append((session, data))
        return plan

    def _start(self, session: Session, snapshots: dict[Stream, bytes]) -> bytes:
        ready = [stream for stream in session.pending if not (session.slow and stream.conflated)]
        ready.sort(key=lambda stream: (stream.channel, stream.depth))
        for stream in ready:
            if stream not in snapshots:
                snapshots[stream] = self._snapshot(stream)
        session.pending.difference_update(ready)
        session.live.update(ready)
        return b"".join(snapshots[stream] for stream in ready)

    def _frame(self, stream: Stream, type_word: str, fields: dict[str, Any]) -> bytes:
        self.message_count += 1
        return text_frame(_ENCODER.encode({"type": type_word, "channel": stream.channel, **fields}))

    def _snapshot(self, stream: Stream) -> bytes:
        """The state that the stream's last message left its readers with."""
        market = stream.market
        if market is None:
            return self._frame(stream, "snapshot", self._status_fields())
        if stream.kind == "trades":
            rows = self.state.tape.last(market.index, self._settings.tape_trades)
            return self._frame(
                stream, "snapshot", {"seq": self.state.sequence, "trades": [trade_message(market, row) for row in rows]}
            )
        if stream.kind == "price":
            if not stream.started:
                stream.started, stream.seq, stream.sent = True, self.state.sequence, self.state.price(market)
            return self._frame(stream, "snapshot", {"seq": stream.seq, **stream.sent})
        depth = self.state.feed.depths[market.index]
        if not stream.started:
            stream.started, stream.seq = True, depth.changed_sequence
            if stream.depth:
                stream.sent = [dict(depth.top(side, stream.depth)) for side in (0, 1)]
            else:
                depth.track(True)
        bids, asks = self._levels(market, stream.depth)
        return self._frame(
            stream, "snapshot",
            {"seq": stream.seq, "depth": stream.depth, "bids": bids, "asks": asks, "checksum": checksum(bids, asks)},
        )  # fmt: skip

    def _update(self, stream: Stream) -> bytes:
        """The frames of what changed since the stream's last message, or nothing."""
        market = stream.market
        if market is None:
            return self._status_update(stream)
        if stream.kind == "trades":
            return self._trade_events(stream, market)
        if stream.kind == "price":
            return self._price_update(stream, market)
        return self._book_update(stream, market)

    def _book_update(self, stream: Stream, market: MarketEntry) -> bytes:
        depth = self.state.feed.depths[market.index]
        if not stream.started or depth.changed_sequence == stream.seq:
            return b""
        changed: list[list[tuple[int, int]]] = []
        for side in (0, 1):
            if stream.depth:
                now, before = dict(depth.top(side, stream.depth)), stream.sent[side]
                difference = [(price, size) for price, size in now.items() if before.get(price) != size]
                difference += [(price, 0) for price in before if price not in now]
                stream.sent[side] = now
                changed.append(difference)
            else:
                changed.append(depth.take_touched(side))
        if not changed[0] and not changed[1]:
            return b""  # deeper than this stream shows
        fields: dict[str, Any] = {"seq": depth.changed_sequence, "prev_seq": stream.seq}
        for name, side in (("bids", 0), ("asks", 1)):
            fields[name] = [[market.price_text(price), market.size_text(size)] for price, size in changed[side]]
        stream.update_count += 1
        if stream.update_count % self._settings.checksum_every_updates == 0:
            fields["checksum"] = checksum(*self._levels(market, min(stream.depth or CHECKSUM_LEVELS, CHECKSUM_LEVELS)))
        stream.seq = depth.changed_sequence
        return self._frame(stream, "update", fields)

    def _levels(self, market: MarketEntry, limit: int) -> tuple[Levels, Levels]:
        depth = self.state.feed.depths[market.index]
        bids, asks = (
            [[market.price_text(price), market.size_text(size)] for price, size in depth.top(side, limit)]
            for side in (0, 1)
        )
        return bids, asks

    def _trade_events(self, stream: Stream, market: MarketEntry) -> bytes:
        messages = [trade_message(market, row) for rows in self._trades.get(market.index, ()) for row in rows]
        return b"".join(
            self._frame(stream, "event", {"seq": messages[end - 1]["seq"], "trades": messages[start:end]})
            for start in range(0, len(messages), TRADES_PER_MESSAGE)
            for end in (min(start + TRADES_PER_MESSAGE, len(messages)),)
        )

    def _price_update(self, stream: Stream, market: MarketEntry) -> bytes:
        if not stream.started:
            return b""
        fields = self.state.price(market)
        if fields == stream.sent:
            return b""
        previous, stream.seq, stream.sent = stream.seq, self.state.sequence, fields
        return self._frame(stream, "update", {"seq": stream.seq, "prev_seq": previous, **fields})

    def _status_update(self, stream: Stream) -> bytes:
        """Sent when a market is listed or changes its phase."""
        phases = tuple((market.index, self.state.phase(market.index)) for market in self.state.directory.markets)
        if phases == stream.sent:
            return b""
        first, stream.sent = stream.sent is None, phases
        return b"" if first else self._frame(stream, "update", self._status_fields())

    def _status_fields(self) -> dict[str, Any]:
        markets = [
            {
                "market": market.name, "base": market.base.name, "quote": market.quote.name,
                "tick": market.price_text(1), "lot": market.size_text(1), "phase": self.state.phase(market.index),
            }
            for market in self.state.directory.markets
        ]  # fmt: skip
        return {"seq": self.state.sequence, "ts": self.state.feed.ts, "markets": markets}
