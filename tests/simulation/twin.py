"""The history of a world told by the plain-Python engine: its journal run through it, decoded as clients hear it.

Two uses. As it stands it must tell what the real engine told (I7). With a bug planted in it, it is what an exchange
with that bug would have told, and the auditor must name the bug.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.messages import layout
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.reference import ReferenceCore
from tests.simulation.auditor import Auditor
from tests.simulation.exchange import LIMITS
from tests.simulation.world import World

__all__ = ["Twin"]

Json = dict[str, Any]


class Twin:
    """Runs the records of a world's journal up to `last`."""

    def __init__(self, world: World, last: int) -> None:
        self.world, self.last = world, last
        self.core = ReferenceCore(LIMITS)
        self.directory = Directory()
        self._decoder = EventDecoder(self.directory)
        self.told: list[Json] = []

    def run(self, after: Callable[[Twin, bytes], None] | None = None) -> Twin:
        """`after` is called with each record that was applied."""
        journal = self.world.auditor.journal
        assert journal is not None
        for record in journal.records[: self.last]:
            events = self.core.apply(record.body).reshape(-1).view(layout.EVENT)
            if len(events):
                self.told += self._decoder.decode(np.ascontiguousarray(events))
            if after is not None:
                after(self, record.body)
        return self

    def judged(self) -> Auditor:
        """What the auditor of the same requests says of this history."""
        auditor = Auditor.of_the_same_requests(self.world.auditor)
        accounts = self.world.observer.accounts
        heard = [event for event in self.told if _is_private(event)]
        balances = {account: {"balances": self._balances(account)} for account in accounts}
        orders = {
            account: {"orders": self._orders(account)} for account in accounts if not account.startswith("system:")
        }
        auditor.finish(heard, self.last, balances, orders)
        return auditor

    def _balances(self, account: str) -> list[Json]:
        index = self.directory.accounts_by_name[account].index
        rows = []
        for (who, asset), (available, held) in self.core.balances().items():
            if who == index:
                entry = self.directory.assets[asset]
                rows.append({"asset": entry.name, "available": entry.text(available), "held": entry.text(held)})
        return rows

    def _orders(self, account: str) -> list[Json]:
        index = self.directory.accounts_by_name[account].index
        rows = []
        for row in self.core.open_orders():
            if int(row["account"]) == index:
                market = self.directory.markets[int(row["market"])]
                rows.append({"order_id": int(row["order_id"]), "leaves": market.size_text(int(row["leaves"]))})
        return rows


def _is_private(event: Json) -> bool:
    """Whether it is told to an account."""
    return event["event"] not in ("phase_changed", "uncrossed", "cut", "done")
