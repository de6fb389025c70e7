"""A shop over the real core: works with offers, buyers with money, and the wish that everything be finished."""

from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec

from platform_api.ledger.commands import MoneyCommands, pay_account, work_account
from platform_api.payments.service import PaymentService
from platform_api.royalties.service import RoyaltyService
from tests.integration.platform_api.test_works import creator, published
from tests.support.api import opened
from tests.support.real_core import RealCore
from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = ["Shop", "own_money", "shop_over", "wrong_sums"]


@asynccontextmanager
async def shop_over(dsn, **values):
    core = RealCore()
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    settings = {"embedded": True, "test_payments": True, "royalty_hold_days": 0} | values
    async with opened(dsn, core=core, **settings) as world:
        await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
        yield Shop(world)
        assert await wrong_sums(world) == []


async def wrong_sums(world):
    """Rows of what is summed of entries that differ from the sums over all entries: (table, row), either one's."""
    tables, wrong = ("daily", "work_income", "maturing"), []
    async with world.kernel.database.connection() as db:
        undone = db.transaction()
        await undone.start()
        await db.execute("LOCK TABLE royalties.entry IN SHARE MODE")
        kept = [set(await db.fetch(f"SELECT * FROM royalties.{table}")) for table in tables]
        await db.execute("SELECT royalties.sum_again()")
        for table, before in zip(tables, kept, strict=True):
            wrong += [(table, row) for row in before ^ set(await db.fetch(f"SELECT * FROM royalties.{table}"))]
        await undone.rollback()
    return wrong


async def own_money(world, amount):
    """As the projection tells that the platform has it: no projector runs here."""
    await world.sql(
        "INSERT INTO exchange.account VALUES (901, 'platform:reserve', 'open', 'forced', NULL, 0, 0, 0, 0, '')"
        " ON CONFLICT DO NOTHING"
    )
    await world.sql(
        "INSERT INTO exchange.balance SELECT 901, id, $1, 0, 1 FROM exchange.asset WHERE name = 'USDC'"
        " ON CONFLICT (account_id, asset_id) DO UPDATE SET available = excluded.available",
        amount * 10**6,
    )


class Shop:
    def __init__(self, world):
        self.world, self.core = world, world.core
        self.wallets = {}
        self.payments = world.kernel.service(PaymentService)
        self.royalties = world.kernel.service(RoyaltyService)
        self.money = world.kernel.service(MoneyCommands)

    async def seller(self, price="10", name="Ink", **offer):
        """A published story with an offer: its maker's account and bearer, work, chapter, offer."""
        _, account, bearer = await creator(self.world, name)
        work, chapter = await published(self.world, bearer)
        body = {"kind": "purchase", "asset": "USDC", "price": price} | offer
        offered = await self.world.data("POST", f"/v1/works/{work['id']}/offers", headers=bearer, json=body)
        return account, bearer, work, chapter, offered

    async def buyer(self, money=None):
        """An account and its bearer, with that much money."""
        wallet = Wallet(0)
        session, bearer = await self.world.sign_in(wallet)
        self.wallets[bearer["authorization"]] = wallet
        if money is not None:
            intent = await self.post("/v1/payments/intents", bearer, {"asset": "USDC", "amount": money})
            await self.pay(intent)
            await self.finish()
        return session["account_id"], bearer

    async def step_up(self, bearer):
        """A fresh signature of that buyer's, for one act that needs one."""
        await self.world.step_up(self.wallets[bearer["authorization"]], bearer)

    async def staff(self):
        """The bearer of an admin, who may refund whatever was sold."""
        account, bearer = await self.buyer()
        await self.world.grant(account, "admin")
        return bearer

    async def post(self, path, bearer, body, key=None):
        headers = bearer | {"idempotency-key": key or uuid4().hex}
        return await self.world.data("POST", path, headers=headers, json=body)

    async def get(self, path, bearer):
        return await self.world.data("GET", path, headers=bearer)

    async def refused(self, status, code, reason, path, bearer, body, key=None):
        headers = bearer | {"idempotency-key": key or uuid4().hex}
        return await self.world.refused(status, code, reason, "POST", path, headers=headers, json=body)

    async def buy(self, bearer, offer, method="provider", key=None):
        return await self.post("/v1/purchases", bearer, {"offer_id": offer["id"], "method": method}, key)

    async def pay(self, intent, card="ok"):
        body = {"intent": intent["provider_ref"], "client_secret": intent["client_secret"], "card": card}
        return await self.world.data("POST", "/v1/test-provider/payments", json=body)

    async def event(self, intent, status="succeeded", at=None, **changes):
        """An event of the provider, signed, as its answer."""
        body = {
            "id": f"evt_{uuid4().hex}", "intent": intent["provider_ref"], "status": status, "asset": intent["asset"],
            "amount": intent["amount"], "payment": f"py_{uuid4().hex[:24]}" if status == "succeeded" else None,
            "reason": None,
        } | changes  # fmt: skip
        content = msgspec.json.encode(body)
        headers = self.payments.test.sign(content, at)
        return await self.world.client.post("/v1/webhooks/payments/test", headers=headers, content=content)

    async def finish(self):
        """Everything that waits has happened: events, jobs, and commands whose answer was lost."""
        for _ in range(100):
            await self.world.settle()
            rows = await self.world.sql(
                "SELECT ref FROM money.command WHERE state IN ('ordered', 'closing', 'posting', 'voiding')"
            )
            if not rows:
                break
            for row in rows:
                await self.money.settle(row["ref"])
        else:
            raise AssertionError("commands stay open")
        await self.world.settle()

    async def close_month(self, staff, period):
        """Has it closed, and done with everything that follows; the run."""
        runs = "/v1/admin/royalties/runs"
        await self.world.data("POST", runs, headers=staff, json={"period": period})
        await self.finish()
        run = await self.get(f"{runs}/{period}", staff)
        assert run["state"] == "closed" and run["payees_done"] == run["payees"], run
        return run

    def units(self, account):
        """Free and held together; 0 for one that the core does not know."""
        return sum(self.parts(account))

    def parts(self, account):
        if self.core.directory.account(account) is None:
            return 0, 0
        return self.core.balance(account, "USDC")

    def owed(self, account_id):
        return self.units(pay_account(account_id))

    def passing(self, work):
        return self.units(work_account(work["id"]))

    def sum_is_zero(self):
        return sum(int(row["available"]) + int(row["held"]) for row in self.core.core.balances()) == 0
