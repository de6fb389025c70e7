"""Events between processes of the API, by Redis: what one process's relay hands over, the sockets of all hear.

    relay ──put──▶ stream `byline:events` ──run, in each process──▶ listeners that have not heard it

Whoever reads begins behind the last entry there is, and after a pause where it stopped. While Redis is away each
process hears what its own relay hands over; what the others handed over meanwhile comes as soon as their relays can
put it. Without Redis there is one process of the API alone (`alone.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import redis.asyncio as redis_client
import structlog
from redis.exceptions import RedisError

from engine.messages.errors import Unavailable
from platform_api.kernel.events import Event, Events

__all__ = ["STREAM", "EventStream"]

log = structlog.get_logger(__name__)

STREAM = "byline:events"
LENGTH_MAX = 100_000
SECONDS_MAX = 1.0
"""What a call may take before Redis counts as away."""
BLOCK_MS = 500
READ_MAX = 1_000
AWAY_SECONDS = 0.5


class EventStream:
    """One for each process; `close` it at the end."""

    def __init__(self, url: str, events: Events) -> None:
        self._events = events
        self._client: Any = redis_client.from_url(
            url, socket_timeout=SECONDS_MAX, socket_connect_timeout=SECONDS_MAX
        )

    async def put(self, event: Event) -> None:
        """Raises Unavailable."""
        try:
            await self._client.xadd(
                STREAM, {"event": msgspec.json.encode(event)}, maxlen=LENGTH_MAX, approximate=True
            )
        except (RedisError, OSError) as error:
            raise Unavailable("Redis is away") from error

    async def run(self) -> None:
        """Tells this process's listeners what the relays of all have put, until cancelled."""
        last, away = b"", False
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():  # redis-py takes a cancelled read for one that took too long, and swallows it
            try:
                last = last or await self._end()
                for _, entries in await self._client.xread({STREAM: last}, count=READ_MAX, block=BLOCK_MS):
                    for id_, fields in entries:
                        self._events.tell_listeners(msgspec.json.decode(fields[b"event"], type=Event))
                        last = id_
                away = False
            except (RedisError, OSError) as error:
                if not away:
                    log.warning("stream_waits", error=str(error))
                away = True
                await asyncio.sleep(AWAY_SECONDS)

    async def close(self) -> None:
        await self._client.aclose()

    async def _end(self) -> bytes:
        newest = await self._client.xrevrange(STREAM, count=1)
        return bytes(newest[0][0]) if newest else b"0-0"
