"""Licences as their parties see them: given directly, renewed, revoked, read; and, for everybody, whether they hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer, required_key
from platform_api.identity.service import IdentityService
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries
from platform_api.licensing.grants import ABOVE, Grant, Grants
from platform_api.licensing.models import IssueRequest, License, LicenseVerification
from platform_api.licensing.terms import Terms
from platform_api.moments import checked_moment
from platform_api.money import decimal_text
from platform_api.royalties.share_queries import given_on_of
from platform_api.security import Caller, check_may
from platform_api.works.service import WorkService

__all__ = ["Licenses", "why_not"]


class Licenses:
    def __init__(self, kernel: Kernel, terms: Terms, grants: Grants) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._terms, self._grants = terms, grants
        self._catalog = kernel.service(WorkService).catalog
        self._people = kernel.service(IdentityService).people

    async def list_of(
        self, caller: Caller, party: str, status: str | None, cursor: str | None, limit: int
    ) -> tuple[list[License], Pagination]:
        """`party`: licensee or licensor, which the caller is."""
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.licenses(db, party, UUID(caller.account_id), status, before, limit + 1)
            rows, pagination = page(rows, limit, lambda row: (row["id"],))
            return await shown(db, rows), pagination

    async def read(self, caller: Caller, license_id: UUID) -> License:
        """Raises ApiError NOT_FOUND for anybody but its two parties."""
        async with self._database.connection() as db:
            row = await queries.license_row(db, license_id)
            check_party(row, caller, "licensor", "licensee")
            (found,) = await shown(db, [row])
        return found

    async def known(self, db: Any, license_id: UUID) -> License | None:
        """Any licence, for other contexts."""
        row = await queries.license_row(db, license_id)
        return None if row is None else (await shown(db, [row]))[0]

    async def issue(self, caller: Caller, body: IssueRequest, key: str | None) -> License:
        """Raises ApiError.

        VALIDATION_ERROR `unknown_work`, `unknown_account`, `beyond_parent`; FORBIDDEN `no_sublicensing`;
        LICENSE_EXPIRED of the licence above; CONFLICT `exclusivity_clash`, `sublicensing_not_agreed`.
        """
        key = required_key(key)
        actor = UUID(caller.account_id)

        async def change(db: Any) -> Answer:
            parent = await self._lock_right(db, caller, body)
            if body.licensee_id == actor or not await self._people.is_known(db, body.licensee_id):
                message = "licensee_id: must be another account"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_account", field="licensee_id")
            fields = await self._terms.checked(db, body)
            if body.starts_at is not None:
                checked_moment(body.starts_at, "starts_at")
            grant = Grant(
                work_id=body.work_id, licensor_id=actor, licensee_id=body.licensee_id, parent=parent,
                **{name: fields[name] for name in _OF_TERMS},
            )  # fmt: skip
            license_id = await self._grants.reserve(db, grant, actor)
            await self._audit(db, "license.issued", license_id, actor, None, {"licensee_id": str(body.licensee_id)})
            return 201, await self._encoded(db, license_id)

        return await self._once(caller, "POST /v1/licenses", key, body, change)

    async def renew(self, caller: Caller, license_id: UUID, key: str | None) -> License:
        """By its licensee under terms that still stand as they were, or by its licensor.

        Raises ApiError NOT_FOUND; LICENSE_EXPIRED; CONFLICT `not_active`, `terms_changed`, `renewal_pending`,
        `already_renewed`, `exclusivity_clash`, `refund_open`, `sublicensing_not_agreed`.
        """
        await self._check_known(caller, license_id, "licensor", "licensee")
        key = required_key(key)
        actor = UUID(caller.account_id)

        async def change(db: Any) -> Answer:
            row = await self.lock(db, caller, license_id, "licensor", "licensee")
            await check_valid(db, row)
            if str(row["licensee_id"]) == caller.account_id:
                await self._check_same_terms(db, row)
            elif row["parent_license_id"] is None:
                check_may(caller, "manage_licenses")
            await check_no_refund(db, license_id)
            await self._grants.renew(db, row, actor)
            await self._audit(db, "license.renewal", license_id, actor, {"ends_at": timestamp(row["ends_at"])}, {})
            return 200, await self._encoded(db, license_id)

        return await self._once(caller, "POST /v1/licenses/renew", key, str(license_id), change)

    async def revoke(
        self, caller: Caller, license_id: UUID, reason: str, key: str | None, *, staff: bool = False
    ) -> License:
        """With every licence below it; by staff alone once a fee was paid for time to come, there or below.

        Raises ApiError NOT_FOUND; CONFLICT `not_active`; `fee_paid`, and the licensor gives it back instead.
        """
        await self._check_known(caller, license_id, *(() if staff else ("licensor",)))
        key = required_key(key)
        actor = UUID(caller.account_id)

        async def change(db: Any) -> Answer:
            if staff:
                row = await self._lock_as_staff(db, caller, license_id)
            else:
                row = await self.lock(db, caller, license_id, "licensor")
            if row["status"] not in ("pending_payment", "active", "suspended"):
                raise ApiError(ErrorCode.CONFLICT, f"The licence is {row['status']}.", reason="not_active")
            if not staff and await queries.refundable_periods(db, license_id, ABOVE):
                message = "A fee was paid for time to come: give it back, which ends the licence, or ask the platform."
                raise ApiError(ErrorCode.CONFLICT, message, reason="fee_paid")
            await self._grants.revoke(db, row, reason, actor)
            return 200, await self._encoded(db, license_id)

        return await self._once(caller, "POST /v1/licenses/revoke", key, [str(license_id), reason], change)

    async def suspend(self, caller: Caller, license_id: UUID, reason: str) -> License:
        """By staff, while something is looked into. Raises ApiError NOT_FOUND, FORBIDDEN; CONFLICT `not_active`."""
        async with self._database.transaction() as db:
            row = await self._lock_as_staff(db, caller, license_id)
            if row["status"] != "active":
                raise ApiError(ErrorCode.CONFLICT, f"The licence is {row['status']}.", reason="not_active")
            await self._grants.suspend(db, row, reason, UUID(caller.account_id))
            (found,) = await shown(db, [await queries.license_row(db, license_id)])
        return found

    async def resume(self, caller: Caller, license_id: UUID) -> License:
        """Raises ApiError NOT_FOUND, FORBIDDEN; CONFLICT `not_suspended`."""
        async with self._database.transaction() as db:
            row = await self._lock_as_staff(db, caller, license_id)
            if row["status"] != "suspended":
                raise ApiError(ErrorCode.CONFLICT, f"The licence is {row['status']}.", reason="not_suspended")
            await self._grants.resume(db, row, UUID(caller.account_id))
            (found,) = await shown(db, [await queries.license_row(db, license_id)])
        return found

    async def verify(self, license_id: UUID) -> LicenseVerification:
        """For everybody. Raises ApiError NOT_FOUND."""
        at = datetime.now(UTC)
        async with self._database.connection() as db:
            chain = await queries.chain(db, license_id, at)
        if not chain:
            raise unknown("license")
        row, reason = chain[-1], why_not(chain, at)
        return LicenseVerification(
            str(row["id"]), reason is None, reason, str(row["work_id"]), row["license_type"], list(row["territories"]),
            list(row["scope"]), moment(row["starts_at"]), moment(row["ends_at"]),
        )  # fmt: skip

    async def lock(self, db: Any, caller: Caller, license_id: UUID, *parties: str) -> Any:
        """A licence of the caller as one of `parties` (none: whoever), under the lock of its work and its own."""
        row = await queries.license_row(db, license_id)
        check_party(row, caller, *parties)
        await self._catalog.lock_known(db, row["work_id"])
        return await queries.lock_license(db, license_id)

    async def _lock_as_staff(self, db: Any, caller: Caller, license_id: UUID) -> Any:
        row = await self.lock(db, caller, license_id)
        if caller.account_id in (str(row["licensor_id"]), str(row["licensee_id"])):
            message = "Nobody of the platform decides their own matters."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="own_account")
        return row

    async def _check_known(self, caller: Caller, license_id: UUID, *parties: str) -> None:
        async with self._database.connection() as db:
            check_party(await queries.license_row(db, license_id), caller, *parties)

    async def _lock_right(self, db: Any, caller: Caller, body: IssueRequest) -> Any:
        """The work, locked; the licence above, or None for the work's owner."""
        try:
            if body.parent_license_id is None:
                await self._catalog.lock_own(db, caller, body.work_id)
                check_may(caller, "manage_licenses")
                return None
            parent = await self.lock(db, caller, body.parent_license_id, "licensee")
        except ApiError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            field = "work_id" if body.parent_license_id is None else "parent_license_id"
            message = f"{field}: the caller has none of this id"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason=error.reason, field=field) from error
        if parent["work_id"] != body.work_id:
            message = "work_id: the licence above is one of another work"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_work", field="work_id")
        await check_valid(db, parent)
        if not parent["sublicensing"]:
            message = "The licence above does not permit licences below it."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="no_sublicensing")
        return parent

    @staticmethod
    async def _check_same_terms(db: Any, row: Any) -> None:
        terms = None if row["terms_id"] is None else await queries.terms(db, row["terms_id"])
        if terms is None or not terms["active"] or terms["version"] != row["terms_version"]:
            message = "Its terms do not stand as they were: its licensor renews it, or apply anew."
            raise ApiError(ErrorCode.CONFLICT, message, reason="terms_changed")

    async def _encoded(self, db: Any, license_id: UUID) -> bytes:
        (found,) = await shown(db, [await queries.license_row(db, license_id)])
        return msgspec.json.encode(found)

    async def _once(self, caller: Caller, route: str, key: str, body: Any, change: Any) -> License:
        answer, _ = await self._kernel.idempotency.once(caller.account_id, route, key, body, change)
        return msgspec.json.decode(answer[1], type=License)

    async def _audit(self, db: Any, action: str, license_id: UUID, actor: UUID, old: Any, new: Any) -> None:
        await self._kernel.audit.record(db, action, ("license", str(license_id)), actor=actor, old=old, new=new)


