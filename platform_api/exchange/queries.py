"""SQL of the schema `exchange`: the projector writes it, this module only reads. Indexes are the core's own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from platform_api.database import Database

__all__ = [
    "asset_scale", "balances", "candles", "candles_between", "holders", "last_trade", "market_figures", "market_named",
    "markets", "order", "orders", "own_trades", "public_trades", "supply", "trade_settlement", "trades_after",
]  # fmt: skip

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
               m.taker_ppm, m.maker_ppm, m.entry_band_ppm, m.exec_band_ppm, m.k, m.u, m.phase
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


async def public_trades(db: Any, market_id: int, before: int | None, limit: int) -> list[Any]:
    """Latest first; `before` is a trade id."""
    rows: list[Any] = await db.fetch(
        "SELECT market_id, trade_id, sequence, event_index, traded_at, price, size, notional, aggressor,"
        " batch, batch_status, digests FROM exchange.settled_trade"
        " WHERE market_id = $1 AND ($2::bigint IS NULL OR trade_id < $2)"
        " ORDER BY trade_id DESC LIMIT $3",
        market_id, before, limit,
    )  # fmt: skip
    return rows


async def trade_settlement(db: Database, market_id: int, trade_id: int) -> Any:
    """The trade, and the batch that holds it, whose columns are null until that is sealed."""
    return await db.fetch_row(
        """
        SELECT t.trade_id, t.sequence, b.*
        FROM exchange.trade t
        LEFT JOIN LATERAL (
            SELECT number, status, first_sequence, last_sequence, root, digests, committed_at FROM settlement.batch
            WHERE last_sequence >= t.sequence ORDER BY last_sequence LIMIT 1
        ) b ON b.first_sequence <= t.sequence
        WHERE t.market_id = $1 AND t.trade_id = $2
        """,
        market_id, trade_id,
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


# What other contexts read (reader.py): `db` is a connection.

_STEPS = (
    "m.id, m.name, b.name AS base, b.scale AS base_scale, q.name AS quote, q.scale AS quote_scale, m.tick,"
    " m.tick_decimals, m.lot, m.lot_decimals, m.phase"
)
_OF_MARKET = "exchange.market m JOIN exchange.asset b ON b.id = m.base_id JOIN exchange.asset q ON q.id = m.quote_id"


async def market_named(db: Any, name: str) -> Any:
    return await db.fetchrow(f"SELECT {_STEPS} FROM {_OF_MARKET} WHERE m.name = $1", name)


async def market_figures(db: Any, names: list[str]) -> list[Any]:
    """The volume is of whole hours: the last 24 that have begun."""
    rows: list[Any] = await db.fetch(
        f"""
        SELECT {_STEPS}, t.price AS last_price, c.volume
        FROM {_OF_MARKET}
        LEFT JOIN LATERAL (
            SELECT price FROM exchange.trade WHERE market_id = m.id ORDER BY trade_id DESC LIMIT 1) t ON true
        LEFT JOIN LATERAL (
            SELECT sum(volume) AS volume FROM exchange.candle
            WHERE market_id = m.id AND interval_seconds = 3600 AND opened_at > now() - interval '24 hours') c ON true
        WHERE m.name = ANY($1)
        """,
        names,
    )
    return rows


async def candles_between(
    db: Any, market_id: int, interval_seconds: int, since: datetime | None, before: datetime, limit: int
) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT opened_at, open, high, low, close, volume, quote_volume, trade_count FROM exchange.candle"
        " WHERE market_id = $1 AND interval_seconds = $2 AND opened_at < $3"
        " AND ($4::timestamptz IS NULL OR opened_at >= $4) ORDER BY opened_at DESC LIMIT $5",
        market_id, interval_seconds, before, since, limit,
    )  # fmt: skip
    return rows


async def trades_after(db: Any, sequence: int, index: int, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        f"""
        SELECT t.trade_id, t.sequence, t.event_index, t.traded_at, t.price, t.size, t.notional, t.aggressor, {_STEPS}
        FROM (
            SELECT * FROM exchange.trade WHERE (sequence, event_index) > ($1::bigint, $2::bigint)
            ORDER BY sequence, event_index LIMIT $3) t
        JOIN exchange.market m ON m.id = t.market_id
        JOIN exchange.asset b ON b.id = m.base_id JOIN exchange.asset q ON q.id = m.quote_id
        ORDER BY t.sequence, t.event_index
        """,
        sequence, index, limit,
    )  # fmt: skip
    return rows


async def last_trade(db: Any) -> tuple[int, int]:
    row = await db.fetchrow(
        "SELECT sequence, event_index FROM exchange.trade ORDER BY sequence DESC, event_index DESC LIMIT 1"
    )
    return (row["sequence"], row["event_index"]) if row is not None else (0, 0)


async def holders(db: Any, asset: str, after: tuple[int, int] | None, limit: int) -> list[Any]:
    quantity, account_id = after if after is not None else (None, None)
    rows: list[Any] = await db.fetch(
        """
        SELECT b.account_id, a.name, b.available + b.held AS quantity
        FROM exchange.asset s
        JOIN exchange.balance b ON b.asset_id = s.id JOIN exchange.account a ON a.id = b.account_id
        WHERE s.name = $1 AND b.available + b.held > 0
          AND ($2::bigint IS NULL OR (b.available + b.held, b.account_id) < ($2, $3::bigint))
        ORDER BY b.available + b.held DESC, b.account_id DESC LIMIT $4
        """,
        asset, quantity, account_id, limit,
    )  # fmt: skip
    return rows


async def supply(db: Any, asset: str) -> tuple[int, int]:
    row = await db.fetchrow(
        """
        SELECT coalesce(sum(b.available + b.held), 0)::bigint AS units, count(*) AS holders
        FROM exchange.asset s JOIN exchange.balance b ON b.asset_id = s.id
        WHERE s.name = $1 AND b.available + b.held > 0
        """,
        asset,
    )
    return row["units"], row["holders"]
