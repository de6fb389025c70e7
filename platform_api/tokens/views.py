"""What everybody may read of tokens: the list, one token, prices, holders, transactions. Rows become bodies here.

A token that is being launched, or whose launch failed, is there for its owner alone. Numbers of the market come from
the projections, which follow the core.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from platform_api.envelope import BIGINT_MAX, Pagination, cursor_from, cursor_text, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.accounts import AccountService
from platform_api.exchange.service import ExchangeService, candle_of, trade_of
from platform_api.kernel.context import Kernel
from platform_api.moments import checked_moment
from platform_api.money import decimal_text, steps_text
from platform_api.security import Caller
from platform_api.tokens import queries
from platform_api.tokens.launch import SYMBOL
from platform_api.tokens.models import Holder, Investment, PricePoint, Token, TokenDetail, TokenTransaction

__all__ = ["INTERVALS", "TokenViews", "token_of"]

INTERVALS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
"""Those that the projector keeps."""
HIDDEN = ("reserved", "failed")


class TokenViews:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._exchange = kernel.service(ExchangeService)
        self._reader = self._exchange.reader
        self._accounts = kernel.service(AccountService)
        self._exchange.symbols.append(self._symbol_of)

    async def browse(
        self, status: str | None, creator_id: UUID | None, cursor: str | None, limit: int
    ) -> tuple[list[Token], Pagination]:
        """The latest first."""
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.tokens(db, status, creator_id, before, limit + 1)
            rows, pagination = page(rows, limit, lambda row: (row["id"],))
            figures = await self._reader.figures(db, [row["market"] for row in rows]) if rows else {}
        return [token_of(row, figures.get(row["market"])) for row in rows], pagination

    async def investments(self, caller: Caller) -> list[Investment]:
        """Own positions in creators' tokens, also those that were sold."""
        positions = {position.asset: position for position in (await self._accounts.portfolio(caller)).positions}
        async with self._database.connection() as db:
            rows = await queries.tokens_of_symbols(db, list(positions)) if positions else []
        return [
            Investment(
                str(row["id"]), str(row["creator_id"]), row["symbol"], row["name"], row["status"],
                positions[row["symbol"]],
            )
            for row in sorted(rows, key=lambda row: str(row["symbol"]))
        ]  # fmt: skip

    async def one(self, visitor: Caller | None, token_id: str) -> TokenDetail:
        """By id or symbol. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row = await self._visible(db, visitor, token_id)
            figures = await self._reader.figures(db, [row["market"]])
            units, holders = await self._reader.supply(db, row["symbol"])
        token = token_of(row, figures.get(row["market"]))
        settlement = (self._kernel.status.read().get("backoffice") or {}).get("settlement") or {}
        return TokenDetail(
            **msgspec.structs.asdict(token), circulating_supply=decimal_text(units, row["decimals"]),
            holder_count=holders, vault=(settlement.get("vaults") or {}).get(row["symbol"]),
        )  # fmt: skip

    async def prices(
        self, visitor: Caller | None, token_id: str, interval: str, since: datetime | None, until: datetime | None,
        cursor: str | None, limit: int,
    ) -> tuple[list[PricePoint], Pagination]:  # fmt: skip
        """Candles opened in [since, until), the latest first. Raises ApiError NOT_FOUND, VALIDATION_ERROR."""
        if interval not in INTERVALS:
            message = f"interval: must be one of {', '.join(INTERVALS)}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="invalid", field="interval")
        since = None if since is None else checked_moment(since, "from")
        before = datetime.now(UTC) + timedelta(days=1) if until is None else checked_moment(until, "to")
        (after,) = cursor_from(cursor, datetime) or (before,)
        async with self._database.connection() as db:
            row = await self._visible(db, visitor, token_id)
            market = await self._reader.market(db, row["market"])
            if market is None:
                return [], Pagination(limit, None)
            rows = await self._reader.candles(
                db, market["id"], INTERVALS[interval], since, min(before, after), limit + 1
            )
        rows, pagination = page(rows, limit, lambda row: (row["opened_at"],))
        return [PricePoint(**msgspec.structs.asdict(candle_of(row, market))) for row in rows], pagination

    async def holders(
        self, visitor: Caller | None, token_id: str, cursor: str | None, limit: int
    ) -> tuple[list[Holder], Pagination]:
        """The most first. Their quantities sum to the circulating supply. Raises ApiError NOT_FOUND."""
        after = cursor_from(cursor, int, int)
        async with self._database.connection() as db:
            token = await self._visible(db, visitor, token_id)
            units, _ = await self._reader.supply(db, token["symbol"])
            rows = await self._reader.holders(db, token["symbol"], after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["quantity"], row["account_id"]))
        return [_holder(row, units, token["decimals"]) for row in rows], pagination

    async def transactions(
        self, visitor: Caller | None, token_id: str, cursor: str | None, limit: int
    ) -> tuple[list[TokenTransaction], Pagination]:
        """Trades, and the steps of the token's life, in the order of the journal, the latest first.

        The cursor holds the last trade and the last step that were told: each list goes on from its own.
        """
        trade_before, step_before = cursor_from(cursor, int, int) or (None, None)
        async with self._database.connection() as db:
            token = await self._visible(db, visitor, token_id)
            market = await self._reader.market(db, token["market"])
            steps = await queries.steps_of(db, token["id"], step_before, limit + 1)
            trades = []
            if market is not None:
                trades = await self._reader.trades(db, market["id"], trade_before, limit + 1)
        told: list[tuple[int, bool, Any]] = [(row["sequence"] or 0, False, row) for row in steps]
        told += [(row["sequence"], True, row) for row in trades]
        told.sort(key=lambda entry: (entry[0], entry[2]["trade_id"] if entry[1] else 0), reverse=True)
        more, told = len(told) > limit, told[:limit]
        for _, is_trade, row in told:
            if is_trade:
                trade_before = row["trade_id"]
            else:
                step_before = row["id"]
        following = cursor_text(*(BIGINT_MAX if part is None else part for part in (trade_before, step_before)))
        found = [_trade(row, market) if is_trade else _step(row) for _, is_trade, row in told]
        return found, Pagination(limit, following if more else None)

    async def _symbol_of(self, token_id: str) -> str | None:
        """Of a token by its id; None for any other text."""
        try:
            id_ = UUID(token_id)
        except ValueError:
            return None
        async with self._database.connection() as db:
            row = await queries.token(db, id_)
        return None if row is None else str(row["symbol"])

    async def _visible(self, db: Any, visitor: Caller | None, token_id: str) -> Any:
        if SYMBOL.fullmatch(token_id):
            row = await queries.token_by_symbol(db, token_id)
        else:
            try:
                row = await queries.token(db, UUID(token_id))
            except ValueError as error:
                raise unknown("token") from error
        is_owner = row is not None and visitor is not None and str(row["account_id"]) == visitor.account_id
        if row is None or (row["status"] in HIDDEN and not is_owner):
            raise unknown("token")
        return row


def token_of(row: Any, figures: Any) -> Token:
    """`figures`: of its market, or None."""
    price = volume = None
    if figures is not None:
        if figures["last_price"] is not None:
            price = steps_text(figures["last_price"], figures["tick"], figures["tick_decimals"])
        volume = steps_text(int(figures["volume"] or 0), figures["lot"], figures["lot_decimals"])
    at = {name: timestamp(row[name]) if row[name] else None for name in ("minted_at", "listed_at", "delisted_at")}
    return Token(
        id=str(row["id"]), creator_id=str(row["creator_id"]), symbol=row["symbol"], name=row["name"],
        description=row["description"], decimals=row["decimals"],
        total_supply=decimal_text(row["total_supply"], row["decimals"]),
        sale_size=decimal_text(row["sale_size"], row["decimals"]), start_price=row["start_price"],
        quote_asset=row["quote_asset"], market=row["market"], status=row["status"], problem=row["problem"],
        phase=figures["phase"] if figures is not None else None, last_price=price, volume_24h=volume,
        created_at=timestamp(row["created_at"]), updated_at=timestamp(row["updated_at"]), version=row["version"], **at,
    )  # fmt: skip


def _holder(row: Any, supply: int, decimals: int) -> Holder:
    head, _, rest = row["name"].partition(":")
    kind: Any = head if head in ("user", "launch") else "other"
    share = row["quantity"] * 10_000 // supply if supply else 0
    return Holder(
        kind, row["name"], rest if kind == "user" else None, decimal_text(row["quantity"], decimals), min(share, 10_000)
    )


def _trade(row: Any, market: Any) -> TokenTransaction:
    trade = trade_of(row, market)
    return TokenTransaction(
        "trade", trade.sequence, trade.traded_at, trade.size, trade.price, trade.notional, trade.aggressor,
        trade.trade_id, trade.batch, trade.batch_status, trade.digests,
    )  # fmt: skip


def _step(row: Any) -> TokenTransaction:
    body = msgspec.json.decode(row["body"])
    size = body["legs"][0]["amount"] if "legs" in body else body.get("amount")
    return TokenTransaction(row["step"], row["sequence"] or 0, timestamp(row["decided_at"]), size)
