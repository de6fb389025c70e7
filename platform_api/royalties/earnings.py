"""What a sale gives whom: one distribution for each revenue event, posted by the core, reversed by refunds.

The money of the sale stands in the passing account of the work (`work:ID`). The distribution is computed once, in the
transaction of the event, and stored whole; then one command for each work of the chain, one after the other, empties
the passing accounts: `dist:EVENT:0` of the sold work to the platform, its payees and the works above it, `dist:EVENT:1`
of the first of these, and so on; a work with more receivers than one command reaches has several. Each command is
ordered in the transaction that notes the answer of the one before.

A refund takes back what is left of each line, divided by largest remainder over what is left. What a payee has been
paid out already becomes a debt, which later income fills first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from platform_api.errors import ApiError, ErrorCode
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import MoneyAnswer, MoneyCommands, pay_account
from platform_api.money import decimal_text
from platform_api.royalties import queries, share_queries
from platform_api.royalties.entries import Entries
from platform_api.royalties.postings import PLATFORM, Posting, postings
from platform_api.royalties.rules import RoyaltyRules
from platform_api.royalties.split import (
    CHAIN_PARTS_MAX,
    WHOLE_BPS,
    Above,
    ChainTooLong,
    Part,
    Payee,
    cascade,
    check_chains,
    largest_remainder,
    platform_part,
)
from platform_api.works.service import WorkService

__all__ = ["PLATFORM", "Earning", "Earnings", "TakenBack"]

log = structlog.get_logger(__name__)

BELOW_MAX = 10_000
"""Works below one that is bound, the work itself among them: the chain of each is looked at."""


@dataclass(frozen=True, slots=True)
class Earning:
    """A sale whose money stands in the work's passing account.

    `source_ref` is the ref of the command that brought it. `platform_units` is what that command has given the platform
    already, beside what stands in the account; None: the whole gross stands there, and the policy's part leaves
    it here. What was paid for is a purchase or a licence.
    """

    kind: str
    source_ref: str
    work_id: UUID
    asset: str
    scale: int
    gross_units: int
    occurred_at: datetime
    licence_id: UUID | None = None
    platform_units: int | None = None
    purchase_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What a refund takes from one line."""

    number: int
    account: str
    units: int


