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
            assert price == half.best, f"market {m} side {side}: best is {half.best}, the bitmap says {price}"
            count = 0
            while price:
                assert in_window(half, price) and has_level(half, price)
                slot = half.levels[price].head
                assert slot != NIL, f"market {m}: level {price} is marked but empty"
                prior = NIL
                size = join = 0
                while slot != NIL:
                    o = &s.orders[slot]
                    assert o.prior == prior, f"order {o.order_id}: broken queue"
                    assert o.price == price and o.market == m and s.details[slot].side == side, f"order {o.order_id}: wrong level"
                    audit_terms(s, slot)
                    if s.details[slot].terms != NIL:
                        slices += s.terms[s.details[slot].terms].slices
                    assert 0 < o.leaves and whole_leaves(s, slot) <= o.size, f"order {o.order_id}: leaves {o.leaves} of {o.size}"
                    assert s.details[slot].join > join, f"order {o.order_id}: queue not in order of joining"
                    assert find_order(s, o.order_id) == slot, f"order {o.order_id}: not found by its id"
                    assert not s.limits.risk or s.ids[o.id_slot].order == slot and s.ids[o.id_slot].status == STATUS_OPEN
                    join = s.details[slot].join
                    size += <uint64_t>o.leaves
                    count += 1
                    prior = slot
                    slot = o.next
                assert half.levels[price].tail == prior, f"market {m}: level {price} has a wrong tail"
                assert half.levels[price].size == size, f"market {m}: level {price} counts {half.levels[price].size}, orders {size}"
                price = next_worse(half, side, price)
            assert half.order_count == count, f"market {m} side {side}: {count} orders, counted {half.order_count}"
            orders += count
            count = 0
            audit_stops(s, m, side, s.markets[m].stops[side], NIL, &count)
            stops += count
            orders += count
        assert slices == s.markets[m].slices, f"market {m}: {slices} slices, counted {s.markets[m].slices}"
        if s.markets[m].phase == CONTINUOUS and s.markets[m].half[BUY].best and s.markets[m].half[SELL].best:
            assert s.markets[m].half[BUY].best < s.markets[m].half[SELL].best, f"market {m} is crossed"
    assert orders == s.order_pool.used - s.order_pool.free_count, "orders outside the books"
    count = s.order_map.count
    for slot in range(<uint32_t>WINDOW):
        count += holds(s, &s.window[slot], recent_id(&s.window[slot], slot))
    assert count == orders, "ids of orders that are not open"
    assert stops == s.stop_count, f"{stops} waiting stops, counted {s.stop_count}"
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
        assert market.half[side].nearest == stop_price, f"market {m} side {side}: nearest stop {market.half[side].nearest}"
    else:
        last = s.terms[s.details[prior].terms].stop_price
        assert (last, s.orders[prior].order_id) < (stop_price, o.order_id) if side == BUY else (
            -last, s.orders[prior].order_id) < (-stop_price, o.order_id), f"market {m}: stops out of order"
    assert s.details[slot].join == 0 and s.details[slot].type in (STOP, STOP_LIMIT) and s.details[slot].side == side
    assert o.market == m and 0 < o.leaves <= o.size and find_order(s, o.order_id) == slot
    assert not s.limits.risk or s.ids[o.id_slot].order == slot and s.ids[o.id_slot].status == STATUS_OPEN
    assert market.phase != CONTINUOUS or not meets(side, stop_price, market.last_price), f"stop {o.order_id} is met"
    count[0] += 1
    return audit_stops(s, m, side, o.prior, slot, count)


cdef int audit_terms(State* s, uint32_t slot) except -1:
    cdef OrderDetail* d = &s.details[slot]
    cdef Terms* terms
    cdef Order* o = &s.orders[slot]
    if d.terms == NIL:
        assert d.type in (LIMIT, MARKET_ORDER) and d.tif == GTC, f"order {o.order_id} lacks its terms"
        return 0
    terms = &s.terms[d.terms]
    assert terms.hidden >= 0
    if terms.display_size == ABSENT:
        assert terms.hidden == 0
    else:
        assert o.leaves <= terms.display_size, f"order {o.order_id} displays {o.leaves}"
        assert 1 + (terms.hidden + terms.display_size - 1) // terms.display_size <= terms.slices
    if terms.partner != NIL:
        assert s.terms[s.details[terms.partner].terms].partner == slot, f"order {o.order_id}: partner of another"
        assert s.orders[terms.partner].account == o.account and s.orders[terms.partner].market == o.market
        assert s.details[terms.partner].side == d.side
        assert (d.type == LIMIT and d.join != 0) == (s.details[terms.partner].join == 0), "a pair is a limit and a waiting stop"
    return 0


