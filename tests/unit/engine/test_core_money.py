"""Fees, holds, transfers, refs: arithmetic against worked examples, and what must be refused."""

from __future__ import annotations

import numpy as np

from engine.core import Core, CoreLimits
from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind, RefStatus, Side
from engine.reference import ReferenceCore
from tests.support.core_world import BTC, FUNDS, USD, Told, World, words

BUY, SELL = Side.BUY, Side.SELL
PENDING, FORCE = layout.MoneyFlag.PENDING, layout.MoneyFlag.FORCE
FEES = 1


def test_fees_are_cumulative_with_a_rebate() -> None:
    # Notionals 3,333 and 3,334; taker 5000, maker -1000 ppm: 17 and 17 against -3 and -3, fees keep 28.
    world = World(taker_ppm=5000, maker_ppm=-1000)
    maker, taker, other = world.accounts
    world.place(maker, SELL, 3333, 2)
    assert words(world.replace(maker, int(world.core.open_orders()[0]["order_id"]), size=1)) == ["replaced"]
    world.place(taker, BUY, 3333, 1)
    assert world.balance(FEES, USD) == (17 - 3, 0)
    world = World(taker_ppm=5000, maker_ppm=-1000)
    maker, taker, other = world.accounts
    world.place(maker, SELL, 1, 3333 + 3334)
    order = world.place(taker, BUY, 1, 3333)
    assert (int(order[1]["taker_fee"]), int(order[1]["maker_fee"])) == (17, -3)
    order = world.place(other, BUY, 1, 3334)
    assert (int(order[1]["taker_fee"]), int(order[1]["maker_fee"])) == (17, -3)
    assert world.balance(maker, USD) == (FUNDS + 6_667 + 6, 0)
    assert world.balance(FEES, USD) == (28, 0)


def test_one_order_is_charged_the_increase_of_its_exact_sum() -> None:
    world = World(taker_ppm=5000, maker_ppm=5000)
    maker, taker, _ = world.accounts
    for _ in range(4):
        world.place(maker, SELL, 50, 1)
    fills = world.place(taker, BUY, 50, 4)[1:]
    assert [int(fill["taker_fee"]) for fill in fills] == [1, 0, 0, 0]  # 4 × 50 × 0.5 % = 1 exactly
    assert [int(fill["maker_fee"]) for fill in fills] == [1, 1, 1, 1]  # four orders, each rounds up
    assert world.balance(taker, USD) == (FUNDS - 201, 0)


def test_hold_is_made_anew_at_each_fill_and_improvement_is_back_at_once() -> None:
    world = World(taker_ppm=5000, maker_ppm=3000)
    maker, taker, _ = world.accounts
    world.place(maker, SELL, 90, 4)
    accepted, fill = world.place(taker, BUY, 100, 10)
    assert int(accepted["hold"]) == 1000 + 5
    # 4 at 90 cost 360 + 2; what is left holds 600 + ceil((1.8 + 3.0)) - 2 = 603.
    assert int(fill["released"]) == 1005 - 603 - 360 - 2 == 40
    assert world.balance(taker, USD) == (FUNDS - 362 - 603, 603)


def test_a_sell_holds_base_and_gives_it_back() -> None:
    world = World()
    a = world.accounts[0]
    world.place(a, SELL, 100, 7, client_id="x")
    assert world.balance(a, BTC) == (FUNDS - 7, 7)
    (event,) = world.cancel(a, "x")
    assert int(event["released"]) == 7 and world.balance(a, BTC) == (FUNDS, 0)


def test_shares_go_by_largest_remainder_ties_to_the_earlier() -> None:
    # Refund 333 over 100, 150, 510, 340: 30, 46, 154, 103.
    world = World(accounts=4)
    a, b, c, d = world.accounts
    source = world.account(b"platform")
    world.deposit(source, USD, 2000, "fund-platform")
    parts = [(source, USD, 333, target, 0, weight) for target, weight in ((a, 100), (b, 150), (c, 510), (d, 340))]
    assert words(world.transfer("refund", parts)) == ["transferred"] + ["balance"] * 5
    assert [world.balance(x, USD)[0] - FUNDS for x in (a, b, c, d)] == [30, 46, 154, 103]
    world.transfer("tie", [(source, USD, 1, b, 0, 1), (source, USD, 1, a, 0, 1)])
    assert world.balance(b, USD)[0] - FUNDS == 47 and world.balance(a, USD)[0] - FUNDS == 30


def test_pending_posts_once_and_repeats_are_duplicates() -> None:
    world = World()
    a, b, _ = world.accounts
    assert words(world.transfer("p", [(a, USD, 10, b, 0, 0)], flags=PENDING)) == ["pended", "balance"]
    assert world.balance(a, USD) == (FUNDS - 10, 10)
    assert words(world.decide(CommandKind.POST, "p")) == ["posted", "balance", "balance"]
    for kind in (CommandKind.POST, CommandKind.VOID):
        (event,) = world.decide(kind, "p")
        assert (event["kind"], event["status"]) == (EventKind.DUPLICATE, RefStatus.POSTED)
    assert words(world.transfer("p", [(a, USD, 10, b, 0, 0)], flags=PENDING)) == ["duplicate"]
    assert words(world.transfer("p", [(a, USD, 11, b, 0, 0)], flags=PENDING)) == ["rejected bad_ref"]
    assert world.balance(b, USD) == (FUNDS + 10, 0)


