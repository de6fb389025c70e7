"""Who and what exists, and money: assets, markets, accounts, transfers, refs, their expiry.

A money command becomes *moves* (source, asset, amount, target), at most 64, and a list of what they touch. All checks
run over moves and touched balances before the first of them changes.

    record ─▶ parts ─▶ moves ─▶ touched balances ─▶ checks ─▶ balances, ref ─▶ transferred | pended, balance …

    ref:      (none) ──transfer──▶ posted
              (none) ──pending───▶ pending ──post──▶ posted
                                          └─void, expiry──▶ voided
              (none) ──void──▶ voided, with digest 0: closed before it was ever used

A ref with `not_after` is forgotten by the first tick after it, once decided. What is due stands in a binary heap;
an entry whose ref has moved on is passed over when it surfaces.

Worst case: 64 moves times the balances they touch (at most 128), so about 10^4 steps for one command.
"""

from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from engine.book cimport half_open
from engine.digest cimport (
    TAG_CONTENT, add_mix, mix_account, mix_asset, mix_market, mix_posting, mix_ref, remove_mix, replace_mix, touch_balance,
    touch_market,
)
from engine.events cimport add_event, add_rejected
from engine.matching cimport cancel_account
from engine.pool cimport (
    find_account, find_asset, find_balance, find_market, find_named, find_ref, map_drop, map_put, name_tag, pool_give, pool_room,
    pool_take,
)
from engine.risk cimport balance_of, balance_room, below_zero, move_available
from engine.types cimport *

ctypedef struct Move:
    uint32_t source, asset, target
    int64_t amount

ctypedef struct Touched:
    uint32_t account, asset
    uint32_t slot  # of the balance, or NIL if there is none yet
    int128 out  # what the moves take from it
    int128 change  # of its available, in all

ctypedef struct Draft:
    Move moves[LEGS_MAX]
    Touched touched[2 * LEGS_MAX]
    int move_count, touched_count


# ---------------------------------------------------------------- refs


cdef int reject_ref(State* s, int reason, uint32_t account, const Name* ref) except -1 nogil:
    cdef RejectedEvent* e = add_rejected(s, reason, account)
    e.text = ref[0]
    e.flags = REJECTED_REF
    return 0


cdef int duplicate_ref(State* s, uint32_t slot) except -1 nogil:
    cdef DuplicateEvent* e = <DuplicateEvent*>add_event(s, EV_DUPLICATE, 1, NIL, NIL)
    e.order_id = s.refs[slot].first_sequence
    e.text = s.refs[slot].ref
    e.status = s.refs[slot].status
    e.flags = 1
    return 0


cdef void content_digest(const Record* r, uint64_t* digest) noexcept nogil:
    cdef uint64_t w[20]
    cdef uint128 mix = 0
    cdef int i
    for i in range(r.slots):
        w[0] = TAG_CONTENT
        w[1] = <uint64_t>mix
        w[2] = <uint64_t>(mix >> 64)
        w[3] = i
        memcpy(&w[4], &r[i], SLOT_BYTES)
        if i == 0:
            w[4] = r.kind | (<uint64_t>r.slots << 8) | (<uint64_t>r.flags << 16)
            w[5] = w[6] = w[7] = 0
        mix = mix_words(w, 20)
    digest[0] = <uint64_t>mix
    digest[1] = <uint64_t>(mix >> 64)


cdef int judge_ref(State* s, const Record* r, const Name* ref, int64_t not_after, uint32_t account) except -1 nogil:
    # 0: the ref is free. 1: the command is answered.
    cdef uint64_t digest[2]
    cdef uint32_t slot
    cdef Ref* known
    if (<const uint8_t*>ref)[0] == 0:
        reject_ref(s, BAD_REF, account, ref)
        return 1
    slot = find_ref(s, <Name*>ref)
    if slot != NIL:
        known = &s.refs[slot]
        content_digest(r, digest)
        if (known.digest[0] | known.digest[1]) == 0 or (
            known.digest[0] == digest[0] and known.digest[1] == digest[1]
        ):
            duplicate_ref(s, slot)
        else:
            reject_ref(s, BAD_REF, account, ref)
        return 1
    if not_after != ABSENT and s.time > not_after:
        reject_ref(s, EXPIRED, account, ref)
        return 1
    return 0


