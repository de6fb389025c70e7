"""SQL of the schema `royalties`. The connection comes first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

__all__ = [
    "add_consents", "add_owed", "add_set_aside", "balances", "before_sale", "close_rule", "consents", "cover",
    "covered", "debts_and_cover", "debts_to_come", "distribution", "distribution_lines", "distributions_by_event",
    "distributions_of", "entries_of_account", "event_by_ref", "finish_distribution", "gathering", "has_paid",
    "insert_cover", "insert_distribution", "insert_entry", "insert_gathering", "insert_payout", "insert_rule",
    "is_cover_open", "lines_of_month", "lock_cover", "lock_distribution", "lock_owed", "lock_rule", "note_gathering",
    "note_part", "open_rule", "part", "part_by_ref", "payout", "payouts", "policies", "policy_at", "release",
    "reverse_line", "rule", "rule_at", "rule_lines", "rules", "sold_in", "standing_rules", "starts_replaced",
    "statement", "statements", "take_consent", "titles_until", "totals_of", "totals_of_work", "turn_cover",
    "turn_payout",
]  # fmt: skip

# ------------------------------------------------------------ rules


async def policies(db: Any) -> list[Any]:
    return list(
        await db.fetch(
            "SELECT DISTINCT ON (revenue_kind) revenue_kind, platform_bps FROM royalties.policy"
            " WHERE effective_from <= now() ORDER BY revenue_kind, effective_from DESC"
        )
    )


_POLICY = (
    "SELECT platform_bps FROM royalties.policy WHERE revenue_kind = $1 AND effective_from <= $2"
    " ORDER BY effective_from DESC LIMIT 1"
)


async def policy_at(db: Any, kind: str, at: datetime) -> int | None:
    share: int | None = await db.fetchval(_POLICY, kind, at)
    return share


_RULE = "SELECT id, work_id, version, revenue_kind, effective_from, status, proposed_by FROM royalties.rule "


async def rules(db: Any, work_id: UUID) -> list[Any]:
    return list(await db.fetch(_RULE + "WHERE work_id = $1 ORDER BY version DESC LIMIT 200", work_id))


async def rule(db: Any, rule_id: UUID) -> Any:
    return await db.fetchrow(_RULE + "WHERE id = $1", rule_id)


async def rule_at(db: Any, work_id: UUID, kind: str, at: datetime) -> Any:
    """The one of this kind, else the one for any, that counted then."""
    return await db.fetchrow(
        _RULE + "WHERE work_id = $1 AND revenue_kind IN ($2, 'any') AND status = 'effective' AND effective_from <= $3"
        " ORDER BY revenue_kind = 'any', effective_from DESC, version DESC LIMIT 1",
        work_id, kind, at,
    )  # fmt: skip


async def standing_rules(db: Any, work_id: UUID) -> list[Any]:
    """Of each kind the rule that counts now, and those that will."""
    return list(
        await db.fetch(
            """
            SELECT * FROM (
                SELECT DISTINCT ON (revenue_kind) id, revenue_kind, effective_from FROM royalties.rule
                WHERE work_id = $1 AND status = 'effective' AND effective_from <= clock_timestamp()
                ORDER BY revenue_kind, effective_from DESC, version DESC
            ) counting
            UNION ALL
            SELECT id, revenue_kind, effective_from FROM royalties.rule
            WHERE work_id = $1 AND status = 'effective' AND effective_from > clock_timestamp()
            """,
            work_id,
        )
    )


async def starts_replaced(db: Any, work_id: UUID, kind: str, at: datetime) -> list[datetime]:
    """When rules for any kind begin that one of this kind from `at` on would stand before, until its own successor."""
    rows = await db.fetch(
        """
        SELECT effective_from FROM royalties.rule
        WHERE work_id = $1 AND revenue_kind = 'any' AND status = 'effective' AND effective_from > $3
          AND effective_from < coalesce((SELECT min(effective_from) FROM royalties.rule
            WHERE work_id = $1 AND revenue_kind = $2 AND status = 'effective' AND effective_from > $3), 'infinity')
        ORDER BY effective_from
        """,
        work_id, kind, at,
    )  # fmt: skip
    return [row["effective_from"] for row in rows]


async def lock_rule(db: Any, rule_id: UUID) -> Any:
    return await db.fetchrow(_RULE + "WHERE id = $1 FOR UPDATE", rule_id)


async def open_rule(db: Any, work_id: UUID, kind: str) -> Any:
    return await db.fetchrow(_RULE + "WHERE work_id = $1 AND revenue_kind = $2 AND status = 'pending'", work_id, kind)


async def insert_rule(
    db: Any, rule_id: UUID, work_id: UUID, kind: str, effective_from: datetime, status: str, actor: UUID,
    lines: Sequence[tuple[UUID, str, int]],
) -> Any:  # fmt: skip
    """Its version is the next; the caller has locked the work."""
    row = await db.fetchrow(
        """
        INSERT INTO royalties.rule (id, work_id, version, revenue_kind, effective_from, status, proposed_by)
        SELECT $1, $2, coalesce((SELECT max(version) FROM royalties.rule WHERE work_id = $2), 0) + 1, $3, $4, $5, $6
        RETURNING id, work_id, version, revenue_kind, effective_from, status, proposed_by
        """,
        rule_id, work_id, kind, effective_from, status, actor,
    )  # fmt: skip
    await db.executemany(
        "INSERT INTO royalties.rule_line (rule_id, account_id, role, bps) VALUES ($1, $2, $3, $4)",
        [(rule_id, *line) for line in lines],
    )
    return row


async def rule_lines(db: Any, rule_id: UUID) -> list[Any]:
    return list(
        await db.fetch(
            "SELECT account_id, role, bps FROM royalties.rule_line WHERE rule_id = $1 ORDER BY account_id", rule_id
        )
    )


async def add_consents(db: Any, rule_id: UUID, accounts: Sequence[UUID]) -> None:
    await db.executemany(
        "INSERT INTO royalties.rule_consent (rule_id, account_id) VALUES ($1, $2)",
        [(rule_id, account_id) for account_id in accounts],
    )


async def consents(db: Any, rule_id: UUID) -> list[Any]:
    return list(
        await db.fetch(
            "SELECT account_id, agreed FROM royalties.rule_consent WHERE rule_id = $1 ORDER BY account_id", rule_id
        )
    )


async def take_consent(db: Any, rule_id: UUID, account_id: UUID, agree: bool) -> bool:
    """Whether the account is one of those asked."""
    tag = await db.execute(
        "UPDATE royalties.rule_consent SET agreed = $3, decided_at = now() WHERE rule_id = $1 AND account_id = $2",
        rule_id, account_id, agree,
    )  # fmt: skip
    return bool(tag == "UPDATE 1")


async def close_rule(db: Any, rule_id: UUID, status: str) -> None:
    """One that becomes effective does not reach back."""
    await db.execute(
        "UPDATE royalties.rule SET status = $2, effective_from = greatest(effective_from, now()) WHERE id = $1",
        rule_id, status,
    )  # fmt: skip


# ------------------------------------------------------------ gathering


async def insert_gathering(db: Any, ref: str, plan: str) -> None:
    await db.execute("INSERT INTO royalties.gathering (ref, plan) VALUES ($1, $2)", ref, plan)


async def gathering(db: Any, ref: str) -> Any:
    return await db.fetchrow("SELECT * FROM royalties.gathering WHERE ref = $1", ref)


async def note_gathering(db: Any, ref: str, state: str, reason: str | None) -> None:
    await db.execute("UPDATE royalties.gathering SET state = $2, reason = $3 WHERE ref = $1", ref, state, reason)


# ------------------------------------------------------------ distributions


async def before_sale(db: Any, source_ref: str, kind: str, at: datetime) -> tuple[UUID | None, int | None]:
    """The event of that ref, if it is recorded already, and the platform's share then, if there was a policy."""
    row = await db.fetchrow(
        f"SELECT (SELECT id FROM royalties.revenue_event WHERE source_ref = $3) AS event_id, ({_POLICY}) AS share",
        kind, at, source_ref,
    )  # fmt: skip
    return row["event_id"], row["share"]


