"""One work's part of a distribution as commands of the core. Pure.

A command has at most 64 postings, while a work may have a hundred payees and thirty works above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from platform_api.ledger.commands import FORCED, NEVER, work_account
from platform_api.money import decimal_text
from platform_api.royalties.split import Part, Payee

__all__ = ["PLATFORM", "POSTINGS_MAX", "Posting", "postings"]

PLATFORM = "platform:revenue"
POSTINGS_MAX = 64
"""Of one command: a rule of the core."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One transfer, the accounts that must be open for it, and the payees whose lines it makes true."""

    work_id: UUID
    legs: list[dict[str, Any]]
    accounts: dict[str, str]
    payees: list[tuple[Payee, int]]


def postings(part: Part, platform: int, asset: str, scale: int) -> list[Posting]:
    """What empties the passing account of a work: one transfer, or as many as its receivers need; none for no money.

    `platform` units leave it first. The core divides by `shares` what fits into one command; more receivers get
    finished amounts, which are the same.
    """
    source = work_account(part.work_id)

    def leg(units: int, **to: Any) -> dict[str, Any]:
        return {"from": source, "asset": asset, "amount": decimal_text(units, scale)} | to

    first = Posting(part.work_id, [], {source: NEVER}, [])
    if platform:
        first.legs.append(leg(platform, to=PLATFORM))
        first.accounts[PLATFORM] = FORCED
    for parent, units in part.above:
        first.legs.append(leg(units, to=work_account(parent)))
        first.accounts[work_account(parent)] = NEVER
    if len(first.legs) + len(part.lines) <= POSTINGS_MAX:
        first.payees.extend(part.lines)
        for payee, units in part.between:
            if units:
                first.legs.append(leg(units, to=payee.key))
                first.accounts[payee.key] = FORCED
        if part.kept:
            shares = [{"to": payee.key, "weight": payee.bps} for payee, _ in part.payees]
            first.legs.append(leg(part.kept, shares=shares))
            first.accounts.update((payee.key, FORCED) for payee, _ in part.payees)
        return [first] if first.legs else []
    commands = [first]
    for payee, units in part.lines:
        if len(commands[-1].legs) == POSTINGS_MAX:
            commands.append(Posting(part.work_id, [], {source: NEVER}, []))
        last = commands[-1]
        last.payees.append((payee, units))
        if units:
            last.legs.append(leg(units, to=payee.key))
            last.accounts[payee.key] = FORCED
    return [command for command in commands if command.legs]
