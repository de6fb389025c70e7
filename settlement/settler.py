"""The settler: follows the event log, seals a batch at each cut, and has each executed once, in order.

Three tasks. The *follower* reads events, keeps the ledger, seals and stores; it never waits for the chain. The
*submitter* takes the oldest batch that is not final and drives it through the table of `batch`. While the chain is
down batches queue (durably: a restart finds them) and go out in order afterwards. The *watcher's* task reads what the
vaults did by themselves, and has the clerk book deposits and forced exits in the core.

Restart: of old batches `on_batch` hears what the outside lacks (`Known`); the ledger is rebuilt from the first event;
cuts that are stored already are taken from the store, not sealed again; the batch in flight goes on from its exact
step: bytes that may have been sent are asked for by digest first. Final batches are kept as places in the store and
read again at their cuts (docs/decisions/0079-what-a-start-reads.md).

Only a checkpoint makes anything final: effects that one node shows without one advance nothing, and a node that shows
less than before is stale, which is waited for.

With a backup, what is signed is sent once the backup has it, and the journal up to its cut: what a lost machine takes
with it is then on no chain. A store that is away holds settlement up, not trading.

Halts, and says why in `status()`: the events and the ledger differ, the journal run again gives another state at a cut,
a row would fall below zero, the chain refuses or shows another number, chain value or pool than ours, the core refuses
to book what the chain has done. A halt is stored and survives restarts; `resume` ends it after a person has looked,
reads everything again from the first event, and the same check runs again.

A withdrawal without a wallet to go to halts nothing: it is not paid, and `status()` names it under `unpayable`.

Worst case: with `max_pending` batches waiting the follower stops reading; the event log keeps everything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from engine.messages.errors import JournalCorrupt, OutcomeUnknown, Refused, Unavailable
from engine.messages.ports import EventSource
from settlement.arrivals import Arrivals
from settlement.audit import AuditPort, check_cut
from settlement.batch import (
    Halted,
    Life,
    Listed,
    Resumed,
    Sealed,
    State,
    Stopped,
    StoredEvent,
)
from settlement.batch_file import batch_file
from settlement.chain.port import ChainInfo, ChainPort, Payout, VaultListing, VaultPaused
from settlement.clerk import Clerk
from settlement.commands import CommandPort, submit_booking
from settlement.ledger import Cut, Disagreement, Ledger
from settlement.liabilities import Liabilities
from settlement.netting import Batch, Netting
from settlement.past import Past, Stored
from settlement.proof_desk import ProofSettings
from settlement.refs import DOCUMENTED
from settlement.store import BatchStore
from settlement.submitter import Submitter
from settlement.watcher import Watcher

__all__ = ["BackupPort", "BatchRecord", "Known", "ReleasePort", "SettlementSettings", "Settler", "run_settler"]

log = logging.getLogger(__name__)

_UNPAYABLE_NAMED = 100
_BREATH = 64
"""Stored events, or batches, that are taken between two turns of the event loop while the store is read."""
_NAMED = 20
"""Records that `status` shows."""
_LOOKS_BEFORE_HALT = 3
"""A pool that differs is read again, events first: something may have come in between."""


@dataclass(frozen=True, slots=True)
class SettlementSettings:
    """Times in seconds."""

    poll_interval_s: float = 0.05
    read_slots: int = 65_536
    retry_first_s: float = 0.1
    retry_most_s: float = 5.0
    watch_interval_s: float = 0.5
    max_pending: int = 5_000
    recent: int = 1_000
    """Records kept in memory for `status`."""


class BatchRecord(msgspec.Struct, frozen=True):
    """A batch as the outside sees it. Hashes in hex, times in ns UTC, 0 where not reached.

    `digests` are of transactions that took effect; a final batch with an `error` has one that is not known here.
    """

    number: int
    status: str
    first_sequence: int
    last_sequence: int
    state_hash: str
    root: str
    trades_digest: str
    trade_count: int
    row_count: int
    part_count: int
    digests: list[str]
    gas_mist: int
    cut_ts: int
    sealed_ts: int
    submitted_ts: int
    final_ts: int
    error: str
    chain: str
    executor: str
    file: bytes = b""
    """Of a final batch: see batch_file."""
    payouts: list[tuple[str, str, bool]] = []
    """Of a final batch: withdrawal's ref, digest of its transaction, whether the contract skipped it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the outside has of final batches from before this start, and need not be told again."""

    final: int = 0
    """Every batch up to this number stands there as final."""
    files: Container[int] = frozenset()
    """Batches whose files are kept."""
    unpaid: Container[str] | None = None
    """Refs of which it is not written that they are paid or skipped; None: it may be any."""

    def has(self, life: Life) -> bool:
        """Whether nothing of a final batch is missing."""
        batch = life.batch
        if batch.number > self.final or (batch.statement is not None and batch.number not in self.files):
            return False
        return not any(self.unpaid is None or ref in self.unpaid for ref, _, _ in _paid(life))


