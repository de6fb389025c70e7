"""What is due by the clock: licences that end, fees that nobody paid, windows that open and close.

One thing at a time, each in a transaction of its own under the lock of its work, and looked at again there; so a sweep
may run twice, or beside another, and what was due while nobody swept is done by the next. One that fails holds up no
other.
"""

from __future__ import annotations

from typing import Any

import structlog

from engine.messages.errors import Unavailable
from platform_api.errors import ApiError
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries, window_queries
from platform_api.licensing.due import KIND, QUEUE, Due, tell_window
from platform_api.licensing.grants import Grants
from platform_api.works.service import WorkService

__all__ = ["Calendar"]

log = structlog.get_logger(__name__)

BATCH = 200


class Calendar:
    def __init__(self, kernel: Kernel, grants: Grants) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._grants = grants
        self._catalog = kernel.service(WorkService).catalog
        kernel.jobs.handle(QUEUE, KIND, Due, self._sweep)

    async def sweep(self) -> None:
        """All that is due. Raises Unavailable."""
        for find, turn in (
            (queries.lapsed_periods, self._lapse),
            (queries.expired_licenses, self._expire),
            (window_queries.due_to_open, self._open),
            (window_queries.due_to_close, self._close),
        ):
            while True:
                async with self._database.connection() as db:
                    rows = await find(db, BATCH)
                failed = 0
                for row in rows:
                    try:
                        async with self._database.transaction() as db:
                            await self._lock(db, row)
                            await turn(db, row)
                    except Unavailable:
                        raise
                    except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others are turned
                        log.error("licensing_not_turned", id=str(row["id"]), error=f"{type(error).__name__}: {error}")
                        failed += 1
                if len(rows) < BATCH or failed == len(rows):
                    break

    async def _sweep(self, _: Due) -> None:
        await self.sweep()

    async def _lock(self, db: Any, row: Any) -> None:
        try:
            await self._catalog.lock_known(db, row["work_id"])
        except ApiError:  # a work that was never sold was deleted, its windows are still to be closed
            return

    async def _lapse(self, db: Any, row: Any) -> None:
        period = await queries.due_period(db, row["id"])
        if period is not None:
            await self._grants.lapse(db, period["id"], period["license_id"])

    async def _expire(self, db: Any, row: Any) -> None:
        license_ = await queries.due_license(db, row["id"])
        if license_ is not None:
            await self._grants.expire(db, license_)

    async def _open(self, db: Any, row: Any) -> None:
        window = await window_queries.open_due(db, row["id"])
        if window is not None:
            await tell_window(self._kernel, db, window, None)

    async def _close(self, db: Any, row: Any) -> None:
        window = await window_queries.close_due(db, row["id"])
        if window is not None:
            await tell_window(self._kernel, db, window, None)
