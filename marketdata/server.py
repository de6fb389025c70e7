"""Sockets and the clock of market data: reads the event log, flushes, and keeps slow readers from harming others.

    each flush_interval_ms:  source.read ▶ publisher.apply ▶ publisher.flush ▶ one write per reader

Before each write it looks at what still waits in user space for that reader. Above the low mark the reader is told and
moved to what may be left out (publisher.set_slow) until it has drained to half of it, so what waits for it stops
growing; only requests can bring it above the high mark, and then it is closed with 4008. A flush of many readers is
split over loop turns, and so are reading a log that has jumped and answers that are long to make (one a turn). A flush
that takes long stretches the interval, so that it never takes more than about half of a core for flushing what nobody
can read in time.

With a certificate there is a second door that speaks TLS. What goes to its readers goes through their transport, which
encrypts for each: only plain readers get their bytes straight from the fan.

Never: writes the event log, blocks on a reader, listens before it has caught up with the log.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import time
from collections import deque
from typing import Any

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from engine.messages.errors import ExchangeError, SettingsInvalid
from engine.messages.ports import EventSource
from marketdata.binary_codec import SUBPROTOCOL
from marketdata.channels import ProtocolError
from marketdata.fan import Fan
from marketdata.publisher import Delivery, Publisher
from marketdata.session import Answer, Fragments, Session, close_echo
from marketdata.settings import MarketDataSettings
from marketdata.state import MarketState

__all__ = ["CLOSE_SLOW", "SUBPROTOCOLS", "serve", "settle_garbage"]

CLOSE_SLOW = 4008
"""Close code of a reader that fell behind the high mark."""
CLOSE_GOING_AWAY = 1001
HANDSHAKE_S = 5.0
"""A handshake that takes longer is cut, that of TLS too."""
READS_PER_TURN = 8
LIVE_SLOTS = 4_096
"""Read at once while readers are served: what a turn of the loop may cost them (some 4 ms)."""
LIVE_READS = 64
"""Slices of one flush at most: after a jump of the log readers see it in steps."""
CATCH_UP_S = 0.005
DRAIN_S = 0.01
"""How often those are looked at who are to take their answers before they get more."""
SUBPROTOCOLS = {SUBPROTOCOL: "binary", "byline.md.json.v1": "json"}
"""What a client may offer, the first of these that it does is taken; without an offer it is JSON."""

_log = logging.getLogger(__name__)


class _Reader(WSListener):
    """One connection: hands frames to its session and knows how much waits for it."""

    def __init__(self, server: _Server, encoding: str) -> None:
        super().__init__()
        self._server = server
        self.transport: WSTransport | None = None
        self.is_secure = False
        self.long_answers: deque[Answer] = deque()
        self.burst = 0  # bytes of its last long answer, where that is a single command of more than it should be
        self._fragments = Fragments(server.settings.message_size_bytes_max * 4)
        self.heard = self.pinged = 0.0
        self.session = Session(server.publisher, server.settings, self, encoding)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.is_secure = transport.is_secure
        raw = transport.underlying_transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._server.settings.send_buffer_bytes)
        self.session.slot = self._server.fan.add(raw.fileno())
        # What the answer to the upgrade left behind goes first.
        self._server.fan.set_clear(self.session.slot, False)
        self.heard = time.monotonic()
        self._server.readers.add(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._server.forget(self)
        self.session.closed = True
        self.transport = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.session.closed:
            return
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(close_echo(frame.get_payload_as_bytes()))  # type: ignore[arg-type]
            transport.disconnect()
            return
        self.heard = time.monotonic()
        if frame.msg_type == WSMsgType.PONG:
            return
        if frame.msg_type == WSMsgType.PING:
            payload = frame.get_payload_as_bytes()
            self.write(b"\x8a" + len(payload).to_bytes(1, "big") + payload)
            return
        payload = frame.get_payload_as_bytes()
        reserved = bool(frame.rsv1 or frame.rsv2 or frame.rsv3)
        message = self._fragments.take(frame.msg_type.value, bool(frame.fin), reserved, payload)
        if isinstance(message, tuple):
            self.close(*message)
        elif message is not None:
            self.answer(self.session.receive(message, self.heard, self._later))

    def answer(self, frames: list[bytes]) -> None:
        if frames:
            self.write(frames[0] if len(frames) == 1 else b"".join(frames))
        if self.buffered() > self.most_buffered:
            self._server.cut(self)

    def answer_long(self) -> None:
        """The first of its long answers, which alone does not make it a slow reader."""
        data = b"".join(self.long_answers.popleft()())
        self.burst = len(data) if len(data) > 2 * self._server.settings.replay_bytes else 0
        self.write(data)

    @property
    def most_buffered(self) -> int:
        """The high mark: with more bytes than this waiting it is cut."""
        return self._server.settings.cut_bytes + self.burst

    def _later(self, answer: Answer) -> None:
        most = self._server.settings.long_answers_max
        if len(self.long_answers) >= most:
            raise ProtocolError("rate_limited", f"at most {most} replays and pages of history wait for a connection")
        self.long_answers.append(answer)
        if len(self.long_answers) == 1:
            self._server.answer_later(self)

    def buffered(self) -> int:
        """Bytes that wait in user space."""
        return 0 if self.transport is None else self.transport.underlying_transport.get_write_buffer_size()

    def write(self, frames: bytes) -> None:
        """Through the transport, which keeps what the socket does not take."""
        if self.transport is not None and not self.session.closed:
            self.transport.underlying_transport.write(frames)
            self._server.fan.set_clear(self.session.slot, False)

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame; a peer that does not take it within the grace time is dropped."""
        transport = self.transport
        if transport is None or self.session.closed:
            return
        self.session.closed = True
        self._server.forget(self, keep=True)
        transport.send_close(code, reason.encode())  # type: ignore[arg-type]  # codes from 4000 are ours
        transport.disconnect()
        asyncio.get_running_loop().call_later(self._server.settings.close_grace_ms / 1e3, self.abort)

    def abort(self) -> None:
        """Without a close frame."""
        if self.transport is not None:
            self.transport.disconnect(graceful=False)


