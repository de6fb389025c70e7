"""Connections that have not signed in: anybody may open one, so they are few, and a crowd harms its own address.

Invariant: at most `most` are held. One more ends the oldest of the address that has most of them: whoever signs in at
once is older than `most` newcomers only if they all came in that moment, and a flood from one address ends its own.
Cost: O(1) to add and discard, O(addresses) to make room.
"""

from __future__ import annotations

import ipaddress
from typing import Generic, TypeVar

__all__ = ["Unsigned", "network_of"]

T = TypeVar("T")


def network_of(address: str) -> str:
    """Whose crowd an address belongs to: its own, or of IPv6 its /64, all of which one host may have."""
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(peer, ipaddress.IPv4Address) or peer.ipv4_mapped is not None:
        return address
    return str(ipaddress.ip_network((int(peer) >> 64 << 64, 64)))


class Unsigned(Generic[T]):
    """Each by its address, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._addresses: dict[str, dict[T, None]] = {}
        self._address_of: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._address_of)

    def add(self, one: T, address: str) -> T | None:
        """Hold one more. Returns who is to be ended for it, and is not held any more; None: there was room."""
        evicted = None
        if len(self._address_of) >= self._most:
            crowd = max(self._addresses.values(), key=len)
            evicted = next(iter(crowd))
            self.discard(evicted)
        self._addresses.setdefault(address, {})[one] = None
        self._address_of[one] = address
        return evicted

    def discard(self, one: T) -> None:
        """It has signed in, or is gone."""
        address = self._address_of.pop(one, None)
        if address is not None:
            crowd = self._addresses[address]
            del crowd[one]
            if not crowd:
                del self._addresses[address]
