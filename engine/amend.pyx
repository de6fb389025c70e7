"""replace: another price, size, stop price or name for an order that is there.

    another price alone, meeting nothing    straight into its new level: `usual`, most of them
    waiting                                 stays where it is; a stop price that the last trade meets runs it at once
    same price and a total not larger       keeps its place, and shows no more than it still wants
    anything else                           leaves its level and is a taker again (matching.pyx), with its own slot
    a total not above what is filled        the rest is canceled `replaced`

All checks come first; what does not suffice leaves the order as it was. A new name is refused `busy` to an order that has
OLDER_NAMES behind its newest, and to all while `older_room` (ids.pxd) has none. Worst case: a taker's.
"""

from engine.bands cimport begin_band, inside_band
from engine.book cimport dequeue, in_window, join_back, join_window, reaches
from engine.digest cimport add_mix, mix_id, touch_order
from engine.events cimport add_event
from engine.ids cimport is_new, older_room, open_id
from engine.cancel cimport cancel_slot, reject_named
from engine.matching cimport Taker, proceed, taker_of
from engine.orders cimport named_order
from engine.pairs cimport count_slices, show_slice
from engine.pool cimport find_id, find_poison, id_tag, is_empty
from engine.risk cimport hold, hold_slot, order_hold, pair_hold, required_hold, whole_leaves
from engine.stops cimport meets, move_stop, run_stop
from engine.types cimport *
from engine.windows cimport secure, widen


cdef int rename(State* s, uint32_t slot, const ClientId* client_id) except -1 nogil:
    # The new id becomes the order's newest; the old one goes on answering.
    cdef Order* o = &s.orders[slot]
    cdef uint32_t before = o.id_slot, newest
    if not s.limits.risk:
        return 0
    newest = open_id(
        s, id_tag(s, o.account, <ClientId*>client_id), is_new(s, o.account, client_id), o.account, o.market, client_id,
        o.order_id,
    )
    s.ids[newest].next = before
    s.ids[newest].order = slot
    add_mix(s, mix_id(&s.ids[before]))
    touch_order(s, slot)
    o.id_slot = newest
    s.details[slot].older_names += 1
    return 0


cdef int check_replace(
    State* s, const ReplaceRecord* r, uint32_t slot, int64_t price, int64_t size, int64_t leaves, int64_t more
) except -1 nogil:
    # The checks after unknown_order. `more` is what the new order and its partner would hold beyond the old.
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Market* market = &s.markets[o.market]
    cdef int64_t best = market.half[1 - d.side].best
    cdef bint renamed = not is_empty(&r.new_client_id) and s.limits.risk
    if market.phase >= PHASE_CANCEL_ONLY:
        return REJECT_PHASE
    if r.price == ABSENT and r.size == ABSENT and r.stop_price == ABSENT and not renamed:
        return BAD_VALUE
    if r.price != ABSENT and (r.price < 1 or r.price > market.max_price or d.type == STOP):
        return BAD_PRICE
    if r.size != ABSENT:
        if r.size < 1 or d.flags & PLACE_BUDGET:
            return BAD_SIZE
        if leaves > 0 and (size < market.min_size or size > market.max_size):
            return BAD_SIZE
        if (
            leaves > 0 and d.terms != NIL and s.terms[d.terms].display_size != ABSENT
            and (size - 1) // SLICES_MAX >= s.terms[d.terms].display_size
        ):
            return BAD_DISPLAY
    if r.stop_price != ABSENT and (d.join != 0 or r.stop_price < 1 or r.stop_price > market.max_price):
        return BAD_STOP
    if market.entry_band_ppm and price != o.price and not inside_band(
        market.band_reference, market.entry_band_ppm, price
    ):
        return BAND
    if leaves > 0:
        if s.limits.risk and more > s.balances[hold_slot(s, slot)].available:
            return INSUFFICIENT_FUNDS
        if (
            d.flags & PLACE_POST_ONLY and market.phase == CONTINUOUS and best != 0 and reaches(d.side, price, best)
        ):
            return WOULD_CROSS
    if renamed and s.limits.risk and (d.older_names == OLDER_NAMES or older_room(s) == 0):
        return BUSY
    return 0


cdef inline bint usual(const ReplaceRecord* r, Market* market, Order* o, OrderDetail* d) noexcept nogil:
    # Another price and nothing else, for a plain order in a market without anything out of the ordinary, where it meets
    # nothing: only funds can be against it.
    cdef int64_t best = market.half[1 - d.side].best
    return (
        r.size == ABSENT and r.stop_price == ABSENT and r.price != o.price
        and <uint64_t>r.price - 1 < <uint64_t>market.max_price
        and d.terms == NIL and d.flags == 0
        and (market.phase | market.entry_band_ppm | market.exec_band_ppm) == 0
        and (best == 0 or not reaches(d.side, r.price, best))
    )


cdef inline int move(State* s, const ReplaceRecord* r, uint16_t flags, Market* market, uint32_t slot) except -1 nogil:
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef ReplacedEvent* e
    cdef int side = d.side
    cdef uint32_t held = d.base if side == SELL else d.quote
    cdef int64_t before = 0, after = 0
    cdef bint far = not in_window(&market.half[side], r.price)
    if s.limits.risk:
        before = required_hold(market, side, o.price, o.leaves, o.hold_ppm, o.credit)
        after = required_hold(market, side, r.price, o.leaves, o.hold_ppm, o.credit)
        if after - before > s.balances[held].available:
            return reject_named(s, r.account, &r.client_id, flags, INSUFFICIENT_FUNDS)
    if rarely(far):
        secure(s, market, side, r.price)
    # From here on nothing is refused.
    e = <ReplacedEvent*>add_event(s, EV_REPLACED, 1, o.account, o.market)
    e.order_id = o.order_id
    e.client_id = s.ids[o.id_slot].client_id
    e.price = r.price
    e.size = o.size
    e.leaves = o.leaves
    e.hold = after
    e.released = before - after
    e.stop_price = ABSENT
    hold(s, held, after - before)
    dequeue(s, &market.half[side], side, slot)
    o.price = r.price
    if rarely(far):
        widen(s, market, side, r.price)
    join_window(s, &market.half[side], side, slot)
    return 0


