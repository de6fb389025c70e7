"""Settings of the API, checked when made. Only `byline.settings` reads an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.messages.errors import SettingsInvalid

__all__ = ["ApiSettings"]


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Limits are per minute, and 0 switches one off. Times are seconds."""

    postgres_dsn: str
    domain: str = "127.0.0.1:7400"
    """What wallets are asked to sign for. A signature made for another domain opens nothing here."""
    chain: str = "sui:local"
    signing_key_path: Path | None = None
    """Ed25519 key of the access tokens, made on first use with mode 0600. None: a key for this process alone."""
    web_folder: Path | None = None
    embedded: bool = False
    """The chain is the embedded one: `/health` says so, and the faucet may run."""
    faucet: Mapping[str, str] = field(default_factory=dict)
    """Test money for a newcomer: asset to decimal amount. Refused unless `embedded`."""
    nonce_seconds: int = 300
    access_seconds: int = 900
    refresh_seconds: int = 30 * 86_400
    session_cache_seconds: int = 5
    """How long a session that was found good is taken for good: the most that a revocation may lag."""
    public_per_minute: int = 100
    account_per_minute: int = 1_000
    trading_per_minute: int = 100
    auth_per_minute: int = 10
    body_bytes_max: int = 64 * 1024
    pool_connections_max: int = 8
    query_seconds_max: float = 5.0
    keys_per_account_max: int = 20
    withdrawal_confirm_seconds: int = 3_600
    """A withdrawal that is not confirmed by then is cancelled."""
    withdrawal_address_delay_seconds: int = 86_400
    """How old an address must be before money goes there."""
    withdrawal_fees: Mapping[str, str] = field(default_factory=dict)
    """Asset → decimal amount that goes to platform:gas with each withdrawal."""

    def __post_init__(self) -> None:
        for name in ("nonce_seconds", "access_seconds", "refresh_seconds", "body_bytes_max", "pool_connections_max",
                     "withdrawal_confirm_seconds"):  # fmt: skip
            if getattr(self, name) < 1:
                raise SettingsInvalid(f"{name} must be at least 1")
        for name in ("public_per_minute", "account_per_minute", "trading_per_minute", "auth_per_minute"):
            if not 0 <= getattr(self, name) <= 10_000_000:
                raise SettingsInvalid(f"{name} must be 0 … 10,000,000")
        if self.access_seconds >= self.refresh_seconds:
            raise SettingsInvalid("access_seconds must be less than refresh_seconds")
        if self.faucet and not self.embedded:
            raise SettingsInvalid("faucet gives test money away and needs embedded")
        if not self.domain or any(c.isspace() for c in self.domain):
            raise SettingsInvalid("domain must be a host, with a port if need be")
