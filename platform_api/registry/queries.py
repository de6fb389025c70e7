"""SQL of the schema `registry`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from platform_api.database import insertion

_AGAIN = "tries = tries + 1, try_at = now() + least(power(2, tries), 300) * interval '1 second', updated_at = now()"

# Registrations.


async def insert_registration(db: Any, fields: Mapping[str, Any]) -> Any:
    """None if the content is registered, or about to be."""
    insert, values = insertion("registry.registration", {**fields, "status": "pending"})
    return await db.fetchrow(
        f"{insert} ON CONFLICT (sha256) WHERE status <> 'failed' DO NOTHING RETURNING *", *values
    )


async def standing(db: Any, sha256: bytes) -> Any:
    """The registration of a content that has not failed."""
    return await db.fetchrow("SELECT * FROM registry.registration WHERE sha256 = $1 AND status <> 'failed'", sha256)


async def registration(db: Any, registration_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM registry.registration WHERE id = $1", registration_id)


async def registrations(db: Any, work_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM registry.registration WHERE work_id = $1 AND ($2::uuid IS NULL OR id < $2)"
        " ORDER BY id DESC LIMIT $3",
        work_id, before, limit,
    )  # fmt: skip
    return rows


async def lock_registering(db: Any, account_id: UUID) -> None:
    """What an account registers, of whatever work, it registers one after the other: its number is bounded."""
    query = "SELECT pg_advisory_xact_lock(hashtextextended('registering ' || $1::uuid::text, 0))"
    await db.execute(query, account_id)


async def open_registrations(db: Any, account_id: UUID) -> int:
    query = "SELECT count(*) FROM registry.registration WHERE account_id = $1 AND status IN ('pending', 'submitted')"
    return int(await db.fetchval(query, account_id))


async def registrations_today(db: Any, account_id: UUID) -> int:
    query = "SELECT count(*) FROM registry.registration WHERE account_id = $1 AND created_at > now() - interval '1 day'"
    return int(await db.fetchval(query, account_id))


async def due_registration(db: Any, after: UUID) -> Any:
    """Of the first account after this one that has any due: what of it has waited longest."""
    return await db.fetchrow(
        "SELECT *, account_id AS turn_of FROM registry.registration"
        " WHERE status = 'pending' AND try_at <= now() AND account_id > $1 ORDER BY account_id, try_at LIMIT 1",
        after,
    )


async def begin_registration(db: Any, registration_id: UUID) -> bool:
    query = (
        "UPDATE registry.registration SET status = 'submitted', updated_at = now()"
        " WHERE id = $1 AND status = 'pending' RETURNING id"
    )
    return await db.fetchval(query, registration_id) is not None


async def put_off_registration(db: Any, registration_id: UUID) -> None:
    """Signed anew later; no bytes of it are under way."""
    await db.execute(
        f"UPDATE registry.registration SET status = 'pending', {_AGAIN}"
        " WHERE id = $1 AND status IN ('pending', 'submitted')",
        registration_id,
    )


async def end_registration(
    db: Any, registration_id: UUID, object_id: str, cap_id: str, digest: str, registered_at: datetime
) -> Any:
    return await db.fetchrow(
        "UPDATE registry.registration SET status = 'registered', object_id = $2, cap_id = $3, digest = $4,"
        " registered_at = $5, reason = '', updated_at = now() WHERE id = $1 RETURNING *",
        registration_id, object_id, cap_id, digest, registered_at,
    )  # fmt: skip


async def fail_registration(db: Any, registration_id: UUID, reason: str) -> Any:
    return await db.fetchrow(
        "UPDATE registry.registration SET status = 'failed', reason = $2, updated_at = now() WHERE id = $1 RETURNING *",
        registration_id, reason,
    )  # fmt: skip


# Transactions.


async def transaction_under_way(db: Any) -> Any:
    return await db.fetchrow("SELECT * FROM registry.chain_tx WHERE status IN ('signed', 'submitted')")


async def insert_transaction(db: Any, fields: Mapping[str, Any]) -> Any:
    """None if another one is under way."""
    insert, values = insertion("registry.chain_tx", {**fields, "status": "signed"})
    return await db.fetchrow(
        f"{insert} ON CONFLICT ((true)) WHERE status IN ('signed', 'submitted') DO NOTHING RETURNING *", *values
    )


async def transaction(db: Any, digest: str) -> Any:
    return await db.fetchrow("SELECT * FROM registry.chain_tx WHERE digest = $1", digest)


async def revive_transaction(db: Any, digest: str) -> Any:
    """A refused transaction is under way again; None if there is none with this digest."""
    return await db.fetchrow(
        "UPDATE registry.chain_tx SET status = 'signed', updated_at = now() WHERE digest = $1 AND status = 'refused'"
        " AND NOT EXISTS (SELECT FROM registry.chain_tx WHERE status IN ('signed', 'submitted')) RETURNING *",
        digest,
    )  # fmt: skip


async def note_sending(db: Any, transaction_id: UUID) -> None:
    await db.execute(
        "UPDATE registry.chain_tx SET status = 'submitted', updated_at = now() WHERE id = $1 AND status = 'signed'",
        transaction_id,
    )


async def end_transaction(
    db: Any, transaction_id: UUID, status: str, error: str, gas_mist: int | None, checkpoint: int | None
) -> bool:
    """False if it has ended before."""
    found = await db.fetchval(
        "UPDATE registry.chain_tx SET status = $2, error = $3, gas_mist = $4, checkpoint = $5, updated_at = now()"
        " WHERE id = $1 AND status IN ('signed', 'submitted') RETURNING id",
        transaction_id, status, error, gas_mist, checkpoint,
    )  # fmt: skip
    return found is not None


async def correct_transaction(db: Any, transaction_id: UUID, gas_mist: int, checkpoint: int | None) -> bool:
    """What a node refused to us has taken effect after all; False if that was noted before."""
    tag = await db.execute(
        "UPDATE registry.chain_tx SET status = 'executed', error = '', gas_mist = $2, checkpoint = $3,"
        " updated_at = now() WHERE id = $1 AND status = 'refused'",
        transaction_id, gas_mist, checkpoint,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def refused_transactions(db: Any, document_id: UUID, purpose: str) -> list[Any]:
    """Signed for a document before, and refused: the latest first."""
    rows: list[Any] = await db.fetch(
        "SELECT * FROM registry.chain_tx WHERE document_id = $1 AND purpose = $2 AND status = 'refused'"
        " ORDER BY id DESC",
        document_id, purpose,
    )  # fmt: skip
    return rows


async def transaction_counts(db: Any, document_id: UUID) -> int:
    """How many of a document's transactions took gas without an effect."""
    query = "SELECT count(*) FROM registry.chain_tx WHERE document_id = $1 AND status = 'aborted'"
    return int(await db.fetchval(query, document_id))


