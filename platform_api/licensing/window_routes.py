"""Routes of release windows and availability."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, IfMatch, Limit, ok, path_id, tagged
from platform_api.licensing.service import LicensingService
from platform_api.licensing.window_models import BulkRequest, Window, WindowPatch, WindowRequest, WorkAvailability
from platform_api.openapi import BEARER, failures
from platform_api.routing import CHANGES, READS_ONE, AnyRequest, Visitor, Who

__all__ = ["AvailabilityController", "WindowController", "WorkWindowsController"]

Licensing = NamedDependency[LicensingService]
Territory = Annotated[
    str | None, QueryParameter(required=True, min_length=2, max_length=2, pattern=r"^[A-Z]{2}$(?!\n)")
]
"""The document says that it is needed; its lack is answered behind that of the work."""


class WorkWindowsController(Controller):
    path = "/v1/works/{work_id:str}/windows"
    tags = ("licensing",)

    @get("/", responses=READS_ONE)
    async def list_windows(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, licensing: Licensing,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Window]]:  # fmt: skip
        """Where, when and how a work can be seen or bought: planned, open and closed windows, by their beginnings.

        Of a work that is not published, for those who make it.
        """
        return ok(request, *await licensing.windows.list_of(visitor, path_id(work_id, "work"), cursor, limit))


class WindowController(Controller):
    path = "/v1/windows"
    tags = ("licensing",)
    security = BEARER

    @post("/", responses=CHANGES)
    async def add(
        self, request: AnyRequest, data: JSONBody[WindowRequest], caller: Who, licensing: Licensing
    ) -> Response[Envelope[Window]]:
        """Plan a window of an own work, or of one that the caller may distribute.

        Who may distribute it names the `license_id` and stays within that licence. 409 `window_overlap` where one of
        its type stands at that time, or one of two is exclusive; 409 `exclusivity_clash` where that right was sold.
        """
        window = await licensing.windows.add(caller, data)
        return tagged(ok(request, window), window.version)

    @patch("/{window_id:str}", responses=CHANGES)
    async def change(
        self, request: AnyRequest, window_id: FromPath[str], data: JSONBody[WindowPatch], caller: Who,
        licensing: Licensing, if_match: IfMatch = None,
    ) -> Response[Envelope[Window]]:  # fmt: skip
        """Change a window; of an open one its end and its price alone.

        By who may open it. 409 `window_open` for any other field of an open one, `window_over` once it has ended.
        """
        window = await licensing.windows.change(caller, path_id(window_id, "window"), data, if_match)
        return tagged(ok(request, window), window.version)

    @delete("/{window_id:str}", status_code=200, responses=CHANGES)
    async def end(
        self, request: AnyRequest, window_id: FromPath[str], caller: Who, licensing: Licensing
    ) -> Envelope[Window]:
        """Cancel a planned window, or close an open one now.

        By who may open it. 409 `window_over` once it has ended.
        """
        return ok(request, await licensing.windows.end(caller, path_id(window_id, "window")))


class AvailabilityController(Controller):
    path = "/v1/availability"
    tags = ("licensing",)

    @get("/{work_id:str}", responses=READS_ONE)
    async def one(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, licensing: Licensing,
        territory: Territory = None, at: FromQuery[datetime | None] = None,
    ) -> Envelope[WorkAvailability]:  # fmt: skip
        """Which release windows of a work are open in a territory (ISO 3166-1), now or `at` a moment.

        `available`: one is at least. What a work is sold and rented for on this platform itself needs no window:
        `GET /v1/works/{work_id}/offers`.
        """
        found = await licensing.windows.availability(visitor, path_id(work_id, "work"), territory, at)
        return ok(request, found)

    @post("/bulk", status_code=200, responses=failures(400, 401, 403, 429, 503))
    async def bulk(
        self, request: AnyRequest, data: JSONBody[BulkRequest], licensing: Licensing
    ) -> Envelope[list[WorkAvailability]]:
        """The same for up to 200 works, in the order asked. One that is not public is not available."""
        return ok(request, await licensing.windows.bulk(data))
