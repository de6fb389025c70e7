"""Market data over TLS by setting: real TLS clients beside plain ones, slow ones too."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from bench.soak.world import MARKETS, World
from byline.client import TradingClient
from byline.client.market_data import LocalBook, MarketDataClient
from engine.messages.errors import SettingsInvalid
from marketdata.settings import MarketDataSettings
from tests.integration.test_marketdata import BOOK, Exchange, read_until
from tests.support.tls import certificate


async def test_tls_readers_get_what_plain_ones_get(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    trusts = ssl.create_default_context(cafile=pem)
    exchange = Exchange(tls_certificate=pem, tls_key=key, tls_port=0)
    async with exchange.running():
        secure = f"wss://127.0.0.1:{exchange.status['tls_port']}"
        async with (
            MarketDataClient(secure, ssl=trusts) as one, MarketDataClient(secure, encoding="binary", ssl=trusts) as two,
            MarketDataClient(exchange.url) as plain,
        ):  # fmt: skip
            clients = (one, two, plain)
            books = [await client.subscribe_book("NOVA-USD", mode="lossless") for client in clients]
            for _ in range(40):
                exchange.step(5)
                for client, book in zip(clients, books, strict=True):
                    await client.ping()
                    if book.ready:
                        assert book.gap_count == 0
            last = exchange.flow.sequence
            for client in clients:
                await read_until(client, lambda message: message["type"] == "heads" and message["seq"] == last)
            assert all((book.bids, book.asks) == exchange.flow.book_text() for book in books)
            assert [book.gap_count for book in books] == [0, 0, 0]
        with pytest.raises((InvalidMessage, OSError)):  # that door speaks nothing else
            await connect(f"ws://127.0.0.1:{exchange.status['tls_port']}")
        with pytest.raises(ssl.SSLError):
            await connect(secure, ssl=ssl.create_default_context())
        old = ssl.create_default_context(cafile=pem)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, OSError)):
            await connect(secure, ssl=old)


async def test_a_slow_tls_reader_is_told_moved_and_comes_back(tmp_path: Path) -> None:
    """Its bytes never go straight to the socket, and none of them overtakes another."""
    pem, key = certificate(tmp_path)
    settings: dict[str, Any] = {"slow_bytes": 20_000, "send_buffer_bytes": 4_096, "lag_hold_ms": 50}
    exchange = Exchange(seed=2, tls_certificate=pem, tls_key=key, tls_port=0, **settings)
    async with exchange.running():
        url = f"wss://127.0.0.1:{exchange.status['tls_port']}"
        trusts = ssl.create_default_context(cafile=pem)
        async with connect(url, ssl=trusts, compression=None, max_queue=1) as socket:
            await socket.send(json.dumps({"type": "subscribe", "channel": BOOK, "depth": 0, "mode": "lossless"}))
            slow = exchange.status
            while not slow.get("slow"):  # however much the sockets between take
                exchange.step(50)
                await asyncio.sleep(0.005)
            book, told = LocalBook("NOVA-USD"), []
            while told != [True, False]:
                message = json.loads(await socket.recv())
                if message["type"] == "slow":
                    told.append(message["conflated"])
                elif message.get("channel") == BOOK and message["type"] in ("snapshot", "update"):
                    book.apply(message)  # raises where one does not follow
            exchange.step(10)
            while book.seq < exchange.flow.sequence or message["type"] != "heads":
                message = json.loads(await socket.recv())
                if message.get("channel") == BOOK:
                    book.apply(message)
                elif message["type"] == "heads" and message["seq"] == exchange.flow.sequence:
                    break
            assert (book.bids, book.asks) == exchange.flow.book_text() and book.gap_count == 0


async def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    with pytest.raises(SettingsInvalid, match="tls_key"):
        MarketDataSettings(tls_certificate=pem)
    with pytest.raises(SettingsInvalid, match="tls_port"):
        MarketDataSettings(tls_port=70_000)
    exchange = Exchange(tls_certificate=key, tls_key=key, tls_port=0)
    with pytest.raises(SettingsInvalid, match="tls_certificate"):
        async with exchange.running():
            pass


async def test_the_processes_of_an_exchange_open_both_doors_of_tls(tmp_path: Path) -> None:
    """As `byline up` starts them: one certificate, order entry and market data behind it."""
    pem, key = certificate(tmp_path)
    trusts = ssl.create_default_context(cafile=pem)
    world = World(tmp_path, 1, 1, viewers=0)
    world.settings = replace(
        world.settings, tls_certificate=pem, tls_key=key, tls_port=0, marketdata_tls_port=0, tls_host="127.0.0.1"
    )
    async with world:
        while not world.status("core").get("tls_port"):
            await asyncio.sleep(0.02)
        doors = {name: f"wss://127.0.0.1:{world.status(name)['tls_port']}" for name in ("core", "marketdata")}
        trader = await TradingClient.connect(doors["core"], world.members[0].key, ssl=trusts)
        async with trader, MarketDataClient(doors["marketdata"], ssl=trusts) as feed:
            book = await feed.subscribe_book(MARKETS[0], mode="lossless")
            placed = await trader.place(MARKETS[0], "a", "buy", "limit", size="1", price="9.5")
            await read_until(feed, lambda message: message["type"] == "heads" and message["seq"] >= placed["sequence"])
            assert [tuple(map(str, level)) for level in book.bids] == [("9.5", "1")] and not book.asks
