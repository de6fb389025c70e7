"""One to five stars, of those who have a right to a work by purchase: one rating of each account, which it may change.

The work keeps sum and count, under its row's lock; the average is a decimal text of two places, rounded half up.
"""

from __future__ import annotations

from uuid import UUID

from platform_api.errors import ApiError, ErrorCode
from platform_api.kernel.context import Kernel
from platform_api.security import Caller
from platform_api.works import queries
from platform_api.works.catalog import Catalog, work_of
from platform_api.works.models import Work

__all__ = ["Ratings"]


class Ratings:
    def __init__(self, kernel: Kernel, catalog: Catalog) -> None:
        self._database, self._catalog = kernel.database, catalog

    async def rate(self, caller: Caller, work_id: UUID, stars: int) -> Work:
        """In the place of an earlier rating of the caller. Raises ApiError NOT_FOUND; FORBIDDEN `own_work`,
        `not_bought`."""
        async with self._database.transaction() as db:
            _, inside = await self._catalog.visible(db, caller, work_id)
            if inside:
                message = "Those who make or look after a work do not rate it."
                raise ApiError(ErrorCode.FORBIDDEN, message, reason="own_work")
            if not await self._catalog.may_use(db, caller, work_id, None):
                raise ApiError(ErrorCode.FORBIDDEN, "Who bought a work rates it.", reason="not_bought")
            await self._catalog.lock_known(db, work_id)
            before = await queries.rating(db, work_id, UUID(caller.account_id))
            await queries.set_rating(db, work_id, UUID(caller.account_id), stars)
            await queries.count_rating(db, work_id, stars - (before or 0), 0 if before else 1)
            return work_of(await queries.work(db, work_id))

    async def withdraw(self, caller: Caller, work_id: UUID) -> Work:
        """Once or often: the same. Raises ApiError NOT_FOUND."""
        async with self._database.transaction() as db:
            await self._catalog.visible(db, caller, work_id)
            await self._catalog.lock_known(db, work_id)
            before = await queries.rating(db, work_id, UUID(caller.account_id))
            if before is not None:
                await queries.remove_rating(db, work_id, UUID(caller.account_id))
                await queries.count_rating(db, work_id, -before, -1)
            return work_of(await queries.work(db, work_id))
