"""Bodies of the routes of licences. Unknown fields are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from platform_api.texts import Amount, prose
from platform_api.works.models import AssetName, Bps

__all__ = [
    "Application", "ApplicationRequest", "ApplicationStatus", "Authorization", "AuthorizationEvent",
    "ApplicationDecision", "DerivedWork",
    "IssueRequest", "License", "LicenseStatus", "LicenseTerms", "LicenseType", "Link", "Reason", "Seat",
    "SeatRequest", "TermsPatch", "TermsRequest", "LicenseVerification",
]  # fmt: skip

LicenseType = Literal["standard", "premium", "exclusive", "enterprise"]
LicenseStatus = Literal["pending_payment", "active", "suspended", "expired", "revoked"]
ApplicationStatus = Literal["pending", "approved", "rejected", "withdrawn"]
ScopeWord = Literal["adapt", "merchandise", "distribute", "translate", "audio", "perform"]
Scope = Annotated[list[ScopeWord], Meta(min_length=1, max_length=6)]
TerritoryCode = Annotated[
    str, Meta(pattern=r"^[A-Z]{2}$(?!\n)", examples=["PG"], description="A code of ISO 3166-1, or WW: everywhere.")
]  # fmt: skip
Territories = Annotated[list[TerritoryCode], Meta(min_length=1, max_length=250, examples=[["AU", "PG"]])]
Duration = Annotated[
    str, Meta(min_length=3, max_length=30, pattern=r"^P[0-9YMWDTH]{2,29}$(?!\n)", examples=["P1Y"])
]  # fmt: skip
Conditions = Annotated[str, prose(20_000, "The author's name stands on every copy.")]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Moment = Annotated[datetime, Meta(tz=True, examples=["2026-12-01T00:00:00Z"])]
Code = Annotated[str, Meta(min_length=32, max_length=32, examples=["MFRGGZDFMZTWQ2LKNRWW23TPOBYXE43U"])]


class TermsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`territories`: ISO 3166-1 codes, or WW. `duration`: ISO 8601. `seats`: of `enterprise` alone.

    `asset`: one that the exchange lists. `revenue_share_bps`: the licensor's share of what the licensee sells.
    """

    license_type: LicenseType
    base_fee: Amount
    territories: Territories
    duration: Duration
    scope: Scope
    revenue_share_bps: Bps = 0
    asset: AssetName = "USDC"
    requirements: Conditions = ""
    restrictions: Conditions = ""
    sublicensing: bool = False
    auto_approve: bool = False
    max_licenses: Count | None = None
    seats: Annotated[Count | None, Meta(examples=[None])] = None


class TermsPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Absent fields stay. Makes a version; licences that were granted keep theirs."""

    base_fee: Amount | UnsetType = UNSET
    territories: Territories | UnsetType = UNSET
    duration: Duration | UnsetType = UNSET
    scope: Scope | UnsetType = UNSET
    revenue_share_bps: Bps | UnsetType = UNSET
    requirements: Conditions | UnsetType = UNSET
    restrictions: Conditions | UnsetType = UNSET
    sublicensing: bool | UnsetType = UNSET
    auto_approve: bool | UnsetType = UNSET
    max_licenses: Count | None | UnsetType = UNSET
    seats: Annotated[Count | None | UnsetType, Meta(examples=[None])] = UNSET


class LicenseTerms(Struct, frozen=True):
    id: str
    work_id: str
    license_type: LicenseType
    revenue_share_bps: int
    base_fee: Amount
    asset: AssetName
    territories: Territories
    duration: Duration
    scope: Scope
    requirements: str
    restrictions: str
    sublicensing: bool
    auto_approve: bool
    max_licenses: int | None
    seats: int | None
    active: bool
    created_at: str
    version: int


class ApplicationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`territories`: some of the terms', or all if absent. `starts_at`: not before; absent: at once."""

    terms_id: UUID
    purpose: Annotated[str, prose(5000, "A film of the story.")] = ""
    territories: Territories | None = None
    starts_at: Annotated[Moment | None, Meta(examples=[None])] = None


