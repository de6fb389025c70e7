# The state hash (docs/state-hash.md): a running sum of one 128-bit mix per entity.
#
# Orders, balances and markets change all the time, so a change only marks them dirty; `settle` takes the mix they last
# added out of the sum and adds the new one. An order that comes and goes between two settlings is never mixed at all.
# Full dirty lists settle at once, so a cut mixes at most 3 × DIRTY_LIMIT entities. Ids, refs, assets and accounts
# change rarely and are mixed on the spot. Without money (`Core(risk=False)`) orders and markets are left out.

from libc.string cimport memcpy

from engine.types cimport (
    DIRTY_LIMIT, NIL, ABSENT, REF_PENDING, STATUS_OPEN, Account, Asset, Balance, IdNode, Market, Mix, Name, Order, OrderDetail,
    Poison, Posting, Ref, State, Terms, int64_t, mix_words, prefetch_line, uint8_t, uint32_t, uint64_t, uint128,
)

cdef enum:
    TAG_CLOCK = 1
    TAG_ASSET = 2
    TAG_MARKET = 3
    TAG_ACCOUNT = 4
    TAG_BALANCE = 5
    TAG_ORDER = 6
    TAG_CLIENT_ID = 7
    TAG_REF = 8
    TAG_POSTING = 9
    TAG_POISON = 10
    TAG_CONTENT = 0xC0


cdef inline void add_mix(State* s, uint128 mix) noexcept nogil:
    cdef uint128 total = ((<uint128>s.sum_high) << 64 | s.sum_low) + mix
    s.sum_low = <uint64_t>total
    s.sum_high = <uint64_t>(total >> 64)


cdef inline void remove_mix(State* s, uint128 mix) noexcept nogil:
    cdef uint128 total = ((<uint128>s.sum_high) << 64 | s.sum_low) - mix
    s.sum_low = <uint64_t>total
    s.sum_high = <uint64_t>(total >> 64)


cdef inline void replace_mix(State* s, Mix* kept, uint128 mix) noexcept nogil:
    cdef uint128 before = (<uint128>kept.high) << 64 | kept.low
    kept.low = <uint64_t>mix
    kept.high = <uint64_t>(mix >> 64)
    add_mix(s, mix - before)


cdef inline uint64_t pair(uint32_t low, uint32_t high) noexcept nogil:
    return low | (<uint64_t>high << 32)


# ---------------------------------------------------------------- mixes of entities


cdef inline uint128 mix_asset(Asset* asset, uint32_t index) noexcept nogil:
    cdef uint64_t w[12]
    w[0] = TAG_ASSET
    w[1] = index
    memcpy(&w[2], &asset.name, 64)
    w[10] = asset.scale
    w[11] = asset.settled
    return mix_words(w, 12)


cdef inline uint128 mix_market(Market* m, uint32_t index) noexcept nogil:
    cdef uint64_t w[31]
    w[0] = TAG_MARKET
    w[1] = index
    memcpy(&w[2], &m.name, 64)
    w[10] = pair(m.base, m.quote)
    w[11] = <uint64_t>m.tick
    w[12] = <uint64_t>m.lot
    w[13] = m.tick_decimals | (<uint64_t>m.lot_decimals << 8)
    w[14] = <uint64_t>m.k
    w[15] = <uint64_t>m.u
    w[16] = <uint64_t>m.min_size
    w[17] = <uint64_t>m.max_size
    w[18] = <uint64_t>m.max_price
    w[19] = <uint64_t><int64_t>m.taker_ppm
    w[20] = <uint64_t><int64_t>m.maker_ppm
    w[21] = <uint64_t>m.entry_band_ppm
    w[22] = <uint64_t>m.exec_band_ppm
    w[23] = <uint64_t>m.pause_ns
    w[24] = m.phase
    w[25] = <uint64_t>m.reference_price
    w[26] = <uint64_t>m.last_price
    w[27] = m.trade_count
    w[28] = <uint64_t>m.band_reference
    w[29] = <uint64_t>m.pause_at
    w[30] = m.pause_sequence
    return mix_words(w, 31)