cdef int audit_expiry(State* s) except -1:
    cdef uint32_t i, slot, prior
    cdef Terms* terms
    cdef set waiting = set()
    for i in range(s.due_count):
        if s.due[i].kind == DUE_ORDER and find_order(s, s.due[i].sequence) == s.due[i].slot:
            assert s.due[i].slot not in waiting, f"order {s.due[i].sequence} expires twice"
            assert s.due[i].at == s.terms[s.details[s.due[i].slot].terms].expires_at
            waiting.add(s.due[i].slot)
    for i in range(s.market_count):
        slot = s.markets[i].parked
        assert slot == NIL or s.markets[i].phase == HALT, f"market {i}: parked orders, but no halt"
        prior = NIL
        while slot != NIL:
            assert s.orders[slot].market == i and find_order(s, s.orders[slot].order_id) == slot, f"market {i}: parked orders"
            assert slot not in waiting, f"order {s.orders[slot].order_id} expires twice"
            waiting.add(slot)
            terms = &s.terms[s.details[slot].terms]
            assert prior == NIL or terms.parked_prior == prior, f"market {i}: parked orders are linked wrongly"
            prior = slot
            slot = terms.parked_next
        assert prior == NIL or s.terms[s.details[s.markets[i].parked].terms].parked_prior == prior, f"market {i}: last parked"
    for i in range(s.account_count):
        slot = s.accounts[i].first_order
        while slot != NIL:
            terms = NULL if s.details[slot].terms == NIL else &s.terms[s.details[slot].terms]
            assert (slot in waiting) == (terms != NULL and terms.expires_at != ABSENT), (
                f"order {s.orders[slot].order_id}: its expiry waits nowhere, or it has none"
            )
            slot = s.details[slot].next
    return 0


cdef int audit_poisons(State* s) except -1:
    cdef uint32_t i, account
    cdef list counts = [0] * s.account_count
    for i in range(s.poison_pool.used):
        account = s.poisons[i].account
        counts[account] += 1
        assert find_poison(s, account, &s.poisons[i].client_id) == i
        assert find_id(s, id_tag(s, account, &s.poisons[i].client_id), account, &s.poisons[i].client_id) == NIL, "a poison lives"
    for i in range(s.account_count):
        assert counts[i] == s.accounts[i].poisons
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
        assert owner.pair_base == find_balance(s, account, market.base), f"account {account}: another base at hand"
        assert owner.pair_quote == find_balance(s, account, market.quote), f"account {account}: another quote at hand"
    return 0


