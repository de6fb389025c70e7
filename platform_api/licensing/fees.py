"""Fees of licences: paid of the licensee's account in the core, and the licence begins by the core's answer.

    unpaid ──pay──▶ under way ──posted──▶ paid (the period begins)
      ▲                 │
      └─────refused─────┘                       not paid before its time, and not under way: it lapses

An exclusive licence that approved itself is paid with its application (`take`), and lapses if the core refuses: else
anybody could keep all others away as long as there is time to pay, for nothing. Otherwise somebody chose to wait.

The transfer is written in the transaction that marks the period, and noted in the one that begins it, so a crash
between any two steps leaves either an unpaid licence and the money with its owner, or both done after recovery. A
period whose payment is under way does not lapse. If the licence ended meanwhile, the same legs go back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from platform_api.errors import ApiError, ErrorCode
from platform_api.idempotency import Answer, required_key
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import FORCED, NEVER, MoneyAnswer, MoneyCommands, pay_account, work_account
from platform_api.licensing import queries
from platform_api.licensing.grants import Grants
from platform_api.licensing.licenses import Licenses, check_no_refund, check_party
from platform_api.licensing.models import License
from platform_api.money import decimal_text, units_of
from platform_api.payments.proofs import PaymentProofs
from platform_api.royalties.earnings import Earning
from platform_api.royalties.entries import Income
from platform_api.royalties.postings import PLATFORM
from platform_api.royalties.service import RoyaltyService
from platform_api.royalties.split import WHOLE_BPS, largest_remainder, platform_part
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["Fees", "between", "shares_of_fee"]

log = structlog.get_logger(__name__)

FEE, AT_ONCE, BACK = "licence_fee", "licence_fee_at_once", "licence_fee_back"


class Fees:
    def __init__(self, kernel: Kernel, licenses: Licenses, grants: Grants) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._licenses, self._grants = licenses, grants
        self._catalog = kernel.service(WorkService).catalog
        self._money = kernel.service(MoneyCommands)
        self._proofs = PaymentProofs(kernel)
        self._royalties = kernel.service(RoyaltyService)
        self._money.handle(FEE, self._answered)
        self._money.handle(AT_ONCE, self._answered_at_once)
        self._money.handle(BACK, self._given_back)

    async def pay(self, caller: Caller, license_id: UUID, key: str | None) -> License:
        """The fee that is due, of the licensee's money. An answer that is late leaves the licence waiting for it.

        Raises ApiError NOT_FOUND; FORBIDDEN `step_up_required`; CONFLICT `nothing_due`, `payment_under_way`,
        `refund_open`, `too_late`, `not_editable`, `none_left`, `exclusivity_clash`; PAYMENT_FAILED.
        """
        async with self._database.connection() as db:
            check_party(await queries.license_row(db, license_id), caller, "licensee")
        key = required_key(key)

        async def change(db: Any) -> Answer:
            row = await self._licenses.lock(db, caller, license_id, "licensee")
            await check_no_refund(db, license_id)
            return 200, msgspec.json.encode(await self._order(db, caller, row, FEE))

        route = "POST /v1/licenses/pay"
        answer, _ = await self._kernel.idempotency.once(caller.account_id, route, key, str(license_id), change)
        await self.settle(msgspec.json.decode(answer[1], type=str), license_id)
        return await self._licenses.read(caller, license_id)

    async def take(self, db: Any, caller: Caller, license_id: UUID) -> str:
        """Of a licence that was reserved just now, for the caller: its fee, or it lapses. The ref to `settle`.

        Raises ApiError FORBIDDEN `step_up_required`, which undoes the reservation with the transaction.
        """
        return await self._order(db, caller, await queries.license_row(db, license_id), AT_ONCE)

    async def settle(self, ref: str, license_id: UUID) -> None:
        """After the transaction that ordered it. Raises ApiError PAYMENT_FAILED with the core's reason."""
        if await self._money.settle(ref) == "refused":
            raise await self._money.payment_failed(ref, "The fee could not be taken from the balance.",
                                                   {"id": str(license_id)})  # fmt: skip

    async def _order(self, db: Any, caller: Caller, row: Any, kind: str) -> str:
        period = await queries.unpaid_period(db, row["id"])
        _check_payable(period)
        await self._grants.check_payable(db, row, period, UUID(caller.account_id))
        what = f"the licence {row['id']} on the work {row['work_id']}"
        await self._proofs.of_payment(db, caller, period["id"], row["asset"], row["scale"], row["fee_units"], what)
        parts = await self._parts(db, row, datetime.now(UTC))
        legs = _legs(caller.account, row, parts)
        ref = await queries.begin_payment(db, period["id"], msgspec.json.encode(legs).decode())
        accounts = {account: NEVER if account.startswith("work:") else FORCED for account, _ in parts}
        await self._money.order(db, ref, kind, period["id"], {"op": "transfer", "legs": legs}, accounts=accounts)
        return ref

    async def _parts(self, db: Any, row: Any, at: datetime) -> list[tuple[str, int]]:
        """Receivers in the core and their units: the platform, everybody of the chain upwards, the work at its top."""
        above = list(reversed((await queries.chain(db, row["id"], at))[:-1]))
        platform_bps = await self._royalties.earnings.platform_bps(db, "licence_fee", at)
        amounts = shares_of_fee(row["fee_units"], platform_bps, [link["revenue_share_bps"] for link in above])
        licensors = [row["licensor_id"], *(link["licensor_id"] for link in above)]
        receivers = [PLATFORM, *map(pay_account, licensors[:-1]), work_account(row["work_id"])]
        return list(zip(receivers, amounts, strict=True))

    async def _answered(self, db: Any, answer: MoneyAnswer) -> None:
        period = await queries.period(db, answer.document_id)
        row = await queries.license_row(db, period["license_id"])
        work = await self._catalog.lock_known(db, row["work_id"])
        period = await queries.period(db, answer.document_id)  # as it is under the lock
        waits = period["status"] == "pending_payment" and period["payment_ref"] == answer.ref
        is_over = period["reserved"].upper <= datetime.now(UTC)
        if waits and answer.state == "posted" and (is_over or work["status"] == "suspended"):
            await self._grants.lapse(db, period["id"], row["id"])  # the core was away until then: the fee goes back
            waits = False
        if answer.state == "posted" and waits:
            await self._earn(db, answer.ref, period, row)
            await self._royalties.entries.credit(db, between(period, row, answer.ref, answer.sequence))
            await self._grants.begin(db, row["id"], row["licensee_id"])
        elif answer.state == "posted":
            await self._give_back(db, answer.ref, period)
        elif answer.state == "refused" and waits:
            await queries.fail_payment(db, period["id"])
            await self._proofs.give_back(db, row["licensee_id"], period["id"])
            await self._lapse_if_late(db, period)

    async def _answered_at_once(self, db: Any, answer: MoneyAnswer) -> None:
        await self._answered(db, answer)
        period = await queries.period(db, answer.document_id)
        if answer.state == "refused" and period["status"] == "pending_payment":
            await self._grants.lapse(db, period["id"], period["license_id"])

    async def _earn(self, db: Any, ref: str, period: Any, row: Any) -> None:
        """What came to the work is divided among those who made it. The platform's part of a fee between others is not
        part of what the work earned."""
        units = {leg["to"]: units_of(leg["amount"], row["scale"]) for leg in msgspec.json.decode(period["legs"])}
        own, platform = units.get(work_account(row["work_id"]), 0), units.get(PLATFORM, 0)
        if own:
            platform = platform if row["depth"] == 1 else 0
            earning = Earning(
                "licence_fee", ref, row["work_id"], row["asset"], row["scale"], own + platform, datetime.now(UTC),
                licence_id=row["id"], platform_units=platform,
            )  # fmt: skip
            await self._royalties.earned(db, earning)

    async def _lapse_if_late(self, db: Any, period: Any) -> None:
        if await queries.due_period(db, period["id"]) is not None:
            await self._grants.lapse(db, period["id"], period["license_id"])

    async def _give_back(self, db: Any, ref: str, period: Any) -> None:
        """It ended while the money was on its way."""
        legs = [leg | {"from": leg["to"], "to": leg["from"]} for leg in msgspec.json.decode(period["legs"])]
        command = {"op": "transfer", "legs": legs, "force": True}
        await self._money.order(db, f"refund:{ref}", BACK, period["id"], command, accounts={})

    async def _given_back(self, db: Any, answer: MoneyAnswer) -> None:
        """The money is where it came from; the licence had ended before. If not, a person must look."""
        if answer.state != "posted":
            log.error("licence_fee_not_given_back", ref=answer.ref, state=answer.state, reason=answer.reason)


