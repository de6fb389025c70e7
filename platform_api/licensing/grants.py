"""The one gate to a licence: what is reserved, begun, renewed and ended, always under the lock of the work.

    pending_payment ──paid──▶ active ──▶ expired        every end releases what was reserved, and seats and windows
           │                  ▲ │ ▲                     with it; a revocation goes down the whole chain
           ▼                  └─┘ └──▶ suspended        (a renewal's period; by staff, and back)
    expired (not paid in time), revoked

A work is sold when a licence on it begins. As long as one is reserved, or its fee is under way, the work is not
deleted; one that lapses leaves it as it was. A work that was made under a licence owes the licensed one its share as
long as it is sold, also after the end (`derivatives`).

Exclusivity is asked for here and nowhere else, whether somebody decided or an application approves itself. Licences of
one *level* (below the work, or below the same licence) are compared; docs/decisions/0032 says why that is enough. One
that approved itself is in nobody's way until it is paid, and yields to what came before its fee (docs/decisions/0047).
Nothing is given below a licence in a period for which those who are paid for the work have not agreed to that (0061).
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries, window_queries
from platform_api.licensing.due import tell_window, wake
from platform_api.licensing.measures import TERRITORY_LIST, expanded, scope_set, territory_set
from platform_api.licensing.models import LicenseTerms
from platform_api.royalties.service import RoyaltyService
from platform_api.works.catalog import check_open
from platform_api.works.service import WorkService

__all__ = ["ABOVE", "DEPTH_MAX", "PAY_TIME", "Grant", "Grants", "check_left", "new_code"]

PAY_TIME = timedelta(days=7)
UNDECIDED_PAY_TIME = timedelta(hours=1)
"""Of a licence that approved itself."""
DEPTH_MAX = 16
ABOVE = "A licence above it was revoked."
NOT_PAID = "It was not paid in time."


@dataclass(frozen=True, slots=True)
class Grant:
    """A licence that is to be. `parent`: the row of the licence it is given under. `starts_at` None: at once."""

    work_id: UUID
    licensor_id: UUID
    licensee_id: UUID
    license_type: str
    revenue_share_bps: int
    asset: str
    scale: int
    fee_units: int
    territories: list[str]
    scope: list[str]
    duration: str
    requirements: str
    restrictions: str
    sublicensing: bool
    seats: int | None
    starts_at: datetime | None = None
    parent: Any = None
    application_id: UUID | None = None
    terms_id: UUID | None = None
    terms_version: int | None = None
    decided: bool = True
    """By somebody who chose to wait for the fee; else the application approved itself."""


class Grants:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._catalog = kernel.service(WorkService).catalog
        self._shares = kernel.service(RoyaltyService).licence_shares
        self._catalog.being_paid.append(queries.is_reserved)

    async def reserve(self, db: Any, grant: Grant, actor: UUID) -> UUID:
        """A licence that waits for its fee, or is active if there is none. The caller holds the work's lock.

        Raises:
            ApiError: CONFLICT `not_editable`, `exclusivity_clash`, `chain_too_deep`, `sublicensing_not_agreed`;
                VALIDATION_ERROR `beyond_parent`.
        """
        check_open(await self._catalog.lock_known(db, grant.work_id))
        now = await _now(db)
        base = max(now, grant.starts_at) if grant.starts_at else now
        pay_before = now + (PAY_TIME if grant.decided else UNDECIDED_PAY_TIME) if grant.fee_units else now
        span = await queries.span(db, base, pay_before, grant.duration)
        until = span["most"] if grant.fee_units else span["least"]
        if grant.parent is not None:
            _check_within(grant, span["least"])
            until = min(until, grant.parent["ends_at"])
            pay_before = min(pay_before, until)
            await self._check_given_on(db, grant.parent["id"], base, until)
        license_id = new_id()
        parent_id = grant.parent["id"] if grant.parent is not None else None
        level = parent_id or grant.work_id
        exclusive = grant.license_type == "exclusive"
        fields = {
            "id": license_id, "work_id": grant.work_id, "level": level, "parent_license_id": parent_id,
            "depth": grant.parent["depth"] + 1 if grant.parent is not None else 1,
            "application_id": grant.application_id, "terms_id": grant.terms_id, "terms_version": grant.terms_version,
            "licensor_id": grant.licensor_id, "licensee_id": grant.licensee_id, "license_type": grant.license_type,
            "revenue_share_bps": grant.revenue_share_bps, "asset": grant.asset, "scale": grant.scale,
            "fee_units": grant.fee_units, "territories": grant.territories, "territory_list": TERRITORY_LIST,
            "territory_set": territory_set(grant.territories), "scope": grant.scope,
            "scope_set": scope_set(grant.scope), "duration": grant.duration, "requirements": grant.requirements,
            "restrictions": grant.restrictions, "sublicensing": grant.sublicensing, "seats": grant.seats,
            "status": "pending_payment",
        }  # fmt: skip
        await self._check_free(db, level, exclusive, fields, base, until, None, actor)
        await queries.insert_license(db, fields)
        yields = bool(grant.fee_units) and not (grant.decided or exclusive)
        await self._reserve_period(db, fields, base, until, pay_before, yields, actor)
        if not grant.fee_units:
            await self.begin(db, license_id, actor)
        return license_id

    async def renew(self, db: Any, row: Any, actor: UUID) -> None:
        """Reserves the period that follows the present one; a free one is the licence's at once.

        Raises:
            ApiError: CONFLICT `not_editable`, `exclusivity_clash`, `renewal_pending`, `already_renewed`,
                `sublicensing_not_agreed`; VALIDATION_ERROR.
        """
        check_open(await self._catalog.lock_known(db, row["work_id"]))
        if await queries.unpaid_period(db, row["id"]) is not None:
            raise ApiError(ErrorCode.CONFLICT, "A renewal waits for its fee.", reason="renewal_pending")
        now, exclusive = await _now(db), row["license_type"] == "exclusive"
        base = row["ends_at"]
        until = (await queries.span(db, base, base, row["duration"]))["least"]
        if base > (await queries.span(db, now, now, row["duration"]))["least"]:
            raise ApiError(ErrorCode.CONFLICT, "The next period is the licence's already.", reason="already_renewed")
        if row["parent_license_id"] is not None:
            parent = await queries.license_row(db, row["parent_license_id"])
            if until > parent["ends_at"]:
                raise _beyond("duration", "the period ends after that of the licence above")
            await self._check_given_on(db, parent["id"], base, until)
        await self._check_free(db, row["level"], exclusive, row, base, until, row["id"], actor)
        await self._reserve_period(db, row, base, until, min(now + PAY_TIME, base), False, actor)
        if not row["fee_units"]:
            await self.begin(db, row["id"], actor)

    async def check_payable(self, db: Any, row: Any, period: Any, actor: UUID) -> None:
        """Whether the work may be licensed now and, of a licence that yields, whether neither an exclusive licence nor
        the last of its terms' `max_licenses` came before its fee. Raises ApiError CONFLICT."""
        check_open(await self._catalog.lock_known(db, row["work_id"]))
        if period["yields"]:
            application = await queries.application(db, row["application_id"])
            await check_left(db, row["terms_id"], msgspec.json.decode(application["terms"], type=LicenseTerms))
            until = period["reserved"].upper
            await self._check_free(db, row["level"], False, row, period["base_at"], until, row["id"], actor)

    async def begin(self, db: Any, license_id: UUID, actor: UUID | None) -> None:
        """The reserved period begins: its fee is paid, or there is none. The caller holds the work's lock."""
        row = await queries.lock_license(db, license_id)
        period = await queries.unpaid_period(db, license_id)
        starts = max(await _now(db), period["base_at"])
        ends = min((await queries.span(db, starts, starts, row["duration"]))["least"], period["reserved"].upper)
        await queries.begin_period(db, period["id"], starts, ends)
        await queries.begin_license(db, license_id, starts, ends)
        first = period["number"] == 1
        if first:
            await self._catalog.mark_sold(db, row["work_id"])
            await queries.insert_node(db, new_id(), license_id, new_code())
        await queries.note_event(db, license_id, "activated" if first else "renewed", ends)
        row = await queries.license_row(db, license_id)
        await self.tell(db, "license.activated" if first else "license.renewed", row, actor,
                        fee_id=str(period["id"]), fee_units=str(period["fee_units"]))  # fmt: skip
        await wake(self._kernel, db, ends)

    async def revoke(self, db: Any, row: Any, reason: str, actor: UUID) -> None:
        """The licence and every one below it. The caller holds the work's lock."""
        for one in await queries.below(db, row["id"]):
            own = one["id"] == row["id"]
            await self._end(db, one, "revoked", reason if own else ABOVE, actor)
            await self._kernel.audit.record(
                db, "license.revoked", ("license", str(one["id"])), actor=actor, old={"status": one["status"]},
                new={"status": "revoked", "reason": reason if own else ABOVE, "with": str(row["id"])},
            )  # fmt: skip

    async def suspend(self, db: Any, row: Any, reason: str, actor: UUID) -> None:
        """It does not hold until it is resumed, nor any below it; its time goes on. Under the work's lock, as all."""
        await self._turn(db, row, "suspended", "suspended", reason, actor)

    async def resume(self, db: Any, row: Any, actor: UUID) -> None:
        """It holds again as long as it would have."""
        await self._turn(db, row, "active", "resumed", "", actor)

    async def lapse(self, db: Any, period_id: UUID, license_id: UUID) -> None:
        """Nobody paid. A licence whose first fee it was is at its end; one that was to be renewed goes on as it was."""
        row = await queries.lock_license(db, license_id)
        if row["status"] == "pending_payment":
            await self._end(db, row, "expired", NOT_PAID, None)
        else:
            await queries.release_period(db, period_id)
            await self._shares.end_given_on(db, [period_id])

    async def expire(self, db: Any, row: Any) -> None:
        """Its time is over."""
        await self._end(db, row, "expired", "", None)

    async def tell(self, db: Any, type_: str, row: Any, actor: UUID | None, **more: str | None) -> None:
        parties = [str(row["licensor_id"]), str(row["licensee_id"])]
        payload = {
            "work_id": str(row["work_id"]), "licensor_id": parties[0], "licensee_id": parties[1],
            "license_type": row["license_type"], "for_accounts": parties, **more,
        }  # fmt: skip
        subject = ("license", str(row["id"]))
        await self._kernel.events.publish(db, type_, subject, payload, actor=actor, version=row["version"])

    async def _turn(self, db: Any, row: Any, status: str, word: str, reason: str, actor: UUID) -> None:
        changed = await queries.suspend_license(db, row["id"], status, reason)
        await queries.note_event(db, row["id"], word, changed["ends_at"])
        await self._kernel.audit.record(
            db, f"license.{word}", ("license", str(row["id"])), actor=actor, old={"status": row["status"]},
            new={"status": status, "reason": reason},
        )  # fmt: skip
        await self.tell(db, f"license.{word}", changed, actor)

    async def _end(self, db: Any, row: Any, status: str, reason: str, actor: UUID | None) -> None:
        had_begun = row["starts_at"] is not None
        await queries.end_license(db, row["id"], status, reason)
        ended = await queries.end_periods(db, row["id"], "over" if status == "expired" and had_begun else "released")
        await self._shares.end_given_on(db, ended)
        await queries.release_seats(db, row["id"])
        for window in await window_queries.end_of_license(db, row["id"]):
            await tell_window(self._kernel, db, window, actor)
        row = await queries.license_row(db, row["id"])
        if had_begun:
            await queries.note_event(db, row["id"], status, row["ends_at"])
        await self.tell(db, f"license.{status}", row, actor)
        if status == "revoked" and await queries.revoke_node(db, row["id"]):
            await self.tell(db, "authorization.revoked", row, actor)

    async def _check_free(
        self, db: Any, level: UUID, exclusive: bool, fields: Any, base: datetime, until: datetime, own: UUID | None,
        actor: UUID,
    ) -> None:  # fmt: skip
        for lapsed in await queries.lapsed_of_level(db, level):
            await self.lapse(db, lapsed["id"], lapsed["license_id"])
        sets = scope_set(fields["scope"]), territory_set(fields["territories"])
        found = await queries.in_the_way(db, level, exclusive, *sets, base, until, own)
        if found is not None:
            shown = found["license_id"] if actor == fields["licensor_id"] else None
            raise clash("exclusive" if found["exclusive"] else "other", found["unpaid_until"], shown)

    async def _check_given_on(self, db: Any, parent_id: UUID, base: datetime, until: datetime) -> None:
        await self._shares.check_given_on(db, await queries.periods_meeting(db, parent_id, base, until))

    async def _reserve_period(
        self, db: Any, row: Any, base: datetime, until: datetime, pay_before: datetime, yields: bool, actor: UUID
    ) -> None:
        """`row`: of the licence, or its fields."""
        period_id, exclusive = new_id(), row["license_type"] == "exclusive"
        try:
            await queries.insert_period(db, period_id, row["id"], exclusive, base, until, pay_before, yields)
        except asyncpg.ExclusionViolationError as error:  # the lock comes first: the database has the last word
            raise clash("exclusive") from error
        if row["sublicensing"]:
            await self._shares.give_on(db, row["work_id"], row["id"], period_id, row["revenue_share_bps"], actor)
        if pay_before > await _now(db):
            await wake(self._kernel, db, pay_before)


