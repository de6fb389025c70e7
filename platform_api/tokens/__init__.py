"""Creators' tokens: symbols, launch, markets' phases, prices, holders, transactions."""

from platform_api.kernel.context import Context, Kernel
from platform_api.tokens.routes import InvestmentController, MarketStaffController, SymbolController, TokenController
from platform_api.tokens.service import TokenService

__all__ = ["CONTEXT"]


async def _upkeep(kernel: Kernel) -> None:
    await kernel.service(TokenService).desk.sweep()


CONTEXT = Context(
    "tokens",
    (TokenController, SymbolController, InvestmentController, MarketStaffController),
    TokenService,
    events=(
        "token.created", "token.listed", "token.halted", "token.resumed", "token.delisted", "token.failed",
        "token.proceeds_paid",
    ),
    upkeep=_upkeep,
    catalogue=("/v1/tokens", "/v1/token-symbols"),
)  # fmt: skip
