"""`byline jobs`: what the platform gave up to do outside of requests, and doing it again.

Works on the database itself, as `byline people` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from rich.table import Table

from byline.people import connected, dsn_of
from byline.settings import Settings
from engine.messages.errors import SettingsInvalid
from platform_api.kernel.jobs import Jobs

__all__ = ["failed_jobs", "requeue"]

_FAILED = """
    SELECT j.id, j.entrypoint, j.payload, j.attempts, j.updated, l.traceback->>'exception_type' AS type,
           l.traceback->>'exception_message' AS message
    FROM jobs.pgqueuer j LEFT JOIN LATERAL (
        SELECT traceback FROM jobs.pgqueuer_log
        WHERE job_id = j.id AND traceback IS NOT NULL ORDER BY created DESC, id DESC LIMIT 1) l ON true
    WHERE j.status = 'failed' ORDER BY j.id LIMIT $1
"""


def failed_jobs(settings: Settings, limit: int = 100) -> Table | None:
    """The oldest of them: queue, kind, runs, when the last one was, and what it died of. None: there are none.

    Raises Unavailable.
    """
    return asyncio.run(_failed(dsn_of(settings), limit))


def requeue(settings: Settings, ids: Sequence[int]) -> str:
    """Run these failed jobs again with all their retries, or all if none is named. Returns what was done, in words.

    Raises SettingsInvalid (no failed job has one of the ids), Unavailable.
    """
    return asyncio.run(_requeue(dsn_of(settings), ids))


async def _failed(dsn: str, limit: int) -> Table | None:
    async with connected(dsn) as connection:
        rows = await connection.fetch(_FAILED, limit)
    if not rows:
        return None
    table = Table("job", "queue", "kind", "runs", "last", "error", title="failed jobs")
    for row in rows:
        kind = msgspec.json.decode(row["payload"])["kind"]
        table.add_row(
            str(row["id"]), row["entrypoint"], kind, str(row["attempts"] + 1),
            f"{row['updated']:%Y-%m-%d %H:%M:%S} UTC",
            f"{row['type']}: {row['message']}" if row["type"] else "",
        )  # fmt: skip
    return table


async def _requeue(dsn: str, ids: Sequence[int]) -> str:
    async with connected(dsn) as connection, connection.transaction():
        rows = await connection.fetch("SELECT id FROM jobs.pgqueuer WHERE status = 'failed' FOR UPDATE")
        failed = {row["id"] for row in rows}
        if unknown := sorted(set(ids) - failed):
            raise SettingsInvalid(f"no failed job has the id {unknown[0]}: `byline jobs list` shows them")
        chosen = sorted(ids or failed)
        await Jobs().requeue(connection, chosen)
    return f"{len(chosen):,} {'job runs' if len(chosen) == 1 else 'jobs run'} again"
