"""`Core(risk=False)` matches what the whole core matches, and knows no money."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.core import Core
from engine.messages import layout
from engine.messages.codes import ABSENT, Aggressor, CommandKind, EventKind, Phase, Side, TimeInForce
from tests.support.core_world import Told

FIELDS = ("trade_id", "price", "size", "maker_order_id", "taker_order_id", "maker_leaves", "taker_leaves", "notional")


def _trades(events: np.ndarray) -> list[tuple[int, ...]]:
    trades = events[events["kind"] == EventKind.TRADE].view(layout.TRADE)
    return [tuple(int(trade[field]) for field in FIELDS) for trade in trades]


def _flow(world: Told, seed: int) -> None:
    """Orders of both sides, continuous and collected for an uncross; every order is named by its order_id."""
    draw = random.Random(seed)
    for step in range(400):
        if step % 100 == 60:
            world.send(CommandKind.PHASE, layout.PHASE, market=0, phase=Phase.AUCTION, reference_price=ABSENT)
        elif step % 100 == 90:
            world.send(CommandKind.UNCROSS, layout.PHASE, market=0, reference_price=ABSENT)
            opened = {"phase": Phase.CONTINUOUS, "reference_price": ABSENT}
            world.send(CommandKind.PHASE, layout.PHASE, market=0, **opened)
        resting = world.core.open_orders()
        if len(resting) and draw.random() < 0.3:
            order = resting[draw.randrange(len(resting))]
            world.cancel(int(order["account"]), int(order["order_id"]))
        else:
            side = draw.choice((Side.BUY, Side.SELL))
            collecting = step % 100 >= 60 and step % 100 < 90
            tif = TimeInForce.GTC if collecting else draw.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC))
            world.place(draw.choice(world.accounts), side, 100 + draw.randrange(-6, 7), 1 + draw.randrange(9), tif=tif)


@pytest.mark.parametrize("seed", range(4))
def test_it_trades_what_the_whole_core_trades(seed: int) -> None:
    world = Told(accounts=3, taker_ppm=1_000, maker_ppm=-200)
    _flow(world, seed)
    whole, bare = Core(), Core(risk=False)
    told, said, collected = [], [], 0
    for record in world.told:
        told += _trades(whole.apply(record))
        events = bare.apply(record)
        said += _trades(events)
        for trade in events[events["kind"] == EventKind.TRADE].view(layout.TRADE):
            assert trade["maker_fee"] == trade["taker_fee"] == trade["released"] == 0
            collected += trade["aggressor"] == Aggressor.NONE
    assert len(told) > 50 and collected > 10
    assert said == told
    bare.check()
    assert [int(row["order_id"]) for row in bare.open_orders()] == [int(row["order_id"]) for row in whole.open_orders()]
