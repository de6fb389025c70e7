"""SQL of the closing of months. The connection comes first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

__all__ = [
    "CLOSING_SECONDS_MAX", "ENTRIES_SECONDS_MAX", "announce_to", "begin_run", "close_run", "count_payees",
    "first_entry", "insert_statements", "last_closed", "lines_of", "lock_runs", "now", "other_run", "payees_after",
    "refuse_run", "run", "statements_after", "sums_of", "turn_page", "wait_for_entries",
]  # fmt: skip

CLOSING_SECONDS_MAX = 600.0
"""What one statement over many payees may take; nobody waits for it."""
ENTRIES_SECONDS_MAX = 1.0
"""For so long whoever has a month closed waits for entries that are being written. New ones wait behind."""

# ------------------------------------------------------------ runs

_RUN = """
    SELECT period, state, reason, payees, payees_done, statements, begun_at, begun_by, closed_at, written_to,
           announced_to <> 'ffffffff-ffff-ffff-ffff-ffffffffffff' AS is_silent
    FROM royalties.run
"""


async def run(db: Any, period: str) -> Any:
    """`is_silent`: not all holders are told yet."""
    return await db.fetchrow(_RUN + "WHERE period = $1", period)


async def lock_runs(db: Any) -> None:
    """Two who ask come one after the other."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtext('royalties.run'))")


async def other_run(db: Any) -> str | None:
    """The month that is not closed yet."""
    period: str | None = await db.fetchval("SELECT period FROM royalties.run WHERE state <> 'closed'")
    return period


async def last_closed(db: Any) -> str | None:
    period: str | None = await db.fetchval("SELECT max(period) FROM royalties.run WHERE state = 'closed'")
    return period


async def now(db: Any) -> datetime:
    """By the clock that entries are written by."""
    found: datetime = await db.fetchval("SELECT clock_timestamp()")
    return found


async def wait_for_entries(db: Any) -> None:
    """From here on every entry of a time that is past is written and committed: writers read the clock under the lock
    taken here. Raises TimeoutError if one of them takes longer than ENTRIES_SECONDS_MAX."""
    await db.execute("LOCK TABLE royalties.entry IN SHARE MODE", timeout=ENTRIES_SECONDS_MAX)


async def first_entry(db: Any, since: datetime | None, until: datetime) -> datetime | None:
    """When the first entry of anybody happened from `since` on, or ever, and before `until`; in UTC."""
    found: datetime | None = await db.fetchval(
        "SELECT min(happened_at) FROM royalties.entry"
        " WHERE happened_at >= coalesce($1::timestamptz, '-infinity') AND happened_at < $2",
        since, until,
    )  # fmt: skip
    return found


async def begin_run(db: Any, period: str, actor: UUID) -> None:
    """Anew, or again after it was refused: then it goes on where it was."""
    await db.execute(
        "INSERT INTO royalties.run (period, begun_by) VALUES ($1, $2) ON CONFLICT (period) DO UPDATE SET"
        " state = 'open', reason = NULL, begun_at = now(), begun_by = excluded.begun_by",
        period, actor,
    )  # fmt: skip


