"""Uploads in parts, and the files that they become.

    receiving ──complete──▶ scanning ──job──▶ ready
        │                      └────────────▶ failed (problem)
        ├── first part is of a type that is not kept ──▶ failed
        └── a day later ──▶ expired

A part is hashed and counted while it streams to the blob store; its end is known before it is taken, and no part is
ever whole in memory. A part sent again takes the place of the first, so a transfer that broke goes on with what
`missing_parts` names. The job streams the parts into one object, hashing it as it passes, and checks it; nothing can be
read before. Hashing is done by threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, BinaryIO
from uuid import UUID, uuid4

import msgspec
import structlog

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.media import queries
from platform_api.media.blobs import BlobStore
from platform_api.media.images import IMAGES, check_image, is_too_large, size_in_head
from platform_api.media.models import FileInfo, FileUrl, PartReceived, Upload, UploadRequest
from platform_api.media.movies import check_movie
from platform_api.media.rules import IMAGE_SIDE_MAX, PIXELS_MAX, RULES, BadFile
from platform_api.media.sniff import HEAD_BYTES, TYPES, check_archive, sniff
from platform_api.security import Caller

__all__ = ["MediaService", "file_info"]

log = structlog.get_logger(__name__)

UPLOAD_TIME = timedelta(days=1)
URL_SECONDS = 300
OPEN_MAX = 20
MISSING_MAX = 100


class AssembleFile(msgspec.Struct, frozen=True):
    """A job: all parts are here."""

    upload_id: UUID


class ExpireUploads(msgspec.Struct, frozen=True):
    """A job, after each beginning: what others left unfinished a day ago goes."""


class MediaService:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._blobs = BlobStore(kernel.settings.blob_url)
        kernel.jobs.handle("content_moderation", "assemble_file", AssembleFile, self._assemble)
        kernel.jobs.handle("admin_actions", "expire_uploads", ExpireUploads, self._expire)

    # Uploads.

    async def begin(self, caller: Caller, body: UploadRequest, key: str | None) -> tuple[Upload, bool]:
        """Raises ApiError VALIDATION_ERROR, INVALID_CONTENT_FORMAT, CONFLICT."""
        settings = self._kernel.settings
        if body.size_bytes > settings.file_bytes_max:
            message = f"size_bytes: a file has at most {settings.file_bytes_max} bytes"
            raise ApiError(
                ErrorCode.VALIDATION_ERROR, message, reason="file_too_large", field="size_bytes",
                details={"max_bytes": settings.file_bytes_max},
            )  # fmt: skip
        if body.content_type not in TYPES:
            raise _not_kept(body.content_type)
        account_id = UUID(caller.account_id)

        async def change(db: Any) -> Answer:
            count, stored = await queries.stored(db, account_id)
            if count >= OPEN_MAX:
                raise ApiError(ErrorCode.CONFLICT, f"At most {OPEN_MAX} uploads at once.", reason="too_many_uploads")
            if stored + body.size_bytes > settings.account_bytes_max:
                message = f"An account keeps at most {settings.account_bytes_max} bytes."
                raise ApiError(ErrorCode.CONFLICT, message, reason="quota_exceeded")
            upload_id, part_bytes = new_id(), settings.part_bytes
            fields = {
                "name": body.name, "declared_type": body.content_type, "size_bytes": body.size_bytes,
                "part_bytes": part_bytes, "part_count": -(-body.size_bytes // part_bytes),
                "sha256": bytes.fromhex(body.sha256) if body.sha256 else None,
            }  # fmt: skip
            row = await queries.insert_upload(db, upload_id, account_id, fields, datetime.now(UTC) + UPLOAD_TIME)
            await self._kernel.jobs.enqueue(
                db, "admin_actions", "expire_uploads", ExpireUploads(), dedupe_key="expire_uploads"
            )
            return 201, msgspec.json.encode(_upload(row, [], None))

        answer, replayed = await self._kernel.idempotency.once(caller.account_id, "POST /v1/uploads", key, body, change)
        return msgspec.json.decode(answer[1], type=Upload), replayed

    async def read(self, caller: Caller, upload_id: UUID) -> Upload:
        """Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row = await self._own(db, caller, upload_id)
            return await self._shown(db, row)

    async def receive(self, caller: Caller, upload_id: UUID, number: int, chunks: AsyncIterator[bytes]) -> PartReceived:
        """One part, as it comes. No connection to the database is held meanwhile.

        Raises:
            ApiError: NOT_FOUND; CONFLICT `not_receiving`; VALIDATION_ERROR `part_too_long` or `part_too_short`;
                INVALID_CONTENT_FORMAT `type_not_allowed` or `type_mismatch` for what the first part begins with.
        """
        async with self._database.connection() as db:
            row = await self._own(db, caller, upload_id)
        if not 1 <= number <= row["part_count"]:
            raise unknown("part")
        _check_receiving(row)
        last = row["size_bytes"] - row["part_bytes"] * (row["part_count"] - 1)
        size = last if number == row["part_count"] else row["part_bytes"]
        digest = hashlib.sha256()
        storage_key = f"parts/{upload_id}/{number}-{uuid4().hex}"
        try:
            await self._blobs.write(storage_key, _counted(chunks, size, digest, row if number == 1 else None))
        except _WrongType as wrong:
            async with self._database.transaction() as db:
                gone = []
                if (await queries.lock_upload(db, upload_id))["status"] == "receiving":
                    await queries.set_status(db, upload_id, "failed", problem=wrong.problem.reason)
                    gone = [part["storage_key"] for part in await queries.parts(db, upload_id)]
                    await queries.delete_parts(db, upload_id)
            await self._blobs.delete(gone)
            raise wrong.problem from wrong
        async with self._database.transaction() as db:
            locked = await queries.lock_upload(db, upload_id)
            is_late = locked["status"] != "receiving"
            before = None if is_late else await queries.put_part(db, upload_id, number, storage_key, digest.digest())
        useless = storage_key if is_late else before
        if useless is not None:
            await self._blobs.delete([useless])
        _check_receiving(locked)
        return PartReceived(number, size, digest.hexdigest())

    async def complete(self, caller: Caller, upload_id: UUID) -> Upload:
        """Once or often: the same. Raises ApiError NOT_FOUND; CONFLICT `parts_missing` or `not_receiving`."""
        async with self._database.transaction() as db:
            await self._own(db, caller, upload_id)
            row = await queries.lock_upload(db, upload_id)
            if row["status"] in ("scanning", "ready"):
                return await self._shown(db, row)
            _check_receiving(row)
            missing = _missing(row, await queries.parts(db, upload_id))
            if missing:
                message = "Parts are missing."
                raise ApiError(ErrorCode.CONFLICT, message, reason="parts_missing", details={"missing_parts": missing})
            await queries.set_status(db, upload_id, "scanning", file_id=new_id())
            await self._kernel.jobs.enqueue(db, "content_moderation", "assemble_file", AssembleFile(upload_id))
            return await self._shown(db, await queries.lock_upload(db, upload_id))

    async def _assemble(self, job: AssembleFile) -> None:
        """Runs again from the start if it is cut off: the object has the same key."""
        async with self._database.connection() as db:
            upload = await queries.lock_upload(db, job.upload_id)
            parts = await queries.parts(db, job.upload_id)
        if upload["status"] != "scanning":
            return
        storage_key = f"files/{upload['file_id']}"
        digest = hashlib.sha256()
        await self._blobs.write(storage_key, self._joined(parts, digest))
        type_, problem = await self._checked(upload, storage_key, digest.digest())
        async with self._database.transaction() as db:
            if (await queries.lock_upload(db, job.upload_id))["status"] != "scanning":
                return
            subject = ("file", str(upload["file_id"]))
            if problem is None and type_ is not None:
                await queries.insert_file(db, upload, storage_key, type_, digest.digest())
                await queries.set_status(db, job.upload_id, "ready")
                facts = {"type": type_, "size_bytes": upload["size_bytes"]}
                await self._kernel.events.publish(db, "file.ready", subject, facts, actor=upload["account_id"])
            else:
                await queries.set_status(db, job.upload_id, "failed", problem=problem)
                await self._kernel.events.publish(db, "file.quarantined", subject, {"problem": problem},
                                                  actor=upload["account_id"])  # fmt: skip
            await queries.delete_parts(db, job.upload_id)
        gone = [part["storage_key"] for part in parts]
        await self._blobs.delete(gone if problem is None else [*gone, storage_key])

    async def _joined(self, parts: list[Any], digest: Any) -> AsyncIterator[bytes]:
        for part in parts:
            async for chunk in self._blobs.read(part["storage_key"]):
                await asyncio.to_thread(digest.update, chunk)
                yield chunk

    async def _checked(self, upload: Any, storage_key: str, sha256: bytes) -> tuple[str | None, str | None]:
        """The type of the object, or the word for what is wrong with it."""
        head = b"".join([chunk async for chunk in self._blobs.read(storage_key, 0, HEAD_BYTES)])
        type_ = sniff(head)
        if upload["sha256"] is not None and not hmac.compare_digest(bytes(upload["sha256"]), sha256):
            return None, "sha256_mismatch"
        if type_ is None or type_ not in TYPES:
            return None, "type_not_allowed"
        check = _check_of(type_)
        if check is not None:
            try:
                await asyncio.to_thread(self._blobs.reading, storage_key, check)
            except BadFile as error:
                return None, str(error)
        return type_, None

    async def _expire(self, _: ExpireUploads) -> None:
        async with self._database.transaction() as db:
            parts = await queries.expire_due(db)
        await self._blobs.delete(parts)

    # Files, also for other contexts.

    async def owned(self, db: Any, account_id: UUID, file_ids: list[UUID], field: str) -> dict[UUID, FileInfo]:
        """Checked files of the account. Raises ApiError VALIDATION_ERROR `unknown_file` if any is not."""
        rows = await queries.own_files(db, account_id, file_ids)
        if {row["id"] for row in rows} != set(file_ids):
            message = f"{field}: must be files of your own that are ready"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_file", field=field)
        return {row["id"]: file_info(row) for row in rows}

    async def hold(self, db: Any, file_ids: list[UUID]) -> None:
        """Whether they are public is said by nobody else until the transaction ends: before who asks looks at what else
        shows them, which may be changed at the same instant."""
        await queries.lock_files(db, file_ids)

    async def set_public(self, db: Any, file_ids: list[UUID], public: bool) -> None:
        """Whether everybody may read them: previews, posters, images of what is published."""
        await queries.set_public(db, file_ids, public)

    async def url(self, caller: Caller | None, file_id: UUID) -> FileUrl:
        """For the owner, and for everybody if the file is public. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row = await queries.file(db, file_id)
        is_owner = row is not None and caller is not None and str(row["account_id"]) == caller.account_id
        if row is None or not (row["public"] or is_owner):
            raise unknown("file")
        return self.signed_url(file_id)

    def signed_url(self, file_id: UUID) -> FileUrl:
        """For contexts that know who may read: a buyer, a licensee."""
        expires = int(time.time()) + URL_SECONDS
        url = f"/v1/files/{file_id}/content?expires={expires}&signature={self._signature(file_id, expires)}"
        return FileUrl(url, timestamp(datetime.fromtimestamp(expires, UTC)))

    async def open(self, file_id: UUID, expires: int, signature: str) -> Any:
        """The row of a file whose URL was signed by us. Raises ApiError NOT_FOUND for any other."""
        good = hmac.compare_digest(self._signature(file_id, expires).encode(), signature.encode())
        if not good or expires < time.time():
            raise unknown("file")
        async with self._database.connection() as db:
            row = await queries.file(db, file_id)
        if row is None:
            raise unknown("file")
        return row

    def content(self, row: Any, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes from `start` to before `end`."""
        return self._blobs.read(row["storage_key"], start, end)

    def _signature(self, file_id: UUID, expires: int) -> str:
        return self._kernel.sealer.digest("file_url", f"GET {file_id} {expires}").hex()

    # Inside.

    async def _own(self, db: Any, caller: Caller, upload_id: UUID) -> Any:
        row = await queries.own_upload(db, upload_id, UUID(caller.account_id))
        if row is None:
            raise unknown("upload")
        return row

    async def _shown(self, db: Any, row: Any) -> Upload:
        parts = await queries.parts(db, row["id"]) if row["status"] == "receiving" else []
        file = await queries.file(db, row["file_id"]) if row["status"] == "ready" else None
        return _upload(row, parts, file)


