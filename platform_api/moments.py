"""Times that people name: with a zone, and such that every part here and PostgreSQL can hold them.

The first and last hours of what a datetime can say are no moment in every zone: whoever turned one to UTC would fail.
"""

from __future__ import annotations

from datetime import UTC, datetime

from platform_api.errors import ApiError, ErrorCode

__all__ = ["checked_moment", "is_moment"]

EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def is_moment(at: datetime) -> bool:
    """Whether it names its zone and lies from 1900 to before 2200."""
    return at.tzinfo is not None and EARLIEST <= at < LATEST


def checked_moment(at: datetime, field: str) -> datetime:
    """In UTC if it names no zone. Raises ApiError VALIDATION_ERROR `bad_moment` outside of 1900 … 2200."""
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    if not is_moment(at):
        message = f"{field}: must be from 1900 to before 2200"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_moment", field=field)
    return at