# Licences.


async def lock_records(db: Any, work_id: UUID) -> None:
    """A work's registration and its licences' records are written one after the other: one of them sees the other."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('registry ' || $1::uuid::text, 0))", work_id)


async def name_registration(db: Any, work_id: UUID, registration_id: UUID) -> None:
    """Licences that have waited for their work to be registered are due."""
    await db.execute(
        "UPDATE registry.license_record SET registration_id = $2, try_at = now(), updated_at = now()"
        " WHERE work_id = $1 AND status = 'waiting' AND registration_id IS NULL",
        work_id, registration_id,
    )  # fmt: skip


async def first_registration(db: Any, work_id: UUID) -> UUID | None:
    found: UUID | None = await db.fetchval(
        "SELECT id FROM registry.registration WHERE work_id = $1 AND status = 'registered' ORDER BY id LIMIT 1", work_id
    )
    return found


async def next_turn(db: Any, licensor_id: UUID, a_day: int) -> datetime:
    """When a licensor's next record may go: a day after the one that is `a_day` records before it, or now."""
    at: datetime = await db.fetchval(
        "SELECT greatest(now(), (SELECT not_before + interval '1 day' FROM registry.license_record"
        " WHERE licensor_id = $1 ORDER BY not_before DESC OFFSET $2 LIMIT 1))",
        licensor_id, a_day - 1,
    )  # fmt: skip
    return at


async def insert_record(db: Any, fields: Mapping[str, Any]) -> None:
    """Nothing, if the period has its record."""
    insert, values = insertion("registry.license_record", fields)
    await db.execute(f"{insert} ON CONFLICT DO NOTHING", *values)


async def records(db: Any, license_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM registry.license_record WHERE license_id = $1 ORDER BY id DESC LIMIT 100", license_id
    )
    return rows


async def revoke_records(db: Any, license_id: UUID) -> None:
    """What is not on the chain yet does not get there any more; the rest is taken back."""
    await db.execute(
        "UPDATE registry.license_record SET revoked = true, try_at = now(), updated_at = now(),"
        " status = CASE status WHEN 'waiting' THEN 'dropped' ELSE status END WHERE license_id = $1 AND NOT revoked",
        license_id,
    )


_OF_WORK = """
    SELECT l.*, r.object_id AS work_object, r.cap_id, l.licensor_id AS turn_of FROM registry.license_record l
    JOIN registry.registration r ON r.id = l.registration_id
"""


async def due_record(db: Any, after: UUID) -> Any:
    """Of the first licensor after this account who has any due: what has waited longest."""
    return await db.fetchrow(
        _OF_WORK + "WHERE l.status = 'waiting' AND l.registration_id IS NOT NULL"
        " AND greatest(l.try_at, l.not_before) <= now() AND l.licensor_id > $1"
        " ORDER BY l.licensor_id, greatest(l.try_at, l.not_before) LIMIT 1",
        after,
    )


