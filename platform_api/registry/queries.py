"""SQL of the schema `registry`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

_AGAIN = "tries = tries + 1, try_at = now() + least(power(2, tries), 300) * interval '1 second', updated_at = now()"

# Registrations.


async def insert_registration(db: Any, fields: Mapping[str, Any]) -> Any:
    """None if the content is registered, or about to be."""
    names = ", ".join(fields)
    places = ", ".join(f"${number}" for number, _ in enumerate(fields, 1))
    return await db.fetchrow(
        f"INSERT INTO registry.registration ({names}, status) VALUES ({places}, 'pending')"
        " ON CONFLICT (sha256) WHERE status <> 'failed' DO NOTHING RETURNING *",
        *fields.values(),
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


async def due_registration(db: Any) -> Any:
    return await db.fetchrow(
        "SELECT * FROM registry.registration WHERE status = 'pending' AND try_at <= now() ORDER BY try_at LIMIT 1"
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
        f"UPDATE registry.registration SET status = 'pending', {_AGAIN} WHERE id = $1 AND status <> 'registered'",
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
    names = ", ".join(fields)
    places = ", ".join(f"${number}" for number, _ in enumerate(fields, 1))
    return await db.fetchrow(
        f"INSERT INTO registry.chain_tx ({names}, status) VALUES ({places}, 'signed')"
        " ON CONFLICT ((true)) WHERE status IN ('signed', 'submitted') DO NOTHING RETURNING *",
        *fields.values(),
    )


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
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('registry ' || $1::text, 0))", work_id)


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