def test_tick_voids_what_expired_and_post_is_refused_from_then_on() -> None:
    world = World()
    a, b, _ = world.accounts
    world.transfer("p", [(a, USD, 10, b, 0, 0)], flags=PENDING, expires_at=100)
    assert world.core.next_due == 100
    world.now = 100
    assert words(world.decide(CommandKind.POST, "p")) == ["rejected expired"]
    assert words(world.tick(100)) == ["voided", "balance"]
    assert world.balance(a, USD) == (FUNDS, 0)
    assert words(world.tick(101)) == []


def test_void_of_an_unknown_ref_closes_it() -> None:
    world = World()
    a, b, _ = world.accounts
    assert words(world.decide(CommandKind.VOID, "r")) == ["voided"]
    (event,) = world.transfer("r", [(a, USD, 10, b, 0, 0)])
    assert (event["kind"], event["status"]) == (EventKind.DUPLICATE, RefStatus.VOIDED)
    assert words(world.decide(CommandKind.POST, "unknown")) == ["rejected bad_ref"]


def test_not_after_refuses_late_commands_and_forgets_decided_refs() -> None:
    world = World()
    a = world.accounts[0]
    kept = world.core.ref_count
    world.deposit(a, USD, 5, "r", not_after=100)
    world.tick(100)
    assert words(world.deposit(a, USD, 5, "r", not_after=100)) == ["duplicate"]
    assert world.core.ref_count == kept + 1
    world.tick(101)
    assert world.core.ref_count == kept
    assert words(world.deposit(a, USD, 5, "r", not_after=100)) == ["rejected expired"]
    assert words(world.deposit(a, USD, 5, "r", not_after=200)) == ["transferred", "balance", "balance"]


def test_withdraw_is_pending_until_settled_or_failed() -> None:
    world = World()
    a = world.accounts[0]

    def withdraw(ref: str) -> list[str]:
        fields = {"account": a, "asset": USD, "amount": 40, "not_after": -(2**63), "place": 0}
        return words(world.send(CommandKind.WITHDRAW, layout.WITHDRAW, ref=ref.encode(), **fields))

    assert withdraw("w1") == ["pended", "balance"]
    assert withdraw("w2") == ["pended", "balance"]
    assert words(world.decide(CommandKind.WITHDRAW_SETTLED, "w1")) == ["posted", "balance", "balance"]
    assert words(world.decide(CommandKind.WITHDRAW_FAILED, "w2")) == ["voided", "balance"]
    assert world.balance(a, USD) == (FUNDS - 40, 0)


def test_nothing_takes_a_never_account_below_zero_and_force_only_a_forced_one() -> None:
    world = World()
    a, b, _ = world.accounts
    mask = layout.AccountMask.OVERDRAFT
    payee = world.account(b"pay:x", mask=mask, overdraft=1)
    too_much = [(a, USD, FUNDS + 1, b, 0, 0)]
    assert words(world.transfer("t", too_much)) == ["rejected insufficient_funds"]
    assert words(world.transfer("t", too_much, flags=FORCE)) == ["rejected insufficient_funds"]
    assert words(world.transfer("t", [(payee, USD, 5, b, 0, 0)])) == ["rejected insufficient_funds"]
    assert words(world.transfer("t", [(payee, USD, 5, b, 0, 0)], flags=FORCE))[0] == "transferred"
    assert world.balance(payee, USD) == (-5, 0)


def test_what_a_transfer_brings_in_does_not_count_as_cover() -> None:
    world = World()
    a, b, _ = world.accounts
    legs = [(b, USD, FUNDS, a, 0, 0), (a, USD, FUNDS + 1, b, 1, 0)]
    assert words(world.transfer("t", legs)) == ["rejected insufficient_funds"]


def test_debts_of_an_asset_stay_within_two_to_the_62() -> None:
    world = World()
    a = world.accounts[0]
    assert words(world.deposit(a, USD, 2**62, "huge")) == ["rejected too_large"]
    assert words(world.deposit(a, USD, 2**62 - 3 * FUNDS, "most"))[0] == "transferred"
    assert words(world.deposit(a, USD, 1, "more")) == ["rejected too_large"]


