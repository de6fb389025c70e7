"""What a failed validation says: words of people, and the whole place of the field."""

import json
import re
from typing import Annotated, Literal

import httpx
import msgspec
import pytest
from litestar.exceptions import ValidationException

from platform_api.app import openapi_document
from platform_api.complaints import FORMS, choices, in_words
from platform_api.errors import ApiError, as_api_error
from platform_api.money import units_of
from platform_api.royalties.models import RuleRequest
from platform_api.texts import BODY_BYTES_MAX
from tests.unit.platform_api.test_app import app


def patterns(part):
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        for inner in part.values():
            yield from patterns(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from patterns(inner)


def test_every_pattern_of_the_document_has_words():
    found = set(patterns(openapi_document()))
    assert len(found) > 15
    assert found <= set(FORMS), found - set(FORMS)


@pytest.mark.parametrize("pattern", FORMS)
def test_msgspec_says_a_pattern_as_it_is_known_here(pattern):
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert("\n\x00", Annotated[str, msgspec.Meta(pattern=pattern)])
    assert in_words(str(refused.value)) == f"must be {FORMS[pattern]}"


@pytest.mark.parametrize(
    "body, message, field",
    [
        (b"", "body: is missing: this request needs a JSON body", "body"),
        (b"[]", "body: must be an object, not a list", "body"),
        (b"{}", "address: is missing", "address"),
        (b'{"address":5}', "address: must be a text, not a whole number", "address"),
        (b'{"address":"0x"}', "address: must have at least 42 characters", "address"),
        (b'{"address":"' + b"z" * 42 + b'"}',
         "address: must be 0x and 64 hexadecimal digits (Sui) or 40 (Ethereum)", "address"),
        (b'{"address":"0x' + b"0" * 40 + b'","z":1}', "z: is no field of this request", "z"),
        (b'{"address":"0x' + b"0" * 40 + b'","purpose":"y"}',
         "purpose: 'y' is none of the values allowed: link_wallet, sign_in, step_up", "purpose"),
    ],
    ids=["empty", "list", "missing", "kind", "short", "form", "unknown", "enum"],
)  # fmt: skip
async def test_a_body_that_does_not_fit_is_refused_in_words(body, message, field):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://x") as client:
        headers = {"content-type": "application/json"}
        answer = await client.post("/v1/auth/nonce", content=body, headers=headers)
    error = json.loads(answer.content)["error"]
    assert (answer.status_code, error["message"], error["details"]["field"]) == (400, message, field)


def test_a_place_deep_in_the_body_is_named_whole():
    def refused(key, said, place):
        error = ValidationException(extra=[{"key": key, "message": said, "source": "body"}])
        error.__cause__ = msgspec.ValidationError(f"{said} - at `$.data.{place}`")
        return as_api_error(error).details["field"]

    assert refused("metaduration", "Expected `int`, got `str`", "metadata.duration") == "metadata.duration"
    assert refused("items[2].name", "Expected `str`, got `int`", "items[2].name") == "items[2].name"
    assert refused("metadata", "Object contains unknown field `duration_seconds`", "metadata") == (
        "metadata.duration_seconds"
    )


@pytest.mark.parametrize(
    "amount, rule",
    [("0", "above 0, with at most 6 decimals"), ("1.0000001", "above 0, with at most 6 decimals"),
     ("9223372036854.775808", "at most 9223372036854.775807"), ("1" + "0" * 19, "at most 9223372036854.775807")],
)  # fmt: skip
def test_an_amount_that_is_refused_says_which_bound_it_breaks(amount, rule):
    with pytest.raises(ApiError, match=f"amount: must be {re.escape(rule)}$"):
        units_of(amount, 6, field="amount")
    assert units_of("9223372036854.775807", 6) == 2**63 - 1


def test_the_document_guides_and_each_route_says_what_it_does():
    document = openapi_document()
    guide = document["info"]["description"]
    bound = f"{BODY_BYTES_MAX // 1024} KiB"
    for word in ("/v1/auth/nonce", "X-CSRF-Token", "Idempotency-Key", "RateLimit-Limit", "next_cursor", bound):
        assert word in guide
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert set(operation["tags"]) <= described, path
            summary, more = operation["summary"], operation.get("description")
            assert " " in summary, (method, path)
            assert more is None or more and summary.lower() not in more.lower(), f"{method} {path} says it twice"
            for parameter in operation.get("parameters", []):
                if parameter.get("required"):
                    assert {"type": "null"} not in parameter["schema"].get("oneOf", []), (method, path)


def test_routes_that_need_a_key_say_so():
    paths = openapi_document()["paths"]

    def needs(path, method="post"):
        (key,) = [each for each in paths[path][method]["parameters"] if each["name"] == "Idempotency-Key"]
        return key["required"]

    for path in ("/v1/withdrawals", "/v1/payouts", "/v1/purchases", "/v1/payments/intents", "/v1/transfers",
                 "/v1/copyrights", "/v1/tokens", "/v1/licenses", "/v1/licenses/{license_id}/pay"):  # fmt: skip
        assert needs(path), path
    assert not needs("/v1/orders") and not needs("/v1/works")


def test_choices_are_found_at_their_place_in_a_body() -> None:
    """Of a word, in a list of objects, where null may stand too; a field that is open, or unknown, has none."""
    kinds = ["any", "content_purchase", "rental", "ppv", "licence_fee", "product_sale", "coin_spend"]
    assert sorted(choices(RuleRequest, "revenue_kind")) == sorted(kinds)
    assert choices(list[RuleRequest] | None, "[...].revenue_kind") == choices(RuleRequest, "revenue_kind")
    assert choices(Literal["a", "b"] | None, "body") == ["a", "b"]
    assert choices(RuleRequest, "effective_from") == choices(RuleRequest, "nothing") == []


async def test_the_choices_of_every_route_can_be_asked_for():
    """The handler of errors asks for them: a type of ours that it cannot read would be our own failure."""
    asked = 0
    for route in app().app.routes:
        for handler, model in getattr(route, "route_handler_map", {}).values():
            fields = [handler.parsed_data_field] if handler.parsed_data_field else []
            names = {parameter.field_alias for parameter in model.expected_query_params}
            fields += [field for name, field in handler.parsed_fn_signature.parameters.items() if name in names]
            for field in fields:
                assert isinstance(choices(field.annotation, "body"), list)
                asked += 1
    assert asked > 150
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://x") as client:
        answer = await client.get("/v1/works", params={"sort": "best"})
    assert answer.json()["error"]["message"] == "sort: 'best' is none of the values allowed: newest, oldest, title"
