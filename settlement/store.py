"""Where settlement keeps its steps: every event is on disk before the step it allows is taken.

The embedded store is one append-only log; loading it gives each batch's exact step, the vaults, and whether
settlement was halted. It never rewrites what it has written. Worst case: `append` waits for one fdatasync.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from engine.messages.errors import JournalCorrupt
from settlement.appendlog import AppendLog
from settlement.batch import Listed, Sealed, StoredEvent
from settlement.chain.port import VaultListing

__all__ = ["BatchStore", "FileBatchStore", "last_sealed", "listings"]


class BatchStore(Protocol):
    """Keeps the events of all batches."""

    def append(self, event: StoredEvent) -> None:
        """Durable on return. Raises JournalFailed."""

    def events(self) -> Iterator[StoredEvent]:
        """All stored events, oldest first."""

    def close(self) -> None: ...


class FileBatchStore:
    """The embedded store: one append-only file, every event synced."""

    def __init__(self, path: Path) -> None:
        """Raises DataDirectoryBusy, JournalCorrupt."""
        self._log = AppendLog(path)

    def append(self, event: StoredEvent) -> None:
        self._log.append(msgspec.msgpack.encode(event))

    def events(self) -> Iterator[StoredEvent]:
        for offset, payload in self._log.records():
            try:
                yield msgspec.msgpack.decode(payload, type=StoredEvent)
            except msgspec.MsgspecError as error:
                raise JournalCorrupt(f"{self._log.path}: record at offset {offset}: {error}") from error

    def close(self) -> None:
        self._log.close()


def listings(path: Path) -> dict[str, VaultListing]:
    """The vaults in a store's file, by asset, also while settlement runs on it; empty if there is no file.

    Raises JournalCorrupt.
    """
    if not path.exists():
        return {}
    events = (msgspec.msgpack.decode(payload, type=StoredEvent) for payload in AppendLog.peek(path))
    return {event.listing.asset: event.listing for event in events if isinstance(event, Listed)}


def last_sealed(path: Path) -> tuple[int, int]:
    """Number and last sequence of the latest batch in a store's file, also while settlement runs on it; zeros: none.

    Raises JournalCorrupt: the file is not whole, so a later batch may be missing in it. While settlement writes a
    record it is not whole for a moment.
    """
    if not path.exists():
        return 0, 0
    events = (msgspec.msgpack.decode(payload, type=StoredEvent) for payload in AppendLog.peek(path, whole=True))
    sealed = [(event.batch.number, event.batch.last_sequence) for event in events if isinstance(event, Sealed)]
    return max(sealed, default=(0, 0))
