"""Routes of settlement, and the service behind them: batches, and proofs of one's own balances."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from platform_api.database import Database
from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, cursor_from, ok, page, path_number, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.openapi import BEARER, failures
from platform_api.ports import NoProof, ProofPort, StatusPort
from platform_api.routing import AnyRequest, Who
from platform_api.settings import ApiSettings
from platform_api.settlement import queries
from platform_api.settlement.models import Batch, Proof, Proofs

__all__ = ["ProofController", "SettlementController"]

Settings = NamedDependency[ApiSettings]
Db = NamedDependency[Database]
Status = NamedDependency[StatusPort]
Desk = NamedDependency[ProofPort]

_PROBLEMS = {
    "unknown_batch": "There is no such batch, or it is too old: proofs are made of the last 360.",
    "not_final": "This batch is not final yet.",
    "no_balance": "You had no balance in that batch.",
}


class SettlementController(Controller):
    path = "/v1/settlement/batches"
    tags = ("settlement",)

    @get("/", responses=failures(400, 429, 503))
    async def batches(
        self,
        request: AnyRequest,
        database: Db,
        settings: Settings,
        processes: Status,
        limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Batch]]:
        """Settlement batches, the latest first.

        For everybody. The `file` of one is at `GET /v1/settlement/batches/{number}`.
        """
        (before,) = cursor_from(cursor, int) or (None,)
        rows = await queries.batches(database, before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["number"],))
        return ok(request, [_batch(row, settings, processes, with_file=False) for row in rows], pagination)

    @get("/{number:str}", responses=failures(404, 429, 503))
    async def batch(
        self,
        request: AnyRequest,
        database: Db,
        settings: Settings,
        processes: Status,
        number: FromPath[str],
    ) -> Envelope[Batch]:
        """One batch with its transaction digests, and the file that `byline verify` checks against a node.

        For everybody. `file` is null until the batch is final.
        """
        row = await queries.batch(database, path_number(number, "batch"))
        if row is None:
            raise unknown("batch")
        return ok(request, _batch(row, settings, processes, with_file=True))


class ProofController(Controller):
    path = "/v1/users/me/proof"
    tags = ("settlement",)

    @get("/", security=BEARER, responses=failures(400, 401, 404, 409, 429, 503))
    async def proof(
        self,
        request: AnyRequest,
        caller: Who,
        proofs: Desk,
        batch: Annotated[str | None, QueryParameter(pattern=r"^[1-9][0-9]{0,17}$(?!\n)")] = None,
    ) -> Envelope[Proofs]:
        """Proofs that one's balances are counted in a batch's root; without `batch`, in the last final one.

        409 `not_final` while that batch is on its way; 404 `unknown_batch` for one older than the last 360,
        `no_balance` if the account had nothing in it.
        """
        try:
            found = await proofs.prove(caller.account, None if batch is None else int(batch))
            return ok(request, Proofs("byline proof 1", [msgspec.convert(proof, Proof) for proof in found]))
        except NoProof as problem:
            code = ErrorCode.CONFLICT if problem.reason == "not_final" else ErrorCode.NOT_FOUND
            raise ApiError(code, _PROBLEMS[problem.reason], reason=problem.reason) from problem


def _batch(row: Any, settings: Settings, processes: StatusPort, *, with_file: bool) -> Batch:
    settlement = processes.read().get("backoffice", {}).get("settlement", {})
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
        chain=settlement.get("chain") or ("embedded (not a network)" if settings.embedded else settings.chain),
        executor=settlement.get("executor", "unknown"),
        embedded=settings.embedded,
        file=msgspec.json.decode(row["file"]) if with_file and row["file"] else None,
    )
