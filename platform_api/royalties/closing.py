"""Closing a month: everybody's statement of it, written by a job, page by page.

    open      the job writes the statements of the next payees, each page in a transaction that also says how far it is
    refused   the books differ from the core: what is written is kept, and who asks again has the job go on from there
    closed    everybody's is written and the books agree: from then on they can be read, and their holders are told

A statement is nobody's to read before its run is closed. That it may be written in pieces, by a job that is killed and
runs again, follows from what it is made of: entries are only added, and their time is read under a lock that is taken
for a moment when a month is asked for, so of a month that is over none comes later, however long it takes; sales go on
meanwhile. Of two jobs that write the same page, the second finds the run further on and writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import structlog

from engine.messages.errors import Unavailable
from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.royalties import closing_queries as queries
from platform_api.royalties.models import PERIOD, Run
from platform_api.royalties.reconciliation import Reconciliation
from platform_api.royalties.statements import AT_ONCE, SUMS, StatementDigest, bounds
from platform_api.security import Caller

__all__ = ["CloseMonth", "Closing"]

log = structlog.get_logger(__name__)

QUEUE, KIND = "admin_actions", "close_month"
PAYEES_AT_ONCE = 200
"""Of a page: some tens of milliseconds, and what a job that is killed does again."""


class CloseMonth(msgspec.Struct, frozen=True):
    period: str


class Closing:
    def __init__(self, kernel: Kernel, reconciliation: Reconciliation) -> None:
        self._kernel, self._database = kernel, kernel.database
        self._reconciliation = reconciliation
        kernel.jobs.handle(QUEUE, KIND, CloseMonth, self._go_on)

    async def ask(self, caller: Caller, period: str) -> Run:
        """Have a month that is over closed, for everybody who had something in it, or is owed something.

        The same month again is answered with its run, which goes on if nothing works on it. Months are closed in order,
        one at a time, and none is left out that has entries: a later one could never be followed by it.

        Raises ApiError: CONFLICT `other_month_open`, `later_period_closed`, `period_open`, `earlier_month_open`.
        """
        async with self._database.transaction() as db:
            await queries.lock_runs(db)
            run = await queries.run(db, period)
            if run is None:
                await self._check_turn(db, period)
            if run is None or run["state"] == "refused":
                await queries.begin_run(db, period, UUID(caller.account_id))
                await self._kernel.audit.record(
                    db, "royalties.closing_asked", ("period", period), actor=caller.account_id
                )
                run = await queries.run(db, period)
            if run["state"] == "open" or run["is_silent"]:
                # A refused job may be about to end, so the run that goes on from there is another one's.
                key = f"{period} {timestamp(run['begun_at'])}"
                await self._kernel.jobs.enqueue(db, QUEUE, KIND, CloseMonth(period), dedupe_key=key)
        return _run(run)

    async def read(self, period: str) -> Run:
        """How far it is. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            run = await queries.run(db, period) if PERIOD.match(period) else None
        if run is None:
            raise unknown("run")
        return _run(run)

    async def _check_turn(self, db: Any, period: str) -> None:
        other = await queries.other_run(db)
        if other is not None:
            message = f"{other} is not closed yet: one month at a time."
            raise ApiError(ErrorCode.CONFLICT, message, reason="other_month_open", details={"period": other})
        last = await queries.last_closed(db)
        if last is not None and last > period:
            raise ApiError(ErrorCode.CONFLICT, "A later month is closed already.", reason="later_period_closed")
        begin, end = bounds(period)
        if end > await queries.now(db):
            raise ApiError(ErrorCode.CONFLICT, "This month is not over.", reason="period_open")
        await queries.wait_for_entries(db)
        left_out = await queries.first_entry(db, None if last is None else bounds(last)[1], begin)
        if left_out is not None:
            earlier = f"{left_out:%Y-%m}"
            message = f"{earlier} has entries and is not closed: months are closed in order."
            raise ApiError(ErrorCode.CONFLICT, message, reason="earlier_month_open", details={"period": earlier})

    async def _go_on(self, job: CloseMonth) -> None:
        """From where the last one ended to the end. Raises Unavailable."""
        async with self._database.connection() as db:
            await queries.count_payees(db, job.period)
        while await self._write_page(job.period):
            pass
        if await self._end(job.period):
            while await self._announce_page(job.period):
                pass

    async def _write_page(self, period: str) -> bool:
        """The statements of the next payees; False after the last."""
        async with self._database.transaction() as db:
            run = await queries.run(db, period)
            accounts = await queries.payees_after(db, run["written_to"], PAYEES_AT_ONCE)
            if run["state"] != "open" or not accounts:
                return False
            made = await self._made(db, period, accounts)
        async with self._database.transaction() as db:
            if await queries.turn_page(db, period, run["written_to"], accounts[-1], len(accounts), len(made)):
                await queries.insert_statements(db, made)
        return True

    async def _made(self, db: Any, period: str, accounts: Sequence[UUID]) -> list[tuple[Any, ...]]:
        """Rows of the accounts' statements."""
        begin, end = bounds(period)
        last = await queries.last_closed(db)
        rows = await queries.sums_of(db, accounts, begin, end, last, None if last is None else bounds(last)[1])
        digests = {
            (row["account_id"], row["asset"]): StatementDigest(
                row["account_id"], period, row["asset"], row["scale"], {name: row[name] for name in SUMS}
            )
            for row in rows
        }  # fmt: skip
        async for entries in queries.lines_of(db, accounts, begin, end, AT_ONCE):
            for entry in entries:
                digests[entry["account_id"], entry["asset"]].add(entry)
            await asyncio.sleep(0)
        return [
            (new_id(), row["account_id"], period, row["asset"], row["scale"], *(row[name] for name in SUMS),
             digests[row["account_id"], row["asset"]].digest())
            for row in rows
        ]  # fmt: skip

    async def _end(self, period: str) -> bool:
        """Whether it is closed: nobody is told a sum that the core does not have. Raises Unavailable."""
        async with self._database.connection() as db:
            state = (await queries.run(db, period))["state"]
        if state != "open":  # a refused one goes on when it is asked for
            return bool(state == "closed")
        found = await self._reconciliation.differences()
        if found is None:
            raise Unavailable("the projection is behind the books")
        payees = sum(one.account.startswith("pay:") for one in found)
        async with self._database.transaction() as db:
            if payees:
                await queries.refuse_run(db, period, "books_differ")
                log.warning("month_not_closed", period=period, accounts=payees)
                return False
            run = await queries.close_run(db, period)
            if run is None:  # a job beside this one has ended it
                return bool((await queries.run(db, period))["state"] == "closed")
            await self._kernel.audit.record(
                db, "royalties.closed", ("period", period), actor=run["begun_by"], new={"statements": run["statements"]}
            )
        return True

    async def _announce_page(self, period: str) -> bool:
        """Tells the next holders; False after the last."""
        async with self._database.transaction() as db:
            rows = await queries.statements_after(db, period, PAYEES_AT_ONCE)
            await self._kernel.events.publish_each(
                db, "statement.closed",
                [
                    (("statement", str(row["id"])),
                     {"period": period, "digest": row["digest"].hex(), "for_accounts": [str(row["account_id"])]})
                    for row in rows
                ],
            )  # fmt: skip
            await queries.announce_to(db, period, rows[-1]["id"] if rows else UUID(int=2**128 - 1))
        return bool(rows)


def _run(row: Any) -> Run:
    return Run(
        row["period"], row["state"], row["reason"], row["payees"], row["payees_done"], row["statements"],
        timestamp(row["begun_at"]), None if row["closed_at"] is None else timestamp(row["closed_at"]),
    )  # fmt: skip
