"""The journal: append, and durable group commit in turn with a bare pwrite + fdatasync of the same size."""

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


class _Bare:
    """Write and sync of one group at a time into a zero-filled file, with nothing around it."""

    def __init__(self, path: Path, count: int) -> None:
        self._data = bytes(_records(GROUP, 1))
        self._at = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(self._descriptor, bytes(len(self._data) * count), 0)
        os.fsync(self._descriptor)

    def group(self) -> float:
        """Seconds."""
        began = time.perf_counter()
        os.pwrite(self._descriptor, self._data, self._at)
        os.fdatasync(self._descriptor)
        self._at += len(self._data)
        return time.perf_counter() - began

    def close(self) -> None:
        os.close(self._descriptor)


def run(smoke: bool, seed: int) -> list[Row]:
    """Every record that was counted is read back and checked, by CRC, chain and segment digest."""
    groups = 20 if smoke else 500
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=".", prefix="tmp-bench-") as name:
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
        taken, plain_taken, sequence = [], [], filled
        bare = _Bare(directory / "bare", groups)
        parts = [_records(GROUP, filled + 1 + number * GROUP) for number in range(groups)]
        for part in parts:
            began = time.perf_counter()
            journal.append_all(part)
            journal.publish()
            sequence += GROUP
            journal.wait_durable(sequence)
            taken.append(time.perf_counter() - began)
            plain_taken.append(bare.group())
        journal.close()
        bare.close()
        tail = segments.scan(disk, segments.list_segments(disk), check_sha256=True)
        if tail.sequence != sequence:
            raise WrongResult(f"{tail.sequence} records read back of {sequence}")
    rows.append(Row("append", "time", appended / filled * 1e9, "ns"))
    rate, bare_rate = GROUP * groups / sum(taken), GROUP * groups / sum(plain_taken)
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
        mine, plain = np.percentile(taken, percent) * 1e6, np.percentile(plain_taken, percent) * 1e6
        rows.append(
            Row("group of 1000", f"p{percent}", float(mine), "us", baseline=float(plain), ratio=float(mine / plain))
        )
    return rows
