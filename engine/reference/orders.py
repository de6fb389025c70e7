"""Orders: checks in the order of the rulebook, then matching by price and time, fees, holds, self-trade prevention."""

from __future__ import annotations

from types import SimpleNamespace

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    NIL,
    AccountStatus,
    CancelReason,
    EventKind,
    OrderStatus,
    OrderType,
    Overdraft,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.messages.layout import AccountMask, OrderFlag, PlaceFlag
from engine.reference.model import (
    FEES,
    MILLION,
    TOTAL_LIMIT,
    Account,
    ClientId,
    Market,
    Order,
    State,
    ceil_ppm,
    reject,
    required_hold,
    unpack,
)

__all__ = ["cancel", "cancel_account", "mass_cancel", "place", "replace"]


# ---------------------------------------------------------------- place


def place(s: State, record: bytes) -> None:
    head, r = unpack(layout.COMMAND, record), unpack(layout.PLACE, record)
    flags = PlaceFlag(head.flags)
    if r.account >= len(s.accounts):
        return reject(s, RejectCode.UNKNOWN_ACCOUNT, r.account, client_id=r.client_id)
    known = s.ids.get((r.account, r.client_id))
    if known is not None:
        s.emit(
            layout.DUPLICATE, EventKind.DUPLICATE, account=known.account, market=known.market,
            order_id=known.order_id, text=known.client_id, status=known.status,
            filled=known.filled if known.order is None else known.order.filled,
        )  # fmt: skip
        return None
    reason = _check_place(s, r, flags)
    if isinstance(reason, RejectCode):
        return reject(s, reason, r.account, client_id=r.client_id)

    # From here on nothing is refused.
    order, market = reason, s.markets[r.market]
    s.balance(order.account, market.base)
    s.balance(order.account, market.quote)
    s.ids[order.account, r.client_id] = ClientId(order.order_id, order.account, order.market, r.client_id, order)
    hold = required_hold(market, order)
    s.emit(
        layout.ACCEPTED, EventKind.ACCEPTED, account=order.account, market=order.market, order_id=order.order_id,
        client_id=r.client_id, price=r.price, size=r.size, hold=hold, stop_price=ABSENT, display_size=ABSENT,
        expires_at=ABSENT, side=order.side, type=order.type, tif=order.tif,
        flags=flags & (PlaceFlag.POST_ONLY | PlaceFlag.BUDGET),
    )  # fmt: skip
    _hold(s, order, hold)
    if order.tif == TimeInForce.FOK and not _fills_wholly(s, order):
        return _cancel_order(s, order, CancelReason.FOK)
    return _match_then_rest(s, order)


def _check_place(s: State, r: SimpleNamespace, flags: PlaceFlag) -> RejectCode | Order:
    """The checks after unknown_account and duplicate: the first reason that holds, or the order."""
    if r.market >= len(s.markets):
        return RejectCode.UNKNOWN_MARKET
    market, account = s.markets[r.market], s.accounts[r.account]
    if account.status == AccountStatus.FROZEN:
        return RejectCode.FROZEN
    if account.status == AccountStatus.CANCEL_ONLY:
        return RejectCode.CANCEL_ONLY
    if r.side > Side.SELL or r.stp > SelfTrade.NONE or account.overdraft != Overdraft.NEVER or not r.client_id:
        return RejectCode.BAD_VALUE
    reason = _check_shape(r, flags, market)
    if reason:
        return reason
    tif = r.tif or (TimeInForce.GTC if r.type == OrderType.LIMIT else TimeInForce.IOC)
    limited = account.mask & AccountMask.MAX_OPEN_ORDERS
    if tif == TimeInForce.GTC and limited and len(account.orders) >= account.max_open_orders:
        return RejectCode.TOO_MANY_ORDERS
    if len(s.orders) >= s.limits.orders:
        return RejectCode.TOO_MANY_ORDERS
    if flags & PlaceFlag.HAS_OCO:
        return RejectCode.UNSUPPORTED
    order = Order(
        order_id=s.sequence, account=r.account, market=r.market, client_ids=[r.client_id], side=r.side, type=r.type,
        tif=tif, flags=flags & PlaceFlag.POST_ONLY, stp=r.stp, price=r.price, size=r.size, leaves=r.size,
        taker_ppm=account.taker_ppm if account.mask & AccountMask.TAKER_PPM else market.taker_ppm,
        maker_ppm=account.maker_ppm if account.mask & AccountMask.MAKER_PPM else market.maker_ppm,
        session=r.session, budget=bool(flags & PlaceFlag.BUDGET),
    )  # fmt: skip
    best = market.best(1 - order.side)
    if required_hold(market, order) > s.available(r.account, market.base if r.side == Side.SELL else market.quote):
        return RejectCode.INSUFFICIENT_FUNDS
    market_buy = order.type == OrderType.MARKET and order.side == Side.BUY
    if market_buy and best is not None and _affordable_lots(s, order, best) == 0:
        return RejectCode.INSUFFICIENT_FUNDS
    if order.flags & PlaceFlag.POST_ONLY and best is not None and _reaches(order, best):
        return RejectCode.WOULD_CROSS
    if order.type == OrderType.MARKET and best is None:
        return RejectCode.NO_LIQUIDITY
    fresh = sum((r.account, asset) not in s.balances for asset in (market.base, market.quote))
    if not _has_id_room(s) or not s.has_balance_room(fresh):
        return RejectCode.BUSY
    return order


