"""What a client sends on the order-entry socket, as types: one for each op, with its fields.

docs/protocol/asyncapi.json is generated from here (`python -m byline.protocol_document`), and a test holds the fields
to those that the exchange takes. What a field means, and which go together, stands in the rulebook, section 3. These
types describe; `TradingClient` sends plain objects.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from byline.client.messages import Leg, Nanoseconds, PhaseWord, SideWord, Text, TifWord, TypeWord, words
from engine.messages.codes import AccountStatus, Overdraft, SelfTrade

__all__ = ["REQUESTS"]

Id: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,32}$")]
QuoteId: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,16}$")]
Hex32: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Ref: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Ppm: TypeAlias = Annotated[int, Meta(description="Millionths.")]
RequestId: TypeAlias = (
    Annotated[int, Meta(ge=0, description="The answer repeats it.")]
    | Annotated[str, Meta(min_length=1, max_length=32)]
)  # fmt: skip


class _Request(Struct, kw_only=True, frozen=True, tag_field="op", omit_defaults=True):
    rid: RequestId | None = None


class _Command(_Request, kw_only=True, frozen=True):
    receipt: bool | None = None


class _OfAccount(_Command, kw_only=True, frozen=True):
    account: str | None = None
    """The key's first if left out."""


class Place(_OfAccount, tag="place", kw_only=True, frozen=True):
    """An order. `size`, or `budget` (quote to spend) for a buy of type market or stop."""

    market: str
    client_id: Id
    side: SideWord
    type: TypeWord
    size: Text | None = None
    budget: Text | None = None
    price: Text | None = None
    stop_price: Text | None = None
    tif: TifWord | None = None
    expires_at: Nanoseconds | None = None
    post_only: bool | None = None
    display_size: Text | None = None
    stp: Annotated[str, words(SelfTrade)] | None = None
    oco_with: Id | None = None
    session: str | None = None
    cancel_on_disconnect: bool | None = None


class Replace(_OfAccount, tag="replace", kw_only=True, frozen=True):
    """By one of the ids; at least one of the others. `size` is the new total."""

    order_id: int | None = None
    client_id: Id | None = None
    price: Text | None = None
    size: Text | None = None
    stop_price: Text | None = None
    new_client_id: Id | None = None


class Cancel(_OfAccount, tag="cancel", kw_only=True, frozen=True):
    """By one of the ids."""

    order_id: int | None = None
    client_id: Id | None = None


class MassCancel(_OfAccount, tag="mass_cancel", kw_only=True, frozen=True):
    """All orders that fit what is given."""

    market: str | None = None
    side: SideWord | None = None
    session: str | None = None


class Kill(_OfAccount, tag="kill", kw_only=True, frozen=True):
    """Cancels all and refuses new orders until `rearm`."""


class Rearm(_OfAccount, tag="rearm", kw_only=True, frozen=True):
    """Ends a `kill`."""


class CancelAfter(_OfAccount, tag="cancel_after", kw_only=True, frozen=True):
    """The first moment from `at` on cancels the account's orders; 0 ends it."""

    at: Nanoseconds


class Poison(_OfAccount, tag="poison", kw_only=True, frozen=True):
    """This id is never accepted from now on: of an order, or of a quote."""

    client_id: Id | None = None
    quote_id: QuoteId | None = None


class _Money(_Command, kw_only=True, frozen=True):
    ref: Ref
    force: bool | None = None
    not_after: Nanoseconds | None = None
    code: Annotated[str, Meta(min_length=1, max_length=16)] | None = None
    memo: Annotated[str, Meta(max_length=64)] | None = None


class _Movement(_Money, kw_only=True, frozen=True):
    account: str | None = None
    asset: str
    amount: Text
    place: str | None = None


class Deposit(_Movement, tag="deposit", kw_only=True, frozen=True):
    """Operator."""


class Withdraw(_Movement, tag="withdraw", kw_only=True, frozen=True):
    """`address` may only repeat the account's row; `place`, `legs` and `force` are the operator's."""

    legs: list[Leg] | None = None
    address: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Transfer(_Money, tag="transfer", kw_only=True, frozen=True, rename={"source": "from"}):
    """`legs`, or one leg alone by its fields. `shares` split an amount by weight."""

    legs: list[dict[str, Any]] | None = None
    source: str | None = None
    asset: str | None = None
    amount: Text | None = None
    shares: list[Any] | dict[str, Any] | None = None
    pending: bool | None = None
    expires_at: Nanoseconds | None = None


class _Decision(_Command, kw_only=True, frozen=True):
    ref: Ref
    not_after: Nanoseconds | None = None


class Post(_Decision, tag="post", kw_only=True, frozen=True):
    """A pending transfer happens. Operator."""


class Void(_Decision, tag="void", kw_only=True, frozen=True):
    """A pending transfer does not happen. Operator."""


class WithdrawSettled(_Decision, tag="withdraw_settled", kw_only=True, frozen=True):
    """Operator."""


class WithdrawFailed(_Decision, tag="withdraw_failed", kw_only=True, frozen=True):
    """Operator."""


class _Definition(_Command, kw_only=True, frozen=True):
    ref: Ref | None = None
    not_after: Nanoseconds | None = None


class Asset(_Definition, tag="asset", kw_only=True, frozen=True):
    """Operator."""

    asset: str
    scale: int
    settled: bool | None = None


