"""One trader of a recorded market: a websocket that sends prepared frames and times their answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import picows
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client import public_key, sign_in_signature
from engine.messages.errors import Refused, Unavailable

__all__ = ["FeedSession", "open_session"]


class _Answer(msgspec.Struct):
    """What the feed reads of a message."""

    rid: int = -1
    type: str = ""
    event: str = ""
    reason: str = ""
    code: str = ""
    sequence: int = 0
    taker_account: str = ""


_decode = msgspec.json.Decoder(_Answer).decode


class FeedSession(picows.WSListener):
    """Counts answers by what they say. Latencies are in ns from the *planned* time of sending."""

    def __init__(self, account: str, key: Ed25519PrivateKey) -> None:
        self.account = account
        self.latencies_ns: list[int] = []
        self.outcomes: dict[str, int] = {}
        self.acked = 0
        self.trades = 0
        self.last_sequence = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = ""
        self._key = key
        self._planned_ns: dict[int, int] = {}
        self._transport: picows.WSTransport | None = None

    @property
    def unanswered(self) -> int:
        return len(self._planned_ns)

    def send(self, rid: int, payload: bytes, planned_ns: int) -> None:
        """Sends one command, whose answer carries `rid`."""
        if self.lost or self._transport is None:
            raise Unavailable(f"{self.account} lost its session: {self.lost}")
        self._planned_ns[rid] = planned_ns
        self._transport.send(picows.WSMsgType.TEXT, payload)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.disconnect()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.lost = self.lost or "the connection ended"
        if not self.ready.done():
            self.ready.set_exception(Unavailable(self.lost))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            self.lost = f"{frame.get_close_code()} {frame.get_close_message()!r}"
            transport.disconnect()
            return
        if frame.msg_type != picows.WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
        if not self.ready.done():
            self._sign_in(transport, payload)
            return
        answer = _decode(payload)
        if answer.rid >= 0:
            self.latencies_ns.append(time.monotonic_ns() - self._planned_ns.pop(answer.rid))
            self.acked += bool(answer.sequence)
            self.last_sequence = max(self.last_sequence, answer.sequence)
            outcome = answer.reason or answer.code or answer.event
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        elif answer.event == "trade" and answer.taker_account == self.account:
            self.trades += 1

    def _sign_in(self, transport: picows.WSTransport, payload: bytes) -> None:
        message: dict[str, Any] = msgspec.json.decode(payload)
        if message["type"] == "signed_in":
            self.ready.set_result(None)
        elif message["type"] == "hello":
            signature = sign_in_signature(self._key, message["environment"], message["epoch"], message["nonce"])
            answer = {"op": "sign_in", "key": public_key(self._key), "nonce": message["nonce"], "signature": signature}
            transport.send(picows.WSMsgType.TEXT, msgspec.json.encode(answer))
        elif message["type"] == "error":
            self.ready.set_exception(Refused(f"{self.account}: {message['code']}: {message['message']}"))


async def open_session(url: str, account: str, key: Ed25519PrivateKey) -> FeedSession:
    """Connects and signs in.

    Raises:
        Refused, Unavailable.
    """
    session = FeedSession(account, key)
    try:
        await picows.ws_connect(lambda: session, url)
    except (OSError, picows.WSError) as error:
        raise Unavailable(f"{url}: {error}") from error
    await session.ready
    return session
