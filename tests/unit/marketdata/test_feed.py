"""L3 and L2 rebuilt from events against the core's own book."""

import numpy as np
import pytest

from engine.messages import layout
from engine.messages.codes import EventKind, OrderType
from engine.messages.errors import JournalCorrupt, LocalFault
from marketdata.feed import Feed
from tests.support.market_flow import START_NS, Flow


def event(kind, dtype, sequence, **fields):
    slot = np.zeros(1, dtype)
    slot["kind"], slot["slots"], slot["sequence"], slot["ts"] = kind, 1, sequence, START_NS + sequence
    for name, value in fields.items():
        slot[name] = value
    return slot.view(layout.EVENT)


def accepted(sequence, side, price, size, *, display=0, type=OrderType.LIMIT):
    return event(
        EventKind.ACCEPTED, layout.ACCEPTED, sequence, order_id=sequence, side=side, price=price, size=size,
        display_size=display, type=type,
    )  # fmt: skip


def trade(sequence, maker, maker_leaves, taker, taker_leaves, price, size):
    return event(
        EventKind.TRADE, layout.TRADE, sequence, maker_order_id=maker, maker_leaves=maker_leaves, taker_order_id=taker,
        taker_leaves=taker_leaves, price=price, size=size, trade_id=1,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_book_equals_the_cores_after_every_command(seed):
    flow = Flow(seed, markets=("NOVA-USD", "LUX-USD"))
    feed = Feed()
    feed.apply(flow.opening)
    trades = 0
    for _ in range(600):
        feed.apply(flow.step())
        for market in (0, 1):
            bids, asks = flow.book(market)
            assert feed.depths[market].top(0) == bids and feed.depths[market].top(1) == asks
        trades += len(feed.take_trades())
    assert trades > 50 and feed.orders.count == len(flow.core.open_orders())
    feed.check()


def test_batches_of_any_cut_give_the_same_books():
    flow = Flow(9)
    slots = np.concatenate([flow.opening, *(flow.step() for _ in range(400))])
    feed = Feed()
    feed.apply(slots)
    assert (feed.depths[0].top(0), feed.depths[0].top(1)) == flow.book()
    assert feed.sequence == flow.sequence


def test_iceberg_shows_its_slice_and_refreshes_at_the_same_price():
    feed = Feed()
    feed.apply(accepted(1, 1, 100, 30, display=10))
    assert feed.depths[0].top(1) == [(100, 10)]
    feed.apply(
        np.concatenate([
            accepted(2, 0, 100, 12), trade(2, 1, 20, 2, 2, 100, 10),
            event(EventKind.REFRESHED, layout.REFRESHED, 2, order_id=1, display_size=10),
            trade(2, 1, 18, 2, 0, 100, 2),
        ])
    )  # fmt: skip
    assert feed.depths[0].top(1) == [(100, 8)] and feed.orders.get(1)[3:5] == (18, 8)
    feed.check()


def test_waiting_stop_is_not_in_depth_and_rests_after_it_triggers():
    feed = Feed()
    feed.apply(accepted(1, 0, 105, 7, type=OrderType.STOP_LIMIT))
    assert feed.depths[0].top(0) == [] and feed.orders.get(1)[5] == "waiting"
    feed.apply(accepted(2, 1, 101, 5))
    feed.apply(
        np.concatenate([
            accepted(3, 0, 101, 2), trade(3, 2, 3, 3, 0, 101, 2),
            event(EventKind.TRIGGERED, layout.TRIGGERED, 3, order_id=1), trade(3, 2, 0, 1, 4, 101, 3),
        ])
    )  # fmt: skip
    assert feed.depths[0].top(0) == [(105, 4)] and feed.depths[0].top(1) == []
    feed.check()


def test_event_of_an_order_that_is_not_open_is_named():
    with pytest.raises(JournalCorrupt, match="order_id=77"):
        Feed().apply(event(EventKind.CANCELED, layout.CANCELED, 5, order_id=77))


def test_sequence_that_goes_back_is_refused():
    feed = Feed()
    feed.apply(accepted(5, 0, 100, 1))
    with pytest.raises(JournalCorrupt, match="follows sequence=5"):
        feed.apply(accepted(4, 0, 100, 1))


def test_command_cut_in_its_extension_is_refused():
    flow = Flow(1)
    start = next(at for at in range(len(flow.opening)) if flow.opening["slots"][at] > 1)
    with pytest.raises(JournalCorrupt, match="slots"):
        Feed().apply(flow.opening[start : start + 1])


def test_order_limit_is_a_clear_error():
    feed = Feed(2)
    feed.apply(np.concatenate([accepted(1, 0, 100, 1), accepted(2, 0, 100, 1)]))
    with pytest.raises(LocalFault, match="order_limit"):
        feed.apply(accepted(3, 0, 100, 1))


def test_table_keeps_every_order_through_growth_and_removal():
    feed = Feed()
    for start in range(1, 20_001, 1000):
        feed.apply(np.concatenate([accepted(s, s & 1, 1000 + (s & 1) * 50 + s % 40, 1 + s % 7)
                                   for s in range(start, start + 1000)]))  # fmt: skip
    sequence = 20_001
    for order_id in range(1, 20_001):
        if order_id % 3:
            feed.apply(event(EventKind.CANCELED, layout.CANCELED, sequence, order_id=order_id))
            sequence += 1
    assert feed.orders.resting(0) == [order_id for order_id in range(1, 20_001) if order_id % 3 == 0]
    feed.check()
