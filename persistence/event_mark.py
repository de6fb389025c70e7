"""How far the event log is on disk: what lets a start after a loss of power go on from a snapshot.

    DATA/events/kept    header of 128 bytes · CRC32C of each whole file · the used part of the file begun · its index

The event log is mapped and never synced while it is written, so a boot of the machine leaves anything of it. A mark
goes with a snapshot: it names its sequence and chain word, all files that were full by then are synced and summed,
and the one that was begun is copied into the mark: to sync a file while it is written would make the next store to
each of its pages wait. Written under a temporary name, synced, renamed: a mark means that all it names is on disk.

A start of another boot takes a mark only with the snapshot that it names, and looks at the newest files first, those
that a lying disk may have lost: CHECKED_FILES of them (1 GiB, about half a second); `verify` looks at all of them.
Never: syncs what the writer may still store to; believes a file of another length or sum among those it looks at.
Cost: what the exchange said since the last mark goes to disk at half the disk's pace at most.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.messages import layout
from files.durable import write_whole
from persistence.event_log import INDEX_SLOTS, MARK, EventLogWriter, file_bytes, file_name
from persistence.ring import crc32c

__all__ = ["CHECKED_FILES", "EventKeeper", "Mark", "damaged_file", "read_mark"]

MAGIC = b"BYLINEK\0"
FORMAT = 1
CHECKED_FILES = 64
CHUNK_BYTES = 256 * 1024
REST_S_MAX = 1.0
_HEADER = struct.Struct("<8sII16sQQQQQQI40xI")
assert _HEADER.size == 128


@dataclass(frozen=True, slots=True)
class Mark:
    identity: bytes
    """Of the journal."""
    generation: int
    file_slots: int
    sequence: int
    chain: int
    """The journal's chain word of that sequence."""
    slots: int
    """In the whole log, up to the end of that sequence."""
    sums: tuple[int, ...]
    """CRC32C of the whole files, in order."""
    tail: bytes
    """Slots of the file begun, as they stand in it."""
    index: bytes
    """Of that file: 16 bytes for each INDEX_SLOTS slots."""


