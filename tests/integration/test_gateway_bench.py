"""The bench of order entry at its smoke size: its own checks (gapless acks, replayed hash) are the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.bench_gateway import run
from bench.driver import library
from bench.gateway_client import Draws, Result, connect, drive, judge, plan
from bench.gateway_load import Load, check_answers
from bench.gateway_server import serving
from bench.gateway_system import system_rates
from bench.harness import WrongResult
from engine.messages import edge


def test_smoke_run_checks_its_results_and_gives_its_rows() -> None:
    rows = run(smoke=True, seed=3)
    metrics = [row.metric for row in rows]
    assert metrics.count("acked orders") == 6 and metrics.count("from plan to answer p99") == 5
    assert all(row.value > 0 for row in rows)
    assert {row.case.split(",")[0] for row in rows if row.baseline} == {
        "memory acks", "durable acks", "journal append beside a copy and its CRC32C",
    }  # fmt: skip


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


def _spoilt(result: Result, spoil: Callable[[np.ndarray, int], None]) -> Result:
    made, data, start, stop = result.answers[0]
    data = data.copy()
    spoil(data, int(start[1]))
    return replace(result, answers=[(made, data, start, stop), *result.answers[1:]])


def test_records_that_say_what_cannot_be_are_no_result(tmp_path: Path) -> None:
    assert library("gateway")
    with serving("memory", tmp_path / "data", 2) as served:
        sockets = [connect(served.url, key, "binary") for key in served.keys]
        rng = np.random.default_rng(5)
        plans = [plan("binary", Draws.of(64, f"c{n}", rng), at.account, 4) for n, at in enumerate(sockets)]
        result = drive(sockets, plans, 2)
        first, last = judge(result)
        assert last - first + 1 == result.commands == 128 and result.took_ns.min() > 0
        rid, sequence = edge.ACK.fields["rid"][1], edge.ACK.fields["sequence"][1]  # type: ignore[index]
        name, kind = edge.ACK.itemsize + 40, edge.ACK.itemsize + 28
        for at in (0, rid, sequence, name, kind):

            def spoil(data: np.ndarray, answer: int, at: int = at) -> None:
                data[answer + at] += 1

            with pytest.raises(WrongResult):
                judge(_spoilt(result, spoil))
        for signed in sockets:
            signed.socket.close()
        with pytest.raises(WrongResult, match="answers"):
            drive(sockets[:1], plans[:1], 1)
