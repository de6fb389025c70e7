"""Settlement beside a backup: nothing is on the chain that a lost machine could take out of the books."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byline.backup_gate import BackupGate
from persistence.backup import Objects, Shipper
from persistence.event_log import EventLogReader
from persistence.recovery import Recovered, recover
from persistence.restore import restore
from persistence.shipped import Shipped
from settlement import netting
from settlement.batch import Life, SignedPart, StoredEvent
from settlement.chain.port import Execution, Signed
from settlement.chain.sui import SuiChain
from settlement.settler import Settler
from settlement.store import FileBatchStore
from tests.faults.audit import Audit, check_chain_in_backup
from tests.support.real_core import RealCore
from tests.support.settlement_bench import Bench, check_rows, reached
from tests.unit.persistence.test_recovery import SETTINGS


class Journaled:
    """A core whose commands are in its journal before anybody hears of them."""

    def __init__(self, recovered: Recovered) -> None:
        self._recovered, self._core = recovered, recovered.core

    def apply(self, record: bytearray) -> np.ndarray:
        made: np.ndarray = self._core.apply(record)
        self._recovered.journal.append_all(bytearray(record))
        self._recovered.journal.publish()
        self._recovered.journal.wait_durable(self._core.sequence)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


class Machine:
    """A data directory, its journal, and a shipper to a `file:` store that ships when it is told to."""

    def __init__(self, data: Path, store: Path) -> None:
        self.data, self.url = data, store.as_uri()
        (data / "settlement").mkdir(parents=True, exist_ok=True)
        self.recovered = recover(data, settings=SETTINGS)
        self.bench = Bench(data / "settlement")
        self.core = RealCore()
        self.core.core = Journaled(self.recovered)  # type: ignore[assignment]
        identity = EventLogReader(data / "events").identity
        self.gate = BackupGate(data, Shipped(data, self._opened, identity), look_s=0.01, told_s=0.05)
        self.shipper = Shipper(data, Objects(self.url))

    def _opened(self) -> Objects:
        return Objects(self.url, make_directory=False)

    def ship(self) -> None:
        """All that is durable, and the files beside it."""
        self.shipper.step()
        while self.shipper.sequence < self.core.core.sequence:
            self.shipper.step()

    def restored(self, directory: Path) -> tuple[int, list[StoredEvent]]:
        """If this machine were lost now: the last record that is left, and the steps of settlement."""
        found = restore(Objects(self.url), directory)
        store = FileBatchStore(directory / "settlement" / "batches.log")
        events = [event for _, event in store.events()]
        store.close()
        return found.sequence, events


async def payments(settler: Settler) -> list[tuple[str, int]]:
    """What the vaults did, in order."""
    _, events = await settler._chain.events(0, 10**9)
    return [(event.kind, event.amount) for event in events if event.kind in ("BatchCommitted", "Withdrawn")]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path / "data", tmp_path / "store")
    await made.bench.node_up()
    core = made.core
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    core.send(op="account", account="user:o", row="0x" + "0a" * 32)
    core.send(op="deposit", account="user:o", asset="USDC", amount="100", ref="d1")
    yield made
    if made.bench.node:
        await made.bench.node_down()
    made.recovered.close()


async def test_what_is_paid_on_the_chain_is_in_the_backup_before(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    core, bench = machine.core, machine.bench
    caplog.set_level("INFO", "byline.backup_gate")
    core.send(op="withdraw", account="user:o", asset="USDC", amount="40", ref="w1")
    core.send(op="cut")
    async with bench.settler(core, commands=core, backup=machine.gate) as settler:
        told = "settlement=backup_waits sequence="
        await reached(lambda: told in caplog.text or settler.status()["final_batch"], "told of, or paid at once")
        assert f"{told}5 " in caplog.text and caplog.text.count(told) == 1, "it waits for the batch's last command"
        assert "the backup has nothing of this exchange yet" in settler.status()["backup_waits"]
        assert settler.status()["vaults"] == settler.status()["coins"] == {}, "nobody pays into what may be forgotten"
        assert machine.gate.waits_s > 0 and await payments(settler) == []
        machine.shipper.start()
        core.send(op="cut")  # trading goes on, and is cut
        await reached(lambda: settler.status()["pending_batches"] == 2, "the second is sealed")
        assert await payments(settler) == [], "a shipper that has begun has not shipped"
        machine.ship()
        await reached(lambda: settler.status()["recent"][0]["status"] == "signed", "its listing is in the backup")
        assert settler.status()["vaults"]
        machine.ship()
        await reached(lambda: core.balance("user:o", "USDC") == (60_000_000, 0), "paid and booked")
        await reached(lambda: settler.status()["backup_waits"], "the second waits for its own bytes")
        assert settler.status()["final_batch"] == 1
        assert await payments(settler) == [("BatchCommitted", 1), ("Withdrawn", 40_000_000)]
        assert "settlement=backup_has sequence=5 " in caplog.text
    machine.recovered.close()

    sequence, events = machine.restored(tmp_path / "new")  # the machine is lost, with all since that one look
    assert sequence == 6 and (tmp_path / "new" / "settlement" / "chain.log").exists()
    assert [event.number for event in events if isinstance(event, SignedPart)] == [1]
    again = Machine(tmp_path / "new", tmp_path / "store")
    again.bench.node, again.bench.port = bench.node, bench.port
    back = copy.copy(core)  # it knows the names that the restored events tell
    back.core, back.slots, back._read = again.core.core, [EventLogReader(again.data / "events").read()], 0
    assert back.balance("user:o", "USDC") == (60_000_000, 40_000_000), "not booked yet, as far as the books go"
    again.core = back
    again.shipper.start()
    async with again.bench.settler(back, commands=back, backup=again.gate) as settler:

        def shipped(batch: int) -> bool:
            again.ship()
            return bool(settler.status()["final_batch"] == batch or settler.status()["halted"])

        await reached(lambda: shipped(2), "what was on the chain is found there, the rest follows")
        assert settler.status()["halted"] == "" and back.balance("user:o", "USDC") == (60_000_000, 0)
        back.send(op="cut")
        await reached(lambda: shipped(3), "and it goes on")
        check_rows(again.bench, settler)
        done = await payments(settler)
        assert done == [("BatchCommitted", 1), ("Withdrawn", 40_000_000), ("BatchCommitted", 2), ("BatchCommitted", 3)]
    (tmp_path / "store").rename(tmp_path / "away")
    async with again.bench.settler(back, commands=back, backup=again.gate) as settler:
        await reached(lambda: settler.settled_batch, "loaded again, without the store")
        assert settler.status()["vaults"], "deposits into a vault that the backup has go on"
    again.recovered.close()


async def _waits_at_first(settler: Settler, life: Life) -> None:
    """A gate that only the first bytes of a batch wait at."""
    if life.part == 0 and len(life.digests) == 1:
        await _WAIT(settler, life)


async def _waits_of_parts(settler: Settler, life: Life) -> None:
    """A gate that bytes signed anew pass."""
    if len(life.digests) == 1:
        await _WAIT(settler, life)


_WAIT = Settler._wait_for_backup


@pytest.mark.parametrize(
    ("gate", "unkept"), [(_WAIT, []), (_waits_at_first, [1, 2, 3, 4]), (_waits_of_parts, [1, 3])]
)  # fmt: skip
async def test_every_part_and_bytes_signed_anew_are_in_the_backup_before_they_are_sent(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Any, unkept: list[int]
) -> None:
    """At each send the store is restored: it has the cut, and all bytes that were signed up to these. Two gates that
    let some through are told."""
    core, bench = machine.core, machine.bench
    sends, signings_before = list[tuple[int, bool]](), list[Signed]()
    monkeypatch.setattr(netting, "ROWS_PER_PART", 4)
    monkeypatch.setattr(Settler, "_wait_for_backup", gate)

    class Recording(SuiChain):
        async def send(self, signed: Signed) -> Execution:
            life = settler._lives[settler._queue[0]]
            if life.signed != signed:
                return await super().send(signed)  # it opens the vault: of no batch
            sequence, events = machine.restored(tmp_path / f"lost-{len(sends)}")
            signings = [event.signed for event in events if isinstance(event, SignedPart)]
            sends.append((life.part, sequence >= life.batch.last_sequence and signings == [*signings_before, signed]))
            signings_before.append(signed)
            if len(sends) in (1, 3):
                bench.node.faults.next_execute.append("refuse_once")
                bench.node.node.next_epoch()  # else the bytes signed anew would be the same
            return await super().send(signed)

    for name in "abcd":
        core.send(op="account", account=f"user:{name}", row="0x" + f"{name}0" * 32)
        core.send(op="deposit", account=f"user:{name}", asset="USDC", amount="10", ref=f"d{name}")
    core.send(op="withdraw", account="user:o", asset="USDC", amount="40", ref="w1")
    core.send(op="cut")
    assert bench.node is not None
    machine.shipper.start()
    async with bench.settler(core, commands=core, backup=machine.gate, chain_type=Recording) as settler:

        def final() -> bool:
            if settler.status()["backup_waits"]:  # it ships when it is waited for, and never by chance
                machine.ship()
            return bool(settler.status()["final_batch"] == 1)

        await reached(final, "final")
        check_rows(bench, settler)
    assert [part for part, _ in sends] == [0, 0, 1, 1, 2] and len(set(signings_before)) == 5
    assert [place for place, (_, is_kept) in enumerate(sends) if not is_kept] == unkept
    await bench.node_down()
    found = Audit()
    assert check_chain_in_backup(bench.directory / "chain", machine.url, tmp_path / "dead", found) == 3
    assert len(found.failures) == (3 if gate is _waits_at_first else 0), "what audits the kills sees it too"


async def test_a_batch_that_waits_for_the_backup_is_not_sent_once_settlement_has_halted(machine: Machine) -> None:
    core = machine.core
    core.send(op="cut")
    machine.shipper.start()
    async with machine.bench.settler(core, backup=machine.gate) as settler:
        await reached(lambda: settler.status()["backup_waits"], "the first waits")
        await settler._halt(None, "a test says so")
        machine.ship()
        await reached(lambda: not settler.status()["backup_waits"], "the backup has it")
        await asyncio.sleep(0.1)
        assert await payments(settler) == []
        settler.resume("looked at")
        await reached(lambda: machine.ship() or settler.status()["final_batch"] == 1, "goes on")
        assert await payments(settler) == [("BatchCommitted", 1)]


async def test_a_store_that_hangs_is_told_of_while_it_hangs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = asyncio.Event()

    class Hanging(Objects):
        async def fetch(self, key: str) -> bytes:
            await answers.wait()
            return await super().fetch(key)

    recovered = recover(tmp_path, settings=SETTINGS)
    (tmp_path / "settlement").mkdir()
    (tmp_path / "settlement" / "batches.log").write_bytes(b"signed")
    objects = Hanging((tmp_path / "store").as_uri())
    identity = EventLogReader(tmp_path / "events").identity
    gate = BackupGate(tmp_path, Shipped(tmp_path, lambda: objects, identity), look_s=0.01, told_s=0.05)
    caplog.set_level("INFO", "byline.backup_gate")
    waiting = asyncio.create_task(gate.wait(0))
    told = "settlement=backup_waits sequence=0 reason=the backup's store has not answered yet"
    await reached(lambda: told in caplog.text, "told of, while its only request is under way")
    shipper = Shipper(tmp_path, objects)
    shipper.start()
    shipper.step()
    answers.set()
    await waiting
    assert "settlement=backup_has sequence=0 " in caplog.text and not gate.waits
    recovered.close()
