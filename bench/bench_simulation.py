"""What a seed of the simulator costs: processor seconds of one core, each seed a world of 60 virtual seconds and more.

A seed is what the report card counts: a whole exchange with its clients, the faults that the seed draws, recovery and
audit behind each, and a settler over a chain that lies. The bound is of the 95th percentile (decision 72): one seed in
some hundred draws many crashes. Beside it stands the same world without a single fault, so that the price of the
faults and of the audits behind them is seen.

A seed that breaks an invariant is no result: the bench fails and names it.
"""

from __future__ import annotations

from dataclasses import replace

from bench.harness import Row, WrongResult, median, pinned
from tests.simulation.budget import pace, seed_results
from tests.simulation.world import draw_plan, run_seed

__all__ = ["LEFT_OUT", "MIX", "run"]

LEFT_OUT = "real disks, networks and processes: those are `python -m tests.faults --kills N`"
MIX = "consecutive seeds, each with the faults that it draws"
SEEDS, SEEDS_SMOKE = 200, 3
FAULTLESS = 10
P95_MUST_S = 1.0


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of the seeds from `seed` on. Raises WrongResult: a seed broke an invariant."""
    count = SEEDS_SMOKE if smoke else SEEDS
    with pinned():
        results = list(seed_results(count, first=seed))
        quiet = [_faultless(number) for number in range(seed, seed + min(count, FAULTLESS))]
    for result in results:
        if result.failure:
            raise WrongResult(f"seed {result.seed}: {result.failure}")
    cost, bare = pace(results), median(quiet)
    case = f"a seed of at least {cost['virtual_s_min']:.0f} virtual seconds, {count} of them"
    spent = sum(result.cpu_s for result in results)
    return [
        Row(case, "CPU, median", cost["cpu_s_median"], "s", baseline=bare),
        Row(case, "CPU, p95", cost["cpu_s_p95"], "s", baseline=bare, must=P95_MUST_S),
        Row(case, "CPU, the longest", cost["cpu_s_max"], "s", baseline=bare),
        Row(case, "virtual time", sum(result.virtual_s for result in results) / spent, "s/s"),
        Row(case, "records checked by the auditor", sum(result.commands for result in results) / spent, "records/s"),
        Row(case, "faults", sum(sum(result.faults.values()) for result in results) / count, "count"),
    ]


def _faultless(seed: int) -> float:
    """CPU seconds of the exchange's world of a seed whose faults are left out. Raises WrongResult."""
    result = run_seed(seed, plan=replace(draw_plan(seed), faults=()))
    if result.failure:
        raise WrongResult(f"seed {seed} without faults: {result.failure}")
    return result.cpu_s
