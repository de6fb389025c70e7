"""What an account has, had and moved, over HTTP, a real PostgreSQL, the real core and its projector; estimates."""

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest_asyncio

from persistence.stores.postgres.projector import Projector
from platform_api.exchange.service import ExchangeService
from tests.integration.platform_api.test_plans import _Recorded, plan_faults
from tests.support.api import opened
from tests.support.real_core import RealCore


class Bourse:
    """Two markets and traders with money; the projection is brought up to date by `project`."""

    def __init__(self, world, projector):
        self.world, self.core, self.projector = world, world.core, projector

    async def project(self):
        while await self.projector.step():
            pass

    async def trader(self, **money):
        session, bearer = await self.world.sign_in()
        for asset, amount in money.items():
            answer = self.core.send(op="deposit", account=session["account"], asset=asset, amount=amount,
                                    ref=f"dep:{uuid4().hex}", code="deposit", memo="a memo")  # fmt: skip
            assert answer["event"] == "transferred", answer
        return session, bearer

    def order(self, session, side, size, price, market="INK-USDC"):
        answer = self.core.send(op="place", account=session["account"], client_id=uuid4().hex[:32], market=market,
                                side=side, type="limit", size=size, price=price)  # fmt: skip
        assert answer["event"] == "accepted", answer

    async def get(self, path, bearer):
        return await self.world.data("GET", path, headers=bearer)

    async def all(self, path, bearer, limit):
        """Every page; and each is as long as it was asked for but the last."""
        found, cursor = [], None
        while True:
            query = f"{path}{'&' if '?' in path else '?'}limit={limit}" + (f"&cursor={cursor}" if cursor else "")
            answer = (await self.world.client.get(query, headers=bearer)).json()
            found += answer["data"]
            cursor = answer["pagination"]["next_cursor"]
            if cursor is None:
                return found
            assert len(answer["data"]) == limit


@pytest_asyncio.fixture
async def bourse(api_dsn):
    core = RealCore(time.time_ns())
    for asset in ("USDC", "INK", "REEL"):
        core.send(op="asset", asset=asset, scale=6, settled=True)
    for market in ("INK-USDC", "REEL-USDC"):
        base = market.partition("-")[0]
        core.send(op="market", market=market, base=base, quote="USDC", tick="0.01", lot="0.1", taker_ppm=5000,
                  maker_ppm=3000)  # fmt: skip
    async with opened(api_dsn, core=core) as world:
        projector = Projector(core, api_dsn, journal=uuid4().bytes)
        await projector.step()
        yield Bourse(world, projector)
        await projector.close()


def sums(movements):
    """Asset to the sum of everything that was told of an account."""
    found = {}
    for movement in movements:
        for asset, amount in movement["changes"]:
            key = movement["account"], asset
            found[key] = found.get(key, Decimal(0)) + Decimal(amount)
    return {key: total for key, total in found.items() if total}


async def test_movements_are_all_there_is_and_add_up_to_the_balance(bourse):
    buyer, bought = await bourse.trader(USDC="1000")
    seller, sold = await bourse.trader(INK="50")
    bourse.order(seller, "sell", "10", "2")
    bourse.order(buyer, "buy", "4", "2")
    bourse.order(buyer, "buy", "1.5", "2.5")
    bourse.order(buyer, "sell", "3", "3")
    bourse.order(buyer, "buy", "1", "2")
    pay = f"pay:{buyer['account_id']}"
    bourse.core.send(op="account", account=pay, overdraft="forced")
    legs = [{"from": seller["account"], "asset": "INK", "amount": "5", "to": buyer["account"]},
            {"from": seller["account"], "asset": "USDC", "amount": "1", "to": pay}]  # fmt: skip
    assert bourse.core.send(op="transfer", ref=uuid4().hex, legs=legs)["event"] == "transferred"
    payout = [{"from": pay, "asset": "USDC", "amount": "0.4", "to": buyer["account"]}]
    bourse.core.send(op="transfer", ref="payout:1", legs=payout, code="payout")
    held = [{"from": buyer["account"], "asset": "USDC", "amount": "7", "to": seller["account"]}]
    bourse.core.send(op="transfer", ref="held", legs=held, pending=True)
    await bourse.project()
    before = await bourse.all("/v1/transactions", bought, 200)
    assert "held" not in [movement.get("ref") for movement in before], "what is held has not moved"
    bourse.core.send(op="post", ref="held")
    await bourse.project()
    for bearer, session in ((bought, buyer), (sold, seller)):
        movements = await bourse.all("/v1/transactions", bearer, 200)
        for limit in (1, 2, 3):
            assert await bourse.all("/v1/transactions", bearer, limit) == movements
        places = [movement["sequence"] for movement in movements]
        assert places == sorted(places, reverse=True)
        balances = await bourse.get("/v1/users/me/balances", bearer)
        wanted = {("trading", row["asset"]): Decimal(row["total"]) for row in balances if Decimal(row["total"])}
        if session is buyer:
            wanted["payable", "USDC"] = Decimal("0.6")
        assert sums(movements) == wanted
    movements = await bourse.all("/v1/transactions", bought, 200)
    kinds = [(movement["kind"], movement["account"]) for movement in movements]
    assert kinds == [
        ("transfer", "trading"), ("payout", "trading"), ("payout", "payable"), ("transfer", "payable"),
        ("transfer", "trading"), ("trade", "trading"), ("trade", "trading"), ("trade", "trading"),
        ("deposit", "trading"),
    ]  # fmt: skip
    trade = movements[-2]
    assert (trade["side"], trade["size"], trade["price"], trade["fee"]) == ("buy", "4", "2", "0.04")
    assert trade["changes"] == [["INK", "4"], ["USDC", "-8.04"]]
    only = await bourse.all("/v1/transactions?asset=INK", bought, 2)
    assert {asset for movement in only for asset, _ in movement["changes"]} == {"INK", "USDC"}
    assert len(only) == 4 and only[0]["changes"] == [["INK", "5"]]
    deposits = await bourse.all("/v1/deposits", bought, 1)
    assert [(row["asset"], row["amount"], row["place"]) for row in deposits] == [("USDC", "1000", "system:external")]


