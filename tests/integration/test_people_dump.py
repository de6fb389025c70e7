"""The dump of people's data goes back as docs/operations.md says: with the tables of projections, where nothing is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import asyncpg

from byline.embedded.postgres import find_binaries
from persistence.stores.postgres.migrate import migrate


def run(tool: str, *argv: str) -> str:
    done = subprocess.run([str(find_binaries().directory / tool), *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_dump_without_projections_is_restored_into_an_empty_database(postgres_dsn: str, tmp_path: Path) -> None:
    await migrate(postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    tables = (
        "SELECT schemaname || '.' || tablename AS name FROM pg_tables"
        " WHERE schemaname !~ '^(pg_|information)' ORDER BY 1"
    )
    expected = [row["name"] for row in await connection.fetch(tables)]
    applied = await connection.fetch("SELECT number, digest FROM public.migration ORDER BY 1")
    await connection.execute("INSERT INTO exchange.projection (name, sequence, journal) VALUES ('exchange', 9, 'x')")
    (tmp_path / "people.sql").write_text(run("pg_dump", "-N", "exchange", "-N", "settlement", postgres_dsn))
    (tmp_path / "tables.sql").write_text(
        run("pg_dump", "--schema-only", "-n", "exchange", "-n", "settlement", postgres_dsn)
    )
    await connection.execute("CREATE DATABASE brought_back")
    await connection.close()
    target = postgres_dsn.replace(f"/{postgres_dsn.partition('?')[0].rpartition('/')[2]}?", "/brought_back?")
    try:
        for name in ("people.sql", "tables.sql"):
            run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tmp_path / name), target)
        assert await migrate(target) == []
        connection = await asyncpg.connect(target)
        assert [row["name"] for row in await connection.fetch(tables)] == expected
        assert await connection.fetch("SELECT number, digest FROM public.migration ORDER BY 1") == applied
        assert await connection.fetchval("SELECT count(*) FROM exchange.projection") == 0
        await connection.close()
    finally:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute("DROP DATABASE IF EXISTS brought_back WITH (FORCE)")
        await connection.close()
