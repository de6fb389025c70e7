"""The outermost layer: every HTTP request passes here once, before and after Litestar.

In: gives the request its id, reads the bearer token, takes a token from the bucket of its class, refuses a body that is
not JSON. Out: puts request id, RateLimit and security headers on the answer and counts it. Its own refusals have the
common envelope. Holds no request beyond its answer.

    class      which                            key
    auth       /v1/auth/…                       address of the client
    trading    POST, DELETE /v1/orders…         account
    account    any other with a good token      account
    public     any other                        address of the client
    none       /health, /ready, /metrics, files of the terminal
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from platform_api.errors import ApiError, ErrorCode, failure_bytes
from platform_api.ids import new_id
from platform_api.limits import Buckets, Verdict
from platform_api.security import Caller, TokenSigner
from platform_api.settings import ApiSettings

__all__ = ["Gate"]

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)

Observer = Callable[[str, str, int, float], None]


class Gate:
    """ASGI around ASGI. `observe(method, path template, status, seconds)` is called once for each answer."""

    def __init__(self, app: Any, settings: ApiSettings, signer: TokenSigner, observe: Observer) -> None:
        self.app = app
        self._signer = signer
        self._observe = observe
        self._buckets = {
            "auth": Buckets(settings.auth_per_minute),
            "trading": Buckets(settings.trading_per_minute),
            "account": Buckets(settings.account_per_minute),
            "public": Buckets(settings.public_per_minute),
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given_id = headers.get(b"x-request-id", "")
        request_id = given_id if REQUEST_ID.fullmatch(given_id) else str(new_id())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        caller = self._identify(headers, state)
        verdict = self._spend(scope, caller)
        extra = self._answer_headers(scope["path"], request_id, verdict)
        status = 500

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        try:
            refusal = self._refusal(scope, headers, verdict)
            if refusal is not None:
                await _send_failure(refusal, request_id, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        finally:
            template = str(scope.get("path_template") or "other")
            self._observe(scope["method"], template, status, time.perf_counter() - started)

    def _identify(self, headers: dict[bytes, str], state: dict[str, Any]) -> Caller | None:
        """The caller, or the reason why there is none, goes into the request's state for `provide_caller`."""
        scheme, _, token = headers.get(b"authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer":
            state["caller_error"] = ApiError(
                ErrorCode.UNAUTHORIZED, "Only bearer tokens are taken.", reason="token_invalid"
            )
            return None
        try:
            state["caller"] = caller = self._signer.read(token.strip())
        except ApiError as error:
            state["caller_error"] = error
            return None
        return caller

    def _spend(self, scope: Any, caller: Caller | None) -> Verdict | None:
        path, address = scope["path"], (scope.get("client") or ("-",))[0]
        if not path.startswith("/v1/"):
            return None
        if path.startswith("/v1/auth/"):
            name, key = "auth", address
        elif caller is None:
            name, key = "public", address
        elif path.startswith("/v1/orders") and scope["method"] in ("POST", "DELETE"):
            name, key = "trading", caller.account_id
        else:
            name, key = "account", caller.account_id
        return self._buckets[name].take(key, time.monotonic_ns())

    @staticmethod
    def _answer_headers(path: str, request_id: str, verdict: Verdict | None) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
        if path.startswith("/v1/"):
            headers.append((b"cache-control", b"private, no-store"))
        if verdict is not None:
            headers += [(name.encode(), value.encode()) for name, value in verdict.headers().items()]
        return headers

    @staticmethod
    def _refusal(scope: Any, headers: dict[bytes, str], verdict: Verdict | None) -> ApiError | None:
        if verdict is not None and not verdict.allowed:
            message = f"Too many requests: {verdict.limit} a minute are allowed here."
            return ApiError(
                ErrorCode.RATE_LIMITED, message, reason="rate_limited",
                details={"limit_per_minute": verdict.limit, "retry_seconds": verdict.retry_seconds},
            )  # fmt: skip
        has_body = headers.get(b"content-length", "0") != "0" or b"transfer-encoding" in headers
        media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if scope["method"] in BODY_METHODS and has_body and media_type != "application/json":
            message = "The body must be application/json."
            return ApiError(ErrorCode.INVALID_CONTENT_FORMAT, message, reason="bad_content_type", field="Content-Type")
        return None


async def _send_failure(error: ApiError, request_id: str, send: Any) -> None:
    body = failure_bytes(error, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.code.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
