"""One trade: fees, holds and balances of both orders, and the end of their pairs.

In: an order that rests (the maker), another (the taker; in an uncross it rests too), price, lots, who pays which rate.
What the buyer pays the seller gets, less the fees, which `system:fees` gets; so every asset keeps its sum. It decides
nothing: whether, at what price and how much is the caller's, and so is the book but for a maker that is filled.
"""

from __future__ import annotations

from engine.messages import layout
from engine.messages.codes import Aggressor, CancelReason, EventKind, OrderStatus, Side
from engine.reference.model import FEES, Order, State, ceil_ppm, required_hold
from engine.reference.orders import cancel_order, close, leave_book, unpair

__all__ = ["Partners", "cancel_partners", "trade"]

Partners = list[tuple[Order, int]]
"""Orders whose partner has just traded, with what they give back: to be cancelled once the fill is told."""


def trade(
    s: State, maker: Order, taker: Order, price: int, size: int, aggressor: Aggressor, maker_ppm: int, taker_ppm: int
) -> Partners:
    """The orders trade `size` lots. A maker that is filled leaves its book; an iceberg's slice is for the caller."""
    market = s.markets[maker.market]
    notional = price * size * market.k
    s.exec_references.setdefault(maker.market, market.band_reference)
    market.trade_count += 1
    market.last_price = market.band_reference = price
    partners = [pair for order in (maker, taker) if (pair := unpair(s, order)) is not None]
    maker_fee, maker_released = _fill(s, maker, size, notional, maker_ppm)
    taker_fee, taker_released = _fill(s, taker, size, notional, taker_ppm)
    s.balance(FEES, market.quote).available += maker_fee + taker_fee
    s.emit(
        layout.TRADE, EventKind.TRADE, account=maker.account, market=maker.market, taker_account=taker.account,
        aggressor=aggressor, buyer=1 if taker.side == Side.BUY else 0, trade_id=market.trade_count, price=price,
        size=size, notional=notional, maker_order_id=maker.order_id, maker_leaves=maker.leaves, maker_fee=maker_fee,
        taker_order_id=taker.order_id, taker_leaves=taker.leaves, taker_fee=taker_fee,
        released=maker_released + taker_released,
    )  # fmt: skip
    if maker.leaves == 0:
        leave_book(s, maker)
        close(s, maker, OrderStatus.FILLED)
    return partners


def cancel_partners(s: State, partners: Partners) -> None:
    """What traded first cancels the other order of its pair."""
    for partner, released in partners:
        cancel_order(s, partner, CancelReason.OCO, released)


def _fill(s: State, order: Order, size: int, notional: int, ppm: int) -> tuple[int, int]:
    """One order's half of a trade: its fee, and what its hold gave back."""
    market = s.markets[order.market]
    base, quote = s.balance(order.account, market.base), s.balance(order.account, market.quote)
    before, charged = required_hold(market, order), ceil_ppm(order.exact_fee)
    order.exact_fee += notional * ppm
    fee = ceil_ppm(order.exact_fee) - charged
    order.leaves -= notional + fee if order.budget else size
    if order.side == Side.SELL:
        base.held -= size * market.u
        quote.available += notional - fee
        return fee, 0
    base.available += size * market.u
    if not order.is_limited:
        quote.available -= notional + fee
        return fee, 0
    after = required_hold(market, order)
    released = before - after - notional - fee
    quote.held += after - before
    quote.available += released
    return fee, released
