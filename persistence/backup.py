"""Journal shipping: what is durable goes to an object store, record for record, at most a moment later.

    <identity>/<first sequence>.segment        a sealed segment: its header and its records, without the zeros behind
    <identity>/<first sequence>-<from>.part    records of the last segment, in the order in which they became durable
    <identity>/beside/<path>/<number>-<digest> a MiB of a file beside the journal, by its place and its SHA-256
    <identity>/probe                           16 bytes that a second shipper must not be able to replace
    <identity>/head                            how far the store goes, and of which pieces each file beside consists

A part says the running SHA-256 of all records of its segment up to its end; that of a sealed segment stands in the
header of the next one. With the records' own chain words that makes one hash chain from the first record to the last.
A segment that has no more records goes up whole as well, compared with the digest that the journal keeps of it, and
then its parts go. That is a second task, beside the parts of the segments behind it: 64 MiB take seconds, and nothing
new may wait for them. It only keeps the number of objects small: parts are as good a backup as the sealed segment.

Reads the journal beside its writer, and only what `journal.mark` calls durable. Objects are made, never replaced: a
second shipper, or another history (a journal that was cut or restored to a point), meets `JournalCorrupt` and stops.
The head alone is replaced, after everything that it names is there: what it says is the least that a restore must find.
A directory that goes away under its users, or is another one, is a store that is away: a disk that was unmounted leaves
its mount point, which would be taken for a new store and filled.
Files beside are measured before the journal and sent after it, so none is ahead of its journal in the backup; what a
crash tore from their end is sent again, for only the end can differ.
All of it rests on a store that refuses to make an object that is there: one that replaces it is refused at the start.
A disk that is not mounted when the machine starts leaves its mount point too, and nobody has it open then:
DATA/backup.mark says how far this store once had this journal, and a store that has less is refused.
Never touches a key. Cost: two PUTs an interval while commands come, of a part and of the head; one for each 64 MiB
besides.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from engine.messages import layout
from engine.messages.errors import JournalCorrupt, SettingsInvalid, Unavailable
from files.durable import sync_directory, write_whole
from persistence import segments
from persistence.disk import DirectoryDisk
from persistence.evidence import BESIDE
from persistence.journal import read_mark
from persistence.ring import scan_records

__all__ = [
    "CHUNK_BYTES", "Head", "Objects", "PartHeader", "Shipper", "beside_name", "head_name", "last_ts", "part_name",
    "sealed_name", "segment_of",
]  # fmt: skip

log = logging.getLogger(__name__)

MAGIC = b"BYLINEP\0"
FORMAT = 1
_PART = struct.Struct("<8sII16sQQQQQ32s24x")
assert _PART.size == 128
CHUNK_BYTES = 1 << 20
PART_BYTES_MAX = 8 << 20
MARK = "backup.mark"
NOTE_EVERY_S = 60.0
_REMOTE = {
    # Over http only where the operator's AWS_ENDPOINT_URL says so. With options of ours AWS_ALLOW_HTTP has no effect.
    "client_options": {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60), "allow_http": True},
    "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
}


class Objects:
    """One object store by URL: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///path`."""

    def __init__(self, url: str, *, make_directory: bool = True) -> None:
        """`make_directory`: that of a `file:` URL, if it is not there.

        Raises SettingsInvalid for a URL that names no store.
        """
        if "://" not in url:
            raise SettingsInvalid(f"backup: {url!r} is no URL as s3://bucket/prefix or file:///srv/backup")
        try:
            is_local = url.startswith("file:")
            options = {"mkdir": make_directory} if is_local else _REMOTE
            self._root = Path(unquote(urlsplit(url).path)) if is_local else None
            if self._root is not None and not make_directory and not self._root.is_dir():
                raise SettingsInvalid(f"backup: there is no directory {self._root}")
            self._kept = {directory for directory in self._root.parents if directory.exists()} if self._root else set()
            """Directories whose own names are on disk."""
            self._store: Any = from_url(url, **cast(Any, options))
            self.digest = hashlib.sha256(url.encode()).hexdigest()
            """Names the store without what its URL may hold."""
            self._opened = self._directory()
        except (BaseError, ValueError, OSError) as error:
            raise SettingsInvalid(f"backup: {str(error).splitlines()[0]}") from error

    def make(self, key: str, data: bytes) -> bytes:
        """A new object; one that is there already stays. Returns what is there now. Raises Unavailable."""
        with self._mapped():
            try:
                if self._root is not None:
                    self._write(self._root / key, data, replace=False)
                else:
                    obstore.put(self._store, key, data, mode="create")
                return data
            except (AlreadyExistsError, FileExistsError):
                return self.read(key)

    def check_refuses(self, key: str) -> None:
        """Object `key`, which is there for this alone, is not made a second time.

        Raises:
            SettingsInvalid: the store replaces it, which keeps no second shipper away.
            Unavailable: the store is away.
        """
        for _ in range(2):
            probe = os.urandom(16)
            if self.make(key, probe) != probe:
                return
        raise SettingsInvalid(
            "backup_url: this store replaces objects that are there (it ignores If-None-Match), so another shipper "
            "could overwrite the backup: nothing is shipped to it"
        )

    def replace(self, key: str, data: bytes) -> None:
        """Raises Unavailable."""
        with self._mapped():
            if self._root is not None:
                self._write(self._root / key, data, replace=True)
            else:
                obstore.put(self._store, key, data)

    def read(self, key: str) -> bytes:
        """Raises KeyError, Unavailable."""
        with self._mapped():
            return bytes(obstore.get(self._store, key).bytes())

    async def fetch(self, key: str) -> bytes:
        """As `read`, beside the event loop; can be given up. Raises KeyError, Unavailable."""
        with self._mapped():
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    def _write(self, path: Path, data: bytes, *, replace: bool) -> None:
        """What a remote store's answer means: the object is whole under its name, and outlives a loss of power. obstore
        syncs no file. Raises FileExistsError, also then behind the sync: whoever made it may have died before."""
        draft = path.with_name(f"{path.name}#{int.from_bytes(os.urandom(4))}")  # a list leaves such names out
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            (os.replace if replace else os.link)(draft, path)
        finally:
            draft.unlink(missing_ok=True)
            sync_directory(path.parent)
            for directory in path.parents:
                if directory not in self._kept:
                    sync_directory(directory.parent)
                    self._kept.add(directory)

    def _directory(self) -> tuple[int, int]:
        """Which one it is, of a `file:` URL. Raises FileNotFoundError."""
        status = self._root.stat() if self._root is not None else None
        return (status.st_dev, status.st_ino) if status else (0, 0)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Raises KeyError for an object that is not there, Unavailable for what else a store can say."""
        try:
            found = self._directory()
        except OSError as error:
            raise Unavailable(f"the backup's store: there is no directory {self._root}") from error
        if found != self._opened:
            raise Unavailable(
                f"the backup's store: {self._root} is not the directory that this process opened: is its disk mounted? "
                "If it is, start the process again"
            )
        try:
            yield
        except FileNotFoundError as error:
            raise KeyError("no such object") from error
        except AlreadyExistsError:
            raise
        except (BaseError, OSError) as error:
            raise Unavailable(f"the backup's store: {' '.join(str(error).split())[:300]}") from error

    def names(self, prefix: str) -> list[tuple[str, int]]:
        """Keys below `prefix` and their sizes, in order. Raises Unavailable."""
        with self._mapped():
            found = obstore.list(self._store, prefix=prefix or None).collect()
            return sorted((str(entry["path"]), int(entry["size"])) for entry in found)

    def remove(self, keys: list[str]) -> None:
        """What is not there is no failure. Raises Unavailable."""
        for key in keys:
            try:
                with self._mapped():
                    obstore.delete(self._store, key)
            except KeyError:
                continue


@dataclass(frozen=True, slots=True)
class PartHeader:
    """The first 128 bytes of a part. Its body: the segment's header if it begins one, then whole records."""

    identity: bytes
    segment: int
    """First sequence of the segment."""
    first: int
    last: int
    chain: int
    """Chain word of record `last`."""
    last_ts: int
    """Time of record `last`, ns."""
    digest: bytes
    """SHA-256 of all records of the segment up to `last`."""

    def pack(self) -> bytes:
        return _PART.pack(
            MAGIC, FORMAT, 0, self.identity, self.segment, self.first, self.last, self.chain, self.last_ts, self.digest
        )

    @classmethod
    def unpack(cls, key: str, data: bytes) -> PartHeader:
        """Raises JournalCorrupt."""
        if len(data) < _PART.size or data[:8] != MAGIC:
            raise JournalCorrupt(f"backup: {key}: no header of a part")
        _, version, _, *fields = _PART.unpack_from(data)
        if version != FORMAT:
            raise JournalCorrupt(f"backup: {key}: format {version}; this build reads {FORMAT}")
        return cls(*fields)

    @staticmethod
    def body(data: bytes) -> bytes:
        return data[_PART.size :]


