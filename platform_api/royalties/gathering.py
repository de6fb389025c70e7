"""Transfers from more accounts than one command of the core reaches: gathered in the passing account of a work first.

    REF:0, REF:1 …    up to 64 postings each, from the payers into `work:ID`, one after the other
    REF               from `work:ID` to its receivers, with the flags that the whole was ordered with
    REF:1:back …      if the core refuses a part, or what was held is not given: what was gathered returns, last first

Whoever orders sees one command: its handler gets one answer for REF, a refusal only when everything is back. A transfer
of up to 64 postings is ordered as it is. Nothing is computed when commands are sent again: all of it is written with
the document. The next command is ordered in the transaction that notes the answer to the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import structlog

from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import KEPT_OUTSIDE, NEVER, MoneyAnswer, MoneyCommands, work_account
from platform_api.royalties import queries
from platform_api.royalties.postings import POSTINGS_MAX

__all__ = ["Gathering"]

log = structlog.get_logger(__name__)

PART, LAST, BACK = "gathering", "gathered", "gathering_back"
Leg = Mapping[str, str]


class _Plan(msgspec.Struct, frozen=True):
    """`parts`: finished commands that gather. `last`: the one that gives."""

    kind: str
    parts: list[dict[str, Any]]
    last: dict[str, Any]
    accounts: dict[str, str]


class Gathering:
    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._money = kernel.service(MoneyCommands)
        self._money.handle(PART, self._part_answered)
        self._money.handle(LAST, self._last_answered)
        self._money.handle(BACK, self._back_answered)

    async def order(
        self,
        db: Any,
        ref: str,
        kind: str,
        document_id: UUID,
        command: Mapping[str, Any],
        *,
        work_id: UUID,
        accounts: Mapping[str, str],
    ) -> None:
        """As `MoneyCommands.order`, for a transfer of any number of legs to few receivers. `settle` it afterwards."""
        legs: list[Leg] = command["legs"]
        if len(legs) <= POSTINGS_MAX:
            await self._money.order(
                db, ref, kind, document_id, command, accounts=accounts, kept=KEPT_OUTSIDE, mine=True
            )
            return
        passing = work_account(work_id)
        bare = {name: value for name, value in command.items() if name not in ("legs", "pending")}
        parts = [
            bare | {"legs": [dict(leg) | {"to": passing} for leg in legs[start : start + POSTINGS_MAX]]}
            for start in range(0, len(legs), POSTINGS_MAX)
        ]
        plan = _Plan(kind, parts, dict(command) | {"legs": _given(legs, passing)}, {passing: NEVER, **accounts})
        await queries.insert_gathering(db, ref, msgspec.json.encode(plan).decode())
        await self._order_part(db, ref, document_id, plan, 0)

    async def settle(self, ref: str) -> str:
        """As `MoneyCommands.settle`: `ordered` while it is gathered, or given back."""
        async with self._database.connection() as db:
            found = await queries.gathering(db, ref)
        if found is None:
            return await self._money.settle(ref)
        plan = _plan(found)
        for number in range(len(plan.parts)):
            if await self._money.settle(_part(ref, number)) != "posted":
                return "ordered"
        return await self._money.settle(ref)

    async def _order_part(self, db: Any, ref: str, document_id: UUID, plan: _Plan, number: int) -> None:
        await self._money.order(
            db, _part(ref, number), PART, document_id, plan.parts[number], accounts=plan.accounts, kept=KEPT_OUTSIDE
        )

    async def _part_answered(self, db: Any, answer: MoneyAnswer) -> None:
        ref, _, number = answer.ref.rpartition(":")
        plan = _plan(await queries.gathering(db, ref))
        following = int(number) + 1
        if answer.state != "posted":
            await self._give_back(db, MoneyAnswer(ref, answer.document_id, answer.state, answer.reason, None), plan,
                                  int(number) - 1)  # fmt: skip
        elif following < len(plan.parts):
            await self._order_part(db, ref, answer.document_id, plan, following)
        else:
            await self._money.order(
                db, ref, LAST, answer.document_id, plan.last, accounts=plan.accounts, kept=KEPT_OUTSIDE
            )

    async def _last_answered(self, db: Any, answer: MoneyAnswer) -> None:
        plan = _plan(await queries.gathering(db, answer.ref))
        if answer.state in ("posted", "pending"):
            await self._money.pass_on(db, plan.kind, answer)
        else:
            await self._give_back(db, answer, plan, len(plan.parts) - 1)

    async def _give_back(self, db: Any, answer: MoneyAnswer, plan: _Plan, number: int) -> None:
        """`answer`: what the handler is told when all parts up to this one have returned."""
        if number < 0:
            await self._money.pass_on(db, plan.kind, answer)
            return
        await queries.note_gathering(db, answer.ref, answer.state, answer.reason)
        command = plan.parts[number]
        legs = [leg | {"from": leg["to"], "to": leg["from"]} for leg in command["legs"]]
        await self._money.order(
            db, f"{_part(answer.ref, number)}:back", BACK, answer.document_id, command | {"legs": legs, "force": True},
            accounts={}, kept=KEPT_OUTSIDE,
        )  # fmt: skip

    async def _back_answered(self, db: Any, answer: MoneyAnswer) -> None:
        ref, number, _ = answer.ref.rsplit(":", 2)
        if answer.state != "posted":  # the money rests in the work's account until a person has looked
            log.error("gathering_not_returned", ref=answer.ref, state=answer.state, reason=answer.reason)
            return
        found = await queries.gathering(db, ref)
        told = MoneyAnswer(ref, answer.document_id, found["state"], found["reason"], None)
        await self._give_back(db, told, _plan(found), int(number) - 1)


def _given(legs: Sequence[Leg], passing: str) -> list[dict[str, str]]:
    """What was gathered, in one leg to each receiver."""
    sums: dict[tuple[str, str], Decimal] = {}
    for leg in legs:
        key = leg["asset"], leg["to"]
        sums[key] = sums.get(key, Decimal(0)) + Decimal(leg["amount"])
    return [
        {"from": passing, "asset": asset, "amount": f"{amount:f}", "to": receiver}
        for (asset, receiver), amount in sums.items()
    ]


def _plan(row: Any) -> _Plan:
    return msgspec.json.decode(row["plan"], type=_Plan)


def _part(ref: str, number: int) -> str:
    return f"{ref}:{number}"
