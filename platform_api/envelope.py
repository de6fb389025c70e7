"""The shape of every success, and pages.

    {"success": true, "data": ..., "pagination"?: {"limit", "next_cursor"}, "meta": {"request_id"}}

A cursor is opaque to the client: base64url of the sort key of the last row. It is checked when it comes back, and never
trusted beyond being a position in rows that the caller may see anyway.

A resource with a `version` answers with it as ETag; a PATCH or PUT with If-Match changes that version or none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
from litestar import Request, Response
from litestar.params import HeaderParameter, QueryParameter

from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.moments import is_moment

__all__ = [
    "BIGINT_MAX", "LIMIT_DEFAULT", "LIMIT_MAX", "Cursor", "Envelope", "IfMatch", "Limit", "Meta", "Pagination",
    "check_version", "cursor_from", "cursor_text", "expected_version", "given", "number_from", "ok", "page",
    "path_id", "path_number", "tagged", "unknown",
]  # fmt: skip

LIMIT_DEFAULT = 20
LIMIT_MAX = 200
BIGINT_MAX = 2**63 - 1
"""The largest key that a row has; pages from the latest begin there."""

T = TypeVar("T")
CursorPart = int | str | UUID | datetime

Limit = Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)]
Cursor = Annotated[str | None, QueryParameter(max_length=1_500)]
"""The longest is of a list by title: 255 characters of four bytes, and an id."""
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", required=False, max_length=64)]


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


def page(rows: list[T], limit: int, key: Callable[[T], tuple[CursorPart, ...]]) -> tuple[list[T], Pagination]:
    """Cut `rows`, which were asked for with limit + 1, to the page; `key(row)` gives the sort key, the id last."""
    if len(rows) <= limit:
        return rows, Pagination(limit, None)
    rows = rows[:limit]
    return rows, Pagination(limit, cursor_text(*key(rows[-1])))


def cursor_text(*key: CursorPart) -> str:
    plain = [timestamp(part) if isinstance(part, datetime) else part for part in key]
    return base64.urlsafe_b64encode(msgspec.json.encode(plain)).decode().rstrip("=")


def cursor_from(text: str | None, *types: type[CursorPart]) -> tuple[Any, ...] | None:
    """The sort key in a cursor whose parts are of `types`; integers are those of a bigint, and not negative,
    times are moments.

    Raises:
        ApiError: VALIDATION_ERROR, field `cursor`, for anything that this API did not hand out.
    """
    if text is None:
        return None
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key: tuple[Any, ...] = msgspec.json.decode(plain, type=tuple[types])  # type: ignore[valid-type]
    except (binascii.Error, ValueError, OverflowError) as error:
        raise _bad_cursor() from error
    if not all(map(_fits, key)) or cursor_text(*key) != text:
        raise _bad_cursor()
    return key


def _fits(part: CursorPart) -> bool:
    if isinstance(part, datetime):
        return is_moment(part)
    return not isinstance(part, int) or 0 <= part <= BIGINT_MAX


def tagged(envelope: Envelope[T], version: int) -> Response[Envelope[T]]:
    """The answer with the version of its resource as ETag, which a later If-Match may name."""
    return Response(envelope, headers={"etag": f'"{version}"'})


def expected_version(if_match: str | None) -> int | None:
    """The version that an If-Match header names; None without one, or for `*`: any version will do.

    Raises:
        ApiError: VALIDATION_ERROR, field `If-Match`.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    number = number_from(if_match.strip().removeprefix('"').removesuffix('"'))
    if number is None:
        raise ApiError(ErrorCode.VALIDATION_ERROR, "If-Match: is no version", reason="invalid", field="If-Match")
    return number


def check_version(if_match: str | None, current: int) -> None:
    """Raises ApiError CONFLICT `version_mismatch` if the client has seen another version; also VALIDATION_ERROR.

    Call it in the transaction that changes the row, which was read FOR UPDATE.
    """
    expected = expected_version(if_match)
    if expected is not None and expected != current:
        raise ApiError(
            ErrorCode.CONFLICT, "It has changed meanwhile: read it again.", reason="version_mismatch",
            details={"version": current},
        )  # fmt: skip


def given(body: msgspec.Struct) -> dict[str, Any]:
    """The fields of a body that were given: absent ones stay as they are."""
    fields = msgspec.structs.asdict(body)
    return {name: value for name, value in fields.items() if value is not msgspec.UNSET}


def path_id(text: str, what: str) -> UUID:
    """The id in a path. What is no UUID cannot be the id of anything: NOT_FOUND `unknown_<what>`."""
    try:
        return UUID(text)
    except ValueError as error:
        raise unknown(what) from error


def number_from(text: str) -> int | None:
    """A number as this API writes it in paths and headers: decimal digits, at most BIGINT_MAX; None for all else."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        return None
    number = int(text)
    return number if number <= BIGINT_MAX else None


def path_number(text: str, what: str) -> int:
    """The number in a path, which begin at 1. What is none cannot be of anything: NOT_FOUND `unknown_<what>`."""
    number = number_from(text)
    if not number:
        raise unknown(what)
    return number


def unknown(what: str) -> ApiError:
    """The same answer for a thing that does not exist and for one of somebody else."""
    return ApiError(ErrorCode.NOT_FOUND, f"There is no such {what.replace('_', ' ')}.", reason=f"unknown_{what}")


def _bad_cursor() -> ApiError:
    return ApiError(ErrorCode.VALIDATION_ERROR, "cursor: is none of ours", reason="bad_cursor", field="cursor")
