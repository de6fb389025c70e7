"""Every invariant of the state, checked by walking all of it. Slow, and independent of the code that keeps them.

    books      bits, levels, queues, joins, best, level totals what is displayed; in continuous not crossed or locked; every
               order found by its id
    stops      trees in order, counts, nearest; in continuous none that the last trade meets
    terms      slices, pairs linked both ways and of one account, market and side
    expiry     every order that expires stands in the heap or, only while its market is halted, in that market's list of
               parked ones: once, in one of them
    accounts   found by their names; lists and counts of open orders, of their older names and of remembered ids
    money      per asset all balances sum to zero; held is exactly what orders and pending postings need; nothing of a
               `never` account is below zero; the sum of debts
    hash       the running sum equals the sum over all entities, mixed anew
"""

from engine.book cimport first_price, has_level, in_window, next_worse
from engine.digest cimport (
    fix_market,
    mix_account, mix_asset, mix_balance, mix_id, mix_market, mix_order, mix_poison, mix_posting, mix_ref, settle_balances,
    settle_markets, settle_orders,
)
from engine.ids cimport is_new, older_room
from engine.pool cimport (
    account_name, find_account, find_balance, find_id, find_order, find_poison, find_ref, holds, id_tag, map_at, map_places, owner_of, recent_id,
)
from engine.risk cimport beyond, hold_slot, order_hold, partner_hold, whole_leaves
from engine.stops cimport meets
from engine.types cimport *


cdef int audit(State* s) except -1:
    cdef dict held = {}
    settle_orders(s)
    settle_balances(s)
    settle_markets(s)
    audit_books(s)
    audit_expiry(s)
    audit_poisons(s)
    audit_accounts(s, held)
    audit_refs(s, held)
    audit_money(s, held)
    audit_hash(s)
    return 0


cdef int audit_books(State* s) except -1:
    cdef uint32_t m, slot, prior, orders = 0, count, stops = 0, slices
    cdef int side
    cdef int64_t price
    cdef uint64_t size, join
    cdef Half* half
    cdef Order* o
    for m in range(s.market_count):
        slices = 0
        for side in range(2):
            half = &s.markets[m].half[side]
            price = first_price(half, side)
            if price != half.best:
                raise AssertionError(f"market {m} side {side}: best is {half.best}, the bitmap says {price}")
            count = 0
            while price:
                if not (in_window(half, price) and has_level(half, price)):
                    raise AssertionError(f"market {m} side {side}: price {price} outside its window")
                slot = half.levels[price].head
                if slot == NIL:
                    raise AssertionError(f"market {m}: level {price} is marked but empty")
                prior = NIL
                size = join = 0
                while slot != NIL:
                    o = &s.orders[slot]
                    if o.prior != prior:
                        raise AssertionError(f"order {o.order_id}: broken queue")
                    if not (o.price == price and o.market == m and s.details[slot].side == side):
                        raise AssertionError(f"order {o.order_id}: wrong level")
                    audit_terms(s, slot)
                    if s.details[slot].terms != NIL:
                        slices += s.terms[s.details[slot].terms].slices
                    if not (0 < o.leaves and whole_leaves(s, slot) <= o.size):
                        raise AssertionError(f"order {o.order_id}: leaves {o.leaves} of {o.size}")
                    if s.details[slot].join <= join:
                        raise AssertionError(f"order {o.order_id}: queue not in order of joining")
                    if find_order(s, o.order_id) != slot:
                        raise AssertionError(f"order {o.order_id}: not found by its id")
                    if s.limits.risk and (s.ids[o.id_slot].order != slot or s.ids[o.id_slot].status != STATUS_OPEN):
                        raise AssertionError(f"order {o.order_id}: not of its newest client id")
                    join = s.details[slot].join
                    size += <uint64_t>o.leaves
                    count += 1
                    prior = slot
                    slot = o.next
                if half.levels[price].tail != prior:
                    raise AssertionError(f"market {m}: level {price} has a wrong tail")
                if half.levels[price].size != size:
                    raise AssertionError(f"market {m}: level {price} counts {half.levels[price].size}, orders {size}")
                price = next_worse(half, side, price)
            if half.order_count != count:
                raise AssertionError(f"market {m} side {side}: {count} orders, counted {half.order_count}")
            orders += count
            count = 0
            audit_stops(s, m, side, s.markets[m].stops[side], NIL, &count)
            stops += count
            orders += count
        if slices != s.markets[m].slices:
            raise AssertionError(f"market {m}: {slices} slices, counted {s.markets[m].slices}")
        if s.markets[m].phase == CONTINUOUS and s.markets[m].half[BUY].best and s.markets[m].half[SELL].best:
            if s.markets[m].half[BUY].best >= s.markets[m].half[SELL].best:
                raise AssertionError(f"market {m} is crossed")
    if orders != s.order_pool.used - s.order_pool.free_count:
        raise AssertionError("orders outside the books")
    count = s.order_map.count
    for slot in range(<uint32_t>WINDOW):
        count += holds(s, &s.window[slot], recent_id(&s.window[slot], slot))
    if count != orders:
        raise AssertionError("ids of orders that are not open")
    if stops != s.stop_count:
        raise AssertionError(f"{stops} waiting stops, counted {s.stop_count}")
    return 0


