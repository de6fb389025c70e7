"""A start behind final batches goes on as one that never ended: same rows and proofs, same resend, same next batch."""

from __future__ import annotations

import asyncio
import gc
import shutil
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.messages import layout
from engine.messages.errors import JournalCorrupt
from settlement.batch import Listed, PartExecuted, Sealed, Sent, SignedPart, State, StoredEvent
from settlement.chain.port import Execution, Signed
from settlement.netting import Batch
from settlement.settler import BatchRecord, SettlementSettings, Settler
from settlement.store import FileBatchStore
from settlement.watcher import Watcher
from tests.support.real_core import RealCore
from tests.support.waiting import until
from tests.unit.settlement.test_start import COUNT, LISTING, World, settled, write_store

CUTS, FINAL, SKIPPED = 12, 9, 5
"""So many batches, so many of them final; the contract skipped the payout of one. Number 10 is sent, 11 and 12 wait."""
ROWS = {"user:a": b"\xa1" * 32, "user:b": b"\xb2" * 32}
SETTINGS = SettlementSettings(poll_interval_s=0.001)


class Events:
    """An EventSource for one more reader of a core."""

    def __init__(self, core: RealCore) -> None:
        self._core, self._read = core, 0

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0
        self._read = 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        news, self._read = self._core.slots[self._read :], len(self._core.slots)
        return np.concatenate(news) if news else np.zeros(0, dtype=layout.EVENT)

    @property
    def head_sequence(self) -> int:
        return self._core.head_sequence


class Life:
    """One settler's: it reads its store and follows the cuts. It has no chain, so by itself nothing gets final."""

    def __init__(self, core: RealCore, directory: Path) -> None:
        self.store, self.watcher = FileBatchStore(directory / "batches.log"), Watcher(directory / "chain.log")
        self.records: list[BatchRecord] = []
        source, chain, self.stop = Events(core), None, asyncio.Event()
        self.settler = Settler(source, chain, self.store, self.watcher, SETTINGS, self.records.append, core)
        self.following: asyncio.Task[None] | None = None

    async def passes(self, cut: int) -> None:
        if self.following is None:
            await self.settler._load(self.stop)
            self.following = asyncio.create_task(self.settler._follow(self.stop))
        is_over = self.following.done
        await until(lambda: self.settler._taken == cut or self.settler.status()["halted"] or is_over())

    async def end(self) -> None:
        self.stop.set()
        if self.following is not None:
            await asyncio.gather(self.following, return_exceptions=True)
        self.watcher.close()
        self.store.close()

    def shown(self) -> dict[str, Any]:
        netting, accounts = self.settler.netting, ROWS
        return {
            "rows": netting.rows, "chain": netting.chain, "paid": netting.paid, "kept": netting.kept,
            "beside": netting.beside, "skipped": netting.skipped, "halted": self.settler.status()["halted"],
            "proofs": [netting.liabilities.prove(n, each) for n in range(1, CUTS + 1) for each in accounts],
        }  # fmt: skip

    def next_batch(self) -> Batch:
        *_, (_, last) = self.store.events()
        assert isinstance(last, Sealed)
        return msgspec.structs.replace(last.batch, sealed_ts=0)


class Exchange:
    def __init__(self, directory: Path) -> None:
        self.core, self.directory, self.lives = RealCore(), directory, list[Life]()
        self.core.send(op="asset", asset="USDC", scale=6, settled=True)
        for account, row in ROWS.items():
            self.core.send(op="account", account=account, row="0x" + row.hex())
            self.core.send(op="deposit", account=account, asset="USDC", amount="100", ref=f"to-{account}")

    def cut(self, number: int) -> None:
        """Something else is moved and paid out each time: no batch is like another."""
        legs = [{"from": "user:a", "asset": "USDC", "amount": str(number), "to": "user:b"}]
        self.core.send(op="transfer", ref=f"move-{number}", legs=legs)
        self.core.send(op="withdraw", account="user:b", asset="USDC", amount="1", ref=f"w-{number}")
        self.core.send(op="cut")

    def begin(self, name: str) -> Life:
        (self.directory / name).mkdir(exist_ok=True)
        self.lives.append(Life(self.core, self.directory / name))
        return self.lives[-1]

    def restart(self, name: str) -> Life:
        """Another settler over a copy of what the first has stored."""
        (self.directory / name).mkdir()
        shutil.copy(self.directory / "whole" / "batches.log", self.directory / name)
        return self.begin(name)


