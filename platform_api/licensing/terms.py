"""What the owner of a work asks of those who want to use it. A change makes a version; who was granted keeps theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from platform_api.envelope import check_version, given, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.service import ExchangeService
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries
from platform_api.licensing.measures import SCOPES, TERRITORY_LIST, check_duration, tidy
from platform_api.licensing.models import LicenseTerms, TermsPatch, TermsRequest
from platform_api.money import decimal_text, units_of
from platform_api.security import Caller
from platform_api.works.catalog import check_open
from platform_api.works.service import WorkService

__all__ = ["Terms", "check_seats", "terms_of"]


class Terms:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._catalog = kernel.service(WorkService).catalog
        self._exchange = kernel.service(ExchangeService)

    async def list_of(self, visitor: Caller | None, work_id: UUID) -> list[LicenseTerms]:
        """Those that can be applied for. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            await self._catalog.visible(db, visitor, work_id)
            return [terms_of(row) for row in await queries.terms_of_work(db, work_id)]

    async def add(self, caller: Caller, work_id: UUID, body: TermsRequest) -> LicenseTerms:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR; CONFLICT `not_editable`, `too_many_terms`."""
        async with self._database.transaction() as db:
            work = await self._catalog.lock_own(db, caller, work_id)
            check_open(work)
            if len(await queries.terms_of_work(db, work_id)) >= TERMS_MAX:
                message = f"A work has at most {TERMS_MAX} terms at a time."
                raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_terms")
            fields = await self.checked(db, body)
            row = await queries.insert_terms(db, new_id(), work_id, work["account_id"], fields)
            await self._audit(db, caller, "license_terms.created", None, row)
        return terms_of(row)

    async def change(self, caller: Caller, terms_id: UUID, body: TermsPatch, if_match: str | None) -> LicenseTerms:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR; CONFLICT `version_mismatch`, `retired`."""
        async with self._database.transaction() as db:
            row = await self._lock_own(db, caller, terms_id)
            check_version(if_match, row["version"])
            _check_active(row)
            changes = _columns(given(body), row["scale"])
            check_seats(row["license_type"], changes.get("seats", row["seats"]))
            if changes:
                old, row = row, await queries.update_terms(db, terms_id, changes)
                await self._audit(db, caller, "license_terms.changed", old, row)
        return terms_of(row)

    async def retire(self, caller: Caller, terms_id: UUID) -> None:
        """Nobody can apply any more. Raises ApiError NOT_FOUND."""
        async with self._database.transaction() as db:
            row = await self._lock_own(db, caller, terms_id)
            if row["active"]:
                changed = await queries.update_terms(db, terms_id, {"active": False})
                await self._audit(db, caller, "license_terms.retired", row, changed)

    async def checked(self, db: Any, body: Any) -> dict[str, Any]:
        """The columns of a body that has the fields of terms. Raises ApiError VALIDATION_ERROR."""
        scale = await self._exchange.asset_scale(db, body.asset)
        if scale is None:
            message = f"asset: the exchange lists no {body.asset}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
        check_seats(body.license_type, body.seats)
        return _columns(given(body), scale) | {"scale": scale, "territory_list": TERRITORY_LIST}

    async def _lock_own(self, db: Any, caller: Caller, terms_id: UUID) -> Any:
        row = await queries.terms(db, terms_id)
        if row is None or str(row["licensor_id"]) != caller.account_id:
            raise unknown("terms")
        await self._catalog.lock_own(db, caller, row["work_id"])
        return await queries.terms(db, terms_id)  # as they are under the lock

    async def _audit(self, db: Any, caller: Caller, action: str, old: Any, new: Any) -> None:
        await self._kernel.audit.record(
            db, action, ("license_terms", str(new["id"])), actor=caller.account_id,
            old=None if old is None else msgspec.to_builtins(terms_of(old)), new=msgspec.to_builtins(terms_of(new)),
        )  # fmt: skip


TERMS_MAX = 100


def check_seats(license_type: str, seats: int | None) -> None:
    """Raises ApiError VALIDATION_ERROR `wrong_type`."""
    if seats is not None and license_type != "enterprise":
        message = "seats: only an enterprise licence has them"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="wrong_type", field="seats")


def terms_of(row: Any) -> LicenseTerms:
    return LicenseTerms(
        id=str(row["id"]), work_id=str(row["work_id"]), license_type=row["license_type"],
        revenue_share_bps=row["revenue_share_bps"], base_fee=decimal_text(row["fee_units"], row["scale"]),
        asset=row["asset"], territories=list(row["territories"]), duration=row["duration"], scope=list(row["scope"]),
        requirements=row["requirements"], restrictions=row["restrictions"], sublicensing=row["sublicensing"],
        auto_approve=row["auto_approve"], max_licenses=row["max_licenses"], seats=row["seats"], active=row["active"],
        created_at=timestamp(row["created_at"]), version=row["version"],
    )  # fmt: skip


def _columns(fields: Mapping[str, Any], scale: int) -> dict[str, Any]:
    columns = dict(fields)
    if "base_fee" in columns:
        columns["fee_units"] = units_of(columns.pop("base_fee"), scale, least=0, field="base_fee")
    if "territories" in columns:
        columns["territories"] = tidy(columns["territories"])
        columns["territory_list"] = TERRITORY_LIST
    if "duration" in columns:
        check_duration(columns["duration"])
    if "scope" in columns:
        columns["scope"] = sorted(set(columns["scope"]), key=SCOPES.index)
    return columns


def _check_active(row: Any) -> None:
    if not row["active"]:
        raise ApiError(ErrorCode.CONFLICT, "The terms are retired.", reason="retired")
