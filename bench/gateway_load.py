"""A load generator for order entry: picows connections that send pre-encoded frames, so many in flight each.

Also what it sends, the accounts it sends as, and how its answers are judged.

Frames are built before the clock starts, masked with a zero key, and written several at a time. Received frames are
kept as they are and judged after the clock has stopped. It is one Python process and takes about as much processor
as the gateway: figures are lower bounds of the gateway.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import picows
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.harness import WrongResult
from byline.client import TradingClient, generate_key, load_key, public_key, sign_in_signature

__all__ = [
    "MARKET", "Load", "check_answers", "commands", "frame", "prepare", "replayed_hash", "run_load", "upgrade",
]  # fmt: skip

MARKET = "CRT-USD"


def upgrade(*headers: str) -> bytes:
    """The request that makes a connection a websocket, for clients that write their own bytes; `name: value` each."""
    own = ("Host: bench", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    return "\r\n".join(("GET / HTTP/1.1", *own, *headers, "", "")).encode()


def frame(payload: bytes) -> bytes:
    """A whole masked text frame of at most 65,535 bytes; the mask is zero."""
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE, size >> 8, size & 0xFF])
    return head + b"\0\0\0\0" + payload


class Load(picows.WSListener):
    """One connection: keeps `in_flight` frames unanswered until all are answered."""

    def __init__(self, frames: list[bytes], in_flight: int, key: Ed25519PrivateKey | None) -> None:
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
        if message.get("type") == "hello" and self.key is not None:
            signature = sign_in_signature(self.key, message["environment"], message["epoch"], message["nonce"])
            # What is open at the end stays open: the journal is to hold the load and nothing else.
            answer = {
                "op": "sign_in", "key": public_key(self.key), "nonce": message["nonce"], "signature": signature,
                "cancel_on_disconnect": False,
            }  # fmt: skip
            transport.send(picows.WSMsgType.TEXT, json.dumps(answer).encode())
        elif message.get("type") == "signed_in":
            self.ready.set_result(None)
        else:
            self.ready.set_exception(ConnectionError(payload.decode()))


def commands(count: int, number: int, rng: random.Random) -> list[bytes]:
    """The frames of one connection. `number` is part of the client ids."""
    frames = []
    for rid in range(count):
        if rid % 3 == 2:
            text = f'{{"rid":{rid},"op":"cancel","client_id":"c{number}-{rng.randrange(max(0, rid - 30), rid)}"}}'
        else:
            side, price = ("buy", rng.randrange(95, 102)) if rng.random() < 0.5 else ("sell", rng.randrange(99, 106))
            text = (
                f'{{"rid":{rid},"op":"place","market":"{MARKET}","client_id":"c{number}-{rid}","side":"{side}",'
                f'"type":"limit","size":"{rng.randrange(1, 9)}","price":"{price / 100:.2f}"}}'
            )
        frames.append(frame(text.encode()))
    return frames


async def prepare(url: str, root: Path, connections: int) -> list[Ed25519PrivateKey]:
    """Lists the market and opens accounts t0, t1 … with money, as the operator. Returns their keys."""
    keys = []
    operator = load_key((root / "keys/operator.key").read_text())
    async with await TradingClient.connect(url, operator) as client:
        await client.command("asset", asset="USD", scale=6)
        await client.command("asset", asset="CRT", scale=2)
        await client.command("market", market=MARKET, base="CRT", quote="USD", tick="0.01", lot="1")
        for number in range(connections):
            await client.command("account", account=f"t{number}")
            for asset in ("USD", "CRT"):
                await client.command(
                    "deposit", account=f"t{number}", asset=asset, amount="100000000", ref=f"{asset}{number}"
                )
            keys.append(generate_key())
            await client.register_key(public_key(keys[-1]), [f"t{number}"], ["trade"], tier="unlimited")
    return keys


async def run_load(
    url: str, plans: list[tuple[list[bytes], Ed25519PrivateKey | None]], in_flight: int
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


def check_answers(loads: list[Load]) -> list[int]:
    """The sequences of all answers.

    Raises:
        WrongResult: an answer is missing or out of order, has a result that cannot be, or its sequence does not rise.
    """
    sequences: list[int] = []
    for load in loads:
        last = 0
        for rid, text in enumerate(load.acks):
            ack = json.loads(text)
            if ack["rid"] != rid:
                raise WrongResult(f"answer {rid} is for request {ack['rid']}")
            gone = ack.get("event") == "rejected" and ack["reason"] == "unknown_order"
            if ack.get("event") not in ("accepted", "canceled") and not gone:
                raise WrongResult(f"unexpected answer {text!r}")
            if ack["sequence"] <= last:
                raise WrongResult(f"sequence {ack['sequence']} after {last} on one connection")
            last = ack["sequence"]
            sequences.append(last)
        if len(load.acks) != len(load.frames):
            raise WrongResult(f"{len(load.acks)} answers to {len(load.frames)} commands")
    if len(set(sequences)) != len(sequences):
        raise WrongResult("two answers carry one sequence")
    return sequences


def replayed_hash(root: Path) -> tuple[int, str]:
    """Sequence and state hash of a fresh core after the whole journal."""
    from persistence.disk import DirectoryDisk
    from persistence.recovery import replay

    core, _ = replay(DirectoryDisk(root))
    return core.sequence, core.state_hash().hex()
