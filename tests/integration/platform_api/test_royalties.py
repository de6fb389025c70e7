"""Royalties over HTTP, a real PostgreSQL and the real core: rules, consents, chains, statements, papers, payouts."""

import asyncio
import csv
import hashlib
import io
import json
import random
import re
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID, uuid4

import asyncpg
import pypdfium2
import pytest
import pytest_asyncio

from engine.messages.errors import Refused
from platform_api.errors import ApiError, timestamp
from platform_api.royalties import earnings, queries, routes, service, share_queries, statements
from platform_api.royalties.earnings import Earning
from platform_api.royalties.entries import Income
from platform_api.royalties.statements import StatementDigest
from platform_api.security import Caller
from tests.integration.platform_api.test_plans import _Recorded, long_ways, scans
from tests.integration.platform_api.test_works import story
from tests.support.licences import issued
from tests.support.sales import own_money, shop_over, wrong_sums
from tests.support.waiting import HANG_S, answers

USDC = 10**6


@pytest_asyncio.fixture
async def shop(api_dsn):
    async with shop_over(api_dsn) as shop:
        yield shop


def lines(*shares, role="collaborator"):
    return [{"account_id": account, "role": role, "bps": bps} for account, bps in shares]


async def propose(shop, work, bearer, shares, **fields):
    path = f"/v1/works/{work['id']}/royalty-rules"
    return await shop.world.data("PUT", path, headers=bearer, json={"lines": lines(*shares)} | fields)


async def agree(shop, work, bearer, rule, answer=True):
    body = {"rule_id": rule["id"], "agree": answer}
    return await shop.world.data("POST", f"/v1/works/{work['id']}/royalty-rules/consent", headers=bearer, json=body)


async def sell(shop, offer, bearer=None):
    if bearer is None:
        _, bearer = await shop.buyer("100")
    purchase = await shop.buy(bearer, offer, "balance")
    await shop.finish()
    return purchase


@pytest.mark.parametrize(("shares", "total"), [((9_999,), 9_999), ((6_000, 4_001), 10_001), ((10_000, 1), 10_001)])
async def test_rule_that_does_not_sum_to_the_whole_is_refused(shop, shares, total):
    seller, bearer, work, _, _ = await shop.seller()
    other, _ = await shop.buyer()
    body = {"lines": lines(*zip((seller, other), shares, strict=False))}
    path = f"/v1/works/{work['id']}/royalty-rules"
    answer = await shop.world.refused(400, "VALIDATION_ERROR", "not_whole", "PUT", path, headers=bearer, json=body)
    assert answer.json()["error"]["details"]["sum"] == total
    assert (await shop.get(path, bearer))["rules"] == []


async def test_database_itself_keeps_no_rule_that_is_not_whole(shop):
    seller, bearer, work, _, _ = await shop.seller()
    rule = await propose(shop, work, bearer, [(seller, 10_000)])
    with pytest.raises(asyncpg.CheckViolationError):
        await shop.world.sql("UPDATE royalties.rule_line SET bps = 9999 WHERE rule_id = $1", UUID(rule["id"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"lines": []}, "invalid"), ({"revenue_kind": "gifts"}, "invalid"), ({"effective_from": "2020-01-01"}, "invalid"),
     ({"effective_from": "2020-01-01T00:00:00Z"}, "out_of_range"), ({"lines": [{"bps": 10_000}]}, "invalid"),
     ({"effective_from": "9999-12-31T23:59:59Z"}, "out_of_range")],
)  # fmt: skip
async def test_malformed_rule_is_refused(shop, change, reason):
    seller, bearer, work, _, _ = await shop.seller()
    path = f"/v1/works/{work['id']}/royalty-rules"
    body = {"lines": lines((seller, 10_000))} | change
    await shop.world.refused(400, "VALIDATION_ERROR", reason, "PUT", path, headers=bearer, json=body)
    twice = {"lines": lines((seller, 5_000), (seller, 5_000))}
    await shop.world.refused(400, "VALIDATION_ERROR", "account_twice", "PUT", path, headers=bearer, json=twice)
    nobody = {"lines": lines((str(uuid4()), 10_000))}
    await shop.world.refused(400, "VALIDATION_ERROR", "unknown_account", "PUT", path, headers=bearer, json=nobody)


async def test_who_got_a_share_while_a_rule_waited_is_asked_before_it_counts(shop):
    seller, bearer, work, _, offer = await shop.seller()
    friend, friend_bearer = await shop.buyer()
    victim, victim_bearer = await shop.buyer()
    kind = {"revenue_kind": "content_purchase"}
    rule = await propose(shop, work, bearer, [(seller, 9_900), (friend, 100)], **kind)
    assert rule["waits_for"] == [friend]
    fair = await propose(shop, work, bearer, [(seller, 5_000), (victim, 5_000)])
    assert (await agree(shop, work, victim_bearer, fair))["status"] == "effective"
    rule = await agree(shop, work, friend_bearer, rule)
    assert (rule["status"], rule["waits_for"]) == ("pending", [victim])
    await sell(shop, offer)
    assert (shop.owed(seller), shop.owed(friend), shop.owed(victim)) == (4_500_000, 0, 4_500_000)
    assert (await agree(shop, work, victim_bearer, rule))["status"] == "effective"
    await sell(shop, offer)
    assert (shop.owed(friend), shop.owed(victim)) == (90_000, 4_500_000)


async def test_rule_of_one_kind_takes_nothing_of_a_rule_that_begins_later(shop):
    seller, bearer, work, _, _ = await shop.seller()
    victim, victim_bearer = await shop.buyer()
    later = timestamp(datetime.now(UTC) + timedelta(days=1))
    fair = await propose(shop, work, bearer, [(seller, 5_000), (victim, 5_000)], effective_from=later)
    assert (await agree(shop, work, victim_bearer, fair))["status"] == "effective"
    rule = await propose(shop, work, bearer, [(seller, 10_000)], revenue_kind="content_purchase")
    assert (rule["status"], rule["waits_for"]) == ("pending", [victim])


async def share(shop, work, bearer, *shares):
    """The owner names collaborators; what waits for their consent, or None."""
    body = {"collaborators": [{"account_id": one, "role": "author", "share_bps": bps} for one, bps in shares]}
    path = f"/v1/works/{work['id']}/collaborators"
    return (await shop.world.data("PUT", path, headers=bearer, json=body))["pending"]


async def consent(shop, work, bearer, change):
    path, body = f"/v1/works/{work['id']}/collaborators/consent", {"change_id": change["id"], "agree": True}
    return await shop.world.data("POST", path, headers=bearer, json=body)


# What a work gives to the one that it was made of.


class Made:
    """A work whose owner and partner have half each, and a friend's work, of which it is said to be made."""

    def __init__(self, shop):
        self.shop = shop

    async def begin(self):
        shop = self.shop
        self.owner_id, self.owner, self.work, _, self.offer = await shop.seller("10")
        self.friend_id, self.friend, self.other, _, _ = await shop.seller("1", name="Friend")
        self.partner_id, self.partner = await shop.buyer()
        await consent(shop, self.work, self.partner, await share(shop, self.work, self.owner, (self.partner_id, 5_000)))
        return self

    async def named(self, bps):
        """The friend licenses the owner, who names the work as made under it; the licence."""
        licence = await issued(
            self.shop.world, self.friend, self.other, self.owner_id, scope=["adapt"], revenue_share_bps=bps
        )
        await self.name(licence)
        return licence

    async def name(self, licence):
        path = f"/v1/licenses/{licence['id']}/works"
        await self.shop.world.data("POST", path, headers=self.owner, json={"work_id": self.work["id"]})

    async def shares(self, bearer=None):
        path = f"/v1/works/{self.work['id']}/royalty-rules"
        return (await self.shop.get(path, bearer or self.owner))["licence_shares"]

    async def answer(self, bearer, share, agree=True):
        path = f"/v1/works/{self.work['id']}/royalty-rules/licence-shares/consent"
        return await self.shop.world.data("POST", path, headers=bearer, json={"share_id": share["id"], "agree": agree})

    async def sold(self):
        """What a sale of 10 gives owner, partner, friend."""
        people = (self.owner_id, self.partner_id, self.friend_id)
        before = [self.shop.owed(account) for account in people]
        await sell(self.shop, self.offer)
        return tuple(self.shop.owed(account) - had for account, had in zip(people, before, strict=True))


