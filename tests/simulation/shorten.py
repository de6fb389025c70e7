"""A failing plan made short: leave out faults as long as the same invariant breaks, then end the run early.

Delta debugging over the list of faults: halves, quarters … are left out by turns (Zeller, "Yesterday, my program
worked"). What is left out changes what everybody draws afterwards only where it changed what happened, since each part
of a world has its own dice. A try costs one run, a fraction of a second; their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.world import Fault, Plan, Result

__all__ = ["shorten"]

Run = Callable[[Plan], Result]


def shorten(plan: Plan, failing: Result, run: Run, *, tries: int = 60) -> tuple[Plan, Result]:
    """The shortest plan found that breaks the same invariant, and what came of it."""
    wanted = {violation.invariant for violation in failing.violations}
    best, found = plan, failing
    left = tries

    def fails(candidate: Plan) -> Result | None:
        nonlocal left
        if left <= 0:
            return None
        left -= 1
        result = run(candidate)
        return result if wanted & {violation.invariant for violation in result.violations} else None

    parts = 2
    while best.faults:
        size = max(1, len(best.faults) // parts)
        for begin in range(0, len(best.faults), size):
            rest: tuple[Fault, ...] = best.faults[:begin] + best.faults[begin + size :]
            result = fails(replace(best, faults=rest))
            if result is not None:
                best, found, parts = replace(best, faults=rest), result, max(2, parts - 1)
                break
        else:
            if size == 1 or left <= 0:
                break
            parts = min(2 * parts, len(best.faults))
    last_ms = max((fault.at_ms for fault in best.faults), default=0)
    for duration in (last_ms + 1_000, last_ms + 5_000, last_ms + 15_000):
        if duration < best.duration_ms and (result := fails(replace(best, duration_ms=duration))) is not None:
            return replace(best, duration_ms=duration), result
    return best, found
