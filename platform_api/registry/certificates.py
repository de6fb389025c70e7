"""Signed certificates of registrations, made at the first request and kept: the same bytes for ever.

The key that signs them is made with the first certificate. It lies sealed in the database, so that every process of
the API signs with the same. A key that the ring does not open any more, or whose certificate is about to end, is
followed by a fresh one; what the old one has signed stays as it is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.kernel.sealing import NotOurs, SealedColumn
from platform_api.registry import queries
from platform_api.registry.copyrights import PROVES, covered
from platform_api.security import Caller
from platform_api.works.service import WorkService

__all__ = ["KEY_COLUMN", "Certificates"]

log = structlog.get_logger(__name__)

KEY_COLUMN = SealedColumn("registry.signer", "sealed_key")
_REASON = "Registration of a work"
_SELF_SIGNED = (
    "Signed by the operator of this exchange with a certificate of its own: trust it if its SHA-256 fingerprint is the"
    " one that the page behind the code shows. The signature proves that this document is unchanged."
)
_EMBEDDED = "The chain of this exchange is embedded, for trying out, and no network: nobody else keeps it."


class Certificates:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._database, self._settings, self._sealer = kernel.database, kernel.settings, kernel.sealer
        self._works = kernel.service(WorkService)

    async def read(self, caller: Caller, registration_id: UUID) -> tuple[bytes, str]:
        """The PDF, and the digest of the content. Raises ApiError NOT_FOUND, CONFLICT `not_registered`."""
        async with self._database.connection() as db:
            row = await queries.registration(db, registration_id)
            if row is None or str(row["account_id"]) != caller.account_id:
                raise unknown("certificate")
            if row["status"] != "registered":
                message = "The work does not stand on the chain yet."
                raise ApiError(ErrorCode.CONFLICT, message, reason="not_registered", details={"status": row["status"]})
            if (document := await queries.document(db, registration_id)) is not None:
                return document, bytes(row["sha256"]).hex()
            covers = await covered(self._works, db, row)
        return await self._issue(row, covers, caller), bytes(row["sha256"]).hex()

    async def _issue(self, row: Any, covers: str, caller: Caller) -> bytes:
        signer_id, certificate, key = await self._signer()
        document = await asyncio.to_thread(self._made, row, covers, certificate, key)
        async with self._database.transaction() as db:
            number = await queries.insert_certificate(db, {
                "registration_id": row["id"], "signer_id": signer_id, "document": document,
                "sha256": hashlib.sha256(document).digest(), "issued_at": datetime.now(UTC),
            })  # fmt: skip
            if number is not None:
                await self._kernel.events.publish(
                    db, "certificate.issued", ("registration", str(row["id"])),
                    {"number": number, "work_id": str(row["work_id"]), "for_accounts": [caller.account_id]},
                    actor=caller.account_id,
                )  # fmt: skip
                return document
            kept = await queries.document(db, row["id"])  # somebody else was first, and theirs is kept
        assert kept is not None
        return kept

    def _made(self, row: Any, covers: str, certificate: bytes, key: bytes) -> bytes:
        from platform_api.registry.paper import certificate_pdf  # both take long to import
        from platform_api.registry.seal import sign_document

        facts = [
            ("Title", row["title"]), ("Author", row["author"]), ("Version", str(row["number"])), ("Content", covers),
            ("Registered at", f"{timestamp(row['registered_at'].astimezone(UTC))} (the chain's clock)"),
            ("Chain", self._settings.chain),
        ]  # fmt: skip
        codes = [
            ("SHA-256", bytes(row["sha256"]).hex()), ("Author's wallet", "0x" + bytes(row["address"]).hex()),
            ("Object", row["object_id"]), ("Transaction", row["digest"]), ("Registration", str(row["id"])),
            ("Signer's SHA-256", hashlib.sha256(certificate).hexdigest()),
        ]  # fmt: skip
        says = [PROVES, _SELF_SIGNED, *([_EMBEDDED] if self._settings.embedded else [])]
        return sign_document(certificate_pdf(row["title"], facts, codes, row["uri"], says), certificate, key, _REASON)

    async def _signer(self) -> tuple[UUID, bytes, bytes]:
        """Id, certificate and key; made if there is none that opens and lasts."""
        async with self._database.transaction() as db:
            await queries.lock_signers(db)
            for row in await queries.signers(db):
                if (found := await asyncio.to_thread(self._opened, row)) is not None:
                    return found
            signer_id = new_id()
            certificate, key = await asyncio.to_thread(_fresh, self._settings.domain)
            sealed = self._sealer.seal(KEY_COLUMN, signer_id, base64.b64encode(key).decode())
            await queries.insert_signer(db, signer_id, certificate, sealed)
            await self._kernel.audit.record(
                db, "certificate.signer_made", ("signer", str(signer_id)), actor=None,
                new={"certificate_sha256": hashlib.sha256(certificate).hexdigest()},
            )  # fmt: skip
        return signer_id, certificate, key

    def _opened(self, row: Any) -> tuple[UUID, bytes, bytes] | None:
        from platform_api.registry.seal import is_valid

        certificate = bytes(row["certificate"])
        try:
            key = base64.b64decode(self._sealer.open(KEY_COLUMN, row["id"], bytes(row["sealed_key"])))
        except NotOurs:
            log.warning("signer_does_not_open", signer_id=str(row["id"]))
            return None
        return (row["id"], certificate, key) if is_valid(certificate, datetime.now(UTC)) else None


def _fresh(domain: str) -> tuple[bytes, bytes]:
    from platform_api.registry.seal import make_signer

    return make_signer(domain, datetime.now(UTC))
