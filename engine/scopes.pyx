"""Orders of one account, market or session together, and commands that concern an account alone.

    mass_cancel, frozen, killed, closed, session (cancel_after)     collect ─▶ sort by order_id ─▶ cancel one by one
    kill, rearm      whether the account may place and replace
    cancel_after     when a tick will cancel its orders; a later one replaces it
    poison           a client id that no order can have any more; kept for ever

Open and waiting orders are treated alike. Worst case: mass_cancel without an account walks the orders of all accounts.
"""

from libc.string cimport memcpy

from engine.book cimport next_worse
from engine.digest cimport add_mix, mix_account, mix_poison, remove_mix
from engine.events cimport add_event, add_rejected
from engine.cancel cimport cancel_slot
from engine.invariants cimport require
from engine.place cimport duplicate_order
from engine.pool cimport find_id, find_poison, id_tag, is_empty, map_put, own_annex, pool_room, pool_take
from engine.stops cimport collect_waiting
from engine.timers cimport add_due
from engine.types cimport *


cdef int collect(State* s, uint32_t slot, size_t* count) except -1 nogil:
    require(count[0] < s.limits.orders, "more orders than there can be")
    s.scratch[count[0]].key = s.orders[slot].order_id
    s.scratch[count[0]].slot = slot
    count[0] += 1
    return 0


cdef int collect_account(State* s, uint32_t account, const MassCancelRecord* r, size_t* count) except -1 nogil:
    # The account's orders that fit `r` (NULL: all of them).
    cdef uint32_t slot = s.accounts[account].first_order
    while slot != NIL:
        if r == NULL or (
            (not r.given & 2 or s.orders[slot].market == r.market)
            and (r.side == 255 or s.details[slot].side == r.side)
            and (r.session == 0 or s.details[slot].session == r.session)
        ):
            collect(s, slot, count)
        slot = s.details[slot].next
    return 0


cdef int cancel_collected(State* s, size_t count, uint8_t why) except -1 nogil:
    cdef size_t i
    sort_items(s.scratch, count)
    for i in range(count):
        cancel_slot(s, s.scratch[i].slot, why)
    return 0


cdef int cancel_account(State* s, uint32_t account, uint8_t why) except -1 nogil:
    cdef size_t count = 0
    collect_account(s, account, NULL, &count)
    return cancel_collected(s, count, why)


cdef int cancel_market(State* s, uint32_t market, uint8_t why) except -1 nogil:
    cdef Market* m = &s.markets[market]
    cdef size_t count = 0
    cdef uint32_t slot
    cdef int64_t price
    cdef int side
    for side in range(2):
        price = m.half[side].best
        while price != 0:
            slot = m.half[side].levels[price].head
            while slot != NIL:
                collect(s, slot, &count)
                slot = s.orders[slot].next
            price = next_worse(&m.half[side], side, price)
        collect_waiting(s, m.stops[side], &count)
    return cancel_collected(s, count, why)


cdef int mass_cancel(State* s, const MassCancelRecord* r) except -1 nogil:
    cdef uint32_t account = r.account if r.given & 1 else NIL, market = r.market if r.given & 2 else NIL, i
    cdef size_t count = 0
    if r.given & 1 and account >= s.account_count:
        add_rejected(s, UNKNOWN_ACCOUNT, account)
        return 0
    if r.given & 2 and market >= s.market_count:
        add_rejected(s, UNKNOWN_MARKET, account)
        return 0
    if r.side != 255 and r.side > SELL:
        add_rejected(s, BAD_VALUE, account)
        return 0
    # From here on nothing is refused.
    add_event(s, EV_DONE, 1, account, market)
    if r.given & 1:
        collect_account(s, account, r, &count)
    else:
        for i in range(s.account_count):
            collect_account(s, i, r, &count)
    return cancel_collected(s, count, WHY_SESSION if r.session else WHY_MASS)


# ---------------------------------------------------------------- an account


cdef int do_kill(State* s, const CancelAfterRecord* r, uint8_t killed) except -1 nogil:
    """kill, rearm."""
    if r.account >= s.account_count:
        add_rejected(s, UNKNOWN_ACCOUNT, r.account)
        return 0
    # From here on nothing is refused.
    remove_mix(s, mix_account(s, r.account))
    s.accounts[r.account].killed = killed
    add_mix(s, mix_account(s, r.account))
    add_event(s, EV_DONE, 1, r.account, NIL)
    return cancel_account(s, r.account, WHY_KILLED) if killed else 0


cdef int set_timer(State* s, uint32_t account, int64_t at) except -1 nogil:
    # When its orders will be canceled, by this command; 0: not any more.
    cdef Annex* annex = own_annex(s, account)
    remove_mix(s, mix_account(s, account))
    annex.cancel_after = at
    annex.cancel_after_sequence = s.sequence if at else 0
    add_mix(s, mix_account(s, account))
    return 0


cdef int do_cancel_after(State* s, const CancelAfterRecord* r) except -1 nogil:
    if r.account >= s.account_count:
        add_rejected(s, UNKNOWN_ACCOUNT, r.account)
        return 0
    if r.at != 0 and r.at <= s.time:
        add_rejected(s, BAD_EXPIRY, r.account)
        return 0
    # From here on nothing is refused.
    set_timer(s, r.account, r.at)
    if r.at:
        add_due(s, r.at, s.sequence, DUE_TIMER, r.account)
    add_event(s, EV_DONE, 1, r.account, NIL)
    return 0


cdef int reject_poison(State* s, const PoisonRecord* r, int reason) except -1 nogil:
    cdef RejectedEvent* e = add_rejected(s, reason, r.account)
    memcpy(&e.text, &r.client_id, sizeof(ClientId))
    e.flags = REJECTED_CLIENT_ID
    return 0


cdef int do_poison(State* s, const PoisonRecord* r) except -1 nogil:
    cdef uint32_t known
    if r.account >= s.account_count:
        return reject_poison(s, r, UNKNOWN_ACCOUNT)
    if is_empty(&r.client_id):
        return reject_poison(s, r, BAD_VALUE)
    known = find_id(s, id_tag(s, r.account, <ClientId*>&r.client_id), r.account, <ClientId*>&r.client_id)
    if known != NIL:
        return duplicate_order(s, known)
    if find_poison(s, r.account, <ClientId*>&r.client_id) == NIL:
        if s.accounts[r.account].poisons == POISONS_ACCOUNT or pool_room(&s.poison_pool) == 0:
            return reject_poison(s, r, BUSY)
        # From here on nothing is refused.
        add_mix(s, mix_poison(&s.poisons[add_poison(s, r.account, &r.client_id)]))
    add_event(s, EV_DONE, 1, r.account, NIL)
    return 0


cdef int add_poison(State* s, uint32_t account, const ClientId* client_id) except -1 nogil:
    # Its slot. The caller has looked at the room, and mixes it in.
    cdef uint32_t slot = pool_take(&s.poison_pool)
    s.poisons[slot].client_id = client_id[0]
    s.poisons[slot].account = account
    s.poisons[slot].pad = 0
    map_put(&s.poison_map, id_tag(s, account, <ClientId*>client_id), slot)
    s.accounts[account].poisons += 1
    return slot
