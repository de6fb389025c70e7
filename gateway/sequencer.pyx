"""The sequencer: gives every command its place in the one order, and releases answers when they are safe.

    submit ─▶ time, sequence ─▶ journal ring (chain, crc) ─▶ core.apply ─▶ event log (unpublished) ─▶ pending ring
    journal's mark ─▶ release ─▶ event log published up to it ─▶ sink: acks and private events

Invariants
  - Sequences are dense, times never go backwards; a `tick` stands before the first command at or after a due time.
  - What is in the journal's ring was applied, and what was applied is in the ring, in the same order.
  - `durable` acks: nothing leaves (ack, private event, event log) before its record is on disk. `memory` acks: it
    leaves when the record is in the ring; a crash of the machine can undo what was told.
  - A refusal (BUSY, FAILED, CLOSED) changed nothing: the command is in no journal and was not executed.
  - A nearly full ring, or an event log that gets no next file, refuses new work first; cancels and the exchange's own
    ticks and cuts keep a reserve. What the event log has no room for is refused before it is journaled.

Never reads a socket, a file or a clock of its own: clock, journal and event log are ports, so a simulator drives
this very code. Everything here runs on one thread. With a clock that has a C port, a command that defines nothing makes
no Python object on its way (`tests/integration/test_gateway_objects.py` counts).

Worst case: one submit costs the core's work plus about 0.1 µs; a command with many events (a mass cancel) copies them
once, and takes heap memory when the arena is full.
"""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memset

from engine.messages.records cimport OP_ACCOUNT, OP_CUT, OP_TICK, SLOT, CommandHead

from engine.messages.errors import JournalFailed

__all__ = ["PythonSink", "ReleaseSink", "Sequencer"]

cdef enum:
    EVENTS_USUAL = 64  # slots that a new order must find free in the arena
    STRETCH_TWICE = 65_536  # slots of one command up to which twice the room is taken, so that it is seldom taken again


cdef class ReleaseSink:
    """Whoever tells clients. The base class tells nobody."""

    cdef int released(self, const Pending* pending) except -1:
        return 0


cdef class PythonSink(ReleaseSink):
    """A sink for simulators and tests: calls `tell(sequence, chain, owner, rid, t_in, events)` with bytes of slots."""

    cdef object tell

    def __init__(self, tell):
        self.tell = tell

    cdef int released(self, const Pending* pending) except -1:
        self.tell(
            pending.sequence, pending.chain, pending.owner, <bytes>pending.rid[: pending.rid_size], pending.t_in,
            <bytes>(<char*>pending.events)[: pending.event_slots * SLOT],
        )
        return 0


