"""Worlds at random: many seeds, each with its own faults, all invariants. A failing one prints itself, shortened."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import explain
from tests.simulation.budget import lacks
from tests.simulation.loop import Schedule, VirtualLoop
from tests.simulation.world import SHORT_QUEUE, draw_plan, run_seed

SEEDS, GROUP = 200, 5

FOUND = {
    4: "`filled` of a closed budget order was told in lots after a restart (duplicate, resolve)",
    317: "a seek in the event log passed over a command that ran over an index block, the next one being unpublished",
    1866: "the auditor took a slice that a stop ended behind an uncross for one of the uncross (no fault of ours)",
    3083: "the auditor took refusals of a journal that had failed for answers (no fault of ours)",
    4704: "the operator's status told of a command, with its chain word, that the disk did not have yet",
    6822: "the auditor compared a projection with a core that was a command ahead of it (no fault of ours)",
    25: "a failed sync, a kill and a loss of power made a hole: the last group was never written again",
}
"""Seeds that failed once, and why: they run with the others. All of these in plans of edition 0."""
FOUND_SINCE = {
    85: (1, "the auditor took the operator's status behind a journal that had failed for an ack (no fault of ours)"),
    1306: (6, "the auditor took a snapshot whose syncs the disk had lied about for a whole one (no fault of ours)"),
    1617: (4, "the operator never called the auction by which a crossed book gets out of its phase (no fault of ours)"),
}
"""With the edition of their plans."""


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_every_invariant_holds_in_any_world(first: int) -> None:
    for seed in range(first, first + GROUP):
        result = run_seed(seed)
        assert not result.violations, explain(draw_plan(seed), result, tries=30)
        assert result.replies > 100, "the world was not silent"


def test_a_world_with_a_short_queue_is_overloaded_and_seeds_that_are_not_prove_nothing() -> None:
    seed = next(seed for seed in range(SEEDS, SEEDS + 100) if draw_plan(seed).queue == SHORT_QUEUE)
    result = run_seed(seed)
    assert not result.violations and result.faults["press"] and result.outcomes["overloaded"] == 1, result.outcomes
    assert "29 of 40 worlds" in lacks({"short_queue": 40, "overloaded": 29})
    assert not lacks({"short_queue": 40, "overloaded": 30}) and not lacks({"short_queue": 5})


def test_a_step_that_is_given_while_another_is_being_given_has_a_number_of_its_own() -> None:
    """As a task does that is collected as garbage in that moment: two steps of one number have no order."""
    schedule, ran = Schedule(), list[str]()

    class Collected(int):
        def __lt__(self, other: int) -> bool:
            schedule.at(0, lambda: ran.append("inner"), VirtualLoop(schedule, "inner"))
            return int(self) < other

    schedule.at(Collected(), lambda: ran.append("outer"), VirtualLoop(schedule, "outer"))
    schedule.run(0)
    assert ran == ["outer", "inner"]


@pytest.mark.parametrize(
    ("seed", "edition"), [*((seed, 0) for seed in FOUND), *((seed, since) for seed, (since, _) in FOUND_SINCE.items())]
)
def test_what_was_found_once_holds_and_is_the_same_world_again(seed: int, edition: int) -> None:
    plan = draw_plan(seed, edition=edition)
    first, again = run_seed(seed, plan=plan), run_seed(seed, plan=plan)
    assert not first.violations, explain(plan, first, tries=30)
    assert (first.state_hash, first.replies, first.faults) == (again.state_hash, again.replies, again.faults)
