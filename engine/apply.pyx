"""Records, one by one or in batches: which may come now, who does them, and what remains if one fails.

    refusal ──▶ apply_one, apply_all ──▶ apply_next ──▶ place, cancel, replace │ dispatch: all others
       0 or        use = APPLYING                            │
       a number    … FREE, unless it raises ◀────────────────┘
                   leave: what raised had changed nothing (FREE again, as before), or the core is BROKEN for good

A batch ends before the first record that cannot come now, and is no error. Never raises of its own: what raises is a broken
invariant, or memory that a command asked for before it changed anything. Worst case: what the commands' own is.
"""

from engine.ahead cimport AHEAD, CACHED_ORDERS, Ahead, begin, glance, known_tag, look
from engine.amend cimport replace
from engine.bounds cimport bound_of
from engine.cancel cimport cancel
from engine.digest cimport state_sum
from engine.events cimport add_event, add_rejected
from engine.invariants cimport require
from engine.listing cimport do_account, do_asset, do_market
from engine.phases cimport do_phase, do_uncross
from engine.place cimport place
from engine.pool cimport live
from engine.scopes cimport do_cancel_after, do_kill, do_poison, mass_cancel
from engine.timers cimport tick
from engine.transfers cimport do_money, do_post, do_void
from engine.types cimport *


cdef int cut(State* s) except -1 nogil:
    cdef CutEvent* e = <CutEvent*>add_event(s, EV_CUT, 1, NIL, NIL)
    cdef uint128 sum
    s.batch += 1
    e.batch = s.batch
    e.first_sequence = s.batch_first
    e.last_sequence = s.sequence
    s.batch_first = s.sequence + 1
    sum = state_sum(s)
    e.hash_low = <uint64_t>sum
    e.hash_high = <uint64_t>(sum >> 64)
    return 0


cdef int dispatch(State* s, const Record* r) except -1 nogil:
    # All but place, cancel and replace.
    cdef uint8_t kind = r.kind
    if kind == DO_TICK:
        return tick(s)
    if kind == DO_CUT:
        return cut(s)
    if kind == DO_MASS_CANCEL:
        return mass_cancel(s, <const MassCancelRecord*>r)
    if kind == DO_DEPOSIT or kind == DO_WITHDRAW or kind == DO_TRANSFER:
        return do_money(s, r)
    if kind == DO_POST or kind == DO_WITHDRAW_SETTLED:
        return do_post(s, r)
    if kind == DO_VOID or kind == DO_WITHDRAW_FAILED:
        return do_void(s, r)
    if kind == DO_ACCOUNT:
        return do_account(s, r) if is_whole(r) else malformed(s)
    if kind == DO_ASSET:
        return do_asset(s, r) if is_whole(r) else malformed(s)
    if kind == DO_MARKET:
        return do_market(s, r) if is_whole(r) else malformed(s)
    if kind == DO_PHASE:
        return do_phase(s, r) if is_whole(r) else malformed(s)
    if kind == DO_UNCROSS:
        return do_uncross(s, r)
    if kind == DO_KILL or kind == DO_REARM:
        return do_kill(s, <const CancelAfterRecord*>r, kind == DO_KILL)
    if kind == DO_CANCEL_AFTER:
        return do_cancel_after(s, <const CancelAfterRecord*>r)
    if kind == DO_POISON:
        return do_poison(s, <const PoisonRecord*>r)
    return malformed(s)


cdef int malformed(State* s) except -1 nogil:
    s.ts = 0
    add_rejected(s, REJECT_MALFORMED, NIL)
    return 0


cdef bint is_whole(const Record* r) noexcept nogil:
    # Whether a definition has the slots that its flags promise: what stands in them is read unasked. (Of other commands
    # each part is asked for.)
    cdef int needed = 1 + ((r.flags & MONEY_HAS_REF) != 0)
    if r.kind == DO_MARKET:
        needed += 1
    elif r.kind == DO_ACCOUNT:
        needed += ((<const AccountRecord*>r).mask & (HAS_ROW | HAS_STP_GROUP)) != 0
    return r.slots >= needed


# ---------------------------------------------------------------- records


