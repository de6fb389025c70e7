"""What the exchange says on the order-entry socket, as types. `decode` makes one of them of a message of the wire.

The field names, their order and their meaning are the rulebook's (section 3) and docs/protocol/order-entry.md's;
docs/protocol/asyncapi.json is generated from here (`python -m byline.protocol_document`). Prices, sizes and amounts are
the decimal texts of the wire: `Decimal(event.size)` where one computes with them.

Decoding is strict in types and lenient in fields: one that this library does not know is passed over, so an exchange
that tells more does not break its clients.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from engine.messages.codes import (
    Aggressor,
    CancelReason,
    CommandKind,
    OrderStatus,
    OrderType,
    Phase,
    PhaseReason,
    RefStatus,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
    Word,
)

__all__ = ["ANSWERS", "EVENTS", "ServerMessage", "decode", "words"]


def words(kind: type[Word], *hidden: str) -> Meta:
    """The schema of a word out of a list of the rulebook."""
    return Meta(extra_json_schema={"enum": [member.word for member in kind if member.word not in hidden]})


Text: TypeAlias = Annotated[str, Meta(pattern=r"^-?[0-9]{1,39}(\.[0-9]{1,20})?$", description="A decimal.")]
Nanoseconds: TypeAlias = Annotated[int, Meta(description="ns since 1970, UTC.")]
SideWord: TypeAlias = Annotated[str, words(Side)]
TypeWord: TypeAlias = Annotated[str, words(OrderType, "unknown")]
TifWord: TypeAlias = Annotated[str, words(TimeInForce, "unknown", "default")]
StatusWord: TypeAlias = Annotated[str, words(OrderStatus)]
PhaseWord: TypeAlias = Annotated[str, words(Phase)]
OpWord: TypeAlias = Annotated[str, words(CommandKind)]
ReasonWord: TypeAlias = Annotated[str, words(RejectCode)]


class _Event(Struct, kw_only=True, frozen=True, tag_field="event", omit_defaults=True):
    """A private event, or the ack of a command: an ack has `rid` if the command had one, `chain` and the times."""

    sequence: int
    ts: Nanoseconds
    index: int | None = None
    rid: int | str | None = None
    chain: str | None = None
    t_in: Nanoseconds | None = None
    t_durable: Nanoseconds | None = None
    t_matched: Nanoseconds | None = None
    t_out: Nanoseconds | None = None
    rate_left: int | None = None


class Accepted(_Event, tag="accepted", frozen=True):
    """The order is in the exchange."""

    order_id: int
    client_id: str
    account: str
    market: str
    side: SideWord
    type: TypeWord
    tif: TifWord
    hold: Text
    price: Text | None = None
    size: Text | None = None
    budget: Text | None = None
    stop_price: Text | None = None
    display_size: Text | None = None
    expires_at: Nanoseconds | None = None


class RejectedEvent(_Event, tag="rejected", frozen=True):
    """A rule refused the command; it changed nothing."""

    reason: ReasonWord
    op: OpWord | None = None
    account: str | None = None
    client_id: str | None = None
    order_id: int | None = None
    ref: str | None = None


class Duplicate(_Event, tag="duplicate", frozen=True):
    """The id or ref is known: this is how it stands; nothing was changed."""

    status: Annotated[
        str, Meta(extra_json_schema={"enum": [member.word for kind in (OrderStatus, RefStatus) for member in kind]})
    ]
    client_id: str | None = None
    order_id: int | None = None
    account: str | None = None
    market: str | None = None
    filled: Text | None = None
    ref: str | None = None
    first_sequence: int | None = None


class Done(_Event, tag="done", frozen=True):
    """A command without an event of its own was carried out."""

    op: OpWord


class Trade(_Event, tag="trade", frozen=True):
    """A fill. Only your own side's fields are there."""

    trade_id: int
    market: str
    price: Text
    size: Text
    notional: Text
    aggressor: Annotated[str, words(Aggressor)]
    maker_order_id: int | None = None
    maker_account: str | None = None
    maker_client_id: str | None = None
    maker_leaves: Text | None = None
    maker_fee: Text | None = None
    maker_released: Text | None = None
    taker_order_id: int | None = None
    taker_account: str | None = None
    taker_client_id: str | None = None
    taker_leaves: Text | None = None
    taker_fee: Text | None = None
    taker_released: Text | None = None


class Canceled(_Event, tag="canceled", frozen=True):
    """The order is over; `leaves` is what it had left."""

    order_id: int
    client_id: str
    account: str
    market: str
    leaves: Text
    released: Text
    reason: Annotated[str, words(CancelReason)]


class Replaced(_Event, tag="replaced", frozen=True):
    """The order as it stands after the replace; `released` below zero was taken."""

    order_id: int
    client_id: str
    account: str
    market: str
    size: Text
    leaves: Text
    hold: Text
    released: Text
    priority_kept: bool
    price: Text | None = None


class Triggered(_Event, tag="triggered", frozen=True):
    """A waiting stop has become an order."""

    order_id: int
    stop_price: Text
    trigger_price: Text
    trigger_sequence: int


