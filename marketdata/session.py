"""One reader's protocol, without a socket: request bytes in, reply bytes out.

Theory of operation. Bytes of a text frame go to `receive`, which answers with the payloads to send back at once; what a
subscription brings later comes from the publisher at a flush. A subscription is *pending* until its snapshot has been
put into a flush and *live* from then on; while the reader is slow its book and price subscriptions are pending again.

Invariants: at most `subscription_limit` subscriptions; a bad request changes nothing and harms no other reader.
Never: touches a socket or a clock (the caller gives the time in seconds, any epoch).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from marketdata.settings import MarketDataSettings

if TYPE_CHECKING:
    from marketdata.publisher import Publisher, Stream

__all__ = ["ProtocolError", "Session", "frame_fault"]

TEXT, BINARY = 1, 2


class ProtocolError(Exception):
    """A refused request: `code` is a stable word, the text names field and rule."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Request(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, frozen=True):
    rid: int | str | None = None


class Subscribe(_Request, tag="subscribe", frozen=True):
    channel: str = ""
    depth: int | None = None


class Unsubscribe(_Request, tag="unsubscribe", frozen=True):
    channel: str = ""
    depth: int | None = None


class Ping(_Request, tag="ping", frozen=True):
    pass


_DECODER = msgspec.json.Decoder(Subscribe | Unsubscribe | Ping)
_ENCODER = msgspec.json.Encoder()


def frame_fault(opcode: int, fin: bool, reserved: bool) -> tuple[int, str] | None:
    """Close code and reason for a frame that this protocol does not take; None if it is a whole text frame."""
    if reserved:
        return 1002, "reserved bits set: no extension was agreed"
    if opcode == BINARY:
        return 1003, "binary frame: requests are JSON text"
    if opcode != TEXT or not fin:
        return 1003, "fragmented message: a request is one text frame"
    return None


class Session:
    """State of one reader."""

    def __init__(self, publisher: Publisher, settings: MarketDataSettings, sink: Any = None) -> None:
        self.sink = sink  # what the server writes to; unused here
        self.live: set[Stream] = set()
        self.pending: set[Stream] = set()
        self.slow = False
        self.closed = False
        self._publisher = publisher
        self._settings = settings
        self._tokens = float(settings.requests_per_second * 4)
        self._refilled_at = 0.0

    @property
    def subscription_count(self) -> int:
        return len(self.live) + len(self.pending)

    def receive(self, payload: bytes, now: float) -> list[bytes]:
        """Replies to one text frame. Never raises for anything a client can send."""
        rid = None
        try:
            self._spend(now)
            request = self._decode(payload)
            rid = request.rid
            reply = self._answer(request)
        except ProtocolError as error:
            reply = {"type": "error", "code": error.code, "message": str(error)}
        if rid is not None:
            reply["rid"] = rid
        return [_ENCODER.encode(reply)]

    def _spend(self, now: float) -> None:
        rate = self._settings.requests_per_second
        self._tokens = min(rate * 4.0, self._tokens + max(0.0, now - self._refilled_at) * rate)
        self._refilled_at = now
        if self._tokens < 1.0:
            raise ProtocolError("rate_limited", f"at most {rate} requests a second")
        self._tokens -= 1.0

    def _decode(self, payload: bytes) -> Any:
        if len(payload) > self._settings.message_size_bytes_max:
            raise ProtocolError("too_large", f"a request has at most {self._settings.message_size_bytes_max} bytes")
        try:
            return _DECODER.decode(payload)
        except msgspec.ValidationError as error:
            raise ProtocolError("bad_request", str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError("bad_json", str(error)) from error

    def _answer(self, request: Any) -> dict[str, Any]:
        if isinstance(request, Ping):
            return {"type": "pong", "seq": self._publisher.state.sequence}
        stream = self._publisher.stream(request.channel, request.depth)
        held = next((held for held in self.live | self.pending if held.channel == stream.channel), None)
        if isinstance(request, Unsubscribe):  # whatever its depth: a channel is subscribed at one depth only
            if held is None:
                raise ProtocolError("not_subscribed", f"channel: {stream.channel} is not subscribed")
            self._publisher.leave(self, held)
            return {"type": "unsubscribed", "channel": stream.channel}
        if held is not None:
            raise ProtocolError("already_subscribed", f"channel: {stream.channel} is subscribed, depth {held.depth}")
        if self.subscription_count >= self._settings.subscription_limit:
            raise ProtocolError("too_many_subscriptions", f"at most {self._settings.subscription_limit} a connection")
        self._publisher.join(self, stream)
        reply: dict[str, Any] = {"type": "subscribed", "channel": stream.channel}
        if stream.kind == "orderbook":
            reply["depth"] = stream.depth
        return reply
