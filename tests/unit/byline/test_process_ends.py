"""How a process ends by an error that nobody expected, and that none begins without assertions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from byline.supervisor import DO_NOT_RESTART

PROGRAM = """
import sys
from pathlib import Path
import {module} as module
from byline.processes.entry import run_process
from byline.settings import load_settings

def broken(*_, **__):
    raise {error}

module.{function} = broken
sys.exit(run_process({name!r}, load_settings({{}}, data_directory=Path({data!r}))))
"""


@pytest.mark.parametrize(
    ("name", "error", "status", "told"),
    [
        ("core", "KeyError(115)", DO_NOT_RESTART, "event=broken_invariant process=core"),
        ("core", "AssertionError('the books')", DO_NOT_RESTART, "event=broken_invariant process=core"),
        ("core", "MemoryError('no memory')", 1, "it may be started again"),
        ("marketdata", "KeyError(115)", 1, "event=fault process=marketdata"),
        ("marketdata", "AssertionError('the book')", DO_NOT_RESTART, "event=broken_invariant process=marketdata"),
    ],
)
def test_a_core_that_meets_what_nobody_expected_stays_down_and_says_why_in_its_last_line(
    tmp_path: Path, name: str, error: str, status: int, told: str
) -> None:
    module, function = {
        "core": ("persistence.recovery", "recover"), "marketdata": ("persistence.event_log", "EventLogReader"),
    }[name]  # fmt: skip
    program = PROGRAM.format(module=module, function=function, name=name, error=error, data=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    last = done.stderr.splitlines()[-1]
    assert told in done.stderr and f"event=stops process={name} error={error.partition('(')[0]}: " in last


def test_nothing_runs_without_assertions() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "byline.cli", "up", "--help"],
        env=os.environ | {"PYTHONOPTIMIZE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "without assertions" in done.stderr and not done.stdout
