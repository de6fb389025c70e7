"""What type checkers are told of the compiled core is what it has."""

import subprocess
import sys
from pathlib import Path


def test_stub_agrees_with_the_built_core() -> None:
    # The mark of a disjoint base exists in no typing module that all supported Pythons have.
    argv = [sys.executable, "-m", "mypy.stubtest", "engine.core", "--ignore-disjoint-bases"]
    done = subprocess.run(argv, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
