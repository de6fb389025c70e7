"""Settlement under load and faults: rows for `bench settlement`, beside its latency.

    netting   1,000,000 trades of 10,000 accounts, from event slots to the sealed batch
    lossy     100 consecutive cuts, 400 accounts each, with 10 % lost requests and 10 % lost responses, of questions
              as well as of executions; gas
    faults    10,000 batches, every fault switch of the node at random, set between signing and sending, and counted
              where it had an effect: none doubled, skipped or out of order
    outage    360 batches queued while the chain is away, until the last is final

Gas is the embedded node's estimate of computation, no bill of a network: units that the Move VM of the sandbox metered
for a call which also encodes the vault and the rows it touches, once a vault, at the reference price; no storage, and
of transactions that took effect alone.

Checked before any number: the chain committed each number once and in order in every vault, rows and pools equal the
ledger's. Time is pressed in two places, and the rows say so: lossy cuts follow each other every 1.5 s instead of every
ten (harder, not easier), and the batches of the outage are cut at once instead of in an hour. The faults row is about
order, not about speed: it runs on the Python model of the contract, on memory instead of a disk, as several exchanges
in processes of their own. The others run in the Move VM where it is installed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import asynccontextmanager, contextmanager
from ctypes import c_uint64
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.harness import Row, WrongResult, median, seconds
from bench.settlement_flow import Flow
from engine.messages import layout
from engine.messages.errors import ExchangeError, Unavailable
from settlement.chain.encoding import address_bytes
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui.faults import CALL_FAULTS
from settlement.chain.localsui.node import Rejected
from settlement.chain.localsui.server import RunningNode, start
from settlement.chain.port import Execution, Signed, VaultListing, VaultState
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.ledger import Ledger
from settlement.netting import Netting
from settlement.settler import BatchRecord, SettlementSettings, Settler
from settlement.store import FileBatchStore
from settlement.watcher import Watcher

__all__ = ["CASES", "World", "quietly", "world"]

NETTING_S, FINAL_S, OUTAGE_S = 1.0, 15.0, 300.0
FAULT_BATCHES = 10_000
GAS_PRICE = 750
BATCHES_A_DAY = 86_400 // 10
FAULT_TRADERS = 8
LOOKS_S = 0.03
QUICK = SettlementSettings(poll_interval_s=0.002, watch_interval_s=0.2, retry_first_s=0.002, retry_most_s=0.02)
STEADY = SettlementSettings(poll_interval_s=0.005)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the settler's warnings: they are what these rows provoke."""
    log = logging.getLogger("settlement")
    before, log.level = log.level, logging.CRITICAL
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; takes how many are done."""
    console = Console(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


# ------------------------------------------------------------------------------------------------------- netting


def netting(smoke: bool, seed: int) -> list[Row]:
    """Three periods of trades; the middle time."""
    trades, traders = (20_000, 500) if smoke else (1_000_000, 10_000)
    flow = Flow(traders, seed)
    ledger, net = Ledger(), Netting(pay_pending=False)
    for cut in ledger.feed(_first_cut(flow)):
        net.seal(ledger, cut, 0)
        ledger.start_period()
    moved = np.zeros((traders + 2, 2), dtype=np.int64)
    times = []

    def close(slots: np.ndarray) -> None:
        for _ in ledger.feed(slots):
            raise WrongResult("a cut among the trades")
        for cut in ledger.feed(flow.read()):
            net.seal(ledger, cut, 0)
            ledger.start_period()

    for _ in range(3):
        slots = flow.trades(trades)
        flow.cut()
        times.append(seconds(partial(close, slots)))
        trade = slots.view(layout.TRADE)
        for account, sign, fee in ((trade["taker_account"], 1, "taker_fee"), (trade["account"], -1, "maker_fee")):
            np.add.at(moved[:, 1], account, sign * trade["size"] * flow.lot_units)
            np.add.at(moved[:, 0], account, -sign * trade["notional"] - trade[fee])
        if (ledger.totals[2 : traders + 2, :2] - flow.start != moved[2:]).any():
            raise WrongResult("the ledger's totals are not the sums of the trades")
        for index, asset in enumerate(("USDC", "MAYA")):
            rows = net.rows[asset]
            if any(rows[flow.row(each)] != ledger.total(each, index) for each in range(2, traders + 2)):
                raise WrongResult(f"the rows of {asset} are not the accounts' totals")
    case = f"{trades:,} trades of {traders:,} accounts, Merkle trees of both assets included"
    return [Row(case, "netting", median(times), "s", must=NETTING_S)]


def _first_cut(flow: Flow) -> np.ndarray:
    flow.cut()
    return flow.read()


# ------------------------------------------------------------------------------------------------ with the chain


@dataclass(slots=True)
class World:
    """A settler over its own node."""

    flow: Flow
    node: RunningNode
    settler: Settler
    chain: _Chain
    task: asyncio.Task[None]
    records: dict[int, BatchRecord]
    finals: list[int] = field(default_factory=list)

    async def until(self, number: int) -> None:
        """Wait until batch `number` is final. Raises WrongResult: settlement has halted or ended."""
        while self.settler.status()["final_batch"] < number:
            if self.task.done() or self.settler.status()["halted"]:
                raise WrongResult(str(self.settler.status()["halted"] or self.task.exception()))
            await asyncio.sleep(0.002)

    async def check(self, count: int) -> None:
        """Raises WrongResult: a number doubled, skipped, out of order; a row or a pool that is not the ledger's."""
        if self.finals != list(range(1, count + 1)):
            raise WrongResult("batches became final out of order")
        committed: dict[str, list[int]] = {}
        cursor = 0
        while True:
            try:
                head = await self.chain.head()
                cursor, events = await self.chain.events(cursor, 100)
            except Unavailable:
                continue  # on a busy machine the short time-out of the faults row ends a slow answer too
            for event in events:
                if event.kind == "BatchCommitted":
                    committed.setdefault(event.vault, []).append(event.amount)
            if cursor >= head:
                break
        for asset, vault_id in self.settler.status()["vaults"].items():
            if committed[vault_id] != list(range(1, count + 1)):
                raise WrongResult(f"the vault of {asset} committed other numbers than 1 … {count}")
            vault = self.node.node.state.vaults[address_bytes(vault_id)]
            expected = {row: amount for row, amount in self.settler.netting.rows[asset].items() if amount}
            if {row: amount for row, amount in vault.balances.items() if amount} != expected:
                raise WrongResult(f"rows of {asset} differ between chain and ledger")
            if vault.header.pool != sum(expected.values()):
                raise WrongResult(f"pool of {asset}")


