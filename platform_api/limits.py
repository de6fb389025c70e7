"""Token buckets of whole numbers: so many requests a minute per key, a minute's worth in one burst.

A bucket holds nanoseconds of credit. A request costs 60·10^9 / limit of them, and they come back with the clock; no
floats, no timers. The table is bounded: at the bound the longest unused bucket goes, so one that is forgotten is at
worst a full one again. Lives in one process: `byline` starts one API process.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Buckets", "Verdict"]

MINUTE_NS = 60_000_000_000


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
    """One class of requests: a bucket for each key (an address, an account)."""

    def __init__(self, limit_per_minute: int, keys_max: int = 100_000) -> None:
        self._limit = limit_per_minute
        self._cost_ns = MINUTE_NS // limit_per_minute if limit_per_minute else 0
        self._keys_max = keys_max
        self._full_at_ns: OrderedDict[str, int] = OrderedDict()
        """When the bucket of a key will be full: the credit spent is what lies in the future."""

    def take(self, key: str, now_ns: int) -> Verdict | None:
        """Spend one request of `key`; None if this class has no limit. `now_ns` is a monotonic clock."""
        if not self._limit:
            return None
        full_at = max(self._full_at_ns.pop(key, now_ns), now_ns)
        spent = full_at - now_ns
        allowed = spent + self._cost_ns <= self._limit * self._cost_ns
        if allowed:
            full_at += self._cost_ns
            spent += self._cost_ns
        self._full_at_ns[key] = full_at
        if len(self._full_at_ns) > self._keys_max:
            self._full_at_ns.popitem(last=False)
        room = self._limit * self._cost_ns - spent
        retry_ns = 0 if allowed else self._cost_ns - room
        return Verdict(allowed, self._limit, room // self._cost_ns, _seconds_up(spent), _seconds_up(retry_ns))


def _seconds_up(ns: int) -> int:
    return -(-ns // 1_000_000_000)
