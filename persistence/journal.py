"""The command journal: segments on a disk, the ring before them, and the keeper that has the next segment ready.

A command is durable when `Ring` says so; this module owns what happens around it: the files and their headers, a
zero-filled spare prepared at a low rate off the hot path, the change of segment, and the named status.

    status      running     all well
                disk_full   no space for the next segment. What is prepared is still used, `room` falls to 0 (so the
                            caller goes cancel-only by its reserve); the keeper tries again each second
                failed      a write, sync or rename failed. Final: nothing is tried again
                closed

Modes. `durable`: groups back to back. `memory`: the same writer, one group per `pace_ns`, never back to back; a crash
of the machine loses up to that much. `inline`: publish() writes and syncs on the caller's thread, for one core; at the
end of a segment it takes the next one there too, and waits if the keeper is not ready. With no space for one it returns
without having written: `durable_sequence` says so, and a later publish() writes it once there is space.
Worst case of a change of segment: two syncs, a rename and a turn of the interpreter; the ring takes what comes
meanwhile. Nothing here deletes a record.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
import threading
import time
from dataclasses import dataclass
from typing import Literal

from engine.messages.errors import JournalFailed
from engine.messages.layout import SLOT_BYTES
from engine.messages.ports import Clock, Disk, File
from persistence import segments
from persistence.ring import NEEDS_SEGMENT, WROTE, Ring, write_zeros
from persistence.segments import HEADER_BYTES, Header, Segment, Tail

__all__ = ["Journal", "JournalSettings", "Mode", "least_segment_bytes", "new_tail"]

log = logging.getLogger(__name__)

Mode = Literal["durable", "memory", "inline"]
RECORD_SLOTS_MAX = 255
PAGE_BYTES = 4_096
MARK = "journal.mark"


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Sizes and pace. All are checked when a Journal is made."""

    mode: Mode = "durable"
    segment_bytes: int = 64 << 20
    ring_slots: int = 65_536
    reserved_slots: int = 8_192
    """Below this room only cancels should be taken. The journal only tells `room`, the caller obeys; but segments
    are so large that while the disk has space the longest command, and a tick, have room above it."""
    pace_ns: int = 1_000_000
    """Between two groups in mode `memory`."""
    fill_bytes_per_second: int = 4 << 20
    """At which the next segment is made, or faster where the current one is used faster."""
    writer_cpus: frozenset[int] | None = None
    """CPUs of the writer thread. None: those the process is not pinned to, or all."""


