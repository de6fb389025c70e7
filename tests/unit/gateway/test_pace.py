"""So many steps a turn, in their order, with a bound on those that wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.unsigned import WAITING_MAX, Pace


class Steps:
    """What was done, by number; those of `gone` cost nothing."""

    def __init__(self, *gone: int) -> None:
        self.gone = gone
        self.done: list[int] = []

    def __call__(self, number: int) -> Callable[[], bool]:
        def step() -> bool:
            self.done.append(number)
            return number not in self.gone

        return step


def waits(pace: Pace, step: Callable[[], bool]) -> bool:
    """Whether it was not taken, and waits."""
    if pace.takes():
        return False
    pace.wait(step)
    return True


def test_a_turn_has_so_many_steps_and_nobody_overtakes() -> None:
    turns: list[Callable[[], None]] = []
    steps, pace = Steps(), Pace(3, turns.append)
    for number in range(5):
        if not waits(pace, steps(number)):
            steps(number)()
    assert steps.done == [0, 1, 2] and len(pace) == 2 and len(turns) == 1
    turns.pop()()
    assert steps.done == [0, 1, 2, 3, 4] and pace.takes(), "one is left in this turn"
    assert waits(pace, steps(5)) and len(turns) == 1
    turns.pop()()
    assert steps.done[-1] == 5 and len(turns) == 1
    turns.pop()()
    assert not turns, "a turn without a step is the last"


def test_who_has_gone_takes_no_place_of_a_turn() -> None:
    turns: list[Callable[[], None]] = []
    steps, pace = Steps(*range(1, 90)), Pace(1, turns.append)
    assert pace.takes() and all(waits(pace, steps(number)) for number in range(1, 92))
    turns.pop()()
    assert steps.done == [*range(1, 91)] and len(pace) == 1


def test_what_waits_is_bounded() -> None:
    pace = Pace(1, lambda turn: None)
    with pytest.raises(AssertionError):
        pace.wait(lambda: True)
    assert pace.takes()
    while not pace.is_full:
        assert waits(pace, lambda: True)
    assert len(pace) == WAITING_MAX
    with pytest.raises(AssertionError):
        pace.wait(lambda: True)
