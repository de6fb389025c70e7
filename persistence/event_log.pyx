"""The event log: what the core said, in mapped files that other processes follow while they are written.

    DATA/events/control                     one mapped page: identities, generation, the public head
    DATA/events/<generation>-<number>.events   slots of 128 bytes, then the index of this file

It is derived from the journal and may be deleted while stopped. All files of a generation are one long row of slots;
a command's events may lie across the end of a file. The index has one entry per 1024 slots: the first command that
begins there or later, as (slot, sequence), so a reader finds a command boundary without knowing any extension slots.

The writer appends ahead of the public head; `publish` moves the head, always to the end of a command. Slots below the
head never change. The head is two words, and a process may be killed between its two stores: the slots count, which are
stored first and which a reader may have seen already, and the sequence is that of the last command in them, if the page
names an earlier one (`published_end`). So no command is ever appended a second time; a reader refuses one. The maps are not synced: after a boot the log goes on from the last mark that goes with a snapshot
(`persistence.event_mark`), or is built anew from the journal. A helper thread has the next file allocated and touched
ahead of the writer; if it is late the writer does it itself, once.

Worst case: the disk is full. The helper learns it a file ahead, tries again each RETRY_MS, and meanwhile the port's
`room` tells how little is left. Who appends more all the same is answered ENOSPC; what was published stays readable.
What else goes wrong in the helper is the next append's answer: a log that fails must stop who writes to it.
"""

import errno
import logging
import mmap
import os
import select
import threading
from pathlib import Path

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport UINT32_MAX, UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from engine.messages import layout
from engine.messages.errors import JournalCorrupt
from engine.messages.ports cimport EventLogPort
from persistence.disk import sync_directory

__all__ = [
    "EventLogReader", "EventLogWriter", "INDEX_SLOTS", "MARK", "file_bytes", "file_name", "log_state", "published_end",
]

log = logging.getLogger(__name__)

