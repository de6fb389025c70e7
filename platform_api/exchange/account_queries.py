"""SQL of an account's own movements, days and positions. The connection comes first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = [
    "account_id", "available", "days", "deposits", "moved_since", "own_trades", "positions", "postings", "sequences_of",
]  # fmt: skip

Place = tuple[int, int, int]
"""Sequence, event index, number in the event. Rows *at* the place come too: both sides of a movement stand there."""

_TRADES = """
    SELECT t.sequence, t.event_index, t.traded_at, t.market_id, t.size, t.notional, t.trade_id, t.price,
           t.taker_order_id AS order_id, t.taker_fee AS fee, 1 AS is_taker
    FROM exchange.trade t WHERE t.taker_account_id = $1 {0}
    UNION ALL
    SELECT t.sequence, t.event_index, t.traded_at, t.market_id, t.size, t.notional, t.trade_id, t.price,
           t.maker_order_id, t.maker_fee, 0
    FROM exchange.trade t WHERE t.maker_account_id = $1 {0}
"""


async def account_id(db: Any, name: str) -> int | None:
    found: int | None = await db.fetchval("SELECT id FROM exchange.account WHERE name = $1", name)
    return found


async def postings(
    db: Any, account: int, side: str, asset: str | None, before: Place, limit: int
) -> list[Any]:  # fmt: skip
    """`side`: source or target; of one asset if asked for. The latest first."""
    rows: list[Any] = await db.fetch(
        f"""
        SELECT p.sequence, p.event_index, p.number, p.posted_at, p.ref, p.code, p.memo, p.amount, s.name AS asset,
               s.scale
        FROM exchange.posting p JOIN exchange.asset s ON s.id = p.asset_id
        WHERE p.{side}_id = $1 AND (p.sequence, p.event_index, p.number) <= ($2, $3, $4::int)
            AND ($6::text IS NULL OR s.name = $6)
        ORDER BY p.sequence DESC, p.event_index DESC, p.number DESC LIMIT $5
        """,
        account, *before, limit, asset,
    )  # fmt: skip
    return rows


async def available(db: Any, names: Sequence[str], asset: str) -> int:
    """What these accounts have together and free, as far as it is projected."""
    units: int = await db.fetchval(
        "SELECT coalesce(sum(b.available), 0)::bigint FROM exchange.account a"
        " JOIN exchange.balance b ON b.account_id = a.id JOIN exchange.asset s ON s.id = b.asset_id"
        " WHERE a.name = ANY($1) AND s.name = $2",
        list(names), asset,
    )  # fmt: skip
    return units


async def sequences_of(db: Any, refs: Sequence[str]) -> dict[str, int]:
    """Ref → sequence of the command that posted its money, of those that are projected; a ref posts once."""
    rows = await db.fetch("SELECT DISTINCT ref, sequence FROM exchange.posting WHERE ref = ANY($1)", list(set(refs)))
    return {row["ref"]: row["sequence"] for row in rows}


async def own_trades(db: Any, account: int, asset: str | None, before: Place, limit: int) -> list[Any]:
    """The latest first; of markets that trade the asset if asked for; of a trade with oneself both sides."""
    only = (
        "AND ($5::text IS NULL OR t.market_id IN (SELECT m.id FROM exchange.market m JOIN exchange.asset s"
        " ON s.id IN (m.base_id, m.quote_id) WHERE s.name = $5)) "
    )
    part = only + "AND (t.sequence, t.event_index) <= ($2, $3) ORDER BY t.sequence DESC, t.event_index DESC LIMIT $4"
    halves = " UNION ALL ".join(f"({half.format(part)})" for half in _TRADES.split("UNION ALL"))
    rows: list[Any] = await db.fetch(
        f"SELECT u.*, o.side FROM ({halves}) u JOIN exchange.orders o ON o.order_id = u.order_id"
        " ORDER BY u.sequence DESC, u.event_index DESC, u.is_taker DESC LIMIT $4",
        account, before[0], before[1], limit, asset,
    )  # fmt: skip
    return rows


async def deposits(db: Any, account: int, before: Place, limit: int) -> list[Any]:
    """Postings from accounts outside, the latest first."""
    rows: list[Any] = await db.fetch(
        """
        SELECT p.sequence, p.event_index, p.number, p.posted_at, p.ref, p.amount, s.name AS asset, s.scale,
               f.name AS place
        FROM exchange.posting p JOIN exchange.asset s ON s.id = p.asset_id
        JOIN exchange.account f ON f.id = p.source_id
        WHERE p.target_id = $1 AND f.overdraft = 'open' AND (p.sequence, p.event_index, p.number) <= ($2, $3, $4::int)
        ORDER BY p.sequence DESC, p.event_index DESC, p.number DESC LIMIT $5
        """,
        account, *before, limit,
    )  # fmt: skip
    return rows


async def moved_since(db: Any, account: int, asset: int, since: datetime) -> dict[str, int]:
    """Day (UTC) → by how much the account's total of the asset changed in it."""
    day = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
    rows = await db.fetch(
        f"""
        SELECT day, sum(amount)::bigint AS amount FROM (
            SELECT {day.format('posted_at')} AS day, -amount::numeric AS amount FROM exchange.posting
            WHERE source_id = $1 AND asset_id = $2 AND posted_at >= $3
            UNION ALL
            SELECT {day.format('posted_at')}, amount FROM exchange.posting
            WHERE target_id = $1 AND asset_id = $2 AND posted_at >= $3
            UNION ALL
            SELECT {day.format('t.traded_at')},
                CASE WHEN m.base_id = $2 THEN CASE o.side WHEN 'buy' THEN t.size * m.u ELSE -t.size * m.u END
                     WHEN o.side = 'buy' THEN -t.notional - t.fee ELSE t.notional - t.fee END
            FROM ({_TRADES.format('AND t.traded_at >= $3')}) t
            JOIN exchange.orders o ON o.order_id = t.order_id JOIN exchange.market m ON m.id = t.market_id
            WHERE m.base_id = $2 OR m.quote_id = $2
        ) changes GROUP BY day
        """,
        account, asset, since,
    )  # fmt: skip
    return {row["day"]: row["amount"] for row in rows}


