"""SQL of the schema `tokens`. Each function takes the connection that its caller's transaction is on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from platform_api.database import insertion

PUBLIC = "status NOT IN ('reserved', 'failed')"


async def taken(db: Any, symbol: str) -> bool:
    """Is there a token of this symbol, launched or being launched?"""
    query = "SELECT true FROM tokens.token WHERE symbol = $1 AND status <> 'failed'"
    return bool(await db.fetchval(query, symbol))


async def holder_of(db: Any, symbol: str) -> UUID | None:
    """Whose reservation of the symbol stands now."""
    account_id: UUID | None = await db.fetchval(
        "SELECT account_id FROM tokens.symbol_reservation"
        " WHERE symbol = $1 AND (status = 'used' OR status = 'held' AND expires_at > now()) AND status <> 'expired'",
        symbol,
    )
    return account_id


async def expire(db: Any, symbol: str, account_id: UUID) -> None:
    """What is over of this symbol and of this account makes room."""
    over = "UPDATE tokens.symbol_reservation SET status = 'expired' WHERE status = 'held' AND expires_at <= now()"
    await db.execute(f"{over} AND symbol = $1 AND status <> 'expired'", symbol)
    await db.execute(f"{over} AND account_id = $1", account_id)


async def held_count(db: Any, account_id: UUID) -> int:
    """Until the transaction ends nobody else counts them, who would not see what this one reserves."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('symbols ' || $1::uuid::text, 0))", account_id)
    query = "SELECT count(*) FROM tokens.symbol_reservation WHERE account_id = $1 AND status = 'held'"
    count: int = await db.fetchval(query, account_id)
    return count


async def reserve(db: Any, reservation_id: UUID, symbol: str, account_id: UUID, expires_at: datetime) -> Any:
    """The reservation that stands now, whose ever it is; locked."""
    await db.execute(
        "INSERT INTO tokens.symbol_reservation (id, symbol, account_id, expires_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (symbol) WHERE status <> 'expired' DO NOTHING",
        reservation_id, symbol, account_id, expires_at,
    )  # fmt: skip
    return await db.fetchrow(
        "SELECT * FROM tokens.symbol_reservation WHERE symbol = $1 AND status <> 'expired' FOR UPDATE", symbol
    )


async def set_reservation(db: Any, symbol: str, status: str) -> None:
    await db.execute(
        "UPDATE tokens.symbol_reservation SET status = $2 WHERE symbol = $1 AND status <> 'expired'", symbol, status
    )


async def token_of_creator(db: Any, creator_id: UUID) -> Any:
    query = "SELECT * FROM tokens.token WHERE creator_id = $1 AND status <> 'failed'"
    return await db.fetchrow(query, creator_id)


async def insert_token(db: Any, fields: Mapping[str, Any]) -> Any:
    insert, values = insertion("tokens.token", fields)
    return await db.fetchrow(f"{insert} RETURNING *", *values)


