"""place: checked in the order of the rulebook, accepted, and handed to its level or to matching.

    record ─▶ known id? ─▶ usual? ─yes─▶ funds ─▶ accepted ─▶ meets nothing: into its level
                             │                       │      └▶ else: a taker (matching.pyx)
                             no ─▶ every check ──────┘
                                     └▶ rejected: nothing has changed

`usual` is true of most orders: plain limits, of accounts and in markets of which there is nothing to say, that nothing but
funds can be against. Its no says nothing; then each rule is asked in turn.
All checks come before `# From here on nothing is refused`.
"""

from libc.string cimport memcpy

from engine.bands cimport begin_band, inside_band
from engine.book cimport in_window, join_window, reaches
from engine.digest cimport touch_order
from engine.events cimport add_event, add_rejected
from engine.ids cimport is_new, open_id
from engine.matching cimport Taker, proceed, take_slot
from engine.orders cimport kinds_of, open_order
from engine.pairs cimport find_partner, open_terms
from engine.pool cimport annex_of, find_balance, find_id, find_order, find_poison, is_empty, pool_room
from engine.risk cimport balance_of, balance_room, beyond, hold, order_hold, required_hold, whole_leaves
from engine.stops cimport meets, run_stop, wait
from engine.timers cimport add_due
from engine.types cimport *
from engine.windows cimport secure, secure_all, widen


cdef int reject_place(State* s, const PlaceRecord* r, int reason) except -1 nogil:
    cdef RejectedEvent* e = add_rejected(s, reason, r.account)
    memcpy(&e.text, &r.client_id, sizeof(ClientId))
    e.flags = REJECTED_CLIENT_ID
    return 0


cdef int duplicate_order(State* s, uint32_t id_slot) except -1 nogil:
    cdef IdNode* node = &s.ids[id_slot]
    cdef DuplicateEvent* e = <DuplicateEvent*>add_event(s, EV_DUPLICATE, 1, node.account, node.market)
    e.order_id = node.order_id
    memcpy(&e.text, &node.client_id, sizeof(ClientId))
    e.status = node.status
    e.filled = node.filled
    if node.status == STATUS_OPEN:
        e.filled = s.orders[node.order].size - whole_leaves(s, node.order)
        if s.details[node.order].join == 0:
            e.status = STATUS_WAITING
    return 0


cdef int check_terms(State* s, const PlaceRecord* r, uint16_t flags, Taker* t) except -1 nogil:
    # bad_display, bad_stop, bad_expiry: what most orders do not have.
    if r.display_size != ABSENT and (
        r.type != LIMIT or not (t.tif == GTC or t.tif == GTD) or r.display_size < t.market.min_size
        or r.display_size >= r.size or (r.size - 1) // SLICES_MAX >= r.display_size
    ):
        return BAD_DISPLAY
    if r.type == STOP or r.type == STOP_LIMIT:
        if r.stop_price < 1 or r.stop_price > t.market.max_price:
            return BAD_STOP
    elif r.stop_price != ABSENT:
        return BAD_STOP
    if t.tif == GTD:
        if r.expires_at == ABSENT or r.expires_at <= s.time:
            return BAD_EXPIRY
    elif r.expires_at != ABSENT:
        return BAD_EXPIRY
    return 0


cdef inline void find_pair(
    State* s, Account* account, uint32_t index, uint32_t market, uint32_t* base, uint32_t* quote
) noexcept nogil:
    # The slots of the account's balances in a market's two assets, or NIL. Those of its last market are at hand.
    if account.pair_market == market + 1:
        base[0] = account.pair_base
        quote[0] = account.pair_quote
        return
    base[0] = find_balance(s, index, s.markets[market].base)
    quote[0] = find_balance(s, index, s.markets[market].quote)
    if base[0] != NIL and quote[0] != NIL:
        account.pair_market = market + 1
        account.pair_base = base[0]
        account.pair_quote = quote[0]


