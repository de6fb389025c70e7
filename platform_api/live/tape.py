"""Trades of all markets for the channel `market`, read from the projection while somebody listens.

The projection holds what is durable in the journal and nothing else, in the order of the core, written by one writer:
what comes after the last trade read is the news, without gap or repeat. One that was built anew from another journal
ends before that place; then the tape goes on from its end. While the database is away the tape waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from engine.messages.errors import Unavailable
from platform_api.database import Database
from platform_api.exchange.reader import MarketReader
from platform_api.exchange.service import trade_of

__all__ = ["CHANNEL", "Tape", "told_if_broken"]

log = structlog.get_logger(__name__)

CHANNEL = "market"
BATCH_MAX = 500
POLL_SECONDS = 0.1
AWAY_SECONDS = 1.0


class Tape:
    def __init__(
        self, database: Database, reader: MarketReader, tell: Callable[[str, str], None], wanted: Callable[[str], bool]
    ) -> None:
        """`tell(channel, frame)`; `wanted(channel)`: is anybody there? Without anybody the tape stops."""
        self._database, self._reader = database, reader
        self._tell, self._wanted = tell, wanted
        self._at = (0, 0)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Afterwards every trade from now on is told. Raises Unavailable."""
        if self._task is not None and not self._task.done():
            return
        async with self._database.connection() as db:
            at = await self._reader.last_trade(db)
        if self._task is None or self._task.done():  # another reader may have started it meanwhile
            self._at = at
            self._task = asyncio.create_task(self._run(), name="tape")
            self._task.add_done_callback(told_if_broken)

    async def _run(self) -> None:
        await asyncio.sleep(0)  # whoever started it subscribes first
        while self._wanted(CHANNEL):
            try:
                count = await self._read()
            except Unavailable as error:
                log.warning("tape_waits", error=str(error))
                await asyncio.sleep(AWAY_SECONDS)
                continue
            if count < BATCH_MAX:
                await asyncio.sleep(POLL_SECONDS)

    async def _read(self) -> int:
        async with self._database.connection() as db:
            rows = await self._reader.trades_after(db, *self._at, BATCH_MAX)
            if not rows:
                self._at = min(self._at, await self._reader.last_trade(db))
        for row in rows:
            self._tell(CHANNEL, _frame(row))
            self._at = (row["sequence"], row["event_index"])
        return len(rows)


def told_if_broken(task: asyncio.Task[None]) -> None:
    """For tasks that end by themselves and should not end otherwise."""
    if not task.cancelled() and task.exception() is not None:
        log.error("background_ended", part=task.get_name(), exc_info=task.exception())


def _frame(row: Any) -> str:
    trade = trade_of({**row, "batch": None, "batch_status": None, "digests": ()}, row)
    shown = {"type": "trade", "occurred_at": trade.traded_at, "data": msgspec.to_builtins(trade)}
    return msgspec.json.encode({"type": "event", "channel": CHANNEL, "event": shown}).decode()
