"""What all processes do alike: tell their status until they are stopped, and end as soon as one part of theirs does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from byline.settings import Settings
from byline.status_file import StatusFile

__all__ = ["STATUS_INTERVAL_S", "Body", "first_ends", "report_progress", "report_status", "telling"]

STATUS_INTERVAL_S = 0.25
LOAD_POLL_S = 0.02

Body = Callable[[Settings, StatusFile, asyncio.Event], Awaitable[None]]
"""`run` of each process: builds it, and returns once the event is set. What it raises is told and ends the process."""


async def first_ends(stop: asyncio.Event, *bodies: Awaitable[None]) -> None:
    """Runs all until `stop`; when one ends by itself or fails, the others are told to stop. The failure is raised."""
    tasks = [asyncio.ensure_future(body) for body in bodies]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        assert done
    finally:
        stop.set()


async def report_status(status: StatusFile, stop: asyncio.Event, facts: Callable[[], dict[str, Any]]) -> None:
    """Writes the status file until told to stop."""
    while not stop.is_set():
        status.write(ready=True, **facts())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), STATUS_INTERVAL_S)


async def report_progress(status: StatusFile, is_over: Callable[[], bool], progress: Callable[[], int]) -> None:
    """Writes it to the status file until whoever is starting is ready, or told to stop."""
    tell = telling(status)
    while not is_over():
        tell(progress())
        await asyncio.sleep(LOAD_POLL_S)


def telling(status: StatusFile) -> Callable[[int], None]:
    """Has whoever waits for the start see that it goes on: what is long takes its time. Give it a number that changes
    with all that is done."""
    told = time.monotonic()

    def tell(progress: int) -> None:
        nonlocal told
        if time.monotonic() - told >= STATUS_INTERVAL_S:
            told = time.monotonic()
            status.write(ready=False, progress=progress)

    return tell