async def event_by_ref(db: Any, source_ref: str) -> Any:
    return await db.fetchrow("SELECT id, platform_units FROM royalties.revenue_event WHERE source_ref = $1", source_ref)


async def insert_distribution(
    db: Any, event: Sequence[Any], id_: UUID, rule_id: UUID | None, month: date,
    parts: Sequence[tuple[UUID, str, str, str]], lines: Sequence[tuple[int, UUID, UUID | None, str, str, int, int]],
) -> None:  # fmt: skip
    """A sale, how it is divided, and whom that pays, by one statement.

    Args:
        event: id, kind, source_ref, work_id, licence_id, asset, scale, gross_units, platform_units, occurred_at and
            purchase_id.
        month: of the sale, its first day. That a sale of the work has paid somebody in it is noted in one order, so
            that of two first sales of a month the one waits for the other.
        parts: work_id, ref, command and accounts of each command, numbered as they come.
        lines: part, work_id, account_id, account, role, bps and units, numbered as they come.
    """
    await db.execute(
        """
        WITH event AS (
            INSERT INTO royalties.revenue_event (id, kind, source_ref, work_id, licence_id, asset, scale, gross_units,
                platform_units, occurred_at, purchase_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)),
        distribution AS (
            INSERT INTO royalties.distribution (id, event_id, rule_id, parts)
            VALUES ($12, $1, $13, cardinality($15::uuid[]))),
        part AS (
            INSERT INTO royalties.distribution_part (distribution_id, number, work_id, ref, command, accounts)
            SELECT $12, p.place - 1, p.work_id, p.ref, p.command, p.accounts
            FROM unnest($15::uuid[], $16::text[], $17::text[], $18::text[])
                WITH ORDINALITY AS p (work_id, ref, command, accounts, place)),
        line AS (
            INSERT INTO royalties.distribution_line (distribution_id, number, part, work_id, account_id, account, role,
                bps, amount_units)
            SELECT $12, l.place - 1, l.part, l.work_id, l.account_id, l.account, l.role, l.bps, l.units
            FROM unnest($19::integer[], $20::uuid[], $21::uuid[], $22::text[], $23::text[], $24::integer[],
                    $25::bigint[])
                WITH ORDINALITY AS l (part, work_id, account_id, account, role, bps, units, place)
            RETURNING account_id, amount_units)
        INSERT INTO royalties.paid_by_work (work_id, account_id, month)
        SELECT DISTINCT $4::uuid, account_id, $14::date FROM line
        WHERE account_id IS NOT NULL AND amount_units > 0 ORDER BY account_id
        ON CONFLICT DO NOTHING
        """,
        *event, id_, rule_id, month, *_columns(parts, 4), *_columns(lines, 7),
    )  # fmt: skip


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(count)]


