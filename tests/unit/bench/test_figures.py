"""What the README says was measured is what the files of results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.figures import README, RESULTS, rewritten, table

ROWS = [
    {"case": "bare picows echo, JSON", "metric": "answers", "value": 171_213.4, "unit": "1/s", "ok": True},
    {"case": "memory acks, JSON", "metric": "acked orders", "value": 138_981.2, "unit": "1/s", "baseline": 171_213.4,
     "ratio": 0.81, "must": 111_288.7, "ok": True},
    {"case": "durable acks", "metric": "p50", "value": 356.16, "unit": "us", "baseline": 80.778, "must": 332.7,
     "ok": False},
    {"case": "readers", "metric": "share", "value": 0.9313, "unit": "x", "must": 0.9, "ok": True},
    {"case": "disk", "metric": "p50", "value": 0.713, "unit": "s", "ok": True},
]  # fmt: skip


def test_readme_tells_what_was_measured() -> None:
    text = README.read_text()
    assert rewritten(text, RESULTS) == text
    assert "<!-- figures: gateway-" in text and "<!-- figures: fanout-" in text


def test_a_row_has_ours_the_others_and_what_was_to_be_reached() -> None:
    assert table({"bench": "gateway", "rows": ROWS}).splitlines()[2:] == [
        "| memory acks, JSON: acked orders | 139,000/s | 171,000/s | ≥ 111,000/s |",
        "| durable acks: p50 | 356 µs | 80.8 µs | ≤ 333 µs **missed** |",
        "| readers: share | 93.1 % |  | ≥ 90 % |",
        "| disk: p50 | 0.713 s |  |  |",
    ]


def test_a_newer_file_replaces_the_table_of_its_bench_alone(tmp_path: Path) -> None:
    for bench, name in (("gateway", "old"), ("gateway", "new"), ("fanout", "old")):
        row = {"case": bench, "metric": name, "value": 1.0, "unit": "ms", "ok": True}
        (tmp_path / f"{bench}-{name}.json").write_text(json.dumps({"bench": bench, "rows": [row]}))
    blocks = [f"<!-- figures: {bench}-old.json -->\n<!-- /figures -->\n" for bench in ("gateway", "fanout")]
    empty = f"a\n{blocks[0]}b\n{blocks[1]}"
    text = rewritten(empty, tmp_path)
    assert "| gateway: old | 1 ms |" in text and "| fanout: old | 1 ms |" in text
    text = rewritten(text, tmp_path, (tmp_path / "gateway-new.json",))
    assert "figures: gateway-new.json" in text and "gateway: new" in text and "gateway: old" not in text
    assert "fanout: old" in text and text.startswith("a\n") and "\nb\n" in text
    with pytest.raises(OSError):
        rewritten(empty, tmp_path / "elsewhere")
