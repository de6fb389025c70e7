"""Orders against the book: place, cancel, and what every taker goes through.

    place ─▶ checks in the order of the rulebook ─▶ accepted ─▶ match ─▶ rest, or cancel what is left ─▶ due stops
                      │                                          │
                      ▼                                          ├─ trade: maker's and taker's fee, hold, balances
                   rejected: nothing has changed                 └─ prevented: maker and taker of one group

The taker is a struct on the stack until it rests; only then it takes a slot. A replaced order that loses its place and a
stop that runs are takers with a slot, and so is from the start what has Terms (pairs.pyx): a stop price, a displayed
slice, an expiry, a partner. All checks come before `# From here on nothing is refused`.

Worst case: a taker and the stops it runs meet max_fills_per_command orders.
"""

from libc.stdint cimport INT64_MAX
from libc.string cimport memcpy

from engine.bands cimport begin_band, inside_band
from engine.book cimport dequeue, join_back, next_worse, reaches
from engine.digest cimport forget_order, touch_market, touch_order
from engine.events cimport add_event, add_rejected
from engine.ids cimport close_ids, open_id
from engine.pairs cimport after_fill, drop_terms, find_partner, open_terms, refresh, rounds_fill, show_slice
from engine.phases cimport pause
from engine.pool cimport (
    annex_of, find_balance, find_id, find_order, find_poison, index_order, pool_give, pool_room, pool_take, unindex_order,
)
from engine.risk cimport (
    balance_of, balance_room, beyond, collect_fee, hold, hold_slot, order_hold, pair_hold, partner_hold, pay_available,
    pay_held, receive, required_hold, whole_leaves,
)
from engine.stops cimport meets, run_stop, run_touched, stop_waiting, wait
from engine.timers cimport add_due
from engine.types cimport *


# ---------------------------------------------------------------- one order


cdef inline uint32_t take_slot(State* s, Taker* t) except? 0xFFFFFFFF nogil:
    # The order's place among its account's, found by its ids from now on. Not yet in a book; price, sizes and credit are
    # for the caller to set.
    cdef uint32_t slot = pool_take(&s.order_pool)
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Account* owner = &s.accounts[t.account]
    d.prior = NIL
    d.next = owner.first_order
    if owner.first_order != NIL:
        s.details[owner.first_order].prior = slot
    owner.first_order = slot
    owner.open_orders += 1
    d.mix.low = 0
    d.mix.high = 0
    d.dirty = 0
    d.older_names = 0
    d.join = 0
    d.base = t.base
    d.quote = t.quote
    d.terms = NIL
    d.taker_ppm = t.taker_ppm
    d.session = t.session
    d.side = t.side
    d.type = t.type
    d.tif = t.tif
    d.stp = t.stp
    d.flags = t.flags
    o.order_id = t.order_id
    o.account = t.account
    o.market = t.market_index
    o.maker_ppm = t.maker_ppm
    o.hold_ppm = t.hold_ppm
    o.id_slot = t.id_slot
    s.ids[t.id_slot].order = slot
    index_order(s, t.order_id, slot)
    return slot


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
    return join_back(s, &t.market.half[t.side], t.side, slot)


cdef int end_order(State* s, uint32_t slot, uint8_t status, int64_t filled) except -1 nogil:
    # Out of every index but the book and the stops. Its hold is settled by the caller.
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Account* owner = &s.accounts[o.account]
    if d.terms != NIL:
        drop_terms(s, slot)
    forget_order(s, slot)
    if d.prior != NIL:
        s.details[d.prior].next = d.next
    else:
        owner.first_order = d.next
    if d.next != NIL:
        s.details[d.next].prior = d.prior
    owner.open_orders -= 1
    unindex_order(s, o, slot)
    cdef uint32_t newest = o.id_slot
    pool_give(&s.order_pool, slot)
    close_ids(s, newest, status, filled)
    return 0


