"""What the API needs of the rest of the exchange, in domain words. `byline` writes the adapters.

    CorePort     commands in, their first event out; API keys at the gateway
    BookPort     the public depth of a market, from the market-data copy
    ProofPort    proofs that a balance is counted in a batch
    StatusPort   what each process of the exchange says about itself
    MailPort     a letter to one person
    RightsPort   copyrights and licences on the chain, as signed bytes (the back office alone)

Failures are those of `engine.messages.errors`: Unavailable when the command was surely not sent, OutcomeUnknown when it
may have taken effect. A refusal by the core is no error: it is the answer `{"event": "rejected", "reason": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.messages.errors import Unavailable

__all__ = [
    "BookPort", "ChainOutcome", "CorePort", "IssuedLicense", "Letter", "MailPort", "NoProof", "NotTaken", "ProofPort",
    "RegisteredWork", "RightsPort", "SignedCall", "StatusPort", "submit_taken",
]  # fmt: skip


_PASSING = ("busy", "cancel_only")
"""A full table; a journal or a start in which the core takes cancels alone. Both pass. Neither looks at the ref, so
neither says anything about what became of an earlier copy of the command."""


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
        """The key that was registered under this id opens nothing from now on. Repeating it is harmless, and so is a
        key that is unknown, or registered under another id.

        Raises:
            Unavailable, OutcomeUnknown, Refused.
        """

    async def key_uses(self, taken_ns: int | None) -> Mapping[str, int]:
        """Public key in hexadecimal to when a session of it last began or ended, ns since 1970: some, the oldest first.

        `taken_ns`: up to then they are kept, and are not told again. Empty: there is nothing more.

        Raises:
            Unavailable, OutcomeUnknown, Refused.
        """

    def status(self) -> Mapping[str, Any]:
        """`connected` (bool), and what the core last said of itself. Never waits."""


class NotTaken(Unavailable):
    """The core has answered, and takes no such command now. It may take others."""


async def submit_taken(core: CorePort, command: Mapping[str, Any]) -> dict[str, Any]:
    """The core's answer to a command that is sent until it is decided: every sender of such commands goes through here.

    Raises:
        NotTaken: the core takes no such command now; the same again later.
        Unavailable: not sent.
        OutcomeUnknown: as `submit`.
    """
    answer = await core.submit(command)
    if answer.get("event") == "rejected" and answer.get("reason") in _PASSING:
        raise NotTaken(f"the core takes no such command now: {answer['reason']}")
    return answer


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


@dataclass(frozen=True, slots=True)
class SignedCall:
    """Bytes that the chain executes at most once."""

    raw: bytes
    signature: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class ChainOutcome:
    """What the chain did with a transaction. Without a `checkpoint` nothing may rest on it yet."""

    digest: str
    success: bool
    abort_code: int | None
    error: str
    gas_mist: int
    checkpoint: int | None


@dataclass(frozen=True, slots=True)
class RegisteredWork:
    """`cap` is the right to grant licences of it, which the operator holds. Times are UTC milliseconds."""

    work: str
    cap: str
    digest: str
    registered_ms: int


@dataclass(frozen=True, slots=True)
class IssuedLicense:
    license: str
    issued_ms: int
    expires_ms: int


class RightsPort(Protocol):
    """Every method raises Unavailable when the chain does not answer, Refused for a definite no.

    Two transactions that were signed for one licence, or for one registration, exclude each other: by the version of
    the capability that both name, or by the content that is registered once.
    """

    async def sign_registration(self, content_hash: bytes, uri: str, creator: bytes) -> SignedCall:
        """Registers the content for the address of its creator; changes nothing yet."""

    async def sign_license(self, work: str, cap: str, to: bytes, terms_hash: bytes, duration_ms: int) -> SignedCall:
        """Grants a revocable licence."""

    async def sign_revocation(self, work: str, cap: str, license: str) -> SignedCall: ...

    async def send(self, call: SignedCall) -> ChainOutcome:
        """Raises OutcomeUnknown too: ask `find`, send the same again."""

    async def find(self, digest: str) -> ChainOutcome | None:
        """The transaction if the chain has executed it."""

    async def registered(self, digest: str) -> RegisteredWork:
        """What a registration that took effect has made."""

    async def held(self, content_hash: bytes) -> RegisteredWork | None:
        """A registered work with this content whose `cap` the operator holds. Slow: for cases of doubt."""

    async def issued(self, digest: str) -> IssuedLicense:
        """What a grant that took effect has made."""
