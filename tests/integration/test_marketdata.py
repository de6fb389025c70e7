"""The market data server over real sockets: feeds, bad input, slow readers, restarts."""

import asyncio
import contextlib
import gc
import json
import random
import socket
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

import marketdata.server
from byline.client.market_data import LocalBook, MarketDataClient, SubscriptionRefused
from marketdata.channels import DEPTHS, INTERVALS, INTERVALS_MS, MODES, VENUE_WIDE, parse_channel
from marketdata.server import serve
from marketdata.settings import MarketDataSettings
from tests.support.market_flow import Flow, ListSource
from tests.support.waiting import HANG_S

BOOK = "book:NOVA-USD"


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
        (lambda ws: ws.transport.write(Frame(Opcode.CONT, b"x").serialize(mask=True)), 1002),
        (lambda ws: ws.send("x" * 20_000), 1009),
        (lambda ws: ws.send(b'{"type":"\xff"}', text=True), 1007),
    ],
    ids=["binary", "continuation of nothing", "oversize", "invalid UTF-8"],
)
async def test_frame_that_is_no_request_closes_its_sender_alone(send, code):
    exchange = Exchange()
    async with exchange.running(), MarketDataClient(exchange.url) as neighbour, connect(exchange.url) as bad:
        await neighbour.subscribe("trades:NOVA-USD")
        with pytest.raises(ConnectionClosed) as closed:
            sending = send(bad)
            if sending is not None:
                await sending
            await bad.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == code and closed.value.rcvd.reason
        assert await neighbour.ping() >= 1


async def test_a_request_in_fragments_is_a_request():
    exchange = Exchange()
    async with exchange.running(), connect(exchange.url) as ws:
        await ws.send(iter(['{"type":', '"ping"', "}"]))
        assert json.loads(await ws.recv())["type"] == "pong"
        for code in (0, 5000):
            async with connect(exchange.url) as bad:
                bad.transport.write(Frame(Opcode.CLOSE, code.to_bytes(2, "big")).serialize(mask=True))
                with pytest.raises(ConnectionClosed) as closed:
                    await bad.recv()
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1002


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


async def test_f39_connections_are_limited():
    exchange = Exchange(connection_limit=1)
    async with exchange.running(), connect(exchange.url):
        with pytest.raises(Exception, match="503"):
            async with connect(exchange.url):
                pass


class StuckReader:
    """A reader that has a tiny window and takes nothing until it is told to."""

    def __init__(self, port):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.setblocking(False)
        self._port = port
        self._data = b""

    async def subscribe(self, *requests):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(
            self.socket,
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        assert b"101" in await loop.sock_recv(self.socket, 4_096)
        for request in requests:
            payload = json.dumps({"type": "subscribe"} | request).encode()
            await loop.sock_sendall(self.socket, b"\x81" + bytes([0x80 | len(payload)]) + bytes(4) + payload)

    async def next(self):
        """The next message, or None at the end."""
        while True:
            if len(self._data) >= 2:
                size, at = self._data[1], 2
                if size >= 126:
                    width = 2 if size == 126 else 8
                    size, at = int.from_bytes(self._data[2 : 2 + width], "big"), 2 + width
                if len(self._data) >= at + size:
                    payload, self._data = self._data[at : at + size], self._data[at + size :]
                    return json.loads(payload)
            chunk = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 65_536), HANG_S)
            if not chunk:
                return None
            self._data += chunk


