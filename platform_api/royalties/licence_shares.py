"""What licences take from those who are paid for a work, and their consent.

*Made under.* A work that is named as made under a licence gives the licence's share to the work above it: that takes
from everybody who is paid for the new work. A share that takes the place of a higher one takes from those who are paid
for the work above, and for the works above that. Under a licence below another it goes through the hands of the
licensors between, each of whom gives on what the licence above says; they lose by a lower share as well.

*Given on.* What licences are sold for below a licence that may be given on comes to its licensee, and its share of that
to the work. That takes from everybody who is paid for the work, or for one above it: the same right, sold by the owner,
would pay them by their shares. It is asked anew for each period of the licence; a licence whose share is the whole
takes nothing.

Whoever takes is the owner of the work that is taken from, or gives a licence of it. So the share counts when everybody
else has agreed who loses: collaborators, and payees of rules that count or will. Who that is, is asked again at the
last consent, under the lock of the work. While a share waits, everything is as before; a refusal ends it.

    pending ──▶ effective | declined | superseded (the licence is named anew, or a later one for the work)
       └───────────┴──▶ over (given on: with the period)
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from uuid import UUID

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.royalties import share_queries
from platform_api.royalties.earnings import Earnings
from platform_api.royalties.models import LicenceShare, LicenceShareConsent
from platform_api.royalties.rules import RoyaltyRules, shown_share
from platform_api.royalties.split import WHOLE_BPS
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
        self, db: Any, work: Any, licence_id: UUID, parent_work_id: UUID, share_bps: int,
        between: Sequence[tuple[UUID, int]], replaced: Sequence[UUID],
    ) -> bool:  # fmt: skip
        """Whether the share counts at once; else it waits. By the owner of `work`, whose lock the caller holds, and the
        parent's. `between`: as `Earnings.bind` takes them. `replaced` are ended licences whose shares of the work end
        with it.

        Raises:
            ApiError: CONFLICT `chain_too_long`, `more_than_whole`, `too_many_below`, also where it would wait.
            asyncpg.UniqueViolationError: the licence has its work.
        """
        for id_ in (licence_id, *replaced):
            waiting = await share_queries.open_licence_share(db, id_)
            if waiting is not None and (id_ == licence_id or waiting["work_id"] == work["id"]):
                await share_queries.close_licence_share(db, waiting["id"], "superseded")
        row = await share_queries.insert_licence_share(
            db, new_id(), licence_id, work["id"], parent_work_id, share_bps, replaced, work["account_id"], None,
            [account_id for account_id, _ in between], [bps for _, bps in between],
        )  # fmt: skip
        return await self._begin(db, row, set())

    async def give_on(
        self, db: Any, work_id: UUID, licence_id: UUID, period_id: UUID, share_bps: int, actor: UUID
    ) -> None:
        """A period of a licence that permits licences below it was granted, by `actor`; the caller holds the work's
        lock. Until all have agreed `check_given_on` refuses what would be sold below it in that time."""
        row = await share_queries.insert_licence_share(
            db, new_id(), licence_id, work_id, None, share_bps, [], actor, period_id, [], []
        )
        await self._begin(db, row, set())

    async def check_given_on(self, db: Any, period_ids: Sequence[UUID]) -> None:
        """Raises ApiError CONFLICT `sublicensing_not_agreed`: not all have agreed to each of these periods."""
        if await share_queries.periods_not_agreed(db, period_ids):
            message = (
                "Others who are paid for the work have not agreed that this licence is given on: they answer by the"
                " work's royalty rules."
            )
            raise ApiError(ErrorCode.CONFLICT, message, reason="sublicensing_not_agreed")

    async def end_given_on(self, db: Any, period_ids: Sequence[UUID]) -> None:
        """These periods are at their end: nothing waits for an answer, nothing can be given on."""
        await share_queries.end_given_on(db, period_ids)

    async def answer(self, caller: Caller, work_id: UUID, body: LicenceShareConsent) -> LicenceShare:
        """By one who is asked. Raises ApiError NOT_FOUND; CONFLICT `share_closed`, and those of `name`."""
        account_id = UUID(caller.account_id)
        async with self._database.transaction() as db:
            row = await share_queries.licence_share(db, body.share_id)
            asked = [] if row is None else await share_queries.licence_share_consents(db, row["id"])
            if row is None or work_id not in _works(row) or account_id not in {one["account_id"] for one in asked}:
                raise unknown("share")
            for id_ in sorted(_works(row)):
                await self._catalog.lock_known(db, id_)
            row = await share_queries.licence_share(db, body.share_id)  # as it is under the lock
            if row["status"] != "pending":
                message = f"The share is {row['status']}: nothing waits for an answer."
                raise ApiError(ErrorCode.CONFLICT, message, reason="share_closed")
            await share_queries.take_licence_share_consent(db, row["id"], account_id, body.agree)
            await self._kernel.audit.record(
                db, "licence_share.answered", ("work", str(row["work_id"])), actor=account_id,
                new={"share_id": str(row["id"]), "agree": body.agree},
            )  # fmt: skip
            consents = await share_queries.licence_share_consents(db, row["id"])
            agreed = {consent["account_id"] for consent in consents}
            if not body.agree:
                await share_queries.close_licence_share(db, row["id"], "declined")
                await self._tell(db, row, "declined", agreed, account_id)
            elif all(consent["agreed"] for consent in consents):
                await self._begin(db, row, agreed)
            return await shown_share(db, await share_queries.licence_share(db, row["id"]))

    async def _begin(self, db: Any, row: Any, agreed: set[UUID]) -> bool:
        """Let it count, unless somebody else loses by it: then they are asked, and False."""
        status = "effective"
        try:
            async with db.transaction():  # tried also if it must wait: what can never count is refused at once
                losers = await (self._made_under(db, row) if row["period_id"] is None else self._given_on(db, row))
                if late := losers - agreed - {row["proposed_by"]}:
                    raise _TakesFromOthers(late)
            await share_queries.close_licence_share(db, row["id"], "effective")
        except _TakesFromOthers as takes:
            await share_queries.add_licence_share_consents(db, row["id"], sorted(takes.accounts))
            agreed = agreed | takes.accounts
            status = "pending"
        await self._tell(db, row, status, agreed, row["proposed_by"])
        return status == "effective"

    async def _made_under(self, db: Any, row: Any) -> set[UUID]:
        """Bind the work; who loses by it."""
        parent_id, through = row["parent_work_id"], row["through"]
        between = list(zip(through, row["passed_bps"], strict=True))
        before = await _given(db, row["work_id"])
        await share_queries.unbind(db, row["replaces"], row["work_id"])
        await self._earnings.bind(db, row["licence_id"], row["work_id"], parent_id, row["share_bps"], between)
        after = await _given(db, row["work_id"])
        losers: set[UUID] = set()
        if sum(after.values()) > sum(before.values()):
            losers |= await self._others(db, row["work_id"])
        falls = {id_ for id_, part in before.items() if after.get(id_, 0) < part}
        owner_id = (await self._catalog.lock_known(db, parent_id))["account_id"]
        if parent_id in falls:
            losers |= await self._others_and_above(db, parent_id) | {owner_id}
        licensor_id = through[0] if through else owner_id
        return (losers | falls - {parent_id}) - {licensor_id}

    async def _given_on(self, db: Any, row: Any) -> set[UUID]:
        return set() if row["share_bps"] == WHOLE_BPS else await self._others_and_above(db, row["work_id"])

    async def _others_and_above(self, db: Any, work_id: UUID) -> set[UUID]:
        """Who loses if the work receives less: also all who are paid for the works above it."""
        found = await self._others(db, work_id)
        for id_ in sorted({edge["parent_work_id"] for edge in await share_queries.edges_above(db, [work_id])}):
            found |= await self._rules.everybody_paid(db, id_)
        return found

    async def _others(self, db: Any, work_id: UUID) -> set[UUID]:
        return await self._rules.paid_beside_owner(db, await self._catalog.lock_known(db, work_id))

    async def _tell(self, db: Any, row: Any, status: str, asked: set[UUID], actor: UUID) -> None:
        """Everybody who is paid for a work that it is about, and who was asked."""
        told = set(asked)
        for id_ in _works(row):
            work = await self._catalog.lock_known(db, id_)
            told |= await self._rules.paid_beside_owner(db, work) | {work["account_id"]}
        told |= set(row["through"])
        parent_id = row["parent_work_id"]
        payload = {
            "share_id": str(row["id"]), "license_id": str(row["licence_id"]), "share_bps": row["share_bps"],
            "kind": "given_on" if parent_id is None else "made_under",
            "parent_work_id": None if parent_id is None else str(parent_id), "status": status,
            "for_accounts": sorted(map(str, told)),
        }  # fmt: skip
        await self._kernel.events.publish(
            db, "royalty.licence_share_changed", ("work", str(row["work_id"])), payload, actor=actor
        )


def _works(row: Any) -> set[UUID]:
    """Whose payees it may take from, or ask."""
    return {row["work_id"], row["parent_work_id"]} - {None}


async def _given(db: Any, work_id: UUID) -> dict[UUID, Fraction]:
    """The part of what the work receives that goes to each work above it, and to each licensor between, by id."""
    given: dict[UUID, Fraction] = {}
    for row in await share_queries.ancestors(db, work_id):
        part = Fraction(row["share_bps"], WHOLE_BPS)
        for account_id, passed_bps in zip(row["through"], row["passed_bps"], strict=True):
            passed_on = part * Fraction(passed_bps, WHOLE_BPS)
            given[account_id] = given.get(account_id, Fraction(0)) + part - passed_on
            part = passed_on
        given[row["parent_work_id"]] = given.get(row["parent_work_id"], Fraction(0)) + part
    return given
