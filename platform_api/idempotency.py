"""`Idempotency-Key`: the same request again gets the same answer, for a day.

What makes a repeated order harmless is the core, which knows the client id derived from the key. The table adds the
rest: the first answer again word for word, and a refusal if the key comes with another body. It is kept in PostgreSQL;
while that is away orders go through on the core's promise alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import msgspec

from engine.messages.errors import Unavailable
from platform_api.database import Database
from platform_api.errors import ApiError, ErrorCode

__all__ = ["Answer", "Idempotency", "checked_key"]

log = logging.getLogger(__name__)

KEPT = timedelta(days=1)
KEY_CHARACTERS_MAX = 128

Answer = tuple[int, bytes]
"""HTTP status and the JSON of `data`."""


def checked_key(key: str | None) -> str | None:
    """Raises ApiError VALIDATION_ERROR for a key that is empty, too long or not printable ASCII."""
    if key is not None and not (0 < len(key) <= KEY_CHARACTERS_MAX and key.isascii() and key.isprintable()):
        message = f"Idempotency-Key: must be 1 to {KEY_CHARACTERS_MAX} printable ASCII characters"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="invalid", field="Idempotency-Key")
    return key


class Idempotency:
    """(account, route, key) → digest of the body, and the answer once there is one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(
        self, account_id: str, route: str, key: str, body: msgspec.Struct, work: Callable[[], Awaitable[Answer]]
    ) -> tuple[Answer, bool]:
        """The answer of `work`, or the one kept of its first run and True.

        A failure is not kept: the request may be made again. Raises ApiError CONFLICT, and what `work` raises.
        """
        digest = hashlib.sha256(msgspec.json.encode(body)).digest()
        try:
            kept = await self._begin(UUID(account_id), route, key, digest)
        except Unavailable:
            return await work(), False
        if kept is not None:
            return kept, True
        try:
            answer = await work()
        except BaseException:
            await self._write(
                "DELETE FROM identity.idempotency_record WHERE account_id = $1 AND route = $2 AND key = $3",
                UUID(account_id), route, key,
            )  # fmt: skip
            raise
        await self._write(
            "UPDATE identity.idempotency_record SET status = $4, response = $5"
            " WHERE account_id = $1 AND route = $2 AND key = $3",
            UUID(account_id), route, key, *answer,
        )  # fmt: skip
        return answer, False

    async def _begin(self, account_id: UUID, route: str, key: str, digest: bytes) -> Answer | None:
        async with self._database.transaction() as db:
            await db.execute(
                "DELETE FROM identity.idempotency_record"
                " WHERE account_id = $1 AND route = $2 AND key = $3 AND created_at < now() - $4::interval",
                account_id, route, key, KEPT,
            )  # fmt: skip
            tag = await db.execute(
                "INSERT INTO identity.idempotency_record (account_id, route, key, digest) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT DO NOTHING",
                account_id, route, key, digest,
            )  # fmt: skip
            if tag == "INSERT 0 1":
                return None
            row = await db.fetchrow(
                "SELECT digest, status, response FROM identity.idempotency_record"
                " WHERE account_id = $1 AND route = $2 AND key = $3",
                account_id, route, key,
            )  # fmt: skip
        if row is not None and bytes(row["digest"]) != digest:
            message = "This Idempotency-Key came with another body before."
            raise ApiError(ErrorCode.CONFLICT, message, reason="idempotency_key_reuse", field="Idempotency-Key")
        if row is None or row["status"] is None:
            raise ApiError(
                ErrorCode.CONFLICT, "The first request with this key is still running.", reason="in_progress"
            )
        return row["status"], bytes(row["response"])

    async def _write(self, query: str, *arguments: object) -> None:
        """The order stands whatever becomes of its record, so a database that went away is only noted."""
        try:
            await self._database.execute(query, *arguments)
        except Unavailable as error:
            log.warning("event=idempotency_record_lost error=%s", error)