class _Server:
    def __init__(self, source: EventSource, settings: MarketDataSettings, status: dict[str, Any]) -> None:
        self.source = source
        self.settings = settings
        self.status = status
        self.state = MarketState(settings)
        self.publisher = Publisher(self.state, settings)
        self.fan = Fan()
        self.readers: set[_Reader] = set()
        self.slow: set[_Reader] = set()
        self.position = 0
        self.delivery_count = self.cut_count = self.lag_count = 0
        self._flushed_count = -1  # events that a flush has seen; none has
        self.last_written = b""
        self._unavailable = False
        self._waiting: deque[_Reader] = deque()  # each with long answers

    def accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        if len(self.readers) >= self.settings.connection_limit:
            body = f"at most {self.settings.connection_limit} connections".encode()
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(503, body), None)
        offered = [
            word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if word.strip()
        ]
        if not offered:
            return _Reader(self, "json")
        for word, encoding in SUBPROTOCOLS.items():
            if word in offered:
                response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": word})
                return WSUpgradeResponseWithListener(response, _Reader(self, encoding))
        body = f"subprotocols: {', '.join(SUBPROTOCOLS)}".encode()
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(400, body), None)

    def forget(self, reader: _Reader, *, keep: bool = False) -> None:
        """It gets nothing more. `keep`: its connection is still being closed."""
        if reader.session.slot >= 0:
            self.fan.remove(reader.session.slot)
            reader.session.slot = -1  # it may be another's soon
        if not keep:
            self.readers.discard(reader)
        self.slow.discard(reader)
        self.publisher.drop(reader.session)

    def answer_later(self, reader: _Reader) -> None:
        """It has long answers from now on: one of one reader is given in each turn of the loop, in rotation, and to
        none that has not taken what it was given before."""
        self._waiting.append(reader)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._answer_one)

    def _answer_one(self) -> None:
        for _ in range(len(self._waiting)):
            reader = self._waiting.popleft()
            is_due = not reader.session.closed and reader.buffered() <= self.settings.slow_bytes
            if is_due:
                reader.answer_long()
            if reader.session.closed:
                reader.long_answers.clear()
            elif reader.long_answers:
                self._waiting.append(reader)
            if is_due:
                if self._waiting:
                    asyncio.get_running_loop().call_soon(self._answer_one)
                return
        if self._waiting:
            asyncio.get_running_loop().call_later(DRAIN_S, self._answer_one)

    def pump(self, reads: int = READS_PER_TURN, slots_max: int = 0) -> bool:
        """Reads some of the log; True if there may be more. A log that is not there now is asked again later."""
        for _ in range(reads):
            try:
                head = self.source.head_sequence
                slots = self.source.read(slots_max or self.settings.read_slots)
            except ExchangeError as error:
                if not error.retry:
                    raise
                if not self._unavailable:
                    _log.warning("event=log_unavailable sequence=%d error=%s", self.position, error)
                self._unavailable = True
                return False
            self._unavailable = False
            if not len(slots):
                self.position = max(self.position, head)
                return False
            self.publisher.apply(slots)
            self.position = max(self.position, self.state.sequence)
        return True

    async def flush(self) -> None:
        """Builds once, then one write for each reader, with a turn of the loop after every `writes_per_turn`."""
        self.fan.recycle()
        stages, begun = self.state.stages, time.monotonic()
        self._recover()
        plan = self.publisher.flush(begun * 1e3)
        built = time.monotonic()
        stages.observe("build", built - begun)
        tells_news = 0 <= self._flushed_count != self.state.feed.event_count
        self._flushed_count = self.state.feed.event_count
        if not plan:
            return
        if tells_news:  # heads and what waited for its interval are not late because nothing happens
            stages.observe("journal_to_flush", time.time() - self.state.feed.ts / 1e9)
        step, writing = self.settings.writes_per_turn, 0.0
        for delivery in plan:
            self.last_written = delivery.data
            count = len(delivery.slots)
            for start in range(0, count, step):
                before = time.monotonic()
                for at, taken in self.fan.send(delivery.slots, delivery.data, start, start + step):
                    self._send_behind(delivery.sinks[at], delivery, taken)
                writing += time.monotonic() - before
                self.delivery_count += min(step, count - start)
                if start + step < count:
                    await asyncio.sleep(0)
        stages.observe("write", writing)
        stages.observe("flush", time.monotonic() - begun)

    def _recover(self) -> None:
        """Readers that had fallen behind and have drained get what they asked for again."""
        for reader in list(self.slow):
            waiting = reader.buffered()
            reader.session.held = waiting > 0
            if waiting <= self.settings.slow_bytes // 2 and self.publisher.may_recover(reader.session):
                reader.write(self.publisher.set_recovered(reader.session))
                reader.session.held = False
                self.slow.discard(reader)

    def _send_behind(self, reader: _Reader, delivery: Delivery, taken: int) -> None:
        """To a reader for whom bytes wait already, or did when somebody last looked; or the rest of a short write."""
        if taken:
            reader.write(delivery.data[taken:])
            return
        waiting = reader.buffered()
        if waiting > reader.most_buffered:
            self.cut(reader)
            return
        frames = delivery.lean if waiting else delivery.data
        if frames:
            reader.write(frames)
        if not reader.is_secure and not waiting and not reader.buffered() and not reader.session.closed:
            self.fan.set_clear(reader.session.slot, True)
        if waiting > self.settings.slow_bytes and not reader.session.slow and not reader.session.closed:
            self.lag_count += 1
            reader.write(self.publisher.set_slow(reader.session, waiting))
            reader.session.held = True
            self.slow.add(reader)

    def cut(self, reader: _Reader) -> None:
        waiting = reader.buffered()
        self.cut_count += 1
        _log.warning("event=slow_reader_cut waiting_bytes=%d", waiting)
        reader.close(CLOSE_SLOW, f"slow reader: {waiting} bytes wait, at most {self.settings.cut_bytes} may")

    def report(self, elapsed: float, before: tuple[int, int, int]) -> tuple[int, int, int]:
        """Fills the status; rates are over `elapsed` seconds since the counts of `before`."""
        head = self.source.head_sequence
        counts = (self.publisher.message_count, self.delivery_count, self.state.feed.event_count)
        rates = [round((now - then) / max(elapsed, 1e-9), 1) for now, then in zip(counts, before, strict=True)]
        self.status.update(
            sequence=self.position,
            head_sequence=head,
            lag=max(0, head - self.position),
            clients=len(self.readers),
            slow=len(self.slow),
            lagged=self.lag_count,
            cut=self.cut_count,
            messages_per_s=rates[0],
            deliveries_per_s=rates[1],
            events_per_s=rates[2],
            markets=len(self.state.directory.markets),
            open_orders=self.state.feed.orders.count,
            replay_horizon=self.state.feed.changes.horizon,
            stages=self.state.stages.told(),
        )
        return counts

    def ping_idle(self, now: float) -> None:
        """Asks who was silent for an interval whether it is there, and drops who does not answer for another."""
        interval = self.settings.ping_interval_ms / 1e3
        for reader in list(self.readers):
            if now - reader.heard > 2 * interval:
                reader.abort()
            elif now - max(reader.heard, reader.pinged) > interval:
                reader.pinged = now
                reader.write(b"\x89\x00")

    async def pump_live(self) -> None:
        """Reads what there is, a slice in each turn of the loop, and tells how long it took."""
        before, events = time.monotonic(), self.state.feed.event_count
        for _ in range(LIVE_READS):
            if not self.pump(1, min(LIVE_SLOTS, self.settings.read_slots)):
                break
            if self.position < self.source.head_sequence:
                await asyncio.sleep(0)
        if self.state.feed.event_count != events:
            self.state.stages.observe("read", time.monotonic() - before)


