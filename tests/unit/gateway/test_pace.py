"""So many steps a turn, in their order, with a bound on those that wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.unsigned import WAITING_MAX, Pace


def test_a_turn_has_so_many_steps_and_nobody_overtakes() -> None:
    turns: list[Callable[[], None]] = []
    done: list[int] = []
    pace = Pace(3, turns.append)
    for number in range(5):
        if not pace.waits(lambda number=number: done.append(number)):  # type: ignore[misc]
            done.append(number)
    assert done == [0, 1, 2] and len(pace) == 2 and len(turns) == 1
    turns.pop()()
    assert done == [0, 1, 2, 3, 4] and not pace.waits(lambda: None), "one is left in this turn"
    assert pace.waits(lambda: done.append(5)) and len(turns) == 1
    turns.pop()()
    assert done[-1] == 5 and len(turns) == 1
    turns.pop()()
    assert not turns, "a turn without a step is the last"


def test_what_waits_is_bounded() -> None:
    pace = Pace(1, lambda turn: None)
    assert not pace.waits(lambda: None)
    while not pace.is_full:
        assert pace.waits(lambda: None)
    assert len(pace) == WAITING_MAX
    with pytest.raises(AssertionError):
        pace.waits(lambda: None)
