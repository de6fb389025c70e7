"""Bodies of the works' routes. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from platform_api.media.models import FileInfo, Sha256
from platform_api.texts import BODY_BYTES_MAX, PROSE, Amount, Category, Genre, line, prose

__all__ = [
    "BODY_MAX", "BODY_MIN", "Asset", "AssetRequest", "Chapter", "ChapterDetail", "ChapterPatch", "ChapterRequest",
    "ChapterVersion", "Collaborator", "CollaboratorChange", "CollaboratorLine", "CollaboratorsRequest",
    "Collaborators", "Consent", "Metadata", "Offer", "OfferPatch", "OfferRequest", "RatingRequest", "StaffReason",
    "VerificationCase", "VerificationDecision", "VerificationRequest", "Work", "WorkKind", "WorkPatch", "WorkRequest",
    "WorkSort", "WorkStatus", "WorkVersion",
]  # fmt: skip

BODY_MIN, BODY_MAX = 100, 10_000
"""Of a chapter's text: Unicode code points after NFC."""

WorkKind = Literal["document", "video", "audio", "course", "ip_asset", "story", "film"]
WorkStatus = Literal["draft", "in_review", "published", "suspended", "archived"]
WorkSort = Literal["newest", "oldest", "title"]
Title = Annotated[str, line(255, "The Ink Road", min_length=1)]
Description = Annotated[str, prose(20_000, "A courier carries a sealed letter across three countries.")]
Tag = Annotated[str, line(50, "road", min_length=1)]
Language = Annotated[
    str, Meta(min_length=2, max_length=35, pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$(?!\n)", examples=["en"])
]
Note = Annotated[str, line(500, "Second edition")]
AssetName = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Z0-9_.-]+$(?!\n)", examples=["USDC"])]
Bps = Annotated[int, Meta(ge=0, le=10_000)]
Duration = Annotated[int, Meta(ge=0, le=10_000_000)]
# Its length is checked after NFC, with an error of its own: whatever comes in a body gets that, whose bound this is.
Body = Annotated[
    str, Meta(max_length=BODY_BYTES_MAX, pattern=PROSE, examples=["The letter was heavier than it looked. " * 4])
]


class Credit(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, line(200, "Ada Ink", min_length=1)]
    role: Annotated[str, line(100, "Director")] = ""


