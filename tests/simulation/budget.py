"""Many seeds, one after the other or on several processes, and what came of each.

A seed is two worlds: a whole exchange with its clients (`world.py`), and settlement over a chain
(`settlement_world.py`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulation.settlement_world import SettlementResult, run_settlement
from tests.simulation.world import Result, run_seed

__all__ = ["SeedResult", "run_seeds", "seed_results"]


@dataclass(frozen=True, slots=True)
class SeedResult:
    seed: int
    commands: int
    """Records of the journal that the auditor went through."""
    requests: int
    replies: int
    faults: dict[str, int]
    """How often which kind of fault came about, those of settlement as `chain_…`. `detected`: damage that kept the
    exchange from starting, as it must."""
    recoveries: int
    recovery_s: float
    """The slowest, in real seconds; 0 if there was none."""
    virtual_s: float
    seconds: float
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
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_run, seeds, chunksize=8)


def run_seeds(
    count: int, *, first: int = 0, on_seed: Callable[[SeedResult], None] = lambda result: None, processes: int = 1
) -> None:
    """Run `count` seeds from `first` on; `on_seed` hears of each, in order."""
    for result in seed_results(count, first=first, processes=processes):
        on_seed(result)


def _run(seed: int) -> SeedResult:
    failures: list[str] = []
    result, settled = Result(seed), SettlementResult(seed)
    try:
        result = run_seed(seed)
        settled = run_settlement(seed)
    except Exception as error:  # noqa: BLE001 - a fault of the simulator is a failure of that seed, told with the others
        failures.append(f"the simulator itself: {type(error).__name__}: {error}")
    failures += [failure for failure in (result.failure, settled.failure) if failure]
    faults = dict(result.faults) | {f"chain_{name}": count for name, count in settled.faults.items() if count}
    return SeedResult(
        seed, result.commands, result.requests, result.replies, faults, result.recoveries + settled.kills,
        result.recovery_s, result.virtual_s, result.seconds, "; ".join(failures), settled.batches,
    )  # fmt: skip
