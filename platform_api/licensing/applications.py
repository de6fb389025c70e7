"""Applications for a licence under the terms of a work.

    pending ──▶ approved (a licence is reserved) | rejected | withdrawn        terms with auto_approve: approved at once

An application keeps the terms of its day, and is decided under them. Its licensor decides, or somebody of the platform;
never the applicant. Whoever approves, the licence goes through the one gate of `grants.py`; where it does not pass, an
application stays pending, and one that would approve itself is not made. An exclusive licence that approves itself is
paid with the application.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer, required_key
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries
from platform_api.licensing.fees import Fees
from platform_api.licensing.grants import Grant, Grants, check_left
from platform_api.licensing.measures import expanded, tidy
from platform_api.licensing.models import Application, ApplicationRequest, LicenseTerms
from platform_api.licensing.terms import terms_of
from platform_api.moments import checked_moment
from platform_api.money import units_of
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["Applications"]


class Applications:
    def __init__(self, kernel: Kernel, grants: Grants, fees: Fees) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._grants, self._fees = grants, fees
        self._catalog = kernel.service(WorkService).catalog

    async def apply(self, caller: Caller, body: ApplicationRequest, key: str | None) -> Application:
        """Raises ApiError.

        VALIDATION_ERROR `unknown_terms`, `beyond_terms`; FORBIDDEN `own_work`; CONFLICT `application_pending`,
        `none_left`, `license_unpaid`, `not_editable`, `exclusivity_clash`; PAYMENT_FAILED with the core's reason, and
        the licence has ended.
        """
        key = required_key(key)

        async def change(db: Any) -> Answer:
            found = await queries.terms(db, body.terms_id)
            if found is None:
                raise _wrong_terms()
            await self._visible_and_locked(db, caller, found["work_id"])
            terms = await queries.terms(db, body.terms_id)  # as they are under the lock
            if not terms["active"]:
                raise _wrong_terms()
            if str(terms["licensor_id"]) == caller.account_id:
                raise ApiError(ErrorCode.FORBIDDEN, "The work is the caller's own.", reason="own_work")
            territories = list(terms["territories"]) if body.territories is None else tidy(body.territories)
            if not expanded(territories) <= expanded(terms["territories"]):
                message = "territories: some are not of the terms"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="beyond_terms", field="territories")
            if body.starts_at is not None:
                checked_moment(body.starts_at, "starts_at")
            await check_left(db, terms["id"], terms_of(terms))
            if terms["auto_approve"] and await queries.unpaid_under(db, terms["id"], UUID(caller.account_id)):
                message = "A licence under these terms waits for its fee: pay it, or let it lapse."
                raise ApiError(ErrorCode.CONFLICT, message, reason="license_unpaid")
            fields = {
                "id": new_id(), "work_id": terms["work_id"], "terms_id": terms["id"],
                "terms_version": terms["version"], "terms": msgspec.json.encode(terms_of(terms)).decode(),
                "licensor_id": terms["licensor_id"], "applicant_id": UUID(caller.account_id),
                "territories": territories, "starts_at": body.starts_at, "purpose": body.purpose, "status": "pending",
            }  # fmt: skip
            try:
                await queries.insert_application(db, fields)
            except asyncpg.UniqueViolationError as error:
                message = "An application under these terms is pending."
                raise ApiError(ErrorCode.CONFLICT, message, reason="application_pending") from error
            row = await queries.application(db, fields["id"])
            await self._tell(db, "license.applied", row, UUID(caller.account_id))
            ref = None
            if terms["auto_approve"]:
                row = await self._approve(db, row, None, "")
                if terms["license_type"] == "exclusive" and terms["fee_units"]:
                    ref = await self._fees.take(db, caller, row["license_id"])
            return 201, msgspec.json.encode((_application(row), ref))

        route = "POST /v1/license-applications"
        answer, _ = await self._kernel.idempotency.once(caller.account_id, route, key, body, change)
        made, ref = msgspec.json.decode(answer[1], type=tuple[Application, str | None])
        if ref is not None:
            await self._fees.settle(ref, UUID(made.license_id))
        return made

    async def list_of(
        self, caller: Caller, party: str, status: str | None, cursor: str | None, limit: int
    ) -> tuple[list[Application], Pagination]:
        """`party`: applicant or licensor, which the caller is."""
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.applications(db, party, UUID(caller.account_id), status, before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_application(row) for row in rows], pagination

    async def pending(self, cursor: str | None, limit: int) -> tuple[list[Application], Pagination]:
        """All that wait, the oldest first."""
        (after,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.pending_applications(db, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_application(row) for row in rows], pagination

    async def read(self, caller: Caller, application_id: UUID) -> Application:
        """Raises ApiError NOT_FOUND for anybody but its two parties."""
        async with self._database.connection() as db:
            row = await queries.application(db, application_id)
        if row is None or caller.account_id not in (str(row["applicant_id"]), str(row["licensor_id"])):
            raise unknown("application")
        return _application(row)

    async def approve(
        self, caller: Caller, application_id: UUID, key: str | None, *, staff: bool = False
    ) -> Application:
        """Raises ApiError NOT_FOUND; CONFLICT `not_pending`, `none_left`, `not_editable`, `exclusivity_clash`."""
        await self._check_known(caller, application_id, "licensor", staff)
        key = required_key(key)

        async def change(db: Any) -> Answer:
            row = await self._lock(db, caller, application_id, "licensor", staff)
            row = await self._approve(db, row, UUID(caller.account_id), "")
            return 200, msgspec.json.encode(_application(row))

        route = "POST /v1/license-applications/approve"
        return await self._once(caller, route, key, str(application_id), change)

    async def reject(self, caller: Caller, application_id: UUID, reason: str, *, staff: bool = False) -> Application:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR `missing`; CONFLICT `not_pending`."""
        await self._check_known(caller, application_id, "licensor", staff)
        if not reason.strip():
            message = "reason: a rejection needs one"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="reason")
        return await self._close(caller, application_id, "licensor", "rejected", reason, staff)

    async def withdraw(self, caller: Caller, application_id: UUID) -> Application:
        """By its applicant. Raises ApiError NOT_FOUND; CONFLICT `not_pending`."""
        return await self._close(caller, application_id, "applicant", "withdrawn", "", False)

    async def _close(
        self, caller: Caller, application_id: UUID, party: str, status: str, reason: str, staff: bool
    ) -> Application:
        actor = UUID(caller.account_id)
        async with self._database.transaction() as db:
            row = await self._lock(db, caller, application_id, party, staff)
            await queries.decide_application(db, application_id, status, actor, reason)
            await self._audit(db, row, actor, status, reason)
            row = await queries.application(db, application_id)
            if status == "rejected":
                await self._tell(db, "license.rejected", row, actor)
        return _application(row)

    async def _approve(self, db: Any, row: Any, actor: UUID | None, reason: str) -> Any:
        """Under the work's lock. `actor` None: the terms approve by themselves."""
        terms = msgspec.json.decode(row["terms"], type=LicenseTerms)
        await check_left(db, row["terms_id"], terms)
        scale = (await queries.terms(db, row["terms_id"]))["scale"]
        await queries.decide_application(db, row["id"], "approved", actor, reason)
        grant = Grant(
            work_id=row["work_id"], licensor_id=row["licensor_id"], licensee_id=row["applicant_id"],
            license_type=terms.license_type, revenue_share_bps=terms.revenue_share_bps, asset=terms.asset, scale=scale,
            fee_units=units_of(terms.base_fee, scale, least=0), territories=list(row["territories"]),
            scope=list(terms.scope), duration=terms.duration, requirements=terms.requirements,
            restrictions=terms.restrictions, sublicensing=terms.sublicensing, seats=terms.seats,
            starts_at=row["starts_at"], application_id=row["id"], terms_id=row["terms_id"],
            terms_version=row["terms_version"], decided=actor is not None,
        )  # fmt: skip
        await self._grants.reserve(db, grant, actor or row["applicant_id"])
        await self._audit(db, row, actor, "approved", reason)
        row = await queries.application(db, row["id"])
        await self._tell(db, "license.approved", row, actor)
        return row

    async def _visible_and_locked(self, db: Any, caller: Caller, work_id: UUID) -> None:
        """Terms of a work that is not public are none, whoever asks."""
        try:
            await self._catalog.visible(db, caller, work_id)
            work = await self._catalog.lock_known(db, work_id)
        except ApiError as error:
            raise _wrong_terms() from error
        if work["status"] != "published":
            raise _wrong_terms()

    async def _check_known(self, caller: Caller, application_id: UUID, party: str, staff: bool) -> None:
        async with self._database.connection() as db:
            _check_party(await queries.application(db, application_id), caller, party, staff)

    async def _lock(self, db: Any, caller: Caller, application_id: UUID, party: str, staff: bool) -> Any:
        row = await queries.application(db, application_id)
        _check_party(row, caller, party, staff)
        await self._catalog.lock_known(db, row["work_id"])
        row = await queries.application(db, application_id)  # as it is under the lock
        if row["status"] != "pending":
            message = f"The application is {row['status']}."
            raise ApiError(ErrorCode.CONFLICT, message, reason="not_pending", details={"status": row["status"]})
        return row

    async def _once(self, caller: Caller, route: str, key: str, body: Any, change: Any) -> Application:
        answer, _ = await self._kernel.idempotency.once(caller.account_id, route, key, body, change)
        return msgspec.json.decode(answer[1], type=Application)

    async def _tell(self, db: Any, type_: str, row: Any, actor: UUID | None) -> None:
        parties = [str(row["licensor_id"]), str(row["applicant_id"])]
        payload = {
            "work_id": str(row["work_id"]), "licensor_id": parties[0], "applicant_id": parties[1],
            "license_id": str(row["license_id"]) if row["license_id"] else None, "for_accounts": parties,
        }  # fmt: skip
        subject = ("license_application", str(row["id"]))
        await self._kernel.events.publish(db, type_, subject, payload, actor=actor, version=row["version"])

    async def _audit(self, db: Any, row: Any, actor: UUID | None, status: str, reason: str) -> None:
        await self._kernel.audit.record(
            db, f"license_application.{status}", ("license_application", str(row["id"])), actor=actor,
            old={"status": row["status"]}, new={"status": status, "reason": reason},
        )  # fmt: skip


