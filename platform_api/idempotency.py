"""`Idempotency-Key`: the same request again gets the same answer, for a day.

Two ways, by what the request does:

    once   its effects are rows of PostgreSQL: key, change and answer are one transaction. A second request with the
           key waits for the first and gets its answer; if the first failed there is nothing left of it.
    run    its effect is a command to the core, which knows the id derived from the key. The table adds the first answer
           word for word. A run that died leaves a lease; when that is over the next request runs, harmlessly: the core
           answers `duplicate`. While PostgreSQL is away commands go through on the core's promise alone.

Either way the key with another body is refused: CONFLICT `idempotency_key_reuse`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter

from engine.messages.errors import Unavailable
from platform_api.database import Database
from platform_api.errors import ApiError, ErrorCode

__all__ = ["Answer", "Idempotency", "IdempotencyKey", "NeededKey", "checked_key", "required_key"]

log = structlog.get_logger(__name__)

KEPT = timedelta(days=1)
LEASE = timedelta(minutes=1)
KEY_CHARACTERS_MAX = 128

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key", required=False, examples=[Example(value="c2f7a1d0-once")],
        description="Up to 128 printable characters of one's own: the request sent again with it is answered as the"
        " first time, for a day, and takes effect once.",
    ),
]  # fmt: skip
NeededKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key", required=True, examples=[Example(value="c2f7a1d0-once")],
        description="Needed, for the request moves money or rights. Up to 128 printable characters of one's own: sent"
        " again with it, also after an answer that was lost, the request is answered as the first time and takes effect"
        " once.",
    ),
]  # fmt: skip
"""Of routes that call `required_key`: the document says that it is needed, and its lack is answered in order with the
other failures of the route."""

Answer = tuple[int, bytes]
"""HTTP status and the JSON of `data`."""


def checked_key(key: str | None) -> str | None:
    """Raises ApiError VALIDATION_ERROR for a key that is empty, too long or not printable ASCII."""
    if key is not None and not (0 < len(key) <= KEY_CHARACTERS_MAX and key.isascii() and key.isprintable()):
        message = f"Idempotency-Key: must be 1 to {KEY_CHARACTERS_MAX} printable ASCII characters"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="invalid", field="Idempotency-Key")
    return key


def required_key(key: str | None) -> str:
    """For routes that move money, mint, register, issue or revoke: raises ApiError VALIDATION_ERROR without one."""
    if key is None:
        message = "Idempotency-Key: this request needs the header"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="Idempotency-Key")
    checked_key(key)
    return key


class Idempotency:
    """(account, route, key) → digest of the body, and the answer once there is one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def once(
        self,
        account_id: str,
        route: str,
        key: str | None,
        body: Any,
        work: Callable[[Any], Awaitable[Answer]],
    ) -> tuple[Answer, bool]:
        """Runs `work(connection)` in a transaction that also keeps its answer; or gives the answer kept, and True.

        Without a key it is a plain transaction. Raises ApiError CONFLICT, Unavailable, and what `work` raises.
        """
        async with self._database.transaction() as db:
            if key is None:
                return await work(db), False
            row = await self._claim(db, UUID(account_id), route, key, _digest(body))
            if row is not None and row["status"] is not None:
                return (row["status"], bytes(row["response"])), True
            if row is not None:  # a lease of `run`, which never shares a route with `once`
                raise _in_progress()
            answer = await work(db)
            await db.execute(_KEEP, UUID(account_id), route, key, *answer)
            return answer, False

    async def run(
        self, account_id: str, route: str, key: str, body: Any, work: Callable[[], Awaitable[Answer]]
    ) -> tuple[Answer, bool]:
        """The answer of `work`, or the one kept of its first run and True.

        A failure is not kept: the request may be made again. Raises ApiError CONFLICT, and what `work` raises.
        """
        owner = (UUID(account_id), route, key)
        try:
            async with self._database.transaction() as db:
                row = await self._claim(db, *owner, _digest(body))
                if row is not None and row["status"] is not None:
                    return (row["status"], bytes(row["response"])), True
                if row is not None and not row["lease_over"]:
                    raise _in_progress()
                await db.execute(_LEASE, *owner, LEASE)
        except Unavailable:
            return await work(), False
        try:
            answer = await work()
        except BaseException:
            await self._note(_FORGET, *owner)
            raise
        await self._note(_KEEP, *owner, *answer)
        return answer, False

    async def prune(self) -> None:
        """Records older than a day go. Raises Unavailable."""
        await self._database.execute("DELETE FROM kernel.idempotency_record WHERE created_at < now() - $1::interval",
                                     KEPT)  # fmt: skip

    async def _claim(self, db: Any, account_id: UUID, route: str, key: str, digest: bytes) -> Any:
        """Inserts the record, or begins one anew that is over (None); or returns the one that is there, locked.

        Waits for one being inserted.
        """
        tag = await db.execute(_CLAIM, account_id, route, key, digest, KEPT)
        if tag == "INSERT 0 1":
            return None
        row = await db.fetchrow(
            "SELECT digest, status, response, leased_until < now() AS lease_over FROM kernel.idempotency_record"
            " WHERE account_id = $1 AND route = $2 AND key = $3 FOR UPDATE",
            account_id, route, key,
        )  # fmt: skip
        if row is None:  # its failed first run has just forgotten it
            raise _in_progress()
        if bytes(row["digest"]) != digest:
            message = "This Idempotency-Key came with another body before."
            raise ApiError(ErrorCode.CONFLICT, message, reason="idempotency_key_reuse", field="Idempotency-Key")
        return row

    async def _note(self, query: str, *arguments: object) -> None:
        """The command stands whatever becomes of its record, so a database that went away is only noted."""
        try:
            await self._database.execute(query, *arguments)
        except Unavailable as error:
            log.warning("idempotency_record_lost", error=str(error))


_OWNER = " WHERE account_id = $1 AND route = $2 AND key = $3"
_CLAIM = (
    "INSERT INTO kernel.idempotency_record AS r (account_id, route, key, digest) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (account_id, route, key) DO UPDATE SET digest = excluded.digest, status = NULL, response = NULL,"
    " created_at = excluded.created_at, leased_until = excluded.leased_until WHERE r.created_at < now() - $5::interval"
)
_FORGET = "DELETE FROM kernel.idempotency_record" + _OWNER
_KEEP = "UPDATE kernel.idempotency_record SET status = $4, response = $5" + _OWNER
_LEASE = "UPDATE kernel.idempotency_record SET leased_until = now() + $4::interval" + _OWNER


def _digest(body: Any) -> bytes:
    return hashlib.sha256(msgspec.json.encode(body)).digest()


def _in_progress() -> ApiError:
    return ApiError(ErrorCode.CONFLICT, "The first request with this key is still running.", reason="in_progress")
