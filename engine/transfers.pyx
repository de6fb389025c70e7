"""Money commands: deposit, withdraw, transfer, post, void.

A money command becomes *moves* (source, asset, amount, target), at most 64, and a list of what they touch. All checks
run over moves and touched balances before the first of them changes.

    record ─▶ parts ─▶ moves ─▶ touched balances ─▶ checks ─▶ balances, ref ─▶ transferred | pended, balance …

Per asset every command's changes sum to zero. Which ref a command has, and whether it was there before, is refs.pyx's.

Worst case: 64 moves times the balances they touch (at most 128), so about 10^4 steps for one command.
"""

from libc.string cimport memcpy, memset

from engine.digest cimport add_mix, mix_posting, mix_ref, remove_mix, touch_balance
from engine.events cimport add_event
from engine.invariants cimport require
from engine.pool cimport find_balance, find_ref, is_empty, own_annex, owner_of, pool_give, pool_room, pool_take
from engine.refs cimport add_ref_dues, content_digest, duplicate_ref, judge_ref, keep_ref, own_ref, reject_ref
from engine.risk cimport balance_of, balance_room, below_zero, move_available
from engine.types cimport *

ctypedef struct Move:
    uint32_t source, asset, target
    int64_t amount

ctypedef struct Touched:
    uint32_t account, asset
    uint32_t slot  # of the balance, or NIL if there is none yet
    int128 out  # what the moves take from it
    int128 change  # of its available, in all

ctypedef struct Draft:
    Move moves[LEGS_MAX]
    Touched touched[2 * LEGS_MAX]
    int move_count, touched_count


# ---------------------------------------------------------------- money: from the record to moves


ctypedef struct Parts:
    # One or two sources: the leg that deposit and withdraw imply, then the parts in the record.
    Part first
    const Part* more
    int implied, count


cdef inline const Part* part_at(Parts* parts, int i) noexcept nogil:
    return &parts.first if i < parts.implied else &parts.more[i - parts.implied]


cdef int read_parts(const Record* record, Parts* parts) noexcept nogil:
    # 0, or BAD_LEGS if the record is shorter than it says.
    cdef const DirectRecord* direct = <const DirectRecord*>record
    cdef int skip = 1 + ((record.flags & MONEY_HAS_META) != 0) + ((record.flags & MONEY_HAS_ADDRESS) != 0), more = 0
    memset(parts, 0, sizeof(Parts))
    if record.kind == DO_TRANSFER:
        more = (<const TransferRecord*>record).part_count
    else:
        parts.implied = 1
        parts.first.asset = direct.asset
        parts.first.amount = direct.amount
        parts.first.source = direct.place if record.kind == DO_DEPOSIT else direct.account
        parts.first.target = direct.account if record.kind == DO_DEPOSIT else direct.place
        if record.kind == DO_WITHDRAW:
            more = direct.part_count
    if skip + (more + 3) // 4 > record.slots:
        return BAD_LEGS
    parts.more = <const Part*>&record[skip]
    parts.count = parts.implied + more
    return 0


