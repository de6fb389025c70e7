"""The auction: at which one price a crossed book trades most, and the fills at it.

    B(p) = leaves of all bids at p or higher      S(p) = leaves of all asks at p or lower      volume = min(B, S)

    p     best ask ├────┬───────┬─────────────┬──┤ best bid       between two levels neither changes: one step for
    B     ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▆▆▆▆▆▆▆▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃                 a whole stretch of prices, however many ticks
    S     ▂▂▂▂▂▂▂▂▂▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▇▇▇▇

Of all ticks: most volume; least |B − S|; then the highest if all left have B > S, the lowest if all have B < S; else
the nearest to the band's reference, the lower of two. What icebergs hide counts.

Fills go from the best of each side, always to the end of one of the two, so their number is below that of the crossed
orders. They are no fills of the command's limit. Nobody prevents trading with oneself here.

Worst case: linear in the crossed levels, in markets with icebergs in the crossed orders.
"""

from engine.book cimport dequeue, has_level, lowest_price, next_above, next_below
from engine.digest cimport touch_market, touch_order
from engine.events cimport add_event
from engine.cancel cimport cancel_order
from engine.invariants cimport require
from engine.pairs cimport end_order, part, refreshed_event, show_slice
from engine.risk cimport collect_fee, order_hold, pay_held, receive, whole_leaves
from engine.types cimport *


cdef int64_t level_leaves(State* s, Market* market, int side, int64_t price) noexcept nogil:
    # Displayed and hidden.
    cdef Level* level = &market.half[side].levels[price]
    cdef int64_t sum = <int64_t>level.size
    cdef uint32_t slot
    if market.slices != 0:
        sum = 0
        slot = level.head
        while slot != NIL:
            sum += whole_leaves(s, slot)
            slot = s.orders[slot].next
    return sum


cdef Finding find_price(State* s, Market* market) noexcept nogil:
    cdef Half* bids = &market.half[BUY]
    cdef Half* asks = &market.half[SELL]
    cdef int64_t low = asks.best, high = bids.best, price, end, bid, ask, buys = 0, sells = 0
    cdef int64_t volume, size = 0, surplus, least = 0, lowest = 0, highest = 0, near, distance, nearest = 0, best = 0
    cdef bint all_buy = False, all_sell = False
    cdef Finding found
    found.price = ABSENT
    found.size = 0
    found.imbalance = 0
    if low == 0 or high == 0 or low > high:
        return found
    price = high
    while price != 0 and price >= low:
        buys += level_leaves(s, market, BUY, price)
        price = next_below(bids, price)
    # The next price, from here on, at which B falls behind it.
    if low < bids.low:
        bid = lowest_price(bids)
    else:
        bid = low if has_level(bids, low) else next_above(bids, low)
    ask = low  # the next at which S rises
    price = low
    while price <= high:
        if price == ask:
            sells += level_leaves(s, market, SELL, price)
            ask = next_above(asks, price)
        end = bid
        if ask != 0 and ask - 1 < end:
            end = ask - 1
        volume = buys if buys < sells else sells
        surplus = buys - sells if buys > sells else sells - buys
        if volume > size or (volume == size and surplus < least):
            # This stretch alone is best so far.
            size = volume
            least = surplus
            lowest = price
            all_buy = all_sell = True
            nearest = -1
        if volume == size and surplus == least:
            highest = end
            all_buy = all_buy and buys > sells
            all_sell = all_sell and buys < sells
            if market.band_reference != ABSENT:
                near = market.band_reference
                if near < price:
                    near = price
                elif near > end:
                    near = end
                distance = near - market.band_reference if near > market.band_reference else market.band_reference - near
                if nearest < 0 or distance < nearest:
                    nearest = distance
                    best = near
        if end == bid:
            buys -= level_leaves(s, market, BUY, bid)
            bid = next_above(bids, bid)
        price = end + 1
    if all_buy:
        found.price = highest
    elif all_sell or market.band_reference == ABSENT:
        found.price = lowest
    else:
        found.price = best
    found.size = size
    found.imbalance = imbalance_at(s, market, found.price)
    return found


cdef int64_t imbalance_at(State* s, Market* market, int64_t price) noexcept nogil:
    cdef int64_t at = market.half[BUY].best, sum = 0
    while at != 0 and at >= price:
        sum += level_leaves(s, market, BUY, at)
        at = next_below(&market.half[BUY], at)
    at = market.half[SELL].best
    while at != 0 and at <= price:
        sum -= level_leaves(s, market, SELL, at)
        at = next_above(&market.half[SELL], at)
    return sum


