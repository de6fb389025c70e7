"""Two market data processes from one event log: what one loses the other has, and nobody sees anything twice."""

import asyncio
import os
import signal

import pytest

from byline.client.feeds import ArbitratedFeed
from byline.client.market_data import MarketDataClient
from marketdata.server import serve
from marketdata.settings import MarketDataSettings
from tests.support.exchange import ExchangeProcess
from tests.support.market_flow import Flow, ListSource
from tests.support.waiting import HANG_S, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class TwoFeeds:
    """One flow, two servers with sources of their own; each can be killed and started again on its port."""

    def __init__(self, seed, **settings):
        self.flow = Flow(seed)
        self.settings = settings
        self.sources = [ListSource(), ListSource()]
        self.published = []
        self.running = [None, None]
        self.ports = [0, 0]
        self.publish(self.flow.opening)

    def publish(self, events):
        for source in self.sources:
            source.publish(events, self.flow.sequence)

    def step(self, count=1):
        for _ in range(count):
            self.publish(self.flow.step())

    async def start(self, number):
        stop, ready, status = asyncio.Event(), asyncio.Event(), {}
        settings = MarketDataSettings(
            **({"port": self.ports[number], "flush_interval_ms": 3 + 2 * number} | self.settings)
        )
        task = asyncio.create_task(serve(self.sources[number], settings, stop=stop, status=status, ready=ready))
        await ready.wait()
        self.ports[number], self.running[number] = status["port"], (stop, task)

    async def stop(self, number):
        stop, task = self.running[number]
        stop.set()
        await task
        self.running[number] = None

    @property
    def urls(self):
        return [f"ws://127.0.0.1:{port}" for port in self.ports]

    async def __aenter__(self):
        for number in (0, 1):
            await self.start(number)
        return self

    async def __aexit__(self, *_):
        for number in (0, 1):
            if self.running[number]:
                await self.stop(number)


