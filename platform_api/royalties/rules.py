"""Who gets what of the creators' side of a work: rules with dates, and the consent of those they touch.

The owner proposes the whole list of one kind of revenue, summing to 10,000 basis points. It counts when everybody
agreed whose share falls (or ends), and everybody who is new on it, the owner aside, who proposes: as with
collaborators. Who that is, is asked again at the last consent, under the lock of the work: whoever got a share
meanwhile is asked too, and the rule waits. It counts from its date on, or from the last consent if that is later; a
sale is split by the rule that counted at its time, and nothing that was split is split again. Without a rule the shares
of the work's collaborators count; and shares that collaborators agreed to later take the place of every rule, as rules
of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.identity.service import IdentityService
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import pay_account
from platform_api.royalties import queries, share_queries
from platform_api.royalties.models import LicenceShare, RoyaltyConsent, Rule, RuleLine, RuleRequest, Rules
from platform_api.royalties.split import WHOLE_BPS, Payee
from platform_api.security import Caller
from platform_api.works.collaborators import who_must_agree
from platform_api.works.service import WorkService

__all__ = ["RoyaltyRules", "checked_time", "shown_share"]

YEARS_AHEAD_MAX = timedelta(days=3_660)
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)


def checked_time(at: datetime | None, field: str, earliest: datetime = EARLIEST) -> datetime:
    """Now for None. Raises ApiError VALIDATION_ERROR for what lies before `earliest`, or far ahead."""
    now = datetime.now(UTC)
    if at is None:
        return now
    if not earliest <= at <= now + YEARS_AHEAD_MAX:
        message = f"{field}: must be between {timestamp(earliest)} and ten years from now"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="out_of_range", field=field)
    return at.astimezone(UTC)


class RoyaltyRules:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._works = kernel.service(WorkService)
        self._people = kernel.service(IdentityService).people
        self._works.collaboration.rules = self

    async def read(self, caller: Caller, work_id: UUID) -> Rules:
        """For those who make the work, and those whom a rule names or asks. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            rows = await queries.rules(db, work_id)
            shown = [await _rule(db, row) for row in rows]
            named = {str(line.account_id) for rule in shown for line in rule.lines}
            shares = await _licence_shares(db, work_id)
            asked = {account for rule in shown for account in rule.waits_for}
            asked |= {account for one in shares for account in one.waits_for}
            if caller.account_id not in named | asked:
                await self._works.catalog.check_inside(db, caller, work_id)
            policies = {row["revenue_kind"]: row["platform_bps"] for row in await queries.policies(db)}
        return Rules(policies, shown, shares)

    async def propose(self, caller: Caller, work_id: UUID, body: RuleRequest) -> Rule:
        """Raises ApiError NOT_FOUND; VALIDATION_ERROR `not_whole`, `account_twice`, `unknown_account`."""
        now = datetime.now(UTC)
        async with self._database.transaction() as db:
            work = await self._works.catalog.lock_own(db, caller, work_id)
            await self._check(db, body.lines)
            at = checked_time(body.effective_from, "effective_from", now)
            after = {line.account_id: line.bps for line in body.lines}
            asked = await self._asked(db, work, body.revenue_kind, at, after)
            waiting = await queries.open_rule(db, work_id, body.revenue_kind)
            if waiting is not None:
                await queries.close_rule(db, waiting["id"], "superseded")
            actor, status = UUID(caller.account_id), "pending" if asked else "effective"
            lines = [(line.account_id, line.role, line.bps) for line in body.lines]
            row = await queries.insert_rule(db, new_id(), work_id, body.revenue_kind, at, status, actor, lines)
            await queries.add_consents(db, row["id"], sorted(asked))
            await self._audit(db, "royalty_rule.proposed", row, actor, {str(key): bps for key, bps in after.items()})
            if not asked:
                await self._tell(db, row, actor)
            return await _rule(db, row)

    async def answer(self, caller: Caller, work_id: UUID, body: RoyaltyConsent) -> Rule:
        """By one who is asked. Raises ApiError NOT_FOUND; CONFLICT `rule_closed`."""
        account_id = UUID(caller.account_id)
        async with self._database.transaction() as db:
            row = await queries.rule(db, body.rule_id)
            if row is None or row["work_id"] != work_id:
                raise unknown("rule")
            work = await self._works.catalog.lock_known(db, work_id)  # no share of it changes meanwhile
            row = await queries.lock_rule(db, body.rule_id)
            if not await queries.take_consent(db, row["id"], account_id, body.agree):
                raise unknown("rule")
            if row["status"] != "pending":
                message = f"The rule is {row['status']}: nothing waits for an answer."
                raise ApiError(ErrorCode.CONFLICT, message, reason="rule_closed")
            consents = await queries.consents(db, row["id"])
            await self._audit(db, "royalty_rule.answered", row, account_id, {"agree": body.agree})
            if not body.agree:
                await queries.close_rule(db, row["id"], "declined")
            elif all(consent["agreed"] for consent in consents):
                # Others may have got a share since it was proposed: whoever loses it now is asked too.
                at = max(row["effective_from"], datetime.now(UTC))
                after = {line["account_id"]: line["bps"] for line in await queries.rule_lines(db, row["id"])}
                asked = await self._asked(db, work, row["revenue_kind"], at, after)
                if late := asked - {consent["account_id"] for consent in consents}:
                    await queries.add_consents(db, row["id"], sorted(late))
                else:
                    await queries.close_rule(db, row["id"], "effective")
                    await self._tell(db, row, account_id)
            return await _rule(db, await queries.rule(db, row["id"]))

    async def payees_at(self, db: Any, work_id: UUID, kind: str, at: datetime) -> tuple[UUID | None, list[Payee]]:
        """The rule that counted then, None for the collaborators' shares; and its payees, whole."""
        row = await queries.rule_at(db, work_id, kind, at)
        if row is not None:
            rows = await queries.rule_lines(db, row["id"])
            lines = [(line["account_id"], line["role"], line["bps"]) for line in rows]
        else:
            shares = await self._works.collaboration.shares(db, work_id)
            lines = [(account_id, "collaborator", bps) for account_id, bps in shares]
        payees = [Payee(pay_account(account_id), account_id, role, bps) for account_id, role, bps in lines]
        return None if row is None else row["id"], payees

    async def paid_beside_owner(self, db: Any, work: Any) -> set[UUID]:
        """All others with a share of the work."""
        return await self.everybody_paid(db, work["id"]) - {work["account_id"]}

    async def everybody_paid(self, db: Any, work_id: UUID) -> set[UUID]:
        """Whoever has a share of the work: collaborators, and payees of rules that count or will."""
        paid = {account_id for account_id, _ in await self._works.collaboration.shares(db, work_id)}
        for row in await queries.standing_rules(db, work_id):
            paid |= {line["account_id"] for line in await queries.rule_lines(db, row["id"])}
        return paid

    async def who_loses(self, db: Any, work_id: UUID, shares: dict[UUID, int]) -> set[UUID]:
        """Whose part by a rule that counts, or will, is more than these shares give."""
        losers: set[UUID] = set()
        for row in await queries.standing_rules(db, work_id):
            lines = await queries.rule_lines(db, row["id"])
            losers |= {line["account_id"] for line in lines if shares.get(line["account_id"], 0) < line["bps"]}
        return losers

    async def give_way(self, db: Any, work_id: UUID, shares: dict[UUID, int], actor: UUID) -> None:
        """These shares count from now on in place of all rules; the caller holds the work's lock.

        What counted before stays as it was, for sales of that time. Rules that would begin later never do.
        """
        standing = await queries.standing_rules(db, work_id)
        now = datetime.now(UTC)
        for row in standing:
            if row["effective_from"] > now:
                await queries.close_rule(db, row["id"], "superseded")
        lines = [(account_id, "collaborator", bps) for account_id, bps in sorted(shares.items())]
        for kind in sorted({row["revenue_kind"] for row in standing}):
            row = await queries.insert_rule(db, new_id(), work_id, kind, now, "effective", actor, lines)
            new = {str(account_id): bps for account_id, bps in shares.items()}
            await self._audit(db, "royalty_rule.gave_way", row, actor, new)
            await self._tell(db, row, actor)

    async def _asked(self, db: Any, work: Any, kind: str, at: datetime, after: dict[UUID, int]) -> set[UUID]:
        """Who must agree that `after` counts from `at` on: all who would lose, then or by a rule that begins later."""
        asked: set[UUID] = set()
        for moment in [at, *await queries.starts_replaced(db, work["id"], kind, at)]:
            payees = (await self.payees_at(db, work["id"], kind, moment))[1]
            asked |= who_must_agree({payee.account_id: payee.bps for payee in payees}, after)
        return asked - {work["account_id"]}

    async def _check(self, db: Any, lines: Sequence[RuleLine]) -> None:
        total = sum(line.bps for line in lines)
        if total != WHOLE_BPS:
            message = f"lines: sum to {total}, not to {WHOLE_BPS} basis points"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="not_whole", field="lines",
                           details={"sum": total})  # fmt: skip
        if len({line.account_id for line in lines}) != len(lines):
            raise ApiError(ErrorCode.VALIDATION_ERROR, "lines: each account once", reason="account_twice",
                           field="lines")  # fmt: skip
        for line in lines:
            if not await self._people.is_known(db, line.account_id):
                message = f"lines: there is no account {line.account_id}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_account", field="lines")

    async def _audit(self, db: Any, action: str, row: Any, actor: UUID, new: dict[str, Any]) -> None:
        subject = ("work", str(row["work_id"]))
        await self._kernel.audit.record(
            db, action, subject, actor=actor, new={"rule_id": str(row["id"]), "version": row["version"]} | new
        )

    async def _tell(self, db: Any, row: Any, actor: UUID) -> None:
        payload = {"rule_id": str(row["id"]), "revenue_kind": row["revenue_kind"]}
        subject = ("work", str(row["work_id"]))
        await self._kernel.events.publish(db, "royalty.rule_changed", subject, payload, actor=actor)


