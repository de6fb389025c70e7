"""Several processes of the API over one database need Redis; without it there is one process alone.

Limits and what event sockets hear are of one process where no Redis joins them: two such processes would let everybody
do twice as much, and tell each reader half. So each process holds an advisory lock of the database as long as it runs:
the whole lock without Redis, a shared one with it. Whoever does not get theirs does not start.

A connection of its own holds the lock, straight to PostgreSQL (a pooler would lend it to others). A database that is
away stops nothing: the lock is taken when it is back, and a process that finds it taken then ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from engine.messages.errors import SettingsInvalid
from platform_api.database import AWAY, CONNECT_SECONDS_MAX

__all__ = ["WORDS", "Place"]

log = structlog.get_logger(__name__)

LOCK = "hashtextextended('byline api', 0)"
WAIT_SECONDS = 10.0
"""For a process that is being stopped, and for PostgreSQL to notice one that was killed."""
LOOK_SECONDS = 5.0
WORDS = (
    "another process of the API serves this database, and not all of them have BYLINE_REDIS_URL: set the same one for "
    "all, or run one process"
)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Place:
    """One process among those over a database. `begin`, then `run` until cancelled, then `close`."""

    def __init__(self, dsn: str, *, is_shared: bool, end: Callable[[], None] = _end) -> None:
        self._dsn, self._end = dsn, end
        self._query = f"SELECT pg_try_advisory_lock{'_shared' if is_shared else ''}({LOCK})"
        self._connection: Any = None

    async def begin(self) -> None:
        """Raises SettingsInvalid if another process has the place; returns without it while the database is away."""
        until = asyncio.get_running_loop().time() + WAIT_SECONDS
        while await self._take() is False:
            if asyncio.get_running_loop().time() >= until:
                log.error("api_not_alone", why=WORDS)
                raise SettingsInvalid(WORDS)
            await asyncio.sleep(0.2)

    async def run(self) -> None:
        """Takes the place again after the database was away. Ends the process if another has it by then."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._connection is not None and not self._connection.is_closed():
                continue
            try:
                await self.begin()
            except SettingsInvalid:
                self._end()
                return

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _take(self) -> bool | None:
        """Whether this process has its place now; None: the database is away."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(
                    self._dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=CONNECT_SECONDS_MAX
                )
            return bool(await self._connection.fetchval(self._query))
        except AWAY:
            await self.close()
            return None
