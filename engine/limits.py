"""How much one core holds. Every bound is enforced by a reject (`busy`, `too_many_orders` …), never a crash.

Limits are part of the rules: a journal is replayed with the limits it was written with, so a snapshot carries them.
Memory is reserved address space and costs only what is touched; the defaults fit a small machine.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import index

__all__ = ["PRICE_TICKS_TOTAL", "CoreLimits"]

PRICE_TICKS_TOTAL = 1 << 39
"""The max_price of all markets in sum is at most this: a tick may reserve 32 bytes of address space, which has 2^47."""


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """Bounds of a core. Raises ValueError naming the field where one breaks its rule."""

    accounts: int = 1_000_000
    markets: int = 16_384
    assets: int = 16_384
    balances: int = 4_000_000
    """(account, asset) pairs ever touched."""
    orders: int = 1 << 21
    """Open and waiting orders of all markets; renamed ones keep at most as many older names together."""
    client_ids_total: int = 4_000_000
    """Remembered ids of closed orders over all accounts, oldest forgotten first."""
    client_ids_per_account: int = 100_000
    refs: int = 1 << 21
    postings: int = 1 << 20
    """Postings of pending transfers."""
    max_price_ticks: int = 1 << 32
    """Largest max_price a listing may have; in a wide book a tick reserves 32 bytes of address space."""
    max_fills_per_command: int = 100_000
    poisons: int = 1 << 20
    """Client ids that can never be accepted, of all accounts; one account has at most 10,000."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            most = 1 << 36 if field.name == "max_price_ticks" else 1 << 28
            least = 2 if field.name in ("accounts", "balances") else 1
            whole = hasattr(value, "__index__") and not isinstance(value, bool)
            if not whole or not least <= index(value) <= most:
                raise ValueError(f"{field.name}={value!r}: must be a whole number from {least} to {most}")
            object.__setattr__(self, field.name, index(value))  # a plain int, of numpy's too
