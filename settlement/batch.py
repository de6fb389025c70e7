"""The life of a batch: one table of transitions, and the events that move it.

    open ──seal──▶ sealed ──sign──▶ signed ──send──▶ submitted ──executed──▶ final
                    ▲ ▲ ▲                              │  │ send: the same bytes again
                    │ │ └──────────refused─────────────┘  │
                    │ └────────part_executed──────────────┘      sealed, signed, submitted ──disagree──▶ halted
                    └──────────resume────────────────────────────────────────────────────────────────────┘

1. The batch is stored before anything is signed, the signed bytes before anything is sent.
2. On doubt the chain is asked by digest, and the same bytes are sent again: they take effect at most once.
3. Only a definite refusal allows new bytes, for the same number: the contract refuses a number twice.
4. One batch is in flight. A disagreement halts and says so; a person looks, and resumes.

`resume` leads to `sealed`: a batch halts only after a definite answer, so nothing signed can be under way any more.
An event that the table does not know raises and changes nothing. `store` keeps the events; a projection into a database
is somebody else's, made from the records that the settler hands out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import msgspec

from settlement.chain.port import Execution, Signed, VaultListing
from settlement.netting import Batch

__all__ = [
    "TRANSITIONS", "Halted", "Life", "Listed", "PartExecuted", "PartRefused", "Resumed", "Sealed", "Sent", "SignedPart",
    "State", "Step", "Stopped", "StoredEvent",
]  # fmt: skip


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
    RESUME = "resume"


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
    (State.HALTED, Step.RESUME): State.SEALED,
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


class Stopped(_Tagged, frozen=True):
    """Settlement halts for a reason that is not one batch's: ledger and events differ, a booking is refused."""

    reason: str


class Resumed(_Tagged, frozen=True):
    """A person has looked at the halt. `number` is the halted batch, 0 if there was none."""

    number: int
    note: str


StoredEvent = Sealed | SignedPart | Sent | PartRefused | PartExecuted | Halted | Listed | Stopped | Resumed


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
    was_resumed: bool = False
    """A person has looked at a halt of this batch, and let it go on."""

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
            case Resumed():
                self.signed, self.error, self.was_resumed = None, "", True

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
            case Halted():
                return Step.DISAGREE
            case Resumed():
                return Step.RESUME
            case _:
                raise ValueError(f"batch {self.batch.number}: {type(event).__name__} is no event of a batch")