async def has_paid(db: Any, work_id: UUID, account_id: UUID, month: date | None) -> bool:
    """Whether a sale of the work, of that month or ever, has paid the account."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM royalties.paid_by_work WHERE work_id = $1 AND account_id = $2"
        " AND ($3::date IS NULL OR month = $3))",
        work_id, account_id, month,
    )  # fmt: skip
    return found


_DISTRIBUTION = """
    SELECT d.id, d.rule_id, d.status, d.parts, d.posted_at, e.id AS event_id, e.kind, e.source_ref, e.work_id, e.asset,
           e.scale, e.gross_units, e.platform_units, e.occurred_at, e.purchase_id, e.licence_id
    FROM royalties.distribution d JOIN royalties.revenue_event e ON e.id = d.event_id
"""


async def distribution(db: Any, id_: UUID) -> Any:
    return await db.fetchrow(_DISTRIBUTION + "WHERE d.id = $1", id_)


async def distributions_by_event(db: Any, events: Sequence[UUID]) -> dict[UUID, UUID]:
    rows = await db.fetch("SELECT event_id, id FROM royalties.distribution WHERE event_id = ANY($1)", list(events))
    return {row["event_id"]: row["id"] for row in rows}


async def lock_distribution(db: Any, event_id: UUID) -> Any:
    return await db.fetchrow(_DISTRIBUTION + "WHERE d.event_id = $1 FOR UPDATE OF d", event_id)


async def distributions_of(db: Any, work_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    """Of a work's own sales, the latest first; `before` is an event id."""
    position = "" if before is None else " AND e.id < $3"
    arguments = (work_id, limit) if before is None else (work_id, limit, before)
    return list(
        await db.fetch(_DISTRIBUTION + f"WHERE e.work_id = $1{position} ORDER BY e.id DESC LIMIT $2", *arguments)
    )


