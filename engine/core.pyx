"""The core: commands in, events out.

    record ─▶ sequence and time ─▶ matching, scopes, phases, transfers, listing, timers ─▶ event slots
                                                    │
                                                    └─▶ state, dirty lists ─▶ state_hash (at a cut, or when asked)

Owns all state of the exchange and nothing else: no clock, no I/O, no randomness that shows (a secret per process keys the
hash maps of user-chosen texts; no event depends on it). The same records give the same events and the same hash.

Not checked here: crc and hash chain of a record, which are the journal's; names and JSON, which are the wire's.
"""

import hashlib
import os

import numpy as np

from engine.limits import CoreLimits
from engine.messages import layout

cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_Clear
from cpython.pycapsule cimport PyCapsule_New
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen

from engine.ahead cimport AHEAD, CACHED_ORDERS, Ahead, begin, glance, known_tag, look
from engine.amend cimport replace
from engine.audit cimport audit
from engine.bounds cimport bound_of
from engine.cancel cimport cancel
from engine.digest cimport add_mix, mix_account, state_sum
from engine.events cimport add_event, add_rejected
from engine.auction cimport Finding, find_price
from engine.listing cimport (
    do_account, do_asset, do_market, open_account, write_done_account, write_done_asset, write_done_market,
)
from engine.place cimport place
from engine.phases cimport do_phase, do_uncross
from engine.pool cimport (
    account_name, find_account, find_asset, find_balance, find_id, find_market, find_order, find_poison, id_tag, live,
    map_close, map_open, map_reserve, owner_of, pool_close, pool_open, pool_room, pool_take, pool_touch,
)
from engine.scopes cimport do_cancel_after, do_kill, do_poison, mass_cancel
from engine.snapshot cimport (
    Stream, read_state, stream_close, stream_finish, stream_open, stream_put, write_state,
)
from engine.book cimport next_worse
from engine.risk cimport order_hold, whole_leaves
from engine.stops cimport collect_waiting
from engine.timers cimport next_due, tick
from engine.transfers cimport do_money, do_post, do_void
from engine.types cimport *
from engine.windows cimport close_window

__all__ = ["BALANCES", "Core", "CoreLimits", "OPEN_ORDERS"]

cnp.import_array()

cdef cnp.dtype EVENT = layout.EVENT

cdef const char* MAGIC = "BYLINE core snapshot 7\n"
SNAPSHOT_MAGIC = <bytes>MAGIC

cdef enum:
    MAPS = 9
    WIDE_WINDOWS = 1 << 20  # bytes
    MARKS_MORE = 4  # marks beyond one a fill: of the trade that came before, of an uncross

BALANCES = np.dtype([("account", "<u4"), ("asset", "<u4"), ("available", "<i8"), ("held", "<i8")])
OPEN_ORDERS = layout.OPEN_ORDERS

ctypedef struct OrderRow:
    uint64_t order_id
    uint32_t account, market
    ClientId client_id
    int64_t price, size, leaves, hold
    uint64_t join, session
    uint8_t side, type, tif, flags, status
    uint8_t pad[3]
    int64_t stop_price, display_size, displayed, expires_at
    uint64_t oco

assert sizeof(OrderRow) == OPEN_ORDERS.itemsize
assert sizeof(Account) == 64 and sizeof(Half) == 64 and sizeof(Market) == 384 and sizeof(Balance) == 24


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
    # Its events go behind those that stand in `s.out`; `tag` is that of the client id at words 5 … 8, whatever the kind.
    cdef uint8_t kind = r.kind
    assert r.sequence == s.sequence + 1, "a record out of sequence"
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
    assert s.broken >= 0, "an amount below zero: a hold without cover, a fill beyond its hold, or a level that lost count"
    return 0


cdef inline void open_out(State* s, Event* out, Py_ssize_t capacity) noexcept nogil:
    # Where the events of what comes go, and the room there.
    s.out = out
    s.out_capacity = <uint32_t>capacity if capacity < <Py_ssize_t>NIL else NIL
    s.out_used = 0


cdef int apply_one(State* s, const Record* r, Event* out, Py_ssize_t capacity, uint32_t tag) except -1 nogil:
    # `capacity` is at least bound_of.
    open_out(s, out, capacity)
    return apply_next(s, r, tag)


cdef inline bint fits(State* s, const Record* r, Py_ssize_t room, Py_ssize_t plenty) noexcept nogil:
    # Whether bound_of is at most `room`. Where even a walk through all orders would fit, place, cancel and replace need
    # not be told apart, which nobody can predict.
    if (
        room >= plenty and s.stop_count + s.iceberg_count == 0 and <uint8_t>(r.kind - DO_PLACE) <= DO_REPLACE - DO_PLACE
        and ((r.kind != DO_PLACE) | ((<const PlaceRecord*>r).type == LIMIT))
    ):
        return True
    return bound_of(s, r) <= room


