"""place: every check in the order of the rulebook, then `accepted`, then the book or the wait for a trigger.

    duplicate ─▶ account, phase ─▶ fields of the record ─▶ band, room ─▶ partner ─▶ funds and book ─▶ accepted
                 stop, stop_limit ─▶ waits (and runs at once if the last trade meets it)
                 limit in preopen, auction ─▶ rests
                 all else ─▶ matches, then the stops that became due

Nothing is changed before the last check has passed. Worst case: that of matching.
"""

from __future__ import annotations

from types import SimpleNamespace

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    AccountStatus,
    EventKind,
    OrderStatus,
    OrderType,
    Overdraft,
    Phase,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.messages.layout import AccountMask, PlaceFlag
from engine.reference.bands import in_entry_band, in_exec_band
from engine.reference.matching import affordable_lots, reaches
from engine.reference.model import (
    TOTAL_LIMIT,
    Account,
    ClientId,
    Market,
    Order,
    State,
    is_empty,
    reject,
    required_hold,
    unpack,
)
from engine.reference.orders import hold, hold_asset, join_book, pair_hold, wait_for_trigger
from engine.reference.stops import execute_then_stops, is_met, run_stops

__all__ = ["COLLECTING", "CLOSED_TO_ORDERS", "account_refuses", "place", "write_duplicate"]

COLLECTING = (Phase.PREOPEN, Phase.AUCTION)
"""Orders gather without trading."""
CLOSED_TO_ORDERS = (Phase.CANCEL_ONLY, Phase.HALT, Phase.CLOSED)

_STOPS = (OrderType.STOP, OrderType.STOP_LIMIT)
_LIMITS = (OrderType.LIMIT, OrderType.STOP_LIMIT)
_RESTING = (TimeInForce.DEFAULT, TimeInForce.GTC, TimeInForce.GTD)
_AT_ONCE = (TimeInForce.IOC, TimeInForce.FOK)


def place(s: State, record: bytes) -> None:
    head, r = unpack(layout.COMMAND, record), unpack(layout.PLACE, record)
    flags = PlaceFlag(head.flags)
    if r.account >= len(s.accounts):
        return reject(s, RejectCode.UNKNOWN_ACCOUNT, r.account, client_id=r.client_id)
    known = s.ids.get((r.account, r.client_id))
    if known is not None:
        return write_duplicate(s, known)
    partner_id = record[layout.SLOT_BYTES :][:32].rstrip(b"\0") if flags & PlaceFlag.HAS_OCO else None
    order = _checked(s, r, flags, partner_id)
    if isinstance(order, RejectCode):
        return reject(s, order, r.account, client_id=r.client_id)

    # From here on nothing is refused.
    market = s.markets[r.market]
    s.balance(order.account, market.base)
    s.balance(order.account, market.quote)
    s.ids[order.account, r.client_id] = ClientId(order.order_id, order.account, order.market, r.client_id, order)
    taken = _newly_held(s, order)
    if order.partner is not None:
        order.partner.partner = order
    s.emit(
        layout.ACCEPTED, EventKind.ACCEPTED, account=order.account, market=order.market, order_id=order.order_id,
        client_id=r.client_id, price=r.price, size=r.size, hold=taken, stop_price=r.stop_price,
        display_size=r.display_size, expires_at=r.expires_at, side=order.side, type=order.type, tif=order.tif,
        flags=order.flags,
    )  # fmt: skip
    hold(s, order, taken)
    if order.type in _STOPS:
        wait_for_trigger(s, order)
        if market.trade_count and is_met(order, market.last_price):
            run_stops(s, market, {order.order_id: market.last_price})
    elif market.phase in COLLECTING:
        join_book(s, order)
    else:
        execute_then_stops(s, order)
    return None


def write_duplicate(s: State, known: ClientId) -> None:
    """The answer to an id that is known, with what became of its order so far."""
    order = known.order
    s.emit(
        layout.DUPLICATE, EventKind.DUPLICATE, account=known.account, market=known.market, order_id=known.order_id,
        text=known.client_id, status=known.status if order is None else order.status,
        filled=known.filled if order is None else order.filled,
    )  # fmt: skip


