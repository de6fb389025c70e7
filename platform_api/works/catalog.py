"""Works: drafts, versions, publication, verification, lists and search.

    draft ──publish──▶ published ──archive──▶ archived        any but a sold one ──▶ deleted
      │  ▲              ▲ │   ▲
      ▼  │     approved │ │   └──suspend, resume──▶ suspended
    in_review ──────────┘ │          only where the settings want a verification first;
      ▲───────────────────┘          a change of the owner's is looked at again

Every change of what a reader sees, of chapters too, makes a version, and versions are never changed or deleted (a
trigger of PostgreSQL sees to it): whoever registers or licenses a work names a version's digest, which stands for each
of its files and chapters. A work that is not public does not exist for anybody but its owner, its collaborators and
moderators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

import msgspec

from platform_api.creators.service import CreatorService
from platform_api.envelope import Pagination, check_version, cursor_from, cursor_text, given, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Event
from platform_api.media.service import MediaService
from platform_api.security import Caller
from platform_api.taxonomy.service import TaxonomyService
from platform_api.works import finding, queries, review
from platform_api.works.models import (
    Credit,
    Metadata,
    VerificationCase,
    VerificationDecision,
    VerificationRequest,
    Work,
    WorkPatch,
    WorkRequest,
    WorkSort,
    WorkVersion,
)
from platform_api.works.views import Views

__all__ = ["PUBLIC_ROLES", "Catalog", "content_of"]

SCREEN = ("duration_seconds", "credits", "year")
KIND_FIELDS: Mapping[str, tuple[str, ...]] = {
    "course": ("difficulty_level", "prerequisites", "learning_outcomes"), "video": SCREEN, "audio": SCREEN,
    "film": SCREEN, "document": ("page_count",), "ip_asset": ("content_type", "usage_notes"),
    "story": ("maturity", "completion"),
}  # fmt: skip
SERIALS = ("story", "course")
"""Kinds with chapters."""
PAGE_BYTES = 4_000_000
"""Contents of versions in one answer, at most: that of a long serial names each of its chapters."""
PUBLIC_ROLES = ["preview", "poster", "trailer", "image"]
"""Files in these roles are for everybody once the work is published."""
CURSORS: dict[str, tuple[type, ...]] = {"newest": (datetime, UUID), "oldest": (datetime, UUID), "title": (str, UUID)}

Entitled = Callable[[Any, Caller, UUID, UUID | None, datetime | None], Awaitable[bool]]
"""Whether somebody has a right to a work, or a chapter of it: connection, who, work, chapter, since when."""
_PURCHASES = ("content_purchase", "rental", "ppv")
"""Kinds of revenue that are purchases of a work by its readers."""
BeingPaid = Callable[[Any, UUID], Awaitable[bool]]
"""Whether somebody may still get a right to a work by what was begun: connection, work."""
DecideChapters = Callable[[Any, Any, bool, UUID, str], Awaitable[None]]
"""Chapters in review are approved or not: connection, their work as it is now, which, by whom, why."""


class Catalog:
    def __init__(self, kernel: Kernel, views: Views) -> None:
        self._kernel, self._views = kernel, views
        self._database = kernel.database
        self._creators = kernel.service(CreatorService)
        self._taxonomy = kernel.service(TaxonomyService)
        self._media = kernel.service(MediaService)
        self.rights: list[Entitled] = []
        """Any of them suffices; added by the contexts that give rights."""
        self.being_paid: list[BeingPaid] = []
        """Added by the contexts that sell."""
        self.decide_chapters: DecideChapters | None = None
        """Set by the part that has them."""
        self._creators.shown = queries.shown
        kernel.events.subscribe("works.purchases", ["royalty.distributed", "royalty.reversed"], self._count_purchase)

    async def create(self, caller: Caller, body: WorkRequest, key: str | None) -> tuple[Work, bool]:
        """A draft, and its first version. Raises ApiError VALIDATION_ERROR, FORBIDDEN `no_creator`."""
        _check_metadata(body.kind, body.metadata)

        async def change(db: Any) -> Answer:
            creator = await self._creators.own(db, caller)
            if creator is None:
                raise ApiError(ErrorCode.FORBIDDEN, "Works are made by creators.", reason="no_creator")
            await self._taxonomy.check(db, category=body.category, genres=body.genres)
            work_id, account_id = new_id(), UUID(caller.account_id)
            fields = _columns(msgspec.structs.asdict(body))
            await queries.insert_work(db, work_id, UUID(creator.id), account_id, fields)
            await self.note_version(db, work_id, "", account_id)
            await self._tell(db, "work.created", await queries.work(db, work_id), account_id)
            await self._audit(db, "work.created", work_id, caller, None, {"kind": body.kind, "title": body.title})
            return 201, msgspec.json.encode(work_of(await queries.work(db, work_id)))

        answer, replayed = await self._kernel.idempotency.once(caller.account_id, "POST /v1/works", key, body, change)
        return msgspec.json.decode(answer[1], type=Work), replayed

    async def read(self, visitor: Caller | None, work_id: UUID) -> Work:
        """Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row, inside = await self.visible(db, visitor, work_id)
            shown = None
            if not inside and row["shown_version"] is not None:
                shown = await queries.version(db, work_id, row["shown_version"])
        if row["status"] == "published" and not inside:
            self._views.note(visitor, work_id)
        return work_of(row) if shown is None else _as_shown(work_of(row), shown)

    async def change(self, caller: Caller, work_id: UUID, body: WorkPatch, if_match: str | None) -> Work:
        """The owner, or a moderator correcting metadata. Raises ApiError."""
        changes = given(body)
        note = changes.pop("change_note")
        async with self._database.transaction() as db:
            row = await self.lock_own(db, caller, work_id, "edit_any_work")
            check_version(if_match, row["version"])
            check_open(row)
            if "metadata" in changes:
                _check_metadata(row["kind"], changes["metadata"])
            await self._taxonomy.check(db, category=changes.get("category"), genres=changes.get("genres", ()))
            if changes:
                old = {name: row[name] for name in changes if name != "metadata"}
                kept = {name: row[name] for name in ("language", "tags")}
                await queries.update_work(db, work_id, _columns(changes, kept))
                await self.note_version(db, work_id, note, UUID(caller.account_id))
                await self._audit(db, "work.changed", work_id, caller, old,
                                  {name: changes[name] for name in old})  # fmt: skip
            return work_of(await queries.work(db, work_id))

    async def delete(self, caller: Caller, work_id: UUID) -> None:
        """Softly; its versions stay. Raises ApiError NOT_FOUND; CONFLICT `sold`: archive it instead."""
        async with self._database.transaction() as db:
            row = await self.lock_own(db, caller, work_id, "delete_any_work")
            if row["sold"] or await self.is_being_paid(db, work_id):
                raise ApiError(ErrorCode.CONFLICT, "It was sold: archive it instead.", reason="sold")
            await queries.update_work(db, work_id, {"status": "deleted"})
            await self._hide(db, work_id)
            await self._tell(db, "work.deleted", row, UUID(caller.account_id))
            await self._audit(db, "work.deleted", work_id, caller, {"status": row["status"]}, {"status": "deleted"})

    async def publish(self, caller: Caller, work_id: UUID, if_match: str | None, key: str | None) -> Work:
        """Raises ApiError NOT_FOUND; CONFLICT `nothing_to_publish`, `not_draft`, `version_mismatch`."""

        async def change(db: Any) -> Answer:
            row = await self.lock_own(db, caller, work_id)
            check_version(if_match, row["version"])
            if row["status"] != "draft":
                message = f"The work is {row['status'].replace('_', ' ')}."
                raise ApiError(ErrorCode.CONFLICT, message, reason="not_draft", details={"status": row["status"]})
            waits = self._kernel.settings.works_need_verification and row["verification_status"] != "approved"
            await self._check_content(db, row, waits)
            if waits:
                if row["verification_status"] != "pending":
                    await self._submit(db, caller.account_id, row, "Submitted with its publication.")
                await queries.update_work(db, work_id, {"status": "in_review"})
            else:
                await self._publish(db, row, UUID(caller.account_id))
            return 200, msgspec.json.encode(work_of(await queries.work(db, work_id)))

        answer, _ = await self._kernel.idempotency.once(
            caller.account_id, "POST /v1/works/publish", key, str(work_id), change
        )
        return msgspec.json.decode(answer[1], type=Work)

    async def archive(self, caller: Caller, work_id: UUID, if_match: str | None) -> Work:
        """No longer shown or sold; who bought it keeps it. Raises ApiError NOT_FOUND; CONFLICT `not_published`."""
        async with self._database.transaction() as db:
            row = await self.lock_own(db, caller, work_id)
            check_version(if_match, row["version"])
            if row["status"] != "published":
                raise ApiError(ErrorCode.CONFLICT, "Only what is published is archived.", reason="not_published")
            await queries.update_work(db, work_id, {"status": "archived"})
            await self._hide(db, work_id)
            await self._tell(db, "work.archived", row, UUID(caller.account_id))
            await self._audit(db, "work.archived", work_id, caller, {"status": "published"}, {"status": "archived"})
            return work_of(await queries.work(db, work_id))

    async def browse(
        self, sort: WorkSort, filters: Mapping[str, Any], cursor: str | None, limit: int
    ) -> tuple[list[Work], Pagination]:
        """Published works. Raises ApiError VALIDATION_ERROR."""
        after = cursor_from(cursor, *CURSORS[sort])
        async with self._database.connection() as db:
            rows, last = await finding.browse(db, sort, filters, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["key"], row["id"]))
        if last is not None:
            pagination = Pagination(limit, cursor_text(last["key"], last["id"]))
        return [work_of(row) for row in rows], pagination

    async def of_creator(self, creator_id: UUID, cursor: str | None, limit: int) -> tuple[list[Work], Pagination]:
        """Raises ApiError NOT_FOUND for an unknown creator."""
        await self._creators.read(creator_id)
        return await self.browse("newest", {"creator_id": creator_id}, cursor, limit)

    async def own(self, caller: Caller, status: str, cursor: str | None, limit: int) -> tuple[list[Work], Pagination]:
        """The caller's works of one status, the latest first."""
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.own(db, UUID(caller.account_id), status, before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [work_of(row) for row in rows], pagination

    async def search(
        self, text: str, language: str | None, filters: Mapping[str, Any], cursor: str | None, limit: int
    ) -> tuple[list[Work], Pagination]:
        """Full text over titles, tags and descriptions. `language` is that of the words."""
        after = cursor_from(cursor, int, UUID)
        async with self._database.connection() as db:
            words = finding.search_words(language or "en")
            rows = await finding.search(db, text, words, filters, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["rank"], row["id"]))
        return [work_of(row) for row in rows], pagination

    async def versions(
        self, caller: Caller, work_id: UUID, cursor: str | None, limit: int
    ) -> tuple[list[WorkVersion], Pagination]:
        """For those who may see drafts of it: contents of earlier versions are not published again. Raises ApiError."""
        (before,) = cursor_from(cursor, int) or (None,)
        async with self._database.connection() as db:
            _, inside = await self.visible(db, caller, work_id)
            if not inside:
                raise unknown("work")
            sizes = await queries.version_sizes(db, work_id, before, limit)
            limit = max(1, sum(1 for total in accumulate(sizes) if total <= PAGE_BYTES)) if sizes else limit
            rows = await queries.versions(db, work_id, before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["number"],))
        return [
            WorkVersion(
                row["number"], bytes(row["sha256"]).hex(), row["change_note"], timestamp(row["created_at"]),
                bytes(row["content"]).decode(),
            )
            for row in rows
        ], pagination  # fmt: skip

    # Verification.

    async def submit(self, caller: Caller, work_id: UUID, body: VerificationRequest) -> VerificationCase:
        """Raises ApiError NOT_FOUND; CONFLICT `verification_pending` or `verification_approved`."""
        async with self._database.transaction() as db:
            row = await self.lock_own(db, caller, work_id)
            if row["verification_status"] in ("pending", "approved"):
                message = f"The verification is {row['verification_status']}."
                raise ApiError(ErrorCode.CONFLICT, message, reason=f"verification_{row['verification_status']}")
            return _case(await self._submit(db, caller.account_id, row, body.statement), row["title"])

    async def pending(self, cursor: str | None, limit: int) -> tuple[list[VerificationCase], Pagination]:
        (after,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.pending_cases(db, after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_case(row, row["title"]) for row in rows], pagination

    async def decide(self, caller: Caller, work_id: UUID, body: VerificationDecision) -> VerificationCase:
        """A work in review, and chapters in review, are published by an approval, and drafts again by a rejection; what
        was approved of a work before stays in sight. Raises ApiError; CONFLICT `changed_since` for an approval of
        another than waits now."""
        if body.decision == "reject" and not body.reason.strip():
            message = "reason: a rejection needs one"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="reason")
        for name in ("case_id", "case_version"):
            if body.decision == "approve" and getattr(body, name) is None:
                message = f"{name}: an approval needs one"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field=name)
        actor = UUID(caller.account_id)
        async with self._database.transaction() as db:
            row = await queries.lock_work(db, work_id)
            if row is None:
                raise unknown("work")
            if row["account_id"] == actor:
                raise ApiError(ErrorCode.FORBIDDEN, "Nobody decides their own verification.", reason="own_account")
            case = await queries.open_case(db, work_id)
            if case is None:
                raise ApiError(ErrorCode.CONFLICT, "Nothing waits for a decision.", reason="not_pending")
            if body.decision == "approve" and (body.case_id, body.case_version) != (case["id"], case["version"]):
                message = "It has been changed since it was looked at."
                raise ApiError(ErrorCode.CONFLICT, message, reason="changed_since",
                               details={"case_id": str(case["id"]), "case_version": case["version"]})  # fmt: skip
            status = "approved" if body.decision == "approve" else "rejected"
            decided = await queries.decide_case(db, case["id"], status, actor, body.reason)
            if row["verification_status"] == "pending":  # else it is about chapters alone
                await queries.update_work(db, work_id, {"verification_status": status})
                await self._tell(db, f"work.{status}", row, actor)
                if row["status"] == "in_review":
                    if status == "approved":
                        await self._publish(db, row, row["account_id"])
                    else:
                        await queries.update_work(db, work_id, {"status": "draft"})
                await self._audit(db, f"work.{status}", work_id, caller, {"verification_status": "pending"},
                                  {"verification_status": status, "reason": body.reason})  # fmt: skip
            assert self.decide_chapters is not None
            now = await queries.work(db, work_id)
            await self.decide_chapters(db, now, status == "approved", actor, body.reason)
            return _case(decided, row["title"])

    async def suspend(self, caller: Caller, work_id: UUID, reason: str) -> Work:
        """By staff: out of sight, and not editable. Raises ApiError NOT_FOUND; CONFLICT `not_published`."""
        return await self._turn(caller, work_id, "published", "suspended", reason)

    async def resume(self, caller: Caller, work_id: UUID, reason: str) -> Work:
        """Raises ApiError NOT_FOUND, FORBIDDEN `own_account`; CONFLICT `not_suspended`."""
        return await self._turn(caller, work_id, "suspended", "published", reason)

    async def _turn(self, caller: Caller, work_id: UUID, before: str, after: str, reason: str) -> Work:
        actor = UUID(caller.account_id)
        async with self._database.transaction() as db:
            row = await self.lock_known(db, work_id)
            if row["account_id"] == actor:
                raise ApiError(ErrorCode.FORBIDDEN, "Nobody decides about their own work.", reason="own_account")
            if row["status"] != before:
                message = f"The work is {row['status'].replace('_', ' ')}."
                raise ApiError(ErrorCode.CONFLICT, message, reason=f"not_{before}", details={"status": row["status"]})
            if after == "suspended":
                await queries.update_work(db, work_id, {"status": "suspended"})
                await self._hide(db, work_id)
                await self._tell(db, "work.suspended", row, actor)
            else:
                await self._publish(db, row, row["account_id"])
            await self._audit(db, f"work.{'resumed' if after == 'published' else after}", work_id, caller,
                              {"status": before}, {"status": after, "reason": reason})  # fmt: skip
            return work_of(await queries.work(db, work_id))

    # For the other parts of this context.

    async def visible(self, db: Any, visitor: Caller | None, work_id: UUID) -> tuple[Any, bool]:
        """The work, and whether the visitor is one of those who see what is not public. Raises ApiError NOT_FOUND."""
        row = await queries.work(db, work_id)
        inside = row is not None and visitor is not None and await self._is_inside(db, visitor, row)
        if row is None or not (inside or row["status"] == "published" or await self._kept(db, visitor, row)):
            raise unknown("work")
        return row, inside

    async def check_inside(self, db: Any, caller: Caller, work_id: UUID) -> Any:
        """The work, for those who see what is not public. Raises ApiError NOT_FOUND."""
        row, inside = await self.visible(db, caller, work_id)
        if not inside:
            raise unknown("work")
        return row

    async def known(self, db: Any, work_id: UUID) -> Any:
        """Any work, for whoever decides by rules of their own who may. Raises ApiError NOT_FOUND."""
        row = await queries.work(db, work_id)
        if row is None:
            raise unknown("work")
        return row

    async def published(self, db: Any, work_ids: list[UUID]) -> set[UUID]:
        """Which of them everybody may see."""
        return await queries.published(db, work_ids)

    async def title(self, db: Any, work_id: UUID) -> str | None:
        """For everybody, of a work that somebody has a right to, which is therefore not deleted; None if it was never
        shown and nobody has looked at it who should."""
        row = await queries.work(db, work_id)
        if row["shown_version"] is None:
            wants_look = self._kernel.settings.works_need_verification and row["verification_status"] != "approved"
            return None if wants_look and row["published_at"] is None else str(row["title"])
        return await self._title_of(db, work_id, row["shown_version"])

    async def lock_own(self, db: Any, caller: Caller, work_id: UUID, or_permitted: str | None = None) -> Any:
        """The caller's work, locked; somebody else's for whoever has the permission. Raises ApiError NOT_FOUND."""
        row = await queries.lock_work(db, work_id)
        if row is None:
            raise unknown("work")
        if str(row["account_id"]) != caller.account_id and not (or_permitted and caller.may(or_permitted)):
            raise unknown("work")
        return row

    async def lock_known(self, db: Any, work_id: UUID) -> Any:
        """As `known`, locked."""
        row = await queries.lock_work(db, work_id)
        if row is None:
            raise unknown("work")
        return row

    async def keep_own_version(self, db: Any, caller: Caller, work_id: UUID, number: int | None) -> tuple[Any, Any]:
        """The caller's work, locked, and one of its versions: unless told what it is now, kept if no version is that.

        Raises ApiError NOT_FOUND.
        """
        work = await self.lock_own(db, caller, work_id)
        if number is None and await self.keep_version(db, work, "registered", UUID(caller.account_id)):
            work = await queries.work(db, work_id)  # the version before was kept when versions named no chapters
        row = await queries.version(db, work_id, work["content_version"] if number is None else number)
        if row is None:
            raise unknown("version")
        return work, row

    async def version_content(self, db: Any, work_id: UUID, number: int) -> bytes:
        """Of a version that there is, whoever asks: what its digest is of."""
        return bytes((await queries.version(db, work_id, number))["content"])

    async def mark_sold(self, db: Any, work_id: UUID) -> None:
        """Somebody has a right to it from now on: it can be archived, never deleted."""
        await queries.mark_sold(db, work_id)

    async def is_being_paid(self, db: Any, work_id: UUID) -> bool:
        """Whether a purchase or a fee may still come for it: it is sold as soon as one has."""
        for is_on_its_way in self.being_paid:
            if await is_on_its_way(db, work_id):
                return True
        return False

    async def note_version(self, db: Any, work_id: UUID, note: str, actor: UUID) -> None:
        """After a change of the work itself: its next version, if it is another; it may have to be looked at."""
        row = await queries.work(db, work_id)
        if not await self.keep_version(db, row, note, actor):
            return
        await queries.turn_case(db, work_id)
        if self._is_looked_at(row, actor):
            turn = review.of_work(row["status"], row["verification_status"])
            await self._turn_for_look(db, row, turn, note or "no note", actor)
            if turn == "out_of_sight":
                return
        if row["status"] == "published":
            await queries.show_assets(db, work_id)
            await self._tell(db, "work.version_published", row, actor)

    async def keep_version(self, db: Any, row: Any, note: str, actor: UUID) -> bool:
        """What the work consists of now, `row` and its files and chapters, is its next version; False if it is what it
        was. Chapters are looked at, and told of, by themselves."""
        chapters = await queries.chapter_digests(db, row["id"]) if row["kind"] in SERIALS else None
        content = content_of(row, await queries.assets(db, row["id"]), chapters)
        digest = hashlib.sha256(content).digest()
        if digest == await queries.version_digest(db, row["id"], row["content_version"]):
            return False
        await queries.insert_version(db, row["id"], row["content_version"] + 1, content, digest, note, actor)
        return True

    async def look_at_chapter(self, db: Any, row: Any, what: str, actor: UUID) -> bool:
        """Whether a chapter of the work, new or changed by its owner, waits until somebody has looked at it."""
        if not self._is_looked_at(row, actor):
            return False
        was_shown = row["published_at"] is not None
        change = review.of_chapter(row["status"], row["verification_status"], was_shown=was_shown)
        await self._turn_for_look(db, row, change.work, what, actor)
        if change.needs_case:
            await self._case_of(db, str(actor), row, f"Submitted with a change: {what}.")
        return change.waits

    async def chapter_taken_back(self, db: Any, row: Any, actor: UUID) -> None:
        """One that waited does no more: a case that was about such chapters alone ends with the last of them."""
        case = None if row["verification_status"] == "pending" else await queries.withdraw_case(db, row["id"])
        if case is not None:
            await self._kernel.audit.record(
                db, "work.verification_withdrawn", ("work", str(row["id"])), actor=actor,
                new={"case_id": str(case["id"])},
            )  # fmt: skip

    def _is_looked_at(self, row: Any, actor: UUID) -> bool:
        """Whether a change of the actor's must be. What staff corrects, it has seen."""
        return self._kernel.settings.works_need_verification and bool(row["account_id"] == actor)

    async def _turn_for_look(self, db: Any, row: Any, turn: review.WorkTurn, what: str, actor: UUID) -> None:
        """With `row` as the change left it, before that got its version."""
        if turn == "asks_anew":
            await queries.update_work(db, row["id"], {"verification_status": "unsubmitted"})
        elif turn == "out_of_sight":
            shown = {"status": "in_review", "shown_version": row["content_version"]}
            await queries.update_work(db, row["id"], shown)
            await self._hide(db, row["id"])
            title = await self._title_of(db, row["id"], row["content_version"])
            await self._tell(db, "work.withdrawn", row, actor, title)
            await self._submit(db, str(actor), row, f"Submitted with a change: {what}.")

    async def show_files(self, db: Any, file_ids: list[UUID]) -> None:
        await self._media.hold(db, file_ids)
        await self._media.set_public(db, file_ids, True)

    async def hide_files(self, db: Any, work_id: UUID, file_ids: list[UUID]) -> None:
        """Unless another published work shows them, or begins to just now."""
        await self._media.hold(db, file_ids)
        elsewhere = await queries.shown_elsewhere(db, file_ids, work_id, PUBLIC_ROLES)
        await self._media.set_public(db, [id_ for id_ in file_ids if id_ not in elsewhere], False)

    async def may_use(
        self, db: Any, visitor: Caller | None, work_id: UUID, chapter_id: UUID | None, since: datetime | None = None
    ) -> bool:
        """Whether somebody who is not inside has a right to the work, or to this chapter, now and `since` then; without
        a chapter, to anything."""
        if visitor is None:
            return False
        for entitled in self.rights:
            if await entitled(db, visitor, work_id, chapter_id, since):
                return True
        return False

    # Inside.

    async def _kept(self, db: Any, visitor: Caller | None, row: Any) -> bool:
        """Who has a right to a work keeps it while it is archived, suspended or looked at again."""
        return await self.may_use(db, visitor, row["id"], None)

    async def _is_inside(self, db: Any, visitor: Caller, row: Any) -> bool:
        if str(row["account_id"]) == visitor.account_id or visitor.may("edit_any_work") or visitor.may("verify_ip"):
            return True
        account_id = UUID(visitor.account_id)
        if any(line["account_id"] == account_id for line in await queries.collaborators(db, row["id"])):
            return True
        change = await queries.open_change(db, row["id"])
        return change is not None and any(
            line["account_id"] == account_id for line in await queries.consents(db, change["id"])
        )

    async def _check_content(self, db: Any, row: Any, waits: bool) -> None:
        """A chapter in review will do for a work that `waits` for a look too."""
        has_content = await queries.is_readable(db, row["id"])
        if not (has_content or waits and await queries.has_chapter_in_review(db, row["id"])):
            needed = "a published chapter or a master file" if row["kind"] in SERIALS else "a master file"
            raise ApiError(ErrorCode.CONFLICT, f"It needs {needed} first.", reason="nothing_to_publish")

    async def _count_purchase(self, db: Any, event: Event) -> None:
        """A consumer: purchases, less those that were given back whole."""
        if event.payload["revenue_kind"] not in _PURCHASES:
            return
        if event.type == "royalty.distributed":
            await queries.count_purchase(db, UUID(event.payload["work_id"]), 1)
        elif event.payload["whole"]:
            await queries.count_purchase(db, UUID(event.payload["work_id"]), -1)

    async def _publish(self, db: Any, row: Any, actor: UUID) -> None:
        at = row["published_at"] or datetime.now(UTC)
        await queries.update_work(
            db, row["id"], {"status": "published", "published_at": at, "shown_version": None}
        )
        await queries.show_assets(db, row["id"])
        shown = [asset["file_id"] for asset in await queries.assets(db, row["id"]) if asset["role"] in PUBLIC_ROLES]
        await self.show_files(db, shown)
        await self._tell(db, "work.published", row, actor)
        await self._kernel.audit.record(
            db, "work.published", ("work", str(row["id"])), actor=actor,
            old={"status": row["status"]}, new={"status": "published", "content_version": row["content_version"]},
        )  # fmt: skip

    async def _hide(self, db: Any, work_id: UUID) -> None:
        shown = [asset["file_id"] for asset in await queries.assets(db, work_id) if asset["role"] in PUBLIC_ROLES]
        await self.hide_files(db, work_id, shown)

    async def _submit(self, db: Any, account_id: str, row: Any, statement: str) -> Any:
        case = await self._case_of(db, account_id, row, statement)
        await queries.update_work(db, row["id"], {"verification_status": "pending"})
        return case

    async def _case_of(self, db: Any, account_id: str, row: Any, statement: str) -> Any:
        """The one that waits for a decision, which may be about chapters until now; else another."""
        case = await queries.open_case(db, row["id"])
        if case is None:
            case = await queries.insert_case(db, new_id(), row["id"], statement)
            await self._kernel.audit.record(
                db, "work.verification_submitted", ("work", str(row["id"])), actor=account_id,
                new={"case_id": str(case["id"])},
            )  # fmt: skip
        return case

    @staticmethod
    async def _title_of(db: Any, work_id: UUID, number: int) -> str:
        """As it was in a version."""
        return str(msgspec.json.decode((await queries.version(db, work_id, number))["content"])["title"])

    async def _tell(self, db: Any, type_: str, row: Any, actor: UUID, title: str | None = None) -> None:
        """`was_public`: the creator's numbers count only what readers could see. `title`: another than that of now."""
        payload = {
            "creator_id": str(row["creator_id"]), "title": title or row["title"], "kind": row["kind"],
            "was_public": row["status"] == "published",
        }  # fmt: skip
        await self._kernel.events.publish(
            db, type_, ("work", str(row["id"])), payload, actor=actor, version=row["version"]
        )

    async def _audit(
        self, db: Any, action: str, work_id: UUID, caller: Caller, old: Mapping[str, Any] | None, new: Mapping[str, Any]
    ) -> None:
        await self._kernel.audit.record(db, action, ("work", str(work_id)), actor=caller.account_id, old=old, new=new)


