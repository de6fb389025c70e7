"""Chapters of stories and courses: places without a gap, texts in NFC, every text kept.

    draft ──publish──▶ published ⇄ unpublished          any ──▶ deleted, and the places behind it move up
      │  ▲               ▲  │
      │  │      approved │  │ changed
      ▼  │               │  ▼
     in_review ──────────┴ in_review       where the settings want a verification, of a work that was shown to readers:
                                           the work stays as it was looked at, without what is new of it; a chapter
                                           in review can be taken back, as `unpublish`

A text has 100 to 10,000 Unicode code points after NFC, and its digest is SHA-256 of that text in UTF-8, so whoever has
the text can check it. Readers get it if the chapter is a preview; else its owner and collaborators, and whoever is
entitled to it: who was so when it was taken out of sight reads it further, as it was then, and it is not deleted once
the work was sold. All changes of one work's chapters come one after the other, under the lock of the work.
"""

from __future__ import annotations

import hashlib
import unicodedata
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from platform_api.envelope import Pagination, check_version, cursor_from, given, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer
from platform_api.ids import new_id
from platform_api.kernel.audit import Change
from platform_api.kernel.context import Kernel
from platform_api.media.service import MediaService
from platform_api.security import Caller
from platform_api.works import queries
from platform_api.works.catalog import SERIALS, Catalog, check_open
from platform_api.works.models import (
    BODY_MAX,
    BODY_MIN,
    Chapter,
    ChapterDetail,
    ChapterPatch,
    ChapterRequest,
    ChapterVersion,
)

__all__ = ["Chapters", "checked_body"]

CHAPTERS_MAX = 2_000
"""Each change of one writes a version of the work, which names them all."""


