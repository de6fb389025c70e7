"""What the feed makes public, against the core after every command: orders, checksums, windows, indicative price."""

import random

import pytest

from byline.client.book_hash import level_mix, order_mix
from engine.core import Core
from engine.messages.codes import ABSENT, OrderStatus
from engine.reference import ReferenceCore
from marketdata.changes import LEVEL_ROW, ORDER_ROW, TRADE_ROW_KIND, Changes
from marketdata.depth import Window
from marketdata.feed import Feed
from tests.support.rule_flow import RuleFlow, book_of


def core_orders(core, market):
    """(side, price, displayed) of what rests and shows, in the order of the queues."""
    rows = [
        r for r in core.open_orders() if r["market"] == market and r["status"] == OrderStatus.OPEN and r["displayed"]
    ]
    rows.sort(key=lambda row: (int(row["side"]), int(row["price"]), int(row["join"])))
    return [(int(r["side"]), int(r["price"]), int(r["displayed"])) for r in rows]


def core_checksum(core, market):
    """The checksum of the whole book as anybody can form it who has the orders of the core."""
    return sum(
        level_mix(side, price, size) for side, levels in enumerate(book_of(core, market)) for price, size in levels
    ) % 2**64  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_public_orders_checksums_and_indicative_are_the_cores_after_every_command(seed):
    flow, feed = RuleFlow(Core(), seed), Feed()
    feed.apply(flow.opening)
    indicatives, crossed = set(), 0
    for _ in range(1500):
        feed.apply(flow.step())
        for market in (0, 1):
            depth, public = feed.depths[market], feed.orders.public(market)
            assert depth.level_checksum == core_checksum(flow.core, market)
            in_queue = sorted(public.items(), key=lambda item: (item[1][0], item[1][1], item[0]))
            assert depth.order_checksum == sum(order_mix(number, *order) for number, order in in_queue) % 2**64
            # Uncrosses refresh slices in place: both then still stand in the order of joining.
            assert [order for _, order in in_queue] == core_orders(flow.core, market)
            told = depth.indicative()
            assert told == flow.core.indicative(market), (flow.sequence, market)
            crossed += told[0] is not None
            indicatives.add(told)
    feed.check()
    assert crossed > 30 and len(indicatives) > 15 and flow.seen["uncross fill"] > 20 and flow.seen["refreshed"] > 50


def test_indicative_uses_the_reference_that_a_phase_command_gave():
    flow, feed = RuleFlow(ReferenceCore(), 1), Feed()
    feed.apply(flow.opening)
    assert feed.depths[0].reference == ABSENT
    for command in (
        {"op": "phase", "market": "NOVA-USD", "phase": "preopen", "reference_price": "5.10"},
        {"op": "place", "account": "ann", "market": "NOVA-USD", "client_id": "b", "side": "buy", "type": "limit",
         "price": "5.5", "size": "1"},
        {"op": "place", "account": "ben", "market": "NOVA-USD", "client_id": "a", "side": "sell", "type": "limit",
         "price": "4.5", "size": "1"},
    ):  # fmt: skip
        feed.apply(flow.apply(command))
    assert feed.depths[0].indicative() == (102, 10, 0) == flow.core.indicative(0)


@pytest.mark.parametrize("limit", [0, 1, 3, 8])
def test_window_follows_every_command_and_can_be_looked_at_later(limit):
    flow, feed = RuleFlow(Core(), limit + 11), Feed()
    feed.apply(flow.opening)
    attached, late, held = Window(limit), Window(limit), ({}, {})
    feed.depths[0].attach(attached)
    rng, sequences = random.Random(1), []
    for _ in range(1200):
        feed.apply(flow.step())
        bids, asks = book_of(flow.core, 0)
        shown = bids[: limit or None], asks[: limit or None]
        assert (attached.levels(0), attached.levels(1)) == shown
        if rng.random() < 0.2:
            late.look(feed.depths[0])
            assert (late.levels(0), late.levels(1)) == shown and late.checksum == attached.checksum
            checksum = sum(level_mix(side, *level) for side in (0, 1) for level in shown[side]) % 2**64
            for row in late.take():
                if row["size"]:
                    held[row["side"]][int(row["price"])] = int(row["size"])
                else:
                    del held[row["side"]][int(row["price"])]
            assert [sorted(held[0].items(), reverse=True), sorted(held[1].items())] == list(shown)
            assert late.checksum == checksum
        for row in attached.take():
            sequences.append(int(row["sequence"]))
    assert sequences == sorted(sequences) and len(set(sequences)) > 100
    feed.depths[0].detach(attached)


def test_ring_rows_give_book_and_orders_at_every_sequence():
    flow, feed = RuleFlow(Core(), 5), Feed(8_000_000, 1 << 16)
    feed.apply(flow.opening)
    levels, orders, trades, at = ({}, {}), {}, [], 0
    for _ in range(800):
        feed.apply(flow.step())
        for row in feed.changes.take(at, feed.changes.count):
            if row["market"] or row["sequence"] > flow.sequence:
                continue
            kind, key = row["kind"], int(row["price"])
            if kind == LEVEL_ROW:
                levels[row["side"]].pop(key, None)
                if row["size"]:
                    levels[row["side"]][key] = int(row["size"])
                checksum = int(row["checksum"])
            elif kind == ORDER_ROW:
                orders.pop(int(row["id"]), None)
                if row["size"]:
                    orders[int(row["id"])] = (int(row["side"]), key, int(row["size"]))
            elif kind == TRADE_ROW_KIND:
                trades.append(int(row["id"]))
        at = feed.changes.count
        assert [sorted(levels[0].items(), reverse=True), sorted(levels[1].items())] == list(book_of(flow.core, 0))
        assert orders == feed.orders.public(0)
    assert checksum == feed.depths[0].level_checksum and trades == list(range(1, len(trades) + 1))


def test_ring_says_from_where_on_it_is_whole():
    flow, feed = RuleFlow(Core(), 5), Feed(8_000_000, 64)
    feed.apply(flow.opening)
    changes = feed.changes
    assert isinstance(changes, Changes) and changes.capacity == 64 and changes.horizon == 0
    for _ in range(300):
        feed.apply(flow.step())
    rows = changes.take(0, changes.count)
    assert len(rows) == 64 and changes.horizon == rows["sequence"][0]
    assert changes.after(int(changes.horizon)) == changes.oldest + int((rows["sequence"] <= changes.horizon).sum())
    assert changes.after(2**60) == changes.count and changes.after(0) == changes.oldest
