"""Bodies of the royalty routes. Amounts are decimal strings of their asset; shares are basis points."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from platform_api.texts import Amount, AssetName

__all__ = [
    "PERIOD", "Balance", "Calculation", "CalculationRequest", "CreatorRoyalties", "Distribution", "DistributionLine",
    "LicenceShare", "LicenceShareConsent", "Payout", "PayoutRequest", "Period", "Report", "ReportLine",
    "RoyaltyConsent", "Rule", "RuleLine", "RuleRequest", "Rules", "Run", "RunRequest", "Statement", "StatementDetail",
    "Total", "WorkRoyalties",
]  # fmt: skip

RevenueKind = Literal["content_purchase", "rental", "ppv", "licence_fee", "product_sale", "coin_spend"]
Role = Literal["producer", "distributor", "collaborator", "licensor"]
PERIOD = re.compile(r"^20[0-9]{2}-(0[1-9]|1[0-2])$(?!\n)")
Period = Annotated[str, Meta(pattern=PERIOD.pattern, examples=["2026-10"])]
"""A month in UTC."""


class RuleLine(Struct, frozen=True, forbid_unknown_fields=True):
    account_id: UUID
    role: Role
    bps: Annotated[int, Meta(ge=1, le=10_000, examples=[10_000])]


class RuleRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The creators' side of the work's revenue: `lines` sum to 10,000. `revenue_kind` any: where no other rule is.

    `effective_from` is not before now; left out: at once.
    """

    lines: Annotated[list[RuleLine], Meta(min_length=1, max_length=50)]
    revenue_kind: Literal["any", "content_purchase", "rental", "ppv", "licence_fee", "product_sale", "coin_spend"] = (
        "any"
    )
    effective_from: Annotated[datetime, Meta(tz=True)] | None = None


class Rule(Struct, frozen=True):
    """`waits_for` are the accounts that have not agreed yet; then it is `pending` and does not count."""

    id: str
    version: int
    revenue_kind: str
    effective_from: str
    status: Literal["pending", "effective", "declined", "superseded"]
    lines: list[RuleLine]
    waits_for: list[str]


class LicenceShare(Struct, frozen=True):
    """`made_under`: what the work gives of its revenue to one that it was made of, `parent_work_id`. `given_on`: what
    the work gets of what its licensee is paid for licences below this one. `waits_for` are the accounts that have not
    agreed yet; then it is `pending` and does not count. `id` is null where it counts and needs no answer any more."""

    id: str | None
    kind: Literal["made_under", "given_on"]
    license_id: str
    work_id: str
    parent_work_id: str | None
    share_bps: int
    status: Literal["pending", "effective", "declined", "superseded", "over"]
    waits_for: list[str]


class LicenceShareConsent(Struct, frozen=True, forbid_unknown_fields=True):
    share_id: UUID
    agree: bool


class Rules(Struct, frozen=True):
    """`platform_bps` is what the platform takes first, by kind of revenue. Without a rule the shares of the work's
    collaborators count. The latest first. `licence_shares` are what licences take before the rules divide."""

    platform_bps: dict[str, int]
    rules: list[Rule]
    licence_shares: list[LicenceShare]


class RoyaltyConsent(Struct, frozen=True, forbid_unknown_fields=True):
    rule_id: UUID
    agree: bool


class CalculationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a sale of one's work for `amount` would give whom, at a time, now unless told; or, with a `period` in their
    place, what its sales of that month give whom. The kind is `content_purchase` of a sale, and all kinds of a month,
    unless told."""

    work_id: UUID
    asset: AssetName
    amount: Amount | None = None
    period: Period | None = None
    revenue_kind: RevenueKind | None = None
    at: Annotated[datetime, Meta(tz=True)] | None = None


class DistributionLine(Struct, frozen=True):
    """`account_id` is null for the platform. `batch` and `digests` say where it was settled on the chain."""

    work_id: str
    account_id: str | None
    role: str
    bps: int
    amount: str
    reversed: str
    sequence: int | None = None
    batch: int | None = None
    digests: list[str] = []


class Calculation(Struct, frozen=True):
    """The lines sum to `amount`. Of a month that is what its buyers paid, a payee has a line for each share that they
    had of it, and `reversed` is what of that was given back since."""

    asset: str
    amount: str
    rule_id: str | None
    lines: list[DistributionLine]


class Distribution(Struct, frozen=True):
    """Of a sale: `purchase_id` is that of `GET /v1/sales`, `license_id` the licence whose fee it was."""

    id: str
    revenue_kind: str
    work_id: str
    asset: str
    gross: str
    occurred_at: str
    rule_id: str | None
    status: Literal["pending", "posted", "reversed"]
    lines: list[DistributionLine]
    purchase_id: str | None
    license_id: str | None


class WorkRoyalties(Struct, frozen=True):
    """What the payees of the work have earned by it, and by works made under its licences; its own sales by pages."""

    work_id: str
    totals: list[Total]
    distributions: list[Distribution]


class CreatorRoyalties(Struct, frozen=True):
    """What the account of the creator has earned in all."""

    creator_id: str
    totals: list[Total]


class Total(Struct, frozen=True):
    """Of one asset; currencies never mix."""

    asset: str
    earned: str
    reversed: str
    paid: str
    net: str


class Balance(Struct, frozen=True):
    """`payable` can be paid out now, below zero it is a debt; `held` is younger than the hold period, or what a refund
    under way will take. Lines of the report say when each matures."""

    asset: str
    payable: str
    held: str
    paid: str


class ReportLine(Struct, frozen=True):
    happened_at: str
    kind: Literal["earned", "reversed", "paid"]
    asset: str
    amount: str
    work_id: str | None
    revenue_kind: str | None
    ref: str
    sequence: int | None
    batch: int | None
    digests: list[str]
    matures_at: str | None = None
    """When what was earned becomes payable; what is reversed is taken off then. None for what was paid."""
    work_title: str | None = None
    """At the end of the report or of the statement's month: papers of a closed month stay as they are."""
    gross: str | None = None
    """Of what was earned by a sale: what its buyer paid, in `asset`, also where the amount is one part of several."""
    platform_fee: str | None = None
    """The platform's part of `gross`."""
    distribution_id: str | None = None
    """Of what a sale gave, or what was taken back of it: `GET /v1/royalties/works/{work_id}` has it whole."""
    purchase_id: str | None = None
    license_id: str | None = None
    """What was paid for: a purchase, or a licence by its fee."""


class Report(Struct, frozen=True):
    """`since` is part of it, `until` is not. `complete` is false when it has more lines than one report may have."""

    since: str
    until: str
    totals: list[Total]
    lines: list[ReportLine]
    complete: bool


class Statement(Struct, frozen=True):
    """opening + earned − reversed − paid = closing. `digest` is SHA-256 of its canonical JSON, with its lines."""

    id: str
    period: str
    asset: str
    opening: str
    earned: str
    reversed: str
    paid: str
    closing: str
    digest: str
    closed_at: str


class StatementDetail(Struct, frozen=True):
    statement: Statement
    lines: list[ReportLine]


class RunRequest(Struct, frozen=True, forbid_unknown_fields=True):
    period: Period


class Run(Struct, frozen=True):
    """The closing of a month. Of `payees` so many are `payees_done`, with so many statements; these can be read when
    `state` is closed. It is refused for a `reason`: `books_differ` from what payees have in the core."""

    period: str
    state: Literal["open", "refused", "closed"]
    reason: str | None
    payees: int | None
    payees_done: int
    statements: int
    begun_at: str
    closed_at: str | None


class PayoutRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """To one's own spending account; without `amount`, everything that is payable."""

    asset: AssetName
    amount: Amount | None = None


class Payout(Struct, frozen=True):
    id: str
    asset: str
    amount: str
    status: Literal["requested", "paid", "failed"]
    reason: str | None
    created_at: str
