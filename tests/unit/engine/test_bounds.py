"""Every bound of CoreLimits: beyond it a command is refused with its reason and changes nothing; what fits works."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from engine.core import Core, CoreLimits
from engine.limits import PRICE_TICKS_TOTAL
from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind, RejectCode, Side
from engine.reference import ReferenceCore
from engine.replay import open_core, replay
from tests.support.core_world import BTC, USD, World, words

BUY, SELL = Side.BUY, Side.SELL


def assert_refused(world: World, command: Callable[[], list[np.void]], reason: str) -> None:
    """The command is refused for `reason`, and the state is that of a core which got a tick in its place."""
    twin = Core.restore(world.core.snapshot())
    tick = world.record(CommandKind.TICK, layout.COMMAND)
    assert words(command()) == [f"rejected {reason}"]
    assert len(twin.apply(tick)) == 0
    assert twin.state_hash() == world.core.state_hash()
    assert twin.snapshot() == world.core.snapshot()


def test_orders() -> None:
    world = World(limits=CoreLimits(orders=2))
    a, b, _ = world.accounts
    world.place(a, SELL, 100, 1, client_id="first")
    world.place(b, SELL, 101, 1)
    assert_refused(world, lambda: world.place(b, SELL, 102, 1), "too_many_orders")
    # A slot is needed even to trade at once; replacing needs none.
    assert_refused(world, lambda: world.place(b, BUY, 100, 1), "too_many_orders")
    assert words(world.replace(a, "first", size=2)) == ["replaced"]
    world.cancel(a, "first")
    assert words(world.place(b, SELL, 102, 1)) == ["accepted"]
    assert world.book() == "sell 101: 1 | sell 102: 1"


def test_accounts() -> None:
    world = World(accounts=1, limits=CoreLimits(accounts=3))  # with system:external and system:fees

    def open_one(name: bytes) -> list[np.void]:
        return world.send(CommandKind.ACCOUNT, layout.ACCOUNT, name=name)

    assert_refused(world, lambda: open_one(b"one-too-many"), "busy")
    assert world.core.account_index("one-too-many") is None
    assert words(open_one(b"trader-0")) == ["done"]
    assert words(world.place(world.accounts[0], SELL, 100, 1)) == ["accepted"]


def test_assets() -> None:
    world = World(accounts=1, limits=CoreLimits(assets=2))
    assert_refused(world, lambda: world.send(CommandKind.ASSET, layout.ASSET, name=b"EUR"), "busy")
    assert world.core.asset_index("EUR") is None
    assert words(world.deposit(world.accounts[0], USD, 1, "more"))[0] == "transferred"


def test_markets() -> None:
    world = World(accounts=1, limits=CoreLimits(markets=1))
    assert_refused(world, lambda: world.market(b"BTC-USD-2"), "busy")
    assert words(world.market(b"BTC-USD", taker_ppm=10)) == ["done"]
    assert words(world.place(world.accounts[0], SELL, 100, 1)) == ["accepted"]


def test_prices() -> None:
    most = 1 << 30
    world = World(accounts=1, limits=CoreLimits(max_price_ticks=most))
    assert_refused(world, lambda: world.market(b"HIGH", max_price=most + 1), "busy")
    assert words(world.market(b"HIGH", max_price=most)) == ["done"]
    a = world.accounts[0]
    world.market(b"LOW", max_price=1000)
    low = world.core.market_index("LOW")

    def place(price: int, client_id: bytes) -> list[np.void]:
        record = dict(account=a, market=low, side=BUY, type=1, size=1, stop_price=-(2**63), display_size=-(2**63))
        return world.send(
            CommandKind.PLACE, layout.PLACE, price=price, client_id=client_id, expires_at=-(2**63), **record
        )

    assert_refused(world, lambda: place(1001, b"over"), "bad_price")
    assert words(place(1000, b"at")) == ["accepted"]


def test_balances() -> None:
    # Two of the trader, two of system:external, one of system:fees.
    world = World(accounts=1, limits=CoreLimits(balances=5))
    a, b = world.accounts[0], world.account(b"newcomer")
    assert_refused(world, lambda: world.deposit(b, USD, 5, "d"), "busy")
    assert_refused(world, lambda: world.transfer("t", [(a, USD, 5, b, 0, 0)]), "busy")
    assert_refused(world, lambda: world.market(b"SECOND"), "busy")
    assert words(world.deposit(a, USD, 5, "d2"))[0] == "transferred"
    assert words(world.place(a, SELL, 100, 1)) == ["accepted"]


def test_refs() -> None:
    world = World(accounts=2, limits=CoreLimits(refs=5))
    a, b = world.accounts
    assert words(world.transfer("fifth", [(a, USD, 1, b, 0, 0)]))[0] == "transferred"
    assert_refused(world, lambda: world.deposit(a, USD, 1, "sixth"), "busy")
    assert_refused(world, lambda: world.transfer("sixth", [(a, USD, 1, b, 0, 0)]), "busy")
    assert_refused(world, lambda: world.decide(CommandKind.VOID, "never seen"), "busy")
    assert words(world.transfer("fifth", [(a, USD, 1, b, 0, 0)])) == ["duplicate"]
    assert words(world.place(a, SELL, 100, 1)) == ["accepted"]


def test_postings() -> None:
    world = World(accounts=2, limits=CoreLimits(postings=2))
    a, b = world.accounts

    def pend(ref: str, assets: list[int]) -> list[np.void]:
        parts = [(a, asset, 1, b, leg, 0) for leg, asset in enumerate(assets)]
        return world.transfer(ref, parts, flags=layout.MoneyFlag.PENDING)

    assert words(pend("p1", [USD]))[0] == "pended"
    assert_refused(world, lambda: pend("p2", [USD, BTC]), "busy")
    assert words(pend("p3", [BTC]))[0] == "pended"
    assert_refused(world, lambda: pend("p4", [USD]), "busy")
    assert words(world.decide(CommandKind.VOID, "p1"))[0] == "voided"
    assert words(pend("p4", [USD]))[0] == "pended"


def test_older_names_of_all_orders_leave_an_id_to_every_place() -> None:
    # Six ids in all: two remembered, each order's newest, and as many older ones.
    world = World(accounts=2, limits=CoreLimits(orders=2, client_ids_total=2, client_ids_per_account=2))
    a, b = world.accounts
    for number in range(2):
        world.place(a, SELL, 100, 1, client_id=f"closed{number}")
        world.cancel(a, f"closed{number}")
    world.place(a, SELL, 100, 2, client_id="n0")
    for number in range(2):
        assert words(world.replace(a, f"n{number}", new_client_id=b"n%d" % (number + 1))) == ["replaced"]
    assert_refused(world, lambda: world.replace(a, "n2", new_client_id=b"n3"), "busy")
    assert words(world.place(b, SELL, 101, 1, client_id="v0")) == ["accepted"]
    assert_refused(world, lambda: world.replace(b, "v0", new_client_id=b"v1"), "busy")
    # All six are taken, and an order that ends makes room for the next.
    assert words(world.cancel(b, "v0")) == ["canceled user 1"]
    assert words(world.place(b, BUY, None, 1, client_id="v2")) == ["accepted", "trade 1@100"]
    assert words(world.replace(a, "n0", size=3)) == ["replaced"]
    assert words(world.place(b, SELL, 101, 1, client_id="v3")) == ["accepted"]
    assert words(world.cancel(a, "n2")) == ["canceled user 2"]
    assert words(world.replace(b, "v3", new_client_id=b"v4")) == ["replaced"]
    assert words(world.place(a, SELL, 100, 1, client_id="n3")) == ["accepted"]


def test_older_names_of_one_order_survive_a_snapshot() -> None:
    world = World(accounts=1)
    a = world.accounts[0]
    world.place(a, SELL, 100, 1, client_id="n0")
    for number in range(100):
        if number == 60:
            world.core = Core.restore(world.core.snapshot())
            world.core.check()
        assert words(world.replace(a, "n0", new_client_id=b"n%d" % (number + 1))) == ["replaced"]
    assert_refused(world, lambda: world.replace(a, "n0", new_client_id=b"n101"), "busy")
    world.core = Core.restore(world.core.snapshot())
    assert_refused(world, lambda: world.replace(a, "n7", new_client_id=b"n101"), "busy")
    assert words(world.cancel(a, "n50")) == ["canceled user 1"]
    # The slot is taken anew, and so is the count.
    world.place(a, SELL, 100, 1, client_id="m0")
    assert words(world.replace(a, "m0", new_client_id=b"m1")) == ["replaced"]


def test_poisons() -> None:
    world = World(accounts=1, limits=CoreLimits(poisons=1))
    a = world.accounts[0]

    def poison(client_id: bytes) -> list[np.void]:
        return world.send(CommandKind.POISON, layout.POISON, account=a, client_id=client_id)

    assert words(poison(b"one")) == ["done"]
    assert_refused(world, lambda: poison(b"two"), "busy")
    assert words(poison(b"one")) == ["done"]
    assert_refused(world, lambda: world.place(a, SELL, 100, 1, client_id="one"), "poisoned")
    assert words(world.place(a, SELL, 100, 1, client_id="two")) == ["accepted"]


@pytest.mark.parametrize("bound", ["client_ids_per_account", "client_ids_total"])
def test_remembered_client_ids(bound: str) -> None:
    # Not a refusal: the oldest is forgotten, and only that.
    world = World(accounts=1, limits=CoreLimits(**{bound: 2}))
    a = world.accounts[0]
    for number in range(3):
        world.place(a, SELL, 100, 1, client_id=f"n{number}")
        world.cancel(a, f"n{number}")
    assert words(world.place(a, SELL, 100, 1, client_id="n1")) == ["duplicate"]
    assert words(world.place(a, SELL, 100, 1, client_id="n2")) == ["duplicate"]
    assert words(world.place(a, SELL, 100, 1, client_id="n0")) == ["accepted"]


def test_fills_of_one_command() -> None:
    # Not a refusal: the rest is canceled with its reason.
    world = World(accounts=2, limits=CoreLimits(max_fills_per_command=2))
    a, b = world.accounts
    for _ in range(3):
        world.place(a, SELL, 100, 1)
    told = words(world.place(b, BUY, 100, 3))
    assert told.count("trade 1@100") == 2 and told[-1] == "canceled fills_limit 1"
    assert words(world.place(b, BUY, 100, 1))[-1] == "trade 1@100"


@pytest.mark.parametrize("field", [field.name for field in fields(CoreLimits)])
def test_a_bound_that_makes_no_sense_is_refused_at_the_start(field: str) -> None:
    for value in (0, -1, 1 << 37, "7", None):
        with pytest.raises(ValueError, match=field):
            CoreLimits(**{field: value})


def test_price_ticks_of_all_markets() -> None:
    world = World(accounts=1)
    largest = world.core.limits.max_price_ticks

    def listing(name: bytes, max_price: int) -> list[np.void]:
        terms = np.zeros(1, layout.MARKET_EXTRA)
        terms["tick"] = terms["lot"] = 1
        terms["max_price"] = max_price
        return world.send(
            CommandKind.MARKET, layout.MARKET, extensions=(terms,), name=name, base=BTC, quote=USD,
            mask=layout.MarketMask.MAX_PRICE,
        )  # fmt: skip

    listed = 0
    while words(listing(b"wide-%d" % listed, largest)) == ["done"]:
        listed += 1
    assert PRICE_TICKS_TOTAL // largest - 2 <= listed <= PRICE_TICKS_TOTAL // largest
    assert_refused(world, lambda: listing(b"one-too-many", largest), "busy")
    assert words(listing(b"narrow", 1_000)) == ["done"]


SPENDING = (
    {"op": "asset", "asset": "B", "scale": 0},
    {"op": "asset", "asset": "Q", "scale": 0},
    {"op": "market", "market": "M", "base": "B", "quote": "Q", "tick": "1", "lot": "1"},
    {"op": "account", "account": "a"},
    {"op": "account", "account": "c"},
    {"op": "deposit", "account": "a", "asset": "B", "amount": "100000000000", "ref": "r1"},
    {"op": "deposit", "account": "a", "asset": "Q", "amount": "100000000", "ref": "r2"},
    {"op": "deposit", "account": "c", "asset": "Q", "amount": "100000000", "ref": "r3"},
)
SELLING = {"op": "place", "account": "a", "market": "M", "client_id": "s", "side": "sell", "type": "limit",
           "size": "1000000000", "price": "100"}  # fmt: skip
BUYING = {"op": "place", "account": "a", "market": "M", "client_id": "b", "side": "buy", "type": "market",
          "size": "1000000000", "stp": "none"}  # fmt: skip
WAITING = BUYING | {"type": "stop", "stop_price": "100"}
TRIGGER = {"op": "place", "account": "c", "market": "M", "client_id": "t", "side": "buy", "type": "limit", "size": "1",
           "price": "100"}  # fmt: skip


@pytest.mark.parametrize("last", [(SELLING, BUYING), (WAITING, SELLING, TRIGGER)], ids=["market", "stop"])
def test_event_slots_of_a_buy_that_gets_its_money_back(last: tuple[dict[str, str], ...]) -> None:
    """It pays its own order, is short of money no longer, and meets the same order again, hundreds of times."""
    lines = [json.dumps(command) for command in (*SPENDING, *last)]
    ours, theirs = list(replay(lines, core=open_core())), list(replay(lines, core=open_core(reference=True)))
    assert ours == theirs
    assert sum('"trade"' in event for event in ours) > 1_000


@pytest.mark.parametrize("core", [Core(), ReferenceCore()], ids=["core", "reference"])
def test_a_definition_shorter_than_it_says(core: Core | ReferenceCore) -> None:
    """It is refused as malformed, and nothing behind it is read."""
    market = np.zeros(1, layout.MARKET)
    account = np.zeros(1, layout.ACCOUNT)
    account["mask"] = layout.AccountMask.ROW | layout.AccountMask.STP_GROUP
    asset = np.zeros(1, layout.ASSET)
    asset["flags"] = layout.MoneyFlag.HAS_REF
    kinds = (CommandKind.MARKET, CommandKind.ACCOUNT, CommandKind.ASSET)
    for sequence, (record, kind) in enumerate(zip((market, account, asset), kinds, strict=True), core.sequence + 1):
        record["name"], record["kind"], record["slots"], record["sequence"] = b"X", kind, 1, sequence
        events = core.apply(record.tobytes())
        assert [(int(e["kind"]), int(e["reason"])) for e in events] == [(EventKind.REJECTED, RejectCode.MALFORMED)]
