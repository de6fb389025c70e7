"""Sign-in with a Sui wallet, sessions with rotating refresh tokens, profiles, API keys.

    nonce: issued → consumed (by its first use, good or bad) | expired
    refresh token: live → used; a used one that comes again is a stolen one: its whole session ends
    account: made by the first sign-in of a wallet, and opened in the core as `user:<id>` with the wallet as its row

The core is told before the answer leaves, so an account that signed in can trade. A core that is away refuses the
sign-in (503) and leaves no session behind. Secrets are stored as digests and never logged.
"""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.database import Database
from platform_api.errors import ApiError, ErrorCode, refused_order, timestamp
from platform_api.identity import queries
from platform_api.identity.models import (
    ApiKey,
    ApiKeyRequest,
    Nonce,
    NonceRequest,
    Profile,
    ProfilePatch,
    RefreshRequest,
    Session,
    VerifyRequest,
)
from platform_api.identity.sui_signature import (
    BadSignature,
    Signer,
    address_text,
    canonical_address,
    verify_personal_message,
)
from platform_api.ids import new_id, new_secret, secret_digest
from platform_api.ports import CorePort
from platform_api.security import Caller, TokenSigner, unauthorized
from platform_api.settings import ApiSettings

__all__ = ["IdentityService", "core_account", "sign_in_message"]

log = logging.getLogger(__name__)

NONCE_KEPT = timedelta(days=1)
USER_AGENT_MAX = 300


def core_account(account_id: UUID | str) -> str:
    """The name of a person's account in the core."""
    return f"user:{account_id}"


def sign_in_message(domain: str, chain: str, address: bytes, nonce: str, issued: datetime, expires: datetime) -> str:
    """The text a wallet shows and signs: the layout of EIP-4361 with a Sui account."""
    return (
        f"{domain} wants you to sign in with your Sui account:\n"
        f"{address_text(address)}\n"
        "\n"
        "Sign in to Byline. This costs nothing and moves no funds.\n"
        "\n"
        f"URI: http://{domain}\n"
        "Version: 1\n"
        f"Chain ID: {chain}\n"
        f"Nonce: {nonce}\n"
        f"Issued At: {timestamp(issued)}\n"
        f"Expiration Time: {timestamp(expires)}"
    )


