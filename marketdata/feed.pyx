"""The one pass over the event log: events in, L3, L2 and trades out.

Owns the orders and the depth of every market, and knows the one order that is being matched. Resting is silent in the
event log: what `accepted`, `replaced` or `triggered` left unfilled and not canceled rests when the next order comes to
be matched, or with the end of the command. So state is that of a sequence only between commands, and `apply` takes
whole commands.

Invariants: the depth of a level is the sum of what its resting orders show; sequences never go back.
Never: reads names, formats, sends.
Worst case: that of one level far from the touch; see depth.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from marketdata.depth cimport Depth
from marketdata.orders cimport INCOMING, RESTING, WAITING, Order, Orders
from marketdata.slots cimport (
    AcceptedSlot, CanceledSlot, EventSlot, PreventedSlot, RefreshedSlot, ReplacedSlot, TradeRow, TradeSlot,
)

from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind, OrderType, Phase, SelfTrade
from engine.messages.errors import JournalCorrupt

__all__ = ["Feed", "TRADE_ROW"]

TRADE_ROW = np.dtype(
    [
        ("sequence", "<u8"), ("ts", "<i8"), ("trade_id", "<u8"), ("price", "<i8"), ("size", "<i8"),
        ("notional", "<i8"), ("market", "<u4"), ("aggressor", "u1"), ("pad", "V3"),
    ]
)

cdef int ACCEPTED = EventKind.ACCEPTED
cdef int DONE = EventKind.DONE
cdef int TRADE = EventKind.TRADE
cdef int CANCELED = EventKind.CANCELED
cdef int REPLACED = EventKind.REPLACED
cdef int TRIGGERED = EventKind.TRIGGERED
cdef int REFRESHED = EventKind.REFRESHED
cdef int PREVENTED = EventKind.PREVENTED
cdef int PHASE_CHANGED = EventKind.PHASE_CHANGED
cdef int OP_ASSET = CommandKind.ASSET
cdef int OP_MARKET = CommandKind.MARKET
cdef int LIMIT = OrderType.LIMIT
cdef int STOP = OrderType.STOP
cdef int STOP_LIMIT = OrderType.STOP_LIMIT
cdef int DECREMENT = SelfTrade.DECREMENT
cdef int DONE_PHASE_AT = layout.DONE_MARKET.fields["phase"][1] - 32
cdef int MARKETS_MAX = 1 << 20


def _check_layout():
    """The C structs against the published dtypes."""
    cdef EventSlot e
    cdef AcceptedSlot a
    cdef TradeSlot t
    cdef CanceledSlot c
    cdef ReplacedSlot r
    cdef RefreshedSlot f
    cdef PreventedSlot p
    assert sizeof(EventSlot) == sizeof(AcceptedSlot) == sizeof(TradeSlot) == layout.SLOT_BYTES
    assert sizeof(CanceledSlot) == sizeof(ReplacedSlot) == sizeof(RefreshedSlot) == layout.SLOT_BYTES
    assert sizeof(PreventedSlot) == layout.SLOT_BYTES and sizeof(TradeRow) == TRADE_ROW.itemsize
    for dtype, name, offset in (
        (layout.EVENT, "market", <char*> &e.market - <char*> &e), (layout.EVENT, "kind", <char*> &e.kind - <char*> &e),
        (layout.EVENT, "op", <char*> &e.op - <char*> &e),
        (layout.ACCEPTED, "order_id", <char*> &a.order_id - <char*> &a),
        (layout.ACCEPTED, "price", <char*> &a.price - <char*> &a),
        (layout.ACCEPTED, "display_size", <char*> &a.display_size - <char*> &a),
        (layout.ACCEPTED, "side", <char*> &a.side - <char*> &a), (layout.ACCEPTED, "type", <char*> &a.type - <char*> &a),
        (layout.TRADE, "aggressor", <char*> &t.aggressor - <char*> &t),
        (layout.TRADE, "trade_id", <char*> &t.trade_id - <char*> &t),
        (layout.TRADE, "maker_order_id", <char*> &t.maker_order_id - <char*> &t),
        (layout.TRADE, "taker_leaves", <char*> &t.taker_leaves - <char*> &t),
        (layout.CANCELED, "leaves", <char*> &c.leaves - <char*> &c),
        (layout.REPLACED, "leaves", <char*> &r.leaves - <char*> &r),
        (layout.REPLACED, "priority_kept", <char*> &r.priority_kept - <char*> &r),
        (layout.REFRESHED, "display_size", <char*> &f.display_size - <char*> &f),
        (layout.PREVENTED, "mode", <char*> &p.mode - <char*> &p),
        (layout.PREVENTED, "taker_leaves", <char*> &p.taker_leaves - <char*> &p),
    ):
        assert dtype.fields[name][1] == offset, (name, offset, dtype.fields[name])


_check_layout()


cdef class Feed:
    """Books and trades as of `sequence`. `ts` is the journal's time then (ns since 1970, UTC)."""

    cdef readonly Orders orders
    cdef readonly list depths
    cdef readonly list phases
    cdef readonly uint64_t sequence
    cdef readonly int64_t ts
    cdef readonly uint64_t event_count
    cdef uint64_t active
    cdef TradeRow* trades
    cdef Py_ssize_t trade_count
    cdef Py_ssize_t trade_capacity

    def __cinit__(self, Py_ssize_t order_limit=8_000_000):
        self.orders = Orders(order_limit)
        self.depths = []
        self.phases = []
        self.sequence = self.event_count = self.active = 0
        self.ts = 0
        self.trades = NULL
        self.trade_count = self.trade_capacity = 0

    def __dealloc__(self):
        free(self.trades)

    def apply(self, slots):
        """Takes whole commands; returns [start, stop) pairs of the `done` events of assets and markets.

        Raises JournalCorrupt if the events do not follow from each other.
        """
        if slots.ndim != 1 or slots.itemsize != sizeof(EventSlot):
            raise ValueError("slots: one dimension of 128-byte slots is needed")
        if len(slots) == 0:
            return []
        cdef const uint8_t[::1] raw = np.ascontiguousarray(slots).view(np.uint8)
        cdef const EventSlot* base = <const EventSlot*> &raw[0]
        cdef const EventSlot* event
        cdef Py_ssize_t at = 0, count = len(slots), width
        cdef list done = []
        cdef int kind
        while at < count:
            event = base + at
            width = event.slots
            if width == 0 or at + width > count:
                raise JournalCorrupt(f"event log: sequence={event.sequence} event has {width} slots of {count - at} left")
            if event.sequence != self.sequence:
                if event.sequence < self.sequence:
                    raise JournalCorrupt(f"event log: sequence={event.sequence} follows sequence={self.sequence}")
                self.rest_active()
                self.sequence = event.sequence
                if event.ts > self.ts:
                    self.ts = event.ts
            kind = event.kind
            if kind == ACCEPTED:
                self.accepted(event)
            elif kind == TRADE:
                self.trade(event)
            elif kind == CANCELED:
                self.canceled((<const CanceledSlot*> event).order_id)
            elif kind == REPLACED:
                self.replaced(<const ReplacedSlot*> event)
            elif kind == TRIGGERED:
                self.rest_active()
                self.need((<const CanceledSlot*> event).order_id).state = INCOMING
                self.active = (<const CanceledSlot*> event).order_id
            elif kind == REFRESHED:
                self.refreshed(<const RefreshedSlot*> event)
            elif kind == PREVENTED:
                self.prevented(<const PreventedSlot*> event)
            elif kind == PHASE_CHANGED:
                self.depth_of(event.market)
                self.phases[event.market] = event.payload[0]
            elif kind == DONE and (event.op == OP_MARKET or event.op == OP_ASSET):
                if event.op == OP_MARKET:
                    self.depth_of(event.market)
                    self.phases[event.market] = event.payload[DONE_PHASE_AT]
                done.append((at, at + width))
            self.event_count += 1
            at += width
        self.rest_active()
        return done

    def take_trades(self):
        """The trades since the last call: a new array of TRADE_ROW in the order of the log."""
        rows = np.empty(self.trade_count, TRADE_ROW)
        cdef uint8_t[::1] target
        if self.trade_count:
            target = rows.view(np.uint8)
            memcpy(&target[0], self.trades, self.trade_count * sizeof(TradeRow))
        self.trade_count = 0
        return rows

    def check(self):
        """Every level is the sum of its orders. For tests: walks everything. Raises AssertionError."""
        cdef uint64_t i
        cdef Order* order
        sums = {}
        for i in range(self.orders.mask + 1):
            order = self.orders.table + i
            if order.order_id == 0:
                continue
            assert order.state != INCOMING and order.leaves > 0, (order.order_id, order.state, order.leaves)
            if order.state == RESTING:
                key = (order.market, order.side, order.price)
                sums[key] = sums.get(key, 0) + order.shown
        levels = {
            (market, side, price): size
            for market, depth in enumerate(self.depths) for side in (0, 1) for price, size in depth.top(side)
        }
        assert levels == {key: size for key, size in sums.items() if size}, (levels, sums)

    # ---------------------------------------------------------------- events

    cdef int accepted(self, const EventSlot* event) except -1:
        cdef const AcceptedSlot* body = <const AcceptedSlot*> event
        cdef Order* order
        self.rest_active()
        self.depth_of(event.market)
        order = self.orders.insert(body.order_id)
        order.price, order.leaves, order.shown = body.price, body.size, 0
        order.display = body.display_size if body.display_size > 0 else 0
        order.market, order.side = event.market, body.side
        order.rests = body.type == LIMIT or body.type == STOP_LIMIT
        if body.type == STOP or body.type == STOP_LIMIT:
            order.state = WAITING
        else:
            order.state = INCOMING
            self.active = body.order_id
        return 0

    cdef int trade(self, const EventSlot* event) except -1:
        cdef const TradeSlot* body = <const TradeSlot*> event
        cdef Py_ssize_t capacity
        cdef void* grown
        cdef TradeRow* row
        self.fill(body.maker_order_id, body.maker_leaves, body.size)
        self.fill(body.taker_order_id, body.taker_leaves, body.size)
        if self.trade_count == self.trade_capacity:
            capacity = max(1024, self.trade_capacity * 2)
            grown = realloc(self.trades, capacity * sizeof(TradeRow))
            if grown == NULL:
                raise MemoryError("trades")
            self.trades = <TradeRow*> grown
            self.trade_capacity = capacity
        row = self.trades + self.trade_count
        self.trade_count += 1
        row.sequence, row.ts, row.trade_id = event.sequence, event.ts, body.trade_id
        row.price, row.size, row.notional = body.price, body.size, body.notional
        row.market, row.aggressor = event.market, body.aggressor
        return 0

    cdef int fill(self, uint64_t order_id, int64_t leaves, int64_t size) except -1:
        """One side of a trade or of a decrement."""
        cdef Order* order = self.need(order_id)
        cdef int64_t shown
        if order.state == RESTING:
            shown = leaves
            if order.display:  # only a slice is shown; an uncross may take more than that
                shown = min(max(order.shown - size, 0), leaves)
            self.show(order, shown, leaves == 0)
        order.leaves = leaves
        if leaves == 0:
            if order_id == self.active:
                self.active = 0
            self.orders.remove(order)
        return 0

    cdef int canceled(self, uint64_t order_id) except -1:
        cdef Order* order = self.need(order_id)
        if order.state == RESTING:
            self.show(order, 0, True)
        if order_id == self.active:
            self.active = 0
        self.orders.remove(order)
        return 0

    cdef int replaced(self, const ReplacedSlot* body) except -1:
        cdef Order* order
        self.rest_active()
        order = self.need(body.order_id)
        order.leaves = body.leaves
        if order.state == WAITING:
            order.price = body.price
        elif body.priority_kept:
            self.show(order, min(order.shown, body.leaves) if order.display else body.leaves, False)
        else:
            self.show(order, 0, True)
            order.price = body.price
            order.state = INCOMING
            self.active = body.order_id
        return 0

    cdef int refreshed(self, const RefreshedSlot* body) except -1:
        cdef Order* order = self.need(body.order_id)
        if order.state == RESTING:
            self.show(order, body.display_size, False)
        return 0

    cdef int prevented(self, const PreventedSlot* body) except -1:
        """Only `decrement` changes leaves; what the other modes end is told by `canceled`, and so is an emptied order."""
        cdef Order* order
        if body.mode != DECREMENT:
            return 0
        order = self.need(body.maker_order_id)
        self.show(order, min(max(order.shown - body.size, 0), body.maker_leaves) if order.display else body.maker_leaves,
                  False)
        order.leaves = body.maker_leaves
        self.need(body.taker_order_id).leaves = body.taker_leaves
        return 0

    # ---------------------------------------------------------------- state

    cdef int rest_active(self) except -1:
        """The order last matched comes to rest with what it has left."""
        cdef Order* order
        cdef uint64_t order_id = self.active
        if order_id == 0:
            return 0
        self.active = 0
        order = self.need(order_id)
        if not order.rests:  # all spent, to the last unit of its budget
            self.orders.remove(order)
            return 0
        order.state = RESTING
        order.shown = min(order.display, order.leaves) if order.display else order.leaves
        self.depth_of(order.market).add(order.side, order.price, order.shown, 1, self.sequence)
        return 0

    cdef int show(self, Order* order, int64_t shown, bint leaves_book) except -1:
        """A resting order now shows so many lots."""
        self.depth_of(order.market).add(order.side, order.price, shown - order.shown, -1 if leaves_book else 0, self.sequence)
        order.shown = shown
        return 0

    cdef Order* need(self, uint64_t order_id) except NULL:
        cdef Order* order = self.orders.find(order_id)
        if order == NULL:
            raise JournalCorrupt(f"event log: sequence={self.sequence} names order_id={order_id}, which is not open")
        return order

    cdef Depth depth_of(self, uint32_t market):
        if market >= <uint32_t> len(self.depths):
            if market >= <uint32_t> MARKETS_MAX:
                raise JournalCorrupt(f"event log: sequence={self.sequence} names market index {market}")
            while market >= <uint32_t> len(self.depths):
                self.depths.append(Depth())
                self.phases.append(int(Phase.CONTINUOUS))
        return <Depth> self.depths[market]
