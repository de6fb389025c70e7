"""The contract in the Move VM: what it does, every refusal with its code; and the Python model beside it, the same."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import msgspec
import pytest

from settlement.chain.encoding import Row, VaultHeader, address_text, u64
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
from settlement.chain.localsui.movevm import MoveExecutor, coin_module, load_modules, published_modules, relocate

PACKAGE, COIN = b"\xc0" * 32, b"\xcc" * 32
A, B, NOBODY = b"\xa1" * 32, b"\xb2" * 32, b"\xee" * 32
ADMIN, OPERATOR = b"\x02" * 32, b"\x03" * 32
HOUR_MS = 3_600_000
MOST = 2**64 - 1
NAME, CODE = coin_module(12)
COIN_TYPE = f"{address_text(COIN)}::{NAME}::{NAME.upper()}"
OPEN = Open(PACKAGE, COIN_TYPE, ADMIN, OPERATOR, 1, HOUR_MS, b"\1" * 32, b"\4" * 32)
COMMIT = Commit(OPERATOR, 1, 0, 1, bytes(32), b"\7" * 32, 450, b"\x08" * 32, (A, B), (100, 100), (True, False), 5)
ROWS = {A: Row(300), B: Row(200)}


def _executor(name: str) -> Executor:
    if name == "model":
        executor: Executor = ModelExecutor()
    else:
        pytest.importorskip("sui_sandbox", reason="the Move VM wheel is not installed")
        executor = MoveExecutor()
    executor.add_coin(COIN, NAME, CODE)
    return executor


def _vault(**changes: object) -> Vault:
    header = VaultHeader(
        b"\1" * 32, 1, False, ADMIN, OPERATOR, 1, 0, 0, HOUR_MS, bytes(32), bytes(32), 0, 0, 0, 0, 500, b"\4" * 32, 2
    )
    return Vault(msgspec.structs.replace(header, **changes), COIN_TYPE, PACKAGE, dict(ROWS))


def _apply(vault: Vault, outcome: Outcome) -> None:
    vault.header = outcome.header
    vault.rows.update(outcome.rows)
    assert outcome.header.row_count == len(vault.rows)
    assert sum(row.balance for row in vault.rows.values()) == vault.header.pool + vault.header.deficit
    assert sum(row.debt for row in vault.rows.values()) == vault.header.deficit
    assert all(row.debt <= row.exited and 0 in (row.debt, row.balance) for row in vault.rows.values())


def _abort(executor: Executor, operation: Operation, vault: Vault) -> int | None:
    with pytest.raises(MoveAbort) as abort:
        executor.run(operation, vault)
    return abort.value.code


@pytest.fixture(params=["movevm", "model"], scope="module")
def executor(request: pytest.FixtureRequest) -> Executor:
    return _executor(request.param)


def test_an_opened_vault_is_empty_and_takes_the_batch_named(executor: Executor) -> None:
    header, _ = executor.open(OPEN)
    empty = (bytes(32), bytes(32), 0, 0, 0, 0, 0, 0)
    assert (header.chain, header.last_root, header.pool, header.deficit, header.row_count, header.next_part,
            header.next_withdrawal, header.last_pool) == empty  # fmt: skip
    assert (header.id, header.rows_id, header.next_seq, header.paused) == (OPEN.vault_id, OPEN.rows_id, 1, False)
    vault = Vault(header, COIN_TYPE, PACKAGE)
    _apply(vault, executor.run(replace(COMMIT, accounts=(), amounts=(), is_debit=()), vault))
    assert vault.header.next_seq == 2


@pytest.mark.parametrize("delay_ms", [HOUR_MS - 1, 1_209_600_001])
def test_an_exit_delay_out_of_range_is_refused(executor: Executor, delay_ms: int) -> None:
    with pytest.raises(MoveAbort) as abort:
        executor.open(replace(OPEN, exit_delay_ms=delay_ms))
    assert abort.value.code == 13


def test_a_deposit_carries_its_reference(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(Deposit(NOBODY, 7, b"client 12"), vault))
    _apply(vault, executor.run(Deposit(A, 1, b""), vault))
    assert (vault.rows[NOBODY], vault.rows[A], vault.header.pool) == (Row(7), Row(301), 508)


def test_a_batch_moves_rows_and_extends_the_chain(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(COMMIT, vault))
    assert vault.balances == {A: 200, B: 300}
    said = COMMIT.root + u64(450) + COMMIT.digest
    expected = hashlib.sha256(bytes(32) + u64(1) + u64(0) + said).digest()
    header = vault.header
    assert (header.chain, header.next_seq, header.last_root, header.last_commit_ms) == (expected, 2, COMMIT.root, 5)
    assert (header.last_liabilities, header.last_pool) == (450, 500)


def test_the_number_moves_on_with_the_last_part(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(replace(COMMIT, parts=2), vault))
    assert (vault.header.next_seq, vault.header.next_part) == (1, 1)
    assert _abort(executor, replace(COMMIT, parts=2, previous=vault.header.chain), vault) == 18
    _apply(vault, executor.run(replace(COMMIT, part=1, parts=2, previous=vault.header.chain), vault))
    assert (vault.header.next_seq, vault.header.next_part) == (2, 0)


def test_f60_batches_out_of_their_order_are_refused_and_change_nothing(executor: Executor) -> None:
    """The second before the first, the first again, the second on another history; then in their order."""
    vault = _vault()
    second = replace(COMMIT, seq=2)
    assert _abort(executor, second, vault) == 4
    _apply(vault, executor.run(COMMIT, vault))
    before = vault.header, dict(vault.rows)
    assert _abort(executor, COMMIT, vault) == 4
    assert _abort(executor, second, vault) == 16, "of a history that is not this vault's"
    assert (vault.header, vault.rows) == before
    _apply(vault, executor.run(replace(second, previous=vault.header.chain), vault))
    assert vault.header.next_seq == 3


@pytest.mark.parametrize(
    ("code", "operation", "changes"),
    [
        (1, COMMIT, {"version": 2}),
        (2, COMMIT, {"paused": True}),
        (3, replace(COMMIT, cap=NOBODY), {}),
        (3, SetPaused(OPERATOR, True), {}),
        (3, SetOperator(OPERATOR, NOBODY), {}),
        (4, replace(COMMIT, seq=0), {}),
        (4, replace(COMMIT, seq=2), {}),
        (5, replace(COMMIT, amounts=(100,)), {}),
        (1, Deposit(A, 1, b""), {"version": 2}),
        (1, DepositMany(1, (A,), (1,)), {"version": 2}),
        (1, Withdraw(OPERATOR, A, A, 1, 0), {"version": 2}),
        (1, SetPaused(ADMIN, True), {"version": 2}),
        (1, SetOperator(ADMIN, B), {"version": 2}),
        (1, RequestExit(A, 1, 0), {"version": 2}),
        (1, ClaimExit(A, 0), {"version": 2}),
        (1, Migrate(ADMIN), {}),
        (2, Withdraw(OPERATOR, A, A, 1, 0), {"paused": True}),
        (3, Withdraw(NOBODY, A, A, 1, 0), {}),
        (3, Migrate(OPERATOR), {"version": 0}),
        (5, DepositMany(5, (A,), (2, 3)), {}),
        (6, replace(COMMIT, amounts=(301, 301)), {}),
        (6, Withdraw(OPERATOR, A, A, 301, 0), {}),
        (7, replace(COMMIT, amounts=(100, 99)), {}),
        (7, DepositMany(6, (A, B), (2, 3)), {}),
        (8, replace(COMMIT, root=b"\7" * 31), {}),
        (9, replace(COMMIT, accounts=(NOBODY, B)), {}),
        (8, replace(COMMIT, digest=b"\7" * 33), {}),
        (9, RequestExit(NOBODY, 1, 0), {}),
        (9, Withdraw(OPERATOR, NOBODY, A, 1, 0), {}),
        (10, CancelExit(A), {}),
        (10, ClaimExit(A, 0), {}),
        (10, ClaimExit(NOBODY, 0), {}),
        (12, Deposit(A, 0, b""), {}),
        (12, DepositMany(0, (A,), (0,)), {}),
        (12, replace(COMMIT, amounts=(0, 0)), {}),
        (12, Withdraw(OPERATOR, A, A, 0, 0), {}),
        (12, RequestExit(A, 0, 0), {}),
        (16, replace(COMMIT, previous=b"\1" * 32), {}),
        (17, Withdraw(OPERATOR, A, A, 1, 1), {}),
        (18, replace(COMMIT, part=1, parts=2), {}),
        (18, replace(COMMIT, parts=0), {}),
        (19, Deposit(A, 1, b"r" * 65), {}),
    ],
)
def test_refusals(executor: Executor, code: int, operation: Operation, changes: dict[str, object]) -> None:
    vault = _vault(**changes)
    before = vault.header
    assert _abort(executor, operation, vault) == code
    assert vault.header == before and vault.rows == ROWS


def test_a_row_cannot_overflow(executor: Executor) -> None:
    vault = _vault(deficit=50)
    vault.rows[B] = Row(MOST - 1)
    assert _abort(executor, COMMIT, vault) == 15
    vault.rows[B] = Row(0, debt=50, exited=60)
    wide = replace(COMMIT, accounts=(A, B, B), amounts=(300, 40, 260), is_debit=(True, False, False))
    assert executor.run(wide, vault).rows[B] == Row(250, 0, 60)


def test_an_old_version_migrates(executor: Executor) -> None:
    vault = _vault(version=0)
    assert _abort(executor, COMMIT, vault) == 1
    _apply(vault, executor.run(Migrate(ADMIN), vault))
    _apply(vault, executor.run(COMMIT, vault))


def test_forced_exit_waits_its_delay_and_works_while_paused(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(RequestExit(A, 1_000, 10), vault))
    assert vault.rows[A] == Row(300, exit_amount=1_000, exit_ready_ms=10 + HOUR_MS)
    _apply(vault, executor.run(SetPaused(ADMIN, True), vault))
    assert _abort(executor, ClaimExit(A, 10 + HOUR_MS - 1), vault) == 11
    _apply(vault, executor.run(ClaimExit(A, 10 + HOUR_MS), vault))
    assert (vault.rows[A], vault.header.pool) == (Row(0, exited=300), 200)
    assert _abort(executor, ClaimExit(A, 10 + HOUR_MS), vault) == 10


def test_an_exit_of_a_row_that_holds_nothing_stays_asked(executor: Executor) -> None:
    vault = _vault()
    vault.rows[NOBODY] = Row(0, exit_amount=9, exit_ready_ms=1)
    vault.header = msgspec.structs.replace(vault.header, row_count=3)
    assert _abort(executor, ClaimExit(NOBODY, 5), vault) == 20
    _apply(vault, executor.run(Deposit(NOBODY, 7, b""), vault))
    _apply(vault, executor.run(ClaimExit(NOBODY, 5), vault))
    assert (vault.rows[NOBODY], vault.header.pool) == (Row(0, exited=7), 500)


def test_a_second_request_waits_anew_and_a_cancelled_one_is_gone(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(RequestExit(A, 5, 10), vault))
    _apply(vault, executor.run(RequestExit(A, 7, 20), vault))
    assert _abort(executor, ClaimExit(A, 10 + HOUR_MS), vault) == 11
    _apply(vault, executor.run(CancelExit(A), vault))
    assert vault.rows[A] == Row(300) and _abort(executor, CancelExit(A), vault) == 10


def test_an_exit_that_a_batch_did_not_know_of_leaves_a_debt_that_is_repaid_first(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(RequestExit(A, 280, 0), vault))
    _apply(vault, executor.run(ClaimExit(A, HOUR_MS), vault))
    _apply(vault, executor.run(COMMIT, vault))
    assert vault.rows[A] == Row(0, debt=80, exited=280) and vault.header.deficit == 80
    over = replace(COMMIT, seq=2, previous=vault.header.chain, amounts=(201, 201))
    assert _abort(executor, over, vault) == 6
    _apply(vault, executor.run(replace(over, amounts=(200, 200)), vault))
    assert (vault.rows[A].debt, vault.header.deficit) == (280, 280)
    _apply(vault, executor.run(Deposit(A, 300, b"made good"), vault))
    assert (vault.rows[A], vault.header.deficit) == (Row(20, exited=280), 0)


def test_a_withdrawal_that_an_exit_came_before_is_skipped_and_numbered(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(RequestExit(A, 250, 0), vault))
    _apply(vault, executor.run(ClaimExit(A, HOUR_MS), vault))
    assert _abort(executor, Withdraw(OPERATOR, A, B, 301, 0), vault) == 6
    _apply(vault, executor.run(Withdraw(OPERATOR, A, B, 300, 0), vault))
    assert (vault.rows[A].balance, vault.header.pool, vault.header.next_withdrawal) == (50, 250, 1)
    _apply(vault, executor.run(Withdraw(OPERATOR, A, B, 50, 1), vault))
    assert (vault.rows[A].balance, vault.header.pool, vault.header.next_withdrawal) == (0, 200, 2)


def test_a_pool_that_exits_have_emptied_skips_withdrawals_too(executor: Executor) -> None:
    vault = _vault(pool=250, deficit=250)
    vault.rows[A] = Row(0, debt=250, exited=250)
    vault.rows[B] = Row(500)
    _apply(vault, executor.run(Withdraw(OPERATOR, B, B, 300, 0), vault))
    assert (vault.rows[B], vault.header.pool, vault.header.next_withdrawal) == (Row(500), 250, 1)
    _apply(vault, executor.run(RequestExit(B, 400, 0), vault))
    _apply(vault, executor.run(ClaimExit(B, HOUR_MS), vault))
    assert (vault.rows[B], vault.header.pool) == (Row(250, exited=250), 0)


@pytest.mark.parametrize("seed", range(4))
def test_no_exit_can_make_a_batch_or_its_withdrawals_fail(executor: Executor, seed: int) -> None:
    """Whatever would be taken without exits is taken with them, at any place between."""
    rng = random.Random(seed)
    plain, exited = _vault(), _vault()
    people, now = [A, B, b"\xa3" * 32, b"\xa4" * 32], 0
    paid_out = shortfalls = 0
    for _ in range(25):
        now += HOUR_MS
        operation = _operator_operation(rng, plain, people, now)
        try:
            _apply(plain, executor.run(operation, plain))
        except MoveAbort:
            continue
        header = exited.header
        if isinstance(operation, Commit):
            operation = replace(operation, previous=header.chain)
        _apply(exited, executor.run(operation, exited))
        shortfalls += exited.header.deficit > 0
        for who in people:
            if rng.random() < 0.5 and who in exited.rows:
                _apply(exited, executor.run(RequestExit(who, rng.randrange(1, 400), now), exited))
            before = exited.header.pool
            row = exited.rows.get(who, Row())
            if row.exit_amount and now >= row.exit_ready_ms and row.balance and before:
                _apply(exited, executor.run(ClaimExit(who, now), exited))
                paid_out += before - exited.header.pool
        assert (exited.header.next_seq, exited.header.next_withdrawal) == (
            plain.header.next_seq, plain.header.next_withdrawal,
        )  # fmt: skip
    assert paid_out and shortfalls


def _operator_operation(rng: random.Random, vault: Vault, people: list[bytes], now: int) -> Operation:
    header, who = vault.header, rng.choice(people)
    match rng.randrange(5):
        case 0:
            return Deposit(who, rng.randrange(1, 200), b"")
        case 1:
            return Withdraw(OPERATOR, who, who, rng.randrange(1, 100), header.next_withdrawal)
        case _:
            amount = rng.randrange(1, 300)
            return Commit(
                OPERATOR, header.next_seq, 0, 1, header.chain, b"\7" * 32, 0, b"\x08" * 32,
                (who, rng.choice(people)), (amount, amount), (True, False), now,
            )  # fmt: skip


def test_rotation_makes_the_old_capability_worthless(executor: Executor) -> None:
    vault = _vault()
    _apply(vault, executor.run(SetOperator(ADMIN, NOBODY), vault))
    assert _abort(executor, COMMIT, vault) == 3
    _apply(vault, executor.run(replace(COMMIT, cap=NOBODY), vault))


def test_mint_runs_in_the_coin(executor: Executor) -> None:
    faucet = b"\x09" * 32 + b"\x0a" * 32
    assert executor.mint(COIN, faucet + u64(0), 5) > 0
    with pytest.raises(MoveAbort):
        executor.mint(COIN, faucet + u64(2**64 - 2), 5)


def test_changed_bytecode_is_refused_by_the_verifier() -> None:
    """The VM links and verifies what it runs: a module with one byte of its code changed gives no other result."""
    executor = _executor("movevm")
    assert isinstance(executor, MoveExecutor)
    vault, rng, refused = _vault(), random.Random(1), 0
    expected = executor.run(COMMIT, vault)
    place = published_modules().index("settlement")
    original = relocate(load_modules("exchange", ["settlement"])[0], PACKAGE)
    for _ in range(12):
        broken = bytearray(original)
        broken[rng.randrange(8, len(broken))] ^= 1 << rng.randrange(8)
        executor._relocated[PACKAGE][0][place] = bytes(broken)
        try:
            assert executor.run(COMMIT, vault) == expected
        except Exception:  # noqa: BLE001 - the wheel has no type of its own for what it refuses
            refused += 1
    assert refused >= 8
