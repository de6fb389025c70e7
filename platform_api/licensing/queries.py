"""SQL of terms, applications, licences, their periods and seats, and the chain. The connection comes first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from platform_api.database import insertion

SETS = dict.fromkeys(("scope_set", "territory_set"), "::text::int4multirange")
"""Multiranges come as texts."""
HELD = "('pending_payment', 'active')"
_PLUS = "(({} AT TIME ZONE 'UTC') + {}::text::interval) AT TIME ZONE 'UTC'"
"""A moment and an ISO 8601 duration, whatever time zone the connection has."""

_COLUMNS = (
    "id", "work_id", "level", "parent_license_id", "depth", "application_id", "terms_id", "terms_version",
    "licensor_id", "licensee_id", "license_type", "revenue_share_bps", "asset", "scale", "fee_units", "territories",
    "scope", "duration", "requirements", "restrictions", "sublicensing", "seats", "status", "starts_at", "ends_at",
    "reason", "created_at", "version",
)  # fmt: skip
_LICENSE = ", ".join(f"l.{name}" for name in _COLUMNS)
"""All but the sets, which are for the database alone."""
_PERIOD = "id, license_id, number, base_at, reserved, fee_units, pay_before, payment_ref, legs, yields, status"

# Terms.

_TERMS = (
    "license_type", "revenue_share_bps", "asset", "scale", "fee_units", "territories", "territory_list", "duration",
    "scope", "requirements", "restrictions", "sublicensing", "auto_approve", "max_licenses", "seats",
)  # fmt: skip


async def insert_terms(db: Any, terms_id: UUID, work_id: UUID, licensor_id: UUID, fields: Mapping[str, Any]) -> Any:
    ids = {"id": terms_id, "work_id": work_id, "licensor_id": licensor_id}
    insert, values = insertion("licensing.license_terms", ids | {name: fields[name] for name in _TERMS})
    return await db.fetchrow(f"{insert} RETURNING *", *values)


async def terms(db: Any, terms_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM licensing.license_terms WHERE id = $1", terms_id)


async def terms_of_work(db: Any, work_id: UUID) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM licensing.license_terms WHERE work_id = $1 AND active ORDER BY id", work_id
    )
    return rows


async def update_terms(db: Any, terms_id: UUID, fields: Mapping[str, Any]) -> Any:
    sets = "".join(f"{name} = ${number}, " for number, name in enumerate(fields, 2))
    return await db.fetchrow(
        f"UPDATE licensing.license_terms SET {sets}version = version + 1, updated_at = now() WHERE id = $1 RETURNING *",
        terms_id, *fields.values(),
    )  # fmt: skip


async def licenses_under(db: Any, terms_id: UUID) -> int:
    """Those that count against `max_licenses`: what yields does not, until it is paid."""
    return int(
        await db.fetchval(
            "SELECT count(*) FROM licensing.license l"
            " WHERE l.terms_id = $1 AND l.status IN ('pending_payment', 'active', 'suspended') AND NOT EXISTS ("
            "  SELECT FROM licensing.license_period p WHERE p.license_id = l.id AND p.status = 'pending_payment'"
            "  AND p.yields AND p.payment_ref IS NULL)",
            terms_id,
        )
    )


async def unpaid_under(db: Any, terms_id: UUID, licensee_id: UUID) -> bool:
    """Has this account a first fee to pay under these terms?"""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM licensing.license"
        " WHERE terms_id = $1 AND licensee_id = $2 AND status = 'pending_payment')",
        terms_id, licensee_id,
    )  # fmt: skip
    return found


# Applications.

_APPLICATION = (
    "SELECT a.*, l.id AS license_id FROM licensing.license_application a"
    " LEFT JOIN licensing.license l ON l.application_id = a.id"
)


async def insert_application(db: Any, fields: Mapping[str, Any]) -> None:
    insert, values = insertion("licensing.license_application", fields)
    await db.execute(insert, *values)


async def application(db: Any, application_id: UUID) -> Any:
    return await db.fetchrow(f"{_APPLICATION} WHERE a.id = $1", application_id)


async def applications(
    db: Any, party: str, account_id: UUID, status: str | None, before: UUID | None, limit: int
) -> list[Any]:
    """`party`: applicant or licensor; the latest first."""
    where, arguments = _of_party("a", party, account_id, status, before)
    rows: list[Any] = await db.fetch(f"{_APPLICATION} WHERE {where} ORDER BY a.id DESC LIMIT $1", limit, *arguments)
    return rows


def _of_party(
    table: str, party: str, account_id: UUID, status: str | None, before: UUID | None
) -> tuple[str, list[Any]]:
    """Only what is asked for becomes part of a statement, from $2 on, so each has its own index."""
    given = {f"{party}_id = ": account_id, "status = ": status, "id < ": before}
    asked = {condition: value for condition, value in given.items() if value is not None}
    where = " AND ".join(f"{table}.{condition}${number}" for number, condition in enumerate(asked, 2))
    return where, list(asked.values())


async def pending_applications(db: Any, after: UUID | None, limit: int) -> list[Any]:
    """The oldest first."""
    rows: list[Any] = await db.fetch(
        f"{_APPLICATION} WHERE a.status = 'pending' AND ($1::uuid IS NULL OR a.id > $1) ORDER BY a.id LIMIT $2",
        after, limit,
    )  # fmt: skip
    return rows


async def decide_application(db: Any, application_id: UUID, status: str, actor: UUID | None, reason: str) -> None:
    await db.execute(
        "UPDATE licensing.license_application SET status = $2, decided_by = $3, reason = $4, decided_at = now(),"
        " version = version + 1 WHERE id = $1",
        application_id, status, actor, reason,
    )  # fmt: skip


# Licences.


async def insert_license(db: Any, fields: Mapping[str, Any]) -> None:
    insert, values = insertion("licensing.license", fields, SETS)
    await db.execute(insert, *values)


async def lock_license(db: Any, license_id: UUID) -> Any:
    """The caller holds the lock of its work."""
    return await db.fetchrow(f"SELECT {_LICENSE} FROM licensing.license l WHERE l.id = $1 FOR UPDATE", license_id)


async def license_row(db: Any, license_id: UUID) -> Any:
    return await db.fetchrow(f"SELECT {_LICENSE} FROM licensing.license l WHERE l.id = $1", license_id)


async def licenses(
    db: Any, party: str, account_id: UUID, status: str | None, before: UUID | None, limit: int
) -> list[Any]:
    """`party`: licensee or licensor; the latest first."""
    where, arguments = _of_party("l", party, account_id, status, before)
    rows: list[Any] = await db.fetch(
        f"SELECT {_LICENSE} FROM licensing.license l WHERE {where} ORDER BY l.id DESC LIMIT $1", limit, *arguments
    )
    return rows


async def chain(db: Any, license_id: UUID, at: datetime) -> list[Any]:
    """The licence and all above it, the uppermost first; `holds`: active, and `at` is within its time."""
    rows: list[Any] = await db.fetch(
        f"""
        WITH RECURSIVE above AS (
            SELECT {_LICENSE} FROM licensing.license l WHERE l.id = $1
            UNION ALL
            SELECT {_LICENSE} FROM above a JOIN licensing.license l ON l.id = a.parent_license_id
        )
        SELECT a.*, a.status = 'active' AND a.starts_at <= $2 AND $2 < a.ends_at AS holds
        FROM above a ORDER BY a.depth
        """,
        license_id, at,
    )  # fmt: skip
    return rows


async def valid_ids(db: Any, license_ids: list[UUID], at: datetime) -> set[UUID]:
    """Those that hold, with all above them; these are looked up one by one: to join them, a plan that does not know how
    few they are reads all licences."""
    rows = await db.fetch(
        """
        WITH RECURSIVE above AS (
            SELECT l.id AS leaf, l.parent_license_id, l.status, l.starts_at, l.ends_at
            FROM licensing.license l WHERE l.id = ANY($1)
            UNION ALL
            SELECT a.leaf, p.* FROM above a CROSS JOIN LATERAL (
                SELECT p.parent_license_id, p.status, p.starts_at, p.ends_at
                FROM licensing.license p WHERE p.id = a.parent_license_id LIMIT 1) p
        )
        SELECT leaf FROM above GROUP BY leaf
        HAVING bool_and(status = 'active' AND coalesce(starts_at <= $2 AND $2 < ends_at, false))
        """,
        license_ids, at,
    )  # fmt: skip
    return {row["leaf"] for row in rows}


async def below(db: Any, license_id: UUID) -> list[Any]:
    """The licence and all that depend on it and are not at their end, the uppermost first."""
    rows: list[Any] = await db.fetch(
        f"""
        WITH RECURSIVE down AS (
            SELECT {_LICENSE} FROM licensing.license l WHERE l.id = $1
            UNION ALL
            SELECT {_LICENSE} FROM down d JOIN licensing.license l ON l.parent_license_id = d.id
        )
        SELECT * FROM down WHERE status IN ('pending_payment', 'active', 'suspended') ORDER BY depth, id
        """,
        license_id,
    )  # fmt: skip
    return rows


async def end_license(db: Any, license_id: UUID, status: str, reason: str) -> None:
    await db.execute(
        "UPDATE licensing.license SET status = $2, reason = $3, version = version + 1, updated_at = now()"
        " WHERE id = $1",
        license_id, status, reason,
    )  # fmt: skip


async def suspend_license(db: Any, license_id: UUID, status: str, reason: str) -> Any:
    """`status`: suspended, or active again."""
    return await db.fetchrow(
        f"UPDATE licensing.license l SET status = $2, reason = $3, version = version + 1, updated_at = now()"
        f" WHERE l.id = $1 RETURNING {_LICENSE}",
        license_id, status, reason,
    )  # fmt: skip


async def begin_license(db: Any, license_id: UUID, starts_at: datetime, ends_at: datetime) -> None:
    await db.execute(
        "UPDATE licensing.license SET status = CASE status WHEN 'suspended' THEN status ELSE 'active' END,"
        " starts_at = coalesce(starts_at, $2), ends_at = $3,"
        " version = version + 1, updated_at = now() WHERE id = $1",
        license_id, starts_at, ends_at,
    )  # fmt: skip


async def expired_licenses(db: Any, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT id, work_id FROM licensing.license WHERE status IN ('active', 'suspended') AND ends_at <= now()"
        " ORDER BY ends_at LIMIT $1",
        limit,
    )  # fmt: skip
    return rows


async def due_license(db: Any, license_id: UUID) -> Any:
    """Still to be ended, now under the lock."""
    return await db.fetchrow(
        f"SELECT {_LICENSE} FROM licensing.license l WHERE l.id = $1 AND l.status IN ('active', 'suspended')"
        " AND l.ends_at <= now() FOR UPDATE",
        license_id,
    )  # fmt: skip


async def note_event(db: Any, license_id: UUID, what: str, ends_at: datetime | None) -> None:
    await db.execute(
        "INSERT INTO licensing.license_event (license_id, what, ends_at) VALUES ($1, $2, $3)",
        license_id, what, ends_at,
    )  # fmt: skip


async def license_events(db: Any, license_id: UUID, after: int | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM licensing.license_event WHERE license_id = $1 AND ($2::bigint IS NULL OR number > $2)"
        " ORDER BY number LIMIT $3",
        license_id, after, limit,
    )  # fmt: skip
    return rows


# Periods: what is reserved, and paid for at once.


async def span(db: Any, base_at: datetime, from_at: datetime, duration: str) -> Any:
    """`least`: base and duration. `most`: the later of the two moments and duration."""
    return await db.fetchrow(
        f"SELECT {_PLUS.format('$1::timestamptz', '$3')} AS least,"
        f" {_PLUS.format('greatest($1::timestamptz, $2::timestamptz)', '$3')} AS most",
        base_at, from_at, duration,
    )  # fmt: skip


async def in_the_way(
    db: Any, level: UUID, exclusive: bool, scope_set: str, territory_set: str, from_at: datetime,
    until: datetime | None, own: UUID | None,
) -> Any:  # fmt: skip
    """A licence of the level that this one may not stand beside: either of the two is exclusive. A paid one if there is
    any, else the one that may be paid the longest."""
    return await db.fetchrow(
        f"""
        SELECT license_id, exclusive, CASE status WHEN 'pending_payment' THEN pay_before END AS unpaid_until
        FROM licensing.license_period
        WHERE level = $1 AND status IN {HELD} AND (exclusive OR $2) AND scope_set && $3::text::int4multirange
            AND territory_set && $4::text::int4multirange AND reserved && tstzrange($5, $6)
            AND ($7::uuid IS NULL OR license_id <> $7)
            AND NOT (status = 'pending_payment' AND yields AND payment_ref IS NULL)
        ORDER BY status = 'pending_payment', pay_before DESC LIMIT 1
        """,
        level, exclusive, scope_set, territory_set, from_at, until, own,
    )  # fmt: skip


async def insert_period(
    db: Any, period_id: UUID, license_id: UUID, exclusive: bool, base_at: datetime, until: datetime,
    pay_before: datetime, yields: bool,
) -> None:  # fmt: skip
    await db.execute(
        """
        INSERT INTO licensing.license_period (id, license_id, number, level, exclusive, territory_set, scope_set,
            base_at, reserved, fee_units, pay_before, yields, status)
        SELECT $1::uuid, l.id,
            (SELECT coalesce(max(number), 0) + 1 FROM licensing.license_period p WHERE p.license_id = l.id),
            l.level, $3::boolean, l.territory_set, l.scope_set, $4::timestamptz, tstzrange($4, $5), l.fee_units,
            $6::timestamptz, $7::boolean, 'pending_payment'
        FROM licensing.license l WHERE l.id = $2
        """,
        period_id, license_id, exclusive, base_at, until, pay_before, yields,
    )  # fmt: skip


async def period(db: Any, period_id: UUID) -> Any:
    return await db.fetchrow(f"SELECT {_PERIOD} FROM licensing.license_period WHERE id = $1", period_id)


async def unpaid_period(db: Any, license_id: UUID) -> Any:
    return await db.fetchrow(
        f"SELECT {_PERIOD} FROM licensing.license_period WHERE license_id = $1 AND status = 'pending_payment'",
        license_id,
    )  # fmt: skip


async def unpaid_periods(db: Any, license_ids: list[UUID]) -> dict[UUID, Any]:
    rows = await db.fetch(
        f"SELECT {_PERIOD} FROM licensing.license_period WHERE license_id = ANY($1) AND status = 'pending_payment'",
        license_ids,
    )  # fmt: skip
    return {row["license_id"]: row for row in rows}


async def begin_period(db: Any, period_id: UUID, starts_at: datetime, ends_at: datetime) -> None:
    await db.execute(
        "UPDATE licensing.license_period SET status = 'active', reserved = tstzrange($2, $3), paid_at = now()"
        " WHERE id = $1",
        period_id, starts_at, ends_at,
    )  # fmt: skip


async def begin_payment(db: Any, period_id: UUID, legs: str) -> str:
    """The ref of the payment that is under way from now on."""
    ref: str = await db.fetchval(
        "UPDATE licensing.license_period SET attempts = attempts + 1, legs = $2,"
        " payment_ref = 'lic:' || replace(id::text, '-', '') || ':' || (attempts + 1) WHERE id = $1"
        " RETURNING payment_ref",
        period_id, legs,
    )  # fmt: skip
    return ref


async def fail_payment(db: Any, period_id: UUID) -> None:
    await db.execute("UPDATE licensing.license_period SET payment_ref = NULL WHERE id = $1", period_id)


async def release_period(db: Any, period_id: UUID) -> None:
    """Nobody paid it."""
    await db.execute("UPDATE licensing.license_period SET status = 'released' WHERE id = $1", period_id)


async def end_periods(db: Any, license_id: UUID, status: str) -> list[UUID]:
    """`status`: of the one it had; one that was never paid is released. Those that it had."""
    rows = await db.fetch(
        "UPDATE licensing.license_period SET status = CASE status WHEN 'active' THEN $2::text ELSE 'released' END"
        f" WHERE license_id = $1 AND status IN {HELD} RETURNING id",
        license_id, status,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def periods_meeting(db: Any, license_id: UUID, from_at: datetime, until: datetime) -> list[UUID]:
    """Those of the licence that have some of this time."""
    rows = await db.fetch(
        f"SELECT id FROM licensing.license_period WHERE license_id = $1 AND status IN {HELD}"
        " AND reserved && tstzrange($2, $3)",
        license_id, from_at, until,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def lapsed_periods(db: Any, limit: int) -> list[Any]:
    """Not paid in time, and no payment is under way."""
    rows: list[Any] = await db.fetch(
        "SELECT p.id, p.license_id, l.work_id FROM licensing.license_period p"
        " JOIN licensing.license l ON l.id = p.license_id"
        " WHERE p.status = 'pending_payment' AND p.pay_before <= now() AND p.payment_ref IS NULL"
        " ORDER BY p.pay_before LIMIT $1",
        limit,
    )  # fmt: skip
    return rows


async def due_period(db: Any, period_id: UUID) -> Any:
    """Still unpaid, now under the lock."""
    return await db.fetchrow(
        f"SELECT {_PERIOD} FROM licensing.license_period WHERE id = $1 AND status = 'pending_payment'"
        " AND pay_before <= now() AND payment_ref IS NULL",
        period_id,
    )  # fmt: skip


async def lapsed_of_level(db: Any, level: UUID) -> list[Any]:
    """Those in the way of others of their level although nobody paid them in time."""
    rows: list[Any] = await db.fetch(
        f"SELECT id, license_id FROM licensing.license_period WHERE level = $1 AND status IN {HELD}"
        " AND status = 'pending_payment' AND pay_before <= now() AND payment_ref IS NULL",
        level,
    )  # fmt: skip
    return rows


async def refundable_periods(db: Any, license_id: UUID, above: str) -> list[Any]:
    """Of the licence and all below it, the uppermost first: paid, and not over, or not over when it was revoked.

    `above`: the reason of a licence that was revoked with one above it. Of a licence whose fee was refunded none.
    """
    rows: list[Any] = await db.fetch(
        f"""
        WITH RECURSIVE down AS (
            SELECT id, depth, status, reason FROM licensing.license WHERE id = $1
            UNION ALL
            SELECT l.id, l.depth, l.status, l.reason FROM down d JOIN licensing.license l ON l.parent_license_id = d.id
        )
        SELECT {", ".join(f"p.{name.strip()}" for name in _PERIOD.split(","))}, p.paid_at
        FROM down d JOIN licensing.license_period p ON p.license_id = d.id
        WHERE p.payment_ref IS NOT NULL AND p.paid_at IS NOT NULL
            AND CASE p.status WHEN 'active' THEN upper(p.reserved) > now()
                WHEN 'released' THEN d.status = 'revoked' AND (d.id = $1 OR d.reason = $2) AND upper(p.reserved) >
                    (SELECT max(e.at) FROM licensing.license_event e WHERE e.license_id = d.id AND e.what = 'revoked')
                ELSE false END
            AND NOT EXISTS (SELECT FROM licensing.license_refund r
                WHERE r.license_id = d.id AND r.status = 'succeeded')
        ORDER BY d.depth, d.id, p.number
        """,
        license_id, above,
    )  # fmt: skip
    return rows


async def ended_licenses(db: Any, work_id: UUID, licensee_id: UUID) -> list[UUID]:
    """Of the work, that this account had."""
    rows = await db.fetch(
        "SELECT id FROM licensing.license WHERE work_id = $1 AND licensee_id = $2 AND status IN ('expired', 'revoked')",
        work_id, licensee_id,
    )  # fmt: skip
    return [row["id"] for row in rows]


# Refunds of fees.


async def insert_refund(db: Any, refund_id: UUID, license_id: UUID, lines: str, reason: str, actor: UUID) -> None:
    await db.execute(
        "INSERT INTO licensing.license_refund (id, license_id, lines, reason, created_by) VALUES ($1, $2, $3, $4, $5)",
        refund_id, license_id, lines, reason, actor,
    )  # fmt: skip


async def refund(db: Any, refund_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM licensing.license_refund WHERE id = $1", refund_id)


async def has_open_refund(db: Any, license_id: UUID) -> bool:
    """Of this licence, of one above it, or of one below it."""
    found: bool = await db.fetchval(
        """
        WITH RECURSIVE above AS (
            SELECT id, parent_license_id FROM licensing.license WHERE id = $1
            UNION ALL
            SELECT l.id, l.parent_license_id FROM above a JOIN licensing.license l ON l.id = a.parent_license_id
        ), down AS (
            SELECT id FROM licensing.license WHERE id = $1
            UNION ALL
            SELECT l.id FROM down d JOIN licensing.license l ON l.parent_license_id = d.id
        )
        SELECT EXISTS (SELECT FROM licensing.license_refund WHERE status = 'processing'
            AND license_id IN (SELECT id FROM above UNION SELECT id FROM down))
        """,
        license_id,
    )  # fmt: skip
    return found


async def is_being_paid(db: Any, license_id: UUID) -> bool:
    """Whether a fee of this licence, or of one below it, is on its way."""
    found: bool = await db.fetchval(
        """
        WITH RECURSIVE down AS (
            SELECT id FROM licensing.license WHERE id = $1
            UNION ALL
            SELECT l.id FROM down d JOIN licensing.license l ON l.parent_license_id = d.id
        )
        SELECT EXISTS (SELECT FROM licensing.license_period p JOIN down d ON d.id = p.license_id
            WHERE p.status = 'pending_payment' AND p.payment_ref IS NOT NULL)
        """,
        license_id,
    )  # fmt: skip
    return found


async def is_reserved(db: Any, work_id: UUID) -> bool:
    """Whether a licence on the work waits for its fee, or the core has not answered yet about one, which goes back if
    the licence has ended meanwhile."""
    found: bool = await db.fetchval(
        """
        SELECT EXISTS (SELECT FROM licensing.license_period p JOIN licensing.license l ON l.id = p.license_id
            WHERE p.status = 'pending_payment' AND l.work_id = $1)
          OR EXISTS (SELECT FROM money.command c JOIN licensing.license_period p ON p.id = c.document_id
            JOIN licensing.license l ON l.id = p.license_id
            WHERE c.state IN ('ordered', 'posting', 'voiding', 'stuck') AND l.work_id = $1)
        """,
        work_id,
    )
    return found


async def turn_refund(db: Any, refund_id: UUID, status: str) -> None:
    await db.execute("UPDATE licensing.license_refund SET status = $2 WHERE id = $1", refund_id, status)


# The chain.


async def insert_node(db: Any, node_id: UUID, license_id: UUID, code: str) -> None:
    await db.execute(
        """
        INSERT INTO licensing.authorization_node (id, parent_id, work_id, license_id, verification_code)
        SELECT $1::uuid, (SELECT n.id FROM licensing.authorization_node n WHERE n.license_id = l.parent_license_id),
            l.work_id, l.id, $3::text
        FROM licensing.license l WHERE l.id = $2
        """,
        node_id, license_id, code,
    )  # fmt: skip


async def node_of_code(db: Any, code: str) -> Any:
    return await db.fetchrow("SELECT * FROM licensing.authorization_node WHERE verification_code = $1", code)


async def codes(db: Any, license_ids: list[UUID]) -> dict[UUID, str]:
    rows = await db.fetch(
        "SELECT license_id, verification_code FROM licensing.authorization_node WHERE license_id = ANY($1)", license_ids
    )
    return {row["license_id"]: row["verification_code"] for row in rows}


async def revoke_node(db: Any, license_id: UUID) -> bool:
    tag = await db.execute(
        "UPDATE licensing.authorization_node SET active = false, revoked_at = now() WHERE license_id = $1 AND active",
        license_id,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


# Seats.


async def seats(db: Any, license_id: UUID, after: UUID | None, limit: int) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM licensing.license_seat WHERE license_id = $1 AND released_at IS NULL"
        " AND ($2::uuid IS NULL OR account_id > $2) ORDER BY account_id LIMIT $3",
        license_id, after, limit,
    )  # fmt: skip
    return rows


_SEAT_HOLDS = """
    s.released_at IS NULL AND NOT EXISTS (
        WITH RECURSIVE above AS (
            SELECT x.parent_license_id, x.status, x.starts_at, x.ends_at
            FROM licensing.license x WHERE x.id = s.license_id
            UNION ALL
            SELECT p.parent_license_id, p.status, p.starts_at, p.ends_at
            FROM above a JOIN licensing.license p ON p.id = a.parent_license_id
        )
        SELECT FROM above WHERE status <> 'active' OR starts_at > now() OR ends_at <= now())
