"""What the API needs of the rest of the exchange, in domain words. `byline` writes the adapters.

    CorePort     commands in, their first event out; API keys at the gateway
    BookPort     the public depth of a market, from the market-data copy
    ProofPort    proofs that a balance is counted in a batch
    StatusPort   what each process of the exchange says about itself
    MailPort     a letter to one person

Failures are those of `engine.messages.errors`: Unavailable when the command was surely not sent, OutcomeUnknown when it
may have taken effect. A refusal by the core is no error: it is the answer `{"event": "rejected", "reason": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["BookPort", "CorePort", "Letter", "MailPort", "NoProof", "ProofPort", "StatusPort"]


@runtime_checkable
class CorePort(Protocol):
    """The door to the core, open with the operator's rights: the API vouches for the account in the command."""

    async def submit(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send one command of the rulebook (`op` and its fields), wait until it is durable, and return its first event.

        The event is a dict with at least `event` (accepted, rejected, duplicate, done, transferred …) and `sequence`.

        Raises:
            Unavailable: not connected; nothing was sent.
            OutcomeUnknown: sent, but no answer came in time.
        """

    async def register_key(self, key_id: str, public_key: bytes, account: str, scopes: Sequence[str]) -> None:
        """Let the holder of the Ed25519 key trade for the account. Repeating it is harmless.

        Raises:
            Unavailable, OutcomeUnknown, Refused.
        """

    async def revoke_key(self, key_id: str, public_key: bytes) -> None:
        """The key opens nothing from now on. Repeating it, or an unknown key, is harmless."""

    def status(self) -> Mapping[str, Any]:
        """`connected` (bool), and what the core last said of itself. Never waits."""


class BookPort(Protocol):
    async def depth(self, market: str, depth: int) -> Mapping[str, Any]:
        """`sequence`, `bids` and `asks`: at most `depth` levels of [price, size] as decimal texts, best first.

        Raises:
            Unavailable: no copy of this market's book at hand.
            KeyError: market data knows no such market.
        """


class NoProof(Exception):
    """There is no proof; `reason` is `unknown_batch`, `not_final` or `no_balance`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@runtime_checkable
class ProofPort(Protocol):
    async def prove(self, account: str, batch: int | None) -> Sequence[Mapping[str, Any]]:
        """One for each asset, as in a proof file; without a batch, of the last final one.

        Raises:
            Unavailable: settlement does not answer.
            NoProof
        """


@runtime_checkable
class StatusPort(Protocol):
    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """By process name: `ready`, `alive` and whatever numbers the process publishes. Never waits."""


@dataclass(frozen=True, slots=True)
class Letter:
    """`letter_id` is the same when a letter is sent again, so that a provider can leave out the copy."""

    letter_id: str
    to: str
    subject: str
    text: str


class MailPort(Protocol):
    provider: str
    """Its name, as the API shows it."""

    async def send(self, letter: Letter) -> None:
        """Hands the letter over for good. Raises Unavailable (try again), Refused (this letter never goes)."""
