"""Order entry over loopback: acked orders a second in both ack modes, beside a bare picows echo of the same run.

The server runs in a process of its own (on core 0 if there are two), the load generator in this one (core 1): 32
connections, each its own account, with some frames in flight. Each command is one JSON frame; two of three place a
limit order near one price, the third cancels an earlier one of the same connection. Checked before a row is written:
every frame was answered, in order; the sequences of all acks are one gapless range; every answer is accepted,
canceled, or rejected for an order that has gone; and replaying the journal gives the server's state hash.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import picows
import uvloop

from bench.gateway_load import Load, frame, run_load
from bench.harness import Row, WrongResult, median
from byline.client import TradingClient, generate_key, load_key, public_key

LEFT_OUT = (
    "TLS, a network, other processes of the exchange; the load generator is Python, sends several frames a write and "
    "fills its own core, so the figures are lower bounds"
)
CONNECTIONS = 32
IN_FLIGHT = 16
MARKET = "CRT-USD"


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
        from gateway.sequencer import Sequencer
        from persistence.event_log import EventLogWriter

        from engine.core import Core
        from gateway.keys import KeyRegistry, load_or_create_operator_key, public_hex
        from gateway.server import GatewayServer
        from gateway.settings import GatewaySettings
        from persistence.disk import DirectoryDisk, SystemClock
        from persistence.journal import Journal, JournalSettings, new_tail

        folder = Path(root)
        (folder / "keys").mkdir()
        disk, clock = DirectoryDisk(folder), SystemClock()
        journal = Journal(disk, new_tail(), clock, JournalSettings(mode=mode, writer_cpus=frozenset(every)))  # type: ignore[arg-type]
        events = EventLogWriter(folder / "events", journal.identity, bytes(16))
        core, keys = Core(), KeyRegistry(disk)
        keys.register(public_hex(load_or_create_operator_key(folder / "keys/operator.key")), [], ["operator"], "", 0)
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


def _commands(count: int, number: int, rng: random.Random) -> list[bytes]:
    """The frames of one connection."""
    frames = []
    for rid in range(count):
        if rid % 3 == 2:
            text = f'{{"rid":{rid},"op":"cancel","client_id":"c{number}-{rng.randrange(max(0, rid - 30), rid)}"}}'
        else:
            side, price = ("buy", rng.randrange(95, 102)) if rng.random() < 0.5 else ("sell", rng.randrange(99, 106))
            text = (
                f'{{"rid":{rid},"op":"place","market":"{MARKET}","client_id":"c{number}-{rid}","side":"{side}",'
                f'"type":"limit","size":"{rng.randrange(1, 9)}","price":"{price / 100:.2f}"}}'
            )
        frames.append(frame(text.encode()))
    return frames


async def _prepare(url: str, root: Path, connections: int) -> list[object]:
    """Accounts, money and keys."""
    keys = []
    operator = load_key((root / "keys/operator.key").read_text())
    async with await TradingClient.connect(url, operator) as client:
        await client.command("asset", asset="USD", scale=6)
        await client.command("asset", asset="CRT", scale=2)
        await client.command("market", market=MARKET, base="CRT", quote="USD", tick="0.01", lot="1")
        for number in range(connections):
            await client.command("account", account=f"t{number}")
            for asset in ("USD", "CRT"):
                await client.command(
                    "deposit", account=f"t{number}", asset=asset, amount="100000000", ref=f"{asset}{number}"
                )
            keys.append(generate_key())
            await client.register_key(public_key(keys[-1]), [f"t{number}"], ["trade"])
    return keys


def _check(loads: list[Load], first: int, last: int) -> None:
    """Every answer is there, in order, with a result that can be, and the sequences have no gap."""
    sequences = []
    for load in loads:
        for rid, text in enumerate(load.acks):
            ack = json.loads(text)
            if ack["rid"] != rid:
                raise WrongResult(f"answer {rid} is for request {ack['rid']}")
            gone = ack.get("event") == "rejected" and ack["reason"] == "unknown_order"
            if ack.get("event") not in ("accepted", "canceled") and not gone:
                raise WrongResult(f"unexpected answer {text!r}")
            sequences.append(ack["sequence"])
    if sorted(sequences) != list(range(first, last + 1)):
        raise WrongResult(f"{len(sequences)} acks do not fill the sequences {first}-{last}")


def replayed_hash(root: Path) -> tuple[int, str]:
    """Sequence and state hash of a fresh core after the whole journal."""
    from persistence.disk import DirectoryDisk
    from persistence.recovery import replay

    core, _ = replay(DirectoryDisk(root))
    return core.sequence, core.state_hash().hex()


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
            frames = [_commands(count, number, rng) for number in range(connections)]

            async def go() -> tuple[float, list[Load]]:
                keys = [None] * connections if mode == "echo" else await _prepare(url, root, connections)
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
            _check(loads, sequence - total + 1, sequence)
            if replayed_hash(root) != (sequence, state_hash):
                raise WrongResult("replaying the journal gives another state")
        return total / elapsed


def run(smoke: bool, seed: int) -> list[Row]:
    """Echo, memory and durable in turns; medians."""
    connections, count, trials = (4, 150, 1) if smoke else (CONNECTIONS, 6_000, 3)
    rates: dict[str, list[float]] = {"echo": [], "memory": [], "durable": []}
    affinity = os.sched_getaffinity(0)
    _pin(1)
    try:
        for trial in range(trials):
            for mode, values in rates.items():
                values.append(_trial(mode, count, connections, IN_FLIGHT, seed + trial))
    finally:
        os.sched_setaffinity(0, affinity)
    echo = median(rates["echo"])
    where = f"JSON, {connections} connections, {IN_FLIGHT} in flight"
    rows = [Row(f"bare picows echo, {where}", "answers", echo, "1/s")]
    for mode, must in (("memory", 60_000.0), ("durable", 30_000.0)):
        rate = median(rates[mode])
        rows.append(
            Row(
                f"{mode} acks, {where}",
                "acked orders",
                rate,
                "1/s",
                echo,
                rate / echo,
                None if smoke else must,
                smoke or rate >= must,
            )
        )
    return rows
