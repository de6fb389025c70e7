"""The core follows the chain: deposits and forced exits against the real core, with lost answers and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.messages.errors import Unavailable
from settlement.chain.encoding import u64, vector_u8
from settlement.chain.events import ChainEvent, decode_event
from settlement.clerk import NOT_AFTER_NS, Clerk
from settlement.ledger import Disagreement, Ledger
from settlement.netting import Netting
from settlement.watcher import Watcher
from tests.support.real_core import RealCore

ROW, STRANGER = b"\xa1" * 32, b"\xee" * 32
VAULT = "0x" + "77" * 32
ASSETS = {VAULT: "USDC"}
UNIT = 10**6


class Chain:
    """The two methods of ChainPort that the watcher calls; one checkpoint an event."""

    def __init__(self) -> None:
        self.checkpoints: list[list[ChainEvent]] = []

    def happens(self, kind: str, amount: int = 0, owner: bytes = ROW, *, with_batch: bool = False) -> ChainEvent:
        number = len(self.checkpoints) + 1
        event = ChainEvent(number, f"digest{number}", 0, kind, VAULT, owner, amount, 1_700_000_000_000 + number)
        batch = ChainEvent(number, event.digest, 1, "BatchCommitted", VAULT, b"", 9)
        self.checkpoints.append([event, batch] if with_batch else [event])
        return event

    async def head(self) -> int:
        return len(self.checkpoints)

    async def events(self, after: int, limit: int) -> tuple[int, list[ChainEvent]]:
        read = self.checkpoints[after : after + limit]
        return after + len(read), [event for checkpoint in read for event in checkpoint]


class World:
    def __init__(self, directory: Path) -> None:
        self.directory, self.core, self.chain = directory, RealCore(), Chain()
        self.core.send(op="asset", asset="USDC", scale=6, settled=True)
        self.core.send(op="asset", asset="INK", scale=2, settled=True)
        self.core.send(op="market", market="INK-USDC", base="INK", quote="USDC", tick="0.01", lot="1")
        self.core.send(op="account", account="user:a", row="0x" + ROW.hex())
        self.core.send(op="deposit", account="user:a", asset="USDC", amount="100", ref="first")
        self.watcher: Watcher | None = None
        self.start()

    def start(self) -> None:
        """A process begins: all it knows is the events, and what the watcher has kept."""
        if self.watcher is not None:
            self.watcher.close()
        self.watcher = Watcher(self.directory / "chain.log")
        self.clerk = Clerk(self.watcher, self.core)
        self.ledger = Ledger()
        self.core.seek(0)

    async def step(self) -> None:
        assert self.watcher is not None
        await self.watcher.begin(self.chain, from_the_start=True)  # type: ignore[arg-type]
        while await self.watcher.advance(self.chain):  # type: ignore[arg-type]
            pass
        for _ in self.ledger.feed(self.core.read()):
            pass
        await self.clerk.step(self.ledger, ASSETS)

    async def settle(self, rounds: int = 12) -> None:
        """Until nothing is left to do, whatever gets lost on the way."""
        for _ in range(rounds):
            try:
                await self.step()
            except Unavailable:
                continue

    def balance(self, account: str = "user:a") -> tuple[int, int]:
        return self.core.balance(account, "USDC")

    def is_frozen(self, account: str = "user:a") -> bool:
        return self.core.send(op="transfer", ref=f"probe{self.core.core.sequence}", legs=[
            {"from": account, "asset": "USDC", "amount": "99999999", "to": "user:probe"}
        ])["reason"] == "frozen"  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.core.send(op="account", account="user:probe")
    return world


async def test_a_deposit_is_booked_once_to_the_account_of_its_row(world: World) -> None:
    event = world.chain.happens("Deposited", 7 * UNIT)
    await world.settle()
    assert world.balance() == (107 * UNIT, 0)
    world.start()
    await world.settle()
    assert world.balance() == (107 * UNIT, 0)
    [command] = [command for command in world.core.commands if command["op"] == "deposit"]
    assert command["ref"] == f"dep:sui:{event.digest}:0" and command["memo"] == ROW.hex()


@pytest.mark.parametrize(
    ("reference", "shown"),
    [(b"", ""), (b"invoice 7/2026", "invoice 7/2026"), (b"[red]", "0x5b7265645d"), (b"\xc3\xa9\n", "0xc3a90a")],
)
def test_the_payers_reference_is_read_and_shown_as_harmless_text(reference: bytes, shown: str) -> None:
    contents = bytes(32) + ROW + u64(5) + u64(9) + vector_u8(reference)
    event = decode_event("0x1::settlement::Deposited<0x2::x::X>", contents, "0x1", checkpoint=1, digest="d", index=0)
    assert event is not None and (event.owner, event.amount) == (ROW, 5)
    assert (event.reference, event.reference_text) == (reference, shown)


async def test_exits_of_two_assets_asked_at_once_freeze_once_so_that_their_end_opens_the_account(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen twice it was held for frozen by the operator too, and stayed so for good."""
    other = "0x" + "78" * 32
    monkeypatch.setitem(ASSETS, other, "INK")
    world.core.send(op="deposit", account="user:a", asset="INK", amount="5", ref="ink")
    for kind, amount in (("ExitRequested", 100), ("ExitCancelled", 0)):
        event = world.chain.happens(kind, amount)
        world.chain.checkpoints[-1].append(msgspec.structs.replace(event, vault=other, index=1))
        await world.settle()
        assert world.is_frozen() == (kind == "ExitRequested")
    statuses = [command["status"] for command in world.core.commands if command["op"] == "account"]
    assert statuses == ["frozen", "active"]