async def test_a_trade_with_oneself_is_told_from_both_sides_on_any_page(bourse):
    trader, bearer = await bourse.trader(USDC="100", INK="10")
    bourse.order(trader, "sell", "1", "2")
    answer = bourse.core.send(op="place", account=trader["account"], client_id="self", market="INK-USDC", side="buy",
                              type="limit", size="1", price="2", stp="none")  # fmt: skip
    assert answer["event"] == "accepted"
    await bourse.project()
    movements = await bourse.all("/v1/transactions", bearer, 1)
    assert [movement.get("side") for movement in movements] == ["buy", "sell", None, None]
    assert sums(movements) == {("trading", "USDC"): Decimal("99.984"), ("trading", "INK"): Decimal(10)}


async def test_history_is_the_balance_at_the_end_of_each_day(bourse):
    buyer, bearer = await bourse.trader(USDC="100")
    seller, _ = await bourse.trader(INK="10")
    bourse.order(seller, "sell", "5", "2")
    bourse.order(buyer, "buy", "5", "2")
    await bourse.project()
    old = datetime.now(UTC) - timedelta(days=2)
    await bourse.world.sql("UPDATE exchange.posting SET posted_at = $1 WHERE ref LIKE 'dep:%'", old)
    history = await bourse.get("/v1/users/me/balance-history?asset=USDC&days=4", bearer)
    assert [day["total"] for day in history] == ["89.95", "100", "100", "0"]
    assert history[0]["date"] == datetime.now(UTC).date().isoformat()
    history = await bourse.get("/v1/users/me/balance-history?asset=INK&days=3", bearer)
    assert [day["total"] for day in history] == ["5", "0", "0"]
    path = "/v1/users/me/balance-history"
    await bourse.world.refused(400, "VALIDATION_ERROR", "unknown_asset", "GET", f"{path}?asset=NONE", headers=bearer)
    for query in ("", "?asset=USDC&days=0", "?asset=USDC&days=367", "?asset=%00"):
        assert (await bourse.world.client.get(path + query, headers=bearer)).status_code == 400, query


async def test_portfolio_has_average_costs_and_what_was_gained(bourse):
    buyer, bearer = await bourse.trader(USDC="100")
    maker, _ = await bourse.trader(INK="20", USDC="100")
    bourse.order(maker, "sell", "4", "2")
    bourse.order(buyer, "buy", "4", "2")
    bourse.order(maker, "sell", "4", "4")
    bourse.order(buyer, "buy", "4", "4")
    bourse.order(maker, "buy", "2", "5")
    bourse.order(buyer, "sell", "2", "5")
    await bourse.project()
    found = await bourse.get("/v1/users/me/portfolio", bearer)
    (position,) = found["positions"]
    # Paid 8.04 + 16.08 = 24.12 for 8: 6 of them cost 18.09; two sold for 10 - 0.05, which had cost 6.03.
    assert position == {
        "asset": "INK", "market": "INK-USDC", "quote_asset": "USDC", "quantity": "6", "bought": "8", "sold": "2",
        "last_price": "5", "value": "30", "cost": "18.09", "unrealised": "11.91", "realised": "3.92",
    }  # fmt: skip
    assert found["cash"] == [["USDC", "85.83"]] and found["totals"] == [["USDC", "115.83"]]
    _, nobody = await bourse.trader()
    assert await bourse.get("/v1/users/me/portfolio", nobody) == {"cash": [], "positions": [], "totals": []}


