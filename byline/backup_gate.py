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
        self._is_told = False

    async def wait(self, sequence: int) -> None:
        size = self._log.stat().st_size
        self._since, self._waits, self._is_told = time.monotonic(), "the backup's store has not answered yet", False
        # by the clock, not between two looks: a store that hangs holds one look up for minutes
        telling = asyncio.get_running_loop().call_later(self._told_s, self._tell, sequence)
        try:
            while reason := await self._shipped.lacks(sequence, SETTLEMENT_LOG, size):
                self._waits = reason
                await asyncio.sleep(self._look_s)
            if self._is_told:
                log.info("settlement=backup_has sequence=%d after_s=%.1f", sequence, self.waits_s)
        finally:
            telling.cancel()
            self._since, self._waits = 0.0, ""

    def _tell(self, sequence: int) -> None:
        self._is_told = True
        log.warning("settlement=backup_waits sequence=%d reason=%s", sequence, self._waits)

    @property
    def waits(self) -> str:
        return self._waits

    @property
    def waits_s(self) -> float:
        """For how long `wait` has waited; 0.0: it does not."""
        return time.monotonic() - self._since if self._since else 0.0
