"""A hostile stream of commands: what a core and its twin must agree on.

Few accounts with little money meet in two small markets, so that nearly every command touches what another one left:
self trades in all modes, fok across levels, market buys by budget, storms of replaces and renames, client ids that
come back, refs repeated with the same and with other content, pendings that expire, freezes in the middle, and at
every field now and then a value that must be refused. The stream is a function of the seed and of the events shown.

It speaks the JSON of the rulebook through CommandEncoder, and learns names and open orders through EventDecoder, so
both are exercised on every command.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np

from engine.limits import CoreLimits
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed

__all__ = ["TIGHT_LIMITS", "Adversary"]

TIGHT_LIMITS = CoreLimits(
    accounts=64, markets=8, assets=8, balances=200, orders=60, client_ids_total=60, client_ids_per_account=12, refs=60,
    postings=40, max_price_ticks=1 << 20, max_fills_per_command=7,
)  # fmt: skip
"""Bounds so narrow that every one of them is met."""

_TRADERS = ("ann", "bob", "cat", "dan", "eve", "fay")
_OTHERS = ("pay", "place:x", "system:external", "system:fees", "nobody")
_MARKETS = ("TOK-USD", "BIG-USD")
_ODD_DECIMALS = (
    "0", "0.0", "0.005", "1.0005", "9999999999999999999", "12345678901234567890.5", "1e3", "-1", "", ".5", "NaN",
)  # fmt: skip
_ODD_INTEGERS = (-1, 0, 1, 2**31, -(2**40), 2**63 - 1, 2**70)


class Adversary:
    """`command` proposes, `encode` makes the record, `learn` must be shown the events."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.directory = Directory()
        self.decoder = EventDecoder(self.directory)
        self.encoder = CommandEncoder(self.directory, self.decoder.orders)
        self.time = 1_000
        self._opening = self._first_commands()
        self._sent_refs: list[dict[str, Any]] = []
        self._ids: list[tuple[str, str]] = []
        self._numbers = 0
        self._weights = {
            self._place: 42, self._cancel: 8, self._replace: 16, self._mass_cancel: 1, self._deposit: 4,
            self._withdraw: 3, self._transfer: 8, self._decide: 7, self._repeat: 4, self._account: 3, self._listing: 2,
            self._tick: 3, self._cut: 1, self._unsupported: 1, self._garbage: 1,
        }  # fmt: skip

    def command(self) -> dict[str, Any]:
        """The next command as JSON, valid or not."""
        if self._opening:
            command = self._opening.pop(0)
        else:
            command = self.random.choices(list(self._weights), list(self._weights.values()))[0]()
            if command and self.random.random() < 0.02:
                command = self._spoil(command)
        self.time += self.random.choice((0, 0, 1, 5, 40, -3))
        command["ts"] = max(self.time, 0)
        if "ref" in command:
            self._sent_refs = [*self._sent_refs[-40:], command]
        return command

    def encode(self, command: dict[str, Any], sequence: int) -> bytearray:
        """Its record, or the record of a malformed line."""
        try:
            record = self.encoder.encode(command)
        except Malformed:
            record = self.encoder.malformed()
        struct.pack_into("<Q", record, 8, sequence)
        return record

    def learn(self, events: np.ndarray, command: dict[str, Any]) -> list[dict[str, Any]]:
        """The events as JSON."""
        return self.decoder.decode(events, command)

    # ------------------------------------------------------------ commands

    def _first_commands(self) -> list[dict[str, Any]]:
        commands: list[dict[str, Any]] = [
            {"op": "asset", "asset": "USD", "scale": 2, "settled": True},
            {"op": "asset", "asset": "TOK", "scale": 4},
            {"op": "asset", "asset": "BIG", "scale": 0, "ref": "list:BIG"},
            {"op": "market", "market": "TOK-USD", "base": "TOK", "quote": "USD", "tick": "0.01", "lot": "1"},
            {"op": "market", "market": "BIG-USD", "base": "BIG", "quote": "USD", "tick": "0.5", "lot": "2",
             "min_size": "4", "max_price": "400", "taker_ppm": 90_000, "maker_ppm": -70_000},
            {"op": "account", "account": "pay", "overdraft": "forced"},
            {"op": "account", "account": "place:x", "overdraft": "open"},
        ]  # fmt: skip
        for number, name in enumerate(_TRADERS):
            account: dict[str, Any] = {"op": "account", "account": name}
            if number in (1, 2):
                account["stp_group"] = "desk"
            if number == 3:
                account |= {"taker_ppm": -100_000, "maker_ppm": 100_000, "limits": {"max_open_orders": 4}}
            commands.append(account)
            for asset, amount in (("USD", "3000"), ("TOK", "90"), ("BIG", "120")):
                commands.append(
                    {"op": "deposit", "account": name, "asset": asset, "amount": amount, "ref": f"first:{name}:{asset}"}
                )
        return commands

    def _place(self) -> dict[str, Any]:
        pick, market = self.random.choice, self.random.choice(_MARKETS)
        account, client_id = pick(_TRADERS), self._client_id()
        self._ids = [*self._ids[-60:], (account, client_id)]
        command: dict[str, Any] = {
            "op": "place", "account": account, "market": market, "client_id": client_id, "side": pick(("buy", "sell")),
            "type": "limit" if self.random.random() < 0.8 else "market",
        }  # fmt: skip
        if command["type"] == "limit":
            command["price"] = self._price(market)
            command["tif"] = pick((None, "gtc", "gtc", "gtc", "ioc", "fok", "fok"))
            if self.random.random() < 0.15:
                command["post_only"] = True
        if command["type"] == "market" and command["side"] == "buy" and self.random.random() < 0.6:
            command["budget"] = pick(("0.01", "7.77", "50", "333.33", "2999.99"))
        else:
            command["size"] = self._size(market)
        command["stp"] = pick((None, None, "cancel_oldest", "cancel_both", "decrement", "decrement", "none"))
        if self.random.random() < 0.1:
            command["session"] = pick(("s1", "s2"))
        return command

    def _cancel(self) -> dict[str, Any]:
        return {"op": "cancel", **self._order_name()}

    def _replace(self) -> dict[str, Any]:
        command, pick = {"op": "replace", **self._order_name()}, self.random.choice
        market = pick(_MARKETS)
        if self.random.random() < 0.6:
            command["price"] = self._price(market)
        if self.random.random() < 0.6:
            command["size"] = self._size(market)
        if self.random.random() < 0.25:
            command["new_client_id"] = self._client_id()
            self._ids = [*self._ids[-60:], (command["account"], command["new_client_id"])]
        return command

    def _mass_cancel(self) -> dict[str, Any]:
        command: dict[str, Any] = {"op": "mass_cancel"}
        if self.random.random() < 0.9:
            command["account"] = self.random.choice(_TRADERS)
        return self._some(
            command, market=self.random.choice(_MARKETS), side=self.random.choice(("buy", "sell")), session="s1"
        )

    def _deposit(self) -> dict[str, Any]:
        command = {"op": "deposit", "account": self._account_name(), "asset": self._asset(), "amount": self._amount(),
                   "ref": self._ref()}  # fmt: skip
        return self._money(command, place="place:x")

    def _withdraw(self) -> dict[str, Any]:
        command = {"op": "withdraw", "account": self._account_name(), "asset": self._asset(), "amount": self._amount(),
                   "ref": self._ref()}  # fmt: skip
        legs = [self._leg() for _ in range(self.random.randrange(3))]
        return self._money(command, place="place:x", legs=legs, address="0xabc")

    def _transfer(self) -> dict[str, Any]:
        command: dict[str, Any] = {"op": "transfer", "ref": self._ref()}
        command["legs"] = [self._leg() for _ in range(self.random.choice((0, 1, 1, 2, 3, 9, 70)))]
        if self.random.random() < 0.5:
            command["pending"] = True
            if self.random.random() < 0.6:
                command["expires_at"] = self.time + self.random.choice((-5, 0, 20, 200, 2000))
        return self._money(command)

    def _money(self, command: dict[str, Any], **optional: Any) -> dict[str, Any]:
        if self.random.random() < 0.8:
            command["not_after"] = self.time + self.random.choice((-20, 10, 300, 300, 2000, 2000, 5000))
        return self._some(command, force=True, code="sale", memo="a document", **optional)

    def _decide(self) -> dict[str, Any]:
        op = self.random.choice(("post", "void", "withdraw_settled", "withdraw_failed"))
        if self._sent_refs and self.random.random() < 0.85:
            ref = self.random.choice(self._sent_refs)["ref"]
        else:
            ref = self._ref()
        return self._some({"op": op, "ref": ref}, not_after=self.time + self.random.choice((-5, 100)))

    def _repeat(self) -> dict[str, Any]:
        """A money command again: the same, or with another amount."""
        if not self._sent_refs:
            return self._tick()
        command = dict(self.random.choice(self._sent_refs))
        if "amount" in command and self.random.random() < 0.4:
            command["amount"] = self._amount()
        return command

    def _account(self) -> dict[str, Any]:
        pick = self.random.choice
        if self.random.random() < 0.5:
            return {"op": "account", "account": pick(_TRADERS), "status": "active", "limits": {"max_open_orders": 30}}
        return self._some(
            {"op": "account", "account": pick((*_TRADERS, "pay", f"new{self.random.randrange(60)}", "system:fees"))},
            status=pick(("active",) * 9 + ("cancel_only", "frozen")), taker_ppm=pick((0, 5000, 100_000, -9)),
            maker_ppm=pick((-5000, 0, 3000)), stp_group=pick(("desk", "other")), row="0x" + pick("ab") * 64,
            limits={"max_open_orders": pick((0, 3, 50))}, ref=self._ref(), overdraft=pick(("never", "forced", "open")),
        )  # fmt: skip

    def _listing(self) -> dict[str, Any]:
        pick = self.random.choice
        if self.random.random() < 0.3:
            return {"op": "asset", "asset": pick(("USD", "NEW1", "NEW2", "NEW3")), "scale": pick((0, 2, 9, 10, -1))}
        command = {
            "op": "market", "market": pick((*_MARKETS, "M3", "M4")), "base": pick(("TOK", "BIG", "USD", "XXX")),
            "quote": "USD", "tick": pick(("0.01", "0.5", "0.010")), "lot": pick(("1", "2", "0.00001")),
        }  # fmt: skip
        known = self.directory.markets_by_name.get(command["market"])
        if known is not None and self.random.random() < 0.7:  # a repeat that may well be in order
            command |= {"base": known.base.name, "tick": pick(("0.01", "0.5", "0.010")), "lot": pick(("1", "2"))}
        return self._some(
            command, taker_ppm=pick((0, 5000, 90_000, 200_000)), maker_ppm=pick((-70_000, 0, 3000)),
            pause_ns=pick((5, -5)), max_price=pick(("400", "0.3", "99999999999")),
            phase=pick(("continuous", "auction")), entry_band_ppm=pick((0, 10)), min_size=pick(("4", "3")),
            reference_price=pick(("1", "900000000")), ref=self._ref(),
        )  # fmt: skip

    def _tick(self) -> dict[str, Any]:
        self.time += self.random.choice((0, 10, 500, 5000))
        return {"op": "tick"}

    def _cut(self) -> dict[str, Any]:
        return {"op": "cut"}

    def _unsupported(self) -> dict[str, Any]:
        account, market = self.random.choice(_TRADERS), self.random.choice(_MARKETS)
        place = self._place() | {"type": "limit", "price": self._price(market)}
        return self.random.choice([
            {"op": "kill", "account": account}, {"op": "rearm", "account": account},
            {"op": "uncross", "market": market}, {"op": "phase", "market": market, "phase": "halt"},
            {"op": "cancel_after", "account": account, "at": 5},
            {"op": "poison", "account": account, "client_id": "p1"}, place | {"type": "stop", "stop_price": "1"},
            place | {"display_size": "2"}, place | {"tif": "gtd", "expires_at": 10**9}, place | {"oco_with": "x"},
            place | {"stop_price": "3"}, place | {"tif": "soon"}, place | {"type": "odd"},
        ])  # fmt: skip

    def _garbage(self) -> dict[str, Any]:
        return self.random.choice([{"op": "jump"}, {}, {"op": "cancel", "account": "ann"}, {"op": "tick", "x": 1}])

    def _spoil(self, command: dict[str, Any]) -> dict[str, Any]:
        """One field gets a value that it may not have."""
        field = self.random.choice(sorted(command))
        value = command[field]
        if field in ("price", "size", "amount", "budget", "tick", "lot"):
            return command | {field: self.random.choice(_ODD_DECIMALS)}
        if type(value) is int:
            return command | {field: self.random.choice(_ODD_INTEGERS)}
        if field in ("account", "market", "asset"):
            return command | {field: "nobody"}
        return command | {field: self.random.choice([None, 1.5, "?", [], {}, True])}

    # ------------------------------------------------------------ values

    def _some(self, command: dict[str, Any], **optional: Any) -> dict[str, Any]:
        return command | {field: value for field, value in optional.items() if self.random.random() < 0.3}

    def _price(self, market: str) -> str:
        if market == "TOK-USD":
            return f"{self.random.randrange(995, 1006) / 100:.2f}"
        return f"{self.random.randrange(1, 12) / 2}"

    def _size(self, market: str) -> str:
        return str(self.random.choice((1, 2, 3, 5, 9, 25)) * (1 if market == "TOK-USD" else 4))

    def _client_id(self) -> str:
        self._numbers += 1
        return f"c{self._numbers if self.random.random() < 0.9 else self.random.randrange(self._numbers)}"

    def _ref(self) -> str:
        self._numbers += 1
        return f"r{self._numbers if self.random.random() < 0.85 else self.random.randrange(self._numbers)}"

    def _order_name(self) -> dict[str, Any]:
        """Mostly of an order that is open; now and then of a closed one, nobody's, or by both ids."""
        chance = self.random.random()
        if chance < 0.03 or not self._ids:
            return {"account": self.random.choice(_TRADERS), "order_id": self.random.randrange(1, 200)}
        account, client_id = self.random.choice(self._ids)
        if chance < 0.05:
            return {"account": account, "client_id": client_id, "order_id": 7}
        order = None
        for _ in range(8):
            index = self.directory.accounts_by_name[account].index
            order = self.decoder.orders.find(index, None, client_id)
            if order is not None or chance < 0.1:
                break
            account, client_id = self.random.choice(self._ids)
        if order is not None and chance < 0.4:
            return {"account": account, "order_id": order.order_id}
        return {"account": account, "client_id": client_id}

    def _account_name(self) -> str:
        return self.random.choice(_TRADERS if self.random.random() < 0.8 else _OTHERS)

    def _asset(self) -> str:
        return "XXX" if self.random.random() < 0.03 else self.random.choice(("USD", "USD", "TOK", "BIG"))

    def _amount(self) -> str:
        return self.random.choice(("1", "3", "10", "0.01", "250", "90000", "40000000000000000"))

    def _leg(self) -> dict[str, Any]:
        leg: dict[str, Any] = {"from": self._account_name(), "asset": self._asset(), "amount": self._amount()}
        if self.random.random() < 0.5:
            return leg | {"to": self._account_name()}
        weights = [self.random.choice((0, 1, 1, 3, 7, 10_000, 2**31 - 1)) for _ in range(self.random.randrange(1, 6))]
        return leg | {"shares": [{"to": self._account_name(), "weight": weight} for weight in weights]}
