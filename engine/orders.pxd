# The life of one order: its slot, its place among its account's orders, its ids.
#
#     open_order ──▶ in a book or waiting ──▶ close_order
#
# An order has a slot from when it rests or waits until it ends; a taker that never rests has none. Its hold, its level
# and its Terms are for the caller to settle.

from engine.book cimport link_to
from engine.digest cimport forget_order
from engine.ids cimport close_ids
from engine.pool cimport find_id, find_order, index_order, pool_give, pool_take, unindex_order
from engine.types cimport (
    NIL, ORDER_BY_ORDER_ID, STATUS_OPEN, Account, ClientId, Order, OrderDetail, State, int32_t, int64_t, uint8_t, uint16_t,
    uint32_t, uint64_t,
)


cdef inline uint64_t kinds_of(uint8_t side, uint8_t type, uint8_t tif, uint8_t stp, uint8_t flags) noexcept nogil:
    # The eight bytes of OrderDetail from `side` on, of an order that is clean and has one name.
    return side | <uint32_t>type << 8 | <uint32_t>tif << 16 | <uint64_t>stp << 24 | <uint64_t>flags << 32


cdef inline uint32_t open_order(
    State* s, uint64_t order_id, uint32_t account, uint32_t market, uint32_t id_slot, uint32_t base, uint32_t quote,
    int32_t taker_ppm, int32_t maker_ppm, int32_t hold_ppm, uint64_t kinds, uint64_t session,
) except? 0xFFFFFFFF nogil:
    # A new order, found by its ids from now on. Not yet in a book; price, sizes and credit are for the caller to set.
    cdef uint32_t slot = pool_take(&s.order_pool)
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Account* owner = &s.accounts[account]
    cdef uint32_t first = owner.first_order
    d.mix.low = 0
    d.mix.high = 0
    d.join = 0
    d.session = session
    d.base = base
    d.quote = quote
    d.next = first
    link_to(first, &s.details[first].prior, &d.prior)[0] = slot
    d.prior = NIL
    owner.first_order = slot
    owner.open_orders += 1
    d.taker_ppm = taker_ppm
    (<uint64_t*>&d.side)[0] = kinds
    d.terms = NIL
    o.order_id = order_id
    o.account = account
    o.market = market
    o.maker_ppm = maker_ppm
    o.hold_ppm = hold_ppm
    o.id_slot = id_slot
    s.ids[id_slot].order = slot
    index_order(s, order_id, slot)
    return slot


cdef inline int close_order(State* s, uint32_t slot, uint8_t status, int64_t filled) except -1 nogil:
    # Out of every index but the book and the stops; it has no Terms (any more).
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Account* owner = &s.accounts[o.account]
    cdef uint32_t newest = o.id_slot, prior = d.prior, next = d.next
    if s.limits.risk:
        forget_order(s, slot)
    link_to(prior, &s.details[prior].next, &owner.first_order)[0] = next
    link_to(next, &s.details[next].prior, &d.prior)[0] = prior
    owner.open_orders -= 1
    unindex_order(s, o, slot)
    pool_give(&s.order_pool, slot)
    return close_ids(s, newest, status, filled)


cdef inline uint32_t named_order(State* s, uint32_t account, const ClientId* client_id, uint16_t flags) noexcept nogil:
    # The account's open order with that order id or client id (the command's own: its tag is known), or NIL.
    cdef uint32_t slot
    if flags & ORDER_BY_ORDER_ID:
        slot = find_order(s, client_id.word[0])
        return slot if slot != NIL and s.orders[slot].account == account else NIL
    if not s.limits.risk:
        return NIL
    slot = find_id(s, s.tag, account, client_id)
    return s.ids[slot].order if slot != NIL and s.ids[slot].status == STATUS_OPEN else NIL  # open or waiting
