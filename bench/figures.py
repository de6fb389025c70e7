"""The README's tables of measurements, written from files of results: what it says is what was measured.

    <!-- figures: gateway-2026-11-21-5252f9ae8e41.json -->
    | … |
    <!-- /figures -->

`python -m bench.figures` writes them anew from the files of bench/results that they name. Given files, as in
`python -m bench.figures bench/results/gateway-DATE-COMMIT.json`, a table of the same bench names and shows that one
from then on. A row that is only the other's side of a comparison (bare echo, bare broadcast) stands beside ours.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from bench.harness import LESS_IS_BETTER

__all__ = ["RESULTS", "README", "rewritten", "table"]

README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent / "results"
_BLOCK = re.compile(r"<!-- figures: (?P<bench>\w+)-(?P<rest>[\w.+-]+\.json) -->\n.*?<!-- /figures -->", re.S)
_BARE = "bare picows"
_UNITS = {"us": (1.0, " µs"), "1/s": (1.0, "/s"), "k/s": (1e3, "/s"), "x": (100.0, " %")}


def table(content: dict[str, Any]) -> str:
    """The rows of one file of results (the shape of `harness.report`) as Markdown."""
    lines = ["| measured | value | beside it in the same run | must |", "| --- | --- | --- | --- |"]
    for row in content["rows"]:
        if row["case"].startswith(_BARE):
            continue
        unit = row["unit"]
        beside = _number(row["baseline"], unit) if "baseline" in row else ""
        must = ""
        if "must" in row:
            must = f"{'≤' if unit in LESS_IS_BETTER else '≥'} {_number(row['must'], unit)}"
        if not row["ok"]:
            must = f"{must} **missed**".strip()
        lines.append(f"| {row['case']}: {row['metric']} | {_number(row['value'], unit)} | {beside} | {must} |")
    return "\n".join(lines)


def rewritten(text: str, results: Path, newer: tuple[Path, ...] = ()) -> str:
    """The text with each table as its file says. Raises OSError: a file that it names is not there."""
    by_bench = {json.loads(path.read_text())["bench"]: path for path in newer}

    def block(found: re.Match[str]) -> str:
        path = by_bench.get(found["bench"], results / f"{found['bench']}-{found['rest']}")
        return f"<!-- figures: {path.name} -->\n{table(json.loads(path.read_text()))}\n<!-- /figures -->"

    return _BLOCK.sub(block, text)


def _number(value: float, unit: str) -> str:
    """Three digits that mean something, and the unit as one reads it."""
    factor, word = _UNITS.get(unit, (1.0, f" {unit}" if unit else ""))
    rounded = float(f"{value * factor:.3g}")
    return (f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}") + word


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(), RESULTS, tuple(Path(name) for name in sys.argv[1:])))