@dataclass(slots=True)
class Head:
    """What the store held when this was written; newer objects may be there. A line of SHA-256, then JSON."""

    sequence: int
    """The last record that was there."""
    chain: int
    beside: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    """Bytes of each file beside the journal, and the SHA-256 of each of its pieces, as hex."""

    def pack(self) -> bytes:
        told = {"format": FORMAT, "sequence": self.sequence, "chain": f"{self.chain:016x}", "beside": self.beside}
        text = json.dumps(told, sort_keys=True).encode()
        return hashlib.sha256(text).hexdigest().encode() + b"\n" + text

    @classmethod
    def unpack(cls, data: bytes) -> Head:
        """Raises JournalCorrupt."""
        digest, _, text = data.partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            raise JournalCorrupt("backup: the head is damaged")
        told = json.loads(text)
        if told["format"] != FORMAT:
            raise JournalCorrupt(f"backup: the head: format {told['format']}; this build reads {FORMAT}")
        beside = {path: (int(size), list(digests)) for path, (size, digests) in told["beside"].items()}
        return cls(int(told["sequence"]), int(told["chain"], 16), beside)


def head_name(identity: bytes) -> str:
    return f"{identity.hex()}/head"


def sealed_name(identity: bytes, first: int) -> str:
    return f"{identity.hex()}/{first:020d}.segment"


