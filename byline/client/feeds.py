"""Two (or more) market data feeds read as one: whichever is first gives the message, the others fill what it lost.

    async with ArbitratedFeed(["ws://127.0.0.1:7402", "ws://127.0.0.1:7404"]) as feed:
        book = await feed.book("NOVA-USD")
        await feed.trades("NOVA-USD")
        async for message in feed:
            ...                       # each message once, in order, whichever feeds live

Lossless streams of all feeds say the same, message by message, so `seq` alone tells what is new. What follows further
on than what is here is asked for by `replay`, on the connection that showed the gap; only what no feed keeps any more
is bridged by a snapshot, and `bridged` counts that. A connection that ends is made again for ever, after a pause.

Never: gives a message twice or out of order. Bounds: `messages_max` wait for the iterator; then the feeds wait too, and
fall behind as any slow reader does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from websockets.exceptions import WebSocketException

from byline.client.market_data import LocalBook, LocalOrders, MarketDataClient, SubscriptionRefused

__all__ = ["ArbitratedFeed", "FeedCounts"]

log = logging.getLogger(__name__)

Message = dict[str, Any]
PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0)
NEW, KNOWN, GAP = "new", "known", "gap"


@dataclass(slots=True)
class FeedCounts:
    """What one feed did for us."""

    url: str
    connected: bool = False
    connections: int = 0
    first: int = 0  # messages that it brought first
    asked: set[str] = field(default_factory=set)  # channels whose replay is on its way


class _Chain:
    """A lossless channel of levels or orders: what is next is what follows `local.seq`."""

    def __init__(self, local: LocalBook | LocalOrders, request: Message) -> None:
        self.local = local
        self.request = request
        self.may_jump = True  # a snapshot may take the place of what cannot be had

    @property
    def replay_from(self) -> int:
        return self.local.seq

    def offer(self, message: Message) -> str:
        if message["type"] == "snapshot":
            if self.local.ready and not self.may_jump:
                return KNOWN if message["seq"] <= self.local.seq else GAP
            if self.local.ready and message["seq"] <= self.local.seq:
                return KNOWN
            self.local.apply(message)
            self.may_jump = False
            return NEW
        if not self.local.ready:
            return KNOWN
        if message["seq"] > self.local.seq and message["prev_seq"] > self.local.seq:
            return GAP
        return NEW if self.local.apply(message, any_feed=True) else KNOWN


class _Tape:
    """Trades: what is next is the next trade id."""

    def __init__(self, request: Message) -> None:
        self.request = request
        self.may_jump = True
        self._last_id = 0
        self._last_seq = 0

    @property
    def replay_from(self) -> int:
        return max(0, self._last_seq - 1)  # of the last command there may be more

    def offer(self, message: Message) -> str:
        trades = [trade for trade in message["trades"] if trade["trade_id"] > self._last_id]
        if message["type"] == "snapshot" and self.may_jump:
            self.may_jump = False
        elif trades and trades[0]["trade_id"] != self._last_id + 1:
            return GAP
        if not trades:
            return KNOWN
        message["trades"] = trades
        self._last_id, self._last_seq = trades[-1]["trade_id"], trades[-1]["seq"]
        return NEW


class ArbitratedFeed:
    """Use it with `async with`; say what you want, then iterate."""

    def __init__(self, urls: Sequence[str], *, encoding: str = "json", messages_max: int = 100_000) -> None:
        self.feeds = [FeedCounts(url) for url in urls]
        self.bridged = 0
        self._encoding = encoding
        self._chains: dict[str, _Chain | _Tape] = {}
        self._messages: asyncio.Queue[Message] = asyncio.Queue(messages_max)
        self._clients: dict[int, MarketDataClient] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._follow(number)) for number in range(len(self.feeds))]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def book(self, market: str) -> LocalBook:
        """The whole book, every command of it; `ready` with the first snapshot."""
        local = LocalBook(market)
        await self._want(_Chain(local, {"channel": f"book:{market}", "depth": 0, "mode": "lossless"}))
        return local

    async def orders(self, market: str) -> LocalOrders:
        """Every order; `ready` with the first snapshot."""
        local = LocalOrders(market)
        await self._want(_Chain(local, {"channel": f"orders:{market}"}))
        return local

    async def trades(self, market: str) -> None:
        """Every trade from now on, and the last ones before."""
        await self._want(_Tape({"channel": f"trades:{market}"}))

    @property
    def waiting(self) -> int:
        """Messages that were not taken yet."""
        return self._messages.qsize()

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            yield await self._messages.get()

    async def _want(self, chain: _Chain | _Tape) -> None:
        self._chains[chain.request["channel"]] = chain
        for client in list(self._clients.values()):
            with contextlib.suppress(WebSocketException):  # its reader connects anew and subscribes to all
                await client.send({"type": "subscribe"} | chain.request)

    async def _follow(self, number: int) -> None:
        feed, failures = self.feeds[number], 0
        while True:
            try:
                async with MarketDataClient(feed.url, encoding=self._encoding) as client:
                    feed.connected, feed.connections, failures = True, feed.connections + 1, 0
                    feed.asked.clear()
                    self._clients[number] = client
                    for chain in list(self._chains.values()):
                        await client.send({"type": "subscribe"} | chain.request)
                    async for message in client:
                        await self._take(feed, client, message)
            except (OSError, WebSocketException, SubscriptionRefused, TimeoutError) as error:  # it connects anew
                log.info("event=feed_lost url=%s error=%s", feed.url, error)
            finally:
                feed.connected = False
                self._clients.pop(number, None)
            await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
            failures += 1

    async def _take(self, feed: FeedCounts, client: MarketDataClient, message: Message) -> None:
        kind, channel = message["type"], message.get("channel", "")
        chain = self._chains.get(channel)
        if kind == "error":
            await self._refused(feed, client, message)
        elif kind == "replay":
            feed.asked.discard(channel)
            if not message["complete"] and chain is not None:
                await self._ask(feed, client, channel, message["to"])
        elif chain is not None and kind in ("snapshot", "update", "event"):
            result = chain.offer(message)
            if result == NEW:
                feed.first += 1
                await self._messages.put(message)
            elif result == GAP:
                await self._ask(feed, client, channel, chain.replay_from)

    async def _ask(self, feed: FeedCounts, client: MarketDataClient, channel: str, after: int) -> None:
        """The replay that closes a gap; one at a time for each channel."""
        if channel not in feed.asked:
            feed.asked.add(channel)
            await client.send({"type": "replay", "channel": channel, "from": after, "rid": channel})

    async def _refused(self, feed: FeedCounts, client: MarketDataClient, message: Message) -> None:
        channel = message.get("rid")
        chain = self._chains.get(channel) if isinstance(channel, str) else None
        if chain is None or channel is None:
            raise SubscriptionRefused(message["code"], message["message"], message)
        feed.asked.discard(channel)
        if message["code"] != "beyond_horizon":  # behind us, or asked too often: the next message asks again
            return
        self.bridged += 1
        chain.may_jump = True
        await client.send({"type": "unsubscribe", "channel": channel})
        await client.send({"type": "subscribe"} | chain.request)
