"""The contracts in Python: the executor for machines where the Move VM has no wheel.

Every check stands in the order of the Move source, so that the abort code is the same too. Held to the VM by the
differential test in tests/property/test_settlement_contract.py. The rights modules are in `rights_model.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from settlement.chain.encoding import Row, VaultHeader, u64
from settlement.chain.localsui.contract import (
    CancelExit,
    ClaimExit,
    Commit,
    Deposit,
    DepositMany,
    Migrate,
    MoveAbort,
    Open,
    Operation,
    Outcome,
    RequestExit,
    SetOperator,
    SetPaused,
    Vault,
    Withdraw,
)
from settlement.chain.localsui.rights import RightsCall, RightsOutcome
from settlement.chain.localsui.rights_model import run_rights

__all__ = ["ModelExecutor"]

VERSION = 1
MIN_EXIT_DELAY_MS, MAX_EXIT_DELAY_MS = 3_600_000, 1_209_600_000
MAX_REFERENCE_BYTES = 64
U64_MAX = 2**64 - 1
MODEL_GAS_UNITS = 6_448
"""What a small batch costs in the Move VM's estimate; the model has no meter."""


class ModelExecutor:
    """The contract in Python."""

    name = "model"

    def add_coin(self, package: bytes, module: str, code: bytes) -> None:
        """Nothing to load."""

    def mint(self, package: bytes, faucet: bytes, amount: int) -> int:
        if int.from_bytes(faucet[64:72], "little") + amount > U64_MAX - 1:
            raise MoveAbort(1, "the supply would overflow", "balance")
        return MODEL_GAS_UNITS

    def open(self, call: Open) -> tuple[VaultHeader, int]:
        _require(MIN_EXIT_DELAY_MS <= call.exit_delay_ms <= MAX_EXIT_DELAY_MS, 13)
        header = VaultHeader(
            id=call.vault_id, version=VERSION, paused=False, admin=call.admin, operator=call.operator,
            next_seq=call.first_seq, next_part=0, next_withdrawal=0, exit_delay_ms=call.exit_delay_ms,
            chain=bytes(32), last_root=bytes(32), last_liabilities=0, last_pool=0, last_commit_ms=0, deficit=0, pool=0,
            rows_id=call.rows_id, row_count=0,
        )  # fmt: skip
        return header, MODEL_GAS_UNITS

    def run(self, operation: Operation, vault: Vault) -> Outcome:
        book = _Book(vault)
        match operation:
            case Deposit():
                book.deposit(operation)
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
            case Migrate():
                book.migrate(operation.cap)
            case RequestExit():
                book.request_exit(operation)
            case CancelExit():
                book.change(operation.owner, book.asked(operation.owner), exit_amount=0, exit_ready_ms=0)
            case ClaimExit():
                book.claim_exit(operation)
        return book.outcome()

    def run_rights(self, call: RightsCall) -> RightsOutcome:
        return run_rights(call)


def _require(condition: bool, code: int) -> None:
    if not condition:
        raise MoveAbort(code)


