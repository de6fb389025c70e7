"""Sign-in with a wallet, sessions with rotating refresh tokens, devices, and fresh proofs.

    nonce: issued → consumed (by its first use, good or bad) | expired
    refresh token: live → used; a used one that comes again is a stolen one: its whole session is cut off
    session: standing, until its time is over → or ended by its own log-out, which leaves its API keys → or cut off, and
             its keys with it
    account: made by the first sign-in of a wallet, and opened in the core as `user:<id>`; its row on Sui is its primary
             wallet, without one it is settled in custody

The core is told of an account that it is not seen to have before the answer leaves, so who signed in can trade; if it
is away that sign-in is refused (503) and leaves no session behind. Whose account the projection shows, settled in the
primary wallet, signs in without the core: a core begun anew from nothing has its projection begun anew. A sign-in holds
the account's lock from before it looks at the wallet until its session is there, as linking and unlinking do: no wallet
that is unlinked beside it becomes the row again. Secrets are stored as digests and never logged.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, refused_order, timestamp
from platform_api.identity import queries
from platform_api.identity.keys import Keys
from platform_api.identity.models import (
    CurrentSession,
    Device,
    DeviceInfo,
    Nonce,
    NonceRequest,
    Session,
    SessionInfo,
    VerifyRequest,
    WalletProof,
)
from platform_api.identity.sui_signature import BadSignature, Signer
from platform_api.identity.wallet_proof import Challenge, WalletAddress, verify_proof, wallet_address
from platform_api.ids import new_id, new_secret, secret_digest
from platform_api.kernel.context import Kernel
from platform_api.permissions import Grant, permissions_of
from platform_api.request_scope import current_request
from platform_api.security import Caller, Standing, unauthorized

__all__ = ["Sessions", "core_account"]

log = structlog.get_logger(__name__)

NONCE_KEPT = timedelta(days=1)
ROOM_OF_PEOPLE = 9, 10
"""How much of the core's table of accounts, which is never emptied, new people may fill. A wallet costs nothing, so
somebody may fill this part; the rest is for the payees and works of those who are here, whose sales go on."""
DEVICE_NAME_MAX = 80


def core_account(account_id: UUID | str) -> str:
    """The name of a person's account in the core."""
    return f"user:{account_id}"


