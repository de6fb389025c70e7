"""Licences on the chain: issued with each paid period, once, taken back with the licence; over a real LocalSui."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from itertools import count
from uuid import UUID, uuid4

import pytest

from platform_api.kernel.relay import Relay
from platform_api.licensing.service import LicensingService
from platform_api.registry import copyrights, license_records
from platform_api.registry.desk import ABORTS_MAX
from platform_api.registry.service import registry_desk
from settlement.chain.encoding import address_bytes
from settlement.chain.rights import Grant
from tests.integration.platform_api.test_registry import a_story, registered
from tests.integration.platform_api.test_works import creator, published
from tests.support.licences import TERMS, issued, keyed, studio
from tests.support.registry import Crash, chain
from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = ["chain"]


@pytest.fixture
async def owner(world):
    """Somebody with creators' rights, in a world where USDC is listed."""
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    return (await creator(world))[2]


async def public_work(world, bearer):
    return (await published(world, bearer, f"Road {uuid4().hex}"))[0]


async def record(world, bearer, licence):
    (found,) = (await world.data("GET", f"/v1/licenses/{licence['id']}/chain", headers=bearer))["periods"]
    return found


async def register(world, chain, bearer, work):
    await world.data("POST", "/v1/copyrights", headers=keyed(bearer), json={"work_id": work["id"]})
    await chain.settle()


async def test_licence_gets_its_object_once_the_work_is_registered(world, chain, owner):
    work = await public_work(world, owner)
    wallet = Wallet(0)
    session, licensee = await world.sign_in(wallet)
    licence = await issued(world, owner, work, session["account_id"])
    await chain.settle()
    waiting = await record(world, licensee, licence)
    assert (waiting["status"], waiting["object_id"]) == ("waiting", None)
    await register(world, chain, owner, work)
    now = await record(world, licensee, licence)
    assert now["status"] == "issued" and await record(world, owner, licence) == now
    terms = json.loads(now["terms"])
    assert hashlib.sha256(now["terms"].encode()).hexdigest() == now["terms_sha256"]
    assert terms["license_id"] == licence["id"] and set(terms["territories"]) == set(TERMS["territories"])
    assert session["account_id"] not in now["terms"]

    code = (await world.data("GET", f"/v1/licenses/{licence['id']}", headers=licensee))["verification_code"]
    proof = await world.data("GET", f"/v1/authorizations/{code}/chain")
    assert proof["periods"] == [now | {"terms": None}] and proof["verification_code"] == code
    assert chain.node.node.state.items[address_bytes(now["object_id"])].owner == bytes.fromhex(wallet.address[2:])
    async with chain.outsider() as desk:
        held = await desk.license(now["object_id"])
    assert held.terms_hash.hex() == now["terms_sha256"] and not held.transferable
    told = await world.sql("SELECT type FROM kernel.outbox WHERE subject_id = $1", licence["id"])
    assert [row["type"] for row in told].count("license.recorded") == 1


async def test_revocation_follows_on_the_chain(world, chain, owner):
    work = await public_work(world, owner)
    await register(world, chain, owner, work)
    account, licensee = await studio(world)
    licence = await issued(world, owner, work, account)
    await chain.settle()
    assert (await record(world, licensee, licence))["status"] == "issued"
    await world.data("POST", f"/v1/licenses/{licence['id']}/revoke", headers=keyed(owner), json={"reason": "Unpaid."})
    await chain.settle()
    now = await record(world, licensee, licence)
    assert now["status"] == "revoked" and now["revoked_at"] and now["revoke_digest"]
    (row,) = await world.sql("SELECT object_id FROM registry.registration WHERE work_id = $1", UUID(work["id"]))
    async with chain.outsider() as desk:
        grants = await desk.entries((await desk.work(row["object_id"])).licenses)
    assert Grant.decode(grants[address_bytes(now["object_id"])]).revoked_ms > 0


