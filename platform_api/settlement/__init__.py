"""Batches: what was settled on chain, and with which digest."""

from platform_api.kernel.context import Context
from platform_api.settlement.routes import SettlementController

__all__ = ["CONTEXT"]

CONTEXT = Context("settlement", (SettlementController,))
