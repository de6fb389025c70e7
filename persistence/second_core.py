"""A second core that follows the journal of a running one, and stops at the sequences it is asked for.

It owes the running core nothing: same records, own state. Whoever compares the two at a cut finds a core whose memory
went wrong, and one whose events do not say what it did.

Reads only, beside the writer, up to the sequence asked for (`persistence.beside`). Cost: the memory of a core; the
journal once from its first record, 4 M records/s, then what is new, and the last segment's checks again for each
question.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from engine.limits import CoreLimits
from engine.messages.errors import JournalCorrupt, Unavailable
from engine.messages.ports import Disk
from persistence.beside import read_beside
from persistence.recovery import Replayer, cut_hashes

__all__ = ["SecondCore"]


class SecondCore:
    """From the first record on; questions go forward. One question at a time: threads wait for each other."""

    def __init__(self, disk: Disk, limits: CoreLimits | None = None) -> None:
        self._disk = disk
        self._replayer = Replayer(self._see, limits)
        self._sequence = 0
        self._cut = (0, b"")
        """Sequence and state hash of the latest cut."""
        self._asking = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """A question that is under way in another thread ends soon, and none is answered any more."""
        self._is_closed = True

    def at_cut(self, sequence: int) -> tuple[bytes, npt.NDArray[np.void]]:
        """State hash of the cut with that sequence, and the balances then (account, asset, available, held).

        Raises:
            Unavailable: it is not durable yet, or this is closed.
            JournalCorrupt: the journal is damaged before it, or the record is no cut.
            ValueError: it lies before an earlier question.
        """
        with self._asking:
            return self._at_cut(sequence)

    def _at_cut(self, sequence: int) -> tuple[bytes, npt.NDArray[np.void]]:
        if sequence < self._sequence:
            raise ValueError(f"sequence {sequence} is passed: the second core is at {self._sequence}")
        if sequence > self._sequence:
            self._advance(sequence)
        if self._cut[0] != sequence:
            raise JournalCorrupt(f"sequence {sequence} of the journal is no cut")
        return self._cut[1], self._replayer.balances()

    def _advance(self, target: int) -> None:
        def take(slots: npt.NDArray[np.void], first: int, last: int) -> None:
            if self._is_closed:
                raise Unavailable("the second core is closed")
            self._replayer.apply(slots, first, last)
            self._sequence = last

        read_beside(self._disk, take, to=target, after=self._sequence)

    def _see(self, events: npt.NDArray[np.void], _first: int, _last: int) -> None:
        for cut in cut_hashes(events):
            self._cut = cut
