"""`byline replay`: commands from a file through the core or the reference, events as JSON lines."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from engine.messages.errors import Refused
from engine.replay import open_core, replay

__all__ = ["replay_file"]


def replay_file(commands: Path, events: Path | None, *, reference: bool, state_hash: bool) -> None:
    """Runs the file and writes the events to `events` or standard output, with a progress bar on a terminal."""
    columns = (TextColumn("replaying"), BarColumn(), TextColumn("{task.completed:,.0f} lines"), TimeRemainingColumn())
    terminal = Console(stderr=True)
    with commands.open("rb") as file:
        if b"\0" in file.read(4096):
            raise Refused(f"{commands} holds no JSON lines; `byline journal verify --replay` replays a journal")
    with ExitStack() as stack:
        source = stack.enter_context(commands.open("rb"))
        total = sum(block.count(b"\n") for block in iter(lambda: source.read(1 << 20), b""))
        source.seek(0)
        target = stack.enter_context(events.open("w")) if events else sys.stdout
        is_shown = events is not None and terminal.is_terminal
        progress = stack.enter_context(Progress(*columns, console=terminal, disable=not is_shown))
        task = progress.add_task("", total=total)
        core = open_core(reference=reference)
        for line in replay(
            source, core=core, state_hash=state_hash, progress=lambda done: progress.update(task, completed=done)
        ):
            target.write(line + "\n")
