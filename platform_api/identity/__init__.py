"""People: sign-in with a wallet, sessions, devices, profiles, wallets, roles, API keys."""

from platform_api.identity.owner_letters import ACCOUNT_EMAIL
from platform_api.identity.people import TOKEN_EMAIL
from platform_api.identity.routes import AccountsController, AuthController, UserController, UsersController
from platform_api.identity.service import IdentityService
from platform_api.kernel.context import Context, Kernel

__all__ = ["CONTEXT"]


async def _upkeep(kernel: Kernel) -> None:
    await kernel.service(IdentityService).keys.note_uses()


CONTEXT = Context(
    "identity",
    (AuthController, UserController, UsersController, AccountsController),
    IdentityService,
    events=(
        "user.registered", "user.email_verified", "user.role_granted", "user.role_revoked", "session.revoked",
        "user.suspended", "user.unsuspended", "user.banned",
        "wallet.linked", "wallet.unlinked", "api_key.added", "api_key.revoked",
    ),
    sealed=(ACCOUNT_EMAIL, TOKEN_EMAIL),
    upkeep=_upkeep,
)  # fmt: skip