async def test_all_own_orders_are_cancelled_and_nobody_elses(bourse):
    trader, bearer = await bourse.trader(USDC="100")
    other, others = await bourse.trader(USDC="100")
    for market in ("INK-USDC", "REEL-USDC"):
        bourse.order(trader, "buy", "1", "1", market)
    bourse.order(other, "buy", "1", "1")
    done = await bourse.world.data("DELETE", "/v1/orders?token_id=REEL", headers=bearer)
    assert done["market"] == "REEL-USDC"
    await bourse.project()
    live = await bourse.get("/v1/orders?status=live", bearer)
    assert [order["market"] for order in live] == ["INK-USDC"]
    await bourse.world.data("DELETE", "/v1/orders", headers=bearer)
    await bourse.project()
    assert await bourse.get("/v1/orders?status=live", bearer) == []
    assert len(await bourse.get("/v1/orders?status=live", others)) == 1
    await bourse.world.refused(404, "NOT_FOUND", "unknown_market", "DELETE", "/v1/orders?token_id=NONE", headers=bearer)


async def test_estimate_is_what_the_core_then_does(bourse):
    maker, _ = await bourse.trader(INK="100")
    for size, price in (("1", "2"), ("2.5", "2.03"), ("4", "2.5")):
        bourse.order(maker, "sell", size, price)
    await bourse.project()

    class Copy:
        async def depth(self, market, depth):
            return {"sequence": 9, "bids": [], "asks": [["2", "1"], ["2.03", "2.5"], ["2.5", "4"]][:depth]}

    bourse.world.kernel.service(ExchangeService)._book = Copy()
    path = "/v1/orders/estimate"
    body = {"market": "INK", "side": "buy", "size": "3"}
    found = await bourse.world.data("POST", path, json=body)
    # 2 + 2 x 2.03 = 6.06, and 5,000 ppm of it.
    assert found == {
        "market": "INK-USDC", "side": "buy", "size": "3", "complete": True, "best_price": "2", "average_price": "2.02",
        "worst_price": "2.03", "slippage_ppm": 10_000, "notional": "6.06", "fee": "0.0303", "total": "6.0903",
        "sequence": 9,
    }  # fmt: skip
    limited = await bourse.world.data("POST", path, json=body | {"price": "2"})
    assert (limited["size"], limited["complete"], limited["worst_price"]) == ("1", False, "2")
    nothing = await bourse.world.data("POST", path, json=body | {"side": "sell"})
    assert (nothing["size"], nothing["average_price"], nothing["total"]) == ("0", None, "0")
    spent = await bourse.world.data("POST", path, json={"market": "INK", "side": "buy", "budget": "9.3"})
    buyer, _ = await bourse.trader(USDC="9.3")
    answer = bourse.core.send(op="place", account=buyer["account"], client_id="c", market="INK-USDC", side="buy",
                              type="market", budget="9.3")  # fmt: skip
    assert answer["event"] == "accepted"
    units = bourse.core.balance(buyer["account"], "INK")[0], bourse.core.balance(buyer["account"], "USDC")[0]
    assert units == (Decimal(spent["size"]) * 10**6, (Decimal("9.3") - Decimal(spent["total"])) * 10**6)
    for wrong, reason in (
        ({"size": "0.05"}, "bad_size"), ({"size": "0"}, "bad_size"), ({"size": "1", "budget": "1"}, "bad_size"),
        ({"size": "1", "price": "2.001"}, "bad_price"), ({"budget": "1", "side": "sell"}, "bad_size"), ({}, "bad_size"),
    ):  # fmt: skip
        asked = {"market": "INK", "side": "buy"} | wrong
        await bourse.world.refused(400, "VALIDATION_ERROR", reason, "POST", path, json=asked)
    await bourse.world.refused(404, "NOT_FOUND", "unknown_market", "POST", path, json=body | {"market": "NONE"})
    rates = await bourse.world.data("GET", "/v1/fee-schedule")
    assert rates == [{"market": name, "taker_ppm": 5000, "maker_ppm": 3000} for name in ("INK-USDC", "REEL-USDC")]


async def test_no_statement_of_accounts_reads_a_whole_table(bourse):
    buyer, bearer = await bourse.trader(USDC="100", INK="5")
    maker, _ = await bourse.trader(INK="20")
    bourse.order(maker, "sell", "4", "2")
    bourse.order(buyer, "buy", "4", "2")
    await bourse.project()
    seen = {}
    connection = bourse.world.kernel.database.connection
    bourse.world.kernel.database.connection = lambda: _Recorded(connection(), seen)
    for path in ("/v1/transactions?limit=1", "/v1/transactions?asset=INK", "/v1/deposits", "/v1/users/me/portfolio",
                 "/v1/users/me/balance-history?asset=USDC"):  # fmt: skip
        await bourse.get(path, bearer)
    bourse.world.kernel.database.connection = connection
    statements = {query: arguments for query, arguments in seen.items() if "exchange." in query}
    assert len(statements) >= 6
    assert await plan_faults(bourse.world, statements, small={"market", "asset"}) == []