cdef int canceled_event(
    State* s, uint64_t order_id, uint32_t account, uint32_t market, const ClientId* client_id, int64_t leaves,
    int64_t released, uint8_t why,
) except -1 nogil:
    cdef CanceledEvent* e = <CanceledEvent*>add_event(s, EV_CANCELED, 1, account, market)
    (<Event*>e).reason = why
    e.order_id = order_id
    e.client_id = client_id[0]
    e.leaves = leaves
    e.released = released
    return 0


cdef int cancel_order(State* s, uint32_t slot, uint8_t why, int64_t other) except -1 nogil:
    # A resting or waiting order ends: event, hold back, out of book and indexes. `other` is held by its partner, and stays.
    cdef Order* o = &s.orders[slot]
    cdef int64_t released = beyond(order_hold(s, slot), other), leaves = whole_leaves(s, slot)
    cdef uint8_t side = s.details[slot].side
    canceled_event(s, o.order_id, o.account, o.market, &s.ids[o.id_slot].client_id, leaves, released, why)
    hold(s, hold_slot(s, slot), -released)
    if s.details[slot].join == 0:
        stop_waiting(s, slot)
    else:
        dequeue(s, &s.markets[o.market].half[side], side, slot)
    return end_order(s, slot, STATUS_CANCELED, o.size - leaves)


cdef int cancel_slot(State* s, uint32_t slot, uint8_t why) except -1 nogil:
    return cancel_order(s, slot, why, partner_hold(s, s.details[slot].terms))


cdef int cancel_taker(State* s, Taker* t, uint8_t why) except -1 nogil:
    # The taker's leaves end.
    cdef int64_t released = beyond(t.held, partner_hold(s, t.terms))
    canceled_event(
        s, t.order_id, t.account, t.market_index, &s.ids[t.id_slot].client_id, t.leaves, released, why
    )
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


cdef int trade(State* s, Taker* t, uint32_t slot, int64_t size) except -1 nogil:
    # One fill between the taker and the maker in `slot`, at the maker's price.
    cdef Order* maker = &s.orders[slot]
    cdef OrderDetail* detail = &s.details[slot]
    cdef Market* market = t.market
    cdef int64_t price = maker.price
    cdef int64_t notional = price * size * market.k
    cdef int64_t base_units = size * market.u
    cdef int64_t maker_fee, taker_fee, before, after, released, hidden = 0, maker_held = 0, taker_held = t.held
    cdef bint plain = (detail.terms & t.terms) == NIL
    cdef TradeEvent* e = <TradeEvent*>add_event(s, EV_TRADE, 1, maker.account, t.market_index)

    if not plain:
        maker_held = order_hold(s, slot)
        hidden = whole_leaves(s, slot) - maker.leaves
    touch_market(s, t.market_index)
    market.trade_count += 1
    market.last_price = price
    market.band_reference = price
    if not s.limits.risk:
        maker_fee = taker_fee = released = 0
        maker.leaves -= size
        t.leaves -= notional if t.budget else size
        e.buyer = t.side == BUY
    elif t.side == BUY:
        maker_fee = fee_increase(notional, maker.maker_ppm, &maker.credit)
        maker.leaves -= size
        taker_fee = fee_increase(notional, t.taker_ppm, &t.credit)
        if t.budget:
            t.leaves -= notional + taker_fee
        else:
            t.leaves -= size
        if t.priced:
            after = required_hold(market, BUY, t.price, t.leaves, t.hold_ppm, t.credit)
            released = t.held - after - notional - taker_fee
            t.held = after
            pay_held(s, t.quote, released, notional + taker_fee)
        else:
            released = 0
            pay_available(s, t.quote, notional + taker_fee)
        receive(s, t.base, base_units)
        pay_held(s, detail.base, 0, base_units)
        receive(s, detail.quote, notional - maker_fee)
        e.buyer = 1
    else:
        before = buy_hold(price * (maker.leaves + hidden) * market.k, maker.hold_ppm, maker.credit)
        maker_fee = fee_increase(notional, maker.maker_ppm, &maker.credit)
        maker.leaves -= size
        after = required_hold(market, BUY, price, maker.leaves + hidden, maker.hold_ppm, maker.credit)
        released = before - after - notional - maker_fee
        pay_held(s, detail.quote, released, notional + maker_fee)
        receive(s, detail.base, base_units)
        taker_fee = fee_increase(notional, t.taker_ppm, &t.credit)
        t.leaves -= size
        t.held -= base_units
        pay_held(s, t.base, 0, base_units)
        receive(s, t.quote, notional - taker_fee)
        e.buyer = 0
    collect_fee(s, market.fees, maker_fee + taker_fee)
    e.taker_account = t.account
    e.aggressor = t.side
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

    cdef int side = 1 - t.side
    market.half[side].levels[price].size -= <uint64_t>size
    if not plain:
        touch_order(s, slot)
        return after_fill(s, t, slot, maker_held, taker_held)
    if maker.leaves != 0:
        touch_order(s, slot)
        return 0
    dequeue(s, &market.half[side], side, slot)
    return end_order(s, slot, STATUS_FILLED, maker.size)


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


