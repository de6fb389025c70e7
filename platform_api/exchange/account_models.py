"""Bodies of estimates, rates, and what an account has, had and moved. Amounts are decimal strings."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from platform_api.exchange.models import DecimalText, Name

__all__ = [
    "BalanceDay", "Deposit", "Estimate", "EstimateRequest", "FeeRate", "Movement", "Portfolio",
    "Position",
]  # fmt: skip


class EstimateRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Either `size`, or for a buy `budget`: quote to spend, fees included. `price`: a limit."""

    market: Name
    side: Literal["buy", "sell"]
    size: DecimalText | None = None
    budget: DecimalText | None = None
    price: DecimalText | None = None


class Estimate(Struct, frozen=True):
    """What an order would take from the book of `sequence`, bands aside: no promise.

    `complete`: all of it. `total`: what a buyer pays or a seller gets, fees included. `slippage_ppm`: how far the
    average is from the best price. Prices are null if nothing would trade.
    """

    market: str
    side: Literal["buy", "sell"]
    size: str
    complete: bool
    best_price: str | None
    average_price: str | None
    worst_price: str | None
    slippage_ppm: int | None
    notional: str
    fee: str
    total: str
    sequence: int


class FeeRate(Struct, frozen=True):
    """Parts per million of the notional, as the market has them; an account's own rates may be others."""

    market: str
    taker_ppm: int
    maker_ppm: int


class Movement(Struct, frozen=True, omit_defaults=True):
    """One thing that changed a balance: a trade, or a posting of money (`kind` is its code, else transfer).

    `account`: trading, or payable for what one has earned. `changes`: asset and signed amount. `batch` and `digests`
    as of trades.
    """

    sequence: int
    happened_at: str
    kind: str
    account: Literal["trading", "payable"]
    changes: list[tuple[str, str]]
    ref: str | None = None
    memo: str | None = None
    market: str | None = None
    trade_id: str | None = None
    order_id: str | None = None
    side: str | None = None
    price: str | None = None
    size: str | None = None
    fee: str | None = None
    batch: int | None = None
    digests: list[str] = []


class Deposit(Struct, frozen=True):
    """Money that came from outside. `place` is where it came from."""

    sequence: int
    happened_at: str
    asset: str
    amount: str
    ref: str
    place: str
    batch: int | None
    digests: list[str]


class BalanceDay(Struct, frozen=True):
    """What the account had of the asset, free and held, when the day (UTC) ended; of today, now."""

    date: str
    total: str


class Position(Struct, frozen=True):
    """An asset that has a market. `cost` is what the part of it that was bought cost on average, fees included.

    `value` and `unrealised` are at the last price, null without one. `realised`: gained by what was sold of it.
    """

    asset: str
    market: str
    quote_asset: str
    quantity: str
    bought: str
    sold: str
    last_price: str | None
    value: str | None
    cost: str
    unrealised: str | None
    realised: str


class Portfolio(Struct, frozen=True):
    """`totals`: what everything is worth at last prices, by the asset that prices it: cash and positions."""

    cash: list[tuple[str, str]]
    positions: list[Position]
    totals: list[tuple[str, str]]
