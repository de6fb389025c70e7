"""Payouts of what has matured, to the payee's own spending account: one command, complete or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.envelope import Pagination, cursor_from, page
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.service import ExchangeService
from platform_api.idempotency import Answer
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import FORCED, MoneyAnswer, MoneyCommands, pay_account
from platform_api.money import decimal_text, units_of
from platform_api.royalties import queries
from platform_api.royalties.entries import Entries
from platform_api.royalties.models import Payout, PayoutRequest
from platform_api.security import Caller

__all__ = ["Payouts"]


class Payouts:
    def __init__(self, kernel: Kernel, entries: Entries) -> None:
        self._kernel, self._database, self._entries = kernel, kernel.database, entries
        self._money = kernel.service(MoneyCommands)
        self._exchange = kernel.service(ExchangeService)
        self._money.handle("payout", self._on_answer)

    async def ask(self, caller: Caller, body: PayoutRequest, key: str) -> Payout:
        """Raises ApiError VALIDATION_ERROR `bad_price`, `unknown_asset`; CONFLICT `payout_open`, `not_payable`."""

        async def change(db: Any) -> Answer:
            account_id, id_ = UUID(caller.account_id), new_id()
            # Two payouts at once, or one beside a refund's answer: the second reads what the first has written.
            await queries.lock_owed(db, body.asset, [account_id])
            rows = {row["asset"]: row for row in await queries.balances(db, account_id)}
            row = rows.get(body.asset)
            if row is None and await self._exchange.asset_scale(db, body.asset) is None:
                message = f"asset: the exchange lists no {body.asset}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
            payable = 0 if row is None else row["payable"]
            scale = 0 if row is None else row["scale"]
            units = payable if body.amount is None or row is None else units_of(body.amount, scale, field="amount")
            if not 0 < units <= payable:
                message = f"amount: {decimal_text(max(payable, 0), scale)} {body.asset} can be paid out now"
                raise ApiError(ErrorCode.CONFLICT, message, reason="not_payable", field="amount")
            ref = f"payout:{id_.hex}"
            await queries.insert_payout(db, id_, account_id, body.asset, scale, units, ref)
            leg = {
                "from": pay_account(account_id), "asset": body.asset, "amount": decimal_text(units, scale),
                "to": caller.account,
            }  # fmt: skip
            await self._money.order(
                db, ref, "payout", id_, {"op": "transfer", "legs": [leg], "code": "payout", "memo": id_.hex},
                accounts={pay_account(account_id): FORCED}, mine=True,
            )  # fmt: skip
            return 201, msgspec.json.encode(id_)

        try:
            (_, data), _ = await self._kernel.idempotency.once(
                caller.account_id, "POST /v1/payouts", key, body, change
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            message = "Another payout of this asset is under way."
            raise ApiError(ErrorCode.CONFLICT, message, reason="payout_open") from error
        id_ = msgspec.json.decode(data, type=UUID)
        await self._money.settle(f"payout:{id_.hex}")
        async with self._database.connection() as db:
            return _payout(await queries.payout(db, id_))

    async def list_of(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Payout], Pagination]:
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.payouts(db, UUID(caller.account_id), before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [_payout(row) for row in rows], pagination

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        paid = answer.state == "posted"
        row = await queries.turn_payout(db, answer.document_id, "paid" if paid else "failed", answer.reason)
        if not paid or row is None:
            return
        await self._entries.write(
            db, row["account_id"], "paid", row, row["amount_units"], ref=row["ref"], sequence=answer.sequence,
            matures_at=datetime.now(UTC),
        )  # fmt: skip
        await self._kernel.events.publish(
            db, "payout.paid", ("payout", str(row["id"])), {"asset": row["asset"]}, actor=row["account_id"]
        )


def _payout(row: Any) -> Payout:
    return Payout(
        str(row["id"]), row["asset"], decimal_text(row["amount_units"], row["scale"]), row["status"], row["reason"],
        timestamp(row["created_at"]),
    )  # fmt: skip
