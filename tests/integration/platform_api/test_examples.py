"""The examples of the OpenAPI document, sent as they stand."""

import pytest

from platform_api.app import openapi_document
from tests.integration.platform_api.test_surface import operations
from tests.unit.platform_api.test_sui_signature import Wallet

OF_THE_WORLD = ("unknown_account", "unknown_terms", "unknown_work")
"""Reasons of refusals that an example cannot foresee: ids of what there is."""


@pytest.mark.parametrize(
    "world",
    [{"catalogue_per_hour": 0, "embedded": True, "test_payments": True, "faucet": {"USDC": "10000", "INK": "100"}}],
    indirect=True,
)  # fmt: skip
async def test_every_example_can_be_pasted(world):
    """Sent as it stands by somebody who may do everything, none is refused for what it says."""
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    wallet = Wallet(0)
    session, bearer = await world.sign_in(wallet)
    await world.data("POST", "/v1/creators", headers=bearer, json={"display_name": "Example"})
    for role in ("admin", "operator", "studio", "moderator", "creator"):
        await world.grant(session["account_id"], role)
    _, bearer = await world.sign_in(wallet)
    await world.step_up(wallet, bearer)
    refused, pasted = [], 0
    for method, path, operation in operations(openapi_document()):
        if path == "/v1/auth/logout" or path.startswith("/v1/webhooks/"):  # its end; a body in the provider's words
            continue
        headers, query, filled = dict(bearer), {}, path
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                filled = filled.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
            elif parameter["in"] == "query" and parameter["example"] is not None:
                query[parameter["name"]] = parameter["example"]
            elif parameter["in"] == "header" and parameter.get("required"):
                headers[parameter["name"]] = str(parameter["example"])
        content = operation.get("requestBody", {}).get("content", {})
        body = {"json": content["application/json"]["example"]} if "application/json" in content else {}
        if "application/octet-stream" in content:
            body = {"content": b"bytes"}
            headers["content-type"] = "application/octet-stream"
        answer = await world.client.request(method.upper(), filled, headers=headers, params=query, **body)
        pasted += 1
        if answer.status_code == 400 and answer.json()["error"]["details"]["reason"] not in OF_THE_WORLD:
            refused.append(f"{method} {path}: {answer.json()['error']['message']}")
    assert not refused, "\n".join(refused)
    assert pasted > 150
