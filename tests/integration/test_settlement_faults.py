"""Faults F54–F60, and money that comes and goes on the chain by itself: the settler over a real LocalSui."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
import numpy as np
import pysui.sui.sui_common.sui_commands as commands
import pytest
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder

from engine.messages import layout
from engine.messages.decimals import decimal_text
from engine.messages.errors import JournalFailed, Unavailable
from settlement.batch import Listed, SignedPart
from settlement.chain import sui
from settlement.chain.encoding import address_bytes, address_text
from settlement.chain.events import ChainEvent
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui import node as node_module
from settlement.chain.port import CoinPart, Execution, Part, Signed
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.refs import deposit_ref
from settlement.rows import TREASURY_ROW
from settlement.settler import Settler
from settlement.store import FileBatchStore
from settlement.watcher import Watcher
from tests.support.chain_key import OPERATOR
from tests.support.real_core import RealCore
from tests.support.settlement_bench import (
    FAST,
    MARKET,
    Bench,
    CrashingStore,
    SecondBooks,
    bench,
    check_rows,
    opened_market,
    reached,
)
from tests.support.settlement_events import EventLog
from tests.support.sui_owner import Owner

__all__ = ["bench"]

UNIT = 10**6
OUTAGE_BATCHES = int(os.environ.get("TEST_OUTAGE_BATCHES", "30"))
"""Sealed while the chain is away; an hour of them are 360."""


def _trade_and_cut(log: EventLog, buyer: int, seller: int, batches: int) -> None:
    for _ in range(batches):
        log.trade(MARKET, seller, buyer, 1, 7, 4)
        log.cut()


def _signed(bench: Bench) -> Counter[int]:
    """Transactions ever signed, by batch. Only after the settler has ended."""
    store = FileBatchStore(bench.directory / "batches.log")
    counted = Counter(event.number for _, event in store.events() if isinstance(event, SignedPart))
    store.close()
    return counted


async def _committed(bench: Bench, settler: Settler) -> dict[str, list[int]]:
    """Vault → batch numbers in the order in which the chain committed them."""
    numbers: dict[str, list[int]] = {}
    _, events = await settler._chain.events(0, 10**9)
    for event in events:
        if event.kind == "BatchCommitted":
            numbers.setdefault(event.vault, []).append(event.amount)
    return numbers


async def test_f54_outcome_unknown_is_asked_by_digest_and_never_signed_anew(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        bench.node.faults.hang_s = 60.0
        faults = ["lost_response", "lost_request", "lost_request", "none", "lost_response", "lost_request", "none"]
        bench.node.faults.next_execute.extend(faults)
        _trade_and_cut(log, buyer, seller, 4)
        await reached(lambda: settler.status()["final_batch"] == 5, "all final")
        check_rows(bench, settler)
        assert set(map(tuple, (await _committed(bench, settler)).values())) == {(1, 2, 3, 4, 5)}
    assert _signed(bench) == {number: 1 for number in range(1, 6)}, "the same bytes every time"


async def test_f54_a_node_that_hangs_is_given_up_and_asked(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        bench.node.faults.hang_s = 3_600.0
        bench.node.faults.next_execute.append("hang")
        _trade_and_cut(log, buyer, seller, 1)
        await reached(lambda: settler.status()["final_batch"] == 2, "found by its digest")
        check_rows(bench, settler)
    assert _signed(bench)[2] == 1


async def test_f55_two_settlers_settle_every_batch_once(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    twin_log = EventLog()
    twin_log.__dict__.update({**log.__dict__, "slots": log.slots})  # the same events, read at another pace
    log.cut()
    twin = Bench(bench.directory / "twin")
    twin.port, twin.node = bench.port, bench.node
    async with bench.settler(log) as first:
        await reached(lambda: first.status()["final_batch"] == 1, "first batch")
        store = FileBatchStore(twin.directory / "batches.log")
        for listing in first._listings.values():  # a restored backup: it knows the vaults, and nothing later
            store.append(Listed(1, listing))
        store.close()
        _trade_and_cut(log, buyer, seller, 6)
        async with twin.settler(twin_log) as second:
            await reached(lambda: first.status()["final_batch"] == 7, "all final")
            await reached(lambda: second.status()["final_batch"] == 7 or second.status()["halted"], "the second ends")
            assert set(map(tuple, (await _committed(bench, first)).values())) == {tuple(range(1, 8))}
            assert not first.status()["halted"]
            check_rows(bench, first)


async def test_f56_a_locked_object_queues_batches_until_the_epoch_ends(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        node = bench.node.node
        node.old_locks = True
        other = await Owner.open(bench.port, bench.directory, "locker")  # somebody of ours signs with the same objects
        signed = await settler._chain.sign(_empty_part(settler, 99), settler._listings)
        await node.lock_only(signed.raw, [signed.signature])
        _trade_and_cut(log, buyer, seller, 3)
        await reached(lambda: settler.status()["pending_batches"] == 3, "batches queue, trading goes on")
        await reached(lambda: "lock" in settler.status()["chain_error"].lower(), "the status says why")
        assert settler.status()["final_batch"] == 1 and not settler.status()["halted"]
        node.next_epoch()
        await reached(lambda: settler.status()["final_batch"] == 4, "the next epoch frees it")
        check_rows(bench, settler)
        await other.close()


def _empty_part(settler: Settler, number: int) -> Part:
    coins = [CoinPart(asset, settler.netting.chain[asset]) for asset in settler._listings]
    return Part(number, 0, 1, b"\x09" * 32, b"\x09" * 32, coins)


async def test_f57_effects_without_a_checkpoint_advance_nothing(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        bench.node.node.checkpoint_lag_s = 3_600.0
        _trade_and_cut(log, buyer, seller, 1)
        await reached(lambda: "no checkpoint yet" in settler.status()["chain_error"], "executed, and not final")
        assert settler.status()["final_batch"] == 1 and bench.finals() == [1]
        bench.node.node.checkpoint_lag_s = 0.0
        await reached(lambda: settler.status()["final_batch"] == 2, "final with its checkpoint")
    assert _signed(bench)[2] == 1


async def test_f57_a_stale_node_is_waited_for_and_halts_nothing(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        bench.node.faults.freeze_reads(bench.node.node)
        _trade_and_cut(log, buyer, seller, 2)
        await reached(lambda: settler.status()["pending_batches"] == 2 and settler.status()["chain_error"], "waits")
        await asyncio.sleep(0.3)
        assert settler.status()["final_batch"] == 1 and not settler.status()["halted"]
        bench.node.faults.thaw_reads()
        await reached(lambda: settler.status()["final_batch"] == 3, "goes on")
        check_rows(bench, settler)
        assert set(map(tuple, (await _committed(bench, settler)).values())) == {(1, 2, 3)}


class OtherAnswers(SuiChain):
    """From the second batch on the node answers once, and once more when asked, with the first batch's transaction."""

    def __init__(self, settings: SuiSettings, key: OperatorKey) -> None:
        super().__init__(settings, key)
        self.first, self.lies = "", 0
        honest = self._client.execute

        async def execute(*, command: Any, timeout: float) -> Any:
            is_asked = isinstance(command, commands.ExecuteTransaction | commands.GetTransaction)
            if not (self.first and is_asked and self.lies < 2):
                return await honest(command=command, timeout=timeout)
            self.lies += 1  # what was sent is not executed
            return await honest(command=commands.GetTransaction(digest=self.first), timeout=timeout)

        self._client.execute = execute