_OF_TERMS = (
    "license_type", "revenue_share_bps", "asset", "scale", "fee_units", "territories", "scope", "duration",
    "requirements", "restrictions", "sublicensing", "seats", "starts_at",
)  # fmt: skip


def check_party(row: Any, caller: Caller, *parties: str) -> None:
    """Raises ApiError NOT_FOUND unless the caller is one of these parties of the licence; none: whoever."""
    if row is None or (parties and caller.account_id not in [str(row[f"{party}_id"]) for party in parties]):
        raise unknown("license")


async def check_no_refund(db: Any, license_id: UUID) -> None:
    """Under the work's lock. Raises ApiError CONFLICT `refund_open`: its answer ends the licence, or some of its chain.

    What were paid meanwhile would be lost to who pays it.
    """
    if await queries.has_open_refund(db, license_id):
        message = "A refund of it, or of one above or below it, is under way."
        raise ApiError(ErrorCode.CONFLICT, message, reason="refund_open")


async def check_valid(db: Any, row: Any) -> None:
    """Raises ApiError LICENSE_EXPIRED, or CONFLICT `not_active`, unless it and all above it hold now."""
    at = datetime.now(UTC)
    reason = why_not(await queries.chain(db, row["id"], at), at)
    if reason == "expired":
        raise ApiError(ErrorCode.LICENSE_EXPIRED, "The licence has expired.", reason="license_expired")
    if reason is not None:
        raise ApiError(ErrorCode.CONFLICT, "The licence does not hold.", reason="not_active", details={"why": reason})


