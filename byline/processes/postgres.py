"""The database's process: the embedded PostgreSQL, with the schema of this version before anybody reads it."""

from __future__ import annotations

import asyncio
from typing import Any

from byline.embedded.postgres import EmbeddedPostgres
from byline.processes.body import report_status
from byline.settings import Settings
from byline.status_file import StatusFile
from engine.messages.errors import LocalFault
from persistence.stores.postgres.migrate import migrate

__all__ = ["run"]


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    server = EmbeddedPostgres(settings.data_directory / "postgres")
    server.start()
    try:
        await migrate(server.dsn)

        def facts() -> dict[str, Any]:
            if not server.is_running():
                raise LocalFault("the database server ended; its log is in DATA/postgres")
            return {"url": server.dsn, "server": str(server.binaries), "postgres_pid": server.pid}

        await report_status(status, stop, facts)
    finally:
        server.stop()
