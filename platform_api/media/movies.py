"""Whether an MP4 is one: its boxes (ISO/IEC 14496-12), its tracks, and that what its tables name is in the file.

    ftyp   moov ─ trak … ─ mdia ─ minf ─ stbl: sizes (stsz, stz2), samples of chunks (stsc), chunks (stco, co64)
    mdat   the samples            mvex: no tables, but fragments (moof ─ traf ─ trun) before each mdat

Nothing is decoded. Of H.264 and H.265 the first samples are walked through: their units have lengths, which random
bytes do not. Of other codecs nothing inside a sample is known.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from platform_api.media.rules import BadFile

__all__ = ["check_movie"]

INDEX_BYTES_MAX = 32 * 1024 * 1024
FRAGMENT_BYTES_MAX = 1024 * 1024
BOXES_MAX = 200_000
TRACKS_MAX = 64
WALKED_SAMPLES = 16
SAMPLE_BYTES_MAX = 64 * 1024 * 1024
_LENGTHS = {b"avc1": (b"avcC", 4), b"avc3": (b"avcC", 4), b"hvc1": (b"hvcC", 21), b"hev1": (b"hvcC", 21)}
"""Codec → the box of its configuration, and where in it the size of a unit's length stands."""
_VISUAL_ENTRY_BYTES = 78
"""Of a video's entry in stsd, before the boxes inside."""

Box = tuple[bytes, int, int]
"""Type, first byte of the body, the one behind its last."""


def check_movie(file: BinaryIO) -> None:
    """Blocking. Raises BadFile: `movie_broken`, `movie_no_index`, `movie_no_track`, `movie_samples_…`."""
    try:
        _check(file)
    except (struct.error, IndexError) as error:  # a table that ends before what it announces
        raise BadFile("movie_broken") from error


