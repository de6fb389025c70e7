"""The backup's process: ships the journal to an object store, record by record and then segment by segment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from byline.processes.body import first_ends, report_status
from byline.settings import Settings
from byline.status_file import StatusFile
from engine.messages.errors import Unavailable
from persistence.backup import Objects, Shipper

__all__ = ["run"]

logger = logging.getLogger(__name__)


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    """Ships the journal. A store that is away is waited for; another history in it ends the process for good."""
    shipper, is_started = Shipper(settings.data_directory, Objects(settings.backup_url)), False
    errors = {"parts": "", "sealing": ""}
    began = time.monotonic()

    def waiting_s() -> float:
        """Until the store has answered once, what waits is not known: at least since this process began."""
        return shipper.oldest_waiting_s() if is_started else time.monotonic() - began

    def facts() -> dict[str, Any]:
        return {
            "shipped_sequence": shipper.sequence, "lag_s": round(waiting_s(), 3),
            "recovery_point_s": round(shipper.lag_s, 3), "recovery_point_max_s": round(shipper.lag_max_s, 3),
            "parts": shipper.parts, "segments": shipper.sealed, "unsealed": shipper.unsealed, "bytes": shipper.bytes,
            "reachable": int(not errors["parts"]), "last_error": errors["parts"] or errors["sealing"],
        }  # fmt: skip

    async def done(what: str, call: Callable[[], object]) -> bool:
        """False: the store, or the journal, is not there."""
        try:
            await asyncio.to_thread(call)
        except Unavailable as problem:
            if str(problem) != errors[what]:
                logger.warning("event=backup_waits of=%s sequence=%d error=%s", what, shipper.sequence, problem)
            errors[what] = str(problem)
            return False
        errors[what] = ""
        return True

    async def shipped() -> bool:
        """One look, and what is new is shipped."""
        nonlocal is_started
        is_started = is_started or await done("parts", shipper.start)
        return is_started and await done("parts", shipper.step)

    async def sealed() -> bool:
        return not is_started or await done("sealing", shipper.seal)

    async def repeat(body: Callable[[], Awaitable[bool]]) -> None:
        """Looks begin an interval apart: what a request took is not waited for once more."""
        interval_s = patience_s = settings.backup_interval_s
        while not stop.is_set():
            looked = time.monotonic()
            if await body():
                wait_s, patience_s = max(0.0, looked + interval_s - time.monotonic()), interval_s
            else:
                wait_s = patience_s = min(5.0, max(2 * patience_s, 0.5))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)

    async def ship() -> None:
        await repeat(shipped)
        await shipped()  # what came last: the core has stopped before this process, which may have only just begun

    await first_ends(stop, ship(), repeat(sealed), report_status(status, stop, facts))
    status.write(ready=False, **facts())
