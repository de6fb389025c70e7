"""Routes of what a work consists of: chapters, files, collaborators, offers."""

from __future__ import annotations

from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, IfMatch, Limit, ok, path_id, tagged
from platform_api.idempotency import IdempotencyKey, checked_key
from platform_api.openapi import BEARER
from platform_api.routing import CHANGES, READS_ONE, AnyRequest, Visitor, Who
from platform_api.security import permitted
from platform_api.works.models import (
    Asset,
    AssetRequest,
    Chapter,
    ChapterDetail,
    ChapterPatch,
    ChapterRequest,
    ChapterVersion,
    Collaborators,
    CollaboratorsRequest,
    Consent,
    Offer,
    OfferPatch,
    OfferRequest,
)
from platform_api.works.service import WorkService

__all__ = ["ChapterController", "OfferController", "WorkPartController"]

Works = NamedDependency[WorkService]


class WorkPartController(Controller):
    path = "/v1/works/{work_id:str}"
    tags = ("works",)

    @get("/chapters", responses=READS_ONE)
    async def chapters(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, works: Works,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Chapter]]:  # fmt: skip
        """Chapters by their places; drafts only for those who make the work.

        Without their contents: these are at `GET /v1/works/{work_id}/chapters/{chapter_id}`.
        """
        return ok(request, *await works.chapters.list_of(visitor, path_id(work_id, "work"), cursor, limit))

    @post("/chapters", security=BEARER, guards=[permitted("edit_own")], responses=CHANGES)
    async def add_chapter(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[ChapterRequest], caller: Who, works: Works,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Envelope[Chapter]]:  # fmt: skip
        """Add a chapter at the end: a text of 100 to 10,000 characters, or a file.

        Of a story or a course alone (409 `no_chapters`), by its owner, with `edit_own`; at most 2,000. It is a draft
        until it is published. Characters are counted after NFC (400 `chapter_length`).
        """
        id_ = path_id(work_id, "work")
        chapter, _ = await works.chapters.add(caller, id_, data, checked_key(idempotency_key))
        return tagged(ok(request, chapter), chapter.version)

    @get("/chapters/{chapter_id:str}", responses=READS_ONE)
    async def chapter(
        self, request: AnyRequest, work_id: FromPath[str], chapter_id: FromPath[str], visitor: Visitor, works: Works,
        version: FromQuery[int | None] = None,
    ) -> Response[Envelope[ChapterDetail]]:  # fmt: skip
        """A chapter; its content for who may read it. Buyers, and those who have a seat, read the version of their day
        too (`version`)."""
        ids = path_id(work_id, "chapter"), path_id(chapter_id, "chapter")
        detail = await works.chapters.read(visitor, *ids, version)
        return tagged(ok(request, detail), detail.chapter.version)

    @get("/assets", responses=READS_ONE)
    async def assets(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, works: Works
    ) -> Envelope[list[Asset]]:
        """Previews, posters, trailers and images; all files for those who make the work.

        Who may read one gets its URL at `GET /v1/files/{file_id}/url`.
        """
        return ok(request, await works.assets.list_of(visitor, path_id(work_id, "work")))

    @post("/assets", security=BEARER, guards=[permitted("edit_own")], responses=CHANGES)
    async def add_asset(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[AssetRequest], caller: Who, works: Works
    ) -> Envelope[Asset]:
        """Give a work a file in a role: its next version.

        By its owner, with `edit_own`: a file of one's own that is ready (400 `unknown_file`), of a type that suits its
        role (400 `wrong_type`); at most 500. Previews, posters, trailers and images are everybody's once the work is
        published.
        """
        return ok(request, await works.assets.add(caller, path_id(work_id, "work"), data))

    @delete(
        "/assets/{asset_id:str}", status_code=200, security=BEARER, guards=[permitted("edit_own")], responses=CHANGES
    )
    async def remove_asset(
        self, request: AnyRequest, work_id: FromPath[str], asset_id: FromPath[str], caller: Who, works: Works
    ) -> Envelope[None]:
        """Take a file away: the work's next version. Earlier ones still name it."""
        await works.assets.remove(caller, path_id(work_id, "work"), path_id(asset_id, "asset"))
        return ok(request, None)

    @get("/collaborators", responses=READS_ONE)
    async def collaborators(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, works: Works
    ) -> Envelope[Collaborators]:
        """Who made the work, in basis points; and the change that waits, for those it concerns."""
        return ok(request, await works.collaboration.read(visitor, path_id(work_id, "work")))

    @put("/collaborators", security=BEARER, guards=[permitted("edit_own")], responses=CHANGES)
    async def propose(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[CollaboratorsRequest], caller: Who,
        works: Works,
    ) -> Envelope[Collaborators]:  # fmt: skip
        """Propose the whole list. It counts when all agreed who are new, or whose share falls."""
        return ok(request, await works.collaboration.propose(caller, path_id(work_id, "work"), data))

    @post("/collaborators/consent", status_code=200, security=BEARER, responses=CHANGES)
    async def consent(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[Consent], caller: Who, works: Works
    ) -> Envelope[Collaborators]:
        """Agree to a change that names the caller, or refuse it.

        One refusal ends it. 409 `no_such_change` if another is proposed by now, so nobody agrees to what they have not
        seen.
        """
        return ok(request, await works.collaboration.answer(caller, path_id(work_id, "work"), data))

    @get("/offers", responses=READS_ONE)
    async def offers(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, works: Works
    ) -> Envelope[list[Offer]]:
        """What the work and its chapters are offered for. Those that have ended are told to those who make it alone."""
        return ok(request, await works.offers.list_of(visitor, path_id(work_id, "work")))

    @post("/offers", security=BEARER, guards=[permitted("edit_own")], responses=CHANGES)
    async def add_offer(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[OfferRequest], caller: Who, works: Works
    ) -> Response[Envelope[Offer]]:
        """Offer a work, or a chapter of it.

        By its owner, with `edit_own`. Of one kind and asset one is active for the work, and one for each chapter (409
        `offer_exists`). `access_seconds` count from the payment: a `rent` needs them, a `ppv` without them ends after
        48 hours.
        """
        offer = await works.offers.add(caller, path_id(work_id, "work"), data)
        return tagged(ok(request, offer), offer.version)