@pytest.mark.parametrize("restarts", [0, 1, 3])
@pytest.mark.parametrize("fate", ["runs", "lost"])
async def test_a_freeze_under_way_in_a_core_that_stands_is_not_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch, restarts: int, fate: str
) -> None:
    """The journal's disk stands for longer than an answer is waited for: no event shows the freeze, and it may run yet.
    Sent twice it counted as the operator's own, and the account stayed frozen behind the exit for good."""
    world.chain.happens("ExitRequested", 10 * UNIT)
    waiting: list[dict[str, Any]] = []

    async def submit(command: dict[str, Any]) -> dict[str, Any]:
        waiting.append(command)
        raise Unavailable("the core has not answered (test)")

    async def sequence_of(account: str) -> int:
        raise Unavailable("the core has not answered (test)")

    with monkeypatch.context() as standing:
        standing.setattr(world.core, "submit", submit)
        standing.setattr(world.core, "sequence_of", sequence_of)
        for life in range(1 + restarts):
            await world.settle()
            assert [command["op"] for command in waiting] == ["account"]
            if life < restarts:
                world.start()
    if fate == "runs":
        world.core.send(**waiting[0])
    await world.settle()
    assert world.is_frozen() and world.balance() == (90 * UNIT, 10 * UNIT)
    sent = [command for command in world.core.commands if command["op"] == "account"]
    assert len(sent) == (fate == "lost"), "what no event shows behind the core's sequence was lost"
    world.chain.happens("ExitPaid", 10 * UNIT)
    await world.settle()
    assert not world.is_frozen() and world.balance() == (90 * UNIT, 0)


async def test_each_freeze_without_an_answer_is_asked_about_before_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.chain.happens("ExitRequested", 10 * UNIT)
    heard = []

    async def submit(command: dict[str, Any]) -> dict[str, Any]:
        heard.append(command["op"])
        raise Unavailable("the core is not reachable (test)")

    async def sequence_of(account: str) -> int:
        heard.append(account)
        return world.core.core.sequence

    monkeypatch.setattr(world.core, "submit", submit)
    monkeypatch.setattr(world.core, "sequence_of", sequence_of)
    await world.settle(6)
    assert heard == ["account", "user:a"] * 3


async def test_a_freeze_that_was_noted_and_not_sent_is_sent_behind_a_restart(world: World) -> None:
    world.chain.happens("ExitRequested", 10 * UNIT)
    assert world.watcher is not None
    world.watcher.note_frozen("user:a", True)  # and killed there
    world.start()
    await world.settle()
    assert world.is_frozen() and world.balance() == (90 * UNIT, 10 * UNIT)
    world.chain.happens("ExitCancelled")
    await world.settle()
    assert not world.is_frozen() and world.balance() == (100 * UNIT, 0)