cdef uint32_t own_ref(State* s, const Name* name, uint8_t status, int64_t not_after) except? 0xFFFFFFFF nogil:
    # A new ref, not yet mixed in. The caller has looked at the room.
    cdef uint32_t slot = pool_take(&s.ref_pool)
    cdef Ref* ref = &s.refs[slot]
    memset(ref, 0, sizeof(Ref))
    ref.ref = name[0]
    ref.status = status
    ref.not_after = not_after
    ref.first_sequence = s.sequence
    ref.first_posting = NIL
    map_put(&s.ref_map, name_tag(s, &ref.ref), slot)
    return slot


cdef int keep_ref(State* s, const Record* r, const Name* name, int64_t not_after) except -1 nogil:
    # The ref of an accepted command that is not pending.
    cdef uint32_t slot = own_ref(s, name, REF_POSTED, not_after)
    content_digest(r, s.refs[slot].digest)
    add_mix(s, mix_ref(&s.refs[slot]))
    return add_ref_dues(s, slot)


cdef const RefSlot* optional_ref(const Record* r) noexcept nogil:
    return <const RefSlot*>&r[r.slots - 1] if r.flags & MONEY_HAS_REF else NULL


cdef int reject_definition(State* s, int reason, uint32_t account, const RefSlot* ref) except -1 nogil:
    if ref != NULL:
        return reject_ref(s, reason, account, &ref.ref)
    add_rejected(s, reason, account)
    return 0


# ---------------------------------------------------------------- what is due


cdef inline bint earlier(Due* a, Due* b) noexcept nogil:
    if a.at != b.at:
        return a.at < b.at
    if a.sequence != b.sequence:
        return a.sequence < b.sequence
    return a.kind < b.kind


cdef bint still_due(State* s, Due* due) noexcept nogil:
    cdef Ref* ref = &s.refs[due.slot]
    if ref.first_sequence != due.sequence:
        return False
    if due.kind == DUE_TRANSFER:
        return ref.status == REF_PENDING
    return ref.status != REF_PENDING


cdef void sink(State* s, uint32_t at) noexcept nogil:
    cdef uint32_t child
    cdef Due moved = s.due[at]
    while True:
        child = 2 * at + 1
        if child >= s.due_count:
            break
        if child + 1 < s.due_count and earlier(&s.due[child + 1], &s.due[child]):
            child += 1
        if not earlier(&s.due[child], &moved):
            break
        s.due[at] = s.due[child]
        at = child
    s.due[at] = moved


cdef int due_room(State* s) except -1 nogil:
    # Drops what is no longer due; if that does not help, twice the memory.
    cdef uint32_t i, kept = 0
    cdef Due* grown
    for i in range(s.due_count):
        if still_due(s, &s.due[i]):
            s.due[kept] = s.due[i]
            kept += 1
    s.due_count = kept
    i = kept // 2
    while i > 0:
        i -= 1
        sink(s, i)
    if kept * 2 < s.due_capacity:
        return 0
    grown = <Due*>malloc(2 * <size_t>s.due_capacity * sizeof(Due))
    if grown == NULL:
        with gil:
            raise MemoryError("no memory for timers")
    memcpy(grown, s.due, kept * sizeof(Due))
    free(s.due)
    s.due = grown
    s.due_capacity *= 2
    return 0


cdef int add_due(State* s, int64_t at, uint64_t sequence, uint32_t kind, uint32_t slot) except -1 nogil:
    cdef uint32_t child, parent
    cdef Due due
    if s.due_count == s.due_capacity:
        due_room(s)
    due.at = at
    due.sequence = sequence
    due.kind = kind
    due.slot = slot
    child = s.due_count
    s.due_count += 1
    while child:
        parent = (child - 1) // 2
        if not earlier(&due, &s.due[parent]):
            break
        s.due[child] = s.due[parent]
        child = parent
    s.due[child] = due
    return 0


