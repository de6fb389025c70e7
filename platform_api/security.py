"""Access tokens, cookies, and who the caller is.

A token is a JWT signed with Ed25519, fifteen minutes long, whose claims name account, core account, session and the
permission version. Its signature is checked on every request without a database. That its session still stands is
asked of the database and remembered for some seconds; while the database is away a signed token is good until it
expires, so that open positions can still be traded and closed, with the permissions of a member and no others.

Programs send the token as a bearer. The web application has it in a cookie that scripts cannot read; then requests that
change something also need the header `X-CSRF-Token`, a keyed digest of the session that only a page of ours gets.

    __Host-byline_access    the access token           httpOnly, Secure, SameSite=Lax, Path=/
    __Host-byline_refresh   the refresh token          the same
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.handlers import BaseRouteHandler

from engine.messages.errors import SettingsInvalid, Unavailable
from files.durable import keep_name, make_directory, make_once
from platform_api.errors import ApiError, ErrorCode
from platform_api.permissions import how_to_get, may, permissions_of

__all__ = [
    "ACCESS_COOKIE", "REFRESH_COOKIE", "Caller", "SessionGuard", "Standing", "TokenSigner", "caller_of",
    "check_may", "cookie_caller", "freshly_proved", "guard_of", "load_signing_key", "permitted", "session_cookies",
    "step_up_required", "unauthorized", "visitor_of",
]  # fmt: skip

ALGORITHM = "EdDSA"
SESSIONS_MAX = 100_000
"""Of those that are known to stand, and of those that are known to have ended."""
ACCESS_COOKIE = "__Host-byline_access"
REFRESH_COOKIE = "__Host-byline_refresh"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROOF_MAX = timedelta(minutes=10)
"""How old a wallet's signature may be for an act that needs a fresh one."""

