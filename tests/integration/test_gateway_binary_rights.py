"""What narrows a key narrows its records as it narrows its words, and what records an enemy makes harm nobody."""

from __future__ import annotations

import asyncio
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from byline.client import TradingClient
from engine.messages.codes import ABSENT, NIL, CommandKind, OrderType
from engine.messages.edge import EdgeCode, MessageType
from gateway.settings import Tier
from tests.support.binary import BinaryClient, cancel, messages, place, record, replace
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import HANG_S

OTHER = "CRT-EUR"
BUY, SELL = 0, 1
FRAMES = 400


async def second_market(operator: TradingClient) -> None:
    await operator.command("asset", asset="EUR", scale=6)
    await operator.command("market", market=OTHER, base="CRT", quote="EUR", tick="0.01", lot="0.1")


async def answer(client: BinaryClient, *records: bytes) -> list[Any]:
    """For each record in its order: the code of its refusal, or None for an ack. They carry their places as rid."""
    numbered = [bytes(one[:8]) + number.to_bytes(8, "little") + bytes(one[16:]) for number, one in enumerate(records)]
    await client.send(*numbered)
    found: dict[int, Any] = {}
    while len(found) < len(records):
        told = await asyncio.wait_for(client.next(), HANG_S)
        if told["type"] != MessageType.TOLD:
            found[told["rid"]] = None if told["type"] == MessageType.ACK else told["code"]
    return [found[number] for number in range(len(records))]