def _driven(number: int) -> list[StoredEvent]:
    signed = Signed(b"raw%d" % number, b"signature", f"digest{number}")
    done = Execution(signed.digest, True, None, "", 9, number, skipped=[0] if number == SKIPPED else [])
    return [SignedPart(2, number, signed), Sent(3, number), PartExecuted(4, number, done)]


@pytest.fixture
async def exchange(tmp_path: Path) -> AsyncIterator[Exchange]:
    """With one settler that has sealed all batches and never ended; its submitter's part is done by hand."""
    exchange = Exchange(tmp_path)
    for number in range(1, CUTS + 1):
        exchange.cut(number)
    whole = exchange.begin("whole")
    await whole.passes(CUTS)
    whole.store.append(Listed(1, LISTING))
    for number in range(1, FINAL + 1):
        for event in _driven(number):
            whole.store.append(event)
    for event in _driven(FINAL + 1)[:2]:
        whole.store.append(event)
    skipped = whole.settler._lives[SKIPPED].batch.parts[0].coins[0].payouts
    whole.settler.netting.skip(("USDC", payout) for payout in skipped)
    yield exchange
    for life in exchange.lives:
        await life.end()


async def test_it_goes_on_as_one_that_never_ended(exchange: Exchange) -> None:
    whole, again = exchange.lives[0], exchange.restart("again")
    await again.passes(CUTS)
    assert again.shown() == whole.shown() and again.shown()["skipped"] == {f"w-{SKIPPED}"}
    assert again.settler._beside == {"USDC": 10**6}, "what the vault still has of it"

    statuses = [(record.number, record.status) for record in again.records]
    assert statuses == [*((n, "final") for n in range(1, 10)), (10, "submitted"), (11, "sealed"), (12, "sealed")]
    assert [record.payouts for record in again.records[:FINAL]] == [
        [(f"w-{n}", f"digest{n}", n == SKIPPED)] for n in range(1, FINAL + 1)
    ]
    assert list(again.settler._queue) == list(again.settler._lives) == [10, 11, 12]
    sent = again.settler._lives[10]
    assert (sent.state, sent.signed) == (State.SUBMITTED, Signed(b"raw10", b"signature", "digest10")), "the same bytes"

    exchange.cut(CUTS + 1)
    for life in (whole, again):
        await life.passes(CUTS + 1)
    assert again.next_batch() == whole.next_batch() and again.next_batch().number == CUTS + 1


@pytest.mark.parametrize("shift", [1, -1])
async def test_a_place_that_is_another_batchs_halts(exchange: Exchange, shift: int) -> None:
    again = exchange.restart("again")
    await again.settler._load(again.stop)
    places = again.settler._past._places
    again.settler._past._places = array("q", np.roll(places, shift).tolist())
    again.following = asyncio.create_task(again.settler._follow(again.stop))
    await until(lambda: again.settler._taken == CUTS or again.settler.status()["halted"])
    assert again.settler.status()["halted"] == "batch 1 is stored with other sequences, state hash or trades"


async def test_a_place_where_no_batch_is_ends_it(exchange: Exchange) -> None:
    """What the disk has lost under a running settler is told of at the cut that needs it; the next start refuses it."""
    path = exchange.directory / "again" / "batches.log"
    again = exchange.restart("again")
    await again.settler._load(again.stop)
    place = again.settler._past._places[3]
    with path.open("r+b") as file:
        file.seek(place + 100)
        file.write(b"\xff\xff")
    following = again.following = asyncio.create_task(again.settler._follow(again.stop))
    await until(following.done)
    assert isinstance(following.exception(), JournalCorrupt) and again.settler._taken == 3
    again.watcher.close()
    again.store.close()
    with pytest.raises(JournalCorrupt, match="records follow"):
        FileBatchStore(path)


async def test_final_batches_are_held_as_places(tmp_path: Path) -> None:
    world = World(tmp_path)
    write_store(world.path, settled(COUNT))
    settler = world.settler()
    others = {id(each) for each in gc.get_objects() if isinstance(each, Batch)}
    await settler._load(world.stop)
    held = [each for each in gc.get_objects() if isinstance(each, Batch) and id(each) not in others]
    assert settler.settled_batch == COUNT and held == [] and settler._past._places.itemsize == 8
    world.close()
    world.watcher.close()
