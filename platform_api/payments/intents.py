"""Intents: money asked of a provider, and what the provider says became of it.

    requires_payment ──▶ processing ──▶ succeeded ──▶ partially_refunded ──▶ refunded
            └───────────────┴─────────▶ failed, cancelled, expired      a payment that comes late still succeeds

Only facts of the provider move an intent: its signed events, each taken once, and its answers when we ask (`confirm`,
and before an intent expires). Events may come late, twice and in any order: a success counts whenever it comes,
anything else only as long as the intent is open. What was paid is deposited once for each *payment*
(`dep:PROVIDER:PAYMENT`): of a purchase to the passing account of its work; whatever is not just what a purchase asked
for, or what it asked for is the buyer's already, to the payer's own account.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.envelope import Pagination, cursor_from, page, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.service import ExchangeService
from platform_api.idempotency import Answer
from platform_api.identity.sessions import core_account
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import KEPT_OUTSIDE, NEVER, OPEN, MoneyAnswer, MoneyCommands, work_account
from platform_api.money import decimal_text, units_of
from platform_api.payments import queries
from platform_api.payments.models import Intent, IntentRequest, Payment
from platform_api.payments.port import BadSignature, PaymentProvider, ProviderFact
from platform_api.payments.purchases import Purchases
from platform_api.security import Caller, unauthorized
from platform_api.settlement.queries import settled_in

__all__ = ["Intents", "external_account"]

log = structlog.get_logger(__name__)

_OPEN = ("requires_payment", "processing")
_LEFT_OPEN = timedelta(minutes=10)
"""Past its time: longer than the tries of a job take."""


def external_account(provider: str) -> str:
    """The provider's account in the core: less than zero by what it holds for us."""
    return f"external:{provider}"


class ExpireIntent(msgspec.Struct, frozen=True):
    intent_id: UUID


