"""Bodies of the uploads' routes. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from platform_api.texts import line

__all__ = ["FileInfo", "FileUrl", "PartReceived", "Upload", "UploadRequest"]

MediaType = Annotated[
    str, Meta(min_length=3, max_length=100, pattern=r"^[a-z0-9.+-]+/[a-z0-9.+-]+$(?!\n)", examples=["image/png"])
]
Sha256 = Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}$(?!\n)", examples=["9f86d081" * 8])]


class UploadRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`sha256`: of the whole file, if it is known; a file that differs is refused."""

    name: Annotated[str, line(200, "cover.png", min_length=1)]
    content_type: MediaType
    size_bytes: Annotated[int, Meta(ge=1, le=2**53)]
    sha256: Sha256 | None = None


class FileInfo(Struct, frozen=True):
    """A file that was checked. `content_type` is what its bytes say."""

    id: str
    name: str
    content_type: str
    size_bytes: int
    sha256: Sha256
    created_at: str


class Upload(Struct, frozen=True):
    """Parts are numbered from 1, each `part_bytes` long and the last one shorter; `missing_parts` names up to 100.

    Of a file that failed, `problem` is a word for the rule that it breaks, and `rule` names the field and the rule.
    """

    id: str
    name: str
    content_type: str
    size_bytes: int
    part_bytes: int
    part_count: int
    missing_parts: list[int]
    status: Literal["receiving", "scanning", "ready", "failed", "expired"]
    problem: Annotated[str | None, Meta(examples=[None])]
    rule: Annotated[str | None, Meta(examples=[None])]
    file: FileInfo | None
    created_at: str
    expires_at: str


class PartReceived(Struct, frozen=True):
    number: int
    size_bytes: int
    sha256: Sha256


class FileUrl(Struct, frozen=True):
    """Good for one file, for reading, until then; whoever has it may read."""

    url: Annotated[
        str, Meta(examples=["/v1/files/0197e7a2-5b7c-7c3e-9f0a-3f3c2b1a0d4e/content?expires=1&signature=00"])
    ]
    expires_at: str
