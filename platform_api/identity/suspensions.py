"""Suspending an account, and letting it back: by staff, with a reason. Banning it for good: by the command line.

    active ◀──unsuspend── suspended ──ban──▶ banned
       └─────suspend─────▶ │

At once: nobody signs in, its sessions, sockets and API keys have ended, its tokens are stale. A job then has the core
freeze it (orders cancelled, nothing goes out) for as long as that takes. Its works, its money, and what it is owed stay
where they are. Keys and sessions do not come back with it. Nobody suspends themselves, and nobody here a super_admin:
that role is the command line's to take away first.

Banned is what was suspended: nothing is open any more, and nothing undoes it. The core keeps the account frozen, which
never stops an exit: the owner of a Sui wallet takes the money out at the vault itself. Nothing is confiscated.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import structlog

from engine.messages.errors import Unavailable
from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode
from platform_api.identity import queries
from platform_api.identity.keys import Keys
from platform_api.identity.models import AccountStanding
from platform_api.identity.sessions import Sessions, core_account
from platform_api.kernel.audit import Audit
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Events
from platform_api.security import Caller

__all__ = ["Suspensions", "ban"]

log = structlog.get_logger(__name__)

CORE_STATUS = {"active": "active", "suspended": "frozen", "banned": "frozen"}


class TellCore(msgspec.Struct, frozen=True):
    """A job: the core must hear how the account stands."""

    account_id: UUID


async def ban(db: Any, events: Events, audit: Audit, account_id: UUID, reason: str) -> None:
    """In the transaction of `db`, for the command line. Raises ApiError CONFLICT `not_suspended`."""
    row = await queries.lock_account(db, account_id)
    if row["status"] != "suspended":
        message = f"The account is {row['status']}: only one that staff have suspended is banned."
        raise ApiError(ErrorCode.CONFLICT, message, reason="not_suspended")
    subject = ("account", str(account_id))
    await queries.set_account_status(db, account_id, "banned")
    await queries.bump_permissions(db, account_id)
    await events.publish(db, "user.banned", subject, {}, actor=None)
    await audit.record(
        db, "user.banned", subject, actor=None, old={"status": "suspended"}, new={"status": "banned", "reason": reason}
    )


class Suspensions:
    def __init__(self, kernel: Kernel, sessions: Sessions, keys: Keys) -> None:
        self._kernel, self._sessions, self._keys = kernel, sessions, keys
        self._database = kernel.database
        kernel.jobs.handle("admin_actions", "account_standing", TellCore, self._tell_core)

    async def suspend(self, caller: Caller, account_id: UUID, reason: str) -> tuple[AccountStanding, list[UUID]]:
        """And the sessions that ended. Raises ApiError NOT_FOUND, FORBIDDEN; CONFLICT `not_active`."""
        async with self._database.transaction() as db:
            await self._lock(db, caller, account_id, "active")
            if any(grant["role"] == "super_admin" for grant in await queries.grants(db, account_id)):
                message = "The role super_admin is taken away first, by the command line."
                raise ApiError(ErrorCode.FORBIDDEN, message, reason="command_line_only")
            ended = await queries.end_sessions(db, account_id)
            await self._sessions.cut_off(db, account_id, ended, "suspended")
            await self._keys.end_all(db, account_id, None, "suspended")
            await self._turn(db, caller, account_id, "active", "suspended", reason)
        return AccountStanding(str(account_id), "suspended"), ended

    async def unsuspend(self, caller: Caller, account_id: UUID, reason: str) -> AccountStanding:
        """Raises ApiError NOT_FOUND, FORBIDDEN; CONFLICT `not_suspended`."""
        async with self._database.transaction() as db:
            await self._lock(db, caller, account_id, "suspended")
            await self._turn(db, caller, account_id, "suspended", "active", reason)
        return AccountStanding(str(account_id), "active")

    async def _lock(self, db: Any, caller: Caller, account_id: UUID, wanted: str) -> None:
        row = await queries.lock_account(db, account_id)
        if row is None:
            raise unknown("user")
        if str(account_id) == caller.account_id:
            message = "Nobody of the platform decides their own matters."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="own_account")
        if row["status"] != wanted:
            raise ApiError(ErrorCode.CONFLICT, f"The account is {row['status']}.", reason=f"not_{wanted}")

    async def _turn(self, db: Any, caller: Caller, account_id: UUID, before: str, after: str, reason: str) -> None:
        subject, event = ("account", str(account_id)), "user.suspended" if after == "suspended" else "user.unsuspended"
        await queries.set_account_status(db, account_id, after)
        await queries.bump_permissions(db, account_id)
        await self._kernel.events.publish(db, event, subject, {}, actor=caller.account_id)
        await self._kernel.audit.record(
            db, event, subject, actor=caller.account_id, old={"status": before}, new={"status": after, "reason": reason}
        )
        await self._kernel.jobs.enqueue(db, "admin_actions", "account_standing", TellCore(account_id))

    async def _tell_core(self, job: TellCore) -> None:
        """What the row says now, under its lock: of two jobs the last one tells the last. Repeating it is harmless."""
        async with self._database.transaction_beside_core() as db:
            row = await queries.lock_account(db, job.account_id)
            account = core_account(job.account_id)
            command = {"op": "account", "account": account, "status": CORE_STATUS[row["status"]]}
            answer = await self._kernel.core.submit(command)
        if answer.get("event") == "rejected":
            raise Unavailable(f"the core does not take the standing of {account}: {answer.get('reason')}")
