"""Identifiers: UUID version 7 (time first, so that indexes grow at one end), and secrets."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from uuid import UUID

__all__ = ["new_id", "new_secret", "secret_digest"]


def new_id() -> UUID:
    """48 bits of milliseconds, then 74 random bits (RFC 9562, version 7)."""
    value = int.from_bytes((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def new_secret() -> str:
    """256 random bits as URL-safe text."""
    return secrets.token_urlsafe(32)


def secret_digest(secret: str) -> bytes:
    """What is stored of a secret. It has 256 bits of entropy, so one SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).digest()