cdef inline uint128 mix_account(Account* a, uint32_t index) noexcept nogil:
    cdef uint64_t w[29]
    w[0] = TAG_ACCOUNT
    w[1] = index
    memcpy(&w[2], &a.name, 64)
    w[10] = a.status | (<uint64_t>a.overdraft << 8) | (<uint64_t>a.killed << 16)
    w[11] = a.mask
    w[12] = <uint64_t><int64_t>a.taker_ppm
    w[13] = <uint64_t><int64_t>a.maker_ppm
    w[14] = a.max_open_orders
    memcpy(&w[15], a.row, 32)
    memcpy(&w[19], &a.stp_group, 64)
    w[27] = <uint64_t>a.cancel_after
    w[28] = a.cancel_after_sequence
    return mix_words(w, 29)


cdef inline uint128 mix_balance(Balance* b) noexcept nogil:
    cdef uint64_t w[4]
    if b.available == 0 and b.held == 0:
        return 0
    w[0] = TAG_BALANCE
    w[1] = pair(b.account, b.asset)
    w[2] = <uint64_t>b.available
    w[3] = <uint64_t>b.held
    return mix_words(w, 4)


cdef inline uint128 mix_order(State* s, uint32_t slot) noexcept nogil:
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Terms* terms
    cdef uint64_t w[21]
    w[0] = TAG_ORDER
    w[1] = o.order_id
    w[2] = pair(o.account, o.market)
    memcpy(&w[3], &s.ids[o.id_slot].client_id, 32)
    w[7] = d.side | (<uint64_t>d.type << 8) | (<uint64_t>d.tif << 16) | (<uint64_t>d.flags << 24) | (<uint64_t>d.stp << 32)
    w[8] = <uint64_t>o.price
    w[9] = <uint64_t>o.size
    w[10] = <uint64_t>o.leaves
    w[11] = d.join
    w[12] = <uint64_t><int64_t>d.taker_ppm
    w[13] = <uint64_t><int64_t>o.maker_ppm
    w[14] = o.credit
    w[15] = d.session
    w[16] = <uint64_t>ABSENT  # stop_price
    w[17] = <uint64_t>ABSENT  # display_size
    w[18] = <uint64_t>o.leaves  # displayed
    w[19] = <uint64_t>ABSENT  # expires_at
    w[20] = 0  # partner
    if d.terms != NIL:
        terms = &s.terms[d.terms]
        w[10] += <uint64_t>terms.hidden
        w[16] = <uint64_t>terms.stop_price
        w[17] = <uint64_t>terms.display_size
        w[18] = 0 if d.join == 0 else <uint64_t>o.leaves
        w[19] = <uint64_t>terms.expires_at
        if terms.partner != NIL:
            w[20] = s.orders[terms.partner].order_id
    return mix_words(w, 21)


cdef inline uint128 mix_id(IdNode* node) noexcept nogil:
    cdef uint64_t w[10]
    w[0] = TAG_CLIENT_ID
    w[1] = pair(node.account, node.market)
    memcpy(&w[2], &node.client_id, 32)
    w[6] = node.order_id
    w[7] = node.status
    w[8] = <uint64_t>node.filled
    w[9] = node.closing
    return mix_words(w, 10)


cdef inline uint128 mix_ref(Ref* r) noexcept nogil:
    cdef uint64_t w[26]
    w[0] = TAG_REF
    memcpy(&w[1], &r.ref, 64)
    w[9] = r.digest[0]
    w[10] = r.digest[1]
    w[11] = r.status
    w[12] = r.first_sequence
    w[13] = <uint64_t>r.not_after
    w[14] = <uint64_t>r.expires_at
    w[15] = r.posting_count
    memcpy(&w[16], r.code, 16)
    memcpy(&w[18], r.memo, 64)
    return mix_words(w, 26)


