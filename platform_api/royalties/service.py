"""Everything that royalties offer, to their routes and to other contexts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from platform_api.creators.service import CreatorService
from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.service import ExchangeService
from platform_api.identity.service import IdentityService
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text, units_of
from platform_api.royalties import queries
from platform_api.royalties.closing import Closing
from platform_api.royalties.earnings import Earning, Earnings
from platform_api.royalties.entries import Entries
from platform_api.royalties.gathering import Gathering
from platform_api.royalties.licence_shares import LicenceShares
from platform_api.royalties.models import (
    Calculation,
    CalculationRequest,
    CreatorRoyalties,
    Distribution,
    DistributionLine,
    WorkRoyalties,
)
from platform_api.royalties.payouts import Payouts
from platform_api.royalties.reconciliation import Reconciliation
from platform_api.royalties.rules import RoyaltyRules, checked_time
from platform_api.royalties.split import platform_part
from platform_api.royalties.statements import Statements, bounds, total_of
from platform_api.royalties.sweeps import FeeSweeps
from platform_api.security import Caller
from platform_api.settlement.queries import settled_in
from platform_api.works.service import WorkService

__all__ = ["RoyaltyService"]

EVER = date.min, date.max
SALES_MAX = 500
"""Of a month that a dry run adds up: of 32 payees each some tens of milliseconds of the database."""


class RoyaltyService:
    """One part for each concern."""

    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._works = kernel.service(WorkService)
        self._creators = kernel.service(CreatorService)
        self._exchange = kernel.service(ExchangeService)
        self._people = kernel.service(IdentityService).people
        self.rules = RoyaltyRules(kernel)
        self.entries = Entries(kernel)
        self.earnings = Earnings(kernel, self.rules, self.entries)
        self.licence_shares = LicenceShares(kernel, self.rules, self.earnings)
        self.reconciliation = Reconciliation(kernel)
        self.statements = Statements(kernel)
        self.closing = Closing(kernel, self.reconciliation)
        self.gathering = Gathering(kernel)
        self.payouts = Payouts(kernel, self.entries)
        self.fee_sweeps = FeeSweeps(kernel)
        self._pen = asyncio.Lock()
        self._desks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def earned(self, db: Any, earning: Earning) -> UUID:
        """For contexts that sell: see `Earnings.record`."""
        return await self.earnings.record(db, earning)

    async def calculate(self, caller: Caller, body: CalculationRequest) -> Calculation:
        """A dry run, for those who make the work; of a month, which tells what was earned, for those whom it paid:
        nothing is written.

        Raises ApiError: NOT_FOUND, VALIDATION_ERROR; FORBIDDEN `not_paid` and CONFLICT `too_many_sales` of a month.
        """
        if (body.amount is None) == (body.period is None) or (body.period and body.at):
            message = "amount: give either an amount, with a time if you like, or a period"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="amount_or_period", field="amount")
        async with self._database.connection() as db:
            if body.period is None:
                await self._works.catalog.check_inside(db, caller, body.work_id)
            else:
                await self._check_paid(db, caller, body.work_id, bounds(body.period)[0].date())
            scale = await self._exchange.asset_scale(db, body.asset)
            if scale is None:
                message = f"asset: the exchange lists no {body.asset}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
            if body.period is not None:
                return await self._of_month(db, body, body.period, scale)
            return await self._of_sale(db, body, scale)

    async def _check_paid(self, db: Any, caller: Caller, work_id: UUID, month: date | None) -> None:
        """For the owner, those whom its sales of that month, or ever, have paid, and staff who may see transactions:
        payees of a rule of that time, licensors between, owners of works above; not for who is only asked to take part,
        takes part without a share, or will have one. Who does not see the work is not told that there is one.

        Raises ApiError NOT_FOUND; FORBIDDEN `not_paid`.
        """
        work, account_id = await self._works.catalog.known(db, work_id), UUID(caller.account_id)
        if account_id == work["account_id"] or caller.may("view_transactions"):
            return
        if not await queries.has_paid(db, work_id, account_id, month):
            await self._works.catalog.visible(db, caller, work_id)
            message = "What a work earns is told to its owner and to those whom its sales have paid."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="not_paid")

    async def _of_month(self, db: Any, body: CalculationRequest, period: str, scale: int) -> Calculation:
        """Each sale was divided by the rule of its time when its money came, and is never divided anew."""
        begin, end = bounds(period)
        rows = await queries.lines_of_month(
            db, body.work_id, body.asset, body.revenue_kind, begin, end, SALES_MAX + 1
        )
        if rows and rows[0]["sales"] > SALES_MAX:
            message = f"More than {SALES_MAX} sales in that month: GET /v1/royalties/report tells your part of them."
            raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_sales", details={"most": SALES_MAX})
        lines = [
            DistributionLine(
                str(row["work_id"]), None if row["account_id"] is None else str(row["account_id"]), row["role"],
                row["bps"], decimal_text(row["amount"], scale), decimal_text(row["reversed"], scale),
            )
            for row in rows
        ]  # fmt: skip
        return Calculation(body.asset, decimal_text(sum(row["amount"] for row in rows), scale), None, lines)

    async def _of_sale(self, db: Any, body: CalculationRequest, scale: int) -> Calculation:
        assert body.amount is not None
        at, kind = checked_time(body.at, "at"), body.revenue_kind or "content_purchase"
        units = units_of(body.amount, scale, field="amount")
        bps = await self.earnings.platform_bps(db, kind, at)
        platform = platform_part(units, bps)
        rule_id, parts = await self.earnings.plan(db, kind, body.work_id, units - platform, at)
        lines = [DistributionLine(str(body.work_id), None, "platform", bps, decimal_text(platform, scale), "0")]
        lines += [
            DistributionLine(
                str(part.work_id), str(payee.account_id), payee.role, payee.bps, decimal_text(amount, scale), "0"
            )
            for part in parts
            for payee, amount in part.lines
        ]
        return Calculation(body.asset, decimal_text(units, scale), None if rule_id is None else str(rule_id), lines)

    async def of_work(
        self, caller: Caller, work_id: UUID, cursor: str | None, limit: int
    ) -> tuple[WorkRoyalties, Pagination]:
        """For those whom its sales have paid. Raises ApiError NOT_FOUND; FORBIDDEN `not_paid`."""
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            await self._check_paid(db, caller, work_id, None)
            totals = [total_of(row) for row in await queries.totals_of_work(db, work_id)]
            rows = await queries.distributions_of(db, work_id, before, limit + 1)
            rows, pagination = page(rows, limit, lambda row: (row["event_id"],))
            shown = await self.distributions(db, rows)
        return WorkRoyalties(str(work_id), totals, shown), pagination

    async def of_creator(self, caller: Caller, creator_id: UUID) -> CreatorRoyalties:
        """One's own, or anybody's for staff who may see transactions. Raises ApiError NOT_FOUND."""
        creator = await self._creators.read(creator_id)
        if creator.account_id != caller.account_id and not caller.may("view_transactions"):
            raise unknown("creator")
        async with self._database.connection() as db:
            rows = await queries.totals_of(db, UUID(creator.account_id), *EVER)
        return CreatorRoyalties(creator.id, [total_of(row) for row in rows])

    async def distributions(self, db: Any, rows: list[Any]) -> list[Distribution]:
        """Documents of rows of `queries.distribution…`, with the batches that settled their lines."""
        lines = await queries.distribution_lines(db, [row["id"] for row in rows])
        batches = await settled_in(db, [line["sequence"] for line in lines if line["sequence"] is not None])
        found: dict[UUID, list[DistributionLine]] = {row["id"]: [] for row in rows}
        scales = {row["id"]: row["scale"] for row in rows}
        for line in lines:
            scale = scales[line["distribution_id"]]
            batch, digests = batches.get(line["sequence"], (None, []))
            found[line["distribution_id"]].append(
                DistributionLine(
                    str(line["work_id"]), str(line["account_id"]) if line["account_id"] else None, line["role"],
                    line["bps"], decimal_text(line["amount_units"], scale), decimal_text(line["reversed_units"], scale),
                    line["sequence"], batch, digests,
                )
            )  # fmt: skip
        return [
            Distribution(
                str(row["id"]), row["kind"], str(row["work_id"]), row["asset"],
                decimal_text(row["gross_units"], row["scale"]), timestamp(row["occurred_at"]),
                str(row["rule_id"]) if row["rule_id"] else None, row["status"], found[row["id"]],
                str(row["purchase_id"]) if row["purchase_id"] else None,
                str(row["licence_id"]) if row["licence_id"] else None,
            )
            for row in rows
        ]  # fmt: skip

    async def drawn(self, caller: Caller, make: Callable[..., bytes], *what: Any) -> bytes:
        """The file that `make` makes of these, beside the event loop, one at a time: a long paper takes seconds, two at
        once as long as one after the other. Accounts take turns: nobody waits for more than one of each other's."""
        desk = self._desks.setdefault(caller.account_id, asyncio.Lock())  # kept for as long as somebody waits at it
        async with desk, self._pen:
            return await asyncio.to_thread(make, *what)

    async def holder(self, caller: Caller) -> str:
        """The name on the caller's papers."""
        profile = await self._people.public(UUID(caller.account_id))
        name = profile.display_name or profile.username
        return f"{name} ({profile.id})" if name else profile.id