async def test_licence_that_is_revoked_before_its_object_gets_none(world, chain, owner):
    work = await public_work(world, owner)
    account, licensee = await studio(world)
    licence = await issued(world, owner, work, account)
    await world.data("POST", f"/v1/licenses/{licence['id']}/revoke", headers=keyed(owner), json={"reason": "No."})
    await register(world, chain, owner, work)
    assert (await record(world, licensee, licence))["status"] == "dropped"
    assert chain.events("LicenseIssued") == []


async def test_licence_that_is_revoked_while_its_record_is_written_gets_no_object(world, chain, owner, monkeypatch):
    """Two processes hand events over: one has read that the licence holds, the other hears that it does not."""
    work = await public_work(world, owner)
    account, licensee = await studio(world)
    await world.settle()
    licence = await issued(world, owner, work, account)
    licenses, others = world.kernel.service(LicensingService).licenses, []
    known = licenses.known

    async def revoked_meanwhile(db, license_id):
        shown = await known(db, license_id)
        if not others:
            path = f"/v1/licenses/{licence['id']}/revoke"
            await world.data("POST", path, headers=keyed(owner), json={"reason": "No."})
            others.append(asyncio.create_task(Relay(world.kernel.database, world.kernel.events).deliver_due()))
            waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not (others[0].done() or await world.sql(waits)):
                await asyncio.sleep(0.01)
        return shown

    monkeypatch.setattr(licenses, "known", revoked_meanwhile)
    await Relay(world.kernel.database, world.kernel.events).deliver_due()
    assert await others[0] > 0
    await register(world, chain, owner, work)
    assert (await record(world, licensee, licence))["status"] == "dropped" and chain.events("LicenseIssued") == []


async def test_renewal_gets_an_object_of_its_own_and_a_revocation_takes_both(world, chain, owner):
    work = await public_work(world, owner)
    await register(world, chain, owner, work)
    account, licensee = await studio(world)
    licence = await issued(world, owner, work, account)
    await chain.settle()
    await world.data("POST", f"/v1/licenses/{licence['id']}/renew", headers=keyed(owner))
    await chain.settle()
    later, first = (await world.data("GET", f"/v1/licenses/{licence['id']}/chain", headers=licensee))["periods"]
    assert (later["status"], first["status"]) == ("issued", "issued") and later["expires_at"] > first["expires_at"]
    await world.data("POST", f"/v1/licenses/{licence['id']}/revoke", headers=keyed(owner), json={"reason": "No."})
    await chain.settle()
    periods = (await world.data("GET", f"/v1/licenses/{licence['id']}/chain", headers=licensee))["periods"]
    assert [period["status"] for period in periods] == ["revoked", "revoked"]
    assert len(chain.events("LicenseRevoked")) == 2


async def test_licensee_without_a_sui_wallet_gets_the_object_once_there_is_one(world, chain, owner):
    work = await public_work(world, owner)
    await register(world, chain, owner, work)
    account, licensee = await studio(world)
    await world.sql("UPDATE identity.wallet SET is_primary = false WHERE account_id = $1", UUID(account))
    licence = await issued(world, owner, work, account)
    await chain.settle()
    assert (await record(world, licensee, licence))["status"] == "waiting"
    await world.sql("UPDATE identity.wallet SET is_primary = true WHERE account_id = $1", UUID(account))
    await chain.settle()
    assert (await record(world, licensee, licence))["status"] == "issued"


