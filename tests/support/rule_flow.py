"""A seeded flow of all order types through a core, as the sequencer would send it: a tick before whatever is due.

Few prices, narrow bands and short pauses, so that stops cascade, icebergs meet at one level, pairs end, orders expire
and markets halt, collect and uncross all the time. It follows its own events only as far as to name open orders.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from engine.messages import layout
from engine.messages.codes import OrderStatus, OrderType, Phase
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder

__all__ = ["RuleFlow", "book_of"]

START_NS = 1_700_000_000_000_000_000
STEP_NS = 1_000_000_000
TRADERS = ("ann", "ben", "cy", "dee")
MODES = ("cancel_newest", "cancel_oldest", "cancel_both", "decrement", "none")


def book_of(core: Any, market: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What a core shows of a market: (price ticks, displayed lots) a side, best first."""
    sides: tuple[dict[int, int], dict[int, int]] = (defaultdict(int), defaultdict(int))
    for row in core.open_orders():
        if row["market"] == market and row["status"] == OrderStatus.OPEN:
            sides[row["side"]][int(row["price"])] += int(row["displayed"])
    return sorted(sides[0].items(), reverse=True), sorted(sides[1].items())


class RuleFlow:
    """`step` gives the events of one random command, and of the tick before it if one was due."""

    def __init__(self, core: Any, seed: int, markets: tuple[str, ...] = ("NOVA-USD", "LUX-USD")) -> None:
        self.random = random.Random(seed)
        self.core = core
        self.markets = markets
        self.directory = Directory()
        self.decoder = EventDecoder(self.directory)
        self.encoder = CommandEncoder(self.directory, self.decoder.orders)
        self.sequence, self.ts = 0, START_NS
        self.seen: Counter[str] = Counter()
        self.opening = np.concatenate([self.apply(command) for command in self._opening()])

    def apply(self, command: dict[str, Any]) -> np.ndarray:
        self.ts += STEP_NS
        events = []
        if self.core.next_due <= self.ts:
            events.append(self._record(self.encoder.encode({"op": "tick"})))
            assert self.core.next_due > self.ts, "a tick leaves nothing due"
        events.append(self._record(self.encoder.encode(command)))
        return np.concatenate(events)

    def step(self) -> np.ndarray:
        return self.apply(self._command())

    def book(self, market: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        return book_of(self.core, market)

    # ------------------------------------------------------------ inside

    def _record(self, record: bytearray) -> np.ndarray:
        self.sequence += 1
        head = np.frombuffer(record, layout.COMMAND, count=1)
        head["sequence"], head["ts"] = self.sequence, self.ts
        events = np.array(self.core.apply(record)).view(layout.EVENT)
        for event in self.decoder.decode(events):
            self.seen[" ".join(filter(None, (event["event"], event.get("reason"))))] += 1
            if event["event"] == "trade" and event["aggressor"] == "none":
                self.seen["uncross fill"] += 1
        return events

    def _opening(self) -> list[dict[str, Any]]:
        commands: list[dict[str, Any]] = [{"op": "asset", "asset": "USD", "scale": 6}]
        for market in self.markets:
            base = market.split("-")[0]
            commands += [
                {"op": "asset", "asset": base, "scale": 4},
                {"op": "market", "market": market, "base": base, "quote": "USD", "tick": "0.05", "lot": "0.1",
                 "exec_band_ppm": 60_000, "entry_band_ppm": 300_000, "pause_ns": 3 * STEP_NS, "maker_ppm": -1000},
            ]  # fmt: skip
        for name in TRADERS:
            commands.append({"op": "account", "account": name})
            for asset in ("USD", *(market.split("-")[0] for market in self.markets)):
                commands.append(
                    {"op": "deposit", "account": name, "asset": asset, "amount": "100000", "ref": f"{name}-{asset}"}
                )
        return commands

    def _command(self) -> dict[str, Any]:
        pick, draw = self.random.choice, self.random.random()
        market = pick(self.markets)
        phase = self.directory.markets_by_name[market].phase
        if phase not in (Phase.CONTINUOUS, Phase.HALT) and draw < 0.25:
            return self._open(market)
        if draw < 0.50:
            return self._limit(market)
        if draw < 0.64:
            return self._stop(market)
        if draw < 0.70:
            return self._market_order(market)
        if draw < 0.71:
            return {"op": "phase", "market": market, "phase": pick(("preopen", "auction", "auction", "halt", "closed"))}
        if draw < 0.72:
            return pick((
                {"op": "kill", "account": "dee"}, {"op": "mass_cancel", "account": pick(TRADERS)},
                {"op": "cancel_after", "account": pick(TRADERS), "at": self.ts + 8 * STEP_NS},
                {"op": "poison", "account": "ann", "client_id": f"p{self.sequence}"}, {"op": "cut"},
            ))  # fmt: skip
        if draw < 0.73:
            return {"op": "rearm", "account": "dee"}
        rows = self.core.open_orders()
        if not len(rows):
            return self._limit(market)
        row = rows[self.random.randrange(len(rows))]
        named = {"account": self.directory.accounts[int(row["account"])].name, "order_id": int(row["order_id"])}
        return {"op": "cancel", **named} if draw < 0.84 else self._replace(named, row)

    def _open(self, market: str) -> dict[str, Any]:
        phase = self.directory.markets_by_name[market].phase
        if phase in (Phase.PREOPEN, Phase.AUCTION) and self.random.random() < 0.7:
            return {"op": "uncross", "market": market}
        command = {"op": "phase", "market": market, "phase": "continuous"}
        return command | ({"reference_price": self._price()} if self.random.random() < 0.5 else {})

    def _place(self, market: str, **fields: Any) -> dict[str, Any]:
        return {
            "op": "place", "account": self.random.choice(TRADERS), "market": market, "client_id": f"c{self.sequence}",
            "side": self.random.choice(("buy", "sell")), "stp": self.random.choice(MODES), **fields,
        }  # fmt: skip

    def _limit(self, market: str) -> dict[str, Any]:
        size = self.random.randint(1, 60)
        tif = self.random.choice(("gtc", "gtc", "gtc", "gtd", "ioc", "fok"))
        command = self._place(market, type="limit", price=self._price(), size=self._lots(size), tif=tif)
        if tif == "gtd":
            command["expires_at"] = self.ts + self.random.randint(2, 40) * STEP_NS
        if tif in ("gtc", "gtd"):
            if size > 3 and self.random.random() < 0.4:
                command["display_size"] = self._lots(self.random.randint(1, size // 2))
            elif self.random.random() < 0.2:
                command["post_only"] = True
            self._pair(command, waiting=True)
        return command

    def _stop(self, market: str) -> dict[str, Any]:
        kind = self.random.choice(("stop", "stop_limit"))
        command = self._place(market, type=kind, stop_price=self._price())
        tifs = ("gtc", "gtc", "gtd", "ioc", "fok") if kind == "stop_limit" else ("gtc", "gtd")
        command["tif"] = self.random.choice(tifs)
        if command["tif"] == "gtd":
            command["expires_at"] = self.ts + self.random.randint(2, 60) * STEP_NS
        if kind == "stop" and command["side"] == "buy" and self.random.random() < 0.5:
            command |= {"budget": f"{self.random.randint(1, 200)}.01", "stp": "cancel_oldest"}
        else:
            command["size"] = self._lots(self.random.randint(1, 60))
        if kind == "stop_limit":
            command["price"] = self._price()
        self._pair(command, waiting=False)
        return command

    def _market_order(self, market: str) -> dict[str, Any]:
        command = self._place(market, type="market")
        if command["side"] == "buy" and self.random.random() < 0.5:
            return command | {"budget": f"{self.random.randint(1, 300)}.5", "stp": "none"}
        return command | {"size": self._lots(self.random.randint(1, 90))}

    def _pair(self, command: dict[str, Any], *, waiting: bool) -> None:
        """Now and then with a partner that fits."""
        if self.random.random() > 0.4:
            return
        for row in self.core.open_orders():
            order = self.decoder.orders.get(int(row["order_id"]))
            assert order is not None
            fits = row["status"] == OrderStatus.WAITING if waiting else row["type"] == OrderType.LIMIT
            if (
                fits and row["oco"] == 0 and self.directory.markets[order.market].name == command["market"]
                and ("buy", "sell")[order.side] == command["side"]
            ):  # fmt: skip
                command["account"] = self.directory.accounts[order.account].name
                command["oco_with"] = order.client_id
                return

    def _replace(self, named: dict[str, Any], row: np.void) -> dict[str, Any]:
        command = {"op": "replace", **named}
        if row["type"] != OrderType.STOP and self.random.random() < 0.6:
            command["price"] = self._price()
        if row["status"] == OrderStatus.WAITING and self.random.random() < 0.5:
            command["stop_price"] = self._price()
        if self.random.random() < 0.2:
            command["new_client_id"] = f"n{self.sequence}"
        if not row["flags"] & layout.PlaceFlag.BUDGET and (len(command) == 3 or self.random.random() < 0.5):
            command["size"] = self._lots(self.random.randint(1, 60))
        return command if len(command) > 3 else command | {"new_client_id": f"n{self.sequence}"}

    def _price(self) -> str:
        return f"{self.random.randint(90, 110) * 5 / 100:.2f}"

    def _lots(self, count: int) -> str:
        return f"{count / 10:.1f}"


