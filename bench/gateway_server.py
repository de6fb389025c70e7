"""The servers that the bench of order entry drives, each in a process of its own on core 0: bare echo or gateway.

A served process lives for the whole bench, so that baseline and candidates can take turns run by run. Asked over its
pipe, it tells the CPU time of its loop's thread and of the whole process; when it ends, where its journal stands.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal

import picows
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.gateway_load import prepare, replayed_hash
from bench.harness import WrongResult

__all__ = ["Mode", "Served", "database_noise", "pin", "serving"]

Mode = Literal["echo", "memory", "durable"]


def pin(core: int) -> None:
    """This thread, and those it starts, on one core, where there are two."""
    if (os.cpu_count() or 1) > 1 and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def _answer(pipe: Connection) -> None:
    """CPU seconds of the loop's thread and of the process, as often as asked; returns when told to stop."""
    clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
    while pipe.recv() != "stop":
        pipe.send((time.clock_gettime(clock), time.process_time()))


def _serve(pipe: Connection, root: str, mode: Mode, settings: dict[str, Any]) -> None:
    every = os.sched_getaffinity(0)
    pin(0)

    async def echo() -> None:
        from bench.echo import Echo

        server = await picows.ws_create_server(lambda _: Echo(), "127.0.0.1", 0)
        pipe.send(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.to_thread(_answer, pipe)
        server.close()
        pipe.send(None)

    async def exchange() -> None:
        from engine.core import Core
        from gateway.keys import KeyRegistry, load_or_create_key, public_hex
        from gateway.sequencer import Sequencer
        from gateway.server import GatewayServer
        from gateway.settings import GatewaySettings
        from persistence.disk import DirectoryDisk, SystemClock
        from persistence.event_log import EventLogWriter
        from persistence.journal import Journal, JournalSettings, new_tail

        folder = Path(root)
        (folder / "keys").mkdir()
        disk, clock = DirectoryDisk(folder), SystemClock()
        journal = Journal(disk, new_tail(), clock, JournalSettings(mode=mode, writer_cpus=frozenset(every)))  # type: ignore[arg-type]
        events = EventLogWriter(folder / "events", journal.identity, bytes(16))
        core, keys = Core(), KeyRegistry(disk)
        keys.register(public_hex(load_or_create_key(folder / "keys/operator.key")), [], ["operator"], "", 0)
        sequencer = Sequencer(core, clock, journal, events, durable_acks=mode == "durable", chain=journal.chain)
        wanted = GatewaySettings(port=0, ack_mode=mode, batch_interval_s=0, **settings)
        server = GatewayServer(wanted, sequencer, journal, core, keys, clock)
        host, port = await server.start()
        gc.collect()
        gc.freeze()  # as byline.processes.core does
        pipe.send(f"ws://{host}:{port}")
        await asyncio.to_thread(_answer, pipe)
        await server.stop()
        journal.close()
        pipe.send((core.sequence, core.state_hash().hex()))
        events.close()

    uvloop.run(echo() if mode == "echo" else exchange())


@dataclass(frozen=True, slots=True)
class Served:
    """A running server; `keys` are of its accounts, one for each connection (none of an echo)."""

    mode: Mode
    url: str
    root: Path
    keys: list[Ed25519PrivateKey]
    process: SpawnProcess
    pipe: Connection

    def cpu_s(self) -> tuple[float, float]:
        """CPU time of the loop's thread and of the whole process so far, seconds."""
        self.pipe.send("cpu")
        if not self.pipe.poll(20):
            raise WrongResult(f"the {self.mode} server does not answer")
        loop, process = self.pipe.recv()
        return float(loop), float(process)

    def stop(self) -> None:
        """End it. Raises WrongResult if its journal, replayed, gives another state than it had."""
        self.pipe.send("stop")
        if not self.pipe.poll(30):
            raise WrongResult(f"the {self.mode} server does not stop")
        ended = self.pipe.recv()
        self.process.join(20)
        if self.mode != "echo" and replayed_hash(self.root) != ended:
            raise WrongResult("replaying the journal gives another state")


@contextmanager
def serving(mode: Mode, folder: Path, connections: int, **settings: Any) -> Iterator[Served]:
    """A fresh server with a market and an account for each connection. It is ended and checked on the way out.

    `settings`: of GatewaySettings, where they are others than the usual ones.
    """
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, str(folder), mode, settings))
    process.start()
    try:
        if not mine.poll(60):
            raise WrongResult(f"the {mode} server did not start")
        url = mine.recv()
        keys = [] if mode == "echo" else asyncio.run(prepare(url, folder, connections))
        served = Served(mode, url, folder, keys, process, mine)
        yield served
        served.stop()
    finally:
        if process.is_alive():
            process.kill()
            process.join()


CHECKPOINT_BYTES = 48 << 20
CHECKPOINT_S = 2.0
LOG_BYTES = 50_000
LOG_S = 0.01


def _make_noise(folder: str) -> None:
    pin(1)
    with open(Path(folder) / "log", "wb") as log, open(Path(folder) / "checkpoint", "wb") as pages:
        last = 0.0
        while True:
            log.write(bytes(LOG_BYTES))
            log.flush()
            os.fdatasync(log.fileno())
            if time.monotonic() - last > CHECKPOINT_S:
                last = time.monotonic()
                pages.seek(0)
                pages.write(bytes(CHECKPOINT_BYTES))
                pages.flush()
                os.fsync(pages.fileno())
                log.seek(0)
            time.sleep(LOG_S)


@contextmanager
def database_noise(folder: Path) -> Iterator[None]:
    """What a busy database does to the disk: 5 MB/s of synced log, and 48 MB written and synced every 2 s."""
    folder.mkdir(exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=_make_noise, args=(str(folder),))
    process.start()
    try:
        time.sleep(0.5)
        yield
        if not process.is_alive():
            raise WrongResult("the noise ended before the run did")
    finally:
        process.kill()
        process.join()