async def test_licence_takes_nothing_of_collaborators_who_have_not_agreed(shop):
    made = await Made(shop).begin()
    assert await made.sold() == (4_500_000, 4_500_000, 0)
    licence = await made.named(10_000)
    assert await made.sold() == (4_500_000, 4_500_000, 0), "half of it is the partner's, who was not asked yet"
    (waiting,) = await made.shares(made.partner)
    assert (waiting["license_id"], waiting["parent_work_id"]) == (licence["id"], made.other["id"])
    assert (waiting["share_bps"], waiting["status"], waiting["waits_for"]) == (10_000, "pending", [made.partner_id])
    (event,) = await shop.world.sql(
        "SELECT payload FROM kernel.outbox WHERE type = 'royalty.licence_share_changed'"
    )
    told = json.loads(event["payload"])
    everybody = [made.owner_id, made.partner_id, made.friend_id]
    assert (told["status"], told["for_accounts"]) == ("pending", sorted(everybody))


async def test_licence_takes_its_share_of_those_who_agreed(shop):
    made = await Made(shop).begin()
    licence = await made.named(2_000)
    (waiting,) = await made.shares()
    path = f"/v1/works/{made.work['id']}/royalty-rules/licence-shares/consent"
    body = {"share_id": waiting["id"], "agree": True}
    for bearer in (made.owner, made.friend):  # nobody agrees in another's place
        await shop.world.refused(404, "NOT_FOUND", "unknown_share", "POST", path, headers=bearer, json=body)
    elsewhere = path.replace(made.work["id"], str(uuid4()))
    await shop.world.refused(404, "NOT_FOUND", "unknown_share", "POST", elsewhere, headers=made.partner, json=body)
    assert (await made.answer(made.partner, waiting))["status"] == "effective"
    assert await made.sold() == (3_600_000, 3_600_000, 1_800_000)
    (counts,) = await made.shares()
    assert (counts["license_id"], counts["status"], counts["waits_for"]) == (licence["id"], "effective", [])
    await shop.world.refused(409, "CONFLICT", "share_closed", "POST", path, headers=made.partner, json=body)
    path = f"/v1/licenses/{licence['id']}/works"
    await shop.world.refused(409, "CONFLICT", "declared", "POST", path, headers=made.owner,
                             json={"work_id": made.work["id"]})  # fmt: skip


async def test_licence_that_somebody_refused_takes_nothing_and_can_be_named_again(shop):
    made = await Made(shop).begin()
    licence = await made.named(2_000)
    (waiting,) = await made.shares()
    assert (await made.answer(made.partner, waiting, False))["status"] == "declined"
    assert await made.shares() == [] and await made.sold() == (4_500_000, 4_500_000, 0)
    await made.name(licence)
    await made.name(licence)  # takes the place of what waits
    (again,) = await made.shares()
    assert again["id"] != waiting["id"] and again["status"] == "pending"
    assert (await made.answer(made.partner, again))["status"] == "effective"


async def test_who_got_a_share_while_a_licence_waited_is_asked_before_it_takes(shop):
    made = await Made(shop).begin()
    await made.named(2_000)
    (waiting,) = await made.shares()
    third_id, third = await shop.buyer()
    rule = await propose(shop, made.work, made.owner, [(made.partner_id, 5_000), (third_id, 5_000)])
    await agree(shop, made.work, third, rule)
    waiting = await made.answer(made.partner, waiting)
    assert (waiting["status"], waiting["waits_for"]) == ("pending", [third_id])
    assert await made.sold() == (0, 4_500_000, 0)
    assert (await made.answer(third, waiting))["status"] == "effective"
    assert await made.sold() == (0, 3_600_000, 1_800_000)


async def test_later_licence_asks_again_only_if_it_takes_more(shop):
    made = await Made(shop).begin()
    first = await made.named(2_000)
    (waiting,) = await made.shares()
    await made.answer(made.partner, waiting)
    over = {"headers": {**made.friend, "idempotency-key": uuid4().hex}, "json": {"reason": "Over."}}
    await shop.world.data("POST", f"/v1/licenses/{first['id']}/revoke", **over)
    less = await made.named(1_000)
    assert [(one["license_id"], one["status"]) for one in await made.shares()] == [(less["id"], "effective")]
    assert await made.sold() == (4_050_000, 4_050_000, 900_000)
    over["headers"]["idempotency-key"] = uuid4().hex
    await shop.world.data("POST", f"/v1/licenses/{less['id']}/revoke", **over)
    more = await made.named(3_000)
    assert [(one["license_id"], one["status"]) for one in await made.shares()] == [
        (less["id"], "effective"), (more["id"], "pending")
    ]  # fmt: skip
    assert await made.sold() == (4_050_000, 4_050_000, 900_000), "the old share counts until the new one does"
    await made.answer(made.partner, (await made.shares())[1])
    assert await made.sold() == (3_150_000, 3_150_000, 2_700_000)


async def test_licence_that_could_never_count_does_not_wait(shop):
    made = await Made(shop).begin()
    back = await issued(shop.world, made.owner, made.work, made.friend_id, scope=["adapt"], revenue_share_bps=1_000)
    path, body = f"/v1/licenses/{back['id']}/works", {"work_id": made.other["id"]}
    await shop.world.data("POST", path, headers=made.friend, json=body)
    licence = await issued(shop.world, made.friend, made.other, made.owner_id, scope=["adapt"], revenue_share_bps=9_000)
    path, body = f"/v1/licenses/{licence['id']}/works", {"work_id": made.work["id"]}
    await shop.world.refused(409, "CONFLICT", "chain_too_long", "POST", path, headers=made.owner, json=body)
    assert await made.shares() == []


async def test_shares_agreed_to_later_count_before_every_older_rule(shop):
    seller, bearer, work, _, offer = await shop.seller()
    painter, painter_bearer = await shop.buyer()
    later = timestamp(datetime.now(UTC) + timedelta(days=1))
    await propose(shop, work, bearer, [(seller, 10_000)])
    await propose(shop, work, bearer, [(seller, 10_000)], revenue_kind="content_purchase")
    planned = await propose(shop, work, bearer, [(seller, 10_000)], effective_from=later)
    change = await share(shop, work, bearer, (painter, 5_000))
    assert change["waiting_for"] == [painter]
    await consent(shop, work, painter_bearer, change)
    await sell(shop, offer)
    assert (shop.owed(seller), shop.owed(painter)) == (4_500_000, 4_500_000)
    rules = (await shop.get(f"/v1/works/{work['id']}/royalty-rules", painter_bearer))["rules"]
    assert next(rule for rule in rules if rule["id"] == planned["id"])["status"] == "superseded"
    latest = {rule["revenue_kind"]: rule for rule in reversed(rules)}
    assert sorted(latest) == ["any", "content_purchase"]
    for rule in latest.values():
        assert {one["account_id"]: one["bps"] for one in rule["lines"]} == {seller: 5_000, painter: 5_000}


async def test_who_loses_the_share_of_a_rule_by_new_collaborators_is_asked(shop):
    seller, bearer, work, _, offer = await shop.seller()
    singer, singer_bearer = await shop.buyer()
    painter, painter_bearer = await shop.buyer()
    change = await share(shop, work, bearer, (painter, 5_000))
    assert change["waiting_for"] == [painter]
    rule = await propose(shop, work, bearer, [(seller, 7_000), (singer, 3_000)])
    assert (await agree(shop, work, singer_bearer, rule))["status"] == "effective"
    waiting = (await consent(shop, work, painter_bearer, change))["pending"]
    assert waiting["waiting_for"] == [singer]  # since the rule that was agreed meanwhile would end
    await sell(shop, offer)
    assert (shop.owed(seller), shop.owed(singer), shop.owed(painter)) == (6_300_000, 2_700_000, 0)
    assert (await consent(shop, work, singer_bearer, change))["pending"] is None
    await sell(shop, offer)
    assert (shop.owed(singer), shop.owed(painter)) == (2_700_000, 4_500_000)


