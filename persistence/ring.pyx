"""Ring and writer of the journal, checksums, and the inner loop of a scan: Python's door to writer.h and crc32c.h.

`Ring` owns the memory between the sequencer and the disk and the C thread that empties it. It knows the file it writes
into and nothing of names, headers or directories: those are `persistence.journal`'s, which gives it the next segment
when it asks. One thread appends and publishes; the writer thread, or whoever calls `step`, writes.

A step reaches its disk through two C functions: system calls on a descriptor, or, for a disk that is simulated, the
`write_at` and `sync` of a Python `File`. Everything else is the same code.
"""

import errno
import logging
import os

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

__all__ = ["IDLE", "NEEDS_SEGMENT", "FAILED", "WROTE", "Ring", "chain_word", "choose_checksums", "crc32c",
           "find_record", "record_sha256", "scan_records", "write_zeros"]

log = logging.getLogger(__name__)

IDLE = STEP_IDLE
WROTE = STEP_WROTE
NEEDS_SEGMENT = STEP_NEEDS_SEGMENT
FAILED = STEP_FAILED

cdef extern from "<sched.h>" nogil:
    void CPU_ZERO(cpu_set_t* s)
    void CPU_SET(int cpu, cpu_set_t* s)


def choose_checksums(portable: bool = False) -> int:
    """Choose the bodies of CRC32C (1) and SHA-256 (2); the sum of those done by the CPU is returned. For tests."""
    return byline_checksums_choose(1 if portable else 0)


choose_checksums()


def crc32c(data, crc: int = 0) -> int:
    """CRC32C of `data`, continuing `crc`."""
    cdef const uint8_t[::1] view = data
    if view.shape[0] == 0:
        return crc
    return byline_crc32c(crc, &view[0], view.shape[0])


