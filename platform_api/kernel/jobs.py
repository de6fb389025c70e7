"""Work outside of requests: seven queues in PostgreSQL, kept by pgqueuer, enqueued in the caller's transaction.

    queue               retries  priority  first run    what runs there
    payments            5        10        at once      money commands, refunds at the provider, ends of intents
    admin_actions       3        5         at once      upkeep, keys, standings, token markets, licences that fall due
    notifications       3        0         at once      letters
    content_moderation  2        0         at once      uploads put together and checked
    audit_logging       5        0         at once      nothing
    blockchain          10       0         after 1 s    nothing
    analytics_updates   3        −5        after 5 s    nothing

The last three are what the platform is asked to have, and open to whoever needs them. What one would look for there is
done where it is surer: the relay gives committed audit entries their places in the chain one after the other, which
jobs that run side by side cannot; one process alone speaks to the chain, from tables that say how far each registration
and licence is, since two would spend the same coin; and consumers of events count in the transaction of their mark, so
that nothing counts twice, as in a job that is run again.

A job has a queue and a kind; a context registers one handler for each kind. A handler that raises is run again with
growing pauses (1 s, 2 s … 5 min); after its retries the job is *failed*: kept, counted in /metrics, and run again by
`requeue` when a person says so (`byline jobs`). But a part that is away or does not answer (Unavailable,
OutcomeUnknown) fails no job: behind its retries it is tried every AWAY_PAUSE for as long as it takes. So a handler lets
these two through. It may run twice (a worker died), and must tolerate that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import asyncpg
import msgspec
import structlog
from pgqueuer import (
    AsyncpgDriver,
    AsyncpgPoolDriver,
    DatabaseRetryEntrypointExecutor,
    Queries,
    QueueManager,
    RetryRequested,
)
from pgqueuer import Job as QueuedJob
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import JobId, QueueExecutionMode

from engine.messages.errors import OutcomeUnknown, Unavailable
from platform_api.database import AWAY, nothing_left_behind
from platform_api.request_scope import RequestFacts, current_request

__all__ = ["QUEUES", "JobHandler", "Jobs", "QueueRule", "Worker", "install_sql"]

log = structlog.get_logger(__name__)

T = TypeVar("T")

JobHandler = Callable[[T], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class QueueRule:
    """`retries` after the first run; a job of higher `priority` runs first; `delay` before the first run."""

    retries: int
    priority: int = 0
    delay: timedelta = timedelta(0)


QUEUES: Mapping[str, QueueRule] = MappingProxyType({
    "notifications": QueueRule(retries=3),
    "payments": QueueRule(retries=5, priority=10),
    "blockchain": QueueRule(retries=10, delay=timedelta(seconds=1)),
    "admin_actions": QueueRule(retries=3, priority=5),
    "content_moderation": QueueRule(retries=2),
    "audit_logging": QueueRule(retries=5),
    "analytics_updates": QueueRule(retries=3, priority=-5, delay=timedelta(seconds=5)),
})  # fmt: skip

_SETTINGS = DBSettings(db_schema="jobs", prefix="")
_RESTART_SECONDS = 1.0
_CONNECTIONS_MAX = 4
_CLOSE_SECONDS_MAX = 2.0
_BATCH = 10
_LOOK = timedelta(seconds=1)
"""How late a job may begin that was planned for later, or that another failed and left: nobody tells of those. Of one
that is due at once the worker is told (migration 0021)."""
_LOOK_DRAINING = timedelta(milliseconds=20)
AWAY_PAUSE = timedelta(minutes=2)


class _Envelope(msgspec.Struct, frozen=True):
    kind: str
    body: msgspec.Raw
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Registered(Generic[T]):
    type: type[T]
    handler: JobHandler[T]


class Jobs:
    """Registers handlers and enqueues. Workers run what was registered in the same process."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], _Registered[Any]] = {}

    def handle(self, queue: str, kind: str, type_: type[T], handler: JobHandler[T]) -> None:
        """`handler` gets the body as `type_` (a msgspec Struct)."""
        assert queue in QUEUES, f"there is no queue {queue}"
        assert (queue, kind) not in self._handlers, f"{queue}/{kind} has a handler"
        self._handlers[queue, kind] = _Registered(type_, handler)

    async def enqueue(
        self,
        db: Any,
        queue: str,
        kind: str,
        body: Any,
        *,
        run_after: timedelta | None = None,
        dedupe_key: str | None = None,
    ) -> bool:
        """Adds a job in the transaction of `db`; False if one with the same `dedupe_key` waits or runs already."""
        registered = self._handlers.get((queue, kind))
        assert registered is not None and isinstance(body, registered.type), f"{queue}/{kind} has no such handler"
        rule = QUEUES[queue]
        payload = msgspec.json.encode({"kind": kind, "body": body, "request_id": current_request.get().request_id})
        ids = await _queries(AsyncpgDriver(db)).enqueue(
            queue, payload, rule.priority, run_after if run_after is not None else rule.delay,
            _dedupe(queue, kind, dedupe_key) if dedupe_key else None, on_conflict="skip",
        )  # fmt: skip
        return ids[0] is not None

    async def withdraw(self, db: Any, queue: str, kind: str, dedupe_key: str) -> None:
        """The job that waits under this key, if one does, is not needed any more. One that runs goes on."""
        await db.execute(
            "DELETE FROM jobs.pgqueuer WHERE dedupe_key = $1 AND dedupe_key IS NOT NULL AND status = 'queued'",
            _dedupe(queue, kind, dedupe_key),
        )  # fmt: skip

    async def run(self, job: QueuedJob) -> None:
        """Runs the handler of one job. Raises what the handler raises."""
        envelope = msgspec.json.decode(job.payload or b"", type=_Envelope)
        registered = self._handlers[job.entrypoint, envelope.kind]
        body = msgspec.json.decode(envelope.body, type=registered.type)
        token = current_request.set(RequestFacts(request_id=envelope.request_id))
        try:
            with structlog.contextvars.bound_contextvars(
                request_id=envelope.request_id, queue=job.entrypoint, job_id=job.id
            ):
                await registered.handler(body)
                log.info("job_done", kind=envelope.kind, attempt=job.attempts + 1)
        finally:
            current_request.reset(token)

    async def counts(self, db: Any) -> dict[tuple[str, str], int]:
        """(queue, status) → how many; statuses queued, picked, failed."""
        rows = await db.fetch("SELECT entrypoint, status::text, count(*) FROM jobs.pgqueuer GROUP BY 1, 2")
        return {(row["entrypoint"], row["status"]): row["count"] for row in rows}

    async def delays(self, db: Any) -> dict[str, float]:
        """Of each queue, for how many seconds the oldest job waits that is due: 0 if none does."""
        rows = await db.fetch(
            "SELECT entrypoint, extract(epoch FROM now() - min(execute_after))::float8 AS seconds FROM jobs.pgqueuer"
            " WHERE status = 'queued' AND execute_after <= now() GROUP BY 1"
        )
        return dict.fromkeys(QUEUES, 0.0) | {row["entrypoint"]: row["seconds"] for row in rows}

    async def requeue(self, db: Any, job_ids: Sequence[int]) -> None:
        """Failed jobs run again, with all their retries."""
        await _queries(AsyncpgDriver(db)).requeue_jobs([JobId(job_id) for job_id in job_ids])


