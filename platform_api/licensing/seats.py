"""Seats of an enterprise licence: never more than it has, also when many are given at once; they end with it.

A seat says who of the licensee's people the licence covers. It opens nothing here: chapters and files are for those who
bought the work.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.identity.service import IdentityService
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries
from platform_api.licensing.licenses import Licenses, check_party, check_valid
from platform_api.licensing.models import Seat
from platform_api.security import Caller

__all__ = ["Seats"]


class Seats:
    def __init__(self, kernel: Kernel, licenses: Licenses) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._licenses = licenses
        self._people = kernel.service(IdentityService).people

    async def list_of(
        self, caller: Caller, license_id: UUID, cursor: str | None, limit: int
    ) -> tuple[list[Seat], Pagination]:
        """For its licensee alone: the licensor has no business with people. Raises ApiError NOT_FOUND."""
        (after,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            check_party(await queries.license_row(db, license_id), caller, "licensee")
            rows = await queries.seats(db, license_id, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["account_id"],))
        return [_seat(row) for row in rows], pagination

    async def assign(self, caller: Caller, license_id: UUID, account_id: UUID) -> Seat:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR, LICENSE_EXPIRED; CONFLICT `no_seats`, `no_seat_left`, `seated`,
        `not_active`."""
        async with self._database.transaction() as db:
            row = await self._licenses.lock(db, caller, license_id, "licensee")
            await check_valid(db, row)
            if row["seats"] is None:
                raise ApiError(ErrorCode.CONFLICT, "The licence has no seats.", reason="no_seats")
            if not await self._people.is_known(db, account_id):
                message = f"account_id: there is no account {account_id}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_account", field="account_id")
            if await queries.seat_count(db, license_id) >= row["seats"]:
                raise ApiError(ErrorCode.CONFLICT, "All seats are taken.", reason="no_seat_left")
            seat = await queries.insert_seat(db, new_id(), license_id, account_id)
            if seat is None:
                raise ApiError(ErrorCode.CONFLICT, "The account has a seat.", reason="seated")
            await self._audit(db, "license.seat_assigned", license_id, caller, account_id)
        return _seat(seat)

    async def release(self, caller: Caller, license_id: UUID, account_id: UUID) -> None:
        """Raises ApiError NOT_FOUND."""
        async with self._database.transaction() as db:
            row = await queries.license_row(db, license_id)
            check_party(row, caller, "licensee")
            if not await queries.release_seat(db, license_id, account_id):
                raise unknown("seat")
            await self._audit(db, "license.seat_released", license_id, caller, account_id)

    async def _audit(self, db: Any, action: str, license_id: UUID, caller: Caller, account_id: UUID) -> None:
        await self._kernel.audit.record(
            db, action, ("license", str(license_id)), actor=caller.account_id, new={"account_id": str(account_id)}
        )


def _seat(row: Any) -> Seat:
    return Seat(str(row["account_id"]), timestamp(row["assigned_at"]))
