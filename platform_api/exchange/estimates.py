"""What an order would take from a book: the core's own arithmetic over a copy of the levels. Pure; binding on nobody.

Prices are ticks, sizes lots, amounts units of the quote asset; `k` are quote units of one tick × one lot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Taken", "walk"]

MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Taken:
    """`lots` for `notional` and `fee` units, down to the price `worst` (0: nothing)."""

    lots: int
    notional: int
    fee: int
    worst: int


def walk(
    levels: Sequence[tuple[int, int]], k: int, taker_ppm: int, *, lots: int | None = None, budget: int | None = None
) -> Taken:
    """Take `lots`, or what `budget` units buy with fees included, from (price, size) levels, best first."""
    taken = notional = exact = worst = 0  # `exact`: the fee in millionths of a unit
    for price, size in levels:
        want = size if lots is None else min(size, lots - taken)
        if budget is not None:
            fee = -(-exact // MILLION)
            credit = fee * MILLION - exact
            money = budget - notional - fee
            want = min(want, (money * MILLION + credit) // (MILLION + taker_ppm) // (price * k))
        if want <= 0:
            break
        taken, worst = taken + want, price
        notional += price * want * k
        exact += price * want * k * taker_ppm
    return Taken(taken, notional, -(-exact // MILLION), worst)
