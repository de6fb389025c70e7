"""Market data beside order entry: a real server process on its event log, which feeds so many real sockets.

Server and readers have the other core, which the load client has too, in the scheduling class SCHED_IDLE, as the
setting `marketdata_idle` has it: they get what order entry and its client leave of it, and it takes no privilege.
Readers take every trade, in C (bench/native/fan_readers.c); the server flushes each 20 ms.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from bench.bench_fanout import Readers, subscription
from bench.gateway_load import MARKET
from bench.gateway_server import pin
from bench.harness import WrongResult
from byline.processes.priority import stand_back
from marketdata.server import serve
from marketdata.settings import MarketDataSettings
from persistence.event_log import EventLogReader

__all__ = ["Feeding", "feeding"]


PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Feeding:
    """A running server with its readers."""

    readers: int
    pipe: Connection

    def delivered(self) -> int:
        """Frames that all readers have had so far. Raises WrongResult: one of them has lost its connection."""
        self.pipe.send("delivered")
        if not self.pipe.poll(PATIENCE_S):
            raise WrongResult("market data does not answer")
        found = self.pipe.recv()
        if isinstance(found, str):
            raise WrongResult(found)
        return int(found)

    def more_than(self, frames: int) -> int:
        """What they have had as soon as it is more. Raises WrongResult: they get nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.delivered()) <= frames:
            if time.monotonic() > deadline:
                raise WrongResult("the readers are not fed")
            time.sleep(0.01)
        return found


async def _feed(pipe: Connection, events: Path, count: int) -> None:
    stop, ready = asyncio.Event(), asyncio.Event()
    status: dict[str, Any] = {}
    settings = MarketDataSettings(port=0, connection_limit=count + 10)
    serving = asyncio.create_task(serve(EventLogReader(events), settings, stop=stop, status=status, ready=ready))
    await ready.wait()
    readers = Readers(count, status["port"], subscription(f"trades:{MARKET}"))
    try:
        await readers.until("readers", lambda: readers.control["open"][0] == count)
        gc.freeze()
        pipe.send(None)
        while await asyncio.to_thread(pipe.recv) == "delivered":
            failed = int(readers.control["failed"][0])
            pipe.send(f"a reader failed: {os.strerror(failed)}" if failed else int(readers.each["frames"].sum()))
    finally:
        readers.stop()
        stop.set()
        await serving


def _run(pipe: Connection, events: str, count: int) -> None:
    pin(1)
    stand_back()
    uvloop.run(_feed(pipe, Path(events), count))


@contextmanager
def feeding(events: Path, readers: int) -> Iterator[Feeding]:
    """Market data of the event log in `events`, with so many readers that have subscribed."""
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(theirs, str(events), readers))
    process.start()
    try:
        if not mine.poll(PATIENCE_S):
            raise WrongResult(f"market data with {readers} readers did not start")
        mine.recv()
        yield Feeding(readers, mine)
        mine.send("stop")
        process.join(30)
        if process.exitcode != 0:
            raise WrongResult(f"market data ended with {process.exitcode}")
    finally:
        if process.is_alive():
            process.kill()
            process.join()
