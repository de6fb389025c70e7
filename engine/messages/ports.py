"""Ports that several parts take in their constructors. Each is a few methods in domain words.

    Clock         the time that the sequencer stamps, and timers
    EventSource   the published events, read by sequence: market data, projector and settler follow it
    Disk, File    what the journal and the snapshots need of a file system

The real ones live in `persistence`, and `byline.processes` hands them out; a simulator brings its own.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["Clock", "Disk", "EventSource", "File"]


class Clock(Protocol):
    """Wall clock of the shell. The core never sees it, only the `ts` of commands."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC. May step backwards; the sequencer never does.

        A clock that has a method `port` (a PyCapsule "byline.ClockPort", ports.pxd) is read without the interpreter.
        """


class EventSource(Protocol):
    """The published events in order. One object has one position."""

    def seek(self, after_sequence: int) -> None:
        """Continue with the first event of a command later than `after_sequence`; 0 is the very beginning."""

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        """The next published slots (dtype layout.EVENT), whole commands only; empty if there are none now.

        The array is a copy or a read-only view that stays valid. A command with more slots than the limit comes whole.
        """

    @property
    def head_sequence(self) -> int:
        """The last sequence whose events are published (a command without events counts)."""


class File(Protocol):
    """An open file. Offsets and sizes in bytes."""

    def read_at(self, offset: int, size: int) -> bytes: ...
    def write_at(self, offset: int, data: bytes) -> int:
        """Bytes really written: a short write is for the caller to continue."""

    def sync(self) -> None:
        """fdatasync. An OSError here is final."""

    def size(self) -> int: ...
    def close(self) -> None: ...


class Disk(Protocol):
    """A directory tree. Paths are relative, with `/`."""

    def open(self, path: str, *, create: bool = False) -> File: ...
    def list(self, directory: str) -> list[str]: ...
    def rename(self, source: str, target: str) -> None:
        """Atomic, and durable on return (the directory is synced)."""

    def remove(self, path: str) -> None: ...
    def sync_directory(self, directory: str) -> None: ...
