"""Where the levels of a half are: a window of prices, dense beside those of other halves.

    prices   0 ··················[ window ]······························ max_price
    block    [level | level | …][bits]                      64 bytes more or less each 4 levels, from one region of large pages
    half     levels, bits: pointers to the block, moved back by where the window begins, so that a price is the index

    none ──first order──▶ 16 ──▶ 64 ──▶ 128 … 4,096 prices ──▶ all prices: reserved address space of its own, for ever

A window of 64 prices is one kilobyte, its bits stand in the Half: a hundred thousand small books are as dense as one large
one. An order outside makes the window as large as that order and those that are there need, never smaller than it was,
and moves it over them; without any it just goes where the order is. A block that was left is the next one of its size.

All prices are the one thing that takes address space after the start: 33 bytes a tick, once for both halves of a market.
Who could come to need them asks before anything changes: `secure` for an order that may rest at the end of its command,
`secure_all` for a stop_limit, which rests some day where it says. So nothing that comes later can lack memory, and a command
that cannot have it is not applied at all: MemoryError, `State.untouched` (decision 0025).

Invariants: a market with a waiting stop_limit has `wide`; every order of a half is inside its window; bits of prices without orders are 0; what a level says counts only
if its bit is set. Where the region is used up, a half takes all prices at once.

Worst case: a move copies the levels that have orders, at most 4,096 (64 KiB); each later one needs an order half a window
farther away.
"""

from libc.string cimport memset

from engine.invariants cimport require
from engine.types cimport *


# ---------------------------------------------------------------- layers


cdef inline uint64_t* layers_of(Half* half) noexcept nogil:
    return half.bits + half.words if half.shift == WHOLE_SHIFT else &half.word


cdef void set_above(Half* half, int64_t price) noexcept nogil:
    cdef uint64_t at = <uint64_t>((price >> 6) - (half.low >> 6)), width = half.words, before
    cdef uint64_t* layer = layers_of(half)
    cdef int i
    for i in range(1, half.depth):
        before = layer[at >> 6]
        layer[at >> 6] = before | (<uint64_t>1 << (at & 63))
        if before:
            return
        width = (width + 63) >> 6
        layer += width
        at >>= 6


cdef void clear_above(Half* half, int64_t price) noexcept nogil:
    cdef uint64_t at = <uint64_t>((price >> 6) - (half.low >> 6)), width = half.words
    cdef uint64_t* layer = layers_of(half)
    cdef int i
    for i in range(1, half.depth):
        layer[at >> 6] &= ~(<uint64_t>1 << (at & 63))
        if layer[at >> 6]:
            return
        width = (width + 63) >> 6
        layer += width
        at >>= 6


cdef int64_t far_above(Half* half, int64_t price) noexcept nogil:
    # Climbs until a word has a bit above, and descends along the lowest ones.
    cdef uint64_t at = <uint64_t>((price >> 6) - (half.low >> 6)), width = half.words, word
    cdef uint64_t* layers[BITMAP_DEPTH]
    cdef uint64_t* layer = layers_of(half)
    cdef int i = 1
    while i < half.depth:
        layers[i] = layer
        word = layer[at >> 6] >> (at & 63) >> 1
        if word:
            at += 1 + lowest_bit(word)
            while i > 1:
                i -= 1
                at = (at << 6) | lowest_bit(layers[i][at])
            at += <uint64_t>(half.low >> 6)
            return <int64_t>((at << 6) | lowest_bit(half.bits[at]))
        width = (width + 63) >> 6
        layer += width
        at >>= 6
        i += 1
    return 0


cdef int64_t far_below(Half* half, int64_t price) noexcept nogil:
    cdef uint64_t at = <uint64_t>((price >> 6) - (half.low >> 6)), width = half.words, word
    cdef uint64_t* layers[BITMAP_DEPTH]
    cdef uint64_t* layer = layers_of(half)
    cdef int i = 1
    while i < half.depth:
        layers[i] = layer
        word = layer[at >> 6] & ((<uint64_t>1 << (at & 63)) - 1)
        if word:
            at = (at & ~<uint64_t>63) | highest_bit(word)
            while i > 1:
                i -= 1
                at = (at << 6) | highest_bit(layers[i][at])
            at += <uint64_t>(half.low >> 6)
            return <int64_t>((at << 6) | highest_bit(half.bits[at]))
        width = (width + 63) >> 6
        layer += width
        at >>= 6
        i += 1
    return 0


