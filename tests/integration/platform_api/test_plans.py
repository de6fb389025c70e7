"""No statement of creators, works, files, tokens, licences and the registry reads a whole table: plans of a tour.

Twice: as they are planned where nothing has grown, with scans of whole tables made dear; and as they are run over a
catalogue that has grown, in which what the tour asks for is rare. Counted is what each step visits, so an index that is
read to its end for the sake of its order is found as well as a table. They are run by a plan for what they ask, and by
the one that the server keeps after five of them, which knows nothing of it.
"""

import itertools
import json
import re
from decimal import Decimal
from types import MappingProxyType
from uuid import UUID, uuid4

import asyncpg
import pytest

from bench.api_catalogue import Sizes, fill
from platform_api.envelope import cursor_text
from platform_api.ids import new_id
from platform_api.works import finding
from tests.integration.platform_api.test_works import chapter, creator, file_of, published, story
from tests.support.files import png
from tests.support.licences import apply, issued, keyed, studio, sweep, terms_for
from tests.support.registry import begun

TABLES = re.compile(r"\b(creators|works|media|tokens|licensing|registry)\.\w+|\bexchange\.balance\b")
GROWN = Sizes(5_000, 20_000, 5_000)
NEWEST = 1_500
"""So many of the works came last, and have nothing of what the others have: no word, no filter, no price."""
VISITED_MAX = 1_000
"""Rows of one table that one statement may look at: a page, what a search matches, a few at each of them."""
PLANS = ("force_custom_plan", "force_generic_plan")
TOGETHER = (
    {"kind": "course", "category": "music"}, {"kind": "audio", "genre": "horror"},
    {"tag": "usual", "language": "de"}, {"kind": "audio", "category": "science", "genre": "comedy"},
    {"kind": "course", "category": "science", "language": "de", "genre": "comedy", "tag": "common"},
    {"kind": "course", "price_min": "99999"}, {"price_max": "0.01", "tag": "usual", "language": "fr"},
    {"kind": "course", "genre": "drama"}, {"tag": "plan", "category": "music", "genre": "drama"},
    {"kind": "audio", "price_min": "1", "price_max": "1.1"}, {"kind": "course", "price_min": "1"},
    {"genre": "drama", "price_min": "2"}, {"kind": "course", "category": "music", "price_min": "2"},
    {"kind": "course"}, {"genre": "comedy"}, {"price_max": "60"}, {"kind": "film", "language": "xx"}, {},
    {"kind": "course", "price_min": "60"},
    {"kind": "audio", "category": "music", "genre": "comedy", "tag": "usual", "language": "fr"},
)  # fmt: skip
"""Filters of which each fits half of what `grow` makes, or one in five hundred; together nothing, a few works, half.
From 60 on only the newest cost, and they are no courses: as neither are few, all courses are walked along for nothing.
"""
SEARCHES = {
    "{often}": "{often}{star}", "plan": "plan{star}", "{often} plan": "{often} & plan{star}",
    "{often} {next}": "{often} & {next}{star}", '"{often} {next}"': "{often} <-> {next}{star}",
    "plan or {often}": "plan | {often}{star}", "{often} -{next}": "{often} & !{next}{star}",
    "{initial}": "{initial}{star}", "-{often}": "", "qqq": "qqq{star}",
}  # fmt: skip
"""Searches, and what they ask for: words that nearly every work has and one that one in five hundred has, by themselves
and together; a letter that they begin with; nothing; what only the newest have."""
SEARCHED_TOGETHER = ({}, TOGETHER[0], TOGETHER[7], TOGETHER[-1])
TEXT = "Long enough for a chapter of its own. " * 4


