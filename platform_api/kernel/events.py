"""The outbox: events written in the transaction of the change they tell of, and who wants to hear of them.

    publish   a row of kernel.outbox, in the caller's transaction: it is told if and only if the change happened
    subscribe a consumer by name; its handler runs in a transaction with the note that it ran, so effects in PostgreSQL
              happen once even though an event may be handed over more than once and out of order
    listen    a callback after the hand-over, without any promise; for live feeds

The relay (`relay.py`) does the handing over. A type that no context has declared is a mistake of ours and raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from platform_api.ids import new_id
from platform_api.request_scope import current_request

__all__ = ["Event", "Events", "Handler", "Listener"]


class Event(msgspec.Struct, frozen=True):
    """`subject` is what changed, `version` which state of it; `actor` is an account, or None for the platform."""

    event_id: str
    type: str
    occurred_at: str
    actor: str | None
    subject_type: str
    subject_id: str
    version: int
    payload: dict[str, Any]


Handler = Callable[[Any, Event], Awaitable[None]]
"""Gets the connection of its transaction and the event."""
Listener = Callable[[Event], None]
_INSERT = (
    "INSERT INTO kernel.outbox (event_id, type, actor, subject_type, subject_id, version, payload, request_id)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)
TOLD_MAX = 10_000
"""Events of which it is remembered that the listeners have heard them: what is under way between processes."""


class Events:
    """One for each application."""

    def __init__(self, types: Iterable[str]) -> None:
        self.types = frozenset(types)
        self.stirred = asyncio.Event()
        """Set by `publish`: the relay need not wait for its next look."""
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._listeners: list[Listener] = []
        self._told: dict[str, None] = {}

    def subscribe(self, consumer: str, types: Iterable[str], handler: Handler) -> None:
        """`consumer` is a stable name: what it has taken is remembered under it."""
        for type_ in types:
            assert type_ in self.types, f"no context declares the event {type_}"
            handlers = self._handlers.setdefault(type_, {})
            assert consumer not in handlers, f"{consumer} hears {type_} already"
            handlers[consumer] = handler

    def listen(self, listener: Listener) -> None:
        """Calls `listener` with every event that was handed over, by this process or one it hears of; it must not block
        or raise."""
        self._listeners.append(listener)

    def handlers_of(self, type_: str) -> Mapping[str, Handler]:
        return self._handlers.get(type_, {})

    def tell_listeners(self, event: Event) -> None:
        """Once: it may come from the relay of this process and from a stream that all relays write."""
        if event.event_id in self._told:
            return
        self._told[event.event_id] = None
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        for listener in self._listeners:
            listener(event)

    async def publish(
        self,
        db: Any,
        type_: str,
        subject: tuple[str, str],
        payload: Mapping[str, Any],
        *,
        actor: UUID | str | None = None,
        version: int = 1,
    ) -> UUID:
        """Writes one event. `db` must be in the transaction of the change. Returns the event's id."""
        assert type_ in self.types, f"no context declares the event {type_}"
        event_id, actor = new_id(), UUID(actor) if isinstance(actor, str) else actor
        await db.execute(_INSERT, *_row(event_id, type_, subject, payload, actor, version))
        self.stirred.set()
        return event_id

    async def publish_each(
        self,
        db: Any,
        type_: str,
        changes: Sequence[tuple[tuple[str, str], Mapping[str, Any]]],
        *,
        actor: UUID | None = None,
    ) -> None:
        """Writes an event for each (subject, payload), in their order, at once."""
        assert type_ in self.types, f"no context declares the event {type_}"
        rows = [_row(new_id(), type_, subject, payload, actor, 1) for subject, payload in changes]
        await db.executemany(_INSERT, rows)
        self.stirred.set()


def _row(
    event_id: UUID, type_: str, subject: tuple[str, str], payload: Mapping[str, Any], actor: UUID | None, version: int
) -> tuple[Any, ...]:
    content = msgspec.json.encode(payload).decode()
    return event_id, type_, actor, *subject, version, content, current_request.get().request_id
