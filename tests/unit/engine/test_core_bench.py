"""The benches of the core at their smoke sizes: what they compare with the reference book is the test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import __main__ as command_line
from bench import (
    bench_doors,
    bench_engine,
    bench_latency,
    bench_markets,
    bench_memory,
    bench_snapshot,
    bench_state_hash,
    book_peers,
    harness,
    workload,
)
from bench.book_peers import BookPeer
from bench.harness import WrongResult
from bench.peers import NotDriven
from bench.workload import Workload

ROOT = Path(__file__).parents[3]


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


def test_latency_smoke_run() -> None:
    rows = bench_latency.run(smoke=True, seed=20260801)
    value = {row.case: row.value for row in rows}
    assert [row.must for row in rows] == [None, 80.0, None, 500.0, None, 25.0]
    p50, p99, p999, worst = (value[f"W1 one command, {name}"] for name in ("p50", "p99", "p99.9", "worst"))
    assert 0 < p50 <= p99 <= p999 <= worst


def test_latency_quantiles_are_values_that_were_measured() -> None:
    values = np.arange(1, 1_001, dtype=float)
    assert [bench_latency.quantile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1_000]
    nothing = bench_latency.Taken(values, np.zeros(1_000, np.uint32), 0.0)
    with pytest.raises(WrongResult, match="no command"):
        bench_latency.ns_per_fill(nothing)


def test_state_hash_smoke_run() -> None:
    rows = bench_state_hash.run(smoke=True, seed=20260801)
    assert [row.metric for row in rows] == ["pause"] * 4 and all(row.value > 0 for row in rows)
    assert [row.must for row in rows] == [None, 1.0, None, 1.0]


def test_the_engine_without_a_hash_is_made_of_the_one_there_is() -> None:
    source = (ROOT / "engine" / "digest.pxd").read_text()
    without = bench_state_hash.unhashed_source(source)
    assert without.count("    return\n") == source.count("    return\n") + len(bench_state_hash.FUNCTIONS)
    with pytest.raises(WrongResult, match="touch_order"):
        bench_state_hash.unhashed_source(source.replace("void touch_order(", "void mark_order("))


def test_snapshot_smoke_run() -> None:
    rows = bench_snapshot.run(smoke=True, seed=1)
    assert [row.metric for row in rows] == ["pause", "pause", "ns a command", "duration", "size", "duration"]
    assert all(row.value > 0 for row in rows)


def test_memory_smoke_run() -> None:
    rows = bench_memory.run(smoke=True, seed=1)
    musts = [("bytes", 128.0), ("bytes", None), ("MB", 400.0), ("MB", None), ("MB", 200.0)]
    assert [(row.unit, row.must) for row in rows] == musts
    assert all(row.value > 0 for row in rows)
    with pytest.raises(WrongResult, match="nothing"):
        bench_memory.measured("nothing", 1)


def test_markets_smoke_run_and_a_difference_is_found() -> None:
    rows = bench_markets.run(smoke=True, seed=1)
    assert [row.case for row in rows] == ["10 markets", "500 markets", "from 10 to 500 markets"]
    core, first = bench_markets._core(20)
    made = bench_markets.drawn(20, 40, 500, 2_000, 3, first)
    assert len(set(made.records["kind"].tolist())) == 2 and sum(book.trades for book in made.books.values()) > 50
    made.books[3].h ^= 1
    with pytest.raises(WrongResult, match="differ"):
        bench_markets.proven(core, made)


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
