"""A crowd that wants one work at once: who is served when, and what waits meanwhile."""

import asyncio

import msgspec
import pytest

from platform_api import database as database_module
from platform_api.kernel.background import in_background
from tests.support.api import opened
from tests.support.sales import shop_over

BUYERS = 7


class Greeting(msgspec.Struct, frozen=True):
    name: str


@pytest.fixture
async def shop(api_dsn):
    async with shop_over(api_dsn) as shop:
        yield shop


async def test_of_a_crowd_four_are_served_at_a_time_and_nobody_has_begun_before_his_turn(shop):
    _, _, _, _, offer = await shop.seller()
    buyers = [await shop.buyer("20") for _ in range(BUYERS)]
    real, asked, answers = shop.core.submit, asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def submit(command):
        if command.get("code") == "purchase":
            asked.release()
            await answers.acquire()
        return await real(command)

    shop.core.submit = submit
    written = "SELECT count(*) FROM payments.purchase WHERE offer_id = $1::text::uuid"
    crowd = [asyncio.create_task(shop.buy(bearer, offer, "balance")) for _, bearer in buyers]
    for _ in range(4):
        await asked.acquire()
    await asyncio.sleep(0.1)  # who had begun would be written by now, mostly
    (row,) = await shop.world.sql(written, offer["id"])
    assert row["count"] == 4, "the others are not begun: of whom is asked of the core is done first"
    answers.release()
    await asked.acquire()
    (row,) = await shop.world.sql(written, offer["id"])
    assert row["count"] == 5, "one has its answer, and one more is begun"
    for _ in range(BUYERS):
        answers.release()
    assert [(await one)["status"] for one in crowd] == ["completed"] * BUYERS
    await shop.finish()


async def test_a_crowd_whose_core_does_not_answer_is_taken_all_the_same(shop):
    """Nobody is told to come again: what is begun is done as soon as the core answers."""
    _, _, _, _, offer = await shop.seller()
    buyers = [await shop.buyer("20") for _ in range(BUYERS)]
    real, database = shop.core.submit, shop.world.kernel.database
    answer, asked = asyncio.Event(), asyncio.Semaphore(0)

    async def submit(command):
        if command.get("code") == "purchase":
            asked.release()
            await answer.wait()
        return await real(command)

    shop.core.submit = submit
    patience = database._query_seconds_max
    crowd = [asyncio.create_task(shop.buy(bearer, offer, "balance")) for _, bearer in buyers[:4]]
    for _ in range(4):
        await asked.acquire()
    database._query_seconds_max = 0.05
    late = asyncio.create_task(shop.buy(buyers[4][1], offer, "balance"))
    without_a_place = asyncio.create_task(asked.acquire())
    await asyncio.wait([late, without_a_place], return_when=asyncio.FIRST_COMPLETED)
    assert without_a_place.done(), await late
    database._query_seconds_max = patience
    answer.set()
    assert [(await one)["status"] for one in (*crowd, late)] == ["completed"] * 5
    await shop.finish()


async def test_jobs_and_events_wait_while_somebody_waits_for_a_turn(api_dsn, monkeypatch):
    monkeypatch.setattr(database_module, "GIVEN_WAY_SECONDS_MAX", 3_600.0)
    async with opened(api_dsn) as world:
        kernel, done = world.kernel, asyncio.Queue()

        async def greet(body):
            done.put_nowait("job")

        async def hear(db, event):
            done.put_nowait("event")

        kernel.jobs.handle("payments", "greet", Greeting, greet)
        kernel.events.subscribe("test.crowds", ["work.created"], hear)
        turn = kernel.database.turn("test", places=1)
        await turn.__aenter__()

        async def wait():
            async with kernel.database.turn("test", places=1):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        async with in_background(kernel):
            async with kernel.database.transaction() as db:
                await kernel.events.publish(db, "work.created", ("work", "ink"), {"for_accounts": []})
                await kernel.jobs.enqueue(db, "payments", "greet", Greeting("ink"))
            picked = "SELECT count(*) FROM jobs.pgqueuer WHERE status = 'picked'"
            while (await world.sql(picked))[0]["count"] == 0:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # what does not give way is done by now, mostly
            assert done.empty() and not waiting.done()
            await turn.__aexit__(None, None, None)
            assert {await done.get(), await done.get()} == {"job", "event"}
        await waiting