def read_mark(directory: Path) -> Mark | None:
    """The mark of the event log in `directory`; None if there is none, or none that can be believed.

    Raises:
        OSError: it exists and cannot be read.
    """
    try:
        data = (directory / MARK).read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, version, file_slots, identity, generation, sequence, chain, slots, whole, tail, body_sum, head_sum = (
        _HEADER.unpack_from(data)
    )
    if magic != MAGIC or version != FORMAT or crc32c(data[: _HEADER.size - 4]) != head_sum:
        return None
    body = data[_HEADER.size :]
    if len(body) != 4 * whole + tail + 16 * (file_slots // INDEX_SLOTS) or crc32c(body) != body_sum:
        return None
    sums = struct.unpack_from(f"<{whole}I", body)
    return Mark(
        identity, generation, file_slots, sequence, chain, slots, sums,
        body[4 * whole : 4 * whole + tail], body[4 * whole + tail :],
    )  # fmt: skip


def damaged_file(directory: Path, mark: Mark, newest: int | None = CHECKED_FILES) -> str:
    """The name of the first file that is not what `mark` says, of the `newest` ones or (None) of all; empty: none is.

    Raises:
        OSError: one exists and cannot be read.
    """
    for number in range(max(0, len(mark.sums) - newest) if newest is not None else 0, len(mark.sums)):
        name = file_name(mark.generation, number)
        try:
            if (directory / name).stat().st_size != file_bytes(mark.file_slots):
                return name
            if _sum(directory / name) != mark.sums[number]:
                return name
        except FileNotFoundError:
            return name
    return ""


class EventKeeper:
    """Makes marks of one event log, one at a time.

    `at` on the thread that appends; then `keep` on any other.
    """

    def __init__(self, directory: Path, event_log: EventLogWriter, identity: bytes) -> None:
        """`identity` is the journal's. A mark that is there already spares the files it names."""
        self._directory, self._event_log, self._identity = directory, event_log, identity
        before = read_mark(directory)
        fits = before is not None and (before.identity, before.generation) == (identity, event_log.generation)
        self._sums: list[int] = list(before.sums) if before is not None and fits else []
        self._failure: OSError | None = None
        self.sequence = before.sequence if before is not None and fits else 0
        """Of the last mark."""

    def at(self) -> tuple[int, int]:
        """The place that a mark can be made of now: the last appended sequence, and the slots up to its end."""
        return self._event_log.sequence, self._event_log.slot_count

    def keep(self, at: tuple[int, int], chain: int, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Bring the log up to the place `at` to the disk, and mark it. False: `is_over` said so before the end.

        `chain` is the journal's chain word of that sequence; there is a snapshot of it.

        Raises:
            OSError: the disk refuses, now or (no second sync is believed) before. The mark before this one stands.
        """
        if self._failure is not None:
            raise OSError(self._failure.errno, f"event log: an earlier sync failed: {self._failure}")
        sequence, slots = at
        file_slots, generation = self._event_log.file_slots, self._event_log.generation
        whole, begun = divmod(slots, file_slots)
        while len(self._sums) < whole:
            if is_over():
                return False
            began = time.monotonic()
            self._sums.append(self._synced(self._directory / file_name(generation, len(self._sums))))
            time.sleep(min(REST_S_MAX, time.monotonic() - began))  # so that the journal's own syncs find room
        sums = tuple(self._sums[:whole])
        tail, index = self._begun(self._directory / file_name(generation, whole), begun, slots)
        mark = Mark(self._identity, generation, file_slots, sequence, chain, slots, sums, tail, index)
        _write(self._directory, mark)
        self.sequence = sequence
        return True

    def _synced(self, path: Path) -> int:
        """The sum of a whole file that is on disk on return."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            self._failure = error
            raise
        finally:
            os.close(descriptor)
        return _sum(path)

    def _begun(self, path: Path, count: int, slots: int) -> tuple[bytes, bytes]:
        """The first `count` slots of the file begun, and its index without what lies behind them."""
        file_slots = self._event_log.file_slots
        first = slots - count
        index = np.zeros((file_slots // INDEX_SLOTS, 2), np.uint64)
        if not count:
            return b"", index.tobytes()
        with path.open("rb", buffering=0) as file:
            tail = b"".join(
                os.pread(file.fileno(), min(CHUNK_BYTES, count * layout.SLOT_BYTES - offset), offset)
                for offset in range(0, count * layout.SLOT_BYTES, CHUNK_BYTES)
            )
            raw = os.pread(file.fileno(), index.nbytes, file_slots * layout.SLOT_BYTES)
        # An entry behind the place may be half written at this moment: only those that lie where they say count.
        entries = np.frombuffer(raw, np.uint64).reshape(index.shape)
        blocks = np.uint64(first) + np.arange(len(index), dtype=np.uint64) * np.uint64(INDEX_SLOTS)
        sound = (entries[:, 1] > 0) & (entries[:, 0] >= blocks) & (entries[:, 0] < np.uint64(slots))
        index[sound] = entries[sound]
        return tail, index.tobytes()


def _sum(path: Path) -> int:
    found = 0
    with path.open("rb", buffering=0) as file:
        while part := file.read(CHUNK_BYTES):
            found = crc32c(part, found)
    return found


def _write(directory: Path, mark: Mark) -> None:
    body = struct.pack(f"<{len(mark.sums)}I", *mark.sums) + mark.tail + mark.index
    fields = _HEADER.pack(
        MAGIC, FORMAT, mark.file_slots, mark.identity, mark.generation, mark.sequence, mark.chain, mark.slots,
        len(mark.sums), len(mark.tail), crc32c(body), 0,
    )[:-4]  # fmt: skip
    write_whole(directory / MARK, fields + struct.pack("<I", crc32c(fields)) + body)
