"""A load generator for order entry: picows connections that send pre-encoded frames, so many in flight each.

Frames are built before the clock starts, masked with a zero key, and written several at a time. Received frames are
kept as they are and judged after the clock has stopped. It is one Python process and takes about as much processor
as the gateway: figures are lower bounds of the gateway.
"""

from __future__ import annotations

import asyncio
import json
import time

import picows

from byline.client import public_key, sign_in_signature

__all__ = ["Load", "frame", "run_load"]


def frame(payload: bytes) -> bytes:
    """A whole masked text frame of at most 65,535 bytes; the mask is zero."""
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE, size >> 8, size & 0xFF])
    return head + b"\0\0\0\0" + payload


class Load(picows.WSListener):
    """One connection: keeps `in_flight` frames unanswered until all are answered."""

    def __init__(self, frames: list[bytes], in_flight: int, key: object | None) -> None:
        self.frames = frames
        self.in_flight = in_flight
        self.key = key
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.acks: list[bytes] = []
        self.others: list[bytes] = []
        self.sent = 0
        self._transport: picows.WSTransport | None = None
        self._answered = 0

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        if self.key is None:
            self.ready.set_result(None)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if not self.ready.done():
            self._sign_in(transport, payload)
            return
        if payload.startswith(b'{"rid":'):
            self.acks.append(payload)
            self._answered += 1
        else:
            self.others.append(payload)
        if frame.last_in_buffer and self._answered:
            self._send(self._answered)
            self._answered = 0
            if len(self.acks) == len(self.frames) and not self.done.done():
                self.done.set_result(None)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(ConnectionError(f"closed: {transport.close_handshake}"))

    def begin(self) -> None:
        """Send the first window."""
        self._send(self.in_flight)

    def _send(self, count: int) -> None:
        more = self.frames[self.sent : self.sent + count]
        if more and self._transport is not None:
            self.sent += len(more)
            self._transport.underlying_transport.write(more[0] if len(more) == 1 else b"".join(more))

    def _sign_in(self, transport: picows.WSTransport, payload: bytes) -> None:
        message = json.loads(payload)
        if message.get("type") == "hello":
            signature = sign_in_signature(self.key, message["environment"], message["epoch"], message["nonce"])
            answer = {"op": "sign_in", "key": public_key(self.key), "nonce": message["nonce"], "signature": signature}
            transport.send(picows.WSMsgType.TEXT, json.dumps(answer).encode())
        elif message.get("type") == "signed_in":
            self.ready.set_result(None)
        else:
            self.ready.set_exception(ConnectionError(payload.decode()))


async def run_load(
    url: str, plans: list[tuple[list[bytes], object | None]], in_flight: int
) -> tuple[float, list[Load]]:
    """One connection for each (frames, key). Returns the seconds from the first send to the last answer."""
    loads = []
    for frames, key in plans:
        load = Load(frames, in_flight, key)
        await picows.ws_connect(lambda _request, _response, load=load: load, url)
        await load.ready
        loads.append(load)
    start = time.perf_counter()
    for load in loads:
        load.begin()
    await asyncio.gather(*(load.done for load in loads))
    elapsed = time.perf_counter() - start
    for load in loads:
        if load._transport is not None:
            load._transport.disconnect()
    return elapsed, loads
