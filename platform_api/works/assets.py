"""Files of a work in their roles. A file is one of the owner's that was checked; adding or removing makes a version."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.media.models import FileInfo
from platform_api.media.service import MediaService
from platform_api.security import Caller
from platform_api.works import queries
from platform_api.works.catalog import PUBLIC_ROLES, Catalog, check_open
from platform_api.works.models import Asset, AssetRequest

__all__ = ["Assets"]

ASSETS_MAX = 500
SHOWN_TYPES = {"poster": ("image/",), "image": ("image/",), "trailer": ("video/", "audio/")}
MASTER_TYPES = {
    "film": ("video/",), "video": ("video/",), "audio": ("audio/",), "document": ("application/", "text/"),
}  # fmt: skip
"""What the work itself may be, by its kind; any other kind is of whatever it consists of. A work may have several
masters, as formats of a document, or the next one before the last is taken away."""


class Assets:
    def __init__(self, kernel: Kernel, catalog: Catalog) -> None:
        self._database = kernel.database
        self._catalog = catalog
        self._media = kernel.service(MediaService)

    async def list_of(self, visitor: Caller | None, work_id: UUID) -> list[Asset]:
        """Masters and attachments only for those inside. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            _, inside = await self._catalog.visible(db, visitor, work_id)
            rows = await queries.assets(db, work_id)
        return [_asset(row) for row in rows if inside or row["shown"] and row["role"] in PUBLIC_ROLES]

    async def of_buyer(self, db: Any, work_id: UUID, since: datetime) -> list[tuple[str, str, UUID]]:
        """Role, name and file of what a buyer of the work gets: masters and attachments, also those that were removed
        after the purchase, `since`."""
        rows = await queries.assets_since(db, work_id, since)
        return [(row["role"], row["name"], row["file_id"]) for row in rows if row["role"] not in PUBLIC_ROLES]

    async def add(self, caller: Caller, work_id: UUID, body: AssetRequest) -> Asset:
        """Raises ApiError NOT_FOUND; CONFLICT `asset_exists`; VALIDATION_ERROR `unknown_file` or `wrong_type`."""
        account_id = UUID(caller.account_id)
        async with self._database.transaction() as db:
            work = await self._catalog.lock_own(db, caller, work_id)
            check_open(work)
            file = (await self._media.owned(db, account_id, [body.file_id], "file_id"))[body.file_id]
            types = MASTER_TYPES.get(work["kind"]) if body.role == "master" else SHOWN_TYPES.get(body.role)
            if types is not None and not file.content_type.startswith(types):
                message = f"file_id: the {body.role} of a {work['kind']} cannot be {file.content_type}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="wrong_type", field="file_id")
            if len(await queries.assets(db, work_id)) >= ASSETS_MAX:
                raise ApiError(ErrorCode.CONFLICT, f"At most {ASSETS_MAX} files.", reason="too_many_assets")
            asset_id = new_id()
            if not await queries.insert_asset(db, asset_id, work_id, body.role, body.file_id, file):
                message = f"The work has this file as {body.role} already."
                raise ApiError(ErrorCode.CONFLICT, message, reason="asset_exists")
            if work["status"] == "published" and body.role in PUBLIC_ROLES:
                await self._catalog.show_files(db, [body.file_id])
            await self._catalog.note_version(db, work_id, f"{body.role} added", account_id)
            return next(_asset(row) for row in await queries.assets(db, work_id) if row["id"] == asset_id)

    async def remove(self, caller: Caller, work_id: UUID, asset_id: UUID) -> None:
        """Earlier versions still name it. Raises ApiError NOT_FOUND; CONFLICT `last_master` of what is published."""
        async with self._database.transaction() as db:
            work = await self._catalog.lock_own(db, caller, work_id)
            check_open(work)
            rows = await queries.assets(db, work_id)
            gone = next((row for row in rows if row["id"] == asset_id), None)
            if gone is None:
                raise unknown("asset")
            others = [row for row in rows if row["id"] != asset_id]
            is_bare = not any(row["role"] == "master" for row in others) and gone["role"] == "master"
            if work["status"] == "published" and is_bare and not await queries.has_published_chapter(db, work_id):
                raise ApiError(ErrorCode.CONFLICT, "A published work keeps a master file.", reason="last_master")
            await queries.remove_asset(db, asset_id, work_id)
            still_shown = any(row["file_id"] == gone["file_id"] and row["role"] in PUBLIC_ROLES for row in others)
            if gone["role"] in PUBLIC_ROLES and not still_shown:
                await self._catalog.hide_files(db, work_id, [gone["file_id"]])
            await self._catalog.note_version(db, work_id, f"{gone['role']} removed", UUID(caller.account_id))


def _asset(row: Any) -> Asset:
    file = FileInfo(
        str(row["file_id"]), row["name"], row["type"], row["size_bytes"], bytes(row["sha256"]).hex(),
        timestamp(row["created_at"]),
    )  # fmt: skip
    return Asset(str(row["id"]), row["role"], file)
