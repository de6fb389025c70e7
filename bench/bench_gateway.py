"""Order entry over loopback, each figure beside a bare picows echo of the same bytes in the same run.

Every second command places a limit order, one in ten of which crosses the spread, every other cancels what the same
connection placed eight orders before; each connection is an account of its own, so nearly every fill is told to another
one as well. The server has core 0; the load client, in C, has core 1 and shares it with the journal's writer. Five
runs, in each of which echo and candidates take turns; medians of the five. The journal is written in every row: paced
in mode `memory`, back to back in mode `durable`.

    1 connection, JSON           round trip, memory acks
    32 connections, JSON         throughput with one frame in flight, and the CPU time of the gateway's loop an order
    32 connections, records      throughput of frames of 16 records, one and four in flight, memory and durable acks
    20,000 orders/s, JSON        open loop on 32 connections, durable acks; times from the planned moment of sending:
                                 a stall is charged to all behind it; beside it the disk's own fdatasync, and once
                                 more while another process syncs a log and 48 MB every 2 s
    10,000 and 20,000 orders/s   the same with memory acks, while a market data server on the client's core feeds every
                                 trade to 1,000 readers there (bench/gateway_feeding.py)
    journal append               beside the CRC32C and the copy of a record alone (bench/gateway_append.py)

Checked before a row is written: every command was answered, for itself, in order, with what it must bring about; the
sequences of all answers of a run are one range without a gap; replaying each server's journal gives its last state.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from bench.gateway_append import append_row
from bench.gateway_client import Draws, Plan, Result, connect, disk_sync_us, drive, judge, plan
from bench.gateway_feeding import feeding
from bench.gateway_server import Served, database_noise, pin, serving
from bench.gateway_system import system_rates
from bench.harness import Row, median

LEFT_OUT = (
    "TLS, a network, rate limits; other processes of the exchange, except in the rows `whole system`, which the smoke "
    "size lacks; the load of `whole system` is Python and fills a core of its own"
)
MIX = "1/2 limit orders, one in ten of which crosses the spread, 1/2 cancels of what was placed eight orders before"
CONNECTIONS = 32
TRIALS = 5
FRAME = 16
OPEN_RATE = 20_000
READERS = 1_000
FED_MUST_US = {10_000: 1_000.0, 20_000: 4_000.0}
SYSTEM_MUST: dict[Literal["memory", "durable"], float | None] = {"memory": 20_000.0, "durable": None}

Figures = dict[str, list[float]]


class _Bench:
    """The servers of one bench run and the draws of its load."""

    def __init__(self, servers: Sequence[Served], seed: int) -> None:
        self.by_mode = {served.mode: served for served in servers}
        self._rng = np.random.default_rng(seed)
        self._runs = 0

    def run(
        self, mode: Literal["echo", "memory", "durable"], protocol: str, connections: int, commands: int, *,
        in_flight: int = 1, per_frame: int = 1, rate: float | None = None,
    ) -> tuple[Result, float]:  # fmt: skip
        """One run of fresh connections; the answers are judged. Also the CPU time of the server's loop, seconds."""
        served = self.by_mode[mode]
        self._runs += 1
        keys = served.keys[:connections] if served.keys else [None] * connections
        sockets = [connect(served.url, key, protocol) for key in keys]
        try:
            plans: list[Plan] = [
                plan(
                    "echo" if mode == "echo" else protocol,
                    Draws.of(commands, f"r{self._runs}c{number}", self._rng),
                    signed.account, per_frame, binary_echo=protocol == "binary",
                )
                for number, signed in enumerate(sockets)
            ]  # fmt: skip
            before = served.cpu_s()[0]
            result = drive(sockets, plans, in_flight, rate)
            spent = served.cpu_s()[0] - before
        finally:
            for signed in sockets:
                signed.socket.close()
        if mode != "echo":
            judge(result)
        return result, spent


