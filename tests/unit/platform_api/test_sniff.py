"""What files are by their first bytes, and which archives are refused."""

import io
import struct
import zipfile
import zlib

import pytest

from platform_api.media.rules import BadFile
from platform_api.media.sniff import HEAD_BYTES, TYPES, check_archive, sniff


def epub_bytes(change=None, **entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        for name, content in entries.items():
            archive.writestr(name, content)
        if change is not None:
            change(archive)
    return out.getvalue()


def deflated(content):
    return epub_bytes(lambda archive: archive.writestr("b", content, zipfile.ZIP_DEFLATED))


def renumbered(content, old, new, places=2):
    """A number of four bytes replaced wherever it stands: in the entry's own head and in the directory."""
    old, new = struct.pack("<L", old), struct.pack("<L", new)
    assert content.count(old) == places
    return content.replace(old, new)


KNOWN = [
    (b"%PDF-1.7\n", "application/pdf"),
    (epub_bytes(), "application/epub+zip"),
    (b"\x89PNG\r\n\x1a\n" + bytes(9), "image/png"),
    (b"\xff\xd8\xff\xe0" + bytes(9), "image/jpeg"),
    (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
    (b"GIF89a" + bytes(9), "image/gif"),
    (b"\0\0\0\x18ftypisom" + bytes(9), "video/mp4"),
    (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "video/webm"),
    (b"ID3\x03" + bytes(9), "audio/mpeg"),
    (b"\xff\xfb\x90\x44" + bytes(9), "audio/mpeg"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
    (b"fLaC\0\0\0\x22", "audio/flac"),
    (b"OggS\0\2", "audio/ogg"),
    (b"\0\0\0\x18ftypM4A " + bytes(9), "audio/mp4"),
    ("Once upon a time — ".encode(), "text/plain"),
]


@pytest.mark.parametrize(("head", "type_"), KNOWN)
def test_type_is_known_by_its_first_bytes(head, type_):
    assert sniff(head) == type_ and type_ in TYPES


def test_every_type_that_is_kept_is_known():
    assert {type_ for _, type_ in KNOWN} == set(TYPES)


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\0", b"MZ\x90\0", b"\x7fELF\x02", b"#!/bin/sh\0", b"PK\x03\x04" + bytes(60), b"\x1aE\xdf\xa3matroska",
        b"RIFF\x24\0\0\0AVI ", b"<svg onload=x>", b"<!-- x --><svg>", b" \n<html>",
        b"\xef\xbb\xbf<?xml version='1.0'?>", b"<script>", b"\xff\xfe<\0s\0", b"\xc3\x28 not UTF-8", b"bell \x07",
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_is_never_taken_for_what_is(head):
    assert sniff(head) not in TYPES


def test_text_may_be_cut_within_a_character():
    whole = ("é" * HEAD_BYTES).encode()
    for cut in range(HEAD_BYTES - 3, HEAD_BYTES + 1):
        assert sniff(whole[:cut]) == "text/plain"


def test_archive_is_judged_by_its_directory_and_by_what_it_inflates_to():
    check_archive(io.BytesIO(epub_bytes(chapter="text " * 1000)))
    check_archive(io.BytesIO(deflated(bytes(range(256)) * 2000)))

    def bomb(archive):
        archive.writestr("b", bytes(5_000_000), zipfile.ZIP_DEFLATED)

    def overlapping(archive):
        """A thousand names for the same bytes."""
        archive.writestr("kernel", bytes(range(256)) * 100)
        for number in range(1000):
            entry = archive.getinfo("kernel")
            twin = zipfile.ZipInfo(f"x{number}")
            for name in ("header_offset", "compress_size", "file_size", "CRC"):
                setattr(twin, name, getattr(entry, name))
            archive.filelist.append(twin)

    for content, word in (
        (epub_bytes(bomb), "archive_bomb"),
        (epub_bytes(overlapping), "archive_bomb"),
        (epub_bytes(**{"/etc/passwd": "x"}), "archive_bad_name"),
        (epub_bytes(**{"a/../../b": "x"}), "archive_bad_name"),
        (epub_bytes(**{"C:\\x": "x"}), "archive_bad_name"),
        (epub_bytes(**{"a\nb": "x"}), "archive_bad_name"),
        (epub_bytes(**{str(number): "" for number in range(10_001)}), "archive_too_many_entries"),
        (epub_bytes()[:-10], "archive_broken"),
        (b"", "archive_broken"),
    ):
        with pytest.raises(BadFile, match=word):
            check_archive(io.BytesIO(content))


def test_archive_that_lies_about_what_it_inflates_to_is_refused():
    """A directory that says 3,000 bytes of three million: sizes that look right, and a bomb when inflated."""
    content = deflated(bytes(3_000_001))
    with pytest.raises(BadFile, match="archive_bomb"):
        check_archive(io.BytesIO(renumbered(content, 3_000_001, 3_001)))
    text = b"some text " * 999
    honest = deflated(text)
    check_archive(io.BytesIO(honest))
    with pytest.raises(BadFile, match="archive_broken"):  # it says more than there is
        check_archive(io.BytesIO(renumbered(honest, len(text), len(text) + 1)))
    with pytest.raises(BadFile, match="archive_broken"):  # other bytes than the check sum is of
        check_archive(io.BytesIO(renumbered(honest, zlib.crc32(text), 7)))
    stored = epub_bytes(chapter="twelve bytes")
    with pytest.raises(BadFile, match="archive_broken"):  # one name in the directory, another before the bytes
        check_archive(io.BytesIO(stored.replace(b"chapter", b"another", 1)))


def test_archive_of_many_entries_is_refused_before_its_directory_is_read(monkeypatch):
    many = epub_bytes(**{str(number): "" for number in range(10_001)})
    long = epub_bytes(**{f"{number:0300}": "" for number in range(9_000)})
    end = long.rindex(b"PK\x05\x06")
    few = long[: end + 8] + struct.pack("<HH", 1, 1) + long[end + 12 :]
    small = epub_bytes()
    at = small.rindex(b"PK\x05\x06")
    both = small[:at] + b"PK\x06\x07" + bytes(16) + small[at:]

    def never(*_):
        raise AssertionError("the directory was read")

    monkeypatch.setattr(zipfile, "ZipFile", never)
    for content, word in (
        (many, "archive_too_many_entries"), (long, "archive_bomb"), (few, "archive_bomb"), (both, "archive_broken"),
    ):  # fmt: skip
        with pytest.raises(BadFile, match=word):
            check_archive(io.BytesIO(content))
