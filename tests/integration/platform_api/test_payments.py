"""Money of purchases over HTTP, a real PostgreSQL and the real core: cards, balances, events, refunds, crashes."""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from persistence.stores.postgres.projector import Projector
from platform_api.payments import queries as payment_queries
from platform_api.payments.test_provider import TOLERANCE_SECONDS
from platform_api.royalties import queries as royalty_queries
from tests.integration.platform_api.test_works import chapter, decided, file_of
from tests.support.files import png
from tests.support.sales import own_money, shop_over

USDC = 10**6


@pytest_asyncio.fixture
async def shop(api_dsn):
    async with shop_over(api_dsn) as shop:
        yield shop


async def test_metrics_say_how_many_payments_succeed(shop):
    async def rate():
        text = (await shop.world.client.get("/metrics")).text
        return next(line.split()[1] for line in text.splitlines() if line.startswith("payment_success_rate "))

    _, bearer = await shop.buyer()
    assert await rate() == "NaN"
    for card, expected in (("declined", "0.0"), ("ok", "0.5"), ("ok", "0.666"), ("events_twice", "0.75")):
        intent = await shop.post("/v1/payments/intents", bearer, {"asset": "USDC", "amount": "1"})
        await shop.pay(intent, card)
        await shop.finish()
        assert (await rate()).startswith(expected), card


async def test_paid_purchase_moves_the_money_and_opens_the_work(shop):
    seller, seller_bearer, work, chapter, offer = await shop.seller("10.01")
    buyer, bearer = await shop.buyer()
    reading = f"/v1/works/{work['id']}/chapters/{chapter['id']}"
    assert (await shop.get(reading, bearer))["locked"]
    key = uuid4().hex
    purchase = await shop.buy(bearer, offer, key=key)
    again = await shop.buy(bearer, offer, key=key)
    assert again == purchase and purchase["status"] == "pending" and purchase["intent"]["client_secret"]
    await shop.refused(409, "CONFLICT", "idempotency_key_reuse", "/v1/purchases", bearer,
                       {"offer_id": offer["id"], "method": "balance"}, key)  # fmt: skip
    await shop.refused(409, "CONFLICT", "purchase_pending", "/v1/purchases", bearer,
                       {"offer_id": offer["id"], "method": "provider"})  # fmt: skip
    held = shop.units("external:test")
    assert await shop.pay(purchase["intent"]) == {"status": "succeeded"}
    await shop.finish()
    assert shop.units("external:test") == held - 10_010_000 and shop.passing(work) == 0 and shop.sum_is_zero()
    assert (shop.owed(seller), shop.units("platform:revenue")) == (9_009_000, 1_001_000)
    purchase = await shop.get(f"/v1/purchases/{purchase['id']}", bearer)
    assert purchase["status"] == "completed" and purchase["intent"]["status"] == "succeeded"
    assert purchase["intent"]["client_secret"] is None  # told to the payer once
    (entitlement,) = await shop.get("/v1/library", bearer)
    assert (entitlement["kind"], entitlement["ends_at"]) == ("own", None)
    assert (await shop.get(reading, bearer))["body"]
    await shop.refused(409, "CONFLICT", "already_owned", "/v1/purchases", bearer,
                       {"offer_id": offer["id"], "method": "provider"})  # fmt: skip
    await shop.refused(409, "CONFLICT", "own_work", "/v1/purchases", seller_bearer,
                       {"offer_id": offer["id"], "method": "provider"})  # fmt: skip
    (payment,) = await shop.get("/v1/payments", bearer)
    assert (payment["status"], payment["amount"], payment["batch"]) == ("deposited", "10.01", None)
    assert (await shop.get(f"/v1/payments/intents/{purchase['intent']['id']}", bearer))["status"] == "succeeded"
    await shop.world.data("POST", f"/v1/works/{work['id']}/archive", headers=seller_bearer)
    assert (await shop.get(reading, bearer))["body"]  # who bought it keeps it


async def test_lines_name_the_batch_and_digest_that_settled_them(shop):
    _, seller_bearer, work, _, offer = await shop.seller("1")
    _, bearer = await shop.buyer("5")
    await shop.buy(bearer, offer, "balance")
    await shop.finish()
    earned = await shop.get(f"/v1/royalties/works/{work['id']}", seller_bearer)
    (sale,) = earned["distributions"]
    sequence = sale["lines"][0]["sequence"]
    assert sale["status"] == "posted" and sequence and sale["lines"][0]["batch"] is None
    await shop.world.sql(
        "INSERT INTO settlement.batch (number, first_sequence, last_sequence, cut_at, status, digests)"
        " VALUES (41, $1, $2, now(), 'final', '{sui-digest}')", max(1, sequence - 1), sequence + 1,
    )  # fmt: skip
    (sale,) = (await shop.get(f"/v1/royalties/works/{work['id']}", seller_bearer))["distributions"]
    assert {(line["batch"], *line["digests"]) for line in sale["lines"]} == {(41, "sui-digest")}
    report = await shop.get("/v1/royalties/report", seller_bearer)
    assert [(line["batch"], line["digests"]) for line in report["lines"]] == [(41, ["sui-digest"])]
    await shop.world.sql("DELETE FROM settlement.batch WHERE number = 41")


@pytest.mark.parametrize("card", ["events_twice", "events_reversed"])
async def test_events_may_come_twice_and_in_any_order(shop, card):
    seller, _, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    purchase = await shop.buy(bearer, offer)
    await shop.pay(purchase["intent"], card)
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC and shop.sum_is_zero()
    late = await shop.event(purchase["intent"], "failed", reason="changed_my_mind")
    assert late.json()["data"] == {"outcome": "late"}
    assert (await shop.get(f"/v1/purchases/{purchase['id']}", bearer))["status"] == "completed"


async def test_same_event_again_changes_nothing(shop):
    user, bearer = await shop.buyer()
    intent = await shop.post("/v1/payments/intents", bearer, {"asset": "USDC", "amount": "7"})
    event = {"id": "evt_" + uuid4().hex, "payment": "py_" + uuid4().hex[:20]}
    outcomes = [(await shop.event(intent, **event)).json()["data"]["outcome"] for _ in range(3)]
    other = await shop.event(intent, payment=event["payment"])  # another event of the same payment
    assert outcomes == ["succeeded", "duplicate", "duplicate"] and other.json()["data"]["outcome"] == "known"
    two = await asyncio.gather(*(shop.event(intent, id="evt_same" + user, payment=event["payment"]) for _ in "ab"))
    assert sorted(answer.json()["data"]["outcome"] for answer in two) == ["duplicate", "known"]
    await shop.finish()
    assert shop.units(f"user:{user}") == 7 * USDC


async def test_lost_events_are_made_good_by_asking(shop):
    seller, _, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    purchase = await shop.buy(bearer, offer)
    path = f"/v1/payments/intents/{purchase['intent']['id']}/confirm"
    said = await shop.world.data("POST", path, headers=bearer)
    assert said["status"] == "requires_payment"  # saying so is not paying
    await shop.pay(purchase["intent"], "events_lost")
    await shop.finish()
    assert shop.owed(seller) == 0
    assert (await shop.world.data("POST", path, headers=bearer))["status"] == "succeeded"
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC


async def test_declined_card_fails_the_purchase_and_another_may_follow(shop):
    seller, _, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    purchase = await shop.buy(bearer, offer)
    await shop.pay(purchase["intent"], "declined")
    await shop.finish()
    failed = await shop.get(f"/v1/purchases/{purchase['id']}", bearer)
    assert (failed["status"], failed["reason"], failed["intent"]["status"]) == ("failed", "card_declined", "failed")
    second = await shop.buy(bearer, offer)
    await shop.pay(second["intent"])
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC


async def test_payment_after_all_is_taken_although_the_intent_had_expired(shop):
    seller, _, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    taken, open_ = await shop.buy(bearer, offer), None
    await shop.pay(taken["intent"], "events_lost")
    expire = shop.payments.intents._expire
    job = type("Job", (), {"intent_id": UUID(taken["intent"]["id"])})
    await expire(job)  # asks the provider first, who has the money
    await shop.finish()
    assert (await shop.get(f"/v1/purchases/{taken['id']}", bearer))["status"] == "completed"
    _, other = await shop.buyer()
    open_ = await shop.buy(other, offer)
    await expire(type("Job", (), {"intent_id": UUID(open_["intent"]["id"])}))
    expired = await shop.get(f"/v1/purchases/{open_['id']}", other)
    assert (expired["status"], expired["intent"]["status"]) == ("failed", "expired")
    body = {"intent": open_["intent"]["provider_ref"], "client_secret": open_["intent"]["client_secret"]}
    await shop.world.refused(409, "CONFLICT", "not_payable", "POST", "/v1/test-provider/payments", json=body)
    await shop.event(open_["intent"])  # it was paid at the last instant, and the news was long under way
    await shop.finish()
    assert (await shop.get(f"/v1/purchases/{open_['id']}", other))["status"] == "completed"
    assert shop.owed(seller) == 18 * USDC