cdef inline int apply_next(State* s, const Record* r, uint32_t tag) except -1 nogil:
    # The record is the next one. Its events go behind those that stand in `s.out`; `tag` is that of the client id at words
    # 5 … 8, whatever the kind.
    cdef uint8_t kind = r.kind
    s.time_before = s.time
    s.sequence = r.sequence
    s.ts = r.ts
    if r.ts > s.time:
        s.time = r.ts
    s.op = kind
    s.event_index = 0
    s.joins = 0
    s.fills = 0
    s.tag = tag
    if kind == DO_PLACE:
        place(s, <const PlaceRecord*>r, r.flags)
    elif kind == DO_CANCEL:
        cancel(s, <const CancelRecord*>r, r.flags)
    elif kind == DO_REPLACE:
        replace(s, <const ReplaceRecord*>r, r.flags)
    else:
        dispatch(s, r)
    return require(
        s.broken >= 0, "an amount below zero: a hold without cover, a fill beyond its hold, or a level that lost count"
    )


cdef inline void open_out(State* s, Event* out, Py_ssize_t capacity) noexcept nogil:
    # Where the events of what comes go, and the room there.
    s.out = out
    s.out_capacity = <uint32_t>capacity if capacity < <Py_ssize_t>NIL else NIL
    s.out_used = 0


cdef int apply_one(State* s, const Record* r, Event* out, Py_ssize_t capacity, uint32_t tag) except -1 nogil:
    open_out(s, out, capacity)
    s.use = USE_APPLYING
    apply_next(s, r, tag)
    s.use = USE_FREE
    return 0


cdef inline bint fits(State* s, const Record* r, Py_ssize_t room, Py_ssize_t plenty) noexcept nogil:
    # Whether bound_of is at most `room`. Where even a walk through all orders would fit, place, cancel and replace need
    # not be told apart, which nobody can predict.
    if (
        room >= plenty and s.stop_count + s.iceberg_count == 0 and <uint8_t>(r.kind - DO_PLACE) <= DO_REPLACE - DO_PLACE
        and ((r.kind != DO_PLACE) | ((<const PlaceRecord*>r).type == LIMIT))
    ):
        return True
    return bound_of(s, r) <= room


cdef int refusal(State* s, const Record* r, int64_t slots, int64_t event_slots) noexcept nogil:
    if rarely(s.use != USE_FREE):
        return BYLINE_IN_USE if s.use == USE_APPLYING else BYLINE_BROKEN
    if r.slots == 0 or r.slots > slots:
        return BYLINE_BAD_RECORD
    if r.sequence != s.sequence + 1:
        return BYLINE_NOT_NEXT
    return BYLINE_NO_ROOM if bound_of(s, r) > event_slots else 0


cdef bint overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) noexcept nogil:
    return <const uint8_t*>a < <const uint8_t*>b + b_bytes and <const uint8_t*>b < <const uint8_t*>a + a_bytes


cdef int apply_all(
    State* s, const Record* records, Py_ssize_t* at, Py_ssize_t end, Event* out, Py_ssize_t capacity, Py_ssize_t* used
) except -1 nogil:
    cdef Ahead ahead[AHEAD]
    cdef Py_ssize_t start = at[0], now = start
    cdef Py_ssize_t plenty = 16 + 3 * (<Py_ssize_t>live(&s.order_pool) + end - start)
    cdef bint deep = live(&s.order_pool) > CACHED_ORDERS
    cdef const Record* r
    open_out(s, out, capacity)
    s.use = USE_APPLYING
    begin(s, records, start, end, deep, ahead)
    while now < end:
        r = &records[now]
        if r.slots == 0 or now + r.slots > end or r.sequence != s.sequence + 1:
            break
        if not fits(s, r, <Py_ssize_t>s.out_capacity - s.out_used, plenty):
            break
        if deep:
            look(s, records, now, end, ahead)
        else:
            glance(s, records, now, end, ahead)
        apply_next(s, r, known_tag(s, r, &ahead[now % AHEAD]))
        used[0] = s.out_used
        now += r.slots
        at[0] = now
    s.use = USE_FREE
    return 0


cdef int leave(State* s) noexcept nogil:
    if s.use != USE_APPLYING:
        return 0
    if s.untouched:
        s.untouched = False
        s.sequence -= 1
        s.time = s.time_before
        s.use = USE_FREE
        return BYLINE_NO_MEMORY
    s.use = USE_BROKEN
    return BYLINE_BROKEN
