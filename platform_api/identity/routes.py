"""Routes of identity."""

from __future__ import annotations

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, IfMatch, Limit, ok, path_id, tagged
from platform_api.identity.models import (
    AccountStanding,
    ApiKey,
    ApiKeyRequest,
    CurrentSession,
    Device,
    EmailPending,
    EmailRequest,
    EmailToken,
    EmailVerified,
    Nonce,
    NonceRequest,
    Profile,
    ProfilePatch,
    PublicProfile,
    RefreshRequest,
    Session,
    SessionInfo,
    SuspensionReason,
    VerifyRequest,
    Wallet,
    WalletProof,
)
from platform_api.identity.service import IdentityService
from platform_api.kernel.context import Kernel
from platform_api.openapi import BEARER, failures
from platform_api.routing import AnyRequest, Who
from platform_api.security import (
    REFRESH_COOKIE,
    SessionGuard,
    caller_of,
    freshly_proved,
    permitted,
    session_cookies,
    unauthorized,
)

__all__ = ["AccountsController", "AuthController", "UserController", "UsersController"]

Identity = NamedDependency[IdentityService]
Guard = NamedDependency[SessionGuard]
Shared = NamedDependency[Kernel]
DECIDES = failures(400, 401, 403, 404, 409, 429, 503)


class AuthController(Controller):
    path = "/v1/auth"
    tags = ("identity",)

    @post("/nonce", status_code=200, responses=failures(400, 401, 403, 429, 503))
    async def nonce(self, request: AnyRequest, data: JSONBody[NonceRequest], identity: Identity) -> Envelope[Nonce]:
        """A single-use nonce and the message to sign with it.

        To sign in it needs no token; to link a wallet, and for a step-up by a linked one, that of the session. The
        signature of a step-up goes to `POST /v1/auth/step-up`, and the next call that asks for a fresh one spends it.
        """
        caller = None if data.purpose == "sign_in" else await caller_of(request)
        return ok(request, await identity.sessions.issue_nonce(data, caller))

    @post("/verify", status_code=200, responses=failures(400, 401, 403, 422, 429, 503, 504))
    async def verify(
        self, request: AnyRequest, data: JSONBody[VerifyRequest], identity: Identity, kernel: Shared
    ) -> Response[Envelope[Session]]:
        """Sign in with the signed message. The first sign-in of a wallet makes the account."""
        return _delivered(request, await identity.sessions.sign_in(data), kernel, data.delivery == "cookie")

    @post("/refresh", status_code=200, responses=failures(400, 401, 403, 429, 503))
    async def refresh(
        self, request: AnyRequest, data: JSONBody[RefreshRequest], identity: Identity, guard: Guard, kernel: Shared
    ) -> Response[Envelope[Session]]:
        """A refresh token for the next pair. One that was used before ends its session."""
        cookie = request.cookies.get(REFRESH_COOKIE, "") if data.refresh_token is None else ""
        if data.refresh_token is None and not cookie:
            raise unauthorized("token_missing", "This needs a refresh token.")
        csrf = request.headers.get("x-csrf-token", "") if cookie else None
        session, ended = await identity.sessions.refresh(data.refresh_token or cookie, csrf)
        if session is None:
            guard.revoke(ended or "")
            raise unauthorized("refresh_reused", "This refresh token was used before: the session has been ended.")
        return _delivered(request, session, kernel, bool(cookie))

    @post("/logout", status_code=200, security=BEARER, responses=failures(401, 403, 429, 503))
    async def logout(
        self, request: AnyRequest, caller: Who, identity: Identity, guard: Guard
    ) -> Response[Envelope[None]]:
        """End this session.

        Its tokens and cookies are worth nothing from now on. The account's other sessions stay, and the API keys that
        this one made.
        """
        guard.revoke(caller.session_id)
        await identity.sessions.log_out(caller)
        return Response(ok(request, None), cookies=session_cookies("", 0, "", 0))

    @get("/session", security=BEARER, responses=failures(401, 403, 429, 503))
    async def session(self, request: AnyRequest, caller: Who, identity: Identity) -> Envelope[CurrentSession]:
        """Who the caller is, what they may do, and until when.

        `permissions` are those of all roles together; `proved_at` is when a wallet last signed for the session. A page
        gets its `csrf_token` here anew.
        """
        return ok(request, await identity.sessions.current(caller))

    @post("/step-up", status_code=200, security=BEARER, responses=failures(400, 401, 403, 422, 429, 503))
    async def step_up(
        self, request: AnyRequest, data: JSONBody[WalletProof], caller: Who, identity: Identity, guard: Guard
    ) -> Envelope[None]:
        """A fresh signature of a linked wallet (nonce of purpose step_up), for acts that ask for one.

        A nonce is spent by a bad signature, too. A good one serves registrations for ten minutes, and one act that asks
        for a step-up of its own.
        """
        await identity.sessions.step_up(caller, data)
        guard.forget(caller.session_id)
        return ok(request, None)

    @post("/email/verify", status_code=200, responses=failures(400, 409, 422, 429, 503))
    async def verify_email(
        self, request: AnyRequest, data: JSONBody[EmailToken], identity: Identity
    ) -> Envelope[EmailVerified]:
        """Confirm an e-mail address with the token of its letter, without signing in.

        The token is good once, for a day unless the operator set another time, and until another letter of the account
        is answered (422 `token_invalid`). 409 `email_taken` if the address is another account's by now. An address that
        gives way is told.
        """
        return ok(request, await identity.people.verify_email(data.token, None))