async def test_f72_rule_counts_when_all_agreed_and_never_backwards(shop):
    seller, bearer, work, _, offer = await shop.seller()
    partner, partner_bearer = await shop.buyer()
    _, stranger = await shop.buyer()
    _, rich = await shop.buyer("100")
    kind = {"revenue_kind": "content_purchase"}
    rule = await propose(shop, work, bearer, [(seller, 6_000), (partner, 4_000)], **kind)
    assert (rule["status"], rule["version"], rule["waits_for"]) == ("pending", 1, [partner])
    path = f"/v1/works/{work['id']}/royalty-rules"
    assert (await shop.get(path, partner_bearer))["rules"] == [rule]  # who is asked may read it
    await shop.world.refused(404, "NOT_FOUND", "unknown_work", "GET", path, headers=stranger)
    await shop.world.refused(404, "NOT_FOUND", "unknown_rule", "POST", f"{path}/consent", headers=stranger,
                             json={"rule_id": rule["id"], "agree": True})  # fmt: skip
    await sell(shop, offer)
    assert (shop.owed(seller), shop.owed(partner)) == (9 * USDC, 0)
    assert (await agree(shop, work, partner_bearer, rule))["status"] == "effective"
    await shop.world.refused(409, "CONFLICT", "rule_closed", "POST", f"{path}/consent", headers=partner_bearer,
                             json={"rule_id": rule["id"], "agree": False})  # fmt: skip
    await sell(shop, offer, rich)
    assert (shop.owed(seller), shop.owed(partner)) == (14_400_000, 3_600_000)
    lower = await propose(shop, work, bearer, [(seller, 10_000)], **kind)
    assert lower["waits_for"] == [partner]  # who loses is asked
    assert (await agree(shop, work, partner_bearer, lower, False))["status"] == "declined"
    later = datetime.now(UTC) + timedelta(days=1)
    kind["effective_from"] = timestamp(later)
    more = await propose(shop, work, bearer, [(seller, 1_000), (partner, 9_000)], **kind)
    assert more["status"] == "effective"  # who only gains, and the owner who proposes, need not be asked
    await sell(shop, offer)
    assert (shop.owed(seller), shop.owed(partner)) == (19_800_000, 7_200_000)
    for at, shares in ((datetime.now(UTC), ["5.4", "3.6"]), (later + timedelta(days=1), ["0.9", "8.1"])):
        body = {"work_id": work["id"], "asset": "USDC", "amount": "10", "at": timestamp(at)}
        dry = await shop.world.data("POST", "/v1/royalties/calculate", headers=bearer, json=body)
        found = {line["account_id"]: line["amount"] for line in dry["lines"]}
        assert found == {None: "1", seller: shares[0], partner: shares[1]}
    await shop.world.refused(404, "NOT_FOUND", "unknown_work", "POST", "/v1/royalties/calculate", headers=stranger,
                             json=body)  # fmt: skip


async def test_collaborators_share_without_a_rule_and_the_dry_run_is_what_happens(shop):
    seller, bearer, work, _, offer = await shop.seller("0.000101")
    partners = [await shop.buyer() for _ in range(3)]
    shares = [{"account_id": account, "role": "Writer", "share_bps": 3_333} for account, _ in partners]
    path = f"/v1/works/{work['id']}/collaborators"
    change = await shop.world.data("PUT", path, headers=bearer, json={"collaborators": shares})
    for _, partner in partners:
        body = {"change_id": change["pending"]["id"], "agree": True}
        await shop.world.data("POST", f"{path}/consent", headers=partner, json=body)
    body = {"work_id": work["id"], "asset": "USDC", "amount": "0.000101"}
    dry = await shop.world.data("POST", "/v1/royalties/calculate", headers=bearer, json=body)
    await sell(shop, offer)
    (sale,) = (await shop.get(f"/v1/royalties/works/{work['id']}", partners[0][1]))["distributions"]
    amounts = {line["account_id"]: line["amount"] for line in sale["lines"]}
    assert amounts == {line["account_id"]: line["amount"] for line in dry["lines"]}
    for account, amount in amounts.items():
        if account is not None:
            assert shop.owed(account) == round(float(amount) * USDC)
    assert sum(round(float(amount) * USDC) for amount in amounts.values()) == 101 and shop.passing(work) == 0
    assert len(amounts) == 5 and dry["amount"] == "0.000101"


async def test_dry_run_of_a_month_is_what_its_sales_gave_by_the_rule_of_their_time(shop, monkeypatch):
    seller, bearer, work, _, offer = await shop.seller()
    partner, partner_bearer = await shop.buyer()
    calculate = "/v1/royalties/calculate"
    bought = [await sell(shop, offer) for _ in range(2)]
    rule = await propose(shop, work, bearer, [(seller, 6_000), (partner, 4_000)])
    await agree(shop, work, partner_bearer, rule)
    bought.append(await sell(shop, offer))
    await shop.post(f"/v1/purchases/{bought[0]['id']}/refund", await shop.staff(), {"amount": "5"})
    await shop.finish()
    times = ("2023-04-30T23:59:59.999999Z", "2023-04-01T00:00:00Z", "2023-04-10T00:00:00Z")
    for purchase, at in zip(bought, times, strict=True):
        (row,) = await shop.world.sql("SELECT event_id FROM payments.purchase WHERE id = $1", UUID(purchase["id"]))
        await shop.world.sql("UPDATE royalties.revenue_event SET occurred_at = $2 WHERE id = $1", row["event_id"],
                             datetime.fromisoformat(at))  # fmt: skip
    body = {"work_id": work["id"], "asset": "USDC"}
    month = body | {"period": "2023-04"}
    dry = await shop.world.data("POST", calculate, headers=bearer, json=month)
    assert (dry["amount"], dry["asset"], dry["rule_id"]) == ("30", "USDC", None)
    found = {(line["account_id"], line["role"], line["bps"]): (line["amount"], line["reversed"])
             for line in dry["lines"]}  # fmt: skip
    assert found == {
        (None, "platform", 1_000): ("3", "0.5"), (seller, "collaborator", 10_000): ("18", "4.5"),
        (seller, "collaborator", 6_000): ("5.4", "0"), (partner, "collaborator", 4_000): ("3.6", "0"),
    }  # fmt: skip
    nothing = {"asset": "USDC", "amount": "0", "rule_id": None, "lines": []}
    for change in ({"period": "2023-03"}, {"period": "2023-05"}, {"revenue_kind": "rental"}):
        assert await shop.world.data("POST", calculate, headers=bearer, json=month | change) == nothing
    sold = month | {"revenue_kind": "content_purchase"}
    assert await shop.world.data("POST", calculate, headers=bearer, json=sold) == dry
    for wrong in (body, month | {"amount": "1"}, month | {"at": "2023-04-10T00:00:00Z"}):
        await shop.world.refused(400, "VALIDATION_ERROR", "amount_or_period", "POST", calculate, headers=bearer,
                                 json=wrong)  # fmt: skip
    stranger_id, stranger = await shop.buyer()
    asked = {"collaborators": [{"account_id": stranger_id, "role": "Writer", "share_bps": 100}]}
    await shop.world.data("PUT", f"/v1/works/{work['id']}/collaborators", headers=bearer, json=asked)
    await shop.world.data("POST", calculate, headers=stranger, json=body | {"amount": "1"})  # what it would bring
    await shop.world.refused(403, "FORBIDDEN", "not_paid", "POST", calculate, headers=stranger, json=month)
    monkeypatch.setattr(service, "SALES_MAX", 2)
    await shop.world.refused(409, "CONFLICT", "too_many_sales", "POST", calculate, headers=bearer, json=month)


