"""Whole small files of the types that are checked further than their first bytes."""

from __future__ import annotations

import struct
import zlib

__all__ = ["box", "movie", "png", "track"]


def png(filler: bytes = b"", width: int = 1, height: int = 1) -> bytes:
    """An image; `filler` makes it longer, and another. Only one of 1 × 1 has all its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pieces = [(b"IHDR", header), *([(b"fiLl", filler)] if filler else []), (b"IDAT", zlib.compress(b"\0\0")),
              (b"IEND", b"")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in pieces
    )


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def track(
    sizes: list[int], offset: int, *, kind: bytes = b"vide", codec: bytes = b"mp4v", config: bytes = b""
) -> bytes:
    """A track whose samples lie in one chunk that begins at `offset`."""
    table = [
        box(b"stsd", struct.pack(">II", 0, 1), box(codec, bytes(78), config)),
        box(b"stts", struct.pack(">IIII", 0, 1, len(sizes), 1)),
        box(b"stsc", struct.pack(">II", 0, 1), struct.pack(">III", 1, len(sizes), 1)),
        box(b"stsz", struct.pack(f">III{len(sizes)}I", 0, 0, len(sizes), *sizes)),
        box(b"stco", struct.pack(">III", 0, 1, offset)),
    ]
    media = [box(b"hdlr", bytes(8), kind, bytes(12)), box(b"minf", box(b"stbl", *table))]
    return box(b"trak", box(b"mdia", *media))


def movie(samples: list[bytes] | None = None, *, brand: bytes = b"mp42", **more: bytes) -> bytes:
    """An MP4 of one track: media data first, then the index."""
    samples = [b"one", b"two"] if samples is None else samples
    head = box(b"ftyp", brand, bytes(4), brand)
    index = box(b"moov", track([len(sample) for sample in samples], len(head) + 8, **more))
    return head + box(b"mdat", *samples) + index
