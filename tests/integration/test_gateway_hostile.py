"""What one client can do to the others: nothing. Hostile frames, upgrades, questions and payouts over real sockets."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from byline.client import CommandError, TradingClient, TradingError, generate_key, public_key
from tests.support.gateway import MARKET, Exchange, exchange
from tests.support.waiting import HANG_S
from tests.unit.gateway.test_sequencer import FailingDisk

FRAMES = 3_000
SURROGATES = [
    rb'{"op":"place","\ud800":1}', rb'{"op":"open_orders","account":"\ud800"}', rb'{"op":"\udfff"}',
    rb'{"op":"transfer","ref":"r","legs":[{"from":"alice","\ud83d":"x"}]}', rb'[{"op":"ping"},{"a":["\uDC00"]}]',
    rb'{"op":"register_key","key":"' + b"0" * 64 + rb'","accounts":["\ud800"],"scopes":["read"]}',
    rb'{"op":"register_key","key":"' + b"0" * 64 + rb'","scopes":["operator"],"label":"\ud800"}',
]  # fmt: skip


async def code_of(client: TradingClient, frame: bytes) -> str:
    """The code of the error that answers a frame without a request id."""
    await client._socket.send(frame.decode())
    return str((await asyncio.wait_for(anext(client.events()), HANG_S))["code"])


async def refused(client: TradingClient, op: str, **fields: Any) -> tuple[str, str | None]:
    with pytest.raises(CommandError) as error:
        await client.command(op, **fields)
    return error.value.code, error.value.field


async def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        before = x.core.sequence
        for frame in SURROGATES:
            assert await code_of(operator, frame) == "bad_json", frame
        assert (await operator.status())["sequence"] == before and x.server.fault is None


def mutated(rng: random.Random, number: int) -> bytes:
    """A command that is nearly one: fields of other types, bytes changed, text cut, pieces doubled."""
    value: dict[str, Any] = rng.choice(
        [
            {"op": "place", "market": MARKET, "client_id": f"m{number}", "side": "buy", "type": "limit", "size": "1",
             "price": "0.01", "rid": number},
            {"op": "cancel", "client_id": "x"}, {"op": "replace", "client_id": "x", "order_id": 1, "size": "2"},
            {"op": "mass_cancel", "market": MARKET, "side": "buy", "session": "s"},
            {"op": "transfer", "ref": f"t{number}",
             "legs": [{"from": "eve", "to": "bob", "asset": "USD", "amount": "1"}]},
            {"op": "transfer", "ref": f"s{number}", "from": "eve", "asset": "USD", "amount": "1",
             "shares": [{"to": "bob", "weight": 1}]},
            {"op": "withdraw", "asset": "USD", "amount": "1", "ref": f"w{number}", "address": "0x1", "legs": []},
            {"op": "open_orders", "account": "eve"}, {"op": "balances", "account": "eve", "rid": "q"},
            {"op": "cancel_after", "at": 1}, {"op": "poison", "client_id": "p"}, {"op": "sign_in", "key": "0" * 64},
            {"op": "register_key", "key": "0" * 64, "accounts": ["eve"], "scopes": ["trade"], "label": "x"},
            {"op": "status"}, {"op": "ping"},
        ]
    )  # fmt: skip
    odd: list[Any] = [None, True, -1, 2**63, 10**400, "", "\x00", "é" * 40, "\ud800", [], [[]], {}, {"to": 1}, ["eve"]]
    for _ in range(rng.randrange(3)):
        value[rng.choice([*value, "zz", "\udfff", "ts", "force", "memo"])] = rng.choice(odd)
    text = bytearray(json.dumps(value if rng.random() < 0.8 else [value, rng.choice(odd), value]).encode())
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        at = rng.randrange(len(text))
        change = rng.randrange(4)
        if change == 0:
            text[at] = rng.randrange(0x20, 0x7F)
        elif change == 1:
            del text[at : at + rng.randrange(1, 8)]
        elif change == 2:
            text[at:at] = rng.choice([rb"\ud800", rb"\u0000", b'"', b"{", b"[", b"1e9", b"null", b","])
        else:
            text[at:at] = text[: rng.randrange(20)]
        text = text or bytearray(b" ")
    return bytes(text)


async def test_f45_thousands_of_broken_frames_leave_the_exchange_and_the_neighbours_alone(tmp_path: Path) -> None:
    rng = random.Random(20_261)
    async with exchange(tmp_path, asks_per_session_max=10_000) as x, await x.client(x.operator) as operator:
        scopes = ("trade", "read", "transfer", "withdraw")
        eve, bob = await x.trader(operator, "eve", scopes), await x.trader(operator, "bob")
        async with await x.client(bob) as b, await x.client(eve) as e:
            for number in range(FRAMES):
                await e._socket.send(mutated(rng, number).decode())
                if number % 100 == 99:
                    await asyncio.wait_for(e.ping(), HANG_S)
                    while e._events.is_waiting:
                        assert (await anext(e.events())).get("code") != "internal"
                    ack = await asyncio.wait_for(
                        b.place(MARKET, f"n{number}", "buy", "limit", size="1", price="0.5"), HANG_S
                    )
                    assert ack["event"] == "accepted" and x.server.fault is None
            assert x.server.counters.commands_fast > FRAMES // 100 and x.server.counters.bad_frames == 0


async def test_a_fault_of_ours_in_one_frame_ends_that_session_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        caplog.set_level("CRITICAL")
        async with await x.client(bob) as b:
            answering = "gateway.answers.Answers._balances"
            for target, op in (("gateway.session.authorize", "kill"), (answering, "balances")):
                async with await x.client(alice) as a:
                    before = x.core.sequence
                    with monkeypatch.context() as patch:
                        patch.setattr(target, lambda *_: 1 // 0)
                        with pytest.raises(TradingError):
                            await asyncio.wait_for(a.request({"op": op}), HANG_S)
                    await asyncio.wait_for(a._reader, HANG_S)
                    assert a._socket.close_code == 1011 and x.core.sequence == before
                assert x.server.fault is None and (await b.balances())["USD"]["available"] == "1000000"


MALFORMED_UPGRADES = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: tea\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
]


async def test_upgrades_that_fail_take_no_place(tmp_path: Path) -> None:
    async with exchange(tmp_path, listed=False, sessions_max=2, handshake_timeout_s=1) as x:
        host, port = x.url[5:].split(":")
        for number in range(12):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(MALFORMED_UPGRADES[number % len(MALFORMED_UPGRADES)])
            assert b" 101 " not in await asyncio.wait_for(reader.read(), HANG_S)
            writer.close()
        async with await x.client(x.operator) as first, await x.client(x.operator) as second:
            await asyncio.gather(first.ping(), second.ping())
            assert x.server.status()["sessions"] == 2
            with pytest.raises(websockets.InvalidStatus, match="503"):
                await connect(x.url)
        async with connect(x.url) as again:
            assert json.loads(await again.recv())["type"] == "hello"


async def test_balances_are_of_their_sequence_and_questions_are_bounded(tmp_path: Path) -> None:
    async with exchange(tmp_path, asks_per_session_max=4) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a, await x.client(key) as other:
            sell = {"op": "place", "market": MARKET, "side": "sell", "type": "limit", "size": "1", "price": "9"}
            asks = [{"op": "balances", "rid": 100 + n} for n in range(6)]
            frame = [sell | {"client_id": "s1", "rid": 99}, *asks, sell | {"client_id": "s2", "rid": 106}]
            a._open |= {rid: asyncio.get_running_loop().create_future() for rid in range(99, 107)}
            await a._socket.send(json.dumps(frame))
            by_rid = {rid: await asyncio.wait_for(answer, HANG_S) for rid, answer in a._open.items()}
            assert [by_rid[100 + n].get("code") for n in range(6)] == [None] * 4 + ["busy"] * 2
            held = next(row["held"] for row in by_rid[100]["balances"] if row["asset"] == "CRT")
            assert (held, by_rid[100]["sequence"]) == ("1", by_rid[99]["sequence"])  # nothing of s2 yet
            assert (await other.balances())["CRT"]["held"] == (await a.balances())["CRT"]["held"] == "2"


async def test_questions_end_when_the_journal_has_failed(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    async with exchange(tmp_path, disk=disk) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            disk.broken = True
            order = asyncio.create_task(a.place(MARKET, "lost", "buy", "limit", size="1", price="1"))
            await asyncio.sleep(0)  # the order stands before the questions, and is never acked
            for op in ("balances", "open_orders", "balances"):
                assert await asyncio.wait_for(refused(a, op), HANG_S) == ("journal_failed", None)
            assert (await asyncio.wait_for(refused(a, "kill"), HANG_S))[0] == "journal_failed" and not order.done()
            order.cancel()


async def housed(x: Exchange, operator: TradingClient) -> TradingClient:
    """A client with all rights of money over `alice` (with a row), `poor` (without one) and `house` (which may owe)."""
    await operator.command("account", account="house", overdraft="open")
    await operator.command("account", account="alice", row="0x" + "ab" * 32)
    for name in ("poor", "bob"):
        await operator.command("account", account=name)
    for name in ("alice", "poor"):
        await operator.command("deposit", account=name, asset="USD", amount="10", ref=f"d-{name}")
    key = generate_key()
    accounts = ["alice", "poor", "house"]
    await operator.register_key(public_key(key), accounts, ["trade", "transfer", "withdraw", "read"], "desk")
    return await x.client(key)


async def test_house_accounts_are_the_operators_alone(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator, await housed(x, operator) as client:
        before = x.core.sequence
        leg = {"from": "alice", "to": "bob", "asset": "USD", "amount": "1"}
        assert await refused(client, "transfer", ref="t", legs=[leg | {"to": "house"}]) == ("forbidden", "legs.to")
        assert await refused(client, "transfer", ref="t", legs=[leg, leg | {"from": "house"}]) == (
            "forbidden", "legs.from",
        )  # fmt: skip
        assert await refused(client, "withdraw", ref="t", account="house", asset="USD", amount="1") == (
            "forbidden", "account",
        )  # fmt: skip
        assert x.core.sequence == before
        assert (await client.transfer("t", [leg]))["event"] == "transferred"
        assert (await operator.transfer("o", [leg | {"from": "house"}]))["event"] == "transferred"


async def test_a_withdrawal_that_would_be_paid_to_nobody_is_never_journaled(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator, await housed(x, operator) as client:
        before = x.core.sequence
        pay = {"asset": "USD", "amount": "1"}
        for who in (client, operator):
            assert await refused(who, "withdraw", ref="w", account="poor", **pay) == ("bad_address", "address")
            for address in ("0x" + "cd" * 32, "0x1", "nowhere", "ab" * 32):
                answer = await refused(who, "withdraw", ref="w", account="alice", address=address, **pay)
                assert answer == ("bad_address", "address")
        assert x.core.sequence == before
        assert (await client.withdraw("USD", "1", "w1", account="alice"))["event"] == "pended"
        assert (await client.withdraw("USD", "1", "w2", account="alice", address="0x" + "AB" * 32))["event"] == "pended"
