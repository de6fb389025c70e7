"""What the platform does for itself, as jobs: old idempotency records go, sealed values come to the newest key, and
contexts do what is theirs.

Enqueued by `byline` tools, at every start and every ten minutes (`enqueue_upkeep`); running twice does no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from engine.messages.errors import Unavailable
from platform_api.kernel.context import Kernel
from platform_api.kernel.sealing import SealedColumn, reseal

__all__ = ["Upkeep", "add_upkeep", "enqueue_upkeep"]

log = structlog.get_logger(__name__)

QUEUE, KIND = "admin_actions", "upkeep"


class Upkeep(msgspec.Struct, frozen=True):
    """No arguments: what is due is found in the tables."""


def add_upkeep(
    kernel: Kernel, sealed: Sequence[SealedColumn], contexts: Sequence[Callable[[Kernel], Awaitable[None]]]
) -> None:
    """Registers the handler."""

    async def work(_: Upkeep) -> None:
        await kernel.idempotency.prune()
        count = await reseal(kernel.database, kernel.sealer, sealed)
        if count:
            log.info("columns_resealed", values=count, key=kernel.sealer.newest)
        for upkeep in contexts:
            try:
                await upkeep(kernel)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others look for what is due
                log.error("upkeep_failed", context=upkeep.__module__, error=f"{type(error).__name__}: {error}")

    kernel.jobs.handle(QUEUE, KIND, Upkeep, work)


async def enqueue_upkeep(kernel: Kernel, db: Any) -> None:
    """At most one waits or runs."""
    await kernel.jobs.enqueue(db, QUEUE, KIND, Upkeep(), dedupe_key="upkeep")