class _WrongType(Exception):
    def __init__(self, problem: ApiError) -> None:
        super().__init__(problem.message)
        self.problem = problem


async def _counted(chunks: AsyncIterator[bytes], size: int, digest: Any, first_of: Any) -> AsyncIterator[bytes]:
    """The same chunks, hashed; exactly `size` bytes, or ApiError. `first_of`: the upload whose first part this is."""
    count, head = 0, b""
    waiting: list[bytes] = []
    async for chunk in chunks:
        count += len(chunk)
        if count > size:
            message = f"The part has more than {size} bytes."
            raise ApiError(
                ErrorCode.VALIDATION_ERROR, message, reason="part_too_long", field="body",
                details={"expected_bytes": size},
            )  # fmt: skip
        if len(chunk) > 65_536:
            await asyncio.to_thread(digest.update, chunk)
        else:
            digest.update(chunk)
        if first_of is not None:  # nothing is stored before the type is known
            head += chunk
            waiting.append(chunk)
            if len(head) < HEAD_BYTES and count < size:
                continue
            _check_type(head[:HEAD_BYTES], first_of["declared_type"])
            first_of = None
            for kept in waiting:
                yield kept
            continue
        yield chunk
    if count < size:
        message = f"The part has {count} bytes of {size}: send it again."
        raise ApiError(
            ErrorCode.VALIDATION_ERROR, message, reason="part_too_short", field="body",
            details={"expected_bytes": size, "received_bytes": count},
        )  # fmt: skip


