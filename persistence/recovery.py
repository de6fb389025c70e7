"""From the files to a running core: snapshot, journal tail, events, and proof that they agree.

    lock ─▶ last group settled ─▶ newest snapshot ─▶ journal behind it: CRC, sequence, chain, apply ─▶ events
         ─▶ journal open at its tail

Order of work: the journal is read, checked and applied, the (derived) event log continued or built anew on the way;
only then is the torn end of the last segment zeroed and the journal opened for writing. Before all of it the last group
is written and synced once more: it may be in the page cache alone. A journal that is no valid prefix stops the start
(JournalCorrupt); nothing is skipped, and nothing that was proven durable is cut.

The event log goes on where it was if it belongs to this journal and this boot of the machine; after a boot it goes on
from its mark and the snapshot that the mark names. The newest snapshot that is not behind the log's end is taken.
Otherwise the log is built anew from the first record: a data directory from the backup, one without a snapshot yet.
Cost: 4 M records/s and more from the page cache; a rebuild of the event log replays from the beginning.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.core import Core
from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind
from engine.messages.errors import JournalCorrupt, JournalFailed
from engine.messages.ports import Clock, Disk
from persistence import segments
from persistence.disk import DirectoryDisk, DirectoryLock, SystemClock, boot_id
from persistence.event_log import FILE_SLOTS, EventLogReader, EventLogWriter, log_state, published_end
from persistence.event_mark import Mark, damaged_file, read_mark
from persistence.evidence import check_end, check_new
from persistence.journal import Journal, JournalSettings, new_tail
from persistence.segments import Tail
from persistence.snapshot import Snapshot, newest_snapshots

__all__ = ["Recovered", "Replayer", "Report", "Verification", "cut_hashes", "recover", "replay", "verify"]

log = logging.getLogger(__name__)

LOCK = "journal.lock"
OUT_SLOTS = 262_144
SPARE_BUFFERS = 4


@dataclass(slots=True)
class Report:
    """What a recovery did."""

    sequence: int = 0
    snapshot_sequence: int = 0
    replayed_records: int = 0
    torn_bytes: int = 0
    """Zeroed behind the last valid record: the rest of a write that was never acknowledged."""
    events_rebuilt: bool = False
    damaged_snapshots: list[str] = field(default_factory=list)
    state_hash: bytes = b""
    seconds: float = 0.0


@dataclass(slots=True)
class Recovered:
    core: Core
    journal: Journal
    event_log: EventLogWriter
    report: Report
    lock: DirectoryLock

    def close(self) -> None:
        """Journal first, so that nothing durable is missing; then the event log and the lock."""
        self.journal.close()
        self.event_log.close()
        self.lock.release()


Progress = Callable[[int], None]
"""Called now and then with the sequence reached."""
Events = Callable[[npt.NDArray[np.void], int, int], None]
"""Takes the event slots of the commands first … last."""


class _Replay:
    """Applies checked batches to a core and hands the events on."""

    def __init__(
        self, core: Core, on_events: Events | None, progress: Progress | None, into_log: _LogFiller | None = None
    ) -> None:
        self.core = core
        self._on_events = on_events
        self._into_log = into_log
        self._progress = progress
        self._out = np.empty(OUT_SLOTS, layout.EVENT)
        self.record_count = 0

    def __call__(self, slots: npt.NDArray[np.void], first: int, last: int) -> None:
        at = 0
        sequence = first
        while at < len(slots):
            after, used = self.core.apply_batch(slots, self._out, at)
            if after == at:
                self._out = np.empty(max(2 * len(self._out), self.core.bound(slots[at:].tobytes())), layout.EVENT)
                continue
            at = after
            if self._into_log is not None:
                self._out = self._into_log(self._out, used, sequence, self.core.sequence)
            elif self._on_events is not None:
                self._on_events(self._out[:used], sequence, self.core.sequence)
            sequence = self.core.sequence + 1
        if self.core.sequence != last:
            raise JournalCorrupt(f"sequence {last}: the core is at {self.core.sequence} after it")
        self.record_count += last - first + 1
        if self._progress is not None:
            self._progress(last)


def recover(
    directory: Path,
    *,
    limits: CoreLimits | None = None,
    settings: JournalSettings | None = None,
    disk: Disk | None = None,
    clock: Clock | None = None,
    identity: bytes | None = None,
    boot: bytes | None = None,
    threads: bool = True,
    event_file_slots: int = FILE_SLOTS,
    progress: Progress | None = None,
    sealed: int = 0,
) -> Recovered:
    """Bring the core, the journal and the event log in `directory` to where they were, or start new ones.

    `limits` are those of a core from the beginning; a snapshot brings its own. `identity` is for a new journal,
    `boot`, `threads` and `event_file_slots` for simulation. `sealed`: the last sequence that settlement has sealed.

    Raises:
        DataDirectoryBusy: another core has it.
        JournalCorrupt: the journal, or a snapshot of it, is not what it was, or it is gone. The message says where.
        JournalFailed: the disk refuses.
        OSError: a file that exists cannot be opened.
    """
    began = time.monotonic()
    disk = disk or DirectoryDisk(directory)
    boot = boot_id() if boot is None else boot
    lock = DirectoryLock(directory / LOCK)
    event_log: EventLogWriter | None = None
    try:
        report = Report()
        listed = segments.list_segments(disk)
        if not listed:
            check_new(disk, directory)
        _settle(disk, listed)
        empty = new_tail(identity)
        identity = listed[0].header.identity if listed else empty.identity
        kept, mark = _kept(directory / "events", identity, boot, event_file_slots) if listed else (None, None)
        if kept is not None and kept > (end := segments.scan(disk, listed[-1:])).sequence:
            check_end(disk, end, sealed=sealed)  # first: of records that are lost this log tells, and it would be wiped
            kept = mark = None  # mode memory: the crash took records whose events had been read
        snapshot = _newest(disk, identity, report, up_to=kept) if listed else None
        if mark and (snapshot is None or snapshot[1:] != (mark.sequence, mark.chain)):
            kept = mark = None
        core, start, chain = Core(limits or (snapshot[0].limits if snapshot else CoreLimits())), 0, None
        if snapshot and kept is not None:
            core, start, chain = snapshot
        event_log = EventLogWriter(
            directory / "events", identity, boot, keep_sequence=kept, mark=mark, threads=threads,
            file_slots=event_file_slots,
        )  # fmt: skip
        with _LogFiller(event_log, kept or 0, thread=threads and kept is None) as filler:
            replayed = _Replay(core, None, progress, filler)
            tail = segments.scan(disk, listed, replayed, after=start, after_chain=chain) if listed else empty
        check_end(disk, tail, sealed=sealed)
        segments.cut_tail(disk, tail)
        journal = Journal(disk, tail, clock or SystemClock(), settings, threads=threads)
    except BaseException:
        if event_log is not None:
            event_log.close()
        lock.release()
        raise
    report.sequence = tail.sequence
    report.snapshot_sequence = start
    report.replayed_records = replayed.record_count
    report.torn_bytes = tail.torn_bytes
    report.events_rebuilt = kept is None and bool(listed)
    report.state_hash = core.state_hash()
    report.seconds = time.monotonic() - began
    return Recovered(core, journal, event_log, report, lock)


def replay(
    disk: Disk,
    *,
    limits: CoreLimits | None = None,
    on_events: Events | None = None,
    progress: Progress | None = None,
) -> tuple[Core, Tail]:
    """A core from the first record to the last, writing nothing.

    Raises:
        JournalCorrupt: the journal is no valid prefix.
    """
    core = Core(limits or CoreLimits())
    listed = segments.list_segments(disk)
    return core, segments.scan(disk, listed, _Replay(core, on_events, progress))


class Replayer:
    """A core of its own that takes command records in order, for whoever checks a journal that is no data directory."""

    def __init__(self, on_events: Events, limits: CoreLimits | None = None) -> None:
        self._replay = _Replay(Core(limits or CoreLimits()), on_events, None)

    def apply(self, slots: npt.NDArray[np.void], first: int, last: int) -> None:
        """Whole records of the commands first … last. Raises JournalCorrupt if they are not those."""
        if len(slots) and int(slots["sequence"][0]) != first:
            raise JournalCorrupt(f"sequence {int(slots['sequence'][0])} where {first} should be")
        self._replay(slots, first, last)

    def state_hash(self) -> bytes:
        """After the last record applied."""
        return self._replay.core.state_hash()

    def balances(self) -> npt.NDArray[np.void]:
        """After the last record applied: account, asset, available, held."""
        return self._replay.core.balances()


@dataclass(slots=True)
class Verification:
    """What `verify` found. It raises for a journal that is damaged, so these are the facts of a sound one."""

    segments: int = 0
    sequence: int = 0
    chain: int = 0
    torn_bytes: int = 0
    snapshots_checked: list[int] = field(default_factory=list)
    snapshots_damaged: list[str] = field(default_factory=list)
    cuts: int = 0
    """Cuts that the replay made, each with its state hash."""
    cuts_compared: int = 0
    """Of these, the ones whose event in the event log has the same hash. The others are not (or no more) in it."""
    event_files_checked: int = 0
    """Whole files of the event log that its mark names."""
    event_file_damaged: str = ""
    """The first of them that is not as it was when it was marked."""
    event_log_damaged: str = ""
    """What keeps the event log of this boot from being read to its end: a command that it tells twice, a cut file."""
    state_hash: bytes = b""
    """After the last record; empty without replay."""


def verify(
    directory: Path,
    progress: Progress | None = None,
    *,
    with_replay: bool = True,
    limits: CoreLimits | None = None,
    disk: Disk | None = None,
    boot: bytes | None = None,
    sealed: int = 0,
) -> Verification:
    """Read the whole journal: headers, CRC, sequence, chain, SHA-256 of each sealed segment; with `with_replay` also
    apply it and compare the hash of each snapshot, and of each cut's event that an event log of this journal and boot
    has. What lies beside it must not know of more than it holds (`persistence.evidence`); `sealed` as in `recover`.

    Reads only. The end of a journal that a core is writing moves: the caller holds its lock, or a copy.

    Raises:
        JournalCorrupt: naming segment, offset and sequence, or the snapshot or the cut that differs.
    """
    disk = disk or DirectoryDisk(directory)
    result = Verification()
    listed = segments.list_segments(disk)
    result.segments = len(listed)
    if not listed:
        check_new(disk, directory)
        return result
    snapshots = {found.sequence: found for found in newest_snapshots(disk, result.snapshots_damaged)}
    core = Core(limits or CoreLimits()) if with_replay else None

    event_log = _readable_log(directory, listed[0].header.identity, boot)
    try:
        while event_log is not None and len(event_log.read()):
            continue
    except (JournalCorrupt, FileNotFoundError, ValueError) as error:  # the last two: a file is missing, or cut
        result.event_log_damaged, event_log = str(error), None

    def compare_cuts(events: npt.NDArray[np.void], _first: int, _last: int) -> None:
        for sequence, state_hash in cut_hashes(events):
            result.cuts += 1
            logged = _logged_cut(event_log, sequence) if event_log is not None else None
            if logged is None:
                continue
            if logged != state_hash:
                raise JournalCorrupt(
                    f"cut at sequence {sequence}: the journal gives state {state_hash.hex()}, "
                    f"the event log says {logged.hex()}"
                )
            result.cuts_compared += 1

    applied = _Replay(core, compare_cuts, progress) if core is not None else None

    def take(slots: npt.NDArray[np.void], first: int, last: int) -> None:
        if applied is None:
            if progress is not None:
                progress(last)
            return
        begin = 0
        for sequence in sorted(sequence for sequence in snapshots if first <= sequence <= last):
            end = begin
            while end < len(slots) and slots["sequence"][end] <= sequence:
                end += int(slots["slots"][end])
            applied(slots[begin:end], applied.core.sequence + 1, sequence)
            _compare(snapshots[sequence], applied.core, int(slots["chain"][_head_before(slots, begin, end)]))
            result.snapshots_checked.append(sequence)
            begin = end
        if begin < len(slots):
            applied(slots[begin:], applied.core.sequence + 1, last)

    tail = segments.scan(disk, listed, take, check_sha256=True)
    check_end(disk, tail, sealed=sealed)
    mark = read_mark(directory / "events")
    if mark is not None and mark.identity == tail.identity and mark.sequence <= tail.sequence:
        result.event_file_damaged = damaged_file(directory / "events", mark, newest=None)
        result.event_files_checked = len(mark.sums)
    result.sequence, result.chain, result.torn_bytes = tail.sequence, tail.chain, tail.torn_bytes
    if core is not None:
        result.state_hash = core.state_hash()
    return result


def cut_hashes(events: npt.NDArray[np.void]) -> list[tuple[int, bytes]]:
    """(sequence, state hash) of each cut's event. Batches with a cut are few: only those are walked head by head."""
    found: list[tuple[int, bytes]] = []
    wanted = (events["kind"] == EventKind.CUT) & (events["op"] == CommandKind.CUT)
    if not wanted.any():
        return found
    cuts, widths, at = events.view(layout.CUT), events["slots"].tolist(), 0
    while at < len(widths):
        if wanted[at]:
            found.append((int(cuts["sequence"][at]), cuts["state_hash"][at].tobytes()))
        at += max(1, widths[at])
    return found


