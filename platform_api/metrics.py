"""Prometheus: the numbers that every process publishes of itself, and the answers of this one.

    byline_<process>_<number>                        each number in the status of a process
    byline_<process>_<count>_total                   each of its counts since its start
    byline_<process>_stage_seconds{stage}            how long its stages took, where it tells: a histogram
    byline_<process>_key_stage_seconds{key,stage}    the same by API key, where it tells: as many keys as it names
    byline_process_up{process}                       1 if it says that it is ready, and lives
    byline_process_silent_seconds{process}           since it said anything: old numbers tell nothing
    http_requests_total{method,route,status}         answers
    http_request_duration_seconds{route}             time to answer
    database_query_duration_seconds                  how long a connection was in use
    event_loop_lag_seconds                           how late the loop woke
    outbox_events{state}  jobs{queue,state}          what waits, and what was given up; read when collected
    outbox_delay_seconds  job_delay_seconds{queue}   how long the oldest of what is due waits
    settlement_lag_seconds  settlement_halted        the oldest batch that is not final; 1 while a person must look
    chain_available  registry_available              0 while its node, or the desk of the registry, cannot be asked
    projection_lag_seq                               commands that PostgreSQL's rows are behind the core; NaN: unknown
    books_differ                                     accounts of which the books say another sum than the core
    user_active_sessions                             sessions that stand; read when collected
    platform_events_total{type}                      what happened: user.registered, work.created, license.applied …
    blockchain_transaction_count{status}             of the registry, since the start: executed, aborted, refused
    content_upload_size_bytes                        sizes of files that were received and found good: a histogram
    payment_success_rate                             of the payments decided since the start; NaN before the first
    <others>                                         counters that contexts make with `counter`

Collected when asked for, and what the database counts at most every few seconds; nothing runs in between. Routes are
templates, so the label values are bounded.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from platform_api.ports import StatusPort

__all__ = ["Metrics"]

NOT_IN_NAMES = re.compile(r"[^a-z0-9_]")
TEXTS = {
    "accounts": "Accounts opened; none is ever closed",
    "accounts_max": "Accounts there is room for; new people are taken up to nine tenths of it",
    "acks_per_s": "Acks a second, on average since the start",
    "acks": "Commands acknowledged, those rejected by a rule of the core too",
    "backup_waits_s": "How long the next batch has waited for the backup to have it; 0: it does not wait",
    "bad_frames": "Messages that could not be understood",
    "batch": "Cuts so far: settlement batches closed",
    "bytes": "Bytes of records sent to the backup since the start",
    "closed_silent": "Sessions ended because their peer was silent",
    "closed_slow": "Sessions ended because they did not read",
    "commands_binary": "Commands in binary records",
    "commands_fast": "JSON commands that the scanner understood",
    "commands_thorough": "JSON commands that took the thorough path",
    "disk_bytes": "Size of the disk of the data directory",
    "disk_free_bytes": "What of it is free for this user",
    "durable_sequence": "The last command whose record is on disk",
    "epoch": "How many times the exchange has started",
    "frames_in": "Frames read",
    "journal_errno": "0, or why the journal stopped",
    "journal_full": "1 while there is no space for the journal, and cancels alone are taken",
    "lag_s": "Age of the oldest durable command that is not in the backup",
    "open_orders": "Orders open or waiting",
    "pending": "Commands carried out and not yet told",
    "parts": "Parts of the journal sent to the backup since the start",
    "private_events": "Private events told",
    "reachable": "1 if the last request to the backup's store was answered",
    "recovery_point_max_s": "The greatest age of a record when it was in the backup, since the start",
    "recovery_point_s": "How old the oldest record of the last part was when it was in the backup",
    "refs": "Refs of money commands that are kept, until their time is over",
    "refs_max": "Refs there is room for; beyond it every money command is refused",
    "refused_busy": "Commands and questions refused because a queue was full",
    "refused_sessions": "Connections turned away",
    "rejected_commands": "Commands refused before the journal by a limit, a right of the key or a full queue",
    "released_sequence": "The last command that was told",
    "sends": "Writes to sockets",
    "segments": "Sealed segments sent to the backup since the start",
    "sequence": "The last command in the journal",
    "sessions": "Connections that stand",
    "sessions_opened": "Connections since the start",
    "shipped_sequence": "The last command that is in the backup",
    "ticks": "Ticks written by the exchange",
    "unsealed": "Full segments that the backup has in parts, and not yet as one object",
}
"""What the numbers of processes are, by name; those of order entry are told in docs/metrics.md."""
METHODS = ("GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT")
BUCKETS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""The bounds that answers are held to are among them: 0.2 s, and 2 s for the alert."""
JOB_STATES = ("queued", "picked", "failed")
BUCKETS_BYTES = tuple(4.0**power for power in range(5, 16))
"""From a kibibyte to a gibibyte."""


