"""Bodies of the identity routes. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from platform_api.texts import EMAIL, Genre, Signature, Url, line, prose

__all__ = [
    "AccountStanding", "ApiKey", "ApiKeyRequest", "CurrentSession", "Device", "DeviceInfo", "EmailPending",
    "EmailRequest", "EmailToken", "EmailVerified", "Nonce", "NonceRequest", "Preferences", "Profile", "ProfilePatch",
    "PublicProfile", "RefreshRequest", "Session", "SessionInfo", "SuspensionReason", "VerifyRequest", "Wallet",
    "WalletProof",
]  # fmt: skip

SUI_ADDRESS = "0x" + "5f" * 32
ETHEREUM_ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

Address = Annotated[
    str,
    Meta(
        min_length=42, max_length=66, pattern=r"^0x([0-9a-fA-F]{64}|[0-9a-fA-F]{40})$(?!\n)",
        examples=[SUI_ADDRESS, ETHEREUM_ADDRESS],
    ),
]  # fmt: skip
NonceText = Annotated[
    str,
    Meta(min_length=32, max_length=32, pattern=r"^[0-9a-f]{32}$(?!\n)", examples=["9f86d081884c7d659a2feaa0c55ad015"]),
]
Scope = Literal["read", "trade"]
DeviceKind = Literal["web", "mobile", "desktop", "tv", "program"]
Language = Annotated[
    str, Meta(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$(?!\n)", max_length=35, examples=["en-GB"])
]
Username = Annotated[str, Meta(min_length=3, max_length=32, pattern=r"^[A-Za-z0-9_-]+$(?!\n)", examples=["ink_writer"])]
EmailAddress = Annotated[str, Meta(min_length=6, max_length=254, pattern=EMAIL, examples=["ink@example.org"])]
OneTimeToken = Annotated[
    str,
    Meta(
        min_length=20, max_length=200, pattern=r"^[A-Za-z0-9_-]+$(?!\n)",
        examples=["2Yk0sTq8bW3vJx5nLr7cPz9dFh1gKm4oAe6iUuBtCwE"],
    ),
]
Topic = Annotated[str, Meta(pattern=r"^[a-z_.]{1,60}$(?!\n)", examples=["license.approved"])]


class NonceRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`address`: 0x and 64 hexadecimal digits for Sui, 40 for Ethereum. `link_wallet` and `step_up` need a token."""

    address: Address
    purpose: Literal["sign_in", "link_wallet", "step_up"] = "sign_in"


class Nonce(Struct, frozen=True):
    """`message` is what the wallet must sign as a personal message, byte for byte."""

    nonce: NonceText
    message: str
    issued_at: str
    expires_at: str


class DeviceInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """Sessions of one kind and name are of one device."""

    kind: DeviceKind
    name: Annotated[str, line(80, "Studio laptop", min_length=1)]


class WalletProof(Struct, frozen=True, forbid_unknown_fields=True):
    """`signature`: Sui: base64 of flag, signature, public key, or a multisig; Ethereum: 0x and 65 bytes."""

    address: Address
    nonce: NonceText
    signature: Signature


class VerifyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A proof for a sign-in. `delivery`: tokens in the answer (programs) or in cookies (the web application)."""

    address: Address
    nonce: NonceText
    signature: Signature
    delivery: Literal["bearer", "cookie"] = "bearer"
    device: DeviceInfo | None = None

    @property
    def proof(self) -> WalletProof:
        return WalletProof(self.address, self.nonce, self.signature)


class RefreshRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Without a token the cookie's is taken, and the header X-CSRF-Token is needed."""

    refresh_token: OneTimeToken | None = None


class Session(Struct, frozen=True):
    """A refresh token is good once; the answer to its use brings the next. Times in seconds.

    Delivered by cookie, both tokens are null here and `csrf_token` is what requests must send as X-CSRF-Token.
    """

    account_id: str
    account: str
    address: str
    session_id: str
    access_token: str | None
    token_type: Literal["Bearer", "Cookie"]
    expires_in: int
    refresh_token: str | None
    refresh_expires_in: int
    csrf_token: str | None
    created: bool


