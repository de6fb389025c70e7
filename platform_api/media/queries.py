"""SQL of the schema `media`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID


async def insert_upload(db: Any, upload_id: UUID, account_id: UUID, fields: dict[str, Any], expires: datetime) -> Any:
    return await db.fetchrow(
        "INSERT INTO media.upload (id, account_id, name, declared_type, size_bytes, part_bytes, part_count, sha256,"
        " expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *",
        upload_id, account_id, fields["name"], fields["declared_type"], fields["size_bytes"], fields["part_bytes"],
        fields["part_count"], fields["sha256"], expires,
    )  # fmt: skip


async def own_upload(db: Any, upload_id: UUID, account_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM media.upload WHERE id = $1 AND account_id = $2", upload_id, account_id)


async def lock_upload(db: Any, upload_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM media.upload WHERE id = $1 FOR UPDATE", upload_id)


async def stored(db: Any, account_id: UUID) -> tuple[int, int]:
    """How many uploads are open, and how many bytes the account has or is about to have."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('media.upload:' || $1::text, 0))", str(account_id))
    row = await db.fetchrow(
        "SELECT (SELECT count(*) FROM media.upload WHERE account_id = $1 AND status IN ('receiving', 'scanning')) AS n,"
        " (SELECT coalesce(sum(size_bytes), 0)::bigint FROM media.upload"
        "  WHERE account_id = $1 AND status IN ('receiving', 'scanning'))"
        " + (SELECT coalesce(sum(size_bytes), 0)::bigint FROM media.file_object WHERE account_id = $1) AS bytes",
        account_id,
    )  # fmt: skip
    return row["n"], row["bytes"]


async def set_status(
    db: Any, upload_id: UUID, status: str, *, problem: str | None = None, file_id: UUID | None = None
) -> None:
    await db.execute(
        "UPDATE media.upload SET status = $2, problem = $3, file_id = coalesce($4, file_id) WHERE id = $1",
        upload_id, status, problem, file_id,
    )  # fmt: skip


async def expire_due(db: Any) -> list[str]:
    """Uploads that were left unfinished; returns the keys of their parts, whose rows are gone."""
    rows = await db.fetch(
        "SELECT id FROM media.upload WHERE status = 'receiving' AND expires_at < now()"
        " ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED"
    )
    ids = [row["id"] for row in rows]
    await db.execute("UPDATE media.upload SET status = 'expired' WHERE id = ANY($1)", ids)
    parts = await db.fetch("DELETE FROM media.upload_part WHERE upload_id = ANY($1) RETURNING storage_key", ids)
    return [part["storage_key"] for part in parts]


async def put_part(db: Any, upload_id: UUID, number: int, storage_key: str, sha256: bytes) -> str | None:
    """Takes the place of an earlier one, whose key it returns."""
    before: str | None = await db.fetchval(
        "SELECT storage_key FROM media.upload_part WHERE upload_id = $1 AND number = $2", upload_id, number
    )
    await db.execute(
        "INSERT INTO media.upload_part (upload_id, number, storage_key, sha256) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (upload_id, number) DO UPDATE SET storage_key = $3, sha256 = $4",
        upload_id, number, storage_key, sha256,
    )  # fmt: skip
    return before


async def parts(db: Any, upload_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch("SELECT * FROM media.upload_part WHERE upload_id = $1 ORDER BY number", upload_id)
    return rows


async def delete_parts(db: Any, upload_id: UUID) -> None:
    await db.execute("DELETE FROM media.upload_part WHERE upload_id = $1", upload_id)


async def insert_file(db: Any, upload: Any, storage_key: str, type_: str, sha256: bytes) -> Any:
    return await db.fetchrow(
        "INSERT INTO media.file_object (id, account_id, storage_key, name, type, size_bytes, sha256)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
        upload["file_id"], upload["account_id"], storage_key, upload["name"], type_, upload["size_bytes"], sha256,
    )  # fmt: skip


async def file(db: Any, file_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM media.file_object WHERE id = $1", file_id)


async def own_files(db: Any, account_id: UUID, file_ids: list[UUID]) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM media.file_object WHERE id = ANY($2) AND account_id = $1", account_id, file_ids
    )
    return rows


async def lock_files(db: Any, file_ids: list[UUID]) -> None:
    """In one order for all who want several."""
    query = "SELECT FROM media.file_object WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"
    await db.execute(query, file_ids)


async def set_public(db: Any, file_ids: list[UUID], public: bool) -> None:
    await db.execute("UPDATE media.file_object SET public = $2 WHERE id = ANY($1)", file_ids, public)