async def test_f57_an_answer_about_another_transaction_is_refused(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log, chain_type=OtherAnswers) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        chain = settler._chain
        assert isinstance(chain, OtherAnswers)
        chain.first = settler.status()["recent"][-1]["digests"][0]
        _trade_and_cut(log, buyer, seller, 1)
        await reached(lambda: settler.status()["final_batch"] == 2, "sent again, and final by its own transaction")
        assert chain.lies == 2 and settler.status()["recent"][-1]["digests"] != [chain.first]
        assert set(map(tuple, (await _committed(bench, settler)).values())) == {(1, 2)}
        check_rows(bench, settler)
        with pytest.raises(Unavailable, match=f"asked about transaction .*, the node answers with {chain.first}"):
            chain.lies = 1
            await chain.find("11111111111111111111111111111111")
    assert _signed(bench)[2] == 1, "the same bytes"


class Believer(SuiChain):
    """A node that says of what was lost on the way to it that it took effect; its vaults stay as they are."""

    claims = True

    async def send(self, signed: Signed) -> Execution:
        execution = await super().send(signed)
        self.last = execution
        return execution

    async def find(self, digest: str) -> Execution | None:
        found = await super().find(digest)
        if found is None and self.claims and getattr(self, "last", None):
            return msgspec.structs.replace(self.last, digest=digest)
        return found