def chain_word(chain: int, record) -> int:
    """The chain word of a whole record behind one with the word `chain`."""
    cdef const uint8_t[::1] view = record
    if view.shape[0] == 0 or view.shape[0] % 128:
        raise ValueError(f"record of {view.shape[0]} bytes: must be slots of 128")
    return byline_chain(chain, &view[0], view.shape[0] // 128)


def record_sha256(*parts) -> bytes:
    """SHA-256 as the writer computes it."""
    cdef byline_sha256 digest
    cdef const uint8_t[::1] view
    byline_sha256_start(&digest)
    for part in parts:
        view = part
        if view.shape[0]:
            byline_sha256_update(&digest, &view[0], view.shape[0])
    out = bytearray(32)
    cdef uint8_t[::1] target = out
    byline_sha256_digest(&digest, &target[0])
    return bytes(out)


def scan_records(const uint8_t[::1] data, at: int, end: int, limit: int, sequence: int, chain: int):
    """Check up to `limit` records of `data` (whole slots) from slot `at` to `end`, behind `sequence` and `chain`.

    Returns (at, sequence, chain, why) of where it stopped: why is 0, or 1 checksum, 2 sequence, 3 chain word.
    """
    cdef uint64_t slot = at, last = sequence, word = chain, stop = end, most = limit
    cdef int why
    if end * 128 > data.shape[0] or at > end:
        raise ValueError(f"slots {at} to {end} of {data.shape[0]} bytes")
    if at == end:
        return at, sequence, chain, 0
    with nogil:
        why = byline_scan(&data[0], &slot, stop, most, &last, &word)
    return slot, last, word, why


def find_record(const uint8_t[::1] data, at: int, end: int, first_of_group: bool, after: int) -> int:
    """The first slot in [at, end) with an intact record later than `after`; `end` if none."""
    cdef uint64_t slot = at, stop = end, sequence = after, found
    cdef int kind = 2 if first_of_group else 1
    if end * 128 > data.shape[0]:
        raise ValueError(f"slots {at} to {end} of {data.shape[0]} bytes")
    if at >= end:
        return end
    with nogil:
        found = byline_find_record(&data[0], slot, stop, kind, sequence)
    return found


def write_zeros(descriptor: int, size_bytes: int, bytes_per_second: int, Ring ring=None):
    """Write and sync zeros, on a thread that is in nobody's way.

    `ring`: at that pace, or faster where its current segment is used fast. Without one: at once.

    Raises:
        OSError: the disk refuses, or ECANCELED: the ring does not want them any more.
    """
    cdef byline_zeros_work work
    cdef int error
    memset(&work, 0, sizeof(work))
    work.file = descriptor
    work.size = size_bytes
    work.is_synced = 1
    if ring is not None:
        work.bytes_per_second = bytes_per_second
        work.is_due = byline_journal_presses
        work.context = <void*>ring.j
    with nogil:
        error = byline_aside(byline_zeros, &work)
    if error:
        raise OSError(error, os.strerror(error))


cdef int64_t python_write(void* context, int64_t handle, const uint8_t* data, size_t size, int64_t offset) noexcept nogil:
    with gil:
        ring = <Ring>context
        try:
            return ring.files[handle].write_at(offset, (<const char*>data)[:size])
        except OSError as error:
            return -(error.errno or errno.EIO)


cdef int python_sync(void* context, int64_t handle) noexcept nogil:
    with gil:
        ring = <Ring>context
        try:
            ring.files[handle].sync()
            return 0
        except OSError as error:
            return -(error.errno or errno.EIO)


cdef int port_append(void* context, uint8_t* record, uint32_t slots, uint64_t* chain) noexcept nogil:
    return byline_journal_append(<byline_journal*>context, record, slots, chain)


cdef void port_publish(void* context) noexcept nogil:
    byline_journal_publish(<byline_journal*>context)


cdef void port_publish_inline(void* context) noexcept nogil:
    cdef byline_journal* j = <byline_journal*>context
    cdef int result
    byline_journal_publish(j)
    while True:
        result = byline_journal_step(j)
        if result == STEP_NEEDS_SEGMENT:
            with gil:
                if not ask_roll(<Ring>j.disk.context):
                    return
        elif result != STEP_WROTE:
            return


cdef bint ask_roll(Ring ring) noexcept:
    """The next segment, on the thread that publishes. What `roll` should not raise stops the journal."""
    try:
        return ring.roll is not None and ring.roll()
    except Exception as error:
        log.exception("journal status=failed")
        byline_journal_fail(ring.j, getattr(error, "errno", None) or errno.EIO)
        return False


cdef uint64_t port_durable(void* context) noexcept nogil:
    return byline_get(&(<byline_journal*>context).durable)


cdef int64_t port_durable_at(void* context) noexcept nogil:
    return <int64_t>byline_get(&(<byline_journal*>context).durable_at)


cdef uint32_t port_room(void* context) noexcept nogil:
    return byline_journal_room(<byline_journal*>context)


cdef int port_failed(void* context) noexcept nogil:
    return byline_journal_failed(<byline_journal*>context)


cdef class Ring:
    """See the module. Made by `persistence.journal.Journal`, which is the class to use."""

    def __cinit__(self, *, slots: int, sequence: int, chain: int, real: bool, inline: bool, pace_ns: int = 0,
                  cpus=None):
        if slots < 256 or slots & (slots - 1):
            raise ValueError(f"ring of {slots} slots: must be a power of two from 256")
        if not 0 <= pace_ns < 1_000_000_000:
            raise ValueError(f"pace of {pace_ns} ns: must be below a second")
        self.j = <byline_journal*>calloc(1, sizeof(byline_journal))
        if self.j == NULL:
            raise MemoryError
        self.j.wakeup_fd = self.j.keeper_fd = -1
        self.j.ring = <uint8_t*>calloc(slots, 128)
        self.j.ends = <uint64_t*>calloc(slots, 16)
        if self.j.ring == NULL or self.j.ends == NULL:
            raise MemoryError
        self.j.ring_slots = slots
        self.j.pace_ns = pace_ns
        self.j.sequence = self.j.durable = sequence
        self.j.chain = self.j.written_chain = chain
        self.files = {}
        self.inline = inline
        self.real = real
        self.j.disk.context = <void*>self
        self.j.disk.write = byline_real_write if real else python_write
        self.j.disk.sync = byline_real_sync if real else python_sync
        if real:
            self.j.disk.forget = byline_real_forget
        if cpus is not None:
            CPU_ZERO(&self.j.cpus)
            for cpu in cpus:
                CPU_SET(cpu, &self.j.cpus)
            self.j.has_cpus = 1
        self.j.wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.j.keeper_fd = os.eventfd(0, os.EFD_CLOEXEC)
        cdef JournalPort* port = &self.port_struct
        port.context = <void*>self.j
        port.append = port_append
        port.publish = port_publish_inline if inline else port_publish
        port.durable = port_durable
        port.durable_at = port_durable_at
        port.room = port_room
        port.failed = port_failed
        for page in range(0, slots * 128, 4096):  # touched now, not by the first orders
            self.j.ring[page] = 0
            self.j.ends[page // 64] = 0

    def __dealloc__(self):
        if self.j == NULL:
            return
        if self.j.started:
            with nogil:
                byline_journal_stop(self.j, 2)
        if self.j.wakeup_fd >= 0:
            os.close(self.j.wakeup_fd)
        if self.j.keeper_fd >= 0:
            os.close(self.j.keeper_fd)
        free(self.j.ring)
        free(self.j.ends)
        free(self.j)

    def port(self):
        """The capsule "byline.JournalPort". The ring must outlive its user."""
        return PyCapsule_New(&self.port_struct, "byline.JournalPort", NULL)

    def append(self, uint8_t[::1] record) -> int:
        """Append one record (writable; its chain and crc32c are filled in): 0, 1 or 2 as the port says."""
        cdef uint64_t chain = 0
        if record.shape[0] == 0 or record.shape[0] % 128 or record.shape[0] > 255 * 128:
            raise ValueError(f"record of {record.shape[0]} bytes: must be 1 to 255 slots of 128")
        return byline_journal_append(self.j, &record[0], record.shape[0] // 128, &chain)

    def append_all(self, uint8_t[::1] records) -> int:
        """Append records until the ring refuses one. Returns how many were taken. For tools and benches."""
        cdef uint64_t chain = 0, at = 0, end = records.shape[0] // 128
        cdef uint64_t taken = 0
        with nogil:
            while at < end and records[at * 128 + 5] and at + records[at * 128 + 5] <= end:
                if byline_journal_append(self.j, &records[at * 128], records[at * 128 + 5], &chain):
                    break
                at += records[at * 128 + 5]
                taken += 1
        return taken

    def publish(self):
        """Let the writer have all that was appended."""
        with nogil:
            self.port_struct.publish(<void*>self.j)

    def step(self) -> int:
        """One group, by hand: IDLE, WROTE, NEEDS_SEGMENT or FAILED. Never beside a running thread."""
        cdef int result
        assert not self.j.started
        with nogil:
            result = byline_journal_step(self.j)
        return result

    def set_segment(self, file, handle: int, slots: int, used: int, limit_slots: int, hashed=b""):
        """Give the writer its file. `hashed`: the records that are in it already. `limit_slots`: see `set_limit`."""
        cdef const uint8_t[::1] view = hashed
        self.files = {handle: file}
        byline_set(&self.j.limit, self.j.tail + limit_slots)
        # The thread may run on from here, so the digest of what is in the file must come first: it only is given at
        # the start, before the thread.
        assert not (self.j.started and used)
        byline_journal_set_segment(self.j, handle, slots, used)
        if view.shape[0]:
            byline_sha256_update(&self.j.sha, &view[0], view.shape[0])

    def set_limit(self, slots: int):
        """`slots` more than what is in the current segment's file can be written before space must be found."""
        byline_set(&self.j.limit, byline_get(&self.j.tail) + slots)

    def segment_end(self):
        """(SHA-256, slots, last sequence, last chain word) of the current segment. Only while the writer waits."""
        out = bytearray(32)
        cdef uint8_t[::1] target = out
        byline_sha256_digest(&self.j.sha, &target[0])
        return bytes(out), self.j.segment_used, byline_get(&self.j.durable), self.j.written_chain

    def start(self):
        """Start the writer thread."""
        error = byline_journal_start(self.j)
        if error:
            raise OSError(error, os.strerror(error))

    def stop(self, drain: bool = True):
        """End the writer thread; `drain`: not before everything published is written or the journal failed."""
        cdef int how = 1 if drain else 2
        with nogil:
            byline_journal_stop(self.j, how)

    def hurry(self, is_hurried: bool):
        """Whether `write_zeros` makes no pauses."""
        self.j.is_hurried = 1 if is_hurried else 0

    def give_up_zeros(self):
        """Nobody wants what `write_zeros` writes any more: it raises OSError(ECANCELED)."""
        self.j.is_hurried = -1

    def fail(self, error: int):
        """Stop the journal for good with this errno."""
        byline_journal_fail(self.j, error)

    def set_mark(self, page):
        """Store each durable sequence in the first 8 bytes of `page` (mapped, writable) too; None: no more."""
        cdef uint8_t[::1] view
        if page is None:
            self.j.mark = NULL
            return
        view = page
        self.j.mark = <uint64_t*>&view[0]

    @property
    def wakeup_fd(self) -> int:
        return self.j.wakeup_fd

    @property
    def keeper_fd(self) -> int:
        return self.j.keeper_fd

    @property
    def durable(self) -> int:
        return byline_get(&self.j.durable)

    @property
    def sequence(self) -> int:
        """Last appended."""
        return self.j.sequence

    @property
    def chain(self) -> int:
        return self.j.chain

    @property
    def failed(self) -> int:
        return byline_journal_failed(self.j)

    @property
    def room(self) -> int:
        return byline_journal_room(self.j)

    @property
    def unused_slots(self) -> int:
        """Left in the current segment."""
        return self.j.segment_slots - self.j.segment_used

    @property
    def groups(self) -> int:
        return self.j.groups
