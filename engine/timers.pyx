"""What happens by time, and only by `tick`: orders, pending transfers, cancel_after, pauses, forgotten refs.

A binary heap by (due time, sequence that set it, kind, market). An entry whose subject is gone or was set anew is passed over
when it surfaces: nothing has to be looked for when an order or a timer ends.

    tick:   the least entry that is due and can happen now, again and again, until there is none

An order of a halted market cannot happen: when it surfaces it leaves the heap for the list of its market, where it stays
until it ends or the market leaves the halt. Other markets never look at it.

Never looks at a clock. Worst case: all entries are due at once, O(log n) each and what they cause; a market that enters or
leaves a halt moves its own orders that expire, O(log n) each.
"""

from libc.stdint cimport INT64_MAX

from engine.cancel cimport cancel_slot
from engine.invariants cimport require
from engine.phases cimport pause_due
from engine.pool cimport annex_of, find_order
from engine.refs cimport forget_ref
from engine.scopes cimport cancel_account, set_timer
from engine.transfers cimport expire
from engine.types cimport *


cdef inline bint earlier(Due* a, Due* b) noexcept nogil:
    if a.at != b.at:
        return a.at < b.at
    if a.sequence != b.sequence:
        return a.sequence < b.sequence
    if a.kind != b.kind:
        return a.kind < b.kind
    return a.slot < b.slot  # one tick may set the pauses of several markets: by market


cdef bint still_due(State* s, Due* due) noexcept nogil:
    # Whether its subject is there, and waits for just this entry.
    cdef uint32_t slot = due.slot
    if due.kind == DUE_ORDER:
        return find_order(s, due.sequence) == slot
    if due.kind == DUE_TIMER:
        return annex_of(s, slot).cancel_after == due.at and annex_of(s, slot).cancel_after_sequence == due.sequence
    if due.kind == DUE_MARKET:
        return s.markets[slot].pause_at == due.at and s.markets[slot].pause_sequence == due.sequence
    if s.refs[slot].first_sequence != due.sequence:
        return False
    return (s.refs[slot].status == REF_PENDING) == (due.kind == DUE_TRANSFER)


cdef inline Terms* parked_links(State* s, uint32_t slot) noexcept nogil:
    return &s.terms[s.details[slot].terms]


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
    # Drops what is no longer due; if that does not help, twice as many may wait.
    cdef uint32_t i, kept = 0
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
    require(2 * <uint64_t>s.due_capacity <= s.due_most, "more is due than there are subjects")
    s.due_capacity *= 2
    return 0


cdef uint64_t due_entries(const Limits* limits) noexcept nogil:
    # How many entries the heap may need: twice as many as can be due, for `due_room` leaves half of them.
    cdef uint64_t subjects = <uint64_t>limits.orders + limits.refs + limits.accounts + limits.markets
    cdef uint64_t entries = FIRST_DUES
    while entries <= 2 * subjects:
        entries *= 2
    return entries


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


cdef void drop_due(State* s) noexcept nogil:
    s.due_count -= 1
    if s.due_count:
        s.due[0] = s.due[s.due_count]
        sink(s, 0)


cdef void park(State* s) noexcept nogil:
    # The first entry leaves the heap, its order joins the end of its market's list.
    cdef uint32_t slot = s.due[0].slot, last
    cdef Terms* terms = parked_links(s, slot)
    cdef Terms* first
    cdef Market* market = &s.markets[s.orders[slot].market]
    drop_due(s)
    terms.parked_next = NIL
    if market.parked == NIL:
        market.parked = terms.parked_prior = slot
        return
    first = parked_links(s, market.parked)
    last = first.parked_prior
    parked_links(s, last).parked_next = slot
    terms.parked_prior = last
    first.parked_prior = slot


cdef void leave_parked(State* s, uint32_t slot) noexcept nogil:
    # A parked order ends, or its market is no longer halted.
    cdef Terms* terms = parked_links(s, slot)
    cdef Market* market = &s.markets[s.orders[slot].market]
    if market.parked == slot:
        market.parked = terms.parked_next
    else:
        parked_links(s, terms.parked_prior).parked_next = terms.parked_next
    if terms.parked_next != NIL:
        parked_links(s, terms.parked_next).parked_prior = terms.parked_prior
    elif market.parked != NIL:
        parked_links(s, market.parked).parked_prior = terms.parked_prior
    terms.parked_next = terms.parked_prior = NIL


cdef int unpark(State* s, uint32_t market) except -1 nogil:
    # The market is no longer halted: its orders go back, earliest first unless it was halted more than once.
    cdef uint32_t slot
    while s.markets[market].parked != NIL:
        slot = s.markets[market].parked
        leave_parked(s, slot)
        add_due(s, parked_links(s, slot).expires_at, s.orders[slot].order_id, DUE_ORDER, slot)
    return 0


cdef bint has_next(State* s) noexcept nogil:
    # Whether anything is to come; it then stands first.
    while s.due_count:
        if not still_due(s, &s.due[0]):
            drop_due(s)
        elif s.due[0].kind == DUE_ORDER and s.markets[s.orders[s.due[0].slot].market].phase == HALT:
            park(s)
        else:
            return True
    return False


cdef int64_t next_due(State* s) noexcept nogil:
    return s.due[0].at if has_next(s) else INT64_MAX


cdef int tick(State* s) except -1 nogil:
    cdef Due due
    while has_next(s) and s.due[0].at <= s.time:
        due = s.due[0]
        drop_due(s)
        if due.kind == DUE_ORDER:
            cancel_slot(s, due.slot, WHY_EXPIRED)
        elif due.kind == DUE_TRANSFER:
            expire(s, due.slot)
        elif due.kind == DUE_TIMER:
            set_timer(s, due.slot, 0)
            cancel_account(s, due.slot, WHY_SESSION)
        elif due.kind == DUE_MARKET:
            pause_due(s, due.slot)
        else:
            forget_ref(s, due.slot)
    return 0


cdef Py_ssize_t due_bound(State* s, uint32_t at, int64_t time) noexcept nogil:
    # Event slots of the entries due by then in the heap below `at`, but for what a pause causes: that is -1.
    cdef Py_ssize_t slots, below
    cdef Due* due
    if at >= s.due_count or s.due[at].at > time:
        return 0
    due = &s.due[at]
    if due.kind == DUE_ORDER:
        slots = 1
    elif due.kind == DUE_TIMER:
        slots = s.accounts[due.slot].open_orders
    elif due.kind == DUE_TRANSFER:
        slots = 2 + 3 * <Py_ssize_t>s.refs[due.slot].posting_count
    elif due.kind == DUE_MARKET:
        slots = -1 if s.markets[due.slot].pause_sequence == due.sequence else 0
    else:
        slots = 0
    if slots < 0:
        return -1
    below = due_bound(s, 2 * at + 1, time)
    if below < 0:
        return -1
    slots += below
    below = due_bound(s, 2 * at + 2, time)
    return -1 if below < 0 else slots + below


cdef Py_ssize_t tick_bound(State* s, int64_t time) noexcept nogil:
    # The most slots that a tick at that time can make; -1: a pause ends, and what follows may be anything its market can.
    return due_bound(s, 0, time if time > s.time else s.time)
