"""Market data on another host: events over a real NATS server, late comers, lost messages, a server that dies."""

import asyncio
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from bench.records import commands
from bench.workload import generate
from byline.client.feeds import ArbitratedFeed
from byline.client.market_data import MarketDataClient
from byline.status_file import read_status
from engine.messages.errors import JournalCorrupt, RemoteFault, Unavailable
from marketdata import relay
from marketdata.relay import RelayedEvents, run_relay
from marketdata.server import serve
from marketdata.settings import MarketDataSettings
from persistence.chain_words import ChainWords
from persistence.disk import DirectoryDisk
from persistence.event_log import EventLogReader, EventLogWriter
from persistence.recovery import recover
from tests.support.exchange import ExchangeProcess
from tests.support.market_flow import Flow
from tests.support.nats import NatsServer
from tests.support.waiting import HANG_S, until
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload


@pytest.fixture
def server(tmp_path):
    running = NatsServer(tmp_path)
    yield running
    running.kill()


class Core:
    """A flow whose events stand in a real event log."""

    def __init__(self, directory, seed=1, identity=bytes(range(16))):
        self.flow = Flow(seed)
        self.directory = directory
        self.writer = EventLogWriter(directory, identity, bytes(16), threads=False)
        self.publish(self.flow.opening)

    def publish(self, events):
        assert self.writer.append_batch(events.view(np.uint8), self.writer.sequence + 1, self.flow.sequence) == 0

    def step(self, count):
        for _ in range(count):
            self.publish(self.flow.step())

    def end(self):
        """A command that changes the book, so that its sequence is seen."""
        self.publish(self.flow.place("buy", 80, 1))
        return self.flow.sequence


def no_word(_sequence):
    """A flow has events and no journal."""


@asynccontextmanager
async def relaying(core, url, word=no_word):
    """`core.directory` holds an event log; `word` asks the journal behind it."""

    async def source():
        return EventLogReader(core.directory)

    stop, status = asyncio.Event(), {}
    task = asyncio.create_task(run_relay(url, source, lambda: word, stop, status))
    while not status:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    try:
        yield status
    finally:
        stop.set()
        await task


@asynccontextmanager
async def elsewhere(url):
    """A market data process that knows the core by the relay alone; gives its URL and its events."""
    events = RelayedEvents(url)
    await events.start()
    stop, ready, status = asyncio.Event(), asyncio.Event(), {}
    settings = MarketDataSettings(port=0, flush_interval_ms=5)
    task = asyncio.create_task(serve(events, settings, stop=stop, status=status, ready=ready))
    async with asyncio.timeout(HANG_S):
        await ready.wait()
    try:
        yield f"ws://127.0.0.1:{status['port']}", events
    finally:
        stop.set()
        await task
        await events.close()


async def has(client, book, core):
    """Waits until the book is the core's."""
    final = core.end()
    async with asyncio.timeout(HANG_S):
        async for _ in client:
            if book.seq >= final:
                break
    assert (book.bids, book.asks) == core.flow.book_text() and book.gap_count == 0


async def test_book_of_another_host_is_the_cores_for_early_and_late_comers(server, tmp_path):
    core = Core(tmp_path, 3)
    core.step(3_000)  # more than one batch
    async with relaying(core, server.url), elsewhere(server.url) as (one, first):
        async with MarketDataClient(one) as client:
            book = await client.subscribe_book("NOVA-USD", mode="lossless")
            for _ in range(20):
                core.step(30)
                await asyncio.sleep(0.01)
            await has(client, book, core)
            async with elsewhere(server.url) as (two, _), MarketDataClient(two) as other:
                late = await other.subscribe_book("NOVA-USD", mode="lossless")
                core.step(50)
                await has(other, late, core)
                await has(client, book, core)
        assert first.gap_count == 0


async def test_server_that_dies_and_comes_back_leaves_no_hole(server, tmp_path):
    core = Core(tmp_path, 5)
    async with relaying(core, server.url), elsewhere(server.url) as (url, events), MarketDataClient(url) as client:
        book = await client.subscribe_book("NOVA-USD", mode="lossless")
        core.step(100)
        await has(client, book, core)
        server.kill()
        core.step(200)
        await asyncio.sleep(0.3)
        core.step(200)
        server.start()
        await has(client, book, core)
        core.step(50)
        await has(client, book, core)
        assert events.is_caught_up


async def test_lost_batch_is_asked_for(server, tmp_path, monkeypatch):
    core = Core(tmp_path, 6)
    async with relaying(core, server.url), elsewhere(server.url) as (url, events), MarketDataClient(url) as client:
        book = await client.subscribe_book("NOVA-USD", mode="lossless")
        await has(client, book, core)
        hear, count = events._joined.add, 0

        def lossy(payload):
            nonlocal count
            count += 1
            return None if count % 5 == 0 else hear(payload)

        monkeypatch.setattr(events._joined, "add", lossy)
        while events.gap_count < 3:
            core.step(3)
            await asyncio.sleep(0.012)
        await has(client, book, core)


