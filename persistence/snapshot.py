"""Snapshots: the state of the core at a sequence, so that recovery replays a short tail.

    DATA/snapshots/<sequence, 20 digits>.snapshot    header of 128 bytes, then the bytes of Core.snapshot()

    begin ─▶ a forked child writes the body to SEQUENCE.snapshot.tmp ─▶ finish: header, sync, rename

The core goes on as soon as the child is forked (persistence/forked.pyx); what it pays is `pause_s`, and a copy of each
page that it changes while the child lives. Written under a temporary name, synced, renamed, the directory synced: a
name means a whole file. How the child ended is what `finish` tells: nothing that fails goes unsaid.

The newest valid one wins; a damaged or foreign one is left where it is, reported, and an older one (with a longer tail)
or the beginning is used. Failing to open a file that exists aborts the start: it never counts as "no snapshot". The
journal stays whole, so a snapshot is only ever a saving of time.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from engine.core import Core
from engine.messages.ports import Disk, File
from persistence.disk import RealFile
from persistence.forked import fork_snapshot, join_pages
from persistence.segments import view, write_all

__all__ = ["Snapshot", "SnapshotWriter", "newest_snapshots", "read_snapshot", "snapshot_name"]

log = logging.getLogger(__name__)

MAGIC = b"BYLINES\0"
FORMAT = 3
DIRECTORY = "snapshots"
DIGEST_BYTES = 32
_HEADER = struct.Struct("<8sIIQQ16s16s32sQ24x")
assert _HEADER.size == 128


@dataclass(frozen=True, slots=True)
class Snapshot:
    sequence: int
    chain: int
    """The journal's chain word of that sequence: binds the snapshot to this journal."""
    state_hash: bytes
    identity: bytes
    """Of the journal."""
    body: memoryview
    """What Core.snapshot() gave; its SHA-256 fits."""


def snapshot_name(sequence: int) -> str:
    return f"{DIRECTORY}/{sequence:020d}.snapshot"


class SnapshotWriter:
    """Writes the snapshots of one core, one at a time.

    `begin` on the thread that drives the core; that thread must outlive the child, which dies with it. Then `ended`
    until it is true, and `finish` on any thread; or `kill`, `ended` and `discard`. In the end `join_pages`.

    Args:
        disk: a real one for the real fork, whose child writes to a file descriptor.
        identity: of the journal.
        keep: how many snapshots stay.
        fork: writes the core's state into a file from an offset on, beside everything else. Returns the process id of
            who does, 0 if it is done. Raises OSError.
    """

    def __init__(
        self, disk: Disk, core: Core, identity: bytes, *, keep: int = 3,
        fork: Callable[[Core, File, int], int] | None = None,
    ) -> None:  # fmt: skip
        self._disk = disk
        self._core = core
        self._identity = identity
        self._keep = keep
        self._fork = fork or _forked
        self._file: File | None = None
        self._child = 0
        """Process id while it may still run."""
        self._status = 0
        """How it ended, as waitpid tells."""
        self._header = b""
        self.sequence = 0
        """Of the snapshot begun last."""
        self.pause_s = 0.0
        """How long the last `begin` kept the core from going on."""

    def begin(self, chain: int) -> int:
        """Fork a child that writes the state as it is now. Returns its sequence.

        `chain` is the journal's chain word of that sequence.

        Raises:
            OSError: no file, no child, or the last one has not ended.
        """
        if self._file is not None:
            raise OSError(errno.EBUSY, f"snapshot {self.sequence} is still being written")
        began = time.perf_counter()
        for name in self._disk.list(DIRECTORY):
            if name.endswith(".tmp"):  # of a process that was killed
                self._disk.remove(f"{DIRECTORY}/{name}")
        self.sequence = self._core.sequence
        file = self._disk.open(self._temporary, create=True)
        try:
            self._header = _HEADER.pack(
                MAGIC, FORMAT, 0, self.sequence, chain, self._core.state_hash(), self._identity, bytes(DIGEST_BYTES), 0
            )
            self._child = self._fork(self._core, file, _HEADER.size)
            self.pause_s = time.perf_counter() - began
        except BaseException:
            self._remove(file)
            raise
        self._file = file
        return self.sequence

    def ended(self) -> bool:
        """Whether the child has ended, however it did. Never waits."""
        if self._child:
            try:
                child, self._status = os.waitpid(self._child, os.WNOHANG)
            except ChildProcessError:  # somebody else took its status: not known to be whole
                child, self._status = self._child, errno.ECHILD << 8
            if child:
                self._child = 0
        return not self._child

    def finish(self) -> str:
        """Give the written file its header and its name, and remove all but the newest. Returns its path.

        The child has ended, and the journal is durable up to `sequence`.

        Raises:
            OSError: the child failed, was killed, or the disk refuses; older snapshots are untouched, and nothing may
                rest on this one: it is gone, or whole under a name that a loss of power may take.
        """
        assert self._file is not None and not self._child
        file, self._file = self._file, None
        try:
            if os.WIFSIGNALED(self._status):
                name = signal.Signals(os.WTERMSIG(self._status)).name
                raise OSError(f"snapshot {self.sequence}: its writer was ended by {name}")
            if code := os.WEXITSTATUS(self._status):
                raise OSError(code, f"snapshot {self.sequence}: {os.strerror(code)}")
            size = file.size() - _HEADER.size
            digest = file.read_at(_HEADER.size + size - DIGEST_BYTES, DIGEST_BYTES)
            write_all(file, 0, _sealed(self._header, size, digest))
            file.sync()
        except BaseException:
            self._remove(file)
            raise
        file.close()
        path = snapshot_name(self.sequence)
        self._disk.rename(self._temporary, path)
        for name in _names(self._disk)[self._keep :]:
            self._disk.remove(f"{DIRECTORY}/{name}")
        return path

    def kill(self) -> None:
        """End the child, if it runs. Does not wait: `ended` tells when it has."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)

    def discard(self) -> None:
        """Forget the snapshot begun, once its child has ended. Nothing happens if there is none."""
        assert not self._child
        if self._file is not None:
            file, self._file = self._file, None
            self._remove(file)

    def join_pages(self) -> None:
        """What the child left of large pages is joined again; on a thread beside the core's. persistence/forked.pyx."""
        join_pages(self._core)

    @property
    def child(self) -> int:
        """Process id of the child, 0 once it has ended."""
        return self._child

    @property
    def _temporary(self) -> str:
        return snapshot_name(self.sequence) + ".tmp"

    def _remove(self, file: File) -> None:
        file.close()
        with contextlib.suppress(OSError):  # the first error is the one to tell; `begin` removes what is left
            self._disk.remove(self._temporary)


