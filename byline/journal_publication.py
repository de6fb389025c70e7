"""`byline journal publish` and `byline verify journal`: the journal without names, and its replay by anyone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from byline.settings import Settings
from engine.messages import layout
from engine.messages.errors import JournalCorrupt, Unavailable
from persistence import segments
from persistence.disk import DirectoryDisk
from persistence.recovery import Replayer
from settlement.batch_file import BatchFile, read_batch_file
from settlement.chain.reader import NodeReader
from settlement.proof_desk import load_proof_key
from settlement.publication import (
    Entry,
    JournalRefuted,
    ReplayedBooks,
    digest_after,
    published,
    read_entries,
    read_records,
    remember_published,
    write_entry,
)
from settlement.renaming import Renamer
from settlement.verify import Refuted, check_links, verify_batch

__all__ = ["batch_files", "keep_batch_file", "kept_batch_file", "publish_journal", "verify_published"]


class _Enough(Exception):
    """All that is wanted of the journal has been read."""


class _Replay:
    """A core, and the books made from its events."""

    def __init__(self) -> None:
        self.books = ReplayedBooks()
        self._replayer = Replayer(lambda events, _first, _last: self.books.feed(events))

    def batch(self, slots: npt.NDArray[np.void], batch: BatchFile) -> bytes:
        """Apply a batch's records and hold them against its statement. The state hash after it.

        Raises JournalRefuted.
        """
        said = batch.statement
        try:
            self._replayer.apply(slots, said.first_sequence, said.last_sequence)
        except (JournalCorrupt, ValueError) as error:
            raise JournalRefuted(f"batch {said.number}: {error}") from error
        self.books.check(batch)
        return self._replayer.state_hash()


def keep_batch_file(data: Path, number: int, file: bytes) -> None:
    """Keep a final batch's file in the data directory; one that is there stays."""
    path = _kept(data) / f"{number:010d}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(file)
        partial.replace(path)


def kept_batch_file(data: Path, number: int) -> bytes | None:
    """The file of one final batch as it was kept. None: there is none."""
    path = _kept(data) / f"{number:010d}.json"
    return path.read_bytes() if path.exists() else None


def batch_files(data: Path) -> list[BatchFile]:
    """Of all final batches, from 1 without a gap."""
    files: list[BatchFile] = []
    for path in sorted(_kept(data).glob("[0-9]*.json")):
        batch = read_batch_file(path.read_bytes())
        if batch.statement.number != len(files) + 1:
            break
        files.append(batch)
    return files


def publish_journal(settings: Settings, folder: Path, *, console: Console) -> int:
    """Publishes every final batch into `folder`, beside a running exchange or a stopped one. 0: done.

    Each is replayed without names and held against its statement before it is written. Raises Unavailable.
    """
    data = settings.data_directory
    batches = batch_files(data)
    if not batches:
        raise Unavailable(f"{data} has no final batch yet")
    folder.mkdir(parents=True, exist_ok=True)
    renamer, replay = Renamer(load_proof_key(data / "keys" / "proofs.key")), _Replay()
    digest, waiting = bytes(32), list(reversed(batches))
    parts: list[npt.NDArray[np.void]] = []

    def close(batch: BatchFile) -> None:
        nonlocal digest
        said = batch.statement
        slots = renamer.records(np.concatenate(parts))
        parts.clear()
        records = slots.tobytes()
        state, sha = replay.batch(slots, batch), hashlib.sha256(records).digest()
        digest = digest_after(digest, said.number, said.first_sequence, said.last_sequence, sha, state)
        entry = Entry(said.number, said.first_sequence, said.last_sequence, sha, state, digest, batch)
        write_entry(folder, entry, records)

    def take(slots: npt.NDArray[np.void], first: int, last: int) -> None:
        begin = 0
        while begin < len(slots):
            if not waiting:
                raise _Enough
            end = _end_of(slots, begin, waiting[-1].statement.last_sequence)
            parts.append(slots[begin:end].view(layout.COMMAND).copy())
            if int(slots["sequence"][_last_head(slots, begin, end)]) == waiting[-1].statement.last_sequence:
                close(waiting.pop())
            begin = end

    disk = DirectoryDisk(data)
    try:
        segments.scan(disk, segments.list_segments(disk), take)
    except _Enough:
        pass
    except JournalRefuted as error:
        console.print(f"[bold red]NOT PUBLISHED[/] {error}", soft_wrap=True)
        return 1
    if waiting:
        raise Unavailable(f"the journal ends before batch {waiting[-1].statement.number} does")
    if published(data)[0] < len(batches):
        remember_published(data, len(batches), digest)
    console.print(
        f"published {len(batches):,} batches in {folder}, digest {digest.hex()}; the next batch vouches for it",
        soft_wrap=True,
    )
    return 0


