"""Trade fees become the platform's revenue: once a day of UTC, of all assets in one command.

    upkeep ──▶ the day's is written, with its command (`fees:DAY`) ──▶ sent until the core has answered ──▶ posted
                                                                                                     └────▶ failed

    system:fees ──▶ platform:revenue      both ours, and settled in one row: nothing moves on the chain

The first look of a day that finds fees sweeps them; what is charged after that is another day's. How much there is, is
asked of the projection. So nothing is written while the sweep before is not answered, or not projected: its units would
be moved again. Rebates may take from `system:fees` what a sweep has moved already: it is below zero then until later
fees fill it, and nothing is swept meanwhile. Two upkeeps at once write one: the second waits, and finds the day's. A
crash leaves either nothing, or the document with its command, which is sent like any other (`ledger.commands`); what
the core refuses stays in `system:fees`, for the next day's.

Nothing is swept while `platform:cover` has not what payees owe us (`reconciliation`): a person looks first.
"""

from __future__ import annotations

from typing import Any

import structlog

from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import FORCED, MoneyAnswer, MoneyCommands
from platform_api.money import decimal_text
from platform_api.royalties import sweep_queries as queries
from platform_api.royalties.postings import PLATFORM, POSTINGS_MAX

__all__ = ["FEES", "FeeSweeps"]

log = structlog.get_logger(__name__)

FEES = "system:fees"


class FeeSweeps:
    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._money = kernel.service(MoneyCommands)
        self._money.handle("fees", self._on_answer)

    async def look(self) -> None:
        """Every ten minutes: order the day's, if there is none and something to sweep. Raises Unavailable."""
        async with self._database.transaction() as db:
            await queries.lock_sweeps(db)
            day = await queries.today(db)
            if not await queries.is_due(db, day):
                return
            rows = await queries.fees(db, POSTINGS_MAX)
            if not rows:
                return
            if await queries.cover_differs(db):
                log.info("fees_wait", day=str(day), why="platform:cover differs")
                return
            id_, ref = new_id(), f"fees:{day}"
            legs = [
                {"from": FEES, "asset": row["asset"], "amount": decimal_text(row["units"], row["scale"]),
                 "to": PLATFORM}
                for row in rows
            ]  # fmt: skip
            await queries.insert_sweep(db, id_, day, ref, rows)
            await self._money.order(
                db, ref, "fees", id_, {"op": "transfer", "legs": legs, "code": "fees", "memo": id_.hex},
                accounts={PLATFORM: FORCED},
            )  # fmt: skip

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        posted = answer.state == "posted"
        await queries.turn_sweep(db, answer.document_id, "posted" if posted else "failed")
        if not posted:
            log.error("fees_not_swept", ref=answer.ref, state=answer.state, reason=answer.reason)
