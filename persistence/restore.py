"""A data directory from its backup: every object read, every record checked, nothing overwritten.

    list ─▶ segments, sealed or in parts ─▶ DATA/restoring/journal/… ─▶ scan of the whole ─▶ renamed to DATA/journal

A point is a sequence or a time: records behind it are left out, and so are the files beside the journal, which may know
of what is left out. Without a point the end of the last part is the end.
A store that has answered once is asked again for as long as it is away, up to PATIENCE_S. What an interrupted run left
in `DATA/restoring` is read and checked once more, and the next one goes on behind it: behind the last segment but one,
for only of a segment that another follows it is known that it is whole. What does not fit, of itself or to what the
store has behind it, is thrown away, and that is told; no other error costs what was restored.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.messages import layout
from engine.messages.errors import JournalCorrupt, Refused, Unavailable
from files.durable import sync_directory, write_whole
from persistence import segments
from persistence.backup import Head, Objects, PartHeader, beside_name, head_name, last_ts, segment_of
from persistence.disk import DirectoryDisk, DirectoryLock
from persistence.evidence import BESIDE
from persistence.journal import MARK
from persistence.recovery import LOCK
from persistence.ring import scan_records
from persistence.segments import HEADER_BYTES, Header

__all__ = ["Restored", "identities", "restore"]

SCRATCH = "restoring"
MOVING = "restoring.moving"
"""Names the files beside the journal that a run had begun to move out of SCRATCH."""
SEGMENT_BYTES_MAX = 1 << 34
READS_AT_ONCE = 16
AHEAD_BYTES_MAX = 128 << 20
"""Of objects that are read or waiting to be used: two sealed segments, or as many parts as are read at once."""
PATIENCE_S = 600.0
"""For how long a store that has answered may be away, from the first request that it lost."""
AGAIN_FIRST_S, AGAIN_MOST_S = 0.5, 15.0
"""Until a request is made again: twice as long each time."""
T = TypeVar("T")
_IDENTITY = re.compile(r"([0-9a-f]{32})/")
Progress = Callable[[int, int], None]
"""Takes (bytes read, bytes in all)."""
Told = Callable[[str], None]
"""Takes a line for whoever waits."""
BeforeMoving = Callable[[Path, "Restored"], None]
"""Takes where the restored files lie, all checked, before the first has its place; raises JournalCorrupt."""


@dataclass(slots=True)
class Restored:
    """What was restored, and how long it took."""

    identity: str = ""
    sequence: int = 0
    chain: int = 0
    last_ts: int = 0
    segments: int = 0
    read_bytes: int = 0
    read_s: float = 0.0
    """Reading and checking the objects, and writing the files."""
    check_s: float = 0.0
    """Reading the whole once more from the disk."""
    beside: list[str] = field(default_factory=list)
    resumed_sequence: int = 0
    """The last record that an interrupted run had restored; 0: there was none."""
    left_out: list[str] = field(default_factory=list)
    """Files beside the journal that the store has and a restore to a point leaves out."""


def identities(objects: Objects | _Patient) -> list[str]:
    """The journals that are kept in a store. Raises Unavailable."""
    return sorted({match[1] for name, _ in objects.names("") if (match := _IDENTITY.match(name))})


def restore(
    objects: Objects, directory: Path, *, identity: str | None = None, to_sequence: int | None = None,
    to_ts: int | None = None, progress: Progress | None = None, before_moving: BeforeMoving | None = None,
    told: Told | None = None,
) -> Restored:  # fmt: skip
    """Restores one journal into `directory`, which must have none. `before_moving` may refuse what was restored.

    `told` hears that the store is waited for, from any thread, and what becomes of an interrupted run's files.

    Raises:
        Refused: there is a journal already, or the store holds several and none was named.
        DataDirectoryBusy: an exchange runs there.
        Unavailable: the store is away or empty.
        JournalCorrupt: what is in the store is no valid prefix; nothing is left behind in `directory/journal`.
    """
    store = _Patient(objects, told)
    known = identities(store)
    if identity is None:
        if len(known) > 1:
            raise Refused(f"the backup holds {len(known)} journals: name one with --identity: {', '.join(known)}")
        if not known:
            raise Unavailable("the backup holds no journal: --from must be what BYLINE_BACKUP_URL was")
        identity = known[0]
    if identity not in known:
        raise Unavailable(f"the backup holds no journal {identity}: it has {', '.join(known) or 'none'}")
    with DirectoryLock(directory / "lock"), DirectoryLock(directory / LOCK):
        there = [name for name in (segments.DIRECTORY, "events", "snapshots", MARK) if (directory / name).exists()]
        if there:
            raise Refused(f"{directory} holds {', '.join(there)} already: restore into an empty directory")
        scratch = directory / SCRATCH
        say = told or (lambda line: None)

        def carry_out() -> Restored:
            run = _Run(store, scratch, bytes.fromhex(identity), to_sequence, to_ts, progress)
            run.resume(say)
            return run.carry_out()

        try:
            result = carry_out()
        except _OtherHistory as other:
            say(f"an interrupted run had restored another history: it is thrown away, all is read again ({other})")
            shutil.rmtree(scratch)
            result = carry_out()
        _check_free(directory, result.beside)
        if before_moving is not None:
            before_moving(scratch, result)
        # On disk first: what a run that is interrupted leaves at its place, the next one knows for its own.
        write_whole(directory / MOVING, "\n".join(result.beside).encode())
        for path in [*result.beside, segments.DIRECTORY]:  # without the journal nothing starts on what is there in part
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            os.rename(scratch / path, directory / path)
            sync_directory((directory / path).parent)
        shutil.rmtree(scratch)
        (directory / MOVING).unlink()
    return result


class _Gone(Exception):
    """An object that was named a moment ago is not there."""


class _OtherHistory(JournalCorrupt):
    """What the store has does not continue what was resumed: that is of another history, or of another store."""


class _Patient:
    """A store that is asked again while it is away, once it has answered: hours of reading must not end with one lost
    answer, and a wrong URL must be told at once. For any thread."""

    def __init__(self, objects: Objects, told: Told | None) -> None:
        self._objects, self._told = objects, told
        self._has_answered = False
        self._away_since_s: float | None = None
        """When the first request since its last answer was lost, by the monotonic clock; None: it answers."""

    def names(self, prefix: str) -> list[tuple[str, int]]:
        """See Objects."""
        return self._asked(lambda: self._objects.names(prefix))

    def read(self, key: str, enough: threading.Event | None = None) -> bytes:
        """See Objects. Once `enough` is set nobody waits any more: a request that fails is not made again."""
        return self._asked(lambda: self._objects.read(key), enough)

    def _asked(self, request: Callable[[], T], enough: threading.Event | None = None) -> T:
        wait_s, enough = AGAIN_FIRST_S, enough or threading.Event()
        while True:
            try:
                answer = request()
            except KeyError:
                self._answers()
                raise
            except Unavailable as error:
                now = time.monotonic()
                is_first = self._away_since_s is None
                since_s = self._away_since_s = self._away_since_s or now
                if not self._has_answered or now - since_s >= PATIENCE_S:
                    raise
                if self._told is not None and is_first:
                    self._told(f"{error}; asked again for up to {PATIENCE_S / 60:.0f} minutes")
                if enough.wait(wait_s):
                    raise
                wait_s = min(2 * wait_s, AGAIN_MOST_S)
            else:
                self._answers()
                return answer

    def _answers(self) -> None:
        self._has_answered, self._away_since_s = True, None


class _Run:
    def __init__(
        self, objects: _Patient, scratch: Path, identity: bytes, to_sequence: int | None, to_ts: int | None,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self._objects, self._scratch, self._identity, self._progress = objects, scratch, identity, progress
        self._to_sequence, self._to_ts = to_sequence, to_ts
        self.result = Restored(identity=identity.hex())
        self._chain = segments.first_chain(identity)
        self._header: Header | None = None
        self._data = bytearray()
        self._digest = hashlib.sha256()
        self._sealed_header: tuple[bytes, int, int] = (bytes(32), 0, 0)
        """Of the last sealed segment: SHA-256 of its records, their slots, bytes of its file."""
        self._begun = self._begun_before = (0, 0, self._chain, 0)
        """Of the segment begun last: its first sequence; and where it began: sequence, chain word, time."""
        self._resumed: tuple[bytes, int] | None = None
        """SHA-256 and slots of the last segment that was resumed, until the store has said the same of it."""

    def resume(self, say: Told) -> None:
        """Go on behind the whole segments in the scratch directory, if they are of this journal and lie before the
        point; else begin anew. `say` hears which, unless there was nothing worth telling of."""
        folder = self._scratch / segments.DIRECTORY
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._scratch.iterdir():
            if path.is_dir() and path != folder:  # files beside are read anew
                shutil.rmtree(path)
            elif path != folder:
                path.unlink()
        disk = DirectoryDisk(self._scratch)
        listed: list[segments.Segment] = []
        try:
            listed = segments.list_segments(disk)
            segments.scan(disk, listed, check_sha256=True)
        except JournalCorrupt as error:
            why, listed = str(error), []
        else:
            why = self._take_over(disk, listed) if listed else ""
        if self.result.resumed_sequence:
            say(f"an interrupted run had restored up to sequence {self.result.resumed_sequence:,}: it goes on there")
        elif why:
            say(f"an interrupted run had restored what is of no use here: it is thrown away, all is read again ({why})")
        if not self.result.resumed_sequence:
            listed = []
        kept = {Path(segment.path).name for segment in listed}  # the last one too, until its own is written over it
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()

    def _take_over(self, disk: DirectoryDisk, listed: list[segments.Segment]) -> str:
        """All but the last: that one may be cut at another point, or be sealed in the store by now. Returns why whole
        ones were not taken."""
        *whole, last = listed
        if not whole:
            return ""
        if last.header.identity != self._identity:
            return f"it is of the journal {last.header.identity.hex()}"
        if self._to_sequence is not None and last.header.first_sequence - 1 > self._to_sequence:
            return f"it goes beyond sequence {self._to_sequence}"
        first, slots = whole[-1].header.first_sequence, last.header.previous_slots
        records = np.frombuffer(segments.view(disk, whole[-1].path), layout.COMMAND, slots, HEADER_BYTES)
        newest = last_ts(records)
        if self._to_ts is not None and newest > self._to_ts:
            return "it goes beyond that time"
        self.result.resumed_sequence = self.result.sequence = last.header.first_sequence - 1
        self.result.segments, self.result.last_ts = len(whole), newest
        self._chain, self._resumed = last.header.previous_chain, (last.header.previous_sha256, slots)
        self._sealed_header = last.header.previous_sha256, slots, whole[-1].header.segment_bytes
        self._begun = self._begun_before = (first, self.result.sequence, self._chain, newest)
        return ""

    def carry_out(self) -> Restored:
        result, began = self.result, time.monotonic()
        head = self._read_head()  # first: everything that it names was there before it
        if head is not None and self._to_sequence is None:
            if self._to_ts is None:  # at a time it is not known yet whether they are restored at all
                _check_free(self._scratch.parent, sorted(set(head.beside) & set(BESIDE)))
            head = self._read_beside(head)
        found, ended = self._read_journal()
        if not ended and (self._to_sequence or 0) > result.sequence:
            raise Refused(f"the backup ends with sequence {result.sequence}: give --to up to it, or none")
        if self._header is not None:
            self._write(self._header, self._data)  # without records where the point is the end of the one before
        elif result.sequence:
            self._begin_next()
        if not result.sequence:
            raise Refused("the point lies before the first record of the backup: give a later one, or none")
        if not ended and self._to_sequence is None:
            self._check_whole(head)
        if head is not None and not ended and self._to_sequence is None:
            result.beside = sorted(set(head.beside) & set(BESIDE))
        else:
            result.left_out = sorted({path for path in BESIDE if any(f"/beside/{path}/" in name for name, _ in found)})
        result.read_s = time.monotonic() - began
        began = time.monotonic()
        disk = DirectoryDisk(self._scratch)
        tail = segments.scan(disk, segments.list_segments(disk), check_sha256=True)
        if (tail.sequence, tail.torn_bytes, tail.chain) != (result.sequence, 0, self._chain):
            raise JournalCorrupt(f"what was written ends with sequence {tail.sequence}, not {result.sequence}")
        result.chain, result.check_s = tail.chain, time.monotonic() - began
        return result

    # ------------------------------------------------------------ beside a shipper that goes on

    def _read_beside(self, head: Head) -> Head:
        """The files beside the journal. Returns the head that names them: each batch renews it, and its pieces."""
        while True:
            try:
                for path in sorted(set(head.beside) & set(BESIDE)):
                    self._beside(path, *head.beside[path])
                return head
            except _Gone as gone:
                newer = self._read_head()
                if newer is None or newer == head:
                    raise JournalCorrupt(f"backup: {gone}") from None
                head = newer

    def _read_journal(self) -> tuple[list[tuple[str, int]], bool]:
        """All records up to the point. Returns what the store lists, and whether the point came before its end.

        A segment that is sealed meanwhile takes its parts away: it is begun again, as the sealed one.
        """
        found: list[tuple[str, int]] = []
        while True:
            known, found = found, self._objects.names(self._identity.hex())
            journal = [(name, size) for name, size in found if name.endswith((".segment", ".part"))]
            if not journal:
                raise Unavailable("the backup holds no record yet: the log of its shipper says why")
            read = self.result.read_bytes
            waiting = [(name, size) for name, size in _in_order(journal) if segment_of(name) > self._begun[0]]
            if not waiting and self._resumed is not None:  # it may have another history, and a shorter one
                raise self._does_not_continue(journal[-1][0])
            total = read + sum(size for _, size in waiting)
            try:
                for name, size, data in self._read_ahead(waiting):
                    ended = self._sealed(name, data) if name.endswith(".segment") else self._part(name, data)
                    self.result.read_bytes += size
                    if self._progress is not None:
                        self._progress(self.result.read_bytes, total)
                    if ended:
                        return found, True
                return found, False
            except _Gone as gone:
                if found == known:
                    raise JournalCorrupt(f"backup: {gone}") from None
                self._begin_again()

    def _begin_again(self) -> None:
        """Forget what was taken of the segment that is open."""
        if self._header is not None:
            _, self.result.sequence, self._chain, self.result.last_ts = self._begun
            self._header, self._begun = None, self._begun_before

    def _read_ahead(self, waiting: list[tuple[str, int]]) -> Iterator[tuple[str, int, bytes]]:
        """Names, sizes and contents in order, while the next ones are on their way: the open segment of a quiet market
        is of a hundred thousand parts, and each is a round trip. Raises _Gone."""
        enough = threading.Event()
        with ThreadPoolExecutor(READS_AT_ONCE) as readers:
            asked: list[tuple[str, int, Future[bytes]]] = []  # bounded by READS_AT_ONCE and AHEAD_BYTES_MAX
            try:
                for name, size in waiting:
                    while asked and (
                        len(asked) == READS_AT_ONCE or size + sum(each for _, each, _ in asked) > AHEAD_BYTES_MAX
                    ):
                        first, length, read = asked.pop(0)
                        yield first, length, read.result()
                    asked.append((name, size, readers.submit(self._read, name, enough)))
                for name, size, read in asked:
                    yield name, size, read.result()
            finally:  # also where whoever uses them ends: the readers' own end would wait for those that are patient
                enough.set()

    def _read(self, name: str, enough: threading.Event) -> bytes:
        """Raises _Gone."""
        try:
            return self._objects.read(name, enough)
        except KeyError:
            raise _Gone(f"{name} is missing") from None

    # ------------------------------------------------------------ objects

    def _sealed(self, name: str, data: bytes) -> bool:
        self._begin(name, self._take_header(name, data))
        ended = self._add(name, data[HEADER_BYTES:])
        if not ended:
            self._end_segment()
        return ended

    def _part(self, name: str, data: bytes) -> bool:
        part, body = PartHeader.unpack(name, data), PartHeader.body(data)
        if part.identity != self._identity or part.first != self.result.sequence + 1:
            raise self._does_not_continue(name)
        if part.first == part.segment:
            self._begin(name, self._take_header(name, body))
            body = body[HEADER_BYTES:]
        ended = self._add(name, body)
        if not ended and (self.result.sequence, self._chain, self._digest.digest()) != (
            part.last, part.chain, part.digest
        ):  # fmt: skip
            raise JournalCorrupt(f"backup: {name}: its records are not those that it says")
        return ended

    def _take_header(self, name: str, data: bytes) -> Header:
        """The header of a segment; the zeros behind its records are not in the store."""
        header = segments.parse_header(name, memoryview(data))
        if not HEADER_BYTES < header.segment_bytes <= SEGMENT_BYTES_MAX:
            raise JournalCorrupt(f"backup: {name}: a segment of {header.segment_bytes} bytes")
        return header

    def _begin(self, name: str, header: Header) -> None:
        """The segment of `header`. The one before may have come in parts: that all of it came, it says itself."""
        follows = (header.identity, header.first_sequence, header.previous_chain)
        resumed = self._resumed in (None, (header.previous_sha256, header.previous_slots))
        if not resumed or follows != (self._identity, self.result.sequence + 1, self._chain):
            raise self._does_not_continue(name)
        self._resumed = None
        if self._header is not None:
            self._end_segment()
        self._header, self._data, self._digest = header, bytearray(), hashlib.sha256()
        self._begun_before = self._begun
        self._begun = header.first_sequence, self.result.sequence, self._chain, self.result.last_ts

    def _does_not_continue(self, name: str) -> JournalCorrupt:
        """Of what was resumed the store has not said yet that it is its own."""
        kind = JournalCorrupt if self._resumed is None else _OtherHistory
        return kind(f"backup: {name}: does not continue sequence {self.result.sequence}")

    def _end_segment(self) -> None:
        """The segment that is open has no more records."""
        assert self._header is not None
        self._write(self._header, self._data)
        slots = len(self._data) // layout.SLOT_BYTES
        self._sealed_header, self._header = (self._digest.digest(), slots, self._header.segment_bytes), None

    def _add(self, name: str, body: bytes) -> bool:
        """Records of the segment that is open, up to the point. True: the point is reached."""
        assert self._header is not None
        if len(body) % layout.SLOT_BYTES or not body:
            raise JournalCorrupt(f"backup: {name}: is not whole")
        raw = np.frombuffer(body, np.uint8)
        slots, count = raw.view(layout.COMMAND), len(raw) // layout.SLOT_BYTES
        result, at, limit = self.result, 0, self._limit(slots)
        if limit > 0:
            at, result.sequence, self._chain, why = scan_records(raw, 0, count, limit, result.sequence, self._chain)
            if why:
                raise JournalCorrupt(f"backup: {name}: sequence {result.sequence + 1} is damaged")
        if at:
            result.last_ts = last_ts(slots[:at])
            taken = raw[: at * layout.SLOT_BYTES]
            self._data += taken.data
            self._digest.update(taken.data)
        return at < count

    def _limit(self, slots: npt.NDArray[np.void]) -> int:
        """How many of these records to take."""
        limit = len(slots)
        if self._to_sequence is not None:
            limit = min(limit, max(0, self._to_sequence - self.result.sequence))
        if self._to_ts is not None:
            sizes, times, at, early = slots["slots"].tolist(), slots["ts"].tolist(), 0, 0
            while at < len(sizes) and times[at] <= self._to_ts and early < limit:
                at, early = at + max(1, sizes[at]), early + 1
            limit = early
        return limit

    # ------------------------------------------------------------ files

    def _write(self, header: Header, records: bytes | bytearray) -> None:
        """The segment's file as it was: header, records, zeros; synced."""
        path = self._scratch / segments.segment_name(header.first_sequence)
        draft = path.with_suffix(".new")  # what has its name is whole, for whoever goes on with it
        with draft.open("wb") as file:
            file.write(header.pack())
            file.write(records)
            zeros = header.segment_bytes - HEADER_BYTES - len(records)
            while zeros > 0:  # really written: an only allocated file makes the first syncs slow
                file.write(bytes(min(zeros, 1 << 20)))
                zeros -= min(zeros, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync_directory(path.parent)
        self.result.segments += 1

    def _begin_next(self) -> None:
        """The store ends with a sealed segment: nothing may be added to that one, so the next begins here, empty."""
        digest, slots, size = self._sealed_header
        sequence = self.result.sequence + 1
        self._write(Header(self._identity, sequence, self._chain, digest, slots, time.time_ns(), size), b"")

    def _beside(self, path: str, size: int, digests: list[str]) -> None:
        target = self._scratch / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for number, digest in enumerate(digests):
                try:
                    data = self._objects.read(beside_name(self._identity, path, number, digest))
                except KeyError:
                    raise _Gone(f"{path}: piece {number} is missing") from None
                if hashlib.sha256(data).hexdigest() != digest:
                    raise JournalCorrupt(f"backup: {path}: piece {number} is damaged")
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.stat().st_size != size:
            raise JournalCorrupt(f"backup: {path}: {target.stat().st_size} bytes, the head says {size}")

    def _read_head(self) -> Head | None:
        try:
            return Head.unpack(self._objects.read(head_name(self._identity)))
        except KeyError:
            return None
        except JournalCorrupt:
            if self._to_sequence is not None:
                return None  # what a sequence names needs no head
            raise

    def _check_whole(self, head: Head | None) -> None:
        """Everything was restored that the store ever said to hold."""
        result = self.result
        more = f"; --to {result.sequence} restores what there is, without settlement's files"
        if head is None:
            raise JournalCorrupt(f"backup: the head is missing, records end with sequence {result.sequence}{more}")
        if result.sequence < head.sequence or (result.sequence == head.sequence and self._chain != head.chain):
            raise JournalCorrupt(
                f"backup: ends with sequence {result.sequence}, chain {self._chain:016x}, but its head says "
                f"{head.sequence}, {head.chain:016x}: its newest objects are missing{more}"
            )


def _check_free(directory: Path, paths: list[str]) -> None:
    """Raises Refused if one of the files is there, and no interrupted run left it."""
    moving = directory / MOVING
    ours = moving.read_text().split("\n") if moving.exists() else []
    for path in sorted(set(paths) - set(ours)):
        target = directory / path
        if target.exists():
            raise Refused(f"{target} is there already: restore into an empty directory, or move it away")


def _in_order(journal: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Segment by segment, sealed or in parts: names begin with its first sequence, parts go on with their own.

    Parts that a sealed segment holds too are left out.
    """
    sealed = {segment_of(name) for name, _ in journal if name.endswith(".segment")}
    return sorted(
        (name, size) for name, size in journal if name.endswith(".segment") or segment_of(name) not in sealed
    )
