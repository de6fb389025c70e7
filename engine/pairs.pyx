"""Terms of an order that most orders do not have: a displayed slice, a partner. (Its stop price: stops.pyx.)

    iceberg   Order.leaves is what is displayed, Terms.hidden the rest; matching sees only the first
              slice used up ─▶ refreshed: the next one joins the back of the level
    pair      a limit and a waiting stop or stop_limit of one account, market and side, linked both ways
              first trade of either, or the stop triggers ─▶ the other is canceled `oco`
              any other end of one ─▶ the other stands alone

A pair holds the larger of its holds, both in one balance: what one adds is what it holds beyond the other. Every link has
its counterpart; an order's end unlinks it. Never trades, never looks for what is due.

Worst case: constant, but for `rounds_fill`: the orders of a level once, and the matches that the fills limit leaves.
"""

from engine.book cimport dequeue, join_back
from engine.digest cimport touch_order
from engine.events cimport add_event
from engine.cancel cimport cancel_order
from engine.matching cimport Taker
from engine.orders cimport close_order
from engine.pool cimport find_id, id_tag, pool_give, pool_take
from engine.timers cimport leave_parked
from engine.types cimport *


cdef uint32_t open_terms(State* s, uint32_t slot, const PlaceRecord* r, uint32_t partner) except? 0xFFFFFFFF nogil:
    # The Terms of a new order. There are as many places as for orders.
    cdef uint32_t index = pool_take(&s.terms_pool)
    cdef Terms* terms = &s.terms[index]
    terms.stop_price = r.stop_price
    terms.display_size = r.display_size
    terms.expires_at = r.expires_at
    terms.hidden = 0
    terms.partner = partner
    terms.slices = 0
    terms.parked_next = terms.parked_prior = NIL
    s.details[slot].terms = index
    if partner != NIL:
        if s.details[partner].terms == NIL:
            s.details[partner].terms = bare_terms(s)
        s.terms[s.details[partner].terms].partner = slot
        touch_order(s, partner)
    if r.display_size != ABSENT:
        s.iceberg_count += 1
        count_slices(s, slot, r.size)
    return index


cdef uint32_t bare_terms(State* s) except? 0xFFFFFFFF nogil:
    # Of a plain limit that gets a partner.
    cdef uint32_t index = pool_take(&s.terms_pool)
    cdef Terms* terms = &s.terms[index]
    terms.stop_price = terms.display_size = terms.expires_at = ABSENT
    terms.hidden = 0
    terms.partner = NIL
    terms.slices = 0
    terms.parked_next = terms.parked_prior = NIL
    return index


cdef int drop_terms(State* s, uint32_t slot) except -1 nogil:
    cdef uint32_t index = s.details[slot].terms
    part(s, slot)
    if s.terms[index].parked_prior != NIL:
        leave_parked(s, slot)
    if s.terms[index].display_size != ABSENT:
        s.iceberg_count -= 1
        s.markets[s.orders[slot].market].slices -= s.terms[index].slices
    s.details[slot].terms = NIL
    pool_give(&s.terms_pool, index)
    return 0


cdef int end_order(State* s, uint32_t slot, uint8_t status, int64_t filled) except -1 nogil:
    # An order that may have Terms is closed.
    if s.details[slot].terms != NIL:
        drop_terms(s, slot)
    return close_order(s, slot, status, filled)


# ---------------------------------------------------------------- pairs


cdef uint32_t find_partner(State* s, const PlaceRecord* r) noexcept nogil:
    # The order that a new one may be paired with, or NIL.
    cdef const OcoSlot* named = <const OcoSlot*>(<const Record*>r + 1)
    cdef uint32_t node, slot
    cdef OrderDetail* d
    if (<const Record*>r).slots < 2:
        return NIL
    node = find_id(s, id_tag(s, r.account, <ClientId*>&named.client_id), r.account, <ClientId*>&named.client_id)
    if node == NIL or s.ids[node].status != STATUS_OPEN:
        return NIL
    slot = s.ids[node].order
    d = &s.details[slot]
    if s.orders[slot].market != r.market or d.side != r.side:
        return NIL
    if d.terms != NIL and s.terms[d.terms].partner != NIL:
        return NIL
    if r.type == LIMIT:
        return slot if d.join == 0 else NIL
    return slot if d.type == LIMIT else NIL


cdef uint32_t part(State* s, uint32_t slot) noexcept nogil:
    # The order loses its partner, which is returned (NIL: it had none), and that one it.
    cdef uint32_t partner
    if s.details[slot].terms == NIL:
        return NIL
    partner = s.terms[s.details[slot].terms].partner
    if partner == NIL:
        return NIL
    s.terms[s.details[slot].terms].partner = NIL
    s.terms[s.details[partner].terms].partner = NIL
    touch_order(s, slot)
    touch_order(s, partner)
    return partner