async def days(db: Any, name: str, asset: str) -> Any:
    """Ids of account and asset, scale, and the present total; None for an asset that is not listed."""
    return await db.fetchrow(
        """
        SELECT s.id AS asset_id, s.scale, a.id AS account_id, coalesce(b.available + b.held, 0) AS total
        FROM exchange.asset s LEFT JOIN exchange.account a ON a.name = $1
        LEFT JOIN exchange.balance b ON b.account_id = a.id AND b.asset_id = s.id
        WHERE s.name = $2
        """,
        name, asset,
    )  # fmt: skip


async def positions(db: Any, account: int) -> list[Any]:
    """By market: what was bought and sold there (lots, units), what is left of the base asset, and the last price."""
    rows: list[Any] = await db.fetch(
        f"""
        SELECT m.id AS market_id, b.available + b.held AS quantity, t.*, (
            SELECT price FROM exchange.trade l WHERE l.market_id = m.id ORDER BY l.trade_id DESC LIMIT 1) AS last_price
        FROM exchange.market m
        LEFT JOIN exchange.balance b ON b.account_id = $1 AND b.asset_id = m.base_id
        LEFT JOIN (
            SELECT t.market_id AS traded_id,
                coalesce(sum(t.size) FILTER (WHERE o.side = 'buy'), 0)::numeric AS bought_lots,
                coalesce(sum(t.notional + t.fee) FILTER (WHERE o.side = 'buy'), 0)::numeric AS paid,
                coalesce(sum(t.size) FILTER (WHERE o.side = 'sell'), 0)::numeric AS sold_lots,
                coalesce(sum(t.notional - t.fee) FILTER (WHERE o.side = 'sell'), 0)::numeric AS got
            FROM ({_TRADES.format('')}) t JOIN exchange.orders o ON o.order_id = t.order_id
            GROUP BY t.market_id
        ) t ON t.traded_id = m.id
        WHERE b.available + b.held <> 0 OR t.traded_id IS NOT NULL
        ORDER BY m.id
        """,
        account,
    )  # fmt: skip
    return rows
