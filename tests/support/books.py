"""A book as text, to be compared as text.

    bids                 | asks
    9.99   5:bob/b1      | 10.01  3:ann/a1 2:bob/b2

One line a level, best first; in a level `leaves:account/client id` in the order of the queue.
"""

from __future__ import annotations

from typing import Any

from engine.messages.codes import Side
from tests.support.commands import Desk

__all__ = ["assert_book", "draw"]


def draw(desk: Desk, market: str = "TOK-USD") -> str:
    """The whole book of a desk."""
    bids, asks = _levels(desk, market, Side.BUY), _levels(desk, market, Side.SELL)
    height = max(len(bids), len(asks))
    bids += [""] * (height - len(bids))
    asks += [""] * (height - len(asks))
    return "\n".join(f"{bid} | {ask}".strip() for bid, ask in zip(bids, asks, strict=True))


def assert_book(desk: Desk, drawing: str, market: str = "TOK-USD") -> None:
    """The book is as drawn; runs of blanks do not matter."""
    drawn = draw(desk, market)
    assert _plain(drawn) == _plain(drawing), f"the book is\n{drawn}\nnot\n{drawing}"


def _plain(drawing: str) -> list[str]:
    return [" ".join(line.split()) for line in drawing.strip().splitlines()]


def _levels(desk: Desk, market: str, side: Side) -> list[str]:
    entry = desk.directory.markets_by_name[market]
    lines = []
    for price, orders in _queues(desk.core, entry.index, side):
        queue = []
        for order_id, leaves in orders:
            order = desk.decoder.orders.get(order_id)
            assert order is not None, f"order {order_id} rests but was never accepted"
            queue.append(f"{entry.size_text(leaves)}:{desk.directory.accounts[order.account].name}/{order.client_id}")
        lines.append(f"{entry.price_text(price)} {' '.join(queue)}")
    return lines


def _queues(core: Any, market: int, side: Side) -> list[tuple[int, list[tuple[int, int]]]]:
    if hasattr(core, "book"):
        return core.book(market, side)
    rows = core.open_orders()
    levels: dict[int, list[tuple[int, int]]] = {}
    for row in rows[(rows["market"] == market) & (rows["side"] == side)]:
        levels.setdefault(int(row["price"]), []).append((int(row["order_id"]), int(row["leaves"])))
    return list(levels.items())
