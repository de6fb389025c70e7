"""Open orders as the events tell them: what later events and commands of an order leave out.

A trade names its orders by id alone, a cancel says not which side it was, a replace names no market. Whoever needs
them keeps one OpenOrders and tells it what was accepted, renamed and closed; EventDecoder does so by itself.

An order is dropped when it closes. Worst case: as many entries as there are open orders, a few hundred bytes each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["OpenOrder", "OpenOrders"]


@dataclass(slots=True)
class OpenOrder:
    """`account`, `market`: indices. `side`: codes.Side. `budget`: its leaves are quote units, not lots."""

    order_id: int
    account: int
    market: int
    client_id: str
    side: int
    budget: bool = False
    older_ids: list[str] = field(default_factory=list)


class OpenOrders:
    """By order id, and by (account, any client id it answers to)."""

    __slots__ = ("_by_client_id", "_by_id")

    def __init__(self) -> None:
        self._by_id: dict[int, OpenOrder] = {}
        self._by_client_id: dict[tuple[int, str], OpenOrder] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, order: OpenOrder) -> None:
        self._by_id[order.order_id] = order
        for client_id in (order.client_id, *order.older_ids):
            self._by_client_id[order.account, client_id] = order

    def get(self, order_id: int) -> OpenOrder | None:
        return self._by_id.get(order_id)

    def find(self, account: int, order_id: int | None, client_id: str | None) -> OpenOrder | None:
        """The account's open order of that id, or else of that client id."""
        if order_id is None:
            return None if client_id is None else self._by_client_id.get((account, client_id))
        order = self._by_id.get(order_id)
        return order if order is not None and order.account == account else None

    def rename(self, order_id: int, client_id: str) -> None:
        """A replaced order goes by a new id, and answers to the old ones too."""
        order = self._by_id.get(order_id)
        if order is not None and order.client_id != client_id:
            order.older_ids.append(order.client_id)
            order.client_id = client_id
            self._by_client_id[order.account, client_id] = order

    def close(self, order_id: int) -> None:
        order = self._by_id.pop(order_id, None)
        if order is not None:
            for client_id in (order.client_id, *order.older_ids):
                self._by_client_id.pop((order.account, client_id), None)
