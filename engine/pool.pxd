# Slot pools and the maps from keys to slots.
#
#   pool   reserved address space, cut into nodes; a freed node is the next one taken, so the working set stays small
#   map    [tag|slot] [tag|slot] [  NIL  ] …    home = tag & mask; a probe compares tags before it touches a node
#
# A pool never moves and never grows: at its capacity the caller rejects. A map doubles when half full; that is the only
# allocation after the start, at most log2(capacity) times in the life of a core. Deletion shifts the followers of the
# removed entry back to where they would be had it never been there, so no tombstone ever lengthens a probe.
# Worst case of a look-up: the longest run of a half-full table. The maps of texts that users choose are keyed with a
# secret; order of a table never shows outside.

from libc.stdlib cimport free
from libc.string cimport memset

from engine.types cimport (
    NIL, Account, Asset, Balance, ClientId, IdNode, Map, MapEntry, Market, Name, Order, Pool, Ref, State, fold,
    int64_t, region_map_dense, region_unmap, table_allocate, uint8_t, uint32_t, uint64_t,
)

# ---------------------------------------------------------------- pools


cdef inline int pool_open(Pool* pool, uint32_t node_bytes, uint32_t capacity) except -1:
    pool.nodes = <uint8_t*>region_map_dense(<size_t>node_bytes * capacity)
    if pool.nodes == NULL:
        raise MemoryError(f"no address space for {capacity} nodes of {node_bytes} bytes")
    pool.node_bytes = node_bytes
    pool.capacity = capacity
    pool.used = 0
    pool.free = NIL
    pool.free_count = 0
    return 0


cdef inline void pool_close(Pool* pool) noexcept:
    region_unmap(pool.nodes, <size_t>pool.node_bytes * pool.capacity)
    pool.nodes = NULL


cdef inline uint32_t pool_room(Pool* pool) noexcept nogil:
    return pool.capacity - pool.used + pool.free_count


cdef inline uint32_t pool_take(Pool* pool) except? 0xFFFFFFFF nogil:
    # The caller has looked at pool_room: a full pool is a reject, decided before anything changed.
    cdef uint32_t slot = pool.free
    if slot != NIL:
        pool.free = (<uint32_t*>(pool.nodes + <size_t>slot * pool.node_bytes))[0]
        pool.free_count -= 1
        return slot
    assert pool.used < pool.capacity, "a full pool was asked for a node"
    slot = pool.used
    pool.used += 1
    return slot


cdef inline void pool_give(Pool* pool, uint32_t slot) noexcept nogil:
    (<uint32_t*>(pool.nodes + <size_t>slot * pool.node_bytes))[0] = pool.free
    pool.free = slot
    pool.free_count += 1


# ---------------------------------------------------------------- maps


cdef inline int map_open(Map* table, uint32_t capacity) except -1 nogil:
    # `capacity` is a power of two.
    table.entries = <MapEntry*>table_allocate(capacity * sizeof(MapEntry))
    if table.entries == NULL:
        with gil:
            raise MemoryError(f"no memory for a map of {capacity} entries")
    memset(table.entries, 0xFF, capacity * sizeof(MapEntry))
    table.mask = capacity - 1
    table.count = 0
    return 0


cdef inline void map_close(Map* table) noexcept:
    free(table.entries)
    table.entries = NULL


cdef inline int map_grow(Map* table) except -1 nogil:
    cdef MapEntry* old = table.entries
    cdef uint32_t size = table.mask + 1, i, at
    map_open(table, size * 2)
    for i in range(size):
        if old[i].slot != NIL:
            at = old[i].tag & table.mask
            while table.entries[at].slot != NIL:
                at = (at + 1) & table.mask
            table.entries[at] = old[i]
            table.count += 1
    free(old)
    return 0


cdef inline int map_put(Map* table, uint32_t tag, uint32_t slot) except -1 nogil:
    # The key is not in the map.
    if table.count * 2 >= table.mask:
        map_grow(table)
    cdef uint32_t at = tag & table.mask
    while table.entries[at].slot != NIL:
        at = (at + 1) & table.mask
    table.entries[at].tag = tag
    table.entries[at].slot = slot
    table.count += 1
    return 0


cdef inline int map_drop(Map* table, uint32_t tag, uint32_t slot) except -1 nogil:
    cdef uint32_t mask = table.mask, hole = tag & mask, at
    while table.entries[hole].slot != slot:
        assert table.entries[hole].slot != NIL, "a map lost an entry"
        hole = (hole + 1) & mask
    at = hole
    while True:
        at = (at + 1) & mask
        if table.entries[at].slot == NIL:
            break
        # The entry at `at` may move to the hole unless its home lies after the hole.
        if ((at - table.entries[at].tag) & mask) >= ((at - hole) & mask):
            table.entries[hole] = table.entries[at]
            hole = at
    table.entries[hole].slot = NIL
    table.count -= 1
    return 0


# ---------------------------------------------------------------- keys


