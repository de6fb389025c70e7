"""Bodies of the routes of payments and purchases. Amounts are decimal strings of their asset."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Struct

from platform_api.payments.test_provider import Card
from platform_api.texts import Amount, AssetName, line

__all__ = [
    "Access", "AccessFile", "Entitlement", "Intent", "IntentRequest", "Payment", "Purchase", "PurchaseRequest",
    "Received", "Refund", "RefundRequest", "Sale", "TestPayment", "TestPaymentDone", "Transfer", "TransferRequest",
]  # fmt: skip

IntentStatus = Literal[
    "requires_payment", "processing", "succeeded", "failed", "cancelled", "expired", "partially_refunded", "refunded"
]


class IntentRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A top-up of one's own spending account."""

    asset: AssetName
    amount: Amount


class Intent(Struct, frozen=True):
    """`client_secret`, told only when the intent is made, lets its payer pay at the provider. Nothing that a caller
    says makes it `succeeded`, only the provider."""

    id: str
    purpose: Literal["top_up", "purchase"]
    purchase_id: str | None
    provider: str
    provider_ref: str | None
    client_secret: str | None
    asset: str
    amount: str
    status: IntentStatus
    reason: str | None
    expires_at: str
    created_at: str


class Payment(Struct, frozen=True):
    """Money that a provider took; `batch` and `digests` once it is settled on the chain."""

    id: str
    intent_id: str
    purchase_id: str | None
    provider: str
    asset: str
    amount: str
    refunded: str
    status: Literal["received", "deposited", "partially_refunded", "refunded", "stuck"]
    sequence: int | None
    batch: int | None
    digests: list[str]
    created_at: str


class PurchaseRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`balance` pays from one's spending account at once; `provider` makes an intent to pay. `price` is what the buyer
    was shown: at any other nothing is bought."""

    offer_id: UUID
    method: Literal["balance", "provider"]
    price: Amount | None = None


class Purchase(Struct, frozen=True):
    """`intent` is that of a purchase by a provider."""

    id: str
    offer_id: str
    work_id: str
    chapter_id: str | None
    kind: Literal["purchase", "rent", "ppv"]
    method: Literal["balance", "provider"]
    asset: str
    price: str
    refunded: str
    status: Literal["pending", "completed", "refunded", "failed"]
    reason: str | None
    intent: Intent | None
    created_at: str
    completed_at: str | None


class Sale(Struct, frozen=True):
    """A purchase of one's own work, without who bought it. Until `refundable_until` its seller can give it back by
    `purchase_id`; later the platform's staff can. `distribution_id`: what it gave whom, in the work's royalties."""

    purchase_id: str
    offer_id: str
    work_id: str
    chapter_id: str | None
    kind: Literal["purchase", "rent", "ppv"]
    asset: str
    price: str
    refunded: str
    status: Literal["completed", "refunded"]
    sold_at: str
    refundable_until: str
    distribution_id: str


class RefundRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Without `amount`: all that is left."""

    amount: Amount | None = None
    reason: Annotated[str, line(200, "Bought twice.")] = ""


class Refund(Struct, frozen=True):
    """`processing`: the money is held at those who had received it, until the provider has given it back."""

    id: str
    purchase_id: str | None
    payment_id: str | None
    asset: str
    amount: str
    status: Literal["approved", "processing", "succeeded", "failed"]
    reason: str
    failure: str | None
    created_at: str


class Entitlement(Struct, frozen=True):
    """`ends_at` is null for what is owned. A `seat` comes of an enterprise licence, and ends with it or when its
    licensee takes it back; anything else of a purchase. The files are at the `access-token` of either."""

    id: str
    work_id: str
    chapter_id: str | None
    kind: Literal["own", "rent", "ppv", "seat"]
    starts_at: str
    ends_at: str | None
    purchase_id: str | None
    license_id: str | None


class AccessFile(Struct, frozen=True):
    """`url` opens the file without a token until `expires_at`."""

    role: str
    name: str
    url: str
    expires_at: str


class Access(Struct, frozen=True):
    """What a right opens: files of the work, or of the chapter. Texts of chapters are read at their routes."""

    work_id: str
    chapter_id: str | None
    ends_at: str | None
    files: list[AccessFile]


class Received(Struct, frozen=True):
    """What became of an event: succeeded, noted, known, duplicate, or why it changed nothing."""

    outcome: str


class TestPayment(Struct, frozen=True, forbid_unknown_fields=True):
    """What a payer tells the provider's page. `card` decides how the provider's events come."""

    intent: Annotated[str, line(64, "pi_0123456789abcdef01234567", min_length=1)]
    client_secret: Annotated[str, line(64, "n0tA-5ecret", min_length=1)]
    card: Card = "ok"


class TestPaymentDone(Struct, frozen=True):
    status: Literal["succeeded", "failed"]


class TransferRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`to` is the account that gets `amount`; the sender pays a thousandth more."""

    to: UUID
    asset: AssetName
    amount: Amount
    note: Annotated[str, line(200, "Half of the poster.")] = ""


class Transfer(Struct, frozen=True):
    """Whoever receives it sees no fee. `account_id` is the other one."""

    id: str
    direction: Literal["sent", "received"]
    account_id: str
    asset: str
    amount: str
    fee: str
    note: str
    status: Literal["pending", "completed", "failed"]
    reason: str | None
    created_at: str