async def test_f40_lossless_reader_that_lags_is_told_moved_and_brought_back_but_never_cut():
    exchange = Exchange(seed=2, slow_bytes=20_000, send_buffer_bytes=4_096, lag_hold_ms=50)
    async with exchange.running(), MarketDataClient(exchange.url) as neighbour:
        stuck = StuckReader(exchange.status["port"])
        await stuck.subscribe({"channel": BOOK, "mode": "lossless", "depth": 0}, {"channel": "trades:NOVA-USD"})
        book = await neighbour.subscribe_book("NOVA-USD", depth=0)
        while not exchange.status["slow"]:
            exchange.step(40)
            assert await neighbour.ping() >= 1
            await asyncio.sleep(0.006)
        for _ in range(100):  # it stays where it is, however much happens
            exchange.step(40)
            assert await neighbour.ping() >= 1
            await asyncio.sleep(0.002)
        exchange.source.publish(exchange.flow.place("buy", 51, 1), exchange.flow.sequence)
        await read_until(neighbour, lambda message: message.get("seq") == exchange.flow.sequence and "bids" in message)
        assert (book.bids, book.asks) == exchange.flow.book_text() and book.gap_count == 0
        own, said = LocalBook("NOVA-USD"), []
        while [word for word, _ in said] != [True, False]:
            message = await stuck.next()
            assert message is not None, "it was cut"
            if message["type"] == "slow":
                said.append((message["conflated"], message.get("moved")))
            elif message.get("channel") == BOOK and message["type"] in ("snapshot", "update"):
                own.apply(message)
        assert said[0][1] == {
            BOOK: {"mode": "latest", "interval_ms": 1000}, "trades:NOVA-USD": {"mode": "latest", "interval_ms": 1000},
        }  # fmt: skip
        exchange.source.publish(exchange.flow.place("buy", 52, 1), exchange.flow.sequence)
        fresh = LocalBook("NOVA-USD")
        while fresh.seq != exchange.flow.sequence:
            message = await stuck.next()
            if message.get("channel") == BOOK and message["type"] in ("snapshot", "update"):
                fresh.apply(message)
        assert (fresh.bids, fresh.asks) == exchange.flow.book_text() and exchange.status["cut"] == 0
        stuck.socket.close()


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_every_channel_over_a_socket_in_both_encodings(encoding):
    exchange = Exchange(seed=6)
    exchange.step(50)
    async with exchange.running(), MarketDataClient(exchange.url, encoding=encoding) as client:
        book = await client.subscribe_book("NOVA-USD", mode="lossless")
        orders = await client.subscribe_orders("NOVA-USD")
        asked = ["trades:NOVA-USD", "ticker:NOVA-USD", "candles.1s:NOVA-USD", "auction:NOVA-USD", "status", "latency"]
        for channel in asked:
            await client.subscribe(channel)
        seen = set()
        for _ in range(20):
            exchange.step(20)
            await client.ping()
            await asyncio.sleep(0.01)
        exchange.source.publish(exchange.flow.place("buy", 90, 7), exchange.flow.sequence)
        await read_until(
            client,
            lambda m: seen.add(m.get("channel")) or (m["type"] == "heads" and m["seq"] == exchange.flow.sequence),
        )
        assert (book.bids, book.asks) == exchange.flow.book_text() and book.gap_count == orders.gap_count == 0
        bids, asks = ({price: str(size) for price, size in side.items()} for side in orders.levels())
        assert bids == dict(book.bids) and asks == dict(book.asks)
        assert seen >= {"book:NOVA-USD", "orders:NOVA-USD", *asked}
        with pytest.raises(SubscriptionRefused) as refused:
            await client.replay("book:NOVA-USD", exchange.flow.sequence + 9)
        assert refused.value.code == "bad_range"


async def test_subprotocol_that_is_not_spoken_is_refused_before_the_upgrade():
    exchange = Exchange()
    async with exchange.running():
        with pytest.raises(Exception, match="400"):
            async with connect(exchange.url, subprotocols=["byline.md.binary.v9"]):
                pass


