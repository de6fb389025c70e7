"""`byline key`: the operator registers, lists and revokes API keys of order entry, with everything that narrows them.

Of a private key it tells the file alone, and by whom it is used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from byline.client import CommandError, load_key, public_key
from byline.operator import open_operator
from byline.running import check_journal
from byline.settings import Settings
from byline.trading_floor import kept_key
from byline.wanted_keys import CHAIN_KEY, EXCHANGE_KEYS
from engine.messages.errors import Refused
from gateway.keys import REGISTRY_PATH, ApiKey, read_living

__all__ = ["list_keys", "protection_of", "register_key", "revoke_key"]


def protection_of(text: str | None) -> dict[str, Any] | None:
    """The terms of a protection, from JSON. Raises Refused: it is no object."""
    if text is None:
        return None
    try:
        terms = json.loads(text)
    except ValueError:
        terms = None
    if not isinstance(terms, dict):
        raise Refused('--protection is a JSON object, as {"window_ms":1000,"fills":20}')
    return terms


def register_key(
    settings: Settings, key: str | None, name: str | None, accounts: Sequence[str], scopes: Sequence[str],
    restrictions: dict[str, Any],
) -> tuple[dict[str, Any], Path | None]:  # fmt: skip
    """The exchange's answer, and the file of the private key if it was made here: DATA/keys/NAME.key.

    Raises:
        Refused: neither or both of key and name; or the exchange refused it, and why.
        Unavailable: no exchange runs on the data directory.
    """
    if (key is None) == (name is None):
        raise Refused("give a public key, or --name for a key that is made here")
    path = None
    if key is None:
        key = public_key(kept_key(settings.data_directory, f"{name}"))
        path = settings.data_directory / "keys" / f"{name}.key"
    given = {field: value for field, value in restrictions.items() if value}
    body = {"op": "register_key", "key": key, "accounts": [*accounts], "scopes": [*scopes], "label": name or ""} | given
    return _ask(settings, body), path


def revoke_key(settings: Settings, key: str) -> None:
    """Its sessions end at once, and what they placed is canceled. Raises as register_key."""
    _ask(settings, {"op": "revoke_key", "key": key})


def list_keys(settings: Settings) -> Iterator[str]:
    """Lines: the exchange's own keys with what each is for, then the living API keys. Needs no running exchange.

    Raises:
        Unavailable: this is no data directory of an exchange.
        KeyRegistryCorrupt: the registry holds a line that does not check.
    """
    data = settings.data_directory
    check_journal(data)
    yield "The exchange's own:"
    for path, purpose in EXCHANGE_KEYS.items():
        yield f"  {path:<22} {purpose}{_where(settings, path)}"
    registry = data / REGISTRY_PATH
    keys = read_living(registry.read_bytes(), str(registry)) if registry.exists() else []
    files = _private_halves(data)
    yield f"API keys ({len(keys):,} living):"
    for key in keys:
        yield f"  {key.key}  {key.label or 'no label'}"
        yield f"    {_rights_of(key)}" + (f"; private half: {files[key.key]}" if key.key in files else "")


def _where(settings: Settings, path: str) -> str:
    if path == CHAIN_KEY and settings.chain_signer:
        return "  (held by BYLINE_CHAIN_SIGNER)"
    if path == CHAIN_KEY and settings.chain_key:
        return f"  (in {settings.chain_key}, by BYLINE_CHAIN_KEY)"
    return "" if (settings.data_directory / path).exists() else "  (not there)"


def _rights_of(key: ApiKey) -> str:
    """For whom, what, and how it is narrowed, in one line."""
    said = [f"for {', '.join(key.accounts) or 'every account'}", f"may {', '.join(key.scopes.words())}"]
    for name, value in key.restrictions.fields().items():
        if name == "expires_at":
            value = datetime.fromtimestamp(value // 10**9, UTC).isoformat()
        said.append(f"{name} {', '.join(value) if isinstance(value, list) else value}")
    return "; ".join(said)


def _private_halves(data: Path) -> dict[str, Path]:
    """Files of private keys that lie in the data directory, by their public halves."""
    found = {}
    for path in sorted((data / "keys").glob("*.key")):
        try:
            found[public_key(load_key(path.read_text()))] = path
        except ValueError:  # of another kind than API keys are: a secret for salts, a key of access tokens
            continue
    return found


def _ask(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with open_operator(settings) as operator:
            return await operator.request(body)

    try:
        return asyncio.run(ask())
    except CommandError as error:
        raise Refused(str(error)) from error
