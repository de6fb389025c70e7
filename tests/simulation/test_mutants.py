"""Bugs planted on purpose: each must be caught and named by the invariant that it breaks. So the checks can fail."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from byline.backup_gate import BackupGate
from engine.messages.codes import CancelReason, CommandKind, OrderType, RejectCode
from engine.messages.layout import PlaceFlag
from engine.reference import amend, matching, place, safeguards, timers, trade
from gateway import pulls
from persistence import evidence, recovery, segments, snapshot
from persistence.event_log import published_end
from persistence.shipped import Shipped
from settlement.batch import Life, PartRefused, State
from settlement.chain.localsui.contract import Withdraw
from settlement.chain.port import Execution, VaultListing
from settlement.clerk import Clerk
from settlement.netting import Netting
from settlement.settler import Settler
from settlement.submitter import Submitter
from tests.simulation import chain
from tests.simulation.disk import FaultyDisk
from tests.simulation.exchange import journal_paths
from tests.simulation.projection import Projection
from tests.simulation.settlement_world import run_settlement
from tests.simulation.traders import place as place_order
from tests.simulation.twin import Twin
from tests.simulation.world import SECOND, Fault, Plan, World, prepared, run_seed


def _invariants(violations: Any) -> set[str]:
    return {violation.invariant for violation in violations}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world that went well, with its history."""
    made = World(Plan(10, (), traders=3, duration_ms=40_000), tmp_path_factory.mktemp("world"))
    result = made.run()
    assert not result.violations, result.failure
    names = {event["event"] for event in made.drop_copy}
    assert {"trade", "replaced", "transferred", "canceled", "triggered"} <= names
    return made


@pytest.fixture
def last(world: World) -> int:
    """The last sequence that the world's questions were answered as of."""
    return max(event["sequence"] for event in world.drop_copy)


# ---------------------------------------------------------------- acks, checksums, snapshots


def test_an_ack_before_the_sync_is_caught() -> None:
    """The sequencer tells at once; what was told and not yet on disk goes with the power."""
    plan = Plan(3, (Fault(5_000, "slow_disk", 5), Fault(7_000, "power", 1)), duration_ms=10_000)
    assert not run_seed(3, plan=plan).violations
    caught = run_seed(3, plan=plan, durable_acks=False)
    assert "I3" in _invariants(caught.violations), caught.failure


def test_events_published_before_the_sync_are_caught(tmp_path: Path) -> None:
    """Projector, settler and market data read the event log: nothing may be in it that a loss of power takes back."""
    with prepared(Plan(4, (), traders=2, has_hostile=False), tmp_path) as world:
        world.pace.stall_until_ns = world.schedule.now_ns + 2 * SECOND
        place_order(world.traders[0].client, "x")
        world.schedule.run(world.schedule.now_ns + SECOND)
        assert world.process is not None and not world.auditor.violations
        assert world.process.core.sequence > world.process.journal.durable_sequence
        world.process.recovered.event_log.publish(world.process.core.sequence)
        world.schedule.run(world.schedule.now_ns + SECOND)
        assert "I3" in _invariants(world.auditor.violations)


def test_a_skipped_checksum_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery takes what stands in the files for what was written."""

    def trusting(data: Any, at: int, end: int, limit: int, sequence: int, chain: int) -> tuple[int, int, int, int]:
        slots = np.asarray(data).reshape(-1, 128)
        while at < end and limit and slots[at, 5]:
            chain = int.from_bytes(slots[at, 24:32].tobytes(), "little")
            sequence, at, limit = sequence + 1, at + int(slots[at, 5]), limit - 1
        return at, sequence, chain, 0 if at == end or not limit else 1

    with prepared(Plan(5, ()), tmp_path) as world:
        for actor in world.traders:
            actor.begin()
        world.schedule.run(world.schedule.now_ns + 8 * SECOND)
        world._died("kill")
        path = segments.segment_name(1)
        places = range(segments.HEADER_BYTES, len(bytes(world.disk.files[path].cached).rstrip(b"\0")), 128)
        place = next(at for at in places if world.disk.files[path].cached[at + 4] == CommandKind.DEPOSIT)
        world.disk.flip_bit(path, (place + 100) * 8)
        monkeypatch.setattr(segments, "scan_records", trusting)
        world.schedule.run(world.schedule.now_ns + 3 * SECOND)
        assert world.process is not None, "it started all the same"
        assert "I8" in _invariants(world.auditor.violations)


def test_the_journals_mark_tells_of_a_last_record_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a kill the start is refused; without the mark only the clients know of what is lost."""
    for name, outcome in (("marked", "refused"), ("unmarked", "told")):
        (tmp_path / name).mkdir()
        with prepared(Plan(5, ()), tmp_path / name) as world:
            for actor in world.traders:
                actor.begin()
            world.schedule.run(world.schedule.now_ns + 8 * SECOND)
            world._died("kill")
            node = world.disk.files[max(journal_paths(world.disk))]
            last = (len(bytes(node.cached).rstrip(b"\0")) - 1) // 128 * 128
            for kept in (node.cached, node.stored):
                kept[last : last + 128] = bytes(128)
            world.is_damaged = True
            world.schedule.run(world.schedule.now_ns + 3 * SECOND)
            assert world.result.outcome == outcome and not world.auditor.violations
        monkeypatch.setattr(evidence, "read_mark", lambda disk, identity: 0)


