"""How long after its cut is a batch final? The whole path: events, ledger, netting, Merkle root, store with fsync,
pysui over gRPC, LocalSui, Move VM; beside the bare Move calls of the same batch in the same run.

Checked before any number: every row on the chain equals the ledger's, the vaults' pools too, and each batch is final
exactly once.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from bench.harness import Row, WrongResult, median, seconds
from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind
from settlement.chain.encoding import address_bytes
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui.contract import Commit, Vault
from settlement.chain.localsui.server import RunningNode, start
from settlement.chain.port import CoinPart
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.settler import BatchRecord, SettlementSettings, Settler
from settlement.store import FileBatchStore
from settlement.watcher import Watcher

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "the network and its consensus (LocalSui is one process on loopback), the core's own cut, the projection"
MUST_MS = 5_000.0
LOT_UNITS, FEE = 10, 2


class _Flow:
    """An EventSource: traders in pairs, two assets, every trader in every batch."""

    def __init__(self, traders: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self._traders, self._sequence, self._batch, self._last_cut = traders, 0, 0, 0
        self._waiting: list[np.ndarray] = []
        for index, name in enumerate(("USDC", "MAYA")):
            asset = self._event(layout.DONE_ASSET, EventKind.DONE, CommandKind.ASSET, market=index)
            asset["name"], asset["scale"], asset["settled"] = name, 6, 1
            self._publish(asset)
        market = self._event(layout.DONE_MARKET, EventKind.DONE, CommandKind.MARKET, slots=2, market=0)
        market["name"], market["base"], market["quote"], market["k"], market["u"] = "MAYA-USDC", 1, 0, 1, LOT_UNITS
        self._publish(market, np.zeros(1, layout.EVENT))
        for index in range(2, traders + 2):
            account = self._event(layout.DONE_ACCOUNT, EventKind.DONE, CommandKind.ACCOUNT, slots=2, account=index)
            account["name"], account["mask"] = f"user:{index}", layout.AccountMask.ROW
            extra = np.zeros(1, layout.DONE_ACCOUNT_EXTRA)
            extra["row"] = np.void(hashlib.sha256(f"{seed}:{index}".encode()).digest())
            self._publish(account, extra)
            for asset_index in (0, 1):
                deposit = self._event(layout.MONEY_EVENT, EventKind.TRANSFERRED, CommandKind.DEPOSIT, slots=2)
                deposit["ref"], deposit["leg_count"] = f"d{index}-{asset_index}", 1
                legs = np.zeros(4, layout.LEG)
                legs[0]["asset"], legs[0]["amount"], legs[0]["target"] = asset_index, 10**12, index
                self._publish(deposit, legs)

    def _event(self, dtype: np.dtype, kind: EventKind, op: CommandKind, **head: int) -> np.ndarray:
        event = np.zeros(1, dtype)
        event["kind"], event["op"], event["slots"] = kind, op, 1
        for name, value in head.items():
            event[name] = value
        return event

    def _publish(self, event: np.ndarray, *extensions: np.ndarray) -> None:
        self._sequence += 1
        event["sequence"], event["ts"] = self._sequence, time.time_ns()
        self._waiting += [event.view(layout.EVENT), *(extension.view(layout.EVENT) for extension in extensions)]

    def trade_and_cut(self) -> None:
        for maker in range(2, self._traders + 2, 2):
            trade = self._event(layout.TRADE, EventKind.TRADE, CommandKind.PLACE, account=maker, market=0)
            size, price = self._rng.randrange(1, 99), self._rng.randrange(1, 999)
            trade["taker_account"], trade["buyer"], trade["size"], trade["price"] = maker + 1, 1, size, price
            trade["notional"], trade["maker_fee"], trade["taker_fee"] = size * price, FEE, FEE
            self._publish(trade)
        self._batch += 1
        cut = self._event(layout.CUT, EventKind.CUT, CommandKind.CUT)
        cut["batch"], cut["first_sequence"], cut["last_sequence"] = self._batch, self._last_cut + 1, self._sequence + 1
        self._last_cut = self._sequence + 1
        self._publish(cut)

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        waiting, self._waiting = self._waiting, []
        return np.concatenate(waiting) if waiting else np.zeros(0, layout.EVENT)

    @property
    def head_sequence(self) -> int:
        return self._sequence


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of `cut_to_final_ms` (median and worst) for batches of about 10, 100 and 400 entries."""
    rows: list[Row] = []
    for entries in (10,) if smoke else (10, 100, 400):
        rows += asyncio.run(_case(entries, 3 if smoke else 12, seed))
    return rows


