"""Routes of works, their versions, verification, lists and search. Parts of a work are in `part_routes.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from platform_api.creators.models import PendingVerification
from platform_api.creators.service import CreatorService
from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, IfMatch, Limit, ok, path_id, tagged
from platform_api.errors import ApiError, ErrorCode
from platform_api.idempotency import IdempotencyKey, checked_key
from platform_api.money import UNITS_MAX
from platform_api.openapi import BEARER, failures
from platform_api.routing import CHANGES, READS, READS_ONE, AnyRequest, Visitor, Who
from platform_api.security import permitted, unauthorized
from platform_api.texts import LINE, SearchText
from platform_api.works.models import (
    RatingRequest,
    StaffReason,
    VerificationCase,
    VerificationDecision,
    VerificationRequest,
    Work,
    WorkKind,
    WorkPatch,
    WorkRequest,
    WorkSort,
    WorkStatus,
    WorkVersion,
)
from platform_api.works.service import WorkService

__all__ = ["CreatorWorksController", "WorkController", "WorkStaffController"]

Works = NamedDependency[WorkService]
Code = Annotated[str | None, QueryParameter(max_length=50, pattern=r"^[a-z0-9_]+$(?!\n)")]
Tag = Annotated[str | None, QueryParameter(max_length=50, pattern=LINE)]
Language = Annotated[str | None, QueryParameter(max_length=35, pattern=r"^[A-Za-z0-9-]+$(?!\n)")]
Price = Annotated[str | None, QueryParameter(max_length=41, pattern=r"^[0-9]{1,20}(\.[0-9]{1,20})?$(?!\n)")]
AssetName = Annotated[str, QueryParameter(max_length=32, pattern=r"^[A-Z0-9_.-]+$(?!\n)")]


class WorkController(Controller):
    path = "/v1/works"
    tags = ("works",)

    @get("/", responses=READS)
    async def list_works(
        self, request: AnyRequest, works: Works, visitor: Visitor, kind: FromQuery[WorkKind | None] = None,
        category: Code = None, genre: Code = None, tag: Tag = None, language: Language = None,
        creator_id: FromQuery[UUID | None] = None, price_min: Price = None, price_max: Price = None,
        asset: AssetName = "USDC", status: FromQuery[WorkStatus] = "published", sort: FromQuery[WorkSort] = "newest",
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Work]]:  # fmt: skip
        """Published works, the newest first. Any other status: the caller's own works, and no other filter counts.

        A page may hold fewer works than `limit`, or none, and yet have a `next_cursor`: where thousands fit, but few of
        the next 2,000 in the order asked for. The list ends where there is no cursor.
        """
        if status != "published":
            if visitor is None:
                raise unauthorized("token_missing", "This needs an access token.")
            return ok(request, *await works.catalog.own(visitor, status, cursor, limit))
        filters = await _filters(works, kind, category, genre, tag, language, creator_id, price_min, price_max, asset)
        return ok(request, *await works.catalog.browse(sort, filters, cursor, limit))

    @post("/", security=BEARER, guards=[permitted("create_ip")], responses=failures(400, 401, 403, 409, 429, 503))
    async def create(
        self, request: AnyRequest, data: JSONBody[WorkRequest], caller: Who, works: Works,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Envelope[Work]]:  # fmt: skip
        """A draft, with its first version.

        For creators (403 `no_creator`), with `create_ip`. Nobody but those who make it, and moderators, sees it until
        it is published. Its `kind` is for good, and says which `metadata` it may have (400 `wrong_kind`).
        """
        work, _ = await works.catalog.create(caller, data, checked_key(idempotency_key))
        return tagged(ok(request, work), work.version)

    @get("/search", responses=READS)
    async def search(
        self, request: AnyRequest, works: Works, q: SearchText, kind: FromQuery[WorkKind | None] = None,
        category: Code = None, genre: Code = None, tag: Tag = None, language: Language = None,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Work]]:  # fmt: skip
        """Full text over titles, tags and descriptions, the best first. The last word may be a beginning.

        A title that is just `q` is always found, and first. Other matches are looked for among the newest 2,000 works,
        of one category, kind or language if that is asked: if 50 or more of them match, the newest 200 of those are
        ranked, and older works are left out. Ask for more words, or a filter, where there are more. If fewer match,
        older works are ranked beside them; of more than 1,000 such works, some. Each page is of what is ranked when it
        is asked for: as works change, one may come twice, and one that enters further up is left out. Words are reduced
        as in `language`, or as in English. To leave words out, as in `-horse`, takes others to be found.
        """
        filters = await _filters(works, kind, category, genre, tag, language, None, None, None, "USDC")
        return ok(request, *await works.catalog.search(q, language, filters, cursor, limit))

    @get("/{work_id:str}", responses=READS_ONE)
    async def read(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, works: Works
    ) -> Response[Envelope[Work]]:
        """A published work; one that is not, for those who made it.

        Readers get it as it was last shown, those who make it as it is. A visitor counts as one view a day.
        """
        work = await works.catalog.read(visitor, path_id(work_id, "work"))
        return tagged(ok(request, work), work.version)

    @patch(
        "/{work_id:str}", security=BEARER, guards=[permitted("edit_own", "edit_any_work", either=True)],
        responses=CHANGES,
    )  # fmt: skip
    async def change(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[WorkPatch], caller: Who, works: Works,
        if_match: IfMatch = None,
    ) -> Response[Envelope[Work]]:  # fmt: skip
        """Change a work: its next version.

        By its owner, or by a moderator who corrects it; absent fields stay. 409 `not_editable` once it is archived or
        suspended. Where the operator has works looked at first, a published one is out of sight until somebody has
        approved the change.
        """
        work = await works.catalog.change(caller, path_id(work_id, "work"), data, if_match)
        return tagged(ok(request, work), work.version)

    @delete(
        "/{work_id:str}", status_code=200, security=BEARER,
        guards=[permitted("delete_own", "delete_any_work", either=True)], responses=CHANGES,
    )  # fmt: skip
    async def remove(self, request: AnyRequest, work_id: FromPath[str], caller: Who, works: Works) -> Envelope[None]:
        """Delete a work that was never sold. Its versions are kept."""
        await works.catalog.delete(caller, path_id(work_id, "work"))
        return ok(request, None)

    @post(
        "/{work_id:str}/publish", status_code=200, security=BEARER, guards=[permitted("edit_own")], responses=CHANGES
    )
    async def publish(
        self, request: AnyRequest, work_id: FromPath[str], caller: Who, works: Works, if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Envelope[Work]]:  # fmt: skip
        """Publish a draft. It needs a master file, or a published chapter if its kind has chapters."""
        id_ = path_id(work_id, "work")
        work = await works.catalog.publish(caller, id_, if_match, checked_key(idempotency_key))
        return tagged(ok(request, work), work.version)

    @post(
        "/{work_id:str}/archive", status_code=200, security=BEARER, guards=[permitted("edit_own")], responses=CHANGES
    )
    async def archive(
        self, request: AnyRequest, work_id: FromPath[str], caller: Who, works: Works, if_match: IfMatch = None
    ) -> Response[Envelope[Work]]:
        """Take a published work off all lists. Who bought it keeps it."""
        work = await works.catalog.archive(caller, path_id(work_id, "work"), if_match)
        return tagged(ok(request, work), work.version)

    @post(
        "/{work_id:str}/verification", status_code=202, security=BEARER, guards=[permitted("edit_own")],
        responses=CHANGES,
    )  # fmt: skip
    async def submit(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[VerificationRequest], caller: Who,
        works: Works,
    ) -> Envelope[VerificationCase]:  # fmt: skip
        """Ask to have a work verified.

        By its owner; somebody of the platform decides. 409 `verification_pending` or `verification_approved` if that is
        so already.
        """
        return ok(request, await works.catalog.submit(caller, path_id(work_id, "work"), data))

    @put("/{work_id:str}/rating", status_code=200, security=BEARER, responses=CHANGES)
    async def rate(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[RatingRequest], caller: Who, works: Works
    ) -> Envelope[Work]:
        """Rate a work that one bought or rented, or a chapter of which, in the place of one's earlier rating.

        A purchase that is given back whole takes the rating with it.
        """
        return ok(request, await works.ratings.rate(caller, path_id(work_id, "work"), data.stars))

    @delete("/{work_id:str}/rating", status_code=200, security=BEARER, responses=CHANGES)
    async def withdraw_rating(
        self, request: AnyRequest, work_id: FromPath[str], caller: Who, works: Works
    ) -> Envelope[Work]:
        """Take one's rating back. Again: the same."""
        return ok(request, await works.ratings.withdraw(caller, path_id(work_id, "work")))

    @get("/{work_id:str}/versions", security=BEARER, responses=READS_ONE)
    async def versions(
        self, request: AnyRequest, work_id: FromPath[str], caller: Who, works: Works, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[WorkVersion]]:  # fmt: skip
        """All versions of a work, the latest first, for those who made it. A page of long ones is shorter than asked
        for; its `limit` says how many it holds."""
        return ok(request, *await works.catalog.versions(caller, path_id(work_id, "work"), cursor, limit))