def _check_type(head: bytes, declared: str) -> None:
    found = sniff(head)
    if found not in TYPES:
        raise _WrongType(_not_kept(found or "unknown"))
    if found != declared:
        message = f"The file is {found}, not {declared}."
        raise _WrongType(
            ApiError(
                ErrorCode.INVALID_CONTENT_FORMAT, message, reason="type_mismatch", field="content_type",
                details={"found": found, "declared": declared},
            )
        )  # fmt: skip
    size = size_in_head(io.BytesIO(head), found) if found in IMAGES else None
    if size is not None and is_too_large(size):
        raise _WrongType(
            ApiError(
                ErrorCode.INVALID_CONTENT_FORMAT, RULES["image_too_large"], reason="image_too_large", field="body",
                details={"width": size[0], "height": size[1], "max_pixels": PIXELS_MAX, "max_side": IMAGE_SIDE_MAX},
            )
        )  # fmt: skip


def _check_of(type_: str) -> Callable[[BinaryIO], None] | None:
    """What more than its first bytes is looked at."""
    if type_ in IMAGES:
        return partial(check_image, type_=type_)
    return {"application/epub+zip": check_archive, "video/mp4": check_movie, "audio/mp4": check_movie}.get(type_)


def _not_kept(type_: str) -> ApiError:
    return ApiError(
        ErrorCode.INVALID_CONTENT_FORMAT, f"Files of type {type_} are not kept.", reason="type_not_allowed",
        field="content_type", details={"found": type_, "allowed": list(TYPES)},
    )  # fmt: skip


