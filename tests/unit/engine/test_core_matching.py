"""Matching: the mistakes that order books are known for, each with the book before and after."""

from __future__ import annotations

import pytest

from engine.core import Core, CoreLimits
from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind, OrderStatus, SelfTrade, Side, TimeInForce
from tests.support.core_world import BTC, FUNDS, USD, World, words

BUY, SELL = Side.BUY, Side.SELL
IOC, FOK = TimeInForce.IOC, TimeInForce.FOK


@pytest.fixture
def world() -> World:
    return World()


def test_queue_order_survives_a_cancel_in_the_middle(world: World) -> None:
    a, b, c = world.accounts
    for size, name in ((5, "first"), (6, "middle"), (7, "last")):
        world.place(a, SELL, 100, size, client_id=name)
    assert world.book() == "sell 100: 5 6 7"
    assert words(world.cancel(a, "middle")) == ["canceled user 6"]
    assert world.book() == "sell 100: 5 7"
    assert words(world.place(b, BUY, 100, 6)) == ["accepted", "trade 5@100", "trade 1@100"]
    assert world.book() == "sell 100: 6"


def test_best_price_moves_on_after_cancel_and_after_a_fill(world: World) -> None:
    a, b, _ = world.accounts
    for price in (100, 164, 5000, 900_000):
        world.place(a, SELL, price, 1, client_id=f"s{price}")
    world.cancel(a, "s100")
    assert words(world.place(b, BUY, 900_000, 2)) == ["accepted", "trade 1@164", "trade 1@5000"]
    assert world.book() == "sell 900000: 1"


def test_trade_is_at_the_makers_price_for_each_maker(world: World) -> None:
    a, b, _ = world.accounts
    for price in (100, 100, 101):
        world.place(a, SELL, price, 2)
    assert words(world.place(b, BUY, 105, 6, tif=FOK)) == ["accepted", "trade 2@100", "trade 2@100", "trade 2@101"]


def test_ioc_rest_does_not_join_the_book(world: World) -> None:
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 2)
    assert words(world.place(b, BUY, 100, 5, tif=IOC)) == ["accepted", "trade 2@100", "canceled ioc 3"]
    assert world.book() == ""
    assert world.balance(b, USD) == (FUNDS - 200, 0)


def test_fok_is_all_or_nothing_over_several_makers(world: World) -> None:
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 2)
    world.place(a, SELL, 101, 2)
    assert words(world.place(b, BUY, 101, 5, tif=FOK)) == ["accepted", "canceled fok 5"]
    assert world.book() == "sell 100: 2 | sell 101: 2"
    assert words(world.place(b, BUY, 101, 4, tif=FOK)) == ["accepted", "trade 2@100", "trade 2@101"]


def test_filled_order_is_no_longer_cancellable(world: World) -> None:
    a, b, _ = world.accounts
    order_id = int(world.place(a, SELL, 100, 2, client_id="x")[0]["order_id"])
    world.place(b, BUY, 100, 2)
    assert words(world.cancel(a, "x")) == ["rejected unknown_order"]
    assert words(world.cancel(a, order_id)) == ["rejected unknown_order"]


def test_order_of_another_account_is_unknown(world: World) -> None:
    a, b, _ = world.accounts
    order_id = int(world.place(a, SELL, 100, 2, client_id="x")[0]["order_id"])
    assert words(world.cancel(b, order_id)) == ["rejected unknown_order"]
    assert words(world.cancel(b, "x")) == ["rejected unknown_order"]


def test_known_client_id_is_answered_with_the_status_as_of_now(world: World) -> None:
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 5, client_id="x")
    world.place(b, BUY, 100, 2)
    (event,) = world.place(a, BUY, None, 1, client_id="x")
    assert (event["kind"], event["status"], event["filled"]) == (EventKind.DUPLICATE, OrderStatus.OPEN, 2)
    world.cancel(a, "x")
    (event,) = world.place(a, SELL, 1, 1, client_id="x")
    assert (event["status"], event["filled"]) == (OrderStatus.CANCELED, 2)


def test_remembered_ids_are_exactly_the_last_closed_ones() -> None:
    world = World(limits=CoreLimits(client_ids_per_account=3, client_ids_total=5))
    a, b, _ = world.accounts
    for i in range(4):
        world.place(a, SELL, 100, 1, client_id=f"x{i}")
        world.cancel(a, f"x{i}")
    assert words(world.place(a, SELL, 100, 1, client_id="x1")) == ["duplicate"]
    assert words(world.place(a, SELL, 100, 1, client_id="x0")) == ["accepted"]
    for i in range(3):
        world.place(b, SELL, 100, 1, client_id=f"y{i}")
        world.cancel(b, f"y{i}")
    # Six closed ids over both accounts with room for five: a's oldest went.
    assert words(world.place(a, SELL, 100, 1, client_id="x1")) == ["accepted"]
    assert words(world.place(a, SELL, 100, 1, client_id="x2")) == ["duplicate"]


