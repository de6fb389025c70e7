"""The settlement contract as the embedded node runs it: vaults, and the operations on them.

`Executor` has two implementations: `movevm.MoveExecutor`, which runs the compiled package in a Move VM, and
`model.ModelExecutor`, the same rules in Python for machines where that VM has no wheel. The differential test drives
both with the same random operations: outcome, abort code, header and rows must be equal at every step.

An operation sees one vault: its header and the rows it names. It returns what changed, or aborts with the contract's
code and changes nothing.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Protocol

from settlement.chain.encoding import Row, VaultHeader
from settlement.chain.localsui.rights import RightsCall, RightsOutcome

__all__ = [
    "ABORT_MEANINGS", "CancelExit", "ClaimExit", "Commit", "Deposit", "DepositMany", "Executor", "Migrate", "MoveAbort",
    "Open", "Operation", "Outcome", "RequestExit", "SetOperator", "SetPaused", "Vault", "Withdraw",
]  # fmt: skip

ABORT_MEANINGS = {
    1: "wrong version", 2: "paused", 3: "wrong capability", 4: "wrong batch number", 5: "vectors differ in length",
    6: "a row would fall below zero", 7: "entries do not sum to zero", 8: "a hash is not 32 bytes",
    9: "unknown account", 10: "no exit was requested", 11: "the exit is not ripe", 12: "amount is zero",
    13: "exit delay out of range", 14: "another vault's batch", 15: "a row would overflow",
    16: "previous chain value differs", 17: "wrong withdrawal number", 18: "wrong part of a batch",
    19: "the reference is longer than 64 bytes", 20: "nothing is held for this exit now",
}  # fmt: skip


class MoveAbort(Exception):
    """The contract refused. `code` is None when execution failed for another reason (then `detail` has its words)."""

    def __init__(self, code: int | None, detail: str = "", module: str = "settlement") -> None:
        meaning = ABORT_MEANINGS.get(code or 0, detail) if module == "settlement" else detail
        super().__init__(f"abort {code} in {module}: {meaning}" if code is not None else detail)
        self.code, self.detail, self.module = code, detail, module


@dataclass(slots=True)
class Vault:
    """One vault with its table."""

    header: VaultHeader
    coin_type: str
    package: bytes
    rows: MutableMapping[bytes, Row] = field(default_factory=dict)

    @property
    def balances(self) -> dict[bytes, int]:
        """Address → units, rows of zero included."""
        return {who: row.balance for who, row in self.rows.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation changed. `gas_units` is an estimate."""

    header: VaultHeader
    rows: dict[bytes, Row]
    gas_units: int


@dataclass(frozen=True, slots=True)
class Deposit:
    """A coin of `amount` units for one owner."""

    owner: bytes
    amount: int
    reference: bytes

    @property
    def touched(self) -> tuple[bytes, ...]:
        return (self.owner,)


@dataclass(frozen=True, slots=True)
class DepositMany:
    """A coin of `total` units split over owners."""

    total: int
    owners: tuple[bytes, ...]
    amounts: tuple[int, ...]

    @property
    def touched(self) -> tuple[bytes, ...]:
        return self.owners


@dataclass(frozen=True, slots=True)
class Commit:
    """begin, apply …, finish of one part of a batch."""

    cap: bytes
    seq: int
    part: int
    parts: int
    previous: bytes
    root: bytes
    liabilities: int
    digest: bytes
    accounts: tuple[bytes, ...]
    amounts: tuple[int, ...]
    is_debit: tuple[bool, ...]
    now_ms: int

    @property
    def touched(self) -> tuple[bytes, ...]:
        return self.accounts


@dataclass(frozen=True, slots=True)
class Withdraw:
    cap: bytes
    owner: bytes
    recipient: bytes
    amount: int
    number: int

    @property
    def touched(self) -> tuple[bytes, ...]:
        return (self.owner,)


@dataclass(frozen=True, slots=True)
class SetPaused:
    cap: bytes
    paused: bool

    @property
    def touched(self) -> tuple[bytes, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class SetOperator:
    cap: bytes
    operator: bytes

    @property
    def touched(self) -> tuple[bytes, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Migrate:
    cap: bytes

    @property
    def touched(self) -> tuple[bytes, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class RequestExit:
    owner: bytes
    amount: int
    now_ms: int

    @property
    def touched(self) -> tuple[bytes, ...]:
        return (self.owner,)


@dataclass(frozen=True, slots=True)
class CancelExit:
    owner: bytes

    @property
    def touched(self) -> tuple[bytes, ...]:
        return (self.owner,)


@dataclass(frozen=True, slots=True)
class ClaimExit:
    owner: bytes
    now_ms: int

    @property
    def touched(self) -> tuple[bytes, ...]:
        return (self.owner,)


Operation = (
    Deposit | DepositMany | Commit | Withdraw | SetPaused | SetOperator | Migrate | RequestExit | CancelExit | ClaimExit
)


@dataclass(frozen=True, slots=True)
class Open:
    """A new vault. `vault_id` and `rows_id` are the ids it gets."""

    package: bytes
    coin_type: str
    admin: bytes
    operator: bytes
    first_seq: int
    exit_delay_ms: int
    vault_id: bytes
    rows_id: bytes


class Executor(Protocol):
    """Runs operations. `name` is what every surface shows as `executor`. Every method raises MoveAbort."""

    name: str

    def add_coin(self, package: bytes, module: str, code: bytes) -> None:
        """A test coin's published module. ValueError if it does not verify."""

    def mint(self, package: bytes, faucet: bytes, amount: int) -> int:
        """Run the coin's `mint`; gas units. `faucet` is the Faucet object's BCS."""

    def open(self, call: Open) -> tuple[VaultHeader, int]:
        """The new vault and gas units."""

    def run(self, operation: Operation, vault: Vault) -> Outcome:
        """The vault itself is never changed here."""

    def run_rights(self, call: RightsCall) -> RightsOutcome:
        """A call of the modules copyright_registry, license, royalty."""
