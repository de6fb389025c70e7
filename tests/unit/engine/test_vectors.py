"""The rulebook by example: every case of tests/vectors on core and reference, through the replay door.

tests/vectors/README.md says how a case is written. A case fails with its title, the command and what came instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.core import Core
from engine.limits import CoreLimits
from engine.messages.codes import (
    CancelReason,
    CommandKind,
    EventKind,
    OrderStatus,
    PhaseReason,
    RefStatus,
    RejectCode,
    SelfTrade,
    Word,
)
from engine.messages.decimals import decimal_text, steps_text
from engine.reference import ReferenceCore
from engine.replay import replay_events

VECTORS = Path(__file__).parents[2] / "vectors"
Json = dict[str, Any]

_ORDER = ("order_id", "client_id", "account", "market")
_SIDES = ("order_id", "account", "client_id", "leaves", "fee", "released")
_MONEY = ("ref", "legs", "code", "memo", "cause")
_BOTH = tuple(f"{who}_{name}" for who in ("maker", "taker") for name in _SIDES)
FIELDS: dict[str, tuple[str, ...]] = {
    "accepted": (*_ORDER, "side", "type", "tif", "price", "size", "budget", "stop_price", "display_size", "expires_at",
                 "hold"),
    "rejected": ("op", "account", "client_id", "order_id", "ref", "reason"),
    "duplicate": ("client_id", "order_id", "account", "market", "ref", "first_sequence", "status", "filled"),
    "done": ("op",),
    "trade": ("trade_id", "market", "price", "size", "notional", "aggressor", *_BOTH),
    "canceled": (*_ORDER, "leaves", "released", "reason"),
    "replaced": (*_ORDER, "price", "size", "leaves", "hold", "released", "priority_kept"),
    "triggered": ("order_id", "stop_price", "trigger_price", "trigger_sequence"),
    "refreshed": ("order_id", "display_size"),
    "prevented": ("market", "price", "size", "mode", *(name for name in _BOTH if not name.endswith("_fee"))),
    "balance": ("account", "asset", "available", "held", "cause"),
    "transferred": _MONEY, "pended": _MONEY, "posted": _MONEY, "voided": _MONEY,
    "phase_changed": ("market", "phase", "reason"),
    "uncrossed": ("market", "price", "size", "imbalance"),
    "cut": ("batch", "first_sequence", "last_sequence", "state_hash"),
}  # fmt: skip
"""The fields of each event in the order of the rulebook, after sequence, index, ts and event."""


@dataclass
class Case:
    topic: str
    title: str
    rule: str
    given: str = "desk"
    market: Json = field(default_factory=dict)
    limits: Json = field(default_factory=dict)
    complete: bool = False
    steps: list[Json] = field(default_factory=list)

    def opening(self) -> list[Json]:
        """The commands that come before the case's own."""
        if self.given == "empty":
            return []
        commands = [json.loads(line) for line in (VECTORS / "given.jsonl").read_text().splitlines()]
        return [command | self.market if command["op"] == "market" else command for command in commands]


def cases() -> Iterator[Case]:
    for path in sorted(VECTORS.glob("*.jsonl")):
        if path.name == "given.jsonl":
            continue
        case = None
        for text in path.read_text().splitlines():
            row = json.loads(text) if text else {}
            if "title" in row:
                case = Case(path.stem, **row)
                yield case
            elif row.keys() & {"command", "line", "balances", "indicative"}:
                assert case is not None, f"{path.name}: a line before the first title"
                case.steps.append(row)


CASES = list(cases())


class Run:
    """One engine behind the replay door, fed line by line."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.scales: dict[str, int] = {}
        self._lines: list[str] = []
        self._events = replay_events(iter(self._lines.pop, None), core=core)

    def line(self, text: str) -> list[Json]:
        self._lines.append(text)
        return next(self._events)

    def command(self, command: Json) -> list[Json]:
        if command["op"] == "asset":
            self.scales.setdefault(command["asset"], command["scale"])
        return self.line(json.dumps(command))

    def balance(self, account: str, asset: str) -> list[str]:
        """[available, held] as decimals."""
        key = self.core.account_index(account), self.core.asset_index(asset)
        rows = self.core.balances()
        if not isinstance(rows, dict):
            rows = {(int(r["account"]), int(r["asset"])): (int(r["available"]), int(r["held"])) for r in rows}
        return [decimal_text(units, self.scales[asset]) for units in rows.get(key, (0, 0))]

    def indicative(self, market: str) -> Json:
        """Of a market with the steps of the desk's."""
        price, size, imbalance = self.core.indicative(self.core.market_index(market))
        told = None if price is None else steps_text(price, 1, 2)
        return {"market": market, "price": told, "size": str(size), "imbalance": str(imbalance)}


