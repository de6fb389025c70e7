"""Routes of creators."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from platform_api.creators.models import (
    Achievements,
    Activity,
    Analytics,
    ContentSections,
    Creator,
    CreatorPatch,
    CreatorRequest,
    CreatorSort,
    CreatorType,
    Decision,
    EducationList,
    Experiences,
    Following,
    ProfileSections,
    SectionSaved,
    Skills,
    Verification,
    VerificationRequest,
)
from platform_api.creators.service import CreatorService
from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, IfMatch, Limit, ok, path_id, tagged
from platform_api.idempotency import IdempotencyKey, checked_key
from platform_api.openapi import BEARER
from platform_api.routing import CHANGES, READS, READS_ONE, AnyRequest, Visitor, Who
from platform_api.security import Caller, permitted
from platform_api.texts import SearchText

__all__ = ["CreatorController", "FollowingController", "VerificationController"]

Creators = NamedDependency[CreatorService]
Category = Annotated[str | None, QueryParameter(max_length=50, pattern=r"^[a-z0-9_]+$(?!\n)")]
Type = Annotated[CreatorType | None, QueryParameter(name="type")]


class CreatorController(Controller):
    path = "/v1/creators"
    tags = ("creators",)

    @post("/", security=BEARER, responses=CHANGES)
    async def register(
        self, request: AnyRequest, data: JSONBody[CreatorRequest], caller: Who, creators: Creators,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Envelope[Creator]]:  # fmt: skip
        """Become a creator. The role comes with it."""
        creator, _ = await creators.register(caller, data, checked_key(idempotency_key))
        return tagged(ok(request, creator), creator.version)

    @get("/", responses=READS)
    async def list_creators(
        self, request: AnyRequest, creators: Creators, sort: FromQuery[CreatorSort] = "newest",
        category: Category = None, creator_type: Type = None, verified: FromQuery[bool | None] = None,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Creator]]:  # fmt: skip
        """Creators, the newest first unless sorted otherwise.

        `trending` counts a follow once, a new chapter twice and a new work four times, each worth half of it three days
        later. A `cursor` belongs to its `sort`.
        """
        found = await creators.browse(sort, category, creator_type, verified, cursor, limit)
        return ok(request, *found)

    @get("/search", responses=READS)
    async def search(
        self, request: AnyRequest, creators: Creators, q: SearchText, category: Category = None,
        creator_type: Type = None, verified: FromQuery[bool | None] = None, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Creator]]:  # fmt: skip
        """Full text over names and biographies, the best first. The last word may be a beginning.

        Of more than 500 matches the 500 with the most followers are ranked: ask for more words where there are more.
        """
        return ok(request, *await creators.search(q, category, creator_type, verified, cursor, limit))

    @get("/feed", responses=READS)
    async def feed(
        self, request: AnyRequest, creators: Creators, visitor: Visitor, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Activity]]:  # fmt: skip
        """What followed creators did; trending ones for whoever follows nobody.

        What is out of sight by now is left out, so a page may hold fewer than `limit`, or none, and yet have a
        `next_cursor`.
        """
        return ok(request, *await creators.feed(visitor, cursor, limit))

    @get("/{creator_id:str}", responses=READS_ONE)
    async def read(
        self, request: AnyRequest, creator_id: FromPath[str], creators: Creators
    ) -> Response[Envelope[Creator]]:
        """One creator. `follower_count` and `work_count` are counted some moments behind what they count."""
        creator = await creators.read(path_id(creator_id, "creator"))
        return tagged(ok(request, creator), creator.version)

    @patch("/{creator_id:str}", security=BEARER, responses=CHANGES)
    async def change(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[CreatorPatch], caller: Who,
        creators: Creators, if_match: IfMatch = None,
    ) -> Response[Envelope[Creator]]:  # fmt: skip
        """Change one's own profile.

        Absent fields stay. `category` is a code of `GET /v1/categories` (400 `unlisted`); another's profile answers as
        if it were not there (404).
        """
        creator = await creators.change(caller, path_id(creator_id, "creator"), data, if_match)
        return tagged(ok(request, creator), creator.version)

    @get("/{creator_id:str}/analytics", security=BEARER, guards=[permitted("view_analytics")], responses=READS_ONE)
    async def analytics(
        self, request: AnyRequest, creator_id: FromPath[str], caller: Who, creators: Creators,
        since: FromQuery[date | None] = None, until: FromQuery[date | None] = None,
    ) -> Envelope[Analytics]:  # fmt: skip
        """One's own numbers, day by day; thirty days unless told. Days are of UTC."""
        return ok(request, await creators.analytics(caller, path_id(creator_id, "creator"), since, until))

    @post("/{creator_id:str}/verification", status_code=202, security=BEARER, responses=CHANGES)
    async def submit(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[VerificationRequest], caller: Who,
        creators: Creators, idempotency_key: IdempotencyKey = None,
    ) -> Envelope[Verification]:  # fmt: skip
        """Ask to be verified. Somebody of the platform decides."""
        id_ = path_id(creator_id, "creator")
        return ok(request, (await creators.submit(caller, id_, data, checked_key(idempotency_key)))[0])

    @get("/{creator_id:str}/verification", security=BEARER, responses=READS_ONE)
    async def verification(
        self, request: AnyRequest, creator_id: FromPath[str], caller: Who, creators: Creators
    ) -> Envelope[Verification]:
        """One's own latest case, with the reason if it was rejected.

        404 as long as none was asked for, and for another's.
        """
        return ok(request, await creators.verification(caller, path_id(creator_id, "verification")))

    @get("/{creator_id:str}/profile-sections", responses=READS_ONE)
    async def sections(
        self, request: AnyRequest, creator_id: FromPath[str], creators: Creators
    ) -> Envelope[ProfileSections]:
        """All sections of the profile.

        `versions` has the number of each that was ever written: its PUT takes it as `If-Match`.
        """
        return ok(request, await creators.sections(path_id(creator_id, "creator")))

    @put("/{creator_id:str}/profile-sections/skills", security=BEARER, responses=CHANGES)
    async def put_skills(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[Skills], caller: Who,
        creators: Creators, if_match: IfMatch = None,
    ) -> Response[Envelope[SectionSaved]]:  # fmt: skip
        """Replace the skills. The creator's own, as the whole list: what it leaves out is gone."""
        return await _put(request, creators, caller, creator_id, "skills", data.items, if_match)

    @put("/{creator_id:str}/profile-sections/achievements", security=BEARER, responses=CHANGES)
    async def put_achievements(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[Achievements], caller: Who,
        creators: Creators, if_match: IfMatch = None,
    ) -> Response[Envelope[SectionSaved]]:  # fmt: skip
        """Replace the achievements. The creator's own, as the whole list: what it leaves out is gone."""
        return await _put(request, creators, caller, creator_id, "achievements", data.items, if_match)

    @put("/{creator_id:str}/profile-sections/experiences", security=BEARER, responses=CHANGES)
    async def put_experiences(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[Experiences], caller: Who,
        creators: Creators, if_match: IfMatch = None,
    ) -> Response[Envelope[SectionSaved]]:  # fmt: skip
        """Replace the work experience. The creator's own, as the whole list: what it leaves out is gone."""
        return await _put(request, creators, caller, creator_id, "experiences", data.items, if_match)

    @put("/{creator_id:str}/profile-sections/education", security=BEARER, responses=CHANGES)
    async def put_education(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[EducationList], caller: Who,
        creators: Creators, if_match: IfMatch = None,
    ) -> Response[Envelope[SectionSaved]]:  # fmt: skip
        """Replace the education. The creator's own, as the whole list: what it leaves out is gone."""
        return await _put(request, creators, caller, creator_id, "education", data.items, if_match)

    @put("/{creator_id:str}/profile-sections/sections", security=BEARER, responses=CHANGES)
    async def put_sections(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[ContentSections], caller: Who,
        creators: Creators, if_match: IfMatch = None,
    ) -> Response[Envelope[SectionSaved]]:  # fmt: skip
        """Replace the parts in the creator's own words.

        The creator's own, as the whole list: what it leaves out is gone.
        """
        return await _put(request, creators, caller, creator_id, "sections", data.items, if_match)

    @post("/{creator_id:str}/follow", status_code=200, security=BEARER, guards=[permitted("follow")], responses=CHANGES)
    async def follow(
        self, request: AnyRequest, creator_id: FromPath[str], caller: Who, creators: Creators
    ) -> Envelope[None]:
        """Follow a creator. Again: the same."""
        await creators.follow(caller, path_id(creator_id, "creator"))
        return ok(request, None)

    @delete("/{creator_id:str}/follow", status_code=200, security=BEARER, responses=READS_ONE)
    async def unfollow(
        self, request: AnyRequest, creator_id: FromPath[str], caller: Who, creators: Creators
    ) -> Envelope[None]:
        """Follow no longer. Again: the same."""
        await creators.unfollow(caller, path_id(creator_id, "creator"))
        return ok(request, None)