class Worker:
    """Runs jobs until cancelled, with connections of its own; starts anew whenever the database comes back."""

    def __init__(
        self,
        dsn: str,
        jobs: Jobs,
        *,
        before: Callable[[], Awaitable[None]] | None = None,
        running_max: int = 20,
        retry_delay: timedelta = timedelta(seconds=1),
    ) -> None:
        """`before` is awaited before each job."""
        self._dsn = dsn
        self._jobs = jobs
        self._before = before
        self._running_max = running_max
        self._retry_delay = retry_delay

    async def run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():  # a wait that ends in the turn of the cancellation swallows it
            try:
                await self._run_connected()
            except asyncio.CancelledError:  # also raised by the queue's own tasks when their connection is cut
                if task.cancelling():
                    raise
                log.warning("worker_waits", error="its connection was cut")
            except Exception as error:  # noqa: BLE001 - jobs go on, whatever their queue died of
                log.warning("worker_waits", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_RESTART_SECONDS)

    async def drain(self) -> None:
        """Runs what waits, retries included, and returns; for tools and tests. Raises what the database raises."""
        await self._run_connected(QueueExecutionMode.drain)

    async def _run_connected(self, mode: QueueExecutionMode = QueueExecutionMode.continuous) -> None:
        pool = await asyncpg.create_pool(
            self._dsn, min_size=1, max_size=_CONNECTIONS_MAX, reset=nothing_left_behind
        )
        try:
            await self._manager(pool).run(
                mode=mode,
                dequeue_timeout=_LOOK if mode is QueueExecutionMode.continuous else _LOOK_DRAINING,
                batch_size=_BATCH,
                max_concurrent_tasks=self._running_max,
                shutdown_on_listener_failure=True,
            )
        finally:
            # A listening connection that was cut never comes back to the pool, which would wait for it for ever.
            try:
                await asyncio.wait_for(pool.close(), _CLOSE_SECONDS_MAX)
            except AWAY:
                pool.terminate()
            except asyncio.CancelledError:
                pool.terminate()
                raise

    def _manager(self, pool: Any) -> QueueManager:
        manager = QueueManager(_queries(AsyncpgPoolDriver(pool)))

        async def run(job: QueuedJob) -> None:
            """A failure leaves here when the database is there to note that the job is to be tried again: a queue that
            cannot note it holds the job as failed for good."""
            if self._before is not None:
                await self._before()
            try:
                await self._jobs.run(job)
            except Exception as error:
                await _reachable(pool)
                if isinstance(error, (Unavailable, OutcomeUnknown)):
                    kind = msgspec.json.decode(job.payload or b"", type=_Envelope).kind
                    log.warning("job_waits", kind=kind, job_id=job.id, attempt=job.attempts + 1, error=str(error))
                    is_spent = job.attempts >= QUEUES[job.entrypoint].retries
                    pause = AWAY_PAUSE if is_spent else self._retry_delay * 2**job.attempts
                    raise RetryRequested(delay=pause, reason=str(error)) from error
                raise

        for queue, rule in QUEUES.items():
            retrying = partial(
                DatabaseRetryEntrypointExecutor, max_attempts=rule.retries, initial_delay=self._retry_delay
            )
            manager.entrypoint(queue, accepts_context=False, on_failure="hold", executor_factory=retrying)(run)
        return manager


async def _reachable(pool: Any) -> None:
    """Waits for the database."""
    while True:
        try:
            await pool.fetchval("SELECT 1")
            return
        except AWAY:
            await asyncio.sleep(_RESTART_SECONDS)


def _dedupe(queue: str, kind: str, key: str) -> str:
    return f"{queue}/{kind}/{key}"


def install_sql() -> str:
    """The schema of the queue as this version of pgqueuer wants it; what the migration must hold."""
    return QueryBuilderEnvironment(_SETTINGS).build_install_query()


def _queries(driver: Any) -> Queries:
    return Queries(
        driver, QueryBuilderEnvironment(_SETTINGS), QueryQueueBuilder(_SETTINGS), QuerySchedulerBuilder(_SETTINGS)
    )
