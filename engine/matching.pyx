"""Takers: what meets the book, whatever brought it there.

    place, replace, a stop that runs ─▶ take ─▶ match ─▶ rest, or cancel what is left ─▶ proceed: a pause, due stops
                                                 │
                                                 ├─ fill: event, fees, the maker's balances   ─▶ book_taker: the taker's, once
                                                 └─ prevented: maker and taker of one group

The taker is a struct on the stack until it rests; only then it takes a slot. A replaced order that loses its place and a
stop that runs are takers with a slot, and so is from the start what has Terms (pairs.pyx): a stop price, a displayed
slice, an expiry, a partner.

What a taker pays and gets is added up while it matches and booked once: sums commute, and nothing in between looks at its
balances but a market buy, which books after each fill. Worst case: a taker and the stops it runs meet max_fills_per_command
orders.
"""

from libc.stdint cimport INT64_MAX

from engine.book cimport dequeue_filled, join_back, next_worse, reaches
from engine.cancel cimport cancel_slot
from engine.digest cimport touch_market, touch_order
from engine.events cimport add_canceled, add_event
from engine.ids cimport close_ids
from engine.orders cimport close_order, kinds_of, open_order
from engine.pairs cimport after_fill, end_order, refresh, rounds_fill, show_slice
from engine.phases cimport pause
from engine.risk cimport (
    beyond, collect_fee, hold, hold_slot, order_hold, pair_hold, partner_hold, pay_available, pay_held, receive,
    required_hold, whole_leaves,
)
from engine.stops cimport run_touched
from engine.types cimport *


# ---------------------------------------------------------------- one taker


cdef uint32_t take_slot(State* s, Taker* t) except? 0xFFFFFFFF nogil:
    return open_order(
        s, t.order_id, t.account, t.market_index, t.id_slot, t.base, t.quote, t.taker_ppm, t.maker_ppm, t.hold_ppm,
        kinds_of(t.side, t.type, t.tif, t.stp, t.flags), t.session,
    )


cdef int rest(State* s, Taker* t) except -1 nogil:
    # The taker's leaves join the back of their level.
    cdef uint32_t slot = t.slot
    cdef Order* o
    if slot == NIL:
        slot = take_slot(s, t)
    o = &s.orders[slot]
    o.price = t.price
    o.leaves = t.leaves
    o.size = t.size
    o.credit = t.credit
    if t.terms != NIL:
        show_slice(s, slot, t.leaves)
    return join_back(s, t.market, t.side, slot)


cdef int cancel_taker(State* s, Taker* t, uint8_t why) except -1 nogil:
    # The taker's leaves end.
    cdef int64_t released = beyond(t.held, partner_hold(s, t.terms))
    add_canceled(s, t.order_id, t.account, t.market_index, &s.ids[t.id_slot].client_id, t.leaves, released, why)
    hold(s, t.base if t.side == SELL else t.quote, -released)
    t.held = 0
    return 0


cdef int taker_of(State* s, uint32_t slot, Taker* t) except -1 nogil:
    # The taker that an order in its own slot is, but for what it holds.
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    t.order_id = o.order_id
    t.slot = slot
    t.terms = d.terms
    t.market = &s.markets[o.market]
    t.market_index = o.market
    t.price = o.price
    t.size = o.size
    t.leaves = whole_leaves(s, slot)
    t.first_price = 0
    t.paid = t.released = t.received = t.fees = 0
    t.session = d.session
    t.account = o.account
    t.id_slot = o.id_slot
    t.stp_key = s.accounts[o.account].stp_key
    t.base = d.base
    t.quote = d.quote
    t.credit = o.credit
    t.taker_ppm = d.taker_ppm
    t.maker_ppm = o.maker_ppm
    t.hold_ppm = o.hold_ppm
    t.side = d.side
    t.type = d.type
    t.tif = d.tif
    t.stp = d.stp
    t.flags = d.flags
    t.budget = (d.flags & PLACE_BUDGET) != 0
    t.priced = d.type == LIMIT or d.type == STOP_LIMIT
    return 0


