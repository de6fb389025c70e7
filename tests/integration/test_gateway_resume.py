"""`resume` over real sockets: what a client that breaks off again and again hears is what one that stayed heard."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from byline.client import CommandError, TradingClient
from engine.messages.decode import EventDecoder
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import HANG_S

Key = tuple[int, int]


class Heard:
    """The private events of one session, in the order in which they came; an own ack counts as its first event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.raw: dict[Key, str] = {}

    @property
    def last(self) -> int:
        return self.events[-1]["sequence"] if self.events else 0

    def take(self, text: str) -> None:
        event = json.loads(text)
        if "event" in event and "index" in event:
            self.events.append(event)
            self.raw.setdefault((event["sequence"], event["index"], event.get("maker_account", "")), text)


async def drain(client: TradingClient, heard: Heard, until: int | None = None) -> None:
    """Take what has come; with `until`, wait for the `resumed` or a later event."""
    while True:
        try:
            event = await asyncio.wait_for(client._events.take(), HANG_S if until is not None else 0.01)
        except TimeoutError:
            assert until is None
            return
        if event is None:
            return
        if event.get("type") == "resumed" and until is not None:
            return
        heard.take(json.dumps(event))


async def random_commands(clients: list[TradingClient], chance: random.Random, count: int, prefix: str) -> None:
    """Orders of every kind between two accounts; refusals are as good as acceptances."""
    for number in range(count):
        client = chance.choice(clients)
        name = f"{prefix}{number}"
        kind = chance.random()
        command: dict[str, Any]
        if kind < 0.55:
            command = {
                "op": "place", "market": MARKET, "client_id": name, "side": chance.choice(("buy", "sell")),
                "type": "limit", "size": str(chance.randrange(1, 9)), "price": f"1.0{chance.randrange(10)}",
            }  # fmt: skip
        elif kind < 0.62:
            command = {"op": "place", "market": MARKET, "client_id": name, "side": "buy", "type": "market",
                       "budget": str(chance.randrange(1, 20))}  # fmt: skip
        elif kind < 0.8:
            command = {"op": "replace", "client_id": f"{prefix}{chance.randrange(number + 1)}",
                       "new_client_id": f"{name}n", "price": f"1.0{chance.randrange(10)}"}  # fmt: skip
        elif kind < 0.97:
            command = {"op": "cancel", "client_id": f"{prefix}{chance.randrange(number + 1)}"}
        else:
            command = {"op": "transfer", "ref": f"t{name}",
                       "legs": [{"from": client.accounts[0], "to": "carol", "asset": "USD", "amount": "1"}]}
            # fmt: skip
        await client.request(command)


