"""SQL that lays the books beside the projection of the core, and keeps what differs. The connection comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from platform_api.royalties.closing_queries import CLOSING_SECONDS_MAX

__all__ = ["forget_others", "is_new", "of_cover", "of_payees", "of_sweeps", "of_works", "parts_of", "reached"]

_CORE = """
    SELECT a.name AS account, s.name AS asset, b.available, b.available + b.held AS units
    FROM exchange.account a JOIN exchange.balance b ON b.account_id = a.id JOIN exchange.asset s ON s.id = b.asset_id
"""


async def reached(db: Any) -> int:
    """The last command that is projected; 0 without any."""
    sequence: int = await db.fetchval("SELECT coalesce(max(sequence), 0) FROM exchange.projection")
    return sequence


async def parts_of(db: Any, document_ids: Sequence[UUID]) -> list[str]:
    """All commands of those of the documents that are distributions, also those whose turn comes later."""
    rows = await db.fetch(
        "SELECT command FROM royalties.distribution_part WHERE distribution_id = ANY($1)", list(set(document_ids))
    )
    return [row["command"] for row in rows]


async def of_payees(db: Any, reached: int, refs: Sequence[str]) -> list[Any]:
    """`pay:ID` where it has not what its entries up to `reached` sum up to.

    `refs`: of commands that are not noted; what they have moved is no entry yet. Nor is what a refund has gathered,
    part by part, as long as it is set aside, or as the entries made of it are behind `reached`. An entry whose answer
    was lost has no sequence: its ref tells whether it is projected.
    """
    rows: list[Any] = await db.fetch(
        f"""
        WITH core AS ({_CORE} WHERE a.name LIKE 'pay:%'),
        later AS (
            SELECT account_id, asset, ref, CASE kind WHEN 'earned' THEN amount_units ELSE -amount_units END AS units
            FROM (SELECT * FROM royalties.entry WHERE sequence > $1
                UNION ALL
                SELECT * FROM royalties.entry e WHERE e.sequence IS NULL
                    AND NOT EXISTS (SELECT FROM exchange.posting p WHERE p.ref = e.ref)) e),
        gathered AS (
            SELECT g.ref || ':' || part || suffix AS ref FROM royalties.gathering g
            CROSS JOIN generate_series(0, json_array_length(g.plan::json -> 'parts') - 1) part
            CROSS JOIN (VALUES (''), (':back')) AS back (suffix)
            WHERE g.ref IN (SELECT ref FROM royalties.set_aside UNION SELECT ref FROM later)),
        moved AS (
            SELECT a.name AS account, s.name AS asset, sum(m.units) AS units
            FROM exchange.posting p
            CROSS JOIN LATERAL (VALUES (p.target_id, p.amount), (p.source_id, -p.amount)) AS m (account_id, units)
            JOIN exchange.account a ON a.id = m.account_id JOIN exchange.asset s ON s.id = p.asset_id
            WHERE p.ref IN (SELECT unnest($2::text[]) UNION SELECT ref FROM gathered) AND a.name LIKE 'pay:%'
            GROUP BY 1, 2),
        books AS (
            SELECT 'pay:' || o.account_id AS account, o.asset, o.units - coalesce(l.units, 0) AS units
            FROM royalties.owed o LEFT JOIN (
                SELECT account_id, asset, sum(units) AS units FROM later GROUP BY 1, 2) l USING (account_id, asset))
        SELECT account, asset, coalesce(c.units, 0) AS core, coalesce(b.units, 0) + coalesce(m.units, 0) AS books
        FROM core c FULL JOIN books b USING (account, asset) LEFT JOIN moved m USING (account, asset)
        WHERE coalesce(c.units, 0) <> coalesce(b.units, 0) + coalesce(m.units, 0) ORDER BY 1, 2
        """,
        reached, refs, timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    return rows


async def of_cover(db: Any) -> list[Any]:
    """`platform:cover` where it has not what payees below zero owe."""
    rows: list[Any] = await db.fetch(
        f"""
        WITH core AS ({_CORE} WHERE a.name = 'platform:cover'),
        books AS (SELECT asset, -sum(units) AS units FROM royalties.owed WHERE units < 0 GROUP BY asset)
        SELECT 'platform:cover' AS account, asset, coalesce(c.units, 0) AS core, coalesce(b.units, 0) AS books
        FROM core c FULL JOIN books b USING (asset) WHERE coalesce(c.units, 0) <> coalesce(b.units, 0) ORDER BY 2
        """,
        timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    return rows


async def of_works(db: Any) -> list[Any]:
    """Passing accounts with free money. What is held there is of a refund that its provider has not answered."""
    rows: list[Any] = await db.fetch(
        f"WITH core AS ({_CORE} WHERE a.name LIKE 'work:%' AND b.available <> 0)"
        " SELECT account, asset, available AS core, 0 AS books FROM core ORDER BY 1, 2",
        timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    return rows


async def of_sweeps(db: Any) -> list[Any]:
    """Assets of which the commands of sweeps took another sum from `system:fees` than the sweeps say."""
    rows: list[Any] = await db.fetch(
        """
        WITH core AS (
            SELECT s.name AS asset, sum(p.amount) AS units FROM exchange.posting p
            JOIN exchange.account a ON a.id = p.source_id JOIN exchange.asset s ON s.id = p.asset_id
            WHERE a.name = 'system:fees' AND p.ref IN (SELECT ref FROM money.fee_sweep) GROUP BY 1),
        books AS (SELECT asset, sum(units) AS units FROM money.fee_sweep WHERE status = 'posted' GROUP BY 1)
        SELECT 'system:fees' AS account, asset, coalesce(c.units, 0) AS core, coalesce(b.units, 0) AS books
        FROM core c FULL JOIN books b USING (asset) WHERE coalesce(c.units, 0) <> coalesce(b.units, 0) ORDER BY 2
        """,
        timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    return rows


async def forget_others(db: Any, found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What differed before and does not any more, and is not kept any longer: account and asset."""
    rows = await db.fetch(
        "DELETE FROM royalties.difference WHERE (account, asset) NOT IN (SELECT * FROM unnest($1::text[], $2::text[]))"
        " RETURNING account, asset",
        [account for account, _ in found], [asset for _, asset in found],
    )  # fmt: skip
    return [(row["account"], row["asset"]) for row in rows]


async def is_new(db: Any, account: str, asset: str, core_units: int, book_units: int) -> bool:
    """Whether it did not differ, or by another amount; it is known from now on. Sums may move beside a difference."""
    found: bool = await db.fetchval(
        """
        INSERT INTO royalties.difference AS d (account, asset, core_units, book_units) VALUES ($1, $2, $3, $4)
        ON CONFLICT (account, asset) DO UPDATE
            SET core_units = excluded.core_units, book_units = excluded.book_units, found_at = CASE
                WHEN d.core_units - d.book_units = excluded.core_units - excluded.book_units THEN d.found_at
                ELSE now() END
        RETURNING found_at = now()
        """,
        account, asset, core_units, book_units,
    )  # fmt: skip
    return found
