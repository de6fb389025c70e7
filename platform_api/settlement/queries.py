"""SQL of the schema `settlement`: the settler writes it, this module only reads."""

from __future__ import annotations

from typing import Any

from platform_api.database import Database

__all__ = ["batch", "batches"]

_BATCH = """
    SELECT number, first_sequence, last_sequence, cut_at, status, root, leg_count, digests, committed_at, error, file
    FROM settlement.batch
"""


async def batches(db: Database, before: int | None, limit: int) -> list[Any]:
    """Latest first; `before` is a batch number."""
    return await db.fetch(
        _BATCH + "WHERE $1::bigint IS NULL OR number < $1 ORDER BY number DESC LIMIT $2", before, limit
    )


async def batch(db: Database, number: int) -> Any:
    return await db.fetch_row(_BATCH + "WHERE number = $1", number)
