"""What we need of a payment provider, in domain words: ask for money, hear of it, ask again, give it back.

    PaymentProvider   the port            test_provider.TestProvider   the built-in one, which behaves like a real one

A provider is another company: its answers may be late, come twice or in another order, or not at all. It keeps its own
books; every call that changes them has an idempotency key, so that it can be made again. Only its signed events and its
answers to `look_up` say that money has come; no caller of ours ever does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["BadSignature", "PaymentProvider", "ProviderEvent", "ProviderFact", "ProviderIntent"]


class BadSignature(Exception):
    """The event is not the provider's, or too old; `reason` is bad_signature, stale_signature or malformed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ProviderIntent:
    """`secret` lets whoever has it pay, and nothing else."""

    ref: str
    secret: str


@dataclass(frozen=True, slots=True)
class ProviderFact:
    """How an intent stands: requires_payment, processing, succeeded, failed or cancelled.

    `payment_ref` (at most 48 characters) is there once it has succeeded; `amount` is a decimal text.
    """

    intent_ref: str
    status: str
    asset: str
    amount: str
    payment_ref: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """`event_id` is the same whenever the event is delivered again."""

    event_id: str
    fact: ProviderFact


class PaymentProvider(Protocol):
    """All calls raise Unavailable if it is not known whether they ran: they are made again with the same key."""

    name: str
    """In paths, in refs (`dep:NAME:PAYMENT`) and as `external:NAME` in the core."""
    assets: frozenset[str]
    """The money that it takes, by the names of the exchange. A deposit makes units out of the provider's account, so
    never a creator's token: those are as many as were launched."""

    async def create(self, key: str, asset: str, amount: str) -> ProviderIntent:
        """Ask for money. The same key again is answered alike."""

    async def cancel(self, ref: str) -> ProviderFact:
        """Nobody can pay it from now on, unless somebody has: how it stands."""

    async def look_up(self, ref: str) -> ProviderFact:
        """How it stands now."""

    async def refund(self, key: str, payment_ref: str, amount: str) -> str:
        """Give money back; the provider's reference. Raises Refused: it never will with this key."""

    def read_event(self, headers: Mapping[str, str], body: bytes) -> ProviderEvent:
        """The event in a webhook, whose raw body it checks. Raises BadSignature."""
