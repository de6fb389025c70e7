"""What a crowd at the door of order entry costs who is in: everybody back at once, and bad signatures without end.

    trader ── a command each 5 ms, planned ──▶ gateway, journal, engine (core 0)      durable acks
    crowd  ── handshakes and sign-ins ───────▶ the same door                          core 1, SCHED_IDLE

    quiet    nobody else
    storm    so many clients connect in one moment; who is turned away comes again until all are in
    flood    connections that send as many bad sign-ins as one may, of keys that there are and that there are not

A command's time counts from when it was planned, so a stall is charged to all that it held up. Each must be answered
with what it asked for, in all three, and in the end the journal, replayed, must give the server's state.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import picows
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.bench_latency import quantile
from bench.gateway_load import MARKET, Load, check_answers, frame, upgrade
from bench.gateway_server import Served, pin, serving
from bench.harness import Row, WrongResult
from byline.client import generate_key, load_key, public_key, sign_in_signature
from byline.processes.priority import stand_back

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = (
    "TLS, network cards; the crowd is one Python process on the core that the trader's client and the journal's writer "
    "have too, so it comes as fast as that core lets it, not in one second; market data, PostgreSQL and chain"
)
MIX = "place and cancel in turns, each order cancelled by the next command"
CLIENTS, QUIET_S, FLOOD_S, SMOKE_S, INTERVAL_S = 5_000, 10.0, 10.0, 0.5, 0.005
SESSIONS_OF_A_KEY = 125
AT_ONCE = 256
"""Connections of the flood at a time."""
SHARES = {"p50": 0.5, "p99": 0.99, "worst": 1.0}
PATIENCE_S = 600.0
BROKEN = (OSError, picows.WSError, asyncio.TimeoutError)


class Paced(Load):
    """A trader that sends each command when it is due, whatever is answered, until it is told to stop."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        super().__init__([], 0, key)
        self.taken_s: list[float] = []
        self._due: list[float] = []

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if not self.ready.done():
            super().on_ws_frame(transport, frame)
        elif (payload := frame.get_payload_as_bytes()).startswith(b'{"rid":'):
            self.taken_s.append(time.perf_counter() - self._due[len(self.acks)])
            self.acks.append(payload)

    async def until(self, over: asyncio.Future[Any]) -> np.ndarray:
        """Sends until `over` is done. Seconds that each command of that time took, all of them answered."""
        first, begin, loop = len(self.frames), time.perf_counter(), asyncio.get_running_loop()
        while not over.done():
            due = begin + (len(self.frames) - first) * INTERVAL_S
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            self._send_next(due)
        over.result()
        deadline = loop.time() + PATIENCE_S
        while len(self.acks) < len(self.frames):
            if loop.time() > deadline:
                raise WrongResult(f"{len(self.frames) - len(self.acks)} commands of who was in were never answered")
            await asyncio.sleep(0.001)
        return np.array(self.taken_s[first:])

    def _send_next(self, due: float) -> None:
        rid = len(self.frames)
        what = f'"op":"cancel","client_id":"s{rid - 1}"' if rid % 2 else (
            f'"op":"place","market":"{MARKET}","client_id":"s{rid}","side":"buy","type":"limit","size":"1","price":"1.00"'
        )  # fmt: skip
        self.frames.append(frame(f'{{"rid":{rid},{what}}}'.encode()))
        self._due.append(due)
        if self._transport is not None:
            self._transport.underlying_transport.write(self.frames[-1])

    def leave(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.disconnect()


class Comer(picows.WSListener):
    """One of the storm: signs in, and stays."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.key = key
        self.is_in: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.transport: picows.WSTransport | None = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type != picows.WSMsgType.TEXT or self.is_in.done():
            return
        message = json.loads(frame.get_payload_as_bytes())
        if message["type"] == "hello":
            signature = sign_in_signature(self.key, message["environment"], message["epoch"], message["nonce"])
            answer = {"op": "sign_in", "key": public_key(self.key), "signature": signature}
            transport.send(picows.WSMsgType.TEXT, json.dumps(answer).encode())
        else:
            self.is_in.set_result(message["type"] == "signed_in")

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        if not self.is_in.done():
            self.is_in.set_result(False)


def _given(comer: Comer, *_: object) -> Comer:
    return comer


async def _comes_back(url: str, key: Ed25519PrivateKey, draw: random.Random, counts: dict[str, int]) -> Comer:
    """Signs in, however often it takes, as clients do: after a while."""
    while True:
        counts["tries"] += 1
        comer = Comer(key)
        try:
            await picows.ws_connect(partial(_given, comer), url, websocket_handshake_timeout=PATIENCE_S)
            if await comer.is_in:
                return comer
        except BROKEN:
            counts["not taken"] += 1
        if comer.transport is not None:
            comer.transport.disconnect(False)
        await asyncio.sleep(draw.uniform(0.05, 0.5))


class Forger(asyncio.Protocol):
    """One connection of the flood: the handshake and as many bad sign-ins as one may send, in one write."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.heard = bytearray()
        self.over: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self._transport.write(self.data)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.heard.count(REFUSED) >= FAILURES:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set_result(bytes(self.heard))


FAILURES = 3
REFUSED = b'"type":"error"'


def _forged(keys: list[str]) -> list[bytes]:
    """What a forger sends: signatures as they should be, but for other words; every second key is nobody's."""
    own = generate_key()
    signature = sign_in_signature(own, "local", 1, secrets.token_hex(32))
    named = [key for known in keys for key in (known, public_key(generate_key()))]
    texts = [json.dumps({"op": "sign_in", "key": key, "signature": signature}).encode() for key in named]
    handshake = upgrade("Sec-WebSocket-Protocol: byline.json.v1")
    return [handshake + frame(text) * FAILURES for text in texts]


async def _forges(address: tuple[str, int], data: list[bytes], counts: dict[str, int]) -> None:
    at = 0
    while True:
        at += 1
        try:
            made = partial(Forger, data[at % len(data)])
            _, forger = await asyncio.get_running_loop().create_connection(made, *address)
            heard = await forger.over
        except BROKEN:
            counts["not taken"] += 1
            continue
        counts["connections"] += 1
        counts["refused sign-ins"] += heard.count(REFUSED)
        counts["signed in"] += heard.count(b'"type":"signed_in"')


async def _crowd(pipe: Connection, url: str, seeds: list[str], clients: int, flood_s: float, seed: int) -> None:
    keys = [load_key(text) for text in seeds]
    draw, counts = random.Random(seed), {"tries": 0, "not taken": 0}
    assert await asyncio.to_thread(pipe.recv) == "storm"
    began = time.perf_counter()
    comers = await asyncio.gather(
        *(_comes_back(url, keys[number // SESSIONS_OF_A_KEY], draw, counts) for number in range(clients))
    )
    pipe.send(counts | {"in": len(comers), "seconds": time.perf_counter() - began})
    assert await asyncio.to_thread(pipe.recv) == "leave"
    for comer in comers:
        if comer.transport is not None:
            comer.transport.disconnect(False)
    await asyncio.sleep(1.0)
    pipe.send(None)
    assert await asyncio.to_thread(pipe.recv) == "flood"
    host, _, port = url.removeprefix("ws://").partition(":")
    counts = {"connections": 0, "refused sign-ins": 0, "signed in": 0, "not taken": 0}
    data, began = _forged([public_key(key) for key in keys]), time.perf_counter()
    forging = [asyncio.create_task(_forges((host, int(port)), data, counts)) for _ in range(AT_ONCE)]
    while (lasted := time.perf_counter() - began) < flood_s or counts["connections"] < AT_ONCE:
        await asyncio.sleep(0.01)
    for task in forging:
        task.cancel()
    await asyncio.gather(*forging, return_exceptions=True)
    pipe.send(counts | {"seconds": lasted})


def _run_crowd(pipe: Connection, *given: Any) -> None:
    pin(1)
    stand_back()
    uvloop.run(_crowd(pipe, *given))


@contextmanager
def crowd(*given: Any) -> Iterator[Connection]:
    """A process that does what its pipe says: storm, leave, flood. Killed when the `with` ends."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_run_crowd, args=(theirs, *given))
    process.start()
    theirs.close()  # so that its death is an end of the pipe
    try:
        yield mine
    finally:
        process.kill()
        process.join()


def _rows(case: str, taken: np.ndarray, quiet: np.ndarray | None = None) -> list[Row]:
    rows = [Row(case, "commands answered", len(taken), "")]
    for name, share in SHARES.items():
        value = quantile(taken, share) * 1e3
        base = None if quiet is None else quantile(quiet, share) * 1e3
        rows.append(Row(case, f"answer, {name}", value, "ms", base, None if base is None else value / base))
    return rows


async def _measure(served: Served, clients: int, quiet_s: float, flood_s: float, seed: int) -> list[Row]:
    trader, *others = served.keys
    paced = Paced(trader)
    await picows.ws_connect(lambda _request, _response: paced, served.url)
    await paced.ready
    texts = [key.private_bytes_raw().hex() for key in others]
    with crowd(served.url, texts, clients, flood_s, seed) as pipe:
        loop = asyncio.get_running_loop()

        def after(word: str) -> asyncio.Future[Any]:
            pipe.send(word)
            return loop.run_in_executor(None, pipe.recv)

        quiet = await paced.until(asyncio.ensure_future(asyncio.sleep(quiet_s)))
        storm = after("storm")
        stormed = await paced.until(storm)
        told = storm.result()
        if told["in"] != clients:
            raise WrongResult(f"{told['in']} of {clients} came in")
        await paced.until(after("leave"))
        flood = after("flood")
        flooded = await paced.until(flood)
        forged = flood.result()
    if forged["signed in"] or not forged["refused sign-ins"]:
        raise WrongResult(f"bad signatures were answered so: {forged}")
    paced.leave()
    check_answers([paced])
    came = f"{clients:,} clients come in at once"
    unending = "bad signatures without end"
    return [
        *_rows("nobody at the door", quiet),
        *_rows(came, stormed, quiet),
        Row(came, "until all are in", told["seconds"], "s"),
        Row(came, "connections it took", told["tries"], ""),
        *_rows(unending, flooded, quiet),
        Row(unending, "sign-ins refused", forged["refused sign-ins"] / forged["seconds"], "a second"),
        Row(unending, "connections", forged["connections"] / forged["seconds"], "a second"),
    ]


def run(
    smoke: bool, seed: int, clients: Annotated[int | None, "How many come in at once. 5,000 without it."] = None
) -> list[Row]:
    """Raises WrongResult: a command of who was in was not answered as it should be, or not all came in."""
    count = clients or (200 if smoke else CLIENTS)
    keys = 1 + -(-count // SESSIONS_OF_A_KEY)
    wanted = {"sessions_max": count + 8, "ping_interval_s": 3_600.0}
    with (
        tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as folder,
        serving("durable", Path(folder).resolve() / "data", keys, **wanted) as served,
    ):
        pin(1)
        return uvloop.run(_measure(served, count, SMOKE_S if smoke else QUIET_S, SMOKE_S if smoke else FLOOD_S, seed))
