"""Who made a work together, and what share each has.

The owner proposes the whole list; the owner's own share is what is left of 10,000 basis points. The list becomes
effective when everybody agreed whose share falls (or ends), and everybody who is new on it: nobody is named, and nobody
loses, without saying so. A share that rises needs no consent, but the owner's, who proposes. A new proposal takes the
place of one that waits; a refusal ends it.

What was agreed last counts: a royalty rule that stands against the new shares ends with their consent, so whoever loses
by that is asked too; and asked again at the last consent, for a rule may have been agreed meanwhile.
"""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

import msgspec

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.identity.service import IdentityService
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.security import Caller
from platform_api.works import queries
from platform_api.works.catalog import Catalog, check_open
from platform_api.works.models import (
    Collaborator,
    CollaboratorChange,
    CollaboratorLine,
    Collaborators,
    CollaboratorsRequest,
    Consent,
)

__all__ = ["Collaboration", "who_must_agree"]

WHOLE_BPS = 10_000


class StandingRules(Protocol):
    """Of the context of royalties, for a work whose lock the caller holds. `shares` are whole, with the owner's."""

    async def who_loses(self, db: Any, work_id: UUID, shares: dict[UUID, int]) -> set[UUID]:
        """Whose part by a rule that counts, or will, is more than these shares give."""

    async def give_way(self, db: Any, work_id: UUID, shares: dict[UUID, int], actor: UUID) -> None:
        """These shares count from now on in place of all rules."""


