"""Reads of the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = ["audit_entries", "projections"]


async def audit_entries(
    db: Any, filters: Mapping[str, Any], since: datetime | None, until: datetime | None, before: int | None, limit: int
) -> list[Any]:
    """The latest first. `filters`: column → value, of columns that have an index."""
    arguments: list[Any] = [before, limit]
    conditions = ["($1::bigint IS NULL OR position < $1)"]
    for column, value in filters.items():
        arguments.append(value)
        conditions.append(f"{column} = ${len(arguments)}")
    for comparison, at in ((">=", since), ("<", until)):
        if at is not None:
            arguments.append(at)
            conditions.append(f"recorded_at {comparison} ${len(arguments)}")
    rows: list[Any] = await db.fetch(
        f"SELECT * FROM kernel.audit_entry WHERE {' AND '.join(conditions)} ORDER BY position DESC LIMIT $2", *arguments
    )
    return rows


async def projections(db: Any) -> list[Any]:
    rows: list[Any] = await db.fetch("SELECT name, sequence, updated_at FROM exchange.projection ORDER BY name")
    return rows
