"""What narrows an API key beyond its scopes: markets, prices, addresses, time, tier and protection. Pure values.

`parse` takes the fields of a registration, and of a registry line, so what was answered once is what is loaded later.
All fields are optional; a key without any may use its scopes everywhere, from anywhere, for ever, at the plain tier.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.messages.decimals import DECIMAL

__all__ = ["FIELDS", "KeyRefused", "ProtectionTerms", "Restrictions", "parse"]

FIELDS = ("markets", "collar_ppm", "addresses", "expires_at", "tier", "protection")
_MARKETS_MAX = 1_000
_ADDRESSES_MAX = 64
_PPM_MAX = 10**9
_WINDOW_MS_MAX = 600_000
_COUNT_MAX = 10**9
_TIER = re.compile(r"[a-z]{1,16}", re.ASCII)


class KeyRefused(ValueError):
    """A registration that breaks a rule. `field` and `rule` say which."""

    def __init__(self, code: str, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.code = code
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True)
class ProtectionTerms:
    """When a key's orders are pulled: more than this within a window. None: that count has no bound.

    `size` (base) and `notional` (quote) are decimals as the wire has them, and count for each market by itself.
    """

    window_ms: int
    fills: int | None = None
    size: str | None = None
    notional: str | None = None

    def fields(self) -> dict[str, Any]:
        given = {"window_ms": self.window_ms, "fills": self.fills, "size": self.size, "notional": self.notional}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Restrictions:
    """`addresses` are networks in CIDR form; `expires_at` ns since 1970; empty, 0 and None: not narrowed."""

    markets: tuple[str, ...] | None = None
    collar_ppm: int = 0
    addresses: tuple[str, ...] = ()
    expires_at: int = 0
    tier: str = "plain"
    protection: ProtectionTerms | None = None

    def fields(self) -> dict[str, Any]:
        """Those that narrow, as a registration names them; `tier` always."""
        found: dict[str, Any] = {}
        if self.markets is not None:
            found["markets"] = list(self.markets)
        if self.collar_ppm:
            found["collar_ppm"] = self.collar_ppm
        if self.addresses:
            found["addresses"] = list(self.addresses)
        if self.expires_at:
            found["expires_at"] = self.expires_at
        found["tier"] = self.tier
        if self.protection is not None:
            found["protection"] = self.protection.fields()
        return found

    def admits_address(self, address: str) -> bool:
        """Whether a session may come from this address."""
        if not self.addresses:
            return True
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in ipaddress.ip_network(network) for network in self.addresses)


def parse(fields: Mapping[str, Any]) -> Restrictions:
    """The restrictions among `fields`; the others are not looked at. Raises KeyRefused."""
    markets = fields.get("markets")
    if markets is not None:
        _require(
            isinstance(markets, list) and 0 < len(markets) <= _MARKETS_MAX and all(isinstance(m, str) for m in markets),
            "markets", f"a list of 1 to {_MARKETS_MAX} market names",
        )  # fmt: skip
        _require(len(set(markets)) == len(markets), "markets", "each market stands once")
    collar_ppm = fields.get("collar_ppm") or 0
    _require(_whole(collar_ppm, _PPM_MAX), "collar_ppm", f"0 (none) to {_PPM_MAX} millionths")
    expires_at = fields.get("expires_at") or 0
    _require(_whole(expires_at, 2**63 - 1), "expires_at", "ns since 1970")
    tier = fields.get("tier") or "plain"
    _require(isinstance(tier, str) and bool(_TIER.fullmatch(tier)), "tier", "the name of a tier")
    protection = fields.get("protection")
    return Restrictions(
        None if markets is None else tuple(markets), collar_ppm, _addresses(fields.get("addresses") or []), expires_at,
        tier, None if protection is None else _protection(protection),
    )  # fmt: skip


def _addresses(value: Any) -> tuple[str, ...]:
    rule = f"a list of at most {_ADDRESSES_MAX} networks in CIDR form, as 10.0.0.0/8 or 2001:db8::/32"
    _require(isinstance(value, list) and len(value) <= _ADDRESSES_MAX, "addresses", rule)
    networks = []
    for text in value:
        _require(isinstance(text, str), "addresses", rule)
        try:
            networks.append(str(ipaddress.ip_network(text)))
        except ValueError as error:
            raise KeyRefused("bad_value", "addresses", f"{rule}; {text[:64]!r} is none") from error
    return tuple(networks)


def _protection(value: Any) -> ProtectionTerms:
    rule = f"an object with window_ms (1 to {_WINDOW_MS_MAX}) and at least one of fills, size, notional"
    _require(isinstance(value, dict), "protection", rule)
    _require(set(value) <= {"window_ms", "fills", "size", "notional"}, "protection", rule)
    given = {name: item for name, item in value.items() if item is not None}
    window_ms = given.pop("window_ms", None)
    _require(_whole(window_ms, _WINDOW_MS_MAX) and window_ms > 0 and bool(given), "protection", rule)
    fills = given.get("fills")
    _require(fills is None or (_whole(fills, _COUNT_MAX) and fills > 0), "protection.fills", "a whole number above 0")
    for name in ("size", "notional"):
        text = given.get(name)
        _require(
            text is None or (isinstance(text, str) and bool(DECIMAL.fullmatch(text)) and bool(text.strip("0."))),
            f"protection.{name}", "a decimal above 0, as text",
        )  # fmt: skip
    return ProtectionTerms(window_ms, fills, given.get("size"), given.get("notional"))


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _require(holds: bool, field: str, rule: str) -> None:
    if not holds:
        raise KeyRefused("bad_value", field, rule)
