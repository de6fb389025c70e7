"""The catalogue of a grown platform, written straight into PostgreSQL: creators, works with a chapter, text, offers and
windows, terms and licences, and as many sales with what they entitle to and their royalties, as their services would
have left them.

Left out: events, audit entries, files, versions beyond the first, and the core's side of the sales of the past: what
payees were owed before the bench is in no account. Words are drawn as Zipf has them, so that a search meets words that
nearly every work has and words that hardly any has. The newest works are of one sort, with words, a language and
a price that no other has: who looks for the others in the order of time begins where none of them is.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import numpy as np

from platform_api.licensing.measures import TERRITORY_LIST, scope_set, territory_set

__all__ = ["Catalogue", "Offered", "Sizes", "chapter_text", "fill", "sell_much"]

WORDS = 20_000
SYLLABLES = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "en", "or")]
KINDS = ("story", "story", "story", "film", "audio", "document", "course", "video")
CATEGORIES = ("literature", "film", "music", "art", "comics", "games", "education", "science")
GENRES = ("drama", "fantasy", "romance", "mystery", "thriller", "horror", "comedy", "poetry")
SCOPES = ("adapt", "distribute", "translate")
TERRITORIES = ("PG", "AU", "NZ", "DE", "US")
START = datetime(2026, 1, 1, tzinfo=UTC)
LICENCE_DAYS = 3_650
FEE_UNITS = 10_000_000
PLATFORM_SHARE = 10
"""Per cent of a sale."""
NEWEST_SHARE, NEWEST_LANGUAGE, NEWEST_PRICE = 100, "xx", 5_000
"""One work of so many is among the newest; the price in cents."""
WINDOWS_SHARE = 5
"""One work of so many has a window."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """As many sales as licences."""

    creators: int
    works: int
    licences: int


@dataclass(frozen=True, slots=True)
class Offered:
    """The offer of a work, in USDC of six decimals."""

    id: str
    price_units: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the load asks for, by number: ids as text; a title, a chapter and an offer for each work; a code for each
    licence. `windowed`: the works that can be seen in Papua New Guinea, by a window that stands open."""

    creators: list[str]
    works: list[str]
    titles: list[str]
    chapters: list[str]
    offers: list[Offered]
    windowed: list[str]
    codes: list[str]
    words: list[str]


def _ids(rng: np.random.Generator, count: int, at: datetime) -> list[UUID]:
    """UUIDs of version 7 in the order of time, a millisecond each."""
    first = int(at.timestamp() * 1000)
    random = rng.integers(0, 2**62, count)
    return [
        UUID(int=(first + number) << 80 | 0x7 << 76 | 0x2 << 62 | int(part)) for number, part in enumerate(random)
    ]


def _words(rng: np.random.Generator) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < WORDS:
        found.setdefault("".join(rng.choice(SYLLABLES, rng.integers(2, 5))))
    return list(found)


