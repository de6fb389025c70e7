"""The state as bytes, and back. Only what the rules know is written: no slots of orders, ids or refs, no tables.

    clock | groups | assets | markets | accounts | balances | orders by join, with their older ids | remembered ids,
    oldest first | poisons | refs by first sequence, pending ones with postings

A section is a uint64 count and as many structs. Balances keep their slots, for postings and orders name them. Restoring
joins the orders in their order of joining, so every queue is as it was; waiting ones go back into their trees. What is
due follows from orders, accounts, markets and refs. Version and checksum are the caller's.

Reading trusts nothing but lengths: every index, number and link that something is found by is judged before it is used, and
at the end the state hash is computed anew. So bytes that are no state end as ValueError, whoever made them. What only the
rules forbid, such as money from nowhere under a hash that fits, is for `Core.check`.

Writing reads the state and nothing else, so a forked child can do it while the parent goes on
(docs/decisions/0013-snapshot-by-fork.md). Cost: about 0.3 µs an order, the speed of memory for the rest.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport INT64_MAX
from libc.string cimport memcpy, memset

from engine.audit cimport whole_sum
from engine.book cimport enqueue, in_window
from engine.digest cimport mix_order
from engine.ids cimport append_closed, is_new, open_id
from engine.listing cimport open_account
from engine.pool cimport (
    find_id, find_order, find_ref, id_tag, index_order, link_balance, map_at, map_places, map_put, name_tag, own_annex, owner_of,
    pool_room, pool_take,
)
from engine.refs cimport add_ref_dues
from engine.scopes cimport add_poison
from engine.stops cimport wait
from engine.timers cimport add_due
from engine.types cimport *
from engine.windows cimport secure, secure_all, widen

cdef extern from * nogil:
    """
    #define BYLINE_LAST_SEQUENCE ((uint64_t)1 << 44) /* `closing` and `join` are a sequence times 2^20 */
    """
    const uint64_t LAST_SEQUENCE "BYLINE_LAST_SEQUENCE"

cdef enum:
    FAR = 12  # orders ahead whose nodes are fetched, and those whose client id is
    NEAR = 6

ctypedef struct Clock:
    uint64_t sequence, batch, batch_first
    int64_t time
    uint64_t sum_low, sum_high

ctypedef struct AccountImage:  # the words of its name follow, and its Annex if it has one
    int32_t taker_ppm, maker_ppm
    uint32_t stp_key
    uint8_t status, overdraft, killed, mask, name_words, has_annex
    uint8_t pad[2]

ctypedef struct BalanceImage:
    int64_t available, held
    uint32_t account, asset

ctypedef struct OrderImage:
    Order order
    OrderDetail detail
    Terms terms
    uint64_t has_terms, partner  # partner: its order_id, 0 without one
    ClientId client_id
    uint64_t older_count  # that many ClientIds follow, newest first

ctypedef struct IdImage:
    ClientId client_id
    uint64_t order_id
    int64_t filled
    uint32_t account, market
    uint64_t status, closing


cdef void write_state(State* s, Stream* out) noexcept nogil:
    """All sections. The dirty lists have been settled, so every kept mix is what the sum holds.

    Runs in a forked child: reads the state and puts bytes, and must never raise, assert or take heap memory.
    """
    write_clock(s, out)
    stream_number(out, s.group_pool.used)
    stream_put(out, s.group_pool.nodes, s.group_pool.used * sizeof(Name))
    stream_number(out, s.asset_count)
    stream_put(out, s.assets, s.asset_count * sizeof(Asset))
    write_markets(s, out)
    write_accounts(s, out)
    write_balances(s, out)
    write_orders(s, out)
    write_remembered(s, out)
    stream_number(out, s.poison_pool.used)
    stream_put(out, s.poisons, s.poison_pool.used * sizeof(Poison))
    write_refs(s, out)


cdef void write_clock(State* s, Stream* out) noexcept nogil:
    cdef Clock clock
    clock.sequence = s.sequence
    clock.batch = s.batch
    clock.batch_first = s.batch_first
    clock.time = s.time
    clock.sum_low = s.sum_low
    clock.sum_high = s.sum_high
    stream_put(out, &clock, sizeof(Clock))


cdef void write_markets(State* s, Stream* out) noexcept nogil:
    cdef Market market
    cdef uint32_t i
    stream_number(out, s.market_count)
    for i in range(s.market_count):
        market = s.markets[i]
        memset(market.half, 0, sizeof(market.half))
        market.stop_count = market.spenders = market.slices = 0
        market.stops[BUY] = market.stops[SELL] = market.parked = NIL
        market.wide = NULL
        market.half[BUY].nearest = INT64_MAX
        market.half[SELL].nearest = 0
        stream_put(out, &market, sizeof(Market))


cdef void write_accounts(State* s, Stream* out) noexcept nogil:
    cdef AccountImage image
    cdef Account* account
    cdef uint32_t i
    stream_number(out, s.account_count)
    memset(&image, 0, sizeof(AccountImage))
    for i in range(s.account_count):
        account = &s.accounts[i]
        image.taker_ppm = account.taker_ppm
        image.maker_ppm = account.maker_ppm
        image.stp_key = account.stp_key
        image.status = account.status
        image.overdraft = account.overdraft
        image.killed = account.killed
        image.mask = account.mask
        image.name_words = account.name_words
        image.has_annex = account.annex != NO_ANNEX
        stream_put(out, &image, sizeof(AccountImage))
        stream_put(out, &s.account_names[account.name], account.name_words * sizeof(uint64_t))
        if image.has_annex:
            stream_put(out, &s.annexes[account.annex], sizeof(Annex))


cdef void write_balances(State* s, Stream* out) noexcept nogil:
    cdef BalanceImage image
    cdef uint32_t i
    stream_number(out, s.balance_count)
    for i in range(s.balance_count):
        image.available = s.balances[i].available
        image.held = s.balances[i].held
        image.account = owner_of(s, i)
        image.asset = s.balances[i].asset
        stream_put(out, &image, sizeof(BalanceImage))


cdef SortItem* sort_room(uint64_t count, Stream* out) noexcept nogil:
    # For `count` items and as many spare ones. NULL: nothing to sort, or the stream has the error.
    cdef SortItem* items = NULL
    if count:
        items = <SortItem*>region_map(2 * count * sizeof(SortItem))
        if items == NULL:
            out.error = ENOMEM
    return items


cdef void write_orders(State* s, Stream* out) noexcept nogil:
    cdef uint64_t count = 0, i
    cdef uint32_t account, slot
    cdef SortItem* items
    for account in range(s.account_count):
        count += s.accounts[account].open_orders
    stream_number(out, count)
    items = sort_room(count, out)
    if items == NULL:
        return
    i = 0
    for account in range(s.account_count):
        slot = s.accounts[account].first_order
        while slot != NIL:
            # A waiting order has no join: its own id gives it a place.
            items[i].key = s.details[slot].join if s.details[slot].join else s.orders[slot].order_id
            items[i].slot = slot
            i += 1
            slot = s.details[slot].next
    sort_by_key(items, items + count, count)
    for i in range(count):
        if i + FAR < count:
            prefetch_line(&s.orders[items[i + FAR].slot])
            prefetch_line(&s.details[items[i + FAR].slot])
            prefetch_line(&s.ids[s.orders[items[i + NEAR].slot].id_slot])
        write_order(s, items[i].slot, out)
    region_unmap(items, 2 * count * sizeof(SortItem))


cdef void write_order(State* s, uint32_t slot, Stream* out) noexcept nogil:
    cdef OrderImage order
    cdef uint32_t newest = s.orders[slot].id_slot, older
    order.order = s.orders[slot]
    order.order.next = order.order.prior = order.order.id_slot = NIL
    order.detail = s.details[slot]
    order.detail.next = order.detail.prior = order.detail.terms = NIL
    memset(&order.terms, 0, sizeof(Terms))
    order.has_terms = order.partner = 0
    if s.details[slot].terms != NIL:
        order.has_terms = 1
        order.terms = s.terms[s.details[slot].terms]
        order.terms.partner = order.terms.parked_next = order.terms.parked_prior = NIL
        if s.terms[s.details[slot].terms].partner != NIL:
            order.partner = s.orders[s.terms[s.details[slot].terms].partner].order_id
    order.client_id = s.ids[newest].client_id
    order.older_count = order.detail.older_names
    stream_put(out, &order, sizeof(OrderImage))
    older = s.ids[newest].next
    while older != NIL:
        stream_put(out, &s.ids[older].client_id, sizeof(ClientId))
        older = s.ids[older].next


cdef void write_remembered(State* s, Stream* out) noexcept nogil:
    cdef IdImage remembered
    cdef uint32_t slot = s.oldest_id
    stream_number(out, s.closed_ids)
    while slot != NIL:
        remembered.client_id = s.ids[slot].client_id
        remembered.order_id = s.ids[slot].order_id
        remembered.filled = s.ids[slot].filled
        remembered.account = s.ids[slot].account
        remembered.market = s.ids[slot].market
        remembered.status = s.ids[slot].status
        remembered.closing = s.ids[slot].closing
        stream_put(out, &remembered, sizeof(IdImage))
        slot = s.ids[slot].next


cdef void write_refs(State* s, Stream* out) noexcept nogil:
    cdef uint64_t count = s.ref_map.count, i = 0, place
    cdef uint32_t slot, posting
    cdef SortItem* items
    cdef Ref ref
    stream_number(out, count)
    items = sort_room(count, out)
    if items == NULL:
        return
    for place in range(map_places(&s.ref_map)):
        slot = map_at(&s.ref_map, place)
        if slot != NIL:
            items[i].key = s.refs[slot].first_sequence
            items[i].slot = slot
            i += 1
    sort_by_key(items, items + count, count)
    for i in range(count):
        ref = s.refs[items[i].slot]
        posting = ref.first_posting
        ref.first_posting = NIL
        stream_put(out, &ref, sizeof(Ref))
        while posting != NIL:
            stream_put(out, &s.postings[posting], sizeof(Posting))
            posting = s.postings[posting].next
    region_unmap(items, 2 * count * sizeof(SortItem))


cdef int judge(bint sound, str what) except -1:
    # `what` is a constant: millions of these are asked.
    if not sound:
        raise ValueError(f"the snapshot has {what}")
    return 0


cdef class Reader:
    """Takes structs off the front of the data; asking for more than there is raises ValueError."""

    cdef const unsigned char* data
    cdef size_t left

    cdef int take(self, void* target, size_t size) except -1:
        if size > self.left:
            raise ValueError("the snapshot ends too early")
        memcpy(target, self.data, size)
        self.data += size
        self.left -= size
        return 0

    cdef uint64_t count(self, uint64_t most) except? 0xFFFFFFFFFFFFFFFF:
        cdef uint64_t value
        self.take(&value, 8)
        if value > most:
            raise ValueError(f"the snapshot has {value} of what its limits allow {most}")
        return value


cdef int read_state(State* s, const unsigned char* data, size_t size) except -1:
    """Fills a fresh state that has no accounts yet."""
    cdef Reader reader = Reader.__new__(Reader)
    reader.data = data
    reader.left = size
    cdef Clock clock
    cdef uint64_t i, count
    cdef uint128 sum
    reader.take(&clock, sizeof(Clock))
    judge(clock.batch_first <= clock.sequence + 1 and clock.sequence < LAST_SEQUENCE, "a clock that cannot be")
    s.sequence = clock.sequence
    s.batch = clock.batch
    s.batch_first = clock.batch_first
    s.time = clock.time
    s.sum_low = clock.sum_low
    s.sum_high = clock.sum_high
    for i in range(reader.count(s.group_pool.capacity)):
        pool_take(&s.group_pool)
        reader.take(s.group_pool.nodes + i * sizeof(Name), sizeof(Name))
        map_put(&s.group_map, name_tag(s, <Name*>(s.group_pool.nodes + i * sizeof(Name))), <uint32_t>i)
    s.asset_count = <uint32_t>reader.count(s.limits.assets)
    for i in range(s.asset_count):
        reader.take(&s.assets[i], sizeof(Asset))
        judge(s.assets[i].scale <= 9 and s.assets[i].settled <= 1, "an asset that cannot be")
        map_put(&s.asset_map, name_tag(s, &s.assets[i].name), <uint32_t>i)
    for i in range(reader.count(s.limits.markets)):
        read_market(s, reader)
    for i in range(reader.count(s.limits.accounts)):
        read_account(s, reader)
    judge(s.account_count > FEES, "no account for the fees")
    count = reader.count(s.limits.balances)
    for i in range(count):
        read_balance(s, reader)
    for i in range(s.market_count):
        judge_fees(s, &s.markets[i])
    for i in range(reader.count(s.limits.orders)):
        read_order(s, reader)
    for i in range(reader.count(s.limits.closed_ids)):
        read_remembered(s, reader)
    for i in range(reader.count(s.limits.poisons)):
        read_poison(s, reader)
    for i in range(reader.count(s.limits.refs)):
        read_ref(s, reader)
    judge(reader.left == 0, "bytes behind its end")
    judge_mixes(s)
    sum = whole_sum(s)
    judge(<uint64_t>sum == s.sum_low and <uint64_t>(sum >> 64) == s.sum_high, "another state hash than it says")
    return 0


cdef int judge_mixes(State* s) except -1:
    # What each order takes out of the sum when it changes.
    cdef uint32_t i, slot
    cdef uint128 mix
    for i in range(s.account_count):
        slot = s.accounts[i].first_order
        while slot != NIL:
            mix = mix_order(s, slot)
            judge(
                s.details[slot].mix.low == <uint64_t>mix and s.details[slot].mix.high == <uint64_t>(mix >> 64),
                "an order with another mix than it keeps",
            )
            slot = s.details[slot].next
    return 0


cdef bint is_rate(int32_t ppm) noexcept nogil:
    return -100_000 <= ppm <= 100_000


cdef int read_market(State* s, Reader reader) except -1:
    cdef uint32_t index = s.market_count
    cdef Market* m = &s.markets[index]
    cdef int64_t notional
    reader.take(m, sizeof(Market))
    s.market_count += 1
    judge(m.base < s.asset_count and m.quote < s.asset_count and m.base != m.quote, "a market of unknown assets")
    judge(
        1 <= m.max_price <= s.limits.max_price and m.max_price <= PRICE_TICKS_TOTAL - s.price_ticks,
        "a market with a max_price that cannot be",
    )
    judge(m.k >= 1 and m.u >= 1 and m.tick >= 1 and m.lot >= 1, "a market without ticks, lots or units")
    notional = product_within(m.max_price, m.k, TOTAL_LIMIT)
    judge(
        notional >= 1 and 1 <= m.min_size <= m.max_size <= TOTAL_LIMIT // notional and m.max_size <= TOTAL_LIMIT // m.u,
        "a market with sizes that cannot be",
    )
    judge(is_rate(m.taker_ppm) and is_rate(m.maker_ppm), "a market with rates that cannot be")
    judge(
        0 <= m.entry_band_ppm <= 1_000_000_000 and 0 <= m.exec_band_ppm <= 1_000_000_000 and m.pause_ns >= 0,
        "a market with bands that cannot be",
    )
    judge(m.phase <= CLOSED and 0 <= m.last_price <= m.max_price, "a market in a phase, or at a price, that cannot be")
    judge(m.band_reference == ABSENT or 1 <= m.band_reference <= m.max_price, "a market with a reference outside its prices")
    judge(m.wide == NULL and m.half[BUY].depth == 0 and m.half[SELL].depth == 0, "a market with a book in its place")
    memset(m.half, 0, sizeof(m.half))
    m.half[BUY].nearest = INT64_MAX
    m.stop_count = m.spenders = m.slices = 0
    m.stops[BUY] = m.stops[SELL] = m.parked = NIL
    m.dirty = 0
    s.price_ticks += m.max_price
    if m.pause_sequence != 0:
        add_due(s, m.pause_at, m.pause_sequence, DUE_MARKET, index)
    return map_put(&s.market_map, name_tag(s, &m.name), index)


cdef int judge_fees(State* s, const Market* m) except -1:
    return judge(
        m.fees < s.balance_count and s.balances[m.fees].asset == m.quote and owner_of(s, m.fees) == FEES,
        "a market whose fees go to somebody else",
    )


cdef int read_poison(State* s, Reader reader) except -1:
    cdef Poison poison
    reader.take(&poison, sizeof(Poison))
    judge(poison.account < s.account_count, "a poison of an unknown account")
    judge(s.accounts[poison.account].poisons < POISONS_ACCOUNT, "too many poisons of an account")
    add_poison(s, poison.account, &poison.client_id)
    return 0


cdef int read_account(State* s, Reader reader) except -1:
    cdef AccountImage image
    cdef Name name
    cdef Annex* annex
    cdef Account* account
    cdef uint32_t index
    reader.take(&image, sizeof(AccountImage))
    judge(image.name_words <= 8, "a name of more than 8 words")
    judge(
        image.status <= FROZEN and image.overdraft <= OPEN_OVERDRAFT and image.killed <= 1
        and is_rate(image.taker_ppm) and is_rate(image.maker_ppm),
        "an account with a status or rates that cannot be",
    )
    judge(
        (image.stp_key & ~<uint32_t>STP_GROUP) < s.group_pool.used if image.stp_key & STP_GROUP
        else image.stp_key == s.account_count,
        "an account in an unknown self-trade group",
    )
    memset(&name, 0, sizeof(Name))
    reader.take(&name, image.name_words * sizeof(uint64_t))
    index = <uint32_t>open_account(s, &name, image.overdraft)
    account = &s.accounts[index]
    account.taker_ppm = image.taker_ppm
    account.maker_ppm = image.maker_ppm
    account.stp_key = image.stp_key
    account.status = image.status
    account.killed = image.killed
    account.mask = image.mask
    if image.has_annex:
        annex = own_annex(s, index)
        reader.take(annex, sizeof(Annex))
        if annex.cancel_after_sequence != 0:
            add_due(s, annex.cancel_after, annex.cancel_after_sequence, DUE_TIMER, index)
    return 0


cdef int read_balance(State* s, Reader reader) except -1:
    cdef BalanceImage image
    cdef uint32_t slot = s.balance_count
    reader.take(&image, sizeof(BalanceImage))
    judge(image.account < s.account_count, "a balance of an unknown account")
    judge(image.asset < s.asset_count, "a balance of an unknown asset")
    s.balance_count += 1
    s.balances[slot].available = image.available
    s.balances[slot].held = image.held
    s.balances[slot].asset = image.asset
    return link_balance(s, image.account, slot)


cdef uint32_t read_id(
    State* s, const ClientId* client_id, uint32_t account, uint32_t market, uint64_t order_id
) except? 0xFFFFFFFF:
    judge(account < s.account_count and market < s.market_count, "a client id of an unknown account or market")
    judge(pool_room(&s.id_pool) != 0, "more client ids than its limits allow")
    return open_id(s, id_tag(s, account, client_id), is_new(s, account, client_id), account, market, client_id, order_id)


cdef int read_order(State* s, Reader reader) except -1:
    cdef OrderImage read
    cdef ClientId older
    cdef uint64_t i
    cdef uint32_t slot = pool_take(&s.order_pool), last, node
    cdef Account* owner
    cdef Half* half
    reader.take(&read, sizeof(OrderImage))
    judge_order(s, &read)
    s.orders[slot] = read.order
    s.details[slot] = read.detail
    s.details[slot].older_names = <uint8_t>read.older_count
    s.details[slot].prior = s.details[slot].terms = NIL
    last = read_id(s, &read.client_id, read.order.account, read.order.market, read.order.order_id)
    s.orders[slot].id_slot = last
    s.ids[last].order = slot
    for i in range(read.older_count):
        reader.take(&older, sizeof(ClientId))
        node = read_id(s, &older, read.order.account, read.order.market, read.order.order_id)
        s.ids[node].order = slot
        s.ids[last].next = node
        last = node
    owner = &s.accounts[read.order.account]
    s.details[slot].next = owner.first_order
    if owner.first_order != NIL:
        s.details[owner.first_order].prior = slot
    owner.first_order = slot
    owner.open_orders += 1
    index_order(s, read.order.order_id, slot)
    if read.has_terms:
        read_terms(s, slot, &read)
    if read.detail.join == 0:
        if read.detail.type == STOP_LIMIT:
            secure_all(s, &s.markets[read.order.market])
        wait(s, slot)
    else:
        half = &s.markets[read.order.market].half[read.detail.side]
        if not in_window(half, read.order.price):
            secure(s, &s.markets[read.order.market], read.detail.side, read.order.price)
            widen(s, &s.markets[read.order.market], read.detail.side, read.order.price)
        enqueue(s, half, read.detail.side, slot)
    return 0


cdef int read_terms(State* s, uint32_t slot, const OrderImage* read) except -1:
    cdef uint32_t index = pool_take(&s.terms_pool), partner
    s.terms[index] = read.terms
    s.terms[index].partner = s.terms[index].parked_next = s.terms[index].parked_prior = NIL
    s.details[slot].terms = index
    if read.terms.display_size != ABSENT:
        s.markets[read.order.market].slices += read.terms.slices
        s.iceberg_count += 1
    if read.terms.expires_at != ABSENT:
        add_due(s, read.terms.expires_at, read.order.order_id, DUE_ORDER, slot)
    # The second of a pair finds the first.
    partner = find_order(s, read.partner) if read.partner else NIL
    if partner != NIL:
        judge(
            partner != slot and s.details[partner].terms != NIL and s.terms[s.details[partner].terms].partner == NIL
            and s.orders[partner].account == read.order.account and s.orders[partner].market == read.order.market
            and s.details[partner].side == read.detail.side
            and (s.details[partner].join == 0) != (read.detail.join == 0),
            "a pair that cannot be",
        )
        s.terms[index].partner = partner
        s.terms[s.details[partner].terms].partner = slot
    return 0


cdef int judge_order(State* s, const OrderImage* read) except -1:
    # Whatever an order is found by, divided by or ordered by.
    cdef const Order* o = &read.order
    cdef const OrderDetail* d = &read.detail
    cdef const Terms* terms = &read.terms
    cdef const Market* m
    cdef bint waits = d.join == 0, priced = d.type == LIMIT or d.type == STOP_LIMIT, budget = d.flags & PLACE_BUDGET
    cdef int64_t hidden = terms.hidden if read.has_terms else 0
    judge(o.account < s.account_count and o.market < s.market_count, "an order of an unknown account or market")
    m = &s.markets[o.market]
    judge(
        1 <= o.order_id <= s.sequence and find_order(s, o.order_id) == NIL and read.older_count <= OLDER_NAMES,
        "an order twice, from the future, or with too many older ids",
    )
    judge(
        d.side <= SELL and LIMIT <= d.type <= STOP_LIMIT and d.tif <= GTD and d.stp <= STP_NONE and read.has_terms <= 1
        and d.flags & ~(PLACE_POST_ONLY | PLACE_BUDGET) == 0 and d.dirty == 0,
        "an order of a kind that cannot be",
    )
    judge(
        1 <= o.price <= m.max_price if priced else waits and d.type == STOP,
        "an order at a price that its market has not",
    )
    judge(
        hidden >= 0 and 1 <= o.leaves <= o.size - hidden and (budget or o.size <= m.max_size),
        "an order with leaves that cannot be",
    )
    judge(
        o.size <= TOTAL_LIMIT and o.credit < MILLION and is_rate(o.maker_ppm) and is_rate(d.taker_ppm)
        and 0 <= o.hold_ppm <= 100_000,
        "an order with rates that cannot be",
    )
    judge(
        d.base < s.balance_count and d.quote < s.balance_count and owner_of(s, d.base) == o.account
        and owner_of(s, d.quote) == o.account and s.balances[d.base].asset == m.base and s.balances[d.quote].asset == m.quote,
        "an order with balances of others",
    )
    if waits:
        judge(
            d.type != LIMIT and read.has_terms and 1 <= terms.stop_price <= m.max_price,
            "an order that waits for no price",
        )
    if read.has_terms:
        judge(
            1 <= terms.display_size and o.leaves <= terms.display_size and terms.slices <= SLICES_MAX + 2
            if terms.display_size != ABSENT else hidden == 0,
            "an order with slices that cannot be",
        )
    return 0


cdef int read_remembered(State* s, Reader reader) except -1:
    cdef IdImage read
    cdef uint32_t slot
    reader.take(&read, sizeof(IdImage))
    judge(
        (read.status == STATUS_FILLED or read.status == STATUS_CANCELED)
        and read.closing > (s.ids[s.newest_id].closing if s.newest_id != NIL else 0),
        "a remembered id out of order, or open",
    )
    slot = read_id(s, &read.client_id, read.account, read.market, read.order_id)
    judge(
        s.accounts[read.account].closed_ids < s.limits.closed_ids_account, "too many remembered ids of an account"
    )
    s.ids[slot].filled = read.filled
    s.ids[slot].status = <uint8_t>read.status
    s.ids[slot].closing = read.closing
    append_closed(s, slot)
    return 0


cdef int read_ref(State* s, Reader reader) except -1:
    cdef uint32_t slot = pool_take(&s.ref_pool), posting, last = NIL, i
    cdef Ref* ref = &s.refs[slot]
    reader.take(ref, sizeof(Ref))
    ref.first_posting = NIL
    judge(
        ref.status <= REF_VOIDED and 1 <= ref.first_sequence <= s.sequence and find_ref(s, &ref.ref) == NIL,
        "a ref twice, from the future, or of a kind that cannot be",
    )
    judge(
        ref.posting_count <= LEGS_MAX and ref.posting_count <= pool_room(&s.posting_pool)
        and (ref.posting_count != 0) == (ref.status == REF_PENDING),
        "a ref with postings that cannot be",
    )
    map_put(&s.ref_map, name_tag(s, &ref.ref), slot)
    for i in range(ref.posting_count):
        posting = pool_take(&s.posting_pool)
        reader.take(&s.postings[posting], sizeof(Posting))
        judge(
            s.postings[posting].source < s.balance_count and s.postings[posting].target < s.balance_count,
            "a posting between unknown balances",
        )
        s.postings[posting].next = NIL
        if last == NIL:
            ref.first_posting = posting
        else:
            s.postings[last].next = posting
        last = posting
    return add_ref_dues(s, slot)
