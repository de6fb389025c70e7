"""cancel: a resting or waiting order ends. Event, hold back, out of its level or the stops, closed.

Worst case: constant, or `depth` words of a bitmap where a level empties.
"""

from libc.string cimport memcpy

from engine.book cimport dequeue
from engine.events cimport add_canceled, add_rejected
from engine.orders cimport close_order, named_order
from engine.pairs cimport end_order
from engine.risk cimport beyond, hold, hold_slot, order_hold, partner_hold, required_hold, whole_leaves
from engine.stops cimport stop_waiting
from engine.types cimport *


cdef int cancel_order(State* s, uint32_t slot, uint8_t why, int64_t other) except -1 nogil:
    # `other` is held by its partner, and stays.
    cdef Order* o = &s.orders[slot]
    cdef int64_t released = beyond(order_hold(s, slot), other), leaves = whole_leaves(s, slot)
    cdef uint8_t side = s.details[slot].side
    add_canceled(s, o.order_id, o.account, o.market, &s.ids[o.id_slot].client_id, leaves, released, why)
    hold(s, hold_slot(s, slot), -released)
    if s.details[slot].join == 0:
        stop_waiting(s, slot)
    else:
        dequeue(s, &s.markets[o.market].half[side], side, slot)
    return end_order(s, slot, STATUS_CANCELED, o.size - leaves)


cdef inline int cancel_plain(State* s, uint32_t slot, uint8_t why) except -1 nogil:
    # The same for an order without Terms: it rests, and holds for itself alone.
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Market* market = &s.markets[o.market]
    cdef int side = d.side
    cdef int64_t released = 0, leaves = o.leaves
    if s.limits.risk:
        released = required_hold(market, d.side, o.price, leaves, o.hold_ppm, o.credit)
        hold(s, d.base if side == SELL else d.quote, -released)
    add_canceled(s, o.order_id, o.account, o.market, &s.ids[o.id_slot].client_id, leaves, released, why)
    dequeue(s, &market.half[side], side, slot)
    return close_order(s, slot, STATUS_CANCELED, o.size - leaves)


cdef int cancel_slot(State* s, uint32_t slot, uint8_t why) except -1 nogil:
    if s.details[slot].terms == NIL:
        return cancel_plain(s, slot, why)
    return cancel_order(s, slot, why, partner_hold(s, s.details[slot].terms))


# ---------------------------------------------------------------- by command

cdef int reject_named(State* s, uint32_t account, const ClientId* client_id, uint16_t flags, int reason) except -1 nogil:
    cdef RejectedEvent* e = add_rejected(s, reason, account)
    if flags & (ORDER_BY_ORDER_ID | ORDER_BOTH_IDS):
        e.order_id = client_id.word[0]
        e.flags = REJECTED_ORDER_ID
    else:
        memcpy(&e.text, client_id, sizeof(ClientId))
        e.flags = REJECTED_CLIENT_ID
    return 0


cdef int cancel(State* s, const CancelRecord* r, uint16_t flags) except -1 nogil:
    cdef uint32_t slot
    if r.account >= s.account_count:
        return reject_named(s, r.account, &r.client_id, flags, UNKNOWN_ACCOUNT)
    if flags & ORDER_BOTH_IDS:
        return reject_named(s, r.account, &r.client_id, flags, BAD_VALUE)
    slot = named_order(s, r.account, &r.client_id, flags)
    if slot == NIL:
        return reject_named(s, r.account, &r.client_id, flags, UNKNOWN_ORDER)
    # From here on nothing is refused.
    return cancel_slot(s, slot, WHY_USER)
