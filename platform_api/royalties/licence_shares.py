"""What a work made under a licence gives to the work above it, and the consent of those whom that takes from.

Naming a work as made under a licence takes the licence's share from everybody who is paid for the work. So the share
counts when everybody has agreed who is paid besides the owner, who names it: collaborators, and payees of rules that
count or will. Who that is, is asked again at the last consent, under the lock of the work. A licence whose share takes
no more than those did whose place it takes asks nobody. While a share waits, everything is divided as before; a
refusal ends it, and the owner may name the work again.

    pending ──▶ effective | declined | superseded (the licence is named anew, or a later one for the work)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.royalties import queries
from platform_api.royalties.earnings import Earnings
from platform_api.royalties.models import LicenceShare, LicenceShareConsent
from platform_api.royalties.rules import RoyaltyRules, shown_share
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["LicenceShares"]


class _TakesFromOthers(Exception):
    """It counts only once these have agreed."""

    def __init__(self, accounts: set[UUID]) -> None:
        super().__init__(accounts)
        self.accounts = accounts


class LicenceShares:
    def __init__(self, kernel: Kernel, rules: RoyaltyRules, earnings: Earnings) -> None:
        self._kernel, self._rules, self._earnings = kernel, rules, earnings
        self._database = kernel.database
        self._catalog = kernel.service(WorkService).catalog

    async def name(
        self, db: Any, work: Any, licence_id: UUID, parent_work_id: UUID, share_bps: int, replaced: Sequence[UUID],
    ) -> bool:  # fmt: skip
        """Whether the share counts at once; else it waits. By the owner of `work`, whose lock the caller holds, and the
        parent's. `replaced` are ended licences whose shares of the work end with it.

        Raises:
            ApiError: CONFLICT `chain_too_long`, `more_than_whole`, also where it would wait.
            asyncpg.UniqueViolationError: the licence has its work.
        """
        for id_ in (licence_id, *replaced):
            waiting = await queries.open_licence_share(db, id_)
            if waiting is not None and (id_ == licence_id or waiting["work_id"] == work["id"]):
                await queries.close_licence_share(db, waiting["id"], "superseded")
        row = await queries.insert_licence_share(
            db, new_id(), licence_id, work["id"], parent_work_id, share_bps, replaced, work["account_id"]
        )
        return await self._begin(db, work, row, set())

    async def answer(self, caller: Caller, work_id: UUID, body: LicenceShareConsent) -> LicenceShare:
        """By one who is asked. Raises ApiError NOT_FOUND; CONFLICT `share_closed`, and those of `name`."""
        account_id = UUID(caller.account_id)
        async with self._database.transaction() as db:
            row = await queries.licence_share(db, body.share_id)
            asked = [] if row is None else await queries.licence_share_consents(db, row["id"])
            if row is None or row["work_id"] != work_id or account_id not in {one["account_id"] for one in asked}:
                raise unknown("share")
            works = {id_: await self._catalog.lock_known(db, id_) for id_ in sorted((work_id, row["parent_work_id"]))}
            row = await queries.licence_share(db, body.share_id)  # as it is under the lock
            if row["status"] != "pending":
                message = f"The share is {row['status']}: nothing waits for an answer."
                raise ApiError(ErrorCode.CONFLICT, message, reason="share_closed")
            await queries.take_licence_share_consent(db, row["id"], account_id, body.agree)
            await self._kernel.audit.record(
                db, "licence_share.answered", ("work", str(work_id)), actor=account_id,
                new={"share_id": str(row["id"]), "agree": body.agree},
            )  # fmt: skip
            consents = await queries.licence_share_consents(db, row["id"])
            if not body.agree:
                await queries.close_licence_share(db, row["id"], "declined")
                others = await self._rules.paid_beside_owner(db, works[work_id])
                await self._tell(db, works[work_id], row, "declined", others, account_id)
            elif all(consent["agreed"] for consent in consents):
                await self._begin(db, works[work_id], row, {consent["account_id"] for consent in consents})
            return await shown_share(db, await queries.licence_share(db, row["id"]))

    async def _begin(self, db: Any, work: Any, row: Any, agreed: set[UUID]) -> bool:
        """Let it count, unless somebody else loses by it: then they are asked, and False."""
        others = await self._rules.paid_beside_owner(db, work)
        before = await _given(db, work["id"])
        status = "effective"
        try:
            async with db.transaction():  # tried also if it must wait: what can never count is refused at once
                await queries.unbind(db, row["replaces"], work["id"])
                await self._earnings.bind(db, row["licence_id"], work["id"], row["parent_work_id"], row["share_bps"])
                losers = others - agreed if await _given(db, work["id"]) > before else set()
                if losers:
                    raise _TakesFromOthers(losers)
            await queries.close_licence_share(db, row["id"], "effective")
        except _TakesFromOthers as takes:
            await queries.add_licence_share_consents(db, row["id"], sorted(takes.accounts))
            status = "pending"
        await self._tell(db, work, row, status, others, work["account_id"])
        return status == "effective"

    async def _tell(self, db: Any, work: Any, row: Any, status: str, others: set[UUID], actor: UUID) -> None:
        """Everybody who is paid for the work."""
        payload = {
            "share_id": str(row["id"]), "license_id": str(row["licence_id"]), "share_bps": row["share_bps"],
            "parent_work_id": str(row["parent_work_id"]), "status": status,
            "for_accounts": sorted(str(account_id) for account_id in others | {work["account_id"]}),
        }  # fmt: skip
        await self._kernel.events.publish(
            db, "royalty.licence_share_changed", ("work", str(work["id"])), payload, actor=actor
        )


async def _given(db: Any, work_id: UUID) -> int:
    """Basis points of what the work receives that go to works above it."""
    return sum(row["share_bps"] for row in await queries.ancestors(db, work_id))