class Intents:
    def __init__(self, kernel: Kernel, purchases: Purchases, providers: Mapping[str, PaymentProvider]) -> None:
        self._kernel, self._database = kernel, kernel.database
        self._purchases, self._providers = purchases, providers
        self._money = kernel.service(MoneyCommands)
        self._exchange = kernel.service(ExchangeService)
        self._lifetime = timedelta(seconds=kernel.settings.intent_seconds)
        self._money.handle("deposit", self._on_answer)
        kernel.jobs.handle("payments", "expire_intent", ExpireIntent, self._expire)

    async def top_up(self, caller: Caller, body: IntentRequest, key: str) -> Intent:
        """Raises ApiError VALIDATION_ERROR, SERVICE_UNAVAILABLE `no_provider`; Unavailable, OutcomeUnknown."""
        provider = self.provider()

        async def change(db: Any) -> Answer:
            scale = await self._exchange.asset_scale(db, body.asset)
            if scale is None:
                message = f"asset: the exchange lists no {body.asset}"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
            units = units_of(body.amount, scale, field="amount")
            self.check_taken(provider, body.asset, scale, units, "asset", "amount")
            id_ = await self.begin(db, UUID(caller.account_id), provider.name, None, body.asset, scale, units)
            return 201, msgspec.json.encode(id_)

        (_, data), _ = await self._kernel.idempotency.once(
            caller.account_id, "POST /v1/payments/intents", key, body, change
        )  # fmt: skip
        return await self.asked(msgspec.json.decode(data, type=UUID))

    def check_taken(
        self, provider: PaymentProvider, asset: str, scale: int, units: int, asset_field: str, amount_field: str
    ) -> None:  # fmt: skip
        """Raises ApiError VALIDATION_ERROR: `asset_not_taken`; `bad_amount`, for what is beyond the bound of a payment
        may be more than the core's account of the provider holds, with all others'."""
        if asset not in provider.assets:
            message = f"{asset_field}: payment providers take {', '.join(sorted(provider.assets))} here, not {asset}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="asset_not_taken", field=asset_field)
        most = self._kernel.settings.provider_payment_max
        if units > most * 10**scale:
            message = f"{amount_field}: a payment through a provider is of at most {most} {asset}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_amount", field=amount_field)

    async def begin(
        self, db: Any, account_id: UUID, provider: str, purchase_id: UUID | None, asset: str, scale: int, units: int
    ) -> UUID:
        """Write an intent in the transaction of what it is for; `asked` then tells the provider."""
        id_, expires_at = new_id(), datetime.now(UTC) + self._lifetime
        await queries.insert_intent(db, id_, account_id, purchase_id, provider, asset, scale, units, expires_at)
        await self._kernel.jobs.enqueue(db, "payments", "expire_intent", ExpireIntent(id_), run_after=self._lifetime)
        return id_

    async def asked(self, intent_id: UUID) -> Intent:
        """The intent with the payer's secret, known to the provider. Raises Unavailable, OutcomeUnknown."""
        async with self._database.connection() as db:
            row = await queries.intent(db, intent_id)
        made = await self._at_provider(row)
        async with self._database.connection() as db:
            return intent_of(await queries.intent(db, intent_id), made)

    async def read(self, caller: Caller, intent_id: UUID) -> Intent:
        """Raises ApiError NOT_FOUND."""
        return intent_of(await self._own(caller, intent_id))

    async def confirm(self, caller: Caller, intent_id: UUID) -> Intent:
        """Ask the provider, and take what it says. Raises ApiError NOT_FOUND; Unavailable, OutcomeUnknown."""
        row = await self._own(caller, intent_id)
        provider = self.provider(row["provider"])
        ref = row["provider_ref"] or (await self._at_provider(row))[0]
        fact = await provider.look_up(ref)
        async with self._database.transaction() as db:
            await self._apply(db, provider, fact)
            payment = None
            if fact.payment_ref is not None:
                payment = await queries.payment_by_ref(db, provider.name, fact.payment_ref)
        if payment is not None:
            await self._money.settle(_deposit_ref(provider.name, str(fact.payment_ref)))
        async with self._database.connection() as db:
            return intent_of(await queries.intent(db, intent_id))

    async def webhook(self, name: str, headers: Mapping[str, str], body: bytes) -> str:
        """Take one event of a provider; what became of it.

        Raises:
            ApiError: NOT_FOUND `unknown_provider`; UNAUTHORIZED for what the provider has not signed, or long ago.
            Unavailable: nothing was taken; the provider delivers it again. So too for an unknown intent as long as one
                of ours has no reference yet: it may be that one's.
        """
        if name not in self._providers:
            raise unknown("provider")
        provider = self._providers[name]
        try:
            event = provider.read_event(headers, body)
        except BadSignature as error:
            raise unauthorized(error.reason, "This is no event of the provider.") from error
        async with self._database.transaction() as db:
            if not await queries.note_event(db, name, event.event_id, hashlib.sha256(body).digest()):
                return "duplicate"
            outcome = await self._apply(db, provider, event.fact)
            if outcome == "unknown_intent":
                if await queries.lacks_reference(db, name):
                    raise Unavailable("the event came before the reference of its intent was kept")
                outcome = await self._apply(db, provider, event.fact)  # it may have been kept just now
            await queries.set_event_outcome(db, name, event.event_id, outcome)
        log.info("payment_event", provider=name, event_id=event.event_id, outcome=outcome)
        return outcome

    async def history(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Payment], Pagination]:
        (before,) = cursor_from(cursor, UUID) or (None,)
        async with self._database.connection() as db:
            rows = await queries.payments(db, UUID(caller.account_id), before, limit + 1)
            rows, pagination = page(rows, limit, lambda row: (row["id"],))
            batches = await settled_in(db, [row["sequence"] for row in rows if row["sequence"] is not None])
        return [_payment(row, *batches.get(row["sequence"], (None, []))) for row in rows], pagination

    def provider(self, name: str | None = None) -> PaymentProvider:
        """The named one, or the one that new payments go through. Raises ApiError SERVICE_UNAVAILABLE."""
        wanted = name or next(iter(self._providers), "")
        if wanted not in self._providers:
            message = "No payment provider is set up here."
            raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, message, reason="no_provider")
        return self._providers[wanted]

    async def _own(self, caller: Caller, intent_id: UUID) -> Any:
        async with self._database.connection() as db:
            row = await queries.intent(db, intent_id)
        if row is None or str(row["account_id"]) != caller.account_id:
            raise unknown("intent")
        return row

    async def _at_provider(self, row: Any) -> tuple[str, str]:
        """Its ref and secret there, made if need be: the intent's id is the key, so asking again makes no second."""
        made = await self.provider(row["provider"]).create(
            str(row["id"]), row["asset"], decimal_text(row["amount_units"], row["scale"])
        )
        if row["provider_ref"] is None:
            async with self._database.transaction() as db:
                await queries.set_provider_ref(db, row["id"], made.ref)
        return made.ref, made.secret

    async def _apply(self, db: Any, provider: PaymentProvider, fact: ProviderFact) -> str:
        """Take a fact, in the caller's transaction; a word for what it changed."""
        row = await queries.lock_intent_by_ref(db, provider.name, fact.intent_ref)
        if row is None:
            return "unknown_intent"
        if fact.status == "succeeded":
            return await self._succeed(db, provider, row, fact)
        if row["status"] not in _OPEN or fact.status in ("requires_payment", row["status"]):
            return "late"
        await queries.turn_intent(db, row["id"], fact.status, fact.reason)
        if fact.status in ("failed", "cancelled"):
            if row["purchase_id"] is not None:
                await queries.fail_purchase(db, row["purchase_id"], fact.reason or fact.status)
            await self._tell(db, "payment.failed", row["id"], row["account_id"], {"reason": fact.reason or fact.status})
        return "noted"

    async def _succeed(self, db: Any, provider: PaymentProvider, row: Any, fact: ProviderFact) -> str:
        if fact.payment_ref is None:
            log.error("payment_without_reference", provider=provider.name, intent_id=str(row["id"]))
            return "malformed"
        if await queries.payment_by_ref(db, provider.name, fact.payment_ref) is not None:
            return "known"
        scale = row["scale"] if fact.asset == row["asset"] else await self._exchange.asset_scale(db, fact.asset)
        if scale is None or fact.asset not in provider.assets:
            log.error("payment_in_unknown_asset", provider=provider.name, asset=fact.asset)
            return "unknown_asset"
        units = units_of(fact.amount, scale, field="amount")
        as_asked = fact.asset == row["asset"] and units == row["amount_units"]
        first = row["status"] not in ("succeeded", "partially_refunded", "refunded")
        purchase, reason = None, None if as_asked else "amount_differs"
        if as_asked and first and row["purchase_id"] is not None:
            purchase, reason = await self._purchases.to_pay(db, row["purchase_id"])
        account = core_account(row["account_id"]) if purchase is None else work_account(purchase["work_id"])
        payment_id, ref = new_id(), _deposit_ref(provider.name, fact.payment_ref)
        await queries.insert_payment(
            db, payment_id, row, None if purchase is None else purchase["id"], fact.payment_ref, fact.asset, scale,
            units, ref,
        )  # fmt: skip
        place = external_account(provider.name)
        await self._money.order(
            db, ref, "deposit", payment_id,
            {"op": "deposit", "account": account, "asset": fact.asset, "amount": decimal_text(units, scale),
             "place": place, "code": "payment", "memo": payment_id.hex},
            accounts={place: OPEN, account: NEVER}, kept=KEPT_OUTSIDE,
        )  # fmt: skip
        if first:
            await queries.turn_intent(db, row["id"], "succeeded", reason)
        if reason is not None and row["purchase_id"] is not None and first:
            await queries.fail_purchase(db, row["purchase_id"], reason)
        return "succeeded"

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        posted = answer.state == "posted"
        if not posted:  # money is at the provider, and nowhere in the core: a person must look
            log.error("deposit_not_posted", ref=answer.ref, state=answer.state, reason=answer.reason)
        row = await queries.turn_payment(
            db, answer.document_id, "deposited" if posted else "stuck", answer.sequence
        )  # fmt: skip
        if not posted or row is None:
            return
        if row["purchase_id"] is not None:
            await self._purchases.complete(db, row["purchase_id"], answer.ref)
        payload = {"asset": row["asset"], "amount": decimal_text(row["amount_units"], row["scale"])}
        await self._tell(db, "payment.completed", row["id"], row["account_id"], payload)

    async def sweep(self) -> None:
        """Look again at what is open past its time: its job was given up, or ended with its process."""
        async with self._database.connection() as db:
            ids = await queries.intents_left_open(db, _LEFT_OPEN)
        for id_ in ids:
            try:
                await self._close(id_)
            except (Unavailable, OutcomeUnknown) as error:
                log.warning("intent_waits", intent_id=str(id_), error=str(error))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others are looked at
                log.error("intent_not_closed", intent_id=str(id_), error=f"{type(error).__name__}: {error}")

    async def _expire(self, job: ExpireIntent) -> None:
        """As long as it takes: a provider that is away may have taken the money."""
        await self._close(job.intent_id)

    async def _close(self, intent_id: UUID) -> None:
        """The provider first: what it has taken is no longer ours to refuse. Raises Unavailable, OutcomeUnknown."""
        async with self._database.connection() as db:
            row = await queries.intent(db, intent_id)
        if row["status"] not in _OPEN:
            return
        provider = self.provider(row["provider"])
        ref, _ = await self._at_provider(row)
        try:
            fact = await provider.cancel(ref)
        except Refused as error:
            log.error("intent_not_cancelled", intent_id=str(row["id"]), error=str(error))
            return
        async with self._database.transaction() as db:
            outcome = await self._apply(db, provider, fact)
            if fact.status == "cancelled" and outcome == "noted":  # and nothing else was told of it meanwhile
                await queries.turn_intent(db, row["id"], "expired", None)

    async def _tell(self, db: Any, type_: str, id_: UUID, account_id: UUID, payload: dict[str, Any]) -> None:
        told = payload | {"for_accounts": [str(account_id)]}
        await self._kernel.events.publish(db, type_, ("payment", str(id_)), told, actor=account_id)


def intent_of(row: Any, made: tuple[str, str] | None = None) -> Intent:
    return Intent(
        str(row["id"]), row["purpose"], str(row["purchase_id"]) if row["purchase_id"] else None, row["provider"],
        row["provider_ref"], None if made is None else made[1], row["asset"],
        decimal_text(row["amount_units"], row["scale"]), row["status"], row["reason"], timestamp(row["expires_at"]),
        timestamp(row["created_at"]),
    )  # fmt: skip


def _deposit_ref(provider: str, payment_ref: str) -> str:
    return f"dep:{provider}:{payment_ref}"


def _payment(row: Any, batch: int | None, digests: list[str]) -> Payment:
    return Payment(
        str(row["id"]), str(row["intent_id"]), str(row["purchase_id"]) if row["purchase_id"] else None, row["provider"],
        row["asset"], decimal_text(row["amount_units"], row["scale"]),
        decimal_text(row["refunded_units"], row["scale"]), row["status"], row["sequence"], batch, digests,
        timestamp(row["created_at"]),
    )  # fmt: skip
