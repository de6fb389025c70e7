"""Commands on orders that exist, open or waiting: cancel, mass_cancel, replace.

A replace that fails any check leaves the order as it was, in its place; one that keeps priority never moves it. What
loses its place is a taker again with all its leaves. Worst case: mass_cancel looks at every order there is.
"""

from __future__ import annotations

from types import SimpleNamespace

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    NIL,
    CancelReason,
    EventKind,
    OrderStatus,
    Phase,
    RejectCode,
    Side,
)
from engine.messages.layout import OrderFlag, PlaceFlag
from engine.reference.bands import in_entry_band
from engine.reference.matching import reaches
from engine.reference.model import ClientId, Order, State, is_empty, reject, unpack
from engine.reference.orders import cancel_order, has_name_room, hold, hold_asset, join_book, leave_book, pair_hold
from engine.reference.place import CLOSED_TO_ORDERS, COLLECTING, account_refuses
from engine.reference.stops import execute_then_stops, is_met, run_stops

__all__ = ["cancel", "mass_cancel", "replace"]


def _named(s: State, r: SimpleNamespace, flags: OrderFlag) -> Order | None:
    """The account's open or waiting order that the command names."""
    if flags & OrderFlag.BY_ORDER_ID:
        order = s.orders.get(int.from_bytes(r.client_id[:8], "little"))
        return order if order is not None and order.account == r.account else None
    entry = s.ids.get((r.account, r.client_id))
    return None if entry is None else entry.order


def _reject_named(s: State, r: SimpleNamespace, flags: OrderFlag, reason: RejectCode) -> None:
    if flags & (OrderFlag.BY_ORDER_ID | OrderFlag.BOTH_IDS):
        return reject(s, reason, r.account, order_id=int.from_bytes(r.client_id[:8], "little"))
    return reject(s, reason, r.account, client_id=r.client_id)


# ---------------------------------------------------------------- cancel, mass_cancel


def cancel(s: State, record: bytes) -> None:
    flags, r = OrderFlag(unpack(layout.COMMAND, record).flags), unpack(layout.CANCEL, record)
    if r.account >= len(s.accounts):
        return _reject_named(s, r, flags, RejectCode.UNKNOWN_ACCOUNT)
    if flags & OrderFlag.BOTH_IDS:
        return _reject_named(s, r, flags, RejectCode.BAD_VALUE)
    order = _named(s, r, flags)
    if order is None:
        return _reject_named(s, r, flags, RejectCode.UNKNOWN_ORDER)
    return cancel_order(s, order, CancelReason.USER)


def mass_cancel(s: State, record: bytes) -> None:
    r = unpack(layout.MASS_CANCEL, record)
    account, market = (r.account if r.given & 1 else NIL), (r.market if r.given & 2 else NIL)
    if r.given & 1 and account >= len(s.accounts):
        return reject(s, RejectCode.UNKNOWN_ACCOUNT, account)
    if r.given & 2 and market >= len(s.markets):
        return reject(s, RejectCode.UNKNOWN_MARKET, account)
    if r.side not in (Side.BUY, Side.SELL, 255):
        return reject(s, RejectCode.BAD_VALUE, account)
    # From here on nothing is refused.
    s.emit(layout.EVENT, EventKind.DONE, account=account, market=market)
    for _, order in sorted(s.orders.items()):
        if (
            (not r.given & 1 or order.account == account)
            and (not r.given & 2 or order.market == market)
            and r.side in (255, order.side)
            and r.session in (0, order.session)
        ):
            cancel_order(s, order, CancelReason.SESSION if r.session else CancelReason.MASS)
    return None


# ---------------------------------------------------------------- replace


