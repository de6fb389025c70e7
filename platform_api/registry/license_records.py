"""Licences on the chain: an object for each paid period, as soon as its work is registered, and taken back with it.

    waiting ──signed──▶ submitted ──executed──▶ issued ──▶ revoking ──▶ revoked
       └──the licence is revoked, or over──▶ dropped

The licence itself is the platform's: its state counts, and its verification code. The object is what an outsider can
see without us. It belongs to the licensee's primary Sui wallet, waits until there is one, and names its terms by a
salted digest alone: who reads the chain learns neither the parties' names nor what was agreed. An expiry needs no
transaction, for the object holds its own end.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from platform_api.database import Database
from platform_api.kernel.audit import Audit
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Event, Events
from platform_api.licensing.models import License
from platform_api.licensing.service import LicensingService
from platform_api.ports import ChainOutcome, IssuedLicense, RightsPort, SignedCall
from platform_api.registry import queries
from platform_api.registry.copyrights import moment
from platform_api.registry.models import ChainLicense, LicenseProof
from platform_api.security import Caller

__all__ = ["LicenseIssues", "LicenseRecords", "LicenseRevocations"]

_BAD_TERMS, _UNKNOWN, _IRREVOCABLE, _REVOKED = 7, 8, 9, 10
"""Abort codes of the contract."""
A_DAY = 200
"""Of one licensor's licences to the chain, each at the operator's cost, and as many back; the rest wait for the next
day. The licences themselves count at once."""


class LicenseRecords:
    """What the platform writes down and shows; the desk does the rest."""

    def __init__(self, kernel: Kernel) -> None:
        self._database, self._settings = kernel.database, kernel.settings
        self._licensing = kernel.service(LicensingService)
        kernel.events.subscribe("registry.licences", ["license.activated", "license.renewed"], self._note_period)
        kernel.events.subscribe("registry.revocations", ["license.revoked"], self._note_revocation)

    async def for_parties(self, caller: Caller, license_id: UUID) -> LicenseProof:
        """With the terms. Raises ApiError NOT_FOUND for anybody else."""
        shown = await self._licensing.licenses.read(caller, license_id)
        return await self._proof(license_id, shown.verification_code, with_terms=True)

    async def for_everybody(self, code: str) -> LicenseProof:
        """Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            license_id = await self._licensing.authorizations.license_of(db, code)
        return await self._proof(license_id, code, with_terms=False)

    async def _proof(self, license_id: UUID, code: str | None, *, with_terms: bool) -> LicenseProof:
        async with self._database.connection() as db:
            rows = await queries.records(db, license_id)
        periods = [_period(row, with_terms=with_terms) for row in rows]
        return LicenseProof(code, periods, self._settings.chain, self._settings.embedded)

    async def _note_period(self, db: Any, event: Event) -> None:
        license_id = UUID(event.subject_id)
        await queries.lock_records(db, UUID(event.payload["work_id"]))
        shown = await self._licensing.licenses.known(db, license_id)  # as it is under the lock
        if shown is None or shown.ends_at is None:
            return
        terms = _terms(shown, event.payload["fee_id"])
        revoked = shown.status == "revoked"
        await queries.insert_record(db, {
            "id": UUID(event.payload["fee_id"]), "license_id": license_id, "work_id": UUID(shown.work_id),
            "licensor_id": UUID(shown.licensor_id), "licensee_id": UUID(shown.licensee_id), "terms": terms,
            "terms_hash": hashlib.sha256(terms.encode()).digest(), "ends_at": datetime.fromisoformat(shown.ends_at),
            "registration_id": await queries.first_registration(db, UUID(shown.work_id)),
            "revoked": revoked, "status": "dropped" if revoked else "waiting",
            "not_before": await queries.next_turn(db, UUID(shown.licensor_id), A_DAY),
        })  # fmt: skip

    async def _note_revocation(self, db: Any, event: Event) -> None:
        await queries.lock_records(db, UUID(event.payload["work_id"]))  # else a record written now is not seen
        await queries.revoke_records(db, UUID(event.subject_id))


class _Records:
    def __init__(self, database: Database, chain: RightsPort, events: Events, audit: Audit) -> None:
        self._database, self._chain, self._events, self._audit = database, chain, events, audit

    async def put_off(self, db: Any, document_id: UUID) -> None:
        await queries.put_off_record(db, document_id)

    async def _tell(self, db: Any, type_: str, row: Any, new: dict[str, Any]) -> None:
        payload = {
            "record_id": str(row["id"]), "work_id": str(row["work_id"]),
            "for_accounts": [str(row["licensor_id"]), str(row["licensee_id"])], **new,
        }  # fmt: skip
        subject = ("license", str(row["license_id"]))
        await self._events.publish(db, type_, subject, payload)
        await self._audit.record(db, type_, subject, actor=None, new=new | {"record_id": str(row["id"])})


