"""The example of the core alone does what it says, and the same each time; so does the page that leads to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> list[str]:
    argv = [sys.executable, "examples/core.py", *arguments]
    done = subprocess.run(argv, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_core_alone() -> None:
    trade, counts, state = run("--orders", "3000", "--seed", "3")
    assert "'event': 'trade'" in trade and "'price': '1.5'" in trade and "'size': '4'" in trade
    assert "'accepted': 3000" in counts and "lots traded" in counts and "state hash" in state
    assert run("--orders", "3000", "--seed", "3") == [trade, counts, state]
    assert run("--orders", "3000", "--seed", "4")[2] != state


def test_the_lines_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "README.md").read_text().partition("## The core alone")[2]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    exec(block[1], {})
    assert capsys.readouterr().out.split() == ["accepted", "accepted", "trade", "100"]
    for page in re.findall(r"\]\(([\w/.-]+)\)", section.partition("\n## ")[0]):
        assert (ROOT / page).exists(), page