def replace(s: State, record: bytes) -> None:
    flags, r = OrderFlag(unpack(layout.COMMAND, record).flags), unpack(layout.REPLACE, record)
    order = _checked(s, r, flags)
    if isinstance(order, RejectCode):
        return _reject_named(s, r, flags, order)

    # From here on nothing is refused.
    market = s.markets[order.market]
    waits = order.status == OrderStatus.WAITING
    price, size, stop_price = _terms(r, order)
    if not is_empty(r.new_client_id):
        order.client_ids.append(r.new_client_id)
        s.ids[order.account, r.new_client_id] = ClientId(
            order.order_id, order.account, order.market, r.new_client_id, order
        )
    if size <= order.filled:
        return cancel_order(s, order, CancelReason.REPLACED)
    kept = waits or (price == order.price and size <= order.size)
    if not kept:
        leave_book(s, order)
    before = pair_hold(s, order)
    order.price, order.leaves, order.size, order.stop_price = price, size - order.filled, size, stop_price
    order.displayed = min(order.displayed, order.leaves)
    after = pair_hold(s, order)
    hold(s, order, after - before)
    s.emit(
        layout.REPLACED, EventKind.REPLACED, account=order.account, market=order.market, order_id=order.order_id,
        client_id=order.client_ids[-1], price=price, size=size, leaves=order.leaves, hold=after,
        released=before - after, priority_kept=kept, stop_price=stop_price,
    )  # fmt: skip
    if waits:
        if market.trade_count and is_met(order, market.last_price):
            run_stops(s, market, {order.order_id: market.last_price})
    elif not kept:
        if market.phase in COLLECTING:
            join_book(s, order)
        else:
            execute_then_stops(s, order)
    return None


def _terms(r: SimpleNamespace, order: Order) -> tuple[int, int, int]:
    """Price, total size and stop price as they are to be."""
    return (
        order.price if r.price == ABSENT else r.price,
        order.size if r.size == ABSENT else r.size,
        order.stop_price if r.stop_price == ABSENT else r.stop_price,
    )


def _checked(s: State, r: SimpleNamespace, flags: OrderFlag) -> RejectCode | Order:
    """All checks: the first reason that holds, or the order."""
    if r.account >= len(s.accounts):
        return RejectCode.UNKNOWN_ACCOUNT
    if flags & OrderFlag.BOTH_IDS:
        return RejectCode.BAD_VALUE
    renamed = not is_empty(r.new_client_id)
    if renamed and (r.account, r.new_client_id) in s.ids:
        return RejectCode.DUPLICATE
    if renamed and (r.account, r.new_client_id) in s.poisons:
        return RejectCode.POISONED
    refused = account_refuses(s.accounts[r.account])
    if refused is not None:
        return refused
    order = _named(s, r, flags)
    if order is None:
        return RejectCode.UNKNOWN_ORDER
    if s.markets[order.market].phase in CLOSED_TO_ORDERS:
        return RejectCode.PHASE
    if r.price == ABSENT and r.size == ABSENT and r.stop_price == ABSENT and not renamed:
        return RejectCode.BAD_VALUE
    reason = _check_numbers(s, r, order) or _check_book(s, r, order)
    if reason is None and renamed and not has_name_room(s, order):
        reason = RejectCode.BUSY
    return reason or order


def _check_numbers(s: State, r: SimpleNamespace, order: Order) -> RejectCode | None:
    """bad_price … band."""
    market = s.markets[order.market]
    price, size, _ = _terms(r, order)
    if r.price != ABSENT and not (order.is_limited and 1 <= price <= market.max_price):
        return RejectCode.BAD_PRICE
    if r.size != ABSENT:
        fits = size <= order.filled or market.min_size <= size <= market.max_size
        if order.budget or size < 1 or not fits:
            return RejectCode.BAD_SIZE
        if order.display_size != ABSENT and size > 1000 * order.display_size:
            return RejectCode.BAD_DISPLAY
    takes_stop = order.status == OrderStatus.WAITING and 1 <= r.stop_price <= market.max_price
    if r.stop_price != ABSENT and not takes_stop:
        return RejectCode.BAD_STOP
    if price != order.price and not in_entry_band(market, price):
        return RejectCode.BAND
    return None


def _check_book(s: State, r: SimpleNamespace, order: Order) -> RejectCode | None:
    """insufficient_funds and would_cross: the order as it would be, against balances and book."""
    market = s.markets[order.market]
    price, size, _ = _terms(r, order)
    if size <= order.filled:
        return None
    old, before = (order.price, order.size, order.leaves), pair_hold(s, order)
    order.price, order.size, order.leaves = price, size, size - order.filled
    more, best = pair_hold(s, order) - before, market.best(1 - order.side)
    crosses = best is not None and reaches(order, best)
    order.price, order.size, order.leaves = old
    if more > s.available(order.account, hold_asset(s, order)):
        return RejectCode.INSUFFICIENT_FUNDS
    if order.flags & PlaceFlag.POST_ONLY and crosses and market.phase == Phase.CONTINUOUS:
        return RejectCode.WOULD_CROSS
    return None
