# Looking ahead in a batch.
#
# A command walks a chain: map entry, client id, order, then level and neighbours. Each link not in the cache costs 100 ns
# and more, unless it was asked for in time. A batch knows what comes, so it walks the chains of later records beside
# that of the present one, one link at a time:
#
#     FAR slots ahead    the tag of the client id (kept: the command need not hash again); its place in a map; the market
#     MID                the client id or order found there
#     NEAR               the order of the client id, or its market; the level of a new order, the best it will meet
#     LAST               neighbours in the level and among the account's orders; the order that is met
#
# All of it reads only, stays inside the tables whatever the bytes are, and decides nothing: a wrong guess costs a line
# of the cache. The last three are left out while all open orders fit the cache anyway.

from libc.string cimport memset

from engine.book cimport has_level, in_window, reaches
from engine.pool cimport id_tag, order_tag, recent_id
from engine.types cimport (
    DO_PLACE, DO_REPLACE, NIL, ORDER_BY_ORDER_ID, SELL, SLOT_BYTES, WINDOW, CancelRecord, Group, Half, IdNode, Map, Market, Order,
    OrderDetail, PlaceRecord, Recent, Record, State, either, lowest_bit, match_tags, prefetch_line, uint8_t, uint32_t, uint64_t,
)

cdef enum:
    AHEAD = 32  # slots of a batch that are remembered; more than FAR
    FAR = 24
    MID = 18
    NEAR = 12
    LAST = 6
    CACHED_ORDERS = 4096  # so many open orders are in the cache anyway
    CACHED_GROUPS = 1024  # and so many groups of a map
    CACHED_MARKETS = 64

# What is known of a record before its turn.
ctypedef struct Ahead:
    const Record* record  # which it is: places in the ring may be left from others
    uint32_t tag  # of the client id at its words 5 … 8
    uint32_t id, order  # slots of what it seems to name, or NIL: guesses to prefetch by


cdef inline bint by_order_id(const Record* r) noexcept nogil:
    return (r.flags & ORDER_BY_ORDER_ID) & (r.kind != DO_PLACE)


