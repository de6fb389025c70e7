"""Routes of estimates, rates, and what an account has, had and moved."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok
from platform_api.exchange.account_models import (
    BalanceDay,
    Estimate,
    EstimateRequest,
    FeeRate,
    Movement,
    Portfolio,
)
from platform_api.exchange.accounts import AccountService
from platform_api.openapi import BEARER, failures
from platform_api.routing import READS, AnyRequest, Who

__all__ = ["AccountController"]

Accounts = NamedDependency[AccountService]
NAME = r"^[A-Za-z0-9_.:-]+$(?!\n)"
Asset = Annotated[str | None, QueryParameter(min_length=1, max_length=64, pattern=NAME)]
OneAsset = Annotated[str, QueryParameter(name="asset", min_length=1, max_length=64, pattern=NAME)]
DAYS_DEFAULT, DAYS_MAX = 30, 366
Days = Annotated[int, QueryParameter(ge=1, le=DAYS_MAX)]


class AccountController(Controller):
    path = "/v1"
    tags = ("exchange",)

    @post("/orders/estimate", status_code=200, responses=failures(400, 404, 429, 503))
    async def estimate(
        self, request: AnyRequest, data: JSONBody[EstimateRequest], accounts: Accounts
    ) -> Envelope[Estimate]:
        """What an order would take from the market-data copy of the book now, with fees. Binding on nobody."""
        return ok(request, await accounts.estimate(data))

    @get("/fee-schedule", responses=failures(429, 503))
    async def fee_schedule(self, request: AnyRequest, accounts: Accounts) -> Envelope[list[FeeRate]]:
        """The rates of all markets.

        Parts per million of the notional, of the taker and of the maker; an account may have rates of its own.
        """
        return ok(request, await accounts.fee_schedule())

    @get("/transactions", security=BEARER, responses=READS)
    async def transactions(
        self, request: AnyRequest, caller: Who, accounts: Accounts, asset: Asset = None, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Movement]]:  # fmt: skip
        """Everything that changed an own balance: trades and postings of every context, the latest first.

        Of the money for trading (`trading`) and of what was earned (`payable`). `batch` and `digests` say where it was
        settled, once it is.
        """
        return ok(request, *await accounts.movements(caller, asset, cursor, limit))

    @get("/users/me/balance-history", security=BEARER, responses=READS)
    async def history(
        self, request: AnyRequest, caller: Who, accounts: Accounts, asset: OneAsset, days: Days = DAYS_DEFAULT
    ) -> Envelope[list[BalanceDay]]:
        """The balance of an asset at the end of each day (UTC), the latest first.

        Free and held together; of today, as of now. 400 `unknown_asset` for one that the exchange has not.
        """
        return ok(request, await accounts.history(caller, asset, days))

    @get("/users/me/portfolio", security=BEARER, responses=READS)
    async def portfolio(self, request: AnyRequest, caller: Who, accounts: Accounts) -> Envelope[Portfolio]:
        """Cash and positions at last prices, with average costs and gains.

        Costs are averages over all that was bought, fees included. A position in a market without a trade has no
        `value`, and is not in `totals`.
        """
        return ok(request, await accounts.portfolio(caller))
