"""Snapshots while running: how long the core stands still, and how long the file and its way back take.

One core with a million accounts and as many resting orders. Each round begins a snapshot (persistence/snapshot.py forks
a child that writes it), applies commands while the child lives, and waits for it; each file must hold the bytes of
`Core.snapshot()` of its sequence. The last one is restored into a new core, whose state hash must be that of the core
at that sequence, and which `check()` walks. The baseline of the pause is `Core.snapshot()` on the core's thread.

Worst case: the pause grows with the pages of the process, so whatever else the process holds counts as well.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.bench_state_hash import many_accounts
from bench.driver import Native
from bench.harness import Row, WrongResult, median
from bench.records import FIRST_ACCOUNT, cancels, numbered, places
from engine.core import Core
from persistence.disk import DirectoryDisk
from persistence.snapshot import SnapshotWriter, read_snapshot

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "the journal, which recovery replays behind the snapshot; page cache is warm"
ACCOUNTS, ORDERS, ROUNDS = 1_000_000, 1_000_000, 5
MEANWHILE = 50_000
"""Commands while the child lives."""


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of the pause, of commands meanwhile, of the file and of the restore."""
    count, resting, meanwhile, rounds = (4_000, 2_000, 1_000, 2) if smoke else (ACCOUNTS, ORDERS, MEANWHILE, ROUNDS)
    rng = np.random.default_rng(seed)
    core, sequence = many_accounts(count, 16, min(count, 4_096))
    native = Native(core)

    def resting_orders(number: int) -> tuple[np.ndarray, np.ndarray]:
        who, ids = FIRST_ACCOUNT + rng.integers(0, count, number), sequence + np.arange(number)
        where, zeros = rng.integers(0, 16, number), np.zeros(number, np.int64)
        return places(who, where, zeros, rng.integers(1, 900, number), zeros + 1, ids), cancels(who, ids)

    def apply(*parts: np.ndarray) -> float:
        nonlocal sequence
        records, sequence = numbered(list(parts), sequence)
        return native.play(records).ns / len(records)

    apply(resting_orders(resting)[0])
    alone, beside, pauses, written, copied = [], [], [], [], []
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent.parent, prefix="tmp-bench-") as folder:
        disk = DirectoryDisk(Path(folder))
        writer = SnapshotWriter(disk, core, bytes(16), keep=1)
        for _ in range(rounds):
            alone.append(apply(*resting_orders(meanwhile)))
            gc.collect()
            expected = core.state_hash()
            start = time.perf_counter()
            whole = core.snapshot()
            copied.append((time.perf_counter() - start) * 1e3)
            start = time.perf_counter()
            writer.begin(0)
            pauses.append(writer.pause_s * 1e3)
            beside.append(apply(*resting_orders(meanwhile)))
            while not writer.ended():
                time.sleep(0.001)
            path = writer.finish()
            written.append(time.perf_counter() - start)
            if read_snapshot(disk, path).body != whole:
                raise WrongResult("the child wrote other bytes than Core.snapshot() of its sequence")
            writer.join_pages()
        start = time.perf_counter()
        body = read_snapshot(disk, path).body
        again = Core.restore(body)
        restored = time.perf_counter() - start
    if again.state_hash() != expected:
        raise WrongResult("the restored core has another state hash")
    again.check()
    core.check()
    case = f"{count:,} accounts, {resting:,} orders"
    return [
        Row(f"snapshot, {case}", "pause", median(pauses), "ms", median(copied), median(pauses) / median(copied)),
        Row(f"snapshot, {case}, worst of {rounds}", "pause", max(pauses), "ms"),
        Row("a command while it is written", "ns a command", median(beside), "ns", median(alone)),
        Row("from the fork to the durable file", "duration", median(written), "s"),
        Row("the file", "size", len(body) / 1e6, "MB"),
        Row("read, checked and restored", "duration", restored, "s"),
    ]