def test_ids_close_after_a_snapshot_as_without_one() -> None:
    world = World(limits=CoreLimits(client_ids_per_account=3))
    a = world.accounts[0]
    for name in ("x", "y", "z"):
        world.place(a, SELL, 100, 1, client_id=name)
    world.replace(a, "y", new_client_id=b"y2")
    for name in ("y2", "x"):
        world.cancel(a, name)
    twin = Core.restore(world.core.snapshot())
    twin.apply(world.record(CommandKind.CANCEL, layout.CANCEL, account=a, client_id=b"z"))
    twin.check()
    world.cancel(a, "z")
    assert twin.state_hash() == world.core.state_hash() and twin.snapshot() == world.core.snapshot()
    # The older name closed before the newest, so it is the one that is forgotten.
    world.core = twin
    assert words(world.place(a, SELL, 100, 1, client_id="y2")) == ["duplicate"]
    assert words(world.place(a, SELL, 100, 1, client_id="y")) == ["accepted"]


def test_rejected_order_does_not_use_up_its_id(world: World) -> None:
    a = world.accounts[0]
    assert words(world.place(a, SELL, 0, 1, client_id="x")) == ["rejected bad_price"]
    assert words(world.place(a, SELL, 1, 1, client_id="x")) == ["accepted"]


def test_post_only_is_refused_at_the_touch(world: World) -> None:
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 1)
    assert words(world.place(b, BUY, 100, 1, flags=layout.PlaceFlag.POST_ONLY)) == ["rejected would_cross"]
    assert words(world.place(b, BUY, 99, 1, flags=layout.PlaceFlag.POST_ONLY)) == ["accepted"]


def test_replace_keeps_or_loses_priority(world: World) -> None:
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 5, client_id="x")
    world.place(a, SELL, 100, 6, client_id="y")
    (event,) = world.replace(a, "x", size=4, new_client_id=b"z")
    assert event["priority_kept"] == 1 and world.book() == "sell 100: 4 6"
    (event,) = world.replace(a, "x", size=7)  # the old id still answers
    assert event["priority_kept"] == 0 and world.book() == "sell 100: 6 7"
    assert words(world.replace(a, "z", new_client_id=b"y")) == ["rejected duplicate"]
    world.place(b, BUY, 90, 3)
    assert words(world.replace(a, "z", price=90)) == ["replaced", "trade 3@90"]
    assert world.book() == "sell 90: 4 | sell 100: 6"
    assert words(world.replace(a, "z", size=3)) == ["canceled replaced 4"]
    assert words(world.place(a, SELL, 100, 1, client_id="x")) == ["duplicate"]


def test_replace_without_funds_leaves_the_order_in_its_place(world: World) -> None:
    a = world.accounts[0]
    world.place(a, BUY, 100, 5, client_id="x")
    world.place(a, BUY, 100, 6)
    before = world.core.open_orders().tobytes()
    assert words(world.replace(a, "x", size=FUNDS)) == ["rejected insufficient_funds"]
    assert world.core.open_orders().tobytes() == before


@pytest.mark.parametrize(
    ("mode", "expected", "book"),
    [
        (SelfTrade.CANCEL_NEWEST, ["accepted", "prevented", "canceled stp 5"], "sell 100: 3 4"),
        (SelfTrade.CANCEL_OLDEST, ["accepted", "prevented", "canceled stp 3", "trade 4@100"], "buy 100: 1"),
        (SelfTrade.CANCEL_BOTH, ["accepted", "prevented", "canceled stp 3", "canceled stp 5"], "sell 100: 4"),
        (SelfTrade.DECREMENT, ["accepted", "prevented", "canceled stp 0", "trade 2@100"], "sell 100: 2"),
        (SelfTrade.NONE, ["accepted", "trade 3@100", "trade 2@100"], "sell 100: 2"),
    ],
)
def test_self_trade_modes(world: World, mode: SelfTrade, expected: list[str], book: str) -> None:
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 3)
    world.place(b, SELL, 100, 4)
    assert words(world.place(a, BUY, 100, 5, stp=mode)) == expected
    assert world.book() == book


def test_market_buy_spends_budget_and_keeps_the_dust() -> None:
    world = World(taker_ppm=5000, maker_ppm=-1000)
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 10)
    events = world.place(b, BUY, None, 250, flags=layout.PlaceFlag.BUDGET)
    assert words(events) == ["accepted", "trade 2@100", "canceled budget 49"]
    assert world.balance(b, USD) == (FUNDS - 201, 0)
    assert words(world.place(b, BUY, None, 100, flags=layout.PlaceFlag.BUDGET)) == ["rejected insufficient_funds"]


def test_market_order_meets_an_empty_or_a_thin_book(world: World) -> None:
    a, b, _ = world.accounts
    assert words(world.place(b, SELL, None, 3)) == ["rejected no_liquidity"]
    world.place(a, BUY, 100, 1)
    assert words(world.place(b, SELL, None, 3)) == ["accepted", "trade 1@100", "canceled market 2"]
    assert world.balance(b, BTC) == (FUNDS - 1, 0)


def test_fills_limit_ends_a_sweep() -> None:
    world = World(limits=CoreLimits(max_fills_per_command=2))
    a, b, _ = world.accounts
    for _ in range(3):
        world.place(a, SELL, 100, 1)
    assert words(world.place(b, BUY, 100, 3))[-1] == "canceled fills_limit 1"
    assert world.book() == "sell 100: 1"


