"""What the gateway remembers beside the engine, against plain models: refusals, fills under protection, stamps."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from gateway.protection import Protection
from gateway.pulls import Pulls, connection_stamp, key_stamp
from gateway.rejections import Rejections
from gateway.restrictions import ProtectionTerms


@pytest.mark.parametrize("seed", range(5))
def test_refusals_equal_a_model_and_the_horizon_never_lies(seed: int) -> None:
    chance = random.Random(seed)
    index = Rejections(7, of_account_max=4, total_max=10)
    last: dict[tuple[int, bytes], tuple[int, int]] = {}
    for sequence in range(8, 600):
        account, name = chance.randrange(5), b"id%d" % chance.randrange(8)
        index.learn(account, name, sequence, sequence % 30)
        last[account, name] = sequence, sequence % 30
        assert len(index) <= 10
        for (of, known), told in last.items():
            found = index.find(of, known)
            assert found == told or (found is None and index.since(of) >= told[0])
    assert index.since(99) == 7


@pytest.mark.parametrize("seed", range(5))
def test_protection_trips_where_a_model_counts_too_much(seed: int) -> None:
    chance = random.Random(seed)
    terms = ProtectionTerms(10, fills=chance.choice([None, 6]), size=chance.choice([None, "2.5"]), notional="9")
    tripped: list[int] = []
    protection = Protection("k", terms, lambda _: tripped.append(now))
    now, fills, trips = 0, [], 0
    for _ in range(3_000):
        now += chance.randrange(4_000_000)
        fill = (now, chance.randrange(2), chance.randrange(1, 9), chance.randrange(1, 40))
        fills.append(fill)
        protection.fill(*fill, Fraction(1, 10), Fraction(1, 10))
        live = [f for f in fills if f[0] > now - 10_000_000]
        size = sum(f[2] for f in live if f[1] == fill[1])
        notional = sum(f[3] for f in live if f[1] == fill[1])
        over = (terms.fills is not None and len(live) > 6) or (terms.size is not None and size > 25) or notional > 90
        assert bool(protection.is_tripped) == over and len(tripped) == trips + over
        if over:
            trips += 1
            fills.clear()
            assert protection.reset() and not protection.reset()
    assert trips > 3


def test_session_numbers_do_not_meet() -> None:
    numbers = {connection_stamp(epoch, number) for epoch in (1, 2, 3) for number in (1, 2, 2**28 - 1)}
    assert len(numbers) == 9 and max(numbers) < 2**48 and 0 not in numbers
    assert connection_stamp(1, 2**28) == connection_stamp(2**20, 1) == 0
    assert key_stamp("ab" * 32) >= 2**63 and key_stamp("ab" * 32) != key_stamp("cd" * 32)


def test_orphans_are_orders_of_connections_of_earlier_lives() -> None:
    orders = np.zeros(6, [("account", "<u4"), ("session", "<u8")])
    orders["account"] = [5, 5, 6, 5, 7, 8]
    one, two, own = connection_stamp(1, 3), connection_stamp(2, 9), connection_stamp(3, 1)
    orders["session"] = [one, one, two, 0, own, key_stamp("ab" * 32)]
    pulls = Pulls(None)  # type: ignore[arg-type]
    assert pulls.add_orphans(orders, 3) == 2 and len(pulls) == 2
