"""Every invariant of the rulebook, section 5, over the whole state."""

from __future__ import annotations

from collections import Counter

from engine.messages.codes import ABSENT, OrderStatus, Overdraft, Phase, Side
from engine.reference.model import Market, State, required_hold
from engine.reference.orders import OLDER_NAMES, hold_asset, pair_hold
from engine.reference.stops import is_met

__all__ = ["audit"]


def audit(s: State) -> None:
    """Raises AssertionError naming what is broken."""
    for market in s.markets:
        _check_market(s, market)
    _check_orders(s)
    _check_balances(s)


def _check_market(s: State, m: Market) -> None:
    bid, ask = m.best(Side.BUY), m.best(Side.SELL)
    if m.phase == Phase.CONTINUOUS:
        assert bid is None or ask is None or bid < ask, f"{m.name!r} is crossed: {bid} {ask}"
    for side in (Side.BUY, Side.SELL):
        for price, level in m.half(side).items():
            joins = [order.join for order in level.values()]
            assert level and joins == sorted(set(joins)), f"{m.name!r} {price}: queue out of order"
            for order in level.values():
                assert order.price == price and s.orders[order.order_id] is order
                assert order.side == side and order.status == OrderStatus.OPEN and order.is_limited
    for order in m.stops.values():
        assert order.status == OrderStatus.WAITING and order.join == 0 and s.orders[order.order_id] is order
        met = m.trade_count and is_met(order, m.last_price)
        assert not (met and m.phase == Phase.CONTINUOUS), f"{m.name!r}: order {order.order_id} should have triggered"
    assert not m.pause_sequence or m.phase in (Phase.HALT, Phase.AUCTION), f"{m.name!r} pauses in phase {m.phase}"
    assert m.phase != Phase.CLOSED or not (m.bids or m.asks or m.stops), f"{m.name!r} is closed, and has orders"


def _check_orders(s: State) -> None:
    for order in s.orders.values():
        assert order.leaves > 0, f"order {order.order_id} has no leaves"
        assert s.accounts[order.account].orders[order.order_id] is order
        if order.display_size != ABSENT:
            assert 0 < order.shown <= min(order.display_size, order.leaves), f"order {order.order_id}: {order.shown}"
        assert len(order.client_ids) <= 1 + OLDER_NAMES, f"order {order.order_id} has {len(order.client_ids)} names"
        for client_id in order.client_ids:
            assert s.ids[order.account, client_id].order is order, f"{client_id!r} does not answer for its order"
        partner = order.partner
        if partner is not None:
            assert partner.partner is order and s.orders[partner.order_id] is partner
            assert (partner.account, partner.market, partner.side) == (order.account, order.market, order.side)
            assert {order.status, partner.status} == {OrderStatus.OPEN, OrderStatus.WAITING}
    standing = sum(len(level) for m in s.markets for half in (m.bids, m.asks) for level in half.values())
    standing += sum(len(m.stops) for m in s.markets)
    of_accounts = sum(len(owner.orders) for owner in s.accounts)
    assert standing == len(s.orders) == of_accounts, f"{standing} in books and waiting, {len(s.orders)} orders"
    older = sum(len(order.client_ids) - 1 for order in s.orders.values())
    assert older == len(s.ids) - len(s.closed) - len(s.orders) <= s.limits.orders, f"{older} older names"
    for remembered in (s.closed.values(), *(owner.closed.values() for owner in s.accounts)):
        closings = [entry.closing for entry in remembered]
        assert closings == sorted(set(closings)) and 0 not in closings, "remembered ids out of order"
    poisons = Counter(account for account, _ in s.poisons)
    assert all(owner.poisons == poisons[index] for index, owner in enumerate(s.accounts)), "poisons miscounted"
    for account, client_id in s.poisons:
        assert (account, client_id) not in s.ids, f"{client_id!r} is poisoned, and known"


def _check_balances(s: State) -> None:
    required: dict[tuple[int, int], int] = {}

    def require(account: int, asset: int, amount: int) -> None:
        required[account, asset] = required.get((account, asset), 0) + amount

    for order in s.orders.values():
        if order.partner is None:
            require(order.account, hold_asset(s, order), required_hold(s.markets[order.market], order))
        elif order.order_id < order.partner.order_id:
            require(order.account, hold_asset(s, order), pair_hold(s, order))
    for ref in s.refs.values():
        for move in ref.moves:
            require(move.source, move.asset, move.amount)
    sums = [0] * len(s.assets)
    for key, balance in s.balances.items():
        account, asset = key
        sums[asset] += balance.available + balance.held
        assert balance.held == required.get(key, 0), f"{key}: held {balance.held}, required {required.get(key, 0)}"
        never = s.accounts[account].overdraft == Overdraft.NEVER
        assert not never or balance.available >= 0, f"{key}: available {balance.available}"
    assert not any(sums), f"assets do not sum to zero: {sums}"
