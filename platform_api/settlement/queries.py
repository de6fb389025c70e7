"""SQL of the schema `settlement`: the settler writes it, this module only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from platform_api.database import Database

__all__ = ["batch", "batches", "settled_in"]

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


async def settled_in(db: Any, sequences: Sequence[int]) -> dict[int, tuple[int, list[str]]]:
    """Sequence → number of the batch that settles it, and the digests of its transactions. `db` is a connection."""
    rows = await db.fetch(
        """
        SELECT s.sequence, b.number, b.digests FROM unnest($1::bigint[]) AS s (sequence)
        JOIN LATERAL (
            SELECT number, first_sequence, digests FROM settlement.batch
            WHERE last_sequence >= s.sequence ORDER BY last_sequence LIMIT 1
        ) b ON b.first_sequence <= s.sequence
        """,
        list(set(sequences)),
    )
    return {row["sequence"]: (row["number"], list(row["digests"])) for row in rows}
