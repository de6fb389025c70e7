"""Schema migrations: plain SQL files, applied in order, once, each in a transaction.

A file is `NNNN_name.sql` beside this module. What was applied is kept in `public.migration` with its digest: a file
that changed after it was applied is refused, never run again. An advisory lock lets several processes start at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from engine.messages.errors import LocalFault

__all__ = ["Migration", "MigrationChanged", "migrate", "migrations"]

_DIRECTORY = Path(__file__).parent / "migrations"
_LOCK = 0x62796C696E65  # "byline"


class MigrationChanged(LocalFault):
    """An applied migration's file is not what it was, or is gone."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(directory: Path = _DIRECTORY) -> list[Migration]:
    """All files in order. Numbers start at 1 and have no gap."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, path.read_text()))
    assert [migration.number for migration in found] == list(range(1, len(found) + 1)), "migration numbers have a gap"
    return found


async def migrate(dsn: str, directory: Path = _DIRECTORY) -> list[str]:
    """Brings the database to the newest schema. Returns the names of what was applied now.

    Raises:
        MigrationChanged: a file differs from what was applied.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS public.migration (number int PRIMARY KEY, name text NOT NULL,"
            " digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {row["number"]: row for row in await connection.fetch("SELECT * FROM public.migration")}
        now = []
        for migration in migrations(directory):
            before = applied.pop(migration.number, None)
            if before is None:
                async with connection.transaction():
                    await connection.execute(migration.sql)
                    await connection.execute(
                        "INSERT INTO public.migration (number, name, digest) VALUES ($1, $2, $3)",
                        migration.number, migration.name, migration.digest,
                    )  # fmt: skip
                now.append(migration.name)
            elif before["digest"] != migration.digest:
                raise MigrationChanged(f"migration {migration.number} ({migration.name}) changed after it was applied")
        if applied:
            raise MigrationChanged(f"the database has migrations this build does not know: {sorted(applied)}")
        return now
    finally:
        await connection.close()