cdef inline void look_far(State* s, const Record* r, Ahead* ahead) noexcept nogil:
    cdef uint64_t order_id = (<const CancelRecord*>r).client_id.word[0]
    cdef bint by = by_order_id(r)
    cdef Recent* leaving = &s.window[r.sequence & (WINDOW - 1)]
    cdef uint32_t tag = 0
    if s.limits.risk:
        tag = id_tag(s, (<const CancelRecord*>r).account, &(<const CancelRecord*>r).client_id)
    ahead.record = r
    ahead.tag = tag
    ahead.id = ahead.order = NIL
    prefetch_line(<const char*>r + SLOT_BYTES // 2)
    prefetch_line(&s.orders[leaving.slot - (leaving.slot != 0)])
    prefetch_line(either(by, &s.window[order_id & (WINDOW - 1)], &s.id_map.groups[tag & s.id_map.mask]))
    if s.order_map.mask >= CACHED_GROUPS:
        if by and s.sequence - order_id >= WINDOW:
            look_old(s, order_id)
        elif leaving.slot:
            look_old(s, recent_id(leaving, r.sequence))
    if s.market_count > CACHED_MARKETS:
        look_market(s, (<const PlaceRecord*>r).market)


cdef inline void look_market(State* s, uint32_t index) noexcept nogil:
    # All that an order needs of it, if it is a `place`: its first four lines. Else market 0, or wherever these bytes point.
    cdef const Market* market = &s.markets[index if index < s.market_count else 0]
    prefetch_line(market)
    prefetch_line(&market.last_price)
    prefetch_line(&market.half[0])
    prefetch_line(&market.half[1])


cdef inline void look_half(State* s, uint32_t market, uint8_t side) noexcept nogil:
    # What a cancel needs of it.
    if market < s.market_count:
        prefetch_line(&s.markets[market])
        prefetch_line(&s.markets[market].half[side & 1])


cdef inline const Recent* place_of(State* s, const Record* r) noexcept nogil:
    # The place in the window of the order that the record names by its id, or of its own.
    cdef uint64_t own = r.sequence, named = (<const CancelRecord*>r).client_id.word[0]
    return &s.window[(own ^ ((own ^ named) & -<uint64_t>by_order_id(r))) & (WINDOW - 1)]


cdef inline void glance_far(State* s, const Record* r, Ahead* ahead) noexcept nogil:
    prefetch_line(place_of(s, r))
    if s.limits.risk:
        ahead.record = r
        ahead.tag = id_tag(s, (<const CancelRecord*>r).account, &(<const CancelRecord*>r).client_id)
        prefetch_line(&s.id_map.groups[ahead.tag & s.id_map.mask])


cdef inline void glance_near(State* s, const Record* r, Ahead* ahead) noexcept nogil:
    cdef uint32_t slot = place_of(s, r).slot
    slot -= slot != 0
    prefetch_line(&s.orders[slot])
    prefetch_line(&s.details[slot])
    if s.limits.risk:
        slot = guess(&s.id_map, ahead.tag)
        if slot != NIL:
            look_id(s, slot)


cdef inline void look_old(State* s, uint64_t order_id) noexcept nogil:
    prefetch_line(&s.order_map.groups[order_tag(order_id) & s.order_map.mask])


cdef inline uint32_t guess(Map* table, uint32_t tag) noexcept nogil:
    # The first slot with that tag in its home group, or NIL.
    cdef Group* group = &table.groups[tag & table.mask]
    cdef uint32_t lanes = match_tags(group.tag, tag)
    return group.slot[lowest_bit(lanes)] if lanes else NIL


cdef inline void look_order(State* s, uint32_t slot) noexcept nogil:
    prefetch_line(&s.orders[slot])
    prefetch_line(&s.details[slot])


cdef inline void look_id(State* s, uint32_t slot) noexcept nogil:
    prefetch_line(&s.ids[slot])
    prefetch_line(<char*>&s.ids[slot] + sizeof(IdNode) - 1)


cdef inline void look_mid(State* s, const Record* r, Ahead* ahead) noexcept nogil:
    cdef const CancelRecord* c = <const CancelRecord*>r
    cdef uint64_t order_id = c.client_id.word[0]
    if by_order_id(r):
        if s.sequence - order_id < WINDOW:
            ahead.order = s.window[order_id & (WINDOW - 1)].slot - 1
        else:
            ahead.order = guess(&s.order_map, order_tag(order_id))
        if ahead.order != NIL:
            look_order(s, ahead.order)
    elif r.kind != DO_PLACE:
        ahead.id = guess(&s.id_map, ahead.tag)
        if ahead.id != NIL:
            look_id(s, ahead.id)


cdef inline bint looks_placed(State* s, const PlaceRecord* p) noexcept nogil:
    return (
        p.market < s.market_count and p.side <= SELL and p.price > 0 and p.price <= s.markets[p.market].max_price
    )


cdef inline bint crosses(const Half* opposite, const PlaceRecord* p) noexcept nogil:
    return (opposite.best != 0) & reaches(p.side, p.price, opposite.best)


cdef inline void look_near(State* s, const Record* r, Ahead* ahead) noexcept nogil:
    cdef const PlaceRecord* p = <const PlaceRecord*>r
    cdef Half* half
    if r.kind == DO_PLACE:
        if looks_placed(s, p):
            half = &s.markets[p.market].half[p.side]
            prefetch_line(&half.levels[p.price])
            prefetch_line(&half.bits[p.price >> 6])
            half = &s.markets[p.market].half[1 - p.side]
            prefetch_line(either(crosses(half, p), &half.levels[half.best], half))
    elif ahead.order != NIL:
        look_id(s, s.orders[ahead.order].id_slot)
        if s.market_count > CACHED_MARKETS:
            look_half(s, s.orders[ahead.order].market, s.details[ahead.order].side)
    elif ahead.id != NIL and s.ids[ahead.id].order < s.order_pool.used:
        # Of a closed id that is no order, but some slot of the pool.
        ahead.order = s.ids[ahead.id].order
        look_order(s, ahead.order)


cdef inline void look_last(State* s, const Record* r, Ahead* ahead) noexcept nogil:
    cdef const PlaceRecord* p = <const PlaceRecord*>r
    cdef Half* half
    cdef Order* o
    cdef OrderDetail* d
    if r.kind == DO_PLACE:
        if looks_placed(s, p):
            half = &s.markets[p.market].half[p.side]
            if in_window(half, p.price) and has_level(half, p.price):
                prefetch_line(&s.orders[half.levels[p.price].tail])
            half = &s.markets[p.market].half[1 - p.side]
            if crosses(half, p):
                look_order(s, half.levels[half.best].head)
        return
    if ahead.order == NIL or r.kind > DO_REPLACE:
        return
    o = &s.orders[ahead.order]
    d = &s.details[ahead.order]
    prefetch_line(&s.window[o.order_id & (WINDOW - 1)])
    if s.sequence - o.order_id >= WINDOW:
        look_old(s, o.order_id)
    if o.market < s.market_count and o.price > 0 and o.price <= s.markets[o.market].max_price:
        half = &s.markets[o.market].half[d.side & 1]
        prefetch_line(&half.levels[o.price])
        prefetch_line(&half.bits[o.price >> 6])
    prefetch_line(either(o.prior < s.order_pool.used, &s.orders[o.prior], o))
    prefetch_line(either(o.next < s.order_pool.used, &s.orders[o.next], o))
    prefetch_line(either(d.prior < s.order_pool.used, &s.details[d.prior], d))
    prefetch_line(either(d.next < s.order_pool.used, &s.details[d.next], d))


cdef inline void look(State* s, const Record* records, Py_ssize_t now, Py_ssize_t end, Ahead* ahead) noexcept nogil:
    # While the record at `now` has its turn. Near the end of the batch there is little to look at. Where a record has
    # several slots, stages are left out; each finds out whether the one before was about the same slot.
    cdef Ahead* place
    if now + FAR < end:
        look_far(s, &records[now + FAR], &ahead[(now + FAR) % AHEAD])
        place = &ahead[(now + MID) % AHEAD]
        if place.record == &records[now + MID]:
            look_mid(s, &records[now + MID], place)
        place = &ahead[(now + NEAR) % AHEAD]
        if place.record == &records[now + NEAR]:
            look_near(s, &records[now + NEAR], place)
        place = &ahead[(now + LAST) % AHEAD]
        if place.record == &records[now + LAST]:
            look_last(s, &records[now + LAST], place)


cdef inline void glance(State* s, const Record* records, Py_ssize_t now, Py_ssize_t end, Ahead* ahead) noexcept nogil:
    # The same where all open orders are in the cache, or nearly.
    if now + FAR < end:
        prefetch_line(&records[now + FAR])
        prefetch_line(<const char*>&records[now + FAR] + SLOT_BYTES // 2)
        glance_far(s, &records[now + NEAR], &ahead[(now + NEAR) % AHEAD])
        glance_near(s, &records[now + LAST], &ahead[(now + LAST) % AHEAD])


cdef inline void begin(State* s, const Record* records, Py_ssize_t start, Py_ssize_t end, bint deep, Ahead* ahead) noexcept nogil:
    # What would have been looked at before the batch.
    cdef Py_ssize_t at
    memset(ahead, 0, AHEAD * sizeof(Ahead))
    for at in range(start, start + FAR if start + FAR < end else end):
        if deep:
            look_far(s, &records[at], &ahead[at % AHEAD])
        elif at < start + NEAR:
            glance_far(s, &records[at], &ahead[at % AHEAD])


cdef inline uint32_t known_tag(State* s, const Record* r, const Ahead* ahead) noexcept nogil:
    # The tag of the client id at words 5 … 8, whatever the kind.
    if not s.limits.risk:
        return 0
    if ahead.record == r:
        return ahead.tag
    return id_tag(s, (<const CancelRecord*>r).account, &(<const CancelRecord*>r).client_id)