async def _case(entries: int, batches: int, seed: int) -> list[Row]:
    flow = _Flow(entries // 4 * 2, seed)
    records: dict[int, BatchRecord] = {}
    finals: list[int] = []

    def on_batch(record: BatchRecord) -> None:
        records[record.number] = record
        if record.status == "final":
            finals.append(record.number)

    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        key = OperatorKey(hashlib.sha256(b"operator of the bench").digest())
        node = await start(directory, key.address)
        chain = SuiChain(SuiSettings(f"http://127.0.0.1:{node.port}", directory / "pysui"), key)
        store = FileBatchStore(directory / "batches.log")
        watcher = Watcher(directory / "chain.log")
        settler = Settler(flow, chain, store, watcher, SettlementSettings(poll_interval_s=0.005), on_batch)
        stop = asyncio.Event()
        task = asyncio.create_task(settler.run(stop))
        try:
            for number in range(1, batches + 2):
                flow.trade_and_cut()
                while settler.status()["final_batch"] < number:
                    if task.done() or settler.status()["halted"]:
                        raise WrongResult(settler.status()["halted"] or "the settler ended")
                    await asyncio.sleep(0.002)
            _check(settler, node, finals, batches + 1)
            bare_ms = median([_bare(settler, node) * 1e3 for _ in range(5)])
        finally:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)
            await chain.close()
            await node.close()
            watcher.close()
            store.close()
        executor = node.node.executor_name
    # The first batch opens the vaults and carries the deposits; it is left out of the times.
    times = [(records[n].final_ts - records[n].cut_ts) / 1e6 for n in range(2, batches + 2)]
    case = f"{records[2].row_count} entries, 2 vaults, {executor}"
    middle, worst = median(times), max(times)
    return [
        Row(case, "cut_to_final_median", middle, "ms", bare_ms, middle / bare_ms, MUST_MS, middle <= MUST_MS),
        Row(case, "cut_to_final_worst", worst, "ms", bare_ms, worst / bare_ms, MUST_MS, worst <= MUST_MS),
        Row(case, "bare_move_calls", bare_ms, "ms"),
    ]


def _check(settler: Settler, node: RunningNode, finals: list[int], count: int) -> None:
    if finals != list(range(1, count + 1)):
        raise WrongResult(f"final batches {finals}")
    for asset, vault_id in settler.status()["vaults"].items():
        vault = node.node.state.vaults[address_bytes(vault_id)]
        expected = {row: amount for row, amount in settler.netting.rows[asset].items() if amount}
        if {row: amount for row, amount in vault.balances.items() if amount} != expected:
            raise WrongResult(f"rows of {asset} differ between chain and ledger")
        if vault.header.pool != sum(expected.values()):
            raise WrongResult(f"pool of {asset}")


def _bare(settler: Settler, node: RunningNode) -> float:
    """Seconds of the executor's calls alone, for entries like the last batch's, over the same vaults."""
    total = 0.0
    for asset, vault_id in settler.status()["vaults"].items():
        vault = node.node.state.vaults[address_bytes(vault_id)]
        coin = CoinPart(asset, vault.header.chain, _zero_sum(vault))
        operation = Commit(
            vault.header.operator, vault.header.next_seq, 0, 1, coin.previous, bytes(32), 0, bytes(32),
            tuple(row for row, _ in coin.entries), tuple(abs(amount) for _, amount in coin.entries),
            tuple(amount < 0 for _, amount in coin.entries), 1,
        )  # fmt: skip
        total += seconds(partial(node.node.state.executor.run, operation, vault))
    return total


def _zero_sum(vault: Vault) -> list[tuple[bytes, int]]:
    rows = sorted(row for row, amount in vault.balances.items() if amount)
    half = len(rows) // 2
    return [(row, -1) for row in rows[:half]] + [(row, 1) for row in rows[half : 2 * half]]
