"""Lets settlement go on once the backup has what the chain is about to see, and says so when that takes long."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from persistence.shipped import Shipped

__all__ = ["BackupGate"]

log = logging.getLogger(__name__)

SETTLEMENT_LOG = "settlement/batches.log"
LOOK_S = 0.25
TOLD_S = 5.0
"""What a shipper at work never takes: two looks of its own and as many requests."""


class BackupGate:
    """Fulfils `settlement.settler.BackupPort`."""

    def __init__(self, directory: Path, shipped: Shipped, *, look_s: float = LOOK_S, told_s: float = TOLD_S) -> None:
        self._log, self._shipped = directory / SETTLEMENT_LOG, shipped
        self._look_s, self._told_s = look_s, told_s
        self._since = 0.0
        self._waits = ""

    async def wait(self, sequence: int) -> None:
        size, is_told = self._log.stat().st_size, False
        self._since, self._waits = time.monotonic(), "the backup's store has not answered yet"
        try:
            while reason := await self._shipped.lacks(sequence, SETTLEMENT_LOG, size):
                self._waits = reason
                if not is_told and self.waits_s >= self._told_s:
                    is_told = True
                    log.warning("settlement=backup_waits sequence=%d reason=%s", sequence, reason)
                await asyncio.sleep(self._look_s)
            if is_told:
                log.info("settlement=backup_has sequence=%d after_s=%.1f", sequence, self.waits_s)
        finally:
            self._since, self._waits = 0.0, ""

    @property
    def waits(self) -> str:
        return self._waits

    @property
    def waits_s(self) -> float:
        """For how long `wait` has waited; 0.0: it does not."""
        return time.monotonic() - self._since if self._since else 0.0