async def check_left(db: Any, terms_id: UUID, terms: LicenseTerms) -> None:
    """Under the work's lock; licences that yield do not count. Raises ApiError CONFLICT `none_left`."""
    if terms.max_licenses is not None and await queries.licenses_under(db, terms_id) >= terms.max_licenses:
        raise ApiError(ErrorCode.CONFLICT, "As many licences as these terms allow are given.", reason="none_left")


def new_code() -> str:
    """160 random bits in base32: 32 characters."""
    return base64.b32encode(os.urandom(20)).decode()


async def _now(db: Any) -> datetime:
    """The clock of the database, after whatever lock was waited for."""
    now: datetime = await db.fetchval("SELECT clock_timestamp()")
    return now


def _check_within(grant: Grant, ends_at: datetime) -> None:
    parent = grant.parent
    if parent["depth"] >= DEPTH_MAX:
        message = f"A chain has at most {DEPTH_MAX} licences."
        raise ApiError(ErrorCode.CONFLICT, message, reason="chain_too_deep")
    if not expanded(grant.territories) <= expanded(parent["territories"]):
        raise _beyond("territories", "some are not of the licence above")
    if not set(grant.scope) <= set(parent["scope"]):
        raise _beyond("scope", "some of it is not of the licence above")
    if grant.license_type == "exclusive" and parent["license_type"] != "exclusive":
        raise _beyond("license_type", "only an exclusive licence can be given on exclusively")
    if (grant.starts_at is not None and grant.starts_at < parent["starts_at"]) or ends_at > parent["ends_at"]:
        raise _beyond("duration", "it ends after the licence above, or begins before it")


def _beyond(field: str, text: str) -> ApiError:
    return ApiError(ErrorCode.VALIDATION_ERROR, f"{field}: {text}", reason="beyond_parent", field=field)


def clash(with_: str, unpaid_until: datetime | None = None, license_id: UUID | None = None) -> ApiError:
    """`unpaid_until`: when it lapses if nobody pays it. `license_id`: for its licensor, who may revoke it at once."""
    message = (
        "An exclusive licence stands in scope, territory and time." if with_ == "exclusive"
        else "Another licence stands in scope, territory and time: an exclusive one cannot be given."
    )  # fmt: skip
    details: dict[str, Any] = {"with": with_}
    if unpaid_until is not None:
        message += f" It is not paid yet, and lapses at {timestamp(unpaid_until)} if nobody pays it."
        details["unpaid_until"] = timestamp(unpaid_until)
        if license_id is not None:
            details["license_id"] = str(license_id)
    return ApiError(ErrorCode.CONFLICT, message, reason="exclusivity_clash", details=details)