cdef int match(State* s, Taker* t) except -1 nogil:
    # Until the taker is done, the book is, or a rule ends it. Returns the CancelReason of a rule, or 0.
    cdef Half* half = &t.market.half[1 - t.side]
    cdef uint32_t slot
    cdef int64_t size, money, lots
    cdef int64_t edge = t.price if t.priced else (INT64_MAX if t.side == BUY else 0)  # no maker beyond it trades
    cdef Order* maker
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
        if not reaches(t.side, edge, half.best):
            if t.priced and not reaches(t.side, t.price, half.best):
                return 0
            return WHY_BAND
        if s.fills == s.limits.max_fills:
            return WHY_FILLS_LIMIT
        slot = half.levels[half.best].head
        maker = &s.orders[slot]
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
            money = s.balances[t.quote].available if s.limits.risk else TOTAL_LIMIT
            if t.budget and t.leaves < money:
                money = t.leaves
            lots = lots_affordable(money, t.credit, t.taker_ppm, maker.price * t.market.k)
            if lots == 0:
                return WHY_BUDGET if t.budget and money == t.leaves else WHY_FUNDS
            if lots < size:
                size = lots
        s.fills += 1
        if t.first_price == 0:
            t.first_price = maker.price
        trade(s, t, slot, size)
    return 0


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


# ---------------------------------------------------------------- place


cdef int reject_place(State* s, const PlaceRecord* r, int reason) except -1 nogil:
    cdef RejectedEvent* e = add_rejected(s, reason, r.account)
    memcpy(&e.text, &r.client_id, sizeof(ClientId))
    e.flags = REJECTED_CLIENT_ID
    return 0


cdef int duplicate_order(State* s, uint32_t id_slot) except -1 nogil:
    cdef IdNode* node = &s.ids[id_slot]
    cdef DuplicateEvent* e = <DuplicateEvent*>add_event(s, EV_DUPLICATE, 1, node.account, node.market)
    e.order_id = node.order_id
    memcpy(&e.text, &node.client_id, sizeof(ClientId))
    e.status = node.status
    e.filled = node.filled
    if node.status == STATUS_OPEN:
        e.filled = s.orders[node.order].size - whole_leaves(s, node.order)
        if s.details[node.order].join == 0:
            e.status = STATUS_WAITING
    return 0


cdef int check_terms(State* s, const PlaceRecord* r, uint16_t flags, Taker* t) except -1 nogil:
    # bad_display, bad_stop, bad_expiry: what most orders do not have.
    if r.display_size != ABSENT and (
        r.type != LIMIT or not (t.tif == GTC or t.tif == GTD) or r.display_size < t.market.min_size
        or r.display_size >= r.size or (r.size - 1) // SLICES_MAX >= r.display_size
    ):
        return BAD_DISPLAY
    if r.type == STOP or r.type == STOP_LIMIT:
        if r.stop_price < 1 or r.stop_price > t.market.max_price:
            return BAD_STOP
    elif r.stop_price != ABSENT:
        return BAD_STOP
    if t.tif == GTD:
        if r.expires_at == ABSENT or r.expires_at <= s.time:
            return BAD_EXPIRY
    elif r.expires_at != ABSENT:
        return BAD_EXPIRY
    return 0