def _check(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    boxes = list(_outermost(file, size))
    indexes = [box for box in boxes if box[0] == b"moov"]
    if len(indexes) != 1 or indexes[0][2] - indexes[0][1] > INDEX_BYTES_MAX:
        raise BadFile("movie_no_index")
    media = sorted((start, end) for type_, start, end in boxes if type_ == b"mdat")
    index = _read(file, *indexes[0][1:])
    tracks = [body for type_, body in _inside(index) if type_ == b"trak"]
    if not 1 <= len(tracks) <= TRACKS_MAX:
        raise BadFile("movie_no_track")
    found = [_track(body) for body in tracks]
    for track in found:
        _check_track(file, track, media)
    shown = [track for track in found if track.kind in (b"vide", b"soun")]
    fragmented = any(type_ == b"mvex" for type_, _ in _inside(index)) and _has_fragments(file, boxes)
    if not shown or not (fragmented or any(track.sample_count for track in shown)):
        raise BadFile("movie_no_track")


@dataclass(frozen=True, slots=True)
class _Track:
    """`sizes`: of its samples; one number where all are alike. `runs`: (first chunk, samples of each from there on)."""

    kind: bytes
    sample_count: int
    sizes: Sequence[int] | int
    runs: list[tuple[int, int]]
    chunks: Sequence[int]
    length_bytes: int | None


def _track(body: memoryview) -> _Track:
    media = _boxes(_boxes(body, b"mdia")[b"mdia"], b"hdlr", b"minf")
    table = _boxes(_boxes(media[b"minf"], b"stbl")[b"stbl"], b"stsd", b"stsc")
    count, sizes = _sizes(table)
    (run_count,) = struct.unpack_from(">I", table[b"stsc"], 4)
    if 8 + 12 * run_count > len(table[b"stsc"]):
        raise BadFile("movie_broken")
    rows = struct.iter_unpack(">III", table[b"stsc"][8 : 8 + 12 * run_count])
    runs = [(first, samples) for first, samples, _ in rows]
    kind = bytes(media[b"hdlr"][8:12])
    return _Track(kind, count, sizes, runs, _chunks(table), _length_bytes(table[b"stsd"]) if kind == b"vide" else None)


def _sizes(table: dict[bytes, memoryview]) -> tuple[int, Sequence[int] | int]:
    if b"stsz" in table:
        same, count = struct.unpack_from(">II", table[b"stsz"], 4)
        return count, same if same else _numbers("I", table[b"stsz"], 12, count)
    if b"stz2" not in table:
        raise BadFile("movie_broken")
    bits, count = table[b"stz2"][7], struct.unpack_from(">I", table[b"stz2"], 8)[0]
    if bits == 4:
        pairs = _numbers("B", table[b"stz2"], 12, -(-count // 2))
        return count, [part for pair in pairs for part in (pair >> 4, pair & 15)][:count]
    if bits not in (8, 16):
        raise BadFile("movie_broken")
    return count, _numbers("B" if bits == 8 else "H", table[b"stz2"], 12, count)


def _chunks(table: dict[bytes, memoryview]) -> Sequence[int]:
    name, code = (b"co64", "Q") if b"co64" in table else (b"stco", "I")
    if name not in table:
        raise BadFile("movie_broken")
    (count,) = struct.unpack_from(">I", table[name], 4)
    return _numbers(code, table[name], 8, count)


def _numbers(code: str, body: memoryview, start: int, count: int) -> array[int]:
    """Big-endian numbers; `code` is of `array`, whose items here are as wide as in the file."""
    found = array(code)
    if start + count * found.itemsize > len(body):
        raise BadFile("movie_broken")
    found.frombytes(body[start : start + count * found.itemsize])
    found.byteswap()
    return found


def _check_track(file: BinaryIO, track: _Track, media: list[tuple[int, int]]) -> None:
    """Every chunk of samples lies in media data; the first samples consist of whole units."""
    starts = [start for start, _ in media]
    sample = walked = 0
    for place, samples in _chunk_samples(track):
        if sample + samples > track.sample_count:
            raise BadFile("movie_samples_missing")
        at, length = track.chunks[place], _length(track.sizes, sample, samples)
        around = bisect_right(starts, at) - 1
        if around < 0 or at + length > media[around][1]:
            raise BadFile("movie_samples_missing")
        if track.length_bytes is not None and walked < WALKED_SAMPLES:
            for number in range(sample, sample + min(samples, WALKED_SAMPLES - walked)):
                size = _length(track.sizes, number, 1)
                _walk(file, at, size, track.length_bytes)
                at, walked = at + size, walked + 1
        sample += samples
    if sample != track.sample_count:
        raise BadFile("movie_samples_missing")


def _chunk_samples(track: _Track) -> Iterator[tuple[int, int]]:
    """(chunk, how many samples it has), in order."""
    if not track.runs and track.chunks:
        raise BadFile("movie_broken")
    expected = 1
    for (first, samples), (end, _) in pairwise([*track.runs, (len(track.chunks) + 1, 0)]):
        if first != expected or not first <= end <= len(track.chunks) + 1 or samples == 0:
            raise BadFile("movie_broken")
        for place in range(first - 1, end - 1):
            yield place, samples
        expected = end


def _length(sizes: Sequence[int] | int, first: int, count: int) -> int:
    return sizes * count if isinstance(sizes, int) else sum(sizes[first : first + count])


def _walk(file: BinaryIO, at: int, size: int, length_bytes: int) -> None:
    """A sample is units one behind the other, each after its length; the first bit of a unit is 0."""
    if size > SAMPLE_BYTES_MAX:
        raise BadFile("movie_samples_broken")
    end = at + size
    while at < end:
        file.seek(at)
        head = file.read(length_bytes + 1)
        length = int.from_bytes(head[:length_bytes], "big")
        at += length_bytes + length
        if len(head) <= length_bytes or length == 0 or at > end or head[-1] & 0x80:
            raise BadFile("movie_samples_broken")


def _length_bytes(body: memoryview) -> int | None:
    """Of the first entry of stsd: how long a unit's length is; None for a codec without."""
    for type_, entry in _inside(body[8:]):
        if bytes(type_) not in _LENGTHS:
            return None
        name, place = _LENGTHS[type_]
        settings = dict(_inside(entry[_VISUAL_ENTRY_BYTES:])).get(name)
        if settings is None:
            raise BadFile("movie_broken")
        return (settings[place] & 3) + 1
    raise BadFile("movie_broken")


def _has_fragments(file: BinaryIO, boxes: list[Box]) -> bool:
    """Whether a fragment with samples stands before media data."""
    is_media = False
    for type_, start, end in reversed(boxes):
        if type_ == b"mdat":
            is_media = is_media or end > start
        elif type_ == b"moof" and is_media:
            if end - start > FRAGMENT_BYTES_MAX:
                raise BadFile("movie_broken")
            for inner, body in _inside(_read(file, start, end)):
                if inner == b"traf":
                    runs = [run for name, run in _inside(body) if name == b"trun"]
                    if any(struct.unpack_from(">I", run, 4)[0] for run in runs):
                        return True
    return False


def _outermost(file: BinaryIO, size: int) -> Iterator[Box]:
    """The outermost boxes, to the end of the file."""
    at = count = 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        length, type_ = struct.unpack_from(">I4s", head)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", head, 8)
            start = at + 16
        elif length == 0:  # the last one: to the end
            length = size - at
        count += 1
        if at + length < start or at + length > size or count > BOXES_MAX:
            raise BadFile("movie_broken")
        yield type_, start, at + length
        at += length


def _inside(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes that a box consists of."""
    at = 0
    while at + 8 <= len(body):
        length, type_ = struct.unpack_from(">I4s", body, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", body, start)
            start += 8
        if at + length < start or at + length > len(body):
            raise BadFile("movie_broken")
        yield bytes(type_), body[start : at + length]
        at += length


def _boxes(body: memoryview, *names: bytes) -> dict[bytes, memoryview]:
    """These boxes, each of which must be there."""
    found = dict(_inside(body))
    if not set(names) <= set(found):
        raise BadFile("movie_broken")
    return found


def _read(file: BinaryIO, start: int, end: int) -> memoryview:
    file.seek(start)
    return memoryview(file.read(end - start))