cdef uint32_t audit_stops(State* s, uint32_t m, int side, uint32_t slot, uint32_t prior, uint32_t* count) except? 0xFFFFFFFE:
    # The tree below `slot`, in order; `prior` is the stop that runs before all of it. Returns the last one.
    cdef Market* market = &s.markets[m]
    cdef Order* o
    cdef int64_t stop_price, last
    if slot == NIL:
        return prior
    o = &s.orders[slot]
    prior = audit_stops(s, m, side, o.next, prior, count)
    audit_terms(s, slot)
    stop_price = s.terms[s.details[slot].terms].stop_price
    if prior == NIL:
        if market.half[side].nearest != stop_price:
            raise AssertionError(f"market {m} side {side}: nearest stop {market.half[side].nearest}")
    else:
        last = s.terms[s.details[prior].terms].stop_price
        if side == SELL:
            last, stop_price = -last, -stop_price
        if (last, s.orders[prior].order_id) >= (stop_price, o.order_id):
            raise AssertionError(f"market {m}: stops out of order")
    if not (s.details[slot].join == 0 and s.details[slot].type in (STOP, STOP_LIMIT) and s.details[slot].side == side):
        raise AssertionError(f"stop {o.order_id} is in the wrong tree")
    if not (o.market == m and 0 < o.leaves <= o.size and find_order(s, o.order_id) == slot):
        raise AssertionError(f"stop {o.order_id}: leaves {o.leaves} of {o.size}, or not found by its id")
    if s.limits.risk and (s.ids[o.id_slot].order != slot or s.ids[o.id_slot].status != STATUS_OPEN):
        raise AssertionError(f"stop {o.order_id}: not of its newest client id")
    if market.phase == CONTINUOUS and meets(side, s.terms[s.details[slot].terms].stop_price, market.last_price):
        raise AssertionError(f"stop {o.order_id} is met")
    count[0] += 1
    return audit_stops(s, m, side, o.prior, slot, count)


cdef int audit_terms(State* s, uint32_t slot) except -1:
    cdef OrderDetail* d = &s.details[slot]
    cdef Terms* terms
    cdef Order* o = &s.orders[slot]
    if d.terms == NIL:
        if not (d.type in (LIMIT, MARKET_ORDER) and d.tif == GTC):
            raise AssertionError(f"order {o.order_id} lacks its terms")
        return 0
    terms = &s.terms[d.terms]
    if terms.hidden < 0:
        raise AssertionError(f"order {o.order_id} hides {terms.hidden}")
    if terms.display_size == ABSENT:
        if terms.hidden != 0:
            raise AssertionError(f"order {o.order_id} hides {terms.hidden} without a displayed size")
    else:
        if o.leaves > terms.display_size:
            raise AssertionError(f"order {o.order_id} displays {o.leaves}")
        if 1 + (terms.hidden + terms.display_size - 1) // terms.display_size > terms.slices:
            raise AssertionError(f"order {o.order_id}: more slices than counted")
    if terms.partner != NIL:
        if s.terms[s.details[terms.partner].terms].partner != slot:
            raise AssertionError(f"order {o.order_id}: partner of another")
        if not (s.orders[terms.partner].account == o.account and s.orders[terms.partner].market == o.market):
            raise AssertionError(f"order {o.order_id}: partner of another account or market")
        if s.details[terms.partner].side != d.side:
            raise AssertionError(f"order {o.order_id}: partner on the other side")
        if (d.type == LIMIT and d.join != 0) != (s.details[terms.partner].join == 0):
            raise AssertionError("a pair is a limit and a waiting stop")
    return 0


