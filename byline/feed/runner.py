"""`byline feed`: sets a recorded market up, sends it at a planned rate, and shows what came of it as a table.

Every trader of the feed is an account with its own key and session; an order and its cancel go through the same one.
Latency counts from the planned time of sending, so a stall is charged to everything behind it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import numpy as np
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from byline.feed.bitstamp import BASE, MARKET, QUOTE, FeedCommand, convert, fetch_capture, setup_commands
from byline.feed.session import FeedSession, open_session
from byline.operator import gateway_url, open_operator, send_all
from byline.running import find_process
from byline.settings import Settings
from byline.status_file import read_status
from byline.trading_floor import kept_key, register
from byline.up import Exchange
from engine.messages.errors import Unavailable

__all__ = ["run_feed"]

PACE_S = 0.002
UNANSWERED_MAX = 20_000
ANSWERS_WAIT_S = 30.0
SETTLE_WAIT_S = 60.0
FUNDS = {BASE: "100000", QUOTE: "1000000000"}


@dataclass(slots=True)
class Plan:
    """Frames in the order of the feed: (trader, request id, payload)."""

    frames: list[tuple[int, int, bytes]]


def run_feed(
    settings: Settings, *, console: Console, rate: int, accounts: int, limit: int | None, json_path: Path | None
) -> int:
    """Runs the feed through a running exchange, or through one of its own. Returns 0 if everything was answered."""
    logging.basicConfig(level=logging.WARNING)
    with console.status("getting the capture …"):
        capture = fetch_capture(Path.home() / ".cache" / "byline")
    with console.status("converting it to commands …"):
        commands = list(convert(capture))[:limit]
        plan = _plan(commands, accounts, f"{int(time.time()):x}")
    return uvloop.run(_run(settings, console, plan, rate, accounts, json_path))


def _plan(commands: list[FeedCommand], accounts: int, run: str) -> Plan:
    """Encodes every command. `run` makes the client ids of this run its own."""
    encode = msgspec.json.Encoder().encode
    frames = []
    for rid, command in enumerate(commands):
        trader = command.order % accounts
        body: dict[str, Any] = {"rid": rid, "op": command.op, "client_id": f"{run}.{command.client_id}"}
        if command.op == "place":
            body |= {
                "market": MARKET, "side": command.side, "type": "limit", "price": command.price, "size": command.size,
            }  # fmt: skip
        frames.append((trader, rid, encode(body)))
    return Plan(frames)


async def _run(
    settings: Settings, console: Console, plan: Plan, rate: int, accounts: int, json_path: Path | None
) -> int:
    async with AsyncExitStack() as stack:
        if find_process(settings.data_directory, "core") is None:
            console.print("no exchange runs on the data directory: starting one for the time of the feed")
            await stack.enter_async_context(Exchange(replace(settings, quiet_market=True)))
        names = [f"feed:{number}" for number in range(accounts)]
        keys = {name: kept_key(settings.data_directory, f"feed-{number}") for number, name in enumerate(names)}
        async with open_operator(settings) as operator:
            await send_all(operator, [*setup_commands(), *_funding(names)])
            first_batch = (await operator.status())["batch"] + 1
        await register(settings, keys)
        url = gateway_url(settings)
        sessions = [await open_session(url, name, keys[name]) for name in names]
        try:
            seconds = await _send_all(sessions, plan, rate, console)
        finally:
            for session in sessions:
                session.close()
        last = max(session.last_sequence for session in sessions)
        with console.status("waiting for the batch that holds the last order …"):
            batches, sums = await _settled(settings, last, first_batch)
        result = _result(sessions, plan, seconds, rate, batches, sums)
        _print(result, console)
        if json_path:
            json_path.write_text(json.dumps(result, indent=2) + "\n")
        return 0 if result["ok"] else 1


def _funding(names: list[str]) -> list[dict[str, Any]]:
    commands: list[dict[str, Any]] = []
    for name in names:
        commands.append({"op": "account", "account": name})
        for asset, amount in FUNDS.items():
            ref = f"seed:{name}:{asset}"
            commands.append({"op": "deposit", "account": name, "asset": asset, "amount": amount, "ref": ref})
        commands.append({"op": "mass_cancel", "account": name})
    return commands


async def _send_all(sessions: list[FeedSession], plan: Plan, rate: int, console: Console) -> float:
    """Sends every frame at its planned time and waits for the answers. Returns the seconds it took."""
    frames, count = plan.frames, len(plan.frames)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    started = time.monotonic_ns()
    step_ns = 1_000_000_000 / rate
    sent = 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sending", total=count)
        while sent < count:
            due = min(count, int((time.monotonic_ns() - started) / step_ns) + 1)
            waiting = sum(session.unanswered for session in sessions)
            due = min(due, sent + max(0, UNANSWERED_MAX - waiting))
            while sent < due:
                trader, rid, payload = frames[sent]
                sessions[trader].send(rid, payload, started + int(sent * step_ns))
                sent += 1
            progress.update(task, completed=sent - waiting)
            await asyncio.sleep(PACE_S)
        deadline = time.monotonic() + ANSWERS_WAIT_S
        while waiting := sum(session.unanswered for session in sessions):
            if time.monotonic() > deadline:
                raise Unavailable(f"{waiting} commands were not answered within {ANSWERS_WAIT_S:.0f} s")
            await asyncio.sleep(PACE_S)
        progress.update(task, completed=count)
    return (time.monotonic_ns() - started) / 1e9


async def _settled(settings: Settings, sequence: int, first_batch: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The final batches of the feed, and per asset the sum of all balances, once everything up to `sequence` is in."""
    deadline = time.monotonic() + SETTLE_WAIT_S
    while True:
        office = read_status(settings.data_directory, "backoffice") or {}
        recent = office.get("settlement", {}).get("recent", [])
        final = [batch for batch in recent if batch["status"] == "final"]
        covered = bool(final) and final[-1]["last_sequence"] > sequence
        if covered and office["projection"]["sequence"] >= sequence:
            break
        if time.monotonic() > deadline:
            raise Unavailable(f"the batch of sequence {sequence} was not final within {SETTLE_WAIT_S:.0f} s: {office}")
        await asyncio.sleep(0.1)
    url = settings.postgres_url or (read_status(settings.data_directory, "postgres") or {})["url"]
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT a.name, sum(b.available + b.held)::bigint AS total FROM exchange.balance b"
            " JOIN exchange.asset a ON a.id = b.asset_id GROUP BY a.name ORDER BY a.name"
        )
    finally:
        await connection.close()
    return [batch for batch in final if batch["number"] >= first_batch], {row["name"]: row["total"] for row in rows}


