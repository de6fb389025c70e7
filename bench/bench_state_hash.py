"""What the state hash costs: ns a command on W1, and how long a cut holds up matching.

    cost     W1 native, everything on, beside the same engine without the upkeep of the hash, in turns: the difference.
             That engine is a copy of this checkout in build/unhashed whose functions of digest.pxd that note a
             change or add to the sum return at once; the compiler then drops the mixing as well. The fastest of
             nine runs of each: what else the machine does only ever adds, and would drown a difference of medians.
    cut      one core with a million accounts; before every cut 4,096 orders of 4,096 accounts, or a trade in each of
             4,096 markets, so that the lists of what waits to be mixed are full. The cut alone is timed, by the C door.
             A cut during which the kernel gave the core to other work says nothing and is left out, by number.

The copy must trade as the checkout does; the core of the cuts is walked by `check()`, which mixes everything anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.driver import Native, ns_per_tick, timer_ticks
from bench.harness import Row, WrongResult, median, pinned
from bench.records import (
    FIRST_ACCOUNT,
    accounts,
    apply_all,
    assets,
    cancels,
    deposits,
    markets,
    numbered,
    places,
    slots_of,
)  # fmt: skip
from bench.workload import head, stored, write
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import CommandKind

__all__ = ["LEFT_OUT", "many_accounts", "run"]

ALWAYS_LEFT_OUT = "wire, journal, disk; snapshots. One thread"
LEFT_OUT = ALWAYS_LEFT_OUT
ROOT = Path(__file__).parent.parent
STORE = ROOT / "build" / "bench"
COUNT = 1_000_000
ROUNDS = 9
HASH_MUST, CUT_MUST_MS = 25.0, 1.0
FUNCTIONS = ("add_mix", "remove_mix", "replace_mix", "touch_order", "touch_balance", "touch_market", "forget_order")
"""Of digest.pxd: everything by which the engine keeps the hash up."""
WAITING = 4_096
ACCOUNTS, CUTS = 1_000_000, 100


# ---------------------------------------------------------------- cost


def unhashed_source(source: str) -> str:
    """digest.pxd with functions that do nothing. Raises WrongResult if one of them is not there."""
    for name in FUNCTIONS:
        source, found = re.subn(rf"(cdef inline void {name}\([^)]*\) noexcept nogil:\n)", r"\1    return\n", source)
        if found != 1:
            raise WrongResult(f"digest.pxd has no function {name} that could be left out")
    return source


def unhashed() -> Path:
    """A folder with the engine built without the hash's upkeep; built once for each state of the sources."""
    paths = sorted(path for kind in ("*.pyx", "*.pxd", "*.h", "*.py") for path in (ROOT / "engine").rglob(kind))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in [*paths, ROOT / "setup.py"])).hexdigest()[:16]
    folder = ROOT / "build" / "unhashed" / digest
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder.parent, ignore_errors=True)
    for path in paths:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    target = folder / "engine" / "digest.pxd"
    target.write_text(unhashed_source(target.read_text()))
    shutil.copy(ROOT / "setup.py", folder)
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "BYLINE_PACKAGES": "engine"},
    )  # fmt: skip
    if built.returncode:
        raise WrongResult(f"the engine without a state hash does not build: {built.stderr.strip()[-400:]}")
    (folder / "done").touch()
    return folder


def cost(seed: int, rounds: int) -> Row:
    """The row of what the upkeep costs a command."""
    workload = head(stored(STORE, "W1", seed), COUNT)
    path = STORE / "hash-probe.lobw"
    write(path, workload)
    taken: dict[Path, list[int]] = {ROOT: [], unhashed(): []}
    hashes = set()
    for _ in range(rounds):
        for folder, times in taken.items():
            # The folder of `-m` is the first on the path, so that its engine is the one.
            argv = [sys.executable, "-m", "bench.hash_probe", str(path), str(workload.ops)]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
            if done.returncode:
                raise WrongResult(f"the run in {folder} failed: {done.stderr.strip()[-400:]}")
            got = json.loads(done.stdout)
            if any(got[name] != getattr(workload, name) for name in ("trades", "volume", "notional")):
                raise WrongResult(f"the run in {folder} did not trade as the reference book")
            times.append(got["ns"])
            hashes.add((folder, got["hash"]))
    if len(hashes) != 2 or len({hash for _, hash in hashes}) != 2:
        raise WrongResult("the copy keeps a state hash up, or a run ended otherwise than the one before it")
    with_hash, without = taken.values()
    extra = (min(with_hash) - min(without)) / workload.ops
    return Row("W1 upkeep of the state hash", "ns a command", extra, "ns", must=HASH_MUST)


