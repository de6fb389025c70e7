"""The shape of every success, and pages.

    {"success": true, "data": ..., "pagination"?: {"limit", "next_cursor"}, "meta": {"request_id"}}

A cursor is opaque to the client: base64url of the sort key of the last row. It is checked when it comes back, and never
trusted beyond being a position in rows that the caller may see anyway.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Generic, Literal, TypeVar

import msgspec
from litestar import Request

from platform_api.errors import ApiError, ErrorCode

__all__ = ["LIMIT_DEFAULT", "LIMIT_MAX", "Envelope", "Meta", "Pagination", "cursor_from", "cursor_text", "ok", "page"]

LIMIT_DEFAULT = 20
LIMIT_MAX = 200

T = TypeVar("T")


class Pagination(msgspec.Struct, frozen=True):
    """`next_cursor` is null on the last page."""

    limit: int
    next_cursor: str | None


class Meta(msgspec.Struct, frozen=True):
    request_id: str


class Envelope(msgspec.Struct, Generic[T], frozen=True):
    """The body of every success."""

    success: Literal[True]
    data: T
    meta: Meta
    pagination: Pagination | msgspec.UnsetType = msgspec.UNSET


def ok(request: Request[Any, Any, Any], data: T, pagination: Pagination | None = None) -> Envelope[T]:
    """Wrap an answer."""
    meta = Meta(str(request.scope["state"].get("request_id", "-")))
    return Envelope(True, data, meta, pagination if pagination is not None else msgspec.UNSET)


def page(rows: list[T], limit: int, key: Any) -> tuple[list[T], Pagination]:
    """Cut `rows`, which were asked for with limit + 1, to the page; `key(row)` gives the ints of the sort key."""
    if len(rows) <= limit:
        return rows, Pagination(limit, None)
    rows = rows[:limit]
    return rows, Pagination(limit, cursor_text(*key(rows[-1])))


def cursor_text(*key: int) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, key)).encode()).decode().rstrip("=")


def cursor_from(text: str | None, parts: int) -> tuple[int, ...] | None:
    """The sort key in a cursor of `parts` integers.

    Raises:
        ApiError: VALIDATION_ERROR, field `cursor`, for anything that this API did not hand out.
    """
    if text is None:
        return None
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        key = tuple(int(part) for part in plain.split("."))
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error
    if len(key) != parts or any(not 0 <= part < 2**63 for part in key) or cursor_text(*key) != text:
        raise _bad_cursor()
    return key


def _bad_cursor() -> ApiError:
    return ApiError(ErrorCode.VALIDATION_ERROR, "cursor: is none of ours", reason="bad_cursor", field="cursor")
