"""SQL of the schema `works`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from platform_api.database import insertion
from platform_api.search import as_beginning

_WORK = """
    w.id, w.creator_id, w.account_id, w.kind, w.title, w.description, w.category, w.genres, w.tags, w.language,
    w.metadata, w.status, w.verification_status, w.content_version, w.shown_version, w.sold, w.published_at,
    w.created_at, w.updated_at, w.version, coalesce(n.purchase_count, 0) AS purchase_count,
    coalesce(n.view_count, 0) AS view_count, coalesce(n.rating_sum, 0) AS rating_sum,
    coalesce(n.rating_count, 0) AS rating_count
"""
_WORKS = "works.work w LEFT JOIN works.tally n ON n.work_id = w.id"
"""What is counted of a work lies beside it, in a row from the first count on."""
CASTS = {"search_words": "::text::regconfig"}
FILTERS: Mapping[str, str] = {
    "kind": "w.kind = {}",
    "category": "w.category = {}",
    "language": "w.language = {}",
    "genre": "w.genres @> ARRAY[{}::text]",
    "tag": "w.tags @> ARRAY[{}::text]",
    "creator_id": "w.creator_id = {}",
    "price": "(SELECT count(*) FROM works.offer o WHERE o.work_id = w.id AND o.active AND o.asset = {}"
    " AND o.price_units BETWEEN {} AND {}) > 0",
}
"""A filter that was asked for → its condition on one work, when it is met. Only those become part of a statement, so
each has its own plan. Offers are counted since of `EXISTS` the planner would make a table of all offers first."""
FACETS = (
    "ARRAY['kind ' || w.kind, 'category ' || w.category, 'language ' || w.language, 'creator ' || w.creator_id::text]"
)
"""Just what the index `work_found` has beside words, genres and tags."""
LOOKED_UP: Mapping[str, str] = {
    "kind": FACETS + " @> (SELECT ARRAY['kind ' || {}])",
    "category": FACETS + " @> (SELECT ARRAY['category ' || {}])",
    "language": FACETS + " @> (SELECT ARRAY['language ' || {}])",
    "genre": "w.genres @> (SELECT ARRAY[{}::text])",
    "tag": "w.tags @> (SELECT ARRAY[{}::text])",
    "creator_id": FACETS + " @> (SELECT ARRAY['creator ' || {}::uuid::text])",
}
"""The same conditions as only the index of what is asked for answers them, never one of an order. The value is a
subquery, so that the planner does not know it: where it believes that many have it, it would read the table, and where
in it those are nobody knows."""
MATCHES_MAX = 1_000
"""How many works the index of words and filters is asked for at once. It knows no order, so of more than these nobody
can tell the newest without all of them: those are walked to, in their order."""
WALK_MAX = 2_000
"""How many works are looked at in their order where the index has more than `MATCHES_MAX`, however few of them fit."""
SECONDS_MAX = 2.0
"""A list or a search that takes longer is ended: a tenth is much, and others wait for its connection."""
OFFERED = "works.offer o WHERE o.active AND o.asset = {} AND o.price_units BETWEEN {} AND {}"
OFFERED_MAX = 5_000
"""Of so few offers at a price the works are looked up; else what the other filters find is asked for its price."""
STEPS = 25
"""How far an index is read in the order of a list, for each row asked for. What more than four in a hundred works have
is found so; what is rarer is looked up by what it has, and sorted."""


@dataclass(frozen=True, slots=True)
class _Order:
    """Works by a key and their id, both of them up or both down."""

    key: str
    type: str
    way: str

    @property
    def by(self) -> str:
        return f"{self.key} {self.way}, w.id {self.way}"

    @property
    def beyond(self) -> str:
        """With a place for each part of the cursor."""
        return f"({self.key}, w.id) {'<' if self.way == 'DESC' else '>'} ({{}}::{self.type}, {{}}::uuid)"


ORDERS = {
    "newest": _Order("w.published_at", "timestamptz", "DESC"),
    "oldest": _Order("w.published_at", "timestamptz", "ASC"),
    "title": _Order("lower(w.title)", "text", "ASC"),
}
SEARCH_WORDS = {
    "ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish", "fi": "finnish",
    "fr": "french", "hu": "hungarian", "id": "indonesian", "it": "italian", "nl": "dutch", "no": "norwegian",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sv": "swedish", "tr": "turkish",
}  # fmt: skip
"""Language → text search configuration; `simple` for every other."""
CANDIDATES_MAX = 200
"""How many matches of a search are ranked, the newest: bounds its cost for words that everybody uses. A work whose
title is just what was typed is found however old it is, and comes first."""
PROBE, COMMON = 500, 25
"""Where `COMMON` of the newest `PROBE` works fit, the candidates are found by going on in that order, as far as
`WALK_MAX`; else, or if those are too few, by the index of words and filters. Of what fits seldom among the newest, and
often among the others, the index has too many: they are walked to as well, and if `WALK_MAX` works have too few of
them, the rest are some of those that the index gave, not the newest. So a search looks at 3,500 works at most."""
EXACT_RANK = 10**12
_SEARCH = (
    "WITH given AS ("
    " SELECT websearch_to_tsquery('simple', {{0}}) AS plain, websearch_to_tsquery('{words}', {{0}}) AS s),"
    " asked AS (SELECT"
    " CASE WHEN numnode(plain) = 0 THEN s"
    f" WHEN s = plain THEN {as_beginning('plain')} ELSE ({as_beginning('plain')}) || s END AS words FROM given),"
    " query AS MATERIALIZED (SELECT CASE WHEN querytree(words) = 'T' THEN ''::tsquery ELSE words END AS words"
    " FROM asked),"
    " indexed AS MATERIALIZED (SELECT CASE WHEN words::text ~ '<' THEN"
    " regexp_replace(querytree(words), '<(-|[0-9]+)>', '&', 'g')::tsquery ELSE words END AS words FROM query)"
)
"""Worked out once for a statement, not for each row. What words that are left out would answer alone finds nothing: no
index tells where a word is not. `indexed` is what the index answers by itself: of a phrase it knows the words, not that
they follow each other, and would have every work with all of them looked at."""
_MATCHES = "w.search @@ (SELECT words FROM query) AND lower(w.title) <> lower($1)"


class _Arguments(list[Any]):
    """Values with their placeholders."""

    def put(self, template: str, *values: Any) -> str:
        names = []
        for value in values:
            self.append(value)
            names.append(f"${len(self)}")
        return template.format(*names)


def _conditions(arguments: _Arguments, filters: Mapping[str, Any], conditions: Mapping[str, str] = FILTERS) -> str:
    parts = ["w.status = 'published'"]
    for name, value in filters.items():
        parts.append(arguments.put(conditions[name], *(value if name == "price" else (value,))))
    return " AND ".join(parts)


def search_words(language: str) -> str:
    return SEARCH_WORDS.get(language.partition("-")[0], "simple")


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


async def work(db: Any, work_id: UUID) -> Any:
    """None for one that is deleted."""
    return await db.fetchrow(f"SELECT {_WORK} FROM {_WORKS} WHERE w.id = $1 AND w.status <> 'deleted'", work_id)


async def lock_work(db: Any, work_id: UUID) -> Any:
    """Changes of a work, and of all that belongs to it, come one after the other."""
    query = f"SELECT {_WORK} FROM {_WORKS} WHERE w.id = $1 AND w.status <> 'deleted' FOR UPDATE OF w"
    return await db.fetchrow(query, work_id)


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


async def browse(
    db: Any, sort: str, filters: Mapping[str, Any], after: tuple[Any, ...] | None, limit: int
) -> tuple[list[Any], Any]:
    """The next works in this order, each with its `key` in it; and the one to go on behind if more may fit though these
    are fewer than `limit`.

    Several ways, since the planner takes filters to be independent: of those that fit nothing together it expects some,
    and would read an index of all works to its end for them. None of them has more than a bound to look at.
    """
    found, last = await _walk(db, sort, filters, after, limit, limit * STEPS)
    if last is None:
        return found, None
    rows = await _look_up(db, sort, filters, after, limit)
    return (rows, None) if rows is not None else await _walk(db, sort, filters, after, limit, WALK_MAX)


async def _walk(
    db: Any, sort: str, filters: Mapping[str, Any], after: tuple[Any, ...] | None, limit: int, steps_max: int
) -> tuple[list[Any], Any]:
    """What fits among the next `steps_max` works in this order; and the last of so many, if neither the page nor the
    order ends before it."""
    arguments, order = _Arguments(), ORDERS[sort]
    first = {name: value for name, value in filters.items() if name == "creator_id" and sort != "title"}
    where = _conditions(arguments, first)  # their index has the order of time, and nobody has many of all works
    if after is not None:
        where += " AND " + arguments.put(order.beyond, *after)
    fits = _conditions(arguments, {name: value for name, value in filters.items() if name not in first})
    steps = arguments.put("{}::bigint", steps_max)
    rows: list[Any] = await db.fetch(
        f"""
        WITH walked AS (
            SELECT w.id, {order.key} AS key, row_number() OVER (ORDER BY {order.by}) AS place, {fits} AS fits
            FROM works.work w WHERE {where} ORDER BY {order.by} LIMIT {steps}),
        page AS (
            SELECT w.* FROM walked w WHERE w.fits OR w.place = {steps}
            ORDER BY w.key {order.way}, w.id {order.way} LIMIT {arguments.put("{}", limit)})
        SELECT {_WORK}, {order.key} AS key, p.place, p.fits FROM {_WORKS} JOIN page p ON p.id = w.id ORDER BY p.place
        """,
        *arguments, timeout=SECONDS_MAX,
    )  # fmt: skip
    found = [row for row in rows if row["fits"]]
    ended = len(found) == limit or not rows or rows[-1]["place"] < steps_max
    return found, None if ended else rows[-1]


async def _look_up(
    db: Any, sort: str, filters: Mapping[str, Any], after: tuple[Any, ...] | None, limit: int
) -> list[Any] | None:
    """The same by what the works have. None if too many may have it."""
    arguments, order = _Arguments(), ORDERS[sort]
    others = {name: value for name, value in filters.items() if name != "price"}
    hits = f"SELECT w.id, w.title, w.published_at FROM works.work w WHERE {_conditions(arguments, others, LOOKED_UP)}"
    offered, at_it, priced = "", "false", "true"
    if "price" in filters:
        places = arguments.put(OFFERED, *filters["price"])
        offered = f"offered AS MATERIALIZED (SELECT o.work_id FROM {places} LIMIT {OFFERED_MAX + 1}),"
        at_it = f"(SELECT count(*) FROM offered) <= {OFFERED_MAX}"
        priced = f"({at_it} OR {arguments.put(FILTERS['price'], *filters['price'])})"
        hits = f"""
            SELECT w.id, w.title, w.published_at FROM (SELECT DISTINCT work_id FROM offered) o
            CROSS JOIN LATERAL (SELECT * FROM works.work w WHERE w.id = o.work_id LIMIT 1) w
            WHERE {at_it} AND {_conditions(arguments, others)}
            UNION ALL
            {hits} AND NOT {at_it}
        """
    beyond = "true" if after is None else arguments.put(order.beyond, *after)
    # A CTE is planned as if it were read to its end, and read as far as is asked for.
    rows: list[Any] = await db.fetch(
        f"""
        WITH {offered} hit AS MATERIALIZED ({hits}),
        few AS MATERIALIZED (SELECT * FROM hit LIMIT {MATCHES_MAX + 1}),
        page AS (
            SELECT w.id FROM few w WHERE (SELECT count(*) FROM few) <= {MATCHES_MAX} AND {beyond} AND {priced}
            ORDER BY {order.by} LIMIT {arguments.put("{}", limit)})
        SELECT {_WORK}, {order.key} AS key, f.many FROM (SELECT count(*) > {MATCHES_MAX} AS many FROM few) f
        LEFT JOIN page p ON true LEFT JOIN ({_WORKS}) ON w.id = p.id ORDER BY {order.by}
        """,
        *arguments, timeout=SECONDS_MAX,
    )  # fmt: skip
    return None if rows[0]["many"] else [row for row in rows if row["id"] is not None]


async def own(db: Any, account_id: UUID, status: str, before: UUID | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        f"SELECT {_WORK} FROM {_WORKS} WHERE w.account_id = $1 AND w.status = $2"
        " AND ($3::uuid IS NULL OR w.id < $3) ORDER BY w.id DESC LIMIT $4",
        account_id, status, before, limit,
    )  # fmt: skip
    return rows


async def search(
    db: Any, text: str, words: str, filters: Mapping[str, Any], after: tuple[int, UUID] | None, limit: int
) -> list[Any]:
    """Titles that are just that, then by rank, in millionths; ties by id. `words` is the text search configuration of
    the language asked in, one of those that we know.

    None of its ways is left to what the planner takes words and filters to be: it believes that they are independent,
    and a plan that it keeps knows none of them.
    """
    assert words == "simple" or words in SEARCH_WORDS.values(), words
    arguments = _Arguments()
    query = arguments.put(_SEARCH.format(words=words), text.strip())
    where = _conditions(arguments, filters)
    looked_up = _conditions(arguments, filters, LOOKED_UP)
    beyond = "true" if after is None else arguments.put("(r.rank, r.id) < ({}::bigint, {}::uuid)", *after)
    end = arguments.put("ORDER BY r.rank DESC, r.id DESC LIMIT {}", limit)
    newest = "ORDER BY w.published_at DESC, w.id DESC LIMIT"
    walk = f"(SELECT w.* FROM works.work w WHERE w.status = 'published' {newest} {{}}) w WHERE {where} AND {_MATCHES}"
    to_it = f"SELECT w.id, w.search, w.published_at FROM {walk} {newest} {CANDIDATES_MAX}"
    far = f"(SELECT CASE WHEN {{}} THEN {WALK_MAX} ELSE 0 END FROM probe)"
    many = f"NOT common AND (SELECT count(*) FROM few) > {MATCHES_MAX}"
    # A CTE is planned as if it were read to its end, and read as far as is asked for.
    rows: list[Any] = await db.fetch(
        f"""{query},
        probe AS (SELECT count(*) >= {COMMON} AS common FROM {walk.format(PROBE)}),
        common AS MATERIALIZED ({to_it.format(far.format("common"))}),
        hit AS MATERIALIZED (
            SELECT w.id, w.search, w.title, w.published_at FROM works.work w
            WHERE (SELECT count(*) FROM common) < {CANDIDATES_MAX} AND {looked_up}
            AND w.search @@ (SELECT words FROM indexed)
        ),
        few AS MATERIALIZED (SELECT * FROM hit LIMIT {MATCHES_MAX + 1}),
        walked AS MATERIALIZED (SELECT * FROM common UNION ALL ({to_it.format(far.format(many))})),
        found AS (
            SELECT id, search FROM (
                SELECT id, search, published_at FROM walked
                UNION ALL
                SELECT id, search, published_at FROM few w
                WHERE (SELECT count(*) FROM walked) < {CANDIDATES_MAX} AND {_MATCHES}
                AND id NOT IN (SELECT id FROM walked)) w
            {newest} {CANDIDATES_MAX}
        ),
        exact AS (
            SELECT w.id FROM (
                SELECT w.* FROM works.work w WHERE lower(w.title) = lower($1) AND w.status = 'published'
                ORDER BY w.id DESC LIMIT {WALK_MAX}) w
            WHERE {where} ORDER BY w.id DESC LIMIT {CANDIDATES_MAX}
        ),
        ranked AS (
            SELECT id, {EXACT_RANK}::bigint AS rank FROM exact
            UNION ALL SELECT id, (ts_rank_cd(search, (SELECT words FROM query), 1) * 1000000)::bigint FROM found
        ),
        best AS (SELECT r.id, r.rank FROM ranked r WHERE {beyond} {end})
        SELECT {_WORK}, r.rank FROM best r JOIN works.work w ON w.id = r.id
        LEFT JOIN works.tally n ON n.work_id = w.id ORDER BY r.rank DESC, r.id DESC
        """,
        *arguments, timeout=SECONDS_MAX,
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
    """Whether the work has a master, or a chapter in sight; or had one at some time `since` then, which a right of that
    time still opens."""
    found: bool = await db.fetchval(
        """
        SELECT EXISTS (SELECT FROM works.asset
            WHERE work_id = $1 AND role = 'master' AND (removed_at IS NULL OR removed_at > $2))
          OR EXISTS (SELECT FROM works.chapter
            WHERE work_id = $1 AND number > 0 AND (status = 'published' OR unpublished_at > $2))
        """,
        work_id, since,
    )  # fmt: skip
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
    """The version that counted then, and the last one, which may be the same."""
    rows: list[Any] = await db.fetch(
        """
        SELECT * FROM works.chapter_version v WHERE v.chapter_id = $1 AND v.number <= $3 AND (
            v.number = $3
            OR v.number = (SELECT max(number) FROM works.chapter_version WHERE chapter_id = $1 AND created_at <= $2))
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


async def offer(db: Any, offer_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM works.offer WHERE id = $1", offer_id)


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
