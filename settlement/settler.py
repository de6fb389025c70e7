"""The settler: follows the event log, seals a batch at each cut, and has each executed once, in order.

Two tasks. The *follower* reads events, keeps the ledger, seals and stores; it never waits for the chain. The
*submitter* takes the oldest batch that is not final and drives it through the table of `batch`. While the chain is
down batches queue (durably: a restart finds them) and go out in order afterwards.

Restart: the ledger is rebuilt from the first event; cuts that are stored already are taken from the store, not sealed
again; the batch in flight goes on from its exact step: bytes that may have been sent are asked for by digest first.

Halts, and says why in `status()`: the events and the ledger differ, a row would fall below zero, the chain refuses or
shows another number, chain value or pool than ours, the core refuses to book what the chain has paid. A halt is final
until a person has looked: the next start, or the next batch after it, finds it again.

A withdrawal without a wallet to go to halts nothing: it is not paid, and `status()` names it under `unpayable`.

Worst case: with `max_pending` batches waiting the follower stops reading; the event log keeps everything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from engine.messages.ports import EventSource
from settlement.batch import (
    BatchStore,
    Halted,
    Life,
    Listed,
    PartExecuted,
    PartRefused,
    Sealed,
    Sent,
    SignedPart,
    State,
    StoredEvent,
)
from settlement.chain.port import ChainInfo, ChainPort, CoinPart, Execution, VaultListing, VaultState
from settlement.ledger import Cut, Disagreement, Ledger
from settlement.netting import Batch, Netting

__all__ = ["BatchRecord", "CommandPort", "SettlementSettings", "Settler", "run_settler"]

log = logging.getLogger(__name__)

_ALREADY_DONE = {4, 16, 18}
"""Abort codes that mean: the vault stands at another place than we think."""
_PAUSED = 2
_UNPAYABLE_NAMED = 100


@dataclass(frozen=True, slots=True)
class SettlementSettings:
    """Times in seconds."""

    poll_interval_s: float = 0.05
    read_slots: int = 65_536
    retry_first_s: float = 0.1
    retry_most_s: float = 5.0
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


class CommandPort(Protocol):
    """The way back into the core, for withdrawals that the chain has paid."""

    async def withdraw_settled(self, ref: str) -> None:
        """Book a paid withdrawal. The same ref again does no harm.

        Raises:
            Unavailable, OutcomeUnknown: tried again.
            Refused: the core will never book it. Settlement halts: the chain has paid what the books do not show.
        """


OnBatch = Callable[[BatchRecord], Awaitable[None] | None]


class Settler:
    """Build with the parts, then `run`."""

    def __init__(
        self,
        source: EventSource,
        chain: ChainPort,
        store: BatchStore,
        settings: SettlementSettings,
        on_batch: OnBatch,
        commands: CommandPort | None = None,
    ) -> None:
        self._source, self._chain, self._store, self._settings = source, chain, store, settings
        self._on_batch, self._commands = on_batch, commands
        self.ledger = Ledger()
        self.netting = Netting(pay_pending=commands is not None)
        self._lives: dict[int, Life] = {}
        """Batches that are not final, by number; at start also the final ones, until their cut is passed."""
        self._queue: deque[int] = deque()
        self._listings: dict[str, VaultListing] = {}
        self._recent: deque[BatchRecord] = deque(maxlen=settings.recent)
        self._info: ChainInfo | None = None
        self._halted = ""
        self._chain_error = "not connected yet"
        self._final = 0
        self._wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises JournalFailed if the store fails; what is stored is right."""
        await self._load()
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._follow(stop)),
            asyncio.create_task(self._submit(stop)),
        ]
        tasks.append(asyncio.create_task(stop.wait()))
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

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
            "halted": self._halted,
            "sequence": self.ledger.sequence,
            "final_batch": self._final,
            "pending_batches": len(self._queue),
            "vaults": {asset: listing.vault for asset, listing in self._listings.items()},
            "deposits": "minted by the test faucet in the batch's own transaction"
            if any(listing.faucet for listing in self._listings.values())
            else "on the chain before the exchange books them",
            "withdrawals": "paid when pended, then booked" if self._commands else "paid once the core has booked them",
            "unpayable": [msgspec.to_builtins(item) for item in unpayable[:_UNPAYABLE_NAMED]],
            "unpayable_count": len(unpayable),
            "recent": [msgspec.to_builtins(record) for record in list(self._recent)[-20:]],
        }

    # ------------------------------------------------------------ store

    async def _load(self) -> None:
        for event in self._store.events():
            match event:
                case Sealed():
                    self._lives[event.batch.number] = life = Life(event.batch)
                    life.take(event)
                case Listed():
                    self._listings[event.listing.asset] = event.listing
                case _:
                    self._lives[event.number].take(event)
        for number in sorted(self._lives):
            life = self._lives[number]
            if life.state is State.FINAL:
                self._final = number
            else:
                self._queue.append(number)
            if life.state is State.HALTED:
                self._halted = life.error
            await self._publish(life)

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
        )
        if self._recent and self._recent[-1].number == record.number:
            self._recent[-1] = record
        else:
            self._recent.append(record)
        answer = self._on_batch(record)
        if answer is not None:
            await answer

    async def _halt(self, life: Life | None, reason: str) -> None:
        self._halted = reason
        log.error("settlement=halted batch=%s reason=%s", life.batch.number if life else "-", reason)
        if life is not None:
            await self._step(life, Halted(time.time_ns(), life.batch.number, reason))

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
        known = self._lives.get(cut.batch)
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
                del self._lives[cut.batch]
        else:
            last = max(self._final, self._queue[-1] if self._queue else 0)
            if cut.batch != last + 1:
                raise Disagreement(f"batch {cut.batch} follows batch {last}")
            life = Life(self.netting.seal(self.ledger, cut, time.time_ns()))
            self._lives[cut.batch] = life
            await self._step(life, Sealed(time.time_ns(), life.batch))
            self._queue.append(cut.batch)
            self._wake.set()
        self.ledger.start_period()

    # ------------------------------------------------------------ submitter

    async def _submit(self, stop: asyncio.Event) -> None:
        wait_s = self._settings.retry_first_s
        while not stop.is_set():
            try:
                if self._info is None:
                    self._info = await self._chain.connect()
                    log.info("settlement=connected chain=%s executor=%s", self._info.chain, self._info.executor)
                self._chain_error = ""
                if self._halted or not self._queue:
                    self._wake.clear()
                    if self._halted or not self._queue:
                        await self._wake.wait()
                    continue
                await self._drive(self._lives[self._queue[0]])
                wait_s = self._settings.retry_first_s
            except (Unavailable, OutcomeUnknown, Refused) as error:
                if self._chain_error != str(error):
                    log.warning("settlement=waiting pending=%d reason=%s", len(self._queue), error)
                self._chain_error = str(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, self._settings.retry_most_s)

    async def _drive(self, life: Life) -> None:
        """Take one batch to `final` or `halted`. Chain errors leave it at a step from which this goes on."""
        await self._list_assets(life.batch)
        while life.state not in (State.FINAL, State.HALTED):
            if life.state is State.SUBMITTED:
                assert life.signed is not None
                found = await self._chain.find(life.signed.digest)
                if found is not None:
                    await self._executed(life, found)
                    continue
            if life.state is State.SEALED:
                signed = await self._chain.sign(life.batch.parts[life.part], self._listings)
                await self._step(life, SignedPart(time.time_ns(), life.batch.number, signed))
            assert life.signed is not None
            await self._step(life, Sent(time.time_ns(), life.batch.number))
            try:
                execution = await self._chain.send(life.signed)
            except Refused as refused:
                await self._refused(life, str(refused))
                raise
            await self._executed(life, execution)
        if life.state is State.FINAL:
            await self._finish(life)

    async def _executed(self, life: Life, execution: Execution) -> None:
        """The chain has run the bytes: with effect, or aborted."""
        now = time.time_ns()
        number = life.batch.number
        if execution.success:
            await self._step(life, PartExecuted(now, number, execution))
        elif execution.abort_code == _PAUSED:
            await self._step(life, PartRefused(now, number, "the vault is paused"))
            raise Unavailable(f"batch {number}: the vault is paused")
        elif execution.abort_code in _ALREADY_DONE and await self._is_done(life):
            await self._step(life, PartExecuted(now, number, await self._effective(life)))
        elif life.state is not State.HALTED:
            reason = f"aborted with code {execution.abort_code}: {execution.error} ({execution.digest})"
            await self._halt(life, f"batch {number}: {reason}")

    async def _refused(self, life: Life, reason: str) -> None:
        """A definite no. The bytes may be old: if their first copy took effect, that counts, else sign anew."""
        assert life.signed is not None
        found = await self._chain.find(life.signed.digest)
        if found is not None and found.success:
            await self._executed(life, found)
        elif await self._is_done(life):
            await self._step(life, PartExecuted(time.time_ns(), life.batch.number, await self._effective(life)))
        elif life.state is not State.HALTED:
            await self._step(life, PartRefused(time.time_ns(), life.batch.number, reason))

    async def _effective(self, life: Life) -> Execution:
        """The transaction that gave the vaults what they show, among all that were ever signed for this part."""
        for digest in reversed(life.digests):
            found = await self._chain.find(digest)
            if found is not None and found.success:
                return found
        error = f"part {life.part} is on the chain, by none of the transactions signed here: {', '.join(life.digests)}"
        log.error("settlement=foreign_transaction batch=%d reason=%s", life.batch.number, error)
        return Execution("", True, None, error, 0, None)

    async def _is_done(self, life: Life) -> bool:
        """Whether the vaults already show this part. Halts if they show neither before nor after."""
        part = life.batch.parts[life.part]
        states = await self._states(part.coins)
        if all(_after(states[coin.asset], coin, life) for coin in part.coins):
            return bool(part.coins)
        if not all(_before(states[coin.asset], coin, life) for coin in part.coins):
            await self._halt(life, f"batch {life.batch.number}: the vaults stand at another number or chain value")
        return False

    async def _finish(self, life: Life) -> None:
        """Compare the chain with the books, pay out the news, go on to the next."""
        last = life.batch.parts[-1]
        states = await self._states(last.coins)
        for coin in last.coins:
            state, pool = states[coin.asset], life.batch.pools[coin.asset]
            expected = coin.next_chain(life.batch.number, last.number, last.root, last.trades_digest)
            if (state.next_batch, state.chain, state.pool) != (life.batch.number + 1, expected, pool):
                self._halted = (
                    f"batch {life.batch.number}: vault of {coin.asset} shows next batch {state.next_batch}, pool "
                    f"{state.pool}; the books say {life.batch.number + 1}, {pool}, or its chain value differs"
                )
                log.error("settlement=halted reason=%s", self._halted)
                return
        refused = await self._book()
        self._final = life.batch.number
        self._queue.popleft()
        if self.ledger.sequence >= life.batch.last_sequence:
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

    async def _book(self) -> str:
        """Book what is paid, all of it that can be; answers what the core refuses, empty if nothing."""
        refused = []
        if self._commands is not None:
            for ref in self._paid_refs():
                try:
                    await self._commands.withdraw_settled(ref)
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

    async def _states(self, coins: list[CoinPart]) -> dict[str, VaultState]:
        return await self._chain.vault_states([self._listings[coin.asset] for coin in coins])

    async def _list_assets(self, batch: Batch) -> None:
        """Open the vaults of assets that take part for the first time.

        A crash between opening and storing leaves an empty vault that nobody uses, and opens another.
        """
        fresh = [coin.asset for coin in batch.parts[0].coins if coin.asset not in self._listings]
        if not fresh:
            return
        first_number = len(self._listings) + 1
        numbered = [(asset, first_number + index) for index, asset in enumerate(fresh)]
        for listing in await self._chain.open_vaults(numbered, batch.number):
            self._store.append(Listed(time.time_ns(), listing))
            self._listings[listing.asset] = listing
            log.info("settlement=listed asset=%s vault=%s", listing.asset, listing.vault)


def _after(state: VaultState, coin: CoinPart, life: Life) -> bool:
    part = life.batch.parts[life.part]
    return state.chain == coin.next_chain(life.batch.number, part.number, part.root, part.trades_digest)


def _before(state: VaultState, coin: CoinPart, life: Life) -> bool:
    place = (state.next_batch, state.next_part, state.chain)
    return place == (life.batch.number, life.batch.parts[life.part].number, coin.previous)


async def run_settler(
    source: EventSource,
    chain: ChainPort,
    store: BatchStore,
    settings: SettlementSettings,
    on_batch: OnBatch,
    stop: asyncio.Event,
    *,
    commands: CommandPort | None = None,
    on_settler: Callable[[Settler], None] | None = None,
) -> None:
    """Settle until `stop` is set.

    `on_batch` gets every change of every batch, and at the start the present state of each stored one (store it by
    number; the same record again does no harm). `on_settler` gets the settler, whose `status()` the caller may publish.
    """
    settler = Settler(source, chain, store, settings, on_batch, commands)
    if on_settler:
        on_settler(settler)
    await settler.run(stop)
