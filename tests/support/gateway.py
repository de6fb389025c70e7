"""A whole order entry on a temporary directory: real journal, event log, engine, sockets. For tests and benches."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from byline.client import TradingClient, generate_key, public_key
from engine.core import Core, CoreLimits
from gateway.keys import KeyRegistry, load_or_create_key, public_hex
from gateway.sequencer import Sequencer
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from persistence.disk import DirectoryDisk, SystemClock
from persistence.event_log import EventLogReader, EventLogWriter
from persistence.journal import Journal, JournalSettings, new_tail
from persistence.recovery import recover

MARKET = "CRT-USD"


@dataclass
class Exchange:
    server: GatewayServer
    core: Core
    sequencer: Sequencer
    journal: Journal
    keys: KeyRegistry
    operator: object
    url: str
    root: Path

    async def client(self, key: object, **options: object) -> TradingClient:
        return await TradingClient.connect(self.url, key, **options)

    async def trader(
        self, operator: TradingClient, name: str, scopes: tuple[str, ...] = ("trade", "read"), money: bool = True,
        **restrictions: object,
    ):  # fmt: skip
        """A new account with money, and the key for it."""
        await operator.command("account", account=name)
        if money:
            await operator.command("deposit", account=name, asset="USD", amount="1000000", ref=f"usd-{name}")
            await operator.command("deposit", account=name, asset="CRT", amount="1000000", ref=f"crt-{name}")
        key = generate_key()
        restrictions = {"tier": "unlimited"} | restrictions
        await operator.register_key(public_key(key), [name], list(scopes), name, **restrictions)
        return key


@asynccontextmanager
async def exchange(
    root: Path, *, listed: bool = True, disk: DirectoryDisk | None = None, limits: CoreLimits | None = None,
    restart: bool = False, segment_bytes: int = 4 << 20, ring_slots: int = 65_536, threads: bool = True,
    **settings: object,
):  # fmt: skip
    """Started and, if `listed`, with CRT, USD and their market. `restart`: from what an earlier one left in `root`.

    `threads` False: the journal has no writer of its own but `step`, which the caller runs.
    """
    wanted = GatewaySettings(**({"port": 0, "batch_interval_s": 0, "epoch": 2 if restart else 1} | settings))
    disk = DirectoryDisk(root) if disk is None else disk
    (root / "keys").mkdir(exist_ok=True)
    clock = SystemClock()
    journal_settings = JournalSettings(mode=wanted.ack_mode, segment_bytes=segment_bytes, ring_slots=ring_slots)
    if restart:
        recovered = recover(root, limits=limits, settings=journal_settings, clock=clock, threads=threads)
        journal, events, core = recovered.journal, recovered.event_log, recovered.core
    else:
        recovered = None
        journal = Journal(disk, new_tail(), clock, journal_settings, threads=threads)
        events = EventLogWriter(root / "events", journal.identity, b"\0" * 16)
        core = Core(limits)
    keys = KeyRegistry(disk)
    operator = load_or_create_key(root / "keys" / "operator.key")
    keys.register(public_hex(operator), [], ["operator"], "operator", 0)
    sequencer = Sequencer(
        core, clock, journal, events, durable_acks=wanted.ack_mode == "durable", pending_max=wanted.pending_max,
        journal_reserve_slots=wanted.journal_reserve_slots, chain=journal.chain,
    )  # fmt: skip
    server = GatewayServer(
        wanted, sequencer, journal, core, keys, clock, lambda: EventLogReader(root / "events"),
        load_or_create_key(root / "keys" / "receipts.key"),
    )  # fmt: skip
    host, port = await server.start()
    running = Exchange(server, core, sequencer, journal, keys, operator, f"ws://{host}:{port}", root)
    try:
        if listed and not restart:
            async with await running.client(operator) as client:
                await client.command("asset", asset="USD", scale=6)
                await client.command("asset", asset="CRT", scale=2)
                await client.command("market", market=MARKET, base="CRT", quote="USD", tick="0.01", lot="0.1")
        yield running
    finally:
        await server.stop()
        if recovered is None:
            journal.close()
            events.close()
        else:
            recovered.close()
        keys.close()
