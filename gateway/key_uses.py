"""When sessions of each key last began or ended, for whoever keeps that for the keys' owners.

In memory, and only until it was taken: each question says up to where the answers before it were kept, and what lies
there is forgotten. So a busy loop never walks all keys, and an answer that is lost is told again. What nobody has taken
when the process ends is lost with it.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

__all__ = ["KeyUses"]

_TOLD_MAX = 1_000


class KeyUses:
    """At most one entry for each registered key, the oldest first."""

    def __init__(self) -> None:
        self._at_ns: OrderedDict[str, int] = OrderedDict()

    def note(self, key: str, at_ns: int) -> None:
        """A session of the key has begun, or ended."""
        self._at_ns[key] = at_ns
        self._at_ns.move_to_end(key)

    def forget(self, key: str) -> None:
        """The key was revoked."""
        self._at_ns.pop(key, None)

    def tell(self, taken_ns: int | None) -> dict[str, int]:
        """Key to ns since 1970, at most 1,000, the oldest first. `taken_ns`: uses up to then are kept elsewhere."""
        while taken_ns is not None and self._at_ns:
            key, at_ns = next(iter(self._at_ns.items()))
            if at_ns > taken_ns:
                break
            del self._at_ns[key]
        return dict(islice(self._at_ns.items(), _TOLD_MAX))
