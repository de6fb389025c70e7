"""Snapshots of a running core: how long matching pauses, what goes on beside the child, size, time, and the way back.

The state is N accounts with money in three assets and N open orders. `pause` is what `SnapshotWriter.begin` takes on
the core's thread: opening the file, settling the state hash, the fork. Its baseline is the copy of the whole state on
that thread, which a snapshot would otherwise be. Beside the child the core places and cancels orders of random
accounts. Each file is compared with the bytes of `Core.snapshot()` at its sequence; the last one is restored and has
the same state hash.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.harness import Row, WrongResult, median, seconds
from bench.records import (
    FIRST_ACCOUNT,
    accounts,
    apply_all,
    assets,
    cancels,
    deposits,
    markets,
    numbered,
    places,
    transfers,
)
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages import layout
from persistence.disk import DirectoryDisk
from persistence.snapshot import SnapshotWriter, read_snapshot

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = (
    "the journal, the gateway and their memory, whose pages a fork counts too; waiting until the journal is durable. "
    "Pages copied: all page faults of the process while the child lived, so at most that"
)
ASSETS = 3
ROUNDS = 5
LEVELS = 10_000
BATCH = 2_000
PAUSE_MUST_MS = {100_000: 5.0, 1_000_000: 10.0}
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def state(count: int) -> tuple[Core, int]:
    """A core with that many accounts and orders, and its next sequence."""
    core = Core(
        CoreLimits(
            accounts=count + FIRST_ACCOUNT, balances=ASSETS * (count + FIRST_ACCOUNT), orders=count + 2 * BATCH,
            assets=ASSETS,
        )
    )  # fmt: skip
    everyone = FIRST_ACCOUNT + np.arange(count)
    parts = [assets([b"A%d" % i for i in range(ASSETS)]), markets(1, 2 * LEVELS), accounts(count)]
    for asset in range(ASSETS):
        parts += [deposits(everyone[:1], asset, 10**16), transfers(int(everyone[0]), everyone[1:], asset, 10**8)]
    records, after = numbered(parts, 1)
    apply_all(core, records)
    records, after = numbered([_orders(count, count, after, np.random.default_rng(1))], after)
    apply_all(core, records)
    return core, after


def _orders(count: int, among: int, first: int, rng: np.random.Generator) -> npt.NDArray[np.void]:
    side = rng.integers(0, 2, count)
    price = rng.integers(1, LEVELS, count) + side * LEVELS
    zeros = np.zeros(count, np.int64)
    who = FIRST_ACCOUNT + rng.integers(0, among, count)
    return places(who, zeros, side, price, zeros + 5, first + np.arange(count))


def _trade(core: Core, among: int, after: int, rng: np.random.Generator) -> tuple[int, float]:
    """Places and cancels BATCH orders. Returns the next sequence and the seconds it took."""
    placed = _orders(BATCH, among, after, rng)
    taken = cancels(placed.view(layout.PLACE)["account"], after + np.arange(BATCH))
    records, after = numbered([placed, taken], after)
    began = time.perf_counter()
    apply_all(core, records)
    return after, time.perf_counter() - began


def _measure(count: int, rounds: int, directory: Path, rng: np.random.Generator) -> list[Row]:
    core, after = state(count)
    disk = DirectoryDisk(directory)
    writer = SnapshotWriter(disk, core, bytes(16))
    pauses, work, written, copied, alone, beside = [], [], [], [], [], []
    for _ in range(20):
        after, taken = _trade(core, count, after, rng)
        alone.append(taken)
    copy_s = seconds(core.snapshot)
    for _ in range(rounds):
        expected = core.snapshot()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began = time.perf_counter()
        worked = time.thread_time()
        writer.begin(0)
        work.append(time.thread_time() - worked)
        pauses.append(writer.pause_s)
        while not writer.ended():
            after, taken = _trade(core, count, after, rng)
            beside.append(taken)
        written.append(time.perf_counter() - began)
        copied.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) * PAGE_MB)
        found = read_snapshot(disk, writer.finish())
        if found.body != expected:
            raise WrongResult("the child wrote other bytes than Core.snapshot() of that sequence")
        writer.join_pages()
    core.check()
    made: list[Core] = []
    restored = seconds(lambda: made.append(Core.restore(found.body)))
    if made[0].state_hash() != found.state_hash:
        raise WrongResult("restored to another state")
    case = f"{count:,} accounts and orders"
    return [
        Row(
            case, "pause", median(pauses) * 1e3, "ms", baseline=copy_s * 1e3, ratio=median(pauses) / copy_s,
            must=PAUSE_MUST_MS.get(count),
        ),
        Row(case, "pause, CPU time", median(work) * 1e3, "ms"),
        Row(case, f"longest pause of {rounds}", max(pauses) * 1e3, "ms"),
        Row(case, "until written", median(written), "s"),
        Row(case, "size", len(found.body) / 1e6, "MB"),
        Row(case, "pages copied", max(copied), "MB"),
        Row(
            case, "commands beside the child", 2 * BATCH / median(beside) / 1e6, "M/s",
            baseline=2 * BATCH / median(alone) / 1e6, ratio=median(alone) / median(beside),
        ),
        Row(case, "restore", restored, "s"),
    ]  # fmt: skip


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of 100,000 and of a million accounts and orders."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for count, rounds in ((2_000, 2),) if smoke else ((100_000, ROUNDS), (1_000_000, ROUNDS)):
        with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
            rows += _measure(count, rounds, Path(name), rng)
    return rows