async def test_f57_a_transaction_that_the_vaults_do_not_show_makes_nothing_final(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log, chain_type=Believer) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        bench.node.faults.next_execute.append("lost_request")
        _trade_and_cut(log, buyer, seller, 1)
        await reached(lambda: "the vaults are shown before it" in settler.status()["chain_error"], "waits and says so")
        assert bench.finals() == [1] and not settler.status()["halted"]
        assert isinstance(settler._chain, Believer)
        settler._chain.claims = False
        await reached(lambda: settler.status()["final_batch"] == 2, "sent again")
        check_rows(bench, settler)
    assert _signed(bench)[2] == 1, "the same bytes"


async def test_f58_epoch_gas_price_pause_and_rotation_are_survived(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        node, faults, done = bench.node.node, bench.node.faults, 1
        for change in ("epoch", "price", "refused", "overload"):
            if change == "epoch":
                node.next_epoch()
                node.next_epoch()
            elif change == "price":
                node.set_gas_price(2_000)
            else:
                faults.next_execute.append("refuse_once" if change == "refused" else "lost_request")
            _trade_and_cut(log, buyer, seller, 1)
            done += 1
            await reached(lambda done=done: settler.status()["final_batch"] == done, change)
        await node.administer(paused=True)
        _trade_and_cut(log, buyer, seller, 2)
        await reached(lambda: "is paused" in settler.status()["chain_error"], "the status says paused")
        assert settler.status()["paused"]
        gas = max(item.mist for item in node.state.items.values() if item.kind.endswith("sui::SUI>"))
        await asyncio.sleep(0.2)
        assert gas == max(item.mist for item in node.state.items.values() if item.kind.endswith("sui::SUI>"))
        await node.administer(paused=False)
        await reached(lambda: settler.status()["final_batch"] == done + 2, "opened again")
        assert not settler.status()["paused"]
        await node.administer(operator=b"\x0d" * 32)
        _trade_and_cut(log, buyer, seller, 1)
        await reached(lambda: "name operator" in settler.status()["chain_error"], "the status says rotated")
        assert not settler.status()["halted"]
        mine = next(i.id for i in node.state.items.values() if i.kind.endswith("::settlement::OperatorCap"))
        await node.administer(operator=mine)
        await reached(lambda: settler.status()["final_batch"] == done + 3, "ours again")
        check_rows(bench, settler)


async def test_f58_without_gas_nothing_is_sent_until_somebody_sends_sui_to_the_address(bench: Bench) -> None:
    """What is sent is a coin of its own, and the status says no more than what is true of all of them."""
    log, buyer, seller = opened_market()
    log.cut()
    owner = await Owner.open(bench.port, bench.directory, "sponsor")
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        chain = settler._chain
        assert isinstance(chain, SuiChain) and bench.node is not None
        coin = bench.node.node.state.items[address_bytes(chain._gas_coin)]
        chain._settings = dataclasses.replace(chain._settings, gas_floor_mist=coin.mist + 3 * 10**9)
        _trade_and_cut(log, buyer, seller, 1)
        said = f"{OPERATOR.address} has {coin.mist} MIST left for gas"
        await reached(lambda: said in settler.status()["chain_error"], "the status says so")
        await owner.scatter(2 * 10**9, 2, OPERATOR.address)
        await reached(lambda: settler.status()["final_batch"] == 2, "paid for by all three")
        assert chain._gas_coin == address_text(coin.id)
        chain._settings = dataclasses.replace(chain._settings, gas_floor_mist=10**9)
        await owner.scatter(5 * 10**9, 1, OPERATOR.address)
        elsewhere = SuiChain(SuiSettings(f"http://127.0.0.1:{bench.port}", bench.directory / "elsewhere"), OPERATOR)
        await elsewhere.connect()
        [small] = [item for item in bench.node.node.state.items.values() if item.mist == 5 * 10**9]
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        whole = builder.input_obj_from_objarg(sui._owned(await elsewhere._object(elsewhere._gas_coin)))
        elsewhere._gas_coin = address_text(small.id)
        builder.transfer_objects(sui._pure(builder, owner.row), [whole])
        await elsewhere._submit(builder)
        await elsewhere.close()
        _trade_and_cut(log, buyer, seller, 1)
        await reached(lambda: settler.status()["final_batch"] == 3, "the coin is sent away: another pays")
        assert chain._gas_coin == address_text(small.id)
        check_rows(bench, settler)
    await owner.close()
    assert _signed(bench)[2] == 1


class Hooked(SuiChain):
    """`hook` runs before each signing of a part."""

    signings = 0

    async def sign(self, part, listings) -> Signed:  # type: ignore[no-untyped-def]
        self.signings += 1
        await self.hook(part)
        return await super().sign(part, listings)

    async def hook(self, part: Part) -> None: ...


class OldHeaders(Hooked):
    """One node of several is behind: it shows the vaults as they were one batch ago, once."""

    old: ClassVar[dict[str, Any]] = {}
    shown = 0

    async def hook(self, part: Part) -> None:
        self.part = part

    async def _headers(self, listings):  # type: ignore[no-untyped-def]
        now = await super()._headers(listings)
        before, OldHeaders.old = self.old, now
        if self.part.batch == 3 and before and not OldHeaders.shown:
            OldHeaders.shown += 1
            return before
        return now


async def test_f57_an_old_withdrawal_number_is_read_again_and_pays_once(bench: Bench, owned: Ledgered) -> None:
    core = owned.core
    async with bench.settler(core, commands=core, chain_type=OldHeaders) as settler:
        await _final(settler, core)
        for number in (2, 3):
            core.send(op="withdraw", account="user:o", asset="USDC", amount="10", ref=f"w{number}")
            await _final(settler, core)
        assert OldHeaders.shown == 1
        await reached(lambda: owned.balance() == (80 * UNIT, 0), "both booked")
        await _final(settler, core)
        check_rows(bench, settler)
        _, events = await settler._chain.events(0, 10**9)
        assert [event.amount for event in events if event.kind == "Withdrawn"] == [10 * UNIT, 10 * UNIT]
    assert _signed(bench)[3] == 2, "the first aborted as a whole"


def _large_market(accounts: int = 480) -> EventLog:
    """One batch of several transactions: every account is paid into both vaults."""
    log = EventLog()
    usdc, maya = log.asset("USDC"), log.asset("MAYA")
    log.market(0, maya, usdc, 10)
    for number in range(accounts):
        account = log.account(f"user:{number}", row=number.to_bytes(32, "big"))
        log.deposit(account, usdc, 100_000)
        log.deposit(account, maya, 100_000)
    log.cut()
    return log


@pytest.mark.parametrize("fault", ["lost_request", "lost_response", "refuse_once", "paused", "rotated", "gas", "epoch"])
async def test_f58_a_fault_between_the_transactions_of_one_batch(bench: Bench, fault: str) -> None:
    assert bench.node is not None
    node, switches = bench.node.node, bench.node.faults

    class Faulty(Hooked):
        async def hook(self, part: Part) -> None:
            assert part.count > 1
            if part.number != 1 or self.signings != 2:
                return
            if fault in ("paused", "rotated"):
                ours = next(i.id for i in node.state.items.values() if i.kind.endswith("::settlement::OperatorCap"))
                await node.administer(**({"paused": True} if fault == "paused" else {"operator": b"\x0d" * 32}))

                async def mend() -> None:
                    await asyncio.sleep(0.1)
                    await node.administer(**({"paused": False} if fault == "paused" else {"operator": ours}))

                self.mending = asyncio.create_task(mend())
            elif fault == "epoch":
                node.next_epoch()
            elif fault != "gas":
                switches.next_execute.append(fault)

        async def send(self, signed: Signed) -> Execution:
            if fault == "gas" and self.signings == 2 and not hasattr(self, "moved"):
                self.moved = await self._sign(ProgrammableTransactionBuilder(compress_inputs=True))
                assert (await super().send(self.moved)).success  # the gas coin has another version now
            return await super().send(signed)

    log = _large_market()
    async with bench.settler(log, chain_type=Faulty) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1 or settler.status()["halted"], "final")
        assert not settler.status()["halted"], settler.status()["halted"]
        check_rows(bench, settler)
        assert set(map(tuple, (await _committed(bench, settler)).values())) == {(1,) * bench.records[-1].part_count}
        assert len(bench.records[-1].digests) == bench.records[-1].part_count > 1


