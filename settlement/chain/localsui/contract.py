"""The settlement contract as the embedded node runs it: operations, and the Python model that can execute them.

`Executor` has two implementations: `movevm.MoveExecutor`, which runs the compiled package in a Move VM, and
`ModelExecutor` here, the same rules in Python for machines where that VM has no wheel. The differential test drives
both with the same random operations: outcome, abort code, header, rows and exits must be equal at every step.

An operation sees one vault: its header and the rows and exits it names. It returns what changed, or aborts with the
contract's code and changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from settlement.chain.encoding import VaultHeader, u64

__all__ = [
    "ABORT_MEANINGS", "CancelExit", "ClaimExit", "Commit", "DepositMany", "Executor", "ModelExecutor", "MoveAbort",
    "Operation", "Outcome", "RequestExit", "SetOperator", "SetPaused", "Vault", "Withdraw",
]  # fmt: skip

VERSION = 1
U64_MAX = 2**64 - 1
MODEL_GAS_UNITS = 6_448
"""What a small batch costs in the Move VM's estimate; the model has no meter."""

ABORT_MEANINGS = {
    1: "wrong version", 2: "paused", 3: "wrong capability", 4: "wrong batch number", 5: "vectors differ in length",
    6: "a row would fall below zero", 7: "entries do not sum to zero", 8: "a hash is not 32 bytes",
    9: "unknown account", 10: "no exit was requested", 11: "the exit is not ripe", 12: "amount is zero",
    13: "exit delay out of range", 14: "another vault's batch", 15: "a row would overflow",
    16: "previous chain value differs", 17: "wrong withdrawal number", 18: "wrong part of a batch",
}  # fmt: skip


class MoveAbort(Exception):
    """The contract refused. `code` is None when the VM failed for another reason (then `detail` has its words)."""

    def __init__(self, code: int | None, detail: str = "") -> None:
        super().__init__(f"abort {code}: {ABORT_MEANINGS.get(code or 0, detail)}")
        self.code, self.detail = code, detail


Exit = tuple[int, int]
"""Amount asked, ready at (ms)."""


