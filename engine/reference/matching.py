"""An order against the book: price and time, self-trade prevention, bands, the fills limit, and how it ends.

Each step of the loop asks in this order: is the taker done, does it reach the best maker, is that inside the exec
band, may the command make one more fill, is it a maker of one's own, is there money; then they trade.
"""

from __future__ import annotations

from collections import deque

from engine.messages import layout
from engine.messages.codes import (
    Aggressor,
    CancelReason,
    EventKind,
    OrderStatus,
    Phase,
    PhaseReason,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.reference.bands import in_exec_band, pause
from engine.reference.model import MILLION, Order, State
from engine.reference.orders import cancel_order, close, hold, join_book, pair_hold, refresh
from engine.reference.trade import cancel_partners, trade

__all__ = ["affordable_lots", "execute", "reaches"]


def reaches(order: Order, price: int) -> bool:
    """Whether the order's limit meets an opposite order at that price."""
    if not order.is_limited:
        return True
    return order.price >= price if order.side == Side.BUY else order.price <= price


def affordable_lots(s: State, order: Order, price: int) -> int:
    """How many lots a market buy can pay at that price, fees included."""
    market = s.markets[order.market]
    money = s.available(order.account, market.quote)
    if order.budget:
        money = min(money, order.leaves)
    return (money * MILLION + order.credit) // (MILLION + order.taker_ppm) // (price * market.k)


def execute(s: State, taker: Order) -> tuple[int, int] | None:
    """Match the taker, then rest or cancel what is left. The lowest and the highest price it traded at, if it did."""
    if taker.tif == TimeInForce.FOK and not _fills_wholly(s, taker):
        cancel_order(s, taker, CancelReason.FOK)
        return None
    prices: list[int] = []
    reason = _match(s, taker, prices)
    rests = taker.is_limited and taker.tif in (TimeInForce.GTC, TimeInForce.GTD)
    if taker.leaves == 0 and reason is None:
        close(s, taker, OrderStatus.FILLED)
    elif rests and reason in (None, CancelReason.BAND):
        join_book(s, taker)
        if reason == CancelReason.BAND:
            pause(s, taker.market, Phase.HALT, PhaseReason.BAND)
    elif reason is None:
        cancel_order(s, taker, CancelReason.IOC if taker.is_limited else CancelReason.MARKET)
    else:
        cancel_order(s, taker, reason)
    return (min(prices), max(prices)) if prices else None


def _match(s: State, taker: Order, prices: list[int]) -> CancelReason | None:
    """Trade until the taker is done, the book is, or a rule ends it: the rule's reason. Appends each trade's price."""
    market = s.markets[taker.market]
    while taker.leaves > 0:
        price = market.best(1 - taker.side)
        if price is None or not reaches(taker, price):
            return None
        if not in_exec_band(s, taker.market, price):
            return CancelReason.BAND
        if s.fills == s.limits.max_fills_per_command:
            return CancelReason.FILLS_LIMIT
        maker = next(iter(market.half(1 - taker.side)[price].values()))
        if _are_one(s, taker, maker):
            s.fills += 1
            if _prevent(s, taker, maker):
                return CancelReason.STP
            continue
        size = maker.shown if taker.budget else min(maker.shown, taker.leaves)
        if not taker.is_limited and taker.side == Side.BUY:
            lots = affordable_lots(s, taker, price)
            if lots == 0:
                enough = taker.budget and taker.leaves <= s.available(taker.account, market.quote)
                return CancelReason.BUDGET if enough else CancelReason.FUNDS
            size = min(size, lots)
        s.fills += 1
        prices.append(price)
        _fill(s, taker, maker, size)
    return None


def _are_one(s: State, taker: Order, maker: Order) -> bool:
    """Whether self-trade prevention stands between them."""
    return taker.stp != SelfTrade.NONE and s.group(maker.account) == s.group(taker.account)


def _fill(s: State, taker: Order, maker: Order, size: int) -> None:
    maker.displayed -= size
    partners = trade(s, maker, taker, maker.price, size, Aggressor(taker.side), maker.maker_ppm, taker.taker_ppm)
    if maker.leaves > 0 and maker.shown == 0:
        refresh(s, maker)
    cancel_partners(s, partners)


def _prevent(s: State, taker: Order, maker: Order) -> bool:
    """Maker and taker are of one group. True if the taker is ended by it."""
    size = maker.shown if taker.budget else min(maker.shown, taker.leaves)
    released = {taker.order_id: 0, maker.order_id: 0}
    if taker.stp == SelfTrade.DECREMENT:
        for order in (maker, taker):
            before = pair_hold(s, order)
            order.leaves -= size
            order.size -= size
            released[order.order_id] = before - pair_hold(s, order)
            hold(s, order, -released[order.order_id])
        maker.displayed -= size
    s.emit(
        layout.PREVENTED, EventKind.PREVENTED, account=maker.account, market=taker.market, taker_account=taker.account,
        mode=taker.stp, price=maker.price, size=size, maker_order_id=maker.order_id, maker_leaves=maker.leaves,
        maker_released=released[maker.order_id], taker_order_id=taker.order_id, taker_leaves=taker.leaves,
        taker_released=released[taker.order_id],
    )  # fmt: skip
    if maker.leaves > 0 and maker.shown == 0:
        refresh(s, maker)
    if taker.stp in (SelfTrade.CANCEL_OLDEST, SelfTrade.CANCEL_BOTH) or maker.leaves == 0:
        cancel_order(s, maker, CancelReason.STP)
    return taker.stp in (SelfTrade.CANCEL_NEWEST, SelfTrade.CANCEL_BOTH) or taker.leaves == 0


def _fills_wholly(s: State, taker: Order) -> bool:
    """Whether a fok would really trade all it wants: the loop above, played through slice by slice. Nothing changes."""
    market, need, fills = s.markets[taker.market], taker.leaves, s.fills
    half = market.half(1 - taker.side)
    for price in half if taker.side == Side.BUY else reversed(half):
        if not reaches(taker, price) or not in_exec_band(s, taker.market, price):
            return False
        queue = deque((maker, maker.shown, maker.leaves) for maker in half[price].values())
        while queue:
            maker, shown, leaves = queue.popleft()
            if fills == s.limits.max_fills_per_command:
                return False
            fills += 1
            if _are_one(s, taker, maker):
                if taker.stp != SelfTrade.CANCEL_OLDEST:
                    return False
                continue
            need -= shown
            if need <= 0:
                return True
            if leaves > shown:
                queue.append((maker, min(maker.display_size, leaves - shown), leaves - shown))
    return False
