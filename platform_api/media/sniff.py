"""What a file is, by its own first bytes; never by its name or by what the sender says.

The list of what may be kept is short, so every entry is decided by an exact signature. What is not on it is refused:
pages and drawings that may carry scripts (HTML, SVG), programs, plain archives. See docs/decisions/0027.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from typing import BinaryIO

from platform_api.media.rules import BadFile

__all__ = ["HEAD_BYTES", "TYPES", "check_archive", "sniff"]

HEAD_BYTES = 4096

TYPES = (
    "application/pdf", "application/epub+zip", "image/png", "image/jpeg", "image/webp", "image/gif", "video/mp4",
    "video/webm", "audio/mpeg", "audio/wav", "audio/flac", "audio/ogg", "audio/mp4", "text/plain",
)  # fmt: skip
"""What may be kept."""
_STARTS = (
    (b"%PDF-", "application/pdf"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"), (b"GIF89a", "image/gif"), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
)  # fmt: skip
_EPUB = b"mimetypeapplication/epub+zip"
_EPUB_OFFSET = 30
_MARKUP = re.compile(
    rb"^(\xef\xbb\xbf)?\s*<(\?xml|!--|!doctype|svg|html|head|body|script|[a-z]+[\s>:/])", re.IGNORECASE
)
_SVG = re.compile(rb"<(\w+:)?svg[\s>]", re.IGNORECASE)
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")

ENTRIES_MAX = 10_000
UNPACKED_BYTES_MAX = 1024 * 1024 * 1024
RATIO_MAX = 200
DIRECTORY_BYTES_MAX = 256 * ENTRIES_MAX
CHUNK_BYTES = 64 * 1024
_END = struct.Struct("<4s6xHLLH")
"""Of the record that ends an archive: signature, entries, length and offset of the directory, length of a comment."""
_END_SIGNATURE, _END64_SIGNATURE, _END64_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20
_LOCAL = struct.Struct("<4s4xH16xHH")
"""What stands before an entry's bytes: signature, method, lengths of the name and of the extra fields."""
_LOCAL_SIGNATURE = b"PK\x03\x04"


def sniff(head: bytes) -> str | None:
    """The type of a file that begins with `head` (HEAD_BYTES of it, or all). None: nothing that we know."""
    for start, type_ in _STARTS:
        if head.startswith(start):
            return type_
    if head[:4] == b"RIFF" and len(head) >= 12:
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return "audio/mp4" if head[8:12] in (b"M4A ", b"M4B ") else "video/mp4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "video/webm" if b"webm" in head[:128] else None
    if head.startswith(b"PK\x03\x04"):
        return "application/epub+zip" if head[_EPUB_OFFSET:].startswith(_EPUB) else "application/zip"
    if len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:  # an MPEG frame of layer III without tags
        return "audio/mpeg"
    if _MARKUP.match(head):
        return "image/svg+xml" if _SVG.search(head) else "text/html"
    return "text/plain" if head and _is_text(head) else None


def check_archive(file: BinaryIO) -> None:
    """Blocking. Refuses what unpacks to far more than it is, to anything else than it says, or outside of its folder.

    Each entry is inflated piece by piece, no further than its directory allows, and kept nowhere: a reader that
    believes the stream instead of the directory meets nothing else.

    Raises:
        BadFile: `archive_broken`, `archive_too_many_entries`, `archive_bomb`, `archive_bad_name`, or
            `archive_encrypted`.
    """
    try:
        entries = _directory(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise BadFile("archive_broken") from error
    packed, unpacked = sum(entry.compress_size for entry in entries), sum(entry.file_size for entry in entries)
    if unpacked > UNPACKED_BYTES_MAX or unpacked > RATIO_MAX * max(packed, 4096):
        raise BadFile("archive_bomb")
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0] or not name.isprintable():
            raise BadFile("archive_bad_name")
        if entry.flag_bits & 0x1:
            raise BadFile("archive_encrypted")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:  # entries that share their bytes
            raise BadFile("archive_bomb")
        try:
            end = _end_of(file, entry)
        except (zlib.error, struct.error, UnicodeDecodeError) as error:
            raise BadFile("archive_broken") from error


def _directory(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """The entries. The end record is judged first: zipfile makes an object of each entry there is.

    No archive of 64 bits is taken, nor one with anything between its directory and its end: nothing that may be kept
    needs either, and both are ways to show two readers two directories.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - (1 << 16)))
    tail = file.read()
    at = len(tail) - _END.size
    if at < 0 or not (tail.startswith(_END_SIGNATURE, at) and tail.endswith(b"\0\0")):
        at = tail.rfind(_END_SIGNATURE)
    if at < 0:
        raise BadFile("archive_broken")
    _, count, length, offset, _ = _END.unpack_from(tail, at)
    if count > ENTRIES_MAX:
        raise BadFile("archive_too_many_entries")
    if length > DIRECTORY_BYTES_MAX:
        raise BadFile("archive_bomb")
    is_64 = tail.startswith(_END64_SIGNATURE, max(0, at - _END64_BYTES))
    if is_64 or offset + length != size - len(tail) + at:
        raise BadFile("archive_broken")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if len(entries) != count:
        raise BadFile("archive_broken")
    return entries


def _end_of(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where the entry's bytes end, once they have been inflated. Raises BadFile, zlib.error."""
    file.seek(entry.header_offset)
    signature, method, name_bytes, extra_bytes = _LOCAL.unpack(file.read(_LOCAL.size))
    name = file.read(name_bytes).decode("utf-8" if entry.flag_bits & 0x800 else "cp437")
    if (signature, method, name) != (_LOCAL_SIGNATURE, entry.compress_type, entry.orig_filename):
        raise BadFile("archive_broken")
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadFile("archive_broken")
    start: int = entry.header_offset + _LOCAL.size + name_bytes + extra_bytes
    file.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED and entry.compress_size else None
    left, made, check = entry.compress_size, 0, 0
    while left:
        packed = file.read(min(left, CHUNK_BYTES))
        if not packed:
            raise BadFile("archive_broken")
        left -= len(packed)
        while True:
            piece = packed if inflater is None else inflater.decompress(packed, CHUNK_BYTES)
            made, check = made + len(piece), zlib.crc32(piece, check)
            if made > entry.file_size:
                raise BadFile("archive_bomb")
            packed = b"" if inflater is None else inflater.unconsumed_tail
            if inflater is None or inflater.eof or (not packed and len(piece) < CHUNK_BYTES):
                break
        if inflater is not None and inflater.eof and (left or inflater.unused_data):
            raise BadFile("archive_broken")
    if (made, check) != (entry.file_size, entry.CRC) or (inflater is not None and not inflater.eof):
        raise BadFile("archive_broken")
    return start + entry.compress_size


def _is_text(head: bytes) -> bool:
    """UTF-8 without control characters; `head` may end within a character."""
    if _CONTROLS.search(head):
        return False
    for cut in range(4):
        try:
            head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return True
    return False