def test_mass_cancel_goes_by_order_id(world: World) -> None:
    a, b, _ = world.accounts
    for price in (103, 101, 102):
        world.place(a, SELL, price, price)
    world.place(a, BUY, 50, 1)
    world.place(b, SELL, 104, 1)
    events = world.send(CommandKind.MASS_CANCEL, layout.MASS_CANCEL, account=a, given=1, side=SELL)
    assert words(events) == ["done", "canceled mass 103", "canceled mass 101", "canceled mass 102"]
    assert world.book() == "buy 50: 1 | sell 104: 1"


def test_frozen_account_loses_its_orders_and_places_no_more(world: World) -> None:
    a = world.accounts[0]
    world.place(a, SELL, 100, 1)
    events = world.send(CommandKind.ACCOUNT, layout.ACCOUNT, name=b"trader-0", mask=layout.AccountMask.STATUS, status=2)
    assert words(events) == ["done", "canceled frozen 1"]
    assert words(world.place(a, SELL, 100, 1)) == ["rejected frozen"]


def test_max_open_orders_and_a_full_pool_are_refused() -> None:
    world = World(limits=CoreLimits(orders=3))
    a, b, _ = world.accounts
    mask = layout.AccountMask.MAX_OPEN_ORDERS
    world.send(CommandKind.ACCOUNT, layout.ACCOUNT, name=b"trader-0", mask=mask, max_open_orders=1)
    world.place(a, SELL, 100, 1)
    assert words(world.place(a, SELL, 100, 1)) == ["rejected too_many_orders"]
    world.place(b, SELL, 100, 1)
    world.place(b, SELL, 100, 1)
    assert words(world.place(b, SELL, 100, 1)) == ["rejected too_many_orders"]


def test_rejected_commands_leave_everything_but_the_clock(world: World) -> None:
    a = world.accounts[0]
    world.place(a, SELL, 100, 5)
    twin = Core.restore(world.core.snapshot())
    before = world.core.snapshot()
    refused = [
        lambda: world.place(a, SELL, 100, 0), lambda: world.place(99, SELL, 100, 1),
        lambda: world.place(a, BUY, 100, FUNDS), lambda: world.cancel(a, "nobody"),
        lambda: world.transfer("t", [(a, USD, FUNDS + 1, world.accounts[1], 0, 0)]),
    ]  # fmt: skip
    for command in refused:
        assert words(command())[0].startswith("rejected")
    for _ in refused:
        twin.apply(world_tick(twin))
    assert twin.state_hash() == world.core.state_hash() and before != world.core.snapshot()


def world_tick(core: Core) -> bytes:
    helper = World.__new__(World)
    helper.sequence, helper.now = core.sequence, 0
    return helper.record(CommandKind.TICK, layout.COMMAND)


def test_snapshot_goes_on_with_the_same_events(world: World) -> None:
    a, b, _ = world.accounts
    for price in (100, 101, 100):
        world.place(a, SELL, price, 4, client_id=f"s{world.sequence}")
    world.replace(a, int(world.core.open_orders()[0]["order_id"]), new_client_id=b"renamed")
    world.place(b, BUY, 100, 5)
    world.transfer("p", [(a, USD, 10, b, 0, 0)], flags=layout.MoneyFlag.PENDING, expires_at=500)
    twin = Core.restore(world.core.snapshot())
    twin.check()
    assert twin.state_hash() == world.core.state_hash() and twin.snapshot() == world.core.snapshot()
    assert twin.next_due == world.core.next_due == 500
    helper = World.__new__(World)
    helper.core, helper.sequence, helper.now, helper.ids = twin, world.sequence, 0, 1000
    world.ids = 1000
    for drive in (
        lambda w: w.place(b, BUY, 101, 9), lambda w: w.cancel(a, "renamed"), lambda w: w.tick(600),
        lambda w: w.send(CommandKind.CUT, layout.COMMAND),
    ):  # fmt: skip
        assert [event.tobytes() for event in drive(world)] == [event.tobytes() for event in drive(helper)]


def test_restore_refuses_damaged_data(world: World) -> None:
    data = bytearray(world.core.snapshot())
    data[200] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        Core.restore(bytes(data))
    with pytest.raises(ValueError, match="version"):
        Core.restore(b"nonsense")


def test_batch_stops_before_a_buffer_could_be_too_small(world: World) -> None:
    import numpy as np

    a, b, _ = world.accounts
    for _ in range(5):
        world.place(a, SELL, 100, 1)
    helper = World.__new__(World)
    helper.sequence, helper.now = world.sequence, 0
    records = np.frombuffer(helper.record(CommandKind.MASS_CANCEL, layout.MASS_CANCEL, side=255), layout.COMMAND)
    assert world.core.bound(records) == 9
    assert world.core.apply_batch(records, np.zeros(8, layout.EVENT)) == (0, 0)
    assert world.core.apply_batch(records, np.zeros(9, layout.EVENT)) == (1, 6)
