"""Client of the market data feed: books that are known to be complete, trades and prices.

    async with MarketDataClient("ws://127.0.0.1:7402") as feed:
        book = await feed.subscribe_book("NOVA-USD", depth=50)
        await feed.subscribe("trades:NOVA-USD")
        async for message in feed:
            ...                       # `book` has taken the message in already

A lost or changed book update is noticed by `prev_seq` or by the checksum; the client then subscribes anew by itself and
the book is `ready` again with the next snapshot. Docs: docs/protocol/market-data.md.
Never: reconnects. When the connection ends the iteration ends, or raises ConnectionClosed with the server's reason.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Self

import msgspec
from websockets.asyncio.client import ClientConnection, connect

__all__ = ["BookGap", "LocalBook", "MarketDataClient", "SubscriptionRefused"]

CHECKSUM_LEVELS = 10


class BookGap(Exception):
    """An update does not follow what the book has: a message was lost or changed."""


class SubscriptionRefused(Exception):
    """The server's `error` message: `code` is its word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class LocalBook:
    """One market's book as of `seq`. Prices and sizes are the decimal texts of the wire; `ready` after a snapshot."""

    def __init__(self, market: str, depth: int = 0) -> None:
        self.market = market
        self.depth = depth
        self.ready = False
        self.seq = 0
        self.gap_count = 0
        self._sides: tuple[dict[str, str], dict[str, str]] = ({}, {})

    @property
    def bids(self) -> list[tuple[str, str]]:
        """(price, size), best first."""
        return sorted(self._sides[0].items(), key=lambda level: -Decimal(level[0]))

    @property
    def asks(self) -> list[tuple[str, str]]:
        """(price, size), best first."""
        return sorted(self._sides[1].items(), key=lambda level: Decimal(level[0]))

    def checksum(self) -> int:
        """CRC-32 of the best ten levels a side, as the server forms it."""
        best = [*self.bids[:CHECKSUM_LEVELS], *self.asks[:CHECKSUM_LEVELS]]
        return zlib.crc32("|".join(f"{price}:{size}" for price, size in best).encode("ascii"))

    def apply(self, message: dict[str, Any]) -> None:
        """Takes a snapshot or an update; an update before the first snapshot is passed over.

        Raises:
            BookGap: an update does not follow, or a checksum differs. The book is not `ready` then.
        """
        if message["type"] == "snapshot":
            self._sides = (dict(message["bids"]), dict(message["asks"]))
            self.ready = True
        elif not self.ready:
            return
        elif message["prev_seq"] != self.seq:
            self._lost(f"update follows seq {message['prev_seq']}, the book is at {self.seq}")
        else:
            for levels, changes in zip(self._sides, (message["bids"], message["asks"]), strict=True):
                for price, size in changes:
                    if size == "0":
                        levels.pop(price, None)
                    else:
                        levels[price] = size
        self.seq = message["seq"]
        if "checksum" in message and message["checksum"] != self.checksum():
            self._lost("the checksum differs")

    def _lost(self, why: str) -> None:
        self.ready = False
        self.gap_count += 1
        raise BookGap(f"{self.market}: {why}")


class MarketDataClient:
    """One connection. Iterate it to receive; books are kept up while you do."""

    def __init__(self, url: str = "ws://127.0.0.1:7402") -> None:
        self.url = url
        self.books: dict[str, LocalBook] = {}
        self.slow = False
        self._socket: ClientConnection | None = None
        self._waiting: list[dict[str, Any]] = []
        self._resubscribing: set[str] = set()

    async def __aenter__(self) -> Self:
        self._socket = await connect(self.url, compression=None, max_size=2**26)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def subscribe(self, channel: str, *, depth: int | None = None) -> dict[str, Any]:
        """The server's `subscribed` message. Raises SubscriptionRefused."""
        request: dict[str, Any] = {"type": "subscribe", "channel": channel}
        if depth is not None:
            request["depth"] = depth
        return await self._ask(request)

    async def subscribe_book(self, market: str, *, depth: int = 0) -> LocalBook:
        """The book, `ready` with the first snapshot. `depth` 0 is the whole book. Raises SubscriptionRefused."""
        book = self.books[f"orderbook:{market}"] = LocalBook(market, depth)
        await self.subscribe(f"orderbook:{market}", depth=depth)
        return book

    async def unsubscribe(self, channel: str) -> None:
        """Raises SubscriptionRefused if it is not subscribed. `channel` as `subscribed` named it."""
        request: dict[str, Any] = {"type": "unsubscribe", "channel": channel}
        book = self.books.pop(channel, None)
        if book is not None:
            request["depth"] = book.depth
        await self._ask(request)

    async def ping(self) -> int:
        """The sequence that the feed has reached."""
        return int((await self._ask({"type": "ping"}))["seq"])

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            if self._waiting:
                yield self._waiting.pop(0)
                continue
            message = await self._receive()
            if message is None:
                return
            yield message

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        await self._send(request)
        answers = {"subscribe": "subscribed", "unsubscribe": "unsubscribed", "ping": "pong"}
        while True:
            message = await self._receive()
            if message is None:
                raise SubscriptionRefused("closed", "the connection was closed")
            if message["type"] == "error":
                raise SubscriptionRefused(message["code"], message["message"])
            if message["type"] == answers[request["type"]]:
                return message
            self._waiting.append(message)

    async def _send(self, request: dict[str, Any]) -> None:
        assert self._socket is not None, "use it with `async with`"
        await self._socket.send(msgspec.json.encode(request).decode())

    async def _receive(self) -> dict[str, Any] | None:
        assert self._socket is not None, "use it with `async with`"
        async for text in self._socket:
            message: dict[str, Any] = msgspec.json.decode(text)
            channel = message.get("channel", "")
            if message["type"] in ("subscribed", "unsubscribed") and channel in self._resubscribing:
                if message["type"] == "subscribed":
                    self._resubscribing.discard(channel)
                continue
            if message["type"] == "slow":
                self.slow = message["conflated"]
            if message["type"] in ("snapshot", "update") and channel in self.books:
                await self._keep(self.books[channel], channel, message)
            return message
        return None

    async def _keep(self, book: LocalBook, channel: str, message: dict[str, Any]) -> None:
        try:
            book.apply(message)
        except BookGap:
            self._resubscribing.add(channel)
            for kind in ("unsubscribe", "subscribe"):
                await self._send({"type": kind, "channel": channel, "depth": book.depth})
