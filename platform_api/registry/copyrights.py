"""Registrations as their authors ask for them and as everybody may check them.

What is registered of a work is a version of it: a list with the digest of each file and chapter, never an empty one
(`works.catalog.content_of`). Of a chapter it is the text or the file itself. A registration shows that somebody had
this very content at that time. It does not show who made it, and every answer says so. What is not published stays
unknown: the public answer has no title and no author of it, nor a title that nobody has looked at who should.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from platform_api.creators.service import CreatorService
from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.registry import queries
from platform_api.registry.models import ChainTransaction, CopyrightCheck, Registration, RegistrationRequest
from platform_api.security import Caller
from platform_api.works.catalog import SERIALS
from platform_api.works.service import WorkService

__all__ = ["PROVES", "Copyrights", "covered", "moment"]

PROVES = (
    "It proves that whoever signed in with this wallet had exactly this content at the time of registration."
    " It does not prove who made the content."
)
OF_CHAPTER = "The text, or the file, of one chapter."
OF_WORK = "A list of the work's title and description, with the SHA-256 digest of each of its files and chapters."
OF_FILES = "A list of the work's title and description, with the SHA-256 digest of each of its files, of no chapter."
"""Of the time when versions did not name chapters (docs/decisions/0068)."""
_DIGEST = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")
"""32 bytes in base58."""
OPEN_MAX = 100
"""Of one account on their way at once: each costs the operator gas."""
A_DAY = 300
"""Of one account, in any 24 hours."""


class Copyrights:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database, self._settings = kernel.database, kernel.settings
        self._works = kernel.service(WorkService)
        self._creators = kernel.service(CreatorService)

    async def register(self, caller: Caller, body: RegistrationRequest, key: str) -> tuple[Registration, bool]:
        """Writes down what is to be registered; the back office brings it to the chain.

        Raises:
            ApiError: VALIDATION_ERROR, FORBIDDEN `sui_wallet_needed`, NOT_FOUND `unknown_work` `unknown_chapter`
                `unknown_version`, CONFLICT `nothing_to_register` `already_registered` `hash_registered`
                `not_editable` `too_many_registrations` `too_many_registrations_a_day`.
        """
        if (body.work_id is None) == (body.chapter_id is None):
            message = "work_id: name either a work or a chapter"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="work_id")
        if len(caller.address) != 66:
            message = "The chain names the author's wallet: sign in with a Sui wallet."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="sui_wallet_needed")

        async def change(db: Any) -> Answer:
            work, version = await self._content(db, caller, body)
            await self._check_open(db, caller)
            creator = await self._creators.own(db, caller)
            assert creator is not None, "a work has a creator"
            sha256 = bytes(version["sha256"])
            row = await queries.insert_registration(db, {
                "id": new_id(), "account_id": UUID(caller.account_id), "creator_id": work["creator_id"],
                "work_id": work["id"], "chapter_id": body.chapter_id, "number": version["number"], "sha256": sha256,
                "title": work["title"] if body.work_id else f"{work['title']} – {version['title']}",
                "author": creator.display_name, "address": bytes.fromhex(caller.address[2:]),
                "uri": self.check_url(sha256),
            })  # fmt: skip
            if row is None:
                raise _taken(await queries.standing(db, sha256), caller)
            await self._kernel.audit.record(
                db, "copyright.requested", ("registration", str(row["id"])), actor=caller.account_id,
                new={"work_id": str(work["id"]), "sha256": sha256.hex(), "address": caller.address},
            )  # fmt: skip
            return 201, msgspec.json.encode(self._registration(row))

        answer, replayed = await self._kernel.idempotency.once(
            caller.account_id, "POST /v1/copyrights", key, body, change
        )
        return msgspec.json.decode(answer[1], type=Registration), replayed

    async def of_work(
        self, caller: Caller, work_id: UUID, cursor: str | None, limit: int
    ) -> tuple[list[Registration], Pagination]:
        """Of all versions of a work and its chapters, the latest first, for those inside. Raises ApiError NOT_FOUND."""
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            await self._works.catalog.check_inside(db, caller, work_id)
            rows = await queries.registrations(db, work_id, before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [self._registration(row) for row in rows], pagination

    async def check(self, sha256: bytes) -> CopyrightCheck:
        """For everybody. Raises ApiError NOT_FOUND `unknown_copyright`."""
        async with self._database.connection() as db:
            row = await queries.standing(db, sha256)
            if row is None:
                raise unknown("copyright")
            certificate = await queries.certificate(db, row["id"])
            covers = await covered(self._works, db, row)
            is_public = row["work_id"] in await self._works.catalog.published(db, [row["work_id"]])
            is_known = is_public and await self._is_known(db, row)
        on_chain = row["status"] == "registered"
        return CopyrightCheck(
            sha256=sha256.hex(),
            status=row["status"],
            registered_at=moment(row["registered_at"]),
            address=_address(row) if on_chain else None,
            object_id=row["object_id"],
            digest=row["digest"],
            work_id=str(row["work_id"]) if is_public else None,
            title=row["title"] if is_known else None,
            author=row["author"] if is_public else None,
            certificate_sha256=bytes(certificate["sha256"]).hex() if certificate else None,
            signer_sha256=bytes(certificate["signer_sha256"]).hex() if certificate else None,
            covers=covers,
            proves=PROVES,
            chain=self._settings.chain,
            embedded=self._settings.embedded,
        )

    async def transaction(self, digest: str) -> ChainTransaction:
        """A transaction of the registry, for everybody who knows its digest. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            row = await queries.transaction(db, digest) if _DIGEST.fullmatch(digest) else None
        if row is None:
            raise unknown("transaction")
        return ChainTransaction(
            digest=row["digest"],
            purpose=row["purpose"],
            status=row["status"],
            checkpoint=row["checkpoint"],
            gas_mist=None if row["gas_mist"] is None else str(row["gas_mist"]),
            created_at=timestamp(row["created_at"]),
            updated_at=timestamp(row["updated_at"]),
            chain=self._settings.chain,
            embedded=self._settings.embedded,
        )

    def check_url(self, sha256: bytes) -> str:
        return f"{self._settings.origin}/v1/copyrights/{sha256.hex()}"

    async def _is_known(self, db: Any, row: Any) -> bool:
        """Whether what was registered is called as readers know it, where somebody looks at works first: its author
        may have registered what was never looked at, or was rejected."""
        if not self._kernel.settings.works_need_verification:
            return True
        title = await self._works.catalog.title(db, row["work_id"])
        if row["chapter_id"] is not None:
            known = await self._works.chapters.known_title(db, row["chapter_id"], row["number"])
            title = None if known is None else f"{title} – {known}"
        return bool(row["title"] == title)

    async def _content(self, db: Any, caller: Caller, body: RegistrationRequest) -> tuple[Any, Any]:
        """The work, locked, and the version."""
        if body.work_id is not None:
            work, version = await self._works.catalog.keep_own_version(db, caller, body.work_id, body.number)
            _check_not_empty(version)
            return work, version
        assert body.chapter_id is not None
        return await self._works.chapters.own_version(db, caller, body.chapter_id, body.number)

    async def _check_open(self, db: Any, caller: Caller) -> None:
        await queries.lock_registering(db, UUID(caller.account_id))
        if await queries.open_registrations(db, UUID(caller.account_id)) >= OPEN_MAX:
            message = f"An account has at most {OPEN_MAX} registrations on their way."
            raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_registrations")
        if await queries.registrations_today(db, UUID(caller.account_id)) >= A_DAY:
            message = f"An account registers at most {A_DAY} contents in 24 hours."
            raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_registrations_a_day")

    def _registration(self, row: Any) -> Registration:
        return Registration(
            id=str(row["id"]),
            work_id=str(row["work_id"]),
            chapter_id=str(row["chapter_id"]) if row["chapter_id"] else None,
            number=row["number"],
            sha256=bytes(row["sha256"]).hex(),
            title=row["title"],
            author=row["author"],
            address=_address(row),
            status=row["status"],
            reason=row["reason"],
            object_id=row["object_id"],
            digest=row["digest"],
            registered_at=moment(row["registered_at"]),
            created_at=timestamp(row["created_at"]),
            check_url=row["uri"],
            chain=self._settings.chain,
            embedded=self._settings.embedded,
        )