async def tour(world):
    """Most routes of the three contexts, with and without filters and cursors."""
    made, _, bearer = await creator(world, "Plan")
    _, partner, partner_bearer = await creator(world, "Partner")
    work, first = await published(world, bearer, "Planned", tags=["plan"], genres=["drama"])
    image = await file_of(world, bearer, png())
    inside = f"/v1/works/{work['id']}"
    await world.data("POST", f"{inside}/assets", headers=bearer, json={"role": "poster", "file_id": image["id"]})
    coins = {"kind": "coin", "asset": "COIN", "price": "1"}
    offer = await world.data("POST", f"{inside}/offers", headers=bearer, json=coins)
    await world.data("PATCH", f"/v1/offers/{offer['id']}", headers=bearer, json={"price": "2"})
    line = {"account_id": partner, "role": "Writer", "share_bps": 100}
    change = await world.data("PUT", f"{inside}/collaborators", headers=bearer, json={"collaborators": [line]})
    consent = {"change_id": change["pending"]["id"], "agree": True}
    await world.data("POST", f"{inside}/collaborators/consent", headers=partner_bearer, json=consent)
    second = await chapter(world, bearer, work, "Two", TEXT)
    await world.data("PATCH", f"/v1/chapters/{second['id']}", headers=bearer, json={"number": 1, "body": TEXT + "More"})
    await world.data("DELETE", f"/v1/chapters/{second['id']}", headers=bearer)
    await world.data("POST", f"{inside}/verification", headers=bearer, json={"statement": "Mine."})
    await world.data("POST", f"/v1/creators/{made['id']}/verification", headers=bearer, json={"statement": "Me."})
    await world.data("POST", f"/v1/creators/{made['id']}/follow", headers=partner_bearer)
    skills = f"/v1/creators/{made['id']}/profile-sections/skills"
    await world.data("PUT", skills, headers=bearer, json={"items": [{"name": "Plans"}]})
    await story(world, bearer, "Another")
    await world.settle()
    filters = ("kind=story", "category=film", "genre=drama", "tag=plan", "language=en", f"creator_id={made['id']}")
    for query in ("sort=newest", "sort=oldest", "sort=title", "status=draft", *filters):
        answer = (await world.client.get(f"/v1/works?limit=1&{query}", headers=bearer)).json()
        if answer["pagination"]["next_cursor"]:
            await world.data("GET", f"/v1/works?limit=1&{query}&cursor={answer['pagination']['next_cursor']}",
                             headers=bearer)  # fmt: skip
    for query in ("sort=newest", "sort=followers", "sort=trending", "sort=name", "category=film",
                  "sort=name&category=film&type=enterprise&verified=true"):  # fmt: skip
        answer = (await world.client.get(f"/v1/creators?limit=1&{query}")).json()
        if answer["pagination"]["next_cursor"]:
            await world.data("GET", f"/v1/creators?limit=1&{query}&cursor={answer['pagination']['next_cursor']}")
    for path in (
        "/v1/works/search?q=plan", "/v1/creators/search?q=plan", "/v1/creators/feed", f"/v1/creators/{made['id']}",
        f"/v1/creators/{made['id']}/works", f"/v1/creators/{made['id']}/profile-sections", inside,
        f"{inside}/chapters", f"{inside}/chapters/{first['id']}", f"{inside}/assets", f"{inside}/collaborators",
        f"{inside}/offers", f"/v1/files/{image['id']}/url",
    ):  # fmt: skip
        await world.data("GET", path)
    for path in ("/v1/creators/feed", "/v1/users/me/following", f"/v1/works/{work['id']}/versions"):
        await world.data("GET", path, headers=partner_bearer)
    for path in (f"/v1/creators/{made['id']}/analytics", f"/v1/chapters/{first['id']}/versions",
                 f"/v1/creators/{made['id']}/verification"):  # fmt: skip
        await world.data("GET", path, headers=bearer)
    await token_tour(world, made, bearer)
    await world.data("POST", f"{inside}/archive", headers=bearer)
    await world.data("DELETE", inside, headers=bearer)


async def token_tour(world, made, bearer):
    """Launch, phases, proceeds and all reads of a token."""
    account = made["account_id"]
    verified = "UPDATE creators.creator SET verification_status = 'verified' WHERE id = $1::text::uuid"
    await world.sql(verified, made["id"])
    await world.sql("UPDATE identity.session SET proved_at = now() WHERE account_id = $1::text::uuid", account)
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    await world.grant(account, "operator")
    await world.data("GET", "/v1/token-symbols/available?symbol=PLAN", headers=bearer)
    await world.data("POST", "/v1/token-symbols/PLAN/reservations", headers=bearer)
    launch = {"symbol": "PLAN", "name": "P", "total_supply": "10", "sale_size": "5", "start_price": "1"}
    token = await world.data("POST", "/v1/tokens", headers=bearer | {"idempotency-key": "plan"}, json=launch)
    path, why = f"/v1/tokens/{token['id']}", {"reason": "Plans."}
    await world.data("POST", f"{path}/list", headers=bearer | {"idempotency-key": "plan"}, json=why)
    for query in ("", "?status=listed", f"?creator_id={made['id']}", f"?cursor={cursor_text(UUID(token['id']))}"):
        await world.data("GET", f"/v1/tokens{query}")
    for part in ("", "/price-history", "/holders", "/transactions"):
        await world.data("GET", path + part)
        await world.data("GET", "/v1/tokens/PLAN" + part)
    await world.client.post(f"{path}/proceeds", headers=bearer | {"idempotency-key": "plan"})
    await world.data("POST", f"{path}/delist", headers=bearer, json=why)


