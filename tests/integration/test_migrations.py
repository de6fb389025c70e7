import asyncio
import shutil
from datetime import UTC, datetime, timedelta
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


WORK = """
INSERT INTO works.work (id, creator_id, account_id, kind, title, description, genres, tags, language, metadata,
    keywords, search_words)
VALUES ($1, $2, $3, 'story', 'T', '', '{}', '{}', 'en', '{}', '', 'simple')
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
        await connection.execute(WORK, work, creator, account)
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


CHAPTER_ACTS = {
    "kept": ("1", "published", "2", "unpublished", "3", "4", "published", "5 submitted", "rejected", "6", "published"),
    "waits": ("1", "published", "2 submitted"),
    "draft": ("1", "2"),
    "copied": ("1",),
}
"""A number writes a version; the rest is what the audit says of the chapter, all by a second each."""


async def test_versions_of_chapters_that_were_shown_are_known_of_what_was_there_before(postgres_dsn, tmp_path):
    files = sorted((Path(migrate_module.__file__).parent / "migrations").glob("*.sql"))
    for file in files[:49]:
        shutil.copy(file, tmp_path)
    await migrate(postgres_dsn, tmp_path)
    account, creator, work, chapters = uuid4(), uuid4(), uuid4(), {name: uuid4() for name in CHAPTER_ACTS}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute("INSERT INTO identity.account (id) VALUES ($1)", account)
        await connection.execute(WORK, work, creator, account)
        for number, (name, acts) in enumerate(CHAPTER_ACTS.items(), 1):
            status, versions, hidden = "draft", 0, (None, None)
            if name == "copied":  # from elsewhere: nothing in the audit
                status = "published"
            await connection.execute(
                "INSERT INTO works.chapter (id, work_id, number, title, preview) VALUES ($1, $2, $3, 'T', false)",
                chapters[name], work, number,
            )  # fmt: skip
            for second, act in enumerate(acts):
                at = start + timedelta(seconds=second)
                for word in act.split():
                    if word.isdigit():
                        versions = int(word)
                        await connection.execute(
                            "INSERT INTO works.chapter_version (chapter_id, number, title, body, sha256, change_note,"
                            " created_by, created_at) VALUES ($1, $2, 'T', 'x', $3, '', $4, $5)",
                            chapters[name], versions, bytes(32), account, at,
                        )  # fmt: skip
                        continue
                    if status == "published":
                        hidden = (at, versions - (word == "submitted"))
                    status = {"submitted": "in_review", "rejected": "unpublished"}.get(word, word)
                    await connection.execute(
                        "INSERT INTO kernel.audit_entry (id, recorded_at, action, resource_type, resource_id)"
                        " VALUES (gen_random_uuid(), $1, $2, 'chapter', $3)",
                        at, f"chapter.{word}", str(chapters[name]),
                    )  # fmt: skip
            await connection.execute(
                "UPDATE works.chapter SET status = $2, content_version = $3, published_at = $4, unpublished_at = $5,"
                " shown_version = $6 WHERE id = $1", chapters[name], status, versions,
                None if status == "draft" else start, *((None, None) if status == "published" else hidden),
            )  # fmt: skip
        for file in files[49:]:
            shutil.copy(file, tmp_path)
        await migrate(postgres_dsn, tmp_path)
        rows = await connection.fetch("SELECT * FROM works.chapter_shown ORDER BY number")

        def shown(name):
            return [
                (row["number"], *((at - start).seconds if at else None for at in row[2:]))
                for row in rows if row["chapter_id"] == chapters[name]
            ]  # fmt: skip

        assert shown("kept") == [(1, 1, 2), (2, 2, 3), (4, 6, 7), (6, 10, None)]
        assert shown("waits") == [(1, 1, 2)] and shown("draft") == [] and shown("copied") == [(1, 0, None)]
    finally:
        await connection.close()
