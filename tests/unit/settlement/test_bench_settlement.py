"""The bench's smoke size runs and checks itself."""

from __future__ import annotations

from bench import bench_proofs
from bench.bench_settlement import run


def test_smoke() -> None:
    rows = run(True, 7)
    assert {row.metric for row in rows} == {"cut_to_final_median", "cut_to_final_worst", "bare_move_calls"}
    assert all(row.value > 0 for row in rows)


def test_smoke_of_the_proofs() -> None:
    rows = {row.metric: row for row in bench_proofs.run(True, 7)}
    assert set(rows) == {"tree_built", "tree_changed", "close", "first_close_with_ids", "proof_file"}
    assert all(row.value > 0 for row in rows.values()) and rows["proof_file"].ok
