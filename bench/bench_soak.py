"""The soak: traders and readers on a whole edge for minutes, among disconnects and malformed frames, then judged.

exchange     core (gateway, journal, engine) and market data in the processes of `byline up`, durable acks.
traders      each with an account of its own, JSON or binary anew at each connection: single commands and frames of
             many, limit, market, stop, iceberg, post-only, quotes, cancels, replaces, poison, transfers, questions.
             They leave, stop reading, send malformed frames, and come back with `resume`. Some have a drop copy.
readers      every channel, mode and encoding; they leave, come back, replay what they missed, and stop reading.
hostile      connections that break each rule of the websocket in turn, and must be answered as documented.
judgement    the journal is replayed with the core and with the plain-Python reference. Every private event of every
             trader, its orders, money and outcomes; every book that a reader saw, at its sequence; every trade; and the
             memory of each process: all must be as the journal says. Whatever is not is a fault, and the soak fails.

Give `--minutes` for a long one: `python -m bench soak --minutes 10 --traders 500 --readers 2000 --json`. Without it a
short one with a fixed number of steps. Memory is judged over the second half of a run of five minutes or more: what
each process grew by beyond its bounded stores that are still filling, which the table names (bench/soak/growth.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import uvloop
from rich.console import Console

from bench.harness import Row, WrongResult
from bench.soak.growth import JUDGED_FROM_S, growth_rows
from bench.soak.hostile import CASES, attack_all
from bench.soak.readers import Seen, read
from bench.soak.traders import Trader
from bench.soak.truth import Truth, judge, judge_end
from bench.soak.world import World

LEFT_OUT = "TLS, network cards, PostgreSQL, chain and REST; load generators share the machine"
MIX = "55 % place, 23 % cancel, 10 % replace, the rest everything else; 70 % of steps wait for their answers"

SHORT_STEPS = 40
TOLD_EVERY_S = 15.0
_console = Console(stderr=True)


async def _sample(world: World, seconds: float) -> None:
    """Memory of the exchange's processes, now and then."""
    while not world.stop.is_set():
        await asyncio.sleep(min(2.0, max(0.05, seconds / 100)))
        world.sample()


async def _tell(world: World, readers: Callable[[], Awaitable[Counter[str]]], seconds: float) -> None:
    """A line now and then; later where the readers have too much to do to answer."""
    began = time.monotonic()
    while not world.stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOLD_EVERY_S):
                await world.stop.wait()
        heard = await readers()
        memory = ", ".join(
            f"{name} {one.samples[-1][1] / 1e6:.0f} MB" for name, one in world.memory.items() if one.samples
        )
        _console.print(
            f"{time.monotonic() - began:5.0f} s of {seconds:.0f}: {world.counts['commands sent']:,} commands, "
            f"{heard['messages read']:,} messages read, {world.counts['resumes']:,} resumes, "
            f"{world.counts['hostile connections']:,} hostile, {memory}, "
            f"faults {world.counts['faults'] + heard['faults']}",
            highlight=False,
        )  # fmt: skip


