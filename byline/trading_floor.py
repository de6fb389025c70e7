"""The process of the simulated traders: decisions of `byline.traders`, sent as ordinary clients at a steady rate.

Each trader has its own account, API key and session. The rate is kept by a plan (order n is due at n / rate), so a
pause is caught up in small steps and never becomes a flood. A lost connection is opened again; what was open then is
taken for unknown and canceled with one `mass_cancel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client import CommandError, ConnectionLost, TradingClient, generate_key, load_key, public_key
from byline.operator import gateway_url, open_operator
from byline.settings import Settings
from byline.status_file import StatusFile
from byline.traders import ACCOUNT_COUNT, Crowd, account_name
from engine.messages.errors import Unavailable
from files.durable import make_once

__all__ = ["kept_key", "trade"]

logger = logging.getLogger(__name__)

CATCH_UP_MAX = 50  # orders sent at once after a pause
IN_FLIGHT_MAX = 256
RETRY_S = 0.5
STATUS_EVERY_S = 0.5
_CLOSING = ("canceled", "trade")


async def trade(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    """Trades until `stop` is set."""
    crowd = Crowd(settings.seed, f"{int(time.time()):x}")
    counts = {"sent": 0, "accepted": 0, "rejected": 0, "errors": 0, "reconnects": -1}
    while not stop.is_set():
        try:
            counts["reconnects"] += 1
            await _session(settings, crowd, counts, status, stop)
        except (ConnectionLost, OSError, Unavailable) as error:  # Unavailable: the core is down and comes back
            logger.warning("event=traders_disconnected error=%s", error)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_S)


async def _session(
    settings: Settings, crowd: Crowd, counts: dict[str, int], status: StatusFile, stop: asyncio.Event
) -> None:
    keys = [kept_key(settings.data_directory, f"simulated-{number}") for number in range(1, ACCOUNT_COUNT + 1)]
    await register(settings, {account_name(number): key for number, key in enumerate(keys, start=1)})
    url = gateway_url(settings)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await TradingClient.connect(url, key)) for key in keys]
        for client in clients:
            await client.mass_cancel()
        readers = [
            asyncio.create_task(_follow(client, crowd, number)) for number, client in enumerate(clients, start=1)
        ]
        sending: set[asyncio.Task[None]] = set()
        try:
            started, planned, reported = time.monotonic(), 0, 0.0
            while not stop.is_set():
                now = time.monotonic()
                due = int((now - started) * settings.trader_orders_per_s) - planned
                for _ in range(min(due, CATCH_UP_MAX, IN_FLIGHT_MAX - len(sending))):
                    action = crowd.next_action()
                    task = asyncio.create_task(_send(clients[action.trader - 1], crowd, action, counts))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                planned += due
                if now - reported > STATUS_EVERY_S:
                    status.write(ready=True, rate=settings.trader_orders_per_s, **counts)
                    reported = now
                if any(reader.done() for reader in readers):
                    raise ConnectionLost("a session ended")
                await asyncio.sleep(0.01)
            await asyncio.gather(*sending)
        finally:
            for task in (*readers, *sending):
                task.cancel()
            await asyncio.gather(*readers, *sending, return_exceptions=True)


async def _send(client: TradingClient, crowd: Crowd, action: Any, counts: dict[str, int]) -> None:
    counts["sent"] += 1
    try:
        answer = await client.request(action.command)
    except CommandError as error:
        counts["errors"] += 1
        logger.warning("event=command_refused code=%s command=%s", error.code, action.command)
        return
    except ConnectionLost:  # the session's reader has ended too, and `_session` goes on from there
        crowd.closed(action.trader, str(action.command["client_id"]))
        return
    if answer.get("event") == "rejected":
        counts["rejected"] += 1
        crowd.closed(action.trader, str(action.command["client_id"]))
    else:
        counts["accepted"] += 1


async def _follow(client: TradingClient, crowd: Crowd, trader: int) -> None:
    """Tells the crowd which of its orders are no longer open."""
    name = account_name(trader)
    async for event in client.events():
        kind = event.get("event")
        if kind == "canceled":
            crowd.closed(trader, event["client_id"])
        elif kind == "trade":
            for who in ("maker", "taker"):
                if event.get(f"{who}_account") == name and event[f"{who}_leaves"] == "0":
                    crowd.closed(trader, event[f"{who}_client_id"])


async def register(settings: Settings, keys: dict[str, Ed25519PrivateKey], tier: str = "unlimited") -> None:
    """Registers a trading key per account; one that is registered already is left as it is."""
    async with open_operator(settings) as operator:
        for account, key in keys.items():
            try:
                label = f"key of {account}"
                await operator.register_key(public_key(key), [account], ["read", "trade"], label, tier=tier)
            except CommandError as error:
                if error.code != "exists":
                    raise


def kept_key(data_directory: Path, name: str) -> Ed25519PrivateKey:
    """The private key DATA/keys/NAME.key, made at first use with mode 0600."""
    path = data_directory / "keys" / f"{name}.key"
    try:
        return load_key(path.read_text())
    except FileNotFoundError:
        make_once(path, generate_key().private_bytes_raw().hex().encode() + b"\n", mode=0o600)
        return load_key(path.read_text())