cdef inline uint32_t order_tag(uint64_t order_id) noexcept nogil:
    # Eight consecutive ids share a cache line of the table: new orders have consecutive ids.
    return ((<uint32_t>(fold(order_id >> 3, 0x9E3779B97F4A7C15u) & 0x1FFFFFFF)) << 3) | <uint32_t>(order_id & 7)


cdef inline uint32_t balance_tag(uint32_t account, uint32_t asset) noexcept nogil:
    return <uint32_t>fold((<uint64_t>account << 32) | asset, 0x9E3779B97F4A7C15u)


cdef inline uint32_t id_tag(State* s, uint32_t account, ClientId* client_id) noexcept nogil:
    cdef uint64_t a = fold(client_id.word[0] ^ s.secret, client_id.word[1] ^ 0xBF58476D1CE4E5B9u)
    cdef uint64_t b = fold(client_id.word[2] ^ 0x94D049BB133111EBu, client_id.word[3] ^ s.secret ^ account)
    return <uint32_t>fold(a ^ s.secret, b ^ 0x9E3779B97F4A7C15u)


cdef inline uint32_t name_tag(State* s, Name* name) noexcept nogil:
    cdef uint64_t sum = s.secret
    cdef int i
    for i in range(0, 8, 2):
        sum = fold(sum ^ name.word[i], name.word[i + 1] ^ 0x9E3779B97F4A7C15u ^ sum)
    return <uint32_t>sum


cdef inline bint same_id(ClientId* a, ClientId* b) noexcept nogil:
    return ((a.word[0] ^ b.word[0]) | (a.word[1] ^ b.word[1]) | (a.word[2] ^ b.word[2]) | (a.word[3] ^ b.word[3])) == 0


cdef inline bint same_name(Name* a, Name* b) noexcept nogil:
    cdef uint64_t difference = 0
    cdef int i
    for i in range(8):
        difference |= a.word[i] ^ b.word[i]
    return difference == 0


# ---------------------------------------------------------------- look-ups: a slot or NIL


cdef inline uint32_t find_order(State* s, uint64_t order_id) noexcept nogil:
    cdef uint32_t tag = order_tag(order_id), at = tag & s.order_map.mask
    cdef MapEntry entry
    while True:
        entry = s.order_map.entries[at]
        if entry.slot == NIL or (entry.tag == tag and s.orders[entry.slot].order_id == order_id):
            return entry.slot
        at = (at + 1) & s.order_map.mask


cdef inline uint32_t find_id(State* s, uint32_t tag, uint32_t account, ClientId* client_id) noexcept nogil:
    cdef uint32_t at = tag & s.id_map.mask
    cdef MapEntry entry
    while True:
        entry = s.id_map.entries[at]
        if entry.slot == NIL:
            return NIL
        if (
            entry.tag == tag and s.ids[entry.slot].account == account
            and same_id(&s.ids[entry.slot].client_id, client_id)
        ):
            return entry.slot
        at = (at + 1) & s.id_map.mask


cdef inline uint32_t find_poison(State* s, uint32_t account, ClientId* client_id) noexcept nogil:
    cdef uint32_t tag = id_tag(s, account, client_id), at = tag & s.poison_map.mask
    cdef MapEntry entry
    while True:
        entry = s.poison_map.entries[at]
        if entry.slot == NIL or (
            entry.tag == tag and s.poisons[entry.slot].account == account
            and same_id(&s.poisons[entry.slot].client_id, client_id)
        ):
            return entry.slot
        at = (at + 1) & s.poison_map.mask


cdef inline uint32_t find_balance(State* s, uint32_t account, uint32_t asset) noexcept nogil:
    cdef uint32_t tag = balance_tag(account, asset), at = tag & s.balance_map.mask
    cdef MapEntry entry
    while True:
        entry = s.balance_map.entries[at]
        if entry.slot == NIL or (
            entry.tag == tag and s.balances[entry.slot].account == account and s.balances[entry.slot].asset == asset
        ):
            return entry.slot
        at = (at + 1) & s.balance_map.mask


cdef inline uint32_t find_named(State* s, Map* table, Name* first, size_t stride, Name* name) noexcept nogil:
    # `first` is the name of node 0, `stride` the size of a node.
    cdef uint32_t tag = name_tag(s, name), at = tag & table.mask
    cdef MapEntry entry
    while True:
        entry = table.entries[at]
        if entry.slot == NIL or (
            entry.tag == tag and same_name(<Name*>(<uint8_t*>first + entry.slot * stride), name)
        ):
            return entry.slot
        at = (at + 1) & table.mask


cdef inline uint32_t find_asset(State* s, Name* name) noexcept nogil:
    return find_named(s, &s.asset_map, &s.assets[0].name, sizeof(Asset), name)


cdef inline uint32_t find_market(State* s, Name* name) noexcept nogil:
    return find_named(s, &s.market_map, &s.markets[0].name, sizeof(Market), name)


cdef inline uint32_t find_account(State* s, Name* name) noexcept nogil:
    return find_named(s, &s.account_map, &s.accounts[0].name, sizeof(Account), name)


cdef inline uint32_t find_ref(State* s, Name* ref) noexcept nogil:
    return find_named(s, &s.ref_map, &s.refs[0].ref, sizeof(Ref), ref)
