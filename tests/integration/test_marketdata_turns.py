"""What one reader asks for, or a jump of the log, does not keep the others waiting: by the order of what happens."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from websockets.asyncio.client import connect

from bench.soak.hostile import frame
from marketdata import server as server_module
from marketdata import session as session_module
from marketdata.session import Session
from tests.integration.test_marketdata import Exchange
from tests.support.raw import RawClient

REPLAYS = 20


def send_now(client: Any, data: bytes) -> None:
    """Bytes that are in the server's socket when this returns."""
    assert os.write(client.transport.get_extra_info("socket").fileno(), data) == len(data)


async def test_replays_of_one_reader_leave_the_others_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange()
    exchange.step(200)
    order: list[str] = []
    async with exchange.running(), connect(exchange.url) as greedy, connect(exchange.url) as other:
        replay, receive = session_module.replay, Session.receive

        def replaying(*arguments: Any) -> Any:
            if not order:  # the other's request comes while the first of many answers is being made
                send_now(other, frame(1, b'{"type":"ping"}'))
            order.append("replay")
            return replay(*arguments)

        def receiving(self: Session, payload: bytes, *rest: Any) -> list[bytes]:
            if b"ping" in payload:
                order.append("ping")
            return receive(self, payload, *rest)

        monkeypatch.setattr(session_module, "replay", replaying)
        monkeypatch.setattr(Session, "receive", receiving)
        request = b'{"type":"replay","channel":"book:NOVA-USD","from":1,"rid":%d}'
        send_now(greedy, b"".join(frame(1, request % number) for number in range(REPLAYS)))  # all in one read
        answers: list[dict[str, Any]] = []
        while len(answers) < REPLAYS:
            message = json.loads(await greedy.recv())
            if message["type"] == "replay":
                answers.append(message)
                messages = [json.loads(await greedy.recv()) for _ in range(message["count"])]
                assert all(one["replayed"] for one in messages) and messages  # nothing stands between them
        assert [answer["rid"] for answer in answers] == list(range(REPLAYS))
        assert json.loads(await other.recv())["type"] == "pong"
    assert order.count("replay") == REPLAYS and order.index("ping") <= 3


async def test_two_readers_with_long_answers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange()
    exchange.step(50)
    order: list[str] = []
    async with exchange.running(), connect(exchange.url) as first, connect(exchange.url) as second:
        replay = session_module.replay

        def replaying(*arguments: Any) -> Any:
            if not order:
                send_now(second, frame(1, b'{"type":"replay","channel":"orders:NOVA-USD","from":1}') * 5)
            order.append(arguments[4])
            return replay(*arguments)

        monkeypatch.setattr(session_module, "replay", replaying)
        send_now(first, frame(1, b'{"type":"replay","channel":"book:NOVA-USD","from":1}') * REPLAYS)
        for client, count in ((first, REPLAYS), (second, 5)):
            while count:
                count -= json.loads(await client.recv())["type"] == "replay"
    assert order.count("orders") == 5 and order[-1] == "book"
    begin = order.index("orders")
    assert begin <= 3 and order[begin : begin + 9] == ["orders", "book"] * 4 + ["orders"]