class CreatorWorksController(Controller):
    path = "/v1/creators"
    tags = ("works",)

    @get("/{creator_id:str}/works", responses=READS_ONE)
    async def works_of(
        self, request: AnyRequest, creator_id: FromPath[str], works: Works, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Work]]:  # fmt: skip
        """A creator's published works, the newest first."""
        return ok(request, *await works.catalog.of_creator(path_id(creator_id, "creator"), cursor, limit))


class WorkStaffController(Controller):
    path = "/v1/admin"
    tags = ("admin",)
    security = BEARER

    @get("/verifications", responses=READS)
    async def pending(
        self, request: AnyRequest, caller: Who, works: Works, creators: NamedDependency[CreatorService],
        kind: Annotated[Literal["work", "creator"], QueryParameter(name="type")] = "work",
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[PendingVerification]]:  # fmt: skip
        """What waits for a decision, the longest first. Needs `verify_ip` for works, `verify_users` for creators."""
        needed = {"work": "verify_ip", "creator": "verify_users"}[kind]
        if not caller.may(needed):
            message = f"This needs the permission {needed}."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="permission_missing", details={"permissions": [needed]})
        if kind == "creator":
            return ok(request, *await creators.pending(cursor, limit))
        cases, pagination = await works.catalog.pending(cursor, limit)
        shown = [
            PendingVerification(case.id, case.version, "work", case.work_id, case.title, case.statement, [], [], [],
                                case.submitted_at)  # fmt: skip
            for case in cases
        ]
        return ok(request, shown, pagination)

    @post(
        "/works/{work_id:str}/verification-decision", status_code=200, guards=[permitted("verify_ip")],
        responses=CHANGES,
    )  # fmt: skip
    async def decide(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[VerificationDecision], caller: Who,
        works: Works,
    ) -> Envelope[VerificationCase]:  # fmt: skip
        """Approve or reject a work, or chapters of it. An approval names the case as it was when it was looked at
        (`changed_since` if it is another now). Needs `verify_ip`; never one's own."""
        return ok(request, await works.catalog.decide(caller, path_id(work_id, "work"), data))

    @post("/works/{work_id:str}/suspend", status_code=200, guards=[permitted("moderate_content")], responses=CHANGES)
    async def suspend(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[StaffReason], caller: Who, works: Works
    ) -> Envelope[Work]:
        """Take a published work out of sight; who bought it keeps it. Needs `moderate_content`; never one's own."""
        return ok(request, await works.catalog.suspend(caller, path_id(work_id, "work"), data.reason))

    @post("/works/{work_id:str}/resume", status_code=200, guards=[permitted("moderate_content")], responses=CHANGES)
    async def resume(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[StaffReason], caller: Who, works: Works
    ) -> Envelope[Work]:
        """Show a suspended work again. Needs `moderate_content`; never one's own."""
        return ok(request, await works.catalog.resume(caller, path_id(work_id, "work"), data.reason))


async def _filters(
    works: WorkService, kind: str | None, category: str | None, genre: str | None, tag: str | None,
    language: str | None, creator_id: UUID | None, price_min: str | None, price_max: str | None, asset: str,
) -> dict[str, Any]:  # fmt: skip
    """Those that were asked for."""
    found: dict[str, Any] = {
        "kind": kind, "category": category, "genre": genre, "tag": tag, "language": language, "creator_id": creator_id,
    }  # fmt: skip
    if price_min is not None or price_max is not None:
        least, most = await works.offers.bounds(asset, price_min, price_max)
        found["price"] = (asset, least or 0, UNITS_MAX if most is None else most)
    return {name: value for name, value in found.items() if value is not None}