class UserController(Controller):
    path = "/v1/users/me"
    tags = ("identity",)
    security = BEARER

    @get("/", responses=failures(401, 403, 429, 503))
    async def me(self, request: AnyRequest, caller: Who, identity: Identity) -> Response[Envelope[Profile]]:
        """The caller's own account.

        `account` is its name in the core, which orders and events carry. `email` is null until one is confirmed.
        """
        profile = await identity.people.profile(caller)
        return tagged(ok(request, profile), profile.version)

    @patch("/", responses=failures(400, 401, 403, 409, 429, 503))
    async def change(
        self,
        request: AnyRequest,
        data: JSONBody[ProfilePatch],
        caller: Who,
        identity: Identity,
        if_match: IfMatch = None,
    ) -> Response[Envelope[Profile]]:
        """Change names, bio, pictures or preferences; absent fields stay.

        Of `preferences`, each field for itself. A `username` that somebody has is refused (409 `username_taken`).
        """
        profile = await identity.people.change(caller, data, if_match)
        return tagged(ok(request, profile), profile.version)

    @post("/email", status_code=202, responses=failures(400, 401, 403, 429, 503))
    async def email(
        self, request: AnyRequest, data: JSONBody[EmailRequest], caller: Who, identity: Identity
    ) -> Envelope[EmailPending]:
        """Ask for a letter with a one-time token. The address counts once it is confirmed. In place of another
        it needs a step-up."""
        return ok(request, await identity.people.ask_for_letter(caller, data))

    @post("/email/verify", status_code=200, responses=failures(400, 401, 403, 409, 422, 429, 503))
    async def verify_email(
        self, request: AnyRequest, data: JSONBody[EmailToken], caller: Who, identity: Identity
    ) -> Envelope[EmailVerified]:
        """Confirm an e-mail address with the token of its letter.

        As `POST /v1/auth/email/verify`; the letter must be one of the caller's own account.
        """
        return ok(request, await identity.people.verify_email(data.token, caller))

    @get("/wallets", responses=failures(401, 403, 429, 503))
    async def wallets(self, request: AnyRequest, caller: Who, identity: Identity) -> Envelope[list[Wallet]]:
        """Linked wallets, the one of settlement first.

        Each of them signs in to the account. The `primary` one, always of Sui, is where its balances stand on the
        chain; without one they stand in custody.
        """
        return ok(request, await identity.wallets.wallets_of(caller))

    @post("/wallets", guards=[freshly_proved], responses=failures(400, 401, 403, 409, 422, 429, 503, 504))
    async def link_wallet(
        self, request: AnyRequest, data: JSONBody[WalletProof], caller: Who, identity: Identity, guard: Guard
    ) -> Envelope[Wallet]:
        """Link a wallet that signed a nonce of purpose link_wallet. Needs a step-up for itself, after the sign-in."""
        wallet = await identity.wallets.link(caller, data)
        guard.forget(caller.session_id)
        return ok(request, wallet)

    @delete("/wallets/{wallet_id:str}", status_code=200, responses=failures(401, 403, 404, 409, 429, 503, 504))
    async def unlink_wallet(
        self, request: AnyRequest, wallet_id: FromPath[str], caller: Who, identity: Identity, guard: Guard
    ) -> Envelope[None]:
        """Unlink a wallet and end its sessions, with the API keys that they made. Never the last one. Needs a step-up
        for itself."""
        for session_id in await identity.wallets.unlink(caller, path_id(wallet_id, "wallet")):
            guard.revoke(str(session_id))
        guard.forget(caller.session_id)
        return ok(request, None)

    @get("/sessions", responses=failures(400, 401, 403, 429, 503))
    async def sessions(
        self, request: AnyRequest, caller: Who, identity: Identity, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[SessionInfo]]:
        """Sessions that stand, the latest first."""
        return ok(request, *await identity.sessions.sessions_of(caller, cursor, limit))

    @delete("/sessions/{session_id:str}", status_code=200, responses=failures(401, 403, 404, 429, 503))
    async def end_session(
        self, request: AnyRequest, session_id: FromPath[str], caller: Who, identity: Identity, guard: Guard
    ) -> Envelope[None]:
        """End a session, at once, and the API keys that it made.

        Another process of the API may take its access token for some seconds more. Letters that wait to confirm an
        address are taken back.
        """
        parsed = path_id(session_id, "session")
        await identity.sessions.end(caller, parsed)
        guard.revoke(str(parsed))
        return ok(request, None)

    @get("/devices", responses=failures(401, 403, 429, 503))
    async def devices(self, request: AnyRequest, caller: Who, identity: Identity) -> Envelope[list[Device]]:
        """Devices that signed in, the last seen first.

        A device is the kind and name that came with a sign-in; one without them has none.
        """
        return ok(request, await identity.sessions.devices(caller))

    @delete("/devices/{device_id:str}", status_code=200, responses=failures(401, 403, 404, 429, 503))
    async def revoke_device(
        self, request: AnyRequest, device_id: FromPath[str], caller: Who, identity: Identity, guard: Guard
    ) -> Envelope[None]:
        """Forget a device and end its sessions, with the API keys that they made."""
        for session_id in await identity.sessions.revoke_device(caller, path_id(device_id, "device")):
            guard.revoke(str(session_id))
        return ok(request, None)

    @get("/api-keys", responses=failures(401, 403, 429, 503))
    async def keys(self, request: AnyRequest, caller: Who, identity: Identity) -> Envelope[list[ApiKey]]:
        """Keys for the trading websocket that are in force.

        Each may read, or trade too, as its `scopes` say; none can withdraw.
        """
        return ok(request, await identity.keys.keys_of(caller))

    @post("/api-keys", responses=failures(400, 401, 403, 409, 429, 502, 503, 504))
    async def add_key(
        self, request: AnyRequest, data: JSONBody[ApiKeyRequest], caller: Who, identity: Identity, guard: Guard
    ) -> Envelope[ApiKey]:
        """Register an Ed25519 public key. The private key stays with the caller. Needs a step-up for itself, after the
        sign-in. If order entry is away, the key works as soon as it is there."""
        key = await identity.keys.add(caller, data)
        guard.forget(caller.session_id)
        return ok(request, key)

    @delete("/api-keys/{key_id:str}", status_code=200, responses=failures(401, 403, 404, 429, 502, 503, 504))
    async def revoke_key(
        self, request: AnyRequest, key_id: FromPath[str], caller: Who, identity: Identity
    ) -> Envelope[None]:
        """Revoke a key, at once; if order entry is away, as soon as it is there."""
        await identity.keys.revoke(caller, path_id(key_id, "key"))
        return ok(request, None)


