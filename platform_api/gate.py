"""The outermost layer: every HTTP request passes here once, before and after Litestar.

In: gives the request its id, reads the bearer token or cookie, takes a token from the bucket of its class, refuses a
body that is not JSON. Out: puts request id, RateLimit and security headers on the answer and counts it. Its own
refusals have the common envelope. Holds no request beyond its answer.

    class      which                            key
    auth       /v1/auth/…                       network of the client
    trading    POST /v1/orders…                 account
    cancels    DELETE /v1/orders…               account; one that cancelled its order is given back
    catalogue  writes that contexts name        account, by the hour
    account    any other with a good token      account
    public     any other                        network of the client
    refusals   writes that pay, beside theirs   account, by the hour; one that is not refused for money is given back
    none       /health, /ready, /metrics, files of the terminal

HEAD is GET without the body, in all of this (docs/decisions/0081).
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog

from platform_api.errors import ApiError, ErrorCode, failure_bytes
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.limits import Verdict
from platform_api.request_scope import RequestFacts, current_request
from platform_api.security import ACCESS_COOKIE, SAFE_METHODS, Caller, cookie_caller, unauthorized

__all__ = ["Gate"]

log = structlog.get_logger(__name__)
_level = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
PAYMENT_FAILED = ErrorCode.PAYMENT_FAILED.status
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
BY_ADDRESS = ("auth", "public", "webhooks")
_ALL_ORDERS = "/v1/orders"
PAYING = (
    "/v1/license-applications", "/v1/licenses", "/v1/payments", "/v1/purchases", "/v1/transfers", "/v1/withdrawals",
)  # fmt: skip
"""What may be answered 402: each refusal of the core takes a place in its table of refs for a week."""
USER_AGENT_MAX = 300
SECURITY_HEADERS = (
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)

Observer = Callable[[str, str, int, float], None]
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


class Gate:
    """ASGI around ASGI. A request goes to the routes with `parts` in its state, where their arguments come from.

    `lifespan` is what runs while the application does. `observe(method, path template, status, seconds)` is called
    once for each answer.
    """

    def __init__(
        self, app: Any, kernel: Kernel, parts: Mapping[str, Any], lifespan: Lifespan, observe: Observer, *,
        catalogue: Sequence[str] = (), binary: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.app = app
        self.kernel = kernel
        self.parts = parts
        self._lifespan = lifespan
        self._observe = observe
        self._catalogue = tuple(catalogue)
        self._binary = tuple(binary)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        state = scope.setdefault("state", {})
        state["parts"] = self.parts
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, method = time.perf_counter(), scope["method"]
        if method == "HEAD":
            scope, send = scope | {"method": "GET"}, _without_body(send)
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given_id = headers.get(b"x-request-id", "")
        request_id = given_id if REQUEST_ID.fullmatch(given_id) else str(new_id())
        state["request_id"] = request_id
        state["facts"] = facts = RequestFacts(
            request_id, _address(scope), headers.get(b"user-agent", "")[:USER_AGENT_MAX] or None
        )
        caller = self._identify(scope["method"], headers, state)
        name, key = self._class_of(scope, caller)
        verdict = await self._take(name, key)
        may_be_refused = caller is not None and scope["method"] not in SAFE_METHODS and scope["path"].startswith(PAYING)
        if may_be_refused and (verdict is None or verdict.allowed):
            refusals = await self._take("refusals", key)
            if refusals is not None and not refusals.allowed:
                verdict, may_be_refused = refusals, False
        extra = self._answer_headers(scope["path"], request_id, verdict)
        status = 500

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        token = current_request.set(facts)
        try:
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                refusal = self._refusal(scope, headers, verdict)
                if refusal is not None:
                    await _send_failure(refusal, request_id, send_with_headers)
                else:
                    await self.app(scope, receive, send_with_headers)
            if name == "cancels" and status == 200 and scope["path"] != _ALL_ORDERS:
                await self.kernel.limits.give_back(name, key)
            if may_be_refused and status != PAYMENT_FAILED:
                await self.kernel.limits.give_back("refusals", key)
        finally:
            current_request.reset(token)
            template = str(scope.get("path_template") or "other")
            seconds = time.perf_counter() - started
            self._observe(method, template, status, seconds)
            if _level.isEnabledFor(logging.DEBUG):  # else the line would be made whole before it is dropped
                log.debug(
                    "answered", method=method, route=template, status=status, request_id=request_id,
                    duration_ms=round(seconds * 1000, 3), account_id=caller.account_id if caller else None,
                )  # fmt: skip

    async def _live(self, receive: Any, send: Any) -> None:
        """ASGI's lifespan. An application that cannot start says why and raises."""
        phase = "lifespan.startup"
        await receive()
        try:
            async with self._lifespan():
                await send({"type": "lifespan.startup.complete"})
                phase = "lifespan.shutdown"
                await receive()
        except BaseException:
            await send({"type": phase + ".failed", "message": traceback.format_exc()})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    def _identify(self, method: str, headers: dict[bytes, str], state: dict[str, Any]) -> Caller | None:
        """The caller, or the reason why there is none, goes into the request's state for `visitor_of`.

        A bearer comes before a cookie: a program that sends both means the bearer.
        """
        scheme, _, token = headers.get(b"authorization", "").partition(" ")
        try:
            if scheme.lower() == "bearer":
                state["caller"] = caller = self.kernel.signer.read(token.strip())
                return caller
            if scheme:
                raise unauthorized("token_invalid", "Only bearer tokens are taken.")
            cookie = _cookie(headers.get(b"cookie", ""), ACCESS_COOKIE)
            if not cookie:
                return None
            state["caller"] = caller = cookie_caller(
                self.kernel.signer, method, cookie, headers.get(b"x-csrf-token", ""), headers.get(b"sec-fetch-site", "")
            )
            return caller
        except ApiError as error:
            state["caller_error"] = error
            return None

    async def _take(self, name: str, key: str) -> Verdict | None:
        if not name:
            return None
        if name in BY_ADDRESS:
            return await self.kernel.limits.take_of_address(name, key)
        return await self.kernel.limits.take(name, key)

    def _class_of(self, scope: Any, caller: Caller | None) -> tuple[str, str]:
        """The class of the request, empty if it has none, and whose bucket of it."""
        path, address = scope["path"], (scope.get("client") or ("-",))[0]
        if not path.startswith("/v1/"):
            return "", ""
        writes = scope["method"] not in SAFE_METHODS
        if path.startswith("/v1/auth/"):
            return "auth", address
        if path.startswith("/v1/webhooks/"):  # signed by the provider, so no caller
            return "webhooks", address
        if caller is None:
            return "public", address
        if writes and path.startswith("/v1/orders"):
            # A limit of orders must keep nobody in a position. A sweep of all may find none, so it costs.
            return "cancels" if scope["method"] == "DELETE" else "trading", caller.account_id
        if writes and path.startswith(self._catalogue):
            return "catalogue", caller.account_id
        return "account", caller.account_id

    @staticmethod
    def _answer_headers(path: str, request_id: str, verdict: Verdict | None) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
        if path.startswith("/v1/"):
            headers.append((b"cache-control", b"private, no-store"))
        if verdict is not None:
            headers += [(name.encode(), value.encode()) for name, value in verdict.headers().items()]
        return headers

    def _refusal(self, scope: Any, headers: dict[bytes, str], verdict: Verdict | None) -> ApiError | None:
        if verdict is not None and not verdict.allowed:
            message = f"Too many requests: wait {verdict.retry_seconds} s."
            return ApiError(
                ErrorCode.RATE_LIMITED, message, reason="rate_limited",
                details={"limit": verdict.limit, "retry_seconds": verdict.retry_seconds},
            )  # fmt: skip
        has_body = headers.get(b"content-length", "0") != "0" or b"transfer-encoding" in headers
        media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        is_binary = scope["method"] == "PUT" and scope["path"].startswith(self._binary)
        wanted = "application/octet-stream" if is_binary else "application/json"
        if scope["method"] in BODY_METHODS and has_body and media_type != wanted:
            message = f"The body must be {wanted}."
            return ApiError(ErrorCode.INVALID_CONTENT_FORMAT, message, reason="bad_content_type", field="Content-Type")
        return None


async def _send_failure(error: ApiError, request_id: str, send: Any) -> None:
    body = failure_bytes(error, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.code.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _without_body(send: Any) -> Any:
    """Ends the answer behind its headers; a stream is told then that nobody reads on, and stops."""

    async def send_head(message: Any) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return send_head


def _address(scope: Any) -> str | None:
    try:
        return str(ipaddress.ip_address((scope.get("client") or ("",))[0]))
    except ValueError:
        return None  # a unix socket has no address


def _cookie(header: str, name: str) -> str:
    if name not in header:
        return ""
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""
