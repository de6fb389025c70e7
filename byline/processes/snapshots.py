"""The core's snapshots: one every interval and whenever somebody asks, each written by a forked child.

Forking pauses matching (`pause_ms`); writing does not. The journal is the truth: a snapshot that cannot be written is
told and tried again, and a start without one only replays more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from byline.request_file import RequestFile
from byline.settings import Settings
from persistence.event_mark import EventKeeper
from persistence.snapshot import SnapshotWriter

__all__ = ["keep_snapshots"]

logger = logging.getLogger(__name__)

SNAPSHOT_LIMIT_S = 600.0
"""After that the child that writes a snapshot is killed, so that the next one may try."""
REAP_S = 5.0


async def keep_snapshots(
    settings: Settings, stop: asyncio.Event, recovered: Any, sequencer: Any, disk: Any, told: dict[str, Any]
) -> None:
    """A snapshot every interval, and whenever DATA/run/snapshot.request appears: snapshot.done beside it answers.

    Forking the child that writes it pauses matching (`pause_ms` in the log and in `told`); writing it does not. One
    that cannot be written is logged, told, and tried again at the next interval: the journal is the truth. The event
    log's mark follows each, so that a start after a loss of power has both.
    """
    request = RequestFile(settings.data_directory, "snapshot")
    due = time.monotonic() + settings.snapshot_interval_s
    last = recovered.report.snapshot_sequence
    writer = SnapshotWriter(disk, recovered.core, recovered.journal.identity)
    keeper = EventKeeper(settings.data_directory / "events", recovered.event_log, recovered.journal.identity)
    told["events_kept_sequence"] = keeper.sequence
    while not stop.is_set():
        is_asked = request.asked() is not None
        if is_asked or (time.monotonic() >= due and sequencer.sequence > last):
            due = time.monotonic() + settings.snapshot_interval_s
            place, chain, path = keeper.at(), sequencer.chain, ""
            try:
                path = await _snapshot(stop, recovered.journal, sequencer, writer)
                last = writer.sequence
                told.update(snapshot_sequence=last, snapshot_pause_ms=round(writer.pause_s * 1e3, 3), snapshot_error="")
                answer = f"{last} {path}"
            except OSError as error:
                logger.error("event=no_snapshot error=%s", error)
                told["snapshot_error"] = str(error)
                answer = f"- {error}"
            if is_asked:
                request.answer(answer)
            if path:
                try:
                    await asyncio.to_thread(keeper.keep, place, chain, stop.is_set)
                except OSError as error:
                    logger.error("event=events_not_kept sequence=%d error=%s", last, error)
                told["events_kept_sequence"] = keeper.sequence
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.1)


async def _snapshot(stop: asyncio.Event, journal: Any, sequencer: Any, writer: Any) -> str:
    """Writes one. Returns its path. Raises OSError, also when the journal will not become durable or time is over."""
    began = time.monotonic()
    sequence = writer.begin(sequencer.chain)
    try:
        while not writer.ended() or journal.durable_sequence < sequence:
            if journal.status == "failed":
                raise OSError(f"the journal is not durable up to sequence {sequence}")
            if stop.is_set():
                raise OSError(f"snapshot {sequence}: not yet written when the core was told to stop")
            if time.monotonic() > began + SNAPSHOT_LIMIT_S:
                raise OSError(f"snapshot {sequence}: not written within {SNAPSHOT_LIMIT_S:.0f} s")
            await asyncio.sleep(0.02)
        path = await asyncio.to_thread(writer.finish)
    except BaseException:
        await _give_up(writer)
        raise
    finally:
        if not stop.is_set():
            await asyncio.to_thread(writer.join_pages)
    logger.info(
        "event=snapshot sequence=%d pause_ms=%.3f seconds=%.2f path=%s",
        sequence, writer.pause_s * 1e3, time.monotonic() - began, path,
    )  # fmt: skip
    return str(path)


async def _give_up(writer: Any) -> None:
    """Kills the child. One that does not die, since a disk hangs, is left: it ends with this process at the latest."""
    writer.kill()
    until = time.monotonic() + REAP_S
    while not writer.ended() and time.monotonic() < until:
        await asyncio.sleep(0.02)
    if writer.ended():
        writer.discard()
    else:
        logger.error("event=snapshot_hangs sequence=%d: its child does not die", writer.sequence)
