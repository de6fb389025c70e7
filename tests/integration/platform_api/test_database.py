"""The pool of connections over a real PostgreSQL: what a user of one leaves behind, the next one does not meet."""

import asyncio
import struct

import asyncpg
import pytest

from engine.messages.errors import Unavailable
from platform_api.database import Database, Deadlock


@pytest.fixture
async def database(api_dsn):
    database = Database(api_dsn, connections_max=1)
    await database.open()
    yield database
    await database.close()


async def test_transaction_left_open_is_rolled_back_before_the_next_use(database):
    async with database.connection() as db:
        first = await db.fetchval("SELECT pg_backend_pid()")
        await db.execute("BEGIN")
        await db.execute("INSERT INTO taxonomy.genre VALUES ('left_behind', 'Left behind', 99)")
    async with database.connection() as db:
        assert await db.fetchval("SELECT pg_backend_pid()") == first  # the same one
        assert not db.is_in_transaction()
        assert await db.fetchval("SELECT count(*) FROM taxonomy.genre WHERE code = 'left_behind'") == 0


async def test_one_of_two_transactions_that_wait_for_each_other_may_try_again(api_dsn):
    database = Database(api_dsn, connections_max=2)
    await database.open()
    both = asyncio.Barrier(2)

    async def change(first, second):
        async with database.transaction() as db:
            await db.execute("SELECT pg_advisory_xact_lock($1)", first)
            await both.wait()
            await db.execute("SELECT pg_advisory_xact_lock($1)", second)

    answers = await asyncio.gather(change(71, 72), change(72, 71), return_exceptions=True)
    await database.close()
    assert sorted(type(answer) for answer in answers if answer is not None) == [Deadlock]


async def test_server_that_says_it_dies_before_the_connection_ends_is_away(database):
    said = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection because of crash of another server process\0\0"
    with pytest.raises(Unavailable):
        async with database.connection() as db:
            db._con._protocol.data_received(b"E" + struct.pack("!i", len(said) + 4) + said)
            await db.fetchval("SELECT 1")


async def test_failed_transaction_leaves_a_connection_that_works(database):
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as db:
            await db.execute("INSERT INTO taxonomy.genre VALUES ('drama', 'Again', 98)")
    assert await database.fetch("SELECT 1 FROM taxonomy.genre WHERE code = 'drama'")