cdef inline void find_pair(
    State* s, Account* account, uint32_t index, uint32_t market, uint32_t* base, uint32_t* quote
) noexcept nogil:
    # The slots of the account's balances in a market's two assets, or NIL. Those of its last market are at hand.
    if account.pair_market == market + 1:
        base[0] = account.pair_base
        quote[0] = account.pair_quote
        return
    base[0] = find_balance(s, index, s.markets[market].base)
    quote[0] = find_balance(s, index, s.markets[market].quote)
    if base[0] != NIL and quote[0] != NIL:
        account.pair_market = market + 1
        account.pair_base = base[0]
        account.pair_quote = quote[0]


cdef int check_place(State* s, const PlaceRecord* r, uint16_t flags, Taker* t) except -1 nogil:
    # The checks after poisoned. Fills in the taker. Returns 0 or the reject code.
    cdef Account* account = &s.accounts[r.account]
    cdef Market* market
    cdef Half* opposite
    cdef int64_t money
    cdef uint32_t slot
    cdef int reason
    if r.market >= s.market_count:
        return UNKNOWN_MARKET
    market = &s.markets[r.market]
    opposite = &market.half[1 - (r.side & 1)]
    if account.status | account.killed:
        if account.status == FROZEN:
            return REJECT_FROZEN
        return REJECT_CANCEL_ONLY if account.status == CANCEL_ONLY else KILLED
    if market.phase != CONTINUOUS:
        if market.phase >= PHASE_CANCEL_ONLY or r.type == MARKET_ORDER:
            return REJECT_PHASE
        if r.type == LIMIT and (r.tif == IOC or r.tif == FOK):
            return REJECT_PHASE
    if r.side > SELL or r.stp > STP_NONE or account.overdraft != NEVER or (<const uint8_t*>&r.client_id)[0] == 0:
        return BAD_VALUE

    t.market = market
    t.budget = (flags & PLACE_BUDGET) != 0
    t.tif = r.tif
    t.priced = True
    if r.type == LIMIT:
        if t.budget and r.stp == DECREMENT:
            return BAD_TYPE
        if r.tif == TIF_DEFAULT:
            t.tif = GTC
        elif r.tif > GTD:
            return BAD_TIF
        if (t.tif == IOC or t.tif == FOK) and flags & (PLACE_POST_ONLY | PLACE_HAS_OCO):
            return BAD_TIF
    else:
        if r.type < LIMIT or r.type > STOP_LIMIT or flags & PLACE_POST_ONLY or (t.budget and r.stp == DECREMENT):
            return BAD_TYPE
        if r.type == MARKET_ORDER:
            if flags & PLACE_HAS_OCO:
                return BAD_TYPE
            if r.tif != TIF_DEFAULT and r.tif != IOC:
                return BAD_TIF
            t.tif = IOC
        else:
            if r.tif == TIF_DEFAULT:
                t.tif = GTC
            elif r.tif > GTD or (r.type == STOP and r.tif != GTC and r.tif != GTD):
                return BAD_TIF
        t.priced = r.type == STOP_LIMIT
    if t.priced:
        if r.price < 1 or r.price > market.max_price:
            return BAD_PRICE
    elif r.price != ABSENT:
        return BAD_PRICE
    if flags & (PLACE_NO_SIZE | PLACE_BOTH_SIZES):
        return BAD_SIZE
    if t.budget:
        if t.priced or r.side == SELL or r.size < 1 or r.size > TOTAL_LIMIT:
            return BAD_SIZE
    elif r.size < market.min_size or r.size > market.max_size:
        return BAD_SIZE
    t.special = (
        r.type == STOP or r.type == STOP_LIMIT or t.tif == GTD or r.display_size != ABSENT or r.stop_price != ABSENT
        or r.expires_at != ABSENT or (flags & PLACE_HAS_OCO) != 0
    )
    if t.special:
        reason = check_terms(s, r, flags, t)
        if reason:
            return reason
    if market.entry_band_ppm and t.priced and not inside_band(market.band_reference, market.entry_band_ppm, r.price):
        return BAND
    if account.mask & HAS_MAX_OPEN_ORDERS and account.open_orders >= annex_of(s, r.account).max_open_orders:
        if r.type == STOP or r.type == STOP_LIMIT or t.tif == GTC or t.tif == GTD:
            return TOO_MANY_ORDERS
    if pool_room(&s.order_pool) == 0:
        return TOO_MANY_ORDERS
    t.partner = NIL
    if flags & PLACE_HAS_OCO:
        t.partner = find_partner(s, r)
        if t.partner == NIL:
            return BAD_OCO

    t.slot = NIL
    t.terms = NIL
    t.first_price = 0
    t.market_index = r.market
    t.account = r.account
    t.side = r.side
    t.type = r.type
    t.stp = r.stp
    t.flags = flags & (PLACE_POST_ONLY | PLACE_BUDGET)
    t.price = r.price
    t.size = r.size
    t.leaves = r.size
    t.credit = 0
    t.session = r.session
    t.order_id = s.sequence
    t.stp_key = account.stp_key
    t.taker_ppm = account.taker_ppm if account.mask & HAS_TAKER_PPM else market.taker_ppm
    t.maker_ppm = account.maker_ppm if account.mask & HAS_MAKER_PPM else market.maker_ppm
    t.hold_ppm = t.taker_ppm if t.taker_ppm > t.maker_ppm else t.maker_ppm
    if t.hold_ppm < 0:
        t.hold_ppm = 0
    t.base = t.quote = 0
    t.held = t.taken = 0
    if s.limits.risk:
        find_pair(s, account, r.account, r.market, &t.base, &t.quote)
        if t.priced or r.side == SELL:
            t.held = required_hold(market, r.side, r.price, r.size, t.hold_ppm, 0)
        t.taken = t.held if t.partner == NIL else beyond(t.held, order_hold(s, t.partner))
    if market.exec_band_ppm:
        begin_band(s, market)
    if s.limits.risk:
        slot = t.base if r.side == SELL else t.quote
        money = s.balances[slot].available if slot != NIL else 0
        if t.taken > money:
            return INSUFFICIENT_FUNDS
        if r.type == MARKET_ORDER and r.side == BUY and opposite.best != 0 and (
            market.exec_band_ppm == 0 or s.band_low <= opposite.best <= s.band_high
        ):
            if t.budget and r.size < money:
                money = r.size
            if lots_affordable(money, 0, t.taker_ppm, opposite.best * market.k) == 0:
                return INSUFFICIENT_FUNDS
    if flags & PLACE_POST_ONLY and opposite.best != 0 and market.phase == CONTINUOUS and reaches(
        r.side, r.price, opposite.best
    ):
        return WOULD_CROSS
    if r.type == MARKET_ORDER and opposite.best == 0:
        return NO_LIQUIDITY
    if not balance_room(s, (t.base == NIL) + (t.quote == NIL)):
        return BUSY
    return 0


