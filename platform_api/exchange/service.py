"""Orders by command to the core, everything else read from the projections and the market-data copy.

The list of markets is remembered, so that orders name tokens also while the database is away. An order needs a
`client_order_id` or an `Idempotency-Key`; from the key a client id is derived, so the core itself refuses to place it
twice. A rejected command is an error answer with the rulebook's word as its reason, never a success.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from engine.messages.errors import Unavailable
from platform_api.envelope import Pagination, cursor_from, page, path_number, unknown
from platform_api.errors import ApiError, ErrorCode, refused_order, timestamp
from platform_api.exchange import queries
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
from platform_api.exchange.reader import MarketReader
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text, steps_text
from platform_api.security import Caller

__all__ = ["ExchangeService", "candle_of", "trade_of"]

MARKETS_NS = 2_000_000_000
STATUSES = ("waiting", "open", "filled", "canceled")
INTERVALS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14_400, "1d": 86_400}


SymbolOf = Callable[[str], Awaitable[str | None]]


class ExchangeService:
    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._core = kernel.core
        self._book = kernel.book
        self._settings = kernel.settings
        self._idempotency = kernel.idempotency
        self._markets: list[Any] = []
        self._markets_until_ns = 0
        self.reader = MarketReader()
        self.symbols: list[SymbolOf] = []
        """Added by contexts that have names of their own for what is traded: the symbol behind one, or None."""

    async def markets(self) -> list[Market]:
        return [_market(row) for row in await self._market_rows()]

    async def asset_scale(self, db: Any, name: str) -> int | None:
        """Decimals of an asset of the core, on the caller's connection; None for one that is not listed."""
        return await queries.asset_scale(db, name)

    async def depth(self, token_id: str, depth: int) -> Book:
        """Raises ApiError NOT_FOUND, Unavailable."""
        name = await self._market_name(token_id)
        try:
            book = await self._book.depth(name, depth)
        except KeyError as error:
            raise _no_market(token_id) from error
        sides = {side: [(str(price), str(size)) for price, size in book[side]] for side in ("bids", "asks")}
        return Book(name, int(book["sequence"]), sides["bids"], sides["asks"])

    async def place(self, caller: Caller, body: OrderRequest, key: str | None) -> tuple[int, Placed, bool]:
        """HTTP status, the order, and whether the answer is that of an earlier request with the same key.

        Raises:
            ApiError: VALIDATION_ERROR without an id or key; CONFLICT; ORDER_REJECTED.
            Unavailable, OutcomeUnknown: of the core.
        """
        if key is None and body.client_order_id is None:
            message = "client_order_id: give one, or an Idempotency-Key header"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="client_order_id")
        client_id = body.client_order_id or _client_id_of(key or "")
        command = _place_command(caller, body, client_id, await self._market_name(body.market))

        async def work() -> tuple[int, bytes]:
            placed = _placed(await self._core.submit(command), client_id, command["market"])
            return (200 if placed.duplicate else 201), msgspec.json.encode(placed)

        if key is None:
            (status, data), replayed = await work(), False
        else:
            (status, data), replayed = await self._idempotency.run(
                caller.account_id, "POST /v1/orders", key, body, work
            )
        return status, msgspec.json.decode(data, type=Placed), replayed

    async def cancel(self, caller: Caller, order_id: str) -> Canceled:
        number = path_number(order_id, "order")
        answer = await self._core.submit({"op": "cancel", "account": caller.account, "order_id": number})
        if answer.get("event") == "rejected":
            raise refused_order(str(answer.get("reason")))
        return Canceled(order_id, int(answer.get("sequence", 0)), answer.get("leaves"))

    async def cancel_all(self, caller: Caller, token_id: str | None) -> AllCanceled:
        """Raises ApiError NOT_FOUND; Unavailable, OutcomeUnknown."""
        market = None if token_id is None else str((await self.market_row(token_id))["name"])
        command = {"op": "mass_cancel", "account": caller.account} | ({} if market is None else {"market": market})
        answer = await self._core.submit(command)
        return AllCanceled(int(answer.get("sequence", 0)), market)

    async def orders(
        self, caller: Caller, market: str | None, status: str | None, cursor: str | None, limit: int
    ) -> tuple[list[Order], Pagination]:
        """`status`: one of the four, or `live` for waiting and open."""
        statuses = {"live": ["waiting", "open"]}.get(status or "") or ([status] if status else None)
        if statuses and any(word not in STATUSES for word in statuses):
            message = f"status: must be live or one of {', '.join(STATUSES)}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="invalid", field="status")
        (before,) = cursor_from(cursor, int) or (None,)
        market_id = (await self.market_row(market))["id"] if market else None
        rows = await queries.orders(
            self._database, caller.account, market_id, statuses, before, limit + 1
        )
        rows, pagination = page(rows, limit, lambda row: (row["order_id"],))
        return [_order(row, await self.market_by_id(row["market_id"])) for row in rows], pagination

    async def order(self, caller: Caller, order_id: str) -> Order:
        row = await queries.order(self._database, caller.account, path_number(order_id, "order"))
        if row is None:
            raise unknown("order")
        return _order(row, await self.market_by_id(row["market_id"]))

    async def public_trades(self, token_id: str, cursor: str | None, limit: int) -> tuple[list[Trade], Pagination]:
        (before,) = cursor_from(cursor, int) or (None,)
        market = await self.market_row(token_id)
        rows = await queries.public_trades(self._database, market["id"], before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["trade_id"],))
        return [trade_of(row, market) for row in rows], pagination

    async def trade_settlement(self, token_id: str, trade_id: str) -> TradeSettlement:
        """Raises ApiError NOT_FOUND."""
        market = await self.market_row(token_id)
        row = await queries.trade_settlement(self._database, market["id"], path_number(trade_id, "trade"))
        if row is None:
            raise unknown("trade")
        number = row["number"]
        return TradeSettlement(
            trade_id, market["name"], row["sequence"], number, row["status"], row["first_sequence"],
            row["last_sequence"], bytes(row["root"]).hex() if row["root"] else None, list(row["digests"] or ()),
            timestamp(row["committed_at"]) if row["committed_at"] else None,
            None if number is None else f"/v1/settlement/batches/{number}",
            None if number is None else f"/v1/users/me/proof?batch={number}",
        )  # fmt: skip

    async def own_trades(
        self, caller: Caller, token_id: str | None, cursor: str | None, limit: int
    ) -> tuple[list[Trade], Pagination]:
        key = cursor_from(cursor, int, int)
        market_id = (await self.market_row(token_id))["id"] if token_id else None
        rows = await queries.own_trades(self._database, caller.account, market_id, key, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["sequence"], row["event_index"]))
        return [_own_trade(row, await self.market_by_id(row["market_id"])) for row in rows], pagination

    async def balances(self, caller: Caller) -> list[Balance]:
        rows = await queries.balances(self._database, caller.account)
        return [
            Balance(
                row["name"], *(decimal_text(value, row["scale"]) for value in (row["available"], row["held"], total))
            )
            for row in rows
            for total in (row["available"] + row["held"],)
        ]

    async def candles(
        self, token_id: str, interval: str, cursor: str | None, limit: int
    ) -> tuple[list[Candle], Pagination]:
        if interval not in INTERVALS:
            message = f"interval: must be one of {', '.join(INTERVALS)}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="invalid", field="interval")
        key = cursor_from(cursor, int)
        market = await self.market_row(token_id)
        before = datetime.now(UTC) + timedelta(days=1)
        if key is not None:
            before = datetime.fromtimestamp(min(key[0], int(before.timestamp())), UTC)
        rows = await queries.candles(self._database, market["id"], INTERVALS[interval], before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (int(row["opened_at"].timestamp()),))
        return [candle_of(row, market) for row in rows], pagination

    async def faucet(self, caller: Caller, body: FaucetRequest) -> list[FaucetDeposit]:
        """Once a year for each account and asset: the reference of the deposit sees to that in the core."""
        amounts = self._settings.faucet
        if not self._settings.embedded or not amounts:
            message = "There is no faucet here: test money exists on the embedded chain only."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="faucet_disabled")
        unknown = [asset for asset in body.assets or () if asset not in amounts]
        if unknown:
            message = f"assets: the faucet has {', '.join(amounts)}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="assets")
        return [await self._give(caller, asset, amounts[asset]) for asset in dict.fromkeys(body.assets or amounts)]

    async def _give(self, caller: Caller, asset: str, amount: str) -> FaucetDeposit:
        year = datetime.now(UTC).year
        ref = "faucet:" + hashlib.sha256(f"{caller.account} {asset} {year}".encode()).hexdigest()[:40]
        until = datetime(year + 1, 1, 1, tzinfo=UTC)  # then the core forgets the reference, which else stays for ever
        command = {
            "op": "deposit", "account": caller.account, "asset": asset, "amount": amount, "ref": ref, "code": "faucet",
            "not_after": int(until.timestamp()) * 10**9,
        }  # fmt: skip
        answer = await self._core.submit(command)
        if answer.get("event") == "rejected":
            raise refused_order(str(answer.get("reason")))
        duplicate = answer.get("event") == "duplicate"
        return FaucetDeposit(asset, amount, ref, int(answer.get("sequence", 0)), duplicate, True)

    async def _market_rows(self) -> list[Any]:
        """Raises Unavailable."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._markets_until_ns or not self._markets:
            self._markets = await queries.markets(self._database)
            self._markets_until_ns = now_ns + MARKETS_NS
        return self._markets

    async def market_row(self, token_id: str) -> Any:
        """By market name, or by token, its symbol or id: its first market. Raises ApiError NOT_FOUND, Unavailable."""
        rows = await self._market_rows()
        for column in ("name", "base"):
            for row in rows:
                if row[column] == token_id:
                    return row
        for symbol_of in self.symbols:
            symbol = await symbol_of(token_id)
            for row in rows:
                if row["base"] == symbol:
                    return row
        raise _no_market(token_id)

    async def market_by_id(self, market_id: int) -> Any:
        """Raises Unavailable."""
        for row in await self._market_rows():
            if row["id"] == market_id:
                return row
        self._markets_until_ns = 0  # listed since the list was read
        for row in await self._market_rows():
            if row["id"] == market_id:
                return row
        raise Unavailable(f"the projection has no market {market_id} yet")

    async def _market_name(self, token_id: str) -> str:
        """For a command: while the database is away, from the remembered list, or as given."""
        try:
            return str((await self.market_row(token_id))["name"])
        except Unavailable:
            names = [row["name"] for row in self._markets if token_id in (row["name"], row["base"])]
            return names[0] if names else token_id
        except ApiError:
            # A market that the projection does not show yet: the core and market data know better.
            if "-" in token_id:
                return token_id
            raise


def _place_command(caller: Caller, body: OrderRequest, client_id: str, market: str) -> dict[str, Any]:
    fields = msgspec.structs.asdict(body)
    fields.pop("client_order_id")
    command = {name: value for name, value in fields.items() if value is not None and value is not False}
    return command | {"op": "place", "account": caller.account, "client_id": client_id, "market": market}


def _client_id_of(key: str) -> str:
    return "key-" + hashlib.sha256(key.encode()).hexdigest()[:28]


def _placed(answer: Mapping[str, Any], client_id: str, market: str) -> Placed:
    event = answer.get("event")
    if event == "rejected":
        raise refused_order(str(answer.get("reason")))
    duplicate = event == "duplicate"
    status = str(answer.get("status", "open")) if duplicate else "accepted"
    return Placed(
        order_id=str(answer.get("order_id", "")),
        client_order_id=client_id,
        market=market,
        status=status,
        sequence=int(answer.get("sequence", 0)),
        duplicate=duplicate,
        filled=str(answer["filled"]) if answer.get("filled") is not None else None,
    )


def _no_market(token_id: str) -> ApiError:
    message = f"There is no market {token_id}: it has a name as INK-USDC, its token a symbol and an id."
    return ApiError(ErrorCode.NOT_FOUND, message, reason="unknown_market")


def _price(value: int | None, market: Any) -> str | None:
    return None if value is None else steps_text(value, market["tick"], market["tick_decimals"])


def _size(value: int | None, market: Any) -> str | None:
    return None if value is None else steps_text(value, market["lot"], market["lot_decimals"])


def _quote(value: int | None, market: Any) -> str | None:
    return None if value is None else decimal_text(value, market["quote_scale"])


def _market(row: Any) -> Market:
    return Market(
        id=row["name"],
        token_id=row["base"],
        quote_asset=row["quote"],
        tick_size=_price(1, row) or "",
        lot_size=_size(1, row) or "",
        min_size=_size(row["min_size"], row) or "",
        max_size=_size(row["max_size"], row) or "",
        max_price=_price(row["max_price"], row) or "",
        taker_ppm=row["taker_ppm"],
        maker_ppm=row["maker_ppm"],
        entry_band_ppm=row["entry_band_ppm"],
        exec_band_ppm=row["exec_band_ppm"],
        phase=row["phase"],
    )


def _order(row: Any, market: Any) -> Order:
    of_leaves = _quote if row["budget"] is not None else _size  # a budget order's leaves are unspent quote
    return Order(
        order_id=str(row["order_id"]),
        client_order_id=row["client_id"],
        market=market["name"],
        side=row["side"],
        type=row["type"],
        tif=row["tif"],
        price=_price(row["price"], market),
        stop_price=_price(row["stop_price"], market),
        size=_size(row["size"], market),
        budget=_quote(row["budget"], market),
        leaves=of_leaves(row["leaves"], market) or "0",
        display_size=_size(row["display_size"], market),
        expires_at=row["expires_at"],
        filled=_size(row["filled"], market) or "0",
        fee=_quote(row["fee"], market) or "0",
        status=row["status"],
        reason=row["reason"],
        accepted_at=timestamp(row["accepted_at"]),
        updated_at=timestamp(row["updated_at"]),
    )


def trade_of(row: Any, market: Any) -> Trade:
    return Trade(
        trade_id=str(row["trade_id"]),
        market=market["name"],
        sequence=row["sequence"],
        price=_price(row["price"], market) or "",
        size=_size(row["size"], market) or "",
        notional=_quote(row["notional"], market) or "",
        aggressor=row["aggressor"],
        traded_at=timestamp(row["traded_at"]),
        batch=row["batch"],
        batch_status=row["batch_status"],
        digests=list(row["digests"] or ()),
    )


def _own_trade(row: Any, market: Any) -> Trade:
    role = "taker" if row["is_taker"] else "maker"
    return msgspec.structs.replace(
        trade_of(row, market),
        side=row["side"],
        order_id=str(row[f"{role}_order_id"]),
        liquidity="auction" if row["aggressor"] == "none" else role,  # nobody takes in an uncross
        fee=_quote(row[f"{role}_fee"], market),
    )


def candle_of(row: Any, market: Any) -> Candle:
    return Candle(
        opened_at=timestamp(row["opened_at"]),
        open=_price(row["open"], market) or "",
        high=_price(row["high"], market) or "",
        low=_price(row["low"], market) or "",
        close=_price(row["close"], market) or "",
        volume=_size(int(row["volume"]), market) or "0",
        quote_volume=_quote(int(row["quote_volume"]), market) or "0",
        trade_count=row["trade_count"],
    )
