# How many event slots a record can make at most in the present state: what a caller must have room for before it applies
# the record. Small for nearly every command, so that buffers may be too; never too small, which the core asserts.

from libc.stdint cimport INT64_MAX

from engine.book cimport meets_again, reaches
from engine.pool cimport find_account, find_id, find_order, id_tag, live
from engine.timers cimport tick_bound
from engine.types cimport *


cdef inline Py_ssize_t matches_bound(State* s, int64_t matches, uint32_t stops) noexcept nogil:
    # The slots of so many matches, and of the stops that run between them. Of one match: trade, refreshed, a partner's
    # end; or prevented and refreshed or canceled. Of one stop: triggered, its partner's end, its own.
    if s.limits.max_fills < matches:
        matches = s.limits.max_fills
    return 4 + 3 * matches + 3 * <Py_ssize_t>stops


cdef inline Py_ssize_t market_bound(State* s, Market* market, int64_t slices) noexcept nogil:
    # All that can happen in a market when its stops run: each match ends a maker, a slice or a taker, but of one that
    # meets_again; and a stop may be a maker too. `slices`: of the command's own order.
    cdef int64_t orders = <int64_t>market.half[BUY].order_count + market.half[SELL].order_count
    if market.spenders != 0:
        orders = s.limits.max_fills
    return matches_bound(s, orders + market.slices + slices + 2 * <int64_t>market.stop_count + 4, market.stop_count)


cdef inline Py_ssize_t crossing_bound(
    State* s, Market* market, int side, int64_t edge, int64_t most, int64_t slices
) noexcept nogil:
    # Of a taker that trades no farther than `edge`, and not more than `most` times. `slices`: how many matches it may have
    # that end none of the makers.
    cdef Half* opposite = &market.half[1 - side]
    cdef int64_t matches = <int64_t>opposite.order_count + market.slices + slices
    if market.stop_count != 0 and (
        (edge if side == BUY else opposite.best) >= market.half[BUY].nearest
        or (opposite.best if side == BUY else edge) <= market.half[SELL].nearest
    ):
        return 4 + market_bound(s, market, slices)
    return matches_bound(s, most if most < matches else matches, 0)


cdef inline Py_ssize_t replace_bound(State* s, const ReplaceRecord* r) noexcept nogil:
    # An open book is not crossed, so only a new price trades; a waiting stop runs if its new stop price is met.
    cdef uint32_t slot
    cdef Market* market
    cdef int64_t best, slices = 0
    cdef int side
    if (r.price == ABSENT and r.stop_price == ABSENT) or r.account >= s.account_count:
        return 4
    if (<const Record*>r).flags & ORDER_BY_ORDER_ID:
        slot = find_order(s, r.client_id.word[0])
    else:
        slot = find_id(s, id_tag(s, r.account, &r.client_id), r.account, &r.client_id)
        slot = s.ids[slot].order if slot != NIL and s.ids[slot].status == STATUS_OPEN else NIL
    if slot == NIL:
        return 4
    side = s.details[slot].side
    market = &s.markets[s.orders[slot].market]
    if s.details[slot].join == 0:
        best = market.last_price
        if r.stop_price == ABSENT or best == 0 or not reaches(side, best, r.stop_price):
            return 4
        return 4 + market_bound(s, market, 0)
    best = market.half[1 - side].best
    if r.price == ABSENT or best == 0 or not reaches(side, r.price, best):
        return 4
    if s.details[slot].terms != NIL and s.terms[s.details[slot].terms].slices:
        slices = SLICES_MAX + 2
    return crossing_bound(s, market, side, r.price, INT64_MAX, slices)


cdef inline Py_ssize_t uncross_bound(State* s, Market* market) noexcept nogil:
    # A fill ends one of the two orders: trade, two refreshed, two partners' ends.
    return 8 + 5 * (<Py_ssize_t>market.half[BUY].order_count + market.half[SELL].order_count) + market_bound(s, market, 0)


cdef inline Py_ssize_t canceled_bound(State* s, const MassCancelRecord* r) noexcept nogil:
    # Of a mass_cancel: the orders of its account, or of its market, or all.
    cdef Market* market
    if r.given & 1:
        return s.accounts[r.account].open_orders if r.account < s.account_count else 0
    if r.given & 2 and r.market < s.market_count:
        market = &s.markets[r.market]
        return <Py_ssize_t>market.half[BUY].order_count + market.half[SELL].order_count + market.stop_count
    return live(&s.order_pool)


cdef inline Py_ssize_t bound_of(State* s, const Record* r) noexcept nogil:
    # The most slots this record can make. Small for nearly every command, so that buffers may be too.
    cdef const PlaceRecord* p = <const PlaceRecord*>r
    cdef const MarketOnlyRecord* m = <const MarketOnlyRecord*>r
    cdef Market* market
    cdef int64_t best, most = INT64_MAX, slices = 0
    cdef inline Py_ssize_t slots
    cdef uint32_t i, a
    cdef uint8_t kind = r.kind
    if kind == DO_CANCEL or kind == DO_CUT:
        return 1
    if kind == DO_PLACE:
        if p.market >= s.market_count or p.side > SELL:
            return 4
        market = &s.markets[p.market]
        best = market.half[1 - p.side].best
        if best == 0 or (p.type == LIMIT and not reaches(p.side, p.price, best)):
            return 4
        if (p.type == STOP or p.type == STOP_LIMIT) and (
            market.last_price == 0 or not reaches(p.side, market.last_price, p.stop_price)
        ):
            return 4  # it waits
        if p.display_size > 0 and p.size > 0 and p.size // p.display_size <= SLICES_MAX:
            slices = p.size // p.display_size + 2
        if not r.flags & PLACE_BUDGET and p.stp != CANCEL_OLDEST and p.size >= 0:
            most = p.size
        if meets_again(p.type, p.side, p.stp):
            slices = s.limits.max_fills
        return crossing_bound(
            s, market, p.side, p.price if p.type == LIMIT else INT64_MAX if p.side == BUY else 0, most, slices
        )
    if kind == DO_REPLACE:
        return replace_bound(s, <const ReplaceRecord*>r)
    if kind == DO_MASS_CANCEL:
        return 4 + canceled_bound(s, <const MassCancelRecord*>r)
    if kind == DO_KILL:
        a = (<const CancelAfterRecord*>r).account
        return 4 + (s.accounts[a].open_orders if a < s.account_count else 0)
    if kind == DO_ACCOUNT:
        a = find_account(s, <Name*>&(<const AccountRecord*>r).name)
        return 4 + (s.accounts[a].open_orders if a != NIL else 0)
    if kind == DO_TICK:
        # What is parked may come back when a pause ends.
        slots = tick_bound(s, r.ts)
        if slots >= 0:
            return slots
        slots = 4 + 4 * <Py_ssize_t>s.due_count + <Py_ssize_t>live(&s.order_pool) + 3 * <Py_ssize_t>live(&s.posting_pool)
        for i in range(s.market_count):
            if s.markets[i].pause_sequence != 0:
                slots += uncross_bound(s, &s.markets[i])
        return slots
    if kind == DO_PHASE or kind == DO_UNCROSS:
        slots = 4
        if m.market < s.market_count:
            slots += uncross_bound(s, &s.markets[m.market])
        return slots
    if kind == DO_REARM or kind == DO_CANCEL_AFTER or kind == DO_POISON:
        return 1
    return 4 + LEGS_MAX // 4 + 2 * LEGS_MAX