class Earnings:
    def __init__(self, kernel: Kernel, rules: RoyaltyRules, entries: Entries) -> None:
        self._kernel, self._rules, self._entries = kernel, rules, entries
        self._money = kernel.service(MoneyCommands)
        self._works = kernel.service(WorkService)
        self._money.handle("distribution", self._on_answer)

    async def plan(
        self, db: Any, kind: str, work_id: UUID, side: int, at: datetime
    ) -> tuple[UUID | None, list[Part]]:  # fmt: skip
        """The rule of the sold work, and what every work of the chain gets and gives."""
        rule_id, payees = await self._rules.payees_at(db, work_id, kind, at)
        everybody: dict[UUID, list[Payee]] = {work_id: payees}
        parents = await _parents(db, [work_id])
        for parent in sorted({one.work_id for above in parents.values() for one in above} - {work_id}):
            everybody[parent] = (await self._rules.payees_at(db, parent, kind, at))[1]
        return rule_id, cascade(side, work_id, everybody, parents)

    async def platform_bps(self, db: Any, kind: str, at: datetime) -> int:
        """Raises ApiError VALIDATION_ERROR: there was no policy then."""
        return _checked_share(await queries.policy_at(db, kind, at), kind)

    async def record(self, db: Any, earning: Earning) -> UUID:
        """Write the event and its distribution, and order the first command; the event's id.

        In the transaction that notes that the money has come. Once for each `source_ref`.
        """
        known, share = await queries.before_sale(db, earning.source_ref, earning.kind, earning.occurred_at)
        if known is not None:
            return known
        bps = _checked_share(share, earning.kind)
        taken = earning.platform_units
        platform = platform_part(earning.gross_units, bps) if taken is None else taken
        side = earning.gross_units - platform
        rule_id, parts = await self.plan(db, earning.kind, earning.work_id, side, earning.occurred_at)
        event_id, distribution_id = new_id(), new_id()
        if left_out := [str(id_) for part in parts for id_ in part.left_out]:
            log.error("chain_cut", event_id=str(event_id), work_id=str(earning.work_id), left_out=left_out)
        commands: list[Posting] = []
        for part in parts:
            commands += postings(part, 0 if taken is not None or commands else platform, earning.asset, earning.scale)
        lines: list[tuple[int, UUID, UUID | None, str, str, int, int]] = [
            (0, earning.work_id, None, PLATFORM, "platform", bps, platform)
        ]
        ordered: list[tuple[UUID, str, str, str]] = []
        for index, one in enumerate(commands):
            command = {"op": "transfer", "legs": one.legs, "code": "royalty", "memo": distribution_id.hex}
            texts = msgspec.json.encode(command).decode(), msgspec.json.encode(one.accounts).decode()
            ordered.append((one.work_id, f"dist:{event_id.hex}:{index}", *texts))
            lines += [
                (index, one.work_id, payee.account_id, payee.key, payee.role, payee.bps, amount)
                for payee, amount in one.payees
            ]
        event = (
            event_id, earning.kind, earning.source_ref, earning.work_id, earning.licence_id, earning.asset,
            earning.scale, earning.gross_units, platform, earning.occurred_at, earning.purchase_id,
        )  # fmt: skip
        month = earning.occurred_at.astimezone(UTC).date().replace(day=1)
        await queries.insert_distribution(db, event, distribution_id, rule_id, month, ordered, lines)
        if ordered:
            await self._order(db, distribution_id, *ordered[0][1:])
        else:  # a unit that went to the platform whole
            await queries.finish_distribution(db, distribution_id, "posted")
        return event_id

    async def bind(
        self, db: Any, licence_id: UUID, work_id: UUID, parent_work_id: UUID, share_bps: int,
        between: Sequence[tuple[UUID, int]] = (),
    ) -> None:  # fmt: skip
        """From now on the parent gets a share of what the work receives; `between`: the licensors through whose hands
        it goes, the nearest first, and basis points that each gives on.

        Raises:
            ApiError: CONFLICT `chain_too_long` (also for a circle), `more_than_whole`, `too_many_below`.
        """
        await share_queries.lock_chains(db)
        through, passed_bps = [account_id for account_id, _ in between], [bps for _, bps in between]
        await share_queries.bind(db, licence_id, work_id, parent_work_id, share_bps, through, passed_bps)
        for id_ in (work_id, parent_work_id):
            await self._works.catalog.mark_sold(db, id_)
        if sum(row["share_bps"] for row in await share_queries.ancestors(db, work_id)) > WHOLE_BPS:
            message = "The works above this one would get more than it receives."
            raise ApiError(ErrorCode.CONFLICT, message, reason="more_than_whole")
        below = await share_queries.works_below(db, work_id, BELOW_MAX + 1)
        if len(below) > BELOW_MAX:
            message = f"More than {BELOW_MAX} works are made of this one, which is too late to name what it is made of."
            raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_below", details={"most": BELOW_MAX})
        try:
            check_chains(below, await _parents(db, below))
        except ChainTooLong:
            message = f"A chain has at most {CHAIN_PARTS_MAX} works, and no work is above itself."
            raise ApiError(ErrorCode.CONFLICT, message, reason="chain_too_long") from None

    async def event_of(self, db: Any, source_ref: str) -> Any:
        """The revenue event of the command that brought the money, or None: id, platform_units."""
        return await queries.event_by_ref(db, source_ref)

    async def distributions(self, db: Any, events: Sequence[UUID]) -> dict[UUID, UUID]:
        """The distribution of each of these revenue events."""
        return await queries.distributions_by_event(db, events)

    async def to_take_back(self, db: Any, event_id: UUID, units: int | None = None) -> list[TakenBack]:
        """What each line of a sale gives back of `units`, None: of all that is left; and locks the distribution.

        Raises:
            ApiError: VALIDATION_ERROR `refund_too_large`; CONFLICT `not_distributed` as long as it is under way.
        """
        row = await queries.lock_distribution(db, event_id)
        if row["status"] == "pending":
            message = "The sale is being distributed: try again in a moment."
            raise ApiError(ErrorCode.CONFLICT, message, reason="not_distributed")
        lines = sorted(
            await queries.distribution_lines(db, [row["id"]]), key=lambda line: (line["account"], line["number"])
        )
        left = [line["amount_units"] - line["reversed_units"] for line in lines]
        if units is None:
            units = sum(left)
        if units > sum(left):
            message = f"amount: at most {decimal_text(sum(left), row['scale'])} {row['asset']} is left of the sale"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="refund_too_large", field="amount",
                           details={"left": decimal_text(sum(left), row["scale"])})  # fmt: skip
        return [
            TakenBack(line["number"], line["account"], part)
            for line, part in zip(lines, largest_remainder(units, left) if units else left, strict=True)
            if part
        ]

    async def reverse(
        self, db: Any, event_id: UUID, taken: Sequence[TakenBack], ref: str, sequence: int | None
    ) -> None:
        """Note that the core has taken it back."""
        row = await queries.lock_distribution(db, event_id)
        lines = {line["number"]: line for line in await queries.distribution_lines(db, [row["id"]])}
        payees = [lines[part.number]["account_id"] for part in taken]
        await self._entries.lock(db, row["asset"], (account_id for account_id in payees if account_id is not None))
        for part in taken:
            await queries.reverse_line(db, row["id"], part.number, part.units)
            line = lines[part.number]
            if line["account_id"] is not None:
                await self._entries.write(
                    db, line["account_id"], "reversed", row, part.units, ref=ref, sequence=sequence,
                    matures_at=row["posted_at"] + self._entries.hold, work_id=line["work_id"], revenue_kind=row["kind"],
                    distribution_id=row["id"],
                )  # fmt: skip
        left = sum(line["amount_units"] - line["reversed_units"] for line in lines.values())
        units = sum(part.units for part in taken)
        if units == left:
            await queries.finish_distribution(db, row["id"], "reversed")
        await self._entries.cover_debts(db, row["asset"], row["scale"])
        told = {"ref": ref, "units": str(units), "whole": units == left}
        await self._tell(db, "royalty.reversed", row, lines.values(), told)

    async def _order(self, db: Any, distribution_id: UUID, ref: str, command: str, accounts: str) -> None:
        await self._money.order(
            db, ref, "distribution", distribution_id, msgspec.json.decode(command),
            accounts=msgspec.json.decode(accounts),
        )  # fmt: skip

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        if answer.state != "posted":  # the money rests in the work's account until a person has looked
            log.error("distribution_not_posted", ref=answer.ref, state=answer.state, reason=answer.reason)
            return
        row = await queries.distribution(db, answer.document_id)
        part = await queries.part_by_ref(db, answer.ref)
        lines = await queries.distribution_lines(db, [row["id"]])
        paid = [
            line for line in lines
            if line["part"] == part["number"] and line["account_id"] is not None and line["amount_units"]
        ]  # fmt: skip
        await self._entries.lock(db, row["asset"], (line["account_id"] for line in paid))
        for line in paid:
            await self._entries.write(
                db, line["account_id"], "earned", row, line["amount_units"], ref=answer.ref, sequence=answer.sequence,
                hold=self._entries.hold, work_id=line["work_id"], revenue_kind=row["kind"], distribution_id=row["id"],
            )  # fmt: skip
        await self._entries.cover_debts(db, row["asset"], row["scale"])
        await queries.note_part(db, row["id"], part["number"], answer.sequence)
        if part["number"] + 1 < row["parts"]:
            following = await queries.part(db, row["id"], part["number"] + 1)
            await self._order(db, row["id"], following["ref"], following["command"], following["accounts"])
            return
        await queries.finish_distribution(db, row["id"], "posted")
        gross = {"gross": decimal_text(row["gross_units"], row["scale"]), "units": str(row["gross_units"])}
        await self._tell(db, "royalty.distributed", row, lines, gross)

    async def _tell(self, db: Any, type_: str, row: Any, lines: Iterable[Any], more: Mapping[str, Any]) -> None:
        """To the owner, and those whom the sale pays. `units`: of the whole sale, with the platform's part."""
        told = {str(line["account_id"]) for line in lines if line["account_id"] is not None and line["amount_units"]}
        work = await self._works.catalog.known(db, row["work_id"])  # one that was sold is not deleted
        payload = {
            "work_id": str(row["work_id"]), "creator_id": str(work["creator_id"]), "revenue_kind": row["kind"],
            "asset": row["asset"], "scale": row["scale"], "for_accounts": sorted(told | {str(work["account_id"])}),
            **more,
        }  # fmt: skip
        await self._kernel.events.publish(db, type_, ("distribution", str(row["id"])), payload)


def _checked_share(share: int | None, kind: str) -> int:
    if share is None:
        message = f"at: {kind} has no policy at that time"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="no_policy", field="at")
    return share


async def _parents(db: Any, work_ids: Sequence[UUID]) -> dict[UUID, list[Above]]:
    """What these works and all above them give to the works directly above."""
    parents: dict[UUID, list[Above]] = {}
    for row in await share_queries.edges_above(db, work_ids):
        between = tuple(
            (Payee(pay_account(account_id), account_id, "licensor", WHOLE_BPS - bps), bps)
            for account_id, bps in zip(row["through"], row["passed_bps"], strict=True)
        )
        parents.setdefault(row["work_id"], []).append(Above(row["parent_work_id"], row["share_bps"], between))
    return parents