def least_segment_bytes(reserved_slots: int) -> int:
    """The smallest segments that keep a reserve of so many slots for cancels.

    At the end of one, all but 254 slots of the next are room: the reserve, and above it the longest command and a tick.
    """
    bytes_used = HEADER_BYTES + (2 * RECORD_SLOTS_MAX + reserved_slots) * SLOT_BYTES
    return -(-bytes_used // PAGE_BYTES) * PAGE_BYTES


def new_tail(identity: bytes | None = None) -> Tail:
    """The tail of a journal that does not exist yet. `identity`: 16 bytes, random if not given."""
    identity = os.urandom(16) if identity is None else identity
    if len(identity) != 16:
        raise ValueError(f"identity of {len(identity)} bytes: must be 16")
    return Tail(identity, 0, segments.first_chain(identity), None, 0)


class Journal:
    """The journal from its tail on. `close` it, or kill the process: both lose nothing that was durable."""

    def __init__(
        self, disk: Disk, tail: Tail, clock: Clock, settings: JournalSettings | None = None, *, threads: bool = True
    ) -> None:
        """Open behind `tail`, as `segments.scan` or `new_tail` gave it; an empty journal gets its first segment now.

        `threads` False: no writer and no keeper run, `step` does their work (simulation). Mode `inline` has the keeper.

        Raises:
            JournalFailed: the disk refuses.
            ValueError: sizes that do not fit together.
        """
        settings = settings or JournalSettings()
        if not 0 <= settings.reserved_slots < settings.ring_slots:
            raise ValueError(
                f"reserved_slots {settings.reserved_slots}: must be 0 or more, and less than ring_slots "
                f"{settings.ring_slots}"
            )
        least = least_segment_bytes(settings.reserved_slots)
        if settings.segment_bytes % PAGE_BYTES or settings.segment_bytes < least:
            raise ValueError(
                f"segment_bytes {settings.segment_bytes}: must be a multiple of {PAGE_BYTES}, and at least {least} "
                f"with reserved_slots {settings.reserved_slots}"
            )
        self.settings = settings
        self.identity = tail.identity
        self._disk = disk
        self._clock = clock
        self._slots = (settings.segment_bytes - HEADER_BYTES) // SLOT_BYTES
        self._spare: File | None = None
        self._disk_full = False
        self._closed = False
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._preparing = threading.Lock()
        """Held by the keeper while it makes the spare, and by publish() of mode `inline` while it takes it."""
        self._mark: mmap.mmap | None = None
        self._file: File | None = None
        inline = settings.mode == "inline"
        try:
            file, segment, used = self._open_segment(tail)
            self._ring = Ring(
                slots=settings.ring_slots, sequence=tail.sequence, chain=tail.chain,
                real=hasattr(file, "fileno"), inline=inline,
                pace_ns=settings.pace_ns if settings.mode == "memory" else 0, cpus=_writer_cpus(settings.writer_cpus),
            )  # fmt: skip
            self._take(file, segment, used)
            self._ring.roll = self._roll_inline if inline else None
            self._open_mark(tail)
            if threads:
                self._keeper = threading.Thread(target=self._keep, name="journal-keeper", daemon=True)
                self._keeper.start()
                if not inline:
                    self._ring.start()
            else:
                self._prepare_or_say(hurry=True)
        except OSError as error:
            raise JournalFailed(f"opening the journal: {error}") from error

    # ------------------------------------------------------------ the sequencer's side

    def port(self) -> object:
        """PyCapsule "byline.JournalPort". The journal must outlive its user."""
        return self._ring.port()

    def fileno(self) -> int:
        """An eventfd, readable after each group and after a failure: for `loop.add_reader`."""
        return self._ring.wakeup_fd

    def drain_wakeup(self) -> None:
        """Take the wake-up. Look at `durable_sequence` after this, not before."""
        try:
            os.eventfd_read(self._ring.wakeup_fd)
        except BlockingIOError:
            return

    def append(self, record: bytearray) -> int:
        """Append one record from Python, filling in its chain and crc32c. 0 taken, 1 ring full, 2 failed."""
        return self._ring.append(record)

    def append_all(self, records: bytearray) -> int:
        """Append records laid one behind the other; returns how many were taken before the ring refused."""
        return self._ring.append_all(records)

    def publish(self) -> None:
        """Let the writer have what was appended; in mode `inline`, write and sync it now."""
        self._ring.publish()

    def step(self) -> int:
        """One step of the writer by hand, a change of segment included: ring.IDLE, WROTE, NEEDS_SEGMENT or FAILED.

        NEEDS_SEGMENT is left only when there is no space for one.
        """
        result = self._ring.step()
        if result == NEEDS_SEGMENT and self._roll(hurry=True):
            result = self._ring.step()
        if result == WROTE and self._spare is None:
            self._prepare_or_say(hurry=True)
        return result

    @property
    def durable_sequence(self) -> int:
        return self._ring.durable

    @property
    def appended_sequence(self) -> int:
        return self._ring.sequence

    @property
    def chain(self) -> int:
        """The chain word of the last appended record."""
        return self._ring.chain

    @property
    def room(self) -> int:
        """Slots that can still be appended: of the ring, and of prepared file space."""
        return self._ring.room

    @property
    def failed(self) -> int:
        """0, or the errno that stopped the journal."""
        return self._ring.failed

    @property
    def status(self) -> str:
        """running, disk_full, failed or closed."""
        if self._ring.failed:
            return "failed"
        return "closed" if self._closed else "disk_full" if self._disk_full else "running"

    @property
    def group_count(self) -> int:
        return self._ring.groups

    def wait_durable(self, sequence: int, timeout_seconds: float = 10.0) -> None:
        """Block until `sequence` is durable. For tools and tests; the loop uses `fileno`.

        Raises:
            JournalFailed: it will never be, or not in time.
        """
        poll = select.poll()
        poll.register(self._ring.wakeup_fd, select.POLLIN)
        end = time.monotonic() + timeout_seconds
        while self._ring.durable < sequence:
            if self._ring.failed:
                raise JournalFailed(f"sequence {sequence}: {os.strerror(self._ring.failed)}")
            if time.monotonic() > end:
                raise JournalFailed(f"sequence {sequence} is not durable after {timeout_seconds} s ({self.status})")
            if poll.poll(50):
                self.drain_wakeup()
            if self._ring.inline:
                self._ring.publish()

    def close(self) -> None:
        """Write what was published, end the threads, close the files. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._disk_full and self._keeper is not None:
            self._ring.stop(drain=False)
        elif self._keeper is not None:
            self._ring.stop()
        self._stopping.set()
        self._ring.give_up_zeros()
        if self._keeper is not None:
            os.eventfd_write(self._ring.keeper_fd, 1)
            self._keeper.join()
        else:
            while self._ring.step() == WROTE:
                continue
        self._ring.set_mark(None)
        self._ring.roll = None
        for file in (self._file, self._spare):
            if file is not None:
                file.close()

    # ------------------------------------------------------------ segments

    def _open_segment(self, tail: Tail) -> tuple[File, Segment, int]:
        if tail.segment is not None:
            return self._disk.open(tail.segment.path), tail.segment, tail.used_slots
        header = Header(tail.identity, 1, tail.chain, bytes(32), 0, self._clock.now_ns(), self.settings.segment_bytes)
        return self._create(header, hurry=True)

    def _create(self, header: Header, *, hurry: bool) -> tuple[File, Segment, int]:
        """Turn the spare into the segment of `header`: durable under its name on return.

        A spare that takes no header stays one, for the next try writes it whole: where a disk copies on write a full
        one refuses it, and the spare is the only space that there is. One without a sure name is made anew.
        """
        if self._spare is None:
            self._prepare(hurry=hurry)
        file = self._spare
        assert file is not None
        segments.write_all(file, 0, header.pack())
        file.sync()
        self._spare = None
        path = segments.segment_name(header.first_sequence)
        try:
            self._disk.rename(segments.SPARE, path)
        except OSError:
            file.close()
            raise
        return file, Segment(path, header, self._slots), 0

    def _take(self, file: File, segment: Segment, used: int) -> None:
        done = segments.view(self._disk, segment.path)[HEADER_BYTES:][: used * SLOT_BYTES] if used else b""
        handle = file.fileno() if self._ring.real else id(file)  # type: ignore[attr-defined]
        before, self._file = self._file, file
        self._ring.set_segment(file, handle, segment.slot_count, used, self._limit(segment.slot_count - used), done)
        if before is not None:
            before.close()

    def _limit(self, unused_slots: int) -> int:
        """Slots that surely fit in what is prepared. A record never straddles, so with a spare behind it the end of a
        segment may stay unused. At the end of all that is prepared what fits nowhere is not taken, and each slot
        counts: cancels need one.
        """
        if self._spare is None:
            return unused_slots
        return max(0, unused_slots - RECORD_SLOTS_MAX + 1) + self._slots

    def _roll(self, *, hurry: bool) -> bool:
        """The writer waits for a segment: seal the last one by naming its digest in the header of the next."""
        digest, slots, sequence, chain = self._ring.segment_end()
        header = Header(
            self.identity, sequence + 1, chain, digest, slots, self._clock.now_ns(), self.settings.segment_bytes
        )
        try:
            self._take(*self._create(header, hurry=hurry))
        except OSError as error:
            self._say(error)
            return False
        self._disk_full = False
        log.info("journal segment=%s first_sequence=%d", segments.segment_name(sequence + 1), sequence + 1)
        return True

    def _roll_inline(self) -> bool:
        """`_roll` on the thread of publish(); the keeper makes the next spare."""
        self._ring.hurry(True)
        with self._preparing:
            self._ring.hurry(False)
            rolled = self._roll(hurry=True)
            if self._keeper is None and rolled:
                self._prepare_or_say(hurry=True)
        if rolled:
            os.eventfd_write(self._ring.keeper_fd, 1)
        return rolled

    def _prepare(self, *, hurry: bool) -> None:
        """Make the spare: zero-filled, synced, then given its name. A file left by a crash is made anew."""
        temporary = segments.SPARE + ".tmp"
        for name in (segments.SPARE, temporary):
            if name.rpartition("/")[2] in self._disk.list(segments.DIRECTORY):
                self._disk.remove(name)
        file = self._disk.open(temporary, create=True)
        try:
            self._fill(file, hurry)
            self._disk.rename(temporary, segments.SPARE)
        except OSError:
            file.close()
            if temporary.rpartition("/")[2] in self._disk.list(segments.DIRECTORY):
                self._disk.remove(temporary)
            raise
        self._spare = file

    def _fill(self, file: File, hurry: bool) -> None:
        """Zeros, really written: an only allocated file makes the first sync of each page slow."""
        size = self.settings.segment_bytes
        if hasattr(file, "fileno"):
            write_zeros(file.fileno(), size, self.settings.fill_bytes_per_second, None if hurry else self._ring)
            return
        chunk = bytes(1 << 20)
        for offset in range(0, size, len(chunk)):
            segments.write_all(file, offset, chunk[: min(len(chunk), size - offset)])
        file.sync()

    def _prepare_or_say(self, *, hurry: bool) -> None:
        try:
            self._prepare(hurry=hurry)
        except OSError as error:
            if not self._stopping.is_set():  # else what was begun is not wanted any more
                self._say(error)
            return
        self._disk_full = False
        self._ring.set_limit(self._limit(self._ring.unused_slots))

    def _say(self, error: OSError) -> None:
        """No space while preparing can pass; anything else is final."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            if not self._disk_full:
                log.error("journal status=disk_full room=%d error=%r", self._ring.room, str(error))
            self._disk_full = True
            return
        log.error("journal status=failed error=%r", str(error))
        self._ring.fail(error.errno or errno.EIO)

    def _keep(self) -> None:
        """The keeper's thread. Whatever ends it stops the journal: without a keeper the writer would wait for ever."""
        try:
            self._keep_ready()
        except BaseException as error:
            self._ring.fail(getattr(error, "errno", None) or errno.EIO)
            log.exception("journal status=failed")

    def _keep_ready(self) -> None:
        """A spare at hand, a new segment when the writer asks."""
        poll = select.poll()
        poll.register(self._ring.keeper_fd, select.POLLIN)
        waiting = False
        while not self._stopping.is_set() and not self._ring.failed:
            if self._spare is None and not waiting:
                with self._preparing:
                    if self._spare is None:
                        self._prepare_or_say(hurry=False)
            if poll.poll(1000 if self._spare is None or waiting else None):
                os.eventfd_read(self._ring.keeper_fd)
                waiting = not self._stopping.is_set() and not self._ring.inline
            if waiting:
                waiting = not self._roll(hurry=True)

    def _open_mark(self, tail: Tail) -> None:
        """A mapped page with the last durable sequence. It is never synced: it lives as long as the page cache."""
        root = getattr(self._disk, "root", None)
        if root is None:
            return
        descriptor = os.open(root / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, 4096)
            self._mark = mmap.mmap(descriptor, 4096)
        finally:
            os.close(descriptor)
        self._mark[8:24] = tail.identity
        self._mark[0:8] = tail.sequence.to_bytes(8, "little")
        self._ring.set_mark(self._mark)


def read_mark(disk: Disk, identity: bytes) -> int:
    """The last sequence that the journal's writer noted as durable: a lower bound, 0 if unknown."""
    root = getattr(disk, "root", None)
    if root is None or not (root / MARK).exists():
        return 0
    page = (root / MARK).read_bytes()
    return int.from_bytes(page[:8], "little") if page[8:24] == identity else 0


def _writer_cpus(wanted: frozenset[int] | None) -> set[int]:
    """A thread inherits the mask of its process: pinned to the loop's core it would fight with the loop."""
    everything = set(range(os.cpu_count() or 1))
    if wanted:
        return set(wanted)
    return everything - os.sched_getaffinity(0) or everything
