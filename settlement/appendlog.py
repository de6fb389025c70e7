"""An append-only file of records that are on disk when `append` returns.

    file    = frame frame …
    frame   = length u32 LE | crc32 u32 LE of the payload | payload

A frame that runs past the end of the file, or the very last one with a wrong checksum, is a write that a crash cut
short: it was never acknowledged, and opening cuts it off. Damage before the last frame is no crash but a broken disk:
opening refuses. One process writes a file at a time (an advisory lock says so). Never rewrites what it has written.

Worst case: `append` waits for one fdatasync. Opening reads the whole file once.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from engine.messages.errors import DataDirectoryBusy, JournalCorrupt, JournalFailed

__all__ = ["AppendLog", "sync_directory"]

_FRAME = struct.Struct("<II")
MAX_RECORD_BYTES = 64 * 1024 * 1024


class AppendLog:
    """One open file. Not safe for several threads."""

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises:
            DataDirectoryBusy: another process holds the file.
            JournalCorrupt: damage before the last frame.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._failed = False
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise DataDirectoryBusy(f"{path} is held by another process") from error
        try:
            self._size = self._checked_size()
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
            sync_directory(path.parent)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, payload: bytes) -> int:
        """Add a record and return its offset. It is durable when this returns.

        Raises:
            JournalFailed: the write or the sync failed. Final: the file takes nothing more until it is opened again.
        """
        assert 0 < len(payload) <= MAX_RECORD_BYTES, len(payload)
        if self._failed:
            raise JournalFailed(f"{self.path}: an earlier write failed")
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            view = memoryview(frame)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._failed = True
            raise JournalFailed(f"{self.path}: {error}") from error
        offset, self._size = self._size, self._size + len(frame)
        return offset

    def read(self, offset: int) -> bytes:
        """The record at an offset that `append` or `records` gave."""
        length, crc = _FRAME.unpack(os.pread(self._descriptor, _FRAME.size, offset))
        payload = os.pread(self._descriptor, length, offset + _FRAME.size)
        if zlib.crc32(payload) != crc:
            raise JournalCorrupt(f"{self.path}: checksum at offset {offset}")
        return payload

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Every record with its offset, oldest first."""
        offset = 0
        while offset < self._size:
            payload = self.read(offset)
            yield offset, payload
            offset += _FRAME.size + len(payload)

    @staticmethod
    def peek(path: Path) -> Iterator[bytes]:
        """The records that a file holds now, oldest first, whoever has it open; up to the first that is not whole."""
        with path.open("rb") as file:
            while len(head := file.read(_FRAME.size)) == _FRAME.size:
                length, crc = _FRAME.unpack(head)
                payload = file.read(length)
                if len(payload) < length or zlib.crc32(payload) != crc:
                    return
                yield payload

    def close(self) -> None:
        """Nothing can be appended or read afterwards. A second close does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._failed, self._descriptor = True, -1

    def _checked_size(self) -> int:
        """Length of the valid prefix."""
        end = os.fstat(self._descriptor).st_size
        offset = 0
        while offset < end:
            head = os.pread(self._descriptor, _FRAME.size, offset)
            if len(head) < _FRAME.size:
                break
            length, crc = _FRAME.unpack(head)
            stop = offset + _FRAME.size + length
            if length == 0 or length > MAX_RECORD_BYTES:
                raise JournalCorrupt(f"{self.path}: impossible length {length} at offset {offset}")
            if stop > end:
                break
            if zlib.crc32(os.pread(self._descriptor, length, offset + _FRAME.size)) != crc:
                if stop == end:
                    break
                raise JournalCorrupt(f"{self.path}: checksum at offset {offset}, and records follow")
            offset = stop
        return offset


def sync_directory(path: Path) -> None:
    """The names in it are on disk on return. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
