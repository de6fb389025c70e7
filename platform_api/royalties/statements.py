"""What an account has earned: balances, reports, and the statements of closed months.

All of it is made of `royalties.entry`, which is only ever added to, when the core has answered. A period is closed
once: no entry is written meanwhile, and none of it later, since an entry's time is read under the lock that closing
takes. A statement's digest is SHA-256 of its canonical JSON with all its lines, so a copy can be checked against it for
ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import msgspec

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text
from platform_api.royalties import queries
from platform_api.royalties.models import Balance, Report, ReportLine, Run, Statement, StatementDetail, Total
from platform_api.security import Caller
from platform_api.settlement.queries import settled_in

__all__ = ["Statements", "statement_digest"]

REPORT_DAYS_MAX = 3_660
LINES_MAX = 10_000
_SUMS = ("opening", "earned", "reversed", "paid", "closing")


class Statements:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._database = kernel, kernel.database

    async def balance(self, caller: Caller) -> list[Balance]:
        async with self._database.connection() as db:
            rows = await queries.balances(db, UUID(caller.account_id))
        return [
            Balance(row["asset"], *(decimal_text(row[name], row["scale"]) for name in ("payable", "held", "paid")))
            for row in rows
        ]

    async def report(self, account_id: UUID, since: date | None, until: date | None) -> Report:
        """The last thirty days unless told; both days are of UTC and part of it. Raises ApiError VALIDATION_ERROR."""
        until = until or datetime.now(UTC).date()
        since = since or date.fromordinal(max(1, until.toordinal() - 29))
        if not (timedelta(0) <= until - since <= timedelta(days=REPORT_DAYS_MAX)) or until.year > 9_000:
            message = f"since: must not be after until, and at most {REPORT_DAYS_MAX} days before"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_period", field="since")
        begin = datetime.combine(since, time(), UTC)
        end = datetime.combine(until + timedelta(days=1), time(), UTC)
        async with self._database.connection() as db:
            totals = await queries.totals_of(db, account_id, begin, end)
            rows = await queries.entries_of_account(db, account_id, begin, end, LINES_MAX + 1)
            lines = await _lines(db, rows[:LINES_MAX])
        complete = len(rows) <= LINES_MAX
        return Report(timestamp(begin), timestamp(end), [total_of(row) for row in totals], lines, complete)

    async def list_of(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Statement], Pagination]:
        key = cursor_from(cursor, UUID)
        async with self._database.connection() as db:
            rows = await queries.statements(db, UUID(caller.account_id), key[0] if key else None, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_statement(row) for row in rows], pagination

    async def read(self, caller: Caller, statement_id: UUID) -> StatementDetail:
        """Raises ApiError NOT_FOUND, also for somebody else's."""
        account_id = UUID(caller.account_id)
        async with self._database.connection() as db:
            row = await queries.statement(db, statement_id, account_id)
            if row is None:
                raise unknown("statement")
            begin, end = _bounds(row["period"])
            rows = await queries.entries_of_account(db, account_id, begin, end, LINES_MAX, row["asset"])
            return StatementDetail(_statement(row), await _lines(db, rows))

    async def close(self, caller: Caller, period: str) -> Run:
        """Write the statements of a month that is over, for everybody who had something in it, or is owed something.

        The same period again is answered with the run that closed it. Periods are closed in order.

        Raises:
            ApiError: CONFLICT `period_open`, `later_period_closed`.
        """
        begin, end = _bounds(period)
        if end > datetime.now(UTC):
            raise ApiError(ErrorCode.CONFLICT, "This month is not over.", reason="period_open")
        async with self._database.transaction() as db:
            rows = await queries.owed_before(db, begin, end)  # takes the lock: two closings come one after the other
            done = await queries.run(db, period)
            if done is None:
                if await queries.periods_after(db, period):
                    message = "A later month is closed already."
                    raise ApiError(ErrorCode.CONFLICT, message, reason="later_period_closed")
                rows = [row for row in rows if row["opening"] or row["earned"] or row["reversed"] or row["paid"]]
                for row in rows:
                    await self._write(db, period, begin, end, row)
                done = await queries.insert_run(db, period, len(rows), UUID(caller.account_id))
                await self._kernel.audit.record(
                    db, "royalties.closed", ("period", period), actor=caller.account_id, new={"statements": len(rows)}
                )
        return Run(done["period"], done["statements"], timestamp(done["closed_at"]))

    async def _write(self, db: Any, period: str, begin: datetime, end: datetime, row: Any) -> None:
        sums = {name: row[name] for name in ("opening", "earned", "reversed", "paid")}
        sums["closing"] = sums["opening"] + sums["earned"] - sums["reversed"] - sums["paid"]
        entries = await queries.entries_of_account(db, row["account_id"], begin, end, LINES_MAX, row["asset"])
        digest = statement_digest(row["account_id"], period, row["asset"], row["scale"], sums, entries)
        id_ = new_id()
        await queries.insert_statement(
            db, id_, (row["account_id"], period, row["asset"], row["scale"], *(sums[name] for name in _SUMS), digest)
        )
        await self._kernel.events.publish(
            db, "statement.closed", ("statement", str(id_)),
            {"period": period, "digest": digest.hex(), "for_accounts": [str(row["account_id"])]},
        )  # fmt: skip


def statement_digest(
    account_id: UUID, period: str, asset: str, scale: int, sums: Mapping[str, int], entries: Sequence[Mapping[str, Any]]
) -> bytes:
    """SHA-256 of the canonical JSON: keys in alphabetical order, amounts as decimal texts."""
    content = {
        "account_id": str(account_id), "period": period, "asset": asset,
        **{name: decimal_text(sums[name], scale) for name in _SUMS},
        "lines": [
            {"kind": entry["kind"], "amount": decimal_text(entry["amount_units"], scale), "ref": entry["ref"],
             "happened_at": timestamp(entry["happened_at"])}
            for entry in entries
        ],
    }  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).digest()


def total_of(row: Any) -> Total:
    net = row["earned"] - row["reversed"]
    amounts = (row["earned"], row["reversed"], row["paid"], net)
    return Total(row["asset"], *(decimal_text(amount, row["scale"]) for amount in amounts))


def _bounds(period: str) -> tuple[datetime, datetime]:
    year, month = int(period[:4]), int(period[5:])
    return datetime(year, month, 1, tzinfo=UTC), datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


async def _lines(db: Any, rows: Sequence[Any]) -> list[ReportLine]:
    batches = await settled_in(db, [row["sequence"] for row in rows if row["sequence"] is not None])
    lines = []
    for row in rows:
        batch, digests = batches.get(row["sequence"], (None, []))
        lines.append(
            ReportLine(
                timestamp(row["happened_at"]), row["kind"], row["asset"],
                decimal_text(row["amount_units"], row["scale"]), str(row["work_id"]) if row["work_id"] else None,
                row["revenue_kind"], row["ref"], row["sequence"], batch, digests,
            )
        )  # fmt: skip
    return lines


def _statement(row: Any) -> Statement:
    sums = {name: decimal_text(row[name], row["scale"]) for name in _SUMS}
    return Statement(
        id=str(row["id"]), period=row["period"], asset=row["asset"], digest=bytes(row["digest"]).hex(),
        closed_at=timestamp(row["closed_at"]), **sums,
    )  # fmt: skip