cdef int add_ref_dues(State* s, uint32_t slot) except -1 nogil:
    # What will happen to the ref as it is now: expiry while pending, forgetting once decided.
    cdef Ref* ref = &s.refs[slot]
    if ref.status == REF_PENDING:
        if ref.expires_at != ABSENT:
            add_due(s, ref.expires_at, ref.first_sequence, DUE_TRANSFER, slot)
    elif ref.not_after != ABSENT and ref.not_after != INT64_MAX:
        add_due(s, ref.not_after + 1, ref.first_sequence, DUE_FORGET, slot)
    return 0


cdef void drop_due(State* s) noexcept nogil:
    s.due_count -= 1
    if s.due_count:
        s.due[0] = s.due[s.due_count]
        sink(s, 0)


cdef int64_t next_due(State* s) noexcept nogil:
    while s.due_count and not still_due(s, &s.due[0]):
        drop_due(s)
    return s.due[0].at if s.due_count else INT64_MAX


cdef int tick(State* s) except -1 nogil:
    cdef uint32_t slot
    while next_due(s) <= s.time:
        slot = s.due[0].slot
        if s.due[0].kind == DUE_TRANSFER:
            drop_due(s)
            decide(s, slot, REF_VOIDED, True)
        else:
            drop_due(s)
            remove_mix(s, mix_ref(&s.refs[slot]))
            map_drop(&s.ref_map, name_tag(s, &s.refs[slot].ref), slot)
            s.refs[slot].first_sequence = 0
            pool_give(&s.ref_pool, slot)
    return 0


# ---------------------------------------------------------------- assets and markets


