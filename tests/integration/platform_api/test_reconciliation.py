"""The books held against the core: a real PostgreSQL, the real core, and the projector between them."""

import random
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from byline import money_tools
from engine.messages.errors import Unavailable
from persistence.stores.postgres.projector import Projector
from platform_api.ledger.commands import pay_account, work_account
from platform_api.royalties import queries as royalty_queries
from platform_api.royalties import reconciliation
from platform_api.royalties.closing import CloseMonth
from tests.support.licences import chain, issued, keyed, licence, studio
from tests.support.sales import shop_over

USDC = 10**6
PAYEES = 80
MONEY_MOVES = ("transfer", "deposit", "post", "void")


class Books:
    """A shop, the projection of its core as far as `project` was called, and what the comparison says."""

    def __init__(self, shop):
        self.shop, self.core, self.world = shop, shop.core, shop.world
        self.projector = Projector(shop.core, shop.world.dsn, journal=uuid4().bytes)

    async def project(self):
        while await self.projector.step():
            pass

    async def fund(self):
        """The platform has money of its own, and the projection knows."""
        self.core.send(op="account", account="platform:reserve", overdraft="forced")
        self.core.send(op="deposit", account="platform:reserve", asset="USDC", amount="1000", ref=uuid4().hex)
        await self.project()

    def move(self, source, target, amount):
        """By nobody's command: behind the back of the books."""
        leg = {"from": source, "asset": "USDC", "amount": amount, "to": target}
        answer = self.core.send(op="transfer", legs=[leg], ref=uuid4().hex, force=True)
        assert answer["event"] == "transferred", answer

    async def differences(self):
        found = await self.shop.royalties.reconciliation.differences()
        return [(one.account, one.core_units, one.book_units) for one in found]

    async def look(self):
        """As upkeep does: what its log, the numbers for machines and the audit trail tell."""
        with capture_logs() as lines:
            await self.shop.royalties.reconciliation.look()
        told = [line for line in lines if line["event"] == "books_differ"]
        assert f"books_differ {len(told)}.0".encode() in (await self.world.client.get("/metrics")).content
        return [(line["account"], line["core_units"], line["book_units"]) for line in told]

    async def audited(self, account):
        query = "SELECT new_values FROM kernel.audit_entry WHERE action = 'books.differ' AND resource_id = $1"
        return len(await self.world.sql(query, account))

    async def sale(self, price="10"):
        """Seller, offer, and work, of which one was bought of a buyer's balance."""
        seller, _, work, _, offer = await self.shop.seller(price)
        await self.sell(offer)
        return seller, offer, work

    async def sell(self, offer):
        _, buyer = await self.shop.buyer(offer["price"])
        await self.shop.buy(buyer, offer, "balance")
        await self.shop.finish()
        await self.project()


@pytest_asyncio.fixture
async def books(api_dsn):
    async with shop_over(api_dsn) as shop:
        await shop.world.sql(
            "TRUNCATE exchange.projection, exchange.asset, exchange.market, exchange.account, exchange.balance,"
            " exchange.posting, royalties.entry, royalties.daily, royalties.work_income, royalties.maturing,"
            " royalties.owed, royalties.cover, royalties.set_aside, royalties.run, royalties.statement,"
            " royalties.difference, royalties.gathering, royalties.revenue_event, money.command,"
            " jobs.pgqueuer CASCADE"
        )
        books = Books(shop)
        await books.project()
        yield books
        await books.projector.close()


@contextmanager
def compared_at_each_command(books, projected):
    """Before and after each command that moves money, of which looks this part is projected; the looks."""
    real, chance, looks = books.core.submit, random.Random(1), []

    async def look():
        if chance.random() < projected:
            await books.project()
        assert await books.differences() == [], f"after {len(books.core.commands)} commands"
        looks.append(1)

    async def submit(command):
        if command["op"] not in MONEY_MOVES:
            return await real(command)
        await look()
        try:
            return await real(command)
        finally:
            await look()

    books.core.submit = submit
    yield looks
    books.core.submit = real


