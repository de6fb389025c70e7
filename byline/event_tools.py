"""`byline events`: what the relay gave up to hand over, and handing it over again.

Works on the database itself, as `byline jobs` does. Consumers that took an event have their mark and are not asked
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from rich.table import Table

from byline.people import connected, dsn_of
from byline.settings import Settings
from engine.messages.errors import SettingsInvalid

__all__ = ["given_up", "hand_over"]

_GIVEN_UP = """
    SELECT event_id, type, subject_type, subject_id, attempts, failed_at, error FROM kernel.outbox
    WHERE failed_at IS NOT NULL AND delivered_at IS NULL ORDER BY position LIMIT $1
"""


def given_up(settings: Settings, limit: int = 100) -> Table | None:
    """The oldest of them: event, type, whose it is, tries, when the last one was, its error. None: there are none.

    Raises Unavailable.
    """
    return asyncio.run(_given_up(dsn_of(settings), limit))


def hand_over(settings: Settings, ids: Sequence[UUID]) -> str:
    """Have these events handed over with all their tries, or all if none is named. Returns what was done, in words.

    Raises SettingsInvalid (no event that was given up has one of the ids), Unavailable.
    """
    return asyncio.run(_hand_over(dsn_of(settings), ids))


async def _given_up(dsn: str, limit: int) -> Table | None:
    async with connected(dsn) as connection:
        rows = await connection.fetch(_GIVEN_UP, limit)
    if not rows:
        return None
    table = Table("event", "type", "of", "tries", "last", "error", title="events given up")
    for row in rows:
        table.add_row(
            str(row["event_id"]), row["type"], f"{row['subject_type']} {row['subject_id']}", str(row["attempts"]),
            f"{row['failed_at']:%Y-%m-%d %H:%M:%S} UTC", row["error"],
        )  # fmt: skip
    return table


async def _hand_over(dsn: str, ids: Sequence[UUID]) -> str:
    async with connected(dsn) as connection, connection.transaction():
        rows = await connection.fetch(
            "SELECT event_id FROM kernel.outbox WHERE failed_at IS NOT NULL AND delivered_at IS NULL FOR UPDATE"
        )
        known = {row["event_id"] for row in rows}
        if unknown := sorted(set(ids) - known):
            raise SettingsInvalid(
                f"no event that was given up has the id {unknown[0]}: `byline events list` shows them"
            )
        chosen = list(ids or known)
        await connection.execute(
            "UPDATE kernel.outbox SET failed_at = NULL, attempts = 0, next_attempt_at = now()"
            " WHERE event_id = ANY($1)",
            chosen,
        )
    return f"{len(chosen):,} {'event is' if len(chosen) == 1 else 'events are'} handed over again"
