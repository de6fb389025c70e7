# Slot pools and the maps from keys to slots.
#
#   pool   reserved address space, cut into nodes; a freed node is the next one taken, so the working set stays small
#   map    groups of one cache line:  [tag ×7 | passed] [slot ×7 | –]     home = tag & mask
#
# A pool never moves and never grows: at its capacity the caller rejects. A look-up compares the seven tags of a group at
# once, without a branch for each, and touches a node only where all 32 bits of a tag agree; it goes on to the next group
# only if `passed` says that a key found no room here. Dropping a key counts `passed` down on the way, so nothing is left
# behind. A map doubles at GROUP_FILL keys a group, at most log2(capacity) times in the life of a core, and never if
# `Core.reserve` came before: into address space that the core has from its start, so that no command can lack memory.
# Worst case of a look-up: the longest run of full groups. The maps of texts that users choose are keyed with a
# secret; order of a table never shows outside.

from libc.string cimport memcpy, memset

from engine.invariants cimport require
from engine.types cimport (
    CHAIN_MAX, GROUP_ROOM, LINK_END, LINK_SLOT, NIL, NO_ANNEX, WINDOW, WINDOW_BITS, Account, Annex, Asset, Balance, ClientId, Group, Map,
    LATE, Market, Name, Order, Pool, Recent, Ref, State, fold, lowest_bit, match_eight, match_tags, prefetch_line, rarely,
    region_forget, region_map_dense, region_touch, region_unmap, table_region, uint8_t, uint32_t, uint64_t,
)

cdef enum:
    GROUP_FILL = 5  # keys a group holds on average before the map doubles
    FIRST_GROUPS = 64  # of an empty map: a page

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


cdef inline void pool_touch(Pool* pool, uint32_t count) noexcept nogil:
    # The memory of the next `count` nodes.
    if count > pool.capacity - pool.used:
        count = pool.capacity - pool.used
    region_touch(pool.nodes + <size_t>pool.used * pool.node_bytes, <size_t>count * pool.node_bytes)


cdef inline uint32_t live(Pool* pool) noexcept nogil:
    return pool.used - pool.free_count


cdef inline uint32_t pool_room(Pool* pool) noexcept nogil:
    return pool.capacity - pool.used + pool.free_count


cdef inline uint32_t pool_take(Pool* pool) except? 0xFFFFFFFF nogil:
    # The caller has looked at pool_room: a full pool is a reject, decided before anything changed.
    cdef uint32_t slot = pool.free
    if slot != NIL:
        pool.free = (<uint32_t*>(pool.nodes + <size_t>slot * pool.node_bytes))[0]
        pool.free_count -= 1
        return slot
    require(pool.used < pool.capacity, "a full pool was asked for a node")
    slot = pool.used
    pool.used += 1
    return slot


cdef inline void pool_give(Pool* pool, uint32_t slot) noexcept nogil:
    (<uint32_t*>(pool.nodes + <size_t>slot * pool.node_bytes))[0] = pool.free
    pool.free = slot
    pool.free_count += 1


# ---------------------------------------------------------------- maps


cdef inline uint64_t groups_for(uint64_t keys) noexcept nogil:
    # How many groups a map has with so many keys.
    cdef uint64_t groups = FIRST_GROUPS
    while keys > groups * GROUP_FILL:
        groups *= 2
    return groups


cdef inline void map_start(Map* table, Group* groups, uint64_t count) noexcept nogil:
    # An empty table of so many groups. They are zeros already; written once more they cost nothing later.
    memset(groups, 0, count * sizeof(Group))
    table.groups = groups
    table.mask = <uint32_t>(count - 1)
    table.count = 0
    table.full = <uint32_t>(count * GROUP_FILL) if count <= NIL // GROUP_FILL else NIL


cdef inline int map_open(Map* table, uint64_t keys) except -1:
    # Empty, for at most so many keys.
    cdef Group* region
    table.most = groups_for(keys)
    region = <Group*>table_region(2 * table.most * sizeof(Group))
    if region == NULL:
        raise MemoryError(f"no address space for a map of {keys} keys")
    map_start(table, region + FIRST_GROUPS, FIRST_GROUPS)
    return 0


