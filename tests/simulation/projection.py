"""The projector's fold in the world: follows the event log, dies between fold and commit, and must come out the same.

Production folds (`persistence/stores/postgres/fold.py`) and reads the event log; the tables are dicts here, written
with their checkpoint in one step, as one transaction of the projector is. A death throws the memory away: it is read
again from the tables, and the log behind the checkpoint.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

from engine.core import Core
from engine.messages.codes import OrderStatus
from engine.messages.directory import Directory
from engine.messages.errors import ExchangeError
from persistence.event_log import EventLogReader
from persistence.stores.postgres.fold import Fold, Order

__all__ = ["Projection"]


class Projection:
    """One projection of one journal."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(f"projection-{seed}")
        self.deaths = 0
        self.fault = ""
        self.sequence = 0
        self.orders: dict[int, Order] = {}
        self.balances: dict[tuple[int, int], tuple[int, int]] = {}
        self.trades: list[tuple[Any, ...]] = []
        self._events = directory / "events"
        self._names = Directory()
        self._fold = Fold(self._names)
        self._reader: EventLogReader | None = None

    def begin_again(self) -> None:
        """The exchange has another life, or this process has: nothing in memory counts."""
        self._reader = None
        self._fold = Fold(self._names)
        open_ones = (OrderStatus.OPEN, OrderStatus.WAITING)
        self._fold.orders = {
            number: copy.copy(order) for number, order in self.orders.items() if order.status in open_ones
        }
        self._fold.balances = {key: list(amounts) for key, amounts in self.balances.items()}

    def step(self) -> bool:
        """One batch, if there is one. False: nothing is there to read."""
        try:
            if self._reader is None:
                self._reader = EventLogReader(self._events)
                self._reader.seek(self.sequence)
            slots = self._reader.read(self.random.choice([1, 16, 256, 4_096]))
        except (OSError, ExchangeError):
            self._reader = None  # it is being made anew
            return False
        if not len(slots) or self.fault:
            return False
        try:
            rows = self._fold.take(slots)
        except KeyError as error:
            self.fault = f"behind {self.sequence} an event of what was never told: {error}"
            return False
        if self.random.random() < 0.02:
            self.deaths += 1
            self.begin_again()
            return True
        for number, order in rows.orders.items():
            self.orders[number] = copy.copy(order)
        for key in rows.balances:
            available, held = self._fold.balances[key]
            self.balances[key] = (available, held)
        self.trades += rows.trades
        self.sequence = rows.sequence
        return True

    def differs(self, core: Core) -> str:
        """What the tables say otherwise than the core, once everything is read; empty: nothing."""
        while self.step():
            continue
        if self.fault:
            return self.fault
        numbers: dict[int, list[int]] = {}
        for trade in self.trades:
            numbers.setdefault(trade[0], []).append(trade[1])
        for market, found in numbers.items():
            if found != list(range(1, len(found) + 1)):
                return f"trades of market {market}: {found}"
        own = {key: amounts for key, amounts in self.balances.items() if any(amounts)}
        real = {
            (int(row["account"]), int(row["asset"])): (int(row["available"]), int(row["held"]))
            for row in core.balances()
            if row["available"] or row["held"]
        }
        if own != real:
            return f"balances: {sorted(own.items() ^ real.items())}"
        open_ones = (OrderStatus.OPEN, OrderStatus.WAITING)
        leaves = {order.order_id: order.leaves for order in self.orders.values() if order.status in open_ones}
        known = {int(row["order_id"]): int(row["leaves"]) for row in core.open_orders()}
        return "" if leaves == known else f"open orders: {sorted(leaves.items() ^ known.items())}"