cdef inline bint usual(State* s, const PlaceRecord* r, uint16_t flags, Account* account, Market* market) noexcept nogil:
    # Whether nothing but funds can be against it: a plain limit, gtc, ioc or fok, of an account and in a market without
    # anything out of the ordinary, with both balances at hand.
    cdef uint32_t kinds = (<const uint32_t*>&r.side)[0]  # side, type, tif, stp
    return (
        flags == 0 and (kinds & 0x00FCFFFE) == LIMIT << 8 and kinds >> 24 <= STP_NONE
        and r.stop_price == ABSENT and r.display_size == ABSENT and r.expires_at == ABSENT
        and (account.status | account.overdraft | account.killed | (account.mask & HAS_MAX_OPEN_ORDERS)) == 0
        and (not s.limits.risk or account.pair_market == r.market + 1)
        and (market.phase | market.entry_band_ppm | market.exec_band_ppm) == 0
        and <uint64_t>r.price - 1 < <uint64_t>market.max_price
        and r.size >= market.min_size and r.size <= market.max_size
        and not is_empty(&r.client_id) and pool_room(&s.order_pool) != 0
    )


cdef int check_place(State* s, const PlaceRecord* r, uint16_t flags, Taker* t) except -1 nogil:
    # The checks after poisoned. Fills in the taker. Returns 0 or the reject code.
    cdef Account* account = &s.accounts[r.account]
    cdef Market* market
    cdef Half* opposite
    cdef int64_t money
    cdef uint32_t slot
    cdef int reason
    if r.market >= s.market_count:
        return UNKNOWN_MARKET
    market = &s.markets[r.market]
    opposite = &market.half[1 - (r.side & 1)]
    if account.status | account.killed:
        if account.status == FROZEN:
            return REJECT_FROZEN
        return REJECT_CANCEL_ONLY if account.status == CANCEL_ONLY else KILLED
    if market.phase != CONTINUOUS:
        if market.phase >= PHASE_CANCEL_ONLY or r.type == MARKET_ORDER:
            return REJECT_PHASE
        if r.type == LIMIT and (r.tif == IOC or r.tif == FOK):
            return REJECT_PHASE
    if r.side > SELL or r.stp > STP_NONE or account.overdraft != NEVER or is_empty(&r.client_id):
        return BAD_VALUE

    t.market = market
    t.budget = (flags & PLACE_BUDGET) != 0
    t.tif = r.tif
    t.priced = True
    if r.type == LIMIT:
        if t.budget and r.stp == DECREMENT:
            return BAD_TYPE
        if r.tif == TIF_DEFAULT:
            t.tif = GTC
        elif r.tif > GTD:
            return BAD_TIF
        if (t.tif == IOC or t.tif == FOK) and flags & (PLACE_POST_ONLY | PLACE_HAS_OCO):
            return BAD_TIF
    else:
        if r.type < LIMIT or r.type > STOP_LIMIT or flags & PLACE_POST_ONLY or (t.budget and r.stp == DECREMENT):
            return BAD_TYPE
        if r.type == MARKET_ORDER:
            if flags & PLACE_HAS_OCO:
                return BAD_TYPE
            if r.tif != TIF_DEFAULT and r.tif != IOC:
                return BAD_TIF
            t.tif = IOC
        else:
            if r.tif == TIF_DEFAULT:
                t.tif = GTC
            elif r.tif > GTD or (r.type == STOP and r.tif != GTC and r.tif != GTD):
                return BAD_TIF
        t.priced = r.type == STOP_LIMIT
    if t.priced:
        if r.price < 1 or r.price > market.max_price:
            return BAD_PRICE
    elif r.price != ABSENT:
        return BAD_PRICE
    if flags & (PLACE_NO_SIZE | PLACE_BOTH_SIZES):
        return BAD_SIZE
    if t.budget:
        if t.priced or r.side == SELL or r.size < 1 or r.size > TOTAL_LIMIT:
            return BAD_SIZE
    elif r.size < market.min_size or r.size > market.max_size:
        return BAD_SIZE
    t.special = (
        r.type == STOP or r.type == STOP_LIMIT or t.tif == GTD or r.display_size != ABSENT or r.stop_price != ABSENT
        or r.expires_at != ABSENT or (flags & PLACE_HAS_OCO) != 0
    )
    if t.special:
        reason = check_terms(s, r, flags, t)
        if reason:
            return reason
    if market.entry_band_ppm and t.priced and not inside_band(market.band_reference, market.entry_band_ppm, r.price):
        return BAND
    if account.mask & HAS_MAX_OPEN_ORDERS and account.open_orders >= annex_of(s, r.account).max_open_orders:
        if r.type == STOP or r.type == STOP_LIMIT or t.tif == GTC or t.tif == GTD:
            return TOO_MANY_ORDERS
    if pool_room(&s.order_pool) == 0:
        return TOO_MANY_ORDERS
    t.partner = NIL
    if flags & PLACE_HAS_OCO:
        t.partner = find_partner(s, r)
        if t.partner == NIL:
            return BAD_OCO

    set_rates(account, market, t)
    t.base = t.quote = 0
    t.held = t.taken = 0
    if s.limits.risk:
        find_pair(s, account, r.account, r.market, &t.base, &t.quote)
        if t.priced or r.side == SELL:
            t.held = required_hold(market, r.side, r.price, r.size, t.hold_ppm, 0)
        t.taken = t.held if t.partner == NIL else beyond(t.held, order_hold(s, t.partner))
    if market.exec_band_ppm:
        begin_band(s, market)
    if s.limits.risk:
        slot = t.base if r.side == SELL else t.quote
        money = s.balances[slot].available if slot != NIL else 0
        if t.taken > money:
            return INSUFFICIENT_FUNDS
        if r.type == MARKET_ORDER and r.side == BUY and opposite.best != 0 and (
            market.exec_band_ppm == 0 or s.band_low <= opposite.best <= s.band_high
        ):
            if t.budget and r.size < money:
                money = r.size
            if lots_affordable(money, 0, t.taker_ppm, opposite.best * market.k) == 0:
                return INSUFFICIENT_FUNDS
    if flags & PLACE_POST_ONLY and opposite.best != 0 and market.phase == CONTINUOUS and reaches(
        r.side, r.price, opposite.best
    ):
        return WOULD_CROSS
    if r.type == MARKET_ORDER and opposite.best == 0:
        return NO_LIQUIDITY
    if not balance_room(s, (t.base == NIL) + (t.quote == NIL)):
        return BUSY
    return 0