class FollowingController(Controller):
    path = "/v1/users/me/following"
    tags = ("creators",)
    security = BEARER

    @get("/", responses=READS)
    async def following(
        self, request: AnyRequest, caller: Who, creators: Creators, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Following]]:
        """Whom the caller follows, the latest first."""
        return ok(request, *await creators.following(caller, cursor, limit))


class VerificationController(Controller):
    path = "/v1/admin"
    tags = ("admin",)
    security = BEARER

    @post(
        "/creators/{creator_id:str}/verification-decision", status_code=200, guards=[permitted("verify_users")],
        responses=CHANGES,
    )  # fmt: skip
    async def decide(
        self, request: AnyRequest, creator_id: FromPath[str], data: JSONBody[Decision], caller: Who, creators: Creators
    ) -> Envelope[Verification]:
        """Verify or reject a creator. Needs `verify_users`; never one's own."""
        return ok(request, await creators.decide(caller, path_id(creator_id, "creator"), data))


async def _put(
    request: AnyRequest, creators: CreatorService, caller: Caller, creator_id: str, section: str, items: list[Any],
    if_match: str | None,
) -> Response[Envelope[SectionSaved]]:  # fmt: skip
    saved = await creators.put_section(caller, path_id(creator_id, "creator"), section, items, if_match)
    return tagged(ok(request, saved), saved.version)
