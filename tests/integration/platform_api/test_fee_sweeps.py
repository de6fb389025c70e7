"""Trade fees on their way to the platform's revenue: a real PostgreSQL, the real core, real trades, the projector."""

import asyncio
from datetime import date, timedelta

import pytest_asyncio
from structlog.testing import capture_logs

from platform_api.royalties import sweep_queries
from tests.integration.platform_api import test_reconciliation

books = test_reconciliation.books


class Floor:
    """Trades of 10 USDC, of which the taker pays 5,000 ppm and nobody else; days come when they are told to."""

    def __init__(self, books, monkeypatch):
        self.books, self.core, self.day, self._trades = books, books.core, date(2026, 3, 1), 0
        self.sweeps = books.shop.royalties.fee_sweeps

        async def today(_):
            return self.day

        monkeypatch.setattr(sweep_queries, "today", today)

    async def begin(self):
        self.core.send(op="asset", asset="INK", scale=2, settled=True)
        self.core.send(op="market", market="INK-USDC", base="INK", quote="USDC", tick="0.01", lot="0.01",
                       taker_ppm=5_000, maker_ppm=0)  # fmt: skip
        for account, asset in (("user:seller", "INK"), ("user:buyer", "USDC")):
            self.core.send(op="account", account=account)
            self.core.send(op="deposit", account=account, asset=asset, amount="1000", ref=f"of:{account}")
        await self.books.world.sql("TRUNCATE money.fee_sweep, exchange.orders, exchange.trade CASCADE")
        return self

    async def trade(self, *, projected=True):
        self._trades += 1
        for account, side in (("user:seller", "sell"), ("user:buyer", "buy")):
            answer = self.core.send(op="place", market="INK-USDC", type="limit", price="10", size="1", side=side,
                                    account=account, client_id=f"{side}{self._trades}")  # fmt: skip
            assert answer["event"] == "accepted", answer
        if projected:
            await self.books.project()

    async def finish(self):
        await self.books.shop.finish()

    def next_day(self):
        self.day += timedelta(days=1)

    def moved(self):
        """What is left in `system:fees`, and what revenue has; in thousandths of USDC."""
        return tuple(self.books.shop.units(name) // 1_000 for name in ("system:fees", "platform:revenue"))

    async def refs(self):
        return [row["ref"] for row in await self.books.world.sql("SELECT ref FROM money.command WHERE kind = 'fees'"
                                                                 " ORDER BY ref")]  # fmt: skip


@pytest_asyncio.fixture
async def floor(books, monkeypatch):
    return await Floor(books, monkeypatch).begin()


async def test_fees_of_a_day_are_revenue_once_whatever_is_lost_on_the_way(floor):
    await floor.sweeps.look()
    assert await floor.refs() == []  # nothing to sweep
    for days, lost in enumerate(("none", "request", "answer"), 1):
        await floor.trade()
        floor.core.lose.append(lost)
        for _ in range(2):  # a job that was killed behind the first runs again
            await floor.sweeps.look()
        assert floor.moved() == (50, 50 * (days - 1))  # written, and not sent
        assert await floor.books.differences() == []
        await floor.finish()
        assert floor.moved() == (0, 50 * days) and floor.books.shop.sum_is_zero()
        assert await floor.books.differences() == []
        await floor.books.project()
        assert await floor.books.differences() == []
        await floor.sweeps.look()  # the day has had its own
        floor.next_day()
    assert await floor.refs() == ["fees:2026-03-01", "fees:2026-03-02", "fees:2026-03-03"] and not floor.core.lose


async def test_units_that_a_sweep_has_moved_are_not_moved_again(floor):
    """The projection is what tells how much there is, and it may be behind."""
    await floor.trade()
    await floor.sweeps.look()
    floor.next_day()
    await floor.sweeps.look()  # the one before is not answered
    await floor.finish()
    await floor.trade(projected=False)
    await floor.sweeps.look()  # … and now not projected
    await floor.finish()
    assert floor.moved() == (50, 50) and await floor.refs() == ["fees:2026-03-01"]
    await floor.books.project()
    await floor.sweeps.look()
    await floor.finish()
    assert floor.moved() == (0, 100) and await floor.refs() == ["fees:2026-03-01", "fees:2026-03-02"]


async def test_two_who_look_at_once_order_one(floor):
    await floor.trade()
    await asyncio.gather(*(floor.sweeps.look() for _ in range(4)))
    await floor.finish()
    assert floor.moved() == (0, 50) and len(await floor.refs()) == 1


async def test_sweep_that_the_core_refuses_is_told_and_the_next_takes_all(floor):
    await floor.trade()
    floor.core.send(op="void", ref="fees:2026-03-01", not_after=floor.core.now_ns + 10**15)  # by somebody else
    await floor.sweeps.look()
    with capture_logs() as lines:
        await floor.finish()
    assert [line["ref"] for line in lines if line["event"] == "fees_not_swept"] == ["fees:2026-03-01"]
    await floor.books.project()
    assert floor.moved() == (50, 0) and await floor.books.differences() == []
    floor.next_day()
    await floor.trade()
    await floor.sweeps.look()
    await floor.finish()
    assert floor.moved() == (0, 100)


async def test_sweep_of_another_sum_than_the_core_has_moved_is_told(floor):
    await floor.trade()
    await floor.sweeps.look()
    await floor.finish()
    await floor.books.project()
    await floor.books.world.sql("UPDATE money.fee_sweep SET units = units + 1")
    assert await floor.books.look() == [("system:fees", 50_000, 50_001)]


async def test_nothing_is_swept_while_the_cover_differs(floor):
    await floor.books.fund()
    floor.core.send(op="account", account="platform:cover")
    floor.books.move("platform:reserve", "platform:cover", "1")
    await floor.trade()
    assert await floor.books.look() == [("platform:cover", 1_000_000, 0)]
    await floor.sweeps.look()
    assert await floor.refs() == []
    floor.books.move("platform:cover", "platform:reserve", "1")
    await floor.books.project()
    assert await floor.books.look() == []
    await floor.sweeps.look()
    await floor.finish()
    assert floor.moved() == (0, 50)
