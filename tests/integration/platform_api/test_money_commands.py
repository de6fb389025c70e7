"""Money commands over the real core and a real PostgreSQL: what is closed, how long, and by whom."""

import time
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio

from byline import money_tools
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages.errors import SettingsInvalid, Unavailable
from persistence.stores.postgres.projector import Projector
from platform_api.ledger.commands import ResolveMoney
from tests.support.api import opened
from tests.support.real_core import RealCore
from tests.support.sales import Shop, shop_over

DAY_NS = 86_400 * 10**9


@pytest_asyncio.fixture
async def shop(api_dsn):
    async with shop_over(api_dsn) as shop:
        shop.core.now_ns = time.time_ns()
        yield shop


class Orders:
    """Commands of a kind of their own, with what their document heard."""

    def __init__(self, shop):
        self.shop, self.heard = shop, []
        shop.money.handle("test", self._hear)
        for account in ("user:rich", "user:other"):
            shop.core.send(op="account", account=account)
        shop.core.send(op="deposit", account="user:rich", asset="USDC", amount="10", ref="rich")

    async def _hear(self, _, answer):
        self.heard.append(answer.state)

    async def transfer(self, amount="4", **more):
        """The ref of one that is written and not sent."""
        ref = f"test:{uuid4().hex}"
        leg = {"from": "user:rich", "asset": "USDC", "amount": amount, "to": "user:other"}
        async with self.shop.world.kernel.database.transaction() as db:
            await self.shop.money.order(
                db, ref, "test", uuid4(), {"op": "transfer", "legs": [leg], **more}, accounts={}
            )
        return ref

    async def body(self, ref):
        (row,) = await self.shop.world.sql("SELECT body FROM money.command WHERE ref = $1", ref)
        return msgspec.json.decode(row["body"])


@pytest.fixture
def orders(shop):
    return Orders(shop)


@pytest_asyncio.fixture
async def project(shop):
    """Brings the projection of this core up to its last command."""
    await shop.world.sql(
        "TRUNCATE exchange.projection, exchange.asset, exchange.market, exchange.account, exchange.balance,"
        " exchange.posting CASCADE"
    )
    projector = Projector(shop.core, shop.world.dsn, journal=uuid4().bytes)

    async def step():
        while await projector.step():
            pass

    await step()
    yield step
    await projector.close()


async def listed(dsn):
    """What `byline money list` prints."""
    return "\n".join(await money_tools._stuck(dsn, 100))


async def buy_without_money(shop, bearer, offer):
    answer = await shop.world.client.post(
        "/v1/purchases", headers=bearer | {"idempotency-key": uuid4().hex},
        json={"offer_id": offer["id"], "method": "balance"},
    )  # fmt: skip
    return answer.status_code


async def test_refused_purchase_leaves_no_ref_in_the_core(shop):
    _, _, _, _, offer = await shop.seller("10")
    _, bearer = await shop.buyer()
    assert await buy_without_money(shop, bearer, offer) == 402
    await shop.finish()
    (row,) = await shop.world.sql("SELECT body, state FROM money.command WHERE kind = 'purchase'")
    command = msgspec.json.decode(row["body"])
    assert row["state"] == "refused"
    assert shop.core.send(**command)["status"] == "voided", "closed, as long as a copy could run"
    shop.core.now_ns = command["not_after"] + 1
    shop.core.events({"op": "tick"})
    assert shop.core.send(**command)["reason"] == "expired"
    assert shop.core.send(op="void", ref=command["ref"])["event"] == "voided", "unknown: it was forgotten"


async def test_buyers_without_money_fill_the_table_of_refs_no_longer_than_a_week(api_dsn):
    core = RealCore(time.time_ns())
    core.core = Core(CoreLimits(refs=40))
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    async with opened(api_dsn, core=core, embedded=True, test_payments=True) as world:
        await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
        shop = Shop(world)
        _, _, _, _, offer = await shop.seller("10")
        _, bearer = await shop.buyer()
        assert {await buy_without_money(shop, bearer, offer) for _ in range(45)} >= {402}
        core.send(op="account", account="user:payer")
        deposit = {"op": "deposit", "account": "user:payer", "asset": "USDC", "amount": "1"}
        assert core.send(**deposit, ref="full")["reason"] == "busy"
        core.now_ns += 8 * DAY_NS
        core.events({"op": "tick"})
        assert core.send(**deposit, ref="free")["event"] == "transferred"


async def test_an_account_fills_the_table_of_refs_slowly(api_dsn):
    async with shop_over(api_dsn, refusals_per_hour=3) as shop:
        _, _, _, _, offer = await shop.seller("10")
        _, bearer = await shop.buyer()
        (_, other), (_, rich) = await shop.buyer(), await shop.buyer("50")
        for _ in range(5):  # what is refused for something else, or done, counts for nothing
            assert (await shop.world.client.post("/v1/purchases", headers=bearer, json={})).status_code == 400
            await shop.buy(rich, (await shop.seller("1"))[4], "balance")
        kept = shop.core.core.ref_count
        assert [await buy_without_money(shop, bearer, offer) for _ in range(5)] == [402, 402, 402, 429, 429]
        assert shop.core.core.ref_count == kept + 3
        assert await buy_without_money(shop, other, offer) == 402
        assert (await shop.world.client.get("/v1/purchases", headers=bearer)).status_code == 200