async def licensing_tour(world):
    """Most routes of licences and windows."""
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    _, _, owner = await creator(world, "Licensor")
    work, opened_by_it = await published(world, owner, "Licensed")
    inside = f"/v1/works/{work['id']}"
    terms = await terms_for(world, owner, work, max_licenses=10, sublicensing=True)
    await world.data("PATCH", f"/v1/license-terms/{terms['id']}", headers=owner, json={"base_fee": "0"})
    holder_id, holder = await studio(world)
    first, second = await apply(world, holder, terms), await studio(world)
    path = "/v1/license-applications"
    await world.data("POST", f"{path}/{first['id']}/reject", headers=owner, json={"reason": "No."})
    first = await apply(world, holder, terms)
    top = (await world.data("POST", f"{path}/{first['id']}/approve", headers=keyed(owner)))["license_id"]
    below = await issued(world, holder, work, second[0], parent_license_id=top, duration="P10D",
                         license_type="enterprise", seats=2)  # fmt: skip
    seats = f"/v1/licenses/{below['id']}/seats"
    await world.data("POST", seats, headers=second[1], json={"account_id": holder_id})
    read = f"/v1/works/{work['id']}/chapters/{opened_by_it['id']}?version=1"
    await world.data("PATCH", f"/v1/chapters/{opened_by_it['id']}", headers=owner, json={"body": TEXT + "More"})
    library, files = f"/v1/library?cursor={cursor_text(new_id())}", f"/v1/licenses/{below['id']}/access-token"
    for path_ in ("/v1/library", library, files, f"{files}?chapter_id={opened_by_it['id']}", read):
        await world.data("GET", path_, headers=holder)
    await world.data("DELETE", f"{seats}/{holder_id}", headers=second[1])
    await world.data("GET", f"{seats}?limit=1", headers=second[1])
    await world.data("POST", f"/v1/licenses/{top}/renew", headers=keyed(owner))
    window = {"work_id": work["id"], "window_type": "svod", "territories": ["PG"], "starts_at": "2026-01-01T00:00:00Z",
              "ends_at": "2190-01-01T00:00:00Z"}  # fmt: skip
    opened = await world.data("POST", "/v1/windows", headers=owner, json=window)
    await world.data("PATCH", f"/v1/windows/{opened['id']}", headers=owner, json={"ends_at": None})
    for query in ("as=applicant", "as=licensor", "status=approved&limit=1"):
        await world.data("GET", f"{path}?{query}", headers=holder)
    for query in ("as=licensee", "as=licensor&status=active", "limit=1"):
        await world.data("GET", f"/v1/licenses?{query}", headers=holder)
    for path in (
        f"{inside}/license-terms", f"{inside}/windows", f"{inside}/windows?limit=1", f"/v1/licenses/{top}/verify",
        f"/v1/authorizations/{below['verification_code']}", f"/v1/authorizations/{below['verification_code']}/history",
        f"/v1/availability/{work['id']}?territory=PG",
    ):  # fmt: skip
        await world.data("GET", path)
    await sweep(world)
    await world.data("DELETE", f"/v1/windows/{opened['id']}", headers=owner)
    await world.data("POST", f"/v1/licenses/{top}/revoke", headers=keyed(owner), json={"reason": "Over."})
    await world.data("DELETE", f"/v1/license-terms/{terms['id']}", headers=owner)


