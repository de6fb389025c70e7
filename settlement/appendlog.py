"""An append-only file of records that are on disk when `append` returns.

    file    = frame frame …
    frame   = length u32 LE | crc32 u32 LE of the payload | payload

A frame that is not whole and has none behind it is a write that a crash cut short: it was never acknowledged, and
opening cuts it off. A crash leaves less than the frame, or zeros for whole sectors of it. Damage before the last frame,
or in a last one that is all there, is no crash but a broken disk: opening refuses. (A last frame of which a sector held
zeros anyway cannot be told from a torn one.) One process writes a file at a time (an advisory lock says so).

The last frame is the one that may not be on disk: of a process that was killed it may lie in the page cache alone, and
after a failed sync the kernel takes its pages for clean although they never reached the disk (Rebello et al., ATC
2020). So opening writes it again as it stands, and syncs, before anybody reads it. Nothing else is ever written twice.

A full disk is no broken one: what was written of that record is cut off again, and the next one is tried. A failed
sync, or anything else, is final: the file takes nothing more until it is opened again.

Worst case: `append` waits for one fdatasync. Opening reads the whole file once, a megabyte at a time: 1 µs a small
record.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from engine.messages.errors import DataDirectoryBusy, JournalCorrupt, JournalFailed
from files.durable import sync_directory

__all__ = ["AppendLog"]

_FRAME = struct.Struct("<II")
MAX_RECORD_BYTES = 64 * 1024 * 1024
SECTOR = 512
_BLOCK_BYTES = 1 << 20


class AppendLog:
    """One open file. Not safe for several threads."""

    def __init__(self, path: Path) -> None:
        """Open or create. What is there is durable on return.

        Raises:
            DataDirectoryBusy: another process holds the file.
            JournalCorrupt: damage that no crash makes.
            JournalFailed: the disk refuses.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.failed = ""
        """Why nothing more is taken; empty: it is."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise DataDirectoryBusy(f"{path} is held by another process") from error
        try:
            last, self._size = self._checked_end()
            self._settle(last)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, payload: bytes) -> int:
        """Add a record and return its offset. It is durable when this returns.

        Raises:
            JournalFailed: the write or the sync failed; see `failed`.
        """
        assert 0 < len(payload) <= MAX_RECORD_BYTES, len(payload)
        if self.failed:
            raise JournalFailed(f"{self.path}: an earlier write failed: {self.failed}")
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            self._write(self._size, frame)
        except OSError as error:
            self.failed = "" if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._is_taken_back() else str(error)
            raise JournalFailed(f"{self.path}: {error}") from error
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self.failed = str(error)
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
            begin = offset
            for place, payload in _block(self._descriptor, begin, self._size):
                yield place, payload
                offset = place + _FRAME.size + len(payload)
            if offset == begin:  # longer than a block, or damaged meanwhile
                payload = self.read(offset)
                yield offset, payload
                offset += _FRAME.size + len(payload)

    @staticmethod
    def peek(path: Path, *, whole: bool = False, start: int = 0) -> Iterator[bytes]:
        """The records that a file holds now, oldest first, whoever has it open; from the one at offset `start` on. Of a
        last one that is not whole, which somebody may be writing, nothing is told; unless `whole`, for whom less than
        everything is no answer.

        Raises JournalCorrupt: damage that no crash makes, or `whole` and the last one is not.
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            for _, payload in _frames(descriptor, path, whole=whole, start=start):
                yield payload
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Nothing can be appended or read afterwards. A second close does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self.failed, self._descriptor = "it is closed", -1

    def _settle(self, last: int) -> None:
        """Cut off what a crash left behind the valid frames, and make the last of them durable."""
        try:
            os.ftruncate(self._descriptor, self._size)
            self._write(last, os.pread(self._descriptor, self._size - last, last))
            os.fsync(self._descriptor)
            sync_directory(self.path.parent)
        except OSError as error:
            raise JournalFailed(f"{self.path}: its end cannot be written again: {error}") from error

    def _is_taken_back(self) -> bool:
        """A record that found no space is cut off again: nothing of it was synced, and nobody has been told of it."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:  # then the first error stands, and the log takes no more
            return False
        return True

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def _checked_end(self) -> tuple[int, int]:
        """Where the last valid frame begins, and where it ends."""
        last = end = 0
        for last, payload in _frames(self._descriptor, self.path):
            end = last + _FRAME.size + len(payload)
        return last, end


def _frames(descriptor: int, path: Path, *, whole: bool = False, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Offset and payload of each frame, up to a last one that is not whole, which `whole` refuses. What a block ends in
    is read again with the next, all else once.

    Raises JournalCorrupt.
    """
    offset = start
    while offset < (end := os.fstat(descriptor).st_size):
        begin = offset
        for place, payload in _block(descriptor, begin, end):
            yield place, payload
            offset = place + _FRAME.size + len(payload)
        if offset != begin:
            continue
        payload, problem = _frame_at(descriptor, offset, end)
        if problem and not _is_last(descriptor, offset, end):
            payload, problem = _frame_at(descriptor, offset, end)  # its writer may have begun anew meanwhile
            if problem:
                raise JournalCorrupt(f"{path}: {problem} at offset {offset}, and records follow")
        if problem and not _is_torn(descriptor, offset, end):
            payload, problem = _frame_at(descriptor, offset, end)
            if problem:
                raise JournalCorrupt(f"{path}: {problem} at offset {offset} of a record that was written whole")
        if problem and whole:
            raise JournalCorrupt(f"{path}: {problem} at offset {offset}: its last record is not whole")
        if problem:
            return
        yield offset, payload
        offset += _FRAME.size + len(payload)


