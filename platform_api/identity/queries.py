"""SQL of the schema `identity`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from platform_api.identity.sui_signature import Signer
from platform_api.identity.wallet_proof import Challenge, WalletAddress

_ACCOUNT = """
    SELECT a.*, ARRAY(SELECT w.chain || ' ' || encode(w.address, 'hex') FROM identity.wallet w
                      WHERE w.account_id = a.id AND w.revoked_at IS NULL
                      ORDER BY w.is_primary DESC, w.linked_at) AS wallets
    FROM identity.account a
"""


async def insert_nonce(db: Any, challenge: Challenge, account_id: UUID | None) -> None:
    await db.execute(
        "INSERT INTO identity.auth_nonce (nonce, chain, address, domain, purpose, account_id, issued_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        challenge.nonce, challenge.wallet.chain, challenge.wallet.raw, challenge.domain, challenge.purpose, account_id,
        challenge.issued_at, challenge.expires_at,
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
        RETURNING n.*, before.consumed_at IS NOT NULL AS was_used
        """,
        nonce, now,
    )  # fmt: skip


async def account_by_wallet(db: Any, wallet: WalletAddress) -> Any:
    """The account with `wallet_id`, the wallet that was asked for."""
    return await db.fetchrow(
        _ACCOUNT.replace("a.*", "a.*, x.id AS wallet_id")
        + "JOIN identity.wallet x ON x.account_id = a.id"
        " WHERE x.chain = $1 AND x.address = $2 AND x.revoked_at IS NULL",
        wallet.chain, wallet.raw,
    )  # fmt: skip


async def account_in_core(db: Any, wallet: WalletAddress) -> UUID | None:
    """Whose wallet it is, if the core has the account and settles it in its primary wallet, as far as is projected."""
    found: UUID | None = await db.fetchval(
        """
        SELECT x.account_id FROM identity.wallet x
        JOIN exchange.account c ON c.name = 'user:' || x.account_id
        LEFT JOIN identity.wallet p ON p.account_id = x.account_id AND p.is_primary AND p.revoked_at IS NULL
        WHERE x.chain = $1 AND x.address = $2 AND x.revoked_at IS NULL AND (p.id IS NULL OR p.address = c.row)
        """,
        wallet.chain, wallet.raw,
    )  # fmt: skip
    return found


async def account_by_id(db: Any, account_id: UUID) -> Any:
    return await db.fetchrow(_ACCOUNT + "WHERE a.id = $1", account_id)


async def lock_account(db: Any, account_id: UUID) -> Any:
    """The account, for a change of it or of what it owns: such changes come one after the other."""
    await db.execute("SELECT 1 FROM identity.account WHERE id = $1 FOR UPDATE", account_id)
    return await account_by_id(db, account_id)


async def insert_account(db: Any, account_id: UUID, wallet_id: UUID, wallet: WalletAddress, signer: Signer) -> bool:
    """False if another sign-in of the same wallet came first; then nothing was written."""
    await db.execute("INSERT INTO identity.account (id) VALUES ($1)", account_id)
    made = await insert_wallet(db, wallet_id, account_id, wallet, signer, primary=wallet.chain == "sui")
    if not made:
        await db.execute("DELETE FROM identity.account WHERE id = $1", account_id)
    return made


async def insert_wallet(
    db: Any, wallet_id: UUID, account_id: UUID, wallet: WalletAddress, signer: Signer, *, primary: bool
) -> bool:
    """False if the wallet is somebody's already."""
    tag = await db.execute(
        "INSERT INTO identity.wallet (id, account_id, chain, address, public_key, scheme, is_primary)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (chain, address) WHERE revoked_at IS NULL DO NOTHING",
        wallet_id, account_id, wallet.chain, wallet.raw, signer.public_key, signer.scheme, primary,
    )  # fmt: skip
    return str(tag) == "INSERT 0 1"


async def wallets(db: Any, account_id: UUID) -> list[Any]:
    """In force; the primary one first, then the longest linked."""
    rows: list[Any] = await db.fetch(
        "SELECT * FROM identity.wallet WHERE account_id = $1 AND revoked_at IS NULL"
        " ORDER BY is_primary DESC, linked_at, id",
        account_id,
    )
    return rows


async def has_open_withdrawal(db: Any, account_id: UUID) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM money.withdrawal"
        " WHERE account_id = $1 AND status NOT IN ('settled', 'canceled', 'failed'))"
    )
    return bool(await db.fetchval(query, account_id))


