"""Phases and the auction: phase, uncross, the indicative price, and what a tick does with a pause.

    halt, auction, preopen ─ uncross ─▶ uncrossed ─▶ its fills, all at one price ─▶ continuous ─▶ stops
    any phase ─ phase ─▶ any phase; to continuous only with a book that is not crossed
    continuous ─ exec band ─▶ halt ─ tick ─▶ auction ─ tick ─▶ uncross

Nothing here counts as a fill of the command but what the stops do. Worst case: linear in the orders that cross.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    Aggressor,
    CancelReason,
    EventKind,
    OrderStatus,
    Phase,
    PhaseReason,
    RejectCode,
    Side,
)
from engine.reference.bands import change_phase, pause
from engine.reference.model import Market, Order, State, reject, unpack
from engine.reference.money import begin_ref, has_ref_room, keep_ref
from engine.reference.orders import cancel_order, close, leave_book, refresh
from engine.reference.stops import run_met_by_last_trade
from engine.reference.trade import cancel_partners, trade

__all__ = ["Clearing", "clearing", "end_pause", "phase", "uncross"]


class Clearing(NamedTuple):
    """Where an uncross would trade. price: ticks, None if the book is not crossed; imbalance: buy minus sell, lots."""

    price: int | None
    size: int = 0
    imbalance: int = 0


class _Segment(NamedTuple):
    """Ticks `low` … `high` at which the same orders would trade."""

    low: int
    high: int
    bought: int
    sold: int

    @property
    def volume(self) -> int:
        return min(self.bought, self.sold)

    @property
    def imbalance(self) -> int:
        return self.bought - self.sold


# ---------------------------------------------------------------- the price


def clearing(market: Market) -> Clearing:
    """The price that an uncross would find now: each tick from the lowest ask to the highest bid is weighed."""
    segments = _segments(market)
    if not segments:
        return Clearing(None)
    volume = max(segment.volume for segment in segments)
    segments = [segment for segment in segments if segment.volume == volume]
    least = min(abs(segment.imbalance) for segment in segments)
    segments = [segment for segment in segments if abs(segment.imbalance) == least]
    if all(segment.imbalance > 0 for segment in segments):
        price, chosen = segments[-1].high, segments[-1]
    elif all(segment.imbalance < 0 for segment in segments):
        price, chosen = segments[0].low, segments[0]
    else:
        reference = 0 if market.band_reference == ABSENT else market.band_reference  # nearest to 0 is the lowest
        nearest = [(_clamp(reference, segment), segment) for segment in segments]
        price, chosen = min(nearest, key=lambda choice: (abs(choice[0] - reference), choice[0]))
    return Clearing(price, volume, chosen.imbalance)


def _clamp(price: int, segment: _Segment) -> int:
    return max(segment.low, min(price, segment.high))


def _segments(market: Market) -> list[_Segment]:
    """All ticks from lowest ask to highest bid, in order; what is bought and sold changes only at an order's price."""
    bid, ask = market.best(Side.BUY), market.best(Side.SELL)
    if bid is None or ask is None or bid < ask:
        return []
    bids = {price: _leaves(market.bids[price]) for price in market.bids.irange(ask)}
    asks = {price: _leaves(market.asks[price]) for price in market.asks.irange(None, bid)}
    starts = sorted({*asks, *(price + 1 for price in bids if price < bid)})
    bought, sold, segments = sum(bids.values()), 0, []
    for low, after in zip(starts, [*starts[1:], bid + 1], strict=True):
        bought -= bids.get(low - 1, 0)
        sold += asks.get(low, 0)
        segments.append(_Segment(low, after - 1, bought, sold))
    return segments


def _leaves(level: dict[int, Order]) -> int:
    return sum(order.leaves for order in level.values())


# ---------------------------------------------------------------- the uncross