def _result(
    sessions: list[FeedSession], plan: Plan, seconds: float, rate: int, batches: list[dict[str, Any]],
    sums: dict[str, int],
) -> dict[str, Any]:  # fmt: skip
    latencies = np.concatenate([np.array(session.latencies_ns, np.int64) for session in sessions]) / 1e3
    outcomes: dict[str, int] = {}
    for session in sessions:
        for outcome, count in session.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    sent, acked = len(plan.frames), sum(session.acked for session in sessions)
    return {
        "ok": acked == sent and not any(sums.values()) and bool(batches),
        "sent": sent, "acked": acked, "trades": sum(session.trades for session in sessions),
        "seconds": round(seconds, 2), "planned_per_s": rate, "acked_per_s": round(acked / seconds),
        "ack_us": {name: round(float(np.percentile(latencies, at)), 1) for name, at in
                   (("p50", 50), ("p99", 99), ("p99.9", 99.9))},
        "outcomes": dict(sorted(outcomes.items(), key=lambda item: -item[1])),
        "batches": [{key: batch[key] for key in ("number", "status", "trade_count", "digests")} for batch in batches],
        "conservation": {asset: total == 0 for asset, total in sums.items()},
    }  # fmt: skip


def _print(result: dict[str, Any], console: Console) -> None:
    table = Table(title="Bitstamp BTC/USD, 2026-05-02, replayed", title_justify="left", show_header=False, box=None)
    table.add_row("sent", f"{result['sent']:,} commands in {result['seconds']} s")
    table.add_row("acked", f"{result['acked']:,} ({result['acked_per_s']:,}/s)")
    table.add_row("trades", f"{result['trades']:,}")
    latency = result["ack_us"]
    table.add_row("ack, µs", f"p50 {latency['p50']:,}   p99 {latency['p99']:,}   p99.9 {latency['p99.9']:,}")
    table.add_row("answers", ", ".join(f"{name} {count:,}" for name, count in result["outcomes"].items()))
    for batch in result["batches"]:
        text = f"{batch['status']}, {batch['trade_count']:,} trades, {', '.join(batch['digests'])}"
        table.add_row(f"batch {batch['number']}", text)
    for asset, held in result["conservation"].items():
        table.add_row(f"conservation {asset}", "[green]all balances sum to zero[/]" if held else "[bold red]BROKEN[/]")
    console.print(table)
