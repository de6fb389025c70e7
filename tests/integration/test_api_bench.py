"""The bench of REST at its smoke size: its own checks of every answer, and of the money split, are the test."""

from bench.bench_api import run


def test_smoke_run_checks_its_answers_and_gives_its_rows() -> None:
    rows = run(smoke=True, seed=3, seconds=1.0)
    metrics = {(row.case.rsplit(": ", 1)[-1], row.metric) for row in rows}
    kinds = ("read", "write", "search", "purchase", "bestseller", "payment", "refund")
    assert metrics >= {(name, "p95") for name in kinds}
    assert any(row.metric.startswith("paid to final") for row in rows)
    assert all(row.value > 0 for row in rows if row.unit in ("ms", "s")) and all(row.ok for row in rows)
