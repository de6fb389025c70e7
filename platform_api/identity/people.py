"""Profiles, preferences, and e-mail addresses with their verification.

An address is set only by the one-time token that was sent to it, so nobody learns from us whether an address is known:
asking for a letter is answered alike for every address. The first of an account's letters that is answered takes the
others back, and so does the end of a session from without: what was asked for before there was an address to guard, or
by a session that was stolen, sets none afterwards. An address that gives way is told so. Addresses are sealed in the
table and found by keyed digest. The secret of a token is made when its letter is written, so it stands nowhere but in
the letter.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.envelope import check_version, given, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.identity import queries
from platform_api.identity.models import (
    EmailPending,
    EmailRequest,
    EmailVerified,
    Preferences,
    Profile,
    ProfilePatch,
    PublicProfile,
)
from platform_api.identity.owner_letters import ACCOUNT_EMAIL, OwnerLetters
from platform_api.identity.sessions import core_account
from platform_api.identity.step_up import spend_step_up
from platform_api.identity.wallet_proof import WalletAddress
from platform_api.ids import new_id, new_secret, secret_digest
from platform_api.kernel.context import Kernel
from platform_api.kernel.sealing import SealedColumn
from platform_api.ports import Letter
from platform_api.security import Caller

__all__ = ["TOKEN_EMAIL", "People"]

TOKEN_EMAIL = SealedColumn("identity.email_token", "email_sealed")
LETTERS_PER_HOUR = 5


class EmailLetter(msgspec.Struct, frozen=True):
    """A job: write the letter for this token."""

    token_id: UUID


class People:
    def __init__(self, kernel: Kernel, letters: OwnerLetters) -> None:
        self._kernel, self._letters = kernel, letters
        self._database = kernel.database
        kernel.jobs.handle("notifications", "email_verification", EmailLetter, self._write_letter)

    async def profile(self, caller: Caller) -> Profile:
        async with self._database.connection() as db:
            return self._profile(await queries.account_by_id(db, UUID(caller.account_id)))

    async def public(self, account_id: UUID) -> PublicProfile:
        """Raises ApiError NOT_FOUND, also for an account that is suspended or closed."""
        async with self._database.connection() as db:
            row = await queries.public_account(db, account_id)
        if row is None:
            raise unknown("user")
        return PublicProfile(
            str(row["id"]), row["username"], row["display_name"], row["bio"], row["avatar_url"], row["cover_url"],
            timestamp(row["created_at"]),
        )  # fmt: skip

    async def is_known(self, db: Any, account_id: UUID) -> bool:
        """On the caller's connection: is there such an account, in good standing?"""
        return await queries.public_account(db, account_id) is not None

    async def change(self, caller: Caller, body: ProfilePatch, if_match: str | None) -> Profile:
        """Raises ApiError CONFLICT: `version_mismatch` or `username_taken`."""
        changes = given(body)
        account_id = UUID(caller.account_id)
        try:
            async with self._database.transaction() as db:
                row = await queries.lock_account(db, account_id)
                check_version(if_match, row["version"])
                if "preferences" in changes:
                    old = msgspec.json.decode(row["preferences"])
                    changes["preferences"] = msgspec.json.encode(old | msgspec.to_builtins(body.preferences)).decode()
                if changes:
                    await queries.update_account(db, account_id, row["version"], changes)
                return self._profile(await queries.account_by_id(db, account_id))
        except asyncpg.UniqueViolationError as error:
            message = "username: is taken"
            raise ApiError(ErrorCode.CONFLICT, message, reason="username_taken", field="username") from error

    async def ask_for_letter(self, caller: Caller, body: EmailRequest) -> EmailPending:
        """Where there is an address, another one costs a step-up: else a thief had the owner's letters.

        Raises ApiError SERVICE_UNAVAILABLE without a mail provider, RATE_LIMITED after five letters in an hour,
        FORBIDDEN `step_up_required`.
        """
        if self._kernel.mail is None:
            message = "This exchange has no mail provider."
            raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, message, reason="no_mail_provider")
        token_id, account_id = new_id(), UUID(caller.account_id)
        expires = datetime.now(UTC) + timedelta(seconds=self._kernel.settings.email_token_seconds)
        async with self._database.transaction() as db:
            account = await queries.lock_account(db, account_id)
            if await queries.email_tokens_lately(db, account_id) >= LETTERS_PER_HOUR:
                message = f"At most {LETTERS_PER_HOUR} letters an hour."
                raise ApiError(
                    ErrorCode.RATE_LIMITED, message, reason="too_many_letters", headers={"retry-after": "3600"}
                )
            sealed, digest = self._kernel.sealer.seal(TOKEN_EMAIL, token_id, body.email), self._email_digest(body.email)
            if account["email_digest"] is not None and bytes(account["email_digest"]) != digest:
                await spend_step_up(db, caller)
            await queries.insert_email_token(
                db, token_id, account_id, secret_digest(new_secret()), sealed, digest, expires
            )
            await self._kernel.jobs.enqueue(db, "notifications", "email_verification", EmailLetter(token_id))
        return EmailPending(self._kernel.mail.provider, timestamp(expires))

    async def verify_email(self, token: str, caller: Caller | None) -> EmailVerified:
        """`caller`, if given, must be whom the token is for. Raises ApiError VERIFICATION_FAILED, CONFLICT."""
        try:
            async with self._database.transaction() as db:
                digest = secret_digest(token)
                row = await queries.email_token(db, digest)
                if row is not None:  # the account first, as everywhere: of two letters at once one is answered
                    account = await queries.lock_account(db, row["account_id"])
                    row = await queries.email_token(db, digest)
                if (
                    row is None
                    or row["used_at"] is not None
                    or row["expires_at"] <= datetime.now(UTC)
                    or (caller is not None and str(row["account_id"]) != caller.account_id)
                ):
                    message = "This token is unknown, used or out of date: ask for another letter."
                    raise ApiError(ErrorCode.VERIFICATION_FAILED, message, reason="token_invalid", field="token")
                account_id = row["account_id"]
                email = self._kernel.sealer.open(TOKEN_EMAIL, row["id"], bytes(row["email_sealed"]))
                sealed = self._kernel.sealer.seal(ACCOUNT_EMAIL, account_id, email)
                at = await queries.use_email_token(db, row["id"], account_id, sealed, bytes(row["email_digest"]))
                if account["email_digest"] is not None and account["email_digest"] != row["email_digest"]:
                    await self._letters.tell(
                        db, account_id, "Your address was changed",
                        f"Letters about your account go to {email} from now on. This is the last one to this address.",
                        instead=bytes(account["email_sealed"]),
                    )  # fmt: skip
                await self._kernel.events.publish(
                    db, "user.email_verified", ("account", str(account_id)), {}, actor=account_id
                )
                await self._kernel.audit.record(
                    db, "user.email_changed", ("account", str(account_id)), actor=account_id, new={"email": email}
                )
        except asyncpg.UniqueViolationError as error:
            message = "This address belongs to another account."
            raise ApiError(ErrorCode.CONFLICT, message, reason="email_taken") from error
        return EmailVerified(timestamp(at))

    async def _write_letter(self, job: EmailLetter) -> None:
        """A letter written twice has a new secret the second time; the older one is worth nothing then."""
        if self._kernel.mail is None:
            return
        secret = new_secret()
        async with self._database.transaction() as db:
            row = await queries.renew_email_token(db, job.token_id, secret_digest(secret))
        if row is None:  # used or out of date meanwhile
            return
        domain, origin = self._kernel.settings.domain, self._kernel.settings.origin
        text = (
            f"Somebody, hopefully you, gave this address to an account at {domain}.\n\n"
            f"To confirm it, send this token to POST {origin}/v1/auth/email/verify:\n\n    {secret}\n\n"
            f"It is good once, until {timestamp(row['expires_at'])}. If it was not you, do nothing.\n"
        )
        email = self._kernel.sealer.open(TOKEN_EMAIL, row["id"], bytes(row["email_sealed"]))
        await self._kernel.mail.send(Letter(str(row["id"]), email, "Confirm your address", text))

    def _email_digest(self, email: str) -> bytes:
        """Addresses that differ in capitals alone are one."""
        return self._kernel.sealer.digest("email", email.casefold())

    def _profile(self, row: Any) -> Profile:
        sealed = row["email_sealed"]
        wallets = [text.split(" ") for text in row["wallets"]]
        return Profile(
            id=str(row["id"]),
            account=core_account(row["id"]),
            username=row["username"],
            display_name=row["display_name"],
            bio=row["bio"],
            avatar_url=row["avatar_url"],
            cover_url=row["cover_url"],
            email=self._kernel.sealer.open(ACCOUNT_EMAIL, row["id"], bytes(sealed)) if sealed else None,
            email_verified_at=timestamp(row["email_verified_at"]) if sealed else None,
            status=row["status"],
            wallets=[WalletAddress(chain, bytes.fromhex(address)).text for chain, address in wallets],
            preferences=_preferences(row["preferences"]),
            created_at=timestamp(row["created_at"]),
            updated_at=timestamp(row["updated_at"]),
            last_login_at=timestamp(row["last_login_at"]) if row["last_login_at"] else None,
            version=row["version"],
        )


def _preferences(text: str) -> Preferences:
    """Fields of an earlier form of preferences are left out, never an error."""
    found = msgspec.json.decode(text)
    known = {name: value for name, value in found.items() if name in Preferences.__struct_fields__}
    try:
        return msgspec.convert(known, Preferences)
    except msgspec.ValidationError:
        return Preferences()