async def test_f41_message_dropped_on_the_way_is_noticed_with_the_next_one_and_the_book_comes_back():
    """A proxy that leaves out one update now and then, also the last of a write."""
    exchange = Exchange(seed=12)
    exchange.step(60)
    dropped, revealing = [], []
    books = []

    def may_drop():
        return books and books[0].ready and len(dropped) < 8 and len(dropped) == books[0].gap_count

    async def relay(near):
        async with connect(exchange.url, compression=None) as far:

            async def up():
                async for text in near:
                    await far.send(text)

            sender, count = asyncio.create_task(up()), 0
            with contextlib.suppress(ConnectionClosed):
                async for text in far:
                    count += '"update"' in text
                    if len(revealing) < len(dropped):
                        revealing.append(json.loads(text))
                    elif '"update"' in text and count >= 9 and may_drop():
                        count = 0
                        dropped.append(text)
                        continue
                    await near.send(text)
            sender.cancel()

    async with exchange.running(), serve_websocket(relay, "127.0.0.1", 0, compression=None) as proxy:
        url = f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with MarketDataClient(url) as client:
            book = await client.subscribe_book("NOVA-USD", mode="lossless")
            books.append(book)
            noticed = 0
            while noticed < 8 or not book.ready:
                exchange.step(2)
                message = await anext(aiter(client))
                if book.gap_count > noticed:
                    noticed = book.gap_count
                    assert message == revealing[noticed - 1] and len(dropped) == noticed
            assert {message["type"] for message in revealing} == {"update", "heads"}
            exchange.step(5)
            final = exchange.flow.sequence
            await read_until(client, lambda message: message["type"] == "heads" and message["seq"] >= final)
            assert book.ready and (book.bids, book.asks) == exchange.flow.book_text()


CHANNELS = [
    *(f"{word}:NOVA-USD" for word in ("book", "orderbook", "orders", "trades", "ticker", "price", "auction")),
    *(f"candles.{interval}:NOVA-USD" for interval in INTERVALS), *VENUE_WIDE,
]  # fmt: skip


class Fickle:
    """A reader of all channels, who asks for them and lets them go again and again, each time in another way."""

    def __init__(self, ws, seed):
        self.ws = ws
        self.random = random.Random(seed)
        self.requests = 0
        self.told = set()  # channels that it has now

    def _wanted(self, channel):
        kind = parse_channel(channel)[0]
        wanted = {"type": "subscribe", "channel": channel, "mode": self.random.choice(MODES[kind])}
        if wanted["mode"] != "lossless":
            wanted["interval_ms"] = self.random.choice(INTERVALS_MS)
        return wanted | ({"depth": self.random.choice(DEPTHS)} if kind == "book" else {})

    async def _ask(self, requests):
        """Asks all at once. Each is answered in its turn, and of what it has not it hears nothing meanwhile."""
        for request in requests:
            self.requests += 1
            await self.ws.send(json.dumps(request | {"rid": self.requests}))
        waiting = list(requests)
        while waiting:
            message = json.loads(await asyncio.wait_for(self.ws.recv(), HANG_S))
            if message["type"] in ("subscribed", "unsubscribed"):
                asked = waiting.pop(0)
                assert (message["type"], message["channel"]) == (asked["type"] + "d", asked["channel"])
                assert message["rid"] == self.requests - len(waiting)
                (self.told.add if message["type"] == "subscribed" else self.told.remove)(asked["channel"])
            else:
                self._may_hear(message)

    def _may_hear(self, message):
        heard = set(message["heads"]) if message["type"] == "heads" else {message["channel"]}
        assert heard <= self.told, message

    async def round(self):
        """All of them, and then none; every second time it stays until something of one has come."""
        order = self.random.sample(CHANNELS, len(CHANNELS))
        await self._ask([self._wanted(channel) for channel in order])
        if self.random.random() < 0.5:
            self._may_hear(json.loads(await asyncio.wait_for(self.ws.recv(), HANG_S)))
        await self._ask([{"type": "unsubscribe", "channel": channel} for channel in reversed(order)])


