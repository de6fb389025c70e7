"""The life of an order: what it holds, where it stands, how it ends, and which ids answer for it.

    accepted ─▶ waiting (a stop) ─▶ triggered ─▶ taker ─▶ resting ─▶ filled or canceled
           └───────────────────────────────────────┘

`State.orders` and `Account.orders` have what waits or rests; a book level only what rests. A pair of orders (oco)
holds the larger of their two holds, so what one of them gives back depends on the other.
"""

from __future__ import annotations

from engine.messages import layout
from engine.messages.codes import ABSENT, CancelReason, EventKind, OrderStatus, Side
from engine.reference.model import Account, Order, State, required_hold

__all__ = [
    "OLDER_NAMES", "cancel_account", "cancel_order", "close", "has_name_room", "hold", "hold_asset", "join_book",
    "leave_book", "pair_hold", "refresh", "unpair", "wait_for_trigger",
]  # fmt: skip

OLDER_NAMES = 100
"""Client ids an order may have had before its newest."""


# ---------------------------------------------------------------- holds and pairs


def hold_asset(s: State, order: Order) -> int:
    """What the order pays with: base of a sell, quote of a buy."""
    market = s.markets[order.market]
    return market.base if order.side == Side.SELL else market.quote


def hold(s: State, order: Order, amount: int) -> None:
    """From available to held; a negative amount goes back."""
    balance = s.balance(order.account, hold_asset(s, order))
    balance.available -= amount
    balance.held += amount


def pair_hold(s: State, order: Order) -> int:
    """What the order and its partner hold together; alone, what it holds itself."""
    market = s.markets[order.market]
    own = required_hold(market, order)
    return own if order.partner is None else max(own, required_hold(market, order.partner))


def unpair(s: State, order: Order) -> tuple[Order, int] | None:
    """The pair ends: the partner, and what the pair held beyond the order's own hold. None if it has no partner."""
    partner = order.partner
    if partner is None:
        return None
    excess = pair_hold(s, order) - required_hold(s.markets[order.market], order)
    order.partner = partner.partner = None
    return partner, excess


# ---------------------------------------------------------------- where it stands


def _index(s: State, order: Order) -> None:
    s.orders[order.order_id] = order
    s.accounts[order.account].orders[order.order_id] = order


def wait_for_trigger(s: State, order: Order) -> None:
    """A stop waits: in no book."""
    order.status = OrderStatus.WAITING
    s.markets[order.market].stops[order.order_id] = order
    _index(s, order)


def join_book(s: State, order: Order) -> None:
    """To the back of its level; an iceberg shows a new slice."""
    order.join = s.sequence * 2**20 + s.joins
    s.joins += 1
    if order.display_size != ABSENT:
        order.displayed = min(order.display_size, order.leaves)
    s.markets[order.market].half(order.side).setdefault(order.price, {})[order.order_id] = order
    _index(s, order)


def leave_book(s: State, order: Order) -> None:
    half = s.markets[order.market].half(order.side)
    del half[order.price][order.order_id]
    if not half[order.price]:
        del half[order.price]


def refresh(s: State, order: Order, *, in_place: bool = False) -> None:
    """An iceberg whose slice is used up shows the next one, at the back of its level unless `in_place`."""
    if in_place:
        order.displayed = min(order.display_size, order.leaves)
    else:
        leave_book(s, order)
        join_book(s, order)
    s.emit(
        layout.REFRESHED, EventKind.REFRESHED, account=order.account, market=order.market, order_id=order.order_id,
        display_size=order.displayed,
    )  # fmt: skip


# ---------------------------------------------------------------- the end


def cancel_order(s: State, order: Order, reason: CancelReason, released: int | None = None) -> None:
    """What is left ends, wherever it stands; a partner stands alone from now on.

    released: what the order of an ended pair gives back, where the caller knows it.
    """
    if released is None:
        released = pair_hold(s, order)
        pair = unpair(s, order)
        if pair is not None:
            released -= required_hold(s.markets[order.market], pair[0])
    s.emit(
        layout.CANCELED, EventKind.CANCELED, account=order.account, market=order.market, reason=reason,
        order_id=order.order_id, client_id=order.client_ids[-1], leaves=order.leaves, released=released,
    )  # fmt: skip
    hold(s, order, -released)
    if order.order_id in s.markets[order.market].half(order.side).get(order.price, {}):
        leave_book(s, order)
    close(s, order, OrderStatus.CANCELED)


def cancel_account(s: State, account: int, reason: CancelReason) -> None:
    """All its orders, open and waiting, by order id."""
    for _, order in sorted(s.accounts[account].orders.items()):
        cancel_order(s, order, reason)


def close(s: State, order: Order, status: OrderStatus) -> None:
    """Its ids are remembered, oldest first; what falls out of either queue is forgotten."""
    s.orders.discard(order.order_id)
    s.markets[order.market].stops.pop(order.order_id, None)
    owner = s.accounts[order.account]
    owner.orders.pop(order.order_id, None)
    for client_id in order.client_ids:
        entry = s.ids[order.account, client_id]
        entry.order, entry.status, entry.filled, entry.closing = None, status, order.filled, _next_closing(s)
        owner.closed[client_id] = s.closed[order.account, client_id] = entry
        if len(owner.closed) > s.limits.client_ids_per_account:
            _forget(s, order.account, owner, next(iter(owner.closed)))
        if len(s.closed) > s.limits.client_ids_total:
            account, oldest = next(iter(s.closed))
            _forget(s, account, s.accounts[account], oldest)


def _next_closing(s: State) -> int:
    """Of the sequence and of how many ids closed before in the command, and always larger than the last one."""
    first = s.sequence * 2**20
    return max(first, next(reversed(s.closed.values())).closing + 1) if s.closed else first


def _forget(s: State, account: int, owner: Account, client_id: bytes) -> None:
    del owner.closed[client_id], s.closed[account, client_id], s.ids[account, client_id]


def has_name_room(s: State, order: Order) -> bool:
    """Whether the order may take a new name: it keeps its older ones, and so does every other order."""
    return len(order.client_ids) <= OLDER_NAMES and len(s.ids) - len(s.closed) - len(s.orders) < s.limits.orders
