"""The one shape of all benches: what is written, when a row is not ok, and what the command line takes."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from bench import __main__ as command_line
from bench import bench_differential, harness
from bench.harness import Row

FIELDS = ["bench", "date", "commit", "machine", "build", "seed", "left_out", "rows"]


def made(*rows: Row) -> ModuleType:
    module = ModuleType("bench_made")
    module.LEFT_OUT = "everything"  # type: ignore[attr-defined]
    module.run = lambda smoke, seed: list(rows)  # type: ignore[attr-defined]
    return module


def executed(module: ModuleType, path: Path, smoke: bool = False) -> tuple[int, dict[str, Any]]:
    try:
        command_line.execute("made", module, path, smoke, 9, {})
        status = 0
    except typer.Exit as stop:
        status = stop.exit_code
    return status, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("value", "unit", "must", "ok"),
    [
        (7.1, "M/s", 7.0, True), (6.9, "M/s", 7.0, False), (0.4, "×", 0.5, False), (0.5, "×", 0.5, True),
        (4_900, "ms", 5_000, True), (5_100, "ms", 5_000, False), (3, "us", 2, False), (1, "s", 2, True),
    ],
)  # fmt: skip
def test_rates_reach_upwards_and_times_downwards(value: float, unit: str, must: float, ok: bool) -> None:
    assert Row("case", "metric", value, unit, must=must, ok=True).ok is ok
    assert Row("case", "metric", value, unit, must=must, ok=False).ok is False


def test_a_missed_row_is_written_and_ends_in_status_1(tmp_path: Path) -> None:
    good = Row("a", "rate", 9.0, "1/s", 3.0, 3.0, 5.0)
    status, content = executed(made(good, Row("b", "rate", 4.0, "1/s", must=5.0)), tmp_path / "out.json")
    assert status == 1 and list(content) == FIELDS
    assert (content["bench"], content["seed"], content["left_out"]) == ("made", 9, "everything")
    assert content["rows"] == [
        {"case": "a", "metric": "rate", "value": 9.0, "unit": "1/s", "baseline": 3.0, "ratio": 3.0, "must": 5.0,
         "ok": True},
        {"case": "b", "metric": "rate", "value": 4.0, "unit": "1/s", "must": 5.0, "ok": False},
    ]  # fmt: skip
    assert executed(made(good), tmp_path / "out.json")[0] == 0


def test_the_smoke_size_is_held_to_nothing_and_says_so(tmp_path: Path) -> None:
    status, content = executed(made(Row("b", "rate", 4.0, "1/s", must=5.0)), tmp_path / "out.json", smoke=True)
    assert status == 0 and content["rows"] == [{"case": "b", "metric": "rate", "value": 4.0, "unit": "1/s", "ok": True}]
    assert content["left_out"].startswith("smoke size")


def test_seed_and_the_bench_s_own_options_reach_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int, int | None]] = []

    def run(smoke: bool, seed: int, commands: Annotated[int | None, "How many are compared."] = None) -> list[Row]:
        seen.append((smoke, seed, commands))
        return [Row("a", "rate", 1.0, "1/s")]

    monkeypatch.setattr(bench_differential, "run", run)
    out = tmp_path / "out.json"
    for arguments in (["--commands", "40", "--seed", "7"], ["--smoke"], ["--json", str(out)]):
        assert CliRunner().invoke(command_line.app, ["differential", *arguments]).exit_code == 0
    assert seen == [(False, 7, 40), (True, 20260801, None), (False, 20260801, None)]
    assert list(json.loads(out.read_text())) == FIELDS
    shown = CliRunner().invoke(command_line.app, ["differential", "--help"]).output
    assert "--commands" in shown and "How many are compared." in shown and "--seed" in shown


def test_differential_compares_what_it_was_told_to(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    argv = ["differential", "--commands", "300", "--seed", "5", "--json", str(out)]
    assert CliRunner().invoke(command_line.app, argv).exit_code == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["value"] for row in rows if row["metric"] == "commands equal"] == [150, 150]


@pytest.mark.parametrize("arguments", [["nobody"], ["differential", "--commands", "1"], ["engine", "--seed", "x"]])
def test_what_cannot_be_run_is_a_named_error(arguments: list[str]) -> None:
    result = CliRunner().invoke(command_line.app, arguments)
    assert result.exit_code == 2 and "Error" in result.output


def test_every_bench_is_listed_and_says_what_it_leaves_out() -> None:
    listed = CliRunner().invoke(command_line.app, []).output
    for name in command_line.names():
        module = importlib.import_module(f"bench.bench_{name}")
        assert name in listed and module.LEFT_OUT and module.__doc__
        assert all(option.default is None for option in command_line.own_options(module.run))


def test_commit_and_machine_name_this_checkout() -> None:
    assert "cores" in harness.machine() and "Python" in harness.machine()
    assert len(harness.commit()) >= 7


def test_json_without_a_file_goes_to_the_results_and_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    module = made(Row("a", "rate", 9.0, "1/s"))
    module.MIX = "only this"  # type: ignore[attr-defined]
    command_line.execute("made", module, command_line.STANDARD_OUT, False, 9, {})
    content = json.loads(capsys.readouterr().out)
    (kept,) = (tmp_path / "bench" / "results").iterdir()
    assert kept.name == f"made-{content['date']}-unknown.json"
    assert json.loads(kept.read_text()) == content and content["mix"] == "only this"
    command_line.execute("made", module, command_line.STANDARD_OUT, True, 9, {})
    assert json.loads(capsys.readouterr().out)["left_out"].startswith("smoke size")
    assert len(list(kept.parent.iterdir())) == 1


def test_a_bench_on_one_core_says_so_and_gives_the_others_back() -> None:
    before = os.sched_getaffinity(0)
    with harness.pinned() as core:
        assert core in before and os.sched_getaffinity(0) == {core}
        assert f"pinned to core {core}" in harness.machine()
    assert os.sched_getaffinity(0) == before


def test_flags_are_those_of_the_build() -> None:
    flags = harness.build_flags().split()
    assert "-fno-strict-aliasing" in flags and any(flag.startswith("-O") for flag in flags)
