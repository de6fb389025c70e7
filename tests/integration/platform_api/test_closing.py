"""A month is closed by a job: over HTTP, a real PostgreSQL and the real core, killed anywhere, asked for twice."""

import asyncio
import hashlib
import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from platform_api.errors import timestamp
from platform_api.money import decimal_text
from platform_api.royalties import closing
from platform_api.royalties.closing import CloseMonth
from platform_api.royalties.reconciliation import Difference
from tests.support.sales import shop_over

RUNS = "/v1/admin/royalties/runs"
PAYEES = 1_200
SCALES = {"USDC": 6, "SUI": 9}
SIGN = {"earned": 1, "reversed": -1, "paid": -1}
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def shop(api_dsn):
    async with shop_over(api_dsn) as shop:
        await shop.world.sql(
            "TRUNCATE royalties.entry, royalties.daily, royalties.work_income, royalties.maturing, royalties.owed,"
            " royalties.run, royalties.statement, jobs.pgqueuer, kernel.outbox CASCADE"
        )
        yield shop


async def history(shop, days, payees=PAYEES):
    """Entries of many payees in two assets, at any time of so many days; those of the one who can sign in first."""
    account, bearer = await shop.buyer()
    chance = random.Random(payees)
    accounts = [UUID(account), *(UUID(int=chance.getrandbits(128)) for _ in range(payees - 1))]
    await shop.world.sql("INSERT INTO identity.account (id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING", accounts)
    rows = []
    for account_id in accounts:
        for asset in SCALES if account_id == accounts[0] else chance.choice((["USDC"], ["USDC"], SCALES)):
            for _ in range(chance.randint(1, 4)):
                at = BEGIN + timedelta(microseconds=chance.randrange(days * 86_400_000_000))
                kind = chance.choice(("earned", "earned", "reversed", "paid"))
                rows.append((uuid4(), account_id, kind, asset, SCALES[asset], chance.randrange(1, 10**9), at))
    rows.append((uuid4(), accounts[0], "earned", "USDC", 6, 1, datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)))
    rows.append((uuid4(), accounts[0], "earned", "USDC", 6, 2, datetime(2024, 3, 1, tzinfo=UTC)))
    await shop.world.sql(
        "INSERT INTO royalties.entry (id, account_id, kind, asset, scale, amount_units, happened_at, matures_at, ref)"
        " SELECT *, now(), 'sold:' || gen_random_uuid() FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[],"
        " $5::smallint[], $6::bigint[], $7::timestamptz[])",
        *(list(column) for column in zip(*rows, strict=True)),
    )  # fmt: skip
    await shop.world.sql(
        "INSERT INTO royalties.owed SELECT account_id, asset,"
        " sum(CASE kind WHEN 'earned' THEN amount_units ELSE -amount_units END) FROM royalties.entry GROUP BY 1, 2"
    )
    await shop.world.sql("SELECT royalties.sum_again()")
    return account, bearer


async def wanted(shop, period):
    """Everybody's sums and digest of the month, made of all entries without any of our code but for how to write."""
    entries = await shop.world.sql("SELECT * FROM royalties.entry ORDER BY happened_at, id")
    sums, lines = defaultdict(lambda: dict.fromkeys(("opening", "earned", "reversed", "paid"), 0)), defaultdict(list)
    for entry in entries:
        key, month = (entry["account_id"], entry["asset"]), f"{entry['happened_at']:%Y-%m}"
        if month < period:
            sums[key]["opening"] += SIGN[entry["kind"]] * entry["amount_units"]
        elif month == period:
            sums[key][entry["kind"]] += entry["amount_units"]
            amount = decimal_text(entry["amount_units"], entry["scale"])
            lines[key].append({"amount": amount, "happened_at": timestamp(entry["happened_at"]), "kind": entry["kind"],
                               "ref": entry["ref"]})  # fmt: skip
    found = {}
    for (account_id, asset), of in sums.items():
        if not any(of.values()):
            continue
        of["closing"] = of["opening"] + of["earned"] - of["reversed"] - of["paid"]
        shown = {name: decimal_text(units, SCALES[asset]) for name, units in of.items()}
        content = {"account_id": str(account_id), "period": period, "asset": asset, "lines": lines[account_id, asset]}
        text = json.dumps(content | shown, sort_keys=True, separators=(",", ":"))
        found[account_id, asset] = (*of.values(), hashlib.sha256(text.encode()).digest())
    return found


async def written(shop, period):
    rows = await shop.world.sql("SELECT * FROM royalties.statement WHERE period = $1", period)
    found = {
        (row["account_id"], row["asset"]): tuple(
            row[name] for name in ("opening", "earned", "reversed", "paid", "closing", "digest")
        )
        for row in rows
    }
    assert len(found) == len(rows)
    return found


