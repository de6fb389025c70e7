"""Something of every sort for one account: what each route of the document needs, to do what it is for.

`ids` has, by the name that a parameter or a field of a body has, ids that are there. `own` has, by the route as the
document writes it, what a good request of it differs in from the document's example: who asks, values of the path, a
query, a body, headers. What a route uses up, or leaves in another state, is its own and nobody else's.
"""

import re
import time
from functools import partial
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import msgspec

from persistence.stores.postgres.projector import Projector
from platform_api.payments.service import PaymentService
from tests.integration.platform_api.test_works import TEXT, chapter, creator, file_of, published, story
from tests.support.files import png
from tests.support.licences import apply, issued, terms_for
from tests.support.real_core import RealCore
from tests.support.registry import begun
from tests.support.sales import Shop
from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = ["EverySort", "core_with_markets"]

LATER = "2199-01-01T00:00:00Z"
VAULTS = {
    "package": "0xp", "vaults": {"USDC": "0xv"},
    "coins": {"USDC": {"scale": 6, "coin_type": "0xc::usdc::USDC", "vault_version": 5, "faucet": "0xf",
                       "faucet_version": 4}},
}  # fmt: skip
"""What the back office tells of the chain once settlement has reached it."""


def core_with_markets():
    core = RealCore(time.time_ns())
    for asset in ("USDC", "INK"):
        core.send(op="asset", asset=asset, scale=6, settled=True)
    core.send(op="market", market="INK-USDC", base="INK", quote="USDC", tick="0.01", lot="0.1", taker_ppm=5000,
              maker_ppm=3000)  # fmt: skip
    for account in ("platform:revenue", "platform:gas", "platform:reserve"):
        core.send(op="account", account=account, overdraft="forced")
    core.send(op="deposit", account="platform:reserve", asset="USDC", amount="1000000", ref="reserve")
    return core


