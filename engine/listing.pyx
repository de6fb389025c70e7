"""Who and what exists: assets, markets, accounts.

Each gets the next index and keeps it. A repeated asset is refused, a repeated market may change rates, bands and pause, a
repeated account whatever it says but its overdraft. A listing is judged as a whole before anything of it counts: k and u
whole numbers, no product of price, size and k beyond 2^62.

Worst case: freezing an account cancels all its orders.
"""

from libc.stdint cimport INT64_MAX
from libc.string cimport memcmp, memcpy, memset

from engine.digest cimport account_group, add_mix, fix_market, mix_account, mix_asset, mix_market, remove_mix, touch_market
from engine.events cimport add_event
from engine.pool cimport (
    account_name, annex_of, find_account, find_asset, find_market, find_named, is_empty, map_put,
    name_account, name_tag, own_annex, pool_room, pool_take,
)
from engine.refs cimport judge_ref, keep_ref, optional_ref, reject_definition
from engine.risk cimport balance_of, balance_room
from engine.scopes cimport cancel_account
from engine.types cimport *


# ---------------------------------------------------------------- assets and markets


cdef int do_asset(State* s, const Record* record) except -1 nogil:
    cdef const AssetRecord* r = <const AssetRecord*>record
    cdef const RefSlot* ref = optional_ref(record)
    cdef Asset* asset
    cdef uint32_t index = s.asset_count
    cdef int reason = 0
    if ref != NULL and judge_ref(s, record, &ref.ref, ref.not_after, NIL):
        return 0
    if is_empty(&r.name) or r.scale > 9 or r.settled > 1:
        reason = BAD_VALUE
    elif find_asset(s, <Name*>&r.name) != NIL:
        reason = EXISTS
    elif index == s.limits.assets or (ref != NULL and pool_room(&s.ref_pool) == 0):
        reason = BUSY
    if reason:
        return reject_definition(s, reason, NIL, ref)

    # From here on nothing is refused.
    asset = &s.assets[index]
    memset(asset, 0, sizeof(Asset))
    asset.name = r.name
    asset.scale = r.scale
    asset.settled = r.settled
    s.asset_count += 1
    map_put(&s.asset_map, name_tag(s, &asset.name), index)
    add_mix(s, mix_asset(asset, index))
    if ref != NULL:
        keep_ref(s, record, &ref.ref, ref.not_after)
    return write_done_asset(s, index)


cdef int write_done_asset(State* s, uint32_t index) except -1 nogil:
    cdef DoneAssetEvent* e = <DoneAssetEvent*>add_event(s, EV_DONE, 1, NIL, index)
    (<Event*>e).op = DO_ASSET
    e.name = s.assets[index].name
    e.scale = s.assets[index].scale
    e.settled = s.assets[index].settled
    return 0


cdef int64_t given(uint32_t mask, uint32_t bit, int64_t value, int64_t default) noexcept nogil:
    return value if mask & bit else default


