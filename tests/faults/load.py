"""Traders that go on whatever dies, and remember for every command what they were told: the history that is audited.

Each trades on two markets, gives the others money under refs, and takes some out. A ref that was not answered is sent
again as it was, and now and then one that was: it must act once. Every fill that a trader is told is kept too.

Orders of one that `ends` are to end with the session that placed them, which it leaves by itself now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client import CommandError, ConnectionLost, SignInFailed, TradingClient
from byline.client.tracker import OrderTracker
from byline.operator import gateway_url
from byline.settings import Settings
from engine.messages.errors import ExchangeError

__all__ = ["ASSETS", "MARKETS", "Moved", "Numbers", "Told", "Trader"]

MARKETS = {"INK-USDC": (1150, 1250), "REEL-USDC": (4700, 4900)}
"""Market → lowest and highest price in ticks. A tick is 0.01, and so is a lot."""
ASSETS = {"USDC": 6, "INK": 4, "REEL": 4}
"""Asset → scale, of those that the traders own."""
IN_FLIGHT = 6
RESUMED_S = 60
"""How long a replay of what was missed may take before its session is given up."""
LOST = (ConnectionLost, SignInFailed, ExchangeError, OSError, asyncio.TimeoutError)
REVENUE = "platform:revenue"
LEFT = 0.02
"""Of the rounds of one that `ends`: behind each of them it leaves its session."""
WITHDRAWN = 0.006
"""Of new refs: a batch pays each with a call of its own, and the embedded chain carries out some thirty in a second."""
PLAIN = {"side": "buy", "size": "0.1"}
"""An order that nothing but trouble of the exchange is a reason to refuse, but for its market and price."""
TOO_MUCH = "900000000"
"""More than anybody has: rejected by a rule."""


@dataclass(slots=True)
class Told:
    """What one client id was answered."""

    outcome: str
    """accepted, rejected (by a rule, in the journal), refused (before the journal), unknown."""
    order_id: int = 0
    """Also the sequence of its command."""
    code: str = ""
    """Why it was refused."""
    is_settled: bool = False
    """What was unknown has been asked for; from then on the truth is fixed."""
    session: tuple[int, int] = (0, 0)
    """Of the connection that it was sent over: (life of the core, number of the sign-in)."""


@dataclass(slots=True)
class Moved:
    """A money command, and all that was ever said of its ref."""

    command: dict[str, Any]
    outcome: str = "unknown"
    """moved, held (a withdrawal), rejected (by a rule), refused (before the journal), unknown."""
    sequence: int = 0
    """Of the command that moved or held it."""
    sent: int = 0
    lost: int = 0
    """How often no answer came."""
    is_under_way: bool = False
    lies: list[str] = field(default_factory=list)
    """Answers that contradict what was told before."""

    def take(self, answer: dict[str, Any]) -> None:
        """An answer of the core."""
        told = {"transferred": "moved", "pended": "held", "rejected": "rejected", "duplicate": "duplicate"}
        outcome, sequence = told[answer["event"]], int(answer["sequence"])
        if outcome == "duplicate":
            outcome, sequence = "moved" if self.command["op"] == "transfer" else "held", int(answer["first_sequence"])
            if self.sent == 1:
                self.lies.append(f"a ref that was sent once is a duplicate of {sequence}")
        elif self.outcome in ("moved", "held"):
            self.lies.append(f"was {self.outcome} by {self.sequence}, and then {outcome} by {sequence}")
        if self.outcome == "unknown":
            self.outcome, self.sequence = outcome, sequence
        elif (self.outcome, self.sequence) != (outcome, sequence):
            self.lies.append(f"was {self.outcome} by {self.sequence}, and then said to be {outcome} by {sequence}")

    def refused(self) -> None:
        """It was not taken this time; what became of it before is not said."""
        if self.outcome == "unknown" and self.sent == 1:
            self.outcome = "refused"


class Numbers:
    """Amounts that no other movement in or out has: so each is found on the chain by its amount alone."""

    def __init__(self) -> None:
        self._counts: dict[str, Iterator[int]] = {asset: itertools.count(1) for asset in ASSETS}

    def next(self, asset: str) -> str:
        """1.000001, 1.000002 …"""
        return str(1 + Decimal(next(self._counts[asset])).scaleb(-ASSETS[asset]))


@dataclass
class Trader:
    """One account with its own session. `going` lets it trade; `idle` says that nothing of it is under way."""

    settings: Settings
    name: str
    account: str
    key: Ed25519PrivateKey
    seed: int
    numbers: Numbers
    others: list[str] = field(default_factory=list)
    """Accounts that it gives money to."""
    ends: bool = False
    """Its orders end with their session."""
    rest_s: float = 0.0
    """Between two rounds of IN_FLIGHT commands."""
    history: dict[str, Told] = field(default_factory=dict)
    money: dict[str, Moved] = field(default_factory=dict)
    """By ref."""
    going: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    acks: dict[int, str] = field(default_factory=dict)
    """Sequence → chain word, of every answer to a command."""
    first_acked: dict[int, int] = field(default_factory=dict)
    """Life of the core → the smallest sequence that it acked."""
    canceled: set[int] = field(default_factory=set)
    """Orders that a cancel was told to have ended."""
    fills: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)
    """(market, trade id, own order) → the event, of every fill that was told."""
    fills_twice: Counter[tuple[int, str, int, int]] = field(default_factory=Counter)
    """(connection, market, trade id, own order) → how often told on it."""
    tracker: OrderTracker = field(default_factory=OrderTracker)
    connections: int = 0
    client: TradingClient | None = None
    _resumed: asyncio.Future[dict[str, Any]] = field(init=False)

    @property
    def session(self) -> tuple[int, int]:
        """Of its connection, as `Told` has it; (0, 0): there is none."""
        return _session(self.client) if self.client is not None else (0, 0)

    async def run(self) -> None:
        """Until cancelled."""
        draw = random.Random(self.seed)
        try:
            while True:
                if not self.going.is_set():
                    self.idle.set()
                    await self.going.wait()
                self.idle.clear()
                try:
                    client = await self.connected()
                    await asyncio.gather(*(self._act(client, draw) for _ in range(IN_FLIGHT)))
                    await asyncio.sleep(self.rest_s)
                    if self.ends and draw.random() < LEFT:
                        await self.drop()
                except LOST:
                    await self.drop()
                    await asyncio.sleep(0.1)
        finally:
            await self.drop()

    async def connected(self) -> TradingClient:
        """Its session, which goes on behind what the last one told. Raises one of LOST: there is none to be had.

        Nothing is sent before all of that was told: an ack comes at once, and whoever is cut off behind it would go on
        behind the ack, and never hear what the replay still had to tell.
        """
        if self.client is None:
            self._resumed = asyncio.get_running_loop().create_future()
            client = await TradingClient.connect(
                gateway_url(self.settings), self.key, cancel_on_disconnect=self.ends, timeout_s=20,
                resume=self.tracker.resume_after, observer=self._hear,
            )  # fmt: skip
            self.connections += 1
            try:
                async with asyncio.timeout(RESUMED_S):
                    is_told = await client.comes(self._resumed)
                if not is_told or self._resumed.result()["type"] == "error":
                    raise ConnectionLost("the replay did not come to its end")
            except BaseException:
                await client.close()
                raise
            self.client = client
        return self.client

    async def drop(self) -> None:
        if self.client is not None:
            client, self.client = self.client, None
            with contextlib.suppress(*LOST):
                await asyncio.wait_for(client.close(), 5)

    async def move(self, client: TradingClient, ref: str) -> None:
        """Send a money command, once more with the same content if it was sent before. Raises one of LOST."""
        moved = self.money[ref]
        moved.is_under_way = True
        moved.sent += 1
        try:
            answer = await client.request(moved.command)
            self._acked(client, answer)
            moved.take(answer)
        except CommandError:
            moved.refused()
        except LOST:
            moved.lost += 1
            raise
        finally:
            moved.is_under_way = False

    async def why_not_taken(self, market: str) -> str:
        """Place a plain order at the lowest price of that market. Empty: it was accepted."""
        order = PLAIN | {"market": market, "price": f"{MARKETS[market][0] / 100:.2f}"}
        try:
            told = await self._place(await self.connected(), order)
        except LOST as error:
            await self.drop()
            return f"{type(error).__name__}: {error}"
        return "" if told.outcome == "accepted" else f"{told.outcome} {told.code}"

    async def _hear(self, message: dict[str, Any]) -> None:
        self.tracker.take(message)
        if message.get("type") in ("resumed", "error") and "rid" not in message and not self._resumed.done():
            self._resumed.set_result(message)
        if message.get("event") == "trade":
            for who in ("maker", "taker"):
                if f"{who}_order_id" in message:
                    key = message["market"], int(message["trade_id"]), int(message[f"{who}_order_id"])
                    self.fills[key] = message
                    self.fills_twice[self.connections, *key] += 1

    async def _act(self, client: TradingClient, draw: random.Random) -> None:
        chance = draw.random()
        if chance < 0.2 and self.history:
            client_id = draw.choice(list(self.history)[-40:])
            with contextlib.suppress(CommandError):
                answer = await client.request({"op": "cancel", "client_id": client_id})
                self._acked(client, answer)
                if answer["event"] == "canceled":
                    self.canceled.add(int(answer["order_id"]))
        elif chance < 0.4:
            await self.move(client, self._next_ref(draw))
        else:
            market = draw.choice(list(MARKETS))
            order = {
                "market": market, "side": draw.choice(("buy", "sell")), "size": f"{draw.randrange(1, 30) / 10}",
                "price": f"{draw.randrange(*MARKETS[market]) / 100:.2f}",
            }  # fmt: skip
            if draw.random() < 0.05:
                order["size"] = TOO_MUCH
            await self._place(client, order)

    async def _place(self, client: TradingClient, order: dict[str, str]) -> Told:
        client_id = f"{self.name}-{len(self.history)}"
        self.history[client_id] = told = Told("unknown", session=_session(client))
        try:
            answer = await client.request({"op": "place", "type": "limit", "client_id": client_id} | order)
        except CommandError as error:
            told.outcome, told.code, told.is_settled = "refused", error.code, True
            return told
        self._acked(client, answer)
        told.is_settled = True
        if answer["event"] == "rejected":
            told.outcome = "rejected"
        else:
            told.outcome, told.order_id = "accepted", int(answer["order_id"])
        return told

    def _next_ref(self, draw: random.Random) -> str:
        """One that was not answered, if there is one; now and then one that was; else a new one."""
        for ref, moved in self.money.items():
            if moved.outcome == "unknown" and not moved.is_under_way:
                return ref
        done = [ref for ref, moved in list(self.money.items())[-20:] if moved.outcome in ("moved", "held")]
        if done and draw.random() < 0.2:
            return draw.choice(done)
        ref, asset = f"{self.name}:{len(self.money)}", draw.choice(list(ASSETS))
        if draw.random() < WITHDRAWN:
            command = {"op": "withdraw", "account": self.account, "asset": asset, "amount": self.numbers.next(asset)}
        else:
            amount = TOO_MUCH if draw.random() < 0.05 else f"{draw.randrange(1, 5000) / 1000:.3f}"
            command = {"op": "transfer", "legs": [self._leg(draw, asset, amount)]}
        self.money[ref] = Moved(command | {"ref": ref})
        return ref

    def _leg(self, draw: random.Random, asset: str, amount: str) -> dict[str, Any]:
        leg: dict[str, Any] = {"from": self.account, "asset": asset, "amount": amount}
        if draw.random() < 0.5:
            return leg | {"to": draw.choice(self.others)}
        seller, licensor = draw.sample(self.others, 2)  # a sale: what the platform takes of it, and two who share it
        shares = [{"to": REVENUE, "weight": 15}, {"to": seller, "weight": 60}, {"to": licensor, "weight": 25}]
        return leg | {"shares": shares}

    def _acked(self, client: TradingClient, answer: dict[str, Any]) -> None:
        sequence, (life, _) = int(answer["sequence"]), _session(client)
        self.acks[sequence] = answer["chain"]
        self.first_acked[life] = min(sequence, self.first_acked.get(life, sequence))


def _session(client: TradingClient) -> tuple[int, int]:
    return int(client.hello["epoch"]), int(client.signed_in["session"])
