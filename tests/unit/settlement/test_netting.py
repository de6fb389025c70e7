"""The ledger derives the core's balances; batches are zero-sum and leave every row where its accounts are."""

from __future__ import annotations

import random

import pytest

from engine.messages.codes import CommandKind, EventKind
from settlement.chain.port import CoinPart, Payout
from settlement.ledger import Disagreement, Ledger
from settlement.liabilities import Liabilities
from settlement.netting import (
    CLEARING_ROW,
    CUSTODY_ROW,
    ROWS_PER_PART,
    TREASURY_ROW,
    Batch,
    Netting,
    chain_row,
    split,
)
from tests.support.settlement_events import EXTERNAL, FEES, EventLog

WALLET = b"\xb2" * 32


def _run(log: EventLog, netting: Netting, ledger: Ledger) -> list[Batch]:
    batches = []
    for cut in ledger.feed(log.read()):
        batches.append(netting.seal(ledger, cut, 0))
        ledger.start_period()
    return batches


def _random_day(seed: int, *, cuts: int = 4) -> EventLog:
    rng, log = random.Random(seed), EventLog()
    usdc, maya = log.asset("USDC"), log.asset("MAYA")
    usd = log.asset("USD", settled=False)
    log.market(0, maya, usdc, 10)
    people = [log.account(f"user:{n}", row=bytes([n + 1]) * 32 if n % 3 == 0 else None) for n in range(9)]
    people.append(log.account("platform:revenue", overdraft=1))
    for who in people:
        for asset in (usdc, maya, usd):
            log.deposit(who, asset, 10**9)
    log.cut()
    for number in range(cuts):
        for step in range(60):
            maker, taker = rng.sample(people[:9], 2)
            kind = rng.random()
            if kind < 0.7:
                log.trade((0, maya, usdc, 10), maker, taker, rng.randrange(1, 50), rng.randrange(1, 99), 2)
            elif kind < 0.8:
                log.deposit(maker, rng.choice([usdc, maya, usd]), rng.randrange(1, 1000))
            elif kind < 0.9:
                legs = [(maker, usdc, rng.randrange(1, 500), taker), (maker, usd, 3, people[9])]
                log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, f"t{number}-{step}", legs)
            else:
                ref, legs = (
                    f"w{number}-{step}",
                    [(maker, usdc, rng.randrange(1, 500), EXTERNAL), (maker, usdc, 1, FEES)],
                )
                log.money(EventKind.PENDED, CommandKind.WITHDRAW, ref, legs)
                if rng.random() < 0.7:
                    log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, ref, legs)
                elif rng.random() < 0.5:
                    log.money(EventKind.VOIDED, CommandKind.WITHDRAW_FAILED, ref, legs)
        if number == 2:
            log.account("user:1", row=WALLET)
        log.cut()
    return log


@pytest.mark.parametrize("seed", range(6))
def test_random_flows_are_zero_sum_and_rows_follow_their_accounts(seed: int) -> None:
    log, ledger, netting = _random_day(seed), Ledger(), Netting(pay_pending=False)
    paid: dict[str, list[Payout]] = {"USDC": [], "MAYA": []}
    for batch in _run(log, netting, ledger):
        for part in batch.parts:
            for coin in part.coins:
                paid[coin.asset] += coin.payouts
            assert {coin.asset for coin in part.coins} == {"USDC", "MAYA"}
            for coin in part.coins:
                assert sum(amount for _, amount in coin.entries) == 0
    for (account, asset), amount in log.balances.items():
        assert ledger.total(account, asset) == amount
    assert netting.kept["USDC"] > 0
    for asset, name in ((0, "USDC"), (1, "MAYA")):
        kept = netting.kept.get(name, 0)
        expected: dict[bytes, int] = {CUSTODY_ROW: kept}
        for index, account in enumerate(ledger.accounts):
            if index != EXTERNAL:
                row = chain_row(account.name, account.row)
                assert not any(payout.row in (CUSTODY_ROW, TREASURY_ROW) for payout in paid[name])
                expected[row] = expected.get(row, 0) + log.balances[index, asset]
        assert {row: n for row, n in netting.rows[name].items() if n} == {row: n for row, n in expected.items() if n}
        assert sum(expected.values()) == kept - log.balances[EXTERNAL, asset] == batch.pools[name]
    assert netting.rows["USDC"][WALLET] == log.balances[log.accounts.index("user:1"), 0]
    assert netting.rows["USDC"][TREASURY_ROW] > 0 < netting.rows["USDC"][CUSTODY_ROW]


def test_chunked_reading_gives_the_same_batches() -> None:
    log = _random_day(11)
    whole = _run(log, Netting(pay_pending=False), Ledger())
    log.seek(0)
    ledger, netting, pieces = Ledger(), Netting(pay_pending=False), []
    for slots in log.slots:
        for cut in ledger.feed(slots):
            pieces.append(netting.seal(ledger, cut, 0))
            ledger.start_period()
    assert pieces == whole


