"""The report card that the repository keeps: its commands write it again, and its runs are of commits before this one.

How much has changed since is told, not refused: a run takes hours, and whoever reads the card is to know.
"""

import json
import re
import shlex
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "byline", "engine", "files", "gateway", "marketdata", "persistence", "settlement", "tests/simulation",
    "tests/faults", "tests/support",
)  # fmt: skip
"""What a run of seeds or kills is of."""
PARTS = ("seeds", "kills")


def card() -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = json.loads((ROOT / "docs" / "report-card.json").read_text())
    return told


def git(*arguments: str, folder: Path = ROOT) -> tuple[int, str]:
    """Its exit status and what it prints. Skips the test where there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no git here")
    return done.returncode, done.stdout.strip()


def changed_since(commit: str, folder: Path = ROOT) -> int | None:
    """How many commits behind `commit` changed FOLDERS; None: this checkout does not reach back to it.

    Raises AssertionError: `commit` is no ancestor of this one.
    """
    failed, shallow = git("rev-parse", "--is-shallow-repository", folder=folder)
    if failed or (shallow == "true" and git("cat-file", "-e", f"{commit}^{{commit}}", folder=folder)[0]):
        return None
    apart, _ = git("merge-base", "--is-ancestor", commit, "HEAD", folder=folder)
    if apart and shallow == "true":
        return None  # both ends are here, and not what is between them
    assert not apart, f"the card's commit {commit} is none before this one"
    return int(git("rev-list", "--count", f"{commit}..HEAD", "--", *FOLDERS, folder=folder)[1])


@pytest.mark.parametrize("part", PARTS)
def test_the_command_on_the_card_writes_this_very_card(part: str) -> None:
    command = card()[part]["command"]
    assert command.startswith("make faults ") and "OUT=docs" in shlex.split(command)
    assert f"\n    {command}\n" in (ROOT / "docs" / "report-card.md").read_text()


@pytest.mark.parametrize("part", PARTS)
def test_the_card_is_of_a_commit_before_this_one_and_tells_what_changed_since(part: str) -> None:
    commit = card()[part]["commit"]
    assert re.fullmatch(r"[0-9a-f]{12}", commit), "of a checkout that was not clean"
    count = changed_since(commit)
    if count is None:
        pytest.skip(f"the history here does not reach back to {commit}")
    if count:
        what = f"the {part} of docs/report-card.md are of {commit}: {count} commits since changed {', '.join(FOLDERS)}"
        warnings.warn(what, stacklevel=1)


def test_a_commit_of_elsewhere_is_refused_and_a_short_history_is_none(tmp_path: Path) -> None:
    def made(name: str, file: str) -> str:
        target = tmp_path / "whole" / file
        target.parent.mkdir(exist_ok=True, parents=True)
        target.write_text(name)
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        for arguments in (("add", "."), (*who, "commit", "-q", "--no-verify", "-m", name)):
            assert git(*arguments, folder=tmp_path / "whole")[0] == 0
        return git("rev-parse", "--short=12", "HEAD", folder=tmp_path / "whole")[1]

    assert git("init", "-q", "-b", "main", "whole", folder=tmp_path)[0] == 0
    whole, short = tmp_path / "whole", tmp_path / "short"
    first = made("first", "engine/a")
    assert changed_since(first, whole) == 0
    made("second", "tests/faults/b"), made("third", "docs/c")
    assert changed_since(first, whole) == 1
    assert git("checkout", "-q", "-b", "beside", first, folder=whole)[0] == 0
    beside = made("beside", "engine/d")
    assert git("checkout", "-q", "main", folder=whole)[0] == 0
    with pytest.raises(AssertionError, match="none before this one"):
        changed_since(beside, whole)
    with pytest.raises(AssertionError, match="none before this one"):
        changed_since("0" * 12, whole)
    assert git("clone", "-q", "--depth", "1", whole.as_uri(), "short", folder=tmp_path)[0] == 0
    assert changed_since(first, short) is None
    (tmp_path / "plain").mkdir()
    assert changed_since(first, tmp_path / "plain") is None