class _Book:
    """One operation under way over one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._header = vault, vault.header
        self._rows: dict[bytes, Row] = {}

    def outcome(self) -> Outcome:
        new_rows = sum(1 for who in self._rows if who not in self._vault.rows)
        header = msgspec.structs.replace(self._header, row_count=self._header.row_count + new_rows)
        changed = {who: row for who, row in self._rows.items() if self._vault.rows.get(who) != row}
        return Outcome(header, changed, MODEL_GAS_UNITS)

    def set(self, **changes: Any) -> None:
        self._header = msgspec.structs.replace(self._header, **changes)

    def change(self, who: bytes, row: Row, **changes: Any) -> None:
        self._rows[who] = msgspec.structs.replace(row, **changes)

    # ------------------------------------------------------------ operations

    def deposit(self, call: Deposit) -> None:
        _require(len(call.reference) <= MAX_REFERENCE_BYTES, 19)
        self._take_in(call.amount)
        _require(call.amount > 0, 12)
        self._credit(call.owner, call.amount)

    def deposit_many(self, call: DepositMany) -> None:
        self._take_in(call.total)
        _require(len(call.owners) == len(call.amounts), 5)
        for owner, amount in zip(call.owners, call.amounts, strict=True):
            _require(amount > 0, 12)
            self._credit(owner, amount)
        _require(sum(call.amounts) == call.total, 7)

    def commit(self, call: Commit) -> None:
        self._check_operator(call.cap)
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
        said = call.root + u64(call.liabilities) + call.digest
        last = call.part + 1 == call.parts
        self.set(
            chain=hashlib.sha256(header.chain + u64(call.seq) + u64(call.part) + said).digest(),
            last_root=call.root,
            last_liabilities=call.liabilities,
            last_pool=header.pool,
            last_commit_ms=call.now_ms,
            next_seq=call.seq + 1 if last else call.seq,
            next_part=0 if last else call.part + 1,
        )

    def withdraw(self, call: Withdraw) -> None:
        self._check_operator(call.cap)
        _require(call.amount > 0, 12)
        _require(call.number == self._header.next_withdrawal, 17)
        self.set(next_withdrawal=call.number + 1)
        row = self._covered(call.owner, call.amount)
        if row.balance >= call.amount and self._header.pool >= call.amount:
            self.change(call.owner, row, balance=row.balance - call.amount)
            self.set(pool=self._header.pool - call.amount)

    def migrate(self, cap: bytes) -> None:
        _require(cap == self._header.admin, 3)
        _require(self._header.version < VERSION, 1)
        self.set(version=VERSION)

    def request_exit(self, call: RequestExit) -> None:
        _require(self._header.version == VERSION, 1)
        _require(call.amount > 0, 12)
        row = self._row(call.owner)
        if row is None:
            raise MoveAbort(9)
        self.change(
            call.owner, row, exit_amount=call.amount, exit_ready_ms=call.now_ms + self._header.exit_delay_ms
        )

    def claim_exit(self, call: ClaimExit) -> None:
        _require(self._header.version == VERSION, 1)
        row = self.asked(call.owner)
        _require(call.now_ms >= row.exit_ready_ms, 11)
        amount = min(row.exit_amount, row.balance, self._header.pool)
        _require(amount > 0, 20)
        exited = min(row.exited + amount, U64_MAX)
        self.change(
            call.owner, row, balance=row.balance - amount, exited=exited, exit_amount=0, exit_ready_ms=0
        )
        self.set(pool=self._header.pool - amount)

    # ------------------------------------------------------------ checks and rows

    def check_admin(self, cap: bytes) -> None:
        _require(self._header.version == VERSION, 1)
        _require(cap == self._header.admin, 3)

    def asked(self, owner: bytes) -> Row:
        """The row of an account that has asked for an exit."""
        row = self._row(owner)
        if row is None or not row.exit_amount:
            raise MoveAbort(10)
        return row

    def _check_operator(self, cap: bytes) -> None:
        _require(self._header.version == VERSION, 1)
        _require(not self._header.paused, 2)
        _require(cap == self._header.operator, 3)

    def _take_in(self, amount: int) -> None:
        _require(self._header.version == VERSION, 1)
        self.set(pool=self._header.pool + amount)

    def _row(self, who: bytes) -> Row | None:
        return self._rows.get(who, self._vault.rows.get(who))

    def _credit(self, who: bytes, amount: int) -> None:
        row = self._row(who) or Row()
        _require(amount <= row.debt or row.balance <= U64_MAX - (amount - row.debt), 15)
        repaid = min(amount, row.debt)
        self.change(who, row, debt=row.debt - repaid, balance=row.balance + amount - repaid)
        self.set(deficit=self._header.deficit - repaid)

    def _covered(self, who: bytes, amount: int) -> Row:
        """The row, which holds `amount` or lacks it only because of exits."""
        row = self._row(who)
        if row is None:
            raise MoveAbort(9)
        _require(amount <= row.balance or amount - row.balance <= row.exited - row.debt, 6)
        return row

    def _debit(self, who: bytes, amount: int) -> None:
        row = self._covered(who, amount)
        paid = min(amount, row.balance)
        self.change(who, row, balance=row.balance - paid, debt=row.debt + amount - paid)
        self.set(deficit=self._header.deficit + amount - paid)
