"""Batches: what was settled on chain, and with which digest."""

from platform_api.kernel.context import Context
from platform_api.settlement.routes import ProofController, SettlementController
from platform_api.settlement.withdrawal_routes import WithdrawalController
from platform_api.settlement.withdrawals import WithdrawalService

__all__ = ["CONTEXT", "WITHDRAWALS"]

CONTEXT = Context("settlement", (SettlementController, ProofController))
WITHDRAWALS = Context("withdrawals", (WithdrawalController,), WithdrawalService)