def content_of(row: Any, assets: list[Any], chapters: list[Any] | None) -> bytes:
    """What a version's digest is of: JSON in UTF-8, keys in order, without spaces (docs/decisions/0028 and 0068).

    `chapters` by place, of kinds that have them; each with the digest of its text or file.
    """
    content: dict[str, Any] = {
        "kind": row["kind"], "title": row["title"], "description": row["description"], "category": row["category"],
        "genres": list(row["genres"]), "tags": list(row["tags"]), "language": row["language"],
        "metadata": msgspec.json.decode(row["metadata"]),
        "files": [
            {"role": asset["role"], "sha256": bytes(asset["sha256"]).hex(), "size_bytes": asset["size_bytes"],
             "type": asset["type"]}
            for asset in assets
        ],
    }  # fmt: skip
    if chapters is not None:
        content["chapters"] = [
            {"number": chapter["number"], "sha256": bytes(chapter["sha256"]).hex(), "title": chapter["title"]}
            for chapter in chapters
        ]
    return msgspec.json.encode(content, order="sorted")


def check_open(row: Any) -> None:
    """Raises ApiError CONFLICT `not_editable` for what is archived or suspended."""
    if row["status"] in ("archived", "suspended"):
        raise ApiError(ErrorCode.CONFLICT, f"The work is {row['status']}.", reason="not_editable")


