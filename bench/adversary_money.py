"""The adversary's commands on money, accounts and listings, as JSON through CommandEncoder.

Refs are repeated with the same and with other content, pendings expire, accounts freeze in the middle, and fields get
values that must be refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.adversary import Adversary

__all__ = ["MARKETS", "NAMES_OF_MARKETS", "TRADERS", "MoneyCommands", "first_commands"]

Json = dict[str, Any]

TRADERS = ("ann", "bob", "cat", "dan", "eve", "fay")
_OTHERS = ("pay", "place:x", "system:external", "system:fees", "nobody")
MARKETS: tuple[tuple[Json, int], ...] = (
    ({"market": "TOK-USD", "base": "TOK", "quote": "USD", "tick": "0.01", "lot": "1"}, 1_000),
    ({"market": "BIG-USD", "base": "BIG", "quote": "USD", "tick": "0.5", "lot": "2", "min_size": "4",
      "max_price": "400", "taker_ppm": 90_000, "maker_ppm": -70_000}, 12),
    ({"market": "TOK-BIG", "base": "TOK", "quote": "BIG", "tick": "1", "lot": "1", "max_price": "5000"}, 6),
)  # fmt: skip
"""Each with the tick that its prices stay around."""
NAMES_OF_MARKETS = tuple(terms["market"] for terms, _ in MARKETS)
_ODD_DECIMALS = (
    "0", "0.0", "0.005", "1.0005", "9999999999999999999", "12345678901234567890.5", "1e3", "-1", "", ".5", "NaN",
)  # fmt: skip
_ODD_INTEGERS = (-1, 0, 1, 2**31, -(2**40), 2**63 - 1, 2**70)


def first_commands() -> list[Json]:
    """Six traders with little, one account that may be forced below zero, one that is a place."""
    commands: list[Json] = [
        *({"op": "account", "account": name} for name in TRADERS),
        {"op": "account", "account": "pay", "overdraft": "forced"},
        {"op": "account", "account": "place:x", "overdraft": "open"},
        {"op": "account", "account": "bob", "stp_group": "desk"},
        {"op": "account", "account": "cat", "stp_group": "desk"},
        {"op": "account", "account": "dan", "taker_ppm": -100_000, "maker_ppm": 100_000,
         "limits": {"max_open_orders": 9}},
        {"op": "asset", "asset": "USD", "scale": 2, "settled": True},
        {"op": "asset", "asset": "TOK", "scale": 4},
        {"op": "asset", "asset": "BIG", "scale": 0, "ref": "list:BIG"},
    ]  # fmt: skip
    commands += [{"op": "market", **terms} for terms, _ in MARKETS]
    commands += [
        {"op": "deposit", "account": name, "asset": asset, "amount": amount, "ref": f"first:{name}:{asset}"}
        for name, dollars in zip(TRADERS, ("3000", "3000", "900", "3000", "70", "40"), strict=True)
        for asset, amount in (("USD", dollars), ("TOK", "120"), ("BIG", "200"))
    ]
    return commands


class MoneyCommands:
    def __init__(self, adversary: Adversary) -> None:
        self._a = adversary
        self._random = adversary.random
        self._sent: list[Json] = []

    def deposit(self) -> bytearray:
        account = self._account_name() if self._random.random() < 0.3 else self._random.choice(TRADERS)
        command = {"op": "deposit", "account": account, "asset": self._asset(), "amount": self._amount(),
                   "ref": self._ref()}  # fmt: skip
        return self._send(self._meta(command, place="place:x"))

    def withdraw(self) -> bytearray:
        command = {"op": "withdraw", "account": self._account_name(), "asset": self._asset(), "amount": self._amount(),
                   "ref": self._ref()}  # fmt: skip
        legs = [self._leg() for _ in range(self._random.randrange(3))]
        return self._send(self._meta(command, place="place:x", legs=legs, address="0xabc"))

    def transfer(self) -> bytearray:
        command: Json = {"op": "transfer", "ref": self._ref()}
        command["legs"] = [self._leg() for _ in range(self._random.choice((0, 1, 1, 1, 1, 2, 2, 3, 3, 9, 70)))]
        if self._random.random() < 0.5:
            command["pending"] = True
            if self._random.random() < 0.6:
                command["expires_at"] = self._a.later(-70, 0, 20, 200, 2000)
        return self._send(self._meta(command))

    def decide(self) -> bytearray:
        """post, void, and the same of a withdrawal."""
        op = self._random.choice(("post", "void", "withdraw_settled", "withdraw_failed"))
        ref = self._random.choice(self._sent)["ref"] if self._sent and self._random.random() < 0.85 else self._ref()
        if self._random.random() < 0.6 and self._a.pending:
            ref = self._random.choice(self._a.pending)
        return self._send(self._some({"op": op, "ref": ref}, not_after=self._a.later(-70, 100)))

    def repeat(self) -> bytearray:
        """A command with a ref again: the same, or with another amount."""
        command: Json = dict(self._random.choice(self._sent)) if self._sent else {"op": "tick"}
        if "amount" in command and self._random.random() < 0.4:
            command["amount"] = self._amount()
        return self._a.encode(command)

    def account(self) -> bytearray:
        pick = self._random.choice
        name = pick((*TRADERS, "pay", f"new{self._random.randrange(60)}", "system:fees"))
        return self._send(self._some(
            {"op": "account", "account": name}, status=pick(("active", "active", "cancel_only", "frozen", "frozen")),
            taker_ppm=pick((0, 5000, 100_000, -9)), maker_ppm=pick((-5000, 0, 3000)), stp_group=pick(("desk", "other")),
            row="0x" + pick("ab") * 64, limits={"max_open_orders": pick((0, 3, 50))}, ref=self._ref(),
            overdraft=pick(("never", "forced", "open")),
        ))  # fmt: skip

    def reactivate(self, name: str) -> bytearray:
        return self._send({"op": "account", "account": name, "status": "active", "limits": {"max_open_orders": 40}})

    def listing(self) -> bytearray:
        pick = self._random.choice
        if self._random.random() < 0.2:
            name = pick(("USD", "TOK", "NEW1", "NEW2", "NEW3", "NEW4", "NEW5", "NEW6"))
            return self._send({"op": "asset", "asset": name, "scale": pick((0, 2, 9, 10, -1))})
        terms, _ = pick(MARKETS)
        bands: Json = {"entry_band_ppm": pick((0, 0, 0, 4_000, 6_000, 400_000)), "pause_ns": pick((5, 30, 90)),
                       "exec_band_ppm": pick((0, 0, 0, 2_000, 4_000, 200_000))}  # fmt: skip
        if self._random.random() < 0.75:  # a repeat in order: it may change bands, pause and rates
            repeat = {name: terms[name] for name in ("market", "base", "quote", "tick", "lot")}
            rates: Json = {"taker_ppm": pick((5_000, 90_000)), "maker_ppm": pick((-5_000, 0, 3_000))}
            return self._send({"op": "market", **repeat, **self._some({}, **bands, **rates)})
        command = {
            "op": "market", "market": pick((*NAMES_OF_MARKETS, "M3", "M4", "M5", "M6", "M7", "M8")),
            "base": pick(("TOK", "BIG", "USD", "XXX")), "quote": "USD", "tick": pick(("0.01", "0.5", "0.010")),
            "lot": pick(("1", "2", "0.00001")),
        }  # fmt: skip
        return self._send(self._some(
            command, taker_ppm=pick((0, 5000, 90_000, 200_000)), maker_ppm=pick((-70_000, 0, 3000)),
            pause_ns=pick((5, -5)), max_price=pick(("400", "0.3", "99999999999")),
            phase=pick(("continuous", "auction", "halt")), entry_band_ppm=pick((0, 10, 2 * 10**9)),
            exec_band_ppm=pick((0, 10, -1)), min_size=pick(("4", "3")), reference_price=pick(("1", "900000000")),
            ref=self._ref(),
        ))  # fmt: skip

    # ------------------------------------------------------------ values

    def _send(self, command: Json) -> bytearray:
        if self._random.random() < 0.02:
            command = self._spoil(command)
        if isinstance(command.get("ref"), str):
            self._sent = [*self._sent[-40:], command]
        return self._a.encode(command)

    def _spoil(self, command: Json) -> Json:
        """One field gets a value that it may not have."""
        field = self._random.choice(sorted(command))
        if field in ("amount", "tick", "lot"):
            return command | {field: self._random.choice(_ODD_DECIMALS)}
        if type(command[field]) is int:
            return command | {field: self._random.choice(_ODD_INTEGERS)}
        if field in ("account", "market", "asset"):
            return command | {field: "nobody"}
        return command | {field: self._random.choice([None, 1.5, "?", [], {}, True])}

    def _meta(self, command: Json, **optional: Any) -> Json:
        if self._random.random() < 0.97:
            command["not_after"] = self._a.later(-70, 10, 300, 300, 2000, 2000, 5000)
        return self._some(command, force=True, code="sale", memo="a document", **optional)

    def _some(self, command: Json, **optional: Any) -> Json:
        return command | {field: value for field, value in optional.items() if self._random.random() < 0.3}

    def _ref(self) -> str:
        return self._a.fresh_name("r")

    def _account_name(self) -> str:
        return self._random.choice(TRADERS if self._random.random() < 0.8 else _OTHERS)

    def _asset(self) -> str:
        return "XXX" if self._random.random() < 0.03 else self._random.choice(("USD", "USD", "TOK", "BIG"))

    def _amount(self) -> str:
        """Mostly so little that it soon is spent."""
        if self._random.random() < 0.88:
            return self._random.choice(("1", "3", "10", "40", "0.01"))
        return self._random.choice(("250", "9000", "40000000000000000", "46000000000000000"))

    def _leg(self) -> Json:
        leg: Json = {"from": self._account_name(), "asset": self._asset(), "amount": self._amount()}
        if self._random.random() < 0.5:
            return leg | {"to": self._account_name()}
        weights = [self._random.choice((0, 1, 1, 3, 7, 10_000, 2**31 - 1)) for _ in range(self._random.randrange(1, 6))]
        return leg | {"shares": [{"to": self._account_name(), "weight": weight} for weight in weights]}