cdef int check_parts(State* s, const Record* record, Parts* parts) noexcept nogil:
    # Names and shapes: unknown_account … bad_legs, bad_amount.
    cdef int i, leg = -1, members = 0
    cdef int64_t weights = 0
    cdef const Part* p
    cdef const Part* before = NULL
    for i in range(parts.count):
        p = part_at(parts, i)
        if p.source >= s.account_count or p.target >= s.account_count:
            return UNKNOWN_ACCOUNT
    for i in range(parts.count):
        if part_at(parts, i).asset >= s.asset_count:
            return UNKNOWN_ASSET
    for i in range(parts.count):
        p = part_at(parts, i)
        if not p.is_share and p.source == p.target:
            return BAD_ACCOUNT
    if record.kind == DO_DEPOSIT and s.accounts[parts.first.source].overdraft != OPEN_OVERDRAFT:
        return BAD_ACCOUNT
    if record.kind == DO_WITHDRAW and s.accounts[parts.first.target].overdraft != OPEN_OVERDRAFT:
        return BAD_ACCOUNT
    if parts.count == 0:
        return BAD_LEGS
    for i in range(parts.implied, parts.count):
        p = part_at(parts, i)
        if p.leg == leg + 1:
            if before != NULL and before.is_share and weights < 1:
                return BAD_LEGS
            leg += 1
            members = 0
            weights = 0
        elif p.leg != leg or not p.is_share or not before.is_share:
            return BAD_LEGS
        elif p.source != before.source or p.asset != before.asset or p.amount != before.amount:
            return BAD_LEGS
        members += 1
        weights += p.weight
        if members > LEGS_MAX or (p.is_share and p.weight > 0x7FFFFFFF):
            return BAD_LEGS
        before = p
    if before != NULL and before.is_share and weights < 1:
        return BAD_LEGS
    for i in range(parts.count):
        if part_at(parts, i).amount < 1:
            return BAD_AMOUNT
    return 0


cdef inline int add_move(Draft* draft, const Part* p, int64_t amount) noexcept nogil:
    cdef Move* move
    if amount == 0:
        return 0
    if draft.move_count == LEGS_MAX:
        return BAD_LEGS
    move = &draft.moves[draft.move_count]
    move.source = p.source
    move.asset = p.asset
    move.target = p.target
    move.amount = amount
    draft.move_count += 1
    return 0


cdef int split(Draft* draft, Parts* parts, int first, int count) noexcept nogil:
    # Largest remainder: floors, then one unit each to the largest remainders, ties to the earlier.
    cdef int64_t amounts[LEGS_MAX]
    cdef int64_t rests[LEGS_MAX]
    cdef int64_t weights = 0, left
    cdef int i, best
    cdef const Part* p
    for i in range(count):
        weights += part_at(parts, first + i).weight
    left = part_at(parts, first).amount
    for i in range(count):
        p = part_at(parts, first + i)
        amounts[i] = share_floor(p.amount, p.weight, weights, &rests[i])
        left -= amounts[i]
    while left > 0:
        best = 0
        for i in range(1, count):
            if rests[i] > rests[best]:
                best = i
        amounts[best] += 1
        rests[best] = -1
        left -= 1
    for i in range(count):
        if add_move(draft, part_at(parts, first + i), amounts[i]):
            return BAD_LEGS
    return 0


cdef int make_moves(Draft* draft, Parts* parts) noexcept nogil:
    cdef int i = 0, end
    cdef const Part* p
    draft.move_count = 0
    while i < parts.count:
        p = part_at(parts, i)
        if not p.is_share:
            if add_move(draft, p, p.amount):
                return BAD_LEGS
            i += 1
            continue
        end = i + 1
        while end < parts.count and part_at(parts, end).leg == p.leg:
            end += 1
        if split(draft, parts, i, end - i):
            return BAD_LEGS
        i = end
    return 0


# ---------------------------------------------------------------- money: what moves touch


cdef Touched* touch(State* s, Draft* draft, uint32_t account, uint32_t asset) noexcept nogil:
    cdef int i
    cdef Touched* t
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        if t.account == account and t.asset == asset:
            return t
    t = &draft.touched[draft.touched_count]
    draft.touched_count += 1
    t.account = account
    t.asset = asset
    t.slot = find_balance(s, account, asset)
    t.out = 0
    t.change = 0
    return t


