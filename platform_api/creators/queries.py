"""SQL of the schema `creators`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from platform_api.search import as_beginning

_CREATOR = """
    SELECT c.id, c.account_id, c.display_name, c.bio, c.avatar_url, c.cover_url, c.creator_type, c.category,
           c.verification_status, c.created_at, c.updated_at, c.version, t.follower_count, t.work_count, t.trend,
           t.sale_count, t.token_id
    FROM creators.creator c JOIN creators.tally t ON t.creator_id = c.id
"""
FACETS = (
    "ARRAY['category ' || c.category, 'type ' || c.creator_type,"
    " CASE WHEN c.verification_status = 'verified' THEN 'verified' ELSE 'unverified' END]"
)
"""Just what the index `creator_facets` has."""
_KEPT = "creators.creator c"
_COUNTED = "creators.tally t"
ORDERS = {
    "newest": (_KEPT, "c.id", ("c.id",), "DESC"),
    "followers": (_COUNTED, "t.creator_id", ("t.follower_count", "t.creator_id"), "DESC"),
    "trending": (_COUNTED, "t.creator_id", ("t.trend", "t.creator_id"), "DESC"),
    "name": (_KEPT, "c.id", ("lower(c.display_name)", "c.id"), "ASC"),
}
"""Sort → the table that has an index of it, the id there, the key and its way. The last part of each key is the id."""
STEPS = 20
"""As of works: how far an index is read in the order of a list, for each row asked for, before creators are looked up
by the filters."""
CANDIDATES_MAX = 500
"""How many matches of a search are ranked, the most followed: bounds its cost for words that everybody uses."""
SEARCH_QUERY = (
    "WITH given AS (SELECT websearch_to_tsquery('simple', $1) AS words),"
    f" query AS (SELECT {as_beginning('words')} AS words FROM given) "
)
"""`query.words`: what was typed, the last word as a beginning."""


async def insert_creator(db: Any, creator_id: UUID, account_id: UUID, fields: dict[str, Any]) -> bool:
    """False if the account is a creator already."""
    made = await db.fetchval(
        "INSERT INTO creators.creator (id, account_id, display_name, creator_type, bio, avatar_url, cover_url,"
        " category) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (account_id) DO NOTHING RETURNING true",
        creator_id, account_id, fields["display_name"], fields["creator_type"], fields["bio"], fields["avatar_url"],
        fields["cover_url"], fields["category"],
    )  # fmt: skip
    if made:
        await db.execute("INSERT INTO creators.tally (creator_id) VALUES ($1)", creator_id)
    return bool(made)


async def creator(db: Any, creator_id: UUID) -> Any:
    return await db.fetchrow(_CREATOR + "WHERE c.id = $1", creator_id)


async def creator_of_account(db: Any, account_id: UUID) -> Any:
    return await db.fetchrow(_CREATOR + "WHERE c.account_id = $1", account_id)


async def lock_creator(db: Any, creator_id: UUID) -> Any:
    """The creator, for a change of it or of what it owns."""
    await db.execute("SELECT 1 FROM creators.creator WHERE id = $1 FOR UPDATE", creator_id)
    return await creator(db, creator_id)


async def update_creator(db: Any, creator_id: UUID, fields: dict[str, Any]) -> None:
    sets = "".join(f"{column} = ${position}, " for position, column in enumerate(fields, 2))
    await db.execute(
        f"UPDATE creators.creator SET {sets}version = version + 1, updated_at = now() WHERE id = $1",
        creator_id, *fields.values(),
    )  # fmt: skip


async def creators(
    db: Any,
    sort: str,
    category: str | None,
    type_: str | None,
    verified: bool | None,
    after: tuple[Any, ...] | None,
    limit: int,
) -> list[Any]:
    """Each with its `key` in the sort's order, as PostgreSQL has it; `after` is that of the cursor, with its id.

    As lists of works: what seldom fits is not looked for in an order to its end.
    """
    source, id_, key, way = ORDERS[sort]
    arguments = list(after or ())
    places = ", ".join(f"${number}" for number in range(1, len(arguments) + 1))
    beyond = f"({', '.join(key)}) {'<' if way == 'DESC' else '>'} ({places})" if after else "true"
    facets = [] if category is None else [f"category {category}"]
    facets += [] if type_ is None else [f"type {type_}"]
    facets += [] if verified is None else ["verified" if verified else "unverified"]
    fits = "true"
    if facets:
        arguments.append(facets)
        fits = f"{FACETS} @> ${len(arguments)}::text[]"
    order = ", ".join(f"{part} {way}" for part in key)
    steps_max = limit if fits == "true" else limit * STEPS
    steps, count = f"${len(arguments) + 1}::bigint", f"${len(arguments) + 2}"
    rows: list[Any] = await db.fetch(
        f"""
        WITH walked AS (
            SELECT {id_} AS id, {key[0]} AS key, row_number() OVER (ORDER BY {order}) AS place FROM {source}
            WHERE {beyond} ORDER BY {order} LIMIT {steps}),
        page AS (
            SELECT w.id, w.key, w.place, c.fits FROM walked w CROSS JOIN LATERAL (
                SELECT {fits} AS fits FROM creators.creator c WHERE c.id = w.id LIMIT 1) c
            WHERE c.fits OR w.place = {steps} ORDER BY w.place LIMIT {count})
        SELECT x.*, p.key, p.place, p.fits FROM page p CROSS JOIN LATERAL ({_CREATOR} WHERE c.id = p.id LIMIT 1) x
        ORDER BY p.place
        """,
        *arguments, steps_max, limit,
    )  # fmt: skip
    found = [row for row in rows if row["fits"]]
    if len(found) == limit or not rows or rows[-1]["place"] < steps_max:
        return found
    looked_up: list[Any] = await db.fetch(
        f"""
        WITH hit AS MATERIALIZED (SELECT c.id, c.display_name FROM creators.creator c WHERE {fits}),
        page AS (
            SELECT c.id, {key[0]} AS key, row_number() OVER (ORDER BY {order}) AS place FROM hit c CROSS JOIN LATERAL (
                SELECT * FROM creators.tally t WHERE t.creator_id = c.id LIMIT 1) t
            WHERE {beyond} ORDER BY {order} LIMIT ${len(arguments) + 1})
        SELECT x.*, p.key FROM page p CROSS JOIN LATERAL ({_CREATOR} WHERE c.id = p.id LIMIT 1) x ORDER BY p.place
        """,
        *arguments, limit,
    )  # fmt: skip
    return looked_up


async def search(
    db: Any,
    text: str,
    category: str | None,
    type_: str | None,
    verified: bool | None,
    after: tuple[Any, ...],
    limit: int,
) -> list[Any]:
    """By rank, in millionths; ties by id. Of more than CANDIDATES_MAX matches the most followed are ranked.

    Works have other ways (`works/finding.py`): a walk along the one index that has their order, and what it did not
    reach is looked up, or left out. Creators are in the order of what is counted of them beside (`tally`), so no index
    has their words and that; and of a tenth as many all that match are found, and the most followed taken. A list of
    them may walk either table. What both share is that a query's last word is taken for a beginning.
    """
    rows: list[Any] = await db.fetch(
        SEARCH_QUERY
        + f""",
        found AS (
            SELECT c.id, c.search, q.words
            FROM creators.tally t JOIN creators.creator c ON c.id = t.creator_id, query q
            WHERE c.search @@ q.words AND ($2::text IS NULL OR c.category = $2)
              AND ($3::text IS NULL OR c.creator_type = $3)
              AND ($4::boolean IS NULL OR (c.verification_status = 'verified') = $4)
            ORDER BY t.follower_count DESC, t.creator_id DESC LIMIT {CANDIDATES_MAX}
        ),
        ranked AS (SELECT id, (ts_rank_cd(search, words, 1) * 1000000)::bigint AS rank FROM found)
        SELECT x.*, r.rank FROM ranked r JOIN LATERAL ({_CREATOR} WHERE c.id = r.id) x ON true
        WHERE $5::bigint IS NULL OR (r.rank, r.id) < ($5, $6::uuid)
        ORDER BY r.rank DESC, r.id DESC LIMIT $7
        """,
        text, category, type_, verified, *after, limit,
    )  # fmt: skip
    return rows


async def sections(db: Any, creator_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT section, items, version FROM creators.profile_section WHERE creator_id = $1", creator_id
    )
    return rows


async def section_version(db: Any, creator_id: UUID, section: str) -> int:
    """0 for one that was never written."""
    query = "SELECT version FROM creators.profile_section WHERE creator_id = $1 AND section = $2"
    return await db.fetchval(query, creator_id, section) or 0


async def put_section(db: Any, creator_id: UUID, section: str, items: str) -> Any:
    return await db.fetchrow(
        "INSERT INTO creators.profile_section AS p (creator_id, section, items) VALUES ($1, $2, $3)"
        " ON CONFLICT (creator_id, section) DO UPDATE SET items = EXCLUDED.items, version = p.version + 1,"
        " updated_at = now() RETURNING version, updated_at",
        creator_id, section, items,
    )  # fmt: skip


async def published_of(db: Any, creator_id: UUID, work_ids: list[UUID]) -> set[UUID]:
    """Which of these are works that the creator published."""
    rows = await db.fetch(
        "SELECT DISTINCT subject_id FROM creators.activity WHERE subject_id = ANY($2) AND creator_id = $1"
        " AND type = 'work.published'",
        creator_id, work_ids,
    )  # fmt: skip
    return {row["subject_id"] for row in rows}


async def insert_case(
    db: Any, case_id: UUID, creator_id: UUID, statement: str, file_ids: list[UUID], portfolio_ids: list[UUID]
) -> Any:
    return await db.fetchrow(
        "INSERT INTO creators.verification_case (id, creator_id, statement, file_ids, portfolio_ids, status)"
        " VALUES ($1, $2, $3, $4, $5, 'pending') RETURNING *",
        case_id, creator_id, statement, file_ids, portfolio_ids,
    )  # fmt: skip


async def open_case(db: Any, creator_id: UUID) -> Any:
    """The case that waits for a decision, locked."""
    query = "SELECT * FROM creators.verification_case WHERE creator_id = $1 AND status = 'pending' FOR UPDATE"
    return await db.fetchrow(query, creator_id)


async def last_case(db: Any, creator_id: UUID) -> Any:
    query = "SELECT * FROM creators.verification_case WHERE creator_id = $1 ORDER BY id DESC LIMIT 1"
    return await db.fetchrow(query, creator_id)


async def decide_case(db: Any, case_id: UUID, status: str, decided_by: UUID | None, reason: str) -> Any:
    return await db.fetchrow(
        "UPDATE creators.verification_case SET status = $2, decided_by = $3, reason = $4, decided_at = now()"
        " WHERE id = $1 RETURNING *",
        case_id, status, decided_by, reason,
    )  # fmt: skip


async def pending_cases(db: Any, after: UUID | None, limit: int) -> list[Any]:
    """The longest waiting first."""
    rows: list[Any] = await db.fetch(
        "SELECT v.*, c.display_name FROM creators.verification_case v"
        " JOIN creators.creator c ON c.id = v.creator_id"
        " WHERE v.status = 'pending' AND ($1::uuid IS NULL OR v.id > $1) ORDER BY v.id LIMIT $2",
        after, limit,
    )  # fmt: skip
    return rows


async def insert_follow(db: Any, creator_id: UUID, account_id: UUID) -> bool | None:
    """None: followed already. Else whether it is for the first time."""
    first: bool | None = await db.fetchval(
        "INSERT INTO creators.follow AS f (creator_id, account_id) VALUES ($1, $2)"
        " ON CONFLICT (creator_id, account_id) DO UPDATE SET ended_at = NULL, followed_at = now()"
        " WHERE f.ended_at IS NOT NULL RETURNING xmax = 0",
        creator_id, account_id,
    )  # fmt: skip
    return first


async def end_follow(db: Any, creator_id: UUID, account_id: UUID) -> bool:
    tag = await db.execute(
        "UPDATE creators.follow SET ended_at = now() WHERE creator_id = $1 AND account_id = $2 AND ended_at IS NULL",
        creator_id, account_id,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def following_count(db: Any, account_id: UUID) -> int:
    query = "SELECT count(*) FROM creators.follow WHERE account_id = $1 AND ended_at IS NULL"
    return int(await db.fetchval(query, account_id))


async def following(db: Any, account_id: UUID, after: tuple[Any, Any], limit: int) -> list[Any]:
    """The latest followed first."""
    rows: list[Any] = await db.fetch(
        "SELECT x.*, f.followed_at FROM creators.follow f"
        f" JOIN LATERAL ({_CREATOR} WHERE c.id = f.creator_id) x ON true"
        " WHERE f.account_id = $1 AND f.ended_at IS NULL"
        " AND ($2::timestamptz IS NULL OR (f.followed_at, f.creator_id) < ($2, $3::uuid))"
        " ORDER BY f.followed_at DESC, f.creator_id DESC LIMIT $4",
        account_id, *after, limit,
    )  # fmt: skip
    return rows


_NAME = "(SELECT c.display_name FROM creators.creator c WHERE c.id = a.creator_id)"
"""Of those on the page, one by one. To join them, a plan that does not know how few they are reads all creators."""


async def feed_of(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    """Of the creators that the account follows, the latest first. Cost: follows × limit index entries."""
    rows: list[Any] = await db.fetch(
        f"SELECT a.*, {_NAME} AS display_name FROM creators.follow f"
        " CROSS JOIN LATERAL (SELECT * FROM creators.activity a WHERE a.creator_id = f.creator_id"
        "  AND ($2::uuid IS NULL OR a.id < $2) ORDER BY a.id DESC LIMIT $3) a"
        " WHERE f.account_id = $1 AND f.ended_at IS NULL ORDER BY a.id DESC LIMIT $3",
        account_id, before, limit,
    )  # fmt: skip
    return rows


async def feed_of_trending(db: Any, creators_max: int, before: UUID | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        f"SELECT a.*, {_NAME} AS display_name FROM"
        " (SELECT creator_id FROM creators.tally ORDER BY trend DESC, creator_id DESC LIMIT $1) t"
        " CROSS JOIN LATERAL (SELECT * FROM creators.activity a WHERE a.creator_id = t.creator_id"
        "  AND ($2::uuid IS NULL OR a.id < $2) ORDER BY a.id DESC LIMIT $3) a"
        " ORDER BY a.id DESC LIMIT $3",
        creators_max, before, limit,
    )  # fmt: skip
    return rows


async def days(db: Any, creator_id: UUID, since: date, until: date) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM creators.daily WHERE creator_id = $1 AND day BETWEEN $2 AND $3 ORDER BY day",
        creator_id, since, until,
    )  # fmt: skip
    return rows


async def count(
    db: Any, creator_id: UUID, day: date, *, followers: int = 0, works: int = 0, chapters: int = 0,
) -> None:  # fmt: skip
    """Adds to the day and to the totals; a follower that left and a work that is gone count −1."""
    await db.execute(
        "INSERT INTO creators.daily AS d (creator_id, day, followers_gained, followers_lost, works_published,"
        " chapters_published) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (creator_id, day) DO UPDATE SET"
        " followers_gained = d.followers_gained + $3, followers_lost = d.followers_lost + $4,"
        " works_published = d.works_published + $5, chapters_published = d.chapters_published + $6",
        creator_id, day, max(followers, 0), max(-followers, 0), max(works, 0), chapters,
    )  # fmt: skip
    await db.execute(
        "UPDATE creators.tally SET follower_count = follower_count + $2, work_count = work_count + $3"
        " WHERE creator_id = $1",
        creator_id, followers, works,
    )  # fmt: skip


async def count_sale(
    db: Any, creator_id: UUID, day: date, asset: str, scale: int, units: int, *, sold: int, gone: int
) -> None:
    """Adds units that may be negative, and to the day what was `sold`; `gone` comes off the total alone."""
    await db.execute(
        "INSERT INTO creators.revenue AS r (creator_id, asset, scale, units) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (creator_id, asset) DO UPDATE SET units = r.units + excluded.units",
        creator_id, asset, scale, units,
    )  # fmt: skip
    await db.execute(
        "INSERT INTO creators.daily AS d (creator_id, day, sales) VALUES ($1, $2, $3)"
        " ON CONFLICT (creator_id, day) DO UPDATE SET sales = d.sales + excluded.sales",
        creator_id, day, sold,
    )  # fmt: skip
    await db.execute(
        "UPDATE creators.tally SET sale_count = sale_count + $2 WHERE creator_id = $1", creator_id, sold - gone
    )


async def revenue(db: Any, creator_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch("SELECT * FROM creators.revenue WHERE creator_id = $1 ORDER BY asset", creator_id)
    return rows


async def lock_trend(db: Any, creator_id: UUID) -> int:
    query = "SELECT trend FROM creators.tally WHERE creator_id = $1 FOR UPDATE"
    return int(await db.fetchval(query, creator_id))


async def set_token(db: Any, creator_id: UUID, token_id: UUID) -> None:
    await db.execute("UPDATE creators.tally SET token_id = $2 WHERE creator_id = $1", creator_id, token_id)


async def set_trend(db: Any, creator_id: UUID, trend: int) -> None:
    await db.execute("UPDATE creators.tally SET trend = $2 WHERE creator_id = $1", creator_id, trend)


async def insert_activity(
    db: Any, event_id: UUID, creator_id: UUID, type_: str, subject: tuple[str, UUID], title: str, at: datetime
) -> None:
    await db.execute(
        "INSERT INTO creators.activity (id, creator_id, type, subject_type, subject_id, title, occurred_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        event_id, creator_id, type_, *subject, title, at,
    )  # fmt: skip
