"""Creators: one for an account; profile, sections, verification, followers, feed, analytics.

A creator's role comes with the creator. What is counted (followers, works, days, the trend) is written by consumers of
events alone, each event once, so a request never touches a row that many want. Those who decide a verification never
decide their own.

    verification   unsubmitted → pending → verified | rejected → pending
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from platform_api.creators import queries
from platform_api.creators.models import (
    SECTIONS,
    Activity,
    Analytics,
    AnalyticsDay,
    Creator,
    CreatorPatch,
    CreatorRequest,
    CreatorSort,
    Decision,
    Following,
    PendingVerification,
    ProfileSections,
    Revenue,
    SectionSaved,
    Totals,
    Verification,
    VerificationRequest,
)
from platform_api.envelope import Pagination, check_version, cursor_from, given, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer
from platform_api.identity.service import IdentityService
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Event
from platform_api.media.service import MediaService
from platform_api.money import decimal_text
from platform_api.security import Caller
from platform_api.taxonomy.service import TaxonomyService

__all__ = ["CreatorService", "trend_after"]

Shown = Callable[[Any, list[UUID]], Awaitable[set[UUID]]]
"""Connection, ids of works and chapters → those that everybody may see now."""

FOLLOWS_MAX = 1000
"""Of one account: bounds the cost of its feed."""
TRENDING_MAX = 50
DAYS_MAX = 366
HALF_LIFE_SECONDS = 3 * 86_400
TREND_UNIT = 1_000_000
WEIGHTS = {"creator.followed": 1, "chapter.published": 2, "work.published": 4}
_WITHDRAWN = ["work.archived", "work.deleted", "work.suspended", "work.withdrawn"]
CURSORS: dict[str, tuple[type, ...]] = {
    "newest": (UUID,), "followers": (int, UUID), "trending": (int, UUID), "name": (str, UUID),
}  # fmt: skip


class CreatorService:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._roles = kernel.service(IdentityService).roles
        self._taxonomy = kernel.service(TaxonomyService)
        self._media = kernel.service(MediaService)
        self.shown: Shown | None = None
        """Set by the context that publishes."""
        kernel.events.subscribe("creators.follows", ["creator.followed", "creator.unfollowed"], self._count_follow)
        kernel.events.subscribe("creators.feed", ["creator.registered", "creator.verified"], self._note_activity)
        kernel.events.subscribe("creators.works", ["work.published", "chapter.published"], self._count_publication)
        kernel.events.subscribe("creators.withdrawn", _WITHDRAWN, self._count_withdrawal)
        kernel.events.subscribe("creators.tokens", ["token.created"], self._note_token)
        kernel.events.subscribe("creators.sales", ["royalty.distributed", "royalty.reversed"], self._count_sale)

    # Profile.

    async def register(self, caller: Caller, body: CreatorRequest, key: str | None) -> tuple[Creator, bool]:
        """The caller becomes a creator, with the role. Raises ApiError CONFLICT `already_creator`."""
        account_id = UUID(caller.account_id)

        async def change(db: Any) -> Answer:
            await self._taxonomy.check(db, category=body.category)
            creator_id = new_id()
            if not await queries.insert_creator(db, creator_id, account_id, msgspec.structs.asdict(body)):
                raise ApiError(ErrorCode.CONFLICT, "This account is a creator already.", reason="already_creator")
            await self._roles.grant(db, account_id, "creator", actor=None)
            await self._tell(db, "creator.registered", creator_id, body.display_name, account_id)
            await self._kernel.audit.record(
                db, "creator.registered", ("creator", str(creator_id)), actor=account_id,
                new=msgspec.structs.asdict(body),
            )  # fmt: skip
            return 201, msgspec.json.encode(_creator(await queries.creator(db, creator_id)))

        answer, replayed = await self._kernel.idempotency.once(
            caller.account_id, "POST /v1/creators", key, body, change
        )
        return msgspec.json.decode(answer[1], type=Creator), replayed

    async def read(self, creator_id: UUID) -> Creator:
        """Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row = await queries.creator(db, creator_id)
        if row is None:
            raise unknown("creator")
        return _creator(row)

    async def exists(self, db: Any, creator_id: UUID) -> bool:
        """For other contexts."""
        return await queries.creator(db, creator_id) is not None

    async def own(self, db: Any, caller: Caller) -> Creator | None:
        """The creator that the caller is; None if none. For other contexts too."""
        row = await queries.creator_of_account(db, UUID(caller.account_id))
        return None if row is None else _creator(row)

    async def change(self, caller: Caller, creator_id: UUID, body: CreatorPatch, if_match: str | None) -> Creator:
        """Raises ApiError NOT_FOUND, CONFLICT `version_mismatch`, VALIDATION_ERROR."""
        changes = given(body)
        async with self._database.transaction() as db:
            row = await self._lock_own(db, caller, creator_id)
            check_version(if_match, row["version"])
            await self._taxonomy.check(db, category=changes.get("category"))
            if changes:
                await queries.update_creator(db, creator_id, changes)
                await self._kernel.audit.record(
                    db, "creator.changed", ("creator", str(creator_id)), actor=caller.account_id,
                    old={name: row[name] for name in changes}, new=changes,
                )  # fmt: skip
            return _creator(await queries.creator(db, creator_id))

    async def browse(
        self, sort: CreatorSort, category: str | None, type_: str | None, verified: bool | None,
        cursor: str | None, limit: int,
    ) -> tuple[list[Creator], Pagination]:  # fmt: skip
        """Raises ApiError VALIDATION_ERROR for a cursor of another sort."""
        after = cursor_from(cursor, *CURSORS[sort])
        async with self._database.connection() as db:
            rows = await queries.creators(db, sort, category, type_, verified, after, limit + 1)
        rows, pagination = page(
            rows, limit, lambda row: (row["id"],) if sort == "newest" else (row["key"], row["id"])
        )
        return [_creator(row) for row in rows], pagination

    async def search(
        self, text: str, category: str | None, type_: str | None, verified: bool | None, cursor: str | None, limit: int
    ) -> tuple[list[Creator], Pagination]:
        after = cursor_from(cursor, int, UUID) or (None, None)
        async with self._database.connection() as db:
            rows = await queries.search(db, text, category, type_, verified, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["rank"], row["id"]))
        return [_creator(row) for row in rows], pagination

    # Sections.

    async def sections(self, creator_id: UUID) -> ProfileSections:
        """Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            if await queries.creator(db, creator_id) is None:
                raise unknown("creator")
            rows = {row["section"]: row for row in await queries.sections(db, creator_id)}
        found: dict[str, Any] = {  # without the rules of requests: what was taken under earlier ones is still told
            name: [type_(**item) for item in msgspec.json.decode(rows[name]["items"])] if name in rows else []
            for name, type_ in SECTIONS.items()
        }
        return ProfileSections(**found, versions={name: row["version"] for name, row in rows.items()})

    async def put_section(
        self, caller: Caller, creator_id: UUID, section: str, items: list[Any], if_match: str | None
    ) -> SectionSaved:
        """Replaces the section as a whole. Raises ApiError NOT_FOUND, CONFLICT `version_mismatch`."""
        async with self._database.transaction() as db:
            await self._lock_own(db, caller, creator_id)
            check_version(if_match, await queries.section_version(db, creator_id, section))
            row = await queries.put_section(db, creator_id, section, msgspec.json.encode(items).decode())
        return SectionSaved(section, len(items), row["version"], timestamp(row["updated_at"]))

    # Verification.

    async def submit(
        self, caller: Caller, creator_id: UUID, body: VerificationRequest, key: str | None
    ) -> tuple[Verification, bool]:
        """Raises ApiError NOT_FOUND; CONFLICT if it waits or is verified; VALIDATION_ERROR for missing evidence."""

        async def change(db: Any) -> Answer:
            row = await self._lock_own(db, caller, creator_id)
            if row["verification_status"] in ("pending", "verified"):
                message = f"The verification is {row['verification_status']}."
                raise ApiError(ErrorCode.CONFLICT, message, reason=f"verification_{row['verification_status']}")
            await self._check_portfolio(db, creator_id, body.portfolio_work_ids)
            files = list(dict.fromkeys(body.file_ids))
            await self._media.owned(db, UUID(caller.account_id), files, "file_ids")
            case = await queries.insert_case(
                db, new_id(), creator_id, body.statement, files, list(dict.fromkeys(body.portfolio_work_ids))
            )
            await queries.update_creator(db, creator_id, {"verification_status": "pending"})
            await self._kernel.audit.record(
                db, "creator.verification_submitted", ("creator", str(creator_id)), actor=caller.account_id,
                new={"case_id": str(case["id"])},
            )  # fmt: skip
            if self._kernel.settings.verify_creators_at_once:
                case = await self._decide(db, row, case, "verified", None, "")
            return 202, msgspec.json.encode(_verification(case))

        route = "POST /v1/creators/verification"
        answer, replayed = await self._kernel.idempotency.once(
            caller.account_id, route, key, [str(creator_id), body], change
        )
        return msgspec.json.decode(answer[1], type=Verification), replayed

    async def verification(self, caller: Caller, creator_id: UUID) -> Verification:
        """The latest case of the caller's own creator. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row = await queries.creator(db, creator_id)
            case = await queries.last_case(db, creator_id)
        if row is None or str(row["account_id"]) != caller.account_id or case is None:
            raise unknown("verification")
        return _verification(case)

    async def pending(self, cursor: str | None, limit: int) -> tuple[list[PendingVerification], Pagination]:
        """What waits for a decision, the longest first."""
        (after,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.pending_cases(db, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [
            PendingVerification(
                str(row["id"]), None, "creator", str(row["creator_id"]), row["display_name"], row["statement"],
                [str(id_) for id_ in row["file_ids"]], [self._media.signed_url(id_) for id_ in row["file_ids"]],
                [str(id_) for id_ in row["portfolio_ids"]],
                timestamp(row["submitted_at"]),
            )
            for row in rows
        ], pagination  # fmt: skip

    async def decide(self, caller: Caller, creator_id: UUID, body: Decision) -> Verification:
        """By somebody of the platform. Raises ApiError NOT_FOUND, CONFLICT, FORBIDDEN for one's own."""
        if body.decision == "reject" and not body.reason.strip():
            message = "reason: a rejection needs one"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="reason")
        async with self._database.transaction() as db:
            row = await queries.lock_creator(db, creator_id)
            if row is None:
                raise unknown("creator")
            if str(row["account_id"]) == caller.account_id:
                raise ApiError(ErrorCode.FORBIDDEN, "Nobody decides their own verification.", reason="own_account")
            case = await queries.open_case(db, creator_id)
            if case is None:
                raise ApiError(ErrorCode.CONFLICT, "Nothing waits for a decision.", reason="not_pending")
            status = "verified" if body.decision == "approve" else "rejected"
            return _verification(await self._decide(db, row, case, status, UUID(caller.account_id), body.reason))

    async def _decide(self, db: Any, row: Any, case: Any, status: str, by: UUID | None, reason: str) -> Any:
        creator_id = row["id"]
        decided = await queries.decide_case(db, case["id"], status, by, reason)
        await queries.update_creator(db, creator_id, {"verification_status": status})
        await self._tell(db, f"creator.{status}", creator_id, row["display_name"], by)
        await self._kernel.audit.record(
            db, f"creator.{status}", ("creator", str(creator_id)), actor=by,
            old={"verification_status": "pending"}, new={"verification_status": status, "reason": reason},
        )  # fmt: skip
        return decided

    async def _check_portfolio(self, db: Any, creator_id: UUID, work_ids: list[UUID]) -> None:
        if self._kernel.settings.portfolio_needed and not work_ids:
            message = "portfolio_work_ids: at least one published work is needed"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="portfolio_work_ids")
        published = await queries.published_of(db, creator_id, work_ids) & await self._shown(db, work_ids)
        if set(work_ids) - published:
            message = "portfolio_work_ids: must be published works of this creator"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_work", field="portfolio_work_ids")

    # Followers and feed.

    async def follow(self, caller: Caller, creator_id: UUID) -> None:
        """Once or often: the same. Raises ApiError NOT_FOUND, CONFLICT."""
        account_id = UUID(caller.account_id)
        async with self._database.transaction() as db:
            row = await queries.creator(db, creator_id)
            if row is None:
                raise unknown("creator")
            if row["account_id"] == account_id:
                raise ApiError(ErrorCode.CONFLICT, "Nobody follows themselves.", reason="own_creator")
            if await queries.following_count(db, account_id) >= FOLLOWS_MAX:
                message = f"An account follows at most {FOLLOWS_MAX} creators."
                raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_follows")
            first = await queries.insert_follow(db, creator_id, account_id)
            if first is not None:
                await self._kernel.events.publish(
                    db, "creator.followed", ("creator", str(creator_id)), {"first": first}, actor=account_id
                )

    async def unfollow(self, caller: Caller, creator_id: UUID) -> None:
        """Also where nothing was followed. Raises ApiError NOT_FOUND."""
        async with self._database.transaction() as db:
            if await queries.creator(db, creator_id) is None:
                raise unknown("creator")
            if await queries.end_follow(db, creator_id, UUID(caller.account_id)):
                await self._kernel.events.publish(
                    db, "creator.unfollowed", ("creator", str(creator_id)), {}, actor=caller.account_id
                )

    async def following(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Following], Pagination]:
        after = cursor_from(cursor, datetime, UUID) or (None, None)
        async with self._database.connection() as db:
            rows = await queries.following(db, UUID(caller.account_id), after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["followed_at"], row["id"]))
        return [Following(_creator(row), timestamp(row["followed_at"])) for row in rows], pagination

    async def feed(self, caller: Caller | None, cursor: str | None, limit: int) -> tuple[list[Activity], Pagination]:
        """Of those whom the caller follows; of the trending ones for whoever follows nobody.

        What is not shown any more is left out, so a page may be shorter than asked for, and another may follow it.
        """
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            follows = caller is not None and await queries.following_count(db, UUID(caller.account_id)) > 0
            if caller is not None and follows:
                rows = await queries.feed_of(db, UUID(caller.account_id), before, limit + 1)
            else:
                rows = await queries.feed_of_trending(db, TRENDING_MAX, before, limit + 1)
            rows, pagination = page(rows, limit, lambda row: (row["id"],))
            shown = await self._shown(db, [row["subject_id"] for row in rows if row["subject_type"] != "creator"])
        rows = [row for row in rows if row["subject_type"] == "creator" or row["subject_id"] in shown]
        return [
            Activity(
                str(row["id"]), str(row["creator_id"]), row["display_name"], row["type"], row["subject_type"],
                str(row["subject_id"]), row["title"], timestamp(row["occurred_at"]),
            )
            for row in rows
        ], pagination  # fmt: skip

    # Analytics.

    async def analytics(self, caller: Caller, creator_id: UUID, since: date | None, until: date | None) -> Analytics:
        """The last thirty days unless told. Raises ApiError NOT_FOUND for another's, VALIDATION_ERROR."""
        until = until or datetime.now(UTC).date()
        since = since or date.fromordinal(max(1, until.toordinal() - 29))
        if not timedelta(0) <= until - since < timedelta(days=DAYS_MAX):
            message = f"since: must not be after until, and at most {DAYS_MAX} days before"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_period", field="since")
        async with self._database.connection() as db:
            row = await queries.creator(db, creator_id)
            if row is None or str(row["account_id"]) != caller.account_id:
                raise unknown("creator")
            rows = await queries.days(db, creator_id, since, until)
            revenue = await queries.revenue(db, creator_id)
        names = Totals.__struct_fields__
        return Analytics(
            since.isoformat(), until.isoformat(), row["follower_count"], row["sale_count"],
            [Revenue(one["asset"], decimal_text(one["units"], one["scale"])) for one in revenue],
            Totals(**{name: sum(day[name] for day in rows) for name in names}),
            [AnalyticsDay(day["day"].isoformat(), **{name: day[name] for name in names}) for day in rows],
        )  # fmt: skip

    # Consumers of events: the only writers of the projections.

    async def _count_follow(self, db: Any, event: Event) -> None:
        creator_id, at = UUID(event.subject_id), datetime.fromisoformat(event.occurred_at)
        followed = event.type == "creator.followed"
        await queries.count(db, creator_id, at.date(), followers=1 if followed else -1)
        if followed and event.payload["first"]:
            await self._raise_trend(db, creator_id, event.type, at)

    async def _count_publication(self, db: Any, event: Event) -> None:
        """Of chapters those that are new, in works that readers see."""
        is_work = event.type == "work.published"
        if not is_work and not (event.payload["first"] and event.payload["was_public"]):
            return
        creator_id, at = UUID(event.payload["creator_id"]), datetime.fromisoformat(event.occurred_at)
        await queries.count(db, creator_id, at.date(), works=int(is_work), chapters=int(not is_work))
        await self._note_activity(db, event)
        await self._raise_trend(db, creator_id, event.type, at)

    async def _count_withdrawal(self, db: Any, event: Event) -> None:
        if event.payload["was_public"]:
            at = datetime.fromisoformat(event.occurred_at)
            await queries.count(db, UUID(event.payload["creator_id"]), at.date(), works=-1)

    async def _count_sale(self, db: Any, event: Event) -> None:
        """A sale or a fee that was divided, or one that was given back, in part or whole."""
        paid, at = event.payload, datetime.fromisoformat(event.occurred_at)
        sold, units = event.type == "royalty.distributed", int(paid["units"])
        await queries.count_sale(
            db, UUID(paid["creator_id"]), at.date(), paid["asset"], paid["scale"], units if sold else -units,
            sold=int(sold), gone=int(not sold and paid["whole"]),
        )  # fmt: skip

    async def _note_activity(self, db: Any, event: Event) -> None:
        creator_id, at = UUID(event.payload["creator_id"]), datetime.fromisoformat(event.occurred_at)
        subject = (event.subject_type, UUID(event.subject_id))
        await queries.insert_activity(
            db, UUID(event.event_id), creator_id, event.type, subject, event.payload["title"], at
        )

    async def _note_token(self, db: Any, event: Event) -> None:
        """A consumer: what is minted stays the creator's token, also once it is delisted."""
        await queries.set_token(db, UUID(event.payload["creator_id"]), UUID(event.subject_id))

    async def _raise_trend(self, db: Any, creator_id: UUID, type_: str, at: datetime) -> None:
        trend = await queries.lock_trend(db, creator_id)
        await queries.set_trend(db, creator_id, trend_after(trend, WEIGHTS[type_], at))

    # Inside.

    async def _shown(self, db: Any, ids: list[UUID]) -> set[UUID]:
        return set() if self.shown is None or not ids else await self.shown(db, ids)

    async def _lock_own(self, db: Any, caller: Caller, creator_id: UUID) -> Any:
        row = await queries.lock_creator(db, creator_id)
        if row is None or str(row["account_id"]) != caller.account_id:
            raise unknown("creator")
        return row

    async def _tell(self, db: Any, type_: str, creator_id: UUID, title: str, actor: UUID | None) -> None:
        payload = {"creator_id": str(creator_id), "title": title}
        await self._kernel.events.publish(db, type_, ("creator", str(creator_id)), payload, actor=actor)