def _uncross(s: State, index: int) -> None:
    """Trade all that crosses at one price, then open."""
    m = s.markets[index]
    found = clearing(m)
    s.emit(
        layout.UNCROSSED, EventKind.UNCROSSED, market=index, price=ABSENT if found.price is None else found.price,
        size=found.size, imbalance=found.imbalance,
    )  # fmt: skip
    if found.price is not None:
        while _meets(m, Side.BUY, found.price) and _meets(m, Side.SELL, found.price):
            _fill(s, m, found.price)
        s.exec_references[index] = found.price
    change_phase(s, index, Phase.CONTINUOUS, PhaseReason.UNCROSS)
    run_met_by_last_trade(s, m)


def _meets(m: Market, side: Side, price: int) -> bool:
    """Whether that half has an order left for that price."""
    best = m.best(side)
    return best is not None and (best >= price if side == Side.BUY else best <= price)


def _fill(s: State, m: Market, price: int) -> None:
    """The best bid trades with the best ask. The older order is the maker; both pay as makers, but get no rebate."""
    maker, taker = sorted((_first(m, Side.BUY), _first(m, Side.SELL)), key=lambda order: order.order_id)
    size = min(maker.leaves, taker.leaves)
    for order in (maker, taker):
        order.displayed -= size
    partners = trade(s, maker, taker, price, size, Aggressor.NONE, max(0, maker.maker_ppm), max(0, taker.maker_ppm))
    if taker.leaves == 0:
        leave_book(s, taker)
        close(s, taker, OrderStatus.FILLED)
    for order in (maker, taker):
        if order.leaves > 0 and order.shown <= 0:
            refresh(s, order, in_place=True)
    cancel_partners(s, partners)


def _first(m: Market, side: Side) -> Order:
    """The first order of the best level."""
    best = m.best(side)
    assert best is not None
    order: Order = next(iter(m.half(side)[best].values()))
    return order


# ---------------------------------------------------------------- commands and pauses


def phase(s: State, record: bytes) -> None:
    begun = begin_ref(s, record)
    if begun is None:
        return None
    ref, not_after = begun
    r = unpack(layout.PHASE, record)
    reason = _check_phase(s, r.market, r.phase, r.reference_price)
    if reason is None and not has_ref_room(s, ref):
        reason = RejectCode.BUSY
    if reason is not None:
        return reject(s, reason, ref=ref)

    # From here on nothing is refused.
    m = s.markets[r.market]
    if ref is not None:
        keep_ref(s, record, ref, not_after)
    if r.reference_price != ABSENT:
        m.band_reference = r.reference_price
    change_phase(s, r.market, Phase(r.phase), PhaseReason.COMMAND)
    if m.phase == Phase.CLOSED:
        for _, order in sorted(s.orders.items()):
            if order.market == r.market:
                cancel_order(s, order, CancelReason.CLOSED)
    if m.phase == Phase.CONTINUOUS:
        run_met_by_last_trade(s, m)
    return None


def _check_phase(s: State, market: int, phase: int, reference_price: int) -> RejectCode | None:
    if market >= len(s.markets):
        return RejectCode.UNKNOWN_MARKET
    m = s.markets[market]
    if phase > max(Phase) or (reference_price != ABSENT and not 1 <= reference_price <= m.max_price):
        return RejectCode.BAD_VALUE
    bid, ask = m.best(Side.BUY), m.best(Side.SELL)
    if phase == Phase.CONTINUOUS and bid is not None and ask is not None and bid >= ask:
        return RejectCode.CROSSED
    return None


def uncross(s: State, record: bytes) -> None:
    market = unpack(layout.PHASE, record).market
    if market >= len(s.markets):
        return reject(s, RejectCode.UNKNOWN_MARKET)
    if s.markets[market].phase not in (Phase.PREOPEN, Phase.AUCTION):
        return reject(s, RejectCode.PHASE)
    # From here on nothing is refused.
    return _uncross(s, market)


def end_pause(s: State, market: int) -> None:
    """A pause is due: the halt becomes an auction for as long again, the auction uncrosses."""
    if s.markets[market].phase == Phase.HALT:
        pause(s, market, Phase.AUCTION, PhaseReason.PAUSE)
    else:
        _uncross(s, market)