cdef extern from * nogil:
    """
    static inline uint64_t byline_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void byline_release(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    uint64_t byline_acquire(const uint64_t* p)
    void byline_release(uint64_t* p, uint64_t v)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_write(int fd, uint64_t value)

cdef extern from "<errno.h>" nogil:
    int ENOSPC, EINVAL, EAGAIN, EIO
    int c_errno "errno"

cdef extern from "persistence/aside.h" nogil:
    ctypedef struct byline_zeros_work:
        int file
        uint64_t size
    ctypedef struct byline_touch_work:
        void* base
        uint64_t size
    int byline_zeros(void* work) noexcept
    int byline_touch(void* work) noexcept
    int byline_aside(int (*work)(void*) noexcept nogil, void* argument)

cdef enum:
    BLOCK = 1024
INDEX_SLOTS = BLOCK
MAGIC = b"BYLINEE\0"
FORMAT = 1
DIRECTORY = "events"
MARK = "kept"
"""Name of the file of `persistence.event_mark`."""
FILE_SLOTS = 131_072
"""16 MiB of events a file. A power of two."""
RETRY_MS = 500
PENDING = 1 << 18
"""Commands that may be appended and not yet published."""


cdef struct Control:
    # One page, shared. Bytes 0 … 63 are written at the start of a run, the rest while running.
    uint8_t magic[8]
    uint32_t version
    uint32_t file_slots
    uint8_t identity[16]     # of the journal
    uint8_t boot[16]
    uint64_t generation      # of the files; odd while they are rebuilt
    uint64_t padding
    uint64_t published_slots
    uint64_t published_sequence


cdef struct Entry:
    uint64_t slot
    uint64_t sequence


def file_bytes(file_slots: int) -> int:
    """Size of each file: its slots, then its index."""
    return file_slots * layout.SLOT_BYTES + file_slots // INDEX_SLOTS * 16


def file_name(generation: int, number: int) -> str:
    """Of the file that begins with slot `number` × file_slots."""
    return f"{generation:08d}-{number:08d}.events"


def log_state(directory: Path):
    """(identity, boot, generation, published_sequence) of the log in `directory`, or None if there is no usable one.

    The sequence is at most that of the last published event; `published_end` says which that is.
    """
    path = directory / "control"
    if not path.exists():
        return None
    page = path.read_bytes()
    if len(page) != 4096 or page[:8] != MAGIC or int.from_bytes(page[8:12], "little") != FORMAT:
        return None
    return page[16:32], page[32:48], int.from_bytes(page[48:56], "little"), int.from_bytes(page[72:80], "little")


def published_end(directory: Path) -> int:
    """The last sequence of which readers may have seen events: where a log of this boot goes on.

    Raises:
        OSError, ValueError: a file of it is missing, or cut.
    """
    return EventLogReader(directory)._last_published()


cdef int _do(int (*work)(void*) noexcept nogil, void* argument, bint aside) except -1:
    """Milliseconds of work without the interpreter. Raises OSError."""
    cdef int error
    with nogil:
        error = byline_aside(work, argument) if aside else work(argument)
    if error:
        raise OSError(error, f"event log: {os.strerror(error)}")
    return 0


cdef class EventLogWriter:
    """The one writer. `append` and `publish` from one thread."""

    cdef EventLogPort port_struct
    cdef Control* control
    cdef uint8_t* base           # of the mapped current file
    cdef Entry* index
    cdef uint8_t* next_base      # prepared by the helper, or NULL
    cdef uint64_t* ends          # slot behind the last event of a sequence, by sequence
    cdef readonly uint64_t file_slots
    cdef uint64_t slot, appended, first_slot, next_block, number, pending
    cdef int wake_fd
    cdef object directory, control_map, control_view, maps, thread, stopping, lock
    cdef readonly object failure  # OSError that stopped the log or keeps its next file from it, or None
    cdef int error
    cdef int broken              # errno that the helper ended with, 0 while it is well
    cdef int shortage            # errno of the helper's last attempt at the next file, 0 if it went well

    def __cinit__(self):
        self.wake_fd = -1

    def __init__(self, directory: Path, identity: bytes, boot: bytes, *, keep_sequence: int | None = None,
                 mark=None, threads: bool = True, file_slots: int = FILE_SLOTS):
        """Open for writing.

        keep_sequence: None starts a new log before sequence 1. A number goes on behind that sequence: what was
        appended after it (never published) is cut; `published_end` must have shown that it is published.
        mark: the log is of another boot, and goes on from this `event_mark.Mark` alone.

        Raises:
            OSError: the disk refuses.
            ValueError: the log cannot go on at `keep_sequence`.
        """
        if file_slots < 2 * INDEX_SLOTS or file_slots & (file_slots - 1):
            raise ValueError(f"file_slots {file_slots}: must be a power of two from {2 * INDEX_SLOTS}")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.file_slots = file_slots
        self.pending = PENDING
        self.ends = <uint64_t*>calloc(self.pending, 8)
        if self.ends == NULL:
            raise MemoryError
        self.maps = {}
        self.lock = threading.Lock()
        self.stopping = False
        self.failure = None
        descriptor = os.open(directory / "control", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, 4096)
            self.control_map = mmap.mmap(descriptor, 4096)
        finally:
            os.close(descriptor)
        cdef uint8_t[::1] view = self.control_map
        self.control_view = view
        self.control = <Control*>&view[0]
        if mark is not None:
            self._restore(mark, boot)
        elif keep_sequence is None:
            self._renew(identity, boot)
        else:
            self._continue(keep_sequence)
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        cdef EventLogPort* port = &self.port_struct
        port.context = <void*>self
        port.append = port_append
        port.publish = port_publish
        port.room = port_room
        self.thread = None
        if threads:
            self.thread = threading.Thread(target=self._prepare_ahead, name="event-log", daemon=True)
            self.thread.start()
            os.eventfd_write(self.wake_fd, 1)

    def __dealloc__(self):
        if self.wake_fd >= 0:  # never closed: a start that failed, or a life that a simulated crash ended
            os.close(self.wake_fd)
        free(self.ends)

    def _renew(self, identity, boot):
        """Nothing of the old log is visible from the first store on; readers find the new files when they stand."""
        generation = (self.control.generation | 1) + 1
        byline_release(&self.control.generation, generation - 1)
        self.control.published_sequence = 0
        self.control.published_slots = 0
        (self.directory / MARK).unlink(missing_ok=True)
        sync_directory(self.directory)  # a mark of the old log must not come back
        for path in self.directory.glob("*.events"):
            path.unlink()
        self._name(identity, boot)
        self._set_file(0, self._map(0, generation))
        byline_release(&self.control.generation, generation)

    def _name(self, identity, boot):
        self.control_map[8:12] = FORMAT.to_bytes(4, "little")
        self.control_map[12:16] = self.file_slots.to_bytes(4, "little")
        self.control_map[16:32] = identity
        self.control_map[32:48] = boot
        self.control_map[0:8] = MAGIC

    def _restore(self, mark, boot):
        """Of what another boot left only whole files that the mark names count, and what it holds itself."""
        if mark.file_slots != self.file_slots:
            raise ValueError(f"event log of files of {mark.file_slots} slots, not {self.file_slots}")
        byline_release(&self.control.generation, mark.generation | 1)
        number = mark.slots // self.file_slots
        kept = {file_name(mark.generation, whole) for whole in range(number)}
        for path in self.directory.glob("*.events"):
            if path.name not in kept:
                path.unlink()
        begun = self._map(number, mark.generation)
        begun[:len(mark.tail)] = mark.tail
        begun[self.file_slots * 128:] = mark.index
        self._name(mark.identity, boot)
        self.control.published_slots = mark.slots
        self.control.published_sequence = mark.sequence
        byline_release(&self.control.generation, mark.generation)
        self._continue(mark.sequence)

    def _continue(self, sequence):
        cdef uint64_t published = self.control.published_sequence
        if self.control.file_slots == self.file_slots and not self.control.generation & 1:
            published = published_end(self.directory)
        if published > sequence or self.control.file_slots != self.file_slots or self.control.generation & 1:
            raise ValueError(f"event log published up to {published}, cannot go on at {sequence}")
        self.appended = published
        self.control.published_sequence = published  # killed between its two stores, `publish` left an earlier one
        self.slot = self.control.published_slots
        self._set_file(self.slot // self.file_slots, self._map(self.slot // self.file_slots))
        for path in self.directory.glob("*.events"):
            if path.name > file_name(self.control.generation, self.number):
                path.unlink()
        # Index entries of commands that are cut now go too.
        cdef uint64_t local = 0, count = self.file_slots // BLOCK
        while local < count and self.index[local].sequence and self.index[local].slot < self.slot:
            local += 1
        self.next_block = self.number * count + local
        while local < count:
            self.index[local] = Entry(0, 0)
            local += 1

    def _map(self, number, generation=None, aside=False):
        """Map file `number`, allocated and touched, so that later stores neither fault nor find the disk full."""
        cdef byline_zeros_work work
        cdef byline_touch_work touch
        memset(&work, 0, sizeof(work))
        generation = self.control.generation if generation is None else generation
        size = file_bytes(self.file_slots)
        descriptor = os.open(self.directory / file_name(generation, number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            is_new = os.fstat(descriptor).st_size < size
            os.posix_fallocate(descriptor, 0, size)
            if is_new:
                work.file = descriptor
                work.size = size
                _do(byline_zeros, &work, aside)
            mapped = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        cdef uint8_t[::1] view = mapped
        touch.base = &view[0]
        touch.size = size
        _do(byline_touch, &touch, aside)
        return mapped

    def _set_file(self, number, mapped):
        cdef uint8_t[::1] view = mapped
        self.maps[number] = (mapped, view)
        self.maps.pop(number - 2, None)
        self.base = &view[0]
        self.index = <Entry*>(self.base + self.file_slots * 128)
        self.number = number
        self.first_slot = number * self.file_slots

    def _prepare_ahead(self):
        try:
            self._prepare_each()
        except BaseException as error:
            self.broken = EIO
            self.failure = OSError(EIO, f"event log: {error!r}")
            log.exception("event log status=failed")

    def _prepare_each(self):
        poller = select.poll()
        poller.register(self.wake_fd, select.POLLIN)
        while True:
            if poller.poll(RETRY_MS if self.shortage else None):
                os.eventfd_read(self.wake_fd)
            if self.stopping:
                return
            number = self.number + 1
            try:
                with self.lock:
                    if self.number + 1 == number and number not in self.maps:
                        self.maps[number] = (self._map(number, aside=True), None)
                    self.shortage = 0
                    if not self.error:
                        self.failure = None
            except OSError as error:
                self.failure = error
                self.shortage = error.errno or EIO

    cdef int _cross(self) noexcept with gil:
        """Go on in the next file. The slow path: once in FILE_SLOTS slots."""
        try:
            with self.lock:
                number = self.number + 1
                ready = self.maps.get(number)
                self._set_file(number, ready[0] if ready else self._map(number))
            eventfd_write(self.wake_fd, 1)
            return 0
        except OSError as error:
            self.failure = error
            return error.errno or EIO
        except BaseException as error:  # 0 would be taken for a next file
            self.failure = OSError(EIO, f"event log: {error!r}")
            log.exception("event log status=failed")
            return EIO

    cdef int _append(self, const uint8_t* slots, uint32_t count, uint64_t sequence) noexcept nogil:
        cdef uint64_t at, part, block
        if self.broken and not self.error:
            self.error = self.broken
        if self.error:
            return self.error
        if sequence != self.appended + 1:
            return EINVAL
        if sequence - self.control.published_sequence >= self.pending:
            return EAGAIN
        if count:
            if self.slot - self.first_slot == self.file_slots:
                self.error = self._cross()
                if self.error:
                    return self.error
            block = self.slot // BLOCK
            while self.next_block <= block:
                # Entries of a file that a long command ran over stay 0: a reader takes the one before.
                if self.next_block * BLOCK >= self.first_slot:
                    self.index[self.next_block - self.first_slot // BLOCK] = Entry(self.slot, sequence)
                self.next_block += 1
        at = self.slot
        while count:
            if at - self.first_slot == self.file_slots:
                self.error = self._cross()
                if self.error:
                    return self.error
            part = self.first_slot + self.file_slots - at
            if part > count:
                part = count
            memcpy(self.base + (at - self.first_slot) * 128, slots, part * 128)
            slots += part * 128
            at += part
            count -= <uint32_t>part
        self.slot = at
        self.appended = sequence
        self.ends[sequence & (self.pending - 1)] = at
        return 0

    cdef uint64_t _room(self) noexcept nogil:
        if self.error:
            return 0
        if self.broken:
            return UINT64_MAX  # `busy` for ever would hide it: the next append is to say so
        return self.first_slot + self.file_slots - self.slot if self.shortage else UINT64_MAX

    cdef void _publish(self, uint64_t sequence) noexcept nogil:
        if sequence <= self.control.published_sequence or sequence > self.appended:
            return
        # In this order: after a kill between the two the slots tell the sequence, see published_end.
        byline_release(&self.control.published_slots, self.ends[sequence & (self.pending - 1)])
        byline_release(&self.control.published_sequence, sequence)

    def port(self):
        """The capsule "byline.EventLogPort". The writer must outlive its user."""
        return PyCapsule_New(&self.port_struct, "byline.EventLogPort", NULL)

    def append(self, const uint8_t[::1] slots, sequence: int) -> int:
        """All events of one command (whole slots, maybe none). 0, or an errno as the port says."""
        if slots.shape[0] % 128:
            raise ValueError(f"events of {slots.shape[0]} bytes: must be slots of 128")
        return self._append(&slots[0] if slots.shape[0] else NULL, slots.shape[0] // 128, sequence)

    def append_batch(self, const uint8_t[::1] slots, first_sequence: int, last_sequence: int) -> int:
        """The events of the commands first … last one behind the other, and publish them. 0, or an errno.

        Each event's head names its command; a sequence without events is appended without.
        """
        cdef uint64_t at = 0, begin, end = slots.shape[0] // 128, sequence = first_sequence, last = last_sequence
        cdef int error = 0
        with nogil:
            while sequence <= last and not error:
                begin = at
                while at < end and (<const uint64_t*>&slots[at * 128])[0] == sequence:
                    at += slots[at * 128 + 29] if slots[at * 128 + 29] else 1
                error = self._append(&slots[begin * 128] if at > begin else NULL, <uint32_t>(at - begin), sequence)
                if not error:
                    self._publish(sequence)
                sequence += 1
        if not error and at != end:
            raise ValueError(f"event slot {at} is not of a sequence from {first_sequence} to {last_sequence}")
        return error

    def publish(self, sequence: int):
        """Readers may see the events of every command up to `sequence`."""
        self._publish(sequence)

    @property
    def sequence(self) -> int:
        """Last appended."""
        return self.appended

    @property
    def slot_count(self) -> int:
        """Appended in all: where the next event goes."""
        return self.slot

    @property
    def published_sequence(self) -> int:
        return self.control.published_sequence

    @property
    def generation(self) -> int:
        return self.control.generation

    def close(self):
        """End the helper. The files stay as they are; appended and unpublished events are cut at the next start."""
        if self.thread is not None:
            self.stopping = True
            os.eventfd_write(self.wake_fd, 1)
            self.thread.join()
            self.thread = None
        if self.wake_fd >= 0:
            os.close(self.wake_fd)
            self.wake_fd = -1
        self.error = EIO


cdef int port_append(void* context, const uint8_t* slots, uint32_t count, uint64_t sequence) noexcept nogil:
    return (<EventLogWriter>context)._append(slots, count, sequence)


cdef void port_publish(void* context, uint64_t sequence) noexcept nogil:
    (<EventLogWriter>context)._publish(sequence)


cdef uint64_t port_room(void* context) noexcept nogil:
    return (<EventLogWriter>context)._room()


cdef class EventLogReader:
    """An EventSource on a directory, from any process. One object has one position, at the very beginning at first.

    If the log is rebuilt while it is followed, the reader waits until the new one has passed its position and goes on
    there: the events of a sequence are the same, as they come from the same journal.
    """

    cdef object directory, control_map, control_view, maps
    cdef Control* control
    cdef uint64_t files_of, file_slots, slot, after
    cdef bint lost

    def __init__(self, directory: Path):
        """Open the log.

        Raises:
            FileNotFoundError: there is none yet.
        """
        with (directory / "control").open("rb") as file:
            if os.fstat(file.fileno()).st_size < 4096:
                raise FileNotFoundError(errno.ENOENT, "event log is being made", str(directory / "control"))
            self.control_map = mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_READ)
        cdef const uint8_t[::1] view = self.control_map
        self.control_view = view
        self.control = <Control*>&view[0]
        self.directory = directory
        self.maps = {}
        self.lost = True

    @property
    def head_sequence(self) -> int:
        """The last sequence whose events are published."""
        return byline_acquire(&self.control.published_sequence)

    @property
    def generation(self) -> int:
        """Changes when the log was built anew; odd while that begins."""
        return byline_acquire(&self.control.generation)

    @property
    def identity(self) -> bytes:
        """Of the journal that the log comes from."""
        return self.control_map[16:32]

    @property
    def after_sequence(self) -> int:
        """The last sequence that `read` gave out or `seek` named."""
        return self.after

    def seek(self, after_sequence: int) -> None:
        """Continue with the first event of a command later than `after_sequence`; 0 is the very beginning.

        A sequence beyond the head is waited for.
        """
        if after_sequence < 0:
            raise ValueError(f"after_sequence {after_sequence}: must not be negative")
        self.after = after_sequence
        self.lost = True
        self._find()

    def read(self, limit_slots: int = 65_536):
        """The next published slots (dtype layout.EVENT), whole commands only; empty if there are none now. A copy.

        Raises:
            JournalCorrupt: an event does not come later than the one before it.
        """
        cdef uint64_t head, count, end, sequence, first = 0
        if limit_slots < 1:
            raise ValueError(f"limit_slots {limit_slots}: must be positive")
        if byline_acquire(&self.control.generation) != self.files_of:
            self.lost = True
        if self.lost and not self._find():
            return np.empty(0, layout.EVENT)
        # Slots are published before the sequence, so these slots reach at least to this sequence.
        sequence = byline_acquire(&self.control.published_sequence)
        head = byline_acquire(&self.control.published_slots)
        if head <= self.slot:
            if head == self.slot and sequence > self.after:
                # Loaded again after the slots: nothing was published in between, so all up to there was without events.
                if byline_acquire(&self.control.published_slots) == head:
                    self.after = sequence
            return np.empty(0, layout.EVENT)
        count = head - self.slot
        if count > limit_slots:
            count = limit_slots
        out = self._copy(self.slot, count)
        if count < head - self.slot:  # cut at the last command boundary, or go on to the end of the only command
            end = self._last_boundary(out, count)
            while end == 0:
                count = min(head - self.slot, count * 2)
                out = self._copy(self.slot, count)
                end = count if count == head - self.slot else self._last_boundary(out, count)
            out = out[:end]
            count = end
        if byline_acquire(&self.control.generation) != self.files_of:
            self.lost = True
            return np.empty(0, layout.EVENT)
        self.after = self._last_sequence(out)
        self.slot += count
        return out

    cdef bint _find(self):
        """Set the position behind `after`. False if the log is not there yet."""
        cdef uint64_t head, sequence, low, high, middle
        cdef Entry entry
        generation = byline_acquire(&self.control.generation)
        if generation & 1 or generation == 0:
            return False
        if generation != self.files_of:
            self.maps = {}
            self.files_of = generation
            self.file_slots = self.control.file_slots
        sequence = byline_acquire(&self.control.published_sequence)
        head = byline_acquire(&self.control.published_slots)
        if sequence < self.after:
            return False
        low, high = 0, (head - 1) // BLOCK + 1 if head else 0  # the last entry that begins no later than wanted
        while high > low + 1:
            middle = (low + high) // 2
            entry = self._entry(middle, low, head)
            if entry.sequence and entry.slot < head and entry.sequence <= self.after:
                low = middle
            else:
                high = middle
        # Its own entry may be of a command that is not published yet: then the one before it counts.
        self.slot = self._entry(low, 0, head).slot if head else 0
        self._walk(head)
        self.lost = False
        return True

    cdef Entry _entry(self, uint64_t block, uint64_t low, uint64_t head):
        """Entry of a block, or of the nearest one before (not before `low`) that a long command left empty."""
        cdef uint64_t per_file = self.file_slots // BLOCK
        cdef const uint8_t[::1] view
        cdef Entry entry = Entry(0, 0)
        while True:
            view = self._file(block // per_file)
            memcpy(&entry, &view[self.file_slots * 128 + (block % per_file) * 16], 16)
            if (entry.sequence and entry.slot < head) or block <= low:
                return entry
            block -= 1

    cdef uint64_t _walk(self, uint64_t head) except? 0:
        """From a command boundary over the heads to the first command later than `after`. The last sequence passed."""
        cdef const uint8_t[::1] view
        cdef uint64_t number = 0, sequence = 0, passed = 0
        cdef const uint8_t* at
        view = None
        while self.slot < head:
            if view is None or self.slot // self.file_slots != number:
                number = self.slot // self.file_slots
                view = self._file(number)
            at = &view[(self.slot % self.file_slots) * 128]
            sequence = (<const uint64_t*>at)[0]
            if sequence > self.after:
                break
            passed = sequence
            self.slot += at[29] if at[29] else 1
        return passed

    def _last_published(self):
        """See `published_end`. Walks from the last index entry on: at most a block and a command's length."""
        cdef uint64_t head, sequence, last
        self.files_of = byline_acquire(&self.control.generation)
        self.file_slots = self.control.file_slots
        sequence = byline_acquire(&self.control.published_sequence)
        head = byline_acquire(&self.control.published_slots)
        if head == 0:
            return sequence
        self.slot = self._entry((head - 1) // BLOCK, 0, head).slot
        self.after = UINT64_MAX
        last = self._walk(head)
        self.after = 0
        return max(sequence, last)

    def _file(self, number):
        view = self.maps.get(number)
        if view is None:
            with (self.directory / file_name(self.files_of, number)).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), file_bytes(self.file_slots), access=mmap.ACCESS_READ)
            if len(self.maps) >= 4:  # a reader goes forward: the oldest map is done with
                self.maps.pop(next(iter(self.maps)))
            self.maps[number] = view = mapped
        return view

    cdef object _copy(self, uint64_t slot, uint64_t count):
        out = np.empty(count, layout.EVENT)
        cdef uint8_t[::1] target = out.view(np.uint8)
        cdef const uint8_t[::1] view
        cdef uint64_t done = 0, part, local
        while done < count:
            view = self._file((slot + done) // self.file_slots)
            local = (slot + done) % self.file_slots
            part = min(count - done, self.file_slots - local)
            memcpy(&target[done * 128], &view[local * 128], part * 128)
            done += part
        return out

    cdef uint64_t _last_boundary(self, out, uint64_t count):
        """Slots of the whole commands in `out`: where its last command begins, as that may go on behind it."""
        cdef const uint8_t[::1] view = out.view(np.uint8)
        cdef uint64_t at = 0, begin = 0, sequence = 0
        while at < count:
            if (<const uint64_t*>&view[at * 128])[0] != sequence:
                sequence = (<const uint64_t*>&view[at * 128])[0]
                begin = at
            at += view[at * 128 + 29] if view[at * 128 + 29] else 1
        return begin

    cdef uint64_t _last_sequence(self, out) except? 0:
        """Of the last command in `out`. Each comes later than the one before, each event later within its command."""
        cdef const uint8_t[::1] view = out.view(np.uint8)
        cdef uint64_t at = 0, before, sequence = self.after, count = view.shape[0] // 128
        cdef int64_t index = UINT32_MAX  # `after` was whole: nothing of it can follow
        while at < count:
            before = sequence
            sequence = (<const uint64_t*>&view[at * 128])[0]
            if sequence < before or (sequence == before and (<const uint32_t*>&view[at * 128 + 16])[0] <= index):
                raise JournalCorrupt(
                    f"event log: sequence={sequence} at slot={self.slot + at} follows sequence={before}: "
                    "stop the exchange and remove DATA/events, it is built anew from the journal"
                )
            index = (<const uint32_t*>&view[at * 128 + 16])[0]
            at += view[at * 128 + 29] if view[at * 128 + 29] else 1
        return sequence