def _check_not_empty(version: Any) -> None:
    """Else whoever has the idea of a title would keep it from all others."""
    content = msgspec.json.decode(bytes(version["content"]))
    if not content["files"] and not content.get("chapters"):  # versions of long ago name no chapters
        message = f"Version {version['number']} of the work names neither a file nor a chapter."
        raise ApiError(
            ErrorCode.CONFLICT, message, reason="nothing_to_register", details={"number": version["number"]}
        )


async def covered(works: WorkService, db: Any, row: Any) -> str:
    """In words, what the digest of a registration is of."""
    if row["chapter_id"] is not None:
        return OF_CHAPTER
    content = msgspec.json.decode(await works.catalog.version_content(db, row["work_id"], row["number"]))
    return OF_WORK if "chapters" in content or content["kind"] not in SERIALS else OF_FILES


def moment(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at.astimezone(UTC))


def _address(row: Any) -> str:
    return "0x" + bytes(row["address"]).hex()


def _taken(row: Any, caller: Caller) -> ApiError:
    if row is not None and str(row["account_id"]) == caller.account_id:
        message = "This content is registered, or about to be."
        details = {"registration_id": str(row["id"])}
        return ApiError(ErrorCode.CONFLICT, message, reason="already_registered", details=details)
    message = "Somebody has registered exactly this: every file, every chapter and the description are the same."
    return ApiError(ErrorCode.CONFLICT, message, reason="hash_registered")
