import asyncio
import shutil
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

import persistence.stores.postgres.migrate as migrate_module
from persistence.stores.postgres.migrate import MigrationChanged, migrate, migrations


async def test_all_migrations_apply_once_even_when_two_start_at_once(postgres_dsn):
    results = await asyncio.gather(migrate(postgres_dsn), migrate(postgres_dsn))
    assert sorted(results) == sorted([[], [migration.name for migration in migrations()]])


async def test_f27_f64_a_changed_file_and_an_unknown_migration_are_refused(postgres_dsn, tmp_path):
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


SALE = """
WITH event AS (
    INSERT INTO royalties.revenue_event (id, kind, source_ref, work_id, asset, scale, gross_units, platform_units,
        occurred_at)
    VALUES (gen_random_uuid(), $2, gen_random_uuid()::text, $1, 'USDC', 6, 100, 10, now()) RETURNING id
), distribution AS (
    INSERT INTO royalties.distribution (id, event_id, status, parts, posted_at)
    SELECT gen_random_uuid(), id, $3, 1, CASE WHEN $3 = 'pending' THEN NULL ELSE now() END FROM event RETURNING id
)
INSERT INTO royalties.distribution_line (distribution_id, number, part, work_id, account, role, bps, amount_units,
    reversed_units)
SELECT id, number, 0, $1, 'pay:x', 'producer', 10000, amount, $4::bigint * amount / 100
FROM distribution, (VALUES (0, 10), (1, 90)) AS lines (number, amount)
"""


async def test_what_was_sold_and_minted_before_it_was_noted_is_noted(postgres_dsn, tmp_path):
    files = sorted((Path(migrate_module.__file__).parent / "migrations").glob("*.sql"))
    for file in files[:19]:
        shutil.copy(file, tmp_path)
    await migrate(postgres_dsn, tmp_path)
    account, creator, work = uuid4(), uuid4(), uuid4()
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute("INSERT INTO identity.account (id) VALUES ($1)", account)
        await connection.execute(
            "INSERT INTO creators.creator (id, account_id, display_name, creator_type)"
            " VALUES ($1, $2, 'Ink', 'individual')", creator, account,
        )  # fmt: skip
        await connection.execute("INSERT INTO creators.tally (creator_id) VALUES ($1)", creator)
        await connection.execute(
            "INSERT INTO works.work (id, creator_id, account_id, kind, title, description, genres, tags, language,"
            " metadata, keywords, search_words) VALUES ($1, $2, $3, 'story', 'T', '', '{}', '{}', 'en', '{}', '',"
            " 'simple')", work, creator, account,
        )  # fmt: skip
        for kind, status, back in (
            ("rental", "posted", 0), ("content_purchase", "posted", 50), ("ppv", "reversed", 100),
            ("licence_fee", "posted", 0), ("ppv", "pending", 0),
        ):  # fmt: skip
            await connection.execute(SALE, work, kind, status, back)
        minted = await connection.fetchval(
            "INSERT INTO tokens.token (id, creator_id, account_id, symbol, name, description, decimals, total_supply,"
            " sale_size, start_price, quote_asset, market, status) VALUES (gen_random_uuid(), $1, $2, 'INK', 'Ink', '',"
            " 4, 10, 10, '1', 'USDC', 'INK-USDC', 'delisted') RETURNING id", creator, account,
        )  # fmt: skip
        for file in files[19:]:
            shutil.copy(file, tmp_path)
        await migrate(postgres_dsn, tmp_path)
        assert await connection.fetchval("SELECT purchase_count FROM works.tally") == 2
        assert await connection.fetchval("SELECT sale_count FROM creators.tally") == 3
        assert await connection.fetchval("SELECT token_id FROM creators.tally") == minted
        assert await connection.fetchval("SELECT sales FROM creators.daily") == 4
        assert tuple(await connection.fetchrow("SELECT asset, scale, units FROM creators.revenue")) == ("USDC", 6, 250)
    finally:
        await connection.close()
