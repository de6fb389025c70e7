"""What simulated clients do: orders of every type, changes, cancels, kills, timers, money, phases; and nonsense.

Each actor owns one client and draws from its own dice, so that leaving out a fault does not change what others draw
first. Names and limits here keep within what tests/simulation/model.py judges: no pairs (oco), no bands, no self-trade
mode `none`; the differential runs of the engine cover those.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from byline.client.keys import public_key
from tests.simulation.client import SimulatedClient, key_of, text_frame
from tests.simulation.loop import Schedule
from tests.simulation.network import MS

__all__ = ["MARKETS", "Hostile", "Operator", "Trader", "place", "setup"]

Json = dict[str, Any]
MARKETS: dict[str, Json] = {
    "TOK-USD": {"base": "TOK", "quote": "USD", "tick": "0.01", "lot": "1", "taker_ppm": 2_500, "maker_ppm": 1_000},
    "CRT-USD": {"base": "CRT", "quote": "USD", "tick": "0.05", "lot": "0.1", "taker_ppm": 3_333, "maker_ppm": -777},
}
ASSETS = {"USD": 4, "TOK": 0, "CRT": 2}
START = {"USD": "20000", "TOK": "5000", "CRT": "5000"}


def setup(traders: list[str], observers: dict[str, list[str]]) -> list[Json]:
    """The operator's first commands, each safe to repeat: assets, markets, accounts, money, keys."""
    commands: list[Json] = [{"op": "asset", "asset": name, "scale": scale} for name, scale in ASSETS.items()]
    commands += [{"op": "market", "market": name} | terms for name, terms in MARKETS.items()]
    for name in traders:
        commands.append({"op": "account", "account": name, "row": "0x" + name.encode().hex().ljust(64, "0")})
        commands += [
            {"op": "deposit", "account": name, "asset": asset, "amount": amount, "ref": f"fund-{name}-{asset}"}
            for asset, amount in START.items()
        ]
        scopes = ["trade", "read", "withdraw", "transfer"]
        commands.append(_key(name, [name], scopes))
    commands += [_key(name, accounts, ["read"]) for name, accounts in observers.items()]
    return commands


def _key(name: str, accounts: list[str], scopes: list[str]) -> Json:
    return {
        "op": "register_key", "key": public_key(key_of(name)), "accounts": accounts, "scopes": scopes, "label": name,
        "tier": "unlimited",
    }  # fmt: skip


def place(client: SimulatedClient, client_id: str, side: str = "buy", price: str = "1", **more: Any) -> int:
    """A plain order of TOK-USD. Returns its request id."""
    order = {"op": "place", "market": "TOK-USD", "client_id": client_id, "side": side, "type": "limit", "price": price}
    return client.say(order | {"size": "1"} | more)


class Actor:
    """Acts again and again, when its client is live."""

    pause_ms = (50, 400)

    def __init__(self, client: SimulatedClient, schedule: Schedule, seed: int) -> None:
        self.client, self.schedule = client, schedule
        self.random = random.Random(f"actor-{client.name}-{seed}")
        self.is_acting = False

    def begin(self) -> None:
        self.is_acting = True
        self._next()

    def stop(self) -> None:
        self.is_acting = False

    def _next(self) -> None:
        self.schedule.later(self.random.randrange(*self.pause_ms) * MS, self._act)

    def _act(self) -> None:
        if not self.is_acting:
            return
        if self.client.is_live and len(self.client.open) < 64:
            self.act()
        self._next()

    def act(self) -> None:
        raise NotImplementedError


