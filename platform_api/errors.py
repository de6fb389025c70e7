"""What a failure looks like over HTTP: the one table of codes, and the one map from the error tree to it.

    {"success": false, "error": {"code", "message", "details"?, "timestamp", "request_id"}}

`details.reason` is a stable machine word. A failed validation also carries `details.field`. Texts never carry
internals: what nobody foresaw is logged with its traceback under the request id and answered as INTERNAL_ERROR.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from engine.messages.errors import (
    ExchangeError,
    JournalFailed,
    LocalFault,
    OutcomeUnknown,
    PartMissing,
    Refused,
    Unavailable,
)
from platform_api.complaints import NOT_ALLOWED, choices, in_words
from platform_api.texts import BODY_BYTES_MAX

__all__ = [
    "ApiError",
    "ErrorBody",
    "ErrorCode",
    "Failure",
    "as_api_error",
    "failure_bytes",
    "handle",
    "refused_order",
    "timestamp",
]

log = logging.getLogger(__name__)
SECONDS_CHARACTERS = len("2026-01-02T03:04:05Z")
_PLACE = re.compile(r"- at `\$\.data\.(.+)`$")


class ErrorCode(StrEnum):
    VALIDATION_ERROR = "VALIDATION_ERROR"
    INVALID_CONTENT_FORMAT = "INVALID_CONTENT_FORMAT"
    UNAUTHORIZED = "UNAUTHORIZED"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    FORBIDDEN = "FORBIDDEN"
    LICENSE_EXPIRED = "LICENSE_EXPIRED"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    CONFLICT = "CONFLICT"
    VERIFICATION_FAILED = "VERIFICATION_FAILED"
    ORDER_REJECTED = "ORDER_REJECTED"
    RATE_LIMITED = "RATE_LIMITED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT"

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return STATUS[self]


STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.VALIDATION_ERROR: 400,
    ErrorCode.INVALID_CONTENT_FORMAT: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.PAYMENT_FAILED: 402,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.LICENSE_EXPIRED: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.CONFLICT: 409,
    ErrorCode.VERIFICATION_FAILED: 422,
    ErrorCode.ORDER_REJECTED: 422,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.UPSTREAM_UNAVAILABLE: 502,
    ErrorCode.SERVICE_UNAVAILABLE: 503,
    ErrorCode.UPSTREAM_TIMEOUT: 504,
}


class ApiError(Exception):
    """A failure with its place in the table. `reason` is the machine word, `field` the offending input."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        reason: str,
        field: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = {"reason": reason} | ({"field": field} if field else {}) | dict(details or {})
        self.headers = dict(headers or {})

    @property
    def reason(self) -> str:
        return str(self.details["reason"])


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `error` of a failure."""

    code: ErrorCode
    message: str
    timestamp: str
    request_id: str
    details: dict[str, Any] | None = None


class Failure(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success."""

    success: bool
    error: ErrorBody


def timestamp(at: datetime | None = None) -> str:
    """RFC 3339, UTC, microseconds; now if no time is given."""
    at = at or datetime.now(UTC)
    if at.tzinfo is not UTC:  # PostgreSQL's are, and a list has three of them a row
        at = at.astimezone(UTC)
    text = msgspec.json.encode(at)[1:-1].decode()  # a fourth of what `isoformat` takes; it leaves out a zero fraction
    return text if len(text) > SECONDS_CHARACTERS else text[:-1] + ".000000Z"


def refused_order(reason: str) -> ApiError:
    """The answer to a command that the core rejected; `reason` is the rulebook's word."""
    if reason == "busy":
        return ApiError(ErrorCode.SERVICE_UNAVAILABLE, "The exchange is too busy for this command.", reason=reason)
    if reason == "unknown_order":
        return ApiError(ErrorCode.NOT_FOUND, "There is no such order.", reason=reason)
    return ApiError(ErrorCode.ORDER_REJECTED, f"The exchange refused the order: {reason}.", reason=reason)