def why_not(chain: list[Any], at: datetime) -> Any:
    """Why the last licence of a chain does not hold; None if it does. `above`: it does, but one above it does not."""
    row = chain[-1]
    if row["status"] != "active":
        return row["status"]
    if at < row["starts_at"]:
        return "not_begun"
    if at >= row["ends_at"]:
        return "expired"
    return None if all(link["holds"] for link in chain) else "above"


def moment(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at)


async def shown(db: Any, rows: list[Any]) -> list[License]:
    """With what hangs on them: validity, code, the fee that waits."""
    ids = [row["id"] for row in rows]
    valid = await queries.valid_ids(db, ids, datetime.now(UTC))
    codes, unpaid = await queries.codes(db, ids), await queries.unpaid_periods(db, ids)
    given_on = await given_on_of(db, [row["id"] for row in rows if row["sublicensing"]])
    return [
        _license(row, row["id"] in valid, codes.get(row["id"]), unpaid.get(row["id"]), given_on.get(row["id"]))
        for row in rows
    ]


def _license(row: Any, valid: bool, code: str | None, period: Any, given_on: Any) -> License:
    def id_of(name: str) -> str | None:
        return None if row[name] is None else str(row[name])

    return License(
        id=str(row["id"]), work_id=str(row["work_id"]), parent_license_id=id_of("parent_license_id"),
        application_id=id_of("application_id"), terms_id=id_of("terms_id"), licensor_id=str(row["licensor_id"]),
        licensee_id=str(row["licensee_id"]), license_type=row["license_type"],
        revenue_share_bps=row["revenue_share_bps"], base_fee=decimal_text(row["fee_units"], row["scale"]),
        asset=row["asset"], territories=list(row["territories"]), scope=list(row["scope"]), duration=row["duration"],
        requirements=row["requirements"], restrictions=row["restrictions"], sublicensing=row["sublicensing"],
        given_on=given_on, seats=row["seats"], status=row["status"], valid=valid, starts_at=moment(row["starts_at"]),
        ends_at=moment(row["ends_at"]),
        fee_due=None if period is None else decimal_text(period["fee_units"], row["scale"]),
        pay_before=None if period is None else timestamp(period["pay_before"]), verification_code=code,
        reason=row["reason"], created_at=timestamp(row["created_at"]), version=row["version"],
    )  # fmt: skip
