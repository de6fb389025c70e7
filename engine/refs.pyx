"""Refs: one space of names for all money commands, and for definitions that carry one. Each is accepted once.

    ref:      (none) ──transfer──▶ posted
              (none) ──pending───▶ pending ──post──▶ posted
                                          └─void, expiry──▶ voided
              (none) ──void──▶ voided, with digest 0: closed before it was ever used

The same ref with the same content is answered `duplicate`; what is the same content a 128-bit digest decides. A ref with
`not_after` is forgotten by the first tick after it, once decided; others are kept for ever. Moves no money.

Worst case: one digest over the slots of a command.
"""

from libc.stdint cimport INT64_MAX
from libc.string cimport memcpy, memset

from engine.digest cimport TAG_CONTENT, add_mix, mix_ref, remove_mix
from engine.events cimport add_event, add_rejected
from engine.pool cimport find_ref, is_empty, map_drop, map_put, name_tag, pool_give, pool_take
from engine.timers cimport add_due
from engine.types cimport *


cdef int reject_ref(State* s, int reason, uint32_t account, const Name* ref) except -1 nogil:
    cdef RejectedEvent* e = add_rejected(s, reason, account)
    e.text = ref[0]
    e.flags = REJECTED_REF
    return 0


cdef int duplicate_ref(State* s, uint32_t slot) except -1 nogil:
    cdef DuplicateEvent* e = <DuplicateEvent*>add_event(s, EV_DUPLICATE, 1, NIL, NIL)
    e.order_id = s.refs[slot].first_sequence
    e.text = s.refs[slot].ref
    e.status = s.refs[slot].status
    e.flags = 1
    return 0


cdef void content_digest(const Record* r, uint64_t* digest) noexcept nogil:
    cdef uint64_t w[20]
    cdef uint128 mix = 0
    cdef int i
    for i in range(r.slots):
        w[0] = TAG_CONTENT
        w[1] = <uint64_t>mix
        w[2] = <uint64_t>(mix >> 64)
        w[3] = i
        memcpy(&w[4], &r[i], SLOT_BYTES)
        if i == 0:
            w[4] = r.kind | (<uint64_t>r.slots << 8) | (<uint64_t>r.flags << 16)
            w[5] = w[6] = w[7] = 0
        mix = mix_words(w, 20)
    digest[0] = <uint64_t>mix
    digest[1] = <uint64_t>(mix >> 64)


cdef int judge_ref(State* s, const Record* r, const Name* ref, int64_t not_after, uint32_t account) except -1 nogil:
    # 0: the ref is free. 1: the command is answered.
    cdef uint64_t digest[2]
    cdef uint32_t slot
    cdef Ref* known
    if is_empty(ref):
        reject_ref(s, BAD_REF, account, ref)
        return 1
    slot = find_ref(s, <Name*>ref)
    if slot != NIL:
        known = &s.refs[slot]
        content_digest(r, digest)
        if (known.digest[0] | known.digest[1]) == 0 or (
            known.digest[0] == digest[0] and known.digest[1] == digest[1]
        ):
            duplicate_ref(s, slot)
        else:
            reject_ref(s, BAD_REF, account, ref)
        return 1
    if not_after != ABSENT and s.time > not_after:
        reject_ref(s, EXPIRED, account, ref)
        return 1
    return 0


cdef uint32_t own_ref(State* s, const Name* name, uint8_t status, int64_t not_after) except? 0xFFFFFFFF nogil:
    # A new ref, not yet mixed in. The caller has looked at the room.
    cdef uint32_t slot = pool_take(&s.ref_pool)
    cdef Ref* ref = &s.refs[slot]
    memset(ref, 0, sizeof(Ref))
    ref.ref = name[0]
    ref.status = status
    ref.not_after = not_after
    ref.first_sequence = s.sequence
    ref.first_posting = NIL
    map_put(&s.ref_map, name_tag(s, &ref.ref), slot)
    return slot


cdef int keep_ref(State* s, const Record* r, const Name* name, int64_t not_after) except -1 nogil:
    # The ref of an accepted command that is not pending.
    cdef uint32_t slot = own_ref(s, name, REF_POSTED, not_after)
    content_digest(r, s.refs[slot].digest)
    add_mix(s, mix_ref(&s.refs[slot]))
    return add_ref_dues(s, slot)


cdef const RefSlot* optional_ref(const Record* r) noexcept nogil:
    return <const RefSlot*>&r[r.slots - 1] if r.flags & MONEY_HAS_REF else NULL


cdef int reject_definition(State* s, int reason, uint32_t account, const RefSlot* ref) except -1 nogil:
    if ref != NULL:
        return reject_ref(s, reason, account, &ref.ref)
    add_rejected(s, reason, account)
    return 0


cdef int add_ref_dues(State* s, uint32_t slot) except -1 nogil:
    # What will happen to the ref as it is now: expiry while pending, forgetting once decided.
    cdef Ref* ref = &s.refs[slot]
    if ref.status == REF_PENDING:
        if ref.expires_at != ABSENT:
            add_due(s, ref.expires_at, ref.first_sequence, DUE_TRANSFER, slot)
    elif ref.not_after != ABSENT and ref.not_after != INT64_MAX:
        add_due(s, ref.not_after + 1, ref.first_sequence, DUE_FORGET, slot)
    return 0


cdef int forget_ref(State* s, uint32_t slot) except -1 nogil:
    # As if it had never been.
    remove_mix(s, mix_ref(&s.refs[slot]))
    map_drop(&s.ref_map, name_tag(s, &s.refs[slot].ref), slot)
    s.refs[slot].first_sequence = 0
    pool_give(&s.ref_pool, slot)
    return 0
