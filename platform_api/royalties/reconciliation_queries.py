"""SQL that lays the books beside the projection of the core. `cut`: the last sequence that is compared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from platform_api.royalties.queries import CLOSING_SECONDS_MAX

__all__ = ["is_current", "is_told", "last_before", "of_cover", "of_payees", "of_works"]

_CORE = """
    SELECT a.name, s.name AS asset, (b.available + b.held
        - coalesce((SELECT sum(p.amount) FROM exchange.posting p
            WHERE p.target_id = a.id AND p.asset_id = s.id AND p.sequence > {cut}), 0)
        + coalesce((SELECT sum(p.amount) FROM exchange.posting p
            WHERE p.source_id = a.id AND p.asset_id = s.id AND p.sequence > {cut}), 0)) AS units
    FROM exchange.account a JOIN exchange.balance b ON b.account_id = a.id JOIN exchange.asset s ON s.id = b.asset_id
"""
"""What accounts had, free and held, after the command `cut`."""


async def is_current(db: Any) -> bool:
    """Whether the projection has reached the last command that an entry names."""
    found: bool | None = await db.fetchval(
        "SELECT p.sequence >= coalesce((SELECT max(e.sequence) FROM royalties.entry e), 0)"
        " FROM exchange.projection p ORDER BY p.sequence LIMIT 1"
    )
    return bool(found)


async def last_before(db: Any, age: timedelta) -> int:
    """The last command whose money had moved so long ago."""
    found: int | None = await db.fetchval(
        "SELECT sequence FROM exchange.posting WHERE posted_at <= now() - $1::interval ORDER BY sequence DESC LIMIT 1",
        age,
    )
    return found or 0


async def of_payees(db: Any, cut: int) -> list[Any]:
    """`pay:ID` and what is owed, where they differ. An entry whose answer was lost has no sequence: its ref tells.

    Not of those from whom a refund takes now: it may have gathered already what is an entry at its end alone.
    """
    rows: list[Any] = await db.fetch(
        f"""
        WITH core AS ({_CORE.format(cut="$1")} WHERE a.name LIKE 'pay:%'),
        later AS (
            SELECT e.account_id, e.asset, sum(CASE e.kind WHEN 'earned' THEN e.amount_units ELSE -e.amount_units END)
                AS units
            FROM (SELECT * FROM royalties.entry WHERE sequence > $1
                UNION ALL
                SELECT * FROM royalties.entry n WHERE n.sequence IS NULL AND n.happened_at > now() - interval '1 day'
                    AND NOT EXISTS (SELECT FROM exchange.posting p WHERE p.ref = n.ref AND p.sequence <= $1)) e
            GROUP BY 1, 2),
        books AS (
            SELECT 'pay:' || o.account_id AS name, o.asset, o.units - coalesce(l.units, 0) AS units
            FROM royalties.owed o LEFT JOIN later l ON l.account_id = o.account_id AND l.asset = o.asset)
        SELECT coalesce(c.name, b.name) AS account, coalesce(c.asset, b.asset) AS asset, coalesce(c.units, 0) AS core,
            coalesce(b.units, 0) AS books
        FROM core c FULL JOIN books b ON b.name = c.name AND b.asset = c.asset
        WHERE coalesce(c.units, 0) <> coalesce(b.units, 0) AND NOT EXISTS (
            SELECT FROM royalties.set_aside z WHERE 'pay:' || z.account_id = coalesce(c.name, b.name))
        ORDER BY 1, 2
        """,
        cut, timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    return rows


async def of_cover(db: Any, cut: int) -> list[Any]:
    """`platform:cover` and what it was ordered to be, where they differ."""
    rows: list[Any] = await db.fetch(
        f"""
        WITH core AS ({_CORE.format(cut="$1")} WHERE a.name = 'platform:cover'),
        books AS (
            SELECT DISTINCT ON (c.asset) c.asset, c.units FROM royalties.cover c
            WHERE c.status = 'posted' AND EXISTS (SELECT FROM exchange.posting p
                WHERE p.ref = 'cover:' || replace(c.id::text, '-', '') AND p.sequence <= $1)
            ORDER BY c.asset, c.number DESC)
        SELECT 'platform:cover' AS account, coalesce(c.asset, b.asset) AS asset, coalesce(c.units, 0) AS core,
            coalesce(b.units, 0) AS books
        FROM core c FULL JOIN books b ON b.asset = c.asset WHERE coalesce(c.units, 0) <> coalesce(b.units, 0)
        """,
        cut, timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    return rows


async def of_works(db: Any, cut: int) -> list[Any]:
    """Passing accounts in which money has rested since before the cut: nothing of theirs is on its way."""
    rows: list[Any] = await db.fetch(
        """
        SELECT a.name AS account, s.name AS asset, b.available + b.held AS core, 0 AS books
        FROM exchange.account a JOIN exchange.balance b ON b.account_id = a.id
        JOIN exchange.asset s ON s.id = b.asset_id
        WHERE a.name LIKE 'work:%' AND b.available + b.held <> 0 AND b.sequence <= $1 ORDER BY 1, 2
        """,
        cut, timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    return rows


async def is_told(db: Any, account: str, values: Mapping[str, str]) -> bool:
    """Whether the audit trail has this difference."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM kernel.audit_entry WHERE action = 'books.differ' AND resource_type = 'core_account'"
        " AND resource_id = $1 AND new_values = $2::jsonb)",
        account, msgspec.json.encode(dict(values)).decode(),
    )  # fmt: skip
    return found
