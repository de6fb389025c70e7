"""Whose share of a work falls has agreed: rules, collaborators, licences and licences below them, in any order."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from platform_api.errors import timestamp
from tests.support.licences import TERMS, issued
from tests.support.sales import shop_over

AMOUNT = Decimal(10_000)
ROUNDING = 4
"""Units of a fee that the divisions on its way may give to another."""
KINDS = ("content_purchase", "rental")
HOURS = (1, 36, 60)
"""When shares are looked at; rules begin at once, and before the second and the third."""
ALONE, HALVES = (10, 0, 0), (5, 5, 0)
PARTS = st.sampled_from((ALONE, HALVES, (5, 0, 5), (0, 5, 5), (8, 1, 1), (0, 10, 0)))
"""Tenths of the owner, and of the two who may be asked."""
AGREED = ("answer", 0, "all")
DAYS, YEAR = (10, 300, 500), 365
"""Of licences below one that lasts a year, and another one once it is renewed."""
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rule"), st.sampled_from(("any", *KINDS[:1])), PARTS, st.sampled_from((0, 24, 48))),
        st.tuples(st.just("collaborators"), PARTS),
        st.tuples(st.just("licence"), st.sampled_from((1_000, 2_000, 5_000))),
        st.tuples(st.just("end")),
        st.tuples(st.just("issue"), st.sampled_from((0, 2_000, 10_000))),
        st.tuples(st.sampled_from(("renew", "revoke")), st.integers(0, 2)),
        *[st.tuples(st.sampled_from(("sell", "extend")), st.integers(0, 2), st.sampled_from(DAYS))] * 2,
        *[st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from(("all", "all", "yes", "no")))] * 3,
    ),
    min_size=4, max_size=10,
)  # fmt: skip


class Given:
    """A licence that may be given on. Of each of its periods: who was paid for the work then, and the question whether
    it may be given on, if there is one."""

    def __init__(self, id_):
        self.id, self.periods, self.below = id_, [], []


class Making:
    """A work, its owner, two who may share in it; a friend, whose work it is said to be made of, and the friend's
    partner; and a dealer, who sells licences of it."""

    def __init__(self, shop, people, friend, partner, dealer):
        self.shop, self.world, self.people, self.friend, self.dealer = shop, shop.world, people, friend, dealer
        self.bearers = dict([*people, friend[:2], partner])
        self.agreed = {}
        self.licences = []
        self.given = []

    async def begin(self):
        self.owner_id, self.owner, self.work, _, _ = await self.shop.seller()
        self.buyer_id, self.buyer = await self.shop.buyer("20")
        self.path = f"/v1/works/{self.work['id']}"
        self.start = datetime.now(UTC)
        return self

    async def shares(self):
        """(account, kind, hours) → what a sale gives them then."""
        found = {}
        for kind in KINDS:
            for hours in HOURS:
                body = {
                    "work_id": self.work["id"], "asset": "USDC", "amount": str(AMOUNT), "revenue_kind": kind,
                    "at": timestamp(self.start + timedelta(hours=hours)),
                }  # fmt: skip
                dry = await self.world.data("POST", "/v1/royalties/calculate", headers=self.owner, json=body)
                amounts = [Decimal(line["amount"]) for line in dry["lines"]]
                assert sum(amounts) == AMOUNT and min(amounts) >= 0
                for line, amount in zip(dry["lines"], amounts, strict=True):
                    key = line["account_id"], kind, hours
                    found[key] = found.get(key, 0) + amount
        return found

    async def take(self, step):
        """Do it; whose share may fall by it."""
        name, *rest = step
        return await getattr(self, f"_{name}")(*rest)

    def _tenths(self, parts):
        accounts = [self.owner_id, *(account for account, _ in self.people)]
        return {account: 1_000 * tenths for account, tenths in zip(accounts, parts, strict=True) if tenths}

    async def _rule(self, kind, parts, hours):
        lines = [{"account_id": one, "role": "collaborator", "bps": bps} for one, bps in self._tenths(parts).items()]
        body = {"lines": lines, "revenue_kind": kind}
        if hours:
            body["effective_from"] = timestamp(self.start + timedelta(hours=hours))
        await self.world.data("PUT", f"{self.path}/royalty-rules", headers=self.owner, json=body)
        return {self.owner_id}

    async def _collaborators(self, parts):
        tenths = self._tenths(parts)
        tenths.pop(self.owner_id, None)
        body = [{"account_id": one, "role": "author", "share_bps": bps} for one, bps in tenths.items()]
        await self.world.data(
            "PUT", f"{self.path}/collaborators", headers=self.owner, json={"collaborators": body}
        )
        return {self.owner_id}

    async def _licence(self, bps):
        friend_id, bearer, other = self.friend
        made = await issued(self.world, bearer, other, self.owner_id, scope=["adapt"], revenue_share_bps=bps)
        self.licences.append(made["id"])
        answer = await self.world.client.post(
            f"/v1/licenses/{made['id']}/works", headers=self.owner, json={"work_id": self.work["id"]}
        )
        assert answer.status_code in (200, 201, 409), answer.text
        return {self.owner_id, friend_id}  # the friend gave the new licence, which may ask for less

    async def _end(self):
        if self.licences:
            headers = self.friend[1] | {"idempotency-key": uuid4().hex}
            path = f"/v1/licenses/{self.licences.pop()}/revoke"
            await self.world.data("POST", path, headers=headers, json={"reason": "Over."})
        return set()

    async def _issue(self, bps):
        """The owner lets the dealer give licences on."""
        fields = {"sublicensing": True, "revenue_share_bps": bps}
        made = await issued(self.world, self.owner, self.work, self.dealer[0], **fields)
        self.given.append(Given(made["id"]))
        await self._granted(self.given[-1])
        return set()

    async def _renew(self, number):
        if number < len(self.given):
            answer = await self._post(f"/v1/licenses/{self.given[number].id}/renew", self.owner)
            if answer.status_code == 200:
                await self._granted(self.given[number])
        return set()

    async def _revoke(self, number):
        if number < len(self.given):
            gone = self.given.pop(number)
            answer = await self._post(f"/v1/licenses/{gone.id}/revoke", self.owner, {"reason": "Over."})
            assert answer.status_code in (200, 409), answer.text
        return set()

    async def _granted(self, given):
        paid = {account for (account, _, _), amount in (await self.shares()).items() if amount}
        rules = await self.world.data("GET", f"{self.path}/royalty-rules", headers=self.owner)
        known = {id_ for one in self.given for _, id_ in one.periods}
        asked = [one["id"] for one in rules["licence_shares"] if one["license_id"] == given.id]
        given.periods.append((paid, next((id_ for id_ in asked if id_ not in known), None)))

    async def _sell(self, number, days):
        """The dealer sells a licence below one of the owner's, if that may be."""
        if number < len(self.given):
            body = TERMS | {
                "work_id": self.work["id"], "licensee_id": self.buyer_id, "base_fee": "1", "duration": f"P{days}D",
                "parent_license_id": self.given[number].id,
            }  # fmt: skip
            answer = await self._post("/v1/licenses", self.dealer[1], body)
            if answer.status_code == 201:
                self.given[number].below.append((answer.json()["data"]["id"], days))
                await self._paid(answer.json()["data"]["id"], self.given[number], 0, days)
        return set()

    async def _extend(self, number, _):
        """The dealer renews the first one that was sold."""
        if number < len(self.given) and self.given[number].below:
            id_, days = self.given[number].below.pop(0)
            if (await self._post(f"/v1/licenses/{id_}/renew", self.dealer[1])).status_code == 200:
                await self._paid(id_, self.given[number], days, 2 * days)
        return set()

    async def _paid(self, id_, given, first, last):
        """The fee of a licence for these days: everybody gets what they would of the owner's own, or has agreed, or had
        no share when the licence above was granted for any of these days."""
        body = {"work_id": self.work["id"], "asset": "USDC", "amount": "1", "revenue_kind": "licence_fee"}
        dry = await self.world.data("POST", "/v1/royalties/calculate", headers=self.owner, json=body)
        direct = {}
        for line in dry["lines"][1:]:
            direct[line["account_id"]] = direct.get(line["account_id"], 0) + round(Decimal(line["amount"]) * 10**6)
        before = {account: self.shop.owed(account) for account in direct}
        assert (await self._post(f"/v1/licenses/{id_}/pay", self.buyer)).status_code == 200
        await self.shop.finish()
        for account, units in direct.items():
            if self.shop.owed(account) - before[account] < units - ROUNDING and account != self.owner_id:
                for number, (paid, asked) in enumerate(given.periods):
                    if first < YEAR * (number + 1) and last > YEAR * number:
                        assert account not in paid or account in self.agreed.get(asked, ()), (account, number, direct)
                event("a licence was given on with consent")

    async def _post(self, path, bearer, body=None):
        headers = bearer | {"idempotency-key": uuid4().hex}
        return await self.world.client.post(path, headers=headers, json=body)

    async def _answer(self, number, what):
        """One of those who are asked says yes or no to one of the things that wait, or all say yes, whoever is asked
        late too."""
        waiting = await self._waiting()
        if not waiting:
            return set()
        path, field, id_, asked = waiting[number % len(waiting)]
        while asked:
            await self._say(path, field, id_, asked[0], what != "no")
            asked = next((each[3] for each in await self._waiting() if each[2] == id_), []) if what == "all" else []
        event(f"{field} answered")
        return self.agreed.get(id_, set()) | ({self.friend[0]} if field == "share_id" else set())

    async def _waiting(self):
        """Path, field and id of each thing that waits for somebody, and for whom."""
        rules = await self.world.data("GET", f"{self.path}/royalty-rules", headers=self.owner)
        change = (await self.world.data("GET", f"{self.path}/collaborators", headers=self.owner))["pending"]
        path = "royalty-rules/licence-shares/consent"
        found = [("royalty-rules/consent", "rule_id", one["id"], one["waits_for"]) for one in rules["rules"]]
        found += [(path, "share_id", one["id"], one["waits_for"]) for one in rules["licence_shares"]]
        if change is not None:
            found.append(("collaborators/consent", "change_id", change["id"], change["waiting_for"]))
        return [each for each in found if each[3]]

    async def _say(self, path, field, id_, who, agree):
        headers, body = self.bearers[who], {field: id_, "agree": agree}
        answer = await self.world.client.post(f"{self.path}/{path}", headers=headers, json=body)
        assert answer.status_code < 300, answer.text
        if agree:
            self.agreed.setdefault(id_, {self.owner_id}).add(who)


