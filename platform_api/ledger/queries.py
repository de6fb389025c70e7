"""SQL of money.command."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

__all__ = ["insert", "left_open", "lock_state", "on_the_way", "one", "turn"]


_OPEN = "state IN ('ordered', 'closing', 'posting', 'voiding')"
"""They want something of the core."""


async def insert(db: Any, ref: str, kind: str, document_id: UUID, body: str, accounts: str) -> None:
    await db.execute(
        "INSERT INTO money.command (ref, kind, document_id, body, accounts) VALUES ($1, $2, $3, $4, $5)",
        ref, kind, document_id, body, accounts,
    )  # fmt: skip


async def one(db: Any, ref: str) -> Any:
    return await db.fetchrow(
        "SELECT ref, kind, document_id, body, accounts, state, reason, sequence FROM money.command WHERE ref = $1", ref
    )


async def left_open(db: Any, age: timedelta, limit: int) -> list[str]:
    """Refs of commands that want to be sent and have not changed for so long, the oldest first."""
    rows = await db.fetch(
        f"SELECT ref FROM money.command WHERE {_OPEN} AND updated_at < now() - $1::interval"
        " ORDER BY created_at LIMIT $2",
        age, limit,
    )  # fmt: skip
    return [row["ref"] for row in rows]


async def on_the_way(db: Any, reached: int, limit: int) -> list[Any]:
    """Commands that may have moved money and are not noted, and those that are noted as moved behind `reached`."""
    rows: list[Any] = await db.fetch(
        f"SELECT ref, document_id, body FROM money.command WHERE {_OPEN}"
        " UNION ALL SELECT ref, document_id, body FROM money.command WHERE state = 'posted' AND sequence > $1 LIMIT $2",
        reached, limit,
    )  # fmt: skip
    return rows


async def lock_state(db: Any, ref: str) -> str:
    return str(await db.fetchval("SELECT state FROM money.command WHERE ref = $1 FOR UPDATE", ref))


async def turn(db: Any, ref: str, old: str, new: str, reason: str | None, sequence: int | None) -> bool:
    """Whether it stood at `old`, and is `new` now: of two who try, one."""
    tag = await db.execute(
        "UPDATE money.command SET state = $3, reason = coalesce($4, reason), sequence = coalesce($5, sequence),"
        " updated_at = now() WHERE ref = $1 AND state = $2",
        ref, old, new, reason, sequence,
    )  # fmt: skip
    return bool(tag == "UPDATE 1")
