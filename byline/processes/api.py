"""The process of REST: reads PostgreSQL's projections, and writes by commands to the core as any client does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from byline.book_port import FollowedBooks
from byline.core_port import GatewayPort
from byline.people import COLUMN_KEYS
from byline.processes.body import first_ends, report_status
from byline.processes.neighbours import port_before, postgres_url
from byline.proof_port import DeskProofs
from byline.settings import API_LIMITS, API_SAME, Settings
from byline.status_file import StatusFile
from byline.status_port import StatusFiles
from engine.messages.errors import Unavailable
from platform_api.app import create_app
from platform_api.logs import configure_logs
from platform_api.settings import ApiSettings

__all__ = ["api_settings", "run", "uvicorn_config"]

API_GARBAGE = (10_000, 20, 20)
"""How many new objects make a collection: an answer has thousands, hardly any of them in a circle."""
SOCKET_MESSAGE_BYTES_MAX = 16 * 1024
"""Of the event socket; the longest request that is one is a token."""


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    configure_logs()
    data = settings.data_directory
    server_socket = _listen(settings.host, settings.api_port or port_before(settings, "api"))
    port = server_socket.getsockname()[1]
    core = GatewayPort(data, settings.host)
    books = FollowedBooks(data, settings.host)
    app = create_app(api_settings(settings, port), core, books, StatusFiles(data), DeskProofs(data))

    class Server(uvicorn.Server):
        """The process has its own signal handlers; uvicorn's would end it before the others are told."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(uvicorn_config(app, settings))

    async def stopper() -> None:
        await stop.wait()
        server.should_exit = True

    async def report() -> None:
        while not server.started and not stop.is_set():
            await asyncio.sleep(0.02)
        gc.collect()
        gc.freeze()  # routes and types stay: the collector need not walk them again
        gc.set_threshold(*API_GARBAGE)
        await report_status(status, stop, facts)

    def facts() -> dict[str, Any]:
        disk = shutil.disk_usage(data)
        return {
            "host": settings.host, "port": port, "core": dict(core.status()),
            "disk_bytes": disk.total, "disk_free_bytes": disk.free,
        }  # fmt: skip

    async def serve() -> None:
        await server.serve(sockets=[server_socket])
        if not server.started:
            raise Unavailable("the API did not start: the lines above say why")

    try:
        await core.start()
        await books.start()
        await first_ends(stop, serve(), stopper(), report())
    finally:
        await core.close()
        await books.close()


def api_settings(settings: Settings, port: int) -> ApiSettings:
    """Those of a process of REST that listens at `port`."""
    data = settings.data_directory
    web = Path(__file__).parents[2] / "web" / "terminal"
    return ApiSettings(
        postgres_dsn=postgres_url(settings),
        listens_at=f"{settings.host}:{port}",
        cors_origins=settings.cors_origins(),
        chain="sui:embedded" if not settings.chain_url else "sui",
        signing_key_path=data / "keys" / "access-token.key",
        column_keys_path=data / COLUMN_KEYS,
        mail_folder=data / "mail",
        blob_url=settings.blob_url or (data / "blobs").as_uri(),
        web_folder=web if (web / "index.html").exists() else None,
        embedded=not settings.chain_url,
        test_payments=not settings.chain_url,
        faucet={"USDC": "10000", "INK": "100"} if not settings.chain_url else {},
        withdrawal_fees=settings.fees(),
        session_seconds=settings.session_hours * 3_600,
        **{name: getattr(settings, name) for name in API_SAME},
        **{name.removeprefix("api_"): getattr(settings, name) for name in API_LIMITS},
    )


def uvicorn_config(app: Any, settings: Settings) -> uvicorn.Config:
    """How REST is served. Limits, audit and sessions go by the client's address, so a header says it only if a proxy
    that the settings name has sent it; uvicorn alone would believe every process of this machine."""
    proxies = settings.proxies()
    return uvicorn.Config(
        app, loop="none", http="httptools", ws="websockets-sansio", ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False, lifespan="on", log_level="warning", access_log=False,
        proxy_headers=bool(proxies), forwarded_allow_ips=list(proxies),
    )  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(512)
    listener.setblocking(False)
    return listener
