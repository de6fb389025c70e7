"""SQL of the schema `works`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from platform_api.database import insertion

COLUMNS = """
    w.id, w.creator_id, w.account_id, w.kind, w.title, w.description, w.category, w.genres, w.tags, w.language,
    w.metadata, w.status, w.verification_status, w.content_version, w.shown_version, w.sold, w.published_at,
    w.created_at, w.updated_at, w.version, coalesce(n.purchase_count, 0) AS purchase_count,
    coalesce(n.view_count, 0) AS view_count, coalesce(n.rating_sum, 0) AS rating_sum,
    coalesce(n.rating_count, 0) AS rating_count
"""
WORKS = "works.work w LEFT JOIN works.tally n ON n.work_id = w.id"
"""What is counted of a work lies beside it, in a row from the first count on."""
CASTS = {"search_words": "::text::regconfig"}


# Works.


async def insert_work(db: Any, work_id: UUID, creator_id: UUID, account_id: UUID, fields: Mapping[str, Any]) -> None:
    ids = {"id": work_id, "creator_id": creator_id, "account_id": account_id}
    insert, values = insertion("works.work", ids | {name: fields[name] for name in ("kind", *_EDITED)}, CASTS)
    await db.execute(insert, *values)


async def update_work(db: Any, work_id: UUID, fields: Mapping[str, Any]) -> None:
    sets = "".join(f"{name} = ${number}{CASTS.get(name, '')}, " for number, name in enumerate(fields, 2))
    await db.execute(
        f"UPDATE works.work SET {sets}version = version + 1, updated_at = now() WHERE id = $1",
        work_id, *fields.values(),
    )  # fmt: skip


_EDITED = (
    "title", "description", "category", "genres", "tags", "language", "metadata", "keywords", "search_words",
)  # fmt: skip


_READABLE = """
    EXISTS (SELECT FROM works.asset a WHERE a.work_id = {0} AND a.role = 'master'
        AND (a.removed_at IS NULL OR a.removed_at > {1}) AND (a.shown OR {1} IS NULL))
    OR EXISTS (SELECT FROM works.chapter c WHERE c.work_id = {0} AND c.number > 0
        AND (c.status = 'published' OR c.unpublished_at > {1}))
