# Holds and balances of trading.
#
# What an order holds is a function of what is left of it, never a stored number: a sell holds leaves × u of base, a
# limit buy n + ceil((f + n × w) / 10^6) − ceil(f / 10^6) of quote with n the notional of its leaves at its limit, w the
# larger of its rates. Of the exact fee sum f an order keeps only credit = ceil(f / 10^6) × 10^6 − f, below 10^6.
#
# Per fill:   buyer    held −(old hold − new hold), available +released,   base +size × u
#             seller   base held −size × u,                               quote +notional − fee
#             system:fees   +both fees (a rebate is a negative fee)
# Every column sums to zero. With risk off nothing here moves and nothing is refused.

from engine.digest cimport touch_balance
from engine.invariants cimport require
from engine.pool cimport find_balance, link_balance
from engine.types cimport (
    BUY, NIL, SELL, STOP, Balance, Market, Order, State, int32_t, int64_t, side_hold, uint8_t, uint32_t, uint64_t,
)


cdef inline int64_t required_hold(
    Market* market, uint8_t side, int64_t price, int64_t leaves, int32_t ppm, uint32_t credit
) noexcept nogil:
    # Of a sell of any type, or a limit buy. The listing's bounds keep every product below 2^62.
    return side_hold(side == SELL, leaves, market.u, <int64_t>(<uint64_t>price * <uint64_t>market.k), ppm, credit)


cdef inline int64_t whole_leaves(State* s, uint32_t slot) noexcept nogil:
    # Displayed and hidden.
    if s.details[slot].terms == NIL:
        return s.orders[slot].leaves
    return s.orders[slot].leaves + s.terms[s.details[slot].terms].hidden


cdef inline int64_t order_hold(State* s, uint32_t slot) noexcept nogil:
    # Its own, whether it has a partner or not.
    cdef Order* o = &s.orders[slot]
    if not s.limits.risk:
        return 0
    if s.details[slot].type == STOP:
        return 0 if s.details[slot].side == BUY else s.orders[slot].leaves * s.markets[o.market].u
    return required_hold(
        &s.markets[o.market], s.details[slot].side, o.price, whole_leaves(s, slot), o.hold_ppm, o.credit
    )


cdef inline int64_t partner_hold(State* s, uint32_t terms) noexcept nogil:
    # What the other order of the pair holds by itself; 0 without one. `terms` may be NIL.
    if terms == NIL or s.terms[terms].partner == NIL:
        return 0
    return order_hold(s, s.terms[terms].partner)


cdef inline int64_t beyond(int64_t own, int64_t other) noexcept nogil:
    # What `own` adds to a pair: two orders of which only one can trade hold the larger of their holds.
    return own - other if own > other else 0


cdef inline int64_t pair_hold(State* s, int64_t own, uint32_t terms) noexcept nogil:
    # What an order that holds `own` and its partner hold together.
    return own + beyond(partner_hold(s, terms), own)


cdef inline uint32_t hold_slot(State* s, uint32_t slot) noexcept nogil:
    return s.details[slot].base if s.details[slot].side == SELL else s.details[slot].quote


cdef inline bint balance_room(State* s, uint32_t count) noexcept nogil:
    return s.limits.balances - s.balance_count >= count


cdef inline uint32_t balance_of(State* s, uint32_t account, uint32_t asset) except? 0xFFFFFFFF nogil:
    # Its slot; a balance not met before starts at zero. The caller has looked at balance_room.
    cdef uint32_t slot = find_balance(s, account, asset)
    if slot != NIL:
        return slot
    require(s.balance_count < s.limits.balances, "the table of balances is full")
    slot = s.balance_count
    s.balance_count += 1
    s.balances[slot].asset = asset
    link_balance(s, account, slot)
    return slot


# What may not be below zero goes into `broken`, looked at when the command is done: no branch for each, none left out.


cdef inline void hold(State* s, uint32_t slot, int64_t amount) noexcept nogil:
    # From available to held; a negative amount goes back.
    cdef Balance* balance
    if s.limits.risk and amount != 0:
        touch_balance(s, slot)
        balance = &s.balances[slot]
        balance.available -= amount
        balance.held += amount
        s.broken |= balance.available | balance.held


cdef inline void pay_held(State* s, uint32_t slot, int64_t released, int64_t paid) noexcept nogil:
    # `paid` leaves the held amount for good, `released` goes back to available.
    cdef Balance* balance
    if s.limits.risk:
        touch_balance(s, slot)
        balance = &s.balances[slot]
        balance.held -= released + paid
        balance.available += released
        s.broken |= released | balance.available | balance.held


cdef inline void pay_available(State* s, uint32_t slot, int64_t paid) noexcept nogil:
    if s.limits.risk:
        touch_balance(s, slot)
        s.balances[slot].available -= paid
        s.broken |= s.balances[slot].available


cdef inline void receive(State* s, uint32_t slot, int64_t amount) noexcept nogil:
    if s.limits.risk:
        touch_balance(s, slot)
        s.balances[slot].available += amount
        s.broken |= s.balances[slot].available


cdef inline int64_t below_zero(int64_t available) noexcept nogil:
    return -available if available < 0 else 0


cdef inline void move_available(State* s, uint32_t slot, int64_t amount) noexcept nogil:
    # Of accounts that may be below zero: keeps the asset's sum of debts.
    cdef Balance* balance = &s.balances[slot]
    touch_balance(s, slot)
    s.assets[balance.asset].below += below_zero(balance.available + amount) - below_zero(balance.available)
    s.broken |= s.assets[balance.asset].below
    balance.available += amount


cdef inline void collect_fee(State* s, uint32_t slot, int64_t amount) noexcept nogil:
    if s.limits.risk and amount != 0:
        move_available(s, slot, amount)
