"""The price an uncross finds: rule by rule, and against weighing every single tick."""

from __future__ import annotations

import random

import pytest

from engine.messages.codes import ABSENT, Side
from engine.reference import ReferenceCore
from engine.reference.auction import Clearing, clearing
from engine.reference.model import Market
from tests.support.commands import Desk, limit


def weigh_every_tick(market: Market) -> Clearing:
    """The rulebook's five rules, read aloud."""
    bid, ask = market.best(Side.BUY), market.best(Side.SELL)
    if bid is None or ask is None or bid < ask:
        return Clearing(None)
    levels = [(side, level) for side in Side for level in market.half(side).values()]
    orders = [(side, order.price, order.leaves) for side, level in levels for order in level.values()]
    found = []
    for price in range(ask, bid + 1):
        bought = sum(leaves for side, limit_, leaves in orders if side == Side.BUY and limit_ >= price)
        sold = sum(leaves for side, limit_, leaves in orders if side == Side.SELL and limit_ <= price)
        found.append((price, min(bought, sold), bought - sold))
    most = max(volume for _, volume, _ in found)
    found = [one for one in found if one[1] == most]
    least = min(abs(imbalance) for _, _, imbalance in found)
    found = [one for one in found if abs(one[2]) == least]
    if all(imbalance > 0 for _, _, imbalance in found):
        return Clearing(*found[-1])
    if all(imbalance < 0 for _, _, imbalance in found) or market.band_reference == ABSENT:
        return Clearing(*found[0])
    return Clearing(*min(found, key=lambda one: (abs(one[0] - market.band_reference), one[0])))


def auction(*orders: tuple[str, str, str], reference: str | None = None) -> tuple[int | None, int, int]:
    desk = Desk(phase="auction", reference_price=reference)
    for number, (side, price, size) in enumerate(orders):
        assert desk.names(limit("ann", f"o{number}", side, price, size)) == ["accepted"]
    assert desk.core.indicative(0) == weigh_every_tick(desk.core._state.markets[0])
    found: tuple[int | None, int, int] = desk.core.indicative(0)
    return found


@pytest.mark.parametrize(
    ("orders", "reference", "expected"),
    [
        ([("buy", "10", "5"), ("sell", "10.01", "5")], None, (None, 0, 0)),
        ([("buy", "10", "5")], None, (None, 0, 0)),
        # most volume: only at 10.00 all five of the second ask meet
        ([("buy", "10", "7"), ("sell", "9", "2"), ("sell", "10", "5")], None, (1000, 7, 0)),
        # least imbalance: 8 trade anywhere from 9 to 10, but below 9.5 two more would buy
        ([("buy", "10", "8"), ("buy", "9.49", "2"), ("sell", "9", "8")], "9.1", (950, 8, 0)),
        # a buy surplus everywhere: the highest; a sell surplus: the lowest
        ([("buy", "10", "9"), ("sell", "9", "5")], "9.5", (1000, 5, 4)),
        ([("buy", "10", "5"), ("sell", "9", "9")], "9.5", (900, 5, -4)),
        # balanced: nearest the reference, which may lie outside; without one the lowest
        ([("buy", "10", "5"), ("sell", "9", "5")], "9.5", (950, 5, 0)),
        ([("buy", "10", "5"), ("sell", "9", "5")], "12", (1000, 5, 0)),
        ([("buy", "10", "5"), ("sell", "9", "5")], None, (900, 5, 0)),
        # a surplus on either side, as large: nearest the reference, and of two as near the lower
        ([("buy", "10", "4"), ("buy", "9", "2"), ("sell", "9", "4"), ("sell", "10", "2")], "9.5", (950, 4, 0)),
        ([("buy", "9.01", "5"), ("buy", "9", "4"), ("sell", "9", "5"), ("sell", "9.01", "4")], None, (900, 5, 4)),
    ],
)  # fmt: skip
def test_price_by_each_rule(
    orders: list[tuple[str, str, str]], reference: str | None, expected: tuple[int | None, int, int]
) -> None:
    assert auction(*orders, reference=reference) == expected


@pytest.mark.parametrize("seed", range(6))
def test_price_is_what_weighing_every_tick_finds(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        orders = [
            (chance.choice(("buy", "sell")), f"{chance.randrange(990, 1011) / 100:.2f}", str(chance.randrange(1, 9)))
            for _ in range(chance.randrange(2, 14))
        ]
        auction(*orders, reference=chance.choice((None, "9.8", "10", "10.03")))


def test_hidden_size_counts_and_a_wide_gap_costs_nothing() -> None:
    desk = Desk(ReferenceCore(), phase="preopen", max_price="40000000")
    desk.do(limit("ann", "i", "sell", "0.01", "100", display_size="1"))
    desk.do({"op": "deposit", "account": "bob", "asset": "USD", "amount": "4000000000", "ref": "rich"})
    desk.do(limit("bob", "b", "buy", "39000000", "100"))
    assert clearing(desk.core._state.markets[0]) == (1, 100, 0)
