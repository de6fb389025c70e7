"""Who hears over the socket what a work earns: real websockets, a real PostgreSQL and the real core."""

import contextlib

from tests.integration.platform_api.test_event_socket import bearer_of, serving
from tests.support.licences import issued, studio
from tests.support.sales import shop_over


async def test_what_a_work_earns_and_who_licenses_it_is_heard_by_whom_rest_tells_it(api_dsn):
    """Whoever an owner had asked to take part, agreed or not, heard each sale and each licensee."""
    async with shop_over(api_dsn) as shop, serving(shop.world.app) as served, contextlib.AsyncExitStack() as pages:
        owner, bearer, work, _, offer = await shop.seller()
        people = {"owner": (owner, bearer)} | {name: await shop.buyer() for name in ("payee", "helper", "asked")}
        people["studio"] = await studio(shop.world)
        path = f"/v1/works/{work['id']}"
        takes_part = {"account_id": people["helper"][0], "role": "Proof reader", "share_bps": 0}
        asked = {"account_id": people["asked"][0], "role": "Writer", "share_bps": 100}
        change = {"collaborators": [takes_part]}
        pending = (await shop.world.data("PUT", f"{path}/collaborators", headers=bearer, json=change))["pending"]
        consent = {"change_id": pending["id"], "agree": True}
        await shop.world.data("POST", f"{path}/collaborators/consent", headers=people["helper"][1], json=consent)
        rule = {"lines": [{"account_id": people["payee"][0], "role": "producer", "bps": 10_000}]}
        proposed = await shop.world.data("PUT", f"{path}/royalty-rules", headers=bearer, json=rule)
        agreed = {"rule_id": proposed["id"], "agree": True}
        await shop.world.data("POST", f"{path}/royalty-rules/consent", headers=people["payee"][1], json=agreed)
        change = {"collaborators": [takes_part, asked]}
        shown = await shop.world.data("PUT", f"{path}/collaborators", headers=bearer, json=change)
        assert people["asked"][0] in shown["pending"]["waiting_for"]
        assert [line["account_id"] for line in shown["collaborators"]] == [people["helper"][0]]
        await shop.finish()
        opened_by = {}
        for name, (account, headers) in people.items():
            opened_by[name] = page = await pages.enter_async_context(served(**bearer_of(headers)))
            inside = "public" if name == "studio" else "own"  # the payee would lose a share, and is asked
            assert (await page.subscribe(f"content:{work['id']}"))["access"] == inside
            assert (await page.subscribe(f"user:{account}"))["access"] == "own"
        _, buyer = await shop.buyer("10")
        purchase = await shop.buy(buyer, offer, "balance")
        await shop.finish()
        await shop.post(f"/v1/purchases/{purchase['id']}/refund", await shop.staff(), {})
        held = await issued(shop.world, bearer, work, people["studio"][0], base_fee="0")
        await shop.finish()
        heard = {}
        for name, page in opened_by.items():
            told = [event for _, event in await page.heard() if event["type"].startswith(("royalty.", "license."))]
            assert {event["data"]["work_id"] for event in told} <= {work["id"]}
            heard[name] = [event["type"] for event in told]
        assert held["status"] == "active"
        sold, licensed = ["royalty.distributed", "royalty.reversed"], ["license.activated"]
        assert heard == {
            "owner": sold + licensed, "payee": sold, "studio": licensed, "helper": [], "asked": [],
        }  # fmt: skip
