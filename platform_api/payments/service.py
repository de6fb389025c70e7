"""Everything that payments offer, to their routes and to other contexts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from platform_api.errors import ApiError, ErrorCode
from platform_api.idempotency import Answer
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import MoneyCommands
from platform_api.payments import queries
from platform_api.payments.intents import Intents, intent_of
from platform_api.payments.models import Purchase, PurchaseRequest, TestPayment
from platform_api.payments.port import PaymentProvider
from platform_api.payments.purchases import Purchases, purchase_of, purchase_ref
from platform_api.payments.refunds import Refunds
from platform_api.payments.test_provider import TestProvider
from platform_api.payments.transfers import Transfers
from platform_api.security import Caller

__all__ = ["PaymentService"]


class PaymentService:
    """One part for each concern. Without `test_payments` there is no provider yet, and only balances pay."""

    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._money = kernel.service(MoneyCommands)
        self.providers: dict[str, PaymentProvider] = {}
        self.purchases = Purchases(kernel)
        self.intents = Intents(kernel, self.purchases, self.providers)
        self.refunds = Refunds(kernel, self.intents)
        self.transfers = Transfers(kernel)
        self.test: TestProvider | None = None
        if kernel.settings.test_payments:
            self.test = TestProvider(kernel, self.intents.webhook)
            self.providers[self.test.name] = self.test

    async def buy(self, caller: Caller, body: PurchaseRequest, key: str) -> Purchase:
        """From the balance at once, or with an intent to pay.

        Raises:
            ApiError: NOT_FOUND, CONFLICT; VALIDATION_ERROR `asset_not_taken`, `bad_amount` for a price that only a
                balance pays; PAYMENT_FAILED with the core's reason, as `insufficient_funds`.
        """
        if body.method == "balance":
            id_ = await self.purchases.buy(caller, body, key)
            purchase = await self.read(caller, id_)
            if purchase.status == "failed":
                raise await self._money.payment_failed(
                    purchase_ref(id_), "The price could not be taken from the balance.", {"id": purchase.id}
                )
            return purchase
        provider = self.intents.provider()

        async def change(db: Any) -> Answer:
            row = await self.purchases.begin(db, caller, body)
            self.intents.check_taken(
                provider, row["asset"], row["scale"], row["price_units"], "method", "method"
            )  # fmt: skip
            await self.intents.begin(
                db, row["account_id"], provider.name, row["id"], row["asset"], row["scale"], row["price_units"]
            )
            return 201, msgspec.json.encode(row["id"])

        id_ = await self.purchases.once(caller, body, key, change)
        async with self._database.connection() as db:
            row = await self.purchases.own(db, caller, id_)
            intent = await queries.intent_of_purchase(db, id_)
        return purchase_of(row, await self.intents.asked(intent["id"]))

    async def read(self, caller: Caller, purchase_id: UUID) -> Purchase:
        """Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row = await self.purchases.own(db, caller, purchase_id)
            intent = None if row["method"] == "balance" else await queries.intent_of_purchase(db, purchase_id)
        return purchase_of(row, None if intent is None else intent_of(intent))

    async def pay_test(self, body: TestPayment) -> str:
        """As the payer at the test provider. Raises ApiError NOT_FOUND, CONFLICT, SERVICE_UNAVAILABLE."""
        if self.test is None:
            message = "The test provider exists beside the embedded chain only."
            raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, message, reason="no_provider")
        return await self.test.pay(body.intent, body.client_secret, body.card)
