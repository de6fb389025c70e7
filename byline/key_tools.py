"""`byline key`: the operator registers and revokes API keys of order entry, with everything that narrows them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byline.client import CommandError, public_key
from byline.operator import open_operator
from byline.settings import Settings
from byline.trading_floor import kept_key
from engine.messages.errors import Refused

__all__ = ["protection_of", "register_key", "revoke_key"]


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


def _ask(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with open_operator(settings) as operator:
            return await operator.request(body)

    try:
        return asyncio.run(ask())
    except CommandError as error:
        raise Refused(str(error)) from error