async def test_f58_a_crash_after_every_single_step_of_a_batch_of_several_transactions(bench: Bench) -> None:
    log, starts = _large_market(), 0
    while not bench.finals():
        starts += 1
        store = CrashingStore(bench.directory / "batches.log", 1)
        chain = SuiChain(SuiSettings(f"http://127.0.0.1:{bench.port}", bench.directory / "pysui"), OPERATOR)
        watcher = Watcher(bench.directory / "chain.log")
        settler = Settler(log, chain, store, watcher, FAST, bench.records.append)
        stop = asyncio.Event()
        task = asyncio.create_task(settler.run(stop))
        await reached(lambda task=task: task.done() or bench.finals(), "one step, then dead")
        stop.set()
        with contextlib.suppress(JournalFailed):
            await task
        await chain.close()
        watcher.close()
        store.close()
    async with bench.settler(log) as settler:
        log.cut()
        await reached(lambda: settler.status()["final_batch"] == 2, "goes on")
        check_rows(bench, settler)
        parts = next(record.part_count for record in bench.records if record.number == 1)
        committed = (1,) * parts + (2,)
        assert set(map(tuple, (await _committed(bench, settler)).values())) == {committed}
    assert starts > 3 * parts, "sealed, listed, and signed, sent, executed of each part"


