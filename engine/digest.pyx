"""The mixes of entities, and what happens to them once a list of dirty ones is settled: see digest.pxd.

    touch ─▶ mark: the mix of now leaves the sum ─▶ dirty list ─▶ settle: the mix of then joins it

Apart from digest.pxd so that the functions that trade hold no more of it than the look at a flag.

Worst case: a settling of DIRTY_LIMIT entities.
"""

from libc.string cimport memcpy, memset

from engine.pool cimport account_name, annex_of, owner_of
from engine.types cimport *


cdef uint128 mix_asset(Asset* asset, uint32_t index) noexcept nogil:
    cdef uint64_t w[12]
    w[0] = TAG_ASSET
    w[1] = index
    memcpy(&w[2], &asset.name, 64)
    w[10] = asset.scale
    w[11] = asset.settled
    return mix_words(w, 12)


cdef void fix_market(Market* m, uint32_t index) noexcept nogil:
    # To be called when anything of it changed that is not in line with a trade: what is kept is the sum of all other pairs.
    cdef uint64_t w[26]
    cdef uint128 sum
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
    w[21] = <uint64_t><int64_t>m.entry_band_ppm
    w[22] = <uint64_t><int64_t>m.exec_band_ppm
    w[23] = <uint64_t>m.pause_ns
    w[24] = m.phase
    w[25] = <uint64_t>m.reference_price
    sum = mix_part(w, 0, 26) + mix_part(&m.pause_sequence, 30, 1)
    m.fixed.low = <uint64_t>sum
    m.fixed.high = <uint64_t>(sum >> 64)


cdef uint128 mix_market(const Market* m) noexcept nogil:
    cdef uint64_t w[4]
    w[0] = <uint64_t>m.last_price
    w[1] = m.trade_count
    w[2] = <uint64_t>m.band_reference
    w[3] = <uint64_t>m.pause_at
    return mix_finish(((<uint128>m.fixed.high) << 64 | m.fixed.low) + mix_part(w, 26, 4))


cdef void account_group(State* s, const Account* account, Name* group) noexcept nogil:
    # Its self-trade group, or zeros.
    if account.stp_key & STP_GROUP:
        group[0] = (<Name*>s.group_pool.nodes)[account.stp_key & ~<uint32_t>STP_GROUP]
    else:
        memset(group, 0, sizeof(Name))


cdef uint128 mix_account(State* s, uint32_t index) noexcept nogil:
    cdef Account* a = &s.accounts[index]
    cdef const Annex* annex = annex_of(s, index)
    cdef uint64_t w[29]
    w[0] = TAG_ACCOUNT
    w[1] = index
    account_name(s, index, <Name*>&w[2])
    w[10] = a.status | (<uint64_t>a.overdraft << 8) | (<uint64_t>a.killed << 16)
    w[11] = a.mask
    w[12] = <uint64_t><int64_t>a.taker_ppm
    w[13] = <uint64_t><int64_t>a.maker_ppm
    w[14] = annex.max_open_orders
    memcpy(&w[15], annex.row, 32)
    account_group(s, a, <Name*>&w[19])
    w[27] = <uint64_t>annex.cancel_after
    w[28] = annex.cancel_after_sequence
    return mix_words(w, 29)


cdef uint128 mix_balance(State* s, uint32_t slot) noexcept nogil:
    cdef Balance* b = &s.balances[slot]
    cdef uint64_t w[4]
    if b.available == 0 and b.held == 0:
        return 0
    w[0] = TAG_BALANCE
    w[1] = pair(owner_of(s, slot), b.asset)
    w[2] = <uint64_t>b.available
    w[3] = <uint64_t>b.held
    return mix_words(w, 4)


cdef uint128 mix_order(State* s, uint32_t slot) noexcept nogil:
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


cdef uint128 mix_ref(Ref* r) noexcept nogil:
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


cdef uint128 mix_posting(State* s, uint64_t first_sequence, uint32_t number, Posting* p) noexcept nogil:
    cdef uint64_t w[6]
    w[0] = TAG_POSTING
    w[1] = first_sequence
    w[2] = number
    w[3] = pair(owner_of(s, p.source), owner_of(s, p.target))
    w[4] = s.balances[p.source].asset
    w[5] = <uint64_t>p.amount
    return mix_words(w, 6)


cdef uint128 mix_poison(Poison* p) noexcept nogil:
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


cdef void settle_orders(State* s) noexcept nogil:
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


cdef void settle_balances(State* s) noexcept nogil:
    cdef uint32_t i, slot, link
    for i in range(s.dirty_balance_count):
        if i + 16 < s.dirty_balance_count:
            prefetch_line(&s.balances[s.dirty_balances[i + 16]])
            link = s.balances[s.dirty_balances[i + 8]].link
            if not link & LINK_END:
                prefetch_line(&s.balances[link & LINK_SLOT])
        slot = s.dirty_balances[i]
        s.balances[slot].link &= ~<uint32_t>LINK_DIRTY
        add_mix(s, mix_balance(s, slot))
    s.dirty_balance_count = 0


cdef void settle_markets(State* s) noexcept nogil:
    cdef uint32_t i, index
    for i in range(s.dirty_market_count):
        if i + 16 < s.dirty_market_count:
            index = s.dirty_markets[i + 16]
            prefetch_line(&s.markets[index])
            prefetch_line(&s.markets[index].last_price)
        index = s.dirty_markets[i]
        s.markets[index].dirty = 0
        add_mix(s, mix_market(&s.markets[index]))
    s.dirty_market_count = 0


cdef void mark_balance(State* s, uint32_t slot) noexcept nogil:
    if s.dirty_balance_count == DIRTY_LIMIT:
        settle_balances(s)
    remove_mix(s, mix_balance(s, slot))
    s.balances[slot].link |= LINK_DIRTY
    s.dirty_balances[s.dirty_balance_count] = slot
    s.dirty_balance_count += 1


cdef void mark_market(State* s, uint32_t index) noexcept nogil:
    if s.dirty_market_count == DIRTY_LIMIT:
        settle_markets(s)
    remove_mix(s, mix_market(&s.markets[index]))
    s.markets[index].dirty = 1
    s.dirty_markets[s.dirty_market_count] = index
    s.dirty_market_count += 1


cdef uint128 state_sum(State* s) noexcept nogil:
    settle_orders(s)
    settle_balances(s)
    settle_markets(s)
    return ((<uint128>s.sum_high) << 64 | s.sum_low) + mix_clock(s)
