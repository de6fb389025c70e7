"""Market-maker protection: a key whose orders fill faster than it bargained for loses them all at once.

Fills of the key's orders are counted over a sliding window of journal time: fills over all markets together, size and
notional for each market by itself, as lots of different tokens do not add up. The fill that goes beyond a bound trips
the protection: the caller cancels every order of the key, and new ones are refused until `reset`.

That it has tripped is kept in the registry of keys, so it outlives the process. The window does not: nobody is overrun
while the exchange is down, and most windows are shorter than a start.

Counting follows what was released, so with durable acks it is behind the engine by at most one group of the journal.
Worst case: a fill costs one deque entry and the dropping of those that left the window; `FILLS_KEPT` bounds the memory,
and more fills than that in one window trip by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fractions import Fraction

from gateway.guard import Protected
from gateway.restrictions import ProtectionTerms

__all__ = ["FILLS_KEPT", "Protection"]

FILLS_KEPT = 100_000


class Protection(Protected):
    """Of one key, whatever number of sessions it has.

    Args:
        key: whose.
        terms: the bounds.
        on_trip: told once, at the fill that goes beyond one, until `reset`.
        reason: why it had tripped when the process before this one ended; "" if it had not.
    """

    def __init__(
        self, key: str, terms: ProtectionTerms, on_trip: Callable[[Protection], None], reason: str = ""
    ) -> None:
        self.key = key
        self.terms = terms
        self.reason = reason
        self.is_tripped = bool(reason)
        self._on_trip = on_trip
        self._fills: deque[tuple[int, int, int, int]] = deque()
        self._sums: dict[int, list[int]] = {}

    def fill(self, ts: int, market: int, size: int, notional: int, size_unit: Fraction, quote_unit: Fraction) -> None:
        """One fill of the key's orders at time `ts` (ns): `size` lots of size_unit, `notional` of quote_unit."""
        self._fills.append((ts, market, size, notional))
        sums = self._sums.setdefault(market, [0, 0])
        sums[0] += size
        sums[1] += notional
        oldest = ts - self.terms.window_ms * 1_000_000
        while self._fills[0][0] <= oldest:
            _, left_market, left_size, left_notional = self._fills.popleft()
            left = self._sums[left_market]
            left[0] -= left_size
            left[1] -= left_notional
        if self.is_tripped:
            return
        terms = self.terms
        if len(self._fills) > FILLS_KEPT or (terms.fills is not None and len(self._fills) > terms.fills):
            self.reason = "fills"
        elif terms.size is not None and sums[0] * size_unit > Fraction(terms.size):
            self.reason = "size"
        elif terms.notional is not None and sums[1] * quote_unit > Fraction(terms.notional):
            self.reason = "notional"
        else:
            return
        self.is_tripped = True
        self._on_trip(self)

    def reset(self) -> bool:
        """Take orders again, with an empty window. False: it had not tripped."""
        was_tripped = bool(self.is_tripped)
        self.is_tripped = False
        self.reason = ""
        self._fills.clear()
        self._sums.clear()
        return was_tripped
