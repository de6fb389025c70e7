"""Routes of the exchange."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok
from platform_api.errors import ApiError, ErrorCode
from platform_api.exchange.models import (
    AllCanceled,
    Balance,
    Book,
    Canceled,
    Candle,
    FaucetDeposit,
    FaucetRequest,
    Market,
    Order,
    OrderRequest,
    Placed,
    Trade,
    TradeSettlement,
)
from platform_api.exchange.service import ExchangeService
from platform_api.idempotency import IdempotencyKey, checked_key
from platform_api.openapi import BEARER, failures
from platform_api.routing import AnyRequest, Who
from platform_api.security import Caller, unauthorized

__all__ = ["ExchangeController"]

Exchange = NamedDependency[ExchangeService]

DEPTH_DEFAULT, DEPTH_MAX = 50, 500

Token = Annotated[str | None, QueryParameter(name="token_id", max_length=64)]


class ExchangeController(Controller):
    path = "/v1"
    tags = ("exchange",)

    @get("/markets", responses=failures(429, 503))
    async def markets(self, request: AnyRequest, exchange: Exchange) -> Envelope[list[Market]]:
        """All listed markets.

        An order that does not keep to `tick_size`, `lot_size` and the bounds of size and price is refused by the core.
        Rates and bands are parts per million; a band of 0 is none.
        """
        return ok(request, await exchange.markets())

    @get("/markets/{token_id:str}/candles", responses=failures(400, 404, 429, 503))
    async def candles(
        self,
        request: AnyRequest,
        exchange: Exchange,
        token_id: FromPath[str],
        interval: FromQuery[str] = "1m",
        limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Candle]]:
        """Candles of a market, the latest first; intervals 1m, 5m, 15m, 1h, 4h, 1d.

        A stretch without a trade has no candle; the latest one still grows.
        """
        return ok(request, *await exchange.candles(token_id, interval, cursor, limit))

    @get("/orderbook/{token_id:str}", responses=failures(400, 404, 429, 503))
    async def orderbook(
        self,
        request: AnyRequest,
        exchange: Exchange,
        token_id: FromPath[str],
        depth: Annotated[int, QueryParameter(ge=1, le=DEPTH_MAX)] = DEPTH_DEFAULT,
    ) -> Envelope[Book]:
        """The price levels of a market, from the market-data copy.

        `sequence` is the last command in it. 503 while market data is away, though orders may be taken.
        """
        return ok(request, await exchange.depth(token_id, depth))

    @post(
        "/orders",
        status_code=201,
        security=BEARER,
        responses={200: ResponseSpec(Envelope[Placed], generate_examples=False, description="The order was there.")}
        | failures(400, 401, 403, 404, 409, 422, 429, 503, 504),
    )
    async def place(
        self,
        request: AnyRequest,
        data: JSONBody[OrderRequest],
        caller: Who,
        exchange: Exchange,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Envelope[Placed]]:
        """Place an order. Needs client_order_id or Idempotency-Key. 201 placed, 200 known already."""
        status, placed, replayed = await exchange.place(caller, data, checked_key(idempotency_key))
        headers = {"idempotency-replayed": "true"} if replayed else {}
        return Response(ok(request, placed), status_code=status, headers=headers)

    @get("/orders", security=BEARER, responses=failures(400, 401, 403, 404, 429, 503))
    async def orders(
        self,
        request: AnyRequest,
        caller: Who,
        exchange: Exchange,
        token: Token = None,
        status: FromQuery[str | None] = None,
        limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Order]]:
        """Own orders, the latest first; `status` live, waiting, open, filled or canceled.

        `live` is waiting and open together. Of all markets, unless `token_id` names one.
        """
        return ok(request, *await exchange.orders(caller, token, status, cursor, limit))

    @delete("/orders", status_code=200, security=BEARER, responses=failures(400, 401, 403, 404, 429, 503, 504))
    async def cancel_all(
        self, request: AnyRequest, caller: Who, exchange: Exchange, token: Token = None
    ) -> Envelope[AllCanceled]:
        """Cancel all own orders, or those of one market.

        None to cancel is no failure. `sequence` is that of the command: what was there before it is gone, what comes
        behind it stays. It counts against the account's limit, not against that of orders.
        """
        return ok(request, await exchange.cancel_all(caller, token))

    @get("/orders/{order_id:str}", security=BEARER, responses=failures(401, 403, 404, 429, 503))
    async def order(
        self,
        request: AnyRequest,
        caller: Who,
        exchange: Exchange,
        order_id: FromPath[str],
    ) -> Envelope[Order]:
        """One own order.

        Also one that is filled or cancelled: `status` says so, and `reason` why the exchange ended it.
        """
        return ok(request, await exchange.order(caller, order_id))

    @delete(
        "/orders/{order_id:str}",
        status_code=200,
        security=BEARER,
        responses=failures(401, 403, 404, 422, 429, 503, 504),
    )
    async def cancel(
        self,
        request: AnyRequest,
        caller: Who,
        exchange: Exchange,
        order_id: FromPath[str],
    ) -> Envelope[Canceled]:
        """Cancel an own order.

        What was filled stays; `leaves` is what the cancel took off the book. It counts against the account's limit, not
        against that of orders, and not at all if it was cancelled.
        """
        return ok(request, await exchange.cancel(caller, order_id))

    @get("/trades", responses=failures(400, 401, 404, 429, 503))
    async def trades(
        self,
        request: AnyRequest,
        exchange: Exchange,
        visitor: NamedDependency[Caller | None],
        token: Token = None,
        own: FromQuery[bool] = False,
        limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Trade]]:
        """The public tape of a market, or with `own=true` the caller's own trades; the latest first.

        One of the two is needed (400 `missing`). On the tape nobody has a name; `side`, `order_id` and `fee` are told
        of one's own.
        """
        if own:
            if visitor is None:
                raise unauthorized("token_missing", "Own trades need an access token.")
            return ok(request, *await exchange.own_trades(visitor, token, cursor, limit))
        if token is None:
            message = "token_id: which market? or own=true"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="token_id")
        return ok(request, *await exchange.public_trades(token, cursor, limit))

    @get("/trades/{trade_id:str}/settlement", responses=failures(400, 404, 429, 503))
    async def trade_settlement(
        self, request: AnyRequest, exchange: Exchange, trade_id: FromPath[str], token: Token = None
    ) -> Envelope[TradeSettlement]:
        """The batch that settles a trade of the market `token_id`, its transactions, and where to check it.

        For everybody. `batch` is null until the trade is sealed into one; once it is `final` it took effect on the
        chain.
        """
        if token is None:
            message = "token_id: a trade is known by its market and its number there"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="token_id")
        return ok(request, await exchange.trade_settlement(token, trade_id))

    @get("/users/me/balances", security=BEARER, responses=failures(401, 403, 429, 503))
    async def balances(self, request: AnyRequest, caller: Who, exchange: Exchange) -> Envelope[list[Balance]]:
        """Own balances by asset. `held` backs open orders and withdrawals under way; `total` is both."""
        return ok(request, await exchange.balances(caller))

    @post("/faucet", status_code=201, security=BEARER, responses=failures(400, 401, 403, 422, 429, 503, 504))
    async def faucet(
        self,
        request: AnyRequest,
        data: JSONBody[FaucetRequest],
        caller: Who,
        exchange: Exchange,
    ) -> Envelope[list[FaucetDeposit]]:
        """Simulated: test money of the embedded chain, once a year per account and asset. Refused on other chains."""
        return ok(request, await exchange.faucet(caller, data))
