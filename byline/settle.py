"""`byline settle`: publish the contracts, open vaults, rotate the operator, pause, look, end a halt.

Each command talks to the chain of the settings: the embedded node of a running exchange, or the Sui network that
BYLINE_CHAIN_URL names. Commands that write settlement's own log need the back office stopped, and say so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from byline.bootstrap import open_chain
from byline.settings import Settings
from byline.status_file import read_all_statuses
from engine.messages.errors import Unavailable
from settlement.batch import Listed, Sealed
from settlement.chain.admin import SuiAdmin
from settlement.chain.port import VaultListing
from settlement.store import FileBatchStore, listings
from settlement.watcher import Watcher

__all__ = ["open_vaults", "pause", "publish", "resume", "rotate", "show"]

RESUME_WAIT_S = 30.0


def publish(settings: Settings, console: Console) -> None:
    async def act(chain: SuiAdmin) -> None:
        package, digest = await chain.publish()
        console.print(f"published   [bold]{package}[/]", soft_wrap=True)
        console.print(f"transaction {digest}", soft_wrap=True)
        said = f"now set BYLINE_CHAIN_PACKAGE={package}, and open the vaults: `byline settle open-vault`"
        console.print(said, soft_wrap=True)  # to be copied: never broken, however narrow the terminal

    _run(settings, act)


def open_vaults(settings: Settings, console: Console, assets: list[str]) -> None:
    async def act(chain: SuiAdmin) -> None:
        info = await chain.connect()
        directory = settings.data_directory / "settlement"
        store, watcher = FileBatchStore(directory / "batches.log"), Watcher(directory / "chain.log")
        try:
            known = listings(directory / "batches.log")
            fresh = [asset for asset in assets if asset not in known]
            await watcher.begin(chain, from_the_start=info.executor != "validators")
            numbers = range(len(known) + 1, len(known) + 1 + len(fresh))
            wanted = list(zip(fresh, numbers, strict=True))
            for listing in await chain.open_vaults(wanted, _next_batch(store), list(known.values())):
                store.append(Listed(time.time_ns(), listing))
                known[listing.asset] = listing
            for asset in assets:
                console.print(f"{asset:<8} vault {known[asset].vault}  coin {known[asset].coin_type}", soft_wrap=True)
        finally:
            watcher.close()
            store.close()

    _run(settings, act)


def rotate(settings: Settings, console: Console, to: str | None) -> None:
    async def act(chain: SuiAdmin) -> None:
        info = await chain.connect()
        cap, digest = await chain.rotate(_vaults(settings), to or info.operator)
        console.print(f"operator    [bold]{to or info.operator}[/], capability {cap}", soft_wrap=True)
        console.print(f"transaction {digest}; the old capability counts nowhere any more", soft_wrap=True)

    _run(settings, act)


def pause(settings: Settings, console: Console, paused: bool) -> None:
    async def act(chain: SuiAdmin) -> None:
        await chain.connect()
        digest = await chain.set_paused(_vaults(settings), paused)
        word = "paused: batches queue, owners can still pay in and exit" if paused else "open: queued batches go on"
        console.print(f"{word}\ntransaction {digest}", soft_wrap=True)

    _run(settings, act)


def show(settings: Settings, console: Console) -> bool:
    """Print where settlement and the vaults stand; whether all is well."""
    office = _office(settings)
    halted = office.get("halted", "")
    if office:
        console.print(f"chain     {office['chain']}, executor {office['executor']}, package {office['package']}")
        console.print(f"batches   {office['final_batch']} final, {office['pending_batches']} waiting")
        console.print(f"halted    [bold]{halted}[/]" if halted else "halted    no")
        if office["chain_error"]:
            console.print(f"waiting   {office['chain_error']}")
        for name in ("open_exits", "unclaimed_deposits", "refused_bookings", "unpayable"):
            if office.get(name):
                console.print(f"{name:<9} {len(office[name])}: {office[name]}")
    else:
        console.print("the back office does not run: no batch is settled")

    async def act(chain: SuiAdmin) -> None:
        await chain.connect()
        vaults = _vaults(settings)
        for listing in vaults:
            state = (await chain.vault_states([listing]))[listing.asset]
            word = "paused" if state.paused else "open"
            console.print(f"{listing.asset:<9} vault {listing.vault}: {word}, batch {state.next_batch} next, pool "
                          f"{state.pool} units", soft_wrap=True)  # fmt: skip
        if not vaults:
            console.print("no vault is open yet: the first batch opens them, or `byline settle open-vault`")

    _run(settings, act)
    return bool(office) and not halted


def resume(settings: Settings, console: Console, note: str) -> None:
    """Raises Unavailable: the back office does not answer."""
    run = settings.data_directory / "run"
    request, done = run / "settle-resume.request", run / "settle-resume.done"
    if not _office(settings):
        raise Unavailable("the back office does not run: start the exchange, settlement halts or goes on by itself")
    done.unlink(missing_ok=True)
    partial = request.with_suffix(".new")
    partial.write_text(note)
    partial.replace(request)
    deadline = time.monotonic() + RESUME_WAIT_S
    while not done.exists():
        if time.monotonic() > deadline:
            request.unlink(missing_ok=True)
            raise Unavailable("the back office does not answer")
        time.sleep(0.05)
    console.print(done.read_text())


def _run(settings: Settings, act: Callable[[SuiAdmin], Awaitable[None]]) -> None:
    async def whole() -> None:
        scratch = settings.data_directory / "chain" / f"pysui-settle-{time.time_ns()}"
        chain, signer = await open_chain(settings, scratch)
        try:
            await act(chain)
        finally:
            await chain.close()
            if settings.chain_signer:
                await signer.close()
            _remove(scratch)

    asyncio.run(whole())


def _remove(directory: Path) -> None:
    for path in directory.glob("*"):
        path.unlink()
    directory.rmdir()


def _vaults(settings: Settings) -> list[VaultListing]:
    return list(listings(settings.data_directory / "settlement" / "batches.log").values())


def _next_batch(store: FileBatchStore) -> int:
    return 1 + max((event.batch.number for event in store.events() if isinstance(event, Sealed)), default=0)


def _office(settings: Settings) -> dict[str, Any]:
    status = read_all_statuses(settings.data_directory).get("backoffice")
    settlement: dict[str, Any] = (status or {}).get("settlement") or {}
    return settlement if status and status["alive"] else {}
