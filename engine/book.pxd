# One market's book: two halves, each an array of levels by price with a bitmap over it.
#
#     upper            1 . 1 . . . . . | . . . . . . . .                a bit per word of bits; above it the same again
#     bits      ..1..11. | ........ | .1...... |                        a bit per price
#     levels    [head|tail|size] by price                               16 bytes each
#     orders     head ⇄ order ⇄ order ⇄ tail                            oldest first
#
# A price finds its level by index; the next price after an emptied best is one or two bit scans up and down the bitmap,
# however far away it is. Only the prices of a window have levels: windows.pyx moves and widens it, and `join_back` asks
# whether it must. So a book of a few orders takes a kilobyte, wherever they are.
#
# Invariants: a level's bit is set exactly if it has orders; size is the sum of what they display (Order.leaves); best is the highest bid or
# the lowest ask (0: none); the queue is in order of joining. Worst case of every function but `join_back`: `depth` words.

from engine.digest cimport touch_order
from engine.types cimport (
    BUY, MARKET_ORDER, NIL, STOP, STP_NONE, WHOLE_SHIFT, Half, Level, Market, Order, State, choose, either, highest_bit, int64_t,
    lowest_bit, rarely, uint8_t, uint32_t, uint64_t,
)
from engine.windows cimport clear_above, far_above, far_below, set_above, widen


cdef inline bint in_window(const Half* half, int64_t price) noexcept nogil:
    # Whether the price, not 0, has a level.
    return (<uint64_t>(price - half.low) >> half.shift) == 0


cdef inline bint has_level(Half* half, int64_t price) noexcept nogil:
    # Whether a price of the window has orders.
    return (half.bits[price >> 6] >> (price & 63)) & 1


cdef inline void clear_bit(Half* half, int64_t price) noexcept nogil:
    cdef uint64_t* word = &half.bits[price >> 6]
    word[0] &= ~(<uint64_t>1 << (price & 63))
    if word[0] == 0 and half.depth > 1:
        clear_above(half, price)


cdef inline int64_t next_above(Half* half, int64_t price) noexcept nogil:
    # The lowest price with orders above `price`, which is in the window, or 0.
    # Bits strictly above it in its word; a shift by 64 is avoided by shifting twice.
    cdef uint64_t word = half.bits[price >> 6] >> (price & 63) >> 1
    if word:
        return price + 1 + lowest_bit(word)
    return far_above(half, price) if half.depth > 1 else 0


cdef inline int64_t next_below(Half* half, int64_t price) noexcept nogil:
    # The highest price with orders below `price`, which is in the window, or 0.
    cdef uint64_t word = half.bits[price >> 6] & ((<uint64_t>1 << (price & 63)) - 1)
    if word:
        return (price & ~<int64_t>63) | highest_bit(word)
    return far_below(half, price) if half.depth > 1 else 0


cdef inline int64_t next_worse(Half* half, int side, int64_t price) noexcept nogil:
    return next_below(half, price) if side == BUY else next_above(half, price)


cdef inline int64_t lowest_price(Half* half) noexcept nogil:
    # With orders, as the bitmap has it, or 0.
    if half.depth == 0:
        return 0
    return half.low if has_level(half, half.low) else next_above(half, half.low)


cdef inline int64_t highest_price(Half* half) noexcept nogil:
    cdef int64_t last
    if half.depth == 0:
        return 0
    last = half.low + (<int64_t>1 << half.shift) - 1 if half.shift != WHOLE_SHIFT else <int64_t>(half.words << 6) - 1
    return last if has_level(half, last) else next_below(half, last)


cdef inline int64_t first_price(Half* half, int side) noexcept nogil:
    # The best price as the bitmap has it; `half.best` caches it.
    return highest_price(half) if side == BUY else lowest_price(half)


cdef inline bint reaches(int side, int64_t price, int64_t best) noexcept nogil:
    # Whether an order of that side at `price` meets an opposite one at `best`: a buy not below it, a sell not above.
    # Without a branch: sides come too mixed to be predicted.
    return ((price - best) ^ -<int64_t>side) + side >= 0


