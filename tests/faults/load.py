"""Traders that go on whatever dies, and remember for every command what they were told: the history that is audited."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client import CommandError, ConnectionLost, SignInFailed, TradingClient
from byline.operator import gateway_url
from byline.settings import Settings
from engine.messages.errors import ExchangeError

__all__ = ["Told", "Trader"]

MARKET = "INK-USDC"
IN_FLIGHT = 6
LOST = (ConnectionLost, SignInFailed, ExchangeError, OSError, asyncio.TimeoutError)


@dataclass(slots=True)
class Told:
    """What one client id was answered."""

    outcome: str
    """accepted, rejected (by a rule, in the journal), refused (before the journal), unknown."""
    order_id: int = 0
    is_settled: bool = False
    """What was unknown has been asked for; from then on the truth is fixed."""


@dataclass
class Trader:
    """One account with its own session. `going` lets it trade; `idle` says that nothing of it is under way."""

    settings: Settings
    name: str
    key: Ed25519PrivateKey
    seed: int
    history: dict[str, Told] = field(default_factory=dict)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    acks: dict[int, str] = field(default_factory=dict)
    """Sequence → chain word, of every answer to a command."""
    canceled: set[int] = field(default_factory=set)
    """Orders that a cancel was told to have ended."""
    connections: int = 0
    client: TradingClient | None = None

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
                except LOST:
                    await self.drop()
                    await asyncio.sleep(0.1)
        finally:
            await self.drop()

    async def connected(self) -> TradingClient:
        """Its session. Raises one of LOST while there is none to be had."""
        if self.client is None:
            url = gateway_url(self.settings)
            self.client = await TradingClient.connect(url, self.key, cancel_on_disconnect=False, timeout_s=20)
            self.connections += 1
        return self.client

    async def drop(self) -> None:
        if self.client is not None:
            client, self.client = self.client, None
            with contextlib.suppress(*LOST):
                await asyncio.wait_for(client.close(), 5)

    async def _act(self, client: TradingClient, draw: random.Random) -> None:
        if draw.random() < 0.2 and self.history:
            client_id = draw.choice(list(self.history)[-40:])
            with contextlib.suppress(CommandError):
                answer = await client.request({"op": "cancel", "client_id": client_id})
                self._acked(answer)
                if answer["event"] == "canceled":
                    self.canceled.add(int(answer["order_id"]))
            return
        client_id = f"{self.name}-{len(self.history)}"
        self.history[client_id] = told = Told("unknown")
        side, ticks = draw.choice(("buy", "sell")), draw.randrange(1150, 1250)
        order: dict[str, Any] = {
            "op": "place", "market": MARKET, "client_id": client_id, "side": side, "type": "limit",
            "size": f"{draw.randrange(1, 30) / 10}", "price": f"{ticks / 100:.2f}",
        }  # fmt: skip
        if draw.random() < 0.05:
            order["size"] = "900000000"  # more than anybody has: rejected by a rule
        try:
            answer = await client.request(order)
        except CommandError:
            told.outcome, told.is_settled = "refused", True
            return
        self._acked(answer)
        told.is_settled = True
        if answer["event"] == "rejected":
            told.outcome = "rejected"
        else:
            told.outcome, told.order_id = "accepted", int(answer["order_id"])

    def _acked(self, answer: dict[str, Any]) -> None:
        self.acks[int(answer["sequence"])] = answer["chain"]
