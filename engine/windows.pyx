"""Where the levels of a half are: a window of prices, dense beside those of other halves.

    prices   0 ··················[ window ]······························ max_price
    block    [level | level | …][bits]                      64 bytes more or less each 4 levels, from one region of large pages
    half     levels, bits: pointers to the block, moved back by where the window begins, so that a price is the index

    none ──first order──▶ 16 ──▶ 64 ──▶ 128 … 4,096 prices ──▶ all prices: reserved address space of its own, for ever

A window of 64 prices is one kilobyte, its bits stand in the Half: a hundred thousand small books are as dense as one large
one. An order outside makes the window as large as that order and those that are there need, never smaller than it was,
and moves it over them; without any it just goes where the order is. A block that was left is the next one of its size.

Invariants: every order of a half is inside its window; bits of prices without orders are 0; what a level says counts only
if its bit is set. Where the region is used up, a half takes all prices at once.

Worst case: a move copies the levels that have orders, at most 4,096 (64 KiB); each later one needs an order half a window
farther away.
"""

from libc.string cimport memset

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


cdef int open_whole(Half* half, int64_t max_price) except -1 nogil:
    # All prices: levels and bits in reserved address space, which costs memory only where it is touched.
    cdef uint64_t words = <uint64_t>(max_price >> 6) + 1
    half.shift = WHOLE_SHIFT
    half.low = 0
    half.words = words
    half.levels = <Level*>region_map((<size_t>words << 6) * sizeof(Level))
    half.bits = <uint64_t*>region_map((words + upper_words(words)) * 8)
    if half.levels == NULL or half.bits == NULL:
        with gil:
            raise MemoryError(f"no address space for a book of {max_price} ticks")
    half.depth = 1
    while words > 1:
        words = (words + 63) >> 6
        half.depth += 1
    assert half.depth <= BITMAP_DEPTH
    return 0


cdef int widen(State* s, Half* half, uint32_t slot) except -1 nogil:
    cdef int64_t price = s.orders[slot].price, low = price, high = price, at
    cdef int64_t max_price = s.markets[s.orders[slot].market].max_price
    cdef int64_t begin = half.low >> 6, end = begin + <int64_t>half.words
    cdef Half before = half[0]
    cdef uint64_t left
    cdef int shift
    if before.shift <= WORD_SHIFT:
        before.bits = &before.word - begin
    # Without orders the old block goes back first: a half that wanders about uses one.
    if before.order_count == 0:
        if before.depth != 0:
            give_block(s, &before)
        begin = end
    while begin < end and before.bits[begin] == 0:
        begin += 1
    while begin < end and before.bits[end - 1] == 0:
        end -= 1
    if begin < end:
        at = (begin << 6) | lowest_bit(before.bits[begin])
        low = at if at < low else low
        at = ((end - 1) << 6) | highest_bit(before.bits[end - 1])
        high = at if at > high else high
    shift = fitting_shift(low, high)
    if shift < before.shift:
        shift = before.shift
    if shift == WHOLE_SHIFT or not open_window(s, half, shift, low, high):
        open_whole(half, max_price)
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


cdef void close_window(Half* half) noexcept:
    if half.shift == WHOLE_SHIFT:
        region_unmap(half.levels, (<size_t>half.words << 6) * sizeof(Level))
        region_unmap(half.bits, (half.words + upper_words(half.words)) * 8)
