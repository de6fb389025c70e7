"""Other engines beside ours: who gives a row, who is named instead, and what holds a peer to the reference book."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import __main__ as command_line
from bench import bench_doors, peers
from bench.peers import Call, Driver, Ended, Fills, NotDriven, Peer, ReferenceDriver
from bench.records import Commands, commands, funded, verify
from bench.workload import CANCEL, IOC, LIMIT, MARKET, MOVE, RECORD, Workload, generate

ROOT = Path(__file__).parents[3]
SEED = 20260801

FEW = [
    (LIMIT, 1, 0, 5, 1, 100),   # two at 100, in time
    (LIMIT, 1, 0, 5, 2, 100),
    (LIMIT, 0, 0, 7, 3, 100),   # takes all of 1 and two of 2
    (LIMIT, 1, 0, 4, 4, 101),
    (MOVE, 1, 0, 3, 2, 101),    # to the end of 101: 4 is before 2 now
    (IOC, 0, 0, 5, 5, 101),     # takes 4 and one of 2
    (IOC, 0, 0, 9, 6, 99),      # misses and does not rest
    (LIMIT, 0, 0, 8, 7, 90),
    (MARKET, 1, 0, 3, 8, 0),    # takes three of 7
    (LIMIT, 0, 0, 6, 9, 80),
    (CANCEL, 0, 0, 0, 9, 0),
]  # fmt: skip
FILLS = [(1, 3, 100, 5), (2, 3, 100, 2), (4, 5, 101, 4), (2, 5, 101, 1), (7, 8, 90, 3)]


class Plain(ReferenceDriver):
    """The reference book once more, as if it were somebody else's."""


class NeverMoves(ReferenceDriver):
    """A move that leaves the order where it was."""

    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.book.open_qty, (number,)


class Forgiving(ReferenceDriver):
    """Does nothing about an order it does not know."""

    def cancel(self, number: int) -> Call:
        return self._known, (self.book.cancel, number)

    def move(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self._known, (self._move, number, price)

    def _known(self, function: Callable[..., object], number: int, *more: int) -> None:
        if number in self.book.where:
            function(number, *more)


class TakesLess(Forgiving):
    """A market order takes one less than it should."""

    def market(self, number: int, side: int, quantity: int) -> Call:
        return self.book.take, (number, side, None, quantity - 1)


class KeepsRest(Forgiving):
    """What an immediate-or-cancel order does not get stays in the book; and no fills are reported."""

    reports_fills = False

    def ioc(self, number: int, side: int, price: int, quantity: int) -> Call:
        return self.book.limit, (number, side, price, quantity)

    def ended(self, ids: Iterable[int]) -> Ended:
        return dataclasses.replace(super().ended(ids), fills=None)


class Unloadable(ReferenceDriver):
    def __init__(self) -> None:
        raise OSError("no shared object")


DRIVERS = (NeverMoves, TakesLess, Plain, KeepsRest, Unloadable)


def ended(driver: Driver, records: object) -> Ended:
    rows = np.array(records, RECORD)
    peers.play(driver.calls(rows))
    return driver.ended(set(rows["id"].tolist()))


@pytest.fixture(scope="module")
def small() -> tuple[Workload, Commands]:
    workload = generate("W1", seed=SEED, smoke=True)
    return workload, commands(workload, funded()[1])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")


def test_the_reference_s_driver_plays_every_command_of_the_file() -> None:
    assert ended(ReferenceDriver(), FEW) == Ended(peers.fills(FILLS), frozenset({2, 7}), (5, 2))
    assert peers.fills(FILLS).trades == 5 and peers.fills(FILLS).volume == 15
    assert peers.fills(FILLS) != peers.fills(FILLS[::-1])


def test_the_reference_s_driver_gives_what_the_generator_says(small: tuple[Workload, Commands]) -> None:
    workload, _ = small
    got = ended(ReferenceDriver(), workload.records)
    assert got.fills == Fills(workload.trades, workload.volume, workload.hash)
    assert (len(got.resting), sum(got.open)) == (workload.resting, workload.resting_qty)


@pytest.mark.parametrize("peer", peers.PEERS, ids=str)
def test_an_installed_peer_plays_every_command_of_the_file(peer: Peer) -> None:
    try:
        driver = peer.open()
    except NotDriven as why:
        pytest.skip(str(why))
    got, want = ended(driver, FEW), ended(ReferenceDriver(), FEW)
    peers.compare(got, want)
    assert (got.fills is not None) is peer.driver.reports_fills


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fills": Fills(5, 15, 1)}, "hash=1"), ({"fills": Fills(4, 15, 0)}, "trades=4"),
        ({"resting": frozenset({2})}, "1 orders rest"), ({"open": (5, 3)}, "open quantity"),
    ],
)  # fmt: skip
def test_a_difference_is_named(change: dict[str, object], text: str) -> None:
    want = ended(ReferenceDriver(), FEW)
    peers.compare(dataclasses.replace(want, fills=None), want)
    with pytest.raises(NotDriven, match=text):
        peers.compare(dataclasses.replace(want, **change), want)


def test_who_agrees_gives_a_row_and_who_does_not_is_named(
    small: tuple[Workload, Commands], installed: None
) -> None:
    chosen = tuple(Peer(driver.__name__, "1.0", driver) for driver in DRIVERS)
    chosen += (Peer("Newer", "0.9", Plain),)
    rows, left_out = bench_doors.against_peers(*small, verify(*small), chosen, 2)
    assert [row.case for row in rows] == ["W1 one apply a command against Plain 1.0 (a book, no money)"]
    assert rows[0].baseline and rows[0].ratio == pytest.approx(rows[0].value / rows[0].baseline)
    failed, differs, resting, unloadable, newer = left_out
    assert failed.startswith("NeverMoves 1.0: disagrees: a call failed, KeyError")
    assert differs.startswith("TakesLess 1.0: disagrees: Fills(trades=")
    assert resting.startswith("KeepsRest 1.0: disagrees: ") and resting.endswith("orders rest in one book alone")
    assert unloadable == "Unloadable 1.0: cannot be loaded: no shared object"
    assert newer == "Newer 0.9: version 1.0 is installed, 0.9 is driven"


def test_with_no_peer_installed_the_bench_runs_and_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    contents = []
    for more in (["--peers", "1"], []):
        out = tmp_path / "out.json"
        result = CliRunner().invoke(command_line.app, ["doors", "--smoke", "--json", str(out), *more])
        assert result.exit_code == 0
        contents.append(json.loads(out.read_text()))
    with_peers, without = contents
    assert [row["case"] for row in with_peers["rows"]] == [row["case"] for row in without["rows"]]
    for peer in peers.PEERS:
        assert f"{peer.name} {peer.version}: not installed" in with_peers["left_out"]
        assert peer.name not in without["left_out"]


def test_peers_is_0_or_1() -> None:
    result = CliRunner().invoke(command_line.app, ["doors", "--smoke", "--peers", "2"])
    assert result.exit_code == 2 and "peers must be 0 or 1, not 2" in result.output


def test_the_extra_pins_the_versions_that_are_driven() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["peers"]
    assert extra == [f"{peer.name}=={peer.version}" for peer in peers.PEERS if peer.name != "lumina-lob"]