def _check_shape(r: SimpleNamespace, flags: PlaceFlag, market: Market) -> RejectCode | None:
    """bad_type … bad_expiry: what can be said without looking at book and balances."""
    budget = flags & PlaceFlag.BUDGET
    if r.type in (OrderType.STOP, OrderType.STOP_LIMIT):
        return RejectCode.UNSUPPORTED
    if r.type not in (OrderType.LIMIT, OrderType.MARKET):
        return RejectCode.BAD_TYPE
    if r.type == OrderType.MARKET and flags & (PlaceFlag.POST_ONLY | PlaceFlag.HAS_OCO):
        return RejectCode.BAD_TYPE
    if budget and r.stp == SelfTrade.DECREMENT:
        return RejectCode.BAD_TYPE
    if r.type == OrderType.LIMIT:
        if r.tif == TimeInForce.GTD:
            return RejectCode.UNSUPPORTED
        if r.tif > TimeInForce.FOK:
            return RejectCode.BAD_TIF
        if r.tif in (TimeInForce.IOC, TimeInForce.FOK) and flags & (PlaceFlag.POST_ONLY | PlaceFlag.HAS_OCO):
            return RejectCode.BAD_TIF
        if not 1 <= r.price <= market.max_price:
            return RejectCode.BAD_PRICE
    else:
        if r.tif not in (TimeInForce.DEFAULT, TimeInForce.IOC):
            return RejectCode.BAD_TIF
        if r.price != ABSENT:
            return RejectCode.BAD_PRICE
    if flags & (PlaceFlag.NO_SIZE | PlaceFlag.BOTH_SIZES):
        return RejectCode.BAD_SIZE
    if budget:
        if r.type == OrderType.LIMIT or r.side == Side.SELL or not 1 <= r.size <= TOTAL_LIMIT:
            return RejectCode.BAD_SIZE
    elif not market.min_size <= r.size <= market.max_size:
        return RejectCode.BAD_SIZE
    if r.display_size != ABSENT:
        rests = r.type == OrderType.LIMIT and r.tif in (TimeInForce.DEFAULT, TimeInForce.GTC)
        return RejectCode.UNSUPPORTED if rests else RejectCode.BAD_DISPLAY
    if r.stop_price != ABSENT:
        return RejectCode.BAD_STOP
    if r.expires_at != ABSENT:
        return RejectCode.BAD_EXPIRY
    return None


# ---------------------------------------------------------------- matching


def _reaches(order: Order, price: int) -> bool:
    """Whether the order's limit meets an opposite order at that price."""
    if order.type == OrderType.MARKET:
        return True
    return order.price >= price if order.side == Side.BUY else order.price <= price


def _affordable_lots(s: State, order: Order, price: int) -> int:
    market = s.markets[order.market]
    money = s.available(order.account, market.quote)
    if order.budget:
        money = min(money, order.leaves)
    return (money * MILLION + order.credit) // (MILLION + order.taker_ppm) // (price * market.k)