cdef int check_funds(State* s, Draft* draft, bint pending, bint force) noexcept nogil:
    # Fills in what is touched, payers first, then judges frozen … too_large.
    cdef int i
    cdef Move* move
    cdef Touched* t
    cdef int64_t available
    cdef uint8_t overdraft
    cdef int128 below, after
    cdef int j
    draft.touched_count = 0
    for i in range(draft.move_count):
        move = &draft.moves[i]
        if s.accounts[move.source].status == FROZEN and not force:
            return REJECT_FROZEN
        t = touch(s, draft, move.source, move.asset)
        t.out += move.amount
        t.change -= move.amount
        if not pending:
            t = touch(s, draft, move.target, move.asset)
            t.change += move.amount
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        overdraft = s.accounts[t.account].overdraft
        available = s.balances[t.slot].available if t.slot != NIL else 0
        if t.out > 0 and t.out > available and overdraft != OPEN_OVERDRAFT and not (overdraft == FORCED and force):
            return INSUFFICIENT_FUNDS
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        available = s.balances[t.slot].available if t.slot != NIL else 0
        if not fits_int64(t.change + available):
            return TOO_LARGE
        if pending and (t.out > TOTAL_LIMIT or not fits_int64(t.out + (s.balances[t.slot].held if t.slot != NIL else 0))):
            return TOO_LARGE
        # Once per asset, at its first balance: the debts after the command.
        for j in range(i):
            if draft.touched[j].asset == t.asset:
                break
        else:
            below = s.assets[t.asset].below
            for j in range(i, draft.touched_count):
                if draft.touched[j].asset == t.asset:
                    available = s.balances[draft.touched[j].slot].available if draft.touched[j].slot != NIL else 0
                    after = draft.touched[j].change + available
                    below -= below_zero(available)
                    if after < 0:
                        below -= after
            if below > TOTAL_LIMIT:
                return TOO_LARGE
    return 0


cdef int write_money(
    State* s, uint8_t kind, const Name* ref, const uint64_t* code, const uint64_t* memo, Draft* draft, bint expired
) except -1 nogil:
    # The answer to a money command, or what a tick did.
    cdef bint has_memo = memo != NULL and not is_empty(memo)
    cdef int leg_slots = (draft.move_count + 3) // 4, i
    cdef MoneyEvent* e = <MoneyEvent*>add_event(s, kind, 1 + has_memo + leg_slots, NIL, NIL)
    cdef MoneyMeta* meta
    cdef Leg* leg = <Leg*>(<Event*>e + 1 + has_memo)
    e.ref = ref[0]
    if code != NULL:
        memcpy(e.code, code, 16)
    e.leg_count = draft.move_count
    e.cause = expired
    e.has_memo = has_memo
    if has_memo:
        meta = <MoneyMeta*>(<Event*>e + 1)
        memcpy(meta.code, code, 16)
        memcpy(meta.memo, memo, 64)
    for i in range(draft.move_count):
        leg[i].source = draft.moves[i].source
        leg[i].asset = draft.moves[i].asset
        leg[i].amount = draft.moves[i].amount
        leg[i].target = draft.moves[i].target
    return 0


cdef int write_balances(State* s, Draft* draft, bint expired) except -1 nogil:
    cdef int i
    cdef BalanceEvent* e
    cdef Touched* t
    for i in range(draft.touched_count):
        t = &draft.touched[i]
        e = <BalanceEvent*>add_event(s, EV_BALANCE, 1, t.account, t.asset)
        e.available = s.balances[t.slot].available
        e.held = s.balances[t.slot].held
        e.cause = 0 if expired else s.op
    return 0


# ---------------------------------------------------------------- money commands