async def told(shop, period):
    """How often the holder of each statement of the month was told."""
    rows = await shop.world.sql(
        "SELECT o.subject_id, payload ->> 'digest' AS digest, payload -> 'for_accounts' ->> 0 AS account_id"
        " FROM kernel.outbox o WHERE type = 'statement.closed' AND payload ->> 'period' = $1",
        period,
    )  # fmt: skip
    return sorted((UUID(row["subject_id"]), UUID(row["account_id"]), bytes.fromhex(row["digest"])) for row in rows)


async def to_tell(shop, period):
    rows = await shop.world.sql("SELECT id, account_id, digest FROM royalties.statement WHERE period = $1", period)
    return sorted((row["id"], row["account_id"], row["digest"]) for row in rows)


async def ask(shop, staff, period):
    answer = await shop.world.client.post(RUNS, headers=staff, json={"period": period})
    assert answer.status_code == 202, answer.text
    return answer.json()["data"]


async def waiting(shop):
    return len(await shop.world.sql("SELECT FROM jobs.pgqueuer WHERE entrypoint = 'admin_actions'"))


@pytest.fixture
def killed(monkeypatch):
    """Kills a job inside the transaction of the given page: of its statements, or of what is told of them."""

    def at(name, page):
        real, pages = getattr(closing.queries, name), []

        async def reached(*arguments):
            await real(*arguments)
            pages.append(1)
            if len(pages) == page:
                asyncio.current_task().cancel()
                await asyncio.sleep(0)

        monkeypatch.setattr(closing.queries, name, reached)
        return lambda: monkeypatch.setattr(closing.queries, name, real)

    return at


async def test_month_of_many_payees_is_closed_whole_however_often_its_job_is_killed(shop, killed, monkeypatch):
    monkeypatch.setattr(closing, "PAYEES_AT_ONCE", 100)
    monkeypatch.setattr(closing, "AT_ONCE", 7)
    _, bearer = await history(shop, days=75)
    staff = await shop.staff()
    job = shop.royalties.closing._go_on
    await shop.close_month(staff, "2024-01")
    begun = await ask(shop, staff, "2024-02")
    assert (begun["state"], begun["payees"], begun["payees_done"], begun["statements"]) == ("open", None, 0, 0)
    done = 0
    for page, pages in ((1, 0), (4, 3), (9, 11)):
        undo = killed("insert_statements", page)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(job(CloseMonth("2024-02")))
        undo()
        run = await shop.get(f"{RUNS}/2024-02", staff)
        assert (run["state"], run["payees"], run["payees_done"]) == ("open", PAYEES, pages * 100)
        assert run["statements"] == len(await written(shop, "2024-02")) >= done
        done = run["statements"]
        assert {row["period"] for row in await shop.get("/v1/royalties/statements", bearer)} == {"2024-01"}
    own = await shop.world.sql("SELECT id FROM royalties.statement WHERE period = '2024-02'")
    assert len(own) > 900
    for row in own[:3]:
        await shop.world.refused(404, "NOT_FOUND", "unknown_statement", "GET",
                                 f"/v1/royalties/statements/{row['id']}", headers=bearer)  # fmt: skip
    undo = killed("announce_to", 5)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(job(CloseMonth("2024-02")))
    undo()
    run = await shop.get(f"{RUNS}/2024-02", staff)
    assert run["state"] == "closed" and run["closed_at"] >= run["begun_at"]
    assert len(await told(shop, "2024-02")) == 400, "who is told can read it"
    shown = [row for row in await shop.get("/v1/royalties/statements", bearer) if row["period"] == "2024-02"]
    assert {row["asset"] for row in shown} == set(SCALES)
    await shop.finish()  # the job that was asked for, after all of these
    assert await shop.get(f"{RUNS}/2024-02", staff) == run
    statements = await wanted(shop, "2024-02")
    assert await written(shop, "2024-02") == statements and run["statements"] == len(statements) > PAYEES
    assert await told(shop, "2024-02") == await to_tell(shop, "2024-02")
    for row in shown:
        assert row["closed_at"] == run["closed_at"]
    # On top of it: who had nothing since, who had something in each, and who had nothing before.
    await shop.world.entries("SET happened_at = '2024-05-31T12:00:00Z' WHERE amount_units % 2 = 0"
                             " AND happened_at >= '2024-03-01'")  # fmt: skip
    refused = await shop.refused(409, "CONFLICT", "earlier_month_open", RUNS, staff, {"period": "2024-05"})
    assert refused.json()["error"]["details"]["period"] == "2024-03"
    for period in ("2024-03", "2024-05"):  # April has none
        later = await shop.close_month(staff, period)
        assert await written(shop, period) == await wanted(shop, period)
        assert later["statements"] == len(await told(shop, period))