cdef int place(State* s, const PlaceRecord* r, uint16_t flags) except -1 nogil:
    cdef Taker t
    cdef uint32_t known
    cdef int reason
    cdef AcceptedEvent* e
    if r.account >= s.account_count:
        return reject_place(s, r, UNKNOWN_ACCOUNT)
    if s.limits.risk:
        known = find_id(s, s.tag, r.account, &r.client_id)
        if known != NIL:
            return duplicate_order(s, known)
    if s.accounts[r.account].poisons and find_poison(s, r.account, <ClientId*>&r.client_id) != NIL:
        return reject_place(s, r, POISONED)
    reason = check_place(s, r, flags, &t)
    if reason:
        return reject_place(s, r, reason)

    # From here on nothing is refused.
    if t.base == NIL:
        t.base = balance_of(s, t.account, t.market.base)
    if t.quote == NIL:
        t.quote = balance_of(s, t.account, t.market.quote)
    t.id_slot = NO_NAME
    if s.limits.risk:
        t.id_slot = open_id(s, s.tag, t.account, t.market_index, &r.client_id, t.order_id)
    e = <AcceptedEvent*>add_event(s, EV_ACCEPTED, 1, t.account, t.market_index)
    e.order_id = t.order_id
    e.client_id = r.client_id
    e.price = r.price
    e.size = r.size
    e.hold = t.taken
    e.stop_price = r.stop_price
    e.display_size = r.display_size
    e.expires_at = r.expires_at
    e.side = t.side
    e.type = t.type
    e.tif = t.tif
    e.flags = t.flags
    hold(s, t.base if t.side == SELL else t.quote, t.taken)
    if t.special:
        return place_special(s, &t, r)
    return proceed(s, &t)


