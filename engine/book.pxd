# One market's book: two halves, each an array of levels by price with a bitmap over it.
#
#     bits[2]                  1 . . . . . . .                          a bit per word of bits[1]
#     bits[1]          1 . 1 . . . . . | . . . . . . . .                a bit per word of bits[0]
#     bits[0]   ..1..11. | ........ | .1...... |                        a bit per price
#     levels    [head|tail|size] by price                               16 bytes each
#     orders     head ⇄ order ⇄ order ⇄ tail                            oldest first
#
# A price finds its level by index; the next price after an emptied best is one or two bit scans up and down the bitmap,
# however far away it is. Levels live in reserved address space: a market of 10^6 ticks costs 4 KiB for each page of 256
# prices that was ever used, not 32 MB. max_price is bounded by CoreLimits.max_price (2^36 by default at most): a larger
# listing is refused `busy`.
#
# Invariants: a level's bit is set exactly if it has orders; size is the sum of what they display (Order.leaves); best is the highest bid or
# the lowest ask (0: none); the queue is in order of joining. Worst case of every function: `depth` words.

from libc.string cimport memset

from engine.digest cimport touch_order
from engine.types cimport (
    BITMAP_DEPTH, BUY, MARKET_ORDER, NIL, STOP, STP_NONE, Half, Level, Order, State, choose, either, highest_bit, int64_t,
    lowest_bit, region_map, region_unmap,
    uint8_t, uint32_t, uint64_t,
)


cdef inline int half_open(Half* half, int64_t max_price) except -1 nogil:
    cdef size_t words = <size_t>((max_price + 1) >> 6) + 1, total = 0
    cdef size_t width[BITMAP_DEPTH]
    cdef int depth = 0
    while True:
        width[depth] = words
        total += words
        depth += 1
        if words == 1:
            break
        assert depth < BITMAP_DEPTH
        words = (words + 63) >> 6
    memset(half, 0, sizeof(Half))
    half.levels_bytes = (<size_t>max_price + 1) * sizeof(Level)
    half.bits_bytes = total * 8
    half.levels = <Level*>region_map(half.levels_bytes)
    cdef uint64_t* bits = <uint64_t*>region_map(half.bits_bytes)
    if half.levels == NULL or bits == NULL:
        with gil:
            raise MemoryError(f"no address space for a book of {max_price} ticks")
    half.depth = depth
    cdef int i
    for i in range(depth):
        half.bits[i] = bits
        bits += width[i]
    return 0


cdef inline void half_close(Half* half) noexcept:
    region_unmap(half.levels, half.levels_bytes)
    region_unmap(half.bits[0], half.bits_bytes)
    half.levels = NULL
    half.bits[0] = NULL


cdef inline bint has_level(Half* half, int64_t price) noexcept nogil:
    return (half.bits[0][price >> 6] >> (price & 63)) & 1


cdef inline void set_bits_above(Half* half, int64_t at) noexcept nogil:
    # Word `at` of the lowest bits has its first bit.
    cdef int i
    cdef uint64_t* word
    cdef uint64_t before
    for i in range(1, half.depth):
        word = &half.bits[i][at >> 6]
        before = word[0]
        word[0] = before | (<uint64_t>1 << (at & 63))
        if before:
            return
        at >>= 6


cdef inline void clear_bit(Half* half, int64_t price) noexcept nogil:
    cdef int i
    cdef uint64_t* word
    for i in range(half.depth):
        word = &half.bits[i][price >> 6]
        word[0] &= ~(<uint64_t>1 << (price & 63))
        if word[0]:
            return
        price >>= 6


cdef inline int64_t next_above(Half* half, int64_t price) noexcept nogil:
    # The lowest price with orders above `price`, or 0.
    cdef int i = 0
    cdef int64_t at = price
    cdef uint64_t word
    while i < half.depth:
        # Bits strictly above `at` in its word; a shift by 64 is avoided by shifting twice.
        word = half.bits[i][at >> 6] >> (at & 63) >> 1
        if word:
            at += 1 + lowest_bit(word)
            while i:
                i -= 1
                at = (at << 6) | lowest_bit(half.bits[i][at])
            return at
        at >>= 6
        i += 1
    return 0


cdef inline int64_t next_below(Half* half, int64_t price) noexcept nogil:
    # The highest price with orders below `price`, or 0.
    cdef int i = 0
    cdef int64_t at = price
    cdef uint64_t word
    while i < half.depth:
        word = half.bits[i][at >> 6] & ((<uint64_t>1 << (at & 63)) - 1)
        if word:
            at = (at & ~<int64_t>63) | highest_bit(word)
            while i:
                i -= 1
                at = (at << 6) | highest_bit(half.bits[i][at])
            return at
        at >>= 6
        i += 1
    return 0


cdef inline int64_t next_worse(Half* half, int side, int64_t price) noexcept nogil:
    return next_below(half, price) if side == BUY else next_above(half, price)


cdef inline int64_t first_price(Half* half, int side, int64_t max_price) noexcept nogil:
    # The best price as the bitmap has it; `half.best` caches it.
    return next_below(half, max_price + 1) if side == BUY else next_above(half, 0)


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
    cdef uint64_t* word = &half.bits[0][price >> 6]
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
    if before == 0:
        set_bits_above(half, price >> 6)


cdef inline int join_back(State* s, Half* half, int side, uint32_t slot) except -1 nogil:
    # Into the back of its level, as of now.
    s.details[slot].join = (s.sequence << 20) + s.joins
    s.joins += 1
    touch_order(s, slot)
    enqueue(s, half, side, slot)
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
        level.tail = NIL
        emptied(s, half, side, level, order.price)