cdef inline void set_rates(Account* account, Market* market, Taker* t) noexcept nogil:
    t.taker_ppm = account.taker_ppm if account.mask & HAS_TAKER_PPM else market.taker_ppm
    t.maker_ppm = account.maker_ppm if account.mask & HAS_MAKER_PPM else market.maker_ppm
    t.hold_ppm = t.taker_ppm if t.taker_ppm > t.maker_ppm else t.maker_ppm
    if t.hold_ppm < 0:
        t.hold_ppm = 0


cdef inline int check_funds(State* s, const PlaceRecord* r, Account* account, Taker* t) noexcept nogil:
    # The last check of a usual order, and what check_place fills in of its taker.
    cdef Market* market = &s.markets[r.market]
    t.market = market
    t.tif = GTC if r.tif == TIF_DEFAULT else r.tif
    t.budget = t.special = False
    t.priced = True
    t.partner = NIL
    t.base = t.quote = 0
    t.held = 0
    set_rates(account, market, t)
    if s.limits.risk:
        t.base = account.pair_base
        t.quote = account.pair_quote
        t.held = required_hold(market, r.side, r.price, r.size, t.hold_ppm, 0)
        if t.held > s.balances[t.base if r.side == SELL else t.quote].available:
            return INSUFFICIENT_FUNDS
    t.taken = t.held
    return OK


cdef inline int join_new(State* s, const PlaceRecord* r, Taker* t, uint64_t kinds) except -1 nogil:
    # A new order that meets nothing, into the back of its level, which `make_room` has seen to.
    cdef uint32_t slot = open_order(
        s, s.sequence, r.account, r.market, t.id_slot, t.base, t.quote, t.taker_ppm, t.maker_ppm, t.hold_ppm, kinds,
        r.session,
    )
    cdef Order* o = &s.orders[slot]
    o.price = r.price
    o.leaves = r.size
    o.size = r.size
    o.credit = 0
    join_window(s, &t.market.half[r.side], r.side, slot)
    return 0


cdef inline bint meets_nothing(const PlaceRecord* r, Taker* t) noexcept nogil:
    # Whether a plain order goes straight into its level.
    cdef int64_t best = t.market.half[1 - r.side].best
    return not t.special and r.type == LIMIT and t.tif == GTC and (
        best == 0 or not reaches(r.side, r.price, best) or t.market.phase != CONTINUOUS
    )