async def test_disputed_work_gets_no_licence_until_the_dispute_is_over(world, chain, owner):
    """An abort costs gas and changes nothing: it is tried again, not for ever, and never with what is under way."""
    work = await public_work(world, owner)
    await register(world, chain, owner, work)
    (row,) = await world.sql("SELECT object_id FROM registry.registration WHERE work_id = $1", UUID(work["id"]))
    account, licensee = await studio(world)
    async with chain.outsider() as desk:
        await desk.set_disputed(row["object_id"], True)
        licence = await issued(world, owner, work, account)
        await world.settle()
        assert await chain.desk.step()
        assert (await record(world, licensee, licence))["status"] == "waiting"
        await desk.set_disputed(row["object_id"], False)
        await chain.settle()
        assert (await record(world, licensee, licence))["status"] == "issued"
        await desk.set_disputed(row["object_id"], True)
        second = await issued(world, owner, work, account)
        for _ in range(ABORTS_MAX):
            await chain.settle()
        assert (await record(world, licensee, second))["status"] == "failed"
    assert len(chain.events("LicenseIssued")) == 1
    sent = await world.sql("SELECT status, count(*) FROM registry.chain_tx WHERE purpose = 'license' GROUP BY 1")
    assert {row["status"]: row["count"] for row in sent} == {"aborted": 1 + ABORTS_MAX, "executed": 1}


async def test_only_the_parties_see_the_terms_and_codes_are_checked(world, chain, owner):
    work = await public_work(world, owner)
    account, _ = await studio(world)
    licence = await issued(world, owner, work, account)
    _, other = await world.sign_in()
    for id_ in (licence["id"], str(uuid4()), "x"):
        await world.refused(404, "NOT_FOUND", "unknown_license", "GET", f"/v1/licenses/{id_}/chain", headers=other)
    for code in ("A" * 32, "a" * 32, "x", "%00"):
        await world.refused(404, "NOT_FOUND", "unknown_authorization", "GET", f"/v1/authorizations/{code}/chain")


async def test_crash_after_any_step_issues_and_revokes_once(world, chain, owner):
    """The process dies after the n-th step of issuing, and after the n-th of revoking."""
    work, _ = await registered(world, chain, owner)
    await world.settle()
    account, licensee = await studio(world)
    database, died = world.kernel.database, 0
    for step in count():
        licence = await issued(world, owner, work, account)
        await world.settle()
        crashed = await dies(database, chain, step)
        await chain.drive()
        assert (await record(world, licensee, licence))["status"] == "issued", step
        assert len(chain.events("LicenseIssued")) == step + 1, step
        await world.data("POST", f"/v1/licenses/{licence['id']}/revoke", headers=keyed(owner), json={"reason": "No."})
        await world.settle()
        crashed |= await dies(database, chain, step)
        await chain.drive()
        assert (await record(world, licensee, licence))["status"] == "revoked", step
        assert len(chain.events("LicenseRevoked")) == step + 1, step
        if not crashed:
            break
        died += 1
    assert died >= 8


async def dies(database, chain, step):
    try:
        await registry_desk(*Crash.at(step, database, chain.rights)).step()
    except Crash:
        return True
    return False


async def test_registration_waits_for_one_of_each_other_account_and_not_for_hundreds(world, chain, owner, monkeypatch):
    """Somebody gives licences away and takes them back, and another one registers a work."""
    monkeypatch.setattr(license_records, "A_DAY", 1_000)
    work = await public_work(world, owner)
    await register(world, chain, owner, work)
    friend_id, _ = await studio(world)
    given = [await issued(world, owner, work, friend_id, base_fee="0") for _ in range(24)]
    await world.settle()
    for _ in range(8):
        assert await chain.desk.step()
    for licence in given:
        await world.data("POST", f"/v1/licenses/{licence['id']}/revoke", headers=keyed(owner), json={"reason": "x"})
    more = [await issued(world, owner, work, friend_id, base_fee="0") for _ in range(24)]
    await world.settle()
    waiting = await world.sql("SELECT count(*) AS n FROM registry.license_record WHERE status = 'waiting' OR revoked")
    assert waiting[0]["n"] >= 24 + len(more)
    _, _, honest = await creator(world, "Honest")
    mine = await a_story(world, honest)
    await world.data("POST", "/v1/copyrights", headers=keyed(honest), json={"work_id": mine["id"]})
    for _ in range(3):
        assert await chain.desk.step()
    (mine,) = await world.data("GET", f"/v1/works/{mine['id']}/registrations", headers=honest)
    assert mine["status"] == "registered"
    await chain.settle()
    rows = await world.sql("SELECT status, count(*) AS n FROM registry.license_record GROUP BY status")
    assert {row["status"]: row["n"] for row in rows} == {"revoked": 8, "dropped": 16, "issued": 24}