async def test_the_settlers_own_faucet_deposit_is_no_news(world: World) -> None:
    world.chain.happens("Deposited", 7 * UNIT, with_batch=True)
    await world.settle()
    assert world.balance() == (100 * UNIT, 0) and world.core.commands == []


async def test_two_readers_at_once_count_an_event_once(world: World) -> None:
    class SlowChain(Chain):
        async def events(self, after: int, limit: int) -> tuple[int, list[ChainEvent]]:
            await asyncio.sleep(0)
            return await super().events(after, limit)

    slow, watcher = SlowChain(), world.watcher
    assert watcher is not None
    await watcher.begin(slow, from_the_start=True)  # type: ignore[arg-type]
    slow.happens("ExitPaid", 5)
    slow.happens("Deposited", 7)
    await asyncio.gather(*(watcher.advance(slow) for _ in range(3)))  # type: ignore[arg-type]
    assert watcher.beside[VAULT] == 2 and len(watcher.arrivals) == len(watcher.exits) == 1


async def test_a_deposit_to_an_unknown_row_waits_for_its_account(world: World) -> None:
    world.chain.happens("Deposited", 3 * UNIT, STRANGER)
    await world.settle()
    assert [event.owner for event in world.clerk.unclaimed] == [STRANGER] and world.core.commands == []
    world.core.send(op="account", account="user:late", row="0x" + STRANGER.hex())
    await world.settle()
    assert world.balance("user:late") == (3 * UNIT, 0) and world.clerk.unclaimed == []


async def test_a_deposit_that_no_ledger_can_hold_is_named_and_holds_up_nothing_else(world: World) -> None:
    """A coin can have more units than the core counts in; its owner may pay them in."""
    huge = [world.chain.happens("Deposited", amount) for amount in (2**63, 2**64 - 1)]
    world.chain.happens("Deposited", 5 * UNIT)
    await world.settle()
    await world.settle()
    assert list(world.clerk.problems) == [f"dep:sui:{event.digest}:{event.index}" for event in huge]
    assert world.balance() == (105 * UNIT, 0)


async def test_a_squatted_ref_is_named_and_holds_up_nothing_else(world: World) -> None:
    first = world.chain.happens("Deposited", 3 * UNIT)
    ref = f"dep:sui:{first.digest}:0"
    legs = [{"from": "user:a", "asset": "USDC", "amount": "1", "to": "user:probe"}]
    world.core.send(op="transfer", ref=ref, legs=legs)
    world.chain.happens("Deposited", 5 * UNIT)
    await world.settle()
    assert list(world.clerk.problems) == [ref] and world.balance() == (104 * UNIT, 0)


def _exit_of(amount: int, paid: int | None, between: Callable[[World], Any] | None = None) -> Callable[[World], Any]:
    async def run(world: World, each: Callable[[], Any]) -> None:
        world.chain.happens("ExitRequested", amount)
        await each()
        if between:
            between(world)
            await each()
        world.chain.happens("ExitCancelled") if paid is None else world.chain.happens("ExitPaid", paid)
        await each()

    return run


def _more(world: World) -> None:
    world.core.send(op="deposit", account="user:a", asset="USDC", amount="20", ref="more")