async def test_what_a_work_earns_is_told_to_whom_its_sales_pay(shop):
    """A payee of a rule, who makes nothing of it, was told that there is no such work."""
    seller, bearer, work, _, offer = await shop.seller()
    payee, payee_bearer = await shop.buyer()
    asked, asked_bearer = await shop.buyer()
    _, stranger = await shop.buyer()
    rule = await propose(shop, work, bearer, [(seller, 6_000), (payee, 4_000)])
    path = f"/v1/royalties/works/{work['id']}"
    of_month = {"work_id": work["id"], "asset": "USDC", "period": datetime.now(UTC).strftime("%Y-%m")}
    calculate = ("POST", "/v1/royalties/calculate")

    async def refused(headers, *why):
        await shop.world.refused(*why, "GET", path, headers=headers)
        await shop.world.refused(*why, *calculate, headers=headers, json=of_month)

    not_paid, none = (403, "FORBIDDEN", "not_paid"), (404, "NOT_FOUND", "unknown_work")
    await refused(payee_bearer, *not_paid)  # who has not agreed yet has no share
    await agree(shop, work, payee_bearer, rule)
    await refused(payee_bearer, *not_paid)  # nor has a sale paid who agreed just now
    await sell(shop, offer)
    assert await share(shop, work, bearer, (asked, 100)) is not None
    for headers in (asked_bearer, stranger):
        await refused(headers, *not_paid)
    await shop.world.data("POST", f"/v1/works/{work['id']}/archive", headers=bearer)
    for headers in (bearer, payee_bearer, await shop.staff()):
        assert (await shop.get(path, headers))["totals"][0]["earned"] == "9"
        assert (await shop.world.data(*calculate, headers=headers, json=of_month))["amount"] == "10"
    await refused(asked_bearer, *not_paid)  # who is asked sees that there is a work
    await refused(stranger, *none)
    path, of_month["work_id"] = f"/v1/royalties/works/{uuid4()}", str(uuid4())
    await refused(await shop.staff(), *none)


async def test_what_sales_of_a_month_gave_is_told_to_whom_these_paid(shop):
    """Who was paid by a rule that has ended was refused its months, and who has a share from next month on was told of
    all before."""
    seller, bearer, work, _, offer = await shop.seller()
    (before, before_bearer), (later, later_bearer) = await shop.buyer(), await shop.buyer()
    path = f"/v1/royalties/works/{work['id']}"
    rule = await propose(shop, work, bearer, [(seller, 6_000), (before, 4_000)])
    await agree(shop, work, before_bearer, rule)
    await sell(shop, offer)
    await shop.world.sql("UPDATE royalties.revenue_event SET occurred_at = '2023-04-30Z' WHERE work_id = $1",
                         UUID(work["id"]))  # fmt: skip
    await shop.world.sql("UPDATE royalties.paid_by_work SET month = '2023-04-01' WHERE work_id = $1", UUID(work["id"]))
    rule = await propose(shop, work, bearer, [(seller, 10_000)])
    await agree(shop, work, before_bearer, rule)
    begins = timestamp(datetime.now(UTC) + timedelta(days=31))
    rule = await propose(shop, work, bearer, [(seller, 5_000), (later, 5_000)], effective_from=begins)
    await agree(shop, work, later_bearer, rule)
    await sell(shop, offer)

    async def told(headers, period):
        body = {"work_id": work["id"], "asset": "USDC", "period": period}
        answer = await shop.world.client.post("/v1/royalties/calculate", headers=headers, json=body)
        if answer.status_code == 403:
            return answer.json()["error"]["details"]["reason"]
        return answer.json()["data"]["amount"]

    periods = ("2023-04", datetime.now(UTC).strftime("%Y-%m"))
    assert [await told(before_bearer, period) for period in periods] == ["10", "not_paid"]
    assert [await told(later_bearer, period) for period in periods] == ["not_paid", "not_paid"]
    assert [await told(bearer, period) for period in periods] == ["10", "10"]
    assert len((await shop.get(path, before_bearer))["distributions"]) == 2
    await shop.world.refused(403, "FORBIDDEN", "not_paid", "GET", path, headers=later_bearer)


async def test_work_made_under_a_licence_below_others_pays_every_licensor_its_share(shop):
    """The owner licenses the first, who licenses the second, who licenses the maker of the film."""
    owner_id, owner, work, _, _ = await shop.seller()
    first_id, first = await shop.buyer()
    second_id, second = await shop.buyer()
    maker_id, maker, film, _, offer = await shop.seller("49.99", name="Film")
    people = (maker_id, second_id, first_id, owner_id)
    top = await issued(shop.world, owner, work, first_id, revenue_share_bps=1_500, sublicensing=True, duration="P90D")
    middle = await issued(shop.world, first, work, second_id, revenue_share_bps=2_000, sublicensing=True,
                          duration="P80D", parent_license_id=top["id"])  # fmt: skip
    held = await issued(shop.world, second, work, maker_id, revenue_share_bps=1_200, duration="P70D",
                        parent_license_id=middle["id"])  # fmt: skip
    path = f"/v1/licenses/{held['id']}/works"
    await shop.world.data("POST", path, headers=maker, json={"work_id": film["id"]})
    body = {"work_id": film["id"], "asset": "USDC", "amount": "49.99", "revenue_kind": "content_purchase"}
    dry = await shop.world.data("POST", "/v1/royalties/calculate", headers=maker, json=body)
    purchase = await sell(shop, offer)
    # 49.99 less 10 %: 44.991; the second 12 %: 5.39892, of which the first 20 %: 1.079784, of which the work 15 %:
    # 0.1619676 → 0.161968.
    shares = [39_592_080, 4_319_136, 917_816, 161_968]
    assert [shop.owed(account) for account in people] == shares and sum(shares) == 44_991_000
    amounts = {line["account_id"]: line["amount"] for line in dry["lines"]}
    assert [round(float(amounts[account]) * USDC) for account in people] == shares
    assert all(shop.passing(one) == 0 for one in (work, film)) and shop.sum_is_zero()
    (sale,) = (await shop.get(f"/v1/royalties/works/{film['id']}", maker))["distributions"]
    assert [(line["role"], line["bps"]) for line in sale["lines"] if line["account_id"] in (first_id, second_id)] == [
        ("licensor", 8_000), ("licensor", 8_500)
    ]  # fmt: skip
    of_month = {"work_id": film["id"], "asset": "USDC", "period": datetime.now(UTC).strftime("%Y-%m")}
    for headers in (second, first, owner):  # whoever is paid by it is told of it
        assert (await shop.get(f"/v1/royalties/works/{film['id']}", headers))["distributions"] == [sale]
        told = await shop.world.data("POST", "/v1/royalties/calculate", headers=headers, json=of_month)
        assert told["amount"] == "49.99"
    staff = await shop.staff()
    await shop.post(f"/v1/purchases/{purchase['id']}/refund", staff, {"amount": "10"})
    await shop.finish()
    # 10 of 49.99 over what each has left, the platform's 4.999 first: 1, 7.92, 0.864, 0.1835999…, 0.0324000…
    left = [4_999_000, *shares]
    now = [shop.units("platform:revenue"), *map(shop.owed, people)]
    back = [part - still for part, still in zip(left, now, strict=True)]
    assert back == [1_000_000, 7_920_000, 864_000, 183_600, 32_400]
    await shop.post(f"/v1/purchases/{purchase['id']}/refund", staff, {})
    await shop.finish()
    assert [shop.owed(account) for account in people] == [0, 0, 0, 0] and shop.units("platform:revenue") == 0
    over = {"headers": owner | {"idempotency-key": uuid4().hex}, "json": {"reason": "Over."}}
    await shop.world.data("POST", f"/v1/licenses/{top['id']}/revoke", **over)
    await sell(shop, offer)
    assert [shop.owed(account) for account in people] == shares, "as long as it is sold"


async def chained(world, works):
    """Each gives nine tenths to the one before it, whether that may be or not."""
    for parent, child in pairwise(works):
        await world.sql(
            "INSERT INTO royalties.ancestor (licence_id, work_id, parent_work_id, share_bps)"
            " VALUES (gen_random_uuid(), $1, $2, 9000)",
            UUID(child["id"]), UUID(parent["id"]),
        )  # fmt: skip


async def bound(shop, child, parent):
    async with shop.world.kernel.database.transaction() as db:
        await shop.royalties.earnings.bind(db, uuid4(), UUID(child["id"]), UUID(parent["id"]), 9_000)


async def with_works_below(world, work, count):
    await world.sql(
        "INSERT INTO royalties.ancestor (licence_id, work_id, parent_work_id, share_bps)"
        " SELECT gen_random_uuid(), gen_random_uuid(), $1, 100 FROM generate_series(1, $2)",
        UUID(work["id"]), count,
    )  # fmt: skip