async def test_command_that_came_too_late_for_the_core_is_refused(shop, orders):
    ref = await orders.transfer()
    shop.core.now_ns += 8 * DAY_NS
    assert await shop.money.settle(ref) == "refused"
    assert orders.heard == ["refused"] and shop.parts("user:rich") == (10_000_000, 0)
    (row,) = await shop.world.sql("SELECT reason FROM money.command WHERE ref = $1", ref)
    assert row["reason"] == "expired"


async def test_hold_that_was_given_back_and_forgotten_is_given_back_once(shop, orders):
    """The answer to the void is lost, and asked for only when the core has forgotten the ref."""
    ref = await orders.transfer(pending=True)
    assert await shop.money.settle(ref) == "pending" and shop.parts("user:rich") == (6_000_000, 4_000_000)
    async with shop.world.kernel.database.transaction() as db:
        await shop.money.order_void(db, ref)
    shop.core.lose.append("answer")
    assert await shop.money.settle(ref) == "voiding"
    shop.core.now_ns += 8 * DAY_NS
    shop.core.events({"op": "tick"})
    assert await shop.money.settle(ref) == "voided"
    assert orders.heard == ["pending", "voided"] and shop.parts("user:rich") == (10_000_000, 0)


@pytest.mark.parametrize("pending", [True, False])
@pytest.mark.parametrize("other", ["settles", "dies"])
@pytest.mark.parametrize("when", ["refused", "closing", "closed"])
async def test_two_senders_agree_when_one_is_refused_and_money_comes(shop, orders, when, other, pending):
    """Money comes, and another sender's copy arrives: after the first one's refusal, before it closes the ref, after.
    The other notes its answer, or dies with it."""
    ref = await orders.transfer("14", **({"pending": True} if pending else {}))
    body, submit, met = await orders.body(ref), shop.core.submit, []

    async def meet():
        met.append(when)
        shop.core.send(op="deposit", account="user:rich", asset="USDC", amount="10", ref="late")
        if other == "settles":
            await shop.money.settle(ref)
        else:
            shop.core.send(**body)

    async def meeting(command):
        moment = not met and (command["op"], when) in (("transfer", "refused"), ("void", "closing"), ("void", "closed"))
        if moment and when == "closing":
            await meet()
        answer = await submit(command)
        if moment and when != "closing":
            await meet()
        return answer

    shop.core.submit = meeting
    await shop.money.settle(ref)
    await shop.finish()
    assert met == [when]
    (row,) = await shop.world.sql("SELECT state, sequence FROM money.command WHERE ref = $1", ref)
    taken = {"pending": (6_000_000, 14_000_000), "posted": (6_000_000, 0), "refused": (20_000_000, 0)}
    assert shop.parts("user:rich") == taken[row["state"]] and orders.heard == [row["state"]]
    assert (row["sequence"] is not None) == (row["state"] != "refused")
    if when == "refused" and other == "settles":
        assert row["state"] == ("pending" if pending else "posted"), "noted before anybody closed it"


@pytest.mark.parametrize("faults", [["none", "request"], ["none", "answer"], ["none", "request", "answer", "busy"]])
async def test_refused_command_whose_closing_was_lost_is_closed_and_never_sent_again(shop, orders, faults):
    ref = await orders.transfer("14")
    shop.core.lose.extend(faults)
    assert await shop.money.settle(ref) == "closing" and orders.heard == []
    shop.core.send(op="deposit", account="user:rich", asset="USDC", amount="10", ref="late")
    del shop.core.commands[:]
    await shop.finish()
    assert {command["op"] for command in shop.core.commands} == {"void"}
    assert orders.heard == ["refused"] and shop.parts("user:rich") == (20_000_000, 0)
    (row,) = await shop.world.sql("SELECT state, reason FROM money.command WHERE ref = $1", ref)
    assert tuple(row) == ("refused", "insufficient_funds")


async def test_hold_of_another_command_with_the_same_ref_is_left_alone(shop, orders):
    ref = await orders.transfer()
    leg = {"from": "user:rich", "asset": "USDC", "amount": "3", "to": "user:other"}
    shop.core.send(op="transfer", ref=ref, legs=[leg], pending=True)
    assert await shop.money.settle(ref) == "stuck"
    assert orders.heard == [] and shop.parts("user:rich") == (7_000_000, 3_000_000), "nobody knows what it took"


