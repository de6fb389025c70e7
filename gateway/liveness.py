"""Whether somebody is there at the other end: a peer whose cable was pulled says neither goodbye nor anything else.

Pure: told the time and what was seen of a connection since the last look, `Liveness` says what to do. Every frame is a
sign of life, and so is a byte that the peer took of what waits for it: one that does not read is not read from either,
so its frames cannot be seen then. A look that comes late counts as one in time: while this process slept, it could not
have heard.

    silent for `interval` ─▶ PING, once ─▶ silent for as long again ─▶ END
"""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["LOOKS", "Liveness", "Verdict"]

LOOKS = 8
"""So many looks are to be had in each interval; `END` comes late by one at the most."""


class Verdict(Enum):
    FINE = auto()
    PING = auto()
    END = auto()


class Liveness:
    """Of one connection. Times are ns of any clock that goes forward."""

    __slots__ = ("_interval_ns", "_is_asked", "_looked_at", "_silent_ns", "_unsent")

    def __init__(self, interval_ns: int, now: int) -> None:
        self._interval_ns = interval_ns
        self._looked_at = now
        self._silent_ns = 0
        self._is_asked = False
        self._unsent = 0

    def look(self, now: int, was_heard: bool, unsent: int) -> Verdict:
        """`was_heard`: a frame came since the last look. `unsent`: bytes that wait for the peer to take them."""
        self._silent_ns += min(now - self._looked_at, 2 * self._interval_ns // LOOKS)
        if was_heard or unsent < self._unsent:
            self._silent_ns, self._is_asked = 0, False
        self._looked_at, self._unsent = now, unsent
        if self._silent_ns >= 2 * self._interval_ns:
            return Verdict.END
        if self._silent_ns >= self._interval_ns and not self._is_asked:
            self._is_asked = True
            return Verdict.PING
        return Verdict.FINE
