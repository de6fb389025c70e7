"""What waits for a reader of events: a reader that nobody reads stops nobody but itself.

    put ──▶ [ at most `size_max` messages ] ──▶ take
                     │ full
                     └──▶ `put` waits for a reader that goes on taking; of one that took none for PATIENCE_S nothing
                          more is kept, and when it has taken what waited it is told: EventsMissed

The patience is for long replays, which come faster than a reader takes them.
Invariants: what is taken is a run of messages without a gap; a gap is an exception, never silence. Acks and answers do
not go this way.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from byline.client.errors import EventsMissed

__all__ = ["EventQueue"]

PATIENCE_S = 1.0
_LOOK_S = 0.001


class EventQueue:
    """Bounded, for one reader."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._waiting: deque[dict[str, Any]] = deque()
        self._taken = 0
        self._missed = 0
        self._after = 0
        self._is_ended = False
        self._news = asyncio.Event()

    @property
    def is_waiting(self) -> bool:
        """Whether something can be taken at once."""
        return bool(self._waiting)

    @property
    def is_missing(self) -> bool:
        """Whether something was left out that the reader has not been told of."""
        return self._missed > 0

    async def put(self, message: dict[str, Any]) -> None:
        """Keep it if room comes in time and nothing was left out before."""
        if not self._missed and len(self._waiting) >= self._size_max:
            await self._room()
        if self._missed or len(self._waiting) >= self._size_max:
            self._missed += 1
            return
        self._waiting.append(message)
        self._after = message.get("sequence", self._after)
        self._news.set()

    async def _room(self) -> None:
        """Until something was taken, or nothing in time."""
        taken, since = self._taken, time.monotonic()
        while self._taken == taken and time.monotonic() - since < PATIENCE_S:
            await asyncio.sleep(0)
            if self._taken == taken:
                await asyncio.sleep(_LOOK_S)

    def end(self) -> None:
        """Nothing more comes; what waits can still be taken."""
        self._is_ended = True
        self._news.set()

    async def take(self) -> dict[str, Any] | None:
        """The next message; None when all is taken and nothing more comes.

        Raises EventsMissed once everything before the gap is taken; what comes behind it is kept again from then on.
        """
        while not self._waiting:
            if self._missed:
                missed, self._missed = self._missed, 0
                raise EventsMissed(missed, self._after)
            if self._is_ended:
                return None
            self._news.clear()
            await self._news.wait()
        self._taken += 1
        return self._waiting.popleft()