# ---------------------------------------------------------------- blocks


cdef size_t block_bytes(int shift) noexcept nogil:
    # Levels, and behind them the bits of more than one word, in whole lines.
    cdef size_t bytes = sizeof(Level) << shift
    if shift > WORD_SHIFT:
        bytes += ((<size_t>8 << (shift - WORD_SHIFT)) + 63) & ~<size_t>63
    return bytes


cdef uint8_t* take_block(State* s, int shift) noexcept nogil:
    # NULL: the region is used up.
    cdef uint32_t free = s.free_windows[shift]
    cdef uint8_t* block
    if free != NIL:
        block = s.windows + (<size_t>free << 6)
        s.free_windows[shift] = (<uint32_t*>block)[0]
        return block
    if s.windows_size - s.windows_used < block_bytes(shift):
        return NULL
    block = s.windows + s.windows_used
    s.windows_used += block_bytes(shift)
    return block


cdef void give_block(State* s, Half* half) noexcept nogil:
    cdef uint8_t* block = <uint8_t*>&half.levels[half.low]
    (<uint32_t*>block)[0] = s.free_windows[half.shift]
    s.free_windows[half.shift] = <uint32_t>(<size_t>(block - s.windows) >> 6)


# ---------------------------------------------------------------- windows


cdef int64_t begin_of(int shift, int64_t low, int64_t high) noexcept nogil:
    # Where such a window begins: at a word, with both prices about in the middle, or at the word of the lower one.
    cdef int64_t begin, width = <int64_t>1 << shift
    if shift == SMALLEST_SHIFT or shift == WORD_SHIFT:
        return (low >> shift) << shift
    begin = (low + high - width) // 2
    begin = 0 if begin < 64 else begin & ~<int64_t>63
    return begin if high - begin < width else low & ~<int64_t>63


cdef int fitting_shift(int64_t low, int64_t high) noexcept nogil:
    # Of the smallest window that has both prices: one word without crossing into the next, else half as many again as they
    # need where there are as many, so that the next ones find room on either side.
    cdef int shift = WORD_SHIFT + 1
    if low >> SMALLEST_SHIFT == high >> SMALLEST_SHIFT:
        return SMALLEST_SHIFT
    if low >> WORD_SHIFT == high >> WORD_SHIFT:
        return WORD_SHIFT
    while shift < LARGEST_SHIFT and (
        (high - low) * 3 > (<int64_t>2 << shift) or high - begin_of(shift, low, high) >= <int64_t>1 << shift
    ):
        shift += 1
    return shift if high - begin_of(shift, low, high) < <int64_t>1 << shift else WHOLE_SHIFT


cdef bint open_window(State* s, Half* half, int shift, int64_t low, int64_t high) noexcept nogil:
    # False: there is no block.
    cdef uint8_t* block = take_block(s, shift)
    if block == NULL:
        return False
    half.shift = shift
    half.low = begin_of(shift, low, high)
    half.levels = <Level*>block - half.low
    half.word = 0
    if shift <= WORD_SHIFT:
        half.words = half.depth = 1
        half.bits = &half.word - (half.low >> 6)
    else:
        half.words = <uint64_t>1 << (shift - WORD_SHIFT)
        half.depth = 2
        half.bits = <uint64_t*>(block + (sizeof(Level) << shift))
        memset(half.bits, 0, half.words * 8)
        half.bits -= half.low >> 6
    return True


cdef size_t upper_words(uint64_t words) noexcept nogil:
    cdef size_t total = 0
    while words > 1:
        words = (words + 63) >> 6
        total += words
    return total


