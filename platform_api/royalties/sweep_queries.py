"""SQL of the sweeps of trade fees. The connection comes first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any
from uuid import UUID

__all__ = ["cover_differs", "fees", "insert_sweep", "is_due", "lock_sweeps", "today", "turn_sweep"]


async def lock_sweeps(db: Any) -> None:
    """Two who look at the same time come one after the other."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtext('money.fee_sweep'))")


async def today(db: Any) -> date:
    found: date = await db.fetchval("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    return found


async def is_due(db: Any, day: date) -> bool:
    """Whether the day has none, and the projection shows what those before have moved."""
    found: bool = await db.fetchval(
        """
        SELECT NOT EXISTS (
            SELECT FROM money.fee_sweep f WHERE f.day = $1 OR f.status = 'ordered' OR (f.status = 'posted'
                AND f.day = (SELECT max(day) FROM money.fee_sweep)
                AND NOT EXISTS (SELECT FROM exchange.posting p WHERE p.ref = f.ref)))
        """,
        day,
    )
    return found


async def cover_differs(db: Any) -> bool:
    """As the last comparison of the books found."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM royalties.difference WHERE account = 'platform:cover')"
    )
    return found


async def fees(db: Any, limit: int) -> list[Any]:
    """What stands in `system:fees`, by asset, as far as it is projected."""
    rows: list[Any] = await db.fetch(
        """
        SELECT s.name AS asset, s.scale, b.available AS units FROM exchange.account a
        JOIN exchange.balance b ON b.account_id = a.id JOIN exchange.asset s ON s.id = b.asset_id
        WHERE a.name = 'system:fees' AND b.available > 0 ORDER BY s.name LIMIT $1
        """,
        limit,
    )
    return rows


async def insert_sweep(db: Any, id_: UUID, day: date, ref: str, rows: Iterable[Any]) -> None:
    await db.executemany(
        "INSERT INTO money.fee_sweep (id, day, ref, asset, scale, units) VALUES ($1, $2, $3, $4, $5, $6)",
        [(id_, day, ref, row["asset"], row["scale"], row["units"]) for row in rows],
    )


async def turn_sweep(db: Any, id_: UUID, status: str) -> None:
    await db.execute("UPDATE money.fee_sweep SET status = $2 WHERE id = $1", id_, status)