def between(period: Any, row: Any, ref: str, sequence: int | None) -> list[tuple[UUID, Income]]:
    """What the licensors below the work's owner keep of a fee, by account."""
    return sorted(
        ((UUID(leg["to"].removeprefix("pay:")),
          Income("licence_fee", row["asset"], row["scale"], units_of(leg["amount"], row["scale"]), ref, sequence,
                 row["work_id"], row["id"]))
         for leg in msgspec.json.decode(period["legs"]) if leg["to"].startswith("pay:")),
        key=lambda one: one[0],
    )  # fmt: skip


def shares_of_fee(fee: int, platform_bps: int, shares_above: Sequence[int]) -> list[int]:
    """Units for the platform, the licensor, the licensor of the licence above, and so on up to the work.

    Who gave a licence on owes those above their share of what came to it, and no more; so the parts are the fee.
    `shares_above`: basis points of each licence above, the nearest first.
    """
    platform = platform_part(fee, platform_bps)
    parts, received = [platform], fee - platform
    for bps in shares_above:
        passed_on, kept = largest_remainder(received, [bps, WHOLE_BPS - bps])
        parts.append(kept)
        received = passed_on
    return [*parts, received]


def _legs(payer: str, row: Any, parts: Sequence[tuple[str, int]]) -> list[dict[str, str]]:
    """Finished amounts: nothing is computed again when the command is sent again."""
    return [
        {"from": payer, "asset": row["asset"], "amount": decimal_text(units, row["scale"]), "to": receiver}
        for receiver, units in parts
        if units
    ]


def _check_payable(period: Any) -> None:
    if period is None:
        raise ApiError(ErrorCode.CONFLICT, "No fee of this licence is due.", reason="nothing_due")
    if period["payment_ref"] is not None:
        raise ApiError(ErrorCode.CONFLICT, "A payment is under way.", reason="payment_under_way")
    if period["pay_before"] <= datetime.now(UTC):
        raise ApiError(ErrorCode.CONFLICT, "The fee was due before now.", reason="too_late")