async def lines_of_month(
    db: Any, work_id: UUID, asset: str, kind: str | None, since: datetime, until: datetime, limit: int
) -> list[Any]:
    """What each payee has of a work's own sales in an asset, of one kind or all, for each share that they had; the
    platform first. `sales`: how many these are, at most `limit`."""
    arguments: list[Any] = [work_id, asset, since, until, limit]
    only = ""
    if kind is not None:
        arguments.append(kind)
        only = " AND kind = $6"
    return list(
        await db.fetch(
            f"""
            SELECT l.work_id, l.account_id, l.role, l.bps, sum(l.amount_units)::bigint AS amount,
                sum(l.reversed_units)::bigint AS reversed, max(sale.sales) AS sales
            FROM (
                SELECT id, count(*) OVER () AS sales FROM (
                    SELECT id FROM royalties.revenue_event
                    WHERE work_id = $1 AND asset = $2 AND occurred_at >= $3 AND occurred_at < $4{only} LIMIT $5
                ) found
            ) sale
            JOIN royalties.distribution d ON d.event_id = sale.id
            JOIN royalties.distribution_line l ON l.distribution_id = d.id
            GROUP BY l.work_id, l.account_id, l.role, l.bps
            ORDER BY l.account_id IS NOT NULL, l.work_id, l.account_id, l.role, l.bps
            """,
            *arguments,
        )
    )


_LINES = """
    SELECT l.*, p.sequence, p.ref FROM royalties.distribution_line l
    LEFT JOIN royalties.distribution_part p ON p.distribution_id = l.distribution_id AND p.number = l.part
"""


async def distribution_lines(db: Any, ids: Sequence[UUID]) -> list[Any]:
    """By distribution and number. One is asked for by a statement of its own: of a list PostgreSQL plans each anew."""
    if len(ids) == 1:
        return list(await db.fetch(_LINES + "WHERE l.distribution_id = $1 ORDER BY l.number", ids[0]))
    return list(
        await db.fetch(_LINES + "WHERE l.distribution_id = ANY($1) ORDER BY l.distribution_id, l.number", list(ids))
    )


async def part_by_ref(db: Any, ref: str) -> Any:
    return await db.fetchrow("SELECT * FROM royalties.distribution_part WHERE ref = $1", ref)


async def part(db: Any, id_: UUID, number: int) -> Any:
    return await db.fetchrow(
        "SELECT * FROM royalties.distribution_part WHERE distribution_id = $1 AND number = $2", id_, number
    )


async def note_part(db: Any, id_: UUID, number: int, sequence: int | None) -> None:
    """Notes where it was posted."""
    await db.execute(
        "UPDATE royalties.distribution_part SET sequence = $3 WHERE distribution_id = $1 AND number = $2",
        id_, number, sequence,
    )  # fmt: skip


async def finish_distribution(db: Any, id_: UUID, status: str) -> None:
    await db.execute(
        "UPDATE royalties.distribution SET status = $2, posted_at = coalesce(posted_at, now()) WHERE id = $1",
        id_, status,
    )  # fmt: skip


async def reverse_line(db: Any, id_: UUID, number: int, units: int) -> None:
    await db.execute(
        "UPDATE royalties.distribution_line SET reversed_units = reversed_units + $3"
        " WHERE distribution_id = $1 AND number = $2",
        id_, number, units,
    )  # fmt: skip


# ------------------------------------------------------------ entries and what is made of them


