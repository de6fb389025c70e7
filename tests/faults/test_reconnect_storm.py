"""A storm of clients that all come back at once after a restart (F34).

Who does not get in (`unsigned_max` of them may be signing in at a time) comes again, as clients do, until all are in.
Who is in trades on: each command is answered, in as many turns of the server's loop as it takes without a storm, and
with no more than a few handshakes taken meanwhile. Counts, and no times: what they come to is `python -m bench storm`.
The loop is that of the exchange's processes, uvloop; acks are in mode `memory`, so that the count of turns is the
loop's and not that of the disk, which another thread writes.

Here two hundred and fifty clients; the five thousand of the scenario with `TEST_STORM=5000`, which is too much
processor time for every run of the suite.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from byline.client import generate_key, public_key
from tests.support.gateway import MARKET, Exchange, exchange
from tests.support.raw import RawClient
from tests.support.waiting import HANG_S

CLIENTS = int(os.environ.get("TEST_STORM", "250"))
SESSIONS_OF_A_KEY = 100
QUIET_COMMANDS = 100
TURNS_TO_SPARE = 2
"""A busy kernel may deliver a little later."""
HANDSHAKE_TURNS = 6
"""What is taken in so many turns may pass between a command and its answer: two turns, and some to spare."""
BROKEN = (OSError, asyncio.IncompleteReadError)
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


class Turns:
    """Counts the turns of the loop, which never sleeps meanwhile."""

    def __init__(self) -> None:
        self.count = 0
        self.is_over = False

    def begin(self) -> None:
        self.count += 1
        if not self.is_over:
            asyncio.get_running_loop().call_soon(self.begin)


@dataclass(frozen=True, slots=True)
class Served:
    """What passed between a command and its answer."""

    turns: int
    handshakes: int


async def trades(
    x: Exchange, client: RawClient, turns: Turns, names: str, is_over: asyncio.Event, least: int = 0
) -> list[Served]:
    """Places and cancels until it is over; each command must be answered with what it asked for."""
    served: list[Served] = []
    order = {"op": "place", "market": MARKET, "side": "buy", "type": "limit", "size": "0.1", "price": "1"}
    while len(served) < least or not is_over.is_set():
        number = len(served) // 2
        for command, event in ((order, "accepted"), ({"op": "cancel"}, "canceled")):
            before = turns.count, x.server.counters.sessions_opened
            client.say(command | {"client_id": f"{names}-{number}"})
            told = await client.hear()
            assert told["event"] == event, told
            served.append(Served(turns.count - before[0], x.server.counters.sessions_opened - before[1]))
    return served


async def registered(x: Exchange, count: int) -> list[Any]:
    keys = [generate_key() for _ in range(count)]
    async with await x.client(x.operator) as operator:
        for number, key in enumerate(keys):
            await operator.command("account", account=f"storm-{number}")
            await operator.register_key(public_key(key), [f"storm-{number}"], ["read"], f"storm-{number}")
    return keys


async def storm(root: Path) -> None:
    draw = random.Random(34)
    async with exchange(root) as x:
        keys = await registered(x, -(-CLIENTS // SESSIONS_OF_A_KEY))
        async with await x.client(x.operator) as operator:
            trader = await x.trader(operator, "trader")
    limits = {"sessions_max": CLIENTS + 8, "unsigned_max": max(64, CLIENTS // 10), "ping_interval_s": 3_600.0}
    async with exchange(root, restart=True, ack_mode="memory", **limits) as x:
        turns, is_quiet, is_over, connected = Turns(), asyncio.Event(), asyncio.Event(), []
        client = await RawClient.connect(x.url)
        assert (await client.sign_in(trader))["type"] == "signed_in"
        turns.begin()
        is_quiet.set()
        quiet = await trades(x, client, turns, "quiet", is_quiet, QUIET_COMMANDS)
        flow = asyncio.create_task(trades(x, client, turns, "storm", is_over))
        coming = (comes_back(x.url, keys[number % len(keys)], draw) for number in range(CLIENTS))
        try:
            connected = await asyncio.wait_for(asyncio.gather(*coming), HANG_S)
            assert x.server.status()["sessions"] == CLIENTS + 1, "all of them, and the trader"
        finally:
            is_over.set()
            turns.is_over = True
            for one in connected:
                one.abort()
        served = await asyncio.wait_for(flow, HANG_S)
        client.abort()
    assert max(one.turns for one in served) <= max(one.turns for one in quiet) + TURNS_TO_SPARE, "it waits its turn"
    most = HANDSHAKE_TURNS * (x.server.settings.accepts_per_turn + 1)
    assert most < CLIENTS and max(one.handshakes for one in served) <= most, "it waits for others to come in"
    assert sum(one.handshakes for one in served) >= CLIENTS // 2, "it was there while they came"


def test_f34_all_clients_at_once_after_a_restart_get_in_and_who_is_in_is_served_all_the_while(tmp_path: Path) -> None:
    uvloop.run(storm(tmp_path))
