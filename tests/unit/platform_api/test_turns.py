"""Who comes first where many want the same at once; no database is needed to wait for one's turn."""

import asyncio

import pytest

from engine.messages.errors import Unavailable
from platform_api import database as database_module
from platform_api.database import Database


@pytest.fixture
def database():
    return Database("postgresql://nobody@nowhere/none", query_seconds_max=30.0)


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_so_many_at_a_time_have_their_turn_and_who_came_first_is_first(database):
    inside: list[int] = []
    ends = [asyncio.Event() for _ in range(5)]

    async def one(number: int) -> None:
        async with database.turn("offer", "7"):
            inside.append(number)
            await ends[number].wait()

    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await _settled()
    assert inside == [0, 1]
    ends[1].set()
    await _settled()
    assert inside == [0, 1, 2]
    for end in ends:
        end.set()
    await asyncio.gather(*tasks)
    assert inside == [0, 1, 2, 3, 4]


async def test_another_key_has_turns_of_its_own(database):
    async with database.turn("offer", "7"), database.turn("offer", "7"), database.turn("offer", "8"):
        pass  # a third of the first key would wait for ever


async def test_who_waits_too_long_for_a_turn_is_told_and_takes_nobodys_place():
    database = Database("postgresql://nobody@nowhere/none", query_seconds_max=0.01)
    async with database.turn("offer", places=1):
        with pytest.raises(Unavailable, match="too many change the same at once"):
            async with database.turn("offer", places=1):
                raise AssertionError("it is not its turn")
    async with database.turn("offer", places=1):
        await database.give_way()  # nobody counts as waiting any more


async def test_who_needs_no_turn_goes_on_without_and_ends_nobodys():
    database = Database("postgresql://nobody@nowhere/none", query_seconds_max=0.01)
    async with database.turn("offer", places=1):
        async with database.turn("offer", places=1, needed=False):
            pass
        with pytest.raises(Unavailable):
            async with database.turn("offer", places=1):
                raise AssertionError("the place of the first was given away")


async def test_what_nobody_waits_for_begins_when_nobody_waits_for_a_turn(database, monkeypatch):
    monkeypatch.setattr(database_module, "GIVEN_WAY_SECONDS_MAX", 3_600.0)
    order: list[str] = []
    end = asyncio.Event()

    async def buyer(name: str) -> None:
        async with database.turn("offer", places=1):
            await end.wait()
            order.append(name)

    async def afterwards() -> None:
        await database.give_way()
        order.append("job")

    first = asyncio.create_task(buyer("first"))
    await _settled()
    second = asyncio.create_task(buyer("second"))
    await _settled()
    job = asyncio.create_task(afterwards())
    await _settled()
    assert order == []
    end.set()
    await asyncio.gather(first, second, job)
    assert order == ["first", "second", "job"]


async def test_it_gives_way_for_a_moment_and_not_for_ever(database, monkeypatch):
    monkeypatch.setattr(database_module, "GIVEN_WAY_SECONDS_MAX", 0.02)
    async with database.turn("offer", places=1):
        waiting = asyncio.create_task(_take(database))
        await _settled()
        await database.give_way()
        assert not waiting.done(), "somebody waited all the while"
    await waiting


async def _take(database: Database) -> None:
    async with database.turn("offer", places=1):
        pass