def _logged_cut(event_log: EventLogReader, sequence: int) -> bytes | None:
    """The state hash of the cut with this sequence as the event log has it, None if it has none."""
    if sequence > event_log.head_sequence:
        return None
    event_log.seek(sequence - 1)
    return dict(cut_hashes(event_log.read(1))).get(sequence)


def _readable_log(directory: Path, identity: bytes, boot: bytes | None) -> EventLogReader | None:
    """The event log, if it is this journal's and of this boot: one of an earlier boot was never synced."""
    state = log_state(directory / "events")
    fits = state is not None and state[0] == identity and state[1] == (boot_id() if boot is None else boot)
    return EventLogReader(directory / "events") if fits else None


def _compare(snapshot: Snapshot, core: Core, chain: int) -> None:
    if snapshot.chain != chain or snapshot.state_hash != core.state_hash():
        raise JournalCorrupt(
            f"snapshot {snapshot.sequence}: the journal gives chain {chain:016x}, state {core.state_hash().hex()}, "
            f"the snapshot says {snapshot.chain:016x}, {snapshot.state_hash.hex()}"
        )


def _head_before(slots: npt.NDArray[np.void], begin: int, end: int) -> int:
    """Index of the head slot of the last record in [begin, end)."""
    at = begin
    while at + int(slots["slots"][at]) < end:
        at += int(slots["slots"][at])
    return at


