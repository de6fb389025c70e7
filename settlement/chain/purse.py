"""Which SUI coin each connection of one key pays with, so that none takes another's.

Two transactions over one coin at the same time refuse each other, and a coin that somebody gathers into his own is gone
for whoever pays with it. Kept in memory, by the connections of one process: after a restart each chooses anew, and what
has become one coin meanwhile is split again.
"""

from __future__ import annotations

__all__ = ["Purse"]


class Purse:
    """One key's. A holder is a connection, told from others by identity."""

    def __init__(self) -> None:
        self._coins: dict[object, str] = {}

    def take(self, holder: object, coin: str) -> None:
        self._coins[holder] = coin

    def coin(self, holder: object) -> str:
        """Empty before `take`, and after `leave`."""
        return self._coins.get(holder, "")

    def of_others(self, holder: object) -> set[str]:
        return {coin for other, coin in self._coins.items() if other is not holder}

    def leave(self, holder: object) -> None:
        """What it paid with is anybody's again."""
        self._coins.pop(holder, None)
