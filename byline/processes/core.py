"""The core's process: the only one that applies commands.

    recovery (snapshot + journal) ▸ sequencer ▸ journal, engine ▸ event log
                 ▲                      ▲
           DATA/journal           gateway ◀─ws─ clients

It ends when a write or a sync of the journal has failed, or an invariant is broken: whoever starts it again recovers
from what is on disk. Beside that it writes snapshots (`snapshots`), which only shorten the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from pathlib import Path
from typing import Any, Literal

from byline.processes.body import first_ends, report_status, telling
from byline.processes.epoch import next_epoch, used_epochs
from byline.processes.neighbours import port_before
from byline.processes.snapshots import keep_snapshots
from byline.settings import Settings
from byline.status_file import StatusFile
from engine.messages.errors import JournalCorrupt, JournalFailed
from gateway.keys import KeyRegistry, Scope, load_or_create_key, public_hex
from gateway.sequencer import Sequencer
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from persistence.disk import DirectoryDisk, SystemClock
from persistence.event_log import EventLogReader
from persistence.journal import JournalSettings
from persistence.recovery import recover
from settlement.store import last_sealed

__all__ = ["clock_watched", "run"]

logger = logging.getLogger(__name__)

FAILED_WAIT_S = 0.25
"""From a failed journal to the end of the core, so that sessions hear why."""


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    data = settings.data_directory
    clock = SystemClock()
    mode: Literal["durable", "memory"] = "durable" if settings.ack_mode == "durable" else "memory"
    journal = JournalSettings(mode=mode, segment_bytes=settings.journal_segment_mib << 20)
    recovered = recover(data, settings=journal, clock=clock, sealed=_sealed(data), progress=telling(status))
    report = recovered.report
    logger.info(
        "event=recovered sequence=%d snapshot=%d replayed=%d torn_bytes=%d seconds=%.2f state_hash=%s",
        report.sequence, report.snapshot_sequence, report.replayed_records, report.torn_bytes, report.seconds,
        report.state_hash.hex(),
    )  # fmt: skip
    try:
        disk = DirectoryDisk(data)
        keys = KeyRegistry(disk)
        operator = public_hex(load_or_create_key(data / "keys" / "operator.key"))
        if keys.find(operator) is None:
            keys.register(operator, [], Scope.OPERATOR.words(), "operator of this data directory", clock.now_ns())
        sequencer = Sequencer(
            recovered.core, clock, recovered.journal, recovered.event_log,
            durable_acks=settings.ack_mode == "durable", chain=recovered.journal.chain,
        )  # fmt: skip
        server = GatewayServer(
            GatewaySettings(
                host=settings.host, port=settings.gateway_port or port_before(settings, "core"),
                environment=settings.environment, epoch=next_epoch(data, used_epochs(recovered)),
                ack_mode=settings.ack_mode,
                batch_interval_s=settings.batch_interval_s, ping_interval_s=settings.gateway_ping_s,
                tls_certificate=settings.tls_certificate, tls_key=settings.tls_key,
                tls_host=settings.tls_host, tls_port=settings.tls_port,
            ),
            sequencer, recovered.journal, recovered.core, keys, clock, lambda: EventLogReader(data / "events"),
            load_or_create_key(data / "keys" / "receipts.key"),
        )  # fmt: skip
        host, port = await server.start()
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not walk it again

        snapshots: dict[str, Any] = {"snapshot_sequence": report.snapshot_sequence}

        def facts() -> dict[str, Any]:
            return {
                "host": host, "port": port, "recovery_s": round(report.seconds, 3),
                "torn_bytes": report.torn_bytes, **snapshots, **server.status(),
                "journal_full": int(recovered.journal.status == "disk_full"),
                **({"tls_port": server.tls_address[1]} if server.tls_address else {}),
            }  # fmt: skip

        try:
            await first_ends(
                stop,
                _until(stop, server),
                _journal_lives(stop, recovered.journal),
                clock_watched(stop, recovered.core, clock),
                report_status(status, stop, facts),
                keep_snapshots(settings, stop, recovered, sequencer, disk, snapshots),
            )
        finally:
            await server.stop()
            status.write(ready=False, **facts())
    finally:
        recovered.close()


def _sealed(data: Path) -> int:
    """The last sequence that settlement has sealed, 0 if none is known: its damaged log stops the back office alone."""
    try:
        return last_sealed(data / "settlement" / "batches.log")[1]
    except JournalCorrupt as error:  # the settler, which reads it next, is who stops
        logger.warning("event=settlement_log_damaged error=%s", error)
        return 0


async def _until(stop: asyncio.Event, server: GatewayServer) -> None:
    """Until told to stop, or a broken invariant ended the server: that is raised."""
    ended = asyncio.ensure_future(server.wait_ended())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if ended.done():
        ended.result()
    ended.cancel()


async def _journal_lives(stop: asyncio.Event, journal: Any) -> None:
    """Raises JournalFailed soon after a write or a sync has failed: sessions have been told, and nothing is acked."""
    while not stop.is_set():
        if journal.failed:
            await asyncio.sleep(FAILED_WAIT_S)
            raise JournalFailed(
                f"errno {journal.failed} ({os.strerror(journal.failed)}): sequence {journal.durable_sequence} is the "
                "last one on disk, nothing behind it was acknowledged"
            )
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.05)


async def clock_watched(stop: asyncio.Event, core: Any, clock: Any, interval_s: float = 10.0) -> None:
    """Tells of a clock that stands behind the engine's time, which never goes back: one command under a clock that was
    far ahead sets it, and until the clock has caught up nothing falls due and every expiry within that time is
    `bad_expiry`."""
    while not stop.is_set():
        behind = (core.time - clock.now_ns()) // 1_000_000_000
        if behind > 0:
            logger.warning("event=clock_behind seconds=%d engine_time=%d", behind, core.time)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), interval_s)