async def test_stuck_money_is_decided_by_what_the_core_shows_and_once(shop, orders, project):
    """Its own copy ran before: the same moves, until another time."""
    ref, dsn = await orders.transfer("4.25"), shop.world.dsn
    body = await orders.body(ref)
    ran = shop.core.send(**body | {"not_after": body["not_after"] - 1})
    with pytest.raises(SettingsInvalid, match="is ordered: only what is stuck"):
        await money_tools._resolve(dsn, ref, "posted", "restored", core_at=0)
    assert await shop.money.settle(ref) == "stuck"
    for decision in ("posted", "refused"):  # it is not projected yet
        with pytest.raises(Unavailable, match="then again"):
            await money_tools._resolve(dsn, ref, decision, "restored", core_at=ran["sequence"])
    await project()
    for decision, reason, problem in (("refused", "restored", "--as posted"), ("posted", " ", "reason: say why")):
        with pytest.raises(SettingsInvalid, match=problem):
            await money_tools._resolve(dsn, ref, decision, reason, core_at=0)
    with pytest.raises(SettingsInvalid, match="no command of money has the ref"):
        await money_tools._resolve(dsn, "test:none", "posted", "restored", core_at=0)
    assert (await listed(dsn)).count("4.25 USDC: user:rich → user:other") == 2
    audited = "SELECT old_values, new_values FROM kernel.audit_entry WHERE resource_id = $1"
    assert await shop.world.sql(audited, ref) == [], "what is refused changes nothing"
    assert f"{ref} is posted" in await money_tools._resolve(dsn, ref, "posted", "restored from a copy", core_at=0)
    assert "decided: a job does it" in await listed(dsn)
    with pytest.raises(SettingsInvalid, match="is decided already"):
        await money_tools._resolve(dsn, ref, "posted", "again", core_at=0)
    await shop.finish()
    (row,) = await shop.world.sql("SELECT state, reason, sequence FROM money.command WHERE ref = $1", ref)
    assert tuple(row) == ("posted", "bad_ref", ran["sequence"]) and orders.heard == ["posted"]
    (entry,) = await shop.world.sql(audited, ref)
    assert msgspec.json.decode(entry["new_values"])["reason"] == "restored from a copy"
    assert ref not in await listed(dsn)
    await shop.money._resolve(ResolveMoney(ref, "refused", None))
    assert orders.heard == ["posted"], "of two decisions the first"


async def test_hold_that_is_stuck_is_refused_or_waits(shop, orders, project):
    ref, dsn = await orders.transfer(pending=True), shop.world.dsn
    leg = {"from": "user:rich", "asset": "USDC", "amount": "3", "to": "user:other"}
    shop.core.send(op="transfer", ref=ref, legs=[leg])
    assert await shop.money.settle(ref) == "stuck"
    await project()
    with pytest.raises(SettingsInvalid, match="it is a hold"):
        await money_tools._resolve(dsn, ref, "posted", "no", core_at=0)
    await money_tools._resolve(dsn, ref, "refused", "another's", core_at=0)
    await shop.finish()
    assert orders.heard == ["refused"] and shop.parts("user:rich") == (7_000_000, 0)


async def test_refund_that_one_sender_was_refused_and_another_was_not_is_paid_once(shop):
    user, bearer = await shop.buyer("7")
    staff = await shop.staff()
    (payment,) = await shop.get("/v1/payments", bearer)
    shop.core.send(op="account", account="user:elsewhere")

    def move(source, target):
        leg = {"from": source, "asset": "USDC", "amount": "7", "to": target}
        shop.core.send(op="transfer", ref=uuid4().hex, legs=[leg])

    move(f"user:{user}", "user:elsewhere")
    submit, first = shop.core.submit, []

    async def slow(command):
        if command["op"] == "void" and not first:
            first.append(command)
            move("user:elsewhere", f"user:{user}")
            await shop.money.settle(command["ref"])  # the job of the same command
        return await submit(command)

    shop.core.submit = slow
    await shop.world.client.post(
        f"/v1/payments/{payment['id']}/refund", headers=staff | {"idempotency-key": uuid4().hex}, json={}
    )
    await shop.finish()
    assert first
    (given,) = await shop.world.sql("SELECT coalesce(sum(amount::numeric), 0) AS sum FROM test_provider.refund")
    assert (given["sum"], shop.units(f"user:{user}")) in ((0, 7_000_000), (7, 0))


async def test_sweep_passes_by_a_command_whose_account_the_core_does_not_open(shop, orders):
    closed = await orders.transfer("1")
    sent = await orders.transfer("2")
    change = "UPDATE money.command SET accounts = $2 WHERE ref = $1"
    await shop.world.sql(change, closed, '{"system:of-ours": "never"}')
    await shop.world.sql("DELETE FROM jobs.pgqueuer")
    await shop.world.sql("UPDATE money.command SET updated_at = now() - interval '1 hour'")
    await shop.money.sweep()
    assert orders.heard == ["posted"] and shop.parts("user:other") == (2_000_000, 0)
    rows = await shop.world.sql("SELECT ref, state FROM money.command WHERE ref = ANY($1)", [closed, sent])
    assert {row["ref"]: row["state"] for row in rows} == {closed: "ordered", sent: "posted"}
    await shop.world.sql(change, closed, "{}")
    await shop.finish()
    assert orders.heard == ["posted", "posted"]