class Metrics:
    """One registry of its own: two applications in one process do not meet."""

    def __init__(self, status: StatusPort) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ProcessCollector(status))
        self._requests = self.counter("http_requests", "Answers", ["method", "route", "status"])
        self._seconds = self._histogram("http_request_duration_seconds", "Time to answer", ["route"])
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        """What counts answers of a method, route and status: to look it up by its labels costs more than to count."""
        self._database = self._histogram("database_query_duration_seconds", "How long a connection was in use")
        self._lag = self._histogram("event_loop_lag_seconds", "How late the event loop woke")
        self._outbox = self._gauge("outbox_events", "Events not passed on", ["state"])
        self._jobs = self._gauge("jobs", "Jobs in the queue", ["queue", "state"])
        self._money = self._gauge("money_commands", "Commands to the core without a final answer", ["state"])
        text = "How long the oldest event that is not passed on waits"
        self._outbox_delay = self._gauge("outbox_delay_seconds", text)
        self._job_delay = self._gauge("job_delay_seconds", "How long the oldest job that is due waits", ["queue"])
        self._lag_settlement = self._gauge("settlement_lag_seconds", "Age of the oldest batch that is not final")
        self._halted = self._gauge("settlement_halted", "1 while settlement is halted, until a person ends it")
        self._chain = self._gauge("chain_available", "0 while the chain's node does not answer settlement")
        self._registry_desk = self._gauge("registry_available", "0 while nothing can be registered on the chain")
        self._projection_lag = self._gauge("projection_lag_seq", "Commands that PostgreSQL's rows are behind the core")
        self._differ = self._gauge("books_differ", "Accounts of which the books say another sum than the core")
        self._sessions = self._gauge("user_active_sessions", "Sessions that stand")
        self._events = self.counter("platform_events", "Events of the platform that this process heard of", ["type"])
        text = "Sizes of files that were received and found good"
        self._uploads = self._histogram("content_upload_size_bytes", text, buckets=BUCKETS_BYTES)
        text = "Transactions of the registry since the start, by what became of them"
        self._transactions = self._gauge("blockchain_transaction_count", text, ["status"])
        text = "Of the payments decided since the start, how many succeeded"
        self._payments = self._gauge("payment_success_rate", text)
        self._payments.set(math.nan)
        self._decided = {"payment.completed": 0, "payment.failed": 0}
        for type_ in self._decided:
            self._events.labels(type_)  # from nought on: of a series that begins with 1, the first is no increase

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        found = self._answers.get((method, route, status))
        if found is None:
            known = method if method in METHODS else "other"
            found = self._requests.labels(known, route, str(status)), self._seconds.labels(route)
            if known == method:  # else anybody could make the table long
                self._answers[method, route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def query_seconds(self, seconds: float) -> None:
        self._database.observe(seconds)

    def loop_lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def event(self, type_: str, payload: Mapping[str, Any]) -> None:
        """Something has happened; its types are a closed set."""
        self._events.labels(type_).inc()
        if type_ == "file.ready" and "size_bytes" in payload:  # one that an earlier build wrote says none
            self._uploads.observe(payload["size_bytes"])
        if type_ in ("chain.tx_confirmed", "chain.tx_failed"):
            self._transactions.labels(payload["status"]).inc()
        if type_ in self._decided:
            self._decided[type_] += 1
            self._payments.set(self._decided["payment.completed"] / sum(self._decided.values()))

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A counter of a context; make it once, in the service's constructor. Label values must be bounded."""
        return Counter(name, text, labels, registry=self._registry)

    def set_waiting(
        self, outbox: Mapping[str, int], jobs: Mapping[tuple[str, str], int], delays: Mapping[str, float],
        money: Mapping[str, int], sessions: int, differences: int,
    ) -> None:  # fmt: skip
        """What was just read of the database. `outbox`: `waiting`, `failed`, and `oldest_seconds` of those that wait;
        `delays`: seconds, of each queue."""
        for state in ("waiting", "failed"):
            self._outbox.labels(state).set(outbox[state])
        self._outbox_delay.set(outbox["oldest_seconds"])
        for queue, seconds in delays.items():
            self._job_delay.labels(queue).set(seconds)
            for state in JOB_STATES:
                self._jobs.labels(queue, state).set(jobs.get((queue, state), 0))
        for state, count in money.items():
            self._money.labels(state).set(count)
        self._sessions.set(sessions)
        self._differ.set(differences)

    def set_settlement(
        self, *, lag_s: float, halted: bool, chain: bool, registry: bool, projection_lag: float
    ) -> None:
        """As the back office said last. `projection_lag`: commands; NaN where it is not known."""
        self._lag_settlement.set(lag_s)
        self._halted.set(halted)
        self._chain.set(chain)
        self._registry_desk.set(registry)
        self._projection_lag.set(projection_lag)

    def text(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = BUCKETS_SECONDS
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)


class _ProcessCollector(Collector):
    def __init__(self, status: StatusPort) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        return []  # the names depend on what the processes say

    def collect(self) -> Iterable[Metric]:
        processes = self._status.read()
        up = GaugeMetricFamily("byline_process_up", "1 if the process is ready and lives", labels=["process"])
        for name, fields in sorted(processes.items()):
            up.add_metric([name], 1.0 if fields.get("ready") and fields.get("alive", True) else 0.0)
        yield up
        silent = GaugeMetricFamily(
            "byline_process_silent_seconds", "Since the process said anything of itself", labels=["process"]
        )
        for name, fields in sorted(processes.items()):
            if "written_at" in fields:
                silent.add_metric([name], max(0.0, time.time() - fields["written_at"]))
        yield silent
        for name, fields in sorted(processes.items()):
            prefix = "byline_" + NOT_IN_NAMES.sub("_", name.lower())
            for field, value in sorted(fields.items()):
                if isinstance(value, (int, float)):
                    metric = f"{prefix}_{NOT_IN_NAMES.sub('_', field.lower())}"
                    yield GaugeMetricFamily(metric, TEXTS.get(field, f"{field} of {name}"), value=float(value))
            counts = fields.get("counters")
            for field, value in sorted(counts.items()) if isinstance(counts, Mapping) else ():
                metric = f"{prefix}_{NOT_IN_NAMES.sub('_', field.lower())}"
                if field not in fields and isinstance(value, int):  # what is a number of now stands among the fields
                    yield CounterMetricFamily(metric, TEXTS.get(field, f"{field} of {name}"), value=float(value))
            stages = fields.get("stages")
            if isinstance(stages, Mapping):
                text = f"From reading a command to this stage, in {name}"
                yield _stages(f"{prefix}_stage_seconds", text, {(): stages})
            keys = fields.get("key_stages")
            if isinstance(keys, Mapping):
                by_key: dict[tuple[str, ...], Any] = {(key,): told for key, told in keys.items()}
                text = f"From reading a command to this stage, in {name}, by key"
                yield _stages(f"{prefix}_key_stage_seconds", text, by_key, "key")


def _stages(
    metric: str, text: str, tables: Mapping[tuple[str, ...], Mapping[str, Any]], *labels: str
) -> HistogramMetricFamily:
    """`tables`, by values of `labels`: by stage `sum_us` and `buckets`, pairs of bound in µs (-1: none) and count."""
    family = HistogramMetricFamily(metric, text, labels=[*labels, "stage"])
    for values, stages in tables.items():
        for stage, told in stages.items():
            buckets, total = [], 0
            for bound, count in told["buckets"]:
                total += count
                buckets.append(("+Inf" if bound < 0 else str(bound / 1e6), total))
            family.add_metric([*values, stage], buckets, told["sum_us"] / 1e6)
    return family