async def test_f59_batches_of_an_outage_go_out_in_order_and_their_number_is_bounded(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        settler._settings = type(settler._settings)(
            poll_interval_s=0.005, watch_interval_s=0.01, retry_first_s=0.02, retry_most_s=0.05, max_pending=10
        )
        await bench.node_down()
        for number in range(1, OUTAGE_BATCHES + 1):
            _trade_and_cut(log, buyer, seller, 1)
            if number <= 10:
                await reached(lambda: settler.status()["pending_batches"] == number, "queued")  # noqa: B023
        await asyncio.sleep(0.2)
        assert settler.status()["pending_batches"] == 10, "the rest stays in the event log"
        await bench.node_up()
        await reached(lambda: settler.status()["final_batch"] == OUTAGE_BATCHES + 1, "caught up")
        check_rows(bench, settler)
        every = range(1, OUTAGE_BATCHES + 2)
        assert bench.finals() == list(every)
        assert set(map(tuple, (await _committed(bench, settler)).values())) == {tuple(every)}


@pytest.mark.parametrize("unit", [1, -1])
async def test_f60_one_unit_of_difference_halts_and_resumes_only_when_it_is_gone(bench: Bench, unit: int) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        node = bench.node.node

        def change(by: int) -> None:
            identity = address_bytes(settler.status()["vaults"]["USDC"])
            vault, item = node.state.vaults[identity], node.state.items[identity]
            vault.header = msgspec.structs.replace(vault.header, pool=vault.header.pool + by)
            node.state.items[identity] = msgspec.structs.replace(item, contents=vault.header.encode())

        change(unit)
        _trade_and_cut(log, buyer, seller, 2)
        await reached(lambda: settler.status()["halted"], "halted")
        assert "vault of USDC shows pool" in settler.status()["halted"] and settler.status()["final_batch"] == 1
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["halted"], "a restart changes nothing")
        settler.resume("not yet mended (test)")
        await reached(lambda: bench.records[-1].number == 3 and settler.status()["halted"], "the next finds it again")
        change(-unit)
        settler.resume("mended (test)")
        _trade_and_cut(log, buyer, seller, 1)
        await reached(lambda: settler.status()["final_batch"] == 4, "goes on")
        assert not settler.status()["halted"]
        check_rows(bench, settler)


@pytest.mark.parametrize("seed", range(2))
async def test_all_faults_at_random_double_skip_and_reorder_nothing(bench: Bench, seed: int) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        rng = random.Random(seed)
        bench.node.faults.dice = rng
        bench.node.faults.chances = {"lost_request": 0.2, "lost_response": 0.2, "refuse_once": 0.2}
        for number in range(2, 22):
            _trade_and_cut(log, buyer, seller, 1)
            if rng.random() < 0.2:
                bench.node.node.next_epoch()
            await reached(lambda number=number: settler.status()["final_batch"] >= number - 3, "not far behind")
        await reached(lambda: settler.status()["final_batch"] == 21, "all final")
        check_rows(bench, settler)
        assert set(map(tuple, (await _committed(bench, settler)).values())) == {tuple(range(1, 22))}


# ---------------------------------------------------------------- money on the chain