async def test_success_that_is_told_while_the_intent_expires_stands(shop, monkeypatch):
    """The provider's event comes between its own cancellation and our note of that."""
    user, bearer = await shop.buyer()
    intent = await shop.post("/v1/payments/intents", bearer, {"asset": "USDC", "amount": "7"})
    cancel = shop.payments.test.cancel

    async def paid_at_the_last_instant(ref):
        fact = await cancel(ref)
        assert (await shop.event(intent)).json()["data"] == {"outcome": "succeeded"}
        return fact

    monkeypatch.setattr(shop.payments.test, "cancel", paid_at_the_last_instant)
    await shop.payments.intents._expire(type("Job", (), {"intent_id": UUID(intent["id"])}))
    await shop.finish()
    assert (await shop.get(f"/v1/payments/intents/{intent['id']}", bearer))["status"] == "succeeded"
    assert shop.units(f"user:{user}") == 7 * USDC


async def test_late_payment_of_what_was_bought_meanwhile_is_the_payers_own_money(shop):
    seller, _, _, _, offer = await shop.seller()
    user, bearer = await shop.buyer()
    first = await shop.buy(bearer, offer)
    await shop.payments.intents._expire(type("Job", (), {"intent_id": UUID(first["intent"]["id"])}))
    second = await shop.buy(bearer, offer)
    await shop.pay(second["intent"])
    await shop.finish()
    await shop.event(first["intent"])  # it was paid at the last instant, and the news was long under way
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC and shop.units(f"user:{user}") == 10 * USDC
    late = await shop.get(f"/v1/purchases/{first['id']}", bearer)
    assert (late["status"], late["intent"]["status"], late["intent"]["reason"]) == (
        "failed", "succeeded", "already_owned")  # fmt: skip
    assert len(await shop.get("/v1/library", bearer)) == 1


async def test_nothing_is_bought_twice_while_the_first_payment_is_under_way(shop):
    seller, _, _, _, offer = await shop.seller()
    user, bearer = await shop.buyer("30")
    first = await shop.buy(bearer, offer)
    await shop.payments.intents._expire(type("Job", (), {"intent_id": UUID(first["intent"]["id"])}))
    second = await shop.buy(bearer, offer)
    await shop.event(first["intent"])  # late; the core has not answered yet
    await shop.event(second["intent"])
    path, body = "/v1/purchases", {"offer_id": offer["id"], "method": "balance"}
    await shop.refused(409, "CONFLICT", "already_owned", path, bearer, body)
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC and shop.units(f"user:{user}") == 40 * USDC
    states = [(await shop.get(f"{path}/{one['id']}", bearer))["status"] for one in (first, second)]
    assert states == ["completed", "failed"] and len(await shop.get("/v1/library", bearer)) == 1


async def test_of_two_offers_of_one_work_begun_side_by_side_one_is_paid(shop):
    seller, seller_bearer, work, _, offer = await shop.seller()
    path, body = f"/v1/works/{work['id']}/offers", {"kind": "rent", "asset": "USDC", "price": "2", "access_seconds": 60}
    rent = await shop.world.data("POST", path, headers=seller_bearer, json=body)
    user, bearer = await shop.buyer()
    both = [await shop.buy(bearer, offer), await shop.buy(bearer, rent)]
    for purchase in reversed(both):
        await shop.pay(purchase["intent"])
        await shop.finish()
    owned, rented = [await shop.get(f"/v1/purchases/{one['id']}", bearer) for one in both]
    assert (rented["status"], owned["status"], owned["reason"]) == ("completed", "failed", "already_owned")
    assert shop.owed(seller) == 1_800_000 and shop.units(f"user:{user}") == 10 * USDC
    assert (await shop.buy(bearer, offer, "balance"))["status"] == "completed"  # begun with the rental in sight
    await shop.finish()
    assert shop.owed(seller) == 10_800_000 and shop.sum_is_zero()


async def test_work_is_sold_when_it_is_paid_for_and_not_by_a_click(shop):
    seller, seller_bearer, work, _, offer = await shop.seller()
    user, bearer = await shop.buyer()
    unpaid = await shop.buy(bearer, offer)
    poor = {"offer_id": offer["id"], "method": "balance"}
    _, penniless = await shop.buyer()
    await shop.refused(402, "PAYMENT_FAILED", "insufficient_funds", "/v1/purchases", penniless, poor)
    _, rich = await shop.buyer("10")
    shop.core.lose.append("request")
    assert (await shop.buy(rich, offer, "balance"))["status"] == "pending"
    delete = ("DELETE", f"/v1/works/{work['id']}")
    await shop.world.refused(409, "CONFLICT", "sold", *delete, headers=seller_bearer)
    await shop.finish()
    await shop.world.refused(409, "CONFLICT", "sold", *delete, headers=seller_bearer)
    assert shop.owed(seller) == 9 * USDC and unpaid["status"] == "pending"

    _, seller_bearer, work, _, offer = await shop.seller(name="Quill")
    unpaid = await shop.buy(bearer, offer)
    await shop.refused(402, "PAYMENT_FAILED", "insufficient_funds", "/v1/purchases", penniless,
                       {"offer_id": offer["id"], "method": "balance"})  # fmt: skip
    gone = await shop.world.client.request("DELETE", f"/v1/works/{work['id']}", headers=seller_bearer)
    assert gone.status_code < 300
    await shop.event(unpaid["intent"])
    await shop.finish()
    late = await shop.get(f"/v1/purchases/{unpaid['id']}", bearer)
    assert (late["status"], late["reason"], shop.units(f"user:{user}")) == ("failed", "deleted", 10 * USDC)
    assert shop.passing(work) == 0 and shop.sum_is_zero()


async def test_price_that_the_buyer_was_shown_is_the_price_or_nothing_is_bought(shop):
    _, seller_bearer, _, _, offer = await shop.seller()
    user, bearer = await shop.buyer("30")
    await shop.world.data("PATCH", f"/v1/offers/{offer['id']}", headers=seller_bearer, json={"price": "11.5"})
    for method in ("balance", "provider"):
        body = {"offer_id": offer["id"], "method": method, "price": "10"}
        answer = await shop.refused(409, "CONFLICT", "price_changed", "/v1/purchases", bearer, body)
        assert answer.json()["error"]["details"]["price"] == "11.5"
    assert await shop.get("/v1/purchases", bearer) == []
    await shop.post("/v1/purchases", bearer, body | {"method": "balance", "price": "11.50"})
    assert shop.units(f"user:{user}") == 18_500_000


async def test_what_is_not_just_what_was_asked_goes_to_the_payer(shop):
    seller, _, _, _, offer = await shop.seller()
    user, bearer = await shop.buyer()
    purchase = await shop.buy(bearer, offer)
    await shop.event(purchase["intent"], amount="9.5")
    await shop.event(purchase["intent"])  # and a second payment, this time as asked: it was failed by the first
    await shop.finish()
    failed = await shop.get(f"/v1/purchases/{purchase['id']}", bearer)
    assert (failed["status"], failed["reason"]) == ("failed", "amount_differs")
    assert shop.units(f"user:{user}") == 19_500_000 and shop.owed(seller) == 0


async def test_events_that_the_provider_did_not_sign_are_refused(shop):
    _, bearer = await shop.buyer()
    intent = await shop.post("/v1/payments/intents", bearer, {"asset": "USDC", "amount": "7"})
    path = "/v1/webhooks/payments/test"
    content = b'{"id":"evt_1","status":"succeeded"}'
    signed = shop.payments.test.sign(content)
    for headers, body in (
        ({"content-type": "application/json"}, content), (signed, content + b" "),
        (signed | {"byline-signature": "t=1,v1=" + "0" * 64}, content), (signed | {"byline-signature": "x" * 999}, b""),
    ):  # fmt: skip
        await shop.world.refused(401, "UNAUTHORIZED", "bad_signature", "POST", path, headers=headers, content=body)
    await shop.world.refused(401, "UNAUTHORIZED", "malformed", "POST", path, headers=signed, content=content)
    stale = await shop.event(intent, at=int(time.time()) - TOLERANCE_SECONDS - 60)
    assert stale.status_code == 401 and stale.json()["error"]["details"]["reason"] == "stale_signature"
    await shop.world.refused(404, "NOT_FOUND", "unknown_provider", "POST", "/v1/webhooks/payments/stripe",
                             headers=signed, content=content)  # fmt: skip
    assert (await shop.event(intent | {"provider_ref": "pi_nobody"})).json()["data"] == {"outcome": "unknown_intent"}
    assert (await shop.get("/v1/payments", bearer)) == []
    wrong = {"intent": intent["provider_ref"], "client_secret": "guess"}
    await shop.world.refused(404, "NOT_FOUND", "unknown_intent", "POST", "/v1/test-provider/payments", json=wrong)


@pytest.mark.parametrize(
    "body",
    [{"asset": "NONE", "amount": "1"}, {"asset": "USDC", "amount": "0.0000001"}, {"asset": "USDC", "amount": "0"},
     {"asset": "USDC", "amount": "99999999999999"}],
)  # fmt: skip
async def test_malformed_intent_is_refused(shop, body):
    _, bearer = await shop.buyer()
    answer = await shop.world.client.post(
        "/v1/payments/intents", headers=bearer | {"idempotency-key": uuid4().hex}, json=body
    )
    assert answer.status_code == 400, answer.text
    await shop.world.refused(400, "VALIDATION_ERROR", "missing", "POST", "/v1/payments/intents", headers=bearer,
                             json={"asset": "USDC", "amount": "1"})  # fmt: skip


