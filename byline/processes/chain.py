"""The embedded chain's process: LocalSui, a Sui node of one operator, for an exchange without a network."""

from __future__ import annotations

import asyncio
from typing import Any

from byline.processes.body import report_status
from byline.processes.neighbours import port_before
from byline.processes.operator_key import operator_key
from byline.settings import CHAIN_HOST, Settings
from byline.status_file import StatusFile
from engine.messages.errors import JournalFailed
from settlement.chain.localsui.door import status_of
from settlement.chain.localsui.server import start

__all__ = ["run"]


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    data = settings.data_directory / "chain"
    data.mkdir(parents=True, exist_ok=True)
    port = settings.chain_port or port_before(settings, "chain")
    running = await start(data, operator_key(settings).address, CHAIN_HOST, port)
    door = {"host": CHAIN_HOST, "port": running.port}

    def facts() -> dict[str, Any]:
        if running.node.log.failed:
            raise JournalFailed(f"{running.node.log.path}: {running.node.log.failed}")
        return status_of(running.node, running.faults) | door

    try:
        await report_status(status, stop, facts)
    finally:
        await running.close()