cdef inline bint meets_again(uint8_t type, uint8_t side, uint8_t stp) noexcept nogil:
    # Whether an order may trade many times with one maker: a buy that spends what its account has gets the money back
    # from a maker of its own.
    return (type == MARKET_ORDER or type == STOP) and side == BUY and stp == STP_NONE


cdef inline bint beats(int side, int64_t price, int64_t best) noexcept nogil:
    # Whether `price` is better than `best` for an order of that side.
    return ((price - best) ^ -<int64_t>side) + side > 0


cdef inline uint32_t* link_to(uint32_t slot, uint32_t* link, uint32_t* end) noexcept nogil:
    # The neighbour's link, or where there is none the end of the queue. Without a branch: nobody can tell which comes.
    return <uint32_t*>either(slot != NIL, link, end)


cdef inline void enqueue(State* s, Half* half, int side, uint32_t slot) noexcept nogil:
    # Puts an order at the back of its level.
    cdef Order* order = &s.orders[slot]
    cdef int64_t price = order.price
    cdef Level* level = &half.levels[price]
    cdef uint64_t* word = &half.bits[price >> 6]
    cdef uint64_t before = word[0], bit = <uint64_t>1 << (price & 63)
    cdef uint64_t there = -((before >> (price & 63)) & 1)  # all ones if the level has orders
    cdef uint32_t last = level.tail | <uint32_t>~there
    s.broken |= order.leaves - 1
    order.next = NIL
    order.prior = last
    link_to(last, &s.orders[last].next, &level.head)[0] = slot
    level.tail = slot
    level.size = (level.size & there) + <uint64_t>order.leaves
    half.order_count += 1
    half.best = choose((half.best == 0) | beats(side, price, half.best), price, half.best)
    word[0] = before | bit
    if before == 0 and half.depth > 1:
        set_above(half, price)


cdef inline void join_window(State* s, Half* half, int side, uint32_t slot) noexcept nogil:
    # Into the back of its level, as of now; its price is in the window.
    s.details[slot].join = (s.sequence << 20) + s.joins
    s.joins += 1
    touch_order(s, slot)
    enqueue(s, half, side, slot)


cdef inline int join_back(State* s, Market* market, int side, uint32_t slot) except -1 nogil:
    # The same at any price. Worst case: what the half has goes to another window.
    cdef Half* half = &market.half[side]
    if rarely(not in_window(half, s.orders[slot].price)):
        widen(s, market, side, s.orders[slot].price)
    join_window(s, half, side, slot)
    return 0


cdef inline void emptied(State* s, Half* half, int side, Level* level, int64_t price) noexcept nogil:
    # The last order has left. A level that still counts a size is broken.
    s.broken |= -<int64_t>(level.size != 0)
    clear_bit(half, price)
    if price == half.best:
        half.best = next_worse(half, side, price)


cdef inline void dequeue(State* s, Half* half, int side, uint32_t slot) noexcept nogil:
    # Takes an order out of its level; its leaves must still be what the level counts.
    cdef Order* order = &s.orders[slot]
    cdef int64_t price = order.price
    cdef Level* level = &half.levels[price]
    cdef uint32_t prior = order.prior, next = order.next
    level.size -= order.leaves
    half.order_count -= 1
    link_to(prior, &s.orders[prior].next, &level.head)[0] = next
    link_to(next, &s.orders[next].prior, &level.tail)[0] = prior
    if (prior & next) == NIL:
        emptied(s, half, side, level, price)


cdef inline void dequeue_filled(State* s, Half* half, int side, Level* level, Order* order) noexcept nogil:
    # The same for the first order of the best level, whose size is off the level already.
    cdef uint32_t next = order.next
    half.order_count -= 1
    level.head = next
    if next != NIL:
        s.orders[next].prior = NIL
    else:
        emptied(s, half, side, level, order.price)