class Chapters:
    def __init__(self, kernel: Kernel, catalog: Catalog) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._catalog = catalog
        self._media = kernel.service(MediaService)
        catalog.decide_chapters = self._decided

    async def add(self, caller: Caller, work_id: UUID, body: ChapterRequest, key: str | None) -> tuple[Chapter, bool]:
        """At the end. Raises ApiError NOT_FOUND, CONFLICT `no_chapters`, INVALID_CONTENT_FORMAT, VALIDATION_ERROR."""

        async def change(db: Any) -> Answer:
            work = await self._catalog.lock_own(db, caller, work_id)
            check_open(work)
            if work["kind"] not in SERIALS:
                message = f"Chapters are of {' and '.join(SERIALS)}, not of {work['kind']}."
                raise ApiError(ErrorCode.CONFLICT, message, reason="no_chapters")
            text, file_id, digest = await self._content(db, caller, body.body, body.file_id)
            number = await queries.chapter_count(db, work_id) + 1
            if number > CHAPTERS_MAX:
                raise ApiError(ErrorCode.CONFLICT, f"At most {CHAPTERS_MAX} chapters.", reason="too_many_chapters")
            chapter_id = new_id()
            await queries.insert_chapter(db, chapter_id, work_id, number, msgspec.structs.asdict(body))
            await queries.insert_chapter_version(
                db, chapter_id, 1, body.title, text, file_id, digest, "", UUID(caller.account_id)
            )
            await self._catalog.keep_version(db, work, f"chapter {number} added", UUID(caller.account_id))
            return 201, msgspec.json.encode(_chapter(await queries.chapter(db, chapter_id)))

        answer, replayed = await self._kernel.idempotency.once(
            caller.account_id, "POST /v1/works/chapters", key, [str(work_id), body], change
        )
        return msgspec.json.decode(answer[1], type=Chapter), replayed

    async def list_of(
        self, visitor: Caller | None, work_id: UUID, cursor: str | None, limit: int
    ) -> tuple[list[Chapter], Pagination]:
        """By place; drafts only for those inside. Raises ApiError NOT_FOUND."""
        (after,) = cursor_from(cursor, int) or (0,)
        async with self._database.connection() as db:
            _, inside = await self._catalog.visible(db, visitor, work_id)
            rows = await queries.chapters(db, work_id, public=not inside, after=min(after, 2**31 - 1), limit=limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["number"],))
        return [_chapter(row) for row in rows], pagination

    async def read(
        self, visitor: Caller | None, work_id: UUID, chapter_id: UUID, number: int | None = None
    ) -> ChapterDetail:
        """With its content for who may read it: the latest version, or one that readers got when the reader bought it,
        or later. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row, inside = await self._visible(db, visitor, chapter_id)
            if row["work_id"] != work_id:
                raise unknown("chapter")
            latest = row["content_version"] if inside else _shown_version(row)
            if number is not None and not 1 <= number <= latest:
                raise unknown("version")
            version = shown = await queries.chapter_version(db, chapter_id, latest)
            if number in (None, latest):
                is_open = inside or row["preview"] or await self._catalog.may_use(db, visitor, work_id, chapter_id)
            else:
                version = await queries.chapter_version(db, chapter_id, number)
                is_open = inside or await self._could_read(db, visitor, row, number)
                if not is_open:
                    raise unknown("version")
        about = msgspec.structs.replace(_chapter(row), title=shown["title"], content_version=latest)
        return ChapterDetail(
            about, not is_open, version["body"] if is_open else None,
            str(version["file_id"]) if is_open and version["file_id"] else None, bytes(version["sha256"]).hex(),
        )  # fmt: skip

    async def files_of(self, db: Any, work_id: UUID, chapter_id: UUID, since: datetime) -> list[tuple[str, UUID]]:
        """Titles and files of a chapter that is one, published then or later, for who may use it `since` then: the
        latest that readers get, and the one that they got at that time. Raises ApiError NOT_FOUND."""
        row = await queries.chapter(db, chapter_id)
        if row is None or row["work_id"] != work_id:
            raise unknown("chapter")
        if row["status"] != "published" and (row["unpublished_at"] is None or row["unpublished_at"] < since):
            raise unknown("chapter")
        versions = await queries.chapter_versions_since(db, chapter_id, since, _shown_version(row))
        files = {version["file_id"]: version["title"] for version in versions if version["file_id"] is not None}
        return [(title, file_id) for file_id, title in files.items()]

    async def change(self, caller: Caller, chapter_id: UUID, body: ChapterPatch, if_match: str | None) -> Chapter:
        """Raises ApiError NOT_FOUND, CONFLICT, INVALID_CONTENT_FORMAT, VALIDATION_ERROR."""
        changes = given(body)
        note, number = changes.pop("change_note"), changes.pop("number", None)
        content = {name: changes.pop(name) for name in ("body", "file_id") if name in changes}
        async with self._database.transaction() as db:
            row, work = await self._lock_own(db, caller, chapter_id)
            check_version(if_match, row["version"])
            before = await queries.chapter_version(db, chapter_id, row["content_version"])
            text, file_id, digest = before["body"], before["file_id"], bytes(before["sha256"])
            if content:
                text, file_id, digest = await self._content(db, caller, content.get("body"), content.get("file_id"))
            if number is not None and number != row["number"]:
                await self._move(db, row, number)
                changes["number"] = number
            if changes:
                await queries.update_chapters(db, [chapter_id], changes)
            title = changes.get("title", row["title"])
            if digest != bytes(before["sha256"]) or title != before["title"]:
                if not changes:
                    await queries.update_chapters(db, [chapter_id], {"preview": row["preview"]})
                await queries.insert_chapter_version(
                    db, chapter_id, before["number"] + 1, title, text, file_id, digest, note, UUID(caller.account_id)
                )
                await self._note_turn(db, row)
                if row["status"] == "published":
                    if await self._waits(db, row, work):
                        await self._submit(db, row)  # as it was before
                    else:
                        await queries.show_latest(db, [chapter_id], datetime.now(UTC))
            note = note or f"chapter {row['number']} changed"
            await self._catalog.keep_version(db, work, note, UUID(caller.account_id))
            return _chapter(await queries.chapter(db, chapter_id))

    async def delete(self, caller: Caller, chapter_id: UUID) -> None:
        """Softly; its versions stay. Raises ApiError NOT_FOUND; CONFLICT `sold`."""
        async with self._database.transaction() as db:
            row, work = await self._lock_own(db, caller, chapter_id)
            was_shown = row["published_at"] is not None
            if was_shown and (work["sold"] or await self._catalog.is_being_paid(db, work["id"])):
                raise ApiError(ErrorCode.CONFLICT, "The work was sold: unpublish it instead.", reason="sold")
            await queries.update_chapters(db, [chapter_id], {"status": "deleted", "number": None})
            await queries.end_shown(db, [chapter_id], datetime.now(UTC))
            await queries.close_gap(db, row["work_id"], row["number"])
            await self._catalog.keep_version(db, work, f"chapter {row['number']} deleted", UUID(caller.account_id))
            await self._audit(db, "chapter.deleted", row, row["account_id"], {"number": None})
            await self._note_turn(db, row)
            if row["status"] == "in_review":
                await self._catalog.chapter_taken_back(db, work, row["account_id"])

    async def publish(self, caller: Caller, chapter_id: UUID, if_match: str | None) -> Chapter:
        """Or have it looked at first. Again: the same. Raises ApiError NOT_FOUND, CONFLICT."""
        async with self._database.transaction() as db:
            row, work = await self._lock_own(db, caller, chapter_id)
            check_version(if_match, row["version"])
            if row["status"] in ("draft", "unpublished"):
                await queries.turn_case(db, work["id"])
                if await self._waits(db, row, work):
                    await self._submit(db, row)
                else:
                    await self._publish(db, [row], work, row["account_id"])
            return _chapter(await queries.chapter(db, chapter_id))

    async def unpublish(self, caller: Caller, chapter_id: UUID, if_match: str | None) -> Chapter:
        """Or take it back from review, before anybody has decided. Who bought it before keeps it. Raises ApiError
        NOT_FOUND; CONFLICT `not_published`."""
        async with self._database.transaction() as db:
            row, work = await self._lock_own(db, caller, chapter_id)
            check_version(if_match, row["version"])
            if row["status"] not in ("published", "in_review"):
                raise ApiError(ErrorCode.CONFLICT, "The chapter is not published.", reason="not_published")
            await self._note_turn(db, row)
            status = _before_review(row)
            if row["status"] == "in_review":
                await queries.update_chapters(db, [chapter_id], {"status": status})
                await self._catalog.chapter_taken_back(db, work, row["account_id"])
            else:
                await self._hide(db, row, status)
            await self._audit(db, "chapter.unpublished", row, row["account_id"], {"status": status})
            return _chapter(await queries.chapter(db, chapter_id))

    async def versions(
        self, caller: Caller, chapter_id: UUID, cursor: str | None, limit: int
    ) -> tuple[list[ChapterVersion], Pagination]:
        """For those inside. Raises ApiError NOT_FOUND."""
        (before,) = cursor_from(cursor, int) or (None,)
        async with self._database.connection() as db:
            _, inside = await self._visible(db, caller, chapter_id)
            if not inside:
                raise unknown("chapter")
            rows = await queries.chapter_versions(db, chapter_id, before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["number"],))
        return [
            ChapterVersion(row["number"], row["title"], bytes(row["sha256"]).hex(), row["change_note"],
                           timestamp(row["created_at"]))
            for row in rows
        ], pagination  # fmt: skip

    async def own_version(self, db: Any, caller: Caller, chapter_id: UUID, number: int | None) -> tuple[Any, Any]:
        """The caller's work, locked, and a version of its chapter, the latest unless told. Raises ApiError."""
        chapter, work = await self._lock_own(db, caller, chapter_id)
        row = await queries.chapter_version(db, chapter_id, chapter["content_version"] if number is None else number)
        if row is None:
            raise unknown("version")
        return work, row

    async def known_title(self, db: Any, chapter_id: UUID, number: int) -> str | None:
        """Of a version of a chapter, for everybody: None if readers never got it."""
        return await queries.shown_title(db, chapter_id, number)

    async def _visible(self, db: Any, visitor: Caller | None, chapter_id: UUID) -> tuple[Any, bool]:
        row = await queries.chapter(db, chapter_id)
        if row is None:
            raise unknown("chapter")
        try:
            _, inside = await self._catalog.visible(db, visitor, row["work_id"])
        except ApiError as error:
            raise unknown("chapter") from error
        if not inside and row["status"] != "published":
            since = row["unpublished_at"]
            if since is None or not await self._catalog.may_use(db, visitor, row["work_id"], chapter_id, since):
                raise unknown("chapter")
        return row, inside

    async def _could_read(self, db: Any, visitor: Caller | None, row: Any, number: int) -> bool:
        """Whether readers got this version of the chapter once, and the visitor has a right from before they ceased
        to: what nobody has looked at, a rejected text or a draft, nobody bought."""
        since = await queries.shown_until(db, row["id"], number)
        return since is not None and await self._catalog.may_use(db, visitor, row["work_id"], row["id"], since)

    async def _lock_own(self, db: Any, caller: Caller, chapter_id: UUID) -> tuple[Any, Any]:
        """The chapter under the lock of its work, and the work."""
        row = await queries.chapter(db, chapter_id)
        if row is None or str(row["account_id"]) != caller.account_id:
            raise unknown("chapter")
        work = await queries.lock_work(db, row["work_id"])
        row = await queries.chapter(db, chapter_id)  # as it is under the lock
        if work is None or row is None:
            raise unknown("chapter")
        check_open(work)
        return row, work

    async def _content(
        self, db: Any, caller: Caller, body: str | None, file_id: UUID | None
    ) -> tuple[str | None, UUID | None, bytes]:
        if (body is None) == (file_id is None):
            message = "body: give either a body or a file_id"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="body")
        if body is not None:
            text = checked_body(body)
            return text, None, hashlib.sha256(text.encode()).digest()
        assert file_id is not None
        files = await self._media.owned(db, UUID(caller.account_id), [file_id], "file_id")
        return None, file_id, bytes.fromhex(files[file_id].sha256)

    @staticmethod
    async def _move(db: Any, row: Any, number: int) -> None:
        if number > await queries.chapter_count(db, row["work_id"]):
            message = "number: there is no such place"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="no_such_place", field="number")
        await queries.close_gap(db, row["work_id"], row["number"])
        await queries.make_gap(db, row["work_id"], number)

    # In sight.

    async def _waits(self, db: Any, row: Any, work: Any) -> bool:
        return await self._catalog.look_at_chapter(db, work, f"chapter {row['number']}", row["account_id"])

    @staticmethod
    async def _note_turn(db: Any, row: Any) -> None:
        """Of a chapter, as it was before, that is part of what somebody may be looking at now."""
        if row["status"] in ("published", "in_review"):
            await queries.turn_case(db, row["work_id"])

    async def _submit(self, db: Any, row: Any) -> None:
        """Who could read it reads what was looked at further."""
        if row["status"] == "published":
            await self._hide(db, row, "in_review")
        else:
            await queries.update_chapters(db, [row["id"]], {"status": "in_review"})
        await self._audit(db, "chapter.submitted", row, row["account_id"], {"status": "in_review"})

    @staticmethod
    async def _hide(db: Any, row: Any, status: str) -> None:
        """From now on, with `row` as it was."""
        at = datetime.now(UTC)
        hidden = {"status": status, "unpublished_at": at, "shown_version": row["content_version"]}
        await queries.update_chapters(db, [row["id"]], hidden)
        await queries.end_shown(db, [row["id"]], at)

    async def _decided(self, db: Any, work: Any, approved: bool, actor: UUID, reason: str) -> None:
        """All that wait of the work; what is rejected is what it was before it was first shown, or unpublished."""
        rows = await queries.chapters_in_review(db, work["id"])
        if approved:
            await self._publish(db, rows, work, actor)
            return
        for status in ("draft", "unpublished"):
            ids = [row["id"] for row in rows if _before_review(row) == status]
            await queries.update_chapters(db, ids, {"status": status})
        told = [(_subject(row), _told(row, work)) for row in rows]
        await self._kernel.events.publish_each(db, "chapter.rejected", told, actor=actor)
        changes = [_change(row, {"status": _before_review(row), "reason": reason}) for row in rows]
        await self._kernel.audit.record_each(db, "chapter.rejected", changes, actor=actor)

    async def _publish(self, db: Any, rows: list[Any], work: Any, actor: UUID) -> None:
        """All at once: there may be two thousand, and a statement for each would take seconds."""
        await queries.publish_chapters(db, [row["id"] for row in rows], datetime.now(UTC))
        told = [
            (_subject(row), _told(row, work) | {"first": row["published_at"] is None,
                                                "was_public": work["status"] == "published"})
            for row in rows
        ]  # fmt: skip
        await self._kernel.events.publish_each(db, "chapter.published", told, actor=work["account_id"])
        changes = [_change(row, {"status": "published"}) for row in rows]
        await self._kernel.audit.record_each(db, "chapter.published", changes, actor=actor)

    async def _audit(self, db: Any, action: str, row: Any, actor: UUID, new: dict[str, Any]) -> None:
        await self._kernel.audit.record_each(db, action, [_change(row, new)], actor=actor)


