"""Moments at which something of licences is due, and who is told of windows.

Nothing that is decided waits for them: whether a licence holds or a window is open is computed from its times. They
make states, events and reservations follow. Each is a job that sweeps all that is due (`calendar.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from platform_api.kernel.context import Kernel
from platform_api.works.service import WorkService

__all__ = ["KIND", "QUEUE", "Due", "tell_window", "wake"]

QUEUE, KIND = "admin_actions", "licensing_due"
LATER = timedelta(seconds=1)
"""Clocks of two machines differ."""


class Due(Struct, frozen=True):
    """No arguments: what is due is found in the tables."""


async def wake(kernel: Kernel, db: Any, at: datetime) -> None:
    """Sweep soon after this moment."""
    pause = max(at - datetime.now(UTC), timedelta(0)) + LATER
    await kernel.jobs.enqueue(db, QUEUE, KIND, Due(), run_after=pause, dedupe_key=at.isoformat())


async def tell_window(kernel: Kernel, db: Any, row: Any, actor: UUID | None) -> None:
    """Events of what opened or closed; plans are nobody's business. `was_public`: only then everybody hears of it."""
    if row["status"] in ("open", "closed"):
        shown = await kernel.service(WorkService).catalog.published(db, [row["work_id"]])
        payload = {
            "work_id": str(row["work_id"]), "window_type": row["window_type"], "territories": list(row["territories"]),
            "was_public": bool(shown),
        }  # fmt: skip
        word = {"open": "opened", "closed": "closed"}[row["status"]]
        subject = ("window", str(row["id"]))
        await kernel.events.publish(db, f"window.{word}", subject, payload, actor=actor, version=row["version"])