def _block(descriptor: int, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Offset and payload of the frames from `offset` on that lie whole and right in the block read there.

    None: the first one is longer than a block, cut off, or damaged.
    """
    block = os.pread(descriptor, min(_BLOCK_BYTES, end - offset), offset)
    begin = _FRAME.size
    while begin < len(block):
        length, crc = _FRAME.unpack_from(block, begin - _FRAME.size)
        payload = block[begin : begin + length]
        if not 0 < length == len(payload) or zlib.crc32(payload) != crc:
            return
        yield offset + begin - _FRAME.size, payload
        begin += length + _FRAME.size


def _frame_at(descriptor: int, offset: int, end: int) -> tuple[bytes, str]:
    """The payload of the frame, and what is wrong with it: empty if it is whole."""
    head = os.pread(descriptor, _FRAME.size, offset)
    if len(head) < _FRAME.size:
        return b"", "no head"
    length, crc = _FRAME.unpack(head)
    if not 0 < length <= MAX_RECORD_BYTES or offset + _FRAME.size + length > end:
        return b"", f"impossible length {length}"
    payload = os.pread(descriptor, length, offset + _FRAME.size)
    return payload, "" if zlib.crc32(payload) == crc else "checksum"


def _is_last(descriptor: int, offset: int, end: int) -> bool:
    """Whether no whole frame stands behind the broken one: such were durable before it broke, so no crash broke it."""
    rest = os.pread(descriptor, min(end - offset, _FRAME.size + MAX_RECORD_BYTES), offset)
    if len(rest) < end - offset:
        return False
    for place in range(1, len(rest) - _FRAME.size):
        length = _FRAME.unpack_from(rest, place)[0]
        if 0 < length <= len(rest) - place - _FRAME.size and not _frame_at(descriptor, offset + place, end)[1]:
            return False
    return True


def _is_torn(descriptor: int, offset: int, end: int) -> bool:
    """Whether a crash may have left this of the last frame: the file ends sooner, or sectors of it are zeros."""
    data = os.pread(descriptor, end - offset, offset)
    if len(data) < _FRAME.size:
        return True
    edges = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR), len(data)]
    if any(not data[begin:stop].strip(b"\0") for begin, stop in pairwise(edges)):
        return True
    length, crc = _FRAME.unpack_from(data)
    is_short: bool = _FRAME.size + length > len(data)
    return is_short and zlib.crc32(data[_FRAME.size :]) != crc  # where the sum is right, the length was changed
