"""The smoke size of the fan-out bench: its checks are the test."""

from bench.bench_fanout import run


def test_smoke_size_checks_books_bytes_and_reconnects():
    rows = run(True, 20260801)
    assert [row.unit for row in rows] == ["M/s", "M/s", "k/s", "x", "bytes", "s", "s", "ms"]
    assert all(row.value > 0 for row in rows)
