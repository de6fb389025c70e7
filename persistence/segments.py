"""The journal's files: layout of a segment, listing, scanning, cutting a torn tail, verification.

A segment is `journal/<first sequence, 20 digits>.journal`: one header of 4096 bytes, then slots of 128 bytes, all
zero until written (docs/journal.md has the format). The segments in order of their names hold every record once;
only the last may end in a torn write. `spare` is a zero-filled file that waits to become the next segment.

Scanning changes nothing. `cut_tail` zeroes what a torn write left behind, never a record that was proven durable;
`settle_end` writes the last group once more as it stands. Whatever is no valid prefix is a JournalCorrupt; nothing is
skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from engine.messages import layout
from engine.messages.errors import JournalCorrupt
from engine.messages.ports import Disk
from persistence.ring import crc32c, find_record, scan_records

__all__ = [
    "FORMAT",
    "HEADER_BYTES",
    "LAYOUT",
    "Header",
    "Segment",
    "Tail",
    "cut_tail",
    "last_nonzero",
    "list_segments",
    "parse_header",
    "read_header",
    "scan",
    "segment_name",
    "settle_end",
]

MAGIC = b"BYLINEJ\0"
FORMAT = 1
LAYOUT = 1
"""Of the records, as `engine.messages.layout` has them and as the core understands them."""
HEADER_BYTES = 4096
DIRECTORY = "journal"
SPARE = f"{DIRECTORY}/spare"
SUFFIX = ".journal"
_FIELDS = struct.Struct("<8sIIQQ16s32sqQQ")
_WHY = {1: "checksum", 2: "sequence", 3: "chain word"}


@dataclass(frozen=True, slots=True)
class Header:
    """What the first 4096 bytes of a segment say."""

    identity: bytes
    """16 bytes, the same in all segments of one journal."""
    first_sequence: int
    previous_chain: int
    previous_sha256: bytes
    """Over all records of the segment before, as they stand in its file; zeros in the first segment."""
    previous_slots: int
    created_ns: int
    segment_bytes: int

    def pack(self) -> bytes:
        """The header as 4096 bytes, its CRC32C in the last four."""
        fields = _FIELDS.pack(
            MAGIC, FORMAT, LAYOUT, self.first_sequence, self.previous_chain, self.identity,
            self.previous_sha256, self.created_ns, self.segment_bytes, self.previous_slots,
        )  # fmt: skip
        body = fields.ljust(HEADER_BYTES - 4, b"\0")
        return body + struct.pack("<I", crc32c(body))


@dataclass(frozen=True, slots=True)
class Segment:
    path: str
    header: Header
    slot_count: int
    """Slots the file has room for."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the journal ends: what a writer needs to go on."""

    identity: bytes
    sequence: int
    chain: int
    segment: Segment | None
    """The last segment, None in an empty journal."""
    used_slots: int
    torn_bytes: int = 0
    """Bytes behind the last valid record that a torn write left in the last segment."""


def segment_name(first_sequence: int) -> str:
    return f"{DIRECTORY}/{first_sequence:020d}{SUFFIX}"


def first_chain(identity: bytes) -> int:
    """The chain word before the first record: records of another journal never fit."""
    return int.from_bytes(identity[:8], "little")


def view(disk: Disk, path: str) -> memoryview:
    """The whole file: mapped where the disk can, read otherwise."""
    mapper = getattr(disk, "map", None)
    if mapper is not None:
        mapped: memoryview = mapper(path)
        return mapped
    file = disk.open(path)
    try:
        return memoryview(file.read_at(0, file.size()))
    finally:
        file.close()


def read_header(path: str, data: memoryview) -> Header:
    """The header of a segment, whose whole file `data` is.

    Raises:
        JournalCorrupt: no header, a damaged one, one of another format or layout, or of a file of another size.
    """
    header = parse_header(path, data)
    if header.segment_bytes != len(data):
        raise JournalCorrupt(f"{path}: is {len(data)} bytes, its header says {header.segment_bytes}")
    return header