async def test_f39_ten_thousand_subscriptions_that_end_leave_nothing_behind(monkeypatch):
    """Readers of all channels let them go as often as they ask: the server then has what it had, object by object."""
    servers = []

    class Seen(marketdata.server._Server):
        def __init__(self, *given):
            super().__init__(*given)
            servers.append(self)

    monkeypatch.setattr(marketdata.server, "_Server", Seen)
    exchange = Exchange(seed=39, flush_interval_ms=2, requests_per_second=1_000_000)
    exchange.step(50)
    async with exchange.running(), contextlib.AsyncExitStack() as stack:
        readers = [
            Fickle(await stack.enter_async_context(connect(exchange.url, compression=None)), seed) for seed in range(8)
        ]

        async def rounds(count):
            for _ in range(count):
                exchange.step(1)
                await asyncio.gather(*(reader.round() for reader in readers))
            publisher = servers[0].publisher
            while publisher.pending_count:
                await asyncio.sleep(0.01)
            gc.collect()
            kept = (len(publisher._streams), len(publisher._profiles), publisher.session_count)
            found = (type(thing) for thing in gc.get_objects())
            own = Counter(kind.__name__ for kind in found if str(kind.__module__).startswith("marketdata."))
            del own["_Minute"]  # of the market's day, which goes on
            return kept, own, len(gc.get_objects())

        kept, own, objects = await rounds(4)
        before = sum(reader.requests for reader in readers)
        kept_after, own_after, objects_after = await rounds(-(-10_000 // (2 * len(CHANNELS) * len(readers))))
        asked = sum(reader.requests for reader in readers) - before
        assert asked >= 10_000 and kept == (0, 1, len(readers))
        assert (kept_after, own_after) == (kept, own)
        assert objects_after - objects < asked // 10, "fewer than one object of Python for ten requests"
        assert exchange.status["cut"] == exchange.status["slow"] == 0


async def test_f39_readers_that_come_and_go_all_the_time_get_their_own_channel_alone():
    """Slots, sockets and profiles change hands in every flush; a short soak with broken requests in between."""
    exchange = Exchange(seed=21, flush_interval_ms=2, writes_per_turn=3, requests_per_second=100_000)
    channels = ["book:NOVA-USD", "orders:NOVA-USD", "trades:NOVA-USD", "ticker:NOVA-USD", "candles.1s:NOVA-USD"]
    async with exchange.running(), MarketDataClient(exchange.url) as steady:
        book, orders = (
            await steady.subscribe_book("NOVA-USD", mode="lossless"),
            await steady.subscribe_orders("NOVA-USD"),
        )
        stopped = asyncio.Event()

        async def visitor(number):
            rng = random.Random(number)
            while not stopped.is_set():
                channel = rng.choice(channels)
                async with connect(exchange.url, compression=None) as ws:
                    await ws.send(json.dumps({"type": "subscribe", "channel": channel}))
                    assert json.loads(await ws.recv())["channel"] == channel
                    for _ in range(rng.randrange(1, 12)):
                        message = json.loads(await asyncio.wait_for(ws.recv(), HANG_S))
                        if message["type"] == "heads":
                            assert list(message["heads"]) == [channel]
                        else:
                            assert message["channel"] == channel
                    if rng.random() < 0.3:
                        with contextlib.suppress(ConnectionClosed):
                            await ws.send(b"\x00")
                            await ws.recv()
                    elif rng.random() < 0.5:
                        ws.transport.abort()
                visits[number] += 1

        visits = dict.fromkeys(range(12), 0)
        visitors = [asyncio.create_task(visitor(number)) for number in visits]
        while sum(visits.values()) < 60:  # however slow the machine
            exchange.step(4)
            await steady.ping()
            if failed := [task for task in visitors if task.done()]:
                failed[0].result()
        stopped.set()
        exchange.step(4)
        for task in visitors:
            while not task.done():
                exchange.step(1)
                await steady.ping()
            task.result()
        exchange.source.publish(exchange.flow.place("buy", 80, 1), exchange.flow.sequence)
        final = exchange.flow.sequence
        await read_until(steady, lambda m: m["type"] == "heads" and m["seq"] >= final)
        assert (book.bids, book.asks) == exchange.flow.book_text() and book.gap_count == orders.gap_count == 0
        assert exchange.status["cut"] == 0