async def test_a_card_brings_money_up_to_the_bound_of_a_payment_and_never_a_token(api_dsn):
    """A deposit makes units: of a token there are as many as were launched."""
    async with shop_over(api_dsn, provider_payment_max=50) as shop:
        path, listed = "/v1/payments/intents", "INSERT INTO exchange.asset VALUES (902, 'QUILL', 4, true)"
        shop.core.send(op="asset", asset="QUILL", scale=4, settled=True)
        await shop.world.sql(f"{listed} ON CONFLICT DO NOTHING")
        _, bearer = await shop.buyer()

        async def refused(reason, field, path, body):
            answer = await shop.refused(400, "VALIDATION_ERROR", reason, path, bearer, body)
            assert answer.json()["error"]["details"]["field"] == field

        await refused("asset_not_taken", "asset", path, {"asset": "QUILL", "amount": "1"})
        await refused("bad_amount", "amount", path, {"asset": "USDC", "amount": "50.000001"})
        _, _, _, _, token = await shop.seller("1", asset="QUILL")
        _, _, _, _, dear = await shop.seller("50.000001")
        for offer, reason in ((token, "asset_not_taken"), (dear, "bad_amount")):
            await refused(reason, "method", "/v1/purchases", {"offer_id": offer["id"], "method": "provider"})
        assert await shop.world.sql("SELECT 1 FROM payments.intent WHERE asset = 'QUILL'") == []

        # Nor by what the provider says of an intent in money.
        intent = await shop.post(path, bearer, {"asset": "USDC", "amount": "50"})
        answer = await shop.event(intent, asset="QUILL")
        assert answer.json()["data"] == {"outcome": "unknown_asset"}
        await shop.finish()
        assert await shop.get("/v1/payments", bearer) == []
        assert (await shop.event(intent)).json()["data"] == {"outcome": "succeeded"}
        await shop.finish()
        assert [payment["amount"] for payment in await shop.get("/v1/payments", bearer)] == ["50"]


async def test_balance_pays_at_once_or_not_at_all(shop):
    seller, _, work, _, offer = await shop.seller()
    user, bearer = await shop.buyer("15")
    purchase = await shop.buy(bearer, offer, "balance")
    assert purchase["status"] == "completed" and shop.units(f"user:{user}") == 5 * USDC
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC and shop.passing(work) == 0
    _, _, dear, _, second = await shop.seller("6", "Quill")
    key = uuid4().hex
    wanted = {"offer_id": second["id"], "method": "balance"}
    for _ in range(2):  # the same key: the same failure
        answer = await shop.refused(402, "PAYMENT_FAILED", "insufficient_funds", "/v1/purchases", bearer, wanted, key)
    failed = answer.json()["error"]["details"]["id"]
    intent = await shop.post("/v1/payments/intents", bearer, {"asset": "USDC", "amount": "1"})
    await shop.pay(intent)
    await shop.finish()  # now there would be enough, but what failed never runs
    assert (await shop.get(f"/v1/purchases/{failed}", bearer))["status"] == "failed"
    assert shop.units(f"user:{user}") == 6 * USDC and shop.passing(dear) == 0
    assert (await shop.buy(bearer, second, "balance"))["status"] == "completed"


async def test_rental_ends_after_its_time(shop):
    _, _, work, chapter, offer = await shop.seller("2", kind="rent", access_seconds=3_600)
    user, bearer = await shop.buyer("5")
    await shop.buy(bearer, offer, "balance")
    await shop.finish()
    (entitlement,) = await shop.get("/v1/library", bearer)
    assert entitlement["kind"] == "rent" and entitlement["ends_at"]
    reading = f"/v1/works/{work['id']}/chapters/{chapter['id']}"
    assert not (await shop.get(reading, bearer))["locked"]
    await shop.world.sql(
        "UPDATE payments.entitlement SET starts_at = now() - interval '2 h', ends_at = now() - interval '1 h'"
        " WHERE account_id = $1", UUID(user),
    )  # fmt: skip
    assert await shop.get("/v1/library", bearer) == [] and (await shop.get(reading, bearer))["locked"]
    assert (await shop.buy(bearer, offer, "balance"))["status"] == "completed"  # rented again


async def test_buyer_gets_the_files_until_the_access_ends(shop):
    _, seller_bearer, work, _, offer = await shop.seller("2", kind="rent", access_seconds=3_600)
    content = png()
    file = await file_of(shop.world, seller_bearer, content)
    asset = {"role": "attachment", "file_id": file["id"]}
    await shop.world.data("POST", f"/v1/works/{work['id']}/assets", headers=seller_bearer, json=asset)
    user, bearer = await shop.buyer("5")
    purchase = await shop.buy(bearer, offer, "balance")
    path = f"/v1/purchases/{purchase['id']}/access-token"
    (found,) = (await shop.get(path, bearer))["files"]
    assert (await shop.world.client.get(found["url"])).content == content
    _, stranger = await shop.buyer()
    await shop.world.refused(404, "NOT_FOUND", "unknown_purchase", "GET", path, headers=stranger)
    await shop.world.sql(
        "UPDATE payments.entitlement SET starts_at = now() - interval '2 h', ends_at = now() - interval '1 h'"
        " WHERE account_id = $1", UUID(user),
    )  # fmt: skip
    await shop.world.refused(403, "LICENSE_EXPIRED", "access_ended", "GET", path, headers=bearer)
    pending = await shop.buy(bearer, offer)
    path = f"/v1/purchases/{pending['id']}/access-token"
    await shop.world.refused(409, "CONFLICT", "not_completed", "GET", path, headers=bearer)


async def test_what_was_bought_is_kept_when_it_is_taken_from_the_shelf(shop):
    _, seller_bearer, work, first, offer = await shop.seller("2")
    file = await file_of(shop.world, seller_bearer, png())
    path, reading = f"/v1/works/{work['id']}/assets", f"/v1/works/{work['id']}/chapters/{first['id']}"
    body = {"role": "attachment", "file_id": file["id"]}
    asset = await shop.world.data("POST", path, headers=seller_bearer, json=body)
    _, early = await shop.buyer("5")
    bought = await shop.buy(early, offer, "balance")
    await shop.finish()
    await shop.world.data("POST", f"/v1/chapters/{first['id']}/unpublish", headers=seller_bearer)
    removed = await shop.world.client.delete(f"{path}/{asset['id']}", headers=seller_bearer)
    assert removed.status_code < 300
    assert (await shop.get(reading, early))["body"]
    assert len((await shop.get(f"/v1/purchases/{bought['id']}/access-token", early))["files"]) == 1
    delete = ("DELETE", f"/v1/chapters/{first['id']}")
    await shop.world.refused(409, "CONFLICT", "sold", *delete, headers=seller_bearer)
    _, late = await shop.buyer("5")
    other = await chapter(shop.world, seller_bearer, work, "Another")
    await shop.world.data("POST", f"/v1/chapters/{other['id']}/publish", headers=seller_bearer)
    second = await shop.buy(late, offer, "balance")
    await shop.finish()
    await shop.world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", reading, headers=late)
    assert (await shop.get(f"/v1/purchases/{second['id']}/access-token", late))["files"] == []
    await shop.world.data("POST", f"/v1/chapters/{first['id']}/publish", headers=seller_bearer)
    assert (await shop.get(reading, late))["body"]


async def test_work_whose_only_chapter_is_out_of_sight_is_not_sold(shop):
    _, seller_bearer, work, first, offer = await shop.seller("2")
    _, bearer = await shop.buyer("5")
    path, body = f"/v1/chapters/{first['id']}", {"offer_id": offer["id"], "method": "balance"}
    await shop.world.data("POST", f"{path}/unpublish", headers=seller_bearer)
    await shop.refused(409, "CONFLICT", "offer_ended", "/v1/purchases", bearer, body)
    await shop.refused(409, "CONFLICT", "offer_ended", "/v1/purchases", bearer, body | {"method": "provider"})
    await shop.world.data("POST", f"{path}/publish", headers=seller_bearer)
    assert (await shop.buy(bearer, offer, "balance"))["status"] == "completed"
    await shop.finish()
    assert (await shop.get(f"/v1/works/{work['id']}/chapters/{first['id']}", bearer))["body"]


@pytest.mark.parametrize("of", ["work", "chapter"])
@pytest.mark.parametrize("method", ["provider", "balance"])
async def test_what_left_the_shelf_before_its_payment_came_is_the_buyers_as_it_was(shop, of, method):
    _, seller_bearer, work, first, offer = await shop.seller("2")
    if of == "chapter":
        body = {"kind": "purchase", "asset": "USDC", "price": "2", "chapter_id": first["id"]}
        offer = await shop.world.data("POST", f"/v1/works/{work['id']}/offers", headers=seller_bearer, json=body)
    _, bearer = await shop.buyer("5")
    if method == "balance":
        shop.core.lose.append("request")
    bought = await shop.buy(bearer, offer, method)
    assert bought["status"] == "pending"
    await shop.world.data("POST", f"/v1/chapters/{first['id']}/unpublish", headers=seller_bearer)
    if method == "provider":
        await shop.pay(bought["intent"])
    await shop.finish()
    assert (await shop.get(f"/v1/purchases/{bought['id']}", bearer))["status"] == "completed"
    assert (await shop.get(f"/v1/works/{work['id']}/chapters/{first['id']}", bearer))["body"]
    access = f"/v1/purchases/{bought['id']}/access-token?chapter_id={first['id']}"
    assert (await shop.get(access, bearer))["files"] == []  # a chapter of this right; its text is no file


