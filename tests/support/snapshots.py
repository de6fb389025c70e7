"""Snapshots for tests that have a core and no loop."""

from __future__ import annotations

import time
from pathlib import Path

from persistence.disk import DirectoryDisk
from persistence.event_mark import EventKeeper
from persistence.recovery import Recovered
from persistence.snapshot import SnapshotWriter
from tests.support.waiting import HANG_S

__all__ = ["ended", "take_marked_snapshot", "take_snapshot"]


def ended(writer: SnapshotWriter) -> None:
    """Wait until the writer's child has ended."""
    until = time.monotonic() + HANG_S
    while not writer.ended():
        assert time.monotonic() < until, "the child that writes a snapshot hangs"
        time.sleep(0.001)


def take_snapshot(directory: Path, recovered: Recovered, *, chain: int | None = None) -> str:
    """The state of a recovered core, whose journal is durable, as a snapshot. Returns its path."""
    writer = SnapshotWriter(DirectoryDisk(directory), recovered.core, recovered.journal.identity)
    writer.begin(recovered.journal.chain if chain is None else chain)
    ended(writer)
    return writer.finish()


def take_marked_snapshot(directory: Path, recovered: Recovered) -> str:
    """The same, and the event log is on disk up to there, as the core's process leaves both."""
    keeper = EventKeeper(directory / "events", recovered.event_log, recovered.journal.identity)
    place, chain = keeper.at(), recovered.journal.chain
    path = take_snapshot(directory, recovered)
    assert keeper.keep(place, chain)
    return path
