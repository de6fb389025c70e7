"""The bench of order entry at its smoke size: its own checks (gapless acks, replayed hash) are the test."""

import pytest

from bench.bench_gateway import run
from bench.gateway_load import Load, check_answers
from bench.gateway_system import system_rates
from bench.harness import WrongResult


def test_smoke_run_checks_its_results_and_gives_its_rows() -> None:
    rows = run(smoke=True, seed=3)
    assert [row.metric for row in rows] == ["answers", "acked orders", "acked orders"] * 2
    assert all(row.value > 0 and row.ok for row in rows)


def test_load_beside_a_whole_system_is_checked_to_the_replayed_hash() -> None:
    rates = system_rates("durable", count=60, connections=3, in_flight=8, rounds=2, seed=3)
    assert len(rates) == 2 and min(rates) > 0


@pytest.mark.parametrize(
    ("acks", "fault"),
    [
        (['{"rid":1,"event":"accepted","sequence":5}'], "is for request 1"),
        (['{"rid":0,"event":"rejected","reason":"busy","sequence":5}'], "unexpected"),
        (['{"rid":0,"event":"accepted","sequence":5}', '{"rid":1,"event":"canceled","sequence":5}'], "after 5"),
        ([], "0 answers to 1"),
    ],
)
async def test_a_wrong_answer_is_no_result(acks: list[str], fault: str) -> None:
    load = Load([b""] * max(1, len(acks)), 1, None)
    load.acks = [text.encode() for text in acks]
    with pytest.raises(WrongResult, match=fault):
        check_answers([load])
