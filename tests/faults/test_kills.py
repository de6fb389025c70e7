"""Real kills and stops under load (F2, F18, F23, F24, F26).

Five kills and four stops here, a hundred kills by `make faults KILLS=100`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from byline.client import TradingClient, generate_key
from byline.settings import load_settings
from persistence.backup import Objects, Shipper
from persistence.recovery import recover
from tests.faults import __main__ as budget
from tests.faults.audit import Audit, check_backup
from tests.faults.kills import FAULTS, Kills, plan, run_kills, slow_starts
from tests.faults.load import Numbers, Told, Trader
from tests.faults.report import ROOT, Card, Seeds, write
from tests.faults.sessions import check_sessions
from tests.faults.told import Events
from tests.faults.vaults import Vaults
from tests.support.exchange import ExchangeProcess, descendants
from tests.support.waiting import has_ended, until
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload


async def test_f02_f18_f23_f24_f26_killed_and_stopped_under_load(tmp_path: Path) -> None:
    kills = ["kill core twice", "kill marketdata", "kill backoffice", "kill chain", "all unshipped"]
    stops = ["stop core", "stop postgres", "stop api", "stop all"]
    faults = [*kills[:2], *stops[:2], *kills[2:4], *stops[2:], *kills[4:]]
    found = await run_kills(tmp_path, faults, seed=3, rest_s=0.1, batch_s=3)
    assert found.failures == []
    assert found.faults == Counter(faults)
    assert found.requests > 200 and found.acked > 100 and found.commands > found.acked
    assert found.refs > 100 and found.fills > 100 and found.withdrawn > 5 and found.deposited > 5
    assert found.starts == 1 and found.restored >= found.commands
    assert found.core_s.keys() == {"kill core twice", "all unshipped"} and all(found.core_s.values())
    assert found.backed > 3 and found.from_snapshots > 0
    assert found.ended > 0, "none of the sessions that were lost had an order that was to end with it"
    assert sum(found.resolved.values()) > 0, "a kill that no command noticed shows nothing"


def test_a_start_of_the_core_that_takes_too_long_by_its_own_count_is_a_failure() -> None:
    kills, more = Kills(core_s={"all": 0.5, "kill core": 4.9}), Kills(core_s={"all": 0.25, "kill core": 5.1})
    assert slow_starts(kills) == []
    kills.add(more)
    assert kills.core_s["all"] == 0.5
    assert slow_starts(kills) == ["I12: kill core: the core took 5.1 s to recover its journal; 5 s are the bound"]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_whoever_ends_the_run_ends_its_exchange(tmp_path: Path, end: signal.Signals) -> None:
    argv = [sys.executable, "-m", "tests.faults", "--seeds", "0", "--kills", "1", "--tmp", str(tmp_path)]
    process = subprocess.Popen([*argv, "--out", str(tmp_path / "card")], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        await until(lambda: list(tmp_path.glob("*/data/logs/postgres.log")), what="processes of the exchange")
        below = await until(lambda: found if len(found := descendants(process.pid)) > 3 else [], what="more of them")
        process.send_signal(end)
        status = await asyncio.to_thread(process.wait)
    finally:
        process.kill()
    await until(lambda: all(map(has_ended, below)), what=f"the end of {below}")
    if end == signal.SIGTERM:
        assert status == 128 + end and not list(tmp_path.glob("byline-faults-*"))


def test_a_plan_has_every_fault_and_is_the_same_for_the_same_seed() -> None:
    faults = plan(100, 1)
    assert faults == plan(100, 1) != plan(100, 2)
    count = Counter(faults)
    assert set(count) == set(FAULTS) and min(count.values()) >= 2
    assert [count[name] for name in FAULTS[:4]] == [40, 10, 5, 5]
    assert sum(times for fault, times in count.items() if not fault.startswith("stop")) == 100


PACE = {
    "cpu_s_median": 0.5, "cpu_s_p95": 1.01, "cpu_s_max": 2.5, "over_1_s": 63, "virtual_s_min": 62.1,
    "ended_by_detected_damage": 88,
}  # fmt: skip


def test_the_card_tells_every_number_of_a_run(tmp_path: Path) -> None:
    done = Counter({"kill core": 7, "all": 2, "stop chain": 3})
    kills = Kills(done, {"kill core": [1.5, 2.25], "all": [9.0]}, 0.125, 50_000, 4_321)
    kills.refs, kills.refs_again, kills.fills, kills.withdrawn, kills.deposited = 7_654, 32, 5_432, 987, 876
    kills.ended, kills.starts, kills.restored, kills.backed = 543, 12, 60_123, 321
    kills.from_snapshots, kills.segments, kills.core_s = 45, 98, {"kill core": 0.75}
    kills.resolved, kills.acked = Counter({"never": 11, "accepted": 3}), 4_000
    seeds = Seeds(1234, 0, 98_765, 74_040.0, Counter({"torn": 77}), 0.5, ["seed 9: I3"])
    seeds.outcomes = Counter({"told": 4})
    seeds.pace = PACE
    page, numbers = write(Card("make faults SEEDS=1234 KILLS=9", seeds, kills, 30.0), tmp_path)
    told: dict[str, Any] = json.loads(numbers.read_text())
    assert told["seeds"]["failures"] == ["seed 9: I3"] and told["kills"]["run"] == 12
    assert all(part["commit"] and part["machine"] for part in told.values())
    assert told["kills"]["killed"] == 9 and told["kills"]["stopped"] == 3 and told["seeds"]["outcomes"] == {"told": 4}
    text = page.read_text()
    for part in (
        "1,234", "98,765", "4,321", "14:", "torn | 77", "core | 7 | 0.75 s | 2.25",
        "chain | 3 | – |", "**1**", "seed 9: I3", "62.1",
        "for 30 seconds", "7,654, 32 of them", "5,432", "987", "876", "543;",
        "and 12 times more", "60,123", "321", "63 of all", "| 45; 98 |",
    ):  # fmt: skip
        assert part in text, part


def test_a_run_of_seeds_alone_leaves_the_kills_on_the_card(tmp_path: Path) -> None:
    kills = Kills(Counter({"kill core": 7}), {"kill core": [1.5]}, 0.125, 50_000, 4_321)
    write(Card("make faults SEEDS=0 KILLS=7", Seeds(), kills, 30.0), tmp_path)
    seeds = Seeds(1234, 0, 98_765, 74_040.0, Counter({"torn": 77}), 0.5, pace=PACE)
    page, numbers = write(Card("make faults SEEDS=1234 KILLS=0", seeds, Kills(), 30.0), tmp_path)
    told = json.loads(numbers.read_text())
    assert {name: part["command"] for name, part in told.items()} == {
        "kills": "make faults SEEDS=0 KILLS=7", "seeds": "make faults SEEDS=1234 KILLS=0"}  # fmt: skip
    assert "SEEDS=0 KILLS=7" in page.read_text() and "| torn | 77 |" in page.read_text()


@pytest.mark.parametrize(
    "given",
    [
        "",
        "SEEDS=20 KILLS=1",
        "SEEDS=0 KILLS=100 OUT=docs",
        "SEEDS=20 KILLS=0 FIRST=7 OUT=/tmp/card",
        'SEEDS=0 KILLS=3 ARGS="--seed 2 --pause 1.5"',
    ],
)
def test_the_command_on_the_card_does_the_run_again_and_docs_is_written_when_told_alone(given: str) -> None:
    """`make -n` says what the command on the card would run: the same arguments as were given."""

    def parsed(command: str) -> argparse.Namespace:
        argv = ["make", "-n", "-s", "-o", "build", *shlex.split(command)[1:]]
        line = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        _, arguments = line.split("-m tests.faults ")
        return budget.parser().parse_args(shlex.split(arguments))

    first = parsed(f"make faults {given}")
    assert parsed(budget.command_of(first)) == first
    assert first.out == (Path("docs") if "OUT=docs" in given else Path("/tmp/card") if "card" in given else budget.OUT)
    assert budget.parser().parse_args([]).out == budget.OUT


@pytest.mark.parametrize(
    ("fills", "ended", "is_open", "told"),
    [
        ({7: 9}, {8}, {21}, ""),
        ({7: 20}, {8}, set(), "1 orders of k were filled in a later life"),
        ({}, {8}, {7}, "1 orders of sessions that k lost are open"),
        ({}, {8, 21}, set(), "orders ended as if their session had"),
    ],
)  # fmt: skip
async def test_orders_that_end_with_their_session(
    tmp_path: Path, fills: dict[int, int], ended: set[int], is_open: set[int], told: str
) -> None:
    """7 and 8 are of a session in the first life of the core, 21 of one that lives; the second life acks from 20 on."""
    settings = load_settings({}, data_directory=tmp_path)
    trader = Trader(settings, "k", "a", generate_key(), 1, Numbers(), ends=True, first_acked={1: 7, 2: 20})
    living = SimpleNamespace(hello={"epoch": 2}, signed_in={"session": 1})
    trader.client = cast(TradingClient, living)
    for order, session in ((7, (1, 4)), (8, (1, 4)), (21, (2, 1))):
        trader.history[f"k-{order}"] = Told("accepted", order, session=session)
    found = Audit()
    check_sessions(Events(last_fill=fills, ended=ended), is_open, [trader], found)
    assert [text[: len(told)] for text in found.failures] == [told] * bool(told) and found.ended == len(ended)


async def test_no_event_of_the_chain_is_passed_over_while_the_back_office_does_not_know_the_package(
    tmp_path: Path,
) -> None:
    begun = {"settlement": {"package": "", "vaults": {}, "coins": {}}}
    vaults = Vaults(cast(Any, SimpleNamespace(status=lambda _: begun)), tmp_path, cast(Any, None))
    await vaults.read()  # it would ask the chain with the purse's key, of which there is none here
    assert not vaults.events and not vaults.states


def test_a_backup_without_the_last_records_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    recovered, slots, store = recover(tmp_path / "data", settings=SETTINGS), workload(), (tmp_path / "store").as_uri()
    shipper, at = Shipper(tmp_path / "data", Objects(store)), 0
    told: list[list[str]] = []
    for is_shipped in (True, False):
        at = feed(recovered, slots, at, at + 200)
        if is_shipped:
            shipper.start()
            shipper.step()
        found, last = Audit(), {"sequence": recovered.core.sequence, "chain": f"{recovered.journal.chain:016x}"}
        exchange = cast(ExchangeProcess, SimpleNamespace(status=lambda _, of=last: of))
        assert check_backup(exchange, store, tmp_path / f"restored-{is_shipped}", found) == shipper.sequence > 0
        told.append([text[:20] for text in found.failures])
    recovered.close()
    assert told == [[], ["the backup ends with"]]


def test_a_back_office_that_has_only_begun_takes_nobody_s_address_away(tmp_path: Path) -> None:
    class Office:
        package = "0x7"

        def status(self, _name: str) -> dict[str, Any]:
            return {"settlement": {"package": self.package, "coins": {}}}

    office = Office()
    vaults = Vaults(office, tmp_path, None)  # type: ignore[arg-type]
    assert vaults._told()["package"] == "0x7"
    office.package = ""
    assert vaults._told()["package"] == "0x7"
    office.package = "0x8"
    assert vaults._told()["package"] == "0x8"


def test_an_audit_remembers_what_did_not_hold() -> None:
    found = Audit()
    found.check(True, "held")
    found.check(1 + 1 == 3, "sums")
    assert found.failures == ["sums"]
