"""What a start of the back office tells again of settled batches, over a real PostgreSQL: all that is missing there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from byline.journal_publication import keep_batch_file, kept_batch_file, kept_batches
from byline.processes import office_ports
from byline.processes.office_ports import batch_row, known_batches
from persistence.stores.postgres.projector import Projector, ProjectorSettings
from platform_api.database import Database
from platform_api.settlement.desk import WithdrawalDesk
from settlement.settler import _NAMED, BatchRecord, SettlementSettings, Settler
from settlement.store import FileBatchStore
from settlement.watcher import Watcher
from tests.integration import test_withdrawals
from tests.integration.test_projector_balances import Log
from tests.integration.test_withdrawals import World
from tests.support.real_core import RealCore
from tests.support.waiting import HANG_S, until
from tests.unit.settlement.test_start import settled, write_store

server, world = test_withdrawals.server, test_withdrawals.world

OLD = 10
COUNT = OLD + _NAMED
LATEST = list(range(OLD + 1, COUNT + 1))
FAST = ProjectorSettings(retry_s=0.05)


class Office:
    """The parts of the back office that store batches, with a dead chain: what they tell comes of their store alone."""

    def __init__(self, world: World, directory: Path, refs: dict[int, str]) -> None:
        self.world, self.directory = world, directory
        self.log = Log()
        self.log.head_sequence = 5
        self.request = directory / "projection.rebuild"
        write_store(directory / "batches.log", settled(COUNT, refs))

    def projector(self, dsn: str) -> Projector:
        return Projector(self.log, dsn, FAST, rebuild=self.request)

    async def start(self, *, dsn: str = "", dies_before_payouts: bool = False) -> list[int]:
        """The numbers that were told, once all of them are where they belong."""
        world, told = self.world, []
        database, stop = Database(dsn or world.server.dsn), asyncio.Event()
        await database.open()
        projector, desk = self.projector(dsn or world.server.dsn), WithdrawalDesk(database, world.core)

        def on_batch(record: BatchRecord) -> None:
            told.append(record.number)
            projector.store_batch(batch_row(record))
            keep_batch_file(self.directory, record.number, record.file)
            desk.store_paid(record.number, record.payouts)

        store, watcher = FileBatchStore(self.directory / "batches.log"), Watcher(self.directory / "chain.log")
        settler = Settler(
            RealCore(), None, store, watcher, SettlementSettings(), on_batch,
            known=lambda: known_batches(projector, desk, self.directory),
        )  # fmt: skip
        task = asyncio.create_task(projector.run(stop))
        await settler._load(stop)
        if not dsn:
            await until(lambda: not projector._batches, what="the rows")
            if not dies_before_payouts:
                await desk.step()
        stop.set()
        await task
        for part in (store, watcher):
            part.close()
        await database.close()
        return told

    async def rows(self) -> Sequence[tuple[int, str]]:
        rows = await self.world.sql("SELECT number, status FROM settlement.batch WHERE file IS NOT NULL ORDER BY 1")
        return [(row["number"], row["status"]) for row in rows]

    async def is_whole(self) -> bool:
        numbers = range(1, COUNT + 1)
        return await self.rows() == [(n, "final") for n in numbers] and kept_batches(self.directory) == set(numbers)


async def test_a_start_tells_what_is_missing_and_no_more(world: World, tmp_path: Path) -> None:
    document = await world.ask()
    await world.confirm(document)
    await world.desk.released([document["ref"]])
    office = Office(world, tmp_path, {3: document["ref"]})

    assert await office.start(dies_before_payouts=True) == list(range(1, COUNT + 1)) and await office.is_whole()
    assert await world.status(document) == "released"
    assert await office.start() == [3, *LATEST], "the row and the file were there, the payout was not"
    shown = await world.data("GET", f"/v1/withdrawals/{document['id']}")
    assert (shown["status"], shown["batch"], shown["digest"]) == ("settled", 3, "digest3")
    assert await office.start() == LATEST

    file = kept_batch_file(tmp_path, 2)
    (tmp_path / "settlement" / "batches" / f"{2:010d}.json").unlink()
    assert await office.start() == [2, *LATEST] and kept_batch_file(tmp_path, 2) == file and await office.is_whole()

    await world.sql("DELETE FROM settlement.batch WHERE number = 4")
    assert await office.start() == [*range(4, OLD + 1), *LATEST] and await office.is_whole()
    await world.sql("UPDATE settlement.batch SET status = 'submitted' WHERE number = 7")
    assert await office.start() == [*range(7, OLD + 1), *LATEST] and await office.is_whole()
    await world.sql("DELETE FROM settlement.batch WHERE number > 5")  # as a database restored to a while ago has it
    assert await office.start() == [*range(6, OLD + 1), *LATEST] and await office.is_whole()

    office.request.touch()
    assert await office.start() == list(range(1, COUNT + 1)) and await office.is_whole()
    assert not office.request.exists() and await office.start() == LATEST


async def test_without_a_database_all_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(office_ports, "PROJECTION_WAIT_S", 0.05)
    office = Office(world, tmp_path, {})
    assert await office.start(dsn="postgresql:///nothing?host=/nonexistent") == list(range(1, COUNT + 1))
    assert "event=batches_told_again" in caplog.text


@pytest.mark.parametrize("loss", ["restored", "rebuild"])
async def test_rows_that_go_behind_the_answer_end_the_process(world: World, tmp_path: Path, loss: str) -> None:
    """It has not told what they had, and written nothing itself yet: the next start asks anew."""
    office = Office(world, tmp_path, {})
    await world.sql("DELETE FROM exchange.projection")
    await office.start()
    projector = office.projector(world.server.dsn)
    await projector._connect()
    assert projector.final_batches == COUNT
    await projector.close()
    if loss == "rebuild":
        office.request.touch()
    else:
        await world.sql("DELETE FROM settlement.batch WHERE number > 5")
        await world.sql("UPDATE exchange.projection SET sequence = 2")
    await asyncio.wait_for(projector.run(asyncio.Event()), HANG_S)
    missing = list(range(1 if loss == "rebuild" else 6, OLD + 1))
    assert await office.start() == [*missing, *LATEST] and await office.is_whole()