def _fills_wholly(s: State, taker: Order) -> bool:
    """Whether a fok would really trade all it wants. Nothing changes."""
    market, need, matches = s.markets[taker.market], taker.leaves, 0
    half = market.half(1 - taker.side)
    for price in half if taker.side == Side.BUY else reversed(half):
        if not _reaches(taker, price):
            return False
        for maker in half[price].values():
            if matches == s.limits.max_fills_per_command:
                return False
            matches += 1
            if taker.stp != SelfTrade.NONE and s.group(maker.account) == s.group(taker.account):
                if taker.stp != SelfTrade.CANCEL_OLDEST:
                    return False
                continue
            need -= maker.leaves
            if need <= 0:
                return True
    return False


def _match_then_rest(s: State, taker: Order) -> None:
    """All that follows `accepted`, or `replaced` of an order that lost its place."""
    reason = _match(s, taker)
    if reason is None and taker.leaves == 0:
        return _close(s, taker, OrderStatus.FILLED)
    if reason is None and taker.tif == TimeInForce.GTC:
        taker.join = s.sequence * 2**20 + s.joins
        s.joins += 1
        s.markets[taker.market].half(taker.side).setdefault(taker.price, {})[taker.order_id] = taker
        s.orders[taker.order_id] = taker
        s.accounts[taker.account].orders[taker.order_id] = taker
        return None
    if reason is None:
        reason = CancelReason.MARKET if taker.type == OrderType.MARKET else CancelReason.IOC
    return _cancel_order(s, taker, reason)


def _match(s: State, taker: Order) -> CancelReason | None:
    """Trade until the taker is done, the book is, or a rule ends it; the rule's reason."""
    market = s.markets[taker.market]
    while taker.leaves > 0:
        price = market.best(1 - taker.side)
        if price is None or not _reaches(taker, price):
            return None
        if s.fills == s.limits.max_fills_per_command:
            return CancelReason.FILLS_LIMIT
        maker = next(iter(market.half(1 - taker.side)[price].values()))
        if taker.stp != SelfTrade.NONE and s.group(maker.account) == s.group(taker.account):
            s.fills += 1
            if _prevent(s, taker, maker):
                return CancelReason.STP
            continue
        size = maker.leaves if taker.budget else min(maker.leaves, taker.leaves)
        if taker.type == OrderType.MARKET and taker.side == Side.BUY:
            lots = _affordable_lots(s, taker, price)
            if lots == 0:
                enough = taker.budget and taker.leaves <= s.available(taker.account, market.quote)
                return CancelReason.BUDGET if enough else CancelReason.FUNDS
            size = min(size, lots)
        s.fills += 1
        _trade(s, taker, maker, size)
    return None


def _trade(s: State, taker: Order, maker: Order, size: int) -> None:
    market = s.markets[taker.market]
    notional = maker.price * size * market.k
    market.trade_count += 1
    market.last_price = maker.price
    maker_fee, maker_released = _fill(s, maker, size, notional, maker.maker_ppm)
    taker_fee, taker_released = _fill(s, taker, size, notional, taker.taker_ppm)
    s.balance(FEES, market.quote).available += maker_fee + taker_fee
    s.emit(
        layout.TRADE, EventKind.TRADE, account=maker.account, market=taker.market, taker_account=taker.account,
        aggressor=taker.side, buyer=1 if taker.side == Side.BUY else 0, trade_id=market.trade_count, price=maker.price,
        size=size, notional=notional, maker_order_id=maker.order_id, maker_leaves=maker.leaves, maker_fee=maker_fee,
        taker_order_id=taker.order_id, taker_leaves=taker.leaves, taker_fee=taker_fee,
        released=maker_released + taker_released,
    )  # fmt: skip
    if maker.leaves == 0:
        _leave_book(s, maker)
        _close(s, maker, OrderStatus.FILLED)


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
    if order.type == OrderType.MARKET:
        quote.available -= notional + fee
        return fee, 0
    after = required_hold(market, order)
    released = before - after - notional - fee
    quote.held += after - before
    quote.available += released
    return fee, released