async def due_revocation(db: Any, after: UUID) -> Any:
    """Of the first licensor after this account who has any due: what has waited longest."""
    return await db.fetchrow(
        _OF_WORK + "WHERE l.status = 'issued' AND l.revoked AND l.try_at <= now() AND l.licensor_id > $1"
        " ORDER BY l.licensor_id, l.try_at LIMIT 1",
        after,
    )


async def record_address(db: Any, record_id: UUID, licensee_id: UUID) -> bytes | None:
    """The licensee's primary wallet now, noted; None: there is no Sui wallet."""
    address = await db.fetchval(
        "SELECT address FROM identity.wallet WHERE account_id = $1 AND is_primary AND revoked_at IS NULL", licensee_id
    )
    if address is None:
        return None
    await db.execute("UPDATE registry.license_record SET address = $2 WHERE id = $1", record_id, address)
    return bytes(address)


async def begin_record(db: Any, record_id: UUID, old: str, new: str) -> bool:
    query = (
        "UPDATE registry.license_record SET status = $3, updated_at = now()"
        " WHERE id = $1 AND status = $2 RETURNING id"
    )
    return await db.fetchval(query, record_id, old, new) is not None


async def put_off_record(db: Any, record_id: UUID) -> None:
    """Signed anew later. A licence that was revoked meanwhile does not get to the chain any more."""
    await db.execute(
        "UPDATE registry.license_record SET status = CASE status WHEN 'revoking' THEN 'issued'"
        " WHEN 'submitted' THEN CASE WHEN revoked THEN 'dropped' ELSE 'waiting' END ELSE status END,"
        f" {_AGAIN} WHERE id = $1",
        record_id,
    )


async def drop_record(db: Any, record_id: UUID) -> None:
    await db.execute(
        "UPDATE registry.license_record SET status = 'dropped', updated_at = now()"
        " WHERE id = $1 AND status = 'waiting'",
        record_id,
    )


async def end_issue(
    db: Any, record_id: UUID, object_id: str, digest: str, issued_at: datetime, expires_at: datetime
) -> Any:
    return await db.fetchrow(
        "UPDATE registry.license_record SET status = 'issued', object_id = $2, digest = $3, issued_at = $4,"
        " expires_at = $5, reason = '', tries = 0, try_at = now(), updated_at = now() WHERE id = $1 RETURNING *",
        record_id, object_id, digest, issued_at, expires_at,
    )  # fmt: skip


async def fail_record(db: Any, record_id: UUID, reason: str) -> Any:
    return await db.fetchrow(
        "UPDATE registry.license_record SET status = 'failed', reason = $2, updated_at = now()"
        " WHERE id = $1 RETURNING *",
        record_id, reason,
    )  # fmt: skip


async def end_revocation(db: Any, record_id: UUID, digest: str) -> Any:
    return await db.fetchrow(
        "UPDATE registry.license_record SET status = 'revoked', revoke_digest = $2, revoked_at = now(), reason = '',"
        " updated_at = now() WHERE id = $1 RETURNING *",
        record_id, digest,
    )  # fmt: skip


async def stop_revocation(db: Any, record_id: UUID, reason: str) -> Any:
    """The object stays on the chain: it is not asked for again."""
    return await db.fetchrow(
        "UPDATE registry.license_record SET status = 'issued', revoked = false, reason = $2, updated_at = now()"
        " WHERE id = $1 RETURNING *",
        record_id, reason,
    )  # fmt: skip


# Certificates.


async def certificate(db: Any, registration_id: UUID) -> Any:
    """With `signer_sha256`, of the certificate that it is signed with; without the document."""
    return await db.fetchrow(
        "SELECT c.registration_id, c.number, c.sha256, c.issued_at, sha256(s.certificate) AS signer_sha256"
        " FROM registry.certificate c JOIN registry.signer s ON s.id = c.signer_id WHERE c.registration_id = $1",
        registration_id,
    )


async def document(db: Any, registration_id: UUID) -> bytes | None:
    found = await db.fetchval("SELECT document FROM registry.certificate WHERE registration_id = $1", registration_id)
    return None if found is None else bytes(found)


async def insert_certificate(db: Any, fields: Mapping[str, Any]) -> int | None:
    """Its number; None if there is one already."""
    insert, values = insertion("registry.certificate", fields)
    number: int | None = await db.fetchval(f"{insert} ON CONFLICT DO NOTHING RETURNING number", *values)
    return number


async def signers(db: Any) -> list[Any]:
    """The latest first."""
    rows: list[Any] = await db.fetch("SELECT * FROM registry.signer ORDER BY id DESC LIMIT 10")
    return rows


async def lock_signers(db: Any) -> None:
    """One process makes the first."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('registry signers', 0))")


async def insert_signer(db: Any, signer_id: UUID, certificate: bytes, sealed_key: bytes) -> None:
    await db.execute(
        "INSERT INTO registry.signer (id, certificate, sealed_key) VALUES ($1, $2, $3)",
        signer_id, certificate, sealed_key,
    )  # fmt: skip
