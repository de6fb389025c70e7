"""The core: commands in, events out.

    record ─▶ apply.pyx ─▶ matching, scopes, phases, transfers, listing, timers ─▶ event slots
                                        │
                                        └─▶ state, dirty lists ─▶ state_hash (at a cut, or when asked)

Owns all state of the exchange and nothing else: no clock, no I/O, no randomness that shows (a secret per process keys the
hash maps of user-chosen texts; no event depends on it). The same records give the same events and the same hash.

A Core is used by one thread at a time. `apply_batch` lets go of the GIL; what other threads ask meanwhile is refused with
RuntimeError. After a broken invariant everything is refused with AssertionError. Only `sequence`, `time`, `batch`, `next_due`,
`limits` and `risk` may be read at any time.

Not checked here: crc and hash chain of a record, which are the journal's; names and JSON, which are the wire's.
"""

import hashlib
import os

import numpy as np

from engine.limits import CoreLimits
from engine.messages import layout

cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen

from engine.apply cimport BYLINE_NO_MEMORY, apply_all, apply_one, leave, overlap
from engine.audit cimport audit
from engine.bounds cimport bound_of
from engine.digest cimport add_mix, mix_account, state_sum
from engine.auction cimport Finding, find_price
from engine.listing cimport open_account, write_done_account, write_done_asset, write_done_market
from engine.pool cimport (
    account_name, find_account, find_asset, find_balance, find_id, find_market, find_order, find_poison, id_tag, live,
    map_close, map_open, map_reserve, owner_of, pool_close, pool_open, pool_room, pool_take, pool_touch,
)
from engine.snapshot cimport (
    Stream, read_state, stream_close, stream_finish, stream_open, stream_put, write_state,
)
from engine.book cimport next_worse
from engine.risk cimport order_hold, whole_leaves
from engine.stops cimport collect_waiting
from engine.timers cimport FIRST_DUES, due_entries, next_due
from engine.types cimport *
from engine.windows cimport close_windows

__all__ = ["BALANCES", "Core", "CoreLimits", "OPEN_ORDERS"]

cnp.import_array()

cdef cnp.dtype EVENT = layout.EVENT

cdef str NO_ADDRESS_SPACE = (
    "no address space for the tables of a core: CoreLimits has the bounds that it is reserved for, and a core of small ones "
    "needs little"
)

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

if sizeof(OrderRow) != OPEN_ORDERS.itemsize:
    raise ImportError("the rows of open_orders are not what layout.py says")
