"""Routes of settlement, and the service behind them: two reads."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from platform_api.database import Database
from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, cursor_from, ok, page
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.openapi import failures
from platform_api.settings import ApiSettings
from platform_api.settlement import queries
from platform_api.settlement.models import Batch

__all__ = ["SettlementController"]

AnyRequest = Request[Any, Any, Any]
Settings = NamedDependency[ApiSettings]
Db = NamedDependency[Database]


class SettlementController(Controller):
    path = "/v1/batches"
    tags = ("settlement",)

    @get("/", responses=failures(400, 429, 503))
    async def batches(
        self,
        request: AnyRequest,
        database: Db,
        settings: Settings,
        limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Batch]]:
        """Settlement batches, the latest first."""
        key = cursor_from(cursor, int)
        rows = await queries.batches(database, key[0] if key else None, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["number"],))
        return ok(request, [_batch(row, settings) for row in rows], pagination)

    @get("/{number:str}", responses=failures(404, 429, 503))
    async def batch(
        self,
        request: AnyRequest,
        database: Db,
        settings: Settings,
        number: FromPath[str],
    ) -> Envelope[Batch]:
        """One batch with its transaction digests."""
        known = number.isascii() and number.isdecimal() and len(number) <= 18
        row = await queries.batch(database, int(number)) if known else None
        if row is None:
            raise ApiError(ErrorCode.NOT_FOUND, "There is no such batch.", reason="unknown_batch")
        return ok(request, _batch(row, settings))


def _batch(row: Any, settings: Settings) -> Batch:
    return Batch(
        number=row["number"],
        first_sequence=row["first_sequence"],
        last_sequence=row["last_sequence"],
        cut_at=timestamp(row["cut_at"]),
        status=row["status"],
        root=bytes(row["root"]).hex() if row["root"] is not None else None,
        leg_count=row["leg_count"],
        digests=list(row["digests"]),
        committed_at=timestamp(row["committed_at"]) if row["committed_at"] else None,
        error=row["error"],
        chain=settings.chain,
        embedded=settings.embedded,
    )
