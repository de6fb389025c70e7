"""What waits in the kernel's tables."""

from __future__ import annotations

from typing import Any

__all__ = ["active_sessions", "answers", "differences", "money_counts", "outbox_counts"]


async def answers(db: Any) -> None:
    """One row of a projection: the database answers and is migrated."""
    await db.fetch("SELECT name FROM exchange.market LIMIT 1")


async def outbox_counts(db: Any) -> Any:
    """`waiting`, `failed`, and `oldest_seconds` of those that wait."""
    return await db.fetchrow(
        "SELECT (SELECT count(*) FROM kernel.outbox WHERE delivered_at IS NULL AND failed_at IS NULL) AS waiting,"
        " (SELECT count(*) FROM kernel.outbox WHERE failed_at IS NOT NULL) AS failed,"
        " (SELECT COALESCE(extract(epoch FROM now() - min(occurred_at)), 0)::bigint FROM kernel.outbox"
        "  WHERE delivered_at IS NULL AND failed_at IS NULL) AS oldest_seconds"
    )


async def money_counts(db: Any) -> dict[str, int]:
    """Money commands by state, of those that still want something of the core or of a person; 0 too."""
    rows = await db.fetch(
        "SELECT state, count(*) FROM money.command"
        " WHERE state IN ('ordered', 'closing', 'posting', 'voiding', 'stuck') GROUP BY state"
    )
    states = ("ordered", "closing", "posting", "voiding", "stuck")
    return dict.fromkeys(states, 0) | {row["state"]: row["count"] for row in rows}


async def differences(db: Any) -> int:
    """Accounts of which the books say another sum than the core, as the last comparison found them."""
    return int(await db.fetchval("SELECT count(*) FROM royalties.difference"))


async def active_sessions(db: Any) -> int:
    return int(
        await db.fetchval("SELECT count(*) FROM identity.session WHERE revoked_at IS NULL AND expires_at > now()")
    )
