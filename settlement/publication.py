"""The published journal: its files, its digest, and the check of one batch of it. Pure but for reading and writing.

A folder with two files a batch and nothing else that counts:

    0000000012.records    the command records of batch 12 (128-byte slots, docs/journal.md) with tokens for names
    0000000012.json       `Entry`: sequences, digests and the state hash after the cut, and the batch file

    digest(n) = SHA-256(06 | digest(n - 1) | n u64 | first u64 | last u64 | SHA-256(records) | state hash)

digest(0) is zeros. What binds a batch of it to the chain, when anybody replays it: its trades have the trades digest,
its balances under their ids the liability root, of the statement whose hash is in the vaults. The rest (orders that
never traded, refs) is bound by the next statement that names a publication: `published_digest` covers every byte of
every batch up to `published_batch`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from engine.messages import layout
from files.durable import write_whole
from settlement.batch_file import BatchFile
from settlement.ledger import Cut, Disagreement, Ledger
from settlement.liabilities import Liabilities
from settlement.renaming import id_of_name

__all__ = ["Entry", "JournalRefuted", "ReplayedBooks", "digest_after", "published", "read_entries", "read_records",
           "remember_published", "write_entry"]  # fmt: skip


class JournalRefuted(Exception):
    """The published journal is not what the batches say; the text is the reason."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One batch of the published journal. Binary fields are base64 in the file."""

    number: int
    first_sequence: int
    last_sequence: int
    records_sha256: bytes
    state_hash: bytes
    """Of a core that replayed the published records up to here; not the one of the statement, which has names in it."""
    digest: bytes
    batch: BatchFile


class ReplayedBooks:
    """Ledger and trees of a replay of published records. Feed all events, then `check` what each cut gives."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._owed = Liabilities(bytes(32), keep=1, identify=id_of_name)
        self._roots: dict[int, tuple[Cut, bytes, dict[str, int]]] = {}

    def feed(self, slots: npt.NDArray[np.void]) -> None:
        """Events of the core. Raises JournalRefuted if they contradict each other."""
        try:
            for cut in self._ledger.feed(slots):
                self._ledger.check()
                root, totals = self._owed.close(cut.batch, self._ledger)
                self._roots[cut.batch] = cut, root, totals
                self._ledger.start_period()
        except (Disagreement, ValueError) as error:
            raise JournalRefuted(f"the replay contradicts itself: {error}") from error

    def check(self, batch: BatchFile) -> Cut:
        """The replay has passed this batch's cut. Raises JournalRefuted with what differs from its statement."""
        said = batch.statement
        if said.number not in self._roots:
            raise JournalRefuted(f"batch {said.number}: the replay makes no cut of that number")
        cut, root, totals = self._roots.pop(said.number)
        for what, replayed, stated in (
            ("first sequence", cut.first_sequence, said.first_sequence),
            ("last sequence", cut.last_sequence, said.last_sequence),
            ("time of the cut", cut.ts, said.cut_ts),
            ("number of trades", cut.trade_count, said.trade_count),
            ("digest of the trades", cut.trades_digest.hex(), said.trades_digest.hex()),
            ("total owed", list(totals.items()), [(item.asset, item.owed) for item in said.assets]),
            ("liability root", root.hex(), said.liability_root.hex()),
        ):
            if replayed != stated:
                raise JournalRefuted(f"batch {said.number}: the {what} is {replayed} by replay, {stated} as stated")
        return cut


def digest_after(before: bytes, number: int, first: int, last: int, records_sha256: bytes, state_hash: bytes) -> bytes:
    numbers = b"".join(value.to_bytes(8, "little") for value in (number, first, last))
    return hashlib.sha256(b"\6" + before + numbers + records_sha256 + state_hash).digest()


def write_entry(folder: Path, entry: Entry, records: bytes) -> None:
    """Both files, the second only when the first is on disk. What is there already must be the same.

    Raises JournalRefuted if another publication stands there.
    """
    for path, data in (
        (_path(folder, entry.number, "records"), records),
        (_path(folder, entry.number, "json"), msgspec.json.encode(entry)),
    ):
        if path.exists():
            if path.read_bytes() != data:
                raise JournalRefuted(f"{path} was published otherwise; a publication is never changed")
            continue
        write_whole(path, data)


def read_entries(folder: Path) -> Iterator[Entry]:
    """From batch 1 without a gap. Raises JournalRefuted."""
    paths = sorted(folder.glob("[0-9]*.json"))
    for number, path in enumerate(paths, 1):
        if path != _path(folder, number, "json"):
            raise JournalRefuted(f"batch {number} is missing: after it there is {path.name}")
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise JournalRefuted(f"{path.name} is no entry: {error}") from error
        if not entry.number == entry.batch.statement.number == number:
            raise JournalRefuted(f"{path.name} is of batch {entry.number} and {entry.batch.statement.number}")
        yield entry


def read_records(folder: Path, entry: Entry) -> npt.NDArray[np.void]:
    """Raises JournalRefuted if they are missing or not those of the entry."""
    try:
        data = _path(folder, entry.number, "records").read_bytes()
    except FileNotFoundError as error:
        raise JournalRefuted(f"batch {entry.number}: its records are missing") from error
    if len(data) % layout.SLOT_BYTES or hashlib.sha256(data).digest() != entry.records_sha256:
        raise JournalRefuted(f"batch {entry.number}: the records have another SHA-256 than its entry says")
    return np.frombuffer(data, layout.COMMAND)


def published(data: Path) -> tuple[int, bytes]:
    """Last batch of the published journal and its digest, (0, zeros) while nothing is published."""
    try:
        number, digest = (data / "settlement" / "published").read_text().split()
    except FileNotFoundError:
        return 0, bytes(32)
    return int(number), bytes.fromhex(digest)


def remember_published(data: Path, number: int, digest: bytes) -> None:
    """From the next batch on statements vouch for it."""
    write_whole(data / "settlement" / "published", f"{number} {digest.hex()}\n".encode())


def _path(folder: Path, number: int, kind: str) -> Path:
    return folder / f"{number:010d}.{kind}"
