"""How long one command takes: p50, p99, p99.9 and the worst on W1 with everything on, and what a fill of a sweep costs.

Each command is one `apply` of the C door between two readings of the cycle counter that no instruction crosses; nothing
looks ahead. What the readings cost with nothing between them, their median, is taken off and stands in its own row.
Five rounds; each number is the median of theirs, the worst that of all. A sweep takes 50 … 70 orders (W3).

Everything is held to the reference book before, and every round must end with the same state hash. Worst case: on a
shared machine the worst latency is the hypervisor's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.driver import Native, ns_per_tick, timer_ticks
from bench.harness import Row, WrongResult, median, pinned
from bench.records import commands, funded, verify
from bench.workload import Workload, generate

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "wire, journal, disk; looking ahead, which single commands cannot have. One market, one thread"
COUNTS = {"W1": 500_000, "W3": 200_000}
ROUNDS = 5
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "worst": 1.0}
MUSTS = {"p50": 80.0, "p99.9": 500.0}
SWEEP = (50, 70)
FILL_MUST = 25.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Nanoseconds of every timed command, the timer's taken off, and how often it traded."""

    ns: np.ndarray
    fills: np.ndarray
    timer_ns: float


def rounds_of(workload: Workload, rounds: int) -> list[Taken]:
    """The timed commands of a workload, measured one by one, again and again.

    Raises:
        WrongResult: what came of them is not what the workload says.
    """
    _, first = funded()
    played = commands(workload, first)
    expected = verify(workload, played)
    tick = ns_per_tick()
    made = []
    for _ in range(rounds):
        core, _ = funded()
        core.reserve(len(played.records))
        native = Native(core)
        before = native.play(played.records, 0, played.preload)
        timer = float(np.median(timer_ticks()))
        ticks, fills = native.ticks(played.records, played.preload)
        if core.state_hash() != expected or before.trades + int(fills.sum()) != workload.trades:
            raise WrongResult(f"{workload.name}: single commands ended otherwise than batches")
        made.append(Taken(np.maximum(ticks - timer, 0.0) * tick, fills, timer * tick))
    return made


def quantile(values: np.ndarray, share: float) -> float:
    """The smallest value that this share of the values does not exceed."""
    return float(np.quantile(values, share, method="inverted_cdf"))


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of latency and of the sweep. `seed` is that of W1."""
    rounds = 1 if smoke else ROUNDS
    sizes = {name: None if smoke else count for name, count in COUNTS.items()}
    with pinned():
        single = rounds_of(generate("W1", seed=seed, ops=sizes["W1"], smoke=smoke), rounds)
        swept = rounds_of(generate("W3", seed=seed + 2, ops=sizes["W3"], smoke=smoke), rounds)
    rows = [Row("timer, nothing between its readings", "latency", median([each.timer_ns for each in single]), "ns")]
    for name, share in SHARES.items():
        each_round = [quantile(each.ns, share) for each in single]
        value = max(each_round) if name == "worst" else median(each_round)
        rows.append(Row(f"W1 one command, {name}", "latency", value, "ns", must=MUSTS.get(name)))
    a_fill = median([ns_per_fill(each) for each in swept])
    rows.append(Row(f"W3 sweep of {SWEEP[0]} … {SWEEP[1]} makers", "ns a fill", a_fill, "ns", must=FILL_MUST))
    return rows


def ns_per_fill(taken: Taken) -> float:
    """Median over the sweeps. Raises WrongResult if there is none."""
    at = (taken.fills >= SWEEP[0]) & (taken.fills <= SWEEP[1])
    if not at.any():
        raise WrongResult(f"no command of the workload takes {SWEEP[0]} … {SWEEP[1]} orders")
    return quantile(taken.ns[at] / taken.fills[at], 0.5)