class ReleasePort(Protocol):
    """Which withdrawals with a document may be paid now: allow-listed, their delay over, confirmed."""

    async def released(self, refs: Sequence[str]) -> Mapping[str, bytes]:
        """Ref → recipient, of those among `refs` that may be paid. What was released stays so. Raises Unavailable."""


class BackupPort(Protocol):
    """The backup of the journal and of what the store holds."""

    async def wait(self, sequence: int) -> None:
        """Until the backup has the journal up to `sequence`, and all that the store holds now. Tells of a long wait."""

    @property
    def waits(self) -> str:
        """What `wait` waits for at this moment; empty: nothing."""


OnBatch = Callable[[BatchRecord], Awaitable[None] | None]
AskKnown = Callable[[], Awaitable[Known]]


class Settler:
    """Build with the parts, then `run`."""

    def __init__(
        self,
        source: EventSource,
        chain: ChainPort,
        store: BatchStore,
        watcher: Watcher,
        settings: SettlementSettings,
        on_batch: OnBatch,
        commands: CommandPort | None = None,
        releases: ReleasePort | None = None,
        proofs: ProofSettings | None = None,
        audit: AuditPort | None = None,
        backup: BackupPort | None = None,
        known: AskKnown | None = None,
    ) -> None:
        self._source, self._chain, self._store, self._settings = source, chain, store, settings
        self._watcher, self._on_batch, self._commands = watcher, on_batch, commands
        self._releases = releases
        self._audit, self._backup, self._known = audit, backup, known
        self._proofs = proofs or ProofSettings()
        self._info: ChainInfo | None = None
        self._chain_error = "not connected yet"
        self._is_paused = False
        self.progress = 0
        """Stored events read and batches told, while the store is read: it grows as long as that gets on."""
        self._resume = asyncio.Event()
        self._told = 0
        """The last final batch that `on_batch` has been given, all before it included that it needs."""
        self._submitter = Submitter(chain, self._step, self._halt, self._wait_for_backup)
        self._forget()

    def _forget(self) -> None:
        """Everything that is made anew from the events and the store."""
        self.ledger = Ledger()
        self.netting = Netting(
            pay_pending=self._commands is not None,
            liabilities=Liabilities(self._proofs.key, self._proofs.keep),
            publication=self._proofs.publication,
        )
        self._clerk = Clerk(self._watcher, self._commands) if self._commands else None
        self._arrivals = self._clerk.arrivals if self._clerk else Arrivals(self._watcher)
        self._lives: dict[int, Life] = {}
        """By number, the batches that are not final, or became so since the start and before their cut was passed."""
        self._past = Past(self._store)
        """Those that were final at the start."""
        self._queue: deque[int] = deque()
        self._listings: dict[str, VaultListing] = {}
        self._shown: dict[str, VaultListing] = {}
        """Of them, those that the backup has: nobody is told to pay into a vault that a lost machine forgets."""
        self._recent: dict[int, BatchRecord] = {}
        """The last batches, each as it stands."""
        self._halted = ""
        self._sealing_waits = ""
        """Why the next cut cannot be sealed yet; empty: it can."""
        self._is_loaded = False
        self._final = 0
        self._taken = 0
        """The last batch whose cut the follower has passed: `netting` counts it. `ledger.sequence` moves later, when
        all that was read with the cut is taken."""
        self._beside: dict[str, int] = {}
        """Asset → units of payouts that the contract skipped in final batches."""
        self._waiting_releases = 0
        self._wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises JournalFailed if the store fails; what is stored is right."""
        while not stop.is_set():
            self._resume.clear()
            self._forget()
            await self._load(stop)
            if stop.is_set():
                return
            tasks: list[asyncio.Task[Any]] = [
                asyncio.create_task(self._follow(stop)),
                asyncio.create_task(self._submit(stop)),
                asyncio.create_task(self._watch(stop)),
                asyncio.create_task(self._resume.wait()),
                asyncio.create_task(stop.wait()),
            ]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for task in done:
                task.result()

    def resume(self, note: str) -> str:
        """End a halt: what halted is tried again, and halts again if it is still so. Answers what was halted.

        Raises ValueError if settlement is not halted, or has not read its store yet.
        """
        if not self._halted:
            raise ValueError("settlement is not halted")
        number = next((n for n in self._queue if self._lives[n].state is State.HALTED), 0)
        self._store.append(Resumed(time.time_ns(), number, note))
        log.warning("settlement=resumed batch=%d note=%s reason=%s", number, note, self._halted)
        self._resume.set()
        return self._halted

    @property
    def final_batch(self) -> int:
        """The last batch that is final, 0 before the first."""
        return self._final

    @property
    def settled_batch(self) -> int | None:
        """As `final_batch`; None until the store is read."""
        return self._final if self._is_loaded else None

    def status(self) -> dict[str, Any]:
        """For status pages: plain values."""
        unpayable = self.netting.unpayable
        return {
            "chain": self._info.chain if self._info else "unknown",
            "chain_id": self._info.chain_id if self._info else "",
            "executor": self._info.executor if self._info else "",
            "package": self._info.package if self._info else "",
            "connected": not self._chain_error,
            "chain_error": self._chain_error,
            "paused": self._is_paused and bool(self._chain_error),
            "halted": self._halted,
            "sequence": self.ledger.sequence,
            "final_batch": self._final,
            "pending_batches": len(self._queue),
            "sealing_waits": self._sealing_waits,
            "backup_waits": self._backup.waits if self._backup else "",
            "vaults": {asset: listing.vault for asset, listing in self._shown.items()},
            "coins": {
                asset: {
                    "scale": next((item.scale for item in self.ledger.assets if item.name == asset), 0),
                    "coin_type": listing.coin_type, "vault_version": listing.initial_version,
                    "faucet": listing.faucet or "", "faucet_version": listing.faucet_initial_version,
                }
                for asset, listing in self._shown.items()
            },
            "deposits": "minted by the test faucet in the batch's own transaction"
            if any(listing.faucet for listing in self._shown.values())
            else "on the chain before the exchange books them",
            "withdrawals": "paid when pended, then booked" if self._commands else "paid once the core has booked them",
            "waiting_releases": self._waiting_releases,
            **self._watched(),
            "unpayable": [msgspec.to_builtins(item) for item in unpayable[:_UNPAYABLE_NAMED]],
            "unpayable_count": len(unpayable),
            "recent": [
                msgspec.to_builtins(msgspec.structs.replace(record, file=b""))
                for _, record in sorted(self._recent.items())[-_NAMED:]
            ],
        }

    def _watched(self) -> dict[str, Any]:
        clerk = self._clerk
        unclaimed = clerk.unclaimed if clerk else []
        return {
            "checkpoint": self._watcher.cursor or 0,
            "unclaimed_deposits": [
                {
                    "ref": f"{event.digest}:{event.index}", "row": event.owner.hex(), "units": event.amount,
                    "reference": event.reference_text,
                }
                for event in unclaimed[:_UNPAYABLE_NAMED]
            ],
            "open_exits": [
                {"row": event.owner.hex(), "asked_units": event.amount, "ready_ms": event.ready_ms}
                for event in (clerk.open_exits if clerk else [])[:_UNPAYABLE_NAMED]
            ],
            "refused_bookings": dict(list(clerk.problems.items())[:_UNPAYABLE_NAMED]) if clerk else {},
        }

    # ------------------------------------------------------------ store

    async def _load(self, stop: asyncio.Event) -> None:
        """Returns with half of it when `stop` is set."""
        told, stored = self._told, Stored(self._store)
        self._lives, self._past, self._listings = stored.lives, stored.past, stored.listings
        known = await self._known() if self._known and not told else Known()

        def is_known(life: Life) -> bool:
            return life.state is State.FINAL and (life.batch.number <= told if told else known.has(life))

        latest: deque[Life] = deque()
        """Final batches, until as many are behind them as are told in any case."""
        for place, event in self._store.events():
            if await self._is_told_to_stop(stop):
                return
            if (life := stored.take(place, event)) is not None:
                self._final = life.batch.number
                self._count_skipped(life)
                latest.append(life)
            if len(latest) > _NAMED and not is_known(old := latest.popleft()):
                if await self._is_told_to_stop(stop):
                    return
                await self._publish(old)
        self._shown, halted = stored.shown, stored.halted
        self._queue.extend(sorted(self._lives))
        last = self._queue[-1] if self._queue else self._final
        for life in (*latest, *(self._lives[number] for number in self._queue)):
            if await self._is_told_to_stop(stop):
                return
            halted = life.error if life.state is State.HALTED else halted
            if life.batch.number > last - _NAMED or not is_known(life):
                await self._publish(life)
        self._halted, self._is_loaded = halted, True

    async def _is_told_to_stop(self, stop: asyncio.Event) -> bool:
        """Asked before each step of a long way: gives the event loop up every now and then."""
        self.progress += 1
        if self.progress % _BREATH == 0:
            await asyncio.sleep(0)
        return stop.is_set()

    async def _step(self, life: Life, event: StoredEvent) -> None:
        """Store first, then act on it."""
        self._store.append(event)
        life.take(event)
        await self._publish(life)

    async def _publish(self, life: Life) -> None:
        batch = life.batch
        record = BatchRecord(
            number=batch.number,
            status=life.state.value,
            first_sequence=batch.first_sequence,
            last_sequence=batch.last_sequence,
            state_hash=batch.state_hash.hex(),
            root=batch.root.hex(),
            trades_digest=batch.trades_digest.hex(),
            trade_count=batch.trade_count,
            row_count=batch.row_count,
            part_count=len(batch.parts),
            digests=[execution.digest for execution in life.executions if execution.success and execution.digest],
            gas_mist=sum(execution.gas_mist for execution in life.executions),
            cut_ts=batch.cut_ts,
            sealed_ts=batch.sealed_ts,
            submitted_ts=life.submitted_ts,
            final_ts=life.final_ts,
            error=life.error,
            chain=self._info.chain if self._info else "unknown",
            executor=self._info.executor if self._info else "",
            file=batch_file(life, self._listings) if life.state is State.FINAL else b"",
            payouts=_paid(life) if life.state is State.FINAL else [],
        )
        self._recent[record.number] = record
        if len(self._recent) > self._settings.recent:
            del self._recent[min(self._recent)]
        answer = self._on_batch(record)
        if answer is not None:
            await answer
        if life.state is State.FINAL:
            self._told = max(self._told, batch.number)

    async def _halt(self, life: Life | None, reason: str) -> None:
        log.error("settlement=halted batch=%s reason=%s", life.batch.number if life else "-", reason)
        if life is not None:
            await self._step(life, Halted(time.time_ns(), life.batch.number, reason))
        elif not self._halted:
            self._store.append(Stopped(time.time_ns(), reason))
        if not self._halted:
            self._halted = reason

    # ------------------------------------------------------------ follower

    async def _follow(self, stop: asyncio.Event) -> None:
        self._source.seek(0)
        while not stop.is_set():
            if self._halted or len(self._queue) >= self._settings.max_pending:
                await asyncio.sleep(self._settings.poll_interval_s)
                continue
            slots = self._source.read(self._settings.read_slots)
            if not len(slots):
                await asyncio.sleep(self._settings.poll_interval_s)
                continue
            try:
                for cut in self.ledger.feed(slots):
                    await self._at_cut(cut)
            except Disagreement as error:
                await self._halt(None, str(error))
            await asyncio.sleep(0)

    async def _at_cut(self, cut: Cut) -> None:
        known = self._lives.get(cut.batch) or self._past.life(cut.batch)
        if known is not None:
            batch = known.batch
            if (batch.last_sequence, batch.state_hash, batch.trades_digest) != (
                cut.last_sequence,
                cut.state_hash,
                cut.trades_digest,
            ):
                raise Disagreement(f"batch {cut.batch} is stored with other sequences, state hash or trades")
            self.netting.take(batch, self.ledger)
            if known.state is State.FINAL:
                self.netting.skip(_skipped(known))
                if cut.batch not in self._queue:  # else the submitter has still to finish it
                    self._lives.pop(cut.batch, None)
        else:
            last = max(self._final, self._queue[-1] if self._queue else 0)
            if cut.batch != last + 1:
                raise Disagreement(f"batch {cut.batch} follows batch {last}")
            await self._check(cut)
            released = await self._released()
            life = Life(self.netting.seal(self.ledger, cut, time.time_ns(), released, self._paid_in()))
            self._lives[cut.batch] = life
            await self._step(life, Sealed(time.time_ns(), life.batch))
            self._queue.append(cut.batch)
            self._wake.set()
        self._taken = cut.batch
        self.ledger.start_period()

    async def _check(self, cut: Cut) -> None:
        """The double-entry check; waits for a journal that does not hold the cut yet. Raises Disagreement."""
        while self._audit is not None:
            try:
                await check_cut(self._audit, cut, self.ledger)
                self._sealing_waits = ""
                return
            except Unavailable as error:
                self._sealing_waits = f"batch {cut.batch}: {error}"
                await asyncio.sleep(self._settings.poll_interval_s)
            except (JournalCorrupt, ValueError) as error:
                raise Disagreement(f"batch {cut.batch}: the journal cannot be gone through again: {error}") from error

    def _paid_in(self) -> dict[tuple[str, bytes], int]:
        """What stands on the chain and not yet in the ledger, by asset and row."""
        units: dict[tuple[str, bytes], int] = {}
        assets = self._asset_of_vault()
        for event, _, left in self._arrivals.unbooked(self.ledger):
            if event.vault in assets:
                place = (assets[event.vault], event.owner)
                units[place] = units.get(place, 0) + left
        return units

    async def _released(self) -> Mapping[str, bytes]:
        """Documented withdrawals that may be paid at this cut; none while their documents cannot be read."""
        refs = [ref for ref in self.ledger.pending if ref.startswith(DOCUMENTED) and ref not in self.netting.paid]
        self._waiting_releases = len(refs)
        if not refs or self._releases is None:
            return {}
        try:
            released = await self._releases.released(refs)
        except Unavailable as error:
            log.warning("settlement=no_releases waiting=%d reason=%s", len(refs), error)
            return {}
        self._waiting_releases -= len(released)
        return released

    # ------------------------------------------------------------ watcher

    async def _watch(self, stop: asyncio.Event) -> None:
        """What the vaults did by themselves, read and booked."""
        error = ""
        while not stop.is_set():
            try:
                more = False
                if self._info is not None and self._watcher.cursor is not None:
                    more = await self._watcher.advance(self._chain)
                    if not more and not self._halted and self._clerk and self._caught_up():
                        await self._clerk.step(self.ledger, self._asset_of_vault())
                error = ""
                if more:
                    continue
            except (Unavailable, OutcomeUnknown, Refused) as problem:
                if error != str(problem):
                    log.warning("settlement=watch_waits reason=%s", problem)
                error = str(problem)
            except Disagreement as problem:
                await self._halt(None, str(problem))
            await asyncio.sleep(self._settings.watch_interval_s)

    def _caught_up(self) -> bool:
        return self.ledger.sequence >= self._source.head_sequence

    def _asset_of_vault(self) -> dict[str, str]:
        return {listing.vault: asset for asset, listing in self._listings.items()}

    # ------------------------------------------------------------ submitter

    async def _submit(self, stop: asyncio.Event) -> None:
        wait_s = self._settings.retry_first_s
        while not stop.is_set():
            try:
                if self._info is None:
                    self._info = await self._chain.connect()
                    log.info("settlement=connected chain=%s executor=%s", self._info.chain, self._info.executor)
                await self._watcher.begin(self._chain, from_the_start=self._info.executor != "validators")
                if self._halted or not self._queue:
                    self._chain_error = ""
                    await self._show_listings(0)
                    self._wake.clear()
                    if self._halted or not self._queue:
                        await self._wake.wait()
                    continue
                life = self._lives[self._queue[0]]
                await self._list_assets(life.batch)
                await self._show_listings(life.batch.last_sequence)
                if self._halted:  # while the backup was waited for
                    continue
                if life.state is State.SEALED and not life.was_resumed and (foreign := self._unbacked(life.batch)):
                    await self._halt(life, foreign)
                    continue
                await self._submitter.drive(life, self._listings)
                self._chain_error = ""
                if life.state is State.FINAL:
                    await self._finish(life)
                wait_s = self._settings.retry_first_s
            except (Unavailable, OutcomeUnknown, Refused) as error:
                if self._chain_error != str(error):
                    log.warning("settlement=waiting pending=%d reason=%s", len(self._queue), error)
                self._chain_error, self._is_paused = str(error), isinstance(error, VaultPaused)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, self._settings.retry_most_s)

    async def _wait_for_backup(self, life: Life) -> None:
        """Returns when the batch may be sent. Raises Unavailable: settlement has halted while this waited."""
        if self._backup is None:
            return
        await self._backup.wait(life.batch.last_sequence)
        if self._halted:
            raise Unavailable(f"batch {life.batch.number}: settlement has halted while the backup was waited for")

    def _unbacked(self, batch: Batch) -> str:
        """Empty, or what was booked from outside without the chain where no faucet can mirror it.

        Resuming such a batch has it paid in from the operator's own coins: a person must have decided that.
        """
        for part in batch.parts:
            for coin in part.coins:
                if coin.deposits and not self._listings[coin.asset].faucet:
                    units = sum(amount for _, amount in coin.deposits)
                    return (
                        f"batch {batch.number}: {units} units of {coin.asset} were booked from outside, and not by a "
                        f"deposit on the chain; resumed, they are paid in from the operator's coins"
                    )
        return ""

    async def _finish(self, life: Life) -> None:
        """Compare the chain with the books, pay out the news, go on to the next."""
        await self._compare(life)
        if self._halted:
            return
        if life.batch.number <= self._taken:  # else the follower finds it final
            self.netting.skip(_skipped(life))
        refused = await self._book()
        self._count_skipped(life)
        self._final = life.batch.number
        self._queue.popleft()
        if life.batch.number <= self._taken:
            self._lives.pop(life.batch.number, None)
        log.info(
            "settlement=final batch=%d rows=%d digest=%s after_cut_ms=%d",
            life.batch.number,
            life.batch.row_count,
            life.executions[-1].digest,
            (life.final_ts - life.batch.cut_ts) // 1_000_000,
        )
        if refused:
            await self._halt(None, f"batch {life.batch.number} is final, but the core refuses to book {refused}")

    async def _compare(self, life: Life) -> None:
        """Hold the vaults against the books. A stale node is waited for (Unavailable); a difference halts."""
        last, reason = life.batch.parts[-1], ""
        for _ in range(_LOOKS_BEFORE_HALT):
            while await self._watcher.advance(self._chain):
                pass
            states = await self._chain.vault_states([self._listings[coin.asset] for coin in last.coins])
            reason = ""
            for coin in last.coins:
                state = states[coin.asset]
                number, vault = life.batch.number, f"vault of {coin.asset}"
                if state.next_batch <= number:
                    raise Unavailable(f"the node is stale: it shows the {vault} before batch {number}")
                expected = coin.next_chain(number, last.number, last.root, last.trades_digest)
                if state.next_batch != number + 1 or state.chain != expected:
                    shown = f"shows next batch {state.next_batch}, the books say {number + 1}"
                    await self._halt(None, f"batch {number}: {vault} {shown}, or its chain value differs")
                    return
                pool = self._pool(life, coin.asset)
                if state.pool != pool:
                    await self._check_shown(vault, self._listings[coin.asset].vault, state.previous)
                    reason = f"batch {number}: {vault} shows pool {state.pool}; the books say {pool}"
            if not reason:
                return
        await self._halt(None, reason)

    async def _check_shown(self, vault: str, address: str, digest: str) -> None:
        """Whether a node that shows a vault as `digest` left it shows what the checkpoints read so far make of it."""
        if not digest:
            return
        touched = await self._chain.find(digest)
        if touched is None:
            raise Unavailable(f"the node shows the {vault} as {digest} left it, and does not know that transaction")
        checkpoint, latest = touched.checkpoint or 2**63, self._watcher.latest.get(address, 0)
        if checkpoint > (self._watcher.cursor or 0):
            raise Unavailable(f"the {vault} is ahead of the checkpoints")
        if checkpoint < latest:
            raise Unavailable(f"the node is stale: it shows the {vault} before checkpoint {latest}, which is read")

    def _pool(self, life: Life, asset: str) -> int:
        """What the vault must hold now: the batch's own figure, and what came beside the batches since."""
        beside = self._watcher.beside[self._listings[asset].vault] + self._beside.get(asset, 0)
        beside += sum(payout.amount for name, payout in _skipped(life) if name == asset)
        return life.batch.pools[asset] + beside - life.batch.beside.get(asset, 0)

    def _count_skipped(self, life: Life) -> None:
        for asset, payout in _skipped(life):
            self._beside[asset] = self._beside.get(asset, 0) + payout.amount

    async def _book(self) -> str:
        """Book what is paid, all of it that can be; answers what the core refuses, empty if nothing."""
        if self._commands is None:
            return ""
        refused = []
        todo = [(ref, "withdraw_settled", "posted") for ref in self._paid_refs()]
        todo += [(ref, "withdraw_failed", "voided") for ref in self.netting.skipped if ref in self.ledger.pending]
        for ref, op, event in todo:
            try:
                await submit_booking(self._commands, {"op": op, "ref": ref}, event, event)
            except Refused as error:
                refused.append(f"withdrawal {ref}: {error}")
        return "; ".join(refused)

    def _paid_refs(self) -> list[str]:
        """Withdrawals that a final batch has paid and the core has not booked; after a restart old ones too."""
        later = {
            payout.ref
            for number in self._queue
            if self._lives[number].state is not State.FINAL
            for part in self._lives[number].batch.parts
            for coin in part.coins
            for payout in coin.payouts
        }
        return [ref for ref in self.netting.paid if ref not in later]

    async def _list_assets(self, batch: Batch) -> None:
        """Open the vaults of assets that take part for the first time.

        A crash between opening and storing leaves an empty vault that nobody uses, and opens another.
        """
        fresh = [coin.asset for coin in batch.parts[0].coins if coin.asset not in self._listings]
        if not fresh:
            return
        first_number = len(self._listings) + 1
        numbered = [(asset, first_number + index) for index, asset in enumerate(fresh)]
        for listing in await self._chain.open_vaults(numbered, batch.number, list(self._listings.values())):
            self._store.append(Listed(time.time_ns(), listing))
            self._listings[listing.asset] = listing
            log.info("settlement=listed asset=%s vault=%s", listing.asset, listing.vault)

    async def _show_listings(self, sequence: int) -> None:
        """Tell of all vaults, once the backup has their listings, and with them the journal up to `sequence`."""
        if len(self._shown) == len(self._listings):
            return
        if self._backup is not None:
            await self._backup.wait(sequence)
        self._shown = dict(self._listings)