async def insert_entry(db: Any, entry_id: UUID, fields: tuple[Any, ...]) -> None:
    """With its part of the sums that are kept; the caller has locked the account's row of `owed`.

    `happened_at` is read under the lock that the insert takes, so a closed period never gets one more.
    """
    await db.execute("LOCK TABLE royalties.entry IN ROW EXCLUSIVE MODE")
    await db.execute(
        """
        WITH made AS (
            INSERT INTO royalties.entry (id, account_id, kind, asset, scale, amount_units, happened_at, matures_at,
                work_id, revenue_kind, distribution_id, licence_id, ref, sequence)
            VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(),
                coalesce($7::timestamptz, clock_timestamp() + $8::interval), $9, $10, $11, $12, $13, $14)
            RETURNING account_id, kind, asset, scale, happened_at, matures_at, work_id,
                CASE kind WHEN 'earned' THEN amount_units ELSE 0 END AS earned,
                CASE kind WHEN 'reversed' THEN amount_units ELSE 0 END AS reversed,
                CASE kind WHEN 'paid' THEN amount_units ELSE 0 END AS paid
        ), day AS (
            INSERT INTO royalties.daily AS d (account_id, day, asset, scale, earned, reversed, paid)
            SELECT account_id, (happened_at AT TIME ZONE 'UTC')::date, asset, scale, earned, reversed, paid FROM made
            ON CONFLICT (account_id, day, asset) DO UPDATE SET earned = d.earned + excluded.earned,
                reversed = d.reversed + excluded.reversed, paid = d.paid + excluded.paid
        ), work AS (
            INSERT INTO royalties.work_income AS w (work_id, account_id, asset, scale, earned, reversed)
            SELECT work_id, account_id, asset, scale, earned, reversed FROM made
            WHERE work_id IS NOT NULL AND kind <> 'paid'
            ON CONFLICT (work_id, account_id, asset) DO UPDATE SET earned = w.earned + excluded.earned,
                reversed = w.reversed + excluded.reversed
        )
        INSERT INTO royalties.maturing AS m (account_id, span, begins, asset, units)
        SELECT account_id, s.span, date_bin(s.span, matures_at, 'epoch'), asset, earned - reversed
        FROM made, (VALUES (interval '1 day'), (interval '5 minutes')) AS s (span) WHERE kind <> 'paid'
        ON CONFLICT (account_id, span, begins, asset) DO UPDATE SET units = m.units + excluded.units
        """,
        entry_id, *fields,
    )  # fmt: skip


async def add_owed(db: Any, account_id: UUID, asset: str, units: int) -> None:
    await db.execute(
        "INSERT INTO royalties.owed AS o (account_id, asset, units) VALUES ($1, $2, $3)"
        " ON CONFLICT (account_id, asset) DO UPDATE SET units = o.units + excluded.units",
        account_id, asset, units,
    )  # fmt: skip


async def lock_owed(db: Any, asset: str, accounts: Sequence[UUID]) -> None:
    """Until the transaction ends nobody else writes entries of these accounts in this asset; in ascending order.

    A row that is there is locked by the conflict alone: PostgreSQL locks it before it looks whether to update it.
    """
    await db.execute(
        "INSERT INTO royalties.owed AS o (account_id, asset, units) SELECT id, $1, 0 FROM unnest($2::uuid[]) AS id"
        " ORDER BY id ON CONFLICT (account_id, asset) DO UPDATE SET units = o.units WHERE false",
        asset, accounts,
    )  # fmt: skip


async def add_set_aside(db: Any, ref: str, asset: str, parts: Sequence[tuple[UUID, int]]) -> None:
    await db.executemany(
        "INSERT INTO royalties.set_aside (ref, account_id, asset, units) VALUES ($1, $2, $3, $4)",
        [(ref, account_id, asset, units) for account_id, units in parts],
    )


async def release(db: Any, ref: str) -> None:
    await db.execute("DELETE FROM royalties.set_aside WHERE ref = $1", ref)


_COVERED = "SELECT units FROM royalties.cover WHERE asset = $1 AND status = 'posted' ORDER BY number DESC LIMIT 1"


async def debts_and_cover(db: Any, asset: str) -> tuple[int, int]:
    """What all payees together owe us, and what is laid aside for it."""
    row = await db.fetchrow(
        f"SELECT coalesce(-sum(units), 0)::bigint, coalesce(({_COVERED}), 0)"
        " FROM royalties.owed WHERE asset = $1 AND units < 0",
        asset,
    )
    return row[0], row[1]


async def debts_to_come(db: Any, asset: str) -> int:
    """What all payees together would owe us if all refunds under way came about."""
    total: int = await db.fetchval(
        """
        SELECT (
            (SELECT coalesce(-sum(units), 0) FROM royalties.owed WHERE asset = $1 AND units < 0)
            + (SELECT coalesce(sum(greatest(s.units - coalesce(o.units, 0), 0) - greatest(-coalesce(o.units, 0), 0)), 0)
               FROM (SELECT account_id, sum(units) AS units FROM royalties.set_aside WHERE asset = $1
                     GROUP BY account_id) s
               LEFT JOIN royalties.owed o ON o.account_id = s.account_id AND o.asset = $1)
        )::bigint
        """,
        asset,
    )
    return total