def _forked(core: Core, file: File, offset: int) -> int:
    assert isinstance(file, RealFile)
    return fork_snapshot(core, file.fileno(), offset)


def _sealed(header: bytes, size: int, body_digest: bytes) -> bytes:
    """The header with the body's size and the SHA-256 of itself and the body's own SHA-256."""
    fields = list(_HEADER.unpack(header))
    fields[-1] = size
    fields[-2] = bytes(DIGEST_BYTES)
    fields[-2] = sha256(_HEADER.pack(*fields) + body_digest).digest()
    return _HEADER.pack(*fields)


def read_snapshot(disk: Disk, path: str) -> Snapshot:
    """One snapshot, checked.

    Raises:
        ValueError: it is damaged or of another format.
        OSError: it cannot be read.
    """
    data = view(disk, path)
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise ValueError(f"{path}: no snapshot header")
    _, version, _, sequence, chain, state_hash, identity, _, size = _HEADER.unpack_from(data)
    if version != FORMAT:
        raise ValueError(f"{path}: format {version}; this build reads {FORMAT}")
    body = data[_HEADER.size :]
    if (
        size != len(body)
        or sha256(body[:-DIGEST_BYTES]).digest() != body[-DIGEST_BYTES:]
        or _sealed(bytes(data[: _HEADER.size]), size, bytes(body[-DIGEST_BYTES:])) != data[: _HEADER.size]
    ):
        raise ValueError(f"{path}: damaged: its SHA-256 does not fit its content")
    if path != snapshot_name(sequence):
        raise ValueError(f"{path}: holds sequence {sequence}")
    return Snapshot(sequence, chain, state_hash, identity, body)


def newest_snapshots(disk: Disk, damaged: list[str], *, up_to: int | None = None) -> Iterator[Snapshot]:
    """Valid snapshots, newest first, none later than `up_to`. What is wrong with others is appended to `damaged`.

    Raises:
        OSError: one exists and cannot be read.
    """
    last = None if up_to is None else snapshot_name(up_to).rpartition("/")[2]
    for name in _names(disk):
        if last is not None and name > last:
            continue
        try:
            yield read_snapshot(disk, f"{DIRECTORY}/{name}")
        except ValueError as error:
            log.warning("snapshot refused: %s", error)
            damaged.append(str(error))


def _names(disk: Disk) -> list[str]:
    return sorted((name for name in disk.list(DIRECTORY) if name.endswith(".snapshot")), reverse=True)
