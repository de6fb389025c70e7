# Client ids: what answers for an order, open or closed.
#
#     place ─▶ open ──────────────────────▶ remembered ──▶ forgotten
#              │  order's newest; `next`:      account's queue (`order`) and that of all accounts (`next`, `prior`),
#              │  its older names              both oldest first
#              └─ rename: a new newest
#
# One node of 80 bytes for every id that answers. An open order points to its newest; older ones (renames) hang on `next`.
# When the order ends its nodes become remembered ids, oldest name first, in two queues: of the account (exactly the last
# `closed_ids_account`) and of all accounts (`closed_ids`); what falls out of either is forgotten. A node stays where it
# is until then, so the end of an order does not touch the map. Both queues ascend by `closing`, the number an id gets when
# it closes: so the state hash knows which is forgotten next.
#
# An order has at most OLDER_NAMES older names, and all orders together at most as many as there may be orders. So the end
# of an order closes at most 101 ids, and the pool, a node for every remembered id, every order's newest (a taker counts,
# it is refused `too_many_orders` else) and every older name, is never empty when a `place` comes: no trader's names keep
# another from trading. What one trader can use up is the older names of all: then renames are refused `busy`, no more.
#
# Most clients count: an id that comes after every id its account ever had (the longer text, or of two as long the later
# one) is new without a look-up, and is put into the map when the map's line has had time to come (`put_id`). So a `place`
# on its own waits for no line of a map. Ids in any other order are looked up, at the price of that line.
#
# Without money (`Core(risk=False)`) there are no ids: every order has NO_NAME, one node that nothing finds.

from engine.digest cimport add_mix, mix_id, remove_mix
from engine.invariants cimport require
from engine.pool cimport drop_id, id_tag, live, pool_give, pool_take, put_id
from engine.types cimport NIL, STATUS_OPEN, Account, ClientId, IdNode, State, id_after, int64_t, uint8_t, uint32_t, uint64_t


cdef inline int forget_oldest(State* s, uint32_t account) except -1 nogil:
    # The oldest remembered id of the account: forgotten as if it had never been.
    cdef Account* owner = &s.accounts[account]
    cdef uint32_t slot = owner.oldest_id
    cdef IdNode* node = &s.ids[slot]
    require(owner.closed_ids > 0 and node.account == account, "the oldest remembered id is of another account")
    owner.oldest_id = node.order
    owner.closed_ids -= 1
    if owner.closed_ids == 0:
        owner.newest_id = NIL
    if node.prior != NIL:
        s.ids[node.prior].next = node.next
    else:
        s.oldest_id = node.next
    if node.next != NIL:
        s.ids[node.next].prior = node.prior
    else:
        s.newest_id = node.prior
    s.closed_ids -= 1
    remove_mix(s, mix_id(node))
    drop_id(s, id_tag(s, account, &node.client_id), slot)
    pool_give(&s.id_pool, slot)
    return 0


cdef inline bint is_new(State* s, uint32_t account, const ClientId* client_id) noexcept nogil:
    # False tells nothing.
    return id_after(client_id.word, s.latest_ids[account].word)


cdef inline uint64_t next_closing(State* s) noexcept nogil:
    # `sequence * 2^20 + n`, n counting earlier closings of the command; beyond 2^20 of them it goes on from there. The id
    # that closed last is always remembered, for neither queue is shorter than one.
    cdef uint64_t first = s.sequence << 20
    if s.newest_id == NIL or s.ids[s.newest_id].closing < first:
        return first
    return s.ids[s.newest_id].closing + 1


cdef inline void append_closed(State* s, uint32_t slot) noexcept nogil:
    # To the end of both queues.
    cdef IdNode* node = &s.ids[slot]
    cdef Account* owner = &s.accounts[node.account]
    node.order = NIL
    if owner.closed_ids:
        s.ids[owner.newest_id].order = slot
    else:
        owner.oldest_id = slot
    owner.newest_id = slot
    owner.closed_ids += 1
    node.next = NIL
    node.prior = s.newest_id
    if s.newest_id != NIL:
        s.ids[s.newest_id].next = slot
    else:
        s.oldest_id = slot
    s.newest_id = slot
    s.closed_ids += 1


cdef inline int remember(State* s, uint32_t slot, uint8_t status, int64_t filled) except -1 nogil:
    # One id of a closed order.
    cdef IdNode* node = &s.ids[slot]
    node.status = status
    node.filled = filled
    node.closing = next_closing(s)
    append_closed(s, slot)
    add_mix(s, mix_id(node))
    if s.accounts[node.account].closed_ids > s.limits.closed_ids_account:
        forget_oldest(s, node.account)
    if s.closed_ids > s.limits.closed_ids:
        forget_oldest(s, s.ids[s.oldest_id].account)
    return 0


cdef inline int close_ids(State* s, uint32_t newest, uint8_t status, int64_t filled) except -1 nogil:
    # The ids of an order that ended: its newest, and those that hang on it.
    cdef uint32_t slot, oldest = NIL, after
    if not s.limits.risk:
        return 0
    slot = s.ids[newest].next
    # At most OLDER_NAMES hang on it: turn their chain round, then remember from the oldest to the newest.
    while slot != NIL:
        remove_mix(s, mix_id(&s.ids[slot]))
        after = s.ids[slot].next
        s.ids[slot].next = oldest
        oldest = slot
        slot = after
    while oldest != NIL:
        after = s.ids[oldest].next
        remember(s, oldest, status, filled)
        oldest = after
    return remember(s, newest, status, filled)


cdef inline uint32_t older_room(State* s) noexcept nogil:
    # How many more older names all orders together may have. Between commands: every node is of an open order or remembered.
    return s.limits.orders - (live(&s.id_pool) - s.closed_ids - live(&s.order_pool))


cdef inline uint32_t open_id(
    State* s, uint32_t tag, bint new, uint32_t account, uint32_t market, const ClientId* client_id, uint64_t order_id
) except? 0xFFFFFFFF nogil:
    # `new` is what is_new says of it.
    cdef uint32_t slot = pool_take(&s.id_pool)
    cdef IdNode* node = &s.ids[slot]
    node.client_id = client_id[0]
    node.order_id = order_id
    node.filled = 0
    node.closing = 0
    node.account = account
    node.market = market
    node.order = NIL
    node.next = NIL
    node.prior = NIL
    node.status = STATUS_OPEN
    if new:
        s.latest_ids[account] = client_id[0]
    put_id(s, tag, slot)
    return slot
