"""What protects a trader who is gone or overrun: cancel on disconnect, the timer, drop copy, protection, notices."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from byline.client import CommandError, TradingClient, public_key
from engine.messages.codes import OrderType, Side, TimeInForce
from engine.messages.encode import place_record
from gateway.pulls import connection_stamp
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import HANG_S, answers


def limit(name: str, **fields: Any) -> dict[str, Any]:
    return {"market": MARKET, "client_id": name, "side": "buy", "type": "limit", "size": "1", "price": "1"} | fields


async def names_of(operator: TradingClient, account: str) -> set[str]:
    return {order["client_id"] for order in await operator.open_orders(account)}


async def becomes(operator: TradingClient, account: str, names: set[str]) -> None:
    await answers(lambda: names_of(operator, account), lambda found: found == names)


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_orders_end_with_their_connection_unless_they_say_otherwise(tmp_path: Path, end: str) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        watch, first, second = await x.client(key), await x.client(key), await x.client(key)
        keeper = await x.client(key, cancel_on_disconnect=False)
        await first.place(**limit("fast"))
        await first.place(**limit("stop", type="stop_limit", stop_price="2", side="buy"))
        await first.command("place", **limit("kept"), cancel_on_disconnect=False)
        await first.place(**limit("named"), session="desk")
        await second.place(**limit("second"))
        await keeper.place(**limit("keeper"))
        with pytest.raises(CommandError) as error:
            await first.command("place", **limit("both"), session="desk", cancel_on_disconnect=False)
        assert error.value.field == "cancel_on_disconnect"
        if end == "abort":
            first._socket.transport.abort()
        await first.close()
        await becomes(operator, "alice", {"kept", "named", "second", "keeper"})
        gone = [await anext(watch.events()) for _ in range(9)]  # six accepted, the command, two cancels
        reasons = {e["client_id"]: e["reason"] for e in gone if e["event"] == "canceled"}
        assert reasons == {"fast": "session", "stop": "session"}
        await keeper.close()
        await second.close()
        await becomes(operator, "alice", {"kept", "named", "keeper"})
        await watch.close()
        assert (await operator.status())["sequence"] == x.core.sequence
    core, _ = replay(DirectoryDisk(tmp_path))
    assert core.state_hash() == x.core.state_hash(), "the cancels stand in the journal"


async def test_what_a_killed_exchange_did_not_cancel_is_cancelled_at_the_next_start(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        a = await x.client(key)
        await a.place(**limit("ends"))
        await a.command("place", **limit("stays"), cancel_on_disconnect=False)
        x.server._pulls.add = lambda *_: None  # as if it were killed before it could
        x.server._let_go = lambda _: None
        a._socket.transport.abort()
        await a.close()
        assert await names_of(operator, "alice") == {"ends", "stays"}
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(x.operator) as operator:
        await becomes(operator, "alice", {"stays"})


async def test_whoever_comes_first_after_a_kill_finds_no_order_of_a_lost_session(tmp_path: Path) -> None:
    """Of more sessions than one look cancels; the poll never comes, so the start itself must have done it."""
    count = 600
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        account, market = x.core.account_index("alice"), x.core.market_index(MARKET)
        for number in range(1, count + 1):  # placed over sessions of this epoch, which end with the exchange unsaid
            record = place_record(
                account, market, f"lost{number}".encode(), Side.BUY, OrderType.LIMIT, TimeInForce.GTC, 200, 1,
                session=connection_stamp(1, number + 10_000),
            )  # fmt: skip
            assert x.sequencer.submit_record(bytes(record)) == "taken"
        async with await x.client(alice, cancel_on_disconnect=False) as a:
            await a.place(**limit("stays", price="0.5"))
        before = x.core.sequence
        assert len(await operator.open_orders("alice")) == count + 1
    async with exchange(tmp_path, listed=False, restart=True, tick_poll_s=3600.0) as x, await x.client(bob) as b:
        sale = await b.command("place", **limit("first", side="sell", tif="ioc", size="60", price="1"))
        assert sale["sequence"] > before + count
        done = await b.resolve("first")
        assert (done["status"], done["filled"]) == ("canceled", "0"), "he traded with an order that was to go"
        async with await x.client(alice) as a:
            for number in (1, count):
                assert (await a.resolve(f"lost{number}"))["status"] == "canceled"
            assert await names_of(a, "alice") == {"stays"}
        assert not x.sequencer.cancel_only
    core, _ = replay(DirectoryDisk(tmp_path))
    assert core.state_hash() == x.core.state_hash(), "the cancels stand in the journal"


async def test_a_start_that_cannot_cancel_takes_no_orders(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            work, stuck = x.server._pulls.work, True
            x.server._pulls.work = lambda: False if stuck else work()  # as where the event log gets no next file
            x.server._pulls.add([x.core.account_index("alice")], [1])
            await x.server._clear()
            with pytest.raises(CommandError) as error:
                await a.place(**limit("early"))
            assert error.value.code == "cancel_only"
            await a.mass_cancel()
            stuck = False
            while x.sequencer.cancel_only:
                await asyncio.sleep(0.01)
            await a.place(**limit("late"))


async def test_the_dead_man_timer_cancels_in_journal_time(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            await a.place(**limit("a"))
            await a.cancel_after(time.time_ns() + 3_600_000_000_000)
            await a.cancel_after(time.time_ns() + 200_000_000)
            event = await asyncio.wait_for(anext(a.events()), HANG_S)
            assert (event["event"], event["client_id"], event["reason"]) == ("canceled", "a", "session")


async def test_a_read_only_key_hears_all_of_its_accounts_and_may_touch_nothing(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        copy = await x.trader(operator, "carol", ("read",), money=False)
        await operator.request({"op": "revoke_key", "key": public_key(copy)})
        await operator.register_key(public_key(copy), ["alice", "bob"], ["read"], "drop copy")
        since = x.sequencer.released_sequence
        async with await x.client(alice) as a, await x.client(bob) as b:
            live = await x.client(copy)
            await a.place(**limit("a", side="sell"))
            await b.place(**limit("b"))
            heard = [await asyncio.wait_for(anext(live.events()), HANG_S) for _ in range(4)]
            assert [e["event"] for e in heard] == ["accepted", "accepted", "trade", "trade"]
            assert "taker_account" not in heard[2] and "maker_account" not in heard[3]
            tried = (("place", limit("x")), ("cancel", {"client_id": "a"}), ("mass_cancel", {}), ("kill", {}))
            for op, fields in tried:
                with pytest.raises(CommandError) as error:
                    await live.command(op, **fields)
                assert error.value.code == "forbidden"
            await live.close()
            again = await x.client(copy, resume=since)
            told = [await asyncio.wait_for(anext(again.events()), HANG_S) for _ in range(5)]
            assert told[:4] == heard and told[4]["type"] == "resumed"
            await again.close()


@pytest.mark.parametrize(
    ("bound", "reason", "before"),
    [({"fills": 2}, "fills", 2), ({"size": "2.5"}, "size", 2), ({"notional": "3"}, "notional", 3)],
)
async def test_protection_pulls_the_keys_orders_until_it_is_reset(
    tmp_path: Path, bound: dict[str, Any], reason: str, before: int
) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        maker = await x.trader(operator, "alice", protection={"window_ms": 600_000} | bound)
        taker = await x.trader(operator, "bob")
        async with await x.client(maker) as a, await x.client(maker) as also, await x.client(taker) as b:
            for number in range(4):
                await a.place(**limit(f"a{number}", side="sell"))
            await also.place(**limit("also", side="sell", price="3"))
            await also.command("place", **limit("kept", side="sell", price="4"), cancel_on_disconnect=False)
            for number in range(before):
                await b.place(**limit(f"b{number}"))
            assert len(await a.open_orders()) == 6 - before and (await a.whoami())["protection_tripped"] is False
            await b.place(**limit("b"))
            await becomes(operator, "alice", set())
            told = [event async for event in until(also, "protection")]
            assert told[-1]["reason"] == reason
            sequence = x.core.sequence
            with pytest.raises(CommandError, match="protection"):
                await a.place(**limit("no"))
            with pytest.raises(CommandError, match="protection"):
                await also.command("place", **limit("no"), cancel_on_disconnect=False)
            assert x.core.sequence == sequence and (await a.whoami())["protection_tripped"] is True
            assert await a.reset_protection() is True and await a.reset_protection() is False
            assert (await a.place(**limit("yes")))["event"] == "accepted"


async def test_orders_of_a_lost_connection_are_under_protection_and_none_is_outside_of_it(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        maker = await x.trader(operator, "alice", protection={"window_ms": 600_000, "fills": 1})
        taker = await x.trader(operator, "bob")
        async with await x.client(maker) as a:
            before = x.core.sequence
            with pytest.raises(CommandError, match="no session of their own"):
                await a.place(**limit("named", side="sell"), session="desk")
            assert x.core.sequence == before
        for number in range(4):
            lost = await x.client(maker, cancel_on_disconnect=False)
            orders = [{"op": "place"} | limit(f"m{number}.{n}", side="sell") for n in range(3)]
            await lost._socket.send(json.dumps(orders))
            lost._socket.transport.abort()
        await becomes(operator, "alice", {f"m{number}.{n}" for number in range(4) for n in range(3)})
        async with await x.client(taker) as b:
            await b.place(**limit("sweep", size="3", tif="ioc"))
        await becomes(operator, "alice", set())


async def test_a_tripped_protection_outlives_a_restart_until_it_is_reset(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        maker = await x.trader(operator, "alice", protection={"window_ms": 600_000, "fills": 1})
        taker = await x.trader(operator, "bob")
        async with await x.client(maker) as a, await x.client(taker) as b:
            for number in range(2):
                await a.place(**limit(f"a{number}", side="sell"))
                await b.place(**limit(f"b{number}"))
            assert [event async for event in until(a, "protection")][-1]["reason"] == "fills"
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(maker) as a:
        assert (await a.whoami())["protection_tripped"] is True
        with pytest.raises(CommandError, match="protection"):
            await a.place(**limit("no"))
        assert await a.reset_protection() is True
        assert (await a.place(**limit("yes")))["event"] == "accepted"
    async with exchange(tmp_path, listed=False, restart=True, epoch=3) as x, await x.client(maker) as a:
        assert (await a.whoami())["protection_tripped"] is False
        assert (await a.place(**limit("again")))["event"] == "accepted"


async def test_orders_of_a_tripped_key_that_a_crash_left_open_go_at_the_next_start(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        maker = await x.trader(operator, "alice", protection={"window_ms": 600_000, "fills": 1})
        async with await x.client(maker, cancel_on_disconnect=False) as a:
            await a.place(**limit("kept", side="sell"))
        x.keys.trip(public_key(maker), "fills", 1)  # and no more than that
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(x.operator) as operator:
        await becomes(operator, "alice", set())


async def until(client: TradingClient, kind: str) -> Any:
    async for event in client.events():
        yield event
        if event.get("type") == kind:
            return


async def test_protection_counts_a_sliding_window_and_orders_of_an_earlier_life(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        maker = await x.trader(operator, "alice", protection={"window_ms": 100, "fills": 1})
        taker = await x.trader(operator, "bob")
        async with await x.client(maker, cancel_on_disconnect=False) as a, await x.client(taker) as b:
            for number in range(6):
                await a.place(**limit(f"a{number}", side="sell"))
            for number in range(2):
                await b.place(**limit(f"b{number}"))
                await asyncio.sleep(0.15)
            assert (await a.whoami())["protection_tripped"] is False
    async with (
        exchange(tmp_path, listed=False, restart=True) as x,
        await x.client(x.operator) as operator,
        await x.client(taker) as b,
    ):
        assert len(await names_of(operator, "alice")) == 4
        await b._socket.send(json.dumps([{"op": "place"} | limit(f"c{number}") for number in range(2)]))
        await becomes(operator, "alice", set())


async def test_a_stop_is_announced_with_the_sequence_to_resume_from(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        a = await x.client(key)
        ack = await a.place(**limit("a"))
        stopping = asyncio.create_task(x.server.stop())
        told = [event async for event in a.events()]
        assert (told[-1]["type"], a._socket.close_code) == ("shutdown", 1001)
        token = told[-1]["sequence"]
        assert token == ack["sequence"]
        await stopping
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(key, resume=token) as a:
        done, event = [await asyncio.wait_for(anext(a.events()), HANG_S) for _ in range(2)]
        assert (done["event"], done["op"]) == ("done", "mass_cancel")
        assert (event["event"], event["client_id"], event["reason"]) == ("canceled", "a", "session")


async def test_a_client_that_comes_while_it_stops_is_sent_away(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x:
        host, port = x.url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with await x.client(x.operator):
            pass  # by now the server has taken the connection before it too
        stopping = asyncio.create_task(x.server.stop())
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        status = await reader.readline()
        assert b"503" in status
        assert b"stopping" in await reader.read()
        writer.close()
        await stopping


async def test_a_message_in_fragments_is_one_message(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            text = b'{"rid":"f","op":"place","market":"CRT-USD","client_id":"\xc3\xa4"}'
            for part, opcode, fin in ((text[:30], Opcode.TEXT, False), (b"", Opcode.PING, True),
                                      (text[30:60], Opcode.CONT, False), (text[60:], Opcode.CONT, True)):  # fmt: skip
                a._socket.transport.write(Frame(opcode, part, fin=fin).serialize(mask=True))
            assert (await anext(a.events()))["code"] == "malformed"
            assert (await a.place(**limit("a")))["event"] == "accepted"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([Frame(Opcode.TEXT, b"{", fin=False), Frame(Opcode.TEXT, b"}")], 1002),
        ([Frame(Opcode.TEXT, b"{", fin=False), Frame(Opcode.BINARY, b"}")], 1002),
        ([Frame(Opcode.TEXT, b'{"a":"\xc3', fin=False), Frame(Opcode.CONT, b'"}')], 1007),
        ([Frame(Opcode.TEXT, b"x" * 40_000, fin=False), Frame(Opcode.CONT, b"x" * 40_000)], 1009),
        ([Frame(Opcode.TEXT, b"", fin=False)] + [Frame(Opcode.CONT, b"", fin=False)] * 2_000, 1009),
        ([b"\x09\x80\0\0\0\0"], 1002),
        ([b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126], 1002),
        ([b"\x81\x02{}"], 1002),
        ([b"\x83\x80\0\0\0\0"], 1002),
        ([b"\xa1\x80\0\0\0\0"], 1002),
        ([b"\x88\x81\0\0\0\0x"], 1002),
        ([b"\x88\x82\0\0\0\0\x03\xed"], 1002),
        ([b"\x88\x84\0\0\0\0\x03\xe8\xff\xfe"], 1007),
    ],
)  # fmt: skip
async def test_bad_frames_of_a_signed_in_session_close_it_with_their_code(
    tmp_path: Path, frames: list[Frame | bytes], code: int
) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        a, b = await x.client(key), await x.client(key)
        await a.place(**limit("a"))
        for frame in frames:
            a._socket.transport.write(frame if isinstance(frame, bytes) else frame.serialize(mask=True))
        await asyncio.wait_for(a._reader, HANG_S)
        received = a._socket.protocol.close_rcvd
        assert received is not None and received.code == code
        await becomes(operator, "alice", set())
        assert (await b.place(**limit("b")))["event"] == "accepted" and x.server.fault is None
        await b.close()
