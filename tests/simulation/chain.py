"""A chain for the simulator: the Python model of the contract behind settlement's port, in virtual time, with faults.

What Sui promises and the settler rests on is here: bytes take effect at most once; a transaction is bound to a version
of its gas coin, so new bytes are refused once others have used it; a transaction takes effect as a whole or not at all;
effects become final with a checkpoint, some time later. What it does not promise is drawn: requests and answers get
lost, bytes that were given up arrive late, nodes lag behind, the coin is locked until an epoch ends, and a node shows
effects that no checkpoint ever has: it takes them back.

Wallets have transactions of their own with the vaults (`act`), which are in checkpoints as those of batches are.

It keeps a record of each `send` and of what it has paid, for the auditor of settlement.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from settlement.chain.encoding import address_text
from settlement.chain.events import ChainEvent, decode_event
from settlement.chain.localsui.calls import events_of
from settlement.chain.localsui.contract import (
    CancelExit,
    ClaimExit,
    Commit,
    Deposit,
    DepositMany,
    MoveAbort,
    Open,
    Operation,
    RequestExit,
    Vault,
    Withdraw,
)
from settlement.chain.localsui.model import ModelExecutor
from settlement.chain.port import ChainInfo, Execution, Part, Signed, VaultListing, VaultState
from tests.simulation.loop import Schedule
from tests.simulation.network import MS

__all__ = ["ChainNode", "Sending", "SimulatedChain"]

PACKAGE, ADMIN, CAP = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
HOUR_MS = 3_600_000
HOUR_IN_MS = 5_000
"""Virtual time in which an hour passes on the chain's clock: the least that an exit waits."""
CLOCK_BEGINS_MS = 1_700_000_000_000
WRONG_UNITS = 7_777_777
"""That a node shows too many in a pool while it `is_wrong`."""


class _Raw(msgspec.Struct, frozen=True):
    built_ns: int
    """Bytes built anew are other bytes."""
    gas_version: int
    part: Part
    withdrawals: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sending:
    """One `send` as the chain's door saw it, and what it answered: `executed`, `unknown`, `refused`; or `found`: a
    question by digest that was answered with final effects."""

    batch: int
    part: int
    digest: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Uncertified:
    """What one node shows for a while as if it had happened."""

    execution: Execution
    states: dict[str, VaultState]