@pytest.mark.parametrize("added", [False, True], ids=["nothing", "a master that nobody has looked at"])
async def test_payment_for_a_work_whose_chapters_were_all_deleted_is_the_payers_own(api_dsn, added):
    async with shop_over(api_dsn, works_need_verification=added) as shop:
        seller, seller_bearer, work, first, offer = await shop.seller()
        if added:
            await decided(shop.world, await shop.staff(), work)
        user, bearer = await shop.buyer()
        bought = await shop.buy(bearer, offer)
        gone = await shop.world.client.request("DELETE", f"/v1/chapters/{first['id']}", headers=seller_bearer)
        assert gone.status_code < 300
        if added:
            body = {"role": "master", "file_id": (await file_of(shop.world, seller_bearer, png()))["id"]}
            await shop.world.data("POST", f"/v1/works/{work['id']}/assets", headers=seller_bearer, json=body)
        await shop.pay(bought["intent"])
        await shop.finish()
        late = await shop.get(f"/v1/purchases/{bought['id']}", bearer)
        assert (late["status"], late["reason"], shop.units(f"user:{user}")) == ("failed", "deleted", 10 * USDC)
        assert shop.owed(seller) == 0 and shop.passing(work) == 0 and shop.sum_is_zero()


async def test_buyer_of_a_chapter_that_is_looked_at_again_reads_what_was_looked_at(api_dsn):
    async with shop_over(api_dsn, works_need_verification=True) as shop:
        _, seller_bearer, work, chapter, offer = await shop.seller("2")
        staff = await shop.staff()
        await decided(shop.world, staff, work)
        reading = f"/v1/works/{work['id']}/chapters/{chapter['id']}"
        _, bearer = await shop.buyer("5")
        await shop.buy(bearer, offer, "balance")
        await shop.finish()
        bought = (await shop.get(reading, bearer))["body"]
        change = ("PATCH", f"/v1/chapters/{chapter['id']}")
        for decision in ("reject", "approve"):
            if decision == "approve":
                await shop.world.data("POST", f"/v1/chapters/{chapter['id']}/publish", headers=seller_bearer)
            else:
                new = {"title": "Never seen", "body": "Never seen. " * 30}
                await shop.world.data(*change, headers=seller_bearer, json=new)
            for path in (reading, f"{reading}?version=1"):
                read = await shop.get(path, bearer)
                assert read["body"] == bought
                assert (read["chapter"]["title"], read["chapter"]["content_version"]) == ("One", 1)
            await shop.world.refused(404, "NOT_FOUND", "unknown_version", "GET", f"{reading}?version=2",
                                     headers=bearer)  # fmt: skip
            assert (await shop.get(reading, seller_bearer))["body"].startswith("Never seen.")
            assert (await shop.get(reading, staff))["body"].startswith("Never seen.")
            await decided(shop.world, staff, work, decision)
        assert (await shop.get(reading, bearer))["body"].startswith("Never seen.")


@pytest.mark.parametrize("was", ["in_review", "draft"])
async def test_buyer_of_a_work_out_of_sight_gets_what_was_looked_at_whatever_its_owner_changes(api_dsn, was):
    async with shop_over(api_dsn, works_need_verification=True) as shop:
        _, seller_bearer, work, first, offer = await shop.seller("2")
        inside = f"/v1/works/{work['id']}"
        staff = await shop.staff()
        await decided(shop.world, staff, work)
        _, bearer = await shop.buyer("5")
        bought = await shop.buy(bearer, offer, "balance")
        await shop.finish()

        async def got():
            about, chapters = await shop.get(inside, bearer), await shop.get(f"{inside}/chapters", bearer)
            read = await shop.get(f"{inside}/chapters/{first['id']}", bearer)
            files = await shop.get(f"/v1/purchases/{bought['id']}/access-token", bearer)
            shown = [asset["role"] for asset in await shop.get(f"{inside}/assets", bearer)]
            return about["title"], about["content_version"], len(chapters), read["body"], len(files["files"]), shown

        before = await got()
        assert before[:3] == ("The Ink Road", 2, 1) and before[4:] == (0, [])  # its chapter made the second version
        await shop.world.data("PATCH", inside, headers=seller_bearer, json={"title": "Never seen"})
        if was == "draft":
            await decided(shop.world, staff, work, "reject")
        assert (await shop.get(inside, seller_bearer))["status"] == was
        for role, content in (("poster", png()), ("attachment", png(bytes(20)))):
            file = await file_of(shop.world, seller_bearer, content)
            await shop.world.data("POST", f"{inside}/assets", headers=seller_bearer,
                                  json={"role": role, "file_id": file["id"]})  # fmt: skip
        second = await chapter(shop.world, seller_bearer, work, "Two")
        await shop.world.data("POST", f"/v1/chapters/{second['id']}/publish", headers=seller_bearer)
        path = f"/v1/chapters/{first['id']}"
        await shop.world.data("PATCH", path, headers=seller_bearer, json={"body": "Never seen. " * 30})
        title, number, _, *rest = await got()  # the list has chapters in sight alone
        assert (title, number, *rest) == (*before[:2], *before[3:])
        await shop.world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", f"{inside}/chapters/{second['id']}",
                                 headers=bearer)  # fmt: skip
        if was == "draft":
            await shop.world.data("POST", f"{inside}/publish", headers=seller_bearer)
        await decided(shop.world, staff, work)
        title, number, chapters, body, *files = await got()
        assert (title, number, chapters, files) == ("Never seen", 7, 2, [1, ["poster"]])
        assert body.startswith("Never seen.")


async def test_buyers_get_versions_that_were_shown_and_none_of_those_between(api_dsn):
    async with shop_over(api_dsn, works_need_verification=True) as shop:
        _, owner, work, text, offer = await shop.seller("2")
        inside, staff, pictures = f"/v1/works/{work['id']}/chapters", await shop.staff(), {}

        async def file(number):
            content = png(bytes(number))
            made = await file_of(shop.world, owner, content)
            pictures[content] = number
            return {"file_id": made["id"]}

        async def change(body, number):
            await shop.world.data("PATCH", f"/v1/chapters/{text['id']}", headers=owner, json={"body": body * 30})
            changed = await file(number)
            await shop.world.data("PATCH", f"/v1/chapters/{drawn['id']}", headers=owner, json=changed)

        async def buyer():
            _, bearer = await shop.buyer("5")
            bought = await shop.buy(bearer, offer, "balance")
            await shop.finish()
            return bearer, f"/v1/purchases/{bought['id']}/access-token?chapter_id={drawn['id']}"

        async def got(bearer, files):
            """Versions of the text, and pictures, that somebody gets."""
            paths = {number: f"{inside}/{text['id']}?version={number}" for number in range(1, 6)}
            answers = {number: await shop.world.client.get(path, headers=bearer) for number, path in paths.items()}
            assert {answer.status_code for answer in answers.values()} <= {200, 404}
            signed = await shop.world.client.get(files, headers=bearer)
            links = signed.json()["data"]["files"] if signed.status_code == 200 else []
            found = {pictures[(await shop.world.client.get(link["url"])).content] for link in links}
            return {number for number, answer in answers.items() if answer.status_code == 200}, found

        body = {"title": "Drawn"} | await file(10)
        drawn = await shop.world.data("POST", inside, headers=owner, json=body)
        await shop.world.data("POST", f"/v1/chapters/{drawn['id']}/publish", headers=owner)
        third = await chapter(shop.world, owner, work, "Three")  # so that there is something to sell
        await shop.world.data("POST", f"/v1/chapters/{third['id']}/publish", headers=owner)
        await decided(shop.world, staff, work)
        early = await buyer()
        await change("Rejected. ", 20)
        late = await buyer()
        assert (await got(*early), await got(*late)) == (({1}, {10}), (set(), set()))
        await decided(shop.world, staff, work, "reject")
        await change("Never looked at. ", 30)
        assert (await got(*early), await got(*late)) == (({1}, {10}), (set(), set()))
        for made in (text, drawn):
            await shop.world.data("POST", f"/v1/chapters/{made['id']}/publish", headers=owner)
        await change("Approved. ", 40)
        await decided(shop.world, staff, work)
        assert (await got(*early), await got(*late)) == (({1, 4}, {10, 40}), ({4}, {40}))
        assert (await got(owner, late[1]))[0] == {1, 2, 3, 4}


async def test_buyers_do_not_read_drafts_of_what_was_published_later(shop):
    _, owner, work, first, offer = await shop.seller("2")
    _, bearer = await shop.buyer("5")
    await shop.buy(bearer, offer, "balance")
    await shop.finish()
    second = await chapter(shop.world, owner, work, "Two", body="A draft. " * 30)
    for made, hidden in ((first, True), (second, False)):
        path = f"/v1/chapters/{made['id']}"
        if hidden:
            await shop.world.data("POST", f"{path}/unpublish", headers=owner)
            await shop.world.data("PATCH", path, headers=owner, json={"body": "A draft. " * 30})
        for text in ("Done.", "Better."):
            await shop.world.data("PATCH", path, headers=owner, json={"body": f"{text} " * 30})
            await shop.world.data("POST", f"{path}/publish", headers=owner)  # the second is shown as it is written
    shown = {first["id"]: {1: True, 2: False, 3: True, 4: True}, second["id"]: {1: False, 2: True, 3: True}}
    for made, numbers in shown.items():
        for number, is_open in numbers.items():
            path = f"/v1/works/{work['id']}/chapters/{made}?version={number}"
            if is_open:
                assert (await shop.get(path, bearer))["body"]
            else:
                await shop.world.refused(404, "NOT_FOUND", "unknown_version", "GET", path, headers=bearer)