def test_a_balance_that_differs_by_one_unit_is_found() -> None:
    log = _random_day(3, cuts=1)
    usdc, who = 0, log.accounts.index("user:4")
    log.balances[who, usdc] += 1
    log.deposit(who, usdc, 7)
    with pytest.raises(Disagreement, match=r"account user:4 has \d+ USDC in the core"):
        _run(log, Netting(pay_pending=False), Ledger())


def test_pending_withdrawals_are_paid_once_and_booking_them_moves_nothing() -> None:
    log, ledger, netting = EventLog(), Ledger(), Netting(pay_pending=True)
    usdc = log.asset("USDC")
    who = log.account("user:1", row=WALLET)
    log.deposit(who, usdc, 1_000)
    legs = [(who, usdc, 300, EXTERNAL)]
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", legs)
    log.cut()
    log.cut()
    log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, "w1", legs)
    log.cut()
    first, second, third = _run(log, netting, ledger)
    [payout] = first.parts[0].coins[0].payouts
    assert (payout.ref, payout.row, payout.amount) == ("w1", WALLET, 300)
    assert first.pools == second.pools == third.pools == {"USDC": 700}
    for batch in (second, third):
        assert batch.parts[0].coins[0].payouts == batch.parts[0].coins[0].entries == []
    assert not netting.paid


def test_voiding_a_paid_withdrawal_is_a_disagreement() -> None:
    log, netting = EventLog(), Netting(pay_pending=True)
    usdc, who = log.asset("USDC"), log.account("user:1", row=WALLET)
    log.deposit(who, usdc, 10)
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", [(who, usdc, 3, EXTERNAL)])
    log.cut()
    log.money(EventKind.VOIDED, CommandKind.WITHDRAW_FAILED, "w1", [(who, usdc, 3, EXTERNAL)])
    log.cut()
    with pytest.raises(Disagreement, match="withdrawal w1 was paid"):
        _run(log, netting, Ledger())


@pytest.mark.parametrize("row", [None, bytes(32), CUSTODY_ROW, TREASURY_ROW, CLEARING_ROW])
def test_a_withdrawal_without_a_wallet_is_not_paid_and_the_others_are(row: bytes | None) -> None:
    log, ledger, netting = EventLog(), Ledger(), Netting(pay_pending=True)
    usdc = log.asset("USDC")
    rowless, linked = log.account("user:1", row=row), log.account("user:2", row=WALLET)
    for who in (rowless, linked):
        log.deposit(who, usdc, 1_000)
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", [(rowless, usdc, 300, EXTERNAL)])
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w2", [(linked, usdc, 200, EXTERNAL)])
    log.cut()
    [first] = _run(log, netting, ledger)
    [payout] = first.parts[0].coins[0].payouts
    assert (payout.ref, payout.row) == ("w2", WALLET) and first.pools == {"USDC": 1_800}
    [stuck] = netting.unpayable
    assert (stuck.ref, stuck.account, stuck.amount, stuck.booked) == ("w1", "user:1", 300, False)
    assert "no row of its own" in stuck.reason and set(netting.paid) == {"w2"}
    log.money(EventKind.VOIDED, CommandKind.WITHDRAW_FAILED, "w1", [(rowless, usdc, 300, EXTERNAL)])
    log.cut()
    [second] = _run(log, netting, ledger)
    assert netting.unpayable == [] and second.pools == {"USDC": 1_800}


def test_a_withdrawal_of_several_accounts_is_paid_whole_or_not_at_all() -> None:
    log, netting = EventLog(), Netting(pay_pending=True)
    usdc = log.asset("USDC")
    rowless, linked = log.account("user:1"), log.account("user:2", row=WALLET)
    for who in (rowless, linked):
        log.deposit(who, usdc, 100)
    legs = [(linked, usdc, 30, EXTERNAL), (rowless, usdc, 20, EXTERNAL)]
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", legs)
    log.cut()
    [batch] = _run(log, netting, Ledger())
    assert batch.parts[0].coins[0].payouts == [] and not netting.paid
    assert [(item.account, item.amount) for item in netting.unpayable] == [("user:2", 30), ("user:1", 20)]