Connection = ASGIConnection[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request speaks for. `account` is the account's name in the core; `address` the wallet that signed in.

    `proved_at`: when a wallet last signed for this session; None while the database cannot say.
    """

    account_id: str
    account: str
    session_id: str
    address: str
    version: int
    permissions: frozenset[str] = permissions_of(())
    proved_at: datetime | None = None

    def may(self, permission: str) -> bool:
        return may(self.permissions, permission)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database says of a session: why it no longer stands (None: it does), and what its account may do."""

    problem: str | None
    permissions: frozenset[str] = permissions_of(())
    proved_at: datetime | None = None


def unauthorized(reason: str, message: str) -> ApiError:
    return ApiError(
        ErrorCode.UNAUTHORIZED, message, reason=reason, headers={"www-authenticate": f'Bearer error="{reason}"'}
    )


def load_signing_key(path: Path | None) -> Ed25519PrivateKey:
    """The key at `path`, made there (mode 0600) if there is none. Without a path, a key that dies with the process.

    Raises:
        SettingsInvalid: the file holds something else.
    """
    if path is None:
        return Ed25519PrivateKey.generate()
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        make_directory(path.parent)
        make_once(path, pem, mode=0o600)
        keep_name(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise SettingsInvalid(f"signing_key_path: {path} holds no private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsInvalid(f"signing_key_path: {path} holds no Ed25519 key")
    return key


class TokenSigner:
    """Makes and reads access tokens for one domain."""

    def __init__(self, key: Ed25519PrivateKey, domain: str, seconds: int) -> None:
        self._key = key
        self._public_key = key.public_key()
        self._domain = domain
        self.seconds = seconds
        raw = key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        self._csrf_key = hashlib.sha256(b"byline csrf\0" + raw).digest()

    def csrf_token(self, session_id: str) -> str:
        """What a page must send with requests that change something for this session."""
        return hmac.new(self._csrf_key, session_id.encode(), hashlib.sha256).hexdigest()

    def csrf_fits(self, session_id: str, token: str) -> bool:
        return hmac.compare_digest(self.csrf_token(session_id), token)

    def issue(self, caller: Caller) -> str:
        now = int(time.time())
        claims = {
            "iss": self._domain, "aud": self._domain, "iat": now, "exp": now + self.seconds,
            "sub": caller.account_id, "acc": caller.account, "sid": caller.session_id,
            "adr": caller.address, "ver": caller.version,
        }  # fmt: skip
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def read(self, token: str) -> Caller:
        """Raises ApiError UNAUTHORIZED: `token_expired` or `token_invalid`."""
        try:
            claims = jwt.decode(
                token, self._public_key, algorithms=[ALGORITHM], audience=self._domain, issuer=self._domain,
                options={"require": ["exp", "iat", "sub", "iss", "aud"]},
            )  # fmt: skip
            return Caller(claims["sub"], claims["acc"], claims["sid"], claims["adr"], claims["ver"])
        except jwt.ExpiredSignatureError as error:
            raise unauthorized("token_expired", "The access token has expired.") from error
        except (jwt.InvalidTokenError, KeyError) as error:
            raise unauthorized("token_invalid", "The access token is none of ours.") from error


class SessionGuard:
    """Does the session of a token still stand? Bounded: the session longest unasked is forgotten first.

    No request costs more for there being many sessions: one version of a session stands, so each has one entry.
    """

    def __init__(self, look_up: Callable[[Caller], Awaitable[Standing]], cache_seconds: int) -> None:
        """`look_up` raises Unavailable while the database is away."""
        self._look_up = look_up
        self._cache_ns = cache_seconds * 1_000_000_000
        self._known: OrderedDict[str, tuple[int, int, Standing]] = OrderedDict()
        """Of a session, the longest unasked first: until when it is taken for good, its version and good standing."""
        self._revoked: OrderedDict[str, None] = OrderedDict()

    def revoke(self, session_id: str) -> None:
        """At once in this process, also while the database is away."""
        self._revoked[session_id] = None
        if len(self._revoked) > SESSIONS_MAX:
            self._revoked.popitem(last=False)

    def forget(self, session_id: str) -> None:
        """The next request asks the database again: something about the session has changed."""
        self._known.pop(session_id, None)

    async def check(self, caller: Caller) -> Caller:
        """The caller with permissions and proof. Raises ApiError UNAUTHORIZED or FORBIDDEN."""
        if caller.session_id in self._revoked:
            raise unauthorized("session_revoked", "The session has ended: sign in again.")
        now_ns = time.monotonic_ns()
        until_ns, version, standing = self._known.get(caller.session_id, (0, 0, None))
        if standing is None or until_ns <= now_ns or version != caller.version:
            try:
                standing = await self._look_up(caller)
            except Unavailable:
                return caller
            if standing.problem == "account_suspended":
                raise ApiError(ErrorCode.FORBIDDEN, "This account is suspended.", reason=standing.problem)
            if standing.problem is not None:
                raise unauthorized(standing.problem, "The session has ended: sign in again.")
            self._known[caller.session_id] = (now_ns + self._cache_ns, caller.version, standing)
            self._known.move_to_end(caller.session_id)
            self._drop_over(now_ns)
        return replace(caller, permissions=standing.permissions, proved_at=standing.proved_at)

    def _drop_over(self, now_ns: int) -> None:
        """Two at most for each that comes: fewer than come would be left, and all at once would hold up everybody."""
        for _ in range(2):
            until_ns, _, _ = next(iter(self._known.values()), (now_ns + 1, 0, None))
            if until_ns > now_ns and len(self._known) <= SESSIONS_MAX:
                break
            self._known.popitem(last=False)


def cookie_caller(signer: TokenSigner, method: str, cookie: str, csrf_token: str, site: str) -> Caller:
    """The caller of a request with an access cookie. `site` is its Sec-Fetch-Site header, empty if there is none.

    Raises:
        ApiError: UNAUTHORIZED as for a bearer; FORBIDDEN `csrf` if the request changes something and carries no proof
            that a page of ours made it.
    """
    caller = signer.read(cookie)
    if method not in SAFE_METHODS and (
        site not in ("", "same-origin", "same-site") or not signer.csrf_fits(caller.session_id, csrf_token)
    ):
        message = "A request with a cookie that changes something needs the header X-CSRF-Token of its session."
        raise ApiError(ErrorCode.FORBIDDEN, message, reason="csrf", field="X-CSRF-Token")
    return caller


def session_cookies(access: str, access_seconds: int, refresh: str, refresh_seconds: int) -> list[Cookie]:
    """Both cookies; empty tokens and zero seconds delete them."""
    return [
        Cookie(key=name, value=value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")
        for name, value, seconds in (
            (ACCESS_COOKIE, access, access_seconds), (REFRESH_COOKIE, refresh, refresh_seconds),
        )
    ]  # fmt: skip


def guard_of(connection: Connection) -> SessionGuard:
    """The guard of the application that this request came to."""
    guard: SessionGuard = connection.scope["state"]["parts"]["guard"]
    return guard


async def visitor_of(connection: Connection) -> Caller | None:
    """Whose request this is, or None without a token; one that is there must be good. Raises ApiError.

    Asked once for each request; guards and routes get the same answer.
    """
    state = connection.scope["state"]
    error: ApiError | None = state.get("caller_error")
    if error is not None:
        raise error
    checked: Caller | None = state.get("checked_caller")
    unchecked: Caller | None = state.get("caller")
    if checked is not None or unchecked is None:
        return checked
    state["checked_caller"] = checked = await guard_of(connection).check(unchecked)
    return checked


async def caller_of(connection: Connection) -> Caller:
    """The same where a token is needed. Raises ApiError UNAUTHORIZED or FORBIDDEN."""
    caller = await visitor_of(connection)
    if caller is None:
        raise unauthorized("token_missing", "This needs an access token.")
    return caller


def permitted(*wanted: str, either: bool = False) -> Any:
    """A guard for routes: the caller must hold every permission of `wanted`, or any of them if `either`.

    UNAUTHORIZED or FORBIDDEN otherwise.
    """
    assert wanted and all(may(frozenset(), name) is False for name in wanted)

    async def guard(connection: Connection, _: BaseRouteHandler) -> None:
        caller = await caller_of(connection)
        suffices = any if either else all
        if not suffices(map(caller.may, wanted)):  # perhaps granted since the session was last looked up
            guard_of(connection).forget(caller.session_id)
            connection.scope["state"].pop("checked_caller", None)
            caller = await caller_of(connection)
        if not suffices(map(caller.may, wanted)):
            raise _permission_missing([name for name in wanted if not caller.may(name)], either)

    return guard


def check_may(caller: Caller, permission: str) -> None:
    """For what a permission is needed for in some cases only. Raises ApiError FORBIDDEN."""
    if not caller.may(permission):
        raise _permission_missing([permission])


def _permission_missing(missing: list[str], either: bool = False) -> ApiError:
    message = f"This needs the permission {(' or ' if either else ', ').join(missing)}. {how_to_get(missing[0])}"
    return ApiError(ErrorCode.FORBIDDEN, message, reason="permission_missing", details={"permissions": missing})


async def freshly_proved(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard for routes: a wallet must have signed for this session within ten minutes (`POST /v1/auth/step-up`)."""
    caller = await caller_of(connection)
    if caller.proved_at is None or datetime.now(UTC) - caller.proved_at > PROOF_MAX:
        raise step_up_required()


def step_up_required(rule: str = "This") -> ApiError:
    message = f"{rule} needs a fresh signature of a wallet: POST /v1/auth/step-up."
    return ApiError(ErrorCode.FORBIDDEN, message, reason="step_up_required")
