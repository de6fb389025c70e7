"""The fault door: every switch of a running node by name, for tests in the process and for people at a shell.

A Unix socket `faults.sock` in the chain's directory (mode 0600) takes one JSON line and answers with one:

    {"switch": "lost_response", "value": "2"}  →  the status, or {"error": "…"}
    {}                                         →  the status

Only nodes that are asked to open it have one; the exchange's own node does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from engine.messages.errors import SettingsInvalid
from settlement.chain.encoding import address_bytes, address_text
from settlement.chain.localsui.faults import CALL_FAULTS, Faults
from settlement.chain.localsui.node import REFERENCE_GAS_PRICE_MIST, LocalSui, Rejected

__all__ = ["SOCKET", "SWITCHES", "ask", "flip", "open_door", "status_of"]

SOCKET = "faults.sock"
OTHER_OPERATOR = b"\xfe" * 32
_Switch = Callable[[LocalSui, Faults, str], Awaitable[None] | None]


def _on(value: str) -> bool:
    if value not in ("on", "off"):
        raise ValueError(f"{value!r} must be on or off")
    return value == "on"


def _next(name: str) -> _Switch:
    def switch(node: LocalSui, faults: Faults, value: str) -> None:
        faults.plan(name, int(value or 1))

    return switch


def _set(field: str, read: Callable[[str], Any]) -> _Switch:
    def switch(node: LocalSui, faults: Faults, value: str) -> None:
        setattr(node if hasattr(node, field) else faults, field, read(value))

    return switch


def _chance(node: LocalSui, faults: Faults, value: str) -> None:
    chances = {}
    for piece in filter(None, value.split(",")):
        name, _, chance = piece.partition("=")
        if name not in CALL_FAULTS or not 0 <= float(chance) <= 1:
            raise ValueError(f"{piece!r} must be FAULT=PROBABILITY")
        chances[name] = float(chance)
    if sum(chances.values()) > 1:
        raise ValueError("the probabilities add up to more than 1")
    faults.chances = chances


def _seed(node: LocalSui, faults: Faults, value: str) -> None:
    faults.dice = random.Random(int(value))


def _stale_read(node: LocalSui, faults: Faults, value: str) -> None:
    if _on(value):
        faults.freeze_reads(node)
    else:
        faults.thaw_reads()


def _epoch(node: LocalSui, faults: Faults, value: str) -> None:
    for _ in range(int(value or 1)):
        node.next_epoch()


def _gas_price(node: LocalSui, faults: Faults, value: str) -> None:
    node.set_gas_price(int(value))


async def _paused(node: LocalSui, faults: Faults, value: str) -> None:
    await node.administer(paused=_on(value))


async def _operator(node: LocalSui, faults: Faults, value: str) -> None:
    known = {"other": OTHER_OPERATOR, "own": node.operator_cap}
    await node.administer(operator=known.get(value) or address_bytes(value))


async def _clear(node: LocalSui, faults: Faults, value: str) -> None:
    faults.next_execute.clear()
    faults.chances = {}
    faults.unavailable = False
    faults.thaw_reads()
    faults.release()
    node.old_locks, node.checkpoint_lag_s = False, 0.0
    if node.turn.locks:
        node.next_epoch()
    if node.turn.gas_price != REFERENCE_GAS_PRICE_MIST:
        node.set_gas_price(REFERENCE_GAS_PRICE_MIST)
    if any(vault.header.paused for vault in node.state.vaults.values()):
        await node.administer(paused=False)
    if any(vault.header.operator == OTHER_OPERATOR for vault in node.state.vaults.values()):
        await node.administer(operator=node.operator_cap)


SWITCHES: dict[str, tuple[str, str, _Switch]] = {
    # name: value, what it does, how
    "lost_request": ("[N]", "the next N transactions do not arrive (UNAVAILABLE)", _next("lost_request")),
    "lost_response": ("[N]", "the next N take effect, the answer is lost (DEADLINE_EXCEEDED)", _next("lost_response")),
    "hang": ("[N]", "the next N take effect, the answer comes after hang_s", _next("hang")),
    "delay": ("[N]", "the next N wait delay_s before they take effect", _next("delay")),
    "refuse_once": ("[N]", "the next N are refused (FAILED_PRECONDITION), nothing happens", _next("refuse_once")),
    "chance": ("FAULT=P,…", "any of these at random, e.g. lost_request=0.1,lost_response=0.1; empty: none", _chance),
    "seed": ("N", "where the chances' dice begin", _seed),
    "hang_s": ("SECONDS", "how long `hang` lasts", _set("hang_s", float)),
    "delay_s": ("SECONDS", "how long `delay` lasts", _set("delay_s", float)),
    "unavailable": ("on|off", "every method answers UNAVAILABLE", _set("unavailable", _on)),
    "stale_read": ("on|off", "reads show this moment, execution goes on", _stale_read),
    "checkpoint_lag": ("SECONDS", "how late a transaction gets its checkpoint", _set("checkpoint_lag_s", float)),
    "epoch": ("[N]", "turn the epoch N times: old transactions expire, locks end", _epoch),
    "gas_price": ("MIST", "set the reference gas price", _gas_price),
    "old_locks": ("on|off", "a lost request locks its objects to its own bytes for the epoch", _set("old_locks", _on)),
    "paused": ("on|off", "the administrator pauses every vault", _paused),
    "operator": ("other|own|0xID", "the administrator names another capability in every vault", _operator),
    "clear": ("", "all switches off, waits end, gas price and operator as before", _clear),
}


async def flip(node: LocalSui, faults: Faults, name: str, value: str = "") -> None:
    """Flip one switch. ValueError if there is no such switch or the value does not fit."""
    if name not in SWITCHES:
        raise ValueError(f"no switch {name!r}; there are {', '.join(SWITCHES)}")
    done = SWITCHES[name][2](node, faults, value)
    if done is not None:
        await done


def status_of(node: LocalSui, faults: Faults) -> dict[str, Any]:
    """What the node is and which switches are on."""
    genesis = node.state.genesis
    return {
        "chain": "embedded (not a network)",
        "executor": node.executor_name,
        "chain_id": genesis.chain_id,
        "package": address_text(genesis.package),
        "operator": address_text(genesis.operator),
        "transactions": node.state.checkpoint,
        "checkpoint": node.height,
        "epoch": node.epoch,
        "gas_price_mist": node.turn.gas_price,
        "locked_objects": len(node.turn.locks),
        "vaults": {
            address_text(identity): {
                "coin_type": vault.coin_type, "next_batch": vault.header.next_seq, "paused": vault.header.paused,
                "operator": address_text(vault.header.operator), "pool": vault.header.pool,
                "deficit": vault.header.deficit,
            }
            for identity, vault in node.state.vaults.items()
        },
        "switches": {
            "next": list(faults.next_execute), "chance": faults.chances, "hang_s": faults.hang_s,
            "delay_s": faults.delay_s, "unavailable": faults.unavailable, "stale_read": faults.is_stale,
            "checkpoint_lag": node.checkpoint_lag_s, "old_locks": node.old_locks,
        },
    }  # fmt: skip


async def open_door(directory: Path, node: LocalSui, faults: Faults) -> asyncio.Server:
    """Listen on `directory/faults.sock`. Raises SettingsInvalid where the path is too long for a socket."""
    path = directory / SOCKET
    path.unlink(missing_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.LimitOverrunError):  # whoever asked is gone
            reply: dict[str, Any]
            try:
                request = json.loads(await reader.readline() or b"{}")
                if request.get("switch"):
                    await flip(node, faults, str(request["switch"]), str(request.get("value", "")))
                reply = status_of(node, faults)
            except (ValueError, AttributeError, Rejected) as error:
                reply = {"error": str(error)}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_unix_server(answer, path)
    except OSError as error:
        raise SettingsInvalid(f"{path}: no socket for the fault switches there: {error}") from error
    os.chmod(path, 0o600)
    return server


async def ask(directory: Path, switch: str = "", value: str = "") -> dict[str, Any]:
    """Flip a switch of the node that runs in `directory` (none: only ask), and get its status or `error`.

    Raises OSError if no node with a door runs there.
    """
    reader, writer = await asyncio.open_unix_connection(directory / SOCKET)
    try:
        writer.write(json.dumps({"switch": switch, "value": value} if switch else {}).encode() + b"\n")
        reply: dict[str, Any] = json.loads(await reader.readline())
        return reply
    finally:
        writer.close()