async def play(making, steps):
    before = await making.shares()
    for number, step in enumerate(steps):
        may_lose = await making.take(step)
        after = await making.shares()
        lost = {key[0] for key, amount in before.items() if key[0] is not None and after.get(key, 0) < amount}
        assert lost <= may_lose, f"step {number}, {step}: {before} became {after}"
        if lost - {making.owner_id}:
            event("a share fell with consent")
        before = after


def test_whose_share_falls_is_among_those_who_agreed(api_dsn):
    with asyncio.Runner() as runner:
        over = shop_over(api_dsn)
        shop = runner.run(over.__aenter__())

        async def begin():
            people = [await shop.buyer() for _ in range(2)]
            friend_id, friend, other, _, _ = await shop.seller("1", name="Friend")
            partner_id, partner = await shop.buyer()
            path = f"/v1/works/{other['id']}/collaborators"
            body = {"collaborators": [{"account_id": partner_id, "role": "author", "share_bps": 5_000}]}
            change = (await shop.world.data("PUT", path, headers=friend, json=body))["pending"]
            body = {"change_id": change["id"], "agree": True}
            await shop.world.data("POST", f"{path}/consent", headers=partner, json=body)
            dealer = await shop.buyer()
            for account in (dealer[0], friend_id):
                await shop.world.grant(account, "studio")
            return people, (friend_id, friend, other), (partner_id, partner), dealer

        cast = runner.run(begin())

        @settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
        @given(STEPS)
        @example([("collaborators", HALVES), AGREED, ("licence", 2_000)])
        @example([("licence", 5_000), ("end",), ("licence", 1_000), AGREED])
        @example([("collaborators", HALVES), AGREED, ("issue", 0), ("sell", 0, 10), AGREED, ("sell", 0, 10)])
        @example([("licence", 5_000), ("issue", 2_000), ("sell", 0, 10)])
        @example([("issue", 0), ("collaborators", HALVES), AGREED, ("renew", 0), ("sell", 0, 300), ("extend", 0, 0)])
        @example([("rule", "any", HALVES, 0), AGREED, ("collaborators", ALONE)])
        @example([("rule", "any", HALVES, 24), AGREED, ("rule", KINDS[0], ALONE, 0)])
        def check(steps):
            async def one():
                await play(await Making(shop, *cast).begin(), steps)

            runner.run(one())

        try:
            check()
        finally:
            runner.run(over.__aexit__(None, None, None))
