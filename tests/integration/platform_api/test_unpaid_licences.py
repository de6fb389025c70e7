"""Licences that are not paid yet: whom they keep away, how long, and who can end that (docs/decisions/0047)."""

from datetime import datetime, timedelta
from uuid import UUID

from platform_api.licensing.service import LicensingService
from tests.support.licences import (
    TERMS,
    apply,
    issued,
    keyed,
    licence,
    owner_of_work,
    studio,
    terms_for,
    units,
    world,
)

__all__ = ["world"]

APPLICATIONS = "/v1/license-applications"


async def open_terms(world):
    """A work whose standard and exclusive licences approve themselves."""
    _, owner, work = await owner_of_work(world)
    standard = await terms_for(world, owner, work, auto_approve=True, base_fee="10", max_licenses=1)
    exclusive = await terms_for(world, owner, work, license_type="exclusive", auto_approve=True, base_fee="20")
    return owner, work, standard, exclusive


async def test_standard_licence_that_approved_itself_keeps_nobody_away_until_it_is_paid(world):
    _, _, standard, exclusive = await open_terms(world)
    one, first = await studio(world, "100")
    _, second = await studio(world, "20")
    waits = (await apply(world, first, standard))["license_id"]
    assert (await licence(world, first, waits))["status"] == "pending_payment"
    taken = (await apply(world, second, exclusive))["license_id"]
    assert (await licence(world, second, taken))["status"] == "active"
    answer = await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", f"/v1/licenses/{waits}/pay",
                                 headers=keyed(first))  # fmt: skip
    assert answer.json()["error"]["details"] == {"reason": "exclusivity_clash", "with": "exclusive"}
    assert units(world, f"user:{one}") == (100_000_000, 0)


async def test_standard_licence_that_was_paid_first_stands(world):
    _, _, standard, exclusive = await open_terms(world)
    _, first = await studio(world, "10")
    _, second = await studio(world, "20")
    waits = (await apply(world, first, standard))["license_id"]
    await world.data("POST", f"/v1/licenses/{waits}/pay", headers=keyed(first))
    answer = await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", APPLICATIONS, headers=keyed(second),
                                 json={"terms_id": exclusive["id"]})  # fmt: skip
    assert answer.json()["error"]["details"] == {"reason": "exclusivity_clash", "with": "other"}


async def test_standard_licence_whose_fee_is_under_way_yields_no_more_and_a_refused_fee_yields_again(world):
    _, _, standard, exclusive = await open_terms(world)
    _, first = await studio(world, "10")
    _, second = await studio(world, "60")
    waits = (await apply(world, first, standard))["license_id"]
    world.core.lose.append("request")
    path, body = f"/v1/licenses/{waits}/pay", {"terms_id": exclusive["id"]}
    assert (await world.data("POST", path, headers=keyed(first)))["status"] == "pending_payment"
    answer = await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", APPLICATIONS, headers=keyed(second),
                                 json=body)  # fmt: skip
    assert answer.json()["error"]["details"]["unpaid_until"]
    await world.settle()
    assert (await licence(world, first, waits))["status"] == "active"

    _, _, standard, exclusive = await open_terms(world)
    _, poor = await studio(world, "9")
    waits = (await apply(world, poor, standard))["license_id"]
    await world.refused(402, "PAYMENT_FAILED", "insufficient_funds", "POST", f"/v1/licenses/{waits}/pay",
                        headers=keyed(poor))  # fmt: skip
    taken = (await apply(world, second, exclusive))["license_id"]
    assert (await licence(world, second, taken))["status"] == "active"


async def test_exclusive_fee_that_the_core_refuses_leaves_the_others_as_they_were(world):
    _, _, standard, exclusive = await open_terms(world)
    _, first = await studio(world, "10")
    _, poor = await studio(world, "19")
    waits = (await apply(world, first, standard))["license_id"]
    await world.refused(402, "PAYMENT_FAILED", "insufficient_funds", "POST", APPLICATIONS, headers=keyed(poor),
                        json={"terms_id": exclusive["id"]})  # fmt: skip
    assert (await world.data("POST", f"/v1/licenses/{waits}/pay", headers=keyed(first)))["status"] == "active"