cdef int audit_accounts(State* s, dict held) except -1:
    cdef uint32_t i, slot, count, ids = 0, orders = 0, names, older
    cdef uint64_t closing
    cdef Name name
    for i in range(s.account_count):
        account_name(s, i, &name)
        assert find_account(s, &name) == i, f"account {i} is not found by its name"
        audit_pair(s, i)
        slot = s.accounts[i].first_order
        count = 0
        while slot != NIL:
            assert s.orders[slot].account == i
            held[hold_slot(s, slot)] = held.get(hold_slot(s, slot), 0) + order_share(s, slot)
            older = s.orders[slot].id_slot
            names = 0
            while older != NIL and s.limits.risk:
                assert find_id(s, id_tag(s, i, &s.ids[older].client_id), i, &s.ids[older].client_id) == older
                assert not is_new(s, i, &s.ids[older].client_id), f"account {i}: an id after its latest"
                assert s.ids[older].order == slot and s.ids[older].status == STATUS_OPEN and s.ids[older].closing == 0
                names += 1
                older = s.ids[older].next
            assert not s.limits.risk or names == 1 + s.details[slot].older_names <= 1 + OLDER_NAMES, (
                f"order {s.orders[slot].order_id}: {names} names, counted {s.details[slot].older_names} older ones"
            )
            ids += names
            orders += 1
            count += 1
            slot = s.details[slot].next
        assert count == s.accounts[i].open_orders, f"account {i}: {count} open orders, counted {s.accounts[i].open_orders}"
        slot = s.accounts[i].oldest_id
        count = 0
        closing = 0
        while slot != NIL:
            assert s.ids[slot].account == i and s.ids[slot].status in (STATUS_FILLED, STATUS_CANCELED)
            assert find_id(s, id_tag(s, i, &s.ids[slot].client_id), i, &s.ids[slot].client_id) == slot
            assert not is_new(s, i, &s.ids[slot].client_id), f"account {i}: an id after its latest"
            assert s.ids[slot].closing > closing, f"account {i}: remembered ids out of order"
            closing = s.ids[slot].closing
            count += 1
            slot = s.ids[slot].order
        assert count == s.accounts[i].closed_ids <= s.limits.closed_ids_account, f"account {i}: remembered ids"
    slot = s.oldest_id
    count = 0
    closing = 0
    while slot != NIL:
        assert s.ids[slot].closing > closing, "remembered ids of all accounts out of order"
        closing = s.ids[slot].closing
        count += 1
        slot = s.ids[slot].next
    assert count == s.closed_ids <= s.limits.closed_ids, "remembered ids of all accounts"
    if s.limits.risk:
        assert ids - orders == s.limits.orders - older_room(s) <= s.limits.orders, f"{ids - orders} older names"
        late = sum(1 for i in range(LATE) if s.late_tags[i])
        assert ids + count == s.id_pool.used - s.id_pool.free_count == s.id_map.count + late, "client ids that belong nowhere"
    return 0


cdef int audit_refs(State* s, dict held) except -1:
    cdef uint32_t slot, posting, postings = 0, count
    cdef uint64_t place
    for place in range(map_places(&s.ref_map)):
        slot = map_at(&s.ref_map, place)
        if slot == NIL:
            continue
        assert find_ref(s, &s.refs[slot].ref) == slot, "a ref is not found by its name"
        posting = s.refs[slot].first_posting
        count = 0
        while posting != NIL:
            held[s.postings[posting].source] = held.get(s.postings[posting].source, 0) + s.postings[posting].amount
            count += 1
            posting = s.postings[posting].next
        assert count == s.refs[slot].posting_count
        assert (count > 0) == (s.refs[slot].status == REF_PENDING), "postings of a decided ref"
        postings += count
    assert s.ref_map.count == s.ref_pool.used - s.ref_pool.free_count
    assert postings == s.posting_pool.used - s.posting_pool.free_count
    return 0


cdef int audit_money(State* s, dict held) except -1:
    cdef uint32_t i, account
    cdef Balance* b
    cdef list sums = [0] * s.asset_count
    cdef list below = [0] * s.asset_count
    for i in range(s.balance_count):
        b = &s.balances[i]
        account = owner_of(s, i)
        assert find_balance(s, account, b.asset) == i
        sums[b.asset] += b.available + b.held
        below[b.asset] += -b.available if b.available < 0 else 0
        if s.limits.risk:
            assert b.held == held.get(i, 0), f"account {account}, asset {b.asset}: held {b.held}, needed {held.get(i, 0)}"
        assert b.available >= 0 or s.accounts[account].overdraft != NEVER, f"account {account} is below zero"
    for i in range(s.asset_count):
        assert sums[i] == 0, f"asset {i}: all balances sum to {sums[i]}"
        assert below[i] == s.assets[i].below, f"asset {i}: debts are {below[i]}, counted {s.assets[i].below}"
    return 0


cdef int assert_fixed(State* s, uint32_t i) except -1:
    cdef Market market = s.markets[i]
    fix_market(&market, i)
    assert market.fixed.low == s.markets[i].fixed.low and market.fixed.high == s.markets[i].fixed.high, (
        f"market {i}: the part of its mix that stays is of something else"
    )
    return 0


cdef int audit_hash(State* s) except -1:
    # Only of a core with money: without it orders and markets are not mixed.
    cdef uint128 sum = 0
    cdef uint32_t i, slot, older, number
    cdef uint64_t place
    if not s.limits.risk:
        return 0
    for i in range(s.asset_count):
        sum += mix_asset(&s.assets[i], i)
    for i in range(s.market_count):
        assert_fixed(s, i)
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
    assert <uint64_t>sum == s.sum_low and <uint64_t>(sum >> 64) == s.sum_high, "the state hash drifted"
    return 0
