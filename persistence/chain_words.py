"""The chain word of any record of a journal, read beside its writer.

A chain word depends on every record before it: who kept the word of the last record that it has taken in knows by one
comparison whether the journal there now is the one that it followed, or another that was cut, restored and gone on.

Reads only what the writer has written; a record of which a part is there yet is not there. Keeps one place: questions
that go forward cost what lies between them, others their segment, 0.1 s at most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.messages.ports import Disk
from persistence import segments
from persistence.ring import scan_records

__all__ = ["ChainWords"]


class ChainWords:
    """One journal, one thread at a time."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._path = ""
        self._raw: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._at = self._sequence = self._chain = 0

    def word(self, sequence: int) -> int | None:
        """The chain word of record `sequence`, 0 being before the first; None: the journal does not reach so far.

        Raises:
            JournalCorrupt: the head of its segment is damaged.
            OSError: the disk refuses.
        """
        if self._path and sequence >= self._sequence and self._reach(sequence):
            return self._chain  # in the segment that was asked for last: no look at the directory
        path = self._segment_of(sequence)
        if path is None:
            return None
        if path != self._path or sequence < self._sequence:
            self._open(path)
        if sequence < self._sequence:  # the file has another name than its head says, or is the first one's
            return None
        return self._chain if self._reach(sequence) else None

    def _reach(self, sequence: int) -> bool:
        """Read on in this segment. False: the record is not in it, or not yet."""
        while self._sequence < sequence:
            before, end = self._at, len(self._raw) // 128
            self._at, self._sequence, self._chain, _ = scan_records(
                self._raw, self._at, end, sequence - self._sequence, self._sequence, self._chain
            )
            if self._at == before:
                return False
        return True

    def _segment_of(self, sequence: int) -> str | None:
        """The last segment that begins at or before the record, or right behind it."""
        named = f"{max(1, sequence):020d}{segments.SUFFIX}"
        names = [
            name for name in self._disk.list(segments.DIRECTORY) if name.endswith(segments.SUFFIX) and name <= named
        ]
        return f"{segments.DIRECTORY}/{max(names)}" if names else None

    def _open(self, path: str) -> None:
        data = segments.view(self._disk, path)
        header = segments.read_header(path, data)
        self._path, self._raw = path, np.frombuffer(data, np.uint8, offset=segments.HEADER_BYTES)
        self._at, self._sequence, self._chain = 0, header.first_sequence - 1, header.previous_chain
