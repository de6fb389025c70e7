"""`byline replay`: from files and pipes, and never over the commands themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LINES = '{"op":"asset","asset":"A","scale":0,"ts":3}\n{"op":"asset","asset":"A","scale":2,"scale":0,"ts":4}\nfly\n'
ROOT = Path(__file__).parents[3]


def run(*arguments: str, stdin: int | None = None, text: str | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from byline.cli import main; main()", "replay", *arguments]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(argv, cwd=ROOT, env=environment, stdin=stdin, input=text, capture_output=True, text=True)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    path = tmp_path / "commands.jsonl"
    path.write_text(LINES)
    return path


def test_files_and_pipes_give_the_same_events(commands: Path, tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    told = run(str(commands), "--state-hash")
    assert told.returncode == 0, told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    # Of a key that stands twice the last value counts: the second line lists nothing else than the first.
    assert [line.get("reason") for line in lines] == [None, "exists", "malformed", None]
    assert run("-", "--state-hash", text=LINES).stdout == told.stdout
    assert run("/dev/stdin", "--state-hash", text=LINES).stdout == told.stdout
    assert run(str(commands), "--state-hash", "--reference", "--events", str(out)).stdout == ""
    assert out.read_text() == told.stdout


def test_what_is_wrong_with_the_first_malformed_lines_is_told() -> None:
    told = run("-", text='{"op":"asset","asset":"A"}\n' + "fly\n" * 20)
    first, second, *_, last = told.stderr.splitlines()
    assert first.startswith("line 1: scale: ") and second.startswith("line 2: ") and last == "and more: see the events"
    assert len(told.stderr.splitlines()) == 11 and len(told.stdout.splitlines()) == 21


def test_the_file_of_the_rulebook_makes_a_trade() -> None:
    block = (ROOT / "docs/rulebook.md").read_text().partition("A whole file")[2].split("```")[1]
    told = run("-", text=block.lstrip())
    assert told.stderr == "" and '"event":"trade"' in told.stdout and "rejected" not in told.stdout


@pytest.mark.parametrize("other", ["commands.jsonl", "link", "name"])
def test_the_events_never_replace_the_commands(other: str, commands: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(commands)
    (tmp_path / "name").hardlink_to(commands)
    told = run(str(commands), "--events", str(tmp_path / other))
    assert told.returncode != 0 and "would overwrite" in told.stderr + told.stdout
    assert commands.read_text() == LINES


def test_what_is_no_file_of_commands_is_refused(tmp_path: Path) -> None:
    told = run(str(tmp_path / "nothing"))
    assert told.returncode != 0 and "there is no file" in told.stderr + told.stdout
    (tmp_path / "journal").write_bytes(b"BYLINEJ\0" + bytes(500))
    told = run(str(tmp_path / "journal"))
    assert told.returncode != 0 and "no JSON lines" in told.stderr + told.stdout