class LicenseIssues(_Records):
    """A part of the desk (`desk.Part`)."""

    purpose = "license"

    async def due(self, db: Any, after: UUID) -> Any:
        return await queries.due_record(db, after)

    async def sign(self, row: Any) -> SignedCall | None:
        now = datetime.now(UTC)
        async with self._database.transaction() as db:
            if row["ends_at"] <= now:
                await queries.drop_record(db, row["id"])
                return None
            address = await queries.record_address(db, row["id"], row["licensee_id"])
            if address is None:
                await queries.put_off_record(db, row["id"])
                return None
        lasts_ms = int((row["ends_at"] - now).total_seconds() * 1000)
        return await self._chain.sign_license(
            row["work_object"], row["cap_id"], address, bytes(row["terms_hash"]), max(lasts_ms, 1)
        )

    async def begin(self, db: Any, row: Any) -> bool:
        return await queries.begin_record(db, row["id"], "waiting", "submitted")

    async def read(self, digest: str) -> tuple[str, IssuedLicense]:
        return digest, await self._chain.issued(digest)

    async def end(self, db: Any, document_id: UUID, made: tuple[str, IssuedLicense]) -> None:
        digest, issued = made
        row = await queries.end_issue(
            db, document_id, issued.license, digest, _at(issued.issued_ms), _at(issued.expires_ms)
        )
        await self._tell(db, "license.recorded", row, {"object_id": issued.license, "digest": digest})

    async def made_before(self, document_id: UUID, outcome: ChainOutcome) -> None:
        return None

    async def fail(self, db: Any, document_id: UUID, outcome: ChainOutcome) -> None:
        row = await queries.fail_record(db, document_id, outcome.error[:1_000])
        await self._tell(db, "license.record_failed", row, {"digest": outcome.digest})

    def is_final(self, outcome: ChainOutcome) -> bool:
        return outcome.abort_code == _BAD_TERMS


class LicenseRevocations(_Records):
    """A part of the desk (`desk.Part`). A licence that the chain has taken back already counts as revoked."""

    purpose = "revocation"

    async def due(self, db: Any, after: UUID) -> Any:
        return await queries.due_revocation(db, after)

    async def sign(self, row: Any) -> SignedCall | None:
        return await self._chain.sign_revocation(row["work_object"], row["cap_id"], row["object_id"])

    async def begin(self, db: Any, row: Any) -> bool:
        return await queries.begin_record(db, row["id"], "issued", "revoking")

    async def read(self, digest: str) -> str:
        return digest

    async def end(self, db: Any, document_id: UUID, made: str) -> None:
        row = await queries.end_revocation(db, document_id, made)
        await self._tell(db, "license.record_revoked", row, {"object_id": row["object_id"], "digest": made})

    async def made_before(self, document_id: UUID, outcome: ChainOutcome) -> str | None:
        return outcome.digest if outcome.abort_code == _REVOKED else None

    async def fail(self, db: Any, document_id: UUID, outcome: ChainOutcome) -> None:
        """The object stays; the licence is revoked here all the same."""
        row = await queries.stop_revocation(db, document_id, outcome.error[:1_000])
        await self._tell(db, "license.record_failed", row, {"digest": outcome.digest})

    def is_final(self, outcome: ChainOutcome) -> bool:
        return outcome.abort_code in (_UNKNOWN, _IRREVOCABLE)


def _terms(shown: License, period_id: str) -> str:
    """What was agreed, without its parties; the salt keeps anybody from trying terms against the digest."""
    fields = {
        name: getattr(shown, name)
        for name in ("work_id", "license_type", "territories", "scope", "starts_at", "ends_at", "sublicensing",
                     "revenue_share_bps", "requirements", "restrictions", "seats")
    }  # fmt: skip
    whole = fields | {"license_id": shown.id, "period_id": period_id, "salt": os.urandom(16).hex()}
    return msgspec.json.encode(whole, order="sorted").decode()


def _period(row: Any, *, with_terms: bool) -> ChainLicense:
    return ChainLicense(
        status=row["status"],
        terms_sha256=bytes(row["terms_hash"]).hex(),
        terms=row["terms"] if with_terms else None,
        object_id=row["object_id"],
        digest=row["digest"],
        issued_at=moment(row["issued_at"]),
        expires_at=moment(row["expires_at"]),
        revoke_digest=row["revoke_digest"],
        revoked_at=moment(row["revoked_at"]),
        not_before=moment(row["not_before"]) if row["status"] == "waiting" else None,
    )


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
