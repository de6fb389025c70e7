"""The process of market data is killed, or has no memory left, while readers watch and orders go on (F21, F26).

Here a hundred readers; the thousand of the scenario with `TEST_READERS=1000`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.exchange_process import ExchangeProcess
from byline.client import TradingClient
from byline.client.feeds import ArbitratedFeed
from tests.support.core_process import MARKET, CoreProcess
from tests.support.raw import RawClient
from tests.support.waiting import HANG_S

READERS = int(os.environ.get("TEST_READERS", "100"))
AT_ONCE = 20
COMERS_MAX = 4_000
"""Connections that are made to a fan-out without memory before it is said to have enough of it."""
GIVEN_UP_S = 5.0
"""One that is not answered for so long is not taken: without memory a process may end, refuse or stand still."""


class Maker:
    """Places orders that rest, each at a price of its own, so that the book is what it was told."""

    def __init__(self, client: TradingClient) -> None:
        self._client = client
        self.book: dict[str, str] = {}
        self.sequences: list[int] = []

    async def place(self, count: int) -> None:
        """So many more; every one must be accepted."""
        for _ in range(0, count, AT_ONCE):
            first = len(self.book)
            prices = [f"{(first + number + 1) / 100:.2f}".rstrip("0").rstrip(".") for number in range(AT_ONCE)]
            answers = await asyncio.gather(
                *(self._client.place(MARKET, f"m{price}", "buy", "limit", size="0.1", price=price) for price in prices)
            )
            assert {answer["event"] for answer in answers} == {"accepted"}
            self.book |= dict.fromkeys(prices, "0.1")
            self.sequences += sorted(answer["sequence"] for answer in answers)


class Watcher:
    """One reader: it connects again by itself, asks for what it missed, and checks that message follows on message."""

    def __init__(self, feed: ArbitratedFeed, book: Any) -> None:
        self.feed = feed
        self.book = book
        self.chain: list[tuple[int, int]] = []
        self.snapshots = self.heard = 0

    async def until(self, sequence: int) -> None:
        """Takes messages until one tells that sequence, or a later one."""
        while self.heard < sequence:
            message = await anext(aiter(self.feed))
            self.heard = message["seq"]
            if message["type"] == "snapshot":
                self.snapshots += 1
            else:
                self.chain.append((message["prev_seq"], message["seq"]))


@contextlib.asynccontextmanager
async def fan_out(data: Path) -> AsyncIterator[tuple[ExchangeProcess, str]]:
    """`byline process marketdata`, ready. It keeps the port that it had before."""
    with ExchangeProcess("marketdata", data, BYLINE_MARKETDATA_PORT="0") as process:
        await asyncio.to_thread(process.wait, "ready")
        yield process, f"ws://127.0.0.1:{process.status()['port']}"


async def all_have_all_of_it(watchers: list[Watcher], maker: Maker, first: int) -> None:
    """Each heard of every order behind number `first`, once and in its turn, and has the book that there is."""
    await asyncio.wait_for(asyncio.gather(*(watcher.until(maker.sequences[-1]) for watcher in watchers)), HANG_S)
    for watcher in watchers:
        assert watcher.feed.bridged == watcher.book.gap_count == 0
        assert watcher.snapshots == 1, "what it missed was told, and no book in its place"
        assert watcher.chain == list(pairwise(maker.sequences[first:]))
        assert dict(watcher.book.bids) == maker.book


async def starve(starved: ExchangeProcess, url: str, maker: Maker) -> None:
    """Its address space may not grow any more, and readers come until it takes one no more. Orders go on meanwhile."""
    size = int(Path(f"/proc/{starved.process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(starved.process.pid, resource.RLIMIT_AS, (size, size))
    crowd: list[RawClient] = []
    try:
        # Refused with 500 where the memory ends in the handshake, cut, or kept waiting: TimeoutError is an OSError.
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            for number in range(COMERS_MAX):
                async with asyncio.timeout(GIVEN_UP_S):
                    crowd.append(await RawClient.connect(url, "byline.md.json.v1"))
                    crowd[-1].say({"type": "subscribe", "channel": f"book:{MARKET}", "depth": 0})
                if number % 50 == 0:
                    await maker.place(AT_ONCE)
        await maker.place(AT_ONCE)  # it has no memory, and may have ended: each order is accepted
    finally:
        for comer in crowd:
            comer.abort()


async def test_f21_f26_killed_and_out_of_memory_while_many_watch_all_have_all_of_it_in_the_end(
    core: CoreProcess,
) -> None:
    core.environment = {"BYLINE_GATEWAY_PING_S": "3600"}  # a thousand readers here may make the maker silent for long
    await core.start()
    [client] = await core.traders(1)
    maker = Maker(client)
    async with contextlib.AsyncExitStack() as stack:
        async with fan_out(core.data) as (killed, url):
            await maker.place(20)
            feeds = [await stack.enter_async_context(ArbitratedFeed([url])) for _ in range(READERS)]
            watchers = [Watcher(feed, await feed.book(MARKET)) for feed in feeds]
            await asyncio.wait_for(asyncio.gather(*(one.until(maker.sequences[-1]) for one in watchers)), HANG_S)
            first = len(maker.sequences) - 1
            watching = [asyncio.create_task(watcher.until(maker.sequences[-1] + 1)) for watcher in watchers]
            trading = asyncio.create_task(maker.place(200))
            await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            killed.kill()  # SIGKILL: some have heard of these orders, and some have not
        await trading
        await maker.place(40)  # while nobody tells of them
        async with fan_out(core.data) as (starved, _):
            await asyncio.wait_for(asyncio.gather(*watching), HANG_S)
            await all_have_all_of_it(watchers, maker, first)
            await starve(starved, url, maker)  # and is killed, if it still is, as the kernel's killer does
        async with fan_out(core.data):
            await maker.place(20)
            await all_have_all_of_it(watchers, maker, first)
        assert all(feed.feeds[0].connections >= 3 for feed in feeds)
    await client.close()
    assert await core.stop() == 0