class Application(Struct, frozen=True):
    """`terms` are those of the day of the application. `license_id` once it is approved."""

    id: str
    work_id: str
    terms_id: str
    terms: LicenseTerms
    applicant_id: str
    licensor_id: str
    territories: Territories
    starts_at: str | None
    purpose: str
    status: ApplicationStatus
    reason: str
    license_id: str | None
    created_at: str
    decided_at: str | None
    version: int


class ApplicationDecision(Struct, frozen=True, forbid_unknown_fields=True):
    """A rejection needs a reason."""

    reason: Annotated[str, prose(2000, "Not for this territory.")] = ""


class Reason(Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, prose(2000, "The requirements were not kept.", min_length=1)]


class IssueRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A licence without an application: by the work's owner, or below `parent_license_id` by its licensee."""

    work_id: UUID
    licensee_id: UUID
    license_type: LicenseType
    base_fee: Amount
    territories: Territories
    duration: Duration
    scope: Scope
    parent_license_id: Annotated[UUID | None, Meta(examples=[None])] = None
    revenue_share_bps: Bps = 0
    asset: AssetName = "USDC"
    requirements: Conditions = ""
    restrictions: Conditions = ""
    sublicensing: bool = False
    seats: Annotated[Count | None, Meta(examples=[None])] = None
    starts_at: Annotated[Moment | None, Meta(examples=[None])] = None


class License(Struct, frozen=True):
    """`starts_at` and `ends_at` are null until its first fee is paid; it holds from the first, until before the second.

    `fee_due` is what its licensee has to pay before `pay_before`, for its first period or for its renewal.
    `valid`: active, within its time, and so is every licence above it. `given_on` is null without `sublicensing`; else
    whether all who are paid for the work have agreed to licences below this one, in its latest period: before it is
    `effective` none is given.
    """

    id: str
    work_id: str
    parent_license_id: str | None
    application_id: str | None
    terms_id: str | None
    licensor_id: str
    licensee_id: str
    license_type: LicenseType
    revenue_share_bps: int
    base_fee: Amount
    asset: AssetName
    territories: Territories
    scope: Scope
    duration: Duration
    requirements: str
    restrictions: str
    sublicensing: bool
    given_on: Literal["pending", "effective", "declined", "over"] | None
    seats: int | None
    status: LicenseStatus
    valid: bool
    starts_at: str | None
    ends_at: str | None
    fee_due: Amount | None
    pay_before: str | None
    verification_code: Code | None
    reason: str
    created_at: str
    version: int


class LicenseVerification(Struct, frozen=True):
    """Whether a licence holds now. `why_not` is null for a valid one."""

    license_id: str
    valid: bool
    why_not: Literal["pending_payment", "not_begun", "suspended", "expired", "revoked", "above"] | None
    work_id: str
    license_type: LicenseType
    territories: Territories
    scope: Scope
    starts_at: str | None
    until: str | None


class DerivedWork(Struct, frozen=True, forbid_unknown_fields=True):
    """`work_id`: an own work that was made under the licence."""

    work_id: UUID


class SeatRequest(Struct, frozen=True, forbid_unknown_fields=True):
    account_id: UUID


class Seat(Struct, frozen=True):
    account_id: str
    assigned_at: str


class Link(Struct, frozen=True):
    """A licence in a lineage: `depth` 1 is given by the work's owner."""

    depth: int
    valid: bool
    license_type: LicenseType
    territories: Territories
    scope: Scope
    starts_at: str | None
    until: str | None


class Authorization(Struct, frozen=True):
    """What a verification code stands for. `lineage` goes from the work's owner down to the licence of the code.

    `work_title` is the one that readers know, null for a work that has to be looked at before they see it.
    """

    code: Code
    valid: bool
    work_id: str
    work_title: str | None
    lineage: list[Link]


class AuthorizationEvent(Struct, frozen=True):
    what: Literal["activated", "renewed", "suspended", "resumed", "expired", "revoked"]
    at: str
    until: str | None
