"""Snapshots for tests that have a core and no loop."""

from __future__ import annotations

import time
from pathlib import Path

from persistence.disk import DirectoryDisk
from persistence.recovery import Recovered
from persistence.snapshot import SnapshotWriter
from tests.support.waiting import HANG_S

__all__ = ["ended", "take_snapshot"]


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