class Sessions:
    """Needs the database for everything, the core for sign-in."""

    def __init__(self, kernel: Kernel, keys: Keys) -> None:
        self._kernel, self._keys = kernel, keys
        self._database = kernel.database
        self._settings = kernel.settings
        text = "Sign-ins that were refused, and refresh tokens that came twice"
        self._refused = kernel.metrics.counter("sign_in_failures", text, ["reason"])

    async def issue_nonce(self, body: NonceRequest, caller: Caller | None) -> Nonce:
        """`caller` is needed for every purpose but a sign-in. Raises ApiError VALIDATION_ERROR."""
        try:
            wallet = wallet_address(body.address)
        except BadSignature as error:
            raise ApiError(
                ErrorCode.VALIDATION_ERROR, f"address: {error}", reason=error.reason, field="address"
            ) from error
        issued = datetime.now(UTC)
        challenge = Challenge(
            domain=self._settings.domain,
            uri=self._settings.origin,
            chain_id=self._chain_id(wallet),
            wallet=wallet,
            purpose=body.purpose,
            account=caller.account_id if caller is not None and body.purpose != "sign_in" else None,
            nonce=secrets.token_hex(16),
            issued_at=issued,
            expires_at=issued + timedelta(seconds=self._settings.nonce_seconds),
        )
        async with self._database.transaction() as db:
            await queries.prune_nonces(db, issued - NONCE_KEPT)
            await queries.insert_nonce(db, challenge, UUID(challenge.account) if challenge.account else None)
        return Nonce(challenge.nonce, challenge.message, timestamp(issued), timestamp(challenge.expires_at))

    async def prove(self, body: WalletProof, purpose: str, account_id: str | None) -> tuple[WalletAddress, Signer]:
        """Whose signature it is. The nonce is spent in a transaction of its own, whatever comes.

        Raises ApiError UNAUTHORIZED, VERIFICATION_FAILED for a scheme that cannot be checked here, RATE_LIMITED.
        """
        now = datetime.now(UTC)
        try:
            wallet = wallet_address(body.address)
        except BadSignature as error:
            raise unauthorized(error.reason, f"address: {error}") from error
        async with self._database.transaction() as db:
            row = await queries.consume_nonce(db, body.nonce, now)
        if row is None or (row["chain"], bytes(row["address"])) != (wallet.chain, wallet.raw):
            raise unauthorized("nonce_unknown", "This nonce was not given to this address.")
        if row["was_used"]:
            raise unauthorized("nonce_used", "This nonce has been used: ask for another.")
        if row["expires_at"] <= now:
            raise unauthorized("nonce_expired", "This nonce has expired: ask for another.")
        if row["domain"] != self._settings.domain:
            raise unauthorized("wrong_domain", "This nonce was given for another domain.")
        owner = str(row["account_id"]) if row["account_id"] else None
        if (row["purpose"], owner) != (purpose, account_id):
            raise unauthorized("wrong_purpose", "This nonce was given for something else.")
        challenge = Challenge(
            row["domain"],
            self._settings.origin,
            self._chain_id(wallet),
            wallet,
            purpose,
            owner,
            body.nonce,
            row["issued_at"],
            row["expires_at"],
        )
        try:
            signer = verify_proof(challenge, body.signature)
        except BadSignature as error:
            if error.reason == "scheme_unavailable":
                raise ApiError(ErrorCode.VERIFICATION_FAILED, str(error), reason=error.reason) from error
            raise unauthorized(error.reason, f"signature: {error}") from error
        await self._limit(wallet)
        return wallet, signer

    async def sign_in(self, body: VerifyRequest) -> Session:
        """Raises ApiError UNAUTHORIZED, VERIFICATION_FAILED, FORBIDDEN, RATE_LIMITED; SERVICE_UNAVAILABLE
        `no_room_for_accounts` for a new one; Unavailable."""
        try:
            wallet, signer = await self.prove(body.proof, "sign_in", None)
        except ApiError as error:
            self._refused.labels(error.reason).inc()
            raise
        facts = current_request.get()
        async with self._database.connection() as db:
            known = await queries.account_in_core(db, wallet)
        async with self._beside_core_unless(known) as db:
            row, created = await self._find_or_make_account(db, wallet, signer)
            if known is not None and row["id"] != known:
                raise unauthorized("wallet_unlinked", "This wallet has just been unlinked from its account.")
            _refuse_unless_active(row["status"])
            if created and not self._has_room():
                self._refused.labels("no_room_for_accounts").inc()
                message = "The exchange takes no new accounts now."
                raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, message, reason="no_room_for_accounts")
            await queries.touch_account(db, row["id"])
            device = body.device or DeviceInfo(
                "web" if body.delivery == "cookie" else "program", (facts.user_agent or "unnamed")[:DEVICE_NAME_MAX]
            )
            device_id = await queries.see_device(db, new_id(), row["id"], device.kind, device.name)
            session_id = new_id()
            expires = datetime.now(UTC) + timedelta(seconds=self._settings.session_seconds)
            await queries.insert_session(
                db, session_id, row["id"], row["wallet_id"], device_id, expires, facts.ip_address,
                facts.user_agent or "",
            )  # fmt: skip
            if known is None:  # else whoever changed its primary wallet since has told the core
                await self.open_in_core(db, row["id"])
            if created:
                await self._kernel.events.publish(
                    db, "user.registered", ("account", str(row["id"])), {"chain": wallet.chain}, actor=row["id"]
                )
            session = await self._tokens(db, row["id"], session_id, wallet, row["permission_version"], expires, None)
        log.info("sign_in", account_id=str(row["id"]), created=created, scheme=signer.scheme)
        return msgspec.structs.replace(session, created=created)

    async def refresh(self, refresh_token: str, csrf_token: str | None) -> tuple[Session | None, str | None]:
        """The next pair of tokens and None; or None and the session that a reused token just ended.

        `csrf_token` is what came with a cookie, and must fit the session; None for a token from a body.
        """
        async with self._database.transaction() as db:
            token = await queries.refresh_token_for_update(db, secret_digest(refresh_token))
            if token is None:
                raise unauthorized("refresh_unknown", "The refresh token is none of ours.")
            if csrf_token is not None and not self._kernel.signer.csrf_fits(str(token["session_id"]), csrf_token):
                message = "A refresh with a cookie needs the header X-CSRF-Token of its session."
                raise ApiError(ErrorCode.FORBIDDEN, message, reason="csrf", field="X-CSRF-Token")
            if token["used_at"] is not None:
                # Committed on leaving the block: raising here would undo it.
                if await queries.end_session(db, token["session_id"]):
                    await self.cut_off(db, token["account_id"], [token["session_id"]], "refresh_reused")
                await self._kernel.audit.record(
                    db, "session.refresh_reused", ("session", str(token["session_id"])), actor=token["account_id"]
                )
                self._refused.labels("refresh_reused").inc()
                log.warning("refresh_reused", session_id=str(token["session_id"]))
                return None, str(token["session_id"])
            if token["revoked_at"] is not None or token["expires_at"] <= datetime.now(UTC):
                raise unauthorized("session_revoked", "The session has ended: sign in again.")
            _refuse_unless_active(token["status"])
            await queries.mark_refresh_token(db, token["id"])
            wallet = WalletAddress(token["chain"], bytes(token["address"]))
            pair = await self._tokens(
                db, token["account_id"], token["session_id"], wallet, token["permission_version"], token["expires_at"],
                token["id"],
            )  # fmt: skip
            return pair, None

    async def current(self, caller: Caller) -> CurrentSession:
        async with self._database.connection() as db:
            row = await queries.session_state(db, UUID(caller.session_id))
        roles = sorted({"member", *(role for role, _ in row["grants"])})
        return CurrentSession(
            account_id=caller.account_id,
            account=caller.account,
            address=caller.address,
            session_id=caller.session_id,
            roles=roles,
            permissions=sorted(permissions_of(_grants(row))),
            expires_at=timestamp(row["expires_at"]),
            proved_at=timestamp(row["proved_at"]),
            csrf_token=self._kernel.signer.csrf_token(caller.session_id),
        )

    async def step_up(self, caller: Caller, body: WalletProof) -> None:
        """A wallet of the caller signed anew. Raises ApiError UNAUTHORIZED."""
        wallet, _ = await self.prove(body, "step_up", caller.account_id)
        async with self._database.transaction() as db:
            await queries.lock_account(db, UUID(caller.account_id))
            row = await queries.account_by_wallet(db, wallet)
            if row is None or str(row["id"]) != caller.account_id:
                raise unauthorized("other_wallet", "This wallet is not linked to the account.")
            await queries.prove_session(db, UUID(caller.session_id))

    async def log_out(self, caller: Caller) -> None:
        async with self._database.transaction() as db:
            if await queries.end_session(db, UUID(caller.session_id)):
                await self.tell_ended(db, UUID(caller.session_id), UUID(caller.account_id))

    async def standing_of(self, caller: Caller) -> Standing:
        """For SessionGuard. Raises Unavailable."""
        async with self._database.connection() as db:
            row = await queries.session_state(db, UUID(caller.session_id))
        if row is None or row["revoked"] or row["expires_at"] <= datetime.now(UTC):
            return Standing("session_revoked")
        if row["status"] != "active":
            return Standing("account_suspended")
        if row["permission_version"] != caller.version:
            return Standing("token_stale")
        return Standing(None, permissions_of(_grants(row)), row["proved_at"])

    async def sessions_of(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[SessionInfo], Pagination]:
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.sessions(db, UUID(caller.account_id), before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_session_info(row, caller) for row in rows], pagination

    async def end(self, caller: Caller, session_id: UUID) -> None:
        """Raises ApiError NOT_FOUND, also for a session of another account."""
        async with self._database.transaction() as db:
            if not await queries.end_own_session(db, UUID(caller.account_id), session_id):
                raise unknown("session")
            await self.cut_off(db, UUID(caller.account_id), [session_id], "session_ended")

    async def devices(self, caller: Caller) -> list[Device]:
        async with self._database.connection() as db:
            rows = await queries.devices(db, UUID(caller.account_id))
        return [
            Device(
                str(row["id"]), row["kind"], row["name"], timestamp(row["created_at"]), timestamp(row["last_seen_at"]),
                row["sessions"],
            )
            for row in rows
        ]  # fmt: skip

    async def revoke_device(self, caller: Caller, device_id: UUID) -> list[UUID]:
        """Ends the device's sessions and returns them. Raises ApiError NOT_FOUND."""
        async with self._database.transaction() as db:
            ended = await queries.revoke_device(db, UUID(caller.account_id), device_id)
            if ended is None:
                raise unknown("device")
            await self.cut_off(db, UUID(caller.account_id), ended, "device_revoked", device_id=str(device_id))
        return ended

    async def cut_off(self, db: Any, account_id: UUID, session_ids: Sequence[UUID], why: str, **facts: str) -> None:
        """Sessions were ended from without: their sockets end, and the keys that they made; letters that wait for an
        answer are taken back, whichever session asked for them."""
        for session_id in session_ids:
            await self.tell_ended(db, session_id, account_id, **facts)
        await queries.take_back_email_tokens(db, account_id)
        await self._keys.end_all(db, account_id, session_ids, why)

    async def tell_ended(self, db: Any, session_id: UUID, account_id: UUID, **facts: str) -> None:
        """However a session ended: its event sockets end with it."""
        await self._kernel.events.publish(
            db, "session.revoked", ("session", str(session_id)), dict(facts), actor=account_id
        )

    def _has_room(self) -> bool:
        """As the core's process said last; one that says nothing opens what it can."""
        core = self._kernel.status.read().get("core") or {}
        share, of = ROOM_OF_PEOPLE
        return int(core.get("accounts", 0)) * of < int(core.get("accounts_max", 1)) * share

    def _beside_core_unless(self, known: UUID | None) -> AbstractAsyncContextManager[Any]:
        """A transaction of those that wait for the core, unless there is nothing to ask it."""
        return self._database.transaction_beside_core(newcomer=True) if known is None else self._database.transaction()

    async def open_in_core(self, db: Any, account_id: UUID) -> None:
        """Harmless when repeated."""
        command = {"op": "account", "account": core_account(account_id)}
        for wallet in await queries.wallets(db, account_id):
            if wallet["is_primary"]:
                command["row"] = WalletAddress("sui", bytes(wallet["address"])).text
        answer = await self._kernel.core.submit(command)
        if answer.get("event") == "rejected":
            raise refused_order(str(answer.get("reason")))

    async def _limit(self, wallet: WalletAddress) -> None:
        """Beside the limit by network of the client, which the gate keeps: good proofs of one wallet.

        Nonces and bad proofs do not count: anybody can ask for and send those of any wallet, and would shut it out.
        """
        verdict = await self._kernel.limits.take("auth", f"wallet:{wallet.text.lower()}")
        if verdict is not None and not verdict.allowed:
            raise ApiError(
                ErrorCode.RATE_LIMITED, "Too many proofs of this wallet.", reason="rate_limited",
                headers={"retry-after": str(verdict.retry_seconds)},
            )  # fmt: skip

    def _chain_id(self, wallet: WalletAddress) -> str:
        return self._settings.chain if wallet.chain == "sui" else str(self._settings.ethereum_chain_id)

    async def _find_or_make_account(self, db: Any, wallet: WalletAddress, signer: Signer) -> tuple[Any, bool]:
        row = await queries.account_by_wallet(db, wallet)
        if row is not None:
            await queries.lock_account(db, row["id"])
            row = await queries.account_by_wallet(db, wallet)  # as it is now that nobody else can change it
            if row is None:
                raise unauthorized("wallet_unlinked", "This wallet has just been unlinked from its account.")
            return row, False
        made = await queries.insert_account(db, new_id(), new_id(), wallet, signer)
        return await queries.account_by_wallet(db, wallet), made

    async def _tokens(
        self, db: Any, account_id: UUID, session_id: UUID, wallet: WalletAddress, version: int, expires: datetime,
        parent_id: UUID | None,
    ) -> Session:  # fmt: skip
        """`expires`: the session's end, which no refresh moves."""
        refresh_token = new_secret()
        seconds = round((expires - datetime.now(UTC)).total_seconds())
        await queries.insert_refresh_token(db, new_id(), session_id, secret_digest(refresh_token), parent_id, expires)
        caller = Caller(str(account_id), core_account(account_id), str(session_id), wallet.text, version)
        signer = self._kernel.signer
        return Session(
            caller.account_id, caller.account, caller.address, caller.session_id, signer.issue(caller), "Bearer",
            signer.seconds, refresh_token, seconds, None, False,
        )  # fmt: skip


def _refuse_unless_active(status: str) -> None:
    if status == "banned":
        raise ApiError(ErrorCode.FORBIDDEN, "This account is banned, for good.", reason="account_banned")
    if status != "active":
        raise ApiError(ErrorCode.FORBIDDEN, "This account is suspended.", reason="account_suspended")


def _grants(row: Any) -> list[Grant]:
    return [Grant(role, tuple(filter(None, departments.split(",")))) for role, departments in row["grants"]]


def _session_info(row: Any, caller: Caller) -> SessionInfo:
    return SessionInfo(
        id=str(row["id"]),
        device_id=str(row["device_id"]) if row["device_id"] else None,
        created_at=timestamp(row["created_at"]),
        last_seen_at=timestamp(row["last_seen_at"]),
        expires_at=timestamp(row["expires_at"]),
        ip_address=str(row["ip"]) if row["ip"] else None,
        user_agent=row["user_agent"],
        current=str(row["id"]) == caller.session_id,
    )
