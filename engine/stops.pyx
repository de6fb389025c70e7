"""Stops: where they wait, which trades make them due, and how they run.

    waiting, by market and side: a search tree ordered by who runs first, linked through Order.next and Order.prior

        buy   lowest stop_price first, then the older           half[BUY].nearest    lowest stop_price of a waiting buy
        sell  highest stop_price first, then the older          half[SELL].nearest   highest of a waiting sell

    trades lo … hi of one matching ─▶ marks[BUY] + hi, marks[SELL] + lo, where they go beyond the last mark
    due: buys up to the last mark of BUY, sells down to that of SELL. A due stop's trigger_price is the first mark that
    reaches it. What is due is always the front of its tree, so nothing is copied and nothing is marked in the orders.

Each tree is a treap: its shape follows from the stop prices, the order ids and a number mixed from order id and the
core's secret, so nobody can make it deep by choosing stops. Adding, taking out and finding the next one take O(log n)
expected; a matching in a market without stops pays one comparison. Marks are bounded by the matchings of one command.

A stop that waits is in its tree and its account's list, not in a book; its `join` is 0. Running, it is a taker with its
own slot. Never rejects anything, never changes a phase.

Worst case: all waiting stops of one market run after one command, within its fills limit.
"""

from libc.stdint cimport INT64_MAX

from engine.book cimport meets_again
from engine.digest cimport touch_order
from engine.events cimport add_event
from engine.cancel cimport cancel_order
from engine.invariants cimport require
from engine.matching cimport Taker, take, taker_of
from engine.pairs cimport part
from engine.phases cimport pause
from engine.risk cimport order_hold
from engine.scopes cimport collect
from engine.types cimport *


cdef bint meets(int side, int64_t stop_price, int64_t price) noexcept nogil:
    # Whether a trade at `price` (0: none yet) triggers the stop.
    if price == 0:
        return False
    return price >= stop_price if side == BUY else price <= stop_price


# ---------------------------------------------------------------- the trees


cdef inline int64_t stop_price_of(State* s, uint32_t slot) noexcept nogil:
    return s.terms[s.details[slot].terms].stop_price


cdef inline bint before(State* s, int side, uint32_t a, uint32_t b) noexcept nogil:
    # Whether stop `a` runs before stop `b`.
    cdef int64_t x = stop_price_of(s, a), y = stop_price_of(s, b)
    if x != y:
        return x < y if side == BUY else x > y
    return s.orders[a].order_id < s.orders[b].order_id


cdef inline uint64_t rank(State* s, uint32_t slot) noexcept nogil:
    # The parent has the higher one.
    return fold(s.orders[slot].order_id ^ s.secret, 0x9E3779B97F4A7C15u ^ s.secret)


cdef void note_nearest(State* s, Market* market, int side) noexcept nogil:
    cdef uint32_t slot = first_stop(s, market, side)
    if slot != NIL:
        market.half[side].nearest = stop_price_of(s, slot)
    else:
        market.half[side].nearest = INT64_MAX if side == BUY else 0


cdef inline uint32_t first_stop(State* s, Market* market, int side) noexcept nogil:
    cdef uint32_t slot = market.stops[side]
    if slot != NIL:
        while s.orders[slot].next != NIL:
            slot = s.orders[slot].next
    return slot


cdef void insert(State* s, Market* market, int side, uint32_t slot) noexcept nogil:
    cdef uint32_t* link = &market.stops[side]
    cdef uint32_t* low
    cdef uint32_t* high
    cdef uint32_t at
    cdef uint64_t own = rank(s, slot)
    while link[0] != NIL and rank(s, link[0]) >= own:
        link = &s.orders[link[0]].next if before(s, side, slot, link[0]) else &s.orders[link[0]].prior
    at = link[0]
    link[0] = slot
    # What stood here is divided: before the new one, and after it.
    low = &s.orders[slot].next
    high = &s.orders[slot].prior
    while at != NIL:
        if before(s, side, at, slot):
            low[0] = at
            low = &s.orders[at].prior
            at = low[0]
        else:
            high[0] = at
            high = &s.orders[at].next
            at = high[0]
    low[0] = NIL
    high[0] = NIL
    note_nearest(s, market, side)


cdef int take_out(State* s, Market* market, int side, uint32_t slot) except -1 nogil:
    cdef uint32_t* link = &market.stops[side]
    cdef uint32_t a = s.orders[slot].next, b = s.orders[slot].prior
    while link[0] != slot:
        require(link[0] != NIL, "a waiting stop is not in its tree")
        link = &s.orders[link[0]].next if before(s, side, slot, link[0]) else &s.orders[link[0]].prior
    while a != NIL and b != NIL:
        if rank(s, a) >= rank(s, b):
            link[0] = a
            link = &s.orders[a].prior
            a = link[0]
        else:
            link[0] = b
            link = &s.orders[b].next
            b = link[0]
    link[0] = a if a != NIL else b
    note_nearest(s, market, side)
    return 0


cdef int wait(State* s, uint32_t slot) except -1 nogil:
    cdef Market* market = &s.markets[s.orders[slot].market]
    market.stop_count += 1
    market.spenders += meets_again(s.details[slot].type, s.details[slot].side, s.details[slot].stp)
    s.stop_count += 1
    insert(s, market, s.details[slot].side, slot)
    return 0