async def test_chain_below_a_thousand_works_is_checked_too(shop):
    """Those beyond the first thousand were not: the next sale of one of them never ended, and its money was stuck."""
    seller, bearer, sold, _, offer = await shop.seller()
    top_id, _, top, _, _ = await shop.seller(name="Top")
    _, _, above, _, _ = await shop.seller(name="Above")
    await with_works_below(shop.world, top, 1_000)
    await chained(shop.world, [top, *[await story(shop.world, bearer, f"Between {n}") for n in range(30)], sold])
    with pytest.raises(ApiError) as refused:
        await bound(shop, top, above)
    assert refused.value.reason == "chain_too_long"
    await sell(shop, offer)
    assert shop.owed(seller) + shop.owed(top_id) == 9_000_000 and shop.owed(top_id) > 0


async def test_work_below_which_there_are_more_than_can_be_checked_names_nothing_more(shop):
    _, _, many, _, _ = await shop.seller()
    _, _, above, _, _ = await shop.seller(name="Above")
    await with_works_below(shop.world, many, earnings.BELOW_MAX)
    with pytest.raises(ApiError) as refused:
        await bound(shop, many, above)
    assert refused.value.details == {"reason": "too_many_below", "most": earnings.BELOW_MAX}
    await shop.world.sql("DELETE FROM royalties.ancestor WHERE licence_id IN (SELECT licence_id FROM"
                         " royalties.ancestor WHERE parent_work_id = $1 LIMIT 1)", UUID(many["id"]))  # fmt: skip
    await bound(shop, many, above)


async def test_sale_that_meets_too_long_a_chain_is_divided_and_can_be_refunded(shop):
    """The answer of the core could not be noted: the buyer had paid, and had neither the work nor the money."""
    _, bearer, sold, _, offer = await shop.seller()
    far_id, _, far, _, _ = await shop.seller(name="Far")
    between = [await story(shop.world, bearer, f"Between {n}") for n in range(31)]
    await chained(shop.world, [far, *between, sold])  # 33 works
    buyer_id, buyer = await shop.buyer("10")
    purchase = await shop.buy(buyer, offer, "balance")
    await shop.finish()
    assert (await shop.get("/v1/purchases", buyer))[0]["status"] == "completed"
    assert shop.owed(far_id) == 0, "the 33rd is left out; the 32nd keeps what it would have given"
    assert all(shop.passing(work) == 0 for work in (sold, far, *between)) and shop.sum_is_zero()
    await shop.post(f"/v1/purchases/{purchase['id']}/refund", await shop.staff(), {})
    await shop.finish()
    assert shop.units(f"user:{buyer_id}") == 10_000_000 and shop.sum_is_zero()


async def test_ancestors_get_a_share_of_what_their_licensee_received(shop):
    chain = [await shop.seller("49.99", name) for name in ("Root", "A", "B", "Sold")]
    root, a, b, sold = (work for _, _, work, _, _ in chain)
    async with shop.world.kernel.database.transaction() as db:
        for child, parent, bps in ((sold, b, 1_200), (b, a, 2_000), (a, root, 1_500)):
            await shop.royalties.earnings.bind(db, uuid4(), UUID(child["id"]), UUID(parent["id"]), bps)
    licence = uuid4()
    for child, parent, bps, reason in (
        (root, sold, 1_000, "chain_too_long"), (sold, root, 9_000, "more_than_whole"),
    ):  # fmt: skip
        with pytest.raises(ApiError) as refused:
            async with shop.world.kernel.database.transaction() as db:
                await shop.royalties.earnings.bind(db, licence, UUID(child["id"]), UUID(parent["id"]), bps)
        assert refused.value.reason == reason
    _, buyer = await shop.buyer("100")
    purchase = await sell(shop, chain[3][4], buyer)
    # 49.99 less 10 %: 44.991; B 12 %: 5.39892, of which A 20 %: 1.079784, of which Root 15 %: 0.1619676 → 0.161968.
    owed = {"Root": 161_968, "A": 917_816, "B": 4_319_136, "Sold": 39_592_080}
    assert [shop.owed(account) for account, *_ in chain] == list(owed.values())
    assert all(shop.passing(work) == 0 for work in (root, a, b, sold)) and shop.sum_is_zero()
    assert (await shop.get(f"/v1/royalties/works/{root['id']}", chain[0][1]))["totals"][0]["earned"] == "0.161968"
    await shop.post(f"/v1/purchases/{purchase['id']}/refund", await shop.staff(), {})
    await shop.finish()
    assert [shop.owed(account) for account, *_ in chain] == [0, 0, 0, 0] and shop.units("platform:revenue") == 0
    async with shop.world.kernel.database.transaction() as db:
        (row,) = await db.fetch("SELECT licence_id FROM royalties.ancestor WHERE work_id = $1", UUID(sold["id"]))
        await share_queries.unbind(db, [row["licence_id"]], UUID(sold["id"]))
    await sell(shop, chain[3][4])
    assert [shop.owed(account) for account, *_ in chain] == [0, 0, 0, 44_991_000]


async def test_licence_fee_whose_platform_part_is_taken_already_is_split_once(shop):
    seller, _, work, _, _ = await shop.seller()
    passing = f"work:{work['id']}"
    shop.core.send(op="account", account=passing)
    shop.core.send(op="deposit", account=passing, asset="USDC", amount="85", ref=uuid4().hex)
    ref = f"lic:{uuid4().hex}"
    now = datetime.now(UTC)
    earning = Earning("licence_fee", ref, UUID(work["id"]), "USDC", 6, 100 * USDC, now, uuid4(), 15 * USDC)
    for _ in range(2):  # the same ref: the same event
        async with shop.world.kernel.database.transaction() as db:
            await shop.royalties.earned(db, earning)
    await shop.finish()
    assert shop.owed(seller) == 85 * USDC and shop.passing(work) == 0


async def test_accounts_take_turns_at_papers(shop):
    """A long one takes seconds: whoever asks for one of thirty of somebody else's waits for one of them."""
    first, second = (Caller(str(uuid4()), "user:x", "", "", 1) for _ in range(2))
    goes_on, begun, drawn = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def draw(name):
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait(HANG_S)
        drawn.append(name)
        return name.encode()

    asked = [(first, "1"), (first, "2"), (first, "3"), (second, "other")]
    drawing = [asyncio.create_task(shop.royalties.drawn(caller, draw, name)) for caller, name in asked]
    await begun.wait()
    for _ in range(10):  # all have come
        await asyncio.sleep(0)
    goes_on.set()
    assert await asyncio.gather(*drawing) == [b"1", b"2", b"3", b"other"]
    assert drawn == ["1", "other", "2", "3"] and not shop.royalties._desks


