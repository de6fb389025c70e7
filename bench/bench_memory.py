"""Memory of the core by what it holds: resting orders, idle markets, accounts with money in three assets.

Each is measured in a process of its own, which reads its resident memory before and after (bench/footprint_probe.py):
all that the core touches is in it, maps, ids, levels, state hash. The must of a resting order is for a million of them
on 100,000 prices, all with client ids; ids of closed orders have one budget, `CoreLimits.client_ids_total`. Memory
grows in steps of 2 MiB pages, so small numbers of things look dear.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.harness import Row, WrongResult

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "the process itself, Python, event buffers"
MB = 1e6
ORDER_MUST_BYTES, MARKETS_MUST_MB, ACCOUNTS_MUST_MB = 128.0, 400.0, 200.0


def measured(what: str, count: int, *more: int) -> int:
    """Bytes that the probe saw the core grow by. Raises WrongResult if the probe does."""
    argv = [sys.executable, "-m", "bench.footprint_probe", what, str(count), *map(str, more)]
    done = subprocess.run(argv, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    if done.returncode:
        raise WrongResult(f"{what}: {done.stderr.strip()[-400:]}")
    return int(json.loads(done.stdout)["bytes"])


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of memory. `seed` changes nothing: what is measured has no chance in it but the order of prices."""
    orders, levels, markets, accounts = (5_000, 500, 200, 2_000) if smoke else (1_000_000, 100_000, 100_000, 1_000_000)
    an_order = measured("orders", orders, levels) / orders
    an_id = measured("ids", orders) / orders
    listed = measured("markets", markets) / MB
    used = measured("used", markets) / MB
    held = measured("accounts", accounts) / MB
    return [
        Row(f"a resting order, {orders:,} of them", "resident", an_order, "bytes", must=ORDER_MUST_BYTES),
        Row(f"the id of a closed order, {orders:,} of them", "resident", an_id, "bytes"),
        Row(f"{markets:,} idle markets", "resident", listed, "MB", must=MARKETS_MUST_MB),
        Row(f"{markets:,} idle markets, each of which has had an order", "resident", used, "MB"),
        Row(f"{accounts:,} accounts with 3 assets", "resident", held, "MB", must=ACCOUNTS_MUST_MB),
    ]
