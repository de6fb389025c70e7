"""What holds for every route there is: examples, documented failures, ids of others, and logs without secrets."""

import asyncio
import base64
import copy
import dataclasses
import hashlib
import io
import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_type_hints
from uuid import uuid4

import httpx
import jsonschema
import msgspec
import pytest
import structlog
from litestar.handlers import HTTPRouteHandler

from engine.messages.errors import Unavailable
from platform_api.app import openapi_document
from platform_api.contexts import CONTEXTS
from platform_api.errors import STATUS
from platform_api.logs import configure_logs
from platform_api.ops import queries
from platform_api.ops.document_page import document_page
from platform_api.ops.service import OpsService
from platform_api.parameter_words import WORDS
from platform_api.reasons import CODES, REASONS, UNKNOWN
from platform_api.security import ACCESS_COOKIE
from tests.integration.platform_api.test_works import chapter as write_chapter
from tests.integration.platform_api.test_works import creator as maker
from tests.integration.platform_api.test_works import file_of, published
from tests.support.core_routes import CORE_ROUTES
from tests.support.files import png
from tests.support.licences import apply, issued, studio, terms_for
from tests.support.sales import shop_over
from tests.support.strangers import METHODS, operations, places_of_ids, walk_below, walk_bodies, walk_queries
from tests.unit.platform_api.test_sui_signature import Wallet


@pytest.fixture(scope="module")
def document():
    return openapi_document()


def routes(document):
    """Method and path of every route, whatever its parameters are called."""
    return {(method.upper(), re.sub(r"\{\w+\}", "{}", path)) for method, path, _ in operations(document)}


def test_every_route_of_the_core_is_in_the_document(document):
    named = routes(document)
    planned = [tuple(line.split()) for line in CORE_ROUTES.split("\n") if line]
    assert len(planned) == len(set(planned)) == 151  # none is lost from the list itself
    assert [route for route in planned if route not in named] == []


def test_the_guide_for_creators_names_routes_that_there_are(document):
    page = (Path(__file__).parents[3] / "docs" / "for-creators.md").read_text()
    named = {
        (method, re.sub(r"\{\w+\}|QUILL", "{}", path))
        for method, path in re.findall(r"`(GET|POST|PUT) (/v1/[^`? ]+)", page)
    }
    assert len(named) > 25 and named <= routes(document)


def test_every_parameter_says_what_it_is(document):
    found = {
        (path, parameter["name"]): parameter["description"]
        for _, path, operation in operations(document) for parameter in operation.get("parameters", [])
    }  # fmt: skip
    assert len(found) > 200 and all(len(words) > 5 for words in found.values())
    assert set(WORDS) <= {name for _, name in found}, "words of a parameter that no route has"
    assert found["/v1/tokens/{token_id}", "token_id"] != found["/v1/orderbook/{token_id}", "token_id"]


def test_every_body_and_answer_has_an_example_that_fits_its_schema(document):
    checked = 0
    for method, path, operation in operations(document):
        places = [("request", operation.get("requestBody", {}).get("content", {}))]
        places += [(status, answer.get("content", {})) for status, answer in operation["responses"].items()]
        for place, content in places:
            for media_type, media in content.items():
                if media_type != "application/json":
                    continue
                examples = (
                    [media["example"]] if "example" in media else [e["value"] for e in media["examples"].values()]
                )
                schema = {**media["schema"], "components": document["components"]}
                for example in examples:
                    checked += 1
                    try:
                        jsonschema.Draft202012Validator(schema).validate(example)
                    except jsonschema.ValidationError as error:
                        pytest.fail(f"{method} {path} {place}: {error.json_path}: {error.message}")
        assert operation.get("summary"), f"{method} {path} says nothing"
        for parameter in operation.get("parameters", []):
            assert "example" in parameter, f"{method} {path}: {parameter['name']}"
    assert checked > 100


