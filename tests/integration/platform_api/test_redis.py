"""Rate limits and the event stream on a real Valkey server, and without it when it goes away."""

import asyncio
from contextlib import suppress

import pytest
import redis.asyncio as redis_client

from engine.messages.errors import Unavailable
from platform_api import limits as limits_module
from platform_api.kernel import stream as stream_module
from platform_api.kernel.background import in_background
from platform_api.kernel.events import Event, Events
from platform_api.kernel.stream import STREAM, EventStream
from platform_api.limits import HOUR_NS, Buckets, Limits
from tests.support.api import opened
from tests.support.valkey import ValkeyServer
from tests.support.waiting import HANG_S, answers


@pytest.fixture
def valkey(tmp_path, monkeypatch):
    monkeypatch.setattr(limits_module, "REDIS_SECONDS_MAX", HANG_S)  # a slow machine is not a server that is away
    server = ValkeyServer(tmp_path)
    server.start()
    yield server
    server.stop()


def shared(valkey, limit=5, period_ns=HOUR_NS):
    return Limits({"public": Buckets(limit, period_ns), "free": Buckets(0)}, valkey.url)


async def test_two_processes_spend_from_one_bucket_and_it_fills_again(valkey):
    first, second = shared(valkey), shared(valkey)
    try:
        verdicts = [await limits.take("public", "a") for limits in (first, second, first, second, first, second)]
        assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False]
        assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0]
        assert 700 <= verdicts[-1].retry_seconds <= 720 and verdicts[-1].limit == 5
        assert (await second.take("public", "b")).allowed
        assert await first.take("free", "a") is None
        crowd = await asyncio.gather(*(limits.take("public", "c") for limits in (first, second) for _ in range(20)))
        assert sum(verdict.allowed for verdict in crowd) == 5
        client = redis_client.from_url(valkey.url)
        assert 0 < await client.pttl("byline:limit:public:a") <= 3_600_000  # nothing is kept for ever
        await client.aclose()
    finally:
        await first.close()
        await second.close()


async def test_what_is_given_back_to_redis_may_be_taken_again_and_never_more(valkey):
    limits = shared(valkey, limit=2)
    try:
        await limits.give_back("public", "a")
        for _ in range(5):
            assert (await limits.take("public", "a")).allowed
            await limits.give_back("public", "a")
        await limits.give_back("public", "a")
        assert [(await limits.take("public", "a")).allowed for _ in range(3)] == [True, True, False]
    finally:
        await limits.close()


async def test_bucket_in_redis_fills_with_its_own_clock(valkey):
    limits = shared(valkey, limit=1000, period_ns=1_000_000_000)
    try:
        seen = 0
        while (await limits.take("public", "a")).allowed and seen < 100_000:
            seen += 1
        while not (await limits.take("public", "a")).allowed:
            await asyncio.sleep(0.001)
    finally:
        await limits.close()


async def test_f52_each_process_counts_for_itself_while_redis_is_away_and_shares_again_later(valkey, monkeypatch):
    monkeypatch.setattr(limits_module, "REDIS_AWAY_SECONDS", 0.0)
    first, second = shared(valkey, limit=2), shared(valkey, limit=2)
    try:
        assert (await first.take("public", "a")).remaining == 1
        valkey.stop()
        assert [(await first.take("public", "a")).allowed for _ in range(3)] == [True, True, False]
        assert [(await second.take("public", "a")).allowed for _ in range(3)] == [True, True, False]
        valkey.start()
        assert (await first.take("public", "a")).remaining == 1
        assert (await second.take("public", "a")).remaining == 0
    finally:
        await first.close()
        await second.close()


def event(id_="0197"):
    return Event(id_, "work.created", "2026-01-02T03:04:05.000000Z", None, "work", "w1", 1, {"title": "Ink"})


async def test_events_are_entries_of_the_stream_and_a_lost_server_is_unavailable(valkey):
    client, stream = redis_client.from_url(valkey.url), EventStream(valkey.url, Events(()))
    await stream.put(event())
    await stream.put(event())
    entries = await client.xrange(STREAM)
    assert len(entries) == 2 and b'"title":"Ink"' in entries[0][1][b"event"]
    valkey.stop()
    with pytest.raises(Unavailable):
        await stream.put(event())
    await client.aclose()
    await stream.close()


async def test_a_reader_hears_each_event_once_and_goes_on_where_it_stopped(valkey, monkeypatch):
    monkeypatch.setattr(stream_module, "AWAY_SECONDS", 0.01)
    events, heard = Events(()), []
    events.listen(lambda each: heard.append(each.event_id))
    stream = EventStream(valkey.url, events)
    await stream.put(event("before"))
    reading = asyncio.create_task(stream.run())
    try:
        async def told(id_):
            with suppress(Unavailable):  # it notices that a connection is gone by using it
                await stream.put(event(id_))
            return id_ in heard

        await answers(lambda: told("first"), bool, 0.01)  # put again and again until the reader has begun
        events.tell_listeners(event("own"))
        await stream.put(event("own"))
        await answers(lambda: told("second"), bool, 0.01)
        valkey.stop()
        valkey.start()
        await answers(lambda: told("third"), bool, 0.01)
        assert heard == ["first", "own", "second", "third"]
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        await stream.close()


async def test_listeners_of_every_process_hear_what_one_relay_hands_over(api_dsn, valkey):
    async with opened(api_dsn, redis_url=valkey.url) as one, opened(api_dsn, redis_url=valkey.url) as other:
        heard = {"one": [], "other": []}
        for name, world in (("one", one), ("other", other)):
            world.kernel.events.listen(lambda each, name=name: heard[name].append(each.event_id))
        async with in_background(one.kernel), in_background(other.kernel):
            client = redis_client.from_url(valkey.url)

            async def both_read():
                readers = [each for each in await client.client_list() if "xread" in each["cmd"]]
                return len(readers) == 2

            await answers(both_read, bool)
            ids = []
            for world in (one, other):
                async with world.kernel.database.transaction() as db:
                    ids.append(str(await world.kernel.events.publish(db, "session.revoked", ("session", "s"), {})))

            async def both_heard():
                return all(set(ids) <= set(each) for each in heard.values())

            await answers(both_heard, bool)
            await client.aclose()
        assert all(each.count(id_) == 1 for each in heard.values() for id_ in ids)
