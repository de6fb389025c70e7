"""The one pass over the event log: events in, L3, L2 and trades out.

Owns the orders and the depth of every market and the ring of changes, and knows the one order that is being matched. Resting is silent in the
event log: what `accepted`, `replaced` or `triggered` left unfilled and not canceled rests when the next order comes to
be matched, or with the end of the command. So state is that of a sequence only between commands, and `apply` takes
whole commands.

An order's public number is how many orders had joined a queue of its market when it last did so itself. Within a level
the numbers ascend in the order of the queue. Whoever joins anew (a lost priority, an iceberg's next slice) gets a new
one, so nothing in public says that two numbers are one order; a slice that an uncross refreshes in place keeps its own.

Invariants: the depth of a level is the sum of what its resting orders show; sequences never go back.
Never: reads names, formats, sends.
Worst case: that of one level far from the touch; see depth.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from engine.messages.records cimport (
    EV_ACCEPTED, EV_CANCELED, EV_DONE, EV_PHASE_CHANGED, EV_PREVENTED, EV_REFRESHED, EV_REPLACED, EV_TRADE,
    EV_TRIGGERED, EV_UNCROSSED, OP_ASSET, OP_MARKET, SLOT, Accepted, Canceled, DoneMarket, EventHead, EventSlot, MarketExtra,
    PhaseChanged, Prevented, Refreshed, Replaced, Trade, Triggered, Uncrossed,
)
from marketdata.changes cimport ORDER, PHASE, TRADE, UNCROSSED, Change, Changes
from marketdata.depth cimport Depth, order_mix
from marketdata.orders cimport INCOMING, RESTING, WAITING, Order, Orders

from engine.messages.codes import OrderType, Phase, SelfTrade
from engine.messages.errors import JournalCorrupt

__all__ = ["Feed", "TRADE_ROW"]

TRADE_ROW = np.dtype(
    [
        ("sequence", "<u8"), ("ts", "<i8"), ("trade_id", "<u8"), ("price", "<i8"), ("size", "<i8"),
        ("notional", "<i8"), ("market", "<u4"), ("aggressor", "u1"), ("pad", "V3"),
    ]
)

cdef packed struct TradeRow:
    uint64_t sequence
    int64_t ts
    uint64_t trade_id
    int64_t price
    int64_t size
    int64_t notional
    uint32_t market
    uint8_t aggressor
    uint8_t pad[3]

assert sizeof(TradeRow) == TRADE_ROW.itemsize and sizeof(EventSlot) == SLOT

cdef int LIMIT = OrderType.LIMIT
cdef int STOP = OrderType.STOP
cdef int STOP_LIMIT = OrderType.STOP_LIMIT
cdef int DECREMENT = SelfTrade.DECREMENT
cdef int MARKETS_MAX = 1 << 20


cdef class Feed:
    """Books and trades as of `sequence`. `ts` is the journal's time then (ns since 1970, UTC)."""

    cdef readonly Orders orders
    cdef readonly list depths
    cdef readonly list phases
    cdef readonly uint64_t sequence
    cdef readonly int64_t ts
    cdef readonly uint64_t event_count
    cdef readonly Changes changes
    cdef int64_t command_ts
    cdef uint64_t active
    cdef bint uncrossing
    cdef list dirty
    cdef TradeRow* trades
    cdef Py_ssize_t trade_count
    cdef Py_ssize_t trade_capacity

    def __cinit__(self, Py_ssize_t order_limit=8_000_000, change_limit=1 << 16):
        self.orders = Orders(order_limit)
        self.changes = Changes(change_limit)
        self.dirty = []
        self.uncrossing = False
        self.command_ts = 0
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
        cdef const EventHead* event
        cdef Py_ssize_t at = 0, count = len(slots), width
        cdef list done = []
        cdef int kind
        while at < count:
            event = &base[at].head
            width = event.slots
            if width == 0 or at + width > count:
                raise JournalCorrupt(f"event log: sequence={event.sequence} event has {width} slots of {count - at} left")
            if event.sequence != self.sequence:
                if event.sequence < self.sequence:
                    raise JournalCorrupt(f"event log: sequence={event.sequence} follows sequence={self.sequence}")
                self.end_command()
                self.sequence = event.sequence
                self.command_ts = event.ts
                if event.ts > self.ts:
                    self.ts = event.ts
            kind = event.kind
            if kind == EV_ACCEPTED:
                self.accepted(<const Accepted*> event)
            elif kind == EV_TRADE:
                self.trade(<const Trade*> event)
            elif kind == EV_CANCELED:
                self.canceled((<const Canceled*> event).order_id)
            elif kind == EV_REPLACED:
                self.replaced(<const Replaced*> event)
            elif kind == EV_TRIGGERED:
                self.triggered((<const Triggered*> event).order_id)
            elif kind == EV_REFRESHED:
                self.refreshed(<const Refreshed*> event)
            elif kind == EV_PREVENTED:
                self.prevented(<const Prevented*> event)
            elif kind == EV_UNCROSSED:
                self.rest_active()  # in an uncross everything rests, and both sides of a trade shrink in their places
                self.uncrossed(<const Uncrossed*> event)
            elif kind == EV_PHASE_CHANGED:
                self.rest_active()
                self.phase_changed(<const PhaseChanged*> event)
            elif kind == EV_DONE and (event.op == OP_MARKET or event.op == OP_ASSET):
                if event.op == OP_MARKET:
                    self.market_done(<const DoneMarket*> event, <const MarketExtra*> (base + at + 1))
                done.append((at, at + width))
            self.event_count += 1
            at += width
        self.end_command()
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

    cdef int accepted(self, const Accepted* body) except -1:
        cdef Order* order
        self.rest_active()
        self.depth_of(body.head.market)
        order = self.orders.insert(body.order_id)
        order.price, order.leaves, order.shown = body.price, body.size, 0
        order.display = body.display_size if body.display_size > 0 else 0
        order.market, order.side = body.head.market, body.side
        order.rests = body.type == LIMIT or body.type == STOP_LIMIT
        if body.type == STOP or body.type == STOP_LIMIT:
            order.state = WAITING
        else:
            order.state = INCOMING
            self.active = body.order_id
        return 0

    cdef int trade(self, const Trade* body) except -1:
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
        row.sequence, row.ts, row.trade_id = body.head.sequence, body.head.ts, body.trade_id
        row.price, row.size, row.notional = body.price, body.size, body.notional
        row.market, row.aggressor = body.head.market, body.aggressor
        cdef Change* change = self.changes.push()
        change.sequence, change.ts, change.id = body.head.sequence, body.head.ts, body.trade_id
        change.price, change.size, change.extra, change.checksum = body.price, body.size, body.notional, 0
        change.market, change.kind, change.side = body.head.market, TRADE, body.aggressor
        self.depth_of(body.head.market).reference = body.price
        return 0

    cdef int uncrossed(self, const Uncrossed* body) except -1:
        cdef Change* change = self.changes.push()
        self.uncrossing = True
        change.sequence, change.ts, change.id, change.checksum = body.head.sequence, body.head.ts, 0, 0
        change.price, change.size, change.extra = body.price, body.size, body.imbalance
        change.market, change.kind, change.side = body.head.market, UNCROSSED, 0
        return 0

    cdef int phase_changed(self, const PhaseChanged* body) except -1:
        self.uncrossing = False
        self.depth_of(body.head.market).reference = body.reference_price
        self.set_phase(body.head.market, body.phase)
        return 0

    cdef int market_done(self, const DoneMarket* body, const MarketExtra* terms) except -1:
        """Listed, or given other terms: those do not touch what an uncross goes by."""
        cdef bint is_new = body.head.market >= <uint32_t> len(self.depths)
        cdef Depth depth = self.depth_of(body.head.market)
        if is_new:
            depth.reference = terms.reference_price
        if is_new or self.phases[body.head.market] != body.phase:
            self.set_phase(body.head.market, body.phase)
        return 0

    cdef int set_phase(self, uint32_t market, uint8_t phase) except -1:
        cdef Change* change = self.changes.push()
        self.phases[market] = phase
        change.sequence, change.ts, change.id, change.checksum = self.sequence, self.command_ts, 0, 0
        change.price, change.size, change.extra = 0, phase, 0
        change.market, change.kind, change.side = market, PHASE, 0
        return 0

    cdef int fill(self, uint64_t order_id, int64_t leaves, int64_t size) except -1:
        """One side of a trade or of a decrement."""
        cdef Order* order = self.need(order_id)
        cdef int64_t shown
        if order.state == RESTING:
            shown = leaves
            if order.display:  # only a slice is shown; an uncross may take more than that
                shown = min(max(order.shown - size, 0), leaves)
            self.show(order, shown, leaves, leaves == 0)
        else:
            order.leaves = leaves
        if leaves == 0:
            if order_id == self.active:
                self.active = 0
            self.orders.remove(order)
        return 0

    cdef int canceled(self, uint64_t order_id) except -1:
        cdef Order* order = self.need(order_id)
        if order.state == RESTING:
            self.show(order, 0, 0, True)
        if order_id == self.active:
            self.active = 0
        self.orders.remove(order)
        return 0

    cdef int replaced(self, const Replaced* body) except -1:
        cdef Order* order
        self.rest_active()
        order = self.need(body.order_id)
        if order.state == WAITING:
            order.price, order.leaves = body.price, body.leaves
        elif body.priority_kept:
            self.show(order, min(order.shown, body.leaves) if order.display else body.leaves, body.leaves, False)
        else:
            self.show(order, 0, 0, True)
            order.price, order.leaves = body.price, body.leaves
            order.state = INCOMING
            self.active = body.order_id
        return 0

    cdef int triggered(self, uint64_t order_id) except -1:
        """A waiting stop is matched now. What is left of it rests like a limit order, or is canceled."""
        cdef Order* order
        self.rest_active()
        order = self.need(order_id)
        if order.state != WAITING:
            raise JournalCorrupt(f"event log: sequence={self.sequence} triggers order_id={order_id}, which does not wait")
        order.state = INCOMING
        self.active = order_id
        return 0

    cdef int refreshed(self, const Refreshed* body) except -1:
        """Its next slice is shown: at the back of the queue, or in its place if an uncross took the last one."""
        cdef Order* order = self.need(body.order_id)
        if order.state == RESTING:
            if not self.uncrossing:
                self.show(order, 0, order.leaves, False)
                order.number = self.next_number(order.market)
            self.show(order, body.display_size, order.leaves, False)
        return 0

    cdef int prevented(self, const Prevented* body) except -1:
        """Only `decrement` changes leaves; what the other modes end is told by `canceled`, and so is an emptied order."""
        cdef Order* order
        if body.mode != DECREMENT:
            return 0
        order = self.need(body.maker_order_id)
        self.show(order, min(max(order.shown - body.size, 0), body.maker_leaves) if order.display else body.maker_leaves,
                  body.maker_leaves, False)
        self.need(body.taker_order_id).leaves = body.taker_leaves
        return 0

    # ---------------------------------------------------------------- state

    cdef int rest_active(self) except -1:
        """The order last matched comes to rest with what it has left."""
        cdef Order* order
        cdef Depth depth
        cdef int64_t shown
        cdef uint64_t order_id = self.active
        if order_id == 0:
            return 0
        self.active = 0
        order = self.need(order_id)
        if not order.rests:
            raise JournalCorrupt(f"event log: sequence={self.sequence} leaves order_id={order_id} open, which cannot rest")
        order.state = RESTING
        order.shown = 0
        order.number = self.next_number(order.market)
        shown = min(order.display, order.leaves) if order.display else order.leaves
        depth = self.depth_of(order.market)
        self.note(depth)
        depth.add(order.side, order.price, shown, order.leaves, 1, self.sequence)
        self.order_row(depth, order, shown)
        return 0

    cdef int show(self, Order* order, int64_t shown, int64_t leaves, bint leaves_book) except -1:
        """A resting order now shows so many of so many lots."""
        cdef Depth depth = self.depth_of(order.market)
        self.note(depth)
        depth.add(order.side, order.price, shown - order.shown, leaves - order.leaves, -1 if leaves_book else 0, self.sequence)
        order.leaves = leaves
        if shown != order.shown:
            self.order_row(depth, order, shown)
        return 0

    cdef int order_row(self, Depth depth, Order* order, int64_t shown) except -1:
        cdef Change* change = self.changes.push()
        if order.shown:
            depth.order_checksum -= order_mix(order.number, order.side, order.price, order.shown)
        if shown:
            depth.order_checksum += order_mix(order.number, order.side, order.price, shown)
        order.shown = shown
        change.sequence, change.ts, change.id = self.sequence, self.command_ts, order.number
        change.price, change.size, change.extra, change.checksum = order.price, shown, 0, depth.order_checksum
        change.market, change.kind, change.side = order.market, ORDER, order.side
        return 0

    cdef uint64_t next_number(self, uint32_t market) except 0:
        cdef Depth depth = self.depth_of(market)
        depth.joins += 1
        return depth.joins

    cdef int note(self, Depth depth) except -1:
        """Its levels are about to change."""
        if not depth.is_touched:
            depth.is_touched = True
            self.dirty.append(depth)
        return 0

    cdef int end_command(self) except -1:
        self.rest_active()
        self.uncrossing = False
        if self.dirty:
            for depth in self.dirty:
                (<Depth> depth).settle(self.sequence, self.command_ts, self.changes)
            self.dirty.clear()
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
                self.depths.append(Depth(len(self.depths)))
                self.phases.append(int(Phase.CONTINUOUS))
        return <Depth> self.depths[market]