class Trader(Actor):
    """Quotes around a price that wanders, takes now and then, changes its mind, and is late with what it repeats."""

    def __init__(self, client: SimulatedClient, schedule: Schedule, seed: int, others: list[str]) -> None:
        super().__init__(client, schedule, seed)
        self.others = others
        self.orders: dict[str, Json] = {}
        """What it believes to be open, by client id."""
        self.placed: list[Json] = []
        self.numbers = 0
        self.is_killed = False
        client.on_answer = self._answered
        client.on_event = self._event

    # ------------------------------------------------------------ what it hears

    def _answered(self, request: Json, answer: Json) -> None:
        if answer.get("event") == "accepted":
            self.orders[answer["client_id"]] = request
        elif answer.get("type") == "resolved" and answer["outcome"] != "accepted":
            self.orders.pop(answer["client_id"], None)
        elif request["op"] in ("kill", "rearm") and answer.get("event") == "done":
            self.is_killed = request["op"] == "kill"
        self._event(answer)

    def _event(self, event: Json) -> None:
        name = event.get("event")
        if name == "canceled":
            self.orders.pop(event["client_id"], None)
        elif name == "trade":
            for side in ("maker", "taker"):
                if event.get(f"{side}_leaves") == "0":
                    self.orders.pop(event.get(f"{side}_client_id", ""), None)

    # ------------------------------------------------------------ what it does

    def act(self) -> None:
        draw = self.random.random()
        if self.is_killed and draw < 0.5:
            self.client.say({"op": "rearm"})
        elif draw < 0.62:
            self.place()
        elif draw < 0.76 and self.orders:
            self.cancel()
        elif draw < 0.88 and self.orders:
            self.replace()
        else:
            self.rare()

    def _new_id(self) -> str:
        self.numbers += 1
        return f"{self.client.name}-{self.numbers}"

    def _price(self, market: str) -> str:
        middle = 100 + round(8 * (self.schedule.now_ns / 6e10)) + self.random.randrange(-6, 7)
        if market == "TOK-USD":
            return f"{middle}.{self.random.randrange(100):02d}"
        return f"{middle}.{self.random.choice(['00', '05', '50', '95'])}"

    def _size(self, market: str) -> str:
        return str(self.random.randrange(1, 30)) if market == "TOK-USD" else f"{self.random.randrange(1, 400) / 10:.1f}"

    def place(self) -> None:
        market = self.random.choice(sorted(MARKETS))
        draw = self.random.random()
        order: Json = {
            "op": "place", "market": market, "client_id": self._new_id(), "side": self.random.choice(["buy", "sell"]),
            "type": "limit", "size": self._size(market), "price": self._price(market),
        }  # fmt: skip
        if draw < 0.12:
            order["tif"] = self.random.choice(["ioc", "fok"])
        elif draw < 0.2:
            del order["price"]
            order["type"] = "market"
            if order["side"] == "buy" and self.random.random() < 0.5:
                del order["size"]
                order["budget"] = str(self.random.randrange(50, 2_000))
        elif draw < 0.28:
            order["post_only"] = True
        elif draw < 0.38:
            size = self.random.randrange(20, 60)
            order |= {"size": str(size), "display_size": str(self.random.randrange(2, 10))}
        elif draw < 0.5:
            order["stop_price"] = self._price(market)
            order["type"] = self.random.choice(["stop", "stop_limit"])
            if order["type"] == "stop":
                del order["price"]
        elif draw < 0.56:
            now = self.client.network.wall_ns()
            order |= {"tif": "gtd", "expires_at": now + self.random.randrange(-500, 5_000) * MS}
        elif draw < 0.62:
            order["stp"] = self.random.choice(["cancel_oldest", "cancel_both", "decrement"])
        if self.random.random() < 0.15:
            order["cancel_on_disconnect"] = False
        if self.random.random() < 0.06:
            order["size"] = self.random.choice(
                ["0", "-1", "1.234567", "99999999999999999999", "1e5", "9223372036854775807"]
            )
        if self.random.random() < 0.08 and self.placed:
            order = dict(self.random.choice(self.placed))  # the very same again
        self.placed.append(order)
        self.client.say(order)
        if self.random.random() < 0.04:
            self.client.say(order)  # a message that is sent twice

    def press(self, count: int) -> None:
        """So many orders at once, every fourth of them to rest, and a moment later cancels of some of these."""
        resting = []
        for number in range(count):
            client_id = self._new_id()
            place(self.client, client_id, **({"tif": "ioc"} if number % 4 else {}))
            if number % 4 == 0:
                resting.append(client_id)

        def give_up() -> None:
            if self.client.is_live:
                for client_id in resting[:8]:
                    self.client.say({"op": "cancel", "client_id": client_id})

        self.schedule.later(400 * MS, give_up)

    def _some(self) -> str:
        return self.random.choice(sorted(self.orders))

    def cancel(self) -> None:
        self.client.say({"op": "cancel", "client_id": self._some()})

    def replace(self) -> None:
        client_id = self._some()
        market = self.orders[client_id].get("market", "TOK-USD")
        change: Json = {"op": "replace", "client_id": client_id}
        draw = self.random.random()
        if draw < 0.45:
            change["size"] = self._size(market)
        if draw > 0.35:
            change["price"] = self._price(market)
        if draw > 0.93:
            change["new_client_id"] = self._new_id()
        self.client.say(change)

    def rare(self) -> None:
        draw = self.random.random()
        say = self.client.say
        if draw < 0.12:
            say({"op": "mass_cancel"} | ({"side": "buy"} if draw < 0.06 else {}))
        elif draw < 0.18:
            say({"op": "kill"})
        elif draw < 0.32:
            now = self.client.network.wall_ns()
            say({"op": "cancel_after", "at": 0 if draw < 0.2 else now + self.random.randrange(100, 4_000) * MS})
        elif draw < 0.42:
            say({"op": "poison", "client_id": f"{self.client.name}-{self.numbers + self.random.randrange(1, 3)}"})
        elif draw < 0.55 and self.placed:
            say({"op": "resolve", "client_id": self.random.choice(self.placed)["client_id"]})
        elif draw < 0.63:
            say({"op": "open_orders"})
        elif draw < 0.7:
            say({"op": "balances"})
        elif draw < 0.85:
            say(
                {
                    "op": "transfer",
                    "ref": f"t-{self._new_id()}",
                    "legs": [
                        {
                            "from": self.client.accounts[0],
                            "asset": self.random.choice(["USD", "TOK"]),
                            "amount": str(self.random.randrange(1, 50)),
                            "to": self.random.choice(self.others),
                        }
                    ],
                }  # fmt: skip
            )
        else:
            say(
                {
                    "op": "withdraw",
                    "asset": "USD",
                    "amount": f"{self.random.randrange(1, 99)}.5",
                    "ref": f"w-{self._new_id()}",
                }
            )


