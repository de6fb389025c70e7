"""How long after its cut is a batch final? The whole path: events, ledger, netting, Merkle root, store with fsync,
pysui over gRPC, LocalSui, Move VM; beside the bare Move calls of the same batch in the same run. Then the rows of
`settlement_faults` and `bench_proofs`. `--only NAME` runs one case.

Checked before any number: every row on the chain equals the ledger's, the vaults' pools too, and each batch is final
exactly once.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

import typer

from bench import bench_proofs, settlement_faults
from bench.harness import Row, median, seconds
from settlement.chain.encoding import address_bytes
from settlement.chain.localsui.contract import Commit, Vault
from settlement.chain.localsui.server import RunningNode
from settlement.chain.port import CoinPart
from settlement.settler import SettlementSettings, Settler

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "the network and its consensus (LocalSui is one process on loopback), the core's own cut, the projection"
MUST_MS = 5_000.0


def run(
    smoke: bool,
    seed: int,
    only: Annotated[
        str | None, "Only these rows, by comma: latency, netting, lossy, faults, outage, proofs. All if not given."
    ] = None,
) -> list[Row]:
    """The rows of every case, or of those named."""
    cases = {"latency": _latency, **settlement_faults.CASES, "proofs": bench_proofs.run}
    names = list(cases) if only is None else only.split(",")
    if unknown := sorted(set(names) - set(cases)):
        raise typer.BadParameter(f"there is no case {', '.join(unknown)}; there are {', '.join(cases)}")
    with settlement_faults.quietly():
        return [row for name in names for row in cases[name](smoke, seed)]


def _latency(smoke: bool, seed: int) -> list[Row]:
    """Cut to final (median and worst) for batches of about 10, 100 and 400 entries."""
    rows: list[Row] = []
    for entries in (10,) if smoke else (10, 100, 400):
        rows += asyncio.run(_case(entries, 3 if smoke else 12, seed))
    return rows


async def _case(entries: int, batches: int, seed: int) -> list[Row]:
    settings = SettlementSettings(poll_interval_s=0.005)
    async with settlement_faults.world(entries // 4 * 2, seed, settings) as here:
        for number in range(1, batches + 2):
            here.flow.trade_and_cut()
            await here.until(number)
        await here.check(batches + 1)
        bare_ms = median([_bare(here.settler, here.node) * 1e3 for _ in range(5)])
        records, executor = here.records, here.node.node.executor_name
    # The first batch opens the vaults and carries the deposits; it is left out of the times.
    times = [(records[n].final_ts - records[n].cut_ts) / 1e6 for n in range(2, batches + 2)]
    case = f"{records[2].row_count} entries, 2 vaults, {executor}"
    middle, worst = median(times), max(times)
    return [
        Row(case, "cut_to_final_median", middle, "ms", bare_ms, middle / bare_ms, MUST_MS, middle <= MUST_MS),
        Row(case, "cut_to_final_worst", worst, "ms", bare_ms, worst / bare_ms, MUST_MS, worst <= MUST_MS),
        Row(case, "bare_move_calls", bare_ms, "ms"),
    ]


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