async def test_month_is_closed_once_into_statements_that_add_up(shop):
    seller, bearer, _, _, offer = await shop.seller()
    staff_bearer = await shop.staff()
    _, buyer = await shop.buyer("100")
    first = await sell(shop, offer, buyer)
    await shop.post("/v1/payouts", bearer, {"asset": "USDC", "amount": "2"})
    await shop.post(f"/v1/purchases/{first['id']}/refund", staff_bearer, {"amount": "1"})
    await shop.finish()
    run = "/v1/admin/royalties/runs"
    this_month = datetime.now(UTC).strftime("%Y-%m")
    await shop.world.refused(409, "CONFLICT", "period_open", "POST", run, headers=staff_bearer,
                             json={"period": this_month})  # fmt: skip
    await shop.world.refused(403, "FORBIDDEN", "permission_missing", "POST", run, headers=bearer,
                             json={"period": "2021-03"})  # fmt: skip
    await shop.world.entries("SET happened_at = '2021-03-31T23:59:59.999999Z' WHERE account_id = $1",
                         UUID(seller))  # fmt: skip
    await sell(shop, offer, (await shop.buyer("100"))[1])
    await shop.world.entries(
        "SET happened_at = '2021-04-01T00:00:00Z'"
        " WHERE account_id = $1 AND happened_at > '2022-01-01'",
        UUID(seller),
    )
    for period in ("2021-03", "2021-04", "2021-05"):
        done = await shop.close_month(staff_bearer, period)
        assert await shop.world.data("POST", run, headers=staff_bearer, json={"period": period}) == done
    await shop.world.refused(409, "CONFLICT", "later_period_closed", "POST", run, headers=staff_bearer,
                             json={"period": "2021-02"})  # fmt: skip
    may, april, march = await shop.get("/v1/royalties/statements", bearer)
    names = ("period", "opening", "earned", "reversed", "paid", "closing")
    assert [march[name] for name in names] == ["2021-03", "0", "9", "0.9", "2", "6.1"]
    assert [april[name] for name in names] == ["2021-04", "6.1", "9", "0", "0", "15.1"]
    assert [may[name] for name in names] == ["2021-05", "15.1", "0", "0", "0", "15.1"]
    assert shop.owed(seller) == 15_100_000
    detail = await shop.get(f"/v1/royalties/statements/{march['id']}", bearer)
    entries = [
        {"kind": line["kind"], "amount_units": round(float(line["amount"]) * USDC), "ref": line["ref"],
         "happened_at": datetime.fromisoformat(line["happened_at"])}
        for line in detail["lines"]
    ]  # fmt: skip
    sums = {name: round(float(march[name]) * USDC) for name in names[1:]}
    made = StatementDigest(UUID(seller), "2021-03", "USDC", 6, sums)
    for entry in entries:
        made.add(entry)
    assert made.digest().hex() == march["digest"]
    content = {"account_id": seller, "period": "2021-03", "asset": "USDC"} | {name: march[name] for name in names[1:]}
    shown = ("amount", "happened_at", "kind", "ref")
    content["lines"] = [{name: line[name] for name in shown} for line in detail["lines"]]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == march["digest"]  # anybody can, without our code
    await shop.world.refused(404, "NOT_FOUND", "unknown_statement", "GET", f"/v1/royalties/statements/{march['id']}",
                             headers=staff_bearer)  # fmt: skip


async def test_statement_of_many_lines_lacks_none(shop, monkeypatch):
    monkeypatch.setattr(statements, "LINES_MAX", 2)
    monkeypatch.setattr(routes, "PDF_LINES_MAX", 2)
    seller, bearer, _, _, offer = await shop.seller()
    for _ in range(3):
        await sell(shop, offer)
    await shop.world.entries("SET happened_at = happened_at - interval '2 months'"
                         " WHERE account_id = $1", UUID(seller))  # fmt: skip
    (row,) = await shop.world.sql("SELECT to_char(min(happened_at) AT TIME ZONE 'UTC', 'YYYY-MM') AS period"
                                  " FROM royalties.entry WHERE account_id = $1", UUID(seller))  # fmt: skip
    await shop.close_month(await shop.staff(), row["period"])
    (statement,) = await shop.get("/v1/royalties/statements", bearer)
    path = f"/v1/royalties/statements/{statement['id']}"
    first = (await shop.world.client.get(path, headers=bearer)).json()
    cursor = first["pagination"]["next_cursor"]
    second = (await shop.world.client.get(path, headers=bearer, params={"cursor": cursor})).json()
    assert second["pagination"]["next_cursor"] is None
    found = first["data"]["lines"] + second["data"]["lines"]
    assert [len(page["data"]["lines"]) for page in (first, second)] == [2, 1]
    names = ("account_id", "period", "asset", "opening", "earned", "reversed", "paid", "closing")
    content = {name: ({"account_id": seller} | statement)[name] for name in names}
    content["lines"] = [{name: line[name] for name in ("amount", "happened_at", "kind", "ref")} for line in found]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == statement["digest"]
    answer = await shop.world.client.get(path, headers=bearer, params={"format": "csv"})
    assert len(list(csv.DictReader(io.StringIO(answer.text)))) == 3
    await shop.world.refused(409, "CONFLICT", "too_many_lines", "GET", path, headers=bearer, params={"format": "pdf"})


async def test_papers_hold_the_lines_and_are_the_same_each_time(shop):
    seller, bearer, work, _, offer = await shop.seller()
    purchase = await sell(shop, offer)
    path = "/v1/royalties/report"
    report = await shop.get(path, bearer)
    assert report["complete"] and report["totals"] == [
        {"asset": "USDC", "earned": "9", "reversed": "0", "paid": "0", "net": "9"}
    ]
    answer = await shop.world.client.get(f"{path}?format=csv", headers=bearer)
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["kind"], row["asset"], row["amount"], row["work_id"]) == ("earned", "USDC", "9", work["id"])
    sold = (work["title"], "10", "1")
    assert (row["work_title"], row["gross"], row["platform_fee"]) == sold
    assert (row["purchase_id"], row["license_id"]) == (purchase["id"], "")
    (line,) = report["lines"]
    assert (line["work_title"], line["gross"], line["platform_fee"]) == sold
    assert row == {name: " ".join(cell) if name == "digests" else str(cell or "") for name, cell in line.items()}
    first, second = [await shop.world.client.get(f"{path}?format=pdf", headers=bearer) for _ in range(2)]
    assert first.content.startswith(b"%PDF-") and first.headers["content-type"] == "application/pdf"
    assert first.content == second.content and b"%%EOF" in first.content[-20:]
    shown = "".join(pypdfium2.PdfDocument(first.content)[0].get_textpage().get_text_bounded().split())
    assert "".join(work["title"].split()) in shown and work["id"] in shown and purchase["id"] in shown
    empty = await shop.world.client.get(f"{path}?since=2021-01-01&until=2021-12-31&format=pdf", headers=bearer)
    assert empty.content.startswith(b"%PDF-")
    for query in ("since=2026-02-02&until=2026-02-01", "since=0001-01-01", "until=9999-12-31", "format=xls", "since=x"):
        assert (await shop.world.client.get(f"{path}?{query}", headers=bearer)).status_code == 400, query
    assert (await shop.get(f"{path}?since=2021-01-01&until=2021-12-31", bearer))["lines"] == []


async def test_papers_of_a_closed_month_keep_the_title_it_had(shop):
    _, bearer, work, _, _ = await shop.seller()
    path = f"/v1/works/{work['id']}"
    async with shop.world.kernel.database.connection() as db:
        before = await db.fetchval("SELECT clock_timestamp()")
        await shop.world.data("PATCH", path, headers=bearer, json={"title": "Война и мир"})
        after = await db.fetchval("SELECT clock_timestamp()")
        id_ = UUID(work["id"])
        assert await queries.titles_until(db, [id_], before) == {id_: work["title"]} != {id_: "Война и мир"}
        assert await queries.titles_until(db, [id_], after) == {id_: "Война и мир"}


async def test_only_what_is_older_than_the_hold_period_is_paid_out(api_dsn):
    async with shop_over(api_dsn, royalty_hold_days=7) as shop:
        seller, bearer, _, _, offer = await shop.seller()
        await sell(shop, offer)
        balance = {"asset": "USDC", "payable": "0", "held": "9", "paid": "0"}
        assert await shop.get("/v1/royalties/balance", bearer) == [balance]
        assert await shop.get("/v1/payments/balance", bearer) == [balance]
        await shop.refused(409, "CONFLICT", "not_payable", "/v1/payouts", bearer, {"asset": "USDC"})
        await shop.world.entries("SET matures_at = now() WHERE account_id = $1", UUID(seller))
        await shop.refused(409, "CONFLICT", "not_payable", "/v1/payouts", bearer, {"asset": "USDC", "amount": "9.1"})
        await shop.refused(400, "VALIDATION_ERROR", "unknown_asset", "/v1/payouts", bearer, {"asset": "NONE"})
        key = uuid4().hex
        payout = await shop.post("/v1/payouts", bearer, {"asset": "USDC", "amount": "4"}, key)
        assert await shop.post("/v1/payouts", bearer, {"asset": "USDC", "amount": "4"}, key) == payout
        assert await shop.get("/v1/payouts", bearer) == [payout] and payout["status"] == "paid"
        assert (shop.owed(seller), shop.units(f"user:{seller}")) == (5 * USDC, 4 * USDC)
        assert await shop.get("/v1/royalties/balance", bearer) == [balance | {"payable": "5", "held": "0", "paid": "4"}]


