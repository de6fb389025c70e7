"""Plays a LOBW file on matching-engine 0.1.1 and prints what came of it, one JSON object.

    PYTHON bench/peer_matching_engine.py FILE COUNT VERIFY

Run by a Python of 3.12 or later that has the package; so it imports nothing of ours. COUNT timed commands are played
behind the file's preload. With VERIFY 1 every fill is hashed, and the time means nothing. An immediate-or-cancel and a
market order are its own; a move is a cancel and a new order. Commands are built before the clock starts.
"""

from __future__ import annotations

import gc
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

M64 = (1 << 64) - 1
RECORD = struct.Struct("<BBHIQq")


def sequenced(path: Path, count: int) -> tuple[list[Any], int]:
    """The commands, and how many of them are preload."""
    from matching_engine.domain import (  # type: ignore[import-not-found]
        CancelOrder,
        NewOrder,
        OrderType,
        SelfTradePrevention,
        SequencedCommand,
        Side,
        TimeInForce,
    )

    data = path.read_bytes()
    preload: int = struct.unpack_from("<Q", data, 16)[0]
    sides, none = (Side.BUY, Side.SELL), SelfTradePrevention.NONE
    made: list[Any] = []
    before = 0

    def add(command: Any) -> None:
        made.append(SequencedCommand(len(made) + 1, len(made) + 1, command))

    for i, (op, side, _, qty, number, price) in enumerate(RECORD.iter_unpack(data[64 : 64 + 24 * (preload + count)])):
        if i == preload:
            before = len(made)
        if op in (3, 4):
            add(CancelOrder(number, 1))
        if op != 3:
            market = op == 2
            add(
                NewOrder(
                    number, 1, sides[side], 0 if market else price, qty,
                    OrderType.MARKET if market else OrderType.LIMIT,
                    TimeInForce.IOC if op in (1, 2) else TimeInForce.GTC, False, none,
                )
            )  # fmt: skip
    return made, before


def main() -> None:
    from matching_engine.engine import MatchingEngine  # type: ignore[import-not-found]
    from matching_engine.events import OrderRejected, Trade  # type: ignore[import-not-found]

    path, count, verify = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
    made, before = sequenced(path, count)
    engine = MatchingEngine()
    trades = volume = notional = failed = 0
    digest = 0xCBF29CE484222325
    taken = 0
    if verify:
        for command in made:
            for event in engine.process(command):
                if type(event) is OrderRejected:
                    failed += 1
                elif type(event) is Trade:
                    trades, volume, notional = trades + 1, volume + event.qty, notional + event.qty * event.price
                    word = (event.maker_order_id * 0x9E3779B97F4A7C15 + event.taker_order_id) & M64
                    digest = ((digest ^ word) * 0x100000001B3) & M64
                    word = (event.price * 0x9E3779B97F4A7C15 + event.qty) & M64
                    digest = ((digest ^ word) * 0x100000001B3) & M64
    else:
        process = engine.process
        for command in made[:before]:
            process(command)
        timed = made[before:]
        gc.collect()
        gc.disable()
        start = time.thread_time_ns()
        for command in timed:
            process(command)
        taken = time.thread_time_ns() - start
    resting = list(engine.book.entries())
    print(
        json.dumps(
            {
                "ns": taken, "trades": trades, "volume": volume, "notional": notional, "hash": digest,
                "failed": failed, "resting": len(resting), "resting_qty": sum(entry.qty for entry in resting),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