# ---------------------------------------------------------------- slices


cdef int count_slices(State* s, uint32_t slot, int64_t size) except -1 nogil:
    # An iceberg's total is `size` from now on. One slice more: what it shows may be less than a whole one.
    cdef Terms* terms = &s.terms[s.details[slot].terms]
    cdef Market* market = &s.markets[s.orders[slot].market]
    market.slices -= terms.slices
    terms.slices = <uint32_t>((size - 1) // terms.display_size + 2)
    market.slices += terms.slices
    return 0


cdef int show_slice(State* s, uint32_t slot, int64_t leaves) except -1 nogil:
    # Divides the leaves of an order that is about to join its level.
    cdef Terms* terms = &s.terms[s.details[slot].terms]
    cdef int64_t shown = leaves
    if terms.display_size != ABSENT and terms.display_size < leaves:
        shown = terms.display_size
    s.orders[slot].leaves = shown
    terms.hidden = leaves - shown
    return 0


cdef int refreshed_event(State* s, uint32_t slot) except -1 nogil:
    cdef Order* o = &s.orders[slot]
    cdef RefreshedEvent* e = <RefreshedEvent*>add_event(s, EV_REFRESHED, 1, o.account, o.market)
    e.order_id = o.order_id
    e.display_size = o.leaves
    return 0


cdef int refresh(State* s, uint32_t slot) except -1 nogil:
    # Nothing is displayed any more, something is hidden: the next slice joins the back.
    cdef uint8_t side = s.details[slot].side
    cdef Market* market = &s.markets[s.orders[slot].market]
    dequeue(s, &market.half[side], side, slot)
    show_slice(s, slot, s.terms[s.details[slot].terms].hidden)
    join_back(s, market, side, slot)
    return refreshed_event(s, slot)


cdef int after_fill(State* s, Taker* t, uint32_t slot, int64_t maker_held, int64_t taker_held) except -1 nogil:
    # What follows a trade in which one side has Terms; both holds are those before it.
    cdef uint8_t side = 1 - t.side
    cdef uint32_t partner = part(s, slot), terms = s.details[slot].terms
    if s.orders[slot].leaves == 0:
        if terms != NIL and s.terms[terms].hidden > 0:
            refresh(s, slot)
        else:
            dequeue(s, &t.market.half[side], side, slot)
            end_order(s, slot, STATUS_FILLED, s.orders[slot].size)
    if partner != NIL:
        cancel_order(s, partner, WHY_OCO, maker_held)
    if t.terms != NIL:
        partner = part(s, t.slot)
        if partner != NIL:
            cancel_order(s, partner, WHY_OCO, taker_held)
    return 0


cdef bint rounds_fill(State* s, Taker* t, uint32_t slot, int64_t* need, uint32_t* matches) noexcept nogil:
    # Whether what a level hides, from the order in `slot` on, fills what a fok still needs after all that is displayed
    # there. If not, `need` and `matches` are as after it. Own orders are gone by then, or count like others.
    cdef uint32_t at = slot, index, left = s.limits.max_fills - matches[0], count = 0, kept, i
    cdef int64_t all = 0, slices = 0, shown
    cdef bint passes = t.stp != STP_NONE
    cdef Terms* terms
    cdef Rest* rest
    while at != NIL:
        index = s.details[at].terms
        if index != NIL and s.terms[index].hidden > 0 and not (
            passes and s.accounts[s.orders[at].account].stp_key == t.stp_key
        ):
            terms = &s.terms[index]
            if count < left:  # the fills limit ends the first round before any more are met
                s.rests[count].hidden = terms.hidden
                s.rests[count].display_size = terms.display_size
                count += 1
            all += terms.hidden
            slices += (terms.hidden - 1) // terms.display_size + 1
        at = s.orders[at].next
    if all < need[0]:
        need[0] -= all
        matches[0] = s.limits.max_fills if slices > left else matches[0] + <uint32_t>slices
        return False
    if slices <= left:
        return True
    # The limit may end it before: slice by slice, in the order in which they would be met.
    matches[0] = s.limits.max_fills
    while left > 0:
        kept = 0
        for i in range(count):
            rest = &s.rests[i]
            shown = rest.display_size if rest.display_size < rest.hidden else rest.hidden
            if shown >= need[0]:
                return True
            need[0] -= shown
            left -= 1
            if left == 0:
                return False
            if shown < rest.hidden:
                s.rests[kept].hidden = rest.hidden - shown
                s.rests[kept].display_size = rest.display_size
                kept += 1
        count = kept
    return False