cdef int do_asset(State* s, const Record* record) except -1 nogil:
    cdef const AssetRecord* r = <const AssetRecord*>record
    cdef const RefSlot* ref = optional_ref(record)
    cdef Asset* asset
    cdef uint32_t index = s.asset_count
    cdef int reason = 0
    if ref != NULL and judge_ref(s, record, &ref.ref, ref.not_after, NIL):
        return 0
    if (<const uint8_t*>&r.name)[0] == 0 or r.scale > 9 or r.settled > 1:
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
    replace_mix(s, &asset.mix, mix_asset(asset, index))
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
    if (<const uint8_t*>&r.name)[0] == 0 or r.base == r.quote or terms.tick < 1 or terms.lot < 1:
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
    if mask & MASK_PHASE and r.phase > 5:
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
    m.taker_ppm = <int32_t>given(mask, MASK_TAKER_PPM, terms.taker_ppm, m.taker_ppm)
    m.maker_ppm = <int32_t>given(mask, MASK_MAKER_PPM, terms.maker_ppm, m.maker_ppm)
    m.pause_ns = given(mask, MASK_PAUSE, terms.pause_ns, m.pause_ns)
    m.entry_band_ppm = given(mask, MASK_ENTRY_BAND, terms.entry_band_ppm, m.entry_band_ppm)
    m.exec_band_ppm = given(mask, MASK_EXEC_BAND, terms.exec_band_ppm, m.exec_band_ppm)
    if m.taker_ppm < 0 or m.taker_ppm > 100_000 or m.maker_ppm < -m.taker_ppm or m.maker_ppm > 100_000:
        return BAD_VALUE
    if m.pause_ns < 0 or m.entry_band_ppm < 0 or m.entry_band_ppm > 1_000_000_000:
        return BAD_VALUE
    if m.exec_band_ppm < 0 or m.exec_band_ppm > 1_000_000_000:
        return BAD_VALUE
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
    if reason == 0 and (draft.entry_band_ppm or draft.exec_band_ppm or (r.mask & MASK_PHASE and r.phase)):
        reason = UNSUPPORTED
    if reason == 0 and index == NIL and (
        s.market_count == s.limits.markets or draft.max_price > s.limits.max_price or not balance_room(s, 1)
    ):
        reason = BUSY
    if reason == 0 and ref != NULL and pool_room(&s.ref_pool) == 0:
        reason = BUSY
    if reason:
        return reject_definition(s, reason, NIL, ref)

    # From here on nothing is refused.
    if index == NIL:
        index = s.market_count
        half_open(&draft.half[BUY], draft.max_price)
        half_open(&draft.half[SELL], draft.max_price)
        draft.name = r.name
        draft.fees = balance_of(s, FEES, draft.quote)
        s.market_count += 1
        s.markets[index] = draft
        map_put(&s.market_map, name_tag(s, &draft.name), index)
    else:
        market.taker_ppm = draft.taker_ppm
        market.maker_ppm = draft.maker_ppm
        market.pause_ns = draft.pause_ns
        market.entry_band_ppm = draft.entry_band_ppm
        market.exec_band_ppm = draft.exec_band_ppm
    touch_market(s, index)
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
    account.name = name[0]
    account.overdraft = overdraft
    account.stp_key = index
    account.first_order = NIL
    account.oldest_id = NIL
    account.newest_id = NIL
    s.account_count += 1
    map_put(&s.account_map, name_tag(s, &account.name), index)
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
    if name[0] == 0 or memcmp(name, b"system:", 7) == 0:
        return BAD_VALUE
    if mask & HAS_STATUS and r.status > FROZEN:
        return BAD_VALUE
    if mask & HAS_OVERDRAFT and r.overdraft > OPEN_OVERDRAFT:
        return BAD_VALUE
    if mask & HAS_TAKER_PPM and (r.taker_ppm < -100_000 or r.taker_ppm > 100_000):
        return BAD_VALUE
    if mask & HAS_MAKER_PPM and (r.maker_ppm < -100_000 or r.maker_ppm > 100_000):
        return BAD_VALUE
    if mask & HAS_STP_GROUP and (<const uint8_t*>&extra.stp_group)[0] == 0:
        return BAD_VALUE
    if index != NIL:
        if mask & HAS_OVERDRAFT and r.overdraft != s.accounts[index].overdraft:
            return BAD_VALUE
        if mask & HAS_ROW and s.accounts[index].pending_out and memcmp(s.accounts[index].row, extra.row, 32):
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
    account = &s.accounts[index]
    account.mask |= mask
    if mask & HAS_STATUS:
        account.status = r.status
    if mask & HAS_TAKER_PPM:
        account.taker_ppm = r.taker_ppm
    if mask & HAS_MAKER_PPM:
        account.maker_ppm = r.maker_ppm
    if mask & HAS_MAX_OPEN_ORDERS:
        account.max_open_orders = r.max_open_orders
    if mask & HAS_ROW:
        memcpy(account.row, extra.row, 32)
    if mask & HAS_STP_GROUP:
        account.stp_group = extra.stp_group
        account.stp_key = group_key(s, &extra.stp_group)
    replace_mix(s, &account.mix, mix_account(account, index))
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
    e.name = a.name
    e.taker_ppm = a.taker_ppm
    e.maker_ppm = a.maker_ppm
    e.max_open_orders = a.max_open_orders
    e.mask = a.mask
    e.status = a.status
    e.overdraft = a.overdraft
    memcpy(extra.row, a.row, 32)
    extra.stp_group = a.stp_group
    return 0


# ---------------------------------------------------------------- money: from the record to moves


ctypedef struct Parts:
    # One or two sources: the leg that deposit and withdraw imply, then the parts in the record.
    Part first
    const Part* more
    int implied, count


cdef inline const Part* part_at(Parts* parts, int i) noexcept nogil:
    return &parts.first if i < parts.implied else &parts.more[i - parts.implied]


cdef int read_parts(const Record* record, Parts* parts) noexcept nogil:
    # 0, or BAD_LEGS if the record is shorter than it says.
    cdef const DirectRecord* direct = <const DirectRecord*>record
    cdef int skip = 1 + ((record.flags & MONEY_HAS_META) != 0) + ((record.flags & MONEY_HAS_ADDRESS) != 0), more = 0
    memset(parts, 0, sizeof(Parts))
    if record.kind == DO_TRANSFER:
        more = (<const TransferRecord*>record).part_count
    else:
        parts.implied = 1
        parts.first.asset = direct.asset
        parts.first.amount = direct.amount
        parts.first.source = direct.place if record.kind == DO_DEPOSIT else direct.account
        parts.first.target = direct.account if record.kind == DO_DEPOSIT else direct.place
        if record.kind == DO_WITHDRAW:
            more = direct.part_count
    if skip + (more + 3) // 4 > record.slots:
        return BAD_LEGS
    parts.more = <const Part*>&record[skip]
    parts.count = parts.implied + more
    return 0