def _round_trip(bench: _Bench, figures: Figures, commands: int) -> None:
    for mode in ("echo", "memory"):
        result, _ = bench.run(mode, "json", 1, commands)
        figures[f"rtt {mode} p50"].append(result.percentile_us(50))
        figures[f"rtt {mode} p99"].append(result.percentile_us(99))


def _throughput(bench: _Bench, figures: Figures, connections: int, commands: int) -> None:
    for mode in ("echo", "memory", "durable"):
        result, spent = bench.run(mode, "json", connections, commands)
        figures[f"json {mode}"].append(result.commands / result.elapsed_s)
        figures[f"cpu {mode}"].append(spent / result.commands * 1e6)


def _records(bench: _Bench, figures: Figures, connections: int, commands: int) -> None:
    for in_flight in (1, 4):
        for mode in ("echo", "memory", "durable"):
            result, _ = bench.run(mode, "binary", connections, commands, in_flight=in_flight, per_frame=FRAME)
            orders = result.commands * (FRAME if mode == "echo" else 1)
            figures[f"records {mode} {in_flight}"].append(orders / result.elapsed_s)


def _open_loop(bench: _Bench, figures: Figures, connections: int, commands: int, rate: float, folder: str) -> None:
    for mode in ("echo", "durable"):
        result, _ = bench.run(mode, "json", connections, commands, rate=rate)
        figures[f"open {mode} p50"].append(result.percentile_us(50))
        figures[f"open {mode} p99"].append(result.percentile_us(99))
    figures["fdatasync"].append(disk_sync_us(folder))
    with database_noise(Path(folder) / "noise"):
        result, _ = bench.run("durable", "json", connections, commands, rate=rate)
        figures["noise durable p99"].append(result.percentile_us(99))


