"""What licences cost, over HTTP, a real PostgreSQL and the real core: fees, renewals, shares up the chain, refunds."""

import asyncio
import re
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_api.licensing.fees import shares_of_fee
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
from tests.support.sales import own_money

__all__ = ["world"]


# Fees.


async def test_fee_is_paid_of_the_licensees_money_and_begins_the_licence_once(world):
    owner_id, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    terms = await terms_for(world, owner, work, base_fee="10.000001", auto_approve=True)
    application = await apply(world, buyer, terms)
    path = f"/v1/licenses/{application['license_id']}/pay"
    await world.refused(404, "NOT_FOUND", "unknown_license", "POST", path, headers=keyed(owner))
    key = keyed(buyer)
    paid = await world.data("POST", path, headers=key)
    assert (paid["status"], paid["valid"], paid["fee_due"]) == ("active", True, None)
    assert re.fullmatch(r"[A-Z2-7]{32}", paid["verification_code"])
    assert await world.data("POST", path, headers=key) == paid
    await world.refused(409, "CONFLICT", "nothing_due", "POST", path, headers=keyed(buyer))
    await world.settle()
    assert units(world, f"user:{buyer_id}") == (89_999_999, 0)
    assert units(world, "platform:revenue") == (1_500_000, 0)
    assert payable(world, owner_id) == 8_500_001
    assert await told(world, paid["id"]) == ["license.activated"]
    rows = await world.sql("SELECT payment_ref FROM licensing.license_period WHERE license_id = $1", UUID(paid["id"]))
    assert len(rows) == 1 and rows[0]["payment_ref"].startswith("lic:")


