"""A settler over a real LocalSui in one data directory: settlers and nodes come and go, crash and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core import BALANCES
from engine.messages.errors import JournalFailed, Unavailable
from settlement.audit import AuditPort
from settlement.batch import StoredEvent
from settlement.chain.localsui.server import RunningNode, start
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.ledger import Ledger
from settlement.settler import BackupPort, BatchRecord, SettlementSettings, Settler
from settlement.store import FileBatchStore
from settlement.watcher import Watcher
from tests.support.chain_key import OPERATOR
from tests.support.real_core import RealCore
from tests.support.settlement_events import EventLog
from tests.support.waiting import until

__all__ = ["FAST", "MARKET", "Bench", "CrashingStore", "SecondBooks", "bench", "check_rows", "opened_market", "reached"]

FAST = SettlementSettings(poll_interval_s=0.005, watch_interval_s=0.01, retry_first_s=0.02, retry_most_s=0.05)
MARKET = (0, 1, 0, 10)


def opened_market() -> tuple[EventLog, int, int]:
    """MAYA for USDC, and a buyer and a seller who have paid in: their numbers."""
    log = EventLog()
    usdc, maya = log.asset("USDC"), log.asset("MAYA")
    log.market(0, maya, usdc, 10)
    buyer, seller = log.account("user:buyer", row=b"\xa1" * 32), log.account("user:seller", row=b"\xb2" * 32)
    log.deposit(buyer, usdc, 100_000)
    log.deposit(seller, maya, 100_000)
    return log, buyer, seller


class Bench:
    """One data directory; settlers and nodes come and go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.node: RunningNode | None = None
        self.records: list[BatchRecord] = []

    async def node_up(self) -> None:
        self.node = await start(self.directory / "chain", OPERATOR.address, port=self.port, executor="model")
        self.port = self.node.port

    async def node_down(self) -> None:
        assert self.node is not None
        await self.node.close()
        self.node = None

    @contextlib.asynccontextmanager
    async def settler(
        self, log: EventLog | RealCore, *, crash_after: int | None = None, commands: Any = None,
        chain_type: type[SuiChain] = SuiChain, audit: AuditPort | None = None, backup: BackupPort | None = None,
    ) -> AsyncIterator[Settler]:  # fmt: skip
        url = f"http://127.0.0.1:{self.port}"
        chain = chain_type(SuiSettings(url, self.directory / "pysui", timeout_s=5.0), OPERATOR)
        store = CrashingStore(self.directory / "batches.log", crash_after)
        watcher = Watcher(self.directory / "chain.log")
        stop = asyncio.Event()
        settler = Settler(log, chain, store, watcher, FAST, self.records.append, commands, audit=audit, backup=backup)
        task = asyncio.create_task(settler.run(stop))
        try:
            yield settler
        finally:
            stop.set()
            with contextlib.suppress(JournalFailed):
                await task
            await chain.close()
            watcher.close()
            store.close()

    def finals(self) -> list[int]:
        return list(dict.fromkeys(record.number for record in self.records if record.status == "final"))


class CrashingStore(FileBatchStore):
    """Fails for good before its nth event is stored: what the disk holds is what a crash there would leave."""

    def __init__(self, path: Path, crash_after: int | None) -> None:
        super().__init__(path)
        self._left = crash_after

    def append(self, event: StoredEvent) -> None:
        if self._left is not None:
            if self._left == 0:
                raise JournalFailed("crash (test)")
            self._left -= 1
        super().append(event)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.node_up()
    yield bench
    if bench.node:
        await bench.node_down()


async def reached(condition: Callable[[], Any], what: str) -> None:
    await until(condition, what=what)


def check_rows(bench: Bench, settler: Settler) -> None:
    """Every row on the chain is what the ledger's accounts of that row hold."""
    assert bench.node is not None
    for vault in bench.node.node.state.vaults.values():
        names = [a for a, v in settler.status()["vaults"].items() if v == "0x" + vault.header.id.hex()]
        if names:
            expected = {row: amount for row, amount in settler.netting.rows[names[0]].items() if amount}
            assert {row: amount for row, amount in vault.balances.items() if amount} == expected
            assert vault.header.pool == sum(expected.values())


class SecondBooks:
    """An audit of what these events say, as a core would keep it; `change` is what its memory got wrong."""

    def __init__(self, log: EventLog | RealCore) -> None:
        self.log, self.change, self.is_behind = log, 0, True
        self.asked: list[int] = []

    async def at_cut(self, sequence: int) -> tuple[bytes, np.ndarray]:
        self.asked.append(sequence)
        if self.is_behind:
            raise Unavailable("the journal ends before it (test)")
        ledger = Ledger()
        for cut in ledger.feed(np.concatenate(self.log.slots)):
            if cut.last_sequence == sequence:
                rows = [
                    (account, asset, ledger.total(account, asset) + self.change * (account == 2), 0)
                    for account in range(len(ledger.accounts))
                    for asset in range(len(ledger.assets))
                ]
                return cut.state_hash, np.array(rows, BALANCES)
            ledger.start_period()
        raise AssertionError(sequence)
