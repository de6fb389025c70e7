"""Settings of the whole exchange: the only module that reads the environment.

Every setting has a default that gives a working exchange on one machine. A variable `BYLINE_<NAME>` overrides it, and
an option of the command line overrides both. Everything is checked here, at start, with units in the names.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.messages.errors import SettingsInvalid

__all__ = ["API_LIMITS", "API_SAME", "CHAIN_HOST", "Settings", "load_settings"]

CHAIN_HOST = "127.0.0.1"
"""Of the embedded node: its gRPC is plaintext and for the processes of this machine alone, whatever `host` is."""

OTHER_VARIABLES = ("BYLINE_DATA_DIRECTORY", "BYLINE_PG_BIN", "BYLINE_PACKAGES", "BYLINE_DEBUG_BUILD")

_COIN = r"\s*[A-Za-z0-9_.:-]+=0x[0-9a-fA-F]+::\w+::\w+\s*"
_COINS = re.compile(rf"({_COIN}(,{_COIN})*)?")
_FEE = r"\s*[A-Za-z0-9_.:-]+=[0-9]{1,12}(\.[0-9]{1,18})?\s*"
_FEES = re.compile(rf"({_FEE}(,{_FEE})*)?", re.ASCII)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_FILE_BYTES = 10_000 * 8 * 1024**2
"""S3 takes 10,000 parts of an upload; a part of ours has 8 MiB."""
ACK_MODES = ("durable", "memory")
API_LIMITS = (
    "api_public_per_minute", "api_account_per_minute", "api_trading_per_minute", "api_auth_per_minute",
    "api_catalogue_per_hour", "api_socket_messages_per_minute", "api_webhooks_per_minute",
    "api_refusals_per_hour",
)  # fmt: skip
"""The limits of REST; `ApiSettings` has them without the prefix."""
API_SAME = (
    "account_bytes_max", "file_bytes_max", "intent_seconds", "launch_platform_bps", "portfolio_needed",
    "provider_payment_max", "public_url", "redis_url", "royalty_hold_days", "unproved_per_day",
    "verify_creators_at_once", "withdrawal_address_delay_seconds", "works_need_verification",
)  # fmt: skip
"""What `ApiSettings` has under the same name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked settings. Paths are absolute; ports 0 means: take a free one."""

    data_directory: Path
    environment: str = "local"
    """Named in what clients sign, so that a signature for one environment is worth nothing in another."""
    host: str = "127.0.0.1"
    """Where REST, order entry and market data listen. The embedded chain stays on loopback (`CHAIN_HOST`)."""
    api_port: int = 7400
    gateway_port: int = 7401
    marketdata_port: int = 7402
    marketdata_b_port: int = 7404
    chain_port: int = 7403
    ack_mode: str = "durable"
    """`durable`: an answer leaves after fdatasync of its record. `memory`: before; a crash may lose acked orders."""
    batch_interval_s: float = 10.0
    gateway_ping_s: float = 10.0
    """A session of order entry that was silent for so long is pinged, and ended with its orders after as long again."""
    flush_interval_ms: int = 20
    marketdata_feeds: int = 1
    """2: a second, independent market data process as well, feed B on `marketdata_b_port`."""
    marketdata_shards: int = 1
    """Processes of each feed that share its port; the kernel gives each new connection to one of them."""
    marketdata_idle: bool = False
    """Market data takes only what order entry and others leave of the CPUs (SCHED_IDLE): on two of them acks keep their
    times beside a thousand readers. On a machine that is always full its readers starve."""
    relay_url: str = ""
    """`nats://host:port`: what the core publishes is relayed there, for market data on other hosts."""
    events_url: str = ""
    """Where market data reads events from. Empty: the event log of the data directory; `nats://host:port`: a relay."""
    journal_segment_mib: int = 64
    """Of a file of the journal; a change counts from the next one on. Of small ones there are many."""
    snapshot_interval_s: float = 300.0
    tls_certificate: str = ""
    """Path of a PEM chain. With it and `tls_key`, order entry and market data have second doors of TLS alone."""
    tls_key: str = ""
    """Path of its private key, PEM."""
    tls_host: str = ""
    """Where these doors are; empty: at `host`."""
    tls_port: int = 7443
    marketdata_tls_port: int = 7444
    """The same of market data, with the same certificate and host."""
    marketdata_b_tls_port: int = 7445
    """The same of feed B."""
    public_url: str = ""
    """`https://HOST[:PORT]` where people reach REST: its host is the domain that wallets sign for, certificates name
    its check page. Empty: `host` and port."""
    trusted_proxies: str = ""
    """Addresses and networks of proxies before REST, as `10.0.0.5,10.1.0.0/24`: whom they forward for counts as the
    client. Of anybody else `X-Forwarded-For` is not read. Empty: there is none."""
    redis_url: str = ""
    """`redis://…`: several API processes share their rate limits and the events of their sockets there."""
    blob_url: str = field(default="", repr=False)
    """Where uploaded files are kept: `s3://bucket/…`, `gs://…`, `file:///…`. Empty: in the data directory."""
    api_public_per_minute: int = 100
    """Requests of REST a minute from one address without a token. 0 here and below: no limit."""
    api_account_per_minute: int = 1_000
    api_trading_per_minute: int = 100
    api_auth_per_minute: int = 10
    """Sign-ins, letters and steps up a minute, for each address and for each wallet."""
    api_catalogue_per_hour: int = 1_000
    """Changes of works, creators and licences an hour, for each account."""
    api_socket_messages_per_minute: int = 1_000
    """Messages from one connection of the event socket."""
    api_refusals_per_hour: int = 20
    """Payments of one account that the core refuses, as for lack of money."""
    api_webhooks_per_minute: int = 6_000
    """Events of payment providers a minute from one address."""
    api_cors_origins: str = ""
    """Origins whose pages may use REST with a bearer, as `https://a.example,https://b.example`. Empty: only our own."""
    session_hours: int = 24
    """From a sign-in to REST to the next."""
    verify_creators_at_once: bool = False
    """Creators who ask to be verified are, without anybody deciding."""
    portfolio_needed: bool = False
    """Creators who ask to be verified name published works."""
    works_need_verification: bool = False
    """A work is published by the approval of somebody of the platform."""
    royalty_hold_days: int = 7
    """How old earnings must be to be paid out; so long sellers can give a sale back."""
    provider_payment_max: int = 100_000
    """The most of one payment through a provider, in whole units of its asset."""
    unproved_per_day: int = 50
    """What an account may pay from its balance for purchases and licences within a day (UTC), in whole units of each
    asset, without a fresh signature of a wallet. 0: nothing."""
    intent_seconds: int = 3_600
    """What is not paid through a provider by then expires."""
    launch_platform_bps: int = 500
    """The platform's share of what the sale of a new token brings in, in hundredths of a percent."""
    withdrawal_fees: str = ""
    """What goes to `platform:gas` with each withdrawal, for each asset: `USDC=0.25,INK=1`. Rounded up to what the asset
    counts. Assets that are not named: nothing."""
    withdrawal_address_delay_seconds: int = 86_400
    """How old an address must be, a linked wallet's too, before money goes there."""
    file_bytes_max: int = 1024**3
    """Of one uploaded file."""
    account_bytes_max: int = 20 * 1024**3
    """What one account may keep."""
    backup_url: str = field(default="", repr=False)
    """Where the journal is shipped while it grows: `s3://bucket/…`, `gs://…`, `az://…`, `file:///…`. Empty: nowhere."""
    backup_interval_s: float = 0.25
    """Pause between two looks for records to ship. What a lost disk costs is this and one request to the store."""
    postgres_url: str = field(default="", repr=False)
    """Empty: the embedded PostgreSQL in the data directory."""
    chain_url: str = ""
    """Empty: the embedded node. Otherwise `https://HOST:PORT` of a Sui full node's gRPC (plain `http` on loopback)."""
    chain_package: str = ""
    """Id of the published exchange package; needed only where the signer's address operates several."""
    chain_coins: str = ""
    """Which coin an asset is on a network: `USDC=0x…::usdc::USDC,INK=0x…::ink::INK`."""
    chain_key: str = ""
    """Path of the operator's sealed key. Empty: DATA/chain/operator.key."""
    chain_signer: str = ""
    """A command that signs instead of a key here, as an adapter of a key management service; see docs/settlement.md."""
    key_passphrase: str = field(default="", repr=False)
    """Opens sealed keys. Without it a key file does."""
    key_file: str = ""
    """That file. Empty: byline/wrapping.key in the user's configuration directory."""
    unsettled_limit_s: float = 7200.0
    """Markets take no new orders while the oldest unsettled cut is older than this, in seconds. 0: no limit."""
    second_core: bool = True
    """The back office runs the journal through a core of its own and compares it with the books at each cut. Takes the
    memory of the core once more. With `ack_mode` memory it must: it reads what is durable alone, while the events run
    ahead of the journal, and a batch whose commands a loss of power takes would have been paid for nothing."""
    quiet_market: bool = False
    """No simulated traders."""
    trader_orders_per_s: int = 200
    seed: int = 7

    def __post_init__(self) -> None:
        rules: list[tuple[bool, str, str]] = [
            (self.data_directory.is_absolute(), "data_directory", "an absolute path"),
            (bool(self.environment) and len(self.environment) <= 64, "environment", "1 to 64 characters"),
            (self.ack_mode in ACK_MODES, "ack_mode", f"one of {', '.join(ACK_MODES)}"),
            (
                self.second_core or self.ack_mode == "durable",
                "second_core", "true where ack_mode is memory, for it alone waits until what a batch pays is durable",
            ),
            (0.2 <= self.batch_interval_s <= 3600, "batch_interval_s", "0.2 to 3600 seconds"),
            (0.1 <= self.gateway_ping_s <= 3600, "gateway_ping_s", "0.1 to 3600 seconds"),
            (1 <= self.flush_interval_ms <= 1000, "flush_interval_ms", "1 to 1000 milliseconds"),
            (self.marketdata_feeds in (1, 2), "marketdata_feeds", "1 or 2"),
            (1 <= self.marketdata_shards <= 16, "marketdata_shards", "1 to 16"),
            (self.relay_url == "" or self.relay_url.startswith("nats://"), "relay_url", "nats://host:port"),
            (self.events_url == "" or self.events_url.startswith("nats://"), "events_url", "nats://host:port"),
            (
                self.public_url == "" or _ORIGIN.fullmatch(self.public_url) is not None,
                "public_url", "https://HOST[:PORT]",
            ),
            (
                all(_is_network(proxy) for proxy in self.proxies()),
                "trusted_proxies", "addresses and networks, as 10.0.0.5 or 10.1.0.0/24, with commas",
            ),
            (
                all(_ORIGIN.fullmatch(origin) for origin in self.cors_origins()),
                "api_cors_origins", "https://HOST[:PORT], with commas",
            ),
            (
                self.redis_url == "" or self.redis_url.startswith(("redis://", "rediss://", "unix://")),
                "redis_url", "redis://host:port",
            ),
            (
                self.unsettled_limit_s == 0 or self.unsettled_limit_s >= max(30, 2 * self.batch_interval_s),
                "unsettled_limit_s", "0, or at least 30 s and two batches",
            ),
            (2 <= self.journal_segment_mib <= 1024, "journal_segment_mib", "2 to 1024 MiB"),
            (1 <= self.snapshot_interval_s <= 86_400, "snapshot_interval_s", "1 to 86400 seconds"),
            (
                re.fullmatch(r"([a-z0-9]+://[^/].*|file:///.+)?", self.backup_url) is not None,
                "backup_url", "a URL as s3://bucket/prefix",
            ),
            (
                re.fullmatch(r"(postgres(ql)?://.+)?", self.postgres_url) is not None,
                "postgres_url", "a URL as postgresql://user@host/database",
            ),
            (0.01 <= self.backup_interval_s <= 60, "backup_interval_s", "0.01 to 60 seconds"),
            (
                self.backup_url == "" or 2 * self.backup_interval_s <= self.batch_interval_s,
                "backup_interval_s", "at most half of batch_interval_s, for each batch waits for its backup",
            ),
            (1 <= self.trader_orders_per_s <= 50_000, "trader_orders_per_s", "1 to 50000 orders a second"),
            (bool(self.tls_certificate) == bool(self.tls_key), "tls_key", "given with tls_certificate"),
            *((0 <= getattr(self, name) <= 10_000_000, name, "0 to 10000000") for name in API_LIMITS),
            (1 <= self.session_hours <= 8_760, "session_hours", "1 to 8760 hours"),
            (0 <= self.royalty_hold_days <= 365, "royalty_hold_days", "0 to 365 days"),
            (1 <= self.provider_payment_max <= 10_000_000, "provider_payment_max", "1 to 10000000"),
            (0 <= self.unproved_per_day <= 10_000_000, "unproved_per_day", "0 to 10000000"),
            (60 <= self.intent_seconds <= 604_800, "intent_seconds", "60 to 604800 seconds"),
            (0 <= self.launch_platform_bps <= 10_000, "launch_platform_bps", "0 to 10000 hundredths of a percent"),
            (
                _FEES.fullmatch(self.withdrawal_fees) is not None
                and len(self.fees()) == len(_listed(self.withdrawal_fees)),
                "withdrawal_fees", "ASSET=AMOUNT, with commas, each asset once",
            ),
            (
                0 <= self.withdrawal_address_delay_seconds <= 2_592_000,
                "withdrawal_address_delay_seconds", "0 to 2592000 seconds",
            ),
            (1 <= self.file_bytes_max <= _FILE_BYTES, "file_bytes_max", f"1 to {_FILE_BYTES} bytes"),
            (
                self.file_bytes_max <= self.account_bytes_max <= 2**53,
                "account_bytes_max", "file_bytes_max to 9007199254740992 bytes",
            ),
            (0 <= self.tls_port < 65_536, "tls_port", "0 to 65535"),
            (0 <= self.marketdata_tls_port < 65_536, "marketdata_tls_port", "0 to 65535"),
            (0 <= self.marketdata_b_tls_port < 65_536, "marketdata_b_tls_port", "0 to 65535"),
            (_COINS.fullmatch(self.chain_coins) is not None, "chain_coins", "ASSET=0x…::module::NAME, with commas"),
            (self.chain_url == "" or "://" in self.chain_url, "chain_url", "https://HOST:PORT"),
            (0 <= self.seed < 2**32, "seed", "0 to 4294967295"),
        ]
        ports = {"api": self.api_port, "gateway": self.gateway_port, "marketdata": self.marketdata_port}
        if self.marketdata_feeds == 2:
            ports["marketdata_b"] = self.marketdata_b_port
        ports["chain"] = self.chain_port
        rules += [(0 <= port < 65_536, f"{name}_port", "0 to 65535") for name, port in ports.items()]
        taken = [port for port in ports.values() if port]
        rules.append((len(set(taken)) == len(taken), "ports", "different from each other"))
        secret = {each.name for each in fields(self) if not each.repr}
        for holds, name, rule in rules:
            if not holds:
                given = "what it is" if name in secret else repr(getattr(self, name, ports))
                raise SettingsInvalid(f"setting {name} must be {rule}, not {given}")

    def cors_origins(self) -> tuple[str, ...]:
        """Those of `api_cors_origins`."""
        return _listed(self.api_cors_origins)

    def proxies(self) -> tuple[str, ...]:
        """Those of `trusted_proxies`."""
        return _listed(self.trusted_proxies)

    def fees(self) -> dict[str, str]:
        """Asset → decimal amount, of `withdrawal_fees`."""
        return _pairs(self.withdrawal_fees)

    def coin_types(self) -> dict[str, str]:
        """Asset → coin type, of `chain_coins`."""
        return _pairs(self.chain_coins)

    def marketdata_processes(self) -> list[str]:
        """Names of the market data processes: the shards of feed A, then those of feed B."""
        feeds = ("marketdata", "marketdata_b")[: self.marketdata_feeds]
        numbers = range(1, self.marketdata_shards + 1)
        return [name if number == 1 else f"{name}_{number}" for name in feeds for number in numbers]

    def environment_variables(self) -> dict[str, str]:
        """The variables that give a child process these very settings."""
        return {f"BYLINE_{each.name.upper()}": str(getattr(self, each.name)) for each in fields(self)}


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in _listed(text)]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _is_network(text: str) -> bool:
    """Also of an address alone; not one with bits behind its prefix, which would be another than was meant."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _convert(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False, "": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        return text
    except (KeyError, ValueError):
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        kind = kinds.get(type(default), "text")
        raise SettingsInvalid(f"setting BYLINE_{name.upper()} must be {kind}, not {text!r}") from None


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Defaults, then the environment, then `overrides` (those that are not None).

    Raises:
        SettingsInvalid: a variable is unknown or breaks its rule; the message names both.
    """
    environ = os.environ if environ is None else environ
    directory = overrides.pop("data_directory", None) or environ.get("BYLINE_DATA_DIRECTORY") or ".data"
    settings = Settings(data_directory=Path(directory).expanduser().resolve())
    known = {each.name: getattr(settings, each.name) for each in fields(settings) if each.name != "data_directory"}
    for variable in environ:
        name = variable.removeprefix("BYLINE_").lower()
        if variable.startswith("BYLINE_") and name not in known and variable not in OTHER_VARIABLES:
            names = ", ".join(f"BYLINE_{name.upper()}" for name in known)
            raise SettingsInvalid(f"no setting is called {variable}; there are {names}")
    given = {
        name: _convert(name, environ[f"BYLINE_{name.upper()}"], default)
        for name, default in known.items()
        if f"BYLINE_{name.upper()}" in environ
    }
    given |= {name: value for name, value in overrides.items() if value is not None}
    return replace(settings, **given)