# ---------------------------------------------------------------- matching


cdef inline int fill(State* s, Taker* t, Order* maker, OrderDetail* detail, int64_t size, int64_t hidden) except -1 nogil:
    # One fill at the maker's price: leaves, credits, the maker's balances, the event. `hidden`: leaves that the maker does
    # not display. What the taker pays and gets waits in its sums for `book_taker`.
    cdef Market* market = t.market
    cdef int64_t price = maker.price
    cdef int64_t notional = price * size * market.k
    cdef int64_t units = size * market.u
    cdef int64_t maker_fee = 0, taker_fee = 0, released = 0, held, after
    cdef int side = t.side
    cdef TradeEvent* e = <TradeEvent*>add_event(s, EV_TRADE, 1, maker.account, t.market_index)
    if s.limits.risk:
        if side == BUY:
            maker_fee = fee_increase(notional, maker.maker_ppm, &maker.credit)
            taker_fee = fee_increase(notional, t.taker_ppm, &t.credit)
            if t.priced:
                held = 0
                if t.leaves != size:
                    held = buy_hold(t.price * (t.leaves - size) * market.k, t.hold_ppm, t.credit)
                released = t.held - held - notional - taker_fee
                t.held = held
            t.paid += notional + taker_fee
            t.received += units
            pay_held(s, detail.base, 0, units)
            receive(s, detail.quote, notional - maker_fee)
        else:
            after = maker.leaves + hidden - size
            held = buy_hold(price * (after + size) * market.k, maker.hold_ppm, maker.credit)
            maker_fee = fee_increase(notional, maker.maker_ppm, &maker.credit)
            if after != 0:
                held -= buy_hold(price * after * market.k, maker.hold_ppm, maker.credit)
            released = held - notional - maker_fee
            pay_held(s, detail.quote, released, notional + maker_fee)
            receive(s, detail.base, units)
            taker_fee = fee_increase(notional, t.taker_ppm, &t.credit)
            t.held -= units
            t.paid += units
            t.received += notional - taker_fee
        t.fees += maker_fee + taker_fee
        s.broken |= released
    maker.leaves -= size
    t.leaves -= notional + taker_fee if t.budget else size
    market.trade_count += 1
    e.taker_account = t.account
    e.aggressor = side
    e.buyer = side == BUY
    e.trade_id = market.trade_count
    e.price = price
    e.size = size
    e.notional = notional
    e.maker_order_id = maker.order_id
    e.maker_leaves = maker.leaves + hidden
    e.maker_fee = maker_fee
    e.taker_order_id = t.order_id
    e.taker_leaves = t.leaves
    e.taker_fee = taker_fee
    e.released = released
    if side == BUY:
        t.released += released
    return 0


cdef int book_taker(State* s, Taker* t) except -1 nogil:
    # Books what the fills since the last time left in the taker's sums.
    if (t.paid | t.released | t.received | t.fees) == 0:
        return 0
    if t.side == BUY:
        if t.priced:
            pay_held(s, t.quote, t.released, t.paid)
        else:
            pay_available(s, t.quote, t.paid)
        receive(s, t.base, t.received)
    else:
        pay_held(s, t.base, 0, t.paid)
        receive(s, t.quote, t.received)
    collect_fee(s, t.market.fees, t.fees)
    t.paid = t.released = t.received = t.fees = 0
    return 0


cdef int trade_with_terms(State* s, Taker* t, Half* half, uint32_t slot, int64_t size) except -1 nogil:
    # One fill in which one side has Terms, and what follows from it.
    cdef Order* maker = &s.orders[slot]
    cdef int64_t maker_held = order_hold(s, slot), taker_held = t.held
    fill(s, t, maker, &s.details[slot], size, whole_leaves(s, slot) - maker.leaves)
    half.levels[maker.price].size -= <uint64_t>size
    touch_order(s, slot)
    return after_fill(s, t, slot, maker_held, taker_held)