async def _copy(db: Any, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    schema, _, name = table.partition(".")
    await db.copy_records_to_table(name, schema_name=schema, columns=columns.split(), records=rows)


async def fill(dsn: str, sizes: Sizes, seed: int) -> Catalogue:
    """Fills a migrated database; the rows have the checks of its tables behind them, and statistics are taken."""
    rng = np.random.default_rng(seed)
    words = _words(rng)
    db = await asyncpg.connect(dsn)
    try:
        async with db.transaction():
            accounts, creators = await _people(db, rng, words, sizes.creators)
            works, titles, offers = await _works(db, rng, words, accounts, creators, sizes)
            chapters = await _chapters(db, rng, accounts, works)
            windowed = await _windows(db, rng, accounts, works)
            codes = await _licences(db, rng, accounts, works, sizes.licences)
            await _sales(db, rng, accounts, works, offers, sizes.licences)
        # As a database that has run for a while has it: else autovacuum takes a core for the whole of the load.
        await db.execute("VACUUM ANALYZE")
    finally:
        await db.close()
    return Catalogue(
        [str(id_) for id_ in creators], [str(id_) for id_ in works], titles, [str(id_) for id_ in chapters], offers,
        [str(id_) for id_ in windowed], codes, words,
    )  # fmt: skip


async def sell_much(dsn: str, account_id: str, count: int) -> int:
    """Gives an account `count` sales of the last hundred days; the units of USDC that they brought."""
    db = await asyncpg.connect(dsn)
    try:
        async with db.transaction():
            await db.execute(
                """
                INSERT INTO royalties.entry (id, account_id, kind, asset, scale, amount_units, happened_at, matures_at,
                    work_id, revenue_kind, ref)
                SELECT gen_random_uuid(), $1, 'earned', 'USDC', 6, i, at, at + interval '7 days', NULL,
                    'content_purchase', 'sold:' || i
                FROM (SELECT i, now() - i * interval '100 days' / $2 AS at FROM generate_series(1, $2::int) i) sales
                """,
                UUID(account_id), count,
            )  # fmt: skip
            units = count * (count + 1) // 2
            await db.execute(
                "INSERT INTO royalties.owed (account_id, asset, units) VALUES ($1, 'USDC', $2)", UUID(account_id), units
            )
            await db.execute("SELECT royalties.sum_again()")
        await db.execute("ANALYZE royalties.entry")
    finally:
        await db.close()
    return units


def chapter_text(number: int) -> str:
    """What the chapter of the work of this number says."""
    return f"Chapter {number}: the letter was heavier than it looked, and the road was longer than the map. " * 4


async def _people(
    db: Any, rng: np.random.Generator, words: list[str], count: int
) -> tuple[list[UUID], list[UUID]]:
    accounts, creators = _ids(rng, count, START), _ids(rng, count, START + timedelta(days=1))
    names = [" ".join(words[int(n)] for n in pair).title() for pair in rng.integers(0, WORDS, (count, 2))]
    await _copy(
        db, "identity.account", "id display_name",
        zip(accounts, names, strict=True),
    )  # fmt: skip
    await _copy(
        db, "creators.creator", "id account_id display_name bio creator_type category verification_status",
        ((creator, account, name, _text(rng, words, 30), "individual", CATEGORIES[n % len(CATEGORIES)], "verified")
         for n, (creator, account, name) in enumerate(zip(creators, accounts, names, strict=True))),
    )  # fmt: skip
    counts = rng.zipf(1.5, count) % 100_000
    await _copy(
        db, "creators.tally", "creator_id follower_count work_count trend",
        ((creator, int(n), 10, int(n)) for creator, n in zip(creators, counts, strict=True)),
    )  # fmt: skip
    return accounts, creators


def _text(rng: np.random.Generator, words: list[str], count: int) -> str:
    picks = rng.zipf(1.2, count) % WORDS
    return " ".join(words[int(n)] for n in picks)


async def _works(
    db: Any, rng: np.random.Generator, words: list[str], accounts: list[UUID], creators: list[UUID], sizes: Sizes
) -> tuple[list[UUID], list[str], list[Offered]]:
    count = sizes.works
    works = _ids(rng, count, START + timedelta(days=2))
    newest = count - count // NEWEST_SHARE
    others = [f"new{word}" for word in words]
    titles = [_text(rng, words if n < newest else others, 4).capitalize() for n in range(count)]
    texts = [_text(rng, words if n < newest else others, 40) for n in range(count)]

    def sort(number: int) -> int:
        return number if number < newest else -1

    def row(number: int) -> tuple[Any, ...]:
        owner = number % len(accounts)
        tags = [(words if number < newest else others)[int(n)] for n in rng.zipf(1.2, 3) % WORDS]
        return (
            works[number], creators[owner], accounts[owner], KINDS[sort(number) % len(KINDS)], titles[number],
            texts[number], CATEGORIES[sort(number) % len(CATEGORIES)], [GENRES[sort(number) % len(GENRES)]], tags,
            "en" if number < newest else NEWEST_LANGUAGE, "{}", "published", 1,
            START + timedelta(days=3, seconds=number), number < sizes.licences, " ".join(tags), "english",
        )  # fmt: skip

    # regconfig has no binary form of its own for COPY, so the rows come by way of a table of text.
    names = (
        "id creator_id account_id kind title description category genres tags language metadata status content_version"
        " published_at sold keywords search_words"
    )
    await db.execute(
        "CREATE TEMP TABLE incoming (id uuid, creator_id uuid, account_id uuid, kind text, title text,"
        " description text, category text, genres text[], tags text[], language text, metadata text, status text,"
        " content_version integer, published_at timestamptz, sold boolean, keywords text, search_words text)"
        " ON COMMIT DROP"
    )
    await db.copy_records_to_table("incoming", records=map(row, range(count)))
    columns = names.replace(" ", ", ")
    values = columns.replace("metadata", "metadata::jsonb").replace("search_words", "search_words::regconfig")
    await db.execute(f"INSERT INTO works.work ({columns}) SELECT {values} FROM incoming")

    def version(number: int) -> tuple[Any, ...]:
        content = msgspec.json.encode({"files": [], "kind": KINDS[sort(number) % len(KINDS)], "title": titles[number]})
        owner = accounts[number % len(accounts)]
        return works[number], 1, content, hashlib.sha256(content).digest(), "", owner

    await _copy(
        db, "works.work_version", "work_id number content sha256 change_note created_by", map(version, range(count))
    )
    ids, prices = _ids(rng, count, START + timedelta(days=20)), rng.integers(99, 5_000, count)
    prices[newest:] = NEWEST_PRICE
    offers = [Offered(str(id_), int(price) * 10_000) for id_, price in zip(ids, prices, strict=True)]
    await _copy(
        db, "works.offer", "id work_id kind asset scale price_units",
        ((id_, work, "purchase", "USDC", 6, offer.price_units)
         for id_, work, offer in zip(ids, works, offers, strict=True)),
    )  # fmt: skip
    return works, titles, offers


async def _chapters(db: Any, rng: np.random.Generator, accounts: list[UUID], works: list[UUID]) -> list[UUID]:
    """One of each work, published; that of every other work is a preview."""
    chapters = _ids(rng, len(works), START + timedelta(days=10))
    await _copy(
        db, "works.chapter", "id work_id number title preview status content_version published_at",
        ((chapter, work, 1, "One", number % 2 == 0, "published", 1, START + timedelta(days=11))
         for number, (chapter, work) in enumerate(zip(chapters, works, strict=True))),
    )  # fmt: skip

    def version(number: int) -> tuple[Any, ...]:
        text = chapter_text(number)
        digest = hashlib.sha256(text.encode()).digest()
        return chapters[number], 1, "One", text, digest, "", accounts[number % len(accounts)]

    await _copy(
        db, "works.chapter_version", "chapter_id number title body sha256 change_note created_by",
        map(version, range(len(works))),
    )  # fmt: skip
    await _copy(
        db, "works.chapter_shown", "chapter_id number shown_from",
        ((chapter, 1, START + timedelta(days=11)) for chapter in chapters),
    )  # fmt: skip
    return chapters


async def _windows(db: Any, rng: np.random.Generator, accounts: list[UUID], works: list[UUID]) -> list[UUID]:
    """Windows of streaming by subscription that opened, of some works."""
    numbers = range(0, len(works), WINDOWS_SHARE)
    ids = _ids(rng, len(numbers), START + timedelta(days=25))
    await db.executemany(
        "INSERT INTO licensing.release_window (id, work_id, account_id, window_type, territories, territory_list,"
        " territory_set, period, exclusive, status)"
        " VALUES ($1, $2, $3, 'svod', $4, $5, $6::text::int4multirange, tstzrange($7, NULL), false, 'open')",
        [(id_, works[number], accounts[number % len(accounts)], list(TERRITORIES), TERRITORY_LIST,
          territory_set(TERRITORIES), START)
         for id_, number in zip(ids, numbers, strict=True)],
    )  # fmt: skip
    return [works[number] for number in numbers]


async def _licences(
    db: Any, rng: np.random.Generator, accounts: list[UUID], works: list[UUID], count: int
) -> list[str]:
    """Standard licences that run, one of each of the first works, each with its paid period and its code."""
    terms = _ids(rng, count, START + timedelta(days=30))
    licences = _ids(rng, count, START + timedelta(days=31))
    periods = _ids(rng, count, START + timedelta(days=32))
    nodes = _ids(rng, count, START + timedelta(days=33))
    letters = rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), (count, 32))
    codes = ["".join(row) for row in letters]
    begins, ends = START, START + timedelta(days=LICENCE_DAYS)
    where, what = territory_set(TERRITORIES), scope_set(SCOPES)
    owners = [accounts[n % len(accounts)] for n in range(count)]
    licensees = [accounts[(n + 1) % len(accounts)] for n in range(count)]
    shared = (1000, "USDC", 6, FEE_UNITS, list(TERRITORIES), TERRITORY_LIST, f"P{LICENCE_DAYS}D", list(SCOPES), "", "")
    columns = (
        "revenue_share_bps asset scale fee_units territories territory_list duration scope requirements restrictions"
    )
    await _copy(
        db, "licensing.license_terms", f"id work_id licensor_id license_type {columns} sublicensing auto_approve",
        ((id_, work, owner, "standard", *shared, False, False)
         for id_, work, owner in zip(terms, itertools.cycle(works[:count]), owners, strict=False)),
    )  # fmt: skip
    # Multiranges are written as text, for which COPY's binary form has no place.
    await db.executemany(
        "INSERT INTO licensing.license (id, work_id, level, depth, terms_id, terms_version, licensor_id, licensee_id,"
        f" license_type, {columns.replace(' ', ', ')}, sublicensing, status, starts_at, ends_at, territory_set,"
        " scope_set) VALUES ($1, $2, $2, 1, $3, 1, $4, $5, 'standard', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
        " false, 'active', $16, $17, $18::text::int4multirange, $19::text::int4multirange)",
        [(licence, work, term, owner, licensee, *shared, begins, ends, where, what)
         for licence, work, term, owner, licensee in zip(
             licences, itertools.cycle(works[:count]), terms, owners, licensees, strict=False)],
    )  # fmt: skip
    await db.executemany(
        "INSERT INTO licensing.license_period (id, license_id, number, level, exclusive, territory_set, scope_set,"
        " base_at, reserved, fee_units, pay_before, attempts, paid_at, status)"
        " VALUES ($1, $2, 1, $3, false, $4::text::int4multirange, $5::text::int4multirange, $6,"
        " tstzrange($6, $7), $8, $6, 1, $6, 'active')",
        [(period, licence, work, where, what, begins, ends, FEE_UNITS)
         for period, licence, work in zip(periods, licences, itertools.cycle(works[:count]), strict=False)],
    )  # fmt: skip
    await _copy(
        db, "licensing.authorization_node", "id work_id license_id verification_code",
        zip(nodes, itertools.islice(itertools.cycle(works[:count]), count), licences, codes, strict=True),
    )  # fmt: skip
    await _copy(
        db, "licensing.license_event", "license_id what at ends_at",
        ((licence, "activated", begins, ends) for licence in licences),
    )  # fmt: skip
    return codes