def account_refuses(account: Account) -> RejectCode | None:
    """Why an account may neither place nor replace."""
    if account.status == AccountStatus.FROZEN:
        return RejectCode.FROZEN
    if account.status == AccountStatus.CANCEL_ONLY:
        return RejectCode.CANCEL_ONLY
    return RejectCode.KILLED if account.killed else None


# ---------------------------------------------------------------- checks


def _checked(s: State, r: SimpleNamespace, flags: PlaceFlag, partner_id: bytes | None) -> RejectCode | Order:
    """The checks after unknown_account and duplicate: the first reason that holds, or the order."""
    account = s.accounts[r.account]
    if (r.account, r.client_id) in s.poisons:
        return RejectCode.POISONED
    if r.market >= len(s.markets):
        return RejectCode.UNKNOWN_MARKET
    market = s.markets[r.market]
    reason = account_refuses(account) or _check_phase(r, market)
    if reason is not None:
        return reason
    if r.side > Side.SELL or r.stp > SelfTrade.NONE or account.overdraft != Overdraft.NEVER or is_empty(r.client_id):
        return RejectCode.BAD_VALUE
    reason = _check_type(r, flags) or _check_numbers(s, r, flags, market)
    if reason is not None:
        return reason
    if r.type in _LIMITS and not in_entry_band(market, r.price):
        return RejectCode.BAND
    if _too_many(s, r, account):
        return RejectCode.TOO_MANY_ORDERS
    order = _order(s, r, flags)
    if partner_id is not None:
        order.partner = _partner(s, order, partner_id)
        if order.partner is None:
            return RejectCode.BAD_OCO
    return _check_book(s, order) or order


def _check_phase(r: SimpleNamespace, market: Market) -> RejectCode | None:
    at_once = r.type == OrderType.MARKET or (r.type == OrderType.LIMIT and r.tif in _AT_ONCE)
    refused = market.phase in CLOSED_TO_ORDERS or (market.phase in COLLECTING and at_once)
    return RejectCode.PHASE if refused else None


def _check_type(r: SimpleNamespace, flags: PlaceFlag) -> RejectCode | None:
    """bad_type and bad_tif."""
    if r.type not in (OrderType.LIMIT, OrderType.MARKET, OrderType.STOP, OrderType.STOP_LIMIT):
        return RejectCode.BAD_TYPE
    if flags & PlaceFlag.POST_ONLY and r.type != OrderType.LIMIT:
        return RejectCode.BAD_TYPE
    if flags & PlaceFlag.HAS_OCO and r.type == OrderType.MARKET:
        return RejectCode.BAD_TYPE
    if flags & PlaceFlag.BUDGET and r.stp == SelfTrade.DECREMENT:
        return RejectCode.BAD_TYPE
    allowed: tuple[TimeInForce, ...] = _RESTING
    if r.type == OrderType.MARKET:
        allowed = (TimeInForce.DEFAULT, TimeInForce.IOC)
    elif r.type in _LIMITS:
        allowed = (*_RESTING, *_AT_ONCE)
    if r.tif not in allowed:
        return RejectCode.BAD_TIF
    if r.type == OrderType.LIMIT and r.tif in _AT_ONCE and flags & (PlaceFlag.POST_ONLY | PlaceFlag.HAS_OCO):
        return RejectCode.BAD_TIF
    return None