cdef int do_money(State* s, const Record* record) except -1 nogil:
    """deposit, withdraw, transfer."""
    cdef const DirectRecord* direct = <const DirectRecord*>record
    cdef const TransferRecord* transfer = <const TransferRecord*>record
    cdef bint is_transfer = record.kind == DO_TRANSFER
    cdef const Name* name = &direct.ref  # at the same place in all three
    cdef int64_t not_after = transfer.not_after if is_transfer else direct.not_after
    cdef int64_t expires_at = transfer.expires_at if is_transfer else ABSENT
    cdef uint32_t account = NIL if is_transfer else direct.account
    cdef bint pending = record.kind == DO_WITHDRAW or (is_transfer and record.flags & MONEY_PENDING)
    cdef const MoneyMeta* meta = <const MoneyMeta*>&record[1] if record.flags & MONEY_HAS_META else NULL
    cdef Parts parts
    cdef Draft draft
    cdef int reason, i
    cdef uint32_t fresh
    if judge_ref(s, record, name, not_after, account):
        return 0
    reason = read_parts(record, &parts)
    if reason == 0:
        reason = check_parts(s, record, &parts)
    if reason == 0:
        reason = make_moves(&draft, &parts)
    if reason == 0 and expires_at != ABSENT and (not pending or expires_at <= s.time):
        reason = BAD_EXPIRY
    if reason == 0:
        reason = check_funds(s, &draft, pending, (record.flags & MONEY_FORCE) != 0)
    if reason == 0:
        fresh = 0
        for i in range(draft.touched_count):
            fresh += draft.touched[i].slot == NIL
        if pending:
            fresh += draft.move_count  # the targets, at most
        if pool_room(&s.ref_pool) == 0 or not balance_room(s, fresh):
            reason = BUSY
        elif pending and pool_room(&s.posting_pool) < <uint32_t>draft.move_count:
            reason = BUSY
    if reason:
        return reject_ref(s, reason, account, name)

    # From here on nothing is refused.
    for i in range(draft.touched_count):
        if draft.touched[i].slot == NIL:
            draft.touched[i].slot = balance_of(s, draft.touched[i].account, draft.touched[i].asset)
    if pending:
        pend(s, record, name, meta, &draft, not_after, expires_at)
    else:
        for i in range(draft.touched_count):
            move_available(s, draft.touched[i].slot, <int64_t>draft.touched[i].change)
        keep_ref(s, record, name, not_after)
    write_money(
        s, EV_PENDED if pending else EV_TRANSFERRED, name,
        meta.code if meta != NULL else NULL, meta.memo if meta != NULL else NULL, &draft, False,
    )
    return write_balances(s, &draft, False)


cdef int pend(
    State* s, const Record* record, const Name* name, const MoneyMeta* meta, Draft* draft, int64_t not_after,
    int64_t expires_at,
) except -1 nogil:
    cdef int i
    cdef uint32_t slot, posting, last = NIL
    cdef Posting* p
    cdef Move* move
    cdef Ref* ref
    for i in range(draft.touched_count):
        move_available(s, draft.touched[i].slot, <int64_t>draft.touched[i].change)
        s.balances[draft.touched[i].slot].held += <int64_t>draft.touched[i].out
    slot = own_ref(s, name, REF_PENDING, not_after)
    ref = &s.refs[slot]
    content_digest(record, ref.digest)
    ref.expires_at = expires_at
    ref.posting_count = draft.move_count
    if meta != NULL:
        memcpy(ref.code, meta.code, 16)
        memcpy(ref.memo, meta.memo, 64)
    for i in range(draft.move_count):
        move = &draft.moves[i]
        posting = pool_take(&s.posting_pool)
        p = &s.postings[posting]
        p.source = balance_of(s, move.source, move.asset)
        p.target = balance_of(s, move.target, move.asset)
        p.amount = move.amount
        p.next = NIL
        if last == NIL:
            ref.first_posting = posting
        else:
            s.postings[last].next = posting
        last = posting
        if s.accounts[move.target].overdraft == OPEN_OVERDRAFT:
            own_annex(s, move.source).pending_out += 1
        add_mix(s, mix_posting(s, ref.first_sequence, i, p))
    add_mix(s, mix_ref(ref))
    return add_ref_dues(s, slot)


