"""The relay's process: hands the event log to NATS, for market data on other hosts."""

from __future__ import annotations

import asyncio
from typing import Any

from byline.processes.body import first_ends, report_status
from byline.processes.event_source import event_source
from byline.settings import Settings
from byline.status_file import StatusFile
from marketdata.relay import run_relay
from persistence.chain_words import ChainWords
from persistence.disk import DirectoryDisk

__all__ = ["run"]


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    facts: dict[str, Any] = {}
    disk = DirectoryDisk(settings.data_directory)
    await first_ends(
        stop,
        run_relay(
            settings.relay_url, lambda: event_source(settings), lambda: ChainWords(disk).word, stop, facts
        ),
        report_status(status, stop, lambda: facts),
    )
