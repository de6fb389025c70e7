"""The pool of connections to PostgreSQL, opened lazily so that the API starts, and trades, without a database.

Every way in which a server can be away (not there, starting, stopping, its socket gone, too slow, not migrated yet)
becomes `Unavailable`, here and nowhere else; a deadlock becomes `Deadlock`, out of which another try helps. What
PostgreSQL says about a statement otherwise is passed on as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import asyncpg

from engine.messages.errors import Unavailable

__all__ = ["AWAY", "Database", "Deadlock", "insertion", "nothing_left_behind"]

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
    asyncpg.InternalClientError,  # told that the server goes down, before its end of the line
)
CONNECT_SECONDS_MAX = 3.0
GIVEN_WAY_SECONDS_MAX = 0.25
STATEMENTS_MAX = 1_000
"""Prepared statements that a connection keeps. The platform has several hundred; of the driver's own hundred the oldest
would go just before they are used again, each to be parsed, described and planned anew."""
NO_CASTS: Mapping[str, str] = MappingProxyType({})


class Deadlock(Unavailable):
    """Two transactions waited for each other; this one was ended and rolled back. The same again will do."""


def insertion(table: str, fields: Mapping[str, Any], casts: Mapping[str, str] = NO_CASTS) -> tuple[str, list[Any]]:
    """`INSERT INTO table (…) VALUES (…)` and its arguments, from a column's name to its value; add what follows.

    `casts`: what is written behind the placeholder of a column, as `::text::int4multirange`. Names are ours, never a
    caller's.
    """
    places = (f"${number}{casts.get(name, '')}" for number, name in enumerate(fields, 1))
    return f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({', '.join(places)})", list(fields.values())


async def nothing_left_behind(connection: Any) -> None:
    """In place of the pool's own RESET ALL, a round trip for each use: nothing here sets anything for a session, and
    the pool has rolled back what was open. tests/unit/platform_api/test_database.py holds the statements to that."""


class Database:
    """Bounded: at most `connections_max` connections; besides, for what keeps one while the core is asked, which may
    stall, `core_connections_max` of those who are here, and as many of newcomers, who may be any number. A caller waits
    for one at most `query_seconds_max`."""

    def __init__(
        self, dsn: str, *, connections_max: int = 8, core_connections_max: int = 4, query_seconds_max: float = 5.0
    ) -> None:
        self._dsn = dsn
        self._connections_max, self._core_connections_max = connections_max, core_connections_max
        self._query_seconds_max = query_seconds_max
        self._pool: Any = None
        self._pool_beside_core: Any = None
        self._pool_of_newcomers: Any = None
        self._turns: WeakValueDictionary[tuple[str, ...], asyncio.Semaphore] = WeakValueDictionary()
        self._waiting = 0
        """How many await a turn."""
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()
        self.observe: Callable[[float], None] | None = None
        """Told how long each connection was in use, in seconds."""

    async def open(self) -> None:
        """Makes the pools. Does not connect."""
        self._pool = await self._made(self._connections_max)
        self._pool_beside_core = await self._made(self._core_connections_max)
        self._pool_of_newcomers = await self._made(self._core_connections_max)

    async def close(self) -> None:
        pools = self._pool, self._pool_beside_core, self._pool_of_newcomers
        self._pool = self._pool_beside_core = self._pool_of_newcomers = None
        for pool in filter(None, pools):
            try:
                await asyncio.wait_for(pool.close(), CONNECT_SECONDS_MAX)
            except AWAY:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """One connection of the pool.

        Raises:
            Unavailable: the database is away, or went away inside the block; `Deadlock`.
        """
        async with self._lent(self._pool, "the database is not reachable") as connection:
            yield connection

    @asynccontextmanager
    async def turn(self, *key: str, places: int = 2, needed: bool = True) -> AsyncIterator[None]:
        """So many at a time, of those in this process that would wait for the same rows: without a connection each, of
        which a dozen buyers of one work took all there are. Of two the second gets ready while the first commits.
        Around a transaction, never inside one. It spares others the wait; what must be so the locks of the rows see to.

        `needed`: if not, whoever waits too long goes on without.

        Raises:
            Unavailable: those before it took too long.
        """
        turns = self._turns.setdefault(key, asyncio.Semaphore(places))  # gone with the last who holds or awaits one
        is_held = True
        try:
            if turns.locked():
                with self._counted():
                    await asyncio.wait_for(turns.acquire(), self._query_seconds_max)
            else:
                await turns.acquire()
        except TimeoutError as error:
            if needed:
                raise Unavailable("too many change the same at once") from error
            is_held = False
        try:
            yield
        finally:
            if is_held:
                turns.release()

    async def give_way(self) -> None:
        """Until nobody waits for a turn, or a quarter of a second: before what may be done a moment later, so that what
        a dozen buyers of one work leave to be done afterwards does not stand in their own way."""
        if not self._waiting:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._nobody_waits.wait(), GIVEN_WAY_SECONDS_MAX)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._waiting += 1
        self._nobody_waits.clear()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._nobody_waits.set()

    async def _made(self, connections_max: int) -> Any:
        return await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=connections_max,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=self._query_seconds_max,
            reset=nothing_left_behind,
            statement_cache_size=STATEMENTS_MAX,
        )

    @asynccontextmanager
    async def _lent(self, pool: Any, away: str) -> AsyncIterator[Any]:
        if pool is None:
            raise Unavailable("the database is not open")
        try:
            async with pool.acquire(timeout=self._query_seconds_max) as connection:
                started = time.perf_counter()
                try:
                    yield connection
                finally:
                    if self.observe is not None:
                        self.observe(time.perf_counter() - started)
        except AWAY as error:
            raise Unavailable(away) from error
        except asyncpg.DeadlockDetectedError as error:
            raise Deadlock("two transactions waited for each other") from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """One connection inside a transaction; an exception rolls back. Raises Unavailable."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection_beside_core(self, *, newcomer: bool = False) -> AsyncIterator[Any]:
        """One of the few that are kept while the core is asked, which may answer late, or not at all, for seconds: who
        comes next waits without one. Newcomers wait for one another alone.

        Raises:
            Unavailable: as `connection`; also if none of those before it ends in time.
        """
        away = "the database is not reachable, or too many wait for the core"
        pool = self._pool_of_newcomers if newcomer else self._pool_beside_core
        async with self._lent(pool, away) as connection:
            yield connection

    @asynccontextmanager
    async def transaction_beside_core(self, *, newcomer: bool = False) -> AsyncIterator[Any]:
        """The same inside a transaction: for what must stay locked until the core has answered."""
        async with self.connection_beside_core(newcomer=newcomer) as connection, connection.transaction():
            yield connection

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Rows of a read. Raises Unavailable."""
        async with self.connection() as connection:
            rows: list[Any] = await connection.fetch(query, *arguments)
            return rows

    async def fetch_row(self, query: str, *arguments: Any) -> Any:
        """The first row of a read, or None. Raises Unavailable."""
        async with self.connection() as connection:
            return await connection.fetchrow(query, *arguments)

    async def execute(self, query: str, *arguments: Any) -> str:
        """A statement of its own; returns PostgreSQL's command tag. Raises Unavailable."""
        async with self.connection() as connection:
            return str(await connection.execute(query, *arguments))