def _paid(life: Life) -> list[tuple[str, str, bool]]:
    """Ref, digest and whether it was skipped, of every payout of a final batch."""
    skipped = {payout.ref for _, payout in _skipped(life)}
    return [
        (payout.ref, execution.digest, payout.ref in skipped)
        for part, execution in zip(life.batch.parts, life.executions, strict=True)
        for coin in part.coins
        for payout in coin.payouts
    ]


def _skipped(life: Life) -> list[tuple[str, Payout]]:
    """(asset, payout) of what the contract skipped in the executed parts."""
    found = []
    for part, execution in zip(life.batch.parts, life.executions, strict=False):
        payouts = [(coin.asset, payout) for coin in part.coins for payout in coin.payouts]
        found += [payouts[place] for place in execution.skipped]
    return found


async def run_settler(
    source: EventSource,
    chain: ChainPort,
    store: BatchStore,
    watcher: Watcher,
    settings: SettlementSettings,
    on_batch: OnBatch,
    stop: asyncio.Event,
    *,
    commands: CommandPort | None = None,
    releases: ReleasePort | None = None,
    proofs: ProofSettings | None = None,
    audit: AuditPort | None = None,
    backup: BackupPort | None = None,
    known: AskKnown | None = None,
    on_settler: Callable[[Settler], None] | None = None,
) -> None:
    """Settle until `stop` is set.

    `on_batch` gets every change of every batch, and at the start the present state of each stored one that `known` does
    not have (store it by number; the same record again does no harm), of those that are not final and of the latest;
    after `resume` of these two alone.
    `on_settler` gets the settler, whose `status()` the caller may publish.
    """
    settler = Settler(
        source, chain, store, watcher, settings, on_batch, commands, releases, proofs, audit, backup, known
    )
    if on_settler:
        on_settler(settler)
    await settler.run(stop)