class ChapterController(Controller):
    path = "/v1/chapters/{chapter_id:str}"
    tags = ("works",)
    security = BEARER

    @patch("/", guards=[permitted("edit_own")], responses=CHANGES)
    async def change(
        self, request: AnyRequest, chapter_id: FromPath[str], data: JSONBody[ChapterPatch], caller: Who, works: Works,
        if_match: IfMatch = None,
    ) -> Response[Envelope[Chapter]]:  # fmt: skip
        """Change a chapter, or move it. New content makes a version."""
        chapter = await works.chapters.change(caller, path_id(chapter_id, "chapter"), data, if_match)
        return tagged(ok(request, chapter), chapter.version)

    @delete("/", status_code=200, guards=[permitted("edit_own")], responses=CHANGES)
    async def remove(self, request: AnyRequest, chapter_id: FromPath[str], caller: Who, works: Works) -> Envelope[None]:
        """Delete a chapter; those behind it move up. Its versions are kept."""
        await works.chapters.delete(caller, path_id(chapter_id, "chapter"))
        return ok(request, None)

    @post("/publish", status_code=200, guards=[permitted("edit_own")], responses=CHANGES)
    async def publish(
        self, request: AnyRequest, chapter_id: FromPath[str], caller: Who, works: Works, if_match: IfMatch = None
    ) -> Response[Envelope[Chapter]]:
        """Publish a chapter.

        Again: the same. Where the operator has works looked at first, it may be `in_review` until somebody has approved
        it.
        """
        chapter = await works.chapters.publish(caller, path_id(chapter_id, "chapter"), if_match)
        return tagged(ok(request, chapter), chapter.version)

    @post("/unpublish", status_code=200, guards=[permitted("edit_own")], responses=CHANGES)
    async def unpublish(
        self, request: AnyRequest, chapter_id: FromPath[str], caller: Who, works: Works, if_match: IfMatch = None
    ) -> Response[Envelope[Chapter]]:
        """Take a published chapter back, or one that waits for a look.

        Who bought it before reads it further, as it was. 409 `not_published` for any other.
        """
        chapter = await works.chapters.unpublish(caller, path_id(chapter_id, "chapter"), if_match)
        return tagged(ok(request, chapter), chapter.version)

    @get("/versions", responses=READS_ONE)
    async def versions(
        self, request: AnyRequest, chapter_id: FromPath[str], caller: Who, works: Works, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[ChapterVersion]]:  # fmt: skip
        """All versions of a chapter, the latest first, for those who make the work.

        A digest is the SHA-256 of the text (NFC, UTF-8) or of the file.
        """
        return ok(request, *await works.chapters.versions(caller, path_id(chapter_id, "chapter"), cursor, limit))


class OfferController(Controller):
    path = "/v1/offers"
    tags = ("works",)
    security = BEARER

    @patch("/{offer_id:str}", guards=[permitted("edit_own")], responses=CHANGES)
    async def change(
        self, request: AnyRequest, offer_id: FromPath[str], data: JSONBody[OfferPatch], caller: Who, works: Works,
        if_match: IfMatch = None,
    ) -> Response[Envelope[Offer]]:  # fmt: skip
        """Change the price of an offer, or end it. What was bought stays as it was."""
        offer = await works.offers.change(caller, path_id(offer_id, "offer"), data, if_match)
        return tagged(ok(request, offer), offer.version)