def _newest(disk: Disk, identity: bytes, report: Report, *, up_to: int | None = None) -> tuple[Core, int, int] | None:
    """The core of the newest snapshot that fits this journal (none later than `up_to`), its sequence and chain word."""
    for snapshot in newest_snapshots(disk, report.damaged_snapshots, up_to=up_to):
        if snapshot.identity != identity:
            report.damaged_snapshots.append(f"snapshot {snapshot.sequence}: belongs to another journal")
            continue
        try:
            core = Core.restore(snapshot.body, checked=True)
        except ValueError as error:
            report.damaged_snapshots.append(f"snapshot {snapshot.sequence}: {error}")
            continue
        if core.sequence != snapshot.sequence or core.state_hash() != snapshot.state_hash:
            report.damaged_snapshots.append(f"snapshot {snapshot.sequence}: its state has another hash than it says")
            continue
        return core, snapshot.sequence, snapshot.chain
    return None


def _kept(directory: Path, identity: bytes, boot: bytes, file_slots: int) -> tuple[int | None, Mark | None]:
    """The sequence at which the event log can go on, None if it must be built anew; and the mark, if it is that."""
    state = log_state(directory)
    if state is not None:
        log_identity, log_boot, generation, _ = state
        if log_identity == identity and log_boot == boot and not generation & 1:
            try:
                return published_end(directory), None
            except (FileNotFoundError, ValueError) as error:
                log.warning("event=events_distrusted file=%s error=%s", directory, error)
    mark = read_mark(directory)
    if mark is None or (mark.identity, mark.file_slots) != (identity, file_slots):
        return None, None
    if name := damaged_file(directory, mark):
        log.warning("event=events_distrusted file=%s sequence=%d: all are built anew", name, mark.sequence)
        return None, None
    return mark.sequence, mark