async def sold_by_many(books, last):
    """A work with so many payees that its refund is gathered, `last` behind all others; seller's bearer, offer."""
    shop = books.shop
    seller, bearer, work, _, offer = await shop.seller("100", "Quill")
    payees = [UUID(int=number) for number in range(1, PAYEES)]
    for payee in payees:
        await books.world.sql("INSERT INTO identity.account (id) VALUES ($1) ON CONFLICT DO NOTHING", payee)
    async with books.world.kernel.database.transaction() as db:
        await royalty_queries.insert_rule(
            db, uuid4(), UUID(work["id"]), "content_purchase", datetime.now(UTC) - timedelta(minutes=1), "effective",
            UUID(seller), [(payee, "collaborator", 10_000 // PAYEES) for payee in [*payees, UUID(last)]],
        )  # fmt: skip
    return bearer, offer


@pytest.mark.parametrize("projected", [1.0, 0.4, 0.05])
async def test_money_on_its_way_is_no_difference_at_any_command(books, projected, monkeypatch):
    """Sales, debts, gathered refunds and fees that go back, with answers that are lost."""
    shop, world = books.shop, books.world
    await books.fund()
    staff = await shop.staff()
    seller, seller_bearer, derived, _, offer = await shop.seller()
    async with world.kernel.database.transaction() as db:
        for name in ("Nib", "Vellum"):  # two works that it was made from: each gets its share, one after the other
            _, _, above, *_ = await shop.seller(name=name)
            await shop.royalties.earnings.bind(db, uuid4(), UUID(derived["id"]), UUID(above["id"]), 1_000)
    payee, payee_bearer = await shop.buyer()
    many_bearer, many = await sold_by_many(books, payee)
    with compared_at_each_command(books, projected) as looks:
        _, rich = await shop.buyer("200")
        books.core.lose.extend(["answer", "none", "answer"])
        await shop.buy(rich, offer, "balance")
        await shop.finish()
        _, bearer = await shop.buyer()
        sold = await shop.buy(bearer, offer)
        await shop.pay(sold["intent"])
        await shop.finish()
        await shop.post("/v1/payouts", seller_bearer, {"asset": "USDC"})
        await books.project()
        books.core.lose.extend(["answer", "none", "answer"])
        await shop.post(f"/v1/purchases/{sold['id']}/refund", staff, {"reason": "Torn."})
        await shop.finish()
        assert shop.owed(seller) < 0 < shop.units("platform:cover")

        given = []
        for method in ("provider", "balance"):
            _, bearer = await shop.buyer("100")
            given.append(await shop.buy(bearer, many, method))
            if method == "provider":
                await shop.pay(given[-1]["intent"])
            await shop.finish()
        await books.project()
        books.core.lose.extend(["answer", "request", "none", "answer"])
        await shop.post(f"/v1/purchases/{given[0]['id']}/refund", staff, {"reason": "Torn."})
        await shop.finish()
        await shop.post("/v1/payouts", payee_bearer, {"asset": "USDC"})
        monkeypatch.setattr(shop.royalties.entries, "hold", timedelta(days=7))
        await shop.post(f"/v1/purchases/{given[1]['id']}/refund", many_bearer, {"reason": "Torn."})
        await shop.finish()  # the last payee has nothing any more: what was gathered goes back
        states = await world.sql("SELECT status FROM payments.refund ORDER BY created_at DESC LIMIT 2")
        assert [row["status"] for row in states] == ["failed", "succeeded"]

        work, parties, (top,) = await chain(world, 1)
        owner = parties[1][1]
        buyer_id, buyer = await studio(world, "100")
        waits = await issued(world, owner, work, buyer_id, parent_license_id=top["id"], base_fee="10", duration="P10D")
        books.core.lose.append("request")
        await world.data("POST", f"/v1/licenses/{waits['id']}/pay", headers=keyed(buyer))
        books.core.lose.clear()
        body = {"reason": "A mistake."}
        await world.data("POST", f"/v1/licenses/{waits['id']}/revoke", headers=keyed(owner), json=body)
        await shop.finish()
        assert (await licence(world, buyer, waits["id"]))["status"] == "revoked"
        assert shop.units(f"user:{buyer_id}") == 100 * USDC
    assert len(looks) > 40
    await books.project()
    assert await books.look() == []


async def test_posting_without_a_command_is_told_until_it_is_taken_back(books):
    seller, offer, work = await books.sale()
    pay, passing = pay_account(UUID(seller)), work_account(UUID(work["id"]))
    books.core.send(op="account", account="platform:cover", overdraft="never")
    for account in (pay, passing, "platform:cover"):
        books.move("platform:revenue", account, "0.4")
    assert await books.look() == [], "what is not projected is not known"
    await books.project()
    wrong = [(pay, 9_400_000, 9 * USDC), ("platform:cover", 400_000, 0), (passing, 400_000, 0)]
    assert await books.look() == wrong
    await books.sell(offer)
    wrong[0] = (pay, 18_400_000, 18 * USDC)
    assert await books.look() == wrong
    assert [await books.audited(account) for account, _, _ in wrong] == [1, 1, 1], "once, however the sums move on"
    staff = await books.shop.staff()
    month = f"{datetime.now(UTC).replace(day=1) - timedelta(days=1):%Y-%m}"
    runs = "/v1/admin/royalties/runs"
    await books.world.data("POST", runs, headers=staff, json={"period": month})
    with capture_logs() as lines:
        await books.shop.finish()
    assert [line["accounts"] for line in lines if line["event"] == "month_not_closed"] == [1]
    run = await books.shop.get(f"{runs}/{month}", staff)
    assert (run["state"], run["reason"], run["closed_at"]) == ("refused", "books_differ", None)
    books.move(pay, "platform:revenue", "0.4")
    await books.project()
    await books.shop.close_month(staff, month)  # what is of no payee is in no statement
    assert await books.look() == wrong[1:]
    for account in ("platform:cover", passing):
        books.move(account, "platform:revenue", "0.4")
    await books.project()
    assert await books.look() == []


async def test_command_that_the_core_never_ran_is_told(books):
    """Its answer was made up: the work's money was never divided, and the payee has an entry of it."""
    real = books.core.submit

    async def submit(command):
        if command.get("ref", "").startswith("dist:"):
            return {"event": "transferred", "sequence": books.core.head_sequence}
        return await real(command)

    books.core.submit = submit
    seller, _, work = await books.sale()
    wrong = [(pay_account(UUID(seller)), 0, 9 * USDC), (work_account(UUID(work["id"])), 10 * USDC, 0)]
    assert await books.look() == wrong


async def test_command_that_ran_and_has_no_entry_is_told(books):
    seller, *_ = await books.sale()
    await books.world.sql("UPDATE royalties.owed SET units = 0 WHERE account_id = $1", UUID(seller))
    assert await books.look() == [(pay_account(UUID(seller)), 9 * USDC, 0)]
    await books.world.sql("DELETE FROM royalties.owed WHERE account_id = $1", UUID(seller))
    assert await books.look() == [(pay_account(UUID(seller)), 9 * USDC, 0)]


async def test_command_that_ran_with_another_amount_is_told(books):
    real = books.core.submit

    async def submit(command):
        if command.get("ref", "").startswith("dist:"):
            legs = [leg | {"amount": "8.5"} if "shares" in leg else leg for leg in command["legs"]]
            command = command | {"legs": legs}
        return await real(command)

    books.core.submit = submit
    seller, _, work = await books.sale()
    wrong = [(pay_account(UUID(seller)), 8_500_000, 9 * USDC), (work_account(UUID(work["id"])), 500_000, 0)]
    assert await books.look() == wrong


async def test_ref_that_somebody_else_has_used_is_told(books):
    """The command is stuck: what was posted under its ref is not what it wanted."""
    real = books.core.submit

    async def submit(command):
        if command.get("ref", "").startswith("dist:") and command["op"] == "transfer":
            pay = next(share["to"] for leg in command["legs"] for share in leg.get("shares", ()))
            leg = {"from": "platform:revenue", "asset": "USDC", "amount": "0.3", "to": pay}
            books.core.send(op="transfer", legs=[leg], ref=command["ref"], force=True)
        return await real(command)

    books.core.send(op="account", account="platform:revenue", overdraft="forced")
    books.core.submit = submit
    seller, _, work = await books.sale()
    wrong = [(pay_account(UUID(seller)), 300_000, 0), (work_account(UUID(work["id"])), 10 * USDC, 0)]
    assert await books.look() == wrong


async def test_sale_whose_commands_had_run_before_a_restore_is_finished_by_decisions(books):
    """Each is stuck, for its copy of before has another end of its time; what the core shows is just what it wanted."""
    _, bearer, _, _, offer = await books.shop.seller("10")
    _, buyer = await books.shop.buyer("10")
    real = books.core.submit

    async def submit(command):
        if command["op"] == "transfer":
            books.core.send(**command | {"not_after": command["not_after"] - 1})
        return await real(command)

    books.core.submit = submit
    purchase = await books.shop.buy(buyer, offer, "balance")
    decided = []
    for _ in range(5):
        await books.shop.finish()
        await books.project()
        stuck = await books.world.sql("SELECT ref, kind FROM money.command WHERE state = 'stuck'")
        for row in stuck:
            decided.append(row["kind"])
            await money_tools._resolve(books.world.dsn, row["ref"], "posted", "restored from a copy", core_at=0)
    assert decided == ["purchase", "distribution"] and purchase["status"] == "pending"
    assert (await books.shop.get(f"/v1/purchases/{purchase['id']}", buyer))["status"] == "completed"
    (balance,) = await books.shop.get("/v1/royalties/balance", bearer)
    assert balance["payable"] == "9" and await books.look() == []


async def test_projection_that_is_far_behind_is_not_compared(books, monkeypatch):
    seller, *_ = await books.sale()
    books.move("platform:revenue", pay_account(UUID(seller)), "0.4")
    await books.project()
    assert len(await books.look()) == 1
    monkeypatch.setattr(reconciliation, "ON_THE_WAY_MAX", 1)
    await books.world.sql("UPDATE exchange.projection SET sequence = 0")
    with capture_logs() as lines:
        await books.shop.royalties.reconciliation.look()
    assert [line["event"] for line in lines] == ["books_not_compared"]
    assert b"books_differ 1.0" in (await books.world.client.get("/metrics")).content, "what was found stands"
    month = f"{datetime.now(UTC).replace(day=1) - timedelta(days=1):%Y-%m}"
    staff = await books.shop.staff()
    await books.world.data("POST", "/v1/admin/royalties/runs", headers=staff, json={"period": month})
    with pytest.raises(Unavailable):  # so the job waits
        await books.shop.royalties.closing._go_on(CloseMonth(month))
    run = f"/v1/admin/royalties/runs/{month}"
    assert (await books.shop.get(run, staff))["state"] == "open"
    monkeypatch.setattr(reconciliation, "ON_THE_WAY_MAX", 100)
    await books.shop.finish()
    assert (await books.shop.get(run, staff))["reason"] == "books_differ"