async def count_payees(db: Any, period: str) -> None:
    await db.execute(
        "UPDATE royalties.run SET payees = (SELECT count(DISTINCT account_id) FROM royalties.owed)"
        " WHERE period = $1 AND payees IS NULL AND state = 'open'",
        period, timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip


async def turn_page(db: Any, period: str, begin: UUID, end: UUID, payees: int, statements: int) -> bool:
    """Whether it was still at `begin`: of two who wrote the same page, one has."""
    tag = await db.execute(
        "UPDATE royalties.run SET written_to = $3, payees_done = payees_done + $4, statements = statements + $5"
        " WHERE period = $1 AND written_to = $2 AND state = 'open'",
        period, begin, end, payees, statements,
    )  # fmt: skip
    return bool(tag == "UPDATE 1")


async def refuse_run(db: Any, period: str, reason: str) -> None:
    await db.execute(
        "UPDATE royalties.run SET state = 'refused', reason = $2 WHERE period = $1 AND state = 'open'", period, reason
    )


async def close_run(db: Any, period: str) -> Any:
    """The run, or None if another has closed it."""
    return await db.fetchrow(
        "UPDATE royalties.run SET state = 'closed', closed_at = now() WHERE period = $1 AND state = 'open' RETURNING *",
        period,
    )


# ------------------------------------------------------------ pages of statements


async def payees_after(db: Any, after: UUID, limit: int) -> list[UUID]:
    """Accounts that ever had an entry, by id."""
    rows = await db.fetch(
        "SELECT DISTINCT account_id FROM royalties.owed WHERE account_id > $1 ORDER BY account_id LIMIT $2",
        after, limit,
    )  # fmt: skip
    return [row["account_id"] for row in rows]


async def sums_of(
    db: Any, accounts: Sequence[UUID], since: datetime, until: datetime, last: str | None, last_end: datetime | None
) -> list[Any]:
    """By account and asset: the sum before the period, and the sums in it; on top of the statements of the last period
    that was closed, which ended at `last_end`, so that only what came later is summed. Without those that have none."""
    return list(
        await db.fetch(
            """
            WITH moved AS (
                SELECT account_id, asset, max(scale) AS scale,
                    sum(CASE kind WHEN 'earned' THEN amount_units ELSE -amount_units END)
                        FILTER (WHERE happened_at < $1) AS before,
                    sum(amount_units) FILTER (WHERE kind = 'earned' AND happened_at >= $1) AS earned,
                    sum(amount_units) FILTER (WHERE kind = 'reversed' AND happened_at >= $1) AS reversed,
                    sum(amount_units) FILTER (WHERE kind = 'paid' AND happened_at >= $1) AS paid
                FROM royalties.entry
                WHERE account_id = ANY($5) AND happened_at >= coalesce($4::timestamptz, '-infinity')
                    AND happened_at < $2
                GROUP BY account_id, asset
            ), known AS (
                SELECT account_id, asset, scale, closing FROM royalties.statement
                WHERE account_id = ANY($5) AND period = $3
            ), summed AS (
                SELECT account_id, asset, coalesce(m.scale, k.scale) AS scale,
                    (coalesce(k.closing, 0) + coalesce(m.before, 0))::bigint AS opening,
                    coalesce(m.earned, 0)::bigint AS earned, coalesce(m.reversed, 0)::bigint AS reversed,
                    coalesce(m.paid, 0)::bigint AS paid
                FROM moved m FULL JOIN known k USING (account_id, asset)
            )
            SELECT *, opening + earned - reversed - paid AS closing FROM summed
            WHERE (opening, earned, reversed, paid) <> (0, 0, 0, 0) ORDER BY account_id, asset
            """,
            since, until, last, last_end, accounts, timeout=CLOSING_SECONDS_MAX,
        )
    )  # fmt: skip


async def lines_of(
    db: Any, accounts: Sequence[UUID], since: datetime, until: datetime, size: int
) -> AsyncIterator[list[Any]]:
    """Their entries of a period, each account's in the order of time, at most `size` at once; in a transaction."""
    cursor = await db.cursor(
        "SELECT account_id, asset, kind, amount_units, ref, happened_at FROM royalties.entry"
        " WHERE account_id = ANY($1) AND happened_at >= $2 AND happened_at < $3 ORDER BY account_id, happened_at, id",
        accounts, since, until, timeout=CLOSING_SECONDS_MAX,
    )  # fmt: skip
    while rows := await cursor.fetch(size, timeout=CLOSING_SECONDS_MAX):
        yield rows


async def insert_statements(db: Any, statements: Sequence[tuple[Any, ...]]) -> None:
    await db.executemany(
        """
        INSERT INTO royalties.statement (id, account_id, period, asset, scale, opening, earned, reversed, paid, closing,
            digest)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        statements,
    )


# ------------------------------------------------------------ telling holders


async def statements_after(db: Any, period: str, limit: int) -> list[Any]:
    """The next that nobody was told of, by id; their run is locked until the transaction ends."""
    return list(
        await db.fetch(
            """
            SELECT s.id, s.account_id, s.digest FROM (
                SELECT announced_to FROM royalties.run WHERE period = $1 AND state = 'closed' FOR UPDATE
            ) r JOIN royalties.statement s ON s.period = $1 AND s.id > r.announced_to ORDER BY s.id LIMIT $2
            """,
            period, limit,
        )
    )  # fmt: skip


async def announce_to(db: Any, period: str, statement_id: UUID) -> None:
    await db.execute(
        "UPDATE royalties.run SET announced_to = $2 WHERE period = $1 AND state = 'closed'", period, statement_id
    )
