"""Token buckets of whole numbers: so many requests a period per key, a period's worth in one burst.

    public     100 a minute, per network         account   1,000 a minute, per account
    trading    100 a minute, per account         catalogue 1,000 an hour, per account
    cancels  1,000 a minute, per account; a cancel that found its order is given back
    auth        10 a minute, per network, and as many good proofs per wallet

A network is an IPv4 address or an IPv6 /64, which is what one house has: an address of it costs nothing. The networks
of an IPv6 /48, which is what one site may have, share `SITE_TIMES` as much.

A bucket holds time: a request costs period / limit of it, and it comes back with the clock; no floats, no timers. The
table of this process is bounded: at the bound the longest unused bucket goes, so one that is forgotten is at worst a
full one again. With Redis the buckets are shared by all API processes, on Redis' own clock; while it is away each
process counts for itself. Without Redis there is one process alone (`kernel/alone.py`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import redis.asyncio as redis_client
import structlog
from redis.exceptions import RedisError

__all__ = ["HOUR_NS", "MINUTE_NS", "SITE_TIMES", "Buckets", "Limits", "Verdict", "network_of"]

log = structlog.get_logger(__name__)

MINUTE_NS = 60_000_000_000
HOUR_NS = 60 * MINUTE_NS
NETWORK_BITS = 64
SITE_BITS = 48
SITE_TIMES = 16
REDIS_SECONDS_MAX = 0.25
REDIS_AWAY_SECONDS = 1.0
"""After a failure Redis is not asked for this long, so that its time-out is not paid by every request."""

_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local spent = math.max(tonumber(redis.call('GET', KEYS[1]) or now) - now, 0)
local allowed = 0
if spent + cost <= room then
    allowed, spent = 1, math.max(spent + cost, 0)
    redis.call('SET', KEYS[1], string.format('%.0f', now + spent), 'PX', math.ceil(spent / 1000) + 1)
end
return {allowed, spent}
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining` requests may follow at once; the bucket is full again after `reset_seconds`."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int
    retry_seconds: int

    def headers(self) -> dict[str, str]:
        """The RateLimit header fields, and Retry-After of a refusal."""
        fields = {
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(self.remaining),
            "ratelimit-reset": str(self.reset_seconds),
        }
        return fields if self.allowed else fields | {"retry-after": str(self.retry_seconds)}


class Buckets:
    """One class of requests in this process: a bucket for each key (an address, an account)."""

    def __init__(self, limit: int, period_ns: int = MINUTE_NS, keys_max: int = 100_000) -> None:
        self.limit = limit
        self.cost_ns = period_ns // limit if limit else 0
        self._keys_max = keys_max
        self._full_at_ns: OrderedDict[str, int] = OrderedDict()
        """When the bucket of a key will be full: the credit spent is what lies in the future."""

    def take(self, key: str, now_ns: int) -> Verdict | None:
        """Spend one request of `key`; None if this class has no limit. `now_ns` is a monotonic clock."""
        if not self.limit:
            return None
        full_at = max(self._full_at_ns.pop(key, now_ns), now_ns)
        spent = full_at - now_ns
        allowed = spent + self.cost_ns <= self.limit * self.cost_ns
        if allowed:
            full_at += self.cost_ns
            spent += self.cost_ns
        self._full_at_ns[key] = full_at
        if len(self._full_at_ns) > self._keys_max:
            self._full_at_ns.popitem(last=False)
        return self.verdict(allowed, spent)

    def give_back(self, key: str) -> None:
        if key in self._full_at_ns:
            self._full_at_ns[key] -= self.cost_ns

    def verdict(self, allowed: bool, spent_ns: int) -> Verdict:
        room = self.limit * self.cost_ns - spent_ns
        retry_ns = 0 if allowed else self.cost_ns - room
        return Verdict(allowed, self.limit, room // self.cost_ns, _seconds_up(spent_ns), _seconds_up(retry_ns))


class Limits:
    """All classes, in Redis if there is a URL and it answers, in this process otherwise."""

    def __init__(self, classes: Mapping[str, Buckets], redis_url: str = "") -> None:
        self._classes = classes
        self._redis: Any = None
        self._away_until = 0.0
        if redis_url:
            self._redis = redis_client.from_url(
                redis_url, socket_timeout=REDIS_SECONDS_MAX, socket_connect_timeout=REDIS_SECONDS_MAX
            )
            self._script = self._redis.register_script(_TAKE)

    async def take(self, name: str, key: str) -> Verdict | None:
        """Spend one request of `key` in class `name`; None if the class has no limit."""
        buckets = self._classes[name]
        if not buckets.limit:
            return None
        if self._redis is not None and time.monotonic() >= self._away_until:
            try:
                return await self._spend_shared(buckets, f"byline:limit:{name}:{key}", 1)
            except (RedisError, OSError, TimeoutError) as error:
                self._is_away(error)
        return buckets.take(key, time.monotonic_ns())

    async def take_of_address(self, name: str, address: str) -> Verdict | None:
        """The same for whoever is known by an address alone: of its network, and of its site in class `NAME_site`."""
        verdict = await self.take(name, network_of(address))
        site = _site_of(address)
        if verdict is None or not verdict.allowed or site is None:
            return verdict
        of_site = await self.take(f"{name}_site", site)
        return verdict if of_site is None or of_site.allowed else of_site

    async def give_back(self, name: str, key: str) -> None:
        """The request that was taken last shall have cost nothing."""
        buckets = self._classes[name]
        if not buckets.limit:
            return
        if self._redis is not None and time.monotonic() >= self._away_until:
            try:
                await self._spend_shared(buckets, f"byline:limit:{name}:{key}", -1)
            except (RedisError, OSError, TimeoutError) as error:
                self._is_away(error)
            return  # what this process counts for itself has not been asked
        buckets.give_back(key)

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()

    def _is_away(self, error: Exception) -> None:
        self._away_until = time.monotonic() + REDIS_AWAY_SECONDS
        log.warning("limits_local", error=f"{type(error).__name__}: {error}")

    async def _spend_shared(self, buckets: Buckets, key: str, count: int) -> Verdict:
        cost_us = buckets.cost_ns // 1000
        allowed, spent_us = await self._script(keys=[key], args=[count * cost_us, cost_us * buckets.limit])
        return buckets.verdict(bool(allowed), spent_us * 1000)


def network_of(address: str) -> str:
    """Whose requests count together; what is no address, as of a unix socket, is its own network."""
    return _part_of(address, NETWORK_BITS) or address


def _site_of(address: str) -> str | None:
    return _part_of(address, SITE_BITS)


def _part_of(address: str, bits: int) -> str | None:
    """The network of so many bits of an IPv6 address; None for any other. ::ffff:a.b.c.d is one of IPv4."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if not isinstance(parsed, IPv6Address) or parsed.ipv4_mapped is not None:
        return None
    return str(ip_network((parsed, bits), strict=False))


def _seconds_up(ns: int) -> int:
    return -(-ns // 1_000_000_000)
