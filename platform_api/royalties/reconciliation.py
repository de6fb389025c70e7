"""Whether the books say what the core says: what is owed against `pay:ID`, cover against debts, passing accounts empty.

Compared is the projection of the core's events with the books as they stood some minutes ago: postings since then, and
entries of commands that it had not posted by then, count on neither side, so a command on its way is no difference.
While the projection is behind the books there is nothing to compare. What differs is told in the log, in /metrics
(`books_differ`) and once in the audit trail; nothing is corrected here: money moves by commands, and a person decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from platform_api.kernel.context import Kernel
from platform_api.royalties import reconciliation_queries as queries

__all__ = ["Difference", "Reconciliation"]

log = structlog.get_logger(__name__)

SETTLED = timedelta(minutes=10)
"""So old is what is compared: longer than a command, its answer and its entry take."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Units of an asset in an account of the core, and what the books say of it."""

    account: str
    asset: str
    core_units: int
    book_units: int


class Reconciliation:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._database = kernel, kernel.database
        self._differ = kernel.metrics.gauge("books_differ", "Accounts of which the books say another sum than the core")

    async def look(self) -> list[Difference]:
        """Every ten minutes: compare, and tell of each difference. Raises Unavailable."""
        async with self._database.transaction() as db:
            found = await self.differences(db)
            for one in found:
                log.error("books_differ", account=one.account, asset=one.asset, core_units=one.core_units,
                          book_units=one.book_units)  # fmt: skip
                values = {"asset": one.asset, "core_units": str(one.core_units), "book_units": str(one.book_units)}
                if not await queries.is_told(db, one.account, values):
                    await self._kernel.audit.record(
                        db, "books.differ", ("core_account", one.account), actor=None, new=values
                    )
        self._differ.set(len(found))
        return found

    async def differences(self, db: Any) -> list[Difference]:
        """In the caller's transaction; none while the projection is behind the books, or there is none."""
        if not await queries.is_current(db):
            log.info("books_not_compared", reason="the projection is behind")
            return []
        cut = await queries.last_before(db, SETTLED)
        rows = [*await queries.of_payees(db, cut), *await queries.of_cover(db, cut), *await queries.of_works(db, cut)]
        return [Difference(row["account"], row["asset"], int(row["core"]), int(row["books"])) for row in rows]
