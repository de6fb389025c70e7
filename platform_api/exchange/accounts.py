"""What an account has, had and moved, from the projections: they may lag the core by some milliseconds.

A movement is a trade or a posting of money; the list of them is complete, so the present balance less all of them is
zero. Costs are averages over everything bought; nothing here is advice to a tax office.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from platform_api.envelope import BIGINT_MAX, Pagination, cursor_from, page
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange import account_queries as queries
from platform_api.exchange.account_models import (
    BalanceDay,
    Estimate,
    EstimateRequest,
    FeeRate,
    Movement,
    Portfolio,
    Position,
)
from platform_api.exchange.estimates import walk
from platform_api.exchange.service import ExchangeService
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text, steps_text
from platform_api.security import Caller
from platform_api.settlement.queries import settled_in

__all__ = ["AccountService"]

MILLION = 10**6
BOOK_LEVELS_MAX = 500
_END = (BIGINT_MAX, BIGINT_MAX, 2**31 - 1, 1)
_Key = tuple[int, int, int, int]


class AccountService:
    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._exchange = kernel.service(ExchangeService)

    async def estimate(self, body: EstimateRequest) -> Estimate:
        """Raises ApiError VALIDATION_ERROR, NOT_FOUND; Unavailable."""
        if (body.size is None) == (body.budget is None) or (body.budget is not None and body.side == "sell"):
            message = "size: give a size, or for a buy a budget"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_size", field="size")
        market = await self._exchange.market_row(body.market)
        book = await self._exchange.depth(market["name"], BOOK_LEVELS_MAX)
        lots = None if body.size is None else _steps(body.size, market["lot"], market["lot_decimals"], "size")
        budget = None if body.budget is None else _steps(body.budget, 1, market["quote_scale"], "budget")
        limit = None if body.price is None else _steps(body.price, market["tick"], market["tick_decimals"], "price")
        levels = [
            (_steps(price, market["tick"], market["tick_decimals"], "price"),
             _steps(size, market["lot"], market["lot_decimals"], "size"))
            for price, size in (book.asks if body.side == "buy" else book.bids)
        ]  # fmt: skip
        if limit is not None:
            levels = [level for level in levels if (level[0] <= limit if body.side == "buy" else level[0] >= limit)]
        taken = walk(levels, market["k"], market["taker_ppm"], lots=lots, budget=budget)
        return _estimate(body, market, taken, levels, lots, book.sequence)

    async def fee_schedule(self) -> list[FeeRate]:
        return [FeeRate(market.id, market.taker_ppm, market.maker_ppm) for market in await self._exchange.markets()]

    async def movements(
        self, caller: Caller, asset: str | None, cursor: str | None, limit: int
    ) -> tuple[list[Movement], Pagination]:
        """Of the spending account and of what one has earned, the latest first."""
        before: _Key = cursor_from(cursor, int, int, int, int) or _END
        wanted = limit + 3  # both sides of what stands at the cursor, and one to know whether more follow
        found: list[tuple[_Key, Any]] = []
        async with self._database.connection() as db:
            for word, name in (("trading", caller.account), ("payable", f"pay:{caller.account_id}")):
                account = await queries.account_id(db, name)
                if account is None:
                    continue
                for number, side in enumerate(("source", "target")):
                    for row in await queries.postings(db, account, side, asset, before[:3], wanted):
                        key = (row["sequence"], row["event_index"], row["number"], number)
                        found.append((key, _posting(row, word, -1 if side == "source" else 1)))
                for row in await queries.own_trades(db, account, asset, before[:3], wanted):
                    key = (row["sequence"], row["event_index"], 0, row["is_taker"])
                    found.append((key, await self._trade(row)))
            found.sort(key=lambda one: one[0], reverse=True)
            found, pagination = page([one for one in found if one[0] < before], limit, lambda one: one[0])
            batches = await settled_in(db, [key[0] for key, _ in found])
        return [Movement(**fields, **_settled(batches, key[0])) for key, fields in found], pagination

    async def history(self, caller: Caller, asset: str, days: int) -> list[BalanceDay]:
        """The latest first. Raises ApiError VALIDATION_ERROR `unknown_asset`."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        async with self._database.transaction() as db:
            await db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # total and changes of one moment
            row = await queries.days(db, caller.account, asset)
            if row is None:
                message = f"asset: the exchange lists no {asset}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
            since = today - timedelta(days=days - 1)
            moved = {}
            if row["account_id"] is not None:
                moved = await queries.moved_since(db, row["account_id"], row["asset_id"], since)
        total, found = row["total"], []
        for back in range(days):
            day = (today - timedelta(days=back)).date().isoformat()
            found.append(BalanceDay(day, decimal_text(total, row["scale"])))
            total -= moved.get(day, 0)
        return found

    async def portfolio(self, caller: Caller) -> Portfolio:
        async with self._database.connection() as db:
            account = await queries.account_id(db, caller.account)
            rows = [] if account is None else await queries.positions(db, account)
        worth: dict[str, int] = {}
        scales: dict[str, int] = {}
        positions = []
        for row in rows:
            market = await self._exchange.market_by_id(row["market_id"])
            quantity = row["quantity"] or 0
            positions.append(_position(row, market, quantity))
            if row["last_price"] is not None:
                value = row["last_price"] * quantity * market["k"] // market["u"]
                worth[market["quote"]] = worth.get(market["quote"], 0) + value
                scales[market["quote"]] = market["quote_scale"]
        quotes = {row.quote_asset for row in await self._exchange.markets()}
        cash = [balance for balance in await self._exchange.balances(caller) if balance.asset in quotes]
        for balance in cash:
            whole, _, rest = balance.total.partition(".")
            scale = scales.setdefault(balance.asset, len(rest))
            scales[balance.asset] = scale = max(scale, len(rest))
            worth[balance.asset] = worth.get(balance.asset, 0) + int(whole + rest.ljust(scale, "0"))
        totals = [(name, decimal_text(units, scales[name])) for name, units in sorted(worth.items())]
        return Portfolio([(balance.asset, balance.total) for balance in cash], positions, totals)

    async def _trade(self, row: Any) -> dict[str, Any]:
        market = await self._exchange.market_by_id(row["market_id"])
        sign = 1 if row["side"] == "buy" else -1
        base = decimal_text(sign * row["size"] * market["u"], market["base_scale"])
        quote = decimal_text(-sign * row["notional"] - row["fee"], market["quote_scale"])
        return {
            "sequence": row["sequence"], "happened_at": timestamp(row["traded_at"]), "kind": "trade",
            "account": "trading", "changes": [(market["base"], base), (market["quote"], quote)],
            "market": market["name"], "trade_id": str(row["trade_id"]), "order_id": str(row["order_id"]),
            "side": row["side"], "price": steps_text(row["price"], market["tick"], market["tick_decimals"]),
            "size": steps_text(row["size"], market["lot"], market["lot_decimals"]),
            "fee": decimal_text(row["fee"], market["quote_scale"]),
        }  # fmt: skip