def test_an_unpayable_withdrawal_booked_by_hand_stays_in_custody_also_after_a_restart() -> None:
    log, ledger, netting = EventLog(), Ledger(), Netting(pay_pending=True)
    usdc, rowless = log.asset("USDC"), log.account("user:1")
    log.deposit(rowless, usdc, 1_000)
    legs = [(rowless, usdc, 300, EXTERNAL)]
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", legs)
    log.cut()
    log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, "w1", legs)
    log.cut()
    log.cut()
    batches = _run(log, netting, ledger)
    assert all(batch.pools == {"USDC": 1_000} and not batch.parts[0].coins[0].payouts for batch in batches)
    assert netting.kept == {"USDC": 300} and netting.rows["USDC"] == {CUSTODY_ROW: 1_000}
    [named] = netting.unpayable
    assert named.booked and "stay in the custody row" in named.reason
    log.seek(0)
    again, ledger = Netting(pay_pending=True), Ledger()
    for _, batch in zip(ledger.feed(log.read()), batches, strict=True):
        again.take(batch, ledger)
        ledger.start_period()
    assert (again.kept, again.rows, again.unpayable) == (netting.kept, netting.rows, netting.unpayable)


def test_every_open_account_but_fees_is_outside() -> None:
    log, ledger, netting = EventLog(), Ledger(), Netting(pay_pending=True)
    usdc = log.asset("USDC")
    bank, who = log.account("bank:fiat", overdraft=2), log.account("user:1", row=WALLET)
    log.money(EventKind.TRANSFERRED, CommandKind.DEPOSIT, "d", [(bank, usdc, 1_000, who)])
    log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, "between", [(EXTERNAL, usdc, 50, bank)])
    log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, "fee", [(who, usdc, 10, FEES)])
    log.cut()
    legs = [(who, usdc, 400, bank)]
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", legs)
    log.cut()
    log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, "w1", legs)
    log.cut()
    first, second, third = _run(log, netting, ledger)
    coin = first.parts[0].coins[0]
    assert coin.deposits == [(WALLET, 1_000)] and coin.entries == [(WALLET, -10), (TREASURY_ROW, 10)]
    assert first.pools == second.pools == third.pools == {"USDC": 1_000}
    assert netting.rows["USDC"] == {WALLET: 590, TREASURY_ROW: 10, CUSTODY_ROW: 400} and not netting.paid


def test_what_a_payment_provider_gives_back_is_not_paid_on_the_chain_too() -> None:
    """It was paid twice, and a refund that the provider refused stopped settlement."""
    log, ledger, netting = EventLog(), Ledger(), Netting(pay_pending=True)
    usdc = log.asset("USDC")
    provider, who = log.account("external:test", overdraft=2), log.account("user:1", row=WALLET)
    log.money(EventKind.TRANSFERRED, CommandKind.DEPOSIT, "dep:test:1", [(provider, usdc, 1_000, who)])
    legs = [(who, usdc, 400, provider)]
    log.money(EventKind.PENDED, CommandKind.TRANSFER, "refund:1", legs)
    log.money(EventKind.PENDED, CommandKind.TRANSFER, "refund:2", [(who, usdc, 100, provider)])
    log.cut()
    [first] = _run(log, netting, ledger)
    assert first.parts[0].coins[0].payouts == []
    assert {item.ref for item in netting.unpayable} == {"refund:1", "refund:2"}
    assert "external:test" in netting.unpayable[0].reason and first.pools == {"USDC": 1_000}
    log.money(EventKind.POSTED, CommandKind.POST, "refund:1", legs)
    log.money(EventKind.VOIDED, CommandKind.VOID, "refund:2", [(who, usdc, 100, provider)])
    log.cut()
    [second] = _run(log, netting, ledger)
    assert second.parts[0].coins[0].payouts == [] and netting.kept == {"USDC": 400}
    assert netting.rows["USDC"] == {WALLET: 600, CUSTODY_ROW: 400}


@pytest.mark.parametrize("cover", [80, 49])
def test_a_forced_account_below_zero_is_covered_by_its_row_or_halts(cover: int) -> None:
    log, netting = EventLog(), Netting(pay_pending=False)
    usdc, who = log.asset("USDC"), log.account("user:1", row=WALLET)
    promo, revenue = log.account("platform:promo", overdraft=1), log.account("platform:revenue", overdraft=1)
    log.deposit(revenue, usdc, cover)
    log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, "t", [(promo, usdc, 50, who)])
    log.cut()
    if cover < 50:
        with pytest.raises(Disagreement, match=r"USDC: row 0x\w+ would fall to -1; it must be paid in first"):
            _run(log, netting, Ledger())
    else:
        _run(log, netting, Ledger())
        assert netting.rows["USDC"] == {TREASURY_ROW: 30, WALLET: 50}


def test_a_row_below_zero_is_caught_at_the_cut() -> None:
    log = EventLog()
    usdc, who = log.asset("USDC"), log.account("user:1")
    log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, "t", [(FEES, usdc, 5, who)])
    log.cut()
    with pytest.raises(Disagreement, match="would fall to -5"):
        _run(log, Netting(pay_pending=False), Ledger())