WORDS_OF_RULES = (
    "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip


def rules(schema, root, place=""):
    """(Place, word, value) of each rule of a JSON schema, null aside."""
    if "$ref" in schema:
        found = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return rules(found, root, place)
    told = {(place, word, schema[word]) for word in WORDS_OF_RULES if schema.get(word) is not None}
    told -= {(place, "minLength", 0)}  # no rule
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    told |= {(place, "enum", choice) for choice in choices if choice is not None}
    told |= {(place, "required", name) for name in schema.get("required", ())}
    for word in ("oneOf", "anyOf", "allOf"):
        told |= {rule for part in schema.get(word, ()) for rule in rules(part, root, place)}
    inside = [(f".{name}", part) for name, part in schema.get("properties", {}).items()]
    inside += [("[]", schema.get("items")), ("{}", schema.get("additionalProperties"))]
    inside += [("{name}", schema.get("propertyNames"))]
    inside += [(f"[{number}]", part) for number, part in enumerate(schema.get("prefixItems", ()))]
    return told.union(*(rules(part, root, place + name) for name, part in inside if isinstance(part, dict)))


def test_what_is_told_of_a_body_is_what_is_enforced(document):
    """msgspec's own schema beside that of the document. Litestar passes over what is inside of lists and maps."""
    compared = []
    for controller in (controller for context in CONTEXTS for controller in context.controllers):
        for handler in vars(controller).values():
            body = get_type_hints(handler.fn).get("data") if isinstance(handler, HTTPRouteHandler) else None
            if not (isinstance(body, type) and issubclass(body, msgspec.Struct)):
                continue
            path = re.sub(r":\w+}", "}", controller.path + next(iter(handler.paths))).rstrip("/")
            (method,) = (method.lower() for method in handler.http_methods)
            told = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
            enforced = msgspec.json.schema(body)
            compared.append((path, rules(enforced, enforced), rules(told, document)))
    assert [(path, sorted(map(str, enforced ^ told))) for path, enforced, told in compared if enforced != told] == []
    inside = {rule for _, _, told in compared for rule in told if rule[0].endswith(("[]", "{name}"))}
    assert len(compared) > 50 and len(inside) > 20


@pytest.mark.parametrize("world", [{"public_per_minute": 0, "auth_per_minute": 0}], indirect=True)
async def test_each_path_refuses_every_method_that_the_document_does_not_have(world, document):
    methods, refused = {method.upper() for method in METHODS}, 0
    for path, item in document["paths"].items():
        known = {method.upper() for method in item} & methods
        for method in sorted(methods - known):
            at = re.sub(r"\{\w+\}", "7", path)
            answer = await world.refused(405, "METHOD_NOT_ALLOWED", "method_not_allowed", method, at)
            heads = {"HEAD"} if "GET" in known else set()
            assert set(answer.headers["allow"].split(", ")) == known | heads | {"OPTIONS"}, (method, path)
            refused += 1
    assert refused > 400


@pytest.mark.parametrize("world", [{"public_per_minute": 0, "auth_per_minute": 0}], indirect=True)
async def test_head_is_answered_as_get_without_the_body(world, document):
    """Of each path: for nobody, and for somebody."""
    _, bearer = await world.sign_in()
    asked = answered = 0
    for path, item in document["paths"].items():
        at = re.sub(r"\{\w+\}", str(uuid4()), path)
        for headers in ({}, bearer):
            head = await world.client.head(at, headers=headers)
            assert head.content == b"", path
            if "get" not in item:
                assert head.status_code == 405 and "HEAD" not in head.headers["allow"], path
                continue
            get, asked = await world.client.get(at, headers=headers), asked + 1
            told = ["content-type", "etag", "allow", "www-authenticate", "cache-control"]
            assert head.status_code == get.status_code, path
            assert [head.headers.get(name) for name in told] == [get.headers.get(name) for name in told], path
            answered += get.status_code == 200 and head.headers["content-length"] == get.headers["content-length"]
    assert asked > 200 and answered > 20


@pytest.mark.parametrize("world", [{"public_per_minute": 3}], indirect=True)
async def test_head_costs_what_get_costs_and_is_counted_by_its_own_name(world):
    for method in ("HEAD", "GET", "HEAD"):
        assert (await world.client.request(method, "/v1/genres")).status_code == 200
    answer = await world.client.head("/v1/genres")
    assert answer.status_code == 429 and answer.content == b"" and answer.headers["retry-after"]
    counted = (await world.client.get("/metrics")).text
    assert re.search(r'^\w+\{method="HEAD",.*route="/v1/genres",status="200".*\} 2\.0$', counted, re.MULTILINE)


class Page(HTMLParser):
    """What a page consists of; every element is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.text = [], set(), [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open += [] if tag == "meta" else [tag]
        assert {name for name, _ in attrs} <= {"charset", "content", "href", "id", "lang", "name"}, attrs
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_of_the_document_has_every_route_and_nothing_from_elsewhere(document):
    page = Page(document_page(document))
    assert not page.tags & {"script", "img", "link", "iframe", "object", "form"}
    assert len(page.ids) == len(set(page.ids)) and {f"#{id_}" for id_ in page.ids} >= set(page.links)
    assert len(page.links) > 13 + 20, "routes that are named lead there"
    for method, path, operation in operations(document):
        assert f"{method.upper()} {path} {operation['summary'].replace('`', '')}" in page.text, path
        assert all(parameter["name"] in page.text for parameter in operation.get("parameters", ()))
    strange = copy.deepcopy(document)
    for operation in strange["paths"]["/v1/genres"].values():
        operation["summary"] = operation["description"] = "<script>alert(1)</script> `<b>` **<i>**"
    told = Page(document_page(strange))
    assert told.tags == page.tags | {"strong"} and "<script>alert(1)</script> <b> <i>" in told.text


async def test_page_of_the_document_is_served_with_a_policy_that_lets_nothing_in(world):
    answer = await world.client.get("/v1/openapi.html")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    (style,) = re.findall("<style>(.*?)</style>", answer.text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and f"'sha256-{digest}'" in policy
    assert "GET /v1/markets" in answer.text


def test_advice_about_refusals_names_routes_that_there_are(document):
    routes = {(method.upper(), path) for method, path, _ in operations(document)}
    routes.add(("GET", "/v1/openapi.json"))
    said = [*CODES.values(), *(text for words in REASONS.values() for text in words.values())]
    named = [place for text in said for place in re.findall(r"`([A-Z]+) (/v1[^`]*)`", text)]
    shapes = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in routes}
    assert [place for place in named if (place[0], re.sub(r"\{\w+\}", "{}", place[1])) not in shapes] == []
    assert len(named) > 10


def test_what_a_route_says_of_refusals_and_of_other_routes_is_so(document):
    """A status that it may not answer, a word that nothing is refused with, a route that there is not."""
    shapes = routes(document)
    reasons = {(STATUS[code], word) for code, words in REASONS.items() for word in words}
    described, refused = 0, 0
    for method, path, operation in operations(document):
        more = operation.get("description", "")
        described += bool(more)
        for status in re.findall(r"\b(40\d|422|429|50[234])\b", more):
            assert status in operation["responses"], f"{method} {path} says {status}"
        for status, word in re.findall(r"\b([45]\d\d) `(\w+)`", more):
            refused += 1
            is_known = (int(status), word) in reasons or (status == "404" and word.startswith(UNKNOWN))
            assert is_known, (method, path, word)
        for other, at in re.findall(r"`([A-Z]+) (/v1[^`? ]*)`", more):
            assert (other, re.sub(r"\{\w+\}", "{}", at)) in shapes, f"{method} {path} names {other} {at}"
    assert described > 150 and refused > 50


def test_no_example_says_the_name_of_its_field_alone(document):
    """`"price": "price"` in a document that promises decimal strings."""

    def repeated(node, name):
        if isinstance(node, dict):
            return [found for key, value in node.items() for found in repeated(value, key)]
        if isinstance(node, list):
            return [found for value in node for found in repeated(value, name)]
        said = isinstance(node, str) and node.rstrip("x").replace(" ", "_") == name.rstrip("x")
        return [name] if said else []

    assert repeated({"bids": [["bids"]], "not_before": "not before"}, "") == ["bids", "not_before"]
    for method, path, operation in operations(document):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [a.get("content", {}) for s, a in operation["responses"].items() if int(s) < 400]
        told = [media["example"] for content in contents for media in content.values() if "example" in media]
        told += [{parameter["name"]: parameter["example"]} for parameter in operation.get("parameters", [])]
        assert repeated(told, "") == [], f"{method} {path}"
        answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("example")
        if isinstance(answer, dict) and "pagination" in answer:
            assert isinstance(answer["data"], list), f"{method} {path} is no list"


def test_failures_of_the_document_are_those_of_the_table(document):
    codes = {400: {"VALIDATION_ERROR", "INVALID_CONTENT_FORMAT"}, 403: {"FORBIDDEN", "LICENSE_EXPIRED"},
             422: {"VERIFICATION_FAILED", "ORDER_REJECTED"}, 429: {"RATE_LIMITED"}}  # fmt: skip
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) in codes:
                assert set(answer["content"]["application/json"]["examples"]) == codes[int(status)], (method, path)
        if path.startswith("/v1/"):
            assert "429" in operation["responses"], f"{method} {path} has a rate limit"


@pytest.mark.parametrize(
    "world", [{"catalogue_per_hour": 0, "embedded": True, "test_payments": True}], indirect=True
)
async def test_f69_every_route_with_an_id_answers_for_anothers_as_for_none(world, document, monkeypatch):
    """Ids of everything the first caller owns, asked for by the second: the answer is that for an unknown id."""
    owner_wallet = Wallet(0)
    session, owner = await world.sign_in(owner_wallet)
    await world.step_up(owner_wallet, owner)
    key = await world.data("POST", "/v1/users/me/api-keys", headers=owner,
                           json={"public_key": uuid4().hex * 2, "scopes": ["read"]})  # fmt: skip
    order = await world.data(
        "POST", "/v1/orders", headers=owner,
        json={"market": "INK-USDC", "side": "buy", "type": "limit", "price": "1", "size": "1", "client_order_id": "w1"},
    )  # fmt: skip
    (wallet,) = await world.data("GET", "/v1/users/me/wallets", headers=owner)
    (device,) = await world.data("GET", "/v1/users/me/devices", headers=owner)
    creator = await world.data("POST", "/v1/creators", headers=owner, json={"display_name": "Ink"})
    work = await world.data("POST", "/v1/works", headers=owner, json={"kind": "story", "title": "Secret"})
    inside = f"/v1/works/{work['id']}"
    chapter = await world.data(
        "POST", f"{inside}/chapters", headers=owner, json={"title": "One", "body": "Not for others. " * 10}
    )
    coins = {"kind": "coin", "asset": "COIN", "price": "1"}
    offer = await world.data("POST", f"{inside}/offers", headers=owner, json=coins)
    content = png()
    begun = {"name": "a.png", "content_type": "image/png", "size_bytes": len(content)}
    upload = await world.data("POST", "/v1/uploads", headers=owner, json=begun)
    binary = owner | {"content-type": "application/octet-stream"}
    await world.data("PUT", f"/v1/uploads/{upload['id']}/parts/1", headers=binary, content=content)
    await world.data("POST", f"/v1/uploads/{upload['id']}/complete", headers=owner)
    await world.settle()
    file = (await world.data("GET", f"/v1/uploads/{upload['id']}", headers=owner))["file"]
    asset = await world.data("POST", f"{inside}/assets", headers=owner, json={"role": "poster", "file_id": file["id"]})
    quill, other_id, stranger = await maker(world, "Quill")
    await world.grant(other_id, "studio")
    own_work, own_chapter = await published(world, stranger, "Own")
    own_file = await file_of(world, stranger, png(b"own"))
    own_asset = await world.data("POST", f"/v1/works/{own_work['id']}/assets", headers=stranger,
                                 json={"role": "poster", "file_id": own_file["id"]})  # fmt: skip
    verified = "UPDATE creators.creator SET verification_status = 'verified' WHERE id = $1::text::uuid"
    await world.sql(verified, creator["id"])
    await world.data("POST", "/v1/auth/step-up", headers=owner, json=await world.proof(owner_wallet, "step_up", owner))
    world.core.failure = Unavailable("away")  # so the token stays what only its owner sees
    launch = {"symbol": "SECRET", "name": "S", "total_supply": "10", "sale_size": "10", "start_price": "1"}
    token = await world.data("POST", "/v1/tokens", headers=owner | {"idempotency-key": uuid4().hex}, json=launch)
    world.core.failure = None
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    buyer_id, buyer = await studio(world)
    open_terms = await terms_for(world, owner, (await published(world, owner, "Open"))[0])
    application = await apply(world, buyer, open_terms)
    licence = await issued(world, owner, work, buyer_id)
    planned = {"work_id": work["id"], "window_type": "svod", "territories": ["PG"], "starts_at": "2199-01-01T00:00:00Z"}
    window = await world.data("POST", "/v1/windows", headers=owner, json=planned)
    kept = owner | {"idempotency-key": uuid4().hex}
    registration = await world.data("POST", "/v1/copyrights", headers=kept, json={"work_id": work["id"]})
    keyed = owner | {"idempotency-key": uuid4().hex}
    top_up = {"asset": "USDC", "amount": "1"}
    intent = await world.data("POST", "/v1/payments/intents", headers=keyed, json=top_up)
    _, _, seller = await maker(world, "Seller")
    sold, _ = await published(world, seller)
    price = {"kind": "purchase", "asset": "USDC", "price": "1"}
    offered = await world.data("POST", f"/v1/works/{sold['id']}/offers", headers=seller, json=price)
    wanted = {"offer_id": offered["id"], "method": "provider"}
    purchase = await world.data("POST", "/v1/purchases", headers=keyed, json=wanted)
    changed = {"collaborators": [{"account_id": buyer_id, "role": "Artist", "share_bps": 1_000}]}
    change = await world.data("PUT", f"{inside}/collaborators", headers=owner, json=changed)
    own_licence = await issued(world, seller, sold, other_id, license_type="enterprise", seats=5)
    seats = f"/v1/licenses/{own_licence['id']}/seats"
    await world.data("POST", seats, headers=stranger, json={"account_id": other_id})
    waiting, in_sight = [await published(world, owner, title) for title in ("Was shown", "Is shown")]
    looked_at = dataclasses.replace(world.kernel.settings, works_need_verification=True)
    monkeypatch.setattr(world.kernel, "settings", looked_at)
    for path, new in ((f"/v1/works/{waiting[0]['id']}", {"title": "Never seen"}),
                      (f"/v1/chapters/{in_sight[1]['id']}", {"body": "Nobody has looked at it. " * 10})):  # fmt: skip
        assert (await world.data("PATCH", path, headers=owner, json=new))["status"] == "in_review"
    monkeypatch.undo()
    own = {
        "work_id": own_work["id"], "chapter_id": own_chapter["id"], "creator_id": quill["id"],
        "asset_id": own_asset["id"], "license_id": own_licence["id"], "account_id": other_id, "licensee_id": other_id,
        "public": {creator["id"], session["account_id"], open_terms["id"]},
    }  # fmt: skip
    ids = {
        creator["id"],
        session["account_id"],
        session["session_id"],
        key["id"],
        order["order_id"],
        wallet["id"],
        device["id"],
        work["id"],
        chapter["id"],
        offer["id"],
        upload["id"],
        file["id"],
        asset["id"],
        token["id"],
        token["symbol"],
        token["market"],
        open_terms["id"],
        application["id"],
        licence["id"],
        window["id"],
        intent["id"],
        purchase["id"],
        purchase["intent"]["id"],
        registration["id"],
        change["pending"]["id"],
        waiting[0]["id"],
        waiting[1]["id"],
        in_sight[1]["id"],
    }
    walked = await walk(world, document, stranger, ids)
    assert set(walked.values()) == {len(ids)} and len(walked) > 100
    assert await walk_below(world, document, stranger, own, ids) > 100
    reached = await walk_bodies(world, document, stranger, own, ids)
    reached |= await walk_queries(world, document, stranger, own, ids)
    assert places_of_ids(document) - reached == {OF_A_PURCHASE}, "the next test has one"
    read = await owned_answers(world, document, [owner, buyer], ids)
    assert {
        "/v1/works/{work_id}", "/v1/works/{work_id}/versions", "/v1/uploads/{upload_id}",
        "/v1/licenses/{license_id}", "/v1/payments/intents/{intent_id}", "/v1/purchases/{purchase_id}",
        "/v1/tokens/{token_id}", "/v1/files/{file_id}/url", "/v1/chapters/{chapter_id}/versions",
    } <= read  # fmt: skip
    still = await world.data("GET", "/v1/users/me/api-keys", headers=owner)
    assert [entry["id"] for entry in still] == [key["id"]]


async def test_every_route_answers_for_anothers_money_as_for_none(api_dsn, document):
    """The same for what comes of money: payments, withdrawals, statements, refunds, rules, payouts, cases."""
    async with shop_over(api_dsn, catalogue_per_hour=0) as shop:
        world = shop.world
        seller_id, seller, work, _, offer = await shop.seller()
        quill_id, quill, others, _, other_offer = await shop.seller(name="Quill")
        buyer_id, buyer = await shop.buyer("20")
        purchase = await shop.buy(buyer, offer)
        await shop.pay(purchase["intent"])
        await shop.finish()
        returned = await shop.buy(buyer, other_offer)
        await shop.pay(returned["intent"])
        await shop.finish()
        staff_id, staff = await shop.buyer()
        await world.grant(staff_id, "admin")
        refund = await shop.post(f"/v1/purchases/{returned['id']}/refund", staff, {})
        payments = await shop.get("/v1/payments", buyer)
        listed = await world.data("POST", "/v1/users/me/withdrawal-addresses", headers=buyer,
                                  json={"address": "0x" + "ee" * 32})  # fmt: skip
        withdrawal = await shop.post("/v1/withdrawals", buyer, {"asset": "USDC", "amount": "5"})
        payout = await shop.post("/v1/payouts", seller, {"asset": "USDC", "amount": "1"})
        lines = [{"account_id": account, "role": "collaborator", "bps": 5_000} for account in (seller_id, buyer_id)]
        rule = await world.data("PUT", f"/v1/works/{work['id']}/royalty-rules", headers=seller, json={"lines": lines})
        (creator,) = await world.sql("SELECT id FROM creators.creator WHERE account_id = $1::text::uuid", seller_id)
        case = await world.data("POST", f"/v1/creators/{creator['id']}/verification", headers=seller,
                                json={"statement": "Me."})  # fmt: skip
        await world.entries("SET happened_at = '2021-03-31T00:00:00Z'"
                        " WHERE account_id = $1::text::uuid", seller_id)  # fmt: skip
        await shop.close_month(staff, "2021-03")
        (statement,) = await shop.get("/v1/royalties/statements", seller)
        hidden = await write_chapter(world, seller, work, "Not out yet")
        parted = f"/v1/works/{others['id']}"
        shared = {"collaborators": [{"account_id": buyer_id, "role": "Artist", "share_bps": 1_000}]}
        change = await world.data("PUT", f"{parted}/collaborators", headers=quill, json=shared)
        agreed = {"change_id": change["pending"]["id"], "agree": True}
        await world.data("POST", f"{parted}/collaborators/consent", headers=buyer, json=agreed)
        used = await issued(world, seller, work, quill_id, revenue_share_bps=1_000)
        await world.data("POST", f"/v1/licenses/{used['id']}/works", headers=quill, json={"work_id": others["id"]})
        (share,) = (await shop.get(f"{parted}/royalty-rules", quill))["licence_shares"]
        ids = {
            hidden["id"], share["id"],
            purchase["id"], purchase["intent"]["id"], returned["id"], returned["intent"]["id"], refund["id"],
            listed["id"], withdrawal["id"], payout["id"], rule["id"], case["id"], statement["id"],
            *(payment["id"] for payment in payments),
        }  # fmt: skip
        other_id, stranger, own_work, own_chapter, own_offer = await shop.seller(name="Stranger")
        await world.grant(other_id, "studio")
        bought = await shop.buy(stranger, other_offer)
        await shop.pay(bought["intent"])
        await shop.finish()
        own = {
            "work_id": own_work["id"], "chapter_id": own_chapter["id"], "offer_id": own_offer["id"],
            "account_id": other_id, "licensee_id": other_id, "purchase_id": bought["id"], "public": set(),
        }  # fmt: skip
        walked = await walk(world, document, stranger, ids)
        assert set(walked.values()) == {len(ids)} and len(walked) > 100
        reached = await walk_bodies(world, document, stranger, own, ids)
        consent = "/v1/works/{work_id}/royalty-rules/consent"
        assert {(consent, "rule_id"), (consent.replace("consent", "licence-shares/consent"), "share_id")} <= reached
        assert OF_A_PURCHASE in await walk_queries(world, document, stranger, own, ids)
        assert await owned_answers(world, document, [buyer, seller], ids) >= {
            "/v1/payments/intents/{intent_id}", "/v1/purchases/{purchase_id}", "/v1/withdrawals/{withdrawal_id}",
            "/v1/purchases/{purchase_id}/access-token", "/v1/royalties/statements/{statement_id}",
        }  # fmt: skip
        assert await shop.get("/v1/users/me/withdrawal-addresses", buyer) == [listed]
        assert (await shop.get(f"/v1/withdrawals/{withdrawal['id']}", buyer))["status"] == "held"
        assert (await shop.get(f"/v1/purchases/{purchase['id']}", buyer))["status"] == "completed"
        await shop.finish()  # a refund waits for the provider, whom the next tests have not


OF_A_PURCHASE = ("/v1/purchases/{purchase_id}/access-token", "chapter_id")
PUBLIC = {
    "/v1/users/{user_id}",
    "/v1/settlement/batches/{number}",
    "/v1/trades/{trade_id}/settlement",
    "/v1/files/{file_id}/content",  # whoever has a signed URL may read
    "/v1/creators/{creator_id}",
    "/v1/creators/{creator_id}/follow",
    "/v1/creators/{creator_id}/works",
    "/v1/creators/{creator_id}/profile-sections",
    "/v1/token-symbols/{symbol}/reservations",  # the name of a symbol is nobody's secret
    "/v1/licenses/{license_id}/verify",
}
STAFF = {"/v1/tokens/{token_id}/list", "/v1/tokens/{token_id}/delist"}
OWNED = {
    "application_id", "asset_id", "chapter_id", "creator_id", "device_id", "file_id", "key_id", "license_id",
    "market_id", "offer_id", "order_id", "registration_id", "session_id", "symbol", "terms_id", "token_id",
    "upload_id", "user_id", "wallet_id", "window_id", "work_id",
}  # fmt: skip
MONEY = {"address_id", "intent_id", "payment_id", "purchase_id", "statement_id", "withdrawal_id"}
NOBODYS = {"account_id", "code", "digest", "number", "period", "provider", "sha256", "trade_id"}
"""Parts of paths that are no ids of what somebody owns, or beside one that is."""


def test_every_id_in_a_path_is_walked_by_one_of_the_two(document):
    named = {name for _, path, _ in operations(document) for name in re.findall(r"\{(\w+)\}", path)}
    assert named == OWNED | MONEY | NOBODYS


async def walk(world, document, stranger, ids):
    """Each route with an id, asked by the stranger for each of the ids: the answer is that for an unknown one."""
    walked = {}
    for method, path, operation in operations(document):
        if "{" not in path or (path in PUBLIC and method in ("get", "post", "delete")):
            continue
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        nothing = str(uuid4())
        unknown = await ask(world, method, re.sub(r"\{\w+\}", nothing, path), stranger, body)
        is_staffs = path.startswith("/v1/admin/") or path in STAFF
        status = 403 if is_staffs else 404  # staff's routes are closed before any id is looked at
        assert unknown.status_code == status, (method, path, unknown.text)
        for id_ in ids:
            found = await ask(world, method, re.sub(r"\{\w+\}", id_, path), stranger, body)
            assert said(found, id_) == said(unknown, nothing), (method, path, id_)
        walked[method, path] = len(ids)
    return walked


async def owned_answers(world, document, bearers, ids):
    """The paths that some owner reads with an id of `ids`, by the name of the part: so the ids are real."""
    read = set()
    for method, path, _ in operations(document):
        parts = re.findall(r"\{(\w+)\}", path)
        if method != "get" or len(parts) != 1 or path in PUBLIC or path.startswith("/v1/admin/"):
            continue
        for id_ in ids:
            answers = [await ask(world, method, path.replace(f"{{{parts[0]}}}", id_), each, None) for each in bearers]
            if any(answer.status_code == 200 for answer in answers):
                read.add(path)
                break
    return read


async def ask(world, method, path, headers, body):
    key = {"idempotency-key": uuid4().hex}
    return await world.client.request(method, path, headers=headers | key, json=body)


def said(answer: httpx.Response, asked):
    """Without what was asked for, which some messages repeat."""
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"].replace(asked, "it"), error["details"]


async def test_no_secret_reaches_the_logs_whatever_is_logged(world):
    out, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    secrets = []
    try:
        configure_logs(level=logging.DEBUG, stream=out)
        wallet = Wallet(0)
        proof = await world.proof(wallet, "sign_in")
        secrets += [proof["nonce"], proof["signature"]]
        session = await world.data("POST", "/v1/auth/verify", json=proof)
        secrets += [session["access_token"], session["refresh_token"]]
        bearer = {"authorization": "Bearer " + session["access_token"]}
        cookie = {"cookie": f"{ACCESS_COOKIE}={session['access_token']}"}
        await world.data("GET", "/v1/users/me", headers=bearer)
        await world.data("GET", "/v1/auth/session", headers=cookie)
        address = f"{uuid4().hex}@example.org"
        await world.data("POST", "/v1/users/me/email", headers=bearer, json={"email": address})
        await world.settle()
        letter = world.mail.letters[-1].text
        secrets += [address, re.search(r"^    (\S+)$", letter, re.MULTILINE).group(1)]
        await world.client.post("/v1/auth/verify", json=proof)
        await world.client.post("/v1/auth/refresh", json={"refresh_token": session["refresh_token"]})
        again = await world.client.post("/v1/auth/refresh", json={"refresh_token": session["refresh_token"]})
        assert again.status_code == 401
        # What a library or a mistake of ours might write.
        logging.getLogger("other").error("failed with %s for %s", bearer, address)
        structlog.get_logger("ours").warning("odd", body=proof, session=session)
    finally:
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
    text = out.getvalue()
    assert "event=sign_in" in text and "refresh_reused" in text and "[redacted]" in text and "event=job_done" in text
    for secret in secrets:
        assert secret not in text
    assert "byline.client" not in text


async def test_time_and_status_need_nobody(world):
    assert (await world.data("GET", "/v1/time"))["time"].endswith("Z")
    status = await world.data("GET", "/v1/status")
    assert set(status["components"]) == {"core", "database", "events", "jobs", "settlement", "chain"}


@pytest.mark.parametrize(
    "says, state, reason, settlement, chain",
    [
        ({"connected": True}, "ok", "", "operational", "operational"),
        ({"connected": True, "pending_batches": 9}, "delayed", "late", "degraded", "operational"),
        ({"connected": False, "pending_batches": 2}, "delayed", "chain_unavailable", "degraded", "down"),
        ({"connected": False, "paused": True, "pending_batches": 20}, "delayed", "paused", "degraded", "operational"),
        ({"connected": True, "halted": "batch 3: pool", "pending_batches": 4}, "halted", "settlement_halted", "down",
         "operational"),
        ({}, "delayed", "settlement_stopped", "degraded", "degraded"),
    ],
    ids=["ok", "late", "chain", "paused", "halted", "stopped"],
)  # fmt: skip
async def test_settlement_is_seen_and_trading_does_not_hang_on_it(
    world, monkeypatch, says, state, reason, settlement, chain
):
    await world.settle()  # what others left waiting is no part of this
    brake = {"unsettled_s": 75.5, "unsettled_cuts": 9} if reason == "late" else {}
    office = {"alive": True, "settlement": says, "brake": brake}
    processes = {"core": {"ready": True, "alive": True}, "backoffice": office}
    monkeypatch.setattr(world.kernel.status, "read", lambda: processes)
    status, ready = await world.data("GET", "/v1/status"), await world.data("GET", "/ready")
    assert ready["status"] == "ready" and ready["settlement"] == status["settlement"]
    found = status["settlement"]
    assert (found["state"], found["reason"]) == (state, reason)
    assert found["batches_waiting"] == says.get("pending_batches", 0)
    assert found["oldest_s"] == brake.get("unsettled_s", 0.0)
    assert (status["components"]["settlement"], status["components"]["chain"]) == (settlement, chain)
    assert status["status"] == ("operational" if state == "ok" else "degraded"), "trading goes on"
    for trouble in ("", "the node is away"):
        office["registry_error"] = trouble
        lines = (await world.client.get("/metrics")).text.splitlines()
        for line in (
            f"settlement_lag_seconds {brake.get('unsettled_s', 0.0)}", f"settlement_halted {float(state == 'halted')}",
            f"chain_available {float(chain != 'down')}",
            f"registry_available {float(reason != 'settlement_stopped' and not trouble)}",
        ):  # fmt: skip
            assert line in lines


async def test_metrics_have_the_names_that_were_agreed(world):
    await world.data("GET", "/v1/time")
    text = (await world.client.get("/metrics")).text
    for name in (
        'http_requests_total{method="GET",route="/v1/time",status="200"} 1.0', "http_request_duration_seconds_bucket",
        "database_query_duration_seconds_bucket", "event_loop_lag_seconds_bucket", "user_active_sessions",
        'outbox_events{state="waiting"}', "payment_success_rate NaN",
    ):  # fmt: skip
        assert name in text


@pytest.mark.parametrize("world", [{"counted_seconds": 5}], indirect=True)
async def test_whoever_asks_for_metrics_often_has_nothing_counted_often(world, monkeypatch):
    count, asked = queries.active_sessions, []

    async def counted(db):
        asked.append(1)
        return await count(db)

    monkeypatch.setattr(queries, "active_sessions", counted)
    texts = [answer.text for answer in await asyncio.gather(*(world.client.get("/metrics") for _ in range(20)))]
    await world.sign_in()
    texts.append((await world.client.get("/metrics")).text)
    assert (await world.data("GET", "/v1/status"))["components"]["jobs"] == "operational"
    said = {line for text in texts for line in text.splitlines() if line.startswith("user_active_sessions ")}
    assert (len(asked), len(said)) == (1, 1)
    world.kernel.service(OpsService)._counted_at -= 5  # so long ago
    later = (await world.client.get("/metrics")).text
    assert len(asked) == 2 and not any(line in later.splitlines() for line in said)
    await world.settle()


async def test_metrics_count_what_happens(world):
    _, bearer = await world.sign_in()
    proof = await world.proof(Wallet(0), "sign_in")
    await world.client.post("/v1/auth/verify", json=proof | {"nonce": "0" * 32})
    await world.data("POST", "/v1/creators", headers=bearer, json={"display_name": "Counted"})
    content = png(b"x" * 2_000)
    await file_of(world, bearer, content)
    await world.settle()
    text = (await world.client.get("/metrics")).text
    for line in (
        'platform_events_total{type="user.registered"} 1.0', 'platform_events_total{type="creator.registered"} 1.0',
        'sign_in_failures_total{reason="nonce_unknown"} 1.0', 'content_upload_size_bytes_bucket{le="1024.0"} 0.0',
        'content_upload_size_bytes_bucket{le="4096.0"} 1.0', f"content_upload_size_bytes_sum {len(content)}.0",
    ):  # fmt: skip
        assert line in text, line


async def test_a_parameter_that_a_route_does_not_have_is_refused_by_every_route(world, document):
    """Whoever wrote `resolution=1h` got candles of a minute, and no word."""
    session, bearer = await world.sign_in()
    await world.grant_all(session["account_id"])
    asked = 0
    for method, path, operation in operations(document):
        if not path.startswith("/v1/"):
            continue
        names = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
        path = re.sub(r"\{\w+\}", str(uuid4()), path)
        answer = await world.client.request(method, path, headers=bearer, params={"resolution_": "1h"})
        error = answer.json()["error"]
        told = (answer.status_code, error["code"], error["details"].get("reason"), error["details"].get("field"))
        assert told == (400, "VALIDATION_ERROR", "unknown_parameter", "resolution_"), (method, path, told)
        assert all(name in error["message"] for name in names), (method, path, error["message"])
        asked += 1
    assert asked > 200
    long = await world.client.get("/v1/time", params={"x" * 2_000: ""})
    assert long.json()["error"]["details"]["field"] == "x" * 100
    page = await world.client.get("/v1/markets/INK/candles", params={"resolution": "1h"})
    assert "interval" in page.json()["error"]["message"]


@pytest.mark.parametrize("world", [{"cors_origins": ("https://app.example.org",)}], indirect=True)
async def test_pages_of_listed_origins_may_read_and_no_other(world):
    asked = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
    good = {"origin": "https://app.example.org"}
    answer = await world.client.options("/v1/users/me", headers=good | asked)
    assert answer.headers["access-control-allow-origin"] == good["origin"]
    assert "access-control-allow-credentials" not in answer.headers
    answer = await world.client.get("/v1/time", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