class UsersController(Controller):
    path = "/v1/users"
    tags = ("identity",)

    @get("/{user_id:str}", responses=failures(404, 429, 503))
    async def user(self, request: AnyRequest, user_id: FromPath[str], identity: Identity) -> Envelope[PublicProfile]:
        """A public profile. 404 also for an account that is suspended or closed."""
        return ok(request, await identity.people.public(path_id(user_id, "user")))


class AccountsController(Controller):
    path = "/v1/admin/users"
    tags = ("admin",)
    security = BEARER

    @post("/{user_id:str}/suspend", status_code=200, guards=[permitted("suspend_users")], responses=DECIDES)
    async def suspend(
        self, request: AnyRequest, user_id: FromPath[str], data: JSONBody[SuspensionReason], caller: Who,
        identity: Identity, guard: Guard,
    ) -> Envelope[AccountStanding]:  # fmt: skip
        """Nobody signs in to it, and its sessions and keys end at once; the core cancels its orders and lets nothing
        out. Its works and its money stay. Needs `suspend_users`; never oneself."""
        standing, ended = await identity.suspensions.suspend(caller, path_id(user_id, "user"), data.reason)
        for session_id in ended:
            guard.revoke(str(session_id))
        return ok(request, standing)

    @post("/{user_id:str}/unsuspend", status_code=200, guards=[permitted("suspend_users")], responses=DECIDES)
    async def unsuspend(
        self, request: AnyRequest, user_id: FromPath[str], data: JSONBody[SuspensionReason], caller: Who,
        identity: Identity,
    ) -> Envelope[AccountStanding]:  # fmt: skip
        """Let a suspended account back; its sessions and keys stay ended. Needs `suspend_users`."""
        return ok(request, await identity.suspensions.unsuspend(caller, path_id(user_id, "user"), data.reason))


def _delivered(request: AnyRequest, session: Session, kernel: Kernel, by_cookie: bool) -> Response[Envelope[Session]]:
    """Tokens in the answer, or in cookies and then not in the answer."""
    if not by_cookie:
        return Response(ok(request, session))
    cookies = session_cookies(
        session.access_token or "", session.expires_in, session.refresh_token or "", session.refresh_expires_in
    )
    shown = msgspec.structs.replace(
        session, access_token=None, refresh_token=None, token_type="Cookie",
        csrf_token=kernel.signer.csrf_token(session.session_id),
    )  # fmt: skip
    return Response(ok(request, shown), cookies=cookies)
