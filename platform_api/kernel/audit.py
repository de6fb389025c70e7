"""Who did what to which thing, with the values before and after: append-only, and a chain of hashes.

An entry is written in the transaction of the act, so there is none without the other. Chaining there would make every
audited transaction wait for the one before it; so the relay gives entries their places in the chain some milliseconds
after their commit. Then:

    hash = SHA-256( previous hash || JSON of the entry's fields in the order of `_FIELDS` )

PostgreSQL itself refuses to change or delete an entry (a trigger); whoever goes around that breaks the chain, which
`verify_chain` shows. Secrets never enter: values under the names of `redaction` are replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any
from uuid import UUID

import msgspec

from platform_api.errors import timestamp
from platform_api.ids import new_id
from platform_api.redaction import redacted
from platform_api.request_scope import current_request

__all__ = ["Audit", "Change", "seal_entries", "verify_chain"]

Change = tuple[tuple[str, str], Mapping[str, Any] | None, Mapping[str, Any] | None]
"""A resource, and its values before and after."""

_FIELDS = (
    "id", "position", "recorded_at", "actor_id", "action", "resource_type", "resource_id", "old_values", "new_values",
    "ip_address", "user_agent", "request_id",
)  # fmt: skip
_INSERT = (
    "INSERT INTO kernel.audit_entry (id, actor_id, action, resource_type, resource_id, old_values, new_values,"
    " ip_address, user_agent, request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::inet, $9, $10)"
)
_FIRST = bytes(32)
_LOCK = 0x6175646974  # "audit"
SEALED_MAX = 500


class Audit:
    """Writes entries."""

    async def record(
        self,
        db: Any,
        action: str,
        resource: tuple[str, str],
        *,
        actor: UUID | str | None,
        old: Mapping[str, Any] | None = None,
        new: Mapping[str, Any] | None = None,
    ) -> UUID:
        """One entry, in the transaction of `db`. `action` is `noun.verb`; `actor` None is the platform itself.

        Of `old` and `new`, fields with equal values on both sides are left out.
        """
        entry_id = new_id()
        await db.execute(_INSERT, *_row(entry_id, action, UUID(actor) if isinstance(actor, str) else actor,
                                        (resource, old, new)))  # fmt: skip
        return entry_id

    async def record_each(self, db: Any, action: str, changes: Sequence[Change], *, actor: UUID | None) -> None:
        """An entry like that of `record` for each change, in their order, at once."""
        await db.executemany(_INSERT, [_row(new_id(), action, actor, change) for change in changes])


async def seal_entries(db: Any) -> int:
    """Gives committed entries their places in the chain; one process at a time. Returns how many."""
    if not await db.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
        return 0
    rows = await db.fetch(
        "SELECT * FROM kernel.audit_entry WHERE seal_number IS NULL ORDER BY position LIMIT $1", SEALED_MAX
    )
    if not rows:
        return 0
    last = await db.fetchrow(
        "SELECT seal_number, hash FROM kernel.audit_entry WHERE seal_number IS NOT NULL"
        " ORDER BY seal_number DESC LIMIT 1"
    )
    number, previous = (last["seal_number"], bytes(last["hash"])) if last else (0, _FIRST)
    hashes = list(accumulate(rows, _hash, initial=previous))
    await db.execute(
        "UPDATE kernel.audit_entry e SET seal_number = s.number, previous_hash = s.previous, hash = s.hash"
        " FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bytea[]) AS s (id, number, previous, hash)"
        " WHERE e.id = s.id",
        [row["id"] for row in rows], list(range(number + 1, number + 1 + len(rows))), hashes[:-1], hashes[1:],
    )  # fmt: skip
    return len(rows)


async def verify_chain(db: Any) -> tuple[int, int | None]:
    """How many sealed entries hold together, and the seal number of the first that does not (None: all do).

    Cost: reads every entry once.
    """
    good, previous = 0, _FIRST
    async with db.transaction():
        async for row in db.cursor("SELECT * FROM kernel.audit_entry WHERE hash IS NOT NULL ORDER BY seal_number"):
            intact = row["seal_number"] == good + 1 and bytes(row["previous_hash"]) == previous
            if not intact or _hash(previous, row) != bytes(row["hash"]):
                return good, row["seal_number"]
            good, previous = good + 1, bytes(row["hash"])
    return good, None


def _hash(previous: bytes, row: Any) -> bytes:
    values = [timestamp(row[name]) if name == "recorded_at" else _plain(row[name]) for name in _FIELDS]
    return hashlib.sha256(previous + msgspec.json.encode(values)).digest()


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, str)) else str(value)


def _row(entry_id: UUID, action: str, actor: UUID | None, change: Change) -> tuple[Any, ...]:
    resource, old, new = change
    before, after = _differing(old, new)
    facts = current_request.get()
    return (
        entry_id, actor, action, *resource, _json(before), _json(after),
        facts.ip_address, facts.user_agent, facts.request_id,
    )  # fmt: skip


def _differing(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    if old is not None and new is not None:
        same = {name for name in old.keys() & new.keys() if old[name] == new[name]}
        old = {name: value for name, value in old.items() if name not in same}
        new = {name: value for name, value in new.items() if name not in same}
    return (redacted(old) if old is not None else None), (redacted(new) if new is not None else None)


def _json(values: dict[str, Any] | None) -> str | None:
    return None if values is None else msgspec.json.encode(values).decode()
