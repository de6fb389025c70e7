"""Payments: intents at a provider, purchases of offers, refunds, what was bought, and transfers."""

from platform_api.kernel.context import Context, Kernel
from platform_api.payments.routes import (
    LibraryController,
    PaymentController,
    ProviderController,
    PurchaseController,
    SaleController,
    TransferController,
)
from platform_api.payments.service import PaymentService

__all__ = ["CONTEXT"]


async def _upkeep(kernel: Kernel) -> None:
    payments = kernel.service(PaymentService)
    await payments.intents.sweep()
    await payments.refunds.sweep()


CONTEXT = Context(
    "payments",
    (
        PaymentController, PurchaseController, LibraryController, SaleController, TransferController,
        ProviderController,
    ),
    PaymentService,
    events=(
        "payment.completed", "payment.failed", "refund.processed", "entitlement.granted", "entitlement.revoked",
        "transfer.completed",
    ),
    upkeep=_upkeep,
)