class CurrentSession(Struct, frozen=True):
    """Who the caller is and what they may do. `proved_at`: when a wallet last signed for this session."""

    account_id: str
    account: str
    address: str
    session_id: str
    roles: list[str]
    permissions: list[str]
    expires_at: str
    proved_at: str
    csrf_token: str


class SessionInfo(Struct, frozen=True):
    id: str
    device_id: str | None
    created_at: str
    last_seen_at: str
    expires_at: str
    ip_address: str | None
    user_agent: str
    current: bool


class Device(Struct, frozen=True):
    id: str
    kind: str
    name: str
    created_at: str
    last_seen_at: str
    sessions: int


class Wallet(Struct, frozen=True):
    """`primary`: where the account is settled on Sui."""

    id: str
    chain: Literal["sui", "ethereum"]
    address: str
    scheme: str
    primary: bool
    linked_at: str


class Preferences(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Absent fields have no preference."""

    language: Language | msgspec.UnsetType = msgspec.UNSET
    genres: Annotated[list[Genre], Meta(max_length=50)] | msgspec.UnsetType = msgspec.UNSET
    notifications: Annotated[dict[Topic, bool], Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET


class Profile(Struct, frozen=True):
    """`account` is the name in the core, which all orders and events carry. `email` once it is verified."""

    id: str
    account: str
    username: str | None
    display_name: str
    bio: str
    avatar_url: str
    cover_url: str
    email: str | None
    email_verified_at: str | None
    status: str
    wallets: list[str]
    preferences: Preferences
    created_at: str
    updated_at: str
    last_login_at: str | None
    version: int


class PublicProfile(Struct, frozen=True):
    """What everybody may see."""

    id: str
    username: str | None
    display_name: str
    bio: str
    avatar_url: str
    cover_url: str
    created_at: str


class ProfilePatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Absent fields stay; of `preferences` each field for itself. `If-Match` with the version guards against two
    writers."""

    username: Username | msgspec.UnsetType = msgspec.UNSET
    display_name: Annotated[str, line(80, "Ink")] | msgspec.UnsetType = msgspec.UNSET
    bio: Annotated[str, prose(2000, "Writes serials.")] | msgspec.UnsetType = msgspec.UNSET
    avatar_url: Url | msgspec.UnsetType = msgspec.UNSET
    cover_url: Url | msgspec.UnsetType = msgspec.UNSET
    preferences: Preferences | msgspec.UnsetType = msgspec.UNSET


class EmailRequest(Struct, frozen=True, forbid_unknown_fields=True):
    email: EmailAddress


class EmailPending(Struct, frozen=True):
    """A letter with a one-time token is on its way. `provider` says how."""

    provider: str
    expires_at: str


class EmailToken(Struct, frozen=True, forbid_unknown_fields=True):
    token: OneTimeToken


class EmailVerified(Struct, frozen=True):
    verified_at: str


class SuspensionReason(Struct, frozen=True, forbid_unknown_fields=True):
    """Why, for the audit trail."""

    reason: Annotated[str, prose(2000, "Its sessions were stolen.", min_length=1)]


class AccountStanding(Struct, frozen=True):
    id: str
    status: Literal["active", "suspended"]


class ApiKeyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`public_key`: the 32 bytes of an Ed25519 public key in hexadecimal. No key may withdraw."""

    public_key: Annotated[
        str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-fA-F]{64}$(?!\n)", examples=["d75a9801" * 8])
    ]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=2)]
    label: Annotated[str, line(64, "Trading bot")] = ""


class ApiKey(Struct, frozen=True):
    """`last_used_at`: when a session of it last began or ended, some minutes late; null before the first."""

    id: str
    public_key: str
    scopes: list[str]
    label: str
    created_at: str
    last_used_at: str | None