cdef class Sequencer:
    """Takes commands of one thread.

    Args:
        core: the engine, recovered. Its sequence goes on.
        clock: engine.messages.ports.Clock.
        journal: object whose `port()` gives the capsule "byline.JournalPort".
        event_log: object whose `port()` gives the capsule "byline.EventLogPort".
        durable_acks: False releases at once ("memory" mode).
        pending_max: commands that may wait for their release, a power of two.
        arena_slots: event slots kept for them.
        output_slots: room for the events of one command at the start; it grows as the core's bound does.
        journal_reserve_slots: kept in the journal's ring for cancels, ticks and cuts.
        on_definition: set it to hear, with bytes of slots, of each command that defines an asset, market or account.
        chain: hash-chain word of the last journal record (0 at the very beginning).
    """

    def __cinit__(self, Core core not None, clock, journal, event_log, *, bint durable_acks=True,
                  uint64_t pending_max=65_536, uint64_t arena_slots=262_144, Py_ssize_t output_slots=4_096,
                  uint32_t journal_reserve_slots=1_024, uint64_t chain=0):
        if pending_max < 64 or pending_max & (pending_max - 1):
            raise ValueError(f"pending_max is {pending_max}; it must be a power of two, at least 64")
        if arena_slots < 4 * EVENTS_USUAL:
            raise ValueError(f"arena_slots is {arena_slots}; it must be at least {4 * EVENTS_USUAL}")
        self.core = core
        self.clock = clock
        self.clock_port = NULL
        if hasattr(clock, "port"):
            self.clock_owner = clock.port()
            self.clock_port = <ClockPort*>PyCapsule_GetPointer(self.clock_owner, "byline.ClockPort")
        self.journal_owner = (journal, journal.port())
        self.event_log_owner = (event_log, event_log.port())
        self.journal = <JournalPort*>PyCapsule_GetPointer(self.journal_owner[1], "byline.JournalPort")
        self.event_log = <EventLogPort*>PyCapsule_GetPointer(self.event_log_owner[1], "byline.EventLogPort")
        self.sink = ReleaseSink()
        self.durable_acks = durable_acks
        self.sequence = core.sequence
        self.released_sequence = core.sequence
        self.last_ts = core.time
        self.chain = chain
        self.journal_reserve = journal_reserve_slots
        self.ring_mask = pending_max - 1
        self.ring = <Pending*>PyMem_RawCalloc(pending_max, sizeof(Pending))
        self.arena_slots = arena_slots
        self.arena = <uint8_t*>PyMem_RawMalloc(arena_slots * SLOT)
        self.scratch_slots = output_slots
        self.scratch = <uint8_t*>PyMem_RawMalloc(output_slots * SLOT)
        if self.ring == NULL or self.arena == NULL or self.scratch == NULL:
            raise MemoryError("no memory for the sequencer's rings")

    def __dealloc__(self):
        if self.ring != NULL:
            while self.tail != self.head:
                if self.ring[self.tail & self.ring_mask].on_heap:
                    PyMem_RawFree(self.ring[self.tail & self.ring_mask].events)
                self.tail += 1
        PyMem_RawFree(self.ring)
        PyMem_RawFree(self.arena)
        PyMem_RawFree(self.scratch)

    # ---------------------------------------------------------------- for Python

    def set_sink(self, ReleaseSink sink not None):
        """From now on tell `sink`."""
        self.sink = sink

    def submit_record(self, bytes record not None, uint64_t owner=0, bytes rid=b"", int64_t t_in=0, bint reserved=False):
        """Submit a command record: 'taken', 'busy', 'failed' or 'closed'. `reserved`: it may use the cancels' reserve."""
        cdef uint32_t slots = <uint32_t>(len(record) // SLOT)
        if not record or len(record) % SLOT or slots > 255 or <uint8_t>record[5] != slots:
            raise ValueError(f"a record of {len(record)} bytes, which is not the slots that it states")
        if len(rid) > RID_BYTES:
            raise ValueError(f"a request id of {len(rid)} bytes; the most is {RID_BYTES}")
        cdef bytearray copy = bytearray(record)  # the journal writes chain and crc into it
        cdef char* start = copy
        return ("taken", "busy", "failed", "closed")[
            self.submit(<uint8_t*>start, slots, owner, rid, len(rid), TEXT, t_in, reserved)
        ]

    def cut(self):
        """Close a settlement batch: write a `cut`. 'taken', 'busy' or 'failed'."""
        cdef uint8_t[SLOT] record
        memset(record, 0, SLOT)
        (<CommandHead*>record).kind = OP_CUT
        (<CommandHead*>record).slots = 1
        return ("taken", "busy", "failed", "closed")[self.submit(record, 1, 0, b"", 0, TEXT, 0, True)]

    def advance(self):
        """Write the tick that is due, if one is. True if it did."""
        cdef int64_t now = self._now()
        if now < self.core.next_due or self.journal.failed(self.journal.context) or self._room(1, True):
            return False
        return self._tick(now) == TAKEN

    def flush(self):
        """Publish to the journal and release what is safe; for callers without a loop."""
        self.publish()
        self.release()

    def release_ready(self):
        """Tell the sink everything that is safe to tell."""
        self.release()

    cpdef object order_market(self, uint32_t account, object order_id, bytes client_id):
        """The market index of an order as of everything submitted so far; see Core.order_market."""
        return self.core.order_market(account, order_id, client_id)

    cdef int64_t reference_price(self, uint32_t market) noexcept nogil:
        """What bands are measured from, in ticks, as of everything submitted so far; ABSENT if there is nothing."""
        return self.core.reference_price(market)

    @property
    def pending(self):
        """Commands applied and not yet released."""
        return self.head - self.tail

    @property
    def durable_sequence(self):
        return self.journal.durable(self.journal.context)

    @property
    def journal_errno(self):
        """0, or why the journal stopped."""
        return self.journal.failed(self.journal.context)

    @property
    def next_due(self):
        return self.core.next_due

    # ---------------------------------------------------------------- for C

    cdef int submit(self, uint8_t* record, uint32_t slots, uint64_t owner, const char* rid, Py_ssize_t rid_size,
                    uint8_t form, int64_t t_in, bint reserved) except -1:
        """A command with kind, slots, flags and payload set. Nothing happened unless the answer is TAKEN.

        Its time is that at which it was read, `t_in`, or that of the command before it, if that is later; 0: the clock's.
        """
        cdef int64_t now
        cdef int why
        assert rid_size <= RID_BYTES
        if self.journal.failed(self.journal.context):
            return FAILED
        if self.cancel_only and not reserved:
            return CLOSED
        if self._room(slots + 1, reserved):
            self.refused_busy += 1
            return BUSY
        now = self._now() if t_in == 0 else t_in if t_in > self.last_ts else self.last_ts
        if now >= self.core.next_due:
            why = self._tick(now)
            if why != TAKEN:
                return why
        (<CommandHead*>record).ts = now
        return self._apply(record, slots, owner, rid, rid_size, form, t_in)

    cdef int _room(self, uint32_t slots, bint reserved) noexcept nogil:
        """0 if the command and a tick before it surely fit everywhere, BUSY otherwise."""
        cdef uint64_t waiting = self.head - self.tail
        cdef uint64_t ring = self.ring_mask + 1
        cdef uint32_t room = self.journal.room(self.journal.context)
        if reserved:
            return BUSY if room < slots or waiting + 2 > ring else TAKEN
        if self.event_log.room(self.event_log.context) != UINT64_MAX:
            return BUSY  # what is left of the event log's last file is for cancels
        if room < slots + self.journal_reserve or waiting + 2 > ring - ring // 16:
            return BUSY
        return BUSY if self.arena_slots - (self.arena_head - self.arena_tail) < EVENTS_USUAL else TAKEN

    cdef int _tick(self, int64_t now) except -1:
        cdef uint8_t[SLOT] record
        cdef int why
        memset(record, 0, SLOT)
        (<CommandHead*>record).kind = OP_TICK
        (<CommandHead*>record).slots = 1
        (<CommandHead*>record).ts = now
        why = self._apply(record, 1, 0, NULL, 0, TEXT, 0)
        if why != TAKEN:
            return why  # the writer's thread failed just now, or the event log has no room
        self.ticks += 1
        assert self.core.next_due > now, "a tick leaves nothing due"
        return TAKEN

    cdef int _apply(self, uint8_t* record, uint32_t slots, uint64_t owner, const char* rid, Py_ssize_t rid_size,
                    uint8_t form, int64_t t_in) except -1:
        cdef CommandHead* head = <CommandHead*>record
        cdef Py_ssize_t made
        cdef uint64_t chain = 0
        cdef int refused
        cdef Pending* entry
        head.sequence = self.sequence + 1
        made = self.core.slots_bound(record)
        if self.event_log.room(self.event_log.context) < <uint64_t>made:
            self.refused_busy += 1
            return BUSY
        if made > self.scratch_slots and self._stretch(made):
            self.refused_busy += 1
            return BUSY
        refused = self.journal.append(self.journal.context, record, slots, &chain)
        if refused == 2:
            return FAILED
        assert refused == 0, "the journal's ring had room a moment ago"
        # From here on the command is in the journal: whatever fails now is a broken invariant and stops the core.
        self.sequence += 1
        self.chain = chain
        self.last_ts = head.ts
        made = self.core.apply_record(record, self.scratch, self.scratch_slots)
        assert 0 <= made <= self.scratch_slots
        refused = self.event_log.append(self.event_log.context, self.scratch, <uint32_t>made, self.sequence)
        if refused:
            raise JournalFailed(f"event log: errno {refused} at sequence {self.sequence}")
        assert self.head - self.tail <= self.ring_mask
        entry = &self.ring[self.head & self.ring_mask]
        entry.sequence = self.sequence
        entry.chain = chain
        entry.owner = owner
        entry.t_in = t_in
        entry.t_matched = self.read_clock() if owner else 0
        entry.t_durable = 0
        entry.form = form
        entry.event_slots = <uint32_t>made
        entry.rid_size = <uint8_t>rid_size
        entry.on_heap = False
        if rid_size:
            memcpy(entry.rid, rid, rid_size)
        if made and head.kind <= OP_ACCOUNT and self.on_definition is not None:
            self.on_definition(<bytes>(<char*>self.scratch)[: made * SLOT])
        if made:
            entry.events = self._keep(<uint32_t>made, entry)
            memcpy(entry.events, self.scratch, made * SLOT)
        else:
            entry.events = self.arena
        self.head += 1
        return TAKEN

    cdef int _stretch(self, Py_ssize_t slots) noexcept nogil:
        """Room for the events of one command: TAKEN, or BUSY where there is no memory for as many as it may make."""
        cdef Py_ssize_t grown = 2 * slots if slots < STRETCH_TWICE else slots
        cdef uint8_t* scratch = <uint8_t*>PyMem_RawMalloc(grown * SLOT)
        if scratch == NULL:
            return BUSY
        PyMem_RawFree(self.scratch)
        self.scratch = scratch
        self.scratch_slots = grown
        return TAKEN

    cdef uint8_t* _keep(self, uint32_t slots, Pending* entry) except NULL:
        """Room for `slots` in a row: at the arena's head, behind its wrap, or on the heap."""
        cdef uint64_t at = self.arena_head % self.arena_slots
        cdef uint64_t skip = 0
        cdef uint8_t* block
        if at + slots > self.arena_slots:
            skip = self.arena_slots - at
        if self.arena_head + skip + slots - self.arena_tail > self.arena_slots:
            block = <uint8_t*>PyMem_RawMalloc(<size_t>slots * SLOT)
            if block == NULL:
                raise MemoryError(f"no memory for {slots} events")
            entry.on_heap = True
            return block
        self.arena_head += skip
        at = self.arena_head % self.arena_slots
        self.arena_head += slots
        entry.arena_end = self.arena_head
        return self.arena + at * SLOT

    cdef int64_t read_clock(self) except? -1:
        """What the clock says, ns."""
        return self.clock.now_ns() if self.clock_port == NULL else self.clock_port.now_ns(self.clock_port.context)

    cdef int64_t _now(self) except? -1:
        cdef int64_t now = self.read_clock()
        return now if now > self.last_ts else self.last_ts

    cdef void publish(self) noexcept nogil:
        self.journal.publish(self.journal.context)

    cdef uint64_t safe(self) noexcept nogil:
        """The last sequence that may be told."""
        if self.durable_acks:
            return self.journal.durable(self.journal.context)
        return self.sequence if not self.journal.failed(self.journal.context) else self.released_sequence

    cdef int release(self) except -1:
        """Publish the event log up to the mark and hand each released command to the sink. Returns how many."""
        cdef uint64_t mark = self.safe()
        cdef int64_t t_durable = 0
        cdef int count = 0
        cdef Pending* entry
        if self.tail == self.head or self.ring[self.tail & self.ring_mask].sequence > mark:
            return 0
        if self.durable_acks:
            t_durable = self.journal.durable_at(self.journal.context)  # of the mark or of a later record: not too early
        self.event_log.publish(self.event_log.context, mark)
        while self.tail != self.head:
            entry = &self.ring[self.tail & self.ring_mask]
            if entry.sequence > mark:
                break
            entry.t_durable = t_durable
            self.sink.released(entry)
            self.released_sequence = entry.sequence
            if entry.on_heap:
                PyMem_RawFree(entry.events)
                entry.on_heap = False
            elif entry.event_slots:
                # Events leave in the order in which they came, so everything up to this end is free again.
                self.arena_tail = entry.arena_end
            self.tail += 1
            count += 1
        if self.tail == self.head:
            # Empty: begin again at the start, where the memory is in the cache.
            self.tail = self.head = 0
            self.arena_tail = self.arena_head = 0
        return count
