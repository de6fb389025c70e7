"""SQL of what licences take: works above works, and shares that wait for consent. The connection comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

__all__ = [
    "add_licence_share_consents", "ancestors", "bind", "bound_licences", "close_licence_share", "edges_above",
    "end_given_on", "given_on", "given_on_of", "insert_licence_share", "licence_share", "licence_share_consents",
    "lock_chains", "open_licence_share", "periods_not_agreed", "take_licence_share_consent", "unbind",
    "waiting_licence_shares", "works_below",
]  # fmt: skip

_EDGES = "LATERAL (SELECT * FROM royalties.ancestor a WHERE {of} AND a.ended_at IS NULL OFFSET 0) a"
"""OFFSET 0 keeps the planner from making a join of it."""


async def ancestors(db: Any, work_id: UUID) -> list[Any]:
    return list(
        await db.fetch(
            "SELECT parent_work_id, through, passed_bps, sum(share_bps)::integer AS share_bps FROM royalties.ancestor"
            " WHERE work_id = $1 AND ended_at IS NULL GROUP BY parent_work_id, through, passed_bps"
            " ORDER BY parent_work_id, through, passed_bps",
            work_id,
        )
    )


async def bind(
    db: Any, licence_id: UUID, work_id: UUID, parent_work_id: UUID, share_bps: int, through: Sequence[UUID],
    passed_bps: Sequence[int],
) -> None:  # fmt: skip
    """`through`: the licensors between, the nearest first, and what each gives on."""
    await db.execute(
        "INSERT INTO royalties.ancestor (licence_id, work_id, parent_work_id, share_bps, through, passed_bps)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        licence_id, work_id, parent_work_id, share_bps, list(through), list(passed_bps),
    )  # fmt: skip


async def lock_chains(db: Any) -> None:
    """Of two who bind at the same instant, the second sees what the first did."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtext('royalties.ancestor'))")


async def edges_above(db: Any, work_ids: Sequence[UUID]) -> list[Any]:
    """What these works, and all above them, give to the works directly above: as they stand at one moment.

    Visits their own edges alone: to join them, a plan that does not know how few they are reads those of all works.
    """
    return list(
        await db.fetch(
            f"""
            WITH RECURSIVE above AS (
                SELECT id AS work_id FROM unnest($1::uuid[]) AS id
                UNION
                SELECT a.parent_work_id FROM above u CROSS JOIN {_EDGES.format(of="a.work_id = u.work_id")}
            )
            SELECT a.work_id, a.parent_work_id, a.through, a.passed_bps, sum(a.share_bps)::integer AS share_bps
            FROM above u CROSS JOIN {_EDGES.format(of="a.work_id = u.work_id")}
            GROUP BY a.work_id, a.parent_work_id, a.through, a.passed_bps
            ORDER BY a.work_id, a.parent_work_id, a.through, a.passed_bps
            """,
            list(work_ids),
        )
    )


async def works_below(db: Any, work_id: UUID, limit: int) -> list[UUID]:
    """The work and those below it, at any distance; at most so many, in no order."""
    rows = await db.fetch(
        f"""
        WITH RECURSIVE below AS (
            SELECT $1::uuid AS work_id
            UNION
            SELECT a.work_id FROM below b CROSS JOIN {_EDGES.format(of="a.parent_work_id = b.work_id")}
        )
        SELECT work_id FROM below LIMIT $2
        """,
        work_id, limit,
    )  # fmt: skip
    return [row["work_id"] for row in rows]


async def unbind(db: Any, licence_ids: Sequence[UUID], work_id: UUID) -> None:
    await db.execute(
        "UPDATE royalties.ancestor SET ended_at = now()"
        " WHERE licence_id = ANY($1) AND work_id = $2 AND ended_at IS NULL",
        licence_ids, work_id,
    )  # fmt: skip


async def bound_licences(db: Any, work_id: UUID) -> list[Any]:
    return list(
        await db.fetch(
            "SELECT licence_id, work_id, parent_work_id, share_bps FROM royalties.ancestor"
            " WHERE work_id = $1 AND ended_at IS NULL ORDER BY bound_at, licence_id",
            work_id,
        )
    )