"""
"""Of a work, and since when."""
_WORK, _STANDS = f"SELECT {COLUMNS} FROM {WORKS}", "w.status <> 'deleted'"
_ONE = f"{_WORK} WHERE w.id = $1 AND {_STANDS}"


async def work(db: Any, work_id: UUID) -> Any:
    """None for one that is deleted."""
    return await db.fetchrow(_ONE, work_id)


async def hold_offered(db: Any, offer_id: UUID) -> Any:
    """The work of an offer. It stays as it is until the transaction ends, for as many at once as want it so."""
    query = f"{_WORK} WHERE w.id = (SELECT work_id FROM works.offer WHERE id = $1) AND {_STANDS} FOR SHARE OF w"
    return await db.fetchrow(query, offer_id)


async def lock_work(db: Any, work_id: UUID) -> Any:
    """Changes of a work, and of all that belongs to it, come one after the other."""
    return await db.fetchrow(f"{_ONE} FOR UPDATE OF w", work_id)


async def published(db: Any, work_ids: list[UUID]) -> set[UUID]:
    rows = await db.fetch("SELECT id FROM works.work WHERE id = ANY($1) AND status = 'published'", work_ids)
    return {row["id"] for row in rows}


async def shown(db: Any, ids: list[UUID]) -> set[UUID]:
    """Of works and chapters, those that everybody may see."""
    rows = await db.fetch(
        "SELECT id FROM works.work WHERE id = ANY($1) AND status = 'published'"
        " UNION ALL SELECT c.id FROM works.chapter c JOIN works.work w ON w.id = c.work_id"
        " WHERE c.id = ANY($1) AND c.status = 'published' AND w.status = 'published'",
        ids,
    )
    return {row["id"] for row in rows}


async def count_purchase(db: Any, work_id: UUID, change: int) -> None:
    await db.execute(
        "INSERT INTO works.tally AS n (work_id, purchase_count) VALUES ($1, $2)"
        " ON CONFLICT (work_id) DO UPDATE SET purchase_count = n.purchase_count + excluded.purchase_count",
        work_id, change,
    )  # fmt: skip


async def count_views(db: Any, seen: list[tuple[date, UUID, bytes]]) -> None:
    """Visitors that are new today, (day, work, visitor), in one order for all who write."""
    await db.execute(
        """
        WITH new AS (
            INSERT INTO works.work_view SELECT * FROM unnest($1::date[], $2::uuid[], $3::bytea[])
            ON CONFLICT DO NOTHING RETURNING work_id)
        INSERT INTO works.tally AS n (work_id, view_count)
        SELECT work_id, count(*) FROM new GROUP BY work_id ORDER BY work_id
        ON CONFLICT (work_id) DO UPDATE SET view_count = n.view_count + excluded.view_count
        """,
        [day for day, _, _ in seen], [work_id for _, work_id, _ in seen], [visitor for _, _, visitor in seen],
    )  # fmt: skip


async def forget_views(db: Any, today: date) -> None:
    await db.execute("DELETE FROM works.work_view WHERE day < $1::date - 1", today)


async def rating(db: Any, work_id: UUID, account_id: UUID) -> int | None:
    query = "SELECT stars FROM works.rating WHERE work_id = $1 AND account_id = $2"
    stars: int | None = await db.fetchval(query, work_id, account_id)
    return stars


async def set_rating(db: Any, work_id: UUID, account_id: UUID, stars: int) -> None:
    await db.execute(
        "INSERT INTO works.rating (work_id, account_id, stars) VALUES ($1, $2, $3)"
        " ON CONFLICT (work_id, account_id) DO UPDATE SET stars = excluded.stars, updated_at = now()",
        work_id, account_id, stars,
    )  # fmt: skip


async def remove_rating(db: Any, work_id: UUID, account_id: UUID) -> None:
    await db.execute("DELETE FROM works.rating WHERE work_id = $1 AND account_id = $2", work_id, account_id)


async def count_rating(db: Any, work_id: UUID, stars: int, ratings: int) -> None:
    await db.execute(
        "INSERT INTO works.tally AS n (work_id, rating_sum, rating_count) VALUES ($1, $2, $3)"
        " ON CONFLICT (work_id) DO UPDATE SET rating_sum = n.rating_sum + excluded.rating_sum,"
        " rating_count = n.rating_count + excluded.rating_count",
        work_id, stars, ratings,
    )  # fmt: skip


async def mark_sold(db: Any, work_id: UUID) -> None:
    """Nothing that a reader or an editor sees: no new version of the row."""
    await db.execute("UPDATE works.work SET sold = true WHERE id = $1 AND NOT sold", work_id)


async def own(db: Any, account_id: UUID, status: str, before: UUID | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        f"SELECT {COLUMNS} FROM {WORKS} WHERE w.account_id = $1 AND w.status = $2"
        " AND ($3::uuid IS NULL OR w.id < $3) ORDER BY w.id DESC LIMIT $4",
        account_id, status, before, limit,
    )  # fmt: skip
    return rows


# Versions.


async def insert_version(
    db: Any, work_id: UUID, number: int, content: bytes, sha256: bytes, note: str, actor: UUID
) -> None:
    await db.execute(
        "INSERT INTO works.work_version (work_id, number, content, sha256, change_note, created_by)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        work_id, number, content, sha256, note, actor,
    )  # fmt: skip
    await db.execute("UPDATE works.work SET content_version = $2 WHERE id = $1", work_id, number)


async def version_digest(db: Any, work_id: UUID, number: int) -> bytes | None:
    query = "SELECT sha256 FROM works.work_version WHERE work_id = $1 AND number = $2"
    digest: bytes | None = await db.fetchval(query, work_id, number)
    return digest


async def version(db: Any, work_id: UUID, number: int) -> Any:
    return await db.fetchrow("SELECT * FROM works.work_version WHERE work_id = $1 AND number = $2", work_id, number)


async def version_sizes(db: Any, work_id: UUID, before: int | None, limit: int) -> list[int]:
    """Bytes of contents, the latest first."""
    rows = await db.fetch(
        "SELECT octet_length(content) AS size FROM works.work_version"
        " WHERE work_id = $1 AND ($2::bigint IS NULL OR number < $2) ORDER BY number DESC LIMIT $3",
        work_id, before, limit,
    )  # fmt: skip
    return [row["size"] for row in rows]


async def versions(db: Any, work_id: UUID, before: int | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM works.work_version WHERE work_id = $1 AND ($2::bigint IS NULL OR number < $2)"
        " ORDER BY number DESC LIMIT $3",
        work_id, before, limit,
    )  # fmt: skip
    return rows


# Chapters.

_CHAPTER = (
    "SELECT c.*, w.account_id, w.status AS work_status FROM works.chapter c JOIN works.work w ON w.id = c.work_id"
)


async def chapters(db: Any, work_id: UUID, *, public: bool, after: int, limit: int) -> list[Any]:
    """By place."""
    rows: list[Any] = await db.fetch(
        "SELECT * FROM works.chapter WHERE work_id = $1 AND number > $2 AND ($3 = false OR status = 'published')"
        " ORDER BY number LIMIT $4",
        work_id, after, public, limit,
    )  # fmt: skip
    return rows


async def chapter_digests(db: Any, work_id: UUID) -> list[Any]:
    """Of all that the work has, drafts too, by place: number, title, and the digest of the latest text or file."""
    rows: list[Any] = await db.fetch(
        "SELECT c.number, v.title, v.sha256 FROM works.chapter c"
        " JOIN works.chapter_version v ON v.chapter_id = c.id AND v.number = c.content_version"
        " WHERE c.work_id = $1 AND c.number > 0 ORDER BY c.number",
        work_id,
    )  # fmt: skip
    return rows


async def chapter(db: Any, chapter_id: UUID) -> Any:
    return await db.fetchrow(f"{_CHAPTER} WHERE c.id = $1 AND c.status <> 'deleted'", chapter_id)


async def chapter_count(db: Any, work_id: UUID) -> int:
    query = "SELECT coalesce(max(number), 0) FROM works.chapter WHERE work_id = $1"
    return int(await db.fetchval(query, work_id))


async def has_published_chapter(db: Any, work_id: UUID) -> bool:
    query = "SELECT EXISTS (SELECT 1 FROM works.chapter WHERE work_id = $1 AND number > 0 AND status = 'published')"
    return bool(await db.fetchval(query, work_id))


async def is_readable(db: Any, work_id: UUID, since: datetime | None = None) -> bool:
    """Whether the work has a master, or a chapter in sight; or had one for readers at some time `since` then, which a
    right of that time opens."""
    found: bool = await db.fetchval(f"SELECT {_READABLE.format('$1', '$2::timestamptz')}", work_id, since)
    return found


async def has_chapter_in_review(db: Any, work_id: UUID) -> bool:
    query = "SELECT EXISTS (SELECT FROM works.chapter WHERE work_id = $1 AND status = 'in_review')"
    return bool(await db.fetchval(query, work_id))


async def chapters_in_review(db: Any, work_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        f"{_CHAPTER} WHERE c.work_id = $1 AND c.status = 'in_review' ORDER BY c.number", work_id
    )
    return rows


async def insert_chapter(db: Any, chapter_id: UUID, work_id: UUID, number: int, fields: Mapping[str, Any]) -> None:
    await db.execute(
        "INSERT INTO works.chapter (id, work_id, number, title, preview, duration_seconds)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        chapter_id, work_id, number, fields["title"], fields["preview"], fields["duration_seconds"],
    )  # fmt: skip


async def update_chapters(db: Any, chapter_ids: list[UUID], fields: Mapping[str, Any]) -> None:
    """The same of each."""
    sets = "".join(f"{name} = ${number}, " for number, name in enumerate(fields, 2))
    await db.execute(
        f"UPDATE works.chapter SET {sets}version = version + 1, updated_at = now() WHERE id = ANY($1)",
        chapter_ids, *fields.values(),
    )  # fmt: skip


async def publish_chapters(db: Any, chapter_ids: list[UUID], at: datetime) -> None:
    """They keep the time when they were published first."""
    await db.execute(
        "UPDATE works.chapter SET status = 'published', published_at = coalesce(published_at, $2),"
        " unpublished_at = NULL, shown_version = NULL, version = version + 1, updated_at = now() WHERE id = ANY($1)",
        chapter_ids, at,
    )  # fmt: skip
    await show_latest(db, chapter_ids, at)


async def show_latest(db: Any, chapter_ids: list[UUID], at: datetime) -> None:
    """Readers get the latest version of each from now on, in the place of the one that they got."""
    await end_shown(db, chapter_ids, at)
    await db.execute(
        "INSERT INTO works.chapter_shown (chapter_id, number, shown_from)"
        " SELECT id, content_version, $2 FROM works.chapter WHERE id = ANY($1)"
        " ON CONFLICT (chapter_id, number) DO UPDATE SET shown_until = NULL",
        chapter_ids, at,
    )  # fmt: skip


async def end_shown(db: Any, chapter_ids: list[UUID], at: datetime) -> None:
    """New readers get no version of them from now on."""
    await db.execute(
        "UPDATE works.chapter_shown SET shown_until = $2 WHERE chapter_id = ANY($1) AND shown_until IS NULL",
        chapter_ids, at,
    )  # fmt: skip


async def shown_title(db: Any, chapter_id: UUID, number: int) -> str | None:
    """Of a version that readers get, or got once."""
    title: str | None = await db.fetchval(
        "SELECT v.title FROM works.chapter_shown s JOIN works.chapter_version v USING (chapter_id, number)"
        " WHERE s.chapter_id = $1 AND s.number = $2",
        chapter_id, number,
    )  # fmt: skip
    return title


async def shown_until(db: Any, chapter_id: UUID, number: int) -> datetime | None:
    """When readers ceased to get this version; None if they get it, or never did."""
    query = "SELECT shown_until FROM works.chapter_shown WHERE chapter_id = $1 AND number = $2"
    until: datetime | None = await db.fetchval(query, chapter_id, number)
    return until


async def close_gap(db: Any, work_id: UUID, number: int) -> None:
    """The chapters behind this place move up. The rule that numbers differ is looked at when the transaction ends."""
    await db.execute("UPDATE works.chapter SET number = number - 1 WHERE work_id = $1 AND number > $2", work_id, number)


async def make_gap(db: Any, work_id: UUID, number: int) -> None:
    await db.execute(
        "UPDATE works.chapter SET number = number + 1 WHERE work_id = $1 AND number >= $2", work_id, number
    )


async def insert_chapter_version(
    db: Any, chapter_id: UUID, number: int, title: str, body: str | None, file_id: UUID | None, sha256: bytes,
    note: str, actor: UUID,
) -> None:  # fmt: skip
    await db.execute(
        "INSERT INTO works.chapter_version (chapter_id, number, title, body, file_id, sha256, change_note, created_by)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        chapter_id, number, title, body, file_id, sha256, note, actor,
    )  # fmt: skip
    await db.execute("UPDATE works.chapter SET content_version = $2 WHERE id = $1", chapter_id, number)


async def chapter_version(db: Any, chapter_id: UUID, number: int) -> Any:
    query = "SELECT * FROM works.chapter_version WHERE chapter_id = $1 AND number = $2"
    return await db.fetchrow(query, chapter_id, number)


async def chapter_versions_since(db: Any, chapter_id: UUID, since: datetime, last: int) -> list[Any]:
    """The version that readers got then, if they got one, and the last one, which may be the same."""
    rows: list[Any] = await db.fetch(
        """
        SELECT * FROM works.chapter_version v WHERE v.chapter_id = $1 AND (
            v.number = $3
            OR v.number = (SELECT max(number) FROM works.chapter_shown
                WHERE chapter_id = $1 AND shown_from <= $2 AND (shown_until IS NULL OR shown_until >= $2)))
        ORDER BY v.number DESC
        """,
        chapter_id, since, last,
    )  # fmt: skip
    return rows


async def chapter_versions(db: Any, chapter_id: UUID, before: int | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM works.chapter_version WHERE chapter_id = $1 AND ($2::bigint IS NULL OR number < $2)"
        " ORDER BY number DESC LIMIT $3",
        chapter_id, before, limit,
    )  # fmt: skip
    return rows


# Files in their roles.


async def assets(db: Any, work_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM works.asset WHERE work_id = $1 AND removed_at IS NULL ORDER BY id", work_id
    )
    return rows


async def show_assets(db: Any, work_id: UUID) -> None:
    """Readers get all that the work has now."""
    await db.execute(
        "UPDATE works.asset SET shown = true WHERE work_id = $1 AND removed_at IS NULL AND NOT shown", work_id
    )


async def assets_since(db: Any, work_id: UUID, since: datetime) -> list[Any]:
    """Those for readers that the work has, or had at some time since then; each file once in a role."""
    rows: list[Any] = await db.fetch(
        "SELECT DISTINCT ON (file_id, role) role, name, file_id FROM works.asset"
        " WHERE work_id = $1 AND shown AND (removed_at IS NULL OR removed_at > $2) ORDER BY file_id, role",
        work_id, since,
    )  # fmt: skip
    return rows


async def insert_asset(db: Any, asset_id: UUID, work_id: UUID, role: str, file_id: UUID, file: Any) -> bool:
    """False if the work has the file in this role."""
    tag = await db.execute(
        "INSERT INTO works.asset (id, work_id, role, file_id, name, type, size_bytes, sha256)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (work_id, file_id, role) WHERE removed_at IS NULL"
        " DO NOTHING",
        asset_id, work_id, role, file_id, file.name, file.content_type, file.size_bytes, bytes.fromhex(file.sha256),
    )  # fmt: skip
    return str(tag) == "INSERT 0 1"


async def remove_asset(db: Any, asset_id: UUID, work_id: UUID) -> bool:
    tag = await db.execute(
        "UPDATE works.asset SET removed_at = now() WHERE id = $1 AND work_id = $2 AND removed_at IS NULL",
        asset_id, work_id,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def shown_elsewhere(db: Any, file_ids: list[UUID], work_id: UUID, roles: list[str]) -> set[UUID]:
    """Which of the files another published work shows."""
    rows = await db.fetch(
        "SELECT DISTINCT a.file_id FROM works.asset a JOIN works.work w ON w.id = a.work_id"
        " WHERE a.file_id = ANY($1) AND a.removed_at IS NULL AND a.role = ANY($3) AND a.work_id <> $2"
        " AND w.status = 'published'",
        file_ids, work_id, roles,
    )  # fmt: skip
    return {row["file_id"] for row in rows}


# Collaborators.


async def collaborators(db: Any, work_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch("SELECT * FROM works.collaborator WHERE work_id = $1 ORDER BY account_id", work_id)
    return rows


async def replace_collaborators(db: Any, work_id: UUID, lines: list[tuple[UUID, str, int]]) -> None:
    await db.execute("DELETE FROM works.collaborator WHERE work_id = $1", work_id)
    await db.executemany(
        "INSERT INTO works.collaborator (work_id, account_id, role, share_bps) VALUES ($1, $2, $3, $4)",
        [(work_id, *line) for line in lines],
    )


async def open_change(db: Any, work_id: UUID) -> Any:
    query = "SELECT * FROM works.collaborator_change WHERE work_id = $1 AND status = 'pending'"
    return await db.fetchrow(query, work_id)


async def insert_change(db: Any, change_id: UUID, work_id: UUID, lines: str, status: str, actor: UUID) -> None:
    await db.execute(
        "INSERT INTO works.collaborator_change (id, work_id, lines, status, proposed_by) VALUES ($1, $2, $3, $4, $5)",
        change_id, work_id, lines, status, actor,
    )  # fmt: skip


async def add_consents(db: Any, change_id: UUID, accounts: list[UUID]) -> None:
    await db.executemany(
        "INSERT INTO works.collaborator_consent (change_id, account_id) VALUES ($1, $2)",
        [(change_id, account_id) for account_id in accounts],
    )


async def close_change(db: Any, change_id: UUID, status: str) -> None:
    await db.execute(
        "UPDATE works.collaborator_change SET status = $2, decided_at = now() WHERE id = $1", change_id, status
    )


async def consents(db: Any, change_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM works.collaborator_consent WHERE change_id = $1 ORDER BY account_id", change_id
    )
    return rows


async def answer_consent(db: Any, change_id: UUID, account_id: UUID, agreed: bool) -> None:
    await db.execute(
        "UPDATE works.collaborator_consent SET agreed = $3, decided_at = now()"
        " WHERE change_id = $1 AND account_id = $2",
        change_id, account_id, agreed,
    )  # fmt: skip


# Offers.


async def offers(db: Any, work_id: UUID, *, active_only: bool) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM works.offer WHERE work_id = $1 AND ($2 = false OR active) ORDER BY id", work_id, active_only
    )
    return rows


_FOR_SALE = f"""
    SELECT o.*, {_READABLE.format("o.work_id", "NULL::timestamptz")} AS is_readable,
        o.chapter_id IS NOT NULL AND NOT EXISTS
            (SELECT FROM works.chapter c WHERE c.id = o.chapter_id AND c.status = 'published') AS is_hidden
    FROM works.offer o WHERE o.id = $1
