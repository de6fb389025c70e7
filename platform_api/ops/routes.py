"""Liveness, readiness, metrics: outside of /v1, without rate limit, for the machine that runs the exchange. Time and
status: for everybody."""

from __future__ import annotations

from typing import Any, Literal

from litestar import Controller, MediaType, Response, get
from litestar.di import NamedDependency
from msgspec import Struct

from platform_api.envelope import Envelope, ok
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.openapi import document_of, failures
from platform_api.ops.document_page import document_page
from platform_api.ops.service import OpsService
from platform_api.pages import CONTENT_POLICY
from platform_api.routing import AnyRequest
from platform_api.settings import ApiSettings
from platform_api.settlement.progress import SettlementProgress

__all__ = ["OpsController", "StatusController"]

Settings = NamedDependency[ApiSettings]
Ops = NamedDependency[OpsService]


class Health(Struct, frozen=True):
    """The process answers. `chain` says whether settlement is on the embedded chain, which is no public one."""

    status: str
    version: str
    chain: str
    embedded: bool


class Readiness(Struct, frozen=True):
    """Each part: `ready`, or what is wrong with it. `settlement` says how that stands; readiness does not hang on
    it."""

    status: str
    parts: dict[str, str]
    settlement: SettlementProgress


class Time(Struct, frozen=True):
    """The clock of the API; orders are ordered by their sequence, not by it."""

    time: str


class Status(Struct, frozen=True):
    """`degraded`: works, but later than it should. Settlement and chain alone never make the whole `down`: trading goes
    on without them.
    """

    status: Literal["operational", "degraded", "down"]
    components: dict[str, Literal["operational", "degraded", "down"]]
    settlement: SettlementProgress


class OpsController(Controller):
    path = "/"
    tags = ("ops",)

    @get("/health")
    async def health(self, request: AnyRequest, settings: Settings) -> Envelope[Health]:
        """Liveness: asks nobody."""
        return ok(request, Health("ok", request.app.state.version, settings.chain, settings.embedded))

    @get("/ready", responses=failures(503))
    async def ready(self, request: AnyRequest, ops: Ops) -> Envelope[Readiness]:
        """Readiness: 503 with the name of the missing part. Orders need the core, reads the database."""
        parts = await ops.parts()
        missing = [name for name, state in parts.items() if state != "ready"]
        if missing:
            raise ApiError(
                ErrorCode.SERVICE_UNAVAILABLE, f"Not ready: {', '.join(missing)}.", reason="not_ready",
                details={"missing": missing, "parts": parts},
            )  # fmt: skip
        return ok(request, Readiness("ready", parts, ops.settlement()))

    @get("/metrics", include_in_schema=True, media_type="text/plain")
    async def metrics(self, ops: Ops) -> Response[bytes]:
        """The text format of Prometheus. For the machine that collects them: a proxy keeps it from the public."""
        return Response(await ops.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


class StatusController(Controller):
    path = "/v1"
    tags = ("ops",)

    @get("/time", responses=failures(429))
    async def time(self, request: AnyRequest) -> Envelope[Time]:
        """The API's clock. Orders are in the order of their `sequence`, not of this."""
        return ok(request, Time(timestamp()))

    @get("/status", responses=failures(429))
    async def status(self, request: AnyRequest, ops: Ops) -> Envelope[Status]:
        """The state of each component, for a status page; answers also while parts are down.

        Each is `operational`, `degraded` or `down`, and the answer is 200 all the same.
        """
        components = await ops.components()
        needed = {state for name, state in components.items() if name not in ("settlement", "chain")}
        worst = "down" if "down" in needed else "operational"
        if worst == "operational" and any(state != "operational" for state in components.values()):
            worst = "degraded"
        return ok(request, Status(worst, components, ops.settlement()))  # type: ignore[arg-type]

    @get("/openapi.json", include_in_schema=False)
    async def openapi(self, request: AnyRequest) -> dict[str, Any]:
        """The OpenAPI document, without an envelope. Made once: it takes a third of a second."""
        return _document(request)

    @get("/openapi.html", include_in_schema=False)
    async def openapi_page(self, request: AnyRequest) -> Response[str]:
        """The same as a page for people."""
        state = request.app.state
        if "document_page" not in state:
            state.document_page = document_page(_document(request))
        headers = {"content-security-policy": CONTENT_POLICY}
        return Response(state.document_page, media_type=MediaType.HTML, headers=headers)


def _document(request: AnyRequest) -> dict[str, Any]:
    state = request.app.state
    if "document" not in state:
        state.document = document_of(request.app)
    found: dict[str, Any] = state.document
    return found
