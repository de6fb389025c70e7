"""Hands events of the outbox to their consumers, at least once, and seals the audit chain.

    look → rows that are due, locked for this relay → each consumer in a savepoint with its mark → delivered
                                                     → one fails: the event comes again later, the others' marks stay
    after ATTEMPTS_MAX failures: failed_at is set, an ERROR is logged, and a person decides

Several relays may run: rows are locked with SKIP LOCKED, the sealing of the audit chain by an advisory lock. A database
that is away is waited for. Events come in the order of their writing except those that failed, so consumers tolerate
order. With Redis configured, every event also goes to the stream `byline:events`; while that is away, consumers and
listeners are served all the same and the event stays due for the stream alone.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from engine.messages.errors import Unavailable
from platform_api.database import Database
from platform_api.errors import timestamp
from platform_api.kernel.audit import seal_entries
from platform_api.kernel.events import Event, Events

__all__ = ["Relay", "Stream"]

log = structlog.get_logger(__name__)

BATCH_MAX = 100
ATTEMPTS_MAX = 10
RETRY_SECONDS_MAX = 300
IDLE_SECONDS = 0.2
"""How long an event of another process may wait before it is seen."""
COMMIT_SECONDS = 0.02
"""After an event of this process: the time its transaction may need to commit."""
KEPT = timedelta(days=7)
PRUNE_SECONDS = 600

Stream = Callable[[Event], Awaitable[None]]
"""Puts one event where other processes read it. Raises Unavailable."""
Upkeep = Callable[[Any], Awaitable[None]]


class Relay:
    """`run` until cancelled; or `deliver_due` once, for tests and tools."""

    def __init__(
        self, database: Database, events: Events, stream: Stream | None = None, upkeep: Upkeep | None = None
    ) -> None:
        """`upkeep` is called with a connection when the relay starts and every ten minutes."""
        self._database = database
        self._events = events
        self._stream = stream
        self._upkeep = upkeep
        self._stream_away = False

    async def run(self) -> None:
        pruned_at = -math.inf
        while True:
            try:
                await self._database.give_way()
                while await self.deliver_due() == BATCH_MAX:
                    await self._database.give_way()
                async with self._database.transaction() as db:
                    await seal_entries(db)
                if time.monotonic() - pruned_at > PRUNE_SECONDS:
                    await self.prune()
                    if self._upkeep is not None:
                        async with self._database.transaction() as db:
                            await self._upkeep(db)
                    pruned_at = time.monotonic()
            except Unavailable as error:
                log.warning("relay_waits", error=str(error))
                await asyncio.sleep(1)
            await self._wait()

    async def deliver_due(self) -> int:
        """One batch; returns how many events were taken up. Raises Unavailable."""
        fresh: list[Event] = []
        delivered: list[UUID] = []
        self._stream_away = False
        async with self._database.transaction() as db:
            rows = await db.fetch(
                "SELECT * FROM kernel.outbox WHERE delivered_at IS NULL AND failed_at IS NULL"
                " AND next_attempt_at <= now() ORDER BY next_attempt_at, position LIMIT $1 FOR UPDATE SKIP LOCKED",
                BATCH_MAX,
            )
            for row in rows:
                event = _event(row)
                problem = await self._hand_over(db, event)
                if row["error"] is None:
                    fresh.append(event)
                if problem is None:
                    delivered.append(row["event_id"])
                else:
                    await self._put_off(db, row, event, problem)
            if delivered:
                await db.execute(
                    "UPDATE kernel.outbox SET delivered_at = now() WHERE event_id = ANY($1::uuid[])", delivered
                )
        for event in fresh:
            self._events.tell_listeners(event)
        return len(rows)

    async def prune(self) -> None:
        """Delivered events go after a week."""
        await self._database.execute("DELETE FROM kernel.outbox WHERE delivered_at < now() - $1::interval", KEPT)

    async def _hand_over(self, db: Any, event: Event) -> Exception | None:
        problem: Exception | None = None
        for consumer, handler in self._events.handlers_of(event.type).items():
            try:
                async with db.transaction():
                    if await _mark(db, event, consumer):
                        await handler(db, event)
            except Unavailable as error:
                problem = problem or error
            except Exception as error:
                log.warning("consumer_failed", consumer=consumer, event_type=event.type, event_id=event.event_id,
                            exc_info=error)  # fmt: skip
                problem = error
        return problem or await self._to_stream(event)

    async def _to_stream(self, event: Event) -> Exception | None:
        """Once it is away it is not asked again in this batch: each try may cost its time-out."""
        if self._stream is None:
            return None
        if self._stream_away:
            return Unavailable("the stream is away")
        try:
            await self._stream(event)
        except Unavailable as error:
            self._stream_away = True
            return error
        return None

    async def _put_off(self, db: Any, row: Any, event: Event, problem: Exception) -> None:
        """A part that is away costs no attempt: the event waits for it as long as it takes."""
        attempts = row["attempts"] + (0 if isinstance(problem, Unavailable) else 1)
        failed = attempts >= ATTEMPTS_MAX
        seconds = min(2**attempts, RETRY_SECONDS_MAX)
        await db.execute(
            "UPDATE kernel.outbox SET attempts = $2, error = $3, next_attempt_at = now() + $4::interval,"
            " failed_at = CASE WHEN $5 THEN now() END WHERE event_id = $1::text::uuid",
            event.event_id, attempts, f"{type(problem).__name__}: {problem}"[:500], timedelta(seconds=seconds), failed,
        )  # fmt: skip
        if failed:
            log.error("event_given_up", event_type=event.type, event_id=event.event_id, attempts=attempts)

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._events.stirred.wait(), IDLE_SECONDS)
        except TimeoutError:
            return
        self._events.stirred.clear()
        await asyncio.sleep(COMMIT_SECONDS)


async def _mark(db: Any, event: Event, consumer: str) -> bool:
    tag = await db.execute(
        "INSERT INTO kernel.consumed (event_id, consumer) VALUES ($1::text::uuid, $2) ON CONFLICT DO NOTHING",
        event.event_id, consumer,
    )  # fmt: skip
    return str(tag) == "INSERT 0 1"


def _event(row: Any) -> Event:
    return Event(
        event_id=str(row["event_id"]),
        type=row["type"],
        occurred_at=timestamp(row["occurred_at"]),
        actor=str(row["actor"]) if row["actor"] else None,
        subject_type=row["subject_type"],
        subject_id=row["subject_id"],
        version=row["version"],
        payload=msgspec.json.decode(row["payload"]),
    )
