"""Snapshots: the state of the core at a sequence, so that recovery replays a short tail.

    DATA/snapshots/<sequence, 20 digits>.snapshot    header of 128 bytes, then the bytes of Core.snapshot()

Written under a temporary name, synced, renamed, the directory synced: a name means a whole file. The newest valid one
wins; a damaged or foreign one is left where it is, reported, and an older one (with a longer tail) or the beginning is
used. Failing to open a file that exists aborts the start: it never counts as "no snapshot". The journal stays whole,
so a snapshot is only ever a saving of time.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from engine.messages.ports import Disk
from persistence.segments import write_all

__all__ = ["Snapshot", "newest_snapshots", "read_snapshot", "snapshot_name", "write_snapshot"]

log = logging.getLogger(__name__)

MAGIC = b"BYLINES\0"
FORMAT = 1
DIRECTORY = "snapshots"
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
    body: bytes


def snapshot_name(sequence: int) -> str:
    return f"{DIRECTORY}/{sequence:020d}.snapshot"


def write_snapshot(disk: Disk, snapshot: Snapshot, *, keep: int = 3) -> str:
    """Write it durably and remove all but the newest `keep`. Returns its path.

    The journal must be durable up to its sequence.

    Raises:
        OSError: the disk refuses; older snapshots are untouched.
    """
    path = snapshot_name(snapshot.sequence)
    header = _HEADER.pack(
        MAGIC, FORMAT, 0, snapshot.sequence, snapshot.chain, snapshot.state_hash, snapshot.identity, bytes(32),
        len(snapshot.body),
    )  # fmt: skip
    digest = sha256(header + snapshot.body).digest()
    temporary = path + ".tmp"
    file = disk.open(temporary, create=True)
    try:
        write_all(file, 0, header[:64] + digest + header[96:] + snapshot.body)
        file.sync()
    except OSError:
        file.close()
        with contextlib.suppress(OSError):  # the first error is the one to tell
            disk.remove(temporary)
        raise
    file.close()
    disk.rename(temporary, path)
    for name in _names(disk)[keep:]:
        disk.remove(f"{DIRECTORY}/{name}")
    return path


def read_snapshot(disk: Disk, path: str) -> Snapshot:
    """One snapshot, checked.

    Raises:
        ValueError: it is damaged or of another format.
        OSError: it cannot be read.
    """
    file = disk.open(path)
    try:
        data = file.read_at(0, file.size())
    finally:
        file.close()
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise ValueError(f"{path}: no snapshot header")
    _, version, _, sequence, chain, state_hash, identity, digest, size = _HEADER.unpack_from(data)
    if version != FORMAT:
        raise ValueError(f"{path}: format {version}; this build reads {FORMAT}")
    if sha256(data[:64] + bytes(32) + data[96:]).digest() != digest or size != len(data) - _HEADER.size:
        raise ValueError(f"{path}: damaged: its SHA-256 does not fit its content")
    if path != snapshot_name(sequence):
        raise ValueError(f"{path}: holds sequence {sequence}")
    return Snapshot(sequence, chain, state_hash, identity, data[_HEADER.size :])


def newest_snapshots(disk: Disk, damaged: list[str]) -> Iterator[Snapshot]:
    """Valid snapshots, newest first. What is wrong with the others is appended to `damaged`.

    Raises:
        OSError: one exists and cannot be read.
    """
    for name in _names(disk):
        try:
            yield read_snapshot(disk, f"{DIRECTORY}/{name}")
        except ValueError as error:
            log.warning("snapshot refused: %s", error)
            damaged.append(str(error))


def _names(disk: Disk) -> list[str]:
    return sorted((name for name in disk.list(DIRECTORY) if name.endswith(".snapshot")), reverse=True)