class Ledgered:
    """The real core, an owner with a row on the chain, and cuts."""

    def __init__(self, owner: Owner) -> None:
        self.core, self.owner = RealCore(), owner
        self.core.send(op="asset", asset="USDC", scale=6, settled=True)
        self.core.send(op="account", account="user:o", row="0x" + owner.row.hex())
        self.core.send(op="account", account="user:x", row="0x" + "ee" * 32)
        self.core.send(op="deposit", account="user:o", asset="USDC", amount="100", ref="faucet")

    def balance(self, account: str = "user:o") -> tuple[int, int]:
        return self.core.balance(account, "USDC")


@pytest.fixture
async def owned(bench: Bench) -> AsyncIterator[Ledgered]:
    owner = await Owner.open(bench.port, bench.directory, "owner")
    yield Ledgered(owner)
    await owner.close()


class NodeClock:
    """The time that the node takes for now: `late_ns` ahead of ours."""

    def __init__(self) -> None:
        self.late_ns = 0

    monotonic = staticmethod(time.monotonic)

    def time_ns(self) -> int:
        return time.time_ns() + self.late_ns


@pytest.fixture
def node_clock(monkeypatch: pytest.MonkeyPatch) -> NodeClock:
    clock = NodeClock()
    monkeypatch.setattr(node_module, "time", clock)
    return clock


async def _final(settler: Settler, core: RealCore) -> None:
    batch = core.send(op="cut")["batch"]
    await reached(lambda: settler.status()["final_batch"] == batch or settler.status()["halted"], f"batch {batch}")
    assert not settler.status()["halted"], settler.status()["halted"]


async def _exited(bench: Bench, owned: Ledgered, node_clock: NodeClock) -> None:
    """Batch 1 is final; then, while nobody settles, the owner asks for an exit of 90 USDC, and has claimed it."""
    async with bench.settler(owned.core, commands=owned.core) as settler:
        await _final(settler, owned.core)
        listing = settler._listings["USDC"]
    await owned.owner.request_exit(listing, 90 * UNIT)
    node_clock.late_ns = 2 * 86_400 * 10**9
    await owned.owner.claim_exit(listing)


async def test_a_deposit_on_the_chain_becomes_one_deposit_in_the_core(bench: Bench, owned: Ledgered) -> None:
    core = owned.core
    async with bench.settler(core, commands=core) as settler:
        await _final(settler, core)
        listing = settler._listings["USDC"]
        core.lose.extend(["request", "answer", "none"])
        await owned.owner.deposit(listing, 7 * UNIT)
        await _final(settler, core)
        await reached(lambda: owned.balance() == (107 * UNIT, 0), "booked")
        await _final(settler, core)
        check_rows(bench, settler)
        await owned.owner.deposit(listing, 3 * UNIT, row=b"\xcc" * 32)
        await _final(settler, core)
        assert [deposit["units"] for deposit in settler.status()["unclaimed_deposits"]] == [3 * UNIT]
    async with bench.settler(core, commands=core) as settler:
        core.send(op="account", account="user:late", row="0x" + "cc" * 32)
        await reached(lambda: owned.balance("user:late") == (3 * UNIT, 0), "claimed after a restart")
        await _final(settler, core)
        check_rows(bench, settler)
    assert owned.balance() == (107 * UNIT, 0)


@pytest.mark.parametrize("end", ["claimed", "cancelled"])
async def test_a_forced_exit_on_the_chain_is_followed_and_settlement_goes_on(
    bench: Bench, owned: Ledgered, node_clock: NodeClock, end: str
) -> None:
    core = owned.core
    async with bench.settler(core, commands=core) as settler:
        await _final(settler, core)
        listing = settler._listings["USDC"]
        await owned.owner.request_exit(listing, 30 * UNIT)
        await reached(lambda: owned.balance() == (70 * UNIT, 30 * UNIT), "held")
        await _final(settler, core)
        assert [exit["asked_units"] for exit in settler.status()["open_exits"]] == [30 * UNIT]
        if end == "claimed":
            node_clock.late_ns = 2 * 86_400 * 10**9
            await owned.owner.claim_exit(listing)
            await reached(lambda: owned.balance() == (70 * UNIT, 0), "posted")
        else:
            await owned.owner.cancel_exit(listing)
            await reached(lambda: owned.balance() == (100 * UNIT, 0), "given back")
        await _final(settler, core)
        await reached(lambda: not settler.status()["open_exits"], "over")
        core.send(op="transfer", ref="free", legs=[{"from": "user:o", "asset": "USDC", "amount": "1", "to": "user:x"}])
        await reached(lambda: owned.balance("user:x")[0] == UNIT, "the account is open again")
        await _final(settler, core)
        check_rows(bench, settler)


