"""Royalties: who is owed what of each sale, by which rule, and what became of it."""

from platform_api.kernel.context import Context, Kernel
from platform_api.royalties.routes import PayoutController, RoyaltyController, RoyaltyRunController, RuleController
from platform_api.royalties.service import RoyaltyService

__all__ = ["CONTEXT"]


async def _upkeep(kernel: Kernel) -> None:
    royalties = kernel.service(RoyaltyService)
    await royalties.reconciliation.look()
    await royalties.fee_sweeps.look()


CONTEXT = Context(
    "royalties",
    (RuleController, RoyaltyController, PayoutController, RoyaltyRunController),
    RoyaltyService,
    events=(
        "royalty.rule_changed", "royalty.licence_share_changed", "royalty.distributed", "royalty.reversed",
        "statement.closed", "payout.paid",
    ),  # fmt: skip
    upkeep=_upkeep,
)
