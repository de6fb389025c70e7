"""Order entry of a whole exchange under load: what `byline up` starts, with everything it starts running beside.

The simulated traders trade at their default rate on their own markets, PostgreSQL is filled, cuts are settled by the
embedded chain, market data and REST serve. The load has a market of its own. Nothing is pinned to a core.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Literal

import uvloop

from bench.gateway_load import check_answers, commands, prepare, replayed_hash, run_load
from bench.harness import WrongResult
from byline.operator import gateway_url
from byline.settings import Settings
from byline.up import Exchange

__all__ = ["system_rates"]

PROJECTION_TIMEOUT_S = 60.0


def system_rates(
    mode: Literal["memory", "durable"], count: int, connections: int, in_flight: int, rounds: int, seed: int
) -> list[float]:
    """Acked orders a second of each round of load on one fresh exchange with ack mode `mode`.

    Raises:
        WrongResult: an answer is wrong, a process died, or the replayed journal differs from the core's last state.
        LocalFault: the exchange did not start.
    """
    with tempfile.TemporaryDirectory(prefix="byline-bench-") as folder:
        Path(folder).chmod(0o711)  # an embedded PostgreSQL under another uid must pass
        root = Path(folder) / "data"
        settings = Settings(root, api_port=0, gateway_port=0, marketdata_port=0, chain_port=0, ack_mode=mode, seed=seed)
        return uvloop.run(_rounds(settings, count, connections, in_flight, rounds))


async def _rounds(settings: Settings, count: int, connections: int, in_flight: int, rounds: int) -> list[float]:
    rates: list[float] = []
    sequences: list[int] = []
    rng = random.Random(settings.seed)
    exchange = Exchange(settings)
    async with exchange:
        url = gateway_url(settings)
        keys = await prepare(url, settings.data_directory, connections)
        for number in range(rounds):
            frames = [commands(count, number * connections + one, rng) for one in range(connections)]
            elapsed, loads = await run_load(url, list(zip(frames, keys, strict=True)), in_flight)
            sequences += check_answers(loads)
            rates.append(count * connections / elapsed)
        await _projecting(exchange, min(sequences))
        failed = [child.name for child in exchange.supervisor.failed()]
    if failed:
        raise WrongResult(f"processes died under the load: {failed}")
    final = exchange.status("core")
    if len(set(sequences)) != len(sequences) or max(sequences) > final["sequence"]:
        raise WrongResult("acked sequences come twice, or lie behind the end of the journal")
    if replayed_hash(settings.data_directory) != (final["sequence"], final["state_hash"]):
        raise WrongResult("replaying the journal gives another state than the core's last one")
    return rates


async def _projecting(exchange: Exchange, first: int) -> None:
    """Waits until PostgreSQL has some of the load. It need not have all: order entry does not wait for it either."""
    deadline = time.monotonic() + PROJECTION_TIMEOUT_S
    while exchange.status("backoffice")["projection"]["sequence"] <= first:
        if time.monotonic() > deadline:
            raise WrongResult("the projection stands still: the load did not run beside a whole system")
        await asyncio.sleep(0.1)