async def registry_tour(world, chain):
    """A registration and a licence on their way to the chain, by way of a refusal, and all that is read of them."""
    _, _, owner = await creator(world, "Registrar")
    work, _ = await published(world, owner, f"Registered {uuid4().hex}")
    holder_id, holder = await studio(world)
    licence = await issued(world, owner, work, holder_id)
    await world.settle()
    made = await world.data("POST", "/v1/copyrights", headers=keyed(owner), json={"work_id": work["id"]})
    await chain.drive()
    chain.node.faults.next_execute.append("refuse_once")
    await world.data("POST", f"/v1/licenses/{licence['id']}/revoke", headers=keyed(owner), json={"reason": "Over."})
    await world.settle()
    await chain.drive()
    code = (await world.data("GET", f"/v1/licenses/{licence['id']}", headers=holder))["verification_code"]
    assert (await world.client.get(f"/v1/certificates/{made['id']}", headers=owner)).status_code == 200
    for path in (
        f"/v1/copyrights/{made['sha256']}", f"/v1/works/{work['id']}/registrations?limit=1",
        f"/v1/licenses/{licence['id']}/chain", f"/v1/authorizations/{code}/chain",
        f"/v1/chain/transactions/{await digest_of(world, made)}",
    ):  # fmt: skip
        await world.data("GET", path, headers=owner)


async def digest_of(world, registration):
    return (await world.data("GET", f"/v1/copyrights/{registration['sha256']}"))["digest"]


def scans(node, found):
    if node["Node Type"] == "Seq Scan":
        found.add(node["Relation Name"])
    for child in node.get("Plans", ()):
        scans(child, found)
    return found


async def plan_faults(world, statements, small=frozenset()):
    """Those of the statements, with their arguments, that read a whole table other than the small ones."""
    wrong = []
    db = await asyncpg.connect(world.kernel.settings.postgres_dsn)  # without the time limit of the API's queries
    try:
        await db.execute("SET enable_seqscan = off")  # what has an index uses it, however small the table
        for query, arguments in statements.items():
            if not query.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
                continue
            (row,) = await db.fetch(f"EXPLAIN (FORMAT JSON) {query}", *arguments)
            tables = scans(json.loads(row[0])[0]["Plan"], set()) - small
            if tables:
                wrong.append((tables, " ".join(query.split())))
        (row,) = await db.fetch("EXPLAIN (FORMAT JSON) SELECT 1 FROM works.work WHERE description = 'x'")
        assert scans(json.loads(row[0])[0]["Plan"], set()) == {"work"}  # it would have been found
    finally:
        await db.close()
    return wrong


async def grow(world, dsn):
    """Thousands of everything; of the genre and tag that the tour asks for one in five hundred, of all else nothing.
    Words of the texts, from the second on the less common the later.

    Not none: of what no row has the planner believes that one in two hundred has it, however many there are. The works
    are of two sorts that have nothing in common, by turns, so that the planner expects many with something of each; and
    the newest of a third, so that who looks for the others among them finds nothing.
    """
    before = await world.sql("SELECT id FROM works.work"), await world.sql("SELECT id FROM creators.creator")
    works, creators = ([row["id"] for row in rows] for rows in before)
    words = (await fill(dsn, GROWN, seed=1)).words
    await world.sql(
        """
        UPDATE works.work SET kind = s.kind, category = s.category, language = s.language,
            genres = ARRAY[CASE WHEN hashtext(id::text) % 500 = 0 THEN 'drama' ELSE s.genre END],
            tags = ARRAY[CASE WHEN hashtext(id::text) % 500 = 0 THEN 'plan' ELSE s.tag END],
            keywords = CASE WHEN hashtext(id::text) % 500 = 0 THEN 'plan' ELSE s.tag END
        FROM (VALUES (0, 'course', 'science', 'de', 'horror', 'common'), (1, 'audio', 'music', 'fr', 'comedy', 'usual'))
            AS s (turn, kind, category, language, genre, tag)
        WHERE extract(epoch FROM published_at)::bigint % 2 = s.turn AND id <> ALL($1)
        """, works,
    )  # fmt: skip
    await world.sql(
        """
        WITH newest AS (
            UPDATE works.work SET kind = 'film', category = 'art', language = 'xx', genres = '{poetry}', tags = '{new}',
                keywords = '', title = 'qqq ' || id, description = 'qqq'
            WHERE id IN (SELECT id FROM works.work WHERE id <> ALL($1) ORDER BY published_at DESC LIMIT $2)
            RETURNING id)
        UPDATE works.offer SET price_units = 99000000 WHERE work_id IN (SELECT id FROM newest)
        """, works, NEWEST,
    )  # fmt: skip
    await world.sql("UPDATE creators.creator SET category = 'science' WHERE id <> ALL($1)", creators)
    db = await asyncpg.connect(dsn)
    await db.execute("VACUUM ANALYZE")
    await db.close()
    return words


