"""`byline rebuild`: PostgreSQL's projections written anew from the journal.

The request is a file, DATA/projection.rebuild. The back office starts anew when it sees it, wipes the projections and
removes it in that order: a crash in between wipes once more. Orders, trades, balances and candles come back from the
event log (which recovery makes from the journal), batches from settlement's own log. People's data is not touched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from byline.running import check_journal
from byline.settings import Settings
from byline.status_file import read_all_statuses
from engine.messages.errors import Unavailable
from files.durable import write_whole

__all__ = ["REQUEST", "ask_for_rebuild", "rebuild_projections"]

REQUEST = "projection.rebuild"
POLL_S = 0.1
TOLD_S = 2.0
"""Without progress for so long, the command says what it waits for: a restart of the back office takes less."""
STILL_S = 120.0
"""Without any progress for so long, the command gives up; the rebuild itself goes on when it can."""


def ask_for_rebuild(data: Path) -> None:
    """Leaves the request; durable on return."""
    write_whole(data / REQUEST, b"")


def rebuild_projections(settings: Settings, *, console: Console) -> None:
    """Asks for it; beside a running exchange waits until the projection has all that the core had told when it began.

    Raises:
        Unavailable: there is no data, or the projection did not go on, and what it waits for.
    """
    data = settings.data_directory
    check_journal(data)
    statuses = read_all_statuses(data)
    core, office = statuses.get("core", {}), statuses.get("backoffice", {})
    ask_for_rebuild(data)
    if not core.get("alive"):
        console.print("no exchange runs here: the projections are rebuilt at its next start")
        return
    if not core["ready"]:
        console.print("the exchange is starting: the projections are rebuilt as soon as it has")
        return
    target, began = int(core["released_sequence"]), time.monotonic()
    before, last, moved, told = office.get("pid"), -1, time.monotonic(), ""
    columns = (TextColumn("rebuilding"), BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f} commands"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("rebuilding", total=target)
        while last < target:
            office = read_all_statuses(data).get("backoffice", {})
            fresh = office.get("alive") and office.get("pid") != before and not (data / REQUEST).exists()
            reached = int(office.get("projection", {}).get("sequence", 0)) if fresh else -1
            if reached != last:
                last, moved, told = reached, time.monotonic(), ""
                progress.update(task, completed=max(0, min(last, target)))
            elif time.monotonic() > moved + STILL_S:
                raise Unavailable(
                    f"the projection stands at sequence {max(last, 0)}, {_obstacle(office)}: see "
                    "DATA/logs/backoffice.log; what was asked for stays asked for"
                )
            elif time.monotonic() > moved + TOLD_S and (obstacle := _obstacle(office)) != told:
                told = obstacle
                console.print(
                    f"{obstacle}: the rebuild waits, and begins or goes on by itself. This command gives up when "
                    f"nothing has moved for {STILL_S:.0f} s",
                    soft_wrap=True,
                )
            time.sleep(POLL_S)
    console.print(f"[bold green]Rebuilt[/]: {target:,} commands in {time.monotonic() - began:.1f} s")


def _obstacle(office: Mapping[str, Any]) -> str:
    """What keeps the projection from going on, by the back office's status, which may be its last one."""
    if not office.get("alive"):
        return "the back office does not run"
    projection = office.get("projection", {})
    if projection.get("connected"):
        return "the back office is busy"
    return f"PostgreSQL is away ({projection.get('last_error') or 'it does not answer'})"