cdef int check_parts(State* s, const Record* record, Parts* parts) noexcept nogil:
    # Names and shapes: unknown_account … bad_legs, bad_amount.
    cdef int i, leg = -1, members = 0
    cdef int64_t weights = 0
    cdef const Part* p
    cdef const Part* before = NULL
    for i in range(parts.count):
        p = part_at(parts, i)
        if p.source >= s.account_count or p.target >= s.account_count:
            return UNKNOWN_ACCOUNT
    for i in range(parts.count):
        if part_at(parts, i).asset >= s.asset_count:
            return UNKNOWN_ASSET
    for i in range(parts.count):
        p = part_at(parts, i)
        if not p.is_share and p.source == p.target:
            return BAD_ACCOUNT
    if record.kind == DO_DEPOSIT and s.accounts[parts.first.source].overdraft != OPEN_OVERDRAFT:
        return BAD_ACCOUNT
    if record.kind == DO_WITHDRAW and s.accounts[parts.first.target].overdraft != OPEN_OVERDRAFT:
        return BAD_ACCOUNT
    if parts.count == 0:
        return BAD_LEGS
    for i in range(parts.implied, parts.count):
        p = part_at(parts, i)
        if p.leg == leg + 1:
            if before != NULL and before.is_share and weights < 1:
                return BAD_LEGS
            leg += 1
            members = 0
            weights = 0
        elif p.leg != leg or not p.is_share or not before.is_share:
            return BAD_LEGS
        elif p.source != before.source or p.asset != before.asset or p.amount != before.amount:
            return BAD_LEGS
        members += 1
        weights += p.weight
        if members > LEGS_MAX or (p.is_share and p.weight > 0x7FFFFFFF):
            return BAD_LEGS
        before = p
    if before != NULL and before.is_share and weights < 1:
        return BAD_LEGS
    for i in range(parts.count):
        if part_at(parts, i).amount < 1:
            return BAD_AMOUNT
    return 0


cdef inline int add_move(Draft* draft, const Part* p, int64_t amount) noexcept nogil:
    cdef Move* move
    if amount == 0:
        return 0
    if draft.move_count == LEGS_MAX:
        return BAD_LEGS
    move = &draft.moves[draft.move_count]
    move.source = p.source
    move.asset = p.asset
    move.target = p.target
    move.amount = amount
    draft.move_count += 1
    return 0


cdef int split(Draft* draft, Parts* parts, int first, int count) noexcept nogil:
    # Largest remainder: floors, then one unit each to the largest remainders, ties to the earlier.
    cdef int64_t amounts[LEGS_MAX]
    cdef int64_t rests[LEGS_MAX]
    cdef int64_t weights = 0, left
    cdef int i, best
    cdef const Part* p
    for i in range(count):
        weights += part_at(parts, first + i).weight
    left = part_at(parts, first).amount
    for i in range(count):
        p = part_at(parts, first + i)
        amounts[i] = share_floor(p.amount, p.weight, weights, &rests[i])
        left -= amounts[i]
    while left > 0:
        best = 0
        for i in range(1, count):
            if rests[i] > rests[best]:
                best = i
        amounts[best] += 1
        rests[best] = -1
        left -= 1
    for i in range(count):
        if add_move(draft, part_at(parts, first + i), amounts[i]):
            return BAD_LEGS
    return 0


cdef int make_moves(Draft* draft, Parts* parts) noexcept nogil:
    cdef int i = 0, end
    cdef const Part* p
    draft.move_count = 0
    while i < parts.count:
        p = part_at(parts, i)
        if not p.is_share:
            if add_move(draft, p, p.amount):
                return BAD_LEGS
            i += 1
            continue
        end = i + 1
        while end < parts.count and part_at(parts, end).leg == p.leg:
            end += 1
        if split(draft, parts, i, end - i):
            return BAD_LEGS
        i = end
    return 0


