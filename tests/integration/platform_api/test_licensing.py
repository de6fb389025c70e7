"""Licences over HTTP, a real PostgreSQL and the real core: terms, applications, the gate, the chain, seats."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_api.app import openapi_document
from platform_api.errors import ApiError
from platform_api.ids import new_id
from platform_api.licensing.measures import (
    SCOPES,
    TERRITORIES,
    check_duration,
    expanded,
    scope_set,
    territory_set,
    tidy,
)
from tests.integration.platform_api.test_works import TEXT, chapter, creator, decided, file_of, published, story
from tests.support.files import png
from tests.support.licences import (
    TERMS,
    aged,
    apply,
    chain,
    issued,
    keyed,
    licence,
    owner_of_work,
    payable,
    studio,
    sweep,
    terms_for,
    told,
    units,
    world,
)

__all__ = ["world"]

ROUTES = """
GET /v1/works/{}/license-terms
POST /v1/works/{}/license-terms
PATCH /v1/license-terms/{}
DELETE /v1/license-terms/{}
POST /v1/license-applications
GET /v1/license-applications
GET /v1/license-applications/{}
POST /v1/license-applications/{}/approve
POST /v1/license-applications/{}/reject
POST /v1/license-applications/{}/withdraw
GET /v1/licenses
POST /v1/licenses
GET /v1/licenses/{}
POST /v1/licenses/{}/pay
POST /v1/licenses/{}/renew
POST /v1/licenses/{}/works
POST /v1/licenses/{}/revoke
POST /v1/licenses/{}/refund
GET /v1/licenses/{}/verify
GET /v1/licenses/{}/seats
GET /v1/licenses/{}/access-token
POST /v1/licenses/{}/seats
DELETE /v1/licenses/{}/seats/{}
GET /v1/authorizations/{}
GET /v1/authorizations/{}/history
GET /v1/works/{}/windows
POST /v1/windows
PATCH /v1/windows/{}
DELETE /v1/windows/{}
GET /v1/availability/{}
POST /v1/availability/bulk
GET /v1/admin/license-applications
POST /v1/admin/license-applications/{}/approve
POST /v1/admin/license-applications/{}/reject
POST /v1/admin/licenses/{}/revoke
POST /v1/admin/licenses/{}/suspend
POST /v1/admin/licenses/{}/resume
"""


def test_document_names_every_route_of_licensing():
    document = openapi_document()
    named = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path)) for path, item in document["paths"].items() for method in item
    }
    assert named >= {tuple(route.split()) for route in ROUTES.strip().splitlines()}


# Terms.


async def test_terms_have_versions_and_granted_licences_keep_theirs(world):
    _, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work, territories=["AU", "PG", "AU"], scope=["distribute", "adapt"])
    assert (terms["territories"], terms["scope"], terms["base_fee"]) == (["AU", "PG"], ["adapt", "distribute"], "0")
    assert await world.data("GET", f"/v1/works/{work['id']}/license-terms") == [terms]
    _, buyer = await studio(world)
    application = await apply(world, buyer, terms)
    path = f"/v1/license-terms/{terms['id']}"
    old = owner | {"if-match": '"7"'}
    await world.refused(409, "CONFLICT", "version_mismatch", "PATCH", path, headers=old, json={"base_fee": "5"})
    changed = await world.data("PATCH", path, headers=owner | {"if-match": '"1"'},
                               json={"base_fee": "5.25", "duration": "P6M"})  # fmt: skip
    assert (changed["base_fee"], changed["duration"], changed["version"]) == ("5.25", "P6M", 2)
    approve = f"/v1/license-applications/{application['id']}/approve"
    approved = await world.data("POST", approve, headers=keyed(owner))
    held = await licence(world, buyer, approved["license_id"])
    assert (held["base_fee"], held["duration"], held["status"]) == ("0", "P1Y", "active")
    await world.data("DELETE", path, headers=owner)
    assert await world.data("GET", f"/v1/works/{work['id']}/license-terms") == []
    body = {"terms_id": terms["id"]}
    await world.refused(400, "VALIDATION_ERROR", "unknown_terms", "POST", "/v1/license-applications",
                        headers=keyed(buyer), json=body)  # fmt: skip
    assert (await licence(world, buyer, held["id"]))["valid"]


async def test_what_is_no_territory_is_told_what_one_is(world):
    _, bearer, work = await owner_of_work(world)
    answer = await world.refused(
        400, "VALIDATION_ERROR", "invalid", "POST", f"/v1/works/{work['id']}/license-terms", headers=bearer,
        json=TERMS | {"territories": ["worldwide"]},
    )  # fmt: skip
    assert "a code of ISO 3166-1 as PG, or WW for everywhere" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"territories": ["XX"]}, "unknown_territory"), ({"territories": []}, "invalid"), ({"scope": ["game"]}, "invalid"),
     ({"duration": "P0D"}, "bad_duration"), ({"duration": "P1"}, "invalid"), ({"duration": "PT"}, "invalid"),
     ({"duration": "P1Y2"}, "bad_duration"), ({"base_fee": "-1"}, "invalid"), ({"base_fee": "0.0000001"}, "bad_price"),
     ({"asset": "NONE"}, "unknown_asset"), ({"revenue_share_bps": 10_001}, "invalid"), ({"seats": 3}, "wrong_type"),
     ({"license_type": "loose"}, "invalid"), ({"max_licenses": 0}, "invalid"), ({"price": "1"}, "invalid")],
)  # fmt: skip
async def test_malformed_terms_are_refused(world, wrong, reason):
    _, owner, work = await owner_of_work(world)
    path = f"/v1/works/{work['id']}/license-terms"
    await world.refused(400, "VALIDATION_ERROR", reason, "POST", path, headers=owner, json=TERMS | wrong)


# Applications.


async def test_application_is_decided_by_the_licensor_and_by_nobody_else(world):
    _, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work)
    account, buyer = await studio(world)
    other, stranger = await studio(world)
    for id_ in (account, other):
        await world.grant(id_, "creator")  # who may decide about works of their own
    application = await apply(world, buyer, terms, territories=["PG"], purpose="A film.")
    assert (application["status"], application["territories"], application["license_id"]) == ("pending", ["PG"], None)
    path = f"/v1/license-applications/{application['id']}"
    for party, bearer, found in (("applicant", buyer, 1), ("licensor", owner, 1), ("licensor", buyer, 0)):
        listed = await world.data("GET", f"/v1/license-applications?as={party}&status=pending", headers=bearer)
        assert len(listed) == found
    for bearer in (stranger, buyer):
        await world.refused(404, "NOT_FOUND", "unknown_application", "POST", f"{path}/approve", headers=keyed(bearer))
    await world.refused(404, "NOT_FOUND", "unknown_application", "GET", path, headers=stranger)
    await world.refused(404, "NOT_FOUND", "unknown_application", "POST", f"{path}/withdraw", headers=owner)
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", f"{path}/approve", headers=owner)
    key = keyed(owner)
    approved = await world.data("POST", f"{path}/approve", headers=key)
    assert approved["status"] == "approved" and await world.data("POST", f"{path}/approve", headers=key) == approved
    await world.refused(409, "CONFLICT", "not_pending", "POST", f"{path}/approve", headers=keyed(owner))
    await world.refused(409, "CONFLICT", "not_pending", "POST", f"{path}/withdraw", headers=buyer)
    held = await licence(world, owner, approved["license_id"])
    assert (held["licensee_id"], held["territories"], held["application_id"]) == (account, ["PG"], application["id"])
    assert await told(world, application["id"]) == ["license.applied", "license.approved"]
    assert await told(world, held["id"]) == ["license.activated"]


async def test_rejected_and_withdrawn_applications_reserve_nothing(world):
    _, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work, license_type="exclusive")
    _, buyer = await studio(world)
    first = await apply(world, buyer, terms)
    body = {"terms_id": terms["id"]}
    path = "/v1/license-applications"
    await world.refused(409, "CONFLICT", "application_pending", "POST", path, headers=keyed(buyer), json=body)
    reject = f"{path}/{first['id']}/reject"
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", reject, headers=owner, json={"reason": " "})
    assert (await world.data("POST", reject, headers=owner, json={"reason": "No."}))["status"] == "rejected"
    second = await apply(world, buyer, terms)
    withdrawn = await world.data("POST", f"{path}/{second['id']}/withdraw", headers=buyer)
    assert withdrawn["status"] == "withdrawn"
    third = await apply(world, buyer, terms)
    approved = await world.data("POST", f"{path}/{third['id']}/approve", headers=keyed(owner))
    assert (await licence(world, buyer, approved["license_id"]))["status"] == "active"


async def test_who_may_apply_and_for_what(world):
    _, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work, max_licenses=1, auto_approve=True)
    path, body = "/v1/license-applications", {"terms_id": terms["id"]}
    _, member = await world.sign_in()
    await world.refused(403, "FORBIDDEN", "permission_missing", "POST", path, headers=keyed(member), json=body)
    _, buyer = await studio(world)
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", path, headers=buyer, json=body)
    for wrong, reason in (
        ({"territories": ["PG", "NZ"]}, "beyond_terms"), ({"territories": ["WW"]}, "beyond_terms"),
        ({"terms_id": str(uuid4())}, "unknown_terms"), ({"starts_at": "0001-01-01T00:00:00Z"}, "bad_moment"),
    ):  # fmt: skip
        await world.refused(400, "VALIDATION_ERROR", reason, "POST", path, headers=keyed(buyer), json=body | wrong)
    assert (await apply(world, buyer, terms))["status"] == "approved"
    _, late = await studio(world)
    await world.refused(409, "CONFLICT", "none_left", "POST", path, headers=keyed(late), json=body)
    session, own = await world.sign_in()
    await world.grant(session["account_id"], "studio")
    await world.data("POST", "/v1/creators", headers=own, json={"display_name": "Both"})
    mine, _ = await published(world, own, "Mine")
    mine_terms = await terms_for(world, own, mine)
    await world.refused(403, "FORBIDDEN", "own_work", "POST", path, headers=keyed(own),
                        json={"terms_id": mine_terms["id"]})  # fmt: skip
    draft = await story(world, owner, "Draft")
    hidden = await terms_for(world, owner, draft)
    await world.refused(400, "VALIDATION_ERROR", "unknown_terms", "POST", path, headers=keyed(buyer),
                        json={"terms_id": hidden["id"]})  # fmt: skip


async def test_staff_decides_but_never_their_own_matters(world):
    owner_id, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work)
    buyer_id, buyer = await studio(world)
    application = await apply(world, buyer, terms)
    session, staff = await world.sign_in()
    await world.grant(session["account_id"], "admin")
    path = f"/v1/admin/license-applications/{application['id']}"
    assert application["id"] in [row["id"] for row in await world.data(
        "GET", "/v1/admin/license-applications?limit=200", headers=staff)]  # fmt: skip
    await world.refused(403, "FORBIDDEN", "permission_missing", "POST", f"{path}/approve", headers=keyed(owner))
    for account, bearer in ((owner_id, owner), (buyer_id, buyer)):
        await world.grant(account, "admin")
        await world.refused(403, "FORBIDDEN", "own_account", "POST", f"{path}/approve", headers=keyed(bearer))
    approved = await world.data("POST", f"{path}/approve", headers=keyed(staff))
    revoke = f"/v1/admin/licenses/{approved['license_id']}/revoke"
    await world.refused(403, "FORBIDDEN", "own_account", "POST", revoke, headers=keyed(buyer), json={"reason": "x"})
    revoked = await world.data("POST", revoke, headers=keyed(staff), json={"reason": "A court said so."})
    assert (revoked["status"], revoked["reason"]) == ("revoked", "A court said so.")
    rows = await world.sql("SELECT actor_id, old_values, new_values FROM kernel.audit_entry WHERE resource_id = $1"
                           " AND action = 'license.revoked'", approved["license_id"])  # fmt: skip
    assert [str(row["actor_id"]) for row in rows] == [session["account_id"]] and "A court" in rows[0]["new_values"]


# Exclusivity.


@pytest.mark.parametrize(
    ("first", "second", "stands"),
    [
        ({"license_type": "exclusive"}, {"license_type": "exclusive"}, False),
        ({"license_type": "exclusive"}, {"license_type": "standard"}, False),
        ({"license_type": "standard"}, {"license_type": "exclusive"}, False),
        ({"license_type": "standard"}, {"license_type": "standard"}, True),
        ({"license_type": "exclusive", "territories": ["WW"]}, {"license_type": "exclusive", "territories": ["ZW"]},
         False),
        ({"license_type": "exclusive", "territories": ["PG"]}, {"license_type": "exclusive", "territories": ["AU"]},
         True),
        ({"license_type": "exclusive", "scope": ["audio"]}, {"license_type": "exclusive", "scope": ["adapt"]}, True),
        ({"license_type": "exclusive", "scope": ["audio", "perform"]}, {"scope": ["adapt", "perform"]}, False),
        ({"license_type": "exclusive", "duration": "P1D"},
         {"license_type": "exclusive", "starts_at": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, True),
        ({"license_type": "exclusive", "duration": "P3D"},
         {"license_type": "exclusive", "starts_at": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, False),
    ],
)  # fmt: skip
async def test_exclusive_licence_stands_alone_in_scope_territory_and_time(world, first, second, stands):
    _, owner, work = await owner_of_work(world)
    one, _ = await studio(world)
    two, _ = await studio(world)
    await issued(world, owner, work, one, **first)
    body = TERMS | {"work_id": work["id"], "licensee_id": two} | second
    if stands:
        await world.data("POST", "/v1/licenses", headers=keyed(owner), json=body)
    else:
        await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", "/v1/licenses", headers=keyed(owner),
                            json=body)  # fmt: skip
    other, _ = await published(world, owner, "Another work")
    await issued(world, owner, other, two, license_type="exclusive")


async def test_of_two_buyers_of_one_exclusive_licence_at_the_same_instant_one_wins(world):
    _, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work, license_type="exclusive", auto_approve=True, base_fee="10")
    buyers = [await studio(world, "100") for _ in range(6)]
    body = {"terms_id": terms["id"]}
    answers = await asyncio.gather(*(
        world.client.post("/v1/license-applications", headers=keyed(bearer), json=body) for _, bearer in buyers
    ))  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    reasons = {answer.json()["error"]["details"]["reason"] for answer in answers if answer.status_code == 409}
    assert reasons == {"exclusivity_clash"}
    rows = await world.sql("SELECT status FROM licensing.license WHERE work_id = $1", UUID(work["id"]))
    assert [row["status"] for row in rows] == ["active"]
    rows = await world.sql("SELECT status FROM licensing.license_application WHERE work_id = $1", UUID(work["id"]))
    assert [row["status"] for row in rows] == ["approved"], "those that lost left nothing"
    assert sorted(units(world, f"user:{buyer}")[0] for buyer, _ in buyers) == [90_000_000] + [100_000_000] * 5


async def test_nobody_keeps_others_from_an_exclusive_licence_without_paying(world):
    owner_id, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work, license_type="exclusive", auto_approve=True, base_fee="10")
    poor_id, poor = await studio(world, "9")
    path, body, key = "/v1/license-applications", {"terms_id": terms["id"]}, keyed(poor)
    for _ in range(2):  # the same key: the same failure
        answer = await world.refused(402, "PAYMENT_FAILED", "insufficient_funds", "POST", path, headers=key, json=body)
    ended = await licence(world, poor, answer.json()["error"]["details"]["id"])
    assert (ended["status"], ended["reason"]) == ("expired", "It was not paid in time.")
    rich_id, rich = await studio(world, "10")
    key = keyed(rich)
    made = await world.data("POST", path, headers=key, json=body)
    assert await world.data("POST", path, headers=key, json=body) == made
    assert (await licence(world, rich, made["license_id"]))["status"] == "active"
    await world.settle()
    assert [units(world, f"user:{one}") for one in (poor_id, rich_id)] == [(9_000_000, 0), (0, 0)]
    assert payable(world, owner_id) == 8_500_000


async def test_core_that_is_away_leaves_the_exclusive_licence_to_who_applied(world):
    _, owner, work = await owner_of_work(world)
    terms = await terms_for(world, owner, work, license_type="exclusive", auto_approve=True, base_fee="10")
    _, first = await studio(world, "10")
    _, second = await studio(world, "10")
    world.core.lose.append("request")
    made = await apply(world, first, terms)
    waits = await licence(world, first, made["license_id"])
    assert waits["status"] == "pending_payment"
    path, body = "/v1/license-applications", {"terms_id": terms["id"]}
    await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", path, headers=keyed(second), json=body)
    await world.settle()
    assert (await licence(world, first, made["license_id"]))["status"] == "active"


async def test_exclusive_beside_others_at_the_same_instant(world):
    """One exclusive and five standard licences at once: either the exclusive one stands, or some of the others."""
    _, owner, work = await owner_of_work(world)
    exclusive = await terms_for(world, owner, work, license_type="exclusive", auto_approve=True)
    standard = await terms_for(world, owner, work, auto_approve=True)
    buyers = [(exclusive, await studio(world))] + [(standard, await studio(world)) for _ in range(5)]
    await asyncio.gather(*(
        world.client.post("/v1/license-applications", headers=keyed(bearer), json={"terms_id": terms["id"]})
        for terms, (_, bearer) in buyers
    ))  # fmt: skip
    rows = await world.sql("SELECT license_type FROM licensing.license WHERE work_id = $1", UUID(work["id"]))
    types = sorted(row["license_type"] for row in rows)
    assert types in (["exclusive"], ["standard"] * 5)


async def test_database_has_the_last_word_without_the_lock(world):
    """Two exclusive periods that overlap cannot both be written, whoever forgets to lock or to look."""
    _, owner, work = await owner_of_work(world)
    one, _ = await studio(world)
    held = await issued(world, owner, work, one, license_type="exclusive")
    copy = (
        "INSERT INTO licensing.license_period (id, license_id, number, level, exclusive, territory_set, scope_set,"
        " base_at, reserved, fee_units, pay_before, status) SELECT $2::uuid, license_id, 2, level, true,"
        " territory_set, scope_set, base_at, reserved, 0, pay_before, 'active'"
        " FROM licensing.license_period WHERE license_id = $1"
    )
    with pytest.raises(asyncpg.ExclusionViolationError):
        await world.sql(copy, UUID(held["id"]), new_id())


async def test_unpaid_exclusive_licence_is_in_the_way_only_as_long_as_it_may_be_paid(world):
    _, owner, work = await owner_of_work(world)
    one, first = await studio(world, "100")
    two, _ = await studio(world)
    waits = await issued(world, owner, work, one, license_type="exclusive", base_fee="10")
    assert (waits["status"], waits["fee_due"], waits["valid"], waits["starts_at"]) == (
        "pending_payment", "10", False, None)  # fmt: skip
    body = TERMS | {"work_id": work["id"], "licensee_id": two}
    await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", "/v1/licenses", headers=keyed(owner), json=body)
    await aged(world, waits["id"], 8)
    path = f"/v1/licenses/{waits['id']}/pay"
    await world.refused(409, "CONFLICT", "too_late", "POST", path, headers=keyed(first))
    await world.data("POST", "/v1/licenses", headers=keyed(owner), json=body)
    ended = await licence(world, first, waits["id"])
    assert (ended["status"], ended["reason"]) == ("expired", "It was not paid in time.")
    assert await told(world, waits["id"]) == ["license.expired"]


# The chain.


async def test_sub_licence_is_never_more_than_the_licence_above(world):
    work, parties, (top,) = await chain(world, 1)
    (_, owner), (_, holder) = parties
    other_id, other = await studio(world)
    body = TERMS | {
        "work_id": work["id"], "licensee_id": other_id, "parent_license_id": top["id"], "duration": "P10D"
    }  # fmt: skip
    path = "/v1/licenses"
    for wrong in (
        {"territories": ["NZ"]}, {"territories": ["WW"]}, {"scope": ["audio"]}, {"duration": "P400D"},
        {"license_type": "exclusive"}, {"starts_at": "2020-01-01T00:00:00Z"},
    ):  # fmt: skip
        await world.refused(400, "VALIDATION_ERROR", "beyond_parent", "POST", path, headers=keyed(holder),
                            json=body | wrong)  # fmt: skip
    for bearer in (owner, (await studio(world))[1]):
        await world.refused(400, "VALIDATION_ERROR", "unknown_license", "POST", path, headers=keyed(bearer), json=body)
    below = await world.data("POST", path, headers=keyed(holder), json=body)
    assert (below["parent_license_id"], below["licensor_id"], below["valid"]) == (top["id"], parties[1][0], True)
    third, _ = await studio(world)
    deeper = body | {"parent_license_id": below["id"], "licensee_id": third, "duration": "P5D"}
    await world.refused(403, "FORBIDDEN", "no_sublicensing", "POST", path, headers=keyed(other), json=deeper)


async def test_exclusive_licence_is_given_on_exclusively_below_itself(world):
    work, parties, licences = await chain(world, 2, license_type="exclusive")
    for one, (_, bearer) in zip(licences, parties[1:], strict=True):
        assert (await licence(world, bearer, one["id"]))["valid"]
    third, _ = await studio(world)
    body = TERMS | {"work_id": work["id"], "licensee_id": third, "parent_license_id": licences[0]["id"],
                    "duration": "P10D"}  # fmt: skip
    await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", "/v1/licenses", headers=keyed(parties[1][1]),
                        json=body)  # fmt: skip


async def test_revocation_goes_down_the_chain_and_no_further(world):
    work, parties, licences = await chain(world, 4)
    await world.data("POST", f"/v1/licenses/{licences[1]['id']}/revoke", headers=keyed(parties[1][1]),
                     json={"reason": "Unpaid sales."})  # fmt: skip
    shown = [await licence(world, bearer, one["id"])
             for one, (_, bearer) in zip(licences, parties[1:], strict=True)]  # fmt: skip
    assert [one["status"] for one in shown] == ["active", "revoked", "revoked", "revoked"]
    assert [one["valid"] for one in shown] == [True, False, False, False]
    assert shown[1]["reason"] == "Unpaid sales." and shown[3]["reason"] == "A licence above it was revoked."
    for one in licences[1:]:
        assert await told(world, one["id"]) == ["license.activated", "license.revoked", "authorization.revoked"]
    path = f"/v1/licenses/{licences[2]['id']}/revoke"
    await world.refused(409, "CONFLICT", "not_active", "POST", path, headers=keyed(parties[2][1]), json={"reason": "x"})
    found = await world.data("GET", f"/v1/authorizations/{shown[3]['verification_code']}")
    assert found["valid"] is False and [link["valid"] for link in found["lineage"]] == [True, False, False, False]


async def test_licence_holds_only_as_long_as_every_one_above_it(world):
    """Computed from the chain, whatever the rows below say."""
    _, parties, licences = await chain(world, 3)
    await world.sql("UPDATE licensing.license SET status = 'suspended' WHERE id = $1", UUID(licences[0]["id"]))
    verified = await world.data("GET", f"/v1/licenses/{licences[2]['id']}/verify")
    assert (verified["valid"], verified["why_not"]) == (False, "above")
    assert not (await licence(world, parties[3][1], licences[2]["id"]))["valid"]


async def test_chain_has_at_most_sixteen_licences(world):
    work, parties, licences = await chain(world, 16)
    last, _ = await studio(world)
    body = TERMS | {"work_id": work["id"], "licensee_id": last, "parent_license_id": licences[-1]["id"],
                    "duration": "P10D"}  # fmt: skip
    await world.refused(409, "CONFLICT", "chain_too_deep", "POST", "/v1/licenses", headers=keyed(parties[-1][1]),
                        json=body)  # fmt: skip
    assert (await world.data("GET", f"/v1/licenses/{licences[-1]['id']}/verify"))["valid"]


# Suspension.


async def test_suspended_licence_holds_no_more_until_staff_resumes_it(world):
    work, parties, (top,) = await chain(world, 1)
    buyer_id, buyer = await studio(world)
    below = await issued(world, parties[1][1], work, buyer_id, parent_license_id=top["id"], duration="P10D")
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "admin")
    path, body = f"/v1/admin/licenses/{top['id']}", {"reason": "Somebody else says that it is theirs."}
    await world.refused(403, "FORBIDDEN", "permission_missing", "POST", f"{path}/suspend", headers=parties[0][1],
                        json=body)  # fmt: skip
    await world.refused(409, "CONFLICT", "not_suspended", "POST", f"{path}/resume", headers=staff)
    found = await world.data("POST", f"{path}/suspend", headers=staff, json=body)
    assert (found["status"], found["valid"], found["reason"]) == ("suspended", False, body["reason"])
    await world.refused(409, "CONFLICT", "not_active", "POST", f"{path}/suspend", headers=staff, json=body)
    for id_, why in ((top["id"], "suspended"), (below["id"], "above")):
        seen = await world.data("GET", f"/v1/licenses/{id_}/verify")
        assert (seen["valid"], seen["why_not"]) == (False, why)
    await world.refused(409, "CONFLICT", "not_active", "POST", f"/v1/licenses/{top['id']}/renew",
                        headers=keyed(parties[0][1]))  # fmt: skip
    assert (await world.data("POST", f"{path}/resume", headers=staff))["valid"]
    assert (await world.data("GET", f"/v1/licenses/{below['id']}/verify"))["valid"]
    assert (await told(world, top["id"]))[-2:] == ["license.suspended", "license.resumed"]
    await world.data("POST", f"{path}/suspend", headers=staff, json=body)
    await aged(world, top["id"], 400)
    await sweep(world)
    assert (await licence(world, parties[1][1], top["id"]))["status"] == "expired", "its time went on"


async def test_renewal_that_is_paid_while_suspended_does_not_resume(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    held = await issued(world, owner, work, buyer_id, base_fee="10")
    await world.data("POST", f"/v1/licenses/{held['id']}/pay", headers=keyed(buyer))
    await world.data("POST", f"/v1/licenses/{held['id']}/renew", headers=keyed(owner))
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "admin")
    path = f"/v1/admin/licenses/{held['id']}"
    await world.data("POST", f"{path}/suspend", headers=staff, json={"reason": "Wait."})
    paid = await world.data("POST", f"/v1/licenses/{held['id']}/pay", headers=keyed(buyer))
    assert (paid["status"], paid["fee_due"], paid["valid"]) == ("suspended", None, False)
    longer = await world.data("POST", f"{path}/resume", headers=staff)
    assert longer["valid"] and longer["ends_at"] > held["created_at"]


# Works made under a licence.


async def test_work_made_under_a_licence_shares_what_it_earns_also_after_its_end(world):
    owner_id, owner, work = await owner_of_work(world)
    maker_id, maker, film = await owner_of_work(world, "The film")
    await world.grant(maker_id, "studio")
    held = await issued(world, owner, work, maker_id, revenue_share_bps=2000)
    path = f"/v1/licenses/{held['id']}/works"
    body = {"work_id": film["id"]}
    await world.refused(404, "NOT_FOUND", "unknown_license", "POST", path, headers=owner, json=body)
    foreign = {"work_id": work["id"]}
    await world.refused(400, "VALIDATION_ERROR", "unknown_work", "POST", path, headers=maker, json=foreign)
    await world.data("POST", path, headers=maker, json=body)
    await world.refused(409, "CONFLICT", "declared", "POST", path, headers=maker, json=body)

    async def sell():
        """A licence of the film for 10."""
        buyer_id, buyer = await studio(world, "10")
        sold = await issued(world, maker, film, buyer_id, base_fee="10")
        await world.data("POST", f"/v1/licenses/{sold['id']}/pay", headers=keyed(buyer))
        for _ in range(3):
            await world.settle()
        return payable(world, maker_id), payable(world, owner_id)

    assert await sell() == (6_800_000, 1_700_000), "8.50 came to the film, and 20 % of it to the story"
    await world.data("POST", f"/v1/licenses/{held['id']}/revoke", headers=keyed(owner), json={"reason": "Over."})
    assert await sell() == (13_600_000, 3_400_000), "who lets it end gains nothing by it"
    anew = await issued(world, owner, work, maker_id, revenue_share_bps=1000)
    await world.data("POST", f"/v1/licenses/{anew['id']}/works", headers=maker, json=body)
    assert await sell() == (21_250_000, 4_250_000), "a lower one takes the place of the old one: nobody else is paid"
    plain = await issued(world, owner, work, maker_id, revenue_share_bps=0)
    await world.refused(409, "CONFLICT", "no_share", "POST", f"/v1/licenses/{plain['id']}/works", headers=maker,
                        json=body)  # fmt: skip
    shown = await issued(world, owner, work, maker_id, scope=["distribute"])
    await world.refused(403, "FORBIDDEN", "beyond_license", "POST", f"/v1/licenses/{shown['id']}/works", headers=maker,
                        json=body)  # fmt: skip


# Verification.


async def test_code_is_for_everybody_and_tells_nobody_who(world):
    work, parties, licences = await chain(world, 2)
    held = await licence(world, parties[2][1], licences[1]["id"])
    code = held["verification_code"]
    answer = await world.client.get(f"/v1/authorizations/{code}")
    found = answer.json()["data"]
    assert (found["valid"], found["work_title"]) == (True, "The Ink Road")
    assert [link["depth"] for link in found["lineage"]] == [1, 2]
    history = await world.client.get(f"/v1/authorizations/{code}/history")
    assert [event["what"] for event in history.json()["data"]] == ["activated"]
    verify = await world.client.get(f"/v1/licenses/{held['id']}/verify")
    assert verify.json()["data"]["until"] == held["ends_at"]
    for account, _ in parties:
        assert account not in answer.text + history.text + verify.text
    for wrong in ("A" * 32, code.lower(), code[:-1], "%00", str(uuid4())):
        await world.refused(404, "NOT_FOUND", "unknown_authorization", "GET", f"/v1/authorizations/{wrong}")
    await world.refused(404, "NOT_FOUND", "unknown_license", "GET", f"/v1/licenses/{uuid4()}/verify")


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
async def test_code_tells_a_title_once_somebody_has_looked_at_it(world):
    _, _, owner = await creator(world)
    work = await story(world, owner, "Never looked at")
    staff, moderator = await world.sign_in()
    await world.grant(staff["account_id"], "moderator")
    buyer_id, buyer = await studio(world)
    held = await issued(world, owner, work, buyer_id, license_type="enterprise", seats=1)
    code = (await licence(world, buyer, held["id"]))["verification_code"]
    path = f"/v1/works/{work['id']}"

    async def title():
        return (await world.data("GET", f"/v1/authorizations/{code}"))["work_title"]

    first = await chapter(world, owner, work, "One")
    await world.data("POST", f"/v1/chapters/{first['id']}/publish", headers=owner)
    _, holder = await seated(world, buyer, held)
    assert not await is_locked(world, holder, work, first)  # what the owner licensed, the holder has
    shown = None
    for new, decision, after in (
        ("First", "reject", None), ("Second", "approve", "Second"), ("Third", "reject", "Second"),
        ("Fourth", "approve", "Fourth"),
    ):  # fmt: skip
        changed = await world.data("PATCH", path, headers=owner, json={"title": new})
        if changed["status"] == "draft":
            await world.data("POST", f"{path}/publish", headers=owner)
        assert await title() == shown
        await decided(world, moderator, work, decision)
        shown = await title()
        assert shown == after


# Seats.


async def test_seats_are_never_more_than_the_licence_has(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world)
    held = await issued(world, owner, work, buyer_id, license_type="enterprise", seats=3)
    path = f"/v1/licenses/{held['id']}/seats"
    people = [(await world.sign_in())[0]["account_id"] for _ in range(6)]
    answers = await asyncio.gather(*(
        world.client.post(path, headers=buyer, json={"account_id": account}) for account in people
    ))  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 409, 409, 409]
    seated = [seat["account_id"] for seat in await world.data("GET", path, headers=buyer)]
    assert len(seated) == 3
    await world.data("DELETE", f"{path}/{seated[0]}", headers=buyer)
    await world.refused(404, "NOT_FOUND", "unknown_seat", "DELETE", f"{path}/{seated[0]}", headers=buyer)
    await world.refused(409, "CONFLICT", "seated", "POST", path, headers=buyer, json={"account_id": seated[1]})
    await world.refused(400, "VALIDATION_ERROR", "unknown_account", "POST", path, headers=buyer,
                        json={"account_id": str(uuid4())})  # fmt: skip
    for bearer in (owner, (await studio(world))[1]):
        await world.refused(404, "NOT_FOUND", "unknown_license", "GET", path, headers=bearer)
    page = await world.client.get(f"{path}?limit=1", headers=buyer)
    cursor = page.json()["pagination"]["next_cursor"]
    rest = await world.data("GET", f"{path}?cursor={cursor}", headers=buyer)
    assert [page.json()["data"][0]["account_id"], rest[0]["account_id"]] == sorted(seated[1:])
    plain = await issued(world, owner, work, buyer_id)
    await world.refused(409, "CONFLICT", "no_seats", "POST", f"/v1/licenses/{plain['id']}/seats", headers=buyer,
                        json={"account_id": seated[0]})  # fmt: skip
    await world.data("POST", f"/v1/licenses/{held['id']}/revoke", headers=keyed(owner), json={"reason": "x"})
    assert await world.data("GET", path, headers=buyer) == []


async def seated(world, bearer, held):
    """Somebody new, who gets a seat: account and bearer."""
    session, holder = await world.sign_in()
    path = f"/v1/licenses/{held['id']}/seats"
    await world.data("POST", path, headers=bearer, json={"account_id": session["account_id"]})
    return session["account_id"], holder


async def with_files(world):
    """A published story with a master file, a chapter of text and one of a file."""
    _, owner, work = await owner_of_work(world)
    master = await file_of(world, owner, png(b"master"))
    inside = f"/v1/works/{work['id']}"
    await world.data("POST", f"{inside}/assets", headers=owner, json={"role": "master", "file_id": master["id"]})
    scan = await file_of(world, owner, png(b"page"))
    body = {"title": "Drawn", "file_id": scan["id"]}
    drawn = await world.data("POST", f"{inside}/chapters", headers=owner, json=body)
    await world.data("POST", f"/v1/chapters/{drawn['id']}/publish", headers=owner)
    first, _ = await world.data("GET", f"{inside}/chapters")
    return owner, work, first, drawn


async def is_locked(world, bearer, work, one):
    path = f"/v1/works/{work['id']}/chapters/{one['id']}"
    return (await world.data("GET", path, headers=bearer))["locked"]


async def test_a_seat_opens_the_work_as_long_as_it_and_its_licence_hold(world):
    owner, work, first, drawn = await with_files(world)
    buyer_id, buyer = await studio(world)
    held = await issued(world, owner, work, buyer_id, license_type="enterprise", seats=3)
    seats, files = f"/v1/licenses/{held['id']}/seats", f"/v1/licenses/{held['id']}/access-token"
    _, stranger = await world.sign_in()
    holder_id, holder = await seated(world, buyer, held)

    async def is_open(bearer):
        """Chapter, library and files agree."""
        locked = await is_locked(world, bearer, work, first)
        shelf = await world.data("GET", "/v1/library", headers=bearer)
        status = (await world.client.get(files, headers=bearer)).status_code
        assert (len(shelf), status == 200) == ((0, False) if locked else (1, True)), (locked, shelf, status)
        return not locked

    assert await is_open(holder)
    (right,) = await world.data("GET", "/v1/library", headers=holder)
    assert (right["kind"], right["work_id"], right["license_id"]) == ("seat", work["id"], held["id"])
    assert (right["purchase_id"], right["ends_at"]) == (None, held["ends_at"])
    opened = await world.data("GET", files, headers=holder)
    assert [file["role"] for file in opened["files"]] == ["master"] and opened["ends_at"] == held["ends_at"]
    assert (await world.client.get(opened["files"][0]["url"])).content == png(b"master")
    page = await world.data("GET", f"{files}?chapter_id={drawn['id']}", headers=holder)
    assert (await world.client.get(page["files"][0]["url"])).content == png(b"page")
    await world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", f"{files}?chapter_id={uuid4()}", headers=holder)
    assert not await is_open(stranger) and not await is_open(buyer)
    await world.refused(404, "NOT_FOUND", "unknown_license", "GET", files, headers=stranger)
    for party in (buyer, owner):  # the licensee needs a seat as everybody does
        await world.refused(403, "FORBIDDEN", "no_seat", "GET", files, headers=party)
    path = f"/v1/works/{work['id']}/rating"
    await world.refused(403, "FORBIDDEN", "not_bought", "PUT", path, headers=holder, json={"stars": 5})
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "admin")
    admin = f"/v1/admin/licenses/{held['id']}"
    await world.data("POST", f"{admin}/suspend", headers=staff, json={"reason": "Looked into."})
    assert not await is_open(holder)
    await world.refused(403, "LICENSE_EXPIRED", "access_ended", "GET", files, headers=holder)
    await world.data("POST", f"{admin}/resume", headers=staff)
    assert await is_open(holder)
    await world.data("DELETE", f"{seats}/{holder_id}", headers=buyer)
    assert not await is_open(holder)
    await world.refused(403, "LICENSE_EXPIRED", "access_ended", "GET", files, headers=holder)
    await world.data("POST", seats, headers=buyer, json={"account_id": holder_id})
    assert await is_open(holder)
    await aged(world, held["id"], 400)  # nobody has swept yet
    assert not await is_open(holder)
    await world.refused(403, "LICENSE_EXPIRED", "access_ended", "GET", files, headers=holder)
    rows = await world.sql(
        "SELECT type, payload->'for_accounts'->>0 AS account_id FROM kernel.outbox WHERE subject_id = $1"
        " AND type LIKE 'license.seat%' ORDER BY position", held["id"],
    )  # fmt: skip
    assert [row["type"] for row in rows] == [
        "license.seat_assigned", "license.seat_released", "license.seat_assigned"
    ]  # fmt: skip
    assert {row["account_id"] for row in rows} == {holder_id}


async def test_a_licence_without_seats_says_so_to_its_parties_and_nobody_else(world):
    owner, work, first, _ = await with_files(world)
    buyer_id, buyer = await studio(world)
    held = await issued(world, owner, work, buyer_id, license_type="exclusive")
    files = f"/v1/licenses/{held['id']}/access-token"
    assert (await world.data("GET", f"/v1/licenses/{held['id']}", headers=buyer))["status"] == "active"
    for party in (buyer, owner):
        answer = await world.refused(403, "FORBIDDEN", "no_seats", "GET", files, headers=party)
        assert "exclusive" in answer.json()["error"]["message"]
    assert await is_locked(world, buyer, work, first)
    _, stranger = await world.sign_in()
    await world.refused(404, "NOT_FOUND", "unknown_license", "GET", files, headers=stranger)
    await world.refused(404, "NOT_FOUND", "unknown_license", "GET", f"/v1/licenses/{uuid4()}/access-token",
                        headers=buyer)  # fmt: skip


async def test_a_seat_below_another_licence_ends_with_the_one_above(world):
    work, parties, licences = await chain(world, 2, license_type="enterprise", seats=2)
    (first,) = await world.data("GET", f"/v1/works/{work['id']}/chapters")
    _, low = await seated(world, parties[2][1], licences[1])
    _, high = await seated(world, parties[1][1], licences[0])
    assert not await is_locked(world, low, work, first) and not await is_locked(world, high, work, first)
    await world.data("POST", f"/v1/licenses/{licences[1]['id']}/revoke", headers=keyed(parties[1][1]),
                     json={"reason": "x"})  # fmt: skip
    assert await is_locked(world, low, work, first) and not await is_locked(world, high, work, first)
    below = await issued(world, parties[1][1], work, parties[2][0], parent_license_id=licences[0]["id"],
                         license_type="enterprise", seats=1, duration="P9D")  # fmt: skip
    _, low = await seated(world, parties[2][1], below)
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "admin")
    path = f"/v1/admin/licenses/{licences[0]['id']}/suspend"
    await world.data("POST", path, headers=staff, json={"reason": "x"})
    assert await is_locked(world, low, work, first) and await world.data("GET", "/v1/library", headers=low) == []


async def test_a_seat_keeps_what_was_there_and_gets_nothing_older(world):
    owner, work, first, drawn = await with_files(world)
    buyer_id, buyer = await studio(world)
    held = await issued(world, owner, work, buyer_id, license_type="enterprise", seats=2)
    _, early = await seated(world, buyer, held)
    path = f"/v1/works/{work['id']}/chapters/{first['id']}"
    await world.data("PATCH", f"/v1/chapters/{first['id']}", headers=owner, json={"body": "New " + TEXT})
    await world.data("POST", f"/v1/chapters/{drawn['id']}/unpublish", headers=owner)
    _, late = await seated(world, buyer, held)
    assert (await world.data("GET", f"{path}?version=1", headers=early))["body"] == TEXT
    await world.refused(404, "NOT_FOUND", "unknown_version", "GET", f"{path}?version=1", headers=late)
    gone = f"/v1/works/{work['id']}/chapters/{drawn['id']}"
    assert not (await world.data("GET", gone, headers=early))["locked"]
    await world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", gone, headers=late)
    await world.data("POST", f"/v1/works/{work['id']}/archive", headers=owner)
    assert not await is_locked(world, early, work, first) and not await is_locked(world, late, work, first)


async def test_a_work_that_is_licensed_before_it_is_published_is_open_to_seats_alone(world):
    _, _, owner = await creator(world)
    work = await story(world, owner, "Not out yet")
    done, draft = [await chapter(world, owner, work, title) for title in ("Done", "Half")]
    await world.data("POST", f"/v1/chapters/{done['id']}/publish", headers=owner)
    buyer_id, buyer = await studio(world)
    held = await issued(world, owner, work, buyer_id, license_type="enterprise", seats=1)
    _, holder = await seated(world, buyer, held)
    path = f"/v1/works/{work['id']}"
    assert (await world.data("GET", path, headers=holder))["status"] == "draft"
    assert not await is_locked(world, holder, work, done)
    missing = ("unknown_chapter", "GET", f"{path}/chapters/{draft['id']}")  # what is not done is nobody's yet
    await world.refused(404, "NOT_FOUND", *missing, headers=holder)
    for others in ({}, buyer):
        await world.refused(404, "NOT_FOUND", "unknown_work", "GET", path, headers=others)


async def test_library_has_seats_and_purchases_in_one_order(world):
    buyer_id, buyer = await studio(world)
    session, holder = await world.sign_in()
    account = session["account_id"]
    world.core.send(op="deposit", account=f"user:{account}", asset="USDC", amount="10", ref=f"dep:{uuid4().hex}")
    had = []
    for number in range(5):
        _, owner, work = await owner_of_work(world, f"Volume {number}")
        had.append(work["id"])
        if number % 2:
            price = {"kind": "purchase", "asset": "USDC", "price": "1"}
            offer = await world.data("POST", f"/v1/works/{work['id']}/offers", headers=owner, json=price)
            body = {"offer_id": offer["id"], "method": "balance"}
            await world.data("POST", "/v1/purchases", headers=keyed(holder), json=body)
        else:
            held = await issued(world, owner, work, buyer_id, license_type="enterprise", seats=1)
            await world.data("POST", f"/v1/licenses/{held['id']}/seats", headers=buyer, json={"account_id": account})
    await world.settle()
    found, path = [], "/v1/library?limit=2"
    while path:
        answer = (await world.client.get(path, headers=holder)).json()
        found += answer["data"]
        cursor = answer["pagination"]["next_cursor"]
        path = cursor and f"/v1/library?limit=2&cursor={cursor}"
    assert [right["work_id"] for right in found] == had[::-1]
    assert [right["kind"] for right in found] == ["seat", "own", "seat", "own", "seat"]


async def test_direct_licences_are_given_by_the_owner_alone(world):
    owner_id, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world)
    body = TERMS | {"work_id": work["id"], "licensee_id": buyer_id}
    path = "/v1/licenses"
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", path, headers=owner, json=body)
    _, other_owner, _ = await owner_of_work(world)
    await world.refused(400, "VALIDATION_ERROR", "unknown_work", "POST", path, headers=keyed(other_owner), json=body)
    for wrong in (str(uuid4()), owner_id):
        await world.refused(400, "VALIDATION_ERROR", "unknown_account", "POST", path, headers=keyed(owner),
                            json=body | {"licensee_id": wrong})  # fmt: skip
    key = keyed(owner)
    held = await world.data("POST", path, headers=key, json=body)
    assert await world.data("POST", path, headers=key, json=body) == held
    await world.refused(409, "CONFLICT", "idempotency_key_reuse", "POST", path, headers=key,
                        json=body | {"duration": "P2Y"})  # fmt: skip
    for party, bearer in (("licensee", buyer), ("licensor", owner)):
        assert [row["id"] for row in await world.data("GET", f"{path}?as={party}&status=active", headers=bearer)] == [
            held["id"]]  # fmt: skip
    await world.refused(404, "NOT_FOUND", "unknown_license", "GET", f"{path}/{held['id']}", headers=other_owner)
    await world.refused(404, "NOT_FOUND", "unknown_license", "POST", f"{path}/{held['id']}/revoke",
                        headers=keyed(buyer), json={"reason": "x"})  # fmt: skip
    await world.refused(409, "CONFLICT", "sold", "DELETE", f"/v1/works/{work['id']}", headers=owner)


# What a right extends over.


def test_territories_are_iso_codes_and_ww_swallows_the_rest():
    assert len(TERRITORIES) == 249 and tidy(["ZW", "PG", "PG"]) == ["PG", "ZW"] and tidy(["PG", "WW"]) == ["WW"]
    assert expanded(["WW"]) == TERRITORIES and territory_set(["AA", "AB", "AD"]) == "{[0,2),[3,4)}"
    for wrong in ("UK", "EU", "XX", "pg"):
        with pytest.raises(ApiError):
            tidy([wrong])


@settings(deadline=None)
@given(st.sets(st.sampled_from(sorted(TERRITORIES)), min_size=1), st.sets(st.sampled_from(SCOPES), min_size=1))
def test_sets_hold_each_code_once_and_no_other(codes, words):
    for text, wanted in (
        (territory_set(codes), {(ord(c[0]) - 65) * 26 + ord(c[1]) - 65 for c in codes}),
        (scope_set(words), {SCOPES.index(word) for word in words}),
    ):
        ranges = [tuple(map(int, pair)) for pair in re.findall(r"\[(\d+),(\d+)\)", text)]
        assert {number for low, high in ranges for number in range(low, high)} == wanted
        assert all(one[1] < two[0] for one, two in zip(ranges, ranges[1:], strict=False))


@pytest.mark.parametrize("text", ["P1Y", "P18M", "P2W", "P10D", "PT36H", "P1Y2M3DT4H5M", "PT1M"])
async def test_durations_are_those_that_postgresql_knows(world, text):
    check_duration(text)
    (row,) = await world.sql("SELECT $1::text::interval > interval '0' AS some", text)
    assert row["some"]


@pytest.mark.parametrize("text", ["", "P", "PT", "P0Y", "1Y", "P1S", "PT1S", "P1.5Y", "P-1Y", "P1Y ", "P1D2Y", "PT0M"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ApiError):
        check_duration(text)