@pytest.mark.parametrize("seed", range(4))
async def test_f25_a_client_that_breaks_off_hears_what_one_that_stayed_heard(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    mode = "durable" if seed % 2 else "memory"
    async with exchange(tmp_path, ack_mode=mode, replay_slots=chance.choice([1, 7, 2_048])) as x, await x.client(
        x.operator
    ) as operator:
        alice = await x.trader(operator, "alice", ("trade", "read", "transfer"))
        bob = await x.trader(operator, "bob", ("trade", "read", "transfer"))
        await x.trader(operator, "carol")
        begin = x.sequencer.released_sequence
        stayed, broken = Heard(), Heard()
        stays = await x.client(alice, resume=begin)
        traders = [await x.client(alice, cancel_on_disconnect=False), await x.client(bob)]
        last = begin
        for turn in range(8):
            breaks = await x.client(alice, resume=last)
            trading = asyncio.create_task(random_commands(traders, chance, chance.randrange(5, 40), f"{turn}-"))
            if chance.random() < 0.7:  # break off somewhere, also within the replay
                await asyncio.sleep(chance.random() * 0.02)
            else:
                await trading
            await drain(breaks, broken)
            last = max(last, broken.last)
            # The last sequence may be torn: its later events may not have come. So go on behind the one before it.
            while broken.events and broken.events[-1]["sequence"] == last:
                broken.events.pop()
            last = max(begin, broken.last)
            breaks._socket.transport.abort()
            await breaks.close()
            await trading
        end = x.sequencer.released_sequence
        breaks = await x.client(alice, resume=last)
        await drain(breaks, broken, until=end)
        await stays.ping()
        await drain(stays, stayed)
        assert [e for e in stayed.events if e["sequence"] <= end] == [e for e in broken.events if e["sequence"] <= end]
        assert len(stayed.events) > 100
        for client in (stays, breaks, *traders):
            await client.close()
    async with exchange(tmp_path, ack_mode=mode, listed=False, restart=True) as x, await x.client(
        alice, resume=begin
    ) as again:
        heard = Heard()
        await drain(again, heard, until=end)
        assert [e for e in heard.events if e["sequence"] <= end] == [e for e in stayed.events if e["sequence"] <= end]


async def test_own_acks_are_not_told_twice_while_the_past_is_told(tmp_path: Path) -> None:
    async with exchange(tmp_path, replay_slots=1) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            for number in range(50):
                await a.place(MARKET, f"c{number}", "buy", "limit", size="1", price="0.5")
        async with await x.client(key, resume=0, cancel_on_disconnect=False) as a:
            acks = [await a.place(MARKET, f"d{number}", "sell", "limit", size="1", price="2") for number in range(20)]
            heard = Heard()
            await drain(a, heard, until=0)
            told = [event["sequence"] for event in heard.events if event["event"] == "accepted"]
            assert len(told) == len(set(told)) and not {ack["sequence"] for ack in acks} & set(told)
            assert len(told) == 50


async def test_f38_resume_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            for after, code in ((10**9, "bad_value"), (-1, "malformed"), ("1", "malformed")):
                with pytest.raises(CommandError) as error:
                    await a.request({"op": "resume", "after": after})
                assert error.value.code == code
            told = await a.request({"op": "resume", "after": 0})
            assert told["type"] == "resumed" and told["events"] > 0
            assert (await a.request({"op": "resume", "after": 0}))["events"] == 0, "all that was told already"


async def test_a_long_past_does_not_hold_up_the_neighbours(tmp_path: Path) -> None:
    async with exchange(tmp_path, ack_mode="memory", replay_slots=256) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(alice, events_max=50_000) as a, await x.client(bob) as b:
            for number in range(0, 20_000, 500):
                place = {"op": "place", "market": MARKET, "side": "buy", "type": "limit", "size": "1", "price": "0.01"}
                await a._socket.send(json.dumps([place | {"client_id": f"c{n}"} for n in range(number, number + 500)]))
            await a.ping()
            late = await x.client(alice, resume=0)
            between = 0
            reading = asyncio.create_task(drain(late, Heard(), until=0))
            while not reading.done():
                await b.ping()
                between += 1
            await reading
            assert between >= 20, "others are served between the steps"
            await late.close()


async def test_money_of_others_costs_a_replay_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred traders that came back at once after their deposits kept the gateway busy for a minute."""
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        keys = [await x.trader(operator, f"t{number}") for number in range(10)]  # two deposits each
        decoded: list[int] = []
        decode = EventDecoder.decode

        def counting(self: EventDecoder, slots: bytes) -> list[dict[str, object]]:
            events = decode(self, slots)
            decoded.extend(event["sequence"] for event in events)
            return events

        monkeypatch.setattr(EventDecoder, "decode", counting)
        async with await x.client(keys[3], resume=0) as client:
            heard = []
            async for event in client.events():
                heard.append(event)
                if event.get("type") == "resumed":
                    break
        deposits = [event["sequence"] for event in heard if event.get("event") == "transferred"]
        assert len(deposits) == 2 and set(deposits) <= set(decoded)
        assert set(decoded) <= {event["sequence"] for event in heard}