class Refreshed(_Event, tag="refreshed", frozen=True):
    """An iceberg shows its next slice."""

    order_id: int
    display_size: Text


class Prevented(_Event, tag="prevented", frozen=True):
    """A trade with oneself that did not happen."""

    market: str
    price: Text
    size: Text
    mode: Annotated[str, words(SelfTrade)]
    maker_order_id: int | None = None
    maker_account: str | None = None
    maker_client_id: str | None = None
    maker_leaves: Text | None = None
    maker_released: Text | None = None
    taker_order_id: int | None = None
    taker_account: str | None = None
    taker_client_id: str | None = None
    taker_leaves: Text | None = None
    taker_released: Text | None = None


class Balance(_Event, tag="balance", frozen=True):
    """What an account has after a movement of money."""

    account: str
    asset: str
    available: Text
    held: Text
    cause: Annotated[str, Meta(extra_json_schema={"enum": [*(kind.word for kind in CommandKind), "expired"]})]


class Leg(Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """One posting."""

    source: str
    asset: str
    amount: Text
    target: str


class _Money(_Event, frozen=True):
    ref: str
    legs: list[Leg]
    code: str | None = None
    memo: str | None = None
    cause: str | None = None


class Transferred(_Money, tag="transferred", frozen=True):
    """Money has moved."""


class Pended(_Money, tag="pended", frozen=True):
    """Money is held for a movement to come."""


class Posted(_Money, tag="posted", frozen=True):
    """The movement that was pending has happened."""


class Voided(_Money, tag="voided", frozen=True):
    """The movement that was pending will not happen."""


class PhaseChanged(_Event, tag="phase_changed", frozen=True):
    market: str
    phase: PhaseWord
    reason: Annotated[str, words(PhaseReason)]


class Uncrossed(_Event, tag="uncrossed", frozen=True):
    """The result of an auction; `imbalance` is buy minus sell."""

    market: str
    size: Text
    imbalance: Text
    price: Text | None = None


class _Answer(Struct, kw_only=True, frozen=True, tag_field="type", omit_defaults=True):
    rid: int | str | None = None


class Hello(_Answer, tag="hello", frozen=True):
    """The first message of a connection, and the next after a failed sign-in: sign its `nonce`."""

    environment: str
    epoch: int
    nonce: str
    protocol: str
    server_time: Nanoseconds
    schema: str | None = None
    version: int | None = None


class SignedIn(_Answer, tag="signed_in", frozen=True):
    """Live private events begin behind `sequence`."""

    label: str
    accounts: list[str]
    scopes: list[str]
    session: int
    sequence: int
    cancel_on_disconnect: bool
    tier: str
    account_indices: list[int | None] | None = None
    receipt_key: str | None = None


class Error(_Answer, tag="error", frozen=True):
    """A definite no: nothing was journaled and nothing executed."""

    code: str
    message: str
    field: str | None = None
    rule: str | None = None
    retry_after_ms: int | None = None
    """Of `rate_limited`: from when on the limit lets one pass."""


class Pong(_Answer, tag="pong", frozen=True):
    pass


class OpenOrder(Struct, kw_only=True, frozen=True, omit_defaults=True):
    order_id: int
    client_id: str
    market: str
    side: SideWord
    type: TypeWord
    tif: TifWord
    status: StatusWord
    leaves: Text
    size: Text | None = None
    budget: Text | None = None
    price: Text | None = None
    stop_price: Text | None = None
    display_size: Text | None = None
    expires_at: Nanoseconds | None = None


class OpenOrders(_Answer, tag="open_orders", frozen=True):
    """As of `sequence`."""

    account: str
    sequence: int
    orders: list[OpenOrder]


class AssetBalance(Struct, frozen=True):
    asset: str
    available: Text
    held: Text


class Balances(_Answer, tag="balances", frozen=True):
    account: str
    sequence: int
    balances: list[AssetBalance]


class Resolved(_Answer, tag="resolved", frozen=True):
    """The one true outcome of a client id, as of `sequence`."""

    account: str
    client_id: str
    sequence: int
    outcome: Annotated[
        str, Meta(extra_json_schema={"enum": ["never_received", "rejected", "accepted", "final", "poisoned"]})
    ]
    order_id: int | None = None
    market: str | None = None
    status: StatusWord | None = None
    filled: Text | None = None
    rejected_sequence: int | None = None
    reason: ReasonWord | None = None
    since: int | None = None
    not_accepted_since: int | None = None


class ResolvedSide(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The last order of one side of a quote, as `Resolved`. Without a client id: there was none behind `since`."""

    outcome: str
    client_id: str | None = None
    order_id: int | None = None
    market: str | None = None
    status: StatusWord | None = None
    filled: Text | None = None
    rejected_sequence: int | None = None
    reason: ReasonWord | None = None
    since: int | None = None
    not_accepted_since: int | None = None


class QuoteResolved(_Answer, tag="quote_resolved", frozen=True):
    """Both sides of a quote, as of `sequence`."""

    account: str
    quote_id: str
    sequence: int
    is_poisoned: bool
    bid: ResolvedSide
    ask: ResolvedSide


class Resumed(_Answer, tag="resumed", frozen=True):
    """Every private event behind `after` has been told; from here on they are live."""

    after: int
    sequence: int
    events: int


class Shutdown(_Answer, tag="shutdown", frozen=True):
    """The exchange stops: resume behind `sequence`."""

    sequence: int
    message: str


class JournalStatus(_Answer, tag="status", frozen=True):
    """The journal's health has changed."""

    journal: str
    message: str


class ProtectionTripped(_Answer, tag="protection", frozen=True):
    """The key's orders are cancelled and no more are taken until `reset_protection`."""

    reason: str
    message: str


class Settled(_Answer, tag="settled", frozen=True):
    """Everything from first_sequence to last_sequence took effect on the chain, in the transactions `digests`.

    `chain` and `executor` say what that chain is, and whether it is one.
    """

    batch: int
    first_sequence: int
    last_sequence: int
    digests: list[str]
    chain: str
    executor: str


class ProtectionReset(_Answer, tag="protection_reset", frozen=True):
    had_tripped: bool


class SessionFacts(Struct, kw_only=True, frozen=True, omit_defaults=True):
    session: int
    address: str
    signed_in_at: Nanoseconds
    cancel_on_disconnect: bool
    label: str
    is_this: bool
    key: str | None = None
    rate_left: int | None = None
    messages_left: int | None = None
    protection_tripped: bool | None = None


class Sessions(_Answer, tag="sessions", frozen=True):
    sessions: list[SessionFacts]


class WhoAmI(_Answer, tag="whoami", frozen=True):
    """The key's rights, and what is left of its limits."""

    key: str
    label: str
    accounts: list[str]
    scopes: list[str]
    session: int
    address: str
    signed_in_at: Nanoseconds
    cancel_on_disconnect: bool
    sequence: int
    tier: str | None = None
    markets: list[str] | None = None
    collar_ppm: int | None = None
    addresses: list[str] | None = None
    expires_at: Nanoseconds | None = None
    protection: dict[str, Any] | None = None
    rate_left: int | None = None
    messages_left: int | None = None
    protection_tripped: bool | None = None


class StageTimes(Struct, frozen=True):
    """A histogram since the start. `buckets`: [upper bound in µs, how many]; bound -1: what took longer."""

    count: int
    sum_us: int
    buckets: list[tuple[int, int]]
    p50_us: int | None = None
    p99_us: int | None = None


class Latency(_Answer, tag="latency", frozen=True):
    """From the reading of a command to `matched`, `durable` and `out`: the key's own commands and the whole venue's."""

    key: str
    sequence: int
    stages: dict[str, StageTimes]
    venue: dict[str, StageTimes]


class DirectoryAsset(Struct, frozen=True):
    index: int
    asset: str
    scale: int


class DirectoryMarket(Struct, frozen=True):
    index: int
    market: str
    base: str
    quote: str
    tick: Text
    lot: Text


class Directory(_Answer, tag="directory", frozen=True):
    """Assets and markets with the numbers by which binary records name them."""

    assets: list[DirectoryAsset]
    markets: list[DirectoryMarket]


class Receipt(_Answer, tag="receipt", frozen=True):
    """Signed by the exchange: this command stands in its journal. See `verify_receipt`."""

    sequence: int
    state_hash: str
    command_digest: str
    environment: str
    epoch: int
    path: list[tuple[str, str]]
    key: str
    signature: str


class Quoted(_Answer, tag="quoted", frozen=True):
    """How both sides of a quote stand now."""

    account: str
    quote_id: str
    bid: dict[str, Any] | None = None
    ask: dict[str, Any] | None = None


Event: TypeAlias = (
    Accepted | RejectedEvent | Duplicate | Done | Trade | Canceled | Replaced | Triggered | Refreshed | Prevented
    | Balance | Transferred | Pended | Posted | Voided | PhaseChanged | Uncrossed
)  # fmt: skip
Answer: TypeAlias = (
    Hello | SignedIn | Error | Pong | OpenOrders | Balances | Resolved | QuoteResolved | Resumed | Shutdown
    | JournalStatus | ProtectionTripped | ProtectionReset | Settled | Sessions | WhoAmI | Directory | Latency | Receipt
    | Quoted
)  # fmt: skip
ServerMessage: TypeAlias = Event | Answer

EVENTS: dict[str, type[Struct]] = {str(kind.__struct_config__.tag): kind for kind in Event.__args__}
"""By the word in `event`."""
ANSWERS: dict[str, type[Struct]] = {str(kind.__struct_config__.tag): kind for kind in Answer.__args__}
"""By the word in `type`."""


def decode(message: dict[str, Any]) -> ServerMessage:
    """The typed form of a message of the wire.

    Raises:
        msgspec.ValidationError: a field is missing or of another type, or the kind is not known.
    """
    kind: Any = Event if "event" in message else Answer
    typed: ServerMessage = msgspec.convert(message, kind)
    return typed
