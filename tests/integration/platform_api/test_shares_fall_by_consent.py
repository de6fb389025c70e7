"""Whose share of a work falls has agreed: rules, collaborators and licences, in any order, at any time."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from platform_api.errors import timestamp
from tests.support.licences import issued
from tests.support.sales import shop_over

AMOUNT = Decimal(10_000)
KINDS = ("content_purchase", "rental")
HOURS = (1, 36, 60)
"""When shares are looked at; rules begin at once, and before the second and the third."""
ALONE, HALVES = (10, 0, 0), (5, 5, 0)
PARTS = st.sampled_from((ALONE, HALVES, (5, 0, 5), (0, 5, 5), (8, 1, 1), (0, 10, 0)))
"""Tenths of the owner, and of the two who may be asked."""
AGREED = ("answer", 0, "all")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rule"), st.sampled_from(("any", *KINDS[:1])), PARTS, st.sampled_from((0, 24, 48))),
        st.tuples(st.just("collaborators"), PARTS),
        st.tuples(st.just("licence"), st.sampled_from((1_000, 2_000, 5_000))),
        st.tuples(st.just("end")),
        *[st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from(("all", "all", "yes", "no")))] * 3,
    ),
    min_size=4, max_size=10,
)  # fmt: skip


class Making:
    """A work, its owner, two who may share in it, and a friend whose work it is said to be made of."""

    def __init__(self, shop, people, friend):
        self.shop, self.world, self.people, self.friend = shop, shop.world, people, friend
        self.agreed = {}
        self.licences = []

    async def begin(self):
        self.owner_id, self.owner, self.work, _, _ = await self.shop.seller()
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
        headers, body = dict(self.people)[who], {field: id_, "agree": agree}
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
            return people, (friend_id, friend, other)

        people, friend = runner.run(begin())

        @settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
        @given(STEPS)
        @example([("collaborators", HALVES), AGREED, ("licence", 2_000)])
        @example([("rule", "any", HALVES, 0), AGREED, ("collaborators", ALONE)])
        @example([("rule", "any", HALVES, 24), AGREED, ("rule", KINDS[0], ALONE, 0)])
        def check(steps):
            async def one():
                await play(await Making(shop, people, friend).begin(), steps)

            runner.run(one())

        try:
            check()
        finally:
            runner.run(over.__aexit__(None, None, None))