Undo = Callable[[], Awaitable[None]] | None


class _Chain(SuiChain):
    """The settler's way to the node, on which questions get lost and faults wait for a signed transaction."""

    def __init__(self, settings: SuiSettings, key: OperatorKey) -> None:
        super().__init__(settings, key)
        self.dice: random.Random | None = None
        self.lost = 0
        self.breaks: deque[tuple[str, Callable[[], Awaitable[Undo]]]] = deque()
        """Faults to come, one a transaction: its name, and what switches it on and answers how to switch it off."""
        self.undoing: set[asyncio.Task[None]] = set()
        self.bit: Counter[str] = Counter()
        """Faults that had an effect, by name."""
        self.node: RunningNode | None = None
        self._fault = ""

    async def _ask_once(self, call: Any, missing_is_none: bool) -> Any:
        """A tenth of the questions and a tenth of the answers get lost where there is a `dice`."""
        draw = self.dice.random() if self.dice else 1.0
        if draw < 0.1:
            call.close()
            self.lost += 1
            raise Unavailable("the question was lost")
        answer = await super()._ask_once(call, missing_is_none)
        if draw < 0.2:
            self.lost += 1
            raise Unavailable("the answer was lost")
        return answer

    async def send(self, signed: Signed) -> Execution:
        undo: Undo = None
        if self.breaks:
            self._fault, switch_on = self.breaks.popleft()
            undo = await switch_on()
        try:
            execution = await super().send(signed)
        except ExchangeError:
            self._bites()
            raise
        finally:
            if undo is not None:
                task = asyncio.create_task(_later(self._fault, undo))
                self.undoing.add(task)
                task.add_done_callback(self.undoing.discard)
        if not execution.success or self._fault == "delay":
            self._bites()
        return execution

    async def vault_states(self, listings: list[VaultListing]) -> dict[str, VaultState]:
        found = await super().vault_states(listings)
        if self.node and self.node.faults.is_stale:
            self._bites("stale_read")
        return found

    async def head(self) -> int:
        found = await super().head()
        if self.node and found < self.node.node.state.checkpoint:
            self._bites("checkpoint_lag")
        return found

    def _bites(self, fault: str = "") -> None:
        """Once a switched fault."""
        if self._fault and fault in ("", self._fault):
            self.bit[self._fault] += 1
            self._fault = ""


