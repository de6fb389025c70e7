"""Lists and searches of published works: SQL of the schema `works` that has a bound on what it looks at.

Two ways to what is asked for. A *walk* looks at works in the order of an index and keeps what fits: right for what many
have. The index of words and filters is *asked* for what few have: it knows no order, and names each match before the
first can be read, so it is asked only where a walk did not find enough. What lies beyond both bounds a list leaves to
its next page; a search, which goes by rank, leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from platform_api.search import as_beginning
from platform_api.works.queries import COLUMNS, WORKS

__all__ = ["browse", "search", "search_words"]

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
STRETCHES = {"creator_id": "uuid", "category": "text", "kind": "text", "language": "text"}
"""Filters on a column, of this type, that begins an index which goes on by time and id: what has one value is a stretch
of it, in order. The first of them that is asked for is walked along."""
WALK_MAX = 2_000
"""How many works are looked at in their order, however few of them fit. A microsecond each."""
MATCHES_MAX = 1_000
"""Where a walk did not find enough, how many works the index of words and filters is asked for. It knows no order, so
of more than these nobody can tell the next without all of them."""
SECONDS_MAX = 2.0
"""A list or a search that takes longer is ended: a tenth is much, and others wait for its connection."""
OFFERED = "works.offer o WHERE o.active AND o.asset = {} AND o.price_units BETWEEN {} AND {}"
OFFERED_MAX = 1_000
"""Of so few offers at a price the works are looked up; else what the other filters find is asked for its price."""


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
COMMON = 50
"""Where a search's walk found so many, they are ranked: of what so many of the newest have, the index has more than
could be looked at. Where it found fewer, those that the index gave are ranked beside them: if it has more than
`MATCHES_MAX`, not the newest of them, and others once a work has changed: what enters above a cursor, which is a rank,
is on no page behind it."""
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


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Works as one index has them: the condition of being there, behind the cursor; what it is in the order of, and
    which way; and the filter that all of them meet."""

    where: str
    keys: tuple[str, ...]
    way: str
    met: str | None = None

    @property
    def by(self) -> str:
        return ", ".join(f"{key} {self.way}" for key in self.keys)

    @property
    def named(self) -> str:
        """What it is in the order of, named for who reads it from a subquery."""
        return ", ".join(f"{key} AS key_{number}" for number, key in enumerate(self.keys))

    @property
    def by_names(self) -> str:
        return ", ".join(f"key_{number} {self.way}" for number in range(len(self.keys)))


def _stretch(
    arguments: _Arguments, order: _Order, filters: Mapping[str, Any], after: tuple[Any, ...] | None
) -> _Stretch:
    """Along the index of a filter if there is one in this order, else along that of all works.

    The planner is not told that a column has one value, nor which: then no index has the order but the one that begins
    with the column. Else it takes that of all works for what it believes common, and reads it past those that came
    last.
    """
    keys = (order.key, "w.id")
    met = next((name for name in STRETCHES if name in filters), None) if order.type == "timestamptz" else None
    if met is None:
        where = "true" if after is None else arguments.put(order.beyond, *after)
        return _Stretch(f"w.status = 'published' AND {where}", keys, order.way)
    column, value = f"w.{met}", arguments.put(f"(SELECT {{}}::{STRETCHES[met]})", filters[met])
    within, beyond = (">=", "<") if order.way == "DESC" else ("<=", ">")
    if after is None:
        where = f"{column} BETWEEN {value} AND {value}"
    else:
        cursor = arguments.put("{}, {}", *after)
        where = f"{column} {within} {value} AND ({column}, {order.key}, w.id) {beyond} ({value}, {cursor})"
    return _Stretch(f"w.status = 'published' AND {where}", (column, *keys), order.way, met)


def search_words(language: str) -> str:
    return SEARCH_WORDS.get(language.partition("-")[0], "simple")


async def browse(
    db: Any, sort: str, filters: Mapping[str, Any], after: tuple[Any, ...] | None, limit: int
) -> tuple[list[Any], Any]:
    """The next works in this order, each with its `key` in it; and the one to go on behind if more may fit though these
    are fewer than `limit`.

    In two ways, since the planner takes filters to be independent: of those that fit nothing together it expects some,
    and would read an index of all works to its end for them. Neither has more than a bound to look at. To walk comes
    first: whoever asks the index for what is common pays for all that have it.
    """
    found, last = await _walk(db, sort, filters, after, limit)
    if last is None:
        return found, None
    rows = await _look_up(db, sort, filters, after, limit)
    return (found, last) if rows is None else (rows, None)


async def _walk(
    db: Any, sort: str, filters: Mapping[str, Any], after: tuple[Any, ...] | None, limit: int
) -> tuple[list[Any], Any]:
    """What fits among the next `WALK_MAX` works in this order; and the last of so many, if neither the page nor the
    order ends before it."""
    arguments, order = _Arguments(), ORDERS[sort]
    stretch = _stretch(arguments, order, filters, after)
    fits = _conditions(arguments, {name: value for name, value in filters.items() if name != stretch.met})
    steps = arguments.put("(SELECT {}::bigint)", WALK_MAX)
    rows: list[Any] = await db.fetch(
        f"""
        WITH walked AS (
            SELECT w.id, {stretch.named}, row_number() OVER (ORDER BY {stretch.by}) AS place, {fits} AS fits
            FROM works.work w WHERE {stretch.where} ORDER BY {stretch.by} LIMIT {steps}),
        page AS (
            SELECT * FROM walked WHERE fits OR place = {steps}
            ORDER BY {stretch.by_names} LIMIT {arguments.put("{}", limit)})
        SELECT {COLUMNS}, {order.key} AS key, p.place, p.fits FROM {WORKS} JOIN page p ON p.id = w.id ORDER BY p.place
        """,
        *arguments, timeout=SECONDS_MAX,
    )  # fmt: skip
    found = [row for row in rows if row["fits"]]
    ended = len(found) == limit or not rows or rows[-1]["place"] < WALK_MAX
    return found, None if ended else rows[-1]


