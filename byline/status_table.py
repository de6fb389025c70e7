"""`byline status`: the processes of a running exchange, live."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from byline.running import running_exchange
from byline.settings import Settings
from byline.status_file import read_all_statuses

__all__ = ["WAITS", "settlement_waits", "show_status"]

REFRESH_S = 0.5
SILENT_S = 10.0
"""A process writes its status several times a second: one that has not for so long hangs, or its disk is full."""
Statuses = dict[str, dict[str, Any]]
WAITS = (("chain_error", "chain"), ("sealing_waits", "second core"), ("backup_waits", "backup"))
"""What settlement may wait for, as its status names it and as people read it; a halt ends only by a person."""


def show_status(settings: Settings, *, console: Console, once: bool, as_json: bool) -> int:
    """Shows the table until Ctrl-C, or once. Returns 0 if every process is up, else 1.

    Raises:
        Unavailable: nothing runs on the data directory.
    """
    statuses = running_exchange(settings.data_directory)
    if as_json:
        print(json.dumps(statuses, indent=2))
    elif once or not console.is_terminal:
        console.print(_tables(statuses, {}, 0))
    else:
        _live(settings, console)
        statuses = read_all_statuses(settings.data_directory)
    return 0 if all(_state(status).plain == "up" for status in statuses.values()) else 1


def settlement_waits(settlement: Mapping[str, Any]) -> list[str]:
    """Why no batch goes on, by what the back office tells of settlement: a line a reason, none if all is well."""
    return [f"{of}: {settlement[field]}" for field, of in (("halted", "HALTED"), *WAITS) if settlement.get(field)]


def _live(settings: Settings, console: Console) -> None:
    before: Statuses = {}
    then = time.monotonic()
    with Live(console=console, auto_refresh=False, screen=False) as live:
        try:
            while True:
                statuses, now = read_all_statuses(settings.data_directory), time.monotonic()
                live.update(_tables(statuses, before, now - then), refresh=True)
                before, then = statuses, now
                time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            pass  # the way out


def _tables(statuses: Statuses, before: Statuses, seconds: float) -> Group:
    processes = Table(title="Processes", title_justify="left", header_style="dim")
    for column in ("process", "state", "pid", "what it says"):
        processes.add_column(column, overflow="fold")
    for name, status in statuses.items():
        processes.add_row(name, _state(status), str(status["pid"]), _facts(name, status, before.get(name, {}), seconds))
    return Group(processes, _batches(statuses))


def _state(status: dict[str, Any]) -> Text:
    if not status["alive"]:
        return Text("down", "bold red")
    if not status["ready"]:
        return Text("starting", "bold red")
    silent_s = time.time() - status["written_at"]
    if silent_s > SILENT_S:
        return Text(f"silent for {silent_s:,.0f} s: figures are old; it hangs, or cannot write them", "bold yellow")
    return Text("up", "green")


def _facts(name: str, status: dict[str, Any], before: dict[str, Any], seconds: float) -> str:
    if name == "core" and "sequence" in status:
        rate = ""
        if seconds and "sequence" in before:
            rate = f", {max(0, status['sequence'] - before['sequence']) / seconds:,.0f}/s"
        return (
            f"sequence {status['sequence']:,}{rate}, durable {status['durable_sequence']:,}, ack {status['ack_mode']}, "
            f"journal {status['journal']}, {status['open_orders']:,} open orders, {status['sessions']} sessions, "
            f"recovered in {status['recovery_s']} s\nstate {status['state_hash']}, chain {status['chain']}"
        )
    if name == "backoffice" and "projection" in status:
        projection, settlement = status["projection"], status["settlement"]
        text = f"projection at {projection['sequence']:,}, {projection['lag']:,} behind"
        if projection["last_error"]:
            text += f", waits: {projection['last_error']}"
        if settlement:
            text += f"\nbatch {settlement['final_batch']} final, {settlement['pending_batches']} waiting, "
            text += f"{settlement['chain']}, executor {settlement['executor']}"
            text += "".join(f"\n{line}" for line in settlement_waits(settlement))
        return text
    if name == "marketdata" and "sequence" in status:
        return (
            f"{status['state']} at {status['sequence']:,}, {status['lag']:,} behind, {status['clients']} readers "
            f"({status['slow']} slow), {status['deliveries_per_s']:,.0f} messages/s"
        )
    if name == "chain" and "checkpoint" in status:
        paused = [address for address, vault in status["vaults"].items() if vault["paused"]]
        text = (
            f"{status['chain']}, executor {status['executor']}, {status['host']}:{status['port']}, checkpoint "
            f"{status['checkpoint']:,}, epoch {status['epoch']}, {len(status['vaults'])} vaults"
        )
        return text + (f", {len(paused)} PAUSED" if paused else "")
    if name == "api" and "core" in status:
        core = "connected" if status["core"]["connected"] else "not connected"
        return f"{status['host']}:{status['port']}, core {core}"
    skip = {"name", "pid", "ready", "alive", "started_at", "written_at"}
    return ", ".join(f"{key} {value}" for key, value in status.items() if key not in skip)


def _batches(statuses: Statuses) -> Table:
    table = Table(title="Settlement batches", title_justify="left", header_style="dim")
    for column in ("batch", "status", "commands", "trades", "rows", "cut → final", "digest"):
        table.add_column(column)
    for batch in statuses.get("backoffice", {}).get("settlement", {}).get("recent", [])[-6:]:
        took = f"{(batch['final_ts'] - batch['cut_ts']) / 1e9:.2f} s" if batch["final_ts"] else "–"
        table.add_row(
            str(batch["number"]), batch["status"], f"{batch['last_sequence'] - batch['first_sequence'] + 1:,}",
            f"{batch['trade_count']:,}", str(batch["row_count"]), took, ", ".join(batch["digests"]) or batch["error"],
        )  # fmt: skip
    return table