def _prevent(s: State, taker: Order, maker: Order) -> bool:
    """Maker and taker are of one group. True if the taker is ended by it."""
    market = s.markets[taker.market]
    size = maker.leaves if taker.budget else min(maker.leaves, taker.leaves)
    released = {taker.order_id: 0, maker.order_id: 0}
    if taker.stp == SelfTrade.DECREMENT:
        for order in (maker, taker):
            before = required_hold(market, order)
            order.leaves -= size
            order.size -= size
            released[order.order_id] = before - required_hold(market, order)
            _hold(s, order, -released[order.order_id])
    s.emit(
        layout.PREVENTED, EventKind.PREVENTED, account=maker.account, market=taker.market, taker_account=taker.account,
        mode=taker.stp, price=maker.price, size=size, maker_order_id=maker.order_id, maker_leaves=maker.leaves,
        maker_released=released[maker.order_id], taker_order_id=taker.order_id, taker_leaves=taker.leaves,
        taker_released=released[taker.order_id],
    )  # fmt: skip
    if taker.stp in (SelfTrade.CANCEL_OLDEST, SelfTrade.CANCEL_BOTH) or maker.leaves == 0:
        _cancel_order(s, maker, CancelReason.STP)
    return taker.stp in (SelfTrade.CANCEL_NEWEST, SelfTrade.CANCEL_BOTH) or taker.leaves == 0


# ---------------------------------------------------------------- the end of an order


def _hold(s: State, order: Order, amount: int) -> None:
    """From available to held; a negative amount goes back."""
    market = s.markets[order.market]
    balance = s.balance(order.account, market.base if order.side == Side.SELL else market.quote)
    balance.available -= amount
    balance.held += amount


def _leave_book(s: State, order: Order) -> None:
    half = s.markets[order.market].half(order.side)
    del half[order.price][order.order_id]
    if not half[order.price]:
        del half[order.price]


def _cancel_order(s: State, order: Order, reason: CancelReason) -> None:
    """What is left ends, resting or not."""
    released = required_hold(s.markets[order.market], order)
    s.emit(
        layout.CANCELED, EventKind.CANCELED, account=order.account, market=order.market, reason=reason,
        order_id=order.order_id, client_id=order.client_ids[-1], leaves=order.leaves, released=released,
    )  # fmt: skip
    _hold(s, order, -released)
    if order.order_id in s.markets[order.market].half(order.side).get(order.price, {}):
        _leave_book(s, order)
    _close(s, order, OrderStatus.CANCELED)


def _close(s: State, order: Order, status: OrderStatus) -> None:
    """Its ids are remembered, oldest first; what falls out of either queue is forgotten."""
    s.orders.pop(order.order_id, None)
    owner = s.accounts[order.account]
    owner.orders.pop(order.order_id, None)
    for client_id in order.client_ids:
        entry = s.ids[order.account, client_id]
        entry.order, entry.status, entry.filled = None, status, order.filled
        owner.closed[client_id] = s.closed[order.account, client_id] = entry
        if len(owner.closed) > s.limits.client_ids_per_account:
            _forget(s, order.account, owner, next(iter(owner.closed)))
        if len(s.closed) > s.limits.client_ids_total:
            account, oldest = next(iter(s.closed))
            _forget(s, account, s.accounts[account], oldest)


def _forget(s: State, account: int, owner: Account, client_id: bytes) -> None:
    del owner.closed[client_id], s.closed[account, client_id], s.ids[account, client_id]


def _has_id_room(s: State) -> bool:
    return len(s.ids) < s.limits.client_ids_total + 2 * s.limits.orders + 1


# ---------------------------------------------------------------- cancel, mass_cancel, replace


def _named(s: State, r: SimpleNamespace, flags: OrderFlag) -> Order | None:
    """The account's open order that the command names."""
    if flags & OrderFlag.BY_ORDER_ID:
        order = s.orders.get(int.from_bytes(r.client_id[:8], "little"))
        return order if order is not None and order.account == r.account else None
    entry = s.ids.get((r.account, r.client_id))
    return None if entry is None else entry.order


def _reject_named(s: State, r: SimpleNamespace, flags: OrderFlag, reason: RejectCode) -> None:
    if flags:
        return reject(s, reason, r.account, order_id=int.from_bytes(r.client_id[:8], "little"))
    return reject(s, reason, r.account, client_id=r.client_id)