async def revoke_wallet(db: Any, wallet_id: UUID) -> list[UUID]:
    """The sessions that it began end with it: those."""
    await db.execute("UPDATE identity.wallet SET revoked_at = now(), is_primary = false WHERE id = $1", wallet_id)
    rows = await db.fetch(
        "UPDATE identity.session SET revoked_at = now() WHERE wallet_id = $1 AND revoked_at IS NULL RETURNING id",
        wallet_id,
    )
    return [row["id"] for row in rows]


async def make_primary(db: Any, wallet_id: UUID) -> None:
    await db.execute("UPDATE identity.wallet SET is_primary = true WHERE id = $1", wallet_id)


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
    db: Any,
    session_id: UUID,
    account_id: UUID,
    wallet_id: UUID,
    device_id: UUID,
    expires: datetime,
    ip: str | None,
    user_agent: str,
) -> None:
    await db.execute(
        "INSERT INTO identity.session (id, account_id, wallet_id, device_id, expires_at, ip, user_agent)"
        " VALUES ($1, $2, $3, $4, $5, $6::text::inet, $7)",
        session_id, account_id, wallet_id, device_id, expires, ip, user_agent,
    )  # fmt: skip


async def session_state(db: Any, session_id: UUID) -> Any:
    """The session with what its account may do; notes, once a minute, that it was seen."""
    row = await db.fetchrow(
        """
        SELECT s.revoked_at IS NOT NULL OR w.revoked_at IS NOT NULL AS revoked, s.expires_at, s.proved_at, a.status,
               a.permission_version,
               s.last_seen_at < now() - interval '1 minute' AS unseen,
               ARRAY(SELECT ARRAY[g.role, array_to_string(g.departments, ',')] FROM identity.role_grant g
                     WHERE g.account_id = a.id AND g.revoked_at IS NULL
                       AND (g.expires_at IS NULL OR g.expires_at > now())) AS grants
        FROM identity.session s JOIN identity.account a ON a.id = s.account_id
        LEFT JOIN identity.wallet w ON w.id = s.wallet_id WHERE s.id = $1
        """,
        session_id,
    )
    if row is not None and row["unseen"] and not row["revoked"]:
        device_id = await db.fetchval(
            "UPDATE identity.session SET last_seen_at = now() WHERE id = $1 RETURNING device_id", session_id
        )
        await db.execute("UPDATE identity.device SET last_seen_at = now() WHERE id = $1", device_id)
    return row


async def end_session(db: Any, session_id: UUID) -> bool:
    """False if it had ended before."""
    tag = await db.execute(
        "UPDATE identity.session SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", session_id
    )
    return str(tag) == "UPDATE 1"