def run(case: Case, core: Any) -> list[bytes]:
    """Every step judged; the state hash after each."""
    runner, hashes = Run(core), []
    for command in case.opening():
        assert "rejected" not in [event["event"] for event in runner.command(command)], command
    for step in case.steps:
        if "balances" in step:
            for account, assets in step["balances"].items():
                now = {asset: runner.balance(account, asset) for asset in assets}
                assert now == assets, f"{account} after sequence {core.sequence}"
        elif "indicative" in step:
            assert runner.indicative(step["indicative"]["market"]) == step["indicative"]
        else:
            said: Json | str = step["command"] if "command" in step else step["line"]
            events = runner.line(said) if isinstance(said, str) else runner.command(said)
            judge(case, said, step["events"], events, core.sequence)
            core.check()
            hashes.append(core.state_hash())
    return hashes


def judge(case: Case, said: Json | str, expected: list[Json], events: list[Json], sequence: int) -> None:
    shown = f"\n{said}\nexpected {expected}\ncame     {events}"
    assert [event["event"] for event in events] == [event["event"] for event in expected], shown
    for index, (event, want) in enumerate(zip(events, expected, strict=True)):
        assert (event["sequence"], event["index"]) == (sequence, index), shown
        ts = said.get("ts", 0) if isinstance(said, dict) else 0
        assert event["ts"] == (0 if event.get("reason") == "malformed" else ts), shown
        allowed = ["sequence", "index", "ts", "event", *FIELDS[event["event"]]]
        assert list(event) == [name for name in allowed if name in event], f"order of the fields{shown}"
        told = event if case.complete else {name: event[name] for name in want if name in event}
        head = {name: event[name] for name in ("sequence", "index", "ts")} if case.complete else {}
        assert told == head | want, shown


@pytest.mark.parametrize("engine", [ReferenceCore, Core], ids=["on-reference", "on-core"])
@pytest.mark.parametrize("case", CASES, ids=[f"{case.topic}: {case.title}" for case in CASES])
def test_case(case: Case, engine: Any) -> None:
    run(case, engine(CoreLimits(**case.limits)))


@pytest.mark.parametrize("topic", sorted({case.topic for case in CASES}))
def test_core_and_reference_have_one_state_hash_after_every_command(topic: str) -> None:
    for case in CASES:
        if case.topic == topic:
            limits = CoreLimits(**case.limits)
            assert run(case, Core(limits)) == run(case, ReferenceCore(limits)), case.title


def _expected(name: str, field_name: str | None = None) -> set[Any]:
    """What the vectors expect in a field, of events of one name."""
    events = [event for case in CASES for step in case.steps for event in step.get("events", ())]
    found = [event for event in events if event["event"] == name]
    return {event[field_name] for event in found if field_name in event} if field_name else set(found and [name])


def _words(words: type[Word], *without: Word) -> set[str]:
    return {word.word for word in words if word not in without}


def test_every_word_of_the_vocabulary_is_in_a_vector() -> None:
    told = set().union(*(_expected(kind.word) for kind in EventKind))
    assert told == _words(EventKind)
    assert _expected("rejected", "reason") >= _words(RejectCode)
    assert _expected("canceled", "reason") >= _words(CancelReason)
    assert _expected("phase_changed", "reason") >= _words(PhaseReason)
    assert _expected("prevented", "mode") >= _words(SelfTrade, SelfTrade.NONE)
    assert _expected("duplicate", "status") >= _words(OrderStatus) | _words(RefStatus)
    ops = {step["command"].get("op") for case in CASES for step in case.steps if "command" in step}
    assert ops >= _words(CommandKind, CommandKind.MALFORMED)


def test_every_rule_of_matching_has_a_case() -> None:
    rules = {rule.strip() for case in CASES for rule in case.rule.split(",")}
    assert rules >= {f"4.{number}" for number in range(1, 13)}
    money = ("holds", "overdraft", "transfer", "pending", "deposit", "withdraw", "ref", "not_after", "shares", "limits")
    assert rules >= {f"2 {topic}" for topic in money}