def parse_header(path: str, data: memoryview) -> Header:
    """The header of a segment of which `data` is the beginning. Raises JournalCorrupt."""
    if len(data) < HEADER_BYTES or bytes(data[:8]) != MAGIC:
        raise JournalCorrupt(f"{path}: offset 0: no journal header")
    (stored,) = struct.unpack_from("<I", data, HEADER_BYTES - 4)
    (_, version, layout_version, first, chain, identity, digest, created, size, slots) = _FIELDS.unpack_from(data)
    if version != FORMAT or layout_version != LAYOUT:
        raise JournalCorrupt(
            f"{path}: format {version}, layout {layout_version}; this build reads format {FORMAT}, layout {LAYOUT}"
        )
    if crc32c(data[: HEADER_BYTES - 4]) != stored:
        raise JournalCorrupt(f"{path}: offset 0: checksum of the header")
    return Header(identity, first, chain, digest, slots, created, size)


def list_segments(disk: Disk, *, up_to: int | None = None) -> list[Segment]:
    """All segments in order, their headers read and compared with their names; those that begin behind `up_to` not.

    Raises:
        JournalCorrupt: a header is bad, the identity differs, or the first segment is missing.
    """
    segments: list[Segment] = []
    for name in sorted(name for name in disk.list(DIRECTORY) if name.endswith(SUFFIX)):
        path = f"{DIRECTORY}/{name}"
        if up_to is not None and path > segment_name(up_to):
            break
        data = view(disk, path)
        header = read_header(path, data)
        if path != segment_name(header.first_sequence):
            raise JournalCorrupt(f"{path}: its header says first sequence {header.first_sequence}")
        if segments and header.identity != segments[0].header.identity:
            raise JournalCorrupt(f"{path}: belongs to another journal than {segments[0].path}")
        if not segments and header.first_sequence != 1:
            raise JournalCorrupt(f"{path}: the segments before sequence {header.first_sequence} are missing")
        segments.append(Segment(path, header, (len(data) - HEADER_BYTES) // layout.SLOT_BYTES))
    return segments


Batch = Callable[[npt.NDArray[np.void], int, int], None]
"""Takes (slots of dtype layout.COMMAND, first sequence, last sequence) of whole, checked records."""


def scan(
    disk: Disk,
    segments: list[Segment],
    on_batch: Batch | None = None,
    *,
    after: int = 0,
    after_chain: int | None = None,
    batch_records: int = 4096,
    check_sha256: bool = False,
    up_to: int | None = None,
) -> Tail:
    """Check the records of `segments` from the one that holds `after` + 1, and hand those later than `after` out.

    Of segments that end before `after` only the last record is looked at, so that none is missing, unless
    `check_sha256`, which also checks every sealed segment's digest.
    `after_chain`: what the chain word of record `after` must be. `up_to`: read no further, and judge nothing behind it
    (a writer may be at it); it is the caller's to know that these records were written (`persistence.beside`).

    Raises:
        JournalCorrupt: anything but a valid prefix with at most one torn write at its end.
    """
    if not segments:
        return Tail(b"", 0, 0, None, 0)
    start = 0
    if not check_sha256:
        while start + 1 < len(segments) and segments[start + 1].header.first_sequence <= after + 1:
            _check_joined(disk, segments[start], segments[start + 1])
            start += 1
    tail = Tail(b"", 0, 0, None, 0)
    prefetch = getattr(disk, "prefetch", None)
    for number in range(start, len(segments)):
        if up_to is not None and segments[number].header.first_sequence > max(1, up_to):
            break
        if prefetch is not None:
            for segment in segments[start : start + 2] if number == start else segments[number + 1 : number + 2]:
                prefetch(segment.path)
        following = segments[number + 1] if number + 1 < len(segments) else None
        tail = _scan_segment(
            disk, segments[number], following, on_batch, after, after_chain, batch_records, check_sha256, up_to
        )
    if tail.sequence < after:
        raise JournalCorrupt(
            f"{segments[-1].path}: ends with sequence {tail.sequence}, but {after} is known to have been durable"
        )
    return tail


def _scan_segment(
    disk: Disk,
    segment: Segment,
    following: Segment | None,
    on_batch: Batch | None,
    after: int,
    after_chain: int | None,
    batch_records: int,
    check_sha256: bool,
    up_to: int | None,
) -> Tail:
    data = view(disk, segment.path)
    slots = np.frombuffer(data, layout.COMMAND, segment.slot_count, HEADER_BYTES)
    raw = slots.view(np.uint8)
    sequence, chain, at = segment.header.first_sequence - 1, segment.header.previous_chain, 0
    end = segment.slot_count if following is None else following.header.previous_slots
    if end > segment.slot_count:
        raise JournalCorrupt(f"{following and following.path}: says {end} slots before it, {segment.path} has fewer")
    if segment.header.first_sequence == 1 and chain != first_chain(segment.header.identity):
        raise JournalCorrupt(f"{segment.path}: offset 24: first chain word")
    why = 0
    last = 1 << 63 if up_to is None else up_to
    while at < end and not why and sequence < last:
        _check_chain(segment, sequence, chain, after, after_chain)
        limit = min(batch_records, (last if sequence >= after else min(last, after)) - sequence)
        begin, first = at, sequence + 1
        at, sequence, chain, why = scan_records(raw, at, end, limit, sequence, chain)
        if on_batch is not None and sequence >= first > after:
            on_batch(slots[begin:at], first, sequence)
    _check_chain(segment, sequence, chain, after, after_chain)
    if up_to is not None and (sequence >= up_to or following is None):
        if why:
            raise _corrupt(segment, at, sequence, why, f"but sequence {up_to} was durable")
        return Tail(segment.header.identity, sequence, chain, segment, at)
    if following is not None:
        if why:
            raise _corrupt(segment, at, sequence, why, f"but {following.path} follows")
        if following.header.first_sequence != sequence + 1 or following.header.previous_chain != chain:
            raise JournalCorrupt(
                f"{following.path}: offset 16: does not continue {segment.path}, which ends with sequence {sequence}"
            )
        if check_sha256 and sha256(raw[: end * layout.SLOT_BYTES].data).digest() != following.header.previous_sha256:
            raise JournalCorrupt(f"{segment.path}: SHA-256 differs from the one in the header of {following.path}")
        return Tail(segment.header.identity, sequence, chain, segment, at)
    torn = _check_end(segment, raw, at, sequence, why) if why else 0
    return Tail(segment.header.identity, sequence, chain, segment, at, torn)


def _check_joined(disk: Disk, segment: Segment, following: Segment) -> None:
    """`following` goes on where `segment` ends: its last record is the one before; none is missing between."""
    slots = np.frombuffer(view(disk, segment.path), layout.COMMAND, segment.slot_count, HEADER_BYTES)
    end, wanted = following.header.previous_slots, following.header.first_sequence - 1
    for at in range(end - 1, max(-1, end - 256), -1):
        if at < segment.slot_count and int(slots["slots"][at]) == end - at and int(slots["sequence"][at]) == wanted:
            if int(slots["chain"][at]) == following.header.previous_chain:
                return
            break
    raise JournalCorrupt(
        f"{following.path}: offset 16: does not continue {segment.path}, whose last record is not sequence {wanted}"
    )


def _check_chain(segment: Segment, sequence: int, chain: int, after: int, after_chain: int | None) -> None:
    if sequence == after and after_chain is not None and chain != after_chain:
        raise JournalCorrupt(
            f"{segment.path}: sequence {sequence}: chain word {chain:016x}, the snapshot of it says {after_chain:016x}"
        )


def _check_end(segment: Segment, raw: npt.NDArray[np.uint8], at: int, sequence: int, why: int) -> int:
    """Bytes of a torn write from slot `at` on; 0 if only zeros follow.

    A later record that is the first of its group proves that everything before it was synced: then the record at `at`
    was durable once and is damaged now. Without such a record the rest is the last group, written in part.
    """
    rest = raw[at * layout.SLOT_BYTES :]
    used = last_nonzero(rest)
    if used == 0:
        return 0
    end = at + -(-used // layout.SLOT_BYTES)
    later = find_record(raw, at + 1, min(segment.slot_count, end + 255), True, sequence)
    if later < min(segment.slot_count, end + 255):
        raise _corrupt(segment, at, sequence, why, f"but a later group begins at offset {offset_of(later)}")
    if why != 1:  # intact by its checksum, yet no continuation: no torn write leaves this behind
        raise _corrupt(segment, at, sequence, why, "in a record whose checksum is right")
    return used


def last_nonzero(raw: npt.NDArray[np.uint8]) -> int:
    """Length of `raw` without the zeros at its end. Reads from the front in steps, since mostly all is zero."""
    used = 0
    step = 1 << 20
    for begin in range(0, len(raw), step):
        part = raw[begin : begin + step]
        if part.view(np.uint64).any():
            used = begin + int(np.flatnonzero(part)[-1]) + 1
    return used


def offset_of(slot: int) -> int:
    """Byte offset of a slot in its file."""
    return HEADER_BYTES + slot * layout.SLOT_BYTES


def _corrupt(segment: Segment, at: int, sequence: int, why: int, more: str) -> JournalCorrupt:
    return JournalCorrupt(f"{segment.path}: offset {offset_of(at)}: sequence {sequence + 1}: {_WHY[why]}, {more}")


def cut_tail(disk: Disk, tail: Tail) -> None:
    """Zero what a torn write left behind the last valid record, and sync. Safe to be interrupted and repeated."""
    if not tail.torn_bytes or tail.segment is None:
        return
    file = disk.open(tail.segment.path)
    try:
        write_all(file, offset_of(tail.used_slots), bytes(tail.torn_bytes))
        file.sync()
    finally:
        file.close()


def settle_end(disk: Disk, listed: list[Segment]) -> None:
    """Make the last group durable, whole or torn, before anything of it is applied.

    It is the one group that may not be: of a process that was killed it may lie in the page cache alone, and after a
    failed sync the kernel takes its pages for clean although they never reached the disk (Rebello et al., ATC 2020). So
    it is written again as it stands, and synced. So is the directory: a process that was killed between the renaming of
    a segment and the sync of that has left a name that a power loss takes, with everything acked in it.

    Raises:
        OSError: the disk refuses.
    """
    if not listed:
        return
    segment = listed[-1]
    raw = np.frombuffer(view(disk, segment.path), np.uint8, segment.slot_count * layout.SLOT_BYTES, HEADER_BYTES)
    used = last_nonzero(raw)
    begin = _last_group(raw, -(-used // layout.SLOT_BYTES))
    group = bytes(raw[begin * layout.SLOT_BYTES : used].data)
    file = disk.open(segment.path)
    try:
        write_all(file, offset_of(begin), group)
        file.sync()
    finally:
        file.close()
    disk.sync_directory(DIRECTORY)


def _last_group(raw: npt.NDArray[np.uint8], used_slots: int) -> int:
    """The slot where the last group of these begins, 0 if none does. Looks back in steps: a group is mostly short."""
    step = 256
    while True:
        begin = max(0, used_slots - step)
        at, found = begin, used_slots
        while (at := find_record(raw, at, used_slots, True, 0)) < used_slots:
            found = at
            at += max(1, int(raw[at * layout.SLOT_BYTES + 5]))
        if found < used_slots:
            return found
        if begin == 0:
            return 0
        step *= 8


def write_all(file: object, offset: int, data: bytes) -> None:
    """Write all of `data`, going on after short writes.

    Raises:
        OSError: the write failed, or made no progress.
    """
    rest = memoryview(data)
    while rest:
        written = file.write_at(offset, bytes(rest))  # type: ignore[attr-defined]
        if written <= 0:
            raise OSError(5, "write made no progress")
        offset += written
        rest = rest[written:]