async def test_accounts_take_turns_at_registering(world, chain):
    """Also where each has registered before: the desk goes round, and does not begin with the first each time."""
    people = [(await creator(world, f"Author {number}"))[2] for number in range(3)]
    for bearer in people:
        for _ in range(3):
            mine = await a_story(world, bearer)
            await world.data("POST", "/v1/copyrights", headers=keyed(bearer), json={"work_id": mine["id"]})
    for turn in range(1, 4):
        for _ in people:
            assert await chain.desk.step()
        rows = await world.sql("SELECT count(*) FILTER (WHERE status = 'registered') AS n FROM registry.registration"
                               " GROUP BY account_id")  # fmt: skip
        assert [row["n"] for row in rows] == [turn] * 3


async def test_licences_beyond_a_days_number_wait_for_the_next_day(world, chain, owner, monkeypatch):
    monkeypatch.setattr(license_records, "A_DAY", 2)
    work = await public_work(world, owner)
    await register(world, chain, owner, work)
    friend_id, friend = await studio(world)
    given = [await issued(world, owner, work, friend_id, base_fee="0") for _ in range(5)]
    await chain.settle()
    found = [await record(world, friend, licence) for licence in given]
    assert sorted(each["status"] for each in found) == ["issued"] * 2 + ["waiting"] * 3
    days = [
        round((datetime.fromisoformat(each["not_before"]) - datetime.now(UTC)).total_seconds() / 86_400)
        for each in found if each["status"] == "waiting"
    ]  # fmt: skip
    assert sorted(days) == [1, 1, 2]
    await world.sql("UPDATE registry.license_record SET not_before = not_before - interval '25 hours'")
    await chain.settle()
    found = [(await record(world, friend, licence))["status"] for licence in given]
    assert sorted(found) == ["issued"] * 4 + ["waiting"]


async def test_registrations_asked_for_at_the_same_instant_are_counted_together(world, monkeypatch):
    """The first is held where it has counted them, and is not written yet."""
    monkeypatch.setattr(copyrights, "A_DAY", 1)
    _, _, bearer = await creator(world)
    works = [await a_story(world, bearer) for _ in range(2)]
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with world.kernel.database.transaction() as db:
        await db.execute("SELECT FROM identity.account WHERE id = (SELECT account_id FROM works.work WHERE id = $1)"
                         " FOR UPDATE", UUID(works[0]["id"]))  # fmt: skip
        asked = [
            asyncio.create_task(world.client.post("/v1/copyrights", headers=keyed(bearer), json={"work_id": one["id"]}))
            for one in works
        ]
        while len(await world.sql(waiting)) < 2 and not any(one.done() for one in asked):
            await asyncio.sleep(0.01)
    assert sorted([(await one).status_code for one in asked]) == [201, 409]


async def test_registrations_beyond_a_days_number_are_refused(world, chain, monkeypatch):
    monkeypatch.setattr(copyrights, "A_DAY", 2)
    _, _, bearer = await creator(world)
    for number in range(3):
        mine = await a_story(world, bearer)
        ask = ("POST", "/v1/copyrights"), {"headers": keyed(bearer), "json": {"work_id": mine["id"]}}
        if number < 2:
            await world.data(*ask[0], **ask[1])
    await world.refused(409, "CONFLICT", "too_many_registrations_a_day", *ask[0], **ask[1])
    await world.sql("UPDATE registry.registration SET created_at = created_at - interval '1 day'")
    await world.data(*ask[0], **ask[1])
