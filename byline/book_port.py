"""The API's copy of the books: one market-data connection that keeps a local book of each market asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import websockets

from byline.client.market_data import BookGap, LocalBook, MarketDataClient, SubscriptionRefused
from byline.status_file import read_status
from engine.messages.errors import Unavailable

__all__ = ["FollowedBooks"]

log = logging.getLogger(__name__)

RETRY_S = 0.25
READY_S_MAX = 2.0
POLL_S = 0.01
FEEDS = ("marketdata", "marketdata_b")
"""Tried in turn: the second is there only where it was set."""


class FollowedBooks:
    """Fulfils `platform_api.ports.BookPort`. A market is subscribed when first asked for, then followed for good."""

    def __init__(self, data_directory: Path, host: str) -> None:
        self._data = data_directory
        self._host = host
        self._client: MarketDataClient | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._wanted: dict[str, LocalBook | None] = {}
        self._refused: set[str] = set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Starts to connect; does not wait for it."""
        self._keeper = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def depth(self, market: str, depth: int) -> Mapping[str, Any]:
        """The best levels. Raises Unavailable, KeyError."""
        if self._client is None:
            raise Unavailable("market data is not reachable")
        if market not in self._wanted:
            self._refused.discard(market)
            self._wanted[market] = None
            self._changed.set()
        until = asyncio.get_running_loop().time() + READY_S_MAX
        while asyncio.get_running_loop().time() < until:
            if market in self._refused:
                raise KeyError(market)
            book = self._wanted.get(market)
            if book is not None and book.ready:
                return {"sequence": book.seq, "bids": book.bids[:depth], "asks": book.asks[:depth]}
            await asyncio.sleep(POLL_S)
        raise Unavailable(f"no book of {market} at hand yet")

    async def _keep_connected(self) -> None:
        attempt = 0
        while True:
            try:
                feed = FEEDS[attempt % len(FEEDS)]
                attempt += 1
                status = read_status(self._data, feed)
                if status is not None and status["ready"]:
                    async with MarketDataClient(f"ws://{status.get('host', self._host)}:{status['port']}") as client:
                        self._client = client
                        await self._follow(client)
            except (OSError, websockets.WebSocketException, BookGap) as error:
                log.warning("event=marketdata_unreachable error=%s", error)
            finally:
                self._client = None
                self._wanted = dict.fromkeys(self._wanted)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, client: MarketDataClient) -> None:
        """Receives until the connection ends. A new market interrupts the wait: only one call may receive at a time."""
        self._changed.set()
        while True:
            if self._changed.is_set():
                self._changed.clear()
                await self._subscribe(client)
            receiving = asyncio.create_task(self._receive_all(client))
            changed = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait({receiving, changed}, return_when=asyncio.FIRST_COMPLETED)
                if receiving.done():
                    return receiving.result()
            finally:
                receiving.cancel()
                changed.cancel()
                await asyncio.gather(receiving, changed, return_exceptions=True)

    @staticmethod
    async def _receive_all(client: MarketDataClient) -> None:
        async for _ in client:  # the client applies each message to its book
            pass

    async def _subscribe(self, client: MarketDataClient) -> None:
        for market in [market for market, book in self._wanted.items() if book is None]:
            try:
                self._wanted[market] = await client.subscribe_book(market)
            except SubscriptionRefused as error:
                log.info("event=no_book market=%s error=%s", market, error)
                del self._wanted[market]
                self._refused.add(market)
