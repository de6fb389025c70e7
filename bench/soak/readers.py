"""Readers of the soak, in a process of their own: every channel, mode and encoding, and what they saw.

Each reader keeps the chain of each of its streams; a message that does not follow, where nothing was announced, is a
fault. Whole books are kept by the client library's own `LocalBook` and `LocalOrders`. What is seen goes into tables
that all readers share: checksums by (market, depth or -1 for orders, sequence), trades by (market, number). Two readers
that saw different things are a fault at once; the judge compares the tables with the journal.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import socket
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.soak.world import FAULTS_MAX, MARKETS
from byline.client.binary_feed import SUBPROTOCOL, BinaryDecoder
from byline.client.market_data import BookGap, LocalBook, LocalOrders

__all__ = ["ORDERS", "Seen", "read"]

ORDERS = -1
"""In the place of a depth: the stream of single orders."""
SLOW_EVERY = 40  # one reader in so many stops reading now and then
_SLOW_BUFFER = 4_096
_decode_text = lru_cache(1 << 14)(msgspec.json.Decoder().decode)  # thousands get the same bytes; nobody changes them
_decoder = BinaryDecoder()
_decode_binary = lru_cache(1 << 14)(_decoder.decode)

Channel = dict[str, Any]


@dataclass(slots=True)
class Seen:
    """What all readers of the process saw."""

    books: dict[tuple[int, int, int], str] = field(default_factory=dict)
    trades: dict[tuple[int, int], tuple[int, str, str, str]] = field(default_factory=dict)
    last: dict[tuple[int, int], set[tuple[int, str]]] = field(default_factory=dict)
    """(sequence, checksum) of every reader of (market, depth), when all was quiet."""
    whole: dict[int, LocalBook] = field(default_factory=dict)
    """By market: what a lossless reader of the whole book ended with."""
    queues: dict[int, list[tuple[str, str, str]]] = field(default_factory=dict)
    """By market: (side, price, size) of single orders in the order of the queues."""
    tickers: dict[int, Channel] = field(default_factory=dict)
    candles: dict[int, list[Channel]] = field(default_factory=dict)
    thinned: set[int] = field(default_factory=set)
    """Markets of which a reader of trades was told that it is slow, though it never stopped reading by plan."""
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        self.counts["faults"] += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    def book(self, market: int, depth: int, seq: int, checksum: str) -> None:
        if self.books.setdefault((market, depth, seq), checksum) != checksum:
            other = self.books[market, depth, seq]
            self.fault(f"two books of {MARKETS[market]} depth {depth} at {seq}: {other} {checksum}")

    def trade(self, market: int, trade: Channel) -> None:
        told = trade["seq"], trade["price"], trade["size"], trade["aggressor"]
        if self.trades.setdefault((market, trade["trade_id"]), told) != told:
            self.fault(f"two trades {trade['trade_id']} of {MARKETS[market]}: {told}")


def plan(number: int) -> tuple[str, list[Channel]]:
    """Encoding and subscriptions of a reader: 20 kinds, on each market in turn."""
    name = MARKETS[number // 20 % len(MARKETS)]
    kinds: list[tuple[str, list[Channel]]] = [
        ("json", [_sub("book", name, depth=0, mode="lossless"), _sub("trades", name)]),
        ("json", [_sub("orders", name), _sub("trades", name), _sub("book", name, depth=0, mode="lossless")]),
        ("binary", [_sub("book", name, depth=10, mode="lossless")]),
        ("binary", [_sub("orders", name), _sub("auction", name)]),
        ("binary", [_sub("book", name, depth=0, mode="conflated", interval_ms=250)]),
        ("json", [_sub("book", name, depth=25, mode="conflated", interval_ms=500), _sub("ticker", name)]),
        ("json", [_sub("book", name, depth=50, mode="conflated", interval_ms=1000)]),
        ("binary", [_sub("book", name, depth=100, mode="conflated", interval_ms=1000)]),
        ("json", [_sub("book", name, depth=5, mode="latest", interval_ms=1000)]),
        ("binary", [_sub("book", name, depth=1, mode="latest", interval_ms=500), _sub("ticker", name, mode="latest")]),
        ("json", [_sub("book", name, depth=500, mode="latest", interval_ms=5000)]),
        ("json", [_sub("trades", name, mode="conflated", interval_ms=500), _sub("candles.1s", name)]),
        ("binary", [_sub("trades", name, mode="conflated", interval_ms=1000), _sub("candles.1m", name)]),
        ("json", [_sub("trades", name, mode="latest", interval_ms=1000), _sub("candles.1M", name, interval_ms=1000)]),
        ("json", [_sub("status"), _sub("latency", interval_ms=1000), _sub("ticker", name, interval_ms=1000)]),
        ("json", [_sub("orderbook", name, depth=0, mode="conflated", interval_ms=1000), _sub("price", name)]),
        ("json", [_sub("candles.1m", name, interval_ms=1000), _sub("auction", name, mode="latest")]),
        ("binary", [_sub("trades", name), _sub("candles.5m", name, interval_ms=5000)]),
        ("json", [_sub("ticker", other, interval_ms=1000) for other in MARKETS]),
        ("binary", [_sub("ticker", other, interval_ms=1000) for other in MARKETS]),
    ]
    if number % SLOW_EVERY == 0:  # everything, so that much waits when it does not read
        return "json", [
            _sub(kind, other, **more)
            for other in MARKETS
            for kind, more in (("book", {"depth": 0, "mode": "lossless"}), ("orders", {}), ("trades", {}))
        ]
    return kinds[number % 20]


def _sub(kind: str, market: str = "", **more: Any) -> Channel:
    return {"channel": f"{kind}:{market}" if market else kind, **more}


class _Stream:
    """One subscription and where it is."""

    __slots__ = (
        "depth", "heads", "is_asked", "is_fresh", "kind", "last_trade", "latest", "local", "market", "request", "seq"
    )  # fmt: skip

    def __init__(self, request: Channel) -> None:
        self.request = request
        word, _, name = request["channel"].partition(":")
        self.kind = {"orderbook": "book", "price": "ticker"}.get(word, word)
        self.market = MARKETS.index(name) if name else -1
        self.depth = request.get("depth", ORDERS)
        self.latest = request.get("mode") == "latest"
        self.local: LocalBook | LocalOrders | None = None
        if self.kind == "book":
            self.local = LocalBook(name, self.depth)
        elif self.kind == "orders":
            self.local = LocalOrders(name)
        self.is_fresh = True  # a snapshot is to come
        self.seq = -1
        self.heads = -1  # the sequence up to which the last heads that named it tell that it has everything
        self.last_trade = 0
        self.is_asked = True  # `subscribed` is to come


class _Line(WSListener):
    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.reader.line is not self:
            return
        if frame.msg_type == WSMsgType.TEXT:
            message = _decode_text(frame.get_payload_as_bytes())
            if self.reader.encoding == "binary":
                _decoder.learn(message)
            self.reader.hear(message)
        elif frame.msg_type == WSMsgType.BINARY:
            self.reader.hear(_decode_binary(frame.get_payload_as_bytes()))
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.reader.seen.counts[f"readers closed {frame.get_close_code()}"] += 1
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.reader.line is self:
            self.reader.line = self.reader.transport = None


class Reader:
    """One connection, made again when it is lost."""

    def __init__(self, number: int, url: str, seen: Seen, rng: random.Random) -> None:
        self.number = number
        self.url = url
        self.seen = seen
        self.rng = rng
        self.encoding, self.requests = plan(number)
        self.streams: dict[str, _Stream] = {}
        self.line: _Line | None = None
        self.transport: WSTransport | None = None
        self.is_slow = False
        self.wanted = -1  # settle at this sequence
        self.pong = -1

    async def connect(self) -> None:
        line = self.line = _Line(self)
        headers = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if self.encoding == "binary" else None
        try:
            made, _ = await ws_connect(
                lambda: line, self.url, websocket_handshake_timeout=60.0, extra_headers=headers,
                max_frame_size=1 << 26, enable_auto_pong=False, socket_factory=self._socket,
                read_buffer_init_size=4_096,
            )  # fmt: skip
            if made.is_disconnected:  # cut in the handshake, of which picows says nothing
                raise ConnectionResetError("cut in the handshake")
            self.transport = made
        except Exception:  # noqa: BLE001 - whatever it is, it is counted and tried again
            self.seen.counts["connects of readers that failed"] += 1
            self.line = self.transport = None
            return
        self.seen.counts["reader connections"] += 1
        self.begin()

    def begin(self) -> None:
        """Subscribes to all that it reads, anew."""
        self.is_slow = False
        self.pong = -1
        before = self.streams
        self.streams = {}
        for request in self.requests:
            stream = self.streams[request["channel"]] = _Stream(request)
            self._ask({"type": "subscribe", **request})
            old = before.get(request["channel"])
            if old is not None and stream.kind == "trades" and old.seq > 0 and not stream.latest:
                self._ask({"type": "replay", "channel": request["channel"], "from": old.seq})
                self.seen.counts["replays asked for"] += 1

    def _socket(self, _: Any) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self.number % SLOW_EVERY == 0:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        made.setblocking(False)
        return made

    def _ask(self, request: Channel) -> None:
        if self.transport is not None:
            self.transport.send(WSMsgType.TEXT, msgspec.json.encode(request))

    def drop(self, graceful: bool) -> None:
        transport, self.line, self.transport = self.transport, None, None
        if transport is not None:
            self.seen.counts["disconnects by readers"] += 1
            transport.disconnect(graceful)

    # ---------------------------------------------------------------- hearing

    def hear(self, message: Channel) -> None:
        kind = message["type"]
        self.seen.counts["messages read"] += 1
        if kind == "heads":
            self._check_heads(message)
        elif kind in ("snapshot", "update", "event"):
            stream = self.streams.get(message["channel"])
            if stream is not None:
                self._follow(stream, message)
        elif kind == "slow":
            self.seen.counts["told that they are slow" if message["conflated"] else "told that they caught up"] += 1
            self.is_slow = message["conflated"]
            for stream in self.streams.values():
                if self.is_slow and stream.kind == "trades" and self.number % SLOW_EVERY:
                    self.seen.thinned.add(stream.market)
                stream.is_fresh, stream.seq, stream.heads = True, -1, -1
        elif kind == "subscribed":
            stream = self.streams.get(message["channel"])
            if stream is not None:
                stream.is_asked, stream.is_fresh = False, True
        elif kind == "pong":
            self.pong = message["seq"]
        elif kind == "error" and message["code"] not in ("rate_limited", "beyond_horizon"):
            self.seen.fault(f"reader {self.number}: {message}")

    def _follow(self, stream: _Stream, message: Channel) -> None:
        if "replayed" in message:
            self._trades(stream, message)
            return
        if message["type"] == "snapshot":
            if not (stream.is_fresh or stream.latest or self.is_slow):
                self.seen.fault(f"reader {self.number}: {message['channel']} begins anew at {message['seq']}")
        elif stream.is_fresh or message["prev_seq"] != stream.seq:
            if not (stream.is_fresh and self.is_slow):
                self.seen.fault(
                    f"reader {self.number}: {message['channel']} {message['seq']} follows {message['prev_seq']}, "
                    f"this is at {stream.seq}"
                )
            return
        if stream.local is not None:
            self._book(stream, message)
        elif stream.kind == "trades":
            self._trades(stream, message)
        elif stream.kind == "ticker":
            self.seen.tickers[stream.market] = max(
                message, self.seen.tickers.get(stream.market, message), key=lambda one: int(one["seq"])
            )
        elif stream.kind == "candles.1m":
            self._candles(stream, message["candles"])
        stream.seq, stream.is_fresh = message["seq"], False

    def _book(self, stream: _Stream, message: Channel) -> None:
        assert stream.local is not None
        try:
            stream.local.apply(message)
        except BookGap as error:
            self.seen.fault(f"reader {self.number}: {message['channel']}: {error}")
        self.seen.book(stream.market, stream.depth, message["seq"], message["checksum"])

    def _trades(self, stream: _Stream, message: Channel) -> None:
        """A number missing is a fault, but in a snapshot, behind an announced gap, or in what is latest only."""
        for trade in message["trades"]:
            self.seen.trade(stream.market, trade)
        if "replayed" in message:
            self.seen.counts["trades replayed"] += len(message["trades"])
            return
        for trade in message["trades"] if not stream.latest and not self.is_slow else ():
            number = trade["trade_id"]
            if stream.last_trade and message["type"] != "snapshot" and number != stream.last_trade + 1:
                self.seen.fault(f"reader {self.number}: {message['channel']}: {number} after {stream.last_trade}")
            stream.last_trade = number

    def _candles(self, stream: _Stream, candles: list[Channel]) -> None:
        known = {candle["begin"]: candle for candle in self.seen.candles.get(stream.market, [])}
        for candle in candles:
            before = known.get(candle["begin"])
            if before is None or before["last_seq"] <= candle["last_seq"]:
                known[candle["begin"]] = candle
        self.seen.candles[stream.market] = [known[begin] for begin in sorted(known)]

    def _check_heads(self, message: Channel) -> None:
        """Heads tell of the streams they name and of no other: what waits for its interval is not in their write."""
        if self.is_slow:
            return
        for name, seq in message["heads"].items():
            stream = self.streams.get(name)
            if stream is not None and not stream.is_fresh and not stream.latest:
                stream.heads = message["seq"]
                if seq > stream.seq:
                    self.seen.fault(f"reader {self.number}: {name} should be at {seq}, this is at {stream.seq}")

    # ---------------------------------------------------------------- the end

    @property
    def is_whole(self) -> bool:
        """It has heard everything up to `wanted`, and every stream is whole.

        A stream of mode `latest` has no chain, and its state may be as old as its interval: it is whole when it shows
        what the whole book of a lossless reader does. `latency` is written every second, so that the heads of all
        streams, which come when nothing else does, never come to its readers.
        """
        return (
            not self.is_slow and self.pong >= self.wanted
            and not any(stream.is_fresh or stream.is_asked for stream in self.streams.values())
            and all(
                self._is_latest(stream) if stream.latest else stream.heads >= self.wanted or "latency" in self.streams
                for stream in self.streams.values()
            )
        )  # fmt: skip

    def _is_latest(self, stream: _Stream) -> bool:
        whole = self.seen.whole.get(stream.market)
        if not isinstance(stream.local, LocalBook) or whole is None:
            return True
        shown = [whole.bids[: stream.depth or None], whole.asks[: stream.depth or None]]
        return [stream.local.bids, stream.local.asks] == shown

    async def settle(self, wanted: int) -> None:
        """Hears everything up to `wanted`."""
        self.wanted = wanted
        self.pong = -1
        for _ in range(1_500):
            if self.transport is None:
                await self.connect()
            if self.transport is not None and self.is_whole:
                break
            if self.pong < wanted:
                self._ask({"type": "ping"})
            await asyncio.sleep(0.1 + 0.1 * self.rng.random())
        else:
            heads = {name: stream.heads for name, stream in self.streams.items()}
            self.seen.fault(f"reader {self.number} did not reach {wanted}: pong {self.pong}, heads {heads}")
        for stream in self.streams.values():
            if stream.local is not None:
                last = self.seen.last.setdefault((stream.market, stream.depth), set())
                last.add((stream.local.seq, f"{stream.local.checksum:016x}"))
            if stream.local is not None and stream.depth == 0 and stream.request["mode"] == "lossless":
                assert isinstance(stream.local, LocalBook)
                self.seen.whole[stream.market] = stream.local
            if isinstance(stream.local, LocalOrders):
                rows = sorted(stream.local.orders.items())
                self.seen.queues[stream.market] = [order for _, order in rows]


async def _disturb(readers: list[Reader], rng: random.Random, mean_pause_s: float, until: asyncio.Event) -> None:
    """Readers leave, come back, and stop reading for a while, at random."""
    tasks: set[asyncio.Task[None]] = set()
    while not until.is_set():
        reader = rng.choice(readers)
        if reader.transport is None:
            await reader.connect()
        elif reader.number % SLOW_EVERY == 0:
            tasks.add(asyncio.create_task(_nap(reader, rng.uniform(5.0, 20.0) if mean_pause_s else 0.2, until)))
        else:
            reader.drop(rng.random() < 0.5)
            if rng.random() < 0.8:
                await reader.connect()
        await asyncio.sleep(mean_pause_s * rng.random() * 2)
    await asyncio.gather(*tasks)


async def _nap(reader: Reader, seconds: float, until: asyncio.Event) -> None:
    transport = reader.transport
    if transport is None:
        return
    transport.underlying_transport.pause_reading()
    reader.seen.counts["readers that stopped reading"] += 1
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        pass
    if reader.transport is transport:
        transport.underlying_transport.resume_reading()


async def _run(pipe: Connection, url: str, count: int, seed: int, mean_pause_s: float) -> None:
    seen, rng, until = Seen(), random.Random(seed), asyncio.Event()
    readers = [Reader(number, url, seen, random.Random(seed + number)) for number in range(count)]
    for first in range(0, count, 50):
        await asyncio.gather(*(reader.connect() for reader in readers[first : first + 50]))
    pipe.send(len([reader for reader in readers if reader.transport is not None]))
    asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def receive() -> None:
        try:
            message = pipe.recv()
        except EOFError:
            os._exit(1)  # nobody is there to hear of it any more
        if message == "counts":
            pipe.send(dict(seen.counts))
        else:
            asked.set_result(message)

    asyncio.get_running_loop().add_reader(pipe.fileno(), receive)
    disturbing = asyncio.create_task(_disturb(readers, rng, mean_pause_s, until))
    wanted = await asked
    until.set()
    await disturbing
    asyncio.get_running_loop().remove_reader(pipe.fileno())
    for latest in (False, True):
        some = [one for one in readers if any(request.get("mode") == "latest" for request in one.requests) == latest]
        await asyncio.gather(*(reader.settle(wanted) for reader in some))
    for reader in readers:
        reader.drop(graceful=True)
    os.set_blocking(pipe.fileno(), True)  # the loop had made it another
    pipe.send(seen)


def read(pipe: Connection, url: str, count: int, seed: int, mean_pause_s: float) -> None:
    """The process: says how many are connected, reads until it is given a sequence, settles there, tells all."""
    logging.getLogger("picows").setLevel(logging.CRITICAL)
    gc.set_threshold(50_000, 20, 100)
    uvloop.run(_run(pipe, url, count, seed, mean_pause_s))
