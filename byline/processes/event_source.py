"""The event log, for a process that follows it: it is there once the core has made it."""

from __future__ import annotations

import asyncio

from byline.processes.neighbours import NEIGHBOUR_WAIT_S
from byline.settings import Settings
from engine.messages.errors import Unavailable
from persistence.event_log import EventLogReader

__all__ = ["event_source"]


async def event_source(settings: Settings) -> EventLogReader:
    """A reader of the event log; waits for the core to make it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + NEIGHBOUR_WAIT_S
    while True:
        try:
            return EventLogReader(settings.data_directory / "events")
        except FileNotFoundError:
            if loop.time() > deadline:
                raise Unavailable("there is no event log: is the core running?") from None
            await asyncio.sleep(0.05)
