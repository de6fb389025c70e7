"""A withdrawal and a deposit from end to end, with a crash of the back office after every single step it stores.

Real: PostgreSQL and the documents' desk, the core, settlement's log, pysui, LocalSui. Each start of the back office
gets one step further and dies; requests to the core and its answers are lost on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from engine.messages.errors import JournalFailed, Unavailable
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.settler import Settler
from settlement.watcher import Watcher
from tests.integration import test_withdrawals
from tests.integration.test_withdrawals import OTHER, World
from tests.support.chain_key import OPERATOR
from tests.support.settlement_bench import FAST, Bench, CrashingStore, bench, check_rows, reached
from tests.support.sui_owner import Owner

__all__ = ["bench"]

UNIT = 10**6
server, world = test_withdrawals.server, test_withdrawals.world


class BackOffice:
    """Starts, takes at most `steps` stored steps, and is gone; what it did is on disk, on the chain, in the core."""

    def __init__(self, bench: Bench, world: World, rng: random.Random) -> None:
        self.bench, self.world, self.rng, self.starts = bench, world, rng, 0

    async def live(self, steps: int | None, until_batch: int) -> Settler:
        bench, world = self.bench, self.world
        self.starts += 1
        store = CrashingStore(bench.directory / "batches.log", steps)
        chain = SuiChain(SuiSettings(f"http://127.0.0.1:{bench.port}", bench.directory / "pysui"), OPERATOR)
        watcher = Watcher(bench.directory / "chain.log")
        desk = world.desk
        desk._paid.clear()  # what a dead process knew

        def on_batch(record) -> None:  # type: ignore[no-untyped-def]
            bench.records.append(record)
            desk.store_paid(record.number, record.payouts)

        settler = Settler(world.core, chain, store, watcher, FAST, on_batch, world.core, desk)
        stop = asyncio.Event()
        if steps is not None:
            world.core.lose.extend(self.rng.choices(["none", "request", "answer"], k=3))
        task = asyncio.create_task(settler.run(stop))
        await reached(
            lambda: task.done() or settler.status()["halted"] or settler.status()["final_batch"] >= until_batch,
            "a step, or the end",
        )
        assert not settler.status()["halted"], settler.status()["halted"]
        await asyncio.sleep(0.03 if steps is not None else 0.3)  # bookings and what the chain did by itself
        with contextlib.suppress(Unavailable):
            await desk.step()
        stop.set()
        with contextlib.suppress(JournalFailed):
            await task
        await chain.close()
        watcher.close()
        store.close()
        world.core.lose.clear()
        return settler


@pytest.mark.parametrize("seed", range(2))
async def test_money_in_and_out_once_whatever_dies(bench: Bench, world: World, seed: int) -> None:
    rng, core = random.Random(seed), world.core
    office = BackOffice(bench, world, rng)
    owner = await Owner.open(bench.port, bench.directory, f"payer {seed}")
    core.send(op="account", account="user:payer", row="0x" + owner.row.hex())
    first = core.send(op="cut")["batch"]
    await office.live(None, first)

    listing = (await office.live(None, first))._listings["USDC"]
    await owner.deposit(listing, 7 * UNIT)
    await world.data("POST", "/v1/users/me/withdrawal-addresses", json={"address": OTHER})
    await world.sql("UPDATE money.withdrawal_address SET usable_at = now()")
    mine, away, late = await world.ask("40"), await world.ask("10", address=OTHER), await world.ask("5")
    for document in (mine, away):
        await world.confirm(document)
    await world.sql("UPDATE money.withdrawal SET not_before = now() WHERE status = 'confirmed'")
    batch = core.send(op="cut")["batch"]
    while batch not in bench.finals():
        await office.live(1, batch)
    assert office.starts > 5, "sealed, signed, sent, executed"
    for _ in range(3):  # what was paid is booked, the deposit too, and both are in a batch
        batch = core.send(op="cut")["batch"]
        while batch not in bench.finals():
            await office.live(rng.choice([1, 2, None]), batch)
        settler = await office.live(None, batch)
    check_rows(bench, settler)

    reader = SuiChain(SuiSettings(f"http://127.0.0.1:{bench.port}", bench.directory / "reader"), OPERATOR)
    await reader.connect()
    _, events = await reader.events(0, 10**9)
    await reader.close()
    assert sorted(event.amount for event in events if event.kind == "Withdrawn") == [10 * UNIT, 40 * UNIT]
    assert [event.amount for event in events if event.kind == "BatchCommitted"] == list(range(1, batch + 1))
    assert world.balance() == (45 * UNIT, 5 * UNIT) and core.balance("user:payer", "USDC") == (7 * UNIT, 0)
    for document, status in ((mine, "settled"), (away, "settled"), (late, "held")):
        shown = await world.data("GET", f"/v1/withdrawals/{document['id']}")
        assert shown["status"] == status
        if status == "settled":
            assert shown["batch"] == 2 and shown["digest"] in {event.digest for event in events}
    await owner.close()
