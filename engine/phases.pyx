"""Phases of a market, and the pause after a price ran into its band.

                     ┌───────────── phase (any to any; to continuous only from an uncrossed book) ─────────────┐
    preopen, auction: orders collect ──uncross──▶ continuous ──band──▶ halt ──tick──▶ auction ──tick──▶ continuous
    cancel_only, halt, closed: no place, no replace; halt: nothing expires; closed: all orders canceled first

A pause is a due time and the sequence that set it; any phase or uncross ends it. Who opens a market lets the stops run
that its last trade meets, with the exec band of that moment.

Worst case: closed walks all orders of the market; an opening runs every stop that is met, within the fills limit.
"""

from libc.stdint cimport INT64_MAX

from engine.auction cimport uncross
from engine.bands cimport begin_band
from engine.digest cimport fix_market, touch_market
from engine.events cimport add_event, add_rejected
from engine.pool cimport pool_room
from engine.refs cimport judge_ref, keep_ref, optional_ref, reject_definition
from engine.scopes cimport cancel_market
from engine.stops cimport run_met
from engine.timers cimport add_due, unpark
from engine.types cimport *


cdef int enter(State* s, uint32_t index, uint8_t phase, uint8_t reason) except -1 nogil:
    # The phase changes, or is said again; a pause is over.
    cdef Market* market = &s.markets[index]
    cdef PhaseChangedEvent* e = <PhaseChangedEvent*>add_event(s, EV_PHASE_CHANGED, 1, NIL, index)
    cdef bint was_halted = market.phase == HALT
    (<Event*>e).reason = reason
    e.phase = phase
    e.reference_price = market.band_reference
    touch_market(s, index)
    market.phase = phase
    market.pause_at = 0
    market.pause_sequence = 0
    fix_market(market, index)
    if was_halted and phase != HALT:
        unpark(s, index)
    return 0


cdef int set_pause(State* s, uint32_t index) except -1 nogil:
    # The next step comes `pause_ns` from now.
    cdef Market* market = &s.markets[index]
    touch_market(s, index)
    market.pause_at = s.time + market.pause_ns if s.time <= INT64_MAX - market.pause_ns else INT64_MAX
    market.pause_sequence = s.sequence
    fix_market(market, index)
    return add_due(s, market.pause_at, s.sequence, DUE_MARKET, index)


cdef int open_market(State* s, uint32_t index, uint8_t reason) except -1 nogil:
    enter(s, index, CONTINUOUS, reason)
    if s.markets[index].stop_count == 0:
        return 0
    begin_band(s, &s.markets[index])
    return run_met(s, index)


cdef int pause(State* s, uint32_t market) except -1 nogil:
    # A taker that rests met the band.
    enter(s, market, HALT, BY_BAND)
    return set_pause(s, market)


cdef int pause_due(State* s, uint32_t market) except -1 nogil:
    # By tick: from halt to auction, from auction to continuous.
    if s.markets[market].phase == HALT:
        enter(s, market, AUCTION, BY_PAUSE)
        return set_pause(s, market)
    uncross(s, market)
    return open_market(s, market, BY_UNCROSS)


cdef int do_phase(State* s, const Record* record) except -1 nogil:
    cdef const MarketOnlyRecord* r = <const MarketOnlyRecord*>record
    cdef const RefSlot* ref = optional_ref(record)
    cdef Market* market
    cdef int reason = 0
    if ref != NULL and judge_ref(s, record, &ref.ref, ref.not_after, NIL):
        return 0
    if r.market >= s.market_count:
        return reject_definition(s, UNKNOWN_MARKET, NIL, ref)
    market = &s.markets[r.market]
    if r.phase > CLOSED:
        reason = BAD_VALUE
    elif r.reference_price != ABSENT and (r.reference_price < 1 or r.reference_price > market.max_price):
        reason = BAD_VALUE
    elif (
        r.phase == CONTINUOUS and market.half[BUY].best != 0 and market.half[SELL].best != 0
        and market.half[BUY].best >= market.half[SELL].best
    ):
        reason = CROSSED
    elif ref != NULL and pool_room(&s.ref_pool) == 0:
        reason = BUSY
    if reason:
        return reject_definition(s, reason, NIL, ref)

    # From here on nothing is refused.
    if ref != NULL:
        keep_ref(s, record, &ref.ref, ref.not_after)
    if r.reference_price != ABSENT:
        touch_market(s, r.market)
        market.band_reference = r.reference_price
    if r.phase == CONTINUOUS:
        return open_market(s, r.market, BY_COMMAND)
    enter(s, r.market, r.phase, BY_COMMAND)
    return cancel_market(s, r.market, WHY_CLOSED) if r.phase == CLOSED else 0


cdef int do_uncross(State* s, const Record* record) except -1 nogil:
    cdef const MarketOnlyRecord* r = <const MarketOnlyRecord*>record
    if r.market >= s.market_count:
        add_rejected(s, UNKNOWN_MARKET, NIL)
        return 0
    if s.markets[r.market].phase != PREOPEN and s.markets[r.market].phase != AUCTION:
        add_rejected(s, REJECT_PHASE, NIL)
        return 0
    # From here on nothing is refused.
    uncross(s, r.market)
    return open_market(s, r.market, BY_UNCROSS)
