"""`byline replay`: commands from a file or standard input through the core or the reference, events as JSON lines."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from engine.messages.errors import Refused
from engine.replay import open_core, replay

__all__ = ["replay_file"]

STANDARD_INPUT = Path("-")
TOLD_MAX = 10
"""Malformed lines that are explained: of a file of something else all are."""


def replay_file(commands: Path, events: Path | None, *, reference: bool, state_hash: bool) -> None:
    """Runs the file, or standard input for `-`, and writes the events to `events` or standard output.

    With a progress bar on a terminal; how far it is to the end is known of files alone, a pipe is read once. Standard
    error hears what is wrong with the first malformed lines: their events say only that they are.

    Raises:
        Refused: there is no such file, it holds no JSON lines, or the events would overwrite them.
    """
    columns = (TextColumn("replaying"), BarColumn(), TextColumn("{task.completed:,.0f} lines"), TimeRemainingColumn())
    terminal = Console(stderr=True)
    if commands != STANDARD_INPUT and not commands.exists():
        raise Refused(f"there is no file {commands}: give one, or - for standard input")
    with ExitStack() as stack:
        piped = commands == STANDARD_INPUT
        source = stack.enter_context(open(sys.stdin.fileno() if piped else commands, "rb", closefd=not piped))
        if b"\0" in source.peek(4096)[:4096]:
            raise Refused(f"{commands} holds no JSON lines; `byline journal verify --replay` replays a journal")
        if events is not None and events.exists() and commands != STANDARD_INPUT and events.samefile(commands):
            raise Refused(f"the events would overwrite the commands in {commands}: give another file")
        target = stack.enter_context(events.open("w")) if events else sys.stdout
        is_shown = events is not None and terminal.is_terminal
        progress = stack.enter_context(Progress(*columns, console=terminal, disable=not is_shown))
        task = progress.add_task("", total=_lines(source) if is_shown else None)
        core, told = open_core(reference=reference), 0

        def explain(line: int, why: str) -> None:
            nonlocal told
            told += 1
            if told <= TOLD_MAX:
                terminal.print(f"line {line}: {why}", soft_wrap=True, markup=False, highlight=False)
            elif told == TOLD_MAX + 1:
                terminal.print("and more: see the events", soft_wrap=True)

        for line in replay(
            source, core=core, state_hash=state_hash, progress=lambda done: progress.update(task, completed=done),
            refused=explain,
        ):  # fmt: skip
            target.write(line + "\n")


def _lines(source: BinaryIO) -> int | None:
    """How many lines are to come, None of what can be read only once."""
    if not source.seekable():
        return None
    start = source.tell()
    count = sum(block.count(b"\n") for block in iter(lambda: source.read(1 << 20), b""))
    source.seek(start)
    return count
