"""Grants of roles. What a role permits stands in `platform_api/permissions.py`.

A new grant counts from the next look at the session; a withdrawn one ends the tokens issued before it. Nobody changes
their own roles, and `super_admin` is granted by the command line alone. Every change has its audit entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from platform_api.errors import ApiError, ErrorCode
from platform_api.identity import queries
from platform_api.ids import new_id
from platform_api.kernel.audit import Audit
from platform_api.kernel.events import Events
from platform_api.permissions import DEPARTMENTS, ROLES

__all__ = ["Roles"]


class Roles:
    """`actor` None is the command line, or a rule of the platform (a creator's role comes with the creator)."""

    def __init__(self, events: Events, audit: Audit) -> None:
        self._events = events
        self._audit = audit

    async def grant(
        self,
        db: Any,
        account_id: UUID,
        role: str,
        *,
        actor: UUID | None,
        departments: Sequence[str] = (),
        expires_at: datetime | None = None,
        from_command_line: bool = False,
    ) -> bool:
        """In the transaction of `db`; False if it is granted just so already. Raises ApiError."""
        self._check(account_id, role, actor, from_command_line)
        if set(departments) - set(DEPARTMENTS) or (departments and role != "admin"):
            message = f"departments: of {', '.join(DEPARTMENTS)}, and of an admin alone"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="invalid", field="departments")
        old = await self._now(db, account_id)
        if not await queries.insert_grant(db, new_id(), account_id, role, sorted(set(departments)), actor, expires_at):
            return False
        if role in old["roles"]:  # it may permit less than before
            await queries.bump_permissions(db, account_id)
        await self._note(db, "user.role_granted", account_id, role, actor, old)
        return True

    async def revoke(
        self, db: Any, account_id: UUID, role: str, *, actor: UUID | None, from_command_line: bool = False
    ) -> bool:
        """In the transaction of `db`; False if it is not granted. Raises ApiError."""
        self._check(account_id, role, actor, from_command_line)
        old = await self._now(db, account_id)
        if not await queries.revoke_grant(db, account_id, role):
            return False
        await queries.bump_permissions(db, account_id)
        await self._note(db, "user.role_revoked", account_id, role, actor, old)
        return True

    @staticmethod
    def _check(account_id: UUID, role: str, actor: UUID | None, from_command_line: bool) -> None:
        if role not in ROLES or role == "member":
            grantable = ", ".join(name for name in ROLES if name != "member")
            message = f"role: must be one of {grantable}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="invalid", field="role")
        if role == "super_admin" and not from_command_line:
            message = "super_admin is granted by the command line alone."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="command_line_only")
        if actor == account_id:
            raise ApiError(ErrorCode.FORBIDDEN, "Nobody changes their own roles.", reason="own_account")

    async def _now(self, db: Any, account_id: UUID) -> dict[str, Any]:
        rows = await queries.grants(db, account_id)
        return {"roles": {row["role"]: list(row["departments"]) for row in rows}}

    async def _note(
        self, db: Any, event: str, account_id: UUID, role: str, actor: UUID | None, old: dict[str, Any]
    ) -> None:
        subject = ("account", str(account_id))
        await self._events.publish(db, event, subject, {"role": role}, actor=actor)
        await self._audit.record(db, event, subject, actor=actor, old=old, new=await self._now(db, account_id))
