"""How many visitors looked at a work: each counts once a day, however often they come back.

    GET /v1/works/{id} ──▶ a set in memory ──every ten seconds──▶ one statement: new visitors of today, and the counts

A request writes nothing. A visitor is an account, or the address (of IPv6 the network) of somebody without one; a
digest under a key of ours and of the day is all that is kept, for two days. Those who make a work do not count. A
process that ends loses what it has not written: ten seconds at most, and never more than SEEN_MAX.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from uuid import UUID

import structlog

from engine.messages.errors import Unavailable
from platform_api.kernel.context import Kernel
from platform_api.limits import network_of
from platform_api.request_scope import current_request
from platform_api.security import Caller
from platform_api.works import queries

__all__ = ["Views", "forget_views"]

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 10.0
SEEN_MAX = 20_000
"""Visits that wait to be written; while the database is away, more are not counted."""


class Views:
    def __init__(self, kernel: Kernel) -> None:
        self._database, self._sealer = kernel.database, kernel.sealer
        self._seen: set[tuple[date, UUID, bytes]] = set()
        self._flushing: asyncio.Task[None] | None = None

    def note(self, visitor: Caller | None, work_id: UUID) -> None:
        """Somebody looked. Counts nothing where it is not known who."""
        address = current_request.get().ip_address
        source = visitor.account_id if visitor is not None else address and network_of(address)
        if source is None or len(self._seen) >= SEEN_MAX:
            return
        day = datetime.now(UTC).date()
        self._seen.add((day, work_id, self._sealer.digest("work_view", f"{day} {work_id} {source}")[:16]))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_later(), name="views")

    async def flush(self) -> None:
        """Writes what waits. Raises Unavailable, and it waits on."""
        seen, self._seen = self._seen, set()
        try:
            async with self._database.transaction() as db:
                await queries.count_views(db, sorted(seen))
        except BaseException:
            self._seen |= seen
            raise

    async def _flush_later(self) -> None:
        while self._seen:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except Unavailable as error:
                log.info("views_wait", count=len(self._seen), error=str(error))


async def forget_views(kernel: Kernel) -> None:
    """Upkeep: who looked before yesterday is nobody's business any more."""
    async with kernel.database.transaction() as db:
        await queries.forget_views(db, datetime.now(UTC).date())
