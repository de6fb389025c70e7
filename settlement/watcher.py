"""What the vaults did by themselves: deposits by anyone, forced exits. Read checkpoint by checkpoint, kept on disk.

Owns the cursor and the events after it. Only what stands in a checkpoint is read: nothing here is ever taken back. The
cursor moves with its events in one record, so a crash reads a checkpoint again or not at all.

A deposit in the same transaction as a batch is the settler's own (the embedded chain's faucet): it is no news. All
others are arrivals. What arrived less what forced exits took is a sum for ever; the settler holds it against the pool.

It also remembers which accounts were frozen for the sake of an exit, so that only those are opened again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import msgspec

from settlement.appendlog import AppendLog
from settlement.chain.events import ChainEvent
from settlement.chain.port import ChainPort

__all__ = ["Watcher"]

CHECKPOINTS_PER_READ = 100


class Seen(msgspec.Struct, frozen=True, tag=True):
    """The vault events of checkpoints up to `cursor`, and of none before the last record's."""

    cursor: int
    events: list[ChainEvent]


class Froze(msgspec.Struct, frozen=True, tag=True):
    """Settlement froze this account, or (not `on`) has opened it again."""

    account: str
    on: bool


_RECORDS: msgspec.msgpack.Decoder[Seen | Froze] = msgspec.msgpack.Decoder(Seen | Froze)


class Watcher:
    """One chain, all its vaults."""

    def __init__(self, path: Path) -> None:
        """Raises DataDirectoryBusy, JournalCorrupt."""
        self._log = AppendLog(path)
        self._reading = asyncio.Lock()
        self.cursor: int | None = None
        """The last checkpoint read; None before the first start."""
        self.arrivals: list[ChainEvent] = []
        """Deposits made by others, oldest first."""
        self.exits: list[ChainEvent] = []
        """ExitRequested, ExitCancelled and ExitPaid, oldest first."""
        self.beside: dict[str, int] = defaultdict(int)
        """Vault → units arrived less units left."""
        self.latest: dict[str, int] = {}
        """Vault → checkpoint of the last of its events that was read."""
        self.frozen: set[str] = set()
        """Accounts frozen for an exit, by name."""
        for _, payload in self._log.records():
            self._take(_RECORDS.decode(payload))

    async def begin(self, chain: ChainPort, *, from_the_start: bool) -> None:
        """Fix where reading starts, once: before any vault of ours is there. Raises Unavailable."""
        if self.cursor is None:
            self._store(Seen(0 if from_the_start else await chain.head(), []))

    async def advance(self, chain: ChainPort) -> bool:
        """Read some more checkpoints; whether there may be others. Raises Unavailable."""
        async with self._reading:  # the settler's two tasks both call this: an event must not count twice
            assert self.cursor is not None
            cursor, events = await chain.events(self.cursor, CHECKPOINTS_PER_READ)
            read = cursor - self.cursor
            if events or read >= CHECKPOINTS_PER_READ:
                self._store(Seen(cursor, events))
            else:
                self.cursor = cursor  # nothing in them: reading them again after a crash does no harm
            return read >= CHECKPOINTS_PER_READ

    def note_frozen(self, account: str, on: bool) -> None:
        """Durable on return."""
        self._store(Froze(account, on))

    def close(self) -> None:
        self._log.close()

    def _store(self, record: Seen | Froze) -> None:
        self._log.append(msgspec.msgpack.encode(record))
        self._take(record)

    def _take(self, seen: Seen | Froze) -> None:
        if isinstance(seen, Froze):
            (self.frozen.add if seen.on else self.frozen.discard)(seen.account)
            return
        self.cursor = seen.cursor
        batches = {(event.digest, event.vault) for event in seen.events if event.kind == "BatchCommitted"}
        for event in seen.events:
            self.latest[event.vault] = event.checkpoint
            if event.kind == "Deposited" and (event.digest, event.vault) not in batches:
                self.arrivals.append(event)
                self.beside[event.vault] += event.amount
            elif event.kind.startswith("Exit") and event.kind != "ExitShortfall":
                self.exits.append(event)
                if event.kind == "ExitPaid":
                    self.beside[event.vault] -= event.amount