class Metadata(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What belongs to a kind alone; the fields of another kind are refused.

    course: difficulty_level, prerequisites, learning_outcomes. video, audio, film: duration_seconds, credits, year.
    document: page_count. ip_asset: content_type, usage_notes. story: maturity, completion.
    """

    difficulty_level: Literal["beginner", "intermediate", "advanced"] | msgspec.UnsetType = msgspec.UNSET
    prerequisites: Annotated[list[Tag], Meta(max_length=50)] | msgspec.UnsetType = msgspec.UNSET
    learning_outcomes: Annotated[list[Title], Meta(max_length=50)] | msgspec.UnsetType = msgspec.UNSET
    duration_seconds: Duration | msgspec.UnsetType = msgspec.UNSET
    credits: Annotated[list[Credit], Meta(max_length=500)] | msgspec.UnsetType = msgspec.UNSET
    year: Annotated[int, Meta(ge=1, le=9999)] | msgspec.UnsetType = msgspec.UNSET
    page_count: Annotated[int, Meta(ge=1, le=1_000_000)] | msgspec.UnsetType = msgspec.UNSET
    content_type: Annotated[str, line(50, "character")] | msgspec.UnsetType = msgspec.UNSET
    usage_notes: Annotated[str, prose(5000, "Not for games.")] | msgspec.UnsetType = msgspec.UNSET
    maturity: Literal["everyone", "teen", "mature"] | msgspec.UnsetType = msgspec.UNSET
    completion: Literal["ongoing", "completed", "paused"] | msgspec.UnsetType = msgspec.UNSET


class WorkRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`category` is of `/v1/categories`, `genres` of `/v1/genres`; `metadata` has the fields of its kind."""

    kind: Annotated[WorkKind, Meta(examples=["story"])]
    title: Title
    description: Description = ""
    category: Category | None = None
    genres: Annotated[list[Genre], Meta(max_length=10)] = []
    tags: Annotated[list[Tag], Meta(max_length=30)] = []
    language: Language = "en"
    metadata: Annotated[Metadata, Meta(examples=[{}])] = Metadata()


class WorkPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Absent fields stay; `metadata` is replaced as a whole. Every change makes a version."""

    title: Title | msgspec.UnsetType = msgspec.UNSET
    description: Description | msgspec.UnsetType = msgspec.UNSET
    category: Category | None | msgspec.UnsetType = msgspec.UNSET
    genres: Annotated[list[Genre], Meta(max_length=10)] | msgspec.UnsetType = msgspec.UNSET
    tags: Annotated[list[Tag], Meta(max_length=30)] | msgspec.UnsetType = msgspec.UNSET
    language: Language | msgspec.UnsetType = msgspec.UNSET
    metadata: Annotated[Metadata, Meta(examples=[{}])] | msgspec.UnsetType = msgspec.UNSET
    change_note: Note = ""


class Work(Struct, frozen=True):
    """`content_version` is the number of the latest entry of `/versions`; `version` guards changes (`If-Match`)."""

    id: str
    creator_id: str
    kind: WorkKind
    title: str
    description: str
    category: str | None
    genres: list[str]
    tags: list[str]
    language: str
    metadata: Annotated[Metadata, Meta(examples=[{}])]
    status: WorkStatus
    verification_status: Literal["unsubmitted", "pending", "approved", "rejected"]
    content_version: int
    published_at: str | None
    created_at: str
    updated_at: str
    version: int
    purchase_count: int
    """Purchases and rentals, of its chapters too, but for those that were given back whole."""
    view_count: int
    """Visitors, each once a day; some seconds late."""
    rating: Annotated[str | None, Meta(examples=["4.50"])]
    """The average of `rating_count` ratings of 1 to 5 stars, with two decimals; null without any."""
    rating_count: int


class RatingRequest(Struct, frozen=True, forbid_unknown_fields=True):
    stars: Annotated[int, Meta(ge=1, le=5, examples=[4])]


class WorkVersion(Struct, frozen=True):
    """`content` is the text that `sha256` is of. A story's or a course's names its chapters: `number` is the place,
    `sha256` that of the text (NFC, UTF-8) or of the file."""

    number: int
    sha256: Sha256
    change_note: str
    created_at: str
    content: Annotated[str, Meta(examples=['{"chapters":[],"files":[],"kind":"story","title":"The Ink Road"}'])]


class ChapterRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a story or a course. Either a `body` of 100 to 10,000 characters (after NFC) or a `file_id` of one's own. The
    last place is its."""

    title: Title
    body: Body | None = None
    file_id: Annotated[UUID | None, Meta(examples=[None])] = None
    preview: bool = False
    duration_seconds: Duration | None = None


class ChapterPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """A new title, body or file makes a version of the chapter, and of the work. `number` moves it, and the others
    close up: a version of the work alone."""

    title: Title | msgspec.UnsetType = msgspec.UNSET
    body: Body | msgspec.UnsetType = msgspec.UNSET
    file_id: UUID | msgspec.UnsetType = msgspec.UNSET
    preview: bool | msgspec.UnsetType = msgspec.UNSET
    duration_seconds: Duration | None | msgspec.UnsetType = msgspec.UNSET
    number: Annotated[int, Meta(ge=1, le=100_000)] | msgspec.UnsetType = msgspec.UNSET
    change_note: Note = ""


class Chapter(Struct, frozen=True):
    id: str
    work_id: str
    number: int
    title: str
    preview: bool
    duration_seconds: int | None
    status: Literal["draft", "in_review", "published", "unpublished"]
    content_version: int
    published_at: str | None
    version: int


class ChapterDetail(Struct, frozen=True):
    """`locked`: the reader has no right to the content, and both `body` and `file_id` are null."""

    chapter: Chapter
    locked: bool
    body: str | None
    file_id: str | None
    sha256: Sha256


class ChapterVersion(Struct, frozen=True):
    number: int
    title: str
    sha256: Sha256
    change_note: str
    created_at: str


class AssetRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`file_id`: a file of one's own that is ready. Previews, posters, trailers and images get public with the work."""

    role: Literal["master", "preview", "poster", "trailer", "image", "attachment"]
    file_id: UUID


class Asset(Struct, frozen=True):
    id: str
    role: Literal["master", "preview", "poster", "trailer", "image", "attachment"]
    file: FileInfo


class CollaboratorLine(Struct, frozen=True, forbid_unknown_fields=True):
    account_id: UUID
    role: Annotated[str, line(100, "Illustrator", min_length=1)]
    share_bps: Bps


class CollaboratorsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole list; the owner has what is left of 10,000 basis points."""

    collaborators: Annotated[list[CollaboratorLine], Meta(max_length=100)]


class Collaborator(Struct, frozen=True):
    account_id: str
    role: str
    share_bps: int


class CollaboratorChange(Struct, frozen=True):
    """Waits for `waiting_for`: the accounts that must agree and have not answered."""

    id: str
    collaborators: list[Collaborator]
    waiting_for: list[str]
    proposed_at: str


class Collaborators(Struct, frozen=True):
    """`pending` is seen by the owner and by those it names."""

    owner_share_bps: int
    collaborators: list[Collaborator]
    pending: CollaboratorChange | None


class Consent(Struct, frozen=True, forbid_unknown_fields=True):
    """`change_id`: of the pending change, so that nobody agrees to another than they saw."""

    change_id: UUID
    agree: bool


class OfferRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`asset`: COIN for `coin`, else one that the exchange lists. `access_seconds`: needed for `rent`."""

    kind: Literal["purchase", "rent", "ppv", "coin"]
    price: Amount
    asset: AssetName = "USDC"
    chapter_id: UUID | None = None
    access_seconds: Annotated[int, Meta(ge=60, le=10 * 366 * 86_400, examples=[172_800])] | None = None


class OfferPatch(Struct, frozen=True, forbid_unknown_fields=True):
    price: Amount | msgspec.UnsetType = msgspec.UNSET
    active: bool | msgspec.UnsetType = msgspec.UNSET


class Offer(Struct, frozen=True):
    id: str
    work_id: str
    chapter_id: str | None
    kind: Literal["purchase", "rent", "ppv", "coin"]
    price: Amount
    asset: AssetName
    access_seconds: int | None
    active: bool
    version: int


class VerificationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    statement: Annotated[str, prose(5000, "I wrote this work alone.", min_length=1)]


class StaffReason(Struct, frozen=True, forbid_unknown_fields=True):
    """Why, for the audit trail."""

    reason: Annotated[str, prose(2000, "A court asked for it.", min_length=1)]


class VerificationDecision(Struct, frozen=True, forbid_unknown_fields=True):
    """A rejection needs a reason. An approval names the case, and its `version` as it was before the work was looked
    at, so that nobody approves another than they saw."""

    decision: Literal["approve", "reject"]
    reason: Annotated[str, prose(2000, "It is a copy of another work.")] = ""
    case_id: UUID | None = None
    case_version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class VerificationCase(Struct, frozen=True):
    """`version` grows with each change of what waits for the decision."""

    id: str
    version: int
    work_id: str
    title: str
    statement: str
    status: Literal["pending", "approved", "rejected"]
    submitted_at: str
    reason: str
