"""Seats of an enterprise licence: never more than it has, also when many are given at once; they end with it.

Who has a seat may use the whole work as who bought it does, chapters and files, as long as the seat is theirs and the
licence holds with all above it; that is asked at each request, so a suspension counts at once. The work stands in
their library. A seat is no purchase: nobody rates a work by it (docs/decisions/0053). A licence of another type has no
seats and opens nothing: what its licensee may do with the work is between the two parties.
"""

from __future__ import annotations

from datetime import UTC, datetime
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
from platform_api.payments.models import Access, Entitlement
from platform_api.payments.service import PaymentService
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["Seats"]


class Seats:
    def __init__(self, kernel: Kernel, licenses: Licenses) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._licenses = licenses
        self._people = kernel.service(IdentityService).people
        self._purchases = kernel.service(PaymentService).purchases
        self._purchases.shelves.append(self.shelf)
        kernel.service(WorkService).catalog.rights.append(self.entitled)

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
            await self._note(db, "license.seat_assigned", row, caller, account_id)
        return _seat(seat)

    async def release(self, caller: Caller, license_id: UUID, account_id: UUID) -> None:
        """Raises ApiError NOT_FOUND."""
        async with self._database.transaction() as db:
            row = await queries.license_row(db, license_id)
            check_party(row, caller, "licensee")
            if not await queries.release_seat(db, license_id, account_id):
                raise unknown("seat")
            await self._note(db, "license.seat_released", row, caller, account_id)

    async def entitled(
        self, db: Any, caller: Caller, work_id: UUID, chapter_id: UUID | None, since: datetime | None
    ) -> bool:
        """Whether a seat of the caller opens the work now and `since` then; every chapter is part of it."""
        return await queries.seat_opens(db, UUID(caller.account_id), work_id, since)

    async def shelf(self, db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Entitlement]:
        """For the account's library."""
        return [
            Entitlement(
                str(row["id"]), str(row["work_id"]), None, "seat", timestamp(row["assigned_at"]),
                timestamp(row["ends_at"]), None, str(row["license_id"]),
            )
            for row in await queries.seats_of_account(db, account_id, before, limit)
        ]  # fmt: skip

    async def access(self, caller: Caller, license_id: UUID, chapter_id: UUID | None) -> Access:
        """Signed URLs of what the caller's seat opens. Raises ApiError NOT_FOUND, also for who never had one and is no
        party of the licence; FORBIDDEN `no_seats`, `no_seat` for a party; LICENSE_EXPIRED `access_ended`."""
        async with self._database.connection() as db:
            seat = await queries.last_seat(db, license_id, UUID(caller.account_id))
            row = await queries.license_row(db, license_id)
            if seat is None:
                check_party(row, caller, "licensee", "licensor")
                raise _no_seat(row)
            holds = await queries.valid_ids(db, [license_id], datetime.now(UTC))
            if seat["released_at"] is not None or not holds:
                raise ApiError(ErrorCode.LICENSE_EXPIRED, "The access has ended.", reason="access_ended")
            return await self._purchases.opened(db, row["work_id"], chapter_id, seat["assigned_at"], row["ends_at"])

    async def _note(self, db: Any, event: str, row: Any, caller: Caller, account_id: UUID) -> None:
        """Who it is told to is the one whose seat it is."""
        subject = ("license", str(row["id"]))
        payload = {"work_id": str(row["work_id"]), "for_accounts": [str(account_id)]}
        await self._kernel.events.publish(db, event, subject, payload, actor=caller.account_id)
        await self._kernel.audit.record(
            db, event, subject, actor=caller.account_id, new={"account_id": str(account_id)}
        )


def _no_seat(row: Any) -> ApiError:
    if row["seats"] is None:
        message = (
            f"The licence is {row['license_type']} and has no seats: it gives the rights that it names, and opens no"
            " files. Buy the work to read it here, or ask the licensor for it."
        )
        return ApiError(ErrorCode.FORBIDDEN, message, reason="no_seats")
    message = "A seat opens the files, and you have none: the licensee gives them, also to themselves."
    return ApiError(ErrorCode.FORBIDDEN, message, reason="no_seat")


def _seat(row: Any) -> Seat:
    return Seat(str(row["account_id"]), timestamp(row["assigned_at"]))
