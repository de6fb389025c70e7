"""Release windows: where and when a work can be seen or bought, and how. Availability is read from them.

    scheduled ──▶ open ──▶ closed        scheduled ──▶ cancelled

Of one type no two overlap in territory and time; an exclusive window stands alone among all types. Both are checked
under the lock of the work, and constraints of the database say so once more. The work's owner opens windows, and
whoever holds a valid licence to distribute it, within that licence; an exclusive window needs an exclusive licence, for
a licence that shuts nobody out gives no window that does. Whoever has given an exclusive licence to distribute, the
owner of a work or the holder of the licence above, opens no window within it: that is what was sold. Windows that
exclude each other stand in the order in which they came, whoever's they are, and nobody ends another's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import UNSET

from platform_api.envelope import Pagination, check_version, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.service import ExchangeService
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries, window_queries
from platform_api.licensing.due import tell_window, wake
from platform_api.licensing.grants import clash
from platform_api.licensing.measures import (
    TERRITORIES,
    TERRITORY_LIST,
    expanded,
    scope_set,
    territory_set,
    tidy,
)
from platform_api.licensing.window_models import (
    PAID_TYPES,
    BulkRequest,
    Opening,
    Window,
    WindowPatch,
    WindowRequest,
    WorkAvailability,
)
from platform_api.moments import checked_moment
from platform_api.money import decimal_text, units_of
from platform_api.security import Caller, check_may
from platform_api.works.service import WorkService

__all__ = ["Windows"]


class Windows:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._catalog = kernel.service(WorkService).catalog
        self._exchange = kernel.service(ExchangeService)

    async def list_of(
        self, visitor: Caller | None, work_id: UUID, cursor: str | None, limit: int
    ) -> tuple[list[Window], Pagination]:
        """Raises ApiError NOT_FOUND."""
        after = cursor_from(cursor, datetime, UUID)
        async with self._database.connection() as db:
            await self._catalog.visible(db, visitor, work_id)
            rows = await window_queries.windows(db, work_id, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["period"].lower, row["id"]))
        return [_window(row) for row in rows], pagination

    async def add(self, caller: Caller, body: WindowRequest) -> Window:
        """Raises ApiError NOT_FOUND, FORBIDDEN, VALIDATION_ERROR; CONFLICT `window_overlap`, `exclusivity_clash`."""
        territories = tidy(body.territories)
        _check_times(body.starts_at, body.ends_at)
        async with self._database.transaction() as db:
            await self._lock(db, caller, body.work_id, body.license_id)
            if body.license_id is not None:
                await self._check_right(
                    db, body.license_id, body.exclusive, territories, body.starts_at, body.ends_at
                )
            asset, scale, units = await self._price(db, body)
            opens = body.starts_at <= await db.fetchval("SELECT now()")
            fields = {
                "id": new_id(), "work_id": body.work_id, "account_id": UUID(caller.account_id),
                "license_id": body.license_id, "window_type": body.window_type, "territories": territories,
                "territory_list": TERRITORY_LIST, "territory_set": territory_set(territories), "price_units": units,
                "asset": asset, "scale": scale, "exclusive": body.exclusive, "status": "open" if opens else "scheduled",
            }  # fmt: skip
            try:
                times = body.starts_at, body.ends_at
                await self._check_free(db, body.work_id, body.exclusive, territories, *times, None)
                await self._check_not_sold(db, body.work_id, body.license_id, territories, *times)
                row = await window_queries.insert_window(db, fields, body.starts_at, body.ends_at)
            except asyncpg.ExclusionViolationError as error:
                raise _overlap() from error
            await self._changed(db, caller, "window.created", None, row)
        return _window(row)

    async def change(self, caller: Caller, window_id: UUID, body: WindowPatch, if_match: str | None) -> Window:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR; CONFLICT `window_overlap`, `exclusivity_clash`, `window_over`,
        `window_open`."""
        async with self._database.transaction() as db:
            row = await self._lock_own(db, caller, window_id)
            check_may(caller, "edit_own" if row["license_id"] is None else "manage_windows")
            check_version(if_match, row["version"])
            _check_open(row)
            if row["status"] == "open" and any(
                value is not UNSET for value in (body.territories, body.starts_at, body.exclusive)
            ):
                message = "It is open: only its end and its price can change."
                raise ApiError(ErrorCode.CONFLICT, message, reason="window_open")
            starts_at = row["period"].lower if body.starts_at is UNSET else body.starts_at
            ends_at = row["period"].upper if body.ends_at is UNSET else body.ends_at
            _check_times(starts_at, ends_at)
            territories = list(row["territories"]) if body.territories is UNSET else tidy(body.territories)
            exclusive = row["exclusive"] if body.exclusive is UNSET else body.exclusive
            fields: dict[str, Any] = {
                "territories": territories, "territory_list": TERRITORY_LIST,
                "territory_set": territory_set(territories), "exclusive": exclusive,
            }  # fmt: skip
            if body.price is not UNSET:
                if row["asset"] is None:
                    raise _wrong("price", "it was opened without one", "no_price")
                fields["price_units"] = units_of(body.price, row["scale"], least=0)
            if row["license_id"] is not None:
                await self._check_right(db, row["license_id"], exclusive, territories, starts_at, ends_at)
            try:
                await self._check_free(db, row["work_id"], exclusive, territories, starts_at, ends_at, window_id)
                if _takes_more(row, exclusive, territories, starts_at, ends_at):  # it may be older than the licence
                    await self._check_not_sold(
                        db, row["work_id"], row["license_id"], territories, starts_at, ends_at
                    )  # fmt: skip
                changed = await window_queries.update_window(db, window_id, fields, starts_at, ends_at)
            except asyncpg.ExclusionViolationError as error:
                raise _overlap() from error
            for moment in (starts_at, ends_at):
                if moment is not None:
                    await wake(self._kernel, db, moment)
            await self._audit(db, caller, "window.changed", row, changed)
        return _window(changed)

    async def end(self, caller: Caller, window_id: UUID) -> Window:
        """A planned window is cancelled, an open one closes now. Raises ApiError NOT_FOUND; CONFLICT `window_over`."""
        async with self._database.transaction() as db:
            row = await self._lock_own(db, caller, window_id)
            _check_open(row)
            ended = await window_queries.end_window(db, window_id)
            await tell_window(self._kernel, db, ended, UUID(caller.account_id))
            await self._audit(db, caller, "window.ended", row, ended)
        return _window(ended)

    async def availability(
        self, visitor: Caller | None, work_id: UUID, territory: str | None, at: datetime | None
    ) -> WorkAvailability:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR `missing`, `unknown_territory`, `bad_moment`."""
        async with self._database.connection() as db:
            work, _ = await self._catalog.visible(db, visitor, work_id)
            if territory is None:
                raise _wrong("territory", "which one?", "missing")
            _check_territory(territory)
            shown = {work_id} if work["status"] == "published" else set()
            (found,) = await self._available(db, [work_id], shown, territory, at)
        return found

    async def bulk(self, body: BulkRequest) -> list[WorkAvailability]:
        """In the order asked; a work that is not public, or none at all, is not available. Raises ApiError."""
        _check_territory(body.territory)
        async with self._database.connection() as db:
            shown = await self._catalog.published(db, body.work_ids)
            return await self._available(db, body.work_ids, shown, body.territory, body.at)

    async def _available(
        self, db: Any, work_ids: list[UUID], shown: set[UUID], territory: str, at: datetime | None
    ) -> list[WorkAvailability]:
        at = datetime.now(UTC) if at is None else checked_moment(at, "at")
        asked = list(shown)
        found: dict[UUID, list[Opening]] = {}
        rows, planned = await window_queries.openings(db, asked, territory_set([territory]), at)
        for row in rows:
            found.setdefault(row["work_id"], []).append(_opening(row))
        return [
            WorkAvailability(
                str(work_id), territory, timestamp(at), work_id in found, found.get(work_id, []),
                timestamp(planned[work_id]) if work_id in planned else None,
            )
            for work_id in work_ids
        ]  # fmt: skip

    async def _lock(self, db: Any, caller: Caller, work_id: UUID, license_id: UUID | None) -> None:
        """The work's owner; else the holder of the licence that is named."""
        if license_id is None:
            await self._catalog.lock_own(db, caller, work_id)
            check_may(caller, "edit_own")
            return
        license_ = await queries.license_row(db, license_id)
        if license_ is None or str(license_["licensee_id"]) != caller.account_id or license_["work_id"] != work_id:
            raise unknown("license")
        check_may(caller, "manage_windows")
        await self._catalog.lock_known(db, work_id)

    async def _lock_own(self, db: Any, caller: Caller, window_id: UUID) -> Any:
        row = await window_queries.window(db, window_id)
        if row is None or str(row["account_id"]) != caller.account_id:
            raise unknown("window")
        await self._catalog.lock_known(db, row["work_id"])
        return await window_queries.window(db, window_id)  # as it is under the lock

    @staticmethod
    async def _check_right(
        db: Any, license_id: UUID, exclusive: bool, territories: list[str], starts_at: datetime,
        ends_at: datetime | None,
    ) -> None:  # fmt: skip
        """The licence, and all above it, cover the window."""
        chain = await queries.chain(db, license_id, datetime.now(UTC))
        own = chain[-1]
        if any(row["status"] != "active" for row in chain):
            expired = own["status"] == "expired"
            code = ErrorCode.LICENSE_EXPIRED if expired else ErrorCode.FORBIDDEN
            raise ApiError(code, "The licence does not hold.", reason="license_not_valid")
        if "distribute" not in own["scope"]:
            raise _wrong("license_id", "it is no licence to distribute", "beyond_license")
        if not expanded(territories) <= expanded(own["territories"]):
            raise _wrong("territories", "some are not of the licence", "beyond_license")
        if exclusive and own["license_type"] != "exclusive":  # if it is, all above it are (grants.py)
            raise _wrong("exclusive", "only an exclusive licence shuts others out", "beyond_license")
        if starts_at < own["starts_at"] or ends_at is None or ends_at > own["ends_at"]:
            raise _wrong("ends_at", "the window must be within the licence's time", "beyond_license")

    @staticmethod
    async def _check_free(
        db: Any, work_id: UUID, exclusive: bool, territories: list[str], starts_at: datetime, ends_at: datetime | None,
        own: UUID | None,
    ) -> None:  # fmt: skip
        sets = territory_set(territories)
        if await window_queries.in_the_way(db, work_id, exclusive, sets, starts_at, ends_at, own):
            raise _overlap()

    @staticmethod
    async def _check_not_sold(
        db: Any, work_id: UUID, license_id: UUID | None, territories: list[str], starts_at: datetime,
        ends_at: datetime | None,
    ) -> None:  # fmt: skip
        """No exclusive licence to distribute stands there of those given by whoever opens the window; under the lock of
        the work, as licences are given."""
        sets = scope_set(["distribute"]), territory_set(territories)
        found = await queries.in_the_way(db, license_id or work_id, False, *sets, starts_at, ends_at, None)
        if found is not None:
            raise clash("exclusive", found["unpaid_until"], found["license_id"])

    async def _price(self, db: Any, body: WindowRequest) -> tuple[str | None, int | None, int | None]:
        if body.price is None:
            if body.window_type in PAID_TYPES:
                raise _wrong("price", f"{body.window_type} needs one", "missing")
            return None, None, None
        scale = await self._exchange.asset_scale(db, body.asset)
        if scale is None:
            raise _wrong("asset", f"the exchange lists no {body.asset}", "unknown_asset")
        return body.asset, scale, units_of(body.price, scale, least=0)

    async def _changed(self, db: Any, caller: Caller, action: str, old: Any, row: Any) -> None:
        await tell_window(self._kernel, db, row, UUID(caller.account_id))
        for moment in (row["period"].lower if row["status"] == "scheduled" else None, row["period"].upper):
            if moment is not None:
                await wake(self._kernel, db, moment)
        await self._audit(db, caller, action, old, row)

    async def _audit(self, db: Any, caller: Caller, action: str, old: Any, new: Any) -> None:
        facts = [None if row is None else _facts(row) for row in (old, new)]
        await self._kernel.audit.record(
            db, action, ("window", str(new["id"])), actor=caller.account_id, old=facts[0], new=facts[1] or {}
        )


