"""The public answer to a verification code: the lineage of a licence, its validity, its history. No personal data."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import timestamp
from platform_api.kernel.context import Kernel
from platform_api.licensing import queries
from platform_api.licensing.licenses import moment, why_not
from platform_api.licensing.models import Authorization, AuthorizationEvent, Link
from platform_api.works.service import WorkService

__all__ = ["Authorizations"]

CODE = re.compile(r"[A-Z2-7]{32}")


class Authorizations:
    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._catalog = kernel.service(WorkService).catalog

    async def read(self, code: str) -> Authorization:
        """Raises ApiError NOT_FOUND."""
        at = datetime.now(UTC)
        async with self._database.connection() as db:
            node = await _node(db, code)
            chain = await queries.chain(db, node["license_id"], at)
            title = await self._catalog.title(db, node["work_id"])
        links = [
            Link(
                row["depth"], why_not(chain[: place + 1], at) is None, row["license_type"], list(row["territories"]),
                list(row["scope"]), moment(row["starts_at"]), moment(row["ends_at"]),
            )
            for place, row in enumerate(chain)
        ]  # fmt: skip
        return Authorization(code, node["active"] and links[-1].valid, str(node["work_id"]), title, links)

    async def license_of(self, db: Any, code: str) -> UUID:
        """Raises ApiError NOT_FOUND."""
        found: UUID = (await _node(db, code))["license_id"]
        return found

    async def history(
        self, code: str, cursor: str | None, limit: int
    ) -> tuple[list[AuthorizationEvent], Pagination]:
        """What happened to the licence of the code, the oldest first. Raises ApiError NOT_FOUND."""
        (after,) = cursor_from(cursor, int) or (None,)
        async with self._database.connection() as db:
            node = await _node(db, code)
            rows = await queries.license_events(db, node["license_id"], after, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["number"],))
        return [
            AuthorizationEvent(row["what"], timestamp(row["at"]), moment(row["ends_at"])) for row in rows
        ], pagination


async def _node(db: Any, code: str) -> Any:
    node = await queries.node_of_code(db, code) if CODE.fullmatch(code) else None
    if node is None:
        raise unknown("authorization")
    return node
