"""The matching core alone: no server, no journal, no clock. Commands in, events out, in this process.

    .venv/bin/python examples/core.py --orders 200000 --seed 7

First a market is made from the JSON commands of docs/rulebook.md, the convenient way. Then orders come the fast way:
one numpy array of records, `Core.apply_batch`, one array of event slots. At the end the state is walked and its hash
printed: the same seed gives the same hash on every machine.

Numbers in records and events are integers: prices in ticks, sizes in lots, amounts in units. What was not given is
ABSENT (-2^63). An event takes `slots` slots: step over them, as `heads` does, before you look at `kind`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.core import Core
from engine.messages import layout
from engine.messages.codes import ABSENT, CommandKind, EventKind, OrderType, RejectCode, Side, TimeInForce
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder

MARKET: list[dict[str, Any]] = [
    {"op": "asset", "asset": "INK", "scale": 0},
    {"op": "asset", "asset": "USD", "scale": 2},
    {"op": "market", "market": "INK-USD", "base": "INK", "quote": "USD", "tick": "0.01", "lot": "1", "taker_ppm": 1000},
    *({"op": "account", "account": name} for name in ("ann", "bob")),
    *(
        {"op": "deposit", "account": name, "asset": asset, "amount": "1000000000", "ref": f"{name}-{asset}"}
        for name in ("ann", "bob")
        for asset in ("INK", "USD")
    ),
    {"op": "place", "account": "ann", "market": "INK-USD", "client_id": "a-1", "side": "sell", "type": "limit",
     "price": "1.50", "size": "10"},
    {"op": "place", "account": "bob", "market": "INK-USD", "client_id": "b-1", "side": "buy", "type": "limit",
     "price": "1.52", "size": "4"},
]  # fmt: skip


def tell(core: Core, commands: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events of JSON commands as JSON objects. Names are looked up in a directory that the `done` events fill."""
    directory = Directory()
    decoder = EventDecoder(directory)
    encoder = CommandEncoder(directory, decoder.orders)
    for command in commands:
        record = encoder.encode(command)
        record[8:16] = (core.sequence + 1).to_bytes(8, "little")
        yield from decoder.decode(core.apply(record), command)


def orders(core: Core, count: int, seed: int) -> np.ndarray:
    """`count` limit orders of both accounts around 1.50, as records for the sequences that come next."""
    draw = np.random.default_rng(seed)
    rows = np.zeros(count, layout.PLACE)
    rows["kind"], rows["slots"] = CommandKind.PLACE, 1
    rows["sequence"] = core.sequence + 1 + np.arange(count)
    rows["ts"] = core.time + np.arange(count) * 1_000  # ns
    rows["market"] = core.market_index("INK-USD")
    indices = np.array([core.account_index("ann"), core.account_index("bob")])
    side = draw.integers(0, 2, count)
    rows["account"], rows["side"] = indices[side], np.where(side, Side.SELL, Side.BUY)
    rows["client_id"] = np.char.add(b"q-", rows["sequence"].astype("S20"))
    rows["type"], rows["tif"] = OrderType.LIMIT, TimeInForce.GTC
    rows["price"], rows["size"] = 150 + draw.integers(-20, 21, count), draw.integers(1, 50, count)
    rows["stop_price"] = rows["display_size"] = rows["expires_at"] = ABSENT
    return rows


def heads(events: np.ndarray) -> Iterator[int]:
    """Where each event begins."""
    at = 0
    while at < len(events):
        yield at
        at += int(events["slots"][at])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=200_000, help="how many orders the fast way places (200,000)")
    parser.add_argument("--seed", type=int, default=7, help="of their prices and sizes (7)")
    wanted = parser.parse_args()

    core = Core()
    for event in tell(core, MARKET):
        if event["event"] in ("trade", "rejected"):
            print(event)

    records, out, at = orders(core, wanted.orders, wanted.seed), np.zeros(1 << 14, layout.EVENT), 0
    kinds: Counter[EventKind] = Counter()
    volume = 0
    while at < len(records):
        at, used = core.apply_batch(records, out, at)  # stops early where `out` might be too small
        events = out[:used]
        trades = events.view(layout.TRADE)
        for index in heads(events):
            kind = EventKind(int(events["kind"][index]))
            kinds[kind] += 1
            if kind == EventKind.TRADE:
                volume += int(trades["size"][index])
            elif kind == EventKind.REJECTED:
                raise SystemExit(f"refused: {RejectCode(int(events['reason'][index])).word}")

    core.check()
    print({kind.word: count for kind, count in sorted(kinds.items())}, f"{volume} lots traded")
    print(f"{len(core.open_orders())} orders rest, state hash {core.state_hash().hex()}")


if __name__ == "__main__":
    main()
