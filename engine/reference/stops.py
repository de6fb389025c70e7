"""Waiting stops: which a trade meets, and running them one by one.

A stop is due when a trade of another order's own matching meets it. Due stops run in `continuous` only; those still due
when the market leaves it simply wait on, for the last trade decides anew when it opens.
"""

from __future__ import annotations

from engine.messages import layout
from engine.messages.codes import CancelReason, EventKind, OrderStatus, Phase, Side
from engine.reference.matching import execute
from engine.reference.model import Market, Order, State
from engine.reference.orders import cancel_order, unpair

__all__ = ["execute_then_stops", "is_met", "run_met_by_last_trade", "run_stops"]


def is_met(stop: Order, price: int) -> bool:
    """Whether a trade at that price triggers it."""
    return price >= stop.stop_price if stop.side == Side.BUY else price <= stop.stop_price


def execute_then_stops(s: State, taker: Order) -> None:
    """An order's own matching, then the stops that it made due."""
    run_stops(s, s.markets[taker.market], _touched(s.markets[taker.market], execute(s, taker)))


def run_met_by_last_trade(s: State, market: Market) -> None:
    """Continuous trading opens: the last trade counts."""
    if market.trade_count:
        run_stops(s, market, _touched(market, (market.last_price, market.last_price)))


def run_stops(s: State, market: Market, due: dict[int, int]) -> None:
    """Run due stops (order id → trigger price) and those that their trades make due, in the order of the rulebook."""
    while due and market.phase == Phase.CONTINUOUS:
        stop = _next(market, due)
        trigger_price = due.pop(stop.order_id)
        # What is due already keeps its trigger price; what was cancelled meanwhile (oco) is gone.
        due = _touched(market, _run(s, stop, trigger_price)) | due
        due = {order_id: price for order_id, price in due.items() if order_id in market.stops}


def _touched(market: Market, traded: tuple[int, int] | None) -> dict[int, int]:
    """Waiting stops that trades between two prices meet, and each one's trigger price."""
    if traded is None:
        return {}
    low, high = traded
    return {
        stop.order_id: price
        for stop in market.stops.values()
        if is_met(stop, price := high if stop.side == Side.BUY else low)
    }


def _next(market: Market, due: dict[int, int]) -> Order:
    """The lower buy or the higher sell stop price first, then the older; between a buy and a sell the older."""
    stops = [market.stops[order_id] for order_id in due]
    buys = [(stop.stop_price, stop.order_id) for stop in stops if stop.side == Side.BUY]
    sells = [(-stop.stop_price, stop.order_id) for stop in stops if stop.side == Side.SELL]
    return market.stops[min(min(half)[1] for half in (buys, sells) if half)]


def _run(s: State, stop: Order, trigger_price: int) -> tuple[int, int] | None:
    """A stop becomes a market order, a stop_limit a limit order; it is never refused, but may end at once."""
    s.emit(
        layout.TRIGGERED, EventKind.TRIGGERED, account=stop.account, market=stop.market, order_id=stop.order_id,
        stop_price=stop.stop_price, trigger_price=trigger_price, trigger_sequence=s.sequence,
    )  # fmt: skip
    stop.status = OrderStatus.OPEN
    del s.markets[stop.market].stops[stop.order_id]
    pair = unpair(s, stop)
    if pair is not None:
        partner, excess = pair
        cancel_order(s, partner, CancelReason.OCO, excess)
    return execute(s, stop)