cdef inline uint128 mix_posting(State* s, uint64_t first_sequence, uint32_t number, Posting* p) noexcept nogil:
    cdef uint64_t w[6]
    w[0] = TAG_POSTING
    w[1] = first_sequence
    w[2] = number
    w[3] = pair(s.balances[p.source].account, s.balances[p.target].account)
    w[4] = s.balances[p.source].asset
    w[5] = <uint64_t>p.amount
    return mix_words(w, 6)


cdef inline uint128 mix_poison(Poison* p) noexcept nogil:
    cdef uint64_t w[6]
    w[0] = TAG_POISON
    w[1] = p.account
    memcpy(&w[2], &p.client_id, 32)
    return mix_words(w, 6)


cdef inline uint128 mix_clock(State* s) noexcept nogil:
    cdef uint64_t w[5]
    w[0] = TAG_CLOCK
    w[1] = s.sequence
    w[2] = <uint64_t>s.time
    w[3] = s.batch
    w[4] = s.batch_first
    return mix_words(w, 5)


# ---------------------------------------------------------------- dirty lists


cdef inline void settle_orders(State* s) noexcept nogil:
    # Orders that live long have left the cache by now, so those to come are asked for ahead.
    cdef uint32_t i, slot
    for i in range(s.dirty_order_count):
        if i + 16 < s.dirty_order_count:
            slot = s.dirty_orders[i + 16]
            prefetch_line(&s.orders[slot])
            prefetch_line(&s.details[slot])
            slot = s.dirty_orders[i + 8]
            if s.details[slot].dirty:
                prefetch_line(&s.ids[s.orders[slot].id_slot])
        slot = s.dirty_orders[i]
        if s.details[slot].dirty:
            s.details[slot].dirty = 0
            replace_mix(s, &s.details[slot].mix, mix_order(s, slot))
    s.dirty_order_count = 0


cdef inline void settle_balances(State* s) noexcept nogil:
    cdef uint32_t i
    cdef Balance* balance
    for i in range(s.dirty_balance_count):
        balance = &s.balances[s.dirty_balances[i]]
        balance.dirty = 0
        replace_mix(s, &balance.mix, mix_balance(balance))
    s.dirty_balance_count = 0


cdef inline void settle_markets(State* s) noexcept nogil:
    cdef uint32_t i, index
    for i in range(s.dirty_market_count):
        index = s.dirty_markets[i]
        s.markets[index].dirty = 0
        replace_mix(s, &s.markets[index].mix, mix_market(&s.markets[index], index))
    s.dirty_market_count = 0


cdef inline void touch_order(State* s, uint32_t slot) noexcept nogil:
    # Before or after any change of a resting order. A slot may stand in the list twice after it was reused: the second
    # is found clean.
    if s.limits.risk and not s.details[slot].dirty:
        if s.dirty_order_count == DIRTY_LIMIT:
            settle_orders(s)
        s.details[slot].dirty = 1
        s.dirty_orders[s.dirty_order_count] = slot
        s.dirty_order_count += 1


cdef inline void forget_order(State* s, uint32_t slot) noexcept nogil:
    # The order ends: what it added leaves the sum.
    s.details[slot].dirty = 0
    replace_mix(s, &s.details[slot].mix, 0)


cdef inline void touch_balance(State* s, uint32_t slot) noexcept nogil:
    if not s.balances[slot].dirty:
        if s.dirty_balance_count == DIRTY_LIMIT:
            settle_balances(s)
        s.balances[slot].dirty = 1
        s.dirty_balances[s.dirty_balance_count] = slot
        s.dirty_balance_count += 1


cdef inline void touch_market(State* s, uint32_t index) noexcept nogil:
    if s.limits.risk and not s.markets[index].dirty:
        if s.dirty_market_count == DIRTY_LIMIT:
            settle_markets(s)
        s.markets[index].dirty = 1
        s.dirty_markets[s.dirty_market_count] = index
        s.dirty_market_count += 1


cdef inline uint128 state_sum(State* s) noexcept nogil:
    settle_orders(s)
    settle_balances(s)
    settle_markets(s)
    return ((<uint128>s.sum_high) << 64 | s.sum_low) + mix_clock(s)