cdef int decide(State* s, uint32_t slot, uint8_t status, bint expired) except -1 nogil:
    # A pending ref is posted or voided: balances, postings gone, ref decided, events.
    cdef Ref* ref = &s.refs[slot]
    cdef Draft draft
    cdef Posting* p
    cdef uint32_t source, target, asset, posting = ref.first_posting, number = 0, after
    cdef uint64_t code[2]
    cdef uint64_t memo[8]
    require(ref.status == REF_PENDING, "a ref is decided twice")
    remove_mix(s, mix_ref(ref))
    draft.move_count = 0
    draft.touched_count = 0
    while posting != NIL:
        p = &s.postings[posting]
        source = owner_of(s, p.source)
        target = owner_of(s, p.target)
        asset = s.balances[p.source].asset
        remove_mix(s, mix_posting(s, ref.first_sequence, number, p))
        draft.moves[number].source = source
        draft.moves[number].asset = asset
        draft.moves[number].target = target
        draft.moves[number].amount = p.amount
        touch_balance(s, p.source)
        s.balances[p.source].held -= p.amount
        require(s.balances[p.source].held >= 0, "a pending posting without its hold")
        touch(s, &draft, source, asset)
        if status == REF_POSTED:
            move_available(s, p.target, p.amount)
            touch(s, &draft, target, asset)
        else:
            move_available(s, p.source, p.amount)
        if s.accounts[target].overdraft == OPEN_OVERDRAFT:
            own_annex(s, source).pending_out -= 1
        after = p.next
        pool_give(&s.posting_pool, posting)
        posting = after
        number += 1
    draft.move_count = number
    memcpy(code, ref.code, 16)
    memcpy(memo, ref.memo, 64)
    ref.status = status
    ref.first_posting = NIL
    ref.posting_count = 0
    ref.expires_at = 0
    memset(ref.code, 0, 16)
    memset(ref.memo, 0, 64)
    add_mix(s, mix_ref(ref))
    add_ref_dues(s, slot)
    write_money(s, EV_POSTED if status == REF_POSTED else EV_VOIDED, &ref.ref, code, memo, &draft, expired)
    return write_balances(s, &draft, expired)


cdef int do_post(State* s, const Record* record) except -1 nogil:
    """post, withdraw_settled."""
    cdef const PostRecord* r = <const PostRecord*>record
    cdef uint32_t slot = find_ref(s, <Name*>&r.ref)
    if slot == NIL:
        return reject_ref(s, BAD_REF, NIL, &r.ref)
    if s.refs[slot].status != REF_PENDING:
        return duplicate_ref(s, slot)
    if s.refs[slot].expires_at != ABSENT and s.time >= s.refs[slot].expires_at:
        return reject_ref(s, EXPIRED, NIL, &r.ref)
    # From here on nothing is refused.
    return decide(s, slot, REF_POSTED, False)


cdef int do_void(State* s, const Record* record) except -1 nogil:
    """void, withdraw_failed. Of an unknown ref: closes it for good."""
    cdef const PostRecord* r = <const PostRecord*>record
    cdef uint32_t slot = find_ref(s, <Name*>&r.ref)
    cdef Draft draft
    if slot != NIL and s.refs[slot].status == REF_PENDING:
        return decide(s, slot, REF_VOIDED, False)
    if slot != NIL:
        return duplicate_ref(s, slot)
    if is_empty(&r.ref):
        return reject_ref(s, BAD_REF, NIL, &r.ref)
    if r.not_after != ABSENT and s.time > r.not_after:
        return reject_ref(s, EXPIRED, NIL, &r.ref)
    if pool_room(&s.ref_pool) == 0:
        return reject_ref(s, BUSY, NIL, &r.ref)
    # From here on nothing is refused.
    slot = own_ref(s, &r.ref, REF_VOIDED, r.not_after)
    add_mix(s, mix_ref(&s.refs[slot]))
    add_ref_dues(s, slot)
    draft.move_count = 0
    return write_money(s, EV_VOIDED, &r.ref, NULL, NULL, &draft, False)


cdef int expire(State* s, uint32_t slot) except -1 nogil:
    """By tick: a pending transfer whose time is over."""
    return decide(s, slot, REF_VOIDED, True)