cdef int replace(State* s, const ReplaceRecord* r, uint16_t flags) except -1 nogil:
    cdef uint32_t slot
    cdef Account* account
    cdef Order* o
    cdef OrderDetail* d
    cdef Market* market
    cdef ReplacedEvent* e
    cdef Taker t
    cdef int64_t price, size, leaves, before, after, best, needed = 0
    cdef int reason
    cdef bint renamed = not is_empty(&r.new_client_id) and s.limits.risk, keeps  # without money no id is kept
    if r.account >= s.account_count:
        return reject_named(s, r.account, &r.client_id, flags, UNKNOWN_ACCOUNT)
    if flags & ORDER_BOTH_IDS:
        return reject_named(s, r.account, &r.client_id, flags, BAD_VALUE)
    account = &s.accounts[r.account]
    if renamed:
        if find_id(
            s, id_tag(s, r.account, <ClientId*>&r.new_client_id), r.account, <ClientId*>&r.new_client_id
        ) != NIL:
            return reject_named(s, r.account, &r.client_id, flags, DUPLICATE)
        if account.poisons and find_poison(s, r.account, <ClientId*>&r.new_client_id) != NIL:
            return reject_named(s, r.account, &r.client_id, flags, POISONED)
    if account.status | account.killed:
        reason = REJECT_FROZEN if account.status == FROZEN else REJECT_CANCEL_ONLY if account.status == CANCEL_ONLY else KILLED
        return reject_named(s, r.account, &r.client_id, flags, reason)
    slot = named_order(s, r.account, &r.client_id, flags)
    if slot == NIL:
        return reject_named(s, r.account, &r.client_id, flags, UNKNOWN_ORDER)
    o = &s.orders[slot]
    d = &s.details[slot]
    market = &s.markets[o.market]
    if not renamed and usual(r, market, o, d):
        return move(s, r, flags, market, slot)
    price = o.price if r.price == ABSENT else r.price
    size = o.size if r.size == ABSENT else r.size
    leaves = size - (o.size - whole_leaves(s, slot))
    # Out of bounds is refused by the checks before the number is used; here it must only not overflow.
    if d.type == STOP and d.side == BUY:
        needed = 0
    elif d.side == SELL or 1 <= price <= market.max_price:
        if s.limits.risk and 0 < leaves <= market.max_size:
            needed = required_hold(market, d.side, price, leaves, o.hold_ppm, o.credit)
    before = pair_hold(s, order_hold(s, slot), d.terms)
    after = pair_hold(s, needed, d.terms)
    reason = check_replace(s, r, slot, price, size, leaves, after - before)
    if reason:
        return reject_named(s, r.account, &r.client_id, flags, reason)
    if leaves > 0 and d.join != 0:
        secure(s, market, d.side, price)

    # From here on nothing is refused.
    if renamed:
        rename(s, slot, &r.new_client_id)
    if leaves <= 0:
        return cancel_slot(s, slot, WHY_REPLACED)
    keeps = d.join == 0 or (price == o.price and size <= o.size)
    e = <ReplacedEvent*>add_event(s, EV_REPLACED, 1, o.account, o.market)
    e.order_id = o.order_id
    e.client_id = s.ids[o.id_slot].client_id
    e.price = price
    e.size = size
    e.leaves = leaves
    e.hold = after
    e.released = before - after
    e.priority_kept = keeps
    e.stop_price = r.stop_price
    if d.terms != NIL and r.stop_price == ABSENT:
        e.stop_price = s.terms[d.terms].stop_price
    hold(s, hold_slot(s, slot), after - before)
    touch_order(s, slot)
    if d.terms != NIL and s.terms[d.terms].display_size != ABSENT:
        count_slices(s, slot, size)
    if market.exec_band_ppm:
        begin_band(s, market)
    if not keeps:
        dequeue(s, &market.half[d.side], d.side, slot)
        best = market.half[1 - d.side].best
        if best == 0 or not reaches(d.side, price, best):
            # Nothing to trade with: straight to its new place.
            o.price = price
            o.size = size
            o.leaves = leaves
            if d.terms != NIL:
                show_slice(s, slot, leaves)
            return join_back(s, market, d.side, slot)
        taker_of(s, slot, &t)
        t.price = price
        t.size = size
        t.leaves = leaves
        t.held = needed
        return proceed(s, &t)
    o.size = size
    if d.join != 0:
        # What it shows stays, unless that is more than it still wants.
        if leaves < o.leaves:
            market.half[d.side].levels[price].size -= <uint64_t>(o.leaves - leaves)
            o.leaves = leaves
        if d.terms != NIL:
            s.terms[d.terms].hidden = leaves - o.leaves
        return 0
    o.price = price
    o.leaves = leaves
    if r.stop_price != ABSENT:
        move_stop(s, slot, r.stop_price)
        if market.phase == CONTINUOUS and meets(d.side, r.stop_price, market.last_price):
            return run_stop(s, slot, market.last_price)
    return 0
