"""What a seed of the simulator costs: processor seconds of one core, each seed a world of 60 virtual seconds and more.

A seed is what the report card counts: a whole exchange with its clients, the faults that the seed draws, recovery and
audit behind each, and a settler over a chain that lies. The bound is of the 95th percentile (decision 72): one seed in
some hundred draws many crashes. `python -m tests.simulation` runs them, one after the other, pinned to one core.

A seed that breaks an invariant is no result: the bench fails and names it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.harness import Row, WrongResult, pinned

__all__ = ["LEFT_OUT", "MIX", "run"]

LEFT_OUT = "real disks, networks and processes: those are `python -m tests.faults --kills N`"
MIX = "consecutive seeds, each with the faults that it draws"
SEEDS, SEEDS_SMOKE = 200, 3
P95_MUST_S = 1.0


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of the seeds from `seed` on. Raises WrongResult: a seed broke an invariant."""
    count = SEEDS_SMOKE if smoke else SEEDS
    argv = [sys.executable, "-m", "tests.simulation", "--seeds", str(count), "--first", str(seed), "--json"]
    with pinned():
        done = subprocess.run(argv, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise WrongResult(f"python -m tests.simulation ended with status {done.returncode}: {done.stdout[-2_000:]}")
    told = json.loads(done.stdout)
    cost = told["pace"]
    case = f"a seed of at least {cost['virtual_s_min']:.0f} virtual seconds, {count} of them"
    return [
        Row(case, "CPU, median", cost["cpu_s_median"], "s"),
        Row(case, "CPU, p95", cost["cpu_s_p95"], "s", must=P95_MUST_S),
        Row(case, "CPU, the longest", cost["cpu_s_max"], "s"),
        Row(case, "virtual seconds a second", told["virtual_s"] / told["seconds"], "s/s"),
        Row(case, "records checked by the auditor", told["commands"], "count"),
        Row(case, "faults", sum(told["faults"].values()), "count"),
    ]