def part_name(identity: bytes, segment: int, first: int) -> str:
    """By its first record alone: whoever goes on from the same end meets the part that is there already."""
    return f"{identity.hex()}/{segment:020d}-{first:020d}.part"


class Shipper:
    """Follows one journal. `start` once, then `step` and `seal` until told to stop, each by one thread at a time."""

    def __init__(self, directory: Path, objects: Objects) -> None:
        self._directory = directory
        self._disk = DirectoryDisk(directory)
        self._objects = objects
        self._segment: segments.Segment | None = None
        self._raw: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._at = 0
        self._digest = hashlib.sha256()
        self._head = b""
        """As it is in the store, if it is known."""
        self._beside: dict[str, tuple[int, list[str]]] = {}
        self._pieces: set[str] = set()
        """Keys of pieces that are in the store."""
        self._seen: dict[str, tuple[int, int]] = {}
        """Size and time of each file beside when it was sent."""
        self.sequence = 0
        """The last record that is in the store."""
        self.chain = 0
        self.parts = self.bytes = self.sealed = 0
        self._full: list[int] = []
        """First sequences of the segments that are full and not sealed, in order: `step` adds, `seal` takes away. As
        many as the store is behind, at most those of the journal."""
        self.lag_s = 0.0
        """How old the oldest record of the last part was when it was in the store."""
        self.lag_max_s = 0.0
        self._noted: tuple[float, str] = (0.0, "")
        """When the mark was written last, by the monotonic clock, and of which journal."""
        self._since = time.time_ns()
        """Records of before waited for a shipper, not for the store: they do not count."""

    def start(self) -> None:
        """Find where the store ends, and compare it with the journal there.

        Raises:
            JournalCorrupt: the store holds another history, or more than the journal does.
            SettingsInvalid: the store replaces what is there.
            Unavailable: the store, or there is no journal yet.
        """
        listed = segments.list_segments(self._disk, up_to=1)
        if not listed:
            raise Unavailable("there is no journal yet")
        identity = listed[0].header.identity
        self._objects.check_refuses(f"{identity.hex()}/probe")
        found = self._objects.names(identity.hex())
        self._pieces = {name for name, _ in found if "/beside/" in name}
        if any(name == head_name(identity) for name, _ in found):
            head = Head.unpack(self._objects.read(head_name(identity)))
            self._beside = {
                path: (size, digests) for path, (size, digests) in head.beside.items()
                if all(beside_name(identity, path, *piece) in self._pieces for piece in enumerate(digests))
            }  # fmt: skip
        sealed = {segment_of(name): size for name, size in found if name.endswith(".segment")}
        parts = [name for name, _ in found if name.endswith(".part")]
        self._open(listed[0], segments.first_chain(identity))
        if sealed:
            self._go_to(max(sealed), sealed=True)
        newest = max(parts, key=lambda name: int(Path(name).stem.split("-")[1]), default=None)
        if newest is not None:
            header = PartHeader.unpack(newest, self._objects.read(newest))
            if header.last > self.sequence:
                self._go_to(header.segment, last=header)
        self._check_mark(identity)
        assert self._segment is not None
        self._full = []
        until = self._segment.header.first_sequence
        for segment, following in pairwise(segments.list_segments(self._disk, up_to=until)):
            first = segment.header.first_sequence
            size = segments.HEADER_BYTES + following.header.previous_slots * layout.SLOT_BYTES
            if first not in sealed:
                self._full.append(first)
            elif sealed[first] != size:
                name = sealed_name(identity, first)
                raise JournalCorrupt(
                    f"backup: {name} has {sealed[first]} bytes, not {size}: remove it, and it is sent anew"
                )
        self._objects.remove([name for name in parts if segment_of(name) in sealed])

    def step(self) -> int:
        """Send what became durable since the last step; returns how many records. A failure leaves all as it was.

        Raises:
            JournalCorrupt, Unavailable: as `start`.
        """
        assert self._segment is not None
        grown = self._grown()
        durable = read_mark(self._disk, self._segment.header.identity)
        before = self.sequence
        while self.sequence < durable:
            if not self._ship(durable - self.sequence):
                first = self._segment.header.first_sequence
                self._open_next()
                self._full.append(first)
        for path, at in grown.items():
            self._send_beside(path, at)
        self._send_head()
        return self.sequence - before

    def seal(self) -> int:
        """Send whole what `step` has sent in parts and is full; then the parts go. Returns how many segments.

        A failure leaves all as it was, or parts that the next call removes.

        Raises:
            JournalCorrupt, Unavailable: as `start`.
        """
        before = self.sealed
        while self._full:
            self._seal(self._full[0])
            del self._full[0]
            self.sealed += 1
        return self.sealed - before

    @property
    def unsealed(self) -> int:
        """Segments that the store has all records of, but not yet as one object. For any thread."""
        return len(self._full)

    def oldest_waiting_s(self) -> float:
        """Age of the oldest durable record that is not in the store; 0.0: there is none. For any thread."""
        segment, raw, at, sequence = self._segment, self._raw, self._at, self.sequence  # `step` may be at work
        if segment is None or read_mark(self._disk, segment.header.identity) <= sequence:
            return 0.0
        slots = raw.view(layout.COMMAND)
        if at < len(slots) and int(slots["sequence"][at]) == sequence + 1:
            return max(0.0, time.time() - int(slots["ts"][at]) / 1e9)
        return 0.0

    # ------------------------------------------------------------ the journal

    def _open(self, segment: segments.Segment, chain: int) -> None:
        if segment.header.previous_chain != chain:
            raise JournalCorrupt(f"{segment.path}: offset 24: does not continue what is in the backup")
        self._segment, self._at, self._digest = segment, 0, hashlib.sha256()
        self._raw = np.frombuffer(segments.view(self._disk, segment.path), np.uint8, offset=segments.HEADER_BYTES)
        self.sequence, self.chain = segment.header.first_sequence - 1, chain

    def _take(self, limit: int) -> npt.NDArray[np.uint8]:
        """The next records, at most `limit`, checked; empty at the end of the segment."""
        assert self._segment is not None
        end = min(self._segment.slot_count, self._at + PART_BYTES_MAX // layout.SLOT_BYTES)
        at, sequence, chain, _ = scan_records(self._raw, self._at, end, limit, self.sequence, self.chain)
        data = self._raw[self._at * layout.SLOT_BYTES : at * layout.SLOT_BYTES]
        self._digest.update(data.data)
        self._at, self.sequence, self.chain = at, sequence, chain
        return data

    def _ship(self, limit: int) -> bool:
        segment = self._segment
        assert segment is not None
        was = (self._at, self.sequence, self.chain, self._digest.copy())
        data = self._take(limit)
        if not len(data):
            return False
        slots = data.view(layout.COMMAND)
        header = PartHeader(
            segment.header.identity, segment.header.first_sequence, was[1] + 1, self.sequence, self.chain,
            last_ts(slots), self._digest.digest(),
        )  # fmt: skip
        head = segment.header.pack() if was[0] == 0 else b""
        key, whole = part_name(header.identity, header.segment, header.first), header.pack() + head + data.tobytes()
        there = b""
        try:
            there = self._objects.make(key, whole)
        finally:
            if there != whole:
                self._at, self.sequence, self.chain, self._digest = was
        if there != whole:  # ours, with its answer lost and less in it, or somebody else's
            self._go_on_to(PartHeader.unpack(key, there))
            return True
        self.parts, self.bytes = self.parts + 1, self.bytes + len(data)
        if int(slots["ts"][0]) >= self._since:
            self.lag_s = max(0.0, time.time() - int(slots["ts"][0]) / 1e9)
            self.lag_max_s = max(self.lag_max_s, self.lag_s)
        return True

    def _open_next(self) -> None:
        """The segment has no more records, and more are durable: the next one goes on, and says what this one held."""
        segment = self._segment
        assert segment is not None
        following = self._segment_at(self.sequence + 1)
        if following is None:
            raise JournalCorrupt(f"{segment.path}: sequence {self.sequence + 1} was durable and cannot be read")
        _check_digest(segment, following, self._digest.digest(), self._at)
        self._open(following, self.chain)

    def _seal(self, first: int) -> None:
        """One segment as one object. Its parts go behind it, so that one or the other is always there."""
        segment = self._held(first)
        following = self._held(min(later for later in self._firsts() if later > first))
        identity, slots = segment.header.identity, following.header.previous_slots
        whole = segments.view(self._disk, segment.path)[: segments.HEADER_BYTES + slots * layout.SLOT_BYTES]
        data = whole.tobytes()
        digest = hashlib.sha256(memoryview(data)[segments.HEADER_BYTES :]).digest()
        _check_digest(segment, following, digest, slots)
        if self._objects.make(sealed_name(identity, first), data) != data:
            raise JournalCorrupt(f"backup: the segment of sequence {first} is there with other bytes")
        names = [name for name, _ in self._objects.names(identity.hex()) if name.endswith(".part")]
        self._objects.remove([name for name in names if segment_of(name) == first])

    def _firsts(self) -> list[int]:
        """First sequences of the journal's segments, in order."""
        names = self._disk.list(segments.DIRECTORY)
        return [int(name.removesuffix(segments.SUFFIX)) for name in names if name.endswith(segments.SUFFIX)]

    def _segment_at(self, first: int) -> segments.Segment | None:
        if first not in self._firsts():
            return None
        path = segments.segment_name(first)
        header = segments.read_header(path, segments.view(self._disk, path))
        return segments.Segment(path, header, (header.segment_bytes - segments.HEADER_BYTES) // layout.SLOT_BYTES)

    def _held(self, first: int) -> segments.Segment:
        segment = self._segment_at(first)
        if segment is None:
            raise JournalCorrupt(f"backup: holds the segment of sequence {first}, the journal here does not")
        return segment

    def _go_to(self, first: int, *, sealed: bool = False, last: PartHeader | None = None) -> None:
        """Behind a sealed segment, or behind part `last` of segment `first`, both as the journal here has them."""
        segment = self._held(first)
        self._open(segment, segment.header.previous_chain)
        if sealed:
            while len(self._take(1 << 62)):
                continue
            if self.sequence < first or self.sequence + 1 not in self._firsts():
                raise JournalCorrupt(
                    f"backup: holds the segment of sequence {first} as sealed, the journal here ends in it"
                )
            self._open_next()
        if last is not None:
            self._go_on_to(last)

    def _go_on_to(self, part: PartHeader) -> None:
        """Behind a part that is in the store, if the journal here has the same records."""
        while self.sequence < part.last and len(self._take(part.last - self.sequence)):
            continue
        if (self.sequence, self.chain, self._digest.digest()) != (part.last, part.chain, part.digest):
            raise JournalCorrupt(
                f"backup: ends with sequence {part.last}, chain {part.chain:016x}; the journal here has "
                f"{self.sequence}, {self.chain:016x}: it was cut, restored to an earlier point, or another one. "
                "Ship it to another place"
            )

    # ------------------------------------------------------------ beside it

    def _grown(self) -> dict[str, tuple[int, int]]:
        """Size and time of the files beside that changed."""
        found = {}
        for path in BESIDE:
            try:
                status = (self._directory / path).stat()
            except FileNotFoundError:
                continue
            if self._seen.get(path) != (status.st_size, status.st_mtime_ns):
                found[path] = status.st_size, status.st_mtime_ns
        return found

    def _send_beside(self, path: str, at: tuple[int, int]) -> None:
        """The pieces of a file up to its size then, that are not in the store. Only the last two sent can have
        changed."""
        assert self._segment is not None
        identity, size, last = self._segment.header.identity, at[0], max(0, at[0] - 1) // CHUNK_BYTES
        _, known = self._beside.get(path, (0, []))
        digests = known[: min(max(0, len(known) - 2), last + 1)]
        with (self._directory / path).open("rb") as file:
            for number in range(len(digests), last + 1):
                file.seek(number * CHUNK_BYTES)
                data = file.read(min(CHUNK_BYTES, size - number * CHUNK_BYTES))
                digests.append(hashlib.sha256(data).hexdigest())
                key = beside_name(identity, path, number, digests[-1])
                if key not in self._pieces:
                    self._objects.replace(key, data)
                    self._pieces.add(key)
        self._beside[path] = size, digests
        self._seen[path] = at

    def _send_head(self) -> None:
        """The head, if anything is new; then pieces that it does not name any more go."""
        assert self._segment is not None
        identity = self._segment.header.identity
        head = Head(self.sequence, self.chain, self._beside).pack()
        if head == self._head:
            return
        self._objects.replace(head_name(identity), head)
        self._head = head
        self._note(identity)
        named = {
            beside_name(identity, path, *piece)
            for path, (_, digests) in self._beside.items() for piece in enumerate(digests)
        }  # fmt: skip
        stale = sorted(self._pieces - named)
        self._objects.remove(stale)
        self._pieces -= set(stale)

    def _check_mark(self, identity: bytes) -> None:
        path = self._directory / MARK
        try:
            known = _Mark(**json.loads(path.read_bytes())) if path.exists() else None
        except (OSError, ValueError, TypeError) as error:
            why = f"backup: the mark: {error}: see that the store is the right one, then remove {path}"
            raise JournalCorrupt(why) from error
        if known is None or (known.store, known.identity) != (self._objects.digest, identity.hex()):
            return
        if self.sequence < known.sequence:
            raise JournalCorrupt(
                f"backup: this store had the journal up to sequence {known.sequence} and ends with {self.sequence}: "
                "is its disk mounted, is its bucket whole?"
            )

    def _note(self, identity: bytes) -> None:
        """Writes the mark, once a minute: a store that has lost more than that is seen at the next start."""
        at, of = self._noted
        if of == identity.hex() and time.monotonic() - at < NOTE_EVERY_S:
            return
        mark = _Mark(self._objects.digest, identity.hex(), self.sequence)
        try:
            write_whole(self._directory / MARK, json.dumps(asdict(mark)).encode())
        except OSError as error:
            log.warning("event=backup_not_noted sequence=%d error=%s", self.sequence, error)
            return
        self._noted = time.monotonic(), identity.hex()


@dataclass(frozen=True, slots=True)
class _Mark:
    store: str
    identity: str
    sequence: int


def beside_name(identity: bytes, path: str, number: int, digest: str) -> str:
    return f"{identity.hex()}/beside/{path}/{number:010d}-{digest}"


def segment_of(name: str) -> int:
    """The first sequence of the segment that an object is, or is a part of."""
    return int(Path(name).stem.partition("-")[0])


def _check_digest(segment: segments.Segment, following: segments.Segment, digest: bytes, slots: int) -> None:
    if (following.header.previous_sha256, following.header.previous_slots) != (digest, slots):
        raise JournalCorrupt(f"{segment.path}: SHA-256 differs from the one in the header of {following.path}")


def last_ts(slots: npt.NDArray[np.void]) -> int:
    """Time of the last record in `slots`."""
    sizes, at = slots["slots"].tolist(), 0
    while at + sizes[at] < len(sizes):
        at += sizes[at]
    return int(slots["ts"][at])