cdef int prevent(State* s, Taker* t, uint32_t slot) except -1 nogil:
    # Maker and taker are of one group. Returns 1 if the taker is ended by it (its leaves are for the caller to cancel).
    cdef Order* maker = &s.orders[slot]
    cdef uint32_t terms = s.details[slot].terms
    cdef uint8_t side = 1 - t.side
    cdef int64_t size = maker.leaves if t.budget or maker.leaves < t.leaves else t.leaves
    cdef int64_t maker_released = 0, taker_released = 0
    cdef PreventedEvent* e = <PreventedEvent*>add_event(s, EV_PREVENTED, 1, maker.account, t.market_index)
    if t.stp == DECREMENT:
        touch_order(s, slot)
        maker_released = pair_hold(s, order_hold(s, slot), terms)
        maker.leaves -= size
        maker.size -= size
        maker_released -= pair_hold(s, order_hold(s, slot), terms)
        hold(s, hold_slot(s, slot), -maker_released)
        t.market.half[side].levels[maker.price].size -= <uint64_t>size
        t.leaves -= size
        t.size -= size
        if t.held:
            taker_released = pair_hold(s, t.held, t.terms)
            t.held = required_hold(t.market, t.side, t.price, t.leaves, t.hold_ppm, t.credit)
            taker_released -= pair_hold(s, t.held, t.terms)
            hold(s, t.base if t.side == SELL else t.quote, -taker_released)
    e.taker_account = t.account
    e.mode = t.stp
    e.price = maker.price
    e.size = size
    e.maker_order_id = maker.order_id
    e.maker_leaves = whole_leaves(s, slot)
    e.maker_released = maker_released
    e.taker_order_id = t.order_id
    e.taker_leaves = t.leaves
    e.taker_released = taker_released
    if t.stp == CANCEL_OLDEST or t.stp == CANCEL_BOTH:
        cancel_slot(s, slot, WHY_STP)
    elif t.stp == DECREMENT and maker.leaves == 0:
        if whole_leaves(s, slot) > 0:
            refresh(s, slot)
        else:
            cancel_slot(s, slot, WHY_STP)
    return t.stp == CANCEL_NEWEST or t.stp == CANCEL_BOTH or t.leaves == 0


cdef int meet(State* s, Taker* t) except -1 nogil:
    # Until the taker is done, the book is, or a rule ends it. Returns the CancelReason of a rule, or 0.
    cdef int side = 1 - t.side
    cdef Half* half = &t.market.half[side]
    cdef Level* level
    cdef uint32_t slot
    cdef int64_t price, size, money, lots
    cdef int64_t edge = t.price if t.priced else (INT64_MAX if t.side == BUY else 0)  # no maker beyond it trades
    cdef Order* maker
    cdef OrderDetail* detail
    cdef bint market_buy = not t.priced and t.side == BUY
    if t.market.exec_band_ppm and half.best != 0 and t.leaves > 0:
        # The near side can only keep out the first maker: all others are farther away.
        if reaches(t.side, edge, half.best) and (half.best < s.band_low or half.best > s.band_high):
            return WHY_BAND
        if t.side == BUY and edge > s.band_high:
            edge = s.band_high
        elif t.side == SELL and edge < s.band_low:
            edge = s.band_low
    while t.leaves > 0 and half.best != 0:
        price = half.best
        if not reaches(t.side, edge, price):
            if t.priced and not reaches(t.side, t.price, price):
                return 0
            return WHY_BAND
        if s.fills == s.limits.max_fills:
            return WHY_FILLS_LIMIT
        level = &half.levels[price]
        slot = level.head
        maker = &s.orders[slot]
        detail = &s.details[slot]
        # What this fill and the next one touch is asked for before the sums of this one are done.
        prefetch_line(&s.ids[maker.id_slot])
        prefetch_line(<char*>&s.ids[maker.id_slot] + sizeof(IdNode) - 1)
        if maker.next != NIL:
            prefetch_line(&s.orders[maker.next])
            prefetch_line(&s.details[maker.next])
        if s.accounts[maker.account].stp_key == t.stp_key and t.stp != STP_NONE:
            s.fills += 1
            if prevent(s, t, slot):
                return WHY_STP
            continue
        size = maker.leaves if t.budget or maker.leaves < t.leaves else t.leaves
        if market_buy:
            book_taker(s, t)
            money = s.balances[t.quote].available if s.limits.risk else TOTAL_LIMIT
            if t.budget and t.leaves < money:
                money = t.leaves
            lots = lots_affordable(money, t.credit, t.taker_ppm, price * t.market.k)
            if lots == 0:
                return WHY_BUDGET if t.budget and money == t.leaves else WHY_FUNDS
            if lots < size:
                size = lots
        s.fills += 1
        if t.first_price == 0:
            t.first_price = price
            touch_market(s, t.market_index)
        t.market.last_price = price
        t.market.band_reference = price
        if (detail.terms & t.terms) != NIL:
            trade_with_terms(s, t, half, slot, size)
            continue
        fill(s, t, maker, detail, size, 0)
        level.size -= <uint64_t>size
        if maker.leaves != 0:
            touch_order(s, slot)
        else:
            dequeue_filled(s, half, side, level, maker)
            close_order(s, slot, STATUS_FILLED, maker.size)
    return 0


