"""The back office's process: what becomes of trades once they are made.

    event log ─┬▶ projector ─▶ PostgreSQL: what people see
               ├▶ settler ─▶ one batch a cut ─▶ chain       told again to projector, desk and notices when final
               └▶ brake: no withdrawal leaves the core while too much is unsettled
    PostgreSQL ─┬▶ desk of withdrawals ─▶ core, settler
                └▶ desk of the registry ─▶ copyrights and licences on the chain

One that dies takes up where its logs (DATA/settlement) and its projection end; nothing is told by halves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from byline.core_port import GatewayPort
from byline.journal_publication import keep_batch_file
from byline.processes.body import STATUS_INTERVAL_S, first_ends, report_progress, report_status
from byline.processes.chain_access import open_chain, open_rights
from byline.processes.event_source import event_source
from byline.processes.neighbours import postgres_url
from byline.processes.office_ports import Audit, Bookings, backup_gate, batch_row, known_batches
from byline.rebuild import REQUEST
from byline.request_file import RequestFile
from byline.settings import Settings
from byline.settled_notices import SettledNotices
from byline.status_file import StatusFile
from persistence.chain_words import ChainWords
from persistence.disk import DirectoryDisk
from persistence.stores.postgres.projector import Projector
from platform_api.database import Database
from platform_api.registry.service import registry_desk
from platform_api.settlement.desk import WithdrawalDesk
from settlement.brake import Brake
from settlement.chain.purse import Purse
from settlement.proof_desk import ProofSettings, load_proof_key, serve_proofs
from settlement.publication import published
from settlement.settler import BatchRecord, SettlementSettings, Settler, run_settler
from settlement.store import FileBatchStore
from settlement.watcher import Watcher

__all__ = ["run"]

logger = logging.getLogger(__name__)


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    data = settings.data_directory
    core = GatewayPort(data, settings.host)
    events = await event_source(settings)
    rebuild = data / REQUEST
    projector = Projector(
        events, postgres_url(settings), journal=events.identity, words=ChainWords(DirectoryDisk(data)), rebuild=rebuild
    )
    chain_directory = data / "chain"
    chain_directory.mkdir(parents=True, exist_ok=True)
    purse = Purse()
    chain, signer = await open_chain(settings, chain_directory / "pysui", purse=purse)
    store = FileBatchStore(data / "settlement" / "batches.log")
    watcher = Watcher(data / "settlement" / "chain.log")
    brake = Brake(
        await event_source(settings), Bookings(core), data / "settlement" / "brake.log", settings.unsettled_limit_s
    )
    audit = Audit(data) if settings.second_core else None
    backup = backup_gate(settings, events.identity) if settings.backup_url else None
    settlers: list[Settler] = []
    proofs = ProofSettings(load_proof_key(data / "keys" / "proofs.key"), publication=lambda: published(data))

    database = Database(postgres_url(settings), connections_max=3)
    desk = WithdrawalDesk(database, core)
    rights = open_rights(settings, chain_directory / "pysui-rights", signer, purse)
    registry = registry_desk(database, rights)

    notices = SettledNotices(core)

    def on_batch(record: BatchRecord) -> None:
        projector.store_batch(batch_row(record))
        notices.add(record)
        if record.file:
            keep_batch_file(data, record.number, record.file)
        desk.store_paid(record.number, record.payouts)

    def has_loaded() -> bool:
        return bool(settlers) and settlers[0].settled_batch is not None

    def facts() -> dict[str, Any]:
        return {"projection": projector.status(), "withdrawals_error": desk.error,
                "registry_error": registry.error, "brake": brake.status(),
                "backup_waits_s": round(backup.waits_s, 3) if backup else 0.0,
                "settlement": settlers[0].status() if has_loaded() else {}}  # fmt: skip

    async def report() -> None:
        await report_progress(
            status, lambda: has_loaded() or stop.is_set(), lambda: settlers[0].progress if settlers else 0
        )
        await report_status(status, stop, facts)

    async def proof_desk() -> None:
        while not settlers and not stop.is_set():
            await asyncio.sleep(0.01)
        if settlers:
            [settler] = settlers
            await serve_proofs(data, lambda: settler.netting.liabilities, lambda: settler.final_batch, stop)

    await core.start()
    await database.open()
    try:
        await first_ends(
            stop,
            projector.run(stop),
            desk.run(stop),
            registry.run(stop),
            run_settler(
                await event_source(settings), chain, store, watcher, SettlementSettings(), on_batch, stop,
                commands=Bookings(core), releases=desk, proofs=proofs, audit=audit,
                backup=backup, known=lambda: known_batches(projector, desk, data), on_settler=settlers.append,
            ),
            proof_desk(),
            brake.run(stop, lambda: settlers[0].settled_batch if settlers else None),
            notices.run(stop),
            report(),
            _resumes(settings, settlers, stop),
            _rebuilds(rebuild, projector, stop),
        )  # fmt: skip
    finally:
        await core.close()
        await database.close()
        await rights.close()
        await chain.close()
        if settings.chain_signer:
            await signer.close()
        if audit is not None:
            audit.close()
        brake.close()
        watcher.close()
        store.close()


async def _rebuilds(request: Path, projector: Any, stop: asyncio.Event) -> None:
    """Ends the process when a rebuild is asked for later than at its start: the next one begins with it, and the
    settler then tells every batch again."""
    while not stop.is_set():
        if projector.status()["connected"] and request.exists():
            logger.warning("event=rebuild: the back office starts anew")
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), STATUS_INTERVAL_S)


async def _resumes(settings: Settings, settlers: list[Any], stop: asyncio.Event) -> None:
    """Ends a halt of settlement whenever DATA/run/settle-resume.request appears; settle-resume.done answers."""
    request = RequestFile(settings.data_directory, "settle-resume")
    while not stop.is_set():
        note = request.asked() if settlers and settlers[0].settled_batch is not None else None
        if note is not None:
            try:
                answer = "resumed: " + settlers[0].resume(note.strip() or "no note")
            except ValueError as error:
                answer = f"nothing to resume: {error}"
            request.answer(answer)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), STATUS_INTERVAL_S)
