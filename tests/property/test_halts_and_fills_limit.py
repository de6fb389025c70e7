"""Expiry across halted markets, and foks that the fills limit may end among slices: core and reference side by side."""

from __future__ import annotations

import random
from typing import Any

import pytest

from engine.core import Core, CoreLimits
from engine.reference import ReferenceCore
from tests.support.commands import Desk, limit

Json = dict[str, Any]
LATER = ("TOK-EUR", "TOK-GBP")
MARKETS = ("TOK-USD", *LATER)


class Both:
    """The same commands to both; events, hash and next due time must be equal after each."""

    def __init__(self, limits: CoreLimits) -> None:
        self.core, self.reference = Desk(Core(limits)), Desk(ReferenceCore(limits))

    def do(self, command: Json) -> list[Json]:
        events = self.core.do(command)
        assert events == self.reference.do(command)
        assert self.core.core.state_hash() == self.reference.core.state_hash()
        assert self.core.core.next_due == self.reference.core.next_due
        self.core.core.check()
        return events

    def restore(self) -> None:
        before = self.core.core
        assert isinstance(before, Core)
        self.core.core = Core.restore(before.snapshot())
        self.core.core.check()
        assert self.core.core.next_due == self.reference.core.next_due


@pytest.mark.parametrize("seed", range(6))
def test_orders_of_halted_markets_expire_when_only_their_own_opens(seed: int) -> None:
    rng = random.Random(seed)
    both = Both(CoreLimits(orders=400))
    for market in LATER:
        both.do({"op": "asset", "asset": market[4:], "scale": 2})
        both.do({"op": "market", "market": market, "base": "TOK", "quote": market[4:], "tick": "0.01", "lot": "1"})
    now, names = 0, 0
    seen: set[str | None] = set()
    for _ in range(500):
        match rng.choices(("place", "cancel", "phase", "tick", "restore"), (60, 15, 15, 9, 1))[0]:
            case "place":
                names += 1
                expires_at = now + rng.randint(1, 60)
                order = limit(
                    "ann", f"n{names}", "sell", "1.00", "1", rng.choice(MARKETS), tif="gtd", expires_at=expires_at
                )
                both.do(order)
            case "cancel":
                client_id = f"n{rng.randint(max(1, names - 40), names + 1)}"
                both.do({"op": "cancel", "account": "ann", "client_id": client_id})
            case "phase":
                phase = rng.choice(("halt", "halt", "continuous", "cancel_only", "closed"))
                both.do({"op": "phase", "market": rng.choice(MARKETS), "phase": phase})
            case "tick":
                now += rng.randint(0, 30)
                seen |= {event.get("reason") for event in both.do({"op": "tick", "ts": now})}
            case _:
                both.restore()
    for market in MARKETS:
        both.do({"op": "phase", "market": market, "phase": "continuous"})
        seen |= {event.get("reason") for event in both.do({"op": "tick", "ts": now + 100})}
    assert "expired" in seen and not len(both.core.core.open_orders())


@pytest.mark.parametrize("seed", range(6))
def test_a_fok_near_the_fills_limit_counts_slices_in_their_order(seed: int) -> None:
    rng = random.Random(seed)
    both = Both(CoreLimits(orders=400, max_fills_per_command=12))
    names = 0
    ends: set[str] = set()
    for _ in range(150):
        for _ in range(rng.randint(1, 5)):
            names += 1
            size = rng.randint(1, 14)
            shown = {"display_size": str(rng.randint(1, size))} if rng.random() < 0.6 else {}
            who = "bob" if rng.random() < 0.1 else "ann"
            both.do(limit(who, f"m{names}", "sell", rng.choice(("1.00", "1.01")), str(size), **shown))
        names += 1
        stp = rng.choice(("cancel_oldest", "cancel_newest", "none"))
        fok = limit("bob", f"f{names}", "buy", "1.01", str(rng.randint(1, 60)), tif="fok", stp=stp)
        ends.add(both.do(fok)[-1]["event"])
        if rng.random() < 0.3:
            both.do({"op": "mass_cancel", "account": "ann"})
    assert {"trade", "canceled"} <= ends