cdef int uncross(State* s, uint32_t index) except -1 nogil:
    """`uncrossed`, then the fills. The phase is the caller's."""
    cdef Market* market = &s.markets[index]
    cdef Finding found = find_price(s, market)
    cdef UncrossedEvent* e = <UncrossedEvent*>add_event(s, EV_UNCROSSED, 1, NIL, index)
    cdef uint32_t bid, ask
    e.price = found.price
    e.size = found.size
    e.imbalance = found.imbalance
    if found.price == ABSENT:
        return 0
    while (
        market.half[BUY].best >= found.price and market.half[SELL].best != 0 and market.half[SELL].best <= found.price
    ):
        bid = market.half[BUY].levels[market.half[BUY].best].head
        ask = market.half[SELL].levels[market.half[SELL].best].head
        if s.orders[bid].order_id < s.orders[ask].order_id:
            fill(s, market, index, bid, ask, found.price)
        else:
            fill(s, market, index, ask, bid, found.price)
    return 0


cdef int fill(State* s, Market* market, uint32_t index, uint32_t first, uint32_t second, int64_t price) except -1 nogil:
    # One fill; `first` is the older order, and called the maker.
    cdef int64_t size = whole_leaves(s, first), first_held = order_hold(s, first), second_held = order_hold(s, second)
    cdef int64_t notional, first_fee = 0, second_fee = 0, released = 0
    cdef bint first_buys = s.details[first].side == BUY, first_shown, second_shown
    cdef uint32_t partner, other
    cdef TradeEvent* e
    if whole_leaves(s, second) < size:
        size = whole_leaves(s, second)
    notional = price * size * market.k
    e = <TradeEvent*>add_event(s, EV_TRADE, 1, s.orders[first].account, index)
    touch_market(s, index)
    market.trade_count += 1
    market.last_price = price
    market.band_reference = price
    if s.limits.risk:
        first_fee = fee_increase(notional, uncross_ppm(s, first), &s.orders[first].credit)
        second_fee = fee_increase(notional, uncross_ppm(s, second), &s.orders[second].credit)
    first_shown = shrink(s, first, size)
    second_shown = shrink(s, second, size)
    if s.limits.risk:
        if first_buys:
            released = book_fill(s, market, first, second, size, notional, first_held, first_fee, second_fee)
        else:
            released = book_fill(s, market, second, first, size, notional, second_held, second_fee, first_fee)
    collect_fee(s, market.fees, first_fee + second_fee)
    e.taker_account = s.orders[second].account
    e.aggressor = AGGRESSOR_NONE
    e.buyer = not first_buys
    e.trade_id = market.trade_count
    e.price = price
    e.size = size
    e.notional = notional
    e.maker_order_id = s.orders[first].order_id
    e.maker_leaves = whole_leaves(s, first)
    e.maker_fee = first_fee
    e.taker_order_id = s.orders[second].order_id
    e.taker_leaves = whole_leaves(s, second)
    e.taker_fee = second_fee
    e.released = released
    partner = part(s, first)
    other = part(s, second)
    after_uncross(s, market, first, first_shown)
    after_uncross(s, market, second, second_shown)
    if partner != NIL:
        cancel_order(s, partner, WHY_OCO, first_held)
    if other != NIL:
        cancel_order(s, other, WHY_OCO, second_held)
    return 0


cdef int32_t uncross_ppm(State* s, uint32_t slot) noexcept nogil:
    return s.orders[slot].maker_ppm if s.orders[slot].maker_ppm > 0 else 0


cdef int64_t book_fill(
    State* s, Market* market, uint32_t buyer, uint32_t seller, int64_t size, int64_t notional, int64_t held,
    int64_t buyer_fee, int64_t seller_fee,
) except -1 nogil:
    # The money of a fill whose leaves and credits are those after it. Returns what the buyer's hold gave back.
    cdef int64_t released = held - order_hold(s, buyer) - notional - buyer_fee
    require(released >= 0, "an uncross takes more than a buyer holds")
    pay_held(s, s.details[buyer].quote, released, notional + buyer_fee)
    receive(s, s.details[buyer].base, size * market.u)
    pay_held(s, s.details[seller].base, 0, size * market.u)
    receive(s, s.details[seller].quote, notional - seller_fee)
    return released


cdef bint shrink(State* s, uint32_t slot, int64_t size) except -1 nogil:
    # Takes `size` off the leaves. True if an iceberg shows a new slice for it, in its place.
    cdef Order* o = &s.orders[slot]
    cdef uint32_t terms = s.details[slot].terms
    cdef Level* level = &s.markets[o.market].half[s.details[slot].side].levels[o.price]
    cdef int64_t whole = whole_leaves(s, slot) - size, shown = o.leaves
    cdef bint fresh = size >= shown and whole > 0
    touch_order(s, slot)
    if fresh:
        show_slice(s, slot, whole)
    else:
        o.leaves = shown - size if whole > 0 else 0
        if terms != NIL and whole == 0:
            s.terms[terms].hidden = 0
    level.size -= <uint64_t>(shown - o.leaves)
    return fresh


cdef int after_uncross(State* s, Market* market, uint32_t slot, bint fresh) except -1 nogil:
    cdef uint8_t side = s.details[slot].side
    if fresh:
        return refreshed_event(s, slot)
    if s.orders[slot].leaves == 0:
        dequeue(s, &market.half[side], side, slot)
        return end_order(s, slot, STATUS_FILLED, s.orders[slot].size)
    return 0
