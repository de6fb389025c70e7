"""Recovery: read, CRC, chain and apply of a W1 journal, from the page cache and cold; the state hash is compared."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from bench.bench_engine import commands, setup
from bench.harness import Row, WrongResult, seconds
from bench.workload import generate
from engine.core import Core
from persistence.disk import DirectoryDisk, SystemClock
from persistence.journal import Journal, JournalSettings, new_tail
from persistence.recovery import replay

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "regenerating the event log; a snapshot, which would make it shorter; generating the workload"


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows only if the replayed state has the hash of the records applied without a journal."""
    head = setup()
    at = sequence = 0
    while at < len(head):
        sequence += 1
        head["sequence"][at] = sequence
        at += int(head["slots"][at])
    played = commands(generate("W1", seed=seed, ops=20_000 if smoke else 1_000_000, smoke=smoke), sequence + 1)
    slots = np.concatenate([head, played.records])
    core, out, at = Core(), np.empty(65_536, slots.dtype), 0
    while at < len(slots):
        at, _ = core.apply_batch(slots, out, at)
    expected, count = core.state_hash(), core.sequence
    with tempfile.TemporaryDirectory(dir=".") as name:
        disk = DirectoryDisk(Path(name))
        journal = Journal(disk, new_tail(), SystemClock(), JournalSettings(ring_slots=1 << 18))
        left, at, done = bytearray(slots.tobytes()), 0, 0
        starts = np.flatnonzero(slots["sequence"] == 0)
        heads = np.setdiff1d(np.arange(len(slots)), starts) if len(starts) else np.arange(len(slots))
        while done < count:
            done += journal.append_all(memoryview(left)[int(heads[done]) * 128 :])
            journal.publish()
            journal.wait_durable(journal.appended_sequence)
        journal.close()
        rows = []
        for case, must in (("cold", 2.5), ("page cache", 4.0)):
            if case == "cold":
                for path in (Path(name) / "journal").iterdir():
                    descriptor = os.open(path, os.O_RDONLY)
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(descriptor)
            found: list[Core] = []
            taken = seconds(lambda into=found: into.append(replay(disk)[0]))  # type: ignore[misc]
            if found[0].state_hash() != expected or found[0].sequence != count:
                raise WrongResult(f"{case}: replayed to another state")
            speed = count / taken / 1e6
            rows.append(Row(case, "records", speed, "M/s", must=None if smoke else must, ok=smoke or speed >= must))
    return rows