async def test_text_that_was_bought_can_be_read_when_another_takes_its_place(shop):
    _, seller_bearer, work, chapter, offer = await shop.seller("2")
    reading = f"/v1/works/{work['id']}/chapters/{chapter['id']}"
    _, bearer = await shop.buyer("5")
    await shop.buy(bearer, offer, "balance")
    await shop.finish()
    bought = (await shop.get(reading, bearer))["body"]
    await shop.world.data("PATCH", f"/v1/chapters/{chapter['id']}", headers=seller_bearer, json={"body": "Gone. " * 30})
    assert (await shop.get(reading, bearer))["body"].startswith("Gone.")
    assert (await shop.get(f"{reading}?version=1", bearer))["body"] == bought
    _, late = await shop.buyer("5")
    await shop.world.refused(404, "NOT_FOUND", "unknown_version", "GET", f"{reading}?version=1", headers=late)
    await shop.buy(late, offer, "balance")
    await shop.finish()
    assert (await shop.get(f"{reading}?version=2", late))["body"].startswith("Gone.")
    for version in ("1", "3", "0", "9" * 20):
        path = f"{reading}?version={version}"
        await shop.world.refused(404, "NOT_FOUND", "unknown_version", "GET", path, headers=late)


async def test_of_two_buyers_clicks_at_the_same_instant_one_pays(shop):
    _, _, _, _, offer = await shop.seller()
    user, bearer = await shop.buyer("30")
    body = {"offer_id": offer["id"], "method": "balance"}
    answers = await asyncio.gather(*(
        shop.world.client.post("/v1/purchases", headers=bearer | {"idempotency-key": uuid4().hex}, json=body)
        for _ in range(4)
    ))  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    await shop.finish()
    assert shop.units(f"user:{user}") == 20 * USDC


@pytest.mark.parametrize("second", ["another offer", "a chapter", "a card"])
async def test_of_two_offers_of_a_work_asked_for_at_the_same_instant_one_is_paid(shop, second):
    """The first is held where it has looked whether the buyer has the work already, and is not written yet."""
    seller, seller_bearer, work, chapter, offer = await shop.seller()
    other = {"kind": "rent", "asset": "USDC", "price": "2", "access_seconds": 60}
    if second == "a chapter":
        other = {"kind": "purchase", "asset": "USDC", "price": "2", "chapter_id": chapter["id"]}
    other = await shop.world.data("POST", f"/v1/works/{work['id']}/offers", headers=seller_bearer, json=other)
    user, bearer = await shop.buyer("30")
    counted = UUID((await shop.buy(bearer, (await shop.seller("1", name="Quill"))[4], "balance"))["id"])
    await shop.finish()
    card = await shop.buy(bearer, other) if second == "a card" else None

    async def buy(one):
        body = {"offer_id": one["id"], "method": "balance"}
        headers = bearer | {"idempotency-key": uuid4().hex}
        return await shop.world.client.post("/v1/purchases", headers=headers, json=body)

    async def all_wait():
        query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while len(await shop.world.sql(query)) < len(asked) and not any(one.done() for one in asked):
            await asyncio.sleep(0.01)

    db = await asyncpg.connect(shop.world.dsn)
    try:
        async with db.transaction():
            account = "(SELECT account_id FROM payments.purchase WHERE id = $1)"
            await db.execute(f"SELECT FROM payments.unproved WHERE account_id = {account} FOR UPDATE", counted)
            asked = [asyncio.create_task(buy(offer))]
            await all_wait()
            asked.append(asyncio.create_task(buy(other) if card is None else shop.event(card["intent"])))
            await all_wait()
    finally:
        await db.close()
    first, late = [await one for one in asked]
    assert first.json()["data"]["status"] == "completed"
    await shop.finish()
    if card is None:
        assert late.status_code == 409 and late.json()["error"]["details"]["reason"] == "already_owned"
    else:
        late = await shop.get(f"/v1/purchases/{card['id']}", bearer)
        assert (late["status"], late["reason"]) == ("failed", "already_owned")
    assert shop.units(f"user:{user}") == (21 if card else 19) * USDC
    assert shop.owed(seller) == 9 * USDC and shop.sum_is_zero() and len(await shop.get("/v1/library", bearer)) == 2


async def test_buyers_of_one_work_wait_for_each_other_without_the_connections_of_everybody_else(api_dsn):
    async with shop_over(api_dsn, pool_connections_max=3) as shop:
        _, _, work, _, offer = await shop.seller()
        buyers = [(await shop.buyer("10"))[1] for _ in range(4)]
        body = {"offer_id": offer["id"], "method": "balance"}
        db = await asyncpg.connect(api_dsn)
        try:
            async with db.transaction():
                await db.execute("SELECT FROM works.work WHERE id = $1 FOR UPDATE", UUID(work["id"]))
                buying = [
                    asyncio.create_task(shop.world.client.post(
                        "/v1/purchases", headers=bearer | {"idempotency-key": uuid4().hex}, json=body
                    )) for bearer in buyers
                ]  # fmt: skip
                waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                while not await shop.world.sql(waiting):
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)  # the others are where they wait
                assert (await shop.world.client.get(f"/v1/works/{work['id']}")).status_code == 200
        finally:
            await db.close()
        answers = [await one for one in buying]
        assert [answer.status_code for answer in answers] == [201] * 4
        assert {answer.json()["data"]["status"] for answer in answers} == {"completed"}
        await shop.finish()


# ------------------------------------------------------------------------------------------------ refunds


async def refund(shop, purchase, bearer, amount=None, key=None):
    body = {} if amount is None else {"amount": amount}
    return await shop.post(f"/v1/purchases/{purchase['id']}/refund", bearer, body, key)


async def test_refund_takes_back_from_everybody_what_is_left(shop):
    seller, seller_bearer, work, _, offer = await shop.seller()
    staff = await shop.staff()
    _, bearer = await shop.buyer()
    before = shop.units("external:test"), shop.units("platform:revenue")
    purchase = await shop.buy(bearer, offer)
    await shop.pay(purchase["intent"])
    await shop.finish()
    path = f"/v1/purchases/{purchase['id']}/refund"
    too_much = {"amount": "10.000001"}
    answer = await shop.refused(400, "VALIDATION_ERROR", "refund_too_large", path, staff, too_much)
    assert answer.json()["error"]["details"]["left"] == "10"
    await shop.refused(403, "FORBIDDEN", "not_yours_to_refund", path, bearer, {})
    _, stranger = await shop.buyer()
    await shop.refused(404, "NOT_FOUND", "unknown_purchase", path, stranger, {})
    key = uuid4().hex
    first = await refund(shop, purchase, staff, "3.33", key)
    assert await refund(shop, purchase, staff, "3.33", key) == first and first["status"] == "processing"
    await shop.refused(409, "CONFLICT", "refund_open", path, staff, {"amount": "1"})
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC - 2_997_000
    part = await shop.get(f"/v1/purchases/{purchase['id']}", bearer)
    assert (part["status"], part["refunded"], part["intent"]["status"]) == ("completed", "3.33", "partially_refunded")
    await shop.refused(400, "VALIDATION_ERROR", "refund_too_large", path, staff, {"amount": "6.68"})
    await refund(shop, purchase, staff)
    await shop.finish()
    assert (shop.units("external:test"), shop.units("platform:revenue")) == before
    assert shop.owed(seller) == 0 and shop.passing(work) == 0 and shop.sum_is_zero()
    whole = await shop.get(f"/v1/purchases/{purchase['id']}", bearer)
    assert (whole["status"], whole["intent"]["status"]) == ("refunded", "refunded")
    assert await shop.get("/v1/library", bearer) == []
    await shop.refused(409, "CONFLICT", "not_refundable", path, staff, {})
    (sale,) = (await shop.get(f"/v1/royalties/works/{work['id']}", seller_bearer))["distributions"]
    assert sale["status"] == "reversed" and all(line["amount"] == line["reversed"] for line in sale["lines"])
    rows = await shop.world.sql("SELECT payment, amount FROM test_provider.refund ORDER BY created_at DESC LIMIT 2")
    assert sorted(row["amount"] for row in rows) == ["3.33", "6.67"] and len({row["payment"] for row in rows}) == 1


async def test_refund_whose_answer_was_lost_names_its_sequence_and_batch_too(shop):
    _, seller_bearer, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    purchase = await shop.buy(bearer, offer)
    await shop.pay(purchase["intent"])
    await shop.finish()
    assert (await refund(shop, purchase, await shop.staff()))["status"] == "processing"
    shop.core.lose.append("answer")  # of the command that posts what is held
    await shop.finish()
    assert not shop.core.lose

    async def line():
        lines = (await shop.get("/v1/royalties/report", seller_bearer))["lines"]
        return next(one for one in lines if one["kind"] == "reversed")

    assert (await line())["sequence"] is None  # the core said only that it had run
    await shop.world.sql("DELETE FROM exchange.asset")  # the one that stands in for the projection
    projector = Projector(shop.core, shop.world.dsn, journal=uuid4().bytes)
    while await projector.step():
        pass
    await projector.close()
    posted = next(command for command in reversed(shop.core.commands) if command["op"] == "post")
    (row,) = await shop.world.sql("SELECT DISTINCT sequence FROM exchange.posting WHERE ref = $1", posted["ref"])
    await shop.world.sql(
        "INSERT INTO settlement.batch (number, first_sequence, last_sequence, cut_at, status, digests)"
        " VALUES (42, $1, $1, now(), 'final', '{sui-digest}')", row["sequence"],
    )  # fmt: skip
    found = await line()
    assert (found["sequence"], found["batch"], found["digests"]) == (row["sequence"], 42, ["sui-digest"])
    await shop.world.sql(
        "TRUNCATE exchange.projection, exchange.asset, exchange.market, exchange.account, exchange.posting,"
        " exchange.balance, settlement.batch"
    )


