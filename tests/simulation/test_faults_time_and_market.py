"""F20, F28, F29, F61, F65, F66: clocks, surroundings, a broken invariant, auctions, cascades and phases."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core import Core, CoreLimits
from engine.messages import layout
from engine.messages.codes import ABSENT, CommandKind, EventKind, OrderType, Phase, Side
from engine.reference import ReferenceCore
from tests.simulation.network import MS
from tests.simulation.traders import place
from tests.simulation.world import SECOND, Fault, Plan, World, prepared, run_seed
from tests.support.core_world import Told

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- F20, F28, F29


@pytest.mark.parametrize("steps_ms", [(3_600_000,), (-3_600_000,), (500, -500) * 12, (1_000, -1_000, 1_000)])
def test_f20_a_clock_that_steps_changes_nothing_but_the_journaled_time(
    steps_ms: tuple[int, ...], tmp_path: Path
) -> None:
    """An hour forwards and back, jitter, a leap second: journaled time never goes back, and all replays agree."""
    world = World(Plan(27, (Fault(9_000, "kill", 3),), duration_ms=18_000), tmp_path)
    for number, step in enumerate(steps_ms):
        world.schedule.at((4_000 + 400 * number) * MS, lambda step=step: _step(world, step))  # type: ignore[misc]
    result = world.run()
    assert not result.violations, result.failure
    journal = world.auditor.journal
    assert journal is not None
    times = [record.ts for record in journal.records]
    assert times == sorted(times) and len(times) > 150
    due = {event["order_id"]: event for event in world.drop_copy if "expires_at" in event}
    expired = [event for event in world.drop_copy if event["event"] == "canceled" and event["reason"] == "expired"]
    assert expired, "nothing expired: this world shows nothing of it"
    for event in expired:
        assert journal.records[event["sequence"] - 1].kind == CommandKind.TICK
        assert due[event["order_id"]]["expires_at"] <= event["ts"] == times[event["sequence"] - 1]
    for event in world.drop_copy:  # and nothing else happens to an order from its time on
        orders = [due.get(event.get(name, 0)) for name in ("maker_order_id", "taker_order_id", "order_id")]
        is_late = any(order is not None and order["expires_at"] <= event["ts"] for order in orders)
        assert not is_late or event in expired or event["event"] == "duplicate"


def _step(world: World, step_ms: int) -> None:
    world.clock.offset_ns += step_ms * MS


@pytest.mark.parametrize(
    "surroundings",
    [
        {"PYTHONHASHSEED": "1"},
        {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Kiritimati"},
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "1", "TZ": "America/St_Johns"},
        {"PYTHONOPTIMIZE": "1", "PYTHONHASHSEED": "7"},
    ],
    ids=["hash seed", "time zone", "locale", "optimised"],
)
def test_f28_surroundings_change_no_byte(surroundings: dict[str, str]) -> None:
    """The same seed in other surroundings: the same state, the same number of replies, the same history."""
    here = run_seed(28)
    program = (
        "from tests.simulation.world import run_seed\n"
        "result = run_seed(28)\n"
        "print(result.state_hash, result.commands, result.requests, result.replies, result.failure)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | surroundings,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = f"{here.state_hash} {here.commands} {here.requests} {here.replies} {here.failure}"
    assert found.stdout.strip() == expected.strip()


def test_f29_a_broken_invariant_behind_matching_stops_before_anything_is_told(tmp_path: Path) -> None:
    """An assertion that fails right after a command was matched: no ack of it, none later, and the process ends."""
    with prepared(Plan(29, (), has_hostile=False), tmp_path) as world:
        operator, process = world.operator_client, world.process
        assert process is not None

        def broken(_slots: bytes) -> None:
            raise AssertionError("a broken invariant (injected)")

        process.sequencer.on_definition = broken
        world.disk.fail["rename"] = 1 << 30, errno.EIO  # armed and never met: no excuse
        heard = world.auditor.last_told
        place(world.traders[0].client, "before")
        operator.say({"op": "account", "account": "late"})
        place(world.traders[1].client, "after")
        world.schedule.run(world.schedule.now_ns + 400 * MS)
        assert isinstance(process.fault, AssertionError) and not process.loop.is_alive
        broken_at = process.core.sequence
        assert process.recovered.event_log.published_sequence < broken_at
        assert heard <= world.auditor.last_told < broken_at, "nothing of it was told, nor anything behind it"
        world.schedule.run(world.schedule.now_ns + 5 * SECOND)
        world.question()
        (told,) = world.auditor.violations  # it ended by itself, as was asked of it; nothing else is wrong
        assert told.invariant == "I13" and "AssertionError('a broken invariant (injected)')" in str(told)
        assert world.result.recoveries == 1


# ---------------------------------------------------------------- F61, F65, F66


def _replayed(world: Told, limits: CoreLimits | None = None, *, plain: bool = True) -> None:
    """I7: another core, and the plain one, come to the same state by the same records."""
    for core in (Core(limits), *((ReferenceCore(limits),) if plain else ())):
        for record in world.told:
            core.apply(record)
        assert core.state_hash() == world.core.state_hash()


def test_f61_an_uncross_is_one_command_however_many_cancels_pour_in() -> None:
    draw = random.Random(61)
    world = Told(accounts=4)
    world.send(CommandKind.PHASE, layout.PHASE, market=0, phase=Phase.AUCTION, reference_price=ABSENT)
    names: list[tuple[int, str]] = []
    for number in range(400):
        account, side = draw.choice(world.accounts), draw.choice([Side.BUY, Side.SELL])
        price = 100 + draw.randrange(-5, 6)
        world.place(account, side, price, draw.randrange(1, 9), client_id=f"a{number}")
        names.append((account, f"a{number}"))
        if draw.random() < 0.5:
            world.cancel(*draw.choice(names))  # they keep coming while the book is collected
    before = world.sequence
    events = world.send(CommandKind.UNCROSS, layout.PHASE, market=0)
    assert world.sequence == before + 1 and {int(event["sequence"]) for event in events} == {before + 1}
    kinds = [EventKind(int(event["kind"])) for event in events]
    assert kinds[0] == EventKind.UNCROSSED and kinds.count(EventKind.TRADE) > 50
    assert kinds[-1] == EventKind.PHASE_CHANGED
    for name in names:
        world.cancel(*name)
    assert world.book() == ""
    _replayed(world)


class _Quick(Told):
    """Does not walk the whole core after each command."""

    def send(self, *args: Any, **fields: Any) -> list[np.void]:
        slots = self.core.apply(self.record(*args, **fields))
        self.sequence += 1
        return list(slots.view(layout.TRADE)) if len(slots) else []


@pytest.mark.parametrize(("stops", "most"), [(1_200, 1_000), (10_000, 100_000)])
def test_f65_a_chain_of_stops_each_triggering_the_next_is_bounded_and_ordered(stops: int, most: int) -> None:
    """Each stop's trade triggers the next. Beyond the bound on fills the rest is cancelled, in a defined order."""
    limits = CoreLimits(max_fills_per_command=most)
    world = _Quick(accounts=0, limits=limits)
    maker, stopper, taker = range(2, 5)
    for name in (b"maker", b"stopper", b"taker"):
        world.send(CommandKind.ACCOUNT, layout.ACCOUNT, name=name)
    world.deposit(maker, 0, 10**9, "base")
    for account in (stopper, taker):
        world.deposit(account, 1, 10**12, f"quote-{account}")
    for number in range(stops):
        world.place(maker, Side.SELL, 1_000 + number, 1)
    for number in range(stops):
        world.send(
            CommandKind.PLACE, layout.PLACE, account=stopper, market=0, client_id=b"s%d" % number, side=Side.BUY,
            price=ABSENT, size=1, type=OrderType.STOP, stop_price=1_000 + number, tif=0, display_size=ABSENT,
            expires_at=ABSENT,
        )  # fmt: skip
    events = world.place(taker, Side.BUY, 1_000, 1)
    prices = [int(event["price"]) for event in events if event["kind"] == EventKind.TRADE]
    assert prices == list(range(1_000, 1_000 + min(most, stops)))
    ended = [int(event["kind"]) for event in events].count(EventKind.CANCELED)
    assert ended == 1, "the last to run finds an empty book, or no fill left; what it would have triggered waits on"
    world.core.check()
    _replayed(world, limits, plain=stops <= 2_000)