async def test_two_payouts_at_once_never_reach_what_is_held(api_dsn, monkeypatch):
    async with shop_over(api_dsn, royalty_hold_days=7) as shop:
        seller, bearer, _, _, offer = await shop.seller()
        await sell(shop, offer)
        await shop.world.entries("SET matures_at = now() WHERE account_id = $1", UUID(seller))
        await sell(shop, offer)  # 9 payable, 9 held
        balances, other = queries.balances, []

        async def and_meanwhile(db, account_id):
            rows = await balances(db, account_id)
            if not other:
                refused = shop.refused(409, "CONFLICT", "payout_open", "/v1/payouts", bearer, {"asset": "USDC"})
                other.append(asyncio.create_task(refused))
                while not other[0].done() and not await shop.world.sql(
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%royalties.owed%'"
                ):
                    await asyncio.sleep(0.01)
            return rows

        monkeypatch.setattr(queries, "balances", and_meanwhile)
        first = await shop.post("/v1/payouts", bearer, {"asset": "USDC"})
        await other[0]
        assert first["status"] == "paid"
        assert (shop.owed(seller), shop.units(f"user:{seller}")) == (9 * USDC, 9 * USDC)
        assert [payout["id"] for payout in await shop.get("/v1/payouts", bearer)] == [first["id"]]


async def test_what_a_refund_under_way_will_take_is_not_paid_out(api_dsn, monkeypatch):
    async with shop_over(api_dsn, royalty_hold_days=7) as shop:
        seller, bearer, _, _, offer = await shop.seller()
        _, buyer = await shop.buyer()
        purchase = await shop.buy(buyer, offer)
        await shop.pay(purchase["intent"])
        await shop.finish()
        await shop.world.entries("SET matures_at = now() WHERE account_id = $1", UUID(seller))
        await sell(shop, offer)  # not matured

        async def refuse(*_):
            raise Refused("the card is closed")

        monkeypatch.setattr(shop.payments.test, "refund", refuse)
        await shop.post(f"/v1/purchases/{purchase['id']}/refund", await shop.staff(), {"amount": "9"})
        balance = {"asset": "USDC", "payable": "0.9", "held": "17.1", "paid": "0"}
        assert await shop.get("/v1/royalties/balance", bearer) == [balance]
        await shop.refused(409, "CONFLICT", "not_payable", "/v1/payouts", bearer, {"asset": "USDC", "amount": "1"})
        await shop.post("/v1/payouts", bearer, {"asset": "USDC"})
        assert (shop.owed(seller), shop.units(f"user:{seller}")) == (17_100_000, 900_000)
        await shop.finish()  # the provider has refused: it can be paid out again
        balance = {"asset": "USDC", "payable": "8.1", "held": "9", "paid": "0.9"}
        assert await shop.get("/v1/royalties/balance", bearer) == [balance]


async def test_income_of_several_and_income_of_one_never_wait_for_each_other(shop):
    sellers = [await shop.seller(name=name) for name in ("Ink", "Quill")]
    staff_bearer = await shop.staff()
    await own_money(shop.world, 18)
    for _, bearer, _, _, offer in sellers:  # both owe us
        purchase = await sell(shop, offer)
        await shop.post("/v1/payouts", bearer, {"asset": "USDC"})
        await shop.post(f"/v1/purchases/{purchase['id']}/refund", staff_bearer, {})
        await shop.finish()
    entries, database = shop.royalties.entries, shop.world.kernel.database
    low, high = sorted(UUID(seller) for seller, *_ in sellers)
    income = Income("licence_fee", "USDC", 6, USDC, "of-nothing", None)

    async def several(db):
        async with db.transaction():
            await entries.credit(db, [(low, income), (high, income)])
            raise _Undone

    async with database.connection() as one, database.connection() as other:
        held = one.transaction()
        await held.start()
        await entries.lock(one, "USDC", [high])
        now = datetime.now(UTC)
        await entries.write(one, high, "earned", income.of_asset, USDC, ref="no", sequence=None, matures_at=now)
        task = asyncio.create_task(several(other))
        waits = "SELECT FROM pg_locks WHERE pid = $1 AND NOT granted"
        await answers(lambda: shop.world.sql(waits, other.get_server_pid()), bool)
        await entries.cover_debts(one, "USDC", 6)
        await held.rollback()
        with pytest.raises(_Undone):
            await task


async def test_accounts_are_locked_whether_they_were_owed_before_or_not(shop):
    (old, *_), (new, *_), (other, *_) = [await shop.seller() for _ in range(3)]
    old, new, other = UUID(old), UUID(new), UUID(other)
    entries, database = shop.royalties.entries, shop.world.kernel.database
    row = "SELECT FROM royalties.owed WHERE account_id = $1 AND asset = 'USDC' FOR UPDATE NOWAIT"
    async with database.transaction() as db:
        await entries.lock(db, "USDC", [old])
    async with database.transaction() as one, database.connection() as two:
        await entries.lock(one, "USDC", [old, new])
        with pytest.raises(asyncpg.LockNotAvailableError):
            await two.execute(row, old)
        await two.execute(row, other)
        waiting = asyncio.create_task(_locked(database, entries, new))
        waits = "SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        await answers(lambda: shop.world.sql(waits), bool)
        assert not waiting.done()
    await waiting


async def _locked(database, entries, account_id):
    async with database.transaction() as db:
        await entries.lock(db, "USDC", [account_id])


class _Undone(Exception):
    pass


async def test_totals_of_a_creator_are_their_own_or_for_staff(shop):
    _, bearer, work, _, offer = await shop.seller()
    await sell(shop, offer)
    path = f"/v1/royalties/creators/{work['creator_id']}"
    assert (await shop.get(path, bearer))["totals"][0]["net"] == "9"
    staff, staff_bearer = await shop.buyer()
    await shop.world.refused(404, "NOT_FOUND", "unknown_creator", "GET", path, headers=staff_bearer)
    await shop.world.grant(staff, "admin")
    assert (await shop.get(path, staff_bearer))["totals"][0]["net"] == "9"


OVER_ALL_ENTRIES = """
    SELECT asset, scale, payable - aside AS payable, held + aside AS held, paid FROM (
        SELECT asset, max(scale) AS scale,
            coalesce(sum(CASE kind WHEN 'earned' THEN amount_units ELSE -amount_units END)
                     FILTER (WHERE kind = 'paid' OR matures_at <= now()), 0)::bigint AS payable,
            coalesce(sum(CASE kind WHEN 'earned' THEN amount_units ELSE -amount_units END)
                     FILTER (WHERE kind <> 'paid' AND matures_at > now()), 0)::bigint AS held,
            coalesce(sum(amount_units) FILTER (WHERE kind = 'paid'), 0)::bigint AS paid,
            (SELECT coalesce(sum(s.units), 0) FROM royalties.set_aside s
             WHERE s.account_id = $1 AND s.asset = e.asset)::bigint AS aside
        FROM royalties.entry e WHERE account_id = $1 GROUP BY asset
    ) e ORDER BY asset
"""
OF_A_TIME = """
    SELECT asset, max(scale) AS scale, coalesce(sum(amount_units) FILTER (WHERE kind = 'earned'), 0)::bigint AS earned,
        coalesce(sum(amount_units) FILTER (WHERE kind = 'reversed'), 0)::bigint AS reversed,
        coalesce(sum(amount_units) FILTER (WHERE kind = 'paid'), 0)::bigint AS paid
    FROM royalties.entry WHERE {} GROUP BY asset ORDER BY asset
"""


