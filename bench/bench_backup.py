"""The backup: what a machine that is lost under load takes with it, and how long it takes to be back.

    traders ─▶ core process ─▶ journal ◀─ backup process ─▶ store          both killed in the middle of the load
                                            store ─▶ restore ─▶ replay ─▶ the journal that was lost, but for its end

The recovery point is measured twice: as the backup tells it of each part (the age of its oldest record when the store
had it), and after kill -9 of both as the time between the last record of the journal and the last one restored. What is
restored must be a prefix of the journal, byte for byte; a whole restore must replay to the same state.

Then over a link that is no faster than its name says, for as long as several segments take to fill: parts and full
segments share its bandwidth. A record's age counts from when it was to be written. All of it is restored, and must be
the journal's files byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import random
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import uvloop

from bench.bench_latency import quantile
from bench.bench_recovery import records, write_journal
from bench.exchange_process import ExchangeProcess
from bench.gateway_load import commands, prepare, run_load
from bench.harness import Row, WrongResult, median, seconds
from byline.operator import gateway_url
from byline.settings import load_settings
from persistence import segments
from persistence.backup import Objects, PartHeader, Shipper
from persistence.disk import DirectoryDisk, SystemClock
from persistence.journal import Journal, JournalSettings, new_tail
from persistence.recovery import recover, replay
from persistence.restore import Restored, restore

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = (
    "the network and the store: it is a directory of the same disk (file://), written by the library that speaks to "
    "S3, GCS and Azure; a put there costs its round trip more. The limited link: a wait before each request and the "
    "bytes of all requests in turns at its rate, in front of the same store; no TCP that must first find that rate, no "
    "losses, no TLS. Keys and people's data, which are not in a backup"
)
CONNECTIONS, IN_FLIGHT, COMMANDS = 4, 16, 60_000
OPS = 2_000_000
POINT_MUST_S = 1.0
LINK_MBIT, ROUND_TRIP_S, ORDERS_PER_S = 100, 0.04, 20_000
TICK_S = 0.01
"""How often records are written over the limited link."""
SLICE_BYTES = 1 << 16
LINK_S, LINK_SMOKE_S, SEALS_MUST = 110, 2, 3
RING_SLOTS = 1 << 17


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of the recovery point under load and over a limited link, of shipping a journal, and of its way back."""
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
        lost = uvloop.run(_lose_a_machine(Path(name).resolve(), 1_000 if smoke else COMMANDS, seed))
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
        back = _come_back(Path(name).resolve(), 20_000 if smoke else OPS, seed, smoke)
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
        linked = _over_a_link(Path(name).resolve(), seed, smoke)
    return [*lost, *linked, *back]