class Market(_Definition, tag="market", kw_only=True, frozen=True):
    """Lists a market; a repeat may change fees, bands and pause. Operator."""

    market: str
    base: str
    quote: str
    tick: Text
    lot: Text
    min_size: Text | None = None
    max_size: Text | None = None
    max_price: Text | None = None
    taker_ppm: Ppm | None = None
    maker_ppm: Ppm | None = None
    entry_band_ppm: Ppm | None = None
    exec_band_ppm: Ppm | None = None
    pause_ns: int | None = None
    phase: PhaseWord | None = None
    reference_price: Text | None = None


class Account(_Definition, tag="account", kw_only=True, frozen=True):
    """Opens or changes an account. Operator."""

    account: str
    status: Annotated[str, words(AccountStatus)] | None = None
    overdraft: Annotated[str, words(Overdraft)] | None = None
    row: str | None = None
    taker_ppm: Ppm | None = None
    maker_ppm: Ppm | None = None
    stp_group: str | None = None
    limits: dict[str, int] | None = None


class SetPhase(_Definition, tag="phase", kw_only=True, frozen=True):
    """Operator."""

    market: str
    phase: PhaseWord
    reference_price: Text | None = None


class Uncross(_Command, tag="uncross", kw_only=True, frozen=True):
    """Operator."""

    market: str


class SignIn(_Request, tag="sign_in", kw_only=True, frozen=True):
    """The first request of a session. See Signing in."""

    key: Hex32
    signature: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}$")]
    nonce: Hex32 | None = None
    resume: int | None = None
    cancel_on_disconnect: bool | None = None


class Ping(_Request, tag="ping", kw_only=True, frozen=True):
    """Needs no sign-in."""


class QuoteSide(Struct, frozen=True):
    price: Text
    size: Text


class Quote(_Command, tag="quote", kw_only=True, frozen=True):
    """Makes the quote so; a side left out is withdrawn."""

    market: str
    quote_id: QuoteId
    bid: QuoteSide | None = None
    ask: QuoteSide | None = None
    post_only: bool | None = None
    account: str | None = None


class _Question(_Request, kw_only=True, frozen=True):
    pass


class AskOpenOrders(_Question, tag="open_orders", kw_only=True, frozen=True):
    account: str | None = None


class AskBalances(_Question, tag="balances", kw_only=True, frozen=True):
    account: str | None = None


class AskResolve(_Question, tag="resolve", kw_only=True, frozen=True):
    """The one true outcome of a client id, or of both sides of a quote."""

    client_id: Id | None = None
    quote_id: QuoteId | None = None
    account: str | None = None


class AskWhoAmI(_Question, tag="whoami", kw_only=True, frozen=True):
    pass


class AskSessions(_Question, tag="sessions", kw_only=True, frozen=True):
    pass


class AskDirectory(_Question, tag="directory", kw_only=True, frozen=True):
    pass


class AskLatency(_Question, tag="latency", kw_only=True, frozen=True):
    """With an interval also told again and again, until asked with 0."""

    interval_ms: int | None = None


class AskResume(_Question, tag="resume", kw_only=True, frozen=True):
    """Every private event behind `after`."""

    after: int


class ResetProtection(_Question, tag="reset_protection", kw_only=True, frozen=True):
    """Takes orders again after the key's protection tripped."""


class AskStatus(_Question, tag="status", kw_only=True, frozen=True):
    """Operator."""


class AskDescribe(_Question, tag="describe", kw_only=True, frozen=True):
    """All definitions: assets, markets, accounts. Operator."""


class ProtectionTerms(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """More than this within the window of journal time trips it; size is in base, notional in quote."""

    window_ms: int
    fills: int | None = None
    size: Text | None = None
    notional: Text | None = None


class RegisterKey(_Question, tag="register_key", kw_only=True, frozen=True):
    """Registers a public key. Operator."""

    key: Hex32
    accounts: list[str]
    scopes: list[str]
    label: str | None = None
    markets: list[str] | None = None
    collar_ppm: Ppm | None = None
    addresses: list[str] | None = None
    expires_at: Nanoseconds | None = None
    tier: str | None = None
    protection: ProtectionTerms | None = None


class RevokeKey(_Question, tag="revoke_key", kw_only=True, frozen=True):
    """With `label`, only the key that was registered with it. Operator."""

    key: Hex32
    label: str | None = None


class AskKeyUses(_Question, tag="key_uses", kw_only=True, frozen=True):
    """When sessions of keys last began or ended, at most 1,000, the oldest first. `taken`: up to then it is kept, and
    not told again. Operator."""

    taken: Nanoseconds | None = None


class TellSettled(_Question, tag="settled", kw_only=True, frozen=True):
    """Says to all sessions that a batch is final. Operator."""

    batch: int
    first_sequence: int
    last_sequence: int
    digests: list[str]
    chain: str
    executor: str


_KINDS: tuple[type[Struct], ...] = (
    SignIn, Ping, Place, Replace, Cancel, MassCancel, Kill, Rearm, CancelAfter, Poison, Quote, AskOpenOrders,
    AskBalances, AskResolve, AskWhoAmI, AskSessions, AskDirectory, AskLatency, AskResume, ResetProtection, Transfer,
    Withdraw, Deposit, Post, Void, WithdrawSettled, WithdrawFailed, Asset, Market, Account, SetPhase, Uncross,
    RegisterKey, RevokeKey, AskKeyUses, AskStatus, AskDescribe, TellSettled,
)  # fmt: skip
REQUESTS: dict[str, type[Struct]] = {str(kind.__struct_config__.tag): kind for kind in _KINDS}
"""By the word in `op`."""