async def test_licence_that_nobody_decided_on_may_be_paid_for_an_hour(world):
    _, _, standard, _ = await open_terms(world)
    _, first = await studio(world, "10")
    two, second = await studio(world, "10")
    waits = await apply(world, first, standard)
    found = await licence(world, first, waits["license_id"])
    asked = datetime.fromisoformat(waits["created_at"])
    assert timedelta(0) <= datetime.fromisoformat(found["pay_before"]) - asked - timedelta(hours=1) < timedelta(hours=1)
    await world.sql("UPDATE licensing.license_period SET pay_before = now() WHERE license_id = $1",
                    UUID(waits["license_id"]))  # fmt: skip
    await world.kernel.service(LicensingService).calendar.sweep()
    again = (await apply(world, second, standard))["license_id"]
    assert (await world.data("POST", f"/v1/licenses/{again}/pay", headers=keyed(second)))["status"] == "active"
    assert units(world, f"user:{two}") == (0, 0)


async def test_work_that_nobody_paid_for_can_be_deleted_when_the_licence_has_lapsed(world):
    owner, work, standard, _ = await open_terms(world)
    _, studios = await studio(world, "10")
    delete = ("DELETE", f"/v1/works/{work['id']}")
    waits = (await apply(world, studios, standard))["license_id"]
    await world.refused(409, "CONFLICT", "sold", *delete, headers=owner)  # it may be paid yet
    await world.sql("UPDATE licensing.license_period SET pay_before = now() WHERE license_id = $1", UUID(waits))
    await world.kernel.service(LicensingService).calendar.sweep()
    assert (await world.client.request(*delete, headers=owner)).status_code == 200
    assert (await licence(world, studios, waits))["status"] == "expired"
    (found,) = await world.data("GET", "/v1/licenses?as=licensee", headers=studios)
    assert found["id"] == waits


async def test_work_is_not_deleted_while_the_fee_of_a_licence_that_was_revoked_is_under_way(world):
    owner, work, standard, _ = await open_terms(world)
    account, studios = await studio(world, "10")
    delete = ("DELETE", f"/v1/works/{work['id']}")
    waits = (await apply(world, studios, standard))["license_id"]
    world.core.lose.append("request")
    await world.data("POST", f"/v1/licenses/{waits}/pay", headers=keyed(studios))
    body = {"reason": "No more."}
    await world.data("POST", f"/v1/licenses/{waits}/revoke", headers=keyed(owner), json=body)
    await world.refused(409, "CONFLICT", "sold", *delete, headers=owner)
    await world.settle()
    assert units(world, f"user:{account}") == (10_000_000, 0)  # it came, and went back
    assert (await world.client.request(*delete, headers=owner)).status_code == 200


async def test_licence_that_is_paid_is_a_sale_of_the_work(world):
    owner, work, standard, _ = await open_terms(world)
    _, studios = await studio(world, "10")
    waits = (await apply(world, studios, standard))["license_id"]
    await world.data("POST", f"/v1/licenses/{waits}/pay", headers=keyed(studios))
    await world.refused(409, "CONFLICT", "sold", "DELETE", f"/v1/works/{work['id']}", headers=owner)