class ChainNode:
    """The state of the chain; it outlives every settler."""

    def __init__(self, schedule: Schedule, seed: int) -> None:
        self.schedule = schedule
        self.random = random.Random(f"chain-{seed}")
        self._apart = {"uncertified": random.Random(f"uncertified-{seed}")}
        """Dice of faults that came later: with none of theirs a seed goes as it went before."""
        self.chances: dict[str, float] = {}
        """Of each call: lost_request, lost_response, late, refuse, hang, stale, uncertified."""
        self.is_away = False
        self.is_locked = False
        self.is_wrong = False
        """A node shows pools that no vault has."""
        self.checkpoint_lag_ns = 0
        self.gas_version = 1
        self.vaults: dict[str, Vault] = {}
        self.assets: dict[tuple[str, int], str] = {}
        """(digest, index) of an event → the asset of its vault."""
        self.executed: dict[str, Execution] = {}
        self.executed_at: dict[str, int] = {}
        self.places: dict[str, tuple[int, int]] = {}
        """Batch and part of what was executed."""
        self.events: list[ChainEvent] = []
        self.of_wallets: set[str] = set()
        """Digests of their transactions."""
        self.committed: list[tuple[str, int, int]] = []
        """(asset, batch, part) in the order in which they took effect."""
        self.sendings: list[Sending] = []
        self.touched: dict[str, str] = {}
        """Asset → digest of the transaction that changed its vault last."""
        self.payouts: dict[str, tuple[str, bool]] = {}
        """Ref of a withdrawal → digest of the transaction that carried it, whether the contract skipped it."""
        self.uncertified: _Uncertified | None = None
        self.happened: Counter[str] = Counter()
        self.checkpoint = 1
        self.on_send: Callable[[int, Signed], None] = lambda batch, signed: None
        """Told of each batch's bytes when they come to the door, whatever becomes of them."""
        self._opened = 0
        self._executor = ModelExecutor()
        self._old: dict[str, VaultState] = {}
        self._certified: set[str] = set()
        self._uncertified: deque[Execution] = deque()
        """Executed, and in no checkpoint that is shown yet; oldest first."""

    def clock_ms(self) -> int:
        """The chain's own, UTC."""
        return CLOCK_BEGINS_MS + self.schedule.now_ns // MS * (HOUR_MS // HOUR_IN_MS)

    def draw(self, fault: str) -> bool:
        if self._apart.get(fault, self.random).random() < self.chances.get(fault, 0.0):
            self.happened[fault] += 1
            return True
        return False

    # ------------------------------------------------------------ effects

    def execute(self, signed: Signed) -> Execution:
        """Run the bytes, once. Raises Refused: they cannot take effect any more, or not now."""
        known = self.executed.get(signed.digest)
        if known is not None:
            return self.shown(known)
        raw = self._checked(signed)
        self.uncertified = None
        self.gas_version += 1
        self.checkpoint += 1
        execution = self._run(raw, signed.digest)
        self._note(execution)
        self.places[signed.digest] = raw.part.batch, raw.part.number
        if execution.success:
            refs = [payout.ref for coin in raw.part.coins for payout in coin.payouts]
            self.payouts |= {ref: (signed.digest, at in execution.skipped) for at, ref in enumerate(refs)}
        return self.shown(execution)

    def act(self, asset: str, operation: Deposit | RequestExit | CancelExit | ClaimExit) -> bool:
        """A transaction of a wallet's. False: the contract refuses it."""
        before = self.vaults[asset]
        try:
            outcome = self._executor.run(operation, before)
        except MoveAbort:
            return False
        self.uncertified = None
        self.checkpoint += 1
        digest = f"wallet{self.checkpoint}"
        emitted, _ = events_of(operation, before, outcome.header, outcome.rows)
        for index, one in enumerate(emitted):
            found = decode_event(
                f"{address_text(one.package)}::{one.module}::{one.name}", one.contents, address_text(PACKAGE),
                checkpoint=self.checkpoint, digest=digest, index=index, at_ms=self.clock_ms(),
            )  # fmt: skip
            assert found is not None
            self.assets[digest, index] = asset
            self.events.append(found)
            self.happened[found.kind] += 1
        self._old = self.states()
        self.vaults |= {asset: Vault(outcome.header, before.coin_type, PACKAGE, {**before.rows, **outcome.rows})}
        self.touched = self.touched | {asset: digest}
        self.of_wallets.add(digest)
        self._note(Execution(digest, True, None, "", 1, self.checkpoint))
        return True

    def _note(self, execution: Execution) -> None:
        self.executed[execution.digest] = execution
        self.executed_at[execution.digest] = self.schedule.now_ns
        self._uncertified.append(execution)

    def _checked(self, signed: Signed) -> _Raw:
        raw = msgspec.msgpack.decode(signed.raw, type=_Raw)
        if raw.gas_version != self.gas_version:
            raise Refused(f"object version {raw.gas_version} of the gas coin is used; now is {self.gas_version}")
        if self.is_locked:
            raise OutcomeUnknown("the gas coin is locked by another transaction until the epoch ends")
        return raw

    def pretend(self, signed: Signed) -> Execution:
        """Effects of the bytes that no checkpoint will have, shown for a while only. Raises as `execute`."""
        raw = self._checked(signed)
        before = self.vaults, self._old, len(self.events), len(self.committed), self.touched
        self.vaults = dict(self.vaults)
        execution = msgspec.structs.replace(self._run(raw, signed.digest), checkpoint=None)
        self.uncertified = pretended = _Uncertified(execution, self.states())
        self.vaults, self._old, self.touched = before[0], before[1], before[4]
        del self.events[before[2] :], self.committed[before[3] :]

        def take_back() -> None:
            if self.uncertified is pretended:
                self.uncertified = None
                self.happened["taken_back"] += 1

        self.schedule.later(self._apart["uncertified"].randrange(200, 6_000) * MS, take_back)
        return execution

    def has_paid(self, ref: str, skipped: bool) -> bool:
        """Whether a checkpoint has a transaction that paid this withdrawal, or skipped it."""
        digest, was_skipped = self.payouts.get(ref, ("", False))
        return bool(digest) and was_skipped == skipped and self.shown(self.executed[digest]).checkpoint is not None

    def shown(self, execution: Execution) -> Execution:
        """With its checkpoint, once that is there: from then on always."""
        self.last_checkpoint()
        is_final = execution.digest in self._certified
        return execution if is_final else msgspec.structs.replace(execution, checkpoint=None)

    def last_checkpoint(self) -> int:
        """The last that is there: what was executed behind it is in none yet."""
        waiting, before_ns = self._uncertified, self.schedule.now_ns - self.checkpoint_lag_ns
        while waiting and self.executed_at[waiting[0].digest] <= before_ns:
            self._certified.add(waiting.popleft().digest)
        return (waiting[0].checkpoint or 1) - 1 if waiting else self.checkpoint

    def _run(self, raw: _Raw, digest: str) -> Execution:
        part = raw.part
        after: dict[str, Vault] = {}
        events: list[ChainEvent] = []
        paying: list[str] = []
        try:
            for coin in part.coins:
                before = self.vaults[coin.asset]
                vault = Vault(before.header, before.coin_type, before.package, dict(before.rows))
                for operation in _operations(part, coin, raw.withdrawals[coin.asset], self.clock_ms()):
                    outcome = self._executor.run(operation, vault)
                    emitted, _ = events_of(operation, vault, outcome.header, outcome.rows)
                    for one in emitted:
                        kind = f"{address_text(one.package)}::{one.module}::{one.name}"
                        found = decode_event(
                            kind, one.contents, address_text(PACKAGE), checkpoint=self.checkpoint, digest=digest,
                            index=len(events),
                        )  # fmt: skip
                        assert found is not None
                        self.assets[digest, found.index] = coin.asset
                        events.append(found)
                        if one.name in ("Withdrawn", "WithdrawalSkipped"):
                            paying.append(one.name)
                    vault.rows.update(outcome.rows)
                    vault.header = outcome.header
                after[coin.asset] = vault
        except MoveAbort as abort:
            return Execution(digest, False, abort.code, str(abort), 1, self.checkpoint, "MOVE_ABORT")
        for coin in part.coins:
            self.committed.append((coin.asset, part.batch, part.number))
        self._old = self.states()
        self.vaults |= after
        self.touched = self.touched | dict.fromkeys(after, digest)
        self.events += events
        skipped = [place for place, name in enumerate(paying) if name == "WithdrawalSkipped"]
        return Execution(digest, True, None, "", 1, self.checkpoint, "", skipped)

    def open(self, asset: str, first_batch: int) -> VaultListing:
        self._opened += 1
        number = self._opened
        vault_id, coin_type = hashlib.sha256(b"%d" % number).digest(), f"0x{number:064x}::coin::COIN"
        header, _ = self._executor.open(
            Open(PACKAGE, coin_type, ADMIN, CAP, first_batch, HOUR_MS, vault_id, hashlib.sha256(vault_id).digest())
        )
        self.vaults[asset] = Vault(header, coin_type, PACKAGE)
        self.checkpoint += 1
        return VaultListing(asset, coin_type, address_text(vault_id), first_batch, 1, "0xfa")

    def states(self) -> dict[str, VaultState]:
        return {
            asset: VaultState(
                vault.header.next_seq, vault.header.next_part, vault.header.next_withdrawal, vault.header.chain,
                vault.header.pool, vault.header.paused, vault.header.last_root, vault.header.last_liabilities,
                vault.header.last_pool, vault.header.deficit, self.touched.get(asset, ""),
            )
            for asset, vault in self.vaults.items()
        }  # fmt: skip

    def states_of_a_lagging_node(self) -> dict[str, VaultState]:
        return self._old or self.states()