cdef int make_room(State* s, const PlaceRecord* r, Taker* t) except -1 nogil:
    # Of an order that is as good as accepted: what it may need of its half, while nothing has changed yet. One that joins at
    # once has its level then.
    if r.type == STOP_LIMIT:
        return secure_all(s, t.market)
    if r.type == LIMIT and (t.tif == GTC or t.tif == GTD):
        secure(s, t.market, r.side, r.price)
        if meets_nothing(r, t) and not in_window(&t.market.half[r.side], r.price):
            return widen(s, t.market, r.side, r.price)
    return 0


cdef int place(State* s, const PlaceRecord* r, uint16_t flags) except -1 nogil:
    cdef Taker t
    cdef Account* account
    cdef uint32_t known
    cdef bint new = False
    cdef int reason
    cdef AcceptedEvent* e
    if r.account >= s.account_count:
        return reject_place(s, r, UNKNOWN_ACCOUNT)
    if s.limits.risk:
        new = is_new(s, r.account, &r.client_id)
        if not new:
            known = find_id(s, s.tag, r.account, &r.client_id)
            if known != NIL:
                return duplicate_order(s, known)
    account = &s.accounts[r.account]
    if account.poisons and find_poison(s, r.account, <ClientId*>&r.client_id) != NIL:
        return reject_place(s, r, POISONED)
    if r.market < s.market_count and usual(s, r, flags, account, &s.markets[r.market]):
        reason = check_funds(s, r, account, &t)
    else:
        reason = check_place(s, r, flags, &t)
    if reason:
        return reject_place(s, r, reason)
    if rarely(t.special or not in_window(&t.market.half[r.side], r.price)):
        make_room(s, r, &t)

    # From here on nothing is refused.
    t.flags = flags & (PLACE_POST_ONLY | PLACE_BUDGET)
    if t.base == NIL:
        t.base = balance_of(s, r.account, t.market.base)
    if t.quote == NIL:
        t.quote = balance_of(s, r.account, t.market.quote)
    t.id_slot = NO_NAME
    if s.limits.risk:
        t.id_slot = open_id(s, s.tag, new, r.account, r.market, &r.client_id, s.sequence)
    e = <AcceptedEvent*>add_event(s, EV_ACCEPTED, 1, r.account, r.market)
    e.order_id = s.sequence
    e.client_id = r.client_id
    e.price = r.price
    e.size = r.size
    e.hold = t.taken
    e.stop_price = r.stop_price
    e.display_size = r.display_size
    e.expires_at = r.expires_at
    e.side = r.side
    e.type = r.type
    e.tif = t.tif
    e.flags = t.flags
    hold(s, t.base if r.side == SELL else t.quote, t.taken)
    if meets_nothing(r, &t):
        return join_new(s, r, &t, kinds_of(r.side, r.type, t.tif, r.stp, t.flags))
    fill_taker(s, r, &t)
    if t.special:
        return place_special(s, &t, r)
    return proceed(s, &t)


cdef inline void fill_taker(State* s, const PlaceRecord* r, Taker* t) noexcept nogil:
    # What the checks have not filled in.
    t.slot = NIL
    t.terms = NIL
    t.first_price = 0
    t.paid = t.released = t.received = t.fees = 0
    t.market_index = r.market
    t.account = r.account
    t.side = r.side
    t.type = r.type
    t.stp = r.stp
    t.price = r.price
    t.size = r.size
    t.leaves = r.size
    t.credit = 0
    t.session = r.session
    t.order_id = s.sequence
    t.stp_key = s.accounts[r.account].stp_key


cdef int place_special(State* s, Taker* t, const PlaceRecord* r) except -1 nogil:
    # An order with Terms, accepted. It has a slot before it trades.
    cdef Order* o
    t.slot = take_slot(s, t)
    o = &s.orders[t.slot]
    o.price = t.price
    o.leaves = t.leaves
    o.size = t.size
    o.credit = 0
    t.terms = open_terms(s, t.slot, r, t.partner)
    touch_order(s, t.slot)
    if t.type == LIMIT:
        proceed(s, t)
    else:
        wait(s, t.slot)
        if t.market.phase == CONTINUOUS and meets(t.side, r.stop_price, t.market.last_price):
            run_stop(s, t.slot, t.market.last_price)
    if t.tif == GTD and find_order(s, t.order_id) == t.slot:
        add_due(s, r.expires_at, t.order_id, DUE_ORDER, t.slot)
    return 0
