"""A client id answers for its order at once and until it is forgotten, in whatever order ids come."""

from __future__ import annotations

import random

import pytest

from engine.core import Core, CoreLimits
from engine.messages.codes import Side
from tests.support.core_world import World, words

ORDERS = {
    "counted up": lambda rng, n: [str(i) for i in range(n)],
    "counted down": lambda rng, n: [str(n - i) for i in range(n)],
    "padded": lambda rng, n: [f"order-{i:08d}" for i in range(n)],
    "at random": lambda rng, n: rng.sample([f"{'x' * (i % 24)}{i}" for i in range(n)], n),
    "of two lines of business": lambda rng, n: [f"{'ab'[i % 2]}-{i}" for i in range(n)],
    "of every length": lambda rng, n: ["z" * (1 + i % 32) for i in range(32)],
}


@pytest.mark.parametrize("how", ORDERS)
def test_an_id_is_taken_once_however_ids_are_ordered(how: str) -> None:
    rng = random.Random(how)
    world = World()
    account = world.accounts[0]
    taken: list[str] = []
    for name in ORDERS[how](rng, 120):
        assert words(world.place(account, Side.BUY, 100, 1, client_id=name)) == ["accepted"]
        taken.append(name)
        # Of the youngest, which may still be on their way into the map, and of any other.
        for again in (*taken[-3:], rng.choice(taken)):
            assert words(world.place(account, Side.SELL, 999, 7, client_id=again))[0].startswith("duplicate"), again
    restored = Core.restore(world.core.snapshot())
    restored.check()
    assert restored.state_hash() == world.core.state_hash()
    world.core = restored
    for name in taken:
        assert words(world.place(account, Side.SELL, 999, 7, client_id=name))[0].startswith("duplicate"), name
        assert words(world.cancel(account, name))[0].startswith("canceled")
        assert words(world.place(account, Side.BUY, 100, 1, client_id=name))[0].startswith("duplicate")


def test_a_forgotten_id_is_new_again_and_only_it() -> None:
    world = World(limits=CoreLimits(orders=64, client_ids_total=64, client_ids_per_account=4))
    account = world.accounts[0]
    for i in range(40):
        assert words(world.place(account, Side.BUY, 100, 1, client_id=f"{i:03d}")) == ["accepted"]
        world.cancel(account, f"{i:03d}")
        if i >= 4:
            assert words(world.place(account, Side.BUY, 100, 1, client_id=f"{i - 3:03d}"))[0].startswith("duplicate")
    assert words(world.place(account, Side.BUY, 100, 1, client_id="000")) == ["accepted"]
    assert words(world.place(account, Side.BUY, 100, 1, client_id="000"))[0].startswith("duplicate")