@pytest.mark.parametrize("seed", range(3))
async def test_sums_are_those_over_all_entries_after_any_history(shop, seed):
    rng, entries, database = random.Random(seed), shop.royalties.entries, shop.world.kernel.database
    accounts = [UUID((await shop.seller())[0]) for _ in range(3)]
    works = [uuid4() for _ in range(3)]
    span, now = timedelta(minutes=5), datetime.now(UTC)
    bounds = [now - (now - datetime(2020, 1, 1, tzinfo=UTC)) % size for size in (span, timedelta(days=1))]

    def maturity():
        """About the bounds of what is summed together, within the next second, and anywhere."""
        near = rng.choice(bounds) + rng.randrange(-2, 3) * rng.choice((span, timedelta(days=1)))
        return rng.choice(
            (near, near + timedelta(microseconds=rng.choice((-1, 1))), now + timedelta(seconds=rng.uniform(0, 3)),
             now + timedelta(days=rng.uniform(-10, 10)))
        )  # fmt: skip

    async def history(own):
        for _ in range(40):
            asset = own.choice(("USDC", "SUI"))
            of = {"asset": asset, "scale": 6 if asset == "USDC" else 9}
            try:
                async with database.transaction() as db:
                    chosen = own.sample(accounts, own.randrange(1, 4))
                    if len(chosen) > 1 or own.random() < 0.5:  # who writes of one account need not
                        await entries.lock(db, asset, chosen)
                    for account in chosen * own.randrange(1, 3):
                        kind = own.choice(("earned", "earned", "reversed", "paid"))
                        when = {"matures_at": maturity()} if own.random() < 0.7 else {"hold": timedelta(days=7)}
                        work = None if kind == "paid" else own.choice([None, *works])
                        await entries.write(db, account, kind, of, own.randrange(1, 10**6), ref=uuid4().hex,
                                            sequence=None, work_id=work, **when)  # fmt: skip
                    if own.random() < 0.2:
                        aside = [(f"pay:{account}", own.randrange(1, 10**6)) for account in chosen]
                        await entries.set_aside(db, uuid4().hex, of, aside, forced=False)
                    if own.random() < 0.2:
                        raise _Undone
            except _Undone:
                pass
            await as_over_all()

    async def as_over_all():
        """Each in the view of one instant, in which others write on."""
        async with database.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            for account in accounts:
                assert await queries.balances(db, account) == await db.fetch(OVER_ALL_ENTRIES, account)
                today = datetime.now(UTC).date()
                for since, until in ((today, today), (date.min, date.max), (today - timedelta(9), today)):
                    time = "account_id = $1 AND (happened_at AT TIME ZONE 'UTC')::date BETWEEN $2 AND $3"
                    expected = await db.fetch(OF_A_TIME.format(time), account, since, until)
                    assert await queries.totals_of(db, account, since, until) == expected
            for work in works:
                assert await queries.totals_of_work(db, work) == await db.fetch(OF_A_TIME.format("work_id = $1"), work)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(history(random.Random(f"{seed} {number}")))
    # Some days ago it happened as well as today.
    await shop.world.entries("SET happened_at = happened_at - (amount_units % 12) * interval '1 day'")
    await as_over_all()
    await history(rng)
    assert await wrong_sums(shop.world) == []
    for table in ("entry", "owed", "set_aside"):  # debts that never were, in which other tests would find nothing
        await shop.world.sql(f"DELETE FROM royalties.{table} WHERE account_id = ANY($1)", accounts)
    await shop.world.sql("SELECT royalties.sum_again()")


async def test_sums_that_went_wrong_are_found(shop):
    seller, _, _, _, offer = await shop.seller()
    await sell(shop, offer)
    assert await wrong_sums(shop.world) == []
    for table, column in (("daily", "earned"), ("work_income", "earned"), ("maturing", "units")):
        wrong = f"UPDATE royalties.{table} SET {column} = {column} + 1 WHERE account_id = $1"
        await shop.world.sql(wrong, UUID(seller))
        assert {name for name, _ in await wrong_sums(shop.world)} == {table}
        await shop.world.sql("SELECT royalties.sum_again()")


SALES = 20_000


async def test_money_of_who_sells_much_is_not_summed_anew_at_each_read(shop, monkeypatch):
    monkeypatch.setattr(routes, "LINES_MAX", 100)  # a report is a page of lines beside its sums
    seller, bearer, work, _, offer = await shop.seller()
    await sell(shop, offer)
    db = await asyncpg.connect(shop.world.dsn)
    try:
        await db.execute(
            """
            INSERT INTO royalties.entry (id, account_id, kind, asset, scale, amount_units, happened_at, matures_at,
                work_id, revenue_kind, ref)
            SELECT gen_random_uuid(), $1, 'earned', 'USDC', 6, 1000, at, at + interval '7 days', $2, 'content_purchase',
                'sold' || i FROM (SELECT i, now() - i * 1000 / $3 * interval '1 hour' AS at
                FROM generate_series(1, $3::int) i) sales
            """,
            UUID(seller), UUID(work["id"]), SALES,
        )  # fmt: skip
        await db.execute("SELECT royalties.sum_again()")
        await db.execute(
            "INSERT INTO royalties.ancestor (licence_id, work_id, parent_work_id, share_bps)"
            " SELECT gen_random_uuid(), w[i], w[i / 4], 1000"
            " FROM (SELECT array_agg(gen_random_uuid()) AS w FROM generate_series(1, $1)) works,"
            " generate_series(4, $1) i", SALES // 2,
        )  # fmt: skip
        await db.execute("VACUUM ANALYZE")
        seen, connection = {}, shop.world.kernel.database.connection
        shop.world.kernel.database.connection = lambda: _Recorded(connection(), seen)
        (balance,) = await shop.get("/v1/royalties/balance", bearer)
        assert Decimal(balance["payable"]) + Decimal(balance["held"]) == 9 + SALES // 1000 and balance["held"] != "0"
        for path in ("/v1/payments/balance", f"/v1/royalties/works/{work['id']}", "/v1/royalties/report",
                     f"/v1/royalties/creators/{work['creator_id']}"):  # fmt: skip
            await shop.get(path, bearer)
        await shop.post("/v1/payouts", bearer, {"asset": "USDC", "amount": "1"})
        await sell(shop, offer)
        shop.world.kernel.database.connection = connection
        sums = re.compile(r"royalties\.(entry|owed|daily|work_income|maturing|set_aside|payout|ancestor)\b")
        statements = {query: arguments for query, arguments in seen.items() if sums.search(query)}
        assert any("RECURSIVE" in query for query in statements)
        wrong, ran = await long_ways(db, statements)
        assert wrong == [] and ran > 5
        assert (await long_ways(db, {OVER_ALL_ENTRIES: (UUID(seller),)}))[0]  # it would have been found
    finally:
        await db.close()


async def test_no_statement_of_money_reads_a_whole_table(shop):
    seen = {}
    connection = shop.world.kernel.database.connection
    shop.world.kernel.database.connection = lambda: _Recorded(connection(), seen)
    seller, bearer, work, _, offer = await shop.seller()
    await propose(shop, work, bearer, [(seller, 10_000)])
    _, buyer = await shop.buyer("50")
    bought = await sell(shop, offer, buyer)
    second = await shop.buy((await shop.buyer())[1], offer)
    await shop.pay(second["intent"], "declined")
    await shop.finish()
    await shop.post(f"/v1/purchases/{bought['id']}/refund", await shop.staff(), {"amount": "1"})
    await shop.post("/v1/payouts", bearer, {"asset": "USDC"})
    await shop.finish()
    for path in ("/v1/royalties/balance", "/v1/royalties/report", "/v1/royalties/statements", "/v1/payouts",
                 f"/v1/royalties/works/{work['id']}", f"/v1/royalties/creators/{work['creator_id']}"):  # fmt: skip
        await shop.get(path, bearer)
    for part in ({"amount": "1"}, {"period": f"{datetime.now(UTC):%Y-%m}"}):
        body = {"work_id": work["id"], "asset": "USDC"} | part
        await shop.world.data("POST", "/v1/royalties/calculate", headers=bearer, json=body)
    for path in ("/v1/payments", "/v1/purchases", "/v1/library", f"/v1/purchases/{bought['id']}"):
        await shop.get(path, buyer)
    shop.world.kernel.database.connection = connection
    tables = ("royalties.", "payments.", "money.command", "test_provider.")
    statements = {query: arguments for query, arguments in seen.items() if any(table in query for table in tables)}
    assert len(statements) > 40
    wrong = []
    async with shop.world.kernel.database.transaction() as db:
        await db.execute("SET LOCAL enable_seqscan = off")
        for query, arguments in statements.items():
            if not query.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
                continue
            async with db.transaction():
                (row,) = await db.fetch(f"EXPLAIN (FORMAT JSON) {query}", *arguments)
            if found := scans(json.loads(row[0])[0]["Plan"], set()):
                wrong.append((found, " ".join(query.split())))
    assert wrong == []
