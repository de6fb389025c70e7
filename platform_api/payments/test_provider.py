"""The built-in payment provider: it takes test money, and behaves like a real one in everything else.

It keeps books of its own (schema `test_provider`, which nothing else touches), answers calls by their idempotency keys,
and tells of what happened by signed events, delivered by jobs and again after a failure. Which card somebody pays with
decides how the events come:

    ok                processing, then succeeded          declined          failed: nothing is taken
    events_twice      each of them two times              events_lost       taken, and nothing is told: look it up
    events_reversed   succeeded, then processing

A signature is `t=SECONDS,v1=HEX` in the header `Byline-Signature`: HMAC-SHA256 over `SECONDS.BODY`, not older than five
minutes when it comes. It exists only beside the embedded chain (`ApiSettings.test_payments`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from engine.messages.errors import Refused
from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode
from platform_api.ids import new_secret
from platform_api.kernel.context import Kernel
from platform_api.payments.port import BadSignature, ProviderEvent, ProviderFact, ProviderIntent

__all__ = ["SIGNATURE", "Card", "TestProvider"]

Card = Literal["ok", "declined", "events_twice", "events_reversed", "events_lost"]
SIGNATURE = "byline-signature"
TOLERANCE_SECONDS = 300
_SIGNED = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event as it is sent."""

    id: str
    intent: str
    status: Literal["processing", "succeeded", "failed", "cancelled"]
    asset: str
    amount: str
    payment: str | None
    reason: str | None


class DeliverEvent(msgspec.Struct, frozen=True):
    event: _Body


class TestProvider:
    """Fulfils `PaymentProvider`."""

    __test__ = False  # of the product, not of its tests
    name = "test"
    assets = frozenset({"USDC"})

    def __init__(self, kernel: Kernel, receive: Callable[[str, Mapping[str, str], bytes], Awaitable[str]]) -> None:
        """`receive` is where events are delivered: provider, headers and raw body."""
        self._database, self._jobs = kernel.database, kernel.jobs
        self._receive = receive
        self._key = secrets.token_bytes(32)
        self._jobs.handle("payments", "test_provider_event", DeliverEvent, self._deliver)

    async def create(self, key: str, asset: str, amount: str) -> ProviderIntent:
        async with self._database.transaction() as db:
            await db.execute(
                "INSERT INTO test_provider.intent (ref, request, asset, amount, secret) VALUES ($1, $2, $3, $4, $5)"
                " ON CONFLICT (request) DO NOTHING",
                f"pi_{secrets.token_hex(12)}", key, asset, amount, new_secret(),
            )  # fmt: skip
            row = await db.fetchrow("SELECT ref, secret FROM test_provider.intent WHERE request = $1", key)
        return ProviderIntent(row["ref"], row["secret"])

    async def cancel(self, ref: str) -> ProviderFact:
        async with self._database.transaction() as db:
            await db.execute(
                "UPDATE test_provider.intent SET status = 'cancelled'"
                " WHERE ref = $1 AND status IN ('requires_payment', 'failed')",
                ref,
            )
        return await self.look_up(ref)

    async def look_up(self, ref: str) -> ProviderFact:
        row = await self._database.fetch_row("SELECT * FROM test_provider.intent WHERE ref = $1", ref)
        if row is None:
            raise Refused(f"the test provider knows no intent {ref}")
        reason = "card_declined" if row["status"] == "failed" else None
        return ProviderFact(ref, row["status"], row["asset"], row["amount"], row["payment"], reason)

    async def refund(self, key: str, payment_ref: str, amount: str) -> str:
        async with self._database.transaction() as db:
            row = await db.fetchrow("SELECT * FROM test_provider.intent WHERE payment = $1 FOR UPDATE", payment_ref)
            if row is None:
                raise Refused(f"the test provider took no payment {payment_ref}")
            refunds = await db.fetch("SELECT * FROM test_provider.refund WHERE payment = $1", payment_ref)
            for known in refunds:
                if known["request"] == key:
                    return str(known["ref"])
            if sum((Decimal(known["amount"]) for known in refunds), Decimal(amount)) > Decimal(row["amount"]):
                raise Refused("more than the payment")
            ref = f"re_{secrets.token_hex(12)}"
            await db.execute(
                "INSERT INTO test_provider.refund (request, ref, payment, amount) VALUES ($1, $2, $3, $4)",
                key, ref, payment_ref, amount,
            )  # fmt: skip
            return ref

    def read_event(self, headers: Mapping[str, str], body: bytes) -> ProviderEvent:
        found = _SIGNED.fullmatch(headers.get(SIGNATURE, ""))
        if found is None or not hmac.compare_digest(found[2], self._mac(int(found[1]), body)):
            raise BadSignature("bad_signature")
        if abs(time.time() - int(found[1])) > TOLERANCE_SECONDS:
            raise BadSignature("stale_signature")
        try:
            event = msgspec.json.decode(body, type=_Body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadSignature("malformed") from error
        fact = ProviderFact(event.intent, event.status, event.asset, event.amount, event.payment, event.reason)
        return ProviderEvent(event.id, fact)

    def sign(self, body: bytes, at: int | None = None) -> dict[str, str]:
        """The headers of a delivery, `at` seconds since 1970."""
        at = int(time.time()) if at is None else at
        return {SIGNATURE: f"t={at},v1={self._mac(at, body)}", "content-type": "application/json"}

    async def pay(self, ref: str, secret: str, card: Card) -> str:
        """What the provider's own page does for a payer; the intent's status then.

        Raises:
            ApiError: NOT_FOUND for an unknown intent or another's secret; CONFLICT `not_payable`.
        """
        async with self._database.transaction() as db:
            row = await db.fetchrow("SELECT * FROM test_provider.intent WHERE ref = $1 FOR UPDATE", ref)
            if row is None or not hmac.compare_digest(row["secret"].encode(), secret.encode()):
                raise unknown("intent")
            if row["status"] != "requires_payment":
                message = f"The intent is {row['status']}."
                raise ApiError(ErrorCode.CONFLICT, message, reason="not_payable")
            status = "failed" if card == "declined" else "succeeded"
            payment = None if card == "declined" else f"py_{secrets.token_hex(12)}"
            await db.execute(
                "UPDATE test_provider.intent SET status = $2, payment = $3, card = $4 WHERE ref = $1",
                ref, status, payment, card,
            )  # fmt: skip
            for event in _events(row, card, payment):
                await self._jobs.enqueue(db, "payments", "test_provider_event", DeliverEvent(event))
        return status

    async def _deliver(self, job: DeliverEvent) -> None:
        """One delivery: anything but an answer makes the job run again."""
        body = msgspec.json.encode(job.event)
        await self._receive(self.name, self.sign(body), body)

    def _mac(self, at: int, body: bytes) -> str:
        return hmac.new(self._key, f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def _events(row: Any, card: Card, payment: str | None) -> list[_Body]:
    def event(status: Literal["processing", "succeeded", "failed"], reason: str | None = None) -> _Body:
        paid = payment if status == "succeeded" else None
        return _Body(f"evt_{secrets.token_hex(12)}", row["ref"], status, row["asset"], row["amount"], paid, reason)

    if card == "declined":
        return [event("failed", "card_declined")]
    processing, succeeded = event("processing"), event("succeeded")
    return {
        "events_twice": [processing, processing, succeeded, succeeded],
        "events_reversed": [succeeded, processing],
        "events_lost": [],
    }.get(card, [processing, succeeded])