class IdentityService:
    """Needs the database for everything; the core for sign-in and keys."""

    def __init__(self, database: Database, core: CorePort, signer: TokenSigner, settings: ApiSettings) -> None:
        self._database = database
        self._core = core
        self._signer = signer
        self._settings = settings

    async def issue_nonce(self, body: NonceRequest) -> Nonce:
        address = canonical_address(body.address)
        nonce = secrets.token_hex(16)
        issued = datetime.now(UTC)
        expires = issued + timedelta(seconds=self._settings.nonce_seconds)
        async with self._database.transaction() as db:
            await queries.prune_nonces(db, issued - NONCE_KEPT)
            await queries.insert_nonce(db, nonce, address, self._settings.domain, issued, expires)
        message = sign_in_message(self._settings.domain, self._settings.chain, address, nonce, issued, expires)
        return Nonce(nonce, message, timestamp(issued), timestamp(expires))

    async def verify(self, body: VerifyRequest, ip: str | None, user_agent: str) -> Session:
        """Sign in. Raises ApiError UNAUTHORIZED, VERIFICATION_FAILED or FORBIDDEN; Unavailable."""
        signer = await self._prove(body)
        async with self._database.transaction() as db:
            row, created = await self._find_or_make_account(db, signer)
            if row["status"] != "active":
                raise ApiError(ErrorCode.FORBIDDEN, "This account is suspended.", reason="account_suspended")
            await self._open_in_core(row["id"], signer.address)
            await queries.touch_account(db, row["id"])
            session = await self._start_session(db, row["id"], signer.address, ip, user_agent, created)
        log.info("event=sign_in account_id=%s created=%s scheme=%s", row["id"], created, signer.scheme)
        return session

    async def refresh(self, body: RefreshRequest) -> tuple[Session | None, str | None]:
        """The next pair of tokens and None; or None and the session that a reused token just ended."""
        async with self._database.transaction() as db:
            token = await queries.refresh_token_for_update(db, secret_digest(body.refresh_token))
            if token is None:
                raise unauthorized("refresh_unknown", "The refresh token is none of ours.")
            if token["used_at"] is not None:
                # Committed on leaving the block: raising here would undo it.
                await queries.end_session(db, token["session_id"])
                log.warning("event=refresh_reused session_id=%s", token["session_id"])
                return None, str(token["session_id"])
            if token["revoked_at"] is not None or token["expires_at"] <= datetime.now(UTC):
                raise unauthorized("session_revoked", "The session has ended: sign in again.")
            if token["status"] != "active":
                raise ApiError(ErrorCode.FORBIDDEN, "This account is suspended.", reason="account_suspended")
            await queries.mark_refresh_token(db, token["id"])
            row = await queries.account_by_id(db, token["account_id"])
            address = bytes.fromhex(row["wallets"][0])
            pair = await self._tokens(
                db, row["id"], token["session_id"], address, token["permission_version"], token["id"]
            )
            return pair, None

    async def log_out(self, caller: Caller) -> None:
        async with self._database.connection() as db:
            await queries.end_session(db, UUID(caller.session_id))

    async def session_problem(self, caller: Caller) -> str | None:
        """Why the session of a token no longer stands; None if it does. For SessionGuard."""
        async with self._database.connection() as db:
            row = await queries.session_state(db, UUID(caller.session_id))
        if row is None or row["revoked"] or row["expires_at"] <= datetime.now(UTC):
            return "session_revoked"
        if row["status"] != "active":
            return "account_suspended"
        return None if row["permission_version"] == caller.version else "token_stale"

    async def profile(self, caller: Caller) -> Profile:
        async with self._database.connection() as db:
            return _profile(await queries.account_by_id(db, UUID(caller.account_id)))

    async def change_profile(self, caller: Caller, body: ProfilePatch, if_match: str | None) -> Profile:
        """Raises ApiError CONFLICT: `version_mismatch` or `username_taken`."""
        changes = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not msgspec.UNSET}
        if "preferences" in changes:
            changes["preferences"] = msgspec.json.encode(changes["preferences"]).decode()
        account_id = UUID(caller.account_id)
        try:
            async with self._database.transaction() as db:
                row = await queries.account_by_id(db, account_id)
                expected = _version(if_match, row["version"])
                if changes and (
                    expected != row["version"] or not await queries.update_account(db, account_id, expected, changes)
                ):
                    raise ApiError(ErrorCode.CONFLICT, "The profile has changed meanwhile.", reason="version_mismatch")
                return _profile(await queries.account_by_id(db, account_id))
        except asyncpg.UniqueViolationError as error:
            message = "username: is taken"
            raise ApiError(ErrorCode.CONFLICT, message, reason="username_taken", field="username") from error

    async def keys(self, caller: Caller) -> list[ApiKey]:
        async with self._database.connection() as db:
            return [_key(row) for row in await queries.api_keys(db, UUID(caller.account_id))]

    async def add_key(self, caller: Caller, body: ApiKeyRequest) -> ApiKey:
        """Registered at the gateway before the row is committed: a key that is listed works."""
        public_key = bytes.fromhex(body.public_key)
        scopes: list[str] = sorted(set(body.scopes))
        account_id = UUID(caller.account_id)
        key_id = new_id()
        async with self._database.transaction() as db:
            if await queries.api_key_count(db, account_id) >= self._settings.keys_per_account_max:
                message = f"An account has at most {self._settings.keys_per_account_max} keys."
                raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_keys")
            row = await queries.insert_api_key(db, key_id, account_id, public_key, scopes, body.label)
            if row is None:
                message = "public_key: is registered already"
                raise ApiError(ErrorCode.CONFLICT, message, reason="key_exists", field="public_key")
            await self._core.register_key(str(key_id), public_key, caller.account, scopes)
        return _key(row)

    async def revoke_key(self, caller: Caller, key_id: UUID) -> None:
        """Revoked at the gateway before the row is committed: a key that is gone from the list opens nothing."""
        async with self._database.transaction() as db:
            public_key = await queries.revoke_api_key(db, UUID(caller.account_id), key_id)
            if public_key is None:
                raise ApiError(ErrorCode.NOT_FOUND, "There is no such key.", reason="unknown_key")
            await self._core.revoke_key(str(key_id), public_key)

    async def _prove(self, body: VerifyRequest) -> Signer:
        """The signer of the nonce's message. The nonce is spent in a transaction of its own, whatever comes."""
        now = datetime.now(UTC)
        async with self._database.transaction() as db:
            row = await queries.consume_nonce(db, body.nonce, now)
        address = canonical_address(body.address)
        if row is None or bytes(row["address"]) != address:
            raise unauthorized("nonce_unknown", "This nonce was not given to this address.")
        if row["was_used"]:
            raise unauthorized("nonce_used", "This nonce has been used: ask for another.")
        if row["expires_at"] <= now:
            raise unauthorized("nonce_expired", "This nonce has expired: ask for another.")
        if row["domain"] != self._settings.domain:
            raise unauthorized("wrong_domain", "This nonce was given for another domain.")
        message = sign_in_message(
            row["domain"], self._settings.chain, address, body.nonce, row["issued_at"], row["expires_at"]
        )
        try:
            return verify_personal_message(message.encode(), body.signature, body.address)
        except BadSignature as error:
            if error.reason == "scheme_unavailable":
                raise ApiError(ErrorCode.VERIFICATION_FAILED, str(error), reason=error.reason) from error
            raise unauthorized(error.reason, f"signature: {error}") from error

    async def _find_or_make_account(self, db: Any, signer: Signer) -> tuple[Any, bool]:
        row = await queries.account_by_address(db, signer.address)
        if row is not None:
            return row, False
        made = await queries.insert_account(db, new_id(), new_id(), signer.address, signer.scheme, signer.public_key)
        return await queries.account_by_address(db, signer.address), made

    async def _open_in_core(self, account_id: UUID, address: bytes) -> None:
        """Harmless when repeated, so each sign-in repeats it: a core started anew from nothing learns the account."""
        command = {"op": "account", "account": core_account(account_id), "row": address_text(address)}
        answer = await self._core.submit(command)
        if answer.get("event") == "rejected":
            raise refused_order(str(answer.get("reason")))

    async def _start_session(
        self, db: Any, account_id: UUID, address: bytes, ip: str | None, user_agent: str, created: bool
    ) -> Session:
        session_id = new_id()
        expires = datetime.now(UTC) + timedelta(seconds=self._settings.refresh_seconds)
        await queries.insert_session(db, session_id, account_id, expires, ip, user_agent[:USER_AGENT_MAX])
        state = await queries.session_state(db, session_id)
        session = await self._tokens(db, account_id, session_id, address, state["permission_version"], None)
        return msgspec.structs.replace(session, created=created)

    async def _tokens(
        self, db: Any, account_id: UUID, session_id: UUID, address: bytes, version: int, parent_id: UUID | None
    ) -> Session:
        refresh_token = new_secret()
        seconds = self._settings.refresh_seconds
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        await queries.insert_refresh_token(db, new_id(), session_id, secret_digest(refresh_token), parent_id, expires)
        caller = Caller(str(account_id), core_account(account_id), str(session_id), address_text(address), version)
        return Session(
            caller.account_id, caller.account, caller.address, caller.session_id, self._signer.issue(caller), "Bearer",
            self._signer.seconds, refresh_token, seconds, False,
        )  # fmt: skip


def _version(if_match: str | None, current: int) -> int:
    if if_match is None:
        return current
    text = if_match.strip().strip('"')
    if not text.isdecimal():
        raise ApiError(ErrorCode.VALIDATION_ERROR, "If-Match: is no version", reason="invalid", field="If-Match")
    return int(text)


def _profile(row: Any) -> Profile:
    preferences = row["preferences"]
    return Profile(
        id=str(row["id"]),
        account=core_account(row["id"]),
        username=row["username"],
        display_name=row["display_name"],
        bio=row["bio"],
        status=row["status"],
        wallets=["0x" + address for address in row["wallets"]],
        preferences=msgspec.json.decode(preferences) if isinstance(preferences, str) else preferences,
        created_at=timestamp(row["created_at"]),
        updated_at=timestamp(row["updated_at"]),
        version=row["version"],
    )


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=str(row["id"]),
        public_key=bytes(row["public_key"]).hex(),
        scopes=list(row["scopes"]),
        label=row["label"],
        created_at=timestamp(row["created_at"]),
        last_used_at=timestamp(row["last_used_at"]) if row["last_used_at"] else None,
    )
