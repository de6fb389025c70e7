"""The events written by hand equal those of the plain decoder."""

import json
import random
from typing import Any

import numpy as np

from engine.core import Core
from engine.messages import layout
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder
from gateway.names import Names
from gateway.orders import OpenOrders
from gateway.wire.encode import event_text


def _commands(rng: random.Random) -> list[dict[str, Any]]:
    commands: list[dict[str, Any]] = [
        {"op": "asset", "asset": "USD", "scale": 6},
        {"op": "asset", "asset": "CRT", "scale": 2},
        {
            "op": "market",
            "market": "CRT-USD",
            "base": "CRT",
            "quote": "USD",
            "tick": "0.01",
            "lot": "0.1",
            "maker_ppm": -100,
        },
    ]
    for name in ("alice", "bob"):
        commands.append({"op": "account", "account": name})
        for asset in ("USD", "CRT"):
            ref = f"{asset}-{name}"
            commands.append({"op": "deposit", "account": name, "asset": asset, "amount": "100000.5", "ref": ref})
    commands.append(
        {
            "op": "transfer",
            "ref": "t",
            "code": "gift",
            "legs": [{"from": "bob", "asset": "USD", "amount": "1", "to": "alice"}],
        }
    )
    for number in range(400):
        account = rng.choice(("alice", "bob"))
        kind = rng.random()
        if kind < 0.6:
            place = {"side": rng.choice(("buy", "sell")), "size": f"{rng.randrange(1, 60) / 10}", "type": "limit"}
            place |= {"price": f"{rng.randrange(95, 106) / 100}"}
            if rng.random() < 0.2:
                place |= {"tif": rng.choice(("ioc", "fok"))}
            if rng.random() < 0.1:
                place = {"side": "buy", "type": "market", "budget": "2.5"}
            if rng.random() < 0.1:
                place |= {"stp": "decrement"} if "budget" not in place else {}
            commands.append({"op": "place", "account": account, "market": "CRT-USD", "client_id": f"c{number}"} | place)
        elif kind < 0.75:
            commands.append({"op": "cancel", "account": account, "client_id": f"c{rng.randrange(number + 1)}"})
        elif kind < 0.9:
            replace = {"client_id": f"c{rng.randrange(number + 1)}", "size": f"{rng.randrange(1, 90) / 10}"}
            commands.append({"op": "replace", "account": account} | replace)
        else:
            commands.append(
                {
                    "op": "place",
                    "account": account,
                    "market": "CRT-USD",
                    "client_id": "c3",
                    "side": "buy",
                    "type": "limit",
                    "size": "1",
                    "price": "1",
                }
            )
    return commands


def test_every_frequent_event_is_the_plain_decoders() -> None:
    core, directory, names, orders = Core(), Directory(), Names(), OpenOrders()
    decoder = EventDecoder(directory)
    encoder = CommandEncoder(directory, decoder.orders)
    seen: dict[str, int] = {}
    for sequence, command in enumerate(_commands(random.Random(5)), 1):
        record = encoder.encode(command | {"ts": sequence * 1000})
        record[8:16] = sequence.to_bytes(8, "little")
        slots = core.apply(record).view(layout.EVENT).copy()
        plain = decoder.decode(slots)
        names.learn_events(slots.tobytes())
        at = 0
        for event in plain:
            raw = slots[at : at + slots[at]["slots"]].tobytes()
            text = event_text(raw, names, orders)
            if text is not None:
                assert json.loads(text) == event, event["event"]
                assert list(json.loads(text)) == list(event)
                seen[event["event"]] = seen.get(event["event"], 0) + 1
            orders.learn_events(raw)
            at += slots[at]["slots"]
    assert {"accepted", "rejected", "duplicate", "trade", "canceled", "replaced", "balance", "prevented"} <= set(seen)
    rows = core.open_orders()
    assert orders.count == len(rows) > 0
    restored = OpenOrders()
    restored.restore(rows)
    for account in range(2, 4):
        known = [sorted(table.of_account(account), key=lambda order: order["order_id"]) for table in (orders, restored)]
        assert known[0] == known[1]
    assert np.all(rows["leaves"] > 0)


def test_a_trader_sees_his_own_side_of_a_trade_alone() -> None:
    core, directory, names, orders = Core(), Directory(), Names(), OpenOrders()
    encoder = CommandEncoder(directory)
    trade = b""
    commands = _commands(random.Random(1))[:9] + [
        {
            "op": "place",
            "account": "alice",
            "market": "CRT-USD",
            "client_id": "a",
            "side": "sell",
            "type": "limit",
            "size": "1",
            "price": "1",
        },
        {
            "op": "place",
            "account": "bob",
            "market": "CRT-USD",
            "client_id": "b",
            "side": "buy",
            "type": "limit",
            "size": "1",
            "price": "1",
        },
    ]
    for sequence, command in enumerate(commands, 1):
        record = encoder.encode(command)
        record[8:16] = sequence.to_bytes(8, "little")
        slots = core.apply(record)
        directory.learn(slots)
        names.learn_events(slots.tobytes())
        if sequence == len(commands):
            orders.learn_events(slots[:1].tobytes())
            trade = slots[1:2].tobytes()
        else:
            orders.learn_events(slots.tobytes())
    for name, own, other in (("alice", "maker", "taker"), ("bob", "taker", "maker")):
        event = json.loads(event_text(trade, names, orders, names.account_index(name)))
        assert event["event"] == "trade" and event[f"{own}_account"] == name
        assert not [field for field in event if field.startswith(other)]
