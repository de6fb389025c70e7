"""The market data server over real sockets: feeds, bad input, slow readers, restarts."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from byline.client.market_data import MarketDataClient, SubscriptionRefused
from marketdata.server import CLOSE_SLOW, serve
from marketdata.settings import MarketDataSettings
from tests.support.market_flow import Flow, ListSource

BOOK = "orderbook:NOVA-USD"


class Exchange:
    """Flow, source and a running server."""

    def __init__(self, seed=1, **settings):
        self.settings = MarketDataSettings(**({"port": 0, "flush_interval_ms": 5} | settings))
        self.flow = Flow(seed)
        self.source = ListSource()
        self.source.publish(self.flow.opening, self.flow.sequence)
        self.status = {}

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.status['port']}"

    def step(self, count=1):
        for _ in range(count):
            self.source.publish(self.flow.step(), self.flow.sequence)

    @asynccontextmanager
    async def running(self):
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(serve(self.source, self.settings, stop=stop, status=self.status, ready=ready))
        waiter = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if task.done():
            task.result()
        try:
            yield self
        finally:
            stop.set()
            await task


async def read_until(client, done):
    async for message in client:
        if done(message):
            return message
    raise AssertionError("the connection ended")


async def test_client_has_the_cores_book_trades_and_price():
    exchange = Exchange(seed=3)
    exchange.step(100)
    async with exchange.running(), MarketDataClient(exchange.url) as client:
        book = await client.subscribe_book("NOVA-USD")
        await client.subscribe("trades:NOVA-USD")
        await client.subscribe("price:NOVA-USD")
        ids = []
        for _ in range(30):
            exchange.step(10)
            await client.ping()
            await asyncio.sleep(0.01)
        exchange.flow.ts += 1
        exchange.source.publish(exchange.flow.place("buy", 90, 7), exchange.flow.sequence)
        final = exchange.flow.sequence

        def done(message):
            if message.get("channel") == "trades:NOVA-USD" and "trades" in message:
                ids.extend(trade["trade_id"] for trade in message["trades"])
            return message.get("channel") == BOOK and message.get("seq") == final

        await read_until(client, done)
        assert (book.bids, book.asks) == exchange.flow.book_text() and book.gap_count == 0
        assert ids == list(range(ids[0], ids[0] + len(ids))) and len(ids) > 20


async def test_restart_rebuilds_the_same_book_and_the_log_goes_on():
    exchange = Exchange(seed=5)
    exchange.step(300)
    books = []
    for _ in range(2):
        async with exchange.running(), MarketDataClient(exchange.url) as client:
            book = await client.subscribe_book("NOVA-USD")
            await read_until(client, lambda message: message["type"] == "snapshot")
            books.append((book.seq, book.bids, book.asks))
    assert books[0] == books[1] and books[0][1:] == exchange.flow.book_text()
    async with exchange.running(), MarketDataClient(exchange.url) as client:
        book = await client.subscribe_book("NOVA-USD")
        await read_until(client, lambda message: message["type"] == "snapshot")
        await asyncio.sleep(0.05)  # the core is away: nothing is published, nobody is harmed
        exchange.source.publish(exchange.flow.place("buy", 90, 3), exchange.flow.sequence)
        await read_until(client, lambda message: message.get("seq") == exchange.flow.sequence)
        assert (book.bids, book.asks) == exchange.flow.book_text()


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda ws: ws.send(b"\x00\x01"), 1003),
        (lambda ws: ws.send(iter(['{"type":', '"ping"}'])), 1003),
        (lambda ws: ws.send("x" * 20_000), 1009),
    ],
    ids=["binary", "fragments", "oversize"],
)
async def test_frame_that_is_no_request_closes_its_sender_alone(send, code):
    exchange = Exchange()
    async with exchange.running(), MarketDataClient(exchange.url) as neighbour, connect(exchange.url) as bad:
        await neighbour.subscribe("trades:NOVA-USD")
        with pytest.raises(ConnectionClosed) as closed:
            await send(bad)
            await bad.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == code and closed.value.rcvd.reason
        assert await neighbour.ping() >= 1


async def test_bad_requests_are_answered_and_the_connection_lives():
    exchange = Exchange()
    async with exchange.running(), connect(exchange.url) as ws:
        for text, code in (("{", "bad_json"), ('{"type":"buy"}', "bad_request"), ('"x"', "bad_request")):
            await ws.send(text)
            assert json.loads(await ws.recv())["code"] == code
        await ws.send('{"type":"ping","rid":1}')
        assert json.loads(await ws.recv())["rid"] == 1
    async with exchange.running(), MarketDataClient(exchange.url) as client:
        with pytest.raises(SubscriptionRefused, match="NOPE"):
            await client.subscribe("trades:NOPE")


async def test_connections_are_limited():
    exchange = Exchange(connection_limit=1)
    async with exchange.running(), connect(exchange.url):
        with pytest.raises(Exception, match="503"):
            async with connect(exchange.url):
                pass


async def test_slow_reader_is_told_then_cut_while_its_neighbour_keeps_the_feed():
    exchange = Exchange(seed=2, slow_bytes=20_000, cut_bytes=200_000, send_buffer_bytes=4_096, close_grace_ms=8_000)
    async with exchange.running(), MarketDataClient(exchange.url) as neighbour:
        host, port = "127.0.0.1", exchange.status["port"]
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stuck, (host, port))
        await loop.sock_sendall(
            stuck,
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        assert b"101" in await loop.sock_recv(stuck, 4_096)
        for channel in ("orderbook:NOVA-USD", "trades:NOVA-USD"):
            request = json.dumps({"type": "subscribe", "channel": channel}).encode()
            await loop.sock_sendall(stuck, b"\x81" + bytes([0x80 | len(request)]) + bytes(4) + request)
        book = await neighbour.subscribe_book("NOVA-USD", depth=0)
        was_slow = False
        for _ in range(4_000):
            exchange.step(40)
            assert await neighbour.ping() >= 1
            await asyncio.sleep(0.006)
            exchange.source.publish(exchange.flow.place("buy", 50, 1), exchange.flow.sequence)
            was_slow = was_slow or exchange.status["slow"] == 1
            if exchange.status["cut"]:
                break
        assert was_slow and exchange.status["cut"] == 1
        exchange.source.publish(exchange.flow.place("buy", 51, 1), exchange.flow.sequence)
        await read_until(neighbour, lambda message: message.get("seq") == exchange.flow.sequence and "bids" in message)
        assert (book.bids, book.asks) == exchange.flow.book_text() and book.gap_count == 0
        received = b""
        while chunk := await asyncio.wait_for(_receive(loop, stuck), 10):
            received += chunk
        stuck.close()
        assert b'"type":"slow"' in received
        assert CLOSE_SLOW.to_bytes(2, "big") + b"slow reader" in received


async def _receive(loop, sock):
    try:
        return await loop.sock_recv(sock, 65_536)
    except ConnectionResetError:
        return b""