def visits(node, found):
    """Rows that each step on a table or an index looked at: those it gave and those it threw away."""
    name = node.get("Relation Name") or node.get("Index Name")
    if name is not None:
        thrown_away = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        rows = node["Actual Rows"] + thrown_away
        found[name] = found.get(name, 0) + round(rows * node["Actual Loops"])
    for child in node.get("Plans", ()):
        visits(child, found)
    return found


async def long_ways(db, statements, also=MappingProxyType({})):
    """Those of the statements, run with their arguments and undone, that visit more of a table than they should.

    `also`: by table, how many rows beyond VISITED_MAX.
    """
    wrong, ran = [], 0
    for query, arguments in statements.items():
        if not query.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            continue
        try:
            ways = [visits(await run_plan(db, mode, query, arguments), {}) for mode in PLANS]
        except asyncpg.IntegrityConstraintViolationError:
            continue  # a change that is possible once; what it looks for was judged where nothing has grown
        except asyncpg.RaiseError:
            continue
        ran += 1
        many = [(name, n) for way in ways for name, n in way.items() if n > VISITED_MAX + also.get(name, 0)]
        if many:
            wrong.append((many, " ".join(query.split())))
    return wrong, ran


async def run_plan(db, mode, query, arguments):
    """The plan that the server has for the statement in this mode, with what it visited."""
    types = [type_.name for type_ in (await db.prepare(query)).get_parameters()]
    literals = ", ".join(f"quote_nullable(${number}::{name})" for number, name in enumerate(types, 1))
    values = ", ".join(await db.fetchrow(f"SELECT {literals}", *arguments) if types else ())
    undone = db.transaction()
    await undone.start()
    try:
        await db.execute(f"SET LOCAL plan_cache_mode = {mode}")
        await db.execute(f"PREPARE judged AS {query}")
        run = f"EXECUTE judged ({values})" if types else "EXECUTE judged"
        (row,) = await db.fetch(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {run}")
    finally:
        await undone.rollback()
        await db.execute("DEALLOCATE judged")
    return json.loads(row[0])[0]["Plan"]


UNINDEXED = {
    "SELECT id FROM works.work WHERE description = $1": ("x",),
    "SELECT id FROM works.work WHERE status = 'published' AND description = $1"
    " ORDER BY published_at DESC, id DESC LIMIT 2": ("x",),
}


@pytest.mark.parametrize("world", [{"embedded": True}], indirect=True)
async def test_no_statement_reads_a_whole_table(world, api_dsn, tmp_path, monkeypatch):
    seen = {}
    connection = world.kernel.database.connection
    world.kernel.database.connection = lambda: _Recorded(connection(), seen)
    with monkeypatch.context() as patched:
        for name in ("MATCHES_MAX", "WALK_MAX"):  # by which lists and searches pass what holds for all statements
            patched.setattr(finding, name, VISITED_MAX // 3)
        await tour(world)
        await licensing_tour(world)
        async with begun(world, tmp_path) as chain:
            await registry_tour(world, chain)
    world.kernel.database.connection = connection
    statements = {query: arguments for query, arguments in seen.items() if TABLES.search(query)}
    assert len(statements) > 100
    assert await plan_faults(world, statements) == []
    words = await grow(world, api_dsn)
    db = await asyncpg.connect(api_dsn)
    try:
        wrong, ran = await long_ways(db, statements)
        assert not wrong and ran > 100, "\n".join(map(str, wrong))
        assert len((await long_ways(db, UNINDEXED))[0]) == len(UNINDEXED)
        lists = await filters_together(world, db)
        searches = await searches_together(world, db, words)
        await creators_together(world, db)
        names = await db.fetch(
            "SELECT indexname FROM pg_indexes WHERE schemaname = 'works' AND tablename = 'work'"
            " AND indexdef LIKE '%tags%'"
        )
        assert names
        for row in names:
            await db.execute(f"DROP INDEX works.{row['indexname']}")
        assert (await long_ways(db, lists, bounds_of_lists()))[0]  # the index is missed
        assert (await long_ways(db, searches, bounds_of_searches()))[0]
    finally:
        await db.close()


def bounds_of_lists():
    """Beyond VISITED_MAX. An index of words gives all its matches at once, a tenth of a microsecond each."""
    most = max(finding.WALK_MAX, finding.MATCHES_MAX)
    return {"work": most, "offer": most + finding.OFFERED_MAX, "work_found": GROWN.works}


def bounds_of_searches():
    return {"work": finding.WALK_MAX + 2 * finding.MATCHES_MAX, "work_found": GROWN.works}


async def filters_together(world, db):
    """Lists by several filters, page by page: they hold what fits, in their order, and no page visits many works.

    Its statements.
    """
    works = await db.fetch(
        "SELECT w.*, o.price_units, row_number() OVER (ORDER BY lower(title), w.id) AS place FROM works.work w"
        " LEFT JOIN works.offer o ON o.work_id = w.id AND o.active AND o.asset = 'USDC' WHERE status = 'published'"
    )
    orders = {
        "newest": lambda row: (-row["published_at"].timestamp(), -row["id"].int),
        "oldest": lambda row: (row["published_at"], row["id"]), "title": lambda row: row["place"],
    }  # fmt: skip
    connection, statements, all_, empty = world.kernel.database.connection, {}, {}, 0
    world.kernel.database.connection = lambda: _Recorded(connection(), statements)
    turns = zip(itertools.cycle(("oldest", "title")), TOGETHER)
    for sort, filters in itertools.chain(zip(itertools.repeat("newest"), TOGETHER), turns):
        fitting = sorted((row for row in works if fits(row, filters)), key=orders[sort])
        pages, found, cursor = 0, [], {}
        while len(found) < 40 and cursor is not None:
            statements.clear()
            answer = (await world.client.get("/v1/works", params=filters | cursor | {"sort": sort, "limit": 20})).json()
            found += [row["id"] for row in answer["data"]]
            cursor = answer["pagination"]["next_cursor"] and {"cursor": answer["pagination"]["next_cursor"]}
            pages += 1
            all_ |= statements
            bounds = bounds_of_lists()
            if not filters or sort != "title" and len(filters) == 1 and filters.keys() < finding.STRETCHES.keys():
                bounds = {"work": 5 * 20 - VISITED_MAX}  # what an index has in just this order is read for the page
            assert await long_ways(db, statements, bounds) == ([], len(statements)), (sort, filters)
            empty += not answer["data"] and cursor is not None
        assert found == [str(row["id"]) for row in fitting[: len(found)]] and pages < 6, (sort, filters)
        assert cursor is not None or len(found) == len(fitting), (sort, filters)
    assert empty  # with more to look at behind them
    world.kernel.database.connection = connection
    return all_


async def creators_together(world, db):
    """Lists of creators in all orders, page by page: they hold what fits, and no page visits many creators."""
    creators = await db.fetch(
        "SELECT c.*, t.follower_count, t.trend, creator_type AS type, verification_status = 'verified' AS verified,"
        " row_number() OVER (ORDER BY lower(display_name), c.id) AS place"
        " FROM creators.creator c JOIN creators.tally t ON t.creator_id = c.id"
    )
    orders = {
        "newest": lambda row: -row["id"].int, "followers": lambda row: (-row["follower_count"], -row["id"].int),
        "trending": lambda row: (-row["trend"], -row["id"].int), "name": lambda row: row["place"],
    }  # fmt: skip
    together = (
        {}, {"category": "science", "type": "individual", "verified": True}, {"category": "film"},
        {"verified": False}, {"category": "science", "verified": False}, {"type": "enterprise"},
    )  # fmt: skip
    connection, statements = world.kernel.database.connection, {}
    world.kernel.database.connection = lambda: _Recorded(connection(), statements)
    for sort, filters in itertools.product(orders, together):
        fitting = [row for row in creators if all(row[name] == value for name, value in filters.items())]
        fitting.sort(key=orders[sort])
        found, cursor = [], {}
        for _ in range(2):
            statements.clear()
            query = filters | cursor | {"sort": sort, "limit": 20}
            answer = (await world.client.get("/v1/creators", params=query)).json()
            found += [row["id"] for row in answer["data"]]
            assert await long_ways(db, statements) == ([], len(statements)), query
            cursor = {"cursor": answer["pagination"]["next_cursor"]}
            if cursor["cursor"] is None:
                break
        assert found == [str(row["id"]) for row in fitting[:40]], (sort, filters)
    world.kernel.database.connection = connection


async def searches_together(world, db, words):
    """Searches with filters: they find the newest of what fits, in the order of their rank, each page of them, and
    visit few works. Where the walk along the newest finds enough, what is older is left out.

    Its statements.
    """
    connection, statements, all_ = world.kernel.database.connection, {}, {}
    world.kernel.database.connection = lambda: _Recorded(connection(), statements)
    given = {"often": words[1], "next": words[2], "initial": words[1][0]}
    works = await db.fetch(
        "SELECT *, NULL AS price_units FROM works.work WHERE status = 'published' ORDER BY published_at DESC, id DESC"
    )
    walks = set()
    for text, asked in SEARCHES.items():
        prefixed, plain = (asked.format(**given, star=star) for star in (":*", ""))
        matches = await db.fetch(
            "SELECT w.*, NULL AS price_units, (ts_rank_cd(search, words, 1) * 1000000)::bigint AS rank"
            " FROM works.work w, (SELECT to_tsquery('simple', $1) || to_tsquery('english', $2) AS words) q"
            " WHERE search @@ words AND status = 'published' ORDER BY published_at DESC, id DESC", prefixed, plain,
        )  # fmt: skip
        for filters in SEARCHED_TOGETHER:
            fitting = [row for row in matches if fits(row, filters)]
            along = next(({name: filters[name]} for name in finding.STRETCHES if name in filters), {})
            walked = {row["id"] for row in [row for row in works if fits(row, along)][: finding.WALK_MAX]}
            near = [row for row in fitting if row["id"] in walked]
            found = near if len(near) >= finding.COMMON else fitting
            ranked = sorted(found[: finding.CANDIDATES_MAX], key=lambda row: (row["rank"], row["id"]), reverse=True)
            statements.clear()
            limit = max(10, len(ranked) // 3)
            query, pages, cursor = filters | {"q": text.format(**given), "limit": limit}, [], {}
            while cursor is not None:  # the same works are ranked for each page, so the same ways are taken to them
                answer = (await world.client.get("/v1/works/search", params=query | cursor)).json()
                pages.append([row["id"] for row in answer["data"]])
                cursor = answer["pagination"]["next_cursor"] and {"cursor": answer["pagination"]["next_cursor"]}
            ids = [str(row["id"]) for row in ranked]
            assert pages == [ids[n : n + limit] for n in range(0, max(1, len(ids)), limit)], query
            walks.add((len(near) >= finding.COMMON, len(pages) > 2))
            all_ |= statements
            assert await long_ways(db, statements, bounds_of_searches()) == ([], len(statements)), query
    assert walks >= {(True, True), (False, True)}  # more than two pages by each way
    world.kernel.database.connection = connection
    return all_


def fits(row, filters):
    """Of a work with its price in USDC."""
    price = row["price_units"] and Decimal(row["price_units"]).scaleb(-6)
    known = {"price_min": lambda value: price is not None and price >= Decimal(value),
             "price_max": lambda value: price is not None and price <= Decimal(value),
             "genre": lambda value: value in row["genres"], "tag": lambda value: value in row["tags"]}  # fmt: skip
    return all(known[name](value) if name in known else row[name] == value for name, value in filters.items())


class _Recorded:
    """A connection's context that notes each query, once for each set of arguments that it leaves out."""

    def __init__(self, inner, seen):
        self._inner, self._seen = inner, seen

    async def __aenter__(self):
        self._db = await self._inner.__aenter__()
        self._db.add_query_logger(self._note)
        return self._db

    async def __aexit__(self, *problem):
        self._db.remove_query_logger(self._note)
        return await self._inner.__aexit__(*problem)

    def _note(self, record):
        given = "".join("-" if argument is None else "x" for argument in record.args or ())
        self._seen.setdefault(f"{record.query} -- {given}" if "-" in given else record.query, record.args)
