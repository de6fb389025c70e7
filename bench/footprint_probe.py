"""Measures how much memory one thing costs a core, in a process of its own: prints one JSON object.

    python -m bench.footprint_probe orders|markets|accounts COUNT [LEVELS]

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
    deposits,
    funded,
    markets,
    numbered,
    places,
    transfers,
)
from engine.core import Core
from engine.limits import CoreLimits

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


def of_markets(count: int) -> dict[str, int]:
    """Listed markets that nobody trades in."""
    rows = markets(count, MAX_PRICE)

    def listed(core: Core) -> int:
        return count if core.market_index(f"M{count - 1}") == count - 1 else 0

    return _applied(lambda: Core(CoreLimits(markets=count)), [assets([b"BASE", b"QUOTE"]), rows], count, listed)


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
        "markets": lambda: of_markets(count),
        "accounts": lambda: of_accounts(count),
    }[what]()
    print(json.dumps(made))


if __name__ == "__main__":
    main()
