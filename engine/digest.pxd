# The state hash (docs/state-hash.md): a running sum of one 128-bit mix per entity.
#
# Orders, balances and markets change all the time, so a change only marks them dirty; `settle` adds the mix they have by
# then. What an order added last stands in its node, for one that comes and goes between two settlings is never mixed at
# all. Balances and markets keep no mix: the first touch takes the one of that moment out of the sum, so they are touched
# *before* they change. Full dirty lists settle at once, so a cut mixes at most 3 × DIRTY_LIMIT entities. Ids, refs, assets
# and accounts change rarely and are mixed on the spot. Without money (`Core(risk=False)`) orders and markets are left out.

from libc.string cimport memcpy

from engine.types cimport (
    DIRTY_LIMIT, LINK_DIRTY, Account, Asset, IdNode, Market, Mix, Name, Poison, Posting, Ref, State, mix_words, rarely, uint32_t,
    uint64_t, uint128,
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


cdef uint128 mix_asset(Asset* asset, uint32_t index) noexcept nogil
cdef void fix_market(Market* m, uint32_t index) noexcept nogil
cdef uint128 mix_market(const Market* m) noexcept nogil
cdef void account_group(State* s, const Account* account, Name* group) noexcept nogil
cdef uint128 mix_account(State* s, uint32_t index) noexcept nogil
cdef uint128 mix_balance(State* s, uint32_t slot) noexcept nogil
cdef uint128 mix_order(State* s, uint32_t slot) noexcept nogil
cdef uint128 mix_ref(Ref* r) noexcept nogil
cdef uint128 mix_posting(State* s, uint64_t first_sequence, uint32_t number, Posting* p) noexcept nogil
cdef uint128 mix_poison(Poison* p) noexcept nogil


# ---------------------------------------------------------------- dirty lists

cdef void settle_orders(State* s) noexcept nogil
cdef void settle_balances(State* s) noexcept nogil
cdef void settle_markets(State* s) noexcept nogil
cdef void mark_balance(State* s, uint32_t slot) noexcept nogil
cdef void mark_market(State* s, uint32_t index) noexcept nogil
cdef uint128 state_sum(State* s) noexcept nogil


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
    # Before its change, and before any other is touched: that may settle this one.
    if rarely(not s.balances[slot].link & LINK_DIRTY):
        mark_balance(s, slot)


cdef inline void touch_market(State* s, uint32_t index) noexcept nogil:
    # As touch_balance.
    if s.limits.risk and rarely(not s.markets[index].dirty):
        mark_market(s, index)