def _check_numbers(s: State, r: SimpleNamespace, flags: PlaceFlag, market: Market) -> RejectCode | None:
    """bad_price … bad_expiry: what can be said without looking at book and balances."""
    if not (1 <= r.price <= market.max_price if r.type in _LIMITS else r.price == ABSENT):
        return RejectCode.BAD_PRICE
    if flags & (PlaceFlag.NO_SIZE | PlaceFlag.BOTH_SIZES):
        return RejectCode.BAD_SIZE
    if flags & PlaceFlag.BUDGET:
        if r.type in _LIMITS or r.side == Side.SELL or not 1 <= r.size <= TOTAL_LIMIT:
            return RejectCode.BAD_SIZE
    elif not market.min_size <= r.size <= market.max_size:
        return RejectCode.BAD_SIZE
    if r.display_size != ABSENT:
        rests = r.type == OrderType.LIMIT and r.tif in _RESTING
        if not rests or not market.min_size <= r.display_size < r.size <= 1000 * r.display_size:
            return RejectCode.BAD_DISPLAY
    if not (1 <= r.stop_price <= market.max_price if r.type in _STOPS else r.stop_price == ABSENT):
        return RejectCode.BAD_STOP
    if not (r.expires_at > s.time if r.tif == TimeInForce.GTD else r.expires_at == ABSENT):
        return RejectCode.BAD_EXPIRY
    return None


def _too_many(s: State, r: SimpleNamespace, account: Account) -> bool:
    if len(s.orders) >= s.limits.orders:
        return True
    stays = r.type in _STOPS or (r.type == OrderType.LIMIT and r.tif in _RESTING)
    limited = account.mask & AccountMask.MAX_OPEN_ORDERS
    return bool(stays and limited and len(account.orders) >= account.max_open_orders)


def _order(s: State, r: SimpleNamespace, flags: PlaceFlag) -> Order:
    market, account = s.markets[r.market], s.accounts[r.account]
    return Order(
        order_id=s.sequence, account=r.account, market=r.market, client_ids=[r.client_id], side=r.side, type=r.type,
        tif=r.tif or (TimeInForce.IOC if r.type == OrderType.MARKET else TimeInForce.GTC),
        flags=flags & (PlaceFlag.POST_ONLY | PlaceFlag.BUDGET), stp=r.stp, price=r.price, size=r.size, leaves=r.size,
        taker_ppm=account.taker_ppm if account.mask & AccountMask.TAKER_PPM else market.taker_ppm,
        maker_ppm=account.maker_ppm if account.mask & AccountMask.MAKER_PPM else market.maker_ppm,
        session=r.session, budget=bool(flags & PlaceFlag.BUDGET), stop_price=r.stop_price,
        display_size=r.display_size, expires_at=r.expires_at,
    )  # fmt: skip


def _partner(s: State, order: Order, client_id: bytes) -> Order | None:
    """The order to pair with: one of the two is an open limit, the other a waiting stop or stop_limit."""
    entry = s.ids.get((order.account, client_id))
    partner = None if entry is None else entry.order
    if partner is None or partner.partner is not None:
        return None
    if (partner.market, partner.side) != (order.market, order.side):
        return None
    if order.type == OrderType.LIMIT:
        return partner if partner.status == OrderStatus.WAITING else None
    return partner if partner.type == OrderType.LIMIT else None


def _newly_held(s: State, order: Order) -> int:
    """What accepting the order takes: of a pair only what its partner does not hold already."""
    partner = 0 if order.partner is None else required_hold(s.markets[order.market], order.partner)
    return pair_hold(s, order) - partner


def _check_book(s: State, order: Order) -> RejectCode | None:
    """insufficient_funds … busy: against balances and book."""
    market = s.markets[order.market]
    best = market.best(1 - order.side)
    if _newly_held(s, order) > s.available(order.account, hold_asset(s, order)):
        return RejectCode.INSUFFICIENT_FUNDS
    buys_now = order.type == OrderType.MARKET and order.side == Side.BUY
    if buys_now and best is not None and in_exec_band(s, order.market, best) and not affordable_lots(s, order, best):
        return RejectCode.INSUFFICIENT_FUNDS
    crosses = best is not None and reaches(order, best)
    if order.flags & PlaceFlag.POST_ONLY and crosses and market.phase == Phase.CONTINUOUS:
        return RejectCode.WOULD_CROSS
    if order.type == OrderType.MARKET and best is None:
        return RejectCode.NO_LIQUIDITY
    fresh = sum((order.account, asset) not in s.balances for asset in (market.base, market.quote))
    if not s.has_balance_room(fresh):
        return RejectCode.BUSY
    return None