def _check_party(row: Any, caller: Caller, party: str, staff: bool) -> None:
    """Its licensor, its applicant, or staff that is neither."""
    if row is None or (not staff and str(row[f"{party}_id"]) != caller.account_id):
        raise unknown("application")
    if staff and caller.account_id in (str(row["applicant_id"]), str(row["licensor_id"])):
        raise ApiError(ErrorCode.FORBIDDEN, "Nobody of the platform decides their own matters.", reason="own_account")


def _wrong_terms() -> ApiError:
    return ApiError(
        ErrorCode.VALIDATION_ERROR, "terms_id: there are no such terms", reason="unknown_terms", field="terms_id"
    )


def _moment(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at)


def _application(row: Any) -> Application:
    return Application(
        id=str(row["id"]), work_id=str(row["work_id"]), terms_id=str(row["terms_id"]),
        terms=msgspec.json.decode(row["terms"], type=LicenseTerms), applicant_id=str(row["applicant_id"]),
        licensor_id=str(row["licensor_id"]), territories=list(row["territories"]), starts_at=_moment(row["starts_at"]),
        purpose=row["purpose"], status=row["status"], reason=row["reason"],
        license_id=str(row["license_id"]) if row["license_id"] else None, created_at=timestamp(row["created_at"]),
        decided_at=_moment(row["decided_at"]), version=row["version"],
    )  # fmt: skip