cdef int audit_expiry(State* s) except -1:
    cdef uint32_t i, slot, prior
    cdef Terms* terms
    cdef set waiting = set()
    for i in range(s.due_count):
        if s.due[i].kind == DUE_ORDER and find_order(s, s.due[i].sequence) == s.due[i].slot:
            if s.due[i].slot in waiting:
                raise AssertionError(f"order {s.due[i].sequence} expires twice")
            if s.due[i].at != s.terms[s.details[s.due[i].slot].terms].expires_at:
                raise AssertionError(f"order {s.due[i].sequence} expires at another time")
            waiting.add(s.due[i].slot)
    for i in range(s.market_count):
        slot = s.markets[i].parked
        if slot != NIL and s.markets[i].phase != HALT:
            raise AssertionError(f"market {i}: parked orders, but no halt")
        prior = NIL
        while slot != NIL:
            if not (s.orders[slot].market == i and find_order(s, s.orders[slot].order_id) == slot):
                raise AssertionError(f"market {i}: parked orders")
            if slot in waiting:
                raise AssertionError(f"order {s.orders[slot].order_id} expires twice")
            waiting.add(slot)
            terms = &s.terms[s.details[slot].terms]
            if prior != NIL and terms.parked_prior != prior:
                raise AssertionError(f"market {i}: parked orders are linked wrongly")
            prior = slot
            slot = terms.parked_next
        if prior != NIL and s.terms[s.details[s.markets[i].parked].terms].parked_prior != prior:
            raise AssertionError(f"market {i}: last parked")
    for i in range(s.account_count):
        slot = s.accounts[i].first_order
        while slot != NIL:
            terms = NULL if s.details[slot].terms == NIL else &s.terms[s.details[slot].terms]
            if (slot in waiting) != (terms != NULL and terms.expires_at != ABSENT):
                raise AssertionError(f"order {s.orders[slot].order_id}: its expiry waits nowhere, or it has none")
            slot = s.details[slot].next
    return 0


cdef int audit_poisons(State* s) except -1:
    cdef uint32_t i, account
    cdef list counts = [0] * s.account_count
    for i in range(s.poison_pool.used):
        account = s.poisons[i].account
        counts[account] += 1
        if find_poison(s, account, &s.poisons[i].client_id) != i:
            raise AssertionError(f"account {account}: a poison is not found")
        if find_id(s, id_tag(s, account, &s.poisons[i].client_id), account, &s.poisons[i].client_id) != NIL:
            raise AssertionError("a poison lives")
    for i in range(s.account_count):
        if counts[i] != s.accounts[i].poisons:
            raise AssertionError(f"account {i}: {counts[i]} poisons, counted {s.accounts[i].poisons}")
    return 0


cdef int64_t order_share(State* s, uint32_t slot) except? -1:
    # Of a pair the larger hold counts: with the limit it is all of that, with the stop what it adds.
    cdef int64_t own = order_hold(s, slot)
    return own if s.details[slot].join != 0 else beyond(own, partner_hold(s, s.details[slot].terms))


cdef int audit_pair(State* s, uint32_t account) except -1:
    # The balances that are at hand are those that would be found.
    cdef Account* owner = &s.accounts[account]
    cdef Market* market
    if owner.pair_market != 0:
        market = &s.markets[owner.pair_market - 1]
        if owner.pair_base != find_balance(s, account, market.base):
            raise AssertionError(f"account {account}: another base at hand")
        if owner.pair_quote != find_balance(s, account, market.quote):
            raise AssertionError(f"account {account}: another quote at hand")
    return 0


