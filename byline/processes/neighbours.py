"""Where a process finds the others of its data directory, by what they say of themselves in their status files."""

from __future__ import annotations

import asyncio

from byline.settings import Settings
from byline.status_file import read_status
from engine.messages.errors import Unavailable

__all__ = ["NEIGHBOUR_WAIT_S", "port_before", "port_of", "postgres_url"]

NEIGHBOUR_WAIT_S = 30.0
"""For one that is just being started."""


def port_before(settings: Settings, name: str, field: str = "port") -> int:
    """The free port that this process had before it was restarted, for those who know it already; 0: there is none."""
    before = read_status(settings.data_directory, name)
    return int(before.get(field, 0)) if before else 0


async def port_of(settings: Settings, name: str, field: str = "port") -> int:
    """The port of a process that is starting. Raises Unavailable."""
    deadline = asyncio.get_running_loop().time() + NEIGHBOUR_WAIT_S
    while asyncio.get_running_loop().time() < deadline:
        known = read_status(settings.data_directory, name)
        if known and known.get("ready") and known.get(field):
            return int(known[field])
        await asyncio.sleep(0.05)
    raise Unavailable(f"{name} does not listen")


def postgres_url(settings: Settings) -> str:
    if settings.postgres_url:
        return settings.postgres_url
    status = read_status(settings.data_directory, "postgres")
    if not status or "url" not in status:
        raise Unavailable("the embedded database has not started yet")
    return str(status["url"])
