"""Refunds, whole or in part: what is left of each line of the sale goes back, before or after payouts.

    approved ──▶ processing ──▶ succeeded       paid by a provider: held at those who had received it, given back there,
        │             └───────▶ failed          then posted, or freed again if the provider refuses
        ├─────────────────────▶ succeeded       paid from a balance: back to the buyer in one command
        └─────────────────────▶ failed          the core refuses it

Made by the seller as long as the sale is held, out of what the payees still have; or by staff with `process_refunds`,
whenever and whatever the payees have: who has been paid out already goes below zero then, and later income fills that
first. Nobody but staff can so make the platform pay, and no more than it has. One at a time for each sale; nobody
refunds to themselves.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer
from platform_api.identity.sessions import core_account
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import KEPT_OUTSIDE, OPEN, MoneyAnswer, MoneyCommands
from platform_api.money import decimal_text, units_of
from platform_api.payments import queries
from platform_api.payments.intents import Intents, external_account
from platform_api.payments.models import Refund, RefundRequest
from platform_api.royalties.earnings import TakenBack
from platform_api.royalties.service import RoyaltyService
from platform_api.security import Caller

__all__ = ["Refunds"]

log = structlog.get_logger(__name__)

_LEFT_OPEN = timedelta(minutes=10)
"""Longer than the tries of a job take."""


class RefundAtProvider(msgspec.Struct, frozen=True):
    refund_id: UUID


class Refunds:
    def __init__(self, kernel: Kernel, intents: Intents) -> None:
        self._kernel, self._database, self._intents = kernel, kernel.database, intents
        self._money = kernel.service(MoneyCommands)
        self._royalties = kernel.service(RoyaltyService)
        self._money.handle("refund", self._on_answer)
        kernel.jobs.handle("payments", "refund_at_provider", RefundAtProvider, self._give_back)

    async def of_purchase(self, caller: Caller, purchase_id: UUID, body: RefundRequest, key: str) -> Refund:
        """Raises ApiError.

        NOT_FOUND; FORBIDDEN `not_yours_to_refund`, `hold_over`; CONFLICT `not_refundable`, `reserve_empty`;
        VALIDATION_ERROR `refund_too_large`; PAYMENT_FAILED with the core's reason, as `insufficient_funds`.
        """

        async def change(db: Any) -> Answer:
            row = await queries.lock_purchase(db, purchase_id)
            if row is None:
                raise unknown("purchase")
            _check_may(caller, row["seller_id"], row["account_id"], "purchase")
            return 201, msgspec.json.encode(await self._refund_purchase(db, caller, row, body))

        route = "POST /v1/purchases/refund"
        return await self._once(caller, route, key, {"purchase": str(purchase_id)}, body, change)

    async def of_payment(self, caller: Caller, payment_id: UUID, body: RefundRequest, key: str) -> Refund:
        """Of a purchase as above; of a top-up as far as its payer still has it. Raises the same."""

        async def change(db: Any) -> Answer:
            row = await queries.lock_payment(db, payment_id)
            if row is None:
                raise unknown("payment")
            if row["purchase_id"] is not None:
                purchase = await queries.lock_purchase(db, row["purchase_id"])
                _check_may(caller, purchase["seller_id"], row["account_id"], "payment")
                return 201, msgspec.json.encode(await self._refund_purchase(db, caller, purchase, body))
            _check_may(caller, None, row["account_id"], "payment")
            return 201, msgspec.json.encode(await self._refund_top_up(db, caller, row, body))

        route = "POST /v1/payments/refund"
        return await self._once(caller, route, key, {"payment": str(payment_id)}, body, change)

    async def _once(
        self, caller: Caller, route: str, key: str, subject: dict[str, str], body: RefundRequest, change: Any
    ) -> Refund:
        try:
            (_, data), _ = await self._kernel.idempotency.once(
                caller.account_id, route, key, [subject, msgspec.to_builtins(body)], change
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            message = "Another refund of this sale is under way."
            raise ApiError(ErrorCode.CONFLICT, message, reason="refund_open") from error
        id_ = msgspec.json.decode(data, type=UUID)
        state = await self._royalties.gathering.settle(_ref(id_))
        async with self._database.connection() as db:
            row = await queries.refund(db, id_)
        if state == "refused":
            message, reason = "The core refused the refund.", row["failure"] or "refused"
            raise ApiError(ErrorCode.PAYMENT_FAILED, message, reason=reason, details={"id": str(id_)})
        return _refund(row)

    async def _refund_purchase(self, db: Any, caller: Caller, row: Any, body: RefundRequest) -> UUID:
        left = row["price_units"] - row["refunded_units"]
        if row["status"] != "completed":
            message = f"The purchase is {row['status']}."
            raise ApiError(ErrorCode.CONFLICT, message, reason="not_refundable", details={"status": row["status"]})
        by_seller = str(row["seller_id"]) == caller.account_id
        if by_seller:
            self._royalties.entries.check_held(row["completed_at"])
        units = _units(body, row, left)
        taken = await self._royalties.earnings.to_take_back(db, row["event_id"], units)
        by_provider = row["method"] == "provider"
        payment = await queries.payment_of_purchase(db, row["id"]) if by_provider else None
        target = core_account(row["account_id"]) if payment is None else external_account(payment["provider"])
        legs = [_leg(part.account, target, row, part.units) for part in taken]
        payment_id = None if payment is None else payment["id"]
        return await self._write(
            db, caller, row, row["id"], payment_id, units, body.reason, legs, taken, forced=not by_seller
        )

    async def _refund_top_up(self, db: Any, caller: Caller, row: Any, body: RefundRequest) -> UUID:
        left = row["amount_units"] - row["refunded_units"]
        if row["status"] not in ("deposited", "partially_refunded"):
            message = f"The payment is {row['status']}."
            raise ApiError(ErrorCode.CONFLICT, message, reason="not_refundable", details={"status": row["status"]})
        units = _units(body, row, left)
        legs = [_leg(core_account(row["account_id"]), external_account(row["provider"]), row, units)]
        return await self._write(db, caller, row, None, row["id"], units, body.reason, legs, [], forced=False)

    async def _write(
        self, db: Any, caller: Caller, row: Any, purchase_id: UUID | None, payment_id: UUID | None, units: int,
        reason: str, legs: list[dict[str, str]], taken: list[TakenBack], *, forced: bool,
    ) -> UUID:  # fmt: skip
        id_ = new_id()
        lines = msgspec.json.encode([(part.number, part.account, part.units) for part in taken]).decode()
        await queries.insert_refund(
            db, id_, purchase_id, payment_id, row["asset"], row["scale"], units, reason, _ref(id_), lines,
            UUID(caller.account_id),
        )  # fmt: skip
        command: dict[str, Any] = {"op": "transfer", "legs": legs, "code": "refund", "memo": id_.hex}
        if forced:
            command["force"] = True
        if payment_id is not None:
            command["pending"] = True
        outside = {leg["to"]: OPEN for leg in legs if leg["to"].startswith("external:")}
        parts = [(part.account, part.units) for part in taken]
        await self._royalties.entries.set_aside(db, _ref(id_), row, parts, forced=forced)
        if purchase_id is None:
            await self._money.order(
                db, _ref(id_), "refund", id_, command, accounts=outside, kept=KEPT_OUTSIDE, mine=True
            )
        else:
            await self._royalties.gathering.order(
                db, _ref(id_), "refund", id_, command, work_id=row["work_id"], accounts=outside
            )
        await self._kernel.audit.record(
            db, "refund.approved", ("refund", str(id_)), actor=caller.account_id,
            new={"amount": decimal_text(units, row["scale"]), "asset": row["asset"], "reason": reason,
                 "purchase_id": str(purchase_id) if purchase_id else None,
                 "payment_id": str(payment_id) if payment_id else None},
        )  # fmt: skip
        return id_

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        if answer.state == "pending":
            await queries.turn_refund(db, answer.document_id, "processing", None)
            await self._kernel.jobs.enqueue(
                db, "payments", "refund_at_provider", RefundAtProvider(answer.document_id)
            )  # fmt: skip
            return
        await self._royalties.entries.release(db, answer.ref)
        if answer.state != "posted":
            await queries.turn_refund(db, answer.document_id, "failed", answer.reason)
            return
        row = await queries.turn_refund(db, answer.document_id, "succeeded", None)
        accounts = []
        if row["payment_id"] is not None:
            payment = await queries.refund_payment(db, row["payment_id"], row["amount_units"])
            await queries.refund_intent(db, payment["intent_id"], payment["status"])
            accounts.append(payment["account_id"])
        if row["purchase_id"] is not None:
            purchase = await queries.add_refunded(db, row["purchase_id"], row["amount_units"])
            taken = [TakenBack(*part) for part in msgspec.json.decode(row["lines"], type=list[tuple[int, str, int]])]
            await self._royalties.earnings.reverse(db, purchase["event_id"], taken, answer.ref, answer.sequence)
            accounts += [purchase["account_id"], purchase["seller_id"]]
            if purchase["status"] == "refunded":
                await queries.revoke_entitlement(db, purchase["id"])
                buyer = str(purchase["account_id"])
                revoked = {"work_id": str(purchase["work_id"]), "account_id": buyer, "for_accounts": [buyer]}
                await self._kernel.events.publish(
                    db, "entitlement.revoked", ("purchase", str(purchase["id"])), revoked, actor=row["created_by"]
                )
        payload = {
            "amount": decimal_text(row["amount_units"], row["scale"]), "asset": row["asset"],
            "for_accounts": sorted({str(account) for account in accounts}),
        }  # fmt: skip
        await self._kernel.events.publish(
            db, "refund.processed", ("refund", str(row["id"])), payload, actor=row["created_by"]
        )

    async def sweep(self) -> None:
        """Ask the provider again for what is held without its word: the job was given up, as without a provider."""
        async with self._database.connection() as db:
            ids = await queries.refunds_left_open(db, _LEFT_OPEN)
        for id_ in ids:
            try:
                await self._at_provider(id_)
            except (Unavailable, OutcomeUnknown) as error:
                log.warning("refund_waits", refund_id=str(id_), error=str(error))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others are looked at
                log.error("refund_not_asked", refund_id=str(id_), error=f"{type(error).__name__}: {error}")

    async def _give_back(self, job: RefundAtProvider) -> None:
        await self._at_provider(job.refund_id)

    async def _at_provider(self, refund_id: UUID) -> None:
        """The outside call, while the core holds the money; its key is the refund's ref.

        Raises Unavailable, OutcomeUnknown; ApiError without a provider.
        """
        async with self._database.connection() as db:
            row = await queries.refund(db, refund_id)
            if row["status"] != "processing":
                return
            payment = await queries.payment(db, row["payment_id"])
        provider, failure = self._intents.provider(payment["provider"]), None
        try:
            await provider.refund(
                row["ref"], payment["provider_ref"], decimal_text(row["amount_units"], row["scale"])
            )  # fmt: skip
        except Refused as error:
            failure = str(error)
            log.error("refund_refused", ref=row["ref"], error=failure)
        async with self._database.transaction() as db:
            state = await self._money.state(db, row["ref"])
            if state == "pending" and failure is None:
                await self._money.order_post(db, row["ref"])
            elif state == "pending":
                await queries.note_failure(db, row["id"], failure)
                await self._money.order_void(db, row["ref"])


def _check_may(caller: Caller, seller_id: UUID | None, payer_id: UUID, what: str) -> None:
    """Raises ApiError: NOT_FOUND for strangers, FORBIDDEN for the payer, who is nobody's staff there."""
    if seller_id is not None and str(seller_id) == caller.account_id:
        return
    if str(payer_id) == caller.account_id:
        message = "Refunds are made by the seller or by the platform, and by nobody to themselves."
        raise ApiError(ErrorCode.FORBIDDEN, message, reason="not_yours_to_refund")
    if not caller.may("process_refunds"):
        raise unknown(what)


def _units(body: RefundRequest, row: Any, left: int) -> int:
    """Raises ApiError VALIDATION_ERROR `refund_too_large`."""
    units = left if body.amount is None else units_of(body.amount, row["scale"], field="amount")
    if units > left:
        most = decimal_text(left, row["scale"])
        message = f"amount: at most {most} {row['asset']} is left of the sale"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="refund_too_large", field="amount",
                       details={"left": most})  # fmt: skip
    return units


def _leg(source: str, target: str, row: Any, units: int) -> dict[str, str]:
    return {"from": source, "asset": row["asset"], "amount": decimal_text(units, row["scale"]), "to": target}


def _ref(refund_id: UUID) -> str:
    return f"refund:{refund_id.hex}"


def _refund(row: Any) -> Refund:
    return Refund(
        str(row["id"]), str(row["purchase_id"]) if row["purchase_id"] else None,
        str(row["payment_id"]) if row["payment_id"] else None, row["asset"],
        decimal_text(row["amount_units"], row["scale"]), row["status"], row["reason"], row["failure"],
        timestamp(row["created_at"]),
    )  # fmt: skip
