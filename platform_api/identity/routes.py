"""Routes of identity."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody

from platform_api.envelope import Envelope, ok
from platform_api.errors import ApiError, ErrorCode
from platform_api.identity.models import (
    ApiKey,
    ApiKeyRequest,
    Nonce,
    NonceRequest,
    Profile,
    ProfilePatch,
    RefreshRequest,
    Session,
    VerifyRequest,
)
from platform_api.identity.service import IdentityService
from platform_api.openapi import BEARER, failures
from platform_api.security import Caller, SessionGuard, unauthorized

__all__ = ["AuthController", "UserController"]

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Identity = NamedDependency[IdentityService]
Guard = NamedDependency[SessionGuard]


class AuthController(Controller):
    path = "/v1/auth"
    tags = ("identity",)

    @post("/nonce", status_code=200, responses=failures(400, 429, 503))
    async def nonce(self, request: AnyRequest, data: JSONBody[NonceRequest], identity: Identity) -> Envelope[Nonce]:
        """A single-use nonce and the message to sign with it."""
        return ok(request, await identity.issue_nonce(data))

    @post("/verify", status_code=200, responses=failures(400, 401, 403, 422, 429, 503))
    async def verify(self, request: AnyRequest, data: JSONBody[VerifyRequest], identity: Identity) -> Envelope[Session]:
        """Sign in with the signed message. The first sign-in of a wallet makes the account."""
        agent = request.headers.get("user-agent", "")
        return ok(request, await identity.verify(data, _address_of(request), agent))

    @post("/refresh", status_code=200, responses=failures(400, 401, 403, 429, 503))
    async def refresh(
        self,
        request: AnyRequest,
        data: JSONBody[RefreshRequest],
        identity: Identity,
        guard: Guard,
    ) -> Envelope[Session]:
        """A refresh token for the next pair. One that was used before ends its session."""
        session, ended = await identity.refresh(data)
        if session is None:
            guard.revoke(ended or "")
            raise unauthorized("refresh_reused", "This refresh token was used before: the session has been ended.")
        return ok(request, session)

    @post("/logout", status_code=200, security=BEARER, responses=failures(401, 429, 503))
    async def logout(
        self,
        request: AnyRequest,
        caller: Who,
        identity: Identity,
        guard: Guard,
    ) -> Envelope[None]:
        """End this session."""
        guard.revoke(caller.session_id)
        await identity.log_out(caller)
        return ok(request, None)


class UserController(Controller):
    path = "/v1/users/me"
    tags = ("identity",)
    security = BEARER

    @get("/", responses=failures(401, 403, 429, 503))
    async def me(
        self,
        request: AnyRequest,
        caller: Who,
        identity: Identity,
    ) -> Envelope[Profile]:
        """The caller's own account."""
        return ok(request, await identity.profile(caller))

    @patch("/", responses=failures(400, 401, 403, 409, 429, 503))
    async def change(
        self,
        request: AnyRequest,
        data: JSONBody[ProfilePatch],
        caller: Who,
        identity: Identity,
        if_match: Annotated[str | None, HeaderParameter(name="If-Match", required=False)] = None,
    ) -> Envelope[Profile]:
        """Change username, display name, bio or preferences; absent fields stay."""
        return ok(request, await identity.change_profile(caller, data, if_match))

    @get("/api-keys", responses=failures(401, 403, 429, 503))
    async def keys(self, request: AnyRequest, caller: Who, identity: Identity) -> Envelope[list[ApiKey]]:
        """Keys for the trading websocket that are in force."""
        return ok(request, await identity.keys(caller))

    @post("/api-keys", responses=failures(400, 401, 403, 409, 429, 503, 504))
    async def add_key(
        self,
        request: AnyRequest,
        data: JSONBody[ApiKeyRequest],
        caller: Who,
        identity: Identity,
    ) -> Envelope[ApiKey]:
        """Register an Ed25519 public key. The private key stays with the caller."""
        return ok(request, await identity.add_key(caller, data))

    @delete("/api-keys/{key_id:str}", status_code=200, responses=failures(401, 403, 404, 429, 503, 504))
    async def revoke_key(
        self,
        request: AnyRequest,
        key_id: FromPath[str],
        caller: Who,
        identity: Identity,
    ) -> Envelope[None]:
        """Revoke a key, at once."""
        try:
            parsed = UUID(key_id)
        except ValueError as error:
            raise ApiError(ErrorCode.NOT_FOUND, "There is no such key.", reason="unknown_key") from error
        await identity.revoke_key(caller, parsed)
        return ok(request, None)


def _address_of(request: AnyRequest) -> str | None:
    host = request.client.host if request.client else ""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None  # a unix socket has no address
