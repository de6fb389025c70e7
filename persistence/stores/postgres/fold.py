"""Events folded into rows: what the projector writes, computed without a database.

Holds the open orders and the balances as of the last event it was given. For orders the core sends no `balance` event:
a reader derives it from `accepted`, `trade`, `canceled`, `replaced` and `prevented`, which is what happens here; money
commands carry the new balances themselves. Whole numbers throughout: prices in ticks, sizes in lots, amounts in units.

Worst case: one batch touches every open order once; memory is the open orders, the balances and one batch of rows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    Aggressor,
    CancelReason,
    CommandKind,
    EventKind,
    OrderStatus,
    OrderType,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.messages.directory import Directory, MarketEntry
from engine.messages.layout import PlaceFlag

__all__ = ["CANDLE_INTERVALS_S", "Candle", "Fold", "Order", "Rows"]

CANDLE_INTERVALS_S = (60, 300, 3600, 86_400)
SYSTEM_FEES = 1

_HEAD = struct.Struct("<QqIIIBBBB")  # sequence, ts, index, account, market, kind, slots, reason, op
_ACCEPTED = struct.Struct("<Q32s6q4B")
_TRADE = struct.Struct("<IBBxxQqqqQqqQqqq")
_CANCELED = struct.Struct("<Q32sqq")
_REPLACED = struct.Struct("<Q32sqqqqqB7xq")
_PREVENTED = struct.Struct("<IB3xqqQqqQqq")
_BALANCE = struct.Struct("<qqB")
_BODY = 32
_BUY = int(Side.BUY)
_HOLDING = (OrderType.LIMIT, OrderType.STOP_LIMIT)


@dataclass(slots=True)
class Order:
    """A row of `exchange.orders`. `leaves`: lots, of a budget order quote units. Times in ns since 1970, UTC."""

    order_id: int
    account: int
    market: int
    client_id: str
    side: int
    type: int
    tif: int
    price: int | None
    stop_price: int | None
    size: int | None
    budget: int | None
    leaves: int
    accepted_at: int
    updated_at: int
    display_size: int | None = None
    expires_at: int | None = None
    filled: int = 0
    fee: int = 0
    status: int = OrderStatus.OPEN
    reason: str | None = None


@dataclass(slots=True)
class Candle:
    """What one batch adds to a candle. Prices in ticks, volume in lots, quote volume in units."""

    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote_volume: int = 0
    trade_count: int = 0


@dataclass(slots=True)
class Rows:
    """What one batch changed."""

    sequence: int = 0
    orders: dict[int, Order] = field(default_factory=dict)
    trades: list[tuple[int | str, ...]] = field(default_factory=list)
    postings: list[tuple[int | str, ...]] = field(default_factory=list)
    balances: dict[tuple[int, int], None] = field(default_factory=dict)
    candles: dict[tuple[int, int, int], Candle] = field(default_factory=dict)
    phases: dict[int, None] = field(default_factory=dict)  # markets whose phase changed
    definitions: dict[int, dict[int, None]] = field(default_factory=dict)
    """Kind of command (asset, market, account) → the indices of what it defined."""
    event_count: int = 0


class Fold:
    """`orders` holds the open ones only; `balances` maps (account, asset) to [available, held]."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.orders: dict[int, Order] = {}
        self.balances: dict[tuple[int, int], list[int]] = {}
        self._rows = Rows()

    def take(self, slots: np.ndarray) -> Rows:
        """Folds whole commands and returns what they changed."""
        self._rows = rows = Rows()
        data = np.ascontiguousarray(slots).data.cast("B")
        at, end = 0, len(data)
        handlers = {
            int(EventKind.ACCEPTED): self._accepted,
            int(EventKind.TRADE): self._trade,
            int(EventKind.CANCELED): self._canceled,
            int(EventKind.REPLACED): self._replaced,
            int(EventKind.TRIGGERED): self._triggered,
            int(EventKind.PREVENTED): self._prevented,
            int(EventKind.BALANCE): self._balance,
            int(EventKind.TRANSFERRED): self._money,
            int(EventKind.POSTED): self._money,
        }
        while at < end:
            head = _HEAD.unpack_from(data, at)
            length = head[6] * 128
            handler = handlers.get(head[5])
            if handler is not None:
                handler(head, data, at + _BODY)
            elif head[5] == EventKind.DONE:
                self._defined(head, data[at : at + length])
            elif head[5] == EventKind.PHASE_CHANGED:
                self.directory.learn(data[at : at + length])
                rows.phases[head[4]] = None
            rows.sequence = head[0]
            rows.event_count += 1
            at += length
        return rows

    # ------------------------------------------------------------------------------------------------------------

    def _defined(self, head: tuple[int, ...], event: memoryview) -> None:
        """Other commands end with `done` too; of those there is nothing to write."""
        if (op := head[8]) in (CommandKind.ASSET, CommandKind.MARKET, CommandKind.ACCOUNT):
            self.directory.learn(event)
            self._rows.definitions.setdefault(op, {})[head[3] if op == CommandKind.ACCOUNT else head[4]] = None

    def _move(self, account: int, asset: int, available: int, held: int) -> None:
        balance = self.balances.setdefault((account, asset), [0, 0])
        balance[0] += available
        balance[1] += held
        self._rows.balances[(account, asset)] = None

    def _market(self, index: int) -> MarketEntry:
        return self.directory.markets[index]

    def _held_asset(self, order: Order) -> int:
        market = self._market(order.market)
        return market.quote.index if order.side == _BUY else market.base.index

    def _release(self, order: Order, amount: int) -> None:
        if amount:
            self._move(order.account, self._held_asset(order), amount, -amount)

    def _close(self, order: Order, status: OrderStatus, reason: str | None) -> None:
        order.status = status
        order.reason = reason
        del self.orders[order.order_id]

    def _accepted(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        (order_id, client_id, price, size, hold, stop_price, display_size, expires_at, side, type_, tif, flags) = (
            _ACCEPTED.unpack_from(data, at)
        )
        is_budget = bool(flags & PlaceFlag.BUDGET)
        waiting = type_ in (OrderType.STOP, OrderType.STOP_LIMIT)
        order = Order(
            order_id, head[3], head[4], client_id.rstrip(b"\0").decode(), side, type_, tif or TimeInForce.GTC,
            _given(price), _given(stop_price), None if is_budget else size, size if is_budget else None, size,
            head[1], head[1], _given(display_size), _given(expires_at),
            status=OrderStatus.WAITING if waiting else OrderStatus.OPEN,
        )  # fmt: skip
        self.orders[order_id] = order
        self._rows.orders[order_id] = order
        self._release(order, -hold)

    def _triggered(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        order = self.orders[int.from_bytes(data[at : at + 8], "little")]
        order.status = OrderStatus.OPEN
        order.updated_at = head[1]
        self._rows.orders[order.order_id] = order

    def _trade(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        (
            taker_account, aggressor, buyer, trade_id, price, size, notional,
            maker_id, maker_leaves, maker_fee, taker_id, taker_leaves, taker_fee, released,
        ) = _TRADE.unpack_from(data, at)  # fmt: skip
        market = self._market(head[4])
        maker, taker = self.orders[maker_id], self.orders[taker_id]
        self._fill(maker, maker_leaves, size, maker_fee, head[1])
        self._fill(taker, taker_leaves, size, taker_fee, head[1])
        bought, sold = (maker, taker) if buyer == 0 else (taker, maker)
        bought_fee, sold_fee = (maker_fee, taker_fee) if buyer == 0 else (taker_fee, maker_fee)
        quote, base, lots = market.quote.index, market.base.index, size * market.u
        if bought.type in _HOLDING:
            self._move(bought.account, quote, released, -(notional + bought_fee + released))
        else:
            self._move(bought.account, quote, -(notional + bought_fee), 0)
        self._move(bought.account, base, lots, 0)
        self._move(sold.account, base, 0, -lots)
        self._move(sold.account, quote, notional - sold_fee, 0)
        if maker_fee + taker_fee:
            self._move(SYSTEM_FEES, quote, maker_fee + taker_fee, 0)
        self._rows.trades.append(
            (
                head[4], trade_id, head[0], head[2], head[1] // 1000, price, size, notional, Aggressor(aggressor).word,
                head[3], maker_id, maker_fee, taker_account, taker_id, taker_fee,
            )
        )  # fmt: skip
        self._tick(head[4], head[1], price, size, notional)

    def _fill(self, order: Order, leaves: int, size: int, fee: int, ts: int) -> None:
        order.leaves = leaves
        order.filled += size
        order.fee += fee
        order.updated_at = ts
        self._rows.orders[order.order_id] = order
        if leaves == 0:
            self._close(order, OrderStatus.FILLED, None)

    def _canceled(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        order_id, _, leaves, released = _CANCELED.unpack_from(data, at)
        order = self.orders[order_id]
        order.leaves = leaves
        order.updated_at = head[1]
        self._rows.orders[order_id] = order
        self._release(order, released)
        self._close(order, OrderStatus.CANCELED, CancelReason(head[7]).word)

    def _replaced(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        order_id, client_id, price, size, leaves, _, released, _, stop_price = _REPLACED.unpack_from(data, at)
        order = self.orders[order_id]
        order.client_id = client_id.rstrip(b"\0").decode()
        order.price, order.stop_price = _given(price), _given(stop_price)
        if order.budget is None:
            order.size = size
        order.leaves = leaves
        order.updated_at = head[1]
        self._rows.orders[order_id] = order
        self._release(order, released)

    def _prevented(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        (_, mode, _, size, maker_id, maker_leaves, maker_released, taker_id, taker_leaves, taker_released) = (
            _PREVENTED.unpack_from(data, at)
        )
        for order_id, leaves, released in (
            (maker_id, maker_leaves, maker_released), (taker_id, taker_leaves, taker_released),
        ):  # fmt: skip
            order = self.orders[order_id]
            order.leaves = leaves
            if mode == SelfTrade.DECREMENT and order.size is not None:
                order.size -= size
            order.updated_at = head[1]
            self._rows.orders[order_id] = order
            self._release(order, released)

    def _balance(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        available, held, _ = _BALANCE.unpack_from(data, at)
        self.balances[(head[3], head[4])] = [available, held]
        self._rows.balances[(head[3], head[4])] = None

    def _money(self, head: tuple[int, ...], data: memoryview, at: int) -> None:
        """Postings that moved money from one account to another; what is held has not moved."""
        slots = np.frombuffer(data[at - _BODY : at - _BODY + head[6] * 128], dtype=layout.EVENT)
        event, first, memo = slots[:1].view(layout.MONEY_EVENT)[0], 1, ""
        if event["has_memo"]:
            memo = slots[1:2].view(layout.MONEY_META)[0]["memo"].decode("ascii")
            first = 2
        ref, code = event["ref"].decode("ascii"), event["code"].decode("ascii")
        for number, leg in enumerate(slots[first:].view(layout.LEG)[: int(event["leg_count"])]):
            self._rows.postings.append(
                (
                    head[0], head[2], number, head[1] // 1000, ref, code, memo, int(leg["asset"]), int(leg["amount"]),
                    int(leg["source"]), int(leg["target"]),
                )
            )  # fmt: skip

    def _tick(self, market: int, ts: int, price: int, size: int, notional: int) -> None:
        for interval in CANDLE_INTERVALS_S:
            key = (market, interval, ts // 1_000_000_000 // interval * interval)
            candle = self._rows.candles.get(key)
            if candle is None:
                candle = self._rows.candles[key] = Candle(price, price, price, price)
            candle.high = max(candle.high, price)
            candle.low = min(candle.low, price)
            candle.close = price
            candle.volume += size
            candle.quote_volume += notional
            candle.trade_count += 1


def _given(value: int) -> int | None:
    return None if value == ABSENT else value
