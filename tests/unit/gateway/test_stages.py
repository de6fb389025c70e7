"""Histograms of order entry: bounds, seats of keys, and names that are bounded."""

from __future__ import annotations

import pytest

from gateway.stages import BOUNDS_US, NAME_DIGITS, OTHER, STAGES, Stages


def buckets(told: dict[str, object]) -> dict[int, int]:
    return {bound: count for bound, count in told["buckets"] if count}  # type: ignore[attr-defined]


def test_a_time_lies_at_or_below_its_bound() -> None:
    stages = Stages()
    seat = stages.seat_of("a" * 64)
    for ns in (-5, 0, 999, 1_000, 1_001, 2_000, 2_001, 4_000, 4_001, BOUNDS_US[-1] * 1_000, BOUNDS_US[-1] * 1_000 + 1):
        stages.note(seat, 10**12, 10**12 + ns, 0, 10**12)
    told = stages.of_key("a" * 64)
    assert tuple(told) == STAGES and told["durable"]["count"] == 0 and told["durable"]["p50_us"] is None
    assert buckets(told["matched"]) == {1: 4, 2: 2, 4: 2, 8: 1, BOUNDS_US[-1]: 1, -1: 1}
    assert told["matched"]["count"] == 11 and told["matched"]["p50_us"] == 2 and told["matched"]["p99_us"] == -1
    small = (999 + 1_000 + 1_001 + 2_000 + 2_001 + 4_000 + 4_001 + 1) // 1_000
    assert told["matched"]["sum_us"] == 2 * BOUNDS_US[-1] + small
    assert buckets(told["out"]) == {1: 11} and told == stages.of_venue()


def test_each_key_has_its_own_and_the_venue_is_their_sum() -> None:
    stages = Stages()
    for number, key in enumerate(("ab" * 32, "cd" * 32), start=1):
        for _ in range(number):
            stages.note(stages.seat_of(key), 0, 1_000 * number, 3_000 * number, 5_000 * number)
    assert [stages.of_key(key)["durable"]["count"] for key in ("ab" * 32, "cd" * 32, "ef" * 32)] == [1, 2, 0]
    assert stages.of_venue()["out"]["count"] == 3 and stages.of_venue()["out"]["sum_us"] == 25
    assert set(stages.by_key()) == {("ab" * 32)[:NAME_DIGITS], ("cd" * 32)[:NAME_DIGITS]}


def test_names_are_bounded_and_no_count_goes_back() -> None:
    stages = Stages(seats_max=6, told_max=2)
    keys = [f"{number:064x}"[::-1] for number in range(1, 10)]
    seen: dict[str, int] = {}
    for turn, key in enumerate(keys * 2, start=1):
        seat = stages.seat_of(key)
        assert seat == stages.seat_of(key) and (seat == 0) == (key in keys[6:])
        stages.note(seat, 0, 0, 0, 0)
        told = {name: table["out"]["count"] for name, table in stages.by_key().items()}
        assert set(told) <= {keys[0][:NAME_DIGITS], keys[1][:NAME_DIGITS], OTHER} and sum(told.values()) == turn
        assert all(told[name] >= count for name, count in seen.items())
        seen = told
    assert stages.of_venue()["out"]["count"] == len(keys) * 2 == sum(seen.values())
    assert stages.of_key(keys[8])["out"]["count"] == 6  # shared by the three that came too late
    assert stages.of_key(keys[5])["out"]["count"] == 2


def test_seats_that_were_not_given_are_refused() -> None:
    with pytest.raises(ValueError, match="told_max"):
        Stages(seats_max=1, told_max=2)
    with pytest.raises(ValueError, match="seat 1"):
        Stages().note(1, 0, 0, 0, 0)
