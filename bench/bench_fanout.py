"""Market data: catching up, and the fan-out beside a bare broadcast of the same bytes in the same writes.

catching up   W1 through the core once, its events then through the feed alone (L3, L2) and through the whole state
              (tape, ticker, candles); the books must equal the core's.
fan-out       Readers of one lossless book in a process of C (epoll, one recv a write), on the other core if there is
              one. Each flush reads the next commands from a real event log, keeps the books, builds seven updates and
              their heads and writes these eight frames to each reader. In turn with it a raw broadcast: the very bytes,
              one send of a prebuilt buffer to each socket from C. Medians of five rounds; CPU time of the serving
              thread, so deliveries are a second and core. Every reader's bytes are compared by CRC32C.
memory        what the serving process grew by, with all readers connected and subscribed, divided by their number.
after restart a new server on the same event log, running as it does in an exchange (a flush each 20 ms with new
              events), on which 5,000 readers connect at once, subscribe and get their snapshot. 100 others are there
              already: the longest time they waited between two writes is told, and before that without the crowd.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import mmap
import multiprocessing
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from picows import ws_create_server

from bench.driver import library
from bench.gateway_load import upgrade
from bench.harness import Row, WrongResult, median, seconds
from bench.records import OUT_SLOTS, commands, funded, setup
from bench.workload import generate
from engine.core import Core
from engine.messages import layout
from marketdata.changes import LEVEL_ROW
from marketdata.feed import Feed
from marketdata.server import _Server, serve, settle_garbage
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState
from persistence.event_log import EventLogReader, EventLogWriter

LEFT_OUT = (
    "TLS, network cards, sign-in (market data has none); readers share the machine and only check lengths and CRCs; "
    "the time between flushes"
)
MARKET = "BASE-QUOTE"
FRAMES_PER_WRITE = 8
ROUNDS = 5
OTHERS = 100
PATIENCE_S = 60.0
CROWD = 5_000
FAN_OUT_SLOTS = 100_000
"""So much of the workload makes the book that is sent, and what changes in it."""
MUST_OF_RAW = {1_000: 0.90, 5_000: 0.85}
MUST_PER_CORE = {1_000: 1_300.0, 5_000: 1_100.0}
MUST_BYTES, MUST_RECONNECT_S = 18_000.0, 2.5

CONTROL = np.dtype([(name, "<i8") for name in (
    "stop", "mark", "marked", "open", "ready", "started_ns", "ready_ns", "failed",
)])  # fmt: skip
READER = np.dtype(
    [
        ("bytes", "<i8"), ("frames", "<i8"), ("crc", "<u4"), ("state", "<i4"), ("ready_ns", "<i8"),
        ("gap_ns_max", "<i8"), ("last_ns", "<i8"), ("spare", "<i8", 2),
    ]
)  # fmt: skip
assert CONTROL.itemsize == READER.itemsize == 64


# ---------------------------------------------------------------- the events


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


def _portions(batches: list[np.ndarray], count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """What lies before the measured part, and `count` runs of commands of which seven change the book."""
    events = np.concatenate([_opening(), *batches])
    feed = Feed(8_000_000, 1 << 23)
    feed.apply(events)
    rows = feed.changes.take(0, feed.changes.count)
    changing = np.unique(rows["sequence"][rows["kind"] == LEVEL_ROW])
    cuts = changing[:: FRAMES_PER_WRITE - 1]
    if len(cuts) < count + 2:
        raise WrongResult(f"{len(cuts)} runs of {FRAMES_PER_WRITE - 1} changing commands: {count} are needed")
    ends = np.searchsorted(events["sequence"], cuts[-count - 1 :], side="left")
    return events[: ends[0]], [events[start:stop] for start, stop in zip(ends[:-1], ends[1:], strict=True)]


def _catch_up(batches: list[np.ndarray], levels: dict[tuple[int, int], int]) -> list[Row]:
    count = sum(len(batch) for batch in batches)
    rows = []
    for case, whole in (("L3 and L2", False), ("with tape, ticker and candles", True)):
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
        rows.append(Row(f"catching up, {case}", "events", speed, "M/s", must=1.0))
    return rows


# ---------------------------------------------------------------- the readers


def subscription(channel: str, **options: Any) -> bytes:
    """A masked frame that asks for a channel without conflation."""
    request = json.dumps({"type": "subscribe", "channel": channel, "mode": "lossless"} | options).encode()
    assert len(request) < 126
    return b"\x81" + bytes([0x80 | len(request)]) + bytes(4) + request


WHOLE_BOOK = subscription(f"book:{MARKET}", depth=0)


def _read(path: str, count: int, port: int, request: bytes) -> None:
    """The readers' process."""
    _pin(1)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
        run = library("fan_readers").fan_read
        run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64]
        run.argtypes += [ctypes.c_char_p] + [ctypes.c_int64] * 3
        run.argtypes[2] = ctypes.c_int
        handshake = upgrade()
        run(address, count, port, handshake, len(handshake), request, len(request), 2, 1_024)
        os._exit(0)  # the map is still exported to ctypes