def _check_times(starts_at: datetime, ends_at: datetime | None) -> None:
    checked_moment(starts_at, "starts_at")
    if ends_at is not None:
        checked_moment(ends_at, "ends_at")
    if ends_at is not None and ends_at <= starts_at:
        raise _wrong("ends_at", "must be after starts_at", "bad_period")


def _takes_more(
    row: Any, exclusive: bool, territories: list[str], starts_at: datetime, ends_at: datetime | None
) -> bool:  # fmt: skip
    """Whether a change gives a window what it had not: a place, a time, or that it stands alone."""
    end = row["period"].upper
    longer = end is not None and (ends_at is None or ends_at > end)
    wider = not expanded(territories) <= expanded(row["territories"])
    return wider or longer or starts_at < row["period"].lower or (exclusive and not row["exclusive"])


def _check_open(row: Any) -> None:
    if row["status"] not in ("scheduled", "open"):
        raise ApiError(ErrorCode.CONFLICT, f"The window is {row['status']}.", reason="window_over")


def _check_territory(territory: str) -> None:
    if territory not in TERRITORIES:
        raise _wrong("territory", f"{territory} is no code of {TERRITORY_LIST}", "unknown_territory")


def _overlap() -> ApiError:
    message = "Another window stands there at that time: of the same type, or one of the two is exclusive."
    return ApiError(ErrorCode.CONFLICT, message, reason="window_overlap")


def _wrong(field: str, text: str, reason: str) -> ApiError:
    return ApiError(ErrorCode.VALIDATION_ERROR, f"{field}: {text}", reason=reason, field=field)


def _facts(row: Any) -> dict[str, Any]:
    shown = _window(row)
    return {name: getattr(shown, name) for name in ("territories", "starts_at", "ends_at", "price", "status")}


def _price_text(row: Any) -> str | None:
    return None if row["asset"] is None else decimal_text(row["price_units"], row["scale"])


def _window(row: Any) -> Window:
    ends_at = row["period"].upper
    return Window(
        str(row["id"]), str(row["work_id"]), row["window_type"], list(row["territories"]),
        timestamp(row["period"].lower), timestamp(ends_at) if ends_at else None, _price_text(row), row["asset"],
        row["exclusive"], row["status"], row["version"],
    )  # fmt: skip


def _opening(row: Any) -> Opening:
    ends_at = row["period"].upper
    return Opening(
        str(row["id"]), row["window_type"], timestamp(ends_at) if ends_at else None, _price_text(row), row["asset"],
        row["exclusive"],
    )  # fmt: skip