cdef int stop_waiting(State* s, uint32_t slot) except -1 nogil:
    cdef Market* market = &s.markets[s.orders[slot].market]
    take_out(s, market, s.details[slot].side, slot)
    market.stop_count -= 1
    market.spenders -= meets_again(s.details[slot].type, s.details[slot].side, s.details[slot].stp)
    s.stop_count -= 1
    return 0


cdef int move_stop(State* s, uint32_t slot, int64_t stop_price) except -1 nogil:
    cdef Market* market = &s.markets[s.orders[slot].market]
    take_out(s, market, s.details[slot].side, slot)
    s.terms[s.details[slot].terms].stop_price = stop_price
    insert(s, market, s.details[slot].side, slot)
    return 0


cdef int collect_waiting(State* s, uint32_t slot, size_t* count) except -1 nogil:
    # The stops of the tree below `slot` join the scratch list.
    while slot != NIL:
        collect(s, slot, count)
        collect_waiting(s, s.orders[slot].next, count)
        slot = s.orders[slot].prior
    return 0


# ---------------------------------------------------------------- what is due


cdef void no_marks(State* s) noexcept nogil:
    s.mark_count[BUY] = s.mark_count[SELL] = 0
    s.mark_at[BUY] = s.mark_at[SELL] = 0


cdef void mark(State* s, int64_t lowest, int64_t highest) noexcept nogil:
    # One matching traded from `lowest` to `highest`.
    cdef uint32_t count = s.mark_count[BUY]
    if count == 0 or highest > s.marks[BUY][count - 1]:
        s.marks[BUY][count] = highest
        s.mark_count[BUY] = count + 1
    count = s.mark_count[SELL]
    if count == 0 or lowest < s.marks[SELL][count - 1]:
        s.marks[SELL][count] = lowest
        s.mark_count[SELL] = count + 1


cdef uint32_t due_stop(State* s, Market* market, int side) noexcept nogil:
    # The next stop of that side to run, or NIL.
    cdef uint32_t count = s.mark_count[side]
    if count == 0 or not meets(side, market.half[side].nearest, s.marks[side][count - 1]):
        return NIL
    return first_stop(s, market, side)


cdef int64_t mark_of(State* s, uint32_t slot, int side) noexcept nogil:
    # The first mark that reaches a due stop. Stops of a side run outwards, so no earlier one is needed again.
    cdef int64_t stop_price = stop_price_of(s, slot)
    while not meets(side, stop_price, s.marks[side][s.mark_at[side]]):
        s.mark_at[side] += 1
    return s.marks[side][s.mark_at[side]]


cdef int run_due(State* s, uint32_t index) except -1 nogil:
    # One by one until none is due, or the market pauses.
    cdef Market* market = &s.markets[index]
    cdef uint32_t buy, sell, slot
    cdef int side
    while market.stop_count != 0:
        buy = due_stop(s, market, BUY)
        sell = due_stop(s, market, SELL)
        if buy == NIL and sell == NIL:
            return 0
        side = SELL
        if sell == NIL or (buy != NIL and s.orders[buy].order_id < s.orders[sell].order_id):
            side = BUY
        slot = buy if side == BUY else sell
        if run_one(s, slot, mark_of(s, slot, side)):
            return pause(s, index)
    return 0


cdef int run_one(State* s, uint32_t slot, int64_t trigger_price) except -1 nogil:
    # One stop: triggered, its partner's end, its own matching. Returns 1 if the band stopped it and it rests.
    cdef Taker t
    cdef Order* o = &s.orders[slot]
    cdef uint32_t partner
    cdef int paused
    cdef TriggeredEvent* e = <TriggeredEvent*>add_event(s, EV_TRIGGERED, 1, o.account, o.market)
    e.order_id = o.order_id
    e.stop_price = stop_price_of(s, slot)
    e.trigger_price = trigger_price
    e.trigger_sequence = s.sequence
    stop_waiting(s, slot)
    touch_order(s, slot)
    taker_of(s, slot, &t)
    t.held = order_hold(s, slot)
    partner = part(s, slot)
    if partner != NIL:
        cancel_order(s, partner, WHY_OCO, t.held)
    paused = take(s, &t)
    mark_trades(s, &t)
    return paused


cdef void mark_trades(State* s, Taker* t) noexcept nogil:
    # A taker's trades go from its first away from it.
    if t.first_price != 0:
        if t.side == BUY:
            mark(s, t.first_price, t.market.last_price)
        else:
            mark(s, t.market.last_price, t.first_price)


cdef int run_stop(State* s, uint32_t slot, int64_t trigger_price) except -1 nogil:
    # A stop that the last trade meets as it comes, and what follows from it.
    cdef uint32_t market = s.orders[slot].market
    no_marks(s)
    if run_one(s, slot, trigger_price):
        return pause(s, market)
    return run_due(s, market)


cdef int run_touched(State* s, Taker* t) except -1 nogil:
    # What the trades of the command's own taker make due.
    no_marks(s)
    mark_trades(s, t)
    return run_due(s, t.market_index)


cdef int run_met(State* s, uint32_t market) except -1 nogil:
    # The market opens: what its last trade meets.
    no_marks(s)
    if s.markets[market].last_price != 0:
        mark(s, s.markets[market].last_price, s.markets[market].last_price)
    return run_due(s, market)
