"""The contexts of the platform, in the order of their making: each may use the services of those before it.

A new context is a line here.
"""

from __future__ import annotations

from platform_api import (
    admin,
    creators,
    exchange,
    identity,
    ledger,
    licensing,
    live,
    media,
    ops,
    payments,
    registry,
    royalties,
    settlement,
    taxonomy,
    tokens,
    works,
)
from platform_api.kernel.context import Context

__all__ = ["CONTEXTS"]

CONTEXTS: tuple[Context, ...] = (
    ops.CONTEXT,
    identity.CONTEXT,
    exchange.CONTEXT,
    exchange.ACCOUNTS,
    settlement.CONTEXT,
    settlement.WITHDRAWALS,
    taxonomy.CONTEXT,
    media.CONTEXT,
    creators.CONTEXT,
    works.CONTEXT,
    ledger.CONTEXT,
    royalties.CONTEXT,
    payments.CONTEXT,
    licensing.CONTEXT,
    registry.CONTEXT,
    tokens.CONTEXT,
    admin.CONTEXT,
    live.CONTEXT,
)
