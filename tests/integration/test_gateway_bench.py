"""The bench of order entry at its smoke size: its own checks (gapless acks, replayed hash) are the test."""

from bench.bench_gateway import run


def test_smoke_run_checks_its_results_and_gives_three_rows() -> None:
    rows = run(smoke=True, seed=3)
    assert [row.metric for row in rows] == ["answers", "acked orders", "acked orders"]
    assert all(row.value > 0 and row.ok for row in rows)