"""


async def offer(db: Any, offer_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM works.offer WHERE id = $1", offer_id)


async def offer_for_sale(db: Any, offer_id: UUID) -> Any:
    """The offer; `is_readable`: its work, now; `is_hidden`: it is about a chapter that readers do not see."""
    return await db.fetchrow(_FOR_SALE, offer_id)


async def insert_offer(db: Any, offer_id: UUID, work_id: UUID, fields: Mapping[str, Any]) -> Any:
    return await db.fetchrow(
        "INSERT INTO works.offer (id, work_id, chapter_id, kind, asset, scale, price_units, access_seconds)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *",
        offer_id, work_id, fields["chapter_id"], fields["kind"], fields["asset"], fields["scale"],
        fields["price_units"], fields["access_seconds"],
    )  # fmt: skip


async def update_offer(db: Any, offer_id: UUID, fields: Mapping[str, Any]) -> Any:
    sets = "".join(f"{name} = ${number}, " for number, name in enumerate(fields, 2))
    return await db.fetchrow(
        f"UPDATE works.offer SET {sets}version = version + 1, updated_at = now() WHERE id = $1 RETURNING *",
        offer_id, *fields.values(),
    )  # fmt: skip


# Verification.


async def insert_case(db: Any, case_id: UUID, work_id: UUID, statement: str) -> Any:
    return await db.fetchrow(
        "INSERT INTO works.verification_case (id, work_id, statement, status)"
        " VALUES ($1, $2, $3, 'pending') RETURNING *",
        case_id, work_id, statement,
    )  # fmt: skip


async def open_case(db: Any, work_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM works.verification_case WHERE work_id = $1 AND status = 'pending'", work_id)


async def turn_case(db: Any, work_id: UUID) -> None:
    """What waits for a decision is another than before."""
    await db.execute(
        "UPDATE works.verification_case SET version = version + 1 WHERE work_id = $1 AND status = 'pending'", work_id
    )


async def withdraw_case(db: Any, work_id: UUID) -> Any:
    """The one that waits, which is about chapters alone, if none of them waits any more; else None."""
    return await db.fetchrow(
        "UPDATE works.verification_case SET status = 'withdrawn', decided_at = now()"
        " WHERE work_id = $1 AND status = 'pending' AND NOT EXISTS ("
        " SELECT FROM works.chapter c WHERE c.work_id = $1 AND c.status = 'in_review') RETURNING *",
        work_id,
    )  # fmt: skip


async def decide_case(db: Any, case_id: UUID, status: str, actor: UUID, reason: str) -> Any:
    return await db.fetchrow(
        "UPDATE works.verification_case SET status = $2, decided_by = $3, reason = $4, decided_at = now()"
        " WHERE id = $1 RETURNING *",
        case_id, status, actor, reason,
    )  # fmt: skip


async def pending_cases(db: Any, after: UUID | None, limit: int) -> list[Any]:
    """The longest waiting first."""
    rows: list[Any] = await db.fetch(
        "SELECT v.*, w.title FROM works.verification_case v JOIN works.work w ON w.id = v.work_id"
        " WHERE v.status = 'pending' AND w.status <> 'deleted' AND ($1::uuid IS NULL OR v.id > $1)"
        " ORDER BY v.id LIMIT $2",
        after, limit,
    )  # fmt: skip
    return rows
