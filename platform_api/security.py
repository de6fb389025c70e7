"""Access tokens, and who the caller is.

A token is a JWT signed with Ed25519, fifteen minutes long, whose claims name account, core account, session and the
permission version. Its signature is checked on every request without a database. That its session still stands is
asked of the database and remembered for some seconds; while the database is away a signed token is good until it
expires, so that open positions can still be traded and closed.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.messages.errors import SettingsInvalid, Unavailable
from platform_api.errors import ApiError, ErrorCode

__all__ = ["Caller", "SessionGuard", "TokenSigner", "load_signing_key", "unauthorized"]

ALGORITHM = "EdDSA"
REVOKED_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request speaks for. `account` is the account's name in the core."""

    account_id: str
    account: str
    session_id: str
    address: str
    version: int


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
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
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
    """Does the session of a token still stand? Bounded: the session longest unasked is forgotten first."""

    def __init__(self, look_up: Callable[[Caller], Awaitable[str | None]], cache_seconds: int) -> None:
        """`look_up` gives None for a good session or the reason why not, or raises Unavailable."""
        self._look_up = look_up
        self._cache_ns = cache_seconds * 1_000_000_000
        self._good_until_ns: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._revoked: OrderedDict[str, None] = OrderedDict()

    def revoke(self, session_id: str) -> None:
        """At once in this process, also while the database is away."""
        self._revoked[session_id] = None
        if len(self._revoked) > REVOKED_MAX:
            self._revoked.popitem(last=False)

    async def check(self, caller: Caller) -> Caller:
        """Raises ApiError UNAUTHORIZED or FORBIDDEN."""
        if caller.session_id in self._revoked:
            raise unauthorized("session_revoked", "The session has ended: sign in again.")
        now_ns = time.monotonic_ns()
        key = (caller.session_id, caller.version)
        if self._good_until_ns.get(key, 0) > now_ns:
            return caller
        try:
            reason = await self._look_up(caller)
        except Unavailable:
            return caller
        if reason == "account_suspended":
            raise ApiError(ErrorCode.FORBIDDEN, "This account is suspended.", reason=reason)
        if reason is not None:
            raise unauthorized(reason, "The session has ended: sign in again.")
        self._good_until_ns[key] = now_ns + self._cache_ns
        self._good_until_ns.move_to_end(key)
        if len(self._good_until_ns) > REVOKED_MAX:
            self._good_until_ns.popitem(last=False)
        return caller