def test_malformed_legs_are_refused() -> None:
    world = World()
    a, b, _ = world.accounts
    assert words(world.transfer("t", [])) == ["rejected bad_legs"]
    assert words(world.transfer("t", [(a, USD, 1, a, 0, 0)])) == ["rejected bad_account"]
    assert words(world.transfer("t", [(a, USD, 1, b, 1, 0)])) == ["rejected bad_legs"]
    assert words(world.transfer("t", [(a, USD, 0, b, 0, 0)])) == ["rejected bad_amount"]
    assert words(world.transfer("t", [(a, 99, 1, b, 0, 0)])) == ["rejected unknown_asset"]
    assert words(world.transfer("t", [(a, USD, 1, 99, 0, 0)])) == ["rejected unknown_account"]
    assert words(world.transfer("t", [(a, USD, 1, b, i, 0) for i in range(65)])) == ["rejected bad_legs"]


def test_a_full_ref_table_refuses_and_never_forgets_early() -> None:
    world = World(accounts=1, limits=CoreLimits(refs=3))
    a = world.accounts[0]
    assert words(world.deposit(a, USD, 1, "third"))[0] == "transferred"
    assert words(world.deposit(a, USD, 1, "fourth")) == ["rejected busy"]
    assert world.core.ref_count == world.core.limits.refs
    assert words(world.deposit(a, USD, 1, "third")) == ["duplicate"]


def test_cut_numbers_batches_and_carries_the_hash() -> None:
    world = World()
    (event,) = world.send(CommandKind.CUT, layout.COMMAND)
    assert (event["batch"], event["first_sequence"], event["last_sequence"]) == (1, 1, world.sequence)
    assert event["state_hash"].tobytes() == world.core.state_hash()
    (event,) = world.send(CommandKind.CUT, layout.COMMAND)
    assert (event["batch"], event["first_sequence"]) == (2, world.sequence)


def test_the_balances_of_one_account_are_the_rows_of_all() -> None:
    world = World(taker_ppm=5000, maker_ppm=-1000)
    maker, taker, _ = world.accounts
    world.place(maker, SELL, 50, 2)
    world.place(taker, BUY, 50, 1)
    everything = [row.tolist() for row in world.core.balances()]
    for account in [0, FEES, *world.accounts, 10_000]:
        expected = sorted(row for row in everything if row[0] == account)
        assert [row.tolist() for row in world.core.balances_of(account)] == expected
    assert any(row[3] for row in world.core.balances_of(maker).tolist())


def test_an_account_may_have_money_in_many_assets() -> None:
    # More than one chain of balances holds, of two accounts and of those that every deposit and fee touches.
    world = Told(accounts=2)
    names = [b"A%d" % asset for asset in range(2, 20)]
    for name in names:
        world.send(CommandKind.ASSET, layout.ASSET, name=name)
    for account in world.accounts:
        for asset in range(2, 2 + len(names)):
            world.deposit(account, asset, 100 * account + asset, f"more-{account}-{asset}")
    a, b = world.accounts
    world.transfer("all", [(a, asset, 1, b, leg, 0) for leg, asset in enumerate(range(20))])
    world.transfer("held", [(a, asset, 2, 0, leg, 0) for leg, asset in enumerate(range(20))], flags=PENDING)
    for account, moved in ((a, -3), (b, 1)):
        rows = [row.tolist() for row in world.core.balances_of(account)]
        funds = [FUNDS, FUNDS, *(100 * account + asset for asset in range(2, 20))]
        held = 2 if account == a else 0
        assert rows == [(account, asset, funds[asset] + moved, held) for asset in range(20)]
    twin = Core.restore(world.core.snapshot())
    twin.check()
    assert twin.state_hash() == world.core.state_hash() and twin.snapshot() == world.core.snapshot()
    assert [row.tolist() for row in twin.balances()] == [row.tolist() for row in world.core.balances()]
    reference = ReferenceCore()
    for record in world.told:
        reference.apply(record)
    assert reference.state_hash() == world.core.state_hash()
    world.decide(CommandKind.VOID, "held")
    assert all(row["held"] == 0 for row in world.core.balances_of(a))


def test_what_few_accounts_have_survives_a_snapshot() -> None:
    world = Told(accounts=2)
    extra = layout.AccountMask.ROW | layout.AccountMask.STP_GROUP
    slot = np.zeros(1, layout.ACCOUNT_EXTRA)
    slot["row"], slot["stp_group"] = b"\1" * 32, b"desk"
    world.send(CommandKind.ACCOUNT, layout.ACCOUNT, (slot,), name=b"n" * 64, mask=extra)
    world.send(CommandKind.ACCOUNT, layout.ACCOUNT, name=b"n" * 63)
    world.send(CommandKind.CANCEL_AFTER, layout.CANCEL_AFTER, account=world.accounts[1], at=1_000)
    twin = Core.restore(world.core.snapshot())
    twin.check()
    assert twin.state_hash() == world.core.state_hash() and twin.next_due == 1_000
    assert twin.describe().tobytes() == world.core.describe().tobytes()
    assert [twin.account_name(index)[-2:] for index in (4, 5)] == ["nn", "nn"] and twin.account_index("n" * 63) == 5
    reference = ReferenceCore()
    for record in world.told:
        reference.apply(record)
    assert reference.state_hash() == world.core.state_hash()