cdef int check_listing(
    State* s, const MarketRecord* r, const MarketTerms* terms, const Market* known, Market* m
) except -1 nogil:
    # Fills in the market that the command says, judged as a listing of its own. What a repeat (of `known`, else NULL)
    # leaves out is as listed.
    cdef int64_t most, notional
    cdef uint32_t mask = r.mask
    if r.base >= s.asset_count or r.quote >= s.asset_count:
        return UNKNOWN_ASSET
    m.base = r.base
    m.quote = r.quote
    m.tick = terms.tick
    m.lot = terms.lot
    m.tick_decimals = terms.tick_decimals
    m.lot_decimals = terms.lot_decimals
    if is_empty(&r.name) or r.base == r.quote or terms.tick < 1 or terms.lot < 1:
        return BAD_VALUE
    m.k = scaled_exact(terms.tick, terms.lot, s.assets[r.quote].scale, terms.tick_decimals + terms.lot_decimals)
    m.u = scaled_exact(terms.lot, 1, s.assets[r.base].scale, terms.lot_decimals)
    if m.k < 1 or m.u < 1:
        return BAD_VALUE
    m.max_price = given(mask, MASK_MAX_PRICE, terms.max_price, 1_000_000 if known == NULL else known.max_price)
    if m.max_price < 1:
        return BAD_VALUE
    notional = product_within(m.max_price, m.k, TOTAL_LIMIT)
    if notional < 1:
        return BAD_VALUE
    most = TOTAL_LIMIT // notional
    if TOTAL_LIMIT // m.u < most:
        most = TOTAL_LIMIT // m.u
    m.max_size = given(
        mask, MASK_MAX_SIZE, terms.max_size, most if known == NULL or known.max_size > most else known.max_size
    )
    m.min_size = given(mask, MASK_MIN_SIZE, terms.min_size, 1 if known == NULL else known.min_size)
    if m.min_size < 1 or m.max_size < m.min_size or m.max_size > most:
        return BAD_VALUE
    m.reference_price = given(mask, MASK_REFERENCE_PRICE, terms.reference_price, ABSENT if known == NULL else known.reference_price)
    if (mask & MASK_REFERENCE_PRICE or m.reference_price != ABSENT) and (
        m.reference_price < 1 or m.reference_price > m.max_price
    ):
        return BAD_VALUE
    if mask & MASK_PHASE and r.phase > CLOSED:
        return BAD_VALUE
    m.taker_ppm = 5000 if known == NULL else known.taker_ppm
    m.maker_ppm = 3000 if known == NULL else known.maker_ppm
    m.pause_ns = 5_000_000_000 if known == NULL else known.pause_ns
    m.entry_band_ppm = 0 if known == NULL else known.entry_band_ppm
    m.exec_band_ppm = 0 if known == NULL else known.exec_band_ppm
    return 0


cdef int check_terms(const MarketRecord* r, const MarketTerms* terms, Market* m) noexcept nogil:
    # Sets what a repeat may change too: rates, bands, pause.
    cdef uint32_t mask = r.mask
    cdef int64_t entry, execution
    m.taker_ppm = <int32_t>given(mask, MASK_TAKER_PPM, terms.taker_ppm, m.taker_ppm)
    m.maker_ppm = <int32_t>given(mask, MASK_MAKER_PPM, terms.maker_ppm, m.maker_ppm)
    m.pause_ns = given(mask, MASK_PAUSE, terms.pause_ns, m.pause_ns)
    entry = given(mask, MASK_ENTRY_BAND, terms.entry_band_ppm, m.entry_band_ppm)
    execution = given(mask, MASK_EXEC_BAND, terms.exec_band_ppm, m.exec_band_ppm)
    if m.taker_ppm < 0 or m.taker_ppm > 100_000 or m.maker_ppm < -m.taker_ppm or m.maker_ppm > 100_000:
        return BAD_VALUE
    if m.pause_ns < 0 or entry < 0 or entry > 1_000_000_000 or execution < 0 or execution > 1_000_000_000:
        return BAD_VALUE
    m.entry_band_ppm = <int32_t>entry
    m.exec_band_ppm = <int32_t>execution
    return 0


cdef bint same_listing(const MarketRecord* r, const MarketTerms* terms, const Market* m) noexcept nogil:
    # Whether a repeat says nothing else than the listing about what cannot change.
    cdef uint32_t mask = r.mask
    return (
        r.base == m.base and r.quote == m.quote
        and same_decimal(terms.tick, terms.tick_decimals, m.tick, m.tick_decimals)
        and same_decimal(terms.lot, terms.lot_decimals, m.lot, m.lot_decimals)
        and given(mask, MASK_MIN_SIZE, terms.min_size, m.min_size) == m.min_size
        and given(mask, MASK_MAX_SIZE, terms.max_size, m.max_size) == m.max_size
        and given(mask, MASK_MAX_PRICE, terms.max_price, m.max_price) == m.max_price
        and given(mask, MASK_REFERENCE_PRICE, terms.reference_price, m.reference_price) == m.reference_price
        and given(mask, MASK_PHASE, r.phase, m.phase) == m.phase
    )


