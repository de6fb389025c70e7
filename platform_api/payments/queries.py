"""SQL of the schema `payments`, and of transfers. The connection comes first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

__all__ = [
    "add_refunded", "complete_purchase", "count_unproved", "entitlement_of", "entitlements", "fail_purchase",
    "has_bought", "has_paid", "insert_intent", "insert_payment", "insert_purchase",
    "insert_refund", "insert_transfer", "intent", "intent_of_purchase", "intents_left_open", "is_being_paid",
    "is_taken", "lacks_reference", "lock_intent_by_ref", "lock_payment", "lock_purchase", "may_use",
    "note_event", "note_failure", "payment", "payment_by_ref", "payment_of_purchase", "payments", "purchase",
    "purchases", "refund", "refund_intent", "refund_payment", "refunds_left_open", "revoke_entitlement", "sales",
    "set_event_outcome", "set_provider_ref", "transfer", "transfers", "turn_intent", "turn_payment", "turn_refund",
    "turn_transfer",
]  # fmt: skip


def _paged(table: str, account: str = "account_id") -> str:
    return f"SELECT * FROM payments.{table} WHERE {account} = $1"


async def _list(db: Any, query: str, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    """The latest first; `before` is the last id of the page before."""
    position = "" if before is None else " AND id < $3"
    arguments = (account_id, limit) if before is None else (account_id, limit, before)
    return list(await db.fetch(f"{query}{position} ORDER BY id DESC LIMIT $2", *arguments))


# ------------------------------------------------------------ intents and events


async def insert_intent(
    db: Any, id_: UUID, account_id: UUID, purchase_id: UUID | None, provider: str, asset: str, scale: int, units: int,
    expires_at: datetime,
) -> None:  # fmt: skip
    await db.execute(
        """
        INSERT INTO payments.intent (id, account_id, purpose, purchase_id, provider, asset, scale, amount_units,
            expires_at)
        VALUES ($1, $2, CASE WHEN $3::uuid IS NULL THEN 'top_up' ELSE 'purchase' END, $3, $4, $5, $6, $7, $8)
        """,
        id_, account_id, purchase_id, provider, asset, scale, units, expires_at,
    )  # fmt: skip


async def intent(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.intent WHERE id = $1", id_)


async def lock_intent_by_ref(db: Any, provider: str, ref: str) -> Any:
    return await db.fetchrow(
        "SELECT * FROM payments.intent WHERE provider = $1 AND provider_ref = $2 FOR UPDATE", provider, ref
    )


async def intent_of_purchase(db: Any, purchase_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.intent WHERE purchase_id = $1", purchase_id)


async def set_provider_ref(db: Any, id_: UUID, ref: str) -> None:
    await db.execute("UPDATE payments.intent SET provider_ref = $2 WHERE id = $1 AND provider_ref IS NULL", id_, ref)


async def lacks_reference(db: Any, provider: str) -> bool:
    """Whether the provider may know an intent whose reference there is not kept yet."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM payments.intent WHERE provider = $1 AND provider_ref IS NULL"
        " AND status IN ('requires_payment', 'processing'))",
        provider,
    )  # fmt: skip
    return found