async def serve(
    source: EventSource,
    settings: MarketDataSettings,
    *,
    stop: asyncio.Event,
    status: dict[str, Any] | None = None,
    ready: asyncio.Event | None = None,
) -> None:
    """Follows `source` from its first event and serves readers until `stop` is set.

    `status` is filled about once a second: state (`catching_up`, `live`, `stopped`), port, sequence, head_sequence,
    lag, clients, slow, cut, messages_per_s, deliveries_per_s, events_per_s, with TLS tls_port. `ready` is set when it
    listens.

    Raises:
        JournalCorrupt: the events do not follow from each other.
        OSError: an address is taken.
        SettingsInvalid: a bad certificate.
    """
    status = {} if status is None else status
    server = _Server(source, settings, status)
    status.update(state="catching_up", port=0)
    source.seek(0)
    counts, reported = server.report(0.0, (0, 0, 0)), time.monotonic()
    while not stop.is_set():
        is_complete = getattr(source, "is_caught_up", True)  # a source that has to fetch what was
        if not server.pump():
            if is_complete:
                break
            await asyncio.sleep(CATCH_UP_S)
        if time.monotonic() - reported > 1.0:
            counts, reported = server.report(time.monotonic() - reported, counts), time.monotonic()
        await asyncio.sleep(0)
    listeners = [await _listen(server, settings, settings.host, settings.port, None)]
    status.update(state="live", port=listeners[0].sockets[0].getsockname()[1])
    if settings.tls_certificate:
        try:
            context = _tls(settings)
            host = settings.tls_host or settings.host
            listeners.append(await _listen(server, settings, host, settings.tls_port, context))
        except BaseException:
            listeners[0].close()
            raise
        status.update(tls_port=listeners[1].sockets[0].getsockname()[1])
    counts = server.report(time.monotonic() - reported, counts)
    reported = time.monotonic()
    _log.info("event=listening port=%d sequence=%d", status["port"], server.position)
    if ready is not None:
        ready.set()
    try:
        interval = settings.flush_interval_ms / 1e3
        while not stop.is_set():
            begun = time.monotonic()
            await server.pump_live()
            await server.flush()
            now = time.monotonic()
            if now - reported >= 1.0:
                counts, reported = server.report(now - reported, counts), now
                server.ping_idle(now)
            # A flush that took longer than half the interval stretches it, but not while readers wait to begin.
            took = now - begun
            stretched = min(took, interval) if server.publisher.pending_count else took
            await _sleep_until(stop, max(interval - took, stretched))
    finally:
        for listener in listeners:
            listener.close()
        for reader in list(server.readers):
            reader.close(CLOSE_GOING_AWAY, "market data stops")
        await asyncio.sleep(0)
        for reader in list(server.readers):
            reader.abort()
        for listener in listeners:
            await listener.wait_closed()
        status["state"] = "stopped"


