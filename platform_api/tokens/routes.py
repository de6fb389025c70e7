"""Routes of tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok, path_id, tagged
from platform_api.idempotency import IdempotencyKey, NeededKey, checked_key, required_key
from platform_api.openapi import BEARER, failures
from platform_api.routing import READS, READS_ONE, AnyRequest, Visitor, Who
from platform_api.security import SessionGuard, permitted
from platform_api.tokens.models import (
    Availability,
    Holder,
    Investment,
    MarketPhase,
    PhaseRequest,
    PricePoint,
    Proceeds,
    Reservation,
    Token,
    TokenDetail,
    TokenRequest,
    TokenTransaction,
)
from platform_api.tokens.service import TokenService

__all__ = ["InvestmentController", "MarketStaffController", "SymbolController", "TokenController"]

Guard = NamedDependency[SessionGuard]
Tokens = NamedDependency[TokenService]
Status = Literal["minted", "listed", "halted", "delisted"]
Interval = Literal["1m", "5m", "1h", "1d"]
LAUNCHES = failures(400, 401, 403, 409, 429, 503)
MOVES_MARKETS = failures(400, 401, 403, 404, 409, 422, 429, 503)


class TokenController(Controller):
    path = "/v1/tokens"
    tags = ("tokens",)

    @post("/", security=BEARER, guards=[permitted("launch_token")], responses=LAUNCHES)
    async def launch(
        self, request: AnyRequest, data: JSONBody[TokenRequest], caller: Who, tokens: Tokens, guard: Guard,
        idempotency_key: NeededKey = None,
    ) -> Response[Envelope[Token]]:  # fmt: skip
        """Launch one's token. Needs a verified creator, a step-up for itself after the sign-in, and an Idempotency-Key.

        The answer is the document, `reserved`; it is `minted` once the core has it all, and then operators list it.
        """
        token, replayed = await tokens.registry.launch(caller, data, required_key(idempotency_key))
        guard.forget(caller.session_id)
        answer = tagged(ok(request, token), token.version)
        if replayed:
            answer.headers["idempotency-replayed"] = "true"
        return answer

    @get("/", responses=READS)
    async def list_tokens(
        self, request: AnyRequest, tokens: Tokens, status: FromQuery[Status | None] = None,
        creator_id: FromQuery[UUID | None] = None, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Token]]:  # fmt: skip
        """Creators' tokens, the latest first.

        Those whose launch came to its end: before, and if it failed, a token is its owner's alone to see.
        """
        return ok(request, *await tokens.views.browse(status, creator_id, cursor, limit))

    @get("/{token_id:str}", responses=READS_ONE)
    async def read(
        self, request: AnyRequest, token_id: FromPath[str], visitor: Visitor, tokens: Tokens
    ) -> Response[Envelope[TokenDetail]]:
        """One token, by id or symbol.

        One that is being launched, or whose launch failed (`problem`), is its owner's alone to see. `phase` and prices
        follow the market by some moments.
        """
        token = await tokens.views.one(visitor, token_id)
        return tagged(ok(request, token), token.version)

    @get("/{token_id:str}/price-history", responses=READS_ONE)
    async def price_history(
        self, request: AnyRequest, token_id: FromPath[str], visitor: Visitor, tokens: Tokens,
        interval: FromQuery[Interval] = "1h",
        since: Annotated[datetime | None, QueryParameter(name="from")] = None,
        until: Annotated[datetime | None, QueryParameter(name="to")] = None,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[PricePoint]]:  # fmt: skip
        """Candles of trades that opened at `from` or later and before `to`, the latest first.

        A stretch without a trade has no candle.
        """
        return ok(request, *await tokens.views.prices(visitor, token_id, interval, since, until, cursor, limit))

    @get("/{token_id:str}/holders", responses=READS_ONE)
    async def holders(
        self, request: AnyRequest, token_id: FromPath[str], visitor: Visitor, tokens: Tokens,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Holder]]:  # fmt: skip
        """Who holds how much, the most first.

        Shares are of what circulates, rounded down. The launch's own account, which is nobody's, holds what is not sold
        yet.
        """
        return ok(request, *await tokens.views.holders(visitor, token_id, cursor, limit))

    @get("/{token_id:str}/transactions", responses=READS_ONE)
    async def transactions(
        self, request: AnyRequest, token_id: FromPath[str], visitor: Visitor, tokens: Tokens,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[TokenTransaction]]:  # fmt: skip
        """Trades and the steps of the token's life, the latest first.

        Steps are mint, share, open, halt, resume and close, each with its `sequence` in the journal.
        """
        return ok(request, *await tokens.views.transactions(visitor, token_id, cursor, limit))

    @post(
        "/{token_id:str}/list", status_code=200, security=BEARER, guards=[permitted("manage_markets")],
        responses=MOVES_MARKETS,
    )  # fmt: skip
    async def open(
        self, request: AnyRequest, token_id: FromPath[str], data: JSONBody[PhaseRequest], caller: Who, tokens: Tokens,
        idempotency_key: IdempotencyKey = None,
    ) -> Envelope[MarketPhase]:  # fmt: skip
        """Open the market of a minted token by an auction of the orders collected. Needs `manage_markets`."""
        id_ = path_id(token_id, "token")
        return ok(request, await tokens.registry.open(caller, id_, data.reason, checked_key(idempotency_key)))

    @post(
        "/{token_id:str}/delist", status_code=200, security=BEARER, guards=[permitted("manage_markets")],
        responses=MOVES_MARKETS,
    )  # fmt: skip
    async def delist(
        self, request: AnyRequest, token_id: FromPath[str], data: JSONBody[PhaseRequest], caller: Who, tokens: Tokens,
        idempotency_key: IdempotencyKey = None,
    ) -> Envelope[MarketPhase]:  # fmt: skip
        """Close the market for good: its orders are cancelled, balances stay. Needs `manage_markets`."""
        id_ = path_id(token_id, "token")
        return ok(request, await tokens.registry.delist(caller, id_, data.reason, checked_key(idempotency_key)))

    @post("/{token_id:str}/proceeds", status_code=200, security=BEARER, responses=MOVES_MARKETS)
    async def proceeds(
        self, request: AnyRequest, token_id: FromPath[str], caller: Who, tokens: Tokens,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Proceeds]:  # fmt: skip
        """Take what one's sale has brought in to what one is owed, where it is held as other earnings are and then
        payable (`GET /v1/royalties/balance`). Needs an Idempotency-Key."""
        id_ = path_id(token_id, "token")
        return ok(request, await tokens.registry.proceeds(caller, id_, required_key(idempotency_key)))


class SymbolController(Controller):
    path = "/v1/token-symbols"
    tags = ("tokens",)

    @get("/available", responses=READS)
    async def available(
        self, request: AnyRequest, visitor: Visitor, tokens: Tokens,
        symbol: Annotated[str, QueryParameter(min_length=1, max_length=64)],
    ) -> Envelope[Availability]:  # fmt: skip
        """Is a symbol to be had? Advice only: reserve it to be sure."""
        return ok(request, await tokens.symbols.availability(visitor, symbol))

    @post("/{symbol:str}/reservations", security=BEARER, guards=[permitted("launch_token")], responses=LAUNCHES)
    async def reserve(
        self, request: AnyRequest, symbol: FromPath[str], caller: Who, tokens: Tokens,
        idempotency_key: IdempotencyKey = None,
    ) -> Envelope[Reservation]:  # fmt: skip
        """Hold a symbol for a day.

        Needs `launch_token`, which every creator has. Asked again by who holds it, it is the same; at most three at a
        time (409 `too_many_reservations`), unless the operator sets other numbers.
        """
        return ok(request, await tokens.symbols.reserve(caller, symbol, checked_key(idempotency_key)))


class InvestmentController(Controller):
    path = "/v1/users/me/investments"
    tags = ("tokens",)
    security = BEARER

    @get("/", responses=READS)
    async def investments(self, request: AnyRequest, caller: Who, tokens: Tokens) -> Envelope[list[Investment]]:
        """Own positions in creators' tokens, with average costs and gains.

        Also those that were sold, for what they gained.
        """
        return ok(request, await tokens.views.investments(caller))


class MarketStaffController(Controller):
    path = "/v1/admin/markets"
    tags = ("admin",)
    security = BEARER

    @post("/{market_id:str}/halt", status_code=200, guards=[permitted("manage_markets")], responses=MOVES_MARKETS)
    async def halt(
        self, request: AnyRequest, market_id: FromPath[str], data: JSONBody[PhaseRequest], caller: Who, tokens: Tokens,
        idempotency_key: IdempotencyKey = None,
    ) -> Envelope[MarketPhase]:  # fmt: skip
        """Stop trading in a market; orders stay and can be cancelled. Needs `manage_markets`."""
        found = await tokens.registry.halt(caller, market_id, data.reason, checked_key(idempotency_key))
        return ok(request, found)

    @post("/{market_id:str}/resume", status_code=200, guards=[permitted("manage_markets")], responses=MOVES_MARKETS)
    async def resume(
        self, request: AnyRequest, market_id: FromPath[str], data: JSONBody[PhaseRequest], caller: Who, tokens: Tokens,
        idempotency_key: IdempotencyKey = None,
    ) -> Envelope[MarketPhase]:  # fmt: skip
        """Let a halted market trade again. Needs `manage_markets`."""
        found = await tokens.registry.resume(caller, market_id, data.reason, checked_key(idempotency_key))
        return ok(request, found)
