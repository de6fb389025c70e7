"""`python -m tests.simulation --seeds N --first K [--json] [--processes P]`: a budget of seeds; or one of them again.

    --seed S          one seed alone: prints its faults and, if it fails, a shortened plan and the end of its history
    --history         with --seed: the history even if it holds
    --edition E       with --seed: the plan as an earlier edition drew it (FOUND in test_seeds.py)
    --json            one object at the end instead of a line for each thousand seeds

Exit status 1: an invariant was broken, or the seeds did not meet what they must to prove it (`lacks`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from typing import Any

from tests.simulation.budget import SeedResult, lacks, pace, seed_results
from tests.simulation.settlement_world import run_settlement
from tests.simulation.shorten import shorten
from tests.simulation.world import EDITION, Plan, Result, draw_plan, run_seed

HISTORY_LINES = 60


def again(seed: int) -> str:
    """The command that runs a seed again."""
    return f"python -m tests.simulation --seed {seed}"


def explain(plan: Plan, result: Result, *, tries: int = 60) -> str:
    """What a failing seed tells: itself, the command, the shortest plan found, the end of its history."""
    seed = plan.seed
    short, found = shorten(plan, result, _run_plan, tries=tries)
    lines = [f"seed {seed} fails: {result.failure}", f"run it again: {again(seed)}"]
    lines.append(f"shortened from {len(plan.faults)} faults in {plan.duration_ms} ms to {len(short.faults)}:")
    lines += [f"  {fault}" for fault in short.faults]
    lines.append(f"  duration_ms={short.duration_ms}: {found.failure}")
    lines += [f"the last {HISTORY_LINES} lines of its history:", *found.history[-HISTORY_LINES:]]
    return "\n".join(lines)


def _run_plan(plan: Plan) -> Result:
    return run_seed(plan.seed, plan=plan)


def _one(seed: int, edition: int, with_history: bool) -> int:
    plan = draw_plan(seed, edition=edition)
    result = run_seed(seed, plan=plan, with_history=with_history)
    print(
        f"seed {seed}: {result.outcome}, {result.virtual_s:.0f} virtual s in {result.cpu_s:.2f} s of CPU, "
        f"{result.requests} requests, {result.commands} records, {result.recoveries} recoveries, "
        f"{dict(result.faults)}, {dict(result.outcomes)}"
    )
    settled = run_settlement(seed)
    print(f"settlement: {settled.batches} commits, {settled.kills} kills, {dict(settled.faults)} {settled.failure}")
    if result.violations:
        print(explain(plan, result))
    elif with_history:
        print("\n".join(result.history))
    return bool(result.violations or settled.violations)


def summary(results: list[SeedResult], elapsed_s: float) -> dict[str, Any]:
    """Sums over seeds, as the report card has them."""
    faults, outcomes = Counter[str](), Counter[str]()
    for result in results:
        faults.update(result.faults)
        outcomes.update(result.outcomes)
    return {
        "seeds": len(results), "first": results[0].seed if results else 0,
        "virtual_s": round(sum(result.virtual_s for result in results)), "seconds": round(elapsed_s, 1),
        "commands": sum(result.commands for result in results),
        "requests": sum(result.requests for result in results), "replies": sum(result.replies for result in results),
        "batches": sum(result.batches for result in results),
        "pace": pace(results),
        "recoveries": sum(result.recoveries for result in results),
        "slowest_recovery_s": round(max((result.recovery_s for result in results), default=0.0), 4),
        "faults": dict(sorted(faults.items())), "outcomes": dict(sorted(outcomes.items())),
        "lacks": lacks(outcomes),
        "failures": [{"seed": r.seed, "failure": r.failure, "again": again(r.seed)} for r in results if r.failure],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--edition", type=int, default=EDITION)
    parser.add_argument("--history", action="store_true")
    wanted = parser.parse_args()
    if wanted.seed is not None:
        return _one(wanted.seed, wanted.edition, wanted.history)
    began, results = time.monotonic(), []
    for result in seed_results(wanted.seeds, first=wanted.first, processes=wanted.processes):
        results.append(result)
        if result.failure:
            print(f"seed {result.seed} FAILS: {result.failure}\n  {again(result.seed)}", file=sys.stderr, flush=True)
        if not wanted.json and len(results) % 100 == 0:
            print(f"{len(results)} seeds, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    told = summary(results, time.monotonic() - began)
    print(json.dumps(told, indent=None if wanted.json else 2))
    return bool(told["failures"] or told["lacks"])


if __name__ == "__main__":
    raise SystemExit(main())
