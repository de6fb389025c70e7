"""The smoke size of the market data bench: its checks are the test."""

from bench.bench_marketdata import run


def test_smoke_size_checks_books_and_bytes():
    rows = run(True, 20260801)
    assert [row.unit for row in rows] == ["M/s", "M/s", "k/s"] and all(row.value > 0 for row in rows)
