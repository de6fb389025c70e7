"""Looking ahead in a batch reads only what there is, whatever stands in the records."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pytest

from engine.core import Core, CoreLimits
from engine.messages import layout
from engine.messages.codes import ABSENT, CommandKind, OrderType, Side
from tests.support.core_world import World
from tests.support.rule_flow import RuleFlow

OPEN = 4_200  # more than the cache is trusted with, so that a batch looks deep
CLOSED = 4_000_000  # client ids: many times as many as there may be orders
STRIDE = 50_000


def _client_ids(records: np.ndarray, numbers: np.ndarray) -> None:
    records["client_id"] = np.char.add(b"i", numbers.astype("S20"))


def _placed(world: World, numbers: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    records = np.zeros(len(numbers), layout.PLACE)
    records["kind"], records["slots"], records["sequence"] = CommandKind.PLACE, 1, sequences
    records["account"], records["side"], records["type"] = world.accounts[0], Side.BUY, OrderType.LIMIT
    records["price"] = records["size"] = 1
    for field in ("stop_price", "display_size", "expires_at"):
        records[field] = ABSENT
    _client_ids(records, numbers)
    return records.view(layout.COMMAND)


def _canceled(world: World, numbers: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    records = np.zeros(len(numbers), layout.CANCEL)
    records["kind"], records["slots"], records["sequence"] = CommandKind.CANCEL, 1, sequences
    records["account"] = world.accounts[0]
    _client_ids(records, numbers)
    return records.view(layout.COMMAND)


def _a_long_record_among_cancels() -> None:
    limits = CoreLimits(
        accounts=10, markets=1, assets=4, balances=40, orders=2 * OPEN, client_ids_total=CLOSED,
        client_ids_per_account=CLOSED, refs=64, postings=64, poisons=64, max_price_ticks=1 << 20,
    )  # fmt: skip
    world = World(accounts=1, limits=limits)
    events = np.empty(4 * STRIDE, layout.EVENT)

    def feed(records: np.ndarray) -> int:
        at = used = 0
        while at < len(records):
            after, used = world.core.apply_batch(records, events, at)
            assert after > at
            at = after
        return used

    next_one = world.sequence + 1
    feed(_placed(world, np.arange(OPEN), next_one + np.arange(OPEN)))
    next_one += OPEN
    for first in range(OPEN, OPEN + CLOSED, STRIDE):
        numbers = np.arange(first, first + STRIDE)
        both = np.zeros(2 * STRIDE, layout.COMMAND)
        both[0::2] = _placed(world, numbers, next_one + 2 * np.arange(STRIDE))
        both[1::2] = _canceled(world, numbers, next_one + 1 + 2 * np.arange(STRIDE))
        feed(both)
        next_one += 2 * STRIDE
    sequences = next_one + np.arange(120)
    sequences[41:] -= 1
    batch = _canceled(world, np.arange(OPEN + CLOSED - 120, OPEN + CLOSED), sequences)
    batch["slots"][40] = 2  # the slot behind it is its own: the stages of those that follow are out of step
    assert feed(batch) == 119
    world.core.check()


def test_a_record_of_two_slots_does_not_lead_the_look_ahead_astray() -> None:
    # In a process of its own: what it guards against is a read beyond the tables.
    process = multiprocessing.get_context("spawn").Process(target=_a_long_record_among_cancels)
    process.start()
    process.join()
    assert process.exitcode == 0


class _Kept:
    """A core that keeps the records it is given."""

    def __init__(self) -> None:
        self.core, self.records = Core(), bytearray()

    def apply(self, record: bytearray) -> np.ndarray:
        self.records += record
        return self.core.apply(record)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)


@pytest.mark.parametrize("seed", range(3))
def test_batches_of_a_deep_book_say_what_single_commands_say(seed: int) -> None:
    alone = _Kept()
    flow = RuleFlow(alone, seed, ("NOVA-USD", "LUX-USD", "DEEP-USD"))
    flow.markets = ("NOVA-USD", "LUX-USD")
    flow.apply({"op": "account", "account": "crowd"})
    flow.apply({"op": "deposit", "account": "crowd", "asset": "USD", "amount": "1000000000", "ref": "crowd"})
    for number in range(OPEN):
        flow.apply({
            "op": "place", "account": "crowd", "market": "DEEP-USD", "client_id": f"deep-{number}", "side": "buy",
            "type": "limit", "price": f"{1 + number % 400}", "size": "1", "stp": "none",
        })  # fmt: skip
    crowded = len(alone.records)
    told = [flow.step() for _ in range(1_500)]
    for number in range(0, OPEN, 7):  # the crowd goes by its own ids, among the others
        told.append(flow.apply({"op": "cancel", "account": "crowd", "client_id": f"deep-{number}"}))
        told.append(flow.step())
    records = np.frombuffer(alone.records, layout.COMMAND)
    events = np.empty(1 << 19, layout.EVENT)  # a stop that spends what it has may meet the fills limit
    batched = Core()
    at = crowded // layout.COMMAND.itemsize
    assert batched.apply_batch(records, events, 0, at)[0] == at
    said = []
    while at < len(records):
        after, used = batched.apply_batch(records, events, at)
        assert after > at
        said.append(events[:used].tobytes())
        at = after
    assert b"".join(said) == np.concatenate(told).tobytes()
    assert batched.state_hash() == alone.state_hash()
    batched.check()
