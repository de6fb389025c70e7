"""The life of a batch: one table of transitions, and the store that keeps every step before the next is taken.

    open ──seal──▶ sealed ──sign──▶ signed ──send──▶ submitted ──executed──▶ final
                     ▲  ▲                              │  │ send: the same bytes again
                     │  └──────────refused─────────────┘  │
                     └─────────part_executed──────────────┘          any ──disagree──▶ halted

1. The batch is stored before anything is signed, the signed bytes before anything is sent.
2. On doubt the chain is asked by digest, and the same bytes are sent again: they take effect at most once.
3. Only a definite refusal allows new bytes, for the same number: the contract refuses a number twice.
4. One batch is in flight. A disagreement halts and says so; a person decides.

The store is an append-only log; loading it gives each batch's exact step. A projection into a database is somebody
else's, made from the records that the settler hands out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

import msgspec

from engine.messages.errors import JournalCorrupt
from settlement.appendlog import AppendLog
from settlement.chain.port import Execution, Signed, VaultListing
from settlement.netting import Batch

__all__ = ["BatchStore", "FileBatchStore", "Life", "State", "Step", "StoredEvent", "TRANSITIONS"]


class State(Enum):
    OPEN = "open"
    SEALED = "sealed"
    SIGNED = "signed"
    SUBMITTED = "submitted"
    FINAL = "final"
    HALTED = "halted"


class Step(Enum):
    SEAL = "seal"
    SIGN = "sign"
    SEND = "send"
    REFUSED = "refused"
    PART_EXECUTED = "part_executed"
    EXECUTED = "executed"
    DISAGREE = "disagree"


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.OPEN, Step.SEAL): State.SEALED,
    (State.SEALED, Step.SIGN): State.SIGNED,
    (State.SIGNED, Step.SEND): State.SUBMITTED,
    (State.SUBMITTED, Step.SEND): State.SUBMITTED,
    (State.SUBMITTED, Step.REFUSED): State.SEALED,
    (State.SUBMITTED, Step.PART_EXECUTED): State.SEALED,
    (State.SUBMITTED, Step.EXECUTED): State.FINAL,
    (State.SEALED, Step.DISAGREE): State.HALTED,
    (State.SIGNED, Step.DISAGREE): State.HALTED,
    (State.SUBMITTED, Step.DISAGREE): State.HALTED,
}


class _Tagged(msgspec.Struct, frozen=True, tag=True):
    """One stored event. `at` is wall clock, ns UTC."""

    at: int


class Sealed(_Tagged, frozen=True):
    batch: Batch


class SignedPart(_Tagged, frozen=True):
    number: int
    signed: Signed


class Sent(_Tagged, frozen=True):
    number: int


class PartRefused(_Tagged, frozen=True):
    number: int
    reason: str


class PartExecuted(_Tagged, frozen=True):
    number: int
    execution: Execution


class Halted(_Tagged, frozen=True):
    number: int
    reason: str


class Listed(_Tagged, frozen=True):
    listing: VaultListing


StoredEvent = Sealed | SignedPart | Sent | PartRefused | PartExecuted | Halted | Listed


@dataclass(slots=True)
class Life:
    """Where one batch stands."""

    batch: Batch
    state: State = State.OPEN
    part: int = 0
    """The part that is signed, or to be signed next."""
    signed: Signed | None = None
    digests: list[str] = field(default_factory=list)
    """Of everything ever signed for `part`: one of them at most takes effect."""
    executions: list[Execution] = field(default_factory=list)
    submitted_ts: int = 0
    final_ts: int = 0
    error: str = ""

    def take(self, event: StoredEvent) -> None:
        """Apply a stored event. Raises ValueError, and changes nothing, if the table has no such transition."""
        step = self._step(event)
        key = (self.state, step)
        if key not in TRANSITIONS:
            raise ValueError(f"batch {self.batch.number}: {step.value} in state {self.state.value}")
        self.state = TRANSITIONS[key]
        match event:
            case SignedPart():
                self.signed = event.signed
                self.digests.append(event.signed.digest)
            case Sent():
                self.submitted_ts = self.submitted_ts or event.at
            case PartRefused():
                self.signed, self.error = None, event.reason
            case PartExecuted():
                self.executions.append(event.execution)
                self.signed, self.error = None, "; ".join(done.error for done in self.executions if done.error)
                self.digests.clear()
                self.part += 1
                if self.state is State.FINAL:
                    self.final_ts = event.at
            case Halted():
                self.error = event.reason

    def _step(self, event: StoredEvent) -> Step:
        match event:
            case Sealed():
                return Step.SEAL
            case SignedPart():
                return Step.SIGN
            case Sent():
                return Step.SEND
            case PartRefused():
                return Step.REFUSED
            case PartExecuted():
                return Step.EXECUTED if self.part + 1 == len(self.batch.parts) else Step.PART_EXECUTED
            case _:
                return Step.DISAGREE


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
