"""CPU time of appending one record to the journal's ring, in turn with its CRC32C and its copy alone."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import numpy as np

from bench.driver import library
from bench.harness import Row, WrongResult, median
from engine.messages import layout
from engine.messages.codes import CommandKind
from persistence import segments
from persistence.disk import DirectoryDisk, SystemClock
from persistence.journal import Journal, JournalSettings, new_tail

__all__ = ["append_row"]

BATCH = 4_096
RING = 65_536
MUST_NS = 30.0


def _records(count: int, first: int) -> bytearray:
    rows = np.zeros(count, layout.PLACE)
    rows["kind"], rows["slots"], rows["price"] = CommandKind.PLACE, 1, 100
    rows["sequence"] = np.arange(first, first + count)
    return bytearray(rows.tobytes())


def append_row(folder: Path, batches: int) -> Row:
    """Medians over so many batches, each within what the ring holds. Every record is read back from disk and checked.

    Raises:
        WrongResult: the journal refused a record, or has another number of them in the end.
    """
    folder.mkdir()
    disk = DirectoryDisk(folder)
    journal = Journal(disk, new_tail(), SystemClock(), JournalSettings(mode="memory", ring_slots=RING))
    bare = library("append").append_bare
    bare.restype = ctypes.c_int64
    ring = (ctypes.c_uint8 * (RING * layout.SLOT_BYTES))()
    ours, least = [], []
    for number in range(batches):
        records = _records(BATCH, number * BATCH + 1)
        begun = time.thread_time_ns()
        taken = journal.append_all(records)
        ours.append((time.thread_time_ns() - begun) / BATCH)
        if taken != BATCH:
            raise WrongResult(f"the journal took {taken} of {BATCH} records")
        journal.publish()
        journal.wait_durable((number + 1) * BATCH)
        whole = (ctypes.c_uint8 * len(records)).from_buffer(records)
        place = ctypes.byref(ring, number * BATCH % RING * layout.SLOT_BYTES)  # as cold as the journal's is
        least.append(bare(whole, ctypes.c_int64(BATCH), place) / BATCH)
    journal.close()
    if segments.scan(disk, segments.list_segments(disk), check_sha256=True).sequence != batches * BATCH:
        raise WrongResult("the journal does not hold what was appended to it")
    value, floor = median(ours), median(least)
    case = "journal append beside a copy and its CRC32C"
    return Row(case, "CPU of a record", value, "ns", floor, value / floor, MUST_NS)