def _pin(core: int) -> None:
    if (os.cpu_count() or 1) > 1 and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


class Readers:
    """The process of `count` readers, and what it says of itself. Each sends `request` (none: for the book)."""

    def __init__(self, count: int, port: int, request: bytes | None = None) -> None:
        directory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self._file = tempfile.NamedTemporaryFile(dir=directory)  # noqa: SIM115 - closed in `stop`
        self._file.truncate(CONTROL.itemsize + count * READER.itemsize)
        self._map = mmap.mmap(self._file.fileno(), 0)
        self.control = np.frombuffer(self._map, CONTROL, 1)[0:1]
        self.each = np.frombuffer(self._map, READER, count, CONTROL.itemsize)
        self.count = count
        spawn = multiprocessing.get_context("spawn")
        arguments = self._file.name, count, port, request or WHOLE_BOOK
        self._process = spawn.Process(target=_read, args=arguments, daemon=True)
        self._process.start()

    async def until(self, what: str, holds: Callable[[], Any]) -> None:
        """Waits until `holds()`. Raises WrongResult when a reader failed, or nothing came for so long."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if self.control["failed"][0] or not self._process.is_alive():
                raise WrongResult(f"while waiting for {what}: a reader ended, errno {self.control['failed'][0]}")
            if time.monotonic() > deadline:
                raise WrongResult(f"waited {PATIENCE_S:.0f} s for {what}: {self.control[0]}")
            await asyncio.sleep(0.001)

    async def ready(self, flush: Callable[[], Any] | None = None) -> None:
        """All have their snapshot; `flush` is done meanwhile where nobody else does it."""

        async def flushing() -> None:
            while flush is not None:
                await flush()
                await asyncio.sleep(0.005)

        task = asyncio.create_task(flushing())
        try:
            await self.until("snapshots", lambda: self.control["ready"][0] == self.count)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def mark(self) -> None:
        """Everything counts anew from here; nothing may be on its way."""
        before = -1
        while before != (before := int(self.each["bytes"].sum())):
            await asyncio.sleep(0.05)
        self.control["mark"] += 1
        await self.until("the mark", lambda: self.control["marked"][0] == self.control["mark"][0])

    def check(self, data: bytes) -> None:
        """Each has had exactly these bytes since the mark. Raises WrongResult."""
        crc = library("fan_readers").fan_crc
        crc.argtypes, crc.restype = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_int64], ctypes.c_uint32
        expected = crc(0, data, len(data))
        wrong = (self.each["bytes"] != len(data)) | (self.each["crc"] != expected)
        if wrong.any():
            raise WrongResult(f"{int(wrong.sum())} of {self.count} readers did not get what was written to them")

    def stop(self) -> None:
        self.control["stop"] = 1
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
        self._file.close()


# ---------------------------------------------------------------- the server's side


class _Log:
    """A real event log, to which the bench appends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.writer = EventLogWriter(directory, bytes(16), bytes(range(16)), threads=False)

    def append(self, events: np.ndarray) -> None:
        error = self.writer.append_batch(events.view(np.uint8), self.writer.sequence + 1, int(events["sequence"][-1]))
        if error:
            raise OSError(error, "event log of the bench")


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _serve_case(pipe: Connection, directory: str, readers: int, flushes: int, batches: list[np.ndarray]) -> None:
    """The serving process of one number of readers: sends its figures."""
    _pin(0)
    _raise_file_limit()
    pipe.send(uvloop.run(_measure(Path(directory), readers, flushes, batches)))


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * CROWD + 1_000)), hard))