@asynccontextmanager
async def world(
    traders: int, seed: int, settings: SettlementSettings, *, executor: str = "auto", in_memory: bool = False,
    timeout_s: float = 10.0,
) -> AsyncIterator[World]:  # fmt: skip
    """A running settler; the first batch, which opens the vaults, is not cut yet."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if in_memory and memory.is_dir() else None) as scratch:
        directory, stop = Path(scratch), asyncio.Event()
        flow = Flow(traders, seed)
        key = OperatorKey(hashlib.sha256(b"operator of the bench").digest())
        node = await start(directory, key.address, executor=executor)
        chain = _Chain(SuiSettings(f"http://127.0.0.1:{node.port}", directory / "pysui", timeout_s=timeout_s), key)
        chain.node = node
        store, watcher = FileBatchStore(directory / "batches.log"), Watcher(directory / "chain.log")
        records: dict[int, BatchRecord] = {}
        finals: list[int] = []

        def on_batch(record: BatchRecord) -> None:
            records[record.number] = record
            if record.status == "final":
                finals.append(record.number)

        settler = Settler(flow, chain, store, watcher, settings, on_batch)
        task = asyncio.create_task(settler.run(stop))
        try:
            yield World(flow, node, settler, chain, task, records, finals)
        finally:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)
            await chain.close()
            await node.close()
            watcher.close()
            store.close()


def lossy(smoke: bool, seed: int) -> list[Row]:
    """Latency and gas of cuts whose requests and answers get lost."""
    return asyncio.run(_lossy(3, 40, 0.0, seed) if smoke else _lossy(100, 400, 1.5, seed))


async def _lossy(batches: int, traders: int, interval_s: float, seed: int) -> list[Row]:
    async with world(traders, seed, STEADY) as here:
        here.flow.trade_and_cut()
        await here.until(1)
        here.node.faults.dice = random.Random(seed)
        here.node.faults.chances = {"lost_request": 0.1, "lost_response": 0.1}
        here.chain.dice = random.Random(seed + 1)
        began = time.monotonic()
        with _bar("lossy cuts", batches) as tell:
            for number in range(2, batches + 2):
                here.flow.trade_and_cut()
                await asyncio.sleep(max(0.0, began + (number - 1) * interval_s - time.monotonic()))
                tell(number - 1)
            await here.until(batches + 1)
        here.chain.dice = None
        lost = here.chain.lost
        await here.check(batches + 1)
        executor = here.node.node.executor_name
        records = [here.records[number] for number in range(2, batches + 2)]
    times = sorted((record.final_ts - record.cut_ts) / 1e9 for record in records)
    at_99 = times[max(0, -(-len(times) * 99 // 100) - 1)]
    gas = sum(record.gas_mist for record in records) / len(records)
    trades = sum(record.trade_count for record in records) / len(records)
    pace = f"one every {interval_s:g} s" if interval_s else "at once"
    case = (
        f"{batches} cuts {pace}, {traders} accounts in 2 vaults, 10 % of requests and of responses lost, of reads too, "
        f"{executor}"
    )
    return [
        Row(case, "cut_to_final_p99", at_99, "s", must=FINAL_S),
        Row(case, "cut_to_final_worst", times[-1], "s"),
        Row(case, "questions_lost", float(lost), "questions"),
        Row(case, "computation_a_batch_estimated", gas / GAS_PRICE, "units"),
        Row(case, "computation_a_batch_estimated_at_750_mist", gas / 1e9, "SUI"),
        Row(case, "computation_a_day_estimated_at_750_mist", gas / 1e9 * BATCHES_A_DAY, "SUI"),
        Row(case, "computation_a_settled_trade_estimated_at_750_mist", gas / trades, "MIST"),
    ]


FAULTS = (
    "none", "lost_request", "lost_response", "hang", "delay", "refuse_once", "stale_read", "epoch", "gas_price", "lock",
    "paused", "rotated", "checkpoint_lag",
)  # fmt: skip
FAULT_WEIGHTS = [1 if fault == "hang" else 20 for fault in FAULTS]
"""A hang costs its time-out each time."""


def faults(smoke: bool, seed: int) -> list[Row]:
    """Every switch at random, on as many exchanges as there are cores."""
    batches, jobs = (20, 1) if smoke else (FAULT_BATCHES, max(2, os.cpu_count() or 1))
    shares = [batches // jobs + (index < batches % jobs) for index in range(jobs)]
    context = multiprocessing.get_context("spawn")
    done = context.Value(c_uint64)
    bit: Counter[str] = Counter()
    began = time.monotonic()
    if smoke:
        bit += asyncio.run(_all_faults(batches, seed, lambda: None))
    else:
        with _bar("batches with a fault", batches) as tell, ProcessPoolExecutor(jobs, context, _begin, (done,)) as pool:
            waiting = {pool.submit(_share, share, seed + index) for index, share in enumerate(shares)}
            while waiting:
                ended, waiting = wait(waiting, 0.5, FIRST_COMPLETED)
                for future in ended:
                    bit += future.result()
                tell(done.value)
    elapsed = time.monotonic() - began
    committed = bit.pop("committed")
    missing = set(FAULTS) - {"none"} - set(bit)
    if missing and not smoke:
        raise WrongResult(f"never had an effect: {', '.join(sorted(missing))}")
    case = (
        f"{batches:,} batches on {jobs} chains, {len(FAULTS) - 1} kinds of fault between signing and sending; each "
        f"{FAULT_TRADERS} accounts, 2 vaults, one transaction a batch, no payouts, deposits or exits, Python contract"
    )
    return [
        Row(case, "committed_once_and_in_order", float(committed), "batches", must=float(batches)),
        Row(case, "faults_with_an_effect", float(bit.total()), "faults"),
        *(Row(case, f"with_an_effect_{fault}", float(bit[fault]), "faults") for fault in FAULTS if fault != "none"),
        Row(case, "batch_with_a_fault", elapsed / batches * 1e3, "ms"),
    ]


_done: Any = None


def _begin(done: Any) -> None:
    global _done
    _done = done
    logging.getLogger("settlement").setLevel(logging.CRITICAL)


def _share(batches: int, seed: int) -> Counter[str]:
    def tell() -> None:
        with _done.get_lock():
            _done.value += 1

    return asyncio.run(_all_faults(batches, seed, tell))


async def _all_faults(batches: int, seed: int, tell: Callable[[], None]) -> Counter[str]:
    """How many faults of each kind had an effect, and under `committed` how many batches the chain has. Raises
    WrongResult.
    """
    rng = random.Random(seed)
    async with world(FAULT_TRADERS, seed, QUICK, executor="model", in_memory=True, timeout_s=0.25) as here:
        here.flow.trade_and_cut()
        await here.until(1)
        switches = here.node.faults
        switches.hang_s, switches.delay_s = 1.0, 0.02

        async def switch_on(fault: str) -> Undo:
            if fault in CALL_FAULTS:
                switches.next_execute.append(fault)
            return await _break(here, fault, rng)

        for number in range(2, batches + 2):
            fault = rng.choices(FAULTS, FAULT_WEIGHTS)[0]
            here.chain.breaks.append((fault, partial(switch_on, fault)))
            here.flow.trade_and_cut()
            if number % 8 == 0 or rng.random() < 0.2:
                await here.until(number)
            tell()
        await here.until(batches + 1)
        here.chain.breaks.clear()
        await asyncio.gather(*here.chain.undoing)
        await here.check(batches + 1)
        return here.chain.bit + Counter(committed=len(here.finals) - 1)


async def _later(fault: str, undo: Callable[[], Awaitable[None]]) -> None:
    """Once the transaction has been sent into it; what is seen only by looking stays for some looks."""
    await asyncio.sleep(LOOKS_S if fault in ("stale_read", "checkpoint_lag") else 0.0)
    await undo()


async def _break(here: World, fault: str, rng: random.Random) -> Undo:
    """Switch a lasting fault on; how to switch it off again, or None."""
    node, faults = here.node.node, here.node.faults
    if fault == "epoch":  # a transaction outlives one
        node.next_epoch()
        node.next_epoch()
    elif fault == "gas_price":
        node.set_gas_price(GAS_PRICE + rng.randrange(500))
    elif fault == "stale_read":
        faults.freeze_reads(node)

        async def thaw() -> None:
            faults.thaw_reads()

        return thaw
    elif fault == "lock":
        node.old_locks = True
        try:
            signed = await here.chain._sign(_nothing())
            await node.lock_only(signed.raw, [signed.signature])
        except (Rejected, ExchangeError):
            pass  # the settler was first

        async def free() -> None:
            node.next_epoch()
            node.old_locks = False

        return free
    elif fault == "paused":
        await node.administer(paused=True)

        async def open_again() -> None:
            await node.administer(paused=False)

        return open_again
    elif fault == "rotated":
        ours = next(item.id for item in node.state.items.values() if item.kind.endswith("::settlement::OperatorCap"))
        await node.administer(operator=b"\x0d" * 32)

        async def ours_again() -> None:
            await node.administer(operator=ours)

        return ours_again
    elif fault == "checkpoint_lag":
        node.checkpoint_lag_s = 2 * LOOKS_S

        async def no_lag() -> None:
            node.checkpoint_lag_s = 0.0

        return no_lag
    return None


def _nothing() -> Any:
    """A transaction of the operator's that does nothing but use its gas coin."""
    return ProgrammableTransactionBuilder(compress_inputs=True)


def outage(smoke: bool, seed: int) -> list[Row]:
    """The chain comes back after an hour."""
    return asyncio.run(_outage(4, 20, seed) if smoke else _outage(360, 100, seed))


async def _outage(batches: int, traders: int, seed: int) -> list[Row]:
    async with world(traders, seed, STEADY) as here:
        here.flow.trade_and_cut()
        await here.until(1)
        here.node.faults.unavailable = True
        for _ in range(batches):
            here.flow.trade_and_cut()
        while here.settler.status()["pending_batches"] < batches:
            await asyncio.sleep(0.01)
        here.node.faults.unavailable = False
        began = time.monotonic()
        with _bar("batches of an outage", batches) as tell:
            for number in range(2, batches + 2):
                await here.until(number)
                tell(number - 1)
        elapsed = time.monotonic() - began
        await here.check(batches + 1)
        executor = here.node.node.executor_name
    case = f"{batches} batches of {traders} accounts queued while the chain was away, {executor}"
    return [Row(case, "caught_up", elapsed, "s", must=OUTAGE_S)]


CASES: dict[str, Callable[[bool, int], list[Row]]] = {
    "netting": netting, "lossy": lossy, "faults": faults, "outage": outage,
}  # fmt: skip
"""Name → its rows, checked."""