class Operator(Actor):
    """Deposits, decides withdrawals, halts and auctions."""

    pause_ms = (200, 1_500)

    def __init__(self, client: SimulatedClient, schedule: Schedule, seed: int, traders: list[Trader]) -> None:
        super().__init__(client, schedule, seed)
        self.traders = traders
        self.numbers = 0
        self.todo: list[Json] = []
        self.on_ready: Callable[[], None] | None = None
        self.closed: dict[str, str] = {}
        client.on_answer = self._answered
        client.on_live = self._go_on

    def prepare(self, commands: list[Json], on_ready: Callable[[], None]) -> None:
        """Have each of these carried out, in order."""
        self.todo, self.on_ready = list(commands), on_ready
        if self.client.is_live:
            self._go_on()

    def _go_on(self) -> None:
        if self.todo and not any(message["op"] == self.todo[0]["op"] for message in self.client.open.values()):
            self.client.say(self.todo[0])

    def _answered(self, request: Json, answer: Json) -> None:
        if self.todo and {k: v for k, v in request.items() if k != "rid"} == self.todo[0]:
            self.todo.pop(0)
            if self.todo:
                self._go_on()
            elif self.on_ready is not None:
                self.on_ready()
        if request["op"] in ("phase", "uncross") and answer.get("event") in ("phase_changed", "uncrossed"):
            phase = answer["phase"] if request["op"] == "phase" else "continuous"
            self.closed[request["market"]] = phase

    def act(self) -> None:
        draw = self.random.random()
        say = self.client.say
        self.numbers += 1
        shut = [name for name, phase in sorted(self.closed.items()) if phase != "continuous"]
        if shut and draw < 0.6:
            market = self.random.choice(shut)
            if self.closed[market] in ("auction", "preopen"):
                say({"op": "uncross", "market": market})
            else:
                say({"op": "phase", "market": market, "phase": self.random.choice(["auction", "continuous"])})
        elif draw < 0.3:
            trader = self.random.choice(self.traders).client.accounts[0]
            asset = self.random.choice(sorted(ASSETS))
            say(
                {
                    "op": "deposit",
                    "account": trader,
                    "asset": asset,
                    "amount": str(self.random.randrange(1, 500)),
                    "ref": f"d-{self.numbers}",
                }
            )
        elif draw < 0.55:
            made = [m["ref"] for t in self.traders for m in t.client.sent_money]
            if made:
                say(
                    {"op": self.random.choice(["withdraw_settled", "withdraw_failed"]), "ref": self.random.choice(made)}
                )
        elif draw < 0.65:
            market = self.random.choice(sorted(MARKETS))
            say(
                {
                    "op": "phase",
                    "market": market,
                    "phase": self.random.choice(["auction", "halt", "cancel_only", "preopen"]),
                }
            )
        elif draw < 0.75:
            a, b = (self.random.choice(self.traders).client.accounts[0] for _ in range(2))
            if a != b:
                legs = [{"from": a, "asset": "USD", "amount": "9", "to": b}]
                now = self.client.network.wall_ns()
                say(
                    {
                        "op": "transfer",
                        "ref": f"p-{self.numbers}",
                        "legs": legs,
                        "pending": True,
                        "expires_at": now + 2_000 * MS,
                    }
                )
        elif draw < 0.85:
            say({"op": self.random.choice(["post", "void"]), "ref": f"p-{self.random.randrange(1, self.numbers + 2)}"})
        else:
            say({"op": "status"})