_SHARE_COLUMNS = (
    "id, licence_id, work_id, parent_work_id, share_bps, replaces, status, proposed_by, period_id, through, passed_bps"
)
_SHARE = f"SELECT {_SHARE_COLUMNS} FROM royalties.licence_share "


async def licence_share(db: Any, share_id: UUID) -> Any:
    return await db.fetchrow(_SHARE + "WHERE id = $1", share_id)


async def open_licence_share(db: Any, licence_id: UUID) -> Any:
    """Of the work that is named as made under the licence."""
    return await db.fetchrow(
        _SHARE + "WHERE licence_id = $1 AND status = 'pending' AND parent_work_id IS NOT NULL", licence_id
    )


async def waiting_licence_shares(db: Any, work_id: UUID) -> list[Any]:
    return list(
        await db.fetch(
            _SHARE + "WHERE (work_id = $1 OR parent_work_id = $1) AND status = 'pending' ORDER BY proposed_at, id",
            work_id,
        )
    )


async def given_on(db: Any, work_id: UUID) -> list[Any]:
    """What all have agreed to, of periods that are not over; the latest first."""
    return list(
        await db.fetch(
            _SHARE + "WHERE work_id = $1 AND period_id IS NOT NULL AND status = 'effective'"
            " ORDER BY proposed_at DESC, id DESC LIMIT 200",
            work_id,
        )
    )  # fmt: skip


async def given_on_of(db: Any, licence_ids: Sequence[UUID]) -> dict[UUID, str]:
    """What became of the question whether a licence may be given on, by licence: of its latest period."""
    rows = await db.fetch(
        "SELECT DISTINCT ON (licence_id) licence_id, status FROM royalties.licence_share"
        " WHERE licence_id = ANY($1) AND period_id IS NOT NULL ORDER BY licence_id, proposed_at DESC, id DESC",
        list(licence_ids),
    )
    return {row["licence_id"]: row["status"] for row in rows}


async def periods_not_agreed(db: Any, period_ids: Sequence[UUID]) -> bool:
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM royalties.licence_share WHERE period_id = ANY($1) AND status <> 'effective')",
        list(period_ids),
    )
    return found


async def end_given_on(db: Any, period_ids: Sequence[UUID]) -> None:
    await db.execute(
        "UPDATE royalties.licence_share SET status = 'over'"
        " WHERE period_id = ANY($1) AND status IN ('pending', 'effective')",
        list(period_ids),
    )


async def insert_licence_share(
    db: Any, share_id: UUID, licence_id: UUID, work_id: UUID, parent_work_id: UUID | None, share_bps: int,
    replaces: Sequence[UUID], actor: UUID, period_id: UUID | None, through: Sequence[UUID], passed_bps: Sequence[int],
) -> Any:  # fmt: skip
    """Either of a work made under the licence, or of a period in which it may be given on."""
    return await db.fetchrow(
        f"INSERT INTO royalties.licence_share ({_SHARE_COLUMNS})"
        f" VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9, $10) RETURNING {_SHARE_COLUMNS}",
        share_id, licence_id, work_id, parent_work_id, share_bps, list(replaces), actor, period_id, list(through),
        list(passed_bps),
    )  # fmt: skip


async def close_licence_share(db: Any, share_id: UUID, status: str) -> None:
    await db.execute("UPDATE royalties.licence_share SET status = $2 WHERE id = $1", share_id, status)


async def add_licence_share_consents(db: Any, share_id: UUID, accounts: Sequence[UUID]) -> None:
    await db.executemany(
        "INSERT INTO royalties.licence_share_consent (share_id, account_id) VALUES ($1, $2)",
        [(share_id, account_id) for account_id in accounts],
    )


async def licence_share_consents(db: Any, share_id: UUID) -> list[Any]:
    return list(
        await db.fetch(
            "SELECT account_id, agreed FROM royalties.licence_share_consent WHERE share_id = $1 ORDER BY account_id",
            share_id,
        )
    )


async def take_licence_share_consent(db: Any, share_id: UUID, account_id: UUID, agree: bool) -> None:
    await db.execute(
        "UPDATE royalties.licence_share_consent SET agreed = $3, decided_at = now()"
        " WHERE share_id = $1 AND account_id = $2",
        share_id, account_id, agree,
    )  # fmt: skip
