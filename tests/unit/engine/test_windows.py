"""Windows of prices: a book that wanders and widens is the book of the reference, which has no windows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.core import Core, CoreLimits
from engine.messages.codes import EventKind, Side
from engine.reference import ReferenceCore
from tests.support.core_world import Told, World

BUY, SELL = Side.BUY, Side.SELL
EDGES = [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 3_999, 4_095, 4_096, 4_097, 8_000, 70_000, 262_143, 262_144, 999_999]
LAST = 1_000_000  # max_price of a listing that says none


def wander(world: Told, seed: int, steps: int) -> None:
    """Orders come and go about a price that moves; from the middle on also at the edges of words and windows."""
    draw = random.Random(seed)
    near = draw.choice(EDGES)
    for step in range(steps):
        if draw.random() < 0.1:
            near = min(LAST, max(1, near + draw.choice((-5_000, -700, -64, 64, 700, 5_000))))
        price = min(LAST, max(1, near + draw.randrange(-40, 40)))
        if step > steps // 2 and draw.random() < 0.3:
            price = draw.choice([*EDGES, LAST])
        resting = world.core.open_orders()
        if len(resting) and draw.random() < 0.5:
            order = resting[draw.randrange(len(resting))]
            account, order_id = int(order["account"]), int(order["order_id"])
            if draw.random() < 0.6:
                world.cancel(account, order_id)
            else:
                world.replace(account, order_id, price=price)
        else:
            side = draw.choice((BUY, SELL))
            world.place(world.accounts[side], side, price, 1 + draw.randrange(3))


@pytest.mark.parametrize("seed", range(8))
def test_orders_anywhere_leave_the_book_of_the_reference(seed: int) -> None:
    world = Told(accounts=2)
    wander(world, seed, 150)
    reference = ReferenceCore()
    for record in world.told:
        reference.apply(record)
    assert reference.state_hash() == world.core.state_hash()
    assert reference.open_orders().tobytes() == world.core.open_orders().tobytes()
    twin = Core.restore(world.core.snapshot())
    twin.check()
    assert twin.open_orders().tobytes() == world.core.open_orders().tobytes()


def test_a_half_that_is_empty_goes_where_the_next_order_is() -> None:
    world = Told(accounts=2)
    seller = world.accounts[1]
    for price in [*EDGES, LAST, *reversed(EDGES)]:
        world.place(seller, SELL, price, 1, client_id=f"at {len(world.told)}")
        assert world.book() == f"sell {price}: 1"
        world.cancel(seller, int(world.core.open_orders()[0]["order_id"]))
    assert world.book() == ""


def test_a_sweep_finds_levels_on_both_sides_of_every_edge() -> None:
    world = Told(accounts=2, limits=CoreLimits(markets=1))
    buyer, seller = world.accounts
    shuffled = list(EDGES)
    random.Random(7).shuffle(shuffled)
    for price in shuffled:
        world.place(seller, SELL, price, 1)
    trades = [event for event in world.place(buyer, BUY, EDGES[-5], 100) if event["kind"] == EventKind.TRADE]
    assert [int(trade["price"]) for trade in trades] == EDGES[:-4]
    assert int(world.core.open_orders()["price"].max()) == EDGES[-1]


def _address_space() -> int:
    """Bytes of address space that this process has."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmSize"].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the process cannot be asked for its address space")
@pytest.mark.parametrize("low", [63, 6_399, 6_400])
def test_orders_near_each_other_never_take_all_prices(low: int) -> None:
    # All prices of this market are 16 GiB of address space for each half, and whole pages wherever an order is.
    for span in (1, 10, 64, 65, 85, 86, 127, 128, 150, 170, 171, 300, 342, 1_000, 2_500, 3_500, 3_900):
        world = World(accounts=1)
        world.market(b"WIDE-USD", max_price=1 << 30)
        world.place(world.accounts[0], BUY, low, 1, market=1)
        before = _address_space()
        accepted = world.place(world.accounts[0], BUY, low + span, 1, market=1)
        assert accepted[0]["kind"] == EventKind.ACCEPTED
        assert _address_space() - before < 1 << 30, f"{span} ticks apart"