async def test_command_larger_than_a_message_comes_in_parts(server, tmp_path, monkeypatch):
    monkeypatch.setattr(relay, "PART_BYTES", 1_000)
    monkeypatch.setattr(relay, "READ_SLOTS", 64)
    core = Core(tmp_path, 7)
    core.step(500)
    async with relaying(core, server.url), elsewhere(server.url) as (url, _), MarketDataClient(url) as client:
        book = await client.subscribe_book("NOVA-USD", mode="lossless")
        core.step(100)
        await has(client, book, core)


async def test_f64_no_server_is_said_and_another_journal_is_refused(server, tmp_path):
    with pytest.raises(Unavailable, match="nats://127.0.0.1:1"):
        await RelayedEvents("nats://127.0.0.1:1").start()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    core = Core(tmp_path / "one", 1)
    events = RelayedEvents(server.url)
    async with relaying(core, server.url):
        await events.start()
        while not events.is_caught_up:
            await asyncio.sleep(0.01)
        assert len(events.read())
    async with relaying(Core(tmp_path / "two", 2, identity=bytes(16)), server.url):
        with pytest.raises(JournalCorrupt, match="another journal"):
            async with asyncio.timeout(HANG_S):
                while True:
                    events.read()
                    await asyncio.sleep(0.02)
    await events.close()


async def test_a_follower_of_records_that_a_cut_took_ends_and_begins_anew(server, tmp_path):
    """Same identity: a journal that ends before what was followed, and one that went on further with other orders."""

    def on(data):
        return relaying(SimpleNamespace(directory=data / "events"), server.url, ChainWords(DirectoryDisk(data)).word)

    def told(data):
        reader, parts = EventLogReader(data / "events"), []
        while len(part := reader.read()):
            parts.append(part.tobytes())
        return b"".join(parts)

    async def follow(events, data):
        """Everything that the relay of `data` has for it."""
        parts, head = [], EventLogReader(data / "events").head_sequence
        async with asyncio.timeout(HANG_S):
            while events.head_sequence < head:
                parts.append(events.read().tobytes())
                await asyncio.sleep(0.01)
        return b"".join(parts)

    whole, cut, other = tmp_path / "whole", tmp_path / "cut", tmp_path / "other"
    recovered = recover(whole, settings=SETTINGS)
    feed(recovered, workload(), 0, 600)
    recovered.close()
    shutil.copytree(whole, cut)
    shutil.copytree(whole, other)
    for data, seed, count in ((whole, 7, 400), (other, 8, 900)):
        recovered = recover(data, settings=SETTINGS)
        slots = commands(generate("W1", seed=seed, smoke=True, ops=count), recovered.core.sequence + 1).records
        feed(recovered, slots, 0, len(slots))
        recovered.close()
    for data in (cut, other):
        events = RelayedEvents(server.url)
        async with on(whole):
            await events.start()
            assert await follow(events, whole) == told(whole)
            run = events._run
        async with on(whole):  # the relay was started again, and the journal is the same
            async with asyncio.timeout(HANG_S):
                while events._run == run:
                    await asyncio.sleep(0.01)
            assert not len(events.read()) and not events._task.done()
        async with on(data):
            with pytest.raises(RemoteFault, match="it was cut, or restored"):
                async with asyncio.timeout(HANG_S):
                    while True:
                        assert not len(events.read()), "events of another history"
                        await asyncio.sleep(0.02)
            await events.close()
            anew = RelayedEvents(server.url)
            await anew.start()
            assert await follow(anew, data) == told(data)
            await anew.close()


async def test_command_line_serves_another_host_from_the_relay_of_a_running_exchange(server, tmp_path, monkeypatch):
    monkeypatch.setenv("BYLINE_RELAY_URL", server.url)
    exchange = ExchangeProcess(tmp_path / "data", "--orders-per-s", "100")
    elsewhere_data = tmp_path / "elsewhere"
    argv = [sys.executable, "-m", "byline.cli", "marketdata", "--data", str(elsewhere_data), "--events", server.url]
    remote = None
    try:
        await exchange.start()
        monkeypatch.delenv("BYLINE_RELAY_URL")
        monkeypatch.setenv("BYLINE_MARKETDATA_PORT", "0")
        with open(tmp_path / "remote.log", "wb") as log:
            remote = subprocess.Popen(argv, stdout=log, stderr=log)
        status = await until(
            lambda: (read_status(elsewhere_data, "marketdata") or {}).get("ready"), what="the other host"
        )
        assert status
        ports = [exchange.status("marketdata")["port"], read_status(elsewhere_data, "marketdata")["port"]]
        async with ArbitratedFeed([f"ws://127.0.0.1:{port}" for port in ports]) as feed:
            async with MarketDataClient(f"ws://127.0.0.1:{ports[1]}") as client:
                await client.subscribe("status")
                market = (await anext(aiter(client)))["markets"][0]["market"]
            book, count = await feed.book(market), 0
            async with asyncio.timeout(HANG_S):
                async for _ in feed:
                    count += 1
                    if count > 150 and all(counts.first for counts in feed.feeds):
                        break
            assert book.gap_count == feed.bridged == 0  # both say the same, message by message
    finally:
        if remote is not None:
            remote.terminate()
            remote.wait(20)
        exchange.sweep()
