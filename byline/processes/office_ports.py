"""What settlement takes of others: bookings by the core, an auditor, the backup, and what need not be told again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byline.backup_gate import BackupGate
from byline.journal_publication import kept_batches
from byline.settings import Settings
from engine.messages.errors import OutcomeUnknown, Unavailable
from persistence.backup import Objects
from persistence.disk import DirectoryDisk
from persistence.second_core import SecondCore
from persistence.shipped import Shipped
from settlement.settler import Known

__all__ = ["Audit", "Bookings", "backup_gate", "batch_row", "known_batches"]

logger = logging.getLogger(__name__)

PROJECTION_WAIT_S = 3.0
"""For a database that starts as late as its readers; without it settlement begins all the same."""


class Audit:
    """Fulfils `settlement.audit.AuditPort` beside the event loop: catching up may take a while."""

    def __init__(self, directory: Path) -> None:
        self._core = SecondCore(DirectoryDisk(directory))

    async def at_cut(self, sequence: int) -> tuple[bytes, Any]:
        return await asyncio.to_thread(self._core.at_cut, sequence)

    def close(self) -> None:
        self._core.close()


class Bookings:
    """Fulfils `settlement.commands.CommandPort`: no answer is an absence, for the same ref again is harmless."""

    def __init__(self, core: Any) -> None:
        self._core = core

    async def submit(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = await self._core.submit(command)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        return answer

    async def available(self, account: str) -> Mapping[str, str]:
        try:
            free: Mapping[str, str] = await self._core.available(account)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        return free

    async def sequence_of(self, account: str) -> int:
        try:
            sequence: int = await self._core.sequence_of(account)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        return sequence


def backup_gate(settings: Settings, identity: bytes) -> BackupGate:
    def opens() -> Objects:
        return Objects(settings.backup_url, make_directory=False)

    return BackupGate(settings.data_directory, Shipped(settings.data_directory, opens, identity))


async def known_batches(projector: Any, desk: Any, data: Path) -> Known:
    """What need not be told again of settled batches: nothing, while PostgreSQL is away."""
    try:
        await asyncio.wait_for(projector.begun.wait(), PROJECTION_WAIT_S)
        unpaid = await desk.unpaid()
    except (TimeoutError, Unavailable) as error:
        logger.warning("event=batches_told_again reason=%s", error or "PostgreSQL does not answer")
        return Known()
    return Known(projector.final_batches, await asyncio.to_thread(kept_batches, data), unpaid)


def batch_row(record: Any) -> dict[str, Any]:
    """A batch of the settler as the projection stores it."""
    return {
        "number": record.number, "first_sequence": record.first_sequence, "last_sequence": record.last_sequence,
        "cut_at_ns": record.cut_ts, "status": record.status, "state_hash": bytes.fromhex(record.state_hash),
        "root": bytes.fromhex(record.root), "trades_digest": bytes.fromhex(record.trades_digest),
        "leg_count": record.row_count, "digests": record.digests, "committed_at_ns": record.final_ts or None,
        "error": record.error or None, "file": record.file,
    }  # fmt: skip