cdef int match(State* s, Taker* t) except -1 nogil:
    cdef int reason = meet(s, t)
    book_taker(s, t)
    return reason


cdef bint fills_wholly(State* s, Taker* t) noexcept nogil:
    # Whether a fok would really trade all it wants within the band and the fills limit. Nothing changes.
    cdef int side = 1 - t.side
    cdef Half* half = &t.market.half[side]
    cdef int64_t price = half.best, need = t.leaves
    cdef uint32_t slot, matches = s.fills
    cdef bint banded = t.market.exec_band_ppm != 0
    while price != 0 and reaches(t.side, t.price, price):
        if banded and (price < s.band_low or price > s.band_high):
            return False
        slot = half.levels[price].head
        while slot != NIL:
            if matches >= s.limits.max_fills:
                return False
            matches += 1
            if t.stp != STP_NONE and s.accounts[s.orders[slot].account].stp_key == t.stp_key:
                if t.stp != CANCEL_OLDEST:
                    return False
            else:
                if s.orders[slot].leaves >= need:
                    return True
                need -= s.orders[slot].leaves
            slot = s.orders[slot].next
        if t.market.slices != 0 and rounds_fill(s, t, half.levels[price].head, &need, &matches):
            return True
        price = next_worse(half, side, price)
    return False


cdef int conclude(State* s, Taker* t, int reason) except -1 nogil:
    # What matching left of a taker: filled, resting, or cancelled. Returns 1 if it rests because the band stopped it.
    if t.leaves == 0 and reason == 0:
        if t.slot == NIL:
            close_ids(s, t.id_slot, STATUS_FILLED, t.size)
        else:
            end_order(s, t.slot, STATUS_FILLED, t.size)
        return 0
    if (reason == 0 or reason == WHY_BAND) and t.priced and (t.tif == GTC or t.tif == GTD):
        rest(s, t)
        return reason == WHY_BAND
    if reason == 0:
        reason = WHY_IOC if t.priced else WHY_MARKET
    cancel_taker(s, t, reason)
    if t.slot == NIL:
        close_ids(s, t.id_slot, STATUS_CANCELED, t.size - t.leaves)
    else:
        end_order(s, t.slot, STATUS_CANCELED, t.size - t.leaves)
    return 0


cdef int take(State* s, Taker* t) except -1 nogil:
    # A taker's own matching, if its market trades, and its end. Returns 1 if the band stopped it and it rests.
    cdef int reason = 0
    if t.market.phase == CONTINUOUS:
        if t.tif == FOK and not fills_wholly(s, t):
            reason = WHY_FOK
        else:
            reason = match(s, t)
    return conclude(s, t, reason)


cdef int proceed(State* s, Taker* t) except -1 nogil:
    # The same for the taker of the command, and what follows from it: a pause, or the stops that its trades touched.
    if take(s, t):
        return pause(s, t.market_index)
    if t.market.stop_count != 0 and t.first_price != 0:
        return run_touched(s, t)
    return 0
