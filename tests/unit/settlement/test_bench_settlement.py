"""The bench's smoke size runs and checks itself."""

from __future__ import annotations

import pytest
import typer

from bench.bench_settlement import run


def test_smoke() -> None:
    rows = run(True, 7)
    effects = {row for row in rows if row.metric.startswith("with_an_effect_")}
    assert {row.metric for row in rows if row not in effects} == {
        "cut_to_final_median", "cut_to_final_worst", "bare_move_calls", "netting", "cut_to_final_p99",
        "computation_a_batch_estimated", "computation_a_batch_estimated_at_750_mist",
        "computation_a_day_estimated_at_750_mist", "computation_a_settled_trade_estimated_at_750_mist",
        "committed_once_and_in_order", "faults_with_an_effect", "batch_with_a_fault", "questions_lost", "caught_up",
        "tree_built", "tree_changed", "close", "first_close_with_ids", "proof_file",
    }  # fmt: skip
    assert len(effects) == 12 and any(row.value for row in effects)
    assert all(row.value > 0 for row in rows if row not in effects)
    assert next(row for row in rows if row.metric == "proof_file").ok


def test_one_case_alone() -> None:
    assert [row.metric for row in run(True, 7, "netting")] == ["netting"]
    with pytest.raises(typer.BadParameter, match="no case nothing"):
        run(True, 7, "netting,nothing")