def test_liabilities_count_clients_only_and_never_below_zero() -> None:
    log, ledger = EventLog(), Ledger()
    usd = log.asset("USD", settled=False)
    who, debtor = log.account("user:1"), log.account("pay:2", overdraft=1)
    promo = log.account("platform:promo", overdraft=1)
    log.deposit(who, usd, 50)
    log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, "t", [(debtor, usd, 20, promo)])
    list(ledger.feed(log.read()))
    owed = Liabilities(bytes(32))
    assert owed.close(1, ledger)[1] == {"USD": 50}
    assert [proof.amount for proof in owed.prove(1, "user:1")] == [50]


def test_a_stored_batch_with_other_liabilities_is_a_disagreement() -> None:
    log, ledger = _random_day(3), Ledger()
    batches = _run(log, Netting(pay_pending=False, liabilities=Liabilities(bytes(32))), ledger)
    assert all(batch.statement is not None and batch.root == batch.statement.root() for batch in batches)
    for key, agrees in ((bytes(32), True), (bytes(31) + b"\1", False)):
        again, log = Ledger(), _random_day(3)
        netting = Netting(pay_pending=False, liabilities=Liabilities(key))
        cuts = again.feed(log.read())
        next(cuts)
        if agrees:
            netting.take(batches[0], again)
        else:
            with pytest.raises(Disagreement, match="is the key another"):
                netting.take(batches[0], again)


def test_a_large_batch_is_split_payers_first_and_clearing_ends_at_zero() -> None:
    rng = random.Random(5)
    payers = [(rng.randbytes(32), -rng.randrange(1, 99)) for _ in range(1_200)]
    receivers = [(rng.randbytes(32), 1) for _ in range(700)]
    receivers.append((rng.randbytes(32), -sum(a for _, a in payers + receivers)))
    coin = CoinPart("USDC", bytes(32), payers + receivers, [(payers[0][0], 10)], [])
    parts = split(7, b"\1" * 32, b"\2" * 32, [coin, CoinPart("MAYA", bytes(32))])
    assert len(parts) == 3 and [part.number for part in parts] == [0, 1, 2]
    clearing, seen, previous = 0, [], bytes(32)
    for part in parts:
        usdc = part.coins[0]
        assert usdc.previous == previous and sum(amount for _, amount in usdc.entries) == 0
        assert len(usdc.entries) + len(usdc.deposits) <= ROWS_PER_PART
        clearing += sum(amount for row, amount in usdc.entries if row == CLEARING_ROW)
        assert clearing >= 0
        seen += [entry for entry in usdc.entries if entry[0] != CLEARING_ROW]
        previous = usdc.next_chain(7, part.number, part.root, part.trades_digest)
    assert clearing == 0 and sorted(seen) == sorted(payers + receivers)


def test_a_skipped_payout_that_is_still_pending_is_not_paid_by_a_later_batch() -> None:
    log, ledger, netting = EventLog(), Ledger(), Netting(pay_pending=True)
    usdc = log.asset("USDC")
    who = log.account("user:1", row=WALLET)
    log.deposit(who, usdc, 1_000)
    legs = [(who, usdc, 300, EXTERNAL)]
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", legs)
    log.cut()
    [first] = _run(log, netting, ledger)
    [payout] = first.parts[0].coins[0].payouts
    netting.skip([("USDC", payout)])
    netting.skip([("USDC", payout)])
    log.cut()
    log.money(EventKind.VOIDED, CommandKind.WITHDRAW_FAILED, "w1", legs)
    log.cut()
    for batch in _run(log, netting, ledger):
        assert batch.parts[0].coins[0].payouts == batch.parts[0].coins[0].entries == []
        assert batch.pools == {"USDC": 1_000} and batch.beside == {"USDC": 300}
    assert netting.rows["USDC"] == {WALLET: 1_000}


@pytest.mark.parametrize("unit", [1, -1])
def test_books_that_do_not_sum_to_zero_seal_nothing(unit: int) -> None:
    log, ledger, netting = EventLog(), Ledger(), Netting(pay_pending=True)
    usdc = log.asset("USDC")
    who = log.account("user:1", row=WALLET)
    log.deposit(who, usdc, 1_000)
    log.cut()
    _run(log, netting, ledger)
    rows = dict(netting.rows["USDC"])
    log.cut()
    [cut] = ledger.feed(log.read())
    ledger.totals[who, usdc] += unit
    with pytest.raises(Disagreement, match=f"asset USDC sums to {unit}, not to zero"):
        netting.seal(ledger, cut, 0)
    ledger.totals[who, usdc] -= unit
    assert netting.rows["USDC"] == rows
    netting.rows["USDC"][WALLET] += unit
    with pytest.raises(Disagreement, match=f"USDC: the entries sum to {-unit}, not to zero"):
        netting.seal(ledger, cut, 0)
    netting.rows["USDC"][WALLET] -= unit
    assert netting.seal(ledger, cut, 0).parts[0].coins[0].entries == []