def as_api_error(error: Exception) -> ApiError:
    """Where any exception stands in the table. The last resort is INTERNAL_ERROR."""
    match error:
        case ApiError():
            return error
        case Unavailable():
            return ApiError(ErrorCode.SERVICE_UNAVAILABLE, str(error) or "A part is down.", reason="unavailable")
        case OutcomeUnknown():
            message = str(error) or "The outcome is unknown: ask for the order before sending it again."
            return ApiError(ErrorCode.UPSTREAM_TIMEOUT, message, reason="outcome_unknown")
        case Refused():
            return ApiError(ErrorCode.UPSTREAM_UNAVAILABLE, str(error) or "A part refused.", reason="refused")
        case JournalFailed() | PartMissing():
            return ApiError(ErrorCode.SERVICE_UNAVAILABLE, str(error), reason="unavailable")
        case asyncpg.CharacterNotInRepertoireError() | asyncpg.UntranslatableCharacterError():
            message = "A text holds a character that cannot be kept, as NUL."
            return ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_character")
        case LocalFault() | ExchangeError():
            return _internal()
        case ValidationException():
            return _invalid(error)
        case NotFoundException():
            return ApiError(ErrorCode.NOT_FOUND, "There is nothing at this path.", reason="no_route")
        case MethodNotAllowedException():
            methods = set((error.headers or {})["allow"].split(", "))
            allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
            return ApiError(
                ErrorCode.METHOD_NOT_ALLOWED, f"This path takes {allowed}.", reason="method_not_allowed",
                headers={"allow": allowed},
            )  # fmt: skip
        case HTTPException() if error.status_code == 413:
            message = f"body: must have at most {BODY_BYTES_MAX} bytes"
            return ApiError(
                ErrorCode.VALIDATION_ERROR, message, reason="body_too_large", field="body",
                details={"max_bytes": BODY_BYTES_MAX},
            )  # fmt: skip
        case RecursionError() if "deserializing" in str(error):  # msgspec's own
            message = "The body is nested too deep."
            return ApiError(ErrorCode.INVALID_CONTENT_FORMAT, message, reason="bad_json", field="body")
        case ClientException():
            return ApiError(
                ErrorCode.INVALID_CONTENT_FORMAT, "The body is no valid JSON.", reason="bad_json", field="body"
            )
        case _:
            return _internal()


def failure_bytes(error: ApiError, request_id: str) -> bytes:
    """The body of the answer."""
    body = ErrorBody(error.code, error.message, timestamp(), request_id, error.details)
    return msgspec.json.encode(Failure(False, body))


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler of the whole application."""
    request_id = request.scope["state"].get("request_id", "-")
    answer = as_api_error(error)
    if isinstance(error, ValidationException) and answer.message.endswith(NOT_ALLOWED):
        _name_choices(answer, request.scope.get("route_handler"))
    if answer.code is ErrorCode.INTERNAL_ERROR:
        log.error(
            "event=unforeseen request_id=%s method=%s path=%s", request_id, request.method, request.url.path,
            exc_info=error,
        )  # fmt: skip
    return Response(
        failure_bytes(answer, str(request_id)),
        status_code=answer.code.status,
        media_type="application/json",
        headers=answer.headers,
    )


def _name_choices(answer: ApiError, handler: Any) -> None:
    """Adds what the field takes, where the route's own type of it tells."""
    field = answer.details["field"]
    of_body = getattr(handler, "parsed_data_field", None)
    parameter = handler.parsed_fn_signature.parameters.get(field) if handler is not None else None
    of_field, place = (parameter, "body") if parameter is not None else (of_body, field)
    if of_field is not None and (allowed := choices(of_field.annotation, place)):
        answer.message += f": {', '.join(allowed)}"


def _internal() -> ApiError:
    return ApiError(ErrorCode.INTERNAL_ERROR, "Something failed on our side.", reason="internal")


def _invalid(error: ValidationException) -> ApiError:
    """From Litestar's list of what did not fit: the first is the answer, all are in the details."""
    problems = error.extra if isinstance(error.extra, list) else []
    found = [_problem(problem, error.__cause__) for problem in problems if isinstance(problem, dict)]
    if not found:
        return ApiError(
            ErrorCode.VALIDATION_ERROR, "A parameter is missing or malformed.", reason="invalid", field="query"
        )
    field, message = found[0]
    more = {"errors": [{"field": name, "message": text} for name, text in found]} if len(found) > 1 else None
    return ApiError(ErrorCode.VALIDATION_ERROR, f"{field}: {message}", reason="invalid", field=field, details=more)


def _problem(problem: Mapping[str, Any], cause: BaseException | None) -> tuple[str, str]:
    """The field with its place in the body (`metadata.genre`), and what is wrong with it."""
    message = str(problem.get("message", "is invalid"))
    field = str(problem.get("key", "body"))
    # Litestar takes every "data." out of a place in the body, also of "metadata."; the cause has the whole of it.
    place = _PLACE.search(str(cause))
    if place is not None and place[1].replace("data.", "") == field:
        field = place[1]
    field = "body" if field == "data" else field
    # A missing or unknown field is named in the text alone, in backquotes.
    if ("required field" in message or "unknown field" in message) and message.count("`") == 2:
        name = message.split("`")[1]
        field = name if field == "body" else f"{field}.{name}"
    return field, in_words(message)
