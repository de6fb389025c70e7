"""Works made under a licence: what they earn is shared with the work that they were made of, as long as they are sold.

The licensee names the work, one for each licence. From then on royalties give the licence's `revenue_share_bps` of what
the new work receives to the licensed one, and so on upwards; under a licence below another to its licensor, who gives
the licence above its share of that, and so on up to the work. Where others lose by it, from their consent on
(royalties/licence_shares.py). The end of the licence does not end that, else whoever lets it lapse would gain by it; a
later licence under which the same work is named takes the place of those that ended.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from platform_api.errors import ApiError, ErrorCode
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries
from platform_api.licensing.licenses import Licenses, check_party, check_valid
from platform_api.licensing.models import License
from platform_api.royalties.service import RoyaltyService
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["Derivatives"]

MAKING = frozenset({"adapt", "translate", "audio"})
"""Scopes that permit a new work."""


class Derivatives:
    def __init__(self, kernel: Kernel, licenses: Licenses) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._licenses = licenses
        self._catalog = kernel.service(WorkService).catalog
        self._royalties = kernel.service(RoyaltyService)

    async def declare(self, caller: Caller, license_id: UUID, work_id: UUID) -> License:
        """Raises ApiError.

        NOT_FOUND; VALIDATION_ERROR `unknown_work`; FORBIDDEN `beyond_license`; LICENSE_EXPIRED; CONFLICT `declared`,
        `no_share`, `chain_too_long`, `more_than_whole`, `too_many_below`, `not_active`.
        """
        try:
            async with self._database.transaction() as db:
                row = await queries.license_row(db, license_id)
                check_party(row, caller, "licensee")
                works = {
                    id_: await self._lock(db, caller, id_, own=id_ == work_id)
                    for id_ in sorted({row["work_id"], work_id})  # in one order: no two wait for each other
                }
                row = await queries.lock_license(db, license_id)
                await check_valid(db, row)
                if not MAKING & set(row["scope"]):
                    message = "The licence permits no new work."
                    raise ApiError(ErrorCode.FORBIDDEN, message, reason="beyond_license")
                if row["revenue_share_bps"] == 0:
                    raise ApiError(ErrorCode.CONFLICT, "The licence asks for no share.", reason="no_share")
                ended = await queries.ended_licenses(db, row["work_id"], row["licensee_id"])
                counts = await self._royalties.licence_shares.name(
                    db, works[work_id], license_id, row["work_id"], row["revenue_share_bps"],
                    await _between(db, row), ended,
                )  # fmt: skip
                await self._kernel.audit.record(
                    db, "license.work_declared", ("license", str(license_id)), actor=caller.account_id,
                    new={"work_id": str(work_id), "revenue_share_bps": row["revenue_share_bps"], "counts": counts},
                )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            raise ApiError(ErrorCode.CONFLICT, "The licence has its work.", reason="declared") from error
        return await self._licenses.read(caller, license_id)

    async def _lock(self, db: Any, caller: Caller, work_id: UUID, *, own: bool) -> Any:
        if not own:
            return await self._catalog.lock_known(db, work_id)
        try:
            return await self._catalog.lock_own(db, caller, work_id)
        except ApiError as error:
            message = "work_id: the caller has no such work"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_work", field="work_id") from error


async def _between(db: Any, row: Any) -> list[tuple[UUID, int]]:
    """The licensors between the licensee and the work's owner, the nearest first, and what each owes of what comes to
    them by the licence above."""
    above = list(reversed((await queries.chain(db, row["id"], datetime.now(UTC)))[:-1]))
    licensors = [row["licensor_id"], *(link["licensor_id"] for link in above[:-1])]
    return [(licensor_id, link["revenue_share_bps"]) for licensor_id, link in zip(licensors, above, strict=False)]
