"""`byline settle`: publish the contracts, open vaults, rotate the operator, pause, look, end a halt.

Each command talks to the chain of the settings: the embedded node of a running exchange, or the Sui network that
BYLINE_CHAIN_URL names. `open_vaults` writes settlement's own log and needs the exchange stopped; it runs the embedded
node itself meanwhile. What cannot be taken back is asked for first: a second package, a capability for another's key.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from byline.processes.chain_access import open_chain
from byline.processes.operator_key import operator_key
from byline.request_file import RequestFile
from byline.running import find_process, running_process
from byline.settings import Settings
from byline.status_file import read_all_statuses
from byline.status_table import WAITS
from engine.messages import layout
from engine.messages.codes import CommandKind, EventKind
from engine.messages.errors import Refused, SettingsInvalid, Unavailable
from persistence.disk import DirectoryLock
from persistence.event_log import EventLogReader
from settlement.appendlog import AppendLog
from settlement.batch import Listed, Sealed
from settlement.chain.admin import SuiAdmin
from settlement.chain.localsui.server import start
from settlement.chain.port import VaultListing
from settlement.ledger import head_positions
from settlement.store import FileBatchStore, last_sealed, listings
from settlement.watcher import Watcher

__all__ = ["open_vaults", "pause", "publish", "resume", "rotate", "show"]

RESUME_WAIT_S = 30.0
LOGS = ("batches.log", "chain.log", "brake.log")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{64}")


def publish(settings: Settings, console: Console, *, yes: bool) -> None:
    """Raises Refused: the key operates a package already, and nobody agreed to a second one."""

    async def act(chain: SuiAdmin) -> None:
        if owned := await chain.operated():
            console.print(
                f"this key operates {', '.join(owned)} already. Another package is another exchange: vaults that are "
                "open stay with theirs.",
                soft_wrap=True,
            )
            _agree(console, "Publish another one?", yes, "nothing was published")
        package, digest = await chain.publish()
        console.print(f"published   [bold]{package}[/]", soft_wrap=True)
        console.print(f"transaction {digest}", soft_wrap=True)
        if _vaults(settings):
            said = "the open vaults go on with their own package; this one is for an exchange in another data directory"
        else:
            said = f"now set BYLINE_CHAIN_PACKAGE={package}, and start the exchange: it opens the vaults"
        console.print(said, soft_wrap=True)  # to be copied: never broken, however narrow the terminal

    _run(settings, act)


def open_vaults(settings: Settings, console: Console, assets: list[str]) -> None:
    """Raises Refused: not an asset of this exchange, or the exchange runs."""
    if running := [name for name, status in read_all_statuses(settings.data_directory).items() if status["alive"]]:
        raise Refused(
            f"the exchange runs on {settings.data_directory} ({', '.join(running)}), and opens each vault itself at "
            "the first batch with the asset; to open one ahead of that, stop it first"
        )
    _check_assets(settings, assets)

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

    _run(settings, act, with_node=not settings.chain_url)


def rotate(settings: Settings, console: Console, to: str | None, *, yes: bool) -> None:
    """Raises SettingsInvalid: `to` is no address. Refused: it is another's than our key's, and nobody agreed."""
    if to is not None and not _ADDRESS.fullmatch(to):
        raise SettingsInvalid(f"--to {to!r}: a Sui address is 0x and exactly 64 hex digits")

    async def act(chain: SuiAdmin) -> None:
        info = await chain.connect()
        if to is not None and to.lower() != info.operator:
            console.print(
                f"the capability goes to {to.lower()}, and this exchange's key is {info.operator}: no batch is settled "
                "until the exchange runs with that address's key. If nobody has it, settlement stands still.",
                soft_wrap=True,
            )
            _agree(console, "Hand it over?", yes, "nothing was rotated")
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
        if office["package"]:
            console.print(f"chain     {office['chain']}, executor {office['executor']}, package {office['package']}")
        else:
            console.print("chain     not reached yet")
        console.print(f"batches   {office['final_batch']} final, {office['pending_batches']} waiting")
        console.print(f"halted    [bold]{halted}[/]" if halted else "halted    no")
        for name, _ in WAITS:
            if office[name]:
                console.print(f"waiting   {office[name]}", soft_wrap=True)
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

    try:
        _check_chain(settings)
    except Unavailable as absent:
        console.print(f"no vault can be asked without a chain: {absent}", soft_wrap=True)
    else:
        _run(settings, act)
    return bool(office) and not halted


def resume(settings: Settings, console: Console, note: str) -> None:
    """Raises Unavailable: the back office does not run, or does not answer."""
    running_process(settings.data_directory, "backoffice")
    unanswered = "the back office does not answer: `byline status`, and see DATA/logs/backoffice.log"
    request = RequestFile(settings.data_directory, "settle-resume")
    console.print(request.ask(note, wait_s=RESUME_WAIT_S, unanswered=unanswered))


def mend_logs(settings: Settings, console: Console) -> None:
    """Raises DataDirectoryBusy: the exchange runs; JournalCorrupt: damage that no crash makes; JournalFailed;
    Unavailable: nothing was ever settled there."""
    if not (settings.data_directory / "settlement").is_dir():
        raise Unavailable(f"{settings.data_directory} has no logs of settlement: --data names the directory")
    with DirectoryLock(settings.data_directory / "lock"):
        for name in LOGS:
            path = settings.data_directory / "settlement" / name
            if not path.exists():
                continue
            before = path.stat().st_size
            AppendLog(path).close()  # opening is what mends
            cut = before - path.stat().st_size
            console.print(f"{path}: {f'{cut:,} bytes cut off its end' if cut else 'its end is whole'}", soft_wrap=True)


def _run(settings: Settings, act: Callable[[SuiAdmin], Awaitable[None]], *, with_node: bool = False) -> None:
    """`with_node`: the exchange is stopped, the embedded chain's node runs here for as long as this takes.

    Raises Unavailable: there is no exchange whose embedded node could be asked.
    """
    if not with_node:
        _check_chain(settings)

    async def whole() -> None:
        scratch = settings.data_directory / "chain" / f"pysui-settle-{time.time_ns()}"
        async with contextlib.AsyncExitStack() as stack:
            url = ""
            if with_node:
                scratch.parent.mkdir(parents=True, exist_ok=True)
                node = await start(scratch.parent, operator_key(settings).address)
                stack.push_async_callback(node.close)
                url = f"http://127.0.0.1:{node.port}"
            stack.callback(_remove, scratch)
            chain, signer = await open_chain(settings, scratch, url)
            if settings.chain_signer:
                stack.push_async_callback(signer.close)
            stack.push_async_callback(chain.close)
            await act(chain)

    asyncio.run(whole())


def _check_chain(settings: Settings) -> None:
    """Raises Unavailable: there is no node to ask, a network's or that of a running exchange."""
    if not settings.chain_url:
        running_process(settings.data_directory, "chain", instead="or name a network (BYLINE_CHAIN_URL)")


