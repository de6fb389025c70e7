"""One reader's protocol, without a socket: request bytes in, whole frames out.

Theory of operation. Bytes of a message go to `receive`, which gives the frames to send back at once; what a
subscription brings later comes from the publisher at a flush. A subscription is pending until its snapshot has been
put into a flush and *live* from then on. While the reader is slow each one follows another stream than it asked for.

Invariants: at most `subscription_limit` subscriptions, one a channel; a bad request changes nothing and harms no other
reader. Never: touches a socket or a clock (the caller gives the time in seconds, any epoch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from marketdata.channels import ProtocolError, StreamKey, parse_channel, stream_key
from marketdata.frames import text_frame
from marketdata.replay import candle_page, replay
from marketdata.settings import MarketDataSettings

if TYPE_CHECKING:
    from marketdata.publisher import Publisher
    from marketdata.streams import Stream

__all__ = ["Answer", "Fragments", "Session", "Subscription", "close_echo"]

CONTINUATION, TEXT, BINARY = 0, 1, 2
_PARTS_MAX = 256


class _Request(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, frozen=True):
    rid: int | str | None = None


class Subscribe(_Request, tag="subscribe", frozen=True):
    channel: str = ""
    depth: int | None = None
    mode: str | None = None
    interval_ms: int | None = None


class Unsubscribe(_Request, tag="unsubscribe", frozen=True):
    channel: str = ""
    depth: int | None = None


Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Replay(_Request, tag="replay", frozen=True, kw_only=True, rename={"after": "from"}):
    after: Number
    channel: str = ""
    to: Number | None = None


class History(_Request, tag="history", frozen=True):
    channel: str = ""
    before: Number | None = None
    limit: Number | None = None


class Ping(_Request, tag="ping", frozen=True):
    pass


_DECODER = msgspec.json.Decoder(Subscribe | Unsubscribe | Replay | History | Ping)
_ENCODER = msgspec.json.Encoder()


class _HasRid(msgspec.Struct, frozen=True):
    rid: int | str | None = None


_RIDS = msgspec.json.Decoder(_HasRid)


Answer = Callable[[], list[bytes]]


def _refusal(error: ProtocolError) -> dict[str, Any]:
    return {"type": "error", "code": error.code, "message": str(error), **error.more}


def _reply(reply: dict[str, Any], rid: int | str | None) -> bytes:
    return text_frame(_ENCODER.encode(reply if rid is None else reply | {"rid": rid}))


def close_echo(payload: bytes) -> int:
    """The answer to a close frame: its own code, 1000 if it has none, 1002 if nobody may send that one."""
    if not payload:
        return 1000
    code = int.from_bytes(payload[:2], "big")
    allowed = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    return code if len(payload) >= 2 and allowed else 1002


class Fragments:
    """Puts a message together, however many frames it came in."""

    __slots__ = ("_parts", "_size_max")

    def __init__(self, size_bytes_max: int) -> None:
        self._size_max = size_bytes_max
        self._parts: list[bytes] = []

    def take(self, opcode: int, fin: bool, reserved: bool, payload: bytes) -> bytes | tuple[int, str] | None:
        """The message that this data frame ends; None: it goes on. Close code and reason for one that breaks a rule."""
        if reserved:
            return 1002, "reserved bits set: no extension was agreed"
        if opcode == BINARY:
            return 1003, "binary frame: requests are JSON text"
        if opcode not in (TEXT, CONTINUATION):
            return 1002, "unknown opcode"
        if (opcode == CONTINUATION) != bool(self._parts):
            return 1002, "a new message inside a fragmented one" if self._parts else "a continuation of nothing"
        if not fin or self._parts:
            self._parts.append(payload)
            if len(self._parts) > _PARTS_MAX or sum(map(len, self._parts)) > self._size_max:
                return 1009, "the message is too big"
            if not fin:
                return None
            payload = b"".join(self._parts)
            self._parts.clear()
        try:
            payload.decode()
        except UnicodeDecodeError:
            return 1007, "invalid UTF-8"
        return payload


class Subscription:
    """`wanted` is what was asked for, `stream` what is followed now (None: paused), `live` after its snapshot."""

    __slots__ = ("live", "stream", "wanted")

    def __init__(self, wanted: StreamKey) -> None:
        self.wanted = wanted
        self.stream: Stream | None = None
        self.live = False


class Session:
    """State of one reader."""

    __slots__ = (
        "_publisher", "_refilled_at", "_settings", "_tokens", "closed", "encoding", "held", "profile", "sink", "slot",
        "slow", "slow_since_ms", "subscriptions",
    )  # fmt: skip

    def __init__(
        self, publisher: Publisher, settings: MarketDataSettings, sink: Any = None, encoding: str = "json"
    ) -> None:
        self.sink = self if sink is None else sink  # what the server writes to; unused here
        self.slot = -1  # of the server's fan
        self.encoding = encoding
        self.subscriptions: dict[str, Subscription] = {}
        self.profile: Any = None
        self.slow = False
        self.slow_since_ms = 0.0
        self.held = False  # slow, and has not drained: no snapshots now
        self.closed = False
        self._publisher = publisher
        self._settings = settings
        self._tokens = float(settings.requests_per_second * 4)
        self._refilled_at = 0.0

    def live(self) -> frozenset[Stream]:
        """The streams that it has had the snapshot of."""
        return frozenset(
            subscription.stream
            for subscription in self.subscriptions.values()
            if subscription.live and subscription.stream is not None
        )

    def ready(self) -> frozenset[Stream]:
        """The streams whose snapshot it waits for."""
        return frozenset(
            subscription.stream
            for subscription in self.subscriptions.values()
            if not subscription.live and subscription.stream is not None
        )

    def receive(self, payload: bytes, now: float, later: Callable[[Answer], None] | None = None) -> list[bytes]:
        """The frames that answer one message. Never raises for anything a client can send.

        `later`: takes what is long to answer (a replay, a page of history) as a function that gives its frames, once;
        it may refuse with ProtocolError. Without it everything is answered at once.
        """
        rid: int | str | None = None
        try:
            self._spend(now, 1)
            request = self._decode(payload)
            rid = request.rid
            if isinstance(request, (Replay, History)):
                self._spend(now, self._settings.replay_cost - 1)
                if later is not None:
                    later(lambda: self._finish(request))
                    return []
            return self._finish(request)
        except ProtocolError as error:
            return [_reply(_refusal(error), self._rid_of(payload) if rid is None else rid)]

    def _rid_of(self, payload: bytes) -> int | str | None:
        """The request id of what was refused before it was understood; None if it cannot be told."""
        if len(payload) > self._settings.message_size_bytes_max:
            return None
        try:
            return _RIDS.decode(payload).rid
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _finish(self, request: Any) -> list[bytes]:
        more: list[bytes] = []
        try:
            reply, more = self._answer(request)
        except ProtocolError as error:
            reply = _refusal(error)
        return [_reply(reply, request.rid), *more]

    def _spend(self, now: float, cost: int) -> None:
        rate = self._settings.requests_per_second
        self._tokens = min(rate * 4.0, self._tokens + max(0.0, now - self._refilled_at) * rate)
        self._refilled_at = now
        if self._tokens < cost:
            raise ProtocolError("rate_limited", f"at most {rate} requests a second; this one counts for {cost}")
        self._tokens -= cost

    def _decode(self, payload: bytes) -> Any:
        if len(payload) > self._settings.message_size_bytes_max:
            raise ProtocolError("too_large", f"a request has at most {self._settings.message_size_bytes_max} bytes")
        try:
            return _DECODER.decode(payload)
        except msgspec.ValidationError as error:
            raise ProtocolError("bad_request", str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # half a surrogate pair is no text either
            raise ProtocolError("bad_json", str(error)) from error

    def _answer(self, request: Any) -> tuple[dict[str, Any], list[bytes]]:
        if isinstance(request, Ping):
            return {"type": "pong", "seq": self._publisher.state.sequence}, []
        kind, number, name = parse_channel(request.channel)
        index = self._market(name)
        if isinstance(request, Replay):
            codec = self._publisher.codecs[self.encoding]
            return replay(
                self._publisher.state, codec, self._settings, request.channel, kind, index, request.after, request.to
            )
        if isinstance(request, History):
            if kind != "candles":
                raise ProtocolError("bad_request", "channel: history is kept of candles")
            return candle_page(
                self._publisher.state, self._settings, request.channel, index, number, request.before, request.limit
            ), []
        held = self.subscriptions.get(request.channel)
        if isinstance(request, Unsubscribe):  # whatever its depth: a channel is subscribed at one depth only
            if held is None:
                raise ProtocolError("not_subscribed", f"channel: {request.channel} is not subscribed")
            self._publisher.leave(self, held)
            return {"type": "unsubscribed", "channel": request.channel}, []
        return self._subscribe(request, kind, index, number), []

    def _market(self, name: str) -> int:
        if not name:
            return -1
        market = self._publisher.state.directory.market(name)
        if market is None:
            raise ProtocolError("unknown_market", f"channel: no market is named {name[:64]!r}")
        return market.index

    def _subscribe(self, request: Subscribe, kind: str, index: int, number: int) -> dict[str, Any]:
        key = stream_key(
            request.channel, kind, index, number, depth=request.depth, depth_default=self._settings.depth_default,
            mode=request.mode, interval_ms=request.interval_ms, encoding=self.encoding,
        )  # fmt: skip
        held = self.subscriptions.get(request.channel)
        if held is not None:
            raise ProtocolError(
                "already_subscribed", f"channel: {request.channel} is subscribed, depth {held.wanted.parameter}"
            )
        if len(self.subscriptions) >= self._settings.subscription_limit:
            raise ProtocolError("too_many_subscriptions", f"at most {self._settings.subscription_limit} a connection")
        self._publisher.join(self, Subscription(key))
        reply: dict[str, Any] = {"type": "subscribed", "channel": key.channel}
        if kind == "book":
            reply["depth"] = key.parameter
        reply["mode"] = key.mode
        if key.interval_ms:
            reply["interval_ms"] = key.interval_ms
        if index >= 0:
            market = self._publisher.state.directory.markets[index]
            reply |= {
                "index": index, "tick": market.price_text(1), "lot": market.size_text(1),
                "quote_scale": market.quote.scale,
            }  # fmt: skip
        return reply