@dataclass(slots=True)
class Vault:
    """One vault with its tables."""

    header: VaultHeader
    coin_type: str
    rows: dict[bytes, int] = field(default_factory=dict)
    exits: dict[bytes, Exit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation changed. An exit of None is gone. `gas_units` is an estimate."""

    header: VaultHeader
    rows: dict[bytes, int]
    exits: dict[bytes, Exit | None]
    gas_units: int


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


Operation = DepositMany | Commit | Withdraw | SetPaused | SetOperator | RequestExit | CancelExit | ClaimExit


class Executor(Protocol):
    """Runs operations. `name` is what every surface shows as `executor`."""

    name: str

    def add_coin(self, package: bytes, module: str, code: bytes) -> None:
        """A test coin's published module. ValueError if it does not verify."""

    def mint(self, package: bytes, faucet: bytes, amount: int) -> int:
        """Run the coin's `mint`; gas units. `faucet` is the Faucet object's BCS. Raises MoveAbort."""

    def run(self, operation: Operation, vault: Vault) -> Outcome:
        """Raises MoveAbort; the vault is never changed here."""


class ModelExecutor:
    """The contract in Python. Every check stands in the order of the Move source."""

    name = "model"

    def __init__(self, package: bytes) -> None:
        self._coins: set[bytes] = set()

    def add_coin(self, package: bytes, module: str, code: bytes) -> None:
        self._coins.add(package)

    def mint(self, package: bytes, faucet: bytes, amount: int) -> int:
        if int.from_bytes(faucet[64:72], "little") + amount > U64_MAX - 1:
            raise MoveAbort(1, "the supply would overflow")
        return MODEL_GAS_UNITS

    def run(self, operation: Operation, vault: Vault) -> Outcome:
        book = _Book(vault)
        match operation:
            case DepositMany():
                book.deposit_many(operation)
            case Commit():
                book.commit(operation)
            case Withdraw():
                book.withdraw(operation)
            case SetPaused():
                book.check_admin(operation.cap)
                book.set(paused=operation.paused)
            case SetOperator():
                book.check_admin(operation.cap)
                book.set(operator=operation.operator)
            case RequestExit():
                book.request_exit(operation)
            case CancelExit():
                book.remove_exit(operation.owner)
            case ClaimExit():
                book.claim_exit(operation)
        return book.outcome()


def _require(condition: bool, code: int) -> None:
    if not condition:
        raise MoveAbort(code)


class _Book:
    """One operation under way over one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._header = vault, vault.header
        self._rows: dict[bytes, int] = {}
        self._exits: dict[bytes, Exit | None] = {}

    def outcome(self) -> Outcome:
        new_rows = sum(1 for who in self._rows if who not in self._vault.rows)
        exits = self._vault.exits
        new_exits = sum((now is not None) - (who in exits) for who, now in self._exits.items())
        header = msgspec.structs.replace(
            self._header,
            row_count=self._header.row_count + new_rows,
            exit_count=self._header.exit_count + new_exits,
        )
        return Outcome(header, self._rows, self._exits, MODEL_GAS_UNITS)

    def set(self, **changes: object) -> None:
        self._header = msgspec.structs.replace(self._header, **changes)

    def check_admin(self, cap: bytes) -> None:
        _require(self._header.version == VERSION, 1)
        _require(cap == self._header.admin, 3)

    def check_operator(self, cap: bytes) -> None:
        _require(self._header.version == VERSION, 1)
        _require(not self._header.paused, 2)
        _require(cap == self._header.operator, 3)

    def deposit_many(self, call: DepositMany) -> None:
        _require(self._header.version == VERSION, 1)
        self.set(pool=self._header.pool + call.total)
        _require(len(call.owners) == len(call.amounts), 5)
        for owner, amount in zip(call.owners, call.amounts, strict=True):
            _require(amount > 0, 12)
            self._credit(owner, amount)
        _require(sum(call.amounts) == call.total, 7)

    def commit(self, call: Commit) -> None:
        self.check_operator(call.cap)
        header = self._header
        _require(call.seq == header.next_seq, 4)
        _require(call.part == header.next_part and call.part < call.parts, 18)
        _require(call.previous == header.chain, 16)
        _require(len(call.accounts) == len(call.amounts) == len(call.is_debit), 5)
        balance = 0
        for who, amount, is_debit in zip(call.accounts, call.amounts, call.is_debit, strict=True):
            _require(amount > 0, 12)
            if is_debit:
                self._debit(who, amount)
                balance -= amount
            else:
                self._credit(who, amount)
                balance += amount
        _require(balance == 0, 7)
        _require(len(call.root) == 32 and len(call.digest) == 32, 8)
        chain = hashlib.sha256(header.chain + u64(call.seq) + u64(call.part) + call.root + call.digest).digest()
        last = call.part + 1 == call.parts
        self.set(
            chain=chain,
            last_root=call.root,
            last_commit_ms=call.now_ms,
            next_seq=call.seq + 1 if last else call.seq,
            next_part=0 if last else call.part + 1,
        )

    def withdraw(self, call: Withdraw) -> None:
        self.check_operator(call.cap)
        _require(call.amount > 0, 12)
        _require(call.number == self._header.next_withdrawal, 17)
        self._debit(call.owner, call.amount)
        self.set(next_withdrawal=call.number + 1, pool=self._header.pool - call.amount)

    def request_exit(self, call: RequestExit) -> None:
        _require(self._header.version == VERSION, 1)
        _require(call.amount > 0, 12)
        _require(self._row(call.owner) is not None, 9)
        self._exits[call.owner] = (call.amount, call.now_ms + self._header.exit_delay_ms)

    def remove_exit(self, owner: bytes) -> Exit:
        pending = self._vault.exits.get(owner)
        if pending is None:
            raise MoveAbort(10)
        self._exits[owner] = None
        return pending

    def claim_exit(self, call: ClaimExit) -> None:
        _require(self._header.version == VERSION, 1)
        amount, ready_ms = self.remove_exit(call.owner)
        _require(call.now_ms >= ready_ms, 11)
        pay = min(amount, self._row(call.owner) or 0)
        if pay > 0:
            self._debit(call.owner, pay)
            self.set(pool=self._header.pool - pay)

    def _row(self, who: bytes) -> int | None:
        return self._rows.get(who, self._vault.rows.get(who))

    def _credit(self, who: bytes, amount: int) -> None:
        row = self._row(who) or 0
        _require(row <= U64_MAX - amount, 15)
        self._rows[who] = row + amount

    def _debit(self, who: bytes, amount: int) -> None:
        row = self._row(who)
        if row is None:
            raise MoveAbort(9)
        _require(row >= amount, 6)
        self._rows[who] = row - amount
