"""Many seeds, one after the other or on several processes, and what came of each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

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
    """How often which kind of fault came about; `detected`: damage that kept the exchange from starting, as it must."""
    recoveries: int
    recovery_s: float
    """The slowest, in real seconds; 0 if there was none."""
    virtual_s: float
    seconds: float
    failure: str
    """Empty: every invariant held."""


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
    try:
        result = run_seed(seed)
    except Exception as error:  # noqa: BLE001 - a fault of the simulator is a failure of that seed, told with the others
        result = Result(seed)
        return _told(result, f"the simulator itself: {type(error).__name__}: {error}")
    return _told(result, result.failure)


def _told(result: Result, failure: str) -> SeedResult:
    return SeedResult(
        result.seed, result.commands, result.requests, result.replies, dict(result.faults), result.recoveries,
        result.recovery_s, result.virtual_s, result.seconds, failure,
    )  # fmt: skip