def work_of(row: Any) -> Work:
    return Work(
        id=str(row["id"]), creator_id=str(row["creator_id"]), kind=row["kind"], title=row["title"],
        description=row["description"], category=row["category"], genres=list(row["genres"]), tags=list(row["tags"]),
        language=row["language"], metadata=_metadata(msgspec.json.decode(row["metadata"])), status=row["status"],
        verification_status=row["verification_status"], content_version=row["content_version"],
        published_at=timestamp(row["published_at"]) if row["published_at"] else None,
        created_at=timestamp(row["created_at"]), updated_at=timestamp(row["updated_at"]), version=row["version"],
        purchase_count=row["purchase_count"], view_count=row["view_count"],
        rating=_average(row["rating_sum"], row["rating_count"]), rating_count=row["rating_count"],
    )  # fmt: skip


def _as_shown(work: Work, version: Any) -> Work:
    """As it was in the version that readers got last."""
    content = msgspec.json.decode(version["content"])
    return msgspec.structs.replace(
        work, title=content["title"], description=content["description"], category=content["category"],
        genres=content["genres"], tags=content["tags"], language=content["language"],
        metadata=_metadata(content["metadata"]), content_version=version["number"],
    )  # fmt: skip


def _metadata(kept: dict[str, Any]) -> Metadata:
    """Without the rules of requests: what was taken under earlier ones is told as long as its work is."""
    credits = {"credits": [Credit(**credit) for credit in kept["credits"]]} if "credits" in kept else {}
    return Metadata(**kept | credits)


