"""One timed run of a stored W1 in a process of its own, for the bench of the state hash: prints one JSON object.

    python -m bench.hash_probe FILE COUNT

The engine is whichever stands first on the path: the bench starts this with the checkout's own, and with a copy that
was built without the upkeep of the state hash. Trades, volume and notional are printed for the bench to compare.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.driver import Native
from bench.records import commands, funded
from bench.workload import Workload, read


def main() -> None:
    preload, records = read(Path(sys.argv[1]))
    records = records[: preload + int(sys.argv[2])]
    _, first = funded()
    played = commands(Workload("W1", 0, preload, records, 0, 0, 0, 0, 0, 0, 0), first)
    core, _ = funded()
    core.reserve(len(records))
    native = Native(core)
    before = native.play(played.records, 0, played.preload)
    timed = native.play(played.records, played.preload)
    got = {name: getattr(before, name) + getattr(timed, name) for name in ("trades", "volume", "notional")}
    print(json.dumps({"ns": timed.ns, "hash": core.state_hash().hex(), **got}))


if __name__ == "__main__":
    main()
