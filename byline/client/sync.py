"""The same clients for programs without an event loop: each call blocks until its answer is there.

    with SyncTrader("ws://127.0.0.1:7401", key) as trader:
        order = trader.place("CRT-USD", "my-1", "buy", "limit", size="10", price="1.25")
        for event in trader.events():
            ...

    with SyncFeed("ws://127.0.0.1:7402") as feed:
        book = feed.subscribe_book("CRT-USD")
        for message in feed:
            ...

Behind each stands the asynchronous client on a loop of its own thread, so connections are kept, resumed and followed
while the program does something else. Calls may come from any thread. Errors are those of the asynchronous calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client.market_data import LocalBook, LocalOrders, MarketDataClient
from byline.client.messages import ServerMessage
from byline.client.tracker import TrackedOrder
from byline.client.trader import Trader

__all__ = ["SyncFeed", "SyncTrader"]

T = TypeVar("T")


class _Blocking:
    """An asynchronous client on a thread of its own, from `with` to its end."""

    def __init__(self, client: Trader | MarketDataClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="byline-client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._do(self._client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._do(self._client.__aexit__(kind, error, trace))
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _each(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T:
            return await anext(source)

        while True:
            try:
                yield self._do(following())
            except StopAsyncIteration:
                return


class SyncTrader(_Blocking):
    """`byline.client.Trader`, blocking; the arguments are its."""

    def __init__(self, url: str, key: Ed25519PrivateKey, **options: Any) -> None:
        self._trader = Trader(url, key, **options)
        super().__init__(self._trader)

    def place(self, market: str, client_id: str, side: str, type: str, **terms: Any) -> TrackedOrder:
        """As Trader.place."""
        return self._do(self._trader.place(market, client_id, side, type, **terms))

    def replace(self, client_id: str, **changes: Any) -> TrackedOrder:
        """As Trader.replace."""
        return self._do(self._trader.replace(client_id, **changes))

    def cancel(self, client_id: str, account: str | None = None) -> TrackedOrder:
        """As Trader.cancel."""
        return self._do(self._trader.cancel(client_id, account))

    def cancel_all(self, **scope: Any) -> None:
        """As Trader.cancel_all."""
        self._do(self._trader.cancel_all(**scope))

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """As Trader.ask."""
        return self._do(self._trader.ask(op, **fields))

    def open_orders(self) -> list[TrackedOrder]:
        """As of the last message."""

        async def look() -> list[TrackedOrder]:
            return self._trader.open_orders()

        return self._do(look())

    def events(self) -> Iterator[ServerMessage]:
        """Every event from now on, typed, each once. Iterate it, or everything else is held up in the end."""

        async def begin() -> AsyncIterator[ServerMessage]:
            return self._trader.events()

        return self._each(self._do(begin()))


class SyncFeed(_Blocking):
    """`byline.client.market_data.MarketDataClient`, blocking. Books are kept up while it is iterated."""

    def __init__(self, url: str = "ws://127.0.0.1:7402", *, encoding: str = "json") -> None:
        self._feed = MarketDataClient(url, encoding=encoding)
        super().__init__(self._feed)

    def subscribe(self, channel: str, **options: Any) -> dict[str, Any]:
        """As MarketDataClient.subscribe."""
        return self._do(self._feed.subscribe(channel, **options))

    def subscribe_book(self, market: str, **options: Any) -> LocalBook:
        """As MarketDataClient.subscribe_book."""
        return self._do(self._feed.subscribe_book(market, **options))

    def subscribe_orders(self, market: str) -> LocalOrders:
        """As MarketDataClient.subscribe_orders."""
        return self._do(self._feed.subscribe_orders(market))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._each(aiter(self._feed))