class _LastOfTheHeader(random.Random):
    """Bits that no reader needs: only a digest tells of them."""

    def randrange(self, *_: Any, **__: Any) -> int:
        return 8 * (snapshot._HEADER.size - 1)


def test_a_start_from_a_damaged_snapshot_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose header is believed: what it says is right, so nothing else would differ."""
    plan = Plan(0, (Fault(5_000, "snapshot", 2),), traders=2, has_hostile=False, duration_ms=10_000)
    for sealed, broken in ((snapshot._sealed, set[str]()), (lambda header, size, digest: header, {"I8"})):
        world = World(plan, tmp_path / str(len(broken)))
        world.directory.mkdir()
        # Behind the writer, which seals by the same function.
        world.schedule.at(8 * SECOND, partial(monkeypatch.setattr, snapshot, "_sealed", sealed))
        flip = partial(world._damage_snapshots, "snapshot_flip", _LastOfTheHeader())
        world.schedule.at(9 * SECOND, flip)
        result = world.run()
        assert result.faults["snapshot_flip"] == 1
        assert _invariants(result.violations) == broken


def test_a_snapshot_that_gets_its_name_before_its_header_is_on_disk_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsynced:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def sync(self) -> None:
            """Leaves it to the page cache."""

    finish = snapshot.SnapshotWriter.finish

    def hasty(self: snapshot.SnapshotWriter) -> str:
        self._file = Unsynced(self._file)  # type: ignore[assignment]
        return finish(self)

    faults = Fault(5_000, "snapshot", 2), Fault(6_000, "power", 3)
    assert _caught(*faults, seeds=range(2, 3)) == set()
    monkeypatch.setattr(snapshot.SnapshotWriter, "finish", hasty)
    assert _caught(*faults, seeds=range(2, 3)) == {"I8"}


def test_a_record_applied_twice_after_a_restore_is_caught(world: World, last: int) -> None:
    """The first deposit behind a snapshot is in the snapshot already, and is applied again."""

    def twice(twin: Twin, record: bytes) -> None:
        if record[4] == CommandKind.DEPOSIT and twin.core.sequence > last // 3 and not hasattr(twin, "done"):
            twin.done = True  # type: ignore[attr-defined]
            twin.core._state.refs.clear()
            twin.core._state.sequence -= 1
            twin.core.apply(record)  # what it tells is in the event log already

    assert not Twin(world, last).run().judged().violations
    assert _invariants(Twin(world, last).run(twice).judged().violations) == {"I1"}


def test_a_start_that_passes_over_what_it_cannot_read_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sector of the journal that gives EIO is taken for one that nobody has written."""
    faults = Fault(4_000, "bad_sector", 1), Fault(5_000, "bad_sector", 3)
    assert _caught(*faults, seeds=range(3)) == set()
    whole = segments.view

    def blind(disk: FaultyDisk, path: str) -> memoryview:
        try:
            return whole(disk, path)
        except OSError:
            return memoryview(bytes(len(disk.files[path].cached)))

    monkeypatch.setattr(segments, "view", blind)
    assert _caught(*faults, seeds=range(3)) & {"I3", "I8"}


# ---------------------------------------------------------------- what a loss of power takes


