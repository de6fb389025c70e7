"""`byline people`: roles, keys of sealed columns and the audit trail, from the command line of the machine.

Works on the database itself; whoever may run it may do everything anyway. What it changes has its audit entry, with no
actor: that is the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from byline.running import running_process
from byline.settings import Settings
from engine.messages.errors import SettingsInvalid, Unavailable
from platform_api.contexts import CONTEXTS
from platform_api.errors import ApiError
from platform_api.identity.roles import Roles
from platform_api.identity.sui_signature import BadSignature
from platform_api.identity.suspensions import ban
from platform_api.identity.wallet_proof import wallet_address
from platform_api.kernel.audit import Audit, verify_chain
from platform_api.kernel.events import Events
from platform_api.kernel.sealing import rotate

__all__ = ["COLUMN_KEYS", "ban_account", "connected", "dsn_of", "grant_role", "rotate_column_keys", "verify_audit"]

COLUMN_KEYS = "keys/columns.json"


def grant_role(settings: Settings, who: str, role: str, departments: Sequence[str], *, take_away: bool) -> str:
    """What was done, in words. Raises SettingsInvalid (no such account or role), Unavailable."""
    return asyncio.run(_grant(dsn_of(settings), who, role, departments, take_away))


def ban_account(settings: Settings, who: str, reason: str) -> str:
    """What was done, in words. Raises SettingsInvalid (no such account, not suspended), Unavailable."""
    return asyncio.run(_ban(dsn_of(settings), who, reason))


def rotate_column_keys(settings: Settings) -> str:
    """What was done, in words."""
    number = rotate(settings.data_directory / COLUMN_KEYS)
    return f"key {number} added to {settings.data_directory / COLUMN_KEYS}; it seals after the API's next start"


def verify_audit(settings: Settings) -> tuple[bool, str]:
    """Whether the chain holds, and the finding in words. Raises Unavailable."""
    return asyncio.run(_verify(dsn_of(settings)))


async def _ban(dsn: str, who: str, reason: str) -> str:
    try:
        async with connected(dsn) as connection, connection.transaction():
            account_id = await _account(connection, who)
            await ban(connection, _events(), Audit(), account_id, reason)
    except ApiError as error:
        raise SettingsInvalid(error.message) from error
    return f"account {account_id} is banned: nobody signs in to it any more; its money and its works stay its own"


def _events() -> Events:
    return Events(type_ for context in CONTEXTS for type_ in context.events)


async def _grant(dsn: str, who: str, role: str, departments: Sequence[str], take_away: bool) -> str:
    roles = Roles(_events(), Audit())
    try:
        async with connected(dsn) as connection, connection.transaction():
            account_id = await _account(connection, who)
            if take_away:
                done = await roles.revoke(connection, account_id, role, actor=None, from_command_line=True)
            else:
                done = await roles.grant(
                    connection, account_id, role, actor=None, departments=departments, from_command_line=True
                )
    except ApiError as error:
        raise SettingsInvalid(error.message) from error
    words = ("has lost the role" if take_away else "has the role") if done else "is left as it was: role"
    return f"account {account_id} {words} {role}"


async def _account(db: Any, who: str) -> UUID:
    try:
        wallet = wallet_address(who)
        found = await db.fetchval(
            "SELECT account_id FROM identity.wallet WHERE chain = $1 AND address = $2 AND revoked_at IS NULL",
            wallet.chain, wallet.raw,
        )  # fmt: skip
    except BadSignature:
        found = await db.fetchval(
            "SELECT id FROM identity.account WHERE id::text = lower($1) OR lower(username) = lower($1)", who
        )
    if found is None:
        raise SettingsInvalid(f"no account has the id, user name or wallet {who}")
    return UUID(str(found))


async def _verify(dsn: str) -> tuple[bool, str]:
    async with connected(dsn) as connection:
        good, broken = await verify_chain(connection)
        waiting = await connection.fetchval("SELECT count(*) FROM kernel.audit_entry WHERE hash IS NULL")
    if broken is not None:
        return False, f"the audit trail is broken at entry {broken}: {good:,} entries before it are sound"
    return True, f"the audit trail is sound: {good:,} entries, {waiting:,} not in the chain yet"


def dsn_of(settings: Settings) -> str:
    """Of the platform's database. Raises Unavailable: no exchange runs on that data directory, or not with its own."""
    if settings.postgres_url:
        return settings.postgres_url
    other = "or set BYLINE_POSTGRES_URL here as it is there, if it runs on a database of yours"
    return str(running_process(settings.data_directory, "postgres", instead=other)["url"])


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection for the block. Raises Unavailable."""
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise Unavailable(f"the database is not reachable: {error}") from error
    try:
        yield connection
    finally:
        await connection.close()