def _agree(console: Console, question: str, yes: bool, else_: str) -> None:
    """Raises Refused."""
    if not yes and not (console.is_terminal and console.input(f"{question} Type yes: ").strip() == "yes"):
        raise Refused(f"{else_}: give --yes, or type yes where it asks")


def _check_assets(settings: Settings, assets: list[str]) -> None:
    """A vault's first batch is the next one, so the next one must know the asset. Raises Refused with what is wrong."""
    directory = settings.data_directory / "events"
    listed: dict[str, int] = {}
    sealed = last_sealed(settings.data_directory / "settlement" / "batches.log")[1]
    waiting = 0
    if directory.exists():
        reader = EventLogReader(directory)
        while len(slots := reader.read()):
            heads = slots[head_positions(slots)]
            told = heads[(heads["kind"] == EventKind.DONE) & (heads["op"] == CommandKind.ASSET)].view(layout.DONE_ASSET)
            listed |= {bytes(asset["name"]).decode(): int(asset["sequence"]) for asset in told if asset["settled"]}
            cuts = heads["sequence"][(heads["kind"] == EventKind.CUT) & (heads["sequence"] > sealed)]
            waiting = waiting or (int(cuts[0]) if len(cuts) else 0)
    for asset in assets:
        if asset not in listed:
            raise Refused(
                f"{asset} is no settled asset that this exchange listed: {', '.join(sorted(listed)) or 'none yet'}. "
                "What `byline up` lists gets its vault with its first batch"
            )
        if waiting and listed[asset] > waiting:
            raise Refused(f"batches from before {asset} was listed wait: let the exchange settle them first")


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _vaults(settings: Settings) -> list[VaultListing]:
    return list(listings(settings.data_directory / "settlement" / "batches.log").values())


def _next_batch(store: FileBatchStore) -> int:
    return 1 + max((event.batch.number for _, event in store.events() if isinstance(event, Sealed)), default=0)


def _office(settings: Settings) -> dict[str, Any]:
    """What it tells of settlement; nothing, while it does not run."""
    settlement: dict[str, Any] = (find_process(settings.data_directory, "backoffice") or {}).get("settlement") or {}
    return settlement
