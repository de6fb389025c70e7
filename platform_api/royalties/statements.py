"""What an account has earned: balances, reports, and the statements of closed months (`closing.py` writes them).

All of it is made of `royalties.entry`, which is only ever added to, when the core has answered. A statement's digest is
SHA-256 of its canonical JSON with all its lines, so a copy can be checked against it for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import msgspec

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.account_queries import sequences_of
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text
from platform_api.royalties import queries
from platform_api.royalties.models import Balance, Report, ReportLine, Statement, StatementDetail, Total
from platform_api.security import Caller
from platform_api.settlement.queries import settled_in

__all__ = ["AT_ONCE", "LINES_MAX", "PDF_LINES_MAX", "SUMS", "StatementDigest", "Statements", "bounds", "total_of"]

REPORT_DAYS_MAX = 3_660
LINES_MAX = 10_000
"""Of a report, and of a page of a statement."""
PDF_LINES_MAX = 1_000
"""Drawing costs two milliseconds a line."""
AT_ONCE = 250
"""Lines between two turns of the event loop."""
SUMS = ("opening", "earned", "reversed", "paid", "closing")


class Statements:
    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database

    async def balance(self, caller: Caller) -> list[Balance]:
        async with self._database.connection() as db:
            rows = await queries.balances(db, UUID(caller.account_id))
        return [
            Balance(row["asset"], *(decimal_text(row[name], row["scale"]) for name in ("payable", "held", "paid")))
            for row in rows
        ]

    async def report(
        self, account_id: UUID, since: date | None, until: date | None, *, lines_max: int
    ) -> Report:
        """The last thirty days unless told; both days are of UTC and part of it. Raises ApiError VALIDATION_ERROR."""
        until = until or datetime.now(UTC).date()
        since = since or date.fromordinal(max(1, until.toordinal() - 29))
        if not (timedelta(0) <= until - since <= timedelta(days=REPORT_DAYS_MAX)) or until.year > 9_000:
            message = f"since: must not be after until, and at most {REPORT_DAYS_MAX} days before"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_period", field="since")
        begin = datetime.combine(since, time(), UTC)
        end = datetime.combine(until + timedelta(days=1), time(), UTC)
        async with self._database.connection() as db:
            totals = await queries.totals_of(db, account_id, since, until)
            rows = await queries.entries_of_account(db, account_id, begin, end, lines_max + 1)
            lines = await _lines(db, rows[:lines_max], end)
        complete = len(rows) <= lines_max
        return Report(timestamp(begin), timestamp(end), [total_of(row) for row in totals], lines, complete)

    async def list_of(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Statement], Pagination]:
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.statements(db, UUID(caller.account_id), before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_statement(row) for row in rows], pagination

    async def read(
        self, caller: Caller, statement_id: UUID, cursor: str | None
    ) -> tuple[StatementDetail, Pagination]:  # fmt: skip
        """With a page of its lines. Raises ApiError NOT_FOUND, also for somebody else's."""
        after = cursor_from(cursor, datetime, UUID)
        async with self._database.connection() as db:
            row = await self._own(db, caller, statement_id)
            begin, end = bounds(row["period"])
            rows = await queries.entries_of_account(
                db, row["account_id"], begin, end, LINES_MAX + 1, row["asset"], after
            )
            rows, pagination = page(rows, LINES_MAX, lambda line: (line["happened_at"], line["id"]))
            return StatementDetail(_statement(row), await _lines(db, rows, end)), pagination

    async def read_whole(self, caller: Caller, statement_id: UUID, *, lines_max: int | None = None) -> StatementDetail:
        """With all its lines. Raises ApiError NOT_FOUND; CONFLICT `too_many_lines` if there are more."""
        lines: list[ReportLine] = []
        async with self._database.connection() as db:
            row = await self._own(db, caller, statement_id)
            async for rows in _pages(db, row["account_id"], row["period"], row["asset"]):
                lines += await _lines(db, rows, bounds(row["period"])[1])
                if lines_max is not None and len(lines) > lines_max:
                    message = f"It has more than {lines_max} lines: ask for csv."
                    raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_lines")
        return StatementDetail(_statement(row), lines)

    async def _own(self, db: Any, caller: Caller, statement_id: UUID) -> Any:
        row = await queries.statement(db, statement_id, UUID(caller.account_id))
        if row is None:
            raise unknown("statement")
        return row