if sizeof(Account) != 64 or sizeof(Half) != 64 or sizeof(Market) != 384 or sizeof(Balance) != 24:
    raise ImportError("a node of the state is not as large as its cache lines")


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

    def __init__(self, limits=None, *, risk=True):
        if not isinstance(risk, bool):
            raise TypeError(f"risk={risk!r}: must be True or False")
        self._start(CoreLimits() if limits is None else limits, risk)
        cdef State* s = self.state
        cdef Name name
        cdef bytes text
        for text in (b"system:external", b"system:fees"):
            memset(&name, 0, sizeof(Name))
            memcpy(&name, <const char*>text, len(text))
            index = open_account(s, &name, OPEN_OVERDRAFT)
            add_mix(s, mix_account(s, index))
        s.use = USE_FREE

    cdef int _start(self, object limits, bint risk) except -1:
        # Reserves everything; leaves an empty core without the two system accounts, not yet to be used.
        cdef State* s = self.state
        cdef Limits* l = &s.limits
        cdef uint64_t[MAPS] most
        if self._limits is not None:
            raise RuntimeError("a Core is initialised once")
        if not isinstance(limits, CoreLimits):
            raise TypeError(f"limits={limits!r}: must be a CoreLimits")
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
        s.due_capacity = FIRST_DUES
        s.due_most = due_entries(l)
        s.due = <Due*>region_map(s.due_most * sizeof(Due))
        for side in range(2):
            s.marks[side] = <int64_t*>region_map((<size_t>l.max_fills + MARKS_MORE) * sizeof(int64_t))
        s.scratch = <SortItem*>region_map(<size_t>l.orders * sizeof(SortItem))
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
            raise MemoryError(NO_ADDRESS_SPACE)
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
        most_keys(l, most)
        for table in range(MAPS):
            map_open(maps(s)[table], most[table])
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
            close_windows(&s.markets[i])
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
        region_unmap(s.due, s.due_most * sizeof(Due))
        region_unmap(s.scratch, <size_t>s.limits.orders * sizeof(SortItem))
        free(self._buffer)
        free(s.dirty_orders)
        free(s.dirty_balances)
        free(s.dirty_markets)
        free(s)
        self.state = NULL

    def reserve(self, uint32_t orders, client_ids=None):
        """Bring in the memory of that many more open orders and client ids now (as many ids as orders if not given).

        The first touch of a page and the doubling of a map then do not fall into the commands to come. Changes neither
        the state nor any limit.
        """
        cdef State* s = self._free()
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
        cdef Py_ssize_t bound
        if rarely(s.use != USE_FREE or (<const Record*>record).sequence != s.sequence + 1):
            with gil:
                self._free()
                raise ValueError(out_of_sequence(s, <const Record*>record))
        bound = bound_of(s, <const Record*>record)
        if out_slots < bound:
            with gil:
                raise BufferError(f"{out_slots} slots for up to {bound} event slots")
        # Held to the promise, not to the room: a bound that is too small is found here, and not where room is short.
        try:
            apply_one(s, <const Record*>record, <Event*>out, bound, id_tag(s, r.account, &r.client_id))
        finally:
            leave(s)
            publish(self)
        return s.out_used

    cdef State* _free(self) except NULL:
        # The state, of a core that may be used now.
        if self.state.use == USE_FREE:
            return self.state
        if self.state.use == USE_APPLYING:
            raise RuntimeError("the core is applying a batch on another thread")
        if self.state.use == USE_BROKEN:
            raise AssertionError("an invariant of this core broke: it must not be used any more")
        raise RuntimeError("the Core was never initialised")

    cdef int _require_slots(self, object data) except -1:
        # Of an array: that its items are slots or bytes. Whatever else has a buffer is taken as bytes.
        cdef cnp.dtype dtype
        if not isinstance(data, cnp.ndarray):
            return 0
        dtype = (<cnp.ndarray>data).dtype
        if dtype is not EVENT and dtype is not self._known_dtype:
            if dtype != np.uint8 and (dtype.itemsize != SLOT_BYTES or not dtype.isnative or dtype.kind not in "VS"):
                raise TypeError(f"an array of {dtype} holds no slots: see engine.messages.layout")
            self._known_dtype = dtype
        return 0

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

        Raises, and nothing has changed:
            ValueError: the buffer is not the record that its `slots` says, or its sequence is not the next one.
            TypeError: an array of something else than slots or bytes.
            MemoryError: no address space for a book of all prices, or for the events. The record may come again.
            RuntimeError: another thread is applying a batch.
        Raises for good:
            AssertionError: an invariant broke. Everything is refused from then on.
        """
        cdef Py_buffer view
        self._free()
        self._require_slots(record)
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
            records: contiguous array of slots (any layout dtype) holding whole records, or bytes.
            out: writable contiguous array of slots, which shares no memory with the records.

        Returns:
            (index of the first slot not applied, slots of `out` used). It stops early where `out` might be too small for
            the next record; no progress at all means that `out` is too small for that one record: see `bound`.

        Without the GIL: other threads run meanwhile, but may not use this core.

        Raises, and nothing was applied:
            ValueError: the record at `start` is not as long as it says or not the next one, or `out` overlaps the records.
                A later record of that kind ends the batch before it.
            TypeError, MemoryError, RuntimeError: as `apply`, of the record at `start`.
        Raises for good:
            AssertionError: as `apply`.
        """
        cdef State* s = self._free()
        cdef Py_buffer source, target
        cdef const Record* first
        cdef Py_ssize_t at = start, end, used = 0
        cdef int failed = 0
        self._require_slots(records)
        self._require_slots(out)
        PyObject_GetBuffer(records, &source, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(out, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                end = source.len // SLOT_BYTES if stop is None else stop
                if not 0 <= start <= end <= source.len // SLOT_BYTES:
                    raise ValueError(f"start {start}, stop {end} of {source.len // SLOT_BYTES} slots")
                if overlap(source.buf, source.len, target.buf, target.len):
                    raise ValueError("records and out share memory")
                if start < end:
                    first = <const Record*>source.buf + start
                    if first.slots == 0 or first.slots > end - start:
                        raise ValueError(f"the record at slot {start} is not as long as it says")
                    if first.sequence != s.sequence + 1:
                        raise ValueError(out_of_sequence(s, first))
                try:
                    with nogil:
                        try:
                            apply_all(
                                s, <const Record*>source.buf, &at, end, <Event*>target.buf, target.len // SLOT_BYTES, &used
                            )
                        finally:
                            failed = leave(s)
                            publish(self)
                except MemoryError:
                    if failed != BYLINE_NO_MEMORY or at == start:
                        raise  # else what is done is told first
            finally:
                PyBuffer_Release(&target)
        finally:
            PyBuffer_Release(&source)
        return at, used

    def bound(self, record):
        """The most event slots that this record can make in the present state."""
        cdef Py_buffer view
        self._free()
        self._require_slots(record)
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            if view.len < SLOT_BYTES:
                raise ValueError(f"a record of {view.len} bytes")
            return bound_of(self.state, <const Record*>view.buf)
        finally:
            PyBuffer_Release(&view)

    def port(self):
        """The capsule "byline.CorePort": the C door of engine/core.h. The core must outlive its user."""
        from engine.c_door import capsule  # which cimports this module

        self._free()
        return capsule(self)

    # ------------------------------------------------------------ state

    @property
    def limits(self):
        return self._limits

    @property
    def ref_count(self):
        """Refs of commands that are kept now; there is room for `limits.refs`."""
        cdef State* s = self._free()
        return s.ref_pool.used - s.ref_pool.free_count

    @property
    def risk(self):
        return bool(self.state.limits.risk)

    def state_hash(self):
        """The 16 bytes of docs/state-hash.md."""
        cdef uint128 sum = state_sum(self._free())
        return (<uint64_t>sum).to_bytes(8, "little") + (<uint64_t>(sum >> 64)).to_bytes(8, "little")

    def check(self):
        """Walk the whole state. Raises AssertionError naming the invariant that does not hold."""
        audit(self._free())

    def snapshot(self):
        """The whole state as bytes: version, limits, sections, SHA-256. Raises ValueError for a core without money."""
        cdef Stream out
        if not self._free().limits.risk:
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
    def restore(data, *, checked=False):
        """The core that `snapshot` described.

        Args:
            data: bytes of any kind; not copied.
            checked: the caller has compared the SHA-256 at its end, which takes a while for a large state.

        Raises:
            ValueError: the data is not a whole snapshot of this version; its checksum does not fit; what it says cannot be a
                state, or has another state hash than it says.
            MemoryError: no address space for its limits.
        """
        raw = memoryview(data).cast("B")
        cdef const unsigned char[::1] state = raw
        cdef Core core
        cdef Py_ssize_t head = len(SNAPSHOT_MAGIC)
        cdef Py_ssize_t body = len(raw) - 32
        if raw[:head] != SNAPSHOT_MAGIC:
            raise ValueError("not a snapshot of this version")
        if body < head + 97 or not (checked or hashlib.sha256(raw[:body]).digest() == raw[body:]):
            raise ValueError("the snapshot's checksum does not fit its content")
        if raw[head + 96] != 1:  # what none can be written of, none is read of
            raise ValueError("a snapshot of a core without money")
        numbers = [int.from_bytes(raw[head + 8 * i : head + 8 * i + 8], "little") for i in range(12)]
        core = Core.__new__(Core)
        core._start(CoreLimits(*numbers), True)
        read_state(core.state, &state[head + 97], body - head - 97)
        core.state.use = USE_FREE
        publish(core)
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
        cdef bytes raw = text.encode() if isinstance(text, str) else text
        cdef uint32_t index
        self._free()
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
        if index >= self._free().asset_count:
            raise IndexError(f"asset {index} of {self.state.asset_count}")
        return text_of(&self.state.assets[index].name)

    def market_name(self, uint32_t index):
        if index >= self._free().market_count:
            raise IndexError(f"market {index} of {self.state.market_count}")
        return text_of(&self.state.markets[index].name)

    def account_name(self, uint32_t index):
        cdef Name name
        if index >= self._free().account_count:
            raise IndexError(f"account {index} of {self.state.account_count}")
        account_name(self.state, index, &name)
        return text_of(&name)

    # ------------------------------------------------------------ what is there now

    def describe(self):
        """The `done` slots of every asset, market and account as they are now, to fill a directory after a restore."""
        cdef State* s = self._free()
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
        cdef State* s = self._free()
        cdef uint32_t i
        rows = [
            (owner_of(s, i), s.balances[i].asset, s.balances[i].available, s.balances[i].held)
            for i in range(s.balance_count)
            if s.balances[i].available or s.balances[i].held
        ]
        return np.array(rows, BALANCES)

    def balances_of(self, uint32_t account):
        """The balances of one account index as `balances` gives them, by asset; looks at no other account's."""
        cdef State* s = self._free()
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
        cdef State* s = self._free()
        cdef Py_buffer view
        out = np.empty(live(&s.order_pool), OPEN_ORDERS)  # zeroed row by row: empty arrays are of large pages
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
        cdef State* s = self._free()
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
        cdef State* s = self._free()
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
        if account >= self._free().account_count or not 1 <= len(client_id) <= <Py_ssize_t>sizeof(ClientId):
            return False
        memset(&id, 0, sizeof(ClientId))
        memcpy(&id, <const char*>client_id, len(client_id))
        return self.state.accounts[account].poisons > 0 and find_poison(self.state, account, &id) != NIL

    def ids_known_since(self, uint32_t account):
        """A sequence after which every id that this account had accepted is remembered still; 0: none was ever forgotten.

        What was forgotten had closed before the oldest that is remembered, and was accepted before that.
        """
        cdef State* s = self._free()
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
        if market >= self._free().market_count:
            raise IndexError(f"market {market} of {self.state.market_count}")
        found = find_price(self.state, &self.state.markets[market])
        return None if found.price == ABSENT else found.price, found.size, found.imbalance


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


cdef void most_keys(const Limits* l, uint64_t* most) noexcept:
    # What each of them must hold. That of ids doubles while LATE of them are still to come into it (put_id).
    most[0], most[1], most[2] = l.assets, l.markets, l.accounts
    most[3], most[4], most[5] = 2 * <uint64_t>l.accounts, l.balances, l.orders
    most[6], most[7], most[8] = <uint64_t>l.ids + LATE + 1, l.refs, l.poisons


cdef str out_of_sequence(State* s, const Record* r):
    return f"a record out of sequence: {r.sequence}, and {s.sequence + 1} is the next"


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
    memset(row, 0, sizeof(OrderRow))
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