class Collaboration:
    def __init__(self, kernel: Kernel, catalog: Catalog) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._catalog = catalog
        self._people = kernel.service(IdentityService).people
        self.rules: StandingRules | None = None

    async def read(self, visitor: Caller | None, work_id: UUID) -> Collaborators:
        """Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            _, inside = await self._catalog.visible(db, visitor, work_id)
            return await self._shown(db, work_id, inside)

    async def propose(self, caller: Caller, work_id: UUID, body: CollaboratorsRequest) -> Collaborators:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR."""
        async with self._database.transaction() as db:
            work = await self._catalog.lock_own(db, caller, work_id)
            check_open(work)
            await self._check(db, body.collaborators, work["account_id"])
            lines = [(line.account_id, line.role, line.share_bps) for line in body.collaborators]
            asked = await self._asked(db, work, lines)
            waiting = await queries.open_change(db, work_id)
            if waiting is not None:
                await queries.close_change(db, waiting["id"], "superseded")
            change_id, actor = new_id(), UUID(caller.account_id)
            status = "pending" if asked else "effective"
            await queries.insert_change(db, change_id, work_id, msgspec.json.encode(lines).decode(), status, actor)
            await queries.add_consents(db, change_id, sorted(asked))
            if not asked:
                await self._make_effective(db, work, change_id, lines, actor)
            return await self._shown(db, work_id, True)

    async def answer(self, caller: Caller, work_id: UUID, body: Consent) -> Collaborators:
        """By one who is asked. Raises ApiError NOT_FOUND; CONFLICT `no_such_change` if another is proposed now."""
        account_id = UUID(caller.account_id)
        async with self._database.transaction() as db:
            await self._catalog.visible(db, caller, work_id)
            work = await queries.lock_work(db, work_id)
            change = await queries.open_change(db, work_id)
            asked = [] if change is None else await queries.consents(db, change["id"])
            if work is None or not any(row["account_id"] == account_id for row in asked):
                raise unknown("change")
            if change["id"] != body.change_id:
                raise ApiError(ErrorCode.CONFLICT, "Another change is proposed now.", reason="no_such_change",
                               details={"change_id": str(change["id"])})  # fmt: skip
            await queries.answer_consent(db, change["id"], account_id, body.agree)
            await self._kernel.audit.record(
                db, "work.collaborator_answered", ("work", str(work_id)), actor=account_id,
                new={"change_id": str(change["id"]), "agree": body.agree},
            )  # fmt: skip
            if not body.agree:
                await queries.close_change(db, change["id"], "declined")
            elif all(row["agreed"] for row in await queries.consents(db, change["id"])):
                lines = msgspec.json.decode(change["lines"], type=list[tuple[UUID, str, int]])
                if late := await self._asked(db, work, lines) - {row["account_id"] for row in asked}:
                    await queries.add_consents(db, change["id"], sorted(late))
                else:
                    await queries.close_change(db, change["id"], "effective")
                    await self._make_effective(db, work, change["id"], lines, change["proposed_by"])
            return await self._shown(db, work_id, True)

    async def shares(self, db: Any, work_id: UUID) -> list[tuple[UUID, int]]:
        """Accounts and basis points, the owner's rest among them: 10,000 together. The work exists."""
        lines = [(row["account_id"], row["share_bps"]) for row in await queries.collaborators(db, work_id)]
        rest = WHOLE_BPS - sum(share for _, share in lines)
        owner = (await queries.work(db, work_id))["account_id"]
        return [(account_id, share) for account_id, share in [(owner, rest), *lines] if share]

    async def _asked(self, db: Any, work: Any, lines: list[tuple[UUID, str, int]]) -> set[UUID]:
        """Who must agree: by the shares that count now, and by rules that stand before them."""
        before = {row["account_id"]: row["share_bps"] for row in await queries.collaborators(db, work["id"])}
        asked = who_must_agree(before, {account_id: share for account_id, _, share in lines})
        if self.rules is not None:
            asked |= await self.rules.who_loses(db, work["id"], _whole(work, lines))
        return asked - {work["account_id"]}

    async def _make_effective(
        self, db: Any, work: Any, change_id: UUID, lines: list[tuple[UUID, str, int]], actor: UUID
    ) -> None:
        old = [[str(row["account_id"]), row["share_bps"]] for row in await queries.collaborators(db, work["id"])]
        await queries.replace_collaborators(db, work["id"], lines)
        if self.rules is not None:
            await self.rules.give_way(db, work["id"], _whole(work, lines), actor)
        new = [[str(account_id), share] for account_id, _, share in lines]
        payload = {"creator_id": str(work["creator_id"]), "change_id": str(change_id), "shares": new}
        subject = ("work", str(work["id"]))
        await self._kernel.events.publish(db, "work.collaborators_changed", subject, payload, actor=actor)
        await self._kernel.audit.record(
            db, "work.collaborators_changed", subject, actor=actor, old={"shares": old}, new={"shares": new}
        )

    async def _check(self, db: Any, lines: list[CollaboratorLine], owner: UUID) -> None:
        accounts = [line.account_id for line in lines]
        if len(set(accounts)) != len(accounts) or owner in accounts:
            message = "collaborators: each account once, and not the owner"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="account_twice", field="collaborators")
        total = sum(line.share_bps for line in lines)
        if total > WHOLE_BPS:
            message = f"collaborators: shares are {total} of {WHOLE_BPS} basis points"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="more_than_whole", field="collaborators")
        for account_id in accounts:
            if not await self._people.is_known(db, account_id):
                message = f"collaborators: there is no account {account_id}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_account", field="collaborators")

    @staticmethod
    async def _shown(db: Any, work_id: UUID, inside: bool) -> Collaborators:
        rows = await queries.collaborators(db, work_id)
        change = await queries.open_change(db, work_id) if inside else None
        pending = None
        if change is not None:
            lines = msgspec.json.decode(change["lines"], type=list[tuple[str, str, int]])
            asked = await queries.consents(db, change["id"])
            pending = CollaboratorChange(
                str(change["id"]), [Collaborator(*line) for line in lines],
                [str(row["account_id"]) for row in asked if row["agreed"] is None], timestamp(change["proposed_at"]),
            )  # fmt: skip
        shares = [Collaborator(str(row["account_id"]), row["role"], row["share_bps"]) for row in rows]
        return Collaborators(WHOLE_BPS - sum(line.share_bps for line in shares), shares, pending)


def _whole(work: Any, lines: list[tuple[UUID, str, int]]) -> dict[UUID, int]:
    """Shares by account, with what is left for the owner."""
    rest = WHOLE_BPS - sum(share for *_, share in lines)
    shares = {account_id: share for account_id, _, share in [(work["account_id"], "", rest), *lines]}
    return {account_id: share for account_id, share in shares.items() if share}


def who_must_agree(before: dict[UUID, int], after: dict[UUID, int]) -> set[UUID]:
    """Everybody whose share falls or ends, and everybody who is new."""
    falls = {account_id for account_id, share in before.items() if after.get(account_id, -1) < share}
    return falls | (after.keys() - before.keys())