def _posting(row: Any, account: str, sign: int) -> dict[str, Any]:
    return {
        "sequence": row["sequence"], "happened_at": timestamp(row["posted_at"]), "kind": row["code"] or "transfer",
        "account": account, "changes": [(row["asset"], decimal_text(sign * row["amount"], row["scale"]))],
        "ref": row["ref"], "memo": row["memo"] or None,
    }  # fmt: skip


def _settled(batches: dict[int, tuple[int, list[str]]], sequence: int) -> dict[str, Any]:
    number, digests = batches.get(sequence, (None, []))
    return {"batch": number, "digests": digests}


def _estimate(
    body: EstimateRequest, market: Any, taken: Any, levels: list[tuple[int, int]], lots: int | None, sequence: int
) -> Estimate:
    def price(ticks: int) -> str:
        return steps_text(ticks, market["tick"], market["tick_decimals"])

    best = average = worst = slippage = None
    if taken.lots:
        whole = taken.lots * market["k"]
        millionths = (taken.notional * market["tick"] * MILLION + whole // 2) // whole
        best, worst = price(levels[0][0]), price(taken.worst)
        average = decimal_text(millionths, market["tick_decimals"] + 6)
        slippage = abs(taken.notional - levels[0][0] * whole) * MILLION // (levels[0][0] * whole)
    paid = taken.notional + (taken.fee if body.side == "buy" else -taken.fee)
    # What is left of a budget after all of it is spent buys no further lot; there is another level only if not.
    is_complete = taken.lots == lots if lots is not None else taken.lots < sum(size for _, size in levels)
    quote = market["quote_scale"]
    return Estimate(
        market["name"], body.side, steps_text(taken.lots, market["lot"], market["lot_decimals"]), is_complete, best,
        average, worst, slippage, decimal_text(taken.notional, quote), decimal_text(taken.fee, quote),
        decimal_text(paid, quote), sequence,
    )  # fmt: skip


def _position(row: Any, market: Any, quantity: int) -> Position:
    """Quantities in units; sums of trades are whole numbers of lots and quote units."""
    bought, sold = int(row["bought_lots"] or 0), int(row["sold_lots"] or 0)
    paid, got = int(row["paid"] or 0), int(row["got"] or 0)
    held_lots = min(quantity // market["u"], bought)
    cost = paid * held_lots // bought if bought else 0
    of_sold = paid * min(sold, bought) // bought if bought else 0
    realised = got - of_sold if sold else 0
    value = None if row["last_price"] is None else row["last_price"] * quantity * market["k"] // market["u"]
    quote = market["quote_scale"]
    return Position(
        market["base"], market["name"], market["quote"], decimal_text(quantity, market["base_scale"]),
        decimal_text(bought * market["u"], market["base_scale"]),
        decimal_text(sold * market["u"], market["base_scale"]),
        None if value is None else steps_text(row["last_price"], market["tick"], market["tick_decimals"]),
        None if value is None else decimal_text(value, quote), decimal_text(cost, quote),
        None if value is None else decimal_text(value - cost, quote), decimal_text(realised, quote),
    )  # fmt: skip


def _steps(text: str, step: int, decimals: int, field: str) -> int:
    """The decimal text in ticks, lots or units. Raises ApiError VALIDATION_ERROR for parts of one, and for none."""
    whole, _, rest = text.partition(".")
    rest = rest.rstrip("0")
    value, remainder = divmod(int(whole + rest.ljust(decimals, "0")), step)
    if len(rest) > decimals or remainder or not value:
        message = f"{field}: must be above 0 and a whole number of {decimal_text(step, decimals)}"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason=f"bad_{field}", field=field)
    return value