cdef size_t whole_bytes(const Market* market) noexcept nogil:
    # Levels and bits of all prices of one half, in whole pages.
    cdef size_t words = <size_t>(market.max_price >> 6) + 1
    return ((words << 6) * sizeof(Level) + (words + upper_words(words)) * 8 + 4095) & ~<size_t>4095


cdef int open_whole(Market* market, Half* half) except -1 nogil:
    # All prices: in reserved address space, which costs memory only where it is touched.
    cdef uint64_t words = <uint64_t>(market.max_price >> 6) + 1
    require(market.wide != NULL, "a half takes all prices, and nobody has reserved them")
    half.shift = WHOLE_SHIFT
    half.low = 0
    half.words = words
    half.levels = <Level*>(market.wide + (0 if half == &market.half[BUY] else whole_bytes(market)))
    half.bits = <uint64_t*>&half.levels[words << 6]
    half.depth = 1
    while words > 1:
        words = (words + 63) >> 6
        half.depth += 1
    return 0


cdef int secure_all(State* s, Market* market) except -1 nogil:
    if market.wide == NULL:
        market.wide = <uint8_t*>region_map(2 * whole_bytes(market))
        if market.wide == NULL:
            s.untouched = True
            with gil:
                raise MemoryError(f"no address space for a book of {market.max_price} ticks")
    return 0


cdef int secure(State* s, Market* market, int side, int64_t price) except -1 nogil:
    # Orders that leave the half meanwhile make it need less. A region that runs short is as good as used up.
    cdef Half before = market.half[side]
    cdef int64_t begin, end, low, high
    if in_reach(&before, price) or market.wide != NULL:
        return 0
    if fitting_window(&before, price, &begin, &end, &low, &high) == WHOLE_SHIFT or (
        s.windows_size - s.windows_used < block_bytes(LARGEST_SHIFT)
    ):
        secure_all(s, market)
    return 0


cdef inline bint in_reach(const Half* half, int64_t price) noexcept nogil:
    return (<uint64_t>(price - half.low) >> half.shift) == 0


cdef int fitting_window(
    Half* before, int64_t price, int64_t* begin, int64_t* end, int64_t* low, int64_t* high
) noexcept nogil:
    # The shift that a half needs with an order at that price; its words of bits that have orders, from `begin` to before
    # `end`, and the prices from `low` to `high`. `before` is a copy.
    cdef int64_t at, first = before.low >> 6, last = first + <int64_t>before.words
    cdef int shift
    low[0] = high[0] = price
    if before.shift <= WORD_SHIFT:
        before.bits = &before.word - first
    if before.order_count == 0:
        first = last
    while first < last and before.bits[first] == 0:
        first += 1
    while first < last and before.bits[last - 1] == 0:
        last -= 1
    if first < last:
        at = (first << 6) | lowest_bit(before.bits[first])
        low[0] = at if at < price else price
        at = ((last - 1) << 6) | highest_bit(before.bits[last - 1])
        high[0] = at if at > price else price
    begin[0] = first
    end[0] = last
    shift = fitting_shift(low[0], high[0])
    return before.shift if shift < before.shift else shift


cdef int widen(State* s, Market* market, int side, int64_t price) except -1 nogil:
    cdef Half* half = &market.half[side]
    cdef Half before = half[0]
    cdef int64_t begin, end, low, high, at
    cdef uint64_t left
    cdef int shift = fitting_window(&before, price, &begin, &end, &low, &high)
    # Without orders the old block goes back first: a half that wanders about uses one.
    if before.order_count == 0 and before.depth != 0:
        give_block(s, &before)
    if shift == WHOLE_SHIFT or not open_window(s, half, shift, low, high):
        open_whole(market, half)
    if begin == end:
        return 0
    for at in range(begin, end):
        left = before.bits[at]
        if left != 0:
            half.bits[at] = left
            set_above(half, at << 6)
        while left:
            price = (at << 6) | lowest_bit(left)
            half.levels[price] = before.levels[price]
            left &= left - 1
    give_block(s, &before)
    return 0


cdef void close_windows(Market* market) noexcept:
    region_unmap(market.wide, 2 * whole_bytes(market))
