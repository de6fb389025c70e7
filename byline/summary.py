"""The summary of a bounded run: what happened, and whether every check held.

Checks, each made from another source than what it checks:
  conservation        the journal replayed from its first record: per asset all balances sum to zero
  replay_hash_equal   that replay ends with the state hash the live core reported
  projection_equal    the balances in PostgreSQL are those of the replayed core, one by one
  batches_final       every cut of the run was executed on the chain, in order, without a gap
  processes_alive     nothing stayed down
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import asyncpg
import numpy as np
from rich.console import Console

from byline.settings import Settings

__all__ = ["Projection", "Summary", "judge", "print_summary", "read_projection"]


class CoreState(Protocol):
    """What the checks ask of a replayed core."""

    sequence: int

    def state_hash(self) -> bytes: ...
    def check(self) -> None: ...
    def balances(self) -> np.ndarray: ...
    def asset_name(self, index: int) -> str: ...


Balances = dict[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Projection:
    """What PostgreSQL said when everything was quiet."""

    orders: int
    trades: int
    balances: Balances
    batches: list[dict[str, Any]]
    sequence: int = 0
    """Everything up to it is in them."""


@dataclass(slots=True)
class Summary:
    """Numbers of the run and its checks by name."""

    seconds: float
    start_to_ready_s: float
    sequence: int
    orders: int
    trades: int
    state_hash: str
    chain: str
    ack_mode: str
    chain_kind: str
    batches: list[dict[str, Any]]
    assets: dict[str, dict[str, str]]
    checks: dict[str, bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(self.checks.values())

    def as_json(self) -> dict[str, Any]:
        committed = [batch for batch in self.batches if batch["status"] == "final"]
        return {
            "ok": self.ok, "seconds": self.seconds, "start_to_ready_s": round(self.start_to_ready_s, 2),
            "sequence": self.sequence, "orders": self.orders, "trades": self.trades, "ack_mode": self.ack_mode,
            "state_hash": self.state_hash, "journal_chain": self.chain, "chain": self.chain_kind,
            "batches_committed": len(committed), "batches": self.batches, "assets": self.assets, **self.checks,
        }  # fmt: skip


async def read_projection(dsn: str) -> Projection:
    """Counts, balances and batches from PostgreSQL, all as of one sequence."""
    connection = await asyncpg.connect(dsn)
    snapshot = connection.transaction(isolation="repeatable_read", readonly=True)
    try:
        await snapshot.start()
        sequence = await connection.fetchval("SELECT max(sequence) FROM exchange.projection")
        balances = {
            (row["account_id"], row["asset_id"]): (row["available"], row["held"])
            for row in await connection.fetch("SELECT * FROM exchange.balance")
            if row["available"] or row["held"]
        }
        batches = [
            {
                "number": row["number"], "status": row["status"], "first_sequence": row["first_sequence"],
                "last_sequence": row["last_sequence"], "legs": row["leg_count"], "digests": list(row["digests"]),
                "root": row["root"].hex() if row["root"] else None,
                "cut_to_final_s": row["seconds"] and round(float(row["seconds"]), 3),
            }
            for row in await connection.fetch(
                "SELECT *, extract(epoch FROM committed_at - cut_at) AS seconds FROM settlement.batch ORDER BY number"
            )
        ]  # fmt: skip
        orders = await connection.fetchval("SELECT count(*) FROM exchange.orders")
        trades = await connection.fetchval("SELECT count(*) FROM exchange.trade")
    finally:
        await connection.close()
    return Projection(orders, trades, balances, batches, sequence or 0)


def judge(
    settings: Settings, *, head: dict[str, Any], final: dict[str, Any], projection: Projection, replayed: CoreState,
    seconds: float, start_to_ready_s: float, chain_kind: str, failed: list[str],
) -> Summary:  # fmt: skip
    """Puts the numbers together and makes every check.

    `head` is the core's status when everything was quiet, `final` its last words: ticks and cuts may lie between.
    """
    balances = {
        (int(row["account"]), int(row["asset"])): (int(row["available"]), int(row["held"]))
        for row in replayed.balances()
        if row["available"] or row["held"]
    }
    assets, conserved = _assets(replayed, balances)
    due = [batch for batch in projection.batches if batch["number"] <= head["batch"]]
    summary = Summary(
        seconds=seconds, start_to_ready_s=start_to_ready_s, sequence=int(final["sequence"]), orders=projection.orders,
        trades=projection.trades, state_hash=str(final["state_hash"]), chain=str(final["chain"]),
        ack_mode=settings.ack_mode, chain_kind=chain_kind, batches=projection.batches, assets=assets,
    )  # fmt: skip
    summary.checks = {
        "conservation": conserved,
        "replay_hash_equal": replayed.sequence == final["sequence"]
        and replayed.state_hash().hex() == final["state_hash"],
        "projection_equal": projection.balances == balances,
        "batches_final": [batch["number"] for batch in due] == list(range(1, head["batch"] + 1))
        and all(batch["status"] == "final" and batch["digests"] for batch in due),
        "processes_alive": not failed,
    }
    if not settings.quiet_market:
        summary.checks["has_orders_and_trades"] = projection.orders > 0 and projection.trades > 0
    return summary


def _assets(core: CoreState, balances: Balances) -> tuple[dict[str, dict[str, str]], bool]:
    """Per asset what clients are owed in all, and whether everything sums to zero."""
    core.check()
    rows = core.balances()
    table = {}
    conserved = True
    for index in np.unique(rows["asset"]):
        of_asset = [(key[0], sum(amounts)) for key, amounts in balances.items() if key[1] == index]
        total = sum(amount for _, amount in of_asset)
        conserved &= total == 0
        owed = sum(amount for _, amount in of_asset if amount > 0)
        table[core.asset_name(int(index))] = {"owed_units": str(owed), "sum_units": str(total)}
    return table, conserved


def print_summary(summary: Summary, console: Console) -> None:
    """The summary for people."""
    rows = [
        ("ran", f"{summary.seconds:.0f} s, ready after {summary.start_to_ready_s:.1f} s"),
        ("journal", f"{summary.sequence:,} commands, ack {summary.ack_mode}, chain {summary.chain}"),
        ("market", f"{summary.orders:,} orders, {summary.trades:,} trades"),
        ("settlement", summary.chain_kind),
    ]
    for batch in summary.batches[-5:]:
        digests = ", ".join(batch["digests"]) or "–"
        took = f"{batch['cut_to_final_s']} s after its cut" if batch["cut_to_final_s"] else ""
        rows.append((f"batch {batch['number']}", f"{batch['status']} {took}: {digests}"))
    console.print("[bold]Summary[/]")
    for name, text in rows:
        console.print(f"  {name:<12}{text}", soft_wrap=True)
    for name, held in summary.checks.items():
        console.print(f"  {'[green]✓[/]' if held else '[bold red]✗[/]'} {name.replace('_', ' ')}")
    console.print("[bold green]every check held[/]" if summary.ok else "[bold red]a check did not hold[/]")
