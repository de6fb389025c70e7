"""The bench's smoke size runs and checks itself."""

from __future__ import annotations

from bench.bench_settlement import run


def test_smoke() -> None:
    rows = run(True, 7)
    assert {row.metric for row in rows} == {"cut_to_final_median", "cut_to_final_worst", "bare_move_calls"}
    assert all(row.value > 0 for row in rows)