cdef int audit_accounts(State* s, dict held) except -1:
    cdef uint32_t i, slot, count, ids = 0, orders = 0, names, older
    cdef uint64_t closing
    cdef Name name
    for i in range(s.account_count):
        account_name(s, i, &name)
        if find_account(s, &name) != i:
            raise AssertionError(f"account {i} is not found by its name")
        audit_pair(s, i)
        slot = s.accounts[i].first_order
        count = 0
        while slot != NIL:
            if s.orders[slot].account != i:
                raise AssertionError(f"account {i}: has an order of another")
            held[hold_slot(s, slot)] = held.get(hold_slot(s, slot), 0) + order_share(s, slot)
            older = s.orders[slot].id_slot
            names = 0
            while older != NIL and s.limits.risk:
                if find_id(s, id_tag(s, i, &s.ids[older].client_id), i, &s.ids[older].client_id) != older:
                    raise AssertionError(f"account {i}: a name of an order is not found")
                if is_new(s, i, &s.ids[older].client_id):
                    raise AssertionError(f"account {i}: an id after its latest")
                if s.ids[older].order != slot or s.ids[older].status != STATUS_OPEN or s.ids[older].closing != 0:
                    raise AssertionError(f"account {i}: a name of an order is not open")
                names += 1
                older = s.ids[older].next
            if not (not s.limits.risk or names == 1 + s.details[slot].older_names <= 1 + OLDER_NAMES):
                raise AssertionError(
                    f"order {s.orders[slot].order_id}: {names} names, counted {s.details[slot].older_names} older ones"
                )
            ids += names
            orders += 1
            count += 1
            slot = s.details[slot].next
        if count != s.accounts[i].open_orders:
            raise AssertionError(f"account {i}: {count} open orders, counted {s.accounts[i].open_orders}")
        slot = s.accounts[i].oldest_id
        count = 0
        closing = 0
        while slot != NIL:
            if not (s.ids[slot].account == i and s.ids[slot].status in (STATUS_FILLED, STATUS_CANCELED)):
                raise AssertionError(f"account {i}: a remembered id is of another, or open")
            if find_id(s, id_tag(s, i, &s.ids[slot].client_id), i, &s.ids[slot].client_id) != slot:
                raise AssertionError(f"account {i}: a remembered id is not found")
            if is_new(s, i, &s.ids[slot].client_id):
                raise AssertionError(f"account {i}: an id after its latest")
            if s.ids[slot].closing <= closing:
                raise AssertionError(f"account {i}: remembered ids out of order")
            closing = s.ids[slot].closing
            count += 1
            slot = s.ids[slot].order
        if not (count == s.accounts[i].closed_ids <= s.limits.closed_ids_account):
            raise AssertionError(f"account {i}: remembered ids")
    slot = s.oldest_id
    count = 0
    closing = 0
    while slot != NIL:
        if s.ids[slot].closing <= closing:
            raise AssertionError("remembered ids of all accounts out of order")
        closing = s.ids[slot].closing
        count += 1
        slot = s.ids[slot].next
    if not (count == s.closed_ids <= s.limits.closed_ids):
        raise AssertionError("remembered ids of all accounts")
    if s.limits.risk:
        if not (ids - orders == s.limits.orders - older_room(s) <= s.limits.orders):
            raise AssertionError(f"{ids - orders} older names")
        late = sum(1 for i in range(LATE) if s.late_tags[i])
        if not (ids + count == s.id_pool.used - s.id_pool.free_count == s.id_map.count + late):
            raise AssertionError("client ids that belong nowhere")
    return 0


