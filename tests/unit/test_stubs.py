"""What type checkers are told of the compiled modules is what these have."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "persistence", "marketdata")


def test_stubs_agree_with_the_built_modules() -> None:
    stubs = [stub.relative_to(ROOT) for package in PACKAGES for stub in (ROOT / package).rglob("*.pyi")]
    names = [".".join(stub.with_suffix("").parts) for stub in stubs]
    assert "gateway.sequencer" in names
    # The mark of a disjoint base exists in no typing module that all supported Pythons have.
    # What Cython adds to a module (`__pyx_capi__`, `__test__`) is in no stub.
    argv = [sys.executable, "-m", "mypy.stubtest", *names, "--ignore-disjoint-bases", "--ignore-missing-stub"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