cdef int apply_all(
    State* s, const Record* records, Py_ssize_t* at, Py_ssize_t end, Event* out, Py_ssize_t capacity, Py_ssize_t* used
) except -1 nogil:
    # Records from `at[0]` on while `out` has room; `at` and `used` say how far it came, also where it raises.
    cdef Ahead ahead[AHEAD]
    cdef Py_ssize_t start = at[0], now = start
    cdef Py_ssize_t plenty = 16 + 3 * (<Py_ssize_t>live(&s.order_pool) + end - start)
    cdef bint deep = live(&s.order_pool) > CACHED_ORDERS
    cdef const Record* r
    open_out(s, out, capacity)
    begin(s, records, start, end, deep, ahead)
    while now < end:
        r = &records[now]
        if r.slots == 0 or now + r.slots > end or r.sequence != s.sequence + 1:
            if s.out_used != 0 or now != start:
                break  # what is done is told first
            assert r.slots == 0 or r.slots > end - now, "a record out of sequence"
            with gil:
                raise ValueError(f"the record at slot {now} is not as long as it says")
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
    return 0


cdef inline void collapse_pool(Pool* pool) noexcept nogil:
    region_collapse(pool.nodes, <size_t>pool.used * pool.node_bytes)


cdef inline void collapse_map(Map* table) noexcept nogil:
    region_collapse(table.groups, (<size_t>table.mask + 1) * sizeof(Group))


cdef extern from "numpy/arrayobject.h":
    cnp.ndarray PyArray_NewFromDescr(
        type subtype, cnp.dtype descr, int dimensions, cnp.npy_intp* shape, cnp.npy_intp* strides, void* data, int flags,
        object prototype
    )


cdef cnp.ndarray events_of(const uint8_t* slots, Py_ssize_t count):
    # A read-only copy, as np.frombuffer over bytes makes it, without the price of a Python call.
    cdef cnp.npy_intp shape = count
    cdef bytes copy = PyBytes_FromStringAndSize(<const char*>slots, count * SLOT_BYTES)
    cdef cnp.ndarray events
    Py_INCREF(EVENT)  # the array takes a reference
    events = PyArray_NewFromDescr(
        cnp.ndarray, EVENT, 1, &shape, NULL, PyBytes_AS_STRING(copy), cnp.NPY_ARRAY_CARRAY_RO, None
    )
    cnp.set_array_base(events, copy)
    return events


