"""Everything of the API that runs beside its requests: relay, job worker, upkeep, and the measure of the loop's lag."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec
import redis.asyncio as redis_client
import structlog
from redis.exceptions import RedisError

from engine.messages.errors import Unavailable
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Event
from platform_api.kernel.jobs import Worker
from platform_api.kernel.relay import Relay, Stream
from platform_api.kernel.upkeep import enqueue_upkeep

__all__ = ["in_background", "measure_lag", "redis_stream"]

log = structlog.get_logger(__name__)

LAG_SECONDS = 0.1
STOP_SECONDS_MAX = 10.0
"""What a job that is under way has to end; one that does not runs again after the next start."""
STREAM = "byline:events"
STREAM_LENGTH_MAX = 100_000
REDIS_SECONDS_MAX = 1.0


@contextlib.asynccontextmanager
async def in_background(kernel: Kernel) -> AsyncIterator[None]:
    """Runs all of it inside the block. A part that ends by mistake is logged; requests go on."""
    settings = kernel.settings
    tasks = [asyncio.create_task(measure_lag(kernel.metrics.loop_lag), name="loop lag")]
    stream: Any = None
    if settings.background:
        if settings.redis_url:
            stream = redis_client.from_url(
                settings.redis_url, socket_timeout=REDIS_SECONDS_MAX, socket_connect_timeout=REDIS_SECONDS_MAX
            )
        put = redis_stream(stream) if stream is not None else None
        relay = Relay(kernel.database, kernel.events, put, partial(enqueue_upkeep, kernel))
        worker = Worker(settings.postgres_dsn, kernel.jobs, running_max=settings.jobs_running_max)
        tasks += [
            asyncio.create_task(relay.run(), name="relay"), asyncio.create_task(worker.run(), name="job worker"),
        ]  # fmt: skip
    for task in tasks:
        task.add_done_callback(_ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS_MAX)
        if stream is not None:
            await stream.aclose()


async def measure_lag(observe: Callable[[float], None]) -> None:
    """How late the event loop wakes: what a blocking call anywhere in the process costs every request."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        observe(max(loop.time() - due, 0.0))


def redis_stream(client: Any) -> Stream:
    """Events as entries of the stream `byline:events`, field `event`, as JSON."""

    async def put(event: Event) -> None:
        try:
            await client.xadd(STREAM, {"event": msgspec.json.encode(event)}, maxlen=STREAM_LENGTH_MAX, approximate=True)
        except (RedisError, OSError) as error:
            raise Unavailable("Redis is away") from error

    return put


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("background_ended", part=task.get_name(), exc_info=task.exception())
