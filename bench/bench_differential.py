"""The core against its plain-Python twin on a hostile stream: same events byte for byte, same state hash, sound books.

    python -m bench differential [--commands N] [--seed S] [--smoke]

Half of the stream runs with the default bounds, half with bounds so tight that every one is met. A difference raises,
naming seed, position and the command; the rate is that of the comparison, not of either core.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import typer

from bench.adversary import TIGHT_LIMITS, Adversary
from bench.harness import Row
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages.codes import CommandKind
from engine.reference import ReferenceCore

__all__ = ["LEFT_OUT", "Comparison", "compare", "run"]

LEFT_OUT = "what neither core carries yet (docs/rulebook.md, section 7); the rate is dominated by the plain-Python twin"


@dataclass(slots=True)
class Comparison:
    """What a stream made both cores do."""

    commands: int = 0
    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    state_hash: str = ""


def compare(commands: int, seed: int, limits: CoreLimits | None = None, *, hash_every: int = 61) -> Comparison:
    """Drive core and reference with the same commands.

    hash_every: how often state hash, `check` and `next_due` are compared; events are compared after every command.
        Every thirteenth time the core goes on from its own snapshot.

    Raises:
        AssertionError: they differ, or an invariant broke.
    """
    core, reference, adversary = Core(limits), ReferenceCore(limits), Adversary(seed)
    result = Comparison()
    for sequence in range(1, commands + 1):
        command = adversary.command()
        record = adversary.encode(command, sequence)
        where = f"seed {seed}, sequence {sequence}: {command}"
        ours, theirs = core.apply(record), reference.apply(record)
        assert ours.tobytes() == theirs.tobytes(), f"{where}\ncore      {ours}\nreference {theirs}"
        events = adversary.learn(ours, command)
        result.events += len(events)
        result.kinds.update(event["event"] for event in events)
        result.reasons.update(f"{event['event']} {event['reason']}" for event in events if "reason" in event)
        if record[4] == CommandKind.CUT or sequence % hash_every == 0 or sequence == commands:
            assert core.state_hash() == reference.state_hash(), f"state hash: {where}"
            assert core.next_due == reference.next_due, f"next_due: {where}"
            core.check()
            reference.check()
            _same_balances(core, reference, where)
        if sequence % (13 * hash_every) == 0:
            core = Core.restore(core.snapshot())
    result.commands = commands
    result.state_hash = core.state_hash().hex()
    return result


def _same_balances(core: Core, reference: ReferenceCore, where: str) -> None:
    rows = core.balances()
    ours = {(int(r["account"]), int(r["asset"])): (int(r["available"]), int(r["held"])) for r in rows}
    assert ours == reference.balances(), f"balances: {where}"
    for asset in np.unique(rows["asset"]):
        mine = rows[rows["asset"] == asset]
        total = int(mine["available"].astype(object).sum() + mine["held"].astype(object).sum())
        assert total == 0, f"asset {asset} sums to {total}: {where}"


def run(
    smoke: bool,
    seed: int,
    commands: Annotated[
        int | None, "How many commands are compared; 100,000 if not given, 2,000 in the smoke size."
    ] = None,
) -> list[Row]:
    """Rows of compared commands and events. Every row has been checked: a difference raises before it is written."""
    count = commands if commands is not None else 2_000 if smoke else 100_000
    if count < 2:
        raise typer.BadParameter(f"commands must be at least 2, not {count}")
    rows: list[Row] = []
    for case, limits in (("default bounds", None), ("tight bounds", TIGHT_LIMITS)):
        started = time.perf_counter()
        result = compare(count // 2, seed, limits)
        elapsed = time.perf_counter() - started
        rows += [
            Row(case, "commands equal", result.commands, "commands"),
            Row(case, "events equal", result.events, "events"),
            Row(case, "compared", result.commands / elapsed, "commands/s"),
        ]
    return rows