"""
"""Of a seat `s`: its licence holds now, and so does every one above it."""


async def seat_opens(db: Any, account_id: UUID, work_id: UUID, since: datetime | None) -> bool:
    """Whether a seat of the account opens the work now, and was theirs `since` then."""
    found: bool = await db.fetchval(
        f"""
        SELECT EXISTS (
            SELECT FROM licensing.license_seat s JOIN licensing.license l ON l.id = s.license_id
            WHERE s.account_id = $1 AND l.work_id = $2 AND ($3::timestamptz IS NULL OR s.assigned_at <= $3)
              AND {_SEAT_HOLDS})
        """,
        account_id, work_id, since,
    )  # fmt: skip
    return found


async def seats_of_account(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    """Those that open something now, the latest first, with the work and the end of their licence."""
    rows: list[Any] = await db.fetch(
        f"""
        SELECT s.id, s.license_id, s.assigned_at, l.work_id, l.ends_at
        FROM licensing.license_seat s JOIN licensing.license l ON l.id = s.license_id
        WHERE s.account_id = $1 AND ($2::uuid IS NULL OR s.id < $2) AND {_SEAT_HOLDS}
        ORDER BY s.id DESC LIMIT $3
        """,
        account_id, before, limit,
    )  # fmt: skip
    return rows


async def last_seat(db: Any, license_id: UUID, account_id: UUID) -> Any:
    """The seat that the account has of the licence, or had last."""
    return await db.fetchrow(
        "SELECT * FROM licensing.license_seat WHERE account_id = $2 AND license_id = $1 ORDER BY id DESC LIMIT 1",
        license_id, account_id,
    )  # fmt: skip


async def seat_count(db: Any, license_id: UUID) -> int:
    query = "SELECT count(*) FROM licensing.license_seat WHERE license_id = $1 AND released_at IS NULL"
    return int(await db.fetchval(query, license_id))


async def insert_seat(db: Any, seat_id: UUID, license_id: UUID, account_id: UUID) -> Any:
    """None if the account has a seat already."""
    return await db.fetchrow(
        "INSERT INTO licensing.license_seat (id, license_id, account_id) VALUES ($1, $2, $3)"
        " ON CONFLICT (license_id, account_id) WHERE released_at IS NULL DO NOTHING RETURNING *",
        seat_id, license_id, account_id,
    )  # fmt: skip


async def release_seat(db: Any, license_id: UUID, account_id: UUID) -> bool:
    tag = await db.execute(
        "UPDATE licensing.license_seat SET released_at = now()"
        " WHERE license_id = $1 AND account_id = $2 AND released_at IS NULL",
        license_id, account_id,
    )  # fmt: skip
    return str(tag) == "UPDATE 1"


async def release_seats(db: Any, license_id: UUID) -> None:
    await db.execute(
        "UPDATE licensing.license_seat SET released_at = now() WHERE license_id = $1 AND released_at IS NULL",
        license_id,
    )  # fmt: skip