async def _look_up(
    db: Any, sort: str, filters: Mapping[str, Any], after: tuple[Any, ...] | None, limit: int
) -> list[Any] | None:
    """The same by what the works have. None if too many may have it."""
    arguments, order = _Arguments(), ORDERS[sort]
    others = {name: value for name, value in filters.items() if name != "price"}
    if len(others) == 1 and others.keys() <= STRETCHES.keys():  # its own index gives so many at once
        stretch = _stretch(arguments, ORDERS["newest"], others, None)
        place = f"{stretch.where} ORDER BY {stretch.by} LIMIT (SELECT {MATCHES_MAX + 1})"
    else:
        place = _conditions(arguments, others, LOOKED_UP)
    hits = f"SELECT w.id, w.title, w.published_at FROM works.work w WHERE {place}"
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
            SELECT * FROM ({hits}) w WHERE NOT {at_it}
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
        SELECT {COLUMNS}, {order.key} AS key, f.many FROM (SELECT count(*) > {MATCHES_MAX} AS many FROM few) f
        LEFT JOIN page p ON true LEFT JOIN ({WORKS}) ON w.id = p.id ORDER BY {order.by}
        """,
        *arguments, timeout=SECONDS_MAX,
    )  # fmt: skip
    return None if rows[0]["many"] else [row for row in rows if row["id"] is not None]


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
    stretch = _stretch(arguments, ORDERS["newest"], filters, None)
    where = _conditions(arguments, filters)
    looked_up = (
        "SELECT w.id, w.search, w.title, w.published_at FROM works.work w"
        f" WHERE {_conditions(arguments, filters, LOOKED_UP)}"
    )
    beyond = "true" if after is None else arguments.put("(r.rank, r.id) < ({}::bigint, {}::uuid)", *after)
    end = arguments.put("ORDER BY r.rank DESC, r.id DESC LIMIT {}", limit)
    # A CTE is planned as if it were read to its end, and read as far as is asked for.
    rows: list[Any] = await db.fetch(
        f"""{query}, {_walk_of_search(arguments, stretch, where)},
        filtered AS MATERIALIZED ({looked_up} AND (SELECT by_filters FROM end_of_walk)),
        few AS MATERIALIZED (SELECT * FROM filtered LIMIT {MATCHES_MAX + 1}),
        hit AS MATERIALIZED (
            {looked_up} AND w.search @@ (SELECT words FROM indexed)
            AND (SELECT NOT by_filters OR (SELECT count(*) FROM few) > {MATCHES_MAX} FROM end_of_walk)
        ),
        found AS (
            SELECT id, search, published_at FROM walked WHERE fits
            UNION ALL (
                SELECT id, search, published_at FROM (
                    SELECT * FROM few WHERE (SELECT count(*) FROM few) <= {MATCHES_MAX}
                    UNION ALL (SELECT * FROM hit LIMIT {MATCHES_MAX})) w
                WHERE {_MATCHES} AND id NOT IN (SELECT id FROM walked WHERE fits))
            ORDER BY published_at DESC, id DESC LIMIT {CANDIDATES_MAX}
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
        SELECT {COLUMNS}, r.rank FROM {WORKS} JOIN best r ON r.id = w.id ORDER BY r.rank DESC, r.id DESC
        """,
        *arguments, timeout=SECONDS_MAX,
    )  # fmt: skip
    return rows


def _walk_of_search(arguments: _Arguments, stretch: _Stretch, where: str) -> str:
    """`walked`: what fits of the stretch, and the last work looked at. `end_of_walk`: a row if that was too little,
    which says whether fewer works met the filters than the words."""
    return f"""
        walked AS MATERIALIZED (
            SELECT * FROM (
                SELECT *, row_number() OVER so_far AS place, worded AND filtered AS fits,
                    count(*) FILTER (WHERE worded) OVER so_far AS words_fit,
                    count(*) FILTER (WHERE filtered) OVER so_far AS filters_fit
                FROM (
                    SELECT w.id, w.search, w.published_at, {stretch.named}, {_MATCHES} AS worded, {where} AS filtered
                    FROM works.work w WHERE {stretch.where} ORDER BY {stretch.by}
                    LIMIT {arguments.put("(SELECT {}::bigint)", WALK_MAX)}) w
                WINDOW so_far AS (ORDER BY {stretch.by_names} ROWS UNBOUNDED PRECEDING)) w
            WHERE fits OR place = {WALK_MAX} ORDER BY {stretch.by_names} LIMIT {CANDIDATES_MAX}
        ),
        end_of_walk AS MATERIALIZED (
            SELECT filters_fit < words_fit AS by_filters FROM walked
            WHERE place = {WALK_MAX} AND (SELECT count(*) FROM walked WHERE fits) < {COMMON}
        )"""