def trend_after(trend: int, weight: int, at: datetime) -> int:
    """`trend` with an event of `weight` more: log2(2^trend + weight · 2^(time / half-life)), in millionths.

    Weights grow with time instead of old ones shrinking, so the order of two trends changes by events alone.
    """
    added = math.log2(weight) + at.timestamp() / HALF_LIFE_SECONDS
    known = trend / TREND_UNIT
    return round((max(known, added) + math.log2(1 + 2 ** -abs(known - added))) * TREND_UNIT)


def _creator(row: Any) -> Creator:
    return Creator(
        id=str(row["id"]), account_id=str(row["account_id"]), display_name=row["display_name"], bio=row["bio"],
        avatar_url=row["avatar_url"], cover_url=row["cover_url"], creator_type=row["creator_type"],
        category=row["category"], verification_status=row["verification_status"],
        follower_count=row["follower_count"], work_count=row["work_count"], created_at=timestamp(row["created_at"]),
        updated_at=timestamp(row["updated_at"]), version=row["version"],
        token_id=str(row["token_id"]) if row["token_id"] else None,
    )  # fmt: skip


def _verification(row: Any) -> Verification:
    return Verification(
        str(row["id"]), str(row["creator_id"]), row["status"], timestamp(row["submitted_at"]),
        timestamp(row["decided_at"]) if row["decided_at"] else None, row["reason"],
    )  # fmt: skip
