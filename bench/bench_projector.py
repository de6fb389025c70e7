"""How fast the projector keeps PostgreSQL up with the core: events of a random flow, from a log that is already there.

Each run ends in a comparison of all balances and open orders in PostgreSQL with the core's.
"""

from __future__ import annotations

import asyncio
import bisect
import tempfile
import time
from pathlib import Path

import asyncpg
import numpy as np

from bench.harness import Row, WrongResult
from byline.embedded.postgres import EmbeddedPostgres
from engine.core import Core
from engine.messages import layout
from engine.messages.codes import EventKind
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder
from persistence.stores.postgres.migrate import migrate
from persistence.stores.postgres.projector import Projector, ProjectorSettings

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "the rest of the system beside it, the event log's file reads; client and server share the machine's cores"
ORDERS_FULL, ORDERS_SMOKE = 30_000, 2_000
TRADERS = 32
ORDERS_PER_S_MUST = 20_000


class _Log:
    """The events of all commands in one array; `ends[n]` is the slot behind the n-th command."""

    def __init__(self, slots: np.ndarray, ends: list[int]) -> None:
        self.slots, self._ends, self._at = slots, ends, 0
        self.head_sequence = len(ends)

    def seek(self, after_sequence: int) -> None:
        self._at = self._ends[after_sequence - 1] if after_sequence else 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        if self._at == len(self.slots):
            return self.slots[:0]
        first = bisect.bisect_right(self._ends, self._at)
        last = max(bisect.bisect_right(self._ends, self._at + limit_slots) - 1, first)
        start, self._at = self._at, self._ends[last]
        return self.slots[start : self._at]


def _events(order_count: int, seed: int) -> tuple[Core, _Log]:
    """Limit orders around one price on one market; about half of them trade, a fifth are cancelled."""
    core, directory, random = Core(), Directory(), np.random.default_rng(seed)
    encoder = CommandEncoder(directory)
    parts: list[np.ndarray] = []
    ends: list[int] = []

    def apply(command: dict[str, object]) -> None:
        record = encoder.encode(command)
        head = np.frombuffer(record, layout.COMMAND, count=1)
        head["sequence"], head["ts"] = len(ends) + 1, (len(ends) + 1) * 50_000
        events = np.array(core.apply(record)).view(layout.EVENT)
        directory.learn(events)
        parts.append(events)
        ends.append((ends[-1] if ends else 0) + len(events))

    apply({"op": "asset", "asset": "USD", "scale": 6})
    apply({"op": "asset", "asset": "NOVA", "scale": 4})
    terms: dict[str, object] = {"base": "NOVA", "quote": "USD", "tick": "0.01", "lot": "0.1"}
    apply({"op": "market", "market": "NOVA-USD"} | terms)
    for number in range(TRADERS):
        name = f"user:{number}"
        apply({"op": "account", "account": name})
        for asset in ("USD", "NOVA"):
            apply({"op": "deposit", "account": name, "asset": asset, "amount": "100000000", "ref": f"{name}:{asset}"})
    for number in range(order_count):
        account = f"user:{random.integers(TRADERS)}"
        buy = bool(random.integers(2))
        ticks = 1000 + int(random.normal(-2 if buy else 2, 4))
        apply(
            {
                "op": "place", "account": account, "market": "NOVA-USD", "client_id": f"c{number}",
                "side": "buy" if buy else "sell", "type": "limit", "price": f"{ticks / 100:.2f}",
                "size": f"{random.integers(1, 100) / 10:.1f}",
            }
        )  # fmt: skip
        if number % 5 == 4:
            apply({"op": "cancel", "account": account, "client_id": f"c{number}"})
    return core, _Log(np.concatenate(parts), ends)


async def _project(dsn: str, log: _Log) -> float:
    await migrate(dsn)
    projector = Projector(log, dsn, ProjectorSettings())
    start = time.perf_counter()
    while await projector.step():
        pass
    elapsed = time.perf_counter() - start
    await projector.close()
    return elapsed


async def _check(dsn: str, core: Core) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT account_id, asset_id, available, held FROM exchange.balance")
        stored = {tuple(row) for row in rows if row["available"] or row["held"]}
        if stored != {tuple(row.tolist()) for row in core.balances()}:
            raise WrongResult("balances in PostgreSQL differ from the core's")
        rows = await connection.fetch("SELECT order_id, leaves FROM exchange.orders WHERE status = 'open'")
        if {tuple(row) for row in rows} != {(int(o["order_id"]), int(o["leaves"])) for o in core.open_orders()}:
            raise WrongResult("open orders in PostgreSQL differ from the core's")
    finally:
        await connection.close()


def run(smoke: bool, seed: int) -> list[Row]:
    """Orders and events a second into an embedded PostgreSQL, as fast as it takes them."""
    core, log = _events(ORDERS_SMOKE if smoke else ORDERS_FULL, seed)
    accepted = int((log.slots["kind"] == EventKind.ACCEPTED).sum())
    with tempfile.TemporaryDirectory(prefix="bylinepg-") as directory:
        Path(directory).chmod(0o711)
        server = EmbeddedPostgres(Path(directory) / "pg")
        server.start()
        try:
            elapsed = asyncio.run(_project(server.dsn, log))
            asyncio.run(_check(server.dsn, core))
        finally:
            server.stop()
    rate = accepted / elapsed
    must, case = (None if smoke else float(ORDERS_PER_S_MUST)), "limit orders, a fifth cancelled"
    return [
        Row(case, "orders", rate, "orders/s", must=must, ok=smoke or rate >= ORDERS_PER_S_MUST),
        Row(case, "events", len(log.slots) / elapsed, "events/s"),
    ]
