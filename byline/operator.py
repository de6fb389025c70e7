"""The operator's own client: genesis, tools and tests talk to a running exchange through it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from byline.client import TradingClient, load_key
from byline.settings import Settings
from byline.status_file import read_all_statuses
from engine.messages.errors import ExchangeError, Refused, Unavailable

__all__ = ["gateway_url", "open_operator", "request_snapshot", "send_all"]

SNAPSHOT_WAIT_S = 120.0
_HARMLESS = ("exists",)


def gateway_url(settings: Settings) -> str:
    """The order entry of the exchange that runs on the data directory.

    Raises:
        Unavailable: none runs there.
    """
    status = read_all_statuses(settings.data_directory).get("core")
    if status is None or not (status["alive"] and status["ready"]):
        raise Unavailable(f"no exchange runs on {settings.data_directory}: start one with `byline up` or `make run`")
    return f"ws://{status['host']}:{status['port']}/v1/ws/trade"


@asynccontextmanager
async def open_operator(settings: Settings) -> AsyncIterator[TradingClient]:
    """A client signed in with the operator's key of the data directory."""
    url = gateway_url(settings)
    key = load_key((settings.data_directory / "keys" / "operator.key").read_text())
    async with await TradingClient.connect(url, key) as client:
        yield client


async def send_all(client: TradingClient, commands: Iterable[dict[str, Any]]) -> None:
    """Sends set-up commands in order. What was done before is no error.

    Raises:
        Refused: the core rejected one for another reason.
    """
    for command in commands:
        answer = await client.request(command)
        if answer.get("event") == "rejected" and answer["reason"] not in _HARMLESS:
            raise Refused(f"{command}: {answer['reason']}")


def request_snapshot(settings: Settings) -> dict[str, Any]:
    """Asks the running core for a snapshot and waits for it. Returns sequence, path and size_bytes.

    Raises:
        Unavailable: no core runs, it did not answer, or it could not write one.
    """
    gateway_url(settings)
    request = settings.data_directory / "run" / "snapshot.request"
    done = request.with_suffix(".done")
    done.unlink(missing_ok=True)
    request.touch()
    deadline = time.monotonic() + SNAPSHOT_WAIT_S
    while not done.exists():
        if time.monotonic() > deadline:
            request.unlink(missing_ok=True)
            raise Unavailable("the core wrote no snapshot; see DATA/logs/core.log")
        time.sleep(0.05)
    sequence, _, path = done.read_text().partition(" ")
    done.unlink()
    if sequence == "-":
        raise Unavailable(f"the core wrote no snapshot: {path}")
    if not path:
        raise ExchangeError("the core's answer is cut short")
    return {"sequence": int(sequence), "path": path, "size_bytes": (settings.data_directory / path).stat().st_size}