cdef int do_market(State* s, const Record* record) except -1 nogil:
    cdef const MarketRecord* r = <const MarketRecord*>record
    cdef const MarketTerms* terms = <const MarketTerms*>&record[1]
    cdef const RefSlot* ref = optional_ref(record)
    cdef Market draft
    cdef Market* market
    cdef uint32_t index
    cdef int reason
    if ref != NULL and judge_ref(s, record, &ref.ref, ref.not_after, NIL):
        return 0
    index = find_market(s, <Name*>&r.name)
    market = &s.markets[index] if index != NIL else NULL
    memset(&draft, 0, sizeof(Market))
    reason = check_listing(s, r, terms, market, &draft)
    if reason == 0:
        reason = check_terms(r, terms, &draft)
    if reason == 0 and market != NULL and not same_listing(r, terms, market):
        reason = EXISTS
    if reason == 0 and index == NIL and (
        s.market_count == s.limits.markets or draft.max_price > s.limits.max_price or not balance_room(s, 1)
        or draft.max_price > PRICE_TICKS_TOTAL - s.price_ticks
    ):
        reason = BUSY
    if reason == 0 and ref != NULL and pool_room(&s.ref_pool) == 0:
        reason = BUSY
    if reason:
        return reject_definition(s, reason, NIL, ref)

    # From here on nothing is refused.
    if index == NIL:
        index = s.market_count
        draft.name = r.name
        draft.phase = r.phase if r.mask & MASK_PHASE else CONTINUOUS
        draft.band_reference = draft.reference_price
        draft.stops[BUY] = draft.stops[SELL] = draft.parked = NIL
        draft.half[BUY].nearest = INT64_MAX
        draft.half[SELL].nearest = 0
        draft.fees = balance_of(s, FEES, draft.quote)
        s.market_count += 1
        s.price_ticks += draft.max_price
        fix_market(&draft, index)
        s.markets[index] = draft
        map_put(&s.market_map, name_tag(s, &draft.name), index)
        if s.limits.risk:
            add_mix(s, mix_market(&draft))
    else:
        touch_market(s, index)
        market.taker_ppm = draft.taker_ppm
        market.maker_ppm = draft.maker_ppm
        market.pause_ns = draft.pause_ns
        market.entry_band_ppm = draft.entry_band_ppm
        market.exec_band_ppm = draft.exec_band_ppm
        fix_market(market, index)
    if ref != NULL:
        keep_ref(s, record, &ref.ref, ref.not_after)
    return write_done_market(s, index)


cdef int write_done_market(State* s, uint32_t index) except -1 nogil:
    cdef Market* m = &s.markets[index]
    cdef DoneMarketEvent* e = <DoneMarketEvent*>add_event(s, EV_DONE, 2, NIL, index)
    cdef MarketTerms* terms = <MarketTerms*>(<Event*>e + 1)
    (<Event*>e).op = DO_MARKET
    e.name = m.name
    e.base = m.base
    e.quote = m.quote
    e.k = m.k
    e.u = m.u
    e.phase = m.phase
    terms.tick = m.tick
    terms.lot = m.lot
    terms.min_size = m.min_size
    terms.max_size = m.max_size
    terms.max_price = m.max_price
    terms.reference_price = m.reference_price
    terms.pause_ns = m.pause_ns
    terms.entry_band_ppm = m.entry_band_ppm
    terms.exec_band_ppm = m.exec_band_ppm
    terms.taker_ppm = m.taker_ppm
    terms.maker_ppm = m.maker_ppm
    terms.tick_decimals = m.tick_decimals
    terms.lot_decimals = m.lot_decimals
    return 0


# ---------------------------------------------------------------- accounts


cdef int open_account(State* s, const Name* name, uint8_t overdraft) except? -1 nogil:
    # The next account; the caller mixes it in. Also `system:external` and `system:fees` at the start.
    cdef uint32_t index = s.account_count
    cdef Account* account = &s.accounts[index]
    memset(account, 0, sizeof(Account))
    account.overdraft = overdraft
    account.stp_key = index
    account.first_order = NIL
    account.oldest_id = NIL
    account.newest_id = NIL
    account.first_balance = LINK_END
    s.account_count += 1
    name_account(s, index, name)
    return index


cdef uint32_t group_key(State* s, const Name* group) except? 0xFFFFFFFF nogil:
    # A number for a self-trade group. The pool of groups has as many places as there can be accounts, twice.
    cdef uint32_t slot = find_named(s, &s.group_map, <Name*>s.group_pool.nodes, sizeof(Name), <Name*>group)
    if slot == NIL:
        slot = pool_take(&s.group_pool)
        (<Name*>s.group_pool.nodes)[slot] = group[0]
        map_put(&s.group_map, name_tag(s, <Name*>group), slot)
    return STP_GROUP | slot