cdef inline Group* map_region(Map* table) noexcept nogil:
    return table.groups - table.mask - 1


cdef inline void map_close(Map* table) noexcept:
    if table.groups != NULL:
        region_unmap(map_region(table), 2 * table.most * sizeof(Group))
        table.groups = NULL


cdef inline void map_insert(Map* table, uint32_t tag, uint32_t slot) noexcept nogil:
    cdef Group* group = &table.groups[tag & table.mask]
    cdef uint32_t at = tag, room = match_tags(group.tag, 0)
    while room == 0:
        group.tag[GROUP_ROOM] += 1
        at += 1
        group = &table.groups[at & table.mask]
        room = match_tags(group.tag, 0)
    room = lowest_bit(room)
    group.tag[room] = tag
    group.slot[room] = slot
    table.count += 1


cdef inline int map_resize(Map* table, uint64_t groups) except -1 nogil:
    # To a larger power of two.
    cdef Group* old = table.groups
    cdef uint64_t size = <uint64_t>table.mask + 1, i
    cdef uint32_t lane
    require(groups <= table.most, "a map has more keys than it was opened for")
    map_start(table, map_region(table) + groups, groups)
    for i in range(size):
        for lane in range(<uint32_t>GROUP_ROOM):
            if old[i].tag[lane]:
                map_insert(table, old[i].tag[lane], old[i].slot[lane])
    region_forget(old, size * sizeof(Group))
    return 0


cdef inline int map_reserve(Map* table, uint64_t count) except -1 nogil:
    # Room for `count` keys in all.
    cdef uint64_t groups = groups_for(count)
    if groups > <uint64_t>table.mask + 1:
        map_resize(table, groups)
    return 0


cdef inline int map_put(Map* table, uint32_t tag, uint32_t slot) except -1 nogil:
    # The key is not in the map.
    if rarely(table.count >= table.full):
        map_resize(table, 2 * (<uint64_t>table.mask + 1))
    map_insert(table, tag, slot)
    return 0


cdef inline int map_drop(Map* table, uint32_t tag, uint32_t slot) except -1 nogil:
    cdef Group* group
    cdef uint32_t at = tag, lanes
    while True:
        group = &table.groups[at & table.mask]
        lanes = match_tags(group.tag, tag)
        while lanes and group.slot[lowest_bit(lanes)] != slot:
            lanes &= lanes - 1
        if lanes:
            break
        require(group.tag[GROUP_ROOM] > 0, "a map lost an entry")
        group.tag[GROUP_ROOM] -= 1
        at += 1
    group.tag[lowest_bit(lanes)] = 0
    table.count -= 1
    return 0


cdef inline uint64_t map_places(Map* table) noexcept nogil:
    # How many positions `map_at` knows.
    return (<uint64_t>table.mask + 1) * GROUP_ROOM


