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
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = [
    "Row", "WrongResult", "build_flags", "busy_seconds", "commit", "machine", "median", "pinned", "report",
    "results_path", "seconds", "unjudged", "write_json",
]  # fmt: skip

ROOT = Path(__file__).parent.parent


class WrongResult(AssertionError):
    """A measured run gave another result than its reference: there is no number to report."""


LESS_IS_BETTER = ("ns", "us", "ms", "s", "bytes", "MB")
"""Units of time and of memory: such a value must be at most its `must`, any other at least."""


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
            reached = self.value <= self.must if self.unit in LESS_IS_BETTER else self.value >= self.must
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


def busy_seconds(function: Callable[[], object]) -> float:
    """CPU time of this thread during one call, the garbage collector held off: for loops that never wait.

    On an idle machine it is the wall time; other work on the machine does not count.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.thread_time_ns()
        function()
        return (time.thread_time_ns() - start) / 1e9
    finally:
        if enabled:
            gc.enable()


def unjudged(rows: list[Row]) -> list[Row]:
    """The rows of a smoke size: nothing must be reached."""
    return [replace(row, must=None, ok=True) for row in rows]


def median(values: list[float]) -> float:
    return statistics.median(values)


_pinned_to: int | None = None


@contextmanager
def pinned() -> Iterator[int | None]:
    """Keep this process, and those it starts, on one core: the last of those it may use. None where that cannot be."""
    global _pinned_to
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    _pinned_to = max(before)
    os.sched_setaffinity(0, {_pinned_to})
    try:
        yield _pinned_to
    finally:
        os.sched_setaffinity(0, before)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def machine() -> str:
    """Processor, cores, where a bench was pinned, what sets the clock, kernel and Python, on one line."""
    cpuinfo = _text("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    model = named[1] if named else platform.processor() or platform.machine()
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown"
    parts = [model, f"{os.cpu_count()} cores"]
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE):
        parts.append("virtual")
    parts.append("not pinned" if _pinned_to is None else f"pinned to core {_pinned_to}")
    parts += [f"governor {governor}", f"{platform.system()} {platform.release()}"]
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def build_flags() -> str:
    """The flags with which the extensions of this checkout are compiled, as setup.py says them on this machine."""
    code = "__file__ = 'setup.py'; exec(open(__file__).read().split('\\nsetup(')[0]); print(*COMPILE_ARGS)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def commit() -> str:
    """The commit of the checkout, with `+` if it is not clean; `unknown` outside one."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    if head.returncode != 0:
        return "unknown"
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def report(bench: str, seed: int, left_out: str, rows: list[Row], mix: str = "") -> dict[str, Any]:
    """The one shape of all benches. `mix` says what the commands are, where a bench says it."""
    return {
        "bench": bench,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "build": build_flags(),
        "seed": seed,
        **({"mix": mix} if mix else {}),
        "left_out": left_out,
        "rows": [row.as_dict() for row in rows],
    }


def results_path(content: dict[str, Any]) -> Path:
    """Where a report is kept if nobody says where: bench/results/BENCH-DATE-COMMIT.json."""
    return ROOT / "bench" / "results" / f"{content['bench']}-{content['date']}-{content['commit']}.json"


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
