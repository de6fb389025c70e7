"""Purchases of offers, and what they entitle to.

    pending ──▶ completed ──▶ refunded           a purchase whose payment came after all completes from `failed` too,
       └──────▶ failed                           unless the buyer has paid for the same by another by then

The price of the offer is a snapshot. Paid by `balance`, one command moves it from the buyer to the passing account of
the work (`buy:ID`); paid by a provider, its deposit brings it there. A work is sold when money for it has come, not
when somebody asks; as long as it may come from a balance, it is not deleted. The core's answer completes the purchase:
in the transaction that notes it stand the entitlement, the revenue event and its distribution, or none of them. What
the buyer may read is what was shown when the purchase was begun, and later: its maker cannot take it away before it is
paid for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.idempotency import Answer
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import NEVER, MoneyAnswer, MoneyCommands, Ordered, work_account
from platform_api.media.service import MediaService
from platform_api.money import decimal_text, units_of
from platform_api.payments import queries
from platform_api.payments.models import Access, AccessFile, Entitlement, Purchase, PurchaseRequest, Sale
from platform_api.payments.proofs import PaymentProofs
from platform_api.royalties.earnings import Earning
from platform_api.royalties.service import RoyaltyService
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["Purchases", "purchase_of", "purchase_ref"]

_BUYERS_AT_ONCE = 4
"""Of one offer, from the request to the answer: while some wait for the core others write. Of a crowd who came first is
done first; were all of them begun before one is ended, each would wait for nearly all."""
RENTAL = timedelta(hours=48)
"""From the payment, where the offer says nothing else."""
_REVENUE = {"purchase": "content_purchase", "rent": "rental", "ppv": "ppv"}
_ENTITLED = {"purchase": "own", "rent": "rent", "ppv": "ppv"}

Shelf = Callable[[Any, UUID, UUID | None, int], Awaitable[list[Entitlement]]]
"""What an account may use that it has not bought, the latest first: connection, account, before which id, how many."""


class Purchases:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._database = kernel, kernel.database
        self._money = kernel.service(MoneyCommands)
        self._works = kernel.service(WorkService)
        self._media = kernel.service(MediaService)
        self._royalties = kernel.service(RoyaltyService)
        self._proofs = PaymentProofs(kernel)
        self._works.catalog.rights.append(self.entitled)
        self._works.ratings.bought = queries.has_bought
        self._works.catalog.being_paid.append(queries.is_being_paid)
        self.shelves: list[Shelf] = []
        """Added by other contexts that give rights."""
        self._money.handle("purchase", self._on_answer)

    async def begin(self, db: Any, caller: Caller, body: PurchaseRequest) -> Any:
        """Check the offer and write the purchase; its row.

        Raises:
            ApiError: NOT_FOUND for an offer that is not shown; CONFLICT `offer_ended`, `coin_offer`, `own_work`,
                `price_changed`, `already_owned`; asyncpg.UniqueViolationError if another of this offer is pending.
        """
        offer, work = await self._works.offers.open_offer(db, caller, body.offer_id)
        account_id = UUID(caller.account_id)
        if offer["kind"] == "coin":
            raise ApiError(ErrorCode.CONFLICT, "Coins are spent, not paid with.", reason="coin_offer")
        if work["account_id"] == account_id:
            raise ApiError(ErrorCode.CONFLICT, "It is the caller's own work.", reason="own_work")
        if body.price is not None and units_of(body.price, offer["scale"]) != offer["price_units"]:
            price = decimal_text(offer["price_units"], offer["scale"])
            message = f"The price is {price} {offer['asset']} now."
            raise ApiError(ErrorCode.CONFLICT, message, reason="price_changed", field="price",
                           details={"price": price, "asset": offer["asset"]})  # fmt: skip
        id_ = new_id()
        row = await queries.insert_purchase(db, id_, account_id, offer, work["account_id"], body.method)
        # Behind the insert: that waited for what the account began of the work at the same instant, by any offer, and
        # for one of this offer that is being completed, whose entitlement is seen now.
        if await queries.is_taken(db, account_id, offer["work_id"], offer["chapter_id"], id_):
            raise ApiError(ErrorCode.CONFLICT, "It is bought already, or being paid for.", reason="already_owned")
        return row

    async def to_pay(self, db: Any, purchase_id: UUID) -> tuple[Any, str | None]:
        """A purchase whose money has come to a provider, locked, and its work marked as sold; or why it cannot be had.

        Without it the money is the payer's own: `already_owned`, also by another payment that is under way, or by
        another offer of the work that was paid since this purchase was begun; `deleted`. What has left readers' sight
        since then can be had: the right counts from when the purchase was begun.
        """
        row = await queries.purchase(db, purchase_id)
        # As in `begin`, the work before its purchases; nobody holds it beside this one, so no purchase is begun either.
        if not await self._works.offers.lock_subject(db, row["work_id"], row["chapter_id"], row["created_at"]):
            return None, "deleted"
        row = await queries.lock_purchase(db, purchase_id)
        if await queries.is_taken(db, row["account_id"], row["work_id"], row["chapter_id"], purchase_id):
            return None, "already_owned"
        await self._works.catalog.mark_sold(db, row["work_id"])
        return row, None

    async def buy(self, caller: Caller, body: PurchaseRequest, key: str) -> UUID:
        """From the balance, at once; the purchase's id, whatever the core has answered by now.

        Raises:
            ApiError: as `begin`; CONFLICT `purchase_pending`; FORBIDDEN `step_up_required`.
        """

        ordered: Ordered | None = None

        async def change(db: Any) -> Answer:
            nonlocal ordered
            row = await self.begin(db, caller, body)
            what = f"the offer {row['offer_id']} of the work {row['work_id']}"
            await self._proofs.of_payment(db, caller, row["id"], row["asset"], row["scale"], row["price_units"], what)
            leg = {
                "from": caller.account, "asset": row["asset"],
                "amount": decimal_text(row["price_units"], row["scale"]), "to": work_account(row["work_id"]),
            }  # fmt: skip
            command = {"op": "transfer", "legs": [leg], "code": "purchase", "memo": row["id"].hex}
            accounts = {work_account(row["work_id"]): NEVER}
            ordered = await self._money.order(
                db, purchase_ref(row["id"]), "purchase", row["id"], command, accounts=accounts, mine=True
            )
            return 201, msgspec.json.encode(row["id"])

        offer = str(body.offer_id)
        async with self._database.turn("buyers", offer, places=_BUYERS_AT_ONCE, needed=False):
            async with self._database.turn("offer", offer):
                id_ = await self.once(caller, body, key, change)
            await self._money.settle(purchase_ref(id_), ordered)
        return id_

    async def once(self, caller: Caller, body: PurchaseRequest, key: str, change: Any) -> UUID:
        """`change` writes a purchase, once for the key; its id. Raises ApiError CONFLICT `purchase_pending`."""
        try:
            (_, data), _ = await self._kernel.idempotency.once(
                caller.account_id, "POST /v1/purchases", key, body, change
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            message = "A purchase of this offer is under way: pay or await it."
            raise ApiError(ErrorCode.CONFLICT, message, reason="purchase_pending") from error
        return msgspec.json.decode(data, type=UUID)

    async def own(self, db: Any, caller: Caller, purchase_id: UUID) -> Any:
        """Raises ApiError NOT_FOUND."""
        row = await queries.purchase(db, purchase_id)
        if row is None or str(row["account_id"]) != caller.account_id:
            raise unknown("purchase")
        return row

    async def list_of(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Purchase], Pagination]:
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.purchases(db, UUID(caller.account_id), before, limit + 1)
        rows, pagination = page(rows, limit, lambda row: (row["id"],))
        return [purchase_of(row) for row in rows], pagination

    async def sales(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Sale], Pagination]:
        """What was bought of the caller."""
        before = cursor_from(cursor, datetime, UUID)
        async with self._database.connection() as db:
            rows = await queries.sales(db, UUID(caller.account_id), before, limit + 1)
            rows, pagination = page(rows, limit, lambda row: (row["completed_at"], row["id"]))
            divided = await self._royalties.earnings.distributions(db, [row["event_id"] for row in rows])
        return [_sale(row, self._royalties.entries.hold, divided[row["event_id"]]) for row in rows], pagination

    async def library(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Entitlement], Pagination]:
        (before,) = cursor_from(cursor, UUID) or (None,)
        account_id = UUID(caller.account_id)
        async with self._database.connection() as db:
            found = [_entitlement(row) for row in await queries.entitlements(db, account_id, before, limit + 1)]
            for shelf in self.shelves:
                found += await shelf(db, account_id, before, limit + 1)
        found.sort(key=lambda right: right.id, reverse=True)
        return page(found[: limit + 1], limit, lambda right: (UUID(right.id),))

    async def entitled(
        self, db: Any, caller: Caller, work_id: UUID, chapter_id: UUID | None, since: datetime | None
    ) -> bool:
        """Whether the caller may use the work, or this chapter of it, by purchase; without a chapter, anything.

        `since`: by one that was begun by then.
        """
        return await queries.may_use(db, UUID(caller.account_id), work_id, chapter_id, since)

    async def access(self, caller: Caller, purchase_id: UUID, chapter_id: UUID | None) -> Access:
        """Signed URLs of what was bought; of one chapter of it if asked for.

        Raises:
            ApiError: NOT_FOUND; CONFLICT `not_completed`; LICENSE_EXPIRED `access_ended`.
        """
        async with self._database.connection() as db:
            row = await self.own(db, caller, purchase_id)
            right = await queries.entitlement_of(db, purchase_id)
            if right is None:
                raise ApiError(ErrorCode.CONFLICT, "The purchase is not completed.", reason="not_completed")
            if right["ended"]:
                raise ApiError(ErrorCode.LICENSE_EXPIRED, "The access has ended.", reason="access_ended")
            wanted = right["chapter_id"] or chapter_id
            if chapter_id not in (None, wanted):
                raise unknown("chapter")
            return await self.opened(db, row["work_id"], wanted, row["created_at"], right["ends_at"])

    async def opened(
        self, db: Any, work_id: UUID, chapter_id: UUID | None, since: datetime, ends_at: datetime | None
    ) -> Access:
        """Signed URLs of what a right to the work opens that began at `since` and holds now; of one chapter if asked
        for. Raises ApiError NOT_FOUND."""
        if chapter_id is None:
            found = await self._works.assets.of_buyer(db, work_id, since)
        else:
            files = await self._works.chapters.files_of(db, work_id, chapter_id, since)
            found = [("chapter", *file) for file in files]
        signed = [(role, name, self._media.signed_url(file_id)) for role, name, file_id in found]
        return Access(
            str(work_id), str(chapter_id) if chapter_id else None, timestamp(ends_at) if ends_at else None,
            [AccessFile(role, name, link.url, link.expires_at) for role, name, link in signed],
        )  # fmt: skip

    async def complete(self, db: Any, purchase_id: UUID, ref: str) -> None:
        """The price stands in the passing account of the work. In the transaction that notes the answer of `ref`."""
        row, now = await queries.purchase(db, purchase_id), datetime.now(UTC)
        # The first sale locks the work, before its purchase as `to_pay`; of one that is sold nothing changes.
        await self._works.catalog.mark_sold(db, row["work_id"])
        row = await queries.lock_purchase(db, purchase_id)
        earning = Earning(
            _REVENUE[row["kind"]], ref, row["work_id"], row["asset"], row["scale"], row["price_units"], now,
            purchase_id=purchase_id,
        )  # fmt: skip
        event_id = await self._royalties.earned(db, earning)
        seconds = row["access_seconds"]
        span = timedelta(seconds=seconds) if seconds is not None else None
        if span is None and row["kind"] != "purchase":
            span = RENTAL
        is_completed = await queries.complete_purchase(
            db, purchase_id, event_id, new_id(), _ENTITLED[row["kind"]], now, None if span is None else now + span
        )
        assert is_completed, f"purchase {purchase_id} is {row['status']}"
        payload = {"work_id": str(row["work_id"]), "for_accounts": [str(row["account_id"]), str(row["seller_id"])]}
        await self._kernel.events.publish(
            db, "entitlement.granted", ("purchase", str(purchase_id)), payload, actor=row["account_id"]
        )

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        if answer.state == "posted":
            await self.complete(db, answer.document_id, answer.ref)
        else:
            account_id = await queries.fail_purchase(db, answer.document_id, answer.reason)
            if account_id is not None:
                await self._proofs.give_back(db, account_id, answer.document_id)


def purchase_of(row: Any, intent: Any = None) -> Purchase:
    return Purchase(
        str(row["id"]), str(row["offer_id"]), str(row["work_id"]),
        str(row["chapter_id"]) if row["chapter_id"] else None, row["kind"], row["method"], row["asset"],
        decimal_text(row["price_units"], row["scale"]),
        decimal_text(row["refunded_units"], row["scale"]), row["status"], row["reason"], intent,
        timestamp(row["created_at"]), timestamp(row["completed_at"]) if row["completed_at"] else None,
    )  # fmt: skip


def _sale(row: Any, hold: timedelta, distribution_id: UUID) -> Sale:
    return Sale(
        str(row["id"]), str(row["offer_id"]), str(row["work_id"]),
        str(row["chapter_id"]) if row["chapter_id"] else None, row["kind"], row["asset"],
        decimal_text(row["price_units"], row["scale"]), decimal_text(row["refunded_units"], row["scale"]),
        row["status"], timestamp(row["completed_at"]), timestamp(row["completed_at"] + hold),
        str(distribution_id),
    )  # fmt: skip


def purchase_ref(purchase_id: UUID) -> str:
    return f"buy:{purchase_id.hex}"


def _entitlement(row: Any) -> Entitlement:
    return Entitlement(
        str(row["id"]), str(row["work_id"]), str(row["chapter_id"]) if row["chapter_id"] else None, row["kind"],
        timestamp(row["starts_at"]), timestamp(row["ends_at"]) if row["ends_at"] else None, str(row["purchase_id"]),
        None,
    )  # fmt: skip