async def _sales(
    db: Any, rng: np.random.Generator, accounts: list[UUID], works: list[UUID], offers: list[Offered], count: int
) -> None:
    """Purchases of the past, each of another work: what they entitle to, and what its maker and the platform got."""
    purchases, events = _ids(rng, count, START + timedelta(days=40)), _ids(rng, count, START + timedelta(days=41))
    sales, rights = _ids(rng, count, START + timedelta(days=42)), _ids(rng, count, START + timedelta(days=43))
    entries = _ids(rng, count, START + timedelta(days=44))
    at, made = START + timedelta(days=45), len(accounts)
    buyers = [accounts[(number + made // 2) % made] for number in range(count)]
    makers = [accounts[number % made] for number in range(count)]
    prices = [offers[number % len(offers)].price_units for number in range(count)]
    fees = [price * PLATFORM_SHARE // 100 for price in prices]
    of = [works[number % len(works)] for number in range(count)]
    every = range(count)
    await _copy(
        db, "royalties.revenue_event",
        "id kind source_ref work_id asset scale gross_units platform_units occurred_at purchase_id",
        ((events[n], "content_purchase", f"buy:{purchases[n].hex}", of[n], "USDC", 6, prices[n], fees[n], at,
          purchases[n]) for n in every),
    )  # fmt: skip
    await _copy(
        db, "payments.purchase",
        "id account_id offer_id work_id seller_id kind method asset scale price_units status event_id completed_at",
        ((purchases[n], buyers[n], UUID(offers[n % len(offers)].id), of[n], makers[n], "purchase", "balance", "USDC",
          6, prices[n], "completed", events[n], at) for n in every),
    )  # fmt: skip
    await _copy(
        db, "payments.entitlement", "id account_id work_id kind starts_at purchase_id",
        ((rights[n], buyers[n], of[n], "own", at, purchases[n]) for n in every),
    )  # fmt: skip
    await _copy(
        db, "royalties.distribution", "id event_id status parts posted_at",
        ((sales[n], events[n], "posted", 0, at) for n in every),
    )  # fmt: skip
    await _copy(
        db, "royalties.distribution_line",
        "distribution_id number part work_id account_id account role bps amount_units",
        (row for n in every for row in (
            (sales[n], 0, 0, of[n], None, "platform:revenue", "platform", PLATFORM_SHARE * 100, fees[n]),
            (sales[n], 1, 0, of[n], makers[n], f"pay:{makers[n]}", "owner", 10_000 - PLATFORM_SHARE * 100,
             prices[n] - fees[n]))),
    )  # fmt: skip
    await _copy(
        db, "royalties.paid_by_work", "work_id account_id month",
        {(of[n], makers[n], at.date().replace(day=1)) for n in every},
    )  # fmt: skip
    await _copy(
        db, "royalties.entry",
        "id account_id kind asset scale amount_units happened_at matures_at work_id revenue_kind distribution_id ref",
        ((entries[n], makers[n], "earned", "USDC", 6, prices[n] - fees[n], at, at, of[n], "content_purchase", sales[n],
          f"dist:{events[n].hex}:0") for n in every),
    )  # fmt: skip
    await db.execute(
        "INSERT INTO royalties.owed (account_id, asset, units) SELECT account_id, asset, sum(amount_units)::bigint"
        " FROM royalties.entry GROUP BY account_id, asset"
    )
    await db.execute("SELECT royalties.sum_again()")