def test_a_life_that_came_up_with_another_state_is_caught_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has told anybody anything, and though the next start may heal it."""

    def wrong(*given: Any, **more: Any) -> Any:
        recovered = recovery.recover(*given, **more)
        if recovered.report.sequence:
            recovered.report.state_hash = bytes(16)
        return recovered

    with prepared(Plan(1, ()), tmp_path) as world:
        world.schedule.run(world.schedule.now_ns + SECOND)
        world._died("kill")
        monkeypatch.setattr("tests.simulation.exchange.recover", wrong)
        world._start()
        assert _invariants(world.auditor.violations) == {"I7"}


def _caught(*faults: Fault, seeds: range = range(6), until_ms: int = 6_000) -> set[str]:
    """The invariants that small worlds with these faults break."""
    plans = [Plan(seed, faults, traders=3, has_hostile=False, duration_ms=until_ms) for seed in seeds]
    return set().union(*(_invariants(run_seed(plan.seed, plan=plan).violations) for plan in plans))


def test_a_group_that_a_failed_sync_left_in_the_cache_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start only syncs, and the kernel holds the pages of the failed sync for clean."""
    faults = (Fault(2_990, "slow_disk", 5), Fault(3_000, "sync_error", 2), Fault(11_000, "power", 1))
    assert _caught(*faults, until_ms=13_000) == set()

    def only_synced(disk: Any, listed: list[segments.Segment]) -> None:
        if listed:
            disk.open(listed[-1].path).sync()

    monkeypatch.setattr(segments, "settle_end", only_synced)
    assert "I8" in _caught(*faults, until_ms=13_000)


def test_a_name_that_was_never_made_durable_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    power = Fault(4_000, "power", 1)
    assert _caught(power) == set()
    monkeypatch.setattr(FaultyDisk, "sync_directory", lambda self, directory: None)
    assert _caught(power) & {"I3", "I8"}


def test_an_event_log_kept_over_a_loss_of_power_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what its mark names nobody ever synced it: it may be torn anywhere."""

    def of_any_boot(directory: Path, *_: Any) -> tuple[int | None, None]:
        state = recovery.log_state(directory)
        if state is None or state[2] & 1:
            return None, None
        try:
            return published_end(directory), None
        except (OSError, ValueError):  # a file of it is gone: that is seen whoever kept it
            return None, None

    monkeypatch.setattr(recovery, "_kept", of_any_boot)
    monkeypatch.setattr(Projection, "step", lambda self: False)  # a fold of torn events may never end
    assert "I3" in _caught(Fault(4_000, "power", 1), seeds=range(1, 4))


def test_a_hole_that_is_cut_silently_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery never looks whether a later group proves that what is damaged was durable."""
    flip = Fault(5_000, "flip", 1)
    assert _caught(flip, seeds=range(3)) == set()
    whole = segments.find_record

    def blind(raw: Any, at: int, end: int, first: bool, after: int) -> int:
        return end if after else whole(raw, at, end, first, after)

    monkeypatch.setattr(segments, "find_record", blind)
    assert _caught(flip, seeds=range(3)) == set(), "the journal's mark refuses the start all the same"
    monkeypatch.setattr(evidence, "read_mark", lambda disk, identity: 0)
    assert "I8" in _caught(flip, seeds=range(3))


# ---------------------------------------------------------------- who asked for it


def test_a_lost_connection_that_takes_all_orders_of_its_account_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other sessions too, and those that were to outlive their connection."""
    cuts = tuple(Fault(at, "storm", at) for at in range(2_000, 8_000, 1_500))
    assert _caught(*cuts, until_ms=9_000, seeds=range(3)) == set()
    whole = pulls._mass_cancel
    monkeypatch.setattr(pulls, "_mass_cancel", lambda account, stamp: whole(account, 0))
    assert "I14" in _caught(*cuts, until_ms=9_000, seeds=range(3))


@pytest.mark.parametrize("never", ["add", "add_orphans"])
def test_orders_that_outlive_their_link_are_caught(never: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the link was lost in this life of the exchange, or with the one before."""
    kind = {"add": "storm", "add_orphans": "kill"}[never]
    lost = [Fault(at, kind, at) for at in range(2_000, 15_000, 1_000)]
    assert _caught(*lost, until_ms=25_000, seeds=range(2)) == set()
    monkeypatch.setattr(pulls.Pulls, never, lambda self, *_: 0)
    assert "I14" in _caught(*lost, until_ms=25_000, seeds=range(2))


# ---------------------------------------------------------------- what must happen


def _but_for(reason: CancelReason) -> Any:
    """Orders of an account are cancelled together, only not for this reason."""
    whole = safeguards.cancel_account
    return lambda s, account, why: whole(s, account, why) if why != reason else None


