"""One seed: a world of clients, a network, a disk and an exchange, with faults at times that the seed has drawn.

    plan(seed) ─▶ World.run: setup ▸ 60 s of virtual time with faults ▸ quiet ▸ the auditor's questions ▸ Result

The same seed and plan give the same steps. A plan is a plain list of faults, so that it can be shortened
(tests/simulation/shorten.py). Only this file knows which faults it has committed, so it judges two things itself: that
a recovery refused to start only where data was damaged (I8), and that a process ended by itself only where its disk had
failed (I13).
"""

from __future__ import annotations

import errno
import gc
import logging
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import picows.api

from byline.client.keys import public_key
from engine.core import Core
from engine.messages import layout
from engine.messages.errors import ExchangeError, JournalCorrupt, JournalFailed
from persistence.recovery import Replayer, replay
from persistence.snapshot import snapshot_name
from tests.simulation.auditor import Auditor, Violation
from tests.simulation.client import SimulatedClient, key_of
from tests.simulation.disk import FaultyDisk
from tests.simulation.event_log import lose_events, lose_mark
from tests.simulation.exchange import (
    LIMITS,
    DiskPace,
    ExchangeProcess,
    SimulatedClock,
    Snapshot,
    journal_paths,
    wipe_events,
)
from tests.simulation.journal_reader import JournalRead, Unsound, read_journal
from tests.simulation.loop import Schedule, VirtualLoop
from tests.simulation.market_view import MarketView
from tests.simulation.network import MS, Network
from tests.simulation.projection import Projection
from tests.simulation.records import RecordClient
from tests.simulation.traders import MARKETS, Hostile, Operator, Trader, setup
from tests.support.disk import Node

__all__ = [
    "EDITION", "OVERLOADED", "SHORT_QUEUE", "Fault", "Plan", "Result", "World", "draw_plan", "prepared", "quietly",
    "run_seed",
]  # fmt: skip

SECOND = 1_000 * MS
FOREVER = 1 << 62
SETTINGS: dict[str, Any] = {
    "batch_interval_s": 5.0,
    "ping_interval_s": 4.0,
    "sign_in_timeout_s": 5.0,
    "tick_poll_s": 0.2,
}
HOUSE = ["system:fees", "system:external"]
HOSTILE = ["eve"]

LINK_FAULTS = ("cut", "cut_late", "half_open", "stall", "storm")
DISK_FAULTS = ("slow_disk", "full_disk", "short_writes", "sync_error", "write_error")
CRASHES = ("kill", "power", "kill_at_step", "power_at_step", "kill_in_disk", "power_in_disk", "power_in_recovery")
NAME_FAULTS = ("open_error", "rename_error", "sync_directory_error", "start_error")
"""Of names and not of what stands under them; `start_error`: a death, and an operation fails in the start behind it."""
READ_FAULTS = ("read_error", "bad_sector")
"""Of the next read; `bad_sector`: a death, and the same read fails in the starts behind it, for one, two or three."""
ARMED = ("sync_error", "write_error", "misdirect", "lie", *NAME_FAULTS, *READ_FAULTS)
"""Of which the disk itself counts those that it met."""
OPEN_ERRORS = (errno.EIO, errno.EIO, errno.EMFILE, errno.ENOMEM)
NAME_ERRORS = (errno.EIO, errno.EIO, errno.ENOSPC)
DAMAGE = ("flip", "misdirect", "lie", "old_block", "lost_middle")
SNAPSHOT_DAMAGE = ("snapshot_flip", "snapshot_cut", "snapshot_zeros")
"""Of what is derived: a start passes over it, and nothing is lost. Counted where there was a snapshot to damage."""
EDITION = 6
"""Of plans. What a later one adds is drawn from dice of its own, so that the plan of an earlier one stays what it was:
0 has no faults of names, 1 no clients that send records, 2 no short queue and no receipts, 3 no damaged snapshots, 4 no
reads that fail, 5 nobody who presses while the disk stands."""
RECEIPTS = 0.08
"""The share of the commands of whoever asks for receipts, for which he does."""
LAST: dict[str, dict[str, str]] = {
    "limit": {"type": "limit", "price": "1"}, "stop": {"type": "stop", "stop_price": "1000", "session": "last"},
    "market": {"type": "market"},
}  # fmt: skip
"""What each trader buys at the end in each market, a lot each. `session` is a field that order entry's fast path leaves
to the thorough one."""
QUEUE, SHORT_QUEUE = (1_024, 64), (256, 192)
"""Slots before the journal, and how many of them are kept for cancels. A disk that stalls fills the short one."""
PRESSED = 60
"""Orders beyond what the queue takes of them, that traders send at once while the disk stands (`press`)."""
OVERLOADED = 24, 8
"""Orders told `busy`, and cancels taken meanwhile, from which on a world counts as overloaded."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`at_ms`: virtual time since the setup. `draw`: what the kind needs of chance, 0 … 2^32 − 1."""

    at_ms: int
    kind: str
    draw: int


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    faults: tuple[Fault, ...]
    traders: int = 3
    has_hostile: bool = True
    duration_ms: int = 60_000
    records: tuple[str, ...] = ()
    """Clients on binary sessions."""
    queue: tuple[int, int] = QUEUE
    receipts: tuple[str, ...] = ()
    """Traders who ask for receipts."""