class _LogFiller:
    """Appends regenerated events to the log, but not those of sequences it has.

    With `thread` a thread of its own does it while the next batch is applied; a few buffers go round. Leaving the
    `with` waits until all is appended.
    """

    def __init__(self, event_log: EventLogWriter, kept: int, *, thread: bool) -> None:
        self._event_log = event_log
        self._kept = kept
        self._full: queue.Queue[tuple[npt.NDArray[np.void], int, int, int] | None] = queue.Queue(SPARE_BUFFERS)
        self._free: queue.Queue[npt.NDArray[np.void]] = queue.Queue(SPARE_BUFFERS + 1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="event-log-filler", daemon=True) if thread else None

    def __enter__(self) -> _LogFiller:
        if self._thread is not None:
            for _ in range(SPARE_BUFFERS):
                self._free.put(np.empty(OUT_SLOTS, layout.EVENT))
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is None:
            return
        self._full.put(None)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def __call__(self, out: npt.NDArray[np.void], used: int, first: int, last: int) -> npt.NDArray[np.void]:
        """Take the events of the commands first … last, `out[:used]`. Returns the buffer to use next.

        Raises:
            JournalFailed: the log refuses these events, or refused earlier ones.
        """
        if self._thread is None:
            self._append(out[:used], first, last)
            return out
        if self._error is not None:
            raise self._error
        self._full.put((out, used, first, last))
        return self._free.get()

    def _run(self) -> None:
        while (item := self._full.get()) is not None:
            out, used, first, last = item
            if self._error is None:
                try:
                    self._append(out[:used], first, last)
                except Exception as error:  # noqa: BLE001 - told to the thread that recovers, which stops
                    self._error = error
            self._free.put(out)

    def _append(self, events: npt.NDArray[np.void], first: int, last: int) -> None:
        if last <= self._kept:
            return
        begin = 0
        if first <= self._kept:
            while begin < len(events) and events["sequence"][begin] <= self._kept:
                begin += max(1, int(events["slots"][begin]))
        error = self._event_log.append_batch(events[begin:].view(np.uint8), max(first, self._kept + 1), last)
        if error:
            raise JournalFailed(f"event log at sequence {first}: {os.strerror(error)}")


def _settle(disk: Disk, listed: list[segments.Segment]) -> None:
    try:
        segments.settle_end(disk, listed)
    except OSError as error:
        raise JournalFailed(f"the journal's end cannot be written again: {error}") from error
