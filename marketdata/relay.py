"""Events between hosts, over core NATS: the relay beside the core says them, market data elsewhere follows.

    byline.events         every batch as it is published; an empty one each second while it is quiet
    byline.events.read    request: after u64 · chain word of that sequence u64, 0: not known; the reply is the next
                          batch, an empty one when there is nothing later

    batch, in parts of at most PART_BYTES: version u32 = 2 · part u32 · parts u32 · flags u32 · after u64 · head u64 ·
    identity of the journal, 16 bytes · run u64 · chain word of head u64, 0: not known · slots of 128 bytes

A batch has everything later than `after` up to `head`, whole commands. Core NATS keeps nothing and may lose messages; a
follower sees that by `after` and asks for what it lacks, so whoever comes late or was away needs nothing else. The
event log stays the only memory.

A journal that was cut, or restored without its last records, has the same identity and other events. `run` is new with
each start of the relay and each event log that is built anew, one of which such a journal needs: a follower that sees
another one asks, with the chain word of what it has. The relay compares it with the journal's, and says FOREIGN if that
has another or does not reach so far; the follower then ends, and begins anew from the first event. Nothing of a new run
is taken in before that.

Trust: whoever may publish to these subjects decides what is shown; give the server accounts.

Never: sends what is not published in the log; hands out events with a hole. Bounds: a follower holds BATCHES_MAX
batches that were not read yet, and asks for more only below that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np

from engine.messages import layout
from engine.messages.errors import JournalCorrupt, RemoteFault, Unavailable
from engine.messages.ports import EventSource

__all__ = ["RelayedEvents", "run_relay"]

log = logging.getLogger(__name__)

SUBJECT = "byline.events"
READ_SUBJECT = "byline.events.read"
VERSION = 2
HEAD = struct.Struct("<IIIIQQ16sQQ")
ASKED = struct.Struct("<QQ")
VERSION_FIELD = struct.Struct("<I")
FOREIGN = 1
"""Flag: the journal has not what the asking follower has."""
PART_BYTES = 512 * 1024
READ_SLOTS = 4_096
POLL_S = 0.005
BEAT_S = 1.0
ANSWER_S = 5.0
CONNECT_S = 3.0
BATCHES_MAX = 64


Word = Callable[[int], int | None]
"""The journal's chain word of a sequence; None: it does not reach so far."""