SCENARIOS = {
    # name: (what happens, available at the end, units that left)
    "all": (_exit_of(100 * UNIT, 100 * UNIT), 0, 100),
    "some": (_exit_of(30 * UNIT, 30 * UNIT), 70, 30),
    "more_asked_than_there": (_exit_of(500 * UNIT, 100 * UNIT), 0, 100),
    "more_paid_than_held": (_exit_of(500 * UNIT, 120 * UNIT, _more), 0, 120),
    "less_paid_than_held": (_exit_of(100 * UNIT, 60 * UNIT), 40, 60),
    "nothing_paid": (_exit_of(100 * UNIT, 0), 100, 0),
    "cancelled": (_exit_of(100 * UNIT, None), 100, 0),
    "asked_again": (_exit_of(40 * UNIT, 50 * UNIT, lambda w: w.chain.happens("ExitRequested", 50 * UNIT)), 50, 50),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_exit_is_followed_to_its_end(world: World, name: str) -> None:
    run, available, left = SCENARIOS[name]
    frozen = []

    async def each() -> None:
        await world.settle()
        frozen.append(world.is_frozen())

    await run(world, each)
    assert world.balance() == (available * UNIT, 0) and frozen[0] and not frozen[-1]
    _check_books(world, left * UNIT)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_exit_survives_a_crash_after_every_command_and_every_lost_answer(tmp_path: Path, name: str) -> None:
    """The nth submit is lost, before or after it ran; then the process starts anew from what it kept."""
    run, available, left = SCENARIOS[name]
    for position, fault in itertools.product(range(9), ("request", "answer")):
        world = World(tmp_path / f"{position}{fault}")
        world.core.send(op="account", account="user:probe")
        world.core.lose.extend(["none"] * position + [fault])

        async def each(world: World = world) -> None:
            for _ in range(8):
                try:
                    await world.step()
                except Unavailable:
                    world.start()

        await run(world, each)
        await each()
        assert world.balance() == (available * UNIT, 0), (position, fault)
        assert not world.is_frozen()
        _check_books(world, left * UNIT)
        assert world.watcher is not None
        world.watcher.close()


async def test_an_exit_that_was_asked_and_paid_while_nobody_looked(world: World) -> None:
    world.chain.happens("ExitRequested", 30 * UNIT)
    world.chain.happens("ExitPaid", 30 * UNIT)
    await world.settle()
    assert world.balance() == (70 * UNIT, 0) and not world.is_frozen()
    _check_books(world, 30 * UNIT)


async def test_orders_of_the_row_are_cancelled_and_every_account_of_it_pays(world: World) -> None:
    world.core.send(op="account", account="user:a:1", row="0x" + ROW.hex())
    world.core.send(op="deposit", account="user:a:1", asset="USDC", amount="50", ref="second")
    world.core.send(
        op="place", account="user:a", market="INK-USDC", client_id="o1", side="buy", type="limit", size="10", price="5"
    )
    assert world.balance()[1] > 0
    world.chain.happens("ExitRequested", 120 * UNIT)
    await world.settle()
    assert world.balance() == (0, 100 * UNIT) and world.balance("user:a:1") == (30 * UNIT, 20 * UNIT)
    assert world.is_frozen("user:a:1")
    world.chain.happens("ExitPaid", 120 * UNIT)
    await world.settle()
    assert world.balance() == (0, 0) and world.balance("user:a:1") == (30 * UNIT, 0)
    assert not world.is_frozen("user:a:1")


async def test_an_account_that_the_operator_froze_stays_frozen(world: World) -> None:
    world.core.send(op="account", account="user:a", status="frozen")
    world.chain.happens("ExitRequested", 10 * UNIT)
    await world.settle()
    world.chain.happens("ExitPaid", 10 * UNIT)
    await world.settle()
    assert world.is_frozen() and world.balance() == (90 * UNIT, 0)


@pytest.mark.parametrize("operator", ["frozen", "row", "active"])
async def test_a_freeze_of_the_operators_outlasts_the_exit(world: World, operator: str) -> None:
    """Its command finds the account frozen for the exit already, and changes nothing."""
    world.chain.happens("ExitRequested", 10 * UNIT)
    await world.settle()
    world.chain.happens("ExitCancelled")
    await world.settle()
    assert not world.is_frozen(), "an exit before it leaves nothing behind"
    world.chain.happens("ExitRequested", 10 * UNIT)
    await world.settle()
    if operator == "row":
        world.core.send(op="account", account="user:a", taker_ppm=7)
    else:
        world.core.send(op="account", account="user:a", status="frozen")
    if operator == "active":
        world.core.send(op="account", account="user:a", status="active")
    world.start()
    await world.settle()
    world.chain.happens("ExitPaid", 10 * UNIT)
    await world.settle()
    assert world.is_frozen() == (operator == "frozen") and world.balance() == (90 * UNIT, 0)
    world.start()
    await world.settle()
    assert world.is_frozen() == (operator == "frozen")
    world.core.send(op="account", account="user:a", status="active")
    assert not world.is_frozen(), "the operator's own to lift"


async def test_an_exit_that_paid_what_the_books_do_not_have_is_a_disagreement(world: World) -> None:
    world.chain.happens("ExitRequested", 150 * UNIT)
    await world.settle()
    world.chain.happens("ExitPaid", 150 * UNIT)
    with pytest.raises(Disagreement, match="has paid an exit of 150000000 units of USDC"):
        await world.settle()


def _net(world: World) -> tuple[int, int]:
    """Of a batch sealed now: what the row of ROW holds on the chain, and what came beside the batches."""
    world.core.send(op="cut")
    ledger, netting = Ledger(), Netting(pay_pending=True)
    world.core.seek(0)
    for cut in ledger.feed(world.core.read()):
        batch = netting.seal(ledger, cut, 0)
        ledger.start_period()
    return netting.rows["USDC"].get(ROW, 0), batch.beside["USDC"]


async def test_a_stranger_who_pays_in_and_leaves_owes_nobody_and_stops_nothing(world: World) -> None:
    for _ in range(2):
        world.chain.happens("Deposited", 2 * UNIT, STRANGER)
        world.chain.happens("Deposited", UNIT, STRANGER)
        await world.settle()
        world.chain.happens("ExitRequested", 9 * UNIT, STRANGER)
        await world.settle()
        world.chain.happens("ExitPaid", 3 * UNIT, STRANGER)
        await world.settle()
        assert not world.clerk.unclaimed and not world.clerk.open_exits and not world.clerk.problems
    world.start()
    await world.settle()
    assert not world.clerk.unclaimed and not world.clerk._exits
    world.core.send(op="account", account="user:late", row="0x" + STRANGER.hex())
    await world.settle()
    assert world.balance("user:late") == (0, 0) and world.balance() == (100 * UNIT, 0)
    world.chain.happens("Deposited", 5 * UNIT, STRANGER)
    await world.settle()
    assert world.balance("user:late") == (5 * UNIT, 0), "what comes later is the account's"


async def test_an_account_that_opens_after_an_exit_gets_what_is_left_of_the_deposit(world: World) -> None:
    deposit = world.chain.happens("Deposited", 10 * UNIT, STRANGER)
    world.chain.happens("ExitRequested", 4 * UNIT, STRANGER)
    world.chain.happens("ExitPaid", 4 * UNIT, STRANGER)
    await world.settle()
    assert [event.amount for event in world.clerk.unclaimed] == [6 * UNIT]
    world.start()
    await world.settle()
    world.core.send(op="account", account="user:late", row="0x" + STRANGER.hex())
    await world.settle()
    assert world.balance("user:late") == (6 * UNIT, 0) and not world.clerk.unclaimed and not world.clerk._exits
    for _ in range(2):
        world.chain.happens("ExitRequested", 6 * UNIT, STRANGER)
        world.chain.happens("ExitCancelled", 0, STRANGER)
        await world.settle()
        world.start()
        await world.settle()
    assert world.balance("user:late") == (6 * UNIT, 0) and not world.is_frozen("user:late")
    booked = [c for c in world.core.commands if c["op"] == "deposit"]
    assert [(c["ref"], c["amount"]) for c in booked] == [(f"dep:sui:{deposit.digest}:0", "6")]


async def test_an_exit_of_an_unseen_deposit_survives_a_crash_after_every_command_and_every_lost_answer(
    tmp_path: Path,
) -> None:
    """Deposit and exit are seen at once: the deposit is closed, or has run after all and the exit takes the more."""
    for position, fault in itertools.product(range(6), ("request", "answer")):
        for unseen in (True, False):
            world = World(tmp_path / f"{position}{fault}{unseen}")
            world.core.send(op="account", account="user:probe")
            world.core.lose.extend(["none"] * position + [fault])
            world.chain.happens("Deposited", 15 * UNIT)
            world.chain.happens("Deposited", 5 * UNIT)
            for _ in range(0 if unseen else 1):
                with contextlib.suppress(Unavailable):
                    await world.step()
            world.chain.happens("ExitRequested", 120 * UNIT)
            world.chain.happens("ExitPaid", 118 * UNIT)
            for _ in range(10):
                try:
                    await world.step()
                except Unavailable:
                    world.start()
            assert world.balance() == (2 * UNIT, 0), (position, fault, unseen)
            assert not world.is_frozen() and not world.clerk._exits and not world.clerk.problems
            assert _net(world) == (2 * UNIT, (20 - 118) * UNIT)
            assert world.watcher is not None
            world.watcher.close()


def _check_books(world: World, left: int) -> None:
    """The next batch moves nothing for the exit: the row on the chain has paid it already."""
    world.core.send(op="cut")
    ledger, netting = Ledger(), Netting(pay_pending=True)
    world.core.seek(0)
    for cut in ledger.feed(world.core.read()):
        batch = netting.seal(ledger, cut, 0)
    coin = next(coin for coin in batch.parts[0].coins if coin.asset == "USDC")
    assert sum(amount for _, amount in coin.left) == left and coin.payouts == []
    assert all(row == ROW for row, _ in coin.left)
    assert netting.rows["USDC"].get(ROW, 0) == sum(world.balance()) and batch.beside["USDC"] == -left


def test_events_are_decoded_by_kind_and_strangers_are_none_of_ours() -> None:
    vault, owner = b"\x77" * 32, b"\xa1" * 32
    u64 = (5).to_bytes(8, "little")

    def decoded(kind: str, contents: bytes, package: str = "0xp") -> ChainEvent | None:
        return decode_event(f"0xp::settlement::{kind}", contents, package, checkpoint=1, digest="d", index=2)

    for kind, tail in (("Deposited", u64 + u64 + b"\0"), ("ExitPaid", u64), ("ExitRequested", u64 + u64)):
        event = decoded(kind, vault + owner + tail)
        assert event is not None and (event.kind, event.vault, event.owner, event.amount) == (kind, VAULT, owner, 5)
    event = decoded("WithdrawalSkipped", vault + owner + b"\x09" * 32 + u64)
    assert event is not None and event.amount == 5
    event = decoded("BatchCommitted", vault + u64)
    assert event is not None and (event.amount, event.owner) == (5, b"")
    assert decoded("ExitCancelled", vault + owner) is not None and decoded("Unheard", b"") is None
    assert decoded("Deposited", vault + owner + u64, package="0xq") is None
    with pytest.raises(ValueError, match="BCS ends"):
        decoded("Deposited", vault + owner)


async def test_a_hold_that_was_on_its_way_when_its_exit_ended_cannot_come_late(world: World) -> None:
    asked = world.chain.happens("ExitRequested", 30 * UNIT)
    world.core.lose.extend(["none", "request"])  # the freeze arrives, the hold hangs somewhere
    with pytest.raises(Unavailable):
        await world.step()
    world.chain.happens("ExitPaid", 30 * UNIT)
    await world.settle()
    hold = f"exit:{asked.digest}:{asked.index}"
    legs = [{"from": "user:a", "asset": "USDC", "amount": "30", "to": "system:external"}]
    late = world.core.send(op="transfer", ref=hold, legs=legs, force=True, pending=True, memo=ROW.hex())
    assert (late["event"], late["status"]) == ("duplicate", "voided")
    assert world.balance() == (70 * UNIT, 0)


async def test_a_closed_hold_is_forgotten_with_what_was_sent_under_it(world: World) -> None:
    """Or each exit of a stranger without money would take a place of the core's table of refs for good."""
    asked = world.chain.happens("ExitRequested", 30 * UNIT, owner=b"\xee" * 32)
    world.chain.happens("ExitCancelled", owner=b"\xee" * 32)
    await world.settle()
    void = {"op": "void", "ref": f"exit:{asked.digest}:{asked.index}"}
    assert world.core.send(**void)["event"] == "duplicate"
    world.core.now_ns = asked.at_ms * 10**6 + NOT_AFTER_NS + 1
    world.core.events({"op": "tick"})
    world.start()  # it has forgotten too, and closes it again
    await world.settle()
    assert world.clerk.problems == {} and not world.clerk.open_exits
    assert world.core.send(**void)["event"] == "voided"


async def test_nothing_is_decided_before_the_ledger_shows_what_was_done(world: World) -> None:
    world.chain.happens("ExitRequested", 30 * UNIT)
    world.chain.happens("Deposited", 5 * UNIT)
    await world.step()
    done = len(world.core.commands)
    assert done > 1
    for _ in range(3):
        await world.clerk.step(world.ledger, ASSETS)
    assert len(world.core.commands) == done
