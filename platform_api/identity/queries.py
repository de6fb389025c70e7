"""SQL of the schema `identity`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

__all__ = [
    "account_by_address",
    "account_by_id",
    "api_key_count",
    "api_keys",
    "consume_nonce",
    "end_session",
    "insert_account",
    "insert_api_key",
    "insert_nonce",
    "insert_refresh_token",
    "insert_session",
    "mark_refresh_token",
    "prune_nonces",
    "refresh_token_for_update",
    "revoke_api_key",
    "session_state",
    "touch_account",
    "update_account",
]

_ACCOUNT = """
    SELECT a.id, a.username, a.display_name, a.bio, a.status, a.preferences, a.created_at, a.updated_at, a.version,
           ARRAY(SELECT encode(w.address, 'hex') FROM identity.wallet w
                 WHERE w.account_id = a.id AND w.revoked_at IS NULL ORDER BY w.is_primary DESC, w.linked_at) AS wallets
    FROM identity.account a
"""


async def insert_nonce(db: Any, nonce: str, address: bytes, domain: str, issued: datetime, expires: datetime) -> None:
    await db.execute(
        "INSERT INTO identity.auth_nonce (nonce, address, domain, purpose, issued_at, expires_at)"
        " VALUES ($1, $2, $3, 'sign_in', $4, $5)",
        nonce, address, domain, issued, expires,
    )  # fmt: skip


async def prune_nonces(db: Any, before: datetime) -> None:
    await db.execute("DELETE FROM identity.auth_nonce WHERE expires_at < $1", before)


async def consume_nonce(db: Any, nonce: str, now: datetime) -> Any:
    """Marks the nonce as used and returns it with `was_used`: one statement, so that of two users one comes first."""
    return await db.fetchrow(
        """
        WITH before AS (SELECT nonce, consumed_at FROM identity.auth_nonce WHERE nonce = $1 FOR UPDATE)
        UPDATE identity.auth_nonce n SET consumed_at = COALESCE(n.consumed_at, $2)
        FROM before WHERE n.nonce = before.nonce
        RETURNING n.address, n.domain, n.issued_at, n.expires_at, before.consumed_at IS NOT NULL AS was_used
        """,
        nonce, now,
    )  # fmt: skip


async def account_by_address(db: Any, address: bytes) -> Any:
    return await db.fetchrow(
        _ACCOUNT + "JOIN identity.wallet x ON x.account_id = a.id WHERE x.address = $1 AND x.revoked_at IS NULL",
        address,
    )


async def account_by_id(db: Any, account_id: UUID) -> Any:
    return await db.fetchrow(_ACCOUNT + "WHERE a.id = $1", account_id)


async def insert_account(
    db: Any, account_id: UUID, wallet_id: UUID, address: bytes, scheme: str, public_key: bytes
) -> bool:
    """False if another sign-in of the same wallet came first; then nothing was written."""
    await db.execute("INSERT INTO identity.account (id) VALUES ($1)", account_id)
    tag = await db.execute(
        "INSERT INTO identity.wallet (id, account_id, chain, address, public_key, scheme, is_primary)"
        " VALUES ($1, $2, 'sui', $3, $4, $5, true) ON CONFLICT DO NOTHING",
        wallet_id, account_id, address, public_key, scheme,
    )  # fmt: skip
    if tag != "INSERT 0 1":
        await db.execute("DELETE FROM identity.account WHERE id = $1", account_id)
        return False
    return True


async def touch_account(db: Any, account_id: UUID) -> None:
    await db.execute("UPDATE identity.account SET last_login_at = now() WHERE id = $1", account_id)


async def update_account(db: Any, account_id: UUID, version: int, fields: dict[str, Any]) -> bool:
    """Sets the given columns if the version is still this one."""
    sets = ", ".join(f"{column} = ${position}" for position, column in enumerate(fields, 3))
    tag = await db.execute(
        f"UPDATE identity.account SET {sets}, version = version + 1, updated_at = now() WHERE id = $1 AND version = $2",
        account_id, version, *fields.values(),
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def insert_session(
    db: Any, session_id: UUID, account_id: UUID, expires: datetime, ip: str | None, user_agent: str
) -> None:
    await db.execute(
        "INSERT INTO identity.session (id, account_id, expires_at, ip, user_agent)"
        " VALUES ($1, $2, $3, $4::text::inet, $5)",
        session_id, account_id, expires, ip, user_agent,
    )  # fmt: skip


async def session_state(db: Any, session_id: UUID) -> Any:
    return await db.fetchrow(
        "SELECT s.revoked_at IS NOT NULL AS revoked, s.expires_at, a.status, a.permission_version"
        " FROM identity.session s JOIN identity.account a ON a.id = s.account_id WHERE s.id = $1",
        session_id,
    )


async def end_session(db: Any, session_id: UUID) -> None:
    await db.execute("UPDATE identity.session SET revoked_at = COALESCE(revoked_at, now()) WHERE id = $1", session_id)


async def insert_refresh_token(
    db: Any, token_id: UUID, session_id: UUID, digest: bytes, parent_id: UUID | None, expires: datetime
) -> None:
    await db.execute(
        "INSERT INTO identity.refresh_token (id, session_id, hash, parent_id, expires_at) VALUES ($1, $2, $3, $4, $5)",
        token_id, session_id, digest, parent_id, expires,
    )  # fmt: skip


async def refresh_token_for_update(db: Any, digest: bytes) -> Any:
    return await db.fetchrow(
        """
        SELECT t.id, t.session_id, t.used_at, t.expires_at, s.revoked_at, s.account_id, a.status, a.permission_version
        FROM identity.refresh_token t
        JOIN identity.session s ON s.id = t.session_id
        JOIN identity.account a ON a.id = s.account_id
        WHERE t.hash = $1 FOR UPDATE OF t
        """,
        digest,
    )


async def mark_refresh_token(db: Any, token_id: UUID) -> None:
    await db.execute("UPDATE identity.refresh_token SET used_at = now() WHERE id = $1", token_id)


async def api_keys(db: Any, account_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT id, public_key, scopes, label, created_at, last_used_at FROM identity.api_key"
        " WHERE account_id = $1 AND revoked_at IS NULL ORDER BY id",
        account_id,
    )
    return rows


async def api_key_count(db: Any, account_id: UUID) -> int:
    return int(
        await db.fetchval(
            "SELECT count(*) FROM identity.api_key WHERE account_id = $1 AND revoked_at IS NULL", account_id
        )
    )


async def insert_api_key(
    db: Any, key_id: UUID, account_id: UUID, public_key: bytes, scopes: list[str], label: str
) -> Any:
    """The new row, or None if the public key is registered already (by anybody, revoked or not)."""
    return await db.fetchrow(
        "INSERT INTO identity.api_key (id, account_id, public_key, scopes, label) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (public_key) DO NOTHING"
        " RETURNING id, public_key, scopes, label, created_at, last_used_at",
        key_id, account_id, public_key, scopes, label,
    )  # fmt: skip


async def revoke_api_key(db: Any, account_id: UUID, key_id: UUID) -> bytes | None:
    """The public key of the row that was revoked now; None if there is none in force."""
    public_key: bytes | None = await db.fetchval(
        "UPDATE identity.api_key SET revoked_at = now() WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL"
        " RETURNING public_key",
        key_id, account_id,
    )  # fmt: skip
    return public_key
