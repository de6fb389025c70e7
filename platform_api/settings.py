"""Settings of the API, checked when made. Only `byline.settings` reads an environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from engine.messages.decimals import DECIMAL
from engine.messages.errors import SettingsInvalid

__all__ = ["ApiSettings"]

ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
SECONDS = (
    "nonce_seconds", "access_seconds", "session_seconds", "email_token_seconds", "withdrawal_confirm_seconds",
    "symbol_reservation_seconds",
)  # fmt: skip
COUNTS = (
    "pool_connections_max",
    "core_connections_max",
    "jobs_running_max",
    "keys_per_account_max",
    "wallets_per_account_max",
    "part_bytes",
    "file_bytes_max",
    "account_bytes_max",
    "symbols_per_account_max",
    "sockets_max",
    "sockets_per_address_max",
    "intent_seconds",
)
LIMITS = (
    "public_per_minute", "account_per_minute", "trading_per_minute", "auth_per_minute", "catalogue_per_hour",
    "socket_messages_per_minute", "webhooks_per_minute", "refusals_per_hour",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Limits of 0 are switched off. Times are seconds."""

    postgres_dsn: str = field(repr=False)
    listens_at: str = "127.0.0.1:7400"
    """HOST:PORT of this process."""
    public_url: str = ""
    """Where people reach the API: `https://…` without a path. Empty: `http://` and where it listens. `domain` and
    `origin` are of it."""
    chain: str = "sui:local"
    ethereum_chain_id: int = 1
    """What Ethereum wallets are asked to sign for; nothing is ever sent to that chain."""
    signing_key_path: Path | None = None
    """Ed25519 key of the access tokens, made on first use with mode 0600. None: a key for this process alone."""
    column_keys_path: Path | None = None
    """Key ring of the sealed columns, made on first use with mode 0600. None: a ring for this process alone."""
    mail_folder: Path | None = None
    """Where the built-in mail provider puts letters. None: there is no provider, and addresses cannot be verified."""
    mail_sender: str = "Byline <no-reply@byline.invalid>"
    web_folder: Path | None = None
    cors_origins: tuple[str, ...] = ()
    """Pages of other origins that may read answers. Cookies never go to them."""
    redis_url: str = field(default="", repr=False)
    """`redis://…`: rate limits are shared there and events also go to its stream. Empty: neither."""
    embedded: bool = False
    """The chain is the embedded one: `/health` says so, and the faucet may run."""
    faucet: Mapping[str, str] = field(default_factory=dict)
    """Test money for a newcomer: asset to decimal amount. Refused unless `embedded`."""
    nonce_seconds: int = 300
    access_seconds: int = 900
    session_seconds: int = 86_400
    """From a sign-in to the next, however often its tokens are refreshed."""
    email_token_seconds: int = 86_400
    session_cache_seconds: int = 5
    """How long a session that was found good is taken for good: the most that a revocation may lag."""
    counted_seconds: int = 5
    """How old the counts of `/metrics` and `/v1/status` may be, which read whole tables."""
    public_per_minute: int = 100
    account_per_minute: int = 1_000
    trading_per_minute: int = 100
    auth_per_minute: int = 10
    catalogue_per_hour: int = 1_000
    refusals_per_hour: int = 20
    """Payments of one account that the core refuses, as for lack of money."""
    webhooks_per_minute: int = 6_000
    """Of one address: a provider sends the events of all payments from few."""
    pool_connections_max: int = 8
    core_connections_max: int = 4
    """Besides, of those that are kept while the core is asked; and as many again for accounts that are new."""
    query_seconds_max: float = 5.0
    background: bool = True
    """Relay and job worker run in this process."""
    jobs_running_max: int = 20
    keys_per_account_max: int = 20
    withdrawal_confirm_seconds: int = 3_600
    """A withdrawal that is not confirmed by then is cancelled."""
    withdrawal_address_delay_seconds: int = 86_400
    """How old an address must be before money goes there."""
    withdrawal_fees: Mapping[str, str] = field(default_factory=dict)
    """Asset → decimal amount that goes to platform:gas with each withdrawal, rounded up to the asset's units."""
    wallets_per_account_max: int = 20
    blob_url: str = field(default="", repr=False)
    """Where files are kept: `file:///…`, `s3://bucket/…`, `gs://…`; credentials of the environment. Empty: memory."""
    part_bytes: int = 8 * 1024 * 1024
    """Of an upload. S3 takes 10,000 of at least 5 MiB."""
    file_bytes_max: int = 1024**3
    account_bytes_max: int = 20 * 1024**3
    """What one account may keep."""
    verify_creators_at_once: bool = False
    """Who asks to be verified is, without anybody deciding."""
    works_need_verification: bool = False
    """A work is published by the approval of somebody of the platform."""
    portfolio_needed: bool = False
    """Who asks to be verified names published works."""
    sockets_max: int = 10_000
    """Readers of the event socket in this process."""
    sockets_per_address_max: int = 100
    socket_messages_per_minute: int = 1_000
    """Of one connection. 0: no limit."""
    symbol_reservation_seconds: int = 86_400
    symbols_per_account_max: int = 3
    launch_platform_bps: int = 500
    """The platform's share of what the sale of a new token brings in."""
    test_payments: bool = False
    """The built-in payment provider, which takes test money. Refused unless `embedded`."""
    intent_seconds: int = 3_600
    """What is not paid by then expires."""
    provider_payment_max: int = 100_000
    """The most of one payment through a provider, in whole units of its asset."""
    royalty_hold_days: int = 7
    """How old what was earned must be to be paid out; so long its seller can give a sale back."""

    unproved_per_day: int = 50
    """What an account may pay from its balance for purchases and licences within a day (UTC), in whole units of each
    asset, without a fresh signature of a wallet. 0: nothing."""

    def __post_init__(self) -> None:
        strange = tuple(origin for origin in self.cors_origins if not ORIGIN.fullmatch(origin))
        rules: list[tuple[bool, str]] = [
            *((getattr(self, name) >= 1, f"{name} must be at least 1") for name in (*SECONDS, *COUNTS)),
            *((0 <= getattr(self, name) <= 10_000_000, f"{name} must be 0 … 10,000,000") for name in LIMITS),
            (self.session_cache_seconds >= 0, "session_cache_seconds must not be negative"),
            (self.counted_seconds >= 0, "counted_seconds must not be negative"),
            (0 <= self.launch_platform_bps <= 10_000, "launch_platform_bps must be 0 … 10,000"),
            (
                all(map(DECIMAL.fullmatch, self.withdrawal_fees.values())),
                "withdrawal_fees must be a decimal for each asset, as 0.25",
            ),
            (self.query_seconds_max > 0, "query_seconds_max must be above 0"),
            (self.access_seconds < self.session_seconds, "access_seconds must be less than session_seconds"),
            (self.file_bytes_max <= 10_000 * self.part_bytes, "file_bytes_max must be at most 10,000 part_bytes"),
            (self.jobs_running_max >= 20, "jobs_running_max must be at least 20"),
            (self.ethereum_chain_id >= 1, "ethereum_chain_id must be at least 1"),
            (0 <= self.unproved_per_day <= 10_000_000, "unproved_per_day must be 0 … 10,000,000"),
            (1 <= self.provider_payment_max <= 10_000_000, "provider_payment_max must be 1 … 10,000,000"),
            (0 <= self.royalty_hold_days <= 365, "royalty_hold_days must be 0 … 365"),
            (not self.test_payments or self.embedded, "test_payments takes test money and needs embedded"),
            (not self.faucet or self.embedded, "faucet gives test money away and needs embedded"),
            (
                bool(self.listens_at) and not any(c.isspace() for c in self.listens_at),
                "listens_at must be a host, with a port if need be",
            ),
            (
                self.public_url == "" or ORIGIN.fullmatch(self.public_url) is not None,
                "public_url must be scheme://host[:port]",
            ),
            (not strange, f"cors_origins must be scheme://host[:port] each, not {strange}"),
            (
                self.redis_url == "" or self.redis_url.startswith(("redis://", "rediss://", "unix://")),
                "redis_url must be redis://, rediss:// or unix://",
            ),
        ]
        for holds, rule in rules:
            if not holds:
                raise SettingsInvalid(rule)

    @property
    def domain(self) -> str:
        """What wallets are asked to sign for, and who issues access tokens: a signature for another opens nothing here.
        The host that a browser shows, for wallets warn of any other."""
        return urlsplit(self.origin).netloc.lower()

    @property
    def origin(self) -> str:
        """What paths of the API are put after, for links that leave it."""
        return self.public_url or f"http://{self.listens_at}"