def _operations(part: Part, coin: object, withdrawal: int, now_ms: int) -> list[Operation]:
    deposits, entries = coin.deposits, coin.entries  # type: ignore[attr-defined]
    found: list[Operation] = []
    if deposits:
        amounts = tuple(amount for _, amount in deposits)
        found.append(DepositMany(sum(amounts), tuple(row for row, _ in deposits), amounts))
    found.append(
        Commit(
            CAP, part.batch, part.number, part.count, coin.previous, part.root, coin.liabilities,  # type: ignore[attr-defined]
            part.trades_digest, tuple(row for row, _ in entries), tuple(abs(amount) for _, amount in entries),
            tuple(amount < 0 for _, amount in entries), now_ms,
        )
    )  # fmt: skip
    for index, payout in enumerate(coin.payouts):  # type: ignore[attr-defined]
        found.append(Withdraw(CAP, payout.row, payout.recipient, payout.amount, withdrawal + index))
    return found


class SimulatedChain:
    """A `ChainPort` of one settler. Every call takes time and may fail."""

    def __init__(self, node: ChainNode) -> None:
        self.node = node

    async def _ask(self) -> None:
        """One round trip of a question. Raises Unavailable."""
        node = self.node
        await asyncio.sleep(node.random.uniform(0.001, 0.05))
        if node.is_away or node.draw("lost_question"):
            raise Unavailable("the chain does not answer")

    async def connect(self) -> ChainInfo:
        await self._ask()
        return ChainInfo("simulated", "0", "model", address_text(PACKAGE), address_text(CAP))

    async def open_vaults(
        self, assets: list[tuple[str, int]], first_batch: int, beside: Sequence[VaultListing] = ()
    ) -> list[VaultListing]:
        await self._ask()
        return [self.node.open(asset, first_batch) for asset, _ in assets]

    async def vault_states(self, listings: list[VaultListing]) -> dict[str, VaultState]:
        await self._ask()
        node = self.node
        states = node.uncertified.states if node.uncertified else node.states()
        if node.draw("stale"):
            states = node.states_of_a_lagging_node()
        if node.is_wrong:
            node.happened["wrong"] += 1
            states = {
                asset: msgspec.structs.replace(state, pool=state.pool + WRONG_UNITS) for asset, state in states.items()
            }
        return {listing.asset: states[listing.asset] for listing in listings}

    async def sign(self, part: Part, listings: dict[str, VaultListing]) -> Signed:
        await self._ask()
        numbers = {coin.asset: self.node.states()[coin.asset].next_withdrawal for coin in part.coins}
        raw = msgspec.msgpack.encode(_Raw(self.node.schedule.now_ns, self.node.gas_version, part, numbers))
        return Signed(raw, b"signature", hashlib.sha256(raw).hexdigest())

    async def send(self, signed: Signed) -> Execution:
        node = self.node
        part = msgspec.msgpack.decode(signed.raw, type=_Raw).part
        node.on_send(part.batch, signed)

        def note(answer: str) -> None:
            node.sendings.append(Sending(part.batch, part.number, signed.digest, answer))

        await asyncio.sleep(node.random.uniform(0.005, 0.1))
        if node.is_away or node.draw("lost_request"):
            note("unknown")
            raise OutcomeUnknown("no answer: the request was lost")
        if node.draw("late"):
            note("unknown")
            node.schedule.later(node.random.randrange(50, 8_000) * MS, lambda: _late(node, signed))
            raise OutcomeUnknown("no answer: the request is still under way")
        if node.draw("refuse"):
            note("refused")
            raise Refused("the validators refuse it for now")
        shown = node.uncertified
        if shown is not None and shown.execution.digest == signed.digest:
            note("unknown")
            return shown.execution
        try:
            if shown is None and signed.digest not in node.executed and node.draw("uncertified"):
                execution = node.pretend(signed)
                note("unknown")
                return execution
            execution = node.execute(signed)
        except Refused:
            note("refused")
            raise
        except OutcomeUnknown:
            note("unknown")
            raise
        if node.draw("lost_response"):
            note("unknown")
            await asyncio.sleep(1.0)
            raise OutcomeUnknown("no answer: the response was lost")
        note("executed")
        return execution

    async def find(self, digest: str) -> Execution | None:
        await self._ask()
        shown_alone = self.node.uncertified
        if shown_alone is not None and shown_alone.execution.digest == digest:
            return shown_alone.execution
        known = self.node.executed.get(digest)
        if known is None or self.node.draw("stale"):
            return None
        shown = self.node.shown(known)
        if shown.checkpoint is not None and digest in self.node.places:
            self.node.sendings.append(Sending(*self.node.places[digest], digest, "found"))
        return shown

    async def head(self) -> int:
        await self._ask()
        return self.node.last_checkpoint()

    async def events(self, after: int, limit: int) -> tuple[int, list[ChainEvent]]:
        await self._ask()
        last = min(self.node.last_checkpoint(), after + limit)
        return max(after, last), [event for event in self.node.events if after < event.checkpoint <= last]

    async def close(self) -> None: ...


def _late(node: ChainNode, signed: Signed) -> None:
    """Bytes that were given up arrive after all."""
    try:
        node.execute(signed)
        node.happened["executed_late"] += 1
    except (Refused, OutcomeUnknown):
        node.happened["late_in_vain"] += 1