async def test_grant_keeps_its_seven_days_and_its_licensor_may_end_them_at_once(world):
    _, owner, work = await owner_of_work(world)
    one, first = await studio(world, "10")
    two, _ = await studio(world)
    waits = await issued(world, owner, work, one, base_fee="10")
    decided = datetime.fromisoformat(waits["pay_before"]) - datetime.fromisoformat(waits["created_at"])
    assert abs(decided - timedelta(days=7)) < timedelta(hours=1)
    terms = await terms_for(world, owner, work, license_type="exclusive", auto_approve=True)
    _, wants = await studio(world)
    body = {"terms_id": terms["id"]}
    answer = await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", APPLICATIONS, headers=keyed(wants),
                                 json=body)  # fmt: skip
    error = answer.json()["error"]
    assert error["details"] == {
        "reason": "exclusivity_clash", "with": "other", "unpaid_until": waits["pay_before"]
    } and waits["pay_before"] in error["message"]  # fmt: skip
    direct = TERMS | {"work_id": work["id"], "licensee_id": two, "license_type": "exclusive"}
    answer = await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", "/v1/licenses", headers=keyed(owner),
                                 json=direct)  # fmt: skip
    assert answer.json()["error"]["details"]["license_id"] == waits["id"]
    await world.data("POST", f"/v1/licenses/{waits['id']}/revoke", headers=keyed(owner), json={"reason": "Not paid."})
    await world.refused(409, "CONFLICT", "nothing_due", "POST", f"/v1/licenses/{waits['id']}/pay", headers=keyed(first))
    taken = (await apply(world, wants, terms))["license_id"]
    assert (await licence(world, wants, taken))["status"] == "active"


async def test_nobody_uses_up_the_licences_of_terms_without_paying(world):
    _, _, standard, _ = await open_terms(world)  # one licence may be given
    _, poor = await studio(world, "10")
    _, buyer = await studio(world, "10")
    body = {"terms_id": standard["id"]}
    waits = (await apply(world, poor, standard))["license_id"]
    await world.refused(409, "CONFLICT", "license_unpaid", "POST", APPLICATIONS, headers=keyed(poor), json=body)
    taken = (await apply(world, buyer, standard))["license_id"]
    assert (await world.data("POST", f"/v1/licenses/{taken}/pay", headers=keyed(buyer)))["status"] == "active"
    await world.refused(409, "CONFLICT", "none_left", "POST", f"/v1/licenses/{waits}/pay", headers=keyed(poor))
    _, late = await studio(world, "10")
    await world.refused(409, "CONFLICT", "none_left", "POST", APPLICATIONS, headers=keyed(late), json=body)


async def test_suspended_work_is_licensed_by_no_way_and_a_fee_under_way_goes_back(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "40")
    terms = await terms_for(world, owner, work, base_fee="10")
    first, second = await apply(world, buyer, terms), await issued(world, owner, work, buyer_id, base_fee="10")
    unpaid = await issued(world, owner, work, buyer_id, base_fee="10")
    held = await issued(world, owner, work, buyer_id, duration="P5D", sublicensing=True)
    world.core.lose.append("request")
    waits = await world.data("POST", f"/v1/licenses/{second['id']}/pay", headers=keyed(buyer))
    assert waits["status"] == "pending_payment"
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "moderator")
    path = f"/v1/admin/works/{work['id']}/suspend"
    await world.data("POST", path, headers=keyed(staff), json={"reason": "Stolen."})
    below, _ = await studio(world)
    direct = TERMS | {"work_id": work["id"], "licensee_id": below}
    sub = direct | {"parent_license_id": held["id"], "duration": "P1D"}
    for who, path, body in (
        (owner, f"/v1/license-applications/{first['id']}/approve", None), (owner, "/v1/licenses", direct),
        (buyer, "/v1/licenses", sub), (buyer, f"/v1/licenses/{unpaid['id']}/pay", None),
        (owner, f"/v1/licenses/{held['id']}/renew", None),
    ):  # fmt: skip
        sent = {} if body is None else {"json": body}
        await world.refused(409, "CONFLICT", "not_editable", "POST", path, headers=keyed(who), **sent)
    await world.settle()
    await world.settle()
    found = await licence(world, buyer, second["id"])
    assert found["status"] == "expired" and units(world, f"user:{buyer_id}") == (40_000_000, 0)