class StatementDigest:
    """SHA-256 of the canonical JSON, of which never more than a line is in memory: keys in alphabetical order,
    amounts as decimal texts."""

    def __init__(self, account_id: UUID, period: str, asset: str, scale: int, sums: Mapping[str, int]) -> None:
        content = {
            "account_id": str(account_id), "period": period, "asset": asset,
            **{name: decimal_text(sums[name], scale) for name in SUMS}, "lines": [],
        }  # fmt: skip
        before, opened, self._after = msgspec.json.encode(content, order="sorted").partition(b'"lines":[')
        self._scale, self._count, self._hash = scale, 0, hashlib.sha256(before + opened)

    def add(self, entry: Mapping[str, Any]) -> None:
        """The next line, in the order of time."""
        line = {
            "kind": entry["kind"], "amount": decimal_text(entry["amount_units"], self._scale), "ref": entry["ref"],
            "happened_at": timestamp(entry["happened_at"]),
        }  # fmt: skip
        self._hash.update((b"," if self._count else b"") + msgspec.json.encode(line, order="sorted"))
        self._count += 1

    def digest(self) -> bytes:
        """Once, after all lines."""
        self._hash.update(self._after)
        return self._hash.digest()


def total_of(row: Any) -> Total:
    net = row["earned"] - row["reversed"]
    amounts = (row["earned"], row["reversed"], row["paid"], net)
    return Total(row["asset"], *(decimal_text(amount, row["scale"]) for amount in amounts))


async def _pages(db: Any, account_id: UUID, period: str, asset: str) -> AsyncIterator[list[Any]]:
    """All entries of an account in a period and asset, in the order of time."""
    begin, end = bounds(period)
    after: tuple[datetime, UUID] | None = None
    while rows := await queries.entries_of_account(db, account_id, begin, end, LINES_MAX, asset, after):
        yield rows
        after = rows[-1]["happened_at"], rows[-1]["id"]


def bounds(period: str) -> tuple[datetime, datetime]:
    """Begin and end of a month in UTC; the end is not part of it."""
    year, month = int(period[:4]), int(period[5:])
    return datetime(year, month, 1, tzinfo=UTC), datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


async def _lines(db: Any, rows: Sequence[Any], until: datetime) -> list[ReportLine]:
    """With sequence and batch, also of what was posted by a command whose answer was lost: asked again, the core only
    says that it ran, and the projection of its events says where."""
    untold = [row["ref"] for row in rows if row["sequence"] is None]
    found = await sequences_of(db, untold) if untold else {}
    sequences = [row["sequence"] or found.get(row["ref"]) for row in rows]
    batches = await settled_in(db, [sequence for sequence in sequences if sequence is not None])
    titles = await queries.titles_until(db, {row["work_id"] for row in rows if row["work_id"]}, until)
    sold = await queries.sold_in(db, {row["distribution_id"] for row in rows if row["distribution_id"]})
    lines: list[ReportLine] = []
    for row, sequence in zip(rows, sequences, strict=True):
        if len(lines) % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)  # ten thousand lines in one go kept everybody else waiting for 0.2 s
        batch, digests = (None, []) if sequence is None else batches.get(sequence, (None, []))
        lines.append(
            ReportLine(
                timestamp(row["happened_at"]), row["kind"], row["asset"],
                decimal_text(row["amount_units"], row["scale"]), str(row["work_id"]) if row["work_id"] else None,
                row["revenue_kind"], row["ref"], sequence, batch, digests,
                None if row["kind"] == "paid" else timestamp(row["matures_at"]), titles.get(row["work_id"]),
                *_sale(row, sold.get(row["distribution_id"])),
            )
        )  # fmt: skip
    return lines


def _sale(entry: Any, sold: Any | None) -> tuple[str | None, ...]:
    """What its buyer paid and the platform took, where that was earned; distribution, purchase and licence."""
    if sold is None:
        return None, None, None, None, None if entry["licence_id"] is None else str(entry["licence_id"])
    ids = (str(id_) if id_ else None for id_ in (sold["id"], sold["purchase_id"], sold["licence_id"]))
    if entry["kind"] != "earned":
        return None, None, *ids
    return decimal_text(sold["gross_units"], sold["scale"]), decimal_text(sold["platform_units"], sold["scale"]), *ids


def _statement(row: Any) -> Statement:
    sums = {name: decimal_text(row[name], row["scale"]) for name in SUMS}
    return Statement(
        id=str(row["id"]), period=row["period"], asset=row["asset"], digest=bytes(row["digest"]).hex(),
        closed_at=timestamp(row["closed_at"]), **sums,
    )  # fmt: skip