def cancel(s: State, record: bytes) -> None:
    flags, r = OrderFlag(unpack(layout.COMMAND, record).flags), unpack(layout.CANCEL, record)
    if r.account >= len(s.accounts):
        return _reject_named(s, r, flags, RejectCode.UNKNOWN_ACCOUNT)
    if flags & OrderFlag.BOTH_IDS:
        return _reject_named(s, r, flags, RejectCode.BAD_VALUE)
    order = _named(s, r, flags)
    if order is None:
        return _reject_named(s, r, flags, RejectCode.UNKNOWN_ORDER)
    return _cancel_order(s, order, CancelReason.USER)


def cancel_account(s: State, account: int, reason: CancelReason) -> None:
    for _, order in sorted(s.accounts[account].orders.items()):
        _cancel_order(s, order, reason)


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
            _cancel_order(s, order, CancelReason.SESSION if r.session else CancelReason.MASS)
    return None


def replace(s: State, record: bytes) -> None:
    flags, r = OrderFlag(unpack(layout.COMMAND, record).flags), unpack(layout.REPLACE, record)
    if r.account >= len(s.accounts):
        return _reject_named(s, r, flags, RejectCode.UNKNOWN_ACCOUNT)
    if flags & OrderFlag.BOTH_IDS:
        return _reject_named(s, r, flags, RejectCode.BAD_VALUE)
    if r.new_client_id and (r.account, r.new_client_id) in s.ids:
        return _reject_named(s, r, flags, RejectCode.DUPLICATE)
    status = s.accounts[r.account].status
    if status != AccountStatus.ACTIVE:
        frozen = status == AccountStatus.FROZEN
        return _reject_named(s, r, flags, RejectCode.FROZEN if frozen else RejectCode.CANCEL_ONLY)
    order = _named(s, r, flags)
    if order is None:
        return _reject_named(s, r, flags, RejectCode.UNKNOWN_ORDER)
    market = s.markets[order.market]
    price = order.price if r.price == ABSENT else r.price
    size = order.size if r.size == ABSENT else r.size
    reason = _check_replace(s, r, order, price, size)
    if reason:
        return _reject_named(s, r, flags, reason)

    # From here on nothing is refused.
    if r.new_client_id:
        order.client_ids.append(r.new_client_id)
        s.ids[order.account, r.new_client_id] = ClientId(
            order.order_id, order.account, order.market, r.new_client_id, order
        )
    if size <= order.filled:
        return _cancel_order(s, order, CancelReason.REPLACED)
    before = required_hold(market, order)
    kept = price == order.price and size <= order.size
    if not kept:
        _leave_book(s, order)
    order.price, order.leaves, order.size = price, size - order.filled, size
    hold = required_hold(market, order)
    _hold(s, order, hold - before)
    s.emit(
        layout.REPLACED, EventKind.REPLACED, account=order.account, market=order.market, order_id=order.order_id,
        client_id=order.client_ids[-1], price=price, size=size, leaves=order.leaves, hold=hold, released=before - hold,
        priority_kept=kept,
    )  # fmt: skip
    return None if kept else _match_then_rest(s, order)


def _check_replace(s: State, r: SimpleNamespace, order: Order, price: int, size: int) -> RejectCode | None:
    market = s.markets[order.market]
    if r.price == ABSENT and r.size == ABSENT and r.stop_price == ABSENT and not r.new_client_id:
        return RejectCode.BAD_VALUE
    if not 1 <= price <= market.max_price:
        return RejectCode.BAD_PRICE
    if r.size != ABSENT and (size < 1 or (size > order.filled and not market.min_size <= size <= market.max_size)):
        return RejectCode.BAD_SIZE
    if r.stop_price != ABSENT:
        return RejectCode.BAD_STOP
    if size > order.filled:
        before = order.price, order.size, order.leaves
        held = required_hold(market, order)
        order.price, order.leaves, order.size = price, size - order.filled, size
        more = required_hold(market, order) - held
        crosses = order.flags & PlaceFlag.POST_ONLY and (best := market.best(1 - order.side)) is not None and _reaches(
            order, best
        )
        order.price, order.size, order.leaves = before
        if more > s.available(order.account, market.base if order.side == Side.SELL else market.quote):
            return RejectCode.INSUFFICIENT_FUNDS
        if crosses:
            return RejectCode.WOULD_CROSS
    if r.new_client_id and not _has_id_room(s):
        return RejectCode.BUSY
    return None