@dataclass(slots=True)
class Result:
    seed: int
    violations: list[Violation] = field(default_factory=list)
    commands: int = 0
    """Records of the journal, all of them checked."""
    requests: int = 0
    replies: int = 0
    records: int = 0
    """Of the requests, those that were sent as records."""
    faults: Counter[str] = field(default_factory=Counter)
    """Each once, when it was committed; what was armed and never met is not among them."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """What came of damage, and snapshots that were taken, failed or were found damaged."""
    recoveries: int = 0
    recovery_s: float = 0.0
    """The slowest, in real seconds."""
    virtual_s: float = 0.0
    """At least the plan's duration, but where damage ended the world before."""
    cpu_s: float = 0.0
    """Of this process, for the whole run."""
    outcome: str = "whole"
    """`whole`, or what came of damage that no disk can mend: `refused` to start, found by `verify` in front of the
    snapshot that it started with, or `told`: the last group was gone without a trace, and clients knew of it."""
    history: list[str] = field(default_factory=list)
    """Of a world that failed, or was to tell it."""
    state_hash: str = ""

    @property
    def failure(self) -> str:
        return "; ".join(map(str, self.violations))


def draw_plan(seed: int, *, duration_ms: int = 60_000, edition: int = EDITION) -> Plan:
    """The faults of a seed, as this edition of plans has them."""
    draw = random.Random(f"plan-{seed}")
    weights = {
        "cut": 6, "cut_late": 6, "half_open": 3, "stall": 3, "storm": 1, "slow_disk": 3, "full_disk": 1.5,
        "short_writes": 1, "sync_error": 1, "write_error": 1, "kill": 2, "power": 2, "kill_at_step": 2,
        "power_at_step": 2, "kill_in_disk": 2, "power_in_disk": 3, "power_in_recovery": 1, "clock": 3, "snapshot": 4,
        "wipe_events": 0.5,
    }  # fmt: skip
    count = draw.choice([0, 2, 4, 6, 8, 12, 20])
    faults = [
        Fault(draw.randrange(duration_ms), kind, draw.getrandbits(32))
        for kind in draw.choices(list(weights), list(weights.values()), k=count)
    ]
    if draw.random() < 0.12:
        faults.append(Fault(draw.randrange(duration_ms // 2, duration_ms), draw.choice(DAMAGE), draw.getrandbits(32)))
    if edition >= 1:
        faults += _name_faults(seed, duration_ms)
    if edition >= 4:
        faults += _snapshot_faults(seed, duration_ms)
    if edition >= 5:
        faults += _read_faults(seed, duration_ms)
    faults.sort(key=lambda fault: fault.at_ms)
    traders, has_hostile = draw.choice([2, 3, 3, 4]), draw.random() < 0.7
    records: list[str] = []
    if edition >= 2:
        dice = random.Random(f"records-{seed}")
        names = [*(f"trader{number}" for number in range(traders)), *HOSTILE]
        records = [name for name in names if dice.random() < 0.4]
    queue, receipts = QUEUE, []
    if edition >= 3:
        queue = SHORT_QUEUE if random.Random(f"queue-{seed}").random() < 0.3 else QUEUE
        dice = random.Random(f"receipts-{seed}")
        receipts = [f"trader{number}" for number in range(traders) if dice.random() < 0.4]
    if edition >= 6 and queue == SHORT_QUEUE:
        faults = sorted(faults + _presses(seed, duration_ms), key=lambda fault: fault.at_ms)
    return Plan(seed, tuple(faults), traders, has_hostile, duration_ms, tuple(records), queue, tuple(receipts))


def _name_faults(seed: int, duration_ms: int) -> list[Fault]:
    draw = random.Random(f"names-{seed}")
    kinds = draw.choices(NAME_FAULTS, (1, 1, 1, 2), k=draw.choice([0, 1, 1, 2, 3]))
    return [Fault(draw.randrange(duration_ms), kind, draw.getrandbits(32)) for kind in kinds]


def _snapshot_faults(seed: int, duration_ms: int) -> list[Fault]:
    """In a sixth of the seeds snapshots, and damage to what there is of them by then."""
    draw = random.Random(f"snapshots-{seed}")
    if draw.random() >= 1 / 6:
        return []
    times = sorted(draw.randrange(duration_ms) for _ in range(draw.choice([2, 2, 3, 4])))
    kinds = ["snapshot" for _ in times[:-1]] + [draw.choice(SNAPSHOT_DAMAGE)]
    if len(times) == 4:
        kinds[1] = draw.choice(SNAPSHOT_DAMAGE)
    return [Fault(at_ms, kind, draw.getrandbits(32)) for at_ms, kind in zip(times, kinds, strict=True)]


def _presses(seed: int, duration_ms: int) -> list[Fault]:
    draw = random.Random(f"press-{seed}")
    times = [draw.randrange(duration_ms // 10, duration_ms * 3 // 4) for _ in range(draw.choice([1, 1, 2]))]
    return [Fault(at_ms, "press", draw.getrandbits(32)) for at_ms in times]


def _read_faults(seed: int, duration_ms: int) -> list[Fault]:
    """Of starts, and in half of those seeds of a snapshot that is being finished too."""
    draw = random.Random(f"reads-{seed}")
    if draw.random() >= 1 / 3:
        return []
    count = draw.choice([1, 2])
    faults = [Fault(draw.randrange(duration_ms), "bad_sector", draw.getrandbits(32)) for _ in range(count)]
    if draw.random() < 0.5:
        at_ms = draw.randrange(duration_ms)
        faults += [Fault(at_ms, "read_error", 0), Fault(at_ms, "snapshot", draw.getrandbits(32))]
    return faults


class World:
    """Everything of one run. `run` once."""

    def __init__(
        self, plan: Plan, directory: Path, *, durable_acks: bool = True, with_history: bool = False
    ) -> None:
        self.plan, self.directory, self.with_history = plan, directory, with_history
        self.result = Result(plan.seed)
        self.schedule = Schedule()
        self.clock = SimulatedClock(self.schedule)
        self.network = Network(self.schedule, plan.seed, self.clock.now_ns)
        self.disk = FaultyDisk(plan.seed, directory)
        self.pace = DiskPace(random=random.Random(f"pace-{plan.seed}"))
        self.auditor = Auditor(plan.queue, receipt_key=public_key(key_of("receipts")))
        self.durable_acks = durable_acks
        self.process: ExchangeProcess | None = None
        self.boot = 1
        self.epoch = 0
        self.is_damaged = False
        """What was durable has been changed: the next start refuses, or loses nothing but a last group."""
        self._damaged_snapshots: list[Node] = []
        self._written_of: ExchangeProcess | None = None
        """Whose snapshot is begun, and not finished yet."""
        self._doubtful_snapshots: list[Node] = []
        """Finished while the disk lied or wrote elsewhere: whole or not, as the journal's records of that time."""
        self._damage_due: str | None = None
        """The death that is to show what armed damage has done."""
        self.is_over = False
        self._errors_before = 0
        """Errors that the disk had given when this life began."""
        self._refused_before = (0, 0)
        """Operations that the disk had refused when it was looked at last: for want of space, as it was told to."""
        self._is_calm = False
        self._next_death: str | None = None
        self._next_failures: list[tuple[str, int, int]] = []
        """Of the disk, one in each of the next starts: operation, how many of it pass before, errno."""
        self._starting = False
        self.names = names = [f"trader{number}" for number in range(plan.traders)]
        self.observer = self._client("observer", [*names, *HOUSE])
        self.operator_client = self._client("operator", [])
        self.traders = [
            Trader(self._client(name, [name]), self.schedule, plan.seed, [other for other in names if other != name])
            for name in names
        ]
        self.operator = Operator(self.operator_client, self.schedule, plan.seed, self.traders)
        for trader in self.traders:
            trader.client.wants_receipts = RECEIPTS if trader.client.name in plan.receipts else 0.0
        self.hostile: list[Hostile] = []
        if plan.has_hostile:
            self.hostile = [Hostile(self._client(name, [name]), self.schedule, plan.seed, names) for name in HOSTILE]
        self.schedule.after_step = self._after_step
        self.drop_copy: list[dict[str, Any]] = []
        self.projection = Projection(directory, plan.seed)
        self.market_view = MarketView(directory, plan.seed, sorted(MARKETS))

    def _client(self, name: str, accounts: list[str]) -> SimulatedClient:
        if name in self.plan.records:
            everybody = [*self.names, *HOSTILE] if self.plan.has_hostile else self.names
            return RecordClient(name, self.network, self.auditor, self.plan.seed, accounts, names=everybody)
        return SimulatedClient(name, self.network, self.auditor, self.plan.seed, accounts)

    @property
    def clients(self) -> list[SimulatedClient]:
        actors = [actor.client for actor in (*self.traders, *self.hostile)]
        return [self.operator_client, self.observer, *actors]

    # ------------------------------------------------------------ the run

    def run(self) -> Result:
        began = time.process_time()
        with quietly():
            try:
                self._run()
            finally:
                if self.process is not None:
                    self.process.kill()
        result = self.result
        result.violations = list(self.auditor.violations)
        if result.violations or self.with_history:
            result.history = self.auditor.history
        auditor = self.auditor
        result.requests, result.replies = auditor.requests, auditor.replies
        result.records = sum(client.records for client in self.clients if isinstance(client, RecordClient))
        result.outcomes["told_busy"], result.outcomes["passed_others"] = auditor.told_busy, auditor.passed_others
        result.outcomes["receipts"] = len(auditor.receipts)
        if self.plan.queue == SHORT_QUEUE and result.outcome == "whole":
            result.outcomes["short_queue"] = 1
            is_overloaded = auditor.told_busy >= OVERLOADED[0] and auditor.passed_others >= OVERLOADED[1]
            result.outcomes["overloaded"] = int(is_overloaded)
        result.virtual_s, result.cpu_s = self.schedule.now_ns / 1e9, time.process_time() - began
        result.faults.update(self.disk.done)
        return result

    def prepare(self) -> None:
        """Start the exchange and have the operator set it up; then everybody connects. No fault and no actor yet."""
        self._start()
        ready: list[bool] = []
        everybody = [*self.names, *(actor.client.name for actor in self.hostile)]
        self.observer.accounts += [actor.client.name for actor in self.hostile]
        watchers = {"observer": self.observer.accounts}
        self.operator.prepare(setup(everybody, watchers), lambda: ready.append(True))
        self.operator_client.connect()
        self.schedule.run(30 * SECOND, lambda: bool(ready))
        assert ready, "the setup did not end"
        for client in self.clients[1:]:
            client.connect()

    def _project(self) -> None:
        if not self.is_over:
            if self.process is not None:
                self.projection.step()
            self.schedule.later(200 * MS, self._project)

    def _follow_market(self) -> None:
        if not self.is_over:
            if self.process is not None:  # after a boot it starts behind the core, which has made the event log whole
                self.market_view.step(self.schedule.now_ns / 1e6)
            self.schedule.later(400 * MS, self._follow_market)

    def _run(self) -> None:
        self.prepare()
        self._project()
        self._follow_market()
        begun = self.schedule.now_ns
        for actor in (*self.traders, *self.hostile, self.operator):
            actor.begin()
        for fault in self.plan.faults:
            self.schedule.at(begun + fault.at_ms * MS, lambda fault=fault: self._commit(fault))  # type: ignore[misc]
        self.schedule.run(begun + self.plan.duration_ms * MS, lambda: self.is_over)
        if self.is_over:
            return
        for actor in (*self.traders, *self.hostile, self.operator):
            actor.stop()
        self.question()

    def _heal(self) -> None:
        """No more faults: everything must come back by itself."""
        self._is_calm = True
        self._next_failures.clear()
        self.disk.fail.clear()
        self.disk.space, self.disk.short_writes, self.disk.die_in = None, None, None
        self.disk.misdirect = self.disk.lies = 0
        self.pace.stall_until_ns = self.pace.wake_ns = 0
        stalls, now_ns = self.auditor.stalls, self.schedule.now_ns
        # What has an end lasts until then: a group that was begun meanwhile is not sooner on the disk.
        self.auditor.stalls = [(since_ns, now_ns if to_ns == FOREVER else to_ns) for since_ns, to_ns in stalls]
        self.schedule.crash_at_step = None

    def question(self) -> None:
        """Quiet: everybody comes back, all doubts are settled, and the auditor's questions are answered."""
        if self._damage_due is not None:
            self._show_damage()
        self._heal()
        deadline = self.schedule.now_ns + 60 * SECOND

        def is_quiet() -> bool:
            return self.is_over or all(client.is_live and not client.open for client in self.clients)

        while self.schedule.now_ns < deadline and not is_quiet():
            self._pass_a_second()
        if self.is_over:
            return
        if not is_quiet():
            waiting = [f"{c.name} live={c.is_live} open={len(c.open)}" for c in self.clients if not c.is_live or c.open]
            self.auditor.blame("I12", f"60 s after the last fault there is no answer: {waiting}")
            return
        if not self._all_trade_again():
            return
        answers: dict[tuple[str, str], dict[str, Any]] = {}

        def take(request: dict[str, Any], answer: dict[str, Any]) -> None:
            answers[request["op"], request.get("account", "")] = answer

        self.operator_client.on_answer = take
        accounts = self.observer.accounts
        wanted = [{"op": "balances", "account": account} for account in accounts]
        wanted += [{"op": "open_orders", "account": name} for name in accounts if not name.startswith("system:")]
        reader = self._client("observer", accounts)
        reader.name, reader.key = "reader", key_of("observer")
        reader.seen = 1  # so that it resumes behind 0: from the first sequence on
        told: list[dict[str, Any]] = []
        reader.on_event = told.append
        reader.on_lost = told.clear  # it begins again
        reader.connect()
        deadline = self.schedule.now_ns + 60 * SECOND
        while self.schedule.now_ns < deadline:
            told_of = {one.get("sequence") for one in answers.values()}  # None: refused, as by a journal that failed
            is_whole = len(answers) == len(wanted) and len(told_of) == 1 and None not in told_of
            if reader.is_live and is_whole:
                break
            if self.operator_client.is_live and not self.operator_client.open:
                answers.clear()  # a timer or a cut came in between: all are to tell of one sequence
                for ask in wanted:
                    self.operator_client.say(ask)
            self._pass_a_second()
            if self.is_over:
                return
        else:
            self.auditor.blame("I12", "the auditor's questions are not answered within 60 s")
            return
        balances = {account: answers["balances", account] for account in accounts}
        orders = {a: answers["open_orders", a] for a in accounts if not a.startswith("system:")}
        end = max(answer["sequence"] for answer in answers.values())
        self.drop_copy = [event for event in told if event["sequence"] <= end]
        self._compare_lives()
        self.auditor.finish(self.drop_copy, end, balances, orders)

    def _all_trade_again(self) -> bool:
        """I12: whatever came before, each trader's orders are taken in each market now. False: they were not, or the
        world ended.

        Nothing is mended before somebody is refused for it, and the auditor looks at each refusal: so a market that
        came back in another phase, or a kill that was undone and holds again, is seen.
        """
        kinds = [(market, kind) for market in sorted(MARKETS) for kind in LAST]
        left = {(trader.client, *kind): 0 for trader in self.traders for kind in kinds}
        deadline, tries = self.schedule.now_ns + 60 * SECOND, 0
        while self.schedule.now_ns < deadline:
            tries += 1
            ready = {client for client, _, _ in left if client.is_live and not client.open}
            for client, market, kind in left:
                if client in ready:
                    order = {"op": "place", "client_id": f"last-{client.name}-{market}-{kind}{tries}", "market": market}
                    order |= {"side": "buy", "size": MARKETS[market]["lot"]} | LAST[kind]
                    left[client, market, kind] = client.say(order)
            self._pass_a_second()
            if self.is_over:
                return False
            left = {order: rid for order, rid in left.items() if not rid or not self._is_taken(*order, rid)}
            if not left:
                return True
            self._mend(left, tries)
            if self.is_over:
                return False
        orders = [(client.name, market, kind) for client, market, kind in left]
        self.auditor.blame("I12", f"60 s after the last fault these orders are not taken: {orders}")
        return False

    def _is_taken(self, client: SimulatedClient, _market: str, kind: str, rid: int) -> bool:
        """Or refused for what nobody mends: the auditor says whether the other side of the book was empty."""
        return self.auditor.answer(client, rid) == "accepted" or (
            kind == "market" and self.auditor.why(client, rid) == "no_liquidity"
        )

    def _mend(self, left: dict[tuple[SimulatedClient, str, str], int], tries: int) -> None:
        """What these orders were refused for, and is of their owner's or the operator's doing."""
        refused = {(self.auditor.why(order[0], rid), *order) for order, rid in left.items() if rid}
        operator = self.operator_client
        for client in (trader.client for trader in self.traders):
            if client.is_live and any(why == "killed" and owner is client for why, owner, _, _ in refused):
                client.say({"op": "rearm"})
        if operator.is_live and not operator.open:
            for market in sorted({market for why, _, market, _ in refused if why == "phase"}):
                # From any phase, and with a crossed book, an auction leads to continuous.
                operator.say({"op": "phase", "market": market, "phase": "auction"})
                operator.say({"op": "uncross", "market": market})
            for name in sorted({client.name for why, client, _, _ in refused if why == "insufficient_funds"}):
                deposit = {"op": "deposit", "account": name, "asset": "USD", "amount": "1000"}
                operator.say(deposit | {"ref": f"last-{name}-{tries}"})
        if refused:
            self._pass_a_second()

    def _pass_a_second(self) -> None:
        self.schedule.run(self.schedule.now_ns + SECOND, lambda: self.is_over)

    def _compare_lives(self) -> None:
        """I7: the running core, one replayed from the first record, and one from the newest snapshot agree."""
        assert self.process is not None
        process = self.process
        self.schedule.run(self.schedule.now_ns + SECOND)
        # A timer's command of the last moment is in the core, and not yet told.
        sequencer = process.sequencer
        self.schedule.run(self.schedule.now_ns + SECOND, lambda: sequencer.released_sequence == sequencer.sequence)
        self.auditor.check_journal(self._journal_files())
        live = process.core.state_hash()
        self.result.state_hash = live.hex()
        self.result.commands = process.core.sequence
        again, _ = replay(self.disk, limits=LIMITS)
        if again.state_hash() != live:
            self.auditor.blame("I7", f"replayed from the first record: {again.state_hash().hex()}, live {live.hex()}")
        self._compare_receipts()
        if Core.restore(process.core.snapshot()).state_hash() != live:
            self.auditor.blame("I7", "restored from its own snapshot the state differs")
        if wrong := self.projection.differs(process.core):
            self.auditor.blame("I9", f"the projection differs: {wrong[:400]}")
        if wrong := self.market_view.differs(process.core, self.schedule.now_ns / 1e6):
            self.auditor.blame("I9", f"a reader of market data: {wrong[:400]}")
        for name in ("deaths", "cuts", "losses"):
            self.result.faults[f"market_{name}"] += getattr(self.market_view, name)
        gc.collect(0)  # an exception that nobody asked for is told of when its task is collected
        if process.loop.faults:
            self.auditor.blame("I13", f"exceptions that nobody caught: {process.loop.faults[:3]}")

    def _compare_receipts(self) -> None:
        """I7: a replay has the state that each receipt was signed for, right after its command."""
        journal = self.auditor.journal
        if journal is None:
            return
        replayer, at = Replayer(lambda *_: None, LIMITS), 0
        for sequence, receipt in sorted(self.auditor.receipts.items()):
            if sequence > len(journal.records):
                break  # the auditor says so
            body = b"".join(record.body for record in journal.records[at:sequence])
            replayer.apply(np.frombuffer(body, layout.COMMAND), at + 1, sequence)
            at = sequence
            if (state := replayer.state_hash().hex()) != receipt["state_hash"]:
                self.auditor.blame("I7", f"replayed to {sequence}: {state}, signed was {receipt['state_hash']}")

    def _is_sound(self) -> bool:
        """Whether a start would take the journal as it lies there now."""
        try:
            replay(self.disk, limits=LIMITS)
        except JournalCorrupt:
            return False
        return True

    def _journal_files(self) -> dict[str, bytes]:
        return {path: bytes(self.disk.files[path].cached) for path in journal_paths(self.disk)}

    # ------------------------------------------------------------ the exchange's lives

    def _start(self) -> None:
        if self.is_over or self.process is not None:
            return
        self._starting = False
        self.epoch += 1
        death = self._next_death
        if death is not None:
            self._next_death = None
            self.disk.die_in = 1 + random.Random(f"recovery-{self.plan.seed}-{self.epoch}").randrange(12)
        if self._next_failures:
            operation, passes, error_number = self._next_failures.pop(0)
            self.disk.fail[operation] = passes, error_number
        self._errors_before = self.disk.errors_given
        found, refused = self._read_damaged() if self.is_damaged else None, self.disk.no_space_count
        try:
            process = ExchangeProcess(
                self.schedule, self.network, self.disk, self.clock, self.directory,
                boot=self.boot.to_bytes(16, "little"), epoch=self.epoch, pace=self.pace,
                operator_key=key_of("operator"), receipt_key=key_of("receipts"), settings=SETTINGS,
                durable_acks=self.durable_acks, queue=self.plan.queue,
            )  # fmt: skip
        except JournalCorrupt as error:
            if not self.is_damaged:
                self.auditor.blame("I8", f"a sound journal is refused: {error}")
            self._end("refused")
            return
        except (OSError, ExchangeError) as error:
            if self.disk.is_dead:
                self._died("power")
                return
            if _is_space(error) or self._is_the_disks(error):
                self.schedule.later(SECOND, self._start)
                return
            raise
        self.disk.die_in = None
        self.disk.fail.pop("read", None)  # of a place that this start did not read
        self.process = process
        self.projection.begin_again()
        if self.disk.no_space_count > refused:
            self.auditor.full_disk.append([self.schedule.now_ns, FOREVER])
            self._wait_for_space(self.auditor.full_disk[-1], self.epoch)
        report = process.recovered.report
        self.result.recoveries += self.epoch > 1
        self.result.recovery_s = max(self.result.recovery_s, report.seconds)
        self.result.outcomes["damaged_snapshot"] += len(report.damaged_snapshots)
        for told in report.damaged_snapshots:
            node = next((node for path, node in self.disk.files.items() if told.startswith(path)), None)
            if not any(node is other for other in self._damaged_snapshots + self._doubtful_snapshots):
                self.auditor.blame("I8", f"a snapshot that nobody damaged is not whole: {told}")
        used = self.disk.files.get(snapshot_name(report.snapshot_sequence))
        if any(used is damaged for damaged in self._damaged_snapshots):
            self.auditor.blame("I8", f"it started from snapshot {report.snapshot_sequence}, which is damaged")
        if found is not None:
            self._judge_damaged(found)
        elif self.epoch > 1:
            self.auditor.check_journal(self._journal_files())
            self._compare_state(process)

    def _compare_state(self, process: ExchangeProcess) -> None:
        """I7: a start from a snapshot and what came behind it has the state that all records from the first make."""
        report, journal = process.recovered.report, self.auditor.journal
        if journal is None or report.sequence > len(journal.records):
            return  # the auditor says so
        replayer = Replayer(lambda *_: None, LIMITS)
        body = b"".join(record.body for record in journal.records[: report.sequence])
        replayer.apply(np.frombuffer(body, layout.COMMAND), 1, report.sequence)
        if replayer.state_hash() != report.state_hash:
            self.auditor.blame("I7", f"life {self.epoch} has another state at {report.sequence} than its journal makes")
        try:
            process.core.check()
        except AssertionError as error:
            self.auditor.blame("I13", f"life {self.epoch} came up and does not pass its own check: {error}")

    def _wait_for_space(self, without: list[int], epoch: int) -> None:
        """Until this life's end, or until there has been space for longer than the keeper waits to try again."""
        refused = self.disk.no_space_count

        def look() -> None:
            if epoch == self.epoch and (self.disk.space is not None or self.disk.no_space_count > refused):
                self._wait_for_space(without, epoch)
            else:
                without[1] = self.schedule.now_ns

        self.schedule.later(3 * SECOND, look)

    def _read_damaged(self) -> JournalRead | str:
        """What the damaged files hold, by the auditor's own reader, before a start touches them."""
        try:
            return read_journal(self._journal_files())
        except Unsound as error:
            return str(error)

    def _judge_damaged(self, found: JournalRead | str) -> None:
        """A start went through: that is right if the hole is in front of its snapshot, or behind all that is proven."""
        assert self.process is not None
        reached = self.process.core.sequence
        if isinstance(found, str) or found.hole_before:
            if self._is_sound():
                self.auditor.blame("I8", f"it started at {reached} and hid a hole: {_told(found)}")
            elif reached < self.auditor.last_told:
                self.auditor.blame("I3", f"it started at {reached}, told was {self.auditor.last_told}: {_told(found)}")
            self._end("found_by_verify")  # in front of the snapshot: a start does not read there
            return
        before = len(self.auditor.violations)
        self.auditor.check_journal(self._journal_files())
        news = self.auditor.violations[before:]
        if news and reached >= len(found.records) and all(one.invariant == "I3" for one in news):
            # Nothing on the disk tells of what is gone; the clients do. That is all that one disk allows.
            del self.auditor.violations[before:]
            self._end("told")
        if self._damage_due is None:
            self.is_damaged = False

    def _end(self, outcome: str) -> None:
        self.result.outcome = outcome
        self.result.outcomes[outcome] += 1
        self.is_over = True

    def _died(self, death: str) -> None:
        """The process is gone, and with `power` the machine's memory."""
        if self.process is not None:
            self.process.kill()
            self.process = None
        if death == "power":
            self.boot += 1
            lose_events(self.directory, random.Random(f"events-{self.plan.seed}-{self.boot}"))
            lose_mark(self.directory, random.Random(f"mark-{self.plan.seed}-{self.boot}"))
            self.market_view.begin()
        self.disk.revive(death)
        if not self._starting:
            self._starting = True
            self.schedule.later(random.Random(f"down-{self.schedule.now_ns}").randrange(20, 800) * MS, self._start)

    def _after_step(self, owner: VirtualLoop) -> None:
        refused = self.disk.no_space_count, self.disk.errors_given
        if refused != self._refused_before:
            self.auditor.disk_refused(self.schedule.now_ns, has_failed=refused[1] > self._refused_before[1])
            self._refused_before = refused
        process = self.process
        if process is None or owner is not process.loop:
            return
        if self.disk.is_dead:
            self._died(self._death_in_disk)
            return
        process.look()
        published, durable = process.recovered.event_log.published_sequence, process.journal.durable_sequence
        if published > durable and self.durable_acks:
            self.auditor.blame("I3", f"the event log is published up to {published}, the disk has {durable}")
        if process.fault is not None:
            if not self._is_the_disks(process.fault):
                self.auditor.blame("I13", f"the exchange ended by itself: {process.fault!r}")
            self._died("kill")
        elif process.journal.failed and process.failed_at_ns is not None:
            if self.disk.errors_given == self._errors_before:
                self.auditor.blame("I13", f"the journal failed by itself: errno {process.journal.failed}")
            if self.schedule.now_ns > process.failed_at_ns + SECOND:
                self._died("kill")  # what the supervisor does

    def _is_the_disks(self, end: BaseException) -> bool:
        """Whether the disk, which has failed in this life, ended it. A broken invariant is never the disk's."""
        return isinstance(end, (OSError, JournalFailed)) and self.disk.errors_given > self._errors_before

    _death_in_disk = "power"

    # ------------------------------------------------------------ faults

    def _commit(self, fault: Fault) -> None:
        if self.is_over:
            return
        draw = random.Random(fault.draw)
        if fault.kind == "snapshot":
            self.result.outcomes["snapshot"] += 1
        elif fault.kind not in ("press", *ARMED, *SNAPSHOT_DAMAGE):
            self.result.faults[fault.kind] += 1
        self.auditor.note(self.schedule.now_ns, "----", fault)
        kind = fault.kind
        if kind in LINK_FAULTS:
            self._link_fault(kind, draw)
        elif kind in CRASHES:
            self._crash(kind, draw)
        elif kind in DISK_FAULTS:
            self._disk_fault(kind, draw)
        elif kind in NAME_FAULTS:
            self._name_fault(kind, draw)
        elif kind == "read_error":
            self.disk.fail["read"] = 0, errno.EIO
        elif kind == "bad_sector":
            # A start reads each segment two or three times, a snapshot and the registry: mostly six to twelve reads.
            self._next_failures += [("read", draw.randrange(12), errno.EIO)] * draw.randrange(1, 4)
            self._died(draw.choice(["kill", "power"]))
        elif kind in DAMAGE:
            self._damage(kind, draw)
        elif kind in SNAPSHOT_DAMAGE:
            self._damage_snapshots(kind, draw)
        elif kind == "clock":
            self.clock.offset_ns += draw.choice([3_600_000, -3_600_000, 500, -500, 1_000, -37, 5]) * MS
        elif kind == "snapshot":
            self._snapshot(draw)
        elif kind == "press":
            self._press(draw)
        elif kind == "slow_wake":  # of plans that a test makes
            self.pace.wake_ns = draw.randrange(1, 40) * MS
            self.auditor.stalls.append((self.schedule.now_ns, FOREVER))
        elif kind == "wipe_events":
            self._died("kill")
            wipe_events(self.directory)
            self.market_view.begin()  # it may go only while nobody reads it

    def _link_fault(self, kind: str, draw: random.Random) -> None:
        links = sorted((link for link in self.network.links if not link.is_left), key=lambda link: link.number)
        if not links:
            return
        link = draw.choice(links)
        if kind == "storm":
            for each in links:
                each.cut(late_bytes=draw.random() < 0.5)
        elif kind == "half_open":
            link.half_open()
        elif kind == "stall":
            link.stall(draw.randrange(100, 12_000) * MS)
        else:
            link.cut(late_bytes=kind == "cut_late")

    def _crash(self, kind: str, draw: random.Random) -> None:
        death = "kill" if kind.startswith("kill") else "power"
        if kind.endswith("at_step"):
            steps = self.schedule.process_steps + draw.randrange(1, 60)
            self.schedule.crash_at_step = steps, lambda: self._died(death)
        elif kind.endswith("in_disk"):
            self._death_in_disk = death
            self.disk.die_in = draw.randrange(1, 10)
        else:
            if kind == "power_in_recovery":
                self._next_death = "power"
            self._died(death)

    def _press(self, draw: random.Random) -> None:
        """The disk stands still and everybody goes on: more orders at once than the queue takes, and cancels then."""
        if self._is_calm or self.is_over:
            return
        traders = [trader for trader in self.traders if trader.client.is_live]
        if len(traders) < len(self.traders) or self.disk.space is not None:
            self.schedule.later(500 * MS, lambda: self._press(draw))
            return
        self.result.faults["press"] += 1
        self._stall(draw.choice([1_000, 2_000]))
        slots, kept = self.plan.queue
        for trader in traders:
            trader.press((slots - kept + PRESSED) // len(traders))

    def _stall(self, ms: int) -> None:
        self.pace.stall_until_ns = self.schedule.now_ns + ms * MS
        self.auditor.stalls.append((self.schedule.now_ns, self.pace.stall_until_ns))

    def _disk_fault(self, kind: str, draw: random.Random) -> None:
        if kind == "slow_disk":
            self._stall(draw.choice([50, 500, 5_000]))
        elif kind == "full_disk":
            self.disk.space = draw.choice([0, 0, 4_096, 80_000])

            def space_again() -> None:
                self.disk.space = None

            self.schedule.later(draw.randrange(500, 15_000) * MS, space_again)
        elif kind == "short_writes":
            self.disk.short_writes = draw.choice([1, 100, 4_096])
        else:
            operation = "sync" if kind == "sync_error" else "write"
            self.disk.fail[operation] = (draw.randrange(6), draw.choice([errno.EIO, errno.EIO, errno.ENOSPC]))

    def _name_fault(self, kind: str, draw: random.Random) -> None:
        operation = kind.removesuffix("_error")
        if operation == "start":
            operation = draw.choice(["open", "open", "rename", "sync_directory", "sync_directory", "write", "sync"])
            # A start opens each segment and snapshot at least once, and syncs and renames a few times.
            passes = draw.randrange(10 if operation == "open" else 4)
            failure = operation, passes, draw.choice(OPEN_ERRORS if operation == "open" else NAME_ERRORS)
            self._next_failures.append(failure)
            self._died(draw.choice(["kill", "power"]))
            return
        self.disk.fail[operation] = draw.randrange(3), draw.choice(OPEN_ERRORS if operation == "open" else NAME_ERRORS)

    def _damage(self, kind: str, draw: random.Random) -> None:
        """What no single disk can mend. The start that follows must refuse, or be right all the same."""
        if kind in ("lie", "misdirect"):
            self.is_damaged, self._damage_due = True, "power" if kind == "lie" else "kill"
            self.disk.lies, self.disk.misdirect = (1 << 30, 0) if kind == "lie" else (0, 1)
            self.schedule.later(draw.randrange(50, 4_000) * MS, self._show_damage)
            return
        self._died("kill")
        paths = journal_paths(self.disk)
        if not paths:
            return
        self.is_damaged = True
        path = draw.choice(paths)
        node = self.disk.files[path]
        used = len(bytes(node.cached).rstrip(b"\0"))
        if kind == "flip":
            self.disk.flip_bit(path, draw.randrange(used * 8))
            return
        at = draw.randrange(used) // 512 * 512
        size = 512 * draw.choice([1, 1, 8])
        for kept in (node.cached, node.stored):
            kept[at : at + size] = bytes(len(kept[at : at + size])) if kind == "lost_middle" else kept[:size]

    def _damage_snapshots(self, kind: str, draw: random.Random) -> None:
        """The newest, or all: what a start finds of them must not count, and what it begins with must be right."""
        self._died(draw.choice(["kill", "kill", "power"]))
        paths = sorted(path for path in self.disk.files if path.endswith(".snapshot"))
        for path in paths if draw.random() < 0.25 else paths[-1:]:
            node = self.disk.files[path]
            size = len(node.cached)
            if kind == "snapshot_flip":
                self.disk.flip_bit(path, draw.randrange(size * 8))
            else:
                at = draw.randrange(size)
                for kept in (node.cached, node.stored):
                    kept[at:] = bytes(max(0, len(kept) - at)) if kind == "snapshot_zeros" else b""
            self._damaged_snapshots.append(node)
            self.result.faults[kind] += 1

    def _show_damage(self) -> None:
        """The death that armed damage waits for, if it still does."""
        death, self._damage_due = self._damage_due, None
        if death is not None and not self.is_over:
            self._died(death)

    def _snapshot(self, draw: random.Random) -> None:
        process = self.process
        if process is None or not process.is_ready or self._written_of is process:  # production writes one at a time
            return
        self._written_of = process
        try:
            self._finish_snapshot(process, Snapshot(process), draw)
        except OSError:
            self._written_of = None
            self.result.outcomes["snapshot_failed"] += 1

    def _finish_snapshot(self, process: ExchangeProcess, snapshot: Snapshot, draw: random.Random) -> None:
        """As soon as the journal is durable up to it; a process that ended before leaves it unfinished."""
        if self.process is not process or process.journal.failed:
            return
        if process.journal.durable_sequence < snapshot.sequence:
            self.schedule.later(20 * MS, lambda: self._finish_snapshot(process, snapshot, draw))
            return
        self._written_of = None
        if self._damage_due is not None:
            self._doubtful_snapshots.append(self.disk.files[f"{snapshot_name(snapshot.sequence)}.tmp"])
        if draw.random() < 0.3:
            self._death_in_disk = "power"
            self.disk.die_in = draw.randrange(1, 8)
        try:
            whole = self.disk.files[snapshot.finish()]
            self._damaged_snapshots = [node for node in self._damaged_snapshots if node is not whole]
            self.result.outcomes["snapshot_whole"] += 1
        except OSError:
            self.result.outcomes["snapshot_failed"] += 1
        if self.disk.is_dead:
            self._died("power")


def _told(found: JournalRead | str) -> str:
    return found if isinstance(found, str) else f"whole to {len(found.records)}, and again at {found.hole_before}"


def _is_space(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        cause = cause.__cause__
    return False


@contextmanager
def quietly() -> Iterator[None]:
    """What is provoked here is not worth a line of log; and picows is to use the loop's own network."""
    has, picows.api._HAS_AIOFASTNET = picows.api._HAS_AIOFASTNET, False
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        picows.api._HAS_AIOFASTNET = has


@contextmanager
def prepared(plan: Plan, directory: Path) -> Iterator[World]:
    """A world that is set up, with everybody signed in, for a test that tells each what to do."""
    world = World(plan, directory)
    with quietly():
        try:
            world.prepare()
            world.schedule.run(world.schedule.now_ns + 2 * SECOND)
            yield world
        finally:
            if world.process is not None:
                world.process.kill()


def run_seed(seed: int, *, plan: Plan | None = None, world: Callable[..., World] = World, **options: Any) -> Result:
    """A whole run of one seed in a scratch directory, in memory where there is one."""
    memory = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix="byline-sim-", dir=memory if memory.is_dir() else None))
    try:
        return world(draw_plan(seed) if plan is None else plan, scratch, **options).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
