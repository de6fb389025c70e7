"""Transfers of one's own money to another account: at once or not at all, for a thousandth of it.

    pending ──▶ completed
       └──────▶ failed          the core refuses it; nothing has moved

The sender pays the fee beside the amount. Whoever receives it sees it once it is there; nobody can take it back. So an
account that was never paid before costs a step-up of its own, and its sender gets a letter: a stolen session alone
transfers to nobody but those its owner has paid.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from platform_api.envelope import Pagination, cursor_from, page
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.service import ExchangeService
from platform_api.idempotency import Answer
from platform_api.identity.service import IdentityService
from platform_api.identity.sessions import core_account
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import FORCED, NEVER, MoneyAnswer, MoneyCommands
from platform_api.money import decimal_text, units_of
from platform_api.payments import queries
from platform_api.payments.models import Transfer, TransferRequest
from platform_api.payments.proofs import PaymentProofs
from platform_api.royalties.postings import PLATFORM
from platform_api.security import Caller

__all__ = ["FEE_PARTS", "Transfers"]

FEE_PARTS = 1_000
"""The fee is one of so many parts of the amount, rounded up."""


class Transfers:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._database = kernel, kernel.database
        self._exchange = kernel.service(ExchangeService)
        self._people = kernel.service(IdentityService).people
        self._proofs = PaymentProofs(kernel)
        self._money = kernel.service(MoneyCommands)
        self._money.handle("transfer", self._on_answer)

    async def make(self, caller: Caller, body: TransferRequest, key: str) -> Transfer:
        """Raises ApiError VALIDATION_ERROR `unknown_asset`, `unknown_account`, `bad_price`; FORBIDDEN
        `step_up_required`; PAYMENT_FAILED with the core's reason, as `insufficient_funds`."""

        async def change(db: Any) -> Answer:
            scale = await self._exchange.asset_scale(db, body.asset)
            if scale is None:
                message = f"asset: the exchange lists no {body.asset}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
            if str(body.to) == caller.account_id or not await self._people.is_known(db, body.to):
                message = "to: must be another account"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_account", field="to")
            units = units_of(body.amount, scale, field="amount")
            fee, id_ = -(-units // FEE_PARTS), new_id()
            if not await queries.has_paid(db, UUID(caller.account_id), body.to):
                text = f"{decimal_text(units, scale)} {body.asset} are on their way from your account to {body.to}."
                await self._proofs.spend(db, caller, id_, "A transfer to a new account", text)
            await queries.insert_transfer(
                db, id_, UUID(caller.account_id), body.to, body.asset, scale, units, fee, body.note
            )
            legs = [
                {"from": caller.account, "asset": body.asset, "amount": decimal_text(amount, scale), "to": target}
                for amount, target in ((units, core_account(body.to)), (fee, PLATFORM))
            ]
            command = {"op": "transfer", "legs": legs, "code": "transfer", "memo": id_.hex}
            await self._money.order(
                db, _ref(id_), "transfer", id_, command,
                accounts={core_account(body.to): NEVER, PLATFORM: FORCED}, mine=True,
            )
            return 201, msgspec.json.encode(id_)

        (_, data), _ = await self._kernel.idempotency.once(
            caller.account_id, "POST /v1/transfers", key, body, change
        )  # fmt: skip
        id_ = msgspec.json.decode(data, type=UUID)
        if await self._money.settle(_ref(id_)) == "refused":
            message = "The amount could not be taken from the balance."
            raise await self._money.payment_failed(_ref(id_), message, {"id": str(id_)})
        async with self._database.connection() as db:
            return _transfer(await queries.transfer(db, id_), caller)

    async def list_of(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Transfer], Pagination]:
        """Sent, and those received; the latest first."""
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.transfers(db, UUID(caller.account_id), before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_transfer(row, caller) for row in rows], pagination

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        status = "completed" if answer.state == "posted" else "failed"
        row = await queries.turn_transfer(db, answer.document_id, status, answer.reason)
        if status == "failed":
            await self._proofs.give_back(db, row["source_id"], row["id"])
        if status == "completed":
            payload = {
                "asset": row["asset"], "amount": decimal_text(row["amount_units"], row["scale"]),
                "for_accounts": [str(row["source_id"]), str(row["target_id"])],
            }  # fmt: skip
            subject = ("transfer", str(row["id"]))
            await self._kernel.events.publish(db, "transfer.completed", subject, payload, actor=row["source_id"])


def _transfer(row: Any, caller: Caller) -> Transfer:
    is_sender = str(row["source_id"]) == caller.account_id
    return Transfer(
        str(row["id"]), "sent" if is_sender else "received",
        str(row["target_id"] if is_sender else row["source_id"]), row["asset"],
        decimal_text(row["amount_units"], row["scale"]),
        decimal_text(row["fee_units"], row["scale"]) if is_sender else "0", row["note"], row["status"], row["reason"],
        timestamp(row["created_at"]),
    )  # fmt: skip


def _ref(transfer_id: UUID) -> str:
    return f"tr:{transfer_id.hex}"
