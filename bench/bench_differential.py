"""The core against its plain-Python twin on a hostile stream: same events and same state hash after every command.

    python -m bench differential [--commands N] [--seed S] [--jobs J] [--smoke]

The stream is cut into runs, each with a seed of its own: half of them with the default bounds, half with bounds so
tight that every one is met. A difference raises, naming seed, position, command and a shortened history. The stream
must have made every event happen, with every reason there is. The rate is that of the comparison, not of a core.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from ctypes import c_uint64
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.adversary import limits_of
from bench.differential import Comparison, Difference, compare, names
from bench.harness import Row

__all__ = ["LEFT_OUT", "compare", "run", "unmet"]

LEFT_OUT = "nothing: all commands are in the stream; the rate is dominated by the plain-Python twin"
RUN_COMMANDS = 50_000
"""Commands of one seed: deep enough for a state, short enough for a history."""
COVERED_FROM = 20_000
"""From so many commands on, everything must have happened."""


def unmet(result: Comparison) -> list[str]:
    """What can happen and did not: `canceled oco`, `rejected crossed` …"""
    return [name for key, name in names().items() if not result.counts[key]]


def _plan(commands: int, seed: int) -> list[tuple[int, int, int]]:
    """(commands, seed, number) of each run."""
    runs = max(2, -(-commands // RUN_COMMANDS))
    sizes = [commands // runs + (number < commands % runs) for number in range(runs)]
    return [(size, seed + number, number) for number, size in enumerate(sizes)]


_done: Any = None


def _begin(done: Any) -> None:
    """In each process: where it says how far it is."""
    global _done
    _done = done


def _run_one(commands: int, seed: int, number: int) -> Comparison:
    def progress(count: int) -> None:
        with _done.get_lock():
            _done.value += count

    return compare(commands, seed, limits_of(number), progress=progress)


def _run_all(plan: list[tuple[int, int, int]], jobs: int) -> dict[bool, Comparison]:
    """What the runs made happen, by bounds. A progress bar on a terminal, else a line for each run that is done."""
    total, results = sum(size for size, _, _ in plan), {False: Comparison(), True: Comparison()}
    console = Console(stderr=True)
    columns = (
        TextColumn("comparing"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} commands"),
        TimeRemainingColumn(),
    )
    context = multiprocessing.get_context("spawn")
    done = context.Value(c_uint64)
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        ProcessPoolExecutor(jobs, context, _begin, (done,)) as pool,
    ):
        task = bar.add_task("", total=total)
        waiting: dict[Future[Comparison], bool] = {pool.submit(_run_one, *one): one[2] % 2 == 1 for one in plan}
        try:
            while waiting:
                for future in wait(waiting, 0.5, FIRST_COMPLETED).done:
                    results[waiting.pop(future)].add(future.result())
                    if not console.is_terminal:
                        equal = sum(result.commands for result in results.values())
                        console.print(f"{equal:,} of {total:,} commands equal, {len(waiting)} runs to go")
                bar.update(task, completed=done.value)
        except Difference:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def run(
    smoke: bool,
    seed: int,
    commands: Annotated[
        int | None, "How many commands are compared; 100,000 if not given, 20,000 in the smoke size."
    ] = None,
    jobs: Annotated[int | None, "Processes; as many as there are cores if not given."] = None,
) -> list[Row]:
    """Rows of compared commands and events. Every row has been checked: a difference raises before it is written."""
    count = commands if commands is not None else COVERED_FROM if smoke else 100_000
    if count < 2:
        raise typer.BadParameter(f"commands must be at least 2, not {count}")
    if jobs is not None and jobs < 1:
        raise typer.BadParameter(f"jobs must be at least 1, not {jobs}")
    started = time.perf_counter()
    results = _run_all(_plan(count, seed), jobs or os.cpu_count() or 1)
    elapsed = time.perf_counter() - started
    everything = Comparison()
    for result in results.values():
        everything.add(result)
    missing = unmet(everything)
    if count >= COVERED_FROM and missing:
        raise Difference(f"the stream of seed {seed} no longer makes happen: {', '.join(missing)}")
    rows = [Row("all", "compared", everything.commands / elapsed, "commands/s")]
    for tight, result in results.items():
        case = "tight bounds" if tight else "default bounds"
        rows += [
            Row(case, "commands equal", result.commands, "commands"),
            Row(case, "state hashes equal", result.commands, "hashes"),
            Row(case, "events equal", result.events, "events"),
        ]
    rows += [Row("events", name, everything.counts[key], "events") for key, name in names().items()]
    rarest = min((everything.counts[key], name) for key, name in names().items())
    return [*rows, Row("rarest", rarest[1], rarest[0], "events")]
