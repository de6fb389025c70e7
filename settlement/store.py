"""Where settlement keeps its steps: every event is on disk before the step it allows is taken.

The embedded store is one append-only log; loading it gives each batch's exact step, the vaults, and whether
settlement was halted. It never rewrites what it has written. Worst case: `append` waits for one fdatasync.

The core asks at each start what was sealed last, and must not read years of batches for it: the file `batches.sealed`
beside the log names the frame of a late `Sealed`, from which on the log is read. It saves time and is believed for
nothing else, so it is not synced: where it is missing, damaged or of another log, the log is read from its beginning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from engine.messages.errors import JournalCorrupt
from settlement.appendlog import AppendLog
from settlement.batch import Listed, Sealed, StoredEvent
from settlement.chain.port import VaultListing
from settlement.netting import Batch

__all__ = ["BatchStore", "FileBatchStore", "last_sealed", "listings"]

log = logging.getLogger(__name__)

_Kind = TypeVar("_Kind", Listed, Sealed)
_Event = TypeVar("_Event")
_HEAD_BYTES = 32
"""Of a record: within them stands its type."""
_EVENTS = msgspec.msgpack.Decoder(StoredEvent)
"""Made once: for each of three million records a year it would cost more than to decode the record."""
_SEALED = msgspec.msgpack.Decoder(Sealed)


class BatchStore(Protocol):
    """Keeps the events of all batches."""

    def append(self, event: StoredEvent) -> None:
        """Durable on return. Raises JournalFailed."""

    def events(self) -> Iterator[tuple[int, StoredEvent]]:
        """All stored events, oldest first, each with its place."""

    def sealed(self, place: int) -> Batch:
        """The batch of the `Sealed` at this place. Raises JournalCorrupt."""

    def close(self) -> None: ...


class FileBatchStore:
    """The embedded store: one append-only file, every event synced."""

    def __init__(self, path: Path) -> None:
        """Raises DataDirectoryBusy, JournalCorrupt."""
        self._log = AppendLog(path)

    def append(self, event: StoredEvent) -> None:
        offset = self._log.append(msgspec.msgpack.encode(event))
        if isinstance(event, Sealed):
            _point_at(self._log.path, offset, event)

    def events(self) -> Iterator[tuple[int, StoredEvent]]:
        for offset, payload in self._log.records():
            yield offset, self._decoded(_EVENTS, offset, payload)

    def sealed(self, place: int) -> Batch:
        return self._decoded(_SEALED, place, self._log.read(place)).batch

    def close(self) -> None:
        self._log.close()

    def _decoded(self, decoder: msgspec.msgpack.Decoder[_Event], offset: int, payload: bytes) -> _Event:
        try:
            return decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise JournalCorrupt(f"{self._log.path}: record at offset {offset}: {error}") from error


def listings(path: Path) -> dict[str, VaultListing]:
    """The vaults in a store's file, by asset, also while settlement runs on it; empty if there is no file.

    Raises JournalCorrupt.
    """
    if not path.exists():
        return {}
    listed = (event.listing for event in _only(Listed, AppendLog.peek(path)))
    return {listing.asset: listing for listing in listed}


class _Pointer(msgspec.Struct, frozen=True):
    """Where in the log a `Sealed` stands, and what it says."""

    offset: int
    number: int
    last_sequence: int


def last_sealed(path: Path) -> tuple[int, int]:
    """Number and last sequence of the latest batch in a store's file, also while settlement runs on it; zeros: none.

    Raises JournalCorrupt: the file is not whole, so a later batch may be missing in it. While settlement writes a
    record it is not whole for a moment. Damage before the batch that `batches.sealed` names is settlement's to find.
    """
    if not path.exists():
        return 0, 0
    pointer = _pointer(path)
    return max(_sealed_from(path, pointer.offset if pointer else 0), default=(0, 0))


def _sealed_from(path: Path, offset: int) -> list[tuple[int, int]]:
    sealed = _only(Sealed, AppendLog.peek(path, whole=True, start=offset))
    return [(event.batch.number, event.batch.last_sequence) for event in sealed]


def _only(kind: type[_Kind], payloads: Iterator[bytes]) -> Iterator[_Kind]:
    """The events of one kind; what is surely none is not decoded."""
    name = kind.__name__.encode()
    for payload in payloads:
        event = msgspec.msgpack.decode(payload, type=StoredEvent) if name in payload[:_HEAD_BYTES] else None
        if isinstance(event, kind):
            yield event


def _point_at(path: Path, offset: int, event: Sealed) -> None:
    pointer = _Pointer(offset, event.batch.number, event.batch.last_sequence)
    try:
        partial = path.with_suffix(".sealed.partial")
        partial.write_bytes(msgspec.json.encode(pointer))
        partial.replace(path.with_suffix(".sealed"))
    except OSError as error:
        log.warning("settlement=no_pointer batch=%d error=%s", event.batch.number, error)


def _pointer(path: Path) -> _Pointer | None:
    """What `batches.sealed` says, if the log has just that there."""
    if not path.with_suffix(".sealed").exists():
        return None
    try:
        pointer = msgspec.json.decode(path.with_suffix(".sealed").read_bytes(), type=_Pointer)
        event = msgspec.msgpack.decode(next(AppendLog.peek(path, start=pointer.offset)), type=StoredEvent)
    except (OSError, msgspec.MsgspecError, JournalCorrupt, StopIteration) as error:
        log.warning("settlement=bad_pointer error=%s", error)  # all of the log is read, and raises it
        return None
    is_there = isinstance(event, Sealed) and (event.batch.number, event.batch.last_sequence) == (
        pointer.number, pointer.last_sequence
    )  # fmt: skip
    return pointer if is_there else None
