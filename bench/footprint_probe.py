"""Measures how much memory one thing costs a core, in a process of its own: prints one JSON object.

    python -m bench.footprint_probe orders|ids|markets|used|accounts COUNT [LEVELS]

Records, event buffer and driver are made and touched first; then the resident memory of the process is read before and
after the core is made, and after the records were applied. `check()` and what rests are looked at behind the readings.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.driver import Native
from bench.harness import WrongResult
from bench.records import (
    FIRST_ACCOUNT,
    MAX_PRICE,
    accounts,
    apply_all,
    assets,
    cancels,
    deposits,
    funded,
    markets,
    numbered,
    places,
    transfers,
)
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import EventKind

ASSETS = 3


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def of_orders(count: int, levels: int) -> dict[str, int]:
    """Limit orders at rest, bids below asks, of 64 accounts with client ids, in random order of price."""
    core, first = funded(CoreLimits(orders=max(1 << 10, count)))
    rng = np.random.default_rng(1)
    number = np.arange(count)
    side = number & 1
    price = rng.integers(1, levels // 2 + 1, count) + side * (levels // 2)
    who = FIRST_ACCOUNT + (number >> 1) % 32 + 32 * side
    zeros = np.zeros(count, np.int64)
    records, _ = numbered([places(who, zeros, side, price, zeros + 5, first + number)], first)
    native = Native(core)
    before = resident()
    native.play(records)
    taken = resident() - before
    core.check()
    if len(core.open_orders()) != count:
        raise WrongResult("not all orders rest")
    return {"bytes": taken, "count": count}


def of_closed_ids(count: int) -> dict[str, int]:
    """Client ids of orders that were placed and cancelled, all still remembered."""
    core, first = funded(CoreLimits(client_ids_total=count, client_ids_per_account=count))
    number = np.arange(count)
    zeros = np.zeros(count, np.int64)
    who, placed = FIRST_ACCOUNT + number % 32, first + 2 * number
    rows = np.stack([places(who, zeros, zeros, zeros + 1, zeros + 1, placed), cancels(who, placed)], axis=1)
    records, _ = numbered([rows.reshape(-1)], first)
    native = Native(core)
    before = resident()
    native.play(records)
    taken = resident() - before
    core.check()
    if not (core.apply(_again(records[0], core.sequence + 1))["kind"] == EventKind.DUPLICATE).all():
        raise WrongResult("the oldest id is not remembered")
    return {"bytes": taken, "count": count}


def _again(record: np.void, sequence: int) -> bytes:
    """The same command once more."""
    row = np.array([record], layout.COMMAND)
    row["sequence"] = sequence
    return row.tobytes()


def _applied(
    core: Callable[[], Core], parts: list[np.ndarray], count: int, there: Callable[[Core], int]
) -> dict[str, int]:
    records, _ = numbered(parts, 1)
    before = resident()
    made = core()
    apply_all(made, records)
    taken = resident() - before
    made.check()
    if there(made) != count:
        raise WrongResult(f"{there(made)} of {count} are there")
    return {"bytes": taken, "count": count}


def of_markets(count: int, used: bool) -> dict[str, int]:
    """Listed markets in which nothing rests; `used`: each has had one order."""
    parts = [assets([b"BASE", b"QUOTE"]), markets(count, MAX_PRICE)]
    if used:
        zeros, first = np.zeros(count, np.int64), 2 + count + 2 + 1
        who, placed = zeros + FIRST_ACCOUNT, first + np.arange(count)
        parts += [accounts(1), deposits(who[:1], 1, 10**15)]
        parts += [places(who, np.arange(count), zeros, zeros + 500, zeros + 1, placed), cancels(who, placed)]

    def listed(core: Core) -> int:
        return count if core.market_index(f"M{count - 1}") == count - 1 else 0

    return _applied(lambda: Core(CoreLimits(markets=count)), parts, count, listed)


def of_accounts(count: int) -> dict[str, int]:
    """Accounts with money in three assets."""
    everyone = FIRST_ACCOUNT + np.arange(count)
    parts = [assets([b"A%d" % i for i in range(ASSETS)]), accounts(count)]
    for asset in range(ASSETS):
        parts += [deposits(everyone[:1], asset, 10**15), transfers(everyone[0], everyone[1:], asset, 10**6)]
    limits = CoreLimits(accounts=count + FIRST_ACCOUNT, balances=ASSETS * (count + FIRST_ACCOUNT), assets=ASSETS)

    def funded_in_all(core: Core) -> int:
        held = core.balances()
        return int(np.count_nonzero(held["account"] >= FIRST_ACCOUNT)) // ASSETS

    return _applied(lambda: Core(limits), parts, count, funded_in_all)


def main() -> None:
    what, count = sys.argv[1], int(sys.argv[2])
    made = {
        "orders": lambda: of_orders(count, int(sys.argv[3])),
        "ids": lambda: of_closed_ids(count),
        "markets": lambda: of_markets(count, used=False),
        "used": lambda: of_markets(count, used=True),
        "accounts": lambda: of_accounts(count),
    }[what]()
    print(json.dumps(made))


if __name__ == "__main__":
    main()
