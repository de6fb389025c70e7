"""What works count: visitors once a day, and ratings of those who bought them."""

import asyncio
from datetime import timedelta

import pytest
import pytest_asyncio

from engine.messages.errors import Unavailable
from platform_api.works import views as views_module
from platform_api.works.service import WorkService
from platform_api.works.views import forget_views
from tests.support.sales import shop_over


@pytest_asyncio.fixture
async def shop(api_dsn):
    async with shop_over(api_dsn) as shop:
        yield shop


async def work_of(shop, work, bearer=None):
    return await shop.world.data("GET", f"/v1/works/{work['id']}", headers=bearer or {})


async def test_visitor_counts_once_a_day_however_often_and_makers_never(shop):
    _, seller, work, _, _ = await shop.seller()
    _, reader = await shop.buyer()
    views = shop.world.kernel.service(WorkService).views
    for bearer in (None, reader, seller):
        for _ in range(3):
            assert (await work_of(shop, work, bearer))["view_count"] == 0
    rows = "SELECT day, visitor FROM works.work_view WHERE work_id = $1::text::uuid"
    assert await shop.world.sql(rows, work["id"]) == []  # no request wrote anything
    await views.flush()
    assert (await work_of(shop, work, seller))["view_count"] == 2
    await work_of(shop, work, reader)
    await views.flush()
    assert (await work_of(shop, work, seller))["view_count"] == 2 and len(await shop.world.sql(rows, work["id"])) == 2
    version = (await work_of(shop, work, seller))["version"]
    assert version == work["version"]  # nothing that an editor must see

    await shop.world.sql("UPDATE works.work_view SET day = day - 1 WHERE work_id = $1::text::uuid", work["id"])
    await work_of(shop, work, reader)
    await views.flush()
    assert (await work_of(shop, work, seller))["view_count"] == 3
    await shop.world.sql("UPDATE works.work_view SET day = day - 2 WHERE work_id = $1::text::uuid", work["id"])
    await forget_views(shop.world.kernel)
    assert await shop.world.sql(rows, work["id"]) == []
    await views.flush()


async def test_views_are_bounded_and_wait_for_a_database_that_is_away(shop, monkeypatch):
    _, _, work, _, _ = await shop.seller()
    readers = [(await shop.buyer())[1] for _ in range(3)]
    views = shop.world.kernel.service(WorkService).views
    monkeypatch.setattr(views_module, "SEEN_MAX", 2)
    for reader in readers:
        await work_of(shop, work, reader)

    class Away:
        def transaction(self):
            raise Unavailable("away")

    database, views._database = views._database, Away()
    with pytest.raises(Unavailable):
        await views.flush()
    views._database = database
    await asyncio.gather(views.flush(), views.flush())
    assert (await work_of(shop, work))["view_count"] == 2


def test_a_visit_waits_for_a_minute_at_most():
    assert timedelta(seconds=views_module.FLUSH_SECONDS) <= timedelta(minutes=1)


async def test_who_bought_a_work_rates_it_once(shop):
    _, seller, work, _, offer = await shop.seller("1")
    bearers = []
    for _ in range(3):
        _, bearer = await shop.buyer("5")
        await shop.buy(bearer, offer, "balance")
        bearers.append(bearer)
    await shop.finish()
    path = f"/v1/works/{work['id']}/rating"

    async def rate(bearer, stars):
        found = await shop.world.data("PUT", path, headers=bearer, json={"stars": stars})
        return found["rating"], found["rating_count"]

    assert ((await work_of(shop, work))["rating"], (await work_of(shop, work))["rating_count"]) == (None, 0)
    assert await rate(bearers[0], 5) == ("5.00", 1)
    assert await rate(bearers[0], 4) == ("4.00", 1)  # in the place of the first
    assert await rate(bearers[1], 5) == ("4.50", 2)
    assert await rate(bearers[2], 5) == ("4.67", 3)
    changed = await asyncio.gather(*(rate(bearer, 1) for bearer in bearers))
    assert max(changed, key=changed.index)[1] == 3
    assert (await work_of(shop, work))["rating"] == "1.00"
    for _ in range(2):
        found = await shop.world.data("DELETE", path, headers=bearers[0])
        assert (found["rating"], found["rating_count"]) == ("1.00", 2)

    _, stranger = await shop.buyer("5")
    await shop.world.refused(403, "FORBIDDEN", "not_bought", "PUT", path, headers=stranger, json={"stars": 5})
    await shop.world.refused(403, "FORBIDDEN", "own_work", "PUT", path, headers=seller, json={"stars": 5})
    for stars in (0, 6, 4.5, "five", None):
        answer = await shop.world.client.put(path, headers=bearers[0], json={"stars": stars})
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "stars"), answer.text
    assert (await work_of(shop, work))["rating_count"] == 2


async def test_rating_goes_with_the_last_purchase_that_is_given_back_whole(api_dsn):
    async with shop_over(api_dsn, royalty_hold_days=7) as shop:  # in which the seller may refund
        await rate_and_refund(shop)


async def rate_and_refund(shop):
    _, seller, work, _, offer = await shop.seller("4")
    body = {"kind": "rent", "asset": "USDC", "price": "1", "access_seconds": 3600}
    rent = await shop.world.data("POST", f"/v1/works/{work['id']}/offers", headers=seller, json=body)
    _, bearer = await shop.buyer("5")
    rental = await shop.buy(bearer, rent, "balance")
    purchase = await shop.buy(bearer, offer, "balance")
    await shop.finish()
    path = f"/v1/works/{work['id']}/rating"

    async def rated(bearer, stars):
        found = await shop.world.data("PUT", path, headers=bearer, json={"stars": stars})
        return found["rating"], found["rating_count"]

    async def rating_after_refund(of, **amount):
        await shop.post(f"/v1/purchases/{of['id']}/refund", seller, amount)
        await shop.finish()
        found = await work_of(shop, work)
        return found["rating"], found["rating_count"]

    assert await rated(bearer, 4) == ("4.00", 1)
    assert await rating_after_refund(purchase, amount="1") == ("4.00", 1)  # still theirs
    assert await rating_after_refund(purchase) == ("4.00", 1)  # they rented it too
    await shop.world.sql(
        "UPDATE payments.entitlement SET starts_at = now() - interval '2 hours', ends_at = now() - interval '1 hour'"
        " WHERE purchase_id = $1::text::uuid",
        rental["id"],
    )  # fmt: skip
    assert await rated(bearer, 5) == ("5.00", 1)  # a rental that has run out was one
    _, other = await shop.buyer("5")
    await shop.buy(other, offer, "balance")
    await shop.finish()
    assert await rated(other, 2) == ("3.50", 2)
    assert await rating_after_refund(rental) == ("2.00", 1)
    await shop.world.refused(403, "FORBIDDEN", "not_bought", "PUT", path, headers=bearer, json={"stars": 5})
    await shop.buy(bearer, offer, "balance")
    await shop.finish()
    assert await rated(bearer, 5) == ("3.50", 2)