cdef int audit_refs(State* s, dict held) except -1:
    cdef uint32_t slot, posting, postings = 0, count
    cdef uint64_t place
    for place in range(map_places(&s.ref_map)):
        slot = map_at(&s.ref_map, place)
        if slot == NIL:
            continue
        if find_ref(s, &s.refs[slot].ref) != slot:
            raise AssertionError("a ref is not found by its name")
        posting = s.refs[slot].first_posting
        count = 0
        while posting != NIL:
            held[s.postings[posting].source] = held.get(s.postings[posting].source, 0) + s.postings[posting].amount
            count += 1
            posting = s.postings[posting].next
        if count != s.refs[slot].posting_count:
            raise AssertionError(f"a ref has {count} postings, counted {s.refs[slot].posting_count}")
        if (count > 0) != (s.refs[slot].status == REF_PENDING):
            raise AssertionError("postings of a decided ref")
        postings += count
    if s.ref_map.count != s.ref_pool.used - s.ref_pool.free_count:
        raise AssertionError("refs that belong nowhere")
    if postings != s.posting_pool.used - s.posting_pool.free_count:
        raise AssertionError("postings that belong nowhere")
    return 0


cdef int audit_money(State* s, dict held) except -1:
    cdef uint32_t i, account
    cdef Balance* b
    cdef list sums = [0] * s.asset_count
    cdef list below = [0] * s.asset_count
    for i in range(s.balance_count):
        b = &s.balances[i]
        account = owner_of(s, i)
        if find_balance(s, account, b.asset) != i:
            raise AssertionError(f"account {account}: a balance is not found")
        sums[b.asset] += b.available + b.held
        below[b.asset] += -b.available if b.available < 0 else 0
        if s.limits.risk:
            if b.held != held.get(i, 0):
                raise AssertionError(f"account {account}, asset {b.asset}: held {b.held}, needed {held.get(i, 0)}")
        if b.available < 0 and s.accounts[account].overdraft == NEVER:
            raise AssertionError(f"account {account} is below zero")
    for i in range(s.asset_count):
        if sums[i] != 0:
            raise AssertionError(f"asset {i}: all balances sum to {sums[i]}")
        if below[i] != s.assets[i].below:
            raise AssertionError(f"asset {i}: debts are {below[i]}, counted {s.assets[i].below}")
    return 0


cdef int audit_fixed(State* s, uint32_t i) except -1:
    cdef Market market = s.markets[i]
    fix_market(&market, i)
    if market.fixed.low != s.markets[i].fixed.low or market.fixed.high != s.markets[i].fixed.high:
        raise AssertionError(f"market {i}: the part of its mix that stays is of something else")
    return 0


cdef int audit_hash(State* s) except -1:
    # Only of a core with money: without it orders and markets are not mixed.
    cdef uint128 sum
    cdef uint32_t i
    if not s.limits.risk:
        return 0
    for i in range(s.market_count):
        audit_fixed(s, i)
    sum = whole_sum(s)
    if <uint64_t>sum != s.sum_low or <uint64_t>(sum >> 64) != s.sum_high:
        raise AssertionError("the state hash drifted")
    return 0


cdef uint128 whole_sum(State* s) noexcept nogil:
    # Over all entities of a core with money, mixed anew.
    cdef uint128 sum = 0
    cdef uint32_t i, slot, older, number
    cdef uint64_t place
    for i in range(s.asset_count):
        sum += mix_asset(&s.assets[i], i)
    for i in range(s.market_count):
        sum += mix_market(&s.markets[i])
    for i in range(s.balance_count):
        sum += mix_balance(s, i)
    for i in range(s.account_count):
        sum += mix_account(s, i)
        slot = s.accounts[i].first_order
        while slot != NIL:
            sum += mix_order(s, slot)
            older = s.ids[s.orders[slot].id_slot].next
            while older != NIL:
                sum += mix_id(&s.ids[older])
                older = s.ids[older].next
            slot = s.details[slot].next
    slot = s.oldest_id
    while slot != NIL:
        sum += mix_id(&s.ids[slot])
        slot = s.ids[slot].next
    for i in range(s.poison_pool.used):
        sum += mix_poison(&s.poisons[i])
    for place in range(map_places(&s.ref_map)):
        slot = map_at(&s.ref_map, place)
        if slot != NIL:
            sum += mix_ref(&s.refs[slot])
            older = s.refs[slot].first_posting
            number = 0
            while older != NIL:
                sum += mix_posting(s, s.refs[slot].first_sequence, number, &s.postings[older])
                number += 1
                older = s.postings[older].next
    return sum
