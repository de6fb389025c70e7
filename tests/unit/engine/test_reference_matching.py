"""Matching, fees and holds by hand-made vectors, on the reference and on the core alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.core import Core
from engine.limits import CoreLimits
from engine.reference import ReferenceCore
from tests.support.books import assert_book
from tests.support.commands import Desk, account, cancel, deposit, limit, market_order, replace


@pytest.fixture(params=[ReferenceCore, Core], ids=["reference", "core"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    desks: list[Desk] = []

    def desk(limits: CoreLimits | None = None, **terms: Any) -> Desk:
        desks.append(Desk(request.param(limits), **terms))
        return desks[-1]

    yield desk
    for made in desks:
        made.core.check()


def test_trade_is_at_makers_price_and_improvement_returns_at_once(make: Any) -> None:
    desk = make()
    desk.do(limit("bob", "s1", "sell", "10.00", "5"))
    desk.do(limit("bob", "s2", "sell", "10.02", "5"))
    assert_book(desk, "| 10 5:bob/s1\n| 10.02 5:bob/s2")
    events = desk.do(limit("ann", "b1", "buy", "10.05", "7"))
    assert [(e["price"], e["size"], e["taker_leaves"]) for e in events[1:]] == [("10", "5", "2"), ("10.02", "2", "0")]
    assert events[0]["hold"] == "70.35"
    assert [e["taker_released"] for e in events[1:]] == ["0.25", "0.06"]
    assert_book(desk, "| 10.02 3:bob/s2")
    assert desk.balance("ann", "USD") == ("9929.96", "0")
    assert desk.balance("ann", "TOK") == ("1007", "0")


def test_time_priority_holds_within_a_level(make: Any) -> None:
    desk = make()
    for client_id in ("x", "y", "z"):
        desk.do(limit("bob", client_id, "sell", "10", "1"))
    desk.do(replace("bob", "x", size="1", new_client_id="x2"))
    desk.do(replace("bob", "y", size="2"))
    assert_book(desk, "| 10 1:bob/x2 1:bob/z 2:bob/y")


def test_fee_is_cumulative_and_rounded_up_once(make: Any) -> None:
    desk = make(taker_ppm=5000, maker_ppm=-3000)
    for number in range(3):
        desk.do(limit("bob", f"s{number}", "sell", "0.67", "1"))
    trades = [e for e in desk.do(limit("ann", "b", "buy", "0.67", "3")) if e["event"] == "trade"]
    # exact taker fees: 0.335, 0.67, 1.005 cents; each maker's rebate of 0.201 cents is ceil(-0.201) = 0
    assert [e["taker_fee"] for e in trades] == ["0.01", "0", "0.01"]
    assert [e["maker_fee"] for e in trades] == ["0", "0", "0"]
    assert desk.balance("system:fees", "USD") == ("0.02", "0")


def test_fok_counts_across_levels_and_does_nothing_when_short(make: Any) -> None:
    desk = make()
    desk.do(limit("bob", "s1", "sell", "10", "5"))
    desk.do(limit("bob", "s2", "sell", "11", "5"))
    assert desk.names(limit("ann", "b1", "buy", "11", "11", tif="fok")) == ["accepted", "canceled fok"]
    assert_book(desk, "| 10 5:bob/s1\n| 11 5:bob/s2")
    assert desk.names(limit("ann", "b2", "buy", "11", "10", tif="fok")) == ["accepted", "trade", "trade"]


@pytest.mark.parametrize(
    ("mode", "names", "book"),
    [
        ("cancel_newest", ["accepted", "prevented", "canceled stp"], "| 10 3:ann/mine\n| 10.01 9:bob/his"),
        ("cancel_oldest", ["accepted", "prevented", "canceled stp", "trade"], "| 10.01 4:bob/his"),
        ("cancel_both", ["accepted", "prevented", "canceled stp", "canceled stp"], "| 10.01 9:bob/his"),
        ("decrement", ["accepted", "prevented", "canceled stp", "trade"], "| 10.01 7:bob/his"),
        ("none", ["accepted", "trade", "trade"], "| 10.01 7:bob/his"),
    ],
)
def test_self_trade_is_prevented_by_the_takers_mode(make: Any, mode: str, names: list[str], book: str) -> None:
    desk = make()
    desk.do(limit("ann", "mine", "sell", "10", "3"))
    desk.do(limit("bob", "his", "sell", "10.01", "9"))
    assert desk.names(limit("ann", "b", "buy", "10.01", "5", stp=mode)) == names
    assert_book(desk, book)


def test_market_buy_by_budget_keeps_the_dust(make: Any) -> None:
    desk = make(taker_ppm=10_000)
    desk.do(limit("bob", "s", "sell", "1.00", "50"))
    events = desk.do(market_order("ann", "m", "buy", budget="3.10"))
    assert [e["event"] for e in events] == ["accepted", "trade", "canceled"]
    assert (events[1]["size"], events[1]["taker_fee"], events[1]["taker_leaves"]) == ("3", "0.03", "0.07")
    assert (events[2]["leaves"], events[2]["reason"]) == ("0.07", "budget")
    assert desk.do(market_order("ann", "m", "buy", budget="9"))[0]["filled"] == "3.03"


def test_market_order_without_the_other_side_is_refused(make: Any) -> None:
    desk = make()
    assert desk.names(market_order("ann", "m", "sell", size="3")) == ["rejected no_liquidity"]
    assert desk.names(limit("ann", "m", "sell", "1", "3")) == ["accepted"], "a rejected order does not use up its id"


def test_post_only_never_takes(make: Any) -> None:
    desk = make()
    desk.do(limit("bob", "s", "sell", "10", "5"))
    assert desk.names(limit("ann", "b", "buy", "10", "1", post_only=True)) == ["rejected would_cross"]
    assert desk.names(limit("ann", "b", "buy", "9.99", "1", post_only=True)) == ["accepted"]
    assert desk.names(replace("ann", "b", price="10")) == ["rejected would_cross"]


def test_replace_with_too_little_money_leaves_the_order_in_its_place(make: Any) -> None:
    desk = make()
    desk.do(limit("ann", "b1", "buy", "10", "5"))
    desk.do(limit("bob", "b2", "buy", "10", "5"))
    assert desk.names(replace("ann", "b1", price="500", size="100")) == ["rejected insufficient_funds"]
    assert_book(desk, "10 5:ann/b1 5:bob/b2 |")
    assert desk.names(replace("ann", "b1", size="0")) == ["rejected bad_size"]


def test_an_order_has_at_most_100_older_names(make: Any) -> None:
    desk = make()
    desk.do(limit("ann", "n0", "buy", "10", "5"))
    for number in range(100):
        assert desk.names(replace("ann", f"n{number}", new_client_id=f"n{number + 1}")) == ["replaced"]
    # `busy` comes after every other reason, and refuses the whole command.
    assert desk.names(replace("ann", "n0", new_client_id="n50")) == ["rejected duplicate"]
    assert desk.names(replace("ann", "n0", price="5000", new_client_id="late")) == ["rejected insufficient_funds"]
    assert desk.names(replace("ann", "n0", size="4", new_client_id="late")) == ["rejected busy"]
    assert_book(desk, "10 5:ann/n100 |")
    assert desk.names(replace("ann", "n0", size="4")) == ["replaced"]
    desk.do(limit("bob", "b", "buy", "10", "1"))
    assert desk.names(replace("bob", "b", new_client_id="late")) == ["replaced"]
    assert desk.names(cancel("ann", "n0")) == ["canceled user"]
    for number in (0, 50, 100):
        assert desk.do(limit("ann", f"n{number}", "buy", "10", "1"))[0]["status"] == "canceled"
    assert desk.names(limit("ann", "late", "buy", "10", "1")) == ["accepted"]


def test_older_names_of_all_orders_are_bounded_by_the_orders_there_may_be(make: Any) -> None:
    desk = make(CoreLimits(orders=3, client_ids_total=1, client_ids_per_account=1))
    desk.do(limit("ann", "a0", "buy", "10", "5"))
    for number in range(3):
        assert desk.names(replace("ann", f"a{number}", new_client_id=f"a{number + 1}")) == ["replaced"]
    assert desk.names(replace("ann", "a0", new_client_id="a4")) == ["rejected busy"]
    for client_id in ("b0", "b1"):
        assert desk.names(limit("bob", client_id, "buy", "9", "1")) == ["accepted"]
    assert desk.names(replace("bob", "b0", new_client_id="b2")) == ["rejected busy"]
    assert desk.names(cancel("bob", "b1")) == ["canceled user"]
    assert desk.names(market_order("bob", "b2", "sell", size="5")) == ["accepted", "trade"]
    assert desk.names(replace("bob", "b0", new_client_id="b3")) == ["replaced"]


def test_the_state_hash_tells_in_which_order_ids_closed(make: Any) -> None:
    # All else is the same, but another id is forgotten next.
    desks = [make(CoreLimits(client_ids_per_account=2)) for _ in range(2)]
    for desk, (first, second) in zip(desks, ("xy", "yx"), strict=True):
        for client_id in "xy":
            desk.do(limit("ann", client_id, "buy", "1", "1"))
        for client_id in (first, second):
            assert desk.names(cancel("ann", client_id)) == ["canceled user"]
    assert desks[0].core.state_hash() != desks[1].core.state_hash()
    for desk in desks:
        desk.do(limit("ann", "z", "buy", "1", "1"))
        desk.do(cancel("ann", "z"))
    assert desks[0].names(limit("ann", "y", "buy", "1", "1")) == ["duplicate"]
    assert desks[1].names(limit("ann", "y", "buy", "1", "1")) == ["accepted"]


def test_the_state_hash_tells_in_which_order_the_names_of_an_order_closed(make: Any) -> None:
    # One command closes both, the older one first.
    hashes = []
    for first, second in ("xy", "yx"):
        desk = make()
        desk.do(limit("ann", first, "buy", "1", "1"))
        desk.do(replace("ann", first, new_client_id=second))
        assert desk.names(cancel("ann", second)) == ["canceled user"]
        hashes.append(desk.core.state_hash())
    assert hashes[0] != hashes[1]


def test_replace_below_what_is_filled_cancels_the_rest(make: Any) -> None:
    desk = make()
    desk.do(limit("ann", "b", "buy", "10", "5"))
    desk.do(limit("bob", "s", "sell", "10", "3"))
    assert desk.names(replace("ann", "b", size="3")) == ["canceled replaced"]
    assert desk.do(limit("ann", "b", "buy", "10", "5"))[0]["filled"] == "3"


def test_fills_limit_ends_an_order(make: Any) -> None:
    desk = make(CoreLimits(max_fills_per_command=2))
    for number in range(3):
        desk.do(limit("bob", f"s{number}", "sell", "10", "1"))
    assert desk.names(limit("ann", "b", "buy", "10", "3")) == ["accepted", "trade", "trade", "canceled fills_limit"]


def test_freezing_cancels_orders_in_their_order(make: Any) -> None:
    desk = make()
    desk.do(limit("ann", "b2", "buy", "9", "1"))
    desk.do(limit("ann", "b1", "buy", "8", "1"))
    events = desk.do(account("ann", status="frozen"))
    assert [e.get("client_id") for e in events] == [None, "b2", "b1"]
    assert desk.names(limit("ann", "c", "buy", "9", "1")) == ["rejected frozen"]
    assert desk.names(cancel("ann", "b1")) == ["rejected unknown_order"]


def test_a_rebate_pays_for_one_lot_when_the_money_is_gone(make: Any) -> None:
    desk = make()
    desk.do(account("rita", taker_ppm=-100_000))
    desk.do(deposit("rita", "USD", "0.09"))
    for client_id, size in (("s1", "9"), ("s2", "9")):
        desk.do(limit("bob", client_id, "sell", "0.01", size))
    events = desk.do(market_order("rita", "m", "buy", size="18"))
    assert [(e["event"], e.get("size"), e.get("taker_fee")) for e in events] == [
        ("accepted", "18", None), ("trade", "9", "0"), ("trade", "1", "-0.01"), ("canceled", None, None),
    ]  # fmt: skip
    assert events[-1]["reason"] == "funds" and desk.balance("rita", "USD") == ("0", "0")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "done"), ({"taker_ppm": 7, "pause_ns": 9}, "done"), ({"tick": "0.02"}, "rejected exists"),
        ({"min_size": "2"}, "rejected exists"),
        ({"tick": "0.010", "lot": "1.0", "phase": "continuous"}, "done"),
        ({"max_size": "0"}, "rejected bad_value"), ({"max_price": "0"}, "rejected bad_value"),
        ({"tick": "0.02", "entry_band_ppm": 5}, "rejected exists"), ({"entry_band_ppm": 5}, "done"),
    ],
)  # fmt: skip
def test_a_repeated_market_changes_rates_only(make: Any, changes: dict[str, Any], reason: str) -> None:
    listing = {"op": "market", "market": "TOK-USD", "base": "TOK", "quote": "USD", "tick": "0.01", "lot": "1"}
    assert make().names(listing | changes) == [reason]


def test_what_a_repeated_market_leaves_out_is_as_listed(make: Any) -> None:
    desk = make()
    listing = {"op": "market", "market": "DEAR", "base": "TOK", "quote": "USD", "tick": "1000000000", "lot": "1000"}
    bounds = {"max_price": "400000000000", "min_size": "3000", "reference_price": "5000000000"}
    assert desk.names(listing) == ["rejected bad_value"], "the bounds of a listing that leaves them out are too wide"
    assert desk.names(listing | bounds) == ["done"]
    assert desk.names(listing | {"taker_ppm": 7}) == ["done"]
    assert desk.names(listing | {"max_price": "4000000000"}) == ["rejected bad_value"], "below the reference price"
    assert desk.names(listing | {"max_size": "2000"}) == ["rejected bad_value"], "below min_size"
    assert desk.names(listing | {"max_price": "300000000000"}) == ["rejected exists"]


@pytest.mark.parametrize(
    "changes", [{"base": "NOPE"}, {"base": "USD"}, {"tick": "0.02", "pause_ns": -5}], ids=["asset", "same", "pause"]
)
def test_a_repeated_market_is_judged_before_it_is_compared(make: Any, changes: dict[str, Any]) -> None:
    listing = {"op": "market", "market": "TOK-USD", "base": "TOK", "quote": "USD", "tick": "0.01", "lot": "1"}
    reason = "unknown_asset" if changes.get("base") == "NOPE" else "bad_value"
    assert make().names(listing | changes) == [f"rejected {reason}"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"account": "zed"}, "unknown_account"), ({"market": "zed"}, "unknown_market"), ({"type": "odd"}, "bad_type"),
        ({"type": "stop"}, "bad_price"), ({"tif": "odd"}, "bad_tif"), ({"tif": "ioc", "post_only": True}, "bad_tif"),
        ({"price": "0"}, "bad_price"), ({"price": "0.005"}, "bad_price"), ({"price": None}, "bad_price"),
        ({"price": "-1"}, "bad_price"), ({"price": "99999999999999999999"}, "bad_price"), ({"size": "0"}, "bad_size"),
        ({"size": None}, "bad_size"), ({"budget": "5"}, "bad_size"), ({"stop_price": "5"}, "bad_stop"),
        ({"tif": "ioc", "display_size": "2"}, "bad_display"), ({"expires_at": 5}, "bad_expiry"),
        ({"size": "1001", "side": "sell"}, "insufficient_funds"), ({"side": "up"}, "malformed"),
        ({"price": 10}, "malformed"), ({"client_id": "a b"}, "malformed"), ({"colour": "red"}, "malformed"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(make: Any, changes: dict[str, Any], reason: str) -> None:
    desk = make()
    balances = desk.balance("ann", "USD"), desk.balance("ann", "TOK")
    events = desk.do(limit("ann", "b", "buy", "10", "5") | changes)
    assert [e["event"] for e in events] == ["rejected"] and events[0]["reason"] == reason
    assert (desk.balance("ann", "USD"), desk.balance("ann", "TOK")) == balances
    assert_book(desk, "")
