"""Bodies of the creators' routes. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from platform_api.media.models import FileUrl
from platform_api.texts import Category, Url, line, prose

__all__ = [
    "SECTIONS", "Achievement", "Achievements", "Activity", "Analytics", "AnalyticsDay", "ContentSection",
    "ContentSections", "Creator", "CreatorPatch", "CreatorRequest", "CreatorSort", "CreatorType", "Decision",
    "Education", "EducationList", "Experience", "Experiences", "Following", "PendingVerification", "ProfileSections",
    "SectionSaved", "Skill", "Skills", "Totals", "Verification", "VerificationRequest",
]  # fmt: skip

CreatorType = Literal["individual", "institution", "enterprise"]
VerificationStatus = Literal["unsubmitted", "pending", "verified", "rejected"]
CreatorSort = Literal["newest", "followers", "trending", "name"]
DisplayName = Annotated[str, line(100, "Ink", min_length=1)]
Bio = Annotated[str, prose(5000, "Writes serials.")]
Title = Annotated[str, line(200, "Best serial of the year", min_length=1)]
Text = Annotated[str, prose(5000, "Two hundred chapters in three years.")]
Month = Annotated[
    str, Meta(min_length=4, max_length=7, pattern=r"^[12][0-9]{3}(-(0[1-9]|1[0-2]))?$(?!\n)", examples=["2024-09"])
]
Day = Annotated[str, Meta(min_length=10, max_length=10, pattern=r"^\d{4}-\d\d-\d\d$(?!\n)", examples=["2026-01-02"])]


class CreatorRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`category` is a code of `/v1/categories`."""

    display_name: DisplayName
    creator_type: CreatorType = "individual"
    bio: Bio = ""
    avatar_url: Url = ""
    cover_url: Url = ""
    category: Category | None = None


class CreatorPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Absent fields stay."""

    display_name: DisplayName | msgspec.UnsetType = msgspec.UNSET
    creator_type: CreatorType | msgspec.UnsetType = msgspec.UNSET
    bio: Bio | msgspec.UnsetType = msgspec.UNSET
    avatar_url: Url | msgspec.UnsetType = msgspec.UNSET
    cover_url: Url | msgspec.UnsetType = msgspec.UNSET
    category: Category | None | msgspec.UnsetType = msgspec.UNSET


class Creator(Struct, frozen=True):
    """Public. Counts and the token, which is there once it is minted, follow events: they may be a moment old."""

    id: str
    account_id: str
    display_name: str
    bio: str
    avatar_url: str
    cover_url: str
    creator_type: CreatorType
    category: str | None
    verification_status: VerificationStatus
    follower_count: int
    work_count: int
    created_at: str
    updated_at: str
    version: int
    token_id: str | None = None


class Skill(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, line(80, "Dialogue", min_length=1)]
    level: Literal["beginner", "intermediate", "advanced", "expert"] | None = None
    years: Annotated[int, Meta(ge=0, le=100)] | None = None


class Achievement(Struct, frozen=True, forbid_unknown_fields=True):
    title: Title
    description: Text = ""
    issuer: Annotated[str, line(200, "Serial Awards")] = ""
    achieved: Month | None = None
    url: Url = ""


class Experience(Struct, frozen=True, forbid_unknown_fields=True):
    """`until` null: to this day."""

    organization: Title
    role: Title
    since: Month
    until: Month | None = None
    description: Text = ""


class Education(Struct, frozen=True, forbid_unknown_fields=True):
    institution: Title
    degree: Annotated[str, line(200, "MA")] = ""
    field: Annotated[str, line(200, "Creative writing")] = ""
    since: Month | None = None
    until: Month | None = None


class ContentSection(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the page in the creator's own words."""

    title: Title
    body: Annotated[str, prose(10_000, "How I work.")]
    url: Url = ""


class Skills(Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[Skill], Meta(max_length=100)]


class Achievements(Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[Achievement], Meta(max_length=100)]


class Experiences(Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[Experience], Meta(max_length=100)]


class EducationList(Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[Education], Meta(max_length=100)]


class ContentSections(Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[ContentSection], Meta(max_length=20)]


SECTIONS: dict[str, type[Struct]] = {
    "skills": Skill, "achievements": Achievement, "experiences": Experience, "education": Education,
    "sections": ContentSection,
}  # fmt: skip


class ProfileSections(Struct, frozen=True):
    """All sections; those never written are empty."""

    skills: list[Skill]
    achievements: list[Achievement]
    experiences: list[Experience]
    education: list[Education]
    sections: list[ContentSection]
    versions: dict[str, int]


class SectionSaved(Struct, frozen=True):
    section: str
    count: int
    version: int
    updated_at: str


class VerificationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`portfolio_work_ids`: published works of the creator. `file_ids`: documents, files of your own that are ready;
    only those who decide read them."""

    statement: Annotated[str, prose(5000, "I write as Ink; my publisher confirms it.", min_length=1)]
    portfolio_work_ids: Annotated[list[UUID], Meta(max_length=20)] = []
    file_ids: Annotated[list[UUID], Meta(max_length=20)] = []


class Verification(Struct, frozen=True):
    id: str
    creator_id: str
    status: Literal["pending", "verified", "rejected"]
    submitted_at: str
    decided_at: str | None
    reason: str


class PendingVerification(Struct, frozen=True):
    """What those who decide see; `file_urls`: where to read the documents, in their order, for minutes. `version`: of a
    work's case, for its approval; null for creators."""

    id: str
    version: int | None
    type: Literal["creator", "work"]
    subject_id: str
    title: str
    statement: str
    file_ids: list[str]
    file_urls: list[FileUrl]
    portfolio_work_ids: list[str]
    submitted_at: str


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """A rejection needs a reason, which the creator gets to read."""

    decision: Literal["approve", "reject"]
    reason: Annotated[str, prose(2000, "The documents are of somebody else.")] = ""


class Following(Struct, frozen=True):
    creator: Creator
    followed_at: str


class Activity(Struct, frozen=True):
    """Something that a creator did, for those who follow."""

    id: str
    creator_id: str
    creator_name: str
    type: str
    subject_type: str
    subject_id: str
    title: str
    occurred_at: str


class Totals(Struct, frozen=True):
    followers_gained: int
    followers_lost: int
    works_published: int
    chapters_published: int
    sales: int


class AnalyticsDay(Struct, frozen=True):
    day: Day
    followers_gained: int
    followers_lost: int
    works_published: int
    chapters_published: int
    sales: int


class Revenue(Struct, frozen=True):
    """What was paid for works in one asset, less what was given back; with the platform's part and everybody's."""

    asset: str
    amount: str


class Analytics(Struct, frozen=True):
    """Days without any event are left out; both ends of the period are counted. `total_sales` and `total_revenue` are
    of all time: sales and licence fees of one's own works, but for those that were given back."""

    since: Day
    until: Day
    follower_count: int
    total_sales: int
    total_revenue: list[Revenue]
    totals: Totals
    days: list[AnalyticsDay]