@dataclass(slots=True)
class _Found:
    batches: int = 0
    records: int = 0
    vouched: int = 0
    """Last batch whose every byte a statement covers."""
    digests: dict[int, bytes] = field(default_factory=dict)
    last: BatchFile | None = None


def verify_published(folder: Path, node: str | None, *, console: Console) -> int:
    """0: all holds. 1: something differs, and what. Raises Unavailable."""
    try:
        found = _replay_folder(folder, lambda text: console.print(text, soft_wrap=True, markup=False))
        if found.last is None:
            raise JournalRefuted(f"{folder} holds no published batch")
        console.print(
            f"[green]ok[/] {found.batches:,} batches, {found.records:,} records replayed: every state hash, trade, "
            "total and liability root is as stated, and each batch builds on the one before",
            soft_wrap=True,
        )
        console.print(
            f"[green]ok[/] every byte up to batch {found.vouched:,} is vouched for by a later batch; what follows is "
            "bound by its trades and balances",
            soft_wrap=True,
        )
        if node is None:
            console.print("[yellow]!![/] no node was asked: that the statements are on a chain is not checked")
        else:
            asyncio.run(_against_node(found.last, node, console))
    except (JournalRefuted, Refuted) as reason:
        console.print("[bold red]REFUSED[/] ", end="")
        console.print(str(reason), markup=False, soft_wrap=True)
        return 1
    console.print(f"[bold green]VERIFIED[/] the published journal up to batch {found.last.statement.number}")
    return 0


def _replay_folder(folder: Path, say: Callable[[str], None]) -> _Found:
    found, replay, digest, before = _Found(), _Replay(), bytes(32), None
    for entry in read_entries(folder):
        batch = entry.batch
        said = batch.statement
        if (entry.first_sequence, entry.last_sequence) != (said.first_sequence, said.last_sequence):
            raise JournalRefuted(f"batch {entry.number}: entry and statement are of other sequences")
        slots = read_records(folder, entry)
        state = replay.batch(slots, batch)
        if state != entry.state_hash:
            raise JournalRefuted(
                f"batch {entry.number}: state hash {state.hex()} by replay, {entry.state_hash.hex()} as published"
            )
        digest = digest_after(
            digest, entry.number, entry.first_sequence, entry.last_sequence, entry.records_sha256, state
        )
        if digest != entry.digest:
            raise JournalRefuted(f"batch {entry.number}: the digest of the publication is {digest.hex()} by replay")
        found.digests[entry.number] = digest
        try:
            if said.root() != batch.root:
                raise JournalRefuted(f"batch {entry.number}: the statement's hash is not the batch's root")
        except ValueError as error:
            raise JournalRefuted(f"batch {entry.number}: {error}") from error
        if before is None and any(any(link.previous) for link in batch.vaults):
            raise JournalRefuted("batch 1 builds on an earlier one")
        check_links(batch, before)
        if said.published_batch:
            if found.digests.get(said.published_batch) != said.published_digest:
                raise JournalRefuted(
                    f"batch {entry.number} vouches for another publication of batch {said.published_batch}"
                )
            found.vouched = max(found.vouched, said.published_batch)
        found.batches, found.records, found.last, before = entry.number, entry.last_sequence, batch, batch
    return found


async def _against_node(batch: BatchFile, node: str, console: Console) -> None:
    reader = NodeReader(node)
    try:
        async for line in verify_batch(batch, [], reader):
            console.print("[yellow]!![/] " if line.startswith("NOTE") else "[green]ok[/] ", end="")
            console.print(line, markup=False, soft_wrap=True)
    finally:
        await reader.close()


def _end_of(slots: npt.NDArray[np.void], begin: int, last: int) -> int:
    """End of the records up to sequence `last`, from `begin`."""
    at = begin
    while at < len(slots) and int(slots["sequence"][at]) <= last:
        at += int(slots["slots"][at])
    return at


def _last_head(slots: npt.NDArray[np.void], begin: int, end: int) -> int:
    at = begin
    while (after := at + int(slots["slots"][at])) < end:
        at = after
    return at


def _kept(data: Path) -> Path:
    return data / "settlement" / "batches"
