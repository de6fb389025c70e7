"""`byline money`: commands of money that are stuck, and what a person decides of them by what the core shows.

A command is stuck if the core keeps its ref for another one: mostly its own from before people's data was restored from
a copy, which is the same but for the time until which it holds. Works on the database itself, as `byline people` does.
What is decided is checked before anything is written, has its audit entry, and is done by a job of the platform's, as
an answer of the core would be (docs/decisions/0080).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from byline.people import connected, dsn_of
from byline.running import running_process
from byline.settings import Settings
from engine.messages.errors import SettingsInvalid, Unavailable
from platform_api.kernel.audit import Audit
from platform_api.kernel.jobs import Jobs
from platform_api.ledger.commands import ResolveMoney
from platform_api.money import decimal_text, units_of
from platform_api.royalties.split import largest_remainder

__all__ = ["Decision", "resolve", "stuck"]

Decision = Literal["posted", "refused"]

_STUCK = """
    SELECT ref, kind, document_id, body, reason, updated_at,
           EXISTS (SELECT FROM jobs.pgqueuer j WHERE j.entrypoint = 'payments'
                   AND convert_from(j.payload, 'UTF8')::jsonb ->> 'kind' = 'resolve_money'
                   AND convert_from(j.payload, 'UTF8')::jsonb -> 'body' ->> 'ref' = c.ref) AS decided
    FROM money.command c WHERE state = 'stuck' ORDER BY created_at LIMIT $1
"""
_SHOWN = """
    SELECT p.sequence, s.name AS asset, s.scale, p.amount, f.name AS source, t.name AS target
    FROM exchange.posting p JOIN exchange.asset s ON s.id = p.asset_id
    JOIN exchange.account f ON f.id = p.source_id JOIN exchange.account t ON t.id = p.target_id
    WHERE p.ref = $1 ORDER BY p.sequence, p.event_index, p.number
"""


@dataclass(frozen=True, slots=True, order=True)
class _Move:
    source: str
    target: str
    asset: str
    amount: str

    def __str__(self) -> str:
        return f"{self.amount} {self.asset}: {self.source} → {self.target}"


def stuck(settings: Settings, limit: int = 100) -> list[str]:
    """Lines: the oldest of them, each with kind, document, since when, what it wants to move, and what was moved under
    its ref as far as the core's events are projected. Empty: there are none.

    Raises Unavailable.
    """
    return asyncio.run(_stuck(dsn_of(settings), limit))


def resolve(settings: Settings, ref: str, decision: Decision, reason: str) -> str:
    """Decide what became of a stuck command. Returns what was done, in words.

    Raises SettingsInvalid (there is no such stuck command, it is decided, or the core shows otherwise), Unavailable
    (the database, the core, or what is projected of its events is behind it).
    """
    core_at = int(running_process(settings.data_directory, "core")["sequence"])
    return asyncio.run(_resolve(dsn_of(settings), ref, decision, reason, core_at))


async def _stuck(dsn: str, limit: int) -> list[str]:
    async with connected(dsn) as connection:
        rows = await connection.fetch(_STUCK, limit)
        scales = await _scales(connection)
        shown = {row["ref"]: await _shown(connection, row["ref"]) for row in rows}
        projected = await _projected(connection)
    if not rows:
        return []
    lines = [f"Stuck commands of money, as of the core's command {projected:,}:"]
    for row in rows:
        sequence, moved = shown[row["ref"]]
        lines += [
            f"{row['ref']}  {row['kind']} {row['document_id']}, since {row['updated_at']:%Y-%m-%d %H:%M:%S} UTC",
            *_list("wants", _wanted(row["body"], scales)),
            *_list("the core shows", moved, f"by command {sequence:,}" if sequence else ""),
        ]
        if msgspec.json.decode(row["body"]).get("pending"):
            lines.append("    it is a hold: what the core only holds under its ref is not shown")
        if row["decided"]:
            lines.append("    decided: a job does it")
    return lines


def _list(name: str, moves: Sequence[_Move], more: str = "") -> Iterator[str]:
    for number, text in enumerate([*map(str, moves), *([more] if more else [])] or ["nothing"]):
        yield f"    {name if number == 0 else '':<14}  {text}"


async def _resolve(dsn: str, ref: str, decision: Decision, reason: str, core_at: int) -> str:
    """`core_at`: where the core is. What ran under a ref that it calls another's is older."""
    if not reason.strip():
        raise SettingsInvalid("reason: say why, for the audit trail")
    async with connected(dsn) as connection, connection.transaction():
        row = await connection.fetchrow(
            "SELECT ref, state, body, reason, document_id FROM money.command WHERE ref = $1 FOR UPDATE", ref
        )
        if row is None:
            raise SettingsInvalid(f"no command of money has the ref {ref}: `byline money list` shows what is stuck")
        if row["state"] != "stuck":
            raise SettingsInvalid(f"{ref} is {row['state']}: only what is stuck is decided")
        projected = await _projected(connection)
        if projected < core_at:  # what is not shown yet would look like what never happened
            raise Unavailable(
                f"the core's events are projected to command {projected:,} of {core_at:,}: `byline status` tells when "
                "they have caught up; then again"
            )
        sequence, moved = await _shown(connection, ref)
        _check(row["body"], decision, _wanted(row["body"], await _scales(connection)), moved)
        # Nothing is refused for what the core shows from here on.
        done = sequence if decision == "posted" else None
        jobs = Jobs()
        jobs.handle("payments", "resolve_money", ResolveMoney, _not_here)
        if not await jobs.enqueue(
            connection, "payments", "resolve_money", ResolveMoney(ref, decision, done), dedupe_key=ref
        ):
            raise SettingsInvalid(f"{ref} is decided already: a job does it")
        await Audit().record(
            connection, "money.resolved", ("money_command", ref), actor=None,
            old={"state": "stuck", "reason": row["reason"], "moved": [str(move) for move in moved]},
            new={"state": decision, "sequence": done, "reason": reason},
        )  # fmt: skip
    return f"{ref} is {decision}: a job of the platform tells its document {row['document_id']}"


