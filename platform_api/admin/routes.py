"""Routes of admin."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from platform_api.admin.models import AuditEntry, Projection
from platform_api.admin.service import AdminService
from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok
from platform_api.openapi import BEARER, failures
from platform_api.routing import AnyRequest
from platform_api.security import permitted

__all__ = ["AdminController"]

Word = Annotated[str | None, QueryParameter(max_length=80)]


class AdminController(Controller):
    path = "/v1/admin"
    tags = ("admin",)
    security = BEARER

    @get("/audit-logs", guards=[permitted("audit_logs")], responses=failures(400, 401, 403, 429, 503))
    async def audit_logs(
        self,
        request: AnyRequest,
        admin: NamedDependency[AdminService],
        actor_id: FromQuery[UUID | None] = None,
        action: Word = None,
        resource_type: Word = None,
        resource_id: Word = None,
        since: FromQuery[datetime | None] = None,
        until: FromQuery[datetime | None] = None,
        limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[AuditEntry]]:
        """Who did what, the latest first. Needs `audit_logs`."""
        found = await admin.audit_entries(
            actor_id=actor_id, action=action, resource_type=resource_type, resource_id=resource_id, since=since,
            until=until, cursor=cursor, limit=limit,
        )  # fmt: skip
        return ok(request, *found)

    @get("/projections", guards=[permitted("operate_settlement", "system_maintenance", either=True)],
         responses=failures(401, 403, 429, 503))  # fmt: skip
    async def projections(
        self, request: AnyRequest, admin: NamedDependency[AdminService]
    ) -> Envelope[list[Projection]]:
        """How far each projection of the core's events is, and how far behind the core. Needs `system_maintenance` or
        `operate_settlement`."""
        return ok(request, await admin.projections())
