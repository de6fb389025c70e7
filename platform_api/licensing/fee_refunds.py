"""Refunds of licence fees: everybody gives back what they have of it, and the licence ends.

    processing ──posted──▶ succeeded      one command takes it back from all who had a part; in the transaction that
         └─────refused───▶ failed         notes its answer the licence is revoked, with every licence below it

By the licensor as long as the fee is held, out of what the payees still have; or by staff with `process_refunds`,
whatever they have: what a payee has been paid out already becomes a debt then, which later income fills first. Of
periods that are not over, and whole: a part of a licence's time is no licence. Staff may also refund a licence that was
revoked while a paid period was not over. With a licence the fees of those below it go back, each to who has paid it:
that is the platform's alone, since whoever gave the licence has no hand in what those below have received.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode
from platform_api.idempotency import Answer, required_key
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import MoneyAnswer, MoneyCommands, work_account
from platform_api.licensing import queries
from platform_api.licensing.fees import between
from platform_api.licensing.grants import ABOVE, Grants
from platform_api.licensing.licenses import Licenses, check_no_refund, shown
from platform_api.licensing.models import License
from platform_api.money import decimal_text, units_of
from platform_api.royalties.earnings import TakenBack
from platform_api.royalties.postings import PLATFORM
from platform_api.royalties.service import RoyaltyService
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["FeeRefunds"]

log = structlog.get_logger(__name__)

KIND = "licence_refund"
REFUNDED = "Its fee was refunded: "


class _Sale(msgspec.Struct, frozen=True):
    """What a distribution gives back: (line, account in the core, units)."""

    event_id: UUID
    taken: list[tuple[int, str, int]]


class _Kept(msgspec.Struct, frozen=True):
    """What the licensors between give back of one period."""

    period_id: UUID
    paid_at: datetime


class _Lines(msgspec.Struct, frozen=True):
    sales: list[_Sale]
    kept: list[_Kept]


class FeeRefunds:
    def __init__(self, kernel: Kernel, licenses: Licenses, grants: Grants) -> None:
        self._kernel, self._database = kernel, kernel.database
        self._licenses, self._grants = licenses, grants
        self._catalog = kernel.service(WorkService).catalog
        self._royalties = kernel.service(RoyaltyService)
        self._money = kernel.service(MoneyCommands)
        self._money.handle(KIND, self._answered)

    async def ask(self, caller: Caller, license_id: UUID, reason: str, key: str | None) -> License:
        """Raises ApiError.

        NOT_FOUND; FORBIDDEN `not_yours_to_refund`, `hold_over`; CONFLICT `not_active`, `nothing_to_refund`,
        `refund_open`, `payment_under_way`, `paid_below`, `not_distributed`, `reserve_empty`;
        PAYMENT_FAILED `refund_refused`.
        """
        async with self._database.connection() as db:
            _check_may(await queries.license_row(db, license_id), caller)
        key = required_key(key)

        async def change(db: Any) -> Answer:
            row = await self._licenses.lock(db, caller, license_id)
            if row["status"] not in ("active", "suspended", "revoked"):
                raise ApiError(ErrorCode.CONFLICT, f"The licence is {row['status']}.", reason="not_active")
            await check_no_refund(db, license_id)
            if await queries.is_being_paid(db, license_id):
                message = "A payment of it, or of one below it, is under way: try again in a moment."
                raise ApiError(ErrorCode.CONFLICT, message, reason="payment_under_way")
            return 200, msgspec.json.encode(await self._write_all(db, caller, row, reason))

        route = "POST /v1/licenses/refund"
        body = [str(license_id), reason]
        answer, _ = await self._kernel.idempotency.once(caller.account_id, route, key, body, change)
        refunds = msgspec.json.decode(answer[1], type=list[UUID])
        states = [await self._royalties.gathering.settle(_ref(id_)) for id_ in refunds]
        if "refused" in states:
            raise ApiError(ErrorCode.PAYMENT_FAILED, "The core refused the refund.", reason="refund_refused")
        async with self._database.connection() as db:
            (found,) = await shown(db, [await queries.license_row(db, license_id)])
        return found

    async def _write_all(self, db: Any, caller: Caller, row: Any, reason: str) -> list[UUID]:
        """One refund for each licence whose fees go back, this one's first."""
        by_licensor = str(row["licensor_id"]) == caller.account_id
        found: dict[UUID, list[Any]] = {}
        for period in await queries.refundable_periods(db, row["id"], ABOVE):
            found.setdefault(period["license_id"], []).append(period)
        if row["id"] not in found and (row["status"] != "revoked" or not found):
            raise ApiError(ErrorCode.CONFLICT, "No fee was paid for time to come.", reason="nothing_to_refund")
        if by_licensor:
            if set(found) != {row["id"]}:
                message = "Licences below it were paid for time to come: the platform gives all of it back."
                raise ApiError(ErrorCode.CONFLICT, message, reason="paid_below")
            self._royalties.entries.check_held(min(period["paid_at"] for period in found[row["id"]]))
        refunds = []
        for license_id, periods in found.items():
            one = row if license_id == row["id"] else await queries.lock_license(db, license_id)
            refunds.append(await self._write(db, caller, one, periods, reason, forced=not by_licensor))
        return refunds

    async def _write(
        self, db: Any, caller: Caller, row: Any, periods: list[Any], reason: str, *, forced: bool
    ) -> UUID:
        refund_id, lines, legs = new_id(), _Lines([], []), []
        for period in periods:
            paid = msgspec.json.decode(period["legs"])
            payer, divided = paid[0]["from"], set()
            event = await self._royalties.earnings.event_of(db, period["payment_ref"])
            if event is not None:
                divided = {work_account(row["work_id"])} | ({PLATFORM} if event["platform_units"] else set())
                taken = await self._royalties.earnings.to_take_back(db, event["id"])
                lines.sales.append(_Sale(event["id"], [(part.number, part.account, part.units) for part in taken]))
                legs += [_leg(part.account, payer, row, part.units) for part in taken]
            lines.kept.append(_Kept(period["id"], period["paid_at"]))
            legs += [leg | {"from": leg["to"], "to": leg["from"]} for leg in paid if leg["to"] not in divided]
        actor = UUID(caller.account_id)
        await queries.insert_refund(db, refund_id, row["id"], msgspec.json.encode(lines).decode(), reason, actor)
        command: dict[str, Any] = {"op": "transfer", "legs": legs, "code": "refund", "memo": refund_id.hex}
        if forced:
            command["force"] = True
        parts = [(leg["from"], units_of(leg["amount"], row["scale"])) for leg in legs]
        await self._royalties.entries.set_aside(db, _ref(refund_id), row, parts, forced=forced)
        await self._royalties.gathering.order(
            db, _ref(refund_id), KIND, refund_id, command, work_id=row["work_id"], accounts={}
        )
        await self._kernel.audit.record(
            db, "license.refund_asked", ("license", str(row["id"])), actor=actor,
            new={"refund_id": str(refund_id), "reason": reason},
        )  # fmt: skip
        return refund_id

    async def _answered(self, db: Any, answer: MoneyAnswer) -> None:
        refund = await queries.refund(db, answer.document_id)
        row = await queries.license_row(db, refund["license_id"])
        await self._catalog.lock_known(db, row["work_id"])
        await self._royalties.entries.release(db, answer.ref)
        if answer.state != "posted":
            log.error("licence_refund_not_posted", ref=answer.ref, state=answer.state, reason=answer.reason)
            await queries.turn_refund(db, refund["id"], "failed")
            return
        lines = msgspec.json.decode(refund["lines"], type=_Lines)
        payees = [account for sale in lines.sales for _, account, _ in sale.taken if account.startswith("pay:")]
        taken_back = []
        for kept in lines.kept:
            period = await queries.period(db, kept.period_id)
            for account_id, income in between(period, row, answer.ref, answer.sequence):
                taken_back.append((account_id, income, kept.paid_at))
        everybody = [UUID(account.removeprefix("pay:")) for account in payees]
        await self._royalties.entries.lock(db, row["asset"], everybody + [account_id for account_id, *_ in taken_back])
        for sale in lines.sales:
            taken = [TakenBack(*part) for part in sale.taken]
            await self._royalties.earnings.reverse(db, sale.event_id, taken, answer.ref, answer.sequence)
        for account_id, income, paid_at in taken_back:
            await self._royalties.entries.take_back(db, account_id, income, paid_at)
        await queries.turn_refund(db, refund["id"], "succeeded")
        row = await queries.lock_license(db, row["id"])
        await self._grants.tell(db, "license.refunded", row, refund["created_by"], refund_id=str(refund["id"]))
        if row["status"] in ("active", "suspended"):
            await self._grants.revoke(db, row, REFUNDED + refund["reason"], refund["created_by"])


def _check_may(row: Any, caller: Caller) -> None:
    """Raises ApiError: NOT_FOUND for strangers, FORBIDDEN for the licensee."""
    if row is not None and str(row["licensor_id"]) == caller.account_id:
        return
    if row is not None and str(row["licensee_id"]) == caller.account_id:
        message = "Refunds are made by the licensor or by the platform."
        raise ApiError(ErrorCode.FORBIDDEN, message, reason="not_yours_to_refund")
    if row is None or not caller.may("process_refunds"):
        raise unknown("license")


def _leg(source: str, target: str, row: Any, units: int) -> dict[str, str]:
    return {"from": source, "asset": row["asset"], "amount": decimal_text(units, row["scale"]), "to": target}


def _ref(refund_id: UUID) -> str:
    return f"refund:{refund_id.hex}"