def _before_review(row: Any) -> str:
    """The status of a chapter that is not to be in sight."""
    return "draft" if row["published_at"] is None else "unpublished"


def _shown_version(row: Any) -> int:
    """The latest that is for readers."""
    number: int = row["content_version"] if row["status"] == "published" else row["shown_version"]
    return number


def _subject(row: Any) -> tuple[str, str]:
    return "chapter", str(row["id"])


def _change(row: Any, new: dict[str, Any]) -> Change:
    """For the audit, with `row` as it was before."""
    return _subject(row), {name: row[name] for name in new if name in ("status", "number")}, new


def _told(row: Any, work: Any) -> dict[str, Any]:
    title = f"{work['title']}: {row['title']}"[:200]
    return {"creator_id": str(work["creator_id"]), "work_id": str(row["work_id"]), "title": title}


def checked_body(body: str) -> str:
    """The text in NFC. Raises ApiError INVALID_CONTENT_FORMAT with the lengths."""
    text = unicodedata.normalize("NFC", body)
    if not BODY_MIN <= len(text) <= BODY_MAX:
        message = f"body: must have {BODY_MIN} to {BODY_MAX} characters, not {len(text)}"
        raise ApiError(
            ErrorCode.INVALID_CONTENT_FORMAT, message, reason="chapter_length", field="body",
            details={"current_length": len(text), "min_length": BODY_MIN, "max_length": BODY_MAX},
        )  # fmt: skip
    return text


def _chapter(row: Any) -> Chapter:
    return Chapter(
        str(row["id"]), str(row["work_id"]), row["number"], row["title"], row["preview"], row["duration_seconds"],
        row["status"], row["content_version"], timestamp(row["published_at"]) if row["published_at"] else None,
        row["version"],
    )  # fmt: skip
