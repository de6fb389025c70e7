"""Registrations on their way to the chain.

    pending ──signed──▶ submitted ──executed──▶ registered
       ▲                    │  └──aborted: the content is somebody else's there──▶ failed
       └─────refused────────┘

The chain keeps a content once. If ours aborts for that reason, the operator may hold the capability all the same (a
database was restored from a copy): then it is ours.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from platform_api.database import Database
from platform_api.kernel.audit import Audit
from platform_api.kernel.events import Events
from platform_api.ports import ChainOutcome, RegisteredWork, RightsPort, SignedCall
from platform_api.registry import queries

__all__ = ["Registrations"]

_REGISTERED_ALREADY = 1
"""Abort code of the contract's `register`."""


class Registrations:
    """A part of the desk (`desk.Part`)."""

    purpose = "registration"

    def __init__(self, database: Database, chain: RightsPort, events: Events, audit: Audit) -> None:
        self._database, self._chain, self._events, self._audit = database, chain, events, audit

    async def due(self, db: Any, after: UUID) -> Any:
        return await queries.due_registration(db, after)

    async def sign(self, row: Any) -> SignedCall | None:
        return await self._chain.sign_registration(bytes(row["sha256"]), row["uri"], bytes(row["address"]))

    async def begin(self, db: Any, row: Any) -> bool:
        return await queries.begin_registration(db, row["id"])

    async def read(self, digest: str) -> RegisteredWork:
        return await self._chain.registered(digest)

    async def end(self, db: Any, document_id: UUID, made: RegisteredWork) -> None:
        at = datetime.fromtimestamp(made.registered_ms / 1000, UTC)
        await queries.lock_records(db, (await queries.registration(db, document_id))["work_id"])
        row = await queries.end_registration(db, document_id, made.work, made.cap, made.digest, at)
        await queries.name_registration(db, row["work_id"], document_id)
        payload = _payload(row) | {"object_id": made.work, "digest": made.digest}
        await self._events.publish(db, "copyright.registered", ("registration", str(document_id)), payload)
        await self._audit.record(
            db, "copyright.registered", ("registration", str(document_id)), actor=None, old={"status": "submitted"},
            new={"status": "registered", "object_id": made.work, "digest": made.digest},
        )  # fmt: skip

    async def made_before(self, document_id: UUID, outcome: ChainOutcome) -> RegisteredWork | None:
        if outcome.abort_code != _REGISTERED_ALREADY:
            return None
        async with self._database.connection() as db:
            row = await queries.registration(db, document_id)
        return await self._chain.held(bytes(row["sha256"]))

    async def put_off(self, db: Any, document_id: UUID) -> None:
        await queries.put_off_registration(db, document_id)

    async def fail(self, db: Any, document_id: UUID, outcome: ChainOutcome) -> None:
        reason = "registered_elsewhere" if self.is_final(outcome) else "aborted"
        row = await queries.fail_registration(db, document_id, reason)
        payload = _payload(row) | {"reason": reason}
        await self._events.publish(db, "copyright.failed", ("registration", str(document_id)), payload)
        await self._audit.record(
            db, "copyright.failed", ("registration", str(document_id)), actor=None, old={"status": "submitted"},
            new={"status": "failed", "reason": reason, "error": outcome.error},
        )  # fmt: skip

    def is_final(self, outcome: ChainOutcome) -> bool:
        return outcome.abort_code == _REGISTERED_ALREADY


def _payload(row: Any) -> dict[str, Any]:
    return {
        "work_id": str(row["work_id"]), "chapter_id": str(row["chapter_id"]) if row["chapter_id"] else None,
        "creator_id": str(row["creator_id"]), "sha256": bytes(row["sha256"]).hex(),
        "for_accounts": [str(row["account_id"])],
    }  # fmt: skip
