"""Many seeds, one after the other or on several processes, and what came of each.

A seed is two worlds: a whole exchange with its clients (`world.py`), and settlement over a chain
(`settlement_world.py`).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulation.settlement_world import SettlementResult, run_settlement
from tests.simulation.world import OVERLOADED, Result, run_seed

__all__ = ["SeedResult", "lacks", "pace", "run_seeds", "seed_results"]


WORLDS_LEAST, OVERLOADED_LEAST = 20, 0.75
"""From how many worlds with a short queue on, what share of them must be overloaded at some time."""
ENDED = ("refused", "found_by_verify", "told")
"""Outcomes that end a world before its time."""


@dataclass(frozen=True, slots=True)
class SeedResult:
    seed: int
    commands: int
    """Records of the journal that the auditor went through."""
    requests: int
    replies: int
    faults: dict[str, int]
    """How often which kind of fault was committed, each once; those of settlement as `chain_…`."""
    outcomes: dict[str, int]
    """`refused`, `found_by_verify`, `told`: what came of damage that no disk can mend (`world.Result.outcome`); and
    snapshots taken, failed, found damaged."""
    recoveries: int
    recovery_s: float
    """The slowest, in real seconds; 0 if there was none."""
    virtual_s: float
    cpu_s: float
    """Of one core, for both worlds."""
    failure: str
    """Empty: every invariant held."""
    batches: int = 0
    """Commits of settlement batches on the simulated chain, all of them checked."""


def seed_results(count: int, *, first: int = 0, processes: int = 1) -> Iterator[SeedResult]:
    """The results of `count` seeds from `first` on, in order."""
    seeds = range(first, first + count)
    if processes <= 1:
        yield from map(_run, seeds)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin_worker) as pool:
        yield from pool.map(_run, seeds, chunksize=8)


def run_seeds(
    count: int, *, first: int = 0, on_seed: Callable[[SeedResult], None] = lambda result: None, processes: int = 1
) -> None:
    """Run `count` seeds from `first` on; `on_seed` hears of each, in order."""
    for result in seed_results(count, first=first, processes=processes):
        on_seed(result)


def pace(results: Sequence[SeedResult]) -> dict[str, float]:
    """What a seed costs, and how long its world lasts.

    CPU seconds of one core (median, 95 of 100 at most, most) and how many took more than one; virtual seconds of the
    shortest world that no damage ended, and how many damage ended before their time.
    """
    if not results:
        return {}
    cpu = sorted(result.cpu_s for result in results)
    whole = [result.virtual_s for result in results if not set(ENDED).intersection(result.outcomes)]
    return {
        "cpu_s_median": round(cpu[len(cpu) // 2], 3), "cpu_s_p95": round(cpu[len(cpu) * 95 // 100], 3),
        "cpu_s_max": round(cpu[-1], 3), "over_1_s": sum(seconds > 1.0 for seconds in cpu),
        "virtual_s_min": round(min(whole, default=0.0), 1), "ended_by_detected_damage": len(results) - len(whole),
    }  # fmt: skip


def lacks(outcomes: Mapping[str, int]) -> str:
    """What all seeds together did not meet, so that they prove nothing of it; empty: nothing. Of a few seeds nothing is
    said.
    """
    worlds, met = outcomes.get("short_queue", 0), outcomes.get("overloaded", 0)
    if worlds < WORLDS_LEAST or met >= worlds * OVERLOADED_LEAST:
        return ""
    busy, passed = OVERLOADED
    return (
        f"I12 is not proven: {met} of {worlds} worlds with a short queue had {busy} orders told busy and {passed} "
        f"cancels taken meanwhile; {OVERLOADED_LEAST:.0%} must"
    )


def _begin_worker() -> None:
    """Worlds are of virtual time: whoever needs the real one goes first. What was imported is never garbage, and what a
    world leaves is collected once, behind it: looking for it meanwhile costs a tenth of the time, and dead worlds that
    nobody looks for keep their maps and buffers, a gigabyte after some hundred."""
    os.nice(10)
    gc.collect()
    gc.freeze()
    gc.disable()


def _run(seed: int) -> SeedResult:
    failures: list[str] = []
    began = time.process_time()
    result, settled = Result(seed), SettlementResult(seed)
    try:
        result = run_seed(seed)
        settled = run_settlement(seed)
    except Exception as error:  # noqa: BLE001 - a fault of the simulator is a failure of that seed, told with the others
        failures.append(f"the simulator itself: {type(error).__name__}: {error}")
    if not gc.isenabled():
        gc.collect()
    failures += [failure for failure in (result.failure, settled.failure) if failure]
    faults = dict(result.faults) | {f"chain_{name}": count for name, count in settled.faults.items() if count}
    return SeedResult(
        seed, result.commands, result.requests, result.replies, faults, dict(result.outcomes),
        result.recoveries + settled.kills,
        result.recovery_s, result.virtual_s, time.process_time() - began, "; ".join(failures), settled.batches,
    )  # fmt: skip
