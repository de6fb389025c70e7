# Writing events: every slot is zeroed first, so equal events are equal bytes.

from libc.string cimport memset

from engine.invariants cimport require
from engine.types cimport (
    EV_CANCELED, EV_REJECTED, NIL, SLOT_BYTES, CanceledEvent, ClientId, Event, RejectedEvent, State, clear_slot, int64_t,
    uint8_t, uint32_t, uint64_t,
)


cdef inline Event* add_event(State* s, uint8_t kind, uint8_t slots, uint32_t account, uint32_t market) except NULL nogil:
    # `slots` fresh slots for one event with its head filled in.
    cdef Event* event = &s.out[s.out_used]
    require(s.out_used + slots <= s.out_capacity, "more events than slots_bound promised")
    s.out_used += slots
    if slots == 1:
        clear_slot(event)
    else:
        memset(event, 0, <size_t>slots * SLOT_BYTES)
    event.sequence = s.sequence
    event.ts = s.ts
    event.index = s.event_index
    event.account = account
    event.market = market
    event.kind = kind
    event.slots = slots
    event.op = s.op
    s.event_index += 1
    return event


cdef inline RejectedEvent* add_rejected(State* s, uint8_t reason, uint32_t account) except NULL nogil:
    cdef Event* event = add_event(s, EV_REJECTED, 1, account, NIL)
    event.reason = reason
    return <RejectedEvent*>event


cdef inline int add_canceled(
    State* s, uint64_t order_id, uint32_t account, uint32_t market, const ClientId* client_id, int64_t leaves,
    int64_t released, uint8_t why,
) except -1 nogil:
    cdef CanceledEvent* e = <CanceledEvent*>add_event(s, EV_CANCELED, 1, account, market)
    (<Event*>e).reason = why
    e.order_id = order_id
    e.client_id = client_id[0]
    e.leaves = leaves
    e.released = released
    return 0
