"""What waits for a reader of events. Whoever puts never waits: a reader that nobody reads stops nobody but itself.

    put ──▶ [ at most `size_max` messages ] ──▶ take
                     │ full
                     └──▶ nothing more is kept; when the reader has taken what waited, it is told: EventsMissed

Invariants: what is taken is a run of messages without a gap; a gap is an exception, never silence. Acks and answers do
not go this way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from byline.client.errors import EventsMissed

__all__ = ["EventQueue"]


class EventQueue:
    """Bounded, for one reader."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._waiting: deque[dict[str, Any]] = deque()
        self._missed = 0
        self._after = 0
        self._is_ended = False
        self._news = asyncio.Event()

    @property
    def is_missing(self) -> bool:
        """Whether something did not fit that the reader has not been told of."""
        return self._missed > 0

    def put(self, message: dict[str, Any]) -> None:
        """Keep it if there is room and nothing was left out before."""
        if self._missed or len(self._waiting) >= self._size_max:
            self._missed += 1
            return
        self._waiting.append(message)
        self._after = message.get("sequence", self._after)
        self._news.set()

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
        return self._waiting.popleft()