async def test_records_of_a_key_stay_in_its_markets_and_its_collar(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        await second_market(operator)
        key = await x.trader(operator, "alice", markets=[MARKET], collar_ppm=100_000)
        other = await x.trader(operator, "bob")
        async with await BinaryClient.connect(x.url, key) as a, await x.client(other) as b:
            me = a.account
            assert await answer(a, place(me, "e", BUY, 100, 10, market=1), place(me, "far", BUY, 500, 10)) == [
                EdgeCode.FORBIDDEN, None,
            ]  # no reference yet: no collar
            assert await answer(a, cancel(me, "far")) == [None]
            await b.place(MARKET, "b1", "sell", "limit", size="1", price="1")
            assert await answer(a, place(me, "a1", BUY, 100, 10)) == [None]  # a trade at 1.00
            before = x.core.sequence
            refused = [place(me, "a2", BUY, price, 10) for price in (111, 89)]
            refused.append(place(me, "m", BUY, ABSENT, 10, type=OrderType.MARKET))
            assert await answer(a, *refused) == [EdgeCode.COLLAR] * 3 and x.core.sequence == before
            assert await answer(a, place(me, "h", BUY, 110, 10), place(me, "l", BUY, 90, 10)) == [None, None]
            assert await answer(a, replace(me, "l", price=89), replace(me, "l", price=91)) == [EdgeCode.COLLAR, None]


async def test_records_of_a_protected_key_stop_with_it(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", protection={"window_ms": 600_000, "fills": 1})
        other = await x.trader(operator, "bob")
        async with await BinaryClient.connect(x.url, key) as a, await x.client(other) as b:
            me = a.account
            assert await answer(a, place(me, "own", SELL, 100, 10, session=77)) == [EdgeCode.FORBIDDEN]
            assert await answer(a, *(place(me, f"s{n}", SELL, 100 + n, 10) for n in range(5))) == [None] * 5
            await b.place(MARKET, "b", "buy", "limit", size="2", price="1.01")
            while await b.open_orders("bob") or (await operator.open_orders("alice")):
                await asyncio.sleep(0.02)
            late = place(me, "late", BUY, 50, 10)
            await a.send(late)
            told: Any = {}
            while told.get("type") != MessageType.REFUSAL:
                frame = await asyncio.wait_for(a.socket.recv(), HANG_S)
                if isinstance(frame, bytes):
                    told = messages(frame)[-1]
            assert told["code"] == EdgeCode.PROTECTION


async def test_records_have_the_limits_of_their_tier(tmp_path: Path) -> None:
    tiers = (Tier("plain", 5, 20, 3_600.0), Tier("unlimited", 0, 0, 1.0))
    async with exchange(tmp_path, tiers=tiers, poisons_per_minute=2) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", tier="plain")
        async with await BinaryClient.connect(x.url, key) as a:
            me, limited = a.account, EdgeCode.RATE_LIMITED
            assert await answer(a, *(place(me, f"o{n}", BUY, 1, 1) for n in range(4))) == [None] * 4
            poisons = [record(CommandKind.POISON, struct.pack("<II32s", me, 0, b"p%d" % n)) for n in range(4)]
            assert await answer(a, *poisons) == [None, None, None, limited]  # two, and the last request
            assert await answer(a, place(me, "more", BUY, 1, 1), replace(me, "o0", price=2)) == [limited] * 2
            assert await answer(a, *(cancel(me, f"none{n}") for n in range(20))) == [None] * 20
            before = x.core.sequence
            sweep = record(CommandKind.MASS_CANCEL, struct.pack("<IIQBB", me, NIL, 0, 255, 1))
            assert await answer(a, cancel(me, "none"), cancel(me, 2**64 - 1), sweep) == [limited] * 3
            assert x.core.sequence == before
            number = int((await operator.resolve("o0", "alice"))["order_id"])
            assert await answer(a, cancel(me, number), cancel(me, "o1")) == [None, None]
            assert await answer(a, sweep) == [None] and await operator.open_orders("alice") == []


async def test_a_key_that_only_cancels_poisons_nothing(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", scopes=("cancel_only",))
        async with await BinaryClient.connect(x.url, key) as a:
            poison = record(CommandKind.POISON, struct.pack("<II32s", a.account, 0, b"p"))
            assert await answer(a, poison, cancel(a.account, "p")) == [EdgeCode.FORBIDDEN, None]


def mutated(rng: random.Random, account: int, number: int) -> bytes:
    """A record that is nearly one: bytes of every field at their edges, slots that it does not have, pieces missing."""
    edges = (0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
    made = bytearray(
        rng.choice(
            [
                place(account, f"m{number}", rng.randrange(2), rng.randrange(1, 200), rng.randrange(1, 50)),
                place(account, f"m{number}", 0, 100, 5, oco="x"),
                cancel(account, rng.choice([f"m{number - 1}", rng.choice(edges)])),
                replace(account, rng.choice([f"m{number - 1}", rng.choice(edges)]), price=rng.randrange(1, 200)),
                record(CommandKind.MASS_CANCEL, struct.pack("<IIQBB", account, NIL, rng.choice(edges), 255, 1)),
                record(CommandKind.POISON, struct.pack("<II32s", account, 0, b"p%d" % number)),
                record(rng.randrange(256), struct.pack("<I", account), flags=rng.randrange(4)),
            ]
        )
    )
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randrange(0, len(made) - 8)
        if rng.random() < 0.5:
            made[at] = rng.randrange(256)
        else:
            made[at : at + 8] = rng.choice(edges).to_bytes(8, "little")
    if rng.random() < 0.05:
        del made[rng.randrange(len(made)) :]
    return bytes(made)


@pytest.mark.parametrize("narrowed", [True, False])
async def test_hundreds_of_broken_frames_of_records_leave_the_neighbours_alone(tmp_path: Path, narrowed: bool) -> None:
    rng = random.Random(20_262 + narrowed)
    terms: dict[str, Any] = {
        "markets": [MARKET], "collar_ppm": 200_000, "protection": {"window_ms": 1, "fills": 10**6},
    }  # fmt: skip
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        eve = await x.trader(operator, "eve", **(terms if narrowed else {}))
        bob = await x.trader(operator, "bob")
        async with await BinaryClient.connect(x.url, eve) as e, await x.client(bob) as b:
            await b.place(MARKET, "s", "sell", "limit", size="100", price="1")
            await b.place(MARKET, "t", "buy", "limit", size="1", price="1", stp="decrement")
            for number in range(FRAMES):
                await e.send(*(mutated(rng, e.account, 8 * number + n) for n in range(rng.randrange(1, 9))))
                if number % 50 == 49:
                    last = cancel(e.account, "the last", rid=2**64 - 1 - number)
                    await e.send(last)
                    while (await asyncio.wait_for(e.next(), HANG_S)).get("rid") != 2**64 - 1 - number:
                        pass
                    ack = await asyncio.wait_for(
                        b.place(MARKET, f"n{number}", "buy", "limit", size="1", price="0.5"), HANG_S
                    )
                    assert ack["event"] == "accepted" and x.server.fault is None
            assert x.server.counters.commands_binary > FRAMES
