"""A storm of clients that all come back at once after a restart (F34).

Who does not get in (`unsigned_max` of them may be signing in at a time) comes again, as clients do, until all are in;
who is in trades on, and each of its commands is answered. Here two hundred and fifty clients; the five thousand of the
scenario with `BYLINE_STORM=5000`, which is too much processor time for every run of the suite.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

from byline.client import TradingClient, generate_key, public_key
from tests.support.gateway import MARKET, Exchange, exchange
from tests.support.raw import RawClient
from tests.support.waiting import HANG_S

CLIENTS = int(os.environ.get("BYLINE_STORM", "250"))
SESSIONS_OF_A_KEY = 100
BROKEN = (OSError, asyncio.IncompleteReadError, AssertionError)
"""What a connection that was ended, or never taken, shows a client made of frames."""


async def comes_back(url: str, key: Any, draw: random.Random) -> RawClient:
    """Signs in, however often it takes."""
    while True:
        client = None
        try:
            client = await RawClient.connect(url)
            if (await client.sign_in(key))["type"] == "signed_in":
                return client
        except BROKEN:
            pass
        if client is not None:
            client.abort()
        await asyncio.sleep(draw.uniform(0.05, 0.5))


async def trades(client: TradingClient, is_over: asyncio.Event) -> int:
    """Places and cancels until the storm is over; every command must be answered with what it asked for."""
    number = 0
    while not is_over.is_set():
        number += 1
        placed = await client.place(MARKET, f"in-{number}", "buy", "limit", size="0.1", price="1")
        canceled = await client.cancel(client_id=f"in-{number}")
        assert (placed["event"], canceled["event"]) == ("accepted", "canceled")
    return number


async def registered(x: Exchange, count: int) -> list[Any]:
    keys = [generate_key() for _ in range(count)]
    async with await x.client(x.operator) as operator:
        for number, key in enumerate(keys):
            await operator.command("account", account=f"storm-{number}")
            await operator.register_key(public_key(key), [f"storm-{number}"], ["read"], f"storm-{number}")
    return keys


async def test_f34_all_clients_at_once_after_a_restart_get_in_and_who_is_in_trades_on(tmp_path: Path) -> None:
    draw = random.Random(34)
    async with exchange(tmp_path) as x:
        keys = await registered(x, -(-CLIENTS // SESSIONS_OF_A_KEY))
        async with await x.client(x.operator) as operator:
            trader = await x.trader(operator, "trader")
    limits = {"sessions_max": CLIENTS + 8, "unsigned_max": max(64, CLIENTS // 10)}
    async with exchange(tmp_path, restart=True, **limits) as x:
        is_over, connected = asyncio.Event(), []
        async with await x.client(trader) as client:
            flow = asyncio.create_task(trades(client, is_over))
            storm = (comes_back(x.url, keys[number % len(keys)], draw) for number in range(CLIENTS))
            try:
                connected = await asyncio.wait_for(asyncio.gather(*storm), HANG_S)
                assert len(connected) == CLIENTS
                assert x.server.status()["sessions"] == CLIENTS + 1, "all of them, and the trader"
            finally:
                is_over.set()
                for one in connected:
                    one.abort()
            assert await asyncio.wait_for(flow, HANG_S) > 0
