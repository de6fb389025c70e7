"""One reader of the event socket: who it is, what it listens to, and what waits to be sent to it. No socket.

What waits is bounded. Nothing is left out for a reader, so one that does not keep up is cut (1013, too_slow); it reads
the state over REST and comes again. Answers wait in the same line, so who asks and never reads is cut too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from platform_api.security import Caller

__all__ = ["QUEUE_MAX", "SESSION_ENDED", "TOO_SLOW", "Connection"]

QUEUE_MAX = 512
TOO_SLOW, SESSION_ENDED = 1013, 4401

Send = Callable[[Any], Awaitable[None]]


class Connection:
    """`channels`: name → whether this reader is inside, as was found when it subscribed."""

    def __init__(self, network: str, caller: Caller | None = None) -> None:
        self.network = network
        self.caller = caller
        self.channels: dict[str, bool] = {}
        self.closing: tuple[int, str] | None = None
        self._waiting: deque[str] = deque()
        self._stirred = asyncio.Event()

    def push(self, frame: str) -> None:
        """Puts a frame into the line; at the bound the reader is cut. Never waits."""
        if self.closing is not None:
            return
        if len(self._waiting) >= QUEUE_MAX:
            self._waiting.clear()
            self.end(TOO_SLOW, "too_slow")
            return
        self._waiting.append(frame)
        self._stirred.set()

    def answer(self, type_: str, rid: int | str | None, **fields: Any) -> None:
        reply = {"type": type_, **fields} | ({} if rid is None else {"rid": rid})
        self.push(msgspec.json.encode(reply).decode())

    def refuse(self, code: str, text: str, rid: int | str | None, **fields: Any) -> None:
        self.answer("error", rid, code=code, message=text, **fields)

    def end(self, code: int, reason: str) -> None:
        """What waits is still sent, then the connection is closed."""
        if self.closing is None:
            self.closing = code, reason
        self._stirred.set()

    async def write(self, send: Send) -> None:
        """Sends what waits, until the connection ends. Raises what `send` raises."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            while self._waiting:
                await send({"type": "websocket.send", "text": self._waiting.popleft()})
            if self.closing is not None:
                code, reason = self.closing
                await send({"type": "websocket.close", "code": code, "reason": reason})
                return