async def end_own_session(db: Any, account_id: UUID, session_id: UUID) -> bool:
    tag = await db.execute(
        "UPDATE identity.session SET revoked_at = now() WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL",
        session_id, account_id,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def end_sessions(db: Any, account_id: UUID) -> list[UUID]:
    """All that stand; those."""
    rows = await db.fetch(
        "UPDATE identity.session SET revoked_at = now() WHERE account_id = $1 AND revoked_at IS NULL RETURNING id",
        account_id,
    )
    return [row["id"] for row in rows]


async def set_account_status(db: Any, account_id: UUID, status: str) -> None:
    await db.execute("UPDATE identity.account SET status = $2, updated_at = now() WHERE id = $1", account_id, status)


async def prove_session(db: Any, session_id: UUID) -> None:
    await db.execute("UPDATE identity.session SET proved_at = now() WHERE id = $1", session_id)


async def spend_step_up(db: Any, session_id: UUID, longest: timedelta, document_id: UUID | None) -> bool:
    """True once for each step-up that is not older; the signature of the sign-in itself is none."""
    tag = await db.execute(
        "UPDATE identity.session SET proved_at = created_at, spent_for = $3, spent_proof = proved_at"
        " WHERE id = $1 AND revoked_at IS NULL AND proved_at > created_at AND proved_at > now() - $2::interval",
        session_id, longest, document_id,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def give_back_step_up(db: Any, account_id: UUID, document_id: UUID) -> None:
    """As old as it was; once, and not over a later one."""
    await db.execute(
        "UPDATE identity.session SET proved_at = greatest(proved_at, spent_proof), spent_for = NULL, spent_proof = NULL"
        " WHERE account_id = $1 AND spent_for = $2",
        account_id, document_id,
    )  # fmt: skip


async def sessions(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    """Standing sessions, the latest first."""
    rows: list[Any] = await db.fetch(
        "SELECT * FROM identity.session WHERE account_id = $1 AND revoked_at IS NULL AND expires_at > now()"
        " AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        account_id, before, limit,
    )  # fmt: skip
    return rows


async def see_device(db: Any, device_id: UUID, account_id: UUID, kind: str, name: str) -> UUID:
    """The device of that kind and name; `device_id` if it is a new one."""
    found: UUID = await db.fetchval(
        "INSERT INTO identity.device (id, account_id, kind, name) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (account_id, kind, name) WHERE revoked_at IS NULL DO UPDATE SET last_seen_at = now()"
        " RETURNING id",
        device_id, account_id, kind, name,
    )  # fmt: skip
    return found


async def devices(db: Any, account_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT d.*, (SELECT count(*) FROM identity.session s WHERE s.device_id = d.id AND s.revoked_at IS NULL"
        "  AND s.expires_at > now()) AS sessions"
        " FROM identity.device d WHERE d.account_id = $1 AND d.revoked_at IS NULL"
        " ORDER BY d.last_seen_at DESC LIMIT 200",
        account_id,
    )
    return rows


async def revoke_device(db: Any, account_id: UUID, device_id: UUID) -> list[UUID] | None:
    """Ends its sessions and returns them; None if there is no such device."""
    tag = await db.execute(
        "UPDATE identity.device SET revoked_at = now() WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL",
        device_id, account_id,
    )  # fmt: skip
    if str(tag) != "UPDATE 1":
        return None
    rows = await db.fetch(
        "UPDATE identity.session SET revoked_at = now() WHERE device_id = $1 AND revoked_at IS NULL RETURNING id",
        device_id,
    )
    return [row["id"] for row in rows]


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
        SELECT t.id, t.session_id, t.used_at, s.expires_at, s.revoked_at, s.account_id, a.status, a.permission_version,
               w.chain, w.address
        FROM identity.refresh_token t
        JOIN identity.session s ON s.id = t.session_id
        JOIN identity.account a ON a.id = s.account_id
        JOIN identity.wallet w ON w.id = s.wallet_id
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
    db: Any, key_id: UUID, account_id: UUID, session_id: UUID, public_key: bytes, scopes: list[str], label: str
) -> Any:
    """The new row, or None if the public key is registered already (by anybody, revoked or not)."""
    return await db.fetchrow(
        "INSERT INTO identity.api_key (id, account_id, session_id, public_key, scopes, label)"
        " VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (public_key) DO NOTHING"
        " RETURNING id, public_key, scopes, label, created_at, last_used_at",
        key_id, account_id, session_id, public_key, scopes, label,
    )  # fmt: skip


async def revoke_api_key(db: Any, account_id: UUID, key_id: UUID) -> bytes | None:
    """The public key of the row that was revoked now; None if there is none in force."""
    public_key: bytes | None = await db.fetchval(
        "UPDATE identity.api_key SET revoked_at = now() WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL"
        " RETURNING public_key",
        key_id, account_id,
    )  # fmt: skip
    return public_key


async def note_key_uses(db: Any, public_keys: list[bytes], at: list[datetime]) -> None:
    """Of keys that are none of ours, as the operator's, nothing is noted."""
    await db.execute(
        "UPDATE identity.api_key k SET last_used_at = greatest(k.last_used_at, u.at)"
        " FROM unnest($1::bytea[], $2::timestamptz[]) AS u (public_key, at) WHERE k.public_key = u.public_key",
        public_keys, at,
    )  # fmt: skip


async def end_api_keys(db: Any, account_id: UUID, session_ids: Sequence[UUID] | None) -> list[Any]:
    """Revokes those in force that these sessions made, or all (None), and returns them."""
    rows: list[Any] = await db.fetch(
        "UPDATE identity.api_key SET revoked_at = now() WHERE account_id = $1 AND revoked_at IS NULL"
        " AND ($2::uuid[] IS NULL OR session_id = ANY($2)) RETURNING id, public_key",
        account_id, session_ids if session_ids is None else list(session_ids),
    )  # fmt: skip
    return rows


async def lock_api_key(db: Any, key_id: UUID) -> Any:
    """`public_key`, `scopes` and `in_force`; nobody revokes it meanwhile. None: it was taken back."""
    return await db.fetchrow(
        "SELECT public_key, scopes, revoked_at IS NULL AS in_force FROM identity.api_key"
        " WHERE id = $1 FOR UPDATE",
        key_id,
    )


async def delete_api_key(db: Any, key_id: UUID) -> None:
    await db.execute("DELETE FROM identity.api_key WHERE id = $1", key_id)


async def ended_api_key(db: Any, key_id: UUID) -> bytes:
    public_key: bytes = await db.fetchval("SELECT public_key FROM identity.api_key WHERE id = $1", key_id)
    return public_key


async def public_account(db: Any, account_id: UUID) -> Any:
    return await db.fetchrow(
        "SELECT id, username, display_name, bio, avatar_url, cover_url, created_at FROM identity.account"
        " WHERE id = $1 AND status = 'active'",
        account_id,
    )


async def email_tokens_lately(db: Any, account_id: UUID) -> int:
    return int(
        await db.fetchval(
            "SELECT count(*) FROM identity.email_token"
            " WHERE account_id = $1 AND created_at > now() - interval '1 hour'",
            account_id,
        )
    )


async def insert_email_token(
    db: Any, token_id: UUID, account_id: UUID, digest: bytes, sealed: bytes, email_digest: bytes, expires: datetime
) -> None:
    await db.execute(
        "INSERT INTO identity.email_token (id, account_id, hash, email_sealed, email_digest, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        token_id, account_id, digest, sealed, email_digest, expires,
    )  # fmt: skip


async def renew_email_token(db: Any, token_id: UUID, digest: bytes) -> Any:
    """Gives a token that is still good its secret; None if it is not."""
    return await db.fetchrow(
        "UPDATE identity.email_token SET hash = $2"
        " WHERE id = $1 AND used_at IS NULL AND expires_at > now() RETURNING *",
        token_id, digest,
    )  # fmt: skip


async def email_token(db: Any, digest: bytes) -> Any:
    return await db.fetchrow("SELECT * FROM identity.email_token WHERE hash = $1", digest)


async def take_back_email_tokens(db: Any, account_id: UUID) -> None:
    """Those that wait for an answer are out of date from now on. Locked in one order: who ends a session comes here
    without the account's lock."""
    await db.execute(
        "UPDATE identity.email_token SET expires_at = now() WHERE id IN (SELECT id FROM identity.email_token"
        " WHERE account_id = $1 AND used_at IS NULL AND expires_at > now() ORDER BY id FOR UPDATE)",
        account_id,
    )


async def use_email_token(db: Any, token_id: UUID, account_id: UUID, sealed: bytes, email_digest: bytes) -> datetime:
    """Sets the account's address, under its lock, and takes its other tokens back. Raises UniqueViolationError if it is
    another account's."""
    await take_back_email_tokens(db, account_id)
    await db.execute("UPDATE identity.email_token SET used_at = now() WHERE id = $1", token_id)
    at: datetime = await db.fetchval(
        "UPDATE identity.account SET email_sealed = $2, email_digest = $3, email_verified_at = now(),"
        " version = version + 1, updated_at = now() WHERE id = $1 RETURNING email_verified_at",
        account_id, sealed, email_digest,
    )  # fmt: skip
    return at


async def grants(db: Any, account_id: UUID) -> list[Any]:
    """In force."""
    rows: list[Any] = await db.fetch(
        "SELECT * FROM identity.role_grant WHERE account_id = $1 AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > now()) ORDER BY role",
        account_id,
    )
    return rows


async def insert_grant(
    db: Any,
    grant_id: UUID,
    account_id: UUID,
    role: str,
    departments: list[str],
    by: UUID | None,
    expires: datetime | None,
) -> bool:
    """In place of a grant of the same role; False if that is just the same."""
    same = await db.fetchval(
        "SELECT 1 FROM identity.role_grant WHERE account_id = $1 AND role = $2 AND revoked_at IS NULL"
        " AND departments = $3 AND expires_at IS NOT DISTINCT FROM $4",
        account_id, role, departments, expires,
    )  # fmt: skip
    if same:
        return False
    await revoke_grant(db, account_id, role)
    await db.execute(
        "INSERT INTO identity.role_grant (id, account_id, role, departments, granted_by, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        grant_id, account_id, role, departments, by, expires,
    )  # fmt: skip
    return True


async def revoke_grant(db: Any, account_id: UUID, role: str) -> bool:
    tag = await db.execute(
        "UPDATE identity.role_grant SET revoked_at = now() WHERE account_id = $1 AND role = $2 AND revoked_at IS NULL",
        account_id, role,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def bump_permissions(db: Any, account_id: UUID) -> None:
    """Tokens issued until now are refused."""
    await db.execute(
        "UPDATE identity.account SET permission_version = permission_version + 1 WHERE id = $1", account_id
    )
