"""The bench's smoke size runs and checks itself."""

from __future__ import annotations

import pytest
import typer

from bench.bench_settlement import run


def test_smoke() -> None:
    rows = run(True, 7)
    assert {row.metric for row in rows} == {
        "cut_to_final_median", "cut_to_final_worst", "bare_move_calls",
        "netting", "cut_to_final_p99", "gas_a_batch", "gas_a_batch_at_750_mist", "gas_a_settled_trade_at_750_mist",
        "committed_once_and_in_order", "faults_switched", "batch_with_a_fault", "caught_up",
        "tree_built", "tree_changed", "close", "first_close_with_ids", "proof_file",
    }  # fmt: skip
    assert all(row.value > 0 for row in rows)
    assert next(row for row in rows if row.metric == "proof_file").ok


def test_one_case_alone() -> None:
    assert [row.metric for row in run(True, 7, "netting")] == ["netting"]
    with pytest.raises(typer.BadParameter, match="no case nothing"):
        run(True, 7, "netting,nothing")
