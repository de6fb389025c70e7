"""What the API can say of itself and of the parts it needs."""

from __future__ import annotations

from engine.messages.errors import Unavailable
from platform_api.kernel.context import Kernel
from platform_api.ops import queries
from platform_api.settlement.progress import SettlementProgress, look

__all__ = ["OpsService"]

OUTBOX_SECONDS_MAX = 60
"""Events that wait longer than this mean that the relay is in trouble."""


class OpsService:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        kernel.events.listen(lambda event: kernel.metrics.event(event.type, event.payload))

    async def parts(self) -> dict[str, str]:
        """What requests need: `ready`, or what is wrong. Orders need the core, reads the database."""
        parts = {"core": "ready" if self._kernel.core.status().get("connected") else "not connected"}
        try:
            async with self._kernel.database.connection() as db:
                await queries.answers(db)
            parts["database"] = "ready"
        except Unavailable as error:
            parts["database"] = str(error)
        return parts

    async def components(self) -> dict[str, str]:
        """For a status page: each part `operational`, `degraded` or `down`, and no more than that."""
        parts = await self.parts()
        states = {name: "operational" if state == "ready" else "down" for name, state in parts.items()}
        try:
            async with self._kernel.database.connection() as db:
                outbox = await queries.outbox_counts(db)
                jobs = await self._kernel.jobs.counts(db)
            late = outbox["oldest_seconds"] > OUTBOX_SECONDS_MAX or outbox["failed"]
            states["events"] = "degraded" if late else "operational"
            states["jobs"] = "degraded" if any(state == "failed" for _, state in jobs) else "operational"
        except Unavailable:
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
            async with self._kernel.database.connection() as db:
                outbox = await queries.outbox_counts(db)
                jobs = await self._kernel.jobs.counts(db)
                money = await queries.money_counts(db)
                sessions = await queries.active_sessions(db)
                differences = await queries.differences(db)
            counts = {"waiting": outbox["waiting"], "failed": outbox["failed"]}
            self._kernel.metrics.set_waiting(counts, jobs, money, sessions, differences)
        except Unavailable:
            pass  # the numbers of the processes are told without the database's
        return self._kernel.metrics.text()
