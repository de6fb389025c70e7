"""The journal: append, and durable group commit beside a bare pwrite + fdatasync of the same size in the same run."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.harness import Row, WrongResult
from engine.messages import layout
from persistence import segments
from persistence.disk import DirectoryDisk, SystemClock
from persistence.journal import Journal, JournalSettings, new_tail

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "gateway, engine, acknowledgements; an otherwise idle disk; records of one slot"
GROUP = 1000


def _records(count: int, first: int) -> bytearray:
    rows = np.zeros(count, layout.PLACE)
    rows["kind"], rows["slots"], rows["price"] = 11, 1, 100
    rows["sequence"] = np.arange(first, first + count)
    return bytearray(rows.tobytes())


def _bare(directory: Path, group: int, count: int) -> list[float]:
    """Seconds of each write + sync into a zero-filled file."""
    data = bytes(_records(group, 1))
    descriptor = os.open(directory / "bare", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, bytes(len(data) * count), 0)
        os.fsync(descriptor)
        taken = []
        for number in range(count):
            began = time.perf_counter()
            os.pwrite(descriptor, data, number * len(data))
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - began)
        return taken
    finally:
        os.close(descriptor)


def run(smoke: bool, seed: int) -> list[Row]:
    """Every record that was counted is read back and checked, by CRC, chain and segment digest."""
    groups = 20 if smoke else 500
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=".") as name:
        directory = Path(name)
        disk = DirectoryDisk(directory)
        ring_slots = 4096 if smoke else 65_536
        settings = JournalSettings(segment_bytes=(8 if smoke else 64) << 20, ring_slots=ring_slots, reserved_slots=0)
        journal = Journal(disk, new_tail(), SystemClock(), settings)
        appended, filled = 0.0, ring_slots
        data = _records(filled, 1)
        began = time.perf_counter()
        if journal.append_all(data) != filled:
            raise WrongResult("the ring refused records it has room for")
        appended = time.perf_counter() - began
        journal.publish()
        journal.wait_durable(filled)
        taken, sequence = [], filled
        parts = [_records(GROUP, filled + 1 + number * GROUP) for number in range(groups)]
        for part in parts:
            began = time.perf_counter()
            journal.append_all(part)
            journal.publish()
            sequence += GROUP
            journal.wait_durable(sequence)
            taken.append(time.perf_counter() - began)
        journal.close()
        tail = segments.scan(disk, segments.list_segments(disk), check_sha256=True)
        if tail.sequence != sequence:
            raise WrongResult(f"{tail.sequence} records read back of {sequence}")
        bare = _bare(directory, GROUP, groups)
    rows.append(Row("append", "time", appended / filled * 1e9, "ns"))
    rate, bare_rate = GROUP * groups / sum(taken), GROUP * groups / sum(bare)
    rows.append(
        Row(
            "durable",
            "records",
            rate,
            "1/s",
            baseline=bare_rate,
            ratio=rate / bare_rate,
            must=30_000,
            ok=rate >= 30_000,
        )
    )
    for percent in (50, 99):
        mine, plain = np.percentile(taken, percent) * 1e6, np.percentile(bare, percent) * 1e6
        rows.append(
            Row("group of 1000", f"p{percent}", float(mine), "us", baseline=float(plain), ratio=float(mine / plain))
        )
    return rows
