"""Order entry against real sockets, journal, event log and engine; the client is the `websockets` library."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

from byline.client import CommandError, Rejected, SignInFailed, generate_key, public_key
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import HANG_S

LIMIT = {"op": "place", "market": MARKET, "client_id": "x", "side": "buy", "type": "limit", "size": "1", "price": "1"}


@pytest.mark.parametrize("mode", ["durable", "memory"])
async def test_orders_trade_and_the_journal_replays_to_the_same_hash(tmp_path: Path, mode: str) -> None:
    async with exchange(tmp_path, ack_mode=mode) as x:
        async with await x.client(x.operator) as operator:
            alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
            async with await x.client(alice) as a, await x.client(bob) as b, await x.client(bob) as b2:
                first = await a.place(MARKET, "a1", "sell", "limit", size="10", price="1.25")
                second = await b.place(MARKET, "b1", "buy", "limit", size="4.5", price="1.30")
                assert first["event"] == second["event"] == "accepted" and second["sequence"] == first["sequence"] + 1
                assert len(first["chain"]) == 16 and first["t_in"] <= first["t_out"]
                maker, taker = await anext(a.events()), await anext(b.events())
                assert (maker["maker_client_id"], maker["maker_leaves"]) == (
                    "a1",
                    "5.5",
                ) and "taker_account" not in maker
                assert (taker["taker_client_id"], taker["price"]) == ("b1", "1.25") and "maker_account" not in taker
                other = [await anext(b2.events()), await anext(b2.events())]
                assert [event["event"] for event in other] == ["accepted", "trade"]
                assert (await a.replace(client_id="a1", size="9"))["leaves"] == "4.5"
                assert [order["leaves"] for order in await a.open_orders()] == ["4.5"]
                assert (await a.balances())["CRT"] == {"available": "999991", "held": "4.5"}
                assert (await a.cancel(client_id="a1"))["event"] == "canceled"
                with pytest.raises(Rejected, match="unknown_order"):
                    await a.cancel(client_id="a1")
                assert (await b.place(MARKET, "b1", "buy", "limit", size="4.5", price="1.3"))["event"] == "duplicate"
            status = await operator.status()
        x.journal.wait_durable(x.core.sequence)
        core, _ = replay(DirectoryDisk(tmp_path))
        assert (core.sequence, core.state_hash().hex()) == (status["sequence"], status["state_hash"])


BAD_FRAMES: list[tuple[Any, str]] = [
    ("{", "bad_json"), ('{"op":"fly"}', "unknown_op"), ('{"op":"place","size":NaN}', "bad_json"),
    *((json.dumps(LIMIT | {"price": text}), "bad_price") for text in ("0", "1.001", "9" * 20, "-1", "NaN")),
    *((json.dumps(LIMIT | {"size": size}), "bad_size") for size in ("0", "0.05", "99999999999999999999.5")),
    (json.dumps(LIMIT | {"price": 1}), "malformed"), (json.dumps(LIMIT | {"side": "bid"}), "malformed"),
    (json.dumps(LIMIT | {"color": 1}), "malformed"), (json.dumps(LIMIT | {"market": "NO-SUCH"}), "unknown_market"),
    (json.dumps(LIMIT | {"account": "bob"}), "forbidden"), (json.dumps({"op": "deposit", "ref": "r"}), "forbidden"),
    (json.dumps({"op": "status"}), "forbidden"), (json.dumps(LIMIT | {"ts": 1}), "malformed"),
]  # fmt: skip


async def test_f48_bad_input_is_named_journals_nothing_and_leaves_neighbours_alone(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(alice) as a, await x.client(bob) as b:
            before = x.core.sequence
            for number, (text, code) in enumerate(BAD_FRAMES):
                await a._socket.send(text)
                answer = await anext(a.events())
                assert (answer["type"], answer["code"]) == ("error", code), text
                assert x.core.sequence == before + number
                assert (await b.place(MARKET, f"n{number}", "buy", "limit", size="1", price="0.5"))[
                    "event"
                ] == "accepted"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(Opcode.BINARY, b"{}"), 1003),
        (Frame(Opcode.TEXT, b"\xff\xfe"), 1007),
        (Frame(Opcode.TEXT, b" " * 70_000), 1009),
        (Frame(Opcode.CONT, b"{}"), 1002),
        (Frame(Opcode.CONT, b"{}", fin=False), 1002),
        (b"\xc1" + Frame(Opcode.TEXT, b"{}").serialize(mask=True)[1:], 1002),
    ],
    ids=["binary", "no UTF-8", "too long", "end alone", "no end", "reserved bit"],
)
async def test_protocol_faults_close_that_session_alone(tmp_path: Path, frame: Frame | bytes, code: int) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        before = x.core.sequence
        async with connect(x.url, compression=None) as bad:
            await bad.recv()
            bad.transport.write(frame if isinstance(frame, bytes) else frame.serialize(mask=True))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(bad.recv(), HANG_S)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == code
        await operator.ping()
        assert x.core.sequence == before


async def test_f67_sign_in_errors_are_named_and_a_nonce_serves_once(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x:
        with pytest.raises(SignInFailed, match="bad_signature"):
            await x.client(generate_key())
        async with await x.client(x.operator) as operator:
            key = await x.trader(operator, "alice")
            async with await x.client(key) as alice:
                with pytest.raises(CommandError, match="already_signed_in"):
                    await alice.request({"op": "sign_in"})
                await operator.request({"op": "revoke_key", "key": public_key(key)})
                await asyncio.wait_for(alice._reader, HANG_S)
            with pytest.raises(SignInFailed, match="bad_signature"):
                await x.client(key)
            with pytest.raises(CommandError, match="unknown_account"):
                await operator.register_key(public_key(key), ["nobody"], ["trade"])


async def test_sessions_are_bounded_and_must_sign_in_in_time(tmp_path: Path) -> None:
    async with exchange(tmp_path, listed=False, sessions_max=1, sign_in_timeout_s=0.3) as x, connect(x.url) as idle:
        async with await x.client(x.operator):
            with pytest.raises(websockets.InvalidStatus, match="503"):
                await connect(x.url)
        assert json.loads(await idle.recv())["type"] == "hello"
        assert json.loads(await asyncio.wait_for(idle.recv(), HANG_S))["code"] == "sign_in_timeout"
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(idle.recv(), HANG_S)


async def test_a_handshake_that_never_ends_is_cut_and_http_gets_404(tmp_path: Path) -> None:
    async with exchange(tmp_path, listed=False, handshake_timeout_s=0.3) as x:
        host, port = x.url[5:].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await asyncio.wait_for(reader.read(), HANG_S) == b""
        writer.close()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 404 " in await asyncio.wait_for(reader.read(), HANG_S)
        writer.close()


async def test_f40_a_slow_reader_is_closed_and_the_others_go_on(tmp_path: Path) -> None:
    async with (
        exchange(tmp_path, write_low_bytes=20_000, write_high_bytes=60_000) as x,
        await x.client(x.operator) as operator,
    ):
        key = await x.trader(operator, "alice")
        async with await x.client(key) as quick:
            slow = await x.client(key)
            slow._socket.transport.pause_reading()
            slow._socket.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for number in range(0, 60_000, 500):
                command = [LIMIT | {"client_id": f"s{n}", "price": "0.01"} for n in range(number, number + 500)]
                await quick._socket.send(json.dumps(command))
                await quick.ping()
                if x.server.counters.closed_slow:
                    break
            assert x.server.counters.closed_slow == 1
            assert (await quick.place(MARKET, "after", "buy", "limit", size="1", price="0.5"))["event"] == "accepted"
            slow._socket.transport.abort()
            await slow.close()


async def test_cuts_are_written_by_the_timer(tmp_path: Path) -> None:
    async with exchange(tmp_path, batch_interval_s=0.05) as x:
        while x.core.batch < 3:
            await asyncio.sleep(0.02)
    core, _ = replay(DirectoryDisk(tmp_path))
    assert core.batch >= 3 and core.state_hash() == x.core.state_hash()
