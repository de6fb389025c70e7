"""Everything of the API that runs beside its requests: its place among processes, relay, job worker, upkeep, and the
measure of the loop's lag."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import structlog

from platform_api.kernel.alone import Place
from platform_api.kernel.context import Kernel
from platform_api.kernel.jobs import Worker
from platform_api.kernel.relay import Relay
from platform_api.kernel.stream import EventStream
from platform_api.kernel.upkeep import enqueue_upkeep

__all__ = ["in_background", "measure_lag"]

log = structlog.get_logger(__name__)

LAG_SECONDS = 0.1
STOP_SECONDS_MAX = 10.0
"""What a job that is under way has to end; one that does not runs again after the next start."""


@contextlib.asynccontextmanager
async def in_background(kernel: Kernel) -> AsyncIterator[None]:
    """Runs all of it inside the block. A part that ends by mistake is logged; requests go on.

    Raises SettingsInvalid: another process of the API serves the database, and Redis does not join them.
    """
    settings = kernel.settings
    place = Place(settings.postgres_dsn, is_shared=bool(settings.redis_url))
    await place.begin()
    tasks = [
        asyncio.create_task(place.run(), name="place"),
        asyncio.create_task(measure_lag(kernel.metrics.loop_lag), name="loop lag"),
    ]
    stream = EventStream(settings.redis_url, kernel.events) if settings.redis_url else None
    if stream is not None:
        tasks.append(asyncio.create_task(stream.run(), name="event stream"))
    if settings.background:
        put = stream.put if stream is not None else None
        relay = Relay(kernel.database, kernel.events, put, partial(enqueue_upkeep, kernel))
        worker = Worker(
            settings.postgres_dsn, kernel.jobs, before=kernel.database.give_way, running_max=settings.jobs_running_max
        )
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
        await place.close()
        if stream is not None:
            await stream.close()


async def measure_lag(observe: Callable[[float], None]) -> None:
    """How late the event loop wakes: what a blocking call anywhere in the process costs every request."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        observe(max(loop.time() - due, 0.0))


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("background_ended", part=task.get_name(), exc_info=task.exception())