def _check(body: str, decision: Decision, wanted: Sequence[_Move], moved: Sequence[_Move]) -> None:
    """Raises SettingsInvalid for what the core shows otherwise."""
    same = sorted(wanted) == sorted(moved)
    if decision == "refused" and same:
        raise SettingsInvalid("the core shows that just this was moved under the ref: --as posted")
    if decision == "posted" and not same and msgspec.json.decode(body).get("pending"):
        raise SettingsInvalid("it is a hold, of which the core shows no end: it can be --as refused alone")
    if decision == "posted" and not same:
        raise SettingsInvalid(
            f"the command wants to move {_line(wanted)}; the core shows under its ref: {_line(moved)}. It did not "
            "happen: --as refused"
        )


async def _shown(connection: Any, ref: str) -> tuple[int | None, list[_Move]]:
    rows = await connection.fetch(_SHOWN, ref)
    moved = [
        _Move(row["source"], row["target"], row["asset"], decimal_text(row["amount"], row["scale"])) for row in rows
    ]
    return (rows[0]["sequence"] if rows else None), moved


async def _projected(connection: Any) -> int:
    """To which command of the core. The assets and moves of later ones are not there yet."""
    return int(await connection.fetchval("SELECT sequence FROM exchange.projection") or 0)


async def _scales(connection: Any) -> dict[str, int]:
    return {row["name"]: row["scale"] for row in await connection.fetch("SELECT name, scale FROM exchange.asset")}


def _wanted(body: str, scales: dict[str, int]) -> list[_Move]:
    """What the core would post of this command."""
    command = msgspec.json.decode(body)
    if command["op"] == "deposit":
        place = command.get("place", "system:external")
        legs = [{"from": place, "to": command["account"], "asset": command["asset"], "amount": command["amount"]}]
    else:
        legs = command["legs"]
    moves = []
    for leg in legs:
        if (scale := scales.get(leg["asset"])) is None:
            raise Unavailable(f"the asset {leg['asset']} is not projected yet: again in a moment")
        units = units_of(leg["amount"], scale)
        shares = leg.get("shares") or [{"to": leg["to"], "weight": 1}]
        parts = largest_remainder(units, [share["weight"] for share in shares])
        moves += [
            _Move(leg["from"], share["to"], leg["asset"], decimal_text(part, scale))
            for share, part in zip(shares, parts, strict=True) if part
        ]  # fmt: skip
    return moves


def _line(moves: Sequence[_Move]) -> str:
    return ", ".join(map(str, moves)) or "nothing"


async def _not_here(job: ResolveMoney) -> None:
    raise AssertionError(f"{job.ref}: the platform's own process does it")