async def test_a_payout_that_an_exit_has_emptied_is_skipped_and_fails(
    bench: Bench, owned: Ledgered, node_clock: NodeClock
) -> None:
    """The exit is claimed before the core has heard of it, while a withdrawal of the same money is under way."""
    core = owned.core
    await _exited(bench, owned, node_clock)
    core.send(op="withdraw", account="user:o", asset="USDC", amount="40", ref="w1")
    async with bench.settler(core, commands=core) as settler:
        core.send(op="cut")
        await reached(lambda: bench.finals()[-1] == 2, "the batch is final all the same")
        await reached(lambda: owned.balance() == (10 * UNIT, 0) or settler.status()["halted"], "booked")
        assert owned.balance() == (10 * UNIT, 0), settler.status()
        await _final(settler, core)
        check_rows(bench, settler)
    assert core.send(op="withdraw_failed", ref="w1")["status"] == "voided"


async def test_a_withdrawal_of_two_legs_is_not_paid_for_an_exit_in_one_vault_could_tear_it(
    bench: Bench, owned: Ledgered, node_clock: NodeClock
) -> None:
    """The contract skips payouts one by one, the core books a ref whole: half of one is neither posted nor voided."""
    core = owned.core
    core.send(op="asset", asset="MAYA", scale=6, settled=True)
    core.send(op="deposit", account="user:o", asset="MAYA", amount="100", ref="faucet-2")
    await _exited(bench, owned, node_clock)
    legs = [
        {"from": "user:o", "asset": asset, "amount": "40", "to": "system:external"} for asset in ("USDC", "MAYA")
    ]
    assert core.send(op="transfer", ref="two", legs=legs, pending=True)["event"] == "pended"
    core.send(op="withdraw", account="user:o", asset="MAYA", amount="7", ref="one")
    async with bench.settler(core, commands=core) as settler:
        await _final(settler, core)
        await _final(settler, core)
        [usdc, maya] = settler.netting.unpayable
        assert (usdc.ref, usdc.asset, maya.asset, maya.amount) == ("two", "USDC", "MAYA", 40 * UNIT)
        assert "several legs" in usdc.reason and not settler.netting.skipped
        assert core.balance("user:o", "MAYA") == (53 * UNIT, 40 * UNIT), "the other one is paid"
        assert core.send(op="withdraw_failed", ref="two")["event"] == "voided"
        await reached(lambda: owned.balance() == (10 * UNIT, 0), "the exit is booked from what was held")
        await _final(settler, core)
        check_rows(bench, settler)
        assert core.balance("user:o", "MAYA") == (93 * UNIT, 0) and not settler.netting.unpayable


class SlowToCompare(SuiChain):
    """Shows checkpoints once it is told to: what is final in the store is not compared with the vaults before."""

    def __init__(self, settings: SuiSettings, key: OperatorKey) -> None:
        super().__init__(settings, key)
        self.go = asyncio.Event()

    async def events(self, after: int, limit: int) -> tuple[int, list[ChainEvent]]:
        await self.go.wait()
        return await super().events(after, limit)


class HeldBooks(SecondBooks):
    """A second core that has gone through the journal up to `until` and takes its time for the rest."""

    def __init__(self, core: RealCore, until: int) -> None:
        super().__init__(core)
        self.is_behind, self.until = False, until

    async def at_cut(self, sequence: int) -> tuple[bytes, np.ndarray]:
        if sequence > self.until:
            self.asked.append(sequence)
            raise Unavailable("the journal ends before it (test)")
        return await super().at_cut(sequence)