async def test_two_payments_of_one_fee_at_the_same_instant_move_it_once(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    waits = await issued(world, owner, work, buyer_id, base_fee="10")
    path = f"/v1/licenses/{waits['id']}/pay"
    answers = await asyncio.gather(*(world.client.post(path, headers=keyed(buyer)) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers)[1:] == [409] * 4
    assert units(world, f"user:{buyer_id}") == (90_000_000, 0)
    assert (await licence(world, buyer, waits["id"]))["status"] == "active"


async def test_refused_payment_leaves_the_licence_waiting(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "1")
    waits = await issued(world, owner, work, buyer_id, base_fee="10")
    path = f"/v1/licenses/{waits['id']}/pay"
    key = keyed(buyer)
    await world.refused(402, "PAYMENT_FAILED", "insufficient_funds", "POST", path, headers=key)
    await world.refused(402, "PAYMENT_FAILED", "insufficient_funds", "POST", path, headers=key)
    assert (await licence(world, buyer, waits["id"]))["status"] == "pending_payment"
    world.core.send(op="deposit", account=f"user:{buyer_id}", asset="USDC", amount="9", ref=f"dep:{uuid4().hex}")
    assert (await world.data("POST", path, headers=keyed(buyer)))["status"] == "active"
    assert units(world, f"user:{buyer_id}") == (0, 0)


@pytest.mark.parametrize("fault", ["request", "answer"])
async def test_core_down_in_the_middle_of_a_payment_leaves_it_whole_after_recovery(world, fault):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    waits = await issued(world, owner, work, buyer_id, base_fee="10")
    path = f"/v1/licenses/{waits['id']}/pay"
    world.core.lose.extend(["none"] * 2 + [fault] if fault == "answer" else [fault])
    answered = await world.client.post(path, headers=keyed(buyer))
    assert answered.status_code == 200, answered.text
    world.core.lose.clear()
    await aged(world, waits["id"], 30)
    await sweep(world)
    still = await licence(world, buyer, waits["id"])
    assert still["status"] != "expired", "it does not lapse while money may be moving"
    await world.settle()
    paid = await licence(world, buyer, waits["id"])
    assert paid["status"] == "active" and units(world, f"user:{buyer_id}") == (90_000_000, 0)
    assert await told(world, waits["id"]) == ["license.activated"]


async def test_money_that_comes_when_the_time_it_is_for_is_over_goes_back(world):
    owner_id, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    waits = await issued(world, owner, work, buyer_id, base_fee="10", duration="P5D")
    world.core.lose.append("request")
    await world.data("POST", f"/v1/licenses/{waits['id']}/pay", headers=keyed(buyer))
    world.core.lose.clear()
    await aged(world, waits["id"], 30)
    await world.settle()
    await world.settle()
    assert units(world, f"user:{buyer_id}") == (100_000_000, 0) and payable(world, owner_id) == 0
    assert (await licence(world, buyer, waits["id"]))["status"] == "expired"
    assert "license.activated" not in await told(world, waits["id"])


async def test_money_that_comes_for_a_revoked_licence_goes_back(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    waits = await issued(world, owner, work, buyer_id, base_fee="10")
    world.core.lose.append("request")
    await world.data("POST", f"/v1/licenses/{waits['id']}/pay", headers=keyed(buyer))
    world.core.lose.clear()
    body = {"reason": "A mistake."}
    await world.data("POST", f"/v1/licenses/{waits['id']}/revoke", headers=keyed(owner), json=body)
    await world.settle()
    await world.settle()
    assert units(world, f"user:{buyer_id}") == (100_000_000, 0)
    assert (await licence(world, buyer, waits["id"]))["status"] == "revoked"


@settings(deadline=None)
@given(st.integers(0, 10**15), st.integers(0, 10_000), st.lists(st.integers(0, 10_000), max_size=15))
def test_parts_of_a_fee_are_the_fee(fee, platform_bps, above):
    parts = shares_of_fee(fee, platform_bps, above)
    assert sum(parts) == fee and min(parts) >= 0 and len(parts) == len(above) + 2


def test_parts_of_a_fee_by_hand():
    assert shares_of_fee(4_999, 500, [2_000, 1_500]) == [250, 3_799, 807, 143]


# Renewal, expiry.


async def test_renewal_adds_a_period_behind_the_present_one(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    terms = await terms_for(world, owner, work, license_type="exclusive", base_fee="10", auto_approve=True)
    id_ = (await apply(world, buyer, terms))["license_id"]
    first = await licence(world, buyer, id_)
    assert first["status"] == "active"
    renewing = await world.data("POST", f"/v1/licenses/{id_}/renew", headers=keyed(buyer))
    assert (renewing["status"], renewing["fee_due"], renewing["ends_at"]) == ("active", "10", first["ends_at"])
    path = f"/v1/licenses/{id_}/renew"
    await world.refused(409, "CONFLICT", "renewal_pending", "POST", path, headers=keyed(buyer))
    other, _ = await studio(world)
    after = {"starts_at": first["ends_at"], "license_type": "standard"}
    body = TERMS | {"work_id": work["id"], "licensee_id": other} | after
    await world.refused(409, "CONFLICT", "exclusivity_clash", "POST", "/v1/licenses", headers=keyed(owner), json=body)
    renewed = await world.data("POST", f"/v1/licenses/{id_}/pay", headers=keyed(buyer))
    assert renewed["starts_at"] == first["starts_at"] and renewed["fee_due"] is None
    year = datetime.fromisoformat(renewed["ends_at"]) - datetime.fromisoformat(first["ends_at"])
    assert year.days in (365, 366) and renewed["verification_code"] == first["verification_code"]
    assert await told(world, id_) == ["license.activated", "license.renewed"]
    await world.refused(409, "CONFLICT", "already_renewed", "POST", path, headers=keyed(buyer))
    await world.data("PATCH", f"/v1/license-terms/{terms['id']}", headers=owner, json={"base_fee": "20"})
    await aged(world, id_, 400)
    await world.refused(409, "CONFLICT", "terms_changed", "POST", path, headers=keyed(buyer))
    again = await world.data("POST", path, headers=keyed(owner))
    assert again["fee_due"] == "10", "the licensor renews on the licence's own terms"
    assert units(world, f"user:{buyer_id}") == (80_000_000, 0)


async def test_unpaid_renewal_lapses_and_the_licence_goes_on_to_its_end(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    held = await issued(world, owner, work, buyer_id, base_fee="10", license_type="enterprise", seats=2)
    id_ = held["id"]
    await world.data("POST", f"/v1/licenses/{id_}/pay", headers=keyed(buyer))
    await world.data("POST", f"/v1/licenses/{id_}/seats", headers=buyer, json={"account_id": buyer_id})
    await world.data("POST", f"/v1/licenses/{id_}/renew", headers=keyed(owner))
    await aged(world, id_, 8)
    await sweep(world)
    still = await licence(world, buyer, id_)
    assert (still["status"], still["fee_due"], still["valid"]) == ("active", None, True)
    await aged(world, id_, 360)
    late = await licence(world, buyer, id_)
    assert (late["status"], late["valid"]) == ("active", False), "whether it holds is computed, not swept"
    verified = await world.data("GET", f"/v1/licenses/{id_}/verify")
    assert (verified["valid"], verified["why_not"]) == (False, "expired")
    seats = f"/v1/licenses/{id_}/seats"
    body = {"account_id": buyer_id}
    await world.refused(403, "LICENSE_EXPIRED", "license_expired", "POST", seats, headers=buyer, json=body)
    renew = f"/v1/licenses/{id_}/renew"
    await world.refused(403, "LICENSE_EXPIRED", "license_expired", "POST", renew, headers=keyed(owner))
    await sweep(world)
    await sweep(world)
    assert (await licence(world, buyer, id_))["status"] == "expired"
    assert await world.data("GET", seats, headers=buyer) == []
    assert await told(world, id_) == ["license.activated", "license.seat_assigned", "license.expired"]


async def test_moments_that_are_due_wake_the_sweep(world):
    _, owner, work = await owner_of_work(world)
    buyer_id, _ = await studio(world)
    held = await issued(world, owner, work, buyer_id)
    rows = await world.sql("SELECT execute_after FROM jobs.pgqueuer WHERE entrypoint = 'admin_actions'")
    ends = datetime.fromisoformat(held["ends_at"])
    assert any(abs((row["execute_after"] - ends).total_seconds()) < 60 for row in rows)


async def test_fee_of_a_sub_licence_goes_up_the_chain(world):
    """The platform 15 %, then 10 % of what each received to the one above, and the work's makers at the top."""
    work, parties, (top,) = await chain(world, 1)
    before = units(world, "platform:revenue")[0]
    buyer_id, buyer = await studio(world, "100")
    below = await issued(world, parties[1][1], work, buyer_id, parent_license_id=top["id"], base_fee="20",
                         duration="P10D")  # fmt: skip
    await world.data("POST", f"/v1/licenses/{below['id']}/pay", headers=keyed(buyer))
    await world.settle()
    assert units(world, f"user:{buyer_id}") == (80_000_000, 0)
    assert units(world, "platform:revenue")[0] - before == 3_000_000
    assert (payable(world, parties[1][0]), payable(world, parties[0][0])) == (15_300_000, 1_700_000)
    balances = [await world.data("GET", "/v1/royalties/balance", headers=bearer) for _, bearer in parties[:2]]
    assert [row["held"] for rows in balances for row in rows] == ["1.7", "15.3"], "each may ask for it once it is ripe"


# Refunds.


async def test_refund_of_a_fee_takes_it_back_from_all_and_revokes_down_the_chain(world):
    work, parties, (top,) = await chain(world, 1)
    start = units(world, "platform:revenue")[0]
    buyer_id, buyer = await studio(world, "100")
    below = await issued(world, parties[1][1], work, buyer_id, parent_license_id=top["id"], base_fee="20",
                         duration="P10D", sublicensing=True)  # fmt: skip
    await world.data("POST", f"/v1/licenses/{below['id']}/pay", headers=keyed(buyer))
    last = await issued(world, buyer, work, parties[0][0], parent_license_id=below["id"], duration="P1D")
    path, body = f"/v1/licenses/{below['id']}/refund", {"reason": "The master was broken."}
    await world.refused(403, "FORBIDDEN", "not_yours_to_refund", "POST", path, headers=keyed(buyer), json=body)
    await world.refused(404, "NOT_FOUND", "unknown_license", "POST", path, headers=keyed(parties[0][1]), json=body)
    licensor = parties[1][1]
    await world.refused(409, "CONFLICT", "not_distributed", "POST", path, headers=keyed(licensor), json=body)
    await world.settle()
    key = keyed(licensor)
    gone = await world.data("POST", path, headers=key, json=body)
    assert (gone["status"], gone["valid"]) == ("revoked", False)
    assert gone["reason"] == "Its fee was refunded: The master was broken."
    assert await world.data("POST", path, headers=key, json=body) == gone
    assert (await licence(world, buyer, last["id"]))["status"] == "revoked"
    assert units(world, f"user:{buyer_id}") == (100_000_000, 0)
    assert units(world, "platform:revenue")[0] == start
    assert (payable(world, parties[1][0]), payable(world, parties[0][0])) == (0, 0)
    for _, bearer in parties[:2]:
        (row,) = await world.data("GET", "/v1/royalties/balance", headers=bearer)
        assert (row["payable"], row["held"]) == ("0", "0")
    await world.refused(409, "CONFLICT", "nothing_to_refund", "POST", path, headers=keyed(licensor), json=body)
    events = await told(world, below["id"])
    assert events == ["license.activated", "license.refunded", "license.revoked", "authorization.revoked"]


@pytest.mark.parametrize("fault", ["request", "answer"])
async def test_core_down_in_the_middle_of_a_refund_leaves_it_whole_after_recovery(world, fault):
    owner_id, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    held = await issued(world, owner, work, buyer_id, base_fee="10")
    await world.data("POST", f"/v1/licenses/{held['id']}/pay", headers=keyed(buyer))
    await world.settle()
    world.core.lose.append(fault)
    path, body = f"/v1/licenses/{held['id']}/refund", {"reason": "A mistake."}
    waits = await world.data("POST", path, headers=keyed(owner), json=body)
    assert waits["status"] == "active", "what the core has not said has not happened"
    await world.refused(409, "CONFLICT", "refund_open", "POST", path, headers=keyed(owner), json=body)
    await world.settle()
    assert (await licence(world, buyer, held["id"]))["status"] == "revoked"
    assert (units(world, f"user:{buyer_id}"), payable(world, owner_id)) == ((100_000_000, 0), 0)


async def paid_out(world, amount):
    """A fee of 10 has matured and so much of it was paid out: owner's id and bearer, work, licensee's id and bearer,
    licence."""
    owner_id, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    held = await issued(world, owner, work, buyer_id, base_fee="10")
    await world.data("POST", f"/v1/licenses/{held['id']}/pay", headers=keyed(buyer))
    await world.settle()
    await world.entries("SET matures_at = now() WHERE account_id = $1", UUID(owner_id))
    await world.data("POST", "/v1/payouts", headers=keyed(owner), json={"asset": "USDC", "amount": amount})
    return owner_id, owner, work, buyer_id, buyer, held


async def test_licensor_gives_back_what_is_held_and_never_our_money(world):
    owner_id, owner, _, buyer_id, buyer, held = await paid_out(world, "1")
    ask = ("POST", f"/v1/licenses/{held['id']}/refund")
    body = {"reason": "For a friend."}
    await world.refused(402, "PAYMENT_FAILED", "refund_refused", *ask, headers=keyed(owner), json=body)
    await world.sql("UPDATE licensing.license_period SET paid_at = paid_at - interval '7 days' WHERE license_id = $1",
                    UUID(held["id"]))  # fmt: skip
    await world.refused(403, "FORBIDDEN", "hold_over", *ask, headers=keyed(owner), json=body)
    assert (units(world, f"user:{buyer_id}"), payable(world, owner_id)) == ((90_000_000, 0), 7_500_000)
    assert (await licence(world, buyer, held["id"]))["status"] == "active"


async def test_fee_that_was_paid_out_already_is_refunded_into_a_debt(world):
    owner_id, owner, work, buyer_id, _, held = await paid_out(world, "8.5")
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "admin")
    body, path = {"reason": "By the platform."}, f"/v1/licenses/{held['id']}/refund"
    await own_money(world, 8)
    await world.refused(409, "CONFLICT", "reserve_empty", "POST", path, headers=keyed(staff), json=body)
    await own_money(world, 9)
    await world.data("POST", path, headers=keyed(staff), json=body)
    assert (units(world, f"user:{buyer_id}"), payable(world, owner_id)) == ((100_000_000, 0), -8_500_000)
    free = await issued(world, owner, work, buyer_id)
    await world.refused(409, "CONFLICT", "nothing_to_refund", "POST", f"/v1/licenses/{free['id']}/refund",
                        headers=keyed(owner), json=body)  # fmt: skip
