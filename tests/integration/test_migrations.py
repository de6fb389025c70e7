import asyncio

import asyncpg
import pytest

from persistence.stores.postgres.migrate import MigrationChanged, migrate, migrations


async def test_all_migrations_apply_once_even_when_two_start_at_once(postgres_dsn):
    results = await asyncio.gather(migrate(postgres_dsn), migrate(postgres_dsn))
    assert sorted(results) == sorted([[], [migration.name for migration in migrations()]])


async def test_a_changed_file_and_an_unknown_migration_are_refused(postgres_dsn, tmp_path):
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE a (n int)")
    assert await migrate(postgres_dsn, tmp_path) == ["first"]
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE b (n int)")
    with pytest.raises(MigrationChanged, match="first"):
        await migrate(postgres_dsn, tmp_path)
    (tmp_path / "0001_first.sql").unlink()
    with pytest.raises(MigrationChanged, match="does not know"):
        await migrate(postgres_dsn, tmp_path)


async def test_a_failing_migration_leaves_nothing(postgres_dsn, tmp_path):
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE a (n int); SELECT nonsense")
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(postgres_dsn, tmp_path)
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE a (n int)")
    assert await migrate(postgres_dsn, tmp_path) == ["first"]
