"""Recovery: of a W1 journal from its first record, and of a whole process from a snapshot with a million open orders.

`replay` reads, checks CRC, sequence and chain, applies in the core and regenerates every event in memory. `restart` is
the whole start of a core after a kill, from the first record, its event log kept; `boot` the one of a directory that
has neither snapshot nor mark, as from a backup, which also writes the event log anew. All from the page cache and
cold; state hash and events are compared.
`ready` is a process that was killed with kill -9, from exec until order entry has answered its operator; once within a
boot of the machine, once after another: nothing in memory, and of the event log only what is synced. Behind both lies
a settlement log of eleven days, whose last batch each start of the core asks for.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.exchange_process import ExchangeProcess
from bench.harness import Row, WrongResult, median, seconds
from bench.records import ACCOUNTS, FIRST_ACCOUNT, apply_all, commands, number, numbered, places, setup
from bench.workload import generate
from byline.operator import open_operator, request_snapshot
from byline.settings import Settings, load_settings
from engine.core import Core
from persistence.disk import DirectoryDisk, SystemClock
from persistence.event_log import EventLogReader, file_name
from persistence.event_mark import read_mark
from persistence.journal import Journal, JournalSettings, new_tail
from persistence.recovery import Recovered, recover, replay
from settlement.batch import Sealed
from settlement.chain.port import CoinPart, Part
from settlement.netting import Batch
from settlement.store import FileBatchStore

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = (
    "generating the workload; a snapshot, which would make it shorter; rows `replay` and `restart`: writing the "
    "event log, which `boot` does. Cold: the journal's pages are dropped from the page cache of this kernel, a "
    "host below a virtual machine may still have them. `ready` after kill -9: the page cache is warm; after a loss of "
    "power: the boot of the machine itself, and the readers of events, who read from the first"
)
OPS = 2_000_000
GROUP_SLOTS = 65_536
BOOT = b"boot of restarts"
JOURNAL_MUST_S = 0.4
"""A million records from the journal alone."""
ORDERS, READY_ROUNDS, READY_MUST_S = 1_000_000, 3, 2.0
BATCHES, BATCH_ROWS = 100_000, 20


def records(ops: int, seed: int, smoke: bool) -> npt.NDArray[np.void]:
    """Slots of the set-up and of W1, numbered from 1."""
    head = setup()
    at = sequence = 0
    while at < len(head):
        sequence += 1
        head["sequence"][at] = sequence
        at += int(head["slots"][at])
    return np.concatenate([head, commands(generate("W1", seed=seed, ops=ops, smoke=smoke), sequence + 1).records])


def write_journal(disk: DirectoryDisk, slots: npt.NDArray[np.void]) -> None:
    """All records through the journal's own writer.

    Raises:
        JournalFailed: the disk refuses.
        WrongResult: the ring refused what it has room for.
    """
    journal = Journal(disk, new_tail(), SystemClock(), JournalSettings(ring_slots=2 * GROUP_SLOTS))
    try:
        at = 0
        while at < len(slots):
            end = min(at + GROUP_SLOTS, len(slots))
            while end < len(slots) and slots["slots"][end - 1] > 1:  # a head parted from its extension
                end += 1
            while end < len(slots) and slots["kind"][end] == 0:
                end += 1
            before = journal.appended_sequence
            taken = journal.append_all(bytearray(slots[at:end].tobytes()))
            journal.publish()
            journal.wait_durable(before + taken)
            at += _slots_of(slots[at:end], taken)
            if at != end:
                raise WrongResult(f"the ring took {taken} records and refused the next: errno {journal.failed}")
    finally:
        journal.close()


def _slots_of(slots: npt.NDArray[np.void], count: int) -> int:
    at = 0
    widths = slots["slots"]
    for _ in range(count):
        at += int(widths[at])
    return at


def _drop_cache(directory: Path) -> None:
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _events_digest(directory: Path) -> bytes:
    reader, digest = EventLogReader(directory), sha256()
    while len(part := reader.read()):
        digest.update(part.data)
    return digest.digest()


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows only if each replayed state has the hash of the records applied without a journal, and the same events."""
    slots = records(20_000 if smoke else OPS, seed, smoke)
    core, out, at, digest = Core(), np.empty(65_536, slots.dtype), 0, sha256()
    while at < len(slots):
        at, used = core.apply_batch(slots, out, at)
        digest.update(out[:used].data)
    expected = (core.sequence, core.state_hash())
    rows = []
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
        directory = Path(name)
        disk = DirectoryDisk(directory)
        write_journal(disk, slots)
        _timed_recover(directory, expected, digest.digest(), BOOT)  # so that `restart` finds an event log
        for what in ("replay", "restart", "boot"):
            for case, must in (("cold", 2.5), ("page cache", 4.0)):
                taken = []
                for _ in range(1 if smoke else 3):
                    if case == "cold":
                        _drop_cache(directory / "journal")
                    if what == "replay":
                        taken.append(_timed_replay(disk, expected))
                    else:
                        boot = BOOT if what == "restart" else os.urandom(16)
                        taken.append(_timed_recover(directory, expected, digest.digest(), boot))
                took = median(taken)
                speed = core.sequence / took / 1e6
                named = None if smoke or what == "boot" else must
                ok = named is None or speed >= named
                rows.append(Row(f"{what}, {case}", "records", speed, "M/s", must=named, ok=ok))
                a_million = took / core.sequence * 1e6
                rows.append(Row(f"{what}, {case}", "a million records", a_million, "s", must=JOURNAL_MUST_S))
    return [*rows, *_ready(smoke, seed)]