def _fed(folder: Path, connections: int, readers: int, commands: int, trials: int, seed: int) -> list[Row]:
    """Memory acks in open loop while market data is fed; the echo beside it has the feeding processes too, but idle."""
    figures: Figures = defaultdict(list)
    with (
        serving("echo", folder / "fed-echo", connections) as echo,
        serving("memory", folder / "fed-memory", connections) as memory,
        feeding(memory.root / "events", readers) as market_data,
    ):
        bench = _Bench([echo, memory], seed)
        pin(1)
        for _ in range(trials):
            for rate in FED_MUST_US:
                for mode in ("echo", "memory"):
                    before, begun = market_data.delivered(), time.monotonic()
                    result, _ = bench.run(mode, "json", connections, commands * rate // 10_000, rate=rate)
                    figures[f"{rate} {mode}"].append(result.percentile_us(99))
                    if mode == "memory":
                        frames = market_data.more_than(before) - before
                        figures[f"{rate} frames"].append(frames / (time.monotonic() - begun))
    rows = []
    for rate, must in FED_MUST_US.items():
        of = {name: median(figures[f"{rate} {name}"]) for name in ("echo", "memory", "frames")}
        case = f"JSON, {connections} connections, open loop at {rate:,}/s, {readers:,} readers fed on the client's core"
        rows.append(
            _compared(f"memory acks, {case}", "from plan to answer p99", of["memory"], "us", of["echo"], must)
        )
        rows.append(Row(f"memory acks, {case}", "frames to readers meanwhile", of["frames"], "1/s"))
    return rows


def _compared(case: str, metric: str, value: float, unit: str, echo: float, must: float | None) -> Row:
    return Row(case, metric, value, unit, echo, value / echo, must)


def _rows(of: dict[str, float], connections: int) -> list[Row]:
    """The rows, with what each must reach."""
    sync, echo_p50 = of["fdatasync"], of["open echo p50"]
    one, many = "JSON, 1 connection, 1 in flight", f"JSON, {connections} connections, 1 in flight"
    rows = [
        Row(f"bare picows echo, {one}", f"round trip {p}", of[f"rtt echo {p}"], "us") for p in ("p50", "p99")
    ] + [
        _compared(
            f"memory acks, {one}", f"round trip {p}", of[f"rtt memory {p}"], "us", of[f"rtt echo {p}"],
            most * of[f"rtt echo {p}"],
        )
        for p, most in (("p50", 1.10), ("p99", 1.25))
    ]  # fmt: skip
    rows += [
        Row(f"bare picows echo, {many}", "answers", of["json echo"], "1/s"),
        _compared(
            f"memory acks, {many}", "acked orders", of["json memory"], "1/s", of["json echo"], 0.65 * of["json echo"]
        ),
        _compared(f"durable acks, {many}", "acked orders", of["json durable"], "1/s", of["json echo"], None),
        _compared(f"memory acks, {many}", "CPU of the loop an order", of["cpu memory"], "us", of["cpu echo"], 10.0),
        _compared(f"durable acks, {many}", "CPU of the loop an order", of["cpu durable"], "us", of["cpu echo"], None),
    ]  # fmt: skip
    for in_flight in (1, 4):
        case = f"frames of {FRAME} records, {connections} connections, {in_flight} in flight"
        echo = of[f"records echo {in_flight}"]
        rows.append(Row(f"bare picows echo, {case}", "records", echo, "1/s"))
        for mode, must in (("memory", 1.0e6), ("durable", 0.5e6)):
            rows.append(
                _compared(f"{mode} acks, {case}", "acked orders", of[f"records {mode} {in_flight}"], "1/s", echo, must)
            )
    case = f"JSON, {connections} connections, open loop at {OPEN_RATE:,}/s"
    rows += [
        Row("fdatasync of one record, zero-filled file", "p50", sync, "us"),
        Row(f"bare picows echo, {case}", "from plan to answer p50", echo_p50, "us"),
        Row(f"bare picows echo, {case}", "from plan to answer p99", of["open echo p99"], "us"),
        _compared(
            f"durable acks, {case}", "from plan to answer p50", of["open durable p50"], "us", echo_p50,
            min(350.0, echo_p50 + 2.5 * sync),
        ),
        _compared(
            f"durable acks, {case}", "from plan to answer p99", of["open durable p99"], "us", of["open echo p99"],
            1_500.0,
        ),
        _compared(
            f"durable acks, {case}, beside a database that syncs 5 MB/s and checkpoints 48 MB",
            "from plan to answer p99",
            of["noise durable p99"], "us", of["open echo p99"], 6_000.0,
        ),
    ]  # fmt: skip
    return rows


def run(smoke: bool, seed: int) -> list[Row]:
    """The gateway alone, each figure beside the echo, then beside the whole system."""
    connections, trials = (4, 1) if smoke else (CONNECTIONS, TRIALS)
    figures: Figures = defaultdict(list)
    affinity = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="byline-bench-") as folder, ExitStack() as stack:
        servers = [
            stack.enter_context(serving(mode, Path(folder) / mode, connections))
            for mode in ("echo", "memory", "durable")
        ]
        bench = _Bench(servers, seed)
        pin(1)
        try:
            for _ in range(trials):
                _round_trip(bench, figures, 100 if smoke else 10_000)
                _throughput(bench, figures, connections, 60 if smoke else 3_000)
                _records(bench, figures, connections, 320 if smoke else 9_600)
                _open_loop(bench, figures, connections, 50 if smoke else 1_250, OPEN_RATE, folder)
        finally:
            os.sched_setaffinity(0, affinity)
        rows = _rows({name: median(values) for name, values in figures.items()}, connections)
        pin(1)
        try:
            rows.append(append_row(Path(folder) / "append", 20 if smoke else 200))
            rows += _fed(Path(folder), connections, 20 if smoke else READERS, 100 if smoke else 625, trials, seed)
        finally:
            os.sched_setaffinity(0, affinity)
    if not smoke:
        case = f"JSON, {CONNECTIONS} connections, 16 in flight, whole system beside it"
        for mode, must in SYSTEM_MUST.items():
            rate = median(system_rates(mode, 12_000, CONNECTIONS, 16, 3, seed))
            rows.append(Row(f"{mode} acks, {case}", "acked orders", rate, "1/s", must=must))
    return rows