class Hostile(Actor):
    """Frames that are none, and commands in other people's names."""

    pause_ms = (100, 900)

    def __init__(self, client: SimulatedClient, schedule: Schedule, seed: int, victims: list[str]) -> None:
        super().__init__(client, schedule, seed)
        self.victims = victims

    def act(self) -> None:
        draw = self.random.random()
        victim = self.random.choice(self.victims)
        client_id = f"{victim}-{self.random.randrange(1, 60)}"
        if draw < 0.1:
            self.client.send_raw(self.random.randbytes(self.random.randrange(1, 40)))
            self.schedule.later(500 * MS, self.client.abandon)
        elif draw < 0.2:
            self.client.send_raw(
                text_frame(self.random.choice([b"{", b"[]", b"[1,2]", b'{"op":1e999}', b"\xff\xfe", b"[" * 500]))
            )
        elif draw < 0.35:
            self.client.say({"op": "cancel", "account": victim, "client_id": client_id})
        elif draw < 0.5:
            self.client.say({"op": "cancel", "order_id": self.random.randrange(1, 400)})
        elif draw < 0.6:
            self.client.say({"op": "resolve", "account": victim, "client_id": client_id})
        elif draw < 0.7:
            self.client.say(
                {
                    "op": "place",
                    "account": victim,
                    "market": "TOK-USD",
                    "client_id": client_id,
                    "side": "buy",
                    "type": "limit",
                    "price": "1",
                    "size": "1",
                }
            )
        elif draw < 0.8:
            self.client.say(
                {"op": "withdraw", "account": victim, "asset": "USD", "amount": "1", "ref": f"steal-{client_id}"}
            )
        elif draw < 0.9:
            self.client.say(
                {
                    "op": self.random.choice(["phase", "uncross", "deposit", "cut", "tick", "rubbish"]),
                    "market": "TOK-USD",
                }
            )
        else:
            self.client.send_raw(
                text_frame(json.dumps({"op": "sign_in", "key": "00" * 32, "signature": "11" * 64}).encode())
            )
