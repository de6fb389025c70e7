"""Client of the market data feed: books that are known to be complete, orders, trades, prices, candles.

    async with MarketDataClient("ws://127.0.0.1:7402") as feed:
        book = await feed.subscribe_book("NOVA-USD", mode="lossless")
        await feed.subscribe("trades:NOVA-USD")
        async for message in feed:
            ...                       # `book` has taken the message in already

A lost or changed message of a book is noticed by `prev_seq`, by the checksum, or by the `heads` at the end of a write;
the client then subscribes anew by itself and the book is `ready` again with the next snapshot. With `encoding="binary"`
the same messages come in fixed layouts and are given out in the same form.
Docs: docs/protocol/market-data.md. For two feeds at once: byline.client.feeds.
Never: reconnects. When the connection ends the iteration ends, or raises ConnectionClosed with the server's reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from ssl import SSLContext
from typing import Any, Self

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from byline.client.binary_feed import SUBPROTOCOL, BinaryDecoder
from byline.client.book_hash import M64, level_mix, order_mix
from byline.client.tls import tls_options

__all__ = ["BookGap", "LocalBook", "LocalOrders", "MarketDataClient", "SubscriptionRefused"]

Message = dict[str, Any]


class BookGap(Exception):
    """A message does not follow what is there: one was lost or changed."""


class SubscriptionRefused(Exception):
    """The server's `error` message: `code` is its word, `message` all of it."""

    def __init__(self, code: str, text: str, message: Message | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.message = message or {}


class _Local:
    """What a book of levels and one of orders have in common: the chain of messages and the checksum."""

    kind = ""

    def __init__(self, market: str) -> None:
        self.market = market
        self.ready = False
        self.seq = 0
        self.gap_count = 0
        self.checksum = 0
        self._steps = (Decimal(1), Decimal(1))
        self._counts: dict[tuple[int, str], int] = {}

    def apply(self, message: Message, *, any_feed: bool = False) -> bool:
        """Takes a snapshot or an update; True if it was new. An update before the first snapshot is passed over.

        `any_feed`: messages of several feeds come mixed. What is known already is passed over then.

        Raises:
            BookGap: an update does not follow, or a checksum differs. It is not `ready` then.
        """
        if message["type"] == "snapshot":
            self._begin(message)
        elif not self.ready or (any_feed and message["seq"] <= self.seq):
            return False
        elif message["prev_seq"] != self.seq and not (any_feed and message["prev_seq"] < self.seq):
            self._lost(f"update follows seq {message['prev_seq']}, this is at {self.seq}")
        else:
            self._change(message)
        self.seq = message["seq"]
        if message["checksum"] != f"{self.checksum:016x}":
            self._lost("the checksum differs")
        return True

    def check_head(self, seq: int) -> None:
        """`heads` tells the seq of the last message. Raises BookGap if that did not arrive."""
        if self.ready and seq > self.seq:
            self._lost(f"the last message has seq {seq}, this is at {self.seq}")

    def _begin(self, message: Message) -> None:
        self._steps = (Decimal(message["tick"]), Decimal(message["lot"]))
        self._counts.clear()
        self.checksum = 0
        self.ready = True

    def _change(self, message: Message) -> None:
        raise NotImplementedError

    def _lost(self, why: str) -> None:
        self.ready = False
        self.gap_count += 1
        raise BookGap(f"{self.market}: {why}")

    def _count(self, step: int, text: str) -> int:
        """Ticks (step 0) or lots (1) of a text."""
        count = self._counts.get((step, text))
        if count is None:
            if len(self._counts) > 100_000:
                self._counts.clear()
            count = self._counts[step, text] = int(Decimal(text) / self._steps[step])
        return count


class LocalBook(_Local):
    """One market's levels as of `seq`. Prices and sizes are the decimal texts of the wire; `ready` after a snapshot."""

    kind = "book"

    def __init__(self, market: str, depth: int = 0) -> None:
        super().__init__(market)
        self.depth = depth
        self._sides: tuple[dict[str, str], dict[str, str]] = ({}, {})

    @property
    def bids(self) -> list[tuple[str, str]]:
        """(price, size), best first."""
        return sorted(self._sides[0].items(), key=lambda level: -Decimal(level[0]))

    @property
    def asks(self) -> list[tuple[str, str]]:
        """(price, size), best first."""
        return sorted(self._sides[1].items(), key=lambda level: Decimal(level[0]))

    def _begin(self, message: Message) -> None:
        super()._begin(message)
        self._sides = ({}, {})
        self._change(message)

    def _change(self, message: Message) -> None:
        for side, changes in enumerate((message["bids"], message["asks"])):
            levels = self._sides[side]
            for price, size in changes:
                ticks, before = self._count(0, price), levels.pop(price, None)
                if before is not None:
                    self.checksum -= level_mix(side, ticks, self._count(1, before))
                if size != "0":
                    levels[price] = size
                    self.checksum += level_mix(side, ticks, self._count(1, size))
        self.checksum &= M64


class LocalOrders(_Local):
    """Every order of one market by its public number: (side, price, size). Within a price, lower numbers come first."""

    kind = "orders"

    def __init__(self, market: str) -> None:
        super().__init__(market)
        self.orders: dict[int, tuple[str, str, str]] = {}

    def queue(self, side: str, price: str) -> list[tuple[int, str]]:
        """(number, size) of the orders at a price, who is served first coming first."""
        return sorted((number, order[2]) for number, order in self.orders.items() if order[:2] == (side, price))

    def levels(self) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
        """Size by price, bids and asks."""
        sides: tuple[dict[str, Decimal], dict[str, Decimal]] = ({}, {})
        for side, price, size in self.orders.values():
            levels = sides[side == "sell"]
            levels[price] = levels.get(price, Decimal(0)) + Decimal(size)
        return sides

    def _begin(self, message: Message) -> None:
        super()._begin(message)
        self.orders.clear()
        self._change(message)

    def _change(self, message: Message) -> None:
        for number, side, price, size in message["orders"]:
            before = self.orders.pop(number, None)
            if before is not None:
                self.checksum -= self._mix(number, before)
            if size != "0":
                self.orders[number] = (side, price, size)
                self.checksum += self._mix(number, self.orders[number])
        self.checksum &= M64

    def _mix(self, number: int, order: tuple[str, str, str]) -> int:
        return order_mix(number, order[0] == "sell", self._count(0, order[1]), self._count(1, order[2]))


class MarketDataClient:
    """One connection. Iterate it to receive; books are kept up while you do."""

    def __init__(
        self, url: str = "ws://127.0.0.1:7402", *, encoding: str = "json", ssl: SSLContext | None = None
    ) -> None:  # fmt: skip
        self.url = url
        self._ssl = ssl  # for wss; None: the certificates that this machine trusts
        self.books: dict[str, LocalBook | LocalOrders] = {}
        self.slow = False
        self.seq = 0  # the exchange's, as of the last heads
        self._decoder = BinaryDecoder() if encoding == "binary" else None
        self._socket: ClientConnection | None = None
        self._waiting: list[Message] = []
        self._wanted: dict[str, Message] = {}
        self._resubscribing: set[str] = set()

    async def __aenter__(self) -> Self:
        names = [Subprotocol(SUBPROTOCOL)] if self._decoder is not None else None
        self._socket = await connect(
            self.url, compression=None, max_size=2**26, subprotocols=names, **tls_options(self._ssl)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def subscribe(
        self, channel: str, *, depth: int | None = None, mode: str | None = None, interval_ms: int | None = None
    ) -> Message:
        """The server's `subscribed` message. Raises SubscriptionRefused."""
        given = {"channel": channel, "depth": depth, "mode": mode, "interval_ms": interval_ms}
        request = {"type": "subscribe"} | {name: value for name, value in given.items() if value is not None}
        self._wanted[channel] = request
        return await self._ask(request)

    async def subscribe_book(
        self, market: str, *, depth: int = 0, mode: str | None = None, interval_ms: int | None = None
    ) -> LocalBook:
        """The book, `ready` with the first snapshot. `depth` 0 is the whole book. Raises SubscriptionRefused."""
        book = LocalBook(market, depth)
        await self._subscribe_local(f"book:{market}", book, depth=depth, mode=mode, interval_ms=interval_ms)
        return book

    async def subscribe_orders(self, market: str) -> LocalOrders:
        """Every order, `ready` with the first snapshot. Raises SubscriptionRefused."""
        orders = LocalOrders(market)
        await self._subscribe_local(f"orders:{market}", orders)
        return orders

    async def _subscribe_local(self, channel: str, local: LocalBook | LocalOrders, **given: Any) -> None:
        self.books[channel] = local
        try:
            await self.subscribe(channel, **given)
        except SubscriptionRefused:
            del self.books[channel]
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Raises SubscriptionRefused if it is not subscribed. `channel` as `subscribed` named it."""
        self.books.pop(channel, None)
        self._wanted.pop(channel, None)
        await self._ask({"type": "unsubscribe", "channel": channel})

    async def replay(self, channel: str, after: int, to: int | None = None) -> Message:
        """The reply; the replayed messages come like all others, marked `replayed`, to whoever iterates.

        Raises:
            SubscriptionRefused: `beyond_horizon` if they are not kept any more.
        """
        request = {"type": "replay", "channel": channel, "from": after}
        return await self._ask(request if to is None else request | {"to": to})

    async def candle_history(self, channel: str, *, before: int | None = None, limit: int = 500) -> list[Message]:
        """Older candles of `candles.INTERVAL:MARKET`. Raises SubscriptionRefused."""
        request = {"type": "history", "channel": channel, "limit": limit}
        answer = await self._ask(request if before is None else request | {"before": before})
        candles: list[Message] = answer["candles"]
        return candles

    async def ping(self) -> int:
        """The sequence that the feed has reached."""
        return int((await self._ask({"type": "ping"}))["seq"])

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            if self._waiting:
                yield self._waiting.pop(0)
                continue
            message = await self._receive()
            if message is None:
                return
            yield message

    async def _ask(self, request: Message) -> Message:
        await self.send(request)
        answers = {
            "subscribe": "subscribed", "unsubscribe": "unsubscribed", "ping": "pong", "replay": "replay",
            "history": "history",
        }  # fmt: skip
        while True:
            message = await self._receive()
            if message is None:
                raise SubscriptionRefused("closed", "the connection was closed")
            if message["type"] == "error":
                raise SubscriptionRefused(message["code"], message["message"], message)
            if message["type"] == answers[request["type"]]:
                return message
            self._waiting.append(message)

    async def send(self, request: Message) -> None:
        """Without waiting for the answer, which comes like all other messages."""
        assert self._socket is not None, "use it with `async with`"
        await self._socket.send(msgspec.json.encode(request).decode())

    async def _receive(self) -> Message | None:
        assert self._socket is not None, "use it with `async with`"
        async for data in self._socket:
            if isinstance(data, bytes):
                assert self._decoder is not None, "the server sends binary frames only where they were asked for"
                message = self._decoder.decode(data)
            else:
                message = msgspec.json.decode(data)
            if self._decoder is not None:
                self._decoder.learn(message)
            channel = message.get("channel", "")
            if message["type"] in ("subscribed", "unsubscribed") and channel in self._resubscribing:
                if message["type"] == "subscribed":
                    self._resubscribing.discard(channel)
                continue
            if message["type"] == "slow":
                self.slow = message["conflated"]
            elif message["type"] == "heads":
                self.seq = message["seq"]
                for name, seq in message["heads"].items():
                    if name in self.books:
                        await self._keep(name, lambda book, seq=seq: book.check_head(seq))
            elif channel in self.books and message["type"] in ("snapshot", "update") and "replayed" not in message:
                await self._keep(channel, lambda book, message=message: book.apply(message))
            return message
        return None

    async def _keep(self, channel: str, take: Any) -> None:
        if channel in self._resubscribing:
            return
        try:
            take(self.books[channel])
        except BookGap:
            self._resubscribing.add(channel)
            await self.send({"type": "unsubscribe", "channel": channel})
            await self.send(self._wanted[channel])