# ---------------------------------------------------------------- money: what moves touch


cdef Touched* touch(State* s, Draft* draft, uint32_t account, uint32_t asset) noexcept nogil:
    cdef int i
    cdef Touched* t
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        if t.account == account and t.asset == asset:
            return t
    t = &draft.touched[draft.touched_count]
    draft.touched_count += 1
    t.account = account
    t.asset = asset
    t.slot = find_balance(s, account, asset)
    t.out = 0
    t.change = 0
    return t


cdef int check_funds(State* s, Draft* draft, bint pending, bint force) noexcept nogil:
    # Fills in what is touched, payers first, then judges frozen … too_large.
    cdef int i
    cdef Move* move
    cdef Touched* t
    cdef int64_t available
    cdef uint8_t overdraft
    cdef int128 below, after
    cdef int j
    draft.touched_count = 0
    for i in range(draft.move_count):
        move = &draft.moves[i]
        if s.accounts[move.source].status == FROZEN and not force:
            return REJECT_FROZEN
        t = touch(s, draft, move.source, move.asset)
        t.out += move.amount
        t.change -= move.amount
        if not pending:
            t = touch(s, draft, move.target, move.asset)
            t.change += move.amount
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        overdraft = s.accounts[t.account].overdraft
        available = s.balances[t.slot].available if t.slot != NIL else 0
        if t.out > 0 and t.out > available and overdraft != OPEN_OVERDRAFT and not (overdraft == FORCED and force):
            return INSUFFICIENT_FUNDS
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        available = s.balances[t.slot].available if t.slot != NIL else 0
        if not fits_int64(t.change + available):
            return TOO_LARGE
        if pending and (t.out > TOTAL_LIMIT or not fits_int64(t.out + (s.balances[t.slot].held if t.slot != NIL else 0))):
            return TOO_LARGE
        # Once per asset, at its first balance: the debts after the command.
        for j in range(i):
            if draft.touched[j].asset == t.asset:
                break
        else:
            below = s.assets[t.asset].below
            for j in range(i, draft.touched_count):
                if draft.touched[j].asset == t.asset:
                    available = s.balances[draft.touched[j].slot].available if draft.touched[j].slot != NIL else 0
                    after = draft.touched[j].change + available
                    below -= below_zero(available)
                    if after < 0:
                        below -= after
            if below > TOTAL_LIMIT:
                return TOO_LARGE
    return 0


cdef int write_money(
    State* s, uint8_t kind, const Name* ref, const uint64_t* code, const uint64_t* memo, Draft* draft, bint expired
) except -1 nogil:
    # The answer to a money command, or what a tick did.
    cdef bint has_memo = memo != NULL and memo[0] != 0
    cdef int leg_slots = (draft.move_count + 3) // 4, i
    cdef MoneyEvent* e = <MoneyEvent*>add_event(s, kind, 1 + has_memo + leg_slots, NIL, NIL)
    cdef MoneyMeta* meta
    cdef Leg* leg = <Leg*>(<Event*>e + 1 + has_memo)
    e.ref = ref[0]
    if code != NULL:
        memcpy(e.code, code, 16)
    e.leg_count = draft.move_count
    e.cause = expired
    e.has_memo = has_memo
    if has_memo:
        meta = <MoneyMeta*>(<Event*>e + 1)
        memcpy(meta.code, code, 16)
        memcpy(meta.memo, memo, 64)
    for i in range(draft.move_count):
        leg[i].source = draft.moves[i].source
        leg[i].asset = draft.moves[i].asset
        leg[i].amount = draft.moves[i].amount
        leg[i].target = draft.moves[i].target
    return 0


cdef int write_balances(State* s, Draft* draft, bint expired) except -1 nogil:
    cdef int i
    cdef BalanceEvent* e
    cdef Touched* t
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        e = <BalanceEvent*>add_event(s, EV_BALANCE, 1, t.account, t.asset)
        e.available = s.balances[t.slot].available
        e.held = s.balances[t.slot].held
        e.cause = 0 if expired else s.op
    return 0


# ---------------------------------------------------------------- money commands