async def test_two_jobs_of_one_month_write_and_tell_each_statement_once(shop, monkeypatch):
    monkeypatch.setattr(closing, "PAYEES_AT_ONCE", 5)
    await history(shop, days=60, payees=40)
    staff = await shop.staff()
    audited = "SELECT FROM kernel.audit_entry WHERE action = $1 AND resource_id = '2024-01' AND position > $2"
    (last,) = await shop.world.sql("SELECT coalesce(max(position), 0) AS position FROM kernel.audit_entry")
    first, second = await asyncio.gather(*(ask(shop, staff, "2024-01") for _ in range(2)))
    assert first == second and await waiting(shop) == 1
    assert len(await shop.world.sql(audited, "royalties.closing_asked", last["position"])) == 1
    job = shop.royalties.closing._go_on
    await asyncio.gather(*(job(CloseMonth("2024-01")) for _ in range(3)))
    await shop.finish()
    assert await written(shop, "2024-01") == await wanted(shop, "2024-01")
    assert await told(shop, "2024-01") == await to_tell(shop, "2024-01")
    run = await shop.get(f"{RUNS}/2024-01", staff)
    assert (run["state"], run["payees"], run["payees_done"]) == ("closed", 40, 40)
    assert len(await shop.world.sql(audited, "royalties.closed", last["position"])) == 1
    assert await ask(shop, staff, "2024-01") == run and await waiting(shop) == 0


async def test_month_with_entries_is_not_left_out(shop):
    """Closed before it, a later one would take its earnings as an opening sum, and it could never be closed."""
    account, bearer = await history(shop, days=75, payees=5)
    staff = await shop.staff()
    for left_out in ("2024-02", "2024-04"):
        refused = await shop.refused(409, "CONFLICT", "earlier_month_open", RUNS, staff, {"period": left_out})
        assert refused.json()["error"]["details"]["period"] == "2024-01"
    for period in ("2023-12", "2024-01", "2024-02", "2024-03"):  # nobody had anything before January
        await shop.close_month(staff, period)
        assert await written(shop, period) == await wanted(shop, period)
    shown = await shop.get("/v1/royalties/statements", bearer)
    details = [await shop.get(f"/v1/royalties/statements/{row['id']}", bearer) for row in shown]
    entries = await shop.world.sql("SELECT FROM royalties.entry WHERE account_id = $1", UUID(account))
    assert sum(len(one["lines"]) for one in details) == len(entries) > 0, "each is on a statement"


async def test_holders_are_told_of_a_month_whose_refused_job_ran_again(shop, monkeypatch):
    """Its worker died after the refusal, so it ran once more, when the books agreed."""
    await history(shop, days=30, payees=8)
    staff = await shop.staff()
    await ask(shop, staff, "2024-01")
    job = shop.royalties.closing._go_on
    found = [Difference(f"pay:{uuid4()}", "USDC", 1, 2)]

    async def differences():
        return found

    monkeypatch.setattr(shop.royalties.reconciliation, "differences", differences)
    await job(CloseMonth("2024-01"))
    found.clear()
    await job(CloseMonth("2024-01"))
    assert (await shop.get(f"{RUNS}/2024-01", staff))["state"] == "refused"
    await shop.world.sql("DELETE FROM jobs.pgqueuer")
    await shop.close_month(staff, "2024-01")
    assert await told(shop, "2024-01") == await to_tell(shop, "2024-01") != []


async def test_nobody_waits_for_entries_who_asks_for_a_month_that_is_not_over(shop, monkeypatch):
    """Sales wait behind whoever waits for a sale: that is for a moment, and only if it has to be."""
    staff = await shop.staff()
    monkeypatch.setattr(closing.queries, "ENTRIES_SECONDS_MAX", 0.2)
    async with shop.world.kernel.database.transaction() as sale:
        await sale.execute("LOCK TABLE royalties.entry IN ROW EXCLUSIVE MODE")
        this_month = f"{datetime.now(UTC):%Y-%m}"
        await shop.refused(409, "CONFLICT", "period_open", RUNS, staff, {"period": this_month})
        answer = await shop.world.client.post(RUNS, headers=staff, json={"period": "2024-01"})
        assert answer.status_code == 503, answer.text
    await ask(shop, staff, "2024-01")


async def test_one_month_is_closed_at_a_time_and_goes_on_when_it_is_asked_for_again(shop):
    staff = await shop.staff()
    _, member = await shop.buyer()
    await ask(shop, staff, "2024-02")
    for other in ("2024-01", "2024-03"):
        await shop.refused(409, "CONFLICT", "other_month_open", RUNS, staff, {"period": other})
    for period in ("2024-01", "2024-13", "February", "2024-02%00"):
        await shop.world.refused(404, "NOT_FOUND", "unknown_run", "GET", f"{RUNS}/{period}", headers=staff)
    await shop.world.refused(403, "FORBIDDEN", "permission_missing", "GET", f"{RUNS}/2024-02", headers=member)
    await shop.world.sql("UPDATE jobs.pgqueuer SET status = 'failed'")
    await ask(shop, staff, "2024-02")
    await shop.finish()
    assert (await shop.get(f"{RUNS}/2024-02", staff))["state"] == "closed"
    await shop.world.sql("UPDATE royalties.run SET announced_to = $1", UUID(int=0))
    await ask(shop, staff, "2024-02")
    assert await waiting(shop) == 2, "of one that is closed not all are told"
    await shop.refused(409, "CONFLICT", "later_period_closed", RUNS, staff, {"period": "2024-01"})