async def token(db: Any, token_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM tokens.token WHERE id = $1", token_id)


async def token_by_symbol(db: Any, symbol: str) -> Any:
    return await db.fetchrow("SELECT * FROM tokens.token WHERE symbol = $1 AND status <> 'failed'", symbol)


async def tokens_of_symbols(db: Any, symbols: list[str]) -> list[Any]:
    rows: list[Any] = await db.fetch(
        "SELECT * FROM tokens.token WHERE symbol = ANY($1) AND status <> 'failed'", symbols
    )
    return rows


async def lock_token(db: Any, token_id: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM tokens.token WHERE id = $1 FOR UPDATE", token_id)


async def lock_token_of_market(db: Any, market: str) -> Any:
    return await db.fetchrow("SELECT * FROM tokens.token WHERE market = $1 AND status <> 'failed' FOR UPDATE", market)


async def update_token(db: Any, token_id: UUID, fields: Mapping[str, Any]) -> Any:
    sets = "".join(f"{column} = ${position}, " for position, column in enumerate(fields, 2))
    return await db.fetchrow(
        f"UPDATE tokens.token SET {sets}version = version + 1, updated_at = now() WHERE id = $1 RETURNING *",
        token_id, *fields.values(),
    )  # fmt: skip


async def tokens(
    db: Any, status: str | None, creator_id: UUID | None, before: UUID | None, limit: int
) -> list[Any]:
    """Public ones, the latest first."""
    arguments: list[Any] = []
    conditions = [PUBLIC]
    for condition, value in (("status = ", status), ("creator_id = ", creator_id), ("id < ", before)):
        if value is not None:
            arguments.append(value)
            conditions.append(f"{condition}${len(arguments)}")
    rows: list[Any] = await db.fetch(
        f"SELECT * FROM tokens.token WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ${len(arguments) + 1}",
        *arguments, limit,
    )  # fmt: skip
    return rows


async def insert_command(
    db: Any, market: str, token_id: UUID | None, step: str, ref: str, body: str, actor: UUID
) -> bool:
    """False if it is there already."""
    tag = await db.execute(
        "INSERT INTO tokens.command (market, token_id, step, ref, body, actor) VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (ref) DO NOTHING",
        market, token_id, step, ref, body, actor,
    )  # fmt: skip
    return bool(tag == "INSERT 0 1")


async def next_command(db: Any, market: str) -> Any:
    return await db.fetchrow(
        "SELECT * FROM tokens.command WHERE market = $1 AND state = 'waiting' ORDER BY id LIMIT 1", market
    )


async def markets_waiting(db: Any, age: timedelta) -> list[str]:
    """With a command that has waited so long, the oldest first."""
    rows = await db.fetch(
        "SELECT market FROM tokens.command WHERE state = 'waiting' AND created_at < now() - $1::interval"
        " GROUP BY market ORDER BY min(id)",
        age,
    )  # fmt: skip
    return [row["market"] for row in rows]


async def waiting_steps(db: Any, market: str) -> set[str]:
    rows = await db.fetch("SELECT step FROM tokens.command WHERE market = $1 AND state = 'waiting'", market)
    return {row["step"] for row in rows}


async def command(db: Any, ref: str) -> Any:
    return await db.fetchrow("SELECT * FROM tokens.command WHERE ref = $1", ref)


async def refs_to_payees(db: Any) -> list[str]:
    """Of commands that may have paid proceeds out and are not decided."""
    rows = await db.fetch("SELECT ref FROM tokens.command WHERE step = 'proceeds' AND state = 'waiting'")
    return [row["ref"] for row in rows]


async def decide(db: Any, command_id: int, state: str, reason: str | None, sequence: int | None) -> bool:
    """Whether it was still open: of two that bring an answer, one has its effects."""
    tag = await db.execute(
        "UPDATE tokens.command SET state = $2, reason = $3, sequence = $4, decided_at = now()"
        " WHERE id = $1 AND state = 'waiting'",
        command_id, state, reason, sequence,
    )  # fmt: skip
    return bool(tag == "UPDATE 1")


async def give_up(db: Any, token_id: UUID) -> None:
    """What would have followed a refused step of a launch."""
    await db.execute(
        "UPDATE tokens.command SET state = 'refused', reason = 'launch_failed', decided_at = now()"
        " WHERE token_id = $1 AND state = 'waiting'",
        token_id,
    )


async def steps_of(db: Any, token_id: UUID, before: int | None, limit: int) -> list[Any]:
    """What the core did for a token and everybody may see, the latest first; `before` is a command id."""
    rows: list[Any] = await db.fetch(
        "SELECT id, step, body, sequence, decided_at FROM tokens.command"
        " WHERE token_id = $1 AND state = 'done' AND step IN ('mint', 'share', 'open', 'halt', 'resume', 'close')"
        " AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        token_id, before, limit,
    )  # fmt: skip
    return rows