async def test_refund_after_a_payout_leaves_a_debt_that_income_fills_first(shop):
    seller, seller_bearer, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer("30")
    purchase = await shop.buy(bearer, offer, "balance")
    await shop.finish()
    payout = await shop.post("/v1/payouts", seller_bearer, {"asset": "USDC"})
    assert (payout["status"], payout["amount"]) == ("paid", "9") and shop.owed(seller) == 0
    staff, path = await shop.staff(), f"/v1/purchases/{purchase['id']}/refund"
    await own_money(shop.world, 8)
    answer = await shop.refused(409, "CONFLICT", "reserve_empty", path, staff, {})
    assert answer.json()["error"]["details"]["lacking"] == "1" and shop.owed(seller) == 0
    await own_money(shop.world, 9)
    refunded = await refund(shop, purchase, staff)
    assert refunded["status"] == "succeeded" and shop.owed(seller) == -9 * USDC
    await shop.finish()
    assert (shop.units("platform:cover"), shop.units("platform:reserve")) == (9 * USDC, -9 * USDC)
    assert await shop.get("/v1/royalties/balance", seller_bearer) == [
        {"asset": "USDC", "payable": "-9", "held": "0", "paid": "9"}
    ]
    await shop.refused(409, "CONFLICT", "not_payable", "/v1/payouts", seller_bearer, {"asset": "USDC"})
    await shop.buy(bearer, offer, "balance")
    await shop.finish()
    assert shop.owed(seller) == 0 and shop.units("platform:cover") == 0 and shop.sum_is_zero()


async def test_cover_that_the_core_refuses_is_laid_later_without_another_entry(shop, monkeypatch):
    seller, seller_bearer, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer("30")
    purchase = await shop.buy(bearer, offer, "balance")
    await shop.finish()
    await shop.post("/v1/payouts", seller_bearer, {"asset": "USDC"})
    await own_money(shop.world, 9)
    core = shop.world.core
    submit, refused = core.submit, []

    async def full(command):
        if command["op"] == "transfer" and command["ref"].startswith("cover:"):
            refused.append(command["ref"])
            return {"event": "rejected", "reason": "overflow"}
        return await submit(command)

    monkeypatch.setattr(core, "submit", full)
    await refund(shop, purchase, await shop.staff())
    await shop.finish()
    assert len(refused) == 1 and shop.owed(seller) == -9 * USDC and shop.units("platform:cover") == 0
    monkeypatch.setattr(core, "submit", submit)
    await shop.world.sql(
        "UPDATE jobs.pgqueuer SET entrypoint = 'payments', execute_after = now()"
        " WHERE entrypoint = 'aside' AND convert_from(payload, 'UTF8') LIKE '%cover_again%'"
    )
    await shop.finish()
    assert shop.units("platform:cover") == 9 * USDC and shop.sum_is_zero()


async def test_seller_gives_back_what_is_held_and_never_our_money(api_dsn):
    async with shop_over(api_dsn, royalty_hold_days=7) as shop:
        seller, bearer, _, _, offer = await shop.seller()
        first, second, third = [await shop.buy((await shop.buyer("10"))[1], offer, "balance") for _ in range(3)]
        await shop.finish()
        assert (await refund(shop, first, bearer))["status"] == "succeeded"
        await shop.finish()
        assert shop.owed(seller) == 18 * USDC
        await shop.world.entries("SET matures_at = now() WHERE account_id = $1", UUID(seller))
        await shop.post("/v1/payouts", bearer, {"asset": "USDC", "amount": "10"})
        assert (await refund(shop, second, bearer, "8"))["status"] == "succeeded"  # 7.2 of the 8 that are left
        await shop.refused(402, "PAYMENT_FAILED", "insufficient_funds", f"/v1/purchases/{second['id']}/refund", bearer,
                           {"reason": "Torn."})  # fmt: skip
        assert shop.owed(seller) == 800_000
        await shop.world.sql("UPDATE payments.purchase SET completed_at = completed_at - interval '7 days'"
                             " WHERE seller_id = $1", UUID(seller))  # fmt: skip
        path = f"/v1/purchases/{third['id']}/refund"
        await shop.refused(403, "FORBIDDEN", "hold_over", path, bearer, {"amount": "0.1"})
        await own_money(shop.world, 9)
        await refund(shop, third, await shop.staff())
        await shop.finish()
        assert shop.owed(seller) == -8_200_000 and shop.units("platform:cover") == 8_200_000


async def test_sale_that_is_paid_late_comes_on_top_and_moves_no_page(shop):
    _, bearer, _, _, offer = await shop.seller()
    early = await shop.buy((await shop.buyer())[1], offer)
    bought = [await shop.buy((await shop.buyer("10"))[1], offer, "balance") for _ in range(3)]
    await shop.finish()
    page = (await shop.world.client.get("/v1/sales?limit=2", headers=bearer)).json()
    await shop.pay(early["intent"])
    await shop.finish()
    rest = await shop.get(f"/v1/sales?cursor={page['pagination']['next_cursor']}", bearer)
    assert [sale["purchase_id"] for sale in page["data"] + rest] == [one["id"] for one in reversed(bought)]
    latest, *others = await shop.get("/v1/sales", bearer)
    assert latest["purchase_id"] == early["id"] and others == page["data"] + rest


async def test_seller_finds_own_sales_and_gives_one_back_by_it(api_dsn):
    async with shop_over(api_dsn, royalty_hold_days=7) as shop:
        seller, bearer, work, _, offer = await shop.seller()
        _, other, _, _, _ = await shop.seller(name="Quill")
        buyers = [(await shop.buyer("10"))[1] for _ in range(3)]
        bought = [await shop.buy(one, offer, "balance") for one in buyers]
        await shop.buy((await shop.buyer())[1], offer)  # nobody pays it
        await shop.finish()
        page = (await shop.world.client.get("/v1/sales?limit=2", headers=bearer)).json()
        cursor = page["pagination"]["next_cursor"]
        sales = page["data"] + await shop.get(f"/v1/sales?limit=2&cursor={cursor}", bearer)
        assert [sale["purchase_id"] for sale in sales] == [one["id"] for one in reversed(bought)]
        sale = sales[0]
        told = (sale["work_id"], sale["price"], sale["status"], sale["refunded"])
        assert told == (work["id"], "10", "completed", "0")
        assert "account_id" not in sale
        until, sold = (datetime.fromisoformat(sale[name]) for name in ("refundable_until", "sold_at"))
        assert until - sold == timedelta(days=7)
        await refund(shop, {"id": sale["purchase_id"]}, bearer)
        await shop.finish()
        latest, *_ = await shop.get("/v1/sales", bearer)
        assert (latest["status"], latest["refunded"]) == ("refunded", "10")
        assert await shop.get("/v1/sales", other) == [] and await shop.get("/v1/sales", buyers[0]) == []
        lines = (await shop.get("/v1/royalties/report", bearer))["lines"]
        divided = (await shop.get(f"/v1/royalties/works/{work['id']}", bearer))["distributions"]
        keys = [(one["purchase_id"], one["distribution_id"]) for one in sales]
        assert [(one["purchase_id"], one["id"]) for one in divided] == keys and divided[0]["license_id"] is None
        found = [(line["purchase_id"], line["distribution_id"]) for line in lines]
        assert (sorted(found[:-1]), found[-1], lines[-1]["kind"]) == (sorted(keys), keys[0], "reversed")
        earned = next(line for line in lines if line["kind"] == "earned")
        until, at = (datetime.fromisoformat(earned[name]) for name in ("matures_at", "happened_at"))
        assert abs(until - at - timedelta(days=7)) < timedelta(seconds=1)
        assert [row["payable"] for row in await shop.get("/v1/royalties/balance", bearer)] == ["0"]


async def test_sales_are_counted_and_come_off_when_they_are_given_back(shop):
    _, bearer, work, _, offer = await shop.seller()
    staff = await shop.staff()
    creator = (await shop.get(f"/v1/works/{work['id']}", bearer))["creator_id"]
    bought = [await shop.buy((await shop.buyer("10"))[1], offer, "balance") for _ in range(3)]
    await shop.finish()

    async def counted():
        numbers = await shop.get(f"/v1/creators/{creator}/analytics", bearer)
        count = (await shop.get(f"/v1/works/{work['id']}", bearer))["purchase_count"]
        return count, numbers["total_sales"], numbers["total_revenue"], numbers["totals"]["sales"]

    assert await counted() == (3, 3, [{"asset": "USDC", "amount": "30"}], 3)
    await refund(shop, bought[0], staff, "4")
    await refund(shop, bought[1], staff)
    await shop.finish()
    assert await counted() == (2, 2, [{"asset": "USDC", "amount": "16"}], 3)
    await refund(shop, bought[0], staff)
    await shop.finish()
    assert await counted() == (1, 1, [{"asset": "USDC", "amount": "10"}], 3)


