"""API keys: Ed25519 public keys that open the trading websocket for an account. Shared with the gateway.

The gateway is told before the row is committed: a key that is listed works, a key that is gone opens nothing. A key
outlives the session that made it, so making one needs a step-up of its own, its owner is told, and it ends with a
session that is cut off. Then the row comes first and a job tells the gateway, for as long as that takes: a core that is
away must not keep a stolen session alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.identity import queries
from platform_api.identity.models import ApiKey, ApiKeyRequest
from platform_api.identity.owner_letters import OwnerLetters
from platform_api.identity.step_up import spend_step_up
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.security import Caller

__all__ = ["Keys"]

log = structlog.get_logger(__name__)

_PAUSE_SECONDS_MAX = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KeyEnd(msgspec.Struct, frozen=True):
    """A job: the gateway must hear that this key, of whom the row says so already, has ended."""

    key_id: UUID
    attempt: int = 0


class Keys:
    def __init__(self, kernel: Kernel, letters: OwnerLetters) -> None:
        self._kernel, self._letters = kernel, letters
        kernel.jobs.handle("admin_actions", "end_key", KeyEnd, self._end_at_gateway)

    async def keys_of(self, caller: Caller) -> list[ApiKey]:
        """Those in force; their number is bounded."""
        async with self._kernel.database.connection() as db:
            return [_key(row) for row in await queries.api_keys(db, UUID(caller.account_id))]

    async def add(self, caller: Caller, body: ApiKeyRequest) -> ApiKey:
        """Raises ApiError FORBIDDEN `step_up_required`, CONFLICT `too_many_keys`, `key_exists`."""
        public_key = bytes.fromhex(body.public_key)
        scopes: list[str] = sorted(set(body.scopes))
        account_id, key_id = UUID(caller.account_id), new_id()
        most = self._kernel.settings.keys_per_account_max
        async with self._kernel.database.transaction() as db:
            await queries.lock_account(db, account_id)
            if await queries.api_key_count(db, account_id) >= most:
                raise ApiError(ErrorCode.CONFLICT, f"An account has at most {most} keys.", reason="too_many_keys")
            await spend_step_up(db, caller)
            row = await queries.insert_api_key(
                db, key_id, account_id, UUID(caller.session_id), public_key, scopes, body.label
            )
            if row is None:
                message = "public_key: is registered already"
                raise ApiError(ErrorCode.CONFLICT, message, reason="key_exists", field="public_key")
            await self._kernel.audit.record(
                db, "api_key.added", ("api_key", str(key_id)), actor=account_id,
                new={"public_key": body.public_key, "scopes": scopes, "label": body.label},
            )  # fmt: skip
            await self._publish(db, "api_key.added", key_id, account_id)
            text = f"The key {body.public_key} may now {' and '.join(scopes)} for your account."
            await self._letters.tell(db, account_id, "A key was added", text)
            await self._kernel.core.register_key(str(key_id), public_key, caller.account, scopes)
        return _key(row)

    async def revoke(self, caller: Caller, key_id: UUID) -> None:
        """Raises ApiError NOT_FOUND."""
        async with self._kernel.database.transaction() as db:
            public_key = await queries.revoke_api_key(db, UUID(caller.account_id), key_id)
            if public_key is None:
                raise unknown("key")
            await self._kernel.audit.record(
                db, "api_key.revoked", ("api_key", str(key_id)), actor=caller.account_id,
                old={"public_key": public_key.hex()},
            )  # fmt: skip
            await self._publish(db, "api_key.revoked", key_id, UUID(caller.account_id))
            await self._kernel.core.revoke_key(str(key_id), public_key)

    async def end_all(self, db: Any, account_id: UUID, session_ids: Sequence[UUID] | None, why: str) -> None:
        """In the transaction of `db`: the keys that these sessions made, or all (None), are in force no longer."""
        for row in await queries.end_api_keys(db, account_id, session_ids):
            await self._kernel.audit.record(
                db, "api_key.revoked", ("api_key", str(row["id"])), actor=None,
                old={"public_key": bytes(row["public_key"]).hex()}, new={"why": why},
            )  # fmt: skip
            await self._publish(db, "api_key.revoked", row["id"], account_id)
            await self._kernel.jobs.enqueue(db, "admin_actions", "end_key", KeyEnd(row["id"]))

    async def note_uses(self) -> None:
        """Upkeep: what the gateway tells of the use of keys. One that is away is asked again the next time."""
        taken = None
        while True:
            try:
                uses = await self._kernel.core.key_uses(taken)
            except (Unavailable, OutcomeUnknown, Refused) as error:
                log.info("key_uses_wait", error=str(error))
                return
            if not uses:
                return
            taken = max(uses.values())
            at = [_EPOCH + timedelta(microseconds=ns // 1_000) for ns in uses.values()]
            async with self._kernel.database.transaction() as db:
                await queries.note_key_uses(db, [bytes.fromhex(key) for key in uses], at)

    async def _end_at_gateway(self, job: KeyEnd) -> None:
        """As long as it takes: a try without an answer is no failed job, but the next one."""
        async with self._kernel.database.connection() as db:
            public_key = await queries.ended_api_key(db, job.key_id)
        try:
            await self._kernel.core.revoke_key(str(job.key_id), public_key)
        except (Unavailable, OutcomeUnknown) as error:
            pause = timedelta(seconds=min(2**job.attempt, _PAUSE_SECONDS_MAX))
            log.warning("key_end_waits", key_id=str(job.key_id), attempt=job.attempt, error=str(error))
            async with self._kernel.database.transaction() as db:
                again = KeyEnd(job.key_id, min(job.attempt + 1, 10))
                await self._kernel.jobs.enqueue(db, "admin_actions", "end_key", again, run_after=pause)

    async def _publish(self, db: Any, event: str, key_id: UUID, account_id: UUID) -> None:
        payload = {"for_accounts": [str(account_id)]}
        await self._kernel.events.publish(db, event, ("api_key", str(key_id)), payload, actor=account_id)


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=str(row["id"]),
        public_key=bytes(row["public_key"]).hex(),
        scopes=list(row["scopes"]),
        label=row["label"],
        created_at=timestamp(row["created_at"]),
        last_used_at=timestamp(row["last_used_at"]) if row["last_used_at"] else None,
    )
