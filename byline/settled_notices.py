"""Tells the gateway of batches that became final, so that it tells everyone who is signed in.

A notice is told at most once, and not at all to who is not connected: `GET /v1/settlement/batches` and the fills have
the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Protocol

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable

__all__ = ["SettledNotices"]

log = logging.getLogger(__name__)

WAITING_MAX = 1_000
"""Notices kept while the core is away; then the oldest goes."""
RETRY_S = 0.5


class _Core(Protocol):
    async def submit(self, command: dict[str, Any], /) -> dict[str, Any]: ...


class SettledNotices:
    """`add` every record of the settler; `run` tells the news."""

    def __init__(self, core: _Core) -> None:
        self._core = core
        self._since_ns = time.time_ns()
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(WAITING_MAX)

    def add(self, record: Any) -> None:
        """A `BatchRecord`. What was final before this process began is no news."""
        if record.status != "final" or record.final_ts < self._since_ns:
            return
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(
            {
                "op": "settled", "batch": record.number, "first_sequence": record.first_sequence,
                "last_sequence": record.last_sequence, "digests": record.digests, "chain": record.chain,
                "executor": record.executor,
            }
        )  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            try:
                notice = await asyncio.wait_for(self._waiting.get(), 0.2)
            except TimeoutError:
                continue
            while not stop.is_set():
                try:
                    await self._core.submit(dict(notice))
                    break
                except Unavailable:
                    await asyncio.sleep(RETRY_S)
                except (OutcomeUnknown, Refused) as error:
                    log.warning("event=settled_not_told batch=%d error=%s", notice["batch"], error)
                    break