async def intents_left_open(db: Any, age: timedelta) -> list[UUID]:
    """Open so long past their time, the oldest first."""
    rows = await db.fetch(
        "SELECT id FROM payments.intent WHERE status IN ('requires_payment', 'processing')"
        " AND expires_at < now() - $1::interval ORDER BY expires_at",
        age,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def turn_intent(db: Any, id_: UUID, status: str, reason: str | None) -> None:
    await db.execute("UPDATE payments.intent SET status = $2, reason = $3 WHERE id = $1", id_, status, reason)


async def note_event(db: Any, provider: str, event_id: str, digest: bytes) -> bool:
    """Whether it is new. Of two deliveries at once, the second waits for the first."""
    tag = await db.execute(
        "INSERT INTO payments.gateway_event (provider, event_id, digest, outcome) VALUES ($1, $2, $3, 'received')"
        " ON CONFLICT DO NOTHING",
        provider, event_id, digest,
    )  # fmt: skip
    return bool(tag == "INSERT 0 1")


async def set_event_outcome(db: Any, provider: str, event_id: str, outcome: str) -> None:
    await db.execute(
        "UPDATE payments.gateway_event SET outcome = $3 WHERE provider = $1 AND event_id = $2",
        provider, event_id, outcome,
    )  # fmt: skip


# ------------------------------------------------------------ payments


async def insert_payment(
    db: Any, id_: UUID, intent_row: Any, purchase_id: UUID | None, provider_ref: str, asset: str, scale: int,
    units: int, ref: str,
) -> None:  # fmt: skip
    await db.execute(
        """
        INSERT INTO payments.payment (id, account_id, intent_id, purchase_id, provider, provider_ref, asset, scale,
            amount_units, ref)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        id_, intent_row["account_id"], intent_row["id"], purchase_id, intent_row["provider"], provider_ref, asset,
        scale, units, ref,
    )  # fmt: skip


async def payment(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.payment WHERE id = $1", id_)


async def lock_payment(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.payment WHERE id = $1 FOR UPDATE", id_)


async def payment_by_ref(db: Any, provider: str, provider_ref: str) -> Any:
    return await db.fetchrow(
        "SELECT id FROM payments.payment WHERE provider = $1 AND provider_ref = $2", provider, provider_ref
    )


async def payment_of_purchase(db: Any, purchase_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.payment WHERE purchase_id = $1", purchase_id)


async def payments(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    return await _list(db, _paged("payment"), account_id, before, limit)


async def turn_payment(db: Any, id_: UUID, status: str, sequence: int | None) -> Any:
    return await db.fetchrow(
        "UPDATE payments.payment SET status = $2, sequence = $3 WHERE id = $1 AND status = 'received' RETURNING *",
        id_, status, sequence,
    )  # fmt: skip


# ------------------------------------------------------------ purchases and entitlements


async def insert_purchase(
    db: Any, id_: UUID, account_id: UUID, offer: Any, seller_id: UUID, method: str
) -> Any:  # fmt: skip
    """Of one account those of a work come one after the other, until the transaction ends: a statement after this one
    sees all that the account began before, of whatever offer. Accounts do not wait for each other."""
    return await db.fetchrow(
        """
        INSERT INTO payments.purchase (id, account_id, offer_id, work_id, chapter_id, seller_id, kind, method, asset,
            scale, price_units, access_seconds)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
        FROM pg_advisory_xact_lock(hashtextextended('purchase ' || $2::uuid::text || $4::uuid::text, 0)) RETURNING *
        """,
        id_, account_id, offer["id"], offer["work_id"], offer["chapter_id"], seller_id, offer["kind"], method,
        offer["asset"], offer["scale"], offer["price_units"], offer["access_seconds"],
    )  # fmt: skip


async def count_unproved(db: Any, account_id: UUID, asset: str, units: int, most: int) -> bool:
    """Whether what the account paid today without a signature is at most `most` with these units, which then count."""
    tag = await db.execute(
        """
        INSERT INTO payments.unproved AS u VALUES ($1, $2, (now() AT TIME ZONE 'UTC')::date, $3)
        ON CONFLICT (account_id, asset) DO UPDATE SET day = excluded.day,
            units = excluded.units + CASE WHEN u.day = excluded.day THEN u.units ELSE 0 END
        WHERE excluded.units + CASE WHEN u.day = excluded.day THEN u.units ELSE 0 END <= $4
        """,
        account_id, asset, units, most,
    )  # fmt: skip
    return bool(tag == "INSERT 0 1")


async def purchase(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.purchase WHERE id = $1", id_)


async def lock_purchase(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.purchase WHERE id = $1 FOR UPDATE", id_)


async def purchases(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    return await _list(db, _paged("purchase"), account_id, before, limit)


async def sales(db: Any, seller_id: UUID, before: tuple[datetime, UUID] | None, limit: int) -> list[Any]:
    """Purchases that money came for, those where it came the latest first; `before` is the last of the page before."""
    position = "" if before is None else " AND (completed_at, id) < ($3, $4)"
    query = _paged("purchase", "seller_id") + f" AND status IN ('completed', 'refunded'){position}"
    return list(
        await db.fetch(query + " ORDER BY completed_at DESC, id DESC LIMIT $2", seller_id, limit, *(before or ()))
    )


async def complete_purchase(
    db: Any, id_: UUID, event_id: UUID, entitlement_id: UUID, kind: str, starts_at: datetime, ends_at: datetime | None
) -> bool:
    """And what it entitles to, by one statement. Whether it could be completed."""
    tag = await db.execute(
        """
        WITH completed AS (
            UPDATE payments.purchase SET status = 'completed', reason = NULL, event_id = $2, completed_at = now()
            WHERE id = $1 AND status IN ('pending', 'failed') RETURNING *)
        INSERT INTO payments.entitlement (id, account_id, work_id, chapter_id, kind, starts_at, ends_at, purchase_id)
        SELECT $3, account_id, work_id, chapter_id, $4, $5, $6, id FROM completed
        """,
        id_, event_id, entitlement_id, kind, starts_at, ends_at,
    )  # fmt: skip
    return bool(tag == "INSERT 0 1")


async def fail_purchase(db: Any, id_: UUID, reason: str | None) -> UUID | None:
    """Returns whose it is; None if it was not pending any more."""
    failed: UUID | None = await db.fetchval(
        "UPDATE payments.purchase SET status = 'failed', reason = $2 WHERE id = $1 AND status = 'pending'"
        " RETURNING account_id",
        id_, reason,
    )  # fmt: skip
    return failed


async def revoke_entitlement(db: Any, purchase_id: UUID) -> None:
    await db.execute(
        "UPDATE payments.entitlement SET revoked_at = now() WHERE purchase_id = $1 AND revoked_at IS NULL", purchase_id
    )


async def is_taken(db: Any, account_id: UUID, work_id: UUID, chapter_id: UUID | None, purchase_id: UUID) -> bool:
    """The work, or this chapter of it, is the account's for good; or another purchase than this one, of whatever kind,
    is paid for and the core has not answered yet, or was completed since this one was begun, and holds."""
    found: bool = await db.fetchval(
        """
        SELECT EXISTS (SELECT FROM payments.entitlement
            WHERE account_id = $1 AND work_id = $2 AND (chapter_id IS NULL OR chapter_id = $3) AND kind = 'own'
              AND revoked_at IS NULL)
          OR EXISTS (SELECT FROM payments.purchase p
            WHERE p.account_id = $1 AND p.work_id = $2 AND (p.chapter_id IS NULL OR p.chapter_id = $3) AND p.id <> $4
              AND (p.status = 'pending' AND p.method = 'balance'
                OR EXISTS (SELECT FROM payments.payment y WHERE y.purchase_id = p.id AND y.status = 'received')
                OR p.completed_at > (SELECT created_at FROM payments.purchase WHERE id = $4)
                  AND EXISTS (SELECT FROM payments.entitlement e WHERE e.purchase_id = p.id AND e.revoked_at IS NULL
                    AND (e.ends_at IS NULL OR e.ends_at > now()))))
        """,
        account_id, work_id, chapter_id, purchase_id,
    )  # fmt: skip
    return found


async def is_being_paid(db: Any, work_id: UUID) -> bool:
    """Whether a purchase of the work from a balance waits for the core's answer."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM payments.purchase"
        " WHERE work_id = $1 AND status = 'pending' AND method = 'balance')",
        work_id,
    )
    return found


async def may_use(
    db: Any, account_id: UUID, work_id: UUID, chapter_id: UUID | None, since: datetime | None
) -> bool:  # fmt: skip
    """The work, or this chapter of it, now, by a purchase that was begun by `since`, if that is given; without a
    chapter, anything of the work."""
    found: bool = await db.fetchval(
        """
        SELECT EXISTS (SELECT FROM payments.entitlement e
            WHERE account_id = $1 AND work_id = $2 AND ($3::uuid IS NULL OR chapter_id IS NULL OR chapter_id = $3)
              AND revoked_at IS NULL AND starts_at <= now() AND (ends_at IS NULL OR ends_at > now())
              AND ($4::timestamptz IS NULL
                OR $4 >= (SELECT created_at FROM payments.purchase WHERE id = e.purchase_id)))
        """,
        account_id, work_id, chapter_id, since,
    )  # fmt: skip
    return found


async def has_bought(db: Any, account_id: UUID, work_id: UUID) -> bool:
    """The work or a chapter of it, for good or for a time that may be over, and was not given back whole."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM payments.entitlement"
        " WHERE account_id = $1 AND work_id = $2 AND revoked_at IS NULL)",
        account_id, work_id,
    )  # fmt: skip
    return found


async def entitlement_of(db: Any, purchase_id: UUID) -> Any:
    return await db.fetchrow(
        "SELECT *, revoked_at IS NOT NULL OR coalesce(ends_at <= now(), false) AS ended FROM payments.entitlement"
        " WHERE purchase_id = $1",
        purchase_id,
    )


async def entitlements(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    query = (
        _paged("entitlement")
        + " AND revoked_at IS NULL AND starts_at <= now() AND (ends_at IS NULL OR ends_at > now())"
    )
    return await _list(db, query, account_id, before, limit)


# ------------------------------------------------------------ refunds


async def insert_refund(
    db: Any, id_: UUID, purchase_id: UUID | None, payment_id: UUID | None, asset: str, scale: int, units: int,
    reason: str, ref: str, lines: str, actor: UUID,
) -> None:  # fmt: skip
    await db.execute(
        """
        INSERT INTO payments.refund (id, purchase_id, payment_id, asset, scale, amount_units, reason, ref, lines,
            created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        id_, purchase_id, payment_id, asset, scale, units, reason, ref, lines, actor,
    )  # fmt: skip


async def refund(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM payments.refund WHERE id = $1", id_)


async def refunds_left_open(db: Any, age: timedelta) -> list[UUID]:
    """Held at those who had received it for so long, without a word of the provider, the oldest first."""
    rows = await db.fetch(
        "SELECT r.id FROM payments.refund r JOIN money.command c ON c.ref = r.ref"
        " WHERE r.status = 'processing' AND c.state = 'pending' AND c.updated_at < now() - $1::interval"
        " ORDER BY c.updated_at",
        age,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def turn_refund(db: Any, id_: UUID, status: str, failure: str | None) -> Any:
    return await db.fetchrow(
        "UPDATE payments.refund SET status = $2, failure = coalesce($3, failure) WHERE id = $1"
        " AND status IN ('approved', 'processing') RETURNING *",
        id_, status, failure,
    )  # fmt: skip


async def note_failure(db: Any, id_: UUID, failure: str | None) -> None:
    await db.execute("UPDATE payments.refund SET failure = $2 WHERE id = $1", id_, failure)


async def add_refunded(db: Any, purchase_id: UUID, units: int) -> Any:
    return await db.fetchrow(
        """
        UPDATE payments.purchase SET refunded_units = refunded_units + $2,
            status = CASE WHEN refunded_units + $2 = price_units THEN 'refunded' ELSE status END
        WHERE id = $1 RETURNING *
        """,
        purchase_id, units,
    )  # fmt: skip


async def refund_payment(db: Any, payment_id: UUID, units: int) -> Any:
    return await db.fetchrow(
        """
        UPDATE payments.payment SET refunded_units = refunded_units + $2,
            status = CASE WHEN refunded_units + $2 = amount_units THEN 'refunded' ELSE 'partially_refunded' END
        WHERE id = $1 RETURNING *
        """,
        payment_id, units,
    )  # fmt: skip


async def refund_intent(db: Any, intent_id: UUID, status: str) -> None:
    await db.execute(
        "UPDATE payments.intent SET status = $2 WHERE id = $1 AND status IN ('succeeded', 'partially_refunded')",
        intent_id, status,
    )  # fmt: skip


# ------------------------------------------------------------ transfers


async def insert_transfer(
    db: Any, id_: UUID, source_id: UUID, target_id: UUID, asset: str, scale: int, units: int, fee: int, note: str
) -> None:
    await db.execute(
        "INSERT INTO money.transfer (id, source_id, target_id, asset, scale, amount_units, fee_units, note)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        id_, source_id, target_id, asset, scale, units, fee, note,
    )  # fmt: skip


async def transfer(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM money.transfer WHERE id = $1", id_)


async def has_paid(db: Any, source_id: UUID, target_id: UUID) -> bool:
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM money.transfer"
        " WHERE source_id = $1 AND target_id = $2 AND status = 'completed')",
        source_id, target_id,
    )  # fmt: skip
    return found


async def transfers(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    """Those sent, and those received; the latest first."""
    position = "" if before is None else "AND id < $3 "
    halves = (
        f"(SELECT * FROM money.transfer WHERE {own} {position}ORDER BY id DESC LIMIT $2)"
        for own in ("source_id = $1", "target_id = $1 AND status = 'completed'")
    )
    arguments = (account_id, limit) if before is None else (account_id, limit, before)
    return list(await db.fetch(f"{' UNION ALL '.join(halves)} ORDER BY id DESC LIMIT $2", *arguments))


async def turn_transfer(db: Any, id_: UUID, status: str, reason: str | None) -> Any:
    return await db.fetchrow(
        "UPDATE money.transfer SET status = $2, reason = $3 WHERE id = $1 RETURNING *", id_, status, reason
    )