async def _soak(
    root: Path, seed: int, traders: int, readers: int, seconds: float | None, rate: float
) -> tuple[World, dict[str, int], Truth]:
    world = World(root, seed, traders, viewers=max(1, traders // 25))
    spawn = multiprocessing.get_context("spawn")
    async with world:
        ours, theirs = spawn.Pipe()
        url = f"ws://127.0.0.1:{world.marketdata_port}"
        pause = 1.0 if seconds is None else 0.25
        crowd = spawn.Process(target=read, args=(theirs, url, readers, seed, pause), daemon=True)
        crowd.start()
        theirs.close()  # so that its death is an end of the pipe
        try:
            connected = await asyncio.to_thread(ours.recv)
            if connected < readers:
                world.fault(f"{readers - connected} of {readers} readers could not connect")
            people = [Trader(world, member, seed + number) for number, member in enumerate(world.members)]
            people += [Trader(world, member, seed, viewer=True) for member in world.members if member.viewer]
            await _trade(world, people, ours, seconds, rate)
            seen, settled = await _settle(world, people, ours)
        finally:
            crowd.kill()
            await asyncio.to_thread(crowd.join)
        final = await world.stop_exchange()
    world.counts.update(seen.counts)
    for fault in seen.faults:
        world.fault(fault)
    for name in ("core", "marketdata"):
        for line in world.log(name).splitlines():
            if "Traceback" in line or " CRITICAL " in line or "exception" in line.lower():
                world.fault(f"log of {name}: {line}")
    compared: dict[str, int] = {}
    truth = Truth(seen, settled, lambda truth: compared.update(judge(world, truth, people, seen)))
    told = [time.monotonic()]

    def progress(sequence: int) -> None:
        if time.monotonic() - told[0] > TOLD_EVERY_S:
            told[0] = time.monotonic()
            _console.print(f"replaying: {sequence:,} of {final['sequence']:,} commands", highlight=False)

    await asyncio.to_thread(truth.replay, world.settings.data_directory, progress)
    judge_end(world, truth, final)
    return world, compared, truth


async def _trade(world: World, people: list[Trader], pipe: Connection, seconds: float | None, rate: float) -> None:
    """Until the time is over, or everybody has taken their steps."""
    rng = random.Random(world.settings.seed + 1)
    trading = [person for person in people if not person.viewer]
    mean_pause = 0.0 if seconds is None else len(trading) / rate
    steps = SHORT_STEPS if seconds is None else None

    async def heard() -> Counter[str]:
        pipe.send("counts")
        return Counter(await asyncio.to_thread(pipe.recv))  # it may be busy, and nobody here shall wait for it

    watching = [asyncio.create_task(_sample(world, seconds or 10.0))]
    if seconds is not None:
        watching.append(asyncio.create_task(_tell(world, heard, seconds)))
    tasks = [
        asyncio.create_task(person.run(10.0 * mean_pause if person.viewer else mean_pause, steps)) for person in people
    ]
    tasks.append(asyncio.create_task(attack_all(world, rng, 0.0 if seconds is None else 0.1)))
    tasks.append(asyncio.create_task(world.turn_phases(0.05 if seconds is None else 2.0, steps and 5)))
    if seconds is not None:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        world.end()
    await asyncio.gather(*tasks)
    world.end()
    await asyncio.gather(*watching)


async def _settle(world: World, people: list[Trader], pipe: Connection) -> tuple[Seen, int]:
    """Everybody comes back and hears the rest; from the sequence that is returned on nothing moves any more."""
    await world.all_of("cannot sign in", (person.connect() for person in people if person.transport is None))
    sequence = -1
    # Until nothing moves: what lost connections had placed is pulled.
    while sequence != (sequence := await world.released()):
        await world.all_of("do not settle", (person.settle() for person in people))
    pipe.send(sequence)
    seen: Seen = await asyncio.to_thread(pipe.recv)
    world.sample()
    return seen, sequence


def run(
    smoke: bool, seed: int,
    minutes: Annotated[float | None, "How long it goes on. Without it: a fixed number of steps."] = None,
    traders: Annotated[int | None, "Accounts that trade, each in a session of its own. 12 without it."] = None,
    readers: Annotated[int | None, "Connections to market data. 40 without it."] = None,
    rate: Annotated[float | None, "Steps (frames, breaks) a second of all traders. 200 without it."] = None,
) -> list[Row]:  # fmt: skip
    """Raises WrongResult with the faults, if there is one."""
    seconds = None if smoke or minutes is None else minutes * 60.0
    with tempfile.TemporaryDirectory(prefix="byline-soak-") as folder:
        world, compared, truth = uvloop.run(
            _soak(Path(folder), seed, traders or 12, readers or 40, seconds, rate or 200.0)
        )
    counts = world.counts
    if world.faults:
        traffic = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        raise WrongResult(f"{counts['faults']} faults:\n" + "\n".join(world.faults) + f"\n{traffic}")
    rows = [Row("traffic", name, counts[name], "") for name in sorted(counts) if name != "faults"]
    rows.append(Row("traffic", "commands in the journal", truth.commands, ""))
    rows.append(Row("traffic", "events of the engine", truth.event_count, ""))
    rows.append(Row("judgement", "kinds of malformed connections", len(CASES), ""))
    rows.append(Row("judgement", "books compared at their sequence", truth.books_compared, ""))
    rows += [Row("judgement", f"{name} compared", count, "") for name, count in compared.items()]
    rows.append(Row("judgement", "faults", counts["faults"], ""))
    return rows + growth_rows(world, truth.kinds, seconds is not None and seconds >= JUDGED_FROM_S)
