"""Routes of payments, purchases, refunds, and the library of what was bought."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, FromQuery, JSONBody

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok, path_id
from platform_api.idempotency import NeededKey, required_key
from platform_api.openapi import BEARER, failures
from platform_api.payments.models import (
    Access,
    Entitlement,
    Intent,
    IntentRequest,
    Payment,
    Purchase,
    PurchaseRequest,
    Received,
    Refund,
    RefundRequest,
    Sale,
    TestPayment,
    TestPaymentDone,
    Transfer,
    TransferRequest,
)
from platform_api.payments.service import PaymentService
from platform_api.routing import READS, READS_ONE, AnyRequest, Who
from platform_api.royalties.models import Balance
from platform_api.royalties.service import RoyaltyService
from platform_api.security import SessionGuard, permitted

__all__ = [
    "LibraryController", "PaymentController", "ProviderController", "PurchaseController", "SaleController",
    "TransferController",
]  # fmt: skip

Guard = NamedDependency[SessionGuard]
Payments = NamedDependency[PaymentService]
Royalties = NamedDependency[RoyaltyService]
MOVES_MONEY = failures(400, 401, 402, 403, 404, 409, 429, 502, 503, 504)


@dataclass
class EventOperation(Operation):
    """A body in the provider's own words, read raw because its signature is over the bytes."""

    def __post_init__(self) -> None:
        schema = Schema(type=OpenAPIType.OBJECT)
        self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema)}, required=True)


class PaymentController(Controller):
    path = "/v1/payments"
    tags = ("payments",)
    security = BEARER

    @post("/intents", status_code=201, responses=MOVES_MONEY)
    async def begin(
        self, request: AnyRequest, data: JSONBody[IntentRequest], caller: Who, payments: Payments,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Intent]:  # fmt: skip
        """Top up one's spending account: an intent that is paid at the provider.

        Needs an Idempotency-Key. Its payer pays at the provider with the `client_secret`, which this answer alone
        tells; the provider's own word then brings the money to the balance. What is not paid within an hour expires,
        unless the operator set another time; money that comes later is the payer's all the same. 400 `asset_not_taken`:
        the provider takes other money.
        """
        return ok(request, await payments.intents.top_up(caller, data, required_key(idempotency_key)))

    @get("/intents/{intent_id:str}", responses=READS_ONE)
    async def intent(
        self, request: AnyRequest, intent_id: FromPath[str], caller: Who, payments: Payments
    ) -> Envelope[Intent]:
        """One own intent. `status` moves by the provider's word alone."""
        return ok(request, await payments.intents.read(caller, path_id(intent_id, "intent")))

    @post("/intents/{intent_id:str}/confirm", status_code=200,
          responses=failures(400, 401, 403, 404, 429, 502, 503, 504))  # fmt: skip
    async def confirm(
        self, request: AnyRequest, intent_id: FromPath[str], caller: Who, payments: Payments
    ) -> Envelope[Intent]:
        """Ask the provider how the intent stands. What the caller says does not matter."""
        return ok(request, await payments.intents.confirm(caller, path_id(intent_id, "intent")))

    @get("/", responses=READS)
    async def history(
        self, request: AnyRequest, caller: Who, payments: Payments, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Payment]]:
        """One's own payments, the latest first, with the batches that settled them.

        Through a provider; what was paid from the balance is at `GET /v1/purchases`.
        """
        return ok(request, *await payments.intents.history(caller, cursor, limit))

    @get("/balance", responses=READS)
    async def balance(self, request: AnyRequest, caller: Who, royalties: Royalties) -> Envelope[list[Balance]]:
        """What is payable to the caller, what is held, and what was paid, by asset.

        The same as `GET /v1/royalties/balance`.
        """
        return ok(request, await royalties.statements.balance(caller))

    @post("/{payment_id:str}/refund", status_code=201, responses=MOVES_MONEY)
    async def refund(
        self, request: AnyRequest, payment_id: FromPath[str], data: JSONBody[RefundRequest], caller: Who,
        payments: Payments, idempotency_key: NeededKey = None,
    ) -> Envelope[Refund]:  # fmt: skip
        """Give a payment back, whole or in part: for the seller of what it paid, and for staff.

        Needs an Idempotency-Key. The seller can as long as the sale is held (403 `hold_over` afterwards), out of what
        its payees still have; staff need `process_refunds`, and so does a top-up. It is `processing` until the provider
        has given the money back.
        """
        id_, key = path_id(payment_id, "payment"), required_key(idempotency_key)
        return ok(request, await payments.refunds.of_payment(caller, id_, data, key))


