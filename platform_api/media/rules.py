"""What a file must be to be kept: a machine word for each rule, and the sentence that tells it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["IMAGE_BYTES_MAX", "IMAGE_SIDE_MAX", "PIXELS_MAX", "RULES", "BadFile"]

PIXELS_MAX = 100_000_000
"""A viewer needs four bytes of memory for each."""
IMAGE_SIDE_MAX = 32_767
IMAGE_BYTES_MAX = 200 * 1024 * 1024

RULES: Mapping[str, str] = {
    "type_not_allowed": "body: must begin as a file of a type that is kept",
    "type_mismatch": "content_type: must be the type that the file begins as",
    "sha256_mismatch": "sha256: must be the digest of the bytes that were sent",
    "archive_broken": "body: the archive's entries must be whole, and as its directory says",
    "archive_too_many_entries": "body: an archive has at most 10,000 entries",
    "archive_bomb": "body: an archive unpacks to at most 1 GiB and 200 times its size",
    "archive_bad_name": "body: names in an archive stay within its folder",
    "archive_encrypted": "body: entries of an archive are not encrypted",
    "image_broken": "body: the image's header and pieces must be whole",
    "image_too_large": f"body: an image has at most {PIXELS_MAX:,} pixels, and {IMAGE_SIDE_MAX:,} a side",
    "image_too_many_bytes": f"body: an image has at most {IMAGE_BYTES_MAX:,} bytes",
    "movie_broken": "body: the boxes of an MP4 must lie inside each other and inside the file",
    "movie_no_index": "body: an MP4 needs one moov box, of at most 32 MiB",
    "movie_no_track": "body: an MP4 needs a track of video or sound that has samples",
    "movie_samples_missing": "body: every sample that an MP4's tables name must lie in its media data",
    "movie_samples_broken": "body: the samples of H.264 and H.265 must consist of whole units",
}
"""Word → `field: rule`."""


class BadFile(Exception):
    """Why a file may not be kept: a word of RULES."""
