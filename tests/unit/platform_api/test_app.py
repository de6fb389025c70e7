"""Applications of one process: shared routes, parts of their own, and a start that fails aloud."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from litestar.routes import HTTPRoute

from platform_api.app import create_app
from platform_api.gate import Gate
from platform_api.settings import ApiSettings


def app(**values: Any) -> Gate:
    unused: Any = None
    settings = ApiSettings(postgres_dsn="postgresql:///unused", **values)
    return create_app(settings, unused, unused, unused, unused)


async def chain_of(gate: Gate) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://x") as client:
        return str((await client.get("/health")).json()["data"]["chain"])


async def test_applications_share_their_routes_and_no_part() -> None:
    one, two = app(chain="sui:one"), app(chain="sui:two")
    assert one.app is two.app and one.kernel is not two.kernel
    assert [await chain_of(gate) for gate in (one, two, one)] == ["sui:one", "sui:two", "sui:one"]


def test_what_routes_are_made_of_makes_other_routes() -> None:
    assert app(cors_origins=("https://a.example",)).app is not app().app


def test_what_a_route_needs_comes_without_tasks_of_its_own() -> None:
    routes = [route for route in app().app.routes if isinstance(route, HTTPRoute)]
    models = [model for route in routes for _, model in route.route_handler_map.values()]
    batches = [batch for model in models for batch in model.dependency_batches]
    assert max(len(model.dependency_batches) for model in models) > 1  # else this shows nothing
    assert all(len(batch) == 1 for batch in batches)


async def test_pages_of_the_origins_that_are_named_may_ask_without_cookies() -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app(cors_origins=("https://a.example",))), base_url="http://x"
    ) as client:
        for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
            asks = {"origin": origin, "access-control-request-method": "POST",
                    "access-control-request-headers": "authorization,idempotency-key"}  # fmt: skip
            before = await client.options("/v1/purchases", headers=asks)
            answer = await client.get("/v1/time", headers={"origin": origin})
            for response in (before, answer):
                assert response.headers.get("access-control-allow-origin") == allowed
                assert "access-control-allow-credentials" not in response.headers
            assert (before.status_code < 300) is (allowed is not None)


@pytest.mark.parametrize(
    ("part", "phases"), [("open", ["startup.failed"]), ("close", ["startup.complete", "shutdown.failed"])]
)
async def test_a_start_or_an_end_that_fails_is_said_and_raised(
    monkeypatch: pytest.MonkeyPatch, part: str, phases: list[str]
) -> None:
    gate, told = app(), []

    async def fails() -> None:
        raise OSError("no such disk")

    async def asks() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def takes(message: dict[str, str]) -> None:
        told.append(message)

    monkeypatch.setattr(gate.kernel.database, part, fails)
    with pytest.raises(OSError, match="no such disk"):
        await gate({"type": "lifespan"}, asks, takes)
    assert [message["type"] for message in told] == [f"lifespan.{phase}" for phase in phases]
    assert "no such disk" in told[-1]["message"]
