"""Bodies of the tokens' routes. Sizes, prices and amounts are decimal strings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from platform_api.exchange.account_models import Position
from platform_api.texts import line, prose

__all__ = [
    "Availability", "Holder", "Investment", "MarketPhase", "PhaseRequest", "PricePoint", "Proceeds", "Reservation",
    "Token", "TokenDetail", "TokenRequest", "TokenStatus", "TokenTransaction",
]  # fmt: skip

TokenStatus = Literal["reserved", "minted", "listed", "halted", "delisted", "failed"]
Symbol = Annotated[
    str, Meta(min_length=3, max_length=10, pattern=r"^[A-Z][A-Z0-9]{2,9}$(?!\n)", examples=["QUILL"])
]
Whole = Annotated[str, Meta(min_length=1, max_length=8, pattern=r"^[1-9][0-9]{0,7}$(?!\n)", examples=["1000000"])]
Price = Annotated[str, Meta(max_length=12, pattern=r"^[0-9]{1,5}(\.[0-9]{1,4})?$(?!\n)", examples=["1.5"])]


class Availability(Struct, frozen=True):
    """Advice only: a reservation is the claim. `reason` says why it is not to be had."""

    symbol: str
    available: bool
    reason: Literal["reserved_word", "taken", "held"] | None


class Reservation(Struct, frozen=True):
    symbol: str
    status: Literal["held"]
    expires_at: str


class TokenRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is launched. `total_supply` and `sale_size` are whole tokens; what is not for sale goes to the creator.

    `start_price`: what the sale asks for one token, in the quote asset.
    """

    symbol: Symbol
    name: Annotated[str, line(100, "Quill", min_length=1)]
    total_supply: Whole
    sale_size: Whole
    start_price: Price
    description: Annotated[str, prose(2000, "A token of the serial and its readers.")] = ""


class Token(Struct, frozen=True):
    """`phase`, `last_price` and `volume_24h` follow the market, so they may be a moment old; null before it is there.

    `problem`: why a launch failed.
    """

    id: str
    creator_id: str
    symbol: str
    name: str
    description: str
    decimals: int
    total_supply: str
    sale_size: str
    start_price: str
    quote_asset: str
    market: str
    status: TokenStatus
    problem: str | None
    phase: str | None
    last_price: str | None
    volume_24h: str | None
    created_at: str
    updated_at: str
    minted_at: str | None
    listed_at: str | None
    delisted_at: str | None
    version: int


class TokenDetail(Token, frozen=True):
    """`vault`: the token's vault on Sui, null until a batch has opened it."""

    circulating_supply: str
    holder_count: int
    vault: str | None


class Investment(Struct, frozen=True):
    """What somebody has of a creator's token, and what it cost them; `position` as in the portfolio."""

    token_id: str
    creator_id: str
    symbol: str
    name: str
    status: TokenStatus
    position: Position


class PricePoint(Struct, frozen=True):
    """One candle."""

    opened_at: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trade_count: int


class Holder(Struct, frozen=True):
    """`account_id` for a person's account; the launch's own holds what is not sold yet. Shares are rounded down."""

    kind: Literal["user", "launch", "other"]
    account: str
    account_id: str | None
    quantity: str
    share_bps: int


class TokenTransaction(Struct, frozen=True, omit_defaults=True):
    """A trade, or a step of the token's life with the `sequence` that it has in the journal.

    Steps: mint (`size` tokens came to be), share (to the creator), open, halt, resume, close.
    """

    type: Literal["trade", "mint", "share", "open", "halt", "resume", "close"]
    sequence: int
    occurred_at: str
    size: str | None = None
    price: str | None = None
    notional: str | None = None
    aggressor: str | None = None
    trade_id: str | None = None
    batch: int | None = None
    batch_status: str | None = None
    digests: list[str] = []


class PhaseRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The reason goes into the audit trail."""

    reason: Annotated[str, prose(500, "The creator's account was taken over.", min_length=1)]


class MarketPhase(Struct, frozen=True):
    """`waiting`: the core has not answered yet; it will be asked until it does."""

    market: str
    step: Literal["open", "halt", "resume", "close"]
    state: Literal["waiting", "done"]
    sequence: int | None


class Proceeds(Struct, frozen=True):
    """What the sale brought in so far, less the platform's share, on its way to what the creator is owed."""

    ref: str
    asset: str
    amount: str
    platform_bps: int
    state: Literal["waiting", "done"]
    sequence: int | None
