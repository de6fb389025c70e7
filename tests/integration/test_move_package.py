"""The Move sources give the committed bytecode, and their unit tests pass. Needs Node and `make move-builder`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from settlement.chain.localsui.contract import ABORT_MEANINGS
from settlement.chain.localsui.movevm import BYTECODE, load_modules, published_modules
from settlement.chain.rights import RIGHTS_ABORTS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "settlement" / "move" / "exchange" / "sources"
MAX_PACKAGE_BYTES = 102_400


def test_the_sources_compile_to_the_committed_bytecode_and_their_tests_pass() -> None:
    if shutil.which("node") is None:
        pytest.skip("Node is not installed: the Move package cannot be compiled here")
    pytest.importorskip("sui_sandbox", reason="the framework's interface comes from the Move VM wheel")
    folder = ROOT / "build" / "move"
    if not (folder / "node_modules" / "@zktx.io" / "sui-move-builder").is_dir():
        pytest.skip("the Move compiler is not installed: make move-builder")
    command = [sys.executable, "-m", "settlement.move.tools.compile", "--check", "--node-modules", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed: 0" in done.stdout and not done.stderr


def test_the_build_names_every_module_and_fits_into_a_package() -> None:
    names = published_modules()
    assert sorted(names) == sorted(path.stem for path in SOURCES.glob("*.move"))
    assert sum(map(len, load_modules("exchange", names))) < MAX_PACKAGE_BYTES
    build = json.loads((BYTECODE / "exchange" / "build.json").read_text())
    assert len(bytes.fromhex(build["digest"])) == 32


def test_every_abort_code_of_the_sources_has_its_words() -> None:
    known = {"settlement": ABORT_MEANINGS, "row": {}, "shares": {}} | RIGHTS_ABORTS
    for path in SOURCES.glob("*.move"):
        codes = re.findall(r"^const E\w+: u64 = (\d+);", path.read_text(), re.MULTILINE)
        assert sorted(map(int, codes)) == sorted(known[path.stem]), path.stem