cdef class Core:
    """All state of the exchange, and `apply`.

    Args:
        limits: bounds of tables and pools; `CoreLimits()` if None.
        risk: False leaves matching alone, for comparison with bare books. Off: balances, holds and fees (orders need no
            money, amounts in events are 0), client ids (orders answer to their order_id only, a repeated place is a new
            order), and the state hash of orders and markets. The rest is the same code. No snapshots.
    """

    def __cinit__(self):
        self.state = <State*>calloc(1, sizeof(State))
        if self.state == NULL:
            raise MemoryError("no memory for a core")

    def __init__(self, limits=None, *, bint risk=True):
        if self.state.accounts != NULL:
            raise RuntimeError("a Core is initialised once")
        self._start(CoreLimits() if limits is None else limits, risk)
        cdef State* s = self.state
        cdef Name name
        cdef bytes text
        for text in (b"system:external", b"system:fees"):
            memset(&name, 0, sizeof(Name))
            memcpy(&name, <const char*>text, len(text))
            index = open_account(s, &name, OPEN_OVERDRAFT)
            add_mix(s, mix_account(s, index))

    cdef int _start(self, object limits, bint risk) except -1:
        # Reserves everything; leaves an empty core without the two system accounts.
        cdef State* s = self.state
        cdef Limits* l = &s.limits
        self._limits = limits
        l.accounts = limits.accounts
        l.markets = limits.markets
        l.assets = limits.assets
        l.balances = limits.balances
        l.orders = limits.orders
        l.closed_ids = limits.client_ids_total
        l.closed_ids_account = limits.client_ids_per_account
        # Remembered ones, newest and older ones of orders: never short for a `place` (ids.pxd).
        l.ids = limits.client_ids_total + 2 * limits.orders
        l.refs = limits.refs
        l.postings = limits.postings
        l.poisons = limits.poisons
        l.max_price = limits.max_price_ticks
        l.max_fills = limits.max_fills_per_command
        l.risk = risk
        s.batch_first = 1
        s.oldest_id = NIL
        s.newest_id = NIL
        s.secret = int.from_bytes(os.urandom(8), "little")
        s.assets = <Asset*>region_map(<size_t>l.assets * sizeof(Asset))
        s.markets = <Market*>region_map_dense(<size_t>l.markets * sizeof(Market))
        s.accounts = <Account*>region_map_dense(<size_t>l.accounts * sizeof(Account))
        s.account_names = <uint64_t*>region_map_dense(<size_t>l.accounts * sizeof(Name))
        s.latest_ids = <ClientId*>region_map_dense(<size_t>l.accounts * sizeof(ClientId))
        s.balances = <Balance*>region_map_dense(<size_t>l.balances * sizeof(Balance))
        s.details = <OrderDetail*>region_map_dense(<size_t>l.orders * sizeof(OrderDetail))
        s.window = <Recent*>region_map_dense(WINDOW * sizeof(Recent))
        # Enough for 4,096 prices in each half, where the address space is not too much for that.
        s.windows_size = min(<size_t>l.markets << 18, <size_t>1 << 37)
        s.windows = <uint8_t*>region_map_dense(s.windows_size)
        for shift in range(LARGEST_SHIFT + 1):
            s.free_windows[shift] = NIL
        s.due_capacity = 1024
        s.due = <Due*>malloc(s.due_capacity * sizeof(Due))
        for side in range(2):
            s.marks[side] = <int64_t*>region_map((<size_t>l.max_fills + MARKS_MORE) * sizeof(int64_t))
        s.scratch_capacity = 1024
        s.scratch = <SortItem*>malloc(s.scratch_capacity * sizeof(SortItem))
        s.rests = <Rest*>region_map(<size_t>l.max_fills * sizeof(Rest))
        s.dirty_orders = <uint32_t*>malloc(DIRTY_LIMIT * sizeof(uint32_t))
        s.dirty_balances = <uint32_t*>malloc(DIRTY_LIMIT * sizeof(uint32_t))
        s.dirty_markets = <uint32_t*>malloc(DIRTY_LIMIT * sizeof(uint32_t))
        if (
            s.assets == NULL or s.markets == NULL or s.accounts == NULL or s.account_names == NULL or s.balances == NULL
            or s.details == NULL or s.due == NULL or s.scratch == NULL or s.dirty_orders == NULL or s.dirty_balances == NULL
            or s.dirty_markets == NULL or s.window == NULL or s.marks[BUY] == NULL or s.marks[SELL] == NULL
            or s.rests == NULL or s.windows == NULL or s.latest_ids == NULL
        ):
            raise MemoryError("no memory for the tables of a core")
        pool_open(&s.annex_pool, sizeof(Annex), l.accounts + 1)
        pool_open(&s.order_pool, sizeof(Order), l.orders)
        pool_open(&s.terms_pool, sizeof(Terms), l.orders)
        pool_open(&s.id_pool, sizeof(IdNode), l.ids)
        pool_open(&s.poison_pool, sizeof(Poison), l.poisons)
        pool_open(&s.ref_pool, sizeof(Ref), l.refs)
        pool_open(&s.posting_pool, sizeof(Posting), l.postings)
        pool_open(&s.group_pool, sizeof(Name), 2 * l.accounts)
        s.annexes = <Annex*>s.annex_pool.nodes
        memset(&s.annexes[pool_take(&s.annex_pool)], 0, sizeof(Annex))
        s.orders = <Order*>s.order_pool.nodes
        s.terms = <Terms*>s.terms_pool.nodes
        s.ids = <IdNode*>s.id_pool.nodes
        s.poisons = <Poison*>s.poison_pool.nodes
        s.refs = <Ref*>s.ref_pool.nodes
        s.postings = <Posting*>s.posting_pool.nodes
        for table in range(MAPS):
            map_open(maps(s)[table], 64)
        if not risk:
            memset(&s.ids[pool_take(&s.id_pool)], 0, sizeof(IdNode))
            s.ids[NO_NAME].next = NIL
        self.next_due = INT64_MAX
        return 0

    def __dealloc__(self):
        cdef State* s = self.state
        cdef uint32_t i
        if s == NULL:
            return
        for i in range(s.market_count):
            close_window(&s.markets[i].half[BUY])
            close_window(&s.markets[i].half[SELL])
        region_unmap(s.assets, <size_t>s.limits.assets * sizeof(Asset))
        region_unmap(s.markets, <size_t>s.limits.markets * sizeof(Market))
        region_unmap(s.windows, s.windows_size)
        region_unmap(s.accounts, <size_t>s.limits.accounts * sizeof(Account))
        region_unmap(s.account_names, <size_t>s.limits.accounts * sizeof(Name))
        region_unmap(s.latest_ids, <size_t>s.limits.accounts * sizeof(ClientId))
        region_unmap(s.balances, <size_t>s.limits.balances * sizeof(Balance))
        region_unmap(s.details, <size_t>s.limits.orders * sizeof(OrderDetail))
        region_unmap(s.window, WINDOW * sizeof(Recent))
        pool_close(&s.annex_pool)
        pool_close(&s.order_pool)
        pool_close(&s.terms_pool)
        pool_close(&s.id_pool)
        pool_close(&s.poison_pool)
        pool_close(&s.ref_pool)
        pool_close(&s.posting_pool)
        pool_close(&s.group_pool)
        for i in range(<uint32_t>MAPS):
            map_close(maps(s)[i])
        for i in range(2):
            region_unmap(s.marks[i], (<size_t>s.limits.max_fills + MARKS_MORE) * sizeof(int64_t))
        region_unmap(s.rests, <size_t>s.limits.max_fills * sizeof(Rest))
        free(s.due)
        free(self._buffer)
        free(s.scratch)
        free(s.dirty_orders)
        free(s.dirty_balances)
        free(s.dirty_markets)
        free(s)
        self.state = NULL

    def reserve(self, uint32_t orders, client_ids=None):
        """Bring in the memory of that many more open orders and client ids now (as many ids as orders if not given).

        The first touch of a page and the doubling of a map then do not fall into the commands to come. Changes neither
        the state nor any limit. Raises MemoryError if there is none.
        """
        cdef State* s = self.state
        cdef uint32_t ids = min(<uint32_t>(orders if client_ids is None else client_ids), pool_room(&s.id_pool))
        cdef size_t windows
        orders = min(orders, s.limits.orders - s.order_pool.used)
        pool_touch(&s.order_pool, orders)
        region_touch(&s.details[s.order_pool.used], <size_t>orders * sizeof(OrderDetail))
        region_touch(s.window, WINDOW * sizeof(Recent))
        # For each of these orders in a half of its own the usual window, and some that are wider.
        windows = (min(<size_t>orders, 2 * <size_t>s.market_count) << 10) + WIDE_WINDOWS
        region_touch(s.windows + s.windows_used, min(s.windows_size - s.windows_used, windows))
        if s.limits.risk:
            pool_touch(&s.id_pool, ids)
            map_reserve(&s.id_map, <uint64_t>s.id_map.count + LATE + ids)

    # ------------------------------------------------------------ apply

    cdef Py_ssize_t slots_bound(self, const uint8_t* record) noexcept nogil:
        return bound_of(self.state, <const Record*>record)

    cdef Py_ssize_t apply_record(self, const uint8_t* record, uint8_t* out, Py_ssize_t out_slots) except -1 nogil:
        cdef State* s = self.state
        cdef const CancelRecord* r = <const CancelRecord*>record
        cdef Py_ssize_t bound = bound_of(s, <const Record*>record)
        if out_slots < bound:
            with gil:
                raise BufferError(f"{out_slots} slots for up to {bound} event slots")
        # Held to the promise, not to the room: a bound that is too small is found here, and not where room is short.
        apply_one(s, <const Record*>record, <Event*>out, bound, id_tag(s, r.account, &r.client_id))
        self._publish()
        return s.out_used

    cdef inline void _publish(self) noexcept nogil:
        # What others read of the state as it is now.
        cdef State* s = self.state
        self.sequence = s.sequence
        self.time = s.time
        self.batch = s.batch
        if s.due_count or self.next_due != INT64_MAX:
            self.next_due = next_due(s)

    cdef object _slots(self, Py_ssize_t bound, const uint8_t* record):
        # Applies one record into the core's own buffer, and hands out a copy of what was written.
        cdef Py_ssize_t used
        if bound > self._buffer_slots:
            free(self._buffer)
            self._buffer_slots = 0
            self._buffer = <uint8_t*>malloc(2 * bound * SLOT_BYTES)
            if self._buffer == NULL:
                raise MemoryError(f"no memory for {bound} event slots")
            self._buffer_slots = 2 * bound
        used = self.apply_record(record, self._buffer, self._buffer_slots)
        return events_of(self._buffer, used)

    def apply(self, record):
        """Apply one record (bytes or another buffer of whole slots); its events as a read-only array of layout.EVENT.

        Raises:
            ValueError: the buffer is not the record that its `slots` says.
            AssertionError: the record's sequence is not the next one, or an invariant broke. The core is then unusable.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            if view.len < SLOT_BYTES or view.len != (<const uint8_t*>view.buf)[5] * SLOT_BYTES:
                raise ValueError(f"a record of {view.len} bytes is not as long as it says")
            return self._slots(bound_of(self.state, <const Record*>view.buf), <const uint8_t*>view.buf)
        finally:
            PyBuffer_Release(&view)

    def apply_batch(self, records, out, Py_ssize_t start=0, stop=None):
        """Apply the records in slots `start` … `stop` of an array; their events into `out`, from its first slot.

        Args:
            records: contiguous array of slots (any layout dtype) holding whole records.
            out: writable contiguous array of slots.

        Returns:
            (index of the first slot not applied, slots of `out` used). It stops early where `out` might be too small for
            the next record; no progress at all means that `out` is too small for that one record: see `bound`.

        Raises:
            ValueError: the record at `start` is not as long as it says; nothing was applied. A later one ends the batch
                before it, and so does a later one out of sequence.
            AssertionError: as `apply`.
        """
        cdef Py_buffer source, target
        cdef Py_ssize_t at = start, end, used = 0
        PyObject_GetBuffer(records, &source, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(out, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                end = source.len // SLOT_BYTES if stop is None else stop
                if not 0 <= start <= end <= source.len // SLOT_BYTES:
                    raise ValueError(f"start {start}, stop {end} of {source.len // SLOT_BYTES} slots")
                with nogil:
                    try:
                        apply_all(self.state, <const Record*>source.buf, &at, end, <Event*>target.buf, target.len // SLOT_BYTES, &used)
                    finally:
                        self._publish()
            finally:
                PyBuffer_Release(&target)
        finally:
            PyBuffer_Release(&source)
        return at, used

    def bound(self, record):
        """The most event slots that this record can make in the present state."""
        cdef Py_buffer view
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            if view.len < SLOT_BYTES:
                raise ValueError(f"a record of {view.len} bytes")
            return bound_of(self.state, <const Record*>view.buf)
        finally:
            PyBuffer_Release(&view)

    def port(self):
        """The capsule "byline.CorePort": the C door of engine/core.h. The core must outlive its user."""
        cdef BylineCorePort* port = &self.port_struct
        port.version = BYLINE_CORE_VERSION
        port.slot_bytes = SLOT_BYTES
        port.context = <void*>self
        port.apply = <door_apply_t>door_apply
        port.apply_batch = <door_apply_batch_t>door_apply_batch
        port.bound = <door_bound_t>door_bound
        port.sequence = <door_sequence_t>door_sequence
        port.state_hash = <door_state_hash_t>door_state_hash
        return PyCapsule_New(port, BYLINE_CORE_CAPSULE, NULL)

    # ------------------------------------------------------------ state

    @property
    def limits(self):
        return self._limits

    @property
    def risk(self):
        return bool(self.state.limits.risk)

    def state_hash(self):
        """The 16 bytes of docs/state-hash.md."""
        cdef uint128 sum = state_sum(self.state)
        return (<uint64_t>sum).to_bytes(8, "little") + (<uint64_t>(sum >> 64)).to_bytes(8, "little")

    def check(self):
        """Walk the whole state. Raises AssertionError naming the invariant that does not hold."""
        audit(self.state)

    def snapshot(self):
        """The whole state as bytes: version, limits, sections, SHA-256. Raises ValueError for a core without money."""
        cdef Stream out
        if not self.state.limits.risk:
            raise ValueError("a core without money has no snapshots")
        self.settle()
        try:
            if stream_open(&out, -1, 0) == 0:
                self.write_snapshot(&out)
            if stream_finish(&out):
                raise MemoryError("no memory for a snapshot")
            return out.buffer[: out.used]
        finally:
            stream_close(&out)

    cdef void settle(self) noexcept nogil:
        state_sum(self.state)

    cdef void write_snapshot(self, Stream* out) noexcept nogil:
        cdef Limits* l = &self.state.limits
        cdef uint8_t risk = 1 if l.risk else 0
        cdef uint64_t[12] numbers
        numbers[:] = [
            l.accounts, l.markets, l.assets, l.balances, l.orders, l.closed_ids, l.closed_ids_account, l.refs, l.postings,
            <uint64_t>l.max_price, l.max_fills, l.poisons,
        ]
        stream_put(out, MAGIC, strlen(MAGIC))
        stream_put(out, numbers, sizeof(numbers))
        stream_put(out, &risk, 1)
        write_state(self.state, out)

    cdef void collapse(self) noexcept nogil:
        # Tables may move meanwhile: advice about memory that is gone, or is something else now, does no harm.
        cdef State* s = self.state
        region_collapse(s.markets, <size_t>s.market_count * sizeof(Market))
        region_collapse(s.windows, s.windows_used)
        region_collapse(s.accounts, <size_t>s.account_count * sizeof(Account))
        region_collapse(s.account_names, s.account_name_words * sizeof(uint64_t))
        region_collapse(s.balances, <size_t>s.balance_count * sizeof(Balance))
        region_collapse(s.details, <size_t>s.order_pool.used * sizeof(OrderDetail))
        collapse_pool(&s.annex_pool)
        collapse_pool(&s.order_pool)
        collapse_pool(&s.terms_pool)
        collapse_pool(&s.id_pool)
        collapse_pool(&s.ref_pool)
        collapse_map(&s.balance_map)
        collapse_map(&s.order_map)
        collapse_map(&s.id_map)
        collapse_map(&s.ref_map)

    @staticmethod
    def restore(data):
        """The core that `snapshot` described. Raises ValueError if the data is not a whole snapshot of this version."""
        cdef bytes raw = bytes(data)
        cdef Core core
        cdef const unsigned char* start = raw
        cdef size_t head = len(SNAPSHOT_MAGIC)
        if not raw.startswith(SNAPSHOT_MAGIC):
            raise ValueError("not a snapshot of this version")
        body = len(raw) - 32
        if body < <Py_ssize_t>head + 97 or hashlib.sha256(raw[:body]).digest() != raw[body:]:
            raise ValueError("the snapshot's checksum does not fit its content")
        numbers = [int.from_bytes(raw[head + 8 * i : head + 8 * i + 8], "little") for i in range(12)]
        core = Core.__new__(Core)
        core._start(CoreLimits(*numbers), raw[head + 96] != 0)
        read_state(core.state, start + head + 97, len(raw) - head - 97 - 32)
        core.sequence = core.state.sequence
        core.time = core.state.time
        core.batch = core.state.batch
        core.next_due = next_due(core.state)
        return core

    # ------------------------------------------------------------ names

    def asset_index(self, name):
        """Index of an asset, or None."""
        return self._index(name, 0)

    def market_index(self, name):
        """Index of a market, or None."""
        return self._index(name, 1)

    def account_index(self, name):
        """Index of an account, or None."""
        return self._index(name, 2)

    def _index(self, text, int kind):
        cdef Name name
        cdef bytes raw = text.encode("ascii") if isinstance(text, str) else text
        cdef uint32_t index
        if not 1 <= len(raw) <= 64:
            return None
        memset(&name, 0, sizeof(Name))
        memcpy(&name, <const char*>raw, len(raw))
        if kind == 0:
            index = find_asset(self.state, &name)
        elif kind == 1:
            index = find_market(self.state, &name)
        else:
            index = find_account(self.state, &name)
        return None if index == NIL else index

    def asset_name(self, uint32_t index):
        if index >= self.state.asset_count:
            raise IndexError(f"asset {index} of {self.state.asset_count}")
        return text_of(&self.state.assets[index].name)

    def market_name(self, uint32_t index):
        if index >= self.state.market_count:
            raise IndexError(f"market {index} of {self.state.market_count}")
        return text_of(&self.state.markets[index].name)

    def account_name(self, uint32_t index):
        cdef Name name
        if index >= self.state.account_count:
            raise IndexError(f"account {index} of {self.state.account_count}")
        account_name(self.state, index, &name)
        return text_of(&name)

    # ------------------------------------------------------------ what is there now

    def describe(self):
        """The `done` slots of every asset, market and account as they are now, to fill a directory after a restore."""
        cdef State* s = self.state
        cdef Py_buffer view
        cdef uint32_t i
        out = np.zeros(s.asset_count + 2 * s.market_count + 2 * s.account_count, layout.EVENT)
        PyObject_GetBuffer(out, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            s.out = <Event*>view.buf
            s.out_capacity = <uint32_t>len(out)
            s.out_used = 0
            s.event_index = 0
            s.ts = s.time
            for i in range(s.asset_count):
                write_done_asset(s, i)
            for i in range(s.market_count):
                write_done_market(s, i)
            for i in range(s.account_count):
                write_done_account(s, i)
        finally:
            s.out = NULL
            s.out_capacity = 0
            PyBuffer_Release(&view)
        return out

    def balances(self):
        """Every (account, asset) with available or held not zero, units; dtype BALANCES, in order of first touch."""
        cdef State* s = self.state
        cdef uint32_t i
        rows = [
            (owner_of(s, i), s.balances[i].asset, s.balances[i].available, s.balances[i].held)
            for i in range(s.balance_count)
            if s.balances[i].available or s.balances[i].held
        ]
        return np.array(rows, BALANCES)

    def balances_of(self, uint32_t account):
        """The balances of one account index as `balances` gives them, by asset; looks at no other account's."""
        cdef State* s = self.state
        cdef uint32_t asset, slot
        rows = []
        if account >= s.account_count:
            return np.array(rows, BALANCES)
        for asset in range(s.asset_count):
            slot = find_balance(s, account, asset)
            if slot != NIL and (s.balances[slot].available or s.balances[slot].held):
                rows.append((account, asset, s.balances[slot].available, s.balances[slot].held))
        return np.array(rows, BALANCES)

    def open_orders(self):
        """Every open order, dtype OPEN_ORDERS, by market, side, price from the best, queue; after those of a market its
        waiting orders, by order_id. `oco` is the partner's order_id, 0 without one."""
        cdef State* s = self.state
        cdef Py_buffer view
        out = np.zeros(live(&s.order_pool), OPEN_ORDERS)
        if len(out):
            PyObject_GetBuffer(out, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                fill_orders(s, <OrderRow*>view.buf)
            finally:
                PyBuffer_Release(&view)
        return out

    def order_market(self, uint32_t account, order_id, bytes client_id):
        """Market index of the account's open or waiting order, or None.

        It is the one of that order id, or if that is None the one that answers to the client id, old names too.
        """
        cdef State* s = self.state
        cdef ClientId id
        cdef uint32_t slot, node
        if account >= s.account_count:
            return None
        if order_id is not None:
            slot = find_order(s, order_id)
            return s.orders[slot].market if slot != NIL and s.orders[slot].account == account else None
        if not 1 <= len(client_id) <= <Py_ssize_t>sizeof(ClientId):
            return None
        memset(&id, 0, sizeof(ClientId))
        memcpy(&id, <const char*>client_id, len(client_id))
        node = find_id(s, id_tag(s, account, &id), account, &id)
        return s.ids[node].market if node != NIL and s.ids[node].status == STATUS_OPEN else None

    def client_id_state(self, uint32_t account, bytes client_id):
        """What became of a client id of the account: (codes.OrderStatus, order id, market index, filled), or None.

        As a `duplicate` would tell it; an order's older names answer for it. None: no order, open or remembered, has it.
        """
        cdef State* s = self.state
        cdef ClientId id
        cdef uint32_t slot
        cdef IdNode* node
        if account >= s.account_count or not 1 <= len(client_id) <= <Py_ssize_t>sizeof(ClientId):
            return None
        memset(&id, 0, sizeof(ClientId))
        memcpy(&id, <const char*>client_id, len(client_id))
        slot = find_id(s, id_tag(s, account, &id), account, &id)
        if slot == NIL:
            return None
        node = &s.ids[slot]
        if node.status != STATUS_OPEN:
            return node.status, node.order_id, node.market, node.filled
        status = STATUS_WAITING if s.details[node.order].join == 0 else STATUS_OPEN
        return status, node.order_id, node.market, s.orders[node.order].size - whole_leaves(s, node.order)

    def is_poisoned(self, uint32_t account, bytes client_id):
        """Whether no order of the account can have this client id any more."""
        cdef ClientId id
        if account >= self.state.account_count or not 1 <= len(client_id) <= <Py_ssize_t>sizeof(ClientId):
            return False
        memset(&id, 0, sizeof(ClientId))
        memcpy(&id, <const char*>client_id, len(client_id))
        return self.state.accounts[account].poisons > 0 and find_poison(self.state, account, &id) != NIL

    def ids_known_since(self, uint32_t account):
        """A sequence after which every id that this account had accepted is remembered still; 0: none was ever forgotten.

        What was forgotten had closed before the oldest that is remembered, and was accepted before that.
        """
        cdef State* s = self.state
        cdef uint32_t oldest
        if account >= s.account_count:
            return 0
        if s.accounts[account].closed_ids < s.limits.closed_ids_account and s.closed_ids < s.limits.closed_ids:
            return 0  # neither queue was ever longer than it may be: it never shrinks below that again
        oldest = s.accounts[account].oldest_id if s.accounts[account].closed_ids else s.oldest_id
        return s.ids[oldest].closing >> 20 if oldest != NIL else 0

    cdef int64_t reference_price(self, uint32_t market) noexcept nogil:
        return self.state.markets[market].band_reference if market < self.state.market_count else ABSENT

    def indicative(self, uint32_t market):
        """What an uncross of that market index would find now: (price in ticks or None, size, imbalance in lots)."""
        cdef Finding found
        if market >= self.state.market_count:
            raise IndexError(f"market {market} of {self.state.market_count}")
        found = find_price(self.state, &self.state.markets[market])
        return None if found.price == ABSENT else found.price, found.size, found.imbalance


# ---------------------------------------------------------------- the C door

# What the core raises cannot leave through the door, where a thread may have no place for an exception.
ctypedef int (*one_t)(State*, const Record*, Event*, Py_ssize_t, uint32_t) noexcept nogil
ctypedef int (*all_t)(
    State*, const Record*, Py_ssize_t*, Py_ssize_t, Event*, Py_ssize_t, Py_ssize_t*
) noexcept nogil


cdef int apply_door_one(State* s, const Record* r, Event* out, Py_ssize_t capacity, uint32_t tag) except -1 nogil:
    return apply_one(s, r, out, capacity, tag)


cdef int door_refusal(State* s, const Record* r, int64_t slots, int64_t event_slots) noexcept nogil:
    # Why the record cannot be taken now, with `slots` from its head to the end; 0 if it can.
    if r.slots == 0 or r.slots > slots:
        return BYLINE_BAD_RECORD
    if bound_of(s, r) > event_slots:
        return BYLINE_NO_ROOM
    return 0 if r.sequence == s.sequence + 1 else BYLINE_NOT_NEXT


cdef int64_t door_apply_batch(
    Core core, const BylineRecord* records, int64_t* at, int64_t end, BylineEvent* events, int64_t event_slots
) noexcept nogil:
    cdef State* s = core.state
    cdef const Record* all = <const Record*>records
    cdef Py_ssize_t reached = <Py_ssize_t>at[0], used = 0
    cdef int why
    if reached >= end:
        return 0
    why = door_refusal(s, &all[reached], end - reached, event_slots)
    if why:
        return why
    why = (<all_t>apply_all)(s, all, &reached, <Py_ssize_t>end, <Event*>events, <Py_ssize_t>event_slots, &used)
    core._publish()
    at[0] = reached
    if why == -1:
        with gil:
            PyErr_Clear()
        if not door_refusal(s, &all[reached], end - reached, event_slots - used):
            return BYLINE_BROKEN
    return used


cdef int64_t door_apply(
    Core core, const BylineRecord* record, BylineEvent* events, int64_t event_slots
) noexcept nogil:
    cdef State* s = core.state
    cdef const CancelRecord* r = <const CancelRecord*>record
    cdef int why = door_refusal(s, <const Record*>record, (<const Record*>record).slots, event_slots)
    if why:
        return why
    if (<one_t>apply_door_one)(s, <const Record*>record, <Event*>events, event_slots, id_tag(s, r.account, &r.client_id)):
        with gil:
            PyErr_Clear()
        return BYLINE_BROKEN
    core._publish()
    return s.out_used


cdef int64_t door_bound(Core core, const BylineRecord* record) noexcept nogil:
    return bound_of(core.state, <const Record*>record)


cdef uint64_t door_sequence(Core core) noexcept nogil:
    return core.state.sequence


cdef void door_state_hash(Core core, uint8_t* hash) noexcept nogil:
    cdef uint128 sum = state_sum(core.state)
    memcpy(hash, &sum, sizeof(sum))


cdef Map** maps(State* s) noexcept:
    # All maps, for opening and closing.
    global _maps
    _maps[0] = &s.asset_map
    _maps[1] = &s.market_map
    _maps[2] = &s.account_map
    _maps[3] = &s.group_map
    _maps[4] = &s.balance_map
    _maps[5] = &s.order_map
    _maps[6] = &s.id_map
    _maps[7] = &s.ref_map
    _maps[8] = &s.poison_map
    return _maps


cdef Map* _maps[MAPS]


cdef str text_of(Name* name):
    return (<const unsigned char*>name)[:64].rstrip(b"\0").decode("ascii")


cdef int fill_orders(State* s, OrderRow* row) except -1:
    cdef uint32_t m, slot
    cdef int side
    cdef int64_t price
    cdef size_t count, i
    cdef Half* half
    for m in range(s.market_count):
        for side in range(2):
            half = &s.markets[m].half[side]
            price = half.best
            while price:
                slot = half.levels[price].head
                while slot != NIL:
                    fill_order(s, slot, row)
                    row += 1
                    slot = s.orders[slot].next
                price = next_worse(half, side, price)
        count = 0
        for side in range(2):
            collect_waiting(s, s.markets[m].stops[side], &count)
        sort_items(s.scratch, count)
        for i in range(count):
            fill_order(s, s.scratch[i].slot, row)
            row += 1
    return 0


cdef int fill_order(State* s, uint32_t slot, OrderRow* row) except -1:
    cdef Order* o = &s.orders[slot]
    cdef OrderDetail* d = &s.details[slot]
    cdef Terms* terms
    row.order_id = o.order_id
    row.account = o.account
    row.market = o.market
    row.client_id = s.ids[o.id_slot].client_id
    row.price = o.price
    row.size = o.size
    row.leaves = whole_leaves(s, slot)
    row.hold = order_hold(s, slot)
    row.join = d.join
    row.session = d.session
    row.side = d.side
    row.type = d.type
    row.tif = d.tif
    row.flags = d.flags
    row.status = STATUS_OPEN if d.join else STATUS_WAITING
    row.stop_price = row.display_size = row.expires_at = ABSENT
    row.displayed = o.leaves if d.join else 0
    if d.terms != NIL:
        terms = &s.terms[d.terms]
        row.stop_price = terms.stop_price
        row.display_size = terms.display_size
        row.expires_at = terms.expires_at
        if terms.partner != NIL:
            row.oco = s.orders[terms.partner].order_id
    return 0
