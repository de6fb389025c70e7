"""`python -m tests.faults --seeds N --kills N`: the budget, and its report card. `make faults` runs it.

    --seeds N    seeds of the simulator, each a world of its own, spread over the cores
    --pause S    seconds that a stopped process stays stopped (30)
    --kills N    real kills under load, and a stop of a process behind each fifth; a new exchange now and then
    --out DIR    of the card: build/faults, or `docs` for the one that the repository keeps

One of them 0: that part of the card stays as it is.

Exit status 0: no violation. 1: at least one, named on the card and here. Whoever ends it before (SIGTERM, Ctrl-C) gets
no card, and nothing of it stays: neither the exchange nor its data.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tests.faults import report
from tests.faults.kills import Kills, plan, run_kills, slow_starts

TOLD_EVERY = 100
"""Seeds between two lines of progress where there is no terminal for a bar."""
OUT = Path("build/faults")
"""Not docs/: a try with ten seeds must not stand where a run of ten thousand was."""
FIRST, ORDER, PAUSE_S = 0, 1, 30.0
LIVES = 20
"""Faults that one data directory goes through; then a new one begins."""


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)  # now, not after an hour of work
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(1) as beside,  # a kill is mostly waiting: seeds, which are nice, use the cores meanwhile
        _Beside() as runner,
    ):
        killing = beside.submit(_kills, given.kills, given.seed, given.pause, given.tmp, progress, console, runner)
        seeds = _seeds(given.seeds, given.first, progress, console)
        kills = killing.result()
    page, _ = report.write(report.Card(command_of(given), seeds, kills, given.pause), given.out)
    faults = sum(kills.faults.values())
    failures = seeds.failures + kills.failures
    console.print(f"{seeds.count:,} seeds, {faults:,} kills and stops, {len(failures)} violations: {page}")
    for text in failures[: report.FAILURES_NAMED]:
        console.print(text, markup=False, soft_wrap=True)
    return 1 if failures else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.faults", description="Faults by the thousand.")
    made.add_argument("--seeds", type=int, default=1000, help="of the simulator; 0: none")
    made.add_argument("--first", type=int, default=FIRST, help="the first seed")
    made.add_argument("--kills", type=int, default=20, help="of real processes; 0: none")
    made.add_argument("--pause", type=float, default=PAUSE_S, help="seconds that a stopped process stays stopped")
    made.add_argument("--seed", type=int, default=ORDER, help="of the order of kills")
    made.add_argument("--out", type=Path, default=OUT, help="of the card; build/faults if not given")
    made.add_argument("--tmp", type=Path, default=None, help="where exchanges keep their data meanwhile")
    return made


def command_of(given: argparse.Namespace) -> str:
    """The `make` that does the same run again and puts its card to the same place."""
    first = f" FIRST={given.first}" if given.first != FIRST else ""
    out = f" OUT={given.out}" if given.out != OUT else ""
    more = [f"--seed {given.seed}"] if given.seed != ORDER else []
    more += [f"--pause {given.pause:g}"] if given.pause != PAUSE_S else []
    arguments = f' ARGS="{" ".join(more)}"' if more else ""
    return f"make faults SEEDS={given.seeds} KILLS={given.kills}{first}{out}{arguments}"


class _Beside:
    """Runs coroutines in another thread. Whoever leaves it with an exception ends what runs, which tidies up then."""

    def __init__(self) -> None:
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Kills]] | None = None
        self._is_over = False

    def run(self, kills: Coroutine[object, object, Kills]) -> Kills:
        """Called in that other thread. Raises CancelledError: it is over."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            task = loop.create_task(kills)
            self._running = loop, task
            if self._is_over:
                task.cancel()
            try:
                return loop.run_until_complete(task)
            finally:
                self._running = None

    def __enter__(self) -> _Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_over = kind is not None
        if self._is_over and (running := self._running) is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it was over already
                running[0].call_soon_threadsafe(running[1].cancel)


def _seeds(count: int, first: int, progress: Progress, console: Console) -> report.Seeds:
    sums, began = report.Seeds(first=first), time.monotonic()
    if not count:
        return sums
    from tests.simulation.budget import SeedResult, lacks, pace, run_seeds

    task, results = progress.add_task("seeds", total=count), list[SeedResult]()

    def take(result: SeedResult) -> None:
        results.append(result)
        sums.count += 1
        sums.commands += result.commands
        sums.virtual_s += result.virtual_s
        sums.faults.update(result.faults)
        sums.outcomes.update(result.outcomes)
        sums.slowest_recovery_s = max(sums.slowest_recovery_s, result.recovery_s)
        if result.failure:
            sums.failures.append(f"seed {result.seed}: {result.failure}")
        progress.update(task, advance=1, description=f"seeds, {len(sums.failures)} failed")
        if result.failure or (not console.is_terminal and sums.count % TOLD_EVERY == 0):
            text = f"{sums.count} of {count} seeds, {len(sums.failures)} failed"
            text += f": seed {result.seed}: {result.failure}" if result.failure else ""
            console.print(text, markup=False, soft_wrap=True)

    run_seeds(count, first=first, on_seed=take, processes=os.cpu_count() or 1)
    sums.seconds, sums.pace = time.monotonic() - began, pace(results)
    if missing := lacks(sums.outcomes):
        sums.failures.append(missing)
    return sums


def _kills(
    count: int, seed: int, pause_s: float, folder: Path | None, progress: Progress, console: Console, runner: _Beside
) -> Kills:
    sums, done = Kills(), 0
    if not count:
        return sums
    faults = plan(count, seed)
    task: TaskID = progress.add_task("kills", total=len(faults))

    def told(_: int, fault: str, so_far: Kills) -> None:
        slowest = so_far.recovery_s[fault][-1]
        progress.update(task, advance=1, description=f"{fault}, up again after {slowest} s")
        if not console.is_terminal:
            console.print(f"{done + sum(so_far.faults.values())} of {len(faults)}: {fault}, up again after {slowest} s")

    while done < len(faults) and not sums.failures:
        part = faults[done : done + LIVES]
        with tempfile.TemporaryDirectory(dir=folder, prefix="byline-faults-") as scratch:
            found = runner.run(run_kills(Path(scratch), part, seed=seed + done, pause_s=pause_s, on_fault=told))
        done += len(part)
        sums.add(found)
        for text in found.failures:
            console.print(f"{done} of {len(faults)}: {text}", markup=False, soft_wrap=True)
    sums.failures += slow_starts(sums)
    return sums


if __name__ == "__main__":
    if importlib.util.find_spec("tests.faults") is None:
        sys.exit("run this from the root of the repository")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