def _settings(readers: int) -> MarketDataSettings:
    # Heartbeats would come in between the bytes that are compared.
    return MarketDataSettings(port=0, connection_limit=readers + OTHERS + 10, heartbeat_ms=86_400_000)


async def _measure(
    directory: Path, readers: int, flushes: int, batches: list[np.ndarray]
) -> tuple[list[float], list[float], float, int, int]:
    """CPU seconds of each round so and raw, bytes a reader, bytes a write, frames a write."""
    before, portions = _portions(batches, ROUNDS * flushes)
    log = _Log(directory)
    log.append(before)
    server = _Server(EventLogReader(directory), _settings(readers), {})
    server.source.seek(0)
    while server.pump():
        pass
    listener = await ws_create_server(server.accept, "127.0.0.1", 0, read_buffer_init_size=2048, backlog=4_096)
    memory = _resident()
    clients = Readers(readers, listener.sockets[0].getsockname()[1])
    try:
        await clients.ready(server.flush)
        memory = _resident() - memory
        await clients.mark()
        sockets = (ctypes.c_int * readers)(
            *(r.transport.underlying_transport.get_extra_info("socket").fileno() for r in server.readers)  # type: ignore[union-attr]
        )
        broadcast = library("fan_readers").fan_broadcast
        broadcast.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64]
        ours, raw, sent = [0.0] * ROUNDS, [0.0] * ROUNDS, bytearray()

        async def flush(number: int) -> None:
            log.append(portions[number])
            begun = time.thread_time()
            await server.pump_live()
            await server.flush()
            ours[number // flushes] += time.thread_time() - begun
            sent.extend(server.last_written)
            await clients.until("delivery", lambda: clients.each["bytes"].min() >= len(sent))

        async def bare(number: int) -> None:
            data = server.last_written
            begun = time.thread_time()
            behind = broadcast(sockets, readers, data, len(data))
            raw[number // flushes] += time.thread_time() - begun
            if behind:
                raise WrongResult(f"raw broadcast: {behind} sockets did not take it")
            sent.extend(data)
            await clients.until("delivery", lambda: clients.each["bytes"].min() >= len(sent))

        for number in range(0, len(portions), 2):  # so, bare, bare, so: neither always comes after the other
            await flush(number)
            await bare(number)
            await bare(number + 1)
            await flush(number + 1)
        clients.check(bytes(sent))
        frames = set(clients.each["frames"].tolist())
        if frames != {2 * ROUNDS * flushes * FRAMES_PER_WRITE}:
            raise WrongResult(f"{frames} frames a reader, not {2 * ROUNDS * flushes * FRAMES_PER_WRITE}")
        return ours, raw, memory / readers, len(sent) // (2 * ROUNDS * flushes), FRAMES_PER_WRITE
    finally:
        clients.stop()
        listener.close()


def _fan_out(batches: list[np.ndarray], readers: int, flushes: int) -> list[Row]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        process = spawn.Process(target=_serve_case, args=(there, directory, readers, flushes, batches))
        process.start()
        there.close()
        try:
            ours, raw, memory, size, frames = here.recv()
        except EOFError:
            raise WrongResult(f"{readers} readers: the serving process ended, see above") from None
        finally:
            process.join(20)
    deliveries = readers * flushes * frames / 1e3
    fast, plain = median([deliveries / taken for taken in ours]), median([deliveries / taken for taken in raw])
    share = median([bare / taken for bare, taken in zip(raw, ours, strict=True)])
    case = f"{readers} readers, {frames} frames and {size} bytes a write"
    return [
        Row(case, "deliveries a core", fast, "k/s", plain, fast / plain, MUST_PER_CORE.get(readers)),
        Row(case, "share of a raw broadcast", share, "x", must=MUST_OF_RAW.get(readers)),
        Row(case, "memory a connection", memory, "bytes", must=MUST_BYTES),
    ]


# ---------------------------------------------------------------- after a restart


def _serve_restart(pipe: Connection, directory: str, crowd: int, others: int, batches: list[np.ndarray]) -> None:
    _pin(0)
    _raise_file_limit()
    pipe.send(uvloop.run(_restart(Path(directory), crowd, others, batches)))


@asynccontextmanager
async def _running(directory: Path, log: _Log, crowd: int, portions: list[np.ndarray]) -> Any:
    """A server as in an exchange: its own loop, and a few commands every 20 ms. Gives its port."""
    stop, ready = asyncio.Event(), asyncio.Event()
    status: dict[str, Any] = {}
    settings = MarketDataSettings(port=0, connection_limit=crowd + OTHERS + 10)
    serving = asyncio.create_task(serve(EventLogReader(directory), settings, stop=stop, status=status, ready=ready))

    async def flow() -> None:
        while portions and not stop.is_set():
            log.append(portions.pop(0))
            await asyncio.sleep(0.02)

    await ready.wait()
    settle_garbage()
    feeding = asyncio.create_task(flow())
    try:
        yield status["port"]
    finally:
        stop.set()
        await feeding
        await serving


async def _restart(
    directory: Path, crowd: int, others: int, batches: list[np.ndarray]
) -> tuple[float, float, float, float]:
    """Seconds until the last of the crowd had its snapshot, and of CPU meanwhile; the others' longest wait without and
    with the crowd, ms."""
    before, portions = _portions(batches, 1_000 if crowd > 500 else 200)
    log = _Log(directory)
    log.append(before)
    async with _running(directory, log, crowd, portions) as port:  # the one before the restart
        early = Readers(others, port)
        await early.ready()
        early.stop()
    async with _running(directory, log, crowd, portions) as port:
        early = Readers(others, port)
        late: Readers | None = None
        try:
            await early.ready()
            early.control["mark"] += 1
            await asyncio.sleep(1.0)
            alone = int(early.each["gap_ns_max"].max()) / 1e6
            early.control["mark"] += 1
            used = time.process_time()
            late = Readers(crowd, port)
            await late.ready()
            used = time.process_time() - used
            taken = (int(late.control["ready_ns"][0]) - int(late.control["started_ns"][0])) / 1e9
            crowded = int(early.each["gap_ns_max"].max()) / 1e6
            if early.control["failed"][0]:
                raise WrongResult("one of the others lost its connection")
            return taken, used, alone, crowded
        finally:
            early.stop()
            if late is not None:
                late.stop()


def _reconnects(batches: list[np.ndarray], crowd: int, others: int, rounds: int) -> list[Row]:
    spawn = multiprocessing.get_context("spawn")
    told = []
    for _ in range(rounds):
        here, there = spawn.Pipe()
        with tempfile.TemporaryDirectory() as directory:
            process = spawn.Process(target=_serve_restart, args=(there, directory, crowd, others, batches))
            process.start()
            there.close()
            try:
                told.append(here.recv())
            except EOFError:
                raise WrongResult("after a restart: the serving process ended, see above") from None
            finally:
                process.join(20)
    taken, used, alone, crowded = (median([row[at] for row in told]) for at in range(4))
    case = f"{crowd} readers connect after a restart"
    return [
        Row(case, "until the last snapshot", taken, "s", must=MUST_RECONNECT_S),
        Row(case, "CPU of the server meanwhile", used, "s"),
        Row(case, f"longest wait of {others} others", crowded, "ms", alone, crowded / max(alone, 1e-9)),
    ]


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of catching up, fan-out and reconnecting."""
    batches, levels = _events(smoke, seed)
    rows = _catch_up(batches, levels)
    first = next((n for n in range(1, len(batches)) if sum(map(len, batches[:n])) > FAN_OUT_SLOTS), len(batches))
    batches = batches[:first]
    _raise_file_limit()
    for readers, flushes in ((20, 6),) if smoke else ((1_000, 40), (5_000, 10)):
        rows += _fan_out(batches, readers, flushes)
    return rows + _reconnects(batches, 50 if smoke else CROWD, 10 if smoke else OTHERS, 1 if smoke else 3)