def _check_receiving(row: Any) -> None:
    if row["status"] != "receiving":
        message = f"This upload is {row['status']}."
        problem = {"problem": row["problem"], "rule": RULES.get(row["problem"], "")} if row["problem"] else {}
        details = {"status": row["status"]} | problem
        raise ApiError(ErrorCode.CONFLICT, message, reason="not_receiving", details=details)


def _missing(row: Any, parts: list[Any]) -> list[int]:
    here = {part["number"] for part in parts}
    return [number for number in range(1, row["part_count"] + 1) if number not in here][:MISSING_MAX]


def file_info(row: Any) -> FileInfo:
    return FileInfo(
        str(row["id"]), row["name"], row["type"], row["size_bytes"], bytes(row["sha256"]).hex(),
        timestamp(row["created_at"]),
    )  # fmt: skip


def _upload(row: Any, parts: list[Any], file: Any) -> Upload:
    missing = _missing(row, parts) if row["status"] == "receiving" else []
    return Upload(
        str(row["id"]), row["name"], row["declared_type"], row["size_bytes"], row["part_bytes"], row["part_count"],
        missing, row["status"], row["problem"], RULES.get(row["problem"]),
        file_info(file) if file is not None else None, timestamp(row["created_at"]), timestamp(row["expires_at"]),
    )  # fmt: skip
