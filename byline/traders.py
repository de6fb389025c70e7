"""Simulated traders: a seeded crowd on the creators' tokens, so that a new exchange has something to see.

They are ordinary clients with their own accounts and API keys, and trade test money. Each token has a fair price that
walks; makers quote around it at distances with a long tail, cancel what has grown old, and takers cross the spread to a
limit near the fair price. The same seed gives the same decisions; what comes of them depends on the order in which
they arrive.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

from byline.genesis import TOKENS, Token

__all__ = ["ACCOUNT_COUNT", "Action", "Crowd", "account_name", "funding_commands", "wallet_of"]

ACCOUNT_COUNT = 12
MAX_OPEN_PER_ACCOUNT = 60
SWEEP_TICKS = 25
"""How far from the fair price a large taker goes, never beyond a fourth of that price."""
FUNDS_USDC = "5000000"
FUNDS_TOKEN = "250000"


def account_name(number: int) -> str:
    """The account of trader 1, 2, 3 …"""
    return f"sim:{number}"


def wallet_of(account: str) -> str:
    """A made-up wallet: an address that nobody has the key of, so that each trader has a row of its own on chain."""
    return "0x" + hashlib.sha256(f"simulated wallet of {account}".encode()).hexdigest()


def funding_commands() -> list[dict[str, object]]:
    """Opens the traders' accounts and gives them test money. May be sent again: the refs make it idempotent."""
    commands: list[dict[str, object]] = []
    for number in range(1, ACCOUNT_COUNT + 1):
        account = account_name(number)
        commands.append({"op": "account", "account": account, "row": wallet_of(account)})
        for asset, amount in (("USDC", FUNDS_USDC), *((token.symbol, FUNDS_TOKEN) for token in TOKENS)):
            ref = f"seed:{account}:{asset}"
            commands.append({"op": "deposit", "account": account, "asset": asset, "amount": amount, "ref": ref})
    return commands


@dataclass(slots=True)
class Action:
    """One decision: a command of the order entry, and the account that sends it."""

    trader: int
    command: dict[str, object]


@dataclass(slots=True)
class _Walk:
    token: Token
    start_ticks: int
    fair_ticks: float = 0.0
    drift: float = 0.0

    def step(self, chance: random.Random) -> int:
        """One step of a walk that is pulled back to where it began, so that it stays in sight."""
        self.drift = 0.99 * self.drift + chance.gauss(0, 0.01)
        self.fair_ticks += self.drift + chance.gauss(0, 0.15) + 0.0005 * (self.start_ticks - self.fair_ticks)
        self.fair_ticks = max(20.0, self.fair_ticks)
        return round(self.fair_ticks)


@dataclass(slots=True)
class Crowd:
    """The decisions of all traders. `next_action` never looks at a clock."""

    seed: int
    session: str
    """Part of every client id, so that a restart does not repeat the ids of the last run."""
    _chance: random.Random = field(init=False)
    _walks: list[_Walk] = field(init=False)
    _open: list[deque[str]] = field(init=False)
    _count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._walks = []
        for token in TOKENS:
            start = int(Decimal(token.start_price) / Decimal(token.tick))
            self._walks.append(_Walk(token, start, float(start)))
        self._open = [deque() for _ in range(ACCOUNT_COUNT)]

    def closed(self, trader: int, client_id: str) -> None:
        """The exchange said that this order is no longer open."""
        orders = self._open[trader - 1]
        if client_id in orders:
            orders.remove(client_id)

    def next_action(self) -> Action:
        chance = self._chance
        trader = chance.randrange(ACCOUNT_COUNT) + 1
        orders = self._open[trader - 1]
        if len(orders) >= MAX_OPEN_PER_ACCOUNT or (orders and chance.random() < 0.25):
            position = 0 if chance.random() < 0.7 else chance.randrange(len(orders))
            client_id = orders[position]
            del orders[position]
            return Action(trader, {"op": "cancel", "client_id": client_id})
        walk = chance.choice(self._walks)
        fair = walk.step(chance)
        self._count += 1
        client_id = f"{self.session}-{self._count}"
        side = chance.choice(("buy", "sell"))
        toward = 1 if side == "buy" else -1
        command: dict[str, object] = {
            "op": "place", "market": walk.token.market, "client_id": client_id, "side": side, "type": "limit",
            "size": _decimal(1 + int(chance.paretovariate(1.3) * 100), walk.token.lot),
        }  # fmt: skip
        if chance.random() < 0.17:  # a taker
            # Through several levels at times, but to a limit: a market order that meets a book without makers, as
            # after a start, would take whatever bid somebody left far away, and the candle would show that price.
            reach = min(SWEEP_TICKS, fair // 4) if chance.random() < 0.3 else chance.randrange(1, 6)
            command["price"] = _decimal(fair + toward * reach, walk.token.tick)
            command["tif"] = "ioc"
            return Action(trader, command)
        distance = 1 + min(200, int(chance.paretovariate(0.9)))
        command["price"] = _decimal(max(1, fair - toward * distance), walk.token.tick)
        if chance.random() < 0.5:
            command["post_only"] = True
        orders.append(client_id)
        return Action(trader, command)


def _decimal(steps: int, step: str) -> str:
    return f"{(steps * Decimal(step)).normalize():f}"