cdef int place_special(State* s, Taker* t, const PlaceRecord* r) except -1 nogil:
    # An order with Terms, accepted. It has a slot before it trades.
    cdef Order* o
    t.slot = take_slot(s, t)
    o = &s.orders[t.slot]
    o.price = t.price
    o.leaves = t.leaves
    o.size = t.size
    o.credit = 0
    t.terms = open_terms(s, t.slot, r, t.partner)
    touch_order(s, t.slot)
    if t.type == LIMIT:
        proceed(s, t)
    else:
        wait(s, t.slot)
        if t.market.phase == CONTINUOUS and meets(t.side, r.stop_price, t.market.last_price):
            run_stop(s, t.slot, t.market.last_price)
    if t.tif == GTD and find_order(s, t.order_id) == t.slot:
        add_due(s, r.expires_at, t.order_id, DUE_ORDER, t.slot)
    return 0


# ---------------------------------------------------------------- cancel


cdef uint32_t named_order(State* s, uint32_t account, const ClientId* client_id, uint16_t flags) noexcept nogil:
    # The account's open order with that order id or client id (the command's own: its tag is known), or NIL.
    cdef uint32_t slot
    if flags & ORDER_BY_ORDER_ID:
        slot = find_order(s, client_id.word[0])
        return slot if slot != NIL and s.orders[slot].account == account else NIL
    if not s.limits.risk:
        return NIL
    slot = find_id(s, s.tag, account, client_id)
    return s.ids[slot].order if slot != NIL and s.ids[slot].status == STATUS_OPEN else NIL  # open or waiting


cdef int reject_named(State* s, uint32_t account, const ClientId* client_id, uint16_t flags, int reason) except -1 nogil:
    cdef RejectedEvent* e = add_rejected(s, reason, account)
    if flags & (ORDER_BY_ORDER_ID | ORDER_BOTH_IDS):
        e.order_id = client_id.word[0]
        e.flags = REJECTED_ORDER_ID
    else:
        memcpy(&e.text, client_id, sizeof(ClientId))
        e.flags = REJECTED_CLIENT_ID
    return 0


cdef int cancel(State* s, const CancelRecord* r, uint16_t flags) except -1 nogil:
    cdef uint32_t slot
    if r.account >= s.account_count:
        return reject_named(s, r.account, &r.client_id, flags, UNKNOWN_ACCOUNT)
    if flags & ORDER_BOTH_IDS:
        return reject_named(s, r.account, &r.client_id, flags, BAD_VALUE)
    slot = named_order(s, r.account, &r.client_id, flags)
    if slot == NIL:
        return reject_named(s, r.account, &r.client_id, flags, UNKNOWN_ORDER)
    # From here on nothing is refused.
    return cancel_slot(s, slot, WHY_USER)