# ---------------------------------------------------------------- cut


def many_accounts(count: int, listed: int, waiting: int) -> tuple[Core, int]:
    """A core of `count` accounts with money of both kinds in turns, and `listed` markets; and its next sequence."""
    core = Core(CoreLimits(accounts=count + FIRST_ACCOUNT, orders=1 << 21))
    everyone = FIRST_ACCOUNT + np.arange(count)
    parts = [assets([b"BASE", b"QUOTE"]), markets(listed, 1_000), accounts(count)]
    parts += [deposits(everyone, 1, 10**9), deposits(everyone[:waiting], 0, 10**9)]
    slots, after = numbered(parts, 1)
    apply_all(core, slots)
    return core, after


def pauses(count: int, listed: int, waiting: int, cuts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of the cuts after orders, and of those after trades; NaN: the kernel took the core."""
    core, sequence = many_accounts(count, listed, waiting)
    native, rng, tick = Native(core, 1 << 16), np.random.default_rng(seed), ns_per_tick()
    timer = float(np.median(timer_ticks()))
    taken: tuple[list[float], list[float]] = ([], [])

    def cut(parts: list[np.ndarray], into: list[float] | None) -> None:
        nonlocal sequence
        records, sequence = numbered([*parts, slots_of(CommandKind.CUT, 1, layout.COMMAND)], sequence)
        native.play(records, 0, len(records) - 1)
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        ticks, _ = native.ticks(records, len(records) - 1)
        if into is not None:
            alone = switches == resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
            into.append(max(0.0, float(ticks[0]) - timer) * tick / 1e6 if alone else math.nan)

    one = np.ones(waiting, np.int64)
    for number in range(cuts):
        who = FIRST_ACCOUNT + rng.choice(count, waiting, replace=False)
        ids = sequence + np.arange(waiting)
        cut([places(who, 0 * one, 0 * one, one, one, ids)], taken[0])
        cut([cancels(who, ids)], None)
        if number % 4 == 0:
            where = np.arange(listed)
            sellers, buyers = FIRST_ACCOUNT + where % waiting, FIRST_ACCOUNT + waiting + where % waiting
            ids = sequence + np.arange(2 * listed)
            sells = places(sellers, where, where * 0 + 1, where * 0 + 500, where * 0 + 2, ids[:listed])
            buys = places(buyers, where, where * 0, where * 0 + 500, where * 0 + 1, ids[listed:])
            cut([sells, buys], taken[1])
            cut([cancels(sellers, ids[:listed])], None)
    core.check()
    return np.array(taken[0]), np.array(taken[1])


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of the upkeep and of the cut. `seed` is that of W1."""
    global LEFT_OUT
    count, listed, waiting, cuts = (4_000, 64, 1_000, 8) if smoke else (ACCOUNTS, WAITING, WAITING, CUTS)
    LEFT_OUT = f"{ALWAYS_LEFT_OUT}; the upkeep, for which an engine is built" if smoke else ALWAYS_LEFT_OUT
    with pinned():
        rows = [] if smoke else [cost(seed, ROUNDS)]
        orders, trades = pauses(count, listed, waiting, cuts, seed)
    for name, all_taken in ((f"{waiting:,} orders", orders), (f"trades in {listed:,} markets", trades)):
        taken = all_taken[~np.isnan(all_taken)]
        if lost := len(all_taken) - len(taken):
            LEFT_OUT += f"; {lost} of {len(all_taken)} cuts after {name}, during which the kernel took the core"
        if not len(taken):
            raise WrongResult("the machine is too busy to time a single cut")
        case = f"cut, {count:,} accounts, after {name}"
        rows.append(Row(f"{case}, median", "pause", median(taken.tolist()), "ms"))
        rows.append(Row(f"{case}, worst of {len(taken)}", "pause", float(taken.max()), "ms", must=CUT_MUST_MS))
    return rows