cdef inline uint32_t map_at(Map* table, uint64_t place) noexcept nogil:
    # The slot that stands at a position, or NIL.
    cdef Group* group = &table.groups[place // GROUP_ROOM]
    return group.slot[place % GROUP_ROOM] if group.tag[place % GROUP_ROOM] else NIL


# ---------------------------------------------------------------- keys


cdef inline uint32_t tag_of(uint64_t hash) noexcept nogil:
    # 0 marks an empty place.
    return <uint32_t>hash + (<uint32_t>hash == 0)


cdef inline uint32_t order_tag(uint64_t order_id) noexcept nogil:
    return tag_of(fold(order_id, 0x9E3779B97F4A7C15u))


cdef inline uint32_t balance_tag(uint32_t account, uint32_t asset) noexcept nogil:
    return tag_of(fold((<uint64_t>account << 32) | asset, 0x9E3779B97F4A7C15u))


cdef inline uint32_t id_tag(State* s, uint32_t account, const ClientId* client_id) noexcept nogil:
    cdef uint64_t a = fold(client_id.word[0] ^ s.secret, client_id.word[1] ^ 0xBF58476D1CE4E5B9u)
    cdef uint64_t b = fold(client_id.word[2] ^ 0x94D049BB133111EBu, client_id.word[3] ^ s.secret ^ account)
    return tag_of(fold(a ^ s.secret, b ^ 0x9E3779B97F4A7C15u))


cdef inline uint32_t name_tag(State* s, Name* name) noexcept nogil:
    cdef uint64_t sum = s.secret
    cdef int i
    for i in range(0, 8, 2):
        sum = fold(sum ^ name.word[i], name.word[i + 1] ^ 0x9E3779B97F4A7C15u ^ sum)
    return tag_of(sum)


cdef inline bint is_empty(const void* text) noexcept nogil:
    # Of every text of a record, client id, name or ref: whether there is none. Its first byte decides (layout.py).
    return (<const uint8_t*>text)[0] == 0


cdef inline bint same_id(const ClientId* a, const ClientId* b) noexcept nogil:
    return ((a.word[0] ^ b.word[0]) | (a.word[1] ^ b.word[1]) | (a.word[2] ^ b.word[2]) | (a.word[3] ^ b.word[3])) == 0


cdef inline bint same_name(Name* a, Name* b) noexcept nogil:
    cdef uint64_t difference = 0
    cdef int i
    for i in range(8):
        difference |= a.word[i] ^ b.word[i]
    return difference == 0


# ---------------------------------------------------------------- open orders by id
#
#   window   [slot + 1 | age] by the low bits of the id: neighbours in time share a cache line, nothing is probed
#   map      the open orders whose place in the window a younger one took
#
# An entry of the window may outlive its order: it holds only while the order in that slot has that id, and an order
# that ends loses its id. So the end of a young order does not touch the window.


cdef inline uint64_t recent_id(const Recent* place, uint64_t low) noexcept nogil:
    return <uint64_t>place.age << WINDOW_BITS | (low & (WINDOW - 1))


cdef inline bint holds(State* s, const Recent* place, uint64_t order_id) noexcept nogil:
    # Whether that place of the window leads to the open order with that id.
    return (
        place.slot != 0 and place.age == order_id >> WINDOW_BITS and s.orders[place.slot - 1].order_id == order_id
    )


cdef inline int index_order(State* s, uint64_t order_id, uint32_t slot) except -1 nogil:
    # The order in `slot` has its id already.
    cdef Recent* place = &s.window[order_id & (WINDOW - 1)]
    cdef uint64_t before = recent_id(place, order_id)
    if holds(s, place, before):
        if before > order_id:
            return map_put(&s.order_map, order_tag(order_id), slot)
        map_put(&s.order_map, order_tag(before), place.slot - 1)
    place.slot = slot + 1
    place.age = <uint32_t>(order_id >> WINDOW_BITS)
    return 0


cdef inline int unindex_order(State* s, Order* order, uint32_t slot) except -1 nogil:
    cdef uint64_t order_id = order.order_id
    if s.sequence - order_id >= WINDOW and s.window[order_id & (WINDOW - 1)].slot != slot + 1:
        map_drop(&s.order_map, order_tag(order_id), slot)
    order.order_id = 0
    return 0


# ---------------------------------------------------------------- look-ups: a slot or NIL

# Where a look-up stands: a key of that tag may be in the lanes that are left, or further on.
ctypedef struct Probe:
    Group* group
    uint32_t tag, at, lanes


cdef inline uint32_t next_with_tag(Map* table, Probe* probe) noexcept nogil:
    # The next slot whose key has the tag, or NIL.
    cdef uint32_t slot
    while probe.lanes == 0:
        if probe.group.tag[GROUP_ROOM] == 0:
            return NIL
        probe.at += 1
        probe.group = &table.groups[probe.at & table.mask]
        probe.lanes = match_tags(probe.group.tag, probe.tag)
    slot = probe.group.slot[lowest_bit(probe.lanes)]
    probe.lanes &= probe.lanes - 1
    return slot


cdef inline uint32_t first_with_tag(Map* table, uint32_t tag, Probe* probe) noexcept nogil:
    probe.tag = probe.at = tag
    probe.group = &table.groups[tag & table.mask]
    probe.lanes = match_tags(probe.group.tag, tag)
    return next_with_tag(table, probe)


cdef inline uint32_t find_order(State* s, uint64_t order_id) noexcept nogil:
    cdef Recent* place = &s.window[order_id & (WINDOW - 1)]
    cdef uint32_t slot
    cdef Probe probe
    if holds(s, place, order_id):
        return place.slot - 1
    slot = first_with_tag(&s.order_map, order_tag(order_id), &probe)
    while slot != NIL and not (s.orders[slot].order_id == order_id):
        slot = next_with_tag(&s.order_map, &probe)
    return slot


cdef inline bint is_id(State* s, uint32_t slot, uint32_t account, const ClientId* client_id) noexcept nogil:
    return s.ids[slot].account == account and same_id(&s.ids[slot].client_id, client_id)


cdef inline uint32_t find_id(State* s, uint32_t tag, uint32_t account, const ClientId* client_id) noexcept nogil:
    cdef Probe probe
    cdef uint32_t slot, lanes = match_eight(s.late_tags, tag)
    while rarely(lanes):
        slot = s.late_slots[lowest_bit(lanes)]
        if is_id(s, slot, account, client_id):
            return slot
        lanes &= lanes - 1
    slot = first_with_tag(&s.id_map, tag, &probe)
    while slot != NIL and not is_id(s, slot, account, client_id):
        slot = next_with_tag(&s.id_map, &probe)
    return slot


cdef inline int put_id(State* s, uint32_t tag, uint32_t slot) except -1 nogil:
    # The map's line is asked for now and written LATE ids later: a single command need not wait for it.
    cdef uint32_t at = s.late_next
    if rarely(s.id_map.count + LATE >= s.id_map.full):
        map_resize(&s.id_map, 2 * (<uint64_t>s.id_map.mask + 1))
    prefetch_line(&s.id_map.groups[tag & s.id_map.mask])
    if s.late_tags[at]:
        map_insert(&s.id_map, s.late_tags[at], s.late_slots[at])
    s.late_tags[at] = tag
    s.late_slots[at] = slot
    s.late_next = (at + 1) % LATE
    return 0


cdef inline int drop_id(State* s, uint32_t tag, uint32_t slot) except -1 nogil:
    cdef uint32_t lanes = match_eight(s.late_tags, tag)
    while rarely(lanes):
        if s.late_slots[lowest_bit(lanes)] == slot:
            s.late_tags[lowest_bit(lanes)] = 0
            return 0
        lanes &= lanes - 1
    return map_drop(&s.id_map, tag, slot)


cdef inline uint32_t find_poison(State* s, uint32_t account, const ClientId* client_id) noexcept nogil:
    cdef Probe probe
    cdef uint32_t slot = first_with_tag(&s.poison_map, id_tag(s, account, client_id), &probe)
    while slot != NIL and not (s.poisons[slot].account == account and same_id(&s.poisons[slot].client_id, client_id)):
        slot = next_with_tag(&s.poison_map, &probe)
    return slot


cdef inline uint32_t owner_of(State* s, uint32_t balance) noexcept nogil:
    # The account whose balance that is.
    cdef uint32_t link = s.balances[balance].link
    while not link & LINK_END:
        link = s.balances[link & LINK_SLOT].link
    return link & LINK_SLOT


cdef inline uint32_t find_balance(State* s, uint32_t account, uint32_t asset) noexcept nogil:
    cdef uint32_t link = s.accounts[account].first_balance, length = 0
    while not link & LINK_END:
        if s.balances[link & LINK_SLOT].asset == asset:
            return link & LINK_SLOT
        link = s.balances[link & LINK_SLOT].link
        length += 1
    return NIL if length < CHAIN_MAX else find_beyond(s, account, asset)


cdef inline uint32_t find_beyond(State* s, uint32_t account, uint32_t asset) noexcept nogil:
    # Of an account whose chain is full.
    cdef Probe probe
    cdef uint32_t slot = first_with_tag(&s.balance_map, balance_tag(account, asset), &probe)
    while slot != NIL and not (s.balances[slot].asset == asset and s.balances[slot].link & LINK_SLOT == account):
        slot = next_with_tag(&s.balance_map, &probe)
    return slot


cdef inline int link_balance(State* s, uint32_t account, uint32_t slot) except -1 nogil:
    # A balance that has its asset becomes the account's: first of its chain, or in the map if that is full.
    cdef Balance* balance = &s.balances[slot]
    cdef uint32_t* first = &s.accounts[account].first_balance
    cdef uint32_t link = first[0], length = 0
    while not link & LINK_END:
        link = s.balances[link & LINK_SLOT].link
        length += 1
    balance.link = LINK_END | account
    if length == CHAIN_MAX:
        return map_put(&s.balance_map, balance_tag(account, balance.asset), slot)
    if length != 0:
        balance.link = first[0]
    first[0] = slot
    return 0


cdef inline uint32_t find_named(State* s, Map* table, Name* first, size_t stride, Name* name) noexcept nogil:
    # `first` is the name of node 0, `stride` the size of a node.
    cdef Probe probe
    cdef uint32_t slot = first_with_tag(table, name_tag(s, name), &probe)
    while slot != NIL and not (same_name(<Name*>(<uint8_t*>first + slot * stride), name)):
        slot = next_with_tag(table, &probe)
    return slot


cdef inline uint32_t find_asset(State* s, Name* name) noexcept nogil:
    return find_named(s, &s.asset_map, &s.assets[0].name, sizeof(Asset), name)


cdef inline uint32_t find_market(State* s, Name* name) noexcept nogil:
    return find_named(s, &s.market_map, &s.markets[0].name, sizeof(Market), name)


cdef inline uint32_t find_ref(State* s, Name* ref) noexcept nogil:
    return find_named(s, &s.ref_map, &s.refs[0].ref, sizeof(Ref), ref)


cdef inline uint8_t words_of(const Name* name) noexcept nogil:
    # How many of its words are left without the zeros at the end.
    cdef uint8_t count = 8
    while count and name.word[count - 1] == 0:
        count -= 1
    return count


cdef inline bint has_name(State* s, const Account* account, const Name* name) noexcept nogil:
    cdef const uint64_t* words = &s.account_names[account.name]
    cdef uint64_t difference = 0
    cdef uint8_t i
    for i in range(account.name_words):
        difference |= words[i] ^ name.word[i]
    return difference == 0 and account.name_words == words_of(name)


cdef inline void account_name(State* s, uint32_t index, Name* name) noexcept nogil:
    memset(name, 0, sizeof(Name))
    memcpy(name, &s.account_names[s.accounts[index].name], s.accounts[index].name_words * sizeof(uint64_t))


cdef inline int name_account(State* s, uint32_t index, const Name* name) except -1 nogil:
    # A new account is found by its name from now on.
    cdef Account* account = &s.accounts[index]
    account.name = s.account_name_words
    account.name_words = words_of(name)
    memcpy(&s.account_names[account.name], name, account.name_words * sizeof(uint64_t))
    s.account_name_words += account.name_words
    return map_put(&s.account_map, name_tag(s, <Name*>name), index)


cdef inline uint32_t find_account(State* s, Name* name) noexcept nogil:
    cdef Probe probe
    cdef uint32_t slot = first_with_tag(&s.account_map, name_tag(s, name), &probe)
    while slot != NIL and not (has_name(s, &s.accounts[slot], name)):
        slot = next_with_tag(&s.account_map, &probe)
    return slot


# ---------------------------------------------------------------- what few accounts have


cdef inline const Annex* annex_of(State* s, uint32_t account) noexcept nogil:
    return &s.annexes[s.accounts[account].annex]


cdef inline Annex* own_annex(State* s, uint32_t account) except NULL nogil:
    # To be written to. There are as many as accounts, and the one of zeros.
    cdef Account* owner = &s.accounts[account]
    if owner.annex == NO_ANNEX:
        owner.annex = pool_take(&s.annex_pool)
        memset(&s.annexes[owner.annex], 0, sizeof(Annex))
    return &s.annexes[owner.annex]
