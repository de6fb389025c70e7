"""SQL of the schema `exchange`: the projector writes it, this module only reads. Indexes are the core's own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from platform_api.database import Database

__all__ = ["asset_scale", "balances", "candles", "markets", "order", "orders", "own_trades", "public_trades"]

_ORDER = """
    SELECT o.order_id, o.client_id, o.market_id, o.side, o.type, o.tif, o.price, o.stop_price, o.size, o.budget,
           o.leaves, o.display_size, o.expires_at, o.filled, o.fee, o.status, o.reason, o.accepted_at, o.updated_at
    FROM exchange.orders o JOIN exchange.account a ON a.id = o.account_id
    WHERE a.name = $1
"""


async def markets(db: Database) -> list[Any]:
    return await db.fetch(
        """
        SELECT m.id, m.name, b.name AS base, b.scale AS base_scale, q.name AS quote, q.scale AS quote_scale,
               m.tick, m.tick_decimals, m.lot, m.lot_decimals, m.min_size, m.max_size, m.max_price,
               m.taker_ppm, m.maker_ppm, m.phase
        FROM exchange.market m
        JOIN exchange.asset b ON b.id = m.base_id
        JOIN exchange.asset q ON q.id = m.quote_id
        ORDER BY m.id
        """
    )


async def asset_scale(db: Any, name: str) -> int | None:
    """`db` is a connection."""
    scale: int | None = await db.fetchval("SELECT scale FROM exchange.asset WHERE name = $1", name)
    return scale


async def orders(
    db: Database, account: str, market_id: int | None, statuses: list[str] | None, before: int | None, limit: int
) -> list[Any]:
    """Latest first; `before` is the last order id of the page before."""
    return await db.fetch(
        _ORDER + "AND ($2::bigint IS NULL OR o.market_id = $2) AND ($3::text[] IS NULL OR o.status = ANY($3))"
        " AND ($4::bigint IS NULL OR o.order_id < $4) ORDER BY o.order_id DESC LIMIT $5",
        account, market_id, statuses, before, limit,
    )  # fmt: skip


async def order(db: Database, account: str, order_id: int) -> Any:
    return await db.fetch_row(_ORDER + "AND o.order_id = $2", account, order_id)


async def public_trades(db: Database, market_id: int, before: int | None, limit: int) -> list[Any]:
    """Latest first; `before` is a trade id."""
    return await db.fetch(
        "SELECT market_id, trade_id, sequence, event_index, traded_at, price, size, notional, aggressor,"
        " batch, batch_status, digests FROM exchange.settled_trade"
        " WHERE market_id = $1 AND ($2::bigint IS NULL OR trade_id < $2)"
        " ORDER BY trade_id DESC LIMIT $3",
        market_id, before, limit,
    )  # fmt: skip


async def own_trades(
    db: Database, account: str, market_id: int | None, before: tuple[int, ...] | None, limit: int
) -> list[Any]:
    """Latest first. A trade with oneself comes once, seen from the taker."""
    sequence, index = before if before is not None else (None, None)
    return await db.fetch(
        """
        SELECT t.*, t.taker_account_id = a.id AS is_taker, o.side
        FROM exchange.account a
        JOIN exchange.settled_trade t ON t.taker_account_id = a.id OR t.maker_account_id = a.id
        JOIN exchange.orders o
          ON o.order_id = CASE WHEN t.taker_account_id = a.id THEN t.taker_order_id ELSE t.maker_order_id END
        WHERE a.name = $1 AND ($2::bigint IS NULL OR t.market_id = $2)
          AND ($3::bigint IS NULL OR (t.sequence, t.event_index) < ($3, $4::bigint))
        ORDER BY t.sequence DESC, t.event_index DESC LIMIT $5
        """,
        account, market_id, sequence, index, limit,
    )  # fmt: skip


async def balances(db: Database, account: str) -> list[Any]:
    return await db.fetch(
        "SELECT s.name, s.scale, b.available, b.held FROM exchange.balance b"
        " JOIN exchange.account a ON a.id = b.account_id JOIN exchange.asset s ON s.id = b.asset_id"
        " WHERE a.name = $1 ORDER BY s.id",
        account,
    )


async def candles(db: Database, market_id: int, interval_seconds: int, before: datetime, limit: int) -> list[Any]:
    """Latest first."""
    return await db.fetch(
        "SELECT opened_at, open, high, low, close, volume, quote_volume, trade_count FROM exchange.candle"
        " WHERE market_id = $1 AND interval_seconds = $2 AND opened_at < $3 ORDER BY opened_at DESC LIMIT $4",
        market_id, interval_seconds, before, limit,
    )  # fmt: skip
