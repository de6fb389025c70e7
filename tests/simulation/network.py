"""The simulated network: streams of bytes between clients and the exchange, which may stall, break or vanish.

    client ──bytes──▶ Link ──chunks──▶ protocol of picows (get_buffer, buffer_updated)   the production session
    client ◀──chunks── Link ◀──bytes── VirtualTransport (write, close, abort)

What TCP promises holds within one link: bytes come in order or not at all. Loss, repetition and reordering of messages
come about as they do on real networks: a link breaks with bytes under way (lost, or delivered after the client has gone
on to another link), and clients say again what they are unsure of. A link that is half open takes bytes and delivers
nothing, and nobody is told. picows is told that the transport is a secure one, so that it hands every byte to `write`
instead of to a socket of the kernel: the way that TLS connections take in production.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol, Self

from tests.simulation.loop import Schedule, VirtualLoop

__all__ = ["Link", "Network", "Peer", "VirtualTransport"]

MS = 1_000_000


class Peer(Protocol):
    """The client's end of a link."""

    def data(self, link: Link, data: bytes) -> None: ...
    def lost(self, link: Link) -> None: ...


class _Socket:
    """What picows asks of a socket when a connection is made."""

    def setsockopt(self, *_: object) -> None: ...

    def getsockopt(self, *_: object) -> int:
        return 0

    def fileno(self) -> int:
        return -1


_SOCKET = _Socket()


class VirtualTransport:
    """The exchange's end of a link, as asyncio's transports are."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.is_closing_now = False
        self.is_reading = True
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._low = self._high = 65_536
        self._is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {
            "socket": _SOCKET, "peername": (self.link.address, 40_000), "sockname": ("10.0.0.1", 7401),
            "ssl_object": self,
        }.get(name, default)  # fmt: skip

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65_536 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes

    def write(self, data: bytes) -> None:
        if self.is_closing_now or self.link.is_cut:
            return
        if self.link.is_half_open or self.link.is_stalled:
            self._waiting.append(bytes(data))
            self._waiting_bytes += len(data)
            if self._waiting_bytes > self._high and not self._is_paused:
                self._is_paused = True
                self.link.protocol.pause_writing()
            return
        self.link.to_client(bytes(data))

    def flush(self) -> None:
        """The client reads again."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for data in waiting:
            self.link.to_client(data)
        if self._is_paused:
            self._is_paused = False
            self.link.protocol.resume_writing()

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True
        self.link.deliver_waiting()

    def is_closing(self) -> bool:
        return self.is_closing_now

    def close(self) -> None:
        if not self.is_closing_now:
            self.is_closing_now = True
            self.link.closed_by_exchange()

    abort = close


