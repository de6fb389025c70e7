"""Binary order entry against real sockets, journal, event log and engine; the client is the `websockets` library."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

from engine.messages import edge
from engine.messages.codes import ABSENT, NIL, CancelReason, CommandKind, EventKind, RejectCode
from engine.messages.edge import EdgeCode, MessageType
from gateway.settings import Tier
from gateway.wire import json as wire
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from tests.support.binary import BinaryClient, cancel, place, record, replace
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import HANG_S

ACK, TOLD, REFUSAL = MessageType.ACK, MessageType.TOLD, MessageType.REFUSAL


@pytest.mark.parametrize("mode", ["durable", "memory"])
async def test_records_trade_and_the_journal_replays_to_the_same_hash(tmp_path: Path, mode: str) -> None:
    async with exchange(tmp_path, ack_mode=mode) as x:
        async with await x.client(x.operator) as operator:
            alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
            async with (
                await BinaryClient.connect(x.url, alice) as a, await BinaryClient.connect(x.url, bob) as b,
                await x.client(bob) as text,
            ):  # fmt: skip
                assert a.hello["protocol"] == edge.PROTOCOL == a.socket.subprotocol
                assert (a.hello["schema"], a.hello["version"]) == (edge.SCHEMA_ID, edge.VERSION)
                directory = await a.ask({"op": "directory"})
                [market] = directory["markets"]
                assert market == {
                    "index": 0,
                    "market": MARKET,
                    "base": "CRT",
                    "quote": "USD",
                    "tick": "0.01",
                    "lot": "0.1",
                }
                assert directory["assets"][1] == {"index": 1, "asset": "CRT", "scale": 2}
                await a.send(place(a.account, "a1", 1, 125, 100, rid=2**64 - 1))
                ack = await a.next()
                assert (ack["type"], ack["rid"], ack["event"]["client_id"]) == (ACK, 2**64 - 1, "a1")
                assert 0 < ack["t_in"] <= ack["t_matched"] <= ack["t_out"] and ack["rate_left"] == NIL
                if mode == "durable":
                    assert ack["t_matched"] <= ack["t_durable"] <= ack["t_out"]
                else:
                    assert ack["t_durable"] == 0
                await b.send(place(b.account, "b1", 0, 130, 45, rid=7))
                taken, told = await b.take(2)
                assert taken["sequence"] == ack["sequence"] + 1 and taken["event"]["order_id"] > 0
                assert told["type"] == TOLD and told["event"]["kind"] == EventKind.TRADE
                assert (told["event"]["taker_account"], told["event"]["account"]) == (b.account, NIL)
                assert (told["event"]["price"], told["event"]["size"], told["event"]["maker_leaves"]) == (
                    125,
                    45,
                    ABSENT,
                )
                maker = await a.next()
                assert (maker["event"]["maker_leaves"], maker["event"]["taker_leaves"]) == (55, ABSENT)
                assert [(await anext(text.events()))["event"] for _ in range(2)] == ["accepted", "trade"]
                await a.send(
                    replace(a.account, "a1", size=90, rid=1),
                    cancel(a.account, "a1", rid=2),
                    cancel(a.account, 99, rid=3),
                )
                replaced, canceled, gone = await a.take(3)
                assert [m["sequence"] - taken["sequence"] for m in (replaced, canceled, gone)] == [1, 2, 3]
                assert replaced["event"]["leaves"] == 45 and canceled["event"]["reason"] == CancelReason.USER
                assert (gone["event"]["kind"], gone["event"]["reason"]) == (
                    EventKind.REJECTED,
                    RejectCode.UNKNOWN_ORDER,
                )
                assert (await a.ask({"op": "open_orders", "account": "alice"}))["orders"] == []
            status = await operator.status()
        x.journal.wait_durable(x.core.sequence)
        core, _ = replay(DirectoryDisk(tmp_path))
        assert (core.sequence, core.state_hash().hex()) == (status["sequence"], status["state_hash"])


async def test_every_command_of_a_frame_is_answered_for_itself_and_refusals_take_no_sequence(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await BinaryClient.connect(x.url, key) as a:
            me, before = a.account, x.core.sequence
            frame = [
                place(me, "one", 0, 100, 10, rid=1),
                place(me, "bad", 0, 0, 10, rid=2),
                place(me, "two", 0, 100, 10, rid=3, oco="one"),
                place(me + 1, "not-mine", 0, 100, 10, rid=4),
                record(CommandKind.DEPOSIT, rid=5),
                cancel(me, "one", rid=6),
                record(CommandKind.CANCEL_AFTER, struct.pack("<IIq", me, 0, 0), rid=7),
                record(CommandKind.POISON, struct.pack("<II32s", me, 0, b"late"), rid=8),
                place(me, "late", 0, 100, 10, rid=9),
                record(CommandKind.MASS_CANCEL, struct.pack("<IIQBB", me, NIL, 0, 255, 1), rid=10),
            ]
            await a.send(*frame)
            answers = {}
            while len(answers) < len(frame):
                message = await a.next()
                if message["type"] != TOLD:
                    answers[message["rid"]] = message
            refused = {
                rid: (EdgeCode(m["code"]), m["offset"], m["index"])
                for rid, m in answers.items()
                if m["type"] == REFUSAL
            }
            assert refused == {
                2: (EdgeCode.BAD_PRICE, 72, 1), 4: (EdgeCode.FORBIDDEN, 32, 3), 5: (EdgeCode.UNKNOWN_OP, 4, 4),
            }  # fmt: skip
            taken = [m["sequence"] for _, m in sorted(answers.items()) if m["type"] == ACK]
            assert taken == list(range(before + 1, before + 8))
            assert (answers[9]["event"]["kind"], answers[9]["event"]["reason"]) == (
                EventKind.REJECTED,
                RejectCode.POISONED,
            )
            assert len(x.server._orders.of_account(me)) == 0


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\1" * 127, EdgeCode.BAD_FRAME), (b"", EdgeCode.BAD_FRAME), (bytes(128), EdgeCode.BAD_FRAME),
        (place(2, "a", 0, 1, 1) + bytes(64), EdgeCode.BAD_FRAME),
        (place(2, "a", 0, 1, 1) + record(11, slots=2)[:128], EdgeCode.BAD_FRAME),
        (place(2, "a", 0, 1, 1) * 5, EdgeCode.TOO_MANY_COMMANDS),
    ],
)  # fmt: skip
async def test_a_frame_that_is_not_whole_records_does_nothing(tmp_path: Path, frame: bytes, code: EdgeCode) -> None:
    async with exchange(tmp_path, commands_per_frame_max=4) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await BinaryClient.connect(x.url, key) as a:
            before = x.core.sequence
            await a.send(frame)
            answer = await a.next()
            assert (answer["type"], answer["code"], answer["index"], answer["offset"]) == (
                REFUSAL, code, NIL, edge.NOT_GIVEN,
            )  # fmt: skip
            assert x.core.sequence == before
            await a.send(place(a.account, "a", 0, 1, 1))
            assert (await a.next())["sequence"] == before + 1


async def test_records_need_a_sign_in_a_scope_and_a_binary_session(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        lowers = await x.trader(operator, "alice", scopes=("cancel_only",))
        reads = await x.trader(operator, "bob", scopes=("read",))
        before = x.core.sequence
        async with await BinaryClient.connect(x.url, None) as nobody:
            await nobody.send(place(2, "a", 0, 1, 1, rid=3))
            answer = await nobody.next()
            assert (answer["code"], answer["rid"], answer["index"]) == (EdgeCode.NOT_SIGNED_IN, 3, 0)
        async with await BinaryClient.connect(x.url, lowers) as a:
            await a.send(place(a.account, "a", 0, 1, 1), cancel(a.account, "a"))
            assert [m["type"] for m in await a.take(2)] == [REFUSAL, ACK]
        async with await BinaryClient.connect(x.url, reads) as b:
            await b.send(cancel(b.account, "a"))
            assert (await b.next())["code"] == EdgeCode.FORBIDDEN
        async with await BinaryClient.connect(x.url, x.operator) as o:
            await o.send(cancel(2, "a"))
            assert (await o.next())["code"] == EdgeCode.FORBIDDEN
        assert x.core.sequence == before + 1
        async with connect(x.url, subprotocols=[wire.PROTOCOL]) as text:  # type: ignore[list-item]
            await text.recv()
            await text.send(place(2, "a", 0, 1, 1))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(text.recv(), HANG_S)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1003


async def test_f70_no_record_of_a_narrowed_key_is_more_than_refused(tmp_path: Path) -> None:
    """Keys of certain markets and prices have their records looked at more closely: with every number a field holds."""
    rng = random.Random(4)
    edges = (0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "eve", markets=[MARKET], collar_ppm=50_000)
        other = await x.trader(operator, "bob")
        async with await BinaryClient.connect(x.url, key) as client, await x.client(other) as bob:
            account = client.account
            frames = [replace(account, order, rid=1, price=100) for order in edges]
            frames += [cancel(account, order, rid=1) for order in edges]
            for kind in range(64):
                payload = b"".join(rng.choice(edges).to_bytes(8, "little") for _ in range(12))
                payload = account.to_bytes(4, "little") + payload[4:]
                frames += [record(kind, payload, rid=2, flags=flags) for flags in (0, 1, 255)]
            for frame in frames:
                await client.send(frame)
                assert (await client.next())["type"] in (ACK, REFUSAL)
            assert x.server.fault is None
            assert (await bob.place(MARKET, "b1", "buy", "limit", size="1", price="1"))["event"] == "accepted"


async def test_records_in_fragments_are_whole_records_and_none_hides_in_a_text(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await BinaryClient.connect(x.url, key) as client:
            whole = place(client.account, "parts", 0, 1, 1, rid=5) + cancel(client.account, "parts", rid=6)
            await client.socket.send([whole[:64], whole[64:200], whole[200:]])
            first, second = await client.take(2)
            assert (first["type"], first["rid"], second["type"], second["rid"]) == (ACK, 5, ACK, 6)
            before = x.core.sequence
            raw = client.socket
            for opcode, payload, fin in ((Opcode.TEXT, b'{"op":"pi', False), (Opcode.BINARY, whole, True)):
                frame = Frame(opcode, payload, fin).serialize(mask=True)
                raw.transport.write(frame)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await raw.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1002
            assert x.core.sequence == before + 1  # its mass cancel, and no record of that frame


async def test_what_takes_risk_away_passes_and_a_flood_of_records_ends_the_session(tmp_path: Path) -> None:
    tiers = (Tier("plain", 5, 20, 3_600.0), Tier("unlimited", 0, 0, 1.0))
    async with exchange(tmp_path, tiers=tiers) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", tier="plain")
        async with await BinaryClient.connect(x.url, key) as client:
            account = client.account
            await client.send(place(account, "stays", 0, 1, 1))
            assert (await client.next())["type"] == ACK
            await client.send(*(place(account, f"o{n}", 0, 1, 1) for n in range(5)))
            told = sorted(await client.take(5), key=lambda message: message["type"])  # what is refused is told at once
            assert [message["type"] for message in told] == [ACK] * 4 + [REFUSAL]
            assert (told[-1]["code"], told[-1]["rate_left"]) == (EdgeCode.RATE_LIMITED, 0)
            for n in range(17):
                await client.send(place(account, f"p{n}", 0, 1, 1))
                assert (await client.next())["code"] == EdgeCode.RATE_LIMITED
            lowering = {
                CommandKind.MASS_CANCEL: struct.pack("<IIQBB", account, NIL, 0, 255, 1),
                CommandKind.KILL: struct.pack("<I", account),
                CommandKind.CANCEL_AFTER: struct.pack("<IIq", account, 0, 10**18),
                CommandKind.POISON: struct.pack("<II32s", account, 0, b"p0"),
            }
            await client.send(cancel(account, "stays"))
            assert (await client.next())["type"] == ACK
            before = x.core.sequence
            for kind, payload in lowering.items():
                await client.send(record(kind, payload))
                while (told := await client.next())["type"] == TOLD:
                    pass
                assert told["type"] == ACK, kind
            assert x.core.sequence == before + len(lowering)
        async with await BinaryClient.connect(x.url, key) as flood:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                for n in range(1_100):
                    await flood.send(place(flood.account, f"q{n}", 0, 1, 1))
                while True:
                    await flood.socket.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
        async with await BinaryClient.connect(x.url, None) as stranger:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                for _ in range(1_100):
                    await stranger.send(cancel(2, "a"))
                while True:
                    await stranger.socket.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


async def test_the_first_protocol_offered_that_is_known_is_chosen(tmp_path: Path) -> None:
    async with exchange(tmp_path, listed=False) as x:
        for offered, chosen in (
            (["x", edge.PROTOCOL, wire.PROTOCOL], edge.PROTOCOL), ([wire.PROTOCOL, edge.PROTOCOL], wire.PROTOCOL),
        ):  # fmt: skip
            async with connect(x.url, subprotocols=offered) as socket:  # type: ignore[arg-type]
                assert socket.subprotocol == chosen == json.loads(await socket.recv())["protocol"]


async def test_text_and_records_mix_on_a_binary_session_in_their_order(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", scopes=("trade", "read", "transfer"))
        await x.trader(operator, "bob")
        async with await BinaryClient.connect(x.url, key) as a:
            me = a.account
            text = {
                "rid": "t",
                "op": "place",
                "market": MARKET,
                "client_id": "t",
                "side": "buy",
                "type": "limit",
                "size": "1",
                "price": "1",
            }
            await a.send(place(me, "r1", 0, 50, 1, rid=1))
            await a.socket.send(json.dumps(text))
            await a.send(place(me, "r2", 0, 50, 1, rid=2))
            await a.socket.send(json.dumps({"op": "open_orders"}))
            first, second = await a.next(), json.loads(await a.socket.recv())
            third, fourth = await a.next(), json.loads(await a.socket.recv())
            assert [m["sequence"] for m in (first, second, third)] == list(
                range(first["sequence"], first["sequence"] + 3)
            )
            assert (second["rid"], second["event"], second["price"]) == ("t", "accepted", "1")
            assert {order["client_id"] for order in fourth["orders"]} == {"r1", "t", "r2"}
            leg = {
                "op": "transfer",
                "rid": 1,
                "ref": "p",
                "legs": [{"from": "alice", "to": "bob", "asset": "USD", "amount": "1"}],
            }
            await a.socket.send(json.dumps(leg))
            assert json.loads(await a.socket.recv())["event"] == "transferred"
            async with await x.client(x.operator) as o:
                await o.command("transfer", ref="q", legs=[
                    {"from": "bob", "to": "alice", "asset": "USD", "amount": "2"},
                    {"from": "bob", "to": "system:fees", "asset": "USD", "amount": "2"},
                ])  # fmt: skip
            told = await a.next()
            while told["event"]["kind"] == EventKind.BALANCE:
                told = await a.next()
            assert (told["type"], told["event"]["kind"], told["event"]["ref"]) == (TOLD, EventKind.TRANSFERRED, "q")
            assert told["event"]["leg_count"] == 1 and told["slots"] == 2


async def test_more_answers_than_a_frame_holds_come_in_several(tmp_path: Path) -> None:
    async with exchange(tmp_path, ack_mode="memory") as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await BinaryClient.connect(x.url, key) as a:
            frame = [place(a.account, f"n{rid}", 0, 100, 10, rid=rid) for rid in range(512)]
            await a.send(*frame)
            answers = await a.take(512)
            assert [m["rid"] for m in answers] == list(range(512)) and {m["type"] for m in answers} == {ACK}
            first = answers[0]["sequence"]
            assert [m["sequence"] for m in answers] == list(range(first, first + 512))
            await a.send(record(CommandKind.MASS_CANCEL, struct.pack("<IIQBB", a.account, NIL, 0, 255, 1), rid=9))
            done, *gone = await a.take(513)
            assert (done["type"], done["event"]["kind"]) == (ACK, EventKind.DONE)
            assert {(m["type"], m["event"]["kind"]) for m in gone} == {(TOLD, EventKind.CANCELED)}
            assert x.server._orders.count == 0


async def test_acks_of_text_tell_when_what_happened(tmp_path: Path) -> None:
    for mode in ("durable", "memory"):
        folder = tmp_path / mode
        folder.mkdir()
        async with exchange(folder, ack_mode=mode) as x, await x.client(x.operator) as operator:
            key = await x.trader(operator, "alice")
            async with await x.client(key) as a:
                ack = await a.place(MARKET, "a", "buy", "limit", size="1", price="1")
                assert ack["t_in"] <= ack["t_matched"] <= ack["t_out"]
                assert ("t_durable" in ack) == (mode == "durable")
                if mode == "durable":
                    assert ack["t_matched"] <= ack["t_durable"] <= ack["t_out"]
                assert "rate_left" not in ack
            plain = await x.trader(operator, "bob", tier="plain")
            async with await x.client(plain) as b:
                assert (await b.place(MARKET, "b", "buy", "limit", size="1", price="1"))["rate_left"] == 99
                assert (await b.cancel(client_id="b"))["rate_left"] == 99
