"""API keys: Ed25519 public keys that open the trading websocket for an account. Shared with the gateway.

The row comes first, the gateway after it: what the gateway lets in is on its owner's list, where it can be revoked. The
request tells the gateway itself; if that fails, a job does, for as long as it takes, and a key that is listed works, or
has ended, as soon as the core is there. A key outlives the session that made it, so making one needs a step-up of its
own, its owner is told, and it ends with a session that is cut off. A core that is away must not keep a stolen session
alive.
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

_MINE_FIRST = timedelta(seconds=2)
"""What a request has to tell the gateway itself, before the job does."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KeyBegin(msgspec.Struct, frozen=True):
    """A job: the gateway must hear of this key, for this account of the core."""

    key_id: UUID
    account: str


class KeyEnd(msgspec.Struct, frozen=True):
    """A job: the gateway must hear that this key, of whom the row says so already, has ended."""

    key_id: UUID


class Keys:
    def __init__(self, kernel: Kernel, letters: OwnerLetters) -> None:
        self._kernel, self._letters = kernel, letters
        kernel.jobs.handle("admin_actions", "begin_key", KeyBegin, self._begin_later)
        kernel.jobs.handle("admin_actions", "end_key", KeyEnd, self._end_later)

    async def keys_of(self, caller: Caller) -> list[ApiKey]:
        """Those in force; their number is bounded."""
        async with self._kernel.database.connection() as db:
            return [_key(row) for row in await queries.api_keys(db, UUID(caller.account_id))]

    async def add(self, caller: Caller, body: ApiKeyRequest) -> ApiKey:
        """Raises ApiError FORBIDDEN `step_up_required`, CONFLICT `too_many_keys`, `key_exists`; Refused."""
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
            await self._later(db, "begin_key", KeyBegin(key_id, caller.account))
        try:
            await self._begin(key_id, caller.account)
        except (Unavailable, OutcomeUnknown) as error:
            log.info("key_begin_waits", key_id=str(key_id), error=str(error))
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
            await self._later(db, "end_key", KeyEnd(key_id))
        try:
            await self._end(key_id)
        except (Unavailable, OutcomeUnknown) as error:
            log.info("key_end_waits", key_id=str(key_id), error=str(error))

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

    async def _later(self, db: Any, kind: str, job: KeyBegin | KeyEnd) -> None:
        await self._kernel.jobs.enqueue(
            db, "admin_actions", kind, job, run_after=_MINE_FIRST, dedupe_key=str(job.key_id)
        )  # fmt: skip

    async def _begin(self, key_id: UUID, account: str) -> None:
        """Tell the gateway of a key that is in force, under its lock: whoever revokes it meanwhile comes after.

        Raises:
            Unavailable, OutcomeUnknown: again.
            Refused: the gateway never takes it. The row is gone then.
        """
        core, jobs = self._kernel.core, self._kernel.jobs
        try:
            async with self._kernel.database.transaction_beside_core() as db:
                row = await queries.lock_api_key(db, key_id)
                if row is not None and row["in_force"]:
                    await core.register_key(str(key_id), bytes(row["public_key"]), account, list(row["scopes"]))
                elif row is not None:  # a copy without an answer may have come after its end
                    await core.revoke_key(str(key_id), bytes(row["public_key"]))
                await jobs.withdraw(db, "admin_actions", "begin_key", str(key_id))
        except Refused as refused:
            async with self._kernel.database.transaction() as db:
                await queries.delete_api_key(db, key_id)
                await self._kernel.audit.record(
                    db, "api_key.refused", ("api_key", str(key_id)), actor=None, new={"why": str(refused)}
                )
                await jobs.withdraw(db, "admin_actions", "begin_key", str(key_id))
            raise

    async def _end(self, key_id: UUID) -> None:
        """Tell the gateway of a key that has ended. Raises Unavailable, OutcomeUnknown: again; Refused."""
        async with self._kernel.database.connection() as db:
            public_key = await queries.ended_api_key(db, key_id)
        await self._kernel.core.revoke_key(str(key_id), public_key)
        async with self._kernel.database.transaction() as db:
            await self._kernel.jobs.withdraw(db, "admin_actions", "end_key", str(key_id))

    async def _begin_later(self, job: KeyBegin) -> None:
        try:
            await self._begin(job.key_id, job.account)
        except Refused as refused:
            log.warning("key_refused", key_id=str(job.key_id), error=str(refused))

    async def _end_later(self, job: KeyEnd) -> None:
        await self._end(job.key_id)

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
