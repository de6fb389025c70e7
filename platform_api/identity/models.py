"""Bodies of the identity routes. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "ApiKey", "ApiKeyRequest", "Nonce", "NonceRequest", "Profile", "ProfilePatch", "RefreshRequest", "Session",
    "VerifyRequest",
]  # fmt: skip

Address = Annotated[str, Meta(min_length=66, max_length=66, pattern="^0x[0-9a-fA-F]{64}$")]
Scope = Literal["read", "trade"]


class NonceRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`address` is the wallet's: 0x and 64 hexadecimal digits."""

    address: Address


class Nonce(Struct, frozen=True):
    """`message` is what the wallet must sign as a personal message, byte for byte."""

    nonce: str
    message: str
    issued_at: str
    expires_at: str


class VerifyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`signature` is the wallet's base64: flag, signature, public key; or a multisig."""

    address: Address
    nonce: Annotated[str, Meta(min_length=32, max_length=32, pattern="^[0-9a-f]{32}$")]
    signature: Annotated[str, Meta(min_length=1, max_length=4096)]


class RefreshRequest(Struct, frozen=True, forbid_unknown_fields=True):
    refresh_token: Annotated[str, Meta(min_length=20, max_length=200)]


class Session(Struct, frozen=True):
    """A refresh token is good once; the answer to its use brings the next. Times in seconds."""

    account_id: str
    account: str
    address: str
    session_id: str
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    created: bool


class Profile(Struct, frozen=True):
    """`account` is the name in the core, which all orders and events carry."""

    id: str
    account: str
    username: str | None
    display_name: str
    bio: str
    status: str
    wallets: list[str]
    preferences: dict[str, Any]
    created_at: str
    updated_at: str
    version: int


class ProfilePatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Absent fields stay. `If-Match` with the version guards against two writers."""

    username: Annotated[str, Meta(min_length=3, max_length=32, pattern="^[A-Za-z0-9_-]+$")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    display_name: Annotated[str, Meta(max_length=80)] | msgspec.UnsetType = msgspec.UNSET
    bio: Annotated[str, Meta(max_length=2000)] | msgspec.UnsetType = msgspec.UNSET
    preferences: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class ApiKeyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`public_key`: the 32 bytes of an Ed25519 public key in hexadecimal. No key may withdraw."""

    public_key: Annotated[str, Meta(min_length=64, max_length=64, pattern="^[0-9a-fA-F]{64}$")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=2)]
    label: Annotated[str, Meta(max_length=64)] = ""


class ApiKey(Struct, frozen=True):
    id: str
    public_key: str
    scopes: list[str]
    label: str
    created_at: str
    last_used_at: str | None
