"""The operator's own client: genesis, tools and tests talk to a running exchange through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from byline.client import TradingClient, load_key
from byline.request_file import RequestFile
from byline.running import running_exchange, running_process
from byline.settings import Settings
from byline.supervisor import NO_CHILD
from engine.messages.errors import Refused, Unavailable

__all__ = ["gateway_url", "open_operator", "request_restart", "request_snapshot", "send_all"]

SNAPSHOT_WAIT_S = 120.0
RESTART_WAIT_S = 10.0
_HARMLESS = ("exists",)


def gateway_url(settings: Settings) -> str:
    """The order entry of the exchange that runs on the data directory.

    Raises:
        Unavailable: none runs there, or its core does not.
    """
    status = running_process(settings.data_directory, "core")
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
    unanswered = (
        f"the core wrote no snapshot in {SNAPSHOT_WAIT_S:g} s: `byline status` tells whether it hangs, and "
        f"{settings.data_directory}/logs/core.log what it said"
    )
    answer = RequestFile(settings.data_directory, "snapshot").ask("", wait_s=SNAPSHOT_WAIT_S, unanswered=unanswered)
    sequence, _, path = answer.partition(" ")
    if sequence == "-":
        raise Unavailable(f"the core wrote no snapshot: {path}")
    return {"sequence": int(sequence), "path": path, "size_bytes": (settings.data_directory / path).stat().st_size}


def request_restart(settings: Settings, name: str) -> str:
    """Asks the supervisor of the running exchange to start a process again. Returns the state that it was in.

    Raises:
        Refused: this exchange has no process of that name; and which it has.
        Unavailable: no exchange runs there, or its processes without a supervisor.
    """
    there = running_exchange(settings.data_directory)
    if not name.replace("_", "").isalnum():
        raise Refused(f"name: {name!r} names no process: use one of {', '.join(there)}")
    unanswered = f"nobody answers for a process {name}: is `byline up` running? It has told of {', '.join(there)}"
    answer = RequestFile(settings.data_directory, f"restart-{name}").ask(
        "", wait_s=RESTART_WAIT_S, unanswered=unanswered
    )
    if answer.startswith(NO_CHILD):
        raise Refused(f"name: {name!r} names no process: use one of {answer.removeprefix(NO_CHILD)}")
    return answer