cdef int do_money(State* s, const Record* record) except -1 nogil:
    """deposit, withdraw, transfer."""
    cdef const DirectRecord* direct = <const DirectRecord*>record
    cdef const TransferRecord* transfer = <const TransferRecord*>record
    cdef bint is_transfer = record.kind == DO_TRANSFER
    cdef const Name* name = &direct.ref  # at the same place in all three
    cdef int64_t not_after = transfer.not_after if is_transfer else direct.not_after
    cdef int64_t expires_at = transfer.expires_at if is_transfer else ABSENT
    cdef uint32_t account = NIL if is_transfer else direct.account
    cdef bint pending = record.kind == DO_WITHDRAW or (is_transfer and record.flags & MONEY_PENDING)
    cdef const MoneyMeta* meta = <const MoneyMeta*>&record[1] if record.flags & MONEY_HAS_META else NULL
    cdef Parts parts
    cdef Draft draft
    cdef int reason, i
    cdef uint32_t fresh
    if judge_ref(s, record, name, not_after, account):
        return 0
    reason = read_parts(record, &parts)
    if reason == 0:
        reason = check_parts(s, record, &parts)
    if reason == 0:
        reason = make_moves(&draft, &parts)
    if reason == 0 and expires_at != ABSENT and (not pending or expires_at <= s.time):
        reason = BAD_EXPIRY
    if reason == 0:
        reason = check_funds(s, &draft, pending, (record.flags & MONEY_FORCE) != 0)
    if reason == 0:
        fresh = 0
        for i in range(draft.touched_count):
            fresh += draft.touched[i].slot == NIL
        if pending:
            fresh += draft.move_count  # the targets, at most
        if pool_room(&s.ref_pool) == 0 or not balance_room(s, fresh):
            reason = BUSY
        elif pending and pool_room(&s.posting_pool) < <uint32_t>draft.move_count:
            reason = BUSY
    if reason:
        return reject_ref(s, reason, account, name)

    # From here on nothing is refused.
    for i in range(draft.touched_count):
        if draft.touched[i].slot == NIL:
            draft.touched[i].slot = balance_of(s, draft.touched[i].account, draft.touched[i].asset)
    if pending:
        pend(s, record, name, meta, &draft, not_after, expires_at)
    else:
        for i in range(draft.touched_count):
            move_available(s, draft.touched[i].slot, <int64_t>draft.touched[i].change)
        keep_ref(s, record, name, not_after)
    write_money(
        s, EV_PENDED if pending else EV_TRANSFERRED, name,
        meta.code if meta != NULL else NULL, meta.memo if meta != NULL else NULL, &draft, False,
    )
    return write_balances(s, &draft, False)


cdef int pend(
    State* s, const Record* record, const Name* name, const MoneyMeta* meta, Draft* draft, int64_t not_after,
    int64_t expires_at,
) except -1 nogil:
    cdef int i
    cdef uint32_t slot, posting, last = NIL
    cdef Posting* p
    cdef Move* move
    cdef Ref* ref
    for i in range(draft.touched_count):
        move_available(s, draft.touched[i].slot, <int64_t>draft.touched[i].change)
        s.balances[draft.touched[i].slot].held += <int64_t>draft.touched[i].out
    slot = own_ref(s, name, REF_PENDING, not_after)
    ref = &s.refs[slot]
    content_digest(record, ref.digest)
    ref.expires_at = expires_at
    ref.posting_count = draft.move_count
    if meta != NULL:
        memcpy(ref.code, meta.code, 16)
        memcpy(ref.memo, meta.memo, 64)
    for i in range(draft.move_count):
        move = &draft.moves[i]
        posting = pool_take(&s.posting_pool)
        p = &s.postings[posting]
        p.source = balance_of(s, move.source, move.asset)
        p.target = balance_of(s, move.target, move.asset)
        p.amount = move.amount
        p.next = NIL
        if last == NIL:
            ref.first_posting = posting
        else:
            s.postings[last].next = posting
        last = posting
        s.accounts[move.source].pending_out += s.accounts[move.target].overdraft == OPEN_OVERDRAFT
        add_mix(s, mix_posting(s, ref.first_sequence, i, p))
    add_mix(s, mix_ref(ref))
    return add_ref_dues(s, slot)


