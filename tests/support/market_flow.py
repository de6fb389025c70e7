"""A seeded flow of commands through the real core, and an event source that hands its events out."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np

from engine.core import Core
from engine.messages import layout
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder

START_NS = 1_700_000_000_000_000_000
PRICES = range(90, 111)


class Flow:
    """Commands in JSON words to events of the core; sequences and times are given out here."""

    def __init__(self, seed: int = 1, markets: tuple[str, ...] = ("NOVA-USD",), step_ns: int = 1_000_000_000) -> None:
        self.random = random.Random(seed)
        self.core = Core()
        self.directory = Directory()
        self.encoder = CommandEncoder(self.directory)
        self.sequence = 0
        self.ts = START_NS
        self.step_ns = step_ns
        self.markets = markets
        self.opening = np.concatenate([self.apply(command) for command in self._opening()])

    def _opening(self):
        yield {"op": "asset", "asset": "USD", "scale": 6}
        for market in self.markets:
            yield {"op": "asset", "asset": market.split("-")[0], "scale": 4}
            yield {
                "op": "market", "market": market, "base": market.split("-")[0], "quote": "USD", "tick": "0.05",
                "lot": "0.1",
            }  # fmt: skip
        for name in ("ann", "ben", "cy"):
            yield {"op": "account", "account": name}
            for asset in ("USD", *(market.split("-")[0] for market in self.markets)):
                yield {
                    "op": "deposit", "account": name, "asset": asset, "amount": "1000000000", "ref": f"{name}-{asset}",
                }  # fmt: skip

    def apply(self, command: dict) -> np.ndarray:
        """One command; its events."""
        record = self.encoder.encode(command)
        self.sequence += 1
        self.ts += self.step_ns
        head = np.frombuffer(record, layout.COMMAND, count=1)
        head["sequence"], head["ts"] = self.sequence, self.ts
        events = np.array(self.core.apply(record)).view(layout.EVENT)
        self.directory.learn(events)
        return events

    def place(self, side: str, price: int, size: int, **more) -> np.ndarray:
        """A limit order; price in ticks of 0.05, size in lots of 0.1."""
        command = {
            "op": "place", "account": self.random.choice(("ann", "ben", "cy")), "market": self.markets[0],
            "client_id": f"c{self.sequence}", "side": side, "type": "limit", "price": f"{price * 5 / 100:.2f}",
            "size": f"{size / 10:.1f}",
        }  # fmt: skip
        return self.apply(command | more)

    def step(self) -> np.ndarray:
        """One random command; its events."""
        draw = self.random.random()
        market = self.random.choice(self.markets)
        side = self.random.choice(("buy", "sell"))
        if draw < 0.65:
            return self.place(
                side, self.random.choice(PRICES), self.random.randint(1, 50), market=market,
                tif=self.random.choice(("gtc", "gtc", "gtc", "ioc", "fok")),
                stp=self.random.choice(("cancel_newest", "cancel_oldest", "cancel_both", "decrement", "none")),
            )  # fmt: skip
        open_orders = self.core.open_orders()
        if draw < 0.70 or not len(open_orders):
            return self.apply({
                "op": "place", "account": "ann", "market": market, "client_id": f"c{self.sequence}", "side": side,
                "type": "market", "size": f"{self.random.randint(1, 40) / 10:.1f}",
            })  # fmt: skip
        order = open_orders[self.random.randrange(len(open_orders))]
        account = self.directory.accounts[int(order["account"])].name
        named = {"account": account, "order_id": int(order["order_id"])}
        if draw < 0.85:
            return self.apply({"op": "cancel"} | named)
        if draw < 0.99:
            # The size alone or price and size, through an encoder that is told the market.
            return self._replace(named, order)
        return self.apply({"op": "mass_cancel", "account": account})

    def _replace(self, named: dict, order) -> np.ndarray:
        entry = self.directory.markets[int(order["market"])]
        record = self.encoder.encode({"op": "replace"} | named | {"size": "1"})
        view = np.frombuffer(record, layout.REPLACE, count=1)
        view["size"] = self.random.randint(1, 60)
        if self.random.random() < 0.6:
            view["price"] = self.random.choice(PRICES)
        assert entry.lot > 0
        self.sequence += 1
        self.ts += self.step_ns
        view["sequence"], view["ts"] = self.sequence, self.ts
        return np.array(self.core.apply(record)).view(layout.EVENT)

    def book(self, market: int = 0) -> tuple[list, list]:
        """The core's own book: (price ticks, lots) a side, best first."""
        sides: tuple[dict, dict] = (defaultdict(int), defaultdict(int))
        for order in self.core.open_orders():
            if order["market"] == market:
                sides[order["side"]][int(order["price"])] += int(order["leaves"])
        return sorted(sides[0].items(), reverse=True), sorted(sides[1].items())

    def book_text(self, market: int = 0) -> tuple[list, list]:
        """The same in wire text."""
        entry = self.directory.markets[market]
        bids, asks = (
            [(entry.price_text(price), entry.size_text(size)) for price, size in side] for side in self.book(market)
        )
        return bids, asks


class ListSource:
    """An EventSource over arrays that a test publishes."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []
        self.head_sequence = 0
        self._position = 0

    def publish(self, events: np.ndarray, sequence: int) -> None:
        if len(events):
            self.batches.append(events)
        self.head_sequence = sequence

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0
        self._position = 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        taken: list[np.ndarray] = []
        count = 0
        while self._position < len(self.batches) and count < limit_slots:
            taken.append(self.batches[self._position])
            count += len(taken[-1])
            self._position += 1
        return np.concatenate(taken) if taken else np.empty(0, layout.EVENT)
