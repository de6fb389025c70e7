"""Streams, and what each flush sends to whom. Sans-I/O: the server writes the bytes.

At a flush every stream that is due builds its messages once, as complete websocket frames. Readers with the same live
streams form a *profile*, whose frames are joined once, and each reader gets them in one write.

    flush():  changed streams ──▶ frames ──▶ joined per profile, its heads at the end ──▶ (sessions, bytes)
              pending subscriptions ──▶ snapshot, built once per stream and flush ──▶ appended for those sessions

`heads` tells the seq of the last message of each stream that a write carries, and with each heartbeat of all of them:
a reader sees at the end of a write whether it has everything that was in it.

A reader that falls behind is moved: each subscription to the `latest` stream of the same channel, of which any message
may be left out, `orders` to nothing. When it has drained it is moved back and begins with snapshots.

Invariants: a session is in the one profile of its live streams; it is told before it is moved and when it is back.
Never: writes, waits, reads a clock, or keeps anything per reader but its subscriptions.
Worst case: the snapshot of a whole book, about 1 µs a level.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from marketdata.binary_codec import BinaryCodec
from marketdata.changes import CHANGE
from marketdata.channels import CHANNEL_NUMBERS, LATEST, LOSSLESS, StreamKey
from marketdata.frames import text_frame
from marketdata.json_codec import JsonCodec
from marketdata.messages import Codec
from marketdata.session import Session, Subscription
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from marketdata.streams import Changed, Stream, make_stream

__all__ = ["Delivery", "Publisher"]

_ENCODER = msgspec.json.Encoder()


class Profile:
    """The sessions that have exactly these streams live."""

    __slots__ = ("_sinks", "_slots", "encoding", "is_lean", "sent_ms", "sessions", "streams")

    def __init__(self, streams: frozenset[Stream], encoding: str, now_ms: float) -> None:
        self.streams = sorted(streams, key=lambda stream: (stream.key.channel, stream.key.parameter))
        self.encoding = encoding
        self.is_lean = all(stream.key.mode != LATEST for stream in streams)
        self.sessions: dict[Session, None] = {}
        self.sent_ms = now_ms
        self._sinks: list[Any] | None = None
        self._slots = array("i")

    def add(self, session: Session) -> None:
        self.sessions[session] = None
        self._sinks = None

    def remove(self, session: Session) -> None:
        del self.sessions[session]
        self._sinks = None

    def addressed(self, data: bytes, lean: bytes) -> Delivery:
        """To all of them; the same lists until a session comes or goes."""
        if self._sinks is None:
            self._sinks = [session.sink for session in self.sessions]
            self._slots = array("i", [session.slot for session in self.sessions])
        return Delivery(self._sinks, self._slots, data, lean)


@dataclass(slots=True)
class Delivery:
    """`data` for each of the sinks, whose slots stand beside them.

    Who still has bytes waiting gets `lean`: without what may be left out.
    """

    sinks: list[Any]
    slots: array[int]
    data: bytes
    lean: bytes

    def add(self, session: Session) -> None:
        self.sinks.append(session.sink)
        self.slots.append(session.slot)


class Publisher:
    """All streams and sessions. One thread. Times are milliseconds of any one clock that never goes back."""

    def __init__(self, state: MarketState, settings: MarketDataSettings) -> None:
        self.state = state
        self.settings = settings
        self.codecs: dict[str, Codec] = {"json": JsonCodec(), "binary": BinaryCodec()}
        self.message_count = 0
        self.now_ms = 0.0
        self._streams: dict[StreamKey, Stream] = {}
        self._profiles: dict[tuple[str, frozenset[Stream]], Profile] = {}
        self._pending: dict[Session, None] = {}
        self._changes: list[np.ndarray] = []

    # ---------------------------------------------------------------- subscriptions

    @property
    def session_count(self) -> int:
        return sum(len(profile.sessions) for profile in self._profiles.values())

    @property
    def pending_count(self) -> int:
        """Sessions that wait for a snapshot."""
        return len(self._pending)

    def join(self, session: Session, subscription: Subscription) -> None:
        """Its next flush brings the snapshot. Raises ProtocolError where the market is too large."""
        key = subscription.wanted.lagging() if session.slow else subscription.wanted
        if session.profile is None:
            self._move(session, frozenset())
        if key is not None:
            stream = self._streams.get(key)
            if stream is None:
                stream = make_stream(key, self.state, self.codecs[key.encoding], self.settings)
                self._streams[key] = stream
            stream.reader_count += 1
            subscription.stream = stream
            self._pending[session] = None
        session.subscriptions[subscription.wanted.channel] = subscription

    def leave(self, session: Session, subscription: Subscription) -> None:
        del session.subscriptions[subscription.wanted.channel]
        self._detach(session, subscription)

    def _detach(self, session: Session, subscription: Subscription) -> None:
        stream, subscription.stream = subscription.stream, None
        if stream is None:
            return
        if subscription.live:
            subscription.live = False
            self._move(session, session.live())
        stream.reader_count -= 1
        if stream.reader_count == 0:
            stream.end()
            del self._streams[stream.key]

    def drop(self, session: Session) -> None:
        """The connection is gone."""
        if session.profile is not None:
            self._take_out(session)
        subscriptions = list(session.subscriptions.values())
        for subscription in subscriptions:
            subscription.live = False
            self._detach(session, subscription)
        session.subscriptions.clear()
        self._pending.pop(session, None)

    def _take_out(self, session: Session) -> None:
        profile = session.profile
        profile.remove(session)
        if not profile.sessions:
            del self._profiles[profile.encoding, frozenset(profile.streams)]
        session.profile = None

    def _move(self, session: Session, live: frozenset[Stream]) -> None:
        if session.profile is not None:
            self._take_out(session)
        profile = self._profiles.get((session.encoding, live))
        if profile is None:
            profile = self._profiles[session.encoding, live] = Profile(live, session.encoding, self.now_ms)
        profile.add(session)
        session.profile = profile

    # ---------------------------------------------------------------- readers that fall behind

    def set_slow(self, session: Session, waiting_bytes: int) -> bytes:
        """Moves it to what it can follow; the frame that tells it so."""
        session.slow = True
        session.slow_since_ms = self.now_ms
        moved: dict[str, Any] = {}
        for subscription in list(session.subscriptions.values()):
            self._detach(session, subscription)
            key = subscription.wanted.lagging()
            moved[subscription.wanted.channel] = (
                {"mode": "paused"} if key is None else {"mode": key.mode, "interval_ms": key.interval_ms}
            )
            self.join(session, subscription)
        return self._slow_frame(True, waiting_bytes=waiting_bytes, moved=moved)

    def may_recover(self, session: Session) -> bool:
        """Whether it has been conflated for long enough."""
        return self.now_ms - session.slow_since_ms >= self.settings.lag_hold_ms

    def set_recovered(self, session: Session) -> bytes:
        """Back to what it asked for, beginning with snapshots; the frame that tells it so."""
        session.slow = False
        for subscription in list(session.subscriptions.values()):
            self._detach(session, subscription)
            self.join(session, subscription)
        return self._slow_frame(False)

    def _slow_frame(self, conflated: bool, **more: Any) -> bytes:
        message = {"type": "slow", "conflated": conflated, "seq": self.state.sequence, **more}
        return text_frame(_ENCODER.encode(message))

    # ---------------------------------------------------------------- flushing

    def apply(self, slots: np.ndarray) -> None:
        """Takes whole commands; what they changed waits for the flush. Raises JournalCorrupt."""
        before = self.state.feed.changes.count
        changed = self.state.apply(slots)
        if not self._streams:
            return
        if self.state.feed.changes.count - before > len(changed):
            self._begin_anew()  # one command with more changes than the ring has rows
        else:
            self._changes.append(changed)

    def _begin_anew(self) -> None:
        """Lossless streams have missed changes: their readers get a snapshot again."""
        self._changes.clear()
        for profile in list(self._profiles.values()):
            for session in list(profile.sessions):
                for subscription in list(session.subscriptions.values()):
                    if subscription.wanted.mode == LOSSLESS:
                        self._detach(session, subscription)
                        self.join(session, subscription)

    def flush(self, now_ms: float) -> list[Delivery]:
        """What goes to whom now, whole frames. Pending subscriptions turn live."""
        self.now_ms = now_ms
        frames = self._build(now_ms)
        plan: list[Delivery] = []
        pending: dict[Session, tuple[bytes, bytes]] = {}
        # A crowd after a restart is served in portions, so that the others do not wait for all of it.
        starting = list(islice(self._pending, self.settings.snapshots_per_flush))
        for profile in self._profiles.values():
            data, lean = self._joined(profile, frames, now_ms)
            waiting = [session for session in starting if session.profile is profile]
            for session in waiting:
                pending[session] = (data, lean)
            if not data:
                continue
            profile.sent_ms = now_ms
            delivery = profile.addressed(data, lean)
            if waiting:
                delivery = Delivery([], array("i"), data, lean)
                for session in profile.sessions:
                    if session not in pending:
                        delivery.add(session)
            if delivery.sinks:
                plan.append(delivery)
        if pending:
            plan += self._start(pending)
        return plan

    def _build(self, now_ms: float) -> dict[Stream, bytes]:
        rows = np.concatenate(self._changes) if self._changes else np.empty(0, CHANGE)
        self._changes.clear()
        changed, frames = Changed(rows), {}
        for stream in self._streams.values():
            if not stream.started:
                continue
            stream.observe(changed)
            if stream.is_due(now_ms):
                built = stream.update(changed)
                if built:
                    stream.sent_ms = now_ms
                    self.message_count += len(built)
                    frames[stream] = b"".join(built)
        return frames

    def _joined(self, profile: Profile, frames: dict[Stream, bytes], now_ms: float) -> tuple[bytes, bytes]:
        """All the frames of a profile, and those that must not be left out."""
        if not profile.streams:
            return b"", b""
        told = [stream for stream in profile.streams if stream in frames]
        if not told:
            if now_ms - profile.sent_ms < self.settings.heartbeat_ms:
                return b"", b""
            heads = self._heads(profile, profile.streams)
            return heads, heads
        heads = self._heads(profile, told)
        data = b"".join([*(frames[stream] for stream in told), heads])
        if profile.is_lean:
            return data, data
        kept = [stream for stream in told if stream.key.mode != LATEST]
        return data, b"".join([*(frames[stream] for stream in kept), heads]) if kept else b""

    def _heads(self, profile: Profile, streams: Iterable[Stream]) -> bytes:
        self.message_count += 1
        return self.codecs[profile.encoding].heads(
            self.state.sequence,
            self.state.feed.ts,
            [
                (
                    stream.key.channel,
                    CHANNEL_NUMBERS[stream.key.kind],
                    stream.key.parameter if stream.key.kind == "candles" else 0,
                    stream.key.market,
                    stream.seq,
                )
                for stream in streams
                if stream.key.mode != LATEST
            ],
        )

    def _start(self, pending: dict[Session, tuple[bytes, bytes]]) -> list[Delivery]:
        """Snapshots for those who wait for one; sessions that wait for the same get the same bytes."""
        groups: dict[tuple[bytes, frozenset[Stream], frozenset[Stream]], tuple[Delivery, list[Session]]] = {}
        snapshots: dict[Stream, bytes] = {}
        plan: list[Delivery] = []
        for session, (data, lean) in pending.items():
            if session.held:
                plan.append(Delivery([session.sink], array("i", [session.slot]), data, lean))
                self._pending[session] = self._pending.pop(session)  # behind those who do read
                continue
            live, ready = session.live(), session.ready()
            group = groups.get((data, live, ready))
            if group is None:
                order = sorted(ready, key=lambda stream: (stream.key.channel, stream.key.parameter))
                first = b"".join(self._snapshot(stream, snapshots) for stream in order)
                group = groups[data, live, ready] = (Delivery([], array("i"), data + first, lean + first), [])
            group[0].add(session)
            group[1].append(session)
        for _, sessions in groups.values():
            for session in sessions:
                for subscription in session.subscriptions.values():
                    subscription.live = subscription.stream is not None
                self._move(session, session.live())
                del self._pending[session]
        plan += [delivery for delivery, _ in groups.values()]
        return [delivery for delivery in plan if delivery.data]

    def _snapshot(self, stream: Stream, built: dict[Stream, bytes]) -> bytes:
        frame = built.get(stream)
        if frame is None:
            if not stream.started:
                stream.begin()
                stream.sent_ms = self.now_ms
            frame = built[stream] = stream.snapshot()
            self.message_count += 1
        return frame
