"""What every bench shares: the row, the file it ends in, the machine it ran on, and how time is taken.

A bench is a module `bench/bench_NAME.py` with

    LEFT_OUT: str                                    what the numbers do not include
    def run(smoke: bool, seed: int) -> list[Row]     checks each result before it makes its row

A row whose result was not checked for correctness is not written: the checks come first and raise. A row that does not
reach what it must is written with `ok` false, and the bench exits 1.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Row", "WrongResult", "commit", "machine", "median", "report", "seconds", "unjudged", "write_json"]


class WrongResult(AssertionError):
    """A measured run gave another result than its reference: there is no number to report."""


TIMES = ("ns", "us", "ms", "s")
"""Units in which less is better: such a value must be at most its `must`, any other at least."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number. `must` is what it has to reach; `ok` says whether it did, and is never true if not.

    `ratio` is value / baseline.
    """

    case: str
    metric: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    must: float | None = None
    ok: bool = True

    def __post_init__(self) -> None:
        if self.must is not None:
            reached = self.value <= self.must if self.unit in TIMES else self.value >= self.must
            object.__setattr__(self, "ok", self.ok and reached)

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape; what was not given is left out."""
        row: dict[str, Any] = {"case": self.case, "metric": self.metric, "value": self.value, "unit": self.unit}
        for name in ("baseline", "ratio", "must"):
            if getattr(self, name) is not None:
                row[name] = getattr(self, name)
        row["ok"] = self.ok
        return row


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call, the garbage collector held off."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    finally:
        if enabled:
            gc.enable()


def unjudged(rows: list[Row]) -> list[Row]:
    """The rows of a smoke size: nothing must be reached."""
    return [replace(row, must=None, ok=True) for row in rows]


def median(values: list[float]) -> float:
    return statistics.median(values)


def machine() -> str:
    """Processor, cores, kernel and Python, on one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def commit() -> str:
    """The commit of the checkout, with `+` if it is not clean; `unknown` outside one."""
    root = Path(__file__).parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    if head.returncode != 0:
        return "unknown"
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def report(bench: str, seed: int, left_out: str, rows: list[Row]) -> dict[str, Any]:
    """The one shape of all benches."""
    return {
        "bench": bench,
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "left_out": left_out,
        "rows": [row.as_dict() for row in rows],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