class Link:
    """One connection. The client uses `send`, `leave`; the world `cut`, `stall`, `half_open`."""

    def __init__(self, network: Network, number: int, address: str, peer: Peer, loop: VirtualLoop) -> None:
        self.network, self.number, self.address, self.peer = network, number, address, peer
        self.loop = loop
        self.random = random.Random(network.random.getrandbits(64))
        self.latency_ns = self.random.choice([0, 1, 1, 5, 20, 80]) * MS
        self.protocol: Any = None
        self.transport = VirtualTransport(self)
        self.is_cut = False
        """The exchange has been told that it is over."""
        self.is_left = False
        """The client has gone."""
        self.is_half_open = False
        self.is_stalled = False
        self._there_at = self._here_at = 0
        self._unread: list[bytes] = []

    def _delay(self) -> int:
        jitter = self.random.randrange(0, 3 * MS) if self.random.random() < 0.2 else 0
        return self.latency_ns + jitter

    # ------------------------------------------------------------ the client's end

    def send(self, data: bytes) -> None:
        """Bytes to the exchange, in pieces of any size. A half-open link takes them too."""
        if self.is_left or self.is_cut:
            return
        schedule = self.network.schedule
        for piece in self._pieces(data):
            self._there_at = max(self._there_at, schedule.now_ns + self._delay())
            schedule.at(self._there_at, lambda piece=piece: self._arrive(piece), self.loop)  # type: ignore[misc]

    def _pieces(self, data: bytes) -> list[bytes]:
        if len(data) < 2 or self.random.random() < 0.9:
            return [data]
        cuts = sorted(self.random.randrange(1, len(data)) for _ in range(self.random.randrange(1, 4)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]

    def leave(self, *, late_bytes: bool = False, quietly: bool = False) -> None:
        """The client goes. `late_bytes`: what is under way still arrives. `quietly`: no FIN reaches the exchange."""
        if self.is_left:
            return
        self.is_left = True
        if not late_bytes:
            self.is_half_open = True
        if not quietly:
            at = max(self._there_at, self.network.schedule.now_ns) + self._delay()
            self.network.schedule.at(at, lambda: self._end(None), self.loop)

    # ------------------------------------------------------------ on the way

    def _arrive(self, data: bytes) -> None:
        if self.is_half_open or self.is_cut or self.transport.is_closing_now:
            return
        if not self.transport.is_reading:
            self._unread.append(data)
            return
        view = memoryview(data)
        while len(view) and not (self.is_cut or self.transport.is_closing_now):
            room = self.protocol.get_buffer(-1)
            size = min(len(room), len(view))
            room[:size] = view[:size]
            view = view[size:]
            self.protocol.buffer_updated(size)

    def deliver_waiting(self) -> None:
        """The exchange reads again."""
        waiting, self._unread = self._unread, []
        for data in waiting:
            self.network.schedule.later(0, lambda data=data: self._arrive(data), self.loop)  # type: ignore[misc]

    def to_client(self, data: bytes) -> None:
        schedule = self.network.schedule
        for piece in self._pieces(data):
            self._here_at = max(self._here_at, schedule.now_ns + self._delay())
            schedule.at(self._here_at, lambda piece=piece: self._tell(piece))  # type: ignore[misc]

    def _tell(self, data: bytes) -> None:
        if not self.is_left and not self.is_half_open:
            self.peer.data(self, data)

    def closed_by_exchange(self) -> None:
        """What it wrote before still arrives, then the end."""
        schedule = self.network.schedule
        schedule.later(0, lambda: self._end(None), self.loop)
        schedule.at(max(self._here_at, schedule.now_ns) + self._delay(), self._tell_lost)

    def _tell_lost(self) -> None:
        if not self.is_left and not self.is_half_open:
            self.is_left = True
            self.peer.lost(self)

    def _end(self, error: Exception | None) -> None:
        """The exchange learns of the end. Runs in its loop."""
        if self.is_cut:
            return
        self.is_cut = self.transport.is_closing_now = True
        self.network.links.discard(self)
        self.protocol.connection_lost(error)

    # ------------------------------------------------------------ faults

    def cut(self, *, late_bytes: bool) -> None:
        """The connection breaks; both ends learn of it. `late_bytes`: what the client had sent still arrives."""
        if self.is_left:
            return
        self.leave(late_bytes=late_bytes)
        self.network.schedule.later(self._delay(), lambda: self.peer.lost(self))

    def half_open(self) -> None:
        """Nothing arrives on either side any more, and nobody is told."""
        self.is_half_open = True

    def stall(self, duration_ns: int) -> None:
        """The client reads nothing for so long."""
        if self.is_stalled:
            return
        self.is_stalled = True

        def go_on() -> None:
            self.is_stalled = False
            if not self.is_cut:
                self.transport.flush()

        self.network.schedule.later(duration_ns, go_on, self.loop)

    def machine_died(self) -> None:
        """The exchange was killed: its kernel says so, unless the machine lost power."""
        self.is_cut = True
        if not self.is_left and not self.is_half_open:
            self.network.schedule.later(self._delay(), self._tell_lost)


class VirtualServer:
    """What `asyncio.Server` is to the gateway."""

    class _Listening:
        def getsockname(self) -> tuple[str, int]:
            return ("10.0.0.1", 7401)

        def dup(self) -> Self:
            return self

        def listen(self, backlog: int) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *of: object) -> None: ...

    def __init__(self, network: Network) -> None:
        self._network = network
        self.sockets = [self._Listening()]

    def close(self) -> None:
        self._network.stop_listening()

    async def wait_closed(self) -> None: ...


class Network:
    """All links, and the door of the exchange that listens now."""

    def __init__(self, schedule: Schedule, seed: int, wall_ns: Callable[[], int]) -> None:
        self.schedule = schedule
        self.wall_ns = wall_ns
        """The wall clock of the clients, which is right."""
        self.random = random.Random(f"network-{seed}")
        self.links: set[Link] = set()
        self._door: tuple[Callable[[], Any], VirtualLoop] | None = None
        self._numbers = 0

    def listen_for(self, loop: VirtualLoop) -> Callable[..., VirtualServer]:
        """The `listen` of a process."""

        def listen(protocol_factory: Callable[[], Any], _host: object, _port: object) -> VirtualServer:
            self._door = protocol_factory, loop
            return VirtualServer(self)

        return listen

    def stop_listening(self) -> None:
        self._door = None

    def connect(self, peer: Peer, address: str) -> Link | None:
        """A new link, or None: nobody listens."""
        if self._door is None or not self._door[1].is_alive:
            return None
        factory, loop = self._door
        self._numbers += 1
        link = Link(self, self._numbers, address, peer, loop)
        self.links.add(link)

        def accept() -> None:
            link.protocol = factory()
            link.protocol.connection_made(link.transport)

        self.schedule.later(0, accept, loop)
        return link

    def process_died(self, loop: VirtualLoop) -> None:
        if self._door is not None and self._door[1] is loop:
            self._door = None
        for link in sorted(self.links, key=lambda link: link.number):
            if link.loop is loop:
                link.machine_died()
                self.links.discard(link)