class PurchaseController(Controller):
    path = "/v1/purchases"
    tags = ("payments",)
    security = BEARER

    @post("/", status_code=201, guards=[permitted("purchase_products")], responses=MOVES_MONEY)
    async def buy(
        self, request: AnyRequest, data: JSONBody[PurchaseRequest], caller: Who, payments: Payments, guard: Guard,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Purchase]:  # fmt: skip
        """Buy or rent what an offer offers, from the balance or with an intent to pay.

        Needs an Idempotency-Key. What is paid from the balance beyond so much of an asset a day (UTC; 50 unless the
        operator sets another amount), licences included, needs a step-up for itself, after the sign-in: 403
        `step_up_required` says how much. The owner gets a letter of it. A payment that is refused, as for lack of
        money, gives the step-up back.
        """
        made = await payments.buy(caller, data, required_key(idempotency_key))
        guard.forget(caller.session_id)
        return ok(request, made)

    @get("/", responses=READS)
    async def purchases(
        self, request: AnyRequest, caller: Who, payments: Payments, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Purchase]]:
        """One's own purchases, the latest first.

        One that is `pending` waits for its money; of one that `failed`, `reason` says why.
        """
        return ok(request, *await payments.purchases.list_of(caller, cursor, limit))

    @get("/{purchase_id:str}", responses=READS_ONE)
    async def purchase(
        self, request: AnyRequest, purchase_id: FromPath[str], caller: Who, payments: Payments
    ) -> Envelope[Purchase]:
        """One own purchase.

        What it opens is there once it is `completed`; `intent` is how it is paid through a provider.
        """
        return ok(request, await payments.read(caller, path_id(purchase_id, "purchase")))

    @get("/{purchase_id:str}/access-token", responses=failures(400, 401, 403, 404, 409, 429, 503))
    async def access(
        self, request: AnyRequest, purchase_id: FromPath[str], caller: Who, payments: Payments,
        chapter_id: FromQuery[UUID | None] = None,
    ) -> Envelope[Access]:  # fmt: skip
        """Short-lived URLs of the files that were bought, or of one chapter.

        They hold for five minutes: ask again for others. Texts are read at their chapters. 409 `not_completed` before
        the price is paid, 403 `access_ended` after a rental or a refund.
        """
        return ok(request, await payments.purchases.access(caller, path_id(purchase_id, "purchase"), chapter_id))

    @post("/{purchase_id:str}/refund", status_code=201, responses=MOVES_MONEY)
    async def refund(
        self, request: AnyRequest, purchase_id: FromPath[str], data: JSONBody[RefundRequest], caller: Who,
        payments: Payments, idempotency_key: NeededKey = None,
    ) -> Envelope[Refund]:  # fmt: skip
        """Give the price back, whole or in part: for the seller, and for staff.

        Needs an Idempotency-Key. The seller can as long as the sale is held (403 `hold_over` afterwards), out of what
        its payees still have; staff need `process_refunds`. Given back whole, it takes the buyer's right, and the
        rating, with it. It is `processing` as long as a provider has not given the money back.
        """
        id_, key = path_id(purchase_id, "purchase"), required_key(idempotency_key)
        return ok(request, await payments.refunds.of_purchase(caller, id_, data, key))


class LibraryController(Controller):
    path = "/v1/library"
    tags = ("payments",)
    security = BEARER

    @get("/", responses=READS)
    async def library(
        self, request: AnyRequest, caller: Who, payments: Payments, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Entitlement]]:
        """What the caller may use now, by purchases and by seats of enterprise licences, the latest first.

        Its files are at the `access-token` of the purchase or of the licence.
        """
        return ok(request, *await payments.purchases.library(caller, cursor, limit))


class SaleController(Controller):
    path = "/v1/sales"
    tags = ("payments",)
    security = BEARER

    @get("/", responses=READS)
    async def sales(
        self, request: AnyRequest, caller: Who, payments: Payments, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Sale]]:
        """What was bought of the caller's own works, those paid the latest first, whenever they were begun. What each
        sale gave whom: `GET /v1/royalties/works/{work_id}`, by its `distribution_id`."""
        return ok(request, *await payments.purchases.sales(caller, cursor, limit))


class TransferController(Controller):
    path = "/v1/transfers"
    tags = ("payments",)
    security = BEARER

    @post("/", status_code=201, responses=failures(400, 401, 402, 403, 409, 429, 503))
    async def transfer(
        self, request: AnyRequest, data: JSONBody[TransferRequest], caller: Who, payments: Payments, guard: Guard,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Transfer]:  # fmt: skip
        """Give another account own money, for 0.1 %. Needs an Idempotency-Key, and for an account that was never paid
        before a step-up for itself, after the sign-in. 402 says that nothing has moved, and why, as
        `insufficient_funds`; the step-up is not spent then."""
        made = await payments.transfers.make(caller, data, required_key(idempotency_key))
        guard.forget(caller.session_id)
        return ok(request, made)

    @get("/", responses=READS)
    async def transfers(
        self, request: AnyRequest, caller: Who, payments: Payments, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Transfer]]:
        """Sent, and those received, the latest first. Who receives one sees it once it is there, and no fee."""
        return ok(request, *await payments.transfers.list_of(caller, cursor, limit))


class ProviderController(Controller):
    path = "/v1"
    tags = ("payments",)

    @post("/webhooks/payments/{provider:str}", status_code=200, operation_class=EventOperation,
          responses=failures(400, 401, 404, 429, 503))  # fmt: skip
    async def webhook(self, request: AnyRequest, provider: FromPath[str], payments: Payments) -> Envelope[Received]:
        """An event of a payment provider, with its signature over the raw body. The same event again does no harm."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        return ok(request, Received(await payments.intents.webhook(provider, headers, await request.body())))

    @post("/test-provider/payments", status_code=200, responses=failures(400, 401, 404, 409, 429, 503))
    async def pay(
        self, request: AnyRequest, data: JSONBody[TestPayment], payments: Payments
    ) -> Envelope[TestPaymentDone]:
        """What a payer does on the page of the built-in test provider. It is there beside the embedded chain only."""
        return ok(request, msgspec.convert({"status": await payments.pay_test(data)}, TestPaymentDone))