async def take_until(feed, done, got):
    async with asyncio.timeout(HANG_S):
        async for message in feed:
            got.append(message)
            if done():
                return


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_f26_killing_either_feed_loses_nothing_and_repeats_nothing(encoding):
    async with TwoFeeds(3) as two, ArbitratedFeed(two.urls, encoding=encoding) as feed:
        book, orders = await feed.book("NOVA-USD"), await feed.orders("NOVA-USD")
        await feed.trades("NOVA-USD")
        got, chains, ids = [], {"book:NOVA-USD": [], "orders:NOVA-USD": []}, []
        await take_until(feed, lambda: book.ready and orders.ready, got)
        for turn in range(12):
            two.step(15)
            if turn % 3 == 1:
                await two.stop(turn // 3 % 2)
            if turn % 3 == 2:
                await two.start(turn // 3 % 2)
            two.publish(two.flow.place("buy", 80, 1))
            final = two.flow.sequence
            await take_until(feed, lambda final=final: book.seq >= final and orders.seq >= final, got)
            assert (book.bids, book.asks) == two.flow.book_text()
        await asyncio.sleep(0.05)
        two.step(60)
        two.publish(two.flow.place("buy", 80, 1))
        final = two.flow.sequence
        await take_until(feed, lambda: book.seq >= final and orders.seq >= final, got)
        await take_until(feed, lambda: feed.waiting == 0, got)
        for message in got:
            if message["channel"] in chains and message["type"] != "snapshot":
                chains[message["channel"]].append((message["prev_seq"], message["seq"]))
            elif message["channel"] == "trades:NOVA-USD":
                ids += [trade["trade_id"] for trade in message["trades"]]
        for chain in chains.values():
            assert all(after[0] <= before[1] < after[1] for before, after in zip(chain, chain[1:], strict=False))
            assert len(chain) > 100
        assert ids == list(range(1, len(ids) + 1)) and len(ids) > 30
        assert book.gap_count == orders.gap_count == feed.bridged == 0
        assert all(counts.connections >= 2 and counts.first > 0 for counts in feed.feeds)


async def test_f44_both_feeds_away_for_a_while_is_closed_by_replay():
    async with TwoFeeds(5) as two, ArbitratedFeed(two.urls) as feed:
        book = await feed.book("NOVA-USD")
        got = []
        await take_until(feed, lambda: book.ready, got)
        for number in (0, 1):
            await two.stop(number)
        two.step(200)
        for number in (0, 1):
            await two.start(number)
        two.publish(two.flow.place("buy", 80, 1))
        final = two.flow.sequence
        await take_until(feed, lambda: got[-1]["seq"] >= final, got)
        assert (book.bids, book.asks) == two.flow.book_text() and feed.bridged == 0
        assert sum(message["type"] == "snapshot" for message in got) == 1
        assert sum("replayed" in message for message in got) > 50


async def test_what_no_feed_keeps_is_bridged_by_a_snapshot_and_counted():
    async with TwoFeeds(5, change_rows=64, read_slots=16, replay_rows=32) as two, ArbitratedFeed(two.urls[:1]) as feed:
        book = await feed.book("NOVA-USD")
        got = []
        await take_until(feed, lambda: book.ready, got)
        await two.stop(0)
        two.step(300)
        await two.start(0)
        two.publish(two.flow.place("buy", 80, 1))
        final = two.flow.sequence
        await take_until(feed, lambda: got[-1]["seq"] >= final, got)
        assert (book.bids, book.asks) == two.flow.book_text() and feed.bridged == 1


async def test_f44_two_feeds_of_two_processes_each_lose_nothing_when_one_lags_or_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("BYLINE_MARKETDATA_FEEDS", "2")
    monkeypatch.setenv("BYLINE_MARKETDATA_SHARDS", "2")
    exchange = ExchangeProcess(tmp_path / "data", "--orders-per-s", "100")
    try:
        await exchange.start()
        names = ["marketdata", "marketdata_2", "marketdata_b", "marketdata_b_2"]
        ports = [exchange.status(name)["port"] for name in names]
        assert ports[0] == ports[1] != ports[2] == ports[3]
        urls = [f"ws://127.0.0.1:{ports[0]}", f"ws://127.0.0.1:{ports[2]}"]
        pids = {name: exchange.pid(name) for name in names}
        assert len(set(pids.values())) == 4
        market = await first_market(urls[0])
        async with ArbitratedFeed(urls) as feed, Reader(urls[0], market) as lags, Reader(urls[1], market) as goes_on:
            book = await feed.book(market)
            await feed.trades(market)
            got, ids = [], []
            await take_until(feed, lambda: book.ready and len(got) > 20, got)
            await until(lambda: lags.books and lags.trades and goes_on.books and goes_on.trades, what="both feeds")
            for name in names[:2]:
                os.kill(pids[name], signal.SIGSTOP)
            count = len(got)
            await take_until(feed, lambda: len(got) > count + 100, got)
            behind = lags.book.seq
            assert max(goes_on.books) > behind
            for name in names[:2]:
                os.kill(pids[name], signal.SIGCONT)
            first, now, last = feed.feeds[0].first, max(goes_on.books), max(goes_on.trades)
            await until(
                lambda: max(lags.trades) >= last and max(lags.books.keys() & goes_on.books.keys(), default=0) > now,
                what="feed A's news",
            )
            await take_until(feed, lambda: feed.feeds[0].first > first, got)
            lags.assert_agrees_with(goes_on)
            for name in names[:2]:  # the whole of feed A
                os.kill(pids[name], signal.SIGKILL)
            await take_until(feed, lambda: len(got) > 200, got)
            await until(lambda: feed.feeds[0].connections >= 2 and feed.feeds[0].connected, what="feed A to be back")
            for name in names[2:]:
                os.kill(pids[name], signal.SIGKILL)
            count = len(got)
            await take_until(feed, lambda: len(got) > count + 200, got)
            for message in got:
                if message["channel"].startswith("trades:"):
                    ids += [trade["trade_id"] for trade in message["trades"]]
            assert ids == list(range(ids[0], ids[0] + len(ids))) and len(ids) > 10
            assert book.gap_count == feed.bridged == 0
    finally:
        exchange.sweep()


class Reader:
    """What one feed alone says of a market: its book behind each message, by sequence, and its trades by id."""

    def __init__(self, url, market):
        self.feed = ArbitratedFeed([url])
        self.market, self.books, self.trades = market, {}, {}

    async def __aenter__(self):
        await self.feed.__aenter__()
        self.book = await self.feed.book(self.market)
        await self.feed.trades(self.market)
        self.task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await self.feed.__aexit__(*_)

    async def _follow(self):
        async for message in self.feed:
            if message["channel"].startswith("trades:"):
                self.trades |= {trade["trade_id"]: (trade["price"], trade["size"]) for trade in message["trades"]}
            elif self.book.ready:
                self.books[self.book.seq] = (list(self.book.bids), list(self.book.asks))

    def assert_agrees_with(self, other):
        for mine, theirs, least in ((self.books, other.books, 10), (self.trades, other.trades, 5)):
            common = mine.keys() & theirs.keys()
            assert len(common) >= least and {key: mine[key] for key in common} == {key: theirs[key] for key in common}
        for reader in (self, other):
            assert sorted(reader.trades) == list(range(min(reader.trades), max(reader.trades) + 1))
            assert reader.book.gap_count == reader.feed.bridged == 0


async def first_market(url):
    async with MarketDataClient(url) as client:
        await client.subscribe("status")
        async for message in client:
            if message["type"] == "snapshot":
                return message["markets"][0]["market"]
    raise AssertionError("no status")
