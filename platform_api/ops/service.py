"""What the API can say of itself and of the parts it needs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.messages.errors import Unavailable
from platform_api.kernel.context import Kernel
from platform_api.ops import queries
from platform_api.settlement.progress import SettlementProgress, look, silent_s

__all__ = ["OpsService"]

CORE_SILENT_S = 10.0
"""The core says how it stands twice a second. One that is connected and says nothing for so long hangs."""
OUTBOX_SECONDS_MAX = 60
"""Events that wait longer than this mean that the relay is in trouble."""


class _Waiting(NamedTuple):
    """What waits in the database, as it was when it was counted."""

    outbox: Any
    jobs: Mapping[tuple[str, str], int]
    delays: Mapping[str, float]
    money: Mapping[str, int]
    sessions: int
    differences: int


class OpsService:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting: _Waiting | None = None
        self._counted_at = 0.0
        self._counting = asyncio.Lock()
        kernel.events.listen(lambda event: kernel.metrics.event(event.type, event.payload))

    async def parts(self) -> dict[str, str]:
        """What requests need: `ready`, or what is wrong. Orders need the core, reads the database."""
        parts = {"core": self._core()}
        try:
            async with self._kernel.database.connection() as db:
                await queries.answers(db)
            parts["database"] = "ready"
        except Unavailable as error:
            parts["database"] = str(error)
        return parts

    def _core(self) -> str:
        if not self._kernel.core.status().get("connected"):
            return "not connected"
        silent = silent_s(self._kernel.status.read().get("core") or {})
        return "ready" if silent <= CORE_SILENT_S else f"silent for {silent:.0f} s"

    async def components(self) -> dict[str, str]:
        """For a status page: each part `operational`, `degraded` or `down`, and no more than that."""
        parts = await self.parts()
        states = {name: "operational" if state == "ready" else "down" for name, state in parts.items()}
        try:
            waiting = await self._counts()
            late = waiting.outbox["oldest_seconds"] > OUTBOX_SECONDS_MAX or waiting.outbox["failed"]
            states["events"] = "degraded" if late else "operational"
            states["jobs"] = "degraded" if any(state == "failed" for _, state in waiting.jobs) else "operational"
        except Unavailable:  # the states tell it
            states |= {"events": "down", "jobs": "down"}
        settlement = self.settlement()
        states["settlement"] = {"ok": "operational", "delayed": "degraded", "halted": "down"}[settlement.state]
        knows = settlement.reason not in ("settlement_stopped", "chain_unavailable")  # a stopped one has not looked
        states["chain"] = "operational" if knows else "down" if settlement.reason == "chain_unavailable" else "degraded"
        return states

    def settlement(self) -> SettlementProgress:
        """Whether batches reach the chain. Never waits."""
        return look(self._kernel.status)

    async def metrics(self) -> bytes:
        """With what waits in the database, if that answers."""
        try:
            waiting = await self._counts()
            self._kernel.metrics.set_waiting(**waiting._asdict())
        except Unavailable:
            pass  # the numbers of the processes are told without the database's
        self._tell_settlement()
        return self._kernel.metrics.text()

    def _tell_settlement(self) -> None:
        settlement, says = self.settlement(), self._kernel.status.read()
        core, office = says.get("core") or {}, says.get("backoffice") or {}
        projection = office.get("projection") or {}
        knows = "released_sequence" in core and "sequence" in projection
        self._kernel.metrics.set_settlement(
            lag_s=settlement.oldest_s, halted=settlement.state == "halted",
            chain=settlement.reason != "chain_unavailable",
            registry=settlement.reason != "settlement_stopped" and not office.get("registry_error"),
            projection_lag=max(0, core["released_sequence"] - projection["sequence"]) if knows else math.nan,
        )  # fmt: skip

    async def _counts(self) -> _Waiting:
        """At most `counted_seconds` old. Sessions and jobs are counted by reading all of them, and anybody may ask.

        Raises Unavailable.
        """
        async with self._counting:  # who comes meanwhile takes what is being counted
            kept = time.monotonic() - self._counted_at < self._kernel.settings.counted_seconds
            if self._waiting is None or not kept:
                async with self._kernel.database.connection() as db:
                    self._waiting = _Waiting(
                        await queries.outbox_counts(db), await self._kernel.jobs.counts(db),
                        await self._kernel.jobs.delays(db), await queries.money_counts(db),
                        await queries.active_sessions(db), await queries.differences(db),
                    )  # fmt: skip
                self._counted_at = time.monotonic()
            return self._waiting
