"""Connections that have not signed in: anybody may open one, so they are few, and a crowd harms its own address.

Invariant: at most `most` are held. One more ends the oldest of the address that has most of them: whoever signs in at
once is older than `most` newcomers only if they all came in that moment, and a flood from one address ends its own.
Cost: O(1) to add and discard, O(addresses) to make room.

Signatures are verified on the thread of the engine, a tenth of a millisecond each, so `Pace` has so many looked at in
a turn of the loop: who is in waits for those, and not for all that came in at once.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Pace", "Unsigned", "network_of"]

T = TypeVar("T")
WAITING_MAX = 4_096
"""Steps of a pace that wait."""


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


class Pace:
    """So many steps a turn, in the order in which they came.

    Args:
        most: in a turn.
        call_soon: has a function called in the next turn of the loop.

    Invariant: while one waits there is none left in this turn, so nobody overtakes.
    """

    def __init__(self, most: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._most = self._left = most
        self._call_soon = call_soon
        self._waiting: deque[Callable[[], bool]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether as many wait as may: no more is to be given."""
        return len(self._waiting) >= WAITING_MAX

    def takes(self) -> bool:
        """True: do it now, it is counted. False: it is to wait."""
        if self._left == 0:
            return False
        if self._left == self._most:
            self._call_soon(self._turn)
        self._left -= 1
        return True

    def wait(self, step: Callable[[], bool]) -> None:
        """What was not taken will be done in its turn, and counts if it says so."""
        assert self._left == 0 and not self.is_full, "whoever waits has asked"
        self._waiting.append(step)

    def _turn(self) -> None:
        self._left = self._most
        while self._waiting and self._left:
            self._left -= self._waiting.popleft()()
        if self._left < self._most:
            self._call_soon(self._turn)
