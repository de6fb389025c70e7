"""From a key to the rights of a session: its allowance, its markets and collar, its numbers, its protection.

Allowances are shared by account and tier, protections by key; both live as long as the process. Bounded by the accounts
and the registry: an account has as many allowances as there are tiers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.guard import Allowance, Guard
from gateway.keys import ApiKey, KeyRegistry
from gateway.names import Names
from gateway.protection import Protection
from gateway.pulls import connection_stamp, key_stamp
from gateway.settings import GatewaySettings, Tier

__all__ = ["Rights"]


class Rights:
    """Makes the Guard of each session.

    Args:
        settings: tiers and epoch.
        names: of accounts and markets.
        keys: the registry.
        on_trip: told the living key whose protection has tripped, and that protection.
    """

    def __init__(
        self, settings: GatewaySettings, names: Names, keys: KeyRegistry, on_trip: Callable[[ApiKey, Protection], None]
    ) -> None:
        self._settings = settings
        self._names = names
        self._keys = keys
        self._on_trip = on_trip
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._protections: dict[str, Protection] = {}
        self._sign_ins = 0

    def guard(self, key: ApiKey, cancels: bool) -> Guard:
        """The rights of one more session of `key`; `cancels`: its orders are to end with it."""
        self._sign_ins += 1
        narrowed, tiers = key.restrictions, self._settings.tiers
        tier = next((tier for tier in tiers if tier.name == narrowed.tier), tiers[0])
        name = (key.accounts[0] if key.accounts else key.key, tier.name)
        allowance = self._allowances.get(name)
        if allowance is None:
            allowance = self._allowances[name] = self._allowance(tier)
        markets = None
        if narrowed.markets is not None:
            found = [self._names.market_index(market) for market in narrowed.markets]
            markets = [index for index in found if index is not None]
        stamp = connection_stamp(self._settings.epoch, self._sign_ins) if cancels else 0
        return Guard(
            allowance, stamp, key_stamp(key.key), markets, narrowed.collar_ppm, narrowed.expires_at,
            self._protection(key),
        )  # fmt: skip

    def plain_allowance(self) -> Allowance:
        """What a connection may send before it has signed in."""
        return self._allowance(self._settings.tiers[0])

    def accounts_of(self, key: ApiKey) -> list[int]:
        """The indices of those of its accounts that exist."""
        indices = [self._names.account_index(name) for name in key.accounts]
        return [index for index in indices if index is not None]

    def protected_orders(self, open_orders: NDArray[Any]) -> dict[int, Protection]:
        """Orders of an earlier life that outlived their connection go on being counted: protection by order id."""
        keys = {key_stamp(key.key): key for key in self._keys.living() if key.restrictions.protection is not None}
        found: dict[int, Protection] = {}
        kept = open_orders[np.isin(open_orders["session"], np.array(list(keys), np.uint64))]
        for stamp, order_id in zip(kept["session"].tolist(), kept["order_id"].tolist(), strict=True):
            protection = self._protection(keys[stamp])
            if protection is not None:
                found[order_id] = protection
        return found

    def tripped_keys(self) -> list[ApiKey]:
        """Those whose protection had tripped already when this process began, or has since."""
        return [key for key in self._keys.living() if self._keys.tripped(key.key)]

    def reset_protection(self, key: ApiKey, now: int) -> bool:
        """Take orders of the key again. False: its protection had not tripped. Raises OSError: it stays so."""
        self._keys.reset(key.key, now)
        protection = self._protections.get(key.key)
        return protection is not None and protection.reset()

    def forget(self, key: str) -> None:
        """The key was revoked."""
        self._protections.pop(key, None)

    def _allowance(self, tier: Tier) -> Allowance:
        window_ns = round(tier.window_s * 1e9)
        return Allowance(tier.name, tier.requests, tier.messages, window_ns, self._settings.poisons_per_minute)

    def _protection(self, key: ApiKey) -> Protection | None:
        terms = key.restrictions.protection
        if terms is None:
            return None
        protection = self._protections.get(key.key)
        if protection is None:
            protection = Protection(key.key, terms, self._tripped, self._keys.tripped(key.key))
            self._protections[key.key] = protection
        return protection

    def _tripped(self, protection: Protection) -> None:
        key = self._keys.find(protection.key)
        if key is not None:
            self._on_trip(key, protection)
