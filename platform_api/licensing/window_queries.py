"""SQL of release windows. The connection comes first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import Range

from platform_api.database import insertion
from platform_api.licensing.queries import SETS

_WINDOW = (
    "id, work_id, account_id, license_id, window_type, territories, period, price_units, asset, scale, exclusive,"
    " status, version"
)
# Whether the right behind a window holds at a moment: a licence above it that does not ends it at once.
_RIGHT = """
    (w.license_id IS NULL OR NOT EXISTS (
        WITH RECURSIVE above AS (
            SELECT l.parent_license_id, l.status, l.starts_at, l.ends_at
            FROM licensing.license l WHERE l.id = w.license_id
            UNION ALL
            SELECT p.parent_license_id, p.status, p.starts_at, p.ends_at
            FROM above a JOIN licensing.license p ON p.id = a.parent_license_id
        )
        SELECT 1 FROM above WHERE status <> 'active' OR starts_at > $3 OR ends_at <= $3))
"""


async def insert_window(db: Any, fields: Mapping[str, Any], starts_at: datetime, ends_at: datetime | None) -> Any:
    period = Range(starts_at, ends_at)
    insert, values = insertion("licensing.release_window", {**fields, "period": period}, SETS)
    return await db.fetchrow(f"{insert} RETURNING {_WINDOW}", *values)


async def window(db: Any, window_id: UUID) -> Any:
    return await db.fetchrow(f"SELECT {_WINDOW} FROM licensing.release_window WHERE id = $1", window_id)


async def update_window(
    db: Any, window_id: UUID, fields: Mapping[str, Any], starts_at: datetime, ends_at: datetime | None
) -> Any:
    sets = "".join(f"{name} = ${number}{SETS.get(name, '')}, " for number, name in enumerate(fields, 4))
    return await db.fetchrow(
        f"UPDATE licensing.release_window SET {sets}period = tstzrange($2, $3), version = version + 1,"
        f" updated_at = now() WHERE id = $1 RETURNING {_WINDOW}",
        window_id, starts_at, ends_at, *fields.values(),
    )  # fmt: skip


async def end_window(db: Any, window_id: UUID) -> Any:
    """What is only planned never was; what is open ends now, so that its time is free again."""
    return await db.fetchrow(f"{_END} WHERE id = $1 RETURNING {_WINDOW}", window_id)


async def end_of_license(db: Any, license_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        f"{_END} WHERE license_id = $1 AND status IN ('scheduled', 'open') RETURNING {_WINDOW}", license_id
    )
    return rows


_END = (
    "UPDATE licensing.release_window SET status = CASE WHEN lower(period) < now() THEN 'closed' ELSE 'cancelled' END,"
    " period = CASE WHEN lower(period) < now() THEN period * tstzrange(NULL, now()) ELSE period END,"
    " version = version + 1, updated_at = now()"
)


async def windows(db: Any, work_id: UUID, after: tuple[datetime, UUID] | None, limit: int) -> list[Any]:
    """By their beginnings."""
    moment, window_id = after or (None, None)
    rows: list[Any] = await db.fetch(
        f"SELECT {_WINDOW} FROM licensing.release_window WHERE work_id = $1 AND status <> 'cancelled'"
        " AND ($2::timestamptz IS NULL OR (lower(period), id) > ($2, $3::uuid)) ORDER BY lower(period), id LIMIT $4",
        work_id, moment, window_id, limit,
    )  # fmt: skip
    return rows


async def in_the_way(
    db: Any, work_id: UUID, exclusive: bool, territory_set: str, starts_at: datetime, ends_at: datetime | None,
    own: UUID | None,
) -> bool:  # fmt: skip
    """Another window in these territories at this time, and one of the two is exclusive."""
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT 1 FROM licensing.release_window WHERE work_id = $1 AND status <> 'cancelled'"
            " AND (exclusive OR $2) AND territory_set && $3::text::int4multirange AND period && tstzrange($4, $5)"
            " AND ($6::uuid IS NULL OR id <> $6))",
            work_id, exclusive, territory_set, starts_at, ends_at, own,
        )  # fmt: skip
    )


_OF_WORK = (
    "WITH w AS MATERIALIZED"
    " (SELECT * FROM licensing.release_window WHERE work_id = {} AND status <> 'cancelled')"
)
"""A work has few windows. Materialized: else the index of the exclusion is searched, by a territory and a time that
half of all windows have."""


async def openings(
    db: Any, work_ids: list[UUID], territory_set: str, at: datetime
) -> tuple[list[Any], dict[UUID, datetime]]:
    """Windows of these works that are open in the territory at the moment, by their types; and when the next opens.

    One work is asked for by a statement of its own: of a list PostgreSQL plans each anew, which costs more than it.
    """
    of_work = _OF_WORK.format("$1" if len(work_ids) == 1 else "ANY($1)")
    rows = await db.fetch(
        f"{of_work} SELECT {_WINDOW}, lower(w.period) > $3 AS later FROM w"
        " WHERE w.territory_set && $2::text::int4multirange"
        f" AND (lower(w.period) > $3 OR w.period @> $3::timestamptz AND {_RIGHT})"
        " ORDER BY w.window_type",
        work_ids[0] if len(work_ids) == 1 else work_ids, territory_set, at,
    )  # fmt: skip
    planned: dict[UUID, datetime] = {}
    for row in rows:
        if row["later"]:
            begins = row["period"].lower
            planned[row["work_id"]] = min(planned.get(row["work_id"], begins), begins)
    return [row for row in rows if not row["later"]], planned


async def due_to_open(db: Any, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT id, work_id FROM licensing.release_window WHERE status = 'scheduled' AND lower(period) <= now()"
        " ORDER BY lower(period) LIMIT $1",
        limit,
    )  # fmt: skip
    return rows


async def due_to_close(db: Any, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT id, work_id FROM licensing.release_window WHERE status = 'open' AND upper(period) <= now()"
        " ORDER BY upper(period) LIMIT $1",
        limit,
    )  # fmt: skip
    return rows


async def open_due(db: Any, window_id: UUID) -> Any:
    return await db.fetchrow(
        "UPDATE licensing.release_window SET status = 'open', version = version + 1, updated_at = now()"
        f" WHERE id = $1 AND status = 'scheduled' AND lower(period) <= now() RETURNING {_WINDOW}",
        window_id,
    )  # fmt: skip


async def close_due(db: Any, window_id: UUID) -> Any:
    return await db.fetchrow(
        "UPDATE licensing.release_window SET status = 'closed', version = version + 1, updated_at = now()"
        f" WHERE id = $1 AND status = 'open' AND upper(period) <= now() RETURNING {_WINDOW}",
        window_id,
    )  # fmt: skip
