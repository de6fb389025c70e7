"""What never reaches a log or an audit entry: values under the names of secrets, and texts that look like tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["REDACTED", "redacted"]

REDACTED = "[redacted]"
SECRET_NAMES = frozenset({
    "access_token", "authorization", "card_number", "client_secret", "cookie", "cookies", "csrf_token", "email",
    "mnemonic", "nonce", "password", "private_key", "refresh_token", "secret", "set_cookie", "signature",
    "signing_key", "token",
})  # fmt: skip
"""`email` is no secret but a person's: logs and audit carry none."""
TOKEN = re.compile(
    r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+|(?i:bearer\s+)[A-Za-z0-9._~+/=-]{16,}"
    r"|suiprivkey1[a-z0-9]{20,}|[\w.+-]+@[\w-]+\.[\w.]+"
)


def redacted(value: Any, name: str = "") -> Any:
    """`value` without secrets: mappings and lists are walked, texts searched. Any other value stays as it is."""
    if name.lower().replace("-", "_") in SECRET_NAMES and value is not None:
        return REDACTED
    if isinstance(value, Mapping):
        return {str(key): redacted(part, str(key)) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(part) for part in value]
    if isinstance(value, str):
        return TOKEN.sub(REDACTED, value)
    return value
