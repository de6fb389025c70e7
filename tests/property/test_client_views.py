"""What a client makes of its messages, however they were cut: the order tracker and the book builder, without sockets.

A little exchange keeps one account's orders and tells events as the real one does (that one stands in
tests/integration/test_client_trader.py). The connection is cut between any two messages, also within a command; then
`resume` tells the rest again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from byline.client.book_hash import level_mix
from byline.client.market_data import BookGap, LocalBook
from byline.client.tracker import OrderTracker

ACCOUNT = "alice"
Message = dict[str, Any]
ACTIONS = st.lists(
    st.tuples(st.sampled_from(("place", "refuse", "fill", "fill", "cancel", "rename", "mass")), st.integers(0, 7)),
    max_size=40,
)


class LittleExchange:
    """Orders of ten, filled in steps of one to eight; `history` is every event told."""

    def __init__(self) -> None:
        self.sequence = 0
        self.open: dict[int, tuple[str, int]] = {}
        self.filled: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.history: list[Message] = []

    def _tell(self, index: int, event: str, **fields: Any) -> None:
        head = {"sequence": self.sequence, "index": index, "ts": 1, "event": event, "account": ACCOUNT, "market": "M"}
        self.history.append(head | fields)

    def do(self, action: str, choice: int) -> None:
        self.sequence += 1
        order_id = sorted(self.open)[choice % len(self.open)] if self.open else 0
        name, left = self.open.get(order_id, ("", 0))
        if action == "place" or (action == "fill" and not order_id):
            self.place(f"c{self.sequence}", choice)
        elif action == "refuse":
            self.refused[f"c{self.sequence}"] = self.sequence
            self._tell(0, "rejected", op="place", client_id=f"c{self.sequence}", reason="insufficient_funds")
        elif action == "fill":
            self._fill(0, order_id, min(choice + 1, left))
        elif action == "cancel" and order_id:
            self._cancel(0, order_id)
        elif action == "rename" and order_id:
            new = f"c{self.sequence}"
            self.open[order_id] = (new, left)
            self.names[new] = order_id
            terms = {"price": str(choice + 1), "size": str(self.filled[order_id] + left), "leaves": str(left)}
            self._tell(0, "replaced", order_id=order_id, client_id=new, hold="0", released="0", **terms)
        elif action == "mass":
            self._tell(0, "done", op="mass_cancel")
            for index, number in enumerate(sorted(self.open), 1):
                self._cancel(index, number)

    def place(self, name: str, choice: int) -> None:
        """Takes the order and trades `choice` fills of one with it at once."""
        order_id = self.sequence
        self.open[order_id], self.filled[order_id], self.names[name] = (name, 10), 0, order_id
        self._tell(0, "accepted", order_id=order_id, client_id=name, side="buy", type="limit", tif="gtc", size="10")
        for index in range(choice):
            self._fill(index + 1, order_id, 1)

    def _fill(self, index: int, order_id: int, size: int) -> None:
        name, left = self.open[order_id]
        self.filled[order_id] += size
        self.open[order_id] = (name, left - size)
        if left == size:
            del self.open[order_id]
        ours = {"maker_order_id": order_id, "maker_leaves": str(left - size), "maker_fee": "0.1"}
        self._tell(index, "trade", trade_id=1, size=str(size), price="1", **ours)

    def _cancel(self, index: int, order_id: int) -> None:
        name, left = self.open.pop(order_id)
        self._tell(index, "canceled", order_id=order_id, client_id=name, leaves=str(left), released="0", reason="user")

    def listed(self) -> Message:
        orders = [
            {"order_id": number, "client_id": name, "status": "open", "leaves": str(left),
             "size": str(self.filled[number] + left)}
            for number, (name, left) in self.open.items()
        ]  # fmt: skip
        return {"type": "open_orders", "account": ACCOUNT, "sequence": self.sequence, "orders": orders}

    def resolve(self, name: str) -> Message:
        body: Message = {"type": "resolved", "account": ACCOUNT, "client_id": name, "sequence": self.sequence}
        number = self.names.get(name)
        if number is not None:
            status = "open" if number in self.open else "filled" if self.filled[number] == 10 else "canceled"
            outcome = "accepted" if number in self.open else "final"
            filled = str(self.filled[number])
            return body | {"outcome": outcome, "order_id": number, "market": "M", "status": status, "filled": filled}
        if name in self.refused:
            return body | {"outcome": "rejected", "rejected_sequence": self.refused[name], "reason": "busy"}
        return body | {"outcome": "never_received"}


def settle(tracker: OrderTracker, exchange: LittleExchange) -> None:
    """What a client does after a break, as the Trader does."""
    tracker.take(exchange.listed())
    for order in [*tracker.unanswered(), *tracker.doubted()]:
        tracker.take(exchange.resolve(order.client_id))
        if not order.is_known or order in tracker.doubted():
            tracker.never_received(order)


def assert_true(tracker: OrderTracker, exchange: LittleExchange) -> None:
    found = {order.order_id: (order.client_id, int(order.leaves)) for order in tracker.open_orders()}
    assert found == exchange.open
    assert not tracker.unanswered() and not tracker.doubted()
    for name, number in exchange.names.items():
        order = tracker.find(name, ACCOUNT)
        assert order is not None and order.order_id == number


@settings(max_examples=300, deadline=None)
@given(ACTIONS, st.lists(st.integers(0, 12), max_size=12), st.data())
def test_resumed_at_any_point_the_tracker_is_equal_to_the_exchange(
    actions: list[tuple[str, int]], cuts: list[int], data: st.DataObject
) -> None:
    exchange, tracker, new = LittleExchange(), OrderTracker(), []
    for number, (action, choice) in enumerate(actions):
        if action in ("place", "refuse") and choice % 2:
            tracker.sent(ACCOUNT, f"c{number + 1}", {"size": "10"})
        exchange.do(action, choice)
    for cut in [*cuts, len(exchange.history)]:
        after = tracker.resume_after
        told = [event for event in exchange.history if event["sequence"] > after][:cut]
        new += [event for event in told if tracker.take(event)]
    assert new == exchange.history[: len(new)], "each once and in order"
    rest = [event for event in exchange.history if event["sequence"] > tracker.resume_after]
    new += [event for event in rest if tracker.take(event)]
    assert new == exchange.history
    tracker.take({"type": "resumed", "sequence": exchange.sequence})
    lost = data.draw(st.booleans())
    if lost:
        tracker.sent(ACCOUNT, "never", {"size": "1"})
    settle(tracker, exchange)
    assert_true(tracker, exchange)
    assert {number: int(order.filled) for number, order in tracker.orders.items()} == exchange.filled
    for name in exchange.refused:
        order = tracker.find(name, ACCOUNT)
        assert order is None or order.state == "rejected"
    if lost:
        order = tracker.find("never", ACCOUNT)
        assert order is not None and order.state == "never_received"


@settings(max_examples=200, deadline=None)
@given(ACTIONS, st.integers(0, 60))
def test_without_a_resume_the_lists_and_questions_make_it_true(actions: list[tuple[str, int]], heard: int) -> None:
    exchange, tracker = LittleExchange(), OrderTracker()
    for action, choice in actions:
        exchange.do(action, choice)
    for event in exchange.history[:heard]:
        tracker.take(event)
    tracker.restart(exchange.sequence)
    settle(tracker, exchange)
    found = {order.order_id: (order.client_id, int(order.leaves)) for order in tracker.open_orders()}
    assert found == exchange.open and not tracker.doubted()
    for number, order in tracker.orders.items():
        assert int(order.filled) == exchange.filled[number]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=40),
    st.integers(0, 39), st.sampled_from(("drop", "change", "twice", "none")),
)  # fmt: skip
def test_f42_a_book_is_right_or_says_that_it_is_not(changes: list[tuple[int, int, int]], at: int, fault: str) -> None:
    """One message is lost, changed or doubled; the book notices with it or with the next."""
    levels: tuple[dict[int, int], dict[int, int]] = ({}, {})
    messages: list[Message] = [
        {"type": "snapshot", "seq": 0, "tick": "1", "lot": "1", "bids": [], "asks": [], "checksum": "0" * 16}
    ]
    states: dict[int, tuple[dict[int, int], dict[int, int]]] = {}
    for seq, (side, price, size) in enumerate(changes, 1):
        levels[side].pop(price, None)
        if size:
            levels[side][price] = size
        states[seq] = (dict(levels[0]), dict(levels[1]))
        total = sum(level_mix(s, p, z) for s in (0, 1) for p, z in levels[s].items()) % 2**64
        change = [[[str(price), str(size)]] if side == number else [] for number in (0, 1)]
        messages.append({"type": "update", "seq": seq, "prev_seq": seq - 1, "bids": change[0], "asks": change[1],
                         "checksum": f"{total:016x}"})  # fmt: skip
    victim = 1 + at % len(changes)
    if fault == "drop":
        del messages[victim]
    elif fault == "twice":
        messages.insert(victim, messages[victim])
    elif fault == "change":
        side, price, size = changes[victim - 1]
        word = "asks" if side else "bids"
        messages[victim] = messages[victim] | {word: [[str(price), str(size + 1)]]}
    book, noticed = LocalBook("M"), False
    for message in messages:
        try:
            book.apply(message)
        except BookGap:
            noticed = True
            break
        if book.seq:
            shown = tuple({int(p): int(z) for p, z in side} for side in (book.bids, book.asks))
            assert shown == states[book.seq], "what it shows without a word is right"
    if fault == "none":
        assert not noticed and book.ready and book.seq == len(changes)
    elif fault == "drop" and victim == len(changes):
        try:
            book.check_head(len(changes))
            raise AssertionError("the heads tell that the last one is missing")
        except BookGap:
            pass
    else:
        assert noticed and not book.ready


def test_decimals_keep_their_value() -> None:
    exchange, tracker = LittleExchange(), OrderTracker()
    exchange.do("place", 3)
    for event in exchange.history:
        tracker.take(event)
    [order] = tracker.open_orders()
    assert (order.filled, order.leaves, order.trades, order.fees) == (3, 7, 3, Decimal("0.3"))