async def test_a_skipped_payout_is_never_booked_as_paid_while_a_later_cut_of_the_same_read_waits(
    bench: Bench, owned: Ledgered, node_clock: NodeClock
) -> None:
    """The usual place after a restart: several cuts in one read, the second core is behind at the second of them."""
    core = owned.core
    await _exited(bench, owned, node_clock)
    core.send(op="withdraw", account="user:o", asset="USDC", amount="40", ref="w1")
    core.send(op="cut")
    books = HeldBooks(core, core.head_sequence)
    core.send(op="cut")
    async with bench.settler(core, commands=core, audit=books) as settler:
        await reached(lambda: settler.status()["final_batch"] == 2, "final while cut 3 waits")
        assert settler.netting.skipped == {"w1"} and not settler.netting.paid and books.asked[-1] > books.until
        ops = [command["op"] for command in core.commands if command.get("ref") == "w1"]
        assert ops == ["withdraw_failed"], "nothing was paid"
        books.until = 2**62
        await reached(lambda: owned.balance() == (10 * UNIT, 0) or settler.status()["halted"], "booked")
        await _final(settler, core)
        check_rows(bench, settler)
    async with bench.settler(core, commands=core) as settler:
        await _final(settler, core)
        check_rows(bench, settler)
        assert settler.netting.skipped == {"w1"} and owned.balance() == (10 * UNIT, 0)


async def test_a_batch_that_becomes_final_before_the_follower_reads_it_again_is_finished_once(
    bench: Bench, owned: Ledgered, node_clock: NodeClock
) -> None:
    """Two stored batches after a crash: the submitter is done with the first, and its cut is read while it compares."""
    core = owned.core
    await _exited(bench, owned, node_clock)
    core.send(op="withdraw", account="user:o", asset="USDC", amount="40", ref="w1")
    core.send(op="cut")
    core.send(op="cut")
    await bench.node_down()
    async with bench.settler(core, commands=core) as settler:
        await reached(lambda: settler.status()["pending_batches"] == 2, "stored")
    await bench.node_up()
    reads = core.read
    core.read = lambda limit_slots=65_536: np.zeros(0, dtype=layout.EVENT)  # type: ignore[method-assign]
    async with bench.settler(core, commands=core, chain_type=SlowToCompare) as settler:
        await reached(lambda: 2 in bench.finals(), "final in the store, not compared")
        core.read = reads  # type: ignore[method-assign]
        await reached(lambda: settler.netting.skipped == {"w1"}, "its cut is read")
        assert isinstance(settler._chain, SlowToCompare)
        settler._chain.go.set()
        await reached(lambda: settler.status()["final_batch"] == 3, "both final")
        await reached(lambda: owned.balance() == (10 * UNIT, 0) or settler.status()["halted"], "booked")
        await _final(settler, core)
        check_rows(bench, settler)


async def test_our_own_row_below_zero_halts_until_it_is_paid_in_on_the_chain(bench: Bench, owned: Ledgered) -> None:
    core = owned.core
    core.send(op="account", account="platform:promo", overdraft="forced")
    async with bench.settler(core, commands=core) as settler:
        await _final(settler, core)
        legs = [{"from": "platform:promo", "asset": "USDC", "amount": "5", "to": "user:o"}]
        assert core.send(op="transfer", ref="promo", legs=legs, force=True)["event"] == "transferred"
        core.send(op="cut")
        await reached(lambda: settler.status()["halted"], "halted")
        assert f"row 0x{TREASURY_ROW.hex()} would fall to -{5 * UNIT}" in settler.status()["halted"]
        settler.resume("too early (test)")
        await reached(lambda: len(bench.finals()) == 1 and settler.status()["halted"], "still short")
        await owned.owner.deposit(settler._listings["USDC"], 5 * UNIT - 1, row=TREASURY_ROW)
        await reached(lambda: len(settler._watcher.arrivals) == 1, "seen")
        settler.resume("one unit short (test)")
        await reached(lambda: settler.status()["halted"].endswith("it must be paid in first"), "still short")
        await owned.owner.deposit(settler._listings["USDC"], 3 * UNIT, row=TREASURY_ROW)
        await reached(lambda: len(settler._watcher.arrivals) == 2, "seen")
        settler.resume("paid in on the chain (test)")
        await reached(lambda: settler.status()["final_batch"] == 2, "goes on")
        await _final(settler, core)
        for event in settler._watcher.arrivals:  # the runbook: booked with its own ref, the row as memo
            core.send(
                op="deposit", account="platform:promo", asset="USDC", amount=decimal_text(event.amount, 6),
                ref=deposit_ref(event.digest, event.index), memo=event.owner.hex(),
            )  # fmt: skip
        await _final(settler, core)
        assert not settler.status()["unclaimed_deposits"] and not settler.status()["halted"]
        assert settler.netting.rows["USDC"][TREASURY_ROW] == 3 * UNIT - 1
        check_rows(bench, settler)