def settle_garbage() -> None:
    """For a process that does nothing else, once it is live: the collector walks what came since, and more rarely.

    A crowd of readers makes many objects that live long; walking all of them again and again takes a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _listen(
    server: _Server, settings: MarketDataSettings, host: str, port: int, context: ssl.SSLContext | None
) -> asyncio.Server:
    """Raises OSError: the address is taken."""
    door = _bound_socket(settings, host, port)
    listener = await ws_create_server(
        server.accept,
        sock=door,
        ssl=context,
        ssl_handshake_timeout=None if context is None else HANDSHAKE_S,
        websocket_handshake_timeout=HANDSHAKE_S,
        backlog=settings.accepts_per_turn,
        max_frame_size=settings.message_size_bytes_max * 4,
        read_buffer_init_size=2048,
        enable_auto_pong=False,  # what picows writes by itself could be overtaken
    )
    # A turn of the loop accepts as many as the backlog was when it began; the kernel may keep more of them waiting.
    door.listen(settings.accept_backlog)
    return listener


def _tls(settings: MarketDataSettings) -> ssl.SSLContext:
    """TLS 1.3 with the certificate of the settings. Raises SettingsInvalid if it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsInvalid(f"marketdata.tls_certificate: {error}") from error
    return context


def _bound_socket(settings: MarketDataSettings, host: str, port: int) -> socket.socket:
    """Raises OSError: the address is taken."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    door = socket.socket(family, kind, protocol)
    try:
        door.setblocking(False)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.reuse_port:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        door.bind(address)
    except OSError:
        door.close()
        raise
    return door


async def _sleep_until(stop: asyncio.Event, seconds: float) -> None:
    """Sleeps, but not past `stop`."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
