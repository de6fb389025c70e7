"""Liveness, readiness, metrics. Outside of /v1, without rate limit, for the machine that runs the exchange."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from msgspec import Struct

from engine.messages.errors import Unavailable
from platform_api.database import Database
from platform_api.envelope import Envelope, ok
from platform_api.errors import ApiError, ErrorCode
from platform_api.openapi import failures
from platform_api.ops.metrics import Metrics
from platform_api.ports import CorePort
from platform_api.settings import ApiSettings

__all__ = ["OpsController"]

AnyRequest = Request[Any, Any, Any]
Settings = NamedDependency[ApiSettings]
Core = NamedDependency[CorePort]
Db = NamedDependency[Database]
Numbers = NamedDependency[Metrics]


class Health(Struct, frozen=True):
    """The process answers. `chain` says whether settlement is on the embedded chain, which is no public one."""

    status: str
    version: str
    chain: str
    embedded: bool


class Readiness(Struct, frozen=True):
    """Each part: `ready`, or what is wrong with it."""

    status: str
    parts: dict[str, str]


class OpsController(Controller):
    path = "/"
    tags = ("ops",)

    @get("/health")
    async def health(self, request: AnyRequest, settings: Settings, version: NamedDependency[str]) -> Envelope[Health]:
        """Liveness: asks nobody."""
        return ok(request, Health("ok", version, settings.chain, settings.embedded))

    @get("/ready", responses=failures(503))
    async def ready(self, request: AnyRequest, database: Db, core: Core) -> Envelope[Readiness]:
        """Readiness: 503 with the name of the missing part. Orders need the core, reads the database."""
        parts = {"core": "ready" if core.status().get("connected") else "not connected"}
        try:
            await database.fetch("SELECT name FROM exchange.market LIMIT 1")
            parts["database"] = "ready"
        except Unavailable as error:
            parts["database"] = str(error)
        missing = [name for name, state in parts.items() if state != "ready"]
        if missing:
            raise ApiError(
                ErrorCode.SERVICE_UNAVAILABLE, f"Not ready: {', '.join(missing)}.", reason="not_ready",
                details={"missing": missing, "parts": parts},
            )  # fmt: skip
        return ok(request, Readiness("ready", parts))

    @get("/metrics", include_in_schema=True, media_type="text/plain")
    async def metrics(self, metrics: Numbers) -> Response[bytes]:
        """The text format of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @get("/v1/openapi.json", include_in_schema=False)
    async def openapi(self, request: AnyRequest) -> dict[str, Any]:
        """The OpenAPI document, without an envelope."""
        return request.app.openapi_schema.to_schema()
