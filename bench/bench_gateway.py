"""Order entry over loopback: acked orders a second in both ack modes, beside a bare picows echo of the same run.

    alone          the gateway in a process of its own (on core 0 if there are two), the load generator here (core 1)
    whole system   a real exchange (PostgreSQL, Move VM, market data, REST, simulated traders), nothing pinned

32 connections, each its own account, with 16 frames or one in flight. Each command is one JSON frame; two of three
place a limit order near one price, the third cancels an earlier one of the same connection. Checked before a row is
written: every frame was answered, in order, accepted, canceled, or rejected for an order that has gone; alone, the
sequences of all acks are one gapless range, in the whole system they rise per connection and none comes twice; and
replaying the journal gives the server's last state hash.

The echo writes each answer by itself, the gateway those of one turn of its loop together: with several frames in
flight it can be the faster of the two. With one in flight each answer is a write of its own on both sides.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import picows
import uvloop

from bench.gateway_load import Load, check_answers, commands, prepare, replayed_hash, run_load
from bench.gateway_system import system_rates
from bench.harness import Row, WrongResult, median

LEFT_OUT = (
    "TLS, a network; other processes of the exchange, except in the rows `whole system`, which the smoke size lacks; "
    "the load generator is Python, sends several frames a write and fills its own core, so figures are lower bounds"
)
CONNECTIONS = 32
IN_FLIGHT = 16
MODES = ("echo", "memory", "durable")
MUST = {"memory": 60_000.0, "durable": 30_000.0}
SYSTEM_MUST: dict[Literal["memory", "durable"], float | None] = {"memory": 20_000.0, "durable": None}


class _Echo(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


def _pin(core: int) -> None:
    if (os.cpu_count() or 1) > 1 and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def _serve(pipe: Connection, root: str, mode: str) -> None:
    """The server's process: tells its URL, runs until told to stop, tells where it ended."""
    every = os.sched_getaffinity(0)
    _pin(0)

    async def echo() -> None:
        server = await picows.ws_create_server(lambda _: _Echo(), "127.0.0.1", 0)
        pipe.send(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.to_thread(pipe.recv)
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
        server = GatewayServer(
            GatewaySettings(port=0, ack_mode=mode, batch_interval_s=0), sequencer, journal, core, keys, clock
        )
        host, port = await server.start()
        pipe.send(f"ws://{host}:{port}")
        await asyncio.to_thread(pipe.recv)
        await server.stop()
        journal.close()
        pipe.send((core.sequence, core.state_hash().hex(), server.counters.as_dict()))
        events.close()

    uvloop.run(echo() if mode == "echo" else exchange())


def _trial(mode: str, count: int, connections: int, in_flight: int, seed: int) -> float:
    """Answers a second of one fresh server."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        root.mkdir()
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, str(root), mode))
        process.start()
        try:
            if not mine.poll(30):
                raise WrongResult(f"the {mode} server did not start")
            url = mine.recv()
            rng = random.Random(seed)
            frames = [commands(count, number, rng) for number in range(connections)]

            async def go() -> tuple[float, list[Load]]:
                keys = [None] * connections if mode == "echo" else await prepare(url, root, connections)
                return await run_load(url, list(zip(frames, keys, strict=True)), in_flight)

            elapsed, loads = uvloop.run(go())
            mine.send("stop")
            result = mine.recv()
            process.join(20)
        finally:
            if process.is_alive():
                process.kill()
                process.join()
        total = count * connections
        if mode == "echo":
            if any(len(load.acks) != count for load in loads):
                raise WrongResult("the echo lost frames")
        else:
            sequence, state_hash, _ = result
            if sorted(check_answers(loads)) != list(range(sequence - total + 1, sequence + 1)):
                raise WrongResult(f"{total} acks do not fill the sequences up to {sequence}")
            if replayed_hash(root) != (sequence, state_hash):
                raise WrongResult("replaying the journal gives another state")
        return total / elapsed


def _rates(count: int, connections: int, in_flight: int, trials: int, seed: int) -> dict[str, float]:
    """Medians of echo, memory and durable, measured in turns."""
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    affinity = os.sched_getaffinity(0)
    _pin(1)
    try:
        for trial in range(trials):
            for mode, values in rates.items():
                values.append(_trial(mode, count, connections, in_flight, seed + trial))
    finally:
        os.sched_setaffinity(0, affinity)
    return {mode: median(values) for mode, values in rates.items()}


def run(smoke: bool, seed: int) -> list[Row]:
    """Alone with several frames in flight and with one, then beside the whole system."""
    connections, trials = (4, 1) if smoke else (CONNECTIONS, 3)
    rows: list[Row] = []
    for in_flight, count in ((IN_FLIGHT, 150 if smoke else 6_000), (1, 50 if smoke else 1_000)):
        rates = _rates(count, connections, in_flight, trials, seed)
        echo = rates["echo"]
        where = f"JSON, {connections} connections, {in_flight} in flight"
        rows.append(Row(f"bare picows echo, {where}", "answers", echo, "1/s"))
        for mode in ("memory", "durable"):
            must = MUST[mode] if in_flight == IN_FLIGHT and not smoke else None
            rows.append(
                Row(f"{mode} acks, {where}", "acked orders", rates[mode], "1/s", echo, rates[mode] / echo, must)
            )
    if not smoke:
        echo = rows[0].value
        where = f"JSON, {connections} connections, {IN_FLIGHT} in flight, whole system beside it"
        for mode, must in SYSTEM_MUST.items():
            rate = median(system_rates(mode, 12_000, connections, IN_FLIGHT, trials, seed))
            rows.append(Row(f"{mode} acks, {where}", "acked orders", rate, "1/s", echo, rate / echo, must))
    return rows
