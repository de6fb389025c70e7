"""The benches of the core at their smoke sizes: what they compare with the reference book is the test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import __main__ as command_line
from bench import bench_doors, bench_engine, book_peers, harness, workload
from bench.book_peers import BookPeer
from bench.harness import WrongResult
from bench.peers import NotDriven
from bench.workload import Workload


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other engine and no capture, whatever this machine has."""
    monkeypatch.setattr(bench_engine, "book_peers", lambda: ([], ["nobody is here"]))
    monkeypatch.setattr("bench.bitstamp.CACHE", Path("/nowhere"))


def test_smoke_run_agrees_with_the_reference_book(alone: None) -> None:
    rows = bench_engine.run(smoke=True, seed=20260801)
    assert [row.case for row in rows] == [f"W{i}/{kind}" for i in range(1, 6) for kind in ("full", "book")]
    assert {row.metric for row in rows} == {"Mcmd/s"}
    assert {row.case: row.must for row in rows}["W1/book"] == 37.0
    assert "nobody is here" in bench_engine.LEFT_OUT and "BTS: no capture" in bench_engine.LEFT_OUT


def test_a_file_is_measured_under_its_stem(alone: None, tmp_path: Path) -> None:
    path = tmp_path / "mine.lobw"
    workload.write(path, workload.generate("W5", smoke=True))
    result = CliRunner().invoke(command_line.app, ["engine", "--smoke", "--workload", str(path), "--json"])
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert [row["case"] for row in content["rows"]] == ["mine/full", "mine/book"]
    assert content["mix"] == bench_engine.MIX and content["build"] == harness.build_flags()
    path.write_bytes(path.read_bytes()[:-1])
    assert CliRunner().invoke(command_line.app, ["engine", "--smoke", "--workload", str(path)]).exit_code == 2


class Peer:
    """The reference book once more, as somebody else's engine; `wrong` lets it disagree."""

    def __init__(self, name: str, most: int | None = None, wrong: bool = False) -> None:
        self.name, self.most, self.wrong, self.seen = name, most, wrong, list[int]()

    def proven(self, workload: Workload) -> None:
        if self.wrong:
            raise NotDriven(f"{self.name} disagrees")

    def timed(self, workload: Workload) -> float:
        self.seen.append(workload.ops)
        return 1.0


def test_peers_take_turns_and_who_disagrees_is_named() -> None:
    small = workload.generate("W1", smoke=True)
    good, slow, bad = Peer("good"), Peer("slow", 5_000), Peer("bad", wrong=True)
    rows, left_out = bench_engine.measured(small, [good, slow, bad], 3, judged=False)
    speed = {row.case: row.value for row in rows}
    assert list(speed) == ["W1/full", "W1/book", "W1/good", "W1/slow"]
    assert speed["W1/good"] == small.ops / 1e6 and speed["W1/slow"] == 0.005
    assert good.seen == [small.ops] * 3 and slow.seen == [5_000] * 3 and bad.seen == []
    assert left_out == ["W1: bad disagrees", "W1/slow: after its first 5,000 commands"]


def test_a_run_that_ends_otherwise_has_no_time() -> None:
    small = workload.generate("W1", smoke=True)
    ours = bench_engine.Ours("full", small)
    ours.prove()
    assert ours.seconds() > 0
    ours.hash = bytes(16)
    with pytest.raises(WrongResult, match="otherwise"):
        ours.seconds()
    with pytest.raises(WrongResult, match="is not"):
        bench_engine.verify(workload.generate("W5", smoke=True), ours.played)


@pytest.mark.parametrize("kind", [book_peers.OrderlyChaos, book_peers.MatchingEngine])
def test_an_installed_book_agrees_and_a_wrong_expectation_is_found(kind: type[BookPeer]) -> None:
    try:
        peer = kind()
    except NotDriven as why:
        pytest.skip(str(why))
    small = workload.generate("W1", smoke=True, ops=3_000)
    peer.proven(small)
    assert peer.timed(small) > 0
    other = workload.of_records("W1", small.preload, small.records[:-1])
    lying = Workload(**{name: getattr(small, name) for name in small.__slots__} | {"hash": other.hash ^ 1})
    with pytest.raises(NotDriven, match="hash"):
        peer.proven(lying)


def test_doors_smoke_run() -> None:
    rows = bench_doors.run(smoke=True, seed=20260801)
    share = "share of the C door"
    assert [row.metric for row in rows] == ["Mcmd/s", "Mcmd/s", share, share, "fixed cost", "Mcmd/s"]


def test_workload_file_reads_back(tmp_path: Path) -> None:
    made = workload.generate("W3", smoke=True)
    workload.write(tmp_path / "w3.lobw", made)
    preload, records = workload.read(tmp_path / "w3.lobw")
    assert preload == made.preload and np.array_equal(records, made.records)
    again = workload.of_records("W3", preload, records, made.seed)
    assert all(getattr(again, name) == getattr(made, name) for name in made.__slots__ if name != "records")
    (tmp_path / "short.lobw").write_bytes((tmp_path / "w3.lobw").read_bytes()[:-1])
    with pytest.raises(ValueError, match="header"):
        workload.read(tmp_path / "short.lobw")


def test_records_that_name_no_resting_order_are_no_workload() -> None:
    small = workload.generate("W1", smoke=True)
    cancel = small.records[small.records["op"] == workload.CANCEL][:1]
    with pytest.raises(ValueError, match="does not rest"):
        workload.of_records("W1", 0, cancel)