def _average(total: int, count: int) -> str | None:
    """Two decimals, rounded half up; None without any."""
    hundredths = (200 * total + count) // (2 * count) if count else None
    return None if hundredths is None else f"{hundredths // 100}.{hundredths % 100:02}"


def _columns(fields: Mapping[str, Any], kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fields of a body as columns, with those that search derives from them."""
    found = dict(fields)
    whole = dict(kept or {}) | found
    if "metadata" in found:
        found["metadata"] = msgspec.json.encode(found["metadata"]).decode()
    for name in ("genres", "tags"):
        if name in found:
            found[name] = list(dict.fromkeys(found[name]))
    return found | {"keywords": " ".join(whole["tags"]), "search_words": finding.search_words(whole["language"])}


def _check_metadata(kind: str, metadata: Metadata) -> None:
    named = [name for name in Metadata.__struct_fields__ if getattr(metadata, name) is not msgspec.UNSET]
    strange = [name for name in named if name not in KIND_FIELDS[kind]]
    if strange:
        message = f"metadata: {strange[0]} is no field of the kind {kind}"
        raise ApiError(
            ErrorCode.VALIDATION_ERROR, message, reason="wrong_kind", field="metadata",
            details={"allowed": list(KIND_FIELDS[kind])},
        )  # fmt: skip


def _case(row: Any, title: str) -> VerificationCase:
    return VerificationCase(
        str(row["id"]), row["version"], str(row["work_id"]), title, row["statement"], row["status"],
        timestamp(row["submitted_at"]), row["reason"],
    )  # fmt: skip
