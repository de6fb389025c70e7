"""The settlement contract: the Move VM and the Python model, driven by the same operations, differ in nothing.

Hypothesis chooses operations good and bad, amounts up to the largest u64, several owners, pauses, exits and time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from settlement.chain.encoding import Row, address_text
from settlement.chain.localsui.contract import (
    CancelExit,
    ClaimExit,
    Commit,
    Deposit,
    DepositMany,
    Executor,
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
from settlement.chain.localsui.model import ModelExecutor
from settlement.chain.localsui.movevm import MoveExecutor, coin_module

pytest.importorskip("sui_sandbox", reason="the Move VM wheel is not installed")

PACKAGE, COIN = b"\xc0" * 32, b"\xcc" * 32
NAME, CODE = coin_module(1)
COIN_TYPE = f"{address_text(COIN)}::{NAME}::{NAME.upper()}"
PEOPLE = [bytes([n]) * 32 for n in (0xA1, 0xA2, 0xA3, 0xA4)]
ADMIN, OPERATOR, STRANGER = b"\2" * 32, b"\3" * 32, b"\x09" * 32
OPEN = Open(PACKAGE, COIN_TYPE, ADMIN, OPERATOR, 1, 3_600_000, b"\1" * 32, b"\4" * 32)
MOST = 2**64 - 1

people = st.sampled_from(PEOPLE)
amounts = st.one_of(st.integers(0, 60), st.integers(1, 60), st.sampled_from([2**63, MOST - 50, MOST]))
mostly = st.sampled_from([True] * 9 + [False])
MACHINE: list[Executor] = []


def _machine() -> Executor:
    if not MACHINE:
        MACHINE.append(MoveExecutor())
        MACHINE[0].add_coin(COIN, NAME, CODE)
    return MACHINE[0]


class Contract(RuleBasedStateMachine):
    """One vault under both executors."""

    def __init__(self) -> None:
        super().__init__()
        self.executors: tuple[Executor, Executor] = (_machine(), ModelExecutor())
        headers = [executor.open(OPEN)[0] for executor in self.executors]
        assert headers[0] == headers[1]
        self.vault = Vault(headers[0], COIN_TYPE, PACKAGE)
        self.now = 0

    def both(self, operation: Operation) -> None:
        results: list[Any] = []
        for executor in self.executors:
            try:
                outcome: Outcome = executor.run(operation, self.vault)
                results.append((outcome.header, outcome.rows))
            except MoveAbort as abort:
                results.append((abort.code, abort.module))
        assert results[0] == results[1], operation
        if not isinstance(results[0][0], int) and results[0][0] is not None:
            self.vault.header, changed = results[0]
            self.vault.rows.update(changed)

    def room(self, amount: int) -> int:
        """Deposits stop short of a pool that would overflow: what the framework does then is not the contract's."""
        return min(amount, MOST - self.vault.header.pool)

    @rule(owner=people, amount=amounts, length=st.sampled_from([0, 9, 64, 65]))
    def deposit(self, owner: bytes, amount: int, length: int) -> None:
        self.both(Deposit(owner, self.room(amount), b"r" * length))

    @rule(owners=st.lists(people, max_size=3), amount=st.integers(0, 99), odd=mostly)
    def deposit_many(self, owners: list[bytes], amount: int, odd: bool) -> None:
        each = tuple(amount + place for place in range(len(owners)))
        self.both(DepositMany(self.room(sum(each) + (not odd)), tuple(owners), each))

    @rule(
        pairs=st.lists(st.tuples(people, people, amounts), max_size=3), right=st.tuples(mostly, mostly, mostly, mostly),
        parts=st.sampled_from([1, 1, 1, 2]), uneven=mostly,
    )  # fmt: skip
    def commit(self, pairs: list[tuple[bytes, bytes, int]], right: tuple[bool, ...], parts: int, uneven: bool) -> None:
        header = self.vault.header
        accounts = tuple(who for payer, receiver, _ in pairs for who in (payer, receiver))
        sizes = tuple(amount for _, _, size in pairs for amount in (size, size if uneven else min(size + 1, MOST)))
        batch = Commit(
            OPERATOR if right[0] else STRANGER, header.next_seq + (not right[1]), header.next_part + (not right[2]),
            header.next_part + parts, header.chain if right[3] else STRANGER, b"\7" * 32, header.pool, b"\x08" * 32,
            accounts, sizes, (True, False) * len(pairs), self.now,
        )  # fmt: skip
        self.both(batch)

    @rule(changes=st.sampled_from([{"root": b""}, {"digest": b"1"}, {"amounts": (1,)}]))
    def malformed(self, changes: dict[str, Any]) -> None:
        header = self.vault.header
        good = Commit(OPERATOR, header.next_seq, header.next_part, header.next_part + 1, header.chain, b"\7" * 32, 0,
                      b"\x08" * 32, (), (), (), self.now)  # fmt: skip
        self.both(replace(good, **changes))

    @rule(owner=people, recipient=people, amount=amounts, right=st.tuples(mostly, mostly))
    def withdraw(self, owner: bytes, recipient: bytes, amount: int, right: tuple[bool, bool]) -> None:
        number = self.vault.header.next_withdrawal + (not right[1])
        self.both(Withdraw(OPERATOR if right[0] else STRANGER, owner, recipient, amount, number))

    @rule(owner=people, amount=amounts)
    def request_exit(self, owner: bytes, amount: int) -> None:
        self.both(RequestExit(owner, amount, self.now))

    @rule(owner=people)
    def cancel_exit(self, owner: bytes) -> None:
        self.both(CancelExit(owner))

    @rule(owner=people, hours=st.integers(0, 2))
    def claim_exit(self, owner: bytes, hours: int) -> None:
        self.now += hours * 3_600_000
        self.both(ClaimExit(owner, self.now))

    @rule(right=mostly, paused=st.sampled_from([True, False, False]))
    def pause(self, right: bool, paused: bool) -> None:
        self.both(SetPaused(ADMIN if right else STRANGER, paused))

    @rule(right=mostly, operator=st.sampled_from([OPERATOR, OPERATOR, STRANGER]))
    def rotate(self, right: bool, operator: bytes) -> None:
        self.both(SetOperator(ADMIN if right else STRANGER, operator))

    @rule(right=mostly, version=st.sampled_from([0, 1, 2]))
    def other_version(self, right: bool, version: int) -> None:
        kept = self.vault.header
        self.vault.header = msgspec.structs.replace(kept, version=version)
        self.both(Migrate(ADMIN if right else STRANGER))
        self.both(Deposit(PEOPLE[0], 0, b""))
        self.vault.header = msgspec.structs.replace(self.vault.header, version=kept.version)

    @invariant()
    def the_rows_are_the_pool_and_the_deficit(self) -> None:
        header, rows = self.vault.header, self.vault.rows.values()
        assert sum(row.balance for row in rows) == header.pool + header.deficit
        assert sum(row.debt for row in rows) == header.deficit
        assert header.row_count == len(self.vault.rows)
        assert all(row.debt <= row.exited and 0 in (row.debt, row.balance) for row in rows)
        assert all(isinstance(row, Row) and max(row.balance, row.debt, row.exited) <= MOST for row in rows)


Contract.TestCase.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestContract = Contract.TestCase