def _resting(count: int, seed: int) -> npt.NDArray[np.void]:
    """The set-up and so many bids, checked to rest."""
    rng, head = np.random.default_rng(seed), setup()
    first = number(head, 1)
    zeros, ids = np.zeros(count, np.int64), first + np.arange(count)
    bids = places(FIRST_ACCOUNT + ids % ACCOUNTS, zeros, zeros, rng.integers(1, 100_000, count), zeros + 1, ids)
    slots, _ = numbered([bids], first)
    core = Core()
    apply_all(core, np.concatenate([head, slots]))
    if len(core.open_orders()) != count:
        raise WrongResult(f"{len(core.open_orders())} orders rest, not {count}")
    return np.concatenate([head, slots])


def _write_batches(path: Path, count: int) -> None:
    """Settlement's log of so many batches, of which the core asks for the last one at each start."""
    rows = [(row.to_bytes(32, "big"), row) for row in range(BATCH_ROWS)]
    store = FileBatchStore(path)
    for one in range(1, count + 1):
        part = Part(one, 0, 1, bytes(32), bytes(32), [CoinPart("USDC", bytes(32), rows, [], [])])
        batch = Batch(one, 1, 1, bytes(16), 0, 0, bytes(32), bytes(32), 0, BATCH_ROWS, [part], {})
        store.append(Sealed(one, batch))
    store.close()


def _ready(smoke: bool, seed: int) -> list[Row]:
    """Rows of a core process that is killed and started again behind a snapshot."""
    count, batches, rounds = (2_000, 50, 1) if smoke else (ORDERS, BATCHES, READY_ROUNDS)
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
        data = Path(name).resolve()
        write_journal(DirectoryDisk(data), _resting(count, seed))
        _write_batches(data / "settlement" / "batches.log", batches)
        settings = load_settings({}, data_directory=data)
        with ExchangeProcess("core", data, BYLINE_BATCH_INTERVAL_S="3600") as core:
            core.wait("ready")
            taken = request_snapshot(settings)["sequence"]
            core.wait("events_kept_sequence", taken)
        held = f"{count:,} orders, {batches:,} batches settled"
        return [
            *_started(settings, f"ready from a snapshot with {held}, after kill -9", rounds, taken),
            *_started(settings, f"the same with {held}, after a loss of power", rounds, taken, power=True),
        ]


def _started(settings: Settings, case: str, rounds: int, taken: int, *, power: bool = False) -> list[Row]:
    data, ready, recovered = settings.data_directory, [], []
    for _ in range(rounds):
        expected = replay(DirectoryDisk(data))[0]
        if power:
            _lose_power(data)
        with ExchangeProcess("core", data, BYLINE_BATCH_INTERVAL_S="3600") as core:
            core.wait("ready")
            asyncio.run(_answered(settings))
            ready.append(time.perf_counter() - core.began)
            recovered.append(float(core.status()["recovery_s"]))
            told = re.findall(r"event=recovered sequence=(\d+) snapshot=(\d+) .*state_hash=(\w+)", core.log())[-1]
        if told != (str(expected.sequence), str(taken), expected.state_hash().hex()):
            raise WrongResult(f"recovered to {told}, not to {expected.sequence} from snapshot {taken}")
    return [
        Row(case, "from exec to an answer of order entry", median(ready), "s", must=READY_MUST_S),
        Row(case, f"the same, worst of {rounds}", max(ready), "s"),
        Row(case, "of it: recovery", median(recovered), "s"),
    ]


def _lose_power(data: Path) -> None:
    """Of the event log stays what its mark names, synced; the rest is of another boot. Nothing is in the page cache."""
    (data / "events" / "control").write_bytes(bytes(4096))
    mark = read_mark(data / "events")
    if mark is None:
        raise WrongResult("the event log has no mark")
    for path in (data / "events").glob("*.events"):
        if path.name >= file_name(mark.generation, len(mark.sums)):
            path.write_bytes(bytes(path.stat().st_size))
    for part in ("journal", "snapshots", "events"):
        _drop_cache(data / part)


async def _answered(settings: Settings) -> None:
    async with open_operator(settings) as operator:
        await operator.status()


def _timed_replay(disk: DirectoryDisk, expected: tuple[int, bytes]) -> float:
    found: list[Core] = []
    taken = seconds(lambda: found.append(replay(disk)[0]))
    if (found[0].sequence, found[0].state_hash()) != expected:
        raise WrongResult("replayed to another state")
    return taken


def _timed_recover(directory: Path, expected: tuple[int, bytes], digest: bytes, boot: bytes) -> float:
    """The event log is kept if it was made in the same `boot`."""
    found: list[Recovered] = []
    taken = seconds(lambda: found.append(recover(directory, boot=boot)))
    report = found[0].report
    found[0].close()
    if (report.sequence, report.state_hash) != expected or report.replayed_records != report.sequence:
        raise WrongResult("recovered to another state")
    if _events_digest(directory / "events") != digest:
        raise WrongResult("the event log was built anew with other events")
    return taken
