"""Reading the audit trail, which is itself no act that is audited; and how far the projections are."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from platform_api.admin import queries
from platform_api.admin.models import AuditEntry, Projection
from platform_api.envelope import Pagination, cursor_from, page
from platform_api.errors import timestamp
from platform_api.kernel.context import Kernel
from platform_api.moments import checked_moment

__all__ = ["AdminService"]


class AdminService:
    def __init__(self, kernel: Kernel) -> None:
        self._database, self._processes = kernel.database, kernel.status

    async def audit_entries(
        self,
        *,
        actor_id: UUID | None,
        action: str | None,
        resource_type: str | None,
        resource_id: str | None,
        since: datetime | None,
        until: datetime | None,
        cursor: str | None,
        limit: int,
    ) -> tuple[list[AuditEntry], Pagination]:
        """The latest first. Raises ApiError VALIDATION_ERROR: a time that is none, a bad cursor."""
        (before,) = cursor_from(cursor, int) or (None,)
        wanted = {
            "actor_id": actor_id, "action": action, "resource_type": resource_type, "resource_id": resource_id,
        }  # fmt: skip
        since = None if since is None else checked_moment(since, "since")
        until = None if until is None else checked_moment(until, "until")
        filters = {column: value for column, value in wanted.items() if value is not None}
        async with self._database.connection() as db:
            rows = await queries.audit_entries(db, filters, since, until, before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["position"],))
        return [_entry(row) for row in rows], pagination

    async def projections(self) -> list[Projection]:
        told = self._processes.read().get("core", {}).get("released_sequence")
        async with self._database.connection() as db:
            rows = await queries.projections(db)
        return [
            Projection(
                row["name"], row["sequence"], None if told is None else max(0, int(told) - row["sequence"]),
                timestamp(row["updated_at"]),
            )
            for row in rows
        ]  # fmt: skip


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        id=str(row["id"]),
        recorded_at=timestamp(row["recorded_at"]),
        actor_id=str(row["actor_id"]) if row["actor_id"] else None,
        action=row["action"],
        resource_type=row["resource_type"],
        resource_id=row["resource_id"],
        old_values=msgspec.json.decode(row["old_values"]) if row["old_values"] else None,
        new_values=msgspec.json.decode(row["new_values"]) if row["new_values"] else None,
        ip_address=str(row["ip_address"]) if row["ip_address"] else None,
        user_agent=row["user_agent"],
        request_id=row["request_id"],
        seal_number=row["seal_number"],
        hash=bytes(row["hash"]).hex() if row["hash"] else None,
    )
