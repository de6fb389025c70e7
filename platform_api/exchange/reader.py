"""What other contexts read of the exchange's projections: markets, their last prices, candles, holders, supply.

Each function takes the connection that its caller is on. All of it may lag the core by some milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from platform_api.exchange import account_queries, queries

__all__ = ["MarketReader"]


class MarketReader:
    """Rows as the projector wrote them: prices in ticks, sizes in lots, amounts in units."""

    async def market(self, db: Any, name: str) -> Any:
        """Ids, steps and phase of a market; None if the projection has none of this name."""
        return await queries.market_named(db, name)

    async def figures(self, db: Any, names: Sequence[str]) -> Mapping[str, Any]:
        """Market name → phase, steps, last price and the volume of the last 24 hours."""
        return {row["name"]: row for row in await queries.market_figures(db, list(names))}

    async def candles(
        self, db: Any, market_id: int, interval_seconds: int, since: datetime | None, before: datetime, limit: int
    ) -> list[Any]:
        """Those opened in [since, before), the latest first."""
        return await queries.candles_between(db, market_id, interval_seconds, since, before, limit)

    async def trades(self, db: Any, market_id: int, before: int | None, limit: int) -> list[Any]:
        """The public tape, the latest first; `before` is a trade id."""
        return await queries.public_trades(db, market_id, before, limit)

    async def trades_after(self, db: Any, sequence: int, index: int, limit: int) -> list[Any]:
        """Of all markets, in the order in which they happened."""
        return await queries.trades_after(db, sequence, index, limit)

    async def last_trade(self, db: Any) -> tuple[int, int]:
        """(sequence, event index) of the latest trade; zeros without any."""
        return await queries.last_trade(db)

    async def holders(self, db: Any, asset: str, after: tuple[int, int] | None, limit: int) -> list[Any]:
        """(account id, name, quantity in units) of everybody who has some, the most first."""
        return await queries.holders(db, asset, after, limit)

    async def supply(self, db: Any, asset: str) -> tuple[int, int]:
        """Units outside of `system:external`, and how many accounts have some."""
        return await queries.supply(db, asset)

    async def available(self, db: Any, account: str, asset: str) -> int:
        """Units that the account has free."""
        return await account_queries.available(db, [account], asset)