async def covered(db: Any, asset: str) -> int:
    units: int | None = await db.fetchval(_COVERED, asset)
    return units or 0


async def lock_cover(db: Any, asset: str) -> None:
    await db.execute("SELECT pg_advisory_xact_lock(hashtext('royalties.cover ' || $1))", asset)


async def is_cover_open(db: Any, asset: str) -> bool:
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM royalties.cover WHERE asset = $1 AND status = 'ordered')", asset
    )
    return found


async def insert_cover(db: Any, id_: UUID, asset: str, scale: int, units: int) -> None:
    await db.execute(
        "INSERT INTO royalties.cover (id, asset, scale, units) VALUES ($1, $2, $3, $4)", id_, asset, scale, units
    )


async def cover(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT asset, scale FROM royalties.cover WHERE id = $1", id_)


async def turn_cover(db: Any, id_: UUID, status: str) -> None:
    await db.execute("UPDATE royalties.cover SET status = $2 WHERE id = $1", id_, status)


_ENTRY = """
    SELECT id, account_id, kind, asset, scale, amount_units, happened_at, matures_at, work_id, revenue_kind,
           distribution_id, licence_id, ref, sequence
    FROM royalties.entry
"""


async def entries_of_account(
    db: Any, account_id: UUID, since: datetime, until: datetime, limit: int, asset: str | None = None,
    after: tuple[datetime, UUID] | None = None,
) -> list[Any]:  # fmt: skip
    """In the order of time; `after` is time and id of the last one before."""
    arguments: list[Any] = [account_id, since, until, limit]
    only = ""
    if asset is not None:
        arguments.append(asset)
        only += f" AND asset = ${len(arguments)}"
    if after is not None:
        arguments += after
        only += f" AND (happened_at, id) > (${len(arguments) - 1}, ${len(arguments)})"
    return list(
        await db.fetch(
            _ENTRY + "WHERE account_id = $1 AND happened_at >= $2 AND happened_at < $3" + only
            + " ORDER BY happened_at, id LIMIT $4",
            *arguments,
        )
    )  # fmt: skip


async def titles_until(db: Any, works: Collection[UUID], until: datetime) -> dict[UUID, str]:
    """What each work was called just before `until`, by the version that it had then."""
    rows = await db.fetch(
        """
        SELECT w.id, coalesce(convert_from(v.content, 'UTF8')::json ->> 'title', w.title) AS title
        FROM works.work w LEFT JOIN LATERAL (
            SELECT content FROM works.work_version
            WHERE work_id = w.id AND created_at < $2 ORDER BY number DESC LIMIT 1
        ) v ON true
        WHERE w.id = ANY($1)
        """,
        list(works), until,
    )  # fmt: skip
    return {row["id"]: row["title"] for row in rows}


async def sold_in(db: Any, distributions: Collection[UUID]) -> dict[UUID, Any]:
    """What was paid, the platform's part of it, and what for, by distribution."""
    rows = await db.fetch(
        "SELECT d.id, e.scale, e.gross_units, e.platform_units, e.purchase_id, e.licence_id"
        " FROM royalties.distribution d JOIN royalties.revenue_event e ON e.id = d.event_id WHERE d.id = ANY($1)",
        list(distributions),
    )
    return {row["id"]: row for row in rows}


async def totals_of(db: Any, account_id: UUID, since: date, until: date) -> list[Any]:
    """Of days of UTC, both of them part of it."""
    return list(
        await db.fetch(
            "SELECT asset, max(scale) AS scale, sum(earned)::bigint AS earned, sum(reversed)::bigint AS reversed,"
            " sum(paid)::bigint AS paid FROM royalties.daily WHERE account_id = $1 AND day BETWEEN $2 AND $3"
            " GROUP BY asset ORDER BY asset",
            account_id, since, until,
        )
    )  # fmt: skip


async def totals_of_work(db: Any, work_id: UUID) -> list[Any]:
    """Nobody is paid out of one work: `paid` is 0."""
    return list(
        await db.fetch(
            "SELECT asset, max(scale) AS scale, sum(earned)::bigint AS earned, sum(reversed)::bigint AS reversed,"
            " 0::bigint AS paid FROM royalties.work_income WHERE work_id = $1 GROUP BY asset ORDER BY asset",
            work_id,
        )
    )


async def balances(db: Any, account_id: UUID) -> list[Any]:
    """By asset: what has matured less what was paid, what has not, and what was paid.

    What refunds under way will take is held, whether it has matured or not. Of what matures later whole days are
    summed, of today spans of five minutes, and single entries of the span that it is: never more than there are days
    and spans of them.
    """
    return list(
        await db.fetch(
            """
            WITH sums AS (
                SELECT asset, max(scale) AS scale, sum(earned - reversed - paid) AS owed, sum(paid) AS paid
                FROM royalties.daily WHERE account_id = $1 GROUP BY asset
            ), held AS (
                SELECT asset, sum(units) AS units FROM (
                    SELECT asset, units FROM royalties.maturing
                    WHERE account_id = $1 AND span = '1 day' AND begins > now()
                    UNION ALL
                    SELECT asset, units FROM royalties.maturing
                    WHERE account_id = $1 AND span = '5 minutes' AND begins > now()
                      AND begins < date_bin('1 day', now(), 'epoch') + '1 day'
                    UNION ALL
                    SELECT asset, CASE kind WHEN 'earned' THEN amount_units ELSE -amount_units END FROM royalties.entry
                    WHERE account_id = $1 AND kind <> 'paid' AND matures_at > now()
                      AND matures_at < date_bin('5 minutes', now(), 'epoch') + '5 minutes'
                    UNION ALL
                    SELECT asset, units FROM royalties.set_aside WHERE account_id = $1
                ) later GROUP BY asset
            )
            SELECT s.asset, s.scale, (s.owed - coalesce(h.units, 0))::bigint AS payable,
                coalesce(h.units, 0)::bigint AS held, s.paid::bigint AS paid
            FROM sums s LEFT JOIN held h USING (asset) ORDER BY s.asset
            """,
            account_id,
        )
    )


# ------------------------------------------------------------ statements


_STATEMENT = """
    SELECT s.*, r.closed_at FROM royalties.statement s JOIN royalties.run r USING (period) WHERE r.state = 'closed'
"""


async def statements(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    position = "" if before is None else " AND s.id < $3"
    arguments = (account_id, limit) if before is None else (account_id, limit, before)
    return list(
        await db.fetch(_STATEMENT + f"AND s.account_id = $1{position} ORDER BY s.id DESC LIMIT $2", *arguments)
    )


async def statement(db: Any, id_: UUID, account_id: UUID) -> Any:
    return await db.fetchrow(_STATEMENT + "AND s.id = $1 AND s.account_id = $2", id_, account_id)


# ------------------------------------------------------------ payouts


async def insert_payout(db: Any, id_: UUID, account_id: UUID, asset: str, scale: int, units: int, ref: str) -> Any:
    return await db.fetchrow(
        "INSERT INTO royalties.payout (id, account_id, asset, scale, amount_units, ref) VALUES ($1, $2, $3, $4, $5, $6)"
        " RETURNING *",
        id_, account_id, asset, scale, units, ref,
    )  # fmt: skip


async def payout(db: Any, id_: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM royalties.payout WHERE id = $1", id_)


async def turn_payout(db: Any, id_: UUID, status: str, reason: str | None) -> Any:
    return await db.fetchrow(
        "UPDATE royalties.payout SET status = $2, reason = $3 WHERE id = $1 AND status = 'requested' RETURNING *",
        id_, status, reason,
    )  # fmt: skip


async def payouts(db: Any, account_id: UUID, before: UUID | None, limit: int) -> list[Any]:
    position = "" if before is None else " AND id < $3"
    arguments = (account_id, limit) if before is None else (account_id, limit, before)
    return list(
        await db.fetch(
            f"SELECT * FROM royalties.payout WHERE account_id = $1{position} ORDER BY id DESC LIMIT $2", *arguments
        )
    )
