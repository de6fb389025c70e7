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
from files.durable import make_directory, write_whole
from persistence.beside import read_beside
from persistence.disk import DirectoryDisk
from persistence.recovery import Replayer
from settlement.batch_file import BatchFile, read_batch_file
from settlement.chain.reader import NodeReader
from settlement.history import check_history
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
from settlement.verify import Refuted, check_executed, check_links, verify_batch

__all__ = ["batch_files", "keep_batch_file", "kept_batch_file", "kept_batches", "publish_journal", "verify_published"]


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
        make_directory(path.parent)
        write_whole(path, file)


def kept_batch_file(data: Path, number: int) -> bytes | None:
    """The file of one final batch as it was kept. None: there is none."""
    path = _kept(data) / f"{number:010d}.json"
    return path.read_bytes() if path.exists() else None


def kept_batches(data: Path) -> set[int]:
    """Numbers of the batches whose files are kept."""
    folder = _kept(data)
    return {int(path.stem) for path in folder.glob("[0-9]*.json")} if folder.exists() else set()


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
        raise Unavailable(f"{data} has no final batch yet: `byline settle status` says what settlement waits for")
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
            end = _end_of(slots, begin, waiting[-1].statement.last_sequence)
            parts.append(slots[begin:end].view(layout.COMMAND).copy())
            if int(slots["sequence"][_last_head(slots, begin, end)]) == waiting[-1].statement.last_sequence:
                close(waiting.pop())
            begin = end

    disk = DirectoryDisk(data)
    try:
        # A batch is final: whatever became of the mark, its records were durable when it was cut.
        read_beside(disk, take, to=batches[-1].statement.last_sequence, known=True)
    except JournalRefuted as error:
        console.print(f"[bold red]NOT PUBLISHED[/] {error}", soft_wrap=True)
        return 1
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
    """Last batch whose records and state hash a later statement covers."""
    vouching: int = 0
    """The batch of that statement."""
    unbacked: dict[str, int] = field(default_factory=dict)
    """Asset → in how many batches it was owed and no vault took part for it."""
    digests: dict[int, bytes] = field(default_factory=dict)
    last: BatchFile | None = None


def verify_published(folder: Path, node: str | None, *, console: Console) -> int:
    """0: all holds. 1: something differs, and what. Raises Unavailable."""

    def ok(text: str) -> None:
        console.print("[green]ok[/] ", end="")
        console.print(text, soft_wrap=True, markup=False)

    def note(text: str) -> None:
        console.print("[yellow]!![/] ", end="")
        console.print(text, soft_wrap=True, markup=False)

    try:
        with console.status("") as shown:
            found = _replay_folder(folder, lambda text: shown.update(text))
        if found.last is None:
            raise JournalRefuted(f"{folder} holds no published batch")
        ok(
            f"{found.batches:,} batches, {found.records:,} records replayed: every state hash, trade, total and "
            "liability root is as stated, and each batch builds on the one before"
        )
        if found.vouched:
            ok(
                f"every record and state hash up to batch {found.vouched:,} is vouched for by the statement of batch "
                f"{found.vouching:,}; what follows is bound by its trades and balances"
            )
        else:
            note("no statement vouches for these records yet: they are bound by their trades and balances alone")
        for asset, count in found.unbacked.items():
            note(f"{asset} was owed in {count:,} batches without a vault: there NOTHING shows that it is held")
        if node is None:
            note(
                "no node was asked: that the statements are on a chain, and which transactions, vaults and coins they "
                "went to, is not checked"
            )
        else:
            asyncio.run(_against_node(folder, found.last, node, ok, note, console))
    except (JournalRefuted, Refuted) as reason:
        console.print("[bold red]REFUSED[/] ", end="")
        console.print(str(reason), markup=False, soft_wrap=True)
        return 1
    console.print(f"[bold green]VERIFIED[/] the published journal up to batch {found.last.statement.number}")
    return 0


def _replay_folder(folder: Path, tell: Callable[[str], None]) -> _Found:
    """Runs every record again. `tell` hears how far it is."""
    found, replay, digest, before = _Found(), _Replay(), bytes(32), None
    for entry in read_entries(folder):
        batch = entry.batch
        said = batch.statement
        tell(f"replaying batch {entry.number:,}, sequence {entry.first_sequence:,} …")
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
            if said.published_batch > found.vouched:
                found.vouched, found.vouching = said.published_batch, said.number
        backed = {link.asset for link in batch.vaults}
        for item in said.assets:
            if item.owed and item.asset not in backed:
                found.unbacked[item.asset] = found.unbacked.get(item.asset, 0) + 1
        found.batches, found.records, found.last, before = entry.number, entry.last_sequence, batch, batch
    return found


async def _against_node(
    folder: Path,
    last: BatchFile,
    node: str,
    ok: Callable[[str], None],
    note: Callable[[str], None],
    console: Console,
) -> None:
    """The last batch as `byline verify` has it, then the transactions of all before. Raises Refuted, Unavailable."""
    reader, number = NodeReader(node), last.statement.number
    try:
        async for line in verify_batch(last, [], reader):
            (note if line.startswith("NOTE") else ok)(line.removeprefix("NOTE "))
        if number == 1:
            return
        package = (await check_executed(last, reader)).package
        earlier = (entry.batch for entry in read_entries(folder) if entry.number < number)
        with console.status("") as shown:
            first = await check_history(
                earlier, package, reader, lambda at: shown.update(f"batch {at:,} of {number:,} at the node …")
            )
    finally:
        await reader.close()
    if first > 1:
        note(
            f"the node has dropped the transactions of batches 1 to {first - 1:,}: which transactions those entries "
            "name, and what the vaults held then, is not checked; their statements are bound by the later batches"
        )
    if first < number:
        ok(
            f"the transactions of batches {first:,} to {number - 1:,} took effect, and committed exactly what is "
            "stated to exactly these vaults; in each of them every vault held what was owed"
        )


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
