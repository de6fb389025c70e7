"""Market data: events a second when catching up, and deliveries a second beside the bare send of a prebuilt frame.

Catching up: workload W1 through the core once, its events then through the feed alone (L3, L2) and through the whole
state (tape and ticker too); the books must equal the core's. Fan-out: N readers of one book and its trades in another
process, each flush one write per reader; every reader must have received exactly the bytes that were written to it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import uvloop
from picows import ws_create_server

from bench.harness import Row, WrongResult, seconds
from bench.records import OUT_SLOTS, commands, funded, setup
from bench.workload import generate
from engine.core import Core
from engine.messages import layout
from marketdata.feed import Feed
from marketdata.frames import text_frame
from marketdata.publisher import Publisher
from marketdata.server import _Server
from marketdata.session import Session
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState

LEFT_OUT = "reading the log from disk, TLS, network cards; readers share the machine and only count bytes"
MARKET = "BASE-QUOTE"
EVENTS_PER_FLUSH = 400  # 20,000 events a second at 20 ms
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class _NoSource:
    """The bench hands the events over itself."""

    head_sequence = 0

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        return np.empty(0, layout.EVENT)


def _events(smoke: bool, seed: int) -> tuple[list[np.ndarray], dict[tuple[int, int], int]]:
    """W1's events in arrays of whole commands, and the core's levels at the end: (side, price) to lots."""
    core, first = funded()
    records = commands(generate("W1", seed=seed, ops=None if smoke else 1_000_000, smoke=smoke), first).records
    out, at, batches = np.zeros(OUT_SLOTS, layout.EVENT), 0, []
    while at < len(records):
        at, used = core.apply_batch(records, out, at)
        batches.append(out[:used].copy())
    levels: Counter[tuple[int, int]] = Counter()
    for order in core.open_orders():
        levels[int(order["side"]), int(order["price"])] += int(order["leaves"])
    return batches, dict(levels)


def _catch_up(batches: list[np.ndarray], levels: dict[tuple[int, int], int]) -> list[Row]:
    count = sum(len(batch) for batch in batches)
    rows = []
    for case, whole in (("L3 and L2", False), ("with tape and ticker", True)):
        taken = []
        for _ in range(3):
            state = MarketState(MarketDataSettings())
            feed = state.feed if whole else Feed()

            def follow(apply: Callable[[np.ndarray], object] = state.apply if whole else feed.apply) -> None:
                for batch in batches:
                    apply(batch)

            taken.append(seconds(follow))
            found = {(side, price): size for side in (0, 1) for price, size in feed.depths[0].top(side)}
            if found != levels:
                raise WrongResult(f"{case}: the rebuilt book is not the core's")
        speed = count / sorted(taken)[1] / 1e6
        rows.append(Row(f"catching up, {case}", "events", speed, "M/s", must=1.0, ok=speed >= 1.0))
    return rows


def _readers(pipe: Connection, port: int, count: int) -> None:
    """Another process: connects, subscribes, counts what arrives until it is told to stop."""
    selector, received = selectors.DefaultSelector(), [0] * count
    sockets = []
    for number in range(count):
        raw = socket.create_connection(("127.0.0.1", port))
        raw.sendall(HANDSHAKE)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += raw.recv(4_096)
        for channel in (f"orderbook:{MARKET}", f"trades:{MARKET}"):
            request = b'{"type":"subscribe","channel":"%s"}' % channel.encode()
            raw.sendall(b"\x81" + bytes([0x80 | len(request)]) + bytes(4) + request)
        raw.setblocking(False)
        selector.register(raw, selectors.EVENT_READ, number)
        sockets.append(raw)
    pipe.send("connected")
    expected = None
    while expected is None or min(received) < expected:
        for key, _ in selector.select(0.01):
            received[key.data] += len(key.fileobj.recv(1 << 18))  # type: ignore[union-attr]
        if expected is None and pipe.poll():
            expected = pipe.recv()
    pipe.send(received)
    for raw in sockets:
        raw.close()


async def _fan_out(batches: list[np.ndarray], readers: int, flushes: int) -> list[Row]:
    settings = MarketDataSettings(port=0, connection_limit=readers, cut_bytes=1 << 26, slow_bytes=1 << 25)
    server = _Server(_NoSource(), settings, {})
    server.publisher.apply(_opening())
    listener = await ws_create_server(server.accept, "127.0.0.1", 0, read_buffer_init_size=2048)
    here, there = multiprocessing.get_context("spawn").Pipe()
    port = listener.sockets[0].getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_readers, args=(there, port, readers), daemon=True)
    process.start()
    try:
        while not here.poll() or any(len(reader.session.subscriptions) < 2 for reader in server.readers):
            await asyncio.sleep(0.01)
        here.recv()
        written: Counter[object] = Counter()
        for reader in server.readers:  # counts what the server writes, replies included
            written[reader] = len(_replies(server, settings))
        await _flush(server, written)
        events = np.concatenate(batches)[: flushes * EVENTS_PER_FLUSH]
        edges = np.flatnonzero(np.diff(events["sequence"])) + 1
        # The first n cuts between commands, and not the rest behind the last of them.
        parts = np.split(events, edges[np.linspace(0, len(edges) - 1, flushes + 1).astype(int)[1:]])[:-1]
        size, taken = 0, 0.0
        for part in parts:
            before = time.perf_counter()
            server.publisher.apply(part)
            size += await _flush(server, written)
            taken += time.perf_counter() - before
            await _drained(server)
        frame = text_frame(b"x" * max(1, size // (readers * len(parts)) - 4))
        bare = 0.0
        for _ in parts:
            before = time.perf_counter()
            for reader in server.readers:
                reader.write(frame)
                written[reader] += len(frame)
            bare += time.perf_counter() - before
            await _drained(server)
        [expected] = set(written.values())
        here.send(expected)
        while not here.poll():
            await asyncio.sleep(0.01)
        if set(here.recv()) != {expected}:
            raise WrongResult("a reader did not receive what was written to it")
    finally:
        process.join(5)
        listener.close()
    deliveries = readers * len(parts)
    ours, plain = deliveries / taken / 1e3, deliveries / bare / 1e3
    case = f"{readers} readers, {len(frame)} bytes a flush, against a prebuilt frame"
    return [Row(case, "deliveries", ours, "k/s", plain, ours / plain)]


def _replies(server: _Server, settings: MarketDataSettings) -> bytes:
    """What a reader is answered to its two requests."""
    session = Session(Publisher(server.state, settings), settings)
    channels = (b"%s:%s" % (kind, MARKET.encode()) for kind in (b"orderbook", b"trades"))
    requests = (b'{"type":"subscribe","channel":"%s"}' % channel for channel in channels)
    return b"".join(frame for request in requests for frame in session.receive(request, 0.0))


async def _flush(server: _Server, written: Counter[object]) -> int:
    """One flush as the server writes it; bytes written."""
    total = 0
    for delivery in server.publisher.flush(time.monotonic() * 1e3):
        for sink in delivery.sinks:
            sink.write(delivery.data)
            written[sink] += len(delivery.data)
            total += len(delivery.data)
    return total


async def _drained(server: _Server) -> None:
    while any(reader.buffered() for reader in server.readers):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.002)


def _opening() -> np.ndarray:
    """The `done` events of the bench's market, so that it has a name."""
    core, slots, at = Core(), setup(), 0
    events: list[np.ndarray] = []
    while at < len(slots):
        width = int(slots["slots"][at])
        slots["sequence"][at] = len(events) + 1
        events.append(np.array(core.apply(slots[at : at + width].tobytes())))
        at += width
    return np.concatenate(events)


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of catching up and of fan-out."""
    batches, levels = _events(smoke, seed)
    rows = _catch_up(batches, levels)
    for readers in (20,) if smoke else (100, 1_000):
        rows += uvloop.run(_fan_out(batches[: 4 if smoke else 16], readers, 20 if smoke else 200))
    return rows
