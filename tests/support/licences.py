"""Licences over the real core: who has a work, who wants it, what was issued, and what was paid for it."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest_asyncio

from platform_api.ledger.commands import pay_account
from platform_api.licensing.service import LicensingService
from tests.integration.platform_api.test_works import creator, published
from tests.support.api import opened
from tests.support.real_core import RealCore

__all__ = [
    "TERMS",
    "aged",
    "apply",
    "chain",
    "issued",
    "keyed",
    "licence",
    "owner_of_work",
    "payable",
    "studio",
    "sweep",
    "terms_for",
    "told",
    "units",
    "world",
]

TERMS = {
    "license_type": "standard", "base_fee": "0", "territories": ["PG", "AU"], "duration": "P1Y",
    "scope": ["adapt", "distribute"], "revenue_share_bps": 1000,
}  # fmt: skip


@pytest_asyncio.fixture
async def world(api_dsn, request):
    """The API over the real core, where USDC is listed; settings by indirect parametrization."""
    core = RealCore()
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    async with opened(api_dsn, core=core, **getattr(request, "param", {})) as world:
        await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
        yield world


def keyed(bearer):
    return bearer | {"idempotency-key": uuid4().hex}


async def owner_of_work(world, title="The Ink Road"):
    _, account, bearer = await creator(world)
    work, _ = await published(world, bearer, title)
    return account, bearer, work


async def studio(world, money="0"):
    session, bearer = await world.sign_in()
    await world.grant(session["account_id"], "studio")
    if money != "0":
        account = f"user:{session['account_id']}"
        answer = world.core.send(op="deposit", account=account, asset="USDC", amount=money, ref=f"dep:{uuid4().hex}")
        assert answer["event"] == "transferred", answer
    return session["account_id"], bearer


async def terms_for(world, bearer, work, **fields):
    return await world.data("POST", f"/v1/works/{work['id']}/license-terms", headers=bearer, json=TERMS | fields)


async def apply(world, bearer, terms, **fields):
    body = {"terms_id": terms["id"]} | fields
    return await world.data("POST", "/v1/license-applications", headers=keyed(bearer), json=body)


async def issued(world, bearer, work, licensee, **fields):
    body = TERMS | {"work_id": work["id"], "licensee_id": licensee} | fields
    return await world.data("POST", "/v1/licenses", headers=keyed(bearer), json=body)


async def licence(world, bearer, id_):
    return await world.data("GET", f"/v1/licenses/{id_}", headers=bearer)


async def sweep(world):
    await world.kernel.service(LicensingService).calendar.sweep()


async def aged(world, id_, days):
    """The licence and its periods, so many days earlier."""
    past = timedelta(days=days)
    await world.sql(
        "UPDATE licensing.license SET starts_at = starts_at - $2::interval, ends_at = ends_at - $2 WHERE id = $1",
        UUID(id_), past,
    )  # fmt: skip
    query = "SELECT id FROM licensing.license_period WHERE license_id = $1 ORDER BY number"
    periods = await world.sql(query, UUID(id_))
    for row in periods:  # the earliest first: they never overlap
        await world.sql(
            "UPDATE licensing.license_period SET base_at = base_at - $2::interval, pay_before = pay_before - $2,"
            " reserved = tstzrange(lower(reserved) - $2, upper(reserved) - $2) WHERE id = $1",
            row["id"], past,
        )  # fmt: skip


async def told(world, subject):
    rows = await world.sql("SELECT type FROM kernel.outbox WHERE subject_id = $1 ORDER BY position", subject)
    return [row["type"] for row in rows]


def units(world, account):
    """Available and held; of an account that nobody has opened, nothing."""
    return world.core.balance(account, "USDC") if world.core.directory.account(account) else (0, 0)


def payable(world, account_id):
    return units(world, pay_account(UUID(account_id)))[0]


async def chain(world, depth, **fields):
    """A work's owner, then licensees below one another; the licences, the bearers, the work."""
    owner_id, owner, work = await owner_of_work(world)
    parties, licences = [(owner_id, owner)], []
    for number in range(depth):
        below_id, below = await studio(world, "100")
        parent = {"parent_license_id": licences[-1]["id"]} if licences else {}
        days = {"duration": f"P{300 - number}D", "sublicensing": True}
        licences.append(await issued(world, parties[-1][1], work, below_id, **parent, **days, **fields))
        parties.append((below_id, below))
    return work, parties, licences
