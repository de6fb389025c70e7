"""One process of the API over a database without Redis, several with it."""

import asyncio

import pytest

from engine.messages.errors import SettingsInvalid
from platform_api.kernel import alone
from platform_api.kernel.alone import Place
from platform_api.kernel.background import in_background
from tests.support.api import opened
from tests.support.waiting import HANG_S


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(alone, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(alone, "LOOK_SECONDS", 0.01)


async def test_second_process_without_redis_does_not_start_and_says_why(api_dsn):
    async with opened(api_dsn) as one, opened(api_dsn) as other, in_background(one.kernel):
        with pytest.raises(SettingsInvalid, match="BYLINE_REDIS_URL"):
            await in_background(other.kernel).__aenter__()
    free = Place(api_dsn, is_shared=False)
    await asyncio.wait_for(_free(free), HANG_S)
    await free.close()


async def test_processes_with_redis_stand_side_by_side_and_none_without_beside_them(api_dsn):
    first, second, whole = (Place(api_dsn, is_shared=shared) for shared in (True, True, False))
    await asyncio.wait_for(_free(first), HANG_S)
    await second.begin()
    with pytest.raises(SettingsInvalid):
        await whole.begin()
    await first.close()
    with pytest.raises(SettingsInvalid):
        await whole.begin()
    await second.close()
    await asyncio.wait_for(_free(whole), HANG_S)
    with pytest.raises(SettingsInvalid):
        await first.begin()
    await first.close()
    await whole.close()


async def test_process_that_lost_its_place_while_the_database_was_away_ends(api_dsn):
    ended = asyncio.Event()
    one, other = Place(api_dsn, is_shared=False, end=ended.set), Place(api_dsn, is_shared=False)
    await asyncio.wait_for(_free(one), HANG_S)
    async with opened(api_dsn) as world:
        gone = (
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
        await world.sql(gone)
        await asyncio.wait_for(_free(other), HANG_S)
        running = asyncio.create_task(one.run())
        await asyncio.wait_for(ended.wait(), HANG_S)
        await running
        await other.close()
    await one.close()


async def test_database_that_is_away_stops_nothing(api_dsn):
    place = Place("postgresql://nobody@127.0.0.1:1/nothing", is_shared=False)
    await place.begin()
    await place.close()


async def _free(place):
    """PostgreSQL notices by itself that a connection is gone."""
    while True:
        try:
            await place.begin()
            return
        except SettingsInvalid:
            await asyncio.sleep(0.05)