async def test_refund_that_the_provider_refuses_frees_what_was_held(shop, monkeypatch):
    seller, _, _, _, offer = await shop.seller()
    staff = await shop.staff()
    _, bearer = await shop.buyer()
    purchase = await shop.buy(bearer, offer)
    await shop.pay(purchase["intent"])
    await shop.finish()

    async def refuse(*_):
        raise Refused("the card is closed")

    monkeypatch.setattr(shop.payments.test, "refund", refuse)
    failed = await refund(shop, purchase, staff)
    assert shop.parts(f"pay:{seller}") == (0, 9 * USDC)  # held while the provider is asked
    await shop.finish()
    assert shop.parts(f"pay:{seller}") == (9 * USDC, 0)
    (row,) = await shop.world.sql("SELECT status, failure FROM payments.refund WHERE id = $1", UUID(failed["id"]))
    assert tuple(row) == ("failed", "the card is closed")
    monkeypatch.undo()
    await refund(shop, purchase, staff)
    await shop.finish()
    assert shop.owed(seller) == 0


async def test_staff_refund_nothing_to_themselves(shop):
    _, _, _, _, offer = await shop.seller()
    staff, bearer = await shop.buyer("30")
    await shop.world.grant(staff, "admin")
    purchase = await shop.buy(bearer, offer, "balance")
    await shop.finish()
    (payment,) = await shop.get("/v1/payments", bearer)
    for path in (f"/v1/purchases/{purchase['id']}/refund", f"/v1/payments/{payment['id']}/refund"):
        await shop.refused(403, "FORBIDDEN", "not_yours_to_refund", path, bearer, {})
    assert shop.units(f"user:{staff}") == 20 * USDC
    other, other_bearer = await shop.buyer()
    await shop.world.grant(other, "admin")
    await refund(shop, purchase, other_bearer)
    await shop.finish()
    assert shop.units(f"user:{staff}") == 30 * USDC


async def test_top_up_is_refunded_by_staff_as_far_as_it_is_there(shop):
    user, bearer = await shop.buyer("10")
    staff, staff_bearer = await shop.buyer()
    await shop.world.grant(staff, "admin")
    (payment,) = await shop.get("/v1/payments", bearer)
    path = f"/v1/payments/{payment['id']}/refund"
    await shop.refused(403, "FORBIDDEN", "not_yours_to_refund", path, bearer, {})
    await shop.post(path, staff_bearer, {"amount": "4"})
    await shop.finish()
    assert shop.units(f"user:{user}") == 6 * USDC
    _, _, _, _, offer = await shop.seller("5")
    await shop.buy(bearer, offer, "balance")
    await shop.refused(402, "PAYMENT_FAILED", "insufficient_funds", path, staff_bearer, {})
    await shop.refused(400, "VALIDATION_ERROR", "refund_too_large", path, staff_bearer, {"amount": "6.1"})


# ------------------------------------------------------------------------------------------------ transfers


async def test_transfer_moves_the_amount_and_a_thousandth_or_nothing(shop):
    sender, bearer = await shop.buyer("10.02")
    receiver, received = await shop.buyer()
    platform = shop.units("platform:revenue")
    path, key = "/v1/transfers", uuid4().hex
    body = {"to": receiver, "asset": "USDC", "amount": "10.000001", "note": "Half."}
    await shop.step_up(bearer)
    done = await shop.post(path, bearer, body, key)
    assert (done["status"], done["direction"], done["amount"], done["fee"]) == (
        "completed", "sent", "10.000001", "0.010001")  # fmt: skip
    assert await shop.post(path, bearer, body, key) == done
    assert (shop.units(f"user:{sender}"), shop.units(f"user:{receiver}")) == (9_998, 10_000_001)
    assert shop.units("platform:revenue") - platform == 10_001
    key, more = uuid4().hex, body | {"amount": "0.009998"}
    for _ in range(2):  # the same key: the same failure
        answer = await shop.refused(402, "PAYMENT_FAILED", "insufficient_funds", path, bearer, more, key)
    assert shop.units(f"user:{sender}") == 9_998
    failed = answer.json()["error"]["details"]["id"]
    found = [(one["id"], one["status"], one["reason"]) for one in await shop.get(path, bearer)]
    assert found == [(failed, "failed", "insufficient_funds"), (done["id"], "completed", None)]
    (seen,) = await shop.get(path, received)
    assert (seen["direction"], seen["fee"], seen["account_id"], seen["note"]) == ("received", "0", sender, "Half.")
    for change, reason in (({"to": sender}, "unknown_account"), ({"to": str(uuid4())}, "unknown_account"),
                           ({"asset": "NONE"}, "unknown_asset"), ({"amount": "0"}, "bad_price"),
                           ({"amount": "0.0000001"}, "bad_price")):  # fmt: skip
        await shop.refused(400, "VALIDATION_ERROR", reason, path, bearer, body | change)
    assert shop.sum_is_zero()


@pytest.mark.parametrize("fault", ["request", "answer"])
async def test_transfer_on_its_way_when_the_core_went_away_comes_once(shop, fault):
    sender, bearer = await shop.buyer("10.01")
    receiver, _ = await shop.buyer()
    await shop.step_up(bearer)
    shop.core.lose.extend(["none", "none", fault] if fault == "answer" else [fault])
    body = {"to": receiver, "asset": "USDC", "amount": "10"}
    assert (await shop.post("/v1/transfers", bearer, body))["status"] == "pending"
    shop.core.lose.clear()
    await shop.finish()
    assert (shop.units(f"user:{sender}"), shop.units(f"user:{receiver}")) == (0, 10 * USDC)
    (found,) = await shop.get("/v1/transfers", bearer)
    assert found["status"] == "completed"


# ------------------------------------------------------------------------------------------------ crashes


async def story(shop):
    """A purchase by card, one from a balance, a partial refund of the first; what everybody has had of it."""
    seller, _, work, _, offer = await shop.seller()
    staff = await shop.staff()
    _, bearer = await shop.buyer()
    first = await shop.buy(bearer, offer)
    await shop.pay(first["intent"])
    await shop.finish()
    await refund(shop, first, staff, "2.5")
    await shop.finish()
    user, rich = await shop.buyer("12")
    await shop.buy(rich, offer, "balance")
    await shop.finish()
    (sums,) = await shop.world.sql(
        "SELECT sum(amount_units) FILTER (WHERE kind = 'earned') AS earned,"
        " sum(amount_units) FILTER (WHERE kind = 'reversed') AS reversed"
        " FROM royalties.entry WHERE account_id = $1", UUID(seller),
    )  # fmt: skip
    purchases = await shop.get("/v1/purchases", bearer) + await shop.get("/v1/purchases", rich)
    return (
        shop.owed(seller), shop.passing(work), shop.units(f"user:{user}"), int(sums["earned"]), int(sums["reversed"]),
        [(purchase["status"], purchase["refunded"]) for purchase in purchases], shop.sum_is_zero(),
        len(await shop.get("/v1/library", bearer)),
    )  # fmt: skip


UNDISTURBED = (15_750_000, 0, 2 * USDC, 18 * USDC, 2_250_000, [("completed", "2.5"), ("completed", "0")], True, 1)


async def test_story_undisturbed(shop):
    assert await story(shop) == UNDISTURBED


@pytest.mark.parametrize("fault", ["request", "answer"])
async def test_core_away_at_every_step_changes_nothing_in_the_end(shop, fault):
    """Each money command of the story is lost on its way the first time that it is sent, or its answer is."""
    real, seen = shop.core.submit, set()

    async def submit(command):
        what = command["op"], command.get("ref")
        if command["op"] != "account" and what not in seen:
            seen.add(what)
            shop.core.lose.append(fault)
        return await real(command)

    shop.core.submit = submit
    assert await story(shop) == UNDISTURBED
    assert len(seen) == 7  # two deposits, a purchase, two distributions, a refund held and posted


@pytest.mark.parametrize(
    ("module", "name"),
    [(payment_queries, "turn_payment"), (payment_queries, "complete_purchase"),
     (payment_queries, "turn_refund"), (payment_queries, "add_refunded"), (royalty_queries, "insert_distribution"),
     (royalty_queries, "insert_entry"), (royalty_queries, "note_part"),
     (royalty_queries, "finish_distribution"), (royalty_queries, "reverse_line")],
)  # fmt: skip
async def test_database_away_at_any_step_changes_nothing_in_the_end(shop, monkeypatch, module, name):
    """The transaction that notes an answer breaks after a part of its statements, at the 1st, 2nd, 4th … call: ever
    more rarely, since one that calls several times would never end if it broke at every other one."""
    real, calls = getattr(module, name), 0

    async def breaking(*arguments):
        nonlocal calls
        calls += 1
        if calls & (calls - 1) == 0:
            raise Unavailable("the database went away (test)")
        return await real(*arguments)

    monkeypatch.setattr(module, name, breaking)
    assert await story(shop) == UNDISTURBED
    assert calls >= 2


async def open_commands(shop):
    text = (await shop.world.client.get("/metrics")).text
    (count,) = re.findall(r'^money_commands\{state="ordered"\} ([0-9.]+)$', text, re.MULTILINE)
    return float(count)