class EverySort:
    def __init__(self, world, directory):
        self.world, self.directory, self.shop, self.core = world, directory, Shop(world), world.core
        self.ids, self.own = {}, {}
        self.symbols = iter(f"T{number}X" for number in range(10, 99))

    async def make(self):
        """The bearer of the account that has it all."""
        self.projector = Projector(self.core, self.world.dsn, journal=uuid4().bytes)
        try:
            await self._project()
            await self._people()
            await self._works()
            await self._sales()
            await self._licences()
            await self._exchange()
            await self._money()
            await self._registry()
            await self._identity()
            await self.shop.finish()
            await self._project()
        finally:
            await self.projector.close()
        return self.me

    async def proved(self):
        """Everybody has signed just now: whatever needs a step-up may be asked for."""
        await self.world.sql("UPDATE identity.session SET proved_at = now()")

    async def _project(self):
        while await self.projector.step():
            pass

    async def _post(self, path, bearer, body=None):
        return await self.shop.post(path, bearer, body)

    async def _with_money(self, amount="100000"):
        account, bearer = await self.shop.buyer()
        self.core.send(op="deposit", account=f"user:{account}", asset="USDC", amount=amount, ref=uuid4().hex)
        await self.world.grant(account, "studio")
        return account, bearer

    async def _people(self):
        world = self.world
        self.wallet = Wallet(0)
        session, self.me = await world.sign_in(self.wallet)
        self.id = session["account_id"]
        made = await world.data("POST", "/v1/creators", headers=self.me, json={"display_name": "Document"})
        for role in ("moderator", "admin", "studio", "operator"):
            await world.grant(self.id, role)
        _, self.me = await world.sign_in(self.wallet)
        self.core.send(op="deposit", account=f"user:{self.id}", asset="USDC", amount="1000000", ref=uuid4().hex)
        self.core.send(op="deposit", account=f"user:{self.id}", asset="INK", amount="1000", ref=uuid4().hex)
        self.other_id, self.other = await self._with_money()
        self.maker, self.maker_id, self.makers = await creator(world, "Maker")
        _, _, novices = await creator(world, "Novice")
        asking, _, askers = await creator(world, "Asking")
        statement = {"statement": "It is me."}
        for who, bearer in ((made, self.me), (asking, askers)):
            await world.data("POST", f"/v1/creators/{who['id']}/verification", headers=bearer, json=statement)
        await self._verified(made)
        _, newcomers = await self.shop.buyer()
        (suspended, _), (standing, _) = await self.shop.buyer(), await self.shop.buyer()
        await self.proved()
        await world.data("POST", f"/v1/admin/users/{suspended}/suspend", headers=self.me, json={"reason": "Stolen."})
        (novice,) = await world.sql("SELECT id FROM creators.creator WHERE display_name = 'Novice'")
        self.ids |= {
            "creator_id": [made["id"], self.maker["id"]], "user_id": [self.other_id, self.id],
            "account_id": [self.other_id, self.id], "licensee_id": [self.other_id], "to": [self.other_id],
        }  # fmt: skip
        self.own |= {
            "POST /v1/creators": {"bearer": newcomers},
            "POST /v1/creators/{creator_id}/follow": {"path": {"creator_id": self.maker["id"]}},
            "POST /v1/creators/{creator_id}/verification": {
                "path": {"creator_id": str(novice["id"])}, "bearer": novices, "json": statement,
            },
            "POST /v1/admin/creators/{creator_id}/verification-decision": {"path": {"creator_id": asking["id"]}},
            "POST /v1/admin/users/{user_id}/suspend": {"path": {"user_id": standing}},
            "POST /v1/admin/users/{user_id}/unsuspend": {"path": {"user_id": suspended}},
        }  # fmt: skip

    async def _works(self):
        world, me = self.world, self.me
        self.work, first = await published(world, me, "Real")
        draft, second = await story(world, me, "Draft"), await chapter(world, me, self.work, "Two")
        self.theirs, self.their_chapter = await published(world, self.makers, "Theirs")
        self.inside = f"/v1/works/{self.work['id']}"
        file = await file_of(world, me, png())
        poster = {"role": "poster", "file_id": file["id"]}
        assets = [
            await world.data("POST", f"/v1/works/{work['id']}/assets", headers=me, json=poster)
            for work in (self.work, draft)
        ]
        begun_with = {"name": "a", "content_type": "image/png", "size_bytes": len(png())}
        uploads = [await world.data("POST", "/v1/uploads", headers=me, json=begun_with) for _ in range(3)]
        binary = me | {"content-type": "application/octet-stream"}
        await world.data("PUT", f"/v1/uploads/{uploads[1]['id']}/parts/1", headers=binary, content=png())
        url = (await world.data("GET", f"/v1/files/{file['id']}/url", headers=me))["url"]
        self.ids |= {
            "work_id": [self.work["id"], draft["id"], self.theirs["id"]], "chapter_id": [first["id"], second["id"]],
            "asset_id": [assets[0]["id"]], "file_id": [file["id"]], "upload_id": [uploads[0]["id"]], "number": ["1"],
        }  # fmt: skip
        price = {"kind": "purchase", "asset": "USDC", "price": "1"}
        offer = await world.data("POST", f"{self.inside}/offers", headers=me, json=price)
        self.ids["offer_id"] = [offer["id"]]
        self.offer = offer
        self.their_offer = await world.data(
            "POST", f"/v1/works/{self.theirs['id']}/offers", headers=self.makers, json=price
        )
        whole, spare = [(await published(world, me, name))[0] for name in ("Archived", "Suspended")], []
        for name in ("Deleted", "Published", "Looked at", "Shared", "Divided", "Parts"):
            spare.append(await story(world, me, name))
        ready = await chapter(world, me, spare[1])
        await world.data("POST", f"/v1/chapters/{ready['id']}/publish", headers=me)
        await chapter(world, me, spare[2])
        self.unregistered = spare[2]
        parts = [await chapter(world, me, spare[5], name) for name in ("Out", "In", "Gone")]
        await world.data("POST", f"/v1/chapters/{parts[1]['id']}/publish", headers=me)
        stopped, _ = await published(world, self.makers, "Stopped")
        await world.data("POST", f"/v1/admin/works/{stopped['id']}/suspend", headers=me, json={"reason": "A court."})
        going, _ = await published(world, self.makers, "Going")
        waiting = await story(world, self.makers, "Waiting")
        await chapter(world, self.makers, waiting)
        await world.data("POST", f"/v1/works/{waiting['id']}/verification", headers=self.makers,
                         json={"statement": "Mine."})  # fmt: skip
        (case,) = [
            one for one in await world.data("GET", "/v1/admin/verifications?type=work", headers=me)
            if one["subject_id"] == waiting["id"]
        ]  # fmt: skip
        decision = {"decision": "approve", "reason": "Fine.", "case_id": case["id"], "case_version": case["version"]}
        shared = await story(world, self.makers, "With me")
        mine = {"account_id": self.id, "role": "Artist", "share_bps": 1_000}
        change = await world.data("PUT", f"/v1/works/{shared['id']}/collaborators", headers=self.makers,
                                  json={"collaborators": [mine]})  # fmt: skip
        ruled = await story(world, self.makers, "Ruled with me")
        lines = [{"account_id": one, "role": "collaborator", "bps": 5_000} for one in (self.id, self.maker_id)]
        rule = await world.data("PUT", f"/v1/works/{ruled['id']}/royalty-rules", headers=self.makers,
                                json={"lines": lines})  # fmt: skip
        self.own |= {
            "GET /v1/works/{work_id}/chapters/{chapter_id}": {"path": {"work_id": self.work["id"]}},
            "PATCH /v1/works/{work_id}": {"path": {"work_id": self.work["id"]}},
            "PATCH /v1/chapters/{chapter_id}": {"json": {"title": "Changed"}},
            "POST /v1/works/{work_id}/archive": {"path": {"work_id": whole[0]["id"]}},
            "POST /v1/admin/works/{work_id}/suspend": {"path": {"work_id": going["id"]}},
            "POST /v1/admin/works/{work_id}/resume": {"path": {"work_id": stopped["id"]}},
            "POST /v1/admin/works/{work_id}/verification-decision": {
                "path": {"work_id": waiting["id"]}, "json": decision,
            },
            "DELETE /v1/works/{work_id}": {"path": {"work_id": spare[0]["id"]}},
            "POST /v1/works/{work_id}/publish": {"path": {"work_id": spare[1]["id"]}},
            "POST /v1/works/{work_id}/verification": {"path": {"work_id": spare[2]["id"]}},
            "PUT /v1/works/{work_id}/collaborators": {"path": {"work_id": spare[3]["id"]}},
            "PUT /v1/works/{work_id}/royalty-rules": {
                "path": {"work_id": spare[4]["id"]},
                "json": {"lines": [{"account_id": self.id, "role": "producer", "bps": 10_000}]},
            },
            "POST /v1/works/{work_id}/chapters": {
                "path": {"work_id": draft["id"]}, "json": {"title": "More", "body": TEXT},
            },
            "POST /v1/chapters/{chapter_id}/publish": {"path": {"chapter_id": parts[0]["id"]}},
            "POST /v1/chapters/{chapter_id}/unpublish": {"path": {"chapter_id": parts[1]["id"]}},
            "DELETE /v1/chapters/{chapter_id}": {"path": {"chapter_id": parts[2]["id"]}},
            "POST /v1/works/{work_id}/assets": {
                "path": {"work_id": draft["id"]}, "json": poster | {"role": "image"},
            },
            "DELETE /v1/works/{work_id}/assets/{asset_id}": {
                "path": {"work_id": draft["id"], "asset_id": assets[1]["id"]},
            },
            "POST /v1/works/{work_id}/offers": {
                "path": {"work_id": self.work["id"]}, "json": price | {"kind": "rent", "access_seconds": 172_800},
            },
            "POST /v1/works/{work_id}/collaborators/consent": {
                "path": {"work_id": shared["id"]}, "json": {"change_id": change["pending"]["id"], "agree": True},
            },
            "POST /v1/works/{work_id}/royalty-rules/consent": {
                "path": {"work_id": ruled["id"]}, "json": {"rule_id": rule["id"], "agree": True},
            },
            "PUT /v1/works/{work_id}/rating": {"path": {"work_id": self.work["id"]}, "bearer": self.other},
            "POST /v1/uploads": {"json": begun_with},
            "PUT /v1/uploads/{upload_id}/parts/{number}": {
                "path": {"upload_id": uploads[2]["id"]}, "content": png(),
                "headers": lambda: {"content-type": "application/octet-stream"},
            },
            "POST /v1/uploads/{upload_id}/complete": {"path": {"upload_id": uploads[1]["id"]}},
            "GET /v1/files/{file_id}/content": {"query": dict(parse_qsl(urlsplit(url).query))},
        }  # fmt: skip

    async def _sales(self):
        """Bought and sold, a month closed; intents in each state."""
        shop, world, me = self.shop, self.world, self.me
        bought = await shop.buy(me, self.their_offer, "balance")
        sold = [await shop.buy(self.other, self.offer, "balance")]
        third_id, third = await self._with_money()
        sold.append(await shop.buy(third, self.their_offer, "balance"))
        for _ in range(2):
            await self._project()
            await shop.finish()
        await world.entries("SET happened_at = '2021-03-31T00:00:00Z' WHERE account_id = $1::text::uuid", self.id)
        await shop.close_month(me, "2021-03")
        (statement,) = await shop.get("/v1/royalties/statements", me)
        top_up = {"asset": "USDC", "amount": "10"}
        intents = [await self._post("/v1/payments/intents", me, top_up) for _ in range(4)]
        paid = await self._post("/v1/payments/intents", self.other, top_up)
        await shop.pay(paid)
        await shop.finish()
        payment, *_ = await shop.get("/v1/payments", self.other)
        event = msgspec.json.encode({
            "id": "evt_1", "intent": intents[3]["provider_ref"], "status": "succeeded", "asset": "USDC", "amount": "10",
            "payment": "py_" + "0" * 24, "reason": None,
        })  # fmt: skip
        sign = partial(world.kernel.service(PaymentService).test.sign, event)
        fresh, _ = await published(world, self.makers, "For sale")
        price = {"kind": "purchase", "asset": "USDC", "price": "1"}
        offer = await world.data("POST", f"/v1/works/{fresh['id']}/offers", headers=self.makers, json=price)
        self.ids |= {
            "purchase_id": [bought["id"]], "intent_id": [intents[0]["id"]], "payment_id": [payment["id"]],
            "statement_id": [statement["id"]], "period": ["2021-03"], "provider": ["test"],
        }  # fmt: skip
        self.own |= {
            "POST /v1/purchases": {"json": {"offer_id": offer["id"], "method": "balance"}},
            "GET /v1/purchases/{purchase_id}/access-token": {"query": {"chapter_id": self.their_chapter["id"]}},
            "POST /v1/purchases/{purchase_id}/refund": {"path": {"purchase_id": sold[1]["id"]}, "json": {}},
            "POST /v1/payments/{payment_id}/refund": {"json": {}},
            "POST /v1/payments/intents/{intent_id}/confirm": {"path": {"intent_id": intents[1]["id"]}},
            "POST /v1/test-provider/payments": {
                "json": {"intent": intents[2]["provider_ref"], "client_secret": intents[2]["client_secret"],
                         "card": "ok"},
            },
            "POST /v1/webhooks/payments/{provider}": {"content": event, "headers": sign},
            "POST /v1/admin/royalties/runs": {"json": {"period": "2021-04"}},
            "POST /v1/payouts": {"json": {"asset": "USDC", "amount": "0.1"}},
        }  # fmt: skip

    async def _licences(self):
        world, me, other = self.world, self.me, self.other
        terms = [await terms_for(world, me, self.work, max_licenses=100, sublicensing=True) for _ in range(2)]
        theirs, free = [await terms_for(world, self.makers, self.theirs) for _ in range(2)]
        first_id, first = await self._with_money("100")
        second_id, second = await self._with_money("100")
        third_id, third = await self._with_money("100")
        applications = [await apply(world, bearer, terms[0]) for bearer in (other, first, second)]
        withdrawn = await apply(world, me, theirs)
        by_staff = [await apply(world, first, theirs), await apply(world, second, theirs)]
        given = await issued(world, me, self.work, self.other_id)
        got = await issued(world, self.makers, self.theirs, self.id)
        many = await issued(world, self.makers, self.theirs, self.id, license_type="enterprise", seats=50)
        seats = f"/v1/licenses/{many['id']}/seats"
        for seated in (third_id, self.id):
            await world.data("POST", seats, headers=me, json={"account_id": seated})
        unpaid = await issued(world, self.makers, self.theirs, self.id, base_fee="10")
        ended = await issued(world, me, self.work, first_id)
        returned = await issued(world, self.makers, self.theirs, second_id, base_fee="10")
        await self._post(f"/v1/licenses/{returned['id']}/pay", second)
        renewed = await issued(world, me, self.work, third_id, duration="P5D")
        staffs = [await issued(world, self.makers, self.theirs, one) for one in (first_id, second_id, third_id)]
        await world.data("POST", f"/v1/admin/licenses/{staffs[0]['id']}/suspend", headers=me, json={"reason": "Look."})
        planned = {"work_id": self.work["id"], "window_type": "svod", "territories": ["PG"], "starts_at": LATER}
        windows = [await world.data("POST", "/v1/windows", headers=me, json=planned)]
        windows.append(await world.data("POST", "/v1/windows", headers=me, json=planned | {"territories": ["FJ"]}))
        partner = await self._asked_for_a_share()
        self.ids |= {
            "terms_id": [terms[0]["id"]], "application_id": [applications[0]["id"]], "window_id": [windows[0]["id"]],
            "license_id": [got["id"], given["id"]], "parent_license_id": [got["id"]],
            "code": [given["verification_code"], got["verification_code"]],
        }  # fmt: skip

        def licence(which):
            return {"path": {"license_id": which["id"]}}

        def application(which):
            return {"path": {"application_id": which["id"]}}

        self.own |= {
            "POST /v1/works/{work_id}/license-terms": {"path": {"work_id": self.work["id"]}},
            "DELETE /v1/license-terms/{terms_id}": {"path": {"terms_id": terms[1]["id"]}},
            "POST /v1/license-applications": {"json": {"terms_id": free["id"], "purpose": "A film."}},
            "POST /v1/license-applications/{application_id}/approve": application(applications[1]),
            "POST /v1/license-applications/{application_id}/reject": application(applications[2]),
            "POST /v1/license-applications/{application_id}/withdraw": application(withdrawn),
            "POST /v1/admin/license-applications/{application_id}/approve": application(by_staff[0]),
            "POST /v1/admin/license-applications/{application_id}/reject": application(by_staff[1]),
            "GET /v1/licenses/{license_id}/access-token": licence(many) | {
                "query": {"chapter_id": self.their_chapter["id"]},
            },
            "GET /v1/licenses/{license_id}/seats": licence(many),
            "POST /v1/licenses/{license_id}/seats": licence(many) | {"json": {"account_id": self.other_id}},
            "DELETE /v1/licenses/{license_id}/seats/{account_id}": {
                "path": {"license_id": many["id"], "account_id": third_id},
            },
            "POST /v1/licenses/{license_id}/works": licence(got) | {"json": {"work_id": self.work["id"]}},
            "POST /v1/licenses/{license_id}/pay": licence(unpaid),
            "POST /v1/licenses/{license_id}/renew": licence(renewed),
            "POST /v1/licenses/{license_id}/refund": licence(returned),
            "POST /v1/licenses/{license_id}/revoke": licence(ended),
            "POST /v1/licenses": {
                "json": {"work_id": self.work["id"], "licensee_id": self.other_id, "license_type": "standard",
                         "base_fee": "2.5", "territories": ["AU"], "duration": "P1Y", "scope": ["adapt"]},
            },
            "POST /v1/admin/licenses/{license_id}/resume": licence(staffs[0]),
            "POST /v1/admin/licenses/{license_id}/suspend": licence(staffs[1]),
            "POST /v1/admin/licenses/{license_id}/revoke": licence(staffs[2]),
            "POST /v1/windows": {"json": planned | {"territories": ["NZ"]}},
            "PATCH /v1/windows/{window_id}": {"json": {"territories": ["AU"]}},
            "DELETE /v1/windows/{window_id}": {"path": {"window_id": windows[1]["id"]}},
            "POST /v1/availability/bulk": {"json": {"work_ids": [self.work["id"]], "territory": "PG"}},
            "POST /v1/works/{work_id}/royalty-rules/licence-shares/consent": partner,
        }  # fmt: skip

    async def _asked_for_a_share(self):
        """The maker names a work that the caller has a part in as made of a licence: the caller is asked."""
        world, makers = self.world, self.makers
        part, _ = await published(world, makers, "Made of another")
        body = {"collaborators": [{"account_id": self.id, "role": "author", "share_bps": 5_000}]}
        path = f"/v1/works/{part['id']}/collaborators"
        change = (await world.data("PUT", path, headers=makers, json=body))["pending"]
        await world.data("POST", f"{path}/consent", headers=self.me, json={"change_id": change["id"], "agree": True})
        _, _, friends = await creator(world, "Friend")
        source, _ = await published(world, friends, "Source")
        licence = await issued(world, friends, source, self.maker_id, scope=["adapt"], revenue_share_bps=2_000)
        await world.data("POST", f"/v1/licenses/{licence['id']}/works", headers=makers, json={"work_id": part["id"]})
        path = f"/v1/works/{part['id']}/royalty-rules"
        (share,) = (await world.data("GET", path, headers=self.me))["licence_shares"]
        return {"path": {"work_id": part["id"]}, "json": {"share_id": share["id"], "agree": True}}

    async def _exchange(self):
        """Orders and trades of a market, and tokens in each of their phases."""
        me = self.me
        self.core.send(op="account", account=f"user:{self.other_id}")
        market = {"market": "INK-USDC", "type": "limit", "size": "1"}
        orders = [
            await self._post("/v1/orders", me, market | {"side": "sell", "price": price}) for price in ("2", "3", "4")
        ]
        await self._post("/v1/orders", self.other, market | {"side": "buy", "price": "2"})
        tokens = [await self._token(await self._launcher()) for _ in range(4)]
        mine = await self._token(me)
        for token in (*tokens[1:], mine):
            await self._post(f"/v1/tokens/{token['id']}/list", me, {"reason": "Ready."})
        await self._project()
        bid = {"market": mine["market"], "side": "buy", "type": "limit", "size": "10", "price": "1.5"}
        await self._post("/v1/orders", self.other, bid)
        await self._post(f"/v1/admin/markets/{tokens[2]['market']}/halt", me, {"reason": "Look."})
        await self._project()
        await self.world.sql(
            "INSERT INTO settlement.batch (number, first_sequence, last_sequence, cut_at, status, digests)"
            " VALUES (1, 1, $1, now(), 'committed', ARRAY['digest1'])", self.core.core.sequence,
        )  # fmt: skip
        trade = next(one for one in await self.shop.get("/v1/trades?own=true", me) if one["market"] == "INK-USDC")
        name = f"user:{self.id}".replace(":", "_").replace("-", "_")
        self.world.proofs.close(1, **{name: 40})
        self.ids |= {
            "order_id": [orders[1]["order_id"]], "trade_id": [trade["trade_id"]], "token_id": [mine["id"]],
            "market_id": [mine["market"]], "symbol": ["FREE"],
        }  # fmt: skip
        ink, reason = {"path": {"token_id": "INK-USDC"}}, {"json": {"reason": "So."}}
        self.own |= {
            "GET /v1/markets/{token_id}/candles": ink,
            "GET /v1/orderbook/{token_id}": ink,
            "GET /v1/trades": {"query": {"own": "true"}},
            "GET /v1/trades/{trade_id}/settlement": {"query": {"token_id": "INK"}},
            "POST /v1/orders": {"json": market | {"side": "buy", "price": "1", "client_order_id": "well"}},
            "DELETE /v1/orders/{order_id}": {"path": {"order_id": orders[2]["order_id"]}},
            "POST /v1/tokens/{token_id}/list": {"path": {"token_id": tokens[0]["id"]}} | reason,
            "POST /v1/tokens/{token_id}/delist": {"path": {"token_id": tokens[1]["id"]}} | reason,
            "POST /v1/admin/markets/{market_id}/resume": {"path": {"market_id": tokens[2]["market"]}} | reason,
            "POST /v1/admin/markets/{market_id}/halt": {"path": {"market_id": tokens[3]["market"]}} | reason,
            "POST /v1/tokens": {"bearer": await self._launcher()},
        }  # fmt: skip

    async def _launcher(self):
        """A creator who may launch a token."""
        made, _, bearer = await creator(self.world, "Launcher")
        await self._verified(made)
        return bearer

    async def _verified(self, made):
        await self.world.sql("UPDATE creators.creator SET verification_status = 'verified' WHERE id = $1::text::uuid",
                             made["id"])  # fmt: skip

    async def _token(self, bearer):
        await self.proved()
        launch = {"symbol": next(self.symbols), "name": "T", "total_supply": "1000", "sale_size": "600",
                  "start_price": "1.5"}  # fmt: skip
        return await self._post("/v1/tokens", bearer, launch)

    async def _money(self):
        """What leaves, and where it goes."""
        me, path = self.me, "/v1/users/me/withdrawal-addresses"
        addresses = [
            await self.world.data("POST", path, headers=me, json={"address": "0x" + digit * 64}) for digit in "ab"
        ]
        asked = {"asset": "USDC", "amount": "5"}
        withdrawals = []
        for _ in range(3):
            await self.proved()
            withdrawals.append(await self._post("/v1/withdrawals", me, asked))
        signature = self.wallet.sign(withdrawals[1]["message"].encode())
        self.ids |= {"withdrawal_id": [withdrawals[0]["id"]], "address_id": [addresses[0]["id"]]}
        self.own |= {
            "POST /v1/withdrawals": {"json": asked},
            "POST /v1/withdrawals/{withdrawal_id}/confirm": {
                "path": {"withdrawal_id": withdrawals[1]["id"]}, "json": {"signature": signature},
            },
            "DELETE /v1/withdrawals/{withdrawal_id}": {"path": {"withdrawal_id": withdrawals[2]["id"]}},
            "DELETE /v1/users/me/withdrawal-addresses/{address_id}": {"path": {"address_id": addresses[1]["id"]}},
        }  # fmt: skip

    async def _registry(self):
        """A work that stands on a real chain."""
        async with begun(self.world, self.directory) as chain:
            made = await self._post("/v1/copyrights", self.me, {"work_id": self.work["id"]})
            await chain.settle()
        (now,) = await self.world.data("GET", f"{self.inside}/registrations", headers=self.me)
        self.ids |= {"registration_id": [made["id"]], "sha256": [made["sha256"]], "digest": [now["digest"]]}
        self.own["POST /v1/copyrights"] = {"json": {"work_id": self.unregistered["id"]}}
        read = self.world.kernel.status.read
        self.world.kernel.status.read = lambda: read() | {"backoffice": {"settlement": VAULTS}}

    async def _identity(self):
        """Sessions, keys and wallets to end; letters to answer; signatures that are good once."""
        world, me = self.world, self.me
        path = "/v1/users/me"
        others, leaving = (await world.sign_in(self.wallet))[0], (await world.sign_in(self.wallet))[1]
        refreshed, _ = await world.sign_in(Wallet(0))
        proof = await world.proof(self.wallet, "sign_in")
        device = {"kind": "web", "name": "Lost laptop"}
        await world.data("POST", "/v1/auth/verify", json=proof | {"device": device})
        devices = await world.data("GET", f"{path}/devices", headers=me)
        lost = next(one for one in devices if one["name"] == device["name"])
        key = {"public_key": uuid4().hex * 2, "scopes": ["read"]}
        await self.proved()
        key = await world.data("POST", f"{path}/api-keys", headers=me, json=key)
        await self.proved()
        owner_of_two = (await world.sign_in(Wallet(0)))[1]
        await self.proved()
        linked = await world.data("POST", f"{path}/wallets", headers=owner_of_two,
                                  json=await world.proof(Wallet(0), "link_wallet", owner_of_two))  # fmt: skip
        tokens = []
        for bearer in (me, self.other):
            await world.data("POST", f"{path}/email", headers=bearer, json={"email": f"{uuid4().hex}@example.org"})
            await world.settle()
            tokens.append(re.search(r"^    (\S+)$", world.mail.letters[-1].text, re.MULTILINE)[1])
        self.ids |= {
            "session_id": [others["session_id"]], "device_id": [lost["id"]], "key_id": [key["id"]],
            "wallet_id": [linked["id"]],
        }  # fmt: skip
        self.own |= {
            "DELETE /v1/users/me/wallets/{wallet_id}": {"bearer": owner_of_two},
            "POST /v1/auth/logout": {"bearer": leaving},
            "POST /v1/auth/refresh": {"json": {"refresh_token": refreshed["refresh_token"]}},
            "POST /v1/auth/step-up": {"json": await world.proof(self.wallet, "step_up", me)},
            "POST /v1/auth/verify": {"json": await world.proof(Wallet(0), "sign_in")},
            "POST /v1/users/me/email/verify": {"json": {"token": tokens[0]}},
            "POST /v1/auth/email/verify": {"json": {"token": tokens[1]}},
            "POST /v1/users/me/wallets": {"json": await world.proof(Wallet(0), "link_wallet", me)},
        }  # fmt: skip
