"""One to five stars, of those who bought a work or a chapter of it: one rating of each account, which it may change.

The work keeps sum and count, under its row's lock; the average is a decimal text of two places, rounded half up. A
rental that has run out was one: its rating stays. A purchase that was given back whole is none: with the last of an
account goes its rating. Whether somebody bought is asked under the lock that the withdrawal waits for, so that no
rating comes behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from platform_api.errors import ApiError, ErrorCode
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Event
from platform_api.security import Caller
from platform_api.works import queries
from platform_api.works.catalog import Catalog, work_of
from platform_api.works.models import Work

__all__ = ["Ratings"]

Bought = Callable[[Any, UUID, UUID], Awaitable[bool]]
"""Whether an account bought a work, or a part of it, and was not given all back: connection, account, work."""


class Ratings:
    def __init__(self, kernel: Kernel, catalog: Catalog) -> None:
        self._database, self._catalog = kernel.database, catalog
        self.bought: Bought | None = None
        """Set by the context that sells."""
        kernel.events.subscribe("works.ratings", ["entitlement.revoked"], self._on_revoked)

    async def rate(self, caller: Caller, work_id: UUID, stars: int) -> Work:
        """In the place of an earlier rating of the caller. Raises ApiError NOT_FOUND; FORBIDDEN `own_work`,
        `not_bought`."""
        async with self._database.transaction() as db:
            _, inside = await self._catalog.visible(db, caller, work_id)
            if inside:
                message = "Those who make or look after a work do not rate it."
                raise ApiError(ErrorCode.FORBIDDEN, message, reason="own_work")
            await self._catalog.lock_known(db, work_id)
            account_id = UUID(caller.account_id)
            if not await self._has_bought(db, account_id, work_id):
                raise ApiError(ErrorCode.FORBIDDEN, "Who bought a work rates it.", reason="not_bought")
            before = await queries.rating(db, work_id, account_id)
            await queries.set_rating(db, work_id, account_id, stars)
            await queries.count_rating(db, work_id, stars - (before or 0), 0 if before else 1)
            return work_of(await queries.work(db, work_id))

    async def withdraw(self, caller: Caller, work_id: UUID) -> Work:
        """Once or often: the same. Raises ApiError NOT_FOUND."""
        async with self._database.transaction() as db:
            await self._catalog.visible(db, caller, work_id)
            await self._remove(db, UUID(caller.account_id), work_id)
            return work_of(await queries.work(db, work_id))

    async def _on_revoked(self, db: Any, event: Event) -> None:
        """A consumer: a purchase was given back whole."""
        account_id, work_id = UUID(event.payload["account_id"]), UUID(event.payload["work_id"])
        await self._remove(db, account_id, work_id, unless_bought=True)

    async def _remove(self, db: Any, account_id: UUID, work_id: UUID, *, unless_bought: bool = False) -> None:
        await self._catalog.lock_known(db, work_id)
        if unless_bought and await self._has_bought(db, account_id, work_id):
            return
        before = await queries.rating(db, work_id, account_id)
        if before is not None:
            await queries.remove_rating(db, work_id, account_id)
            await queries.count_rating(db, work_id, -before, -1)

    async def _has_bought(self, db: Any, account_id: UUID, work_id: UUID) -> bool:
        return self.bought is not None and await self.bought(db, account_id, work_id)
