"""API keys: Ed25519 public keys that open the trading websocket for an account. Shared with the gateway.

The gateway is told before the row is committed: a key that is listed works, a key that is gone opens nothing.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.identity import queries
from platform_api.identity.models import ApiKey, ApiKeyRequest
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.security import Caller

__all__ = ["Keys"]


class Keys:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def keys_of(self, caller: Caller) -> list[ApiKey]:
        """Those in force; their number is bounded."""
        async with self._kernel.database.connection() as db:
            return [_key(row) for row in await queries.api_keys(db, UUID(caller.account_id))]

    async def add(self, caller: Caller, body: ApiKeyRequest) -> ApiKey:
        """Raises ApiError CONFLICT `too_many_keys`, `key_exists`."""
        public_key = bytes.fromhex(body.public_key)
        scopes: list[str] = sorted(set(body.scopes))
        account_id, key_id = UUID(caller.account_id), new_id()
        most = self._kernel.settings.keys_per_account_max
        async with self._kernel.database.transaction() as db:
            await queries.lock_account(db, account_id)
            if await queries.api_key_count(db, account_id) >= most:
                raise ApiError(ErrorCode.CONFLICT, f"An account has at most {most} keys.", reason="too_many_keys")
            row = await queries.insert_api_key(db, key_id, account_id, public_key, scopes, body.label)
            if row is None:
                message = "public_key: is registered already"
                raise ApiError(ErrorCode.CONFLICT, message, reason="key_exists", field="public_key")
            await self._kernel.audit.record(
                db, "api_key.added", ("api_key", str(key_id)), actor=account_id,
                new={"public_key": body.public_key, "scopes": scopes, "label": body.label},
            )  # fmt: skip
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
            await self._kernel.core.revoke_key(str(key_id), public_key)


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=str(row["id"]),
        public_key=bytes(row["public_key"]).hex(),
        scopes=list(row["scopes"]),
        label=row["label"],
        created_at=timestamp(row["created_at"]),
        last_used_at=timestamp(row["last_used_at"]) if row["last_used_at"] else None,
    )