cdef int check_account(State* s, const AccountRecord* r, const AccountExtra* extra, uint32_t index) except -1 nogil:
    cdef const char* name = <const char*>&r.name
    cdef uint32_t mask = r.mask
    if is_empty(name) or memcmp(name, b"system:", 7) == 0:
        return BAD_VALUE
    if mask & HAS_STATUS and r.status > FROZEN:
        return BAD_VALUE
    if mask & HAS_OVERDRAFT and r.overdraft > OPEN_OVERDRAFT:
        return BAD_VALUE
    if mask & HAS_TAKER_PPM and (r.taker_ppm < -100_000 or r.taker_ppm > 100_000):
        return BAD_VALUE
    if mask & HAS_MAKER_PPM and (r.maker_ppm < -100_000 or r.maker_ppm > 100_000):
        return BAD_VALUE
    if mask & HAS_STP_GROUP and is_empty(&extra.stp_group):
        return BAD_VALUE
    if index != NIL:
        if mask & HAS_OVERDRAFT and r.overdraft != s.accounts[index].overdraft:
            return BAD_VALUE
        if mask & HAS_ROW and annex_of(s, index).pending_out and memcmp(annex_of(s, index).row, extra.row, 32):
            return BAD_VALUE
    elif s.account_count == s.limits.accounts:
        return BUSY
    if mask & HAS_STP_GROUP and pool_room(&s.group_pool) == 0:
        return BUSY
    return 0


cdef int do_account(State* s, const Record* record) except -1 nogil:
    cdef const AccountRecord* r = <const AccountRecord*>record
    cdef const AccountExtra* extra = <const AccountExtra*>&record[1]
    cdef const RefSlot* ref = optional_ref(record)
    cdef Account* account
    cdef uint32_t mask = r.mask, index = find_account(s, <Name*>&r.name)
    cdef int reason
    if ref != NULL and judge_ref(s, record, &ref.ref, ref.not_after, index):
        return 0
    reason = check_account(s, r, extra, index)
    if reason == 0 and ref != NULL and pool_room(&s.ref_pool) == 0:
        reason = BUSY
    if reason:
        return reject_definition(s, reason, index, ref)

    # From here on nothing is refused.
    if index == NIL:
        index = <uint32_t>open_account(s, &r.name, r.overdraft if mask & HAS_OVERDRAFT else NEVER)
    else:
        remove_mix(s, mix_account(s, index))
    account = &s.accounts[index]
    account.mask |= <uint8_t>(mask & ACCOUNT_MASKS)
    if mask & HAS_STATUS:
        account.status = r.status
    if mask & HAS_TAKER_PPM:
        account.taker_ppm = r.taker_ppm
    if mask & HAS_MAKER_PPM:
        account.maker_ppm = r.maker_ppm
    if mask & HAS_MAX_OPEN_ORDERS:
        own_annex(s, index).max_open_orders = r.max_open_orders
    if mask & HAS_ROW:
        memcpy(own_annex(s, index).row, extra.row, 32)
    if mask & HAS_STP_GROUP:
        account.stp_key = group_key(s, &extra.stp_group)
    add_mix(s, mix_account(s, index))
    if ref != NULL:
        keep_ref(s, record, &ref.ref, ref.not_after)
    write_done_account(s, index)
    if account.status == FROZEN:
        cancel_account(s, index, WHY_FROZEN)
    return 0


cdef int write_done_account(State* s, uint32_t index) except -1 nogil:
    cdef Account* a = &s.accounts[index]
    cdef DoneAccountEvent* e = <DoneAccountEvent*>add_event(s, EV_DONE, 2, index, NIL)
    cdef AccountExtra* extra = <AccountExtra*>(<Event*>e + 1)
    (<Event*>e).op = DO_ACCOUNT
    account_name(s, index, &e.name)
    e.taker_ppm = a.taker_ppm
    e.maker_ppm = a.maker_ppm
    e.max_open_orders = annex_of(s, index).max_open_orders
    e.mask = a.mask
    e.status = a.status
    e.overdraft = a.overdraft
    memcpy(extra.row, annex_of(s, index).row, 32)
    account_group(s, a, &extra.stp_group)
    return 0