async def test_answer_that_was_given_up_is_noted_by_the_sweep(shop, monkeypatch):
    """A fault of ours lets the job be given up; what was mended is sent again, and nothing is paid twice."""
    seller, _, _, _, offer = await shop.seller()
    user, bearer = await shop.buyer("20")
    real, before = payment_queries.complete_purchase, await open_commands(shop)

    async def broken(*_):
        raise RuntimeError("a fault of ours (test)")

    monkeypatch.setattr(payment_queries, "complete_purchase", broken)
    body = {"offer_id": offer["id"], "method": "balance"}
    headers = bearer | {"idempotency-key": uuid4().hex}
    assert (await shop.world.client.post("/v1/purchases", headers=headers, json=body)).status_code == 500
    await shop.world.sql("DELETE FROM jobs.pgqueuer")  # as after its five tries
    await shop.world.sql("UPDATE money.command SET updated_at = now() - interval '1 hour'")
    assert await open_commands(shop) == before + 1
    await shop.money.sweep()  # still broken: told of in the log
    monkeypatch.setattr(payment_queries, "complete_purchase", real)
    await shop.money.sweep()
    (purchase,) = await shop.get("/v1/purchases", bearer)
    assert purchase["status"] == "completed" and shop.units(f"user:{user}") == 10 * USDC
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC and shop.sum_is_zero()
    assert await open_commands(shop) == before


async def test_provider_away_keeps_the_purchase_until_it_is_back(shop, monkeypatch):
    seller, _, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    real = shop.payments.test.create

    async def away(*_):
        raise OutcomeUnknown("the provider does not answer (test)")

    key, body = uuid4().hex, {"offer_id": offer["id"], "method": "provider"}
    monkeypatch.setattr(shop.payments.test, "create", away)
    answer = await shop.world.client.post("/v1/purchases", headers=bearer | {"idempotency-key": key}, json=body)
    assert answer.status_code == 504
    monkeypatch.setattr(shop.payments.test, "create", real)
    purchase = await shop.buy(bearer, offer, key=key)
    await shop.pay(purchase["intent"])
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC


async def test_provider_away_when_an_intent_expires_is_asked_until_it_answers(shop, monkeypatch):
    """The look-up at the end is the last net for a payment whose events were lost."""
    seller, _, _, _, offer = await shop.seller()
    due = ("UPDATE jobs.pgqueuer SET entrypoint = 'payments', execute_after = now()"
           " WHERE convert_from(payload, 'UTF8') LIKE '%expire_intent%'")  # fmt: skip
    real = shop.payments.test.cancel

    async def away(*_):
        raise Unavailable("the provider is away (test)")

    for by_sweep in (False, True):
        _, bearer = await shop.buyer()
        taken = await shop.buy(bearer, offer)
        await shop.pay(taken["intent"], "events_lost")
        monkeypatch.setattr(shop.payments.test, "cancel", away)
        await shop.world.sql(due)
        await shop.world.settle()
        rows = await shop.world.sql("SELECT count(*) AS n FROM jobs.pgqueuer WHERE status <> 'queued'")
        assert rows[0]["n"] == 0, "a provider that is away costs no try of the job"
        monkeypatch.setattr(shop.payments.test, "cancel", real)
        if by_sweep:  # the job is lost as well
            await shop.world.sql("DELETE FROM jobs.pgqueuer")
            await shop.world.sql("UPDATE payments.intent SET expires_at = now() - interval '1 hour'")
            await shop.payments.intents.sweep()
        else:
            await shop.world.sql(due)
        await shop.finish()
        assert (await shop.get(f"/v1/purchases/{taken['id']}", bearer))["status"] == "completed"
    assert shop.owed(seller) == 18 * USDC


async def test_refund_whose_job_was_given_up_is_asked_again_by_the_sweep(shop):
    seller, _, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    taken = await shop.buy(bearer, offer)
    await shop.pay(taken["intent"])
    await shop.finish()
    provider = shop.payments.intents._providers.pop("test")  # it was taken out of the settings
    staff = await shop.staff()
    await own_money(shop.world, 100)
    refund = await shop.post(f"/v1/purchases/{taken['id']}/refund", staff, {"reason": "Torn."})
    await shop.world.sql("DELETE FROM jobs.pgqueuer")
    await shop.world.sql("UPDATE money.command SET updated_at = now() - interval '1 hour'")
    await shop.payments.refunds.sweep()  # holds nobody up
    assert shop.parts(f"pay:{seller}") == (0, 9 * USDC)
    shop.payments.intents._providers["test"] = provider
    await shop.payments.refunds.sweep()
    await shop.finish()
    (row,) = await shop.world.sql("SELECT status FROM payments.refund WHERE id = $1", UUID(refund["id"]))
    assert (row["status"], shop.owed(seller)) == ("succeeded", 0)


async def eighty_payees(world, work, seller):
    """What the work sells for goes to eighty accounts in equal parts: more lines than one command has postings."""
    payees = [uuid4() for _ in range(80)]
    for payee in payees:
        await world.sql("INSERT INTO identity.account (id) VALUES ($1)", payee)
    async with world.kernel.database.transaction() as db:
        await royalty_queries.insert_rule(
            db, uuid4(), UUID(work["id"]), "content_purchase", datetime.now(UTC) - timedelta(minutes=1), "effective",
            UUID(seller), [(payee, "collaborator", 125) for payee in payees],
        )  # fmt: skip
    return payees


async def test_sale_of_more_lines_than_a_command_has_postings_is_given_back(shop):
    """Of a card and of a balance, while the core takes nothing for a while, and not at all."""
    world = shop.world
    seller, _, work, _, offer = await shop.seller("100")
    payees = await eighty_payees(world, work, seller)
    staff = await shop.staff()
    await own_money(world, 1_000)
    for method in ("balance", "provider"):
        buyer, bearer = await shop.buyer("100" if method == "balance" else None)
        sold = await shop.buy(bearer, offer, method)
        if method == "provider":
            await shop.pay(sold["intent"])
        await shop.finish()
        assert shop.owed(payees[0]) == 1_125_000
        shop.core.lose.extend(["answer", "cancel_only", "none", "busy"])
        refund_ = await shop.post(f"/v1/purchases/{sold['id']}/refund", staff, {"reason": "Torn."})
        await shop.finish()
        (row,) = await world.sql("SELECT status FROM payments.refund WHERE id = $1", UUID(refund_["id"]))
        assert row["status"] == "succeeded" and (await shop.get(f"/v1/purchases/{sold['id']}", bearer))["status"] == (
            "refunded")  # fmt: skip
        assert {shop.owed(payee) for payee in payees} == {0} and shop.passing(work) == 0
        assert shop.units(f"user:{buyer}") == (100 * USDC if method == "balance" else 0)
    assert shop.units("external:test") == -100 * USDC and shop.sum_is_zero()  # what the first buyer has


async def test_what_was_gathered_returns_if_a_part_of_it_is_refused(shop, monkeypatch):
    world = shop.world
    seller, seller_bearer, work, _, offer = await shop.seller("100")
    payees = await eighty_payees(world, work, seller)
    _, bearer = await shop.buyer("100")
    sold = await shop.buy(bearer, offer, "balance")
    await shop.finish()
    monkeypatch.setattr(shop.royalties.entries, "hold", timedelta(days=7))
    last = sorted(f"pay:{payee}" for payee in payees)[-1]  # in the second part: it has nothing any more
    leg = {"from": last, "asset": "USDC", "amount": "1.125", "to": "platform:revenue"}
    shop.core.send(op="transfer", legs=[leg], ref=uuid4().hex)
    refund_ = await shop.post(f"/v1/purchases/{sold['id']}/refund", seller_bearer, {"reason": "Torn."})
    await shop.finish()
    (row,) = await world.sql("SELECT status, failure FROM payments.refund WHERE id = $1", UUID(refund_["id"]))
    assert tuple(row) == ("failed", "insufficient_funds") and shop.passing(work) == 0
    assert [shop.owed(payee) for payee in sorted(payees, key=str)] == [1_125_000] * 79 + [0]
    assert (await world.sql("SELECT count(*) AS n FROM royalties.set_aside"))[0]["n"] == 0


async def test_event_before_the_reference_of_its_intent_is_kept_is_delivered_again(shop):
    seller, _, _, _, offer = await shop.seller()
    _, bearer = await shop.buyer()
    intent = (await shop.buy(bearer, offer))["intent"]
    await shop.world.sql("UPDATE payments.intent SET provider_ref = NULL WHERE id = $1", UUID(intent["id"]))
    same = {"id": f"evt_{uuid4().hex}", "payment": f"py_{uuid4().hex[:24]}"}
    assert (await shop.event(intent, **same)).status_code == 503
    await shop.payments.intents.asked(UUID(intent["id"]))
    assert (await shop.event(intent, **same)).status_code == 200
    await shop.finish()
    assert shop.owed(seller) == 9 * USDC


@pytest.mark.parametrize("world", [{}], indirect=True)
async def test_without_a_provider_nothing_asks_for_money(world):
    _, bearer = await world.sign_in()
    headers = bearer | {"idempotency-key": uuid4().hex}
    await world.refused(503, "SERVICE_UNAVAILABLE", "no_provider", "POST", "/v1/payments/intents", headers=headers,
                        json={"asset": "USDC", "amount": "1"})  # fmt: skip
    body = {"intent": "pi_1", "client_secret": "x"}
    await world.refused(503, "SERVICE_UNAVAILABLE", "no_provider", "POST", "/v1/test-provider/payments", json=body)