async def _rule(db: Any, row: Any) -> Rule:
    lines = await queries.rule_lines(db, row["id"])
    waits = [] if row["status"] != "pending" else await queries.consents(db, row["id"])
    return Rule(
        str(row["id"]), row["version"], row["revenue_kind"], timestamp(row["effective_from"]), row["status"],
        [RuleLine(line["account_id"], line["role"], line["bps"]) for line in lines],
        [str(consent["account_id"]) for consent in waits if consent["agreed"] is None],
    )  # fmt: skip


async def _licence_shares(db: Any, work_id: UUID) -> list[LicenceShare]:
    """Those that count and those that wait, also of works made of this one where they would take from its payees."""
    counting = [
        LicenceShare(
            None, "made_under", str(row["licence_id"]), str(row["work_id"]), str(row["parent_work_id"]),
            row["share_bps"], "effective", [],
        )
        for row in await share_queries.bound_licences(db, work_id)
    ]  # fmt: skip
    rows = [*await share_queries.given_on(db, work_id), *await share_queries.waiting_licence_shares(db, work_id)]
    return counting + [await shown_share(db, row) for row in rows]


async def shown_share(db: Any, row: Any) -> LicenceShare:
    """A row of `share_queries.licence_share…`."""
    waits = [] if row["status"] != "pending" else await share_queries.licence_share_consents(db, row["id"])
    parent_id = row["parent_work_id"]
    return LicenceShare(
        str(row["id"]), "given_on" if parent_id is None else "made_under", str(row["licence_id"]), str(row["work_id"]),
        None if parent_id is None else str(parent_id), row["share_bps"], row["status"],
        [str(consent["account_id"]) for consent in waits if consent["agreed"] is None],
    )  # fmt: skip