FORGOTTEN: dict[str, tuple[Any, str, Any, str, str]] = {
    "a gtd order that never expires": (
        timers, "_dues", lambda s, whole=timers._dues: (due for due in whole(s) if due.kind != timers.DueKind.ORDER),
        "I14", "it was to end",
    ),
    "a kill that does not stay": (place, "account_refuses", lambda account: None, "I4", "accepted behind the kill"),
    "a kill that cancels nothing": (safeguards, "cancel_account", _but_for(CancelReason.KILLED), "I4", "kill of"),
    "a timer that never fires": (safeguards, "cancel_account", _but_for(CancelReason.SESSION), "I4", "cancel_after"),
    "orders that trade in an auction": (place, "COLLECTING", (), "I6", " is in "),
    "orders that are taken in any phase": (place, "_check_phase", lambda r, market: None, "I6", " is accepted while "),
    "stops that no phase takes": (
        place, "_check_phase",
        lambda r, market, whole=place._check_phase: RejectCode.PHASE if r.type == OrderType.STOP else whole(r, market),
        "I4", "gives no reason",
    ),
    "a kill that nobody sent": (
        place, "account_refuses",
        lambda account, whole=place.account_refuses: RejectCode.KILLED if account.poisons else whole(account),
        "I4", "gives no reason",
    ),
    "orders refused for money that is there": (
        place, "_check_book",
        lambda s, order, whole=place._check_book:
            RejectCode.INSUFFICIENT_FUNDS if order.size > 20 and order.price > 0 else whole(s, order),
        "I4", "gives no reason",
    ),
    "a cancel that finds no order which is open": (
        amend, "_named", lambda s, r, flags, whole=amend._named: None if s.sequence % 3 else whole(s, r, flags),
        "I4", "gives no reason",
    ),
    "a trade with oneself": (matching, "_are_one", lambda s, taker, maker: False, "I14", "with itself"),
    "a post-only order that takes": (
        place, "reaches",
        lambda order, price, whole=place.reaches: not order.flags & PlaceFlag.POST_ONLY and whole(order, price),
        "I14", "post_only and takes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_rule_that_the_plain_engine_forgets_is_missed(
    name: str, world: World, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, at, planted, broken, text = FORGOTTEN[name]
    monkeypatch.setattr(part, at, planted)
    violations = Twin(world, last).run().judged().violations
    assert any(one.invariant == broken and text in one.text for one in violations), violations[:5]


# ---------------------------------------------------------------- money


def test_a_fee_rounded_up_twice_is_caught(world: World, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = trade.ceil_ppm
    monkeypatch.setattr(trade, "ceil_ppm", lambda fee: exact(fee) + (1 if fee % 1_000_000 else 0))
    violations = Twin(world, last).run().judged().violations
    assert "I1" in _invariants(violations) and "fee" in violations[0].text


def test_a_hold_lost_on_replace_is_caught(world: World, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a replaced order needs more is never taken from what is available."""
    exact = amend.pair_hold
    known: dict[tuple[int, int], int] = {}

    def as_before(state: Any, order: Any) -> int:
        return known.setdefault((state.sequence, order.order_id), exact(state, order))

    monkeypatch.setattr(amend, "pair_hold", as_before)
    violations = Twin(world, last).run().judged().violations
    assert "I2" in _invariants(violations) and "replaced" in violations[0].text


# ---------------------------------------------------------------- settlement


BACKED_UP = (1, 11, 13)
"""Seeds in which a backup has for seconds the signed bytes without the journal."""


def _settled(seeds: Iterable[int], has_backup: bool | None = None) -> set[str]:
    return set().union(*(_invariants(run_settlement(seed, has_backup=has_backup).violations) for seed in seeds))


def test_a_batch_sent_again_with_new_bytes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is lost, and the batch is built anew instead of asking for it and sending the same bytes."""
    whole = Submitter.drive

    async def impatient(self: Submitter, life: Life, listings: dict[str, VaultListing]) -> None:
        if life.state is State.SUBMITTED:
            await self._step(life, PartRefused(time.time_ns(), life.batch.number, "no answer"))
        await whole(self, life, listings)

    assert _settled(range(8)) == set()
    monkeypatch.setattr(Submitter, "drive", impatient)
    assert "I11" in _settled(range(8))


def test_effects_that_no_checkpoint_has_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One node's word makes a part count, and the node takes it back."""
    assert _settled(range(4)) == set()
    whole = Submitter._executed

    async def credulous(
        self: Submitter, life: Life, execution: Execution, listings: dict[str, VaultListing]
    ) -> None:
        seen = execution if execution.checkpoint is not None else msgspec.structs.replace(execution, checkpoint=1)
        await whole(self, life, seen, listings)

    monkeypatch.setattr(Submitter, "_executed", credulous)
    assert "I11" in _settled(range(4))


def test_a_withdrawal_booked_before_the_chain_has_paid_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sealed into a batch is taken for paid, whatever becomes of the batch."""
    assert _settled(range(2)) == set()
    monkeypatch.setattr(Settler, "_paid_refs", lambda self: list(self.netting.paid))
    assert _settled(range(2)) == {"I11"}


def test_a_withdrawal_that_is_never_paid_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its money stays held for ever: no batch breaks by it, and no balance."""
    whole = Netting._payouts
    monkeypatch.setattr(Netting, "_payouts", lambda self, *given: ({}, whole(self, *given)[1]))
    assert _settled(range(2)) == {"I12", "I2"}


WITH_WALLETS = range(0, 12, 2)
"""Seeds in which wallets pay in on the chain and leave by it."""


def test_a_deposit_of_the_chain_that_is_booked_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ref is another with each try, so nothing says that it is the same."""
    whole, tries = Clerk._submit, itertools.count()

    async def anew(self: Clerk, command: dict[str, Any], event: str, status: str) -> None:
        if command["op"] == "deposit":
            command = command | {"ref": f"{command['ref']}.{next(tries)}"}
        await whole(self, command, event, status)

    assert _settled(WITH_WALLETS) == set()
    monkeypatch.setattr(Clerk, "_submit", anew)
    assert "I11" in _settled(WITH_WALLETS[:2])


def test_an_exit_that_leaves_no_account_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the chain has paid is given back, as if the exit had been called off."""
    whole = Clerk._read

    def forgetful(self: Clerk) -> None:
        whole(self)
        for case in self._exits:
            if case.ended is not None:
                case.ended = msgspec.structs.replace(case.ended, kind="ExitCancelled", amount=0)

    monkeypatch.setattr(Clerk, "_read", forgetful)
    assert "I11" in _settled(WITH_WALLETS[:2])


def test_a_payout_that_a_transaction_carries_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chain._operations

    def twice(*given: Any) -> list[Any]:
        operations = whole(*given)
        last = operations[-1]
        again = [replace(last, number=last.number + 1)] if isinstance(last, Withdraw) else []
        return operations + again

    monkeypatch.setattr(chain, "_operations", twice)
    violations = run_settlement(WITH_WALLETS[0]).violations
    assert any(one.invariant == "I11" and "were paid 2 times, booked" in one.text for one in violations), violations


def _asked_less(lacks: Any, **less: int) -> Any:
    """The gate asks for less than it should."""

    async def asked(self: Shipped, sequence: int, path: str, size: int) -> str:
        return str(await lacks(self, less.get("sequence", sequence), path, less.get("size", size)))

    return asked


@pytest.mark.parametrize("less", [{"sequence": 0}, {"size": 1}, {"sequence": 0, "size": 1}], ids=str)
def test_bytes_sent_before_the_backup_has_them_and_their_journal_are_caught(
    less: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shipped, "lacks", _asked_less(Shipped.lacks, **less))
    assert _settled(BACKED_UP, has_backup=True) == {"I11"}


def test_a_gate_that_does_not_wait_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(self: BackupGate, sequence: int) -> None: ...

    assert _settled(BACKED_UP, has_backup=True) == set()
    monkeypatch.setattr(BackupGate, "wait", at_once)
    assert _settled(BACKED_UP, has_backup=True) == {"I11"}


@pytest.mark.parametrize("seed", [11, 12])
def test_the_plain_engine_tells_what_the_real_one_told(seed: int, tmp_path: Path) -> None:
    """I7 across two engines, by whole worlds with crashes."""
    faults = tuple(Fault(at, kind, at) for at, kind in ((4_000, "kill"), (9_000, "power"), (15_000, "clock")))
    world = World(Plan(seed, faults, duration_ms=25_000), tmp_path)
    result = world.run()
    assert not result.violations, result.failure
    last = max(event["sequence"] for event in world.drop_copy)
    twin = Twin(world, last).run()
    assert not twin.judged().violations
    told = {(event["sequence"], event["index"]): event for event in twin.told}
    for event in world.drop_copy:
        own = told[event["sequence"], event["index"]]
        if "legs" in event:  # the drop copy is told of each account's own legs
            assert all(leg in own["legs"] for leg in event["legs"])
        else:
            assert {name: own[name] for name in event} == event