async def _lose_a_machine(folder: Path, count: int, seed: int) -> list[Row]:
    """Raises WrongResult: what came back is no prefix of what there was, or the backup sent nothing under load."""
    data, store = folder / "data", folder / "store"
    data.mkdir()
    rng = random.Random(seed)
    with (
        ExchangeProcess("core", data, BYLINE_BATCH_INTERVAL_S="3600") as core,
        ExchangeProcess("backup", data, BYLINE_BACKUP_URL=store.as_uri()) as backup,
    ):
        core.wait("ready")
        url = gateway_url(load_settings({}, data_directory=data))
        keys = await prepare(url, data, CONNECTIONS)
        frames = [commands(count, number, rng) for number in range(CONNECTIONS)]
        load = asyncio.create_task(run_load(url, list(zip(frames, keys, strict=True)), IN_FLIGHT))
        begun = await asyncio.to_thread(backup.wait, "shipped_sequence", 50)
        began = time.perf_counter()
        halfway = await asyncio.to_thread(backup.wait, "shipped_sequence", count * CONNECTIONS // 2)
        rate = (halfway - begun) / (time.perf_counter() - began)
        told = backup.status()
        core.kill()
        backup.kill()
        with contextlib.suppress(ConnectionError):
            await load
    if not told["parts"]:
        raise WrongResult("the backup sent no part under load")
    restored = restore(Objects(store.as_uri()), folder / "restored")
    behind_s = _behind_s(data, folder / "restored", restored)
    case = f"core and backup killed under {CONNECTIONS} connections"
    return [
        Row(case, "commands shipped under load", rate, "a second"),
        Row(case, "oldest record of a part in the store, worst", told["recovery_point_max_s"], "s", must=POINT_MUST_S),
        Row(case, "journal lost with the machine", behind_s, "s", must=POINT_MUST_S),
    ]


def _behind_s(data: Path, back: Path, restored: Restored) -> float:
    """Seconds of the journal in `data` that are not in `back`. Raises WrongResult: that is no prefix of it."""
    last_ts = [0]
    whole, part = DirectoryDisk(data), DirectoryDisk(back)
    listed = segments.list_segments(whole)
    tail = segments.scan(whole, listed, lambda slots, _first, _last: last_ts.append(int(slots["ts"].max())))
    end = segments.scan(part, segments.list_segments(part))
    if not 0 < end.sequence <= tail.sequence or end.sequence != restored.sequence:
        raise WrongResult(f"{end.sequence} records came back of {tail.sequence}")
    if segments.scan(whole, listed, up_to=end.sequence).chain != end.chain:
        raise WrongResult("what came back is no prefix of the journal")
    return max(0.0, (max(last_ts) - restored.last_ts) / 1e9)


def _come_back(folder: Path, ops: int, seed: int, smoke: bool) -> list[Row]:
    """A journal shipped from its first record, restored, and started. Raises WrongResult: it is another one."""
    data, store = folder / "data", folder / "store"
    data.mkdir()
    disk = DirectoryDisk(data)
    write_journal(disk, records(ops, seed, smoke))
    core, tail = replay(disk)
    millions = tail.sequence / 1e6
    shipper, made, started = Shipper(data, Objects(store.as_uri())), list[Restored](), list[bytes]()
    shipper.start()
    shipping = seconds(shipper.step)
    restoring = seconds(lambda: made.append(restore(Objects(store.as_uri()), folder / "restored")))

    def start() -> None:
        recovered = recover(folder / "restored")
        started.append(recovered.core.state_hash())
        recovered.close()

    starting = seconds(start)
    if (made[0].sequence, made[0].chain, started[0]) != (tail.sequence, tail.chain, core.state_hash()):
        raise WrongResult("restored to another journal, or to another state")
    case = f"a journal of {tail.sequence:,} records"
    return [
        Row(case, "shipping a million records", shipping / millions, "s"),
        Row(case, "restoring a million records", restoring / millions, "s"),
        Row(case, "of it: reading and checking the objects, writing the files", made[0].read_s / millions, "s"),
        Row(case, "of it: reading all of it once more", made[0].check_s / millions, "s"),
        Row(case, "starting from it, a million records", starting / millions, "s"),
        Row(case, "from the store to a running core, in all", restoring + starting, "s"),
    ]


class _Link(Objects):
    """A store behind a link: each request waits for a round trip, and all share the bandwidth in turns."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lock, self._free_at = threading.Lock(), 0.0
        self.sent_bytes = 0
        self.waiting: deque[tuple[int, int]] = deque()
        """(last sequence, when it was to be written in ns) of each tick that is in no part yet."""
        self.ages_s: list[float] = []
        """Of each tick, when its last record was in the store."""
        self.seals_s: list[float] = []

    def make(self, key: str, data: bytes) -> bytes:
        began = time.perf_counter()
        self._send(len(data))
        answer = super().make(key, data)
        if key.endswith(".segment"):
            self.seals_s.append(time.perf_counter() - began)
        elif key.endswith(".part"):
            last, now = PartHeader.unpack(key, data).last, time.time_ns()
            while self.waiting and self.waiting[0][0] <= last:
                self.ages_s.append((now - self.waiting.popleft()[1]) / 1e9)
        return answer

    def replace(self, key: str, data: bytes) -> None:
        self._send(len(data))
        super().replace(key, data)

    def names(self, prefix: str) -> list[tuple[str, int]]:
        self._send(0)
        return super().names(prefix)

    def remove(self, keys: list[str]) -> None:
        for key in keys:
            self._send(0)
            super().remove([key])

    def _send(self, count: int) -> None:
        time.sleep(ROUND_TRIP_S)
        for at in range(0, count, SLICE_BYTES):
            size = min(SLICE_BYTES, count - at)
            with self._lock:
                self.sent_bytes += size
                self._free_at = max(self._free_at, time.perf_counter()) + size * 8 / (LINK_MBIT * 1e6)
                until = self._free_at
            time.sleep(max(0.0, until - time.perf_counter()))


def _over_a_link(folder: Path, seed: int, smoke: bool) -> list[Row]:
    """Raises WrongResult: too few segments were sealed, or what came back is not the journal."""
    data, link = folder / "data", _Link((folder / "store").as_uri())
    data.mkdir()
    slots = records(ORDERS_PER_S * (LINK_SMOKE_S if smoke else LINK_S), seed, smoke)
    settings = JournalSettings(segment_bytes=1 << 20 if smoke else 64 << 20, ring_slots=RING_SLOTS, reserved_slots=0)
    journal = Journal(DirectoryDisk(data), new_tail(), SystemClock(), settings)
    shipper, over = Shipper(data, link), threading.Event()
    interval_s = load_settings({}, data_directory=data).backup_interval_s

    def repeat(body: Callable[[], int]) -> None:
        try:
            while not over.is_set():
                looked = time.monotonic()
                body()
                over.wait(max(0.0, looked + interval_s - time.monotonic()))
        finally:
            over.set()

    try:
        shipper.start()
        with ThreadPoolExecutor(2) as threads:  # as the process `backup` does it
            tasks = [threads.submit(repeat, body) for body in (shipper.step, shipper.seal)]
            try:
                last = _write_paced(journal, slots, link.waiting, over)
                while not over.is_set() and (shipper.sequence < last or shipper.unsealed):
                    time.sleep(TICK_S)
            finally:
                over.set()
        for task in tasks:
            task.result()
    finally:
        journal.close()
    _check_same(Objects((folder / "store").as_uri()), data, folder / "restored")
    if len(link.seals_s) < SEALS_MUST:
        raise WrongResult(f"{len(link.seals_s)} segments were sealed: too few to say what that costs")
    case = (
        f"link of {LINK_MBIT} Mbit/s and {ROUND_TRIP_S * 1000:.0f} ms, {ORDERS_PER_S:,} records a second, "
        f"{len(link.seals_s)} segments of {settings.segment_bytes >> 20} MiB sealed"
    )
    ages = np.array(link.ages_s)
    return [
        Row(case, "age of a record when it was in the store, median", quantile(ages, 0.5), "s"),
        Row(case, "age of a record when it was in the store, p99", quantile(ages, 0.99), "s"),
        Row(case, "age of a record when it was in the store, worst", float(ages.max()), "s", must=POINT_MUST_S),
        Row(case, "a full segment on its way, median", median(link.seals_s), "s"),
        Row(case, "sent for each byte of the journal", link.sent_bytes / slots.nbytes, "bytes"),
    ]


def _write_paced(
    journal: Journal, slots: npt.NDArray[np.void], waiting: deque[tuple[int, int]], over: threading.Event
) -> int:
    """Writes all records, those of a tick at a time, each with the time at which it was to be written; ends early when
    `over`. Returns the last sequence.

    Raises:
        WrongResult: the ring refused what it has room for.
    """
    heads = np.flatnonzero(slots["kind"])  # what a record goes on in has none
    each, began = round(ORDERS_PER_S * TICK_S), time.time_ns()
    for at in range(0, len(heads), each):
        planned = began + int(at / each * TICK_S * 1e9)
        if over.wait(max(0, planned - time.time_ns()) / 1e9):
            break
        end = min(at + each, len(heads))
        slots["ts"][heads[at:end]] = planned
        waiting.append((end, planned))
        whole = slots[heads[at] : heads[end] if end < len(heads) else len(slots)]
        if journal.append_all(bytearray(whole.tobytes())) != end - at:
            raise WrongResult(f"the ring refused records behind sequence {at}: errno {journal.failed}")
        journal.publish()
    return len(heads)


def _check_same(store: Objects, data: Path, restored: Path) -> None:
    """Raises WrongResult: what is restored differs from the journal in a byte."""
    restore(store, restored)
    names, back = ({path.name for path in (root / "journal").glob("*.journal")} for root in (data, restored))
    _, differ, failed = filecmp.cmpfiles(data / "journal", restored / "journal", names, shallow=False)
    if names != back or differ or failed:
        raise WrongResult(f"restored {len(back)} segments of {len(names)}; {[*differ, *failed]} differ")
