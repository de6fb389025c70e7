"""What a file is, by its own first bytes; never by its name or by what the sender says.

The list of what may be kept is short, so every entry is decided by an exact signature. What is not on it is refused:
pages and drawings that may carry scripts (HTML, SVG), programs, plain archives. See docs/decisions/0027.
"""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO

__all__ = ["HEAD_BYTES", "TYPES", "BadArchive", "check_archive", "sniff"]

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


class BadArchive(Exception):
    """Why an archive may not be kept: a machine word."""


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
    """Blocking. Refuses what unpacks to far more than it is, or outside of its folder.

    Raises:
        BadArchive: `archive_broken`, `archive_too_many_entries`, `archive_bomb`, `archive_bad_name`, or
            `archive_encrypted`.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, UnicodeDecodeError) as error:
        raise BadArchive("archive_broken") from error
    if len(entries) > ENTRIES_MAX:
        raise BadArchive("archive_too_many_entries")
    packed, unpacked = sum(entry.compress_size for entry in entries), sum(entry.file_size for entry in entries)
    file.seek(0, 2)
    # Entries that share their bytes pack more than there is.
    if unpacked > UNPACKED_BYTES_MAX or unpacked > RATIO_MAX * max(packed, 4096) or packed > file.tell():
        raise BadArchive("archive_bomb")
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0] or not name.isprintable():
            raise BadArchive("archive_bad_name")
        if entry.flag_bits & 0x1:
            raise BadArchive("archive_encrypted")


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