async def test_a_reader_that_leaves_takes_its_long_answers_along(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange()
    exchange.step(50)
    made: list[int] = []
    async with exchange.running(), connect(exchange.url) as steady:
        replay = session_module.replay
        leaving = await connect(exchange.url)

        def replaying(*arguments: Any) -> Any:
            if not made:
                leaving.transport.abort()
            made.append(1)
            return replay(*arguments)

        monkeypatch.setattr(session_module, "replay", replaying)
        send_now(leaving, frame(1, b'{"type":"replay","channel":"book:NOVA-USD","from":1}') * REPLAYS)
        while not made:
            await asyncio.sleep(0)
        for _ in range(3):
            await steady.send('{"type":"ping"}')
            await steady.recv()
        assert len(made) < REPLAYS


async def test_a_jump_of_the_log_is_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand events at once: who asks meanwhile is answered between two slices."""
    monkeypatch.setattr(server_module, "LIVE_SLOTS", 8)
    exchange, order = Exchange(), list[str]()
    async with exchange.running(), connect(exchange.url) as other:
        await other.send('{"type":"ping"}')
        await other.recv()
        read, receive = exchange.source.read, Session.receive

        def reading(limit: int = 65_536) -> Any:
            slots = read(limit)
            if len(slots):
                if "read" not in order:
                    send_now(other, frame(1, b'{"type":"ping"}'))
                order.append("read")
            return slots

        def receiving(self: Session, payload: bytes, *rest: Any) -> list[bytes]:
            order.append("ping")
            return receive(self, payload, *rest)

        monkeypatch.setattr(exchange.source, "read", reading)
        monkeypatch.setattr(Session, "receive", receiving)
        exchange.step(300)
        pong: dict[str, Any] = {}
        while pong.get("type") != "pong":
            pong = json.loads(await other.recv())
        assert order.index("ping") <= 4
        while exchange.status.get("sequence", 0) < exchange.flow.sequence:
            await asyncio.sleep(0.01)
    assert order.count("read") > 30


@pytest.mark.parametrize("channel", ["book", "orders", "trades"])
async def test_a_long_replay_comes_in_answers_of_bounded_size_that_join(channel: str) -> None:
    exchange = Exchange(replay_bytes=4_096)
    exchange.step(8_000 if channel == "trades" else 1_500)
    async with exchange.running(), connect(exchange.url) as client:
        after, reached, answers, sizes = 1, 1, 0, []
        complete = False
        while not complete:
            await client.send(json.dumps({"type": "replay", "channel": f"{channel}:NOVA-USD", "from": after}))
            reply = json.loads(await client.recv())
            texts = [await client.recv() for _ in range(reply["count"])]
            for message in map(json.loads, texts):
                assert message["prev_seq"] == reached
                reached = message["seq"]
            assert reply["to"] >= reached
            sizes.append(sum(map(len, texts[:-1])))
            after = reached = reply["to"]
            answers, complete = answers + 1, reply["complete"]
        assert after == exchange.flow.sequence and answers > 3 and max(sizes) <= 4_096


async def test_whoever_asks_for_much_and_reads_late_is_not_cut() -> None:
    """Its answers wait with us as requests, not as bytes, and one that asks for too many hears so."""
    most = 30
    exchange = Exchange(replay_bytes=65_536, slow_bytes=65_536, cut_bytes=131_072, long_answers_max=most,
                        requests_per_second=1_000, send_buffer_bytes=4_096)  # fmt: skip
    exchange.step(3_000)
    async with exchange.running():
        late = await RawClient.connect(exchange.url, protocol="byline.md.json.v1", receive_bytes=4_096)
        for number in range(2 * most):
            late.say({"type": "replay", "channel": "book:NOVA-USD", "from": 1, "rid": number})
        async with connect(exchange.url) as other:  # those are in and their turns were given
            for _ in range(50):
                await other.send('{"type":"ping"}')
                await other.recv()
        answered, refused, replayed, parts = 0, 0, 0, 0
        while answered + refused < 2 * most or parts:
            message = await late.hear()
            if message["type"] == "replay":
                answered, parts = answered + 1, message["count"]
            elif message["type"] == "error":
                refused += message["code"] == "rate_limited"
            else:
                parts -= 1
                replayed += message["replayed"]
        assert answered >= most and refused >= 1 and replayed > answered
        late.say({"type": "ping"})
        assert (await late.hear())["type"] == "pong"
        late.abort()
    assert exchange.status["cut"] == 0


async def test_flushes_without_news_are_not_late() -> None:
    exchange = Exchange(flush_interval_ms=5)
    exchange.step(50)
    async with exchange.running(), connect(exchange.url) as reader:
        await reader.send('{"type":"subscribe","channel":"latency","mode":"conflated","interval_ms":100}')

        async def told() -> dict[str, int]:
            while True:
                message = json.loads(await reader.recv())
                if "stages" in message:
                    return {name: stage["count"] for name, stage in message["stages"].items()}

        first = await told()
        assert first["journal_to_flush"] == 0  # what was there before it listened
        while (quiet := await told())["flush"] < first["flush"] + 5:
            pass  # its own messages are flushes, and tell of no event
        assert quiet["journal_to_flush"] == 0
        exchange.step()
        await reader.send('{"type":"subscribe","channel":"book:NOVA-USD","mode":"lossless"}')
        while (await told())["journal_to_flush"] == 0:
            exchange.step()