class _Batch(NamedTuple):
    after: int
    head: int
    identity: bytes
    run: int
    word: int
    """Chain word of `head`, 0: not known."""
    is_foreign: bool
    slots: np.ndarray

    def parts(self) -> list[bytes]:
        data = self.slots.tobytes()
        count = max(1, -(-len(data) // PART_BYTES))
        flags = FOREIGN if self.is_foreign else 0
        return [
            HEAD.pack(VERSION, part, count, flags, self.after, self.head, self.identity, self.run, self.word)
            + data[part * PART_BYTES : (part + 1) * PART_BYTES]
            for part in range(count)
        ]


class _Joined:
    """Puts the parts of batches together; they come in order, or some are lost and the batch with them."""

    def __init__(self) -> None:
        self._data: list[bytes] = []

    def add(self, payload: bytes) -> _Batch | None:
        """The batch once its last part is there. Raises JournalCorrupt for another version."""
        [version] = VERSION_FIELD.unpack_from(payload)
        if version != VERSION:
            raise JournalCorrupt(f"relay: version {version} of batches, not {VERSION}")
        _, part, parts, flags, after, head, identity, run, word = HEAD.unpack_from(payload)
        if part == 0:
            self._data.clear()
        if part != len(self._data):
            return None
        self._data.append(payload[HEAD.size :])
        if len(self._data) < parts:
            return None
        slots = np.frombuffer(b"".join(self._data), layout.EVENT)
        self._data.clear()
        return _Batch(after, head, identity, run, word, bool(flags & FOREIGN), slots)


async def _connected(url: str) -> Any:
    import nats
    from nats.errors import Error

    try:
        async with asyncio.timeout(CONNECT_S):
            return await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_quiet)
    except (OSError, Error, TimeoutError) as error:
        raise Unavailable(f"relay: no NATS server at {url} within {CONNECT_S:.0f} s") from error


async def _quiet(error: Exception) -> None:
    """It connects again by itself, for ever."""
    log.info("event=relay_connection error=%s", error)


async def run_relay(
    url: str, make_source: Callable[[], Awaitable[Any]], make_word: Callable[[], Word], stop: asyncio.Event,
    status: dict[str, Any],
) -> None:  # fmt: skip
    """Relays what is published from now on, and answers reads of everything, until `stop`.

    `make_source` gives an event log reader with an `identity`, `make_word` asks the journal behind it; both are called
    twice. Raises Unavailable.
    """
    live, asked = await make_source(), await make_source()
    live_word, asked_word = make_word(), make_word()
    identity, started = bytes(live.identity), secrets.randbits(62) + 1
    server = await _connected(url)

    async def answer(message: Any) -> None:
        after, word = ASKED.unpack(message.data)
        if word and asked_word(after) != word:
            run = started + asked.generation
            batch = _Batch(after, after, identity, run, 0, True, np.empty(0, layout.EVENT))
        else:
            head = asked.head_sequence
            asked.seek(after)
            slots = asked.read(READ_SLOTS)
            last = int(slots["sequence"][-1]) if len(slots) else max(after, head)
            run = started + asked.generation  # after the read: what is of a new log never has the run of the old
            batch = _Batch(after, last, identity, run, asked_word(last) or 0, False, slots)
        for part in batch.parts():
            await server.publish(message.reply, part)

    try:
        await server.subscribe(READ_SUBJECT, cb=answer)
        position, told = live.head_sequence, 0.0
        live.seek(position)
        status.update(url=url, sequence=position, batches=0)
        while not stop.is_set():
            head = live.head_sequence
            slots = live.read(READ_SLOTS)
            if len(slots) or time.monotonic() - told > BEAT_S:
                last = int(slots["sequence"][-1]) if len(slots) else max(position, head)
                run = started + live.generation
                for part in _Batch(position, last, identity, run, live_word(last) or 0, False, slots).parts():
                    await server.publish(SUBJECT, part)
                position, told = last, time.monotonic()
                status.update(sequence=position, batches=status["batches"] + 1)
            if not len(slots):
                await asyncio.sleep(POLL_S)
    finally:
        with contextlib.suppress(Exception):  # a server that is gone has nothing left to be told
            await server.close()


class RelayedEvents(EventSource):
    """The events of a relay. `start` before the first read; everything on one event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._server: Any = None
        self._task: asyncio.Task[None] | None = None
        self._batches: deque[tuple[int, np.ndarray]] = deque()
        self._heard: asyncio.Queue[_Batch] = asyncio.Queue(1_024)
        self._joined = _Joined()
        self._position = 0  # taken in
        self._read = 0  # handed out
        self._word = 0
        """Chain word of the position, 0: not known."""
        self._run = 0
        """Of the relay whose word it is that the position is of its journal."""
        self._identity: bytes | None = None
        self.is_caught_up = False
        self.gap_count = 0

    async def start(self) -> None:
        """Connects. Raises Unavailable."""
        self._server = await _connected(self._url)
        await self._server.subscribe(SUBJECT, cb=self._hear)
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._server is not None:
            await self._server.close()

    @property
    def head_sequence(self) -> int:
        """The last sequence that was handed out: what is on its way is not here yet."""
        return self._read

    def seek(self, after_sequence: int) -> None:
        self._position = self._read = after_sequence
        self._word = self._run = 0
        self._batches.clear()
        self.is_caught_up = False

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        if self._task is not None and self._task.done():
            self._task.result()  # raises what ended it
        taken: list[np.ndarray] = []
        count = 0
        while self._batches and count < limit_slots:
            self._read, slots = self._batches.popleft()
            taken.append(slots)
            count += len(slots)
        return np.concatenate(taken) if taken else np.empty(0, layout.EVENT)

    async def _hear(self, message: Any) -> None:
        batch = self._joined.add(message.data)
        if batch is not None:
            if self._heard.full():
                self._heard.get_nowait()  # asked for again: its absence shows
            self._heard.put_nowait(batch)

    async def _follow(self) -> None:
        while True:
            await self._catch_up()
            batch = await self._heard.get()
            while batch.after <= self._position and batch.run == self._run:
                self._take(batch)
                batch = await self._heard.get()
            self.gap_count += 1
            log.info("event=relay_gap position=%d next=%d", self._position, batch.after)

    async def _catch_up(self) -> None:
        """Asks until there is nothing later."""
        while True:
            while len(self._batches) >= BATCHES_MAX:
                await asyncio.sleep(POLL_S)
            before = self._position
            batch = await self._ask(before)
            if batch is None:
                continue
            if before != self._position:  # somebody has sought meanwhile
                continue
            self._run = batch.run
            self._take(batch)
            if not len(batch.slots):
                self.is_caught_up = True
                return

    async def _ask(self, after: int) -> _Batch | None:
        """The batch later than a sequence; None if no relay answers now."""
        inbox, joined = self._server.new_inbox(), _Joined()
        answers = await self._server.subscribe(inbox)
        try:
            await self._server.publish(READ_SUBJECT, ASKED.pack(after, self._word), reply=inbox)
            while True:
                batch = joined.add((await answers.next_msg(timeout=ANSWER_S)).data)
                if batch is not None:
                    return batch
        except _nats_errors() as error:
            log.warning("event=relay_silent after=%d error=%s", after, error)
            await asyncio.sleep(0.2)
            return None
        finally:
            with contextlib.suppress(*_nats_errors()):  # the next request tells if the server is gone
                await answers.unsubscribe()

    def _take(self, batch: _Batch) -> None:
        """Appends what is new.

        Raises:
            JournalCorrupt: the events of another journal.
            RemoteFault: the journal has not what was read here: it was cut, or restored without it.
        """
        slots = batch.slots
        if self._identity is None:
            self._identity = batch.identity
        if batch.identity != self._identity:
            raise JournalCorrupt("relay: these are the events of another journal")
        if batch.is_foreign:
            raise RemoteFault(
                f"relay: the journal has no such sequence {self._position} any more: it was cut, or restored without it"
            )
        if batch.head <= self._position:
            return
        if len(slots) and slots["sequence"][0] <= self._position:
            first = _first_after(slots, self._position)
            slots = slots[first:]
        self._position, self._word = batch.head, batch.word
        self._batches.append((batch.head, slots))


def _first_after(slots: np.ndarray, sequence: int) -> int:
    """Where the first command later than a sequence begins. Steps over events: extension slots have no head."""
    at, widths = 0, slots["slots"]
    while at < len(slots) and slots["sequence"][at] <= sequence:
        at += int(widths[at])
    return at


def _nats_errors() -> tuple[type[BaseException], ...]:
    from nats.errors import Error

    return (Error, OSError, TimeoutError)