cdef int decide(State* s, uint32_t slot, uint8_t status, bint expired) except -1 nogil:
    # A pending ref is posted or voided: balances, postings gone, ref decided, events.
    cdef Ref* ref = &s.refs[slot]
    cdef Draft draft
    cdef Posting* p
    cdef Balance* source
    cdef Balance* target
    cdef uint32_t posting = ref.first_posting, number = 0, after
    cdef uint64_t code[2]
    cdef uint64_t memo[8]
    assert ref.status == REF_PENDING
    remove_mix(s, mix_ref(ref))
    draft.move_count = 0
    draft.touched_count = 0
    while posting != NIL:
        p = &s.postings[posting]
        source = &s.balances[p.source]
        target = &s.balances[p.target]
        remove_mix(s, mix_posting(s, ref.first_sequence, number, p))
        draft.moves[number].source = source.account
        draft.moves[number].asset = source.asset
        draft.moves[number].target = target.account
        draft.moves[number].amount = p.amount
        touch_balance(s, p.source)
        source.held -= p.amount
        assert source.held >= 0, "a pending posting without its hold"
        touch(s, &draft, source.account, source.asset)
        if status == REF_POSTED:
            move_available(s, p.target, p.amount)
            touch(s, &draft, target.account, target.asset)
        else:
            move_available(s, p.source, p.amount)
        s.accounts[source.account].pending_out -= s.accounts[target.account].overdraft == OPEN_OVERDRAFT
        after = p.next
        pool_give(&s.posting_pool, posting)
        posting = after
        number += 1
    draft.move_count = number
    memcpy(code, ref.code, 16)
    memcpy(memo, ref.memo, 64)
    ref.status = status
    ref.first_posting = NIL
    ref.posting_count = 0
    ref.expires_at = 0
    memset(ref.code, 0, 16)
    memset(ref.memo, 0, 64)
    add_mix(s, mix_ref(ref))
    add_ref_dues(s, slot)
    write_money(s, EV_POSTED if status == REF_POSTED else EV_VOIDED, &ref.ref, code, memo, &draft, expired)
    return write_balances(s, &draft, expired)


cdef int do_post(State* s, const Record* record) except -1 nogil:
    """post, withdraw_settled."""
    cdef const PostRecord* r = <const PostRecord*>record
    cdef uint32_t slot = find_ref(s, <Name*>&r.ref)
    if slot == NIL:
        return reject_ref(s, BAD_REF, NIL, &r.ref)
    if s.refs[slot].status != REF_PENDING:
        return duplicate_ref(s, slot)
    if s.refs[slot].expires_at != ABSENT and s.time >= s.refs[slot].expires_at:
        return reject_ref(s, EXPIRED, NIL, &r.ref)
    # From here on nothing is refused.
    return decide(s, slot, REF_POSTED, False)


cdef int do_void(State* s, const Record* record) except -1 nogil:
    """void, withdraw_failed. Of an unknown ref: closes it for good."""
    cdef const PostRecord* r = <const PostRecord*>record
    cdef uint32_t slot = find_ref(s, <Name*>&r.ref)
    cdef Draft draft
    if slot != NIL and s.refs[slot].status == REF_PENDING:
        return decide(s, slot, REF_VOIDED, False)
    if slot != NIL:
        return duplicate_ref(s, slot)
    if (<const uint8_t*>&r.ref)[0] == 0:
        return reject_ref(s, BAD_REF, NIL, &r.ref)
    if r.not_after != ABSENT and s.time > r.not_after:
        return reject_ref(s, EXPIRED, NIL, &r.ref)
    if pool_room(&s.ref_pool) == 0:
        return reject_ref(s, BUSY, NIL, &r.ref)
    # From here on nothing is refused.
    slot = own_ref(s, &r.ref, REF_VOIDED, r.not_after)
    add_mix(s, mix_ref(&s.refs[slot]))
    add_ref_dues(s, slot)
    draft.move_count = 0
    return write_money(s, EV_VOIDED, &r.ref, NULL, NULL, &draft, False)
