"""Cutting a journal behind a sequence, by an operator's decision; what is cut is kept aside, byte for byte.

    DATA/aside/journal-<UTC time>-after-<sequence>/    the cut segment as it was, later segments, snapshots, the mark,
                                                       and the registry of keys, which may name accounts that are cut

For a journal that recovery refuses: everything up to the damage is good, and nobody but the operator may give up what
is behind it. Recovery never comes here.

Order: copy the segment that is cut, synced; move the registry, then the later segments away, the last one first, then
snapshots; zero the rest of the segment; move the mark. Whatever interrupts it leaves a journal that is as it was (its
registry of keys may be aside already), is refused, or is the shorter one (while the machine is up: the mark lives in
its memory), and the same command goes on.
The event log is not touched: recovery sees that it is ahead, and builds it anew.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.messages import layout
from engine.messages.errors import JournalCorrupt
from files.durable import sync_directory
from persistence import segments
from persistence.disk import DirectoryDisk
from persistence.evidence import REGISTRY
from persistence.journal import MARK
from persistence.ring import scan_records
from persistence.segments import Tail
from persistence.snapshot import DIRECTORY as SNAPSHOTS

__all__ = ["ASIDE", "Truncation", "plan_truncation", "truncate"]

ASIDE = "aside"


@dataclass(frozen=True, slots=True)
class Truncation:
    """What a truncation would do."""

    tail: Tail
    """Where the journal ends afterwards; `torn_bytes` are those that will be zeroed in its last segment."""
    later_segments: list[str]
    later_snapshots: list[str]
    used_bytes: int
    """Of the bytes to be zeroed, those up to the last one that is not zero. 0: nothing is behind the sequence there."""

    @property
    def cuts_nothing(self) -> bool:
        """The journal ends there already."""
        return not (self.later_segments or self.later_snapshots or self.used_bytes)


class _Enough(Exception):
    """The sequence is reached: what is behind it is not looked at."""


def plan_truncation(disk: DirectoryDisk, to: int) -> Truncation:
    """What `truncate` to sequence `to` would cut. Changes nothing; what lies behind `to` may be anything.

    Raises:
        JournalCorrupt: the journal up to `to` is no valid prefix; the message names the place.
        ValueError: the journal ends before `to`, or there is none.
    """
    names = disk.list(segments.DIRECTORY)
    listed = segments.list_segments(disk, up_to=max(to, 1))
    if not listed:
        raise ValueError("there is no segment that holds this sequence")
    tail = _locate(disk, listed, to)
    assert tail.segment is not None
    kept = {segment.path.rpartition("/")[2] for segment in listed}
    later = [name for name in names if name.endswith(segments.SUFFIX) and name not in kept]
    snapshots = [
        name for name in disk.list(SNAPSHOTS) if name.endswith(".snapshot") and int(name.partition(".")[0]) > to
    ]
    rest = np.frombuffer(segments.view(disk, tail.segment.path), np.uint8, offset=segments.offset_of(tail.used_slots))
    return Truncation(tail, sorted(later), sorted(snapshots), segments.last_nonzero(rest))


def truncate(disk: DirectoryDisk, plan: Truncation) -> Path:
    """Carry `plan` out. Returns the directory where everything that was cut is kept.

    The caller holds the locks of the data directory and of the journal.

    Raises:
        OSError: the disk refuses. What was moved stays where it is kept; the command can be given again.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = disk.root / ASIDE / f"journal-{stamp}-after-{plan.tail.sequence}"
    aside.mkdir(parents=True)
    assert plan.tail.segment is not None
    _copy(disk.root / plan.tail.segment.path, aside / plan.tail.segment.path.rpartition("/")[2])
    if (disk.root / REGISTRY).exists():  # first: beside the shorter journal it must never stand
        _move(disk, REGISTRY, aside)
    for name in reversed(plan.later_segments):
        _move(disk, f"{segments.DIRECTORY}/{name}", aside)
    for name in plan.later_snapshots:
        _move(disk, f"{SNAPSHOTS}/{name}", aside)
    sync_directory(aside)
    segments.cut_tail(disk, plan.tail)
    if (disk.root / MARK).exists():  # it says that more was durable: until it is gone, recovery refuses
        _move(disk, MARK, aside)
    return aside


def _locate(disk: DirectoryDisk, listed: list[segments.Segment], to: int) -> Tail:
    """The tail of the journal if it ended with sequence `to`, all records up to it checked."""

    def look(_slots: npt.NDArray[np.void], _first: int, last: int) -> None:
        if last >= to:
            raise _Enough

    if to > 0:
        try:
            tail = segments.scan(disk, listed, look)
        except _Enough:
            pass
        else:
            raise ValueError(f"the journal ends with sequence {tail.sequence}")
    segment = listed[-1]
    first, chain, at, sequence = segment.header.first_sequence, segment.header.previous_chain, 0, to
    if to >= first:
        raw = np.frombuffer(segments.view(disk, segment.path), np.uint8, offset=segments.HEADER_BYTES)
        at, sequence, chain, _ = scan_records(raw, 0, segment.slot_count, to - first + 1, first - 1, chain)
    if sequence != to:
        raise JournalCorrupt(f"{segment.path}: sequence {sequence + 1} cannot be read")
    cleared = (segment.slot_count - at) * layout.SLOT_BYTES
    return Tail(segment.header.identity, to, chain, segment, at, cleared)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(target.parent)


def _move(disk: DirectoryDisk, path: str, aside: Path) -> None:
    source = disk.root / path
    os.rename(source, aside / source.name)
    sync_directory(source.parent)
