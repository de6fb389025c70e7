"""Bodies of the exchange routes. Prices, sizes and amounts are decimal strings; order and trade ids are strings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "AllCanceled",
    "Balance",
    "Book",
    "Candle",
    "Canceled",
    "FaucetDeposit",
    "FaucetRequest",
    "Market",
    "Order",
    "OrderRequest",
    "Placed",
    "Trade",
    "TradeSettlement",
]

DecimalText = Annotated[str, Meta(max_length=41, pattern=r"^[0-9]{1,20}(\.[0-9]{1,20})?$(?!\n)", examples=["12.5"])]
ClientOrderId = Annotated[
    str, Meta(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_.:-]+$(?!\n)", examples=["order-1"])
]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$(?!\n)", examples=["INK-USDC"])]


class Market(Struct, frozen=True):
    """`token_id` is the base asset. Rates are parts per million of the notional, bands of the reference price; one of 0
    is none. A limit price outside the entry band is refused; a taker stops at the exec band."""

    id: str
    token_id: str
    quote_asset: str
    tick_size: str
    lot_size: str
    min_size: str
    max_size: str
    max_price: str
    taker_ppm: int
    maker_ppm: int
    entry_band_ppm: int
    exec_band_ppm: int
    phase: str


class Book(Struct, frozen=True):
    """Levels are [price, size], best first. `sequence` is the last command in it."""

    market: str
    sequence: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class OrderRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A place command. `market` is a market (INK-USDC) or a token (INK). What fits with what, the core decides.

    `oco_with` is the client_order_id of the other order of a pair.
    """

    market: Name
    side: Literal["buy", "sell"]
    type: Literal["limit", "market", "stop", "stop_limit"]
    size: DecimalText | None = None
    budget: DecimalText | None = None
    price: DecimalText | None = None
    stop_price: DecimalText | None = None
    display_size: DecimalText | None = None
    tif: Literal["gtc", "ioc", "fok", "gtd"] | None = None
    expires_at: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    post_only: bool = False
    stp: Literal["cancel_newest", "cancel_oldest", "cancel_both", "decrement", "none"] | None = None
    oco_with: ClientOrderId | None = None
    client_order_id: ClientOrderId | None = None


class Placed(Struct, frozen=True):
    """The core's answer, durable in its journal. `duplicate`: this id was known, and nothing was placed anew."""

    order_id: str
    client_order_id: str
    market: str
    status: str
    sequence: int
    duplicate: bool
    filled: str | None = None


class Canceled(Struct, frozen=True):
    order_id: str
    sequence: int
    leaves: str | None


class AllCanceled(Struct, frozen=True):
    """`sequence` of the command after which nothing of it is left."""

    sequence: int
    market: str | None


class Order(Struct, frozen=True):
    """From the projection, which may lag the core by some milliseconds. `expires_at` as in the request."""

    order_id: str
    client_order_id: str
    market: str
    side: str
    type: str
    tif: str
    price: str | None
    stop_price: str | None
    size: str | None
    budget: str | None
    leaves: str
    display_size: str | None
    expires_at: int | None
    filled: str
    fee: str
    status: str
    reason: str | None
    accepted_at: str
    updated_at: str


class Trade(Struct, frozen=True, omit_defaults=True):
    """Of the public tape; the fields from `side` on only on one's own trades.

    `batch` is the settlement batch that holds the trade, absent until it is sealed; `batch_status` `final` means that
    it took effect on the chain, in the transactions `digests`.

    `liquidity`: maker, taker or auction.
    """

    trade_id: str
    market: str
    sequence: int
    price: str
    size: str
    notional: str
    aggressor: str
    traded_at: str
    batch: int | None = None
    batch_status: str | None = None
    digests: list[str] = []
    side: str | None = None
    order_id: str | None = None
    liquidity: str | None = None
    fee: str | None = None


class TradeSettlement(Struct, frozen=True):
    """`batch` holds every trade from `first_sequence` to `last_sequence`; null until it is sealed. `status` `final`: it
    took effect on the chain, in the transactions `digests`. What `byline verify` checks of it is at `batch_path`, and
    each of the two finds at `proof_path` that its balances after the trade are counted in `root`."""

    trade_id: str
    market: str
    sequence: int
    batch: int | None
    status: str | None
    first_sequence: int | None
    last_sequence: int | None
    root: str | None
    digests: list[str]
    committed_at: str | None
    batch_path: str | None
    proof_path: str | None


class Balance(Struct, frozen=True):
    asset: str
    available: str
    held: str
    total: str


class Candle(Struct, frozen=True):
    opened_at: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trade_count: int


class FaucetRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`assets`: which; all that the faucet has if absent."""

    assets: Annotated[list[Name], Meta(min_length=1, max_length=32, examples=[["USDC"]])] | None = None


class FaucetDeposit(Struct, frozen=True):
    """Test money of the embedded chain. `duplicate`: given before, once per account and asset."""

    asset: str
    amount: str
    ref: str
    sequence: int
    duplicate: bool
    simulated: Literal[True]