def test_f66_halt_cancel_only_auction_open_with_expiries_and_terms_changing_in_between() -> None:
    """Nothing trades outside continuous and the uncross, holds fit, and all engines agree. By many dice."""
    for seed in range(12):
        draw = random.Random(f"f66-{seed}")
        world = Told(accounts=4, taker_ppm=2_500, maker_ppm=1_000)
        phase = Phase.CONTINUOUS
        for number in range(220):
            world.now += draw.randrange(1, 50)
            trades, is_uncross = [], False
            what = draw.random()
            if what < 0.62:
                expires = world.now + draw.randrange(1, 400)
                events = _place(world, draw, number, expires if draw.random() < 0.4 else None)
            elif what < 0.75:
                events = world.tick(world.now)
            elif what < 0.8:
                extra = np.zeros(1, layout.MARKET_EXTRA)
                extra["tick"] = extra["lot"] = 1
                extra["taker_ppm"], extra["maker_ppm"] = draw.choice([(2_500, 1_000), (9_000, -300), (0, 0)])
                mask = layout.MarketMask.TAKER_PPM | layout.MarketMask.MAKER_PPM
                events = world.send(
                    CommandKind.MARKET, layout.MARKET, (extra,), name=b"BTC-USD", base=0, quote=1, mask=mask
                )
            elif what < 0.9:
                wanted = draw.choice(list(Phase))
                events = world.send(CommandKind.PHASE, layout.PHASE, market=0, phase=wanted, reference_price=ABSENT)
            else:
                is_uncross = True
                events = world.send(CommandKind.UNCROSS, layout.PHASE, market=0)
            trades = [event for event in events if event["kind"] == EventKind.TRADE]
            opened = any(
                event["kind"] == EventKind.PHASE_CHANGED and event["phase"] == Phase.CONTINUOUS for event in events
            )
            if trades:
                assert phase == Phase.CONTINUOUS or is_uncross or opened, f"seed {seed}: trades in {phase}"
            for event in events:
                if event["kind"] == EventKind.PHASE_CHANGED:
                    phase = Phase(int(event["phase"]))
        _replayed(world)


def _place(world: Told, draw: random.Random, number: int, expires: int | None) -> list[Any]:
    return world.send(
        CommandKind.PLACE, layout.PLACE, account=draw.choice(world.accounts), market=0, client_id=b"o%d" % number,
        side=draw.choice([Side.BUY, Side.SELL]), price=100 + draw.randrange(-4, 5), size=draw.randrange(1, 9),
        type=OrderType.LIMIT, stop_price=ABSENT, tif=4 if expires else 0, display_size=ABSENT,
        expires_at=ABSENT if expires is None else expires,
    )  # fmt: skip
